"""What a lab can set about its AWS: delays, throttling, and how much a denial tells."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from harness.cloud.localstack import environment
from harness.cloud.localstack.emulator import Settings
from harness.cloud.ports import Refusal
from harness.cloud.session_tags import packed_size
from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.subject.aws import ACCOUNT, Aws, refused, user_key
from harness.subject.running_aws import running_aws

IAM_DELAY = 60.0
TAGS = {
    "eks-cluster-arn": f"arn:aws:eks:eu-west-1:{ACCOUNT}:cluster/pod-identity-lab",
    "eks-cluster-name": "pod-identity-lab",
    "kubernetes-namespace": "demo",
    "kubernetes-service-account": "s3-reader",
    "kubernetes-pod-name": "s3-test",
    "kubernetes-pod-uid": "5d3b6e1c-0c58-4a53-9d3d-3b8a2f6f9a11",
}


@pytest.fixture(scope="module")
def process(localstack_environment: environment.Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    """A process in which everything that can be set is set."""
    settings = {
        "PODID_IAM_DELAY": str(IAM_DELAY),
        "PODID_LOOKUPS_PER_SECOND": "2",
        "PODID_POLICY_ARN_IN_DENIALS": "1",
        "PODID_PACKED_POLICY_PROFILE": "observed",
    }
    with running_aws(localstack_environment, tmp_path_factory.mktemp("slow"), **settings) as running:
        yield running


@pytest.fixture
def slow(process: Aws) -> Iterator[Aws]:
    """The same in its first state."""
    yield process
    process.control.reset()


@requirement("IAM-GATE-05", "API-904")
def test_a_change_of_iam_counts_after_the_delay(aws: Aws, slow: Aws) -> None:
    """A user's policy is given and taken away: at once by default, later where that is set; IAM itself shows it."""
    seen: dict[str, Any] = {}
    for name, lab in (("default", aws), ("delayed", slow)):
        moved = 0.0
        key = user_key(lab, "carol", {"Effect": "Allow", "Action": "s3:ListAllMyBuckets", "Resource": "*"})
        client, readings = lab.client("s3", key), [_may_list(lab.client("s3", key))]
        for change in (False, True):
            if change:
                lab.client("iam").delete_user_policy(UserName="carol", PolicyName="inline")
                readings.append(_may_list(client))
            moved += IAM_DELAY + 1
            lab.control.move_clock(moved)
            readings.append(_may_list(client))
        seen[name] = readings, lab.client("iam").list_user_policies(UserName="carol")["PolicyNames"]

    aws.control.reset()
    for identifier in ("IAM-GATE-05", "API-904"):
        what = "given, after the delay, taken away, after the delay; and what IAM shows"
        check(
            identifier, what=f"by default: {what}", expected=([True, True, False, False], []), observed=seen["default"]
        )
        check(identifier, what=f"delayed: {what}", expected=([False, True, True, False], []), observed=seen["delayed"])


def _may_list(client: Any) -> bool:
    try:
        client.list_buckets()
    except client.exceptions.ClientError:
        return False
    return True


@requirement("IAM-MSG-06")
def test_a_switch_names_the_policy_that_denies(aws: Aws, slow: Aws) -> None:
    """A managed policy's explicit denial ends in its ARN; an inline one, or the switch off, tells nothing."""
    texts: dict[str, str] = {}
    for name, lab in (("off", aws), ("on", slow)):
        iam = lab.client("iam")
        key = user_key(lab, "dave")
        document = '{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"s3:*","Resource":"*"}]}'
        arn = iam.create_policy(PolicyName="never", PolicyDocument=document)["Policy"]["Arn"]
        iam.attach_user_policy(UserName="dave", PolicyArn=arn)
        lab.control.move_clock(IAM_DELAY + 1 if name == "on" else 0)  # the policy counts now
        texts[name] = refused(lab.client("s3", key).list_buckets)[2]

    aws.control.reset()
    ending = "with an explicit deny in an identity-based policy"
    named = f"{ending}: arn:aws:iam::{ACCOUNT}:policy/never"
    check("IAM-MSG-06", what="off", expected=ending, observed=texts["off"][-len(ending) :])
    check("IAM-MSG-06", what="on", expected=named, observed=texts["on"][-len(named) :])


@requirement("IAM-STS-33")
def test_a_setting_packs_as_tightly_as_aws_was_seen_to(slow: Aws) -> None:
    """The article's six tags take about three quarters; long names are too big, and fit by default."""
    long = {**TAGS, "kubernetes-namespace": "n" * 63, "kubernetes-service-account": "s" * 63}
    long["kubernetes-pod-name"] = "p" * 63

    with pytest.raises(Refusal) as too_big:
        packed_size(long, (), Settings.read({"PODID_PACKED_POLICY_PROFILE": "observed"}).packed_policy_profile)
    tags = [{"Key": key, "Value": value} for key, value in long.items()]
    key = user_key(slow, "erin")
    statement = f'{{"Effect":"Allow","Principal":{{"AWS":"{ACCOUNT}"}},"Action":"sts:*"}}'
    trust = f'{{"Version":"2012-10-17","Statement":[{statement}]}}'
    role = slow.client("iam").create_role(RoleName="packed", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    slow.control.move_clock(IAM_DELAY + 1)  # role and user count now
    sts = slow.client("sts", key)
    answer = refused(lambda: sts.assume_role(RoleArn=role, RoleSessionName="me", Tags=tags))

    observed = packed_size(TAGS, (), "observed") or 0
    check(
        "IAM-STS-33", what="the six tags, percent", expected="70 to 80", observed=observed, holds=70 <= observed <= 80
    )
    check("IAM-STS-33", what="long names", expected="PackedPolicyTooLarge", observed=too_big.value.code)
    check("IAM-STS-33", what="on the wire", expected="PackedPolicyTooLarge", observed=answer[1])
    check("IAM-STS-33", what="by default", expected=True, observed=(packed_size(long, ()) or 101) <= 100)


@requirement("API-807")
def test_lookups_are_throttled_where_that_is_set(slow: Aws) -> None:
    """Two a second and no more; another account is not hit."""
    codes = [_lookup(slow.client("cloudtrail")) for _ in range(6)]
    other = _lookup(slow.other_account("cloudtrail"))

    check("API-807", what="six in a row", expected=True, observed="ThrottlingException" in codes)
    check("API-807", what="the first two", expected=["", ""], observed=codes[:2])
    check("API-807", what="another account", expected="", observed=other)


def _lookup(client: Any) -> str:
    try:
        client.lookup_events(MaxResults=1)
    except client.exceptions.ClientError as error:
        return str(error.response["Error"]["Code"])
    return ""
