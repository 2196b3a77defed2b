"""Broken agents, in the order of the agent's chapters: routes, tokens, answers, cache, renewal, calls, process.

A seam is overridden where it is looked up: a function that a module has imported is replaced in that module.
"""
# pyright: basic, reportPrivateImportUsage=false
# Stand-ins for private, typed seams: their types are the originals', and writing them again would hide the fault.

from __future__ import annotations

import json
import os
import re
from dataclasses import replace

from podid_agent import (
    aws_settings,
    cache,
    cli,
    credentials,
    credentials_endpoint,
    eks_auth,
    eks_auth_answer,
    fetching,
    http1_server,
    listeners,
    local_validation,
    metrics,
    network,
    node_credentials,
    probes,
    renewal,
    server,
    tokens,
)
from podid_agent.credentials_endpoint import CredentialsEndpoint
from podid_agent.errors import CredentialsError, InvalidAnswerError, RefusedError
from podid_agent.fetching import Fetcher
from podid_agent.flags import FlagError
from podid_agent.http1_response import Response
from podid_agent.renewal import Renewals

from harness.subject.mutants.catalogue import mutant, override

_SHARED_TEST = "the same tests show it"


# --- Routes, Host and the order of checks ----------------------------------------------------------------------------


@mutant("agent-bearer-accepted", "AGT-222", "AGT-246")
def bearer_accepted() -> None:
    """The word Bearer before a token is taken off."""

    def handle(original):
        def without_scheme(self, request, client):
            bare = request.authorization.removeprefix(b"Bearer ")
            return original(self, replace(request, authorization=bare), client)

        return without_scheme

    override(CredentialsEndpoint, "handle", handle)


@mutant(
    "agent-host-any",
    "AGT-223",
    "AGT-244",
    may_kill={
        "AGT-210": "an absolute URI's host is not refused either",
        "AGT-220": "a token's fault is told although the Host is wrong",
        "AGT-224": "the address it listens on passes as any other",
    },
)
def host_any() -> None:
    """Any Host is accepted, so that a page in a browser could ask by DNS rebinding."""
    override(credentials_endpoint, "called_host", lambda _: lambda _host: "169.254.170.23")


@mutant("agent-host-follows-bind", "AGT-224")
def host_follows_bind() -> None:
    """The address it listens on is accepted as Host."""

    def init(original):
        def also_own(self, listener, **parts):
            credentials_endpoint.DEFAULT_BIND_HOSTS = (*credentials_endpoint.DEFAULT_BIND_HOSTS, listener)
            original(self, listener, **parts)

        return also_own

    override(CredentialsEndpoint, "__init__", init)


@mutant(
    "agent-token-before-host",
    "AGT-220",
    may_kill=dict.fromkeys(("AGT-242", "AGT-243"), "the flood is of requests with a wrong Host and no token"),
)
def token_before_host() -> None:
    """The token is looked at before Host."""

    def check(original):
        def token_first(self, request, token):
            original(self, replace(request, host="169.254.170.23"), token)
            return original(self, request, token)

        return token_first

    override(CredentialsEndpoint, "_check", check)


@mutant(
    "agent-limiter-off",
    "AGT-241",
    "AGT-242",
    may_kill=dict.fromkeys(("AGT-220", "AGT-243"), "without a limit there is no refusal to look at"),
)
def limiter_off() -> None:
    """Requests are not limited."""
    override(credentials_endpoint, "_TOO_MANY", lambda _: None)
    override(credentials_endpoint, "TokenBucket", lambda original: type("", (original,), {"take": lambda _: True}))


@mutant(
    "agent-root-200",
    "AGT-204",
    "AGT-602",
    may_kill={
        "AGT-132": "it never becomes ready",
        "AGT-205": _SHARED_TEST,
        "AGT-601": "it never becomes ready",
        "AGT-606": "it never becomes ready",
        "AGT-611": "it never becomes ready",
    },
)
def root_200() -> None:
    """``/`` is 200, where probes expect 404."""

    def handle(original):
        return lambda self, request, client: Response(200) if request.path == "/" else original(self, request, client)

    override(CredentialsEndpoint, "handle", handle)


