"""Everything that names LocalStack, moto, rolo or Twisted (EMU-PORT-ONEMODULE).

They are imported when they are used and are untyped here: this module also gets read by tools of the harness's own
Python, where they are not installed. Version 4.14.0 never changes, so these names do not either.
"""

from __future__ import annotations

import functools
import importlib
import io
import itertools
import json
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlencode

from harness.cloud.ports import Refusal
from harness.cloud.sigv4 import RawRequest

Context = Any
"""localstack.aws.api.RequestContext"""
Handler = Callable[[Any, Context, Any], None]
_TRANSPORT = "podid.transport"
_BODY_FOLLOWS = "podid.body-follows"
_REFUSED = "podid.refused"
CALL = "podid_call"
"""Attribute of the context that carries our own state."""


@cache
def _from(module: str, name: str) -> Any:
    """Return what LocalStack never replaces once it is there: a function, a class, a table of stores."""
    return getattr(importlib.import_module(module), name)


# --- start ----------------------------------------------------------------------------------------------------------


def on_start(priority: int) -> Callable[[Callable[[], None]], Any]:
    """Return the decorator of hooks that run before the server listens; higher priorities first."""
    return _from("localstack.runtime.hooks", "on_infra_start")(priority=priority)


def run_main() -> None:
    """Run LocalStack until it is told to stop."""
    _from("localstack.runtime.main", "main")()


def when_ready(action: Callable[[], None]) -> None:
    """Do something in a thread of its own once LocalStack and its services are up."""
    ready: threading.Event = _from("localstack.runtime.events", "infra_ready")

    def wait() -> None:
        ready.wait()
        action()

    threading.Thread(target=wait, name="when-ready", daemon=True).start()


def version() -> str:
    """Return LocalStack's version."""
    return str(_from("localstack.constants", "VERSION"))


def listen_on_given_addresses() -> None:
    """Make the server bind the configured addresses; as shipped it binds all interfaces, whatever is configured.

    Besides EMU-BASE-BIND this leaves 169.254.169.254:80 free for the metadata service.
    """
    server: Any = _runtime().components.runtime_server
    server.register = _register
    serving: Any = importlib.import_module("rolo.serving.twisted")
    serving.update_wsgi_environment = _keeping_transport(serving.update_wsgi_environment)
    channel = serving.HeaderPreservingHTTPChannel
    channel._send100Continue = _decide_before_the_body  # noqa: SLF001 - the one place
    channel.lineLengthExceeded = _refuse_long_line


