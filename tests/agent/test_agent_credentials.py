"""Successes and refusals as a pod sees them (AGT sections 2.3 to 2.5, 4.1, 4.2)."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from agent_process import Agent, make_token, running_agent, wait_until
from fake_eks_auth import Answer, FakeEKSAuth, grant, grant_members, refusal

INVALID = "invalid response from server: "
PREFIX = "error getting credentials to cache: "


def test_success_is_five_keys_of_compact_json(agent: Agent, eks_auth: FakeEKSAuth, token: str) -> None:
    """AGT-230 to AGT-234: type, keys, order and the date's form."""
    eks_auth.script(token, grant("a", 1999999999.12))

    reply = agent.get(token)

    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert reply.text == (
        '{"AccessKeyId":"AKID-a","SecretAccessKey":"CANARY-SECRET-a","Token":"CANARY-SESSION-a",'
        '"AccountId":"123456789012","Expiration":"2033-05-18T03:33:19.12Z"}'
    )


def test_cached_answer_is_the_first_one_again(agent: Agent, eks_auth: FakeEKSAuth, token: str) -> None:
    """AGT-236, AGT-403, AGT-408: one call, on whichever listener."""
    first = agent.get(token)
    second = agent.get(token, address="127.0.0.2")

    assert first.status == 200
    assert second.body == first.body
    assert len(eks_auth.calls_with(token)) == 1


def test_tokens_do_not_share_credentials(agent: Agent, eks_auth: FakeEKSAuth) -> None:
    """AGT-402."""
    one, two = make_token(), make_token()
    eks_auth.script(one, grant("one"))
    eks_auth.script(two, grant("two"))

    bodies = [agent.get(token).text for token in (one, two, one)]

    assert ["AKID-one" in body for body in bodies] == [True, False, True]


@pytest.mark.parametrize(
    ("expiration", "text"),
    [(1999999999, "19Z"), (1999999999.5, "19.5Z"), (1999999999.123456, "19.123Z"), (1999999999.9996, "19.999Z")],
)
def test_expiration_is_cut_to_milliseconds(
    agent: Agent, eks_auth: FakeEKSAuth, token: str, expiration: float, text: str
) -> None:
    """AGT-234."""
    eks_auth.script(token, grant(expiration=expiration))

    assert json.loads(agent.get(token).body)["Expiration"] == f"2033-05-18T03:33:{text}"


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (refusal(400, "AccessDeniedException"), 400, "[R]: (AccessDeniedException): m, fault: client"),
        (refusal(404, "ResourceNotFoundException"), 404, "[R]: (ResourceNotFoundException): m, fault: client"),
        (
            refusal(400, "accessdeniedexception:http://internal", "a\nb"),
            400,
            "[R]: (AccessDeniedException): a\nb, fault: client",
        ),
        (
            Answer(400, b'{"__type":"com.amazonaws.eksauth#InvalidTokenException","Message":"M"}'),
            400,
            "[R]: (InvalidTokenException): M, fault: client",
        ),
        (Answer(418, b'{"code":"Teapot"}'), 418, "[R]: (Teapot): UnknownError, fault: unknown"),
        (Answer(400, b'{"code":"ExpiredTokenException"}'), 400, "[R]: (ExpiredTokenException): , fault: client"),
        (Answer(403, b""), 403, "[R]: (UnknownError): UnknownError, fault: unknown"),
        (Answer(501, b'{"message":"no"}'), 501, "[R]: (UnknownError): no, fault: unknown"),
        (Answer(403, b"<html>"), 403, "[R]: (UnknownError): UnknownError, fault: unknown"),
    ],
    ids=lambda value: value.body.decode() or "empty" if isinstance(value, Answer) else None,
)
def test_refusal_keeps_its_status(
    agent: Agent, eks_auth: FakeEKSAuth, token: str, *, answer: Answer, status: int, body: str
) -> None:
    """AGT-260 to AGT-266, AGT-707, AGT-708; none of these is retried or cached (AGT-267, AGT-713)."""
    eks_auth.script(token, answer)

    replies = [agent.get(token), agent.get(token)]

    assert [(reply.status, reply.text) for reply in replies] == [(status, body + "\n")] * 2
    assert replies[0].headers["content-type"] == "text/plain; charset=utf-8"
    assert replies[0].headers["x-content-type-options"] == "nosniff"
    assert len(eks_auth.calls_with(token)) == 2


