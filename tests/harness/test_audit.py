"""The checklist's rules, the table and its drift, and SARIF: without a cluster."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harness.audit import (
    Association,
    Check,
    Inventory,
    Node,
    Role,
    as_sarif,
    association_table,
    drift,
    run_checks,
    snapshot,
)
from harness.audit.inventory import read_snapshot
from harness.errors import UsageError

ARN = "arn:aws:iam::123456789012:role/reader"
TAGS = {"cluster": "lab", "Purpose": "reads", "managed-by": "terraform"}
READ = {"Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}]}
ABAC = {
    "Statement": [
        {
            "Effect": "Allow",
            "Action": "s3:GetObject",
            "Resource": "arn:aws:s3:::b/${aws:PrincipalTag/kubernetes-namespace}/*",
        }
    ]
}
ONE = Association("demo", "s3-reader", "a-1", ARN, tags={"managed-by": "terraform"})
SOUND = Inventory(
    cluster="lab",
    associations=[ONE],
    roles={ARN: Role("reader", boundary="arn:aws:iam::123456789012:policy/b", tags=TAGS, policies={"p": READ})},
    service_accounts={"demo/s3-reader": {}},
    namespaces=frozenset({"demo"}),
    nodes=[Node("node-a", "i-1", "required", 1)],
    node_roles=[Role("node", policies={"arn:aws:iam::aws:policy/AmazonEKSWorkerNodePolicy": {}})],
    agents_desired=1,
    agents_needed=1,
    agents_ready=1,
    addon={"addonVersion": "v1.3.10-eksbuild.2", "status": "ACTIVE", "health": {"issues": []}},
    latest_version="v1.3.10-eksbuild.2",
    alerts=["monitoring/agent"],
)
TWICE = [ONE, replace(ONE, service_account="other", id="a-2")]


def statuses(inventory: Inventory, changes: list[str] | None = None) -> dict[str, str]:
    return {check.id: check.status for check in run_checks(inventory, changes)}


def test_what_is_in_order_passes_all_twelve_points_in_their_order() -> None:
    found = statuses(SOUND, [])

    assert [name[:2] for name in found] == [f"{number:02}" for number in range(1, 13)]
    assert set(found.values()) == {"pass"}


FAULTS: dict[str, Inventory] = {
    "01-one-role-each": replace(SOUND, associations=TWICE, service_accounts={"demo/s3-reader": {}, "demo/other": {}}),
    "02-session-tags": replace(SOUND, associations=[replace(ONE, has_session_tags=False)]),
    "03-boundary": replace(SOUND, roles={ARN: Role("reader", tags=TAGS, policies={"p": READ})}),
    "04-hop-limit": replace(SOUND, nodes=[Node("node-a", "i-1", "required", 2)]),
    "05-tags": replace(SOUND, roles={ARN: Role("reader", boundary="b", tags={"cluster": "lab"})}),
    "07-agent": replace(SOUND, agents_desired=2),
    "07-agent narrowed": replace(SOUND, agents_needed=2),
    "08-addon": replace(SOUND, latest_version="v1.3.11-eksbuild.1"),
    "10-irsa-beside": replace(SOUND, service_accounts={"demo/s3-reader": {"eks.amazonaws.com/role-arn": "old"}}),
    "11-orphans": replace(SOUND, namespaces=frozenset()),
    "12-node-role": replace(
        SOUND, node_roles=[Role("node", policies={"arn:aws:iam::aws:policy/AdministratorAccess": {}})]
    ),
}


@pytest.mark.parametrize("identifier", FAULTS)
def test_one_fault_fails_one_point_with_evidence_and_cure(identifier: str) -> None:
    failed = [check for check in run_checks(FAULTS[identifier], []) if check.status == "fail"]

    assert [check.id for check in failed] == identifier.split()[:1]
    assert failed[0].evidence
    assert failed[0].cure


def test_imds_version_1_has_no_hop_limit() -> None:
    assert statuses(replace(SOUND, nodes=[Node("node-a", "i-1", "optional", 1)]))["04-hop-limit"] == "fail"


def test_a_shared_role_that_tells_its_users_apart_by_tags_is_fine() -> None:
    roles = {ARN: Role("reader", boundary="b", tags=TAGS, policies={"p": ABAC})}
    two_teams = replace(SOUND, associations=[ONE, replace(ONE, namespace="other", id="a-2")], roles=roles)

    assert statuses(two_teams)["01-one-role-each"] == "pass"


def test_a_tag_that_its_users_share_tells_nobody_apart() -> None:
    roles = {ARN: Role("reader", boundary="b", tags=TAGS, policies={"p": ABAC})}

    assert statuses(replace(FAULTS["01-one-role-each"], roles=roles))["01-one-role-each"] == "fail"


def test_whoever_shares_a_target_role_shares_its_permissions() -> None:
    """Of another account it cannot be told; two targets behind one role are two."""
    first, second = (f"arn:aws:iam::987654321098:role/target-{number}" for number in (1, 2))
    shared = replace(SOUND, associations=[replace(one, target_role_arn=first) for one in TWICE])
    apart = replace(
        shared, associations=[replace(ONE, target_role_arn=first), replace(TWICE[1], target_role_arn=second)]
    )

    assert statuses(shared)["01-one-role-each"] == "unknown"
    assert statuses(apart)["01-one-role-each"] == "pass"
    assert {statuses(apart)[point] for point in ("03-boundary", "05-tags")} == {"unknown"}


def test_one_statement_without_tags_spoils_a_shared_role() -> None:
    mixed: dict[str, Any] = {"Statement": [*ABAC["Statement"], *READ["Statement"]]}
    roles = {ARN: Role("reader", boundary="b", tags=TAGS, policies={"p": mixed})}

    assert statuses(replace(FAULTS["01-one-role-each"], roles=roles))["01-one-role-each"] == "fail"


def test_an_addon_with_issues_fails() -> None:
    issue = {"code": "InsufficientNumberOfReplicas", "message": "1 of 2"}
    addon = {**(SOUND.addon or {}), "health": {"issues": [issue]}}

    assert statuses(replace(SOUND, addon=addon))["08-addon"] == "fail"


@pytest.mark.parametrize(
    ("part", "points"),
    [
        ("associations", {"01", "02", "03", "05", "06", "09", "10", "11"}),
        ("roles", {"01", "03", "05", "11"}),
        ("ServiceAccounts", {"10", "11"}),
        ("nodes", {"04", "07"}),
        ("instances", {"04"}),
        ("node roles", {"12"}),
        ("agent", {"07"}),
        ("add-on", {"08"}),
    ],
)
def test_what_cannot_be_read_is_unknown_and_says_why(part: str, points: set[str]) -> None:
    checks = run_checks(replace(SOUND, gaps={part: "not authorized"}), [])
    unknown = [check for check in checks if check.status == "unknown"]

    assert {check.id[:2] for check in unknown} == points
    assert all(f"{part}: not authorized" in check.evidence for check in unknown)


def test_a_cluster_of_auto_mode_has_the_agent_built_in() -> None:
    found = statuses(replace(SOUND, agents_desired=None, agents_needed=0, addon={}))

    assert (found["07-agent"], found["08-addon"]) == ("pass", "pass")


def test_a_cluster_without_nodes_may_or_may_not_need_the_agent() -> None:
    found = statuses(replace(SOUND, agents_desired=None, agents_needed=None, addon={}))

    assert (found["07-agent"], found["08-addon"]) == ("unknown", "unknown")


def test_no_node_of_ec2_is_unknown() -> None:
    assert statuses(replace(SOUND, nodes=[]))["04-hop-limit"] == "unknown"


def test_nodes_of_which_ec2_tells_nothing_are_unknown() -> None:
    assert statuses(replace(SOUND, nodes=[Node("node-a", "i-1")]))["04-hop-limit"] == "unknown"


def test_without_an_earlier_report_nobody_knows_about_drift() -> None:
    assert statuses(SOUND)["09-audit"] == "unknown"
    assert statuses(SOUND, ["added    demo/x  arn"])["09-audit"] == "fail"


def test_the_table_pads_every_column() -> None:
    assert association_table([ONE]).splitlines()[2] == "demo" + " " * 15 + "s3-reader" + " " * 24 + "reader" + " " * 34


def test_drift_names_what_came_went_and_changed() -> None:
    before = snapshot(replace(SOUND, associations=TWICE))
    moved = replace(ONE, role_arn=f"{ARN}-2", id="a-9")
    after = snapshot(replace(SOUND, associations=[moved, replace(ONE, service_account="new")]))

    assert drift(before, after) == [
        f"added    demo/new  {ARN}",
        f"removed  demo/other  {ARN}",
        f"changed  demo/s3-reader  roleArn: '{ARN}' → '{ARN}-2'",
    ]


def test_an_association_made_again_is_no_drift() -> None:
    assert drift(snapshot(SOUND), snapshot(replace(SOUND, associations=[replace(ONE, id="a-9")]))) == []


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ([], "not a report of podid audit"),
        ({}, "not a report of podid audit"),
        ({"schema": "podid-audit/2", "cluster": "lab", "associations": []}, "not a report of podid audit"),
        ({"schema": "podid-audit/1"}, "not a report of podid audit"),
        ({"schema": "podid-audit/1", "cluster": "lab", "associations": [{}]}, "an association lacks"),
        ({"schema": "podid-audit/1", "cluster": "another", "associations": []}, "of cluster 'another', not of 'lab'"),
        (snapshot(replace(SOUND, associations=None)), "the report has no associations"),
    ],
)
def test_what_is_no_report_of_the_cluster_is_refused(data: Any, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        read_snapshot(data, "lab")


def test_a_report_can_be_compared_with() -> None:
    assert drift(read_snapshot({**snapshot(SOUND), "checks": []}, "lab"), snapshot(SOUND)) == []


def test_sarif_has_a_rule_for_each_check_and_a_result_for_each_fault() -> None:
    checks = [
        Check("a", "A", "fail", ["one", "two"], "mend it"),
        Check("b", "B", "pass", ["fine"]),
        Check("c", "C", "unknown", ["not read"]),
    ]

    log = as_sarif("lab", checks, "1.2.3")

    (run,) = log["runs"]
    assert log["version"] == "2.1.0"
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == ["a", "b", "c"]
    assert [(one["ruleId"], one["ruleIndex"], one["kind"], one["level"]) for one in run["results"]] == [
        ("a", 0, "fail", "error"),
        ("a", 0, "fail", "error"),
        ("b", 1, "pass", "none"),
        ("c", 2, "open", "none"),
    ]
    assert [one["message"]["text"] for one in run["results"]] == ["one", "two", "fine", "not read"]
    places = [one["locations"][0]["physicalLocation"] for one in run["results"]]
    assert {place["artifactLocation"]["uri"] for place in places} == {"clusters/lab"}
