"""Session tags and ABAC: one role, one policy, and every team reaches its own prefix only.

The article's section of that name in its order, then what must not get around the tags, and what else they serve.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import limits, wait
from harness.cluster.base import Cluster
from harness.conformance.marks import requirement
from harness.conformance.recording import Evidence, attach, check
from harness.kube import Kube, Pod, load_manifests
from harness.lab import Lab
from harness.scenario import (
    NOT_ASSUMED,
    RESTARTS,
    UUID4,
    AwsAccount,
    assume_role_records,
    caller_identity,
    credentials_response,
    read_document,
    restart,
    wait_until_admission_injects,
    wait_until_let_in,
    without_webhook,
)

pytestmark = [pytest.mark.usefixtures("agent_addon"), pytest.mark.on_aws]

FIXTURES = Path(__file__).parent.parent / "fixtures"
FILES = FIXTURES / "abac"
TRUST = FIXTURES / "s3" / "pod-identity-trust.json"
BUCKET = "abac-demo-bucket"
TABLE = "abac-notes"
ROLE = "pod-identity-lab-abac-role"
IMAGE = "amazon/aws-cli:latest"
SLEEP = ("sleep", "3600")
TEAMS = ("team-a", "team-b")
EACH_TEAM = pytest.mark.parametrize(("team", "other"), [("team-a", "team-b"), ("team-b", "team-a")], ids=TEAMS)
SESSION_ARN = rf"arn:aws:sts::123456789012:assumed-role/{ROLE}/eks-[a-z0-9-]{{10}}-[a-z0-9-]{{1,10}}-{UUID4}"


# --- The section's set-up, in the article's order -------------------------------------------------------------------


@pytest.fixture(scope="module")
def bucket(aws: AwsAccount) -> Iterator[str]:
    """``aws s3 mb``, and a file for each team."""
    with aws.bucket(BUCKET) as name:
        for team in TEAMS:
            text = f"This file belongs to {team}\n".encode()
            aws.client("s3").put_object(Bucket=name, Key=f"{team}/file.txt", Body=text)
        yield name


@pytest.fixture(scope="module")
def role_arn(aws: AwsAccount, bucket: str) -> Iterator[str]:
    """``aws iam create-policy``, ``create-role`` and ``attach-role-policy``: the one role."""
    assert bucket
    with (
        aws.policy("pod-identity-lab-abac-policy", (FILES / "abac-policy.json").read_text()) as policy_arn,
        aws.role(ROLE, TRUST.read_text(), policies=[policy_arn]) as arn,
    ):
        yield arn


@pytest.fixture(scope="module")
def namespaces(kube: Kube) -> Iterator[tuple[str, ...]]:
    """``kubectl create namespace`` and ``create serviceaccount`` for both teams."""
    with kube.namespace("team-a"), kube.namespace("team-b"):
        for team in TEAMS:
            kube.create_service_account("app", team)
        yield TEAMS


@pytest.fixture(scope="module")
def pods(
    kube: Kube, namespaces: tuple[str, ...], cluster: Cluster, aws: AwsAccount, role_arn: str
) -> Iterator[dict[str, Pod]]:
    """``aws eks create-pod-identity-association`` and ``kubectl run test`` for both teams: team → pod."""
    with (
        aws.association(cluster.name, "team-a", "app", role_arn),
        aws.association(cluster.name, "team-b", "app", role_arn),
    ):
        for team in namespaces:
            wait_until_admission_injects(kube, team, "app")
        started = {
            team: kube.run("test", team, image=IMAGE, service_account="app", command=SLEEP) for team in namespaces
        }
        aws.wait_until_agent_is_active(cluster.name)
        for team, pod in started.items():
            pod.wait_until_ready()
            wait_until_let_in(aws, pod, "aws", "s3", "ls", aws.text(f"s3://{BUCKET}/{team}/"))
        yield started


# --- What the section shows -----------------------------------------------------------------------------------------


@requirement("IAM-ABAC-04")
@EACH_TEAM
def test_team_lists_and_reads_its_own_prefix(pods: dict[str, Pod], bucket: str, team: str, other: str) -> None:
    """``aws s3 ls`` and ``aws s3 cp … -`` of the team's own prefix print what the article prints."""
    del other
    listed = pods[team].exec("aws", "s3", "ls", f"s3://{bucket}/{team}/")
    read = pods[team].exec("aws", "s3", "cp", f"s3://{bucket}/{team}/file.txt", "-")

    assert listed.returncode == 0, listed.stderr
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d +28 file\.txt\n", listed.stdout)
    assert read.returncode == 0, read.stderr
    assert read.stdout == f"This file belongs to {team}\n"


