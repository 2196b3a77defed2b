"""A client that waits with its body (``Expect: 100-continue``) learns that it is refused before it sends any of it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any, Self
from urllib.parse import urlsplit

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

from harness.cloud.localstack.bootstrap import AccessKey
from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.subject.aws import REGION, Aws, user_key

FIVE_GIGABYTES = 5 << 30
BODY = b"x" * 2048


@pytest.fixture
def notes(aws: Aws) -> Iterator[Aws]:
    aws.client("s3").create_bucket(Bucket="notes", CreateBucketConfiguration={"LocationConstraint": REGION})
    yield aws
    aws.control.reset()


class Waiting:
    """A connection that has sent the head of an upload."""

    def __init__(self, aws: Aws, key: AccessKey, path: str, length: int) -> None:
        address = urlsplit(aws.endpoint)
        # As over TLS, where SDKs do not sign bodies.
        request = AWSRequest("PUT", f"https://{address.netloc}{path}")
        request.context["client_config"] = Config(s3={"payload_signing_enabled": False})
        S3SigV4Auth(Credentials(key.access_key_id, key.secret_access_key), "s3", REGION).add_auth(request)
        headers = {"Host": address.netloc, "Content-Length": length, "Expect": "100-continue", **request.headers}
        lines = [f"PUT {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        self.connection = socket.create_connection((str(address.hostname), address.port), timeout=20)
        self.connection.sendall("\r\n".join([*lines, "", ""]).encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def told(self) -> str:
        """Return the next line that the server says."""
        line = b""
        while not line.endswith(b"\r\n"):
            line += self.connection.recv(1) or b"\r\n"
        return line.decode().strip()

    def rest(self) -> str:
        """Return all that comes until the server hangs up."""
        text = b""
        while more := self.connection.recv(65536):
            text += more
        return text.decode()


def _allow(path: str) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": "s3:PutObject", "Resource": f"arn:aws:s3:::{path}"}


@requirement("IAM-SIG-32")
@pytest.mark.parametrize("fault", ["no permission", "unknown key", "wrong secret"])
def test_a_refused_upload_is_not_asked_for_its_body(notes: Aws, fault: str) -> None:
    """Five gigabytes are announced and none of them sent: the answer is there at once, and the connection ends."""
    key = user_key(notes, "ana", _allow("notes/own/*"))
    if fault == "unknown key":
        key = AccessKey("AKIARZPUZDIKGB2VALC4", key.secret_access_key)
    elif fault == "wrong secret":
        key = AccessKey(key.access_key_id, "x" * 40)
    before = len(notes.control.journal())

    with Waiting(notes, key, "/notes/other/big", FIVE_GIGABYTES) as waiting:
        first, rest = waiting.told(), waiting.rest()

    code = {"no permission": "AccessDenied", "unknown key": "InvalidAccessKeyId"}.get(fault, "SignatureDoesNotMatch")
    check(
        "IAM-SIG-32",
        what=f"{fault}: no 100",
        expected="HTTP/1.1 403",
        observed=first[:12],
    )
    check("IAM-SIG-32", what=f"{fault}: the code", holds=f"<Code>{code}</Code>" in rest, expected=code, observed=rest)
    entries = [(one["layer"], one["error_code"]) for one in notes.control.journal()[before:]]
    layer = "gate" if fault == "no permission" else "guard"
    check("IAM-SIG-32", what=f"{fault}: recorded once", expected=[(layer, code)], observed=entries)


@requirement("IAM-SIG-32")
def test_a_permitted_upload_is_asked_for_its_body(notes: Aws) -> None:
    """And is one call in the records, with one answer."""
    key = user_key(notes, "ana", _allow("notes/own/*"))
    before = len(notes.control.journal())

    with Waiting(notes, key, "/notes/own/a%20b", len(BODY)) as waiting:
        first, empty = waiting.told(), waiting.told()
        waiting.connection.sendall(BODY)
        second = waiting.told()

    check("IAM-SIG-32", what="asked for", expected=("HTTP/1.1 100 Continue", ""), observed=(first, empty))
    check("IAM-SIG-32", what="done", expected="HTTP/1.1 200 OK", observed=second)
    stored = notes.client("s3").get_object(Bucket="notes", Key="own/a b")["Body"].read()
    check("IAM-SIG-32", what="stored", expected=len(BODY), observed=len(stored))
    calls = [one["operation"] for one in notes.control.journal()[before:]]
    check("IAM-SIG-32", what="recorded once", expected=["PutObject", "GetObject"], observed=calls)


@requirement("IAM-SIG-32")
def test_a_client_that_does_not_wait_gets_one_answer(notes: Aws) -> None:
    """Its body is there already when the head is refused."""
    key = user_key(notes, "ana")

    with Waiting(notes, key, "/notes/other", 4) as waiting:
        waiting.connection.sendall(b"body")
        text = waiting.told() + waiting.told()

    check("IAM-SIG-32", what="status", holds="403" in text and "100" not in text[:20], expected="403", observed=text)
