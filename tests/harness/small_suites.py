"""Small suites for tests of the plugin, driven through pytest itself, in this process."""

from __future__ import annotations

from pathlib import Path

import pytest

# pytester forgets what a run imported; without this, every run would import the reports and compile the page anew.
import harness.conformance.reports.html
import harness.conformance.reports.junit
import harness.conformance.reports.markdown  # noqa: F401
from harness.conformance.canary import VARIABLE
from harness.conformance.record import Run, TestRecord, read_run

FIELDS = "source: u, applies_to: [ours, upstream], profile: core, observe: unit"
LEDGER = f"""
requirements:
- {{id: AGT-1, level: MUST, sentence: The first thing holds., {FIELDS}}}
- {{id: AGT-2, level: MUST, sentence: The second thing holds., {FIELDS}}}
- {{id: AGT-3, level: SHOULD, sentence: The third thing holds., {FIELDS}}}
- {{id: WHK-1, level: MUST, sentence: Theirs holds., {FIELDS.replace("ours, ", "")}}}
"""
CONFTEST = """
import pytest
from pathlib import Path
from harness.conformance.options import add_options
from harness.conformance.plugin import Plugin

def pytest_addoption(parser):
    add_options(parser.getgroup("podid"))

def pytest_configure(config):
    config.addinivalue_line("markers", "requirement(*ids): x")
    config.pluginmanager.register(Plugin(Path(__file__).parent / "suites"), "podid-conformance")
"""
HEADER = """
import pytest
from harness.conformance.marks import requirement
from harness.conformance.outcomes import could_not_run, not_applicable
from harness.conformance.recording import Evidence, attach, check
"""
BOTH_PASS = '@requirement("AGT-1", "AGT-2")\ndef test_a():\n    "They hold.\\n\\n    Really."\n'
FIRST_FAILS = '@requirement("AGT-1")\ndef test_a(): assert 1 == 2\n'


def make_suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Return a checkout with suites, to which :func:`run` adds a test file."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.delenv("PODID_RESULT_FILE", raising=False)
    monkeypatch.setenv(VARIABLE, "")
    # Other plugins take most of the time of a run this small.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeconftest(CONFTEST)
    (pytester.mkdir("suites") / "requirements").mkdir()
    (pytester.path / "suites" / "requirements" / "a.yaml").write_text(LEDGER)
    return pytester


def run(suite: pytest.Pytester, body: str, *arguments: str) -> pytest.RunResult:
    (suite.path / "suites" / "test_it.py").write_text(HEADER + body)
    return suite.runpytest_inprocess("suites", "-p", "no:cacheprovider", "-Werror", *arguments, no_reraise_ctrlc=True)


def directory(suite: pytest.Pytester) -> Path:
    (found,) = (suite.path / "reports").iterdir()
    return found


def latest(suite: pytest.Pytester) -> Run:
    return max((read_run(found) for found in (suite.path / "reports").iterdir()), key=lambda run: run.started_at)


def record(suite: pytest.Pytester) -> Run:
    return read_run(directory(suite))


def the_test(suite: pytest.Pytester) -> TestRecord:
    (test,) = record(suite).tests
    return test
