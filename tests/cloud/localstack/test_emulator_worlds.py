"""Accounts and regions are worlds apart, and everything that happens in them is written down."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

import botocore.auth
import pytest

from harness.subject.aws import ACCOUNT, OTHER_ACCOUNT, REGION, Aws, refused, user_key
from harness.subject.bound_cluster import ApiServerDouble

TRUST = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"sts:AssumeRole"}]}'
ALLOW = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}'


@pytest.fixture(autouse=True)
def fresh(api: ApiServerDouble) -> None:
    """Begin and end with an emulator in its first state."""
    del api


def create_table(client: Any) -> str:
    table = client.create_table(
        TableName="same",
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
    )
    return str(table["TableDescription"]["TableArn"])


def create_group(client: Any) -> str:
    vpc = client.describe_vpcs()["Vpcs"][0]["VpcId"]
    group = client.create_security_group(GroupName="same", Description="d", VpcId=vpc)["GroupId"]
    (found,) = client.describe_security_groups(GroupIds=[group])["SecurityGroups"]
    return f"arn:aws:ec2:{client.meta.region_name}:{found['OwnerId']}:security-group/{group}"


Call = Callable[[Any], Any]
WORLDS: dict[str, tuple[str, Call, Call]] = {
    "table": ("dynamodb", create_table, lambda client: client.list_tables()["TableNames"]),
    "security group": (
        "ec2",
        create_group,
        lambda client: [
            group["GroupName"]
            for group in client.describe_security_groups()["SecurityGroups"]
            if group["GroupName"] != "default"
        ],
    ),
    "role": (
        "iam",
        lambda client: client.create_role(RoleName="same", AssumeRolePolicyDocument=TRUST)["Role"]["Arn"],
        lambda client: [role["RoleName"] for role in client.list_roles()["Roles"]],
    ),
    "policy": (
        "iam",
        lambda client: client.create_policy(PolicyName="same", PolicyDocument=ALLOW)["Policy"]["Arn"],
        lambda client: [policy["PolicyName"] for policy in client.list_policies(Scope="Local")["Policies"]],
    ),
    "provider": (
        "iam",
        lambda client: client.create_open_id_connect_provider(Url="https://same.example", ClientIDList=["a"])[
            "OpenIDConnectProviderArn"
        ],
        lambda client: client.list_open_id_connect_providers()["OpenIDConnectProviderList"],
    ),
    "key": (
        "kms",
        lambda client: client.create_key()["KeyMetadata"]["Arn"],
        lambda client: client.list_keys()["Keys"],
    ),
    "secret": (
        "secretsmanager",
        lambda client: client.create_secret(Name="same", SecretString="x")["ARN"],
        lambda client: [secret["Name"] for secret in client.list_secrets()["SecretList"]],
    ),
    "parameter": (
        "ssm",
        lambda client: (
            client.put_parameter(Name="/same", Value="x", Type="String"),
            client.get_parameter(Name="/same")["Parameter"]["ARN"],
        )[1],
        lambda client: [one["Name"] for one in client.describe_parameters()["Parameters"]],
    ),
}


@pytest.mark.parametrize("kind", WORLDS)
def test_the_same_names_are_other_things_in_another_account_and_region(aws: Aws, kind: str) -> None:
    """EMU-ACCT-ISOLATION, EMU-ACCT-REGION: nobody sees another's, and ARNs say whose and where."""
    service, create, names = WORLDS[kind]
    other = aws.bootstrap.account(OTHER_ACCOUNT).administrator
    first, second = aws.client(service), aws.client(service, other)
    elsewhere = aws.client(service, region="eu-central-1")

    arn = create(first)

    assert names(first) != []
    assert names(second) == []
    assert (names(elsewhere) == []) is (service != "iam")
    foreign = create(second)
    assert [one.split(":")[4] for one in (arn, foreign)] == [ACCOUNT, OTHER_ACCOUNT]
    if service != "iam":
        assert [one.split(":")[3] for one in (arn, create(elsewhere))] == [REGION, "eu-central-1"]


