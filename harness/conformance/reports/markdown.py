"""Markdown for a GitHub step summary: the verdict, what failed and why, what could not run."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from harness.conformance.record import CheckRecord, FeatureRecord, RequirementRecord, Run, TestRecord, gist

__all__ = ["FILE_NAME", "cell", "render", "section"]

FILE_NAME = "summary.md"

# GitHub drops a step summary above 1 MiB as a whole.
_LIMIT_BYTES = 256 << 10
_SIGNS = {"conformant": "✅", "non-conformant": "❌", "incomplete": "⚠️"}


def render(run: Run) -> str:
    """Return the run as Markdown of at most 256 KiB; tables lose rows, and say so."""
    rows = 500
    while len((text := _render(run, rows)).encode()) > _LIMIT_BYTES and rows > 1:
        rows //= 2
    return text


def _render(run: Run, rows: int) -> str:
    tests = {test.node: test for test in run.tests}
    broken: dict[str, list[CheckRecord]] = {}
    for check in (check for test in run.tests for check in test.checks if not check.holds):
        broken.setdefault(check.requirement, []).append(check)
    failed = [entry for entry in run.requirements if entry.outcome in {"failed", "expected-failure"}]
    failed.sort(key=lambda entry: (entry.outcome != "failed", entry.level != "MUST"))
    missing = [entry for entry in run.requirements if entry.outcome in {"error", "could-not-run", "not-applicable"}]
    parts = [
        f"## {_SIGNS[run.verdict]} {run.verdict}: {run.observed_musts} of {run.musts} MUST observed",
        f"Run `{run.id}` of subject `{run.subject}`, {run.scope} scope, exit code {run.exit_code}"
        + (f", held to release {run.frozen.release}" if run.frozen else "")
        + (", **interrupted**" if run.interrupted else ""),
        _table(("outcome", "requirements"), [(name, str(count)) for name, count in run.counts.items()], rows),
        section(
            "Failed",
            ("ID", "", "requirement", "expected and observed"),
            (_failure(entry, tests, broken.get(entry.id, [])) for entry in failed),
            rows,
        ),
        _since(run, rows),
        section("Did not run, by kind", ("outcome", "kind", "requirements"), _absences(missing), rows),
        section("Did not run", ("ID", "", "outcome", "why"), map(_absence, missing), rows),
        section(
            "Known failures that were not looked at", ("entry",), ((cell(e),) for e in run.unused_expectations), rows
        ),
        section("Faults of the harness", ("where", "what"), ((f.where, cell(f.message)) for f in run.faults), rows),
        section(
            "Flaky",
            ("ID", "requirement", "attempts"),
            (_flake(entry, tests) for entry in run.requirements if entry.outcome == "flaky"),
            rows,
        ),
        section(
            "Agent and webhook", ("scenario", "program", "memory, most", "CPU", "threads", "files"), _use(run), rows
        ),
        section(
            "Features",
            ("feature", "profile", "declared", "found", "requirements by outcome"),
            _features(run),
            rows,
        ),
        section("Slowest", ("seconds", "test"), ((f"{t.seconds:.1f}", _code(t.node)) for t in _slowest(run)), rows),
        section("Made of", ("run", "verdict"), ((f"`{part.id}`", cell(part.line)) for part in run.parts), rows),
        _provisional(run),
    ]
    if again := next((test for test in run.tests if test.outcome in {"failed", "error"}), None):
        parts.append(f"Run one again: `{again.again}`")
    return "\n\n".join(part for part in parts if part) + "\n"


def _failure(
    requirement: RequirementRecord, tests: dict[str, TestRecord], checks: list[CheckRecord]
) -> tuple[str, ...]:
    mine = [tests[node] for node in requirement.tests]
    said = [f"expected {c.expected!r}, observed {c.observed!r}" for c in checks]
    said = said or [text for text in (gist(test.message) for test in mine) if text]
    known = " (known)" if requirement.outcome == "expected-failure" else ""
    return requirement.id, requirement.level, cell(requirement.sentence), cell("; ".join(said)) + known


def _flake(requirement: RequirementRecord, tests: dict[str, TestRecord]) -> tuple[str, ...]:
    attempts = "; ".join(", ".join(tests[node].attempts) for node in requirement.tests)
    return requirement.id, cell(requirement.sentence), attempts


def _since(run: Run, rows: int) -> str:
    if run.since is None:
        return ""
    title = f"Since {run.since.run}"
    changes = [
        (change.kind, change.id, change.level, f"{change.old or 'absent'} → {change.new or 'absent'}")
        for change in run.since.changes
    ]
    header = ("change", "ID", "", "outcome")
    return section(title, header, changes, rows) or f"### {title}\n\nNothing changed."


def _absences(missing: Iterable[RequirementRecord]) -> list[tuple[str, ...]]:
    kinds = Counter((entry.outcome, entry.reason.kind if entry.reason else "subject") for entry in missing)
    return [(outcome, kind, str(count)) for (outcome, kind), count in sorted(kinds.items())]


def _absence(requirement: RequirementRecord) -> tuple[str, ...]:
    why = f"{requirement.reason.kind}: {requirement.reason.detail}" if requirement.reason else "asked of other subjects"
    return requirement.id, requirement.level, requirement.outcome, cell(why)


def _slowest(run: Run) -> list[TestRecord]:
    return sorted((test for test in run.tests if test.seconds >= 1), key=lambda test: -test.seconds)[:10]


def _use(run: Run) -> list[tuple[str, ...]]:
    return [
        (
            _code(scenario.name),
            program,
            f"{use['rss_peak_mib']:.1f} MiB",
            f"{use['cpu_s']:.2f} s",
            f"{use['threads']:.0f}",
            f"{use['fds']:.0f}",
        )
        for scenario in run.scenarios
        for program, use in sorted(scenario.resources.items())
    ]


def _features(run: Run) -> list[tuple[str, ...]]:
    """Count outcomes by feature, when there are several: an entry's profile is the feature that it belongs to."""
    features: dict[str, Counter[str]] = {}
    for entry in run.requirements:
        if entry.outcome:
            features.setdefault(entry.profile, Counter())[entry.outcome] += 1
    told = {name: ", ".join(f"{n} {outcome}" for outcome, n in counts.items()) for name, counts in features.items()}
    lines = [(cell(name), *_feature(run.detected_features.get(name)), text) for name, text in sorted(told.items())]
    return lines if len(lines) > 1 else []


