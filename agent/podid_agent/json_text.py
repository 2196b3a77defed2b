"""A JSON scanner that accepts exactly what Go's encoding/json accepts, and refuses in Go's words (AGT-306, AGT-307).

Python's ``json`` takes NaN, byte order marks and UTF-16, and gives up on deep nesting and long integers (AGT-322 to
AGT-324). The scanner is iterative, and returns only what the token checks look at: the members of the outermost value.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from math import isinf
from typing import Literal, NamedTuple

__all__ = ["JSONTextError", "Kind", "Value", "scan"]

Kind = Literal["object", "array", "string", "number", "bool", "null"]

_MAX_DEPTH = 10_000
_SPACE = re.compile(rb"[ \t\r\n]*")
_STRING = re.compile(rb'"[^"\\\x00-\x1f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*)*"')
# Matches nothing where the text ends inside an escape.
_ESCAPE = re.compile(
    rb'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}|u[0-9a-fA-F]{0,3}(?P<bad_hex>[^0-9a-fA-F])|(?P<bad>[^u]))', re.DOTALL
)
_NUMBER = re.compile(rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_LITERALS: dict[int, tuple[bytes, Kind]] = {
    ord("t"): (b"true", "bool"),
    ord("f"): (b"false", "bool"),
    ord("n"): (b"null", "null"),
}
_END = "unexpected end of JSON input"


class JSONTextError(ValueError):
    """Not JSON; the text is Go's."""


class Value(NamedTuple):
    """A JSON value of which only the kind and the place are known."""

    kind: Kind
    raw: bytes
    """Its text, without surrounding blanks."""

    members: tuple[tuple[str, Value], ...] = ()
    """Names and values of the outermost object in order, duplicates included."""

    elements: tuple[Value, ...] = ()
    """Elements of an array that is a member of the outermost object."""

    huge_number: bytes | None = None
    """Of the outermost value: the first number in it that no float64 holds."""

    def text(self) -> str:
        """Decode a string; invalid UTF-8 and lone surrogates become U+FFFD, as in Go."""
        decoded = json.loads(self.raw.decode("utf-8", "replace"))
        return re.sub("[\ud800-\udfff]", "\ufffd", str(decoded))


@dataclass(slots=True, eq=False)
class _Open:
    """An array or object that is being read."""

    kind: Literal["object", "array"]
    start: int
    key: str = ""
    members: list[tuple[str, Value]] | None = None
    elements: list[Value] | None = None


def scan(data: bytes) -> Value:
    """Scan one JSON value.

    Raises:
        JSONTextError: ``data`` is not JSON, or nested deeper than 10,000.
    """
    return _Scanner(data).run()


