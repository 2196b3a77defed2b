"""containerd, kubelet and kube-proxy of a native cluster's node, and their configuration files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.cluster import pod_network
from harness.cluster.addresses import cluster_dns, pod_networks, pods_of
from harness.cluster.base import ClusterSpec, Node
from harness.cluster.native import image_store
from harness.cluster.native.control_plane import Credentials
from harness.cluster.native.network import LabNetwork
from harness.cluster.native.sandbox import Program
from harness.image_lock import read_lock

__all__ = ["DIRECTORIES", "REGISTRY_PORT", "addresses_of", "new_node", "node", "write_system_files"]

DIRECTORIES = ("/run/containerd", "/var/log/containers", "/var/lib/cni")
"""What has to be there before a node's programs start."""

REGISTRY_PORT = 5000
_CONTAINERD = "containerd"
_LABELS = (
    "node.kubernetes.io/instance-type=m5.large,topology.kubernetes.io/region=eu-west-1,"
    "topology.kubernetes.io/zone=eu-west-1a"
)
# Host names that pods in the node's own network need; everyone else asks CoreDNS.
_AWS_HOSTS = ("eks-auth.{region}.api.aws", "eks.{region}.amazonaws.com", "sts.{region}.amazonaws.com")


def new_node(lab: LabNetwork, index: int, region: str) -> Node:
    """Return the node with an index of a lab; the same index always gives the same instance.

    Args:
        lab: The lab's network.
        index: Number of the node among all of the lab.
        region: Region that it stands in.
    """
    address = lab.node_address(index)
    instance = "i-0" + hashlib.sha256(f"{lab.lab}/{index}".encode()).hexdigest()[:16]
    name = f"ip-{address.replace('.', '-')}.{region}.compute.internal"
    return Node(name, address, instance, lab.node_ipv6(index) if lab.ipv6 else "")


def addresses_of(node: Node, spec: ClusterSpec) -> list[str]:
    """Return a node's addresses as Kubernetes knows them: of the versions of IP that its cluster has."""
    return [{4: node.address, 6: node.ipv6}[version] for version in spec.ip_versions]


def write_system_files(
    configuration: Path, data: Path, node: Node, spec: ClusterSpec, lab: LabNetwork
) -> dict[str, str]:
    """Write a node's own system files, and return the mounts that put everything in its place.

    Args:
        configuration: Directory for the files.
        data: Directory for what the node's programs keep.
        node: The node.
        spec: Its cluster.
        lab: The lab's network.
    """
    aws_hosts = " ".join(host.format(region=spec.region) for host in _AWS_HOSTS)
    files = {
        "/etc/hosts": f"127.0.0.1 localhost\n::1 localhost\n{node.address} {node.name}\n"
        f"{lab.aws_address} {aws_hosts}\n",
        # Nothing answers there on purpose: a name that CoreDNS does not know fails at once.
        "/etc/resolv.conf": "nameserver 127.0.0.1\noptions attempts:1 timeout:1\n",
    }
    mounts = {"/run": "tmpfs"}
    for target, text in files.items():
        file = configuration / Path(target).name
        file.write_text(text)
        mounts[target] = str(file)
    for target in ("/var/lib", "/var/log"):
        source = data / "var" / Path(target).name
        source.mkdir(parents=True)
        mounts[target] = str(source)
    return mounts


