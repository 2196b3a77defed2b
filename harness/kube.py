"""A typed door to the Kubernetes API: apply manifests, run pods, execute commands, wait."""

from __future__ import annotations

import base64
import contextlib
import json
import re
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import kubernetes
import kubernetes.dynamic
import kubernetes.stream
import kubernetes.stream.ws_client
import urllib3.exceptions
import yaml

from harness import limits, wait
from harness.cluster.base import Completed
from harness.errors import HarnessFault
from harness.kube_client import LimitedClient
from harness.limits import Limit
from harness.tenancy import Tenancy, TenantClient

__all__ = ["ApiException", "Kube", "Manifest", "Pod", "load_manifests", "pod_manifest"]

Manifest = dict[str, Any]
ApiException = kubernetes.client.ApiException

_FIELD_MANAGER = "podid"

_STATUS_CHANNEL = kubernetes.stream.ws_client.ERROR_CHANNEL
_LAST_WORDS = 500
_FOUND_READY = re.compile(
    r'^prober_probe_total\{.*pod_uid="([^"]+)",probe_type="Readiness",result="successful"', re.MULTILINE
)
"""Characters of what a command said that did not end."""
_EXEC_PROTOCOL = kubernetes.stream.ws_client.V4_CHANNEL_PROTOCOL
"""Not v5, which the API server translates to SPDY: there it takes a status that got lost for success
(kubernetes/kubectl#1726). On a busy machine that met commands which ended about 5 s after they began, when it pings."""


def load_manifests(path: Path, replacements: Mapping[str, str] | None = None) -> list[Manifest]:
    """Read a YAML file of one or more objects.

    Args:
        path: The file.
        replacements: Words to replace in the text before parsing.
    """
    text = path.read_text()
    for word, value in (replacements or {}).items():
        text = text.replace(word, value)
    return [manifest for manifest in yaml.safe_load_all(text) if manifest]


