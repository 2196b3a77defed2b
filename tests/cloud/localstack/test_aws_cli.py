"""The AWS CLI in a pod, version 1 as LocalStack's environment has it and version 2 if the machine has one."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.cloud.localstack.environment import Environment
from harness.conformance.outcomes import could_not_run
from harness.subject.aws import ACCOUNT, CLUSTER, REGION, Aws
from harness.subject.bound_cluster import ApiServerDouble
from harness.subject.pods import Container, Done, container

BUCKET = "my-app-bucket"
SESSION = f"arn:aws:sts::{ACCOUNT}:assumed-role/cli-app/eks-pod-identi-s3-test-"


@pytest.fixture(params=[1, 2], ids=["version-1", "version-2"])
def cli(request: pytest.FixtureRequest, localstack_environment: Environment) -> Path:
    if request.param == 1:
        return localstack_environment.directory / "bin" / "aws"
    found = shutil.which("aws")
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=False) if found else None
    if not found or not version or not version.stdout.startswith("aws-cli/2."):
        could_not_run("prerequisite", "put version 2 of the AWS CLI on PATH as aws")
    return Path(found)


@pytest.fixture
def pod(
    aws: Aws, api: ApiServerDouble, node: str, make_role: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Container]:
    """A container whose role may use one prefix of a bucket, one secret, and list associations."""
    assert node
    role = make_role(
        "cli-app",
        {"Service": "pods.eks.amazonaws.com"},
        f'{{"Effect":"Allow","Action":["s3:GetObject","s3:PutObject"],"Resource":"arn:aws:s3:::{BUCKET}/app/*"}}',
        f'{{"Effect":"Allow","Action":"s3:ListBucket","Resource":"arn:aws:s3:::{BUCKET}"}}',
        '{"Effect":"Allow","Action":"eks:ListPodIdentityAssociations","Resource":"*"}',
        '{"Effect":"Allow","Action":"secretsmanager:GetSecretValue",'
        f'"Resource":"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:app-*"}}',
    )
    aws.client("eks").create_pod_identity_association(
        clusterName=CLUSTER, namespace="demo", serviceAccount="cli-app", roleArn=role
    )
    aws.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    with container(aws, api, tmp_path_factory.mktemp("pod"), "cli-app") as made:
        yield made


def test_the_guides_commands_work_in_a_pod(aws: Aws, pod: Container, cli: Path) -> None:
    """Who am I, upload, list, download, read a secret, list associations: each with the CLI's defaults."""
    aws.client("secretsmanager").create_secret(Name="app-config", SecretString="entry")
    large = pod.home / "large.bin"
    # Above the CLI's threshold for uploads in parts.
    large.write_bytes(bytes(range(256)) * (9 << 12))

    def run(*words: str | Path, stdin: bytes = b"") -> Done:
        return pod.run([cli, *words], stdin=stdin)

    identity = run("sts", "get-caller-identity").json()
    copied = run("s3", "cp", "-", f"s3://{BUCKET}/app/hello.txt", stdin=b"Hello from Pod Identity!\n")
    in_parts = run("s3", "cp", large, f"s3://{BUCKET}/app/large.bin")
    listed = run("s3", "ls", f"s3://{BUCKET}/app/")
    read = run("s3", "cp", f"s3://{BUCKET}/app/hello.txt", "-")
    back = run("s3", "cp", f"s3://{BUCKET}/app/large.bin", pod.home / "back.bin")
    secret = run("secretsmanager", "get-secret-value", "--secret-id", "app-config").json()
    (association,) = run("eks", "list-pod-identity-associations", "--cluster-name", CLUSTER).json()["associations"]

    assert identity["Arn"].startswith(SESSION)
    assert [done.stderr for done in (copied, in_parts, listed, read, back)] == [""] * 5
    assert re.findall(r"\d+ (\S+)$", listed.stdout, re.MULTILINE) == ["hello.txt", "large.bin"]
    assert read.stdout == "Hello from Pod Identity!\n"
    assert (pod.home / "back.bin").read_bytes() == large.read_bytes()
    assert secret["SecretString"] == "entry"
    assert (association["namespace"], association["serviceAccount"]) == ("demo", "cli-app")


def test_a_refusal_reads_as_on_aws(pod: Container, cli: Path) -> None:
    """The CLI prints AWS's own sentence."""
    outside = pod.run([cli, "s3api", "put-object", "--bucket", BUCKET, "--key", "elsewhere.txt"])
    listed = pod.run([cli, "s3api", "list-buckets"])

    assert min(outside.exit_code, listed.exit_code) > 0
    prefix = rf"An error occurred \(AccessDenied\) when calling the %s operation: User: {SESSION}\S+ is not authorized"
    assert re.search(
        f'{prefix % "PutObject"} to perform: s3:PutObject on resource: "arn:aws:s3:::{BUCKET}/elsewhere.txt"'
        " because no identity-based policy allows the s3:PutObject action",
        outside.stderr,
    )
    assert re.search(
        f"{prefix % 'ListBuckets'} to perform: s3:ListAllMyBuckets"
        " because no identity-based policy allows the s3:ListAllMyBuckets action",
        listed.stderr,
    )


def test_a_presigned_url_opens_what_its_signer_may_read(aws: Aws, pod: Container, cli: Path) -> None:
    """``aws s3 presign``, followed by something that knows no AWS; another key under the same signature is refused."""
    aws.client("s3").put_object(Bucket=BUCKET, Key="app/hello.txt", Body=b"Hello from Pod Identity!\n")
    # Version 1 signs as in 2006 unless it is told otherwise.
    pod.run([cli, "configure", "set", "default.s3.signature_version", "s3v4"])
    url = pod.run([cli, "s3", "presign", f"s3://{BUCKET}/app/hello.txt"]).stdout.strip()

    fetched = pod.run(["curl", "--silent", "--cacert", aws.authority, url])
    forged = pod.run(["curl", "--silent", "--cacert", aws.authority, url.replace("hello.txt", "other.txt")])

    assert fetched.stdout == "Hello from Pod Identity!\n"
    assert "<Code>SignatureDoesNotMatch</Code>" in forged.stdout
