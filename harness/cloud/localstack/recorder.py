"""The recorder: the journal of every request and CloudTrail's events (``emulator.md`` section 6)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape

from harness.cloud.cloudtrail import ApiCall, Failure, is_data_event, is_read_only
from harness.cloud.documents import members
from harness.cloud.localstack import internals
from harness.cloud.localstack.addresses import SERVICES
from harness.cloud.localstack.call import Call
from harness.cloud.localstack.emulator import Emulator
from harness.cloud.localstack.partial_denials import add_errors

__all__ = ["Recorder", "finish_refusal"]

_OURS = {"cloudtrail", "eks", "eks-auth", "elbv2", "shield", "sts", "waf-regional", "wafv2"}
"""Services whose answers are ours unless moto was asked."""
_SIGNING_NAMES = {api: signing for signing, api in SERVICES.items()}
_TRAIL_CODES = {"AccessDeniedException": "AccessDenied", "UnauthorizedOperation": "Client.UnauthorizedOperation"}
_CLUSTER_MEMBERS = {"clusterName", "name"}


class Recorder:
    """Response handler that runs after the answer is known."""

    def __init__(self, emulator: Emulator) -> None:
        """Keep the emulator."""
        self._emulator = emulator

    def __call__(self, chain: Any, context: Any, response: Any) -> None:
        """Record a request."""
        del chain
        call: Call | None = context.get(internals.CALL)
        if call is None or not call.is_aws or (call.body_follows and not internals.was_refused(context.request)):
            return
        if call.denied_keys and context.service_exception is None:
            add_errors(context, call, response)
        failure = _failure(context)
        entry = call.entry
        if failure is None and entry.layer == "gate":
            entry.layer = "ours" if call.service in _OURS else "localstack"
        entry.status = int(response.status_code)
        entry.error_code = failure.code if failure else ""
        self._emulator.journal.add(entry)
        if call.credential is not None and entry.operation:
            self._record_event(context, call, failure)

    def _record_event(self, context: Any, call: Call, failure: Failure | None) -> None:
        operation = call.entry.operation
        parameters = members(context.service_request)
        if is_data_event(call.service, operation, parameters) or call.credential is None:
            return
        read_only = is_read_only(operation)
        shows_response = not read_only or (call.service == "sts" and operation.startswith("Assume"))
        self._emulator.cloudtrail.record_call(
            ApiCall(
                source=f"{_SIGNING_NAMES[call.service]}.amazonaws.com",
                name=operation,
                caller=call.credential,
                region="us-east-1" if call.service == "iam" else call.region,
                at=call.at,
                request_id=call.entry.request_id,
                parameters=parameters,
                response=context.service_response if shows_response and failure is None else None,
                failure=failure,
                read_only=read_only,
                source_address=call.entry.peer,
                user_agent=call.entry.user_agent,
                host=call.entry.host,
                resources=_resources(call.service, parameters),
                is_tls=call.is_tls,
            )
        )


def _failure(context: Any) -> Failure | None:
    error = context.service_exception
    if error is None:
        return None
    code = str(getattr(error, "code", "InternalFailure"))
    return Failure(_TRAIL_CODES.get(code, code), str(getattr(error, "message", "")))


def _resources(service: str, parameters: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    if service in {"eks", "eks-auth"}:
        names = [str(value) for member, value in parameters.items() if member in _CLUSTER_MEMBERS and value]
        return tuple(("AWS::EKS::Cluster", name) for name in names)
    kinds = {
        "Bucket": "AWS::S3::Bucket",
        "RoleArn": "AWS::IAM::Role",
        "RoleName": "AWS::IAM::Role",
        "SecretId": "AWS::SecretsManager::Secret",
        "UserName": "AWS::IAM::User",
    }
    return tuple((kind, str(parameters[member])) for member, kind in kinds.items() if parameters.get(member))


def finish_refusal(chain: Any, exception: BaseException, context: Any, response: Any) -> None:
    """Add S3's further members to a refusal that LocalStack rendered; it knows code and message only."""
    del chain
    fields: Mapping[str, str] = getattr(exception, "podid_fields", {})
    if context.service is None or context.service.service_name != "s3" or not internals.is_refusal(exception):
        return
    members = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in fields.items())
    host_id = response.headers.get("x-amz-id-2", "")
    body = response.get_data(as_text=True)
    if "<HostId>" not in body:
        members += f"<HostId>{escape(host_id)}</HostId>"
    response.set_data(re.sub(r"</Error>\s*$", lambda _: f"{members}</Error>", body))
