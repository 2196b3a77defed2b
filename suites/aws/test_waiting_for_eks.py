"""What clients wait for: add-ons that get ready or go, and associations that count, for which nothing can be polled."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, WaiterError

from harness import limits, wait
from harness.cloud.localstack import environment
from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.subject.aws import CLUSTER, Aws, user_key
from harness.subject.bound_cluster import CONFIG_MAP, ApiServerDouble
from harness.subject.iam_requests import ALLOW_ALL
from harness.subject.running_aws import bound_cluster, running_aws

ADDON = {"clusterName": CLUSTER, "addonName": "eks-pod-identity-agent"}
AUTH_DELAY, PUBLICATION_DELAY = 60.0, 5.0
OFTEN = {"Delay": 0.05, "MaxAttempts": 400}
"""Instead of every ten seconds."""


# --- add-ons --------------------------------------------------------------------------------------------------------


@requirement("API-304")
def test_waiters_of_addons_end_as_they_are_defined(aws: Aws, api: ApiServerDouble) -> None:
    """Botocore's own, with all but their patience: ready, degraded, gone."""
    eks = aws.client("eks")
    active, deleted = eks.get_waiter("addon_active"), eks.get_waiter("addon_deleted")
    eks.create_addon(**ADDON)
    before = eks.describe_addon(**ADDON)["addon"]["status"]
    ready = threading.Timer(0.4, lambda: api.roll_out(desired=1, ready=1))
    ready.start()
    try:
        active.wait(**ADDON, WaiterConfig=OFTEN)
    finally:
        ready.join()
    after = eks.describe_addon(**ADDON)["addon"]["status"]

    api.roll_out(desired=1, ready=0)
    with pytest.raises(WaiterError) as degraded:
        active.wait(**ADDON, WaiterConfig=OFTEN)
    eks.delete_addon(**ADDON)
    deleted.wait(**ADDON, WaiterConfig=OFTEN)
    with pytest.raises(ClientError) as gone:
        eks.describe_addon(**ADDON)

    check("API-304", what="patience", expected=(10, 60), observed=(active.config.delay, active.config.max_attempts))
    check("API-304", what="ready", expected=("CREATING", "ACTIVE"), observed=(before, after))
    failure = "terminal failure state"
    check("API-304", what="degraded", holds=failure in str(degraded.value), expected=failure, observed=degraded.value)
    code = gone.value.response["Error"]["Code"]  # type: ignore[reportTypedDictNotRequiredAccess] - AWS always says it
    check("API-304", what="deleted", expected="ResourceNotFoundException", observed=code)


# --- associations ---------------------------------------------------------------------------------------------------


@dataclass
class Slow:
    """A process that lets EKS Auth and admission act on associations late, and a cluster in it."""

    aws: Aws
    api: ApiServerDouble
    assume: Callable[[], str]
    """Returns the role whose credentials a pod gets now, or the error."""


@pytest.fixture
def slow(localstack_environment: environment.Environment, tmp_path: Path) -> Iterator[Slow]:
    for name in ("aws", "cluster"):
        (tmp_path / name).mkdir()
    settings = {"PODID_AUTH_DELAY": str(AUTH_DELAY), "PODID_PUBLICATION_DELAY": str(PUBLICATION_DELAY)}
    with (
        running_aws(localstack_environment, tmp_path / "aws", **settings) as aws,
        bound_cluster(aws, tmp_path / "cluster") as api,
    ):
        key = user_key(aws, "node", ALLOW_ALL)

        def assume() -> str:
            try:
                answer = aws.client("eks-auth", key).assume_role_for_pod_identity(
                    clusterName=CLUSTER, token=api.token(time.time())
                )
            except ClientError as error:
                return error.response["Error"]["Code"]  # type: ignore[reportTypedDictNotRequiredAccess] - the same
            return str(answer["assumedRoleUser"]["arn"]).split("/")[1]

        yield Slow(aws, api, assume)


def _role(aws: Aws, name: str) -> str:
    trust = (
        '{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Principal": {"Service": "pods.eks.amazonaws.com"},'
        ' "Action": ["sts:AssumeRole", "sts:TagSession"]}}'
    )
    return str(aws.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=trust)["Role"]["Arn"])


@requirement("API-901")
def test_a_change_of_associations_counts_some_time_later(slow: Slow) -> None:
    """Creation, update and deletion: the old state still counts for pods and admission, while EKS shows the new one.

    The emulator's clock is what is moved; admission's delay is waited for by its effect.
    """
    eks, first, second = slow.aws.client("eks"), _role(slow.aws, "first"), _role(slow.aws, "second")
    name = {"clusterName": CLUSTER, "namespace": "demo", "serviceAccount": "s3-reader"}
    seen: dict[str, tuple[str, Any, str]] = {}

    def later(change: str, shown: Callable[[], Any]) -> None:
        """Read what counts before and after the delay."""
        before, now = slow.assume(), shown()
        moved[0] += AUTH_DELAY
        slow.aws.control.move_clock(moved[0])
        seen[change] = (before, now, slow.assume())

    moved = [0.0]
    wait.until(lambda: CONFIG_MAP in slow.api.objects, what="the first publication", timeout=limits.ASSOCIATION_VISIBLE)
    made = eks.create_pod_identity_association(**name, roleArn=first)["association"]["associationId"]
    early = len(slow.api.published())
    identity = {"clusterName": CLUSTER, "associationId": made}

    def role() -> Any:
        return eks.describe_pod_identity_association(**identity)["association"]["roleArn"]

    later("create", role)
    wait.until(slow.api.published, what="the publication of the new one", timeout=limits.ASSOCIATION_VISIBLE)
    eks.update_pod_identity_association(**identity, roleArn=second)
    later("update", role)
    eks.delete_pod_identity_association(**identity)
    still = len(slow.api.published())
    later("delete", lambda: eks.list_pod_identity_associations(clusterName=CLUSTER)["associations"])
    wait.until(
        lambda: not slow.api.published(), what="the publication of the deletion", timeout=limits.ASSOCIATION_VISIBLE
    )

    expected = {
        "create": ("ResourceNotFoundException", first, "first"),
        "update": ("first", second, "second"),
        "delete": ("second", [], "ResourceNotFoundException"),
    }
    for change, states in expected.items():
        check("API-901", what=f"{change}: before, as shown, after", expected=states, observed=seen[change])
    check(
        "API-901",
        what="admission, at first and until the deletion counts",
        expected=(0, 1),
        observed=(early, still),
    )
