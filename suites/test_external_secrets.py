"""The External Secrets Operator: started before its association, it is the node's role until its pod is replaced.

The real operator in a real cluster, with the guide's own manifest. Whether a failure is the gotcha is told by the
event and by who called AWS; the condition of an ExternalSecret has one message for every failure.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from harness.cloud.localstack.control import Control
from harness.cluster.base import Cluster, Completed
from harness.conformance.marks import requirement
from harness.conformance.recording import Evidence, attach, check
from harness.external_secrets import (
    NAMESPACE,
    Calls,
    Condition,
    Operator,
    Resource,
    attempt,
    installed,
    program,
    secret_data,
)
from harness.kube import Kube, Manifest, load_manifests
from harness.lab import Lab
from harness.scenario import (
    NOT_ASSUMED,
    UUID4,
    AwsAccount,
    credentials_response,
    stage_of,
    wait_until_admission_injects,
    wait_until_admission_leaves_alone,
    without_agent,
)

pytestmark = pytest.mark.usefixtures("ipv4_pods", "agent_addon")

FIXTURES = Path(__file__).parent.parent / "fixtures"
FILES = FIXTURES / "external-secrets"
UNIVERSAL_TRUST = FIXTURES / "s3" / "pod-identity-trust.json"
ROLE_ARN = "arn:aws:iam::123456789012:role/pod-identity-lab-eso-role"
SESSION = f"arn:aws:sts::123456789012:assumed-role/pod-identity-lab-eso-role/eks-pod-identi-external-s-{UUID4}"
VARIABLES = {"AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"}
IMAGE = "amazon/aws-cli:latest"
CRD = ("apiextensions.k8s.io/v1", "CustomResourceDefinition")
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


# --- Set-up: a secret, a role, and an operator without an association -----------------------------------------------


@pytest.fixture(scope="module")
def control(lab: Lab) -> Control:
    return lab.control()


@pytest.fixture(scope="module")
def app_config(aws: AwsAccount) -> Iterator[str]:
    """``aws secretsmanager create-secret --name demo/app-config --secret-string '{"db_password":"changeme"}'``."""
    with aws.secret("demo/app-config", '{"db_password":"changeme"}', {}) as name:
        yield name


@pytest.fixture(scope="module")
def role(aws: AwsAccount, app_config: str) -> Iterator[str]:
    """The guide's role and policy: its ARN."""
    assert app_config
    with (
        aws.policy("pod-identity-lab-eso-policy", (FILES / "eso-policy.json").read_text()) as policy,
        aws.role("pod-identity-lab-eso-role", UNIVERSAL_TRUST.read_text(), policies=[policy]) as arn,
    ):
        yield arn


@pytest.fixture(scope="module")
def began_at(lab: Lab, cluster: Cluster, aws: AwsAccount, role: str) -> Iterator[float]:
    """The moment before ``helm install``, on nodes whose metadata service answers pods too, as on many there are."""
    assert role
    aws.wait_until_agent_is_active(cluster.name)
    lab.set_metadata_options(cluster, hop_limit=2)
    yield time.monotonic()
    lab.set_metadata_options(cluster)


@pytest.fixture(scope="module")
def operator(lab: Lab, cluster: Cluster, kube: Kube, began_at: float) -> Iterator[Operator]:
    """``helm install external-secrets …`` on ServiceAccount external-secrets, before there is an association."""
    assert began_at
    with installed(lab, cluster, kube) as the_operator:
        yield the_operator


@pytest.fixture(scope="module")
def demo(kube: Kube, operator: Operator) -> Iterator[str]:
    """The namespace of the application."""
    assert operator
    with kube.namespace("demo") as name:
        yield name


def told(principal: str, action: str = "secretsmanager:GetSecretValue") -> str:
    """Return what a denied caller is told, up to the resource."""
    return f"api error AccessDeniedException: User: {principal} is not authorized to perform: {action}"


NODES = "arn:aws:sts::123456789012:assumed-role/pod-identity-lab-node-role/"


def node_session(cluster: Cluster, pod: Manifest) -> str:
    """Return the ARN of whoever uses the role of the node that a pod is on."""
    (node,) = [node for node in cluster.nodes if node.name == pod["spec"]["nodeName"]]
    return f"{NODES}{node.instance_id}"


