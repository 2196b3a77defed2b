"""NetworkPolicy, enforced: by the cluster's own network where that does it, else by an engine for as long as needed."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

from harness import binaries, limits, wait
from harness.cluster.base import Cluster
from harness.conformance.outcomes import could_not_run
from harness.image_lock import built
from harness.kube import Kube, load_manifests
from harness.lab import Lab
from harness.lab.paths import CHECKOUT, cache_directory
from harness.progress import Progress

__all__ = ["enforced"]

_NAME = "kube-network-policies"
_MANIFESTS = CHECKOUT / "fixtures" / "troubleshooting" / f"{_NAME}.yaml"
_QUEUE = "98"
_QUEUES = "/proc/net/netfilter/nfnetlink_queue"
_CHAINS = ("INPUT", "FORWARD")
"""Where connections to the node itself pass, such as to the agent, and where all others do; both come after the address
of a Service became that of a pod."""
_RULE = (
    *("!", "--in-interface", "lo", "--match", "conntrack", "--ctstate", "NEW"),
    *("--jump", "NFQUEUE", "--queue-num", _QUEUE, "--queue-bypass"),
)
"""Hands new connections to the engine; without an engine they pass."""


@contextlib.contextmanager
def enforced(lab: Lab, cluster: Cluster, kube: Kube, progress: Progress) -> Generator[None]:
    """Have every new connection of a pod judged by NetworkPolicies; the engine and its rules are gone at the end.

    Ends the test as *could not run* where nothing can be installed: on somebody else's cluster, and on nodes whose
    kernel hands no packet to a program. Packets between pods of one node, which pass over a bridge, are not judged.
    """
    if "kindnet" in [one.metadata.name for one in kube.apps.list_namespaced_daemon_set("kube-system").items]:
        yield
        return
    if cluster.tenancy is not None:
        could_not_run("environment", "no network plugin that is known to enforce NetworkPolicy is in this cluster")
    manifests = load_manifests(_MANIFESTS)
    try:
        # First of all: a kernel that has the target for it has queues, and until the engine listens everything passes.
        for node in cluster.nodes:
            _hand_over(cluster, node.name)
        programs = binaries.ensure(cache_directory(), progress, [binaries.NETWORK_POLICIES])
        lab.add_images(cluster.name, [built(_NAME, {_NAME: programs[_NAME]})], progress)
        kube.apply(manifests)
        kube.wait_until_deployed("DaemonSet", _NAME, "kube-system")
        for node in cluster.nodes:
            _wait_until_it_judges(cluster, node.name)
        yield
    finally:
        for node in cluster.nodes:
            _take_back(cluster, node.name)
        for manifest in reversed(manifests):
            kube.delete(manifest)
        kube.wait_until_no_pod("kube-system", f"app.kubernetes.io/name={_NAME}", "the engine of NetworkPolicies")
        for node in cluster.nodes:
            # It takes its own rules with it only where it has the time to.
            cluster.run_on_node(node.name, ["nft", f"delete table inet {_NAME}"])


def _wait_until_it_judges(cluster: Cluster, node: str) -> None:
    """Wait until the engine has its queue, which it opens once it knows every pod and policy."""
    wait.until(
        lambda: cluster.run_on_node(node, ["cat", _QUEUES]).stdout.split()[:1],
        lambda found: found == [_QUEUE],
        what=f"the engine of NetworkPolicies on {node} to open its queue",
        timeout=limits.NETWORK_POLICY,
        hint=f"see: kubectl --namespace kube-system logs daemonset/{_NAME}",
    )


def _hand_over(cluster: Cluster, node: str) -> None:
    for chain in _CHAINS:
        # iptables: the engine has a rule of its own, of nft, for a kernel module that many machines lack.
        done = cluster.run_on_node(node, ["iptables", "--wait", "--table=mangle", "--append", chain, *_RULE])
        if done.returncode != 0:
            could_not_run(
                "environment",
                f"node {node} can hand no packet to a program: {done.stderr.strip()}; "
                "install iptables, on a kernel that has its target NFQUEUE",
            )


def _take_back(cluster: Cluster, node: str) -> None:
    for chain in _CHAINS:
        cluster.run_on_node(node, ["iptables", "--wait", "--table=mangle", "--delete", chain, *_RULE])
