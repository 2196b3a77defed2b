"""Hello Pod Identity: the article's S3 walkthrough, step by step, and what must not work beside it.

A bucket, a policy, a role with the universal trust policy, a ServiceAccount without annotations, an association, a pod.
Names, files and outputs are the article's.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from harness import limits, wait
from harness.cluster.base import Cluster
from harness.conformance.marks import requirement
from harness.conformance.recording import Evidence, attach, check
from harness.kube import Kube, Pod
from harness.lab import Lab
from harness.scenario import (
    UUID4,
    AwsAccount,
    admitted_variables,
    assume_role_records,
    credentials_response,
    credentials_uri,
    decode_token,
    kill_agents,
    wait_until_admission_injects,
    wait_until_admission_leaves_alone,
    wait_until_let_in,
    without_agent,
)

pytestmark = [pytest.mark.usefixtures("agent_addon"), pytest.mark.on_aws]

FILES = Path(__file__).parent.parent / "fixtures" / "s3"
BUCKET = "my-app-bucket"
ROLE = "pod-identity-lab-s3-reader-role"
IMAGE = "amazon/aws-cli:latest"
SLEEP = ("sleep", "3600")
TOKEN_DIRECTORY = "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount"
TOKEN_FILE = f"{TOKEN_DIRECTORY}/eks-pod-identity-token"
SESSION_TAGS = [
    "eks-cluster-arn",
    "eks-cluster-name",
    "kubernetes-namespace",
    "kubernetes-service-account",
    "kubernetes-pod-name",
    "kubernetes-pod-uid",
]


# --- The walkthrough's set-up, in the article's order ---------------------------------------------------------------


@pytest.fixture(scope="module")
def bucket(aws: AwsAccount) -> Iterator[str]:
    """``aws s3 mb`` and ``aws s3 cp``."""
    with aws.bucket(BUCKET) as name:
        aws.client("s3").put_object(Bucket=name, Key="hello.txt", Body=b"Hello from Pod Identity!\n")
        yield name


@pytest.fixture(scope="module")
def role_arn(aws: AwsAccount, bucket: str) -> Iterator[str]:
    """``aws iam create-policy``, ``create-role`` and ``attach-role-policy``."""
    assert bucket
    with (
        aws.policy("pod-identity-lab-s3-read", (FILES / "s3-read-policy.json").read_text()) as policy_arn,
        aws.role(ROLE, (FILES / "pod-identity-trust.json").read_text(), policies=[policy_arn]) as arn,
    ):
        yield arn


@pytest.fixture(scope="module")
def demo(kube: Kube) -> Iterator[str]:
    """``kubectl create namespace demo`` and its ServiceAccount, without annotations."""
    with kube.namespace("demo") as namespace:
        kube.create_service_account("s3-reader", namespace)
        yield namespace


@pytest.fixture(scope="module")
def association(cluster: Cluster, aws: AwsAccount, demo: str, role_arn: str) -> Iterator[dict[str, object]]:
    """``aws eks create-pod-identity-association``: the record it returns."""
    with aws.association(cluster.name, demo, "s3-reader", role_arn) as record:
        yield record


@pytest.fixture(scope="module")
def s3_test(kube: Kube, cluster: Cluster, aws: AwsAccount, bucket: str, association: dict[str, str]) -> Iterator[Pod]:
    """``kubectl run s3-test``: a pod that was admitted after the association became known to admission."""
    demo = association["namespace"]
    wait_until_admission_injects(kube, demo, "s3-reader")
    pod = kube.run("s3-test", demo, image=IMAGE, service_account="s3-reader", command=SLEEP)
    aws.wait_until_agent_is_active(cluster.name)
    pod.wait_until_ready()
    wait_until_let_in(aws, pod, "aws", "s3", "ls", f"s3://{bucket}/")
    yield pod


# --- What the walkthrough shows -------------------------------------------------------------------------------------


@requirement("API-201", "API-202", "API-203", "API-204", "API-231")
def test_association_is_returned_as_the_article_prints_it(
    cluster: Cluster, aws: AwsAccount, association: dict[str, object], role_arn: str
) -> None:
    """Create returns the whole record, unset members left out, and Describe returns the same at once."""
    described = aws.client("eks").describe_pod_identity_association(
        clusterName=cluster.name, associationId=association["associationId"]
    )["association"]

    assert list(association) == [
        "clusterName",
        "namespace",
        "serviceAccount",
        "roleArn",
        "associationArn",
        "associationId",
        "tags",
        "createdAt",
        "modifiedAt",
        "disableSessionTags",
    ]
    identifier = str(association["associationId"])
    assert re.fullmatch(r"a-[a-z0-9]{17}", identifier)
    assert association["associationArn"] == (
        f"arn:aws:eks:{cluster.spec.region}:{cluster.spec.account}:podidentityassociation/{cluster.name}/{identifier}"
    )
    assert (association["clusterName"], association["namespace"]) == (cluster.name, "demo")
    assert (association["serviceAccount"], association["roleArn"]) == ("s3-reader", role_arn)
    assert (association["tags"], association["disableSessionTags"]) == (aws.tags, False)
    assert association["createdAt"] == association["modifiedAt"]
    assert described == association


@requirement("WHK-201", "WHK-301", "WHK-309", "WHK-503", "WHK-505")
def test_pod_gets_the_five_variables_in_order(s3_test: Pod, demo: str, kube: Kube, cluster: Cluster) -> None:
    """The container has exactly the five variables, in the webhook's order; its account has no annotation."""
    account = kube.read("v1", "ServiceAccount", "s3-reader", demo)
    printed = s3_test.exec("env").stdout.splitlines()

    assert "annotations" not in account["metadata"]
    assert list(admitted_variables(s3_test).items()) == [
        ("AWS_STS_REGIONAL_ENDPOINTS", "regional"),
        ("AWS_DEFAULT_REGION", cluster.spec.region),
        ("AWS_REGION", cluster.spec.region),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", credentials_uri(cluster)),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", TOKEN_FILE),
    ]
    assert len([line for line in printed if line.startswith("AWS_")]) == 5
    assert s3_test.read()["metadata"]["labels"]["eks.amazonaws.com/pod-identity"] == "enabled"


