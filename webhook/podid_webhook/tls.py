"""The serving certificate, and its replacement while connections are being accepted (WHK-821 to WHK-830)."""

import logging
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509

from podid_webhook.files import Contents, read_files

MIN_VERSIONS = {
    "1.0": ssl.TLSVersion.TLSv1,
    "1.1": ssl.TLSVersion.TLSv1_1,
    "1.2": ssl.TLSVersion.TLSv1_2,
    "1.3": ssl.TLSVersion.TLSv1_3,
    "VersionTLS10": ssl.TLSVersion.TLSv1,
    "VersionTLS11": ssl.TLSVersion.TLSv1_1,
    "VersionTLS12": ssl.TLSVersion.TLSv1_2,
    "VersionTLS13": ssl.TLSVersion.TLSv1_3,
}
"""What ``--tls-min-version`` takes (WHK-828)."""

CIPHER_SUITES = {
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA": "DES-CBC3-SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA": "AES128-SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA": "AES256-SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256": "AES128-SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256": "AES128-GCM-SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384": "AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA": "ECDHE-RSA-DES-CBC3-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256": "ECDHE-ECDSA-AES128-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256": "ECDHE-RSA-AES128-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305": "ECDHE-ECDSA-CHACHA20-POLY1305",
}
"""OpenSSL's names of the TLS 1.0 to 1.2 suites that Go knows, by their IANA names (WHK-830)."""

TLS13_CIPHER_SUITES = frozenset({"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"})
"""Accepted by name, and always offered: as in Go, TLS 1.3 suites are not configurable."""

_log = logging.getLogger(__name__)


class CertificateError(Exception):
    """The certificate or its key is missing, unreadable, broken, or they do not belong together."""


@dataclass(frozen=True, slots=True)
class TlsPolicy:
    """What may be negotiated."""

    min_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    cipher_suites: tuple[str, ...] = ()
    """IANA names; empty for OpenSSL's default."""

    def ciphers(self) -> str:
        """Return the policy in OpenSSL's cipher list format, empty for its default."""
        names = [CIPHER_SUITES[name] for name in self.cipher_suites if name in CIPHER_SUITES]
        if self.min_version < ssl.TLSVersion.TLSv1_2:
            # OpenSSL 3 signs with SHA-1 and MD5, which TLS 1.0 and 1.1 need, at security level 0 only.
            names = [*(names or ["DEFAULT"]), "@SECLEVEL=0"]
        return ":".join(names)


class ServingCertificate:
    """The current certificate and key, and the context that connections are accepted with.

    A context is filled with a pair once and never changed: loading another pair into a live one would leave the new
    certificate with the old key if the second half failed. Instead each handshake moves to the newest context.
    """

    def __init__(self, certificate: Path, key: Path, policy: TlsPolicy) -> None:
        """Load the pair.

        Raises:
            CertificateError: If it is not usable.
        """
        self._paths = (certificate, key)
        self._policy = policy
        self.contents: Contents = self._read()
        self._current, self.expires_at = self._load(self.contents)
        self.context = self._current
        # OpenSSL calls back on every handshake, also when the client names no server.
        self.context.sni_callback = self._use_current

    @property
    def paths(self) -> Sequence[Path]:
        """The two files to watch, for `changed`."""
        return self._paths

    def changed(self, contents: Contents) -> None:
        """Take a new pair into service, or keep the old one if the new one is not usable (WHK-823)."""
        try:
            self._current, self.expires_at = self._load(contents)
        except CertificateError as error:
            _log.error("%s; the previous certificate stays in service", error)
            return
        self.contents = contents
        _log.info("new serving certificate in service, valid until %s", self.expires_at.isoformat())

    def _use_current(self, connection: ssl.SSLObject, _server_name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._current

    def _read(self) -> Contents:
        try:
            return read_files(self._paths)
        except OSError as error:
            raise CertificateError(f"cannot read the serving certificate: {error}") from error

    def _load(self, contents: Contents) -> tuple[ssl.SSLContext, datetime]:
        for path, content in zip(self._paths, contents, strict=True):
            if content is None:
                raise CertificateError(f"no such file: {path} (flags --tls-cert, --tls-key)")
        certificate, key = self._paths
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = self._policy.min_version
        if ciphers := self._policy.ciphers():
            context.set_ciphers(ciphers)
        try:
            context.load_cert_chain(certificate, key)
            expires_at = x509.load_pem_x509_certificate(contents[0] or b"").not_valid_after_utc
        except (OSError, ValueError) as error:
            raise CertificateError(f"{certificate} and {key} are no usable pair: {error}") from error
        if self._read() != contents:
            # OpenSSL reads from files only; the watch will report what they hold now.
            raise CertificateError(f"{certificate} or {key} changed while it was read")
        return context, expires_at
