"""Which step of a migration is next, and what is wrong: without a cluster."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import Any

import pytest

from harness.audit import Association, Role
from harness.migrate import Account, Picture, PodUse, Step, plan

OLD, NEW = "arn:aws:iam::123456789012:role/old", "arn:aws:iam::123456789012:role/new"
CLUSTER = "arn:aws:eks:eu-west-1:123456789012:cluster/lab"
TRUST: dict[str, Any] = {
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "pods.eks.amazonaws.com"},
            "Action": ["sts:AssumeRole", "sts:TagSession"],
        }
    ]
}
READ = {"Statement": [{"Effect": "Allow", "Action": "s3:GetObject"}]}
ASSOCIATION = Association("demo", "app", "a-1", NEW)
WITH_IRSA = PodUse("app-1", "irsa", "deployment/app")
JOB = PodUse("report-1", "irsa", "", ends_by_itself=True)
MOVED = PodUse("app-2", "pod-identity", "deployment/app")
ROLES = {OLD: Role("old", policies={"p": READ}), NEW: Role("new", policies={"inline": READ}, trust=TRUST)}
BEGIN = Account("demo", "app", OLD, None, [WITH_IRSA])


def step_of(account: Account, **changes: Any) -> Step:
    (step,) = plan(replace(Picture(CLUSTER, [account], ROLES, {}, "ready"), **changes))
    return step


def trusting(**changes: Any) -> Role:
    """The new role, with another trust policy."""
    return Role("new", policies={"inline": READ}, trust={"Statement": [{**TRUST["Statement"][0], **changes}]})


@pytest.mark.parametrize(
    ("account", "number"),
    [
        (BEGIN, 3),
        (replace(BEGIN, association=ASSOCIATION), 5),
        (replace(BEGIN, association=ASSOCIATION, pods=[MOVED, WITH_IRSA]), 5),
        (replace(BEGIN, association=ASSOCIATION, pods=[MOVED]), 6),
        (replace(BEGIN, association=ASSOCIATION, pods=[]), 6),
        (replace(BEGIN, association=ASSOCIATION, irsa_role_arn="", pods=[PodUse("x", "none", "")]), 5),
        (replace(BEGIN, association=ASSOCIATION, irsa_role_arn="", pods=[MOVED]), 8),
        (replace(BEGIN, pods=[replace(WITH_IRSA, stays_with_irsa="on Fargate")]), 0),
        (replace(BEGIN, association=ASSOCIATION, irsa_role_arn="", pods=[], exists=False), 4),
        (replace(BEGIN, association=ASSOCIATION, pods=[MOVED, JOB]), 6),
        (replace(BEGIN, association=ASSOCIATION, irsa_role_arn="", pods=[MOVED, JOB]), 7),
    ],
)
def test_the_next_step_follows_from_what_is_there(account: Account, number: int) -> None:
    assert step_of(account).number == number


def test_the_agent_comes_first() -> None:
    missing, late = step_of(BEGIN, agent="missing"), step_of(BEGIN, agent="not ready")

    assert (missing.number, late.number) == (2, 2)
    assert "create-addon" in missing.commands[0]
    assert "rollout status" in late.commands[0]


def test_the_new_role_gets_what_the_old_one_has() -> None:
    old = Role("old", policies={"arn:aws:iam::aws:policy/ReadOnlyAccess": {}, "own": READ})

    assert [shlex.split(command)[:5] for command in step_of(BEGIN, roles={OLD: old}).commands] == [
        ["aws", "iam", "create-role", "--role-name", "old-pod-identity"],
        ["aws", "iam", "attach-role-policy", "--role-name", "old-pod-identity"],
        ["aws", "iam", "put-role-policy", "--role-name", "old-pod-identity"],
        ["aws", "eks", "create-pod-identity-association", "--cluster-name", "lab"],
    ]


def test_the_new_role_s_name_is_one_that_iam_takes() -> None:
    account = replace(BEGIN, irsa_role_arn=OLD + "x" * 61)

    (name,) = [word for word in shlex.split(step_of(account).commands[0]) if word.endswith("-pod-identity")]
    assert len(name) == 64


def test_a_restart_names_each_workload_once_and_pods_of_their_own() -> None:
    pods = [WITH_IRSA, replace(WITH_IRSA, name="app-9"), PodUse("lonely", "irsa", "")]

    assert step_of(replace(BEGIN, association=ASSOCIATION, pods=pods)).commands == [
        "kubectl --namespace demo rollout restart deployment/app",
        "kubectl --namespace demo delete pod lonely",
    ]


@pytest.mark.parametrize(
    ("account", "roles", "fault"),
    [
        (replace(BEGIN, irsa_role_arn="", association=ASSOCIATION), ROLES, "still run as IRSA's role"),
        (BEGIN, {OLD: None}, "which is gone"),
        (replace(BEGIN, association=ASSOCIATION), {**ROLES, NEW: None}, "the association's role"),
        (
            replace(BEGIN, association=ASSOCIATION),
            {**ROLES, NEW: trusting(Action="sts:AssumeRole")},
            "new does not let pods.eks.amazonaws.com do sts:TagSession",
        ),
        (
            replace(BEGIN, association=ASSOCIATION),
            {**ROLES, NEW: trusting(Effect="Deny")},
            "do sts:AssumeRole, sts:TagSession",
        ),
        (
            replace(BEGIN, association=ASSOCIATION),
            {
                **ROLES,
                NEW: trusting(Condition={"StringEquals": {"aws:RequestTag/kubernetes-namespace": "another"}}),
            },
            "do sts:AssumeRole, sts:TagSession",
        ),
        (
            replace(BEGIN, association=ASSOCIATION),
            {**ROLES, NEW: Role("new", policies={"p": {}}, trust=TRUST)},
            "new lacks p of old",
        ),
        (
            replace(BEGIN, association=ASSOCIATION, irsa_role_arn="", pods=[], exists=False),
            ROLES,
            "a ServiceAccount that is not there",
        ),
        (replace(BEGIN, association=ASSOCIATION), {**ROLES, NEW: Role("new", trust=TRUST)}, "new lacks p of old"),
        (
            replace(BEGIN, association=ASSOCIATION, pods=[replace(WITH_IRSA, stays_with_irsa="on Fargate")]),
            ROLES,
            "cannot use Pod Identity",
        ),
    ],
)
def test_what_is_wrong_is_said(account: Account, roles: dict[str, Role | None], fault: str) -> None:
    (found,) = step_of(account, roles=roles).wrong

    assert fault in found


@pytest.mark.parametrize(
    "condition",
    [
        {"StringEquals": {"aws:RequestTag/kubernetes-namespace": "demo", "aws:SourceAccount": "123456789012"}},
        {"ArnLike": {"aws:SourceArn": "arn:aws:eks:*:123456789012:cluster/*"}},
        {"ForAllValues:StringLike": {"sts:TransitiveTagKeys": ["eks-*", "kubernetes-*"]}},
    ],
)
def test_trust_policies_with_conditions_that_are_met_are_fine(condition: Any) -> None:
    step = step_of(replace(BEGIN, association=ASSOCIATION), roles={**ROLES, NEW: trusting(Condition=condition)})

    assert (step.wrong, step.unknown) == ([], [])


def test_an_association_without_tags_needs_no_tag_session() -> None:
    account = replace(BEGIN, association=replace(ASSOCIATION, has_session_tags=False))

    assert step_of(account, roles={**ROLES, NEW: trusting(Action="sts:AssumeRole")}).wrong == []


def test_what_depends_on_the_pod_is_not_known() -> None:
    pinned = trusting(Condition={"StringLike": {"aws:RequestTag/kubernetes-pod-name": "web-*"}})
    step = step_of(replace(BEGIN, association=ASSOCIATION), roles={**ROLES, NEW: pinned})

    assert step.wrong == []
    assert "unless aws:requesttag/kubernetes-pod-name of a pod's call" in step.unknown[0]


def test_an_agent_that_is_not_ready_is_wrong_once_there_is_an_association() -> None:
    assert "agent is not ready" in step_of(replace(BEGIN, association=ASSOCIATION), agent="missing").wrong[0]
    assert step_of(BEGIN, agent="missing").wrong == []


def test_a_job_that_runs_on_with_irsa_is_no_fault() -> None:
    assert step_of(replace(BEGIN, association=ASSOCIATION, irsa_role_arn="", pods=[MOVED, JOB])).wrong == []


def test_the_same_permissions_under_another_name_are_not_lost() -> None:
    assert step_of(replace(BEGIN, association=ASSOCIATION, pods=[MOVED])).wrong == []


def test_the_target_role_is_what_must_have_the_permissions() -> None:
    target = "arn:aws:iam::123456789012:role/target"
    account = replace(BEGIN, association=replace(ASSOCIATION, target_role_arn=target))
    roles = {OLD: ROLES[OLD], NEW: Role("new", trust=TRUST), target: Role("target", policies={"p": READ})}

    assert step_of(account, roles=roles).wrong == []
    assert step_of(account, roles={**roles, target: Role("target")}).wrong == ["target lacks p of old"]


def test_a_role_that_could_not_be_read_is_unknown_and_never_fine() -> None:
    step = step_of(replace(BEGIN, association=ASSOCIATION), roles={}, unread={NEW: "it is of account 987654321098"})

    assert step.wrong == []
    assert step.unknown == [f"{NEW} could not be read: it is of account 987654321098"]
