"""Bodies: which hash is signed, whether the body is what was signed, and decoding ``aws-chunked`` (``iam.md`` 13.4)."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from harness.cloud.ports import Refusal
from harness.cloud.sigv4.canonical import EMPTY_SHA256, sign
from harness.cloud.sigv4.checksums import CHECKSUMS
from harness.cloud.sigv4.request import RawRequest

UNSIGNED = "UNSIGNED-PAYLOAD"

_SIGNED_CHUNKS = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
_SIGNED_CHUNKS_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
_UNSIGNED_CHUNKS_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
_STREAMING = frozenset({_SIGNED_CHUNKS, _SIGNED_CHUNKS_TRAILER, _UNSIGNED_CHUNKS_TRAILER})
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CHUNK_SIZE = re.compile(rb"[0-9a-fA-F]{1,16}")
_TRAILER_SIGNATURE = "x-amz-trailer-signature"
_MAX_LINE_BYTES = 8192


@dataclass(frozen=True, slots=True)
class SigningContext:
    """What chunk signatures are made with: they continue the chain that the request's signature began."""

    key: bytes = field(repr=False)
    time: str
    scope: str
    seed: str
    """Signature of the request."""
    mismatch: Callable[[], Refusal]
    """Makes the refusal for a chunk whose signature is wrong."""


@dataclass(frozen=True, slots=True)
class Body:
    """A verified body as it is to be forwarded."""

    data: bytes = field(repr=False)
    was_chunked: bool = False
    trailers: tuple[tuple[str, str], ...] = ()


def s3_payload_hash(request: RawRequest, *, presigned: bool) -> str:
    """Return the last line of an S3 canonical request.

    Raises:
        Refusal: The header is missing or its value is none that S3 knows.
    """
    values = request.header_values("x-amz-content-sha256")
    if not values:
        if presigned:
            return UNSIGNED
        raise Refusal("InvalidRequest", "Missing required header for this request: x-amz-content-sha256", 400)
    value = values[0].strip()
    if value == UNSIGNED or value in _STREAMING or _SHA256.fullmatch(value):
        return value
    if value.startswith("STREAMING-AWS4-ECDSA"):
        text = "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256."
        raise Refusal("InvalidRequest", text, 400)
    text = f"x-amz-content-sha256 must be {UNSIGNED}, {_SIGNED_CHUNKS} or a valid sha256 value."
    raise Refusal("InvalidArgument", text, 400, {"ArgumentName": "x-amz-content-sha256", "ArgumentValue": value})


def verify_s3_body(request: RawRequest, payload_hash: str, context: SigningContext) -> Body:
    """Check the body against the signed hash and decode it.

    Raises:
        Refusal: The body, a chunk or the trailer is not what the client signed or announced.
    """
    if payload_hash == UNSIGNED:
        return Body(request.body)
    if payload_hash not in _STREAMING:
        computed = hashlib.sha256(request.body).hexdigest()
        if not hmac.compare_digest(computed, payload_hash):
            raise Refusal(
                "XAmzContentSHA256Mismatch",
                "The provided 'x-amz-content-sha256' header does not match what was computed.",
                400,
                {"ClientComputedContentSHA256": payload_hash, "S3ComputedContentSHA256": computed},
            )
        return Body(request.body)
    announced = _decoded_length(request)
    data, trailers = _Chunks(request, payload_hash, context).decode()
    if len(data) != announced:
        raise _incomplete()
    return Body(data, was_chunked=True, trailers=trailers)


def _decoded_length(request: RawRequest) -> int:
    values = request.header_values("x-amz-decoded-content-length")
    if len(values) != 1 or not values[0].isascii() or not values[0].isdigit() or len(values[0]) > 18:
        raise Refusal("MissingContentLength", "You must provide the Content-Length HTTP header.", 411)
    return int(values[0])


def _incomplete() -> Refusal:
    text = "You did not provide the number of bytes specified by the Content-Length HTTP header"
    return Refusal("IncompleteBody", text, 400)


def _bad_framing() -> Refusal:
    return Refusal("InvalidRequest", "The body is not well formed aws-chunked content.", 400)


