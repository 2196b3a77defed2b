"""Stored documents, callers and the traps of patterns (``iam.md`` sections 2 to 6 and 8.1)."""

from __future__ import annotations

from typing import Any

import pytest

from harness.cloud.iam import Grade
from harness.cloud.iam.policy import compile_policy
from harness.cloud.ports import NamedPolicy, Principal
from harness.conformance.marks import requirement
from harness.subject import sts_lab
from harness.subject.iam_requests import (
    ACCOUNT,
    ALLOW_ALL,
    ANONYMOUS,
    DENY_ALL,
    EKS,
    OBJECT,
    OTHER_ACCOUNT,
    POD,
    ROLE,
    ROOT,
    SESSION,
    USER,
    allows,
    alone,
    ask,
    policy,
)

HEAD = '{"Version": "2012-10-17", "Statement": '


def condition(operator: str, key: str, *values: Any) -> dict[str, Any]:
    return {**ALLOW_ALL, "Condition": {operator: {key: list(values)}}}


# --- documents ------------------------------------------------------------------------------------------------------


@requirement("IAM-DOC-07")
@pytest.mark.parametrize(
    ("document", "fault"),
    [
        ("", "not JSON"),
        ("[]", "the document is not an object"),
        ('{"Version": "2012-10-17"}', "no Statement"),
        ('{"Version": "2099-01-01", "Statement": []}', "unknown Version '2099-01-01'"),
        ('{"Version": "2012-10-17", "Statement": [], "Comment": ""}', "unknown elements: Comment"),
        (HEAD + '[{"Effect": "Allow", "Effect": "Deny", "Action": "*", "Resource": "*"}]}', "occurs twice"),
        (HEAD + '[{"Effect": "allow", "Action": "*", "Resource": "*"}]}', "no Effect that is Allow or Deny"),
        (HEAD + '[{"Effect": ["Deny"], "Action": "*", "Resource": "*"}]}', "no Effect that is Allow or Deny"),
        (HEAD + '[{"Effect": "Allow", "Resource": "*"}]}', "Action is neither"),
        (HEAD + '[{"Effect": "Allow", "Action": [], "Resource": "*"}]}', "Action is neither"),
        (HEAD + '[{"Effect": "Allow", "Action": 7, "Resource": "*"}]}', "Action is neither"),
        (HEAD + '[{"Effect": "Allow", "Action": "GetObject", "Resource": "*"}]}', "'GetObject' is no action"),
        (HEAD + '[{"Effect": "Allow", "Action": "s*:Get", "Resource": "*"}]}', "'s*:Get' is no action"),
        (HEAD + '[{"Effect": "Allow", "Action": "*"}]}', "Resource is neither"),
        (
            HEAD + '[{"Effect": "Allow", "Action": "*", "NotAction": "*", "Resource": "*"}]}',
            "both Action and NotAction",
        ),
        (HEAD + '[{"Effect": "Allow", "Action": "*", "Resource": "*", "Principal": "*"}]}', "has no Principal"),
        (HEAD + '[{"Effect": "Allow", "Action": "*", "Resource": "*", "Conditions": {}}]}', "elements: Conditions"),
        (
            HEAD + '[{"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {"Bool": {"a:b": null}}}]}',
            "NoneType",
        ),
        (HEAD + '[{"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {"Bool": {"a:b": NaN}}}]}', "NaN"),
        ("[" * 5000, "not JSON"),
        (HEAD + "9" * 5000 + "}", "too long"),
        (HEAD + "1e9999999999999999999}", "not JSON"),
    ],
)
def test_what_aws_would_not_have_stored_is_unreadable(document: str, fault: str) -> None:
    decision = ask(USER, identity=[policy(ALLOW_ALL), NamedPolicy("inline:broken", document)])

    assert not decision.allowed
    assert fault in decision.fault
    assert decision.reason() == "because no identity-based policy allows the s3:GetObject action"


