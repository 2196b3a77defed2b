"""AssumeRole and GetCallerIdentity (``iam.md`` section 11; examples of 18.2)."""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from domain_fakes import SeededIds, SettableClock, StoredIam
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.cloud.ports import Credential, NamedPolicy, Principal, Refusal, Role
from harness.cloud.session_tags import packed_size
from harness.cloud.sts import AssumedRole, AssumeRoleRequest, assume_role, caller_identity, role_policies

A = "123456789012"
B = "210987654321"
ALICE = f"arn:aws:iam::{A}:user/alice"
TARGET = f"arn:aws:iam::{A}:role/team/target"
NOTES = f"arn:aws:iam::{A}:role/notes-app"
NOTES_SESSION = f"arn:aws:sts::{A}:assumed-role/notes-app/eks-pod-identi-notes-1"
CLUSTER_ARN = f"arn:aws:eks:eu-west-1:{A}:cluster/pod-identity-lab"
SIX_TAGS = {
    "eks-cluster-arn": CLUSTER_ARN,
    "eks-cluster-name": "pod-identity-lab",
    "kubernetes-namespace": "team-a",
    "kubernetes-service-account": "app",
    "kubernetes-pod-name": "test",
    "kubernetes-pod-uid": "2b4e8f3c-1d55-4f0e-9a5e-6a1f0c7d9b21",
}
ALL_STS = ("sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity")
PODS = Principal(kind="service", arn="", account="", user_id="", service="pods.eks.amazonaws.com")
START = datetime(2026, 4, 10, 14, 0, tzinfo=UTC)