# --- Tokens ----------------------------------------------------------------------------------------------------------


@mutant("agent-expired-from-cache", "AGT-326", may_kill={"AGT-327": _SHARED_TEST})
def expired_from_cache() -> None:
    """A token's times are not checked while its credentials are cached."""

    def check(original):
        def known_first(self, request, token):
            return self._fetcher.claims(token) or original(self, request, token)

        return known_first

    override(CredentialsEndpoint, "_check", check)


@mutant(
    "agent-expired-forwarded",
    "AGT-247",
    "AGT-313",
    "AGT-315",
    may_kill={
        "AGT-316": "exp is compared in no way",
        "AGT-321": "a time long past is not refused",
        "AGT-326": "an expired token is not refused from the cache either",
        "AGT-902": "an expired token without a pod is refused for the pod",
    },
)
def expired_forwarded() -> None:
    """EKS Auth is asked with expired tokens."""

    def check_times(original):
        return lambda claims, now: original(replace(claims, expires_at=None), now)

    override(credentials_endpoint, "check_times", check_times)


@mutant("agent-leeway-30s", "AGT-316", may_kill=dict.fromkeys(("AGT-313", "AGT-314"), _SHARED_TEST))
def leeway_30s() -> None:
    """Exp and nbf have half a minute of leeway."""

    def check_times(original):
        def leniently(claims, now):
            original(replace(claims, expires_at=None), now + 30)
            original(replace(claims, not_before=None), now - 30)

        return leniently

    override(credentials_endpoint, "check_times", check_times)


@mutant(
    "agent-nbf-ignored",
    "AGT-314",
    may_kill={"AGT-315": "only the other of two faults is told", "AGT-316": _SHARED_TEST, "AGT-247": _SHARED_TEST},
)
def nbf_ignored() -> None:
    """A token that is not valid yet is taken."""

    def check_times(original):
        return lambda claims, now: original(replace(claims, not_before=None), now)

    override(credentials_endpoint, "check_times", check_times)


@mutant("agent-signature-wanted", "AGT-312", may_kill={"AGT-305": "its tokens have odd signatures"})
def signature_wanted() -> None:
    """A token without a signature is refused, though only EKS Auth can judge it."""

    def parse(original):
        def with_signature(token):
            if token.endswith(b"."):
                raise tokens.InvalidTokenError("token is malformed: signature is missing")
            return original(token)

        return with_signature

    override(credentials_endpoint, "parse_token", parse)


@mutant("agent-algorithms-few", "AGT-311", may_kill={"AGT-312": "tokens without a signature say alg none"})
def algorithms_few() -> None:
    """Only RS256 is known, the algorithm of most clusters."""
    override(tokens, "_ALGORITHMS", lambda _: frozenset({"RS256"}))


# --- Answers ---------------------------------------------------------------------------------------------------------


@mutant("agent-sessiontoken-key", "AGT-231", may_kill=dict.fromkeys(("AGT-230", "AGT-232"), _SHARED_TEST))
def sessiontoken_key() -> None:
    """The token's key is SessionToken, as STS calls it."""

    def to_json(original):
        return lambda self: original(self).replace(b'"Token":', b'"SessionToken":')

    override(credentials.PodCredentials, "_to_json", to_json)


@mutant("agent-expiration-offset", "AGT-234", may_kill={"AGT-231": _SHARED_TEST})
def expiration_offset() -> None:
    """Expiration ends in +00:00."""
    override(credentials, "_rfc3339", lambda original: lambda seconds: original(seconds).replace("Z", "+00:00"))


@mutant("agent-account-of-node", "AGT-233", may_kill={"AGT-231": _SHARED_TEST})
def account_of_node() -> None:
    """AccountId is the node's account, whatever role was assumed."""

    def read_answer(original):
        return lambda *answer: replace(original(*answer), account_id="999999999999")

    override(eks_auth, "read_answer", read_answer)