@pytest.mark.parametrize(
    "failure",
    [
        refusal(503, "ServiceUnavailableException"),
        refusal(400, "ThrottlingException"),
        Answer(429, b"{}"),
        Answer(502, b"<html>"),
        Answer(cut=True),
        grant(hold=threading.Event()),
    ],
    ids=["503", "throttling", "429", "502", "cut", "no answer"],
)
def test_transient_failure_is_retried(agent: Agent, eks_auth: FakeEKSAuth, token: str, failure: Answer) -> None:
    """AGT-710 to AGT-714."""
    eks_auth.script(token, failure, grant())

    assert agent.get(token).status == 200
    assert len(eks_auth.calls_with(token)) == 2


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (refusal(503, "ServiceUnavailableException"), 503, "[R]: (ServiceUnavailableException): m, fault: server"),
        (
            Answer(cut=True),
            500,
            "[]: (ConnectionReset): EKS Auth closed the connection without an answer, fault: unknown",
        ),
    ],
    ids=["503", "cut"],
)
def test_third_failure_is_the_answer(
    agent: Agent, eks_auth: FakeEKSAuth, token: str, *, answer: Answer, status: int, body: str
) -> None:
    """AGT-268, AGT-269, AGT-711."""
    eks_auth.script(token, answer)

    reply = agent.get(token)

    assert (reply.status, reply.text) == (status, body + "\n")
    assert len(eks_auth.calls_with(token)) == 3


def _without(*path: str) -> bytes:
    members: dict[str, Any] = grant_members()
    inner = members
    for name in path[:-1]:
        inner = inner[name]
    del inner[path[-1]]
    return json.dumps(members).encode()


def _with(value: object, *path: str) -> bytes:
    members: dict[str, Any] = grant_members()
    inner = members
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return json.dumps(members).encode()


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (200, b"", f"{INVALID}body is empty"),
        (204, b"", f"{INVALID}body is empty"),
        (200, b"{}", f"{INVALID}credentials is missing or no object"),
        (200, b"junk", f"{INVALID}body is no JSON object"),
        (200, b"[" * 100_000, f"{INVALID}body is no JSON object"),
        (302, b"{}", f"{INVALID}unexpected status 302"),
        (200, _without("credentials", "sessionToken"), f"{INVALID}sessionToken is missing, empty or no text"),
        (200, _without("assumedRoleUser"), f"{INVALID}assumedRoleUser is missing or no object"),
        (200, _with("x", "credentials", "expiration"), f"{INVALID}expiration is missing or no number"),
        (200, _with(True, "credentials", "expiration"), f"{INVALID}expiration is missing or no number"),
        (
            200,
            _with(1e12, "credentials", "expiration"),
            f"{INVALID}expiration is no number of seconds before the year 10000",
        ),
        (200, _with("nope", "assumedRoleUser", "arn"), "unable to parse arn from assumed role: arn: invalid prefix"),
        (
            200,
            _with("arn:aws:sts", "assumedRoleUser", "arn"),
            "unable to parse arn from assumed role: arn: not enough sections",
        ),
    ],
    ids=lambda value: value[-60:] if isinstance(value, str) else "",
)
def test_answer_outside_the_model_is_500_and_not_cached(
    agent: Agent, eks_auth: FakeEKSAuth, token: str, *, status: int, body: bytes, reason: str
) -> None:
    """AGT-270, AGT-271, AGT-278 to AGT-283, AGT-411."""
    eks_auth.script(token, Answer(status, body), grant())

    refused, served = agent.get(token), agent.get(token)

    assert (refused.status, refused.text) == (500, f"{PREFIX}{reason}\n")
    assert served.status == 200


