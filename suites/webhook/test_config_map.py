"""Section 9.3 of the contract: roles from the ConfigMap ``pod-identity-webhook``."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import limits, wait
from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.subject.kube_api import KubeApi, serve_kube_api
from harness.subject.reviews import Admission, pod
from harness.subject.webhook import Surroundings, Webhook

ARN = "AWS_ROLE_ARN"
NAME = "pod-identity-webhook"
PI_VOLUME, IRSA_VOLUME = "eks-pod-identity-token", "aws-iam-token"


class Configured:
    """A webhook that watches the ConfigMap, with STS and a region switched on, and that ConfigMap."""

    def __init__(self, webhook: Webhook, api: KubeApi, surroundings: Surroundings) -> None:
        self.webhook = webhook
        self.api = api
        self.surroundings = surroundings
        self.count = 0

    def take(self, entries: dict[str, Any]) -> None:
        """Make these the ConfigMap's entries, and return when they count."""
        self.count += 1
        marker = f"arn:aws:iam::111122223333:role/{self.count}"
        self.api.put_config_map("eks", NAME, {"config": json.dumps({**entries, "settling/map": {"RoleARN": marker}})})
        self.wait_for("map", marker, "settling")

    def review(self, account: str, namespace: str = "demo") -> Admission:
        return self.webhook.review(pod(service_account=account), namespace)

    def role(self, account: str, namespace: str = "demo") -> Any:
        return self.review(account, namespace).value(ARN)

    def wait_for(self, account: str, role: str | None, namespace: str = "demo") -> None:
        wait.until(
            lambda: self.webhook.admit(pod(service_account=account), namespace).value(ARN),
            lambda observed: observed == role,
            what=f"a pod of {namespace}/{account} to get role {role}",
            timeout=limits.SUBJECT_ACTS,
        )


@pytest.fixture(scope="module")
def configured(surroundings: Surroundings, kube_api: KubeApi) -> Iterator[Configured]:
    file = surroundings.directory / "identities.json"
    flags = ("--watch-config-map", "--sts-regional-endpoint=true", "--token-expiration=7200")
    with surroundings.webhook(f"--watch-container-credentials-config={file}", *flags) as webhook:
        surroundings.settle(webhook)
        yield Configured(webhook, kube_api, surroundings)


def role(name: str) -> dict[str, Any]:
    return {"RoleARN": f"arn:aws:iam::111122223333:role/{name}"}


@requirement("WHK-723")
def test_order_of_the_sources_of_a_role(configured: Configured) -> None:
    """The account's own role, then the entry of namespace and name, then that of `*` and name, then none."""
    entries = {"demo/ordered": role("exact"), "*/ordered": role("wild")}
    configured.surroundings.annotate(configured.webhook, "ordered", {"eks.amazonaws.com/role-arn": "arn:own"})

    observed: list[Any] = []
    configured.take(entries)
    observed.append(configured.role("ordered"))
    configured.surroundings.annotate(configured.webhook, "ordered", {"eks.amazonaws.com/role-arn": ""})
    observed.append(configured.role("ordered"))
    configured.take({"*/ordered": role("wild")})
    observed.append(configured.role("ordered"))
    configured.take({})
    observed.append(configured.role("ordered"))

    assert observed == [
        "arn:own",
        "arn:aws:iam::111122223333:role/exact",
        "arn:aws:iam::111122223333:role/wild",
        None,
    ]


@requirement("WHK-724")
def test_settings_for_pod_identity(configured: Configured) -> None:
    """STS and expiration come from the cached account, annotated or not, else from the exact entry, never from `*`."""
    entry = role("x") | {"UseRegionalSTS": False, "TokenExpiration": 7005}

    configured.take({"demo/uncached": entry, "demo/s3-reader": entry})
    uncached, cached = configured.review("uncached"), configured.review("s3-reader")
    configured.take({"*/uncached": entry})
    wild = configured.review("uncached")

    observed = [admission.token(PI_VOLUME).get("expirationSeconds") for admission in (uncached, cached, wild)]
    check("WHK-724", expected=7005, observed=observed[0], what="exact entry")
    check("WHK-724", expected=7200, observed=observed[1], what="cached account without annotations")
    # What an account in neither cache gets is not defined (WHK-725), but it is not what `*` says.
    check("WHK-724", expected="not 7005", observed=observed[2], holds=observed[2] != 7005, what="`*` entry")
    check("WHK-724", expected=False, observed="AWS_STS_REGIONAL_ENDPOINTS" in uncached.names(), what="STS")
    check("WHK-724", expected=True, observed="AWS_STS_REGIONAL_ENDPOINTS" in cached.names(), what="STS of the flag")


@requirement("WHK-741")
def test_listed_account_gets_irsa(configured: Configured) -> None:
    """No annotation is needed, nor is the account."""
    configured.take({"demo/plain": role("plain"), "demo/never-seen": role("never-seen")})

    assert configured.role("plain") == "arn:aws:iam::111122223333:role/plain"
    assert configured.role("never-seen") == "arn:aws:iam::111122223333:role/never-seen"
    assert configured.review("plain").mounted() == [IRSA_VOLUME]


