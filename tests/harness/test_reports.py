"""Reports say what the record says, in forms that others can read, whatever a subject printed."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from conformance_runs import START, make_run, phase, requirement

from harness.conformance.baseline import Baseline
from harness.conformance.ledger import Ledger
from harness.conformance.record import Fault, Run
from harness.conformance.reports import badge, html, junit, markdown, write_reports
from harness.conformance.reports._timeline import timeline_of
from harness.conformance.results import Results, RunFacts

OUTCOMES = {
    "AGT-1": "passed",
    "AGT-2": "failed",
    "AGT-3": "error",
    "AGT-4": "could-not-run",
    "AGT-5": "not-applicable",
    "AGT-6": "expected-failure",
    "AGT-7": "flaky",
    "AGT-8": "could-not-run",
    "WHK-1": "",
}
RUN = make_run(OUTCOMES, levels={"AGT-8": "SHOULD"}, message="E   assert 500 == 400")
HOSTILE = "<script>alert(1)</script> | ]]> \x00\x1b[2J ::set-output name=x::y\n`"


@pytest.fixture
def hostile() -> Run:
    check = {"requirement": "AGT-1", "what": HOSTILE, "expected": HOSTILE, "observed": {HOSTILE: [HOSTILE]}}
    evidence = {"kind": "http", "title": HOSTILE, "content": {"request": HOSTILE, "response": {HOSTILE: HOSTILE}}}
    members = {"checks": [check | {"holds": False, "evidence": [0]}], "evidence": [evidence]}
    return make_run({"AGT-1": "failed"}, **members, message=HOSTILE, facts={"faults": [Fault("clean-up", HOSTILE)]})


def cases(run: Run) -> dict[str, ET.Element]:
    return {str(case.get("name")): case for case in ET.fromstring(junit.render(run)).iter("testcase")}


# --- Badge ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "said", "colour"),
    [
        ("passed", "conformant, 1 of 1 MUST", "#1a7f37"),
        ("failed", "non-conformant, 1 of 1 MUST", "#cf222e"),
        ("could-not-run", "incomplete, 0 of 1 MUST", "#9a6700"),
    ],
)
def test_badge_says_the_verdict_and_what_it_stands_on(outcome: str, said: str, colour: str) -> None:
    svg = ET.fromstring(badge.render(make_run({"AGT-1": outcome})))

    label, verdict = svg.iter("{http://www.w3.org/2000/svg}text")
    assert (label.text, verdict.text) == ("EKS Pod Identity", said)
    assert [rect.get("fill") for rect in svg.iter("{http://www.w3.org/2000/svg}rect")][1] == colour
    assert svg.get("aria-label") == f"EKS Pod Identity: {said}"


# --- JUnit ----------------------------------------------------------------------------------------------------------


def test_junit_has_a_case_for_each_requirement_that_was_decided() -> None:
    children = {name: [(child.tag, child.get("type")) for child in case] for name, case in cases(RUN).items()}

    assert children == {
        "AGT-1": [],
        "AGT-2": [("failure", "requirement")],
        "AGT-3": [("error", "harness")],
        "AGT-4": [("error", "could-not-run")],
        "AGT-5": [("skipped", "not-applicable")],
        "AGT-6": [("skipped", "expected-failure")],
        "AGT-7": [("properties", None)],
        "AGT-8": [("skipped", "could-not-run")],
    }
    assert cases(RUN)["AGT-2"].get("classname") == "ours.AGT"


def test_junit_counts_what_it_has() -> None:
    suite = ET.fromstring(junit.render(RUN)).find("testsuite")

    assert suite is not None
    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "8", "failures": "1", "errors": "2", "skipped": "3"}


def test_junit_says_why_something_did_not_run() -> None:
    (error,) = cases(RUN)["AGT-4"]

    assert error.get("message") == "prerequisite: nothing here"


def test_a_run_that_died_in_set_up_has_a_case_for_that() -> None:
    run = make_run({"AGT-1": ""}, facts={"faults": [Fault("set-up", "no cluster")]})

    assert [child.get("message") for child in cases(run)["podid.set-up"]] == ["no cluster"]


def test_junit_is_xml_whatever_a_subject_printed(hostile: Run) -> None:
    (failure,) = cases(hostile)["AGT-1"]

    assert "<script>alert(1)</script> | ]]> \N{REPLACEMENT CHARACTER}" in str(failure.text)


# --- Markdown -------------------------------------------------------------------------------------------------------


def test_markdown_begins_with_the_verdict_and_names_each_failure() -> None:
    text = markdown.render(RUN)

    assert text.startswith("## ❌ non-conformant: 4 of 8 MUST observed\n")
    assert "| AGT-2 | MUST | AGT-2 holds. | assert 500 == 400 |" in text
    assert "| AGT-4 | MUST | could-not-run | prerequisite: nothing here |" in text
    assert "<summary>1 provisional: no test decides them yet</summary>\n\n- WHK, 1: WHK-1" in text
    assert "python3 -m nox -s e2e -- --keep --partial suites/test_a.py::test_agt-" in text


def test_markdown_has_names_of_tests_as_they_are() -> None:
    run = make_run({"AGT-1": "passed"})
    slow = replace(run.tests[0], node="suites/test_a.py::test_b[c`d|e]", durations={"call": 1.5})

    text = markdown.render(replace(run, tests=[slow]))

    assert "| 1.5 | `suites/test_a.py:\u200b:test_b[c'd\\|e]` |" in text


def test_markdown_stays_small_and_says_what_it_left_out() -> None:
    run = make_run({f"AGT-{number}": "failed" for number in range(2000)}, message="x" * 700)

    text = markdown.render(run)

    assert len(text.encode()) <= 256 << 10
    assert re.search(r"… \d+ rows left out", text)


def test_markdown_runs_nothing_and_breaks_no_table(hostile: Run) -> None:
    text = markdown.render(hostile)

    assert "<script>" not in text
    assert "::set-output" not in text
    assert all(line.count(" | ") == 3 for line in text.splitlines() if line.startswith("| AGT-1"))
    assert "\x1b" not in text


# --- The page -------------------------------------------------------------------------------------------------------


def test_the_page_has_every_requirement_with_sentence_source_and_outcome() -> None:
    page = html.render(RUN)

    for entry in RUN.requirements:
        assert f'id="{entry.id}"' in page
        assert entry.sentence in page
    assert page.count('href="https://example.org/spec"') == len(OUTCOMES)
    assert page.count('data-state="provisional" data-level') == 1


def test_the_page_loads_nothing_and_allows_only_its_own_script() -> None:
    page = html.render(RUN)

    assert not re.search(r"""src=|@import|url\((?!["']?#)|<link[^>]+href="(?!data:)""", page)
    assert page.count("<script>") == 1
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-")


def test_the_page_shows_what_a_subject_printed_as_text(hostile: Run) -> None:
    page = html.render(hostile)

    assert "alert(1)</script>" not in page
    assert page.count("&lt;script&gt;alert(1)") >= 5


def test_a_run_without_tests_has_a_page_too() -> None:
    assert "No test started." in html.render(make_run({"AGT-1": ""}))


def test_many_tests_share_a_line_of_the_timeline_by_file() -> None:
    few, many = (timeline_of(make_run({f"AGT-{number}": "passed" for number in range(count)})) for count in (3, 200))

    assert [len(lane.bars) for lane in few.lanes] == [1, 1, 1]
    assert few.lanes[0].name.startswith("test_agt-")
    assert [(lane.name, len(lane.bars), lane.outcome) for lane in many.lanes] == [("suites/test_a.py", 200, "passed")]


def test_the_time_between_merged_runs_is_left_out_of_the_timeline() -> None:
    run = make_run({"AGT-1": "passed", "AGT-2": "passed"})
    first, second = run.tests
    hour_later = replace(second, started_at="2023-11-14T23:13:20.000Z")

    timeline = timeline_of(replace(run, tests=[replace(first, started_at="2023-11-14T22:13:20.000Z"), hour_later]))

    assert (timeline.seconds, [lane.bars[0].left for lane in timeline.lanes]) == (3.0, [0.0, 50.0])


def test_the_page_shows_what_agent_and_webhook_used() -> None:
    run = make_run({"AGT-1": "passed"})
    use = {"agent": {"rss_peak_mib": 51.8, "rss_mib": 50.0, "cpu_s": 1.5, "threads": 6.0, "fds": 17.0}}
    run = replace(run, scenarios=[replace(run.scenarios[0], resources=use)])

    page, text = html.render(run), markdown.render(run)

    assert "<tr><td>suites/test_a.py<td>agent<td>51.8 MiB<td>50.0 MiB<td>1.50 s<td>6<td>17</tr>" in page
    assert "| agent | 51.8 MiB | 1.50 s | 6 | 17 |" in text
    assert 'id="resources"' not in html.render(RUN)


def test_calls_to_aws_are_shown_with_the_statement_that_decided() -> None:
    decision = {"allowed": False, "action": "s3:GetObject", "policy": "reader", "statement": 2, "layer": "identity"}
    call = {"service": "s3", "operation": "GetObject", "principal": "arn:aws:sts::1:assumed-role/r/s", "status": 403}
    evidence = {"kind": "aws-calls", "title": "1 call", "content": [call | {"decisions": [decision]}]}

    page = html.render(make_run({"AGT-1": "passed"}, evidence=[evidence]))

    assert '<span class="bad">deny</span> s3:GetObject <small>reader · statement 2</small>' in page


def test_evidence_stands_once_and_the_test_s_other_requirements_point_to_it() -> None:
    results = Results()
    results.bindings["suites/t.py::t"] = ("AGT-1", "AGT-2")
    seen = {"kind": "text", "title": "what was seen", "content": "only once on the page"}
    for when in ("setup", "call", "teardown"):
        results.add("suites/t.py::t", phase(when, evidence=[seen]))
    ledger = Ledger([requirement("AGT-1"), requirement("AGT-2")])

    page = html.render(results.run(RunFacts("r", START, [], "ours"), ledger, Baseline(), START))

    assert page.count("only once on the page") == 1
    assert (page.count('id="evidence-0-0"'), page.count('href="#evidence-0-0"')) == (1, 1)


def test_a_report_that_breaks_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(junit, "render", lambda run: run.nothing)

    faults = write_reports(tmp_path, replace(RUN))

    assert [fault.partition(":")[0] for fault in faults] == ["junit"]
    assert {file.name for file in tmp_path.iterdir()} == {"index.html", "summary.md", "badge.svg"}
