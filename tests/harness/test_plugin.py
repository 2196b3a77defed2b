"""The pytest plugin, driven through pytest itself on small suites."""

from __future__ import annotations

import pytest
from small_suites import BOTH_PASS, FIRST_FAILS, directory, make_suite, record, run, the_test

pytest_plugins = ["pytester"]


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    return make_suite(pytester, monkeypatch)


# --- The verdict ----------------------------------------------------------------------------------------------------


def test_a_run_in_which_everything_holds_is_conformant(suite: pytest.Pytester) -> None:
    result = run(suite, BOTH_PASS)

    assert result.ret == 0
    page = f"reports/{directory(suite).name}/index.html"
    assert result.outlines[-1] == (
        f"verdict: conformant (exit 0) — 2 of 2 MUST observed, all suites: 2 passed — {page}"
    )


def test_a_record_alone_is_as_good_as_any(suite: pytest.Pytester) -> None:
    """Reports can be made of it later."""
    result = run(suite, FIRST_FAILS, "--record-only")

    assert result.ret == 1
    assert [file.name for file in directory(suite).iterdir()] == ["run.json"]
    assert record(suite).line.startswith("verdict: non-conformant (exit 1)")


def test_a_failure_names_the_requirements_and_their_sentences(suite: pytest.Pytester) -> None:
    result = run(suite, '@requirement("AGT-2")\ndef test_a(): assert 1 == 2\n')

    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["AGT-2 (MUST): The second thing holds.", "failed         AGT-2  The second thing holds."]
    )
    assert result.outlines[-1].startswith("verdict: non-conformant (exit 1) — 1 of 2 MUST observed")


def test_a_requirement_that_no_test_decides_is_provisional_and_outside_the_verdict(suite: pytest.Pytester) -> None:
    result = run(suite, '@requirement("AGT-1")\ndef test_a(): pass\n')

    assert result.ret == 0
    assert "1 of 2 MUST observed" in result.outlines[-1]
    status = {entry.id: entry.status for entry in record(suite).requirements}
    assert status == {"AGT-1": "bound", "AGT-2": "provisional", "AGT-3": "provisional", "WHK-1": "foreign"}


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ('@requirement("AGT-1")\ndef test_a(): raise KeyError("x")\n', "body"),
        ('@pytest.fixture\ndef broken(): assert False\n@requirement("AGT-1")\ndef test_a(broken): pass\n', "set-up"),
        ('@requirement("AGT-1")\ndef test_a(): pytest.skip("no")\n', "untyped-skip"),
        ('@requirement("AGT-1")\n@pytest.mark.skip(reason="no")\ndef test_a(): assert False\n', "untyped-skip"),
    ],
    ids=["an exception in the body", "anything in set-up", "a bare skip", "a skip mark"],
)
def test_the_harness_s_own_trouble_is_no_verdict_on_the_subject(suite: pytest.Pytester, body: str, kind: str) -> None:
    result = run(suite, body)

    assert result.ret == 3
    assert result.outlines[-1].startswith("verdict: incomplete (exit 3)")
    reason = the_test(suite).reason
    assert reason is not None
    assert reason.kind == kind


def test_nothing_counts_on_ground_that_gave_way(suite: pytest.Pytester) -> None:
    """A dead AWS refuses everything, which fails some tests, and passes those that want a refusal."""
    body = """
lab = {"lost": None}
@pytest.fixture(scope="session", autouse=True)
def watched(ground):
    with ground.watching(lambda: lab["lost"]): yield
@requirement("AGT-3")
def test_before(): pass
@requirement("AGT-1", "AGT-2")
def test_while_it_ends():
    lab["lost"] = "localstack of aws ended"
    check("AGT-1", expected=200, observed=500)
    check("AGT-2", expected=403, observed=403)
@requirement("AGT-1")
def test_after(): assert False, "never runs"
"""
    assert run(suite, body).ret == 3

    outcomes = {entry.id: entry.outcome for entry in record(suite).requirements}
    assert outcomes == {"AGT-1": "error", "AGT-2": "error", "AGT-3": "passed", "WHK-1": ""}
    assert [test.reason.kind for test in record(suite).tests if test.reason] == ["lab", "set-up"]