@requirement("WHK-304", "WHK-306", "WHK-315", "WHK-519")
def test_pod_gets_the_projected_token_volume(s3_test: Pod) -> None:
    """The first volume projects one token for pods.eks.amazonaws.com that lives 22 to 24 hours, mounted read-only."""
    spec = s3_test.read()["spec"]

    volume = spec["volumes"][0]
    (source,) = volume["projected"]["sources"]
    lifetime = source["serviceAccountToken"].pop("expirationSeconds")
    token = {"serviceAccountToken": {"audience": "pods.eks.amazonaws.com", "path": "eks-pod-identity-token"}}
    mount = {"name": "eks-pod-identity-token", "readOnly": True, "mountPath": TOKEN_DIRECTORY}
    mounts = spec["containers"][0]["volumeMounts"]
    check("WHK-304", expected=("eks-pod-identity-token", token), observed=(volume["name"], source))
    check("WHK-306", expected="79200 to 86400", observed=lifetime, holds=79200 <= lifetime <= 86400)
    check("WHK-315", expected=f"among them {mount}", observed=mounts, holds=mount in mounts)
    check("WHK-519", expected="0644", observed=f"{volume['projected']['defaultMode']:04o}")


@requirement("API-323", "API-410", "WHK-304")
def test_token_says_who_the_pod_is(s3_test: Pod, cluster: Cluster, aws: AwsAccount) -> None:
    """The token file is a link into ..data and holds a JWT of this pod for this audience, from the cluster's issuer."""
    link = s3_test.exec("readlink", TOKEN_FILE).stdout.strip()
    mode = s3_test.exec("stat", "--dereference", "--format=%a", TOKEN_FILE).stdout.strip()
    claims = decode_token(s3_test.exec("cat", TOKEN_FILE).stdout)
    pod = s3_test.read()
    issuer = aws.client("eks").describe_cluster(name=cluster.name)["cluster"]["identity"]["oidc"]["issuer"]

    assert link == "..data/eks-pod-identity-token"
    assert mode == "644"
    assert claims["aud"] == ["pods.eks.amazonaws.com"]
    assert claims["sub"] == "system:serviceaccount:demo:s3-reader"
    assert claims["iss"] == issuer == cluster.spec.issuer
    assert claims["kubernetes.io"]["namespace"] == "demo"
    assert claims["kubernetes.io"]["serviceaccount"]["name"] == "s3-reader"
    assert claims["kubernetes.io"]["pod"] == {"name": "s3-test", "uid": pod["metadata"]["uid"]}
    wanted = pod["spec"]["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"]
    assert claims["exp"] - claims["iat"] == wanted


