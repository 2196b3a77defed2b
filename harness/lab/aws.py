"""The AWS sandbox: LocalStack with our plugin, IMDS and the image registry, on the lab's bridge."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.cloud.localstack import process
from harness.cloud.localstack.bootstrap import Bootstrap
from harness.cloud.localstack.control import ClusterBinding, Control, NodeBinding
from harness.cloud.localstack.environment import Environment
from harness.cluster.base import Cluster
from harness.cluster.native.network import IMDS_ADDRESS, LabNetwork
from harness.cluster.native.node import REGISTRY_PORT
from harness.cluster.native.sandbox import Program, Sandbox
from harness.images import REGISTRY_ENVIRONMENT, registry_configuration
from harness.lab.account import AwsAccount
from harness.lab.profile import ADMINISTRATORS, Administrator
from harness.pki import Authority, write_private

__all__ = ["LabAws", "serving_names"]

_NODE_ROLE = "pod-identity-lab-node-role"
_NODE_POLICIES = ("AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryReadOnly")
_CLUSTER_ROLE = "pod-identity-lab-cluster-role"
_KUBERNETES_MINOR = "1.34"


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
        self.sandbox = Sandbox(directory)

    @property
    def authority_file(self) -> Path:
        """Certificate of the lab's CA, PEM."""
        return self.directory / "ca.crt"

    @property
    def _bootstrap_file(self) -> Path:
        return self.directory / "bootstrap.json"

    @property
    def is_running(self) -> bool:
        """Whether its programs run."""
        return self.sandbox.pid is not None

    @staticmethod
    def endpoint(network: LabNetwork) -> str:
        """Return the URL at which AWS answers for all services."""
        return f"http://{network.aws_address}"

    def administrator(self, account: str) -> Administrator:
        """Return the keys of an account's administrator.

        Raises:
            KeyError: The lab has no such account.
        """
        key = Bootstrap.read(self._bootstrap_file).account(account).administrator
        return Administrator(account, key.access_key_id, key.secret_access_key)

    def control(self, network: LabNetwork) -> Control:
        """Return a client of the emulator's control route."""
        return Control(self.endpoint(network), Bootstrap.read(self._bootstrap_file).control_token)

    def start(self, network: LabNetwork, environment: Environment, *, registry: Path, cache: Path, region: str) -> None:
        """Make CA, certificate and first keys, and start LocalStack and registry; does not wait for them.

        Args:
            network: The lab's network; its bridge is made here.
            environment: LocalStack's Python environment.
            registry: The registry program.
            cache: The harness's cache directory, which holds the registry's images.
            region: Region that host names are served for.
        """
        self.directory.mkdir(mode=0o700, parents=True)
        authority = Authority("podid-lab-ca")
        self.authority_file.write_text(authority.certificate)
        pair = authority.issue(
            "aws", names=serving_names(region), addresses=[network.aws_address, "127.0.0.1"], serving=True
        )
        certificate = self.directory / "aws.pem"
        write_private(certificate, pair.key + pair.certificate + authority.certificate)
        Bootstrap.generate(list(ADMINISTRATORS)).write(self._bootstrap_file)
        listen = [f"{network.aws_address}:{port}" for port in (80, 443)]
        argv, variables = process.start_command(
            environment,
            listen=listen,
            certificate=certificate,
            state_directory=self.directory / "state",
            bootstrap_file=self._bootstrap_file,
            imds_listen=f"{IMDS_ADDRESS}:80",
        )
        registry_file = self.directory / "registry.json"
        address = f"{network.aws_address}:{REGISTRY_PORT}"
        registry_file.write_text(registry_configuration(cache, address, read_only=True))
        programs = [
            Program("localstack", argv, variables),
            Program("registry", [str(registry), "serve", str(registry_file)], REGISTRY_ENVIRONMENT),
        ]
        with self.sandbox.starting(programs, hostname="aws", mounts={}, keep=[]) as pid:
            network.wire_aws(pid)

    def wait_until_ready(self, network: LabNetwork, region: str) -> None:
        """Wait until every service answers signed calls and refuses others.

        Raises:
            HarnessFault: It does not, or ended.
        """
        process.wait_until_ready(
            self.endpoint(network),
            Bootstrap.read(self._bootstrap_file),
            region=region,
            stopped=lambda: None if self.is_running else "the AWS sandbox ended",
        )
        # A person who looks into CloudTrail shall not find the calls that asked whether it is ready.
        self.control(network).reset()

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

    def attach_cluster(self, cluster: Cluster, agent_manifests: Sequence[dict[str, Any]], network: LabNetwork) -> None:
        """Make EKS know a running cluster, and IMDS its nodes.

        Args:
            cluster: The cluster; its API server answers and EKS's control plane has its rights there.
            agent_manifests: Objects of the add-on eks-pod-identity-agent.
            network: The lab's network.
        """
        control = self.control(network)
        spec, access = cluster.spec, cluster.control_plane_access
        control.register_cluster(
            ClusterBinding(
                name=spec.name,
                account=spec.account,
                region=spec.region,
                issuer=spec.issuer,
                endpoint=access.endpoint,
                certificate_authority=access.certificate_authority,
                version=_KUBERNETES_MINOR,
                role_arn=f"arn:aws:iam::{spec.account}:role/{_CLUSTER_ROLE}",
                client_certificate=str(access.client_certificate),
                client_key=str(access.client_key),
                addon_manifests=agent_manifests,
            )
        )
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
