"""The AWS Load Balancer Controller: the article's first production use case, with the real controller and its policy.

The controller is installed before its association, as it happens to people: it runs, is Ready, and asks AWS as the
node. Then come the association, the restart that it needs, the policy, and the load balancer that answers. The data
plane is the lab's nginx, not AWS's: what a 200 shows is association, role, policy, the controller's calls, and the
state that they leave.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import html
import json
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from harness import limits, wait
from harness.alb.controller import Controller, release_ingresses, strip_finalizers, wait_for_address
from harness.alb.state import CLUSTER_TAG, STACK_TAG, LoadBalancers
from harness.alb.traffic import get, wait_for_status
from harness.cluster.base import Cluster
from harness.conformance.marks import requirement
from harness.conformance.record import EvidenceRecord
from harness.conformance.recording import Evidence, attach, check
from harness.conformance.reports.html import evidence
from harness.kube import Kube, Manifest, Pod, load_manifests
from harness.lab import Lab
from harness.lab.load_balancing import ControllerFiles
from harness.scenario import UUID4, AwsAccount, wait_until_admission_injects

pytestmark = pytest.mark.usefixtures("ipv4_pods", "agent_addon")

FIXTURES = Path(__file__).parent.parent / "fixtures"
FILES = FIXTURES / "load-balancer"
VPC = "vpc-0a1b2c3d4e5f67890"
ROLE = "pod-identity-lab-alb-role"
SESSION = rf"arn:aws:sts::123456789012:assumed-role/{ROLE}/eks-pod-identi-aws-load-b-{UUID4}"
IMAGE = "amazon/aws-cli:latest"
SOURCES = ("agent", "docs", "fixtures", "harness", "suites", "tests", "tools", "webhook")


# --- The walkthrough's set-up ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def policy_arn(aws: AwsAccount, controller_files: ControllerFiles) -> Iterator[str]:
    """``curl …/iam_policy.json`` and ``aws iam create-policy``: the project's own document, unmodified."""
    with aws.policy("pod-identity-lab-alb-policy", controller_files.policy.read_text()) as arn:
        yield arn


@pytest.fixture(scope="module")
def role_arn(aws: AwsAccount) -> Iterator[str]:
    """``aws iam create-role``, with the trust policy of the S3 walkthrough; nothing is attached yet."""
    with aws.role(ROLE, (FIXTURES / "s3" / "pod-identity-trust.json").read_text()) as arn:
        yield arn


@pytest.fixture(scope="module")
def controller(
    lab: Lab, cluster: Cluster, kube: Kube, controller_files: ControllerFiles, data_plane: str
) -> Iterator[Controller]:
    """``kubectl create namespace``, ``create serviceaccount``, ``helm install``; pods reach IMDS as on many nodes."""
    assert data_plane
    lab.set_metadata_options(cluster, hop_limit=2)
    with kube.namespace("alb-system") as namespace:
        kube.create_service_account("aws-load-balancer-controller", namespace)
        controller = Controller(lab, cluster, kube, controller_files, namespace)
        controller.install(VPC)
        yield controller
        controller.uninstall()
    lab.set_metadata_options(cluster)


@pytest.fixture(scope="module")
def demo(kube: Kube, controller: Controller) -> Iterator[str]:
    """``kubectl apply -f nginx-alb.yaml``: Deployment, Service and Ingress."""
    assert controller.pods()
    strip_finalizers(kube, "demo")  # of an interrupted run
    with kube.namespace("demo") as namespace:
        kube.apply(load_manifests(FILES / "nginx-alb.yaml"))
        yield namespace
        strip_finalizers(kube, namespace)


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure of the controller: its event, and where its calls begin in the journal."""

    text: str
    since: int
    pods: list[str]


@pytest.fixture(scope="module")
def as_node(controller: Controller, demo: str) -> Failure:
    """No association: the controller falls back to the node's role."""
    assert demo
    text = controller.wait_for_event("nginx", "FailedBuildModel", "AccessDenied")
    return Failure(text, controller.installed_at, [pod.name for pod in controller.pods()])


