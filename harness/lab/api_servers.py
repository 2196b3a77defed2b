"""API servers that are killed while everybody goes on."""

from __future__ import annotations

import contextlib
import time

from harness import limits, wait
from harness.cluster.base import Cluster
from harness.kube import Kube
from harness.lab import wiring
from harness.lab.losses import Losses

__all__ = ["ApiServers"]

_SHORT_PAUSES_AGAIN = 120.0
"""Seconds without a failure after which a client of Kubernetes begins with short pauses between its attempts again."""


class ApiServers:
    """Restarts the API servers of a lab, and knows when each was last restarted."""

    def __init__(self, losses: Losses) -> None:
        self._losses = losses
        self._restarts: dict[str, float] = {}
        """Cluster → when its API server was last killed."""

    def restart(self, cluster: Cluster) -> None:
        """Kill a cluster's API server, and wait until another one is ready; that counts as no loss.

        Controllers, kubelets and kube-proxies that outlive several such restarts ask ever less often whether it is
        back, up to once in a minute and a half, and until then nothing that is created gets anywhere. On EKS another
        API server would have answered them at once. So they begin anew too, unless the last restart is long ago.
        A kubelet that begins takes the webhook for unready at first: it is waited for, as on EKS it runs elsewhere.

        Raises:
            HarnessFault: One of them did not end.
            harness.wait.Timeout: No other API server got ready, or no other programs run.
        """
        last, now = self._restarts.get(cluster.name), time.monotonic()
        self._restarts[cluster.name] = now
        with contextlib.closing(Kube(cluster.kubeconfig)) as kube:
            self._kill(cluster, "kube-apiserver")
            wait.until(
                kube.is_ready,
                what=f"the API server of {cluster.name} after its restart",
                timeout=limits.CLUSTER_CREATE,
                hint=f"see: podid logs {cluster.name}/kube-apiserver",
            )
            if last is None or now - last > _SHORT_PAUSES_AGAIN:
                return
            ready = kube.ready_pods()
            for program in ("kube-controller-manager", "kube-scheduler", *cluster.node_programs):
                self._kill(cluster, program)
            # Whoever looks meanwhile would take one that is yet to be started again for lost.
            wait.until(
                self._losses.tell,
                lambda told: told is None,
                what=f"the controllers and nodes of {cluster.name} to run again",
                timeout=limits.PROCESS_START,
            )
            kube.wait_until_kubelets_know_their_pods(ready)
            # kube-proxy follows about a second later.
            wiring.wait_until_webhook_is_reached(cluster, kube)

    def _kill(self, cluster: Cluster, program: str) -> None:
        self._losses.expect_restart(cluster.name, program)
        cluster.kill_program(program)
