"""AssumeRoleWithWebIdentity: a token of an OIDC provider for a role's credentials, which is IRSA (``iam.md`` 11.6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol

import jwt
from jwt.types import Options

from harness.cloud.documents import members, one_or_more
from harness.cloud.iam.model import ContextValue
from harness.cloud.ports import Clock, IamStore, Ids, Principal, Refusal
from harness.cloud.sts import AssumedRole, assume_role
from harness.cloud.sts_request import AssumeRoleRequest, check_request, validation_error

__all__ = [
    "AssumedWithWebIdentity",
    "KeysUnavailable",
    "OidcProvider",
    "OidcProviders",
    "assume_role_with_web_identity",
]

_ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512")
_TAGS = "https://aws.amazon.com/tags"
_SOURCE_IDENTITY = "https://aws.amazon.com/source_identity"
_NO_JWT = "The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)"
_NO_KEY = (
    "Couldn't retrieve verification key from your identity provider,  please reference AssumeRoleWithWebIdentity"
    " documentation for requirements"
)


class KeysUnavailable(Exception):  # noqa: N818 - named after what is the case
    """A provider's keys cannot be read."""


@dataclass(frozen=True, slots=True)
class OidcProvider:
    """An OIDC provider as IAM has stored it."""

    arn: str
    client_ids: tuple[str, ...]
    """Audiences that it accepts."""


class OidcProviders(Protocol):
    """Stored providers and the keys that they publish."""

    def provider(self, account: str, issuer: str) -> OidcProvider | None:
        """Return the account's provider for an issuer, given without ``https://``."""
        ...

    def keys(self, issuer: str, *, is_fresh: bool) -> Mapping[str, Any]:
        """Return an issuer's JWK set; ``is_fresh`` asks past any cache.

        Raises:
            KeysUnavailable: The issuer does not answer.
        """
        ...


@dataclass(frozen=True, slots=True)
class AssumedWithWebIdentity:
    """A new session, and whose token it was given for."""

    assumed: AssumedRole
    subject: str
    audience: str
    provider: str
    """ARN."""


def assume_role_with_web_identity(
    request: AssumeRoleRequest,
    token: str,
    *,
    iam: IamStore,
    providers: OidcProviders,
    ids: Ids,
    clock: Clock,
    context: Mapping[str, ContextValue] | None = None,
    managed_policy: Callable[[str], str | None] | None = None,
) -> AssumedWithWebIdentity:
    """Make a session of a role for the holder of a token; the role's trust policy decides alone.

    Args:
        request: What is asked for; tags and source identity come from the token instead.
        token: The JWT. Never logged and never part of an error.
        iam: Roles as they are now.
        providers: OIDC providers and their keys.
        ids: Source of keys.
        clock: The lab's time.
        context: Keys of the call (``iam.md`` 8.1).
        managed_policy: Document of a managed policy by ARN, for ``request.policy_arns``.

    Raises:
        Refusal: In the order of section 11.6: ``ValidationError``, ``InvalidIdentityToken``, ``IDPCommunicationError``,
            ``ExpiredTokenException``, ``AccessDenied``.
    """
    check_request(request)
    _check_length(token)
    claims = _unverified(token)
    issuer = _claim(claims, "iss")
    host = issuer.removeprefix("https://")
    provider = providers.provider(request.role_arn.split(":")[4], host)
    if provider is None or host == issuer:
        raise _invalid(f"No OpenIDConnect provider found in your account for {issuer}")
    claims = _verified(token, host, providers)
    _check_times(claims, clock.now())
    audience = next((str(name) for name in one_or_more(claims.get("aud")) if name in provider.client_ids), "")
    if not audience:
        raise _invalid("Incorrect token audience")
    subject = _claim(claims, "sub")
    keys: dict[str, ContextValue] = {
        **(context or {}),
        f"{host}:sub": subject,
        f"{host}:aud": audience,
        "aws:FederatedProvider": provider.arn,
    }
    if amr := tuple(str(item) for item in one_or_more(claims.get("amr"))):
        keys[f"{host}:amr"] = amr
    assumed = assume_role(
        _with_claims(request, claims),
        Principal("web-identity", "", "", ""),
        iam,
        ids,
        clock,
        context=keys,
        managed_policy=managed_policy,
    )
    credential = replace(assumed.credential, origin="web-identity", federated_provider=provider.arn)
    return AssumedWithWebIdentity(replace(assumed, credential=credential), subject, audience, provider.arn)


