"""The cache keyed by pod, and tokens that kubelet has rotated (section 9.1 of the contract)."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import jwt
import pytest

from harness import limits, wait
from harness.conformance.marks import requirement
from harness.conformance.outcomes import not_applicable
from harness.conformance.recording import check
from harness.errors import SubjectFault
from harness.subject.agent import Agent, AgentCommand
from harness.subject.eks_auth import FakeEKSAuth, grant, held, refusal
from harness.subject.issuer import FakeIssuer, Key, pod_claims
from harness.subject.pod_token import encode_segment
from suites.agent.conftest import StartAgent

RETENTION = "--max-credential-retention-before-renewal"
BY_POD = ("--cache-key", "pod-uid")
RESULTS = ("success", "failure", "skipped")
MISSING = "failed to get pod uid from service account token: Service account token missing "

RSA = Key("rsa")
KUBEADM = Key("3q1Jx0bC9dKf-Vw7mZ_TtYuRhN5sLgXa2oPiE8Bv4Qk")
BARE = Key("bare", published_algorithm=None)
BARE_EC = Key("bare-ec", "ES256", None)
PS = Key("ps", "PS256")
EC = [Key(f"ec-{name}", name) for name in ("ES256", "ES384", "ES512")]
FOREIGN = Key("rsa")
"""Another key under the ID of the first."""
LATER = Key("later")
"""A key that the API server gets after the start."""


@pytest.fixture(autouse=True)
def _selected(agent_command: AgentCommand) -> None:
    """Leave out agents of AWS: which of its versions has this cache cannot be told from outside."""
    if not agent_command.is_ours:
        not_applicable("feature-excluded", "no flag or output tells whether an agent of AWS keys its cache by pod")


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeIssuer]:
    fake = FakeIssuer(tmp_path_factory.mktemp("account"), RSA, KUBEADM, BARE, BARE_EC, PS, *EC)
    yield fake
    fake.close()


@pytest.fixture(scope="module")
def cached(
    agent_command: AgentCommand, eks_auth: FakeEKSAuth, issuer: FakeIssuer, patient: Sequence[str]
) -> Iterator[Agent]:
    """An agent that keys its cache by pod and knows the cluster's keys."""
    flags = (*patient, *BY_POD, "--jwks-cache", "")
    with agent_command.serving(eks_auth.url, *flags, env=issuer.environment, within=issuer.within()) as agent:
        _wait_until_it_has_the_keys(agent)
        yield agent


def _wait_until_it_has_the_keys(agent: Agent) -> None:
    """Return when a rotated token is verified at once, or never will be, which the tests find out."""
    token = RSA.sign(pod_claims())

    def verified() -> float:
        agent.get(_rotated(token))
        return agent.metric("pod_identity_local_validation", result="success")

    with suppress(SubjectFault, wait.Timeout):
        agent.get(token)
        wait.until(verified, what="a token that is verified", timeout=limits.SUBJECT_ACTS)


def _validations(agent: Agent) -> dict[str, float]:
    return {result: agent.metric("pod_identity_local_validation", result=result) for result in RESULTS}


def _since(agent: Agent, before: Mapping[str, float]) -> dict[str, float]:
    """Return which results local validation had since then."""
    return {result: value - before[result] for result, value in _validations(agent).items() if value != before[result]}


def _uid(token: str) -> str:
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims["kubernetes.io"]["pod"]["uid"]


def _rotated(token: str, key: Key = RSA, **changes: Any) -> str:
    """Return another token of the same pod."""
    return key.sign(pod_claims(_uid(token), **changes))


@pytest.fixture
def first(cached: Agent, eks_auth: FakeEKSAuth) -> str:
    """The token of a pod whose credentials are cached, as the test will find out."""
    token = RSA.sign(pod_claims())
    eks_auth.script(token, grant("first"))
    with suppress(SubjectFault):
        cached.get(token)
    return token


# --- The key --------------------------------------------------------------------------------------------------------


