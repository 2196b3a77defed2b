"""Which requirements are asked for: ``--only`` with IDs or globs, and ``--level``."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase

from harness.conformance.ledger import Ledger, Level
from harness.errors import UsageError

__all__ = ["select"]


def select(ledger: Ledger, only: Sequence[str], levels: Sequence[Level]) -> set[str]:
    """Return the IDs that are asked for; without arguments, all.

    Args:
        ledger: All requirements.
        only: IDs or globs such as ``AGT-2*``; one with a leading ``!`` takes away.
        levels: Levels to keep; empty keeps all.

    Raises:
        UsageError: A pattern matches nothing.
    """
    wanted = [pattern for pattern in only if not pattern.startswith("!")]
    selected = set[str]().union(*(_matches(ledger, pattern) for pattern in wanted)) if wanted else set(ledger)
    for pattern in only:
        if pattern.startswith("!"):
            selected -= _matches(ledger, pattern[1:])
    return {name for name in selected if not levels or ledger[name].level in levels}


def _matches(ledger: Ledger, pattern: str) -> set[str]:
    found = {name for name in ledger if fnmatchcase(name, pattern)}
    if not found:
        nearest = difflib.get_close_matches(pattern, list(ledger), n=3)
        hint = f"did you mean {', '.join(nearest)}?" if nearest else "see: podid list"
        raise UsageError(f"no requirement matches {pattern!r}", hint=hint)
    return found
