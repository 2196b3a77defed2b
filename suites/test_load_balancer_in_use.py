"""The AWS Load Balancer Controller in daily use, on a cluster where its association was there first.

More Ingresses, traffic while pods come and go, readiness gates, and what goes wrong: a permission that is missing,
another cluster's resources, subnets, quotas, throttling, restarts. What an Ingress brought is gone after it, each time.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from botocore.exceptions import ClientError

from harness import limits, wait
from harness.alb.controller import Controller, release_ingresses, strip_finalizers, wait_for_address
from harness.alb.state import CLUSTER_TAG, LoadBalancers
from harness.alb.traffic import Answer, Load, get, send, wait_for_status
from harness.cluster.base import Cluster, Completed
from harness.conformance.marks import requirement
from harness.conformance.recording import Evidence, attach, check
from harness.kube import ApiException, Kube, Pod, load_manifests
from harness.lab import Lab
from harness.lab.load_balancing import ControllerFiles
from harness.scenario import UUID4, AwsAccount, wait_until_admission_injects, without_agent

pytestmark = pytest.mark.usefixtures("ipv4_pods", "agent_addon", "nginx")

FIXTURES = Path(__file__).parent.parent / "fixtures"
FILES = FIXTURES / "load-balancer"
VPC = "vpc-0a1b2c3d4e5f67890"
ROLE = "pod-identity-lab-alb-role"
ACCOUNT = "aws-load-balancer-controller"
SESSION = rf"arn:aws:sts::123456789012:assumed-role/{ROLE}/eks-pod-identi-aws-load-b-{UUID4}"
IMAGE = "amazon/aws-cli:latest"
REQUESTS = 10_000

_numbers = itertools.count(1)


# --- Set-up: association first, then the controller -----------------------------------------------------------------


@pytest.fixture(scope="module")
def policy_arn(aws: AwsAccount, cluster: Cluster, controller_files: ControllerFiles) -> Iterator[str]:
    """Policy, role and association, in the guide's order."""
    trust = (FIXTURES / "s3" / "pod-identity-trust.json").read_text()
    aws.wait_until_agent_is_active(cluster.name)
    with (
        aws.policy("pod-identity-lab-alb-policy", controller_files.policy.read_text()) as policy,
        aws.role(ROLE, trust, policies=[policy]) as role,
        aws.association(cluster.name, "alb-system", ACCOUNT, role),
    ):
        yield policy


@pytest.fixture(scope="module")
def controller(
    *, lab: Lab, cluster: Cluster, kube: Kube, controller_files: ControllerFiles, data_plane: str, policy_arn: str
) -> Iterator[Controller]:
    assert data_plane
    assert policy_arn
    with kube.namespace("alb-system") as namespace:
        kube.create_service_account(ACCOUNT, namespace)
        wait_until_admission_injects(kube, namespace, ACCOUNT)
        controller = Controller(lab, cluster, kube, controller_files, namespace)
        controller.install(VPC)
        yield controller
        controller.uninstall()


@pytest.fixture(scope="module")
def nginx(kube: Kube, controller: Controller, data_plane: str) -> Iterator[str]:
    """``kubectl apply -f nginx-alb.yaml``: the DNS name of its load balancer, which answers."""
    assert controller.pods()
    strip_finalizers(kube, "demo")  # of an interrupted run
    with kube.namespace("demo"):
        kube.apply(load_manifests(FILES / "nginx-alb.yaml"))
        try:
            name = wait_for_address(kube, "nginx")
            wait_for_status(data_plane, name, 200)
            yield name
            # While the controller still can.
            release_ingresses(kube, "demo")
        finally:
            strip_finalizers(kube, "demo")


@pytest.fixture
def another(kube: Kube, load_balancers: LoadBalancers) -> Generator[Callable[[], str]]:
    """Another Ingress for the same Service, made when called; at the end it goes, with all that it brought to AWS."""
    # Events stay when their Ingress goes, so that each needs a name of its own.
    name = f"another-{next(_numbers)}"

    def make() -> str:
        kube.apply(load_manifests(FILES / "ingress.yaml", {"NAME": name}))
        return name

    yield make
    with contextlib.suppress(ApiException):
        kube.networking.delete_namespaced_ingress(name, "demo")
    wait.until(
        lambda: name not in [one.metadata.name for one in kube.networking.list_namespaced_ingress("demo").items],
        what=f"the controller to let Ingress demo/{name} go",
        timeout=limits.CONTROLLER,
    )
    assert load_balancers.of_stack(f"demo/{name}") == []