@mutant(
    "agent-200-on-garbage",
    "AGT-237",
    "AGT-278",
    "AGT-279",
    "AGT-280",
    "AGT-281",
    "AGT-283",
    may_kill={
        "AGT-282": "times that are none are not noticed",
        "AGT-411": "what it made of nonsense is stored",
        "AGT-459": "nonsense counts as a renewal",
        "AGT-155": "its renewal test expects the old credentials",
        "AGT-713": "a success with a bad body is one",
        "AGT-722": "an endless body is one",
    },
    source="aws/eks-pod-identity-agent: an empty 2xx body is answered with 200 and empty keys",
)
def ok_on_garbage() -> None:
    """What cannot be read in a success becomes credentials with empty values."""

    def read_answer(original):
        def generously(*answer):
            try:
                return original(*answer)
            except InvalidAnswerError:
                return credentials.PodCredentials("", "", "", "", 4e9)

        return generously

    override(eks_auth, "read_answer", read_answer)


@mutant(
    "agent-dies-on-missing-field",
    "AGT-155",
    "AGT-156",
    "AGT-459",
    may_kill={
        "AGT-237": "a dead process answers nothing",
        "AGT-27*": "a dead process answers nothing",
        "AGT-28*": "a dead process answers nothing",
        "AGT-*": "after some restarts the shared agent stays dead",
    },
    source="aws/eks-pod-identity-agent: a 2xx without credentials is a nil pointer",
)
def dies_on_missing_field() -> None:
    """A success that lacks something ends the process."""

    def invalid(_original):
        return lambda _reason: os._exit(2)

    override(eks_auth_answer, "_invalid", invalid)


@mutant(
    "agent-json-errors",
    "AGT-240",
    may_kill={
        "AGT-2*": "tests of one error compare its whole text",
        "AGT-3*": "tests of one error compare its whole text",
        "AGT-*": "tests of one error compare its whole text",
    },
)
def json_errors() -> None:
    """Errors are JSON."""

    def encode(original):
        def as_json(response, request, *, close):
            if response.nosniff:
                body = json.dumps({"message": response.body.decode()}).encode()
                response = Response(response.status, body, "application/json")
            return original(response, request, close=close)

        return as_json

    override(http1_server, "encode_response", encode)


@mutant(
    "agent-status-flattened",
    "AGT-260",
    may_kill={
        "AGT-261": "tests of refusals compare status and text",
        "AGT-262": "tests of refusals compare status and text",
        "AGT-263": "tests of refusals compare status and text",
        "AGT-264": "tests of refusals compare status and text",
        "AGT-265": "tests of refusals compare status and text",
        "AGT-267": "the refusal has another status",
        "AGT-456": "the refusal after a dropped entry has another status",
        "AGT-457": "a 403 is not recognised",
        "AGT-*": "tests of refusals compare status and text",
    },
)
def status_flattened() -> None:
    """Every refusal of EKS Auth is a 500 for the pod."""

    def read_refusal(original):
        def flattened(*answer):
            error = original(*answer)
            error.status = 500
            return error

        return flattened

    override(eks_auth_answer, "_read_refusal", read_refusal)


@mutant(
    "agent-redirect-passed-on",
    "AGT-270",
    "AGT-271",
)
def redirect_passed_on() -> None:
    """A redirect of EKS Auth reaches the pod."""

    def read_answer(original):
        def passed_on(status, headers, body):
            if 300 <= status < 400:
                raise CredentialsError("moved", status=status)
            return original(status, headers, body)

        return passed_on

    override(eks_auth, "read_answer", read_answer)


@mutant(
    "agent-secrets-quoted", "AGT-249", may_kill=dict.fromkeys(("AGT-328", "AGT-661"), "refusals quote what was sent")
)
def secrets_quoted() -> None:
    """A refusal that quotes the token or the signature is passed on as it came."""
    override(CredentialsError, "hide", lambda _: lambda _self, *_secrets: None)


# --- Cache -----------------------------------------------------------------------------------------------------------


