"""HTTP of the credentials endpoint (AGT sections 2.1, 2.2 and 2.4)."""

from __future__ import annotations

import socket
import time

import pytest
from agent_process import HOST, Agent, make_token, read_replies
from fake_eks_auth import FakeEKSAuth, refusal

NOT_FOUND = (404, "text/plain; charset=utf-8", "nosniff", "404 page not found\n")
OWN = "[169.254.170.23 fd00:ec2::23]"
UNPARSABLE = "Service account token cannot be parsed: token is malformed: "
LAST = "Connection: close\r\n\r\n"


def _request(token: str, first: str = "GET /v1/credentials HTTP/1.1", *headers: str) -> bytes:
    lines = [first, f"Host: {HOST}", f"Authorization: {token}", *headers, "Connection: close", "", ""]
    return "\r\n".join(lines).encode()


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "FOO"])
def test_any_method_gets_credentials(agent: Agent, token: str, method: str) -> None:
    """AGT-201."""
    assert agent.get(token, method=method).status == 200


def test_head_is_get_without_the_body(agent: Agent, token: str) -> None:
    """AGT-202."""
    got, head = agent.get(token), agent.get(token, method="HEAD")

    assert head.status == 200
    assert head.headers["content-length"] == str(len(got.body))
    assert head.body == b""


@pytest.mark.parametrize(
    "path", ["/", "/v1/credentials/", "/V1/credentials", "/healthz", "/metrics", "//v1/credentials"]
)
def test_other_paths_are_not_found_whoever_asks(agent: Agent, path: str) -> None:
    """AGT-204, AGT-205, AGT-207."""
    reply = agent.get(path=path, host="evil")

    headers = reply.headers
    assert (reply.status, headers["content-type"], headers["x-content-type-options"], reply.text) == NOT_FOUND


@pytest.mark.parametrize("path", ["/v1/credentials?a;b", "/v1/%63redentials"])
def test_query_and_escapes_do_not_matter(agent: Agent, token: str, path: str) -> None:
    """AGT-203, AGT-206."""
    assert agent.get(token, path=path).status == 200


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (["Content-Length: 600000"], b"x" * 600_000),
        (["Transfer-Encoding: chunked"], b"5;x=y\r\nabcde\r\n0\r\nTrailer: x\r\n\r\n"),
        (["Content-Length: 5", "Expect: 100-continue"], b""),
    ],
    ids=["600 KB", "chunked", "expect"],
)
def test_bodies_are_ignored(agent: Agent, token: str, headers: list[str], body: bytes) -> None:
    """AGT-203."""
    reply = agent.raw(_request(token, "POST /v1/credentials HTTP/1.1", *headers) + body)[0]

    assert reply.status == 200


def test_pipelined_requests_are_answered_in_order(agent: Agent) -> None:
    """AGT-208: the one in the middle needs a call, the others do not."""
    token = make_token()
    plain = f"GET /%s HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: {token}\r\n"
    data = f"{plain % 'x'}\r\n{plain % 'v1/credentials'}\r\n{plain % 'y'}{LAST}"

    assert [reply.status for reply in agent.raw(data.encode())] == [404, 200, 404]


def test_http10_closes_unless_asked_to_stay(agent: Agent) -> None:
    """AGT-208."""
    stay = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"

    replies = agent.raw(stay + b"GET / HTTP/1.0\r\n\r\n")

    assert [reply.headers["connection"] for reply in replies] == ["keep-alive", "close"]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        ("GET http://evil/v1/credentials HTTP/1.1\r\nHost: 169.254.170.23\r\n", 403),
        ("GET http://169.254.170.23/v1/credentials HTTP/1.1\r\nHost: evil\r\n", 400),
        ("GET /v1/credentials HTTP/1.1\r\n", 400),
        ("GET /v1/credentials HTTP/1.1\r\nHost: a\r\nHost: a\r\n", 400),
        ("GET /v1/credentials HTTP/1.1\r\nHost: a b\r\n", 400),
        ("GET /v1/credentials HTTP/1.1\r\nHost: a/b\r\n", 400),
        ("GET /v1/credentials HTTP/1.1\r\nHost: a@b\r\n", 400),
        ("GET /v1/credentials HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n", 400),
        ("GET /v1/credentials HTTP/1.1\r\nHost: a\r\nX: \0\r\n", 400),
        ("GET /v1/credentials HTTP/1.1\r\nHost : a\r\n", 400),
        ("GET /v1/credentials\r\n", 400),
        ("GET /v1/%zz HTTP/1.1\r\nHost: a\r\n", 400),
        ("\r\n", 400),
        ("PRI * HTTP/2.0\r\n", 400),
        ("GET / HTTP/2.0\r\nHost: a\r\n", 505),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: " + "x" * 1_100_000 + "\r\n", 431),
    ],
    ids=lambda value: value[:70] if isinstance(value, str) else None,
)
def test_malformed_requests_are_refused_and_the_connection_closes(agent: Agent, data: str, status: int) -> None:
    """AGT-209 to AGT-213. The two absolute URIs are judged by their own host; the second lacks a token."""
    replies = agent.raw((data + ("Connection: close\r\n" if status == 403 else "") + LAST).encode())

    assert [reply.status for reply in replies] == [status]


