"""The lab's own record of every request, refused ones included (EMU-REC-COMPLETE)."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Entry", "Journal"]

_CAPACITY = 50_000


@dataclass(slots=True)
class Entry:
    """One request; holds no parameter, secret, token or signature (EMU-REC-REDACTED)."""

    at: str
    request_id: str
    method: str
    host: str
    peer: str
    user_agent: str
    service: str = ""
    operation: str = ""
    account: str = ""
    region: str = ""
    principal: str = ""
    access_key_id: str = ""
    layer: str = "guard"
    """Which layer answered: ``guard``, ``gate``, ``ours`` or ``localstack``."""
    decisions: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    fault: str = ""
    """What the lab did to it on demand: an error code, ``delay`` or ``drop``."""
    status: int = 0
    error_code: str = ""
    number: int = 0


class Journal:
    """The latest requests, oldest first; safe for use by several threads."""

    def __init__(self) -> None:
        """Begin empty."""
        self._lock = threading.Lock()
        self._entries: deque[Entry] = deque(maxlen=_CAPACITY)
        self._number = 0

    def add(self, entry: Entry) -> None:
        """Keep an entry and number it."""
        with self._lock:
            self._number += 1
            entry.number = self._number
            self._entries.append(entry)

    def since(self, number: int) -> list[dict[str, Any]]:
        """Return the entries from a number on, as data."""
        with self._lock:
            found = [entry for entry in self._entries if entry.number >= number]
        return [asdict(entry) for entry in found]

    def clear(self) -> None:
        """Forget all entries; numbering goes on."""
        with self._lock:
            self._entries.clear()
