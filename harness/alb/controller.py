"""The AWS Load Balancer Controller in a cluster of a lab: installed when a scenario asks, its events and its calls."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from typing import Any

from harness import limits, wait
from harness.cluster.base import Cluster
from harness.conformance.recording import Evidence, attach
from harness.errors import HarnessFault
from harness.kube import ApiException, Kube, Pod
from harness.lab.lab import Lab
from harness.lab.load_balancing import ControllerFiles

__all__ = ["Controller", "release_ingresses", "strip_finalizers", "wait_for_address"]

_NAME = "aws-load-balancer-controller"
_LABEL = f"app.kubernetes.io/name={_NAME}"


class Controller:
    """The AWS Load Balancer Controller, installed from its chart as the article does it."""

    def __init__(self, lab: Lab, cluster: Cluster, kube: Kube, files: ControllerFiles, namespace: str) -> None:
        """Attach; nothing is installed."""
        self._lab = lab
        self._cluster = cluster
        self._kube = kube
        self._files = files
        self.namespace = namespace
        self.installed_at = 0
        """Number of the journal's entry from which on calls are those of this installation."""

    def install(self, vpc_id: str) -> None:
        """``helm install``, with the article's values.

        Without the webhook that every new Service of the cluster would have to pass: nothing of the article needs it,
        and while the controller is down it would let no Service be created (LBC-WEBHOOK-ORDER). And it is asked whether
        it is ready from its start on: the chart lets ten seconds pass before, and between two questions.
        """
        values = {
            "clusterName": self._cluster.name,
            "serviceAccount.create": "false",
            "serviceAccount.name": _NAME,
            "region": self._cluster.spec.region,
            "vpcId": vpc_id,
            "enableServiceMutatorWebhook": "false",
            "readinessProbe.initialDelaySeconds": "0",
            "readinessProbe.periodSeconds": "1",
        }
        self.uninstall()
        self.installed_at = self.mark()
        settings = [f"--set={name}={value}" for name, value in values.items()]
        done = self._helm("install", _NAME, str(self._files.chart), *settings)
        if done.returncode != 0:
            raise HarnessFault(f"helm install failed: {done.stderr.strip()}")
        self._kube.wait_until_deployed("Deployment", _NAME, self.namespace)
        self._wait_until_it_admits()

    def _wait_until_it_admits(self) -> None:
        """Wait until its webhook admits an Ingress: it is Ready before the API server's node knows the way to it."""
        backend = {"service": {"name": "nothing", "port": {"number": 80}}}
        ingress = {
            "metadata": {"name": "asked-about"},
            "spec": {"ingressClassName": "alb", "defaultBackend": backend},
        }
        wait.until(
            lambda: self._kube.networking.create_namespaced_ingress(self.namespace, ingress, dry_run="All"),
            what="the controller's webhook to admit an Ingress",
            timeout=limits.WEBHOOK_READY,
            successes=3,
            transient=(ApiException,),
        )

    def uninstall(self) -> None:
        """``helm uninstall``, also of what an interrupted run left, and wait until its pods are gone."""
        done = self._helm("uninstall", _NAME, "--ignore-not-found")
        if done.returncode != 0:
            raise HarnessFault(f"helm uninstall failed: {done.stderr.strip()}")
        wait.until(
            self.pods, lambda found: not found, what="the controller's former pods to end", timeout=limits.POD_GONE
        )
        self._release_leadership()

    def _release_leadership(self) -> None:
        """Delete the leader's lease: pods that end keep it, and the next ones would wait a quarter of a minute."""
        with contextlib.suppress(ApiException):
            lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": f"{_NAME}-leader"}}
            self._kube.delete(lease, self.namespace)

    def _helm(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        with tempfile.TemporaryDirectory() as home:
            return subprocess.run(
                [
                    self._files.helm,
                    f"--kubeconfig={self._cluster.kubeconfig}",
                    f"--namespace={self.namespace}",
                    *arguments,
                ],
                env=os.environ | {f"HELM_{kind}_HOME": home for kind in ("CACHE", "CONFIG", "DATA")},
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )

    def pods(self) -> list[Pod]:
        """Return its pods, newest first."""
        return self._kube.pods(self.namespace, _LABEL)

    def restart(self) -> None:
        """Delete its pods, and wait for the new ones."""
        former = {pod.name for pod in self.pods()}
        self._kube.core.delete_collection_namespaced_pod(self.namespace, label_selector=_LABEL, grace_period_seconds=0)
        self._release_leadership()
        pods = wait.until(
            self.pods,
            lambda found: len(found) == len(former) and former.isdisjoint(pod.name for pod in found),
            what="new pods of the controller",
            timeout=limits.POD_READY,
        )
        wanted = {pod.wait_until_ready().read()["status"]["podIP"] for pod in pods}
        # The API server would ask a webhook that is gone, and wait ten seconds for its answer.
        wait.until(
            self._endpoints,
            lambda found: found == wanted,
            what="the webhook's Service to know the pods",
            timeout=limits.CONTROLLER,
        )
        self._wait_until_it_admits()

    def _endpoints(self) -> set[str]:
        found = self._kube.read_all("discovery.k8s.io/v1", "EndpointSlice", self.namespace)
        return {
            address for one in found for endpoint in one.get("endpoints") or () for address in endpoint["addresses"]
        }

    def log(self) -> str:
        """Return what its pods have printed."""
        read = self._kube.core.read_namespaced_pod_log
        return "".join(str(read(pod.name, self.namespace)) for pod in self.pods())

    def calls(self, since: int = 0) -> list[dict[str, Any]]:
        """Return its calls to AWS from a number of the journal on, oldest first."""
        entries = self._lab.control().journal(since)
        return [entry for entry in entries if "elbv2.k8s.aws" in str(entry.get("user_agent"))]

    def mark(self) -> int:
        """Return the number of the journal's next entry."""
        entries = self._lab.control().journal()
        return int(entries[-1]["number"]) + 1 if entries else 0

    def wait_for_event(self, ingress: str, reason: str, *parts: str, namespace: str = "demo") -> str:
        """Wait for an event of an Ingress whose text has all these parts, and return the text."""
        found = wait.until(
            lambda: self._events(ingress, reason, namespace),
            lambda texts: any(all(part in text for part in parts) for text in texts),
            what=f"event {reason} of Ingress {namespace}/{ingress} with {', '.join(parts) or 'any text'}",
            timeout=limits.CONTROLLER,
            hint=f"see: kubectl --namespace {self.namespace} logs --selector {_LABEL}",
        )
        text = next(text for text in reversed(found) if all(part in text for part in parts))
        attach(Evidence("text", f"event {reason} of Ingress {ingress}", text))
        return text

    def _events(self, name: str, reason: str, namespace: str) -> list[str]:
        listed = self._kube.core.list_namespaced_event(namespace, field_selector=f"involvedObject.name={name}").items
        found = [event for event in listed if event.reason == reason]
        found.sort(key=lambda event: str(event.last_timestamp))
        return [str(event.message) for event in found]

    def reconcile(self, ingress: str, namespace: str = "demo") -> None:
        """Change an annotation of an Ingress: after failures the controller waits, up to a quarter of an hour."""
        again = {"metadata": {"annotations": {"podid/again": str(time.time_ns())}}}
        self._kube.networking.patch_namespaced_ingress(ingress, namespace, again)


def wait_for_address(kube: Kube, ingress: str, namespace: str = "demo") -> str:
    """Wait for the ADDRESS of an Ingress: the DNS name of its load balancer."""

    def read() -> str:
        status = kube.networking.read_namespaced_ingress_status(ingress, namespace).status.load_balancer
        return str(status.ingress[0].hostname) if status and status.ingress else ""

    return wait.until(read, what=f"the ADDRESS of Ingress {namespace}/{ingress}", timeout=limits.INGRESS_ADDRESS)


def release_ingresses(kube: Kube, namespace: str) -> None:
    """Delete the Ingresses of a namespace and wait until the controller let them go.

    Raises:
        harness.wait.Timeout: It did not.
    """
    networking: Any = kube.networking
    for ingress in networking.list_namespaced_ingress(namespace).items:
        networking.delete_namespaced_ingress(ingress.metadata.name, namespace)
    wait.until(
        lambda: [one.metadata.name for one in networking.list_namespaced_ingress(namespace).items],
        lambda names: not names,
        what=f"the Ingresses of {namespace} to go",
        timeout=limits.CONTROLLER,
        hint="see the controller's log",
    )


def strip_finalizers(kube: Kube, namespace: str) -> None:
    """Let go of Ingresses that no controller could: one without permissions never takes its finalizers off."""
    networking: Any = kube.networking
    for ingress in networking.list_namespaced_ingress(namespace).items:
        networking.patch_namespaced_ingress(ingress.metadata.name, namespace, {"metadata": {"finalizers": None}})
