"""Decisions for other tools: one JSON object in, one JSON object out (``podid iam evaluate``)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from harness.cloud.documents import is_too_deep
from harness.cloud.iam.evaluate import authorize
from harness.cloud.iam.model import Check, ContextValue, Decision, EvaluationRequest, PolicySet
from harness.cloud.iam.values import LONGEST_VALUE, is_too_long
from harness.cloud.ports import NamedPolicy, Principal

__all__ = ["Answer", "evaluate_lines"]

_MEMBERS = {
    "principal", "action", "resource", "resourceAccount", "context", "identity", "session", "boundaries",
    "resourcePolicy", "scps", "rcps", "endpoint", "wildcardOnlyAction",
}  # fmt: skip
_ARN = re.compile(r"arn:[^:]*:(?P<service>iam|sts)::(?P<account>[0-9]{12}):(?P<kind>[a-z-]+)(?P<rest>/.+)?", re.DOTALL)
_SERVICE = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+")
_ACTION = re.compile(r"[a-zA-Z0-9-]+:[a-zA-Z0-9]+")
_ACCOUNT = re.compile(r"[0-9]{12}")
_TAG = "aws:principaltag/"
_LIST_BUCKETS = "s3:listallmybuckets"


class _LineFault(Exception):  # noqa: N818 - the line is at fault; no caller ever sees it
    """A line that is no question."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said about one line."""

    data: Mapping[str, object]
    """``decision``, ``deniedBy``, ``statement``, ``reason``; or ``line`` and ``error``."""
    is_error: bool = False


