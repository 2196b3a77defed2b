"""What of the kind provider is pure: the rendered configuration, DNS, node images, ownership, refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from docker.errors import APIError

from harness.cluster import pod_network
from harness.cluster.addresses import pods_of
from harness.cluster.base import ClusterSpec, IpFamily
from harness.cluster.dns import aws_answers
from harness.cluster.kind.binary import is_supported, version_of
from harness.cluster.kind.cluster import BASE_CONFIGURATION
from harness.cluster.kind.configuration import NodeTraits, patched_corefile, render
from harness.cluster.kind.engine import Engine, is_lab_node, refusal
from harness.cluster.kind.node_image import traits_of
from harness.errors import HarnessFault, MissingPrerequisite

OFFICIAL = NodeTraits("v1.34.11", uses_systemd_cgroups=True, brings_network=False)
STATIC = NodeTraits("v1.34.4", uses_systemd_cgroups=False, brings_network=True)
COREFILE = """\
.:53 {
    errors
    health {
       lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }
    prometheus :9153
    forward . /etc/resolv.conf {
       max_concurrent 1000
    }
    cache 30
    loop
    reload
    loadbalance
}
"""


ANSWERS = aws_answers(ClusterSpec(), {4: "172.18.255.254"})


def rendered(
    traits: NodeTraits = OFFICIAL,
    *,
    cgroup_version: str = "2",
    nodes: int = 1,
    ip_family: IpFamily = "ipv4",
    network: Path | None = None,
) -> dict[str, Any]:
    text = render(
        BASE_CONFIGURATION.read_text(),
        replace(ClusterSpec.named("two", nodes=nodes), ip_family=ip_family),
        traits,
        cgroup_version=cgroup_version,
        instance_ids=[f"i-{number}" for number in range(nodes)],
        network=network,
    )
    return yaml.safe_load(text)


def patches_of(kind: str, place: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return kubeadm's version → operations on its configuration of this kind."""
    patches = place["kubeadmConfigPatchesJSON6902"]
    return {one["version"]: yaml.safe_load(one["patch"]) for one in patches if one["kind"] == kind}


def test_with_workers_the_control_plane_takes_pods_too() -> None:
    first, *others = rendered(nodes=3)["nodes"]

    assert [yaml.safe_load(patch) for patch in first["kubeadmConfigPatches"]] == [
        {"kind": "InitConfiguration", "nodeRegistration": {"taints": []}}
    ]
    assert [node["role"] for node in others] == ["worker", "worker"]


def test_both_forms_of_kubeadm_s_configuration_say_the_same() -> None:
    """The cluster's issuer, and controllers that outlive their API server."""
    issuer = ClusterSpec.named("two").issuer
    arguments = [
        ("apiServer", "service-account-issuer", issuer),
        ("apiServer", "service-account-jwks-uri", f"{issuer}/keys"),
        ("controllerManager", "leader-elect", "false"),
        ("scheduler", "leader-elect", "false"),
    ]

    patches = patches_of("ClusterConfiguration", rendered())

    assert patches["v1beta3"] == [
        {"op": "add", "path": f"/{program}/extraArgs/{name}", "value": value} for program, name, value in arguments
    ]
    assert patches["v1beta4"] == [
        {"op": "add", "path": f"/{program}/extraArgs/-", "value": {"name": name, "value": value}}
        for program, name, value in arguments
    ]


@pytest.mark.parametrize(
    ("number", "kind"), [(0, "InitConfiguration"), (1, "JoinConfiguration"), (2, "JoinConfiguration")]
)
def test_both_forms_tell_every_kubelet_which_instance_it_is(number: int, kind: str) -> None:
    """LBC-NODE-PROVIDERID."""
    node = rendered(nodes=3)["nodes"][number]
    patches = patches_of(kind, node)
    value = f"aws:///eu-west-1a/i-{number}"
    arguments = "/nodeRegistration/kubeletExtraArgs"

    assert patches["v1beta3"] == [{"op": "add", "path": f"{arguments}/provider-id", "value": value}]
    assert patches["v1beta4"] == [
        {"op": "add", "path": f"{arguments}/-", "value": {"name": "provider-id", "value": value}}
    ]
    assert node["labels"]["topology.kubernetes.io/zone"] == "eu-west-1a"


def test_kind_s_own_node_image_gets_nothing_but_the_base() -> None:
    assert rendered()["kubeadmConfigPatches"] == yaml.safe_load(BASE_CONFIGURATION.read_text())["kubeadmConfigPatches"]
    assert "disableDefaultCNI" not in rendered()["networking"]