def policy(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def trust(principal: Any, *actions: str, condition: Any = None) -> str:
    """T(x) of the examples."""
    statement = {"Effect": "Allow", "Principal": principal, "Action": list(actions or ["sts:AssumeRole"])}
    return policy(statement | ({"Condition": condition} if condition else {}))


def allow(*actions: str, resource: str = "*") -> NamedPolicy:
    return NamedPolicy("inline:allow", policy({"Effect": "Allow", "Action": list(actions), "Resource": resource}))


def user(**changes: Any) -> Credential:
    principal = Principal(kind="user", arn=ALICE, account=A, user_id="AIDAEXAMPLEEXAMPLE12")
    values: dict[str, Any] = {"principal": principal, "issued_at": START, "expires_at": None, "origin": "iam-user"}
    return Credential("AKIAEXAMPLE", "secret", None, **values | changes)


def pod_session(tags: dict[str, str] = SIX_TAGS, **changes: Any) -> Credential:
    """A Pod Identity session of notes-app."""
    principal = Principal(
        kind="role-session",
        arn=NOTES_SESSION,
        account=A,
        user_id="AROANOTESNOTESNOTES12:eks-pod-identi-notes-1",
        role_arn=NOTES,
        tags=tags,
    )
    values: dict[str, Any] = {
        "principal": principal,
        "issued_at": START,
        "expires_at": START + timedelta(hours=6),
        "transitive_tags": tags,
        "session_name": "eks-pod-identi-notes-1",
        "origin": "pod-identity",
    }
    return Credential("ASIAEXAMPLE", "secret", "token", **values | changes)


@dataclass
class Lab:
    """IAM as a test arranges it, and STS over it."""

    iam: StoredIam = field(default_factory=StoredIam)
    clock: SettableClock = field(default_factory=SettableClock)
    ids: SeededIds = field(default_factory=SeededIds)

    def role(self, arn: str, trust_policy: str, policies: Sequence[NamedPolicy] = (), **changes: Any) -> None:
        name, account = arn.rpartition("/")[2], arn.split(":")[4]
        role_id = "AROANOTESNOTESNOTES12" if arn == NOTES else "AROATARGETTARGETTAR12"
        values: dict[str, Any] = {"boundary": None, "tags": {}}
        self.iam.roles[arn] = Role(arn, name, role_id, account, trust_policy, tuple(policies), **values | changes)

    def user(self, *policies: NamedPolicy) -> None:
        self.iam.users = {ALICE: policies}

    def assume(self, caller: Credential | Principal, role: str = TARGET, **changes: Any) -> AssumedRole:
        outside = {"source_arn", "source_account", "inherited_as_request_tags", "context", "managed_policy"}
        options: dict[str, Any] = {name: value for name, value in changes.items() if name in outside}
        values: dict[str, Any] = {"role_session_name": "me"} | {k: v for k, v in changes.items() if k not in outside}
        request = AssumeRoleRequest(role_arn=role, **values)
        return assume_role(request, caller, self.iam, self.ids, self.clock, **options)

    def refusal(self, caller: Credential | Principal, role: str = TARGET, **changes: Any) -> tuple[int, str, str]:
        with pytest.raises(Refusal) as refusal:
            self.assume(caller, role, **changes)
        return refusal.value.status, refusal.value.code, refusal.value.message


@pytest.fixture
def lab() -> Lab:
    """Alice may assume and tag the target role, which trusts her account."""
    lab = Lab()
    lab.role(TARGET, trust({"AWS": f"arn:aws:iam::{A}:root"}, *ALL_STS))
    lab.role(NOTES, trust({"Service": "pods.eks.amazonaws.com"}, *ALL_STS), [allow(*ALL_STS)])
    lab.user(allow(*ALL_STS))
    return lab


def denied(action: str, caller: str = ALICE, role: str = TARGET) -> tuple[int, str, str]:
    return 403, "AccessDenied", f"User: {caller} is not authorized to perform: {action} on resource: {role}"


# --- decision -------------------------------------------------------------------------------------------------------


def test_account_trust_and_identity_permission_give_a_session(lab: Lab) -> None:
    """S01, IAM-STS-01."""
    lab.role(TARGET, trust({"AWS": f"arn:aws:iam::{A}:root"}))
    lab.user(allow("sts:AssumeRole", resource=TARGET))

    assumed = lab.assume(user())

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


def test_direct_trust_needs_no_identity_permission_in_the_account(lab: Lab) -> None:
    """S02."""
    lab.role(TARGET, trust({"AWS": ALICE}))
    lab.user()

    assert lab.assume(user()).credential.principal.role_arn == TARGET


def test_account_trust_without_identity_permission_is_denied(lab: Lab) -> None:
    """S03, IAM-MSG-04."""
    lab.user()

    assert lab.refusal(user()) == denied("sts:AssumeRole")


def test_role_of_another_account_needs_both_sides(lab: Lab) -> None:
    """S04."""
    role = f"arn:aws:iam::{B}:role/target"
    lab.role(role, trust({"AWS": NOTES}))
    lab.role(NOTES, "", [])
    caller = pod_session({})

    assert lab.refusal(caller, role) == denied("sts:AssumeRole", NOTES_SESSION, role)
    lab.role(NOTES, "", [allow("sts:AssumeRole")])
    assert lab.assume(caller, role).credential.principal.account == B


def test_absent_role_answers_like_one_that_refuses(lab: Lab) -> None:
    """IAM-STS-13: not even its maximum duration shows."""
    absent = f"arn:aws:iam::{A}:role/no-such-role"
    lab.role(TARGET, trust({"AWS": f"arn:aws:iam::{B}:root"}))

    assert lab.refusal(user(), absent, duration_seconds=43200) == denied("sts:AssumeRole", role=absent)
    assert lab.refusal(user(), duration_seconds=43200) == denied("sts:AssumeRole")


def test_root_assumes_no_role(lab: Lab) -> None:
    """IAM-STS-14."""
    root = Principal(kind="root", arn=f"arn:aws:iam::{A}:root", account=A, user_id=A)

    assert lab.refusal(user(principal=root)) == (403, "AccessDenied", "Roles may not be assumed by root accounts.")


def test_role_assumes_itself_only_if_it_trusts_itself(lab: Lab) -> None:
    """IAM-STS-16."""
    assert lab.refusal(pod_session({}), NOTES) == denied("sts:AssumeRole", NOTES_SESSION, NOTES)
    lab.role(NOTES, trust({"AWS": NOTES}))
    assert lab.assume(pod_session({}), NOTES).credential.chained


@pytest.mark.parametrize("limit", ["boundary", "session"])
def test_boundary_and_session_policies_of_the_caller_count(lab: Lab, limit: str) -> None:
    """IAM-STS-10, IAM-STS-19."""
    other = allow("s3:*")
    caller = pod_session({})
    if limit == "boundary":
        lab.role(NOTES, "", [allow("*")], boundary=other)
    else:
        caller = replace(caller, session_policies=(other.document,))

    assert lab.refusal(caller) == denied("sts:AssumeRole", NOTES_SESSION)


def test_external_id_is_compared_by_the_trust_policy(lab: Lab) -> None:
    """S19: absent and wrong ones are denied alike."""
    external_id = "eu-west-1/123456789012/pod-identity-lab/demo/s3-reader"
    lab.role(TARGET, trust({"AWS": ALICE}, condition={"StringEquals": {"sts:ExternalId": external_id}}))

    assert lab.refusal(user()) == denied("sts:AssumeRole")
    assert lab.refusal(user(), external_id=external_id + "x") == denied("sts:AssumeRole")
    assert lab.assume(user(), external_id=external_id).request.external_id == external_id


def test_unreadable_trust_policy_denies_and_is_told_to_the_lab_only(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    """IAM-DOC-07."""
    lab.role(TARGET, "{")

    assert lab.refusal(user()) == denied("sts:AssumeRole")
    assert "undecidable, therefore denied" in caplog.text


def test_keys_of_the_call_reach_the_policies(lab: Lab) -> None:
    lab.role(TARGET, trust({"AWS": ALICE}, condition={"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}))

    assert lab.assume(user(), context={"aws:SourceIp": "10.0.0.1"})
    assert lab.refusal(user(), context={"aws:SourceIp": "11.0.0.1"}) == denied("sts:AssumeRole")


def test_stored_tags_of_the_role_are_resource_tags(lab: Lab) -> None:
    condition = {"StringEquals": {"aws:ResourceTag/team": "a", "iam:ResourceTag/team": "a"}}
    lab.role(TARGET, trust({"AWS": ALICE}, condition=condition), tags={"Team": "a"})

    assert lab.assume(user())
    lab.role(TARGET, trust({"AWS": ALICE}, condition=condition), tags={"Team": "b"})
    assert lab.refusal(user()) == denied("sts:AssumeRole")


# --- source identity ------------------------------------------------------------------------------------------------


def test_source_identity_needs_its_own_permission(lab: Lab) -> None:
    """S20, IAM-STS-12."""
    lab.role(TARGET, trust({"AWS": ALICE}))

    assert lab.refusal(user(), source_identity="alice") == denied("sts:SetSourceIdentity")


def test_source_identity_rides_along_and_cannot_be_changed(lab: Lab) -> None:
    """S20, IAM-STS-12."""
    first = lab.assume(user(), source_identity="alice").credential
    last = f"arn:aws:iam::{A}:role/last"
    condition = {"StringEquals": {"sts:SourceIdentity": "alice"}}
    lab.role(last, trust({"AWS": TARGET}, *ALL_STS, condition=condition))
    session = "arn:aws:sts::123456789012:assumed-role/target/me"

    assert lab.assume(first, last).credential.source_identity == "alice"
    assert lab.assume(first, last, source_identity="alice").credential.source_identity == "alice"
    lab.role(last, trust({"AWS": TARGET}, *ALL_STS))
    assert lab.refusal(first, last, source_identity="bob") == denied("sts:SetSourceIdentity", session, last)
    lab.role(last, trust({"AWS": TARGET}, "sts:AssumeRole"))
    assert lab.refusal(first, last) == denied("sts:SetSourceIdentity", session, last)


# --- tags -----------------------------------------------------------------------------------------------------------


def test_passed_tags_need_tag_session_in_the_trust_policy(lab: Lab) -> None:
    """S05."""
    lab.role(TARGET, trust({"AWS": f"arn:aws:iam::{A}:root"}))

    assert lab.refusal(user(), tags=(("team", "x"),)) == denied("sts:TagSession")


def test_passed_tags_need_tag_session_of_the_caller(lab: Lab) -> None:
    """IAM-STS-11."""
    lab.user(allow("sts:AssumeRole"))

    assert lab.refusal(user(), tags=(("team", "x"),)) == denied("sts:TagSession")


def test_inherited_tags_need_tag_session_too(lab: Lab) -> None:
    """S06."""
    lab.role(TARGET, trust({"AWS": NOTES}))

    assert lab.refusal(pod_session()) == denied("sts:TagSession", NOTES_SESSION)


def test_inherited_tags_win_over_those_of_the_role_and_stay_transitive(lab: Lab) -> None:
    """S07."""
    lab.role(TARGET, trust({"AWS": NOTES}, *ALL_STS), tags={"Kubernetes-Namespace": "prod", "cost": "1"})

    assumed = lab.assume(pod_session())

    assert assumed.credential.principal.tags == SIX_TAGS | {"cost": "1"}
    assert assumed.credential.transitive_tags == SIX_TAGS
    assert assumed.inherited_tags == SIX_TAGS


def test_inherited_transitive_keys_cannot_be_passed(lab: Lab) -> None:
    """S08."""
    lab.role(TARGET, trust({"AWS": NOTES}, *ALL_STS))

    assert lab.refusal(pod_session(), tags=(("Kubernetes-Namespace", "team-b"),)) == (
        400,
        "InvalidParameterValue",
        (
            "One of the specified transitive tag keys can't be set because it conflicts with a transitive tag key"
            " from the calling session."
        ),
    )


def test_keys_that_differ_in_case_only_are_duplicates(lab: Lab) -> None:
    """S09."""
    assert lab.refusal(user(), tags=(("Team", "a"), ("team", "b"))) == (
        400,
        "InvalidParameterValue",
        "Duplicate tag keys found. Please note that Tag keys are case insensitive.",
    )


def test_transitive_keys_must_be_passed(lab: Lab) -> None:
    """S10."""
    assert lab.refusal(user(), tags=(("team", "a"),), transitive_tag_keys=("cost",)) == (
        400,
        "InvalidParameterValue",
        "The specified transitive tag key must be included in the requested tags.",
    )


def test_only_listed_tags_outlive_their_session(lab: Lab) -> None:
    """iam.md 11.4: role tags are never transitive, passed ones only if listed, whatever their case."""
    lab.role(TARGET, trust({"AWS": ALICE}, *ALL_STS), tags={"owner": "ops", "TEAM": "prod"})
    tags = (("team", "x"), ("cost", "1"))

    credential = lab.assume(user(), tags=tags, transitive_tag_keys=("Team",)).credential

    assert credential.principal.tags == {"owner": "ops", "team": "x", "cost": "1"}
    assert credential.transitive_tags == {"team": "x"}


def test_request_tags_are_the_passed_ones_and_principal_tags_the_callers(lab: Lab) -> None:
    """IAM-CTX-05."""
    condition = {
        "StringEquals": {"aws:RequestTag/team": "x", "aws:PrincipalTag/kubernetes-namespace": "team-a"},
        "ForAllValues:StringEquals": {"aws:TagKeys": ["team"], "sts:TransitiveTagKeys": ["team"]},
        "Null": {"aws:RequestTag/kubernetes-namespace": "true"},
    }
    lab.role(TARGET, trust({"AWS": NOTES}, *ALL_STS, condition=condition))
    tags = (("team", "x"),)

    assert lab.assume(pod_session(), tags=tags, transitive_tag_keys=("team",)).credential.transitive_tags["team"] == "x"
    assert lab.refusal(pod_session()) == denied("sts:AssumeRole", NOTES_SESSION)


@pytest.mark.parametrize("key", ["aws:RequestTag/kubernetes-namespace", "aws:PrincipalTag/kubernetes-namespace"])
def test_inherited_tags_may_be_shown_as_request_tags_too(lab: Lab, key: str) -> None:
    """IAM-STS-21."""
    condition = {"StringEquals": {key: "team-a"}}
    lab.role(TARGET, trust({"AWS": NOTES}, *ALL_STS, condition=condition))

    assert lab.assume(pod_session(), inherited_as_request_tags=True)


def test_inherited_value_stands_for_the_roles_own_as_resource_tag(lab: Lab) -> None:
    """iam.md 11.4, 3."""
    condition = {"StringEquals": {"aws:ResourceTag/kubernetes-namespace": "team-a"}}
    lab.role(TARGET, trust({"AWS": NOTES}, *ALL_STS, condition=condition), tags={"Kubernetes-Namespace": "prod"})

    assert lab.assume(pod_session())
    lab.role(TARGET, trust({"AWS": NOTES}, *ALL_STS, condition=condition))
    assert lab.refusal(pod_session()) == denied("sts:AssumeRole", NOTES_SESSION)


# --- duration -------------------------------------------------------------------------------------------------------


def test_chained_sessions_last_an_hour_at_most(lab: Lab) -> None:
    """S11, IAM-STS-15."""
    lab.role(TARGET, trust({"AWS": NOTES}, *ALL_STS), max_session_seconds=43200)

    assert lab.refusal(pod_session(), duration_seconds=7200) == (
        400,
        "ValidationError",
        "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining",
    )
    assert lab.assume(pod_session(), duration_seconds=3600).duration_seconds == 3600
    assert lab.assume(pod_session()).credential.expires_at == START + timedelta(hours=1)


def test_maximum_of_the_role_limits_users(lab: Lab) -> None:
    """S12."""
    assert lab.refusal(user(), duration_seconds=7200) == (
        400,
        "ValidationError",
        "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.",
    )
    lab.role(TARGET, trust({"AWS": ALICE}), max_session_seconds=7200)
    assert lab.assume(user(), duration_seconds=7200).credential.expires_at == START + timedelta(hours=2)


def test_expiry_is_a_whole_second(lab: Lab) -> None:
    lab.clock.advance(0.75)

    assert lab.assume(user()).credential.expires_at == START + timedelta(hours=1)


# --- services -------------------------------------------------------------------------------------------------------


def test_eks_auth_is_decided_by_trust_alone_and_gets_six_hours(lab: Lab) -> None:
    """S14, S23, IAM-STS-17."""
    lab.role(NOTES, trust({"Service": "pods.eks.amazonaws.com"}, *ALL_STS), tags={"Kubernetes-Namespace": "prod"})
    tags = tuple(SIX_TAGS.items())

    assumed = lab.assume(PODS, NOTES, tags=tags, transitive_tag_keys=tuple(SIX_TAGS), duration_seconds=21600)

    credential = assumed.credential
    assert credential.expires_at == START + timedelta(hours=6)
    assert credential.principal.tags == SIX_TAGS
    assert credential.transitive_tags == SIX_TAGS
    assert not credential.chained
    assert assumed.packed_policy_size == 36


def test_trust_conditions_see_the_cluster_behind_the_service(lab: Lab) -> None:
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
    lab.role(NOTES, trust({"Service": "pods.eks.amazonaws.com"}, *ALL_STS, condition=condition))
    parameters: dict[str, Any] = {"tags": tuple(SIX_TAGS.items()), "transitive_tag_keys": tuple(SIX_TAGS)}

    assert lab.assume(PODS, NOTES, source_arn=CLUSTER_ARN, source_account=A, **parameters)
    association = f"arn:aws:eks:eu-west-1:{A}:podidentityassociation/pod-identity-lab/a-linwcpce6l3rppbxu"
    refusal = lab.refusal(PODS, NOTES, source_arn=association, source_account=A, **parameters)
    assert refusal == denied("sts:AssumeRole", "pods.eks.amazonaws.com", NOTES)


def test_service_that_is_not_trusted_is_denied(lab: Lab) -> None:
    ec2 = replace(PODS, service="ec2.amazonaws.com")

    assert lab.refusal(ec2, NOTES) == denied("sts:AssumeRole", "ec2.amazonaws.com", NOTES)


def test_target_session_is_chained_and_needs_all_four_permissions(lab: Lab) -> None:
    """S15, IAM-STS-18."""
    role = f"arn:aws:iam::{B}:role/target"
    lab.role(role, trust({"AWS": NOTES}, *ALL_STS))
    hop: dict[str, Any] = {"duration_seconds": 3540, "inherited_as_request_tags": True}

    credential = lab.assume(pod_session(), role, **hop).credential

    assert credential.expires_at == START + timedelta(seconds=3540)
    assert (credential.principal.account, credential.chained) == (B, True)
    assert credential.principal.tags == SIX_TAGS
    lab.role(NOTES, "", [allow("sts:AssumeRole")])
    assert lab.refusal(pod_session(), role, **hop) == denied("sts:TagSession", NOTES_SESSION, role)
    lab.role(NOTES, "", [allow("sts:TagSession")])
    assert lab.refusal(pod_session(), role, **hop) == denied("sts:AssumeRole", NOTES_SESSION, role)
    lab.role(NOTES, "", [allow(*ALL_STS)])
    lab.role(role, trust({"AWS": NOTES}, "sts:TagSession"))
    assert lab.refusal(pod_session(), role, **hop) == denied("sts:AssumeRole", NOTES_SESSION, role)


# --- parameters -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameter", "value", "text"),
    [
        ("role_session_name", "a b", r"'a b' at 'roleSessionName'|satisfy regular expression pattern: [\w+=,.@-]*"),
        ("role_session_name", "x", "'x' at 'roleSessionName'|have length greater than or equal to 2"),
        ("role_session_name", "x" * 65, f"'{'x' * 65}' at 'roleSessionName'|have length less than or equal to 64"),
        (
            "role_session_name",
            "ümlaut",
            r"'ümlaut' at 'roleSessionName'|satisfy regular expression pattern: [\w+=,.@-]*",
        ),
        ("role_session_name", "ab\n", "'ab\n' at 'roleSessionName'|satisfy regular expression pattern: [\\w+=,.@-]*"),
        ("role_session_name", None, "null at 'roleSessionName'|not be null"),
        ("duration_seconds", 899, "'899' at 'durationSeconds'|have value greater than or equal to 900"),
        ("duration_seconds", 43201, "'43201' at 'durationSeconds'|have value less than or equal to 43200"),
        ("external_id", "a b", r"'a b' at 'externalId'|satisfy regular expression pattern: [\w+=,.@:\/-]*"),
        ("source_identity", "aws:x", r"'aws:x' at 'sourceIdentity'|satisfy regular expression pattern: [\w+=,.@-]*"),
        ("policy", "", r"'' at 'policy'|satisfy regular expression pattern: [\u0009\u000A\u000D\u0020-\u00FF]+"),
        (
            "policy_arns",
            ("arn:short",),
            "'arn:short' at 'policyArns.1.member.arn'|have length greater than or equal to 20",
        ),
        ("tags", (("", "v"),), "'' at 'tags.1.member.key'|have length greater than or equal to 1"),
        (
            "tags",
            (("ok", "v"), ("a*", "v")),
            r"'a*' at 'tags.2.member.key'|satisfy regular expression pattern: [\p{L}\p{Z}\p{N}_.:/=+\-@]+",
        ),
        (
            "tags",
            (("ok", "v;"),),
            r"'v;' at 'tags.1.member.value'|satisfy regular expression pattern: [\p{L}\p{Z}\p{N}_.:/=+\-@]*",
        ),
        ("tags", (("AWS:x", "v"),), "'AWS:x' at 'tags.1.member.key'|not begin with aws:"),
    ],
)
def test_constraints_of_parameters(lab: Lab, parameter: str, value: Any, text: str) -> None:
    """S13, iam.md 11.2."""
    what, _, constraint = text.partition("|")
    status, code, message = lab.refusal(user(), **{parameter: value})

    assert (status, code) == (400, "ValidationError")
    assert f"Value {what} failed to satisfy constraint: Member must {constraint}" in message


def test_one_violation_is_told_alone(lab: Lab) -> None:
    assert lab.refusal(user(), role_session_name="a b") == (
        400,
        "ValidationError",
        (
            "1 validation error detected: Value 'a b' at 'roleSessionName' failed to satisfy constraint: "
            r"Member must satisfy regular expression pattern: [\w+=,.@-]*"
        ),
    )


def test_several_violations_are_told_together(lab: Lab) -> None:
    assert lab.refusal(user(), role_session_name="x", duration_seconds=1) == (
        400,
        "ValidationError",
        (
            "2 validation errors detected: Value 'x' at 'roleSessionName' failed to satisfy constraint: "
            "Member must have length greater than or equal to 2; "
            "Value '1' at 'durationSeconds' failed to satisfy constraint: "
            "Member must have value greater than or equal to 900"
        ),
    )


def test_fifty_tags_are_enough(lab: Lab) -> None:
    tags = tuple((f"k{number}", "") for number in range(51))

    assert (
        "at 'tags' failed to satisfy constraint: Member must have length less than or equal to 50"
        in (lab.refusal(user(), tags=tags)[2])
    )
    assert lab.assume(user(), tags=tags[:50]).credential.principal.tags == dict(tags[:50])


@pytest.mark.parametrize(
    "arn",
    [
        f"arn:aws:iam::{A}:user/alice-in-wonderland",
        f"arn:aws:sts::{A}:assumed-role/target/me",
        "arn:aws:iam::12345678901:role/target",
        f"arn:aws:iam::{A}:role/",
        f"arn:aws:iam::{A}:role/target\n",
    ],
)
def test_other_arns_are_no_roles(lab: Lab, arn: str) -> None:
    assert lab.refusal(user(), arn) == (400, "ValidationError", f"{arn} is invalid")


@pytest.mark.parametrize("text", ["{", "[]", '"x"', "{}", '{"Statement":[]}', "[" * 2000])
def test_session_policy_must_be_a_policy(lab: Lab, text: str) -> None:
    assert lab.refusal(user(), policy=text) == (400, "MalformedPolicyDocument", "Syntax errors in policy.")


# --- packing --------------------------------------------------------------------------------------------------------


def test_too_many_tags_are_refused(lab: Lab) -> None:
    """IAM-STS-30, IAM-STS-32."""
    tags = tuple((f"key-{number}", "v" * 248) for number in range(3))

    assert lab.refusal(user(), tags=tags) == (
        400,
        "PackedPolicyTooLarge",
        "Packed size of session tags consumes 110% of allotted space.",
    )


def test_too_large_policies_are_refused(lab: Lab) -> None:
    noise = SeededIds().letters(1900, string.ascii_letters + string.digits)
    status, code, message = lab.refusal(
        user(), policy=policy({"Effect": "Allow", "Action": f"s3:{noise}", "Resource": "*"})
    )

    assert (status, code) == (400, "PackedPolicyTooLarge")
    assert message.startswith("Packed policy consumes 1")
    assert message.endswith("% of allotted space, please use smaller policy.")


def test_inherited_tags_take_room_too(lab: Lab) -> None:
    """IAM-STS-31."""
    lab.role(TARGET, trust({"AWS": NOTES}, *ALL_STS))

    assert lab.assume(pod_session()).packed_policy_size == 36


_names = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=63)


@settings(max_examples=50, deadline=None)
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


def test_session_policies_are_kept_with_the_session(lab: Lab) -> None:
    """IAM-STS-19."""
    inline, managed = allow("s3:GetObject").document, allow("s3:ListBucket").document
    arn = f"arn:aws:iam::{A}:policy/lists"

    assumed = lab.assume(user(), policy=inline, policy_arns=(arn,), managed_policy={arn: managed}.get)

    assert assumed.credential.session_policies == (inline, managed)
    assert assumed.packed_policy_size is not None
    policies = role_policies(assumed.credential, lab.iam)
    assert policies.session is not None
    assert [entry.document for entry in policies.session] == [inline, managed]


@pytest.mark.parametrize("account", [A, B])
def test_managed_session_policies_must_exist_in_the_roles_account(lab: Lab, account: str) -> None:
    arn = f"arn:aws:iam::{account}:policy/lists"
    known = {f"arn:aws:iam::{B}:policy/lists": allow("s3:ListBucket").document}

    assert lab.refusal(user(), policy_arns=(arn,), managed_policy=known.get) == (
        400,
        "ValidationError",
        f"{arn} is invalid",
    )


def test_policies_of_a_session_are_those_of_its_role_now(lab: Lab) -> None:
    boundary = NamedPolicy(f"arn:aws:iam::{A}:policy/boundary", "{}")
    lab.role(NOTES, "", [allow("s3:*")], boundary=boundary)

    policies = role_policies(pod_session(), lab.iam)

    assert (policies.identity, policies.boundaries, policies.session) == ((allow("s3:*"),), (boundary,), None)


def test_session_of_a_role_that_was_made_again_has_no_permissions(lab: Lab) -> None:
    """IAM-EVAL-12: not even those that a policy gives to the ARN of the role."""
    lab.role(TARGET, trust({"AWS": NOTES}))
    assert lab.assume(pod_session({}))
    lab.iam.roles[NOTES] = replace(lab.iam.roles[NOTES], role_id="AROANEWNEWNEWNEWNEW12")

    assert role_policies(pod_session(), lab.iam).identity == ()
    assert lab.refusal(pod_session({})) == denied("sts:AssumeRole", NOTES_SESSION)


def test_session_of_a_deleted_role_has_no_permissions(lab: Lab) -> None:
    """IAM-EVAL-12."""
    lab.role(TARGET, trust({"AWS": NOTES}))
    del lab.iam.roles[NOTES]

    assert role_policies(pod_session(), lab.iam).identity == ()
    assert lab.refusal(pod_session({})) == denied("sts:AssumeRole", NOTES_SESSION)


def test_caller_identity_is_that_of_the_key() -> None:
    """IAM-STS-02, S21."""
    assert caller_identity(pod_session()) == {
        "UserId": "AROANOTESNOTESNOTES12:eks-pod-identi-notes-1",
        "Account": "123456789012",
        "Arn": "arn:aws:sts::123456789012:assumed-role/notes-app/eks-pod-identi-notes-1",
    }