@requirement("IAM-ABAC-04", "IAM-MSG-01", "IAM-MSG-02", "IAM-MSG-03")
@EACH_TEAM
def test_other_teams_prefix_is_denied_in_the_articles_words(
    pods: dict[str, Pod], bucket: str, aws: AwsAccount, team: str, other: str
) -> None:
    """Listing and reading the other team's prefix end with exit code 254 and the article's text."""
    listed = pods[team].exec("aws", "s3", "ls", f"s3://{bucket}/{other}/")
    read = pods[team].exec("aws", "s3api", "get-object", f"--bucket={bucket}", f"--key={other}/file.txt", "/dev/stdout")

    assert (listed.returncode, read.returncode) == (254, 254)
    assert re.fullmatch(
        r"An error occurred \(AccessDenied\) when calling the ListObjectsV2 operation: "
        rf"User: {aws.text(SESSION_ARN)} is not authorized to perform: s3:ListBucket "
        rf'on resource: "arn:aws:s3:::{bucket}" '
        r"because no identity-based policy allows the s3:ListBucket action",
        listed.stderr.strip(),
    )
    assert re.fullmatch(
        r"An error occurred \(AccessDenied\) when calling the GetObject operation: "
        rf"User: {aws.text(SESSION_ARN)} is not authorized to perform: s3:GetObject "
        rf'on resource: "arn:aws:s3:::{bucket}/{other}/file\.txt" '
        r"because no identity-based policy allows the s3:GetObject action",
        read.stderr.strip(),
    )
    assert f"This file belongs to {other}" not in read.stdout


@requirement("IAM-S3-02", "IAM-S3-03")
def test_copy_of_another_teams_file_is_forbidden_without_a_word(pods: dict[str, Pod], bucket: str) -> None:
    """``aws s3 cp`` asks with HEAD first, whose refusal has no body: the CLI knows the status and nothing else."""
    done = pods["team-a"].exec("aws", "s3", "cp", f"s3://{bucket}/team-b/file.txt", "-")

    assert done.returncode == 1
    assert done.stderr.strip() == (
        f"download failed: s3://{bucket}/team-b/file.txt to - "
        "An error occurred (403) when calling the HeadObject operation: Forbidden"
    )


@requirement("IAM-EVAL-02", "IAM-MSG-02")
def test_whole_bucket_is_denied(pods: dict[str, Pod], bucket: str) -> None:
    """Without a prefix there is nothing that the policy could compare: no team lists the bucket's root."""
    done = pods["team-a"].exec("aws", "s3", "ls", f"s3://{bucket}")

    assert done.returncode == 254
    assert done.stderr.strip().endswith("because no identity-based policy allows the s3:ListBucket action")


# --- The tags cannot be forged --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def forger(kube: Kube, pods: dict[str, Pod], cluster: Cluster, aws: AwsAccount, role_arn: str) -> Iterator[Pod]:
    """A pod of team-a whose name, ServiceAccount, labels, annotations and variables say team-b."""
    assert pods
    account, pod = load_manifests(FILES / "forger.yaml")
    kube.apply([account])
    with aws.association(cluster.name, "team-a", "team-b", role_arn):
        wait_until_admission_injects(kube, "team-a", "team-b")
        kube.apply([pod])
        yield kube.pod("team-b", "team-a").wait_until_ready()