# --- Traffic --------------------------------------------------------------------------------------------------------


@requirement("LBC-TARGETS")
def test_a_pod_is_replaced_while_requests_run(
    nginx: str, kube: Kube, load_balancers: LoadBalancers, data_plane: str
) -> None:
    """One of two pods is deleted under ten thousand requests: what fails is counted, and ends when it drains."""
    (group,) = load_balancers.target_groups(load_balancers.at(nginx)["LoadBalancerArn"])
    arn = group["TargetGroupArn"]
    victim = kube.newest_pod("demo", "app=nginx")
    address = victim.read()["status"]["podIP"]
    with send(data_plane, nginx, REQUESTS) as load:
        kube.core.delete_namespaced_pod(victim.name, "demo")
        wait.until(
            lambda: f"{address}:80" not in load_balancers.states(arn),
            what=f"{address} to drain",
            timeout=limits.TARGET_HEALTHY,
        )
        # What the data plane is told half a second later, and what was on its way.
        drained_at = time.monotonic() + 3
        kube.wait_until_deployed("Deployment", "nginx", "demo")
    targets = wait.until(
        lambda: load_balancers.states(arn),
        lambda found: len(found) == 2 and set(found.values()) == {"healthy"},
        what="two healthy targets",
        timeout=limits.TARGET_HEALTHY,
    )

    _attach_load(load, drained_at)
    pods = sorted(f"{pod.read()['status']['podIP']}:80" for pod in kube.pods("demo", "app=nginx"))
    check("LBC-TARGETS", what="after the replacement", expected=pods, observed=sorted(targets))
    assert len(load.answers) == REQUESTS
    assert set(load.failures()) <= {502, 504}
    assert load.failures(since=drained_at) == {}


def _attach_load(load: Load, drained_at: float) -> None:
    lost = load.failures()
    content = {"requests": len(load.answers), "failures by status": lost, "after draining": load.failures(drained_at)}
    attach(Evidence("text", f"{sum(lost.values())} of {len(load.answers)} requests failed", content))


