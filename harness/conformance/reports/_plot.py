"""A plot of what succeeded and what failed over time, as SVG in the page: a line for each series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

__all__ = ["plot"]

_LABELS, _WIDTH, _LANE, _TOP, _FOOT = 250, 940, 24, 34, 26
_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)


@dataclass(frozen=True, slots=True)
class _Scale:
    seconds: float

    def x(self, at: float) -> str:
        return f"{_LABELS + at * (_WIDTH - _LABELS - 16) / self.seconds:.1f}"


def plot(content: Mapping[str, Any]) -> Markup:
    """Return the drawing.

    Args:
        content: ``series``, each with ``name`` and ``points`` of (seconds, whether it went well); and ``events``, each
            with ``at`` in seconds and ``what``.
    """
    series: Sequence[Mapping[str, Any]] = content["series"]
    events: Sequence[Mapping[str, Any]] = content.get("events", ())
    moments = [float(at) for one in series for at, _ in one["points"]] + [float(one["at"]) for one in events]
    scale = _Scale(max([*moments, 1.0]))
    height = _TOP + _LANE * len(series) + _FOOT
    failed = sum(not good for one in series for _, good in one["points"])
    total = sum(len(one["points"]) for one in series)
    parts = [
        *(_event(number, one, scale, height) for number, one in enumerate(events, 1)),
        *(_lane(_TOP + _LANE * number, one, scale) for number, one in enumerate(series)),
        *_axis(scale, height),
    ]
    legend = [
        Markup("<li>{} <small>{} s</small></li>").format(one["what"], f"{float(one['at']):.0f}") for one in events
    ]
    return Markup(
        '<p class="where">{} in all, {} failed</p><div class="scroll"><svg class="plot" viewBox="0 0 {} {}" role="img" '
        'aria-label="{} in all, {} failed">{}</svg></div><ol class="steps">{}</ol>'
    ).format(total, failed, _WIDTH, height, total, failed, Markup("").join(parts), Markup("").join(legend))


def _event(number: int, event: Mapping[str, Any], scale: _Scale, height: int) -> Markup:
    x = scale.x(float(event["at"]))
    return Markup(
        '<g class="event"><title>{}</title><line x1="{}" y1="20" x2="{}" y2="{}"/><text x="{}" y="14">{}</text></g>'
    ).format(event["what"], x, x, height - _FOOT, x, number)


def _lane(top: int, series: Mapping[str, Any], scale: _Scale) -> Markup:
    middle = top + _LANE // 2
    marks = [_mark(float(at), bool(good), middle, scale) for at, good in series["points"]]
    return Markup('<text class="sub" x="0" y="{}">{}</text>{}').format(
        middle + 4, series["name"], Markup("").join(marks)
    )


def _mark(at: float, good: bool, middle: int, scale: _Scale) -> Markup:
    x = scale.x(at)
    # A failure has another shape too: colour alone tells nobody enough.
    if good:
        return Markup('<circle class="good" cx="{}" cy="{}" r="2.6"/>').format(x, middle)
    return Markup('<text class="bad" x="{}" y="{}">✗</text>').format(x, middle + 6)


def _axis(scale: _Scale, height: int) -> list[Markup]:
    step = next((step for step in _STEPS if scale.seconds / step <= 10), _STEPS[-1])
    ticks = range(0, int(scale.seconds) + 1, step)
    return [Markup('<text class="tick" x="{}" y="{}">{} s</text>').format(scale.x(at), height - 8, at) for at in ticks]
