"""AWS's SDK for Go in a pod: credentials from the agent, signatures as the SDK makes them (``tools/aws-sdk-go``)."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import binaries
from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.lab.paths import cache_directory
from harness.progress import Progress
from harness.subject.aws import ACCOUNT, CLUSTER, REGION, Aws
from harness.subject.bound_cluster import ApiServerDouble
from harness.subject.pods import Container, container

BUCKET = "my-app-bucket"
CONTENT = "Hello from Pod Identity! ü\n" * 5000


@pytest.fixture(scope="module")
def program() -> Path:
    with Progress() as progress:
        return binaries.ensure(cache_directory(), progress, [binaries.AWS_SDK_GO])["aws-sdk-go"]


@pytest.fixture
def pod(
    aws: Aws, api: ApiServerDouble, node: str, make_role: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Container]:
    """A container whose role may use one prefix of a bucket and one secret."""
    assert node
    role = make_role(
        "go-app",
        {"Service": "pods.eks.amazonaws.com"},
        f'{{"Effect":"Allow","Action":["s3:GetObject","s3:PutObject"],"Resource":"arn:aws:s3:::{BUCKET}/app/*"}}',
        f'{{"Effect":"Allow","Action":"s3:ListBucket","Resource":"arn:aws:s3:::{BUCKET}"}}',
        '{"Effect":"Allow","Action":"secretsmanager:GetSecretValue",'
        f'"Resource":"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:app-*"}}',
    )
    aws.client("eks").create_pod_identity_association(
        clusterName=CLUSTER, namespace="demo", serviceAccount="go-app", roleArn=role
    )
    aws.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    with container(aws, api, tmp_path_factory.mktemp("pod"), "go-app") as made:
        yield made


@requirement("IAM-SIG-01", "IAM-SIG-02", "API-401")
def test_the_sdk_gets_the_role_of_its_pod(pod: Container, program: Path) -> None:
    """The default chain of credentials ends at the agent, and what it signs with is a session of the association."""
    identity = pod.run([program, "identity"]).json()

    assert identity["account"] == ACCOUNT
    assert identity["arn"].startswith(f"arn:aws:sts::{ACCOUNT}:assumed-role/go-app/eks-pod-identi-s3-test-")


@requirement("IAM-SIG-02", "IAM-SIG-30", "IAM-SIG-31")
def test_what_the_sdk_uploads_in_chunks_is_what_is_read(aws: Aws, pod: Container, program: Path) -> None:
    """Over TLS with each of the SDK's checksums behind the chunks; the object has bytes and metadata and no chunks."""
    written = {}
    for algorithm in ("", "CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"):
        words = [program, "put", BUCKET, f"app/{algorithm}.txt", *([algorithm] if algorithm else [])]
        written[algorithm] = pod.run(words, stdin=CONTENT.encode()).json()

    read = pod.run([program, "get", BUCKET, "app/SHA256.txt"]).json()
    stored = aws.client("s3").get_object(Bucket=BUCKET, Key="app/CRC32.txt")

    assert read["content"] == CONTENT
    assert stored["Body"].read() == CONTENT.encode()
    check("IAM-SIG-31", what="Content-Encoding", expected="", observed=stored.get("ContentEncoding", ""))
    sha256 = base64.b64encode(hashlib.sha256(CONTENT.encode()).digest()).decode()
    check("IAM-SIG-30", what="SHA256", expected=sha256, observed=written["SHA256"]["sha256"])
    crc32 = base64.b64encode(zlib.crc32(CONTENT.encode()).to_bytes(4, "big")).decode()
    check("IAM-SIG-30", what="CRC32", expected=crc32, observed=written["CRC32"]["crc32"])
    check("IAM-SIG-30", what="the SDK's own choice", expected=crc32, observed=written[""]["crc32"])


@requirement("IAM-SIG-02", "IAM-SIG-08")
def test_the_sdk_reads_a_secret(aws: Aws, pod: Container, program: Path) -> None:
    """A service of the JSON family, whose body is hashed and not announced."""
    aws.client("secretsmanager").create_secret(Name="app-config", SecretString="entry")

    assert pod.run([program, "secret", "app-config"]).json()["secret"] == "entry"


@requirement("IAM-MSG-03")
def test_the_sdk_understands_refusals(aws: Aws, pod: Container, program: Path) -> None:
    """Code, status, text and request id arrive where the SDK looks for them, in XML and in JSON."""
    aws.client("secretsmanager").create_secret(Name="other", SecretString="entry")

    outside = pod.run([program, "put", BUCKET, "elsewhere.txt"], stdin=b"x")
    secret = pod.run([program, "secret", "other"])
    unknown = pod.run([program, "identity"], AWS_ACCESS_KEY_ID="AKIARZPUZDIKGB2VALC4", AWS_SECRET_ACCESS_KEY="x" * 40)

    assert [outside.exit_code, secret.exit_code, unknown.exit_code] == [1, 1, 1]
    assert "StatusCode: 403" in outside.stderr
    assert "api error AccessDenied: User: arn:aws:sts::123456789012:assumed-role/go-app/" in outside.stderr
    assert (
        'is not authorized to perform: s3:PutObject on resource: "arn:aws:s3:::my-app-bucket/elsewhere.txt" '
        "because no identity-based policy allows the s3:PutObject action" in outside.stderr
    )
    assert "RequestID: ," not in outside.stderr
    assert "StatusCode: 400" in secret.stderr
    assert "api error AccessDeniedException: User: " in secret.stderr
    assert "api error InvalidClientTokenId: The security token included in the request is invalid" in unknown.stderr
