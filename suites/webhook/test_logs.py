"""Section 10.5 of the contract: what the log says of reviews, and what it never says."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator

import pytest

from harness import limits, wait
from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.subject.reviews import pod
from harness.subject.webhook import Surroundings, Webhook


@pytest.fixture(scope="module")
def talkative(surroundings: Surroundings) -> Iterator[Webhook]:
    """A webhook that logs as much as it can, and knows a token and a key that it must keep to itself."""
    file = surroundings.directory / "identities.json"
    kubeconfig = surroundings.api.write_kubeconfig(surroundings.directory / "kubeconfig-canary", token="canary-token")
    own = surroundings.flags(kubeconfig=kubeconfig)
    flags = ("-v=9", "--service-account-lookup-grace-period=300ms")
    with surroundings.webhook(f"--watch-container-credentials-config={file}", *flags, own=own) as webhook:
        surroundings.settle(webhook)
        yield webhook


@requirement("WHK-871")
def test_contents_of_pods_stay_out(talkative: Webhook, surroundings: Surroundings) -> None:
    """Variables, fields and bodies, good and broken, are in no log line, metric or message; nor are token and key."""
    canary = f"canary-{secrets.token_hex(8)}"
    env = [{"name": "PASSWORD", "value": canary}]
    good = pod({"name": "app", "env": env, "args": [canary]}, metadata={"labels": {"a": canary}}, hostname=canary)
    own = pod({"name": "app", "env": [{"name": "AWS_ROLE_ARN", "value": canary}]}, service_account="with-role")
    wrong = pod({"name": "app", "image": [canary]}, metadata={"labels": {canary: 1}})

    messages = [
        json.dumps(talkative.review(good).response.get("status")),
        json.dumps(talkative.review(own).response.get("status")),
        json.dumps(talkative.review(wrong).response),
        json.dumps(talkative.review(canary).response),
        talkative.post(f'{{"{canary}": "{canary}'.encode()).text,
        talkative.post(f'{{"request": {{"uid": "u-1", "object": "{canary}"}}}}'.encode()).text,
        talkative.post(canary.encode(), "text/plain").text,
    ]
    talkative.review(pod(service_account="last-of-all"))
    talkative.wait_for_log("last-of-all")

    key = surroundings.certificates.key.read_text().splitlines()[1]
    check("WHK-871", expected="no canary", observed=messages, holds=canary not in "".join(messages), what="messages")
    check("WHK-871", expected=[], observed=lines_with(talkative, canary), what="log")
    check("WHK-871", expected=[], observed=lines_with(talkative, "canary-token"), what="API token in the log")
    check("WHK-871", expected=[], observed=lines_with(talkative, key), what="key in the log")
    check("WHK-871", expected=False, observed=canary in talkative.get_plain("/metrics").text, what="metrics")


def lines_with(webhook: Webhook, text: str) -> list[str]:
    return [line for line in webhook.log.splitlines() if text in line]


@requirement("WHK-872")
@pytest.mark.parametrize(
    ("account", "outcome"),
    [
        ("s3-reader", ["mutated", "container_credentials"]),
        ("with-role", ["mutated", "sts_web_identity"]),
        ("plain", ["no configuration"]),
        ("never-comes", ["timed out"]),
    ],
)
def test_one_line_for_each_review(talkative: Webhook, account: str, outcome: list[str]) -> None:
    """It names pod, namespace and ServiceAccount, and what became of the pod."""
    name = f"web-{secrets.token_hex(4)}"

    talkative.review(pod(service_account=account, metadata={"name": name}))

    line = the_line_about(talkative, name)
    assert [word for word in ("demo", account, *outcome) if word not in line] == []


@requirement("WHK-872")
def test_line_of_a_complete_pod(talkative: Webhook) -> None:
    """A pod that needs no change is said to be complete."""
    complete = talkative.review(pod()).pod
    complete["metadata"] = complete.get("metadata", {}) | {"name": f"web-{secrets.token_hex(4)}"}

    talkative.review(complete)

    assert "already complete" in the_line_about(talkative, complete["metadata"]["name"])


@requirement("WHK-872")
def test_line_of_a_pod_of_a_controller(eks: Webhook) -> None:
    """A pod without a name is named by its generateName; the line is there at the default verbosity."""
    name = f"web-{secrets.token_hex(4)}-"
    sent = pod()
    sent["metadata"] = {"generateName": name}

    eks.review(sent)

    assert "s3-reader" in the_line_about(eks, name)


def the_line_about(webhook: Webhook, name: str) -> str:
    """Return the one line that names a pod."""
    found = wait.until(lambda: lines_with(webhook, name), what=f"a line about {name}", timeout=limits.SUBJECT_ACTS)
    assert len(found) == 1
    return found[0]
