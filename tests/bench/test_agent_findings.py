"""What the bench of the agent makes of its numbers."""

from __future__ import annotations

import pytest
from agent_findings import (
    AT_RATE_P99,
    CONNECTIONS,
    ONE_CORE_START,
    SLOWEST_POD,
    Row,
    at_limit,
    findings,
    hits,
    processor_at_limit,
)


def measured(*, alone: bool = False, **changed: tuple[float, float]) -> list[Row]:
    """Return rows of an agent that is better in everything, but for what is changed (ours, the other one's)."""
    values = {ONE_CORE_START: (300.0, 20.0), AT_RATE_P99: (1.0, 2.0), SLOWEST_POD: (1.0, 2.0)}
    for connections in CONNECTIONS:
        values[hits(connections)] = (2.0, 1.0)
        values[at_limit(connections)] = (1000.0, 998.0)
        values[processor_at_limit(connections)] = (1.0, 2.0)
    values |= changed
    return [
        Row(name, "", {"ours": ours} if alone else {"ours": ours, "peer": peer})
        for name, (ours, peer) in values.items()
    ]


def verdicts(rows: list[Row]) -> dict[str, bool | None]:
    """Return what was decided of each requirement."""
    return {finding.id: finding.is_met for finding in findings(rows)}


def test_an_agent_that_is_better_meets_everything() -> None:
    """AGT-1101, AGT-1102, AGT-1105 and AGT-1107."""
    assert verdicts(measured()) == {"AGT-1101": True, "AGT-1102": True, "AGT-1105": True, "AGT-1107": True}


def test_without_another_agent_only_the_start_is_decided() -> None:
    """The others say so, and end the bench with no error."""
    rows = measured(alone=True)

    assert verdicts(rows) == {"AGT-1101": None, "AGT-1102": None, "AGT-1105": True, "AGT-1107": None}
    assert not any(finding.is_fatal for finding in findings(rows))


@pytest.mark.parametrize(
    ("identifier", "changed", "is_fatal"),
    [
        ("AGT-1101", {AT_RATE_P99: (2.1, 2.0)}, True),
        ("AGT-1105", {ONE_CORE_START: (1001.0, 20.0)}, False),
        ("AGT-1107", {SLOWEST_POD: (2.1, 2.0)}, False),
        ("AGT-1102", {hits(1): (1.0, 1.0), processor_at_limit(1): (2.0, 2.0)}, True),
        ("AGT-1102", {hits(256): (0.9, 1.0), at_limit(256): (980.0, 998.0)}, True),
    ],
    ids=["p99", "start", "slowest-pod", "hits-and-processor", "hits-and-limit-not-reached"],
)
def test_one_thing_that_is_worse_fails_its_requirement_alone(
    identifier: str, changed: dict[str, tuple[float, float]], *, is_fatal: bool
) -> None:
    """Only a MUST ends the bench with an error."""
    failed = [finding for finding in findings(measured(**changed)) if not finding.is_met]

    assert [(finding.id, finding.is_fatal) for finding in failed] == [(identifier, is_fatal)]


def test_reaching_the_limit_for_less_makes_up_for_fewer_hits() -> None:
    """Either is enough, at each number of connections."""
    assert verdicts(measured(**{hits(1): (0.9, 1.0)}))["AGT-1102"]