def _keeping_transport(original: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    def update(environ: Any, request: Any) -> None:
        original(environ, request)
        environ[_TRANSPORT] = request.transport

    return update


def _refuse_long_line(channel: Any, _: bytes) -> None:
    """Answer a line that is longer than the server takes; as shipped the connection is dropped without a word."""
    channel._respondToBadRequestAndDisconnect()  # noqa: SLF001


def _decide_before_the_body(channel: Any) -> None:
    """Ask for the body that a client waits with, unless the head alone is refused already (IAM-SIG-32).

    As shipped, every body is asked for. Only the head of an upload to S3 says what is signed and wanted.
    """
    request, method, uri = channel.requests[-1], bytes(channel._command), bytes(channel._path)  # noqa: SLF001
    if method != b"PUT" or not request.requestHeaders.hasHeader("x-amz-content-sha256"):
        channel.transport.write(_CONTINUE)
        return
    environ = _head(request, method.decode("latin-1"), uri.decode("latin-1"))
    deferred = _from("twisted.internet.threads", "deferToThread")(_answer_to_head, environ)

    def tell(answer: bytes) -> None:
        # A client that did not wait after all is answered when its body is there.
        if channel.transport is None or request.clientproto == channel._version:  # noqa: SLF001
            return
        channel.transport.write(answer)
        if answer != _CONTINUE:
            channel.transport.loseConnection()

    deferred.addCallback(tell)


_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def _head(request: Any, method: str, uri: str) -> dict[str, Any]:
    """Return the environment of a request of which only the head is there."""
    path, _, query = uri.partition("?")
    raw = [(name, value) for name, values in request.requestHeaders.getAllRawHeaders() for value in values]
    return {
        _BODY_FOLLOWS: True,
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "RAW_URI": uri,
        "REQUEST_URI": uri,
        "REMOTE_ADDR": request.getClientAddress().host,
        "SERVER_NAME": request.getRequestHostname().decode("latin-1"),
        "SERVER_PORT": str(request.getHost().port),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "CONTENT_LENGTH": "0",
        "rolo.headers": raw,
        "wsgi.url_scheme": "https" if request.isSecure() else "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.input_terminated": True,
        "wsgi.errors": io.BytesIO(),
        **{f"HTTP_{name.decode('latin-1').upper().replace('-', '_')}": value.decode("latin-1") for name, value in raw},
    }


def _answer_to_head(environ: dict[str, Any]) -> bytes:
    """Return what a waiting client is told: to go on, or why it need not."""
    lines: list[str] = []

    def start(status: str, headers: Sequence[tuple[str, str]], _: Any = None) -> None:
        kept = [(name, value) for name, value in headers if name.lower() != "connection"]
        lines.extend([f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in kept), "Connection: close"])

    gateway = _from("rolo.gateway.wsgi", "WsgiGateway")(_runtime().components.gateway)
    body = b"".join(gateway(environ, start))
    if _REFUSED not in environ:
        return _CONTINUE
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def keep_objects_in(directory: Path) -> None:
    """Make S3 keep its objects below a directory; as shipped all processes of a machine share one below ``/tmp``."""
    provider: Any = importlib.import_module("localstack.services.s3.provider")
    provider.DEFAULT_S3_TMP_DIR = str(directory)


def _runtime() -> Any:
    return _from("localstack.runtime.current", "get_current_runtime")()


def _register(gateway: Any, listen: Sequence[Any], ssl_creds: tuple[str, str] | None = None) -> None:
    reactor = _from("twisted.internet", "reactor")
    site = _from("rolo.serving.twisted", "TwistedGateway")(gateway)
    factory = site
    if ssl_creds:
        certificate, key = ssl_creds
        contexts = _from("twisted.internet.ssl", "DefaultOpenSSLContextFactory")(key, certificate)
        contexts.getContext().use_certificate_chain_file(certificate)
        factory = _from("localstack.aws.serving.twisted", "TLSMultiplexerFactory")(contexts, False, site)
    for address in listen:
        # Raises when the address is taken, unlike an endpoint, whose failure nobody would see.
        reactor.listenTCP(address.port, factory, interface=address.host)


def install_handlers(
    *,
    guard: Handler,
    pin_service: Handler,
    gate: Handler,
    recorder: Handler,
    refusal_of: Callable[[Context, BaseException], Refusal],
    finish_refusal: Callable[..., None],
) -> None:
    """Put our handlers into the gateway's chain and take out what would answer without them.

    Args:
        guard: Sees every request first.
        pin_service: Runs right before LocalStack would guess the service.
        gate: Runs when the call is parsed, before any provider.
        recorder: Runs after the answer is known.
        refusal_of: Tells a client what LocalStack's own exceptions would tell about LocalStack.
        finish_refusal: Exception handler that runs after LocalStack's own.
    """
    gateway = _runtime().components.gateway
    handlers = importlib.import_module("localstack.aws.handlers")
    removed = {
        # Trusts a header of the client's.
        id(handlers.add_internal_request_params),
        # Browser rules of LocalStack, not of AWS.
        id(handlers.enforce_cors),
        # S3 website hosts, function URLs and developer routes, which ask nobody.
        id(handlers.serve_edge_router_rules),
        # Invents credentials for unsigned requests.
        id(handlers.inject_auth_header_if_missing),
        # Reads signatures, which do not get this far (IAM-SIG-09).
        id(handlers.parse_pre_signed_url_request),
    }
    chain = [handler for handler in gateway.request_handlers if id(handler) not in removed]
    chain.insert(0, guard)
    chain.insert(chain.index(handlers.parse_service_name), pin_service)
    _run_only(chain, handlers.serve_localstack_resources, lambda context: not getattr(context, CALL).is_aws)
    gateway.request_handlers[:] = chain
    failing = gateway.exception_handlers
    failing[failing.index(handlers.handle_service_exception)] = _in_aws_words(
        handlers.handle_service_exception, refusal_of
    )
    failing.append(finish_refusal)
    handlers.serve_custom_service_request_handlers.append(gate)
    handlers.run_custom_response_handlers.append(recorder)


