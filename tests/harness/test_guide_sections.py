"""Each section of the guide has a row on the page, with the scenarios that walk through it and what they found."""

from __future__ import annotations

import re
from pathlib import Path

from conformance_runs import START, make_run, phase, requirement

from harness.conformance.baseline import Baseline
from harness.conformance.ledger import Ledger
from harness.conformance.reports import html
from harness.conformance.reports._guide import SECTIONS
from harness.conformance.results import Results, RunFacts

SUITES = Path(__file__).parents[2] / "suites"


def test_every_scenario_is_in_a_section_and_every_one_named_there_exists() -> None:
    named = {scenario for section in SECTIONS for scenario in section.scenarios}
    tests = {
        f"{file.name}::{name}"
        for file in SUITES.glob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE)
    }
    files = {test.partition("::")[0] for test in tests}

    assert named - tests - files == set()
    assert {test for test in tests - named if test.partition("::")[0] not in named} == set()


def test_a_section_shows_its_scenarios_and_leads_to_the_evidence_of_their_requirements() -> None:
    nodes = {
        "suites/test_abac.py::test_a[team-a]": "AGT-1",
        "suites/test_abac.py::test_b": "AGT-2",
        "suites/x.py::c": "AGT-3",
    }
    results = Results()
    for node, decided in nodes.items():
        results.bindings[node] = (decided,)
        results.add(node, phase("setup"))
        results.add(node, phase("call", "failed" if decided == "AGT-2" else "passed"))
        results.add(node, phase("teardown"))
    ledger = Ledger(requirement(decided) for decided in nodes.values())

    page = html.render(results.run(RunFacts("r", START, [], "ours"), ledger, Baseline(), START))
    rows = dict(re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', page, re.DOTALL))

    assert "<code>test_abac.py</code> 1 failed, 1 passed" in rows["Session Tags and ABAC"]
    squares = re.findall(r'href="#(\S+)" tabindex="-1" class="(\w+)"', rows["Session Tags and ABAC"])
    assert squares == [("AGT-1", "passed"), ("AGT-2", "failed")]
    assert "<code>test_migration.py</code> not in this run" in rows["Migrating from IRSA to Pod Identity"]
    assert "no scenario" in rows["Complete Terraform Module"]


def test_a_run_of_a_suite_without_scenarios_has_no_such_table() -> None:
    assert 'id="guide"' not in html.render(make_run({"AGT-1": "passed"}))
