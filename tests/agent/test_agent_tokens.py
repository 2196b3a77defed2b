"""Form and time checks of tokens, in Go's words (AGT section 3)."""

from __future__ import annotations

import base64
import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from podid_agent.tokens import InvalidTokenError, TokenClaims, check_times, parse_token


def _segment(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


GOOD_HEADER = _segment(b'{"alg":"RS256"}')


def _refusal(token: bytes) -> str:
    with pytest.raises(InvalidTokenError) as caught:
        parse_token(token)
    return str(caught.value)


def _claims(claims: bytes) -> TokenClaims:
    return parse_token(GOOD_HEADER + b"." + _segment(claims) + b".")


def _claims_refusal(claims: bytes) -> str:
    return _refusal(GOOD_HEADER + b"." + _segment(claims) + b".")


@pytest.mark.parametrize("token", [b"abc", b"a.b", b"a.b.c.d"])
def test_segments_are_counted(token: bytes) -> None:
    """AGT-302."""
    assert _refusal(token) == "token is malformed: token contains an invalid number of segments"


@pytest.mark.parametrize(
    ("header", "offset"),
    [(b"Bearer e30", 6), (b"AAAAA", 4), (b"AA+A", 2), (b"A/AA", 1), (b"e30=", 3), (b"\xff", 0)],
)
def test_bad_base64_is_located(header: bytes, offset: int) -> None:
    """AGT-303, AGT-304."""
    assert _refusal(header + b".!.") == (
        f"token is malformed: could not base64 decode header: illegal base64 data at input byte {offset}"
    )
    assert _refusal(GOOD_HEADER + b"." + header + b".") == (
        f"token is malformed: could not base64 decode claim: illegal base64 data at input byte {offset}"
    )


def test_trailing_bits_may_be_set() -> None:
    """AGT-305: ``e31`` decodes like ``e30``."""
    assert parse_token(GOOD_HEADER + b".e31.") == TokenClaims(None, None, {})


@pytest.mark.parametrize(
    ("header", "text"),
    [
        (b"", "unexpected end of JSON input"),
        (b'{"a":', "unexpected end of JSON input"),
        (b"xyz", "invalid character 'x' looking for beginning of value"),
        (b"{}x", "invalid character 'x' after top-level value"),
        (b"[]", "json: cannot unmarshal array into Go value of type map[string]interface {}"),
        (b'"a"', "json: cannot unmarshal string into Go value of type map[string]interface {}"),
        (b"1", "json: cannot unmarshal number into Go value of type map[string]interface {}"),
    ],
)
def test_header_must_be_an_object(header: bytes, text: str) -> None:
    """AGT-306, AGT-308."""
    assert _refusal(_segment(header) + b".!.") == f"token is malformed: could not JSON decode header: {text}"


@pytest.mark.parametrize(
    ("claims", "text"),
    [
        (b"[]", "json: cannot unmarshal array into Go value of type jwt.RegisteredClaims"),
        (b'"s"', "json: cannot unmarshal string into Go value of type jwt.RegisteredClaims"),
        (b'{"iss":5}', "json: cannot unmarshal number into Go struct field RegisteredClaims.iss of type string"),
        (b'{"sub":[]}', "json: cannot unmarshal array into Go struct field RegisteredClaims.sub of type string"),
        (b'{"jti":{}}', "json: cannot unmarshal object into Go struct field RegisteredClaims.jti of type string"),
        (
            b'{"exp":"abc"}',
            r'could not parse NumericData: json: invalid number literal, trying to unmarshal "\"abc\"" into Number',
        ),
        (
            b'{"exp":true}',
            "could not parse NumericData: json: cannot unmarshal bool into Go value of type json.Number",
        ),
        (
            b'{"nbf":[]}',
            "could not parse NumericData: json: cannot unmarshal array into Go value of type json.Number",
        ),
        (
            b'{"iat":{}}',
            "could not parse NumericData: json: cannot unmarshal object into Go value of type json.Number",
        ),
        (
            b'{"exp":1e400}',
            'could not convert json number value to float: strconv.ParseFloat: parsing "1e400": value out of range',
        ),
        (b'{"aud":5}', "invalid type for claim"),
        (b'{"aud":{}}', "invalid type for claim"),
        (b'{"aud":[null]}', "invalid type for claim"),
        (b'{"aud":["a",5]}', "invalid type for claim"),
        (b'{"iss":5,"aud":5}', "invalid type for claim"),
        (b'{"exp":NaN}', "invalid character 'N' looking for beginning of value"),
        (b'{"exp":01}', "invalid character '1' after object key:value pair"),
        (b'{"a":"\n"}', r"invalid character '\n' in string literal"),
        (b'{"a":"\\x"}', "invalid character 'x' in string escape code"),
        (b'{"a":"\\u12g4"}', r"invalid character 'g' in \u hexadecimal character escape"),
        (b'{"a":tru}', "invalid character '}' in literal true (expecting 'e')"),
        (b'{"a":-}', "invalid character '}' in numeric literal"),
        (b'{"a":1.}', "invalid character '}' after decimal point in numeric literal"),
        (b'{"a":1e+}', "invalid character '}' in exponent of numeric literal"),
        (b'{"a" 1}', "invalid character '1' after object key"),
        (b'{"a":1,}', "invalid character '}' looking for beginning of object key string"),
        (b"[1 2]", "invalid character '2' after array element"),
        (b'{"a":"\\', "unexpected end of JSON input"),
        (b"\xef\xbb\xbf{}", "invalid character 'ï' looking for beginning of value"),
        (b"{\0}", r"invalid character '\x00' looking for beginning of object key string"),
        (b"[" * 11_000, "invalid character '[' exceeded max depth"),
    ],
)
def test_claims_are_refused_in_gos_words(claims: bytes, text: str) -> None:
    """AGT-307, AGT-308, AGT-318, AGT-319, AGT-322, AGT-324."""
    assert _claims_refusal(claims) == f"token is malformed: could not JSON decode claim: {text}"


@pytest.mark.parametrize(
    "claims",
    [
        b"{}",
        b"null",
        b' {"a":1} \n',
        b'{"a":"\xff\xfe"}',
        b'{"a":"\\ud800"}',
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"a":' + b"[" * 9000 + b"]" * 9000 + b"}",
        b'{"iat":99999999999,"aud":"wrong","kubernetes.io":5}',
        b'{"exp":null,"aud":null,"iss":null}',
        b'{"exp":5,"exp":null}',
    ],
    ids=lambda claims: claims[:20],
)
def test_json_that_python_finds_odd_is_accepted(claims: bytes) -> None:
    """AGT-317, AGT-318, AGT-320, AGT-323."""
    parsed = _claims(claims)

    assert (parsed.expires_at, parsed.not_before) == (None, None)


@pytest.mark.parametrize("header", [b"{}", b'{"alg":null}', b'{"alg":5}', b"null"])
def test_algorithm_must_be_given(header: bytes) -> None:
    """AGT-309."""
    assert _refusal(_segment(header) + b".e30.") == "token is unverifiable: signing method (alg) is unspecified"


@pytest.mark.parametrize("name", ["", "NONE", "None", "rs256", "ES256K", "RS1"])
def test_unknown_algorithms_are_refused(name: str) -> None:
    """AGT-310."""
    header = _segment(f'{{"alg":"{name}"}}'.encode())

    assert _refusal(header + b".e30.") == "token is unverifiable: signing method (alg) is unavailable"


@pytest.mark.parametrize(
    "name",
    ["HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512",
     "EdDSA", "none"],
)  # fmt: skip
def test_known_algorithms_are_accepted_whatever_the_signature(name: str) -> None:
    """AGT-311, AGT-312."""
    parse_token(_segment(f'{{"alg":"{name}"}}'.encode()) + b".e30.\xff not base64")


@pytest.mark.parametrize(
    ("claims", "now", "text"),
    [
        (b'{"exp":1000.95}', 1000.0, "token is expired"),
        (b'{"exp":"1000"}', 1000.0, "token is expired"),
        (b'{"exp":0}', 1000.0, "token is expired"),
        (b'{"exp":-1}', 1000.0, "token is expired"),
        (b'{"exp":1e19}', 1000.0, "token is expired"),
        (b'{"exp":1e300}', 1000.0, "token is expired"),
        (b'{"nbf":1001}', 1000.9, "token is not valid yet"),
        (b'{"exp":1,"nbf":2000}', 1000.0, "token is expired, token is not valid yet"),
    ],
)
def test_times_are_checked_without_leeway(claims: bytes, now: float, text: str) -> None:
    """AGT-313 to AGT-316, AGT-321."""
    with pytest.raises(InvalidTokenError) as caught:
        check_times(_claims(claims), now)

    assert str(caught.value) == text


@pytest.mark.parametrize("claims", [b'{"exp":1001}', b'{"exp":1e18}', b'{"nbf":1000.95}', b"{}"])
def test_good_times_pass(claims: bytes) -> None:
    """AGT-313, AGT-314, AGT-316, AGT-317, AGT-321."""
    check_times(_claims(claims), 1000.5)


def test_first_fault_wins() -> None:
    """AGT-301: the claims are looked at before the algorithm."""
    token = _segment(b'{"alg":"x"}') + b"." + _segment(b"[]") + b"."

    assert "could not JSON decode claim" in _refusal(token)


def test_claimed_identity_is_taken_for_logs_only() -> None:
    """AGT-664, AGT-666."""
    claims = _claims(
        b'{"kubernetes.io":{"namespace":"n","serviceaccount":{"name":"s"},"pod":{"name":"p","uid":"u"},"x":5}}'
    )

    assert claims.identity == {
        "claimed-namespace": "n",
        "claimed-service-account": "s",
        "claimed-pod": "p",
        "claimed-pod-uid": "u",
    }


@given(st.binary(max_size=200))
@settings(max_examples=300)
def test_no_bytes_break_the_parser(data: bytes) -> None:
    """AGT-325: whatever comes, it parses or is refused."""
    for token in (data, GOOD_HEADER + b"." + _segment(data) + b".", _segment(data) + b".e30."):
        with contextlib.suppress(InvalidTokenError):
            parse_token(token)
