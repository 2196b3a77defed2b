"""Options and fixtures of the suites: which lab and clusters, an administrator of AWS, the agent's add-on."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import get_args

import pytest

from harness import binaries, checkout, lease
from harness.alb.state import LoadBalancers
from harness.cluster.base import Cluster, ClusterSpec, Completed, Node
from harness.cluster.kind_fixture import LabKindCluster, adapt
from harness.collectors import AwsCalls, ClusterState, EndedPrograms, planted_canary
from harness.conformance.canary import VARIABLE as CANARY
from harness.conformance.diagnostics import Diagnostics
from harness.conformance.features import Detection
from harness.conformance.fixtures import ENVIRONMENT
from harness.conformance.ground import Ground
from harness.conformance.history import read_durations
from harness.conformance.hooks import Plan
from harness.conformance.issued import Issued
from harness.conformance.options import add_options, declare
from harness.conformance.outcomes import could_not_run
from harness.conformance.plugin import Plugin
from harness.conformance.recording import attach, note_use
from harness.doctor import run_checks
from harness.errors import HarnessFault, MissingPrerequisite, UsageError
from harness.image_lock import read_lock
from harness.images import ImageSpec
from harness.kube import Kube
from harness.lab import Lab, load_balancing, side_by_side
from harness.lab.account_plan import read_plan
from harness.lab.given import PREVIOUS_VERSION, Role, lab_images, read_given
from harness.lab.load_balancing import ControllerFiles
from harness.lab.on_aws import AwsProvider
from harness.lab.paths import cache_directory
from harness.lab.profile import ADMINISTRATORS
from harness.lab.provider import chosen_provider, parse_request
from harness.lab.reuse import Reuse
from harness.metering import PodMeter
from harness.pod_watch import PodWatch
from harness.runner import raise_setup_fault
from harness.scenario import AwsAccount, shown_progress
from harness.subject.aws_features import detect_in_aws

SUITES = Path(__file__).parent / "suites"
SECOND_CLUSTER = "pod-identity-lab-2"
_WEBHOOK = "pod-identity-webhook"
_NOT_ON_AWS = (
    "this scenario installs something, or asks the emulator about itself; "
    "run it in a lab: --provider native or --provider kind"
)
NODES = 2
"""As many as any scenario needs of its first cluster."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("podid", "conformance of Amazon EKS Pod Identity")
    declare(group, "--lab", "podid", help="lab to run in; raised and removed again unless it is up")
    declare(group, "--provider", "auto", help="what a lab that is not up yet stands on")
    declare(group, "--ip-family", choices=["ipv4", "ipv6", "dual"], help="its pods' addresses (default: ipv4)")
    declare(group, "--backend", "emulator", choices=["emulator", "aws"], help="which AWS; set by podid run")
    declare(group, "--cluster", [], help="cluster to run on; repeat for several")
    declare(group, "--kubernetes", binaries.DEFAULT_KUBERNETES, help="version of Kubernetes of native clusters")
    declare(group, "--reuse", "checked", choices=["checked", "force"], help="use a lab that is up as it is")
    declare(group, "--agent-image-old", metavar="IMAGE", help="agent that upgrades begin with (default: ours, renamed)")
    declare(group, "--webhook-image-old", metavar="IMAGE", help="webhook that upgrades begin with, likewise")
    declare(group, "--agent-command", help="command line that starts the agent of suites/agent (default: ours)")
    declare(group, "--webhook-command", help="command line that starts the webhook of suites/webhook (default: ours)")
    declare(group, "--webhook-manifests", metavar="DIR", help="its manifests (default: webhook/deploy)")
    add_options(group)