@requirement("AGT-901", "AGT-904")
def test_pods_are_told_apart_by_their_uid(cached: Agent, eks_auth: FakeEKSAuth) -> None:
    """Two pods have credentials of their own, and the token that fetched an entry is served from it."""
    one, two = RSA.sign(pod_claims()), RSA.sign(pod_claims())
    before = _validations(cached)

    bodies = [cached.get(token).body for token in (one, two, one, two)]

    check("AGT-901", expected=(True, True), observed=(bodies[0] != bodies[1], bodies[:2] == bodies[2:]))
    calls = [len(eks_auth.calls_with(token)) for token in (one, two)]
    check("AGT-904", expected=([1, 1], {}), observed=(calls, _since(cached, before)))


@pytest.mark.parametrize(
    ("kubernetes", "what"),
    [
        pytest.param(None, "kubernetes.io claims", marks=requirement("AGT-902")),
        pytest.param({"namespace": "n"}, "pod claims", marks=requirement("AGT-902")),
        pytest.param({"pod": {"name": "p"}}, "pod uid", marks=requirement("AGT-902")),
        pytest.param({"pod": {"uid": ""}}, "pod uid", marks=requirement("AGT-903")),
        pytest.param({"pod": {"uid": " \t"}}, "pod uid", marks=requirement("AGT-903")),
    ],
    ids=["kubernetes.io", "pod", "uid", "empty", "blank"],
)
def test_a_token_without_a_pod_is_refused(
    cached: Agent, eks_auth: FakeEKSAuth, kubernetes: dict[str, Any] | None, what: str
) -> None:
    """The text says what is missing, and EKS Auth is not called."""
    token = RSA.sign(pod_claims(**{"kubernetes.io": kubernetes}))

    reply = cached.get(token)

    assert (reply.status, reply.text) == (400, f"{MISSING}{what}\n")
    assert eks_auth.calls_with(token) == []


@requirement("AGT-902")
def test_times_come_before_the_pod(cached: Agent) -> None:
    """An expired token without a pod is an expired one."""
    reply = cached.get(RSA.sign(pod_claims(exp=1, **{"kubernetes.io": None})))

    assert reply.text == "Service account token failed basic claim validations: token is expired\n"


# --- A rotated token ------------------------------------------------------------------------------------------------


@requirement("AGT-905", "AGT-908")
def test_a_rotated_token_is_verified_once_and_served(cached: Agent, eks_auth: FakeEKSAuth, first: str) -> None:
    """The entry is bound to it, and serves it without a call and without another look."""
    second = _rotated(first)
    before = _validations(cached)

    texts = [cached.get(token).text for token in (first, second, second)]

    served = ["AKID-first" in text for text in texts]
    check("AGT-905", expected=[True, True, True], observed=served)
    check("AGT-905", expected=[], observed=eks_auth.calls_with(second), what="calls")
    check("AGT-908", expected={"success": 1.0}, observed=_since(cached, before))


@requirement("AGT-908")
def test_nothing_else_is_verified(cached: Agent, eks_auth: FakeEKSAuth) -> None:
    """Not an unknown pod's token, not a bound one, and not one whose entry is over."""
    token = RSA.sign(pod_claims())
    end = time.time() + 19
    eks_auth.script(token, grant(expiration=end))
    before = _validations(cached)

    statuses = [cached.get(token).status for _ in range(2)]
    wait.until(time.time, lambda now: now > end - 14.9, what="the entry's end", timeout=limits.SUBJECT_ACTS)
    second = _rotated(token)
    statuses.append(cached.get(second).status)

    assert (statuses, len(eks_auth.calls_with(second))) == ([200] * 3, 1)
    assert _since(cached, before) == {}


@requirement("AGT-912")
def test_a_kid_of_any_form_is_good(cached: Agent, eks_auth: FakeEKSAuth, first: str) -> None:
    """As kubeadm makes them, with 43 characters."""
    second = _rotated(first, KUBEADM)

    assert "AKID-first" in cached.get(second).text
    assert eks_auth.calls_with(second) == []


