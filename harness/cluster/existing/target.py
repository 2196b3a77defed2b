"""Which of a person's clusters is meant: a context that is named, of a kubeconfig that is only read.

The harness works on a copy with nothing but that context, so that neither the person's file nor its current context
is ever written (HRN-CLI-08).
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import tempfile
from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

import yaml

from harness.errors import MissingPrerequisite, UsageError
from harness.kube import Kube
from harness.pki import write_private

__all__ = ["Backend", "Target", "cluster_uid", "default_kubeconfig", "settle_target"]

Backend = Literal["emulator", "aws"]
"""Which AWS the cluster is used with: the lab's, or Amazon's (HRN-EXT-08)."""

_FILES = {
    "certificate-authority": "certificate-authority-data",
    "client-certificate": "client-certificate-data",
    "client-key": "client-key-data",
}


def default_kubeconfig() -> Path:
    """Return the file that ``kubectl`` would read; the first, where ``KUBECONFIG`` names several."""
    named = os.environ.get("KUBECONFIG", "").split(os.pathsep)[0]
    return Path(named) if named else Path.home() / ".kube" / "config"


@dataclass(frozen=True, slots=True)
class Target:
    """A cluster that somebody has, and what may be done with it."""

    kubeconfig: str
    context: str
    uid: str
    """UID of its namespace ``kube-system``, as the caller believes it to be."""
    allows_install: bool = False
    """Whether cluster-wide objects may be made and edited."""
    image_registry: str = ""
    """Where the cluster pulls the lab's images; empty if its nodes get them under the lab's own names."""
    aws_address: str = ""
    """Address of this machine at which the cluster's nodes reach AWS; empty for the one that leads to them."""
    backend: Backend = "emulator"
    aws_account: str = ""
    """Account of the cluster, as the caller believes it to be; with backend ``aws`` only, as what follows."""
    aws_region: str = ""
    eks_cluster: str = ""
    """Name that EKS knows the cluster by."""
    allows_static_keys: bool = False
    """Whether keys of AWS that have no end are taken."""

    @classmethod
    def read(cls, file: Path) -> Target | None:
        """Return what was written; None where there is no such file."""
        return cls(**json.loads(file.read_text())) if file.exists() else None

    def write(self, file: Path) -> None:
        """Write it down, for the processes that work on the same lab."""
        file.write_text(json.dumps(asdict(self)))

    def require_named(self) -> None:
        """Refuse a target that names no context: the current one is never used by default (HRN-EXT-01).

        Raises:
            UsageError: It names none.
        """
        if not self.context:
            raise UsageError(
                "--provider existing needs --context: the current context is never used by default",
                hint=f"the contexts of {self.kubeconfig}: {', '.join(self._contexts()) or 'none'}",
            )

    def _contexts(self) -> list[str]:
        with contextlib.suppress(OSError, yaml.YAMLError):
            return [entry["name"] for entry in self._document().get("contexts") or ()]
        return []

    def _document(self) -> dict[str, Any]:
        return yaml.safe_load(Path(self.kubeconfig).read_text()) or {}

    def write_copy(self, path: Path) -> None:
        """Write a kubeconfig with this context alone, files that it names inside.

        Raises:
            UsageError: There is no such file or context.
        """
        try:
            document = self._document()
        except (OSError, yaml.YAMLError) as error:
            raise UsageError(
                f"cannot read {self.kubeconfig}: {error}", hint="name a kubeconfig with: --kubeconfig FILE"
            ) from error
        context = _named(document, "contexts", self.context)
        if context is None:
            known = ", ".join(self._contexts()) or "none"
            raise UsageError(
                f"{self.kubeconfig} has no context {self.context!r}", hint=f"name one with --context: {known}"
            )
        entries = context["context"]
        cluster = _named(document, "clusters", entries.get("cluster"))
        user = _named(document, "users", entries.get("user"))
        if cluster is None or user is None:
            raise UsageError(
                f"context {self.context!r} of {self.kubeconfig} names a cluster or a user that is not there",
                hint="see: kubectl config view",
            )
        copy = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": self.context,
            "contexts": [context],
            "clusters": [{"name": cluster["name"], "cluster": self._inlined(cluster["cluster"])}],
            "users": [{"name": user["name"], "user": self._inlined(user["user"])}],
        }
        write_private(path, yaml.safe_dump(copy, sort_keys=False))

    def _inlined(self, members: dict[str, Any]) -> dict[str, Any]:
        found = dict(members)
        for name, data in _FILES.items():
            if file := found.pop(name, None):
                found[data] = base64.b64encode((Path(self.kubeconfig).parent / file).read_bytes()).decode()
        if file := found.get("tokenFile"):
            found["tokenFile"] = str((Path(self.kubeconfig).parent / file).absolute())
        return found

    @contextlib.contextmanager
    def connect(self) -> Generator[Kube]:
        """Yield a client before there is a lab that could keep the copy."""
        with tempfile.TemporaryDirectory(prefix="podid-") as directory:
            copy = Path(directory, "kubeconfig")
            self.write_copy(copy)
            with contextlib.closing(Kube(copy)) as kube:
                yield kube

    def options(self, uid: str) -> str:
        """Return the options that choose this cluster, to paste."""
        options = f"--provider existing --context {self.context} --cluster-uid {uid}"
        if self.backend == "emulator":
            return options
        account = f"--aws-account {self.aws_account} --aws-region {self.aws_region} --eks-cluster {self.eks_cluster}"
        return f"{options} --backend aws {account}"


def settle_target(file: Path, given: Target | None) -> Target:
    """Return which cluster is meant: the one that a lab is on, or the one that it shall be raised on.

    Args:
        file: Where the lab keeps it.
        given: What the caller named, if anything.

    Raises:
        UsageError: Nothing was named, or another one than the lab is on.
    """
    known = Target.read(file)
    if known and given and (known.context, known.uid, known.backend) != (given.context, given.uid, given.backend):
        raise UsageError(
            f"the lab is on context {known.context} of {known.kubeconfig}, cluster {known.uid}, with {known.backend}",
            hint="remove it with: podid down; or use another lab: set PODID_LAB",
        )
    if (found := known or given) is None:
        raise UsageError(
            "provider existing needs to know which cluster",
            hint="podid up --provider existing --context NAME --cluster-uid UID --allow-install",
        )
    return found


def cluster_uid(kube: Kube) -> str:
    """Return what tells this cluster from every other: the UID of its namespace ``kube-system``.

    Raises:
        MissingPrerequisite: There is none.
        HarnessFault: The API server does not answer, or does not allow to look.
    """
    namespace = kube.get("/api/v1/namespaces/kube-system")
    if namespace is None:
        raise MissingPrerequisite("the cluster has no namespace kube-system, which tells it from others")
    return str(namespace["metadata"]["uid"])


def _named(document: dict[str, Any], part: str, name: str | None) -> dict[str, Any] | None:
    entries = cast("list[dict[str, Any]]", document.get(part) or [])
    return next((entry for entry in entries if entry["name"] == name), None)