def _check_length(token: str) -> None:
    for is_wrong, constraint in (
        (len(token) < 4, "greater than or equal to 4"),
        (len(token) > 20_000, "less than or equal to 20000"),
    ):
        if is_wrong:
            raise validation_error(
                "1 validation error detected: Value at 'webIdentityToken' failed to satisfy constraint:"
                f" Member must have length {constraint}"
            )


def _with_claims(request: AssumeRoleRequest, claims: Mapping[str, Any]) -> AssumeRoleRequest:
    """Take session tags and source identity from the token; those of Kubernetes carry neither."""
    tags = members(claims.get(_TAGS))
    passed = members(tags.get("principal_tags"))
    identity = claims.get(_SOURCE_IDENTITY)
    return replace(
        request,
        tags=tuple((key, str(next(iter(one_or_more(value)), ""))) for key, value in passed.items()),
        transitive_tag_keys=tuple(str(key) for key in one_or_more(tags.get("transitive_tag_keys"))),
        source_identity=identity if isinstance(identity, str) else None,
    )


# --- the token ------------------------------------------------------------------------------------------------------

# Times and audience are checked by us, against the lab's clock and in AWS's order.
_OPTIONS: Options = {
    "require": ["exp", "iss"],
    "verify_aud": False,
    "verify_exp": False,
    "verify_iat": False,
    "verify_iss": False,
    "verify_nbf": False,
}


def _unverified(token: str) -> Mapping[str, Any]:
    try:
        return jwt.decode(token, options={**_OPTIONS, "verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        raise _invalid(_NO_JWT) from error


def _verified(token: str, issuer: str, providers: OidcProviders) -> Mapping[str, Any]:
    header = jwt.get_unverified_header(token)
    if header.get("alg") not in _ALGORITHMS:
        # "none" and keyed hashes, whose key would be public (IAM-STS-40).
        raise _invalid("The ID Token is signed with an algorithm that is not supported.")
    key = _key(header.get("kid"), issuer, providers)
    try:
        return jwt.decode(token, key, algorithms=list(_ALGORITHMS), options=_OPTIONS)
    except (jwt.PyJWTError, ValueError) as error:
        raise _invalid("The signature of the ID Token could not be verified.") from error


def _key(kid: object, issuer: str, providers: OidcProviders) -> jwt.PyJWK:
    """Return the provider's key with this id; the keys are read anew once, because they may have been rotated."""
    for is_fresh in (False, True):
        try:
            keys = jwt.PyJWKSet.from_dict(dict(providers.keys(issuer, is_fresh=is_fresh))).keys
        except (KeysUnavailable, jwt.PyJWTError) as error:
            raise Refusal("IDPCommunicationError", _NO_KEY, 400) from error
        for key in keys:
            if key.key_id is not None and key.key_id == kid:
                return key
    raise _invalid(_NO_KEY)


def _check_times(claims: Mapping[str, Any], now: datetime) -> None:
    expires, not_before = claims.get("exp"), claims.get("nbf")
    if isinstance(expires, bool) or not isinstance(expires, int | float):
        raise _invalid(_NO_JWT)
    if expires <= now.timestamp():
        raise Refusal(
            "ExpiredTokenException",
            f"Token expired: current date/time {int(now.timestamp())} must be before the expiration date/time"
            f" {int(expires)}",
            400,
        )
    if isinstance(not_before, int | float) and not_before > now.timestamp():
        raise _invalid("The ID Token is not valid yet.")


def _claim(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not value:
        raise _invalid(_NO_JWT)
    return value


def _invalid(message: str) -> Refusal:
    return Refusal("InvalidIdentityToken", message, 400)