class Kube:
    """A client for one cluster, by its kubeconfig."""

    def __init__(self, kubeconfig: Path, context: str | None = None, tenancy: Tenancy | None = None) -> None:
        """Read the kubeconfig; the API server is not asked yet.

        Args:
            kubeconfig: The file.
            context: Its context; None for the current one.
            tenancy: What to keep to on a cluster that is somebody else's.
        """
        configuration = cast("Any", kubernetes.config).new_client_from_config(str(kubeconfig), context).configuration
        self._api: Any = TenantClient(configuration, tenancy) if tenancy else LimitedClient(configuration)
        self._discovery_cache = kubeconfig.with_name("discovery.json")
        self.core: Any = kubernetes.client.CoreV1Api(self._api)
        self.apps: Any = kubernetes.client.AppsV1Api(self._api)
        self.networking: Any = kubernetes.client.NetworkingV1Api(self._api)
        self.coordination: Any = kubernetes.client.CoordinationV1Api(self._api)
        self.authorization: Any = kubernetes.client.AuthorizationV1Api(self._api)
        self._dynamic: Any = None
        self._left: set[str] = set()

    def close(self) -> None:
        """Close the client's connections."""
        self._api.rest_client.pool_manager.clear()

    def streaming_core(self) -> Any:
        """Return the core API for one stream: opening it changes for all threads how that API's client sends."""
        return kubernetes.client.CoreV1Api(kubernetes.client.ApiClient(self._api.configuration))

    def is_ready(self) -> bool:
        """Tell whether the API server says that it is ready; one that does not listen yet is not."""
        try:
            address = f"{self._api.configuration.host}/readyz"
            response: Any = self._api.rest_client.request(
                "GET", address, _request_timeout=limits.API_READY.allowed * wait.scale()
            )
            # Only a connection that was read to its end is closed with the client.
            response.read()
        except (OSError, urllib3.exceptions.HTTPError):
            return False
        return response.status == 200

    def get(self, path: str, **query: str) -> Manifest | None:
        """Return what the API has at a path, field names as in the API; None if there is nothing.

        Args:
            path: Such as ``/api/v1/namespaces/demo/pods/s3-test``.
            query: Parameters such as ``labelSelector``.

        Raises:
            HarnessFault: The API server does not answer, or does not allow it.
        """
        try:
            response = self._ask(path, query, "application/json", limits.API_LOOK)
        except (OSError, urllib3.exceptions.HTTPError, ApiException) as error:
            raise HarnessFault(
                f"the API server at {self._api.configuration.host} did not answer GET {path}: {error}"
            ) from error
        content = response.read()
        if response.status == 404:
            return None
        if response.status != 200:
            raise HarnessFault(
                f"the API server refused GET {path}: {response.status} {content.decode(errors='replace')[:500]}",
                hint="whoever looks needs to be allowed to get and list; see: kubectl auth can-i --list",
            )
        return json.loads(content)

    def _ask(self, path: str, query: Mapping[str, str], accept: str, limit: Limit = limits.API_CALL) -> Any:
        serialized = self._api.param_serialize(
            "GET",
            path,
            query_params=list(query.items()),
            header_params={"Accept": accept},
            auth_settings=["BearerToken"],
        )
        return self._api.call_api(*serialized, _request_timeout=limit.allowed * wait.scale())

    def items(self, path: str, **query: str) -> list[Manifest]:
        """Return what the API lists at a path; nothing where there is no such API."""
        return (self.get(path, **query) or {"items": []})["items"]

    def apply(self, manifests: Iterable[Manifest], namespace: str | None = None, *, dry_run: bool = False) -> None:
        """Apply objects server-side, in order.

        Args:
            manifests: The objects.
            namespace: For objects that name none.
            dry_run: Ask admission only; nothing is changed.

        Raises:
            ApiException: One is refused.
        """
        for manifest in manifests:
            metadata = manifest["metadata"]
            self._resource(manifest).server_side_apply(
                body=manifest,
                name=metadata["name"],
                namespace=metadata.get("namespace", namespace),
                field_manager=_FIELD_MANAGER,
                force_conflicts=True,
                dry_run="All" if dry_run else None,
            )

    def replace(self, manifest: Manifest) -> None:
        """Put an object in the place of the one that is there."""
        metadata = manifest["metadata"]
        self._resource(manifest).replace(
            body=manifest, name=metadata["name"], namespace=metadata.get("namespace"), field_manager=_FIELD_MANAGER
        )

    def delete(self, manifest: Manifest, namespace: str | None = None) -> bool:
        """Delete the object that a manifest describes; return whether it was there."""
        metadata = manifest["metadata"]
        place = metadata.get("namespace", namespace)
        return _exists(lambda: self._resource(manifest).delete(name=metadata["name"], namespace=place))

    def _resource(self, manifest: Manifest) -> Any:
        if self._dynamic is None:
            self._dynamic = kubernetes.dynamic.DynamicClient(self._api, cache_file=str(self._discovery_cache))
        return self._dynamic.resources.get(api_version=manifest["apiVersion"], kind=manifest["kind"])

    def read(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> Manifest:
        """Return an object as JSON, field names as in the API."""
        return self._resource({"apiVersion": api_version, "kind": kind}).get(name=name, namespace=namespace).to_dict()

    def read_all(self, api_version: str, kind: str, namespace: str | None = None) -> list[Manifest]:
        """Return all objects of a kind, of a namespace if it is given."""
        found = self._resource({"apiVersion": api_version, "kind": kind}).get(namespace=namespace)
        return found.to_dict()["items"]

    def exists(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> bool:
        """Tell whether an object is there."""
        return _exists(lambda: self.read(api_version, kind, name, namespace))

    def merge(self, api_version: str, kind: str, name: str, change: Manifest, namespace: str | None = None) -> None:
        """Change members of an object as ``kubectl patch --type=merge`` does."""
        self._resource({"apiVersion": api_version, "kind": kind}).patch(
            name=name, namespace=namespace, body=change, content_type="application/merge-patch+json"
        )

    def events(self, kind: str, name: str) -> list[Manifest]:
        """Return the events about an object; those of a cluster-wide one are kept in ``default``."""
        selector = f"involvedObject.kind={kind},involvedObject.name={name}"
        response = self.core.list_event_for_all_namespaces(field_selector=selector, _preload_content=False)
        return json.loads(response.data)["items"]

    @contextlib.contextmanager
    def namespace(self, name: str) -> Generator[str]:
        """Create a namespace in which pods can be created; delete it with everything in it at the end.

        The end does not wait until it is gone, which takes the cluster five seconds; the next use of the name does.
        """
        if self._delete_namespace(name):
            self._wait_until_gone(name)
        self.core.create_namespace({"metadata": {"name": name}})
        self._left.discard(name)
        try:
            self.wait_until_usable(name)
            yield name
        finally:
            self._delete_namespace(name)
            self._left.add(name)

    def wait_until_left_namespaces_are_gone(self) -> None:
        """Wait for the namespaces whose use has ended: until they are gone their pods run on, and call AWS."""
        while self._left:
            self._wait_until_gone(self._left.pop())

    def _wait_until_gone(self, name: str) -> None:
        wait.until(
            lambda: not _exists(lambda: self.core.read_namespace(name)),
            what=f"namespace {name} to go",
            timeout=limits.NAMESPACE_GONE,
        )

    def _delete_namespace(self, name: str) -> bool:
        return _exists(lambda: self.core.delete_namespace(name))

    def wait_until_usable(self, namespace: str) -> None:
        """Wait until pods can be created in a namespace: its default account and its root certificates are there."""
        wait.until(
            lambda: (
                _exists(lambda: self.core.read_namespaced_service_account("default", namespace))
                and _exists(lambda: self.core.read_namespaced_config_map("kube-root-ca.crt", namespace))
            ),
            what=f"namespace {namespace} to be usable",
            timeout=limits.OBJECT_READY,
        )

    def create_service_account(self, name: str, namespace: str, annotations: Mapping[str, str] | None = None) -> None:
        """Create a ServiceAccount as ``kubectl create serviceaccount`` does, or one with annotations."""
        metadata = {"name": name, "annotations": dict(annotations or {})}
        self.core.create_namespaced_service_account(namespace, {"metadata": metadata})

    def token(self, service_account: str, namespace: str, audience: str) -> str:
        """Return a new token of a ServiceAccount, as ``kubectl create token`` does."""
        request = {"spec": {"audiences": [audience], "expirationSeconds": 600}}
        answer = self.core.create_namespaced_service_account_token(service_account, namespace, request)
        return str(answer.status.token)

    def sign_client_request(self, name: str, request: str) -> str:
        """Have the cluster sign a client certificate, and return it.

        Args:
            name: Name of the CertificateSigningRequest, which is removed again.
            request: The request, PEM; its common name becomes the user.

        Raises:
            harness.wait.Timeout: The cluster did not sign it.
        """
        api: Any = kubernetes.client.CertificatesV1Api(self._api)
        with contextlib.suppress(ApiException):
            api.delete_certificate_signing_request(name)
        spec = {
            "request": base64.b64encode(request.encode()).decode(),
            "signerName": "kubernetes.io/kube-apiserver-client",
            "usages": ["client auth"],
        }
        created: Any = api.create_certificate_signing_request({"metadata": {"name": name}, "spec": spec})
        condition = {"type": "Approved", "status": "True", "reason": "Podid", "message": "the lab's EKS control plane"}
        api.patch_certificate_signing_request_approval(name, {"status": {"conditions": [condition]}})
        encoded = wait.until(
            lambda: api.read_certificate_signing_request(name).status.certificate or "",
            what=f"the cluster to sign {created.metadata.name}",
            timeout=limits.OBJECT_READY,
        )
        api.delete_certificate_signing_request(name)
        return base64.b64decode(encoded).decode()

    def wait_until_deployed(self, kind: str, name: str, namespace: str, timeout: Limit = limits.ROLLOUT) -> None:
        """Wait until all pods of a Deployment or DaemonSet are up to date and ready."""
        read = self.apps.read_namespaced_deployment if kind == "Deployment" else self.apps.read_namespaced_daemon_set
        wait.until(
            lambda: _rollout(read(name, namespace)),
            lambda state: state.is_complete,
            what=f"{kind} {namespace}/{name} to be rolled out",
            timeout=timeout,
            hint=f"see: kubectl --namespace {namespace} describe {kind.lower()},pod",
        )

    def image_of(self, kind: str, name: str, namespace: str) -> str:
        """Return the image of the first container of a Deployment or DaemonSet."""
        return self.read("apps/v1", kind, name, namespace)["spec"]["template"]["spec"]["containers"][0]["image"]

    def set_image(self, kind: str, name: str, namespace: str, image: str) -> None:
        """``kubectl set image … '*=IMAGE'`` of a Deployment or DaemonSet; does not wait."""
        template = self.read("apps/v1", kind, name, namespace)["spec"]["template"]["spec"]
        spec = {
            group: [{"name": container["name"], "image": image} for container in template[group]]
            for group in ("initContainers", "containers")
            if template.get(group)
        }
        patch = self.apps.patch_namespaced_daemon_set if kind == "DaemonSet" else self.apps.patch_namespaced_deployment
        patch(name, namespace, {"spec": {"template": {"spec": spec}}})

    def wait_until_nodes_are_ready(self, names: Sequence[str]) -> None:
        """Wait until these nodes are there and take pods."""
        wait.until(
            lambda: sorted(set(names) - {node.metadata.name for node in self.core.list_node().items if _takes(node)}),
            lambda missing: not missing,
            what=f"nodes {', '.join(names)} to be ready",
            timeout=limits.NODE_READY,
            hint="see: kubectl describe node",
        )

    def forget_nodes(self, names: Sequence[str]) -> None:
        """Delete nodes that are gone; an API server that does not answer is left with them."""
        for name in names:
            with contextlib.suppress(ApiException, urllib3.exceptions.HTTPError):
                self.core.delete_node(name)

    def ready_pods(self) -> frozenset[str]:
        """Return the UIDs of the pods that are ready."""
        return frozenset(pod["metadata"]["uid"] for pod in self.items("/api/v1/pods") if _is_ready(pod))

    def wait_until_kubelets_know_their_pods(self, ready: Collection[str]) -> None:
        """Wait until every kubelet knows the pods that are bound to its node, and has found ready those that were.

        One that begins knows no pod yet, and takes each with a readiness probe for unready until its first success;
        until then no Service leads there.

        Args:
            ready: UIDs of the pods that were ready.
        """
        wait.until(
            lambda: self._pods_unknown_to_kubelets(ready),
            lambda unknown: not unknown,
            what="every kubelet to know the pods of its node, and which of them are ready",
            timeout=limits.NODE_READY,
            transient=(ApiException,),
            hint="see: podid logs",
        )

    def _pods_unknown_to_kubelets(self, ready: Collection[str]) -> list[str]:
        """Return ``namespace/name`` of pods that run, or shall, and that their node's kubelet does not have so far."""
        chosen = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"
        pods = self.items("/api/v1/pods", fieldSelector=chosen)
        bound = {pod["metadata"]["uid"]: pod for pod in pods if "deletionTimestamp" not in pod["metadata"]}
        known, probed = set[str](), set[str]()
        for node in {pod["spec"]["nodeName"] for pod in bound.values()}:
            of_node = json.loads(self.raw(f"/api/v1/nodes/{node}/proxy/pods"))["items"] or ()
            known.update(pod["metadata"]["uid"] for pod in of_node)
            probed.update(_FOUND_READY.findall(self.raw(f"/api/v1/nodes/{node}/proxy/metrics/probes")))
        as_before = {uid for uid, pod in bound.items() if _is_ready(pod) and (uid in probed or not _has_probe(pod))}
        unknown = (bound.keys() - known) | (bound.keys() & set(ready) - as_before)
        return sorted(_full_name(bound[uid]) for uid in unknown)

    def pods(self, namespace: str, label_selector: str) -> list[Pod]:
        """Return the pods with these labels that are not being deleted, newest first."""
        found = self.core.list_namespaced_pod(namespace, label_selector=label_selector).items
        kept = [pod.metadata for pod in found if pod.metadata.deletion_timestamp is None]
        kept.sort(key=lambda metadata: metadata.creation_timestamp, reverse=True)
        return [self.pod(metadata.name, namespace) for metadata in kept]

    def wait_until_no_pod(self, namespace: str, label_selector: str, what: str) -> None:
        """Wait until no pod has these labels, also none that is being deleted: it may still answer.

        Args:
            namespace: Where.
            label_selector: Which.
            what: Whose pods these are, for the error.

        Raises:
            harness.wait.Timeout: There still are some.
        """
        wait.until(
            lambda: [
                pod.metadata.name
                for pod in self.core.list_namespaced_pod(namespace, label_selector=label_selector).items
            ],
            lambda pods: not pods,
            what=f"{what} to end",
            timeout=limits.POD_GONE,
            hint=f"see: kubectl --namespace {namespace} describe pod --selector {label_selector}",
        )

    def newest_pod(self, namespace: str, label_selector: str) -> Pod:
        """Return the newest pod with these labels once it is ready; between two pods of a rollout there may be none.

        Raises:
            harness.wait.Timeout: No pod came, or it did not become ready.
        """
        found = wait.until(
            lambda: self.pods(namespace, label_selector),
            what=f"a pod of {namespace} with {label_selector}",
            timeout=limits.POD_READY,
        )
        return found[0].wait_until_ready()

    def pod(self, name: str, namespace: str) -> Pod:
        """Return a handle to a pod; it need not exist yet."""
        return Pod(self, name, namespace)

    def run(
        self,
        name: str,
        namespace: str,
        *,
        image: str,
        service_account: str,
        command: Sequence[str],
        overrides: Manifest | None = None,
    ) -> Pod:
        """Create a pod as ``kubectl run --command`` does, and return its handle without waiting."""
        self.core.create_namespaced_pod(namespace, pod_manifest(name, image, service_account, command, overrides))
        return self.pod(name, namespace)

    def dry_run(
        self, name: str, namespace: str, *, image: str, service_account: str, command: Sequence[str]
    ) -> Manifest:
        """Return the pod that admission would make of ``run``'s, without creating it."""
        return self.admit(pod_manifest(name, image, service_account, command), namespace)

    def admit(self, pod: Manifest, namespace: str) -> Manifest:
        """Return the pod that admission would make of a manifest, without creating it.

        Raises:
            ApiException: It is refused.
        """
        created = self.core.create_namespaced_pod(namespace, pod, dry_run="All", _preload_content=False)
        return json.loads(created.data)

    def raw(self, path: str) -> str:
        """Return what the API server answers on a path, as ``kubectl get --raw`` does.

        Raises:
            ApiException: It answers with an error.
        """
        response = self._ask(path, {}, "*/*")
        text: str = response.read().decode()
        if response.status != 200:
            raise ApiException(status=response.status, reason=text)
        return text


def _full_name(manifest: Manifest) -> str:
    return f"{manifest['metadata']['namespace']}/{manifest['metadata']['name']}"


def pod_manifest(
    name: str, image: str, service_account: str, command: Sequence[str], overrides: Manifest | None = None
) -> Manifest:
    """Return the pod that ``kubectl run NAME --image --serviceaccount --command`` creates."""
    spec: Manifest = {
        "serviceAccountName": service_account,
        "containers": [{"name": name, "image": image, "command": list(command)}],
        # A deleted pod need not wait half a minute for a sleep to notice.
        "terminationGracePeriodSeconds": 1,
        **(overrides or {}),
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"run": name}}, "spec": spec}


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod, and what can be asked of it."""

    kube: Kube
    name: str
    namespace: str

    def read(self) -> Manifest:
        """Return the pod as JSON, field names as in the API."""
        response = self.kube.core.read_namespaced_pod(self.name, self.namespace, _preload_content=False)
        return json.loads(response.data)

    def environment(self) -> dict[str, str]:
        """Return the variables of the first container's specification, in order."""
        return {entry["name"]: entry.get("value", "") for entry in self.read()["spec"]["containers"][0].get("env", [])}

    def wait_until_ready(self, timeout: Limit = limits.POD_READY) -> Pod:
        """Wait until the pod is Ready, and return it.

        Raises:
            harness.wait.Timeout: It did not become ready; the text has the phase and the containers' states.
        """
        wait.until(
            lambda: _pod_state(self.read()),
            lambda state: state.startswith("Ready"),
            what=f"pod {self.namespace}/{self.name} to be ready",
            timeout=timeout,
            hint=f"see: kubectl --namespace {self.namespace} describe pod {self.name}",
        )
        return self

    def exec(self, *command: str, timeout: Limit = limits.EXEC, container: str = "") -> Completed:
        """Run a command in the pod.

        Args:
            command: The program and its arguments.
            timeout: How long it may take.
            container: Where; needed in a pod with several.

        Raises:
            harness.wait.Timeout: It did not end in time; the text has the end of what it said.
            HarnessFault: The connection ended before the exit code came.
        """
        stream: Any = cast("Any", kubernetes.stream).stream(
            self.kube.streaming_core().connect_get_namespaced_pod_exec,
            self.name,
            self.namespace,
            command=list(command),
            stdout=True,
            stderr=True,
            _preload_content=False,
            _headers={"sec-websocket-protocol": _EXEC_PROTOCOL},
            **({"container": container} if container else {}),
        )
        try:
            stream.run_forever(timeout=timeout.allowed * wait.scale())
            if stream.is_open():
                said = (stream.read_stdout(timeout=0) + stream.read_stderr(timeout=0)).strip()
                raise wait.Timeout(
                    f"{' '.join(command)} in pod {self.name} did not end (limit {timeout}); "
                    f"its last words: {said[-_LAST_WORDS:] or 'none'}"
                )
            if not stream.peek_channel(_STATUS_CHANNEL):
                raise HarnessFault(
                    f"the connection to pod {self.name} ended before the exit code of {command[0]} came",
                    hint="the API server, the kubelet or the container runtime ended it: see its log",
                )
            return Completed(stream.returncode, stream.read_stdout(timeout=0), stream.read_stderr(timeout=0))
        finally:
            stream.close()
            # After the server's closing frame websocket-client counts as closed and leaves its socket open.
            stream.sock.shutdown()

    def delete(self) -> None:
        """Delete the pod and wait until it is gone."""
        self.kube.core.delete_namespaced_pod(self.name, self.namespace, grace_period_seconds=0)
        wait.until(
            lambda: not _exists(self.read), what=f"pod {self.namespace}/{self.name} to go", timeout=limits.POD_GONE
        )


