"""The webhooks that the suite asks: one process for each command line, started when a test first needs it."""

from __future__ import annotations

import functools
import re
import subprocess
from collections.abc import Callable, Iterator

import pytest

from harness.conformance.features import Detection, offered
from harness.conformance.outcomes import not_applicable
from harness.subject.kube_api import KubeApi, serve_kube_api
from harness.subject.webhook import (
    OTHER_PREFIX,
    Surroundings,
    Webhook,
    default_command,
    identities,
    parse_command,
)

ROLE = "arn:aws:iam::111122223333:role/s3-reader"
_HELP_SECONDS = 15.0
LISTED = (
    "demo/s3-reader",
    "demo/both",
    "demo/annotated",
    "demo/uncached",
    "demo/default",
    "kube-system/s3-reader",
    # Names like any other, of which a webhook must not make patterns.
    "*/any-namespace",
    "demo/*",
)
"""Pairs with an association; all others are without."""


@pytest.hookimpl(optionalhook=True)
def pytest_podid_detect(item: pytest.Item, feature: str) -> Detection | None:
    """Whether it mutates for IRSA, for whose tokens it has an audience."""
    if feature != "irsa":
        return None
    return _offers_irsa(item.config.getoption("--webhook-command") or default_command())


@functools.cache
def _offers_irsa(command: str) -> Detection | None:
    try:
        done = subprocess.run(
            [*parse_command(command), "--help"], capture_output=True, text=True, timeout=_HELP_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        # Whoever says nothing has not said that it lacks something: the tests decide.
        return None
    return offered("--token-audience", "the webhook", done.stdout + done.stderr)


@pytest.fixture(scope="session")
def kube_api() -> Iterator[KubeApi]:
    """The API server of all webhooks that need none of their own.

    In ``demo``: ``s3-reader`` and ``annotated`` have an association, ``with-role`` has a role, ``both`` has both,
    ``plain`` neither.
    """
    with serve_kube_api() as api:
        for name in ("s3-reader", "annotated", "plain", "default"):
            api.put_service_account("demo", name)
        annotations = {f"{prefix}/role-arn": ROLE for prefix in ("eks.amazonaws.com", OTHER_PREFIX)}
        api.put_service_account("demo", "with-role", annotations)
        api.put_service_account("demo", "both", annotations | {"eks.amazonaws.com/audience": "own-audience"})
        api.put_service_account("kube-system", "s3-reader")
        yield api


@pytest.fixture(scope="session")
def surroundings(
    pytestconfig: pytest.Config,
    kube_api: KubeApi,
    tmp_path_factory: pytest.TempPathFactory,
    run_environment: dict[str, str],
) -> Surroundings:
    text = pytestconfig.getoption("--webhook-command") or default_command()
    run_environment["webhook"] = pytestconfig.getoption("--webhook-command") or "this repository's"
    directory = tmp_path_factory.mktemp("webhooks")
    (directory / "identities.json").write_text(identities(*LISTED))
    return Surroundings(parse_command(text), kube_api, directory)


def serving(surroundings: Surroundings, *flags: str) -> Iterator[Webhook]:
    file = surroundings.directory / "identities.json"
    with surroundings.webhook(f"--watch-container-credentials-config={file}", *flags) as webhook:
        surroundings.settle(webhook)
        yield webhook


@pytest.fixture(scope="session")
def plain(surroundings: Surroundings) -> Iterator[Webhook]:
    """A webhook with the flags' defaults; it injects the two credential variables alone."""
    yield from serving(surroundings)


@pytest.fixture(scope="session")
def eks(surroundings: Surroundings) -> Iterator[Webhook]:
    """A webhook of the EKS profile: five variables."""
    yield from serving(surroundings, "--aws-default-region=eu-west-1", "--sts-regional-endpoint=true")


@pytest.fixture(scope="session")
def custom(surroundings: Surroundings) -> Iterator[Webhook]:
    """A webhook with another value for every flag that a pod shows; values stand behind a blank, not behind ``=``."""
    flags = {
        "--annotation-prefix": OTHER_PREFIX,
        "--token-audience": "irsa-audience",
        "--token-mount-path": "/irsa/",
        "--token-expiration": "7200",
        "--aws-default-region": "ap-south-1",
        "--container-credentials-audience": "pi-audience",
        "--container-credentials-token-mount-path": "/pi//./x/../tokens/",
        "--container-credentials-token-volume-name": "pi-volume",
        "--container-credentials-token-path": "pi-token",
        "--container-credentials-full-uri": "http://[fd00:ec2::23]/v1/credentials",
        "--namespace": "elsewhere",
        "--service-name": "other-service",
        "--tls-secret": "other-secret",
        "--resync-period": "90s",
        "--service-account-lookup-grace-period": "0",
    }
    switches = ("--sts-regional-endpoint", "--watch-config-map", "--in-cluster=false")
    yield from serving(surroundings, *(text for flag in flags.items() for text in flag), *switches)


@pytest.fixture
def released_since(pytestconfig: pytest.Config, surroundings: Surroundings) -> Callable[[str], None]:
    """Return what ends a test of which AWS's webhook knows nothing before a release; ours is held to everything."""

    def require(release: str) -> None:
        if pytestconfig.getoption("--subject") != "upstream":
            return
        printed = surroundings.run_to_its_end("--version").output.strip()
        found = re.search(r"v?(\d+)\.(\d+)\.(\d+)", printed)
        version = tuple(int(number) for number in found.groups()) if found else (0, 0, 0)
        if version < tuple(int(number) for number in release.split(".")):
            not_applicable("version", f"since {release}; the subject says {printed!r}")

    return require


@pytest.fixture
def ours_alone(pytestconfig: pytest.Config) -> None:
    """End a test of a requirement that binds both kinds of subject, but of a part of it that binds only ours."""
    if pytestconfig.getoption("--subject") == "upstream":
        not_applicable("subject", "AWS's webhook is not held to this part of the requirement")