@requirement("AGT-913")
@pytest.mark.parametrize("key", [BARE, BARE_EC], ids=["RSA", "EC"])
def test_a_key_without_alg_has_that_of_its_type(cached: Agent, eks_auth: FakeEKSAuth, first: str, key: Key) -> None:
    """RS256 for RSA, and for EC that of its curve."""
    second = _rotated(first, key)

    assert "AKID-first" in cached.get(second).text
    assert eks_auth.calls_with(second) == []


@requirement("AGT-914")
@pytest.mark.parametrize("key", [RSA, PS, *EC], ids=lambda key: key.algorithm)
def test_keys_of_all_kinds_verify(cached: Agent, eks_auth: FakeEKSAuth, first: str, key: Key) -> None:
    """RSA, and EC on three curves."""
    second = _rotated(first, key)

    assert "AKID-first" in cached.get(second).text
    assert eks_auth.calls_with(second) == []


def _in_kubernetes(**changes: Any) -> Callable[[str], str]:
    def make(first: str) -> str:
        claims = pod_claims(_uid(first))
        for path, value in changes.items():
            *outer, last = path.split("_")
            inner = claims["kubernetes.io"]
            for name in outer:
                inner = inner[name]
            inner[last] = value
        return RSA.sign(claims)

    return make


def _tampered(first: str) -> str:
    header, _, signature = _rotated(first).split(".")
    return f"{header}.{encode_segment(pod_claims(_uid(first)))}.{signature}"


def _unsigned(first: str) -> str:
    claims = encode_segment(pod_claims(_uid(first)))
    return f"{encode_segment({'alg': 'none', 'kid': 'rsa'})}.{claims}."


def _signed_with_the_public_key(first: str) -> str:
    signing_input = f"{encode_segment({'alg': 'HS256', 'kid': 'rsa'})}.{encode_segment(pod_claims(_uid(first)))}"
    digest = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    signature = digest.sign(signing_input.encode(), RSA.public_pem.encode())
    return f"{signing_input}.{encode_segment(signature)}"


FAULTS: dict[str, tuple[str, Callable[[str], str]]] = {
    "no kid": ("AGT-909", lambda first: RSA.sign(pod_claims(_uid(first)), kid=None)),
    "unknown kid": ("AGT-909", lambda first: RSA.sign(pod_claims(_uid(first)), kid="unknown")),
    "no namespace": ("AGT-909", _in_kubernetes(namespace=" ")),
    "no account": ("AGT-909", _in_kubernetes(serviceaccount_name="")),
    "no account's uid": ("AGT-909", _in_kubernetes(serviceaccount_uid=None)),
    "no pod": ("AGT-909", _in_kubernetes(pod_name="\t")),
    "tampered": ("AGT-909", _tampered),
    "another key": ("AGT-909", lambda first: _rotated(first, FOREIGN)),
    "another key's kid": ("AGT-909", lambda first: RSA.sign(pod_claims(_uid(first)), kid=KUBEADM.key_id)),
    "unsigned": ("AGT-909", _unsigned),
    "HS256": ("AGT-909", _signed_with_the_public_key),
    "another audience": ("AGT-910", lambda first: _rotated(first, aud=["sts.amazonaws.com"])),
    "no audience": ("AGT-910", lambda first: _rotated(first, aud=None)),
    "another namespace": ("AGT-911", _in_kubernetes(namespace="ns-2")),
    "another account": ("AGT-911", _in_kubernetes(serviceaccount_name="sa-2")),
    "another pod": ("AGT-911", _in_kubernetes(pod_name="pod-2")),
}


@pytest.mark.parametrize(
    ("identifier", "make"),
    [
        pytest.param(*fault, marks=requirement(fault[0], "AGT-906", "AGT-907"), id=name)
        for name, fault in FAULTS.items()
    ],
)
def test_a_token_with_a_fault_is_for_eks_auth_to_judge(
    cached: Agent, eks_auth: FakeEKSAuth, first: str, identifier: str, make: Callable[[str], str]
) -> None:
    """It gets EKS Auth's answer, never the cached credentials, and leaves the entry alone."""
    forged = make(first)
    eks_auth.script(forged, refusal(400, "InvalidTokenException"))
    before = _validations(cached)

    refused, served = cached.get(forged), cached.get(first)

    results = _since(cached, before)
    answer = (400, "[R]: (InvalidTokenException): m, fault: client\n", 1)
    observed = (refused.status, refused.text, len(eks_auth.calls_with(forged)))
    check(identifier, expected={"failure": 1.0}, observed=results)
    check("AGT-906", expected=answer, observed=observed)
    undisturbed = (served.status, "AKID-first" in served.text, len(eks_auth.calls_with(first)))
    check("AGT-907", expected=answer, observed=observed, what="the forger")
    check("AGT-907", expected=(200, True, 1), observed=undisturbed, what="the victim")


