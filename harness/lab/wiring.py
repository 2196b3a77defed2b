"""What the lab adds to a cluster so that it looks like one on EKS; none of it is under test.

DNS answers for AWS, trust in the lab's CA, rights of EKS's control plane, and the webhook's certificate.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path

import yaml

from harness import limits, wait
from harness.cluster.base import Cluster, ClusterSpec
from harness.cluster.dns import aws_answers
from harness.kube import Kube, Manifest, load_manifests
from harness.lab.paths import CHECKOUT
from harness.pki import Authority, KeyPair

__all__ = [
    "agent_manifests",
    "apply_dns",
    "apply_pull_rule",
    "apply_wiring",
    "eks_rights",
    "install_webhook",
    "provide_agent_link",
    "replace_corefile",
    "trust_bundle",
    "wait_until_webhook_is_reached",
    "webhook_manifests",
]

_LAB = CHECKOUT / "fixtures" / "lab"
_AGENT_LINK = """
ip link add podid-probe type dummy 2> /dev/null && exec ip link delete podid-probe
ip link add pod-id-link0 type ifb || ip link add pod-id-link0 type bridge
"""
_WEBHOOK = "pod-identity-webhook"
# Packets that are on their way when the rules come are not led by them: try anew.
_CONNECT = ("timeout", "0.3", "bash", "-c", 'exec 3<> "/dev/tcp/$0/443"')
_SYSTEM_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")


def trust_bundle(lab_authority: str) -> str:
    """Return the host's trusted CAs and the lab's, PEM: what a pod of the lab trusts."""
    system = next((path.read_text() for path in map(Path, _SYSTEM_BUNDLES) if path.exists()), "")
    return system + lab_authority


def apply_wiring(kube: Kube, *, trust_bundle_path: str) -> None:
    """Apply trust and rights to a cluster whose API server is ready."""
    kube.apply(load_manifests(_LAB / "eks-control-plane.yaml"))
    kube.apply(load_manifests(_LAB / "trust.yaml", {"TRUST_BUNDLE": trust_bundle_path}))


def eks_rights(name: str, account: Manifest) -> list[Manifest]:
    """Return the rights of EKS's hand under another name, given to a ServiceAccount.

    Args:
        name: Name of roles and bindings.
        account: Name and namespace of the ServiceAccount.
    """
    manifests = load_manifests(_LAB / "eks-control-plane.yaml", {"podid:eks-control-plane": name})
    for manifest in manifests:
        if "subjects" in manifest:
            manifest["subjects"] = [{"kind": "ServiceAccount", **account}]
    return manifests


def apply_dns(
    kube: Kube, spec: ClusterSpec, *, cluster_dns: str, aws_addresses: Mapping[int, str], elb_address: str
) -> None:
    """Apply cluster DNS to a cluster that has none.

    Args:
        kube: Its administrator.
        spec: The cluster.
        cluster_dns: Address of the service.
        aws_addresses: Version of IP → address of the lab's AWS.
        elb_address: Address of the lab's load balancers.
    """
    words = {"CLUSTER_DNS": cluster_dns, "ELB_ADDRESS": elb_address}
    kube.apply(load_manifests(_LAB / "coredns.yaml", words | aws_answers(spec, aws_addresses)))


def apply_pull_rule(kube: Kube) -> None:
    """Make pods use the images that were loaded into their node, where there is no lab registry to pull from."""
    kube.apply(load_manifests(_LAB / "kind-images.yaml"))


def replace_corefile(kube: Kube, corefile: str) -> None:
    """Give a cluster's own CoreDNS another configuration, and a pod that starts with it."""
    digest = hashlib.sha256(corefile.encode()).hexdigest()
    manifests = load_manifests(_LAB / "kind-coredns.yaml", {"COREFILE_DIGEST": digest})
    for manifest in manifests:
        if manifest["kind"] == "ConfigMap":
            manifest["data"] = {"Corefile": corefile}
    kube.apply(manifests)


def agent_manifests(spec: ClusterSpec, image: str, deploy: Path = CHECKOUT / "agent" / "deploy") -> list[Manifest]:
    """Return the agent's manifests with image, cluster name and region filled in, as the add-on does it on EKS."""
    manifests = _read_all(deploy)
    for manifest in manifests:
        if manifest["kind"] == "DaemonSet":
            pod = manifest["spec"]["template"]["spec"]
            for container in pod.get("initContainers", []) + pod["containers"]:
                container["image"] = image
                _fill_in(container, spec)
    return manifests