def test_ground_that_gives_way_is_looked_into_once_and_at_once(suite: pytest.Pytester) -> None:
    """Also under a test that passes, and that is the last: what it stood on goes away with the run."""
    body = """
lab = {"lost": None}
class Looker:
    name = "lab"
    def collect(self, folder, since): folder.text("lab/localstack.log", "last words")
@pytest.fixture(scope="session", autouse=True)
def watched(ground, diagnostics):
    with ground.watching(lambda: lab["lost"]):
        diagnostics.register(Looker())
        yield
@requirement("AGT-1")
def test_while_it_ends(): lab["lost"] = "localstack of aws ended"
@requirement("AGT-1")
def test_after(): assert False, "never runs"
"""
    assert run(suite, body).ret == 3

    tests = {test.node.rpartition("::")[2]: test for test in record(suite).tests}
    first = tests["test_while_it_ends"]
    assert (first.outcome, first.diagnostics) == ("error", "diagnostics/test_while_it_ends")
    (directory,) = suite.path.glob("reports/*/diagnostics")
    assert (directory / "test_while_it_ends" / "lab" / "localstack.log").read_text() == "last words"
    assert "localstack of aws ended" in (directory / "test_while_it_ends" / "what.md").read_text()
    assert [path.name for path in (directory / "test_after").iterdir()] == ["what.md"]


def test_what_an_earlier_attempt_stood_on_may_go(suite: pytest.Pytester) -> None:
    """Each attempt has fixtures of its own: a lab that restarts its API server tells that to no other's watch."""
    body = """
labs = []
@pytest.fixture(scope="session")
def lab(ground):
    state = {"lost": None}
    labs.append(state)
    with ground.watching(lambda: state["lost"]): yield
@requirement("AGT-1")
def test_a(lab):
    for former in labs[:-1]: former["lost"] = "kube-apiserver of one ended"
    check("AGT-1", expected=True, observed=len(labs) > 1)
"""
    run(suite, body, "--retries=1")

    (outcome,) = {entry.outcome for entry in record(suite).requirements if entry.id == "AGT-1"}
    assert outcome == "flaky"


def test_a_failing_clean_up_does_not_change_what_was_decided(suite: pytest.Pytester) -> None:
    body = """
@pytest.fixture
def leaky():
    yield
    assert 0, "left"

@requirement("AGT-1")
def test_a(leaky): pass
"""

    assert run(suite, body).ret == 0
    (fault,) = record(suite).faults
    assert (fault.where, "left" in fault.message) == ("clean-up", True)


SAYS_IT = """
@requirement("AGT-1")
def test_a(): could_not_run("prerequisite", "no second account: set X")
"""
SET_UP_SAYS_IT = """
from harness.errors import MissingPrerequisite

@pytest.fixture
def lab(): raise MissingPrerequisite("no second account", hint="set X")

@requirement("AGT-1")
def test_a(lab): pass
"""


@pytest.mark.parametrize(
    "body",
    [SAYS_IT, SET_UP_SAYS_IT],
    ids=["said by the test", "raised in set-up"],
)
def test_what_could_not_run_makes_the_run_incomplete_and_says_why(suite: pytest.Pytester, body: str) -> None:
    result = run(suite, body)

    assert result.ret == 2
    reason = record(suite).requirements[0].reason
    assert reason is not None
    assert (reason.kind, "no second account" in reason.detail) == ("prerequisite", True)
    for report in ("run.json", "junit.xml", "summary.md", "index.html"):
        assert "no second account" in (directory(suite) / report).read_text()


def test_what_lacks_something_in_the_middle_is_not_said_to_have_failed(suite: pytest.Pytester) -> None:
    body = """
from harness.errors import MissingPrerequisite

@requirement("AGT-1")
def test_a(): raise MissingPrerequisite("no second account", hint="set X")

@requirement("AGT-2")
def test_b(): assert False
"""
    result = run(suite, body + SET_UP_SAYS_IT.replace("test_a", "test_c"), "-v")

    result.stdout.fnmatch_lines(
        ["*::test_a COULD NOT RUN*", "*no second account*", "*::test_b FAILED*", "*::test_c COULD NOT RUN*"]
    )
    result.stdout.fnmatch_lines(["*1 failed, 2 could not run*"])
    assert result.ret == 1


def test_what_does_not_apply_is_neutral(suite: pytest.Pytester) -> None:
    body = '@requirement("AGT-2")\ndef test_b(): not_applicable("version", "needs Kubernetes 1.40, has 1.34")\n'

    assert run(suite, '@requirement("AGT-1")\ndef test_a(): pass\n' + body).ret == 0


def test_a_requirement_on_another_subject_does_not_apply(suite: pytest.Pytester) -> None:
    body = '@requirement("AGT-1", "WHK-1")\ndef test_a(): assert False\n'

    run(suite, body)

    assert the_test(suite).decisions == {"AGT-1": "failed", "WHK-1": "not-applicable"}


