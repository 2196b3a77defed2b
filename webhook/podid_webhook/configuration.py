"""Which mechanism a pod gets and with which values (WHK-201 to WHK-212, sections 8 and 9 of the contract).

Everything here is a function of values: what the caches hold at this moment comes in as a `Sources`, randomness as a
function.
"""

import logging
import re
from collections.abc import Callable
from typing import NamedTuple, Protocol

from msgspec import Struct

from podid_webhook.goparse import first_csv_record, parse_bool, parse_int64
from podid_webhook.mutation import Injection, Mutation, mutate
from podid_webhook.pod import Pod

MIN_TOKEN_EXPIRATION = 600
"""The shortest life that Kubernetes gives a projected token, seconds."""
DEFAULT_TOKEN_EXPIRATION = 86400
_JITTER_MIN = 79200
"""Pod Identity spreads the default of 24 h over the last two hours, so that not all tokens renew together (WHK-306)."""

_ON_ACCOUNTS = frozenset({"role-arn", "audience", "sts-regional-endpoints", "token-expiration"})
_ON_PODS = frozenset({"token-expiration", "skip-containers"})
_ROLE_ARN = re.compile(r"arn:aws[a-z0-9-]*:iam::\d{12}:role/[\w\-/.@+=,]+", re.ASCII)

_log = logging.getLogger(__name__)

Draw = Callable[[int, int], int]
"""A uniformly random integer between two bounds, both included; ``random.randint`` in production."""


class Settings(Struct, frozen=True):
    """What the flags say, the same for every pod."""

    annotation_prefix: str = "eks.amazonaws.com"
    region: str = ""
    regional_sts: bool = False
    token_expiration: int = DEFAULT_TOKEN_EXPIRATION
    token_audience: str = "sts.amazonaws.com"  # noqa: S105 - a public name
    token_mount_path: str = "/var/run/secrets/eks.amazonaws.com/serviceaccount"  # noqa: S105 - a directory
    container_credentials_audience: str = "pods.eks.amazonaws.com"
    container_credentials_mount_path: str = "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount"
    container_credentials_volume_name: str = "eks-pod-identity-token"
    container_credentials_token_path: str = "eks-pod-identity-token"  # noqa: S105 - a file name
    container_credentials_full_uri: str = "http://169.254.170.23/v1/credentials"


class Account(Struct, frozen=True, gc=False):
    """What is configured for one service account, by its annotations or by an entry of the ConfigMap."""

    role_arn: str = ""
    audience: str | None = None
    """None: the flag's; empty: no audience in the projection."""
    regional_sts: bool | None = None
    """None: the flag's."""
    token_expiration: int | None = None
    """Seconds; None: the flag's."""


UNCONFIGURED = Account()
"""Shared by all the accounts without annotations of ours: most of a cluster's."""


class NamespacedName(NamedTuple):
    """Namespace and name of a service account."""

    namespace: str
    name: str


class Sources(Protocol):
    """What is known of the cluster at the moment of a review."""

    def has_identity(self, account: NamespacedName) -> bool:
        """Tell whether the pair is in the identities."""
        ...

    def cached_account(self, account: NamespacedName) -> Account | None:
        """Return the watched service account, None if it is not in the cache."""
        ...

    def configured_account(self, account: NamespacedName) -> Account | None:
        """Return the entry of the ``--watch-config-map`` ConfigMap for exactly this pair."""
        ...

    def wildcard_account(self, name: str) -> Account | None:
        """Return the entry of that ConfigMap for this name in every namespace."""
        ...


def mutate_pod(pod: Pod, namespace: str, sources: Sources, settings: Settings, draw: Draw) -> Mutation | None:
    """Decide on a pod and build its patch; None leaves it alone.

    Args:
        pod: The pod as received.
        namespace: The review's namespace: the object's own is not looked at (WHK-115).
        sources: Identities and service accounts.
        settings: The flags.
        draw: Randomness for the life of a Pod Identity token.
    """
    account = NamespacedName(namespace, pod.service_account)
    _report_unused(pod.annotations, settings.annotation_prefix, _ON_PODS, "pod")
    if sources.has_identity(account):
        injection = _pod_identity(pod, account, sources, settings, draw)
    else:
        web_identity = irsa_account(account, sources)
        if web_identity is None:
            return None
        injection = _irsa(pod, web_identity, settings)
    return mutate(pod, injection, _skipped_containers(pod, settings))