class _Scanner:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._stack: list[_Open] = []
        self._huge_number: bytes | None = None

    def run(self) -> Value:
        value = self._begin_value()
        while self._stack:
            value = self._begin_value() if value is None else self._after_value(value)
        if value is None:
            raise AssertionError("an empty stack has a value")
        if self._peek(optional=True) >= 0:
            raise self._unexpected("after top-level value")
        return Value(value.kind, value.raw, value.members, value.elements, self._huge_number)

    def _peek(self, *, optional: bool = False) -> int:
        """Skip blanks and return the next byte, -1 at an end that is ``optional``."""
        space = _SPACE.match(self._data, self._at)
        self._at = space.end() if space else self._at
        if self._at < len(self._data):
            return self._data[self._at]
        if optional:
            return -1
        raise JSONTextError(_END)

    def _begin_value(self) -> Value | None:
        """Read a scalar or an empty container, or open a container and return None."""
        byte = self._peek()
        if byte in b"{[":
            return self._open("object" if byte == ord("{") else "array")
        if byte == ord('"'):
            return Value("string", self._string())
        if byte in _LITERALS:
            word, kind = _LITERALS[byte]
            return Value(kind, self._literal(word))
        if byte in b"-0123456789":
            return Value("number", self._number())
        raise self._unexpected("looking for beginning of value")

    def _open(self, kind: Literal["object", "array"]) -> Value | None:
        if len(self._stack) >= _MAX_DEPTH:
            raise self._unexpected("exceeded max depth")
        depth = len(self._stack)
        self._stack.append(
            _Open(
                kind,
                self._at,
                members=[] if kind == "object" and depth == 0 else None,
                elements=[] if kind == "array" and depth == 1 else None,
            )
        )
        self._at += 1
        closing = ord("}") if kind == "object" else ord("]")
        if self._peek() == closing:
            return self._close()
        if kind == "object":
            self._key()
        return None

    def _close(self) -> Value:
        self._at += 1
        done = self._stack.pop()
        # Deep values are only validated; their text would be copied once per level.
        raw = self._data[done.start : self._at] if len(self._stack) <= 1 else b""
        return Value(done.kind, raw, tuple(done.members or ()), tuple(done.elements or ()))

    def _key(self) -> None:
        if self._peek() != ord('"'):
            raise self._unexpected("looking for beginning of object key string")
        raw = self._string()
        inner = self._stack[-1]
        if inner.members is not None:
            inner.key = Value("string", raw).text()
        if self._peek() != ord(":"):
            raise self._unexpected("after object key")
        self._at += 1

    def _after_value(self, value: Value) -> Value | None:
        """Put a value into its container; return the container if this ended it, None if another value follows."""
        inner = self._stack[-1]
        if inner.members is not None:
            inner.members.append((inner.key, value))
        if inner.elements is not None:
            inner.elements.append(value)
        byte = self._peek()
        if byte == ord(","):
            self._at += 1
            if inner.kind == "object":
                self._key()
            return None
        if byte == (ord("}") if inner.kind == "object" else ord("]")):
            return self._close()
        raise self._unexpected("after object key:value pair" if inner.kind == "object" else "after array element")

    def _string(self) -> bytes:
        match = _STRING.match(self._data, self._at)
        if match is None:
            raise self._string_fault()
        self._at = match.end()
        return match[0]

    def _string_fault(self) -> JSONTextError:
        data, at = self._data, self._at + 1
        while at < len(data):
            if data[at] < 0x20:
                return _unexpected(data[at], "in string literal")
            if data[at] == ord("\\"):
                escape = _ESCAPE.match(data, at)
                if escape is None:
                    break
                if escape["bad_hex"]:
                    return _unexpected(escape["bad_hex"][0], "in \\u hexadecimal character escape")
                if escape["bad"]:
                    return _unexpected(escape["bad"][0], "in string escape code")
                at = escape.end()
            else:
                at += 1
        return JSONTextError(_END)

    def _literal(self, word: bytes) -> bytes:
        for offset in range(1, len(word)):
            if self._at + offset >= len(self._data):
                raise JSONTextError(_END)
            byte = self._data[self._at + offset]
            if byte != word[offset]:
                raise _unexpected(byte, f"in literal {word.decode()} (expecting {chr(word[offset])!r})")
        self._at += len(word)
        return word

    def _number(self) -> bytes:
        match = _NUMBER.match(self._data, self._at)
        if match is None:
            self._at += 1
            raise self._fault_at_end_of_number("in numeric literal")
        end = match.end()
        following = self._data[end : end + 1]
        # The pattern stops before a "." or "e" that lacks its digits.
        if following == b"." and b"." not in match[0] and not re.search(rb"[eE]", match[0]):
            self._at = end + 1
            raise self._fault_at_end_of_number("after decimal point in numeric literal")
        if following in {b"e", b"E"} and not re.search(rb"[eE]", match[0]):
            self._at = end + 1
            if self._data[self._at : self._at + 1] in {b"+", b"-"}:
                self._at += 1
            raise self._fault_at_end_of_number("in exponent of numeric literal")
        self._at = end
        if self._huge_number is None and isinf(float(match[0])):
            self._huge_number = match[0]
        return match[0]

    def _fault_at_end_of_number(self, where: str) -> JSONTextError:
        return self._unexpected(where) if self._at < len(self._data) else JSONTextError(_END)

    def _unexpected(self, where: str) -> JSONTextError:
        return _unexpected(self._data[self._at], where)


def _unexpected(byte: int, where: str) -> JSONTextError:
    return JSONTextError(f"invalid character {_quote_byte(byte)} {where}")


def _quote_byte(byte: int) -> str:
    """Quote a byte as Go's scanner does: as the character of that number, escaped if it cannot be shown."""
    named = {0x27: "'\\''", 0x22: "'\"'", 0x5C: "'\\\\'"}
    if byte in named:
        return named[byte]
    escapes = {0x07: "a", 0x08: "b", 0x0C: "f", 0x0A: "n", 0x0D: "r", 0x09: "t", 0x0B: "v"}
    if byte in escapes:
        return f"'\\{escapes[byte]}'"
    if byte < 0x20 or byte == 0x7F:
        return f"'\\x{byte:02x}'"
    if 0x80 <= byte <= 0xA0 or byte == 0xAD:
        return f"'\\u{byte:04x}'"
    return f"'{chr(byte)}'"