def pytest_configure(config: pytest.Config) -> None:
    _start_mutant(config)
    foreign = config.getoption("--agent-command") or config.getoption("--webhook-command")
    if foreign and not config.getoption("--subject"):
        # Somebody else's program is held to what AWS's does, not to what only ours promises.
        config.option.subject = "upstream"
    config.addinivalue_line("markers", "requirement(*ids): the requirements that a test decides")
    config.addinivalue_line("markers", "on_aws: all that it makes in AWS goes through AwsAccount, also in Amazon's")
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


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out what was written for the lab's AWS alone, where AWS is Amazon's, before it makes anything."""
    is_on_lab = "lab" in getattr(item, "fixturenames", ())
    if is_on_lab and item.config.getoption("--backend") == "aws" and not item.get_closest_marker("on_aws"):
        could_not_run("backend-unsupported", _NOT_ON_AWS)


@pytest.hookimpl(optionalhook=True)
def pytest_podid_detect(item: pytest.Item, feature: str) -> Detection | None:
    """Ask a lab that is up: its AWS, or for IRSA its cluster, whether admission has a webhook."""
    lab = _lab(item.config)
    if item.path.parent != SUITES or not lab.exists:
        return None
    raise_setup_fault()
    if feature != "irsa":
        return detect_in_aws(lab.administrator().client, feature)
    # Not AWS: that would be one more call with a web identity, and scenarios count those.
    cluster = lab.cluster(_cluster_names(item.config)[0])
    client = Kube(cluster.kubeconfig)
    there = client.exists("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", _WEBHOOK)
    client.close()
    return Detection(there, f"{cluster.name} {'has' if there else 'lacks'} MutatingWebhookConfiguration {_WEBHOOK}")


@pytest.hookimpl(optionalhook=True)
def pytest_podid_plan(config: pytest.Config, items: Sequence[pytest.Item]) -> Plan | None:
    """What the scenarios would run on, and what this machine lacks for it."""
    fixtures = {item: set(getattr(item, "fixturenames", ())) for item in items}
    on_lab = [item for item, names in fixtures.items() if "lab" in names]
    if not on_lab:
        return Plan(["clusters: none; accounts: none; images: none"])
    if config.getoption("--backend") == "aws":
        unprepared = {item.nodeid: _NOT_ON_AWS for item in on_lab if not item.get_closest_marker("on_aws")}
        prepared = [item for item in on_lab if item.nodeid not in unprepared]
        plan = read_plan(function for item in prepared for function in _functions(item))
        return Plan(plan.lines("podid-RUN-{}".format), unprepared)
    lab = Lab(config.getoption("--lab"))
    wants_second = any("second_cluster" in names for names in fixtures.values())
    nodes = NODES if any("last_node" in names for names in fixtures.values()) else 1
    names = [*_cluster_names(config), *([SECOND_CLUSTER] if wants_second else [])]
    try:
        provider = lab.provider_name if lab.exists else chosen_provider(config.getoption("--provider"))
        # What an existing cluster lacks is said by `podid run --dry-run` and `podid doctor`, which know which one.
        family = config.getoption("--ip-family") or "ipv4"
        checks = [] if lab.exists or provider == "existing" else run_checks(provider or "native", family)
        missing = "; ".join(check.line() for check in checks if check.status == "fail")
    except MissingPrerequisite as error:
        provider, missing = None, str(error)
    images = [image.reference for image in read_lock().values() if provider in {None, *image.providers}]
    where = f"lab {lab.name} is up" if lab.exists else "to be raised"
    lines = [
        f"clusters: {', '.join(names)}; nodes of the first: {nodes}; provider: {provider or 'none'} ({where})",
        f"accounts: {', '.join(ADMINISTRATORS)}",
        *(f"image: {image}" for image in images),
    ]
    return Plan(lines, {item.nodeid: missing for item in on_lab} if missing else {})


def _functions(item: pytest.Item) -> Iterator[Callable[..., object]]:
    """Yield a test and its fixtures, in the order of their set-up."""
    definitions = getattr(item, "_fixtureinfo").name2fixturedefs  # noqa: B009 - pytest has no other way
    for name in getattr(item, "fixturenames", ()):
        yield from (definition.func for definition in definitions.get(name, ()) if name != "request")
    yield getattr(item, "function")  # noqa: B009 - of pytest.Function


def _lab(config: pytest.Config) -> Lab:
    """The lab of this process: workers of pytest-xdist have one each."""
    worker: str = getattr(config, "workerinput", {}).get("workerid", "")
    return Lab(side_by_side.of_worker(config.getoption("--lab"), worker))


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
def lab_in_use(pytestconfig: pytest.Config) -> Iterator[None]:
    """Another run with a lab of this name leaves this process's alone; one that was killed left nothing of it."""
    the_lab = _lab(pytestconfig)
    if the_lab.is_left_over:
        the_lab.down()
    with the_lab.used():
        yield


