"""What the running process tells the policies about a call: stored tags, organizations, items and keys."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness.cloud.actions import PlannedCheck, with_stored_tags
from harness.cloud.actions.model import StoredTags
from harness.cloud.iam import Check, ContextValue, PolicySet, keys_asked
from harness.cloud.localstack import environment
from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.subject.aws import ACCOUNT, OTHER_ACCOUNT, REGION, Aws, refused, user_key
from harness.subject.iam_requests import USER, policy
from harness.subject.running_aws import running_aws

TAG = "s3:ExistingObjectTag/team"
ALLOW_ALL = {"Effect": "Allow", "Action": "*", "Resource": "*"}
BROKEN_TAGS = """
from harness.cloud.localstack import internals, serve

def fail(*_):
    raise OSError("the tags are on fire")

internals.s3_object_tags = fail
serve.main()
"""


@pytest.fixture
def fresh(aws: Aws) -> Iterator[Aws]:
    yield aws
    aws.control.reset()


@pytest.fixture
def broken(localstack_environment: environment.Environment, tmp_path: Path) -> Iterator[Aws]:
    """A process in which nobody can find out the tags of objects."""
    with running_aws(localstack_environment, tmp_path, arguments=["-c", BROKEN_TAGS]) as running:
        yield running


def _bucket(fresh: Aws, **tagged: str) -> None:
    s3 = fresh.client("s3")
    s3.create_bucket(Bucket="notes", CreateBucketConfiguration={"LocationConstraint": REGION})
    for key, tags in tagged.items():
        s3.put_object(Bucket="notes", Key=key, Body=b"x", Tagging=tags)


def read_if(condition: Mapping[str, Any], action: str = "s3:GetObject") -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": "arn:aws:s3:::notes/*", "Condition": condition}


# --- stored tags ----------------------------------------------------------------------------------------------------


@dataclass
class CountedTags:
    """Stored tags, and how often somebody asked."""

    asked: list[str] = field(default_factory=list)

    def tags(self, arn: str, version: str = "") -> Mapping[str, str]:
        self.asked.append(f"{arn}@{version}")
        return {"team": "a"}

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was asked")


@requirement("IAM-CTX-03")
@pytest.mark.parametrize(
    ("statements", "is_asked"),
    [
        ([ALLOW_ALL], False),
        ([read_if({"StringEquals": {"aws:PrincipalAccount": ACCOUNT}})], False),
        ([read_if({"StringEquals": {TAG: "a"}})], True),
        ([read_if({"Null": {TAG.upper(): "false"}})], True),
        ([{**ALLOW_ALL, "Resource": f"arn:aws:s3:::notes/${{{TAG}}}/*"}], True),
        ([read_if({"StringEquals": {"aws:PrincipalTag/team": f"${{{TAG}}}"}})], True),
        ([ALLOW_ALL, read_if({"StringEquals": {TAG: "a"}}, "s3:PutObjectTagging")], False),
        ([ALLOW_ALL, {**read_if({"StringNotEquals": {TAG: "a"}}, "s3:*"), "Effect": "Deny"}], True),
        ([read_if({"StringEquals": {"s3:ExistingObjectTags": "a"}})], False),
    ],
)
def test_stored_tags_are_looked_up_only_if_a_statement_asks(
    statements: Sequence[Mapping[str, Any]], is_asked: bool
) -> None:
    """A statement about the action must name them, in a condition or a variable; in any case of letters."""
    stored = CountedTags()
    planned = PlannedCheck(
        Check("s3:GetObject", "arn:aws:s3:::notes/a"), stored_tags=StoredTags(("s3:ExistingObjectTag/",), "3")
    )
    policies = PolicySet(identity=(policy(*statements),))

    found = with_stored_tags(planned, keys_asked(policies, USER, planned.check), stored)

    context: Mapping[str, ContextValue] = {TAG: "a"} if is_asked else {}
    asked = ["arn:aws:s3:::notes/a@3"] if is_asked else []
    check("IAM-CTX-03", expected=(context, asked), observed=(dict(found.context), stored.asked))


@requirement("IAM-CTX-03")
def test_tags_of_an_object_decide(fresh: Aws) -> None:
    """Reading, and copying, which needs the rights about tags only where there are tags."""
    _bucket(fresh, mine="team=a", yours="team=b")
    fresh.client("s3").put_object(Bucket="notes", Key="plain", Body=b"x")
    mine = read_if({"StringEquals": {TAG: "a"}}, "s3:GetObject*")
    write = {"Effect": "Allow", "Action": "s3:PutObject", "Resource": "arn:aws:s3:::notes/copies/*"}
    plain = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::notes/plain"}
    s3 = fresh.client("s3", user_key(fresh, "ana", mine, write, plain))

    read = s3.get_object(Bucket="notes", Key="mine")["Body"].read()
    other = refused(lambda: s3.get_object(Bucket="notes", Key="yours"))
    s3.copy_object(Bucket="notes", Key="copies/plain", CopySource="notes/plain")
    tagged = refused(lambda: s3.copy_object(Bucket="notes", Key="copies/mine", CopySource="notes/mine"))

    check("IAM-CTX-03", what="its own", expected=b"x".hex(), observed=read.hex())
    check("IAM-CTX-03", what="another's", expected=(403, "AccessDenied"), observed=other[:2])
    check("IAM-CTX-03", what="a copy with tags", holds="s3:PutObjectTagging" in tagged[2], expected="", observed=tagged)


@requirement("IAM-CTX-04", "IAM-CTX-03")
def test_a_key_that_cannot_be_found_out_is_not_decided_without(broken: Aws) -> None:
    """A server's error, nothing served and the reason nowhere but in the log; who needs no tags notices nothing."""
    _bucket(broken, a="team=a")
    condition = {"StringNotEqualsIfExists": {TAG: "b"}}
    asking = broken.client("s3", user_key(broken, "ana", read_if(condition)))
    plain = broken.client("s3", user_key(broken, "bob", read_if({"Bool": {"aws:SecureTransport": "false"}})))

    failed = refused(lambda: asking.get_object(Bucket="notes", Key="a"))
    served = plain.get_object(Bucket="notes", Key="a")["Body"].read()

    check("IAM-CTX-04", what="status and code", expected=(500, "InternalFailure"), observed=failed[:2])
    check("IAM-CTX-04", what="nothing told", holds="fire" not in failed[2], expected="", observed=failed[2])
    layers = [entry["layer"] for entry in broken.control.journal() if entry["operation"] == "GetObject"]
    check("IAM-CTX-04", what="who answered", expected=["gate", "localstack"], observed=layers)
    check("IAM-CTX-03", what="not asked for", expected="x", observed=served.decode())