@pytest.fixture(scope="module")
def association(as_node: Failure, kube: Kube, cluster: Cluster, aws: AwsAccount, role_arn: str) -> Iterator[str]:
    """``aws eks create-pod-identity-association``, known to admission."""
    assert as_node
    name = "aws-load-balancer-controller"
    with aws.association(cluster.name, "alb-system", name, role_arn):
        wait_until_admission_injects(kube, "alb-system", name)
        yield name


@pytest.fixture(scope="module")
def too_late(as_node: Failure, association: str, controller: Controller) -> Failure:
    """The association alone: the same pods go on as the node."""
    assert as_node
    assert association
    since = controller.mark()
    controller.reconcile("nginx")
    calls = wait.until(lambda: controller.calls(since), what="the controller to try again", timeout=limits.CONTROLLER)
    return Failure(str(calls[-1]["principal"]), since, [pod.name for pod in controller.pods()])


@pytest.fixture(scope="module")
def without_policy(too_late: Failure, controller: Controller, cluster: Cluster, aws: AwsAccount) -> Failure:
    """New pods: they act as the role, which may do nothing yet."""
    assert too_late
    aws.wait_until_agent_is_active(cluster.name)
    controller.restart()
    since = controller.mark()
    controller.reconcile("nginx")
    text = controller.wait_for_event("nginx", "FailedBuildModel", f"assumed-role/{ROLE}/")
    # The event may be of a try of its own, before it was its turn.
    wait.until(lambda: controller.calls(since), what="the controller to try again", timeout=limits.CONTROLLER)
    return Failure(text, since, [pod.name for pod in controller.pods()])


@dataclass(frozen=True, slots=True)
class Provisioned:
    """The load balancer that the Ingress led to."""

    since: int
    """Where the controller's calls begin in the journal."""
    description: dict[str, Any]
    """Of DescribeLoadBalancers."""
    seconds: float
    """From the Ingress's turn to the first 200."""

    @property
    def name(self) -> str:
        return str(self.description["DNSName"])

    @property
    def arn(self) -> str:
        return str(self.description["LoadBalancerArn"])


@pytest.fixture(scope="module")
def allowed(without_policy: Failure, aws: AwsAccount, role_arn: str, policy_arn: str) -> Iterator[str]:
    """``aws iam attach-role-policy``."""
    assert without_policy
    with aws.attached(role_arn, policy_arn):
        yield policy_arn


@pytest.fixture(scope="module")
def provisioned(
    allowed: str, controller: Controller, kube: Kube, load_balancers: LoadBalancers, data_plane: str
) -> Iterator[Provisioned]:
    """The Ingress's turn again: the load balancer comes up and answers."""
    assert allowed
    kube.wait_until_deployed("Deployment", "nginx", "demo")
    since, begun = controller.mark(), time.monotonic()
    controller.reconcile("nginx")
    name = wait_for_address(kube, "nginx")
    wait_for_status(data_plane, name, 200)
    seconds = time.monotonic() - begun
    yield Provisioned(since, load_balancers.at(name), seconds)
    # While the role still may.
    release_ingresses(kube, "demo")


@pytest.fixture(scope="module")
def curl(kube: Kube, demo: str) -> Iterator[Pod]:
    """A pod with curl, of no association."""
    pod = kube.run("curl", demo, image=IMAGE, service_account="default", command=("sleep", "3600"))
    yield pod.wait_until_ready()
    pod.delete()


# --- Before the association, and after it ---------------------------------------------------------------------------


