"""``podid iam simulate`` and ``podid iam decode``: what a lab that runs says about a call, in words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from botocore.exceptions import ClientError

from harness.cloud.documents import is_mapping, members
from harness.errors import UsageError
from harness.lab import Lab

__all__ = ["decode", "in_words", "simulate"]

_LAYERS = {
    "identity": "identity-based policy",
    "resource": "resource-based policy",
    "trust": "role trust policy",
    "boundary": "permissions boundary",
    "session": "session policy",
    "scp": "service control policy",
    "rcp": "resource control policy",
    "endpoint": "VPC endpoint policy",
}


def simulate(
    lab: str,
    principal: str,
    call: str,
    parameters: str,
    *,
    tags: list[str],
    context: list[str],
    region: str,
) -> dict[str, Any]:
    """Return what a lab would decide about a call.

    Args:
        lab: Name of the lab.
        principal: ARN.
        call: ``service:Operation`` as SDKs name both.
        parameters: The operation's members, as JSON.
        tags: Session tags of a role, ``key=value``.
        context: Further condition keys, ``key=value``.
        region: Region that is called.

    Raises:
        UsageError: The lab is not up, or the question cannot be read.
        HarnessFault: The lab does not know principal or operation.
    """
    service, colon, operation = call.partition(":")
    if not (service and colon and operation):
        raise UsageError(f"{call!r} is no call", hint="name it as SDKs do, such as s3:GetObject or elbv2:CreateRule")
    try:
        given: Any = json.loads(parameters)
    except ValueError as error:
        raise UsageError(
            f"the parameters are no JSON: {error}", hint='such as: --with \'{"Bucket": "notes"}\''
        ) from error
    if not is_mapping(given):
        raise UsageError("the parameters are no JSON object", hint='such as: --with \'{"Bucket": "notes"}\'')
    control = Lab(lab).require().control()
    return control.simulate(
        principal,
        service,
        operation,
        members(given),
        region=region,
        tags=dict(map(_pair, tags)),
        context=dict(map(_pair, context)),
    )


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise UsageError(f"{text!r} is no key=value")
    return name, value


def in_words(answer: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines that a person reads: each decision, and what statements about its action had to say."""
    if not answer["checks"]:
        yield "allowed: no policy is asked about this call"
    for check in answer["checks"]:
        yield str(check["sentence"])
        decision = check["decision"]
        for one in check["statements"]:
            sid = f' "{one["sid"]}"' if one["sid"] else ""
            where = f"{one['effect']} of statement {one['index']}{sid} in {_LAYERS[one['layer']]} {one['policy']}"
            decided = (one["policy"], one["index"]) == (decision.get("policy"), decision.get("statement"))
            verb = "decides" if decided else "applies" if one["applies"] else "does not apply"
            yield f"  {where} {verb}{': ' if one['because'] else ''}{'; '.join(one['because'])}"


def decode(lab: str, message: str) -> str:
    """Return an encoded authorization message as readable JSON.

    Raises:
        UsageError: The lab is not up, or did not make the message.
    """
    account = Lab(lab).require().administrator()
    try:
        found = account.client("sts").decode_authorization_message(EncodedMessage=message)
    except ClientError as error:
        raise UsageError(
            f"{error}", hint="only the lab that denied, in the account of who was denied, can read its message"
        ) from error
    return json.dumps(json.loads(found["DecodedMessage"]), indent=1)
