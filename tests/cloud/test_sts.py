"""AssumeRole where no requirement says it (``iam.md`` section 11)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from harness.cloud.sts import role_policies
from harness.subject.sts_lab import (
    ALICE,
    ALL_STS,
    NOTES,
    NOTES_SESSION,
    START,
    TARGET,
    A,
    B,
    Lab,
    allow,
    denied,
    pod_session,
    trust,
    user,
)


@pytest.fixture
def lab() -> Lab:
    """Alice may assume and tag the target role, which trusts her account."""
    return Lab.trusting_the_account()


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


def test_only_listed_tags_outlive_their_session(lab: Lab) -> None:
    """iam.md 11.4: role tags are never transitive, passed ones only if listed, whatever their case."""
    lab.role(TARGET, trust({"AWS": ALICE}, *ALL_STS), tags={"owner": "ops", "TEAM": "prod"})
    tags = (("team", "x"), ("cost", "1"))

    credential = lab.assume(user(), tags=tags, transitive_tag_keys=("Team",)).credential

    assert credential.principal.tags == {"owner": "ops", "team": "x", "cost": "1"}
    assert credential.transitive_tags == {"team": "x"}


def test_inherited_value_stands_for_the_roles_own_as_resource_tag(lab: Lab) -> None:
    """iam.md 11.4, 3."""
    condition = {"StringEquals": {"aws:ResourceTag/kubernetes-namespace": "team-a"}}
    lab.role(TARGET, trust({"AWS": NOTES}, *ALL_STS, condition=condition), tags={"Kubernetes-Namespace": "prod"})

    assert lab.assume(pod_session())
    lab.role(TARGET, trust({"AWS": NOTES}, *ALL_STS, condition=condition))
    assert lab.refusal(pod_session()) == denied("sts:AssumeRole", NOTES_SESSION)


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


@pytest.mark.parametrize("account", [A, B])
def test_managed_session_policies_must_exist_in_the_roles_account(lab: Lab, account: str) -> None:
    arn = f"arn:aws:iam::{account}:policy/lists"
    known = {f"arn:aws:iam::{B}:policy/lists": allow("s3:ListBucket").document}

    assert lab.refusal(user(), policy_arns=(arn,), managed_policy=known.get) == (
        400,
        "ValidationError",
        f"{arn} is invalid",
    )


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
