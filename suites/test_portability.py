"""Portability: two clusters, one role ARN, the same namespace and ServiceAccount, and not a word of IAM edited between.

The second cluster is a real one beside the first, with keys and an issuer of its own; it is raised when a scenario of
this file is selected.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.cluster.base import Cluster
from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.kube import Kube, Pod, pod_manifest
from harness.lab import Lab
from harness.scenario import (
    NOT_BY_WEB_IDENTITY,
    RESTARTS,
    AwsAccount,
    assume_role_records,
    caller_identity,
    credentials_response,
    decode_token,
    read_document,
    restart,
    session_of,
    wait_until_admission_injects,
    without_webhook,
)

FIXTURES = Path(__file__).parent.parent / "fixtures"
FILES = FIXTURES / "portability"
S3_FILES = FIXTURES / "s3"
BUCKET = "portability-bucket"
ANOTHER_AUDIENCE = "vault.example.com"
ROLE = "portability-s3-reader-role"
NAMESPACE = "portability"
IMAGE = "amazon/aws-cli:latest"
SLEEP = ("sleep", "3600")
TOKEN_FILE = "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount/eks-pod-identity-token"


# --- Set-up: one role, two clusters ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def role_arn(aws: AwsAccount) -> Iterator[str]:
    """The S3 walkthrough's bucket, policy and role; made once, for however many clusters."""
    policy = (S3_FILES / "s3-read-policy.json").read_text().replace("my-app-bucket", BUCKET)
    with aws.bucket(BUCKET):
        aws.client("s3").put_object(Bucket=BUCKET, Key="hello.txt", Body=b"Hello from Pod Identity!\n")
        with (
            aws.policy("portability-s3-read", policy) as policy_arn,
            aws.role(ROLE, (S3_FILES / "pod-identity-trust.json").read_text(), policies=[policy_arn]) as arn,
        ):
            yield arn


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two clusters."""

    cluster: Cluster
    kube: Kube

    @property
    def name(self) -> str:
        return self.cluster.name

    def run_pod(self, name: str, service_account: str) -> Pod:
        """``kubectl --context … run``, without waiting."""
        return self.kube.run(name, NAMESPACE, image=IMAGE, service_account=service_account, command=SLEEP)


@pytest.fixture(scope="module")
def sides(cluster: Cluster, kube: Kube, second_cluster: Cluster, second_kube: Kube) -> Iterator[tuple[Side, Side]]:
    """Both clusters, with the same namespace in each."""
    with kube.namespace(NAMESPACE), second_kube.namespace(NAMESPACE):
        yield Side(cluster, kube), Side(second_cluster, second_kube)


@pytest.fixture(scope="module")
def pods(sides: tuple[Side, Side], aws: AwsAccount, role_arn: str) -> Iterator[tuple[Pod, Pod]]:
    """The add-on, the ServiceAccount, the association and ``kubectl run s3-test`` on one cluster, then on the other."""
    first, second = sides
    with (
        aws.association(first.name, NAMESPACE, "s3-reader", role_arn),
        aws.association(second.name, NAMESPACE, "s3-reader", role_arn),
    ):
        for side in sides:
            aws.create_agent_addon(side.name)
            side.kube.create_service_account("s3-reader", NAMESPACE)
            wait_until_admission_injects(side.kube, NAMESPACE, "s3-reader")
        here, there = (side.run_pod("s3-test", "s3-reader") for side in sides)
        for side in sides:
            aws.wait_until_agent_is_active(side.name)
        yield here.wait_until_ready(), there.wait_until_ready()


# --- The same role on both ------------------------------------------------------------------------------------------


@requirement("API-509", "API-502", "API-501")
def test_both_clusters_assume_the_role_and_read_the_bucket(
    pods: tuple[Pod, Pod], sides: tuple[Side, Side], aws: AwsAccount
) -> None:
    """Caller identity and listing of both pods: the same role, different session UUIDs, the same bucket."""
    first, second = (caller_identity(pod) for pod in pods)
    listings = [pod.exec("aws", "s3", "ls", f"s3://{BUCKET}/") for pod in pods]

    trust = aws.client("iam").get_role(RoleName=ROLE)["Role"]["AssumeRolePolicyDocument"]
    universal = json.loads((S3_FILES / "pod-identity-trust.json").read_text())
    roles = [first["Arn"].rpartition("/")[0], second["Arn"].rpartition("/")[0]]
    check("API-509", what="trust policy", expected=universal, observed=trust)
    check("API-509", expected=[f"arn:aws:sts::123456789012:assumed-role/{ROLE}"] * 2, observed=roles)
    check("API-509", what="listings", expected=[0, 0], observed=[done.returncode for done in listings])
    assert all(re.fullmatch(r"[\d-]{10} [\d:]{8} +25 hello\.txt\n", done.stdout) for done in listings)
    sessions = [session_of(first["Arn"]), session_of(second["Arn"])]
    prefixes = [f"eks-{side.name[:10]}-s3-test-" for side in sides]
    check("API-501", expected=prefixes, observed=[name[:-36] for name in sessions])
    uuids = {name[-36:] for name in sessions}
    check("API-502", expected="two UUIDs", observed=sorted(uuids), holds=len(uuids) == 2)


@requirement("API-504", "API-812", "API-815")
def test_cloudtrail_tells_the_clusters_apart(pods: tuple[Pod, Pod], sides: tuple[Side, Side], aws: AwsAccount) -> None:
    """STS's records differ in the cluster's tags and the pod's uid; EKS Auth's name the cluster and its node."""
    clusters = [side.cluster for side in sides]
    tags = [tags_of(aws, caller_identity(pod)["Arn"]) for pod in pods]
    calls = {
        event.record["requestParameters"]["clusterName"]: event.username
        for event in aws.lookup_events(EventName="AssumeRoleForPodIdentity")
    }

    uids = [pod.read()["metadata"]["uid"] for pod in pods]
    expected = [
        {
            "eks-cluster-arn": one.spec.arn,
            "eks-cluster-name": one.name,
            "kubernetes-namespace": NAMESPACE,
            "kubernetes-service-account": "s3-reader",
            "kubernetes-pod-name": "s3-test",
            "kubernetes-pod-uid": uid,
        }
        for one, uid in zip(clusters, uids, strict=True)
    ]
    nodes = {one.name: [node.instance_id for node in one.nodes] for one in clusters}
    seen = {name: calls.get(name) for name in nodes}
    from_there = all(seen[name] in instances for name, instances in nodes.items())
    check("API-504", expected=expected, observed=tags)
    check("API-815", what="pods", expected=uids, observed=[one["kubernetes-pod-uid"] for one in tags])
    check("API-812", expected=nodes, observed=seen, holds=from_there)


def tags_of(aws: AwsAccount, arn: str) -> dict[str, str]:
    """Return the session tags that STS recorded when a session was made."""
    (record,) = [
        found for found in assume_role_records(aws) if found["requestParameters"]["roleSessionName"] == session_of(arn)
    ]
    return {tag["key"]: tag["value"] for tag in record["requestParameters"]["tags"]}


@requirement("IAM-ABAC-07")
def test_policy_on_the_cluster_tag_parts_the_clusters(
    pods: tuple[Pod, Pod], sides: tuple[Side, Side], aws: AwsAccount, role_arn: str
) -> None:
    """What one role may do differs between clusters as soon as a policy asks for eks-cluster-name."""
    document = (FILES / "not-on-this-cluster-policy.json").read_text().replace("pod-identity-lab-2", sides[1].name)
    with aws.policy("portability-not-there", document) as policy_arn, aws.attached(role_arn, policy_arn):
        here, there = (pod.exec("aws", "s3", "ls", f"s3://{BUCKET}/") for pod in pods)

    assert (here.returncode, there.returncode) == (0, 254)
    assert there.stderr.strip().endswith(
        'is not authorized to perform: s3:ListBucket on resource: "arn:aws:s3:::portability-bucket" '
        "with an explicit deny in an identity-based policy"
    )


# --- A cluster's tokens and associations are its own ----------------------------------------------------------------


@requirement("API-407", "API-423", "AGT-260")
def test_token_of_one_cluster_is_refused_on_the_other(pods: tuple[Pod, Pod], sides: tuple[Side, Side]) -> None:
    """Namespace, ServiceAccount and pod name agree, and both clusters have the association: the issuer decides."""
    here, there = pods
    token = here.exec("cat", TOKEN_FILE).stdout
    copied = there.exec("sh", "-c", 'printf %s "$0" > /tmp/token-of-the-first-cluster', token)

    foreign = credentials_response(there, token_file="/tmp/token-of-the-first-cluster")
    own = credentials_response(there)

    assert copied.returncode == 0, copied.stderr
    issuers = [side.cluster.spec.issuer for side in sides]
    assert decode_token(token)["iss"] == issuers[0] != issuers[1]
    assert foreign.status == 400
    assert re.match(r"\[[0-9a-f-]{36}\]: \(InvalidTokenException\): ", foreign.body)
    assert own.status == 200


@requirement("WHK-201", "API-413")
def test_association_of_one_cluster_counts_there_only(sides: tuple[Side, Side], aws: AwsAccount, role_arn: str) -> None:
    """An association is a matter of one cluster: in the other one neither admission nor EKS Auth knows of it."""
    here, there = sides
    for side in sides:
        side.kube.create_service_account("one-cluster", NAMESPACE)
        side.kube.create_service_account("control", NAMESPACE)
    with (
        aws.association(here.name, NAMESPACE, "one-cluster", role_arn),
        aws.association(there.name, NAMESPACE, "control", role_arn),
    ):
        wait_until_admission_injects(here.kube, NAMESPACE, "one-cluster")
        # Made after the other: once the second cluster's admission knows it, it would know both.
        wait_until_admission_injects(there.kube, NAMESPACE, "control")
        admitted = there.kube.dry_run("one", NAMESPACE, image=IMAGE, service_account="one-cluster", command=SLEEP)
        by_hand = [run_with_variables(side.kube, "one-cluster") for side in sides]
        responses = [credentials_response(pod) for pod in by_hand]

    (container,) = admitted["spec"]["containers"]
    check("WHK-201", expected=[], observed=container.get("env", []))
    check("API-413", what="here", expected=200, observed=responses[0].status)
    check("API-413", what="there", expected=404, observed=responses[1].status)
    assert "(ResourceNotFoundException): No pod identity association found" in responses[1].body


def run_with_variables(kube: Kube, account: str) -> Pod:
    """Run a pod that has by its own manifest what admission gives: the variables, and a token for EKS."""
    directory = "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount"
    variables = {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.23/v1/credentials",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": f"{directory}/eks-pod-identity-token",
    }
    token = {"audience": "pods.eks.amazonaws.com", "expirationSeconds": 86400, "path": "eks-pod-identity-token"}
    container = {
        "name": "by-hand",
        "image": IMAGE,
        "command": list(SLEEP),
        "env": [{"name": name, "value": value} for name, value in variables.items()],
        "volumeMounts": [{"name": "by-hand", "mountPath": directory, "readOnly": True}],
    }
    manifest = pod_manifest("by-hand", IMAGE, account, SLEEP, {"containers": [container]})
    manifest["spec"]["volumes"] = [{"name": "by-hand", "projected": {"sources": [{"serviceAccountToken": token}]}}]
    manifest["metadata"]["labels"]["eks.amazonaws.com/skip-pod-identity-webhook"] = "true"
    kube.core.create_namespaced_pod(NAMESPACE, manifest)
    return kube.pod("by-hand", NAMESPACE).wait_until_ready()


@requirement("API-509")
@pytest.mark.usefixtures("pods")
def test_an_outage_of_admission_is_one_cluster_s(sides: tuple[Side, Side]) -> None:
    """While one cluster has no webhook, a new pod there is admitted, counted, and nobody; the other's is the role's."""
    here, there = sides
    with without_webhook(there.kube) as passed_over_since:
        orphan, served = there.run_pod("orphan", "s3-reader"), here.run_pod("served", "s3-reader")
        told = orphan.wait_until_ready().exec("aws", "sts", "get-caller-identity")
        arn = caller_identity(served.wait_until_ready())["Arn"]
        counted = passed_over_since()

    assert counted == 1
    assert [name for name in orphan.environment() if name.startswith("AWS_")] == []
    assert told.stderr.strip().startswith("Unable to locate credentials"), told.stdout
    expected = f"arn:aws:sts::123456789012:assumed-role/{ROLE}/eks-…"
    check("API-509", what="the other cluster", expected=expected, observed=arn, holds=arn.startswith(expected[:-1]))


@requirement("API-509")
@pytest.mark.parametrize("what", RESTARTS)
def test_one_cluster_s_servers_are_killed_and_both_pods_read_on(
    pods: tuple[Pod, Pod], sides: tuple[Side, Side], lab: Lab, what: str
) -> None:
    """Agents or API server of one cluster are killed: neither its own pod nor the other's notices."""
    restart(what, lab, sides[1].cluster, sides[1].kube)
    listings = [pod.exec("aws", "s3", "ls", f"s3://{BUCKET}/") for pod in pods]

    check("API-509", expected=[(0, "")] * 2, observed=[(done.returncode, done.stderr) for done in listings])


