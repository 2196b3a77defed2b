"""The requirement ledger is read strictly: a typo must not empty the gate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from harness.conformance.frozen import FrozenSet, freeze, read_all, read_frozen
from harness.conformance.ledger import ledger_schema, read_ledger
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


FAULTY = [
    (GOOD.replace("sentence: s, ", ""), "missing sentence"),
    (GOOD.replace("sentence: s, ", "sentence: s, evidence: inferred, "), "what is only inferred cannot be a MUST"),
    (GOOD.replace("sentence: s, ", "sentence: s, evidence: rumour, "), "evidence 'rumour' is none of documented,"),
    (GOOD.replace("source", "sauce"), "unknown field sauce"),
    (GOOD.replace("MUST", "must"), "level 'must' is none of MUST, SHOULD, MAY"),
    (GOOD.replace("AGT-1", '"AGT[1]"'), "not an ID"),
    (GOOD.replace("[ours]", "ours"), "applies_to 'ours' is no list of ours or upstream"),
    (GOOD.replace("[ours]", "[]"), "applies_to [] is no list"),
    (GOOD.replace("[ours]", "[theirs]"), "applies_to ['theirs'] is no list"),
    (GOOD.replace("sentence: s", "sentence: 5"), "sentence must be a text, not 5"),
    (GOOD.replace("}", ", untestable: ''}"), "untestable must be a text"),
    (GOOD.replace("}", ", withdrawn: soon}"), "withdrawn must have in, reason and maybe superseded_by"),
    (GOOD.replace("}", ", withdrawn: {reason: wrong}}"), "withdrawn must have in, reason"),
]


@pytest.mark.parametrize(("entry", "fault"), FAULTY)
def test_a_faulty_entry_is_refused_by_name(tmp_path: Path, entry: str, fault: str) -> None:
    write(tmp_path, "a.yaml", entry)

    with pytest.raises(UsageError, match=r"a\.yaml(:2)?: AGT") as error:
        read_ledger(tmp_path)

    assert fault in str(error.value)


def test_all_faults_are_named_at_once(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", GOOD.replace("MUST", "must"), "just words", GOOD)
    write(tmp_path, "b.yaml", GOOD.replace("source", "sauce"))

    with pytest.raises(UsageError) as error:
        read_ledger(tmp_path)

    for fault in ("level 'must'", "'just words': not a mapping", "missing source", "a.yaml:2: AGT-1: also in a.yaml"):
        assert fault in str(error.value)


def test_an_id_in_two_files_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", GOOD)
    write(tmp_path, "b.yaml", GOOD)

    with pytest.raises(UsageError, match=r"b\.yaml:2: AGT-1: also in a\.yaml"):
        read_ledger(tmp_path)


def test_a_file_that_is_no_yaml_is_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", "{id: [")

    with pytest.raises(UsageError, match=r"a\.yaml: .*line 3"):
        read_ledger(tmp_path)


def test_our_own_ledger_is_valid() -> None:
    assert len(read_ledger(SUITES / "requirements")) > 50


def asked(directory: Path, only: list[str], file: str = "suites/test_s3.py") -> set[str]:
    ledger = read_ledger(directory)
    selection = select(ledger, only, [], ["test_s3", "test_irsa"])
    return {entry.id for entry in ledger.values() if selection.asks(entry, file)}


@pytest.mark.parametrize(
    ("only", "selected"),
    [
        ([], {"AGT-1", "AGT-12", "WHK-1"}),
        (["AGT-*"], {"AGT-1", "AGT-12"}),
        (["AGT-12", "WHK-1"], {"AGT-12", "WHK-1"}),
        (["!AGT-*"], {"WHK-1"}),
        (["AGT-*", "!AGT-12"], {"AGT-1"}),
        (["AGT-* !AGT-12"], {"AGT-1"}),
        (["AGT-* !AGT-12", "WHK-1"], {"AGT-1", "WHK-1"}),
        (["req:WHK-*"], {"WHK-1"}),
        (["level:MUST profile:c*"], {"AGT-1", "AGT-12", "WHK-1"}),
        (["!level:MUST"], set()),
        (["scenario:test_s3 AGT-12"], {"AGT-12"}),
        (["scenario:test_irsa"], set()),
        (["!scenario:test_s3"], set()),
    ],
)
def test_patterns_select_and_leave_out(tmp_path: Path, only: list[str], selected: set[str]) -> None:
    write(tmp_path, "a.yaml", *(GOOD.replace("AGT-1", name) for name in ("AGT-1", "AGT-12", "WHK-1")))

    assert asked(tmp_path, only) == selected


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("ATG-1", "no requirement matches 'ATG-1'\ndid you mean AGT-1"),
        ("AGT-1 profile:cora", "no profile matches 'cora'\ndid you mean core"),
        ("!scenario:test_s4", "no scenario matches 'test_s4'\ndid you mean test_s3"),
        ("sort:x", "no kind of term 'sort'"),
    ],
)
def test_a_term_without_a_match_is_refused(tmp_path: Path, expression: str, text: str) -> None:
    write(tmp_path, "a.yaml", GOOD)

    with pytest.raises(UsageError, match=text):
        asked(tmp_path, [expression])


# --- Frozen sets and withdrawals ------------------------------------------------------------------------------------


@pytest.fixture
def frozen(tmp_path: Path) -> FrozenSet:
    write(tmp_path, "a.yaml", GOOD, GOOD.replace("AGT-1", "AGT-2"), GOOD.replace("AGT-1", "AGT-3"))
    file = freeze(tmp_path / "frozen", "0.1.0", read_ledger(tmp_path), {"AGT-1", "AGT-2"})
    assert file.read_text().startswith("# What release 0.1.0 is held to")
    return read_frozen(tmp_path / "frozen", "0.1.0")


def test_what_a_test_decides_is_frozen_and_a_release_only_once(tmp_path: Path, frozen: FrozenSet) -> None:
    assert (list(frozen.digests), len(frozen.sha256)) == (["AGT-1", "AGT-2"], 64)
    assert frozen.complaints(read_ledger(tmp_path)) == []
    with pytest.raises(UsageError, match=r"release 0\.1\.0 is frozen already"):
        freeze(tmp_path / "frozen", "0.1.0", read_ledger(tmp_path), {"AGT-1"})


@pytest.mark.parametrize(
    ("before", "after"), [("MUST", "MAY"), ("sentence: s", "sentence: t"), ("core", "irsa"), ("[ours]", "[upstream]")]
)
def test_what_is_frozen_keeps_its_meaning(tmp_path: Path, frozen: FrozenSet, before: str, after: str) -> None:
    write(tmp_path, "a.yaml", GOOD.replace(before, after))

    assert [complaint.partition(",")[0] for complaint in frozen.complaints(read_ledger(tmp_path))] == [
        "AGT-1: level",
        "AGT-2: gone",
    ]


def test_source_and_observation_may_change(tmp_path: Path, frozen: FrozenSet) -> None:
    changed = GOOD.replace("source: u", "source: v").replace("observe: unit", "observe: e2e")
    write(tmp_path, "a.yaml", changed, changed.replace("AGT-1", "AGT-2"))

    assert frozen.complaints(read_ledger(tmp_path)) == []


def test_a_release_that_is_not_frozen_is_refused_with_those_that_are(tmp_path: Path, frozen: FrozenSet) -> None:
    assert frozen.release == "0.1.0"
    with pytest.raises(UsageError, match=r"no release '0\.2\.0' is frozen; known: 0\.1\.0"):
        read_frozen(tmp_path / "frozen", "0.2.0")
    with pytest.raises(UsageError, match="is no name of a release"):
        read_frozen(tmp_path / "frozen", "../escape")


def test_a_withdrawn_requirement_stays_with_release_and_reason(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", GOOD.replace("}", ", withdrawn: {in: 0.2.0, reason: wrong, superseded_by: AGT-9}}"))

    assert read_ledger(tmp_path)["AGT-1"].withdrawn == "0.2.0: wrong; superseded by AGT-9"


def test_our_own_frozen_releases_are_kept() -> None:
    ledger = read_ledger(SUITES / "requirements")

    assert [text for each in read_all(SUITES / "requirements" / "frozen") for text in each.complaints(ledger)] == []


# --- The published schema -------------------------------------------------------------------------------------------


def schema_faults(text: str) -> list[str]:
    validator: Any = jsonschema.Draft202012Validator(ledger_schema())
    return [error.message for error in validator.iter_errors(yaml.safe_load(text))]


@pytest.mark.parametrize("entry", [entry for entry, _ in FAULTY])
def test_the_schema_refuses_what_the_reader_refuses(entry: str) -> None:
    assert schema_faults(f"requirements:\n- {entry}\n")


@pytest.mark.parametrize("file", sorted((SUITES / "requirements").glob("*.yaml")), ids=lambda file: file.stem)
def test_our_own_ledger_follows_the_schema(file: Path) -> None:
    assert schema_faults(file.read_text()) == []
