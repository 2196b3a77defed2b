"""AssumeRole and GetCallerIdentity (``iam.md`` section 11; examples of 18.2)."""

from __future__ import annotations

import string
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cloud.ports import NamedPolicy, Principal
from harness.cloud.session_tags import packed_size
from harness.cloud.sts import caller_identity, role_policies
from harness.conformance.marks import requirement
from harness.subject.cloud_ports import SeededIds
from harness.subject.sts_lab import (
    ALICE,
    ALL_STS,
    CLUSTER_ARN,
    NOTES,
    NOTES_SESSION,
    PODS,
    SIX_TAGS,
    START,
    TARGET,
    A,
    B,
    Lab,
    allow,
    denied,
    pod_session,
    policy,
    trust,
    user,
)


@pytest.fixture
def cloud() -> Lab:
    """Alice may assume and tag the target role, which trusts her account."""
    return Lab.trusting_the_account()


# --- decision -------------------------------------------------------------------------------------------------------


@requirement("IAM-STS-01", "IAM-STS-10")
def test_account_trust_and_identity_permission_give_a_session(cloud: Lab) -> None:
    """S01, IAM-STS-01."""
    cloud.role(TARGET, trust({"AWS": f"arn:aws:iam::{A}:root"}))
    cloud.user(allow("sts:AssumeRole", resource=TARGET))

    assumed = cloud.assume(user())

    credential = assumed.credential
    assert credential.principal == Principal(
        kind="role-session",
        arn="arn:aws:sts::123456789012:assumed-role/target/me",
        account="123456789012",
        user_id="AROATARGETTARGETTAR12:me",
        role_arn="arn:aws:iam::123456789012:role/team/target",
    )
    assert (credential.issued_at, credential.expires_at) == (START, START + timedelta(seconds=3600))
    assert credential.access_key_id.startswith("ASIA")
    assert len(credential.access_key_id) == 20
    assert len(credential.secret_access_key) == 40
    assert credential.session_token
    assert (credential.session_name, credential.chained, credential.session_policies) == ("me", False, None)
    assert (assumed.duration_seconds, assumed.packed_policy_size, assumed.inherited_tags) == (3600, None, {})
    assert (assumed.caller.arn, assumed.role.name) == (ALICE, "target")


@requirement("IAM-STS-10")
def test_direct_trust_needs_no_identity_permission_in_the_account(cloud: Lab) -> None:
    """S02."""
    cloud.role(TARGET, trust({"AWS": ALICE}))
    cloud.user()

    assert cloud.assume(user()).credential.principal.role_arn == TARGET


@requirement("IAM-STS-10", "IAM-MSG-04")
def test_account_trust_without_identity_permission_is_denied(cloud: Lab) -> None:
    """S03, IAM-MSG-04."""
    cloud.user()

    assert cloud.refusal(user()) == denied("sts:AssumeRole")


@requirement("IAM-STS-10")
def test_role_of_another_account_needs_both_sides(cloud: Lab) -> None:
    """S04."""
    role = f"arn:aws:iam::{B}:role/target"
    cloud.role(role, trust({"AWS": NOTES}))
    cloud.role(NOTES, "", [])
    caller = pod_session({})

    assert cloud.refusal(caller, role) == denied("sts:AssumeRole", NOTES_SESSION, role)
    cloud.role(NOTES, "", [allow("sts:AssumeRole")])
    assert cloud.assume(caller, role).credential.principal.account == B


@requirement("IAM-STS-13")
def test_absent_role_answers_like_one_that_refuses(cloud: Lab) -> None:
    """IAM-STS-13: not even its maximum duration shows."""
    absent = f"arn:aws:iam::{A}:role/no-such-role"
    cloud.role(TARGET, trust({"AWS": f"arn:aws:iam::{B}:root"}))

    assert cloud.refusal(user(), absent, duration_seconds=43200) == denied("sts:AssumeRole", role=absent)
    assert cloud.refusal(user(), duration_seconds=43200) == denied("sts:AssumeRole")


@requirement("IAM-STS-14")
def test_root_assumes_no_role(cloud: Lab) -> None:
    """IAM-STS-14."""
    root = Principal(kind="root", arn=f"arn:aws:iam::{A}:root", account=A, user_id=A)

    assert cloud.refusal(user(principal=root)) == (403, "AccessDenied", "Roles may not be assumed by root accounts.")


