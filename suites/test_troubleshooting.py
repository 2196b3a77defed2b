"""The article's troubleshooting section: each fault by its real cause, the text one searches for, and the cure.

Every case reads the same way: the fault, what the SDK in the pod says, what ``podid diagnose`` names; then the cure,
the identity that the pod has then, and ``podid diagnose`` with nothing left to say.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Generator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from harness import binaries, limits, network_policy, wait
from harness.cluster.base import Cluster, Node
from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.image_lock import built
from harness.kube import Kube, Manifest, Pod, load_manifests
from harness.lab import Lab
from harness.lab.paths import cache_directory
from harness.scenario import AwsAccount, credentials_response, shown_progress, without_agent
from harness.troubleshooting import (
    CONNECT_TIMEOUT,
    NODE_ROLE,
    WHO_AM_I,
    Place,
    container,
    of_compute_type,
    packets_dropped,
    said,
)

pytestmark = pytest.mark.usefixtures("ipv4_pods")

FILES = Path(__file__).parent.parent / "fixtures" / "troubleshooting"
WORKER_POLICY = "arn:aws:iam::aws:policy/AmazonEKSWorkerNodePolicy"
PRINT_ARN = "import boto3; print(boto3.client('sts').get_caller_identity()['Arn'])"
METHOD = (
    "from awscli.botocore.session import Session; "
    "credentials = Session().get_credentials(); print(credentials.method if credentials else None)"
)

# --- What every case needs ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(kube: Kube, cluster: Cluster, aws: AwsAccount) -> Iterator[Place]:
    """The namespace, with the agent, and ServiceAccount s3-reader with its association."""
    with Place.made(kube, cluster, aws, "troubleshooting") as place:
        yield place


@contextlib.contextmanager
def imds_open_to_pods(lab: Lab, cluster: Cluster) -> Generator[None]:
    """``aws ec2 modify-instance-metadata-options --http-put-response-hop-limit 2`` on every node."""
    lab.set_metadata_options(cluster, hop_limit=2)
    try:
        yield
    finally:
        lab.set_metadata_options(cluster)


# --- Connect timeout on endpoint URL: "http://169.254.170.23/v1/credentials" ----------------------------------------


@requirement("TRB-101", "TRB-601")
def test_agent_is_not_installed(place: Place, cluster: Cluster, aws: AwsAccount, kube: Kube) -> None:
    """Without the add-on the connection times out; ``aws eks create-addon`` mends it under the running pod."""
    pod = place.run("no-agent")
    with without_agent(cluster, aws, kube):
        text = said(pod, *WHO_AM_I)
        named = place.diagnose(pod)

    check("TRB-101", expected=CONNECT_TIMEOUT, observed=text)
    check("TRB-601", what="fault", expected=["agent-missing"], observed=named)
    check("TRB-101", what="cured", expected=place.session, observed=place.acts_as(pod))
    check("TRB-601", what="cured", expected=[], observed=place.diagnose(pod))


@requirement("TRB-102", "TRB-601", "WHK-210")
def test_pod_runs_on_fargate(place: Place, last_node: Node) -> None:
    """The webhook injects, the agent is never there, the connection times out; on an EC2 node the same pod works."""
    toleration = {"key": "eks.amazonaws.com/compute-type", "operator": "Exists"}
    selector = {"eks.amazonaws.com/compute-type": "fargate"}

    with of_compute_type(place, last_node, "fargate"):
        pod = place.run("on-fargate", nodeSelector=selector, tolerations=[toleration])
        text, named = said(pod, *WHO_AM_I), place.diagnose(pod)

    check("TRB-102", what="node", expected=last_node.name, observed=pod.read()["spec"]["nodeName"])
    injected = pod.environment().get("AWS_CONTAINER_CREDENTIALS_FULL_URI")
    check("WHK-210", expected="http://169.254.170.23/v1/credentials", observed=injected)
    check("TRB-102", what="text", expected=CONNECT_TIMEOUT, observed=text)
    check("TRB-601", what="fault", expected=["fargate-node"], observed=named)

    pod = place.recreate(pod)
    check("TRB-102", what="cured", expected=place.session, observed=place.acts_as(pod))
    check("TRB-601", what="cured", expected=[], observed=place.diagnose(pod))


@requirement("TRB-103", "TRB-601")
def test_node_drops_what_the_pod_sends(place: Place, cluster: Cluster) -> None:
    """The agent is ready beside the pod, a filter on the node drops the packets, the connection times out."""
    pod = place.run("dropped")
    with packets_dropped(cluster, pod):
        text = said(pod, *WHO_AM_I)
        named = place.diagnose(pod)

    check("TRB-103", expected=CONNECT_TIMEOUT, observed=text)
    check("TRB-601", what="fault", expected=["path-blocked"], observed=named)
    check("TRB-103", what="cured", expected=place.session, observed=place.acts_as(pod))
    check("TRB-601", what="cured", expected=[], observed=place.diagnose(pod))


@pytest.fixture
def restricted(place: Place, kube: Kube) -> Iterator[str]:
    """A namespace like the first, with default-deny egress."""
    with kube.namespace("restricted") as name:
        kube.create_service_account("s3-reader", name)
        kube.apply(load_manifests(FILES / "default-deny-egress.yaml"), name)
        with place.associated("s3-reader", name):
            yield name


@requirement("TRB-601")
def test_policy_is_told_from_other_filters(place: Place, cluster: Cluster, kube: Kube, restricted: str) -> None:
    """Where packets are dropped and a NetworkPolicy says so, the policy is named, and with the allow rule it is not."""
    pod = place.run("denied", namespace=restricted)
    with packets_dropped(cluster, pod):
        denied = place.diagnose(pod)
        kube.apply(load_manifests(FILES / "allow-pod-identity.yaml"), restricted)
        allowed = place.diagnose(pod)

    check("TRB-601", what="denied", expected=["network-policy"], observed=denied)
    check("TRB-601", what="allowed, and still dropped", expected=["path-blocked"], observed=allowed)
    check("TRB-601", what="cured", expected=[], observed=place.diagnose(pod))


@pytest.fixture
def enforced(pytestconfig: pytest.Config, lab: Lab, cluster: Cluster, kube: Kube) -> Iterator[None]:
    """Every new connection of a pod is judged by NetworkPolicies."""
    with shown_progress(pytestconfig) as progress, network_policy.enforced(lab, cluster, kube, progress):
        yield


@requirement("TRB-104")
def test_default_deny_egress(place: Place, kube: Kube, enforced: None, restricted: str) -> None:
    """Default-deny egress times out, and one rule for 169.254.170.23 on TCP port 80 mends it."""
    assert enforced is None
    pod = place.run("denied", namespace=restricted)
    text = said(pod, *WHO_AM_I)
    named = place.diagnose(pod)

    kube.apply(load_manifests(FILES / "allow-pod-identity.yaml"), restricted)
    mended = wait.until(
        lambda: place.diagnose(pod),
        lambda found: not found,
        what="the allow rule to be enforced",
        timeout=limits.NETWORK_POLICY,
    )

    check("TRB-104", what="text", expected=CONNECT_TIMEOUT, observed=text)
    check("TRB-104", what="fault", expected=["network-policy"], observed=named)
    check("TRB-104", what="cured", expected=[], observed=mended)


# --- AccessDeniedException: User is not authorized to perform: eks-auth:AssumeRoleForPodIdentity --------------------


@contextlib.contextmanager
def detached(aws: AwsAccount, role: str, policy_arn: str) -> Generator[None]:
    """``aws iam detach-role-policy``; attached again at the end."""
    iam = aws.client("iam")
    iam.detach_role_policy(RoleName=role, PolicyArn=policy_arn)
    try:
        yield
    finally:
        iam.attach_role_policy(RoleName=role, PolicyArn=policy_arn)


@requirement("TRB-201", "TRB-601", "API-405")
def test_node_role_lacks_the_permission(place: Place, cluster: Cluster, aws: AwsAccount) -> None:
    """A stripped-down node role is named in the refusal; attaching AmazonEKSWorkerNodePolicy mends it."""
    with detached(aws, "pod-identity-lab-node-role", WORKER_POLICY):
        pod = place.run("stripped")
        answer = credentials_response(pod)
        named = place.diagnose(pod)

    denied = (
        rf"\(AccessDeniedException\): User: {NODE_ROLE}[0-9a-f]{{17}} is not authorized to perform: "
        rf"eks-auth:AssumeRoleForPodIdentity on resource: {re.escape(cluster.spec.arn)} "
        r"because no identity-based policy allows the eks-auth:AssumeRoleForPodIdentity action"
    )
    check("TRB-201", expected=denied, observed=answer.body, holds=re.search(denied, answer.body) is not None)
    check("API-405", expected=denied, observed=answer.body, holds=re.search(denied, answer.body) is not None)
    check("TRB-601", what="fault", expected=["node-role-permission"], observed=named)

    mended = wait.until(
        lambda: credentials_response(pod),
        lambda one: one.status == 200,
        what="the agent to try again",
        timeout=limits.CONTROLLER,
    )
    check("TRB-201", what="cured", expected=200, observed=mended.status)
    check("TRB-601", what="cured", expected=[], observed=place.diagnose(pod))


# --- Pod still using node role instead of Pod Identity --------------------------------------------------------------


def wait_until_its_second_is_over(pod: Pod) -> None:
    """Kubernetes tells whole seconds of creation: what was made in the pod's own may as well be older."""
    created = datetime.fromisoformat(pod.read()["metadata"]["creationTimestamp"])
    wait.until(
        lambda: datetime.now(UTC),
        lambda now: now >= created + timedelta(seconds=1),
        what=f"the second to end in which {pod.name} was created",
        timeout=limits.OBJECT_READY,
    )


