"""Section 6 of the contract: what IAM roles for service accounts add to a pod."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from harness.conformance.marks import requirement
from harness.subject.reviews import pod
from harness.subject.webhook import Surroundings, Webhook

ROLE = "arn:aws:iam::111122223333:role/s3-reader"
VOLUME = "aws-iam-token"
ARN, TOKEN_FILE = "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE"
MOUNT_PATH = "/var/run/secrets/eks.amazonaws.com/serviceaccount"


def with_role(**metadata: object) -> dict[str, object]:
    return pod(service_account="with-role", metadata=metadata)


@requirement("WHK-401")
def test_volume(plain: Webhook) -> None:
    """One projected volume with one source, a token for STS."""
    volume = plain.review(with_role()).volume(VOLUME)

    token = {"audience": "sts.amazonaws.com", "expirationSeconds": 86400, "path": "token"}
    assert volume == {"name": VOLUME, "projected": {"sources": [{"serviceAccountToken": token}]}}


@requirement("WHK-401")
def test_volume_by_flags(custom: Webhook) -> None:
    """Audience and expiration are those of the flags."""
    token = {"audience": "irsa-audience", "expirationSeconds": 7200, "path": "token"}

    assert custom.review(with_role()).token(VOLUME) == token


@requirement("WHK-402")
def test_expiration_is_not_spread(plain: Webhook) -> None:
    """A day stays a day."""
    drawn = {plain.admit(with_role()).token(VOLUME).get("expirationSeconds") for _ in range(10)}

    assert drawn == {86400}


@requirement("WHK-403")
def test_pair_in_order_behind_sts_and_region(plain: Webhook, eks: Webhook) -> None:
    """Each container ends with the role and the token file, in this order."""
    the_pod = pod({"name": "a"}, {"name": "b", "env": [{"name": "OWN", "value": "x"}]}, service_account="with-role")

    assert plain.review(the_pod).names("a") == [ARN, TOKEN_FILE]
    assert plain.review(the_pod).names("b") == ["OWN", ARN, TOKEN_FILE]
    assert [eks.review(the_pod).names(name)[-2:] for name in "ab"] == [[ARN, TOKEN_FILE]] * 2
    assert plain.review(the_pod).value(ARN, "a") == ROLE
    assert plain.review(the_pod).value(TOKEN_FILE, "a") == f"{MOUNT_PATH}/token"


@requirement("WHK-404")
@pytest.mark.parametrize("name", [ARN, TOKEN_FILE])
def test_either_name_keeps_the_pair_away_and_nothing_else(eks: Webhook, name: str) -> None:
    """A container with one of the two is given neither, but STS, region and mount."""
    own = {"name": name, "value": "own"}

    admission = eks.review(pod({"name": "app", "env": [own]}, service_account="with-role"))

    assert admission.names() == [name, "AWS_STS_REGIONAL_ENDPOINTS", "AWS_DEFAULT_REGION", "AWS_REGION"]
    assert admission.value(name) == "own"
    assert admission.mounted() == [VOLUME]


@requirement("WHK-405")
def test_mount(plain: Webhook, custom: Webhook) -> None:
    """The mount is read-only at the flag's path; the names of volume and file are fixed."""
    assert plain.review(with_role()).mounts() == [{"name": VOLUME, "readOnly": True, "mountPath": MOUNT_PATH}]
    assert custom.review(with_role()).mounts() == [{"name": VOLUME, "readOnly": True, "mountPath": "/irsa/"}]
    assert custom.review(with_role()).value(TOKEN_FILE) == "/irsa/token"


@requirement("WHK-406")
@pytest.mark.parametrize(
    "role", ["s3-reader", "arn:aws:iam::1:role/short", "arn:aws:s3:::bucket", "arn:aws:iam::111122223333:user/u"]
)
def test_invalid_role_is_injected_as_it_is(plain: Webhook, surroundings: Surroundings, role: str) -> None:
    """What is no ARN of a role is passed on, and the log warns of it."""
    surroundings.annotate(plain, "invalid-role", {"eks.amazonaws.com/role-arn": role})

    assert plain.review(pod(service_account="invalid-role")).value(ARN) == role
    plain.wait_for_log(re.escape(role))


@requirement("WHK-407")
def test_no_label(plain: Webhook) -> None:
    """The pod's labels stay as they are."""
    assert plain.review(with_role(labels={"app": "x"})).labels == {"app": "x"}
    assert [path for path in plain.review(with_role()).paths if path.startswith("/metadata")] == []


@requirement("WHK-408")
def test_empty_role_is_none(plain: Webhook, surroundings: Surroundings) -> None:
    """An annotation without a value is like no annotation."""
    surroundings.annotate(plain, "empty-role", {"eks.amazonaws.com/role-arn": ""})

    assert plain.review(pod(service_account="empty-role")).patch == []


@requirement("WHK-409")
def test_empty_audience_is_left_out(plain: Webhook, surroundings: Surroundings) -> None:
    """The API server then uses its own."""
    annotations = {"eks.amazonaws.com/role-arn": ROLE, "eks.amazonaws.com/audience": ""}
    surroundings.annotate(plain, "no-audience", annotations)

    assert plain.review(pod(service_account="no-audience")).token(VOLUME) == {
        "expirationSeconds": 86400,
        "path": "token",
    }


class _Metadata(BaseHTTPRequestHandler):
    """The instance identity document of a node in China, for those who bring a token."""

    def do_PUT(self) -> None:
        self._answer("a-token" if self.path == "/latest/api/token" else None)

    def do_GET(self) -> None:
        known = self.path == "/latest/dynamic/instance-identity/document"
        permitted = self.headers["X-aws-ec2-metadata-token"] == "a-token"
        document = json.dumps({"accountId": "444455556666", "region": "cn-north-1", "instanceId": "i-1"})
        self._answer(document if known and permitted else None)

    def _answer(self, text: str | None) -> None:
        body = (text or "").encode()
        self.send_response(404 if text is None else 200)
        self.send_header("Content-Length", str(len(body)))
        # SDKs read the life of a session from the answer.
        self.send_header("X-aws-ec2-metadata-token-ttl-seconds", "21600")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
        pass


class _NoMetadata(_Metadata):
    """A metadata service that knows nothing."""

    def do_GET(self) -> None:
        self._answer(None)

    do_PUT = do_GET  # noqa: N815 - the base class's name


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[dict[str, str]]:
    """Serve, and give the variable that leads a webhook there."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield {"AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://127.0.0.1:{server.server_address[1]}"}
        server.shutdown()
        thread.join()


@requirement("WHK-410")
def test_composed_role(surroundings: Surroundings) -> None:
    """A role's name becomes an ARN with the account and partition of the node; ARNs stay as they are."""
    with (
        serving(_Metadata) as environment,
        surroundings.webhook("--compose-role-arn", environment=environment) as webhook,
    ):
        surroundings.annotate(webhook, "composed", {"eks.amazonaws.com/role-arn": "path/s3-reader"})
        composed = webhook.review(pod(service_account="composed")).value(ARN)
        complete = webhook.review(with_role()).value(ARN)

    assert composed == "arn:aws-cn:iam::444455556666:role/path/s3-reader"
    assert complete == ROLE


@requirement("WHK-410")
def test_no_metadata_service_is_fatal(surroundings: Surroundings) -> None:
    """Without the instance identity document it ends at start."""
    with serving(_NoMetadata) as environment:
        ended = surroundings.run_to_its_end(*surroundings.flags(), "--compose-role-arn", environment=environment)

    assert ended.exit_code not in (0, None)
    assert ended.output.strip()