@requirement("IAM-STS-16")
def test_role_assumes_itself_only_if_it_trusts_itself(cloud: Lab) -> None:
    """IAM-STS-16."""
    assert cloud.refusal(pod_session({}), NOTES) == denied("sts:AssumeRole", NOTES_SESSION, NOTES)
    cloud.role(NOTES, trust({"AWS": NOTES}))
    assert cloud.assume(pod_session({}), NOTES).credential.chained


@requirement("IAM-STS-10")
@pytest.mark.parametrize("limit", ["boundary", "session"])
def test_boundary_and_session_policies_of_the_caller_count(cloud: Lab, limit: str) -> None:
    """IAM-STS-10, IAM-STS-19."""
    other = allow("s3:*")
    caller = pod_session({})
    if limit == "boundary":
        cloud.role(NOTES, "", [allow("*")], boundary=other)
    else:
        caller = replace(caller, session_policies=(other.document,))

    assert cloud.refusal(caller) == denied("sts:AssumeRole", NOTES_SESSION)


@requirement("API-609")
def test_external_id_is_compared_by_the_trust_policy(cloud: Lab) -> None:
    """S19: absent and wrong ones are denied alike."""
    external_id = "eu-west-1/123456789012/pod-identity-lab/demo/s3-reader"
    cloud.role(TARGET, trust({"AWS": ALICE}, condition={"StringEquals": {"sts:ExternalId": external_id}}))

    assert cloud.refusal(user()) == denied("sts:AssumeRole")
    assert cloud.refusal(user(), external_id=external_id + "x") == denied("sts:AssumeRole")
    assert cloud.assume(user(), external_id=external_id).request.external_id == external_id