@requirement("IAM-ABAC-02", "API-506")
def test_namespace_tag_cannot_be_forged(forger: Pod, bucket: str, cluster: Cluster, aws: AwsAccount) -> None:
    """Whatever a pod calls itself, its namespace tag is where it runs: it reads team-a's file and never team-b's."""
    own = forger.exec("aws", "s3", "cp", f"s3://{bucket}/team-a/file.txt", "-")
    other = forger.exec("aws", "s3api", "get-object", f"--bucket={bucket}", "--key=team-b/file.txt", "/dev/stdout")

    check("API-506", expected=six_tags(cluster, forger, "team-b"), observed=session_tags(aws, forger))
    check("IAM-ABAC-02", what="own prefix", expected="This file belongs to team-a\n", observed=own.stdout)
    check("IAM-ABAC-02", what="forged prefix", expected=(254, ""), observed=(other.returncode, other.stdout))


def six_tags(cluster: Cluster, pod: Pod, service_account: str) -> dict[str, str]:
    """Return what a pod of team-a is to be tagged with."""
    return {
        "eks-cluster-arn": cluster.spec.arn,
        "eks-cluster-name": cluster.name,
        "kubernetes-namespace": "team-a",
        "kubernetes-service-account": service_account,
        "kubernetes-pod-name": pod.name,
        "kubernetes-pod-uid": pod.read()["metadata"]["uid"],
    }


def session_tags(aws: AwsAccount, pod: Pod) -> dict[str, str]:
    """Return the tags of a pod's latest session, as STS recorded them; empty for none."""
    tags = session_parameters(aws, pod).get("tags", [])
    return {tag["key"]: tag["value"] for tag in tags}


def session_parameters(aws: AwsAccount, pod: Pod) -> dict[str, Any]:
    """Return what STS was asked for a pod's latest session."""
    found = [record["requestParameters"] for record in assume_role_records(aws)]
    return next(parameters for parameters in found if f"-{pod.name[:10]}-" in parameters["roleSessionName"])


@pytest.fixture(scope="module")
def chain_policy_arn(aws: AwsAccount, role_arn: str) -> Iterator[str]:
    """The first role's permission to assume the second one, and to pass its tags on."""
    document = (FILES / "chain-policy.json").read_text()
    with aws.policy("pod-identity-lab-abac-chain", document) as arn, aws.attached(role_arn, arn):
        yield arn


@pytest.fixture(scope="module")
def chained_role_arn(aws: AwsAccount, chain_policy_arn: str) -> Iterator[str]:
    """A second role with the article's policy; it trusts its account, which leaves it to policies who assumes it."""
    assert chain_policy_arn
    abac_policy_arn = aws.text("arn:aws:iam::123456789012:policy/pod-identity-lab-abac-policy")
    trust = (FILES / "chained-trust.json").read_text()
    with aws.role("pod-identity-lab-abac-chained-role", trust, policies=[abac_policy_arn]) as arn:
        yield arn


@pytest.fixture(scope="module")
def chaining_pod(pods: dict[str, Pod], chained_role_arn: str, bucket: str, aws: AwsAccount) -> Pod:
    """The pod of team-a, with a profile that goes on to the second role."""
    script = 'mkdir -p ~/.aws && printf %s "$0" > ~/.aws/config'
    done = pods["team-a"].exec("sh", "-c", script, aws.text((FILES / "aws-config").read_text()))
    assert chained_role_arn
    assert done.returncode == 0, done.stderr
    wait_until_let_in(aws, pods["team-a"], "aws", "--profile=chained", "s3", "ls", f"s3://{bucket}/team-a/")
    return pods["team-a"]


@requirement("IAM-ABAC-08", "API-505")
def test_tags_go_along_into_the_next_role(
    chaining_pod: Pod, chained_role_arn: str, bucket: str, cluster: Cluster
) -> None:
    """The role that the pod assumes with its credentials has the same policy, and the same tags limit it."""
    arn = caller_identity(chaining_pod, "--profile=chained")["Arn"]

    own = chaining_pod.exec("aws", "--profile=chained", "s3", "ls", f"s3://{bucket}/team-a/")
    other = chaining_pod.exec("aws", "--profile=chained", "s3", "ls", f"s3://{bucket}/team-b/")

    assert arn.startswith(f"arn:aws:sts::{cluster.spec.account}:assumed-role/{chained_role_arn.rpartition('/')[2]}/")
    assert own.returncode == 0, own.stderr
    assert own.stdout.endswith(" file.txt\n")
    assert other.returncode == 254
    assert f"User: {arn} is not authorized to perform: s3:ListBucket" in other.stderr


