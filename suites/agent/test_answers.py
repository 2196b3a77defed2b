"""What a pod gets: credentials, or an error of the agent's own (sections 2.3 and 2.4 of the contract)."""

from __future__ import annotations

import json
import time

import pytest

from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.subject.agent import Agent
from harness.subject.eks_auth import Answer, FakeEKSAuth, changed, grant, refusal
from harness.subject.http1 import Reply
from harness.subject.pod_token import CANARY, make_token, token_of

FORBIDDEN_HEADERS = {"retry-after", "www-authenticate", "cache-control", "expires", "etag", "age", "pragma"}

# --- Success --------------------------------------------------------------------------------------------------------


@requirement("AGT-230", "AGT-231", "AGT-232", "AGT-233", "AGT-234")
def test_success_is_five_keys_of_compact_json(agent: Agent, eks_auth: FakeEKSAuth, token: str) -> None:
    """Type, keys, their order and their values are those of AWS's agent, byte for byte."""
    eks_auth.script(token, grant("a", 1999999999.12))

    reply = agent.get(token)

    check("AGT-230", expected=(200, "application/json"), observed=(reply.status, reply.headers.get("content-type")))
    expected = (
        '{"AccessKeyId":"AKID-a","SecretAccessKey":"CANARY-SECRET-a","Token":"CANARY-SESSION-a",'
        '"AccountId":"123456789012","Expiration":"2033-05-18T03:33:19.12Z"}'
    )
    check("AGT-231", expected=expected, observed=reply.text)
    members = _members(reply)
    keys = {name: members.get(name) for name in ("AccessKeyId", "SecretAccessKey", "Token")}
    granted = {"AccessKeyId": "AKID-a", "SecretAccessKey": "CANARY-SECRET-a", "Token": "CANARY-SESSION-a"}
    check("AGT-232", expected=granted, observed=keys)
    check("AGT-233", expected="123456789012", observed=members.get("AccountId"))
    check("AGT-234", expected="2033-05-18T03:33:19.12Z", observed=members.get("Expiration"))


def _members(reply: Reply) -> dict[str, object]:
    try:
        members: object = json.loads(reply.body)
    except ValueError:
        return {}
    return members if isinstance(members, dict) else {}


@requirement("AGT-233")
@pytest.mark.parametrize(
    ("arn", "account"),
    [
        ("arn:aws:sts:::assumed-role/r/s", None),
        ("arn:aws-cn:sts::210987654321:assumed-role/r/s:t:u", "210987654321"),
    ],
)
def test_the_account_is_the_arn_s_fifth_field(
    agent: Agent, eks_auth: FakeEKSAuth, token: str, arn: str, account: str | None
) -> None:
    """Where that field is empty, there is no AccountId at all."""
    eks_auth.script(token, changed("assumedRoleUser.arn", arn))

    members = _members(agent.get(token))

    assert members.get("AccountId") == account
    assert ("AccountId" in members) == (account is not None)
    assert members.get("AccessKeyId") == "AKID-x"


@requirement("AGT-234")
@pytest.mark.parametrize(
    ("expiration", "text"),
    [
        (1999999999, "19Z"),
        (1999999999.0, "19Z"),
        (1999999999.5, "19.5Z"),
        (1999999999.123456, "19.123Z"),
        (1999999999.9996, "19.999Z"),
        (1999999999.12, "19.12Z"),
        (1999999999.0004, "19Z"),
    ],
)
def test_expiration_is_cut_to_milliseconds(
    agent: Agent, eks_auth: FakeEKSAuth, token: str, expiration: float, text: str
) -> None:
    """It is never rounded, and has no zeros at the end of its fraction."""
    eks_auth.script(token, grant(expiration=expiration))

    assert _members(agent.get(token)).get("Expiration") == f"2033-05-18T03:33:{text}"