@requirement("IAM-DOC-07")
def test_unreadable_trust_policy_denies_and_is_told_to_the_lab_only(
    cloud: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    """IAM-DOC-07."""
    cloud.role(TARGET, "{")

    assert cloud.refusal(user()) == denied("sts:AssumeRole")
    assert "undecidable, therefore denied" in caplog.text


# --- source identity ------------------------------------------------------------------------------------------------


@requirement("IAM-STS-12")
def test_source_identity_needs_its_own_permission(cloud: Lab) -> None:
    """S20, IAM-STS-12."""
    cloud.role(TARGET, trust({"AWS": ALICE}))

    assert cloud.refusal(user(), source_identity="alice") == denied("sts:SetSourceIdentity")


@requirement("IAM-STS-12")
def test_source_identity_rides_along_and_cannot_be_changed(cloud: Lab) -> None:
    """S20, IAM-STS-12."""
    first = cloud.assume(user(), source_identity="alice").credential
    last = f"arn:aws:iam::{A}:role/last"
    condition = {"StringEquals": {"sts:SourceIdentity": "alice"}}
    cloud.role(last, trust({"AWS": TARGET}, *ALL_STS, condition=condition))
    session = "arn:aws:sts::123456789012:assumed-role/target/me"

    assert cloud.assume(first, last).credential.source_identity == "alice"
    assert cloud.assume(first, last, source_identity="alice").credential.source_identity == "alice"
    cloud.role(last, trust({"AWS": TARGET}, *ALL_STS))
    assert cloud.refusal(first, last, source_identity="bob") == denied("sts:SetSourceIdentity", session, last)
    cloud.role(last, trust({"AWS": TARGET}, "sts:AssumeRole"))
    assert cloud.refusal(first, last) == denied("sts:SetSourceIdentity", session, last)


# --- tags -----------------------------------------------------------------------------------------------------------


@requirement("IAM-STS-11")
def test_passed_tags_need_tag_session_in_the_trust_policy(cloud: Lab) -> None:
    """S05."""
    cloud.role(TARGET, trust({"AWS": f"arn:aws:iam::{A}:root"}))

    assert cloud.refusal(user(), tags=(("team", "x"),)) == denied("sts:TagSession")


@requirement("IAM-STS-11")
def test_passed_tags_need_tag_session_of_the_caller(cloud: Lab) -> None:
    """IAM-STS-11."""
    cloud.user(allow("sts:AssumeRole"))

    assert cloud.refusal(user(), tags=(("team", "x"),)) == denied("sts:TagSession")


@requirement("IAM-STS-11", "IAM-ABAC-08")
def test_inherited_tags_need_tag_session_too(cloud: Lab) -> None:
    """S06."""
    cloud.role(TARGET, trust({"AWS": NOTES}))

    assert cloud.refusal(pod_session()) == denied("sts:TagSession", NOTES_SESSION)


@requirement("IAM-ABAC-03")
def test_inherited_tags_win_over_those_of_the_role_and_stay_transitive(cloud: Lab) -> None:
    """S07."""
    cloud.role(TARGET, trust({"AWS": NOTES}, *ALL_STS), tags={"Kubernetes-Namespace": "prod", "cost": "1"})

    assumed = cloud.assume(pod_session())

    assert assumed.credential.principal.tags == SIX_TAGS | {"cost": "1"}
    assert assumed.credential.transitive_tags == SIX_TAGS
    assert assumed.inherited_tags == SIX_TAGS


@requirement("IAM-STS-30", "IAM-ABAC-08")
def test_inherited_transitive_keys_cannot_be_passed(cloud: Lab) -> None:
    """S08."""
    cloud.role(TARGET, trust({"AWS": NOTES}, *ALL_STS))

    assert cloud.refusal(pod_session(), tags=(("Kubernetes-Namespace", "team-b"),)) == (
        400,
        "InvalidParameterValue",
        (
            "One of the specified transitive tag keys can't be set because it conflicts with a transitive tag key"
            " from the calling session."
        ),
    )


@requirement("IAM-STS-30")
def test_keys_that_differ_in_case_only_are_duplicates(cloud: Lab) -> None:
    """S09."""
    assert cloud.refusal(user(), tags=(("Team", "a"), ("team", "b"))) == (
        400,
        "InvalidParameterValue",
        "Duplicate tag keys found. Please note that Tag keys are case insensitive.",
    )


@requirement("IAM-STS-30")
def test_transitive_keys_must_be_passed(cloud: Lab) -> None:
    """S10."""
    assert cloud.refusal(user(), tags=(("team", "a"),), transitive_tag_keys=("cost",)) == (
        400,
        "InvalidParameterValue",
        "The specified transitive tag key must be included in the requested tags.",
    )


@requirement("IAM-CTX-05", "IAM-STS-20")
def test_request_tags_are_the_passed_ones_and_principal_tags_the_callers(cloud: Lab) -> None:
    """IAM-CTX-05."""
    condition = {
        "StringEquals": {"aws:RequestTag/team": "x", "aws:PrincipalTag/kubernetes-namespace": "team-a"},
        "ForAllValues:StringEquals": {"aws:TagKeys": ["team"], "sts:TransitiveTagKeys": ["team"]},
        "Null": {"aws:RequestTag/kubernetes-namespace": "true"},
    }
    cloud.role(TARGET, trust({"AWS": NOTES}, *ALL_STS, condition=condition))
    tags = (("team", "x"),)

    assert (
        cloud.assume(pod_session(), tags=tags, transitive_tag_keys=("team",)).credential.transitive_tags["team"] == "x"
    )
    assert cloud.refusal(pod_session()) == denied("sts:AssumeRole", NOTES_SESSION)


@requirement("IAM-STS-21")
@pytest.mark.parametrize("key", ["aws:RequestTag/kubernetes-namespace", "aws:PrincipalTag/kubernetes-namespace"])
def test_inherited_tags_may_be_shown_as_request_tags_too(cloud: Lab, key: str) -> None:
    """IAM-STS-21."""
    condition = {"StringEquals": {key: "team-a"}}
    cloud.role(TARGET, trust({"AWS": NOTES}, *ALL_STS, condition=condition))

    assert cloud.assume(pod_session(), inherited_as_request_tags=True)


# --- duration -------------------------------------------------------------------------------------------------------


@requirement("IAM-STS-15")
def test_chained_sessions_last_an_hour_at_most(cloud: Lab) -> None:
    """S11, IAM-STS-15."""
    cloud.role(TARGET, trust({"AWS": NOTES}, *ALL_STS), max_session_seconds=43200)

    assert cloud.refusal(pod_session(), duration_seconds=7200) == (
        400,
        "ValidationError",
        "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining",
    )
    assert cloud.assume(pod_session(), duration_seconds=3600).duration_seconds == 3600
    assert cloud.assume(pod_session()).credential.expires_at == START + timedelta(hours=1)


# --- services -------------------------------------------------------------------------------------------------------


@requirement("IAM-STS-17")
def test_eks_auth_is_decided_by_trust_alone_and_gets_six_hours(cloud: Lab) -> None:
    """S14, S23, IAM-STS-17."""
    cloud.role(NOTES, trust({"Service": "pods.eks.amazonaws.com"}, *ALL_STS), tags={"Kubernetes-Namespace": "prod"})
    tags = tuple(SIX_TAGS.items())

    assumed = cloud.assume(PODS, NOTES, tags=tags, transitive_tag_keys=tuple(SIX_TAGS), duration_seconds=21600)

    credential = assumed.credential
    assert credential.expires_at == START + timedelta(hours=6)
    assert credential.principal.tags == SIX_TAGS
    assert credential.transitive_tags == SIX_TAGS
    assert not credential.chained
    assert assumed.packed_policy_size == 36


@requirement("IAM-STS-20", "IAM-STS-22")
def test_trust_conditions_see_the_cluster_behind_the_service(cloud: Lab) -> None:
    """IAM-STS-22."""
    condition = {
        "StringEquals": {
            "aws:SourceAccount": A,
            "aws:RequestTag/kubernetes-namespace": "team-a",
            "aws:PrincipalServiceName": "pods.eks.amazonaws.com",
            "sts:RoleSessionName": "me",
        },
        "ArnEquals": {"aws:SourceArn": CLUSTER_ARN},
        "Bool": {"aws:PrincipalIsAWSService": "true"},
        "ForAllValues:StringEquals": {"aws:TagKeys": list(SIX_TAGS), "sts:TransitiveTagKeys": list(SIX_TAGS)},
    }
    cloud.role(NOTES, trust({"Service": "pods.eks.amazonaws.com"}, *ALL_STS, condition=condition))
    parameters: dict[str, Any] = {"tags": tuple(SIX_TAGS.items()), "transitive_tag_keys": tuple(SIX_TAGS)}

    assert cloud.assume(PODS, NOTES, source_arn=CLUSTER_ARN, source_account=A, **parameters)
    association = f"arn:aws:eks:eu-west-1:{A}:podidentityassociation/pod-identity-lab/a-linwcpce6l3rppbxu"
    refusal = cloud.refusal(PODS, NOTES, source_arn=association, source_account=A, **parameters)
    assert refusal == denied("sts:AssumeRole", "pods.eks.amazonaws.com", NOTES)


@requirement("IAM-EVAL-09")
def test_service_that_is_not_trusted_is_denied(cloud: Lab) -> None:
    ec2 = replace(PODS, service="ec2.amazonaws.com")

    assert cloud.refusal(ec2, NOTES) == denied("sts:AssumeRole", "ec2.amazonaws.com", NOTES)


@requirement("IAM-STS-18")
def test_target_session_is_chained_and_needs_all_four_permissions(cloud: Lab) -> None:
    """S15, IAM-STS-18."""
    role = f"arn:aws:iam::{B}:role/target"
    cloud.role(role, trust({"AWS": NOTES}, *ALL_STS))
    hop: dict[str, Any] = {"duration_seconds": 3540, "inherited_as_request_tags": True}

    credential = cloud.assume(pod_session(), role, **hop).credential

    assert credential.expires_at == START + timedelta(seconds=3540)
    assert (credential.principal.account, credential.chained) == (B, True)
    assert credential.principal.tags == SIX_TAGS
    cloud.role(NOTES, "", [allow("sts:AssumeRole")])
    assert cloud.refusal(pod_session(), role, **hop) == denied("sts:TagSession", NOTES_SESSION, role)
    cloud.role(NOTES, "", [allow("sts:TagSession")])
    assert cloud.refusal(pod_session(), role, **hop) == denied("sts:AssumeRole", NOTES_SESSION, role)
    cloud.role(NOTES, "", [allow(*ALL_STS)])
    cloud.role(role, trust({"AWS": NOTES}, "sts:TagSession"))
    assert cloud.refusal(pod_session(), role, **hop) == denied("sts:AssumeRole", NOTES_SESSION, role)


# --- parameters -----------------------------------------------------------------------------------------------------


@requirement("IAM-STS-30")
@pytest.mark.parametrize("text", ["{", "[]", '"x"', "{}", '{"Statement":[]}', "[" * 2000])
def test_session_policy_must_be_a_policy(cloud: Lab, text: str) -> None:
    assert cloud.refusal(user(), policy=text) == (400, "MalformedPolicyDocument", "Syntax errors in policy.")


# --- packing --------------------------------------------------------------------------------------------------------


@requirement("IAM-STS-30", "IAM-STS-32")
def test_too_many_tags_are_refused(cloud: Lab) -> None:
    """IAM-STS-30, IAM-STS-32."""
    tags = tuple((f"key-{number}", "v" * 248) for number in range(3))

    assert cloud.refusal(user(), tags=tags) == (
        400,
        "PackedPolicyTooLarge",
        "Packed size of session tags consumes 110% of allotted space.",
    )


@requirement("IAM-STS-30")
def test_too_large_policies_are_refused(cloud: Lab) -> None:
    noise = SeededIds().letters(1900, string.ascii_letters + string.digits)
    status, code, message = cloud.refusal(
        user(), policy=policy({"Effect": "Allow", "Action": f"s3:{noise}", "Resource": "*"})
    )

    assert (status, code) == (400, "PackedPolicyTooLarge")
    assert message.startswith("Packed policy consumes 1")
    assert message.endswith("% of allotted space, please use smaller policy.")


@requirement("IAM-STS-31")
def test_inherited_tags_take_room_too(cloud: Lab) -> None:
    """IAM-STS-31."""
    cloud.role(TARGET, trust({"AWS": NOTES}, *ALL_STS))

    assert cloud.assume(pod_session()).packed_policy_size == 36


_names = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=63)


