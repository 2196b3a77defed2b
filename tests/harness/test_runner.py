"""Runs of the suites: what a person is told, and that an interruption lets them end well."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path

import pytest
from conformance_runs import make_run
from typer.testing import CliRunner

from harness import runner
from harness.cli import app
from harness.conformance.store import save
from harness.errors import HarnessFault, MissingPrerequisite, UsageError
from harness.lab import Lab

# --- podid compare, report, list ------------------------------------------------------------------------------------


@pytest.fixture
def runs(tmp_path: Path) -> tuple[str, str]:
    for name, outcome in (("old", "passed"), ("new", "failed")):
        (tmp_path / name).mkdir()
        save(tmp_path / name, make_run({"AGT-1": "passed", "AGT-2": outcome}))
    return str(tmp_path / "old"), str(tmp_path / "new" / "run.json")


def test_compare_names_what_was_lost_and_closes_the_gate(runs: tuple[str, str]) -> None:
    result = CliRunner().invoke(app, ["compare", *runs])

    assert result.exit_code == 1
    assert result.stdout.startswith("newly failing   AGT-2 (MUST): passed → failed")
    assert result.stdout.splitlines()[-1].startswith("compare: 1 newly failing (exit 1)")


def test_compare_speaks_markdown_and_json(runs: tuple[str, str]) -> None:
    invoke = CliRunner().invoke
    markdown, data = (invoke(app, ["compare", *runs, "--format", form]).stdout for form in ("markdown", "json"))

    assert markdown.startswith("## ❌ compare: 1 newly failing")
    assert [change["id"] for change in json.loads(data)["changes"]] == ["AGT-2"]


def test_report_writes_the_reports_again(runs: tuple[str, str]) -> None:
    result = CliRunner().invoke(app, ["report", runs[0]])

    assert result.stdout.strip() == f"{runs[0]}/index.html"
    assert {file.name for file in Path(runs[0]).iterdir()} == {
        "badge.svg",
        "index.html",
        "junit.xml",
        "manifest.json",
        "run.json",
        "run.schema.json",
        "summary.md",
    }


def test_list_shows_requirements_with_their_tests(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(
        "harness.report_commands.collect_bindings", lambda _, **__: {"suites/test_x.py::test_y": ("AGT-230",)}
    )

    (tmp_path / "flakes.jsonl").write_text('{"time": "2026-11-25T18:00:00Z", "executed": ["AGT-230"], "series": []}\n')
    command = ["list", "--only=AGT-230", "--only=AGT-238", f"--history={tmp_path}"]

    result = CliRunner().invoke(app, command)

    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines[::3]] == ["AGT-230", "AGT-238"]
    assert lines[1].strip().startswith("core · cluster · stable · last passed 2026-11-25")
    assert lines[1].endswith(" · confirmed on AWS never")
    assert lines[2].strip() == "suites/test_x.py::test_y"
    assert lines[5].strip() == "provisional: no test decides it"


def test_list_knows_the_mutants_that_a_requirement_finds_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "harness.report_commands.collect_bindings", lambda _, **__: {"suites/agent/t.py::t": ("AGT-453",)}
    )

    result = CliRunner().invoke(app, ["list", "--only=AGT-453", "--json"])

    (entry,) = json.loads(result.stdout)
    assert entry["mutants"] == ["agent-no-spread"]
    assert (entry["tier"], entry["subject"], entry["status"]) == ("process", "agent", "stable")


def test_list_knows_the_bindings_of_all_suites() -> None:
    bindings = runner.collect_bindings(runner.CHECKOUT / "suites", is_last=True)

    folders = {node.rpartition("/")[0] for node in bindings if "::" in node}
    assert {"suites", "suites/agent"} <= folders


@pytest.fixture
def small_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ledger of two requirements, of which a test decides one."""
    requirements = tmp_path / "requirements"
    requirements.mkdir()
    fields = "level: MUST, sentence: s, source: u, applies_to: [ours], profile: core, observe: unit"
    file = requirements / "a.yaml"
    file.write_text(f"requirements:\n- {{id: AGT-1, {fields}}}\n- {{id: AGT-2, {fields}}}\n")
    monkeypatch.setattr("harness.report_commands.REQUIREMENTS", requirements)
    monkeypatch.setattr("harness.report_commands.FROZEN", requirements / "frozen")
    monkeypatch.setattr("harness.report_commands.collect_bindings", lambda _, **__: {"t.py::t": ("AGT-1",)})
    return file