@requirement("TRB-301", "TRB-502", "TRB-601", "WHK-206")
def test_pod_is_older_than_its_association(place: Place, lab: Lab, cluster: Cluster) -> None:
    """The pod goes on as the node's role, whatever comes after it; deleted and created again it is the role's."""
    place.kube.create_service_account("late", place.namespace)
    with imds_open_to_pods(lab, cluster):
        pod = place.run("older", account="late")
        wait_until_its_second_is_over(pod)
        with place.associated("late"):
            before, method = place.acts_as(pod), pod.exec("python3", "-c", METHOD).stdout.strip()
            named = place.diagnose(pod)
            pod = place.recreate(pod, account="late")
            after, new_method = place.acts_as(pod), pod.exec("python3", "-c", METHOD).stdout.strip()
            cured = place.diagnose(pod)

    check("TRB-301", what="fault", expected=NODE_ROLE, observed=before)
    check("TRB-301", what="cured", expected=place.session, observed=after)
    check("WHK-206", expected=place.session, observed=after)
    check("TRB-502", expected=("iam-role", "container-role"), observed=(method, new_method))
    check("TRB-601", what="fault", expected=["pod-older-than-association"], observed=named)
    check("TRB-601", what="cured", expected=[], observed=cured)


@requirement("TRB-302", "TRB-601")
def test_association_differs_in_case(place: Place) -> None:
    """An association for Case-Reader serves no pod of case-reader; one with the right name does."""
    for name in ("case-reader", "made-after-it"):
        place.kube.create_service_account(name, place.namespace)
    with (
        place.aws.association(place.cluster.name, place.namespace, "Case-Reader", place.role_arn),
        # Admission that knows this one knows the other too.
        place.associated("made-after-it"),
    ):
        pod = place.run("case-reader", account="case-reader")
        injected, named = "AWS_CONTAINER_CREDENTIALS_FULL_URI" in pod.environment(), place.diagnose(pod)
    with place.associated("case-reader"):
        pod = place.recreate(pod, account="case-reader")
        after, cured = place.acts_as(pod), place.diagnose(pod)

    check("TRB-302", what="injected", expected=False, observed=injected)
    check("TRB-302", what="cured", expected=place.session, observed=after)
    check("TRB-601", what="fault", expected=["case-mismatch"], observed=named)
    check("TRB-601", what="cured", expected=[], observed=cured)


