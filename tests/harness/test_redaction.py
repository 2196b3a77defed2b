"""Secrets never reach an artifact: rules for each class, and a canary that proves them on every run."""

from __future__ import annotations

import base64
import gzip
import json
import secrets
from pathlib import Path
from typing import Any

import jwt
import pytest

from harness.conformance import canary
from harness.conformance.issued import new_marker
from harness.conformance.redaction import Redactor
from harness.conformance.search import Search, encodings

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
SESSION_TOKEN = "IQoJb3JpZ2luX2VjEJr//////////wEaCWV1LXdlc3QtMSJHMEUCIQD0123456789abcdef=="
CLAIMS = {"aud": ["pods.eks.amazonaws.com"], "sub": "system:serviceaccount:demo:s3-reader", "exp": 1}
TOKEN = jwt.encode(CLAIMS, "k" * 32)
SIGNATURE = "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"


@pytest.mark.parametrize(
    ("text", "secret", "left"),
    [
        (f"Authorization: {TOKEN}", TOKEN.rpartition(".")[2], "sub=system:serviceaccount:demo:s3-reader"),
        (f'{{"SecretAccessKey": "{SECRET}"}}', SECRET, '{"SecretAccessKey": "«'),
        (f"export AWS_SECRET_ACCESS_KEY={SECRET}\n", SECRET, "AWS_SECRET_ACCESS_KEY=«"),
        (f"AWS_SESSION_TOKEN={SESSION_TOKEN}", SESSION_TOKEN, "AWS_SESSION_TOKEN=«session-token:"),
        (f"the key is {SECRET} they say", SECRET, "the key is «aws-secret:"),
        (f"Signature={SIGNATURE}, x", SIGNATURE, "Signature=«signature:"),
        (f"GET /k?X-Amz-Signature={SIGNATURE}", SIGNATURE, "X-Amz-Signature=«signature:"),
        ("GET /k?X-Amz-Security-Token=IQoJb3JpZ2luX2VjEJr%2F%2F%2Fabc&X=1", "b3JpZ2lu", "&X=1"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----", "MIIE", "«private-key:"),
        ("Authorization: Bearer k3s-0123456789abcdef", "k3s-0123", "Authorization: Bearer «bearer-token:"),
        ("cloning with ghp_0123456789abcdefghijABCDEFGHIJ", "ghp_", "cloning with «forge-token:"),
        ("password: hunter2hunter2", "hunter2", "password: «"),
    ],
)  # fmt: skip
def test_a_secret_goes_and_what_surrounds_it_stays(text: str, secret: str, left: str) -> None:
    redacted = Redactor().text(text)

    assert secret not in redacted
    assert left in redacted


@pytest.mark.parametrize(
    "text",
    [
        "arn:aws:sts::123456789012:assumed-role/pod-identity-lab-s3-reader-role/eks-pod-identi-s3-test-1b4e28ba",
        "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount/eks-pod-identity-token",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=/var/run/secrets/token",
        "sha256:5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7",
        "da39a3ee5e6b4b0d3255bfef95601890afd80709",
        "HIDDEN_DUE_TO_SECURITY_REASONS",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert Redactor().text(text) == text


def test_an_access_key_keeps_its_ends() -> None:
    assert Redactor().text("by AKIAIOSFODNN7EXAMPLE now") == "by AKIA…MPLE now"


def test_equal_secrets_stay_recognisable_in_one_run_and_only_there() -> None:
    one, other = Redactor(), Redactor()

    assert one.text(SESSION_TOKEN) == one.text(SESSION_TOKEN)
    assert {other.text(f"{SESSION_TOKEN}{number}") for number in range(20)} != {one.text(SESSION_TOKEN)}


def test_redacting_twice_changes_nothing() -> None:
    redactor = Redactor()
    once = redactor.data({"SecretAccessKey": SECRET, "text": f"token {TOKEN} AWS_SESSION_TOKEN={SESSION_TOKEN}"})

    assert redactor.data(once) == once


def test_members_lose_their_value_by_their_name() -> None:
    data = Redactor().data({"Credentials": [{"secretAccessKey": "short", "Expiration": "tomorrow"}], "n": 1})

    assert data["Credentials"][0]["secretAccessKey"].startswith("«aws-secret:")
    assert (data["Credentials"][0]["Expiration"], data["n"]) == ("tomorrow", 1)


def test_a_kubernetes_secret_keeps_keys_and_lengths() -> None:
    applied = {"kubectl.kubernetes.io/last-applied-configuration": '{"data": {"a": "c2VjcmV0"}}'}
    secret = {"kind": "Secret", "metadata": {"name": "s", "annotations": applied}, "data": {"a": "c2VjcmV0"}}

    redacted = Redactor().data({"items": [secret]})

    assert redacted["items"][0]["data"] == {"a": "«8 characters»"}
    assert "c2VjcmV0" not in json.dumps(redacted)


# --- The canary -----------------------------------------------------------------------------------------------------


def test_no_specimen_of_the_canary_survives_redaction() -> None:
    planted = canary.new()
    specimen: dict[str, Any] = canary.specimen(planted)

    redacted = Redactor().data(specimen)

    for name, value in redacted.items():
        text = json.dumps(value)
        assert Search(planted).find(text.encode()) is None, name
        assert planted.encode().hex()[:40] not in text, name


def test_a_broken_archive_is_searched_as_it_is() -> None:
    planted = canary.new()

    assert str(Search(planted).find(b"\x1f\x8bbroken " + planted.encode())) == "canary (plain)"


@pytest.mark.parametrize("offset", range(3))
def test_the_search_finds_the_canary_inside_base64(offset: int) -> None:
    planted = canary.new()
    encoded = base64.encodebytes(b"x" * offset + f"{planted} and more".encode())

    found = Search(planted).find(encoded)
    assert found is not None
    assert found.encoding.startswith("base64")


@pytest.mark.parametrize(
    "encode",
    [
        str.encode,
        lambda text: text.encode().hex().encode(),
        lambda text: gzip.compress(text.encode()),
        lambda text: "".join(f"%{byte:02X}" for byte in text.encode()).encode(),
        lambda text: f"{text[:20]}\n{text[20:]}".encode(),
    ],
    ids=["plain", "hex", "gzip", "percent", "broken over two lines"],
)
def test_the_search_finds_the_canary_in_other_forms(encode: Any, tmp_path: Path) -> None:
    planted = canary.new()
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_bytes(
        b"before " + encode(planted) if encode("x")[:2] != b"\x1f\x8b" else encode(planted)
    )
    (tmp_path / "clean").write_bytes(encode(canary.new()))

    assert [file.name for file, _ in Search(planted).scan(tmp_path)] == ["file"]


# --- What was issued ------------------------------------------------------------------------------------------------

MARKER = new_marker()
SIGNATURE_OF_A_TOKEN = "m-_T" + "".join(chr(ord("a") + number % 26) + str(number) for number in range(90))
AWS_SECRET = "AWS secret with the run's marker"
MINTED = {f"{MARKER}Kn/+{'x' * 24}": "secret access key", SIGNATURE_OF_A_TOKEN: "token signature"}


@pytest.mark.parametrize(("secret", "secret_class"), MINTED.items(), ids=MINTED.values())
@pytest.mark.parametrize("encoding", encodings("x" * 40))
def test_the_search_names_class_and_encoding_of_what_was_issued(secret: str, secret_class: str, encoding: str) -> None:
    search = Search(canary.new(), MARKER, MINTED)
    leaked = encodings(secret)[encoding]

    found = search.find(b"lines before\n" * 1000 + leaked + b"\nlines after")

    # In the other forms letters and digits stand for themselves, or look alike in both alphabets of base64.
    assert found is not None
    assert found.secret_class == (AWS_SECRET if secret.startswith(MARKER) else secret_class)
    assert found.encoding == encoding or encoding.startswith("base64url") or encoding in {"URL", "JSON text"}


def test_a_secret_that_was_cut_off_is_found() -> None:
    search = Search(canary.new(), MARKER, MINTED)

    assert search.find(SIGNATURE_OF_A_TOKEN[:45].encode()) is not None
    assert search.find(SIGNATURE_OF_A_TOKEN[:20].encode()) is None


def test_many_tokens_are_searched_for_at_once() -> None:
    issued = {secrets.token_urlsafe(256): "token signature" for _ in range(1500)}
    search = Search(canary.new(), MARKER, issued)

    assert search.find(b"x" * (8 << 20)) is None
    assert search.find(b"x" * (8 << 20) + list(issued)[1234].encode()) is not None


@pytest.mark.parametrize("name", ["DB_PASSWORD", "AWS_SECRET_ACCESS_KEY", "API_TOKEN"])
def test_a_variable_of_a_pod_loses_its_value_by_its_name(name: str) -> None:
    pod = {"env": [{"name": name, "value": "hunter2"}, {"name": "AWS_REGION", "value": "eu-west-1"}]}

    hidden, shown = Redactor().data(pod)["env"]

    assert (hidden["name"], shown["value"]) == (name, "eu-west-1")
    assert hidden["value"].startswith("«")
