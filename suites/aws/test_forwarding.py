"""What goes on to the services behind the gate: the call, and nothing of who signed it."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from harness.cloud.localstack import environment
from harness.cloud.sigv4 import RawRequest
from harness.cloud.sigv4.forwarding import unsigned_query
from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.subject.aws import ACCOUNT, Aws
from harness.subject.running_aws import running_aws

SPY = """
import os
from harness.cloud.localstack import internals, serve

install = internals.install_handlers

def write(chain, context, response):
    request = context.request
    seen = {"environ": {k: v for k, v in request.environ.items() if isinstance(v, (str, bytes, list))},
            "headers": list(request.headers), "query": request.query_string, "args": dict(request.args),
            "url": request.url, "body": request.environ["wsgi.input"].getvalue(), "parameters": context.service_request}
    with open(os.environ["PODID_TEST_SPY"], "a") as file:
        print(context.operation.name, seen, file=file)

def spied(**handlers):
    install(**handlers)
    import localstack.aws.handlers
    localstack.aws.handlers.serve_custom_service_request_handlers.append(write)

internals.install_handlers = spied
serve.main()
"""
"""The lab's process, with a handler behind the gate that writes down all that a provider could see of a request."""
BODY = b"written by a URL"


@pytest.fixture(scope="module")
def spied(localstack_environment: environment.Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    directory = tmp_path_factory.mktemp("spied")
    with running_aws(
        localstack_environment, directory, arguments=["-c", SPY], PODID_TEST_SPY=str(directory / "seen")
    ) as running:
        yield running


@pytest.fixture
def session(spied: Aws, make_spied_role: Callable[[], str]) -> dict[str, str]:
    """Credentials of a role session: with a token, which must not go on either."""
    arn = make_spied_role()
    return spied.client("sts").assume_role(RoleArn=arn, RoleSessionName="spied")["Credentials"]


@pytest.fixture
def make_spied_role(spied: Aws) -> Iterator[Callable[[], str]]:
    def make() -> str:
        iam = spied.client("iam")
        trust = (
            '{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal":'
            f' {{"AWS": "arn:aws:iam::{ACCOUNT}:root"}}}}}}'
        )
        arn: str = iam.create_role(RoleName="spied", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
        iam.attach_role_policy(RoleName="spied", PolicyArn="arn:aws:iam::aws:policy/AdministratorAccess")
        return arn

    yield make
    spied.control.reset()


@requirement("IAM-SIG-09")
def test_nothing_of_a_signature_goes_on(spied: Aws, session: dict[str, str]) -> None:
    """Header and query form, sessions included; and what was signed along with a URL still arrives."""
    s3 = spied.client("s3", session)
    s3.create_bucket(Bucket="notes", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    file = spied.directory / "seen"
    file.write_text("")

    s3.put_object(Bucket="notes", Key="by-header", Body=b"x" * 100)
    spied.client("sts", session).get_caller_identity()
    spied.client("iam", session).get_role(RoleName="spied")
    url = s3.generate_presigned_url("put_object", {"Bucket": "notes", "Key": "a b+c/ü", "ContentType": "text/x-notes"})
    wrote = _open(url, "PUT", BODY, {"Content-Type": "text/x-notes"})
    read = s3.generate_presigned_url(
        "get_object", {"Bucket": "notes", "Key": "a b+c/ü", "ResponseContentType": "text/x-told"}
    )
    status, content_type, body = _open(read, "GET")

    seen = file.read_text()
    called = re.findall(r"^(\w+) \{", seen, re.MULTILINE)
    expected = ["PutObject", "GetCallerIdentity", "GetRole", "PutObject", "GetObject"]
    check("IAM-SIG-09", what="every call came through", expected=expected, observed=called)
    signatures = re.findall(r"X-Amz-Signature=(\w+)", url + read)
    assert len(signatures) == 2
    secrets = {"key": session["AccessKeyId"], "token": session["SessionToken"][:40], "put": signatures[0]}
    secrets |= {"get": signatures[1], "parameter": "X-Amz-SignedHeaders", "scope": "X-Amz-Credential"}
    found = [name for name, text in secrets.items() if text in seen]
    check("IAM-SIG-09", what="nothing of the signatures", expected=[], observed=found)
    check(
        "IAM-SIG-09", what="the account is told", holds=f"Credential={ACCOUNT}/" in seen, expected=ACCOUNT, observed=""
    )
    assert wrote[0] == 200
    assert (status, content_type, body) == (200, "text/x-told", BODY)


@requirement("IAM-SIG-09")
@pytest.mark.parametrize(
    ("query", "left", "headers"),
    [
        ("", "", ()),
        ("X-Amz-Algorithm=a&x-id=GetObject&X-Amz-Signature=b", "x-id=GetObject", ()),
        ("x-amz-security-token=t&X-AMZ-CREDENTIAL=c&versionId=3%2F4", "versionId=3%2F4", ()),
        ("X%2DAmz%2DSecurity-Token=t&acl", "acl", ()),
        (
            "X-Amz-Expires=1&x-amz-acl=private&x-amz-tagging=a%3D1",
            "",
            (("x-amz-acl", "private"), ("x-amz-tagging", "a=1")),
        ),
        ("x-amz-checksum-crc32=AAAAAA%3D%3D&If-None-Match=%2A", "", (("if-none-match", "*"),)),
        ("x-amz-meta-a=query", "", ()),
    ],
)
def test_a_presigned_query_loses_its_signature(query: str, left: str, headers: tuple[tuple[str, str], ...]) -> None:
    """In any spelling; headers that were signed as part of the query become headers, unless they were sent as such."""
    request = RawRequest("GET", "/notes/k", query, [("x-amz-meta-a", "header")])

    check("IAM-SIG-09", what=f"of {query!r}", expected=(left, headers), observed=unsigned_query(request))


def _open(url: str, method: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> tuple[Any, ...]:
    request = urllib.request.Request(url, body, headers or {}, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=20) as answer:
        return answer.status, answer.headers["Content-Type"], answer.read()
