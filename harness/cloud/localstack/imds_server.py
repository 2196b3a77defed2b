"""The metadata service's socket: HTTP on an event loop of its own, beside LocalStack's."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading

import h11

from harness.cloud.imds import Answer, Imds, ImdsRequest

__all__ = ["ImdsServer"]

LOG = logging.getLogger(__name__)

_DEFAULT_TTL = 64
_IDLE_SECONDS = 30


class ImdsServer:
    """Serves :class:`Imds` in a thread of its own."""

    def __init__(self, imds: Imds, listen: str) -> None:
        """Keep what to serve.

        Args:
            imds: What to serve.
            listen: ``address:port``.
        """
        self._imds = imds
        host, _, port = listen.rpartition(":")
        self._host, self._port = host, int(port)
        self._failure: BaseException | None = None
        self._started = threading.Event()

    def start(self) -> None:
        """Listen, then return.

        Raises:
            OSError: The address is not there or taken.
        """
        threading.Thread(target=self._run, name="imds", daemon=True).start()
        self._started.wait()
        if self._failure:
            raise self._failure

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except OSError as error:
            self._failure = error
        finally:
            self._started.set()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connected, self._host, self._port)
        self._started.set()
        async with server:
            await server.serve_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER)
        peer = str(writer.get_extra_info("peername")[0])
        try:
            while await self._exchange(connection, reader, writer, peer):
                connection.start_next_cycle()
        except (h11.ProtocolError, OSError, TimeoutError) as error:
            LOG.debug("connection from %s ended: %s", peer, error)
        finally:
            writer.close()

    async def _exchange(
        self, connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: str
    ) -> bool:
        """Serve one request; return whether the connection can serve another."""
        request = await self._read_request(connection, reader)
        if request is None:
            return False
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in request.headers}
        method, path = request.method.decode("latin-1"), request.target.decode("latin-1")
        # Credentials of a node are made in LocalStack's IAM, which takes locks: not on the loop.
        asked = ImdsRequest(method, path, headers, peer)
        answer = await asyncio.to_thread(self._imds.answer, asked)
        self._write(connection, writer, answer, is_head=method == "HEAD")
        await writer.drain()
        return connection.our_state is h11.DONE and connection.their_state is h11.DONE

    @staticmethod
    async def _read_request(connection: h11.Connection, reader: asyncio.StreamReader) -> h11.Request | None:
        request = None
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await asyncio.wait_for(reader.read(4096), _IDLE_SECONDS))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.EndOfMessage):
                return request
            elif isinstance(event, h11.ConnectionClosed):
                return None

    @staticmethod
    def _write(connection: h11.Connection, writer: asyncio.StreamWriter, answer: Answer, *, is_head: bool) -> None:
        # Too far away is no answer at all: the packets that carry a token die on their way to a pod (EMU-IMDS-HOP).
        ttl = answer.hop_limit if answer.hop_limit is not None else _DEFAULT_TTL
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
        body = answer.body.encode()
        headers = [("Content-Type", answer.content_type), ("Content-Length", str(len(body))), ("Server", "EC2ws")]
        reply = h11.Response(status_code=answer.status, headers=[*headers, *answer.headers.items()])
        data = connection.send(reply) or b""
        if not is_head:
            data += connection.send(h11.Data(data=body)) or b""
        writer.write(data + (connection.send(h11.EndOfMessage()) or b""))