# --- The gotcha: operator first, association after ------------------------------------------------------------------


@dataclass(frozen=True)
class Stuck:
    """What the guide's manifest leads to before there is an association."""

    applied: Completed
    pod: Manifest
    store: Condition
    secret: Condition
    event: str
    log: str
    data: dict[str, str] | None


@pytest.fixture(scope="module")
def secret(kube: Kube) -> Resource:
    """The guide's ExternalSecret."""
    return Resource(kube, "ExternalSecret", "app-config", "demo")


@pytest.fixture(scope="module")
def stuck(kubectl: Callable[..., Completed], operator: Operator, demo: str, secret: Resource) -> Stuck:
    """``kubectl apply -f /tmp/secretstore.yaml``."""
    applied = kubectl("apply", "-f", str(FILES / "secretstore.yaml"))
    assert applied.returncode == 0, applied.stderr
    with stage_of("ESO-GOTCHA-NODE-ROLE"):
        valid = Resource(operator.kube, "ClusterSecretStore", "aws-secretsmanager").wait_until("Valid")
        event = secret.wait_for_message("UpdateFailed", "AccessDeniedException")
        condition = secret.wait_until("SecretSyncedError")
    data = secret_data(operator.kube, "app-config", demo)
    return Stuck(applied, operator.pod.read(), valid, condition, event, operator.log(), data)


@pytest.fixture(scope="module")
def association(cluster: Cluster, aws: AwsAccount, stuck: Stuck, role: str) -> Iterator[dict[str, Any]]:
    """``aws eks create-pod-identity-association …``, after the operator was started."""
    assert stuck
    with aws.association(cluster.name, NAMESPACE, "external-secrets", role) as record:
        yield record


@dataclass(frozen=True)
class Late:
    """What three attempts after the association lead to."""

    pod: Manifest
    calls: list[tuple[str, str]]
    """(principal, error code)."""
    secret: Condition


@pytest.fixture(scope="module")
def late(association: dict[str, Any], operator: Operator, secret: Resource, control: Control) -> Late:
    """Nothing is done but to ask again."""
    assert association
    wait_until_admission_injects(operator.kube, NAMESPACE, "external-secrets")
    calls = [attempt(secret, control) for _ in range(3)]
    return Late(operator.pod.read(), calls, secret.ready())


@dataclass(frozen=True)
class Mended:
    """What deleting the operator's pod leads to."""

    others_before: list[str]
    others: list[str]
    pod: Manifest
    secret: Condition
    data: dict[str, str] | None
    calls: list[dict[str, Any]]
    """Of Secrets Manager since the new pod's container was started."""
    seconds: float
    """From the deletion to the synced secret."""
    seconds_in_all: float
    """From the installation."""


@pytest.fixture(scope="module")
def mended(operator: Operator, late: Late, secret: Resource, control: Control, began_at: float) -> Mended:
    """``kubectl -n external-secrets delete pod -l app.kubernetes.io/name=external-secrets``."""
    assert late
    others, calls, deleted_at = operator.other_pods(), Calls(control), time.monotonic()
    operator.restart()
    with stage_of("ESO-GOTCHA-RESTART"):
        condition = secret.wait_until("SecretSynced")
    now = time.monotonic()
    pod = operator.pod.read()
    return Mended(
        others_before=others,
        others=operator.other_pods(),
        pod=pod,
        secret=condition,
        data=secret_data(operator.kube, "app-config", "demo"),
        # The former pod may have asked once more while it ended.
        calls=[call for call in calls.made() if datetime.fromisoformat(call["at"]) >= started(pod)],
        seconds=now - deleted_at,
        seconds_in_all=now - began_at,
    )


def variables(pod: Manifest) -> set[str]:
    """Return which of Pod Identity's variables a pod has."""
    return VARIABLES & {entry["name"] for entry in pod["spec"]["containers"][0].get("env", [])}


def tokens(pod: Manifest) -> list[str]:
    """Return the names of the volumes with a token for Pod Identity."""
    return [
        volume["name"]
        for volume in pod["spec"]["volumes"]
        for source in volume.get("projected", {}).get("sources", [])
        if source.get("serviceAccountToken", {}).get("audience") == "pods.eks.amazonaws.com"
    ]