@requirement("TRB-303", "TRB-601")
def test_pod_runs_as_another_account(place: Place) -> None:
    """A pod that forgot its ServiceAccount runs as default, which the association does not name."""
    pod = place.run("forgetful", account="default")
    injected, named = "AWS_CONTAINER_CREDENTIALS_FULL_URI" in pod.environment(), place.diagnose(pod)
    pod = place.recreate(pod)

    check("TRB-303", what="injected", expected=False, observed=injected)
    check("TRB-303", what="cured", expected=place.session, observed=place.acts_as(pod))
    check("TRB-601", what="fault", expected=["service-account-mismatch"], observed=named)
    check("TRB-601", what="cured", expected=[], observed=place.diagnose(pod))


@requirement("TRB-304", "TRB-601")
def test_hop_limit_closes_imds_to_pods(place: Place, kube: Kube) -> None:
    """With hop limit 1, as hardened, a pod that nobody associated is nobody; the cure is an association."""
    with kube.namespace("nobody") as name:
        kube.create_service_account("orphan", name)
        pod = place.run("orphan", account="orphan", namespace=name)
        text, named = said(pod, *WHO_AM_I), place.diagnose(pod)
        with place.associated("orphan", name):
            pod = place.recreate(pod, account="orphan")
            after, cured = place.acts_as(pod), place.diagnose(pod)

    sentence = 'Unable to locate credentials. You can configure credentials by running "aws configure".'
    check("TRB-304", expected=sentence, observed=text, holds=text.startswith(sentence))
    check("TRB-304", what="cured", expected=place.session, observed=after)
    check("TRB-601", what="fault", expected=["no-association"], observed=named)
    check("TRB-601", what="cured", expected=[], observed=cured)


