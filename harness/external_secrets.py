"""The External Secrets Operator in a cluster of a lab: installed when a scenario asks, and what it says there."""

from __future__ import annotations

import base64
import contextlib
import itertools
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from harness import binaries, limits, wait
from harness.cloud.localstack.control import Control
from harness.cluster.base import Cluster
from harness.conformance.recording import Evidence, attach
from harness.image_lock import built
from harness.kube import ApiException, Kube, Manifest, Pod, load_manifests
from harness.lab import Lab
from harness.lab.paths import CHECKOUT, cache_directory
from harness.progress import Progress

__all__ = ["NAMESPACE", "Calls", "Condition", "Operator", "Resource", "attempt", "installed", "program", "secret_data"]

NAMESPACE = "external-secrets"
_NAME = "external-secrets"
_LABEL = "app.kubernetes.io/name=external-secrets"
_MANIFESTS = CHECKOUT / "fixtures" / "external-secrets" / "operator.yaml"
_WEBHOOK = "external-secrets-webhook"
_VERSIONS = {
    "ClusterSecretStore": "external-secrets.io/v1",
    "ExternalSecret": "external-secrets.io/v1",
    "PushSecret": "external-secrets.io/v1alpha1",
    "SecretStore": "external-secrets.io/v1",
}
_GROUP = "external-secrets.io"
_WORK = ("controller_runtime_active_workers{", "workqueue_depth{")
_CRD = ("apiextensions.k8s.io/v1", "CustomResourceDefinition")
_numbers = itertools.count(1)


# --- Installing -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def installed(lab: Lab, cluster: Cluster, kube: Kube) -> Generator[Operator]:
    """Install the operator as the guide's ``helm install`` does, wait until it is ready, and remove it at the end.

    At the end the ExternalSecrets go before the controller, which alone takes their finalizers off (ESO-DELETE-CLEAN).
    What an earlier, interrupted run left is removed first.
    """
    with Progress() as progress:
        programs = binaries.ensure(cache_directory(), progress, [binaries.EXTERNAL_SECRETS])
        lab.add_images(cluster.name, [built(_NAME, {_NAME: programs[_NAME]})], progress)
    _remove_leftovers(kube)
    _apply_crds(kube)
    with kube.namespace(NAMESPACE):
        kube.create_service_account(_NAME, NAMESPACE)
        try:
            _start(kube)
            yield Operator(kube)
            _remove_resources(kube)
        finally:
            _remove_leftovers(kube)


def program() -> Path:
    """Return the operator's program in the cache."""
    return binaries.paths(cache_directory(), [binaries.EXTERNAL_SECRETS])[_NAME]


def _crds() -> list[Manifest]:
    """Return the operator's CRDs, from its module, with ``v1beta1`` switched to served (ESO-CRD-V1BETA1)."""
    files = binaries.paths(cache_directory(), [binaries.EXTERNAL_SECRETS])
    found: list[Manifest] = []
    for name in binaries.EXTERNAL_SECRETS.files:
        # libyaml: the parser in Python takes fifteen seconds for these five files.
        manifest: Manifest = yaml.load(files[name].read_text(), Loader=yaml.CSafeLoader)
        for version in manifest["spec"]["versions"]:
            version["served"] = version["served"] or version["name"] == "v1beta1"
        found.append(manifest)
    return found


def _apply_crds(kube: Kube) -> None:
    manifests = _crds()
    kube.apply(manifests)
    names = {manifest["metadata"]["name"] for manifest in manifests}
    wait.until(
        lambda: {crd["metadata"]["name"] for crd in kube.read_all(*_CRD) if _is_true(crd, "Established")},
        names.issubset,
        what="the operator's CRDs to be established",
        timeout=limits.OBJECT_READY,
    )


def _start(kube: Kube) -> None:
    """Start all three programs, the webhook last: one that started with an empty Secret would see it a minute later."""
    manifests = load_manifests(_MANIFESTS)
    webhook = [entry for entry in manifests if (entry["kind"], entry["metadata"]["name"]) == ("Deployment", _WEBHOOK)]
    kube.apply(entry for entry in manifests if entry not in webhook)
    wait.until(
        lambda: sorted(secret_data(kube, _WEBHOOK, NAMESPACE) or ()),
        lambda names: "tls.crt" in names,
        what="the operator's cert-controller to make the webhook's certificate",
        timeout=limits.CONTROLLER,
        hint=f"see: kubectl --namespace {NAMESPACE} logs deployment/external-secrets-cert-controller",
    )
    kube.apply(webhook)
    for deployment in (_NAME, _WEBHOOK, "external-secrets-cert-controller"):
        kube.wait_until_deployed("Deployment", deployment, NAMESPACE)
    _wait_until_it_admits(kube)


