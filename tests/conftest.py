from __future__ import annotations

import pytest

import harness.subject.property_tests  # noqa: F401 - takes effect when it is imported


@pytest.fixture(autouse=True)
def no_lab_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """A person may have chosen a lab for their shell; tests begin without one."""
    monkeypatch.delenv("PODID_LAB", raising=False)