def node(
    spec: ClusterSpec,
    credentials: Credentials,
    binaries: Mapping[str, Path],
    *,
    node: Node,
    number: int,
    cgroup: str,
    registry: str,
    images: Path,
    configuration: Path,
    data: Path,
) -> list[Program]:
    """Give the node its images, write its configuration files and return its programs.

    Args:
        spec: Its cluster.
        credentials: The cluster's certificates.
        binaries: Program name → path; all in directories of their own kind.
        node: The node.
        number: Number of the node in its cluster; the first is 0.
        cgroup: Name of the top-level cgroup that holds all pods.
        registry: ``host:port`` of the lab's registry.
        images: The store of images that it begins with.
        configuration: Directory for the files.
        data: Directory for images and volumes; not on an overlay file system.
    """
    configuration.mkdir(parents=True, exist_ok=True)
    image_store.clone(images, data / _CONTAINERD)
    image_store.write_mirrors(configuration / "certs.d", registry)
    (configuration / "cni").mkdir(parents=True, exist_ok=True)
    (configuration / "cni" / pod_network.FILE_NAME).write_text(pod_network.configuration(pods_of(spec, number)))
    (configuration / "containerd.toml").write_text(_containerd(configuration, binaries, data))
    kubelet = _kubelet(
        spec, credentials, cgroup=cgroup, configuration=configuration, data=data, instance_id=node.instance_id
    )
    (configuration / "kubelet.json").write_text(json.dumps(kubelet, indent=1))
    (configuration / "kube-proxy.json").write_text(json.dumps(_kube_proxy(spec, credentials, node.name), indent=1))
    search_path = ":".join(dict.fromkeys(str(path.parent) for path in binaries.values()))
    path = f"{search_path}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    kubelet_flags = [
        f"--config={configuration / 'kubelet.json'}",
        f"--kubeconfig={credentials.file('kubelet.kubeconfig')}",
        # Its usual one, in the node's own mounts: the path of a socket holds 107 bytes, and labs may have long names.
        "--root-dir=/var/lib/kubelet",
        f"--hostname-override={node.name}",
        f"--node-ip={','.join(addresses_of(node, spec))}",
        f"--node-labels={_LABELS}",
    ]
    return [
        # containerd finds its shim, and the shim runc, through PATH.
        Program(
            "containerd",
            [str(binaries["containerd"]), "--config", str(configuration / "containerd.toml")],
            {"PATH": path},
        ),
        Program("kubelet", [str(binaries["kubelet"]), *kubelet_flags], {"PATH": path}),
        Program("kube-proxy", [str(binaries["kube-proxy"]), f"--config={configuration / 'kube-proxy.json'}"]),
    ]


def _containerd(configuration: Path, binaries: Mapping[str, Path], data: Path) -> str:
    return f"""\
version = 3
root = "{data / _CONTAINERD}"
state = "/run/containerd"

[grpc]
  address = "/run/containerd/containerd.sock"

[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{read_lock()["pause"].reference}"

[plugins."io.containerd.cri.v1.images".registry]
  config_path = "{configuration / "certs.d"}"

[plugins."io.containerd.cri.v1.runtime"]
  # Lowering a score needs CAP_SYS_RESOURCE, which some machines withhold even from root.
  restrict_oom_score_adj = true

[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["{binaries["bridge"].parent}"]
  conf_dir = "{configuration / "cni"}"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  BinaryName = "{binaries["runc"]}"
  SystemdCgroup = false
"""


def _kubelet(
    spec: ClusterSpec, credentials: Credentials, *, cgroup: str, configuration: Path, data: Path, instance_id: str
) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "x509": {"clientCAFile": str(credentials.file("ca.crt"))},
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(credentials.file("kubelet.crt")),
        "tlsPrivateKeyFile": str(credentials.file("kubelet.key")),
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "clusterDNS": [cluster_dns(spec)],
        "clusterDomain": "cluster.local",
        "resolvConf": str(configuration / "resolv.conf"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroup}",
        "failSwapOn": False,
        "failCgroupV1": False,
        "enforceNodeAllocatable": [],
        "podLogsDir": str(data / "pods"),
        "providerID": f"aws:///eu-west-1a/{instance_id}",
        "imageGCHighThresholdPercent": 100,
        # The host's disk is not this cluster's to judge; its real limit shows up as a failed write.
        "evictionHard": {"memory.available": "0%", "nodefs.available": "0%", "imagefs.available": "0%"},
        # One quick look decides about readiness; the default of 10 s would be most of a start.
        "nodeStatusUpdateFrequency": "2s",
        # Kubelet's usual one, which the other would shorten too: what did not change need not be written again.
        "nodeStatusReportFrequency": "5m",
        "serializeImagePulls": False,
        "registryPullQPS": 0,
        "registerWithTaints": [],
    }


def _kube_proxy(spec: ClusterSpec, credentials: Credentials, name: str) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clusterCIDR": ",".join(pod_networks(spec)),
        "hostnameOverride": name,
        "clientConnection": {"kubeconfig": str(credentials.file("proxy.kubeconfig"))},
        # The tables of connection tracking belong to the host's kernel: leave its limits alone.
        "conntrack": {"maxPerCore": 0, "min": 0},
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
    }
