"""What the IP family of a lab changes, and that it changes nothing for IPv4."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.cloud.eks import Scope
from harness.cloud.eks.clusters import Clusters
from harness.cloud.eks.model import Cluster
from harness.cloud.localstack.bootstrap import SystemIds
from harness.cluster import addresses
from harness.cluster.base import ClusterSpec, IpFamily
from harness.cluster.dns import aws_answers
from harness.cluster.native.control_plane import Credentials, control_plane
from harness.cluster.native.network import LabNetwork
from harness.cluster.native.node import addresses_of, new_node, node
from harness.doctor import ipv6_check
from harness.errors import UsageError
from harness.kube import load_manifests
from harness.lab import Lab
from harness.lab.native import NativeProvider
from harness.lab.paths import CHECKOUT
from harness.lab.reuse import makings
from harness.lab.wiring import webhook_manifests
from harness.pki import KeyPair
from harness.progress import Progress

FAMILIES: tuple[IpFamily, ...] = ("ipv4", "ipv6", "dual")
LAB = LabNetwork("one", "10.213.7.0/24", addresses.ipv6_beside("10.213.7.0/24"))
PROGRAMS = {
    name: Path(f"/cache/{name}")
    for name in (
        *("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"),
        *("containerd", "runc", "bridge", "kubelet", "kube-proxy"),
    )
}


def flags(ip_family: IpFamily, tmp_path: Path) -> dict[str, str]:
    """Return the flags of a cluster's programs that have to do with addresses; the kubelet's and proxy's files too."""
    spec = ClusterSpec(ip_family=ip_family)
    credentials = Credentials(tmp_path, "https://10.213.7.16:6443", "PEM")
    the_node = new_node(LAB if ip_family != "ipv4" else LabNetwork("one", "10.213.7.0/24"), 0, spec.region)
    first, *_ = addresses_of(the_node, spec)
    programs = control_plane(spec, credentials, PROGRAMS, address=first, data=tmp_path)
    programs += node(
        spec,
        credentials,
        PROGRAMS,
        node=the_node,
        number=10,
        cgroup="g",
        registry="10.213.7.2:5000",
        images=tmp_path / "cache/unpacked/none",
        configuration=tmp_path / "node",
        data=tmp_path,
    )
    given = dict(flag.split("=", 1) for program in programs for flag in program.argv[1:] if "=" in flag)
    kubelet: dict[str, Any] = json.loads((tmp_path / "node" / "kubelet.json").read_text())
    proxy: dict[str, Any] = json.loads((tmp_path / "node" / "kube-proxy.json").read_text())
    wanted = ("--advertise-address", "--service-cluster-ip-range", "--cluster-cidr", "--node-ip")
    found = {name: given[name] for name in wanted}
    return found | {"clusterDNS": kubelet["clusterDNS"][0], "clusterCIDR": proxy["clusterCIDR"]}


