"""Cross-account access with targetRoleArn: a pod of account 123456789012 is a role of account 987654321098.

The association names two roles. EKS Auth assumes the source role, goes on to the target role with it, and hands out the
target's credentials only. Both accounts have to agree, to sts:AssumeRole and to sts:TagSession.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Generator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from harness.cluster.base import Cluster
from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.kube import Kube, Pod
from harness.lab import Lab
from harness.scenario import (
    NOT_ASSUMED,
    RESTARTS,
    UUID4,
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

pytestmark = pytest.mark.usefixtures("agent_addon")

FIXTURES = Path(__file__).parent.parent / "fixtures"
FILES = FIXTURES / "cross-account"
UNIVERSAL_TRUST = FIXTURES / "s3" / "pod-identity-trust.json"
NAMESPACE = "cross-account"
SOURCE_ROLE_ARN = "arn:aws:iam::123456789012:role/pod-identity-lab-crossacct-source"
SOURCE_POLICY_ARN = "arn:aws:iam::123456789012:policy/crossacct-source"
TARGET_ROLE_ARN = "arn:aws:iam::987654321098:role/accountb-s3-reader"
IMAGE = "amazon/aws-cli:latest"
SLEEP = ("sleep", "3600")


# --- Set-up: a bucket and a role in either account ------------------------------------------------------------------


@pytest.fixture(scope="module")
def account_b(lab: Lab) -> AwsAccount:
    """An administrator of the target's account."""
    return lab.administrator("987654321098")


@pytest.fixture(scope="module")
def buckets(aws: AwsAccount, account_b: AwsAccount) -> Iterator[tuple[str, str]]:
    """One bucket in each account; the target's has a prefix for the namespace, and another."""
    with aws.bucket("accounta-bucket"), account_b.bucket("accountb-bucket"):
        for key in (f"{NAMESPACE}/hello.txt", "elsewhere/hello.txt"):
            account_b.client("s3").put_object(Bucket="accountb-bucket", Key=key, Body=b"Hello from account B!\n")
        yield "accounta-bucket", "accountb-bucket"


@pytest.fixture(scope="module")
def roles(
    aws: AwsAccount, account_b: AwsAccount, cluster: Cluster, buckets: tuple[str, str]
) -> Iterator[tuple[str, str]]:
    """The source role with the universal trust policy, and the target role that trusts it: their ARNs."""
    assert buckets
    with (
        aws.policy("crossacct-source", (FILES / "source-policy.json").read_text()) as source_policy,
        aws.role("pod-identity-lab-crossacct-source", UNIVERSAL_TRUST.read_text(), policies=[source_policy]) as source,
        account_b.policy("accountb-s3-read", (FILES / "target-policy.json").read_text()) as target_policy,
        account_b.role(
            "accountb-s3-reader", read_document(FILES / "target-trust.json", cluster), policies=[target_policy]
        ) as target,
    ):
        yield source, target


@pytest.fixture(scope="module")
def association(kube: Kube, cluster: Cluster, aws: AwsAccount, roles: tuple[str, str]) -> Iterator[dict[str, Any]]:
    """``aws eks create-pod-identity-association … --role-arn … --target-role-arn …``: the record."""
    source, target = roles
    with kube.namespace(NAMESPACE):
        kube.create_service_account("s3-reader", NAMESPACE)
        with aws.association(cluster.name, NAMESPACE, "s3-reader", source, targetRoleArn=target) as record:
            wait_until_admission_injects(kube, NAMESPACE, "s3-reader")
            aws.wait_until_agent_is_active(cluster.name)
            yield record


def run_pod(kube: Kube, name: str) -> Pod:
    """Start another pod of the association; unlike one that was served before, it has nothing in the agent's cache."""
    return kube.run(name, NAMESPACE, image=IMAGE, service_account="s3-reader", command=SLEEP).wait_until_ready()


@pytest.fixture(scope="module")
def pod(kube: Kube, association: dict[str, Any]) -> Pod:
    """``kubectl run s3-test``."""
    assert association
    return run_pod(kube, "s3-test")


@contextlib.contextmanager
def updated(aws: AwsAccount, association: dict[str, Any], **changes: Any) -> Generator[dict[str, Any]]:
    """Run ``aws eks update-pod-identity-association``, yield the new record, put the old values back at the end."""
    address = {"clusterName": association["clusterName"], "associationId": association["associationId"]}
    update = aws.client("eks").update_pod_identity_association
    try:
        yield update(**address, **changes)["association"]
    finally:
        update(**address, **{name: association[name] for name in changes})