@requirement("IAM-ABAC-08", "IAM-STS-30")
def test_nested_assume_role_cannot_set_a_tag_of_pod_identity(chaining_pod: Pod, chained_role_arn: str) -> None:
    """A session tag of one of the six keys conflicts with the transitive one, in whatever case it is written."""
    arguments = ("aws", "sts", "assume-role", f"--role-arn={chained_role_arn}", "--role-session-name=forged")

    same = chaining_pod.exec(*arguments, "--tags=Key=kubernetes-namespace,Value=team-b")
    shouted = chaining_pod.exec(*arguments, "--tags=Key=Kubernetes-Namespace,Value=team-b")

    conflict = (
        "An error occurred (InvalidParameterValue) when calling the AssumeRole operation: One of the specified "
        "transitive tag keys can't be set because it conflicts with a transitive tag key from the calling session."
    )
    assert (same.returncode, same.stderr.strip()) == (254, conflict)
    assert (shouted.returncode, shouted.stderr.strip()) == (254, conflict)


@requirement("IAM-ABAC-08", "IAM-STS-11", "IAM-MSG-04")
@pytest.mark.parametrize("lacking", ["chain-policy-without-tag-session", "chained-trust-without-tag-session"])
def test_both_roles_must_allow_tag_session(
    lacking: str, pods: dict[str, Pod], chain_policy_arn: str, chained_role_arn: str, aws: AwsAccount
) -> None:
    """A pod cannot shake its tags off: without sts:TagSession on either side the next role is not assumed."""
    arn = caller_identity(pods["team-a"])["Arn"]
    document = (FILES / f"{lacking}.json").read_text()
    of_next_role = "trust" in lacking
    with aws.trusting(chained_role_arn, document) if of_next_role else aws.granting(chain_policy_arn, document):
        command = ("aws", "sts", "assume-role", f"--role-arn={chained_role_arn}", "--role-session-name=without-tags")
        done = aws.eventually(
            lambda: pods["team-a"].exec(*command), lambda done: done.returncode != 0, "STS to know the change"
        )

    assert done.returncode == 254
    assert done.stderr.strip() == (
        "An error occurred (AccessDenied) when calling the AssumeRole operation: "
        f"User: {arn} is not authorized to perform: sts:TagSession on resource: {chained_role_arn}"
    )


# --- Tags off, and tags in trust policies ---------------------------------------------------------------------------


@requirement("IAM-ABAC-05", "API-507")
def test_disabled_session_tags_leave_the_same_role_without_access(
    kube: Kube, pods: dict[str, Pod], cluster: Cluster, aws: AwsAccount, role_arn: str
) -> None:
    """With disableSessionTags the session has no tags, and the variable of the article's policy no value."""
    assert pods
    bucket = aws.name(BUCKET)
    kube.create_service_account("untagged", "team-a")
    with aws.association(cluster.name, "team-a", "untagged", role_arn, disableSessionTags=True):
        wait_until_admission_injects(kube, "team-a", "untagged")
        pod = kube.run("untagged", "team-a", image=IMAGE, service_account="untagged", command=SLEEP).wait_until_ready()

        listed = pod.exec("aws", "s3", "ls", f"s3://{bucket}/team-a/")
        read = pod.exec("aws", "s3api", "get-object", f"--bucket={bucket}", "--key=team-a/file.txt", "/dev/stdout")
        parameters = session_parameters(aws, pod)

    check("API-507", expected=["durationSeconds", "roleArn", "roleSessionName"], observed=sorted(parameters))
    check("API-507", what="role", expected=role_arn, observed=parameters["roleArn"])
    check("IAM-ABAC-05", what="listing", expected=254, observed=listed.returncode)
    check("IAM-ABAC-05", what="reading", expected=254, observed=read.returncode)
    text = "because no identity-based policy allows the s3:GetObject action"
    check("IAM-ABAC-05", what="text", expected=f"… {text}", observed=read.stderr, holds=text in read.stderr)


