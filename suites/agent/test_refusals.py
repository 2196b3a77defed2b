"""What EKS Auth's refusals, faults and nonsense turn into (section 2.5 of the contract)."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Sequence

import pytest

from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.subject.agent import Agent
from harness.subject.eks_auth import Answer, FakeEKSAuth, changed, grant, held, refusal
from harness.subject.http1 import Reply
from harness.subject.pod_token import CANARY
from harness.subject.ports import free_ports
from suites.agent.conftest import StartAgent

WRAPPED = "error getting credentials to cache: "
INVALID = f"{WRAPPED}invalid response from server: "
MODELLED = [
    (400, "AccessDeniedException", "client"),
    (400, "ExpiredTokenException", "client"),
    (500, "InternalServerException", "server"),
    (400, "InvalidParameterException", "client"),
    (400, "InvalidRequestException", "client"),
    (400, "InvalidTokenException", "client"),
    (404, "ResourceNotFoundException", "client"),
    (503, "ServiceUnavailableException", "server"),
    (429, "ThrottlingException", "client"),
]

# --- Refusals keep their status -------------------------------------------------------------------------------------


@requirement("AGT-260")
@pytest.mark.parametrize(("status", "code", "fault"), MODELLED, ids=[code for _, code, _ in MODELLED])
def test_a_modelled_refusal_is_passed_on(
    agent: Agent, eks_auth: FakeEKSAuth, token: str, *, status: int, code: str, fault: str
) -> None:
    """Status, request ID, code, message and whose fault it is."""
    eks_auth.script(token, refusal(status, code, "Because."))

    reply = agent.get(token)

    assert (reply.status, reply.text) == (status, f"[R]: ({code}): Because., fault: {fault}\n")


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        pytest.param(
            refusal(400, "AccessDeniedException", request_id=""),
            400,
            "[]: (AccessDeniedException): m, fault: client",
            marks=requirement("AGT-261"),
            id="no request ID",
        ),
        pytest.param(
            refusal(400, "AccessDeniedException", request_id="1a-2b"),
            400,
            "[1a-2b]: (AccessDeniedException): m, fault: client",
            marks=requirement("AGT-261"),
            id="another request ID",
        ),
        pytest.param(
            refusal(400, "InvalidRequestException", 'a\nb"\\{'),
            400,
            '[R]: (InvalidRequestException): a\nb"\\{, fault: client',
            marks=requirement("AGT-262"),
            id="line break",
        ),
        pytest.param(
            Answer(400, b'{"code":"AccessDeniedException"}'),
            400,
            "[R]: (AccessDeniedException): , fault: client",
            marks=requirement("AGT-262"),
            id="no message",
        ),
        pytest.param(
            refusal(403, "UnrecognizedClientException"),
            403,
            "[R]: (UnrecognizedClientException): m, fault: unknown",
            marks=requirement("AGT-263"),
            id="403",
        ),
        pytest.param(
            Answer(418, b'{"code":"Teapot"}'),
            418,
            "[R]: (Teapot): UnknownError, fault: unknown",
            marks=requirement("AGT-263"),
            id="418",
        ),
        *(
            pytest.param(
                Answer(status, body),
                status,
                f"[R]: (UnknownError): {message}, fault: unknown",
                marks=requirement("AGT-264"),
                id=f"{status} {body.decode() or 'empty'}",
            )
            for status, body, message in (
                (403, b"", "UnknownError"),
                (429, b"{}", "UnknownError"),
                (500, b"", "UnknownError"),
                (501, b'{"message":"no"}', "no"),
                (504, b"{}", "UnknownError"),
            )
        ),
        *(
            pytest.param(
                Answer(status, b"<html>"),
                status,
                "[R]: (UnknownError): UnknownError, fault: unknown",
                marks=requirement("AGT-266"),
                id=f"{status} HTML",
            )
            for status in (403, 502)
        ),
        *(
            pytest.param(
                answer, 400, "[R]: (AccessDeniedException): m, fault: client", marks=requirement("AGT-707"), id=name
            )
            for name, answer in {
                "header with URL": refusal(400, "AccessDeniedException:http://internal.amazon.com/coral/"),
                "header with namespace": refusal(400, "com.amazonaws.eksauth#AccessDeniedException"),
                "lower case": refusal(400, "accessdeniedexception"),
                "header before body": Answer(
                    400, b'{"code":"Other","message":"m"}', {"X-Amzn-ErrorType": "AccessDeniedException"}
                ),
                "code before type": Answer(400, b'{"code":"AccessDeniedException","__type":"Other","message":"m"}'),
                "type": Answer(400, b'{"__type":"com.amazonaws.eksauth#AccessDeniedException","message":"m"}'),
            }.items()
        ),
        pytest.param(
            Answer(400, b'{"code":"AccessDeniedException","Message":"M"}'),
            400,
            "[R]: (AccessDeniedException): M, fault: client",
            marks=requirement("AGT-708"),
            id="Message",
        ),
        pytest.param(
            Answer(400, b'{"code":"AccessDeniedException","message":"m"}'),
            400,
            "[R]: (AccessDeniedException): m, fault: client",
            marks=requirement("AGT-708"),
            id="message",
        ),
    ],
)
def test_a_refusal_is_told_as_it_came(
    agent: Agent, eks_auth: FakeEKSAuth, token: str, *, answer: Answer, status: int, body: str
) -> None:
    """Its status, and a body of request ID, code, message and fault."""
    eks_auth.script(token, answer)

    reply = agent.get(token)

    assert (reply.status, reply.text) == (status, body + "\n")


@requirement("AGT-265")
@pytest.mark.parametrize("status", [403, 502])
def test_an_error_page_keeps_status_and_request_id(
    agent: Agent, eks_auth: FakeEKSAuth, token: str, status: int
) -> None:
    """Its HTML is not passed on."""
    eks_auth.script(token, Answer(status, b"<html>secret</html>"))

    reply = agent.get(token)

    assert (reply.status, reply.text.startswith("[R]"), "html" in reply.text) == (status, True, False)


@requirement("AGT-267")
@pytest.mark.parametrize(
    "answer",
    [refusal(400, "AccessDeniedException"), refusal(404, "ResourceNotFoundException"), Answer(403), Answer(200)],
)
def test_no_error_is_cached(agent: Agent, eks_auth: FakeEKSAuth, token: str, answer: Answer) -> None:
    """The next request asks again, and gets what EKS Auth then says."""
    eks_auth.script(token, answer, grant())

    statuses = [agent.get(token).status for _ in range(2)]

    assert (statuses[0] >= 400, statuses[1], len(eks_auth.calls_with(token))) == (True, 200, 2)


# --- No answer ------------------------------------------------------------------------------------------------------


def _is_kind(reply: Reply, *kinds: str) -> bool:
    found = re.fullmatch(r"\[\]: \((\w+)\): [^\n]+, fault: unknown\n", reply.text)
    return bool(found) and found[1] in kinds


@requirement("AGT-268", "AGT-269", "AGT-711", "AGT-712")
@pytest.mark.parametrize("answer", [Answer(cut=True), Answer(reset=True)], ids=["closed", "reset"])
def test_a_connection_that_ends_early_is_500_after_three_attempts(
    agent: Agent, eks_auth: FakeEKSAuth, token: str, answer: Answer
) -> None:
    """The pod is told that the connection was lost."""
    eks_auth.script(token, answer)

    reply = agent.get(token)

    check("AGT-268", expected=(500, "[]"), observed=(reply.status, reply.text[:2]))
    check("AGT-269", expected="[]: (ConnectionReset): …", observed=reply.text, holds=_is_kind(reply, "ConnectionReset"))
    calls = len(eks_auth.calls_with(token))
    check("AGT-711", expected=3, observed=calls)
    check("AGT-712", expected=3, observed=calls)


@requirement("AGT-268", "AGT-269", "AGT-711", "AGT-712")
def test_silence_is_500_after_three_attempts(agent: Agent, eks_auth: FakeEKSAuth, token: str) -> None:
    """An attempt that gets no answer is given up and repeated."""
    with held(grant()) as (answer, _):
        eks_auth.script(token, answer)
        reply = agent.get(token)

    check("AGT-268", expected=(500, "[]"), observed=(reply.status, reply.text[:2]))
    check("AGT-269", expected="[]: (RequestTimeout): …", observed=reply.text, holds=_is_kind(reply, "RequestTimeout"))
    calls = len(eks_auth.calls_with(token))
    check("AGT-711", expected=3, observed=calls)
    check("AGT-712", expected=3, observed=calls)


@requirement("AGT-268", "AGT-269")
def test_a_refused_connection_is_500(start_agent: StartAgent, token: str) -> None:
    """Nothing listens at the endpoint, and the pod is told so without its address."""
    port = free_ports(1)[0]
    agent = start_agent(f"http://127.0.0.1:{port}")

    reply = agent.get(token)

    check("AGT-268", expected=(500, "[]"), observed=(reply.status, reply.text[:2]))
    kind = _is_kind(reply, "ConnectionRefused") and str(port) not in reply.text
    check("AGT-269", expected="[]: (ConnectionRefused): …", observed=reply.text, holds=kind)


@requirement("AGT-268", "AGT-269")
def test_a_name_that_does_not_exist_is_500(start_agent: StartAgent, token: str) -> None:
    """A reserved name, which no resolver knows; without a resolver the name is as unknown."""
    agent = start_agent("http://eks-auth.invalid", env={"AWS_MAX_ATTEMPTS": "1"})

    reply = agent.get(token)

    check("AGT-268", expected=(500, "[]"), observed=(reply.status, reply.text[:2]))
    kind = _is_kind(reply, "NameResolution", "ConnectTimeout", "RequestTimeout") and ".invalid" not in reply.text
    check("AGT-269", expected="[]: (NameResolution): …", observed=reply.text, holds=kind)


@requirement("AGT-268")
def test_an_endpoint_that_is_no_http_is_500(start_agent: StartAgent, token: str, patient: Sequence[str]) -> None:
    """Something listens and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        agent = start_agent(f"http://127.0.0.1:{deaf.getsockname()[1]}", *patient, env={"AWS_MAX_ATTEMPTS": "1"})
        reply = agent.get(token)

    assert (reply.status, reply.text[:2]) == (500, "[]")


