"""The lab's AWS as the harness sees it, wherever it runs: its secrets, readiness, roles, and bound clusters."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness.cloud.localstack import process
from harness.cloud.localstack.bootstrap import Bootstrap
from harness.cloud.localstack.control import ClusterBinding, Control, NodeBinding
from harness.cluster.addresses import service_networks
from harness.cluster.base import Cluster
from harness.lab.account import AwsAccount
from harness.lab.profile import ADMINISTRATORS, Administrator
from harness.pki import Authority, write_private

__all__ = ["REGION", "LabAws", "serving_names"]

REGION = "eu-west-1"

_NODE_ROLE = "pod-identity-lab-node-role"
_NODE_POLICIES = ("AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryReadOnly")
_CLUSTER_ROLE = "pod-identity-lab-cluster-role"


def serving_names(region: str) -> list[str]:
    """Return the host names that the lab's AWS serves: a wildcard covers one label only."""
    return [
        "*.amazonaws.com",
        f"*.{region}.amazonaws.com",
        "*.us-east-1.amazonaws.com",
        f"*.s3.{region}.amazonaws.com",
        "*.s3.amazonaws.com",
        f"*.{region}.api.aws",
        f"oidc.eks.{region}.amazonaws.com",
        "localhost",
    ]


class LabAws:
    """The lab's AWS, known by its directory."""

    def __init__(self, directory: Path) -> None:
        """Attach to the directory; nothing is created or started."""
        self.directory = directory

    @property
    def authority_file(self) -> Path:
        """Certificate of the lab's CA, PEM."""
        return self.directory / "ca.crt"

    @property
    def certificate_file(self) -> Path:
        """Key, certificate and CA that AWS serves with, PEM."""
        return self.directory / "aws.pem"

    @property
    def bootstrap_file(self) -> Path:
        """Secrets that AWS starts with."""
        return self.directory / "bootstrap.json"

    def administrator(self, account: str) -> Administrator:
        """Return the keys of an account's administrator.

        Raises:
            KeyError: The lab has no such account.
        """
        key = Bootstrap.read(self.bootstrap_file).account(account).administrator
        return Administrator(account, key.access_key_id, key.secret_access_key)

    def control(self, endpoint: str) -> Control:
        """Return a client of the emulator's control route."""
        return Control(endpoint, Bootstrap.read(self.bootstrap_file).control_token)

    @property
    def data_plane_token(self) -> str:
        """Secret with which the load balancers' data plane asks for its state."""
        return Bootstrap.read(self.bootstrap_file).data_plane_token

    def prepare(self, addresses: Sequence[str], *, region: str = REGION) -> None:
        """Make CA, certificate and first keys; after that AWS can be started.

        Args:
            addresses: Addresses that AWS will answer at, besides its names.
            region: Region that host names are served for.
        """
        self.directory.mkdir(mode=0o700, parents=True)
        authority = Authority("podid-lab-ca")
        self.authority_file.write_text(authority.certificate)
        every = dict.fromkeys([*addresses, "127.0.0.1"])
        pair = authority.issue("aws", names=serving_names(region), addresses=every, serving=True)
        write_private(self.certificate_file, pair.key + pair.certificate + authority.certificate)
        Bootstrap.generate(list(ADMINISTRATORS)).write(self.bootstrap_file)

    def wait_until_ready(self, endpoint: str, stopped: Callable[[], str | None], *, region: str = REGION) -> None:
        """Wait until every service answers signed calls and refuses others.

        Args:
            endpoint: URL of AWS.
            stopped: Returns why AWS does not run, None when it does.
            region: Region to call in.

        Raises:
            HarnessFault: It does not, or ended.
        """
        process.wait_until_ready(endpoint, Bootstrap.read(self.bootstrap_file), region=region, stopped=stopped)
        # A person who looks into CloudTrail shall not find the calls that asked whether it is ready.
        self.control(endpoint).reset()

    def create_service_roles(self, aws: AwsAccount) -> None:
        """Create the roles that a cluster on EKS has: the control plane's and the nodes'."""
        for name, service, policies in (
            (_NODE_ROLE, "ec2.amazonaws.com", _NODE_POLICIES),
            (_CLUSTER_ROLE, "eks.amazonaws.com", ("AmazonEKSClusterPolicy",)),
        ):
            statement = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
            trust = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
            aws.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=trust)
            for policy in policies:
                aws.client("iam").attach_role_policy(RoleName=name, PolicyArn=f"arn:aws:iam::aws:policy/{policy}")

    def attach_cluster(self, cluster: Cluster, agent_manifests: Sequence[dict[str, Any]], endpoint: str) -> None:
        """Make EKS know a running cluster, and IMDS its nodes.

        Args:
            cluster: The cluster; its API server answers and EKS's control plane has its rights there.
            agent_manifests: Objects of the add-on eks-pod-identity-agent.
            endpoint: URL of AWS.
        """
        control = self.control(endpoint)
        spec, access = cluster.spec, cluster.control_plane_access
        control.register_cluster(
            ClusterBinding(
                name=spec.name,
                account=spec.account,
                region=spec.region,
                issuer=spec.issuer,
                endpoint=access.endpoint,
                certificate_authority=access.certificate_authority,
                version=cluster.kubernetes_minor,
                role_arn=f"arn:aws:iam::{spec.account}:role/{_CLUSTER_ROLE}",
                client_certificate=str(access.client_certificate or ""),
                client_key=str(access.client_key or ""),
                token_file=str(access.token_file or ""),
                service_cidr=service_networks(spec)[0],
                addon_manifests=agent_manifests,
            )
        )
        self.register_nodes(cluster, endpoint)

    def register_nodes(self, cluster: Cluster, endpoint: str) -> None:
        """Make IMDS know a cluster's nodes, with tokens required and a hop limit of 1.

        Args:
            cluster: The cluster.
            endpoint: URL of AWS.
        """
        control, spec = self.control(endpoint), cluster.spec
        for node in cluster.nodes:
            control.register_node(
                NodeBinding(
                    name=node.name,
                    address=node.address,
                    instance_id=node.instance_id,
                    role_arn=f"arn:aws:iam::{spec.account}:role/{_NODE_ROLE}",
                    cluster=spec.name,
                    account=spec.account,
                    region=spec.region,
                    availability_zone=f"{spec.region}a",
                )
            )
