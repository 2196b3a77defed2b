"""Whatever happens to a run, there is a record of it: the plugin on small suites."""

from __future__ import annotations

import json

import pytest
from small_suites import BOTH_PASS, FIRST_FAILS, HEADER, directory, make_suite, record, run

from harness.conformance.reports import formats
from harness.conformance.store import rewrite

pytest_plugins = ["pytester"]


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    return make_suite(pytester, monkeypatch)


def test_a_file_that_cannot_be_imported_leaves_the_verdict_open(suite: pytest.Pytester) -> None:
    (suite.path / "suites" / "test_broken.py").write_text("import nowhere\n")

    result = run(suite, BOTH_PASS)

    assert result.ret == 3
    assert result.outlines[-1].startswith("verdict: incomplete (exit 3)")
    assert record(suite).faults[0].where == "collection"
    assert record(suite).tests[0].outcome == "could-not-run"


def test_ctrl_c_leaves_a_record_of_what_was_decided(suite: pytest.Pytester) -> None:
    body = '@requirement("AGT-2")\ndef test_b(): raise KeyboardInterrupt\n@requirement("AGT-3")\ndef test_c(): pass\n'

    result = run(suite, '@requirement("AGT-1")\ndef test_a(): pass\n' + body)

    assert result.ret == 2
    the_run = record(suite)
    assert the_run.interrupted
    assert [test.outcome for test in the_run.tests] == ["passed", "could-not-run", "could-not-run"]
    assert the_run.requirements[1].reason is not None
    assert the_run.requirements[1].reason.kind == "interrupted"


def test_a_run_that_is_killed_leaves_what_was_decided_until_then(suite: pytest.Pytester) -> None:
    body = 'import os, signal\n@requirement("AGT-2")\ndef test_b(): os.kill(os.getpid(), signal.SIGKILL)\n'
    (suite.path / "suites" / "test_it.py").write_text(HEADER + FIRST_FAILS + body)

    suite.runpytest_subprocess("suites")

    assert [file.name for file in directory(suite).iterdir()] == ["events.jsonl"]
    rewrite(directory(suite))
    the_run = record(suite)
    assert (the_run.finished_at, the_run.verdict, the_run.interrupted) == ("", "non-conformant", True)
    assert [test.outcome for test in the_run.tests] == ["failed", "could-not-run"]
    assert [test.reason and test.reason.kind for test in the_run.tests] == [None, "interrupted"]
    assert the_run.environment["python"]
    assert not (directory(suite) / "publish").exists(), "nobody looked for the canary"


def test_after_the_first_failure_the_rest_says_why_it_did_not_run(suite: pytest.Pytester) -> None:
    result = run(suite, FIRST_FAILS + '@requirement("AGT-2")\ndef test_b(): pass\n', "-x")

    assert result.ret == 1
    assert record(suite).requirements[1].reason is not None
    assert record(suite).requirements[1].reason.kind == "fail-fast"


def test_an_invalid_ledger_is_a_usage_error(suite: pytest.Pytester) -> None:
    (suite.path / "suites" / "requirements" / "b.yaml").write_text("requirements: [{id: X}]\n")

    result = run(suite, BOTH_PASS)

    assert result.ret == 3
    assert "the requirement ledger is invalid" in result.stdout.str() + result.stderr.str()


def test_every_format_is_written_and_only_for_the_owner(suite: pytest.Pytester) -> None:
    run(suite, FIRST_FAILS)

    assert formats() == ["badge", "html", "junit", "markdown"]
    reports = {"run.json", "index.html", "junit.xml", "summary.md", "badge.svg"}
    others = {"run.schema.json", "events.jsonl", "manifest.json"}
    assert {file.name for file in directory(suite).iterdir()} == reports | others | {"publish"}
    modes = {path.stat().st_mode & 0o777 for path in (directory(suite), *directory(suite).rglob("*"))}
    assert modes == {0o700, 0o600}


def test_tests_outside_the_suites_leave_no_record(suite: pytest.Pytester) -> None:
    result = suite.runpytest_inprocess(suite.makepyfile("def test_a(): pass\n"))

    assert result.ret == 0
    assert not (suite.path / "reports").exists()


def test_the_result_goes_to_a_file_when_one_is_named(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODID_RESULT_FILE", str(suite.path / "result.json"))

    result = run(suite, '@requirement("AGT-1")\ndef test_a(): assert False\n')

    data = json.loads((suite.path / "result.json").read_text())
    assert (data["exit_code"], data["failed"]) == (1, ["suites/test_it.py::test_a"])
    assert data["report"] == str(directory(suite))
    assert "verdict:" not in result.outlines[-1]


def test_a_worker_of_pytest_xdist_reports_to_the_same_record(suite: pytest.Pytester) -> None:
    body = 'import os\n@requirement("AGT-2")\ndef test_b(): os._exit(1)\n'

    result = run(
        suite, '@requirement("AGT-1")\ndef test_a(): check("AGT-1", expected=1, observed=1)\n' + body, "-pxdist", "-n1"
    )

    assert result.ret == 3
    the_run = record(suite)
    assert {test.name: test.outcome for test in the_run.tests} == {"test_a": "passed", "test_b": "error"}
    assert the_run.requirements[1].reason is not None
    assert the_run.requirements[1].reason.kind == "worker-crashed"
    assert the_run.tests[0].checks[0].holds
