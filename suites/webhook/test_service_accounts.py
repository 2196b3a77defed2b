"""Section 9.2 of the contract: the watched ServiceAccounts, and the wait for one that is not known yet."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness import limits, wait
from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.subject.kube_api import KubeApi, serve_kube_api
from harness.subject.reviews import pod
from harness.subject.webhook import Surroundings, Webhook

PREFIX = "eks.amazonaws.com"
ROLE = {f"{PREFIX}/role-arn": "arn:aws:iam::111122223333:role/first"}
PI_VOLUME, IRSA_VOLUME = "eks-pod-identity-token", "aws-iam-token"
GRACE_SECONDS = 1.5


@requirement("WHK-721")
def test_all_settings_of_an_account_are_kept(eks: Webhook, surroundings: Surroundings) -> None:
    """Role, audience, STS setting and expiration of accounts in any namespace count for their pods."""
    settings = {"audience": "own", "sts-regional-endpoints": "false", "token-expiration": "7001"}
    annotations = ROLE | {f"{PREFIX}/{key}": value for key, value in settings.items()}
    surroundings.annotate(eks, "complete", annotations, namespace="any-namespace")

    admission = eks.review(pod(service_account="complete"), "any-namespace")

    assert admission.value("AWS_ROLE_ARN") == "arn:aws:iam::111122223333:role/first"
    assert admission.token(IRSA_VOLUME) == {"audience": "own", "expirationSeconds": 7001, "path": "token"}
    assert "AWS_STS_REGIONAL_ENDPOINTS" not in admission.names()


@requirement("WHK-722")
def test_changes_count_for_the_next_pod(eks: Webhook, surroundings: Surroundings, kube_api: KubeApi) -> None:
    """A new account, a changed role, a removed annotation and a deleted account, without a restart."""
    observed: list[object] = []

    def observe() -> None:
        observed.append(eks.review(pod(service_account="changing")).value("AWS_ROLE_ARN"))

    observe()
    surroundings.annotate(eks, "changing", ROLE)
    observe()
    surroundings.annotate(eks, "changing", {f"{PREFIX}/role-arn": "arn:aws:iam::111122223333:role/second"})
    observe()
    surroundings.annotate(eks, "changing", {})
    observe()
    surroundings.annotate(eks, "changing", ROLE)
    kube_api.delete("serviceaccounts", "demo", "changing")
    surroundings.settle(eks)
    observe()

    first, second = "arn:aws:iam::111122223333:role/first", "arn:aws:iam::111122223333:role/second"
    assert observed == [None, first, second, None, None]


@requirement("WHK-724")
def test_settings_of_the_account_count_for_pod_identity(eks: Webhook, surroundings: Surroundings) -> None:
    """STS setting and expiration of an account count although its role and audience do not."""
    annotations = {f"{PREFIX}/sts-regional-endpoints": "false", f"{PREFIX}/token-expiration": "7001"}
    surroundings.annotate(eks, "annotated", annotations)

    admission = eks.review(pod(service_account="annotated"))

    assert admission.token(PI_VOLUME).get("expirationSeconds") == 7001
    assert "AWS_STS_REGIONAL_ENDPOINTS" not in admission.names()


@requirement("WHK-726")
def test_unknown_account_is_not_waited_for_by_default(eks: Webhook, kube_api: KubeApi) -> None:
    """Without a grace period it is no mutation, at once, and the API server is not asked."""
    started = time.monotonic()

    admission = eks.review(pod(service_account="never-seen"))

    assert admission.response.get("allowed") is True
    assert admission.patch == []
    assert time.monotonic() - started < 1
    assert kube_api.gets_of("demo", "never-seen") == 0


@pytest.fixture(scope="module")
def patient(surroundings: Surroundings) -> Iterator[Webhook]:
    """A webhook with a grace period."""
    file = surroundings.directory / "identities.json"
    flags = (f"--watch-container-credentials-config={file}", "--service-account-lookup-grace-period=1500ms")
    with surroundings.webhook(*flags) as webhook:
        surroundings.settle(webhook)
        yield webhook


def timed(webhook: Webhook, account: str) -> tuple[str, float]:
    started = time.monotonic()
    mechanism = webhook.mechanism(account)
    return mechanism, time.monotonic() - started


@requirement("WHK-212")
def test_associated_account_is_not_waited_for(patient: Webhook) -> None:
    """The answer for a pod with an association does not depend on its account's being known."""
    mechanism, seconds = timed(patient, "uncached")

    assert mechanism == "Pod Identity"
    assert seconds < GRACE_SECONDS / 2