@requirement("LBC-READY-NOPROOF", "LBC-WEBHOOK-CERT")
def test_ready_controller_without_association_acts_as_the_node(
    as_node: Failure, controller: Controller, kube: Kube
) -> None:
    """Pods are Ready, the Ingress was admitted, and every call is the node's: readiness proves nothing."""
    callers = {str(call["principal"]) for call in controller.calls(as_node.since)}

    service = "aws-load-balancer-webhook-service.alb-system"
    check(
        "LBC-WEBHOOK-CERT",
        what="names in the certificate",
        expected=sorted([service, f"{service}.svc", f"{service}.svc.cluster.local"]),
        observed=_names_of(kube.read("v1", "Secret", "aws-load-balancer-tls", controller.namespace)),
    )
    restarts = [pod.read()["status"]["containerStatuses"][0]["restartCount"] for pod in controller.pods()]
    check("LBC-WEBHOOK-CERT", what="restarts; the Ingress was admitted", expected=[0, 0], observed=restarts)
    check(
        "LBC-READY-NOPROOF",
        what="callers while all pods are Ready",
        expected="the node's role alone",
        observed=sorted(callers),
        holds=len(callers) == 1 and all("assumed-role/pod-identity-lab-node-role/i-" in caller for caller in callers),
    )
    assert re.search(
        r"Failed build model due to .*operation error Elastic Load Balancing v2: DescribeLoadBalancers, https response "
        r"error StatusCode: 403, RequestID: [0-9a-f-]+, api error AccessDenied: User: arn:aws:sts::123456789012:"
        r"assumed-role/pod-identity-lab-node-role/i-[0-9a-f]{17} is not authorized to perform: "
        r"elasticloadbalancing:DescribeLoadBalancers because no identity-based policy allows the "
        r"elasticloadbalancing:DescribeLoadBalancers action",
        as_node.text,
    ), as_node.text


def _names_of(secret: Manifest) -> list[str]:
    certificate = x509.load_pem_x509_certificate(base64.b64decode(secret["data"]["tls.crt"]))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return sorted(names.get_values_for_type(x509.DNSName))


@requirement("LBC-POD-UNTOUCHED", "LBC-RETROFIT")
def test_association_changes_nothing_until_the_pods_are_new(
    as_node: Failure, too_late: Failure, without_policy: Failure, controller: Controller, kube: Kube
) -> None:
    """The running pods go on as the node; new ones act as the role, from a ServiceAccount that says nothing."""
    account = kube.read("v1", "ServiceAccount", "aws-load-balancer-controller", controller.namespace)
    variables = sorted(name for name in controller.pods()[0].environment() if name.startswith("AWS_"))

    check("LBC-RETROFIT", what="pods", expected=sorted(as_node.pods), observed=sorted(too_late.pods))
    check(
        "LBC-RETROFIT",
        what="caller after the association",
        expected="the node's role",
        observed=too_late.text,
        holds="assumed-role/pod-identity-lab-node-role/" in too_late.text,
    )
    callers = {str(call["principal"]) for call in controller.calls(without_policy.since)}
    check(
        "LBC-RETROFIT",
        what="callers after the restart",
        expected=SESSION,
        observed=sorted(callers),
        holds=bool(callers) and all(re.fullmatch(SESSION, caller) for caller in callers),
    )
    check("LBC-POD-UNTOUCHED", what="annotations", expected=None, observed=account["metadata"].get("annotations"))
    check(
        "LBC-POD-UNTOUCHED",
        what="AWS variables of the pod",
        expected=[
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            "AWS_DEFAULT_REGION",
            "AWS_REGION",
            "AWS_STS_REGIONAL_ENDPOINTS",
        ],
        observed=variables,
    )


@requirement("LBC-DENY-EVENT")
def test_role_without_policy_is_named_in_the_event(without_policy: Failure) -> None:
    """The Ingress tells the first call that was denied, and to whom."""
    pattern = rf"User: {SESSION} is not authorized to perform: elasticloadbalancing:DescribeLoadBalancers because"
    check(
        "LBC-DENY-EVENT",
        expected=pattern,
        observed=without_policy.text,
        holds=re.search(pattern, without_policy.text) is not None,
    )


# --- The load balancer ----------------------------------------------------------------------------------------------


