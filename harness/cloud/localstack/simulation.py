"""What would be decided about a call, and why, without making it (``podid iam simulate``)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from harness.cloud.actions import ParsedCall, plan
from harness.cloud.documents import entries, members
from harness.cloud.iam import CallContext, ContextValue, EvaluationRequest, authorize
from harness.cloud.iam.explain import explain
from harness.cloud.judging import judge
from harness.cloud.localstack.emulator import Emulator
from harness.cloud.ports import Credential, Principal, Refusal
from harness.cloud.session_tags import overlaid
from harness.cloud.sts import AssumeRoleRequest, caller_policies, own_context, questions

__all__ = ["simulate"]

_ROOT = re.compile(r"arn:aws:iam::(\d{12}):root")
_SESSION = "simulated"


def simulate(lab: Emulator, data: Mapping[str, Any]) -> dict[str, object]:
    """Decide everything that a call would be asked; nothing is called, recorded or changed.

    Args:
        lab: The emulator.
        data: ``principal`` (ARN of a user, role, session or root), ``service`` and ``operation`` as SDKs name them,
            ``parameters``, ``region``, and optionally ``tags`` of the session and further keys of the ``context``.

    Returns:
        ``allowed``, and ``checks`` in order, each with the decision, its sentence and the statements about its action.

    Raises:
        Refusal: There is no such principal, or the operation is not mapped.
    """
    caller = _caller(lab, str(data["principal"]), members(data.get("tags")))
    call = ParsedCall(
        str(data["service"]),
        str(data["operation"]),
        members(data.get("parameters")),
        caller.principal,
        str(data["region"]),
    )
    decided = [(request, authorize(request)) for request in _questions(lab, call, caller, _given(data))]
    return {
        "allowed": all(decision.allowed for _, decision in decided),
        "checks": [
            {
                "decision": decision.as_data(),
                "sentence": decision.sentence(),
                "statements": [asdict(about) for about in explain(request)],
            }
            for request, decision in decided
        ],
    }


def _given(data: Mapping[str, Any]) -> dict[str, ContextValue]:
    given = members(data.get("context")).items()
    return {key: tuple(map(str, entries(value))) if isinstance(value, list) else str(value) for key, value in given}


def _questions(
    lab: Emulator, call: ParsedCall, caller: Credential, given: Mapping[str, ContextValue]
) -> Iterator[EvaluationRequest]:
    if (call.service, call.operation) == ("sts", "AssumeRole"):
        # STS asks both sides itself, behind the gate.
        for question in questions(_assume_role(call), caller, lab.iam, lab.clock):
            yield question._replace(context={**members(question.context), **given})
        return
    wanted = plan(call, lab.resources)
    if wanted is None:
        raise Refusal("NotImplemented", f"The lab does not emulate {call.service}:{call.operation}.", 501)
    keys = {
        **own_context(caller, lab.clock),
        "aws:RequestedRegion": "us-east-1" if call.service == "iam" else call.region,
        "aws:ViaAWSService": "false",
        **given,
    }
    policies, context = caller_policies(caller, lab.iam), CallContext(caller.principal, keys)
    for planned in wanted.checks:
        yield judge(planned, caller.principal, policies, context, iam=lab.iam, resources=lab.resources).request


def _assume_role(call: ParsedCall) -> AssumeRoleRequest:
    tags = tuple((str(tag["Key"]), str(tag["Value"])) for tag in map(members, entries(call.parameters.get("Tags"))))
    return AssumeRoleRequest(
        role_arn=call.text("RoleArn"),
        role_session_name=call.text("RoleSessionName") or _SESSION,
        tags=tags,
        transitive_tag_keys=tuple(map(str, entries(call.parameters.get("TransitiveTagKeys")))),
        external_id=call.text("ExternalId") or None,
        source_identity=call.text("SourceIdentity") or None,
    )


def _caller(lab: Emulator, arn: str, tags: Mapping[str, Any]) -> Credential:
    """Return a credential of a principal: the newest that there is of a session, else one that nobody could use."""
    if known := lab.registry.latest_of(arn):
        return known
    principal: Principal | None = lab.iam.user(arn)
    if root := _ROOT.fullmatch(arn):
        principal = Principal("root", arn, root[1], root[1])
    elif role := lab.iam.role(arn):
        given = {str(key): str(value) for key, value in tags.items()}
        principal = Principal(
            "role-session",
            f"arn:aws:sts::{role.account}:assumed-role/{role.name}/{_SESSION}",
            role.account,
            f"{role.role_id}:{_SESSION}",
            role_arn=arn,
            tags=overlaid(role.tags, given),
        )
    if principal is None:
        raise Refusal("NoSuchEntity", f"There is no user, role or session {arn}.", 404)
    token = "simulated" if principal.kind == "role-session" else None
    return Credential("", "", token, principal, lab.clock.now(), None, origin="simulated")
