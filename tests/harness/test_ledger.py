"""The requirement ledger is read strictly: a typo must not empty the gate."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.conformance.ledger import read_ledger
from harness.errors import UsageError

SUITES = Path(__file__).parents[2] / "suites"
GOOD = "{id: AGT-1, level: MUST, sentence: s, source: u}"


def write(directory: Path, name: str, *entries: str) -> None:
    (directory / name).write_text("requirements:\n" + "".join(f"- {entry}\n" for entry in entries))


def test_entries_of_all_files_are_found_by_id(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", GOOD)
    write(tmp_path, "b.yaml", GOOD.replace("AGT-1", "WHK-1"))

    ledger = read_ledger(tmp_path)

    assert sorted(ledger) == ["AGT-1", "WHK-1"]
    assert ledger["AGT-1"].sentence == "s"


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        (GOOD.replace("sentence: s, ", ""), "missing sentence"),
        (GOOD.replace("source", "sauce"), "unknown field sauce"),
        (GOOD.replace("MUST", "must"), "level 'must' is none of MUST, SHOULD, MAY"),
        (GOOD.replace("AGT-1", '"AGT[1]"'), "not an ID"),
    ],
)
def test_a_faulty_entry_is_refused_by_name(tmp_path: Path, entry: str, fault: str) -> None:
    write(tmp_path, "a.yaml", entry)

    with pytest.raises(UsageError, match=r"a\.yaml: AGT") as error:
        read_ledger(tmp_path)

    assert fault in str(error.value)


def test_an_id_in_two_files_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", GOOD)
    write(tmp_path, "b.yaml", GOOD)

    with pytest.raises(UsageError, match=r"b\.yaml: AGT-1: also in a\.yaml"):
        read_ledger(tmp_path)


def test_a_file_that_is_no_yaml_is_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", "{id: [")

    with pytest.raises(UsageError, match=r"a\.yaml: .*line 3"):
        read_ledger(tmp_path)


def test_our_own_ledger_is_valid() -> None:
    assert len(read_ledger(SUITES / "requirements")) > 50
