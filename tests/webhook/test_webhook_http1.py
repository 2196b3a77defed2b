"""The HTTP server by itself, over a socket: framing, limits, order, and the end."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Coroutine

import pytest
from podid_webhook.http1 import Handler, HttpServer, Request, Response

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter, HttpServer], Awaitable[bytes]]
GET = b"GET /a?b=c HTTP/1.1\r\nHost: x\r\n\r\n"


def echo(request: Request) -> Response:
    return Response(request.refusal or 200, f"{request.method} {request.path} {len(request.body)}".encode())


def talk(conversation: Talk, handler: Handler = echo) -> bytes:
    """Run a server and a client of it."""

    async def run() -> bytes:
        server = HttpServer(handler, max_body_bytes=1000)
        listening = socket.create_server(("127.0.0.1", 0))
        await server.start(listening)
        reader, writer = await asyncio.open_connection(*listening.getsockname())
        try:
            async with asyncio.timeout(10):
                return await conversation(reader, writer, server)
        finally:
            writer.close()
            await server.close(grace=0)

    return asyncio.run(run())


def sending(*parts: bytes, answers: int = 1) -> Talk:
    """Send parts one after the other, and return so many bodies of answers, one a line."""

    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _server: HttpServer) -> bytes:
        for part in parts:
            writer.write(part)
            await writer.drain()
        return b"\n".join([await body(reader) for _ in range(answers)])

    return conversation


async def body(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.split(b"\r\n") if line.startswith(b"Content-Length: "))
    return await reader.readexactly(int(length.split()[1]))


@pytest.mark.parametrize(
    "request_text",
    [
        b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
        b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
    ],
    ids=["length", "chunks"],
)
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_body_is_put_together(request_text: bytes, step: int) -> None:
    """However it is framed, and wherever the network cuts it."""
    parts = [request_text[at : at + step] for at in range(0, len(request_text), step)]

    assert talk(sending(*parts)) == b"POST /a 5"


def test_requests_sent_ahead_are_answered_in_order() -> None:
    """Also when the first has to wait for something and the next would not."""
    gate = asyncio.Event()

    def handler(request: Request) -> Response | Coroutine[object, object, Response]:
        async def later() -> Response:
            await gate.wait()
            return Response(200, b"slow")

        if request.path == "/slow":
            asyncio.get_running_loop().call_later(0.05, gate.set)
            return later()
        return Response(200, b"fast")

    slow, fast = (f"GET /{name} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for name in ("slow", "fast"))

    assert talk(sending(slow + fast + fast, answers=3), handler) == b"slow\nfast\nfast"


def test_client_that_asks_first_is_told_to_go_on() -> None:
    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _server: HttpServer) -> bytes:
        writer.write(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"ok")
        return await body(reader)

    assert talk(conversation) == b"POST /a 2"


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3ea\r\n" + b"x" * 1002, 413),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 70_000, 431),
    ],
    ids=["no HTTP", "bad length", "length", "absurd length", "chunks", "head"],
)
def test_bad_request_is_refused_and_the_connection_ends(text: bytes, status: int) -> None:
    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _server: HttpServer) -> bytes:
        writer.write(text)
        answer = await reader.readuntil(b"\r\n\r\n")
        assert b"Connection: close\r\n" in answer
        return answer.split()[1]

    assert talk(conversation) == str(status).encode()


def test_head_has_no_body_and_unfit_versions_close() -> None:
    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _server: HttpServer) -> bytes:
        writer.write(b"HEAD /a HTTP/1.0\r\n\r\n")
        return await reader.read()

    assert talk(conversation).endswith(b"Content-Length: 9\r\nConnection: close\r\n\r\n")


def test_idle_connection_is_closed_at_the_end_and_a_running_request_is_answered() -> None:
    """Draining: what is being answered comes, and is the last."""
    asked = asyncio.Event()

    def handler(_request: Request) -> Coroutine[object, object, Response]:
        async def later() -> Response:
            asked.set()
            await asyncio.sleep(0.05)
            return Response(200, b"done")

        return later()

    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: HttpServer) -> bytes:
        idle, unused = await asyncio.open_connection(*writer.get_extra_info("peername"))
        writer.write(GET)
        await asked.wait()
        closing = asyncio.create_task(server.close(grace=5))
        assert await idle.read() == b""
        unused.close()
        answer = await reader.read()
        await closing
        return answer

    answer = talk(conversation, handler)

    assert b"Connection: close\r\n" in answer
    assert answer.endswith(b"done")


def test_request_that_meets_the_end_on_an_open_connection_is_answered() -> None:
    """The API server keeps connections open, and asks over one without knowing that the webhook is about to end."""

    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: HttpServer) -> bytes:
        writer.write(GET)
        await body(reader)
        closing = asyncio.create_task(server.close(grace=5))
        await asyncio.sleep(0.05)
        writer.write(GET)
        answer = await reader.read()
        await closing
        return answer

    answer = talk(conversation)

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Connection: close\r\n" in answer


def test_client_that_does_not_read_is_not_answered_on_and_on() -> None:
    """Answers wait for their reader, not in our memory; when he reads, all come."""
    count = 0

    def handler(_request: Request) -> Response:
        nonlocal count
        count += 1
        return Response(200, b"x" * 100_000)

    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _server: HttpServer) -> bytes:
        writer.write(GET * 500)
        seen = -1
        while seen != count:  # until nothing more is answered
            seen = count
            await asyncio.sleep(0.1)
        assert 0 < seen < 250
        return str(len([await body(reader) for _ in range(500)])).encode()

    assert talk(conversation, handler) == b"500"