def _wait_until_it_admits(kube: Kube) -> None:
    """Wait until its webhook admits what scenarios apply: it is Ready before the API server's node knows the way to it.

    Until then an apply of two objects can lose the first and make the second.
    """
    provider = {"aws": {"service": "SecretsManager", "region": "eu-west-1"}}
    wanted = [{"secretKey": "nothing", "remoteRef": {"key": "nothing"}}]
    specs: dict[str, Manifest] = {
        "ClusterSecretStore": {"provider": provider},
        "ExternalSecret": {"secretStoreRef": {"name": "asked-about", "kind": "ClusterSecretStore"}, "data": wanted},
    }
    asked = [
        {"apiVersion": _VERSIONS[kind], "kind": kind, "metadata": {"name": "asked-about"}, "spec": spec}
        for kind, spec in specs.items()
    ]
    wait.until(
        lambda: kube.apply(asked, NAMESPACE, dry_run=True),
        lambda _: True,
        what="the operator's webhook to admit a store and an ExternalSecret",
        timeout=limits.WEBHOOK_READY,
        successes=3,
        transient=(ApiException,),
        hint=f"see: kubectl --namespace {NAMESPACE} logs deployment/{_WEBHOOK}",
    )


def _remove_leftovers(kube: Kube) -> None:
    """Remove what is cluster-wide, and resources that were left: where the controller is gone, so are their finalizers.

    The CRDs stay, as ``helm uninstall`` leaves them.
    """
    present = {crd["spec"]["names"]["kind"] for crd in kube.read_all(*_CRD) if crd["spec"]["group"] == _GROUP}
    if not present:
        return
    _remove_cluster_wide(kube)
    for kind in present & set(_VERSIONS):
        for entry in kube.read_all(_VERSIONS[kind], kind):
            metadata = entry["metadata"]
            kube.delete(entry)
            freed = {"metadata": {"finalizers": None}}
            with contextlib.suppress(ApiException):  # it may have had none, and be gone
                kube.merge(_VERSIONS[kind], kind, metadata["name"], freed, metadata.get("namespace"))


def _remove_resources(kube: Kube) -> None:
    for kind in ("PushSecret", "ExternalSecret", "SecretStore", "ClusterSecretStore"):
        for entry in kube.read_all(_VERSIONS[kind], kind):
            kube.delete(entry)
        wait.until(
            lambda kind=kind: [entry["metadata"]["name"] for entry in kube.read_all(_VERSIONS[kind], kind)],
            lambda names: not names,
            what=f"every {kind} to go",
            timeout=limits.CLEANUP_STEP,
            hint="the operator takes their finalizers off; see its log in the diagnostics",
        )


def _remove_cluster_wide(kube: Kube) -> None:
    for manifest in load_manifests(_MANIFESTS):
        if "namespace" not in manifest["metadata"]:
            kube.delete(manifest)


# --- Looking --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Condition:
    """An object's ``Ready``."""

    status: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Operator:
    """The controller, the one of the three programs that talks to AWS."""

    kube: Kube

    @property
    def pod(self) -> Pod:
        """Its pod."""
        (pod,) = self.kube.pods(NAMESPACE, _LABEL)
        return pod

    def restart(self) -> Pod:
        """``kubectl … delete pod -l app.kubernetes.io/name=external-secrets``: return the next pod, ready."""
        before = self.pod
        self.kube.core.delete_collection_namespaced_pod(NAMESPACE, label_selector=_LABEL, grace_period_seconds=0)
        found = wait.until(
            lambda: self.kube.pods(NAMESPACE, _LABEL),
            lambda pods: len(pods) == 1 and pods[0].name != before.name,
            what="a new pod of the operator",
            timeout=limits.POD_READY,
        )
        return found[0].wait_until_ready()

    @contextlib.contextmanager
    def stopped(self) -> Generator[None]:
        """Run no controller, as ``kubectl scale --replicas=0`` does; start it again at the end."""
        self._scale(0)
        try:
            self.kube.wait_until_no_pod(NAMESPACE, _LABEL, "the operator's pod")
            yield
        finally:
            self._scale(1)
            self.kube.wait_until_deployed("Deployment", _NAME, NAMESPACE)

    def _scale(self, replicas: int) -> None:
        self.kube.merge("apps/v1", "Deployment", _NAME, {"spec": {"replicas": replicas}}, NAMESPACE)

    def wait_until_quiet(self) -> None:
        """Wait until it has nothing to reconcile, in hand or in a queue: what was pending has asked AWS by then."""
        wait.until(
            self._busy,
            lambda busy: not busy,
            what="the operator to have nothing left to reconcile",
            timeout=limits.CONTROLLER,
            # What the API server is about to tell it is in no queue yet.
            successes=3,
            # A new one is Ready before it serves its metrics.
            transient=(ApiException,),
        )

    def _busy(self) -> list[str]:
        """Return the lines of its metrics that say what it does, or that there are none."""
        text = self.kube.raw(f"/api/v1/namespaces/{NAMESPACE}/pods/{self.pod.name}:8080/proxy/metrics")
        lines = [line for line in text.splitlines() if line.startswith(_WORK)]
        return [line for line in lines if not line.endswith(" 0")] if lines else ["no metrics of its work"]

    def log(self) -> str:
        """Return the log of its pod."""
        pod = self.pod
        text = str(self.kube.core.read_namespaced_pod_log(pod.name, NAMESPACE))
        attach(Evidence("text", f"log of {pod.name}", text[-10_000:]))
        return text

    def other_pods(self) -> list[str]:
        """Return the UIDs of the webhook's and the cert-controller's pods."""
        selector = "app.kubernetes.io/name in (external-secrets-webhook, external-secrets-cert-controller)"
        return sorted(pod.read()["metadata"]["uid"] for pod in self.kube.pods(NAMESPACE, selector))