def test_a_test_of_nothing_that_applies_does_not_run(suite: pytest.Pytester) -> None:
    body = '@requirement("WHK-1")\ndef test_a(): assert False\n@requirement("AGT-1")\ndef test_b(): pass\n'

    assert run(suite, body).ret == 0
    first, second = record(suite).tests
    assert (first.outcome, first.reason and first.reason.kind) == ("not-applicable", "subject")
    assert second.outcome == "passed"


def test_nothing_but_what_could_not_run_is_never_fine(suite: pytest.Pytester) -> None:
    assert run(suite, '@requirement("AGT-1")\ndef test_a(): could_not_run("environment", "no lab here")\n').ret == 2


# --- Checks ---------------------------------------------------------------------------------------------------------


def test_a_failed_check_does_not_blur_the_others(suite: pytest.Pytester) -> None:
    body = """
@requirement("AGT-1", "AGT-2", "AGT-3")
def test_a():
    seen = Evidence("http", "GET / → 500", {"status": 500})
    check("AGT-1", expected=200, observed=500, evidence=[seen])
    check("AGT-2", expected="1 to 3", observed=2, holds=1 <= 2 <= 3)
"""

    result = run(suite, body)

    assert result.ret == 1
    result.stdout.fnmatch_lines(["AGT-1", "  expected: 200", "  observed: 500"])
    test = the_test(suite)
    assert test.decisions == {"AGT-1": "failed", "AGT-2": "passed", "AGT-3": "passed"}
    assert [(entry.expected, entry.observed, entry.holds) for entry in test.checks] == [
        (200, 500, False),
        ("1 to 3", 2, True),
    ]
    assert test.evidence[test.checks[0].evidence[0]].title == "GET / → 500"


@pytest.mark.parametrize(
    ("end", "others"), [("assert False", "failed"), ('raise KeyError("x")', "error")], ids=["assertion", "exception"]
)
def test_what_was_not_reached_takes_the_test_s_end(suite: pytest.Pytester, end: str, others: str) -> None:
    body = f"""
@requirement("AGT-1", "AGT-2", "AGT-3")
def test_a():
    check("AGT-1", expected=1, observed=1)
    check("AGT-2", expected=1, observed=1)
    {end}
    check("AGT-2", expected=1, observed=1)
    check("AGT-3", expected=1, observed=1)
"""

    run(suite, body)

    assert the_test(suite).decisions == {"AGT-1": "passed", "AGT-2": others, "AGT-3": others}


def test_a_bad_end_after_the_last_check_is_not_lost(suite: pytest.Pytester) -> None:
    run(suite, '@requirement("AGT-1")\ndef test_a():\n    check("AGT-1", expected=1, observed=1)\n    assert False\n')

    assert the_test(suite).decisions == {"AGT-1": "failed"}


def test_a_check_of_a_requirement_that_the_test_does_not_name_is_refused(suite: pytest.Pytester) -> None:
    result = run(suite, '@requirement("AGT-1")\ndef test_a(): check("AGT-2", expected=1, observed=1)\n')

    assert result.ret == 3
    result.stdout.fnmatch_lines(['*add "AGT-2" to its @requirement*'])


# --- Diagnostics, baseline --------------------------------------------------------------------------------------------


def test_diagnostics_are_collected_before_fixtures_go_and_linked(suite: pytest.Pytester) -> None:
    body = """
ALIVE = []

class Looker:
    name = "looker"
    def collect(self, folder, since):
        folder.text("what.txt", f"alive: {ALIVE}")
        raise OSError("then it broke")

@pytest.fixture
def pod(diagnostics):
    diagnostics.register(Looker())
    ALIVE.append("pod")
    yield
    ALIVE.clear()

@requirement("AGT-1")
def test_a(pod): assert False
"""

    run(suite, body)

    test = the_test(suite)
    assert test.diagnostics == "diagnostics/test_a"
    assert (directory(suite) / test.diagnostics / "what.txt").read_text() == "alive: ['pod']"
    assert [fault.message for fault in record(suite).faults] == ["looker: OSError: then it broke"]
    assert test.diagnostics in (directory(suite) / "index.html").read_text()


def test_failures_alike_are_looked_into_five_times(suite: pytest.Pytester) -> None:
    body = """
class Looker:
    name = "looker"
    def collect(self, folder, since): folder.text("what.txt", "seen")

@pytest.fixture(scope="module", autouse=True)
def looked_into(diagnostics): diagnostics.register(Looker())

@pytest.mark.parametrize("number", range(8))
@requirement("AGT-1")
def test_a(number): assert number > 99, "other" if number == 7 else "same"
"""

    run(suite, body)

    folders = [directory(suite) / test.diagnostics for test in record(suite).tests]
    assert [(folder / "what.txt").exists() for folder in folders] == [True] * 5 + [False] * 2 + [True]
    assert all("number > 99" in (folder / "what.md").read_text() for folder in folders)