@requirement("LBC-HTTP-200", "LBC-REPORT-SCOPE")
def test_load_balancer_answers_from_both_pods(provisioned: Provisioned, kube: Kube, curl: Pod, data_plane: str) -> None:
    """``curl -I`` on the load balancer's name, in a pod and on the host: 200, from both nginx pods."""
    inside = curl.exec("curl", "--silent", "--show-error", "--head", f"http://{provisioned.name}/")
    outside = [get(data_plane, provisioned.name, "/?from=host") for _ in range(20)]
    logs = {pod.name: _log(kube, pod) for pod in kube.pods("demo", "app=nginx")}

    attach(Evidence("command", f"curl -I http://{provisioned.name}/", inside.stdout + inside.stderr))
    check("LBC-HTTP-200", what="in a pod", expected="HTTP/1.1 200 OK", observed=inside.stdout.partition("\r\n")[0])
    check("LBC-HTTP-200", what="on the host", expected={200}, observed={answer.status for answer in outside})
    check(
        "LBC-HTTP-200",
        what="pods that served",
        expected=sorted(logs),
        observed=sorted(name for name, log in logs.items() if "from=host" in log),
    )
    scope = f"The data plane is the lab's proxy (nginx on node {data_plane}); AWS's load balancers were not involved."
    attach(Evidence("text", "what this does not show", scope))
    page = html.unescape(evidence(EvidenceRecord("text", "what this does not show", scope)))
    check("LBC-REPORT-SCOPE", what="as the page has it", expected=scope, observed=page, holds=scope in page)
    assert provisioned.seconds <= 20, f"{provisioned.seconds:.1f} s from Ingress to first 200"


def _log(kube: Kube, pod: Pod) -> str:
    return str(kube.core.read_namespaced_pod_log(pod.name, pod.namespace))


@requirement("LBC-NAME-ALB", "LBC-DNS-FORM", "LBC-INGRESS-STATUS")
def test_load_balancer_has_the_article_s_name(
    provisioned: Provisioned, controller: Controller, aws: AwsAccount, kube: Kube
) -> None:
    """The name is the article's, byte for byte; the DNS name has its form, and stays, and is the Ingress's ADDRESS."""
    (again,) = aws.client("elbv2").describe_load_balancers(LoadBalancerArns=[provisioned.arn])["LoadBalancers"]
    status = kube.read("networking.k8s.io/v1", "Ingress", "nginx", "demo")["status"]["loadBalancer"]["ingress"]
    event = controller.wait_for_event("nginx", "SuccessfullyReconciled")

    check("LBC-NAME-ALB", expected="k8s-demo-nginx-380f880b9d", observed=provisioned.description["LoadBalancerName"])
    form = r"k8s-demo-nginx-380f880b9d-\d{8,10}\.eu-west-1\.elb\.amazonaws\.com"
    check(
        "LBC-DNS-FORM",
        expected=form,
        observed=provisioned.name,
        holds=re.fullmatch(form, provisioned.name) is not None,
    )
    check("LBC-DNS-FORM", what="later", expected=provisioned.name, observed=again["DNSName"])
    check(
        "LBC-INGRESS-STATUS",
        expected=[(provisioned.name, [80])],
        observed=[(one["hostname"], [port["port"] for port in one["ports"]]) for one in status],
    )
    check("LBC-INGRESS-STATUS", what="event", expected="Successfully reconciled", observed=event)


