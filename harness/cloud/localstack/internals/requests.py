"""Requests as LocalStack has them: read untouched, changed for the services behind."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from functools import cache
from typing import Any
from urllib.parse import urlencode

from harness.cloud.localstack.internals.lookup import BODY_FOLLOWS, REFUSED, TRANSPORT, Context, lookup
from harness.cloud.ports import Refusal
from harness.cloud.sigv4 import RawRequest


def raw_request(request: Any) -> RawRequest:
    """Return an untouched copy of a request and leave its body readable.

    Raises:
        Refusal: The request line is not one that a client of AWS sends.
    """
    environ = request.environ
    uri = str(environ["RAW_URI"])
    if not uri.startswith("/"):
        raise Refusal("InvalidRequest", "The request target must be a path.", 400)
    body = environ["wsgi.input"].read()
    environ["wsgi.input"] = io.BytesIO(body)
    if "HTTP_TRANSFER_ENCODING" in environ:
        set_body(request, body)
    path, _, query = uri.partition("?")
    headers = [(key.decode("latin-1"), value.decode("latin-1")) for key, value in environ["rolo.headers"]]
    return RawRequest(method=str(request.method), path=path, query=query, headers=headers, body=body)


def set_body(request: Any, body: bytes) -> None:
    """Give a request another body."""
    request.environ["wsgi.input"] = io.BytesIO(body)
    request.environ["CONTENT_LENGTH"] = str(len(body))
    for cached in ("stream", "data", "_cached_data", "form", "values", "files"):
        request.__dict__.pop(cached, None)
    if "Content-Length" in request.headers or body:
        request.headers["Content-Length"] = str(len(body))
        request.headers.pop("Transfer-Encoding", None)


def forget_signature(request: Any, query: str | None) -> None:
    """Take the client's signature and token out of everything that providers see (IAM-SIG-09).

    Args:
        request: A verified request.
        query: What its query shall be; None: as it is.
    """
    environ = request.environ
    request.headers.remove("X-Amz-Security-Token")
    for name in ("HTTP_AUTHORIZATION", "HTTP_X_AMZ_SECURITY_TOKEN", "rolo.headers"):
        environ.pop(name, None)
    if query is not None:
        environ["QUERY_STRING"] = query
        uri = environ["RAW_URI"].partition("?")[0]
        environ["RAW_URI"] = environ["REQUEST_URI"] = f"{uri}?{query}" if query else uri
        request.query_string = query.encode("latin-1")
        for cached in ("args", "values", "url", "full_path"):
            request.__dict__.pop(cached, None)


def add_form_parameter(context: Context, name: str, value: str) -> None:
    """Add a parameter to a parsed Query call, as if the client had sent it."""
    body = context.request.environ["wsgi.input"].getvalue()
    set_body(context.request, body + b"&" + urlencode({name: value}).encode())
    context.service_request = {**(context.service_request or {}), name: value}


def replace_json(context: Context, request: Mapping[str, Any]) -> None:
    """Give a parsed JSON call other parameters, as if the client had sent them."""
    set_body(context.request, json.dumps(request).encode())
    context.service_request = dict(request)


def peer_of(request: Any) -> str:
    """Return the client's address."""
    return str(request.environ.get("REMOTE_ADDR", ""))


def drop_connection(request: Any) -> None:
    """Close a request's connection without an answer; what is answered later goes nowhere."""
    reactor = lookup("twisted.internet", "reactor")
    reactor.callFromThread(request.environ[TRANSPORT].abortConnection)


def body_follows(request: Any) -> bool:
    """Tell whether this is the head of a request whose client waits with the body (IAM-SIG-32)."""
    return BODY_FOLLOWS in request.environ


def was_refused(request: Any) -> bool:
    """Tell whether guard or gate refused a request."""
    return REFUSED in request.environ


def is_tls(request: Any) -> bool:
    """Tell whether a request came over TLS."""
    return request.environ.get("wsgi.url_scheme") == "https"


def guess_service(request: Any, raw: RawRequest) -> str | None:
    """Return the service that LocalStack takes an unsigned request for."""
    model = lookup("localstack.aws.protocol.service_router", "determine_aws_service_model")(request)
    # Guessing may have read the form.
    set_body(request, raw.body)
    return str(model.service_name) if model else None


@cache
def service_model(service: str) -> Any:
    """Return botocore's model of a service, the same each time.

    LocalStack makes a new one for every question, and keeps a parser with hundreds of compiled routes for each: 25 ms
    and most of a megabyte a call.
    """
    return lookup("localstack.aws.spec", "load_service")(service)


def model_name(signing_name: str) -> str | None:
    """Return botocore's name of the service that signs as this, None for no service of AWS."""
    found = lookup("localstack.aws.spec", "get_service_catalog")().by_signing_name(signing_name)
    return str(found[0].name) if found else None


def set_service(context: Context, service: str) -> None:
    """Fix the service of a call, whatever its path looks like."""
    context.service = service_model(service)
    try:
        context.protocol = lookup("localstack.aws.protocol.service_router", "determine_aws_protocol")(
            context.request, context.service
        )
    except lookup("localstack.aws.protocol.service_router", "ProtocolError"):
        context.protocol = context.service.protocol


def regions() -> frozenset[str]:
    """Return the regions of partition ``aws``."""
    return frozenset(lookup("boto3.session", "Session")().get_available_regions("s3", "aws"))
