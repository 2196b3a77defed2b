"""Form and times of tokens, refused in the words of AWS's agent (section 3 of the contract)."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable

import pytest

from harness import limits, wait
from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.subject.agent import Agent
from harness.subject.eks_auth import FakeEKSAuth
from harness.subject.pod_token import CANARY, encode_segment, make_token, token_of

UNPARSABLE = "Service account token cannot be parsed: token is "
BAD_TIMES = "Service account token failed basic claim validations: "
HEADER = {"alg": "RS256"}
GOOD = encode_segment(HEADER)
FUTURE = 4102444800
BASE64 = "illegal base64 data at input byte"

# --- Form -----------------------------------------------------------------------------------------------------------


@requirement("AGT-302", "AGT-246")
@pytest.mark.parametrize("token", ["abc", "a.b", "a.b.c.d", ".", f"{GOOD}.e30"])
def test_segments_are_counted(agent: Agent, token: str) -> None:
    """There must be exactly two dots."""
    reply = agent.get(token)

    text = f"{UNPARSABLE}malformed: token contains an invalid number of segments\n"
    check("AGT-302", expected=(400, text), observed=(reply.status, reply.text))
    check("AGT-246", expected=(400, text), observed=(reply.status, reply.text))


SEGMENTS = [(b"Bearer e30", 6), (b"AAAAA", 4), (b"AA+A", 2), (b"A/AA", 1), (b"e30=", 3), (b"\xff", 0), (b"e 30", 1)]


@requirement("AGT-303")
@pytest.mark.parametrize(("segment", "offset"), SEGMENTS)
def test_a_header_that_is_no_base64_is_located(agent: Agent, segment: bytes, offset: int) -> None:
    """The text names the first bad character, or the one left over."""
    reply = agent.get(segment + b".!.")

    text = f"{UNPARSABLE}malformed: could not base64 decode header: {BASE64} {offset}\n"
    assert (reply.status, reply.text) == (400, text)


@requirement("AGT-304")
@pytest.mark.parametrize(("segment", "offset"), SEGMENTS)
def test_claims_that_are_no_base64_are_located(agent: Agent, segment: bytes, offset: int) -> None:
    """Likewise."""
    reply = agent.get(GOOD.encode() + b"." + segment + b".")

    text = f"{UNPARSABLE}malformed: could not base64 decode claim: {BASE64} {offset}\n"
    assert (reply.status, reply.text) == (400, text)


@requirement("AGT-305")
@pytest.mark.parametrize("claims", ["e31", "e30", encode_segment({"a": "\u00fb\u00ff\u00bf??>>"})])
def test_bits_left_over_may_be_set(agent: Agent, claims: str) -> None:
    """``e31`` is ``{}`` as ``e30`` is, and ``-`` and ``_`` are of the alphabet."""
    assert agent.get(f"{GOOD}.{claims}.{encode_segment(claims)}").status == 200


HEADERS = {
    b"": "unexpected end of JSON input",
    b'{"a":': "unexpected end of JSON input",
    b"xyz": "invalid character 'x' looking for beginning of value",
    b"{}x": "invalid character 'x' after top-level value",
    b"[]": "json: cannot unmarshal array into Go value of type map[string]interface {}",
    b'"a"': "json: cannot unmarshal string into Go value of type map[string]interface {}",
    b"1": "json: cannot unmarshal number into Go value of type map[string]interface {}",
}


@requirement("AGT-306", "AGT-308")
@pytest.mark.parametrize(("header", "text"), HEADERS.items())
def test_a_header_must_be_an_object(agent: Agent, header: bytes, text: str) -> None:
    """The reason is in the words of Go's JSON decoder."""
    reply = agent.get(f"{encode_segment(header)}.!.")

    prefix = f"{UNPARSABLE}malformed: could not JSON decode header: "
    check("AGT-306", expected=(400, prefix), observed=(reply.status, reply.text[: len(prefix)]))
    check("AGT-308", expected=f"{text}\n", observed=reply.text[len(prefix) :])


