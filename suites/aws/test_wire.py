"""Section 2 of the contract: hosts, signatures, errors, request IDs, permissions."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.subject.aws import ACCOUNT, CLUSTER, REGION, Aws, refused, user_key
from harness.subject.bound_cluster import ApiServerDouble

EKS = f"https://eks.{REGION}.amazonaws.com"
EKS_AUTH = f"https://eks-auth.{REGION}.api.aws/clusters/{CLUSTER}/assume-role-for-pod-identity"
CLUSTER_ARN = f"arn:aws:eks:{REGION}:{ACCOUNT}:cluster/{CLUSTER}"
ASSOCIATION_ID = "a-" + "0" * 17
ASSOCIATION_ARN = f"arn:aws:eks:{REGION}:{ACCOUNT}:podidentityassociation/{CLUSTER}/{ASSOCIATION_ID}"
ADDON_ARN = f"arn:aws:eks:{REGION}:{ACCOUNT}:addon/{CLUSTER}/eks-pod-identity-agent/*"


@requirement("API-101")
@pytest.mark.usefixtures("api")
def test_eks_answers_under_its_own_name(aws: Aws) -> None:
    """A request in REST and JSON for its real host is served if it is signed for eks, and for nothing else."""
    good = aws.send_signed("eks", "GET", f"{EKS}/clusters")
    other = aws.send_signed("eks", "GET", f"{EKS}/clusters", signing_name="sts")

    check("API-101", expected=(200, {"clusters": [CLUSTER]}), observed=(good.status, json.loads(good.body)))
    check("API-101", what="signed for another service", expected=403, observed=other.status)


@requirement("API-102")
@pytest.mark.usefixtures("api")
def test_eks_auth_answers_under_its_own_name(aws: Aws) -> None:
    """It knows the call by host, path and JSON, and takes signatures for eks-auth only."""
    body = json.dumps({"token": "e30.e30.e30"}).encode()
    good = aws.send_signed("eks-auth", "POST", EKS_AUTH, body=body)
    other = aws.send_signed("eks-auth", "POST", EKS_AUTH, body=body, signing_name="eks")

    # The call got as far as the token, which is none.
    check("API-102", expected="InvalidTokenException", observed=good.headers.get("x-amzn-errortype"))
    check("API-102", what="signed for another service", expected=403, observed=other.status)


@requirement("API-103", "API-104", "API-107")
@pytest.mark.usefixtures("api")
def test_errors_have_code_text_and_request_id(aws: Aws) -> None:
    """The code is in a header, the text in the body; every answer has an ID of its own."""
    unknown = aws.send_signed("eks", "GET", f"{EKS}/clusters/none")
    unsigned = aws.send("GET", "/clusters/none", host=f"eks.{REGION}.amazonaws.com")
    answers = [unknown, unsigned, *(aws.send_signed("eks", "GET", f"{EKS}/clusters") for _ in range(3))]

    seen = (unknown.status, unknown.headers.get("x-amzn-errortype"), json.loads(unknown.body).get("message"))
    expected = (404, "ResourceNotFoundException", "No cluster found for name: none.")
    check("API-103", expected=expected, observed=seen)
    ids = {answer.headers.get("x-amzn-requestid", "") for answer in answers}
    check("API-104", expected="5 IDs", observed=sorted(ids), holds=len(ids - {""}) == 5)
    check("API-107", what="unsigned, of a cluster that is none", expected=403, observed=unsigned.status)


@requirement("API-111")
def test_unknown_members_are_ignored(aws: Aws, api: ApiServerDouble, make_role: Callable[..., str]) -> None:
    """An SDK newer than the service is understood."""
    del api
    role = make_role("reader", {"Service": "pods.eks.amazonaws.com"})
    body = {"namespace": "demo", "serviceAccount": "s", "roleArn": role, "colour": "blue", "more": {"a": [1]}}

    answer = aws.send_signed(
        "eks", "POST", f"{EKS}/clusters/{CLUSTER}/pod-identity-associations", body=json.dumps(body).encode()
    )

    assert answer.status == 200
    assert "colour" not in json.loads(answer.body)["association"]


@requirement("API-426")
@pytest.mark.usefixtures("api")
@pytest.mark.parametrize("body", [b"[]", b"no JSON", b'"text"'])
def test_senseless_bodies_are_invalid_requests(aws: Aws, body: bytes) -> None:
    """What is no JSON object is refused as a request, not as a token."""
    answer = aws.send_signed("eks-auth", "POST", EKS_AUTH, body=body)

    assert (answer.status, answer.headers.get("x-amzn-errortype")) == (400, "InvalidRequestException")


OPERATIONS: dict[str, tuple[dict[str, Any], str]] = {
    "CreatePodIdentityAssociation": (
        {"clusterName": CLUSTER, "namespace": "n", "serviceAccount": "s", "roleArn": f"arn:aws:iam::{ACCOUNT}:role/r"},
        CLUSTER_ARN,
    ),
    "ListPodIdentityAssociations": ({"clusterName": CLUSTER}, CLUSTER_ARN),
    "DescribePodIdentityAssociation": ({"clusterName": CLUSTER, "associationId": ASSOCIATION_ID}, ASSOCIATION_ARN),
    "UpdatePodIdentityAssociation": ({"clusterName": CLUSTER, "associationId": ASSOCIATION_ID}, ASSOCIATION_ARN),
    "DeletePodIdentityAssociation": ({"clusterName": CLUSTER, "associationId": ASSOCIATION_ID}, ASSOCIATION_ARN),
    "TagResource": ({"resourceArn": CLUSTER_ARN, "tags": {"a": "b"}}, CLUSTER_ARN),
    "UntagResource": ({"resourceArn": CLUSTER_ARN, "tagKeys": ["a"]}, CLUSTER_ARN),
    "ListTagsForResource": ({"resourceArn": CLUSTER_ARN}, CLUSTER_ARN),
    "CreateAddon": ({"clusterName": CLUSTER, "addonName": "eks-pod-identity-agent"}, CLUSTER_ARN),
    "ListAddons": ({"clusterName": CLUSTER}, CLUSTER_ARN),
    "DescribeAddon": ({"clusterName": CLUSTER, "addonName": "eks-pod-identity-agent"}, ADDON_ARN),
    "DeleteAddon": ({"clusterName": CLUSTER, "addonName": "eks-pod-identity-agent"}, ADDON_ARN),
    "UpdateAddon": ({"clusterName": CLUSTER, "addonName": "eks-pod-identity-agent"}, ADDON_ARN),
    "DescribeCluster": ({"name": CLUSTER}, CLUSTER_ARN),
}


@requirement("API-108")
@pytest.mark.usefixtures("api")
def test_every_call_needs_its_permission(aws: Aws) -> None:
    """Who may do everything else is refused with action and resource, and who may do this alone gets further."""
    iam, key = aws.client("iam"), user_key(aws, "ana")
    eks = aws.client("eks", key)

    def permit(effect: dict[str, Any]) -> None:
        document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Resource": "*"} | effect]}
        iam.put_user_policy(UserName="ana", PolicyName="p", PolicyDocument=json.dumps(document))

    for operation, (parameters, resource) in OPERATIONS.items():
        permit({"NotAction": f"eks:{operation}"})
        seen = refused(lambda call=operation, given=parameters: eks._make_api_call(call, given))  # noqa: SLF001 - by name
        text = (
            f"User: arn:aws:iam::{ACCOUNT}:user/ana is not authorized to perform: eks:{operation} on resource: "
            f"{resource} because no identity-based policy allows the eks:{operation} action"
        )
        check("API-108", what=operation, expected=(403, "AccessDeniedException", text), observed=seen)
    permit({"Action": "eks:DescribeCluster", "Resource": CLUSTER_ARN})
    assert eks.describe_cluster(name=CLUSTER)["cluster"]["name"] == CLUSTER
