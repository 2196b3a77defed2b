"""etcd, API server, controller manager and scheduler of a native cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.cluster.addresses import api_services, pod_networks, service_networks
from harness.cluster.base import ClusterSpec
from harness.cluster.native.sandbox import Program
from harness.pki import Authority, new_service_account_key, write_private

__all__ = [
    "Credentials",
    "control_plane",
    "issue_credentials",
    "issue_node_credentials",
    "kubeconfig",
]

# User name → group, as the components and their built-in RBAC bindings expect them.
_CLIENTS = {
    "admin": ("podid:admin", "system:masters"),
    "controller-manager": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    "proxy": ("system:kube-proxy", ""),
    "eks": ("podid:eks-control-plane", ""),
}


@dataclass(frozen=True, slots=True)
class Credentials:
    """Where a cluster's certificates, keys and kubeconfig files are."""

    directory: Path
    endpoint: str
    certificate_authority: str

    def file(self, name: str) -> Path:
        """Return the path of a file such as ``admin.crt`` or ``admin.kubeconfig``."""
        return self.directory / name


def issue_credentials(directory: Path, spec: ClusterSpec, *, addresses: Sequence[str], node: str) -> Credentials:
    """Make a cluster's CA, certificates, service-account key and kubeconfig files.

    Args:
        directory: Where to write them; created with mode 0700.
        spec: The cluster.
        addresses: Addresses of the node, which the API server listens on, that for clients first.
        node: Name of the node.
    """
    directory.mkdir(mode=0o700, parents=True)
    authority = Authority("podid-cluster")
    authority.key_pair.write(directory, "ca")
    names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
    served = [*addresses, *api_services(spec), "127.0.0.1"]
    authority.issue("kube-apiserver", names=[*names, "localhost"], addresses=served, serving=True).write(
        directory, "apiserver"
    )
    authority.issue("kube-apiserver-kubelet-client", organization="system:masters").write(directory, "kubelet-client")
    authority.issue("etcd", addresses=["127.0.0.1"], serving=True).write(directory, "etcd")
    private, public = new_service_account_key()
    write_private(directory / "sa.key", private)
    (directory / "sa.pub").write_text(public)

    credentials = Credentials(directory, f"https://{addresses[0]}:6443", authority.certificate)
    for name in _CLIENTS:
        _issue_client(authority, credentials, name)
    _issue_kubelet(authority, credentials, addresses=addresses, node=node)
    return credentials


def issue_node_credentials(
    directory: Path, cluster: Credentials, *, addresses: Sequence[str], node: str
) -> Credentials:
    """Make the files that a further node's kubelet and kube-proxy need.

    Args:
        directory: Where to write them; created with mode 0700.
        cluster: From :func:`issue_credentials`.
        addresses: Addresses of the node.
        node: Name of the node.
    """
    directory.mkdir(mode=0o700, parents=True)
    authority = Authority.read(cluster.directory, "ca")
    (directory / "ca.crt").write_text(authority.certificate)
    credentials = Credentials(directory, cluster.endpoint, authority.certificate)
    _issue_client(authority, credentials, "proxy")
    _issue_kubelet(authority, credentials, addresses=addresses, node=node)
    return credentials


def _issue_client(authority: Authority, credentials: Credentials, name: str) -> None:
    user, group = _CLIENTS[name]
    certificate, key = authority.issue(user, organization=group).write(credentials.directory, name)
    write_private(credentials.file(f"{name}.kubeconfig"), kubeconfig(credentials, name, certificate, key))


def _issue_kubelet(authority: Authority, credentials: Credentials, *, addresses: Sequence[str], node: str) -> None:
    pair = authority.issue(f"system:node:{node}", organization="system:nodes", addresses=addresses, serving=True)
    certificate, key = pair.write(credentials.directory, "kubelet")
    write_private(credentials.file("kubelet.kubeconfig"), kubeconfig(credentials, "kubelet", certificate, key))