@requirement("API-510", "IAM-ABAC-06", "API-421")
def test_trust_policy_pins_cluster_namespace_and_service_account(
    kube: Kube, pods: dict[str, Pod], cluster: Cluster, aws: AwsAccount
) -> None:
    """aws:RequestTag conditions shut out what comes from elsewhere, each by itself, and let the right pod in."""
    assert pods
    kube.create_service_account("pinned", "team-a")
    trust = read_document(FILES / "pinned-trust.json", cluster)
    foreign = {
        "cluster": trust.replace(f"cluster/{cluster.name}", "cluster/another"),
        "namespace": trust.replace('"team-a"', '"team-b"'),
        "ServiceAccount": trust.replace('"pinned"', '"app"'),
    }
    with aws.role("pinned", foreign["cluster"]) as arn, aws.association(cluster.name, "team-a", "pinned", arn):
        wait_until_admission_injects(kube, "team-a", "pinned")
        pod = kube.run("pinned", "team-a", image=IMAGE, service_account="pinned", command=SLEEP).wait_until_ready()

        # The agent keeps what it was given, so what is refused comes first.
        another_cluster = credentials_response(pod)
        with aws.trusting(arn, foreign["namespace"]):
            another_namespace = credentials_response(pod)
        with aws.trusting(arn, foreign["ServiceAccount"]):
            another_account = credentials_response(pod)
        with aws.trusting(arn, trust):
            right = aws.eventually(
                lambda: credentials_response(pod), lambda answer: answer.status == 200, "EKS Auth to know the trust"
            )

    refusals = (another_cluster, another_namespace, another_account)
    assert [response.status for response in refusals] == [400, 400, 400]
    assert all(re.fullmatch(NOT_ASSUMED, response.body) for response in refusals)
    assert right.status == 200


# --- What else the tags are good for --------------------------------------------------------------------------------


@requirement("IAM-ABAC-06", "IAM-MSG-03")
def test_secrets_are_shared_out_by_their_own_tags(
    pods: dict[str, Pod], cluster: Cluster, aws: AwsAccount, role_arn: str
) -> None:
    """A policy that compares a secret's tags with the session's opens the secrets of one namespace of one cluster."""
    here = {"eks-cluster-name": cluster.name}
    with (
        aws.policy("pod-identity-lab-abac-secrets", (FILES / "secrets-policy.json").read_text()) as policy_arn,
        aws.attached(role_arn, policy_arn),
        aws.secret("app-config-a", "of team-a", here | {"kubernetes-namespace": "team-a"}) as a,
        aws.secret("app-config-b", "of team-b", here | {"kubernetes-namespace": "team-b"}) as b,
        aws.secret("app-config-elsewhere", "no", {"eks-cluster-name": "x", "kubernetes-namespace": "team-a"}) as c,
    ):
        arguments = ("aws", "secretsmanager", "get-secret-value", "--query=SecretString", "--output=text")
        wait_until_let_in(aws, pods["team-a"], *arguments, f"--secret-id={a}")
        own = pods["team-a"].exec(*arguments, f"--secret-id={a}")
        other = pods["team-a"].exec(*arguments, f"--secret-id={b}")
        elsewhere = pods["team-a"].exec(*arguments, f"--secret-id={c}")

    assert own.returncode == 0, own.stderr
    assert own.stdout == "of team-a\n"
    assert (other.returncode, elsewhere.returncode) == (254, 254)
    assert re.fullmatch(
        r"An error occurred \(AccessDeniedException\) when calling the GetSecretValue operation: "
        rf"User: {aws.text(SESSION_ARN)} is not authorized to perform: secretsmanager:GetSecretValue on resource: {b} "
        r"because no identity-based policy allows the secretsmanager:GetSecretValue action",
        other.stderr.strip(),
    )
    assert (other.stdout, elsewhere.stdout) == ("", "")


