"""Section 12 of the contract: whole pods before and after, from ``fixtures/webhook/*.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.subject.reviews import Object, normalized
from harness.subject.webhook import Surroundings, Webhook

FIXTURES = Path(__file__).parents[2] / "fixtures/webhook"
SPREAD = "79200 to 86400"


def cases(file: str, account: str) -> list[Any]:
    """Return the cases of a file; their pods are of this ServiceAccount."""
    found = yaml.safe_load((FIXTURES / file).read_text())["cases"]
    return [pytest.param(case, account, id=f"{file.removesuffix('.yaml')}: {case['name']}") for case in found]


@requirement("WHK-512", "WHK-513")
@pytest.mark.parametrize(
    ("case", "account"), [*cases("pod-identity.yaml", "annotated"), *cases("irsa.yaml", "annotated-role")]
)
def test_pod_before_and_after(
    case: Object, account: str, eks: Webhook, plain: Webhook, surroundings: Surroundings
) -> None:
    """The patch applies to the pod as it was sent, and makes of it precisely the pod that is expected."""
    webhook = {"eks": eks, "plain": plain}[case["webhook"]]
    annotations = {f"eks.amazonaws.com/{key}": value for key, value in case.get("annotations", {}).items()}
    surroundings.annotate(webhook, account, annotations)
    for one in (case["pod"], case["expected"]):
        one["spec"]["serviceAccountName"] = account
        one.setdefault("metadata", {})

    admission = webhook.review(case["pod"])

    observed = normalized(admission.pod)
    check("WHK-513", expected="a patch that applies", observed=admission.paths, holds=bool(admission.patch))
    check("WHK-512", expected=normalized(case["expected"]), observed=without_spread(observed))


def without_spread(value: Any) -> Any:
    """Return a pod with the expiration in words where it lies in Pod Identity's two hours."""
    if isinstance(value, list):
        return [without_spread(item) for item in value]
    if not isinstance(value, dict):
        return value
    spread = value.get("audience") == "pods.eks.amazonaws.com" and 79200 <= value.get("expirationSeconds", 0) <= 86400
    replaced = {"expirationSeconds": SPREAD} if spread else {}
    return {key: without_spread(item) for key, item in value.items()} | replaced
