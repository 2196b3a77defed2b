"""The pytest plugin, driven through pytest itself on small suites."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

LEDGER = """
requirements:
- {id: AGT-1, level: MUST, sentence: The first thing holds., source: u}
- {id: AGT-2, level: MUST, sentence: The second thing holds., source: u}
"""
CONFTEST = """
from pathlib import Path
from harness.conformance.plugin import Plugin

def pytest_configure(config):
    config.addinivalue_line("markers", "requirement(*ids): x")
    config.pluginmanager.register(Plugin(Path(__file__).parent / "suites"))
"""
HEADER = "import pytest\nfrom harness.conformance.marks import requirement\n"


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.delenv("PODID_RESULT_FILE", raising=False)
    pytester.makeconftest(CONFTEST)
    (pytester.mkdir("suites") / "requirements").mkdir()
    (pytester.path / "suites" / "requirements" / "a.yaml").write_text(LEDGER)
    return pytester


def run(suite: pytest.Pytester, body: str, *arguments: str) -> pytest.RunResult:
    (suite.path / "suites" / "test_it.py").write_text(HEADER + body)
    return suite.runpytest_subprocess("suites", *arguments)


BOTH_PASS = '@requirement("AGT-1", "AGT-2")\ndef test_a(): pass\n'


def test_a_run_in_which_everything_holds_is_conformant(suite: pytest.Pytester) -> None:
    result = run(suite, BOTH_PASS)

    assert result.ret == 0
    assert result.outlines[-1] == "verdict: conformant (exit 0) — 2 requirements, all suites: 2 passed"


def test_a_failure_names_the_requirements_and_their_sentences(suite: pytest.Pytester) -> None:
    result = run(suite, '@requirement("AGT-2")\ndef test_a(): assert 1 == 2\n')

    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["AGT-2 (MUST): The second thing holds.", "failed         AGT-2  The second thing holds."]
    )
    assert result.outlines[-1].startswith("verdict: non-conformant (exit 1)")


@pytest.mark.parametrize(
    "body",
    [
        '@requirement("AGT-1")\ndef test_a(): raise KeyError("x")\n',
        '@pytest.fixture\ndef broken(): assert False\n@requirement("AGT-1")\ndef test_a(broken): pass\n',
    ],
    ids=["an exception in the body", "anything in set-up"],
)
def test_the_harness_s_own_trouble_is_no_verdict_on_the_subject(suite: pytest.Pytester, body: str) -> None:
    result = run(suite, body)

    assert result.ret == 3
    assert result.outlines[-1].startswith("verdict: incomplete (exit 3)")


def test_a_failing_clean_up_does_not_change_what_was_decided(suite: pytest.Pytester) -> None:
    body = (
        '@pytest.fixture\ndef leaky():\n    yield\n    assert False\n@requirement("AGT-1")\ndef test_a(leaky): pass\n'
    )

    assert run(suite, body).ret == 0


def test_a_skipped_requirement_makes_the_run_incomplete(suite: pytest.Pytester) -> None:
    result = run(
        suite, '@requirement("AGT-1")\ndef test_a(): pytest.skip("no")\n' + BOTH_PASS.replace("test_a", "test_b")
    )

    assert result.ret == 2


def test_a_selection_is_never_conformant(suite: pytest.Pytester) -> None:
    result = run(suite, BOTH_PASS, "-k", "test_a")

    assert (result.ret, "a part of the suites" in result.outlines[-1]) == (0, True)
    assert result.outlines[-1].startswith("verdict: incomplete")


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("def test_a(): pass\n", "*test_a: decides no requirement*"),
        ('@requirement("AGT-9")\ndef test_a(): pass\n', "*test_a: unknown requirement AGT-9*"),
    ],
)
def test_a_test_without_a_known_requirement_is_not_collected(suite: pytest.Pytester, body: str, fault: str) -> None:
    result = run(suite, body)

    assert result.ret == 3
    result.stdout.fnmatch_lines([fault])


def test_a_file_that_cannot_be_imported_leaves_the_verdict_open(suite: pytest.Pytester) -> None:
    (suite.path / "suites" / "test_broken.py").write_text("import nowhere\n")

    result = run(suite, BOTH_PASS)

    assert result.ret == 3
    assert result.outlines[-1].startswith("verdict: incomplete (exit 3)")


def test_the_result_goes_to_a_file_when_one_is_named(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODID_RESULT_FILE", str(suite.path / "result.json"))

    result = run(suite, '@requirement("AGT-1")\ndef test_a(): assert False\n')

    data = json.loads((suite.path / "result.json").read_text())
    assert (data["exit_code"], data["failed"]) == (1, ["suites/test_it.py::test_a"])
    assert "verdict:" not in result.outlines[-1]