@requirement("LBC-NAME-SG", "LBC-NAME-TG", "LBC-TAGS")
def test_everything_is_named_and_tagged_as_the_controller_does(
    provisioned: Provisioned, load_balancers: LoadBalancers, cluster: Cluster, aws: AwsAccount, kube: Kube
) -> None:
    """Names follow from cluster, namespace and Ingress; every resource says whose it is."""
    elbv2 = aws.client("elbv2")
    groups = load_balancers.security_groups(CLUSTER_TAG, "pod-identity-lab")
    (target_group,) = load_balancers.target_groups(provisioned.arn)
    bindings = kube.read_all("elbv2.k8s.aws/v1beta1", "TargetGroupBinding", "demo")

    check(
        "LBC-NAME-SG",
        expected=["k8s-demo-nginx-9070e825a3", "k8s-traffic-podidentitylab-f38e74f7f9"],
        observed=sorted(group["GroupName"] for group in groups),
    )
    name = target_group["TargetGroupName"]
    check("LBC-NAME-TG", expected=[name], observed=[binding["metadata"]["name"] for binding in bindings])
    check(
        "LBC-NAME-TG",
        what="form",
        expected="k8s-demo-nginx-<10 hex digits>",
        observed=name,
        holds=re.fullmatch(r"k8s-demo-nginx-[0-9a-f]{10}", name) is not None,
    )
    (listener,) = elbv2.describe_listeners(LoadBalancerArn=provisioned.arn)["Listeners"]
    rules = elbv2.describe_rules(ListenerArn=listener["ListenerArn"])["Rules"]
    arns = {
        "LoadBalancer": provisioned.arn,
        "demo/nginx-nginx:80": target_group["TargetGroupArn"],
        "80": listener["ListenerArn"],
        "80:1": next(rule["RuleArn"] for rule in rules if not rule["IsDefault"]),
    }
    tags = load_balancers.tags(*arns.values())
    graph = load_balancers.graph(provisioned.arn, load_balancers.interface(cluster.nodes[0]))
    assert {"from": arns["80:1"], "to": arns["demo/nginx-nginx:80"]} in graph["edges"]
    attach(Evidence("graph", f"{provisioned.description['LoadBalancerName']} and what hangs on it", graph))
    for resource, arn in arns.items():
        check(
            "LBC-TAGS",
            what=resource,
            expected={CLUSTER_TAG: "pod-identity-lab", STACK_TAG: "demo/nginx", "ingress.k8s.aws/resource": resource},
            observed=tags[arn],
        )


@requirement("LBC-SG-CHAIN", "LBC-TARGETS", "LBC-HEALTH-TRUTH")
def test_targets_are_the_pods_and_security_groups_let_it_reach_them(
    provisioned: Provisioned, load_balancers: LoadBalancers, cluster: Cluster, aws: AwsAccount, kube: Kube
) -> None:
    """The rule on the nodes' interface names the backend group; targets are the ready pods, healthy by real checks."""
    groups = [load_balancers.security_group(group) for group in provisioned.description["SecurityGroups"]]
    front = next(group for group in groups if group["GroupName"] == "k8s-demo-nginx-9070e825a3")
    backend = next(group for group in groups if group["GroupName"].startswith("k8s-traffic-"))
    own = load_balancers.security_group(load_balancers.interface(cluster.nodes[0])["Groups"][0]["GroupId"])
    pods = sorted(pod.read()["status"]["podIP"] for pod in kube.pods("demo", "app=nginx"))
    (target_group,) = load_balancers.target_groups(provisioned.arn)
    states = wait.until(
        lambda: load_balancers.states(target_group["TargetGroupArn"]),
        lambda found: set(found.values()) == {"healthy"},
        what="both targets to be healthy",
        timeout=limits.TARGET_HEALTHY,
    )
    told = aws.client("elbv2").describe_target_health(TargetGroupArn=target_group["TargetGroupArn"])
    zones = [one["Target"].get("AvailabilityZone") for one in told["TargetHealthDescriptions"]]

    (rule,) = front["IpPermissions"]
    check(
        "LBC-SG-CHAIN",
        what="to the load balancer",
        expected=("tcp", 80, 80, ["0.0.0.0/0"]),
        observed=(rule["IpProtocol"], rule["FromPort"], rule["ToPort"], [one["CidrIp"] for one in rule["IpRanges"]]),
    )
    chain = [
        (rule["IpProtocol"], rule["FromPort"], pair["GroupId"], pair.get("Description"))
        for rule in own["IpPermissions"]
        for pair in rule["UserIdGroupPairs"]
    ]
    check(
        "LBC-SG-CHAIN",
        what="to the pods",
        expected=[("tcp", 80, backend["GroupId"], "elbv2.k8s.aws/targetGroupBinding=shared")],
        observed=chain,
    )
    check("LBC-TARGETS", expected=[f"{pod}:80" for pod in pods], observed=sorted(states))
    check("LBC-TARGETS", what="zones", expected="none is 'all'", observed=zones, holds="all" not in zones)
    check("LBC-HEALTH-TRUTH", what="at the end", expected={"healthy"}, observed=set(states.values()))