@requirement("AGT-906")
def test_an_outage_is_told_to_whoever_cannot_be_verified(cached: Agent, eks_auth: FakeEKSAuth, first: str) -> None:
    """503 although usable credentials of that pod are cached."""
    forged = _rotated(first, FOREIGN)
    eks_auth.script(forged, refusal(503, "ServiceUnavailableException"))

    assert cached.get(forged).status == 503


@requirement("AGT-919")
def test_only_equal_tokens_share_a_call(cached: Agent, eks_auth: FakeEKSAuth) -> None:
    """Genuine and forged first requests at once: each gets the answer to its own token."""
    genuine = RSA.sign(pod_claims())
    forged = _rotated(genuine, FOREIGN)
    eks_auth.script(genuine, grant("genuine", delay=0.3))
    eks_auth.script(forged, refusal(400, "InvalidTokenException", delay=0.4))

    pending = [cached.send(token) for token in (forged, genuine, forged, genuine)]
    statuses = [request.reply().status for request in pending]

    assert statuses == [400, 200, 400, 200]
    assert [len(eks_auth.calls_with(token)) for token in (forged, genuine)] == [1, 1]


@requirement("AGT-922")
def test_an_entry_whose_token_has_expired_is_nobody_s(cached: Agent, eks_auth: FakeEKSAuth) -> None:
    """A newer token that comes after that goes to EKS Auth."""
    token = RSA.sign(pod_claims(exp=int(time.time()) + 4))
    assert cached.get(token).status == 200
    wait.until(
        lambda: cached.get(token).status,
        lambda status: status == 400,
        what="the token's end",
        timeout=limits.SUBJECT_ACTS,
    )
    newer = _rotated(token)

    assert cached.get(newer).status == 200
    assert len(eks_auth.calls_with(newer)) == 1


# --- Renewal --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def renewing(
    agent_command: AgentCommand, eks_auth: FakeEKSAuth, issuer: FakeIssuer, patient: Sequence[str]
) -> Iterator[Agent]:
    """Likewise, with a retention of a second."""
    flags = (*patient, *BY_POD, "--jwks-cache", "", RETENTION, "1s", "--max-cache-size", "6")
    with agent_command.serving(eks_auth.url, *flags, env=issuer.environment, within=issuer.within()) as agent:
        _wait_until_it_has_the_keys(agent)
        yield agent


@requirement("AGT-918")
def test_a_renewal_uses_the_token_bound_last(renewing: Agent, eks_auth: FakeEKSAuth) -> None:
    """The first token is not sent again once the second was seen."""
    one = RSA.sign(pod_claims())
    two = _rotated(one)

    statuses = [renewing.get(token).status for token in (one, two)]
    eks_auth.wait_for_calls(two, 1)

    assert statuses == [200, 200]
    assert len(eks_auth.calls_with(one)) == 1


@requirement("AGT-920")
def test_a_refusal_of_a_replaced_token_drops_nothing(renewing: Agent, eks_auth: FakeEKSAuth) -> None:
    """The token rotates while the renewal with the old one is under way."""
    one = RSA.sign(pod_claims())
    two = _rotated(one)
    with held(refusal(400, "ExpiredTokenException")) as (answer, release):
        eks_auth.script(one, grant("kept"), answer)
        eks_auth.script(two, refusal(503, "ServiceUnavailableException"))
        assert renewing.get(one).status == 200
        eks_auth.wait_for_calls(one, 2)
        assert "AKID-kept" in renewing.get(two).text
        release.set()
        failed = wait.until(
            lambda: renewing.metric("pod_identity_cache_errors", type="Recoverable", code="ExpiredTokenException"),
            what="the renewal's end",
            timeout=limits.RENEWAL,
        )

    assert failed == 1
    assert "AKID-kept" in renewing.get(two).text


