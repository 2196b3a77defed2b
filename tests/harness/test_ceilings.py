"""A ceiling fails like any requirement, and shows value, margin and trend."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.conformance.ceilings import Ceilings
from harness.conformance.ledger import Ledger, read_ledger
from harness.conformance.recording import Recorder, recording
from harness.errors import UsageError

LEDGER = """
requirements:
- {id: RES-A, level: MUST, sentence: S., source: x, applies_to: [ours], profile: core, observe: x, ceiling: CEILING}
- {id: RES-B, level: MUST, sentence: S., source: x, applies_to: [ours], profile: core, observe: x}
"""
CEILING = "{metric: memory, unit: MiB, most: 50}"


def ledger(directory: Path, ceiling: str = CEILING) -> Ledger:
    (directory / "a.yaml").write_text(LEDGER.replace("CEILING", ceiling))
    return read_ledger(directory)


def measured(ceilings: Ceilings, value: float) -> Recorder:
    recorder = Recorder("t", ("RES-A",))
    with recording(recorder):
        ceilings.hold("RES-A", value)
    return recorder


@pytest.mark.parametrize(("value", "holds"), [(50.0, True), (50.01, False)])
def test_a_ceiling_decides(tmp_path: Path, value: float, *, holds: bool) -> None:
    (entry,) = measured(Ceilings(ledger(tmp_path), tmp_path / "history", "ours"), value).checks

    assert (entry.what, entry.expected, entry.observed, entry.holds) == ("memory", "at most 50 MiB", value, holds)


def test_margin_and_trend_are_shown(tmp_path: Path) -> None:
    for leg, value in (("ours", 31.0), ("ours", 32.5), ("kind", 99.0)):
        measured(Ceilings(ledger(tmp_path), tmp_path / "history", leg), value)

    recorder = measured(Ceilings(ledger(tmp_path), tmp_path / "history", "ours"), 40)

    (evidence,) = recorder.evidence
    assert evidence.content == "40 of 50 MiB: margin 20%\nearlier runs, oldest first: 31, 32.5"
    lines = (tmp_path / "history" / "ceilings.jsonl").read_text().splitlines()
    assert [json.loads(line)["observed"] for line in lines] == [31.0, 32.5, 99.0, 40]


@pytest.mark.parametrize(("value", "holds"), [(0, True), (1, False)])
def test_a_ceiling_of_none_at_all_has_no_margin(tmp_path: Path, value: int, *, holds: bool) -> None:
    nothing = ledger(tmp_path, "{metric: lost, unit: reads, most: 0}")

    recorder = measured(Ceilings(nothing, tmp_path / "history", "ours"), value)

    assert [entry.holds for entry in recorder.checks] == [holds]
    assert recorder.evidence[0].content.startswith(f"{value} of 0 reads\n")


def test_a_requirement_without_a_ceiling_has_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="RES-B has no ceiling"):
        Ceilings(ledger(tmp_path), tmp_path, "ours").hold("RES-B", 1)


@pytest.mark.parametrize(
    "ceiling", ["5", "{metric: m, unit: u}", "{metric: m, unit: u, most: -1}", "{metric: m, unit: u, most: yes}"]
)
def test_what_is_no_ceiling_is_refused(tmp_path: Path, ceiling: str) -> None:
    with pytest.raises(UsageError, match="RES-A: ceiling must have a metric, a unit and a number as most"):
        ledger(tmp_path, ceiling)
