"""What the ``podid`` command runs first."""

from __future__ import annotations

import importlib
import sys
from typing import NoReturn

__all__ = ["main"]


def main() -> NoReturn:
    """Run ``podid``. The policy engine starts without the lab's libraries: they take seconds, and gates ask often."""
    if sys.argv[1:2] == ["iam"]:
        importlib.import_module("harness.iam_commands").main(sys.argv[2:])
    importlib.import_module("harness.cli").main()
    raise AssertionError