def _takes(node: Any) -> bool:
    return any(one.type == "Ready" and one.status == "True" for one in node.status.conditions or ())


def _exists(call: Callable[[], object]) -> bool:
    """Make a call and tell whether it found its object."""
    try:
        call()
    except ApiException as error:
        if cast("int | None", error.status) == 404:  # pyright: ignore[reportUnknownMemberType] - the client has no types
            return False
        raise
    return True


@dataclass(frozen=True, slots=True)
class _Rollout:
    wanted: int
    updated: int
    ready: int
    observed: bool
    former: int = 0
    """Pods of a former template, which may be the ready ones."""

    @property
    def is_complete(self) -> bool:
        enough = self.updated >= self.wanted and self.ready >= self.wanted
        return self.observed and self.wanted > 0 and enough and self.former == 0


def _rollout(workload: Any) -> _Rollout:
    status = workload.status
    observed = (status.observed_generation or 0) >= workload.metadata.generation
    if workload.kind == "DaemonSet" or hasattr(status, "desired_number_scheduled"):
        updated, ready = status.updated_number_scheduled or 0, status.number_available or 0
        return _Rollout(status.desired_number_scheduled or 0, updated, ready, observed)
    updated = status.updated_replicas or 0
    former = (status.replicas or 0) - updated
    return _Rollout(workload.spec.replicas, updated, status.available_replicas or 0, observed, former)


def _is_ready(pod: Manifest) -> bool:
    conditions = pod["status"].get("conditions", [])
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def _has_probe(pod: Manifest) -> bool:
    return any("readinessProbe" in container for container in pod["spec"]["containers"])


def _pod_state(pod: Manifest) -> str:
    """Say in one line how a pod is doing; begins with ``Ready`` when it is."""
    status = pod["status"]
    if _is_ready(pod):
        return "Ready"
    states = [
        f"{container['name']}: {json.dumps(container['state'])}"
        for container in status.get("initContainerStatuses", []) + status.get("containerStatuses", [])
    ]
    return f"{status.get('phase')}; {'; '.join(states)}"
