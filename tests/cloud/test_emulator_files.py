"""What surrounds the emulator's process: secrets, addresses, its command and its Python."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

from harness.cloud.credentials import account_of_access_key
from harness.cloud.localstack import environment, process
from harness.cloud.localstack.addresses import Address, address_of, scope_of
from harness.cloud.localstack.bootstrap import Bootstrap
from harness.cloud.sigv4 import RawRequest


def test_bootstrap_survives_its_file_and_is_private(tmp_path: Path) -> None:
    made = Bootstrap.generate(["123456789012", "987654321098"])
    made.write(tmp_path / "bootstrap.json")

    assert Bootstrap.read(tmp_path / "bootstrap.json") == made
    assert stat.S_IMODE((tmp_path / "bootstrap.json").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["bootstrap.json"]


def test_bootstrap_keys_carry_their_account_and_print_no_secret() -> None:
    made = Bootstrap.generate(["987654321098"])
    key = made.account("987654321098").administrator

    assert account_of_access_key(key.access_key_id) == "987654321098"
    assert key.secret_access_key not in repr(made)
    assert made.control_token not in repr(made)
    assert made != Bootstrap.generate(["987654321098"])


@pytest.mark.parametrize("text", ["", "[]", '{"control_token": "t"}', '{"control_token": "t", "accounts": {"1": {}}}'])
def test_damaged_bootstrap_file_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "b.json").write_text(text)

    with pytest.raises(ValueError, match=r"bootstrap|Expecting"):
        Bootstrap.read(tmp_path / "b.json")


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("eks-auth.eu-west-1.api.aws", Address("eks-auth", "eu-west-1")),
        ("eks.eu-west-1.amazonaws.com:443", Address("eks", "eu-west-1")),
        ("STS.amazonaws.com", Address("sts", "us-east-1")),
        ("iam.amazonaws.com.", Address("iam", "us-east-1")),
        ("s3.amazonaws.com", Address("s3", "")),
        ("s3.eu-west-1.amazonaws.com", Address("s3", "eu-west-1")),
        ("sts.s3.eu-west-1.amazonaws.com", Address("s3", "eu-west-1")),
        ("my.bucket.s3.amazonaws.com", Address("s3", "")),
        ("oidc.eks.eu-west-1.amazonaws.com", Address(region="eu-west-1", is_issuer=True)),
        ("oidc.eks.s3.eu-west-1.amazonaws.com", Address("s3", "eu-west-1")),
        ("10.86.0.2", Address()),
        ("10.86.0.2:4566", Address()),
        ("localhost:4566", Address()),
        ("sts.amazonaws.com.example.org", Address()),
    ],
)
def test_host_names_say_service_and_region(host: str, address: Address) -> None:
    assert address_of(host) == address


def test_scope_is_read_from_header_and_query() -> None:
    header = "AWS4-HMAC-SHA256 Credential=AKIA/20260410/eu-west-1/eks/aws4_request, SignedHeaders=host, Signature=0"
    signed = RawRequest("GET", "/", "", [("Authorization", header)])
    presigned = RawRequest("GET", "/", "X-Amz-Credential=AKIA%2F20260410%2Fus-east-1%2Fs3%2Faws4_request", [])

    assert scope_of(signed) == ("eu-west-1", "eks")
    assert scope_of(presigned) == ("us-east-1", "s3")
    assert scope_of(RawRequest("GET", "/", "", [("Authorization", "Bearer x")])) == ("", "")
    former = RawRequest("GET", "/notes/a", "AWSAccessKeyId=AKIA&Signature=x&Expires=1", [])
    assert scope_of(former) == ("", "s3")


def test_command_has_a_clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_CA_BUNDLE", "PIP_CERT", "PYTHONPATH", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "canary")

    argv, variables = process.start_command(
        environment.Environment(tmp_path / "env"),
        listen=["10.86.0.2:443", "10.86.0.2:80"],
        certificate=tmp_path / "aws.pem",
        state_directory=tmp_path / "state",
        bootstrap_file=tmp_path / "bootstrap.json",
        imds_listen="169.254.169.254:80",
        auth_delay=2.5,
    )

    assert argv == [str(tmp_path / "env/bin/python"), "-m", "harness.cloud.localstack.serve"]
    assert "canary" not in variables.values()
    assert variables["GATEWAY_LISTEN"] == "127.0.0.1:4566,10.86.0.2:443,10.86.0.2:80"
    assert variables["PODID_AUTH_DELAY"] == "2.5"
    assert variables["HOME"] == str(tmp_path / "state")


def test_shim_that_does_not_run_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pyenv shim exists for versions that are not selected, and exits with 127."""
    shims, pyenv = tmp_path / "shims", tmp_path / "pyenv"
    good = pyenv / "versions" / "3.13.1" / "bin" / "python3.13"
    for path, text in ((shims / "python3.13", "exit 127"), (good, 'echo "[\\"/opt/python3.13\\", 3, 13, 1]"')):
        path.parent.mkdir(parents=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", str(shims))
    monkeypatch.setenv("PYENV_ROOT", str(pyenv))

    found = environment._find_interpreter()

    assert found is not None
    assert (found.path, found.version) == (Path("/opt/python3.13"), (3, 13, 1))


def test_probe_tells_the_version_of_this_python() -> None:
    found = environment._probe(Path(sys.executable))

    assert found is not None
    assert found.version == sys.version_info[:3]