@requirement("IAM-DOC-07")
def test_an_unreadable_bucket_policy_denies_too() -> None:
    with_star = policy({**ALLOW_ALL, "Principal": "arn:aws:iam::123456789012:root"})

    assert ask(USER, identity=[policy(ALLOW_ALL)], resource=with_star).layer == "resource"


@requirement("IAM-PERF-03")
def test_a_document_is_compiled_once() -> None:
    document = policy(ALLOW_ALL).document

    assert compile_policy(document, "identity-inline") is compile_policy(document, "identity-inline")
    assert compile_policy(document, "identity-inline") is not compile_policy(document, "scp")


@requirement("IAM-COND-12")
def test_an_empty_condition_is_true() -> None:
    assert allows(USER, {**ALLOW_ALL, "Condition": {}})
    assert allows(USER, {**ALLOW_ALL, "Condition": {"StringEquals": {}}})
    assert not allows(USER, condition("StringEquals", "aws:username"))
    assert allows(USER, condition("StringNotEquals", "aws:username"))


@requirement("IAM-STMT-09")
def test_white_space_in_an_action_never_matches() -> None:
    assert not allows(USER, {**ALLOW_ALL, "Action": "s3: GetObject"})
    assert allows(USER, {**ALLOW_ALL, "Action": "*:getobject"})


# --- principals -----------------------------------------------------------------------------------------------------

PATHLESS = Principal("role-session", SESSION, ACCOUNT, "AROAREADER:job-1")
NAMESAKE = ROLE.replace("/team/", "/other/")


@pytest.mark.parametrize(
    ("caller", "named", "grade"),
    [
        pytest.param(USER, {"AWS": "*"}, "direct", marks=requirement("IAM-PRIN-01")),
        pytest.param(ANONYMOUS, "*", "direct", marks=requirement("IAM-PRIN-01")),
        pytest.param(USER, {"AWS": USER.arn}, "direct", marks=requirement("IAM-PRIN-02")),
        pytest.param(USER, {"AWS": "AIDAALICE"}, "direct", marks=requirement("IAM-PRIN-02")),
        pytest.param(POD, {"AWS": SESSION}, "direct", marks=requirement("IAM-PRIN-02")),
        pytest.param(POD, {"AWS": ROLE}, "role", marks=requirement("IAM-PRIN-02", "IAM-PRIN-04")),
        pytest.param(POD, {"AWS": "AROAREADER"}, "role", marks=requirement("IAM-PRIN-02")),
        pytest.param(PATHLESS, {"AWS": NAMESAKE}, "role", marks=requirement("IAM-PRIN-04")),
        pytest.param(
            USER, {"AWS": [f"arn:aws:iam::{ACCOUNT}:root", USER.arn]}, "direct", marks=requirement("IAM-PRIN-08")
        ),
        pytest.param(POD, {"AWS": [ACCOUNT, ROLE]}, "role", marks=requirement("IAM-PRIN-08")),
        pytest.param(
            EKS,
            {"Service": ["ec2.amazonaws.com", "pods.eks.amazonaws.com"]},
            "service",
            marks=requirement("IAM-PRIN-05", "IAM-PRIN-08"),
        ),
    ],
)
def test_a_caller_is_named_in_a_grade(caller: Principal, named: object, grade: Grade) -> None:
    """How directly a policy names its caller is told apart."""
    decision = ask(caller, resource=policy({**ALLOW_ALL, "Principal": named}))

    assert (decision.allowed, decision.layer, decision.grade) == (True, "resource", grade)