@requirement("LBC-HTTP-ERRORS", "LBC-HEALTH-TRUTH", "LBC-DELETE-CLEAN")
def test_group_of_ingresses_shares_a_load_balancer(
    nginx: str, kube: Kube, aws: AwsAccount, load_balancers: LoadBalancers, data_plane: str
) -> None:
    """Two Ingresses, one load balancer: path and host decide; a broken pod is found out; deletion leaves nothing."""
    kube.apply(load_manifests(FILES / "group.yaml"))
    name = wait_for_address(kube, "shop")
    assert name != nginx
    assert wait_for_address(kube, "help") == name
    pod = kube.pod("single", "demo").wait_until_ready()
    balancer = load_balancers.at(name)["LoadBalancerArn"]
    # The address is there before the rules are.
    groups = wait.until(
        lambda: load_balancers.target_groups(balancer),
        lambda found: len(found) == 2,
        what="the target groups of both Ingresses",
        timeout=limits.CONTROLLER,
        transient=(ClientError,),
    )
    arn, both = groups[0]["TargetGroupArn"], [group["TargetGroupArn"] for group in groups]
    wait.until(
        lambda: [list(load_balancers.states(one).values()) for one in both],
        lambda states: states == [["healthy"], ["healthy"]],
        what="the pod to be healthy in both groups",
        timeout=limits.TARGET_HEALTHY,
    )
    # A port on which nobody listens: it takes two checks, five seconds apart, until that is known.
    newcomer = {"Id": pod.read()["status"]["podIP"], "Port": 81}
    aws.client("elbv2").register_targets(TargetGroupArn=groups[1]["TargetGroupArn"], Targets=[newcomer])
    first = load_balancers.states(groups[1]["TargetGroupArn"])[f"{newcomer['Id']}:81"]
    aws.client("elbv2").deregister_targets(TargetGroupArn=groups[1]["TargetGroupArn"], Targets=[newcomer])
    shop, nobodys = get(data_plane, name, "/shop"), get(data_plane, name, "/other")
    helping = wait_for_status(data_plane, "help.example.com", 200)
    pod.exec("sh", "-c", "mv /var/www/html/index.nginx-debian.html /tmp/")
    broken_at = time.monotonic()
    broken = wait.until(
        lambda: load_balancers.health(arn),
        lambda health: [one["State"] for one in health.values()] == ["unhealthy"],
        what="the broken pod to be unhealthy",
        timeout=limits.TARGET_HEALTHY,
    )
    seconds = time.monotonic() - broken_at
    kube.core.delete_namespaced_pod("single", "demo", grace_period_seconds=0)
    empty = wait_for_status(data_plane, name, 503, "/shop")
    for ingress in ("shop", "help"):
        kube.networking.delete_namespaced_ingress(ingress, "demo")
    wait.until(
        lambda: [one.metadata.name for one in kube.networking.list_namespaced_ingress("demo").items],
        lambda left: left == ["nginx"],
        what="the Ingresses of the group to go",
        timeout=limits.CONTROLLER,
    )

    check("LBC-HTTP-ERRORS", what="a path of nobody's", expected=(404, "awselb/2.0"), observed=_own(nobodys))
    check("LBC-HTTP-ERRORS", what="no targets", expected=(503, "awselb/2.0"), observed=_own(empty))
    assert (shop.status, shop.server.startswith("nginx")) == (404, True)
    assert helping.server.startswith("nginx")
    check("LBC-HEALTH-TRUTH", what="a new target", expected="initial", observed=first)
    (told,) = broken.values()
    check(
        "LBC-HEALTH-TRUTH",
        what="broken",
        expected=("Target.ResponseCodeMismatch", "Health checks failed with these codes: [403]"),
        observed=(told["Reason"], told["Description"]),
    )
    check(
        "LBC-HEALTH-TRUTH",
        what="seconds until two checks failed",
        expected="at most 16",
        observed=round(seconds, 1),
        holds=seconds <= 16,
    )
    check("LBC-DELETE-CLEAN", what="of the group", expected=[], observed=load_balancers.of_stack("shared"))


