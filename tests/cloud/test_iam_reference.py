"""AWS's tables behind their one wrapper: spellings, kinds, and names that are none."""

from __future__ import annotations

import pytest

from harness.iam_reference import IamReference

REFERENCE = IamReference()


@pytest.mark.parametrize(
    "name", ["s3", "s3:", "s3:GetObjekt", "nothing:GetObject", "../data/metadata:x", "s3:Get*", ""]
)
def test_an_action_that_is_none_is_not_found(name: str) -> None:
    assert REFERENCE.action(name) is None


@pytest.mark.parametrize("name", ["x", "s3:prefx", "../x:y", "nothing:key", "", "s3:ExistingObjectTag/"])
def test_a_key_that_is_none_has_no_type(name: str) -> None:
    assert REFERENCE.key_type(name) is None


def test_names_compare_without_case_and_come_back_as_aws_writes_them() -> None:
    found = REFERENCE.action("S3:getobject")

    assert found is not None
    assert found.name == "s3:GetObject"
    assert REFERENCE.key_type("S3:PREFIX") == "String"


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("s3:ExistingObjectTag/owner", "String"),  # written <key>
        ("ec2:ResourceTag/owner", "String"),  # written ${TagKey}
        ("secretsmanager:ResourceTag/owner", "String"),  # written tag-key
        ("kms:EncryptionContext:team", "String"),
        ("aws:PrincipalTag/kubernetes-namespace", "String"),
        ("aws:TagKeys", "ArrayOfString"),
        ("dynamodb:LeadingKeys", "ArrayOfString"),
        ("s3:locationconstraint", "String"),
    ],
)
def test_placeholders_in_any_spelling_stand_for_a_name(key: str, kind: str) -> None:
    assert REFERENCE.key_type(key) == kind


@pytest.mark.parametrize(
    ("action", "resource", "is_about"),
    [
        ("s3:GetObject", "arn:aws:s3:::notes/a/b", True),
        ("s3:GetObject", "arn:aws:s3:::notes", False),
        ("s3:GetObject", "*", False),
        ("secretsmanager:ListSecrets", "*", True),
        ("secretsmanager:ListSecrets", "arn:aws:secretsmanager:eu-west-1:123456789012:secret:x", False),
        ("ec2:CreateTags", "arn:aws:ec2:eu-west-1:123456789012:security-group/*", True),
    ],
)
def test_an_action_knows_what_it_is_about(action: str, resource: str, is_about: bool) -> None:
    found = REFERENCE.action(action)

    assert found is not None
    assert found.is_about(resource) is is_about