# --- The pod is the target role -------------------------------------------------------------------------------------


@requirement("API-602", "API-605")
def test_pod_is_the_target_role(pod: Pod, association: dict[str, Any]) -> None:
    """``aws sts get-caller-identity`` shows the other account, the target role, and a session named as ever."""
    identity = caller_identity(pod)

    external_id = f"eu-west-1/123456789012/{association['clusterName']}/{NAMESPACE}/s3-reader"
    session = rf"eks-{re.escape(association['clusterName'][:10])}-s3-test-{UUID4}"
    assert association["targetRoleArn"] == TARGET_ROLE_ARN
    assert association["externalId"] == external_id
    assert identity["Account"] == "987654321098"
    assert re.fullmatch(rf"arn:aws:sts::987654321098:assumed-role/accountb-s3-reader/{session}", identity["Arn"])


@requirement("API-602", "API-603", "IAM-STS-18")
def test_credentials_last_59_minutes(pod: Pod) -> None:
    """The agent's answer names the target's account and expires within the hour that role chaining allows."""
    response = credentials_response(pod)

    assert response.status == 200
    body = json.loads(response.body)
    left = (datetime.fromisoformat(body["Expiration"]) - datetime.now(UTC)).total_seconds()
    check("API-602", expected="987654321098", observed=body["AccountId"])
    check("API-603", expected="up to 3540 seconds", observed=left, holds=2400 < left <= 3540)
    check("IAM-STS-18", expected="up to 3540 seconds", observed=left, holds=2400 < left <= 3540)


@requirement("API-607")
def test_session_tags_reach_the_target_role(pod: Pod) -> None:
    """The target role's policy uses the namespace tag as a variable: its own prefix is open, another is not."""
    own = pod.exec("aws", "s3", "cp", f"s3://accountb-bucket/{NAMESPACE}/hello.txt", "-")
    listed = pod.exec("aws", "s3", "ls", f"s3://accountb-bucket/{NAMESPACE}/")
    refused = {
        "s3:ListBucket": pod.exec("aws", "s3", "ls", "s3://accountb-bucket/elsewhere/"),
        "s3:GetObject": pod.exec(
            "aws", "s3api", "get-object", "--bucket=accountb-bucket", "--key=elsewhere/hello.txt", "/dev/null"
        ),
    }

    assert own.returncode == 0, own.stderr
    assert own.stdout == "Hello from account B!\n"
    assert listed.returncode == 0, listed.stderr
    assert listed.stdout.endswith(" 22 hello.txt\n")
    for action, done in refused.items():
        assert done.returncode == 254
        assert done.stderr.strip().endswith(f"because no identity-based policy allows the {action} action")


@requirement("API-602")
def test_permissions_of_the_source_role_are_of_no_use(pod: Pod) -> None:
    """What the source role may do in its account the pod may not; across accounts S3 says no more than that."""
    done = pod.exec("aws", "s3", "ls", "s3://accounta-bucket/")

    assert done.returncode == 254
    assert done.stderr.strip() == (
        "An error occurred (AccessDenied) when calling the ListObjectsV2 operation: Access Denied"
    )


@requirement("IAM-STS-15")
def test_target_session_cannot_be_stretched_beyond_an_hour(pod: Pod) -> None:
    """The credentials are those of a role session: whatever is assumed with them lasts an hour at most."""
    done = pod.exec(
        "aws", "sts", "assume-role", f"--role-arn={TARGET_ROLE_ARN}", "--role-session-name=longer",
        "--duration-seconds=3601",
    )  # fmt: skip

    assert done.returncode == 254
    assert done.stderr.strip() == (
        "An error occurred (ValidationError) when calling the AssumeRole operation: "
        "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining"
    )