def test_a_release_is_frozen_once_and_then_kept(small_ledger: Path) -> None:
    invoke = CliRunner().invoke

    frozen, again = invoke(app, ["ledger", "freeze", "0.1.0"]), invoke(app, ["ledger", "freeze", "0.1.0"])
    assert frozen.stdout.strip().endswith("frozen/0.1.0.yaml: 1 requirements")
    assert "is frozen already" in str(again.exception)
    assert "2 requirements, 0 of them withdrawn, 1 frozen releases" in invoke(app, ["ledger", "check"]).stdout

    small_ledger.write_text(small_ledger.read_text().replace("sentence: s", "sentence: t"))
    assert "AGT-1: level, sentence, profile" in str(invoke(app, ["ledger", "check"]).exception)


def test_a_release_is_held_to_what_was_frozen(small_ledger: Path, tmp_path: Path) -> None:
    assert small_ledger.exists()
    invoke = CliRunner().invoke
    invoke(app, ["ledger", "freeze", "0.1.0"])
    for name, bound in (("good", "AGT-1"), ("bad", "AGT-2")):
        (tmp_path / name).mkdir()
        save(tmp_path / name, make_run({"AGT-1": "", "AGT-2": ""} | {bound: "passed"}, members={"sentence": "s"}))
    options = ["--release=0.1.0", f"--history={tmp_path / 'history'}"]

    good = invoke(app, ["compare", str(tmp_path / "good"), str(tmp_path / "good"), *options])
    bad = invoke(app, ["compare", str(tmp_path / "bad"), str(tmp_path / "bad"), *options])
    markdown = invoke(app, ["compare", str(tmp_path / "bad"), str(tmp_path / "bad"), *options, "--format=markdown"])

    assert (good.exit_code, bad.exit_code) == (0, 1)
    assert bad.stdout.startswith("against the release: no test of this run decides 1 of release 0.1.0: AGT-1")
    assert "### Against the release" in markdown.stdout


@pytest.mark.usefixtures("broken")
def test_what_failed_before_runs_again_in_its_own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, make_run({"AGT-1": "passed", "AGT-2": "failed"}))
    told: list[object] = []
    monkeypatch.setattr(
        "harness.run_commands.run_suites", lambda *given: told.extend(given) or runner.Result(0, "", ())
    )

    CliRunner().invoke(app, ["run", f"--rerun-failed={tmp_path}"])

    assert told[2] == [f"--rerun-failed={tmp_path}", "suites/test_a.py"]


# --- Running --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "raised"),
    [(MissingPrerequisite("no root"), MissingPrerequisite), (HarnessFault("etcd died"), HarnessFault)],
)
def test_the_suites_are_told_why_there_is_no_lab(
    fault: HarnessFault, raised: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"exit_code": fault.exit_code, "text": str(fault), "kind": "environment"}
    monkeypatch.setenv(runner.SETUP_FAULT_VARIABLE, json.dumps(told))

    with pytest.raises(raised, match=str(fault)) as seen:
        runner.raise_setup_fault()

    assert getattr(seen.value, "kind", "environment") == "environment"


def test_scenarios_are_what_runs_unless_paths_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def note(command: list[str], *_: object) -> int:
        commands.append(command)
        return 0

    monkeypatch.setattr(runner, "run_to_its_end", note)

    runner.run_suites("podid", ["c"], ["--dry-run"])
    runner.run_suites("podid", ["c"], ["--dry-run", "suites/agent"])

    runner.run_suites("podid", ["c"], ["--dry-run", "--baseline", "suites/known.yaml"])

    by_default, as_asked, with_baseline = commands
    assert "suites" in by_default
    assert "suites" in with_baseline
    assert "--ignore=suites/agent" in by_default
    assert as_asked[-1] == "suites/agent"


