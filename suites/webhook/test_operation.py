"""Section 10.3 of the contract: probes, metrics, debugging, shutdown; and that replicas agree."""

from __future__ import annotations

import signal
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from harness import limits, wait
from harness.conformance.ceilings import Ceilings
from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.limits import Limit
from harness.subject.kube_api import KubeApi, serve_kube_api
from harness.subject.reviews import pod
from harness.subject.webhook import ServingFiles, Surroundings, Webhook, identities

REFUSING = Limit("REFUSING", 1.5)
"""Half a second less than the review that is waiting needs."""
ROLE = {"eks.amazonaws.com/role-arn": "arn:aws:iam::111122223333:role/first"}


@requirement("WHK-841")
def test_healthz(eks: Webhook) -> None:
    """The process says ok as long as it serves."""
    reply = eks.get("/healthz")

    assert (reply.status, reply.text) == (200, "ok")


@pytest.fixture(scope="module")
def unready(surroundings: Surroundings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[KubeApi, Webhook]]:
    """A webhook that may not list ServiceAccounts yet."""
    directory = tmp_path_factory.mktemp("unready")
    file = directory / "identities.json"
    file.write_text(identities("demo/s3-reader"))
    with serve_kube_api() as api:
        api.forbidden.add("serviceaccounts")
        api.put_service_account("demo", "with-role", ROLE)
        own = surroundings.flags(kubeconfig=api.write_kubeconfig(directory / "kubeconfig"))
        with surroundings.webhook(f"--watch-container-credentials-config={file}", own=own) as webhook:
            yield api, webhook


# The order of the next two matters: readiness does not go away again.
@requirement("WHK-841", "WHK-848")
def test_healthz_without_an_api_server(unready: tuple[KubeApi, Webhook]) -> None:
    """Health does not depend on the API server; without an account the webhook counts as unused."""
    _, webhook = unready

    reply = webhook.get("/healthz")

    check("WHK-841", expected=(200, "ok"), observed=(reply.status, reply.text))
    check("WHK-848", expected=0.0, observed=webhook.metric("pod_identity_webhook_used") or 0.0)


@requirement("WHK-842")
def test_readyz(unready: tuple[KubeApi, Webhook]) -> None:
    """It is 503 with the reason until all ServiceAccounts are listed, and then 200."""
    api, webhook = unready
    wait.until(lambda: len(api.requests), what="an attempt to list ServiceAccounts", timeout=limits.SUBJECT_ACTS)

    before = webhook.get("/readyz")
    api.forbidden.clear()
    after = wait.until(
        lambda: webhook.get("/readyz").status,
        lambda status: status == 200,
        what="/readyz to be 200",
        timeout=limits.SUBJECT_ACTS,
    )

    said = "account" in before.text.lower()
    check("WHK-842", expected=503, observed=before.status, what="before")
    check("WHK-842", expected="names service accounts", observed=before.text, holds=said, what="reason")
    check("WHK-842", expected=(200, "IRSA"), observed=(after, webhook.mechanism("with-role")), what="after")


@requirement("WHK-842")
def test_expired_certificate_is_not_ready(surroundings: Surroundings, tmp_path: Path) -> None:
    """A webhook whose certificate has expired says that it is not ready, and why."""
    pair = surroundings.authority.issue("webhook", names=["localhost"], serving=True, lifetime=timedelta(minutes=-1))
    flags = surroundings.flags(certificates=ServingFiles(tmp_path).write(pair))
    unchecked = ssl.create_default_context()
    unchecked.check_hostname = False
    unchecked.verify_mode = ssl.CERT_NONE

    with surroundings.webhook(own=flags) as webhook:
        webhook.tls = unchecked
        reply = webhook.get("/readyz")

    assert reply.status == 503
    assert "certificate" in reply.text


@requirement("WHK-843")
def test_metrics_are_prometheus_text(eks: Webhook) -> None:
    """The metrics port speaks plain HTTP and Prometheus' text format."""
    reply = eks.get_plain("/metrics")

    assert reply.status == 200
    assert reply.headers.get("content-type", "").startswith("text/plain")
    assert "# TYPE http_request_latencies histogram" in reply.text.splitlines()