@requirement("LBC-VPC-PREREQ", "LBC-VPC-ID", "LBC-NODE-PROVIDERID", "LBC-ENI-SYNC")
def test_nodes_and_pods_are_in_the_article_s_vpc(
    cluster: Cluster, kube: Kube, aws: AwsAccount, load_balancers: LoadBalancers, demo: str
) -> None:
    """The VPC has the article's id and two public subnets; a node is an instance, a pod an address of its interface."""
    ec2 = aws.client("ec2")
    subnets = ec2.describe_subnets(
        Filters=[{"Name": "vpc-id", "Values": [VPC]}, {"Name": "tag:kubernetes.io/role/elb", "Values": ["1"]}]
    )["Subnets"]
    nodes = {node.metadata.name: node.spec.provider_id for node in kube.core.list_node().items}
    pod = kube.run("short", demo, image=IMAGE, service_account="default", command=("sleep", "3600")).wait_until_ready()
    address = pod.read()["status"]["podIP"]
    (node,) = (node for node in cluster.nodes if node.name == pod.read()["spec"]["nodeName"])
    during = _addresses(load_balancers.interface(node))
    pod.delete()
    after = _addresses(load_balancers.interface(node))

    check("LBC-VPC-ID", expected=[VPC], observed=[vpc["VpcId"] for vpc in ec2.describe_vpcs(VpcIds=[VPC])["Vpcs"]])
    check(
        "LBC-VPC-PREREQ",
        expected="two subnets in two zones, each with 8 free addresses",
        observed=[(one["AvailabilityZone"], one["AvailableIpAddressCount"]) for one in subnets],
        holds=len({one["AvailabilityZone"] for one in subnets}) == 2
        and all(one["AvailableIpAddressCount"] >= 8 for one in subnets),
    )
    check(
        "LBC-NODE-PROVIDERID",
        expected={node.name: f"aws:///eu-west-1a/{node.instance_id}" for node in cluster.nodes},
        observed=nodes,
    )
    check("LBC-ENI-SYNC", what="while the pod runs", expected=address, observed=during, holds=address in during)
    check("LBC-ENI-SYNC", what="after it", expected=f"not {address}", observed=after, holds=address not in after)


def _addresses(interface: Mapping[str, Any]) -> list[str]:
    return [entry["PrivateIpAddress"] for entry in interface["PrivateIpAddresses"]]


# --- Its calls ------------------------------------------------------------------------------------------------------