@pytest.mark.parametrize(
    ("caller", "named"),
    [
        pytest.param(POD, {"AWS": NAMESAKE}, marks=requirement("IAM-PRIN-04")),
        pytest.param(POD, {"AWS": f"arn:aws:sts::{ACCOUNT}:assumed-role/reader/*"}, marks=requirement("IAM-PRIN-03")),
        pytest.param(POD, {"AWS": f"arn:aws:iam::{ACCOUNT}:role/team/r*"}, marks=requirement("IAM-PRIN-03")),
        pytest.param(POD, {"AWS": ROLE.replace(ACCOUNT, OTHER_ACCOUNT)}, marks=requirement("IAM-PRIN-02")),
        pytest.param(PATHLESS, {"AWS": NAMESAKE.replace(ACCOUNT, OTHER_ACCOUNT)}, marks=requirement("IAM-PRIN-04")),
        pytest.param(USER, {"AWS": ACCOUNT}, marks=requirement("IAM-PRIN-02")),
        pytest.param(USER, {"AWS": OTHER_ACCOUNT}, marks=requirement("IAM-PRIN-02")),
        pytest.param(USER, {"Service": USER.arn}, marks=requirement("IAM-PRIN-05")),
        pytest.param(USER, {"Service": "pods.eks.amazonaws.com"}, marks=requirement("IAM-PRIN-05")),
        pytest.param(EKS, {"Service": "*"}, marks=requirement("IAM-PRIN-05")),
        pytest.param(EKS, {"AWS": "pods.eks.amazonaws.com"}, marks=requirement("IAM-PRIN-05")),
        pytest.param(USER, {"CanonicalUser": "79a59df900b949e5"}, marks=requirement("IAM-PRIN-02")),
        pytest.param(ANONYMOUS, {"AWS": ""}, marks=requirement("IAM-EVAL-08")),
    ],
)
def test_a_caller_is_not_let_in_by_another_name(caller: Principal, named: object) -> None:
    """What does not name the caller lets nobody in."""
    assert not ask(caller, resource=policy({**ALLOW_ALL, "Principal": named})).allowed


@requirement("IAM-STMT-11")
def test_a_resource_policy_without_principal_is_about_nobody() -> None:
    decision = ask(USER, identity=[policy(ALLOW_ALL)], resource=policy(DENY_ALL))

    assert (decision.allowed, decision.layer, decision.fault) == (True, "identity", "")


@requirement("IAM-EVAL-08")
def test_leaving_a_principal_out_does_not_let_anonymous_callers_in() -> None:
    everybody_else = policy({**ALLOW_ALL, "NotPrincipal": {"AWS": USER.arn}})

    assert ask(POD, resource=everybody_else).allowed
    assert not ask(USER, resource=everybody_else).allowed
    assert not ask(ANONYMOUS, resource=everybody_else).allowed


# --- caller keys ----------------------------------------------------------------------------------------------------


@requirement("IAM-CTX-01")
@pytest.mark.parametrize(
    ("caller", "key", "value"),
    [
        (POD, "aws:PrincipalArn", ROLE),
        (PATHLESS, "aws:PrincipalArn", f"arn:aws:iam::{ACCOUNT}:role/reader"),
        (POD, "aws:PrincipalType", "AssumedRole"),
        (POD, "aws:userid", "AROAREADER:job-1"),
        (POD, "aws:username", None),
        (POD, "aws:PrincipalIsAWSService", "false"),
        (USER, "aws:PrincipalArn", USER.arn),
        (USER, "aws:PrincipalType", "User"),
        (USER, "aws:PrincipalAccount", ACCOUNT),
        (USER, "aws:username", "alice"),
        (ANONYMOUS, "aws:PrincipalAccount", "anonymous"),
        (ANONYMOUS, "aws:PrincipalType", "Anonymous"),
        (ANONYMOUS, "aws:PrincipalArn", None),
        (EKS, "aws:PrincipalIsAWSService", "true"),
        (EKS, "aws:PrincipalServiceName", "pods.eks.amazonaws.com"),
        (EKS, "aws:PrincipalAccount", None),
        (USER, "aws:ResourceAccount", ACCOUNT),
    ],
)
def test_the_engine_knows_the_caller_and_believes_nothing_else(caller: Principal, key: str, value: str | None) -> None:
    operator, wanted = ("Null", "true") if value is None else ("StringEquals", value)
    statement = {**condition(operator, key, wanted), "Principal": "*"}

    claimed = {"AWS:PrincipalArn": "x", "aws:userName": "x", "aws:PrincipalIsAWSService": "x"}
    assert ask(caller, resource=policy(statement), context=claimed).allowed


