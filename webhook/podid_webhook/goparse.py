"""Parsers that accept exactly what Go's standard library accepts, where Python's accept more.

Annotations and flags reach AWS's webhook through ``strconv``, ``encoding/csv``, ``time`` and ``path/filepath``; users
depend on what those take and refuse. Python's ``int`` takes blanks, underscores and non-ASCII digits, its ``csv``
tolerates bare quotes, and its ``normpath`` keeps a double slash in front.
"""

import posixpath
import re
from collections.abc import Iterator
from functools import lru_cache

_INTEGER = re.compile(r"([+-]?)0*([0-9]{1,19})", re.ASCII)
_DURATION_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_UNIT_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_TRUE = frozenset({"1", "t", "T", "true", "True", "TRUE"})
_FALSE = frozenset({"0", "f", "F", "false", "False", "FALSE"})


def parse_int64(text: str) -> int:
    """Parse as ``strconv.ParseInt(text, 10, 64)`` does (WHK-606).

    Raises:
        ValueError: If ``text`` is anything but ASCII digits with an optional sign, or does not fit 64 bits.
    """
    match = _INTEGER.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a base-10 64-bit integer")
    value = int(match[1] + match[2])
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"{text!r} does not fit a 64-bit integer")
    return value


def parse_bool(text: str) -> bool:
    """Parse as ``strconv.ParseBool`` does (WHK-609).

    Raises:
        ValueError: If ``text`` is none of Go's twelve spellings.
    """
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError(f"{text!r} is not a boolean: use true or false")


def parse_duration(text: str) -> float:
    """Parse as ``time.ParseDuration`` does (``100ms``, ``1m30s``, ``0``), in seconds.

    Raises:
        ValueError: If ``text`` has no unit (unless it is zero), an unknown unit, or any other character.
    """
    sign, digits = (-1.0, text[1:]) if text.startswith("-") else (1.0, text.removeprefix("+"))
    if digits == "0":
        return 0.0
    total, position = 0.0, 0
    while match := _DURATION_PART.match(digits, position):
        total += float(match[1]) * _UNIT_SECONDS[match[2]]
        position = match.end()
    if not digits or position != len(digits):
        raise ValueError(f"{text!r} is not a duration: use for example 100ms, 1s or 1m30s")
    return sign * total


@lru_cache(maxsize=16)  # of flags: the same few for every pod
def clean_join(*parts: str) -> str:
    """Join as ``filepath.Join`` does: empty parts dropped, ``//``, ``.`` and ``..`` resolved (WHK-314)."""
    joined = "/".join(part for part in parts if part)
    if not joined:
        return ""
    cleaned = posixpath.normpath(joined)
    # POSIX gives exactly two leading slashes a meaning of their own, and normpath keeps them.
    return cleaned[1:] if cleaned.startswith("//") else cleaned


def first_csv_record(text: str) -> tuple[str, ...]:
    """Read the first record of ``text`` as ``encoding/csv`` does (WHK-603, WHK-604).

    Blank lines in front are passed over and nothing is trimmed. Only the first record counts: what follows it may be
    broken.

    Returns:
        The fields, or nothing at all when there is no record or its quoting is broken.
    """
    if text:
        text = text.replace("\r\n", "\n").removesuffix("\r").lstrip("\n")
    if not text:
        return ()
    try:
        return tuple(_csv_fields(text))
    except ValueError:
        return ()


def _csv_fields(text: str) -> Iterator[str]:
    position = 0
    while True:
        if text.startswith('"', position):
            field, position = _quoted_field(text, position + 1)
        else:
            field = re.split(r"[,\n]", text[position:], maxsplit=1)[0]
            if '"' in field:
                raise ValueError("bare quote in an unquoted field")
            position += len(field)
        yield field
        if not text.startswith(",", position):
            return
        position += 1


def _quoted_field(text: str, start: int) -> tuple[str, int]:
    parts: list[str] = []
    while True:
        end = text.find('"', start)
        if end < 0:
            raise ValueError("quote without an end")
        parts.append(text[start:end])
        if not text.startswith('"', end + 1):
            break
        parts.append('"')
        start = end + 2
    if end + 1 < len(text) and text[end + 1] not in ",\n":
        raise ValueError("text after a closing quote")
    return "".join(parts), end + 1
