"""Clean-up of fixtures: limits of a step and of all, and what is kept of a failed scenario."""

from __future__ import annotations

import pytest
from small_suites import HEADER, make_suite, record, run

from harness.conformance import cleanup

pytest_plugins = ["pytester"]

TWO_STEPS = """
import time
from pathlib import Path

@pytest.fixture
def first():
    yield
    Path("first").write_text("gone")

@pytest.fixture
def stuck(first):
    yield
    time.sleep(30)
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    return make_suite(pytester, monkeypatch)


def test_a_step_that_hangs_is_told_and_passed_over(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODID_TIMEOUT_SCALE", "0.01")

    result = run(suite, TWO_STEPS + '@requirement("AGT-1")\ndef test_a(stuck): pass\n')

    (fault,) = record(suite).faults
    assert result.ret == 0
    assert fault.where == "clean-up"
    assert "stuck of suites/test_it.py::test_a was not cleaned up within 1 s, and is left behind" in fault.message
    assert (suite.path / "first").read_text() == "gone"


def test_all_steps_together_have_a_limit(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleanup, "_SHORTEST", 0.05)
    monkeypatch.setattr(cleanup.CleanUp.__init__, "__kwdefaults__", {"step": 60.0, "total": 0.1})
    body = "import time\n" + "".join(
        f"@pytest.fixture\ndef {name}():\n    yield\n    time.sleep(30)\n" for name in ("one", "two", "three")
    )

    run(suite, body + '@requirement("AGT-1")\ndef test_a(one, two, three): pass\n')

    (fault,) = record(suite).faults
    assert [f"{name} of suites" in fault.message for name in ("one", "two", "three")] == [True] * 3


KEPT = """
from pathlib import Path

@pytest.fixture(scope="module")
def namespace():
    try:
        yield "demo"
    finally:
        Path("namespace").write_text("gone")

@pytest.fixture
def role():
    yield
    Path("role").write_text("gone")

@requirement("AGT-1")
def test_a(namespace, role): assert {holds}
"""


@pytest.mark.parametrize(
    ("options", "holds", "gone"),
    [
        ([], False, {"namespace", "role"}),
        (["--keep-failed"], True, {"namespace", "role"}),
        (["--keep-failed"], False, set[str]()),
    ],
    ids=["by default", "passed", "failed"],
)
def test_what_a_failed_scenario_made_is_kept_if_asked_for(
    suite: pytest.Pytester, options: list[str], *, holds: bool, gone: set[str]
) -> None:
    # In a process of its own: what is kept must not be cleaned up at its end either.
    (suite.path / "suites" / "test_it.py").write_text(HEADER + KEPT.format(holds=holds))
    result = suite.runpytest_subprocess("suites", "-p", "no:cacheprovider", *options)

    assert {name for name in ("namespace", "role") if (suite.path / name).exists()} == gone
    kept = record(suite).environment.get("kept", "")
    assert [f"{name} of suites/test_it.py" in kept for name in ("namespace", "role")] == [not gone] * 2
    assert result.ret == (0 if holds else 1)