@mutant(
    "agent-key-by-serviceaccount",
    "AGT-402",
    may_kill={"AGT-*": "tests keep apart by token, and most of them ask for one ServiceAccount"},
)
def key_by_serviceaccount() -> None:
    """Pods of one ServiceAccount get each other's credentials."""

    def use(original):
        def of_account(self, key, token):
            mine = tokens.parse_token(token).identity.get("claimed-service-account")
            others = (entry for entry in self if entry.claims.identity.get("claimed-service-account") == mine)
            return original(self, key, token) or next(others, None)

        return of_account

    override(cache.CredentialCache, "use", use)


@mutant(
    "agent-no-cache",
    "AGT-236",
    "AGT-403",
    may_kill={
        "AGT-408": _SHARED_TEST,
        "AGT-405": "there is nothing to serve during a renewal",
        "AGT-455": "there is nothing to keep",
        "AGT-904": "there is nothing to serve a known token",
        "AGT-905": "there is nothing to serve a newer token",
        "AGT-*": "tests of the cache count calls",
    },
)
def no_cache() -> None:
    """Nothing is served from the cache."""
    override(cache.CredentialCache, "use", lambda _: lambda _self, _key, _token: None)


@mutant(
    "agent-cache-unbounded",
    "AGT-406",
    may_kill={"AGT-407": "nothing is given up", "AGT-622": "nothing is evicted", "AGT-157": "memory is not bounded"},
)
def cache_unbounded() -> None:
    """The cache grows without an end."""

    def init(original):
        return lambda self, _capacity, *rest: original(self, 1 << 40, *rest)

    override(cache.CredentialCache, "__init__", init)


@mutant("agent-evicts-oldest", "AGT-407", may_kill={"AGT-406": _SHARED_TEST})
def evicts_oldest() -> None:
    """A full cache gives up the entry that was made first, though it is in use."""

    def use(original):
        def unmoved(self, key, token):
            order = list(self._entries)
            entry = original(self, key, token)
            for name in order:
                self._entries.move_to_end(name)
            return entry

        return unmoved

    override(cache.CredentialCache, "use", use)


@mutant(
    "agent-no-coalescing",
    "AGT-408",
    "AGT-421",
    may_kill={
        "AGT-267": _SHARED_TEST,
        "AGT-420": "each request makes its call",
        "AGT-422": "each waiter has its own failure",
        "AGT-423": _SHARED_TEST,
        "AGT-424": "waiters wait for calls of their own",
        "AGT-425": "the client that stays makes a call of its own",
        "AGT-426": _SHARED_TEST,
        "AGT-428": "the slots are taken by calls for one token",
        "AGT-626": "nothing counts as coalesced",
        "AGT-720": "a second request makes a second call",
        "AGT-919": "equal tokens make calls of their own",
    },
    source="aws/eks-pod-identity-agent: requests during a cache miss each call EKS Auth",
)
def no_coalescing() -> None:
    """Requests do not join the call that is under way for their token."""

    def init(original):
        def forgetful(self, *parts, **options):
            original(self, *parts, **options)
            self._calls = type("", (dict,), {"get": lambda _self, _token: None})()

        return forgetful

    override(Fetcher, "__init__", init)


@mutant(
    "agent-errors-not-shared",
    "AGT-422",
    may_kill={"AGT-267": _SHARED_TEST, "AGT-423": _SHARED_TEST},
    source="aws/eks-pod-identity-agent: waiters of a failed call each call again",
)
def errors_not_shared() -> None:
    """Who waited for a call that failed makes one more."""

    def fetch(original):
        async def again(self, key, token, claims):
            waits = self.is_under_way(token)
            try:
                return await original(self, key, token, claims)
            except CredentialsError:
                if not waits:
                    raise
                return await original(self, key, token, claims)

        return again

    override(Fetcher, "fetch", fetch)


@mutant("agent-call-dies-with-client", "AGT-720", may_kill={"AGT-425": "the call ends with its client"})
def call_dies_with_client() -> None:
    """A call ends when the request that made it has waited long enough."""

    def fetch(original):
        async def cancelling(self, key, token, claims):
            try:
                return await original(self, key, token, claims)
            except CredentialsError:
                if call := self._calls.get(token):
                    call.cancel()
                raise

        return cancelling

    override(Fetcher, "fetch", fetch)


