"""The plot of a report: what succeeded and what failed over time."""

from __future__ import annotations

from typing import Any

from harness.conformance.record import EvidenceRecord
from harness.conformance.reports.html import evidence

CONTENT: dict[str, Any] = {
    "series": [{"name": "app-1 <b>", "points": [[0, True], [1, True]]}, {"name": "app-2", "points": [[2, False]]}],
    "events": [{"at": 1.5, "what": "restarted & moved"}],
}


def test_every_point_is_a_mark_and_a_failure_has_another_shape() -> None:
    drawing = evidence(EvidenceRecord("plot", "reads", CONTENT))

    assert drawing.count('<circle class="good"') == 2
    assert drawing.count('<text class="bad"') == 1
    assert "3 in all, 1 failed" in drawing


def test_names_are_escaped_and_nothing_is_loaded() -> None:
    drawing = evidence(EvidenceRecord("plot", "reads", CONTENT))

    assert "app-1 &lt;b&gt;" in drawing
    assert "restarted &amp; moved" in drawing
    assert "href" not in drawing


def test_the_axis_covers_what_was_seen() -> None:
    drawing = evidence(EvidenceRecord("plot", "reads", {"series": [{"name": "a", "points": [[0, True], [95, True]]}]}))

    assert "90 s</text>" in drawing


def test_nothing_seen_is_an_empty_plot() -> None:
    assert "0 in all, 0 failed" in evidence(EvidenceRecord("plot", "reads", {"series": []}))
