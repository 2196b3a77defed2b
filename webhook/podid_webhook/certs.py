"""Create the serving certificate of a self-managed deployment, without cert-manager (WHK-826)."""

import argparse
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_CLOCK_SKEW = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class ServingPair:
    """A new CA and one certificate that it signed, all PEM."""

    ca: bytes
    """For ``caBundle``. The CA's key is never written anywhere: nothing else can be signed with it."""
    certificate: bytes
    key: bytes


def dns_names(service: str, namespace: str) -> list[str]:
    """Return the names under which a Service is called; the API server checks ``<service>.<namespace>.svc``."""
    return [
        service,
        f"{service}.{namespace}",
        f"{service}.{namespace}.svc",
        f"{service}.{namespace}.svc.cluster.local",
    ]


def create_serving_pair(service: str, namespace: str, valid_from: datetime, lifetime: timedelta) -> ServingPair:
    """Create a CA, and a certificate for the Service signed by it.

    Args:
        service: Name of the Service.
        namespace: Its namespace.
        valid_from: Now; both are valid five minutes earlier, for clocks that lag.
        lifetime: How long both are valid.
    """
    period = (valid_from - _CLOCK_SKEW, valid_from + lifetime)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = _name(f"{service}.{namespace} CA")
    names = dns_names(service, namespace)
    ca = (
        _builder(ca_name, ca_name, ca_key, period)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    certificate = (
        _builder(_name(names[2]), ca_name, key, period)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    return ServingPair(
        ca=ca.public_bytes(pem),
        certificate=certificate.public_bytes(pem),
        key=key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


def main() -> None:
    """Write ``ca.crt``, ``tls.crt`` and ``tls.key`` into a directory."""
    parser = argparse.ArgumentParser(
        prog="amazon-eks-pod-identity-webhook-certs",
        description="Create a CA, whose key is discarded, and the webhook's serving certificate.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--service-name", default="pod-identity-webhook", help="name of the Service")
    parser.add_argument("--namespace", default="kube-system", help="namespace of the Service")
    parser.add_argument("--days", type=int, default=365, help="how long both certificates are valid")
    parser.add_argument("--output-dir", type=Path, default=Path(), help="existing directory for the three files")
    flags = parser.parse_args()
    if not flags.output_dir.is_dir():
        parser.error(f"--output-dir: there is no directory {flags.output_dir}")
    pair = create_serving_pair(flags.service_name, flags.namespace, datetime.now(UTC), timedelta(days=flags.days))
    for name, content, mode in (
        ("ca.crt", pair.ca, 0o644),
        ("tls.crt", pair.certificate, 0o644),
        ("tls.key", pair.key, 0o600),
    ):
        _write(flags.output_dir / name, content, mode)
        print(flags.output_dir / name)


def _write(path: Path, content: bytes, mode: int) -> None:
    path.unlink(missing_ok=True)  # an older file could have a wider mode, which open() would keep
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)


def _name(common_name: str) -> x509.Name:
    # A common name is limited to 64 characters; the names that count are in the extension.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, period: tuple[datetime, datetime]
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(period[0])
        .not_valid_after(period[1])
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


if __name__ == "__main__":
    main()
