"""JSON as this package handles it: one type for its values, and a decoder as strict as Go's."""

import json
from typing import NoReturn, TypeAlias, cast

import msgspec

Json: TypeAlias = "bool | int | float | str | bytes | list[Json] | dict[str, Json] | msgspec.Struct | None"
"""A Struct is an object whose members were checked while it was decoded; bytes are sent as a string, in base64."""
JsonObject: TypeAlias = dict[str, Json]


_DECODER = msgspec.json.Decoder()
_ENCODER = msgspec.json.Encoder()


class JsonError(ValueError):
    """The text is not JSON. The message never quotes the text, which may hold secrets (WHK-871)."""


def decode(text: bytes) -> Json:
    """Decode one JSON document.

    Raises:
        JsonError: If ``text`` is not UTF-8, not JSON, nested too deeply, or holds a number beyond any float.
    """
    try:
        return cast("Json", _DECODER.decode(text))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # Three times as slow, and the judge of what the fast one refuses: lone surrogates are JSON to Go and to json.
        return _decode_exactly(text)


def _decode_exactly(text: bytes) -> Json:
    try:
        # Through str: loads() of bytes would guess UTF-16 and skip a byte-order mark.
        return json.loads(text.decode(), parse_constant=_refuse_constant, parse_float=_finite_float)
    except RecursionError:
        raise JsonError("the JSON is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise JsonError(f"not JSON: {error.msg} at character {error.pos}") from None
    except UnicodeDecodeError as error:
        raise JsonError(f"not UTF-8: {error.reason} at byte {error.start}") from None
    except JsonError:
        raise
    except ValueError:
        # The interpreter's limit on the digits of an integer.
        raise JsonError("not JSON: a number with too many digits") from None


def encode(value: Json) -> bytes:
    """Encode compactly.

    Raises:
        JsonError: If the value is nested too deeply.
    """
    try:
        return _ENCODER.encode(value)
    except (UnicodeEncodeError, RecursionError):
        return _encode_in_ascii(value)


def _encode_in_ascii(value: Json) -> bytes:
    """Encode so that a lone surrogate survives as it came."""
    try:
        return json.dumps(value, separators=(",", ":"), default=msgspec.to_builtins).encode()
    except RecursionError:
        raise JsonError("the JSON is nested too deeply") from None


def member(container: JsonObject, name: str) -> tuple[str, Json]:
    """Find a member by its name without regard to case, as Go's decoder does (WHK-116, WHK-705).

    Returns:
        The name as written in the object and the value; ``name`` and None if there is no such member.
    """
    if name in container:
        return name, container[name]
    length = len(name)
    for key, value in container.items():
        # Go folds letter by letter, so that names of another length are never meant.
        if len(key) == length and key.casefold() == name.casefold():
            return key, value
    return name, None


def _refuse_constant(name: str) -> NoReturn:
    raise JsonError(f"not JSON: {name} is no JSON number")


def _finite_float(text: str) -> float:
    value = float(text)
    # An infinity could be decoded but not be sent back.
    if value in {float("inf"), float("-inf")}:
        raise JsonError("not JSON: a number beyond 64-bit floating point")
    return value
