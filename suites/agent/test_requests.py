"""How requests are read and routed, and in which order they are judged (sections 2.1 and 2.2 of the contract)."""

from __future__ import annotations

import resource
import ssl
from collections.abc import Iterator, Sequence

import pytest

from harness.conformance.marks import requirement
from harness.conformance.outcomes import could_not_run
from harness.conformance.recording import check
from harness.subject.agent import HOST, Agent
from harness.subject.eks_auth import FakeEKSAuth
from harness.subject.http1 import next_reply, read_replies
from harness.subject.pod_token import make_token, token_of
from suites.agent.conftest import StartAgent

NOT_FOUND = (404, "text/plain; charset=utf-8", "nosniff", "404 page not found\n")
UNPARSABLE = "Service account token cannot be parsed: token is "
MANY_FILES = 16_000
LAST = "Connection: close\r\n\r\n"


def _request(token: str, first: str = "GET /v1/credentials HTTP/1.1", *headers: str) -> bytes:
    lines = [first, f"Host: {HOST}", f"Authorization: {token}", *headers, "Connection: close", "", ""]
    return "\r\n".join(lines).encode()


# --- Routing --------------------------------------------------------------------------------------------------------


@requirement("AGT-201")
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "FOO"])
def test_any_method_gets_credentials(agent: Agent, token: str, method: str) -> None:
    """Known or not, a method changes nothing."""
    reply = agent.get(token, method=method)

    assert (reply.status, b"AccessKeyId" in reply.body) == (200, True)


@requirement("AGT-202")
def test_head_is_get_without_the_body(agent: Agent, token: str) -> None:
    """The headers are those of GET, Content-Length too; what followed would be read as another answer."""
    got, head = agent.get(token), agent.get(token, method="HEAD")

    assert (head.status, head.headers["content-type"]) == (200, got.headers["content-type"])
    assert head.headers["content-length"] == str(len(got.body))


@requirement("AGT-203")
@pytest.mark.parametrize("path", ["/v1/credentials?a;b", "/v1/credentials?", "/v1/credentials?x=%zz"])
def test_a_query_does_not_matter(agent: Agent, token: str, path: str) -> None:
    """Not even one that is malformed."""
    assert agent.get(token, path=path).status == 200


@requirement("AGT-203")
@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (["Content-Length: 600000"], b"x" * 600_000),
        (["Transfer-Encoding: chunked"], b"5;x=y\r\nabcde\r\n0\r\nTrailer: x\r\n\r\n"),
        (["Content-Length: 5", "Expect: 100-continue"], b""),
    ],
    ids=["600 KB", "chunked", "expect"],
)
def test_a_body_does_not_matter(agent: Agent, token: str, headers: list[str], body: bytes) -> None:
    """Long, chunked or announced, it is read past."""
    replies = agent.raw(_request(token, "POST /v1/credentials HTTP/1.1", *headers) + body)

    assert [reply.status for reply in replies] == [200]


@requirement("AGT-204", "AGT-205")
@pytest.mark.parametrize(
    "path", ["/", "/v1/credentials/", "/V1/credentials", "/v1", "/v1/credentialsx", "/healthz", "/readyz", "/metrics"]
)
def test_other_paths_are_not_found_whoever_asks(agent: Agent, path: str) -> None:
    """Neither Host nor token is looked at, and the answer is always the same."""
    reply = agent.get(path=path, host="evil")

    headers = reply.headers
    observed = (reply.status, headers.get("content-type"), headers.get("x-content-type-options"), reply.text)
    check("AGT-204", expected=NOT_FOUND, observed=observed)
    check("AGT-205", expected=404, observed=reply.status)


@requirement("AGT-205")
def test_paths_that_are_not_found_are_not_counted(agent: Agent, token: str) -> None:
    """The counter of answers knows the credentials path only."""
    before = agent.metric("pod_identity_http_response", code="404")

    statuses = [agent.get(token, path=path).status for path in ("/", "/healthz", "/v1")]

    assert statuses == [404, 404, 404]
    assert agent.metric("pod_identity_http_response", code="404") == before


@requirement("AGT-206")
def test_an_escaped_path_is_its_plain_one(agent: Agent, token: str) -> None:
    """Percent-encoding is undone before routing."""
    assert agent.get(token, path="/v1/%63redentials").status == 200