@requirement("IAM-CTX-01")
def test_root_has_keys_too() -> None:
    deny = {**DENY_ALL, "Condition": {"StringEquals": {"aws:PrincipalType": "Account", "aws:userid": ACCOUNT}}}

    assert ask(ROOT, scp=((policy(ALLOW_ALL, deny),),)).explicit


@requirement("IAM-CTX-01")
def test_a_call_cannot_bring_principal_tags() -> None:
    statement = condition("StringEquals", "aws:PrincipalTag/team", "a")
    tagged = Principal("user", USER.arn, ACCOUNT, "AIDAALICE", tags={"Team": "a"})

    assert allows(tagged, statement)
    assert not allows(USER, statement, **{"aws:principaltag/TEAM": "a"})


# --- traps of patterns ----------------------------------------------------------------------------------------------


@requirement("IAM-STMT-03")
@pytest.mark.parametrize(
    ("pattern", "arn", "expected"),
    [
        ("arn:aws:s3:::a*", "arn:aws:s3:::a/b/c:d", True),
        ("arn:aws:s3:::notes", "arn:aws:s3:::notes/a", False),
        ("arn:aws:s3:::otes/a", OBJECT, False),
        ("arn:*:a", "arn:aws:s3:::a", False),
        ("arn:aws:*:notes/a", OBJECT, False),
        ("arn:*:*:*:*:notes/a", OBJECT, True),
        ("**", OBJECT, True),
    ],
)
def test_arns_match_part_by_part(pattern: str, arn: str, expected: bool) -> None:
    """A star stays within its part, but for the sixth, where it crosses everything."""
    assert allows(USER, {**ALLOW_ALL, "Resource": pattern}, arn) is expected


@requirement("IAM-STMT-04")
@pytest.mark.parametrize(
    ("pattern", "arn", "expected"),
    [
        ("arn:aws:s3:::no?es/a", OBJECT, True),
        ("arn:aws:s3:::no??es/a", OBJECT, False),
        ("arn:aws:s3:::NOTES/a", OBJECT, False),
        ("arn:aws:s3:::notes/*", "arn:aws:s3:::notes/line\nbreak", True),
        ("arn:aws:s3:::notes/a?b", "arn:aws:s3:::notes/a\nb", True),
        ("arn:aws:s3:::notes/a.b+", "arn:aws:s3:::notes/axbb", False),
        ("arn:aws:s3:::notes/[ab]", OBJECT, False),
    ],
)
def test_characters_stand_for_themselves(pattern: str, arn: str, expected: bool) -> None:
    """Only star and question mark are more than characters."""
    assert allows(USER, {**ALLOW_ALL, "Resource": pattern}, arn) is expected


@requirement("IAM-STMT-05")
@pytest.mark.parametrize(("pattern", "expected"), [("*", True), ("**", True), ("arn:aws:s3:::*", False)])
def test_an_action_without_resource_needs_stars(pattern: str, expected: bool) -> None:
    """The resource of such a call is a star, which no ARN matches."""
    assert allows(USER, {**ALLOW_ALL, "Resource": pattern}, "*") is expected


@requirement("IAM-STMT-06")
@pytest.mark.parametrize(
    ("pattern", "expected"), [("*", True), ("arn:aws:s3:::*", True), ("arn:aws:s3:::notes", False)]
)
def test_listing_buckets(pattern: str, expected: bool) -> None:
    """Both usual spellings grant it, and the ARN of one bucket does not."""
    statement = {"Effect": "Allow", "Action": "s3:ListAllMyBuckets", "Resource": pattern}

    decision = ask(USER, "s3:ListAllMyBuckets", "arn:aws:s3:::*", identity=[policy(statement)])

    assert decision.allowed is expected


