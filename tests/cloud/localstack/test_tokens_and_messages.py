"""Federated users, encoded authorization messages, and what is said about calls that nobody makes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from harness.errors import HarnessFault
from harness.iam_simulation import in_words
from harness.subject.aws import ACCOUNT, REGION, Aws, refused, user_key

ANA = f"arn:aws:iam::{ACCOUNT}:user/ana"
FEDERATED = f"arn:aws:sts::{ACCOUNT}:federated-user/guest"
NOTES = "arn:aws:s3:::notes"


def allow(action: str, resource: str = "*", **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def document(*statements: Mapping[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


@pytest.fixture
def fresh(aws: Aws) -> Iterator[Aws]:
    yield aws
    aws.control.reset()


@pytest.fixture
def ana(fresh: Aws) -> Any:
    """A user that may federate, and read the bucket."""
    fresh.client("s3").create_bucket(Bucket="notes", CreateBucketConfiguration={"LocationConstraint": REGION})
    fresh.client("s3").put_object(Bucket="notes", Key="a", Body=b"x")
    return user_key(fresh, "ana", allow("sts:GetFederationToken"), allow("sts:TagSession"), allow("s3:Get*"))


# --- GetFederationToken ---------------------------------------------------------------------------------------------


def test_a_federated_user_has_what_both_its_maker_and_its_policy_allow(fresh: Aws, ana: Any) -> None:
    answer = fresh.client("sts", ana).get_federation_token(
        Name="guest", Policy=document(allow("s3:*")), Tags=[{"Key": "team", "Value": "a"}]
    )
    s3, sts = fresh.client("s3", answer["Credentials"]), fresh.client("sts", answer["Credentials"])

    assert answer["FederatedUser"] == {"FederatedUserId": f"{ACCOUNT}:guest", "Arn": FEDERATED}
    assert answer["PackedPolicySize"] > 0
    assert sts.get_caller_identity()["Arn"] == FEDERATED
    assert s3.get_object(Bucket="notes", Key="a")["Body"].read() == b"x"
    assert refused(lambda: s3.put_object(Bucket="notes", Key="a", Body=b"")) == (
        403,
        "AccessDenied",
        (
            f'User: {FEDERATED} is not authorized to perform: s3:PutObject on resource: "{NOTES}/a" because no'
            " identity-based policy allows the s3:PutObject action"
        ),
    )


def test_a_federated_user_without_a_policy_gets_in_by_its_own_name_only(fresh: Aws, ana: Any) -> None:
    s3 = fresh.client("s3", fresh.client("sts", ana).get_federation_token(Name="guest")["Credentials"])

    def read() -> bytes:
        return s3.get_object(Bucket="notes", Key="a")["Body"].read()

    text = refused(read)[2]
    for named, is_in in ((ANA, False), (FEDERATED, True)):
        statement = {**allow("s3:GetObject", f"{NOTES}/*"), "Principal": {"AWS": named}}
        fresh.client("s3").put_bucket_policy(Bucket="notes", Policy=document(statement))
        assert (read() == b"x") if is_in else refused(read)

    assert text.endswith("because no session policy allows the s3:GetObject action")


def test_federation_has_limits(fresh: Aws, ana: Any) -> None:
    """Its name, its time, who may ask for it, and what its keys may call."""
    sts = fresh.client("sts", ana)
    credentials = sts.get_federation_token(Name="guest", Policy=document(allow("*")))["Credentials"]
    federated = fresh.client("sts", credentials)

    assert refused(lambda: sts.get_federation_token(Name="g est"))[:2] == (400, "ValidationError")
    assert "length less than or equal to 32" in refused(lambda: sts.get_federation_token(Name="g" * 33))[2]
    assert (
        "value less than or equal to 129600"
        in refused(lambda: sts.get_federation_token(Name="guest", DurationSeconds=129_601))[2]
    )
    assert refused(lambda: sts.get_federation_token(Name="guest", Policy="{}"))[1] == "MalformedPolicyDocument"
    assert refused(lambda: federated.get_federation_token(Name="me"))[:2] == (403, "AccessDenied")
    assert refused(lambda: federated.get_access_key_info(AccessKeyId="AKIARZPUZDIKGB2VALC4"))[:2] == (
        403,
        "AccessDenied",
    )
    assert refused(lambda: fresh.client("iam", credentials).list_roles())[1] == "InvalidClientTokenId"
    stranger = fresh.client("sts", user_key(fresh, "bob"))
    assert refused(lambda: stranger.get_federation_token(Name="guest")) == (
        403,
        "AccessDenied",
        (
            f"User: arn:aws:iam::{ACCOUNT}:user/bob is not authorized to perform: sts:GetFederationToken on resource:"
            f" {FEDERATED}"
        ),
    )


# --- encoded messages -----------------------------------------------------------------------------------------------


def test_a_denial_by_ec2_can_be_decoded_in_its_account(fresh: Aws) -> None:
    deny = {**allow("ec2:DeleteSecurityGroup"), "Effect": "Deny", "Sid": "Keep"}
    ec2 = fresh.client("ec2", user_key(fresh, "ana", allow("ec2:*"), deny))
    sts = fresh.client("sts")

    status, code, text = refused(lambda: ec2.delete_security_group(GroupId="sg-1"))
    sentence, _, message = text.partition(". Encoded authorization failure message: ")
    decoded = json.loads(sts.decode_authorization_message(EncodedMessage=message)["DecodedMessage"])

    group = f"arn:aws:ec2:{REGION}:{ACCOUNT}:security-group/sg-1"
    assert (status, code) == (403, "UnauthorizedOperation")
    assert sentence == (
        f"You are not authorized to perform this operation. User: {ANA} is not authorized to perform:"
        f" ec2:DeleteSecurityGroup on resource: {group} with an explicit deny in an identity-based policy"
    )
    assert decoded["explicitDeny"] is True
    assert decoded["matchedStatements"]["items"][0]["statementId"] == "Keep"
    assert decoded["context"]["resource"] == group
    assert {"key": "ec2:region", "values": {"items": [{"value": REGION}]}} in decoded["context"]["conditions"]["items"]
    for other in (fresh.other_account("sts"), sts):
        broken = message if other is not sts else message[:-4] + "AAA="
        assert refused(
            lambda other=other, broken=broken: other.decode_authorization_message(EncodedMessage=broken)
        ) == (
            400,
            "InvalidAuthorizationMessageException",
            "Message is not valid.",
        )


def test_a_denial_by_ec2_without_a_resource_has_no_message(fresh: Aws) -> None:
    ec2 = fresh.client("ec2", user_key(fresh, "ana"))

    assert refused(ec2.describe_vpcs)[2].endswith("allows the ec2:DescribeVpcs action")


def test_a_dry_run_tells_what_would_happen_and_does_nothing(fresh: Aws) -> None:
    ec2, denied = fresh.client("ec2"), fresh.client("ec2", user_key(fresh, "ana"))
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]

    def create(client: Any) -> Any:
        return client.create_security_group(GroupName="dry", Description="d", VpcId=vpc, DryRun=True)

    assert refused(lambda: create(ec2)) == (
        412,
        "DryRunOperation",
        "Request would have succeeded, but DryRun flag is set.",
    )
    assert refused(lambda: create(denied))[1] == "UnauthorizedOperation"
    assert "dry" not in [group["GroupName"] for group in ec2.describe_security_groups()["SecurityGroups"]]


# --- simulation -----------------------------------------------------------------------------------------------------


def test_a_simulation_says_which_statement_and_condition_decide(fresh: Aws) -> None:
    """And makes no call: the journal does not grow."""
    trust = document(
        {"Effect": "Allow", "Principal": {"Service": "pods.eks.amazonaws.com"}, "Action": "sts:AssumeRole"}
    )
    role = fresh.client("iam").create_role(RoleName="reader", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    own = allow("s3:GetObject", NOTES + "/${aws:PrincipalTag/team}/*", Sid="Own")
    insists = {**allow("s3:*"), "Effect": "Deny", "Condition": {"StringNotEquals": {"aws:PrincipalTag/team": "a"}}}
    fresh.client("iam").put_role_policy(RoleName="reader", PolicyName="read", PolicyDocument=document(own, insists))
    fresh.client("s3").create_bucket(Bucket="notes", CreateBucketConfiguration={"LocationConstraint": REGION})
    before = len(fresh.control.journal())

    def words(key: str, team: str) -> list[str]:
        parameters = {"Bucket": "notes", "Key": key}
        answer = fresh.control.simulate(role, "s3", "GetObject", parameters, region=REGION, tags={"team": team})
        return list(in_words(answer))

    session = f"arn:aws:sts::{ACCOUNT}:assumed-role/reader/simulated"
    holds = 'StringNotEquals aws:PrincipalTag/team "a"'
    assert words("a/1", "a") == [
        (
            f"{session} may do s3:GetObject on {NOTES}/a/1:"
            ' Allow of statement 0 "Own" in identity-based policy inline:read'
        ),
        '  Allow of statement 0 "Own" in identity-based policy inline:read decides',
        (
            f"  Deny of statement 1 in identity-based policy inline:read does not apply: {holds} does not hold,"
            ' the call carries "a"'
        ),
    ]
    assert words("a/1", "b") == [
        f"{session} may not do s3:GetObject on {NOTES}/a/1: Deny of statement 1 in identity-based policy inline:read",
        (
            f'  Allow of statement 0 "Own" in identity-based policy inline:read does not apply: its Resource {NOTES}/'
            f"${{aws:PrincipalTag/team}}/* does not match {NOTES}/a/1"
        ),
        f'  Deny of statement 1 in identity-based policy inline:read decides: {holds} holds, the call carries "b"',
    ]
    assert len(fresh.control.journal()) == before


def test_a_simulation_asks_both_sides_of_a_role(fresh: Aws) -> None:
    user_key(fresh, "ana", allow("sts:AssumeRole"))
    tagging = {"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "sts:AssumeRole"}
    role = fresh.client("iam").create_role(RoleName="next", AssumeRolePolicyDocument=document(tagging))["Role"]["Arn"]

    plain, tagged = (
        fresh.control.simulate(ANA, "sts", "AssumeRole", {"RoleArn": role, **tags}, region=REGION)
        for tags in ({}, {"Tags": [{"Key": "team", "Value": "a"}]})
    )

    assert plain["allowed"]
    assert [check["decision"]["action"] for check in tagged["checks"]] == ["sts:AssumeRole", "sts:TagSession"]
    assert [check["decision"]["allowed"] for check in tagged["checks"]] == [True, False]


@pytest.mark.parametrize(
    ("principal", "operation", "text"),
    [
        (f"arn:aws:iam::{ACCOUNT}:role/none", "GetObject", "There is no user, role"),
        ("", "SelectObjectContent", "emulate"),
    ],
)
def test_what_cannot_be_simulated_is_told(fresh: Aws, principal: str, operation: str, text: str) -> None:
    root = f"arn:aws:iam::{ACCOUNT}:root"

    with pytest.raises(HarnessFault, match=text):
        fresh.control.simulate(principal or root, "s3", operation, {"Bucket": "b", "Key": "k"}, region=REGION)
