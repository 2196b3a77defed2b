"""A pod's token for a role's credentials: AssumeRoleForPodIdentity from end to end (``eks-api.md`` 5)."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from harness.cloud.sts import caller_identity, role_policies
from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.subject.eks_lab import ACCOUNT, READER, SCOPE
from harness.subject.iam_requests import ALLOW_ALL, alone, ask, policy
from harness.subject.pod_exchange import (
    CLUSTER_ARN,
    NOT_ASSUMED,
    OTHER_ACCOUNT,
    OTHER_KEY,
    POD_UID,
    SIX_TAGS,
    UUID4,
    Exchange,
    allow,
    pods_trust,
    trust,
)


@pytest.fixture
def exchange() -> Exchange:
    """demo/s3-reader is associated with a role of universal trust."""
    exchange = Exchange.new()
    exchange.lab.create()
    return exchange


# --- the answer -----------------------------------------------------------------------------------------------------


@requirement("API-401", "API-402", "API-501", "API-503")
def test_answer_has_subject_audience_association_role_and_credentials(exchange: Exchange) -> None:
    """API-401, API-402, API-501, API-503."""
    (association,) = exchange.lab.eks.associations.list(SCOPE, {"clusterName": "pod-identity-lab"})["associations"]

    response = exchange.assume().response

    user, credentials = response.pop("assumedRoleUser"), response.pop("credentials")
    assert response == {
        "subject": {"namespace": "demo", "serviceAccount": "s3-reader"},
        "audience": "pods.eks.amazonaws.com",
        "podIdentityAssociation": {
            "associationArn": association["associationArn"],
            "associationId": association["associationId"],
        },
    }
    session = f"eks-pod-identi-s3-test-{UUID4}"
    prefix = "arn:aws:sts::123456789012:assumed-role/pod-identity-lab-s3-reader-role/"
    assert re.fullmatch(prefix + session, user["arn"])
    assert re.fullmatch(f"AROAEXAMPLEEXAMPLE12:{session}", user["assumeRoleId"])
    assert set(user) == {"arn", "assumeRoleId"}
    assert set(credentials) == {"accessKeyId", "secretAccessKey", "sessionToken", "expiration"}
    assert credentials["expiration"] == exchange.lab.clock.now() + timedelta(seconds=21600)


@requirement("API-514")
def test_credentials_are_registered_and_act_as_the_role(exchange: Exchange) -> None:
    """API-513, API-514."""
    response = exchange.assume().response

    credential = exchange.credentials.find(response["credentials"]["accessKeyId"])
    assert credential is not None
    assert credential.session_token == response["credentials"]["sessionToken"]
    assert (credential.principal.role_arn, credential.origin) == (READER, "pod-identity")
    assert caller_identity(credential) == {
        "UserId": response["assumedRoleUser"]["assumeRoleId"],
        "Account": "123456789012",
        "Arn": response["assumedRoleUser"]["arn"],
    }


@requirement("API-504", "API-505", "IAM-ABAC-01")
def test_session_has_six_transitive_tags_in_order(exchange: Exchange) -> None:
    """API-504, API-505, IAM-ABAC-01."""
    (session,) = exchange.assume().sessions

    assert list(session.request.tags) == SIX_TAGS
    assert session.request.transitive_tag_keys == tuple(key for key, _ in SIX_TAGS)
    assert session.credential.principal.tags == dict(SIX_TAGS)
    assert session.credential.transitive_tags == dict(SIX_TAGS)
    assert session.duration_seconds == 21600
    assert not session.credential.chained


@requirement("IAM-ABAC-03")
def test_session_tags_override_tags_of_the_role(exchange: Exchange) -> None:
    """API-506, S23."""
    exchange.lab.iam.roles[READER] = replace(
        exchange.lab.iam.roles[READER], tags={"Kubernetes-Namespace": "prod", "cost": "1"}
    )

    assert exchange.assume().sessions[0].credential.principal.tags == dict(SIX_TAGS) | {"cost": "1"}


@requirement("API-414")
def test_every_call_makes_a_new_session(exchange: Exchange) -> None:
    """API-414, API-502."""
    token = exchange.token()
    first, second = exchange.assume(token).response, exchange.assume(token).response

    assert first["assumedRoleUser"]["arn"] != second["assumedRoleUser"]["arn"]
    assert first["credentials"]["accessKeyId"] != second["credentials"]["accessKeyId"]
    assert len(exchange.credentials) == 2


@requirement("API-501")
def test_short_names_are_not_padded_and_long_ones_cut_after_ten(exchange: Exchange) -> None:
    """API-501."""
    arn = exchange.assume(exchange.token(pod="carts-d49c-7f9c")).response["assumedRoleUser"]["arn"]
    assert re.search(f"/eks-pod-identi-carts-d49c-{UUID4}$", arn)
    arn = exchange.assume(exchange.token(pod="p")).response["assumedRoleUser"]["arn"]
    assert re.search(f"/eks-pod-identi-p-{UUID4}$", arn)


@requirement("API-403")
def test_newer_parameters_are_accepted_without_effect(exchange: Exchange) -> None:
    """API-403."""
    response = exchange.assume(eksNodeName="node-1", instanceId="i-0abc", zone="euw1-az1").response

    assert "workloadIdentityProviderArn" not in response


# --- refusals -------------------------------------------------------------------------------------------------------


@requirement("API-409", "API-423")
def test_token_for_another_audience_is_refused(exchange: Exchange) -> None:
    """API-409, API-423."""
    assert exchange.refusal(exchange.token(aud=["sts.amazonaws.com"]))[:2] == (400, "InvalidTokenException")


@requirement("API-406", "API-423")
def test_forged_token_is_refused(exchange: Exchange) -> None:
    """API-406."""
    assert exchange.refusal(exchange.token(OTHER_KEY))[:2] == (400, "InvalidTokenException")


@requirement("API-408", "API-422")
def test_expired_token_is_refused_by_the_labs_clock(exchange: Exchange) -> None:
    """API-408, API-422."""
    token = exchange.token()
    exchange.lab.clock.advance(86400)

    assert exchange.refusal(token) == (
        400,
        "ExpiredTokenException",
        (
            "The token included in the request is expired: current date/time 2026-04-11T14:00:00Z"
            " must be before the expiration date/time 2026-04-11T14:00:00Z"
        ),
    )


@requirement("API-424")
def test_unknown_cluster_is_not_found(exchange: Exchange) -> None:
    """API-424."""
    assert exchange.refusal(clusterName="other")[:2] == (404, "ResourceNotFoundException")


@requirement("API-425")
@pytest.mark.parametrize(
    "changes",
    [{"clusterName": "-x"}, {"clusterName": None}, {"token": ""}, {"token": 1}, {"token": "a.b"}, {"token": "a.b.c d"}],
)
def test_shape_is_checked_first(exchange: Exchange, changes: dict[str, Any]) -> None:
    """API-425, API-415."""
    assert exchange.refusal(**changes)[:2] == (400, "InvalidParameterException")


@requirement("API-424")
def test_pair_without_association_is_not_found() -> None:
    """API-424."""
    exchange = Exchange.new()
    exchange.lab.create("other")

    assert exchange.refusal() == (
        404,
        "ResourceNotFoundException",
        (
            "No pod identity association found for service account s3-reader in namespace demo"
            " of cluster pod-identity-lab."
        ),
    )


@requirement("API-413")
def test_deleted_association_is_gone_at_once(exchange: Exchange) -> None:
    """API-413."""
    name = {"clusterName": "pod-identity-lab"}
    (association,) = exchange.lab.eks.associations.list(SCOPE, name)["associations"]
    exchange.lab.eks.associations.delete(SCOPE, name | {"associationId": association["associationId"]})

    assert exchange.refusal()[:2] == (404, "ResourceNotFoundException")


@requirement("API-415")
def test_token_is_judged_before_the_association() -> None:
    """API-415."""
    exchange = Exchange.new()

    assert exchange.refusal(exchange.token(aud="x"))[1] == "InvalidTokenException"


# --- the role -------------------------------------------------------------------------------------------------------


@requirement("API-421", "API-508", "API-510")
@pytest.mark.parametrize(
    "document",
    [
        pods_trust("sts:AssumeRole"),
        pods_trust("sts:TagSession"),
        trust({"Service": "ec2.amazonaws.com"}),
        trust({"AWS": f"arn:aws:iam::{ACCOUNT}:root"}),
        pods_trust(condition={"StringEquals": {"aws:RequestTag/kubernetes-namespace": "prod"}}),
        pods_trust(condition={"StringEquals": {"aws:SourceAccount": OTHER_ACCOUNT}}),
        pods_trust(condition={"ArnLike": {"aws:SourceArn": "arn:aws:eks:*:*:podidentityassociation/*"}}),
    ],
)
def test_role_whose_trust_does_not_allow_both_actions_is_refused(exchange: Exchange, document: str) -> None:
    """API-421, API-508, API-510."""
    exchange.trust(document)

    assert exchange.refusal() == NOT_ASSUMED


@requirement("API-510")
def test_trust_conditions_see_cluster_tags_and_session(exchange: Exchange) -> None:
    """API-510."""
    condition = {
        "StringEquals": {
            "aws:SourceAccount": ACCOUNT,
            **{f"aws:RequestTag/{key}": value for key, value in SIX_TAGS},
            "aws:PrincipalServiceName": "pods.eks.amazonaws.com",
        },
        "ArnEquals": {"aws:SourceArn": CLUSTER_ARN},
        "StringLike": {"sts:RoleSessionName": "eks-pod-identi-s3-test-*"},
        "Bool": {"aws:PrincipalIsAWSService": "true"},
        "ForAllValues:StringEquals": {"sts:TransitiveTagKeys": [key for key, _ in SIX_TAGS]},
        "ForAnyValue:StringEquals": {"aws:TagKeys": ["kubernetes-pod-uid"]},
    }
    exchange.trust(pods_trust(condition=condition))

    assert exchange.assume().sessions


@requirement("API-421")
def test_deleted_role_is_refused(exchange: Exchange) -> None:
    """API-421."""
    del exchange.lab.iam.roles[READER]

    assert exchange.refusal() == NOT_ASSUMED


@requirement("API-507")
def test_without_session_tags_assume_role_is_enough() -> None:
    """API-507."""
    exchange = Exchange.new()
    exchange.lab.create(disableSessionTags=True)
    exchange.trust(pods_trust("sts:AssumeRole"))

    (session,) = exchange.assume().sessions

    assert (session.request.tags, session.request.transitive_tag_keys) == ((), ())
    assert session.credential.principal.tags == {}
    assert session.packed_policy_size is None


@requirement("API-512")
def test_policy_of_the_association_limits_the_session() -> None:
    """API-512."""
    exchange = Exchange.new()
    document = allow("s3:GetObject", resource="*").document
    exchange.lab.create(disableSessionTags=True, policy=document)

    credential = exchange.assume().sessions[0].credential

    assert credential.session_policies == (document,)
    session = role_policies(credential, exchange.lab.iam).session
    assert session is not None
    assert session[0].document == document


@requirement("API-434")
def test_too_large_tags_are_refused_by_name() -> None:
    """API-434."""
    exchange = Exchange.new()
    namespace, service_account = "n" * 250, "s" * 250
    exchange.lab.create(service_account, namespace=namespace)
    kubernetes = {
        "namespace": namespace,
        "serviceaccount": {"name": service_account},
        "pod": {"name": "p" * 250, "uid": POD_UID},
    }
    changes: dict[str, Any] = {
        "sub": f"system:serviceaccount:{namespace}:{service_account}",
        "kubernetes.io": kubernetes,
    }
    token = exchange.token(**changes)

    status, code, message = exchange.refusal(token)

    assert (status, code) == (400, "InvalidRequestException")
    assert message == "PackedPolicyTooLarge: Packed size of session tags consumes 141% of allotted space."


# --- who decides about tags -----------------------------------------------------------------------------------------


@requirement("API-274", "API-506", "IAM-ABAC-02")
def test_nobody_else_sets_session_tags() -> None:
    """Neither tags of the association nor anything in the request makes a session tag; the role's yield."""
    exchange = Exchange.new()
    exchange.lab.create(tags={"team": "a", "kubernetes-namespace": "prod"})
    role = exchange.lab.iam.roles[READER]
    exchange.lab.iam.roles[READER] = replace(role, tags={"Kubernetes-Namespace": "prod"})
    sent: dict[str, Any] = {"tags": {"team": "b"}, "namespace": "prod", "eksNodeName": "n", "instanceId": "i-0"}

    (session,) = exchange.assume(**sent).sessions

    tags = dict(session.credential.principal.tags)
    check("API-274", expected=dict(SIX_TAGS), observed=tags)
    check("API-506", expected=dict(SIX_TAGS), observed=tags)
    check(
        "IAM-ABAC-02",
        expected=SIX_TAGS,
        observed=list(session.request.tags),
        holds=list(session.request.tags) == SIX_TAGS,
    )