def test_what_only_logs_need_may_be_missing(agent: Agent, eks_auth: FakeEKSAuth, token: str) -> None:
    """AGT-284, AGT-285, AGT-286."""
    members = grant_members()
    for name in ("podIdentityAssociation", "subject", "audience"):
        del members[name]
    eks_auth.script(token, Answer(201, json.dumps(members).encode()))

    assert agent.get(token).status == 200


def test_credentials_about_to_expire_are_not_served(agent: Agent, eks_auth: FakeEKSAuth, token: str) -> None:
    """AGT-277: less than 15 s of life are refused, more are served."""
    eks_auth.script(token, grant(expiration=time.time() + 14), grant(expiration=time.time() + 120))

    refused, served = agent.get(token), agent.get(token)

    assert refused.status == 500
    assert re.fullmatch(
        r"fetched credentials are expired or will expire within the next -?[0-9]+\.[0-9]{2} seconds\n", refused.text
    )
    assert served.status == 200


def _at_once(agent: Agent, token: str, count: int, hold: threading.Event) -> list[Any]:
    """Send requests over both listeners; let EKS Auth answer when all of them wait."""
    coalesced = 'pod_identity_cache_requests_total{result="coalesced"}'
    before = agent.metric(coalesced)
    with ThreadPoolExecutor(count) as pool:
        replies = [pool.submit(agent.get, token, address=f"127.0.0.{1 + number % 2}") for number in range(count)]
        wait_until(lambda: agent.metric(coalesced) - before == count - 1, "all requests wait")
        hold.set()
        return [reply.result() for reply in replies]


def test_simultaneous_first_requests_make_one_call(agent: Agent, eks_auth: FakeEKSAuth, token: str) -> None:
    """AGT-421, AGT-408: over both listeners."""
    hold = threading.Event()
    eks_auth.script(token, grant(hold=hold))

    replies = _at_once(agent, token, 60, hold)

    assert {reply.status for reply in replies} == {200}
    assert len(eks_auth.calls_with(token)) == 1


def test_waiters_share_a_failure_and_the_next_request_calls_again(
    agent: Agent, eks_auth: FakeEKSAuth, token: str
) -> None:
    """AGT-422, AGT-423."""
    hold = threading.Event()
    eks_auth.script(token, refusal(400, "AccessDeniedException", hold=hold), grant())

    replies = _at_once(agent, token, 16, hold)

    assert {reply.text for reply in replies} == {"[R]: (AccessDeniedException): m, fault: client\n"}
    assert len(eks_auth.calls_with(token)) == 1
    assert agent.get(token).status == 200


def test_request_that_waits_too_long_is_told_so_and_the_call_goes_on(eks_auth: FakeEKSAuth, token: str) -> None:
    """AGT-720: the answer comes when the client was sent away, and fills the cache."""
    hold = threading.Event()
    eks_auth.script(token, grant("late", hold=hold))
    with running_agent(eks_auth.url, "--request-timeout", "200ms") as agent:
        refused = agent.get(token)
        hold.set()
        wait_until(lambda: agent.metric("pod_identity_cache_entries") == 1, "the answer is cached")
        calls = len(eks_auth.calls_with(token))
        served = agent.get(token)

    assert (refused.status, refused.text) == (
        500, "[]: (RequestTimeout): EKS Auth did not answer within 0.2 s, fault: unknown\n",
    )  # fmt: skip
    assert "AKID-late" in served.text
    assert len(eks_auth.calls_with(token)) == calls


def test_call_belongs_to_the_token_not_to_the_client(agent: Agent, eks_auth: FakeEKSAuth, token: str) -> None:
    """AGT-425: a second client gets the result of the call whose first client has gone."""
    hold = threading.Event()
    eks_auth.script(token, grant(hold=hold))
    with socket.create_connection(("127.0.0.1", agent.port)) as leader:
        leader.sendall(
            f"GET /v1/credentials HTTP/1.1\r\nHost: 169.254.170.23\r\nAuthorization: {token}\r\n\r\n".encode()
        )
        eks_auth.wait_for_call(token)
    hold.set()

    assert agent.get(token).status == 200
    assert len(eks_auth.calls_with(token)) == 1
