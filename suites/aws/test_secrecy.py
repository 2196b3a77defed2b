"""What is written down about calls, and what a denied caller learns: never a secret, never another's business."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from harness import limits, wait
from harness.cloud.denials import access_denied
from harness.cloud.localstack.bootstrap import AccessKey
from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.subject.aws import ACCOUNT, CLUSTER, REGION, Aws, refused, user_key
from harness.subject.bound_cluster import ApiServerDouble
from harness.subject.iam_requests import ALLOW_ALL, POD, alone, ask, policy

PODS = {"Service": "pods.eks.amazonaws.com"}


def written(aws: Aws) -> str:
    """Return everything that the process has written down: its log, its journal, its events."""
    events = aws.client("cloudtrail").lookup_events()["Events"]
    log = (aws.directory / "log").read_text(errors="replace")
    return log + json.dumps([aws.control.journal(), events], default=str)


@requirement("IAM-SIG-12")
@pytest.mark.usefixtures("api")
@pytest.mark.parametrize(
    ("service", "call", "code"),
    [
        ("s3", "list_buckets", "SignatureDoesNotMatch"),
        ("sts", "get_caller_identity", "SignatureDoesNotMatch"),
        ("eks", "list_clusters", "InvalidSignatureException"),
        ("secretsmanager", "list_secrets", "InvalidSignatureException"),
    ],
)
def test_a_failed_check_is_logged_without_secrets(aws: Aws, service: str, call: str, code: str) -> None:
    """Key, service and cause stand in one line of the log; token, secret and signature in none."""
    key = user_key(aws, "mallory")
    session = aws.client("sts", key).get_session_token()["Credentials"]
    forged: dict[str, Any] = {**session, "SecretAccessKey": "Forged" + session["SecretAccessKey"][6:]}
    signatures: list[str] = []
    client = aws.client(service, forged)
    client.meta.events.register("before-send", lambda request, **_: signatures.append(_signature(request)))

    assert refused(getattr(client, call))[1] == code

    lines = wait.until(
        lambda: [line for line in written(aws).splitlines() if session["AccessKeyId"] in line and "refused" in line],
        lambda found: len(found) >= 1,
        what="the line of the log",
        timeout=limits.SUBJECT_ACTS,
    )
    assert (signatures[0] != "", len(signatures)) == (True, 1)
    check("IAM-SIG-12", what="service", expected=True, observed=f"{service}: refused" in lines[0])
    check("IAM-SIG-12", what="cause", expected=True, observed=code in lines[0])
    secrets = [session["SessionToken"], session["SecretAccessKey"], forged["SecretAccessKey"], signatures[0]]
    check("IAM-SIG-12", what="secrets", expected=[], observed=[one for one in secrets if one in written(aws)])


def _signature(request: Any) -> str:
    value = request.headers["Authorization"]
    return (value.decode() if isinstance(value, bytes) else str(value)).rpartition("Signature=")[2]


@requirement("IAM-SEC-05", "API-433")
@pytest.mark.usefixtures("node")
def test_nothing_that_is_written_down_holds_a_secret(
    aws: Aws, api: ApiServerDouble, make_role: Callable[..., str]
) -> None:
    """A pod's token, sessions of three kinds, a stored secret, a user's key: all used, and none in log or record."""
    allowed = '{"Effect":"Allow","Action":"*","Resource":"*"}'
    role = make_role("reader", PODS, allowed)
    aws.client("eks").create_pod_identity_association(
        clusterName=CLUSTER, namespace="demo", serviceAccount="s3-reader", roleArn=role
    )
    token, node = api.token(time.time()), aws.node_credentials()
    pod = aws.client("eks-auth", node).assume_role_for_pod_identity(clusterName=CLUSTER, token=token)["credentials"]
    user = user_key(aws, "alice", json.loads(allowed))
    session = aws.client("sts", user).get_session_token()["Credentials"]
    secrets = aws.client("secretsmanager", pod)
    secrets.create_secret(Name="app-config", SecretString="the-entry-nobody-logs")
    secrets.get_secret_value(SecretId="app-config")
    refused(lambda: aws.client("s3", AccessKey("AKIARZPUZDIKGB2VALC4", "never-to-be-seen" * 3)).list_buckets())
    aws.client("s3", session).list_buckets()

    texts = written(aws)

    kept = {
        "token of the pod": token,
        "the pod's secret key": pod["secretAccessKey"],
        "the pod's session token": pod["sessionToken"],
        "the node's secret key": node["secretAccessKey"],
        "the node's session token": node["sessionToken"],
        "alice's secret key": user.secret_access_key,
        "alice's session token": session["SessionToken"],
        "stored secret": "the-entry-nobody-logs",
        "a stranger's secret key": "never-to-be-seen",
        "the harness's secret key": aws.bootstrap.account(ACCOUNT).administrator.secret_access_key,
        "the control route's secret": aws.bootstrap.control_token,
    }
    for name in ("IAM-SEC-05", "API-433"):
        check(name, expected=[], observed=[what for what, secret in kept.items() if secret in texts])
    hidden = texts.count('\\"token\\":\\"HIDDEN_DUE_TO_SECURITY_REASONS\\"')
    check("IAM-SEC-05", what="the pod's token in CloudTrail", expected=1, observed=hidden)


@requirement("IAM-MSG-08")
def test_a_denial_gives_away_nothing_of_policies_and_tags() -> None:
    """Statements, values and conditions of the policies stay untold, whichever of them denied."""
    statement = {
        "Sid": "Canary1",
        "Action": "s3:GetObject",
        "Resource": "arn:aws:s3:::canary-2/*",
        "Condition": {"StringEquals": {"aws:PrincipalTag/canary-3": "canary-4"}},
    }
    allows = policy({**statement, "Effect": "Allow"})
    denies = policy({**statement, "Effect": "Deny", "Resource": "*", "Condition": {"Null": {"aws:canary-5": "true"}}})
    told: list[str] = []
    for layer in ("identity", "boundary", "session", "scp", "resource"):
        for document in (allows, denies):
            decision = ask(POD, **({"identity": [policy(ALLOW_ALL)]} | alone(layer, document)))
            told += [] if decision.allowed else [access_denied("eks", POD, decision).message]

    check("IAM-MSG-08", what="denials", expected="at least five", observed=len(told), holds=len(told) >= 5)
    check("IAM-MSG-08", expected=[], observed=[text for text in told if "canary" in text.lower()])


@requirement("IAM-MSG-08")
@pytest.mark.usefixtures("api")
def test_who_may_not_read_does_not_learn_what_is_there(aws: Aws) -> None:
    """An object and a secret that exist are refused in the same words as those that do not."""
    aws.client("s3").create_bucket(Bucket="notes", CreateBucketConfiguration={"LocationConstraint": REGION})
    aws.client("s3").put_object(Bucket="notes", Key="there", Body=b"x")
    aws.client("secretsmanager").create_secret(Name="there", SecretString="entry")
    key = user_key(aws, "stranger")
    s3, secrets = aws.client("s3", key), aws.client("secretsmanager", key)

    objects = [refused(lambda name=name: s3.get_object(Bucket="notes", Key=name)) for name in ("there", "absent")]
    stored = [refused(lambda name=name: secrets.get_secret_value(SecretId=name)) for name in ("there", "absent")]

    for what, (there, absent) in (("object", objects), ("secret", stored)):
        check(
            "IAM-MSG-08", what=what, expected=(there[0], there[1], there[2].replace("there", "absent")), observed=absent
        )
