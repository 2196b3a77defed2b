"""Typed values of conditions: numbers, instants, addresses, bytes. Unreadable ones are None (IAM-COND-11)."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Literal, get_args

Grade = Literal["none", "account", "role", "federated", "service", "direct"]
GRADES: tuple[Grade, ...] = get_args(Grade)
"""Best last."""
LONGEST_VALUE = 8192
"""Characters that a text of a context key may have (IAM-SEC-08)."""
ContextValue = str | tuple[str, ...]
"""One text, or a tuple for a key that is declared multivalued (also with one or no value)."""
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_TRUTH = {"true": True, "false": False}
_NUMBER = re.compile(r"[+-]?[0-9]{1,400}(\.[0-9]{1,400})?")
_INSTANT = re.compile(
    r"(\d{4}-\d{2}-\d{2})(?:T(\d{2}:\d{2})(?::(\d{2})(?:[.,](\d{1,18}))?)?(Z|[+-]\d{2}:?\d{2})?)?", re.ASCII
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def is_too_long(value: ContextValue) -> bool:
    """Tell whether a text, or one of several, is longer than a context key's may be."""
    return len(value) > LONGEST_VALUE if isinstance(value, str) else any(len(text) > LONGEST_VALUE for text in value)


def parse_number(text: str) -> Decimal | None:
    """Return an integer or decimal."""
    return Decimal(text) if _NUMBER.fullmatch(text.strip()) else None


def parse_instant(text: str) -> Decimal | None:
    """Return seconds since 1970 for an ISO 8601 date or time, or for a number, which is such seconds already."""
    text = text.strip()
    if _NUMBER.fullmatch(text):
        return Decimal(text)
    found = _INSTANT.fullmatch(text)
    if not found:
        return None
    day, minute, second, fraction, zone = found.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{minute or '00:00'}:{second or '00'}").replace(tzinfo=UTC)
    except ValueError:
        return None
    seconds = (moment - _EPOCH) // timedelta(seconds=1) - _offset_seconds(zone)
    return Decimal(f"{seconds}") + Decimal(f"0.{fraction or 0}")


def _offset_seconds(zone: str | None) -> int:
    if zone is None or zone == "Z":
        return 0
    digits = zone[1:].replace(":", "")
    seconds = int(digits[:2]) * 3600 + int(digits[2:]) * 60
    return -seconds if zone[0] == "-" else seconds


def parse_bool(text: str) -> bool | None:
    """Return a truth value written in any case."""
    return _TRUTH.get(text) if text in _TRUTH else _TRUTH.get(text.strip().lower())


def parse_network(text: str) -> Network | None:
    """Return a CIDR range or a single address; host bits are ignored."""
    try:
        return ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        return None


def parse_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return an address."""
    try:
        return ipaddress.ip_address(text.strip())
    except ValueError:
        return None


def parse_binary(text: str) -> bytes | None:
    """Return the bytes of a base64 text."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