class _Chunks:
    """One pass over an ``aws-chunked`` body."""

    def __init__(self, request: RawRequest, payload_hash: str, context: SigningContext) -> None:
        self._body = request.body
        self._position = 0
        self._is_signed = payload_hash != _UNSIGNED_CHUNKS_TRAILER
        self._has_trailer = payload_hash != _SIGNED_CHUNKS
        self._announced = [
            name.strip().lower()
            for value in request.header_values("x-amz-trailer")
            for name in value.split(",")
            if name.strip()
        ]
        self._context = context
        self._previous = context.seed

    def decode(self) -> tuple[bytes, tuple[tuple[str, str], ...]]:
        """Return the data and the trailers, each verified."""
        pieces: list[bytes] = []
        while True:
            size, signature = self._chunk_header()
            piece = self._take(size)
            if self._is_signed:
                self._check_chunk(piece, signature)
            if size == 0:
                break
            self._expect_line_end()
            pieces.append(piece)
        data = b"".join(pieces)
        if not self._has_trailer:
            # The last chunk ends in an empty line; some clients leave it out.
            if self._body[self._position :] not in {b"", b"\r\n"}:
                raise _bad_framing()
            return data, ()
        return data, self._trailers(data)

    def _chunk_header(self) -> tuple[int, str]:
        size, _, extension = self._line().partition(b";")
        if not _CHUNK_SIZE.fullmatch(size):
            raise _bad_framing()
        name, _, value = extension.partition(b"=")
        if self._is_signed and name != b"chunk-signature":
            raise _bad_framing()
        return int(size, 16), value.decode("latin-1")

    def _line(self) -> bytes:
        end = self._body.find(b"\r\n", self._position, self._position + _MAX_LINE_BYTES)
        if end < 0:
            raise _incomplete() if len(self._body) - self._position < _MAX_LINE_BYTES else _bad_framing()
        line = self._body[self._position : end]
        self._position = end + 2
        return line

    def _take(self, size: int) -> bytes:
        end = self._position + size
        if end > len(self._body):
            raise _incomplete()
        piece = self._body[self._position : end]
        self._position = end
        return piece

    def _expect_line_end(self) -> None:
        if self._take(2) != b"\r\n":
            raise _bad_framing()

    def _check_chunk(self, piece: bytes, signature: str) -> None:
        digest = hashlib.sha256(piece).hexdigest()
        self._advance("AWS4-HMAC-SHA256-PAYLOAD", f"{EMPTY_SHA256}\n{digest}", signature)

    def _advance(self, algorithm: str, rest: str, signature: str) -> None:
        context = self._context
        expected = sign(context.key, f"{algorithm}\n{context.time}\n{context.scope}\n{self._previous}\n{rest}")
        if not hmac.compare_digest(expected.encode(), signature.encode()):
            raise context.mismatch()
        self._previous = expected

    def _trailers(self, data: bytes) -> tuple[tuple[str, str], ...]:
        received: list[tuple[str, str]] = []
        signature = ""
        while self._position < len(self._body) and (line := self._line()):
            name, colon, value = line.decode("latin-1").partition(":")
            if not colon:
                raise _bad_framing()
            if name.strip().lower() == _TRAILER_SIGNATURE:
                signature = value.strip()
            else:
                received.append((name.strip().lower(), value.strip()))
        if self._body[self._position :] not in {b"", b"\r\n"}:
            raise _bad_framing()
        # Without a signature the checksum is the only thing that protects the body, so it must be there.
        is_unprotected = not self._is_signed and not received
        if is_unprotected or sorted(name for name, _ in received) != sorted(self._announced):
            raise Refusal("MalformedTrailerError", "The request contained trailing data that was not well-formed.", 400)
        if self._is_signed:
            text = "".join(f"{name}:{value}\n" for name, value in received)
            self._advance("AWS4-HMAC-SHA256-TRAILER", hashlib.sha256(text.encode("latin-1")).hexdigest(), signature)
        for name, value in received:
            _verify_checksum(name, value, data)
        return tuple(received)


def _verify_checksum(name: str, value: str, data: bytes) -> None:
    checksum = CHECKSUMS.get(name)
    if checksum is not None and not hmac.compare_digest(checksum(data).encode(), value.encode("latin-1")):
        algorithm = name.removeprefix("x-amz-checksum-").upper()
        raise Refusal("BadDigest", f"The {algorithm} you specified did not match the calculated checksum.", 400)
