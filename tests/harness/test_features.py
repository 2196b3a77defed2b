"""Features: what the profile requires, the subject declares and a run finds, and what follows for their tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_suites import CONFTEST, make_suite, record, run

from harness.conformance.features import read_features
from harness.conformance.ledger import read_ledger
from harness.conformance.reports import markdown

pytest_plugins = ["pytester"]

LEDGER = """
requirements:
- {id: AGT-1, level: MUST, sentence: The first thing holds., source: u, applies_to: [ours, upstream], profile: core, observe: unit}
- {id: AGT-2, level: MUST, sentence: The second thing holds., source: u, applies_to: [ours, upstream], profile: g2, observe: unit}
"""  # noqa: E501
DETECTS = """
from harness.conformance.features import Detection

@pytest.hookimpl(optionalhook=True)
def pytest_podid_detect(item, feature):
    return {"g2": Detection(%r, "server --help: --cache-key")}.get(feature)
"""
TESTS = """
@requirement("AGT-1")
def test_a(): pass

@requirement("AGT-2")
def test_b(): pass
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    made = make_suite(pytester, monkeypatch)
    (made.path / "suites" / "requirements" / "a.yaml").write_text(LEDGER)
    return made


def prepare(suite: pytest.Pytester, *, detected: bool, declared: str, rule: str) -> None:
    suite.makeconftest(CONFTEST + DETECTS % detected)
    for folder, name, content in (
        ("subjects", "ours", declared),
        ("profiles", "pod-identity", f"{{core: required, g2: {rule}}}"),
    ):
        (suite.path / "suites" / folder).mkdir(exist_ok=True)
        (suite.path / "suites" / folder / f"{name}.yaml").write_text(f"features: {content}\n")


@pytest.mark.parametrize(
    ("detected", "declared", "rule", "outcome", "note", "code"),
    [
        (True, "[core, g2]", "required", "passed", "", 0),
        (True, "[core]", "optional", "passed", "undeclared", 0),
        (False, "[core, g2]", "optional", "failed", "", 1),
        (False, "[core]", "required", "failed", "", 1),
        (False, "[core]", "optional", "not-applicable", "", 0),
        (True, "[core, g2]", "excluded", "not-applicable", "", 0),
    ],
    ids=["as it should be", "undeclared", "falsely declared", "required and lacking", "absent", "excluded"],
)
def test_profile_declaration_and_what_is_found_decide(
    suite: pytest.Pytester,
    *,
    detected: bool,
    declared: str,
    rule: str,
    outcome: str,
    note: str,
    code: int,
) -> None:
    prepare(suite, detected=detected, declared=declared, rule=rule)

    result = run(suite, TESTS)

    made = record(suite)
    assert {entry.id: entry.outcome for entry in made.requirements} == {"AGT-1": "passed", "AGT-2": outcome}
    g2 = made.detected_features["g2"]
    assert (g2.rule, g2.declared, g2.note) == (rule, "g2" in declared, note)
    if rule != "excluded":
        assert (g2.detected, g2.evidence) == (detected, "server --help: --cache-key")
    assert made.detected_features["core"].detected is None
    assert result.ret == code


def test_a_missing_feature_says_what_was_seen(suite: pytest.Pytester) -> None:
    prepare(suite, detected=False, declared="[core, g2]", rule="optional")

    run(suite, TESTS)

    outcomes = {entry.id: entry.outcome for entry in record(suite).requirements}
    assert outcomes == {"AGT-1": "passed", "AGT-2": "failed"}
    assert "the subject declares it: server --help: --cache-key" in record(suite).tests[1].message


def test_what_a_worker_found_stands_in_the_record(suite: pytest.Pytester) -> None:
    prepare(suite, detected=True, declared="[core]", rule="optional")

    run(suite, TESTS, "-pxdist", "-n1")

    assert record(suite).detected_features["g2"].note == "undeclared"


def test_the_summary_lists_features(suite: pytest.Pytester) -> None:
    prepare(suite, detected=True, declared="[core]", rule="optional")

    run(suite, TESTS)

    text = markdown.render(record(suite))
    assert "| g2 | optional | no | yes (undeclared): server --help: --cache-key | 1 passed |" in text


@pytest.mark.parametrize(
    ("option", "folder", "content", "told"),
    [
        ("--profile=pod-identitty", "profiles", "", "no profile 'pod-identitty'"),
        ("--profile=pod-identity", "profiles", "{core: requierd}", "requierd is none of required, optional, excluded"),
        ("--profile=pod-identity", "profiles", "{gee2: required}", "no feature gee2"),
        ("--profile=pod-identity", "subjects", "[gee2]", "no feature gee2"),
        ("--without-feature=gee2", "profiles", "", "no feature 'gee2'"),
    ],
)
def test_what_makes_no_sense_is_refused(
    suite: pytest.Pytester, option: str, folder: str, content: str, told: str
) -> None:
    prepare(suite, detected=True, declared="[core]", rule="optional")
    if content:
        name = {"profiles": "pod-identity", "subjects": "ours"}[folder]
        (suite.path / "suites" / folder / f"{name}.yaml").write_text(f"features: {content}\n")

    result = run(suite, TESTS, option)

    assert result.ret == 3
    assert told in result.stdout.str() + result.stderr.str()
    assert not (suite.path / "reports").exists()


def test_committed_profiles_and_declarations_name_features_of_the_ledger() -> None:
    suites = Path(__file__).parents[2] / "suites"
    ledger = read_ledger(suites / "requirements")
    for profile in (suites / "profiles").glob("*.yaml"):
        for subject in (suites / "subjects").glob("*.yaml"):
            records = read_features(suites, profile.stem, subject, ledger, ()).records(ledger)
            assert records["core"].rule == "required"