def test_clusters_and_trails_are_of_an_account_and_region(aws: Aws) -> None:
    """EMU-ACCT-ISOLATION, EMU-ACCT-REGION for what is bound rather than made."""
    other = aws.bootstrap.account(OTHER_ACCOUNT).administrator

    def seen(**options: Any) -> tuple[list[str], set[str]]:
        events = aws.client("cloudtrail", **options).lookup_events()["Events"]
        arns = {json.loads(event["CloudTrailEvent"])["userIdentity"]["accountId"] for event in events}
        return aws.client("eks", **options).list_clusters()["clusters"], arns

    assert seen()[0] == ["pod-identity-lab"]
    assert seen(key=other)[0] == []
    assert seen(region="eu-central-1")[0] == []
    assert seen()[1] == {ACCOUNT}
    assert seen(key=other)[1] == {OTHER_ACCOUNT}


def test_every_request_is_written_down_with_who_decided_it(aws: Aws) -> None:
    """EMU-REC-COMPLETE, EMU-GATE-EVERY: what is served has a decision, what is refused says by which layer."""
    nobody = user_key(aws, "nobody")
    forged = aws.bootstrap.account(ACCOUNT).administrator
    aws.client("s3").create_bucket(Bucket="kept", CreateBucketConfiguration={"LocationConstraint": REGION})
    before = len(aws.control.journal())

    aws.client("s3").put_object(Bucket="kept", Key="k", Body=b"x")
    aws.client("iam").list_roles()
    aws.client("eks").list_clusters()
    aws.client("dynamodb").list_tables()
    refused(lambda: aws.client("s3", nobody).put_object(Bucket="kept", Key="denied", Body=b"x"))
    refused(lambda: aws.client("sqs").list_queues())
    refused(lambda: aws.client("s3", type(forged)(forged.access_key_id, "x" * 40)).list_buckets())
    aws.send("GET", "/kept", host=f"s3.{REGION}.amazonaws.com")
    entries = aws.control.journal()[before:]

    told = [(entry["operation"], entry["layer"], entry["status"]) for entry in entries]
    assert told == [
        ("PutObject", "localstack", 200),
        ("ListRoles", "localstack", 200),
        ("ListClusters", "ours", 200),
        ("ListTables", "moto", 200),
        ("PutObject", "gate", 403),
        ("", "guard", 501),
        ("", "guard", 403),
        ("ListObjects", "gate", 403),
    ]
    assert [[decision["allowed"] for decision in entry["decisions"]] for entry in entries] == [
        [True], [True], [True], [True], [False], [], [], [False]
    ]  # fmt: skip
    whose = [entry["principal"].rpartition("/")[2] for entry in entries]
    assert whose == ["administrator"] * 4 + ["nobody", "administrator", "", ""]
    assert [key["Key"] for key in aws.client("s3").list_objects_v2(Bucket="kept")["Contents"]] == ["k"]


def test_the_account_never_stands_in_the_place_of_a_key(aws: Aws) -> None:
    """EMU-GUARD-KEYHIDDEN: not in answers, not in events, not in the log, although LocalStack gets it as one."""
    aws.client("s3").list_buckets()
    aws.client("sts").get_caller_identity()
    shown = refused(lambda: aws.client("s3", user_key(aws, "nobody")).list_buckets())
    events = aws.client("cloudtrail").lookup_events()["Events"]
    journal = aws.control.journal()
    log = (aws.directory / "log").read_text()

    keys = {event.get("AccessKeyId", "") for event in events} | {entry["access_key_id"] for entry in journal}
    assert {key for key in keys if re.fullmatch(r"\d{12}", key)} == set()
    assert "Credential=" not in log + json.dumps(journal) + "".join(map(str, shown))