@requirement("WHK-844")
def test_requests_to_mutate_are_counted(eks: Webhook) -> None:
    """By verb, path and code; other paths are not counted."""

    def counts() -> list[float]:
        codes = ("200", "415")
        return [eks.metric("http_request_count", verb="POST", path="/mutate", code=code) or 0.0 for code in codes]

    ok, refused = counts()
    all_before = total(eks)
    eks.post(b"", "text/plain")
    eks.review(pod())
    eks.review(pod(service_account="plain"))
    eks.get("/healthz")
    eks.get("/no-such-path")

    assert counts() == [ok + 2, refused + 1]
    assert total(eks) == all_before + 3


def total(webhook: Webhook) -> float:
    return sum(sample.value for sample in webhook.scrape() if sample.name == "http_request_count")


@requirement("WHK-845")
def test_latencies_in_microseconds(eks: Webhook) -> None:
    """A histogram with upstream's buckets, and a summary."""
    eks.review(pod())

    samples = eks.scrape()
    buckets = [float(s.labels["le"]) for s in samples if s.name == "http_request_latencies_bucket" and "le" in s.labels]
    expected = [125e3, 25e4, 5e5, 1e6, 2e6, 4e6, 8e6, float("inf")]

    check("WHK-845", expected=expected, observed=buckets, what="buckets")
    labels = {"verb": "POST", "path": "/mutate"}
    for name in ("http_request_latencies", "http_request_duration_microseconds"):
        count, seconds = eks.metric(f"{name}_count", **labels) or 0, (eks.metric(f"{name}_sum", **labels) or 0) / 1e6
        mean = seconds / count if count else 0
        check("WHK-845", expected="10 µs to 5 s a request", observed=mean, holds=1e-5 < mean < 5, what=name)


@requirement("WHK-846")
def test_pods_are_counted_under_their_method(eks: Webhook) -> None:
    """Every review with a configuration counts, also one that changes nothing, or whose account no cache knows."""

    def counts() -> list[float]:
        methods = ("container_credentials", "sts_web_identity")
        return [eks.metric("pod_identity_webhook_pod_count", method=method) or 0.0 for method in methods]

    before = counts()
    complete = eks.review(pod()).pod
    eks.review(complete)
    eks.review(pod(service_account="uncached"))
    eks.review(pod(service_account="with-role"))
    eks.review(pod(service_account="plain"))
    risen = [after - start for start, after in zip(before, counts(), strict=True)]

    check("WHK-846", expected=[3.0, 1.0], observed=risen)


@requirement("WHK-847")
def test_accounts_that_no_cache_knows_are_counted_as_missing(eks: Webhook) -> None:
    """Neither one with an association nor one without a role is missing."""
    before = eks.metric("pod_identity_webhook_missing_sa_count") or 0.0
    for account in ("uncached", "plain", "never-seen"):
        eks.review(pod(service_account=account))
    after = eks.metric("pod_identity_webhook_missing_sa_count") or 0.0

    check("WHK-847", expected=1.0, observed=after - before)


@requirement("WHK-848")
def test_used(eks: Webhook) -> None:
    """The gauge is 1 once any account was cached."""
    assert eks.metric("pod_identity_webhook_used") == 1.0


@requirement("WHK-849")
def test_state_of_sources_and_certificate(eks: Webhook) -> None:
    """Identities, their last load, the certificate's expiry, the caches' state and failed reviews can be scraped."""
    eks.post(b"{")
    samples = eks.scrape()

    def values(*words: str) -> list[float]:
        return [s.value for s in samples if all(word in f"{s.name} {s.labels}".lower() for word in words)]

    day = 86400
    year = time.time() + 365 * day
    check("WHK-849", expected="8 identities", observed=values("identities"), holds=8.0 in values("identities"))
    loaded = [value for value in values("identities", "load") if time.time() - day < value <= time.time()]
    check("WHK-849", expected="time of the last load", observed=loaded, holds=bool(loaded))
    check("WHK-849", expected="success of the last load", observed=values("load"), holds=1.0 in values("load"))
    expiry = values("certificate", "expir")
    check("WHK-849", expected=year, observed=expiry, holds=any(abs(value - year) < 2 * day for value in expiry))
    check("WHK-849", expected="accounts in sync", observed=values("sync"), holds=1.0 in values("sync"))
    check("WHK-849", expected="failed reviews", observed=values("fail"), holds=any(values("fail")))


