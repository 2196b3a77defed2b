"""What the page shows of each requirement, joined from the record's requirements, tests and checks."""

from __future__ import annotations

from dataclasses import dataclass

from harness.conformance.record import CheckRecord, EvidenceRecord, RequirementRecord, Run, TestRecord

__all__ = ["AREAS", "Account", "Exhibit", "Row", "rows_of"]

AREAS = {
    "WHK": "Webhook",
    "AGT": "Agent",
    "API": "EKS, EKS Auth, STS, CloudTrail",
    "IAM": "IAM decisions",
    "LBC": "Load Balancer Controller",
    "ESO": "External Secrets Operator",
    "MIG": "Migration from IRSA",
    "TRB": "Troubleshooting",
    "AUD": "Audit",
    "UPG": "Upgrades and restarts",
    "RES": "Ceilings of what subjects use",
}
"""Areas in the order in which a credential passes them."""


@dataclass(frozen=True, slots=True)
class Exhibit:
    """A piece of evidence of a test."""

    record: EvidenceRecord
    anchor: str
    """Fragment under which it stands on the page, once."""
    is_here: bool
    """Whether it stands here; otherwise another requirement of the same test has it, and this one points there."""


@dataclass(frozen=True, slots=True)
class Account:
    """What one test says about one requirement."""

    test: TestRecord
    outcome: str
    checks: list[CheckRecord]
    evidence: list[Exhibit]
    """What its checks point to first, then whatever else the test saw."""


@dataclass(frozen=True, slots=True)
class Row:
    """One requirement on the page."""

    requirement: RequirementRecord
    accounts: list[Account]

    @property
    def id(self) -> str:
        """The requirement's ID."""
        return self.requirement.id

    @property
    def area(self) -> str:
        """The requirement's area."""
        return self.requirement.area

    @property
    def state(self) -> str:
        """Its outcome; without one, why it has none."""
        left_out = "not-selected" if self.requirement.status == "bound" else self.requirement.status
        return self.requirement.outcome or left_out


def rows_of(run: Run) -> list[Row]:
    """Return all requirements with what the tests say about them.

    A test decides many requirements, and its evidence is the bulk of the page: it stands there once, at a requirement
    that is not met if there is one.
    """
    tests = {test.node: (number, test) for number, test in enumerate(run.tests)}
    homes: dict[str, str] = {}
    for entry in sorted(run.requirements, key=lambda entry: entry.outcome == "passed"):
        for number, test in (tests[node] for node in entry.tests):
            for index in _exhibits(entry, test):
                homes.setdefault(f"evidence-{number}-{index}", entry.id)
    return [Row(entry, [_account(entry, *tests[node], homes) for node in entry.tests]) for entry in run.requirements]


def _exhibits(requirement: RequirementRecord, test: TestRecord) -> list[int]:
    """Return the indexes of a test's evidence that concern a requirement, that of its own checks first."""
    own = [index for check in test.checks if check.requirement == requirement.id for index in check.evidence]
    others = {index for check in test.checks if check.requirement != requirement.id for index in check.evidence}
    return [*own, *(index for index in range(len(test.evidence)) if index not in others and index not in own)]


def _account(requirement: RequirementRecord, number: int, test: TestRecord, homes: dict[str, str]) -> Account:
    anchors = {index: f"evidence-{number}-{index}" for index in _exhibits(requirement, test)}
    exhibits = [
        Exhibit(test.evidence[index], anchor, is_here=homes[anchor] == requirement.id)
        for index, anchor in anchors.items()
    ]
    checks = [check for check in test.checks if check.requirement == requirement.id]
    return Account(test, test.decisions[requirement.id], checks, exhibits)