@requirement("LBC-CRED-ROLE", "LBC-BUILD-STAMP", "LBC-BUILD-PIN", "LBC-SHIELD-INACTIVE", "LBC-CALLS-ORDER")
def test_every_call_is_the_role_s_and_they_come_in_order(
    provisioned: Provisioned, controller: Controller, aws: AwsAccount
) -> None:
    """Sessions of the role make all calls; what is written is written once and in order; CloudTrail has it too."""
    calls = controller.calls(provisioned.since)
    callers = {str(call["principal"]) for call in calls}
    log = controller.log()
    writes = [name for name in _operations(calls) if not name.startswith(("Describe", "Get"))]

    check(
        "LBC-CRED-ROLE",
        expected=SESSION,
        observed=sorted(callers),
        holds=bool(callers) and all(re.fullmatch(SESSION, caller) for caller in callers),
    )
    agents = {str(call["user_agent"]).split()[-1] for call in calls}
    check(
        "LBC-BUILD-STAMP",
        expected="elbv2.k8s.aws/v3.2.2",
        observed=sorted(agents),
        holds=all("elbv2.k8s.aws/v3.2.2" in str(call["user_agent"]) for call in calls),
    )
    check("LBC-BUILD-PIN", expected="v3.2.2", observed=_version(log))
    shield = [call["status"] for call in calls if call["operation"] == "GetSubscriptionState"]
    check("LBC-SHIELD-INACTIVE", expected=[200], observed=shield)
    check(
        "LBC-SHIELD-INACTIVE",
        what="log",
        expected="no word about skipping Shield",
        observed="skipping AWS shield" in log,
        holds="skipping AWS shield" not in log,
    )
    expected = [
        "CreateSecurityGroup",
        "CreateSecurityGroup",
        "AuthorizeSecurityGroupIngress",
        "CreateTargetGroup",
        "CreateLoadBalancer",
        "CreateListener",
        "CreateRule",
        "AuthorizeSecurityGroupIngress",
        "RegisterTargets",
    ]
    check("LBC-CALLS-ORDER", expected=expected, observed=writes[: len(expected)])
    used = sorted({action for call in calls for action in _actions(call)})
    attach(Evidence("text", f"{len(calls)} calls of the controller, in order", _operations(calls)))
    attach(Evidence("text", "actions that the controller used", used))
    sessions = [caller.rpartition("/")[2] for caller in callers]
    recorded = Counter(
        event.name
        for session in sessions
        for region in (None, "us-east-1")  # Shield is there
        for event in aws.lookup_events(region, Username=session)
    )
    check("LBC-CRED-ROLE", what="calls not in CloudTrail", expected={}, observed=Counter(_operations(calls)) - recorded)


def _operations(calls: list[dict[str, Any]]) -> list[str]:
    return [str(call["operation"]) for call in calls]


def _actions(call: dict[str, Any]) -> list[str]:
    return [str(decision["action"]) for decision in call.get("decisions", [])]


def _version(log: str) -> str:
    for line in log.splitlines():
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if entry.get("msg") == "version":
                return str(entry.get("GitVersion"))
    return ""


@requirement("LBC-POLICY-OFFICIAL", "LBC-DIST-NOCOMMIT")
def test_policy_is_the_project_s_own(
    provisioned: Provisioned,
    aws: AwsAccount,
    policy_arn: str,
    controller_files: ControllerFiles,
    controller: Controller,
) -> None:
    """What IAM has is the document of the controller's module; the report lists what was used of what it grants."""
    version = aws.client("iam").get_policy_version(PolicyArn=policy_arn, VersionId="v1")["PolicyVersion"]
    document = json.loads(controller_files.policy.read_text())
    granted = {action for statement in document["Statement"] for action in statement["Action"]}
    used = {action for call in controller.calls(provisioned.since) for action in _actions(call)}

    attach(Evidence("text", f"{len(used & granted)} of {len(granted)} granted actions used", sorted(used & granted)))
    attach(Evidence("text", "granted and not used", sorted(granted - used)))
    check("LBC-POLICY-OFFICIAL", expected=document, observed=version["Document"])
    check("LBC-POLICY-OFFICIAL", what="used but not granted", expected=[], observed=sorted(used - granted))
    foreign = {
        _digest(path) for path in (controller_files.policy, *controller_files.chart.rglob("*")) if path.is_file()
    }
    own = [
        path
        for place in SOURCES
        for path in (FIXTURES.parent / place).rglob("*")
        if path.is_file() and path.stat().st_size
    ]
    copies = [path.name for path in own if _digest(path) in foreign]
    copies += [path.name for path in FIXTURES.rglob("*.json") if json.loads(path.read_text()) == document]
    check("LBC-DIST-NOCOMMIT", what=f"copies in {len(own)} files", expected=[], observed=copies)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@requirement("LBC-POLICY-NEG")