def started(pod: Manifest) -> datetime:
    """Return when a pod's container was started."""
    return datetime.fromisoformat(pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"])


@requirement("ESO-BUILD-PIN")
def test_operator_is_built_from_the_pinned_module(stuck: Stuck) -> None:
    """The program of the image says of itself that it is v0.20.4, with the one dependency that the project replaces."""
    binary = program().read_bytes()
    itself = set(re.findall(rb"\nmod\tgithub.com/external-secrets/external-secrets\t(\S+)\t", binary))
    sprig = set(re.findall(rb"=>\tgithub.com/external-secrets/sprig/v3\t(\S+)\t", binary))

    image = "oci.external-secrets.io/external-secrets/external-secrets:v0.20.4"
    check("ESO-BUILD-PIN", what="operator", expected={"v0.20.4"}, observed={version.decode() for version in itself})
    check("ESO-BUILD-PIN", what="sprig", expected={"v3.3.0"}, observed={version.decode() for version in sprig})
    check("ESO-BUILD-PIN", what="image", expected=image, observed=stuck.pod["spec"]["containers"][0]["image"])


@requirement("ESO-DIST-NOCOMMIT")
def test_nothing_of_the_project_is_in_this_repository() -> None:
    """No CRD and no chart is among our files: CRDs come out of the pinned module when the operator is installed."""
    texts = {path: path.read_text() for path in FIXTURES.rglob("*.yaml")}

    copies = [str(path.name) for path, text in texts.items() if "kind: CustomResourceDefinition" in text]
    charts = [str(path) for path in FIXTURES.rglob("Chart.yaml")]
    assert (copies, charts) == ([], [])


@requirement("ESO-CRD-SSA")
def test_crds_are_established_before_the_controller_starts(kube: Kube, stuck: Stuck) -> None:
    """Each is owned by a server-side apply, without the annotation that it would be too big for."""
    crds = [crd for crd in kube.read_all(*CRD) if crd["spec"]["group"].endswith("external-secrets.io")]

    established = [
        condition["lastTransitionTime"]
        for crd in crds
        for condition in crd["status"]["conditions"]
        if (condition["type"], condition["status"]) == ("Established", "True")
    ]
    operations = {entry["operation"] for crd in crds for entry in crd["metadata"]["managedFields"]}
    annotated = [crd["metadata"]["name"] for crd in crds if LAST_APPLIED in crd["metadata"].get("annotations", {})]
    created = stuck.pod["metadata"]["creationTimestamp"]
    check("ESO-CRD-SSA", expected=len(crds), observed=len(established))
    check("ESO-CRD-SSA", expected=f"until {created}", observed=max(established), holds=max(established) <= created)
    check("ESO-CRD-SSA", expected="Apply", observed=sorted(operations), holds="Apply" in operations)
    check("ESO-CRD-SSA", expected=[], observed=annotated)


@requirement("ESO-CRD-V1BETA1", "ESO-POD-UNTOUCHED")
def test_the_guide_s_manifest_applies_as_printed(kube: Kube, stuck: Stuck) -> None:
    """Both objects of v1beta1 are created, with a warning; the store has no auth block, the account no annotation."""
    store = Resource(kube, "ClusterSecretStore", "aws-secretsmanager").read()
    account = kube.read("v1", "ServiceAccount", "external-secrets", NAMESPACE)

    created = [
        "clustersecretstore.external-secrets.io/aws-secretsmanager created",
        "externalsecret.external-secrets.io/app-config created",
    ]
    check("ESO-CRD-V1BETA1", expected=created, observed=stuck.applied.stdout.splitlines())
    deprecated = "external-secrets.io/v1beta1 ExternalSecret is deprecated"
    check(
        "ESO-CRD-V1BETA1", expected=deprecated, observed=stuck.applied.stderr, holds=deprecated in stuck.applied.stderr
    )
    provider = {"aws": {"service": "SecretsManager", "region": "eu-west-1"}}
    check("ESO-POD-UNTOUCHED", what="store", expected=provider, observed=store["spec"]["provider"])
    check("ESO-POD-UNTOUCHED", what="annotations", expected={}, observed=account["metadata"].get("annotations", {}))


@requirement("ESO-GOTCHA-NODE-ROLE", "ESO-DENY-EVENT")
def test_without_an_association_the_node_s_role_is_denied(stuck: Stuck, cluster: Cluster) -> None:
    """The pod has nothing of Pod Identity, yet the store is valid: whoever asks IMDS gets credentials, of the node."""
    check("ESO-GOTCHA-NODE-ROLE", what="pod", expected=(set(), []), observed=(variables(stuck.pod), tokens(stuck.pod)))
    check("ESO-GOTCHA-NODE-ROLE", what="store", expected="Valid", observed=stuck.store.reason)
    check("ESO-GOTCHA-NODE-ROLE", what="Secret", expected=None, observed=stuck.data)
    expected = told(node_session(cluster, stuck.pod))
    check("ESO-GOTCHA-NODE-ROLE", what="event", expected=expected, observed=stuck.event, holds=expected in stuck.event)
    check(
        "ESO-GOTCHA-NODE-ROLE", what="log", expected=expected, observed=stuck.log[-2000:], holds=expected in stuck.log
    )
    form = (
        r"error processing spec\.data\[0\] \(key: demo/app-config\), "
        r"err: operation error Secrets Manager: GetSecretValue, "
        rf"https response error StatusCode: 400, RequestID: \S+, {re.escape(expected)} on resource: demo/app-config "
        r"because no identity-based policy allows the secretsmanager:GetSecretValue action"
    )
    check("ESO-DENY-EVENT", expected=form, observed=stuck.event, holds=bool(re.fullmatch(form, stuck.event)))


@requirement("ESO-GOTCHA-NO-EFFECT")
def test_association_alone_changes_nothing(stuck: Stuck, late: Late, cluster: Cluster) -> None:
    """In three further attempts it is the same pod, with the same environment, that asks as the node and is denied."""
    same = [pod["metadata"]["uid"] for pod in (stuck.pod, late.pod)]
    check("ESO-GOTCHA-NO-EFFECT", what="pod", expected=same[0], observed=same[1])
    check("ESO-GOTCHA-NO-EFFECT", what="environment", expected=set(), observed=variables(late.pod))
    calls = [(node_session(cluster, stuck.pod), "AccessDenied")] * 3
    check("ESO-GOTCHA-NO-EFFECT", what="calls", expected=calls, observed=late.calls)
    check("ESO-GOTCHA-NO-EFFECT", what="condition", expected="SecretSyncedError", observed=late.secret.reason)


@requirement("ESO-GOTCHA-RESTART", "ESO-SYNC", "ESO-SYNC-TRANSIENT")
def test_deleting_the_operator_s_pod_mends_it(mended: Mended) -> None:
    """The next pod is injected, the secret synced within a minute; the other programs were left alone."""
    attach(Evidence("text", "from helm install to SecretSynced", f"{mended.seconds_in_all:.1f} s"))
    check("ESO-GOTCHA-RESTART", what="variables", expected=VARIABLES, observed=variables(mended.pod))
    check("ESO-GOTCHA-RESTART", what="token", expected=["eks-pod-identity-token"], observed=tokens(mended.pod))
    check("ESO-GOTCHA-RESTART", what="other pods", expected=mended.others_before, observed=mended.others)
    check("ESO-GOTCHA-RESTART", expected="within 60 s", observed=mended.seconds, holds=mended.seconds < 60)
    synced = ("True", "SecretSynced", "secret synced")
    condition = mended.secret
    observed = (condition.status, condition.reason, condition.message)
    check("ESO-SYNC", what="condition", expected=synced, observed=observed)
    check("ESO-SYNC", what="Secret", expected={"db_password": "changeme"}, observed=mended.data)
    # A store that was not ready yet would have been an UpdateFailed on the way, and no reason to give up.
    check("ESO-SYNC-TRANSIENT", expected="SecretSynced", observed=condition.reason)


@requirement("ESO-CRED-ROLE", "ESO-CALLS-MINIMAL")
def test_only_the_operator_s_role_reads_the_secret(
    operator: Operator, mended: Mended, secret: Resource, control: Control
) -> None:
    """From the new pod on every call is of its Pod Identity session, and one reconciliation makes one call.

    The operator looks again at what it has just synced, and asks once more where its cache does not know of it yet. So
    the shortest of several attempts tells what one reconciliation asks.
    """
    attempts: list[list[dict[str, Any]]] = []
    for _ in range(3):
        operator.wait_until_quiet()
        calls = Calls(control)
        attempt(secret, control)
        operator.wait_until_quiet()
        attempts.append(calls.made())

    made = [*mended.calls, *itertools.chain(*attempts)]
    others = [call["principal"] for call in made if not re.fullmatch(SESSION, call["principal"])]
    check("ESO-CRED-ROLE", expected=[], observed=others)
    check("ESO-CRED-ROLE", expected="at least one call", observed=len(mended.calls), holds=len(mended.calls) > 0)
    operations = [[call["operation"] for call in one] for one in attempts]
    check("ESO-CALLS-MINIMAL", expected=["GetSecretValue"], observed=min(operations, key=len))
    check("ESO-CALLS-MINIMAL", what="in all", expected={"GetSecretValue"}, observed=set(itertools.chain(*operations)))


@requirement("ESO-CRED-ROLE")
def test_cloudtrail_has_the_operator_s_session(mended: Mended, aws: AwsAccount, began_at: float) -> None:
    """Both are there: the node's denied call and the operator's good one."""
    assert mended
    # Other scenarios have a secret of this name too.
    since = datetime.now(UTC) - timedelta(seconds=time.monotonic() - began_at)
    events = [event.record for event in aws.lookup_events(ResourceName="demo/app-config")]
    events = [record for record in events if datetime.fromisoformat(record["eventTime"]) >= since]
    asked = [record for record in events if record["eventName"] == "GetSecretValue"]

    newest, oldest = asked[0], asked[-1]
    attach(Evidence("cloudtrail", "GetSecretValue of demo/app-config, newest and oldest", [newest, oldest]))
    issuer = newest["userIdentity"]["sessionContext"]["sessionIssuer"]["arn"]
    check("ESO-CRED-ROLE", what="newest", expected=(ROLE_ARN, None), observed=(issuer, newest.get("errorCode")))
    node = oldest["userIdentity"]["sessionContext"]["sessionIssuer"]["userName"]
    denied = ("pod-identity-lab-node-role", "AccessDenied")
    check("ESO-CRED-ROLE", what="oldest", expected=denied, observed=(node, oldest.get("errorCode")))


def external_secret(kube: Kube, name: str, key: str, prop: str) -> Resource:
    """Apply an ExternalSecret in namespace demo for one property of one secret."""
    kube.apply(load_manifests(FILES / "external-secret.yaml", {"NAME": name, "KEY": key, "PROPERTY": prop}))
    return Resource(kube, "ExternalSecret", name, "demo")


@requirement("ESO-GOTCHA-WRONG-POLICY")
def test_wrong_policy_is_told_from_a_missing_injection_by_the_caller(
    aws: AwsAccount, control: Control, secret: Resource, stuck: Stuck, *, mended: Mended, cluster: Cluster
) -> None:
    """Both are AccessDeniedException, with one condition; the ARN in the event is the role's, or the node's."""
    assert mended
    iam = aws.client("iam")
    policy = {
        "RoleName": "pod-identity-lab-eso-role",
        "PolicyArn": "arn:aws:iam::123456789012:policy/pod-identity-lab-eso-policy",
    }
    iam.detach_role_policy(**policy)
    try:
        caller, code = attempt(secret, control)
        condition = secret.wait_until("SecretSyncedError")
        event = secret.wait_for_message("UpdateFailed", "assumed-role/pod-identity-lab-eso-role/")
    finally:
        iam.attach_role_policy(**policy)
    secret.refresh()
    again = secret.wait_until("SecretSynced")

    check("ESO-GOTCHA-WRONG-POLICY", what="condition", expected=stuck.secret, observed=condition)
    is_role = bool(re.fullmatch(SESSION, caller)) and code == "AccessDenied"
    check("ESO-GOTCHA-WRONG-POLICY", what="caller", expected=SESSION, observed=caller, holds=is_role)
    of_role, of_node = bool(re.search(told(SESSION), event)), told(node_session(cluster, stuck.pod)) in stuck.event
    check("ESO-GOTCHA-WRONG-POLICY", what="wrong policy", expected=SESSION, observed=event, holds=of_role)
    check("ESO-GOTCHA-WRONG-POLICY", what="no injection", expected="the node", observed=stuck.event, holds=of_node)
    check("ESO-GOTCHA-WRONG-POLICY", what="policy attached again", expected="SecretSynced", observed=again.reason)


# --- Other ways to have no credentials, and another role ------------------------------------------------------------


@pytest.fixture
def restored(operator: Operator, mended: Mended, secret: Resource, control: Control) -> Iterator[None]:
    """At the end the operator starts once more, as it was, and has its credentials before anybody changes them."""
    assert mended
    yield
    wait_until_admission_injects(operator.kube, NAMESPACE, "external-secrets")
    operator.restart()
    attempt(secret, control)


@pytest.fixture
def unassociated(restored: None, aws: AwsAccount, association: dict[str, Any], kube: Kube, role: str) -> Iterator[None]:
    """Without the association; at the end there is one again."""
    del restored
    eks = aws.client("eks")
    named = {name: association[name] for name in ("clusterName", "namespace", "serviceAccount")}
    eks.delete_pod_identity_association(
        clusterName=association["clusterName"], associationId=association["associationId"]
    )
    wait_until_admission_leaves_alone(kube, NAMESPACE, "external-secrets")
    yield
    association.update(eks.create_pod_identity_association(**named, roleArn=role)["association"])


@pytest.fixture
def imds_closed(lab: Lab, cluster: Cluster) -> Iterator[None]:
    """Tokens required and hop limit 1: the metadata service does not answer pods."""
    lab.set_metadata_options(cluster, tokens_required=True, hop_limit=1)
    yield
    lab.set_metadata_options(cluster, hop_limit=2)


@requirement("ESO-GOTCHA-NO-IMDS", "ESO-MSG-GENERIC")
@pytest.mark.usefixtures("unassociated", "imds_closed")
def test_without_association_and_imds_the_store_is_not_ready(
    operator: Operator, secret: Resource, stuck: Stuck, control: Control
) -> None:
    """What has gone is felt by the next pod: it finds no credentials at all, says so, and asks AWS for nothing."""
    running = attempt(secret, control)
    calls = Calls(control)
    operator.restart()
    store = Resource(operator.kube, "ClusterSecretStore", "aws-secretsmanager")
    store.refresh()
    condition = store.wait_until("InvalidProviderConfig")
    event = store.wait_for_message("InvalidProviderConfig", "no EC2 IMDS role found")
    secret.refresh()
    message = secret.wait_for_message("UpdateFailed", 'ClusterSecretStore "aws-secretsmanager" is not ready')
    synced = secret.wait_until("SecretSyncedError")

    kept = bool(re.fullmatch(SESSION, running[0])) and not running[1]
    check("ESO-GOTCHA-NO-IMDS", what="running pod", expected="its session", observed=running, holds=kept)
    invalid = ("False", "InvalidProviderConfig", "unable to validate store")
    observed = (condition.status, condition.reason, condition.message)
    check("ESO-GOTCHA-NO-IMDS", what="store", expected=invalid, observed=observed)
    no_role = "no EC2 IMDS role found"
    check("ESO-GOTCHA-NO-IMDS", what="event", expected=no_role, observed=event, holds=no_role in event)
    check("ESO-GOTCHA-NO-IMDS", what="not denied", expected=False, observed="AccessDenied" in message)
    # The former pod may still have asked while it ended; it kept its session.
    asked = [(call["principal"], call["operation"]) for call in calls.made() if call["principal"] != running[0]]
    check("ESO-GOTCHA-NO-IMDS", what="calls of the new pod", expected=[], observed=asked)
    check("ESO-MSG-GENERIC", expected=stuck.secret, observed=synced)


@requirement("ESO-CRED-NOFALLBACK")
@pytest.mark.usefixtures("restored")
def test_without_the_agent_nobody_is_the_node(
    operator: Operator, secret: Resource, control: Control, cluster: Cluster, aws: AwsAccount
) -> None:
    """An injected pod asks the agent and nobody else, although IMDS would answer: no agent, no credentials."""
    with without_agent(cluster, aws, operator.kube, keeps_link=True):
        calls = Calls(control)
        operator.restart()
        store = Resource(operator.kube, "ClusterSecretStore", "aws-secretsmanager")
        store.refresh()
        condition = store.wait_until("InvalidProviderConfig")
        event = store.wait_for_message("InvalidProviderConfig", "169.254.170.23")
        secret.refresh()
        secret.wait_until("SecretSyncedError")

    check("ESO-CRED-NOFALLBACK", what="store", expected="False", observed=condition.status)
    asked = 'Get "http://169.254.170.23/v1/credentials"'
    check("ESO-CRED-NOFALLBACK", what="event", expected=asked, observed=event, holds=asked in event)
    # The former pod may have asked once more before it ended, as itself.
    as_node = [call["operation"] for call in calls.made() if str(call["principal"]).startswith(NODES)]
    check("ESO-CRED-NOFALLBACK", what="calls of the node", expected=[], observed=as_node)


@pytest.fixture
def target(mended: Mended, association: dict[str, Any], lab: Lab, aws: AwsAccount) -> Iterator[str]:
    """A role of account 987654321098 that may read a secret there, and the operator's role may go on to it."""
    assert mended
    account_b = lab.administrator("987654321098")
    trust = (FILES / "target-trust.json").read_text().replace("pod-identity-lab/", f"{association['clusterName']}/")
    with (
        aws.policy("eso-source", (FILES / "source-policy.json").read_text()) as source_policy,
        aws.attached(ROLE_ARN, source_policy),
        account_b.policy("eso-target", (FILES / "target-policy.json").read_text()) as target_policy,
        account_b.role("accountb-eso-role", trust, policies=[target_policy]) as arn,
        account_b.secret("demo/of-account-b", '{"value":"of account B"}', {}),
    ):
        yield arn


@requirement("ESO-CRED-ROLE")
@pytest.mark.usefixtures("restored")
def test_another_account_s_secrets_through_the_target_role(
    target: str, operator: Operator, association: dict[str, Any], aws: AwsAccount, control: Control
) -> None:
    """With targetRoleArn the operator reads account 987654321098; a running pod keeps the role it had."""
    kube, eks = operator.kube, aws.client("eks")
    address = {"clusterName": association["clusterName"], "associationId": association["associationId"]}
    eks.update_pod_identity_association(**address, targetRoleArn=target)
    secret = external_secret(kube, "account-b", "demo/of-account-b", "value")
    before = secret.wait_for_message("UpdateFailed", "Secret does not exist")
    calls = Calls(control)
    operator.restart()
    secret.wait_until("SecretSynced")
    callers = {call["principal"] for call in calls.made() if call["account"] == "987654321098"}
    eks.update_pod_identity_association(**address, targetRoleArn="")

    check(
        "ESO-CRED-ROLE", what="running pod", expected="own account", observed=before, holds="AccessDenied" not in before
    )
    session = SESSION.replace("123456789012", "987654321098").replace("pod-identity-lab-eso-role", "accountb-eso-role")
    are_target = bool(callers) and all(re.fullmatch(session, caller) for caller in callers)
    check("ESO-CRED-ROLE", what="next pod", expected=session, observed=callers, holds=are_target)
    assert secret_data(kube, "account-b", "demo") == {"value": "of account B"}


@requirement("API-609")
def test_target_role_is_for_the_operator_alone(target: str, cluster: Cluster, kube: Kube, aws: AwsAccount) -> None:
    """Another ServiceAccount of its namespace, by the same two roles, comes with another external ID."""
    with aws.association(cluster.name, NAMESPACE, "default", ROLE_ARN, targetRoleArn=target):
        wait_until_admission_injects(kube, NAMESPACE, "default")
        pod = kube.run("another", NAMESPACE, image=IMAGE, service_account="default", command=("sleep", "3600"))
        response = credentials_response(pod.wait_until_ready())
        pod.delete()

    assert response.status == 400
    assert re.fullmatch(NOT_ASSUMED, response.body)
