"""Values and ports shared by the cloud's domain modules.

Everything in :mod:`harness.cloud` outside ``localstack/`` is pure: it sees the world through these protocols, so that
an emulator other than LocalStack can be adapted and every rule can be tested without one (``emulator.md`` section 15).
Only the standard library, cryptography and PyJWT may be imported by the domain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

PrincipalKind = Literal["root", "user", "role-session", "federated-user", "service", "web-identity", "anonymous"]


class Refusal(Exception):  # noqa: N818 - AWS refuses; the word is the domain's
    """A call that AWS refuses, with the code, text and HTTP status that AWS gives it.

    The adapter renders it in the service's own protocol.
    """

    def __init__(self, code: str, message: str, status: int, fields: Mapping[str, str] | None = None) -> None:
        """Keep what AWS would say.

        Args:
            code: Error code without namespace, such as ``AccessDenied``.
            message: Text as AWS words it.
            status: HTTP status.
            fields: Further members of the error, such as S3's ``AWSAccessKeyId``.
        """
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status
        self.fields = dict(fields or {})


@dataclass(frozen=True, slots=True)
class Principal:
    """Who makes a call, as IAM sees it."""

    kind: PrincipalKind
    arn: str
    """Caller ARN as GetCallerIdentity prints it (a session's ``assumed-role`` ARN); empty for anonymous."""
    account: str
    user_id: str
    """``AROA…:session``, ``AIDA…``, the account id for root."""
    role_arn: str = ""
    """ARN with path of the role behind a role session."""
    service: str = ""
    """Service principal, such as ``pods.eks.amazonaws.com``."""
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    """Effective principal tags: role tags overridden by session tags."""


@dataclass(frozen=True, slots=True)
class Credential:
    """An access key and everything the lab knows about it: the only truth about identity (``iam.md`` 11.1)."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(repr=False)
    principal: Principal
    issued_at: datetime
    expires_at: datetime | None
    """None for long-term keys."""
    transitive_tags: Mapping[str, str] = field(default_factory=dict[str, str])
    session_policies: tuple[str, ...] | None = None
    """Inline and managed session policy documents; None when the session has none at all."""
    source_identity: str = ""
    session_name: str = ""
    chained: bool = False
    origin: str = "assume-role"
    """``assume-role``, ``web-identity``, ``pod-identity``, ``session-token``, ``federation-token``, ``imds``,
    ``bootstrap``, ``iam-user``; ``simulated`` for one that nobody can use."""
    issuer: str = ""
    """ARN of the user or root that made a federated user."""
    federated_provider: str = ""
    """ARN of the OIDC provider behind a web identity's session."""


@dataclass(frozen=True, slots=True)
class NamedPolicy:
    """One policy document with the name a denial can be explained by."""

    name: str
    """ARN of a managed policy, ``inline:<name>`` otherwise."""
    document: str


@dataclass(frozen=True, slots=True)
class Role:
    """An IAM role as stored at decision time."""

    arn: str
    name: str
    role_id: str
    account: str
    trust_policy: str
    identity_policies: tuple[NamedPolicy, ...]
    boundary: NamedPolicy | None
    """A boundary whose document is gone has the document ``""``: it denies (IAM-EVAL-12)."""
    tags: Mapping[str, str]
    max_session_seconds: int = 3600


@dataclass(frozen=True, slots=True)
class Organization:
    """What the organization of an account says about it."""

    id: str
    """``o-…``."""
    paths: tuple[str, ...] = ()
    """``o-…/r-…/ou-…/`` of the account."""
    scp: tuple[tuple[NamedPolicy, ...], ...] = ()
    """Service control policies, one tuple per level from the root down; none for the management account."""
    rcp: tuple[tuple[NamedPolicy, ...], ...] = ()
    """Resource control policies in the same way; every level allows everything besides."""


class Clock(Protocol):
    """Time, injected so that expiry is tested without waiting."""

    def now(self) -> datetime:
        """Return the current instant, aware, in UTC."""
        ...


class Ids(Protocol):
    """Random identifiers, injected so that tests are deterministic."""

    def letters(self, length: int, alphabet: str) -> str:
        """Return ``length`` random characters of ``alphabet``."""
        ...

    def secret(self, kind: str, length: int) -> str:
        """Return ``length`` characters of the base64 alphabet that nobody can guess.

        Args:
            kind: What it is, such as ``session token``.
            length: At least 20.
        """
        ...

    def uuid(self) -> str:
        """Return a random UUID (version 4, lower case)."""
        ...


class CredentialStore(Protocol):
    """The registry of access keys."""

    def find(self, access_key_id: str) -> Credential | None:
        """Return the credential of a key, or None for an unknown key."""
        ...

    def add(self, credential: Credential) -> None:
        """Register a new credential."""
        ...


class IamStore(Protocol):
    """What IAM has stored, read at decision time (IAM-GATE-04)."""

    def role(self, arn: str) -> Role | None:
        """Return the role with exactly this ARN."""
        ...

    def user_policies(self, arn: str) -> tuple[NamedPolicy, ...] | None:
        """Return identity policies of a user and its groups, or None without such a user."""
        ...

    def organization(self, account: str) -> Organization | None:
        """Return what an account's organization says about it, None for an account without one (IAM-EVAL-11)."""
        ...
