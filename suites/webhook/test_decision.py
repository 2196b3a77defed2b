"""Section 4 of the contract: which mechanism a pod gets."""

from __future__ import annotations

from typing import Any

import pytest

from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.subject.reviews import pod
from harness.subject.webhook import Webhook

PI_PAIR = ["AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"]
IRSA_PAIR = ["AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE"]
FIXED = {"annotations": {"eks.amazonaws.com/token-expiration": "7000"}}


@requirement("WHK-201", "WHK-203")
def test_association_comes_before_role(plain: Webhook) -> None:
    """A pod whose account has an association and a role gets Pod Identity and nothing of IRSA."""
    admission = plain.review(pod(service_account="both"))

    check("WHK-201", expected=PI_PAIR[0], observed=next(iter(admission.names()), None), what="first variable")
    check("WHK-201", expected=["eks-pod-identity-token"], observed=admission.volume_names, what="volumes")
    check("WHK-203", expected="only one pair", observed=admission.names(), holds=is_one_pair(admission.names()))


@requirement("WHK-202", "WHK-203")
@pytest.mark.parametrize(
    ("account", "mechanism"),
    [("s3-reader", "Pod Identity"), ("with-role", "IRSA"), ("plain", "none"), ("never-seen", "none")],
)
def test_role_then_nothing(plain: Webhook, account: str, mechanism: str) -> None:
    """Without an association a role makes it IRSA, and without both the pod is left alone."""
    admission = plain.review(pod(service_account=account))

    check("WHK-202", expected=mechanism, observed=admission.mechanism())
    check("WHK-202", expected=mechanism == "none", observed=admission.patch == [], what="no patch")
    check(
        "WHK-203",
        expected="at most one pair",
        observed=admission.names(),
        holds=not admission.names() or is_one_pair(admission.names()),
    )


def is_one_pair(names: list[Any]) -> bool:
    return (set(PI_PAIR) <= set(names)) != (set(IRSA_PAIR) <= set(names))


@requirement("WHK-204")
@pytest.mark.parametrize("account", ["s3-reader", "with-role"])
def test_own_variables_stay(eks: Webhook, account: str) -> None:
    """What a container has stays first, in its order, with its values; also a pair of the other mechanism."""
    others = IRSA_PAIR if account == "s3-reader" else PI_PAIR
    own = [
        {"name": "ZEBRA", "value": "z"},
        {"name": others[1], "value": "own token"},
        {"name": "AWS_REGION", "value": "paris"},
        {"name": others[0], "value": "own source"},
        {"name": "ALPACA", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
    ]

    env = eks.review(pod({"name": "app", "env": own}, service_account=account)).env()

    assert env[: len(own)] == own


@requirement("WHK-204")
def test_pair_of_the_other_mechanism_does_not_keep_ours_away(plain: Webhook) -> None:
    """A pod with a role of its own gets Pod Identity's pair as well."""
    own = {"name": "AWS_ROLE_ARN", "value": "own"}

    assert plain.review(pod({"name": "app", "env": [own]})).names() == ["AWS_ROLE_ARN", *PI_PAIR]


@requirement("WHK-205")
@pytest.mark.parametrize(
    ("namespace", "account"),
    [
        ("Demo", "s3-reader"),
        ("demo", "S3-Reader"),
        ("demo", "s3-reade"),
        ("demo", "s3-reader-2"),
        ("dem", "s3-reader"),
        ("demo ", "s3-reader"),
        ("other", "s3-reader"),
        ("other", "any-namespace"),
        ("demo", "any-account"),
    ],
)
def test_association_is_matched_exactly(eks: Webhook, namespace: str, account: str) -> None:
    """Another case, a part of a name, another namespace and what looks like a wildcard do not match."""
    assert eks.review(pod(service_account=account), namespace).mechanism() == "none"


@requirement("WHK-205")
@pytest.mark.parametrize(("namespace", "account"), [("*", "any-namespace"), ("demo", "*"), ("demo", "s3-reader")])
def test_asterisk_is_a_name(eks: Webhook, namespace: str, account: str) -> None:
    """The names that are listed match themselves."""
    assert eks.review(pod(service_account=account), namespace).mechanism() == "Pod Identity"


@requirement("WHK-208")
def test_no_namespace_is_spared(eks: Webhook) -> None:
    """A pod in kube-system is mutated like any other."""
    assert eks.review(pod(), "kube-system").mechanism() == "Pod Identity"


@requirement("WHK-209")
@pytest.mark.parametrize("account", ["s3-reader", "with-role"])
@pytest.mark.parametrize(
    "spec",
    [
        {"hostNetwork": True},
        {"nodeName": "fargate-ip-10-0-0-1.eu-west-1.compute.internal"},
        {"schedulerName": "fargate-scheduler"},
        {"tolerations": [{"operator": "Exists"}]},
        {"affinity": {"nodeAffinity": {}}},
        {"runtimeClassName": "gvisor"},
        {"restartPolicy": "Never"},
        {"automountServiceAccountToken": False},
        {"os": {"name": "windows"}},
    ],
    ids=lambda spec: next(iter(spec)),
)
def test_where_and_how_a_pod_runs_has_no_influence(eks: Webhook, spec: dict[str, Any], account: str) -> None:
    """Network, node, scheduler, tolerations and the like make no difference to the patch."""
    expected = eks.review(pod(service_account=account, metadata=FIXED)).patch

    assert expected
    assert eks.review(pod(service_account=account, metadata=FIXED, **spec)).patch == expected


@requirement("WHK-209")
def test_owner_has_no_influence(eks: Webhook) -> None:
    """A pod of a controller is mutated like a bare one."""
    owner = {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "1", "controller": True}
    expected = eks.review(pod(metadata=FIXED)).patch

    assert expected
    assert eks.review(pod(metadata=FIXED | {"ownerReferences": [owner]})).patch == expected