def kubeconfig(credentials: Credentials, name: str, certificate: Path, key: Path) -> str:
    """Return a kubeconfig whose one context is ``name`` and that names its files by absolute path."""
    return f"""\
apiVersion: v1
kind: Config
current-context: {name}
clusters:
- name: {name}
  cluster: {{server: "{credentials.endpoint}", certificate-authority: "{credentials.file("ca.crt")}"}}
users:
- name: {name}
  user: {{client-certificate: "{certificate}", client-key: "{key}"}}
contexts:
- name: {name}
  context: {{cluster: {name}, user: {name}}}
"""


def control_plane(
    spec: ClusterSpec, credentials: Credentials, binaries: Mapping[str, Path], *, address: str, data: Path
) -> list[Program]:
    """Return the control plane's programs.

    Args:
        spec: The cluster; its issuer becomes the ``iss`` of all tokens.
        credentials: From :func:`issue_credentials`.
        binaries: Program name → path.
        address: Address of the node, of the version of IP that services have by default.
        data: Directory for etcd's data.
    """
    at = credentials.file
    etcd = [
        f"--name={spec.name}",
        f"--data-dir={data / 'etcd'}",
        "--listen-client-urls=https://127.0.0.1:2379",
        "--advertise-client-urls=https://127.0.0.1:2379",
        "--listen-peer-urls=https://127.0.0.1:2380",
        "--initial-advertise-peer-urls=https://127.0.0.1:2380",
        f"--initial-cluster={spec.name}=https://127.0.0.1:2380",
        f"--cert-file={at('etcd.crt')}",
        f"--key-file={at('etcd.key')}",
        f"--trusted-ca-file={at('ca.crt')}",
        "--client-cert-auth",
        f"--peer-cert-file={at('etcd.crt')}",
        f"--peer-key-file={at('etcd.key')}",
        f"--peer-trusted-ca-file={at('ca.crt')}",
        "--peer-client-cert-auth",
        # The cluster dies with its sandbox: nothing is worth an fsync.
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]
    api_server = [
        f"--advertise-address={address}",
        "--secure-port=6443",
        f"--tls-cert-file={at('apiserver.crt')}",
        f"--tls-private-key-file={at('apiserver.key')}",
        f"--client-ca-file={at('ca.crt')}",
        "--etcd-servers=https://127.0.0.1:2379",
        f"--etcd-cafile={at('ca.crt')}",
        f"--etcd-certfile={at('etcd.crt')}",
        f"--etcd-keyfile={at('etcd.key')}",
        f"--kubelet-certificate-authority={at('ca.crt')}",
        f"--kubelet-client-certificate={at('kubelet-client.crt')}",
        f"--kubelet-client-key={at('kubelet-client.key')}",
        # Otherwise kubectl exec looks up the node's name.
        "--kubelet-preferred-address-types=InternalIP",
        f"--service-account-issuer={spec.issuer}",
        f"--service-account-jwks-uri={spec.issuer}/keys",
        f"--service-account-key-file={at('sa.pub')}",
        f"--service-account-signing-key-file={at('sa.key')}",
        f"--service-cluster-ip-range={','.join(service_networks(spec))}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        # The lab's CA reaches pods through a MutatingAdmissionPolicy, beta and off by default in 1.34.
        "--feature-gates=MutatingAdmissionPolicy=true",
        "--runtime-config=admissionregistration.k8s.io/v1beta1=true",
        "--profiling=false",
    ]
    controller_manager = [
        f"--kubeconfig={at('controller-manager.kubeconfig')}",
        "--use-service-account-credentials",
        # The default of 20 calls a second makes it wait for its own controllers' tokens at every start.
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
        f"--service-account-private-key-file={at('sa.key')}",
        f"--root-ca-file={at('ca.crt')}",
        f"--cluster-cidr={','.join(pod_networks(spec))}",
        "--allocate-node-cidrs=false",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        "--profiling=false",
    ]
    scheduler = [
        f"--kubeconfig={at('scheduler.kubeconfig')}",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        "--profiling=false",
    ]
    return [
        Program("etcd", [str(binaries["etcd"]), *etcd]),
        Program("kube-apiserver", [str(binaries["kube-apiserver"]), *api_server]),
        Program("kube-controller-manager", [str(binaries["kube-controller-manager"]), *controller_manager]),
        Program("kube-scheduler", [str(binaries["kube-scheduler"]), *scheduler]),
    ]
