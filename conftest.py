"""Options and fixtures of the suites: which lab and clusters, an administrator of AWS, the agent's add-on."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import checkout
from harness.cluster.base import Cluster, ClusterSpec
from harness.collectors import AwsCalls, ClusterState
from harness.conformance.canary import VARIABLE as CANARY
from harness.conformance.diagnostics import Diagnostics
from harness.conformance.fixtures import ENVIRONMENT
from harness.conformance.ground import Ground
from harness.conformance.options import add_options
from harness.conformance.plugin import Plugin
from harness.conformance.recording import attach, note_use
from harness.conformance.usage import use_between
from harness.kube import Kube
from harness.lab import Lab
from harness.lab.provider import parse_request
from harness.metering import PodMeter
from harness.progress import Progress
from harness.runner import raise_setup_fault
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
    group.addoption(
        "--agent-command",
        default=os.environ.get("PODID_AGENT_COMMAND", ""),
        help="command line that starts the agent of suites/agent (default: ours)",
    )
    group.addoption(
        "--webhook-command",
        default=os.environ.get("PODID_WEBHOOK_COMMAND", ""),
        help="command line that starts the webhook of suites/webhook (default: ours)",
    )
    group.addoption("--webhook-manifests", default="", metavar="DIR", help="its manifests (default: webhook/deploy)")
    add_options(group)


def pytest_configure(config: pytest.Config) -> None:
    _start_mutant(config)
    foreign = config.getoption("--agent-command") or config.getoption("--webhook-command")
    if foreign and not config.getoption("--subject"):
        # Somebody else's program is held to what AWS's does, not to what only ours promises.
        config.option.subject = "upstream"
    config.addinivalue_line("markers", "requirement(*ids): the requirements that a test decides")
    config.pluginmanager.register(Plugin(SUITES), "podid-conformance")


def pytest_sessionstart(session: pytest.Session) -> None:
    facts = session.config.stash[ENVIRONMENT]
    if commit := checkout.commit(SUITES.parent):
        facts["commit"] = commit
    if session.config.getoption("--subject") != "upstream":
        facts["sources"] = checkout.sources(SUITES.parent)


def _start_mutant(config: pytest.Config) -> None:
    """Let ``--subject mutant:NAME`` start the mutant, unless a command says what to start."""
    kind, _, name = config.getoption("--subject").partition(":")
    if kind != "mutant" or config.getoption("--agent-command") or config.getoption("--webhook-command"):
        return
    command = shlex.join([sys.executable, "-m", "harness.subject.mutants", name])
    if name.startswith("agent-"):
        config.option.agent_command = command
    else:
        config.option.webhook_command = command


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
def lab(pytestconfig: pytest.Config, run_environment: dict[str, str], ground: Ground) -> Iterator[Lab]:
    """The lab, raised for this session when it is not up yet."""
    raise_setup_fault()
    the_lab = Lab(pytestconfig.getoption("--lab"))
    was_up = the_lab.exists
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled(), Progress() as progress:
        specs = [ClusterSpec.named(name) for name in _cluster_names(pytestconfig)]
        the_lab.up(specs, progress, parse_request(pytestconfig.getoption("--provider")))
    run_environment["clusters"] = ", ".join(_cluster_names(pytestconfig))
    ground.watch(the_lab.look_for_losses())
    yield the_lab
    if not was_up:
        the_lab.down()


@pytest.fixture(scope="session")
def cluster(lab: Lab, cluster_name: str) -> Cluster:
    return lab.cluster(cluster_name)


@pytest.fixture(scope="session")
def kube(cluster: Cluster, diagnostics: Diagnostics) -> Iterator[Kube]:
    """An administrator of the cluster; when a test fails, the cluster is looked into."""
    client = Kube(cluster.kubeconfig)
    # Whoever collects Secrets is found out: the plugin looks for the canary in every artifact.
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "podid-canary"}}
    client.apply([secret | {"stringData": {"canary": os.environ.get(CANARY, "")}}], "default")
    state = ClusterState(cluster.name, client)
    diagnostics.register(state)
    yield client
    diagnostics.unregister(state)
    client.close()


@pytest.fixture(scope="session")
def aws(lab: Lab) -> AwsAccount:
    """An administrator of the article's account."""
    return lab.administrator()


@pytest.fixture(scope="session")
def aws_calls(lab: Lab, diagnostics: Diagnostics, run_environment: dict[str, str]) -> AwsCalls:
    """What AWS is asked, by whom, and how it decides."""
    control = lab.control()
    run_environment["aws"] = f"LocalStack {control.ready()['version']}"
    calls = AwsCalls(control)
    diagnostics.register(calls)
    return calls


@pytest.fixture(autouse=True)
def calls_as_evidence(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every scenario on the lab has the calls to AWS that it caused as evidence."""
    if "lab" not in request.fixturenames or not request.path.is_relative_to(SUITES):
        yield
        return
    calls: AwsCalls = request.getfixturevalue("aws_calls")
    calls.mark()
    yield
    attach(calls.evidence())


@pytest.fixture(scope="session")
def meter(cluster: Cluster, kube: Kube) -> PodMeter:
    """What agent and webhook use on the nodes."""
    return PodMeter(cluster, kube)


@pytest.fixture(autouse=True)
def resource_use(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every scenario on a cluster says what agent and webhook used."""
    if "cluster" not in request.fixturenames or not request.path.is_relative_to(SUITES):
        yield
        return
    meter: PodMeter = request.getfixturevalue("meter")
    before = meter.begin()
    yield
    note_use(use_between(before, meter.read()))


@pytest.fixture(scope="session")
def agent_addon(cluster: Cluster, aws: AwsAccount) -> None:
    """``aws eks create-addon``: the agent will run on every node; does not wait."""
    aws.create_agent_addon(cluster.name)
