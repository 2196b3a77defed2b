"""Manners on a cluster that is somebody else's: what a run makes carries its mark, and what does not is left alone.

One place sees every call of the harness's client: objects get labels, images and trust on their way to the API server,
and a change of an object that is not this run's never leaves (HRN-EXT-04, HRN-EXT-09).
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast
from urllib.parse import urlsplit

from harness.errors import MissingPrerequisite
from harness.kube_client import LimitedClient

__all__ = ["RUN_LABEL", "TRUST", "Mark", "Tenancy", "TenantClient", "full_name"]

Manifest = dict[str, Any]

RUN_LABEL = "podid.dev/run"
TRUST = "podid-lab-trust"
"""Name of the ConfigMap with what pods trust, and of its volume."""
_BUNDLE = "ca-certificates.crt"
_BUNDLE_PATHS = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
_INSTANT = "%Y%m%dT%H%M%SZ"
"""A colon has no place in a label's value."""
_OF_NAMESPACES = {"status", "finalize"}
_APPLY = "application/apply-patch+yaml"


def full_name(reference: str) -> str:
    """Return an image's reference with registry and tag, without its digest."""
    name, _, _ = reference.partition("@")
    first, _, rest = name.partition("/")
    if not rest:
        name = f"docker.io/library/{name}"
    elif not ("." in first or ":" in first or first == "localhost"):
        name = f"docker.io/{name}"
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


@dataclass(frozen=True, slots=True)
class Mark:
    """Who made something, and until when it may stay."""

    run: str
    """Six hexadecimal digits."""
    owner: str
    repo: str
    expires: datetime

    @property
    def labels(self) -> dict[str, str]:
        """The four labels of an object in a cluster."""
        values = {"run": self.run, "owner": self.owner, "repo": self.repo}
        labels = {f"podid.dev/{name}": _label_value(value) for name, value in values.items()}
        return labels | {"podid.dev/expires": self.expires.astimezone(UTC).strftime(_INSTANT)}

    @property
    def tags(self) -> dict[str, str]:
        """The four tags of a resource of AWS."""
        expires = self.expires.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {
            "podid:run": self.run,
            "podid:owner": self.owner,
            "podid:repo": self.repo,
            "podid:expires": expires,
        }

    @staticmethod
    def expiry_of(labels: Mapping[str, str]) -> datetime | None:
        """Return when an object with these labels expires; None unless it has all four."""
        if not {f"podid.dev/{name}" for name in ("run", "owner", "repo", "expires")} <= labels.keys():
            return None
        try:
            return datetime.strptime(labels["podid.dev/expires"], _INSTANT).replace(tzinfo=UTC)
        except ValueError:
            return None


def _label_value(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", ".", text)[:63].strip("_.-")


@dataclass(frozen=True, slots=True)
class Tenancy:
    """What the harness does to its own objects on somebody else's cluster."""

    mark: Mark
    images: Mapping[str, str]
    """Full name of an image of the lab → the reference under which this cluster gets it."""
    trust_bundle: str
    """PEM of all CAs that the lab's pods trust; empty where AWS is Amazon's, which everybody trusts."""

    @property
    def selector(self) -> str:
        """Label selector of what is this run's."""
        return f"{RUN_LABEL}={self.mark.run}"

    def owns(self, labels: Mapping[str, str]) -> bool:
        """Tell whether an object with these labels is this run's."""
        return labels.get(RUN_LABEL) == self.mark.run

    def adapted(self, manifest: Manifest) -> Manifest:
        """Return an object with the run's labels, and its pods with images and trust of this cluster."""
        made = copy.deepcopy(manifest)
        made.setdefault("metadata", {}).setdefault("labels", {}).update(self.mark.labels)
        spec: Manifest = made.get("spec") or {}
        templates: list[Manifest] = [spec.get("template") or {}]
        templates.append(spec.get("jobTemplate", {}).get("spec", {}).get("template") or {})
        for template in templates:
            if "containers" in (template.get("spec") or {}):
                template.setdefault("metadata", {}).setdefault("labels", {}).update(self.mark.labels)
                self._adapt_pod(template["spec"])
        if "containers" in spec:
            self._adapt_pod(spec)
        return made

    def _adapt_pod(self, pod: Manifest) -> None:
        if not self.trust_bundle or any(volume["name"] == TRUST for volume in pod.get("volumes") or ()):
            return
        pod["volumes"] = [*(pod.get("volumes") or ()), {"name": TRUST, "configMap": {"name": TRUST}}]
        for container in [*(pod.get("initContainers") or ()), *pod["containers"]]:
            container["volumeMounts"] = [
                *(container.get("volumeMounts") or ()),
                *({"name": TRUST, "mountPath": path, "subPath": _BUNDLE, "readOnly": True} for path in _BUNDLE_PATHS),
            ]
            if replacement := self.images.get(full_name(container["image"])):
                if replacement != full_name(container["image"]):
                    container["image"] = replacement
                # The guide's :latest asks for a pull each time, and would get somebody else's where it was loaded.
                container.setdefault("imagePullPolicy", "IfNotPresent")

    def trust(self, namespace: str) -> Manifest:
        """Return what pods of a namespace need to trust the lab's AWS."""
        metadata = {"name": TRUST, "namespace": namespace, "labels": self.mark.labels}
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata,
            "data": {_BUNDLE: self.trust_bundle},
        }