def _own(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.server


@requirement("LBC-HEALTH-TRUTH")
def test_readiness_gate_keeps_a_pod_from_being_ready_until_its_target_is_healthy(kube: Kube) -> None:
    """A pod whose containers are ready is not Ready while the load balancer's health check fails."""
    with kube.namespace("gated") as namespace:
        labels = {"elbv2.k8s.aws/pod-readiness-gate-inject": "enabled"}
        kube.merge("v1", "Namespace", namespace, {"metadata": {"labels": labels}})
        kube.apply(load_manifests(FILES / "readiness-gate.yaml"))
        try:
            wait_for_address(kube, "nginx", namespace)
            (binding,) = wait.until(
                lambda: kube.read_all("elbv2.k8s.aws/v1beta1", "TargetGroupBinding", namespace),
                what="the Ingress's TargetGroupBinding",
                timeout=limits.CONTROLLER,
            )
            gate = f"target-health.elbv2.k8s.aws/{binding['metadata']['name']}"
            # The first pod was there before the binding.
            for pod in kube.pods(namespace, "app=nginx"):
                pod.delete()
            (pod,) = wait.until(lambda: kube.pods(namespace, "app=nginx"), what="a new pod", timeout=limits.POD_READY)
            before = _wait_for_condition(pod, gate, "False")
            kube.networking.patch_namespaced_ingress(
                "nginx", namespace, {"metadata": {"annotations": {"alb.ingress.kubernetes.io/healthcheck-path": "/"}}}
            )
            after = _wait_for_condition(pod, gate, "True")
            pod.wait_until_ready()
        finally:
            release_ingresses(kube, namespace)

    gates = [entry["conditionType"] for entry in before["spec"].get("readinessGates", ())]
    check("LBC-HEALTH-TRUTH", what="gates of the pod", expected=[gate], observed=gates)
    states = {name: _condition(before, name)["status"] for name in ("ContainersReady", gate, "Ready")}
    check(
        "LBC-HEALTH-TRUTH",
        what="while the health check fails",
        expected={"ContainersReady": "True", gate: "False", "Ready": "False"},
        observed=states,
    )
    check("LBC-HEALTH-TRUTH", what="then", expected="True", observed=_condition(after, gate)["status"])


def _condition(pod: dict[str, Any], name: str) -> dict[str, Any]:
    return next((one for one in pod["status"].get("conditions", ()) if one["type"] == name), {"status": "not there"})


def _wait_for_condition(pod: Pod, name: str, status: str) -> dict[str, Any]:
    """Wait for a condition of a pod whose containers are ready, and return the pod."""
    return wait.until(
        pod.read,
        lambda found: (
            _condition(found, "ContainersReady")["status"] == "True" and _condition(found, name)["status"] == status
        ),
        what=f"condition {name} of pod {pod.name} to be {status}",
        timeout=limits.TARGET_HEALTHY,
    )


# --- Permissions ----------------------------------------------------------------------------------------------------


@requirement("LBC-DENY-EVENT")
@pytest.mark.parametrize(
    ("action", "reason"),
    [
        ("elasticloadbalancing:CreateTargetGroup", "FailedDeployModel"),
        ("elasticloadbalancing:AddTags", "FailedDeployModel"),
        ("ec2:CreateSecurityGroup", "FailedDeployModel"),
        ("ec2:DescribeSubnets", "FailedBuildModel"),
    ],
)
def test_one_missing_action_is_named_and_granting_it_is_all_that_is_needed(
    *,
    controller: Controller,
    kube: Kube,
    aws: AwsAccount,
    controller_files: ControllerFiles,
    policy_arn: str,
    another: Callable[[], str],
    action: str,
    reason: str,
) -> None:
    """The event of the Ingress names the action and the session; with the whole policy it is provisioned."""
    document = json.loads(controller_files.policy.read_text())
    for statement in document["Statement"]:
        statement["Action"] = [one for one in statement["Action"] if one != action]
    document["Statement"] = [statement for statement in document["Statement"] if statement["Action"]]
    with aws.granting(policy_arn, json.dumps(document)):
        ingress = another()
        text = controller.wait_for_event(ingress, reason, f"is not authorized to perform: {action}")
    controller.reconcile(ingress)
    wait_for_address(kube, ingress)

    pattern = rf"User: {SESSION} is not authorized to perform: {action}"
    check("LBC-DENY-EVENT", what=action, expected=pattern, observed=text, holds=re.search(pattern, text) is not None)


@requirement("LBC-POLICY-NEG")
def test_another_cluster_s_resources_need_a_statement_of_their_own(
    controller: Controller, kube: Kube, aws: AwsAccount, cluster: Cluster
) -> None:
    """The official policy asks whether the cluster's tag is there, not whose it is; a session tag can ask that."""
    ec2 = aws.client("ec2")
    groups = {
        owner: ec2.create_security_group(
            GroupName=f"of-{owner}",
            Description="of a cluster",
            VpcId=VPC,
            TagSpecifications=[{"ResourceType": "security-group", "Tags": [{"Key": CLUSTER_TAG, "Value": owner}]}],
        )["GroupId"]
        for owner in ("another", "yet-another", cluster.name)
    }
    untagged = ec2.create_security_group(GroupName="of-a-node", Description="of no cluster", VpcId=VPC)["GroupId"]
    pod = kube.run("as-role", controller.namespace, image=IMAGE, service_account=ACCOUNT, command=("sleep", "3600"))
    pod.wait_until_ready()
    try:
        by_official_policy = _delete_group(pod, groups["another"])
        document = (FILES / "own-cluster-only.json").read_text()
        role_arn = f"arn:aws:iam::123456789012:role/{ROLE}"
        with aws.policy("own-cluster-only", document) as narrower, aws.attached(role_arn, narrower):
            of_another = _delete_group(pod, groups["yet-another"])
            of_its_own = _delete_group(pod, groups[cluster.name])
            rule = ("--protocol=tcp", "--port=8080", "--cidr=10.0.0.0/8")
            of_nobody = pod.exec("aws", "ec2", "authorize-security-group-ingress", f"--group-id={untagged}", *rule)
    finally:
        pod.delete()
        left = {group["GroupId"] for group in ec2.describe_security_groups()["SecurityGroups"]}
        for group in left.intersection({*groups.values(), untagged}):
            ec2.delete_security_group(GroupId=group)

    denied = rf"\(UnauthorizedOperation\).*{ROLE}/.*ec2:DeleteSecurityGroup.*with an explicit deny"
    check("LBC-POLICY-NEG", what="official policy", expected=0, observed=by_official_policy.returncode)
    check(
        "LBC-POLICY-NEG",
        what="with own-cluster-only.json, another's",
        expected=denied,
        observed=of_another.stderr,
        holds=re.search(denied, of_another.stderr) is not None,
    )
    check(
        "LBC-POLICY-NEG",
        what="with own-cluster-only.json, its own",
        expected=(0, ""),
        observed=(of_its_own.returncode, of_its_own.stderr),
    )
    # Nodes' groups carry no cluster's tag, and the controller opens them to its load balancers.
    check(
        "LBC-POLICY-NEG",
        what="with own-cluster-only.json, a node's",
        expected=(0, ""),
        observed=(of_nobody.returncode, of_nobody.stderr),
    )


def _delete_group(pod: Pod, group: str) -> Completed:
    return pod.exec("aws", "ec2", "delete-security-group", "--group-id", group)


# --- Faults ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def untagged(aws: AwsAccount, count: int) -> Generator[None]:
    """Take the tag for public load balancers from some of the VPC's subnets; put it back at the end."""
    ec2 = aws.client("ec2")
    tag = {"Key": "kubernetes.io/role/elb", "Value": "1"}
    found = ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [VPC]}])["Subnets"]
    subnets = [subnet["SubnetId"] for subnet in found][:count]
    ec2.delete_tags(Resources=subnets, Tags=[tag])
    try:
        yield
    finally:
        ec2.create_tags(Resources=subnets, Tags=[tag])