# --- Answers outside the model --------------------------------------------------------------------------------------


@requirement("AGT-270", "AGT-271")
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_neither_followed_nor_passed_on(
    agent: Agent, eks_auth: FakeEKSAuth, token: str, status: int
) -> None:
    """It is an answer outside the model, and there is no second call."""
    location = f"{eks_auth.url}/clusters/test-cluster/assume-role-for-pod-identity"
    eks_auth.script(token, Answer(status, b"{}", {"Location": location}), grant())

    reply = agent.get(token)

    check("AGT-270", expected=500, observed=reply.status, what="status")
    check("AGT-270", expected=1, observed=len(eks_auth.calls_with(token)), what="calls")
    check("AGT-270", expected=f"{INVALID}…", observed=reply.text, holds=reply.text.startswith(INVALID), what="body")
    check("AGT-271", expected=500, observed=reply.status)


@requirement("AGT-271")
@pytest.mark.parametrize(
    "answer", [Answer(204), Answer(304), Answer(200, b"junk"), Answer(999, b"{}")], ids=["204", "304", "junk", "999"]
)
def test_a_pod_sees_a_status_of_failure(agent: Agent, eks_auth: FakeEKSAuth, token: str, answer: Answer) -> None:
    """Whatever is no success is 400 to 599 for the pod."""
    eks_auth.script(token, answer)

    assert 400 <= agent.get(token).status <= 599