@requirement("WHK-515")
def test_token_is_readable_by_the_group_of_a_pod_with_fsgroup(kube: Kube, demo: str, s3_test: Pod) -> None:
    """With fsGroup the token file belongs to that group and no longer to everyone: kubelet does it, not the webhook."""
    assert s3_test
    overrides = {"securityContext": {"fsGroup": 2000}}
    pod = kube.run(
        "fs-group", demo, image=IMAGE, service_account="s3-reader", command=SLEEP, overrides=overrides
    ).wait_until_ready()

    assert pod.exec("stat", "--dereference", "--format=%a %g", TOKEN_FILE).stdout.strip() == "640 2000"
    assert pod.read()["spec"]["securityContext"] == {"fsGroup": 2000}


@requirement("AGT-801", "AGT-803", "AGT-805", "API-305", "API-306")
def test_addon_runs_the_agent_on_every_node(kube: Kube, cluster: Cluster, aws: AwsAccount) -> None:
    """The add-on deploys the agent's DaemonSet, unprivileged, and is active once it is ready on every node."""
    aws.wait_until_agent_is_active(cluster.name)

    addon = aws.client("eks").describe_addon(clusterName=cluster.name, addonName="eks-pod-identity-agent")["addon"]
    daemon_set = kube.read("apps/v1", "DaemonSet", "eks-pod-identity-agent", "kube-system")

    status, pod = daemon_set["status"], daemon_set["spec"]["template"]["spec"]
    containers = pod["initContainers"] + pod["containers"]
    assert addon["status"] == "ACTIVE"
    assert re.fullmatch(aws.agent_versions, addon["addonVersion"])
    assert status["numberReady"] == status["desiredNumberScheduled"] == len(cluster.nodes)
    assert pod["hostNetwork"] is True
    assert pod["containers"][0]["args"][:6] == ["--port", "80", "--cluster-name", cluster.name, "--probe-port", "2703"]
    assert not any(container.get("securityContext", {}).get("privileged") for container in containers)


@requirement("AGT-238", "API-402", "API-501", "API-514")
def test_caller_identity_is_the_associated_role(s3_test: Pod, cluster: Cluster, role_arn: str, aws: AwsAccount) -> None:
    """``aws sts get-caller-identity`` in the pod prints the role's session, named after cluster and pod."""
    done = s3_test.exec("aws", "sts", "get-caller-identity")

    role_id = aws.client("iam").get_role(RoleName=ROLE)["Role"]["RoleId"]
    assert done.returncode == 0, done.stderr
    identity = json.loads(done.stdout)
    session = rf"eks-{re.escape(cluster.name[:10])}-s3-test-{UUID4}"
    assert re.fullmatch(rf"{role_id}:{session}", identity["UserId"])
    assert identity["Account"] == cluster.spec.account
    role_name = role_arn.rpartition("/")[2]
    assert re.fullmatch(rf"arn:aws:sts::{cluster.spec.account}:assumed-role/{role_name}/{session}", identity["Arn"])


