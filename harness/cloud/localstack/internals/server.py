"""LocalStack's server and its chain of handlers: what it listens on, and what of ours it runs."""

from __future__ import annotations

import importlib
import io
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from harness.cloud.localstack.internals.answers import is_unimplemented, refused
from harness.cloud.localstack.internals.lookup import BODY_FOLLOWS, CALL, REFUSED, TRANSPORT, Context, Handler, lookup
from harness.cloud.ports import Refusal


def on_start(priority: int) -> Callable[[Callable[[], None]], Any]:
    """Return the decorator of hooks that run before the server listens; higher priorities first."""
    return lookup("localstack.runtime.hooks", "on_infra_start")(priority=priority)


def run_main() -> None:
    """Run LocalStack until it is told to stop."""
    lookup("localstack.runtime.main", "main")()


def when_ready(action: Callable[[], None]) -> None:
    """Do something in a thread of its own once LocalStack and its services are up."""
    ready: threading.Event = lookup("localstack.runtime.events", "infra_ready")

    def wait() -> None:
        ready.wait()
        action()

    threading.Thread(target=wait, name="when-ready", daemon=True).start()


def version() -> str:
    """Return LocalStack's version."""
    return str(lookup("localstack.constants", "VERSION"))


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
        environ[TRANSPORT] = request.transport

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
    deferred = lookup("twisted.internet.threads", "deferToThread")(_answer_to_head, environ)

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
        BODY_FOLLOWS: True,
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

    gateway = lookup("rolo.gateway.wsgi", "WsgiGateway")(_runtime().components.gateway)
    body = b"".join(gateway(environ, start))
    if REFUSED not in environ:
        return _CONTINUE
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def keep_objects_in(directory: Path) -> None:
    """Make S3 keep its objects below a directory; as shipped all processes of a machine share one below ``/tmp``."""
    provider: Any = importlib.import_module("localstack.services.s3.provider")
    provider.DEFAULT_S3_TMP_DIR = str(directory)


def _runtime() -> Any:
    return lookup("localstack.runtime.current", "get_current_runtime")()


def _register(gateway: Any, listen: Sequence[Any], ssl_creds: tuple[str, str] | None = None) -> None:
    reactor = lookup("twisted.internet", "reactor")
    site = lookup("rolo.serving.twisted", "TwistedGateway")(gateway)
    factory = site
    if ssl_creds:
        certificate, key = ssl_creds
        contexts = lookup("twisted.internet.ssl", "DefaultOpenSSLContextFactory")(key, certificate)
        contexts.getContext().use_certificate_chain_file(certificate)
        factory = lookup("localstack.aws.serving.twisted", "TLSMultiplexerFactory")(contexts, False, site)
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
        lookup("localstack.aws.api", "ServiceException"),
        lookup("moto.core.exceptions", "ServiceException"),
        lookup("moto.core.exceptions", "RESTError"),
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
