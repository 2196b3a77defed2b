"""RFC 6902 as strict as an API server is: whatever does not apply exactly is an error."""

from __future__ import annotations

import copy
import re
from typing import Any, cast

__all__ = ["JsonPatchError", "apply_json_patch"]

_INDEX = re.compile(r"0|[1-9][0-9]*")
_MEMBERS = {
    "add": {"value"},
    "replace": {"value"},
    "test": {"value"},
    "remove": set[str](),
    "move": {"from"},
    "copy": {"from"},
}


class JsonPatchError(ValueError):
    """The patch is not of the format, or does not apply to the document."""


def apply_json_patch(document: Any, patch: Any) -> Any:
    """Return what a patch makes of a document, which stays as it is.

    Args:
        document: Any JSON value.
        patch: The decoded patch.

    Raises:
        JsonPatchError: Says which operation does not apply, and why.
    """
    if not isinstance(patch, list):
        raise JsonPatchError("a patch is a list of operations")
    root = {"": copy.deepcopy(document)}
    for number, operation in enumerate(cast("list[Any]", patch)):
        try:
            _apply(root, copy.deepcopy(operation))
        except JsonPatchError as error:
            raise JsonPatchError(f"operation {number}, {operation!r:.200}: {error}") from None
    return root[""]


def _apply(root: dict[str, Any], operation: Any) -> None:
    members = cast("dict[str, Any]", operation) if isinstance(operation, dict) else {}
    kind = members.get("op")
    if not isinstance(kind, str) or kind not in _MEMBERS or not {"path", *_MEMBERS[kind]} <= set(members):
        raise JsonPatchError("not an operation with all of its members")
    path: Any = members["path"]
    match kind:
        case "add":
            _add(root, path, members["value"])
        case "remove":
            _remove(root, path)
        case "replace":
            _remove(root, path)
            _add(root, path, members["value"])
        case "move":
            _add(root, path, _remove(root, members["from"]))
        case "copy":
            _add(root, path, copy.deepcopy(_read(root, members["from"])))
        case _:
            if _read(root, path) != members["value"]:
                raise JsonPatchError("the test fails")


def _add(root: dict[str, Any], path: Any, value: Any) -> None:
    parent, key = _parent(root, path)
    if isinstance(parent, list):
        items = cast("list[Any]", parent)
        items.insert(len(items) if key == "-" else _index(key, len(items)), value)
    else:
        parent[key] = value


def _remove(root: dict[str, Any], path: Any) -> Any:
    _read(root, path)
    parent, key = _parent(root, path)
    return parent.pop(int(key) if isinstance(parent, list) else key)


def _read(root: dict[str, Any], path: Any) -> Any:
    parent, key = _parent(root, path)
    if isinstance(parent, list):
        items = cast("list[Any]", parent)
        return items[_index(key, len(items) - 1)]
    if key not in parent:
        raise JsonPatchError(f"there is no {key!r}")
    return parent[key]


def _parent(root: dict[str, Any], path: Any) -> tuple[Any, str]:
    """Return the container that holds a path's target, and the target's key in it."""
    if not isinstance(path, str) or (path and not path.startswith("/")):
        raise JsonPatchError(f"{path!r} is no JSON pointer")
    # The document is a member of the root, so that the empty pointer needs no rule of its own.
    tokens = [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")]
    value: Any = root
    for token in tokens[:-1]:
        if isinstance(value, list):
            items = cast("list[Any]", value)
            value = items[_index(token, len(items) - 1)]
        elif isinstance(value, dict) and token in value:
            value = cast("dict[str, Any]", value)[token]
        else:
            raise JsonPatchError(f"there is no {token!r} on the way to {path!r}")
    if not isinstance(value, dict | list):
        raise JsonPatchError(f"the parent of {path!r} is no object or list")
    return cast("Any", value), tokens[-1]


def _index(token: str, last: int) -> int:
    if not _INDEX.fullmatch(token) or int(token) > last:
        raise JsonPatchError(f"{token!r} is no index up to {last}")
    return int(token)
