"""Options and fixtures of the suites: which lab and clusters, an administrator of AWS, the agent's add-on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.cluster.base import Cluster, ClusterSpec
from harness.conformance.plugin import Plugin
from harness.kube import Kube
from harness.lab import Lab
from harness.lab.provider import parse_request
from harness.progress import Progress
from harness.scenario import AwsAccount

SUITES = Path(__file__).parent / "suites"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("podid", "conformance of Amazon EKS Pod Identity")
    group.addoption("--lab", default="podid", help="lab to run in; raised and removed again unless it is up")
    group.addoption(
        "--provider",
        default=os.environ.get("PODID_PROVIDER", "auto"),
        help="what a lab that is not up yet stands on: auto, kind or native",
    )
    group.addoption("--cluster", action="append", default=[], help="cluster to run on; repeat for several")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "requirement(*ids): the requirements that a test decides")
    config.pluginmanager.register(Plugin(SUITES), "podid-conformance")


def _cluster_names(config: pytest.Config) -> list[str]:
    return config.getoption("--cluster") or [ClusterSpec().name]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every scenario on each cluster; with one cluster, the test's ID stays plain."""
    names = _cluster_names(metafunc.config)
    if "cluster_name" in metafunc.fixturenames and len(names) > 1:
        metafunc.parametrize("cluster_name", names, scope="session")


@pytest.fixture(scope="session")
def cluster_name(pytestconfig: pytest.Config) -> str:
    (name,) = _cluster_names(pytestconfig)
    return name


@pytest.fixture(scope="session")
def lab(pytestconfig: pytest.Config) -> Iterator[Lab]:
    """The lab, raised for this session when it is not up yet."""
    the_lab = Lab(pytestconfig.getoption("--lab"))
    was_up = the_lab.exists
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled(), Progress() as progress:
        specs = [ClusterSpec.named(name) for name in _cluster_names(pytestconfig)]
        the_lab.up(specs, progress, parse_request(pytestconfig.getoption("--provider")))
    yield the_lab
    if not was_up:
        the_lab.down()


@pytest.fixture(scope="session")
def cluster(lab: Lab, cluster_name: str) -> Cluster:
    return lab.cluster(cluster_name)


@pytest.fixture(scope="session")
def kube(cluster: Cluster) -> Iterator[Kube]:
    """An administrator of the cluster."""
    client = Kube(cluster.kubeconfig)
    yield client
    client.close()


@pytest.fixture(scope="session")
def aws(lab: Lab) -> AwsAccount:
    """An administrator of the article's account."""
    return lab.administrator()


@pytest.fixture(scope="session")
def agent_addon(cluster: Cluster, aws: AwsAccount) -> None:
    """``aws eks create-addon``: the agent will run on every node; does not wait."""
    aws.create_agent_addon(cluster.name)
