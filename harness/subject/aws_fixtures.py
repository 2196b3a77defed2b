"""The real LocalStack process on loopback, once a session, and a cluster bound to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.cloud.localstack import environment
from harness.cloud.localstack.control import NodeBinding
from harness.lab.paths import cache_directory
from harness.progress import Progress
from harness.subject.aws import ACCOUNT, CLUSTER, INSTANCE, REGION, Aws
from harness.subject.bound_cluster import ApiServerDouble
from harness.subject.running_aws import bound_cluster, running_aws


@pytest.fixture(autouse=True)
def no_aws_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of the shell must not reach the clients of these tests."""
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "AWS_PROFILE", "AWS_CONFIG_FILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def localstack_environment() -> environment.Environment:
    """LocalStack's own Python, made once and kept."""
    with Progress() as progress:
        return environment.ensure(cache_directory(), progress)


@pytest.fixture(scope="session")
def aws(localstack_environment: environment.Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    """The process, with an instance metadata service and a state of its own."""
    with running_aws(localstack_environment, tmp_path_factory.mktemp("aws")) as running:
        yield running


@pytest.fixture
def api(aws: Aws, tmp_path: Path) -> Iterator[ApiServerDouble]:
    """A cluster bound under the article's name, with a node, in an emulator in its first state."""
    with bound_cluster(aws, tmp_path) as double:
        yield double


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
