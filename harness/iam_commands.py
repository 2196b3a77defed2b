"""``podid iam``: the policy engine by itself, for gates and other tools, and what it decides in a lab."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from harness.cloud.iam.json_lines import evaluate_lines
from harness.cloud.iam.lint import lint
from harness.errors import PodidError
from harness.iam_reference import IamReference

__all__ = ["app", "main"]

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def group() -> None:
    """Ask the policy engine: without a lab, or about one that runs."""


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


@app.command()
def simulate(
    principal: Annotated[str, typer.Argument(help="ARN of a user, role, role session or root.")],
    call: Annotated[str, typer.Argument(help="As SDKs name it: s3:GetObject, elbv2:CreateRule.")],
    *,
    parameters: Annotated[str, typer.Option("--with", help="The call's parameters, as JSON.")] = "{}",
    tags: Annotated[list[str] | None, typer.Option("--tag", help="Session tag of a role, key=value.")] = None,
    context: Annotated[list[str] | None, typer.Option("--context", help="Further condition key, key=value.")] = None,
    region: Annotated[str, typer.Option("--region", help="Region that is called.")] = "eu-west-1",
    lab: Annotated[str, typer.Option("--lab", envvar="PODID_LAB", help="The lab to ask.")] = "podid",
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Say what a running lab would decide about a call, and which policy, statement and condition make it so.

    Nothing is called. Exit code 1 for a denial.
    """
    simulation = _simulation()
    answer: dict[str, Any] = simulation.simulate(
        lab, principal, call, parameters, tags=tags or [], context=context or [], region=region
    )
    for line in [json.dumps(answer, indent=1)] if as_json else simulation.in_words(answer):
        print(line)
    raise typer.Exit(0 if answer["allowed"] else 1)


@app.command()
def decode(
    message: str,
    *,
    lab: Annotated[str, typer.Option("--lab", envvar="PODID_LAB", help="The lab that denied.")] = "podid",
) -> None:
    """Decode the encoded authorization message of a denial by EC2."""
    print(_simulation().decode(lab, message))


def _simulation() -> Any:
    # Not imported before it is needed: the engine alone starts in a tenth of the time.
    return importlib.import_module("harness.iam_simulation")


def main(arguments: Sequence[str]) -> NoReturn:
    """Run ``podid iam`` alone."""
    try:
        code = app(arguments, prog_name="podid iam", standalone_mode=False)
    except typer.TyperException as error:
        print(f"podid: {error.format_message()}\nsee: podid iam --help", file=sys.stderr)
        sys.exit(3)
    except PodidError as error:
        print(f"podid: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (BrokenPipeError, KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    sys.exit(code or 0)