@requirement("AGT-277")
def test_credentials_about_to_expire_are_not_served(agent: Agent, eks_auth: FakeEKSAuth, token: str) -> None:
    """With 14 s left they are refused, nothing is stored, and the next ones, with 17 s, are served."""
    eks_auth.script(token, grant(expiration=time.time() + 14), grant(expiration=time.time() + 17))

    refused, served = agent.get(token), agent.get(token)

    assert refused.status == 500
    text = r"fetched credentials are expired or will expire within the next 1[34]\.\d\d seconds\n"
    assert re.fullmatch(text, refused.text), refused.text
    assert (served.status, len(eks_auth.calls_with(token))) == (200, 2)


@requirement("AGT-277")
def test_expired_credentials_are_not_served(agent: Agent, eks_auth: FakeEKSAuth, token: str) -> None:
    """The seconds that are left may be negative."""
    eks_auth.script(token, grant(expiration=time.time() - 100))

    reply = agent.get(token)

    assert reply.status == 500
    assert re.search(r"within the next -1\d\d\.\d\d seconds\n", reply.text), reply.text


@requirement("AGT-278")
@pytest.mark.parametrize(
    "answer",
    [Answer(), Answer(body=b"null"), Answer(body=b"{}"), changed("credentials"), changed("assumedRoleUser")],
    ids=["empty", "null", "{}", "no credentials", "no assumedRoleUser"],
)
def test_a_success_that_lacks_the_essential_is_500(
    agent: Agent, eks_auth: FakeEKSAuth, token: str, answer: Answer
) -> None:
    """The body says that the response is invalid."""
    eks_auth.script(token, answer)

    reply = agent.get(token)

    assert (reply.status, reply.text.startswith(INVALID)) == (500, True), reply.text


