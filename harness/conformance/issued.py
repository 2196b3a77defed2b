"""What was issued in a run: secrets that are held in memory, and looked for in every file at its end (HRN-SEC-03)."""

from __future__ import annotations

import secrets
import string
from collections.abc import Mapping

__all__ = ["Issued", "new_marker"]

_MARKER_LENGTH = 12
_SHORTEST = 20
"""Characters from which on a secret can be told from anything else."""


def new_marker() -> str:
    """Return a marker for the secrets of one run: letters and digits, so that no encoding of URLs changes it."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(_MARKER_LENGTH))


class Issued:
    """The secrets of a run. Fixtures add what they get to know; nothing of it is ever written down."""

    def __init__(self, marker: str) -> None:
        """Begin without secrets.

        Args:
            marker: What every secret that AWS mints in this run is to contain.
        """
        self.marker = marker
        self.secrets: dict[str, str] = {}
        """Secret → its class."""

    def add(self, found: Mapping[str, str]) -> None:
        """Take note of secrets and their classes; of tokens, what makes them valid is their signature."""
        self.secrets |= {secret: name for secret, name in found.items() if len(secret) >= _SHORTEST}