def _in_aws_words(
    serialize: Callable[..., None], refusal_of: Callable[[Context, BaseException], Refusal]
) -> Callable[..., None]:
    """Put another exception in the place of one that is no answer of AWS's."""
    answers = (
        _from("localstack.aws.api", "ServiceException"),
        _from("moto.core.exceptions", "ServiceException"),
        _from("moto.core.exceptions", "RESTError"),
    )

    def handle(chain: Any, exception: BaseException, context: Context, response: Any) -> None:
        is_answer = isinstance(exception, answers) and not is_unimplemented(exception)
        if context.get(CALL) is not None and not is_answer:
            exception = refused(context, refusal_of(context, exception))
        serialize(chain, exception, context, response)

    return handle


def _run_only(chain: list[Any], handler: Handler, is_wanted: Callable[[Context], bool]) -> None:
    """Spare calls a handler that would look at them and find that they are none of its business."""

    def run(handlers: Any, context: Context, response: Any) -> None:
        if is_wanted(context):
            handler(handlers, context, response)

    chain[chain.index(handler)] = run


# --- requests -------------------------------------------------------------------------------------------------------


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
    reactor = _from("twisted.internet", "reactor")
    reactor.callFromThread(request.environ[_TRANSPORT].abortConnection)


def body_follows(request: Any) -> bool:
    """Tell whether this is the head of a request whose client waits with the body (IAM-SIG-32)."""
    return _BODY_FOLLOWS in request.environ


def was_refused(request: Any) -> bool:
    """Tell whether guard or gate refused a request."""
    return _REFUSED in request.environ


def is_tls(request: Any) -> bool:
    """Tell whether a request came over TLS."""
    return request.environ.get("wsgi.url_scheme") == "https"


def guess_service(request: Any, raw: RawRequest) -> str | None:
    """Return the service that LocalStack takes an unsigned request for."""
    model = _from("localstack.aws.protocol.service_router", "determine_aws_service_model")(request)
    # Guessing may have read the form.
    set_body(request, raw.body)
    return str(model.service_name) if model else None


@cache
def service_model(service: str) -> Any:
    """Return botocore's model of a service, the same each time.

    LocalStack makes a new one for every question, and keeps a parser with hundreds of compiled routes for each: 25 ms
    and most of a megabyte a call.
    """
    return _from("localstack.aws.spec", "load_service")(service)


def model_name(signing_name: str) -> str | None:
    """Return botocore's name of the service that signs as this, None for no service of AWS."""
    found = _from("localstack.aws.spec", "get_service_catalog")().by_signing_name(signing_name)
    return str(found[0].name) if found else None


def set_service(context: Context, service: str) -> None:
    """Fix the service of a call, whatever its path looks like."""
    context.service = service_model(service)
    try:
        context.protocol = _from("localstack.aws.protocol.service_router", "determine_aws_protocol")(
            context.request, context.service
        )
    except _from("localstack.aws.protocol.service_router", "ProtocolError"):
        context.protocol = context.service.protocol


def regions() -> frozenset[str]:
    """Return the regions of partition ``aws``."""
    return frozenset(_from("boto3.session", "Session")().get_available_regions("s3", "aws"))


def is_unknown_operation(failure: BaseException) -> bool:
    """Tell whether the parser found no operation that a request is for."""
    unknown = _from("localstack.aws.protocol.parser", "OperationNotFoundParserError")
    # What the parser of JSON raises in the first place.
    absent = _from("botocore.model", "OperationNotFoundError")
    return isinstance(failure, unknown) or isinstance(failure.__cause__, absent)


