"""``podid images``: what a lab is made of, whether it is here, and how it gets to a machine without network."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, cast

import typer

from harness.image_lock import LockedImage, read_lock
from harness.lab import Lab
from harness.lab.paths import cache_directory
from harness.lab.provider import ProviderName, chosen_provider, parse_request
from harness.lab.transfer import load, save, saved_by
from harness.progress import Progress

__all__ = ["app", "print_images"]

app = typer.Typer(no_args_is_help=True, help="Images of a lab: list, verify, carry to a machine without network.")

ProviderOption = Annotated[str, typer.Option("--provider", envvar="PODID_PROVIDER", help="auto, kind or native.")]


def print_images(provider: str, *, as_json: bool) -> None:
    """Print what a lab of a provider pulls, one reference with digest a line; as JSON, what it builds too.

    Args:
        provider: ``auto`` stands for both.
        as_json: Whether to print JSON.
    """
    requested = parse_request(provider)
    images = [image for image in read_lock().values() if requested in {"auto", *image.providers}]
    if as_json:
        print(json.dumps([image.as_data() for image in images], indent=1))
        return
    for image in images:
        if image.origin == "pull":
            print(image.reference)
    print("built here, from this checkout: " + _names(images), file=sys.stderr)


def _names(images: list[LockedImage]) -> str:
    return ", ".join(image.reference for image in images if image.origin == "build")


@app.command("list")
def list_images(
    provider: ProviderOption = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable, with what is built.")] = False,
) -> None:
    """Print what is pulled, one reference with digest a line."""
    print_images(provider, as_json=as_json)


@app.command()
def verify(provider: ProviderOption = "auto") -> None:
    """Say what a lab would pull, download or build. Exit code 2 when there is something."""
    name = chosen_provider(provider)
    missing = _lab().provider(name).missing()
    for part in missing:
        print(f"missing: {part}")
    if not missing:
        print(f"a {name} lab needs nothing from the network")
    raise typer.Exit(2 if missing else 0)


@app.command("save")
def save_images(directory: Annotated[Path, typer.Argument(help="Is made.")], provider: ProviderOption = "auto") -> None:
    """Write everything that a lab needs from elsewhere into a directory."""
    name = chosen_provider(provider)
    with Progress() as progress:
        save(directory.absolute(), _lab().provider(name), cache_directory(), progress)
    print(f"{directory} has what a {name} lab needs; on the other machine: podid images load {directory}")


@app.command("load")
def load_images(directory: Annotated[Path, typer.Argument(help="What podid images save wrote.")]) -> None:
    """Put what was saved where a lab looks for it; then --offline works."""
    name = cast("ProviderName", saved_by(directory))
    with Progress() as progress:
        load(directory.absolute(), _lab().provider(name), cache_directory(), progress)
    print(f"loaded; raise a lab with: podid up --provider {name} --offline")


def _lab() -> Lab:
    """Return a lab to ask its providers; it is not raised."""
    return Lab("podid")
