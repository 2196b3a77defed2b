"""A cluster's kind configuration: ``kind-config.yaml`` of the checkout, and over it what differs. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from harness.cluster.addresses import pod_networks, service_networks
from harness.cluster.base import ClusterSpec

__all__ = ["NodeTraits", "patched_corefile", "render"]

_ISSUER = "@ISSUER@"
_CNI_DIRECTORY = "/etc/cni/net.d"


@dataclass(frozen=True, slots=True)
class NodeTraits:
    """What a node image needs, read from the image itself."""

    kubernetes: str
    """Version, such as ``v1.34.4``."""
    uses_systemd_cgroups: bool
    """Whether its containerd leaves cgroups to systemd; kubelet must do the same."""
    brings_network: bool
    """Whether it has a CNI configuration instead of kind's default network; then it gets one of ours, by a mount."""

    @property
    def minor(self) -> str:
        """Version without the patch, such as ``1.34``."""
        return ".".join(self.kubernetes.removeprefix("v").split(".")[:2])


def render(
    base: str,
    spec: ClusterSpec,
    traits: NodeTraits,
    *,
    cgroup_version: str,
    instance_ids: Sequence[str],
    network: Path | None = None,
) -> str:
    """Return the configuration of one cluster.

    Args:
        base: Text of ``kind-config.yaml``.
        spec: The cluster; its issuer takes the place of ``@ISSUER@``, and it has workers if it has several nodes.
        traits: What the node image needs.
        cgroup_version: The engine's, ``1`` or ``2``.
        instance_ids: EC2 instance that each node stands for.
        network: Directory of the node's CNI configuration, where kind's default network is not to be installed.
    """
    configuration: dict[str, Any] = yaml.safe_load(base.replace(_ISSUER, spec.issuer))
    if spec.ip_family != "ipv4":
        configuration["networking"] |= {
            "ipFamily": spec.ip_family,
            "podSubnet": ",".join(pod_networks(spec)),
            "serviceSubnet": ",".join(service_networks(spec)),
        }
    kubelet: dict[str, Any] = {}
    if not traits.uses_systemd_cgroups:
        kubelet["cgroupDriver"] = "cgroupfs"
    if cgroup_version == "1":
        # From 1.35 on kubelet does not start there unless it is told to; earlier ones know the field from 1.31 on.
        kubelet["failCgroupV1"] = False
    if kubelet:
        patch = yaml.safe_dump({"kind": "KubeletConfiguration", **kubelet})
        configuration["kubeadmConfigPatches"].append(patch)
    if spec.nodes > 1:
        first, *_ = configuration["nodes"]
        # kind keeps pods off the control plane as soon as there is a worker; here it is a node like the others.
        patch = yaml.safe_dump({"kind": "InitConfiguration", "nodeRegistration": {"taints": []}})
        first.setdefault("kubeadmConfigPatches", []).append(patch)
        labels = first["labels"]
        configuration["nodes"] += [{"role": "worker", "labels": dict(labels)} for _ in range(spec.nodes - 1)]
    for node, instance_id in zip(configuration["nodes"], instance_ids, strict=True):
        node["kubeadmConfigPatchesJSON6902"] = _instance(node["role"], f"aws:///{spec.region}a/{instance_id}")
    if network:
        configuration["networking"]["disableDefaultCNI"] = True
        (node,) = configuration["nodes"]
        node["extraMounts"] = [{"hostPath": str(network), "containerPath": _CNI_DIRECTORY, "readOnly": True}]
    return yaml.safe_dump(configuration, sort_keys=False)


def _instance(role: str, provider_id: str) -> list[dict[str, str]]:
    """Return patches, one for each version that kind may write, that make kubelet say which instance its node is.

    Load balancers find a pod's network interface by it. Of a flag given twice the last counts.
    """
    kind = "InitConfiguration" if role == "control-plane" else "JoinConfiguration"
    arguments = "/nodeRegistration/kubeletExtraArgs"
    operations = {
        "v1beta3": {"op": "add", "path": f"{arguments}/provider-id", "value": provider_id},
        "v1beta4": {"op": "add", "path": f"{arguments}/-", "value": {"name": "provider-id", "value": provider_id}},
    }
    return [
        {"group": "kubeadm.k8s.io", "version": version, "kind": kind, "patch": yaml.safe_dump([operation])}
        for version, operation in operations.items()
    ]


def patched_corefile(corefile: str, answers: Mapping[str, str], elb_address: str) -> str:
    """Return kind's Corefile with the lab's answers: for AWS, for load balancers, and nothing for unknown names.

    Server blocks of their own, because CoreDNS asks ``template`` before ``kubernetes`` whatever the order in a block.

    Args:
        corefile: The Corefile as kubeadm wrote it; patched again it stays the same.
        answers: From :func:`harness.cluster.dns.aws_answers`.
        elb_address: Address of the lab's load balancers.
    """
    if _CLUSTER_ZONES in corefile:
        return corefile
    kept: list[str] = []
    depth, skipped_depth = 0, None
    for line in corefile.splitlines():
        # ``loop`` looks for a forwarder that leads back; without one it has nothing to find.
        if depth == 1 and skipped_depth is None and line.split()[:1] in (["forward"], ["loop"]):
            skipped_depth = depth
        is_kept = skipped_depth is None
        depth += line.count("{") - line.count("}")
        if is_kept:
            kept.append(_CLUSTER_ZONES + " {" if line.startswith(".:53") else line)
        if skipped_depth == depth:
            skipped_depth = None
    blocks = _ANSWERS
    for word, value in {**answers, "ELB_ADDRESS": elb_address}.items():
        blocks = blocks.replace(word, value)
    return "\n".join([*kept, blocks])


_CLUSTER_ZONES = "cluster.local:53 in-addr.arpa:53 ip6.arpa:53"
_ANSWERS = """\
elb.amazonaws.com:53 {
    errors
    template IN A elb.amazonaws.com {
        answer "{{ .Name }} 30 IN A ELB_ADDRESS"
    }
    template IN AAAA elb.amazonaws.com {
        rcode NOERROR
    }
    cache 30
}
amazonaws.com:53 api.aws:53 {
    errors
    template IN A amazonaws.com api.aws {
        ANSWER_IPV4
    }
    template IN AAAA amazonaws.com api.aws {
        ANSWER_IPV6
    }
    cache 30
}
.:53 {
    errors
    template IN ANY . {
        rcode NXDOMAIN
    }
}
"""
