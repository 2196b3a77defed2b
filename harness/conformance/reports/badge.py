"""A badge of the verdict for a README, as an SVG that needs nothing else."""

from __future__ import annotations

from typing import NamedTuple
from xml.etree import ElementTree as ET

from harness.conformance.record import Run

__all__ = ["FILE_NAME", "render"]

FILE_NAME = "badge.svg"

_LABEL = "EKS Pod Identity"
_COLOURS = {"conformant": "#1a7f37", "non-conformant": "#cf222e", "incomplete": "#9a6700"}
_CHARACTER_WIDTH = 6.6


class _Half(NamedTuple):
    text: str
    colour: str
    x: float

    @property
    def width(self) -> float:
        return round(len(self.text) * _CHARACTER_WIDTH + 12, 1)


def render(run: Run) -> str:
    """Return the run's verdict, and how many MUSTs it stands on."""
    label = _Half(_LABEL, "#57606a", 0)
    verdict = _Half(f"{run.verdict}, {run.observed_musts} of {run.musts} MUST", _COLOURS[run.verdict], label.width)
    whole = f"{label.text}: {verdict.text}"
    attributes = {"xmlns": "http://www.w3.org/2000/svg", "role": "img", "aria-label": whole}
    svg = ET.Element("svg", attributes, width=f"{label.width + verdict.width:.1f}", height="20")
    ET.SubElement(svg, "title").text = whole
    for half in (label, verdict):
        ET.SubElement(svg, "rect", x=str(half.x), width=str(half.width), height="20", fill=half.colour)
        text = ET.SubElement(
            svg,
            "text",
            {"fill": "#fff", "font-family": "Verdana,Geneva,sans-serif", "font-size": "11"},
            x=str(half.x + 6),
            y="14",
            textLength=str(round(half.width - 12, 1)),
        )
        text.text = half.text
    return ET.tostring(svg, encoding="unicode") + "\n"