@requirement("AGT-207")
@pytest.mark.parametrize("path", ["//v1/credentials", "/v1/./credentials", "/v1/../v1/credentials", "/v1//credentials"])
def test_unclean_paths_yield_no_credentials(agent: Agent, token: str, path: str) -> None:
    """They are redirected to the clean path, or not found."""
    reply = agent.get(token, path=path)

    assert reply.status in {301, 307, 308, 404}
    assert b"AccessKeyId" not in reply.body


# --- Protocol -------------------------------------------------------------------------------------------------------


@requirement("AGT-208")
def test_pipelined_requests_are_answered_in_order(agent: Agent) -> None:
    """The one in the middle needs a call, the others do not."""
    plain = f"GET /%s HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: {make_token()}\r\n"
    data = f"{plain % 'x'}\r\n{plain % 'v1/credentials'}\r\n{plain % 'y'}{LAST}"

    assert [reply.status for reply in agent.raw(data.encode())] == [404, 200, 404]


@requirement("AGT-208")
def test_a_connection_can_be_kept(agent: Agent, token: str) -> None:
    """HTTP/1.1 keeps it by default."""
    with agent.connection() as client:
        replies = read_replies(client)
        for _ in range(3):
            client.sendall(f"GET /v1/credentials HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: {token}\r\n\r\n".encode())
            assert next_reply(replies).status == 200


@requirement("AGT-208")
def test_http_1_0_closes_unless_asked_to_stay(agent: Agent, token: str) -> None:
    """Both kinds of HTTP/1.0 client get credentials."""
    head = f"GET /v1/credentials HTTP/1.0\r\nHost: {HOST}\r\nAuthorization: {token}\r\n"

    replies = agent.raw(f"{head}Connection: keep-alive\r\n\r\n{head}\r\n".encode())

    assert [reply.status for reply in replies] == [200, 200]


