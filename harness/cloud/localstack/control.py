"""The harness's client of the emulator's control route, and the values that go over it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from harness.errors import HarnessFault

__all__ = ["ClusterBinding", "Control", "NodeBinding"]


@dataclass(frozen=True, slots=True)
class ClusterBinding:
    """A running cluster and how the emulator, as EKS's control plane, reaches it."""

    name: str
    account: str
    region: str
    issuer: str
    endpoint: str
    """URL of the API server."""
    certificate_authority: str
    """PEM."""
    version: str
    """Kubernetes version, ``1.34``."""
    role_arn: str
    client_certificate: str = ""
    """Path of a PEM file that the emulator's process can read; empty when a token is used."""
    client_key: str = ""
    token_file: str = ""
    service_cidr: str = "10.96.0.0/16"
    vpc: Mapping[str, Any] = field(default_factory=dict[str, Any])
    addon_manifests: Sequence[Mapping[str, Any]] = ()
    """Kubernetes objects of add-on eks-pod-identity-agent; one is the DaemonSet of that name."""


@dataclass(frozen=True, slots=True)
class NodeBinding:
    """A node of a bound cluster and the instance it stands for."""

    name: str
    address: str
    """Address its requests to the metadata service come from."""
    instance_id: str
    role_arn: str
    cluster: str
    account: str
    region: str
    availability_zone: str


class Control:
    """The control route of one emulator."""

    def __init__(self, endpoint: str, token: str) -> None:
        """Keep address and secret; nothing is sent.

        Args:
            endpoint: URL of the emulator, such as ``http://10.86.0.2``.
            token: Bearer secret of the lab.
        """
        self._endpoint = endpoint.rstrip("/")
        self._token = token
        # Proxies of the environment have no business here.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ready(self) -> dict[str, Any]:
        """Return version and services of a process whose plugin is installed."""
        return self._call("GET", "ready")

    def register_cluster(self, binding: ClusterBinding) -> dict[str, Any]:
        """Bind a running cluster: EKS describes it, verifies its tokens, and publishes to it."""
        return self._call("POST", "clusters", asdict(binding))

    def remove_cluster(self, name: str, *, account: str, region: str) -> None:
        """Forget a cluster with its associations, add-ons and nodes."""
        self._call("DELETE", f"clusters/{name}", {"account": account, "region": region})

    def register_node(self, binding: NodeBinding) -> dict[str, Any]:
        """Serve instance metadata to a node; a second call for its address replaces the first."""
        return self._call("POST", "nodes", asdict(binding))

    def journal(self, since: int = 0) -> list[dict[str, Any]]:
        """Return records of all requests from number ``since`` on, oldest first (EMU-REC-COMPLETE)."""
        return self._call("GET", f"journal?since={since}")["entries"]

    def reset(self) -> None:
        """Return AWS to its first state; bound clusters and registered nodes stay (``emulator.md`` 11)."""
        self._call("POST", "reset")

    def set_marker(self, marker: str) -> None:
        """Have every secret key and session token that is minted from now on begin with a marker (HRN-SEC-02)."""
        self._call("POST", "marker", {"marker": marker})

    def issued(self) -> dict[str, str]:
        """Return secret → its class: what was minted, and the signatures of the tokens that pods showed."""
        return self._call("GET", "issued")["secrets"]

    def set_faults(self, *faults: Mapping[str, Any]) -> None:
        """Make chosen calls fail, wait or lose their connection; none: no more faults.

        Args:
            faults: Members of :class:`harness.cloud.faults.Fault`.
        """
        self._call("POST", "faults", {"faults": list(faults)})

    def simulate(
        self,
        principal: str,
        service: str,
        operation: str,
        parameters: Mapping[str, Any],
        *,
        region: str,
        tags: Mapping[str, str] | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Return what would be decided about a call, and why, without making it.

        Args:
            principal: ARN of a user, role, role session or root.
            service: As SDKs name it.
            operation: Its operation.
            parameters: The operation's members.
            region: Region that is called.
            tags: Session tags, for a role.
            context: Further condition keys of the call.
        """
        asked = {"principal": principal, "service": service, "operation": operation, "parameters": parameters}
        return self._call("POST", "simulate", {**asked, "region": region, "tags": tags or {}, "context": context or {}})

    def set_organization(
        self,
        account: str,
        organization: str,
        *,
        paths: Sequence[str] = (),
        scp: Sequence[Sequence[Mapping[str, Any]]] = (),
        rcp: Sequence[Sequence[Mapping[str, Any]]] = (),
    ) -> None:
        """Put an account into an organization, until a reset.

        Args:
            account: The account.
            organization: Its id, ``o-…``.
            paths: Where in it the account is.
            scp: Documents of service control policies, one list a level, root first; none limit nothing.
            rcp: Documents of resource control policies in the same way.
        """
        levels = {"scp": [list(level) for level in scp], "rcp": [list(level) for level in rcp]}
        self._call("POST", "organization", {"account": account, "id": organization, "paths": list(paths), **levels})

    def move_clock(self, seconds: float) -> None:
        """Set how far the emulator's time is ahead of the machine's."""
        self._call("POST", "clock", {"offset": seconds})

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310 - the scheme is the harness's own http
            f"{self._endpoint}/_podid/{path}",
            method=method,
            data=json.dumps(body).encode() if body is not None else None,
            headers={"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"},
        )
        try:
            with self._opener.open(request, timeout=60) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            raise HarnessFault(f"the AWS emulator refused {method} {path}: {error.code} {text}") from error
        except (OSError, ValueError) as error:
            raise HarnessFault(
                f"the AWS emulator at {self._endpoint} did not answer {method} {path}: {error}"
            ) from error
