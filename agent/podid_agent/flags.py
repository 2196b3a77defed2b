"""Command line flags with the grammar and the error texts of Go's pflag (AGT-105 to AGT-109, AGT-117, AGT-118).

argparse cannot be taught this: it abbreviates long options, reads ``-c=v`` as the value ``=v``, takes the word after a
boolean for its value, and exits 2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

__all__ = ["Flag", "FlagError", "HelpRequested", "Parsed", "parse_bool", "parse_duration", "parse_flags", "parse_int"]

_INTEGER = re.compile(r"[+-]?(0[xX](_?[0-9a-fA-F])+|0[bB](_?[01])+|0[oO]?(_?[0-7])+|[1-9](_?[0-9])*|0)\Z")
_DURATION_PART = re.compile(r"(?P<number>[0-9]+\.?[0-9]*|\.[0-9]+)(?P<unit>[^0-9.]*)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


class FlagError(Exception):
    """A command line that cannot be parsed; the text is Go's."""


class HelpRequested(Exception):  # noqa: N818 - a request, not an error
    """``-h`` or ``--help`` was met; flags after it were not looked at."""


class Flag(NamedTuple):
    """One flag of a command."""

    name: str
    parse: Callable[[str], object]
    """Turns the text into the value; raises ValueError with Go's text."""

    usage: str
    short: str = ""
    kind: str = ""
    """The word for the value in the help text; empty for booleans."""

    default: str = ""
    """The default as the help text shows it; empty shows none."""

    repeatable: bool = False
    boolean: bool = False

    @property
    def label(self) -> str:
        """The flag as error texts name it: ``-p, --port`` or ``--port``."""
        return f"-{self.short}, --{self.name}" if self.short else f"--{self.name}"


class Parsed(NamedTuple):
    """What a command line said."""

    values: Mapping[str, list[object]]
    """Flag name to its values in the order given; absent flags are missing."""

    arguments: Sequence[str]
    """The positional arguments, those after ``--`` included."""


def parse_flags(arguments: Sequence[str], flags: Sequence[Flag], *, interspersed: bool = True) -> Parsed:
    """Split a command line into flags and positional arguments.

    Args:
        arguments: The words after the program or the subcommand.
        flags: The flags that are known; ``-h`` and ``--help`` always are.
        interspersed: False stops at the first positional argument.

    Raises:
        FlagError: An unknown flag, a missing value or an unparsable one.
        HelpRequested: Help was asked for.
    """
    by_name = {flag.name: flag for flag in flags}
    by_short = {flag.short: flag for flag in flags if flag.short}
    values: dict[str, list[object]] = {}
    positional: list[str] = []
    words = list(arguments)
    while words:
        word = words.pop(0)
        if word == "--":
            positional += words
            break
        if word.startswith("--"):
            flag, text = _long(word, words, by_name)
        elif word.startswith("-") and word != "-":
            flag, text = _short(word, words, by_short)
        elif interspersed:
            positional.append(word)
            continue
        else:
            positional += [word, *words]
            break
        values.setdefault(flag.name, []).append(_value(flag, text))
    return Parsed(values, positional)


def _long(word: str, words: list[str], flags: Mapping[str, Flag]) -> tuple[Flag, str]:
    name, equals, text = word[2:].partition("=")
    if not name or name.startswith("-"):
        raise FlagError(f"bad flag syntax: {word}")
    flag = flags.get(name)
    if flag is None:
        if name == "help":
            raise HelpRequested
        raise FlagError(f"unknown flag: --{name}")
    if equals:
        return flag, text
    if flag.boolean:
        return flag, "true"
    if not words:
        raise FlagError(f"flag needs an argument: --{name}")
    return flag, words.pop(0)


def _short(word: str, words: list[str], flags: Mapping[str, Flag]) -> tuple[Flag, str]:
    letter, text = word[1], word[2:]
    flag = flags.get(letter)
    if flag is None:
        if letter == "h":
            raise HelpRequested
        raise FlagError(f"unknown shorthand flag: '{letter}' in {word}")
    if text:
        # pflag drops one "=" only if something follows it.
        return flag, text[1:] if text.startswith("=") and len(text) > 1 else text
    if not words:
        raise FlagError(f"flag needs an argument: '{letter}' in {word}")
    return flag, words.pop(0)


def _value(flag: Flag, text: str) -> object:
    try:
        return flag.parse(text)
    except ValueError as error:
        raise FlagError(f'invalid argument "{text}" for "{flag.label}" flag: {error}') from error


def parse_bool(text: str) -> bool:
    """Read a boolean as Go's ``strconv.ParseBool`` does (AGT-108)."""
    if text in {"1", "t", "T", "TRUE", "true", "True"}:
        return True
    if text in {"0", "f", "F", "FALSE", "false", "False"}:
        return False
    raise ValueError(f'strconv.ParseBool: parsing "{text}": invalid syntax')


def parse_int(text: str, *, bits: int = 64, signed: bool = True) -> int:
    """Read an integer of so many bits as Go's ``strconv.ParseInt`` with base 0 does (AGT-117)."""
    function = "ParseInt" if signed else "ParseUint"
    if not _INTEGER.match(text) or (not signed and text[0] in "+-"):
        raise ValueError(f'strconv.{function}: parsing "{text}": invalid syntax')
    digits = text.replace("_", "")
    # Go reads a leading zero as octal, Python refuses it.
    octal = re.fullmatch(r"([+-]?)0([0-7]+)", digits)
    value = int(octal[1] + octal[2], 8) if octal else int(digits, 0)
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    if not low <= value <= high:
        raise ValueError(f'strconv.{function}: parsing "{text}": value out of range')
    return value


def parse_duration(text: str) -> float:
    """Read a duration in Go's form, such as ``1h30m``, and return seconds (AGT-118)."""
    sign, rest = (-1.0, text[1:]) if text.startswith("-") else (1.0, text.removeprefix("+"))
    if rest == "0":
        return 0.0
    invalid = ValueError(f'time: invalid duration "{text}"')
    seconds = 0.0
    position = 0
    while position < len(rest):
        part = _DURATION_PART.match(rest, position)
        if part is None:
            raise invalid
        unit = part["unit"]
        if not unit:
            raise ValueError(f'time: missing unit in duration "{text}"')
        if unit not in _SECONDS:
            raise ValueError(f'time: unknown unit "{unit}" in duration "{text}"')
        seconds += float(part["number"]) * _SECONDS[unit]
        position = part.end()
    # Go counts nanoseconds in 64 bits.
    if not position or seconds >= (1 << 63) * 1e-9:
        raise invalid
    return sign * seconds
