"""What a failed check says."""

from __future__ import annotations

from typing import Any

import pytest

from harness.conformance.recording import Recorder, check, recording


def said(expected: Any, observed: Any) -> list[str]:
    recorder = Recorder("t", ("AGT-1",))
    with recording(recorder):
        check("AGT-1", expected=expected, observed=observed, what="answer")
    (text,) = recorder.failures()
    return text.splitlines()


def test_two_values_stand_side_by_side() -> None:
    assert said(200, 500) == ["AGT-1 (answer)", "  expected: 200", "  observed: 500"]


@pytest.mark.parametrize(
    ("expected", "observed", "difference"),
    [
        ({"a": 1, "b": 2}, {"a": 1, "b": 3}, ['    -  "b": 2', '    +  "b": 3']),
        ([1, 2, 3], [1, 3], ["    -  2,"]),
        ("one\ntwo", "one\nthree", ["    - two", "    + three"]),
        ({"a": 1}, None, []),
    ],
    ids=["mapping", "list", "text", "nothing to compare"],
)
def test_what_differs_stands_between_them(expected: Any, observed: Any, difference: list[str]) -> None:
    lines = said(expected, observed)

    assert lines[2:-1] == difference
    assert lines[-1].startswith("  observed: ")


def test_a_long_difference_is_cut_with_a_note() -> None:
    lines = said(list(range(100)), [f"x{number}" for number in range(100)])

    assert lines[-2] == "    … 200 lines differ"
    assert len(lines) == 24
