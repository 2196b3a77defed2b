"""The gate: every call is decided by IAM before a provider sees it (``emulator.md`` 4.3)."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from harness.cloud.actions import ParsedCall, Plan, PlannedCheck, plan
from harness.cloud.authorization_messages import denial_message
from harness.cloud.cloudtrail import is_read_only
from harness.cloud.denials import access_denied
from harness.cloud.documents import members
from harness.cloud.faults import Target
from harness.cloud.iam import CallContext, ContextValue, PolicySet
from harness.cloud.iam_quotas import check_quotas
from harness.cloud.judging import Judged, judge
from harness.cloud.localstack import internals
from harness.cloud.localstack.call import Call
from harness.cloud.localstack.emulator import Emulator
from harness.cloud.localstack.partial_denials import leave_out
from harness.cloud.malformed import check_values
from harness.cloud.organizations import share_an_organization
from harness.cloud.policy_writes import check_policy_write
from harness.cloud.ports import Refusal
from harness.cloud.sts import caller_policies
from harness.cloud.sts_sessions import check_session_limits

__all__ = ["Gate", "caller_context"]

LOG = logging.getLogger(__name__)

_CALLERS_OWN = {"CreateAccessKey", "DeleteAccessKey", "GetUser", "ListAccessKeys", "UpdateAccessKey"}
"""Operations that mean the calling user when they name none."""
_UNREPEATABLE = {"prefix", "versionId", "uploadId"}


class Gate:
    """Runs when a call is parsed and before its provider."""

    def __init__(self, emulator: Emulator) -> None:
        """Keep the emulator."""
        self._emulator = emulator

    def __call__(self, chain: Any, context: Any, response: Any) -> None:
        """Let a call pass that IAM allows; refuse every other."""
        call: Call = getattr(context, internals.CALL)
        if not call.is_aws:
            return
        try:
            self._decide(chain, context, call, response)
        except Refusal as refusal:
            raise internals.refused(context, refusal) from refusal
        except Exception as error:
            LOG.exception("the gate failed")
            failure = Refusal("InternalFailure", "The lab could not decide about the call.", 500)
            raise internals.refused(context, failure) from error

    def _decide(self, chain: Any, context: Any, call: Call, response: Any) -> None:
        operation = str(context.operation.name)
        call.entry.layer, call.entry.operation = "gate", operation
        if call.credential:
            check_session_limits(call.credential, call.service, operation)
        if call.service == "iam" and operation in _CALLERS_OWN:
            _name_caller(context, call)
        parameters = members(context.service_request)
        parsed = ParsedCall(call.service, operation, parameters, call.principal, call.region)
        if call.service == "s3":
            _refuse_repetitions(call)
        self._have_fault(context, call, parsed)
        if call.service in {"ec2", "elbv2"}:
            self._emulator.network.ensure(parsed.account, parsed.region)
        wanted = plan(parsed, self._emulator.resources)
        if wanted is None:
            raise Refusal("NotImplemented", f"The lab does not emulate {call.service}:{operation}.", 501)
        self._check_all(call, wanted)
        if call.body_follows:
            chain.respond(100)
            return
        self._check_missing_object(call, wanted, parameters)
        self._prepare(parsed)
        if call.denied_keys:
            leave_out(chain, context, call, response)
        elif call.service == "ec2" and (result := self._emulator.network.answer(parsed)):
            call.entry.layer = "ours"
            internals.answer(chain, context, response, result)

    def _prepare(self, call: ParsedCall) -> None:
        """Check what else AWS checks of a call that is allowed, and make ready for what it will do."""
        check_policy_write(call.service, call.operation, call.parameters, call.account, self._emulator.iam)
        if call.service == "ec2":
            if call.parameters.get("DryRun"):
                raise Refusal("DryRunOperation", "Request would have succeeded, but DryRun flag is set.", 412)
            self._emulator.network.before(call)
        if call.service == "iam" and not is_read_only(call.operation):
            check_quotas(call.operation, call.parameters, call.account, self._emulator.iam)
            self._emulator.iam.before_change(call.account)

    def _have_fault(self, context: Any, call: Call, parsed: ParsedCall) -> None:
        """Do to the call what the lab was told to do to calls like it."""
        # What befalls a call that waits with its body befalls it when that is there.
        if not self._emulator.faults or call.body_follows:
            return
        target = Target.of(parsed.service, parsed.operation, call.principal.arn, parsed.parameters)
        fault = self._emulator.faults.take(target)
        if fault is None:
            return
        call.entry.fault = fault.code or ("drop" if fault.drop else "delay")
        time.sleep(fault.delay)
        if fault.drop:
            internals.drop_connection(context.request)
            raise Refusal("InternalFailure", "The connection was dropped, as a fault of the lab demands.", 500)
        if fault.code:
            raise Refusal(fault.code, fault.message, fault.status)

    def _check_all(self, call: Call, wanted: Plan) -> None:
        policies = caller_policies(call.credential, self._emulator.iam)
        keys = caller_context(call)
        check_values(call.service, keys)
        context = CallContext(call.principal, keys)
        call.batch = [planned.key for planned in wanted.checks if planned.key is not None]
        for planned in wanted.checks:
            check_values(call.service, planned.check.context)
            judged = self._ask(call, planned, policies, context)
            if judged.decision.allowed:
                continue
            refusal = self._refusal(call, judged, planned, context)
            if planned.key is None:
                raise refusal
            call.denied_keys.append((planned, refusal.message))

    def _check_missing_object(self, call: Call, wanted: Plan, parameters: Mapping[str, Any]) -> None:
        """Tell only those that an object is not there who may list its bucket (IAM-S3-04)."""
        listing = wanted.if_object_is_missing
        if listing is None or internals.s3_has_object(str(parameters.get("Bucket")), str(parameters.get("Key"))):
            return
        context = CallContext(call.principal, caller_context(call))
        judged = self._ask(call, listing, caller_policies(call.credential, self._emulator.iam), context)
        if not judged.decision.allowed:
            raise self._refusal(call, judged, listing, context)

    def _ask(self, call: Call, planned: PlannedCheck, policies: PolicySet, context: CallContext) -> Judged:
        lab = self._emulator
        judged = judge(planned, call.principal, policies, context, iam=lab.iam, resources=lab.resources)
        call.entry.decisions.append(judged.decision.as_data())
        if judged.decision.fault:
            LOG.error("undecidable, therefore denied: %s", judged.decision.fault)
        return judged

    def _refusal(self, call: Call, judged: Judged, planned: PlannedCheck, context: CallContext) -> Refusal:
        lab, (request, decision) = self._emulator, judged
        if planned.denial:
            return Refusal("AccessDeniedException", planned.denial, 400)
        encoded = ""
        if call.service == "ec2" and request.check.resource != "*":
            keys = context.with_check(request.check.context, request.check.resource_account)
            message = denial_message(call.principal, request.check, decision, keys)
            encoded = lab.messages.encode(message, call.principal.account)
        return access_denied(
            call.service,
            call.principal,
            decision,
            planned.shown,
            names_policy=lab.settings.policy_arn_in_denials,
            is_one_organization=share_an_organization(request.check, call.principal, lab.iam),
            encoded=encoded,
        )


def _name_caller(context: Any, call: Call) -> None:
    """Say who is meant: LocalStack would look for a user with the account number as access key."""
    if members(context.service_request).get("UserName"):
        return
    if call.principal.kind != "user":
        raise Refusal("ValidationError", "Must specify userName when calling with non-User credentials", 400)
    internals.add_form_parameter(context, "UserName", call.principal.arn.rpartition("/")[2])


def _refuse_repetitions(call: Call) -> None:
    """Refuse a parameter given twice: IAM might look at the one and S3 at the other (IAM-S3-14)."""
    names = [name for name, _ in call.raw.query_items()]
    for name in _UNREPEATABLE.intersection(names):
        if names.count(name) > 1:
            raise Refusal("InvalidArgument", f"The parameter {name} must be given once.", 400)


def caller_context(call: Call) -> dict[str, ContextValue]:
    """Return the keys of the request as a whole (``iam.md`` 8.1); those of the principal are the engine's."""
    context: dict[str, ContextValue] = {
        "aws:CurrentTime": f"{call.entry.at[:19]}Z",
        "aws:EpochTime": str(int(call.at.timestamp())),
        "aws:RequestedRegion": "us-east-1" if call.service == "iam" else call.region,
        "aws:SecureTransport": "true" if call.is_tls else "false",
        "aws:SourceIp": call.entry.peer,
        "aws:ViaAWSService": "false",
    }
    if agent := call.header("user-agent"):
        context["aws:UserAgent"] = agent
    if referer := call.header("referer"):
        context["aws:Referer"] = referer
    if credential := call.credential:
        if credential.session_token is not None:
            context["aws:TokenIssueTime"] = credential.issued_at.strftime("%Y-%m-%dT%H:%M:%SZ")
            context["aws:MultiFactorAuthPresent"] = "false"
        if credential.source_identity:
            context["aws:SourceIdentity"] = credential.source_identity
        if credential.federated_provider:
            context["aws:FederatedProvider"] = credential.federated_provider
    if call.service == "s3":
        context |= _s3_context(call)
    return context


def _s3_context(call: Call) -> dict[str, ContextValue]:
    if call.form == "anonymous":
        return {}
    context: dict[str, ContextValue] = {
        "s3:authType": "REST-HEADER" if call.form == "header" else "REST-QUERY-STRING",
        "s3:signatureversion": "AWS4-HMAC-SHA256",
    }
    if sha := call.header("x-amz-content-sha256"):
        context["s3:x-amz-content-sha256"] = sha
    if call.form == "presigned" and call.signed_at:
        context["s3:signatureAge"] = str(int((call.at - call.signed_at).total_seconds() * 1000))
    return context