@dataclass(frozen=True, slots=True)
class _Place:
    """What a path of the API is about."""

    base: str
    """The path up to the object's name."""
    namespace: str
    resource: str
    name: str
    subresource: str

    @classmethod
    def of(cls, path: str) -> _Place | None:
        """Read a path; None for one that is about no resource."""
        parts = path.strip("/").split("/")
        head = parts[: 2 if parts[0] == "api" else 3]
        rest, namespace = parts[len(head) :], ""
        if parts[0] not in {"api", "apis"} or not rest:
            return None
        if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in _OF_NAMESPACES:
            namespace, rest = rest[1], rest[2:]
            head += ["namespaces", namespace]
        name, subresource = [*rest[1:3], "", ""][:2]
        return cls("/" + "/".join([*head, rest[0]]), namespace, rest[0], name, subresource)

    @property
    def path(self) -> str:
        """Path of the object itself."""
        return f"{self.base}/{self.name}"

    def __str__(self) -> str:
        """Name it as messages do."""
        return f"{self.resource} {f'{self.namespace}/' if self.namespace else ''}{self.name or '(all of them)'}"


class TenantClient(LimitedClient):
    """A client of the Kubernetes API that keeps to a tenancy."""

    def __init__(self, configuration: Any, tenancy: Tenancy) -> None:
        """Keep the tenancy; nothing is sent."""
        cast("Any", super()).__init__(configuration=configuration)
        self._tenancy = tenancy
        self._own_namespaces: set[str] = set()

    def call_api(
        self,
        method: str,
        url: str,
        header_params: Any = None,
        body: Any = None,
        post_params: Any = None,
        _request_timeout: Any = None,
    ) -> Any:
        """Send a request, unless it would change what is not this run's.

        Raises:
            MissingPrerequisite: It would.
        """
        place = _Place.of(urlsplit(url).path) if method != "GET" else None
        if place:
            # What is created anywhere is new, and gets our label; everything else may be somebody's.
            if method != "POST" or place.name:
                self._require_own(place)
            headers: Mapping[str, str] = header_params or {}
            is_whole = method in {"POST", "PUT"} or headers.get("Content-Type") == _APPLY
            if is_whole and not place.subresource and isinstance(body, dict):
                body = self._tenancy.adapted(cast("Manifest", body))
        send: Any = cast("Any", super()).call_api
        response: Any = send(method, url, header_params, body, post_params, _request_timeout)
        if place and place.resource == "namespaces" and method in {"POST", "PATCH"} and response.status < 300:
            self._give_trust(place.name or body["metadata"]["name"])
        return response

    def _require_own(self, place: _Place) -> None:
        if place.namespace and self._is_own_namespace(place.namespace):
            return
        nobodys: Mapping[str, str] = {}
        found = self._labels(place.path) if place.name else nobodys
        # What is not there yet becomes this run's.
        if found is None or self._tenancy.owns(found):
            return
        raise MissingPrerequisite(
            f"{place} is not this run's: it has no label {self._tenancy.selector}, and this cluster is somebody else's",
            hint="run this scenario on a lab's own cluster; what an earlier run left is removed by: podid sweep",
            kind="environment",
        )

    def _is_own_namespace(self, name: str) -> bool:
        if name not in self._own_namespaces and self._tenancy.owns(self._labels(f"/api/v1/namespaces/{name}") or {}):
            self._own_namespaces.add(name)
        return name in self._own_namespaces

    def _labels(self, path: str) -> Mapping[str, str] | None:
        """Return an object's labels, None where there is none."""
        answer = self._send("GET", path)
        return answer["metadata"].get("labels") or {} if answer is not None else None

    def _give_trust(self, namespace: str) -> None:
        if self._tenancy.trust_bundle:
            self._send("POST", f"/api/v1/namespaces/{namespace}/configmaps", self._tenancy.trust(namespace))

    def _send(self, method: str, path: str, body: Manifest | None = None) -> Manifest | None:
        """Call the API about the tenancy itself."""
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        base: Any = super()
        request = base.param_serialize(method, path, header_params=headers, body=body, auth_settings=["BearerToken"])
        response = base.call_api(*request, _request_timeout=30)
        response.read()
        if response.status == 404:
            return None
        if response.status >= 300 and response.status != 409:
            base.response_deserialize(response, {})
        return json.loads(response.data)