NUMBER = "could not parse NumericData: json: "
CLAIMS = {
    "AGT-307": {
        b"[]": "json: cannot unmarshal array into Go value of type jwt.RegisteredClaims",
        b'"s"': "json: cannot unmarshal string into Go value of type jwt.RegisteredClaims",
        b"1": "json: cannot unmarshal number into Go value of type jwt.RegisteredClaims",
        b"": "unexpected end of JSON input",
        b'{"a":': "unexpected end of JSON input",
        b"xyz": "invalid character 'x' looking for beginning of value",
        b"{}x": "invalid character 'x' after top-level value",
    },
    "AGT-318": {
        b'{"exp":"abc"}': rf'{NUMBER}invalid number literal, trying to unmarshal "\"abc\"" into Number',
        b'{"exp":true}': f"{NUMBER}cannot unmarshal bool into Go value of type json.Number",
        b'{"nbf":[]}': f"{NUMBER}cannot unmarshal array into Go value of type json.Number",
        b'{"iat":{}}': f"{NUMBER}cannot unmarshal object into Go value of type json.Number",
        b'{"exp":""}': "",
        b'{"nbf":"1 "}': "",
    },
    "AGT-319": {
        b'{"iss":5}': "json: cannot unmarshal number into Go struct field RegisteredClaims.iss of type string",
        b'{"sub":[]}': "json: cannot unmarshal array into Go struct field RegisteredClaims.sub of type string",
        b'{"jti":{}}': "json: cannot unmarshal object into Go struct field RegisteredClaims.jti of type string",
        b'{"aud":5}': "invalid type for claim",
        b'{"aud":{}}': "invalid type for claim",
        b'{"aud":[null]}': "invalid type for claim",
        b'{"aud":["a",5]}': "invalid type for claim",
    },
    "AGT-321": {
        b'{"exp":1e400}': (
            'could not convert json number value to float: strconv.ParseFloat: parsing "1e400": value out of range'
        ),
    },
    "AGT-322": {
        b'{"exp":NaN}': "invalid character 'N' looking for beginning of value",
        b'{"a":Infinity}': "invalid character 'I' looking for beginning of value",
        b'{"exp":01}': "invalid character '1' after object key:value pair",
        b'{"a":"\n"}': r"invalid character '\n' in string literal",
        b'{"a":"\x01"}': "",
        b"\xef\xbb\xbf{}": "",
        "{}".encode("utf-16"): "",
        b'{"a":1,}': "",
        b"{'a':1}": "",
    },
    "AGT-324": {b"[" * 11_000: "invalid character '[' exceeded max depth"},
}


def _claims() -> Iterable[object]:
    for identifier, cases in CLAIMS.items():
        for claims, text in cases.items():
            names = {"AGT-307", identifier} | ({"AGT-308"} if text else set())
            yield pytest.param(identifier, claims, text, marks=requirement(*sorted(names)))


@pytest.mark.parametrize(("identifier", "claims", "text"), list(_claims()))
def test_claims_must_be_an_object_of_the_right_types(agent: Agent, identifier: str, claims: bytes, text: str) -> None:
    """The reason is in the words of Go's JSON decoder, where the contract knows them."""
    reply = agent.get(token_of(HEADER, claims))

    prefix = f"{UNPARSABLE}malformed: could not JSON decode claim: "
    for name in {"AGT-307", identifier}:
        check(name, expected=(400, prefix), observed=(reply.status, reply.text[: len(prefix)]))
    if text:
        check("AGT-308", expected=f"{text}\n", observed=reply.text[len(prefix) :])


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        pytest.param(header, "unspecified", marks=requirement("AGT-309"))
        for header in (b"{}", b'{"alg":null}', b'{"alg":5}', b'{"alg":["RS256"]}', b"null")
    ]
    + [
        pytest.param(
            b'{"alg":"%s"}' % name,
            "unavailable",
            marks=requirement("AGT-310", "AGT-311"),
            id=name.decode() or "empty",
        )
        for name in (b"", b"NONE", b"None", b"rs256", b"ES256K", b"RS1", b"HS255")
    ],
)
def test_the_algorithm_must_be_a_known_one(agent: Agent, header: bytes, reason: str) -> None:
    """It is named exactly, or not at all."""
    reply = agent.get(token_of(header, {}))

    assert (reply.status, reply.text) == (400, f"{UNPARSABLE}unverifiable: signing method (alg) is {reason}\n")


@requirement("AGT-311")
@pytest.mark.parametrize(
    "name",
    ["HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512",
     "EdDSA", "none"],
)  # fmt: skip
def test_known_algorithms_are_accepted(agent: Agent, name: str) -> None:
    """All of those that AWS's agent knows, whatever the signature is."""
    assert agent.get(token_of({"alg": name}, {})).status == 200