@dataclass(frozen=True, slots=True)
class Resource:
    """An ExternalSecret, PushSecret, SecretStore or ClusterSecretStore."""

    kube: Kube
    kind: str
    name: str
    namespace: str | None = None

    def read(self) -> Manifest:
        """Return it as JSON."""
        return self.kube.read(_VERSIONS[self.kind], self.kind, self.name, self.namespace)

    def exists(self) -> bool:
        """Tell whether it is there."""
        return self.kube.exists(_VERSIONS[self.kind], self.kind, self.name, self.namespace)

    def ready(self) -> Condition:
        """Return its condition ``Ready``; all empty before it has one."""
        found = [entry for entry in _conditions(self.read()) if entry["type"] == "Ready"]
        return Condition(*(str(found[0].get(name, "")) for name in ("status", "reason", "message"))) if found else _NONE

    def wait_until(self, reason: str) -> Condition:
        """Wait until ``Ready`` has this reason.

        A failure in between is no end: the store of a fresh controller may be not ready yet (ESO-SYNC-TRANSIENT).
        """
        condition = wait.until(
            self.ready,
            lambda condition: condition.reason == reason,
            what=f"{self.kind} {self.name} to be {reason}",
            timeout=limits.SECRET_SYNCED,
            hint=f"see: kubectl --namespace {self.namespace or 'default'} describe {self.kind.lower()} {self.name}",
        )
        attach(Evidence("object", f"{self.kind} {self.name}: {condition.reason}", self.read().get("status")))
        return condition

    def messages(self, reason: str) -> list[str]:
        """Return the messages of its events with this reason, oldest first."""
        found = [event for event in self.kube.events(self.kind, self.name) if event["reason"] == reason]
        if self.namespace:
            found = [event for event in found if event["metadata"]["namespace"] == self.namespace]
        return [str(event["message"]) for event in sorted(found, key=lambda event: str(event["lastTimestamp"]))]

    def wait_for_message(self, reason: str, *parts: str) -> str:
        """Wait for an event with this reason and all of these parts in its message, and return the message."""
        found = wait.until(
            lambda: self.messages(reason),
            lambda messages: any(all(part in message for part in parts) for message in messages),
            what=f"an event {reason} of {self.kind} {self.name} that says {' … '.join(parts)}",
            timeout=limits.SECRET_SYNCED,
        )
        message = next(message for message in reversed(found) if all(part in message for part in parts))
        attach(Evidence("text", f"event {reason} of {self.kind} {self.name}", message))
        return message

    def refresh(self) -> None:
        """Have it reconciled now, whatever its back-off: ``kubectl annotate --overwrite … force-sync=…``."""
        change = {"metadata": {"annotations": {"force-sync": f"{next(_numbers)}"}}}
        self.kube.merge(_VERSIONS[self.kind], self.kind, self.name, change, self.namespace)


def secret_data(kube: Kube, name: str, namespace: str) -> dict[str, str] | None:
    """Return the decoded data of a Secret, None where there is none."""
    found = kube.get(f"/api/v1/namespaces/{namespace}/secrets/{name}")
    if found is None:
        return None
    data: dict[str, str] = found.get("data") or {}
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


class Calls:
    """What the operator asks Secrets Manager from here on."""

    def __init__(self, control: Control) -> None:
        """Begin here."""
        self._control = control
        self._since = max((int(entry["number"]) + 1 for entry in control.journal()), default=0)

    def made(self, secret: str = "") -> list[dict[str, Any]]:
        """Return the calls by anybody but the harness, oldest first, as the journal has them.

        Args:
            secret: Count only what was decided about this secret.
        """
        calls = self._control.journal(self._since)
        made = [call for call in calls if call["service"] == "secretsmanager" and ":user/" not in call["principal"]]
        if not secret:
            return made
        about = f":secret:{secret}-"
        return [call for call in made if any(about in decision["resource"] for decision in call["decisions"])]


def attempt(secret: Resource, control: Control) -> tuple[str, str]:
    """Have an ExternalSecret reconciled, and return who asked AWS for it and with which error code that ended."""
    # An earlier reconciliation that is still to come would be taken for this one.
    Operator(secret.kube).wait_until_quiet()
    calls = Calls(control)
    secret.refresh()
    made = wait.until(calls.made, what=f"the operator to ask for {secret.name}", timeout=limits.CONTROLLER)
    return made[0]["principal"], made[0]["error_code"]


_NONE = Condition("", "", "")


def _conditions(manifest: Manifest) -> list[Manifest]:
    return manifest.get("status", {}).get("conditions") or []


def _is_true(manifest: Manifest, condition: str) -> bool:
    return any(entry["type"] == condition and entry["status"] == "True" for entry in _conditions(manifest))