@requirement("AGT-279")
@pytest.mark.parametrize(
    ("arn", "reason"),
    [("nope", "invalid prefix"), ("", "invalid prefix"), ("arn:aws:sts", "not enough sections")],
)
def test_an_arn_that_is_none_is_500(agent: Agent, eks_auth: FakeEKSAuth, token: str, arn: str, reason: str) -> None:
    """The reason is that of AWS's own parser."""
    eks_auth.script(token, changed("assumedRoleUser.arn", arn))

    reply = agent.get(token)

    text = f"{WRAPPED}unable to parse arn from assumed role: arn: {reason}\n"
    assert (reply.status, reply.text) == (500, text)


SECRET = f"{CANARY}-MEMBER"


@requirement("AGT-280", "AGT-281", "AGT-411")
@pytest.mark.parametrize(
    ("answer", "member"),
    [
        (Answer(body=b"junk " + SECRET.encode()), ""),
        (Answer(body=grant().body[:-20]), ""),
        (Answer(body=b'["' + SECRET.encode() + b'"]'), ""),
        (changed("credentials", SECRET), "credentials"),
        (changed("credentials.accessKeyId", [SECRET]), "accessKeyId"),
        (changed("credentials.secretAccessKey", {"a": SECRET}), "secretAccessKey"),
        (changed("credentials.sessionToken", 5), "sessionToken"),
        (changed("credentials.expiration", SECRET), "expiration"),
        (changed("credentials.expiration", "1999999999"), "expiration"),
        (changed("credentials.expiration", True), "expiration"),
        (changed("assumedRoleUser", [SECRET]), "assumedRoleUser"),
        (changed("assumedRoleUser.arn", 5), "arn"),
    ],
    ids=[
        "junk",
        "cut",
        "array",
        "credentials",
        "id",
        "secret",
        "session",
        "expiration",
        "quoted",
        "boolean",
        "user",
        "arn",
    ],
)
def test_a_success_outside_the_model_is_500_and_not_stored(
    agent: Agent, eks_auth: FakeEKSAuth, token: str, answer: Answer, member: str
) -> None:
    """The reason names the member and not its value; the next answer, a good one, is served."""
    eks_auth.script(token, answer, grant("good"))

    refused, served = agent.get(token), agent.get(token)

    check(
        "AGT-280",
        expected=(500, f"{INVALID}…"),
        observed=(refused.status, refused.text),
        holds=refused.status == 500 and refused.text.startswith(INVALID),
    )
    named = member in refused.text and SECRET not in refused.text
    check("AGT-281", expected=f"{member or 'a reason'}, no value", observed=refused.text, holds=named)
    check("AGT-411", expected=True, observed="AKID-good" in served.text)