@requirement("WHK-729")
def test_account_without_a_role_is_not_waited_for(
    patient: Webhook, surroundings: Surroundings, kube_api: KubeApi
) -> None:
    """An account that is known to have no role is answered at once, and the API server is not asked."""
    surroundings.annotate(patient, "known-without-role", {})

    mechanism, seconds = timed(patient, "known-without-role")

    assert (mechanism, kube_api.gets_of("demo", "known-without-role")) == ("none", 0)
    assert seconds < GRACE_SECONDS / 2


@requirement("WHK-728")
def test_end_of_the_grace_period(patient: Webhook) -> None:
    """A pod whose account never comes is allowed without mutation when the period is over, not before."""
    started = time.monotonic()

    admission = patient.review(pod(service_account="never-comes"))

    seconds = time.monotonic() - started
    assert admission.response.get("allowed") is True
    assert admission.patch == []
    assert GRACE_SECONDS * 0.9 <= seconds < GRACE_SECONDS + 1.5


@requirement("WHK-727", "WHK-730")
def test_waiters_share_one_read_of_the_account(patient: Webhook, kube_api: KubeApi) -> None:
    """An account that no watch has told of yet is read once for all who wait for it, and all get its role."""
    name = f"read-directly-{secrets.token_hex(4)}"
    kube_api.hidden_from_watches.add(name)
    # So long that all eight are there while it lasts, on a busy machine too.
    kube_api.slow_reads[name] = GRACE_SECONDS / 2
    kube_api.put_service_account("demo", name, ROLE)
    started = time.monotonic()

    with ThreadPoolExecutor(8) as threads:
        mechanisms = list(threads.map(lambda _: patient.mechanism(name), range(8)))

    seconds = time.monotonic() - started
    check("WHK-727", expected=["IRSA"] * 8, observed=mechanisms)
    check("WHK-727", expected="before the period ends", observed=round(seconds, 2), holds=seconds < GRACE_SECONDS)
    check("WHK-730", expected=1, observed=kube_api.gets_of("demo", name), what="reads")
    check("WHK-730", expected=8, observed=mechanisms.count("IRSA"), what="woken")


@requirement("WHK-727")
def test_account_that_is_not_found_may_still_come(patient: Webhook, kube_api: KubeApi) -> None:
    """A 404 does not end the wait: the watch may bring the account."""
    with ThreadPoolExecutor(1) as thread:
        review = thread.submit(timed, patient, "comes-late")
        wait.until(
            lambda: kube_api.gets_of("demo", "comes-late"),
            what="a read of demo/comes-late",
            timeout=limits.SUBJECT_ACTS,
        )
        kube_api.put_service_account("demo", "comes-late", ROLE)
        mechanism, seconds = review.result()

    assert mechanism == "IRSA"
    assert seconds < GRACE_SECONDS


@requirement("WHK-730")
def test_reads_are_rate_limited(surroundings: Surroundings, kube_api: KubeApi) -> None:
    """Reviews of sixty unknown accounts do not lead to sixty reads at once: twenty, and ten in each second."""
    # A webhook of its own: reads that are still due would disturb others.
    with surroundings.webhook("--service-account-lookup-grace-period=1s") as webhook:
        surroundings.settle(webhook)
        accounts = [f"flood-{number}" for number in range(60)]

        started = time.monotonic()
        with ThreadPoolExecutor(60) as threads:
            mechanisms = list(threads.map(webhook.mechanism, accounts))
        reads = sum(kube_api.gets_of("demo", account) for account in accounts)
        most = (20 + 10 * (time.monotonic() - started)) * 1.1

    assert mechanisms == ["none"] * 60
    assert 0 < reads <= most


