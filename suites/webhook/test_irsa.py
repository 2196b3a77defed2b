"""Section 6 of the contract: what IAM roles for service accounts add to a pod."""

from __future__ import annotations

import re

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