@pytest.mark.parametrize(
    "host",
    ["169.254.170.23", "169.254.170.23:80", "169.254.170.23:99999", "169.254.170.23:", "[169.254.170.23]",
     "fd00:ec2::23", "[fd00:ec2::23]", "[fd00:ec2::23]:4213"],
)  # fmt: skip
def test_own_addresses_are_accepted(agent: Agent, token: str, host: str) -> None:
    """AGT-223, AGT-224."""
    assert agent.get(token, host=host).status == 200


@pytest.mark.parametrize(
    ("host", "named"),
    [("FD00:EC2::23", "FD00:EC2::23"), ("fd00:0ec2::23", "fd00:0ec2::23"), ("169.254.170.23.", "169.254.170.23."),
     ("169.254.170.23:80:80", "169.254.170.23:80:80"), ("localhost:1234", "localhost"), ("", "")],
)  # fmt: skip
def test_other_hosts_are_refused_before_the_token_is_looked_at(agent: Agent, host: str, named: str) -> None:
    """AGT-220, AGT-244."""
    reply = agent.get("junk", host=host)

    assert (reply.status, reply.text) == (
        403,
        f"Access Denied. Called agent through invalid address, please use either {OWN} address not {named}\n",
    )


def test_http10_without_host_is_refused(agent: Agent) -> None:
    """AGT-223."""
    assert agent.raw(b"GET /v1/credentials HTTP/1.0\r\n\r\n")[0].status == 403


@pytest.mark.parametrize("token", [None, "", "   "])
def test_missing_token_is_refused(agent: Agent, token: str | None) -> None:
    """AGT-245, AGT-240, AGT-248."""
    reply = agent.get(token)

    assert (reply.status, reply.text) == (400, "Service account token cannot be empty\n")
    assert reply.headers.keys() == {"date", "content-type", "x-content-type-options", "content-length", "connection"}


def test_bearer_is_refused(agent: Agent, token: str) -> None:
    """AGT-222."""
    reply = agent.get(f"Bearer {token}")

    assert (reply.status, reply.text) == (
        400,
        f"{UNPARSABLE}could not base64 decode header: illegal base64 data at input byte 6\n",
    )


def test_expired_token_is_refused_without_a_call(agent: Agent, eks_auth: FakeEKSAuth) -> None:
    """AGT-247."""
    token = make_token(exp=1)

    reply = agent.get(token)

    assert (reply.status, reply.text) == (
        400, "Service account token failed basic claim validations: token is expired\n",
    )  # fmt: skip
    assert eks_auth.calls_with(token) == []


def test_token_goes_upstream_as_received_without_blanks(agent: Agent, eks_auth: FakeEKSAuth) -> None:
    """AGT-214, AGT-221, AGT-330: a long one, between blanks."""
    token = make_token() + "x" * 60_000

    assert agent.get(f" \t{token}  ").status == 200
    assert len(eks_auth.calls_with(token)) == 1


def test_refusal_that_quotes_the_token_is_struck_out(agent: Agent, eks_auth: FakeEKSAuth, token: str) -> None:
    """AGT-328, AGT-249."""
    eks_auth.script(token, refusal(400, "InvalidTokenException", f"bad {token} " + "x" * 5000))

    reply = agent.get(token)

    assert reply.text.startswith("[R]: (InvalidTokenException): bad *** xxx")
    assert len(reply.body) == 1024


def test_slow_peer_delays_nobody(agent: Agent, token: str) -> None:
    """AGT-215."""
    with socket.create_connection(("127.0.0.1", agent.port)) as slow:
        slow.sendall(b"GET /v1/cre")

        assert agent.get(token).status == 200


def test_half_closed_client_gets_its_answer(agent: Agent, token: str) -> None:
    """AGT-156: a client may say that it has nothing more to ask."""
    with socket.create_connection(("127.0.0.1", agent.port), timeout=10) as client:
        client.sendall(_request(token).replace(b"Connection: close\r\n", b""))
        client.shutdown(socket.SHUT_WR)

        assert [reply.status for reply in read_replies(client)] == [200]


def test_rate_limit_is_a_bucket_per_listener(agent: Agent) -> None:
    """AGT-241 to AGT-243: on the second listener, with requests that are refused at once."""
    counter = 'pod_identity_http_response{code="403"}'
    before = agent.metric(counter)
    one = "GET /v1/credentials HTTP/1.1\r\nHost: evil\r\n"
    started = time.monotonic()

    replies = agent.raw(f"{one}\r\n".encode() * 1999 + f"{one}{LAST}".encode(), address="127.0.0.2")

    elapsed = time.monotonic() - started
    passed = [reply for reply in replies if reply.status == 403]
    limited = [reply for reply in replies if reply.status == 429]
    assert 500 <= len(passed) <= (500 + 1000 * elapsed) * 1.05
    assert len(passed) + len(limited) == 2000
    assert {reply.text for reply in limited} == {"Too Many Requests\n"}
    assert agent.metric(counter) - before == len(passed)
    assert agent.metric('pod_identity_rate_limited_total{listener="127.0.0.2"}') == len(limited)
