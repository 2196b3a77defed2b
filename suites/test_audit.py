"""Auditing: the article's six associations in its table, what drifts, and the hardening checklist point by point.

The associations are there only to be looked at: no pod runs here.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml

from harness import migrate
from harness.audit import Association, Check, Inventory, association_table, drift, gather, run_checks, snapshot
from harness.cluster.base import Cluster
from harness.conformance.marks import requirement
from harness.conformance.recording import Evidence, attach, check
from harness.kube import Kube, load_manifests
from harness.lab import Lab
from harness.scenario import AwsAccount, without_agent

FIXTURES = Path(__file__).parent.parent / "fixtures"
FILES = FIXTURES / "audit"
TRUST = (FIXTURES / "s3" / "pod-identity-trust.json").read_text()
ASSOCIATIONS = (
    ("alb-system", "aws-load-balancer-controller", "pod-identity-lab-alb-role"),
    ("team-a", "app", "pod-identity-lab-abac-role"),
    ("demo", "s3-reader", "pod-identity-lab-s3-reader-role"),
    ("default", "s3-reader", "pod-identity-lab-s3-reader-role"),
    ("external-secrets", "external-secrets", "pod-identity-lab-eso-role"),
    ("team-b", "app", "pod-identity-lab-abac-role"),
)
# Every column is padded, the last one too: lines end in blanks. EKS lists in no order to rely on.
TABLE = (
    "Namespace          ServiceAccount                   IAM Role                                \n"
    "-----------------------------------------------------------------------------------------------\n"
    "alb-system         aws-load-balancer-controller     pod-identity-lab-alb-role               \n"
    "team-a             app                              pod-identity-lab-abac-role              \n"
    "demo               s3-reader                        pod-identity-lab-s3-reader-role         \n"
    "default            s3-reader                        pod-identity-lab-s3-reader-role         \n"
    "external-secrets   external-secrets                 pod-identity-lab-eso-role               \n"
    "team-b             app                              pod-identity-lab-abac-role              \n"
)


class Auditor:
    """Runs the audit, and judges a point."""

    def __init__(self, kube: Kube, cluster: Cluster, aws: AwsAccount) -> None:
        self._kube, self._cluster, self._aws = kube, cluster, aws

    def look(self) -> Any:
        """Return the inventory."""
        return gather(self._kube, self._aws.client, self._cluster.name)

    def point(self, identifier: str) -> Check:
        """Return one point of a new audit."""
        (found,) = (one for one in run_checks(self.look()) if one.id == identifier)
        attach(Evidence("command", f"podid audit: {found.id} {found.status}", "\n".join(found.evidence)))
        return found


@pytest.fixture(scope="module")
def auditor(kube: Kube, cluster: Cluster, aws: AwsAccount) -> Iterator[Auditor]:
    """The article's lab at the time of its audit: six ServiceAccounts, four roles, one of them for both teams."""
    aws.create_agent_addon(cluster.name)
    aws.wait_until_agent_is_active(cluster.name)
    with contextlib.ExitStack() as stack:
        abac = stack.enter_context(aws.policy("audit-abac", (FIXTURES / "abac" / "abac-policy.json").read_text()))
        s3 = stack.enter_context(aws.policy("audit-s3", (FIXTURES / "s3" / "s3-read-policy.json").read_text()))
        policies = {"pod-identity-lab-abac-role": [abac]}
        names = dict.fromkeys(role for _, _, role in ASSOCIATIONS)
        arns = {name: stack.enter_context(aws.role(name, TRUST, policies.get(name, [s3]))) for name in names}
        for namespace, account, role in ASSOCIATIONS:
            if namespace != "default":
                stack.enter_context(kube.namespace(namespace))
            kube.create_service_account(account, namespace)
            stack.enter_context(aws.association(cluster.name, namespace, account, arns[role]))
        stack.callback(kube.core.delete_namespaced_service_account, "s3-reader", "default")
        yield Auditor(kube, cluster, aws)


# --- The table and its drift ----------------------------------------------------------------------------------------


@requirement("AUD-101")
def test_table_is_the_article_s(auditor: Auditor) -> None:
    """Namespace, ServiceAccount and role of each association, in the columns of the article's script."""
    head, rows = split(TABLE)
    seen = split(association_table(auditor.look().associations))
    check("AUD-101", expected=(head, sorted(rows)), observed=(seen[0], sorted(seen[1])))