# --- organizations --------------------------------------------------------------------------------------------------


@requirement("IAM-EVAL-11")
def test_an_organization_s_policies_limit_callers_and_resources(fresh: Aws) -> None:
    """There is none at first. Then its service control policies bind callers, its resource control policies buckets."""
    _bucket(fresh, a="team=a")
    mine = fresh.client("s3", user_key(fresh, "ana", ALLOW_ALL))

    def read() -> str:
        try:
            return str(mine.get_object(Bucket="notes", Key="a")["Body"].read())
        except mine.exceptions.ClientError as error:
            return str(error)

    before = read()
    deny_writes = {"Effect": "Deny", "Action": "s3:Put*", "Resource": "*"}
    full = _document(ALLOW_ALL)
    fresh.control.set_organization(ACCOUNT, "o-lab", scp=[[full], [full, _document(deny_writes)]])
    allowed, put = read(), refused(lambda: mine.put_object(Bucket="notes", Key="b", Body=b""))
    fresh.control.set_organization(ACCOUNT, "o-lab", scp=[[full], [_document({**ALLOW_ALL, "Action": "eks:*"})]])
    silent = read()
    protect = {"Effect": "Deny", "Principal": "*", "Action": "s3:GetObject", "Resource": "*"}
    fresh.control.set_organization(ACCOUNT, "o-lab", rcp=[[_document(protect)]])
    protected = read()
    fresh.control.reset()

    for name, text, end in (
        ("another level denies", put[2], "with an explicit deny in a service control policy"),
        ("a level is silent", silent, "because no service control policy allows the s3:GetObject action"),
        ("the resource's side", protected, "with an explicit deny in a resource control policy"),
    ):
        check("IAM-EVAL-11", what=name, holds=text.endswith(end), expected=end, observed=text)
    check(
        "IAM-EVAL-11",
        what="none at first, and where all levels allow",
        expected=["b'x'"] * 2,
        observed=[before, allowed],
    )


