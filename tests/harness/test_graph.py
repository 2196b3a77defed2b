"""The graph of a report: objects that belong together."""

from __future__ import annotations

import re
from typing import Any

from harness.conformance.record import EvidenceRecord
from harness.conformance.reports.html import evidence


def drawn(*edges: tuple[str, str], names: str = "abc") -> str:
    nodes = [{"id": name, "kind": "kind", "name": f"name of {name} <&>"} for name in names]
    content: dict[str, Any] = {"nodes": nodes, "edges": [{"from": start, "to": end} for start, end in edges]}
    return evidence(EvidenceRecord("graph", "objects", content))


def columns(drawing: str) -> list[int]:
    """Return the left edges of the boxes, in the order of the nodes."""
    return [int(x) for x in re.findall(r'<rect x="(\d+)"', drawing)]


def test_an_object_stands_to_the_right_of_everything_that_leads_to_it() -> None:
    first, second, third = columns(drawn(("a", "b"), ("b", "c"), ("a", "c")))

    assert first < second < third


def test_a_circle_of_objects_is_drawn_too() -> None:
    drawing = drawn(("a", "b"), ("b", "a"))

    assert len(columns(drawing)) == 3
    assert drawing.count('class="wire"') == 2


def test_names_are_escaped_and_told_in_words_as_well() -> None:
    drawing = drawn(("a", "b"))

    assert "<&>" not in drawing
    assert "name of a &lt;&amp;&gt;</b> → name of b &lt;&amp;&gt;" in drawing


def test_an_edge_to_nowhere_is_left_out() -> None:
    assert 'class="wire"' not in drawn(("a", "z"))