@requirement("LBC-VPC-PREREQ")
def test_one_subnet_is_not_enough(
    controller: Controller, kube: Kube, aws: AwsAccount, another: Callable[[], str]
) -> None:
    """With one tagged subnet the event says how many there must be; with two it goes on."""
    with untagged(aws, 1):
        ingress = another()
        text = controller.wait_for_event(ingress, "FailedBuildModel", "subnets count less than minimal required count")
    controller.reconcile(ingress)
    wait_for_address(kube, ingress)

    check("LBC-VPC-PREREQ", what="one subnet", expected="… 1 < 2", observed=text, holds="1 < 2" in text)


@requirement("LBC-VPC-PREREQ")
def test_untagged_subnets_are_found_by_their_route(
    kube: Kube, aws: AwsAccount, load_balancers: LoadBalancers, another: Callable[[], str]
) -> None:
    """Where no subnet is tagged at all, those with a route to an internet gateway are taken."""
    with untagged(aws, 2):
        balancer = load_balancers.at(wait_for_address(kube, another()))

    zones = sorted(zone["ZoneName"] for zone in balancer["AvailabilityZones"])
    check("LBC-VPC-PREREQ", what="by route", expected=["eu-west-1a", "eu-west-1b"], observed=zones)


@requirement("LBC-INGRESS-STATUS")
@pytest.mark.parametrize(
    ("operation", "code", "message"),
    [
        ("CreateLoadBalancer", "TooManyLoadBalancers", "The maximum number of load balancers has been reached."),
        ("CreateTargetGroup", "TooManyTargetGroups", "The maximum number of target groups has been reached."),
    ],
)
def test_a_quota_that_is_reached_is_named(
    *,
    lab: Lab,
    controller: Controller,
    kube: Kube,
    another: Callable[[], str],
    operation: str,
    code: str,
    message: str,
) -> None:
    """The event says which quota; when there is room again the Ingress is provisioned."""
    fault = {"service": "elbv2", "operation": operation, "code": code, "status": 400}
    lab.control().set_faults(fault | {"message": message})
    try:
        ingress = another()
        text = controller.wait_for_event(ingress, "FailedDeployModel", f"{code}: ")
    finally:
        lab.control().set_faults()
    controller.reconcile(ingress)
    wait_for_address(kube, ingress)

    check("LBC-INGRESS-STATUS", what=f"event for {code}", expected=message, observed=text, holds=message in text)


