"""Certificates that strict verifiers accept, and keys that only their owner can read."""

from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path

import pytest

from harness.pki import Authority, new_service_account_key


@pytest.fixture
def authority() -> Authority:
    return Authority("test-ca")


def handshake(directory: Path, authority: Authority, server_name: str) -> None:
    """Make one TLS connection with Python's strictest verification."""
    certificate, key = authority.issue("server", names=["*.s3.test", "one.test"], serving=True).write(
        directory, "server"
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    client = ssl.create_default_context(cadata=authority.certificate)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    ours, theirs = socket.socketpair()

    def accept() -> None:
        try:
            server.wrap_socket(theirs, server_side=True).close()
        except ssl.SSLError:
            theirs.close()

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        client.wrap_socket(ours, server_hostname=server_name).close()
    finally:
        ours.close()
        thread.join()


@pytest.mark.parametrize("name", ["one.test", "bucket.s3.test"])
def test_a_serving_certificate_is_accepted_for_its_names(tmp_path: Path, authority: Authority, name: str) -> None:
    handshake(tmp_path, authority, name)


def test_a_serving_certificate_is_refused_for_another_name(tmp_path: Path, authority: Authority) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(tmp_path, authority, "two.test")


def test_keys_are_readable_by_their_owner_alone(tmp_path: Path, authority: Authority) -> None:
    _, key = authority.issue("client", organization="system:masters").write(tmp_path, "client")

    assert key.stat().st_mode & 0o777 == 0o600


def test_a_service_account_key_is_an_rsa_pair() -> None:
    private, public = new_service_account_key()

    assert private.startswith("-----BEGIN PRIVATE KEY-----")
    assert public.startswith("-----BEGIN PUBLIC KEY-----")


def test_an_authority_that_was_written_issues_what_the_first_one_s_clients_trust(
    authority: Authority, tmp_path: Path
) -> None:
    authority.key_pair.write(tmp_path, "ca")

    handshake(tmp_path, Authority.read(tmp_path, "ca"), "one.test")

    assert Authority.read(tmp_path, "ca").certificate == authority.certificate
