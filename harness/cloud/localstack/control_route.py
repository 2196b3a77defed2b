"""The control route, ``/_podid/*``: for the harness alone (``emulator.md`` section 12)."""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import fields
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs

from harness.cloud.documents import entries, is_mapping, members
from harness.cloud.eks import Cluster, ClusterError, Scope
from harness.cloud.faults import Fault
from harness.cloud.imds import ImdsNode
from harness.cloud.localstack import internals
from harness.cloud.localstack.emulator import Emulator
from harness.cloud.localstack.kubernetes import ApiAccess
from harness.cloud.localstack.load_balancing import snapshot
from harness.cloud.localstack.simulation import simulate
from harness.cloud.ports import NamedPolicy, Organization, Refusal
from harness.cloud.sigv4 import RawRequest

__all__ = ["ControlRoute"]

_CLUSTER = re.compile(r"clusters/(?P<name>[0-9A-Za-z][A-Za-z0-9_-]{0,99})")


class ControlRoute:
    """Answers whoever has the lab's bearer secret. No AWS credential opens it, and it opens no AWS call."""

    def __init__(self, emulator: Emulator) -> None:
        """Keep the emulator."""
        self._emulator = emulator

    def answer(self, raw: RawRequest, peer: str) -> tuple[int, str]:
        """Return status and JSON.

        Args:
            raw: The request.
            peer: Address it came from; the secret decides, not the address.
        """
        del peer
        bootstrap = self._emulator.bootstrap
        # The data plane's pod must not hold what opens everything.
        is_data_plane = (raw.method, raw.path) == ("POST", "/_podid/load-balancing")
        expected = f"Bearer {bootstrap.data_plane_token if is_data_plane else bootstrap.control_token}"
        given = next(iter(raw.header_values("authorization")), "")
        if not hmac.compare_digest(given.encode("latin-1", "replace"), expected.encode()):
            return 401, json.dumps({"message": "Unauthorized"})
        try:
            status, data = self._dispatch(raw)
        except Refusal as refusal:
            status, data = refusal.status, {"message": str(refusal)}
        except (ClusterError, KeyError, TypeError, ValueError) as error:
            status, data = 400, {"message": f"{type(error).__name__}: {error}"}
        return status, json.dumps(data)

    def _dispatch(self, raw: RawRequest) -> tuple[int, Mapping[str, Any]]:
        path = raw.path.removeprefix("/_podid/")
        data: Mapping[str, Any] = {}
        match raw.method, path:
            case "GET", _:
                return self._read(path, raw)
            case "POST", "clusters":
                data = {"arn": self._bind(_body(raw)).arn}
            case "POST", "nodes":
                data = {"address": self._add_node(_body(raw)).address}
            case "POST", "faults" | "organization":
                self._arrange(path, _body(raw))
            case "POST", "load-balancing" | "simulate":
                data = self._ask(path, _body(raw))
            case "POST", "reset":
                self._emulator.reset()
            case "POST", "marker":
                self._emulator.ids.marker = str(_body(raw)["marker"])
            case "POST", "clock":
                self._emulator.clock.offset = timedelta(seconds=float(_body(raw)["offset"]))
                data = {"now": self._emulator.clock.now().isoformat()}
            case "DELETE", _ if found := _CLUSTER.fullmatch(path):
                self._unbind(found["name"], _body(raw))
            case _:
                return 404, {"message": f"there is no {raw.method} {path}"}
        return 200, data

    def _ask(self, what: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        if what == "simulate":
            return simulate(self._emulator, body)
        self._emulator.targets.report(members(body.get("health")))
        return snapshot(self._emulator)

    def _arrange(self, what: str, body: Mapping[str, Any]) -> None:
        if what == "faults":
            self._emulator.faults.set([Fault.read(members(fault)) for fault in entries(body.get("faults"))])
        else:
            account, organization = _organization(body)
            self._emulator.iam.organizations[account] = organization

    def _read(self, path: str, raw: RawRequest) -> tuple[int, Mapping[str, Any]]:
        match path:
            case "ready":
                clusters = [cluster.name for cluster in self._emulator.eks.clusters.all()]
                return 200, {
                    "version": internals.version(),
                    "providers": internals.provider_names(),
                    "clusters": clusters,
                }
            case "journal":
                since = int(parse_qs(raw.query).get("since", ["0"])[0])
                return 200, {"entries": self._emulator.journal.since(since)}
            case "issued":
                return 200, {"secrets": self._emulator.issued()}
            case _:
                return 404, {"message": f"there is no GET {path}"}

    def _bind(self, data: Mapping[str, Any]) -> Cluster:
        access = ApiAccess(
            endpoint=data["endpoint"],
            certificate_authority=data["certificate_authority"],
            client_certificate=data.get("client_certificate", ""),
            client_key=data.get("client_key", ""),
            token_file=data.get("token_file", ""),
            addon_manifests=tuple(data.get("addon_manifests", ())),
        )
        cluster = Cluster(
            name=data["name"],
            scope=Scope(data["account"], data["region"]),
            issuer=data["issuer"],
            endpoint=data["endpoint"],
            certificate_authority=data["certificate_authority"],
            version=data["version"],
            created_at=self._emulator.clock.now(),
            role_arn=data["role_arn"],
            service_cidr=data.get("service_cidr", "10.96.0.0/16"),
            vpc=data.get("vpc") or {},
        )
        self._emulator.eks.clusters.bind(cluster)
        self._emulator.clusters.bind(cluster.arn, access)
        try:
            # At once, so that a cluster that cannot be reached is found out here and not by a pod; and admission begins
            # with exactly the associations that there are.
            self._emulator.clusters.jwks(cluster, is_fresh=True)
            kept = self._emulator.eks.associations.of_cluster(cluster)
            pairs = sorted((association.namespace, association.service_account) for association in kept)
            self._emulator.clusters.publish(cluster, pairs)
        except ClusterError:
            self._forget(cluster)
            raise
        return cluster

    def _unbind(self, name: str, data: Mapping[str, Any]) -> None:
        cluster = self._emulator.eks.clusters.get(Scope(data["account"], data["region"]), name)
        self._forget(cluster)
        for address in [address for address, node in self._emulator.nodes.items() if node.cluster == name]:
            del self._emulator.nodes[address]

    def _forget(self, cluster: Cluster) -> None:
        self._emulator.eks.remove_cluster(cluster)
        self._emulator.clusters.unbind(cluster.arn)

    def _add_node(self, data: Mapping[str, Any]) -> ImdsNode:
        known = {field.name for field in fields(ImdsNode)}
        node = ImdsNode(**{name: value for name, value in data.items() if name in known})
        self._emulator.nodes[node.address] = node
        return node


def _organization(data: Mapping[str, Any]) -> tuple[str, Organization]:
    def levels(kind: str) -> tuple[tuple[NamedPolicy, ...], ...]:
        return tuple(
            tuple(
                NamedPolicy(f"{kind}:{depth}.{number}", json.dumps(document))
                for number, document in enumerate(entries(level))
            )
            for depth, level in enumerate(entries(data.get(kind)))
        )

    paths = tuple(str(path) for path in entries(data.get("paths")))
    return str(data["account"]), Organization(str(data["id"]), paths, levels("scp"), levels("rcp"))


def _body(raw: RawRequest) -> Mapping[str, Any]:
    data = json.loads(raw.body or b"{}")
    if not is_mapping(data):
        raise ValueError("the body must be a JSON object")
    return members(data)
