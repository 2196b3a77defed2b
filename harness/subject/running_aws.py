"""The real LocalStack process on loopback, and a cluster bound to it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from harness.cloud.localstack import process
from harness.cloud.localstack.bootstrap import Bootstrap
from harness.cloud.localstack.control import ClusterBinding, Control
from harness.cloud.localstack.environment import Environment
from harness.free_port import free_port
from harness.pki import Authority
from harness.subject.aws import ACCOUNT, CLUSTER, DAEMON_SET, OTHER_ACCOUNT, REGION, Aws
from harness.subject.bound_cluster import ISSUER, ApiServerDouble

__all__ = ["bound_cluster", "running_aws"]

Ready = Callable[[Aws, Callable[[], str | None]], None]


def _is_served(aws: Aws, stopped: Callable[[], str | None]) -> None:
    process.wait_until_ready(aws.endpoint, aws.bootstrap, stopped=stopped)
    # Forget the calls that asked.
    aws.control.reset()


@contextmanager
def running_aws(
    environment: Environment,
    directory: Path,
    *,
    arguments: Sequence[str] = (),
    wait_until_ready: Ready = _is_served,
    **settings: str,
) -> Generator[Aws]:
    """Run the process with an instance metadata service and a state of its own, until the block ends.

    Args:
        environment: LocalStack's Python.
        directory: Empty; receives state, certificates and log.
        arguments: Arguments of that Python; default: those of the lab.
        wait_until_ready: Gets the process and a function that tells why it ended.
        settings: Further variables of the process.
    """
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
    port, imds_port = free_port(), free_port()
    argv, variables = process.start_command(
        environment,
        listen=[f"127.0.0.1:{port}"],
        certificate=certificate,
        state_directory=directory / "state",
        bootstrap_file=directory / "bootstrap.json",
        imds_listen=f"127.0.0.1:{imds_port}",
    )
    endpoint, imds = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{imds_port}"
    log = directory / "log"
    with log.open("wb") as output:
        running = subprocess.Popen(
            [argv[0], *(arguments or argv[1:])],
            env=variables | settings,
            cwd=directory,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    aws = Aws(
        endpoint, imds, directory, bootstrap, directory / "ca.crt", Control(endpoint, bootstrap.control_token), running
    )
    try:
        wait_until_ready(aws, lambda: None if running.poll() is None else log.read_text()[-3000:])
        yield aws
    finally:
        # Its orderly end takes seconds, and nothing of it is kept.
        running.kill()
        running.wait(timeout=20)


@contextmanager
def bound_cluster(aws: Aws, directory: Path) -> Generator[ApiServerDouble]:
    """Bind a cluster under the article's name; afterwards the emulator is in its first state."""
    double = ApiServerDouble(directory)
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
    try:
        yield double
    finally:
        double.refuses = ""
        aws.control.reset()
        aws.control.remove_cluster(CLUSTER, account=ACCOUNT, region=REGION)
        double.stop()
