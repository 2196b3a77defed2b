"""A pod's token for the credentials of a role behind the associated one (``eks-api.md`` 6)."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from harness.cloud.eks_auth import TargetRefused
from harness.conformance.marks import requirement
from harness.subject.eks_lab import READER
from harness.subject.pod_exchange import (
    BOTH,
    CLUSTER_ARN,
    EXTERNAL_ID,
    NOT_ASSUMED,
    SIX_TAGS,
    TARGET,
    UUID4,
    Exchange,
    allow,
    pods_trust,
    trust,
)


@pytest.fixture
def chain() -> Exchange:
    """demo/s3-reader is associated with a role and, behind it, a target role in another account."""
    exchange = Exchange.new()
    exchange.lab.add_role(TARGET, trust({"AWS": READER}))
    exchange.permit(allow(*BOTH, resource=TARGET))
    exchange.lab.create(targetRoleArn=TARGET)
    return exchange


@requirement("API-601", "API-602", "API-603", "API-605")
def test_target_role_is_handed_out_and_the_first_session_is_not(chain: Exchange) -> None:
    """API-601 to API-603, API-605, S15."""
    assumed = chain.assume()

    first, second = assumed.sessions
    session = f"eks-pod-identi-s3-test-{UUID4}"
    prefix = "arn:aws:sts::210987654321:assumed-role/target/"
    assert re.fullmatch(prefix + session, assumed.response["assumedRoleUser"]["arn"])
    assert assumed.response["credentials"]["accessKeyId"] == second.credential.access_key_id
    assert assumed.response["credentials"]["expiration"] == chain.lab.clock.now() + timedelta(seconds=3540)
    assert first.credential.session_name != second.credential.session_name
    assert chain.credentials.find(first.credential.access_key_id) is None
    assert chain.credentials.find(second.credential.access_key_id) is second.credential
    assert (second.duration_seconds, second.credential.chained) == (3540, True)
    assert second.caller.role_arn == READER


@requirement("API-607")
def test_tags_are_inherited_by_the_target_session(chain: Exchange) -> None:
    """API-607, IAM-ABAC-08."""
    _, second = chain.assume().sessions

    assert second.request.tags == ()
    assert second.inherited_tags == dict(SIX_TAGS)
    assert second.credential.principal.tags == dict(SIX_TAGS)
    assert second.credential.transitive_tags == dict(SIX_TAGS)


@requirement("API-604", "API-607")
@pytest.mark.parametrize(
    "condition",
    [
        {"StringEquals": {"sts:ExternalId": EXTERNAL_ID}},
        {"StringEquals": {"aws:RequestTag/kubernetes-namespace": "demo"}},
        {"StringEquals": {"aws:PrincipalTag/kubernetes-namespace": "demo"}},
        {"StringEquals": {"aws:RequestTag/eks-cluster-arn": CLUSTER_ARN}},
    ],
)
def test_trust_of_the_target_sees_external_id_and_tags(chain: Exchange, condition: Any) -> None:
    """API-604, API-607."""
    chain.trust(trust({"AWS": READER}, condition=condition), TARGET)

    assert len(chain.assume().sessions) == 2


def _drop_identity(exchange: Exchange) -> None:
    exchange.permit()


def _drop_identity_tag_session(exchange: Exchange) -> None:
    exchange.permit(allow("sts:AssumeRole", resource=TARGET))


def _permit_another_target(exchange: Exchange) -> None:
    exchange.permit(allow(*BOTH, resource=TARGET + "-2"))


def _drop_trust_of_the_first(exchange: Exchange) -> None:
    exchange.trust(pods_trust("sts:AssumeRole"))


def _drop_trust_assume_role(exchange: Exchange) -> None:
    exchange.trust(trust({"AWS": READER}, "sts:TagSession"), TARGET)


def _drop_trust_tag_session(exchange: Exchange) -> None:
    exchange.trust(trust({"AWS": READER}, "sts:AssumeRole"), TARGET)


def _trust_another_role(exchange: Exchange) -> None:
    exchange.trust(trust({"AWS": READER + "-2"}), TARGET)


def _expect_another_external_id(exchange: Exchange) -> None:
    other = EXTERNAL_ID.replace("/demo/", "/prod/")
    exchange.trust(trust({"AWS": READER}, condition={"StringEquals": {"sts:ExternalId": other}}), TARGET)


def _delete_target(exchange: Exchange) -> None:
    del exchange.lab.iam.roles[TARGET]


@requirement("API-606", "API-608", "API-609")
@pytest.mark.parametrize(
    "fault",
    [
        _drop_identity,
        _drop_identity_tag_session,
        _permit_another_target,
        _drop_trust_of_the_first,
        _drop_trust_assume_role,
        _drop_trust_tag_session,
        _trust_another_role,
        _expect_another_external_id,
        _delete_target,
    ],
)
def test_target_needs_every_permission_on_both_sides(chain: Exchange, fault: Callable[[Exchange], None]) -> None:
    """API-606, API-608, API-609."""
    fault(chain)

    assert chain.refusal() == NOT_ASSUMED


@requirement("API-608")
def test_refusal_of_the_target_tells_how_far_it_went(chain: Exchange) -> None:
    """The first role was assumed; STS's words about the second are for CloudTrail, the pod gets EKS Auth's."""
    _drop_trust_tag_session(chain)

    with pytest.raises(TargetRefused) as refused:
        chain.assume()

    source = refused.value.first.credential.principal
    assert (refused.value.status, refused.value.code, refused.value.message) == NOT_ASSUMED
    assert (source.role_arn, refused.value.request.role_arn) == (READER, TARGET)
    assert (refused.value.cause.code, refused.value.cause.message) == (
        "AccessDenied",
        f"User: {source.arn} is not authorized to perform: sts:TagSession on resource: {TARGET}",
    )


@requirement("API-507")
def test_target_without_session_tags_needs_assume_role_only() -> None:
    """API-507 on both hops."""
    exchange = Exchange.new()
    condition = {"StringEquals": {"sts:ExternalId": EXTERNAL_ID}, "Null": {"aws:RequestTag/eks-cluster-arn": "true"}}
    exchange.lab.add_role(TARGET, trust({"AWS": READER}, "sts:AssumeRole", condition=condition))
    exchange.trust(pods_trust("sts:AssumeRole"))
    exchange.permit(allow("sts:AssumeRole", resource=TARGET))
    exchange.lab.create(targetRoleArn=TARGET, disableSessionTags=True)

    _, second = exchange.assume().sessions

    assert second.credential.principal.tags == {}


@requirement("API-512")
def test_policy_limits_the_target_session_only() -> None:
    """API-512."""
    exchange = Exchange.new()
    document = allow("s3:GetObject", resource="*").document
    exchange.lab.add_role(TARGET, trust({"AWS": READER}, "sts:AssumeRole"))
    exchange.permit(allow("sts:AssumeRole", resource=TARGET))
    exchange.lab.create(targetRoleArn=TARGET, disableSessionTags=True, policy=document)

    first, second = exchange.assume().sessions

    assert (first.credential.session_policies, second.credential.session_policies) == (None, (document,))
