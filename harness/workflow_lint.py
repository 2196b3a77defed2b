"""Runs actionlint, of our building, on the workflows of this checkout: ``nox -s workflows``."""

from __future__ import annotations

import subprocess
import sys

from harness import binaries
from harness.errors import PodidError
from harness.lab.paths import CHECKOUT, cache_directory
from harness.progress import Progress


def main() -> int:
    """Return actionlint's exit code, or that of the error that kept it from running."""
    try:
        with Progress() as progress:
            program = binaries.ensure(cache_directory(), progress, [binaries.ACTIONLINT])["actionlint"]
    except PodidError as error:
        print(f"workflows: {error}", file=sys.stderr)
        return error.exit_code
    return subprocess.run([program], cwd=CHECKOUT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