@requirement("AGT-282")
@pytest.mark.parametrize("text", ["1e300", "1e12", "-1", "1e400", "NaN", "253402300800"])
def test_an_expiration_that_is_no_time_is_invalid(agent: Agent, eks_auth: FakeEKSAuth, token: str, text: str) -> None:
    """It must be a number of seconds before the year 10000."""
    eks_auth.script(token, Answer(body=grant().body.replace(b"1999999999.5", text.encode())))

    reply = agent.get(token)

    assert (reply.status, reply.text.startswith(INVALID)) == (500, True), reply.text


@requirement("AGT-237", "AGT-283")
@pytest.mark.parametrize("value", ["missing", None, ""], ids=["missing", "null", "empty"])
@pytest.mark.parametrize(
    "path",
    [
        "credentials.accessKeyId",
        "credentials.secretAccessKey",
        "credentials.sessionToken",
        "credentials.expiration",
        "assumedRoleUser.arn",
    ],
)
def test_a_success_without_a_value_is_invalid(
    agent: Agent, eks_auth: FakeEKSAuth, token: str, path: str, value: str | None
) -> None:
    """Nothing is handed on unless all of it is there; an empty ARN is one without a prefix (AGT-279)."""
    eks_auth.script(token, changed(path) if value == "missing" else changed(path, value))

    reply = agent.get(token)

    wrong = INVALID if path != "assumedRoleUser.arn" or value != "" else WRAPPED
    check("AGT-237", expected=500, observed=reply.status)
    holds = reply.status == 500 and reply.text.startswith(wrong)
    check("AGT-283", expected=f"500 {wrong}…", observed=f"{reply.status} {reply.text}", holds=holds)


@requirement("AGT-284")
@pytest.mark.parametrize(
    "answer",
    [
        changed("podIdentityAssociation"),
        changed("podIdentityAssociation", None),
        changed("podIdentityAssociation.associationId"),
        changed("assumedRoleUser.assumeRoleId"),
    ],
    ids=["association", "null", "associationId", "assumeRoleId"],
)
def test_what_only_logs_need_may_be_missing(agent: Agent, eks_auth: FakeEKSAuth, token: str, answer: Answer) -> None:
    """Credentials are served all the same."""
    eks_auth.script(token, answer)

    assert agent.get(token).status == 200


@requirement("AGT-285")
@pytest.mark.parametrize(
    "answer",
    [
        changed("subject"),
        changed("audience"),
        changed("subject.namespace"),
        changed("workloadIdentityProviderArn", "arn:x"),
        changed("credentials.more", {"a": [1]}),
    ],
    ids=["subject", "audience", "namespace", "workloadIdentityProviderArn", "unknown"],
)
def test_members_that_nobody_needs_are_ignored(agent: Agent, eks_auth: FakeEKSAuth, token: str, answer: Answer) -> None:
    """Missing ones and unknown ones."""
    eks_auth.script(token, answer)

    assert agent.get(token).status == 200


@requirement("AGT-286")
@pytest.mark.parametrize("status", [201, 202, 206, 299])
def test_every_2xx_is_a_success(agent: Agent, eks_auth: FakeEKSAuth, token: str, status: int) -> None:
    """If its body is complete."""
    eks_auth.script(token, Answer(status, grant().body))

    assert agent.get(token).status == 200
