"""Whose token it is: signature, issuer, times, audience, claims (API-406 to API-411)."""

from __future__ import annotations

import base64
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from harness.cloud.eks_auth import PodClaims, verify_token
from harness.cloud.ports import Refusal
from harness.conformance.marks import requirement
from harness.subject.eks_lab import ISSUER, SCOPE, Lab

OTHER_ISSUER = "https://oidc.eks.eu-west-1.amazonaws.com/id/FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF"
KEY = rsa.generate_private_key(65537, 2048)
OTHER_KEY = rsa.generate_private_key(65537, 2048)


def jwks(key: Any, kid: str = "k1", algorithm: str = "RS256") -> dict[str, Any]:
    encoder = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    public = json.loads(encoder.to_jwk(key.public_key()))
    return {"keys": [public | {"kid": kid, "use": "sig", "alg": algorithm}]}


def claims(cloud: Lab, **changes: Any) -> dict[str, Any]:
    now = int(cloud.clock.now().timestamp())
    return {
        "aud": ["pods.eks.amazonaws.com"],
        "exp": now + 3600,
        "nbf": now,
        "iat": now,
        "iss": ISSUER,
        "sub": "system:serviceaccount:demo:s3-reader",
        "kubernetes.io": {
            "namespace": "demo",
            "serviceaccount": {"name": "s3-reader", "uid": "u1"},
            "pod": {"name": "s3-test", "uid": "u2"},
        },
    } | changes


@pytest.fixture
def cloud() -> Lab:
    cloud = Lab.new()
    cloud.clusters.keys = jwks(KEY)
    return cloud


def verify(cloud: Lab, token: str) -> PodClaims:
    cluster = cloud.eks.clusters.get(SCOPE, "pod-identity-lab")
    return verify_token(token, cluster, cloud.clusters, cloud.clock.now())


def signed(cloud: Lab, key: Any = KEY, kid: str | None = "k1", algorithm: str = "RS256", **changes: Any) -> str:
    return jwt.encode(claims(cloud, **changes), key, algorithm=algorithm, headers={"kid": kid} if kid else {})


def code(cloud: Lab, token: str) -> str:
    with pytest.raises(Refusal) as refusal:
        verify(cloud, token)
    assert refusal.value.status == 400
    return refusal.value.code


@requirement("API-410")
def test_claims_say_which_pod_it_is(cloud: Lab) -> None:
    assert verify(cloud, signed(cloud)) == PodClaims("demo", "s3-reader", "s3-test", "u2")


@requirement("API-409")
@pytest.mark.parametrize("audience", ["pods.eks.amazonaws.com", ["other", "pods.eks.amazonaws.com"]])
def test_audience_is_a_text_or_a_list(cloud: Lab, audience: Any) -> None:
    assert verify(cloud, signed(cloud, aud=audience)).pod_name == "s3-test"


@requirement("API-406")
def test_elliptic_keys_are_accepted(cloud: Lab) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    cloud.clusters.keys = jwks(key, algorithm="ES256")

    assert verify(cloud, signed(cloud, key, algorithm="ES256")).pod_name == "s3-test"


def of_pod(**pod: Any) -> dict[str, Any]:
    return {"kubernetes.io": {"namespace": "demo", "serviceaccount": {"name": "s3-reader"}, **pod}}