@requirement("API-502")
def test_uuid_of_the_session_is_its_own(exchange: Exchange) -> None:
    """It is new at every call, and never the pod's."""
    names = [exchange.assume().sessions[0].credential.session_name for _ in range(3)]

    uuids = {name[-36:] for name in names}
    assert len(uuids) == 3
    assert all(re.fullmatch(UUID4, text) for text in uuids)
    assert POD_UID not in uuids


@requirement("API-509", "API-209")
def test_one_role_serves_every_cluster(exchange: Exchange) -> None:
    """The universal trust policy names no cluster, so that a second one needs no change."""
    second = replace(exchange.lab.eks.clusters.get(SCOPE, "pod-identity-lab"), name="second")
    exchange.lab.eks.clusters.bind(second)
    exchange.lab.create(clusterName="second")

    answers = [exchange.assume(clusterName=name).response for name in ("pod-identity-lab", "second")]

    roles = {answer["assumedRoleUser"]["arn"].split("/")[1] for answer in answers}
    assert roles == {"pod-identity-lab-s3-reader-role"}


@requirement("API-326")
@pytest.mark.parametrize("version", ["1.13", "1.24", "1.99"])
def test_no_kubernetes_version_is_too_old(exchange: Exchange, version: str) -> None:
    """Associations, the agent's add-on and EKS Auth work on whatever cluster there is."""
    eks = exchange.lab.eks
    eks.clusters.bind(replace(eks.clusters.get(SCOPE, "pod-identity-lab"), name="old", version=version))
    addon = {"clusterName": "old", "addonName": "eks-pod-identity-agent"}

    exchange.lab.create(clusterName="old")
    assert eks.addons.create(SCOPE, addon)["addon"]["status"] == "CREATING"
    assert eks.addons.versions({"kubernetesVersion": version})["addons"]
    assert exchange.assume(clusterName="old").sessions


@requirement("API-515")
@pytest.mark.parametrize("layer", ["boundary", "scp"])
def test_limits_of_the_role_bind_its_sessions(exchange: Exchange, layer: str) -> None:
    """What a boundary or a service control policy does not allow, no session of the role may do."""
    (session,) = exchange.assume().sessions
    caller, everything = session.credential.principal, policy(ALLOW_ALL)

    free = ask(caller, identity=[everything], **alone(layer, everything))
    bound = ask(caller, identity=[everything], **alone(layer, policy(ALLOW_ALL | {"Action": "sqs:*"})))

    assert (free.allowed, bound.allowed, bound.layer) == (True, False, layer)
