"""The plugin's fixtures for conftest and suites."""

from __future__ import annotations

import pytest

from harness.conformance.diagnostics import Diagnostics

__all__ = ["DIAGNOSTICS", "ENVIRONMENT", "diagnostics", "run_environment"]

DIAGNOSTICS = pytest.StashKey[Diagnostics]()
ENVIRONMENT = pytest.StashKey[dict[str, str]]()


@pytest.fixture(scope="session")
def diagnostics(pytestconfig: pytest.Config) -> Diagnostics:
    """Where fixtures register what is to be looked into when a test fails."""
    return pytestconfig.stash[DIAGNOSTICS]


@pytest.fixture(scope="session")
def run_environment(pytestconfig: pytest.Config) -> dict[str, str]:
    """Facts about the run that the report names, such as versions; fixtures add theirs."""
    return pytestconfig.stash[ENVIRONMENT]