# --- The counter-example: IRSA --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def irsa_role_arn(sides: tuple[Side, Side], aws: AwsAccount, role_arn: str) -> Iterator[str]:
    """A role that trusts the first cluster's issuer; IAM knows both issuers."""
    assert role_arn
    here, there = (side.cluster for side in sides)
    trust = read_document(FILES / "irsa-trust.json", here)
    policy_arn = "arn:aws:iam::123456789012:policy/portability-s3-read"
    with (
        aws.oidc_provider(here.spec.issuer, ("sts.amazonaws.com", ANOTHER_AUDIENCE)),
        aws.oidc_provider(there.spec.issuer),
        aws.role("portability-irsa", trust, policies=[policy_arn]) as arn,
    ):
        yield arn


@requirement("API-706", "API-721")
def test_irsa_trust_is_for_one_service_account_and_audience(
    sides: tuple[Side, Side], aws: AwsAccount, irsa_role_arn: str
) -> None:
    """Its conditions shut out another ServiceAccount, and another audience that the provider would take."""
    kube = sides[0].kube
    kube.create_service_account("trusted", NAMESPACE)
    trust = read_document(FILES / "irsa-trust.json", sides[0].cluster)
    with aws.trusting(irsa_role_arn, trust.replace(":irsa", ":trusted")):
        own, another_audience = (
            aws.web_identity_refusal(irsa_role_arn, kube.token("trusted", NAMESPACE, audience))
            for audience in ("sts.amazonaws.com", ANOTHER_AUDIENCE)
        )
        another_account = aws.web_identity_refusal(irsa_role_arn, kube.token("default", NAMESPACE, "sts.amazonaws.com"))

    check("API-706", expected="", observed=own)
    check("API-721", what="audience", expected=NOT_BY_WEB_IDENTITY, observed=another_audience)
    check("API-721", what="ServiceAccount", expected=NOT_BY_WEB_IDENTITY, observed=another_account)