# --- Where the keys come from ---------------------------------------------------------------------------------------


def _answer_to_a_rotated_token(agent: Agent, eks_auth: FakeEKSAuth, key: Key = RSA) -> tuple[int, dict[str, float]]:
    """Cache a pod's credentials, come with a rotated token that EKS Auth refuses; return status and results."""
    token = RSA.sign(pod_claims())
    rotated = _rotated(token, key)
    eks_auth.script(rotated, refusal(503, "ServiceUnavailableException"))
    assert agent.get(token).status == 200
    before = _validations(agent)
    return agent.get(rotated).status, _since(agent, before)


@requirement("AGT-906")
def test_without_a_cluster_nothing_is_verified(start_agent: StartAgent, eks_auth: FakeEKSAuth) -> None:
    """The rotated token goes to EKS Auth, and validation counts as skipped."""
    agent = start_agent(eks_auth.url, *BY_POD, "--jwks-cache", "")

    assert _answer_to_a_rotated_token(agent, eks_auth) == (503, {"skipped": 1.0})


@requirement("AGT-914")
@pytest.mark.parametrize(
    ("version", "status", "keys", "answer"),
    [
        (("1", "34+"), 200, [RSA], (200, {"success": 1.0})),
        (("1", "33"), 200, [RSA], (503, {"failure": 1.0})),
        (("1", "34"), 500, [RSA], (503, {"failure": 1.0})),
        (("1", "34"), 200, [], (503, {"failure": 1.0})),
    ],
    ids=["1.34+", "1.33", "500", "no keys"],
)
def test_the_api_server_must_be_new_enough_and_have_keys(
    start_agent: StartAgent,
    eks_auth: FakeEKSAuth,
    tmp_path: Path,
    *,
    version: tuple[str, str],
    status: int,
    keys: list[Key],
    answer: tuple[int, dict[str, float]],
) -> None:
    """Else no token is good."""
    fake = FakeIssuer(tmp_path, *keys, version=version)
    fake.status = status
    try:
        flags = (*BY_POD, "--jwks-cache", "")
        agent = start_agent(eks_auth.url, *flags, env=fake.environment, within=fake.within())
        assert _answer_to_a_rotated_token(agent, eks_auth) == answer
    finally:
        fake.close()


@requirement("AGT-915", "AGT-916")
def test_keys_are_fetched_at_the_start_and_for_an_unknown_kid(
    start_agent: StartAgent, eks_auth: FakeEKSAuth, tmp_path: Path, patient: Sequence[str]
) -> None:
    """Not for each of them: many make one fetch in ten seconds, and no request waits long for it."""
    fake = FakeIssuer(tmp_path, RSA)
    try:
        flags = (*patient, *BY_POD, "--jwks-cache", "")
        agent = start_agent(eks_auth.url, *flags, env=fake.environment, within=fake.within())
        fetched = wait.until(
            lambda: fake.requests.count("/openid/v1/jwks"), what="the keys", timeout=limits.SUBJECT_ACTS
        )
        fake.keys = (RSA, LATER)
        found = _answer_to_a_rotated_token(agent, eks_auth, LATER)
        fake.delay = 2.0
        token = RSA.sign(pod_claims())
        assert agent.get(token).status == 200
        dice = random.Random(20261126)
        waits: list[float] = []
        for _ in range(50):
            forged = RSA.sign(pod_claims(_uid(token)), kid=f"{dice.getrandbits(128):032x}")
            eks_auth.script(forged, refusal(400, "InvalidTokenException"))
            watch = agent.stopwatch()
            assert agent.get(forged).status == 400
            waits.append(watch.seconds)
    finally:
        fake.close()

    check("AGT-915", expected=1, observed=fetched, what="fetches without a request")
    check("AGT-915", expected=(200, {"success": 1.0}), observed=found, what="a key that came later")
    check("AGT-916", expected=2, observed=fake.requests.count("/version"), what="fetches in all")
    check(
        "AGT-916",
        expected="at most 500 ms, and a call",
        observed=max(waits),
        holds=max(waits) < 0.9,
        what="longest wait",
    )