def test_policy_protects_what_is_not_the_controller_s(
    provisioned: Provisioned, controller: Controller, kube: Kube, aws: AwsAccount
) -> None:
    """With the role's own session: nothing untagged is deleted or changed, and nothing untagged is created."""
    ec2 = aws.client("ec2")
    strange = ec2.create_security_group(GroupName="somebody-elses", Description="not the controller's", VpcId=VPC)
    group = strange["GroupId"]
    subnets = [zone["SubnetId"] for zone in provisioned.description["AvailabilityZones"]]
    account = "aws-load-balancer-controller"
    pod = kube.run("as-role", controller.namespace, image=IMAGE, service_account=account, command=("sleep", "3600"))
    pod.wait_until_ready()
    try:
        deleted = pod.exec("aws", "ec2", "delete-security-group", "--group-id", group)
        created = pod.exec("aws", "elbv2", "create-load-balancer", "--name", "untagged", "--subnets", *subnets)
        tagged = pod.exec(
            "aws", "ec2", "create-tags", "--resources", group, "--tags", f"Key={CLUSTER_TAG},Value=pod-identity-lab"
        )
    finally:
        pod.delete()
        ec2.delete_security_group(GroupId=group)

    session = rf"arn:aws:sts::123456789012:assumed-role/{ROLE}/eks-pod-identi-as-role-{UUID4}"
    who = f"User: {session} is not authorized to perform"
    texts = {
        "delete": (
            deleted,
            (
                rf"\(UnauthorizedOperation\).*You are not authorized to perform this operation\. {who}: "
                rf"ec2:DeleteSecurityGroup on resource: arn:aws:ec2:eu-west-1:123456789012:security-group/{group}"
            ),
        ),
        "create": (
            created,
            (
                rf"\(AccessDenied\).*{who}: elasticloadbalancing:CreateLoadBalancer on resource: "
                r"arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/app/untagged/\*"
            ),
        ),
        "tag": (tagged, rf"\(UnauthorizedOperation\).*{who}: ec2:CreateTags"),
    }
    for what, (done, text) in texts.items():
        check(
            "LBC-POLICY-NEG",
            what=what,
            expected=text,
            observed=done.stderr,
            holds=re.search(text, done.stderr) is not None,
        )


# --- Traffic --------------------------------------------------------------------------------------------------------


@requirement("LBC-PROXY-SG")
def test_traffic_stops_without_the_rule_on_the_nodes(
    provisioned: Provisioned, load_balancers: LoadBalancers, cluster: Cluster, aws: AwsAccount, data_plane: str
) -> None:
    """Without the rule that lets the load balancer reach pods it waits for them in vain."""
    ec2 = aws.client("ec2")
    own = load_balancers.security_group(load_balancers.interface(cluster.nodes[0])["Groups"][0]["GroupId"])
    ec2.revoke_security_group_ingress(GroupId=own["GroupId"], IpPermissions=own["IpPermissions"])
    try:
        refused = wait.until(
            lambda: get(data_plane, provisioned.name).status,
            lambda status: status != 200,
            what="traffic to stop",
            timeout=limits.TRAFFIC,
        )
    finally:
        ec2.authorize_security_group_ingress(GroupId=own["GroupId"], IpPermissions=own["IpPermissions"])
    wait_for_status(data_plane, provisioned.name, 200)

    check("LBC-PROXY-SG", expected=504, observed=refused)


@requirement("LBC-DELETE-CLEAN")
def test_deleting_the_ingress_leaves_nothing_in_aws(
    provisioned: Provisioned, kube: Kube, load_balancers: LoadBalancers, cluster: Cluster
) -> None:
    """``kubectl delete ingress``: load balancer, target group, groups and the rule on the nodes are gone."""
    assert provisioned
    release_ingresses(kube, "demo")
    tagged = [group["GroupName"] for group in load_balancers.security_groups(CLUSTER_TAG, "pod-identity-lab")]
    own = load_balancers.security_group(load_balancers.interface(cluster.nodes[0])["Groups"][0]["GroupId"])

    check("LBC-DELETE-CLEAN", expected=[], observed=load_balancers.of_stack("demo/nginx"))
    check("LBC-DELETE-CLEAN", what="security groups", expected=[], observed=tagged)
    check("LBC-DELETE-CLEAN", what="rules on the nodes", expected=[], observed=own["IpPermissions"])
