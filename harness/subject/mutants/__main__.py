"""``python -m harness.subject.mutants NAME ARGUMENTS…``: start a mutant as its suite would start the original."""

from __future__ import annotations

import importlib
import sys

from harness.errors import UsageError
from harness.subject.mutants.catalogue import find

_PROGRAMS = {"agent": "podid_agent.cli", "webhook": "podid_webhook.main"}


def main() -> None:
    """Insert the fault, then run the program with the other arguments."""
    try:
        mutant = find(sys.argv.pop(1) if len(sys.argv) > 1 else "")
    except UsageError as error:
        sys.exit(str(error))
    mutant.insert()
    importlib.import_module(_PROGRAMS[mutant.suite]).main()


main()