def _fill_in(container: Manifest, spec: ClusterSpec) -> None:
    arguments: list[str] = container.get("args", [])
    if "--cluster-name" in arguments:
        arguments[arguments.index("--cluster-name") + 1] = spec.name
    for entry in container.get("env", []):
        if entry["name"] == "AWS_REGION":
            entry["value"] = spec.region
    # Lab-only: the agent's client verifies AWS's certificate with the bundle that the lab mounts there.
    container.setdefault("env", []).append({"name": "AWS_CA_BUNDLE", "value": "/etc/ssl/certs/ca-certificates.crt"})


def provide_agent_link(cluster: Cluster) -> None:
    """Create the agent's link on nodes whose kernel lacks the dummy driver, which other agents than ours need."""
    for node in cluster.nodes:
        cluster.run_on_node(node.name, ["sh", "-c", _AGENT_LINK])


def install_webhook(kube: Kube, spec: ClusterSpec, image: str, deploy: Path = CHECKOUT / "webhook" / "deploy") -> None:
    """Apply the webhook's manifests with a certificate of its own and its CA in the registration; does not wait."""
    authority = Authority(f"{_WEBHOOK}-ca")
    service = f"{_WEBHOOK}.kube-system"
    names = [_WEBHOOK, service, f"{service}.svc", f"{service}.svc.cluster.local"]
    pair = authority.issue(names[2], names=names, serving=True)
    kube.apply(webhook_manifests(spec, image, authority.certificate, pair, deploy))


def wait_until_webhook_is_reached(cluster: Cluster, kube: Kube) -> None:
    """Wait until the webhook's Service leads to it on the API server's node.

    It can be Available before kube-proxy has written its rules, and a pod of that moment is admitted without it.
    """
    address = kube.read("v1", "Service", _WEBHOOK, "kube-system")["spec"]["clusterIP"]
    node = cluster.nodes[0].name
    wait.until(
        lambda: cluster.run_on_node(node, [*_CONNECT, address]).returncode,
        lambda code: code == 0,
        what=f"the webhook's Service to lead to it on {node}",
        timeout=limits.WEBHOOK_READY,
        hint=f"see: podid logs {cluster.name}/kube-proxy",
    )


def webhook_manifests(
    spec: ClusterSpec, image: str, authority: str, pair: KeyPair, deploy: Path = CHECKOUT / "webhook" / "deploy"
) -> list[Manifest]:
    """Return the webhook's manifests with one replica.

    Args:
        spec: The cluster.
        image: Reference of the webhook's image.
        authority: CA that signed the serving certificate, PEM.
        pair: Serving certificate and key.
        deploy: Directory of the manifests.
    """
    manifests = _read_all(deploy)
    for manifest in manifests:
        if manifest["kind"] == "MutatingWebhookConfiguration":
            for webhook in manifest["webhooks"]:
                webhook["clientConfig"]["caBundle"] = base64.b64encode(authority.encode()).decode()
        if manifest["kind"] == "Secret":
            manifest["data"] = {
                "tls.crt": base64.b64encode(pair.certificate.encode()).decode(),
                "tls.key": base64.b64encode(pair.key.encode()).decode(),
            }
        if manifest["kind"] == "Deployment":
            manifest["spec"]["replicas"] = 1
            (container,) = manifest["spec"]["template"]["spec"]["containers"]
            container["image"] = image
            container["args"] = [_with_region(argument, spec.region) for argument in container["args"]]
            if spec.ip_versions[0] == 6:
                # As EKS does it: the webhook does not look for itself what pods can reach (WHK-313).
                uri = f"http://{spec.agent_host}/v1/credentials"
                container["args"].append(f"--container-credentials-full-uri={uri}")
    return manifests


def _with_region(argument: str, region: str) -> str:
    return f"--aws-default-region={region}" if argument.startswith("--aws-default-region=") else argument


def _read_all(directory: Path) -> list[Manifest]:
    return [
        manifest
        for file in sorted(directory.glob("*.yaml"))
        for manifest in yaml.safe_load_all(file.read_text())
        if manifest
    ]