@pytest.fixture
def own_api(surroundings: Surroundings, tmp_path: Path) -> Iterator[tuple[KubeApi, Webhook]]:
    """A webhook whose API server may break."""
    with serve_kube_api() as api:
        for number in range(5):
            api.put_service_account("demo", f"kept-{number}", ROLE)
        own = surroundings.flags(kubeconfig=api.write_kubeconfig(tmp_path / "kubeconfig"))
        with surroundings.webhook(own=own) as webhook:
            api.wait_for_watch("serviceaccounts", timeout=5)
            yield api, webhook


def wait_for(webhook: Webhook, account: str, mechanism: str) -> None:
    wait.until(
        lambda: webhook.mechanism(account),
        lambda observed: observed == mechanism,
        what=f"a pod of demo/{account} to get {mechanism}",
        timeout=limits.SUBJECT_ACTS,
    )


@requirement("WHK-731")
def test_foreign_annotations_are_not_kept(own_api: tuple[KubeApi, Webhook]) -> None:
    """Of 48 MiB of other annotations on 3,000 accounts, little stays in memory."""
    api, webhook = own_api
    wait_for(webhook, "kept-4", "IRSA")
    before = webhook.resident_mib

    for number in range(3000):
        api.put_service_account("demo", f"large-{number}", {"team.example/notes": f"{number:016}" * 1024})
    api.put_service_account("demo", "last", ROLE)
    wait_for(webhook, "last", "IRSA")

    grown = webhook.resident_mib - before
    check("WHK-731", what="growth, MiB", expected="less than 24", observed=round(grown, 1), holds=grown < 24)


@requirement("WHK-732")
def test_ended_watch_is_resumed(own_api: tuple[KubeApi, Webhook]) -> None:
    """A watch that ends is resumed from where it was, without a new list."""
    api, webhook = own_api
    wait_for(webhook, "kept-4", "IRSA")
    listed = len(lists(api))

    api.end_watches()
    api.put_service_account("demo", "late", ROLE)

    wait_for(webhook, "late", "IRSA")
    assert len(lists(api)) == listed


@requirement("WHK-732")
def test_outdated_watch_leads_to_a_new_list(own_api: tuple[KubeApi, Webhook]) -> None:
    """After 410 all is listed anew, and what is gone meanwhile is forgotten."""
    api, webhook = own_api
    wait_for(webhook, "kept-4", "IRSA")
    listed = len(lists(api))

    api.hidden_from_watches.add("kept-0")
    api.forget_history()
    api.put_service_account("demo", "later", ROLE)

    wait_for(webhook, "later", "IRSA")
    wait_for(webhook, "kept-0", "none")
    assert [webhook.mechanism(f"kept-{number}") for number in range(1, 5)] == ["IRSA"] * 4
    assert len(lists(api)) > listed


@requirement("WHK-732")
def test_cache_answers_while_the_api_server_is_away(own_api: tuple[KubeApi, Webhook]) -> None:
    """Attempts come with growing pauses, and reviews are answered from what is known."""
    api, webhook = own_api
    wait_for(webhook, "kept-4", "IRSA")
    before = len(api.requests)

    api.unavailable = True
    api.end_watches()
    wait.until(
        lambda: len(api.requests) - before,
        lambda n: n >= 4,
        what="four attempts to resume",
        timeout=limits.RESUMED,
    )
    times = [request.at for request in api.requests[before : before + 4]]
    during = [webhook.mechanism(f"kept-{number}") for number in range(5)]
    api.unavailable = False
    api.put_service_account("demo", "afterwards", ROLE)
    wait_for(webhook, "afterwards", "IRSA")

    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    check("WHK-732", expected=["IRSA"] * 5, observed=during, what="meanwhile")
    check("WHK-732", expected="growing pauses", observed=pauses, holds=pauses[-1] > pauses[0], what="back-off")


def lists(api: KubeApi) -> list[str]:
    """Return the requests that began a list of ServiceAccounts."""
    return [
        request.path
        for request in api.requests
        if request.path.endswith("/serviceaccounts") and not {"watch", "continue"} & request.query.keys()
    ]