@requirement("IAM-STMT-07")
@pytest.mark.parametrize(("name", "expected"), [("*", True), ("?", True), ("sg-1", False), ("sg-*", False)])
def test_a_resource_yet_to_be_made_is_a_literal_star(name: str, expected: bool) -> None:
    """The star in the ARN of the request is a character like any other."""
    resource = f"arn:aws:ec2:*:{ACCOUNT}:security-group/{name}"

    assert allows(USER, {**ALLOW_ALL, "Resource": resource}, f"arn:aws:ec2:eu-west-1:{ACCOUNT}:security-group/*") is (
        expected
    )


@requirement("IAM-STMT-10")
def test_a_trust_policy_is_about_its_own_role() -> None:
    """No resource is matched: whatever role carries the document is the one meant."""
    trust = policy({"Effect": "Allow", "Principal": {"AWS": USER.arn}, "Action": "sts:AssumeRole"}, name="trust")

    for role in ("one", "path/two"):
        assert ask(USER, "sts:AssumeRole", f"arn:aws:iam::{ACCOUNT}:role/{role}", trust=trust).allowed


@requirement("IAM-PERF-06")
def test_a_pattern_of_many_stars_is_no_trap() -> None:
    # A backtracking matcher would not end within the lifetime of this test.
    assert not allows(USER, {**ALLOW_ALL, "Resource": "arn:aws:s3:::" + "a*" * 40 + "b"}, "arn:aws:s3:::" + "a" * 2048)


def allows_tagged(tag: str, pattern: str, key: str) -> bool:
    caller = Principal("user", USER.arn, ACCOUNT, "AIDAALICE", tags={"team": tag})
    return allows(caller, {**ALLOW_ALL, "Resource": f"arn:aws:s3:::{pattern}"}, f"arn:aws:s3:::{key}")


@requirement("IAM-SEC-02")
@pytest.mark.parametrize(
    ("tag", "key", "expected"),
    [
        ("a", "a/x", True),
        ("?", "a/x", False),
        ("*", "a/x", False),
        ("a/*", "a/x/y", False),
        ("${aws:username}", "alice/x", False),
        ("${aws:username}", "${aws:username}/x", True),
    ],
)
def test_a_value_brings_in_nothing(tag: str, key: str, expected: bool) -> None:
    """Neither wildcards nor variables in a tag's value count."""
    assert allows_tagged(tag, "${aws:PrincipalTag/team}/*", key) is expected


@requirement("IAM-VAR-04")
@pytest.mark.parametrize(("tag", "key", "expected"), [("*", "a", False), ("*", "*", True), ("?", "?", True)])
def test_a_star_of_a_value_is_a_star(tag: str, key: str, expected: bool) -> None:
    """It matches itself alone."""
    assert allows_tagged(tag, "${aws:PrincipalTag/team}", key) is expected


@requirement("IAM-VAR-05")
@pytest.mark.parametrize(("pattern", "expected"), [("${aws:PrincipalTag/other}/*", False), ("x/*", True)])
def test_an_absent_value_spoils_its_own_element_alone(pattern: str, expected: bool) -> None:
    """The other elements of the list still count, also beside one that has no value."""
    resources = ["arn:aws:s3:::${aws:PrincipalTag/other}/*", f"arn:aws:s3:::{pattern}"]

    assert allows(USER, {**ALLOW_ALL, "Resource": resources}, "arn:aws:s3:::x/a") is expected


@requirement("IAM-VAR-03")
@pytest.mark.parametrize(
    ("pattern", "key", "expected"),
    [
        ("${aws:PrincipalTag/other,'b'}/*", "b/x", True),
        ("${aws:PrincipalTag/other , 'b'}/*", "b/x", True),
        ("${aws:PrincipalTag/team, 'b'}/*", "a/x", True),
        ("${$}{x}", "${x}", True),
        ("${?}", "?", True),
        ("${?}", "b", False),
        ("${*}", "*", True),
        ("${*}", "b", False),
    ],
)
def test_defaults_and_escapes(pattern: str, key: str, expected: bool) -> None:
    """A default counts only without a value, and an escaped character is itself."""
    assert allows_tagged("a", pattern, key) is expected