@requirement("AGT-232", "AGT-235")
def test_what_html_would_read_is_escaped(agent: Agent, eks_auth: FakeEKSAuth, token: str) -> None:
    """The session token is what EKS Auth gave, written as Go writes it."""
    eks_auth.script(token, changed("credentials.sessionToken", 'a&b<c>d"e\\fü=='))

    reply = agent.get(token)

    check("AGT-232", expected='a&b<c>d"e\\fü==', observed=_members(reply).get("Token"))
    check(
        "AGT-235",
        expected=r"\u0026, \u003c, \u003e",
        observed=reply.text,
        holds=r"a\u0026b\u003cc\u003ed" in reply.text,
    )


@requirement("AGT-236", "AGT-403", "AGT-408")
def test_a_cached_answer_is_the_first_one_again(agent: Agent, eks_auth: FakeEKSAuth, token: str) -> None:
    """One call serves both listeners."""
    first, second = agent.get(token), agent.get(token)
    calls = len(eks_auth.calls_with(token))
    elsewhere = agent.get(token, address="127.0.0.2")

    same = second.status == 200 and second.body == first.body
    check("AGT-236", expected=first.text, observed=second.text, holds=same)
    check("AGT-403", expected=1, observed=calls)
    check("AGT-408", expected=(first.text, 1), observed=(elsewhere.text, len(eks_auth.calls_with(token))))


# --- Errors ---------------------------------------------------------------------------------------------------------


def _errors(agent: Agent, eks_auth: FakeEKSAuth) -> dict[str, Reply]:
    """Cause an error of each kind: of the agent's own, passed on, made up for a bad answer."""
    passed_on, throttled, made_up = make_token(), make_token(), make_token()
    eks_auth.script(passed_on, refusal(404, "ResourceNotFoundException"))
    eks_auth.script(throttled, Answer(429, b"{}", {"Retry-After": "7", "Cache-Control": "no-store"}))
    eks_auth.script(made_up, Answer(200, b"{}"))
    return {
        "no token": agent.get(),
        "no form": agent.get("a.b"),
        "expired": agent.get(make_token(exp=1)),
        "host": agent.get(make_token(), host="evil"),
        "path": agent.get(path="/nope"),
        "passed on": agent.get(passed_on),
        "throttled": agent.get(throttled),
        "made up": agent.get(made_up),
    }


@requirement("AGT-240", "AGT-248")
def test_errors_are_one_line_of_plain_text(agent: Agent, eks_auth: FakeEKSAuth) -> None:
    """Each has the same headers, none of which tells a client when to come back, and is no JSON."""
    errors = _errors(agent, eks_auth)

    observed = {
        name: (
            reply.status >= 400,
            reply.headers.get("content-type"),
            reply.headers.get("x-content-type-options"),
            reply.text.endswith("\n") and reply.text.count("\n") == 1 and not reply.text.startswith("{"),
        )
        for name, reply in errors.items()
    }
    check(
        "AGT-240",
        expected=dict.fromkeys(errors, (True, "text/plain; charset=utf-8", "nosniff", True)),
        observed=observed,
    )
    forbidden = {
        name: (reply.status >= 400, sorted(FORBIDDEN_HEADERS & reply.headers.keys())) for name, reply in errors.items()
    }
    check("AGT-248", expected={name: (True, []) for name in errors}, observed=forbidden)


@requirement("AGT-245")
@pytest.mark.parametrize("token", [None, "", "   "], ids=["missing", "empty", "blank"])
def test_a_missing_token_is_refused(agent: Agent, token: str | None) -> None:
    """Missing, empty and blank are the same."""
    reply = agent.get(token)

    assert (reply.status, reply.text) == (400, "Service account token cannot be empty\n")


@requirement("AGT-246")
def test_a_token_without_form_is_refused(agent: Agent) -> None:
    """The text begins with what could not be done."""
    reply = agent.get("abc")

    assert reply.status == 400
    assert reply.text.startswith("Service account token cannot be parsed: token is malformed: ")


