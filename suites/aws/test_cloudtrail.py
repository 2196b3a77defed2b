"""CloudTrail's records and LookupEvents (``eks-api.md`` section 8)."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from harness.cloud.cloudtrail import ApiCall, CloudTrail, Failure, is_data_event, is_read_only, redacted
from harness.cloud.ports import Credential, Principal, Refusal, Role
from harness.cloud.sts import AssumedRole, AssumeRoleRequest
from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.subject.cloud_ports import SeededIds, SettableClock

ACCOUNT = "123456789012"
OTHER = "987654321098"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/reader"
CANARY = "canary-8a1f"


@pytest.fixture
def clock() -> SettableClock:
    return SettableClock()


@pytest.fixture
def trail(clock: SettableClock) -> CloudTrail:
    return CloudTrail(clock, SeededIds())


def session(clock: SettableClock, role: str = ROLE, name: str = "i-0abc", **changes: Any) -> Credential:
    account, role_name = role.split(":")[4], role.rpartition("/")[2]
    return Credential(
        access_key_id=f"ASIA{name[-4:].upper():A>16}",
        secret_access_key=CANARY,
        session_token=CANARY,
        principal=Principal(
            kind="role-session",
            arn=f"arn:aws:sts::{account}:assumed-role/{role_name}/{name}",
            account=account,
            user_id=f"AROAEXAMPLEEXAMPLE12:{name}",
            role_arn=role,
        ),
        issued_at=clock.now(),
        expires_at=clock.now() + timedelta(hours=6),
        **changes,
    )


def call(clock: SettableClock, name: str = "DescribeCluster", **changes: Any) -> ApiCall:
    values: dict[str, Any] = {
        "source": "eks.amazonaws.com",
        "name": name,
        "caller": session(clock),
        "region": "eu-west-1",
        "at": clock.now(),
        "request_id": "r-1",
        "parameters": {"clusterName": "pod-identity-lab"},
        "response": None,
        "failure": None,
        "read_only": True,
        "source_address": "10.0.0.1",
        "user_agent": "test",
        "host": "eks.eu-west-1.amazonaws.com",
        "resources": (("AWS::EKS::Cluster", "pod-identity-lab"),),
    }
    return ApiCall(**(values | changes))


def assumed(clock: SettableClock, role: str, name: str, **request: Any) -> AssumedRole:
    credential = session(clock, role, name)
    return AssumedRole(
        credential=credential,
        role=Role(role, "reader", "AROAEXAMPLEEXAMPLE12", ACCOUNT, "{}", (), None, {}),
        request=AssumeRoleRequest(role_arn=role, role_session_name=name, **request),
        caller=credential.principal,
        duration_seconds=21600,
        packed_policy_size=74,
        inherited_tags={"kubernetes-namespace": "demo"},
    )


def lookup(trail: CloudTrail, key: str = "", value: str = "", account: str = ACCOUNT, **request: Any) -> list[Any]:
    attributes = {"LookupAttributes": [{"AttributeKey": key, "AttributeValue": value}]} if key else {}
    return trail.lookup(account, "eu-west-1", attributes | request)["Events"]


def refused(lookup_events: Callable[[], object]) -> tuple[int, str]:
    with pytest.raises(Refusal) as refusal:
        lookup_events()
    return refusal.value.status, refusal.value.code


@requirement("API-805", "API-812")
def test_event_of_a_node_names_instance_and_hides_the_token(trail: CloudTrail, clock: SettableClock) -> None:
    """Record A (API-805, API-812)."""
    node = session(clock, f"arn:aws:iam::{ACCOUNT}:role/nodes/node-role", origin="imds")
    parameters = {"clusterName": "pod-identity-lab", "token": CANARY}
    trail.record_call(call(clock, "AssumeRoleForPodIdentity", caller=node, parameters=parameters))

    (event,) = lookup(trail)
    assert {name: event[name] for name in ("EventName", "ReadOnly", "EventTime", "EventSource", "Username")} == {
        "EventName": "AssumeRoleForPodIdentity",
        "ReadOnly": "true",
        "EventTime": clock.now(),
        "EventSource": "eks.amazonaws.com",
        "Username": "i-0abc",
    }
    assert event["Resources"] == [{"ResourceType": "AWS::EKS::Cluster", "ResourceName": "pod-identity-lab"}]
    record = json.loads(event["CloudTrailEvent"])
    assert record["requestParameters"] == {
        "clusterName": "pod-identity-lab",
        "token": "HIDDEN_DUE_TO_SECURITY_REASONS",
    }
    assert record["responseElements"] is None
    assert record["userIdentity"]["sessionContext"] == {
        "sessionIssuer": {
            "type": "Role",
            "principalId": "AROAEXAMPLEEXAMPLE12",
            "arn": f"arn:aws:iam::{ACCOUNT}:role/nodes/node-role",
            "accountId": ACCOUNT,
            "userName": "node-role",
        },
        "attributes": {"creationDate": "2026-04-10T14:00:00Z", "mfaAuthenticated": "false"},
        "ec2RoleDelivery": "2.0",
    }
    assert (record["eventTime"], record["recipientAccountId"]) == ("2026-04-10T14:00:00Z", ACCOUNT)


@requirement("API-813")
def test_event_of_the_service_holds_role_session_and_tags(trail: CloudTrail, clock: SettableClock) -> None:
    """Record B (API-813, API-814): found by the access key that the workload uses."""
    tags = (("eks-cluster-name", "lab"), ("kubernetes-namespace", "demo"))
    made = assumed(clock, ROLE, "eks-lab-pod-1", tags=tags, transitive_tag_keys=("eks-cluster-name",))
    trail.record_service_assume_role(made, "pods.eks.amazonaws.com", "eu-west-1")

    (event,) = lookup(trail, "ResourceName", made.credential.access_key_id)
    record = json.loads(event["CloudTrailEvent"])
    assert record["userIdentity"] == {"type": "AWSService", "invokedBy": "pods.eks.amazonaws.com"}
    assert record["sourceIPAddress"] == record["userAgent"] == "pods.eks.amazonaws.com"
    assert record["requestParameters"] == {
        "roleArn": ROLE,
        "roleSessionName": "eks-lab-pod-1",
        "durationSeconds": 21600,
        "tags": [
            {"key": "eks-cluster-name", "value": "lab"},
            {"key": "kubernetes-namespace", "value": "demo"},
        ],
        "transitiveTagKeys": ["eks-cluster-name"],
    }
    assert record["responseElements"] == {
        "credentials": {
            "accessKeyId": made.credential.access_key_id,
            "sessionToken": "HIDDEN_DUE_TO_SECURITY_REASONS",
            "expiration": "Apr 10, 2026, 8:00:00 PM",
        },
        "assumedRoleUser": {
            "assumedRoleId": "AROAEXAMPLEEXAMPLE12:eks-lab-pod-1",
            "arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/reader/eks-lab-pod-1",
        },
        "packedPolicySize": 74,
    }
    assert record["resources"] == [{"accountId": ACCOUNT, "type": "AWS::IAM::Role", "ARN": ROLE}]
    assert (record["eventVersion"], record["eventSource"], record["readOnly"]) == ("1.08", "sts.amazonaws.com", True)


@requirement("API-813")
def test_event_without_tags_has_no_tag_members(trail: CloudTrail, clock: SettableClock) -> None:
    trail.record_service_assume_role(assumed(clock, ROLE, "eks-1"), "pods.eks.amazonaws.com", "eu-west-1")

    parameters = json.loads(lookup(trail)[0]["CloudTrailEvent"])["requestParameters"]
    assert set(parameters) == {"roleArn", "roleSessionName", "durationSeconds"}


@requirement("API-811")
def test_target_role_is_recorded_in_both_accounts(trail: CloudTrail, clock: SettableClock) -> None:
    """Record C: joined by sharedEventID; the target's account learns the caller's account and ID, and no more."""
    target = f"arn:aws:iam::{OTHER}:role/target"
    made = assumed(clock, target, "eks-2", external_id="eu-west-1/1/c/n/s")
    caller = session(clock)
    trail.record_chained_assume_role(made, caller, "pods.eks.amazonaws.com", "eu-west-1")

    (seen_there,) = lookup(trail, account=OTHER)
    records = [
        json.loads(event["CloudTrailEvent"]) for account in (ACCOUNT, OTHER) for event in lookup(trail, account=account)
    ]
    assert [record["recipientAccountId"] for record in records] == [ACCOUNT, OTHER]
    assert len({record["sharedEventID"] for record in records}) == 1
    assert len({record["eventID"] for record in records}) == 2
    assert records[0]["userIdentity"]["type"] == "AssumedRole"
    assert records[1]["userIdentity"] == {
        "type": "AWSAccount",
        "principalId": caller.principal.user_id,
        "accountId": ACCOUNT,
        "invokedBy": "pods.eks.amazonaws.com",
    }
    assert not {"Username", "AccessKeyId"} & set(seen_there)
    assert records[0]["requestParameters"]["externalId"] == "eu-west-1/1/c/n/s"
    assert records[0]["requestParameters"]["incomingTransitiveTags"] == {"kubernetes-namespace": "demo"}


@requirement("API-809")
def test_refused_target_role_is_recorded_in_the_callers_account(trail: CloudTrail, clock: SettableClock) -> None:
    """Like record C, with STS's code and text, without credentials, and nothing in the target's account."""
    target = f"arn:aws:iam::{OTHER}:role/target"
    caller = session(clock, name="eks-1", transitive_tags={"kubernetes-namespace": "demo"})
    request = AssumeRoleRequest(
        role_arn=target, role_session_name="eks-2", duration_seconds=3540, external_id="eu-west-1/1/c/n/s"
    )
    trail.record_refused_target(request, caller, Failure("AccessDenied", "no"), "pods.eks.amazonaws.com", "eu-west-1")

    (event,) = lookup(trail, "ResourceName", target)
    record = json.loads(event["CloudTrailEvent"])
    assert (record["errorCode"], record["errorMessage"], record["responseElements"]) == ("AccessDenied", "no", None)
    assert record["userIdentity"]["arn"] == caller.principal.arn
    assert record["requestParameters"] == {
        "roleArn": target,
        "roleSessionName": "eks-2",
        "externalId": "eu-west-1/1/c/n/s",
        "durationSeconds": 3540,
        "incomingTransitiveTags": {"kubernetes-namespace": "demo"},
    }
    assert lookup(trail, account=OTHER) == []


@requirement("API-810")
def test_no_event_holds_a_secret(trail: CloudTrail, clock: SettableClock) -> None:
    """API-810: canary search over every way in."""
    response = {
        "Credentials": {"SecretAccessKey": CANARY, "SessionToken": CANARY},
        "AccessKey": {"SecretAccessKey": CANARY},
    }
    parameters = {"SecretString": CANARY, "token": CANARY, "Deep": [{"Password": CANARY}], "Body": CANARY.encode()}
    trail.record_call(call(clock, "CreateSecret", parameters=parameters, response=response))
    trail.record_service_assume_role(assumed(clock, ROLE, "eks-1"), "pods.eks.amazonaws.com", "eu-west-1")
    trail.record_chained_assume_role(assumed(clock, ROLE, "eks-2"), session(clock), "x", "eu-west-1")

    assert len(lookup(trail)) == 3
    assert CANARY not in json.dumps(lookup(trail), default=str)


@requirement("API-810")
def test_parameters_keep_what_is_no_secret() -> None:
    assert redacted({"NextToken": "n", "clientRequestToken": "c", "Tags": [{"Key": "a"}], "Empty": None}) == {
        "nextToken": "n",
        "clientRequestToken": "c",
        "tags": [{"key": "a"}],
    }


@requirement("API-809")
def test_refusal_is_recorded_with_code_and_message(trail: CloudTrail, clock: SettableClock) -> None:
    """API-809."""
    trail.record_call(call(clock, failure=Failure("AccessDenied", "User: x is not authorized")))

    record = json.loads(lookup(trail)[0]["CloudTrailEvent"])
    assert (record["errorCode"], record["errorMessage"]) == ("AccessDenied", "User: x is not authorized")


@requirement("API-803")
@pytest.mark.parametrize(
    ("key", "value", "count"),
    [
        ("EventName", "DescribeCluster", 1),
        ("EventName", "describecluster", 0),
        ("ReadOnly", "false", 1),
        ("ReadOnly", "true", 1),
        ("Username", "i-0abc", 2),
        ("ResourceType", "AWS::EKS::Cluster", 2),
        ("ResourceName", "pod-identity-lab", 2),
        ("EventSource", "eks.amazonaws.com", 2),
        ("EventSource", "sts.amazonaws.com", 0),
        ("AccessKeyId", "nobody", 0),
    ],
)
def test_attributes_select(trail: CloudTrail, clock: SettableClock, key: str, value: str, count: int) -> None:
    """API-803."""
    trail.record_call(call(clock))
    trail.record_call(call(clock, "CreateAddon", read_only=False))

    assert len(lookup(trail, key, value)) == count


@requirement("API-803")
def test_an_event_is_found_by_its_id_and_its_key(trail: CloudTrail, clock: SettableClock) -> None:
    """Both are in the event itself."""
    trail.record_call(call(clock))
    trail.record_call(call(clock, "CreateAddon", caller=session(clock, name="other")))
    newest, oldest = lookup(trail)

    assert lookup(trail, "EventId", oldest["EventId"]) == [oldest]
    assert lookup(trail, "AccessKeyId", newest["AccessKeyId"]) == [newest]


@requirement("API-804")
def test_events_are_newest_first_of_one_account_and_region(trail: CloudTrail, clock: SettableClock) -> None:
    """API-804."""
    for name in ("first", "second"):
        trail.record_call(call(clock, name))
        clock.advance(1)
    trail.record_call(call(clock, "elsewhere", region="us-east-1"))

    assert [event["EventName"] for event in lookup(trail)] == ["second", "first"]
    assert lookup(trail, account=OTHER) == []
    clock.advance(91 * 86400)
    assert lookup(trail) == []


@requirement("API-802")
def test_pages_hold_every_event_once_while_new_ones_come(trail: CloudTrail, clock: SettableClock) -> None:
    for number in range(7):
        trail.record_call(call(clock, f"E{number}"))
    first = trail.lookup(ACCOUNT, "eu-west-1", {"MaxResults": 3})
    trail.record_call(call(clock, "late"))
    rest = trail.lookup(ACCOUNT, "eu-west-1", {"NextToken": first["NextToken"]})

    names = [event["EventName"] for page in (first, rest) for event in page["Events"]]
    assert names == ["E6", "E5", "E4", "E3", "E2", "E1", "E0"]
    assert "NextToken" not in rest


@requirement("API-802")
def test_time_range_is_inclusive(trail: CloudTrail, clock: SettableClock) -> None:
    start = clock.now()
    for name in ("a", "b", "c"):
        trail.record_call(call(clock, name))
        clock.advance(10)

    found = lookup(trail, StartTime=start + timedelta(seconds=10), EndTime=start + timedelta(seconds=20))
    assert [event["EventName"] for event in found] == ["c", "b"]


@requirement("API-802", "API-806")
def test_wrong_parameters_have_their_own_codes(trail: CloudTrail, clock: SettableClock) -> None:
    """API-806."""
    now = clock.now()
    two = [{"AttributeKey": "EventName", "AttributeValue": "a"}] * 2
    for request, code in (
        ({"LookupAttributes": two}, "InvalidLookupAttributesException"),
        ({"LookupAttributes": [{"AttributeKey": "Color", "AttributeValue": "a"}]}, "InvalidLookupAttributesException"),
        ({"MaxResults": 0}, "InvalidMaxResultsException"),
        ({"MaxResults": 51}, "InvalidMaxResultsException"),
        ({"StartTime": now, "EndTime": now - timedelta(seconds=1)}, "InvalidTimeRangeException"),
        ({"NextToken": "x"}, "InvalidNextTokenException"),
        ({"EventCategory": "data"}, "InvalidEventCategoryException"),
    ):
        assert refused(lambda request=request: trail.lookup(ACCOUNT, "eu-west-1", request)) == (400, code)


@requirement("API-806")
def test_page_token_of_other_parameters_is_refused(trail: CloudTrail, clock: SettableClock) -> None:
    for _ in range(2):
        trail.record_call(call(clock))
    token = trail.lookup(ACCOUNT, "eu-west-1", {"MaxResults": 1})["NextToken"]

    request = {"NextToken": token, "LookupAttributes": [{"AttributeKey": "ReadOnly", "AttributeValue": "true"}]}
    assert refused(lambda: trail.lookup(ACCOUNT, "eu-west-1", request)) == (400, "InvalidNextTokenException")
    assert refused(lambda: trail.lookup(OTHER, "eu-west-1", {"NextToken": token})) == (400, "InvalidNextTokenException")


@requirement("API-808")
def test_object_calls_of_s3_are_data_events() -> None:
    """API-808."""
    assert is_data_event("s3", "GetObject", {"Bucket": "b", "Key": "k"})
    assert is_data_event("s3", "ListObjectsV2", {"Bucket": "b"})
    assert not is_data_event("s3", "ListBuckets", {})
    assert not is_data_event("s3", "PutBucketPolicy", {"Bucket": "b"})
    assert not is_data_event("secretsmanager", "GetSecretValue", {"SecretId": "s"})


@requirement("API-803")
def test_reading_and_writing_are_told_apart() -> None:
    reading = (
        "GetCallerIdentity",
        "ListBuckets",
        "AssumeRole",
        "AssumeRoleForPodIdentity",
        "LookupEvents",
        "BatchGetSecretValue",
    )
    assert all(map(is_read_only, reading))
    assert not any(map(is_read_only, ("CreateRole", "DeleteBucket", "TagResource", "PutBucketPolicy")))


@requirement("API-807")
def test_events_show_up_after_a_delay_that_can_be_set(clock: SettableClock) -> None:
    """Not before, then for good; by default at once."""
    late, prompt = CloudTrail(clock, SeededIds(), delay=120), CloudTrail(clock, SeededIds())
    for trail in (late, prompt):
        trail.record_call(call(clock))

    seen = {"by default": len(prompt.lookup(ACCOUNT, "eu-west-1", {})["Events"])}
    for seconds in (0, 119, 1, 600):
        clock.advance(seconds)
        seen[f"{seconds} s later"] = len(late.lookup(ACCOUNT, "eu-west-1", {})["Events"])

    expected = {"by default": 1, "0 s later": 0, "119 s later": 0, "1 s later": 1, "600 s later": 1}
    check("API-807", what="events", expected=expected, observed=seen)
