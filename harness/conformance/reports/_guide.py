"""The guide's sections: which scenarios walk through each, and what the run says of the requirements they decide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from harness.conformance.record import Run, TestRecord
from harness.conformance.reports._view import Row

__all__ = ["SECTIONS", "Section", "Shown", "sections_of"]


@dataclass(frozen=True, slots=True)
class Section:
    """A section of the guide."""

    title: str
    scenarios: tuple[str, ...]
    """Files below ``suites/``, or tests in them (``FILE::TEST``); none if nobody walks through it."""


SECTIONS = (
    Section(
        "Pod Identity vs IRSA: Decision Matrix",
        (
            "test_portability.py::test_both_clusters_assume_the_role_and_read_the_bucket",
            "test_portability.py::test_irsa_needs_a_trust_policy_for_each_issuer",
            "test_troubleshooting.py::test_pod_runs_on_fargate",
        ),
    ),
    Section(
        "Quick Start TLDR",
        (
            "test_s3.py::test_association_is_returned_as_the_article_prints_it",
            "test_s3.py::test_caller_identity_is_the_associated_role",
        ),
    ),
    Section(
        "How Pod Identity Actually Works",
        (
            "test_s3.py::test_pod_gets_the_five_variables_in_order",
            "test_s3.py::test_pod_gets_the_projected_token_volume",
            "test_s3.py::test_token_says_who_the_pod_is",
            "test_s3.py::test_agent_answers_with_six_hour_credentials",
            "test_webhook.py",
            "test_ip_families.py",
        ),
    ),
    Section(
        "Prerequisites",
        ("test_troubleshooting.py::test_sdk_is_too_old", "test_diagnose.py::test_sdk_raises_before_it_asks"),
    ),
    Section(
        "Install the eks-pod-identity-agent Addon",
        (
            "test_s3.py::test_addon_runs_the_agent_on_every_node",
            "test_diagnose.py::test_add_on_does_not_cover_the_node",
            "test_diagnose.py::test_agent_does_not_start",
            "test_agent_rollout.py",
            "test_upgrade.py",
        ),
    ),
    Section("Hello Pod Identity: S3 Walkthrough", ("test_s3.py",)),
    Section(
        "Production Use Case: AWS Load Balancer Controller", ("test_load_balancer.py", "test_load_balancer_in_use.py")
    ),
    Section(
        "Production Use Case: External Secrets Operator",
        ("test_external_secrets.py", "test_external_secrets_in_use.py"),
    ),
    Section("Session Tags and ABAC", ("test_abac.py",)),
    Section("Portability: Same Role Across Multiple Clusters", ("test_portability.py",)),
    Section("Cross-Account Access with targetRoleArn", ("test_cross_account.py",)),
    Section("Migrating from IRSA to Pod Identity", ("test_migration.py", "test_migration_of_a_namespace.py")),
    Section(
        "Troubleshooting: Connect timeout on endpoint URL",
        (
            "test_troubleshooting.py::test_agent_is_not_installed",
            "test_troubleshooting.py::test_pod_runs_on_fargate",
            "test_troubleshooting.py::test_node_drops_what_the_pod_sends",
            "test_troubleshooting.py::test_policy_is_told_from_other_filters",
            "test_troubleshooting.py::test_default_deny_egress",
            "test_troubleshooting.py::test_proxy_stands_in_the_way",
        ),
    ),
    Section(
        "Troubleshooting: not authorized to perform eks-auth:AssumeRoleForPodIdentity",
        (
            "test_troubleshooting.py::test_node_role_lacks_the_permission",
            "test_diagnose.py::test_eks_auth_does_not_answer_or_refuses",
        ),
    ),
    Section(
        "Troubleshooting: Pod still using node role instead of Pod Identity",
        (
            "test_troubleshooting.py::test_pod_is_older_than_its_association",
            "test_troubleshooting.py::test_association_differs_in_case",
            "test_troubleshooting.py::test_pod_runs_as_another_account",
            "test_troubleshooting.py::test_hop_limit_closes_imds_to_pods",
            "test_diagnose.py::test_webhook_was_told_to_skip_the_pod",
            "test_diagnose.py::test_static_keys_come_first",
        ),
    ),
    Section(
        "Troubleshooting: MatchNodeSelector failed",
        ("test_troubleshooting.py::test_fargate_profile_claims_the_namespace",),
    ),
    Section(
        "Troubleshooting: ExternalSecret stuck",
        (
            "test_external_secrets.py::test_without_an_association_the_node_s_role_is_denied",
            "test_external_secrets.py::test_association_alone_changes_nothing",
            "test_external_secrets.py::test_deleting_the_operator_s_pod_mends_it",
        ),
    ),
    Section(
        "Troubleshooting: SDK too old",
        ("test_troubleshooting.py::test_sdk_is_too_old", "test_diagnose.py::test_sdk_raises_before_it_asks"),
    ),
    Section(
        "Security Hardening Checklist",
        (
            "test_audit.py::test_1_one_role_per_account",
            "test_audit.py::test_2_session_tags",
            "test_audit.py::test_3_and_5_boundary_and_tags",
            "test_audit.py::test_4_hop_limit",
            "test_audit.py::test_6_managed_as_code",
            "test_audit.py::test_7_and_8_agent_and_addon",
            "test_audit.py::test_10_irsa_beside_an_association",
            "test_audit.py::test_12_node_role",
        ),
    ),
    Section("Auditing Pod Identity Associations", ("test_audit.py",)),
    Section("Complete Terraform Module", ()),
    Section(
        "Quick Reference and FAQ",
        (
            "test_s3.py::test_caller_identity_is_the_associated_role",
            "test_s3.py::test_token_of_another_audience_is_refused",
            "test_portability.py::test_both_clusters_assume_the_role_and_read_the_bucket",
            "test_troubleshooting.py::test_pod_runs_on_fargate",
        ),
    ),
    Section("Beyond the guide", ("test_diagnose.py", "test_emulator_restart.py")),
)
"""In the guide's order, under its headings."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What a run says of a section."""

    title: str
    scenarios: list[tuple[str, str]]
    """File or test, and how its tests ended: "23 passed"; "not in this run" without any."""
    rows: list[Row]
    """The requirements that these tests decide."""


def sections_of(run: Run, rows: Sequence[Row]) -> list[Shown]:
    """Return what a run says of each section; nothing for one in which no scenario took part.

    Args:
        run: The run.
        rows: Its requirements as on the page.
    """
    shown: list[Shown] = []
    for section in SECTIONS:
        by_scenario = {scenario: _tests(run, scenario) for scenario in section.scenarios}
        nodes = {test.node for tests in by_scenario.values() for test in tests}
        told = [(scenario, _told(tests)) for scenario, tests in by_scenario.items()]
        mine = [row for row in rows if nodes.intersection(row.requirement.tests)]
        shown.append(Shown(section.title, told, mine))
    return shown if any(section.rows for section in shown) else []


def _tests(run: Run, scenario: str) -> list[TestRecord]:
    node = f"suites/{scenario}"
    return [test for test in run.tests if test.node == node or test.node.startswith((f"{node}::", f"{node}["))]


def _told(tests: Sequence[TestRecord]) -> str:
    counts = Counter(test.outcome for test in tests)
    return ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())) or "not in this run"