@pytest.fixture(scope="session")
def lab(
    request: pytest.FixtureRequest,
    run_environment: dict[str, str],
    ground: Ground,
    issued: Issued,
    diagnostics: Diagnostics,
    *,
    lab_in_use: None,
) -> Iterator[Lab]:
    """The lab, raised for this session when it is not up yet."""
    del lab_in_use
    raise_setup_fault()
    pytestconfig = request.config
    the_lab, named = _lab(pytestconfig), Lab(pytestconfig.getoption("--lab"))
    was_up = the_lab.exists
    if was_up and the_lab.on_aws:
        _require_time(pytestconfig, the_lab.on_aws, request.session.items)
    reuse = pytestconfig.getoption("--reuse")
    _raise_clusters(the_lab, _cluster_names(pytestconfig), pytestconfig, nodes_from_start=NODES, reuse=reuse)
    run_environment["clusters"] = ", ".join(_cluster_names(pytestconfig))
    run_environment["ip_family"] = the_lab.ip_family
    minors = {the_lab.cluster(name).kubernetes_minor for name in _cluster_names(pytestconfig)}
    run_environment["kubernetes"] = ", ".join(sorted(minors))
    for role, image in named.given.items():
        run_environment[f"{role}_image"] = f"{image.source} (archive sha256:{image.sha256})"
    old = {role: pytestconfig.getoption(f"--{role}-image-old") for role in get_args(Role)}
    the_lab.take_previous({role: source for role, source in old.items() if source})
    if was_up and (told := the_lab.differences()):
        run_environment["lab"] = f"used again by force: {'; '.join(told)}"
    the_lab.losses.begin()
    ended = EndedPrograms(the_lab.losses.found, the_lab.logs)
    diagnostics.register(ended)
    with (
        _on_amazons(the_lab.on_aws, run_environment) if the_lab.on_aws else _on_ours(the_lab, issued, diagnostics),
        ground.watching(the_lab.losses.tell),
    ):
        yield the_lab
    diagnostics.unregister(ended)
    if not was_up:
        the_lab.down()


@contextlib.contextmanager
def _on_ours(lab: Lab, issued: Issued, diagnostics: Diagnostics) -> Generator[None]:
    """Let the lab's AWS mark the secrets that it mints, and tell them at the end."""
    control = lab.control()
    control.set_marker(issued.marker)
    yield
    try:
        issued.add(control.issued())
    except HarnessFault as fault:
        # What AWS minted is still found by the marker, but not the tokens that it saw.
        diagnostics.faults.append(f"secrets of the run: {fault}")


@contextlib.contextmanager
def _on_amazons(provider: AwsProvider, run_environment: dict[str, str]) -> Generator[None]:
    """Say in the report which account is used, and at the end what was made there (HRN-EXT-19)."""
    target = provider.target
    run_environment["aws"] = f"Amazon Web Services, account {target.aws_account}, {target.aws_region}"
    yield
    run_environment["made in AWS"] = "; ".join(map(str, provider.record.made)) or "nothing"


def _require_time(config: pytest.Config, provider: AwsProvider, items: Sequence[pytest.Item]) -> None:
    """Refuse a run that will probably last longer than the account's owner allows (HRN-EXT-15).

    Raises:
        MissingPrerequisite: It will.
    """
    history, leg = config.rootpath / config.getoption("--history"), config.getoption("--leg")
    durations = read_durations(history, leg or config.getoption("--subject"), SUITES)
    minutes = sum(durations.expected(item.nodeid for item in items).values()) / 60
    if minutes > (most := provider.rules.max_minutes):
        raise MissingPrerequisite(
            f"the scenarios take {minutes:.0f} minutes; account {provider.target.aws_account} is for {most} at most",
            hint="run fewer, such as suites/test_s3.py; or raise max_minutes of the account",
            kind="time-budget",
        )