def test_an_ipv4_cluster_is_what_it_was(tmp_path: Path) -> None:
    assert flags("ipv4", tmp_path) == {
        "--advertise-address": "10.213.7.16",
        "--service-cluster-ip-range": "10.96.0.0/16",
        "--cluster-cidr": "10.244.0.0/16",
        "--node-ip": "10.213.7.16",
        "clusterDNS": "10.96.0.10",
        "clusterCIDR": "10.244.0.0/16",
    }
    (bridge, _) = json.loads((tmp_path / "node" / "cni" / "10-lab.conflist").read_text())["plugins"]
    assert bridge["ipam"] == {
        "type": "host-local",
        "ranges": [[{"subnet": "10.244.10.0/24"}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }


def test_an_ipv6_cluster_knows_no_other_address(tmp_path: Path) -> None:
    assert flags("ipv6", tmp_path) == {
        "--advertise-address": "fd0a:d507::10",
        "--service-cluster-ip-range": "fd0a:60::/108",
        "--cluster-cidr": "fd0a:f4::/48",
        "--node-ip": "fd0a:d507::10",
        "clusterDNS": "fd0a:60::a",
        "clusterCIDR": "fd0a:f4::/48",
    }
    (bridge, _) = json.loads((tmp_path / "node" / "cni" / "10-lab.conflist").read_text())["plugins"]
    assert bridge["ipam"] == {
        "type": "host-local",
        "ranges": [[{"subnet": "fd0a:f4:0:a::/64"}]],
        "routes": [{"dst": "::/0"}],
    }


def test_a_cluster_with_both_has_ipv4_first(tmp_path: Path) -> None:
    assert flags("dual", tmp_path) == {
        "--advertise-address": "10.213.7.16",
        "--service-cluster-ip-range": "10.96.0.0/16,fd0a:60::/108",
        "--cluster-cidr": "10.244.0.0/16,fd0a:f4::/48",
        "--node-ip": "10.213.7.16,fd0a:d507::10",
        "clusterDNS": "10.96.0.10",
        "clusterCIDR": "10.244.0.0/16,fd0a:f4::/48",
    }


def test_nodes_of_labs_side_by_side_have_different_addresses() -> None:
    other = LabNetwork("two", "10.213.8.0/24", addresses.ipv6_beside("10.213.8.0/24"))

    assert new_node(LAB, 3, "eu-west-1").ipv6 == "fd0a:d507::13"
    assert new_node(other, 3, "eu-west-1").ipv6 == "fd0a:d508::13"
    assert LAB.aws_addresses == {4: "10.213.7.2", 6: "fd0a:d507::2"}
    assert LabNetwork(**json.loads(json.dumps(asdict(LAB)))) == LAB


@pytest.mark.parametrize(
    ("ip_family", "told"),
    [
        ("ipv4", []),
        ("ipv6", ["--container-credentials-full-uri=http://[fd00:ec2::23]/v1/credentials"]),
        ("dual", []),
    ],
)
def test_the_webhook_is_told_of_ipv6_by_its_flag(ip_family: IpFamily, told: list[str]) -> None:
    spec = ClusterSpec(ip_family=ip_family)
    manifests = webhook_manifests(spec, "image", "PEM", KeyPair("PEM", "PEM"), CHECKOUT / "webhook" / "deploy")

    (deployment,) = [manifest for manifest in manifests if manifest["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert [argument for argument in container["args"] if "credentials-full-uri" in argument] == told


@pytest.mark.parametrize(
    ("ip_family", "told"),
    [
        ("ipv4", {"ipFamily": "ipv4", "serviceIpv4Cidr": "10.96.0.0/16"}),
        ("ipv6", {"ipFamily": "ipv6", "serviceIpv6Cidr": "fd0a:60::/108"}),
        # EKS has no such cluster; it is described as what its pods have first.
        ("dual", {"ipFamily": "ipv4", "serviceIpv4Cidr": "10.96.0.0/16"}),
    ],
)
def test_eks_describes_the_family(ip_family: IpFamily, told: dict[str, str]) -> None:
    scope, now = Scope("123456789012", "eu-west-1"), datetime(2026, 1, 1, tzinfo=UTC)
    first, *_ = addresses.service_networks(ClusterSpec(ip_family=ip_family))
    clusters = Clusters(SystemIds())
    clusters.bind(
        Cluster(
            name="one",
            scope=scope,
            issuer="https://oidc.eks.eu-west-1.amazonaws.com/id/A",
            endpoint="https://10.0.0.1",
            certificate_authority="PEM",
            version="1.34",
            created_at=now,
            role_arn="arn:aws:iam::123456789012:role/r",
            service_cidr=first,
        )
    )

    assert clusters.describe(scope, {"name": "one"})["cluster"]["kubernetesNetworkConfig"] == told


@pytest.fixture
def up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A lab with IPv6 that says it is up."""
    monkeypatch.setenv("PODID_STATE_DIR", str(tmp_path))
    lab = Lab("six")
    lab.paths.directory.mkdir(parents=True)
    description = {"provider": "native", "ip_family": "ipv6", "made_of": makings("native", {})}
    lab.paths.description.write_text(json.dumps(description))
    monkeypatch.setattr(Lab, "is_up", property(lambda _: True))
    monkeypatch.setattr(NativeProvider, "require", lambda *_: None)
    monkeypatch.setattr(NativeProvider, "clusters", lambda _: [])
    return lab


@pytest.mark.parametrize("requested", ["ipv4", "dual"])
def test_a_lab_keeps_its_family(up: Lab, requested: IpFamily) -> None:
    up.up([], Progress())
    up.up([], Progress(), ip_family="ipv6")

    with pytest.raises(UsageError, match=rf"'six' is up with IP family ipv6, not {requested}\n.*podid down"):
        up.up([], Progress(), ip_family=requested)


def test_a_lab_from_before_has_ipv4(up: Lab) -> None:
    up.paths.description.write_text(json.dumps({"provider": "native", "made_of": makings("native", {})}))

    assert up.ip_family == "ipv4"
    up.up([], Progress(), ip_family="ipv4")


@pytest.mark.parametrize("ip_family", FAMILIES)
def test_dns_s_manifests_have_no_word_left_to_fill_in(ip_family: IpFamily) -> None:

    spec = ClusterSpec(ip_family=ip_family)
    words = {"CLUSTER_DNS": addresses.cluster_dns(spec), "ELB_ADDRESS": "10.213.7.16"}
    manifests = load_manifests(
        CHECKOUT / "fixtures" / "lab" / "coredns.yaml", words | aws_answers(spec, LAB.aws_addresses)
    )

    (service,) = [manifest for manifest in manifests if manifest["kind"] == "Service"]
    assert service["spec"]["clusterIP"] == addresses.cluster_dns(spec)
    assert "ANSWER_" not in yaml.safe_dump_all(manifests)


@pytest.mark.parametrize(
    ("parameters", "ip_family", "status", "found"),
    [
        ({"disable": "0", "disable_ipv6": "0"}, "ipv6", "ok", "there"),
        ({"disable": "1", "disable_ipv6": "0"}, "ipv6", "fail", "switched off at boot: ipv6.disable=1"),
        ({"disable": "0", "disable_ipv6": "1"}, "dual", "fail", "switched off at boot: ipv6.disable_ipv6=1"),
        ({"disable": "0", "disable_ipv6": "1"}, "ipv4", "warn", "switched off at boot: ipv6.disable_ipv6=1"),
        ({}, "ipv6", "fail", "the kernel lacks it"),
    ],
)
def test_doctor_fails_for_want_of_ipv6_only_where_it_is_wanted(
    tmp_path: Path, parameters: dict[str, str], ip_family: IpFamily, status: str, found: str
) -> None:
    for name, value in parameters.items():
        (tmp_path / name).write_text(f"{value}\n")

    check = ipv6_check(ip_family, tmp_path if parameters else tmp_path / "none")

    assert (check.status, check.found.partition(",")[0]) == (status, found)
    assert check.status == "ok" or check.fix.endswith("or use --ip-family ipv4")
