"""What LocalStack and moto would tell of themselves, in AWS's words (EMU-ERR-NOINTERNAL, EMU-ERR-UNKNOWN)."""

from __future__ import annotations

import logging
from typing import Any

from harness.cloud.localstack import internals
from harness.cloud.localstack.call import Call
from harness.cloud.malformed import unknown_operation, unreadable
from harness.cloud.ports import Refusal

__all__ = ["refusal_of"]

LOG = logging.getLogger(__name__)


def refusal_of(context: Any, failure: BaseException) -> Refusal:
    """Return what a client is told when reading or serving its call failed without an answer of AWS's."""
    call: Call = getattr(context, internals.CALL)
    if internals.is_unknown_operation(failure):
        return unknown_operation(call.service, internals.named_operation(context.request))
    if internals.is_unimplemented(failure):
        return unknown_operation(call.service, str(context.operation.name))
    if internals.is_unreadable(failure) or internals.has_wrong_types(context):
        return unreadable(call.service, has_body=bool(call.raw.body))
    LOG.error("%s %s failed", call.service, call.entry.operation, exc_info=failure)
    return Refusal("InternalFailure", "The lab failed over the call. The log of its AWS says why.", 500)
