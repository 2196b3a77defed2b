"""The plugin's fixtures for conftest and suites."""

from __future__ import annotations

import pytest

from harness.conformance.ceilings import Ceilings
from harness.conformance.diagnostics import Diagnostics
from harness.conformance.ground import Ground
from harness.conformance.issued import Issued

__all__ = [
    "CEILINGS",
    "DIAGNOSTICS",
    "ENVIRONMENT",
    "GROUND",
    "ISSUED",
    "ceilings",
    "diagnostics",
    "ground",
    "issued",
    "run_environment",
]

CEILINGS = pytest.StashKey[Ceilings]()
DIAGNOSTICS = pytest.StashKey[Diagnostics]()
GROUND = pytest.StashKey[Ground]()
ISSUED = pytest.StashKey[Issued]()
ENVIRONMENT = pytest.StashKey[dict[str, str]]()


@pytest.fixture(scope="session")
def ceilings(pytestconfig: pytest.Config) -> Ceilings:
    """What a subject may use at most, by requirement."""
    return pytestconfig.stash[CEILINGS]


@pytest.fixture(scope="session")
def diagnostics(pytestconfig: pytest.Config) -> Diagnostics:
    """Where fixtures register what is to be looked into when a test fails."""
    return pytestconfig.stash[DIAGNOSTICS]


@pytest.fixture(scope="session")
def ground(pytestconfig: pytest.Config) -> Ground:
    """Where fixtures tell what tests depend on."""
    return pytestconfig.stash[GROUND]


@pytest.fixture(scope="session")
def run_environment(pytestconfig: pytest.Config) -> dict[str, str]:
    """Facts about the run that the report names, such as versions; fixtures add theirs."""
    return pytestconfig.stash[ENVIRONMENT]


@pytest.fixture(scope="session")
def issued(pytestconfig: pytest.Config) -> Issued:
    """Where fixtures tell the secrets that they get to know, so that no file of the run keeps one."""
    return pytestconfig.stash[ISSUED]
