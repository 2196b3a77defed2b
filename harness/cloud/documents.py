"""Reading JSON whose shape is not known: what is not there or is something else reads as empty."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

__all__ = ["entries", "is_mapping", "is_too_deep", "members", "one_or_more"]

_DEEPEST = 32


def is_mapping(value: Any) -> bool:
    """Tell whether a value is a JSON object."""
    return isinstance(value, Mapping)


def members(value: Any) -> Mapping[str, Any]:
    """Return a JSON object, an empty one for anything else."""
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def entries(value: Any) -> list[Any]:
    """Return a JSON array as a list, an empty one for anything else."""
    return list(cast("list[Any]", value)) if isinstance(value, list | tuple) else []


def one_or_more(value: Any) -> list[Any]:
    """Return an array as a list and a single value as a list of one, as policies allow it; None is no value."""
    if isinstance(value, list):
        return entries(cast("Any", value))
    return [] if value is None else [value]


def is_too_deep(value: Any) -> bool:
    """Tell whether objects and arrays are nested more deeply than JSON from outside may be (IAM-SEC-08)."""
    level: list[Any] = [value]
    for _ in range(_DEEPEST):
        level = [item for outer in level for item in [*members(outer).values(), *entries(outer)]]
    return any(isinstance(item, dict | list) for item in cast("list[object]", level))