BASELINE = """
expected_failures:
- id: AGT-1
  signature: assert 1 == 2
  reason: upstream does not do it yet
  issue: https://example.org/1
  expires: 2099-01-01
"""


@pytest.fixture
def baseline(suite: pytest.Pytester) -> str:
    file = suite.path / "known.yaml"
    file.write_text(BASELINE)
    return f"--baseline={file}"


def test_a_known_failure_passes_the_gate_but_is_not_conformant(
    suite: pytest.Pytester, baseline: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.conformance.baseline._LONGEST_DAYS", 100_000)

    result = run(suite, FIRST_FAILS, baseline)

    assert result.ret == 0
    assert result.outlines[-1].startswith("verdict: non-conformant (exit 0)")
    assert record(suite).counts == {"expected-failure": 1}


@pytest.mark.parametrize(
    ("body", "outcome"),
    [('@requirement("AGT-1")\ndef test_a(): pass\n', "passed"), (FIRST_FAILS.replace("2", "3"), "failed")],
    ids=["it passes", "it fails in another way"],
)
def test_the_baseline_is_strict_both_ways(
    suite: pytest.Pytester, baseline: str, monkeypatch: pytest.MonkeyPatch, body: str, outcome: str
) -> None:
    monkeypatch.setattr("harness.conformance.baseline._LONGEST_DAYS", 100_000)

    assert run(suite, body, baseline).ret == 1
    assert the_test(suite).outcome == outcome


# --- A subject that does not get ready ------------------------------------------------------------------------------

NOT_READY = """
from harness.errors import NotReady

@pytest.fixture(scope="module")
def agent(): raise NotReady("it ended with 1", requirement="AGT-1")

@requirement("AGT-1", "AGT-3")
def test_ready(agent): pass

@requirement("AGT-2")
def test_answers(agent): pass
"""


def test_one_requirement_fails_and_the_rest_is_blocked(suite: pytest.Pytester) -> None:
    result = run(suite, NOT_READY)

    assert result.ret == 1
    found = {entry.id: (entry.outcome, entry.reason and entry.reason.kind) for entry in record(suite).requirements}
    assert found["AGT-1"][0] == "failed"
    assert found["AGT-2"] == ("could-not-run", "blocked-by")
    assert found["AGT-3"] == ("could-not-run", "blocked-by")
    reason = record(suite).requirements[1].reason
    assert reason is not None
    assert reason.detail == "AGT-1: it ended with 1"


def test_a_reason_of_a_word_is_none(suite: pytest.Pytester) -> None:
    result = run(suite, '@requirement("AGT-1")\ndef test_a(): could_not_run("environment", "no lab")\n')

    assert result.ret == 3
    result.stdout.fnmatch_lines(["*'no lab' says too little*"])


def test_a_failed_clean_up_has_what_happened(suite: pytest.Pytester) -> None:
    body = """
class Looker:
    name = "looker"
    def collect(self, folder, since): folder.text("all.txt", "everything")
    def collect_events(self, folder): folder.text("events.txt", "what happened")

@pytest.fixture
def leaky(diagnostics):
    looker = Looker()
    diagnostics.register(looker)
    yield
    assert 0, "left"

@requirement("AGT-1")
def test_a(leaky): pass
"""

    assert run(suite, body).ret == 0
    (found,) = (directory(suite) / "diagnostics").iterdir()
    assert {file.name for file in found.iterdir()} == {"what.md", "events.txt"}
    assert "test_a, teardown" in (found / "what.md").read_text()


def test_a_failure_is_told_at_once(suite: pytest.Pytester) -> None:
    body = FIRST_FAILS + '@requirement("AGT-2")\ndef test_b(): print("held back")\n'

    result = run(suite, body, "-v")

    lines = result.outlines
    told = next(number for number, line in enumerate(lines) if line.startswith("  AGT-1: assert 1 == 2"))
    assert told < next(number for number, line in enumerate(lines) if "test_b" in line and "PASSED" in line)
    assert "held back" not in result.stdout.str()


def test_what_the_baseline_knows_and_nobody_looked_at_is_listed(
    suite: pytest.Pytester, baseline: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.conformance.baseline._LONGEST_DAYS", 100_000)

    assert run(suite, '@requirement("AGT-1")\ndef test_a(): raise KeyError("x")\n', baseline).ret == 3
    assert record(suite).unused_expectations == ["AGT-1: error"]
    assert "| AGT-1: error |" in (directory(suite) / "summary.md").read_text()