def _raise_clusters(
    lab: Lab,
    names: Sequence[str],
    config: pytest.Config,
    *,
    nodes: int = 1,
    nodes_from_start: int = 1,
    # What a run adds to its own lab later joins it, whatever somebody edits meanwhile.
    reuse: Reuse = "force",
) -> None:
    with shown_progress(config) as progress:
        kubernetes = config.getoption("--kubernetes")
        specs = [ClusterSpec.named(name, nodes=nodes, kubernetes=kubernetes) for name in names]
        provider = parse_request(config.getoption("--provider"))
        family, given = config.getoption("--ip-family") or None, dict[Role, str]()
        if lab.name != (named := Lab(config.getoption("--lab"))).name and named.exists:
            # A lab beside the person's own gets its agent, webhook and addresses.
            family, given = named.ip_family, {role: image.archive for role, image in named.given.items()}
        lab.up(
            specs,
            progress,
            provider,
            given=given,
            ip_family=family,
            nodes_from_start=nodes_from_start,
            reuse=reuse,
        )


@pytest.fixture(scope="session")
def cluster(lab: Lab, cluster_name: str) -> Cluster:
    return lab.cluster(cluster_name)


@pytest.fixture(scope="session")
def ipv4_pods(cluster: Cluster) -> None:
    """Pods have IPv4: for walkthroughs that name its addresses."""
    if 4 not in cluster.spec.ip_versions:
        could_not_run("environment", "written for pods with IPv4; run it in a lab without --ip-family ipv6")


@pytest.fixture(scope="session")
def kind_cluster(cluster: Cluster) -> LabKindCluster:
    """The cluster behind pytest-kind's names, for tests that were written for it."""
    return adapt(cluster)


@pytest.fixture(scope="session")
def second_cluster(lab: Lab, cluster: Cluster, pytestconfig: pytest.Config, run_environment: dict[str, str]) -> Cluster:
    """Another cluster beside the same AWS, raised for the first scenario that needs two; it goes with the lab."""
    name = next(name for name in (*_cluster_names(pytestconfig), SECOND_CLUSTER) if name != cluster.name)
    _raise_clusters(lab, [name], pytestconfig)
    run_environment["second cluster"] = name
    lab.losses.begin()
    return lab.cluster(name)


@pytest.fixture(scope="session")
def last_node(lab: Lab, cluster: Cluster, pytestconfig: pytest.Config) -> Node:
    """Another node than the first, added where a running cluster can grow; else the only one that there is."""
    if len(cluster.nodes) < NODES:
        with contextlib.suppress(UsageError):
            _raise_clusters(lab, [cluster.name], pytestconfig, nodes=NODES)
            lab.losses.begin()
    return cluster.nodes[-1]


@pytest.fixture(scope="session")
def previous_images(lab: Lab, run_environment: dict[str, str]) -> Mapping[Role, ImageSpec]:
    """The images that upgrades begin with; none is built yet."""
    images = lab.previous_images
    for role, image in images.items():
        given = read_given(lab.paths.previous).get(role)
        own = f"ours, built as version {PREVIOUS_VERSION} ({image.reference})"
        run_environment[f"{role}_image_old"] = f"{given.source} (archive sha256:{given.sha256})" if given else own
    return images


@pytest.fixture(scope="session")
def kube(
    cluster: Cluster, lab: Lab, diagnostics: Diagnostics, ground: Ground, run_environment: dict[str, str]
) -> Iterator[Kube]:
    """An administrator of the cluster; when a test fails, the cluster is looked into."""
    with _administrator(cluster, lab, diagnostics, ground, run_environment) as client:
        yield client


@pytest.fixture(scope="session")
def second_kube(
    second_cluster: Cluster, lab: Lab, diagnostics: Diagnostics, ground: Ground, run_environment: dict[str, str]
) -> Iterator[Kube]:
    """An administrator of the second cluster."""
    with _administrator(second_cluster, lab, diagnostics, ground, run_environment) as client:
        yield client


@contextlib.contextmanager
def _administrator(
    cluster: Cluster, lab: Lab, diagnostics: Diagnostics, ground: Ground, run_environment: dict[str, str]
) -> Generator[Kube]:
    given = [image.reference for image in (*lab_images(lab.given).values(), *lab.previous_images.values())]
    tenancy, selector = cluster.tenancy, ""
    if tenancy:
        given += tenancy.images.values()
        selector = tenancy.selector
    client, watching = (Kube(cluster.kubeconfig, tenancy=tenancy) for _ in range(2))
    state = ClusterState(cluster.name, client, selector)
    watch = PodWatch(cluster.name, watching, given, selector)
    with (
        ground.watching(watch.foreign_image),
        lease.hold(watching.coordination, lease.Holder.this()) as note,
        planted_canary(client, os.environ.get(CANARY, "")),
    ):
        if note:
            run_environment[f"lease of {cluster.name}"] = note
        for collector in (state, watch):
            diagnostics.register(collector)
        yield client
        for collector in (state, watch):
            diagnostics.unregister(collector)
    watch.close()
    for each in (client, watching):
        each.close()