@mutant(
    "agent-serves-expired",
    "AGT-404",
    may_kill={"AGT-401": "credentials near their end are served", "AGT-468": "likewise"},
)
def serves_expired() -> None:
    """Credentials are served from the cache to their end and beyond."""
    override(cache.CredentialCache, "is_usable", lambda _: lambda _self, _entry: True)


@mutant("agent-admits-dying", "AGT-277", may_kill={"AGT-237": "credentials that have ended are passed on"})
def admits_dying() -> None:
    """Fetched credentials that are about to end, or have ended, are passed on."""
    override(fetching, "_check_life", lambda _: lambda _seconds: None)


@mutant(
    "agent-uid-unverified",
    "AGT-906",
    "AGT-907",
    "AGT-909",
    may_kill={
        "AGT-910": "every audience passes",
        "AGT-911": "every owner passes",
        "AGT-912": "keys are not looked for",
        "AGT-913": "keys are not looked for",
        "AGT-914": "keys are not looked for",
        "AGT-915": "keys are not looked for",
        "AGT-916": "keys are not looked for",
        "AGT-917": "keys are not looked for",
        "AGT-922": "an entry is given to whoever asks",
    },
)
def uid_unverified() -> None:
    """A token with the UID of a cached pod is believed, whoever signed it."""

    def validate(_original):
        async def believe(_self, _token, _known):
            return "success"

        return believe

    override(local_validation.LocalValidator, "validate", validate)


@mutant("agent-owner-unchecked", "AGT-910", "AGT-911", may_kill=dict.fromkeys(("AGT-906", "AGT-907"), _SHARED_TEST))
def owner_unchecked() -> None:
    """A genuine token takes an entry over without regard to its audience, namespace and names."""
    override(local_validation, "_check_owner", lambda _: lambda _claimed, _known: None)


@mutant("agent-errors-cached", "AGT-267", "AGT-423", may_kill={"AGT-*": "what failed once fails until the end"})
def errors_cached() -> None:
    """A refusal is told again without a call."""
    failures = {}

    def fetch(original):
        async def remembering(self, key, token, claims):
            if token in failures:
                raise failures[token]
            try:
                return await original(self, key, token, claims)
            except CredentialsError as error:
                failures[token] = error
                raise

        return remembering

    override(Fetcher, "fetch", fetch)


@mutant(
    "agent-binding-forgotten",
    "AGT-905",
    may_kill=dict.fromkeys(("AGT-906", "AGT-908", "AGT-918"), "a newer token costs a call each time"),
)
def binding_forgotten() -> None:
    """An entry keeps the token that it was fetched with, though a newer one was verified."""
    override(cache.CredentialCache, "bind", lambda _: lambda _self, _entry, _token, _claims: None)


@mutant("agent-expired-kept", "AGT-466", may_kill={"AGT-622": _SHARED_TEST})
def expired_kept() -> None:
    """An entry that has ended stays in the cache."""
    override(cache.CredentialCache, "remove_expired", lambda _: lambda _self: None)


# --- Renewal ---------------------------------------------------------------------------------------------------------


@mutant(
    "agent-no-refresh",
    "AGT-450",
    "AGT-451",
    may_kill={
        f"AGT-{number}": "nothing is renewed"
        for number in (135, 155, 405, 411, *range(452, 464), 622, 623, 667, 918, 920)
    },
)
def no_refresh() -> None:
    """Nothing is renewed before it ends."""
    override(Renewals, "_due", lambda _: lambda _self: [])


@mutant(
    "agent-refresh-starved",
    "AGT-460",
    may_kill={"AGT-461": _SHARED_TEST, "AGT-462": _SHARED_TEST},
    source="aws/eks-pod-identity-agent: the limiter is charged twice, two renewals per sweep",
)
def refresh_starved() -> None:
    """The rate limit is charged twice for each renewal."""

    def bucket(original):
        return type("", (original,), {"take": lambda self: original.take(self) and original.take(self)})

    override(renewal, "TokenBucket", bucket)


