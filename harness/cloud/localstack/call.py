"""What guard, gate, providers and recorder know of one request, and how they refuse it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from harness.cloud.actions import PlannedCheck
from harness.cloud.localstack.journal import Entry
from harness.cloud.ports import Credential, Principal
from harness.cloud.sigv4 import RawRequest

__all__ = ["ANONYMOUS", "Call"]

ANONYMOUS = Principal(kind="anonymous", arn="", account="", user_id="")


@dataclass(slots=True)
class Call:
    """A request on its way through the chain."""

    raw: RawRequest
    """Untouched; holds signature and token, and is never recorded."""
    entry: Entry
    at: datetime
    is_tls: bool
    service: str = ""
    region: str = ""
    credential: Credential | None = None
    form: str = "anonymous"
    """``header``, ``presigned`` or ``anonymous``."""
    signed_at: datetime | None = None
    denied_keys: list[tuple[PlannedCheck, str]] = field(default_factory=list[tuple[PlannedCheck, str]])
    """Parts of a batch that are refused one by one, with the text for each."""
    batch: list[str] = field(default_factory=list[str])
    """All parts of it."""
    body_follows: bool = False
    """True for the head of a request whose client waits to be asked for the body (IAM-SIG-32)."""
    is_aws: bool = True
    """False for control route, health and issuer discovery."""

    @property
    def principal(self) -> Principal:
        """Who calls."""
        return self.credential.principal if self.credential else ANONYMOUS

    def header(self, name: str) -> str:
        """Return a header's first value, empty without it; the name in lower case."""
        return next(iter(self.raw.header_values(name)), "")