@requirement("IAM-EVAL-11")
def test_the_organization_is_a_key_of_the_call(fresh: Aws) -> None:
    """A bucket that lets its organization in, and nobody else; members are told why they are refused."""
    _bucket(fresh, a="team=a")
    ours = {"StringEquals": {"aws:PrincipalOrgID": "o-lab"}}
    let_in = {**read_if(ours), "Principal": "*"}
    fresh.client("s3").put_bucket_policy(Bucket="notes", Policy=json.dumps(_document(let_in)))
    stranger = fresh.other_account("s3")

    outside = refused(lambda: stranger.get_object(Bucket="notes", Key="a"))
    for account in (ACCOUNT, OTHER_ACCOUNT):
        fresh.control.set_organization(account, "o-lab", paths=[f"o-lab/r-1/ou-{account}/"])
    inside = stranger.get_object(Bucket="notes", Key="a")["Body"].read()
    told = refused(lambda: stranger.put_object(Bucket="notes", Key="a", Body=b""))

    check("IAM-EVAL-11", what="a stranger", expected=(403, "AccessDenied", "Access Denied"), observed=outside)
    check("IAM-EVAL-11", what="a member", expected="x", observed=inside.decode())
    reason = "because no resource-based policy allows the s3:PutObject action"
    check("IAM-EVAL-11", what="a member's denial", holds=told[2].endswith(reason), expected=reason, observed=told[2])


def _document(*statements: Mapping[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


# --- DynamoDB, KMS --------------------------------------------------------------------------------------------------


@requirement("IAM-ABAC-06")
def test_a_tenant_reads_its_own_partition_only(fresh: Aws) -> None:
    """By the leading keys of items, queries and batches; and the whole table by the guide's trap, a Scan."""
    dynamodb = fresh.client("dynamodb")
    dynamodb.create_table(
        TableName="notes",
        KeySchema=[{"AttributeName": "tenant", "KeyType": "HASH"}, {"AttributeName": "id", "KeyType": "RANGE"}],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("tenant", "id")],
        BillingMode="PAY_PER_REQUEST",
    )
    fresh.client("iam").create_user(UserName="ana", Tags=[{"Key": "team", "Value": "team-a"}])
    own = {"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": ["${aws:PrincipalTag/team}"]}}
    table = f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/notes"
    statement = {"Effect": "Allow", "Action": "dynamodb:*", "Resource": table, "Condition": own}
    fresh.client("iam").put_user_policy(
        UserName="ana", PolicyName="inline", PolicyDocument=json.dumps(_document(statement))
    )
    key = fresh.client("iam").create_access_key(UserName="ana")["AccessKey"]
    ana = fresh.client("dynamodb", {**key, "SessionToken": None})

    def item(tenant: str) -> dict[str, Any]:
        return {"tenant": {"S": tenant}, "id": {"S": "1"}}

    def query(tenant: str) -> Any:
        return ana.query(
            TableName="notes",
            KeyConditionExpression="#t = :t AND id > :i",
            ExpressionAttributeNames={"#t": "tenant"},
            ExpressionAttributeValues={":t": {"S": tenant}, ":i": {"S": "0"}},
        )

    ana.put_item(TableName="notes", Item=item("team-a"))
    dynamodb.put_item(TableName="notes", Item=item("team-b"))
    told = refused(lambda: ana.get_item(TableName="notes", Key=item("team-b")))
    others = [
        lambda: ana.put_item(TableName="notes", Item=item("team-b")),
        lambda: query("team-b"),
        lambda: ana.batch_get_item(RequestItems={"notes": {"Keys": [item("team-a"), item("team-b")]}}),
        lambda: ana.transact_write_items(TransactItems=[{"Put": {"TableName": "notes", "Item": item("team-b")}}]),
    ]

    check("IAM-ABAC-06", what="its own", expected=[item("team-a")], observed=query("team-a")["Items"])
    denied = [refused(call)[:2] for call in others]
    check("IAM-ABAC-06", what="another's", expected=[(400, "AccessDeniedException")] * 4, observed=denied)
    text = f"dynamodb:GetItem on resource: {table} because no identity-based policy allows the dynamodb:GetItem action"
    check("IAM-ABAC-06", what="the text", holds=told[2].endswith(text), expected=text, observed=told[2])
    check("IAM-ABAC-06", what="a Scan sees all", expected=2, observed=ana.scan(TableName="notes")["Count"])