def split(table: str) -> tuple[list[str], list[str]]:
    """Return the lines of a table's head and its rows."""
    lines = table.splitlines(keepends=True)
    return lines[:2], lines[2:]


@requirement("AUD-102")
def test_drift_is_named(auditor: Auditor, cluster: Cluster, aws: AwsAccount) -> None:
    """An association that came, one that went and one whose role changed are three lines; no change is none."""
    kept = {(one.namespace, one.service_account): one for one in auditor.look().associations}
    demo, other = kept["demo", "s3-reader"], kept["team-a", "app"]
    with aws.association(cluster.name, "demo", "leaving", demo.role_arn):
        before = snapshot(auditor.look())
        same = drift(before, snapshot(auditor.look()))

    with (
        aws.association(cluster.name, "demo", "clicked", demo.role_arn),
        with_role(aws, cluster, demo, other.role_arn),
    ):
        changed = drift(before, snapshot(auditor.look()))

    role = "arn:aws:iam::123456789012:role/pod-identity-lab"
    check("AUD-102", what="nothing changed", expected=[], observed=same)
    check(
        "AUD-102",
        what="three changes",
        expected=[
            f"added    demo/clicked  {role}-s3-reader-role",
            f"removed  demo/leaving  {role}-s3-reader-role",
            f"changed  demo/s3-reader  roleArn: '{role}-s3-reader-role' → '{role}-abac-role'",
        ],
        observed=changed,
    )


@contextlib.contextmanager
def with_role(aws: AwsAccount, cluster: Cluster, association: Association, role_arn: str) -> Generator[None]:
    """Give an association another role, and its own at the end."""
    update = partial(
        aws.client("eks").update_pod_identity_association, clusterName=cluster.name, associationId=association.id
    )
    update(roleArn=role_arn)
    try:
        yield
    finally:
        update(roleArn=association.role_arn)


@requirement("AUD-103")
def test_orphans_are_found(auditor: Auditor, cluster: Cluster, aws: AwsAccount, kube: Kube) -> None:
    """Each of the three things that an association needs, gone, is one line; the six of the article have theirs."""
    sound = auditor.point("11-orphans")
    with (
        aws.role("audit-short-lived", TRUST) as arn,
        aws.association(cluster.name, "gone", "app", arn) as no_namespace,
        aws.association(cluster.name, "demo", "gone", arn) as no_account,
        aws.association(cluster.name, "team-b", "late", arn) as no_role,
    ):
        kube.create_service_account("late", "team-b")
        found = auditor.point("11-orphans")
        aws.client("iam").delete_role(RoleName="audit-short-lived")
        without_role = auditor.point("11-orphans")

    lines = [
        f"gone/app ({no_namespace['associationId']}): there is no namespace gone",
        f"demo/gone ({no_account['associationId']}): there is no such ServiceAccount",
    ]
    gone = f"team-b/late ({no_role['associationId']}): there is no role {arn}"
    check("AUD-103", what="sound", expected="pass", observed=sound.status)
    check(
        "AUD-103",
        what="namespace, account",
        expected=("fail", sorted(lines)),
        observed=(found.status, sorted(found.evidence)),
    )
    check("AUD-103", what="role", expected=True, observed=gone in without_role.evidence)


# --- The checklist, in its order ------------------------------------------------------------------------------------


@requirement("AUD-104")
def test_1_one_role_per_account(auditor: Auditor) -> None:
    """The role of two ServiceAccounts fails; the ABAC role of two teams does not, and tags tell them apart."""
    found = auditor.point("01-one-role-each")

    line = (
        "pod-identity-lab-s3-reader-role serves default/s3-reader, demo/s3-reader, "
        "and its policies do not tell them apart by tags"
    )
    check("AUD-104", expected=("fail", [line]), observed=(found.status, list(found.evidence)))


