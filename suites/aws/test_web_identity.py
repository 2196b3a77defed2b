"""AssumeRoleWithWebIdentity and GetSessionToken (``iam.md`` 11.6 and 11.7)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from harness.cloud.ports import Refusal, Role
from harness.cloud.sts import AssumeRoleRequest
from harness.cloud.web_identity import (
    AssumedWithWebIdentity,
    KeysUnavailable,
    OidcProvider,
    assume_role_with_web_identity,
)
from harness.conformance.marks import requirement
from harness.subject.cloud_ports import SeededIds, SettableClock, StoredIam

ACCOUNT = "123456789012"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/irsa"
HOST = "oidc.eks.eu-west-1.amazonaws.com/id/EXAMPLED539D4633E53DE1B716D3041E"
PROVIDER = f"arn:aws:iam::{ACCOUNT}:oidc-provider/{HOST}"
SUBJECT = "system:serviceaccount:demo:s3-reader"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
CURVE = ec.generate_private_key(ec.SECP256R1())
NOT_AUTHORIZED = (403, "AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity")
NO_JWT = "The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)"
NO_KEY = (
    "Couldn't retrieve verification key from your identity provider,  "
    "please reference AssumeRoleWithWebIdentity documentation for requirements"
)


@dataclass
class Providers:
    """One provider, whose keys can be missing until they are read anew."""

    client_ids: tuple[str, ...] = ("sts.amazonaws.com",)
    is_reachable: bool = True
    is_rotated: bool = False
    reads: list[bool] = field(default_factory=list[bool])

    def provider(self, account: str, issuer: str) -> OidcProvider | None:
        return OidcProvider(PROVIDER, self.client_ids) if (account, issuer) == (ACCOUNT, HOST) else None

    def keys(self, issuer: str, *, is_fresh: bool) -> Mapping[str, Any]:
        assert issuer == HOST
        self.reads.append(is_fresh)
        if not self.is_reachable:
            raise KeysUnavailable
        own = json.loads(RSAAlgorithm.to_jwk(KEY.public_key())) | {"kid": "one", "alg": "RS256"}
        curve = json.loads(ECAlgorithm.to_jwk(CURVE.public_key())) | {"kid": "curve"}
        return {"keys": [curve] if self.is_rotated and not is_fresh else [own, curve]}


@dataclass
class World:
    """A role that trusts the provider for one service account."""

    iam: StoredIam = field(default_factory=StoredIam)
    providers: Providers = field(default_factory=Providers)
    clock: SettableClock = field(default_factory=SettableClock)
    ids: SeededIds = field(default_factory=SeededIds)

    def trust(self, *actions: str, condition: Any = None, **changes: Any) -> None:
        statement = {
            "Effect": "Allow",
            "Principal": {"Federated": PROVIDER},
            "Action": list(actions or ["sts:AssumeRoleWithWebIdentity"]),
            "Condition": condition or {"StringEquals": {f"{HOST}:sub": SUBJECT, f"{HOST}:aud": "sts.amazonaws.com"}},
        }
        document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        self.iam.roles[ROLE] = Role(
            ROLE, "irsa", "AROAIRSAIRSAIRSAIRSA1", ACCOUNT, document, (), None, **{"tags": {}} | changes
        )

    def token(self, key: Any = KEY, algorithm: str = "RS256", kid: str | None = "one", **changes: Any) -> str:
        now = int(self.clock.now().timestamp())
        claims = {"iss": f"https://{HOST}", "sub": SUBJECT, "aud": ["sts.amazonaws.com"], "exp": now + 3600}
        claims |= {"iat": now, "nbf": now}
        return jwt.encode(claims | changes, key, algorithm=algorithm, headers={"kid": kid} if kid else None)

    def assume(self, token: str | None = None, role: str = ROLE, **changes: Any) -> AssumedWithWebIdentity:
        request = AssumeRoleRequest(**{"role_arn": role, "role_session_name": "botocore-session-1"} | changes)
        return assume_role_with_web_identity(
            request,
            self.token() if token is None else token,
            iam=self.iam,
            providers=self.providers,
            ids=self.ids,
            clock=self.clock,
        )

    def refusal(self, token: str | None = None, **changes: Any) -> tuple[int, str, str]:
        with pytest.raises(Refusal) as caught:
            self.assume(token, **changes)
        return caught.value.status, caught.value.code, caught.value.message


@pytest.fixture
def world() -> World:
    world = World()
    world.trust()
    return world


def invalid(message: str) -> tuple[int, str, str]:
    return 400, "InvalidIdentityToken", message


@requirement("API-704", "API-708", "IAM-STS-42")
def test_a_token_of_the_trusted_service_account_becomes_a_session(world: World) -> None:
    """IRSA gives a session without any tags (IAM-STS-42)."""
    found = world.assume(duration_seconds=900)

    credential = found.assumed.credential
    assert (found.subject, found.audience, found.provider) == (SUBJECT, "sts.amazonaws.com", PROVIDER)
    assert credential.principal.arn == f"arn:aws:sts::{ACCOUNT}:assumed-role/irsa/botocore-session-1"
    assert credential.principal.user_id == "AROAIRSAIRSAIRSAIRSA1:botocore-session-1"
    assert credential.principal.tags == {}
    assert (credential.origin, credential.federated_provider, credential.chained) == ("web-identity", PROVIDER, False)
    assert credential.expires_at == world.clock.now() + timedelta(seconds=900)
    assert found.assumed.packed_policy_size is None


@requirement("API-703")
def test_the_role_s_maximum_counts_and_chaining_s_does_not(world: World) -> None:
    world.trust(max_session_seconds=7200)

    assert world.assume(duration_seconds=7200).assumed.duration_seconds == 7200
    assert world.refusal(duration_seconds=7201) == (
        400,
        "ValidationError",
        "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.",
    )


@requirement("API-721")
@pytest.mark.parametrize(
    "token", ["abc.def.ghi", "opaque", "eyJhbGciOiJSUzI1NiJ9.W10.c2ln", "....", "\u00e9\u00e9.\u00e9.\u00e9"]
)
def test_what_is_no_jwt_is_refused(world: World, token: str) -> None:
    assert world.refusal(token) == invalid(NO_JWT)


@requirement("API-703")
@pytest.mark.parametrize(
    ("token", "constraint"), [("abc", "greater than or equal to 4"), ("a" * 20_001, "less than or equal to 20000")]
)
def test_a_token_has_a_length(world: World, token: str, constraint: str) -> None:
    assert world.refusal(token)[:2] == (400, "ValidationError")
    assert world.refusal(token)[2].endswith(f"Member must have length {constraint}")


@requirement("API-703")
@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("role_arn", "arn:aws:iam::1:r"),
        ("role_session_name", "x"),
        ("role_session_name", "x" * 65),
        ("role_session_name", "a b"),
        ("role_session_name", None),
        ("duration_seconds", 899),
        ("duration_seconds", 43_201),
        ("policy", "x" * 2049),
    ],
)
def test_parameters_have_limits(world: World, parameter: str, value: Any) -> None:
    """What is out of range is a ValidationError."""
    assert world.refusal(**{parameter: value})[:2] == (400, "ValidationError")


@requirement("API-722")
def test_parameters_come_before_the_token(world: World) -> None:
    assert world.refusal("opaque", role_session_name="a b")[1] == "ValidationError"


@requirement("API-705", "API-721")
@pytest.mark.parametrize("issuer", ["https://oidc.example.com/id/1", HOST, f"http://{HOST}"])
def test_an_issuer_without_provider_in_the_role_s_account_is_refused(world: World, issuer: str) -> None:
    message = f"No OpenIDConnect provider found in your account for {issuer}"

    assert world.refusal(world.token(iss=issuer)) == invalid(message)


@requirement("API-705", "IAM-PRIN-06")
def test_the_provider_of_another_account_does_not_count(world: World) -> None:
    foreign = "arn:aws:iam::987654321098:role/irsa"

    assert world.refusal(role=foreign)[2] == f"No OpenIDConnect provider found in your account for https://{HOST}"


@requirement("API-721")
def test_keys_that_cannot_be_read_are_the_provider_s_fault(world: World) -> None:
    world.providers.is_reachable = False

    assert world.refusal() == (400, "IDPCommunicationError", NO_KEY)


@requirement("API-705")
def test_a_rotated_key_is_read_anew_once(world: World) -> None:
    world.providers.is_rotated = True

    assert world.assume().subject == SUBJECT
    assert world.providers.reads == [False, True]


@requirement("API-705", "API-721", "IAM-STS-40")
@pytest.mark.parametrize(
    ("key", "algorithm", "kid", "message"),
    [
        (OTHER_KEY, "RS256", "one", "The signature of the ID Token could not be verified."),
        (KEY, "RS256", "two", NO_KEY),
        (KEY, "RS256", None, NO_KEY),
        (KEY, "PS256", "one", "The ID Token is signed with an algorithm that is not supported."),
        ("x" * 64, "HS256", "one", "The ID Token is signed with an algorithm that is not supported."),
        (None, "none", "one", "The ID Token is signed with an algorithm that is not supported."),
        (CURVE, "ES256", "one", "The signature of the ID Token could not be verified."),
    ],
    ids=["foreign key", "unknown key", "no key named", "PS256", "HS256", "unsigned", "foreign curve"],
)
def test_a_forged_token_is_refused(world: World, key: Any, algorithm: str, kid: str | None, message: str) -> None:
    """IAM-STS-40."""
    assert world.refusal(world.token(key, algorithm, kid)) == invalid(message)


@requirement("API-705")
def test_an_elliptic_key_is_as_good(world: World) -> None:
    assert world.assume(world.token(CURVE, "ES256", "curve")).subject == SUBJECT


@requirement("API-705", "API-721")
def test_an_expired_token_names_both_times(world: World) -> None:
    now = int(world.clock.now().timestamp())

    assert world.refusal(world.token(exp=now)) == (
        400,
        "ExpiredTokenException",
        f"Token expired: current date/time {now} must be before the expiration date/time {now}",
    )


@requirement("API-705", "API-721", "IAM-STS-41")
@pytest.mark.parametrize("audience", ["pods.eks.amazonaws.com", ["pods.eks.amazonaws.com"], [], None])
def test_an_audience_that_the_provider_does_not_list_is_refused(world: World, audience: Any) -> None:
    """A Pod Identity token is no IRSA token (IAM-STS-41, S16)."""
    assert world.refusal(world.token(aud=audience)) == invalid("Incorrect token audience")


@requirement("API-722")
def test_expiry_comes_before_audience_and_audience_before_trust(world: World) -> None:
    world.trust("sts:AssumeRole")

    assert world.refusal(world.token(exp=1, aud="x"))[1] == "ExpiredTokenException"
    assert world.refusal(world.token(aud="x")) == invalid("Incorrect token audience")
    assert world.refusal() == NOT_AUTHORIZED


@requirement("API-706", "API-721")
def test_another_subject_or_action_is_not_authorized(world: World) -> None:
    """S17 and S18; a role that is not there answers alike."""
    assert world.refusal(world.token(sub="system:serviceaccount:demo:other")) == NOT_AUTHORIZED
    world.trust("sts:AssumeRole", "sts:TagSession")
    assert world.refusal() == NOT_AUTHORIZED
    assert world.refusal(role=f"{ROLE}2") == NOT_AUTHORIZED


@requirement("API-707")
def test_tags_and_source_identity_of_the_token_need_their_actions(world: World) -> None:
    claims = {
        "https://aws.amazon.com/tags": {"principal_tags": {"team": ["a"]}, "transitive_tag_keys": ["team"]},
        "https://aws.amazon.com/source_identity": "alice",
    }

    assert world.refusal(world.token(**claims)) == NOT_AUTHORIZED
    world.trust("sts:AssumeRoleWithWebIdentity", "sts:TagSession", "sts:SetSourceIdentity")
    credential = world.assume(world.token(**claims)).assumed.credential
    assert (credential.principal.tags, credential.transitive_tags) == ({"team": "a"}, {"team": "a"})
    assert credential.source_identity == "alice"


@requirement("API-721")
def test_a_session_policy_narrows(world: World) -> None:
    document = '{"Version": "2012-10-17", "Statement": []}'

    assert world.refusal(policy=document)[1:] == ("MalformedPolicyDocument", "Syntax errors in policy.")
    good = document.replace("[]", '[{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]')
    assert world.assume(policy=good).assumed.credential.session_policies == (good,)