def irsa_account(account: NamespacedName, sources: Sources) -> Account | None:
    """Find the configuration with the role of an IRSA pod, in upstream's order (WHK-723)."""
    candidates = (
        sources.cached_account(account),
        sources.configured_account(account),
        sources.wildcard_account(account.name),
    )
    return next((candidate for candidate in candidates if candidate is not None and candidate.role_arn), None)


def account_from_annotations(annotations: dict[str, str], prefix: str, role_prefix: str = "") -> Account:
    """Read the annotations of a ServiceAccount (section 8). Values that do not parse are ignored (WHK-606, WHK-609).

    Args:
        annotations: All of the ServiceAccount's.
        prefix: Prefix of those that count.
        role_prefix: What to put before a role that is no ARN; empty to take it as it is (WHK-410).
    """
    _report_unused(annotations, prefix, _ON_ACCOUNTS, "ServiceAccount")
    role = annotations.get(f"{prefix}/role-arn", "")
    account = Account(
        role_arn=role_prefix + role if role and not role.startswith("arn:") else role,
        audience=annotations.get(f"{prefix}/audience"),
        regional_sts=_bool_annotation(annotations, f"{prefix}/sts-regional-endpoints"),
        token_expiration=_expiration_annotation(annotations, f"{prefix}/token-expiration"),
    )
    if account.role_arn and not _ROLE_ARN.fullmatch(account.role_arn):
        _log.warning("role-arn annotation %r is no role ARN; it is injected as it is", account.role_arn)
    return UNCONFIGURED if account == UNCONFIGURED else account


def _report_unused(annotations: dict[str, str], prefix: str, used: frozenset[str], kind: str) -> None:
    """Say which annotations under the prefix do nothing: misspelt, or on the wrong kind of object (WHK-612)."""
    for key in annotations:
        if key.startswith(f"{prefix}/") and key.removeprefix(f"{prefix}/") not in used:
            _log.info("annotation %r has no effect on a %s", key, kind)


def _pod_identity(pod: Pod, account: NamespacedName, sources: Sources, settings: Settings, draw: Draw) -> Injection:
    common = sources.cached_account(account) or sources.configured_account(account) or UNCONFIGURED
    expiration = _expiration(pod, common, settings)
    if expiration == DEFAULT_TOKEN_EXPIRATION:
        expiration = draw(_JITTER_MIN, DEFAULT_TOKEN_EXPIRATION)
    return Injection(
        method="container_credentials",
        source=("AWS_CONTAINER_CREDENTIALS_FULL_URI", settings.container_credentials_full_uri),
        token_variable="AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",  # noqa: S106 - a variable's name
        volume_name=settings.container_credentials_volume_name,
        audience=settings.container_credentials_audience,
        token_path=settings.container_credentials_token_path,
        mount_path=settings.container_credentials_mount_path,
        expiration_seconds=expiration,
        regional_sts=_regional_sts(common, settings),
        region=settings.region,
        labelled=True,
    )


def _irsa(pod: Pod, account: Account, settings: Settings) -> Injection:
    return Injection(
        method="sts_web_identity",
        source=("AWS_ROLE_ARN", account.role_arn),
        token_variable="AWS_WEB_IDENTITY_TOKEN_FILE",  # noqa: S106 - a variable's name
        volume_name="aws-iam-token",
        audience=settings.token_audience if account.audience is None else account.audience,
        token_path="token",  # noqa: S106 - a file name
        mount_path=settings.token_mount_path,
        expiration_seconds=_expiration(pod, account, settings),
        regional_sts=_regional_sts(account, settings),
        region=settings.region,
        labelled=False,
    )


def _expiration(pod: Pod, account: Account, settings: Settings) -> int:
    on_pod = _expiration_annotation(pod.annotations, f"{settings.annotation_prefix}/token-expiration")
    if on_pod is not None:
        return on_pod
    return settings.token_expiration if account.token_expiration is None else account.token_expiration


def _regional_sts(account: Account, settings: Settings) -> bool:
    return settings.regional_sts if account.regional_sts is None else account.regional_sts


def _skipped_containers(pod: Pod, settings: Settings) -> frozenset[str]:
    return frozenset(first_csv_record(pod.annotations.get(f"{settings.annotation_prefix}/skip-containers", "")))


def _bool_annotation(annotations: dict[str, str], key: str) -> bool | None:
    text = annotations.get(key)
    try:
        return None if text is None else parse_bool(text)
    except ValueError:
        return None


def _expiration_annotation(annotations: dict[str, str], key: str) -> int | None:
    text = annotations.get(key)
    try:
        return None if text is None else max(parse_int64(text), MIN_TOKEN_EXPIRATION)
    except ValueError:
        return None
