"""Whose token it is: signature, issuer, times, audience, claims (API-406 to API-411)."""

from __future__ import annotations

import base64
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from eks_fakes import ISSUER, SCOPE, Lab

from harness.cloud.eks_auth import PodClaims, verify_token
from harness.cloud.ports import Refusal

KEY = rsa.generate_private_key(65537, 2048)
OTHER_KEY = rsa.generate_private_key(65537, 2048)


def jwks(key: Any, kid: str = "k1", algorithm: str = "RS256") -> dict[str, Any]:
    encoder = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    public = json.loads(encoder.to_jwk(key.public_key()))
    return {"keys": [public | {"kid": kid, "use": "sig", "alg": algorithm}]}


def claims(lab: Lab, **changes: Any) -> dict[str, Any]:
    now = int(lab.clock.now().timestamp())
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
def lab() -> Lab:
    lab = Lab.new()
    lab.clusters.keys = jwks(KEY)
    return lab


def verify(lab: Lab, token: str) -> PodClaims:
    cluster = lab.eks.clusters.get(SCOPE, "pod-identity-lab")
    return verify_token(token, cluster, lab.clusters, lab.clock.now())


def signed(lab: Lab, key: Any = KEY, kid: str | None = "k1", algorithm: str = "RS256", **changes: Any) -> str:
    return jwt.encode(claims(lab, **changes), key, algorithm=algorithm, headers={"kid": kid} if kid else {})


def code(lab: Lab, token: str) -> str:
    with pytest.raises(Refusal) as refusal:
        verify(lab, token)
    assert refusal.value.status == 400
    return refusal.value.code


def test_claims_say_which_pod_it_is(lab: Lab) -> None:
    assert verify(lab, signed(lab)) == PodClaims("demo", "s3-reader", "s3-test", "u2")


@pytest.mark.parametrize("audience", ["pods.eks.amazonaws.com", ["other", "pods.eks.amazonaws.com"]])
def test_audience_is_a_text_or_a_list(lab: Lab, audience: Any) -> None:
    assert verify(lab, signed(lab, aud=audience)).pod_name == "s3-test"


def test_elliptic_keys_are_accepted(lab: Lab) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    lab.clusters.keys = jwks(key, algorithm="ES256")

    assert verify(lab, signed(lab, key, algorithm="ES256")).pod_name == "s3-test"


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": ISSUER + "/"},
        {"aud": ["sts.amazonaws.com"]},
        {"aud": None},
        {"nbf": 1 << 40},
        {"exp": "soon"},
        {"sub": "system:serviceaccount:demo:other"},
        {"sub": None},
        {"kubernetes.io": None},
        {"kubernetes.io": []},
        {"kubernetes.io": {"namespace": "demo", "serviceaccount": {"name": "s3-reader"}}},
        {"kubernetes.io": {"namespace": "demo", "serviceaccount": {"name": "s3-reader"}, "pod": {"name": "p"}}},
        {"kubernetes.io": {"namespace": "demo", "serviceaccount": {"name": "s3-reader"}, "pod": {"name": 1, "uid": 2}}},
    ],
)
def test_wrong_claims_are_invalid(lab: Lab, changes: dict[str, Any]) -> None:
    token = signed(lab, **{name: value for name, value in changes.items() if value is not None})
    if None in changes.values():
        reduced = {name: value for name, value in claims(lab).items() if name not in changes}
        token = jwt.encode(reduced, KEY, algorithm="RS256", headers={"kid": "k1"})

    assert code(lab, token) == "InvalidTokenException"


def test_expiry_tells_both_times(lab: Lab) -> None:
    """API-408, API-422."""
    now = int(lab.clock.now().timestamp())
    with pytest.raises(Refusal) as refusal:
        verify(lab, signed(lab, exp=now))

    assert (refusal.value.code, refusal.value.message) == (
        "ExpiredTokenException",
        (
            "The token included in the request is expired: current date/time 2026-04-10T14:00:00Z"
            " must be before the expiration date/time 2026-04-10T14:00:00Z"
        ),
    )
    assert verify(lab, signed(lab, exp=now + 1)).namespace == "demo"


def test_issuer_comes_before_expiry_and_expiry_before_audience(lab: Lab) -> None:
    """API-415."""
    assert code(lab, signed(lab, exp=1, iss="https://elsewhere")) == "InvalidTokenException"
    assert code(lab, signed(lab, exp=1, aud="elsewhere")) == "ExpiredTokenException"


def test_foreign_signature_unknown_and_missing_key_ids_are_invalid(lab: Lab) -> None:
    assert code(lab, signed(lab, OTHER_KEY)) == "InvalidTokenException"
    assert code(lab, signed(lab, kid="k2")) == "InvalidTokenException"
    assert code(lab, signed(lab, kid=None)) == "InvalidTokenException"


def test_algorithms_without_a_public_key_are_invalid(lab: Lab) -> None:
    """``none``, and HMAC with the public key as its secret."""
    header = base64.urlsafe_b64encode(b'{"alg":"none","kid":"k1"}').rstrip(b"=").decode()
    payload = base64.urlsafe_b64encode(json.dumps(claims(lab)).encode()).rstrip(b"=").decode()
    modulus = lab.clusters.keys["keys"][0]["n"]

    assert code(lab, f"{header}.{payload}.") == "InvalidTokenException"
    assert code(lab, signed(lab, modulus, algorithm="HS256")) == "InvalidTokenException"
    assert code(lab, "a.b.c") == "InvalidTokenException"


def test_tampered_payload_is_invalid(lab: Lab) -> None:
    header, _, signature = signed(lab).split(".")
    payload = base64.urlsafe_b64encode(json.dumps(claims(lab, sub="x")).encode()).rstrip(b"=").decode()

    assert code(lab, f"{header}.{payload}.{signature}") == "InvalidTokenException"


def test_rotated_key_is_found_by_reading_the_keys_anew(lab: Lab) -> None:
    """API-324."""
    lab.clusters.fresh_keys = jwks(OTHER_KEY, "k2")

    assert verify(lab, signed(lab, OTHER_KEY, "k2")).namespace == "demo"


def test_unreachable_keys_are_no_verdict_about_the_token(lab: Lab) -> None:
    lab.clusters.refuses = True
    with pytest.raises(Refusal) as refusal:
        verify(lab, signed(lab))

    assert (refusal.value.status, refusal.value.code) == (503, "ServiceUnavailableException")
