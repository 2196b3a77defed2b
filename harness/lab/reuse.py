"""What a lab was made of, so that one that is up is used again only while that is what a new one would be made of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any, Literal, get_args

from harness import binaries, checkout
from harness.image_lock import read_lock
from harness.lab.given import GivenImage, Role
from harness.lab.paths import CHECKOUT

__all__ = ["Reuse", "differences", "makings"]

Reuse = Literal["checked", "force"]

_CONFIGURATION = ("kind-config.yaml", "fixtures/lab", "images.lock")

_KUBERNETES: Mapping[str, Callable[[], str]] = {
    "native": lambda: " and ".join(binaries.KUBERNETES.values()),
    "kind": lambda: read_lock()["node"].reference,
    "existing": lambda: "the cluster's own",
}


def makings(provider: str, given: Mapping[Role, GivenImage]) -> dict[str, str]:
    """Return what a lab that is raised now is made of: name → version or digest (HRN-CLN-06).

    Args:
        provider: What it stands on.
        given: Agent and webhook that run instead of ours.
    """
    ours = {role: checkout.sources(CHECKOUT) for role in get_args(Role)}
    subject = ours | {role: image.sha256[:12] for role, image in given.items()}
    return {
        "Kubernetes": _KUBERNETES[provider](),
        "configuration": _digest(),
        "subject": json.dumps(subject, sort_keys=True),
        "major version of the harness": metadata.version("podid").partition(".")[0],
    }


def differences(then: Mapping[str, Any], now: Mapping[str, str]) -> list[str]:
    """Return in what a lab is not what it would be now, a line each."""
    changed = [name for name in now if then.get(name) != now[name]]
    return [f"{name}: {then.get(name, 'not known')} → {now[name]}" for name in changed]


def _digest() -> str:
    digest = hashlib.sha256()
    for name in _CONFIGURATION:
        path = CHECKOUT / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                digest.update(f"{file.relative_to(CHECKOUT)}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
