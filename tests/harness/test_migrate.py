"""Which step of a migration is next, and what is wrong: without a cluster."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.audit import Association, Role
from harness.migrate import Account, Picture, PodUse, plan

OLD, NEW = "arn:aws:iam::123456789012:role/old", "arn:aws:iam::123456789012:role/new"
TRUST = {"Statement": [{"Effect": "Allow", "Principal": {"Service": "pods.eks.amazonaws.com"}}]}
READ = {"Statement": [{"Effect": "Allow", "Action": "s3:GetObject"}]}
ASSOCIATION = Association("demo", "app", "a-1", NEW)
WITH_IRSA = PodUse("app-1", "irsa", "deployment/app")
MOVED = PodUse("app-2", "pod-identity", "deployment/app")
ROLES = {OLD: Role("old", policies={"p": READ}), NEW: Role("new", policies={"inline": READ}, trust=TRUST)}
BEGIN = Account("demo", "app", OLD, None, [WITH_IRSA])


def one(account: Account, **changes: object) -> tuple[int, list[str], list[str]]:
    picture = Picture("lab", [account], ROLES, has_agent=True)
    (step,) = plan(replace(picture, **changes))  # type: ignore[arg-type]
    return step.number, list(step.commands), list(step.wrong)


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
    ],
)
def test_the_next_step_follows_from_what_is_there(account: Account, number: int) -> None:
    assert one(account)[0] == number


def test_the_agent_comes_first() -> None:
    assert one(BEGIN, has_agent=False)[0] == 2


def test_a_restart_names_each_workload_once_and_pods_of_their_own() -> None:
    pods = [WITH_IRSA, replace(WITH_IRSA, name="app-9"), PodUse("lonely", "irsa", "")]

    assert one(replace(BEGIN, association=ASSOCIATION, pods=pods))[1] == [
        "kubectl --namespace demo rollout restart deployment/app",
        "kubectl --namespace demo delete pod lonely",
    ]


@pytest.mark.parametrize(
    ("account", "roles", "fault"),
    [
        (replace(BEGIN, irsa_role_arn="", association=ASSOCIATION), ROLES, "still run as IRSA's role"),
        (BEGIN, {OLD: None}, "which is gone"),
        (replace(BEGIN, association=ASSOCIATION), {**ROLES, NEW: None}, "the association's role"),
        (replace(BEGIN, association=ASSOCIATION), {**ROLES, NEW: Role("new", policies={"p": READ})}, "does not trust"),
        (replace(BEGIN, association=ASSOCIATION), {**ROLES, NEW: Role("new", trust=TRUST)}, "new lacks p of old"),
        (
            replace(BEGIN, association=ASSOCIATION, pods=[replace(WITH_IRSA, stays_with_irsa="on Fargate")]),
            ROLES,
            "cannot use Pod Identity",
        ),
    ],
)
def test_what_is_wrong_is_said(account: Account, roles: dict[str, Role | None], fault: str) -> None:
    (found,) = one(account, roles=roles)[2]

    assert fault in found


def test_an_agent_that_is_not_ready_is_wrong_once_there_is_an_association() -> None:
    assert "agent is not ready" in one(replace(BEGIN, association=ASSOCIATION), has_agent=False)[2][0]
    assert one(BEGIN, has_agent=False)[2] == []


def test_the_same_permissions_under_another_name_are_not_lost() -> None:
    assert one(replace(BEGIN, association=ASSOCIATION, pods=[MOVED]))[2] == []


def test_a_role_that_may_not_be_read_is_not_judged() -> None:
    assert one(replace(BEGIN, association=ASSOCIATION), roles={})[2] == []