# --- MatchNodeSelector failed: Fargate profile cannot satisfy pod's node selector/affinity --------------------------


@requirement("TRB-401", "TRB-601")
def test_fargate_profile_claims_the_namespace(place: Place, kube: Kube) -> None:
    """A pod that excludes Fargate never starts in a namespace that a profile claims, and does in another.

    Fargate's scheduler is AWS's own: that it refuses, and how it says so, is played here; everything else is real.
    """
    (manifest,) = load_manifests(FILES / "fargate-pod.yaml")
    with kube.namespace("on-fargate") as claimed:
        kube.create_service_account("s3-reader", claimed)
        kube.apply([manifest], claimed)
        refused = kube.pod(manifest["metadata"]["name"], claimed)
        refuse_as_fargate(kube, refused)
        named = place.diagnose(refused)
    pod = place.run(refused.name, affinity=manifest["spec"]["affinity"])

    check("TRB-601", what="fault", expected=["fargate-profile"], observed=named)
    check("TRB-401", expected=place.session, observed=place.acts_as(pod))
    check("TRB-601", what="cured", expected=[], observed=place.diagnose(pod))


def refuse_as_fargate(kube: Kube, pod: Pod) -> None:
    """Say what Fargate's scheduler says to a pod that excludes Fargate."""
    seen: Manifest = pod.read()
    event = {
        "metadata": {"generateName": f"{pod.name}-"},
        "type": "Warning",
        "reason": "FailedScheduling",
        "message": "MatchNodeSelector failed: Fargate profile fp-default cannot satisfy pod's node selector/affinity",
        "involvedObject": {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": pod.name,
            "namespace": pod.namespace,
            "uid": seen["metadata"]["uid"],
        },
        "source": {"component": "fargate-scheduler"},
    }
    kube.core.create_namespaced_event(pod.namespace, event)