def _feature(known: FeatureRecord | None) -> tuple[str, str, str]:
    if known is None:
        return "", "", ""
    found = {True: "yes", False: "no", None: "not looked for"}[known.detected]
    evidence = f": {cell(known.evidence)}" if known.evidence else ""
    note = f" ({known.note})" if known.note else ""
    return known.rule, "yes" if known.declared else "no", f"{found}{note}{evidence}"


def _provisional(run: Run) -> str:
    areas: dict[str, list[str]] = {}
    for entry in run.requirements:
        if entry.status == "provisional":
            areas.setdefault(entry.area, []).append(entry.id)
    if not areas:
        return ""
    lines = [f"- {area}, {len(names)}: {', '.join(names)}" for area, names in sorted(areas.items())]
    count = sum(map(len, areas.values()))
    why = "no test decides them yet" if run.scope == "full" else "no test of this run decides them"
    return f"<details><summary>{count} provisional: {why}</summary>\n\n" + "\n".join(lines) + "\n\n</details>"


def section(title: str, header: tuple[str, ...], rows: Iterable[tuple[str, ...]], limit: int) -> str:
    """Return a headed table, or nothing when there are no rows."""
    listed = list(rows)
    return f"### {title}\n\n{_table(header, listed, limit)}" if listed else ""


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]], limit: int) -> str:
    lines = [header, ("---",) * len(header), *rows[:limit]]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return text if len(rows) <= limit else f"{text}\n\n… {len(rows) - limit} rows left out"


def _code(name: str) -> str:
    """Return a name as code in a table, where everything but a backtick and the end of a cell stands for itself."""
    text = _printable(name).replace("`", "'").replace("|", r"\|")
    return f"`{text}`"


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text).replace("::", ":\u200b:")


def cell(text: str) -> str:
    """Make any text harmless in a table: no markup, no line breaks, no workflow commands, no control characters."""
    escaped = re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", _printable(text))
    return escaped if len(escaped) <= 600 else f"{escaped[:600]}…"
