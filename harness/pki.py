"""Certificates of the lab: its own CAs, serving and client certificates, service-account keys.

Everything is made anew for each lab and dies with it; keys are written with mode 0600.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["Authority", "KeyPair", "new_client_request", "new_service_account_key", "write_private"]

_LIFETIME = dt.timedelta(days=365)
# Machines in one lab may disagree about the time by a little.
_BACKDATE = dt.timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its private key, both PEM."""

    certificate: str
    key: str

    def write(self, directory: Path, name: str) -> tuple[Path, Path]:
        """Write ``<name>.crt`` and ``<name>.key`` and return both paths."""
        certificate, key = directory / f"{name}.crt", directory / f"{name}.key"
        certificate.write_text(self.certificate)
        write_private(key, self.key)
        return certificate, key


class Authority:
    """A certificate authority that lives in memory."""

    def __init__(self, common_name: str) -> None:
        """Make a new key and a self-signed CA certificate.

        Args:
            common_name: Subject of the CA.
        """
        self._key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        now = dt.datetime.now(dt.UTC)
        self._certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _BACKDATE)
            .not_valid_after(now + _LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    @classmethod
    def read(cls, directory: Path, name: str) -> Authority:
        """Return the authority whose key pair was written to a directory."""
        authority = cls.__new__(cls)
        key = serialization.load_pem_private_key((directory / f"{name}.key").read_bytes(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError(f"{name}.key in {directory} is none of ours")
        authority._key = key  # noqa: SLF001 - its own
        authority._certificate = x509.load_pem_x509_certificate((directory / f"{name}.crt").read_bytes())  # noqa: SLF001
        return authority

    @property
    def certificate(self) -> str:
        """The CA certificate, PEM."""
        return _pem(self._certificate)

    @property
    def key_pair(self) -> KeyPair:
        """CA certificate and key, for programs that sign themselves (the controller manager)."""
        return KeyPair(self.certificate, _key_pem(self._key))

    def issue(
        self,
        common_name: str,
        *,
        organization: str = "",
        names: Iterable[str] = (),
        addresses: Iterable[str] = (),
        serving: bool = False,
        lifetime: dt.timedelta = _LIFETIME,
    ) -> KeyPair:
        """Issue a certificate for a client, or for a server when ``serving`` is set.

        Args:
            common_name: Kubernetes user name of a client; for a server just a label.
            organization: Kubernetes group of a client.
            names: DNS names, wildcards allowed.
            addresses: IP addresses.
            serving: Whether the certificate identifies a server too.
            lifetime: From now on; up to five minutes below zero make one that has expired.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
        if organization:
            attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
        alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
        alternatives += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH] + ([ExtendedKeyUsageOID.SERVER_AUTH] if serving else [])
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(attributes))
            .issuer_name(self._certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _BACKDATE)
            .not_valid_after(now + lifetime)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            # OpenSSL's strict mode, Python's default since 3.13, refuses certificates without it.
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        return KeyPair(_pem(builder.sign(self._key, hashes.SHA256())), _key_pem(key))


def new_client_request(common_name: str) -> tuple[str, str]:
    """Return (private key, certificate signing request), PEM, of a client whose certificate somebody else signs.

    Args:
        common_name: Kubernetes user name of the client.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return _key_pem(key), request.public_bytes(serialization.Encoding.PEM).decode()


def new_service_account_key() -> tuple[str, str]:
    """Return (private, public) PEM of a key that signs service-account tokens with RS256, as EKS's are."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return _key_pem(key), public.decode()


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, never readable in between."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
