"""IRSA: a service account's token for a role's credentials, over the wire."""

from __future__ import annotations

import http.client
import json
import time
from typing import Any
from urllib.parse import urlencode, urlsplit

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.subject.aws import ACCOUNT, CLUSTER, REGION, Aws, refused
from harness.subject.bound_cluster import ISSUER, ApiServerDouble

HOST = ISSUER.removeprefix("https://")
SUBJECT = "system:serviceaccount:demo:s3-reader"


@pytest.fixture
def role(aws: Aws, api: ApiServerDouble) -> str:
    """A role that trusts the cluster's issuer for one service account."""
    assert api
    iam = aws.client("iam")
    provider = iam.create_open_id_connect_provider(Url=ISSUER, ClientIDList=["sts.amazonaws.com"])
    statement = {
        "Effect": "Allow",
        "Principal": {"Federated": provider["OpenIDConnectProviderArn"]},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {"StringEquals": {f"{HOST}:sub": SUBJECT, f"{HOST}:aud": "sts.amazonaws.com"}},
    }
    trust = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    return iam.create_role(RoleName="irsa", AssumeRolePolicyDocument=trust)["Role"]["Arn"]


def assume(aws: Aws, role: str, token: str) -> Any:
    sts = boto3.client("sts", endpoint_url=aws.endpoint, region_name=REGION, config=Config(signature_version=UNSIGNED))
    return sts.assume_role_with_web_identity(RoleArn=role, RoleSessionName="me", WebIdentityToken=token)


@requirement("API-701", "API-702", "API-704")
def test_irsa_gives_a_session_without_a_signature(aws: Aws, api: ApiServerDouble, role: str) -> None:
    answer = assume(aws, role, api.token(time.time(), aud=["sts.amazonaws.com"]))

    assert answer["SubjectFromWebIdentityToken"] == SUBJECT
    assert answer["Audience"] == "sts.amazonaws.com"
    assert answer["Provider"] == f"arn:aws:iam::{ACCOUNT}:oidc-provider/{HOST}"
    identity = aws.client("sts", answer["Credentials"]).get_caller_identity()
    assert identity["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/irsa/me"


@requirement("API-721", "IAM-STS-41")
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("InvalidIdentityToken", "Incorrect token audience")),
        (
            {"aud": "sts.amazonaws.com", "sub": "system:serviceaccount:demo:other"},
            ("AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity"),
        ),
        (
            {"iss": "https://oidc.example.com"},
            (
                "InvalidIdentityToken",
                "No OpenIDConnect provider found in your account for https://oidc.example.com",
            ),
        ),
    ],
)
def test_another_token_is_refused(
    aws: Aws, api: ApiServerDouble, role: str, changes: dict[str, Any], expected: tuple[str, str]
) -> None:
    with pytest.raises(ClientError) as caught:
        assume(aws, role, api.token(time.time(), **changes))

    error = caught.value.response["Error"]
    assert (error["Code"], error["Message"]) == expected


@requirement("API-702")
@pytest.mark.parametrize(
    "form",
    [
        [("Action", "AssumeRole")],
        [("Action", "GetCallerIdentity"), ("Action", "AssumeRoleWithWebIdentity")],
        [("Action", "AssumeRoleWithWebIdentity"), ("Action", "GetCallerIdentity")],
    ],
)
def test_no_other_call_of_sts_gets_in_unsigned(aws: Aws, form: list[tuple[str, str]]) -> None:
    connection = http.client.HTTPConnection(urlsplit(aws.endpoint).netloc, timeout=20)
    headers = {"Host": f"sts.{REGION}.amazonaws.com", "Content-Type": "application/x-www-form-urlencoded"}

    connection.request("POST", "/", urlencode([*form, ("Version", "2011-06-15")]), headers)
    response = connection.getresponse()

    assert response.status == 403
    assert b"<Code>MissingAuthenticationToken</Code>" in response.read()
    connection.close()


@requirement("API-511", "IAM-PRIN-13", "API-710", "API-709")
@pytest.mark.usefixtures("node")
def test_one_role_opens_by_both_doors(aws: Aws, api: ApiServerDouble, role: str) -> None:
    """Each door uses its own statement: with one of them missing it is shut, and no token fits both."""
    iam = aws.client("iam")
    federated = iam.get_role(RoleName="irsa")["Role"]["AssumeRolePolicyDocument"]["Statement"][0]
    pods = {
        "Effect": "Allow",
        "Principal": {"Service": "pods.eks.amazonaws.com"},
        "Action": ["sts:AssumeRole", "sts:TagSession"],
    }
    auth = aws.client("eks-auth", aws.node_credentials())
    irsa, pod = api.token(time.time(), aud=["sts.amazonaws.com"]), api.token(time.time())

    def trust(*statements: object) -> None:
        document = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
        iam.update_assume_role_policy(RoleName="irsa", PolicyDocument=document)

    def associate() -> str:
        return aws.client("eks").create_pod_identity_association(
            clusterName=CLUSTER, namespace="demo", serviceAccount="s3-reader", roleArn=role
        )["association"]["roleArn"]

    shut = refused(associate)[1]
    trust(federated, pods)
    associate()
    arn = auth.assume_role_for_pod_identity(clusterName=CLUSTER, token=pod)["assumedRoleUser"]["arn"]
    names = [arn.split("/")[1], assume(aws, role, irsa)["AssumedRoleUser"]["Arn"].split("/")[1]]
    crossed = [
        refused(lambda: auth.assume_role_for_pod_identity(clusterName=CLUSTER, token=irsa))[1],
        refused(lambda: assume(aws, role, pod))[1],
    ]
    trust(pods)
    without = refused(lambda: assume(aws, role, irsa))[1]

    check("API-511", expected=["irsa", "irsa"], observed=names)
    check("IAM-PRIN-13", expected=["irsa", "irsa"], observed=names)
    check("API-709", expected=["InvalidTokenException", "InvalidIdentityToken"], observed=crossed)
    check("API-710", expected=["InvalidParameterException", "AccessDenied"], observed=[shut, without])