@requirement("AUD-104")
def test_2_session_tags(auditor: Auditor, cluster: Cluster, aws: AwsAccount) -> None:
    """An association that sends no tags is named."""
    (arn,) = {one.role_arn for one in auditor.look().associations if one.namespace == "alb-system"}
    sound = auditor.point("02-session-tags")
    with aws.association(cluster.name, "demo", "untagged", arn, disableSessionTags=True):
        found = auditor.point("02-session-tags")

    check("AUD-104", what="met", expected="pass", observed=sound.status)
    expected = ("fail", ["demo/untagged has disableSessionTags"])
    check("AUD-104", what="not met", expected=expected, observed=(found.status, list(found.evidence)))


@requirement("AUD-104")
def test_3_and_5_boundary_and_tags(auditor: Auditor, aws: AwsAccount) -> None:
    """Roles as the article makes them have neither; with a boundary and three tags a role is no longer named."""
    iam, name = aws.client("iam"), "pod-identity-lab-eso-role"
    before = auditor.point("03-boundary"), auditor.point("05-tags")
    iam.put_role_permissions_boundary(RoleName=name, PermissionsBoundary="arn:aws:iam::aws:policy/PowerUserAccess")
    tags = {"cluster": "pod-identity-lab", "purpose": "secrets", "managed-by": "terraform"}
    iam.tag_role(RoleName=name, Tags=[{"Key": key, "Value": value} for key, value in tags.items()])
    after = auditor.point("03-boundary"), auditor.point("05-tags")

    lines = [f"{name} has no permissions boundary", f"{name} lacks cluster, purpose, managed-by"]
    for line, first, second in zip(lines, before, after, strict=True):
        check("AUD-104", what=f"{first.id} not met", expected=True, observed=line in first.evidence)
        check("AUD-104", what=f"{first.id} met", expected=False, observed=any(name in one for one in second.evidence))


@requirement("AUD-104")
def test_4_hop_limit(auditor: Auditor, lab: Lab, cluster: Cluster) -> None:
    """A node whose metadata pods reach is named, and so is one that serves IMDSv1; EC2 closes them again."""
    name, observed = "04-hop-limit", [auditor.point("04-hop-limit")]
    try:
        lab.set_metadata_options(cluster, hop_limit=2)
        observed.append(auditor.point(name))
        lab.set_metadata_options(cluster, tokens_required=False)
        observed.append(auditor.point(name))
    finally:
        lab.set_metadata_options(cluster)
    observed.append(auditor.point(name))

    nodes, fine = sorted(node.name for node in cluster.nodes), "HttpTokens=required, HttpPutResponseHopLimit=1"
    expected = [
        ("pass", [f"{len(nodes)} nodes with {fine}"]),
        ("fail", [f"node {node}: HttpTokens=required, HttpPutResponseHopLimit=2" for node in nodes]),
        ("fail", [f"node {node}: HttpTokens=optional, HttpPutResponseHopLimit=1" for node in nodes]),
        ("pass", [f"{len(nodes)} nodes with {fine}"]),
    ]
    check("AUD-104", expected=expected, observed=[(one.status, sorted(one.evidence)) for one in observed])


@requirement("AUD-104")
def test_12_node_role(auditor: Auditor, aws: AwsAccount) -> None:
    """A policy that nodes have no need of is named: whoever takes a node over has it."""
    name, policy = "pod-identity-lab-node-role", "arn:aws:iam::aws:policy/AdministratorAccess"
    sound = auditor.point("12-node-role")
    with aws.attached(f"arn:aws:iam::123456789012:role/{name}", policy):
        found = auditor.point("12-node-role")

    check("AUD-104", what="met", expected="pass", observed=sound.status)
    expected = ("fail", [f"{name} has {policy}"])
    check("AUD-104", what="not met", expected=expected, observed=(found.status, list(found.evidence)))


@requirement("AUD-104", "AUD-105")
def test_6_managed_as_code(auditor: Auditor, cluster: Cluster, aws: AwsAccount) -> None:
    """What a tool left on an association counts; without it the audit does not know, and does not pretend to."""
    before = auditor.point("06-as-code")
    eks = aws.client("eks")
    for one in auditor.look().associations:
        arn = eks.describe_pod_identity_association(clusterName=cluster.name, associationId=one.id)
        eks.tag_resource(resourceArn=arn["association"]["associationArn"], tags={"managed-by": "terraform"})
    after = auditor.point("06-as-code")

    check("AUD-105", expected=("unknown", 6), observed=(before.status, len(before.evidence)))
    check("AUD-104", expected="pass", observed=after.status)


