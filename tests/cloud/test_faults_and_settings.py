"""What a lab is told about its AWS must not be misunderstood."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from harness.cloud.faults import Fault, Faults, Target
from harness.cloud.localstack.emulator import Settings


@pytest.mark.parametrize("text", ["much", "-", ""])
@pytest.mark.parametrize(
    "name", ["IAM_DELAY", "LOOKUPS_PER_SECOND", "POLICY_ARN_IN_DENIALS", "PACKED_POLICY_PROFILE", "AUTH_DELAY"]
)
def test_an_unusable_setting_is_not_read_as_its_default(name: str, text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - float's and int's own texts are as good as ours
        Settings.read({f"PODID_{name}": text})


@pytest.mark.parametrize(
    "fault",
    [
        {"cod": "ThrottlingException"},
        {},
        {"code": "NoSuchException"},
        {"delay": -1},
        {"code": "ThrottlingException", "times": 0},
        {"service": "eks-auth"},
    ],
)
def test_a_fault_that_could_never_happen_is_refused(fault: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"fault|positive|error of EKS Auth"):
        Fault.read(fault)


def test_a_fault_of_another_service_says_its_status() -> None:
    assert Fault.read({"code": "SlowDown", "status": 503}).status == 503
    assert Fault.read({"code": "ThrottlingException"}).status == 429


def test_faults_are_taken_in_order_and_used_up() -> None:
    faults = Faults()
    faults.set([Fault(service="eks-auth", code="A", times=1), Fault(cluster="two", code="B")])

    taken = [faults.take(Target("eks-auth", cluster=cluster)) for cluster in ("one", "two", "one", "two")]

    assert [fault and fault.code for fault in taken] == ["A", "B", None, "B"]


@pytest.mark.parametrize("token", [None, "", "a.b", "a.!.c", "a.bnVsbA.c", 7])
def test_a_token_that_cannot_be_read_is_nobodys(token: Any) -> None:
    target = Target.of("eks-auth", "AssumeRoleForPodIdentity", "arn", {"clusterName": "one", "token": token})

    assert target == Target("eks-auth", "AssumeRoleForPodIdentity", "arn", "one")


def test_a_token_tells_whose_it_is() -> None:
    claims = {"kubernetes.io": {"namespace": "demo", "serviceaccount": {"name": "s3-reader"}}}
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()

    target = Target.of("eks-auth", "AssumeRoleForPodIdentity", "", {"clusterName": "one", "token": f"a.{payload}.c"})

    assert (target.namespace, target.service_account) == ("demo", "s3-reader")