@mutant("agent-renews-latest-first", "AGT-461")
def renews_latest_first() -> None:
    """Of what is due, the entry that lives longest is renewed first."""
    # A global of the module goes before the built-in function.
    renewal.sorted = lambda due, key: sorted(due, key=key, reverse=True)  # pyright: ignore[reportAttributeAccessIssue]


@mutant("agent-renews-by-retention-only", "AGT-452", may_kill={"AGT-450": _SHARED_TEST})
def renews_by_retention_only() -> None:
    """Credentials that end before the retention is over are not renewed in time."""
    override(cache, "renewal_delay", lambda _: lambda _life, retention, spread: retention * (1 - spread / 10))


@mutant("agent-no-spread", "AGT-453")
def no_spread() -> None:
    """Pods that started together renew together."""

    def delay(original):
        return lambda life, retention, _spread: original(life, retention, 0.0)

    override(cache, "renewal_delay", delay)


@mutant(
    "agent-drops-on-transient",
    "AGT-405",
    "AGT-455",
    may_kill={"AGT-457": "a 403 drops the entry", "AGT-623": _SHARED_TEST},
)
def drops_on_transient() -> None:
    """Every refusal at renewal removes the entry."""
    override(RefusedError, "is_about_the_pod", lambda _: True)


@mutant(
    "agent-keeps-on-denied",
    "AGT-456",
    "AGT-623",
    may_kill={"AGT-667": "nothing is said to be removed", "AGT-920": "nothing is dropped"},
)
def keeps_on_denied() -> None:
    """A pod whose association is gone keeps its credentials to their end."""
    override(RefusedError, "is_about_the_pod", lambda _: False)


# --- Calls of EKS Auth -----------------------------------------------------------------------------------------------


@mutant("agent-retries-404", "AGT-713")
def retries_404() -> None:
    """What does not exist is asked for three times."""

    def read_refusal(original):
        def retryable(*answer):
            error = original(*answer)
            error.retryable |= error.status == 404
            return error

        return retryable

    override(eks_auth_answer, "_read_refusal", read_refusal)


@mutant(
    "agent-no-retry",
    "AGT-711",
    "AGT-712",
    may_kill={
        "AGT-714": "a 429 is the answer at once",
        "AGT-715": "a throttle is the answer at once",
        "AGT-716": "there are no retries to end",
        "AGT-142": "the variable has no effect",
        "AGT-268": _SHARED_TEST,
        "AGT-269": _SHARED_TEST,
        "AGT-665": "the log tells of one attempt",
        "AGT-721": "a call is over sooner",
        "AGT-710": "there is no second attempt",
        "AGT-722": "there is no second attempt",
    },
)
def no_retry() -> None:
    """Every failure is the answer at once."""
    override(server, "load_settings", lambda original: lambda *parts: replace(original(*parts), max_attempts=1))


@mutant("agent-tls-unverified", "AGT-724", may_kill=dict.fromkeys(("AGT-143", "AGT-268", "AGT-269"), _SHARED_TEST))
def tls_unverified() -> None:
    """Whoever answers at EKS Auth's address is believed."""

    def load_settings(original):
        def trusting(*parts):
            settings = original(*parts)
            settings.tls.check_hostname = False
            settings.tls.verify_mode = 0
            return settings

        return trusting

    override(server, "load_settings", load_settings)


@mutant(
    "agent-signs-for-other-region", "AGT-702", may_kill={"AGT-130": "the region has no effect", "AGT-705": _SHARED_TEST}
)
def signs_for_other_region() -> None:
    """Calls are signed for us-east-1 wherever the agent runs."""
    override(
        eks_auth, "_sign", lambda original: lambda url, body, keys, _region: original(url, body, keys, "us-east-1")
    )


@mutant("agent-own-token-dropped", "AGT-136", may_kill={"AGT-134": "temporary credentials do not work"})
def own_token_dropped() -> None:
    """The session token of the node's role is not sent."""

    def sign(original):
        return lambda url, body, keys, region: original(url, body, replace(keys, token=None), region)

    override(eks_auth, "_sign", sign)