def is_unreadable(failure: BaseException) -> bool:
    """Tell whether the parser could not read a request."""
    return isinstance(failure, _from("localstack.aws.protocol.parser", "RequestParserError"))


def named_operation(request: Any) -> str:
    """Return the operation that a request names, or what it asks for where its protocol has no names."""
    target = str(request.headers.get("X-Amz-Target", "")).rpartition(".")[2]
    return target or str(request.values.get("Action", "")) or f"{request.method} {request.path}"


def has_wrong_types(context: Context) -> bool:
    """Tell whether members of a parsed request have other types than the service's model says."""
    if context.operation is None or context.operation.input_shape is None:
        return False
    validate = _from("botocore.validate", "ParamValidator")().validate
    report = validate(context.service_request or {}, context.operation.input_shape)
    return any(reason == "invalid type" for reason, _, _ in report._errors)  # noqa: SLF001 - it has no other way to ask


# --- answers --------------------------------------------------------------------------------------------------------


def refused(context: Context, refusal: Refusal) -> Exception:
    """Return the exception that LocalStack renders in the protocol of the context's service."""
    if context.operation is None:
        # The serializer wants one; which, does not show in an error.
        context.operation = context.service.operation_model(context.service.operation_names[0])
    error = _from("localstack.aws.api", "CommonServiceException")(
        refusal.code, refusal.message, refusal.status, sender_fault=refusal.status < 500
    )
    error.podid_fields = refusal.fields
    context.request.environ[_REFUSED] = True
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
    return isinstance(error, _from("localstack.aws.api", "ServiceException"))


def serialized(context: Context, result: Mapping[str, Any]) -> Any:
    """Return a result as a response in the call's protocol."""
    serializer = _from("localstack.aws.protocol.serializer", "create_serializer")(context.service, context.protocol)
    return serializer.serialize_to_response(result, context.operation, context.request.headers, context.request_id)


# --- providers ------------------------------------------------------------------------------------------------------

Operation = Callable[[Context, Mapping[str, Any]], Mapping[str, Any]]


def provider(api: str, name: str, operations: Callable[[], Mapping[str, Operation]]) -> Any:
    """Return a plugin that serves an API by a table of functions.

    Args:
        api: As botocore names the service.
        name: ``default``, or the name that ``PROVIDER_OVERRIDE_<API>`` selects.
        operations: Called when the service is loaded; raises if the lab is not composed yet.
    """

    def create() -> Any:
        table = {operation: _rendering(function) for operation, function in operations().items()}
        skeleton = _from("localstack.aws.skeleton", "Skeleton")(service_model(api), table)
        return _from("localstack.services.plugins", "Service")(name=api, skeleton=skeleton)

    create.__name__ = create.__qualname__ = f"{api}_{name}"
    return _from("localstack.services.plugins", "aws_provider")(api=api, name=name)(create)