# --- SDK too old ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def old_sdk(pytestconfig: pytest.Config, lab: Lab, cluster: Cluster) -> str:
    """An image with SDKs for Python and Go from before Pod Identity."""
    with shown_progress(pytestconfig) as progress:
        programs = binaries.ensure(cache_directory(), progress, [binaries.OLD_AWS_SDK_GO])
        image = built("old-sdk", programs)
        lab.add_images(cluster.name, [image], progress)
    return image.reference


@requirement("TRB-501", "TRB-504", "TRB-601")
def test_sdk_is_too_old(place: Place, lab: Lab, cluster: Cluster, old_sdk: str) -> None:
    """SDKs of 2023 end without credentials, although the node's role is within reach; a new one mends it."""
    with imds_open_to_pods(lab, cluster):
        pod = place.run("old-sdk", image=old_sdk)
        with_python, with_go = said(pod, "python3", "-c", PRINT_ARN), said(pod, "old-aws-sdk-go")
        named = place.diagnose(pod)
        plain = place.run("old-sdk-plain", account="default", image=old_sdk)
        elsewhere = plain.exec("env", "AWS_REGION=eu-west-1", "old-aws-sdk-go").stdout
        pod = place.recreate(pod)

    refusal = (
        "Unsupported host '169.254.170.23'. Can only retrieve metadata from these hosts: "
        "169.254.170.2, localhost, 127.0.0.1"
    )
    check("TRB-501", expected=refusal, observed=with_python, holds=refusal in with_python)
    only_loopback = 'invalid endpoint host, "169.254.170.23", only loopback hosts are allowed.'
    nothing_left = "NoCredentialProviders: no valid providers in chain"
    is_refused = only_loopback in with_go and nothing_left in with_go
    check("TRB-504", expected=(only_loopback, nothing_left), observed=with_go, holds=is_refused)
    is_of_node = elsewhere.startswith(NODE_ROLE)
    check("TRB-504", what="where nobody injected", expected=NODE_ROLE, observed=elsewhere, holds=is_of_node)
    check("TRB-501", what="cured", expected=place.session, observed=place.acts_as(pod))
    check("TRB-601", what="fault", expected=["sdk-too-old"], observed=named)
    check("TRB-601", what="cured", expected=[], observed=place.diagnose(pod))


@requirement("TRB-503", "TRB-601")
def test_proxy_stands_in_the_way(place: Place) -> None:
    """A client that honours HTTP_PROXY asks the proxy for a link-local address; NO_PROXY mends it."""
    # Nobody has this address: a proxy that cannot reach the agent, as none can.
    proxy = {"name": "http_proxy", "value": "http://192.0.2.1:3128"}
    ask = 'curl --silent --show-error --max-time 5 --output /dev/null "$AWS_CONTAINER_CREDENTIALS_FULL_URI"'

    pod = place.run("proxied", containers=[container("proxied", [proxy])])
    # curl looks at capitals for https alone; Go's client, for one, looks at both.
    loud = place.run("loud", containers=[container("loud", [proxy | {"name": "HTTP_PROXY"}])])
    text = said(pod, "sh", "-c", ask)
    named, in_capitals = place.diagnose(pod), place.diagnose(loud)
    pod = place.recreate(
        pod, containers=[container("proxied", [proxy, {"name": "no_proxy", "value": "169.254.170.23"}])]
    )

    # Where the node has no route to the proxy, curl is told at once and names it.
    missed = "timed out" in text or "Failed to connect to 192.0.2.1 port 3128" in text
    check("TRB-503", expected="the proxy was asked, and not reached", observed=text, holds=missed)
    check("TRB-503", what="cured", expected=0, observed=pod.exec("sh", "-c", ask).returncode)
    check("TRB-601", what="fault", expected=["proxy"], observed=named)
    check("TRB-601", what="in capitals", expected=["proxy"], observed=in_capitals)
    check("TRB-601", what="cured", expected=[], observed=place.diagnose(pod))