@mutant(
    "agent-attempt-unbounded",
    "AGT-710",
    may_kill={f"AGT-{number}": "silence holds the first attempt" for number in (268, 269, 711, 712, 722)},
)
def attempt_unbounded() -> None:
    """One attempt may take as long as the whole call."""
    override(eks_auth, "_ATTEMPT_TIMEOUT", lambda _: 60.0)


@mutant(
    "agent-loopback-proxied",
    "AGT-733",
    may_kill=dict.fromkeys(("AGT-144", "AGT-731", "AGT-732"), "every endpoint is asked through the one proxy"),
)
def loopback_proxied() -> None:
    """Also the machine itself is asked through the proxy."""
    override(aws_settings, "proxy_for", lambda _: lambda _url, environment: environment.get("HTTP_PROXY"))


# --- Patience --------------------------------------------------------------------------------------------------------


@mutant("agent-endless-patience", "AGT-215")
def endless_patience() -> None:
    """Slow and idle clients may stay."""
    override(http1_server, "_TIMEOUT", lambda _: 3600.0)


@mutant("agent-keys-read-once", "AGT-145")
def keys_read_once() -> None:
    """The shared credentials file is read once."""
    override(node_credentials.SharedFileCredentials, "_MAX_AGE", lambda _: 1e9)


# --- Network ---------------------------------------------------------------------------------------------------------


@mutant(
    "agent-initialize-idle",
    *("AGT-501", "AGT-502", "AGT-503", "AGT-504", "AGT-505", "AGT-506", "AGT-507", "AGT-510", "AGT-512"),
    may_kill=dict.fromkeys(
        ("AGT-508", "AGT-511", "AGT-513", "AGT-520", "AGT-521", "AGT-523", "AGT-525", "AGT-607", "AGT-610"),
        "there is no address",
    ),
)
def initialize_idle() -> None:
    """Initialize ends well and has done nothing."""
    override(network, "run_initialize", lambda _: lambda _journal: 0)


@mutant(
    "agent-initialize-once",
    "AGT-508",
    may_kill={
        "AGT-50*": "a link that is there is refused",
        "AGT-51*": _SHARED_TEST,
        **dict.fromkeys(("AGT-523", "AGT-525", "AGT-607"), "initialize runs twice there"),
    },
)
def initialize_once() -> None:
    """A link that is there already ends initialize."""

    def link(original):
        def new(netlink, journal):
            if netlink.link_lookup(ifname=network.LINK_NAME):
                raise network.NetworkError("the link exists")
            return original(netlink, journal)

        return new

    override(network, "_link", link)


@mutant("agent-initialize-policy-route", "AGT-509")
def initialize_policy_route() -> None:
    """Initialize leaves a policy route."""

    def initialize(original):
        def and_rule(netlink, journal):
            original(netlink, journal)
            netlink.rule("add", table=100, priority=1000)

        return and_rule

    override(network, "_initialize", initialize)


@mutant("agent-initialize-greedy", "AGT-510")
def initialize_greedy() -> None:
    """Initialize uses another capability than CAP_NET_ADMIN."""

    def initialize(original):
        def elsewhere(netlink, journal):
            os.chroot("/")
            original(netlink, journal)

        return elsewhere

    override(network, "_initialize", initialize)


@mutant("agent-address-detected", "AGT-512", may_kill={"AGT-513": _SHARED_TEST})
def address_detected() -> None:
    """The IPv6 address goes through duplicate address detection."""
    override(network, "_IFA_F_NODAD", lambda _: 0)


@mutant(
    "agent-listens-everywhere",
    "AGT-520",
    "AGT-521",
    may_kill={"AGT-*": "a second listener finds the port taken"},
)
def listens_everywhere() -> None:
    """Every listener takes all addresses of the node."""

    def listen(original):
        def on_all(host, port):
            return original("::" if ":" in host else "0.0.0.0", port)  # noqa: S104 - this is the fault

        return on_all

    override(server, "listen", listen)


