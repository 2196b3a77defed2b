"""The request as it came over the wire, and what a verified one yields."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from harness.cloud.ports import Credential

SignatureForm = Literal["header", "presigned"]


@dataclass(frozen=True, slots=True)
class RawRequest:
    """A request before any framework decoded it (IAM-SIG-01).

    Texts hold one character per byte (latin-1), as HTTP servers hand them out.
    """

    method: str
    path: str
    """Percent-encoded path as sent, without the query."""
    query: str
    """Query as sent, without the question mark; may be empty."""
    headers: Sequence[tuple[str, str]]
    """In the order received, repeated ones included."""
    body: bytes = field(default=b"", repr=False)
    """Body without HTTP's own chunked encoding, but still with ``aws-chunked``."""
    _by_name: dict[str, list[str]] = field(init=False, repr=False, compare=False)
    """Values of the headers by lower-cased name: a verification asks for a dozen of them."""
    _query_items: tuple[tuple[str, str], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """File the headers and take the query apart, once for all who ask."""
        by_name: dict[str, list[str]] = {}
        for name, value in self.headers:
            by_name.setdefault(name.lower(), []).append(value)
        object.__setattr__(self, "_by_name", by_name)
        parts = [item.partition("=") for item in self.query.split("&") if item] if self.query else ()
        object.__setattr__(self, "_query_items", tuple((name, value) for name, _, value in parts))

    def header_values(self, name: str) -> Sequence[str]:
        """Return the values of all headers with this name (given in lower case), in order."""
        return self._by_name.get(name, ())

    def header_names(self) -> Collection[str]:
        """Return the lower-cased names of all headers."""
        return self._by_name.keys()

    def query_items(self) -> tuple[tuple[str, str], ...]:
        """Return name and value of every query item as sent, in order; a bare name has an empty value."""
        return self._query_items


@dataclass(frozen=True, slots=True)
class Authenticated:
    """The outcome of a successful verification."""

    credential: Credential
    region: str
    """Region of the credential scope."""
    service: str
    """Signing name of the credential scope."""
    body: bytes = field(repr=False)
    """Body to forward, decoded of ``aws-chunked``."""
    form: SignatureForm
    signed_at: datetime
    """Time of the signature (``X-Amz-Date``)."""
    expires_in: int | None
    """Seconds a presigned request is valid from ``signed_at``; None in the header form."""
    was_chunked: bool
    """Whether ``aws-chunked`` has to be taken out of Content-Encoding before forwarding (IAM-SIG-31)."""
    trailers: tuple[tuple[str, str], ...] = ()
    """Checksum headers that came as trailers, to be forwarded as headers (lower-case name, value)."""
