"""The requirement ledger is read strictly: a typo must not empty the gate."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.conformance.ledger import read_ledger
from harness.conformance.selection import select
from harness.errors import UsageError

SUITES = Path(__file__).parents[2] / "suites"
GOOD = "{id: AGT-1, level: MUST, sentence: s, source: u, applies_to: [ours], profile: core, observe: unit}"


def write(directory: Path, name: str, *entries: str) -> None:
    (directory / name).write_text("requirements:\n" + "".join(f"- {entry}\n" for entry in entries))


def test_entries_of_all_files_are_found_by_id(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", GOOD)
    write(tmp_path, "b.yaml", GOOD.replace("AGT-1", "WHK-1").replace("observe", "untestable: no clock, observe"))

    ledger = read_ledger(tmp_path)

    assert sorted(ledger) == ["AGT-1", "WHK-1"]
    assert (ledger["AGT-1"].sentence, ledger["AGT-1"].area, ledger["AGT-1"].applies_to) == ("s", "AGT", ("ours",))
    assert (ledger["AGT-1"].untestable, ledger["WHK-1"].untestable) == ("", "no clock")


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        (GOOD.replace("sentence: s, ", ""), "missing sentence"),
        (GOOD.replace("source", "sauce"), "unknown field sauce"),
        (GOOD.replace("MUST", "must"), "level 'must' is none of MUST, SHOULD, MAY"),
        (GOOD.replace("AGT-1", '"AGT[1]"'), "not an ID"),
        (GOOD.replace("[ours]", "ours"), "applies_to 'ours' is no list of ours or upstream"),
        (GOOD.replace("[ours]", "[]"), "applies_to [] is no list"),
        (GOOD.replace("[ours]", "[theirs]"), "applies_to ['theirs'] is no list"),
        (GOOD.replace("sentence: s", "sentence: 5"), "sentence must be a text, not 5"),
        (GOOD.replace("}", ", untestable: ''}"), "untestable must be a text"),
    ],
)
def test_a_faulty_entry_is_refused_by_name(tmp_path: Path, entry: str, fault: str) -> None:
    write(tmp_path, "a.yaml", entry)

    with pytest.raises(UsageError, match=r"a\.yaml: AGT") as error:
        read_ledger(tmp_path)

    assert fault in str(error.value)


def test_all_faults_are_named_at_once(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", GOOD.replace("MUST", "must"), "just words", GOOD)
    write(tmp_path, "b.yaml", GOOD.replace("source", "sauce"))

    with pytest.raises(UsageError) as error:
        read_ledger(tmp_path)

    for fault in ("level 'must'", "'just words': not a mapping", "missing source", "a.yaml: AGT-1: also in a.yaml"):
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


@pytest.mark.parametrize(
    ("only", "selected"),
    [
        ([], {"AGT-1", "AGT-12", "WHK-1"}),
        (["AGT-*"], {"AGT-1", "AGT-12"}),
        (["AGT-12", "WHK-1"], {"AGT-12", "WHK-1"}),
        (["!AGT-*"], {"WHK-1"}),
        (["AGT-*", "!AGT-12"], {"AGT-1"}),
    ],
)
def test_patterns_select_and_leave_out(tmp_path: Path, only: list[str], selected: set[str]) -> None:
    write(tmp_path, "a.yaml", *(GOOD.replace("AGT-1", name) for name in ("AGT-1", "AGT-12", "WHK-1")))

    assert select(read_ledger(tmp_path), only, []) == selected


def test_a_pattern_without_a_match_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", GOOD)

    with pytest.raises(UsageError, match="no requirement matches 'ATG-1'\ndid you mean AGT-1"):
        select(read_ledger(tmp_path), ["ATG-1"], [])
