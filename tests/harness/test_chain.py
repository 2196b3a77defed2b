"""One credential, hop by hop: what belongs together is found by what it carries, and opens in a real browser."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from conformance_runs import make_run
from test_page_in_browser import browse, chromium  # noqa: F401 - a fixture

from harness.conformance.record import Run
from harness.conformance.reports import html, write_reports
from harness.conformance.reports._chain import chain_of

SESSION = "arn:aws:sts::123456789012:assumed-role/reader/eks-lab-s3-test-1"
OTHER = "arn:aws:sts::123456789012:assumed-role/reader/eks-lab-other-2"


def assume_role(uid: str, session: str, key: str) -> dict[str, Any]:
    tags = {"kubernetes-namespace": "demo", "kubernetes-pod-name": "s3-test", "kubernetes-pod-uid": uid}
    parameters = {"roleArn": "arn:aws:iam::123456789012:role/reader"}
    return {
        "eventName": "AssumeRole",
        "eventTime": "2026-11-26T06:13:31Z",
        "requestParameters": parameters | {"tags": [{"key": k, "value": v} for k, v in tags.items()]},
        "responseElements": {"credentials": {"accessKeyId": key}, "assumedRoleUser": {"arn": session}},
    }


def call(operation: str, at: str, principal: str, service: str = "s3", **members: Any) -> dict[str, Any]:
    return {"service": service, "operation": operation, "at": at, "principal": principal, "status": 200} | members


NODE = "arn:aws:sts::123456789012:assumed-role/node-role/i-1"
EVIDENCE: list[tuple[str, Any]] = [
    ("admission", {"uid": "u-1", "variables": [{}] * 5}),
    (
        "token",
        {"aud": ["pods.eks.amazonaws.com"], "sub": "system:serviceaccount:demo:s3", "kubernetes.io": {"pod": {}}},
    ),
    (
        "token",
        {
            "aud": ["pods.eks.amazonaws.com"],
            "sub": "system:serviceaccount:demo:s3-reader",
            "kubernetes.io": {"pod": {"uid": "u-1"}},
        },
    ),
    ("http", {"response": '200\n\n{"AccessKeyId":"ASIA…IKC5"}'}),
    (
        "aws-calls",
        [
            call("AssumeRoleForPodIdentity", "2026-11-26T06:10:00.000+00:00", NODE, "eks-auth"),
            call("AssumeRoleForPodIdentity", "2026-11-26T06:13:31.021+00:00", NODE, "eks-auth"),
            call("GetCallerIdentity", "2026-11-26T06:13:32.000+00:00", SESSION, "sts", decisions=[]),
            call(
                "GetObject",
                "2026-11-26T06:13:35.247+00:00",
                SESSION,
                decisions=[{"allowed": True, "policy": "arn:aws:iam::123456789012:policy/read"}],
            ),
        ],
    ),
    ("cloudtrail", [assume_role("u-2", OTHER, "ASIA…XXXX"), assume_role("u-1", SESSION, "ASIA…IKC5")]),
]


def run_of(evidence: list[tuple[str, Any]]) -> Run:
    seen = [{"kind": kind, "title": kind, "content": content} for kind, content in evidence]
    return make_run({"API-1": "passed"}, evidence=seen)


def test_hops_are_found_by_what_they_carry() -> None:
    chain = chain_of(run_of(EVIDENCE))

    assert chain is not None
    assert (chain.pod, chain.session) == ("demo/s3-test", SESSION)
    assert [(hop.sender, hop.receiver, hop.what, hop.detail, hop.anchor) for hop in chain.hops] == [
        ("kube-apiserver", "webhook", "admission review", "5 variables and a token volume", "evidence-0-0"),
        ("kubelet", "pod", "token for pods.eks.amazonaws.com", "demo:s3-reader", "evidence-0-2"),
        ("pod", "agent", "GET /v1/credentials", "200, key ASIA…IKC5", "evidence-0-3"),
        ("agent", "EKS Auth", "AssumeRoleForPodIdentity", "200, signed by node-role/i-1", "evidence-0-4"),
        ("EKS Auth", "STS", "AssumeRole reader", "3 session tags", "evidence-0-5"),
        ("pod", "S3", "GetObject", "200, allowed by read", "evidence-0-4"),
    ]


def test_a_hop_without_evidence_is_shown_as_missing() -> None:
    chain = chain_of(run_of(EVIDENCE[-1:]))

    assert chain is not None
    assert [hop.receiver for hop in chain.hops if not hop.anchor] == [
        "webhook",
        "pod",
        "agent",
        "EKS Auth",
        "a service",
    ]
    page = html.render(run_of(EVIDENCE[-1:]))
    assert page.count("not among this run") == 5


@pytest.mark.parametrize("odd", ["text", None, 5, [["x"]], {"eventName": "AssumeRole", "requestParameters": "?"}])
def test_evidence_of_any_shape_does_no_harm(odd: Any) -> None:
    assert chain_of(run_of([("cloudtrail", odd), ("aws-calls", odd), ("token", odd)])) is None


def test_a_hop_opens_its_evidence(chromium: list[str], tmp_path: Path) -> None:  # noqa: F811
    write_reports(tmp_path, run_of(EVIDENCE))
    page = (tmp_path / "index.html").as_uri()

    document = browse(chromium, "--dump-dom", f"{page}#evidence-0-3")

    assert '<a class="hop" href="#evidence-0-3">' in document
    assert re.findall(r'<details class="row [^"]*" id="([^"]+)"[^>]* open="">', document) == ["API-1"]
    assert re.search(r'<details class="evidence" id="evidence-0-3" open="">', document)