@requirement("API-601", "API-604")
def test_cloudtrail_has_both_roles(
    pod: Pod, association: dict[str, Any], aws: AwsAccount, account_b: AwsAccount, cluster: Cluster
) -> None:
    """One call of the agent leaves two AssumeRole records: EKS's of the source role, the source role's of the target.

    The second is in both accounts, with the external ID, 59 minutes and the tags that came along.
    """
    session = session_of(caller_identity(pod)["Arn"])
    (chained,) = [record for record in target_records(aws) if record["requestParameters"]["roleSessionName"] == session]
    (there,) = [
        record for record in target_records(account_b) if record["requestParameters"]["roleSessionName"] == session
    ]
    source = chained["userIdentity"]
    (first,) = [
        record
        for record in assume_role_records(aws, SOURCE_ROLE_ARN)
        if record["requestParameters"]["roleSessionName"] == session_of(source["arn"])
    ]

    tags = {
        "eks-cluster-arn": cluster.spec.arn,
        "eks-cluster-name": cluster.name,
        "kubernetes-namespace": NAMESPACE,
        "kubernetes-service-account": "s3-reader",
        "kubernetes-pod-name": "s3-test",
        "kubernetes-pod-uid": pod.read()["metadata"]["uid"],
    }
    check(
        "API-601", what="seconds of the first", expected=21600, observed=first["requestParameters"]["durationSeconds"]
    )
    sent = {tag["key"]: tag["value"] for tag in first["requestParameters"]["tags"]}
    check("API-601", what="tags of the first", expected=tags, observed=sent)
    check(
        "API-601",
        what="who assumed the second",
        expected=SOURCE_ROLE_ARN,
        observed=source["sessionContext"]["sessionIssuer"]["arn"],
    )
    parameters = {
        "roleArn": TARGET_ROLE_ARN,
        "roleSessionName": session,
        "externalId": association["externalId"],
        "durationSeconds": 3540,
        "incomingTransitiveTags": tags,
    }
    check("API-604", expected=parameters, observed=chained["requestParameters"])
    assert chained["sharedEventID"] == there["sharedEventID"]
    assert [chained["recipientAccountId"], there["recipientAccountId"]] == ["123456789012", "987654321098"]
    assert there["userIdentity"] == {
        "type": "AWSAccount",
        "principalId": source["principalId"],
        "accountId": "123456789012",
        "invokedBy": "pods.eks.amazonaws.com",
    }


def target_records(account: AwsAccount) -> list[dict[str, Any]]:
    """Return an account's AssumeRole records about the target role, newest first."""
    return [event.record for event in account.lookup_events(ResourceName=TARGET_ROLE_ARN) if event.name == "AssumeRole"]


# --- Each missing half ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def newcomer(kube: Kube, association: dict[str, Any]) -> Pod:
    """A pod that is refused each time it asks: the agent has nothing for it in its cache."""
    assert association
    return run_pod(kube, "newcomer")


def without(document: str, sid: str) -> str:
    """Return a policy without one of its statements."""
    policy = json.loads(document)
    kept = [statement for statement in policy["Statement"] if statement["Sid"] != sid]
    assert len(kept) == len(policy["Statement"]) - 1
    return json.dumps(policy | {"Statement": kept})


@contextlib.contextmanager
def source_policy(aws: AwsAccount, document: str) -> Generator[None]:
    """Attach this policy to the source role in the place of its own; put that one back at the end."""
    iam = aws.client("iam")
    own = {"RoleName": "pod-identity-lab-crossacct-source", "PolicyArn": SOURCE_POLICY_ARN}
    iam.detach_role_policy(**own)
    try:
        with aws.policy("crossacct-faulty", document) as arn, aws.attached(SOURCE_ROLE_ARN, arn):
            yield
    finally:
        iam.attach_role_policy(**own)


@contextlib.contextmanager
def refused_at_the_second_hop(aws: AwsAccount, action: str) -> Generator[None]:
    """Hold what CloudTrail says of the refusal by the target role meanwhile against STS's words for the session.

    An agent that got no answer in time has asked once more.
    """
    before = {record["eventID"] for record in target_records(aws)}
    yield
    refusals = [record for record in target_records(aws) if record["eventID"] not in before]
    assert refusals
    for refused in refusals:
        source = refused["userIdentity"]["arn"]
        assert "-newcomer-" in source
        assert (refused["errorCode"], refused["errorMessage"]) == (
            "AccessDenied",
            f"User: {source} is not authorized to perform: {action} on resource: {TARGET_ROLE_ARN}",
        )


