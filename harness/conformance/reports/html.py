"""One offline page for people: verdict, the credential's path, a matrix of requirements, timeline, evidence.

Everything is in the one file: no request leaves it, and its policy forbids any. Without scripts all content is there;
the script adds search, filters, keys and the theme switch.
"""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from harness.conformance.record import EvidenceRecord, Run, gist
from harness.conformance.reports._chain import chain_of
from harness.conformance.reports._flow import flow_of
from harness.conformance.reports._graph import graph
from harness.conformance.reports._guide import sections_of
from harness.conformance.reports._plot import plot
from harness.conformance.reports._timeline import timeline_of
from harness.conformance.reports._view import AREAS, rows_of

__all__ = ["FILE_NAME", "environment", "render", "style"]

FILE_NAME = "index.html"

_PAGE = Path(__file__).with_name("page")
_LONGEST_TEXT = 20_000


def render(run: Run) -> str:
    """Return the page."""
    script = (_PAGE / "page.js").read_text()
    rows = rows_of(run)
    areas = [area for area in AREAS if any(row.area == area for row in rows)]
    areas += sorted({row.area for row in rows} - set(areas))
    return (
        environment(_PAGE)
        .get_template("page.html.jinja")
        .render(
            run=run,
            rows=rows,
            areas=[(area, AREAS.get(area, ""), [row for row in rows if row.area == area]) for area in areas],
            flow=flow_of(rows),
            chain=chain_of(run),
            guide=sections_of(run, rows),
            timeline=timeline_of(run),
            style=style(),
            script=Markup(script),  # noqa: S704 - our own file
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )


def style() -> Markup:
    """Return the style sheet of all our pages."""
    return Markup((_PAGE / "page.css").read_text())  # noqa: S704 - our own file


@cache
def environment(templates: Path) -> jinja2.Environment:
    """Return what renders the templates of a directory, with everything escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "pretty": pretty,
        "seconds": seconds,
        "clock": clock,
        "evidence": evidence,
        "linked": linked,
        "gist": gist,
    }
    return environment


def seconds(value: float) -> str:
    """Return a duration as people write it."""
    if value >= 60:
        return f"{value // 60:.0f} min {value % 60:.0f} s"
    return f"{value:.0f} s" if value >= 10 else f"{value:.1f} s"


def clock(value: float) -> str:
    """Return a moment of the run as a short label."""
    if value >= 60:
        return f"{value // 60:.0f}:{value % 60:02.0f}"
    return f"{value:g} s" if value else "0"


def linked(source: str) -> Markup:
    """Return a source as a link, if it begins with an address; what follows the address is shown beside it."""
    address, _, place = source.partition(" ")
    if not address.startswith("https://"):
        return escape(source)
    label = address.removeprefix("https://").rstrip("/")
    return Markup('<a href="{}" rel="noreferrer">{}</a>{}').format(address, label, f" · {place}" if place else "")


def pretty(value: Any) -> Markup:
    """Return data as coloured JSON, and text as it is."""
    if isinstance(value, str):
        return escape(value[:_LONGEST_TEXT])
    return _coloured(value, "")


def _coloured(value: Any, indent: str) -> Markup:
    deeper = indent + "  "
    if isinstance(value, dict) and value:
        members: dict[str, Any] = value  # pyright: ignore[reportUnknownVariableType]
        lines = [
            Markup('{}<b class="k">{}</b>: {}').format(
                deeper, json.dumps(name, ensure_ascii=False), _coloured(entry, deeper)
            )
            for name, entry in members.items()
        ]
        return Markup("{{\n{}\n{}}}").format(Markup(",\n").join(lines), indent)
    if isinstance(value, list) and value:
        entries: list[Any] = value  # pyright: ignore[reportUnknownVariableType]
        if all(isinstance(entry, str | int | float) for entry in entries) and len(json.dumps(entries)) < 90:
            return Markup("[{}]").format(Markup(", ").join(_coloured(entry, "") for entry in entries))
        lines = [Markup("{}{}").format(deeper, _coloured(entry, deeper)) for entry in entries]
        return Markup("[\n{}\n{}]").format(Markup(",\n").join(lines), indent)
    kind = "s" if isinstance(value, str) else "n"
    return Markup('<i class="{}">{}</i>').format(kind, json.dumps(value, ensure_ascii=False))


def evidence(entry: EvidenceRecord) -> Markup:
    """Return a piece of evidence in the form that suits its kind."""
    content: Any = entry.content
    if entry.kind == "plot":
        return plot(content)
    if entry.kind == "graph":
        return graph(content)
    if entry.kind == "aws-calls" and isinstance(content, list) and content:
        return _calls(content)  # pyright: ignore[reportUnknownArgumentType]
    if entry.kind in {"command", "http"} and isinstance(content, dict):
        members: dict[str, Any] = content  # pyright: ignore[reportUnknownVariableType]
        parts = [
            Markup("<dt>{}</dt><dd><pre>{}</pre></dd>").format(name, pretty(part)) for name, part in members.items()
        ]
        return Markup('<dl class="parts">{}</dl>').format(Markup("").join(parts))
    return Markup("<pre>{}</pre>").format(pretty(content))


def _calls(calls: list[dict[str, Any]]) -> Markup:
    rows = [
        Markup('<tr><td><code>{}:{}</code></td><td>{}</td><td>{}</td><td class="{}">{}</td></tr>').format(
            call.get("service", ""),
            call.get("operation") or call.get("method", ""),
            str(call.get("principal") or "unsigned").rpartition(":")[2],
            Markup("<br>").join(_decision(decision) for decision in call.get("decisions", [])) or call.get("layer", ""),
            "good" if int(call.get("status", 0)) < 400 else "bad",
            " ".join(str(part) for part in (call.get("status", ""), call.get("error_code", "")) if part),
        )
        for call in calls
    ]
    return Markup(
        '<div class="scroll"><table class="calls">'
        "<thead><tr><th>call<th>as<th>decision<th>answer</tr></thead><tbody>{}</tbody></table></div>"
    ).format(Markup("").join(rows))


def _decision(decision: dict[str, Any]) -> Markup:
    by = decision.get("policy") or decision.get("layer", "")
    where = f" · statement {decision['statement']}" if "statement" in decision else ""
    sid = f" “{decision['sid']}”" if decision.get("sid") else ""
    return Markup('<span class="{}">{}</span> {} <small>{}{}{}</small>').format(
        "good" if decision.get("allowed") else "bad",
        "allow" if decision.get("allowed") else "deny",
        decision.get("action", ""),
        by,
        where,
        sid,
    )