@requirement("API-423")
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"iss": ISSUER + "/"}, marks=requirement("API-407")),
        pytest.param({"iss": OTHER_ISSUER}, marks=requirement("API-407")),
        pytest.param({"aud": ["sts.amazonaws.com"]}, marks=requirement("API-409")),
        pytest.param({"aud": None}, marks=requirement("API-409")),
        pytest.param({"nbf": 1 << 40}, marks=requirement("API-408")),
        pytest.param({"exp": "soon"}, marks=requirement("API-408")),
        pytest.param({"sub": "system:serviceaccount:demo:other"}, marks=requirement("API-410")),
        pytest.param({"sub": None}, marks=requirement("API-410")),
        pytest.param({"kubernetes.io": None}, marks=requirement("API-410")),
        pytest.param({"kubernetes.io": []}, marks=requirement("API-410")),
        pytest.param(of_pod(), marks=requirement("API-411")),
        pytest.param(of_pod(pod={"name": "p"}), marks=requirement("API-411")),
        pytest.param(of_pod(pod={"uid": "u"}), marks=requirement("API-411")),
        pytest.param(of_pod(pod={"name": 1, "uid": 2}), marks=requirement("API-411")),
    ],
)
def test_wrong_claims_are_invalid(cloud: Lab, changes: dict[str, Any]) -> None:
    token = signed(cloud, **{name: value for name, value in changes.items() if value is not None})
    if None in changes.values():
        reduced = {name: value for name, value in claims(cloud).items() if name not in changes}
        token = jwt.encode(reduced, KEY, algorithm="RS256", headers={"kid": "k1"})

    assert code(cloud, token) == "InvalidTokenException"


@requirement("API-408", "API-422")
def test_expiry_tells_both_times(cloud: Lab) -> None:
    """API-408, API-422."""
    now = int(cloud.clock.now().timestamp())
    with pytest.raises(Refusal) as refusal:
        verify(cloud, signed(cloud, exp=now))

    assert (refusal.value.code, refusal.value.message) == (
        "ExpiredTokenException",
        (
            "The token included in the request is expired: current date/time 2026-04-10T14:00:00Z"
            " must be before the expiration date/time 2026-04-10T14:00:00Z"
        ),
    )
    assert verify(cloud, signed(cloud, exp=now + 1)).namespace == "demo"


@requirement("API-415")
def test_issuer_comes_before_expiry_and_expiry_before_audience(cloud: Lab) -> None:
    """API-415."""
    assert code(cloud, signed(cloud, exp=1, iss="https://elsewhere")) == "InvalidTokenException"
    assert code(cloud, signed(cloud, exp=1, aud="elsewhere")) == "ExpiredTokenException"


@requirement("API-406")
def test_foreign_signature_unknown_and_missing_key_ids_are_invalid(cloud: Lab) -> None:
    assert code(cloud, signed(cloud, OTHER_KEY)) == "InvalidTokenException"
    assert code(cloud, signed(cloud, kid="k2")) == "InvalidTokenException"
    assert code(cloud, signed(cloud, kid=None)) == "InvalidTokenException"


@requirement("API-406")
def test_algorithms_without_a_public_key_are_invalid(cloud: Lab) -> None:
    """``none``, and HMAC with the public key as its secret."""
    header = base64.urlsafe_b64encode(b'{"alg":"none","kid":"k1"}').rstrip(b"=").decode()
    payload = base64.urlsafe_b64encode(json.dumps(claims(cloud)).encode()).rstrip(b"=").decode()
    modulus = cloud.clusters.keys["keys"][0]["n"]

    assert code(cloud, f"{header}.{payload}.") == "InvalidTokenException"
    assert code(cloud, signed(cloud, modulus, algorithm="HS256")) == "InvalidTokenException"
    assert code(cloud, "a.b.c") == "InvalidTokenException"


@requirement("API-406")
def test_tampered_payload_is_invalid(cloud: Lab) -> None:
    header, _, signature = signed(cloud).split(".")
    payload = base64.urlsafe_b64encode(json.dumps(claims(cloud, sub="x")).encode()).rstrip(b"=").decode()

    assert code(cloud, f"{header}.{payload}.{signature}") == "InvalidTokenException"


@requirement("API-406")
def test_rotated_key_is_found_by_reading_the_keys_anew(cloud: Lab) -> None:
    """API-324."""
    cloud.clusters.fresh_keys = jwks(OTHER_KEY, "k2")

    assert verify(cloud, signed(cloud, OTHER_KEY, "k2")).namespace == "demo"


@requirement("API-406")
def test_unreachable_keys_are_no_verdict_about_the_token(cloud: Lab) -> None:
    """Without the keys no token counts, and none is called bad."""
    cloud.clusters.refuses = True
    with pytest.raises(Refusal) as refusal:
        verify(cloud, signed(cloud))

    assert (refusal.value.status, refusal.value.code) == (503, "ServiceUnavailableException")