@requirement("API-606", "API-608")
@pytest.mark.parametrize(
    ("sid", "action"),
    [("GoOnToTheTargetRole", "sts:AssumeRole"), ("TakeTheSessionTagsAlong", "sts:TagSession")],
)
def test_source_role_must_be_allowed_to_go_on(newcomer: Pod, aws: AwsAccount, sid: str, action: str) -> None:
    """Without one of its statements the source role is assumed, gets no further, and the pod gets nothing at all."""
    faulty = without((FILES / "source-policy.json").read_text(), sid)
    with source_policy(aws, faulty), refused_at_the_second_hop(aws, action):
        response = credentials_response(newcomer)

    assert response.status == 400
    assert re.fullmatch(NOT_ASSUMED, response.body)


@requirement("API-606", "API-607", "API-608", "API-609")
@pytest.mark.parametrize(
    ("change", "action"),
    [
        pytest.param(lambda text: without(text, "OnlyForThisServiceAccount"), "sts:AssumeRole", id="no AssumeRole"),
        pytest.param(lambda text: without(text, "WithTheTagsOfThisCluster"), "sts:TagSession", id="no TagSession"),
        pytest.param(lambda text: text.replace("/s3-reader", "/other"), "sts:AssumeRole", id="external ID"),
        pytest.param(lambda text: text.replace(":cluster/", ":cluster/x"), "sts:TagSession", id="cluster"),
        pytest.param(lambda text: text.replace(f'"{NAMESPACE}"', '"other"'), "sts:TagSession", id="namespace"),
    ],
)
def test_target_role_must_trust_the_source_role(
    newcomer: Pod,
    cluster: Cluster,
    aws: AwsAccount,
    account_b: AwsAccount,
    *,
    change: Callable[[str], str],
    action: str,
) -> None:
    """Without one of the statements, or with another's external ID or tags in them, the target role is not assumed."""
    trust = read_document(FILES / "target-trust.json", cluster)
    assert change(trust) != trust
    with account_b.trusting(TARGET_ROLE_ARN, change(trust)), refused_at_the_second_hop(aws, action):
        response = credentials_response(newcomer)

    assert response.status == 400
    assert re.fullmatch(NOT_ASSUMED, response.body)


# --- Changes of the association -------------------------------------------------------------------------------------


@requirement("API-507", "IAM-ABAC-05")
def test_disabled_session_tags_send_none_on_either_hop(
    kube: Kube, association: dict[str, Any], aws: AwsAccount, account_b: AwsAccount, cluster: Cluster
) -> None:
    """With disableSessionTags sts:AssumeRole alone is enough, and what hangs on the tags is closed."""
    trust = without(read_document(FILES / "target-trust.json", cluster), "WithTheTagsOfThisCluster")
    with account_b.trusting(TARGET_ROLE_ARN, trust), updated(aws, association, disableSessionTags=True):
        untagged = run_pod(kube, "untagged")
        arn = caller_identity(untagged)["Arn"]
        listed = untagged.exec("aws", "s3", "ls", f"s3://accountb-bucket/{NAMESPACE}/")

    (chained,) = [
        record for record in target_records(aws) if record["requestParameters"]["roleSessionName"] == session_of(arn)
    ]
    (first,) = [
        record
        for record in assume_role_records(aws, SOURCE_ROLE_ARN)
        if record["requestParameters"]["roleSessionName"] == session_of(chained["userIdentity"]["arn"])
    ]
    assert arn.startswith("arn:aws:sts::987654321098:assumed-role/accountb-s3-reader/")
    without_tags = ["durationSeconds", "roleArn", "roleSessionName"]
    check("API-507", what="first hop", expected=without_tags, observed=sorted(first["requestParameters"]))
    second = sorted(chained["requestParameters"])
    check("API-507", what="second hop", expected=sorted([*without_tags, "externalId"]), observed=second)
    check("IAM-ABAC-05", expected=254, observed=listed.returncode)


@requirement("API-252", "API-257")
def test_target_role_can_be_removed_and_set_again(
    kube: Kube, pod: Pod, association: dict[str, Any], aws: AwsAccount
) -> None:
    """An empty targetRoleArn removes it and the external ID: the next pod is the source role, the running one stays."""
    before = caller_identity(pod)["Arn"]
    with updated(aws, association, targetRoleArn="") as record:
        running = caller_identity(pod)["Arn"]
        next_pod = run_pod(kube, "no-target")
        own = caller_identity(next_pod)["Arn"]
        listed = next_pod.exec("aws", "s3", "ls", "s3://accounta-bucket/")
    set_again = caller_identity(run_pod(kube, "target-again"))["Arn"]

    check("API-252", expected=[], observed=sorted({"targetRoleArn", "externalId"} & set(record)))
    check("API-257", expected=before, observed=running)
    assert own.startswith("arn:aws:sts::123456789012:assumed-role/pod-identity-lab-crossacct-source/eks-")
    assert listed.returncode == 0, listed.stderr
    assert set_again.startswith("arn:aws:sts::987654321098:assumed-role/accountb-s3-reader/eks-")