def test_a_role_that_is_not_there_says_what_one_that_refuses_says(aws: Aws) -> None:
    """EMU-STS-NOROLE."""
    nobody = {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Principal": "*", "Action": "sts:AssumeRole"}]}
    aws.client("iam").create_role(RoleName="closed", AssumeRolePolicyDocument=json.dumps(nobody))
    sts = aws.client("sts")

    def assume(name: str) -> tuple[int, str, str]:
        arn = f"arn:aws:iam::{ACCOUNT}:role/{name}"
        status, code, text = refused(lambda: sts.assume_role(RoleArn=arn, RoleSessionName="me"))
        return status, code, text.replace(arn, "ROLE")

    assert assume("closed") == assume("absent")
    assert assume("absent")[:2] == (403, "AccessDenied")


def opened(url: str) -> tuple[int, str]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_a_presigned_url_is_its_signer_s_and_ends(aws: Aws) -> None:
    """EMU-GUARD-PRESIGNED: it serves its own account's bucket, no foreign one, nothing after its time."""
    for account, bucket in ((ACCOUNT, "ours-1"), (OTHER_ACCOUNT, "theirs-1")):
        s3 = aws.client("s3", aws.bootstrap.account(account).administrator)
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
        s3.put_object(Bucket=bucket, Key="k", Body=bucket.encode())
    s3 = aws.client("s3")

    def url(bucket: str, age: float = 0) -> str:
        then = datetime.now(UTC).replace(tzinfo=None) - timedelta(seconds=age)
        with mock.patch.object(botocore.auth, "get_current_datetime", return_value=then):
            return s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"}, ExpiresIn=60)

    assert opened(url("ours-1")) == (200, "ours-1")
    assert opened(url("ours-1", age=50)) == (200, "ours-1")
    status, text = opened(url("ours-1", age=70))
    assert (status, "<Message>Request has expired</Message>" in text) == (403, True)
    status, text = opened(url("theirs-1"))
    assert (status, "<Message>Access Denied</Message>" in text) == (403, True)


def test_what_load_balancer_controllers_ask_besides_is_answered(aws: Aws) -> None:
    """EMU-SVC-SHIELD, EMU-SVC-EC2STUBS: no protection, no address pools, no web ACL."""
    ec2 = aws.client("ec2")

    assert aws.client("shield").get_subscription_state()["SubscriptionState"] == "INACTIVE"
    assert ec2.describe_coip_pools()["CoipPools"] == []
    assert ec2.describe_ipam_pools()["IpamPools"] == []
    assert ec2.get_coip_pool_usage(PoolId="ipv4pool-coip-0a1b2c3d4e5f67890")["CoipAddressUsages"] == []
    assert "WebACLSummary" not in aws.client("waf-regional").get_web_acl_for_resource(ResourceArn="arn:aws:x:::lb")


@pytest.mark.usefixtures("node")
def test_load_balancers_and_rules_keep_their_names(aws: Aws) -> None:
    """EMU-ELB-DNSNAME, EMU-ELB-STABLEARN: what create said is what describe says, again and again."""
    elbv2, ec2 = aws.client("elbv2"), aws.client("ec2")
    subnets = [
        subnet["SubnetId"]
        for subnet in ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": ["vpc-0a1b2c3d4e5f67890"]}])["Subnets"]
    ]
    made = {
        scheme: elbv2.create_load_balancer(Name=f"lb-{scheme}", Subnets=subnets, Scheme=scheme)["LoadBalancers"][0]
        for scheme in ("internet-facing", "internal")
    }
    listener = elbv2.create_listener(
        LoadBalancerArn=made["internal"]["LoadBalancerArn"],
        Protocol="HTTP",
        Port=80,
        DefaultActions=[{"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "404"}}],
    )["Listeners"][0]["ListenerArn"]

    names = {balancer["LoadBalancerName"]: balancer["DNSName"] for balancer in made.values()}
    assert re.fullmatch(r"lb-internet-facing-\d{10}\.eu-west-1\.elb\.amazonaws\.com", names["lb-internet-facing"])
    assert re.fullmatch(r"internal-lb-internal-\d{10}\.eu-west-1\.elb\.amazonaws\.com", names["lb-internal"])
    for _ in range(2):
        described = elbv2.describe_load_balancers()["LoadBalancers"]
        assert {balancer["LoadBalancerName"]: balancer["DNSName"] for balancer in described} == names
    rules = [[rule["RuleArn"] for rule in elbv2.describe_rules(ListenerArn=listener)["Rules"]] for _ in range(2)]
    assert rules[0] == rules[1]
    assert len(rules[0]) == 1


def test_keys_of_aws_open_no_control_route_and_its_secret_no_call(aws: Aws) -> None:
    """EMU-CTRL-SEPARATE."""
    host = aws.endpoint.removeprefix("http://")
    signed = aws.send_signed("sts", "GET", f"http://{host}/_podid/journal")
    bearer = {"Authorization": f"Bearer {aws.bootstrap.control_token}"}

    call = aws.send("POST", "/", host=f"sts.{REGION}.amazonaws.com", body=b"Action=GetCallerIdentity", headers=bearer)

    assert signed.status == 401
    assert call.status in {400, 403}
    assert "<Account>" not in call.body