def test_a_node_image_with_cgroupfs_gets_a_kubelet_that_does_the_same() -> None:
    configuration = rendered(STATIC, cgroup_version="1")

    _, patch = configuration["kubeadmConfigPatches"]
    assert yaml.safe_load(patch) == {
        "kind": "KubeletConfiguration",
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": False,
    }


def test_an_ipv4_cluster_has_kind_s_own_networks() -> None:
    assert rendered()["networking"] == {"ipFamily": "ipv4", "apiServerAddress": "127.0.0.1"}


@pytest.mark.parametrize(
    ("ip_family", "pods", "services"),
    [
        ("ipv6", "fd0a:f4::/48", "fd0a:60::/108"),
        ("dual", "10.244.0.0/16,fd0a:f4::/48", "10.96.0.0/16,fd0a:60::/108"),
    ],
)
def test_another_ip_family_comes_with_its_networks(ip_family: IpFamily, pods: str, services: str) -> None:
    """Those that EKS is told, too; this machine still reaches the API server over IPv4."""
    assert rendered(ip_family=ip_family)["networking"] == {
        "ipFamily": ip_family,
        "apiServerAddress": "127.0.0.1",
        "podSubnet": pods,
        "serviceSubnet": services,
    }


def test_a_node_without_kind_s_network_gets_a_configuration_of_ours() -> None:
    configuration = rendered(STATIC, network=Path("/lab/cni"))

    assert configuration["networking"]["disableDefaultCNI"] is True
    assert configuration["nodes"][0]["extraMounts"] == [
        {"hostPath": "/lab/cni", "containerPath": "/etc/cni/net.d", "readOnly": True}
    ]


@pytest.mark.parametrize(
    ("ip_family", "ranges", "routes"),
    [
        ("ipv4", ["10.244.1.0/24"], ["0.0.0.0/0"]),
        ("ipv6", ["fd0a:f4:0:1::/64"], ["::/0"]),
        ("dual", ["10.244.1.0/24", "fd0a:f4:0:1::/64"], ["0.0.0.0/0", "::/0"]),
    ],
)
def test_a_node_s_pods_have_addresses_of_the_lab_s_ip_family(
    ip_family: IpFamily, ranges: list[str], routes: list[str]
) -> None:
    networks = pods_of(replace(ClusterSpec(), ip_family=ip_family), 1)

    bridge, _ = json.loads(pod_network.configuration(networks))["plugins"]

    assert [entry["subnet"] for (entry,) in bridge["ipam"]["ranges"]] == ranges
    assert [entry["dst"] for entry in bridge["ipam"]["routes"]] == routes


@pytest.mark.parametrize(
    ("ip_family", "ipv4", "ipv6"),
    [
        ("ipv4", 'answer "{{ .Name }} 30 IN A 172.18.255.254"', "rcode NOERROR"),
        ("ipv6", "rcode NOERROR", 'answer "{{ .Name }} 30 IN AAAA fdac:1200::1"'),
        ("dual", 'answer "{{ .Name }} 30 IN A 172.18.255.254"', 'answer "{{ .Name }} 30 IN AAAA fdac:1200::1"'),
    ],
)
def test_pods_are_told_the_addresses_that_they_can_reach(ip_family: IpFamily, ipv4: str, ipv6: str) -> None:
    answers = aws_answers(ClusterSpec(ip_family=ip_family), {4: "172.18.255.254", 6: "fdac:1200::1"})
    block = patched_corefile(COREFILE, answers, "172.18.0.2").split("\namazonaws.com:53 api.aws:53 {", 1)[1]

    assert block.startswith(
        f"""
    errors
    template IN A amazonaws.com api.aws {{
        {ipv4}
    }}
    template IN AAAA amazonaws.com api.aws {{
        {ipv6}
    }}
    cache 30
}}
"""
    )


def test_unknown_names_are_unknown_at_once_and_aws_is_the_lab_s() -> None:
    """CoreDNS asks template before kubernetes: in one block the catch-all would hide the cluster's own names."""
    patched = patched_corefile(COREFILE, ANSWERS, "172.18.0.2")

    cluster, aws, rest = patched.split("}\n\n")[0].split("\namazonaws.com:53", 1)[0], *patched.split("\n.:53 {", 1)
    assert cluster.startswith("cluster.local:53 in-addr.arpa:53 ip6.arpa:53 {\n    errors\n")
    assert "kubernetes cluster.local" in cluster
    assert "forward" not in patched
    assert "max_concurrent" not in patched
    assert "loop\n" not in patched
    assert 'answer "{{ .Name }} 30 IN A 172.18.255.254"' in aws
    assert "rcode NXDOMAIN" in rest
    assert patched.count("{") == patched.count("}")


