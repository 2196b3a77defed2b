"""The operator counts as installed once its webhook admits what scenarios apply."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from harness.external_secrets import NAMESPACE, _wait_until_it_admits
from harness.kube import ApiException


def test_operator_is_installed_once_its_webhook_admits_both_kinds() -> None:
    """The way to a webhook that is Ready may open between two objects: the store is refused, the ExternalSecret not."""
    refusals = iter(["ClusterSecretStore", "ClusterSecretStore", None, "ExternalSecret"])
    asked: list[list[str]] = []

    def apply(manifests: list[dict[str, Any]], namespace: str, *, dry_run: bool) -> None:
        assert (namespace, dry_run) == (NAMESPACE, True), "asking must leave nothing behind"
        asked.append([manifest["kind"] for manifest in manifests])
        if (refused := next(refusals, None)) is not None:
            raise ApiException(status=500, reason=f"failed calling webhook: {refused}: connection refused")

    kube: Any = SimpleNamespace(apply=apply)
    _wait_until_it_admits(kube)

    assert asked == [["ClusterSecretStore", "ExternalSecret"]] * 7
