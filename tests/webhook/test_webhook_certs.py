"""The certificate of a deployment without cert-manager (WHK-826)."""

import sys
from pathlib import Path

import pytest
from cryptography import x509
from podid_webhook.certs import main


def test_names_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Service is named in all four forms, the CA signed it, and nobody else can read the key."""
    monkeypatch.setattr(sys, "argv", ["certs", "--namespace=kube-system", f"--output-dir={tmp_path}"])

    main()

    certificate = x509.load_pem_x509_certificate((tmp_path / "tls.crt").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [
        "pod-identity-webhook",
        "pod-identity-webhook.kube-system",
        "pod-identity-webhook.kube-system.svc",
        "pod-identity-webhook.kube-system.svc.cluster.local",
    ]
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate((tmp_path / "ca.crt").read_bytes()))
    assert (tmp_path / "tls.key").stat().st_mode & 0o777 == 0o600
