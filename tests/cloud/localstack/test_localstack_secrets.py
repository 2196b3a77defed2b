"""Secrets Manager and Parameter Store behind the gate."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness.subject.aws import ACCOUNT, Aws, refused, user_key
from harness.subject.bound_cluster import ApiServerDouble

USER = f"User: arn:aws:iam::{ACCOUNT}:user/reader is not authorized to perform:"
BECAUSE = "because no identity-based policy allows the"


@pytest.fixture
def manager(aws: Aws, api: ApiServerDouble) -> Any:
    """Secrets Manager of the administrator, with one secret that its users may read and one that they may not."""
    del api  # begins with an emulator in its first state
    client = aws.client("secretsmanager")
    for name in ("demo/found-a", "other/found-b"):
        client.create_secret(Name=name, SecretString=f'{{"of": "{name}"}}', Tags=[{"Key": "team", "Value": "payments"}])
    return client


def reader(aws: Aws, *actions: str) -> Any:
    """Return Secrets Manager of a user who may read below demo/, and do these things."""
    on_secrets = f"arn:aws:secretsmanager:eu-west-1:{ACCOUNT}:secret:demo/*"
    statements = [{"Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": on_secrets}]
    statements += [{"Effect": "Allow", "Action": list(actions), "Resource": "*"}] if actions else []
    return aws.client("secretsmanager", user_key(aws, "reader", *statements))


@pytest.mark.usefixtures("manager")
@pytest.mark.parametrize(
    "chosen",
    [
        {"SecretIdList": ["demo/found-a", "other/found-b"]},
        {"Filters": [{"Key": "tag-key", "Values": ["team"]}, {"Key": "tag-value", "Values": ["payments"]}]},
    ],
    ids=["named", "filtered"],
)
def test_batch_has_what_may_be_read_and_errors_for_the_rest(aws: Aws, chosen: dict[str, Any]) -> None:
    user = reader(aws, "secretsmanager:BatchGetSecretValue", "secretsmanager:ListSecrets")

    answer = user.batch_get_secret_value(**chosen)

    assert [(one["Name"], one["SecretString"]) for one in answer["SecretValues"]] == [
        ("demo/found-a", '{"of": "demo/found-a"}')
    ]
    assert answer["Errors"] == [
        {
            "SecretId": "other/found-b",
            "ErrorCode": "AccessDeniedException",
            "Message": f"{USER} secretsmanager:GetSecretValue on resource: other/found-b "
            f"{BECAUSE} secretsmanager:GetSecretValue action",
        }
    ]


@pytest.mark.usefixtures("manager")
def test_batch_of_which_nothing_may_be_read_has_errors_only(aws: Aws) -> None:
    answer = reader(aws, "secretsmanager:BatchGetSecretValue").batch_get_secret_value(SecretIdList=["other/found-b"])

    assert answer.get("SecretValues", []) == []
    assert [error["SecretId"] for error in answer["Errors"]] == ["other/found-b"]


@pytest.mark.usefixtures("manager")
def test_batch_needs_a_permission_of_its_own(aws: Aws) -> None:
    user = reader(aws)

    assert refused(lambda: user.batch_get_secret_value(SecretIdList=["demo/found-a"])) == (
        400,
        "AccessDeniedException",
        f"{USER} secretsmanager:BatchGetSecretValue {BECAUSE} secretsmanager:BatchGetSecretValue action",
    )


def test_resource_policy_of_a_secret_counts(aws: Aws, manager: Any) -> None:
    user = reader(aws)
    denial = {"Effect": "Deny", "Principal": "*", "Action": "secretsmanager:GetSecretValue", "Resource": "*"}
    policy = {"Version": "2012-10-17", "Statement": [denial]}
    before = user.get_secret_value(SecretId="demo/found-a")["SecretString"]

    manager.put_resource_policy(SecretId="demo/found-a", ResourcePolicy=json.dumps(policy))
    denied = refused(lambda: user.get_secret_value(SecretId="demo/found-a"))
    manager.delete_resource_policy(SecretId="demo/found-a")
    after = user.get_secret_value(SecretId="demo/found-a")["SecretString"]

    assert before == after == '{"of": "demo/found-a"}'
    assert denied[2].endswith("with an explicit deny in a resource-based policy")


def test_versions_have_stages(manager: Any) -> None:
    manager.put_secret_value(SecretId="demo/found-a", SecretString="second")

    def value(**version: str) -> str:
        return str(manager.get_secret_value(SecretId="demo/found-a", **version)["SecretString"])

    stages = manager.describe_secret(SecretId="demo/found-a")["VersionIdsToStages"]
    assert sorted(stages.values()) == [["AWSCURRENT"], ["AWSPREVIOUS"]]
    assert value() == value(VersionStage="AWSCURRENT") == "second"
    assert value(VersionStage="AWSPREVIOUS") == '{"of": "demo/found-a"}'
    assert refused(lambda: value(VersionStage="other"))[:2] == (400, "ResourceNotFoundException")


def test_parameter_store_is_decided_by_the_parameter(aws: Aws, api: ApiServerDouble) -> None:
    del api
    parameters = f"arn:aws:ssm:eu-west-1:{ACCOUNT}:parameter"
    own = {"Effect": "Allow", "Action": "ssm:GetParameter*", "Resource": f"{parameters}/demo/*"}
    administrator, user = aws.client("ssm"), aws.client("ssm", user_key(aws, "reader", own))
    for name in ("/demo/flag", "/other/flag"):
        administrator.put_parameter(Name=name, Value=f"of {name}", Type="SecureString")

    assert user.get_parameter(Name="/demo/flag", WithDecryption=True)["Parameter"]["Value"] == "of /demo/flag"
    assert refused(lambda: user.get_parameters(Names=["/demo/flag", "/other/flag"])) == (
        400,
        "AccessDeniedException",
        f"{USER} ssm:GetParameters on resource: {parameters}/other/flag {BECAUSE} ssm:GetParameters action",
    )
    assert refused(lambda: user.get_parameter(Name="/demo/absent"))[:2] == (400, "ParameterNotFound")
