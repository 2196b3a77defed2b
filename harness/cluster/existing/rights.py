"""What the harness must be allowed on somebody's cluster, asked for before anything is written (HRN-EXT-03)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from harness.kube import Kube

__all__ = ["NEEDED", "NEEDED_BY_SCENARIOS", "Right", "missing_rights"]

_SYSTEM = "kube-system"


@dataclass(frozen=True, slots=True)
class Right:
    """One verb on one resource, or on a path."""

    verb: str
    resource: str
    group: str = ""
    namespace: str = ""
    """Empty for all of them, and for what has none."""

    @property
    def is_path(self) -> bool:
        """Whether it is about no resource."""
        return self.resource.startswith("/")

    def __str__(self) -> str:
        """Name it as ``kubectl auth can-i`` does."""
        where = f" in {self.namespace}" if self.namespace else ""
        return f"{self.verb} {self.resource}{f'.{self.group}' if self.group else ''}{where}"


def _rights(verbs: str, resources: str, group: str = "", namespace: str = "") -> Iterator[Right]:
    for resource in resources.split():
        for verb in verbs.split():
            yield Right(verb, resource, group, namespace)


NEEDED_BY_SCENARIOS: Sequence[Right] = (
    # Namespaces of their own, and everything in them.
    *_rights("create delete get list", "namespaces"),
    *_rights("create delete get list watch patch", "pods"),
    *_rights("get", "pods/log pods/exec"),
    *_rights("create", "pods/exec"),
    *_rights("create delete get patch", "serviceaccounts configmaps secrets services"),
    *_rights("create delete get list patch", "deployments", "apps"),
    *_rights("get list", "nodes events"),
    *_rights("get", "daemonsets", "apps", _SYSTEM),
    # One run at a time on a cluster.
    *_rights("create get update patch delete", "leases", "coordination.k8s.io", _SYSTEM),
    *_rights("get", "/.well-known/openid-configuration /version"),
)
"""Of a run that installs nothing: on EKS, with Amazon's own webhook and agent."""

NEEDED: Sequence[Right] = (
    *NEEDED_BY_SCENARIOS,
    # With --allow-install: webhook, agent, EKS's hand in the cluster, and names of AWS.
    *_rights("create get patch delete", "mutatingwebhookconfigurations", "admissionregistration.k8s.io"),
    *_rights("create get patch delete", "clusterroles clusterrolebindings", "rbac.authorization.k8s.io"),
    *_rights("create get patch delete", "roles rolebindings", "rbac.authorization.k8s.io", _SYSTEM),
    *_rights("create get patch delete", "poddisruptionbudgets", "policy", _SYSTEM),
    *_rights("create", "serviceaccounts/token", "", _SYSTEM),
    *_rights("get update patch", "configmaps", "", _SYSTEM),
    *_rights("get update patch", "deployments", "apps", _SYSTEM),
    *_rights("create get patch delete", "daemonsets", "apps", _SYSTEM),
    *_rights("get", "/openid/v1/jwks"),
)


def missing_rights(kube: Kube, rights: Sequence[Right] = NEEDED) -> list[Right]:
    """Return which rights the caller lacks, as the cluster itself says; nothing is changed."""
    with ThreadPoolExecutor(8) as pool:
        allowed = list(pool.map(partial(_is_allowed, kube), rights))
    return [right for right, has in zip(rights, allowed, strict=True) if not has]


def _is_allowed(kube: Kube, right: Right) -> bool:
    if right.is_path:
        asked = {"nonResourceAttributes": {"path": right.resource, "verb": right.verb}}
    else:
        resource, _, subresource = right.resource.partition("/")
        attributes = {"verb": right.verb, "group": right.group, "resource": resource, "subresource": subresource}
        asked = {"resourceAttributes": attributes | {"namespace": right.namespace}}
    review = kube.authorization.create_self_subject_access_review({"spec": asked})
    return bool(review.status.allowed)