@requirement("AGT-230", "AGT-231", "AGT-233", "API-503")
def test_agent_answers_with_six_hour_credentials(s3_test: Pod, cluster: Cluster) -> None:
    """The agent's answer is five-key JSON of the role's account, valid for six hours from its issue."""
    response = credentials_response(s3_test)

    check("AGT-230", expected=(200, "application/json"), observed=(response.status, response.content_type))
    body = json.loads(response.body)
    members = ["AccessKeyId", "SecretAccessKey", "Token", "AccountId", "Expiration"]
    check("AGT-231", expected=members, observed=list(body))
    check("AGT-233", expected=cluster.spec.account, observed=body["AccountId"])
    left = datetime.fromisoformat(body["Expiration"]) - datetime.now(UTC)
    # Cached by the agent for a while, so less than six hours by the age of the session.
    check("API-503", expected="5 to 6 hours left", observed=str(left), holds=18000 < left.total_seconds() <= 21600)


@requirement("IAM-S3-01", "IAM-GATE-01")
def test_pod_lists_the_bucket(s3_test: Pod, bucket: str) -> None:
    """``aws s3 ls`` prints the object with its size."""
    done = s3_test.exec("aws", "s3", "ls", f"s3://{bucket}/")

    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d +25 hello\.txt\n", done.stdout)


@requirement("IAM-S3-02", "IAM-GATE-01")
def test_pod_reads_the_object(s3_test: Pod, bucket: str) -> None:
    """``aws s3 cp … -`` prints the object."""
    done = s3_test.exec("aws", "s3", "cp", f"s3://{bucket}/hello.txt", "-")

    assert done.returncode == 0, done.stderr
    assert done.stdout == "Hello from Pod Identity!\n"


@requirement("API-801", "API-804", "API-805", "API-812")
def test_cloudtrail_has_the_call_but_not_the_pod(s3_test: Pod, cluster: Cluster, aws: AwsAccount) -> None:
    """The AssumeRoleForPodIdentity record is the node role's, hides the token and names no pod, account or role."""
    assert s3_test.exec("aws", "sts", "get-caller-identity").returncode == 0
    newest, *_ = [
        event
        for event in aws.lookup_events(EventName="AssumeRoleForPodIdentity")
        if event.record["requestParameters"]["clusterName"] == cluster.name
    ]

    assert newest.record["eventSource"] == "eks-auth.amazonaws.com"
    assert newest.record["userIdentity"]["type"] == "AssumedRole"
    assert newest.record["userIdentity"]["arn"].endswith(f"/{newest.username}")
    assert newest.record["requestParameters"] == {
        "clusterName": cluster.name,
        "token": "HIDDEN_DUE_TO_SECURITY_REASONS",
    }
    assert newest.record["responseElements"] is None
    assert newest.username in {node.instance_id for node in cluster.nodes}
    assert newest.resources == [("AWS::EKS::Cluster", cluster.name)]


@requirement("API-504", "API-505", "API-811", "API-813", "API-815")
def test_cloudtrail_says_which_pod_assumed_the_role(
    s3_test: Pod, cluster: Cluster, aws: AwsAccount, role_arn: str
) -> None:
    """STS's AssumeRole record of the pod's session has the role, six hours, and the six transitive session tags."""
    identity = json.loads(s3_test.exec("aws", "sts", "get-caller-identity").stdout)
    (record,) = [
        record
        for record in assume_role_records(aws)
        if record["requestParameters"]["roleSessionName"] in identity["Arn"]
    ]

    parameters = record["requestParameters"]
    assert record["userIdentity"] == {"type": "AWSService", "invokedBy": "pods.eks.amazonaws.com"}
    assert parameters["roleArn"] == role_arn
    assert parameters["durationSeconds"] == 21600
    assert [tag["key"] for tag in parameters["tags"]] == SESSION_TAGS
    assert [tag["value"] for tag in parameters["tags"]] == [
        cluster.spec.arn,
        cluster.name,
        "demo",
        "s3-reader",
        "s3-test",
        s3_test.read()["metadata"]["uid"],
    ]
    assert parameters["transitiveTagKeys"] == SESSION_TAGS