@requirement("WHK-742")
def test_asterisk_is_the_only_wildcard(configured: Configured) -> None:
    """`*` stands for all namespaces without an exact entry, and nothing else is a pattern."""
    entries = {"*/wild": role("wild"), "demo/wild": role("exact"), "te*/part": role("part"), "demo/*": role("any")}
    configured.take(entries)

    observed = [
        configured.role("wild", "anywhere"),
        configured.role("wild"),
        configured.role("part", "test"),
        configured.role("other"),
    ]

    assert observed == ["arn:aws:iam::111122223333:role/wild", "arn:aws:iam::111122223333:role/exact", None, None]


@requirement("WHK-743")
def test_defaults_of_an_entry(configured: Configured) -> None:
    """No expiration is the flag's, others are not raised; no audience is none; no STS is off whatever the flag says."""
    full = {"Audience": "own", "UseRegionalSTS": True, "TokenExpiration": 30}
    configured.take({"demo/bare": role("bare"), "demo/full": role("full") | full})

    bare, complete = configured.review("bare"), configured.review("full")

    assert bare.token(IRSA_VOLUME) == {"expirationSeconds": 7200, "path": "token"}
    assert complete.token(IRSA_VOLUME) == {"audience": "own", "expirationSeconds": 30, "path": "token"}
    assert "AWS_STS_REGIONAL_ENDPOINTS" not in bare.names()
    assert complete.value("AWS_STS_REGIONAL_ENDPOINTS") == "regional"


@requirement("WHK-744")
def test_update_replaces_all_entries_or_none(configured: Configured) -> None:
    """Invalid JSON changes nothing; an entry that is left out of an update is gone."""
    configured.take({"demo/kept": role("kept"), "demo/dropped": role("dropped")})
    configured.take({"demo/kept": role("kept")})
    dropped = configured.role("dropped")

    before = len(configured.webhook.log)
    configured.api.put_config_map("eks", NAME, {"config": '{"demo/kept": '})
    # A line in the log shows that it was read; a webhook that says nothing has had a second.
    with contextlib.suppress(wait.Timeout):
        wait.until(lambda: len(configured.webhook.log) > before, what="a line in the log", timeout=limits.LOG_LINE)
    during = configured.role("kept")
    configured.take({"demo/new": role("new")})

    assert dropped is None
    assert during == "arn:aws:iam::111122223333:role/kept"
    assert configured.role("new") == "arn:aws:iam::111122223333:role/new"


@requirement("WHK-745")
@pytest.mark.parametrize(
    "entry", [{"no-slash": {}}, {"demo/null": None}, {"a/b/c": {}}, {"demo/text": "x"}], ids=lambda e: next(iter(e))
)
def test_bad_entry_is_skipped(configured: Configured, entry: dict[str, Any]) -> None:
    """It is named in the log, and the others count."""
    configured.take({**entry, "demo/good": role("good")})

    assert configured.role("good") == "arn:aws:iam::111122223333:role/good"
    configured.webhook.wait_for_log(next(iter(entry)))


@requirement("WHK-745")
def test_deletion_drops_all_entries(configured: Configured) -> None:
    """Without the ConfigMap there is no entry."""
    configured.take({"demo/deleted": role("deleted")})

    configured.api.delete("configmaps", "eks", NAME)

    configured.wait_for("deleted", None)


@requirement("WHK-746")
def test_forbidden_config_map(surroundings: Surroundings, tmp_path: Path) -> None:
    """It is said once and serving goes on; entries count as soon as it may be read."""
    with serve_kube_api() as api:
        api.forbidden.add("configmaps")
        api.put_service_account("demo", "with-role", {"eks.amazonaws.com/role-arn": "arn:own"})
        api.put_config_map("eks", NAME, {"config": json.dumps({"demo/listed": role("listed")})})
        own = surroundings.flags(kubeconfig=api.write_kubeconfig(tmp_path / "kubeconfig"))
        with surroundings.webhook("--watch-config-map", own=own) as webhook:
            configured = Configured(webhook, api, surroundings)
            tries = "/api/v1/namespaces/eks/configmaps"
            wait.until(
                lambda: sum(request.path == tries for request in api.requests),
                lambda count: count >= 3,
                what="three attempts at the ConfigMap",
                timeout=limits.SUBJECT_ACTS,
            )
            configured.wait_for("with-role", "arn:own")
            ready = webhook.get("/readyz").status
            said = [line for line in webhook.log.splitlines() if re.search("configmaps.*(403|forbidden)", line)]
            api.forbidden.clear()
            configured.wait_for("listed", "arn:aws:iam::111122223333:role/listed")

    check("WHK-746", expected=1, observed=len(said), what="lines in the log")
    check("WHK-746", expected=200, observed=ready, what="readiness")