@requirement("AGT-247")
def test_an_expired_token_is_refused_without_a_call(agent: Agent, eks_auth: FakeEKSAuth) -> None:
    """The text begins with what failed."""
    token = make_token(exp=1)

    reply = agent.get(token)

    text = "Service account token failed basic claim validations: token is expired\n"
    assert (reply.status, reply.text) == (400, text)
    assert eks_auth.calls_with(token) == []


@requirement("AGT-249")
def test_a_refusal_that_quotes_secrets_is_cut_and_struck_out(agent: Agent, eks_auth: FakeEKSAuth, token: str) -> None:
    """EKS Auth's own text may hold the token, and be of any length."""
    eks_auth.script(token, refusal(400, "InvalidTokenException", f"bad {token} " + "x" * 5000))

    reply = agent.get(token)

    assert reply.status == 400
    assert len(reply.body) <= 1024
    assert token not in reply.text
    assert CANARY not in reply.text


@requirement("AGT-249")
@pytest.mark.parametrize(
    "claims", [b'{"exp":' + b"9" * 5000 + b"}", b'{"exp":"' + b"x" * 5000 + b'"}'], ids=["digits", "text"]
)
def test_a_refused_claim_is_not_quoted_at_length(agent: Agent, claims: bytes) -> None:
    """An error of the agent's own is at most a kibibyte, whatever the token holds."""
    reply = agent.get(token_of({"alg": "RS256"}, claims))

    assert reply.status == 400
    assert len(reply.body) <= 1024


# --- The rate limit -------------------------------------------------------------------------------------------------


@requirement("AGT-220", "AGT-241", "AGT-242", "AGT-243")
def test_the_rate_limit_is_a_bucket_per_listener(agent: Agent) -> None:
    """Of 6,000 at once, 500 and a thousand per second pass; the others leave no trace, and no other listener pays.

    So many, because a machine that needs long for them lets more of them pass.
    """
    silent = len(agent.log_lines())
    agent.get(host="evil", address="127.0.0.3")
    before = agent.metric("pod_identity_http_response", code="403")
    logged = len(agent.log_lines())
    most_lines_each = max(1, logged - silent)  # AWS's agent writes four at level trace
    one = "GET /v1/credentials HTTP/1.1\r\nHost: evil\r\n"
    batch = f"{one}\r\n" * 299 + f"{one}Connection: close\r\n\r\n"
    started = time.monotonic()

    pending = [agent.send_bytes(batch.encode(), address="127.0.0.3") for _ in range(20)]
    elsewhere = agent.get(make_token(), address="127.0.0.2").status
    replies = [reply for connection in pending for reply in connection.replies()]

    elapsed = time.monotonic() - started
    passed = sum(reply.status == 403 for reply in replies)
    limited = [reply for reply in replies if reply.status == 429]
    check("AGT-220", expected="only 403 and 429", observed=passed + len(limited), holds=passed + len(limited) == 6000)
    check("AGT-241", expected={"Too Many Requests\n"}, observed={reply.text for reply in limited})
    most = (500 + 1000 * elapsed) * 1.05
    check("AGT-242", expected=f"500 to {most:.0f}", observed=passed, holds=500 <= passed <= most, what="passed")
    check("AGT-242", expected=200, observed=elsewhere, what="another listener at the same time")
    counted = agent.metric("pod_identity_http_response", code="403") - before
    check("AGT-243", expected="some", observed=len(limited), holds=bool(limited), what="limited")
    check("AGT-243", expected=passed, observed=counted, what="counted answers")
    lines = [line for line in agent.log_lines()[logged:] if line.get("bind-addr") != "127.0.0.2"]
    telling = [line for line in lines if line.get("status") == 429 or "Too Many Requests" in str(line.get("msg"))]
    check("AGT-243", expected=[], observed=telling, what="lines about limited ones")
    most = passed * most_lines_each + 20  # for the other listener's, which AWS's agent does not name
    check("AGT-243", expected=f"at most {most}", observed=len(lines), holds=len(lines) <= most, what="lines")
