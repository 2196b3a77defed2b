"""The running emulator, for the tests that ask over the wire; the others ask the domain itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import harness.subject.property_tests  # noqa: F401 - takes effect when it is imported
from harness.cloud.localstack.environment import Environment
from harness.conformance.features import Detection
from harness.conformance.issued import Issued
from harness.subject.aws import Aws
from harness.subject.aws_features import detect_in_aws
from harness.subject.aws_fixtures import api, localstack_environment, make_role, no_aws_settings, node
from harness.subject.running_aws import running_aws

__all__ = ["api", "aws", "localstack_environment", "make_role", "no_aws_settings", "node"]

_RUNNING = pytest.StashKey[Aws]()


@pytest.hookimpl(optionalhook=True)
def pytest_podid_detect(item: pytest.Item, feature: str) -> Detection | None:
    """Ask AWS, as soon as a test has it running."""
    running = item.config.stash.get(_RUNNING, None)
    return detect_in_aws(running.client, feature) if running else None


@pytest.fixture(scope="session")
def aws(
    pytestconfig: pytest.Config,
    localstack_environment: Environment,
    tmp_path_factory: pytest.TempPathFactory,
    issued: Issued,
    run_environment: dict[str, str],
) -> Iterator[Aws]:
    """The process, once a session; what it mints carries the run's marker."""
    with running_aws(localstack_environment, tmp_path_factory.mktemp("aws")) as running:
        run_environment["aws"] = f"LocalStack {running.control.ready()['version']}"
        running.control.set_marker(issued.marker)
        pytestconfig.stash[_RUNNING] = running
        yield running
        del pytestconfig.stash[_RUNNING]
        issued.add(running.control.issued())
