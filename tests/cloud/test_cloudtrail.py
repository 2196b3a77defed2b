"""When CloudTrail shows what it has."""

from __future__ import annotations

from datetime import timedelta

from harness.cloud.cloudtrail import ApiCall, CloudTrail
from harness.cloud.ports import Credential, Principal
from harness.subject.cloud_ports import SeededIds, SettableClock

ACCOUNT = "123456789012"


def test_delay_hides_young_events() -> None:
    """An event shows up in the second in which its delay is over."""
    clock = SettableClock()
    trail = CloudTrail(clock, SeededIds(), delay=30)
    caller = Principal("user", f"arn:aws:iam::{ACCOUNT}:user/alice", ACCOUNT, "AIDAALICE")
    trail.record_call(
        ApiCall(
            source="eks.amazonaws.com",
            name="ListClusters",
            caller=Credential("AKIAEXAMPLE", "secret", None, caller, clock.now() - timedelta(days=1), None),
            region="eu-west-1",
            at=clock.now(),
            request_id="r-1",
            parameters={},
            response=None,
            failure=None,
            read_only=True,
            source_address="10.0.0.1",
            user_agent="test",
            host="eks.eu-west-1.amazonaws.com",
        )
    )

    clock.advance(29)
    assert trail.lookup(ACCOUNT, "eu-west-1", {})["Events"] == []
    clock.advance(1)
    assert len(trail.lookup(ACCOUNT, "eu-west-1", {})["Events"]) == 1
