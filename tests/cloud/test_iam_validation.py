"""Documents that AWS does not store, and what it says about them (``iam.md`` 2.1 to 2.3)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cloud.iam.policy import compile_policy
from harness.cloud.iam.resource_policies import check_bucket_policy
from harness.cloud.iam.validation import check_document, policy_size
from harness.cloud.policy_writes import check_policy_write
from harness.cloud.ports import Refusal

ACCOUNT = "123456789012"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/team/reader"
GOOD: dict[str, Any] = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}
TRUST: dict[str, Any] = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": ROLE}}
OPEN: dict[str, Any] = {**GOOD, "Principal": "*", "Resource": "arn:aws:s3:::notes/*"}
SYNTAX = "Syntax errors in policy."
LEGACY = "The policy failed legacy parsing"
IAM_PATHS = (
    'IAM resource path must either be "*" or start with user/, federated-user/, role/, group/, instance-profile/, '
    "mfa/, server-certificate/, policy/, sms-mfa/, saml-provider/, oidc-provider/, report/, access-report/."
)


class Stored:
    """One role and its inline policies."""

    def has_principal(self, arn: str) -> bool:
        return arn == ROLE

    def inline_policies(self, account: str, kind: str, name: str) -> Mapping[str, str]:
        return (
            {"other": text(GOOD, {**GOOD, "Sid": "x" * 9900})}
            if (account, kind, name)
            == (
                ACCOUNT,
                "role",
                "reader",
            )
            else {}
        )


def text(*statements: Any, **elements: Any) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)} | elements)


def without(statement: dict[str, Any], element: str) -> dict[str, Any]:
    return {key: value for key, value in statement.items() if key != element}


def refused(document: str, kind: Any = "identity") -> str:
    with pytest.raises(Refusal) as caught:
        check_document(document, kind, Stored().has_principal)
    assert (caught.value.code, caught.value.status) == ("MalformedPolicyDocument", 400)
    return caught.value.message


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("no JSON", SYNTAX),
        ("[]", SYNTAX),
        ("[" * 100_000, SYNTAX),
        ('{"Version": "2012-10-17", "Version": "2012-10-17", "Statement": []}', SYNTAX),
        (json.dumps({"Version": "2012-10-17"}), SYNTAX),
        (text(), SYNTAX),
        (text("s3:GetObject"), SYNTAX),
        (text(GOOD, Comment="x"), SYNTAX),
        (text(GOOD, Version="2013-10-17"), SYNTAX),
        (text(GOOD, Id=["x"]), SYNTAX),
        (text({**GOOD, "Comment": "x"}), SYNTAX),
        (text({**GOOD, "NotAction": []}), SYNTAX),
        (text({**GOOD, "NotResource": "*"}), SYNTAX),
        (text(without(GOOD, "Effect")), SYNTAX),
        (text({**GOOD, "Effect": "Perhaps"}), SYNTAX),
        (text({**GOOD, "Effect": ["Allow"]}), SYNTAX),
        (text({**GOOD, "Action": {}}), SYNTAX),
        (text({**GOOD, "Resource": ["*", 7]}), SYNTAX),
        (text({**GOOD, "Sid": 1}), SYNTAX),
        (text({**GOOD, "Condition": []}), SYNTAX),
        (text({**GOOD, "Condition": {"StringIs": {"aws:username": "x"}}}), SYNTAX),
        (text({**GOOD, "Condition": {"StringEquals": "x"}}), SYNTAX),
        (text({**GOOD, "Condition": {"StringEquals": {"aws:username": {}}}}), SYNTAX),
        (text({**GOOD, "Condition": {"StringEquals": {"aws:username": None}}}), SYNTAX),
        (text(GOOD, Version="2008-10-17"), "Policy document must be version 2012-10-17 or greater."),
        (json.dumps({"Statement": GOOD}), "Policy document must be version 2012-10-17 or greater."),
        (text({**GOOD, "Effect": "allow"}), LEGACY),
        (text({**GOOD, "Condition": {"DateLessThan": {"aws:CurrentTime": "tomorrow"}}}), LEGACY),
        (text({**GOOD, "Condition": {"DateLessThan": {"aws:CurrentTime": "2026-13-01"}}}), LEGACY),
        (text({**GOOD, "Condition": {"DateLessThan": {"aws:CurrentTime": str(2**63)}}}), LEGACY),
        (text({**GOOD, "Resource": "arn:aws:s3::notes"}), LEGACY),
        (text({**GOOD, "Resource": "arn:aws::::notes"}), LEGACY),
        (text({**GOOD, "Sid": "A"}, {**GOOD, "Sid": "A"}), "Statement IDs (SID) in a single policy must be unique."),
        (text(without(GOOD, "Action")), "Policy statement must contain actions."),
        (text({**GOOD, "Action": []}), "Policy statement must contain actions."),
        (text({**GOOD, "Resource": "notes"}), 'Resource notes must be in ARN format or "*".'),
        (text({**GOOD, "Resource": ""}), 'Resource  must be in ARN format or "*".'),
        (
            text({**GOOD, "Resource": "arn:gcp:s3:::notes"}),
            'Partition "gcp" is not valid for resource "arn:gcp:s3:::notes".',
        ),
        (text({**GOOD, "Resource": "x:y"}), 'Partition "y" is not valid for resource "arn:y:*:*:*:*".'),
        (
            text({**GOOD, "Resource": "arn:aws"}),
            "Resource vendor must be fully qualified and cannot contain regexes.",
        ),
        (
            text({**GOOD, "Resource": "arn:aws:iam:eu-west-1:1:role/x"}),
            "IAM resource arn:aws:iam:eu-west-1:1:role/x cannot contain region information.",
        ),
        (
            text({**GOOD, "Resource": "arn:aws:s3:eu-west-1::notes"}),
            "Resource arn:aws:s3:eu-west-1::notes can not contain region information.",
        ),
        (text({**GOOD, "Resource": f"arn:aws:iam::{ACCOUNT}:roles/x"}), IAM_PATHS),
        (
            text({**GOOD, "Action": "GetObject"}),
            "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.",
        ),
        (text({**GOOD, "Action": "s3:Get:Object"}), "Actions/Condition can contain only one colon."),
        (text({**GOOD, "Action": "s 3:GetObject"}), "Vendor s 3 is not valid"),
        (text(without(GOOD, "Resource")), "Policy statement must contain resources."),
        (text({**GOOD, "Resource": []}), "Policy statement must contain resources."),
        (text({**GOOD, "Principal": "*"}), "Policy document should not specify a principal."),
    ],
)
def test_an_identity_policy_is_refused_in_iams_words(document: str, message: str) -> None:
    assert refused(document) == message


@pytest.mark.parametrize(
    ("earlier", "later", "message"),
    [
        ({"Effect": "allow"}, {"Action": []}, LEGACY),
        ({"Action": []}, {"Resource": "notes"}, "Policy statement must contain actions."),
        ({"Resource": "notes"}, {"Action": "GetObject"}, 'Resource notes must be in ARN format or "*".'),
        ({"Action": "s3:Get:Object"}, {"Resource": []}, "Actions/Condition can contain only one colon."),
    ],
)
def test_the_first_step_that_fails_is_named(earlier: dict[str, Any], later: dict[str, Any], message: str) -> None:
    assert refused(text(GOOD | later | earlier)) == message
    assert refused(text(GOOD | later, GOOD | earlier)) == message


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (text({**TRUST, "Resource": "*"}), "Has prohibited field Resource."),
        (text({**TRUST, "Action": "s3:GetObject"}), "AssumeRole policy may only specify STS AssumeRole actions."),
        (text(without(TRUST, "Principal")), "Missing required field Principal"),
        (text({**TRUST, "Principal": ROLE}), SYNTAX),
        (text({**TRUST, "Principal": {"Aws": ROLE}}), SYNTAX),
        (text({**TRUST, "Principal": {"AWS": f"{ROLE}s"}}), f'Invalid principal in policy: "AWS":"{ROLE}s"'),
        (
            text({**TRUST, "Principal": {"AWS": [ROLE, f"arn:aws:iam::{ACCOUNT}:role/*"]}}),
            f'Invalid principal in policy: "AWS":"arn:aws:iam::{ACCOUNT}:role/*"',
        ),
    ],
)
def test_a_trust_policy_is_refused_in_iams_words(document: str, message: str) -> None:
    assert refused(document, "trust") == message


@pytest.mark.parametrize(
    ("document", "kind"),
    [
        (text(GOOD), "identity"),
        (text({**GOOD, "Resource": ["arn:aws:s3:::notes", "arn:*:s3:*:*:accesspoint/x"]}), "identity"),
        (text({**GOOD, "Resource": f"arn:aws:iam::{ACCOUNT}:role/x", "Condition": {"Bogus": {}}}), "identity"),
        (text({**GOOD, "Condition": {"DateLessThan": {"aws:CurrentTime": "2026-04-10T14:00:00.5+02"}}}), "identity"),
        (text({**GOOD, "Condition": {"Bool": {"aws:SecureTransport": True}}}, Id="x"), "identity"),
        (text(GOOD, Version="2008-10-17"), "session"),
        (text(TRUST, Version="2008-10-17"), "trust"),
        (json.dumps({"Statement": {**TRUST, "Principal": {"Service": "pods.eks.amazonaws.com"}}}), "trust"),
        (text({**TRUST, "Principal": "*", "Action": ["sts:TagSession", "sts:*"]}), "trust"),
        (text({**TRUST, "Principal": {"AWS": [ACCOUNT, f"arn:aws:iam::{ACCOUNT}:root"]}}), "trust"),
    ],
)
def test_good_documents_are_stored(document: str, kind: Any) -> None:
    check_document(document, kind, Stored().has_principal)


# --- S3 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("[]", "Policies must be valid JSON and the first byte must be '{'"),
        (f" {text(OPEN)}", "Policies must be valid JSON and the first byte must be '{'"),
        ("{", "Policies must be valid JSON and the first byte must be '{'"),
        (text({**OPEN, "Comment": ""}), "Invalid policy syntax."),
        (text({**OPEN, "Effect": "allow"}), "Invalid policy syntax."),
        (text(without(OPEN, "Principal")), "Missing required field Principal"),
        (text(without(OPEN, "Resource")), "Missing required field Resource"),
        (text({**OPEN, "Action": "sqs:SendMessage"}), "Policy has invalid action"),
        (text({**OPEN, "Resource": "arn:aws:s3:::other/*"}), "Policy has invalid resource"),
        (text({**OPEN, "Resource": "arn:aws:s3:::notes2"}), "Policy has invalid resource"),
        (text({**OPEN, "Resource": "arn:aws:s3:::notes"}), "Action does not apply to any resource(s) in statement"),
        (text({**OPEN, "Action": "s3:ListBucket"}), "Action does not apply to any resource(s) in statement"),
        (text({**OPEN, "Principal": {"AWS": f"{ROLE}s"}}), "Invalid principal in policy"),
    ],
)
def test_a_bucket_policy_is_refused_in_s3s_words(document: str, message: str) -> None:
    with pytest.raises(Refusal) as caught:
        check_bucket_policy(document, "notes", Stored().has_principal)

    assert (caught.value.code, caught.value.status, caught.value.message) == ("MalformedPolicy", 400, message)


@pytest.mark.parametrize(
    "statement",
    [
        OPEN,
        {**OPEN, "Action": "s3:*", "Resource": ["arn:aws:s3:::notes", "arn:aws:s3:::notes/*"]},
        {**OPEN, "Action": ["s3:ListBucket", "s3:GetObject"], "Resource": "arn:aws:s3:::not*"},
        {**OPEN, "Action": "s3:GetBucketLocation", "Resource": "arn:aws:s3:::notes", "Principal": {"AWS": ROLE}},
        {**OPEN, "Effect": "Deny", "NotPrincipal": {"AWS": ROLE}, "Action": "s3:PutObject"} | {"Principal": None},
    ],
)
def test_a_good_bucket_policy_is_stored(statement: dict[str, Any]) -> None:
    kept = {key: value for key, value in statement.items() if value is not None}

    check_bucket_policy(text(kept), "notes", Stored().has_principal)


def test_a_long_bucket_policy_is_refused() -> None:
    with pytest.raises(Refusal, match="PolicyTooLarge"):
        check_bucket_policy(text({**OPEN, "Sid": "x" * 20_480}), "notes")


# --- calls ----------------------------------------------------------------------------------------------------------


def write(operation: str, **parameters: str) -> None:
    check_policy_write("iam", operation, parameters, ACCOUNT, Stored())


def test_white_space_outside_texts_does_not_count() -> None:
    assert policy_size('{ "a b" :\n\t"c \\" d" }') == len('{"a b":"c \\" d"}')


@pytest.mark.parametrize(
    ("operation", "member", "limit", "message"),
    [
        ("CreatePolicy", "PolicyDocument", 6144, "Cannot exceed quota for PolicySize: 6144"),
        ("CreatePolicyVersion", "PolicyDocument", 6144, "Cannot exceed quota for PolicySize: 6144"),
        ("CreateRole", "AssumeRolePolicyDocument", 2048, "Cannot exceed quota for ACLSizePerRole: 2048"),
        ("UpdateAssumeRolePolicy", "PolicyDocument", 2048, "Cannot exceed quota for ACLSizePerRole: 2048"),
        ("PutUserPolicy", "PolicyDocument", 2048, "Maximum policy size of 2048 bytes exceeded for user x"),
        ("PutGroupPolicy", "PolicyDocument", 5120, "Maximum policy size of 5120 bytes exceeded for group x"),
        ("PutRolePolicy", "PolicyDocument", 10240, "Maximum policy size of 10240 bytes exceeded for role x"),
    ],
)
def test_a_document_fills_its_quota_and_no_more(operation: str, member: str, limit: int, message: str) -> None:
    names = {"RoleName": "x", "UserName": "x", "GroupName": "x", "PolicyName": "p"}
    statement = TRUST if "Assume" in member + operation else GOOD
    room = limit - policy_size(text({**statement, "Sid": ""}))

    write(operation, **names, **{member: text({**statement, "Sid": "x" * room})})
    with pytest.raises(Refusal) as caught:
        write(operation, **names, **{member: text({**statement, "Sid": "x" * (room + 1)})})

    assert (caught.value.code, caught.value.status, caught.value.message) == ("LimitExceeded", 409, message)


def test_inline_policies_of_a_role_add_up_and_a_new_one_replaces_its_old_self() -> None:
    long = text({**GOOD, "Sid": "y" * 300})

    with pytest.raises(Refusal, match="Maximum policy size of 10240 bytes exceeded for role reader"):
        write("PutRolePolicy", RoleName="reader", PolicyName="more", PolicyDocument=long)
    write("PutRolePolicy", RoleName="reader", PolicyName="other", PolicyDocument=long)


@pytest.mark.parametrize(
    ("document", "ending"),
    [
        ("", "Member must have length greater than or equal to 1"),
        (" " * 131_073, "Member must have length less than or equal to 131072"),
        ("{\u20ac}", r"Member must satisfy regular expression pattern: [\u0009\u000A\u000D\u0020-\u00FF]+"),
    ],
)
def test_a_parameter_that_cannot_be_is_refused_before_its_syntax(document: str, ending: str) -> None:
    with pytest.raises(Refusal) as caught:
        write("CreatePolicy", PolicyDocument=document)

    assert caught.value.code == "ValidationError"
    assert caught.value.message == (
        f"1 validation error detected: Value at 'policyDocument' failed to satisfy constraint: {ending}"
    )


def test_calls_that_store_no_policy_pass() -> None:
    check_policy_write("iam", "GetRole", {"RoleName": "x"}, ACCOUNT, Stored())
    check_policy_write("s3", "GetBucketPolicy", {"Bucket": "x"}, ACCOUNT, Stored())


# --- properties -----------------------------------------------------------------------------------------------------

PIECE = st.sampled_from(
    ["*", "**", "**:x", "s3:*", "s3:Get", ":", "arn:aws:s3:::notes/*", "arn:aws:iam::1:role/*", "Allow", "Deny", "2026"]
)
VALUE = st.none() | st.booleans() | st.integers() | st.floats() | PIECE | st.lists(PIECE | st.none(), max_size=2)
STATEMENT = st.fixed_dictionaries(
    {"Effect": PIECE, "Action": VALUE, "Resource": VALUE},
    optional={
        "Sid": VALUE,
        "Principal": st.just("*") | st.dictionaries(st.sampled_from(["AWS", "Service"]), VALUE),
        "Condition": st.dictionaries(
            st.sampled_from(["StringLike", "DateLessThan", "Null", "Bogus"]), st.dictionaries(PIECE, VALUE, max_size=1)
        ),
    },
)


@given(statements=st.lists(STATEMENT, max_size=2), kind=st.sampled_from(["identity", "session", "trust"]))
def test_what_is_stored_can_be_read(statements: list[dict[str, Any]], kind: Any) -> None:
    for trial in (statements, [without(statement, "Resource") for statement in statements]):
        document = text(*trial)
        try:
            check_document(document, kind)
        except Refusal:
            continue
        compile_policy(document, "identity-inline" if kind == "identity" else kind)