@requirement("AUD-104", "AUD-105")
def test_7_and_8_agent_and_addon(auditor: Auditor, cluster: Cluster, aws: AwsAccount, kube: Kube) -> None:
    """Without the add-on both points fail; with it the version is the newest, and an alert cannot be seen from here."""
    with without_agent(cluster, aws, kube):
        missing = auditor.point("07-agent"), auditor.point("08-addon")
    agent, addon = auditor.point("07-agent"), auditor.point("08-addon")

    check("AUD-104", what="not installed", expected=["fail", "fail"], observed=[one.status for one in missing])
    check(
        "AUD-104",
        what="add-on",
        expected=("pass", "v1.3.10-eksbuild.2, ACTIVE"),
        observed=(addon.status, addon.evidence[0]),
    )
    nodes = len(cluster.nodes)
    check(
        "AUD-105", expected=("unknown", f"{nodes} of {nodes} agents ready"), observed=(agent.status, agent.evidence[0])
    )


@requirement("AUD-104")
def test_10_irsa_beside_an_association(auditor: Auditor, kube: Kube) -> None:
    """An annotation of IRSA on an associated ServiceAccount is named with both roles."""
    role = "arn:aws:iam::123456789012:role/old-irsa-role"
    annotate(kube, "team-a", "app", {"eks.amazonaws.com/role-arn": role})
    found = auditor.point("10-irsa-beside")
    annotate(kube, "team-a", "app", {"eks.amazonaws.com/role-arn": None})

    line = f"team-a/app: association for pod-identity-lab-abac-role, and eks.amazonaws.com/role-arn={role}"
    check("AUD-104", what="not met", expected=("fail", [line]), observed=(found.status, list(found.evidence)))
    check("AUD-104", what="met", expected="pass", observed=auditor.point("10-irsa-beside").status)


def annotate(kube: Kube, namespace: str, account: str, annotations: Mapping[str, str | None]) -> None:
    """``kubectl annotate serviceaccount``."""
    kube.core.patch_namespaced_service_account(account, namespace, {"metadata": {"annotations": dict(annotations)}})


# --- The command ----------------------------------------------------------------------------------------------------


@requirement("AUD-105")
def test_nothing_passes_unread(kube: Kube, cluster: Cluster, aws: AwsAccount) -> None:
    """Whoever may read nothing in the account is told of each point why it is not known, and of drift none."""
    with somebody(aws, cluster, []) as client:
        inventory = gather(kube, client, cluster.name)

    checks = {one.id: one for one in run_checks(inventory, [])}
    unread = sorted(set(checks) - {"07-agent"})
    check("AUD-105", expected=dict.fromkeys(unread, "unknown"), observed={name: checks[name].status for name in unread})
    silent = [name for name in unread if "not authorized to perform" not in " ".join(checks[name].evidence)]
    check("AUD-105", what="why", expected=[], observed=silent)


@contextlib.contextmanager
def somebody(aws: AwsAccount, cluster: Cluster, policies: Sequence[str]) -> Generator[Callable[[str], Any]]:
    """Yield what makes clients for a role with these policies."""
    trust = {"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::123456789012:root"}, "Action": "sts:AssumeRole"}
    with aws.role("audit-somebody", json.dumps({"Version": "2012-10-17", "Statement": trust}), policies) as arn:
        keys = aws.client("sts").assume_role(RoleArn=arn, RoleSessionName="auditor")["Credentials"]
        secrets = (keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"])
        session: Any = boto3.Session(*secrets, cluster.spec.region)
        yield partial(session.client, endpoint_url=aws.endpoint)


@pytest.fixture
def reader(kube: Kube, cluster: Cluster, auditor: Auditor, tmp_path: Path) -> Iterator[Kube]:
    """A client of the cluster that may do what the fixtures' ClusterRole says, and nothing else."""
    assert auditor
    (role,) = load_manifests(FILES / "reader.yaml")
    kube.create_service_account("reader", "demo")
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "audit-reader"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role["metadata"]["name"]},
        "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": "demo"}],
    }
    kube.apply([role, binding])
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    config["users"] = [
        {"name": one["name"], "user": {"token": kube.token("reader", "demo", cluster.spec.issuer)}}
        for one in config["users"]
    ]
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(config))
    try:
        with contextlib.closing(Kube(file)) as client:
            yield client
    finally:
        kube.delete(binding)
        kube.delete(role)


