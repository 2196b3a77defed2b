"""JSON Patch: what applies, and what an API server would refuse."""

import copy
from typing import Any

import pytest

from harness.subject.json_patch import JsonPatchError, apply_json_patch

DOCUMENT: dict[str, Any] = {"metadata": {"labels": {"a/b": "1"}}, "spec": {"volumes": [{"name": "own"}]}}


def applied(*operations: Any) -> Any:
    before = copy.deepcopy(DOCUMENT)
    result = apply_json_patch(DOCUMENT, list(operations))
    assert before == DOCUMENT
    return result


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ({"op": "add", "path": "/spec/volumes/0", "value": 1}, [1, {"name": "own"}]),
        ({"op": "add", "path": "/spec/volumes/1", "value": 1}, [{"name": "own"}, 1]),
        ({"op": "add", "path": "/spec/volumes/-", "value": 1}, [{"name": "own"}, 1]),
        ({"op": "add", "path": "/spec/volumes", "value": []}, []),
        ({"op": "replace", "path": "/spec/volumes/0", "value": 1}, [1]),
        ({"op": "remove", "path": "/spec/volumes/0"}, []),
        ({"op": "copy", "from": "/spec/volumes/0/name", "path": "/spec/volumes/0"}, ["own", {"name": "own"}]),
        ({"op": "move", "from": "/spec/volumes/0/name", "path": "/spec/volumes/0/n"}, [{"n": "own"}]),
        ({"op": "test", "path": "/metadata/labels/a~1b", "value": "1"}, [{"name": "own"}]),
    ],
)
def test_applies(operation: Any, expected: Any) -> None:
    assert applied(operation)["spec"]["volumes"] == expected


def test_empty_pointer_is_the_document() -> None:
    assert applied({"op": "add", "path": "", "value": 5}) == 5


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "add", "path": "/spec/initContainers/0", "value": 1},
        {"op": "add", "path": "/spec/volumes/2", "value": 1},
        {"op": "add", "path": "/spec/volumes/01", "value": 1},
        {"op": "add", "path": "/metadata/annotations/a", "value": 1},
        {"op": "add", "path": "/metadata/labels/a/b/c", "value": 1},
        {"op": "add", "path": "/metadata/labels/a~1b/c", "value": 1},
        {"op": "add", "path": "spec", "value": 1},
        {"op": "add", "path": "/spec"},
        {"op": "replace", "path": "/spec/nodeName", "value": 1},
        {"op": "replace", "path": "/spec/volumes/-", "value": 1},
        {"op": "remove", "path": "/spec/nodeName"},
        {"op": "test", "path": "/spec/volumes", "value": []},
        {"op": "merge", "path": "/spec", "value": 1},
        {"path": "/spec", "value": 1},
        5,
    ],
)
def test_does_not_apply(operation: Any) -> None:
    with pytest.raises(JsonPatchError, match="operation 0"):
        applied(operation)


def test_patch_is_a_list() -> None:
    with pytest.raises(JsonPatchError, match="list"):
        apply_json_patch({}, {"op": "add", "path": "/a", "value": 1})
