"""JUnit for CI: one test case for each requirement that was to be decided, named by its ID."""

from __future__ import annotations

import re
from collections import Counter
from typing import Literal
from xml.etree import ElementTree as ET

from harness.conformance.record import RequirementRecord, Run, TestRecord

__all__ = ["FILE_NAME", "render"]

FILE_NAME = "junit.xml"

_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LONGEST = 20_000

Child = Literal["failure", "error", "skipped", ""]


def render(run: Run) -> str:
    """Return the run as JUnit XML."""
    tests = {test.node: test for test in run.tests}
    suite = ET.Element("testsuite", name=f"podid.{run.subject}", timestamp=run.started_at)
    counts: Counter[str] = Counter()
    for requirement in run.requirements:
        if requirement.outcome:
            counts["tests"] += 1
            counts[_add_case(suite, run, requirement, [tests[node] for node in requirement.tests])] += 1
    for fault in run.faults:
        counts.update(("tests", "error"))
        case = ET.SubElement(suite, "testcase", name=f"podid.{fault.where}", classname="podid")
        _add_child(case, "error", "harness", fault.message)
    for attribute, child in (("tests", "tests"), ("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(attribute, str(counts[child]))
    properties = ET.Element("properties")
    for name, value in (("verdict", run.verdict), ("exit_code", str(run.exit_code)), ("line", run.line)):
        ET.SubElement(properties, "property", name=name, value=_clean(value))
    suite.insert(0, properties)
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _add_case(suite: ET.Element, run: Run, requirement: RequirementRecord, tests: list[TestRecord]) -> Child:
    seconds = sum(test.durations.get("call", 0) for test in tests)
    case = ET.SubElement(
        suite, "testcase", name=requirement.id, classname=f"{run.subject}.{requirement.area}", time=f"{seconds:.3f}"
    )
    child, kind = _kind(requirement)
    text = "\n\n".join([requirement.sentence, *(_account(requirement, test) for test in tests)])
    if requirement.reason:
        text = f"{requirement.reason.kind}: {requirement.reason.detail}\n\n{text}"
    if child:
        _add_child(case, child, kind, text)
    elif requirement.outcome == "flaky":
        properties = ET.SubElement(case, "properties")
        ET.SubElement(properties, "property", name="flaky", value="true")
    if links := [f"[[ATTACHMENT|{test.diagnostics}]]" for test in tests if test.diagnostics]:
        ET.SubElement(case, "system-out").text = "\n".join(links)
    return child


def _kind(requirement: RequirementRecord) -> tuple[Child, str]:
    match requirement.outcome:
        case "failed":
            return "failure", "requirement"
        case "error":
            return "error", "harness"
        case "could-not-run" if requirement.level == "MUST":
            return "error", "could-not-run"
        case "could-not-run" | "not-applicable" | "expected-failure":
            return "skipped", requirement.outcome
        case _:
            return "", ""


def _account(requirement: RequirementRecord, test: TestRecord) -> str:
    checks = [entry for entry in test.checks if entry.requirement == requirement.id and not entry.holds]
    lines = [f"expected: {entry.expected}\nobserved: {entry.observed}" for entry in checks]
    return "\n".join([f"{test.node}: {test.decisions[requirement.id]}", *(lines or [test.message])])


def _add_child(case: ET.Element, name: str, kind: str, text: str) -> None:
    clean = _clean(text)
    child = ET.SubElement(case, name, type=kind, message=clean.partition("\n")[0][:300])
    child.text = (
        clean if len(clean) <= _LONGEST else f"{clean[:_LONGEST]}\n… {len(clean) - _LONGEST} characters left out"
    )


def _clean(text: str) -> str:
    """Replace what XML 1.0 cannot hold."""
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