def test_an_interruption_reaches_the_suites_once_and_they_are_waited_for(tmp_path: Path) -> None:
    program = (
        "import pathlib, signal, sys\n"
        "signal.signal(signal.SIGINT, lambda *_: (pathlib.Path('asked').open('a').write('x'), sys.exit(7)))\n"
        "pathlib.Path('ready').touch()\n"
        "signal.pause()\n"
    )
    ready = tmp_path / "ready"

    def interrupt() -> None:
        while not ready.exists():
            done.wait(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    done = threading.Event()
    thread = threading.Thread(target=interrupt)
    thread.start()
    code = runner.run_to_its_end([sys.executable, "-c", program], dict(os.environ), tmp_path)
    thread.join()

    assert (code, (tmp_path / "asked").read_text()) == (7, "x")


class LabThatDoesNotComeUp(Lab):
    def up(self, *_arguments: object, nodes_from_start: int, **options: object) -> None:
        assert options == {"ip_family": None, "given": {}, "is_offline": False, "reuse": "checked"}
        assert nodes_from_start in {1, 2}
        raise MissingPrerequisite("no CAP_SYS_ADMIN", hint="run as root")


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """The person's lab, which does not come up."""
    monkeypatch.setenv("PODID_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr("harness.run_commands.Lab", LabThatDoesNotComeUp)
    return Lab("podid")


@pytest.mark.usefixtures("broken")
def test_a_lab_that_does_not_come_up_ends_with_reports_and_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []

    def run_suites(*arguments: object) -> runner.Result:
        told.extend(arguments)
        return runner.Result(2, "verdict: incomplete (exit 2) — …", ())

    monkeypatch.setattr("harness.run_commands.run_suites", run_suites)

    result = CliRunner().invoke(app, ["run", "--only=AGT-230", "-k", "s3"])

    assert (result.exit_code, result.stdout.splitlines()[-1]) == (2, "verdict: incomplete (exit 2) — …")
    assert "no CAP_SYS_ADMIN\nrun as root" in result.stderr
    assert told[2] == ["--only=AGT-230", "-k", "s3"]
    assert isinstance(told[3], MissingPrerequisite)


def test_a_run_removes_the_lab_of_one_that_was_killed(broken: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """And neither one that a person raised nor one that another run is at work in."""
    monkeypatch.setattr("harness.run_commands.run_suites", lambda *_: runner.Result(2, "", ()))

    def left_after_a_run() -> tuple[bool, bool]:
        broken.paths.directory.mkdir(parents=True, exist_ok=True)
        told = CliRunner().invoke(app, ["run"]).stderr
        return broken.exists, "left of a run that was killed: lab podid" in told

    of_a_killed_run = left_after_a_run()
    with broken.used():
        in_use = left_after_a_run()
    broken.keep()
    kept = left_after_a_run()

    assert (of_a_killed_run, in_use, kept) == ((False, True), (True, False), (True, False))


def test_a_misspelt_requirement_raises_no_lab() -> None:
    result = CliRunner().invoke(app, ["run", "--only=AGT-2300"])

    assert isinstance(result.exception, UsageError)
    assert "did you mean AGT-230" in str(result.exception)


def test_a_failed_test_has_a_line_that_runs_it_again_and_a_kept_lab_two() -> None:
    lines = runner.how_to_continue(runner.Result(1, "", ("suites/t.py::a[x y]",)), "podid", kept=True)

    assert lines == [
        "again:  python3 -m nox -s e2e -- --keep --partial 'suites/t.py::a[x y]'",
        "enter:  uv run podid exports",
        "remove: uv run podid down",
    ]


@pytest.mark.parametrize(
    ("arguments", "nodes"),
    [
        ([], 2),
        (["--level=MUST"], 2),
        (["suites/test_s3.py"], 1),
        (["suites/test_s3.py::test_pod_lists_the_bucket", "suites/test_troubleshooting.py"], 2),
        (["suites/agent"], 1),
        (["suites/nowhere.py"], 1),
    ],
)
def test_a_cluster_begins_with_a_second_node_only_for_scenarios_that_need_it(arguments: list[str], nodes: int) -> None:
    assert runner.nodes_wanted(arguments) == nodes


def test_a_suite_that_is_not_there_is_refused_before_a_lab_is_raised() -> None:
    result = CliRunner().invoke(app, ["run", "suites/test_s33.py::test_x"])

    assert isinstance(result.exception, UsageError)
    assert "suites/test_s33.py" in str(result.exception)
    assert "did you mean suites/test_s3.py?" in str(result.exception)
