"""The real LocalStack process on loopback, once a session, and a cluster bound to it."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.cloud.localstack import environment, process
from harness.cloud.localstack.bootstrap import Bootstrap
from harness.cloud.localstack.control import ClusterBinding, Control, NodeBinding
from harness.lab.paths import cache_directory
from harness.pki import Authority
from harness.progress import Progress
from harness.subject.aws import ACCOUNT, CLUSTER, DAEMON_SET, INSTANCE, OTHER_ACCOUNT, REGION, Aws
from harness.subject.bound_cluster import ISSUER, ApiServerDouble


@pytest.fixture(autouse=True)
def no_aws_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of the shell must not reach the clients of these tests."""
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "AWS_PROFILE", "AWS_CONFIG_FILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def localstack_environment() -> environment.Environment:
    """LocalStack's own Python, made once and kept."""
    with Progress() as progress:
        return environment.ensure(cache_directory(), progress)


@pytest.fixture(scope="session")
def aws(localstack_environment: environment.Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    """The process, with an instance metadata service and a state of its own."""
    directory = tmp_path_factory.mktemp("aws")
    authority = Authority("lab-ca")
    names = ["localhost", "*.amazonaws.com", f"*.{REGION}.amazonaws.com", f"*.s3.{REGION}.amazonaws.com"]
    pair = authority.issue(
        "aws", names=[*names, f"*.{REGION}.api.aws", f"oidc.eks.{REGION}.amazonaws.com"], serving=True
    )
    certificate = directory / "aws.pem"
    certificate.write_text(pair.key + pair.certificate + authority.certificate)
    (directory / "ca.crt").write_text(authority.certificate)
    bootstrap = Bootstrap.generate([ACCOUNT, OTHER_ACCOUNT])
    bootstrap.write(directory / "bootstrap.json")
    port, imds_port = _free_port(), _free_port()
    argv, variables = process.start_command(
        localstack_environment,
        listen=[f"127.0.0.1:{port}"],
        certificate=certificate,
        state_directory=directory / "state",
        bootstrap_file=directory / "bootstrap.json",
        imds_listen=f"127.0.0.1:{imds_port}",
    )
    endpoint = f"http://127.0.0.1:{port}"
    with (directory / "log").open("wb") as log:
        running = subprocess.Popen(argv, env=variables, cwd=directory, stdout=log, stderr=subprocess.STDOUT)
    try:
        process.wait_until_ready(
            endpoint,
            bootstrap,
            stopped=lambda: None if running.poll() is None else (directory / "log").read_text()[-3000:],
        )
        control = Control(endpoint, bootstrap.control_token)
        # Forget the calls that asked whether it is ready.
        control.reset()
        imds = f"http://127.0.0.1:{imds_port}"
        yield Aws(endpoint, imds, directory, bootstrap, directory / "ca.crt", control, running)
    finally:
        # Its orderly end takes seconds, and nothing of it is kept.
        running.kill()
        running.wait(timeout=20)


@pytest.fixture
def api(aws: Aws, tmp_path: Path) -> Iterator[ApiServerDouble]:
    """A cluster bound under the article's name, with a node, in an emulator in its first state."""
    double = ApiServerDouble(tmp_path)
    aws.control.register_cluster(
        ClusterBinding(
            name=CLUSTER,
            account=ACCOUNT,
            region=REGION,
            issuer=ISSUER,
            endpoint=double.endpoint,
            certificate_authority=double.authority.certificate,
            version="1.34",
            role_arn=f"arn:aws:iam::{ACCOUNT}:role/cluster",
            token_file=str(double.token_file),
            addon_manifests=[DAEMON_SET],
        )
    )
    yield double
    double.refuses = ""
    aws.control.reset()
    aws.control.remove_cluster(CLUSTER, account=ACCOUNT, region=REGION)
    double.stop()


def _document(*statements: str) -> str:
    return f'{{"Version": "2012-10-17", "Statement": [{",".join(statements)}]}}'


@pytest.fixture
def make_role(aws: Aws) -> Callable[..., str]:
    """Create a role with a service's or account's trust and an inline policy; return its ARN."""

    def make(
        name: str, principal: dict[str, str], *statements: str, actions: str = '["sts:AssumeRole", "sts:TagSession"]'
    ) -> str:
        iam = aws.client("iam")
        trusted = f'{{"Effect": "Allow", "Principal": {json.dumps(principal)}, "Action": {actions}}}'
        arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=_document(trusted))["Role"]["Arn"]
        if statements:
            iam.put_role_policy(RoleName=name, PolicyName="inline", PolicyDocument=_document(*statements))
        return arn

    return make


@pytest.fixture
def node(aws: Aws, api: ApiServerDouble, make_role: Callable[..., str]) -> str:
    """The node role, registered for requests from loopback; its ARN."""
    del api  # is there to be registered at
    allowed = '{"Effect":"Allow","Action":"eks-auth:AssumeRoleForPodIdentity","Resource":"*"}'
    arn = make_role("pod-identity-lab-node-role", {"Service": "ec2.amazonaws.com"}, allowed)
    aws.control.register_node(
        NodeBinding(
            name="node",
            address="127.0.0.1",
            instance_id=INSTANCE,
            role_arn=arn,
            cluster=CLUSTER,
            account=ACCOUNT,
            region=REGION,
            availability_zone="eu-west-1a",
        )
    )
    return arn
