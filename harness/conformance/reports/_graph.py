"""A graph of objects that belong together, as SVG in the page: each as far to the right as its longest path is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

__all__ = ["graph"]

_WIDTH, _HEIGHT, _GAP_X, _GAP_Y, _EDGE = 196, 46, 44, 14, 4
_LONGEST = 27


def graph(content: Mapping[str, Any]) -> Markup:
    """Return the drawing.

    Args:
        content: ``nodes``, each with ``id``, ``kind`` and ``name``; and ``edges``, each with ``from`` and ``to``, which
            are ids of nodes.
    """
    nodes: Sequence[Mapping[str, Any]] = content["nodes"]
    known = {str(node["id"]) for node in nodes}
    edges = [(str(edge["from"]), str(edge["to"])) for edge in content["edges"]]
    edges = [(start, end) for start, end in edges if start in known and end in known]
    places = _places([str(node["id"]) for node in nodes], edges)
    columns = 1 + max((column for column, _ in places.values()), default=0)
    rows = 1 + max((row for _, row in places.values()), default=0)
    width = columns * (_WIDTH + _GAP_X) - _GAP_X + 2 * _EDGE
    height = rows * (_HEIGHT + _GAP_Y) - _GAP_Y + 2 * _EDGE
    parts = [*(_wire(places[start], places[end]) for start, end in edges)]
    parts += [_box(places[str(node["id"])], node) for node in nodes]
    told = Markup("").join(
        Markup("<li>{} <b>{}</b>{}</li>").format(node["kind"], node["name"], _leads_to(node, nodes, edges))
        for node in nodes
    )
    return Markup(
        '<div class="scroll"><svg class="graph" viewBox="0 0 {} {}" style="min-width:{}px" role="img" '
        'aria-label="graph of {} objects">{}</svg></div><details><summary>as a list</summary><ul>{}</ul></details>'
    ).format(width, height, width * 3 // 4, len(nodes), Markup("").join(parts), told)


def _places(names: Sequence[str], edges: Sequence[tuple[str, str]]) -> dict[str, tuple[int, int]]:
    """Return column and row of each node."""
    columns = dict.fromkeys(names, 0)
    # As many rounds as the longest path without a circle can need.
    for _ in names:
        moved = {end: columns[start] + 1 for start, end in edges if columns[start] >= columns[end]}
        moved = {name: column for name, column in moved.items() if column < len(names)}
        if not moved:
            break
        columns |= moved
    taken: dict[int, int] = {}
    places: dict[str, tuple[int, int]] = {}
    for name in names:
        column = columns[name]
        places[name] = column, taken.get(column, 0)
        taken[column] = taken.get(column, 0) + 1
    return places


def _corner(place: tuple[int, int]) -> tuple[int, int]:
    column, row = place
    return _EDGE + column * (_WIDTH + _GAP_X), _EDGE + row * (_HEIGHT + _GAP_Y)


def _wire(start: tuple[int, int], end: tuple[int, int]) -> Markup:
    (left, top), (right, below) = _corner(start), _corner(end)
    x, y, to_x, to_y = left + _WIDTH, top + _HEIGHT // 2, right, below + _HEIGHT // 2
    return Markup(
        '<path class="wire" d="M{} {}C{} {} {} {} {} {}"/><circle class="end" cx="{}" cy="{}" r="3"/>'
    ).format(x, y, x + _GAP_X // 2, y, to_x - _GAP_X // 2, to_y, to_x, to_y, to_x, to_y)


def _box(place: tuple[int, int], node: Mapping[str, Any]) -> Markup:
    x, y = _corner(place)
    name = str(node["name"])
    shown = name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
    return Markup(
        '<g class="node"><title>{} {}</title><rect x="{}" y="{}" width="{}" height="{}" rx="9"/>'
        '<text class="sub" x="{}" y="{}">{}</text><text x="{}" y="{}">{}</text></g>'
    ).format(node["kind"], name, x, y, _WIDTH, _HEIGHT, x + 10, y + 17, node["kind"], x + 10, y + 35, shown)


def _leads_to(node: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]], edges: Sequence[tuple[str, str]]) -> str:
    names = {str(one["id"]): str(one["name"]) for one in nodes}
    ends = [names[end] for start, end in edges if start == str(node["id"])]
    return f" → {', '.join(ends)}" if ends else ""