@requirement("IAM-ABAC-06")
@EACH_TEAM
def test_items_are_shared_out_by_their_partition_key(
    pods: dict[str, Pod], aws: AwsAccount, role_arn: str, team: str, other: str
) -> None:
    """A policy that compares a table's leading keys with the session's tag opens the items of one namespace.

    A Scan has none, which ``ForAllValues`` takes for a match; the ``Null`` condition does not.
    """
    notes = [{"team": name, "text": f"of {name}"} for name in TEAMS]
    with (
        aws.policy("pod-identity-lab-abac-table", (FILES / "table-policy.json").read_text()) as policy_arn,
        aws.attached(role_arn, policy_arn),
        aws.table(TABLE, "team", notes) as table,
    ):
        gets = {name: in_table(table, "get-item", f'--key={{"team":{{"S":"{name}"}}}}') for name in TEAMS}
        puts = {name: in_table(table, "put-item", f'--item={{"team":{{"S":"{name}"}}}}') for name in TEAMS}
        wait_until_let_in(aws, pods[team], *gets[team])
        read = {name: pods[team].exec(*command) for name, command in gets.items()}
        written = {name: pods[team].exec(*command) for name, command in puts.items()}
        everything = pods[team].exec(*in_table(table, "scan"))

    exit_codes = {
        "own": [read[team].returncode, written[team].returncode],
        "other": [read[other].returncode, written[other].returncode],
        "all": everything.returncode,
    }
    check("IAM-ABAC-06", expected={"own": [0, 0], "other": [254, 254], "all": 254}, observed=exit_codes)
    item = json.loads(read[team].stdout or "{}")
    own = {"team": {"S": team}, "text": {"S": f"of {team}"}}
    check("IAM-ABAC-06", what="item", expected={"Item": own}, observed=item)
    denial = (
        r"An error occurred \(AccessDeniedException\) when calling the GetItem operation: "
        rf"User: {aws.text(SESSION_ARN)} is not authorized to perform: dynamodb:GetItem "
        rf"on resource: {aws.text(f'arn:aws:dynamodb:eu-west-1:123456789012:table/{TABLE}')} "
        r"because no identity-based policy allows the dynamodb:GetItem action"
    )
    text = read[other].stderr.strip()
    check("IAM-ABAC-06", what="text", expected=denial, observed=text, holds=bool(re.fullmatch(denial, text)))


def in_table(table: str, operation: str, *options: str) -> tuple[str, ...]:
    """Return ``aws dynamodb …`` on a table, as a command of a pod."""
    return ("aws", "dynamodb", operation, f"--table-name={table}", "--output=json", *options)


@requirement("API-504", "IAM-ABAC-01", "IAM-ABAC-07")
def test_restart_changes_pod_name_and_uid_and_nothing_else(
    kube: Kube, pods: dict[str, Pod], cluster: Cluster, aws: AwsAccount
) -> None:
    """The Deployment's next pod has other tags for pod name and uid, the same for the rest, and the same rights."""
    assert pods
    bucket = aws.name(BUCKET)
    kube.apply(load_manifests(FILES / "deployment.yaml"))
    kube.wait_until_deployed("Deployment", "app", "team-a")
    (first,) = kube.pods("team-a", "app=app")
    read_before = first.exec("aws", "s3", "cp", f"s3://{bucket}/team-a/file.txt", "-")
    tags_before, expected_before = session_tags(aws, first), six_tags(cluster, first, "app")

    first.delete()
    (second,) = wait.until(lambda: kube.pods("team-a", "app=app"), what="the next pod", timeout=limits.POD_READY)
    read_after = second.wait_until_ready().exec("aws", "s3", "cp", f"s3://{bucket}/team-a/file.txt", "-")
    tags_after, expected_after = session_tags(aws, second), six_tags(cluster, second, "app")

    changed = sorted(key for key, value in tags_after.items() if tags_before[key] != value)
    assert changed == ["kubernetes-pod-name", "kubernetes-pod-uid"]
    check("API-504", expected=[expected_before, expected_after], observed=[tags_before, tags_after])
    check("IAM-ABAC-01", expected=list(expected_after), observed=list(tags_after))
    text = "This file belongs to team-a\n"
    check("IAM-ABAC-07", expected=[text, text], observed=[read_before.stdout, read_after.stdout])