# --- The shadows: the same, with one thing wrong --------------------------------------------------------------------


@requirement("WHK-111", "WHK-202")
def test_account_without_association_gets_nothing(kube: Kube, demo: str, s3_test: Pod) -> None:
    """A pod of another ServiceAccount in the same namespace is left alone."""
    assert s3_test
    kube.create_service_account("other", demo)

    pod = kube.dry_run("other", demo, image=IMAGE, service_account="other", command=SLEEP)

    assert "env" not in pod["spec"]["containers"][0]
    assert not any(volume["name"] == "eks-pod-identity-token" for volume in pod["spec"]["volumes"])


@requirement("WHK-205", "API-112")
def test_association_with_the_wrong_case_matches_nothing(
    kube: Kube, demo: str, cluster: Cluster, aws: AwsAccount, role_arn: str
) -> None:
    """Names compare exactly: an association for Upper-Case does nothing for pods of upper-case."""
    kube.create_service_account("upper-case", demo)
    kube.create_service_account("control", demo)
    with (
        aws.association(cluster.name, demo, "Upper-Case", role_arn),
        aws.association(cluster.name, demo, "control", role_arn),
    ):
        # Published after the wrong one: once admission knows it, it knows both.
        wait_until_admission_injects(kube, demo, "control")

        pod = kube.dry_run("upper-case", demo, image=IMAGE, service_account="upper-case", command=SLEEP)

    assert "env" not in pod["spec"]["containers"][0]


@requirement("IAM-EVAL-02", "IAM-MSG-01", "IAM-MSG-02", "IAM-MSG-03")
def test_object_outside_the_policy_is_denied(s3_test: Pod, aws: AwsAccount) -> None:
    """Reading another bucket is refused in AWS's words, which name session, action and object."""
    with aws.bucket("another-bucket") as name:
        aws.client("s3").put_object(Bucket=name, Key="secret.txt", Body=b"not for you")
        arn = json.loads(s3_test.exec("aws", "sts", "get-caller-identity").stdout)["Arn"]

        read = s3_test.exec("aws", "s3api", "get-object", f"--bucket={name}", "--key=secret.txt", "/dev/stdout")
        listed = s3_test.exec("aws", "s3", "ls", f"s3://{name}/")

    assert (read.returncode, listed.returncode) == (254, 254)
    assert "not for you" not in read.stdout
    assert listed.stderr.strip() == (
        "An error occurred (AccessDenied) when calling the ListObjectsV2 operation: "
        f"User: {arn} is not authorized to perform: s3:ListBucket "
        f'on resource: "arn:aws:s3:::{name}" '
        "because no identity-based policy allows the s3:ListBucket action"
    )
    assert read.stderr.strip() == (
        "An error occurred (AccessDenied) when calling the GetObject operation: "
        f"User: {arn} is not authorized to perform: s3:GetObject "
        f'on resource: "arn:aws:s3:::{name}/secret.txt" '
        "because no identity-based policy allows the s3:GetObject action"
    )


@requirement("IAM-EVAL-02")
def test_writing_is_denied_and_leaves_no_object(s3_test: Pod, bucket: str, aws: AwsAccount) -> None:
    """The policy only reads: a write is refused before the bucket sees it."""
    done = s3_test.exec("aws", "s3api", "put-object", f"--bucket={bucket}", "--key=new.txt", "--body=/etc/hostname")

    assert done.returncode == 254
    assert "is not authorized to perform: s3:PutObject" in done.stderr
    keys = [entry["Key"] for entry in aws.client("s3").list_objects_v2(Bucket=bucket)["Contents"]]
    assert keys == ["hello.txt"]


