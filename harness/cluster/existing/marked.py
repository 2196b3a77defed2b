"""Finds and removes what carries the mark of a run in a cluster; everything else there is somebody's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from harness import limits, wait
from harness.cluster.existing.changes import Edit, Thing
from harness.kube import Kube
from harness.tenancy import RUN_LABEL, Mark

__all__ = ["KEPT", "KINDS", "Found", "find_marked", "keepsake_name", "remove", "take_back"]

KEPT = "edits.json"

KINDS: Sequence[tuple[str, str, str]] = (
    # Admission first: nothing shall ask a webhook that is about to go. Namespaces take everything in them along.
    ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", "mutatingwebhookconfigurations"),
    ("apps/v1", "DaemonSet", "daemonsets"),
    ("apps/v1", "Deployment", "deployments"),
    ("v1", "Namespace", "namespaces"),
    ("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    ("v1", "Pod", "pods"),
    ("v1", "Service", "services"),
    ("v1", "Secret", "secrets"),
    ("v1", "ConfigMap", "configmaps"),
    ("v1", "ServiceAccount", "serviceaccounts"),
    ("coordination.k8s.io/v1", "Lease", "leases"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings"),
    ("rbac.authorization.k8s.io/v1", "Role", "roles"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings"),
    ("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles"),
)
"""In the order in which they are removed (HRN-EXT-12)."""


@dataclass(frozen=True, slots=True)
class Found:
    """A marked object."""

    thing: Thing
    run: str
    expires: datetime | None
    """None unless it has all four labels."""


def find_marked(kube: Kube, run: str = "") -> list[Found]:
    """Return the objects that carry a run's mark, in the order in which they are to be removed.

    What a controller made of another object, or what is in a namespace that is marked itself, goes with that.

    Args:
        kube: A client that may list them.
        run: The run; empty for every run.
    """
    selector = f"{RUN_LABEL}={run}" if run else RUN_LABEL
    found: list[Found] = []
    namespaces: set[str] = set()
    for api_version, kind, plural in (*KINDS[3:4], *KINDS):
        base = f"/api/{api_version}" if "/" not in api_version else f"/apis/{api_version}"
        for item in kube.items(f"{base}/{plural}", labelSelector=selector):
            metadata = item["metadata"]
            if kind == "Namespace":
                namespaces.add(metadata["name"])
            if metadata.get("ownerReferences") or metadata.get("namespace", "") in namespaces:
                continue
            thing = Thing(api_version, kind, metadata["name"], metadata.get("namespace", ""))
            labels: dict[str, str] = metadata["labels"]
            found.append(Found(thing, labels[RUN_LABEL], Mark.expiry_of(labels)))
    order = [kind for _, kind, _ in KINDS]
    unique = {one.thing: one for one in found}
    return sorted(unique.values(), key=lambda one: order.index(one.thing.kind))


def keepsake_name(run: str) -> str:
    """Return the name of the ConfigMap that keeps what a run edited."""
    return f"podid-{run}-edits"


def take_back(kube: Kube, found: Found) -> list[Edit]:
    """Take back what a run edited, if this is the object that keeps it; return what somebody has edited since."""
    thing = found.thing
    if (thing.kind, thing.name) != ("ConfigMap", keepsake_name(found.run)):
        return []
    kept = kube.read(thing.api_version, thing.kind, thing.name, thing.namespace)["data"][KEPT]
    edits = [Edit.from_data(entry) for entry in reversed(json.loads(kept))]
    return [edit for edit in edits if not edit.take_back(kube)]


def remove(kube: Kube, things: Sequence[Thing]) -> None:
    """Delete objects, and wait until namespaces among them are gone; what is not there any more is fine."""
    for thing in things:
        kube.delete(thing.as_manifest())
    names = {thing.name for thing in things if thing.kind == "Namespace"}
    wait.until(
        lambda: sorted(name for name in names if kube.exists("v1", "Namespace", name)),
        lambda left: not left,
        what="the namespaces of the run to go",
        timeout=limits.NAMESPACE_GONE,
    )
