"""Wildcard patterns: ``*`` for any run, ``?`` for exactly one character, nothing else (IAM-STMT-04).

No regular expressions: a pattern is cut at its stars and the segments are looked for from left to right, so that the
work is at most pattern length times text length (IAM-PERF-06).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from operator import eq, methodcaller

__all__ = ["ONE", "STAR", "Pattern", "TextTest", "Token", "Variable", "wildcard_tokens"]


class _Wild(Enum):
    STAR = "*"
    ONE = "?"


STAR = _Wild.STAR
ONE = _Wild.ONE


@dataclass(frozen=True, slots=True)
class Variable:
    """A policy variable, to be replaced by literal text."""

    key: str
    """Lower-cased context key."""
    default: str | None = None

    def value(self, context: Mapping[str, str | tuple[str, ...]]) -> str | None:
        """Return the text to insert; None without a value, which multivalued keys never have (IAM-VAR-07)."""
        found = context.get(self.key)
        return found if isinstance(found, str) else self.default


Token = str | Variable | _Wild
TextTest = Callable[[str, Mapping[str, str | tuple[str, ...]]], bool]
"""A test of a text in a context."""
_REMEMBERED_VALUES = 256
"""Bound of each pattern's memory of what its variables were (IAM-PERF-05)."""
_Segment = str | tuple[str | _Wild, ...]
"""Text between two stars; a tuple if it holds question marks, which are ONE in it."""


def wildcard_tokens(text: str) -> list[Token]:
    """Split a text without variables into literals and wildcards."""
    tokens: list[Token] = []
    start = 0
    for index, character in enumerate(text):
        if character in "*?":
            if index > start:
                tokens.append(text[start:index])
            tokens.append(STAR if character == "*" else ONE)
            start = index + 1
    if start < len(text):
        tokens.append(text[start:])
    return tokens


class Pattern:
    """A compiled pattern, possibly with variables that each match fills in."""

    __slots__ = ("_filled", "_parts", "literal_head", "matches", "matches_all", "variables")

    matches: TextTest
    """Tells whether the pattern matches a whole text; a variable without value matches nothing."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        """Compile a list of literals, variables and wildcards."""
        self.variables = tuple(token for token in tokens if isinstance(token, Variable))
        parts: list[list[str | Variable | _Wild]] = [[]]
        for token in tokens:
            if token is STAR:
                parts.append([])
            else:
                parts[-1].append(token)
        self._parts = parts
        self._filled: dict[Hashable, Callable[[str], bool]] = {}
        self.matches_all = bool(tokens) and all(token is STAR for token in tokens)
        """Whether the pattern consists of stars only."""
        self.literal_head = _literal_head(tokens)
        """Text that every match begins with."""
        self.matches = self._compiled()

    def _compiled(self) -> TextTest:
        if self.matches_all:
            return lambda _text, _context: True
        if not self.variables:
            return _fixed(_segments(self._parts, {}))
        keys, filled, remembered = [variable.key for variable in self.variables], self._filled, self._remembered
        # Remembered by what stands in the context, not by what is inserted: of several values that is nothing.
        if len(keys) > 1:

            def matches_several(text: str, context: Mapping[str, str | tuple[str, ...]]) -> bool:
                found = tuple([context.get(key) for key in keys])
                return (filled.get(found) or remembered(found, context))(text)

            return matches_several
        (key,) = keys

        def matches_one(text: str, context: Mapping[str, str | tuple[str, ...]]) -> bool:
            found = context.get(key)
            return (filled.get(found) or remembered(found, context))(text)

        return matches_one

    def _remembered(self, found: Hashable, context: Mapping[str, str | tuple[str, ...]]) -> Callable[[str], bool]:
        matcher = _matcher(_segments(self._parts, context))
        if len(self._filled) >= _REMEMBERED_VALUES:
            self._filled.clear()
        self._filled[found] = matcher
        return matcher


def _literal_head(tokens: Sequence[Token]) -> str:
    head: list[str] = []
    for token in tokens:
        if not isinstance(token, str):
            break
        head.append(token)
    return "".join(head)


def _fixed(segments: list[_Segment] | None) -> TextTest:
    """Return the cheapest test of a pattern without variables: most are a text, or a text and a star."""
    if segments and isinstance(head := segments[0], str):
        if len(segments) == 1:
            return lambda text, _: text == head
        if segments[1:] == [""]:
            return lambda text, _: text.startswith(head)
    matcher = _matcher(segments)
    return lambda text, _: matcher(text)


def _matcher(segments: list[_Segment] | None) -> Callable[[str], bool]:
    """Return the same for a pattern whose variables are filled in."""
    if segments is None:
        return _never
    head = segments[0]
    if isinstance(head, str):
        if len(segments) == 1:
            return partial(eq, head)
        if segments[1:] == [""]:
            return methodcaller("startswith", head)
    return partial(_match, segments)


def _never(_: str) -> bool:
    return False


def _segments(
    parts: Sequence[Sequence[str | Variable | _Wild]], context: Mapping[str, str | tuple[str, ...]]
) -> list[_Segment] | None:
    segments: list[_Segment] = []
    for part in parts:
        pieces: list[str | _Wild] = []
        for piece in part:
            text = piece.value(context) if isinstance(piece, Variable) else piece
            if text is None:
                return None
            if pieces and isinstance(text, str) and isinstance(pieces[-1], str):
                pieces[-1] += text
            else:
                pieces.append(text)
        is_literal = not pieces or (len(pieces) == 1 and isinstance(pieces[0], str))
        segments.append("".join(piece for piece in pieces if isinstance(piece, str)) if is_literal else tuple(pieces))
    return segments


def _length(segment: _Segment) -> int:
    if isinstance(segment, str):
        return len(segment)
    return sum(len(piece) if isinstance(piece, str) else 1 for piece in segment)


def _stands_at(segment: _Segment, text: str, position: int) -> bool:
    if isinstance(segment, str):
        return text.startswith(segment, position)
    for piece in segment:
        if isinstance(piece, str):
            if not text.startswith(piece, position):
                return False
            position += len(piece)
        else:
            position += 1
    return position <= len(text)


def _match(segments: Sequence[_Segment], text: str) -> bool:
    first, last = segments[0], segments[-1]
    if len(segments) == 1:
        return text == first if isinstance(first, str) else _length(first) == len(text) and _stands_at(first, text, 0)
    start = _length(first)
    end = len(text) - _length(last)
    if start > end or not _stands_at(first, text, 0) or not _stands_at(last, text, end):
        return False
    for segment in segments[1:-1]:
        # The leftmost place leaves the most room for the rest, so no other needs to be tried.
        start = _leftmost(segment, text, start, end)
        if start < 0:
            return False
        start += _length(segment)
    return True


def _leftmost(segment: _Segment, text: str, start: int, end: int) -> int:
    if isinstance(segment, str):
        return text.find(segment, start, end)
    last = end - _length(segment)
    return next((position for position in range(start, last + 1) if _stands_at(segment, text, position)), -1)
