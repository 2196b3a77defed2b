"""DynamoDB (``iam.md`` 9.2)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from harness.cloud.actions.model import ParsedCall, Plan, PlannedCheck, RequestTags, Resources, planned
from harness.cloud.documents import entries, members
from harness.cloud.iam.model import ContextValue

_ON_TABLE = {
    "CreateTable",
    "DeleteTable",
    "DescribeContinuousBackups",
    "DescribeTable",
    "DescribeTimeToLive",
    "UpdateTable",
    "UpdateTimeToLive",
}
_ON_ITEM = {"DeleteItem", "GetItem", "PutItem", "UpdateItem"}
_ON_ARN = {"ListTagsOfResource", "TagResource", "UntagResource"}
_ON_ANYTHING = {"DescribeLimits", "ListTables"}
_BATCHES = {"BatchGetItem", "BatchWriteItem"}
_TRANSACTIONS = {"TransactGetItems", "TransactWriteItems"}
_IN_TRANSACTION = {
    "ConditionCheck": "ConditionCheckItem",
    "Delete": "DeleteItem",
    "Get": "GetItem",
    "Put": "PutItem",
    "Update": "UpdateItem",
}
DYNAMODB_OPERATIONS = frozenset(
    _ON_TABLE | _ON_ITEM | _ON_ARN | _ON_ANYTHING | _BATCHES | _TRANSACTIONS | {"Query", "Scan"}
)
"""All that are mapped here."""
_AS_SENT = ("ReturnConsumedCapacity", "ReturnValues", "Select")
_EXPRESSIONS = (
    "ConditionExpression", "FilterExpression", "KeyConditionExpression", "ProjectionExpression", "UpdateExpression",
)  # fmt: skip
_NAME = re.compile(r"(?<![\w#:.])[#A-Za-z_]\w*(?!\w*\s*\()")
"""A name at the top of a path, not a value, and not a function."""
_WORDS = frozenset({"add", "and", "between", "delete", "in", "not", "or", "remove", "set"})
_EQUALS = re.compile(r"(?<![\w#.])(?P<name>[#A-Za-z_]\w*)\s*=\s*(?P<value>:\w+)")


def plan_dynamodb(call: ParsedCall, resources: Resources) -> Plan | None:
    """Return the checks of a DynamoDB call; None also for a Query whose partition nobody can tell."""
    operation, table = call.operation, _table(call, call.text("TableName"))
    checks: list[PlannedCheck] | None = None
    if operation in _ON_ANYTHING:
        checks = [planned(call, "*")]
    elif operation in _ON_ARN or operation in _ON_TABLE:
        resource = call.text("ResourceArn") if operation in _ON_ARN else table
        checks = [planned(call, resource, context=_tags(call), tags=())]
    elif operation in _ON_ITEM:
        checks = [_on_items(call, resources, table, [call.parameters])]
    elif operation in {"Query", "Scan"}:
        checks = _search(call, resources, table)
    elif operation in _BATCHES:
        checks = list(_batch(call, resources))
    elif operation in _TRANSACTIONS:
        checks = list(_transaction(call, resources))
    return None if checks is None else Plan(tuple(checks))


def _tags(call: ParsedCall) -> dict[str, ContextValue]:
    removed = entries(call.parameters.get("TagKeys"))
    asked: dict[str, ContextValue] = {"aws:TagKeys": tuple(str(key) for key in removed)} if removed else {}
    return RequestTags.of(call.parameters.get("Tags")).context() or asked


def _table(call: ParsedCall, name: str) -> str:
    return name if name.startswith("arn:") else call.arn("dynamodb", f"table/{name}")


def _on_items(
    call: ParsedCall,
    resources: Resources,
    table: str,
    items: Iterable[Mapping[str, Any]],
    *,
    action: str = "",
    enclosing: str = "",
) -> PlannedCheck:
    """Return the check of items of one table, each given as the request that is about it."""
    arn, requests = _table(call, table), list(items)
    partition = resources.partition_key(arn)
    attributes = [members(one.get("Key") or one.get("Item")) for one in requests]
    leading = [_text(one[partition]) for one in attributes if partition in one]
    keys: dict[str, ContextValue] = dict(_sent(call))
    if leading:
        keys["dynamodb:LeadingKeys"] = tuple(dict.fromkeys(leading))
    if named := dict.fromkeys(name for one in requests for name in _attributes(one)):
        keys["dynamodb:Attributes"] = tuple(named)
    if enclosing:
        keys["dynamodb:EnclosingOperation"] = enclosing
    return planned(call, arn, action=action, context=keys, tags=())


def _sent(call: ParsedCall) -> Iterator[tuple[str, str]]:
    return ((f"dynamodb:{name}", call.text(name)) for name in _AS_SENT if call.text(name))


def _search(call: ParsedCall, resources: Resources, table: str) -> list[PlannedCheck] | None:
    """Return the check of Query, on the partition it is about, or of Scan, which is about all of them."""
    arn = f"{table}/index/{index}" if (index := call.text("IndexName")) else table
    keys: dict[str, ContextValue] = dict(_sent(call))
    if call.operation == "Query":
        leading = _partition_asked(call, resources.partition_key(arn))
        if leading is None:
            return None
        keys["dynamodb:LeadingKeys"] = (leading,)
    if named := dict.fromkeys(_attributes(call.parameters)):
        keys["dynamodb:Attributes"] = tuple(named)
    return [planned(call, arn, context=keys, tags=())]


def _partition_asked(call: ParsedCall, partition: str) -> str | None:
    """Return the partition of a Query; without it ForAllValues would let every partition be read."""
    conditions = members(members(call.parameters.get("KeyConditions")).get(partition))
    if conditions.get("ComparisonOperator") == "EQ":
        return next(iter(_text(value) for value in entries(conditions.get("AttributeValueList"))), None)
    names, values = (members(call.parameters.get(f"ExpressionAttribute{what}")) for what in ("Names", "Values"))
    found = [
        values[one["value"]]
        for one in _EQUALS.finditer(call.text("KeyConditionExpression"))
        if str(names.get(one["name"], one["name"])) == partition and one["value"] in values
    ]
    return _text(found[0]) if partition and len(found) == 1 else None


def _batch(call: ParsedCall, resources: Resources) -> Iterator[PlannedCheck]:
    for table, requested in members(call.parameters.get("RequestItems")).items():
        if call.operation == "BatchGetItem":
            shared = {name: value for name, value in members(requested).items() if name != "Keys"}
            items = [{**shared, "Key": key} for key in entries(members(requested).get("Keys"))]
        else:
            items = [members(request) for one in entries(requested) for request in members(one).values()]
        yield _on_items(call, resources, table, items)


def _transaction(call: ParsedCall, resources: Resources) -> Iterator[PlannedCheck]:
    for one in map(members, entries(call.parameters.get("TransactItems"))):
        for kind, request in one.items():
            table, action = str(members(request).get("TableName", "")), f"dynamodb:{_IN_TRANSACTION[kind]}"
            yield _on_items(call, resources, table, [members(request)], action=action, enclosing=call.operation)


def _attributes(request: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of the attributes that a request speaks of."""
    for member in ("Key", "Item", "KeyConditions", "QueryFilter", "ScanFilter", "AttributeUpdates", "Expected"):
        yield from members(request.get(member))
    yield from (str(name) for name in entries(request.get("AttributesToGet")))
    names = members(request.get("ExpressionAttributeNames"))
    for expression in (str(request.get(member) or "") for member in _EXPRESSIONS):
        for found in _NAME.findall(expression):
            if found.lower() not in _WORDS:
                yield str(names.get(found, found))


def _text(value: Any) -> str:
    """Return the text of a typed value, such as ``{"S": "team-a"}``."""
    return str(next(iter(members(value).values()), ""))
