"""An HTTP/1.1 client for small calls to one server, on asyncio streams (section 7).

No client library: aiohttp, with what it imports, took a third of the time until the first answer and a fifth of the
idle memory, most of it for what an agent has no use for.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import socket
import ssl
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple, Self, SupportsIndex
from urllib.parse import SplitResult, unquote, urlsplit

from aiohappyeyeballs import start_connection  # pyright: ignore[reportUnknownVariableType] - a bare tuple in its type

__all__ = ["Answer", "CallError", "HTTPClient", "Headers", "Kind"]

_PORTS = {"http": 80, "https": 443}
_MAX_HEAD_BYTES = 64 * 1024
_LONGEST_IDLE = 60.0
# A family that leads nowhere must not use up the time to connect.
_NEXT_ADDRESS_AFTER = 0.15

Kind = Literal[
    "NameResolution",
    "ConnectTimeout",
    "ConnectionRefused",
    "ConnectionReset",
    "TLSError",
    "ProxyError",
    "RequestTimeout",
    "ConnectionError",
]
"""What keeps an answer away (AGT-269)."""


class CallError(Exception):
    """There is no answer; the text holds neither URLs nor credentials."""

    def __init__(self, kind: Kind, reason: str, *, is_final: bool = False) -> None:
        """Say why; ``is_final`` if the next moment will be no better."""
        super().__init__(f"{kind}: {reason}")
        self.kind: Kind = kind
        self.is_final = is_final


class Headers(Mapping[str, str]):
    """Headers of an answer: the case of a name does not matter, and of several the first counts."""

    def __init__(self, lines: list[bytes]) -> None:
        """Take the lines of a head.

        Raises:
            ValueError: One is no header.
        """
        self._values: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.decode("latin-1").partition(":")
            if not colon or not name:
                raise ValueError("malformed header")
            self._values.setdefault(name.lower(), value.strip())

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


class Answer(NamedTuple):
    """What a server answered."""

    status: int
    headers: Headers
    body: bytes
    """At most one byte more than the client takes: who wants to know whether it was cut looks at that."""


class HTTPClient:
    """Calls one server, over connections that it keeps for the next call (AGT-723)."""

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None = None,
        proxy: str | None = None,
        timeout: float,
        connect_timeout: float | None = None,
        max_body_bytes: int = 1 << 20,
    ) -> None:
        """Connect at the first call.

        Args:
            tls: For https; the default verifies with the system's authorities.
            proxy: URL of a proxy.
            timeout: Seconds for a call in all.
            connect_timeout: Seconds of these for a TCP connection; all of them by default.
            max_body_bytes: Longer bodies are cut.
        """
        self._tls = tls
        self._proxy = urlsplit(proxy) if proxy else None
        self._timeout = timeout
        self._connect_timeout = connect_timeout or timeout
        self._max_body_bytes = max_body_bytes
        self._idle: list[_Connection] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close idle connections."""
        while self._idle:
            self._idle.pop().close()

    async def call(self, method: str, url: str, headers: Mapping[str, str], body: bytes = b"") -> Answer:
        """Make a call; redirects are answers like others.

        Args:
            method: The method.
            url: Encoded as it goes over the wire.
            headers: But for Host and Content-Length.
            body: The body.

        Raises:
            CallError: There is no answer.
        """
        target = urlsplit(url)
        data = self._encode(method, target, headers, body)
        try:
            async with asyncio.timeout(self._timeout):
                return await self._exchange(target, data)
        except TimeoutError as error:
            raise CallError("RequestTimeout", f"no answer within {self._timeout:g} s") from error

    async def _exchange(self, target: SplitResult, data: bytes) -> Answer:
        connection = self._take_idle() or await self._connect(target)
        try:
            answer = await connection.exchange(data, self._max_body_bytes)
        except BaseException:
            connection.close()
            raise
        if connection.is_reusable:
            connection.rest()
            self._idle.append(connection)
        else:
            connection.close()
        return answer

    def _take_idle(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.wake():
                return connection
            connection.close()
        return None

    def _encode(self, method: str, target: SplitResult, headers: Mapping[str, str], body: bytes) -> bytes:
        path = (target.path or "/") + (f"?{target.query}" if target.query else "")
        lines = [f"Host: {_host_header(target)}", *(f"{name}: {value}" for name, value in headers.items())]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        if self._proxy and target.scheme == "http":
            path = f"http://{_host_header(target)}{path}"
            lines += _authorization(self._proxy)
        if any("\r" in line or "\n" in line for line in lines):
            raise CallError("ConnectionError", "a header would have a line break in it", is_final=True)
        return "\r\n".join((f"{method} {path} HTTP/1.1", *lines, "", "")).encode("latin-1", "replace") + body

    async def _connect(self, target: SplitResult) -> _Connection:
        tls = (self._tls or ssl.create_default_context()) if target.scheme == "https" else None
        if self._proxy is None:
            return await self._open(target, tls)
        proxy = self._proxy
        try:
            connection = await self._open(proxy, self._tls if proxy.scheme == "https" else None)
            if tls is not None:
                await connection.open_tunnel(target, proxy)
        except CallError as error:
            if error.kind == "ConnectTimeout":
                raise
            raise CallError("ProxyError", "the proxy does not connect") from error
        if tls is not None:
            await connection.start_tls(tls, target.hostname or "")
        return connection

    async def _open(self, target: SplitResult, tls: ssl.SSLContext | None) -> _Connection:
        loop = asyncio.get_running_loop()
        host, port = target.hostname or "", target.port or _PORTS[target.scheme]
        try:
            addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            # A name that does not exist will not exist a moment later either (AGT-713).
            is_final = error.errno in {socket.EAI_NONAME, socket.EAI_NODATA}
            raise CallError("NameResolution", "the name cannot be resolved", is_final=is_final) from error
        try:
            async with asyncio.timeout(self._connect_timeout):
                sock = await start_connection(
                    addresses, happy_eyeballs_delay=_NEXT_ADDRESS_AFTER, interleave=1, loop=loop
                )
        except TimeoutError as error:
            raise CallError("ConnectTimeout", f"no connection within {self._connect_timeout:g} s") from error
        except OSError as error:
            raise _failure(error) from error
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reader = _Reader(limit=_MAX_HEAD_BYTES, loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        try:
            transport, _ = await loop.create_connection(
                lambda: protocol, sock=sock, ssl=tls, server_hostname=host if tls else None
            )
        except OSError as error:
            sock.close()
            raise _failure(error) from error
        return _Connection(reader, asyncio.StreamWriter(transport, protocol, reader, loop))


class _Reader(asyncio.StreamReader):
    """Notices what nobody asked for: a connection on which a server speaks first must not be used again."""

    is_idle = False
    is_spoilt = False

    def feed_data(self, data: Iterable[SupportsIndex]) -> None:
        self.is_spoilt |= self.is_idle
        super().feed_data(data)

    def feed_eof(self) -> None:
        self.is_spoilt |= self.is_idle
        super().feed_eof()


class _Connection:
    """One connection; calls follow one another."""

    def __init__(self, reader: _Reader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._rested_at = 0.0
        self.is_reusable = False

    def close(self) -> None:
        """Close at once; nothing more is expected."""
        self._writer.transport.abort()

    def rest(self) -> None:
        """Begin to be idle."""
        self._reader.is_idle = True
        self._rested_at = asyncio.get_running_loop().time()

    def wake(self) -> bool:
        """End being idle; False if the connection is not good any more."""
        self._reader.is_idle = False
        is_old = asyncio.get_running_loop().time() - self._rested_at > _LONGEST_IDLE
        return not (is_old or self._reader.is_spoilt or self._writer.is_closing())

    async def exchange(self, data: bytes, max_body_bytes: int) -> Answer:
        """Send a request and read its answer.

        Raises:
            CallError: There is none, it breaks off, or it makes no sense.
        """
        try:
            self._writer.write(data)
            return await self._read(max_body_bytes)
        except asyncio.IncompleteReadError as error:
            raise CallError("ConnectionReset", "the connection was closed before the end of an answer") from error
        except OSError as error:
            raise _failure(error) from error
        except (ValueError, asyncio.LimitOverrunError) as error:
            raise CallError("ConnectionError", "the answer is no HTTP") from error

    async def open_tunnel(self, target: SplitResult, proxy: SplitResult) -> None:
        """Have a proxy connect to a server.

        Raises:
            CallError: It does not.
        """
        address = f"{_bracketed(target.hostname or '')}:{target.port or _PORTS[target.scheme]}"
        lines = (f"CONNECT {address} HTTP/1.1", f"Host: {address}", *_authorization(proxy), "", "")
        self._writer.write("\r\n".join(lines).encode())
        try:
            status, *_ = await self._read_head()
        except (asyncio.IncompleteReadError, OSError, ValueError, asyncio.LimitOverrunError) as error:
            raise CallError("ProxyError", "the proxy does not answer") from error
        if not 200 <= status < 300:
            raise CallError("ProxyError", f"the proxy answered {status}")

    async def start_tls(self, tls: ssl.SSLContext, host: str) -> None:
        """Speak TLS from now on.

        Raises:
            CallError: The handshake fails.
        """
        try:
            await self._writer.start_tls(tls, server_hostname=host)
        except OSError as error:
            raise _failure(error) from error

    async def _read(self, max_body_bytes: int) -> Answer:
        self.is_reusable = False
        status, headers, is_kept = await self._read_head()
        if status in {204, 304}:
            body = b""
        elif headers.get("transfer-encoding", "").lower() == "chunked":
            body = await self._read_chunks(max_body_bytes + 1)
        elif "content-length" in headers:
            length = int(headers["content-length"])
            body = await self._reader.readexactly(min(length, max_body_bytes + 1))
        else:
            body, is_kept = await self._read_to_end(max_body_bytes + 1), False
        self.is_reusable = is_kept and len(body) <= max_body_bytes
        return Answer(status, headers, body)

    async def _read_head(self) -> tuple[int, Headers, bool]:
        """Return status, headers, and whether the connection stays."""
        while True:
            head = await self._reader.readuntil(b"\r\n\r\n")
            first, *lines = head[:-4].split(b"\r\n")
            version, _, rest = first.partition(b" ")
            if not version.startswith(b"HTTP/1.") or not rest[:3].isdigit():
                raise ValueError("malformed status line")
            status, headers = int(rest[:3]), Headers(lines)
            if status >= 200:
                options = headers.get("connection", "").lower()
                is_kept = "keep-alive" in options if version == b"HTTP/1.0" else "close" not in options
                return status, headers, is_kept

    async def _read_chunks(self, most: int) -> bytes:
        body = b""
        while size := int((await self._reader.readuntil(b"\r\n")).partition(b";")[0], 16):
            body += await self._reader.readexactly(min(size, most - len(body)))
            if len(body) >= most:
                return body
            await self._reader.readexactly(2)
        while await self._reader.readuntil(b"\r\n") != b"\r\n":
            pass
        return body

    async def _read_to_end(self, most: int) -> bytes:
        body = b""
        while len(body) < most and (data := await self._reader.read(most - len(body))):
            body += data
        return body


def _failure(error: OSError) -> CallError:
    """Name the kind of a failure of a socket or of TLS."""
    if isinstance(error, ssl.SSLError):
        return CallError("TLSError", "the TLS handshake failed")
    if error.errno == errno.ECONNREFUSED:
        return CallError("ConnectionRefused", "the connection was refused")
    if error.errno in {errno.ECONNRESET, errno.EPIPE} or isinstance(error, ConnectionResetError):
        return CallError("ConnectionReset", "the connection was reset")
    return CallError("ConnectionError", type(error).__name__)


def _host_header(target: SplitResult) -> str:
    host = _bracketed(target.hostname or "")
    return host if target.port in {None, _PORTS[target.scheme]} else f"{host}:{target.port}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _authorization(proxy: SplitResult) -> list[str]:
    if proxy.username is None:
        return []
    user = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return [f"Proxy-Authorization: Basic {base64.b64encode(user.encode()).decode()}"]
