"""Elastic Load Balancing's own rules: names, targets, health, security groups (``controllers.md`` 3.5 and 3.7)."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from harness.cloud.elbv2.health import Observation, TargetState, matches
from harness.cloud.elbv2.names import dns_name
from harness.cloud.elbv2.security import IngressRule, is_open, lets_in
from harness.cloud.elbv2.snapshot import HealthCheck
from harness.cloud.elbv2.targets import GroupFacts, Targets
from harness.cloud.localstack.bootstrap import SystemIds
from harness.cloud.ports import Refusal

CHECK = HealthCheck(healthy_threshold=2, unhealthy_threshold=2)
GOOD = Observation("answered", 200)
SILENT = Observation("timed-out")
GROUP = GroupFacts(
    arn="arn:tg",
    port=80,
    target_type="ip",
    networks=["10.213.0.0/16", "10.244.0.0/16"],
    vpc_id="vpc-1",
    deregistration_delay=300,
    is_used=True,
)


class FixedClock:
    def __init__(self) -> None:
        self.time = datetime(2026, 4, 10, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time


def states(targets: Targets, group: GroupFacts = GROUP, *named: dict[str, object]) -> list[tuple[str, int, str]]:
    found = targets.describe(group, list(named))
    return [(one["Target"]["Id"], one["Target"]["Port"], one["TargetHealth"]["State"]) for one in found]


def test_dns_names_have_the_article_s_form() -> None:
    """LBC-DNS-FORM: the name, ten digits, the region; an internal one says so."""
    names = {dns_name("k8s-demo-nginx-380f880b9d", "internet-facing", "eu-west-1", SystemIds()) for _ in range(50)}
    internal = dns_name("a", "internal", "eu-west-1", SystemIds())

    assert len(names) == 50
    assert all(
        re.fullmatch(r"k8s-demo-nginx-380f880b9d-[1-9]\d{9}\.eu-west-1\.elb\.amazonaws\.com", name) for name in names
    )
    assert internal.startswith("internal-a-")


def test_a_new_target_is_healthy_after_one_good_check() -> None:
    """LBC-HEALTH-TRUTH: registered, then healthy; not before anybody asked it."""
    state = TargetState()
    first = state.health

    assert (first.state, first.reason) == ("initial", "Elb.RegistrationInProgress")
    assert state.observe(GOOD, CHECK).state == "healthy"


@pytest.mark.parametrize(
    ("seen", "reason", "description"),
    [
        (SILENT, "Target.Timeout", "Request timed out"),
        (Observation("failed"), "Target.FailedHealthChecks", "Health checks failed"),
        (
            Observation("answered", 500),
            "Target.ResponseCodeMismatch",
            "Health checks failed with these codes: [500]",
        ),
    ],
)
def test_two_bad_checks_in_a_row_make_a_target_unhealthy(seen: Observation, reason: str, description: str) -> None:
    """LBC-HEALTH-TRUTH: one is not enough, and AWS's words say what came of the last."""
    state = TargetState()
    state.observe(GOOD, CHECK)

    assert state.observe(seen, CHECK).state == "healthy"
    health = state.observe(seen, CHECK)
    assert (health.state, health.reason, health.description) == ("unhealthy", reason, description)


def test_a_good_check_between_bad_ones_starts_the_count_again() -> None:
    state = TargetState()
    for seen in (GOOD, SILENT, GOOD, SILENT):
        state.observe(seen, CHECK)

    assert state.health.state == "healthy"


def test_an_unhealthy_target_needs_the_threshold_to_come_back() -> None:
    state = TargetState()
    for seen in (GOOD, SILENT, SILENT, GOOD):
        state.observe(seen, CHECK)
    after_one = state.health.state

    assert (after_one, state.observe(GOOD, CHECK).state) == ("unhealthy", "healthy")


def test_a_target_that_was_never_good_is_checked_first_and_unhealthy_then() -> None:
    state = TargetState()

    assert state.observe(SILENT, CHECK).reason == "Elb.InitialHealthChecking"
    assert state.observe(SILENT, CHECK).state == "unhealthy"


@pytest.mark.parametrize(
    ("status", "matcher", "expected"),
    [(200, "200", True), (201, "200", False), (202, "200,202", True), (250, "200-299", True), (300, "200-299", False)],
)
def test_matchers_are_codes_lists_and_ranges(status: int, matcher: str, expected: bool) -> None:
    assert matches(status, matcher) is expected


def test_targets_are_kept_by_id_and_port() -> None:
    """EMU-ELB: one address may be a target on two ports, and goes from one alone."""
    targets = Targets(FixedClock())
    targets.register(GROUP, [{"Id": "10.244.0.5", "Port": 80}, {"Id": "10.244.0.5", "Port": 81}])
    targets.deregister(GROUP, [{"Id": "10.244.0.5", "Port": 81}])

    assert states(targets) == [("10.244.0.5", 80, "initial"), ("10.244.0.5", 81, "draining")]
    assert [target.port for target in targets.registered("arn:tg")] == [80]


def test_a_deregistered_target_drains_and_is_then_unknown() -> None:
    clock = FixedClock()
    targets = Targets(clock)
    targets.register(GROUP, [{"Id": "10.244.0.5"}])
    targets.deregister(GROUP, [{"Id": "10.244.0.5"}])
    before = states(targets)
    clock.time += timedelta(seconds=301)

    assert before == [("10.244.0.5", 80, "draining")]
    assert states(targets) == []
    assert states(targets, GROUP, {"Id": "10.244.0.5", "Port": 80}) == [("10.244.0.5", 80, "unused")]


def test_health_is_what_the_data_plane_reported() -> None:
    targets = Targets(FixedClock())
    targets.register(GROUP, [{"Id": "10.244.0.5"}])
    told = {"state": "unhealthy", "reason": "Target.Timeout", "description": "Request timed out"}
    targets.report({"arn:tg 10.244.0.5:80": told})

    (found,) = targets.describe(GROUP, [])
    assert found["TargetHealth"] == {
        "State": "unhealthy",
        "Reason": "Target.Timeout",
        "Description": "Request timed out",
    }


def test_an_address_outside_of_the_vpc_is_refused_unless_it_says_so() -> None:
    targets = Targets(FixedClock())
    with pytest.raises(Refusal, match="is not within a range of any CIDR block of VPC 'vpc-1'"):
        targets.register(GROUP, [{"Id": "10.244.0.5"}, {"Id": "192.168.0.1"}])

    assert states(targets) == []
    targets.register(GROUP, [{"Id": "192.168.0.1", "AvailabilityZone": "all"}])
    assert states(targets) == [("192.168.0.1", 80, "initial")]


def test_security_groups_let_in_what_they_name() -> None:
    """LBC-PROXY-SG: by group, by port, or everybody."""
    by_group = IngressRule("tcp", 80, 80, groups=("sg-backend",))
    everybody = IngressRule("-1", None, None, networks=("0.0.0.0/0",))

    assert lets_in([by_group], 80, ["sg-other", "sg-backend"])
    assert not lets_in([by_group], 81, ["sg-backend"])
    assert not lets_in([by_group], 80, ["sg-other"])
    assert not lets_in([], 80, ["sg-backend"])
    assert lets_in([everybody], 12345, [])
    assert is_open([IngressRule("tcp", 80, 80, networks=("0.0.0.0/0",))], 80)
    assert not is_open([IngressRule("udp", 80, 80, networks=("0.0.0.0/0",))], 80)