@requirement("LBC-CALLS-ORDER")
def test_throttled_controller_goes_on_by_itself(
    lab: Lab, controller: Controller, kube: Kube, another: Callable[[], str]
) -> None:
    """Three throttled calls are tried again within the SDK; nobody is told, and nobody has to do anything."""
    since = controller.mark()
    fault = {"service": "elbv2", "code": "Throttling", "message": "Rate exceeded", "status": 400}
    lab.control().set_faults(fault | {"operation": "CreateTargetGroup", "times": 3})
    try:
        wait_for_address(kube, another())
    finally:
        lab.control().set_faults()

    tries = [call["status"] for call in controller.calls(since) if call["operation"] == "CreateTargetGroup"]
    check("LBC-CALLS-ORDER", what="tries", expected=[400, 400, 400, 200], observed=tries)


@requirement("LBC-CALLS-ORDER")
def test_restarted_in_the_middle_it_finishes_what_it_began(
    controller: Controller, load_balancers: LoadBalancers, kube: Kube, another: Callable[[], str]
) -> None:
    """The controller is killed after its first write for an Ingress: the next one makes nothing twice."""
    since = controller.mark()
    ingress = another()
    wait.until(
        lambda: [call for call in controller.calls(since) if call["operation"] == "CreateTargetGroup"],
        what="the controller to create a target group",
        timeout=limits.CONTROLLER,
    )
    controller.restart()
    controller.reconcile(ingress)
    balancer = load_balancers.at(wait_for_address(kube, ingress))

    there = load_balancers.of_stack(f"demo/{ingress}")
    kinds = sorted(re.split("[/-]", identity.rpartition(":")[2])[0] for identity in there)
    check("LBC-CALLS-ORDER", what="made once", expected=["loadbalancer", "sg", "targetgroup"], observed=kinds)
    assert len(load_balancers.target_groups(balancer["LoadBalancerArn"])) == 1


@requirement("LBC-CRED-NOFALLBACK")
def test_without_the_agent_the_controller_fails_and_is_not_the_node(
    controller: Controller, cluster: Cluster, aws: AwsAccount, kube: Kube
) -> None:
    """Pods with an association and no agent get nothing done, and make no call as the node; with the agent they do.

    The SDK asks for credentials for more than four minutes before the controller says anything; that is not waited for.
    """
    # Its link stays on the node, so that whoever asks there is refused and need not wait for nobody.
    with without_agent(cluster, aws, kube, keeps_link=True):
        controller.restart()
        since = controller.mark()
        controller.reconcile("nginx")
        callers = wait.never(
            lambda: sorted({str(call["principal"]) for call in controller.calls(since)}),
            what="a call to AWS by a controller without credentials",
            during=limits.SILENCE,
        )
    done = wait.until(
        lambda: controller.calls(since), what="the controller's calls, with the agent", timeout=limits.AGENT_READY
    )

    check("LBC-CRED-NOFALLBACK", what="callers without the agent", expected=[], observed=callers)
    principals = sorted({str(call["principal"]) for call in done})
    check(
        "LBC-CRED-NOFALLBACK",
        what="callers with it",
        expected=f"sessions of {ROLE}",
        observed=principals,
        holds=all(re.fullmatch(SESSION, one) for one in principals),
    )


class ServiceProbe:
    """Creates and deletes a Service again and again, from its start until its end."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.created = 0
        self.refused: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        body = {"metadata": {"name": "probe"}, "spec": {"ports": [{"port": 80}]}}
        while not self._ended.wait(0.2):
            try:
                self._kube.core.create_namespaced_service("default", body)
                self.created += 1
                self._kube.core.delete_namespaced_service("probe", "default")
            except ApiException as error:
                self.refused.append(str(error))


@requirement("LBC-WEBHOOK-ORDER")
def test_services_can_be_created_while_the_controller_comes_and_goes(
    controller: Controller, kube: Kube, another: Callable[[], str]
) -> None:
    """Removed, installed for a VPC that is not there, and installed again: no Service is refused at any moment."""
    with ServiceProbe(kube) as probe:
        controller.uninstall()
        controller.install("vpc-00000000000000000")
        ingress = another()
        text = controller.wait_for_event(ingress, "FailedBuildModel", "subnet")
        controller.uninstall()
        controller.install(VPC)
        controller.reconcile(ingress)
        wait_for_address(kube, ingress)

    attach(Evidence("text", f"{probe.created} Services created", probe.refused))
    check("LBC-WEBHOOK-ORDER", what="refused", expected=[], observed=probe.refused)
    assert probe.created >= 10
    assert "unable to resolve at least one subnet" in text