@requirement("API-257")
def test_another_target_role_is_for_pods_to_come(
    pod: Pod, association: dict[str, Any], aws: AwsAccount, account_b: AwsAccount, cluster: Cluster
) -> None:
    """From one target role to another: the next pod is the other one, the running one stays who it is."""
    trust = read_document(FILES / "target-trust.json", cluster)
    before = caller_identity(pod)["Arn"]
    with (
        account_b.role("accountb-second", trust) as second,
        account_a_may_assume(aws, second),
        updated(aws, association, targetRoleArn=second) as record,
    ):
        running = caller_identity(pod)["Arn"]
        other = caller_identity(run_pod(pod.kube, "other-target"))["Arn"]

    assert record["externalId"] == association["externalId"]
    check("API-257", what="running", expected=before, observed=running)
    expected = "arn:aws:sts::987654321098:assumed-role/accountb-second/eks-…"
    check("API-257", what="next", expected=expected, observed=other, holds=other.startswith(expected[:-1]))


@contextlib.contextmanager
def account_a_may_assume(aws: AwsAccount, role_arn: str) -> Generator[None]:
    """Let the source role go on to another role as well."""
    allowed = {"Effect": "Allow", "Action": ["sts:AssumeRole", "sts:TagSession"], "Resource": role_arn}
    document = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    with aws.policy("crossacct-second", document) as policy_arn, aws.attached(SOURCE_ROLE_ARN, policy_arn):
        yield


# --- What serves dies in the middle ---------------------------------------------------------------------------------


def token_id(pod: Pod) -> str:
    """Return which token a pod has: its ``jti``."""
    token = pod.exec("sh", "-c", 'cat "$AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"').stdout
    return str(decode_token(token)["jti"])


@requirement("API-602")
@pytest.mark.parametrize("what", RESTARTS)
def test_pod_is_still_the_target_role_after_a_restart(
    pod: Pod, lab: Lab, cluster: Cluster, kube: Kube, what: str
) -> None:
    """Agents or API server are killed under the running pod: it is the target role, and so is the next pod.

    Another agent has nothing in its cache, so that both roles are assumed again; the same one has a token's session
    still. The token may be another: where kubelets begin anew with the API server, they ask for one.
    """
    token, before = token_id(pod), caller_identity(pod)["Arn"]
    restart(what, lab, cluster, kube)
    arn, is_same_token = caller_identity(pod)["Arn"], token_id(pod) == token
    of_next = caller_identity(run_pod(kube, f"after-{what.replace(' ', '-').lower()}"))["Arn"]

    expected = "arn:aws:sts::987654321098:assumed-role/accountb-s3-reader/eks-…"
    check("API-602", expected=expected, observed=arn, holds=arn.startswith(expected.removesuffix("…")))
    check("API-602", what="next pod", expected=expected, observed=of_next, holds=of_next.startswith(expected[:-1]))
    if what == "agent":
        assert arn != before
    elif is_same_token:
        assert arn == before


@requirement("API-602")
def test_pod_from_an_outage_of_admission_is_nobody(kube: Kube, association: dict[str, Any]) -> None:
    """Created while no webhook runs, a pod is admitted as it is, counted, and nobody; made again, the target role."""
    assert association
    with without_webhook(kube) as passed_over_since:
        orphan = run_pod(kube, "orphan")
        counted = passed_over_since()
    told = orphan.exec("aws", "sts", "get-caller-identity")
    variables = [name for name in orphan.environment() if name.startswith("AWS_")]
    wait_until_admission_injects(kube, NAMESPACE, "s3-reader")
    orphan.delete()
    arn = caller_identity(run_pod(kube, "orphan"))["Arn"]

    assert (counted, variables) == (1, [])
    assert told.stderr.strip().startswith("Unable to locate credentials"), told.stdout
    expected = "arn:aws:sts::987654321098:assumed-role/accountb-s3-reader/eks-…"
    check("API-602", expected=expected, observed=arn, holds=arn.startswith(expected[:-1]))
