"""The guard: nobody gets past it unless AWS would know who they are (``emulator.md`` 4.1)."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import parse_qsl

from harness.cloud.localstack import internals
from harness.cloud.localstack.addresses import SERVICES, Address, address_of, api_name, claimed_key, scope_of
from harness.cloud.localstack.call import Call
from harness.cloud.localstack.control_route import ControlRoute
from harness.cloud.localstack.emulator import Emulator
from harness.cloud.localstack.issuer import serve_issuer
from harness.cloud.localstack.journal import Entry
from harness.cloud.malformed import check_body
from harness.cloud.ports import Refusal
from harness.cloud.sigv4 import Authenticated, RawRequest, family_of, is_anonymous, verify
from harness.cloud.sigv4.failures import unsigned, wrong_region
from harness.cloud.sigv4.forwarding import unsigned_query

__all__ = ["Guard"]

LOG = logging.getLogger(__name__)

_HEALTH = "/_localstack/health"
_PRIVATE = ("/_localstack", "/_aws", "/_extension")
_UNTRUSTED_HEADERS = ("x-localstack", "x-moto")
_FALLBACK = "sts"
"""Whose error format a client gets that names no service at all."""


class Guard:
    """First handler of the chain."""

    def __init__(self, emulator: Emulator, control: ControlRoute) -> None:
        """Keep the emulator and its control route."""
        self._emulator = emulator
        self._control = control
        self._regions: frozenset[str] = frozenset()

    def __call__(self, chain: Any, context: Any, _response: Any) -> None:
        """Admit a request, answer it, or refuse it."""
        try:
            self._handle(chain, context)
        except Refusal as refusal:
            if context.service is None:
                internals.set_service(context, _FALLBACK)
            raise internals.refused(context, refusal) from refusal
        except Exception as error:
            # Nothing may fall through to the handlers behind: an unverified request would be served.
            LOG.exception("the guard failed")
            if context.service is None:
                internals.set_service(context, _FALLBACK)
            failure = Refusal("InternalFailure", "The lab could not examine the request.", 500)
            raise internals.refused(context, failure) from error

    def _handle(self, chain: Any, context: Any) -> None:
        request = context.request
        raw = internals.raw_request(request)
        call = self._new_call(context, raw)
        setattr(context, internals.CALL, call)
        path = raw.path
        if path == "/_podid" or path.startswith("/_podid/"):
            call.is_aws = False
            status, body = self._control.answer(raw, internals.peer_of(request))
            chain.respond(status, body)
            return
        address = address_of(call.header("host"))
        if address.is_issuer:
            call.is_aws = False
            status, body = serve_issuer(self._emulator, raw)
            chain.respond(status, body)
            return
        if path == _HEALTH and raw.method in {"GET", "HEAD"}:
            call.is_aws = False
            return
        if any(path == private or path.startswith(f"{private}/") for private in _PRIVATE):
            raise Refusal("AccessDenied", "Access Denied", 403)
        for name in raw.header_names():
            if name.startswith(_UNTRUSTED_HEADERS):
                request.headers.remove(name)
        if is_anonymous(raw):
            self._admit_anonymous(context, call, address)
        else:
            self._admit_signed(context, call, address)

    def _new_call(self, context: Any, raw: RawRequest) -> Call:
        now = self._emulator.clock.now()

        def header(name: str) -> str:
            return next(iter(raw.header_values(name)), "")

        entry = Entry(
            at=now.isoformat(timespec="milliseconds"),
            request_id=str(context.request_id),
            method=raw.method,
            host=header("host"),
            peer=internals.peer_of(context.request),
            user_agent=header("user-agent"),
        )
        return Call(
            raw=raw,
            entry=entry,
            at=now,
            is_tls=internals.is_tls(context.request),
            body_follows=internals.body_follows(context.request),
        )

    # --- who calls --------------------------------------------------------------------------------------------------

    def _admit_signed(self, context: Any, call: Call, address: Address) -> None:
        scope_region, scope_service = scope_of(call.raw)
        signing_name = address.service or scope_service or "sts"
        self._name_service(context, call, signing_name)
        # S3's global endpoint takes every region; an address of the lab itself names none.
        try:
            authenticated = verify(
                call.raw,
                self._emulator.keys,
                self._emulator.clock,
                service=signing_name,
                region=address.region or None,
                body_follows=call.body_follows,
            )
        except Refusal as refusal:
            # Not its further members: S3 shows the caller the whole calculation, token included (IAM-SIG-12).
            LOG.warning(
                "%s: refused what key %s signed: %s: %s",
                signing_name,
                claimed_key(call.raw),
                refusal.code,
                refusal.message,
            )
            raise
        family = family_of(signing_name)
        if authenticated.region not in self._known_regions():
            presigned = authenticated.form == "presigned"
            raise wrong_region(family, presigned=presigned, got=scope_region, want="us-east-1")
        call.credential = authenticated.credential
        call.region = call.entry.region = authenticated.region
        call.form = authenticated.form
        call.signed_at = authenticated.signed_at
        call.entry.account = call.principal.account
        call.entry.principal = call.principal.arn
        call.entry.access_key_id = authenticated.credential.access_key_id
        if api_name(signing_name) is None:
            raise Refusal("NotImplemented", f'The lab does not emulate service "{signing_name}".', 501)
        if context.protocol in {"json", "rest-json"}:
            check_body(call.service, authenticated.body)
        if not call.body_follows:
            self._forward_body(context.request, call, authenticated)
        query, headers = unsigned_query(call.raw) if call.form == "presigned" else (None, ())
        internals.forget_signature(context.request, query)
        for name, value in headers:
            context.request.headers[name] = value
        self._set_account(context.request, call, call.principal.account, signing_name)

    def _admit_anonymous(self, context: Any, call: Call, address: Address) -> None:
        signing_name = address.service or internals.guess_service(context.request, call.raw) or _FALLBACK
        self._name_service(context, call, signing_name)
        if signing_name != "s3" and not (signing_name == "sts" and _is_web_identity(call.raw)):
            raise unsigned(family_of(signing_name))
        call.region = call.entry.region = address.region or "us-east-1"
        self._set_account(context.request, call, "000000000000", signing_name)

    def _name_service(self, context: Any, call: Call, signing_name: str) -> None:
        """Fix the service, also one that the lab lacks: its clients read errors in its own format."""
        call.service = api_name(signing_name) or internals.model_name(signing_name) or _FALLBACK
        call.entry.service = SERVICES.get(signing_name, signing_name)
        internals.set_service(context, call.service)

    def _known_regions(self) -> frozenset[str]:
        if not self._regions:
            self._regions = internals.regions()
        return self._regions

    # --- what goes on -----------------------------------------------------------------------------------------------

    @staticmethod
    def _forward_body(request: Any, call: Call, authenticated: Authenticated) -> None:
        """Hand on the verified body: a chunked one as the plain one that it carries."""
        if authenticated.was_chunked:
            encodings = [part.strip() for part in call.header("content-encoding").split(",")]
            kept = ",".join(part for part in encodings if part and part != "aws-chunked")
            request.headers.remove("Content-Encoding")
            if kept:
                request.headers["Content-Encoding"] = kept
            for name in ("x-amz-trailer", "x-amz-decoded-content-length"):
                request.headers.remove(name)
            request.headers["x-amz-content-sha256"] = "UNSIGNED-PAYLOAD"
            for name, value in authenticated.trailers:
                request.headers[name] = value
        if authenticated.body != call.raw.body:
            internals.set_body(request, authenticated.body)

    @staticmethod
    def _set_account(request: Any, call: Call, account: str, signing_name: str) -> None:
        """Put the account where LocalStack reads it: in the place of the access key (``emulator.md`` 4.1)."""
        day = call.entry.at[:10].replace("-", "")
        scope = f"{day}/{call.region}/{signing_name}/aws4_request"
        request.headers["Authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={account}/{scope}, SignedHeaders=host, Signature=0"
        )


def _is_web_identity(raw: RawRequest) -> bool:
    """Tell whether a request is the one call of STS that needs no signature, and nothing else besides."""
    parameters = [*parse_qsl(raw.query), *parse_qsl(raw.body.decode("latin-1"))]
    return [value for name, value in parameters if name == "Action"] == ["AssumeRoleWithWebIdentity"]


def pin_service(_chain: Any, context: Any, _response: Any) -> None:
    """Undo LocalStack's guess that a path which begins with the name of a bucket is meant for S3."""
    call: Call | None = context.get(internals.CALL)
    if call and call.is_aws:
        internals.set_service(context, call.service)