@requirement("API-508", "API-421", "AGT-260")
def test_role_without_tag_session_is_not_assumed(kube: Kube, demo: str, cluster: Cluster, aws: AwsAccount) -> None:
    """A trust policy without sts:TagSession is accepted for an association and refused when a pod asks."""
    kube.create_service_account("no-tags", demo)
    trust = (FILES / "trust-without-tag-session.json").read_text()
    with aws.role("no-tag-session", trust) as arn, aws.association(cluster.name, demo, "no-tags", arn):
        wait_until_admission_injects(kube, demo, "no-tags")
        pod = kube.run("no-tags", demo, image=IMAGE, service_account="no-tags", command=SLEEP).wait_until_ready()

        response = credentials_response(pod)

    assert response.status == 400
    assert re.fullmatch(
        r"\[[0-9a-f-]{36}\]: \(AccessDeniedException\): "
        r"Unauthorized Exception! EKS does not have permissions to assume the associated role\., fault: client\n",
        response.body,
    )
    assert not any(record.get("responseElements") for record in assume_role_records(aws, role_arn=arn))


@requirement("API-211", "API-225")
def test_role_that_trusts_something_else_is_refused_at_once(demo: str, cluster: Cluster, aws: AwsAccount) -> None:
    """An association with a role that does not trust pods.eks.amazonaws.com is refused and not kept."""
    eks = aws.client("eks")

    def refusal(arn: str) -> dict[str, Any]:
        with pytest.raises(ClientError) as refused:
            eks.create_pod_identity_association(
                clusterName=cluster.name, namespace=demo, serviceAccount="ec2-only", roleArn=arn
            )
        return dict(refused.value.response)

    with aws.role("ec2-only", (FILES / "trust-ec2-only.json").read_text()) as arn:
        refused = aws.eventually(
            lambda: refusal(arn),
            lambda answer: "does not exist" not in answer["Error"]["Message"],
            "EKS to know the role",
        )

    assert refused["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert refused["Error"] == {
        "Code": "InvalidParameterException",
        "Message": "Trust policy of the role provided is invalid. "
        "Follow the official documentation to resolve the issue.",
    }
    kept = eks.list_pod_identity_associations(clusterName=cluster.name, namespace=demo, serviceAccount="ec2-only")
    assert kept["associations"] == []


@requirement("API-409", "API-423", "AGT-260")
def test_token_of_another_audience_is_refused(kube: Kube, demo: str, s3_test: Pod) -> None:
    """A token of the same pod for sts.amazonaws.com, as IRSA uses it, yields no credentials."""
    assert s3_test
    source = {"serviceAccountToken": {"audience": "sts.amazonaws.com", "path": "token"}}
    overrides = {
        "volumes": [{"name": "irsa", "projected": {"sources": [source]}}],
        "containers": [
            {
                "name": "irsa-token",
                "image": IMAGE,
                "command": list(SLEEP),
                "volumeMounts": [{"name": "irsa", "mountPath": "/irsa", "readOnly": True}],
            }
        ],
    }
    pod = kube.run(
        "irsa-token", demo, image=IMAGE, service_account="s3-reader", command=SLEEP, overrides=overrides
    ).wait_until_ready()

    genuine = credentials_response(pod)
    response = credentials_response(pod, token_file="/irsa/token")

    assert genuine.status == 200
    assert response.status == 400
    assert re.match(r"\[[0-9a-f-]{36}\]: \(InvalidTokenException\): ", response.body)