def _rendering(function: Operation) -> Operation:
    def serve(context: Context, request: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            return function(context, request)
        except Refusal as refusal:
            raise refused(context, refusal) from refusal

    return serve


def provider_names() -> dict[str, str]:
    """Return API → name of the provider that serves it."""
    manager = _from("localstack.services.plugins", "SERVICE_PLUGINS")
    return {api: str(manager.provider_config.get_provider(api)) for api in manager.list_available()}


# --- stored state ---------------------------------------------------------------------------------------------------


def iam_backend(account: str) -> Any:
    """Return moto's IAM of an account; made when it is not there."""
    return _from("moto.iam.models", "iam_backends")[account]["aws"]


def access_key_owner(access_key_id: str, account: str) -> tuple[Any, Any] | None:
    """Return moto's (user, active access key) of a key id, or None."""
    if account not in _from("moto.iam.models", "iam_backends"):
        return None
    backend = iam_backend(account)
    filed = backend.access_keys.get(access_key_id)
    named = backend.users.get(filed.user_name) if filed else None
    # A user that was renamed is not found under the name that its key was filed with.
    for user in [named] if named else list(backend.users.values()):
        for key in user.access_keys:
            if key.access_key_id == access_key_id and key.status == "Active":
                return user, key
    return None


def mint_access_keys(new_secret: Callable[[], str]) -> None:
    """Give the access keys that moto's IAM creates secrets of ours."""
    access_key = _from("moto.iam.models", "AccessKey")
    create = access_key.__init__

    @functools.wraps(create)
    def create_with_our_secret(self: Any, *arguments: Any, **members: Any) -> None:
        create(self, *arguments, **members)
        self.secret_access_key = new_secret()

    access_key.__init__ = create_with_our_secret


def oidc_client_ids(account: str, arn: str) -> tuple[str, ...] | None:
    """Return the client ids of an account's OIDC provider, None without such a provider."""
    provider = iam_backend(account).open_id_providers.get(arn)
    return tuple(map(str, provider.client_id_list)) if provider else None


def s3_bucket(name: str) -> Any | None:
    """Return LocalStack's bucket of this name, of whatever account."""
    stores = _from("localstack.services.s3.models", "s3_stores")
    for regions in list(stores.values()):
        # An account's regions share its buckets.
        store = next(iter(list(regions.values())), None)
        if store is not None and (bucket := store.buckets.get(name)) is not None:
            return bucket
    return None


def s3_has_object(bucket: str, key: str) -> bool:
    """Tell whether a bucket has a current object with this key."""
    found = s3_bucket(bucket)
    stored = found.objects.get(key) if found else None
    return stored is not None and not isinstance(stored, _from("localstack.services.s3.models", "S3DeleteMarker"))


def s3_object_tags(bucket: str, key: str, version: str) -> dict[str, str]:
    """Return the tags of an object, or of a version of it; empty when it is not there."""
    found = s3_bucket(bucket)
    if found is None:
        return {}
    try:
        stored = found.get_object(key=key, version_id=version or None)
    except _from("localstack.aws.api", "ServiceException"):
        return {}
    store = _from("localstack.services.s3.models", "s3_stores")[found.bucket_account_id][found.bucket_region]
    identifier = _from("localstack.services.s3.utils", "get_unique_key_id")(bucket, key, stored.version_id)
    return {str(name): str(value) for name, value in store.tags.get_tags(identifier).items()}


def dynamodb_key_schema(account: str, region: str, table: str, index: str) -> list[Mapping[str, str]]:
    """Return the key schema of moto's table or of an index of it; empty without it."""
    found = _from("moto.dynamodb.models", "dynamodb_backends")[account][region].tables.get(table)
    if found is None or not index:
        return list(found.schema) if found else []
    indexes: list[Any] = [*found.indexes, *found.global_indexes]
    schemas: list[list[Mapping[str, str]]] = [list(one.schema) for one in indexes if one.name == index]
    return schemas[0] if schemas else []


def dynamodb_tags(account: str, region: str, table: str) -> dict[str, str]:
    """Return the tags of moto's table; empty without it."""
    found = _from("moto.dynamodb.models", "dynamodb_backends")[account][region].tables.get(table)
    tags: Sequence[Mapping[str, str]] = found.tags if found else ()
    return {str(tag["Key"]): str(tag["Value"]) for tag in tags}


def kms_tags(account: str, region: str, arn: str) -> dict[str, str]:
    """Return the tags of the key with this ARN."""
    store = _from("localstack.services.kms.models", "kms_stores")[account][region]
    return {str(name): str(value) for name, value in store.tags.get_tags(arn).items()}


def kms_key(account: str, region: str, named: str, ciphertext: bytes) -> tuple[str, str] | None:
    """Return ARN and policy of the key with this id, alias or ARN of either, else of a ciphertext's key."""
    if named.startswith("arn:"):
        if named.count(":") != 5:
            return None
        _, _, _, region, account, named = named.split(":")
        named = named.removeprefix("key/")
    if not named and ciphertext:
        try:
            named = _from("localstack.services.kms.models", "deserialize_ciphertext_blob")(ciphertext).key_id
        except (ValueError, struct.error):
            return None
    store = _from("localstack.services.kms.models", "kms_stores")[account][region]
    if named.startswith("alias/"):
        alias = store.aliases.get(named)
        named = alias.metadata["TargetKeyId"] if alias else ""
    key = store.keys.get(named)
    return (str(key.metadata["Arn"]), str(key.policy)) if key else None


def secrets(account: str, region: str) -> Iterator[Any]:
    """Return moto's secrets of an account and region."""
    backends = _from("moto.secretsmanager.models", "secretsmanager_backends")
    return iter(list(backends[account][region].secrets.values()))


def ec2_backend(account: str, region: str) -> Any:
    """Return moto's EC2 of an account and region; made when it is not there, with a default VPC.

    LocalStack patches moto when it loads the service, which may be after the gate.
    """
    _from("localstack.services.plugins", "SERVICE_PLUGINS").require("ec2")
    return _from("moto.ec2.models", "ec2_backends")[account][region]


def elbv2_backend(account: str, region: str) -> Any:
    """Return moto's load balancers of an account and region; made when it is not there."""
    return _from("moto.elbv2.models", "elbv2_backends")[account][region]


def elbv2_scopes() -> list[tuple[str, str]]:
    """Return (account, region) pairs that have load balancers."""
    backends = _from("moto.elbv2.models", "elbv2_backends")
    return [
        (str(account), str(region))
        for account in list(backends)
        for region in list(backends[account])
        if backends[account][region].load_balancers
    ]


def create_vpc(backend: Any, vpc_id: str, cidr: str) -> Any:
    """Create a VPC with a given id; the tag that LocalStack has for that would show."""
    identifier = _from("localstack.services.ec2.patches", "VpcIdentifier")(
        backend.account_id, backend.region_name, cidr
    )
    with _from("localstack.utils.id_generator", "localstack_id_manager").custom_id(identifier, vpc_id):
        return backend.create_vpc(cidr)


def call_moto(context: Context, _: Mapping[str, Any]) -> Mapping[str, Any]:
    """Let moto answer a call."""
    getattr(context, CALL).entry.layer = "moto"
    return _from("localstack.services.moto", "call_moto")(context)


def matching_secrets(account: str, region: str, filters: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Return moto's secrets that all filters match, as its own ListSecrets finds them; none for unknown filters."""
    models: Any = importlib.import_module("moto.secretsmanager.models")
    if any(entry.get("Key") not in models.filter_keys() or not entry.get("Values") for entry in filters):
        return []
    return [secret for secret in secrets(account, region) if models._matches(secret, list(filters))]  # noqa: SLF001


def parameter_tags(account: str, region: str, name: str) -> dict[str, str]:
    """Return the tags of a parameter of Parameter Store, given without the slash before its name."""
    backend = _from("moto.ssm.models", "ssm_backends")[account][region]
    filed: Mapping[str, Mapping[str, str]] = backend._resource_tags.get("Parameter") or {}  # noqa: SLF001
    return dict(filed.get(f"/{name}") or filed.get(name) or {})


def reset_services() -> None:
    """Empty every loaded service (``emulator.md`` section 11)."""
    manager = _from("localstack.services.plugins", "SERVICE_PLUGINS")
    visitor = _Resetting()
    for service in list(manager.values()):
        if manager.is_running(service.name()):
            service.lifecycle_hook.on_before_state_reset()
            service.accept_state_visitor(visitor)
            service.lifecycle_hook.on_after_state_reset()
    # Its provider is ours, and has no state that LocalStack knows of.
    _Resetting().visit(_from("moto.elbv2.models", "elbv2_backends"))


class _Resetting:
    """A state visitor that empties what it is shown: stores, moto backends, folders."""

    def visit(self, state_container: Any) -> None:
        if isinstance(state_container, _from("localstack.state.core", "AssetDirectory")):
            _empty(Path(state_container.path))
        elif isinstance(state_container, _from("moto.core.base_backend", "BackendDict")):
            for account in list(state_container.values()):
                for backend in list(account.values()):
                    backend.reset()
        else:
            state_container.reset()


def _empty(directory: Path) -> None:
    if not directory.is_dir():
        return
    for path in sorted(itertools.chain(directory.rglob("*")), reverse=True):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()