@requirement("IAM-ABAC-07", "IAM-MSG-01")
def test_policy_on_the_service_account_parts_pods_of_one_namespace(
    pods: dict[str, Pod], forger: Pod, bucket: str, aws: AwsAccount, role_arn: str
) -> None:
    """Pods of one namespace have equal rights until a policy asks for the ServiceAccount: then one loses them."""
    arguments = ("aws", "s3api", "get-object", f"--bucket={bucket}", "--key=team-a/file.txt", "/dev/null")
    before = (pods["team-a"].exec(*arguments), forger.exec(*arguments))
    document = (FILES / "deny-service-account-policy.json").read_text()
    with aws.policy("pod-identity-lab-abac-deny", document) as policy_arn, aws.attached(role_arn, policy_arn):
        denied = aws.eventually(
            lambda: forger.exec(*arguments), lambda done: done.returncode != 0, "S3 to know the new policy"
        )
        after = (pods["team-a"].exec(*arguments), denied)

    check("IAM-ABAC-07", what="equal", expected=[0, 0], observed=[done.returncode for done in before])
    check("IAM-ABAC-07", what="parted", expected=[0, 254], observed=[done.returncode for done in after])
    denial = (
        r"An error occurred \(AccessDenied\) when calling the GetObject operation: "
        rf"User: {aws.text(SESSION_ARN)} is not authorized to perform: s3:GetObject "
        rf'on resource: "arn:aws:s3:::{bucket}/team-a/file\.txt" '
        r"with an explicit deny in an identity-based policy"
    )
    text = after[1].stderr.strip()
    check("IAM-MSG-01", expected=denial, observed=text, holds=bool(re.fullmatch(denial, text)))


# --- What serves dies in the middle ---------------------------------------------------------------------------------


@requirement("IAM-ABAC-04")
@pytest.mark.parametrize("what", RESTARTS)
def test_everybody_still_has_their_own_after_a_restart(
    pods: dict[str, Pod], lab: Lab, cluster: Cluster, kube: Kube, aws: AwsAccount, *, what: str
) -> None:
    """Agents or API server are killed under running pods: each team reads its own prefix, and no other."""
    restart(what, lab, cluster, kube)
    bucket = aws.name(BUCKET)
    reads = {
        f"{team} reads {prefix}": pods[team].exec(
            "aws", "s3api", "get-object", f"--bucket={bucket}", f"--key={prefix}/file.txt", "/dev/null"
        )
        for team in TEAMS
        for prefix in TEAMS
    }

    expected = {f"{team} reads {prefix}": 0 if team == prefix else 254 for team in TEAMS for prefix in TEAMS}
    attach(Evidence("text", f"what is denied after the {what} was killed", "".join(r.stderr for r in reads.values())))
    check("IAM-ABAC-04", expected=expected, observed={name: read.returncode for name, read in reads.items()})


@requirement("IAM-ABAC-04")
def test_pod_from_an_outage_of_admission_has_no_prefix(kube: Kube, pods: dict[str, Pod], aws: AwsAccount) -> None:
    """Created while no webhook runs, a pod is admitted as it is, counted, and nobody; made again, it reads its own."""
    assert pods
    own = ("aws", "s3", "cp", f"s3://{aws.name(BUCKET)}/team-a/file.txt", "-")
    with without_webhook(kube) as passed_over_since:
        orphan = kube.run("orphan", "team-a", image=IMAGE, service_account="app", command=SLEEP).wait_until_ready()
        counted = passed_over_since()
    told = orphan.exec(*own)
    variables = [name for name in orphan.environment() if name.startswith("AWS_")]
    wait_until_admission_injects(kube, "team-a", "app")
    orphan.delete()
    again = kube.run("orphan", "team-a", image=IMAGE, service_account="app", command=SLEEP).wait_until_ready()
    read = again.exec(*own)

    assert (counted, variables) == (1, [])
    assert "Unable to locate credentials" in told.stderr, told.stdout
    check("IAM-ABAC-04", expected="This file belongs to team-a\n", observed=read.stdout)