@requirement("AGT-916")
def test_a_slow_api_server_delays_a_request_by_half_a_second(
    start_agent: StartAgent, eks_auth: FakeEKSAuth, tmp_path: Path, patient: Sequence[str]
) -> None:
    """Then the request goes to EKS Auth."""
    fake = FakeIssuer(tmp_path, RSA)
    fake.delay = 3.0
    try:
        flags = (*patient, *BY_POD, "--jwks-cache", "")
        agent = start_agent(eks_auth.url, *flags, env=fake.environment, within=fake.within())
        watch = agent.stopwatch()
        answer = _answer_to_a_rotated_token(agent, eks_auth)
        elapsed, waited = watch.elapsed, watch.seconds
    finally:
        fake.close()

    assert answer == (503, {"failure": 1.0})
    # Beside the half second there are a call, and the three attempts of another.
    assert elapsed > 0.45
    assert waited < 1.7


@requirement("AGT-917")
def test_keys_survive_a_restart_while_the_api_server_is_down(
    start_agent: StartAgent, eks_auth: FakeEKSAuth, tmp_path: Path
) -> None:
    """They are in a file that nobody else reads."""
    cache = tmp_path / "keys" / "jwks-cache.json"
    account = tmp_path / "account"
    account.mkdir()
    flags = (*BY_POD, "--jwks-cache", str(cache))
    fake = FakeIssuer(account, RSA)
    try:
        start_agent(eks_auth.url, *flags, env=fake.environment, within=fake.within())
        wait.until(cache.exists, what="the file", timeout=limits.SUBJECT_ACTS)
    finally:
        fake.close()
    modes = [oct(path.stat().st_mode & 0o777) for path in (cache.parent, cache)]
    names = [path.name for path in cache.parent.iterdir()]
    agent = start_agent(eks_auth.url, *flags, env=fake.environment, within=fake.within())

    answer = _answer_to_a_rotated_token(agent, eks_auth)

    assert (modes, names) == (["0o700", "0o600"], ["jwks-cache.json"])
    assert '"rsa"' in cache.read_text()
    assert answer == (200, {"success": 1.0})


@requirement("AGT-917")
@pytest.mark.parametrize("content", ["corrupt", "too old"])
def test_a_file_that_must_not_be_used_is_not(
    start_agent: StartAgent, eks_auth: FakeEKSAuth, tmp_path: Path, content: str
) -> None:
    """One that is corrupt while the API server is down, and any while it is too old."""
    cache = tmp_path / "jwks-cache.json"
    cache.write_text("junk" if content == "corrupt" else json.dumps({"keys": [RSA.jwk]}))
    account = tmp_path / "account"
    account.mkdir()
    fake = FakeIssuer(account, RSA, version=("1", "33"))
    if content == "corrupt":
        fake.status = 500
    try:
        flags = (*BY_POD, "--jwks-cache", str(cache))
        agent = start_agent(eks_auth.url, *flags, env=fake.environment, within=fake.within())
        wait.until(lambda: fake.requests.count("/version"), what="a fetch", timeout=limits.SUBJECT_ACTS)
        assert _answer_to_a_rotated_token(agent, eks_auth) == (503, {"failure": 1.0})
    finally:
        fake.close()


@requirement("AGT-917")
def test_a_path_that_cannot_be_written_does_no_harm(
    start_agent: StartAgent, eks_auth: FakeEKSAuth, issuer: FakeIssuer
) -> None:
    """The keys are used all the same."""
    flags = (*BY_POD, "--jwks-cache", "/proc/nothing/jwks-cache.json")
    agent = start_agent(eks_auth.url, *flags, env=issuer.environment, within=issuer.within())

    assert _answer_to_a_rotated_token(agent, eks_auth) == (200, {"success": 1.0})