@mutant("agent-both-families-or-none", "AGT-523", "AGT-607", may_kill={"AGT-525": _SHARED_TEST})
def both_families_or_none() -> None:
    """A default address that the node lacks ends the start."""

    def start(original):
        def strictly(error, host, port, number):
            original(error, host, port, number)
            error.is_missing_address = False

        return strictly

    override(listeners.BindError, "__init__", start)


@mutant("agent-probe-proxied", "AGT-610")
def probe_proxied() -> None:
    """The agent asks itself through the proxy, which does not know it."""

    def answers(original):
        async def through_proxy(self, listener):
            return "HTTP_PROXY" not in os.environ and await original(self, listener)

        return through_proxy

    override(probes.Probes, "_answers", answers)


# --- Process, probes, logs -------------------------------------------------------------------------------------------


@mutant("agent-sigterm-abort", "AGT-152", may_kill={"AGT-153": "nothing is waited for"})
def sigterm_abort() -> None:
    """A signal ends the process in the middle of its requests."""

    def drain(_original):
        async def not_at_all(_self):
            os._exit(0)

        return not_at_all

    override(server._Agent, "_drain", drain)


@mutant(
    "agent-strict-argv", "AGT-109", may_kill={"AGT-108": _SHARED_TEST, "AGT-118": _SHARED_TEST, "AGT-123": _SHARED_TEST}
)
def strict_argv() -> None:
    """A word that is left over, as in ``--rotate-credentials true``, ends the start."""

    def parse_flags(original):
        def strictly(arguments, flags, *, interspersed=True):
            parsed = original(arguments, flags, interspersed=interspersed)
            if interspersed and parsed.arguments:
                raise FlagError(f"surplus arguments: {parsed.arguments}")
            return parsed

        return strictly

    override(cli, "parse_flags", parse_flags)


@mutant("agent-repeated-flag-refused", "AGT-107", may_kill={"AGT-110": "the suite gives a verbosity of its own"})
def repeated_flag_refused() -> None:
    """A flag that is given twice ends the start."""

    def parse_flags(original):
        def once(arguments, flags, *, interspersed=True):
            parsed = original(arguments, flags, interspersed=interspersed)
            if any(len(found) > 1 for name, found in parsed.values.items() if name != "bind-hosts"):
                raise FlagError("a flag is given twice")
            return parsed

        return once

    override(cli, "parse_flags", parse_flags)


@mutant("agent-metrics-wrong", "AGT-621", may_kill={"AGT-243": _SHARED_TEST})
def metrics_wrong() -> None:
    """An answer is counted twice."""

    def answer(original):
        def twice(self, exchange, response, source, error=""):
            self._metrics.http_response.labels(str(response.status)).inc()
            return original(self, exchange, response, source, error)

        return twice

    override(CredentialsEndpoint, "_answer", answer)


@mutant("agent-metrics-suffixed", "AGT-620", may_kill={"AGT-*": "tests that count look for the plain names"})
def metrics_suffixed() -> None:
    """Counters end in _total, as Prometheus would have it."""
    override(metrics, "_PLAIN", lambda _: re.compile(rb"(?!)"))


@mutant("agent-calls-unlogged", "AGT-665")
def calls_unlogged() -> None:
    """The log has no line for calls of EKS Auth."""
    override(eks_auth.EKSAuthClient, "_record", lambda _: lambda _self, *_call: None)


@mutant("agent-token-in-log", "AGT-328", "AGT-661")
def token_in_log() -> None:
    """The log tells the token of each request."""

    def check(original):
        def told(self, request, token):
            self._journal.debug("checking", {"token": token.decode(errors="replace")})
            return original(self, request, token)

        return told

    override(CredentialsEndpoint, "_check", check)


@mutant("agent-failures-flood", "AGT-668", may_kill={"AGT-664": _SHARED_TEST})
def failures_flood() -> None:
    """A failure that repeats is logged each time."""
    override(credentials_endpoint.FailureSummary, "allows", lambda _: lambda _self, _message: True)
