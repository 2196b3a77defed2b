"""Answers and failures in the protocol of the service that is called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.cloud.localstack.internals.lookup import REFUSED, Context, lookup
from harness.cloud.ports import Refusal


def is_unknown_operation(failure: BaseException) -> bool:
    """Tell whether the parser found no operation that a request is for."""
    unknown = lookup("localstack.aws.protocol.parser", "OperationNotFoundParserError")
    # What the parser of JSON raises in the first place.
    absent = lookup("botocore.model", "OperationNotFoundError")
    return isinstance(failure, unknown) or isinstance(failure.__cause__, absent)


def is_unreadable(failure: BaseException) -> bool:
    """Tell whether the parser could not read a request."""
    return isinstance(failure, lookup("localstack.aws.protocol.parser", "RequestParserError"))


def named_operation(request: Any) -> str:
    """Return the operation that a request names, or what it asks for where its protocol has no names."""
    target = str(request.headers.get("X-Amz-Target", "")).rpartition(".")[2]
    return target or str(request.values.get("Action", "")) or f"{request.method} {request.path}"


def has_wrong_types(context: Context) -> bool:
    """Tell whether members of a parsed request have other types than the service's model says."""
    if context.operation is None or context.operation.input_shape is None:
        return False
    validate = lookup("botocore.validate", "ParamValidator")().validate
    report = validate(context.service_request or {}, context.operation.input_shape)
    return any(reason == "invalid type" for reason, _, _ in report._errors)  # noqa: SLF001 - it has no other way to ask


def refused(context: Context, refusal: Refusal) -> Exception:
    """Return the exception that LocalStack renders in the protocol of the context's service."""
    if context.operation is None:
        # The serializer wants one; which, does not show in an error.
        context.operation = context.service.operation_model(context.service.operation_names[0])
    error = lookup("localstack.aws.api", "CommonServiceException")(
        refusal.code, refusal.message, refusal.status, sender_fault=refusal.status < 500
    )
    error.podid_fields = refusal.fields
    context.request.environ[REFUSED] = True
    return error


def is_unimplemented(failure: BaseException) -> bool:
    """Tell whether LocalStack or moto has no code for an operation; both say so in words of their own."""
    if isinstance(failure, NotImplementedError):
        return True
    return getattr(failure, "status_code", 0) == 501 and getattr(failure, "code", "") == "InternalFailure"


def answer(chain: Any, context: Context, response: Any, result: Mapping[str, Any]) -> None:
    """Answer a call before it gets to a provider."""
    context.service_response = result
    response.update_from(serialized(context, result))
    chain.stop()


def is_refusal(error: BaseException) -> bool:
    """Tell whether an exception is AWS's answer rather than a fault of the lab."""
    return isinstance(error, lookup("localstack.aws.api", "ServiceException"))


def serialized(context: Context, result: Mapping[str, Any]) -> Any:
    """Return a result as a response in the call's protocol."""
    serializer = lookup("localstack.aws.protocol.serializer", "create_serializer")(context.service, context.protocol)
    return serializer.serialize_to_response(result, context.operation, context.request.headers, context.request_id)