def evaluate_lines(lines: Iterable[bytes]) -> Iterator[Answer]:
    """Answer every line that is not blank, in order; one bad line does not spoil the others.

    Args:
        lines: UTF-8, one JSON object each. Members: docs/iam.md.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield Answer(_as_data(authorize(_question(_parsed(line)))))
        except _LineFault as fault:
            yield Answer({"line": number, "error": str(fault)}, is_error=True)


def _as_data(decision: Decision) -> dict[str, object]:
    denial = "ExplicitlyDenied" if decision.explicit else "ImplicitlyDenied"
    statement: dict[str, object] | None = None
    if decision.statement is not None:
        statement = {"policy": decision.policy, "index": decision.statement}
        if decision.sid:
            statement["sid"] = decision.sid
    return {
        "decision": "Allowed" if decision.allowed else denial,
        "deniedBy": None if decision.allowed else decision.layer,
        "statement": statement,
        "reason": decision.sentence(),
    }


# --- reading --------------------------------------------------------------------------------------------------------


def _parsed(line: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(line.decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except RecursionError:
        raise _LineFault("nested too deeply") from None
    except ValueError as error:
        raise _LineFault(f"not JSON: {error}") from error
    if is_too_deep(value):
        raise _LineFault("nested too deeply")
    if not isinstance(value, dict):
        raise _LineFault("not a JSON object")
    body = cast("dict[str, Any]", value)
    if unknown := body.keys() - _MEMBERS:
        # A misspelt limit must not be one that is absent.
        raise _LineFault(f"unknown members: {', '.join(sorted(unknown))}")
    return body


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _LineFault("a member occurs twice in one object")
    return members


def _refuse_constant(text: str) -> Any:
    raise _LineFault(f"{text} is no JSON")


def _question(body: Mapping[str, Any]) -> EvaluationRequest:
    action = _text(body, "action")
    if not _ACTION.fullmatch(action):
        raise _LineFault(f"action {action!r} is not of the form service:Name")
    context = _context(body.get("context"))
    principal = _principal(body.get("principal"), context)
    return EvaluationRequest(_check(body, action), principal, _policies(body, action), context)


def _check(body: Mapping[str, Any], action: str) -> Check:
    resource, owner = _text(body, "resource"), _text(body, "resourceAccount", default="")
    if owner and not _ACCOUNT.fullmatch(owner):
        raise _LineFault("resourceAccount is not 12 digits")
    has_no_type = body.get("wildcardOnlyAction", False)
    if not isinstance(has_no_type, bool):
        raise _LineFault("wildcardOnlyAction is neither true nor false")
    if has_no_type:
        # Nobody owns what has no name.
        resource, owner = "*", ""
    if resource == "*" and action.lower() == _LIST_BUCKETS:
        # The one action of this kind that an ARN can grant (IAM-STMT-06).
        resource = "arn:aws:s3:::*"
    return Check(action, resource, resource_account=owner)


def _text(body: Mapping[str, Any], member: str, default: str | None = None) -> str:
    value = body.get(member)
    value = default if value is None else value
    if not isinstance(value, str) or (not value and default is None):
        raise _LineFault(f"{member} is missing" if value is None else f"{member} is not a text")
    return value


def _context(value: Any) -> dict[str, ContextValue]:
    context: dict[str, ContextValue] = {}
    for key, sent in _object(value, "context").items():
        values = cast("list[Any]", sent) if isinstance(sent, list) else [sent]
        if not all(isinstance(item, str) for item in values) or is_too_long(tuple(values)):
            raise _LineFault(f"context key {key} is neither a text nor a list of texts of at most {LONGEST_VALUE}")
        if key.lower() in context:
            raise _LineFault(f"context key {key} occurs twice; keys compare without case")
        context[key.lower()] = tuple(values) if isinstance(sent, list) else values[0]
    return context


def _object(value: Any, what: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _LineFault(f"{what} is not an object")
    return cast("dict[str, Any]", value)


# --- who ------------------------------------------------------------------------------------------------------------


def _principal(value: Any, context: dict[str, ContextValue]) -> Principal:
    """Read the caller; what its ARN does not tell comes from the context: tags, user ID, the path of a role."""
    if isinstance(value, dict):
        if cast("dict[str, Any]", value) != {"type": "Anonymous"}:
            raise _LineFault('principal is an object other than {"type": "Anonymous"}')
        return Principal("anonymous", "", "", "")
    if not isinstance(value, str):
        raise _LineFault("principal is missing" if value is None else "principal is not a text")
    if not value.startswith("arn:"):
        if not _SERVICE.fullmatch(value):
            raise _LineFault(f"principal {value!r} is neither an ARN nor the name of a service")
        return Principal("service", "", "", "", service=value)
    found = _ARN.fullmatch(value)
    build = _KINDS.get(f"{found['service']}:{found['kind']}") if found else None
    if found is None or build is None:
        raise _LineFault(f"principal {value!r} is no ARN of a principal")
    tags = {key.removeprefix(_TAG): text for key, text in context.items() if key.startswith(_TAG)}
    known = {key: text for key, text in tags.items() if isinstance(text, str)}
    user_id = context.get("aws:userid", "")
    return build(value, found["account"], user_id if isinstance(user_id, str) else "", known, context)


_Context = dict[str, ContextValue]
_Tags = Mapping[str, str]


def _user(arn: str, account: str, user_id: str, tags: _Tags, _: _Context) -> Principal:
    return Principal("user", arn, account, user_id, tags=tags)


def _root(arn: str, account: str, _: str, tags: _Tags, __: _Context) -> Principal:
    return Principal("root", arn, account, account, tags=tags)


def _role(arn: str, account: str, user_id: str, tags: _Tags, _: _Context) -> Principal:
    return Principal("role-session", arn, account, user_id, role_arn=arn, tags=tags)


def _session(arn: str, account: str, user_id: str, tags: _Tags, context: _Context) -> Principal:
    role = context.get("aws:principalarn", "")
    partition, name = arn.split(":")[1], arn.split("/")[1]
    is_own = (
        isinstance(role, str) and role.startswith(f"arn:{partition}:iam::{account}:role/") and role.endswith(f"/{name}")
    )
    return Principal("role-session", arn, account, user_id, role_arn=str(role) if is_own else "", tags=tags)


def _federated_user(arn: str, account: str, _: str, tags: _Tags, __: _Context) -> Principal:
    return Principal("federated-user", arn, account, f"{account}:{arn.split('/', 1)[1]}", tags=tags)


def _web_identity(arn: str, _: str, __: str, tags: _Tags, context: _Context) -> Principal:
    context["aws:federatedprovider"] = arn
    return Principal("web-identity", "", "", "", tags=tags)


_KINDS: Mapping[str, Callable[[str, str, str, _Tags, _Context], Principal]] = {
    "iam:user": _user,
    "iam:root": _root,
    "iam:role": _role,
    "iam:oidc-provider": _web_identity,
    "iam:saml-provider": _web_identity,
    "sts:assumed-role": _session,
    "sts:federated-user": _federated_user,
}


# --- policies -------------------------------------------------------------------------------------------------------


def _policies(body: Mapping[str, Any], action: str) -> PolicySet:
    own = body.get("resourcePolicy")
    resource = None if own is None else _policy(own, "resourcePolicy")
    is_trust = action.lower().startswith("sts:")
    session = body.get("session")
    return PolicySet(
        identity=_policy_list(body.get("identity"), "identity"),
        boundaries=_policy_list(body.get("boundaries"), "boundaries"),
        session=None if session is None else _policy_list(session, "session", may_be_one=True),
        resource=None if is_trust else resource,
        trust=resource if is_trust else None,
        scp=_levels(body.get("scps"), "scps"),
        rcp=_levels(body.get("rcps"), "rcps"),
        endpoint=_policy_list(body.get("endpoint"), "endpoint"),
    )


def _levels(value: Any, what: str) -> tuple[tuple[NamedPolicy, ...], ...]:
    levels: list[tuple[NamedPolicy, ...]] = []
    for index, item in enumerate(_listed(value, what)):
        level = _object(item, f"{what}[{index}]")
        if set(level) != {"orgIdentifier", "policies"} or not isinstance(level["orgIdentifier"], str):
            raise _LineFault(f"{what}[{index}] does not consist of orgIdentifier and policies")
        levels.append(_policy_list(level["policies"], f"{what}[{index}] {level['orgIdentifier']}"))
    return tuple(levels)


def _policy_list(value: Any, what: str, *, may_be_one: bool = False) -> tuple[NamedPolicy, ...]:
    if may_be_one and isinstance(value, dict | str):
        return (_policy(cast("Any", value), what),)
    return tuple(_policy(item, f"{what}[{index}]") for index, item in enumerate(_listed(value, what)))


def _listed(value: Any, what: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise _LineFault(f"{what} is not a list")
    return cast("list[Any]", value)


def _policy(value: Any, name: str) -> NamedPolicy:
    """Read a document: an object, its text, or either with a name as ``{"name": …, "policy": …}``."""
    if isinstance(value, dict):
        body = cast("dict[str, Any]", value)
        if set(body) == {"name", "policy"}:
            return _policy(body["policy"], f"{body['name']}")
        return NamedPolicy(name, json.dumps(body))
    if not isinstance(value, str):
        raise _LineFault(f"{name} is not a policy")
    return NamedPolicy(name, value)