@requirement("IAM-VAR-08")
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("aws:PrincipalTag/team", "a"),
        ("aws:username", "alice"),
        ("aws:userid", "AIDAALICE"),
        ("aws:PrincipalAccount", ACCOUNT),
        ("aws:RequestTag/cost", "b"),
        ("aws:ResourceTag/owner", "c"),
        ("aws:SourceIp", "10.0.0.1"),
        ("s3:prefix", "team-a"),
    ],
)
def test_every_single_value_can_be_a_variable(variable: str, value: str) -> None:
    """Keys of the caller, of the request, of the resource and of the service alike."""
    caller = Principal("user", USER.arn, ACCOUNT, "AIDAALICE", tags={"team": "a"})
    sent = {"aws:RequestTag/cost": "b", "aws:ResourceTag/owner": "c", "aws:SourceIp": "10.0.0.1", "s3:prefix": "team-a"}
    statement = {**ALLOW_ALL, "Resource": f"arn:aws:s3:::${{{variable}}}/*"}

    assert allows(caller, statement, f"arn:aws:s3:::{value}/x", **sent)
    assert not allows(caller, statement, "arn:aws:s3:::other/x", **sent)


@requirement("IAM-VAR-10", "IAM-ABAC-06")
@pytest.mark.parametrize("layer", ["identity", "resource", "boundary", "session", "scp", "endpoint"])
def test_variables_work_in_every_layer(layer: str) -> None:
    """Each kind of policy lets the caller into what has the name of its namespace, and into nothing else."""
    caller = Principal("user", USER.arn, ACCOUNT, "AIDAALICE", tags={"kubernetes-namespace": "team-a"})
    own = {**ALLOW_ALL, "Resource": "arn:aws:s3:::notes/${aws:PrincipalTag/kubernetes-namespace}/*"}
    willing: dict[str, Any] = {"identity": [] if layer == "resource" else [policy(ALLOW_ALL)]}
    said = alone(layer, policy(own | ({"Principal": {"AWS": USER.arn}} if layer == "resource" else {})))

    assert ask(caller, target="arn:aws:s3:::notes/team-a/a", **(willing | said)).allowed
    assert not ask(caller, target="arn:aws:s3:::notes/team-b/a", **(willing | said)).allowed


@requirement("IAM-VAR-10")
def test_variables_work_in_conditions_of_trust_policies() -> None:
    """A role may be left to those whose name the session has."""
    trust = policy(
        {
            "Effect": "Allow",
            "Principal": {"AWS": USER.arn},
            "Action": "sts:AssumeRole",
            "Condition": {"StringEquals": {"sts:RoleSessionName": "${aws:username}"}},
        },
        name="trust",
    )

    def enters(name: str) -> bool:
        role = f"arn:aws:iam::{ACCOUNT}:role/target"
        return ask(USER, "sts:AssumeRole", role, trust=trust, context={"sts:RoleSessionName": name}).allowed

    assert (enters("alice"), enters("bob")) == (True, False)


@requirement("IAM-VAR-02")
@pytest.mark.parametrize(
    ("operator", "key", "value", "expected"),
    [
        ("StringEquals", "x:text", "alice", True),
        ("StringLike", "x:text", "alice", True),
        ("ArnLike", "x:arn", "arn:aws:iam::123456789012:user/alice", True),
        ("NumericEquals", "x:number", "7", False),
        ("IpAddress", "x:address", "10.0.0.7", False),
    ],
)
def test_variables_count_in_texts_and_arns_only(operator: str, key: str, value: str, expected: bool) -> None:
    """Numbers and addresses are literal."""
    sent = {"x:seven": "7", "x:ip": "10.0.0.7", "x:arn": value}
    wanted = {"NumericEquals": "${x:seven}", "IpAddress": "${x:ip}", "ArnLike": "arn:aws:iam::*:user/${aws:username}"}

    statement = condition(operator, key, wanted.get(operator, "${aws:username}"))

    assert allows(USER, statement, **(sent | {key: value})) is expected