@requirement("API-413", "API-424", "AGT-260", "AGT-267", "WHK-206")
def test_deleted_association_gives_no_credentials(
    kube: Kube, demo: str, cluster: Cluster, aws: AwsAccount, role_arn: str
) -> None:
    """A pod that still has the variables is told that there is no association; the next pod has no variables."""
    kube.create_service_account("short-lived", demo)
    with aws.association(cluster.name, demo, "short-lived", role_arn):
        wait_until_admission_injects(kube, demo, "short-lived")
        pod = kube.run("gone", demo, image=IMAGE, service_account="short-lived", command=SLEEP).wait_until_ready()

    wait_until_admission_leaves_alone(kube, demo, "short-lived")
    response = wait.until(
        lambda: credentials_response(pod),
        lambda answer: answer.status != 200,
        what="EKS Auth to notice",
        timeout=limits.CONTROLLER,
    )

    assert response.status == 404
    assert re.match(r"\[[0-9a-f-]{36}\]: \(ResourceNotFoundException\): ", response.body)
    assert pod.environment()["AWS_CONTAINER_CREDENTIALS_FULL_URI"] == credentials_uri(cluster)


@requirement("WHK-210")
def test_node_without_agent_times_out(kube: Kube, demo: str, cluster: Cluster, s3_test: Pod, aws: AwsAccount) -> None:
    """On a node where no agent ever ran, the SDK of an injected pod says the article's connect timeout."""
    assert s3_test
    pod = kube.run("no-agent", demo, image=IMAGE, service_account="s3-reader", command=SLEEP)
    with without_agent(cluster, aws, kube):
        pod.wait_until_ready()

        done = pod.exec("aws", "sts", "get-caller-identity")

    assert done.returncode == 255
    assert " ".join(done.stderr.split()) == (
        "Error when retrieving credentials from container-role: Error retrieving metadata: "
        "Received error when attempting to retrieve container metadata: "
        f'Connect timeout on endpoint URL: "{credentials_uri(cluster)}"'
    )


# --- What serves dies in the middle ---------------------------------------------------------------------------------


@requirement("IAM-S3-02")
def test_pod_reads_on_after_its_agent_died(s3_test: Pod, bucket: str, kube: Kube) -> None:
    """Another agent takes the place of one that is killed: the running pod asks that one, and reads."""
    kill_agents(kube)
    read = s3_test.exec("aws", "s3", "cp", f"s3://{bucket}/hello.txt", "-")

    check("IAM-S3-02", what="error", expected="", observed=read.stderr)
    check("IAM-S3-02", expected="Hello from Pod Identity!\n", observed=read.stdout)


@requirement("IAM-S3-02", "WHK-201")
def test_killed_api_server_costs_nobody_anything(
    s3_test: Pod, demo: str, lab: Lab, cluster: Cluster, kube: Kube, *, aws: AwsAccount, role_arn: str
) -> None:
    """The running pod reads on; what is associated as soon as the next API server is ready counts for the next pod."""
    kube.create_service_account("newcomer", demo)
    lab.restart_api_server(cluster)
    with aws.association(cluster.name, demo, "newcomer", role_arn):
        began = time.monotonic()
        wait_until_admission_injects(kube, demo, "newcomer")
        took = f"{time.monotonic() - began:.1f} s"
        newcomer = kube.run("newcomer", demo, image=IMAGE, service_account="newcomer", command=SLEEP)
        pods = (s3_test, newcomer.wait_until_ready())
        reads = [pod.exec("aws", "s3", "cp", f"s3://{aws.name(BUCKET)}/hello.txt", "-") for pod in pods]

    attach(Evidence("text", "from the association to the first admission that knows it", took))
    uri = admitted_variables(newcomer).get("AWS_CONTAINER_CREDENTIALS_FULL_URI")
    check("WHK-201", expected=credentials_uri(cluster), observed=uri)
    check("IAM-S3-02", what="errors", expected=["", ""], observed=[read.stderr for read in reads])
    check("IAM-S3-02", expected=["Hello from Pod Identity!\n"] * 2, observed=[read.stdout for read in reads])