@requirement("AGT-312")
@pytest.mark.parametrize("signature", ["", "!!!", "\u00ff x", "AAAAA"], ids=["empty", "garbage", "bytes", "odd"])
def test_the_signature_is_not_looked_at(agent: Agent, signature: str) -> None:
    """It may be empty, garbage or no base64 at all."""
    token = token_of(HEADER, {"jti": signature}, signature)

    assert agent.get(token.encode("latin-1")).status == 200


@requirement("AGT-301")
@pytest.mark.parametrize(
    ("token", "text"),
    [
        ("!.!", "token contains an invalid number of segments"),
        (f"!.{encode_segment(b'x')}.", "could not base64 decode header"),
        (f"{encode_segment(b'x')}.!.", "could not JSON decode header"),
        (f"{encode_segment({'alg': 'x'})}.!.", "could not base64 decode claim"),
        (f"{encode_segment({'alg': 'x'})}.{encode_segment([])}.", "could not JSON decode claim"),
        (token_of({"alg": "x"}, {"exp": 1}, ""), "signing method (alg) is unavailable"),
    ],
    ids=["segments", "header's base64", "header", "claims' base64", "claims", "algorithm"],
)
def test_of_two_faults_the_first_is_told(agent: Agent, token: str, text: str) -> None:
    """Segments, header, claims, algorithm, and only then the times."""
    reply = agent.get(token)

    assert (reply.status, text in reply.text) == (400, True), reply.text


# --- What is JSON all the same --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "claims",
    [
        *(pytest.param(claims, marks=requirement("AGT-317")) for claims in (b"{}", b"null", b'{"exp":null}')),
        *(
            pytest.param(claims, marks=requirement("AGT-318"))
            for claims in (
                b'{"exp":"4102444800"}',
                b'{"nbf":"5"}',
                b'{"iat":null}',
                b'{"exp":4.1024448e9}',
                b'{"nbf":-1}',
            )
        ),
        *(
            pytest.param(claims, marks=requirement("AGT-319"))
            for claims in (
                b'{"aud":null,"iss":null,"sub":null,"jti":null}',
                b'{"aud":"a"}',
                b'{"aud":["a","b"]}',
                b'{"aud":[]}',
            )
        ),
        *(
            pytest.param(claims, marks=requirement("AGT-320"))
            for claims in (
                b'{"iat":99999999999}',
                b'{"aud":"wrong","iss":"nobody","sub":"x"}',
                b'{"kubernetes.io":5}',
                b'{"kubernetes.io":{"pod":[],"serviceaccount":{"name":{}}}}',
            )
        ),
        pytest.param(b'{"exp":1e18}', marks=requirement("AGT-321"), id="1e18"),
        *(
            pytest.param(claims, marks=requirement("AGT-323"), id=name)
            for name, claims in {
                "blanks": b' \t\r\n{"a":1} \n',
                "bad UTF-8": b'{"a":"\xff\xfe"}',
                "lone surrogate": b'{"a":"\\ud800"}',
                "duplicate": b'{"exp":5,"exp":null}',
                "5,000 digits": b'{"a":' + b"9" * 5000 + b"}",
                "9,000 deep": b'{"a":' + b"[" * 9000 + b"]" * 9000 + b"}",
            }.items()
        ),
    ],
)
def test_claims_that_are_let_be(agent: Agent, claims: bytes) -> None:
    """Python finds some of them odd; AWS's agent takes them, and EKS Auth decides."""
    assert agent.get(token_of(HEADER, claims)).status == 200


# --- Times ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claims", "text"),
    [
        *(
            pytest.param({"exp": exp}, "token is expired", marks=requirement("AGT-247", "AGT-313"), id=f"exp {exp!r}")
            for exp in (1785000000, 0, -1, "5", 5.5)
        ),
        pytest.param({"nbf": FUTURE}, "token is not valid yet", marks=requirement("AGT-247", "AGT-314"), id="nbf"),
        pytest.param(
            {"exp": 1, "nbf": FUTURE},
            "token is expired, token is not valid yet",
            marks=requirement("AGT-247", "AGT-315"),
            id="both",
        ),
    ],
)
def test_a_token_out_of_its_time_is_refused(agent: Agent, claims: dict[str, object], text: str) -> None:
    """The text says which of the two claims failed, or that both did."""
    reply = agent.get(token_of(HEADER, claims))

    assert (reply.status, reply.text) == (400, f"{BAD_TIMES}{text}\n")


@requirement("AGT-321")
@pytest.mark.parametrize("number", ["1e19", "1e300"])
def test_a_time_out_of_range_is_refused(agent: Agent, number: str) -> None:
    """It is no time that could be in the future."""
    assert agent.get(token_of(HEADER, b'{"exp":%s}' % number.encode())).status == 400