@requirement("IAM-VAR-02")
def test_variables_do_not_count_before_the_sixth_part() -> None:
    arn = f"arn:aws:dynamodb:eu-west-1:{ACCOUNT}:table/notes"

    assert not allows(USER, {**ALLOW_ALL, "Resource": "arn:aws:dynamodb:*:${aws:PrincipalAccount}:table/notes"}, arn)


@requirement("IAM-VAR-07")
def test_a_multivalued_key_is_no_variable() -> None:
    statement = {**ALLOW_ALL, "Resource": "arn:aws:s3:::${aws:TagKeys}"}

    assert not allows(USER, statement, "arn:aws:s3:::a", **{"aws:TagKeys": ("a",)})


@requirement("IAM-SEC-02")
def test_colons_of_a_variable_separate_no_parts() -> None:
    statement = condition("ArnLike", "x:arn", "arn:aws:s3:::${x:name}")

    assert allows(USER, statement, **{"x:arn": "arn:aws:s3:::a:b", "x:name": "a:b"})
    assert not allows(USER, condition("ArnLike", "x:arn", "${x:name}:b"), **{"x:arn": OBJECT, "x:name": "arn:aws:s3::"})


@requirement("IAM-VAR-11")
def test_an_unresolved_not_resource_excepts_nothing() -> None:
    """A Deny with it hits everything."""
    deny = {"Effect": "Deny", "Action": "*", "NotResource": "arn:aws:s3:::${aws:PrincipalTag/none}/*"}

    assert ask(USER, identity=[policy(ALLOW_ALL, deny)]).explicit


@requirement("IAM-STMT-08")
@pytest.mark.parametrize(
    ("layer", "pattern", "expected"),
    [
        ("identity", "arn:aws:s3", True),
        ("identity", "arn:aws:sqs", False),
        ("boundary", "arn:aws:s3", True),
        ("session", "arn:aws:s3", True),
        ("resource", "arn:aws:s3", False),
        ("resource", "arn:aws:s3*", True),
        ("scp", "arn:aws:s3", False),
        ("scp", "arn:aws:s3*", True),
    ],
)
def test_short_arns(layer: str, pattern: str, expected: bool) -> None:
    """What a pattern of fewer than six parts covers depends on the kind of policy."""
    statement = {**ALLOW_ALL, "Resource": pattern} | ({"Principal": {"AWS": USER.arn}} if layer == "resource" else {})
    willing: dict[str, Any] = {"identity": [] if layer == "resource" else [policy(ALLOW_ALL)]}

    assert ask(USER, **(willing | alone(layer, policy(statement)))).allowed is expected


@requirement("IAM-CTX-02")
def test_keys_are_found_in_any_case_and_tags_keep_theirs() -> None:
    """The context's spelling and the policy's need not agree; what a session is tagged with stays as it was written."""
    assert allows(USER, condition("StringEquals", "S3:PREFIX", "a"), **{"s3:prefix": "a"})
    assert allows(USER, condition("StringEquals", "aws:requesttag/COST", "a"), **{"aws:RequestTag/Cost": "a"})

    lab = sts_lab.Lab.trusting_the_account()
    assumed = lab.assume(sts_lab.user(), tags=(("CostCentre", "a"),), transitive_tag_keys=("costcentre",))
    assert assumed.credential.principal.tags == {"CostCentre": "a"}


@requirement("IAM-CTX-06")
def test_an_unknown_key_is_a_single_text() -> None:
    """It compares as text, and as text only."""
    assert allows(USER, condition("StringEquals", "own:key", "a"), **{"own:key": "a"})
    assert not allows(USER, condition("StringEquals", "own:key", "A"), **{"own:key": "a"})
    assert allows(USER, {**ALLOW_ALL, "Resource": "arn:aws:s3:::${own:key}"}, "arn:aws:s3:::a", **{"own:key": "a"})
