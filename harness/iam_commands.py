"""``podid iam``: the policy engine by itself, for gates and other tools."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import typer

from harness.cloud.iam.json_lines import evaluate_lines
from harness.cloud.iam.lint import lint
from harness.iam_reference import IamReference

__all__ = ["app", "main"]

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def group() -> None:
    """Ask the policy engine, without a lab."""


@app.command()
def evaluate() -> None:
    """Decide requests: JSON lines in, JSON lines out (docs/iam.md). Exit code 3 when a line could not be read."""
    faults = 0
    for answer in evaluate_lines(sys.stdin.buffer):
        faults += answer.is_error
        # Flushed, so that a tool can ask and wait for the answer.
        print(json.dumps(answer.data), flush=True)
    raise typer.Exit(3 if faults else 0)


@app.command(name="lint")
def warn(files: list[str]) -> None:
    """Warn of what AWS stores without a word: leaky tags, NotPrincipal, actions and keys that AWS does not know.

    One line a warning. Exit code 3 when a file is no policy.
    """
    faults, reference = 0, IamReference()
    for name in files:
        try:
            text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
            for warning in lint(text, reference):
                print(f"{name}: {warning}")
        except (OSError, ValueError) as error:
            faults += 1
            print(f"podid: {name} is no policy: {error}", file=sys.stderr)
    raise typer.Exit(3 if faults else 0)


def main(arguments: Sequence[str]) -> NoReturn:
    """Run ``podid iam`` alone."""
    try:
        code = app(arguments, prog_name="podid iam", standalone_mode=False)
    except typer.TyperException as error:
        print(f"podid: {error.format_message()}\nsee: podid iam --help", file=sys.stderr)
        sys.exit(3)
    except (BrokenPipeError, KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    sys.exit(code or 0)