@requirement("AUD-105")
def test_documented_rights_leave_nothing_unread(
    auditor: Auditor, reader: Kube, cluster: Cluster, aws: AwsAccount
) -> None:
    """The policy and the ClusterRole of the fixtures show an audit, and a migration, all that an administrator sees."""
    policy = (FILES / "reader-policy.json").read_text()
    with aws.policy("audit-reader", policy) as policy_arn, somebody(aws, cluster, [policy_arn]) as client:
        seen = gather(reader, client, cluster.name)
        plan = migrate.gather(reader, client("eks"), client("iam"), cluster.name)

    whole = auditor.look()
    check("AUD-105", what="unread", expected={}, observed=dict(seen.gaps))
    check("AUD-105", what="the same points", expected=verdicts(whole), observed=verdicts(seen))
    check("AUD-105", what="unread by a migration", expected={}, observed=dict(plan.unread))
    pairs = sorted((one.namespace, one.name) for one in plan.accounts)
    assert pairs == sorted((namespace, account) for namespace, account, _ in ASSOCIATIONS)


def verdicts(inventory: Inventory) -> dict[str, str]:
    return {one.id: one.status for one in run_checks(inventory)}


@requirement("AUD-106", "AUD-107")
def test_command_has_three_formats_and_only_reads(
    auditor: Auditor, lab: Lab, cluster: Cluster, aws: AwsAccount, tmp_path: Path
) -> None:
    """Text, JSON and SARIF tell the same points; a JSON report is what ``--diff`` reads; AWS was asked, not told."""
    checks = run_checks(auditor.look())
    points = {one.id: one.status for one in checks}
    journal = lab.control().journal()
    first = 1 + int(journal[-1]["number"])

    told = podid_audit(lab, cluster, "--json")
    old = tmp_path / "old.json"
    old.write_text(told.stdout)
    text = podid_audit(lab, cluster, "--diff", str(old))
    sarif = podid_audit(lab, cluster, "--format", "sarif")

    marks = {"pass": "pass   ", "fail": "FAIL   ", "unknown": "unknown"}
    compared = points | {"09-audit": "pass"}
    shown = [*TABLE.splitlines(), *(f"{marks[status]}  {name}" for name, status in compared.items())]
    report, log = json.loads(told.stdout), json.loads(sarif.stdout)
    codes = [done.returncode for done in (told, text, sarif)]
    check("AUD-107", what="exit codes", expected=[1, 1, 1], observed=codes)
    check("AUD-107", what="JSON", expected=points, observed={one["id"]: one["status"] for one in report["checks"]})
    (run,) = log["runs"]
    check(
        "AUD-107",
        what="SARIF",
        expected=sorted(points),
        observed=sorted(rule["id"] for rule in run["tool"]["driver"]["rules"]),
    )
    failed = {one["ruleId"] for one in run["results"] if one["kind"] == "fail"}
    check(
        "AUD-107",
        what="SARIF results",
        expected={name for name, state in points.items() if state == "fail"},
        observed=failed,
    )
    check("AUD-107", what="text", expected=[], observed=[line for line in shown if line not in text.stdout])
    administrator = aws.client("sts").get_caller_identity()["Arn"]
    calls = [entry for entry in lab.control().journal(first) if entry["principal"] == administrator]
    operations = {str(entry["operation"]) for entry in calls if entry["operation"]}
    assert {"ListPodIdentityAssociations", "GetRole", "DescribeInstances"} <= operations
    changing = sorted(name for name in operations if not name.startswith(("Get", "List", "Describe")))
    check("AUD-106", expected=[], observed=changing)


def podid_audit(lab: Lab, cluster: Cluster, *options: str) -> subprocess.CompletedProcess[str]:
    """Run ``podid audit`` on the lab."""
    command = [str(Path(sys.executable).with_name("podid")), "audit", "--lab", lab.name, "--cluster", cluster.name]
    return subprocess.run([*command, *options], capture_output=True, text=True, timeout=300, check=False)