@requirement("AGT-209")
def test_there_is_no_http_2(agent: Agent, token: str) -> None:
    """Its preface is a bad request, and an offer to upgrade is not taken up."""
    preface = agent.raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")[:1]
    upgrade = agent.raw(_request(token, "GET /v1/credentials HTTP/1.1", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"))

    assert [reply.status for reply in preface] == [400]
    assert [reply.status for reply in upgrade] == [200]


@requirement("AGT-209")
def test_there_is_no_tls(agent: Agent) -> None:
    """A handshake fails."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with agent.connect() as client:
        # An agent may as well wait for the line's end, which a handshake does not have.
        client.settimeout(0.5)
        with pytest.raises(OSError):  # noqa: PT011 - ssl.SSLError, TimeoutError and ConnectionError are such
            context.wrap_socket(client)


@requirement("AGT-210")
def test_an_absolute_uri_is_judged_by_its_own_host(agent: Agent, token: str) -> None:
    """A good Host header does not help a bad URI, and a bad one does no harm to a good URI."""
    first = "GET http://%s/v1/credentials HTTP/1.1\r\nHost: %s\r\nAuthorization: " + token + "\r\n" + LAST
    bad = agent.send_bytes((first % ("evil", HOST)).encode()).reply()
    good = agent.send_bytes((first % (HOST, "evil")).encode()).reply()

    assert (bad.status, bad.text.endswith("address not evil\n")) == (403, True)
    assert good.status == 200


MALFORMED = {
    "no host": "GET /v1/credentials HTTP/1.1\r\n",
    "two hosts": "GET /v1/credentials HTTP/1.1\r\nHost: a\r\nHost: a\r\n",
    "blank in host": "GET /v1/credentials HTTP/1.1\r\nHost: a b\r\n",
    "slash in host": "GET /v1/credentials HTTP/1.1\r\nHost: a/b\r\n",
    "at in host": "GET /v1/credentials HTTP/1.1\r\nHost: a@b\r\n",
    "negative length": "GET /v1/credentials HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n",
    "length of letters": "GET /v1/credentials HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n",
    "NUL": "GET /v1/credentials HTTP/1.1\r\nHost: a\r\nX: \0\r\n",
    "no version": "GET /v1/credentials\r\n",
    "no request line": "\r\n",
}


@requirement("AGT-211")
@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_requests_are_refused_and_the_connection_closes(agent: Agent, data: str) -> None:
    """There is one answer, 400, and no second one."""
    replies = agent.raw(f"{data}\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".encode())

    assert [reply.status for reply in replies] == [400]


@requirement("AGT-212")
def test_an_unknown_major_version_is_505(agent: Agent) -> None:
    """HTTP/3.0 on a TCP connection is no version that is served."""
    assert agent.send_bytes(b"GET / HTTP/3.0\r\nHost: a\r\n\r\n").reply().status == 505


@requirement("AGT-213")
def test_a_header_block_over_a_mebibyte_is_431(agent: Agent) -> None:
    """The answer comes before all of it was read."""
    data = b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 1_100_000 + b"\r\n\r\n"

    assert [reply.status for reply in agent.raw(data)] == [431]


@requirement("AGT-214", "AGT-330")
def test_a_token_of_64_kib_is_processed(agent: Agent, eks_auth: FakeEKSAuth) -> None:
    """It goes to EKS Auth in its whole length."""
    token = make_token()
    token += "x" * (65_536 - len(token))

    status = agent.get(token).status

    check("AGT-214", expected=200, observed=status)
    check("AGT-330", expected=1, observed=len(eks_auth.calls_with(token)), what="calls with this very token")


@requirement("AGT-217")
def test_half_a_request_delays_nobody(agent: Agent, token: str) -> None:
    """Clients that stop in the middle, or leave there, are not noticed by others."""
    with agent.connection() as slow, agent.connection() as gone:
        slow.sendall(b"GET /v1/cre")
        gone.sendall(b"GET /v1/credentials HTTP/1.1\r\nHo")
        gone.close()

        assert agent.get(token).status == 200


# --- Order, Host and token ------------------------------------------------------------------------------------------


@requirement("AGT-220")
@pytest.mark.parametrize(
    ("path", "host", "token", "status", "text"),
    [
        ("/nope", "evil", "junk", 404, "404 page not found"),
        ("/v1/credentials", "evil", "junk", 403, "Access Denied."),
        ("/v1/credentials", "evil", None, 403, "Access Denied."),
        ("/v1/credentials", HOST, "", 400, "Service account token cannot be empty"),
        ("/v1/credentials", HOST, token_of({"alg": "x"}, {"exp": 1}), 400, f"{UNPARSABLE}unverifiable: signing method"),
        ("/v1/credentials", HOST, make_token(exp=1), 400, "Service account token failed basic claim validations"),
    ],
    ids=["route", "host before token", "host before none", "presence", "form before times", "times"],
)
def test_the_first_fault_in_order_is_the_answer(
    agent: Agent, eks_auth: FakeEKSAuth, *, path: str, host: str, token: str | None, status: int, text: str
) -> None:
    """Route, Host, presence, form, times; and no call of EKS Auth for any of them."""
    calls = len(eks_auth.calls)

    reply = agent.get(token, path=path, host=host)

    assert (reply.status, reply.text.startswith(text)) == (status, True), reply.text
    assert len(eks_auth.calls) == calls


@requirement("AGT-221", "AGT-330")
@pytest.mark.parametrize(
    "headers",
    [
        ["Authorization:%s"],
        ["Authorization: \t%s  "],
        ["AUTHORIZATION: %s"],
        ["authorization: %s", "Authorization: junk"],
    ],
    ids=["bare", "blanks", "upper case", "first of two"],
)
def test_the_token_is_the_trimmed_first_header_in_any_case(
    agent: Agent, eks_auth: FakeEKSAuth, token: str, headers: Sequence[str]
) -> None:
    """EKS Auth gets the token as it was, without what stood around it."""
    lines = [line % token if "%s" in line else line for line in headers]
    data = "\r\n".join(["GET /v1/credentials HTTP/1.1", f"Host: {HOST}", *lines, LAST]).encode()

    status = agent.send_bytes(data).reply().status

    check("AGT-221", expected=200, observed=status)
    check("AGT-330", expected=1, observed=len(eks_auth.calls_with(token)), what="calls with this very token")


@requirement("AGT-221")
def test_an_empty_first_header_is_no_token(agent: Agent, token: str) -> None:
    """A good token in a second header does not count."""
    data = f"GET /v1/credentials HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: \r\nAuthorization: {token}\r\n{LAST}"

    assert agent.send_bytes(data.encode()).reply().status == 400


@requirement("AGT-222", "AGT-246")
def test_bearer_is_refused(agent: Agent, token: str) -> None:
    """The scheme's name is read as the beginning of the token's header."""
    reply = agent.get(f"Bearer {token}")

    text = f"{UNPARSABLE}malformed: could not base64 decode header: illegal base64 data at input byte 6\n"
    check("AGT-222", expected=(400, text), observed=(reply.status, reply.text))
    check("AGT-246", expected=400, observed=reply.status)


@requirement("AGT-223", "AGT-224")
@pytest.mark.parametrize(
    "host",
    [
        "169.254.170.23",
        "169.254.170.23:80",
        "169.254.170.23:99999",
        "169.254.170.23:",
        "[169.254.170.23]",
        "fd00:ec2::23",
        "[fd00:ec2::23]",
        "[fd00:ec2::23]:4213",
    ],
)
def test_own_addresses_are_accepted_in_every_form(agent: Agent, token: str, host: str) -> None:
    """Also by an agent that listens elsewhere, and on another port."""
    status = agent.get(token, host=host).status

    check("AGT-223", expected=200, observed=status)
    check("AGT-224", expected=200, observed=status)


@requirement("AGT-223", "AGT-244")
@pytest.mark.parametrize(
    ("host", "named"),
    [
        ("FD00:EC2::23", "FD00:EC2::23"),
        ("fd00:0ec2::23", "fd00:0ec2::23"),
        ("169.254.170.23.", "169.254.170.23."),
        ("169.254.170.23:80:80", "169.254.170.23:80:80"),
        ("localhost", "localhost"),
        ("localhost:1234", "localhost"),
        ("", ""),
    ],
)
def test_other_hosts_are_refused(agent: Agent, token: str, host: str, named: str) -> None:
    """The refusal names both addresses and what was called, without its port."""
    reply = agent.get(token, host=host)

    text = (
        "Access Denied. Called agent through invalid address, please use either "
        f"[169.254.170.23 fd00:ec2::23] address not {named}\n"
    )
    check("AGT-223", expected=403, observed=reply.status)
    check("AGT-244", expected=(403, text), observed=(reply.status, reply.text))


@requirement("AGT-224")
def test_the_address_it_listens_on_is_no_host_it_accepts(agent: Agent, token: str) -> None:
    """The allow-list does not follow the bind hosts."""
    assert agent.get(token, host=f"127.0.0.1:{agent.port}").status == 403


@requirement("AGT-223")
def test_http_1_0_without_a_host_is_refused(agent: Agent, token: str) -> None:
    """No Host at all is a wrong one."""
    assert (
        agent.send_bytes(f"GET /v1/credentials HTTP/1.0\r\nAuthorization: {token}\r\n\r\n".encode()).reply().status
        == 403
    )


@requirement("AGT-225")
@pytest.mark.parametrize(
    "headers",
    [
        [],
        ["User-Agent: ", "Accept: image/png", "Accept-Encoding: identity;q=0"],
        ["X-Forwarded-For: 10.0.0.1", "X-Forwarded-Host: evil", "Forwarded: host=evil", "Via: 1.1 evil"],
        ["Metadata-Flavor: Google", "Cookie: a=b", "Range: bytes=0-1", "If-None-Match: *", "Origin: http://evil"],
    ],
    ids=["none", "of taste", "of proxies", "of browsers"],
)
def test_no_other_header_matters(agent: Agent, token: str, headers: list[str]) -> None:
    """Host and Authorization are all it takes, whatever else there is."""
    reply = agent.send_bytes(_request(token, "GET /v1/credentials HTTP/1.1", *headers)).reply()

    assert (reply.status, b"AccessKeyId" in reply.body) == (200, True)


@pytest.fixture
def many_files() -> Iterator[None]:
    """Let this process, and agents that it starts, open thousands of files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < MANY_FILES:
        could_not_run("environment", f"at most {hard} open files; raise the hard limit to {MANY_FILES} (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, MANY_FILES), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
@requirement("AGT-216")
def test_thousands_of_connections_do_no_harm(start_agent: StartAgent, eks_auth: FakeEKSAuth) -> None:
    """A thousand are served at once, and with thousands more the probes are as they were."""
    agent = start_agent(eks_auth.url)
    request = f"GET /nope HTTP/1.1\r\nHost: {HOST}\r\n{LAST}".encode()
    connections = [agent.connect() for _ in range(1000)]
    surplus = [agent.connect() for _ in range(5000)]

    probes = [agent.probe(path).status for path in ("/healthz", "/readyz")]
    statuses = [agent.send_on(connection, request).reply().status for connection in connections]
    for connection in surplus:
        connection.close()

    assert probes == [200, 200]
    assert statuses == [404] * 1000