@requirement("IAM-EVAL-05")
def test_a_secret_needs_its_key_too(fresh: Aws) -> None:
    """Secrets Manager asks KMS in the caller's name; key policies can say that it is the only way."""
    kms, owner = fresh.client("kms"), fresh.client("secretsmanager")
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    owner.create_secret(Name="sealed", SecretString="s", KmsKeyId=key)
    owner.create_secret(Name="plain", SecretString="p")
    reading = {**ALLOW_ALL, "Action": ["secretsmanager:GetSecretValue", "secretsmanager:BatchGetSecretValue"]}
    by_way_of = {"StringEquals": {"kms:ViaService": f"secretsmanager.{REGION}.amazonaws.com"}}
    opening = {**ALLOW_ALL, "Action": "kms:Decrypt", "Condition": by_way_of}
    ana = fresh.client("secretsmanager", user_key(fresh, "ana", reading))
    bob_key = user_key(fresh, "bob", reading, opening)
    bob = fresh.client("secretsmanager", bob_key)

    without = refused(lambda: ana.get_secret_value(SecretId="sealed"))
    batch = ana.batch_get_secret_value(SecretIdList=["plain", "sealed"])
    with_it = bob.get_secret_value(SecretId="sealed")["SecretString"]
    ciphertext = kms.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]
    directly = refused(lambda: fresh.client("kms", bob_key).decrypt(CiphertextBlob=ciphertext))
    carl = fresh.client("secretsmanager", user_key(fresh, "carl", {**ALLOW_ALL, "Action": "secretsmanager:*"}))
    described = carl.update_secret(SecretId="sealed", Description="d")["Name"]
    sealed_anew = refused(lambda: carl.update_secret(SecretId="sealed", SecretString="t"))
    own_key = "alias/aws/secretsmanager"
    by_name = [own_key, f"arn:aws:kms:{REGION}:{ACCOUNT}:{own_key}"]
    created = [carl.create_secret(Name=f"{n}", SecretString="s", KmsKeyId=key)["Name"] for n, key in enumerate(by_name)]
    read = [ana.get_secret_value(SecretId=name)["SecretString"] for name in created]
    of_nobody = refused(lambda: owner.create_secret(Name="lost", SecretString="s", KmsKeyId="alias/none"))

    text = "Access to KMS is not allowed"
    check("IAM-EVAL-05", what="without", expected=(400, "AccessDeniedException", text), observed=without)
    told = [(entry["SecretId"], entry["ErrorCode"], entry["Message"]) for entry in batch["Errors"]]
    check("IAM-EVAL-05", what="batch", expected=[("sealed", "AccessDeniedException", text)], observed=told)
    check("IAM-EVAL-05", what="others", expected=["p"], observed=[one["SecretString"] for one in batch["SecretValues"]])
    check("IAM-EVAL-05", what="with it", expected="s", observed=with_it)
    check("IAM-EVAL-05", what="directly", expected=(400, "AccessDeniedException"), observed=directly[:2])
    check("IAM-EVAL-05", what="another description", expected="sealed", observed=described)
    check("IAM-EVAL-05", what="another value", expected=without, observed=sealed_anew)
    check("IAM-EVAL-05", what="the service's own key", expected=["s", "s"], observed=read)
    check("IAM-EVAL-05", what="a key that is none", expected=without, observed=of_nobody)


@requirement("IAM-EVAL-05")
def test_a_key_needs_its_policy_s_consent(fresh: Aws) -> None:
    """By id, alias and ciphertext; conditions look at the encryption context."""
    kms = fresh.client("kms")
    team = {"StringEquals": {"kms:EncryptionContext:team": "a"}}
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    kms.create_alias(AliasName="alias/app", TargetKeyId=key)
    ana = fresh.client("kms", user_key(fresh, "ana", {**ALLOW_ALL, "Action": "kms:*", "Condition": team}))

    sealed = ana.encrypt(KeyId="alias/app", Plaintext=b"note", EncryptionContext={"team": "a"})["CiphertextBlob"]
    opened = ana.decrypt(CiphertextBlob=sealed, EncryptionContext={"team": "a"})["Plaintext"]
    other = refused(lambda: ana.encrypt(KeyId=key, Plaintext=b"note", EncryptionContext={"team": "b"}))
    only_root = {"Sid": "x", "Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:user/nobody"}}
    fresh.client("iam").create_user(UserName="nobody")
    kms.put_key_policy(
        KeyId=key, PolicyName="default", Policy=json.dumps(_document({**only_root, "Action": "kms:*", "Resource": "*"}))
    )
    shut_out = refused(lambda: ana.decrypt(CiphertextBlob=sealed, EncryptionContext={"team": "a"}))
    absent = refused(lambda: ana.describe_key(KeyId="alias/none"))

    check("IAM-EVAL-05", what="with the account's key policy", expected=b"note".hex(), observed=opened.hex())
    check("IAM-EVAL-05", what="another team", expected=(400, "AccessDeniedException"), observed=other[:2])
    reason = "because no resource-based policy allows the kms:Decrypt action"
    check("IAM-EVAL-05", what="no consent", holds=shut_out[2].endswith(reason), expected=reason, observed=shut_out)
    check("IAM-EVAL-05", what="no such key", expected=(400, "NotFoundException"), observed=absent[:2])
