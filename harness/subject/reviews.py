"""Admission reviews: pods to send, and what an answer makes of them."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any, Literal, cast

from harness.errors import SubjectFault
from harness.subject.json_patch import JsonPatchError, apply_json_patch

__all__ = ["Admission", "Mechanism", "Object", "normalized", "pod", "review"]

Object = dict[str, Any]
Mechanism = Literal["Pod Identity", "IRSA", "none", "both"]


def pod(*containers: Object, service_account: str = "s3-reader", metadata: Object | None = None, **spec: Any) -> Object:
    """Build a pod as a user writes it.

    Args:
        containers: One container ``app`` by default.
        service_account: Name of its ServiceAccount.
        metadata: Whatever it has beside its name.
        spec: Further fields of its spec.
    """
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "s3-test"} | (metadata or {}),
        "spec": {
            "serviceAccountName": service_account,
            "containers": list(containers or [{"name": "app", "image": "amazon/aws-cli"}]),
            **spec,
        },
    }


def review(the_pod: Any, namespace: str = "demo", uid: str = "u-1", version: str = "v1", **request: Any) -> Object:
    """Build the review in which an API server sends a pod that is about to be created.

    Args:
        the_pod: The object; anything, for a review that is no good.
        namespace: Where the pod is to be created.
        uid: The review's.
        version: Of ``admission.k8s.io``.
        request: Fields of the request to add or replace.
    """
    kind, resource = {"group": "", "version": "v1", "kind": "Pod"}, {"group": "", "version": "v1", "resource": "pods"}
    return {
        "apiVersion": f"admission.k8s.io/{version}",
        "kind": "AdmissionReview",
        "request": {
            "uid": uid,
            "kind": kind,
            "resource": resource,
            "namespace": namespace,
            "operation": "CREATE",
            "userInfo": {"username": "kubernetes-admin", "groups": ["system:authenticated"]},
            "object": the_pod,
            "oldObject": None,
            "dryRun": False,
            **request,
        },
    }


@dataclass(frozen=True, slots=True)
class Admission:
    """A pod and the webhook's answer for it.

    What the answer lacks reads as empty, so that a test's own comparison says what is missing; an answer that an API
    server could not use is a :class:`SubjectFault`.
    """

    sent: Any
    """The object as it was sent."""
    answer: Object
    """The review that came back."""

    @property
    def response(self) -> Object:
        """The answer's ``response``."""
        return _object(self.answer.get("response"))

    @property
    def patch(self) -> list[Object]:
        """The decoded patch; empty if there is none.

        Raises:
            SubjectFault: It is no base64 of a JSON list.
        """
        encoded = self.response.get("patch")
        if encoded is None:
            return []
        try:
            patch = json.loads(base64.b64decode(encoded, validate=True))
        except (ValueError, TypeError, binascii.Error) as error:
            raise SubjectFault(f"the patch is no base64 of JSON ({error}): {encoded!r:.200}") from error
        if not isinstance(patch, list) or not all(
            isinstance(operation, dict) for operation in cast("list[Any]", patch)
        ):
            raise SubjectFault(f"the patch is no list of operations: {patch!r:.200}")
        return cast("list[Object]", patch)

    @property
    def paths(self) -> list[str]:
        """What the patch's operations address, in their order."""
        return [str(operation.get("path")) for operation in self.patch]

    @property
    def pod(self) -> Object:
        """The pod as an API server would go on with it.

        Raises:
            SubjectFault: The pod is refused, or the patch does not apply to it.
        """
        if self.response.get("allowed") is not True:
            raise SubjectFault(f"the pod is not allowed: {self.response!r:.500}")
        try:
            return _object(apply_json_patch(self.sent, self.patch))
        except JsonPatchError as error:
            raise SubjectFault(f"the patch does not apply to the pod as it was sent: {error}") from error

    @property
    def labels(self) -> Object:
        """Labels of the admitted pod."""
        return _object(_object(self.pod.get("metadata")).get("labels"))

    @property
    def spec(self) -> Object:
        """Spec of the admitted pod."""
        return _object(self.pod.get("spec"))

    @property
    def volumes(self) -> list[Object]:
        """Volumes of the admitted pod."""
        return _objects(self.spec.get("volumes"))

    @property
    def volume_names(self) -> list[Any]:
        """Names of those volumes, in their order."""
        return [volume.get("name") for volume in self.volumes]

    def volume(self, name: str) -> Object:
        """Return the first volume of a name."""
        return next((volume for volume in self.volumes if volume.get("name") == name), Object())

    def token(self, volume: str) -> Object:
        """Return the token projection that is a volume's first source."""
        sources = _objects(_object(self.volume(volume).get("projected")).get("sources"))
        return _object(sources[0].get("serviceAccountToken")) if sources else {}

    def container(self, name: str = "app") -> Object:
        """Return a container or init container of the admitted pod."""
        containers = _objects(self.spec.get("containers")) + _objects(self.spec.get("initContainers"))
        return next((container for container in containers if container.get("name") == name), Object())

    def env(self, container: str = "app") -> list[Object]:
        """Return a container's variables."""
        return _objects(self.container(container).get("env"))

    def names(self, container: str = "app") -> list[Any]:
        """Return the names of a container's variables, in their order."""
        return [variable.get("name") for variable in self.env(container)]

    def value(self, name: str, container: str = "app") -> Any:
        """Return a variable's value, None if the container has no such variable."""
        return next((variable.get("value") for variable in self.env(container) if variable.get("name") == name), None)

    def mounts(self, container: str = "app") -> list[Object]:
        """Return a container's mounts."""
        return _objects(self.container(container).get("volumeMounts"))

    def mounted(self, container: str = "app") -> list[Any]:
        """Return the names of the volumes that a container mounts, in their order."""
        return [mount.get("name") for mount in self.mounts(container)]

    def mechanism(self, container: str = "app") -> Mechanism:
        """Tell which credential pair a container has."""
        names = self.names(container)
        pod_identity, irsa = "AWS_CONTAINER_CREDENTIALS_FULL_URI" in names, "AWS_ROLE_ARN" in names
        if pod_identity:
            return "both" if irsa else "Pod Identity"
        return "IRSA" if irsa else "none"


def normalized(value: Any) -> Any:
    """Return a pod without the differences in spelling that mean nothing (contract, section 12).

    Nulls go, and so do empty ``resources``, ``env``, ``volumeMounts`` and ``labels``, the ``defaultMode`` that the API
    server would set anyway, and a slash at the end of a ``mountPath``.
    """
    if isinstance(value, list):
        return [normalized(item) for item in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    result = {key: normalized(item) for key, item in cast("Object", value).items() if item is not None}
    for key in ("resources", "env", "volumeMounts", "labels"):
        if result.get(key) in ({}, []):
            del result[key]
    if result.get("defaultMode") == 420:
        del result["defaultMode"]
    if isinstance(path := result.get("mountPath"), str) and path != "/":
        result["mountPath"] = path.removesuffix("/")
    return result


def _object(value: Any) -> Object:
    return cast("Object", value) if isinstance(value, dict) else {}


def _objects(value: Any) -> list[Object]:
    items = cast("list[Any]", value) if isinstance(value, list) else []
    return [cast("Object", item) for item in items if isinstance(item, dict)]
