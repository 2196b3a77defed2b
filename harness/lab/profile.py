"""Files that a person's ``kubectl`` and ``aws`` use to reach the lab; never the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from harness.pki import write_private

__all__ = [
    "ADMINISTRATORS",
    "Administrator",
    "write_aws_config",
    "write_kubeconfig",
]

ADMINISTRATORS = {"123456789012": "pod-identity-lab", "987654321098": "pod-identity-lab-target"}
"""Account → name of its profile; the first is the article's, the second its cross-account target."""

_BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


@dataclass(frozen=True, slots=True)
class Administrator:
    """An administrator of one account, made anew for each lab."""

    account: str
    access_key_id: str
    secret_access_key: str

    def __repr__(self) -> str:
        """Show no secret."""
        return f"Administrator({self.account}, {self.access_key_id})"


def write_kubeconfig(path: Path, kubeconfigs: Sequence[Path]) -> None:
    """Merge the clusters' kubeconfig files into one, whose current context is the first cluster's."""
    merged: dict[str, Any] = {"apiVersion": "v1", "kind": "Config", "clusters": [], "users": [], "contexts": []}
    documents = [yaml.safe_load(file.read_text()) for file in kubeconfigs]
    for document in documents:
        for part in ("clusters", "users", "contexts"):
            merged[part] += document[part]
    if documents:
        merged["current-context"] = documents[0]["current-context"]
    write_private(path, yaml.safe_dump(merged, sort_keys=False))


def write_aws_config(path: Path, administrators: Sequence[Administrator], *, endpoint: str, region: str) -> None:
    """Write an AWS configuration file with one profile per account, credentials and endpoint included."""
    sections = [
        f"""\
[profile {ADMINISTRATORS[administrator.account]}]
region = {region}
output = json
endpoint_url = {endpoint}
aws_access_key_id = {administrator.access_key_id}
aws_secret_access_key = {administrator.secret_access_key}
"""
        for administrator in administrators
    ]
    write_private(path, "\n".join(sections))