@requirement("API-705", "API-706", "API-721")
def test_irsa_needs_a_trust_policy_for_each_issuer(
    sides: tuple[Side, Side], aws: AwsAccount, irsa_role_arn: str
) -> None:
    """The same role serves the second cluster's pods only after its trust policy was edited to name their issuer."""
    for side in sides:
        side.kube.create_service_account("irsa", NAMESPACE, {"eks.amazonaws.com/role-arn": irsa_role_arn})
        wait_until_admission_injects(side.kube, NAMESPACE, "irsa", "AWS_ROLE_ARN")
    here, there = [side.run_pod("irsa", "irsa") for side in sides]
    both = json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                json.loads(read_document(FILES / "irsa-trust.json", side.cluster))["Statement"][0] for side in sides
            ],
        }
    )

    first = caller_identity(here.wait_until_ready())["Arn"]
    refused = there.wait_until_ready().exec("aws", "sts", "get-caller-identity")
    with aws.trusting(irsa_role_arn, both):
        edited = caller_identity(there)["Arn"]

    assert first.startswith("arn:aws:sts::123456789012:assumed-role/portability-irsa/botocore-session-")
    assert refused.returncode == 254
    assert refused.stderr.strip() == (
        "An error occurred (AccessDenied) when calling the AssumeRoleWithWebIdentity operation: "
        "Not authorized to perform sts:AssumeRoleWithWebIdentity"
    )
    assert edited.startswith("arn:aws:sts::123456789012:assumed-role/portability-irsa/botocore-session-")