@requirement("IAM-STS-31", "IAM-STS-32")
@given(_names, _names, _names, st.text("abcdefghij-", min_size=1, max_size=100))
def test_six_tags_of_pod_identity_always_fit(namespace: str, account: str, pod: str, cluster: str) -> None:
    """IAM-STS-32, IAM-STS-31."""
    tags = SIX_TAGS | {
        "eks-cluster-arn": f"arn:aws-us-gov:eks:us-gov-west-1:{A}:cluster/{cluster}",
        "eks-cluster-name": cluster,
        "kubernetes-namespace": namespace,
        "kubernetes-service-account": account,
        "kubernetes-pod-name": pod,
    }
    size = packed_size(tags, ())

    assert size is not None
    assert 1 <= size <= 100
    assert size <= (packed_size(tags | {"kubernetes-pod-name": pod + "x"}, ()) or 0)


# --- session policies and identity ----------------------------------------------------------------------------------


@requirement("IAM-STS-19")
def test_session_policies_are_kept_with_the_session(cloud: Lab) -> None:
    """IAM-STS-19."""
    inline, managed = allow("s3:GetObject").document, allow("s3:ListBucket").document
    arn = f"arn:aws:iam::{A}:policy/lists"

    assumed = cloud.assume(user(), policy=inline, policy_arns=(arn,), managed_policy={arn: managed}.get)

    assert assumed.credential.session_policies == (inline, managed)
    assert assumed.packed_policy_size is not None
    policies = role_policies(assumed.credential, cloud.iam)
    assert policies.session is not None
    assert [entry.document for entry in policies.session] == [inline, managed]


@requirement("IAM-GATE-04")
def test_policies_of_a_session_are_those_of_its_role_now(cloud: Lab) -> None:
    boundary = NamedPolicy(f"arn:aws:iam::{A}:policy/boundary", "{}")
    cloud.role(NOTES, "", [allow("s3:*")], boundary=boundary)

    policies = role_policies(pod_session(), cloud.iam)

    assert (policies.identity, policies.boundaries, policies.session) == ((allow("s3:*"),), (boundary,), None)


@requirement("IAM-STS-02")
def test_caller_identity_is_that_of_the_key() -> None:
    """IAM-STS-02, S21."""
    assert caller_identity(pod_session()) == {
        "UserId": "AROANOTESNOTESNOTES12:eks-pod-identi-notes-1",
        "Account": "123456789012",
        "Arn": "arn:aws:sts::123456789012:assumed-role/notes-app/eks-pod-identi-notes-1",
    }