def test_load_balancers_are_the_node_s() -> None:
    patched = patched_corefile(COREFILE, ANSWERS, "172.18.0.2")

    block = patched.split("\nelb.amazonaws.com:53 {", 1)[1].split("\n}", 1)[0]
    assert 'template IN A elb.amazonaws.com {\n        answer "{{ .Name }} 30 IN A 172.18.0.2"' in block


def test_patching_twice_changes_nothing() -> None:
    once = patched_corefile(COREFILE, ANSWERS, "172.18.0.2")

    assert patched_corefile(once, ANSWERS, "172.18.0.2") == once


def test_traits_are_read_from_the_image_s_own_files() -> None:
    official = "v1.34.11\n--podid--\n  SystemdCgroup = true\n--podid--\n"
    static = "v1.34.4\n--podid--\n  SystemdCgroup = false\n--podid--\n10-bridge.conflist\n"

    assert traits_of("kindest/node:v1.34.11", official) == OFFICIAL
    assert traits_of("kindest/node:v1.34.4", static) == STATIC
    assert STATIC.minor == "1.34"


def test_an_image_that_is_no_node_image_is_refused() -> None:
    with pytest.raises(HarnessFault, match=r"busybox is no node image of kind: /kind/version says ''"):
        traits_of("busybox", "")


@pytest.mark.parametrize(
    ("attributes", "is_ours"),
    [
        ({"Labels": {"io.x-k8s.kind.cluster": "a"}, "NetworkSettings": {"Networks": {"podid-a": {}}}}, True),
        ({"Labels": {"io.x-k8s.kind.cluster": "a"}, "HostConfig": {"NetworkMode": "podid-a"}}, True),
        ({"Labels": {"io.x-k8s.kind.cluster": "a"}, "NetworkSettings": {"Networks": {"kind": {}}}}, False),
        ({"Labels": {}, "NetworkSettings": {"Networks": {"podid-a": {}}}}, False),
        ({"Labels": None, "NetworkSettings": None, "HostConfig": None}, False),
    ],
    ids=["running", "created", "on another network", "not a node", "bare"],
)
def test_a_node_is_the_lab_s_when_kind_put_it_on_the_lab_s_network(attributes: dict[str, Any], is_ours: bool) -> None:
    assert is_lab_node(attributes, "podid-a") is is_ours


class Containers:
    """The containers of an engine that refuses some."""

    def __init__(self, *, refuses_all: bool) -> None:
        self.refuses_all = refuses_all

    def create(self, *_: object, privileged: bool, **__: object) -> Containers:
        if privileged or self.refuses_all:
            raise APIError("403", explanation="authorization denied by plugin policy: not in this house")
        return self

    def start(self) -> None: ...

    def wait(self, timeout: float) -> None: ...

    def logs(self) -> bytes:
        return b"ran"

    def remove(self, **_: object) -> None: ...


def engine_that_refuses(*, everything: bool) -> Engine:
    return Engine(SimpleNamespace(containers=Containers(refuses_all=everything)))


def test_an_engine_that_refuses_privileged_containers_is_said_exactly() -> None:
    with pytest.raises(MissingPrerequisite) as error:
        engine_that_refuses(everything=False).run_privileged("node", ["true"], {})

    assert "the Docker engine refuses docker run --privileged, which kind's nodes need" in str(error.value)
    assert "not in this house" in str(error.value)


def test_an_engine_that_refuses_every_container_is_not_said_to_refuse_privileged_ones() -> None:
    with pytest.raises(HarnessFault, match="running a container failed: authorization denied"):
        engine_that_refuses(everything=True).run_privileged("node", ["true"], {})


def test_a_full_disk_of_the_engine_is_a_missing_prerequisite() -> None:
    error = refusal("loading images", "write /var/lib/docker/x: no space left on device")

    assert isinstance(error, MissingPrerequisite)
    assert "docker system prune" in error.hint


@pytest.mark.parametrize(
    ("printed", "is_good"),
    [
        ("kind v0.33.0 go1.26.6 linux/amd64", True),
        ("kind v0.29.0 go1.24 darwin/arm64", True),
        ("kind v0.28.0 go1.24 linux/amd64", False),
        ("kind v0.34.0 go1.27 linux/amd64", False),
        ("hello", False),
    ],
)
def test_kind_is_used_only_in_versions_that_we_know(tmp_path: Path, printed: str, is_good: bool) -> None:
    program = tmp_path / "kind"
    program.write_text(f"#!/bin/sh\necho '{printed}'\n")
    program.chmod(0o755)

    assert is_supported(version_of(program)) is is_good


def test_a_kind_that_does_not_run_is_not_used(tmp_path: Path) -> None:
    assert version_of(tmp_path / "kind") is None
