"""Calls that are denied in parts: the gate leaves out what is denied, the recorder puts an error in its place.

S3's DeleteObjects (``iam.md`` 10.1) and Secrets Manager's BatchGetSecretValue; both succeed all the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from harness.cloud.actions import PlannedCheck
from harness.cloud.localstack import internals
from harness.cloud.localstack.call import Call

__all__ = ["add_errors", "leave_out"]


def leave_out(chain: Any, context: Any, call: Call, response: Any) -> None:
    """Take what is denied out of a call; answer one of which nothing is left."""
    keep = _keep_objects if call.service == "s3" else _keep_secrets
    if not keep(context, call):
        internals.answer(chain, context, response, {})


def add_errors(context: Any, call: Call, response: Any) -> None:
    """Add what was denied to the answer."""
    result = dict(context.service_response or {})
    if call.service == "s3":
        names = ("Key", "Code")
        code = "AccessDenied"
    else:
        names = ("SecretId", "ErrorCode")
        code = "AccessDeniedException"
    denied = call.denied_keys if call.service == "s3" else _first_of_each(call.denied_keys)
    errors = [{names[0]: planned.key, names[1]: code, "Message": text} for planned, text in denied]
    result["Errors"] = [*(result.get("Errors") or []), *errors]
    context.service_response = result
    response.update_from(internals.serialized(context, result))


def _first_of_each(denied: Sequence[tuple[PlannedCheck, str]]) -> list[tuple[PlannedCheck, str]]:
    """Return one denial a secret: whoever may not read it is not told about its key."""
    found: dict[str | None, tuple[PlannedCheck, str]] = {}
    for planned, text in denied:
        found.setdefault(planned.key, (planned, text))
    return list(found.values())


def _keep_objects(context: Any, call: Call) -> bool:
    denied = Counter((planned.key, planned.check.action) for planned, _ in call.denied_keys)
    delete = dict(context.service_request["Delete"])
    kept: list[Mapping[str, Any]] = []
    for entry in delete["Objects"]:
        action = "s3:DeleteObjectVersion" if entry.get("VersionId") else "s3:DeleteObject"
        if denied[entry["Key"], action] > 0:
            denied[entry["Key"], action] -= 1
        else:
            kept.append(entry)
    context.service_request["Delete"] = delete | {"Objects": kept}
    return bool(kept)


def _keep_secrets(context: Any, call: Call) -> bool:
    """Name the secrets that may be read, also where filters had chosen them; then all come in one page."""
    denied = {planned.key for planned, _ in call.denied_keys}
    kept = [key for key in dict.fromkeys(call.batch) if key not in denied]
    internals.replace_json(context, {"SecretIdList": kept})
    return bool(kept)