@pytest.fixture(scope="session")
def kubectl(pytestconfig: pytest.Config, cluster: Cluster) -> Callable[..., Completed]:
    """``kubectl`` with these arguments, as the cluster's administrator; the machine's, or ours where it has none."""
    found = shutil.which("kubectl")
    with shown_progress(pytestconfig) as progress:
        program = found or str(binaries.ensure(cache_directory(), progress, [binaries.KUBECTL])["kubectl"])

    def run(*arguments: str) -> Completed:
        command = [program, f"--kubeconfig={cluster.kubeconfig}", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return Completed(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def aws(lab: Lab) -> Iterator[AwsAccount]:
    """An administrator of the article's account; one of its secrets is the canary."""
    aws = lab.administrator()
    with _canary_secret(aws):
        yield aws


def _canary_secret(aws: AwsAccount) -> contextlib.AbstractContextManager[str]:
    return aws.secret("podid/canary", os.environ.get(CANARY, ""), {})


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
    """Every scenario on the lab has the calls to its AWS that it caused as evidence."""
    is_on_lab = "lab" in request.fixturenames and request.path.is_relative_to(SUITES)
    if not is_on_lab or request.config.getoption("--backend") == "aws":
        yield
        return
    calls: AwsCalls = request.getfixturevalue("aws_calls")
    calls.mark()
    yield
    attach(calls.evidence())


@pytest.fixture(scope="session")
def meter(cluster: Cluster, kube: Kube) -> PodMeter:
    """What agent and webhook use on the nodes, from here on."""
    meter = PodMeter(cluster, kube)
    meter.lap()
    return meter


@pytest.fixture(autouse=True)
def resource_use(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every scenario on a cluster says what agent and webhook used."""
    if "cluster" not in request.fixturenames or not request.path.is_relative_to(SUITES):
        yield
        return
    meter: PodMeter = request.getfixturevalue("meter")
    yield
    note_use(meter.lap())


@pytest.fixture(scope="session")
def agent_addon(cluster: Cluster, aws: AwsAccount) -> None:
    """``aws eks create-addon``: the agent will run on every node; does not wait."""
    aws.create_agent_addon(cluster.name)


@pytest.fixture(scope="session")
def restart_aws(
    lab: Lab, cluster: Cluster, aws: AwsAccount, issued: Issued, aws_calls: AwsCalls, *, pytestconfig: pytest.Config
) -> Iterator[Callable[[], None]]:
    """Kills the lab's AWS; the next one has forgotten everything but what fixtures of the session had made there."""
    with contextlib.ExitStack() as made_again:

        def restart() -> None:
            # It is looked for in every file of the run, also when AWS does not know it any more.
            issued.add(lab.control().issued())
            with shown_progress(pytestconfig) as progress:
                lab.restart_aws(progress)
            lab.control().set_marker(issued.marker)
            aws_calls.begin_anew()
            made_again.enter_context(_canary_secret(aws))
            aws.create_agent_addon(cluster.name)

        yield restart


@pytest.fixture(scope="session")
def controller_files(pytestconfig: pytest.Config, lab: Lab) -> ControllerFiles:
    """The AWS Load Balancer Controller's chart and policy, from its own module, and Helm."""
    with shown_progress(pytestconfig) as progress:
        return load_balancing.controller_files(lab, progress)


@pytest.fixture(scope="session")
def data_plane(pytestconfig: pytest.Config, lab: Lab, cluster: Cluster, kube: Kube) -> str:
    """Load balancers that carry traffic: their address on the node."""
    with shown_progress(pytestconfig) as progress:
        load_balancing.bring_up(lab, cluster, kube, progress)
    return cluster.nodes[0].address


@pytest.fixture(scope="session")
def load_balancers(aws: AwsAccount) -> LoadBalancers:
    """What AWS has of load balancers, as an administrator sees it."""
    return LoadBalancers(aws)