@requirement("WHK-850")
def test_debugging_is_off(eks: Webhook) -> None:
    """Without the flag the debug paths do not exist."""
    paths = ("/debug/alpha/deny", "/debug/alpha/500", "/debug/alpha/cache", "/debug/alpha/cache/clear")

    assert {eks.get(path).status for path in paths} == {404}
    assert {eks.get_plain(path).status for path in paths} == {404}


@requirement("WHK-850")
def test_debugging(surroundings: Surroundings) -> None:
    """With the flag the cache can be read and cleared, a denial and a failure be had."""
    with surroundings.webhook("--enable-debugging-handlers") as webhook:
        surroundings.settle(webhook)
        denial = webhook.get("/debug/alpha/deny").response
        failure = webhook.get("/debug/alpha/500").status
        cache = webhook.get_plain("/debug/alpha/cache").text
        before = webhook.mechanism("with-role")
        webhook.get_plain("/debug/alpha/cache/clear")
        after = webhook.mechanism("with-role")

    assert (denial.get("allowed"), denial.get("status", {}).get("message")) == (False, "Test deny message")
    assert failure == 500
    assert "arn:aws:iam::111122223333:role/s3-reader" in cache
    assert (before, after) == ("IRSA", "none")


@requirement("WHK-851")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_shutdown_finishes_running_reviews(
    surroundings: Surroundings, kube_api: KubeApi, number: signal.Signals
) -> None:
    """A review that runs is answered, new connections are refused, and the exit code is 0."""
    account = f"slow-{number.name.lower()}"
    with surroundings.webhook("--service-account-lookup-grace-period=2s") as webhook:
        surroundings.settle(webhook)
        with ThreadPoolExecutor(1) as thread:
            review = thread.submit(webhook.admit, pod(service_account=account))
            # The read of the account shows that the review was accepted and waits.
            wait.until(
                lambda: kube_api.gets_of("demo", account), what=f"a read of demo/{account}", timeout=limits.SUBJECT_ACTS
            )
            webhook.signal(number)
            refused = wait.until(lambda: is_refused(webhook), what="connections to be refused", timeout=REFUSING)
            answered_before = review.done()
            response = review.result().response
        exit_code = webhook.wait_for_end()

    assert refused
    assert not answered_before
    assert response.get("allowed") is True
    assert exit_code == 0


def is_refused(webhook: Webhook) -> bool:
    try:
        webhook.socket().close()
    except OSError:
        return True
    return False


@requirement("WHK-851")
def test_shutdown_does_not_wait_for_idle_connections(surroundings: Surroundings) -> None:
    """A connection that is kept open without a review does not hold up the end."""
    with surroundings.webhook() as webhook:
        webhook.get("/healthz")
        with webhook.socket():
            started = time.monotonic()
            webhook.signal(signal.SIGTERM)
            exit_code = webhook.wait_for_end()

    assert exit_code == 0
    assert time.monotonic() - started < 10


@requirement("WHK-877")
def test_replicas_agree(eks: Webhook, surroundings: Surroundings) -> None:
    """Two webhooks with the same flags give the same answer."""
    file = surroundings.directory / "identities.json"
    fixed = {"annotations": {"eks.amazonaws.com/token-expiration": "7000"}}
    pods = [pod(service_account=account, metadata=fixed) for account in ("s3-reader", "with-role", "both", "plain")]
    flags = ("--aws-default-region=eu-west-1", "--sts-regional-endpoint=true")

    with surroundings.webhook(f"--watch-container-credentials-config={file}", *flags) as replica:
        surroundings.settle(replica)
        answers = [replica.review(one).answer for one in pods]

    assert answers == [eks.review(one).answer for one in pods]


@requirement("RES-WEBHOOK-IDLE")
def test_idle_webhook_is_small(surroundings: Surroundings, kube_api: KubeApi, ceilings: Ceilings) -> None:
    """As it is once it has mutated its first pod."""
    kube_api.put_service_account("demo", "small", ROLE)
    with surroundings.webhook() as webhook:
        surroundings.settle(webhook)
        assert webhook.mechanism("small") == "IRSA"
        ceilings.hold("RES-WEBHOOK-IDLE", webhook.resident_mib)