@requirement("AGT-313", "AGT-314", "AGT-316")
def test_times_are_whole_seconds_without_leeway(agent: Agent) -> None:
    """Within second n, exp n+0.95 is past, nbf n+0.95 has come, and nbf n+1 has not."""
    wait.until(
        lambda: time.time() % 1, lambda part: part < 0.5, what="the first half of a second", timeout=limits.SUBJECT_ACTS
    )
    now = int(time.time())
    cases = {
        "exp n": {"exp": now},
        "exp n+0.95": {"exp": now + 0.95},
        "nbf n+0.95": {"nbf": now + 0.95},
        "nbf n+1": {"nbf": now + 1},
    }

    statuses = {name: agent.get(token_of(HEADER, claims)).status for name, claims in cases.items()}

    check("AGT-313", expected=400, observed=statuses["exp n"])
    check("AGT-314", expected=400, observed=statuses["nbf n+1"])
    check("AGT-316", expected=(400, 200), observed=(statuses["exp n+0.95"], statuses["nbf n+0.95"]))


@requirement("AGT-317", "AGT-320")
def test_a_token_needs_no_times(agent: Agent, eks_auth: FakeEKSAuth) -> None:
    """Without exp and nbf it goes to EKS Auth, which decides."""
    token = token_of(HEADER, {"sub": make_token()})

    status = agent.get(token).status

    for identifier in ("AGT-317", "AGT-320"):
        check(identifier, expected=(200, 1), observed=(status, len(eks_auth.calls_with(token))))


@requirement("AGT-326", "AGT-327")
def test_times_are_checked_at_every_request(agent: Agent, eks_auth: FakeEKSAuth) -> None:
    """A token whose credentials are cached is refused as soon as it expires, and not before."""
    token = make_token(exp=int(time.time()) + 3)

    early = [agent.get(token).status for _ in range(2)]
    calls = len(eks_auth.calls_with(token))
    late = wait.until(
        lambda: agent.get(token), lambda reply: reply.status != 200, what="the token's end", timeout=limits.SUBJECT_ACTS
    )

    check("AGT-327", expected=([200, 200], 1), observed=(early, calls))
    text = f"{BAD_TIMES}token is expired\n"
    check("AGT-326", expected=(400, text), observed=(late.status, late.text))
    check("AGT-326", expected=1, observed=len(eks_auth.calls_with(token)), what="calls")


# --- Whatever comes -------------------------------------------------------------------------------------------------


@requirement("AGT-325")
def test_no_bytes_cause_more_than_a_refusal(agent: Agent) -> None:
    """Random headers, random segments and tokens with one byte changed are answered, and never with a 5xx."""
    dice = random.Random(20261126)
    good = make_token().encode()
    tokens: list[bytes] = []
    for _ in range(80):
        noise = dice.randbytes(dice.randrange(60)).translate(None, b"\r\n")
        place = dice.randrange(len(good))
        tokens += [
            noise,
            f"{encode_segment(noise)}.{encode_segment(dice.randbytes(20))}.".encode(),
            f"{GOOD}.{encode_segment(noise)}.x".encode(),
            good[:place] + bytes([dice.randrange(33, 256)]) + good[place + 1 :],
        ]

    statuses = {agent.get(token).status for token in tokens}

    assert statuses <= {200, 400}
    assert agent.get(make_token()).status == 200


@requirement("AGT-328")
def test_tokens_are_never_told(agent: Agent) -> None:
    """Good or bad, a token is in no log, no metric and no error text."""
    whole = [make_token(), make_token(exp=1), make_token({"alg": f"{CANARY}-ALG"})]
    parts = [f"{CANARY}.{CANARY}", f"{GOOD}.{CANARY}!.{CANARY}", f"{encode_segment(CANARY.encode())}.e30.{CANARY}"]
    replies = [agent.get(token) for token in (*whole, *parts)]
    replies.append(agent.get(whole[0], host="evil"))

    said = {
        "answers": "".join(reply.text for reply in replies if reply.status != 200),
        "log": agent.log_text() + agent.stderr_text(),
        "metrics": agent.metrics_text(),
    }

    secrets = [CANARY, *(segment for token in whole for segment in token.split(".")[1:])]
    assert {place: [secret for secret in secrets if secret in text] for place, text in said.items()} == {
        "answers": [], "log": [], "metrics": [],
    }  # fmt: skip
