"""Faults on demand: EKS Auth that fails, waits or hangs up, for the pods that somebody chose."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ConnectionClosedError

from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.subject.aws import CLUSTER, Aws, refused
from harness.subject.bound_cluster import ApiServerDouble

PODS = {"Service": "pods.eks.amazonaws.com"}
READER = {"cluster": CLUSTER, "namespace": "demo", "service_account": "s3-reader"}


@pytest.fixture
def assume(aws: Aws, api: ApiServerDouble, node: str, make_role: Callable[..., str]) -> Callable[[str], dict[str, Any]]:
    """Get credentials for a pod of one of two ServiceAccounts, both associated."""
    del node  # is registered
    role = make_role("reader", PODS)
    for account in ("s3-reader", "other"):
        aws.client("eks").create_pod_identity_association(
            clusterName=CLUSTER, namespace="demo", serviceAccount=account, roleArn=role
        )
    auth = aws.client("eks-auth", aws.node_credentials())

    def call(account: str) -> dict[str, Any]:
        token = api.token(time.time(), "demo", account)
        return auth.assume_role_for_pod_identity(clusterName=CLUSTER, token=token)["subject"]

    return call


@requirement("API-427", "API-428", "API-432")
@pytest.mark.parametrize(
    ("identifier", "code", "status"),
    [
        ("API-427", "ThrottlingException", 429),
        ("API-428", "InternalServerException", 500),
        ("API-428", "ServiceUnavailableException", 503),
        ("API-432", "ExpiredTokenException", 400),
        ("API-432", "ResourceNotFoundException", 404),
    ],
)
def test_an_error_on_demand_hits_the_chosen_pod(
    aws: Aws, assume: Callable[[str], dict[str, Any]], identifier: str, code: str, status: int
) -> None:
    """Only the chosen ServiceAccount's call fails, as often as was asked for, and the journal tells why."""
    aws.control.set_faults({"service": "eks-auth", "code": code, "times": 1, **READER})

    other = assume("other")
    answer = refused(lambda: assume("s3-reader"))
    again = assume("s3-reader")

    check(identifier, what=f"{code}: the answer", expected=(status, code), observed=answer[:2])
    check("API-432", what="the other pod", expected="other", observed=other["serviceAccount"])
    check("API-432", what="the pod afterwards", expected="s3-reader", observed=again["serviceAccount"])
    faults = [entry["fault"] for entry in aws.control.journal() if entry["operation"] == "AssumeRoleForPodIdentity"]
    check("API-432", what="the journal", expected=["", code, ""], observed=faults)


@requirement("API-432")
def test_the_connection_is_dropped_for_the_chosen_pod(aws: Aws, assume: Callable[[str], dict[str, Any]]) -> None:
    """No answer at all, not a refusal."""
    aws.control.set_faults({"drop": True, **READER})

    with pytest.raises(ConnectionClosedError):
        assume("s3-reader")

    check("API-432", what="the other pod", expected="other", observed=assume("other")["serviceAccount"])


@requirement("API-432")
def test_the_chosen_pod_waits(aws: Aws, assume: Callable[[str], dict[str, Any]]) -> None:
    aws.control.set_faults({"delay": 1.5, **READER})

    started = time.monotonic()
    assume("s3-reader")

    check(
        "API-432",
        expected="at least 1.5 s",
        observed=time.monotonic() - started,
        holds=time.monotonic() - started > 1.5,
    )
