"""The seven steps of a migration, and which is the next for a ServiceAccount. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.audit import Association, Role, account_of
from harness.migrate.trust import refused

__all__ = ["ANNOTATION", "Account", "Picture", "PodUse", "Step", "plan"]

ANNOTATION = "eks.amazonaws.com/role-arn"
Mechanism = Literal["irsa", "pod-identity", "both", "none"]
_TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "pods.eks.amazonaws.com"},
            "Action": ["sts:AssumeRole", "sts:TagSession"],
        }
    ],
}
_NEW = "-pod-identity"
_LONGEST_ROLE = 64
"""Characters that IAM takes for a role's name."""


@dataclass(frozen=True, slots=True)
class PodUse:
    """A pod that runs, and what admission gave it."""

    name: str
    mechanism: Mechanism
    workload: str
    """What restarts it, as kubectl names it: ``deployment/app``; empty for a pod of its own."""
    stays_with_irsa: str = ""
    """Why Pod Identity cannot serve it: it is on Fargate or on Windows."""
    ends_by_itself: bool = False
    """It is a Job's: a restart would lose its work, and the next one is injected by itself."""


@dataclass(frozen=True, slots=True)
class Account:
    """A ServiceAccount that has a role, by whichever mechanism."""

    namespace: str
    name: str
    irsa_role_arn: str
    """Of its annotation; empty without."""
    association: Association | None
    pods: Sequence[PodUse]
    exists: bool = True
    """Whether there is such a ServiceAccount; an association may name one that is not there."""

    @property
    def pair(self) -> str:
        """Namespace and name."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Picture:
    """A cluster on its way."""

    cluster_arn: str
    accounts: Sequence[Account]
    roles: Mapping[str, Role | None]
    """ARN → role; None for one that is gone."""
    unread: Mapping[str, str]
    """ARN of a role that could not be read → why."""
    agent: Literal["missing", "not ready", "ready"]
    """Of the nodes that need one; a cluster of EKS Auto Mode has it built in."""

    @property
    def cluster(self) -> str:
        """The cluster's name."""
        return self.cluster_arn.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Step:
    """Where a ServiceAccount is."""

    account: str
    number: int
    """The guide's number of the next step; 0 when it keeps IRSA, 8 when it is done."""
    what: str
    commands: Sequence[str]
    wrong: Sequence[str]
    """What would break, or has broken already."""
    unknown: Sequence[str]
    """What could not be told, and why."""


def plan(picture: Picture) -> list[Step]:
    """Return the next step of every ServiceAccount that has a role."""
    return [_step(account, picture) for account in sorted(picture.accounts, key=lambda account: account.pair)]


def _step(account: Account, picture: Picture) -> Step:
    number, what, commands = _next(account, picture)
    wrong, unknown = _judge(account, picture)
    return Step(account.pair, number, what, commands, wrong, unknown)


def _next(account: Account, picture: Picture) -> tuple[int, str, Sequence[str]]:
    if account.irsa_role_arn and any(pod.stays_with_irsa for pod in account.pods):
        return 0, "keep IRSA: " + _reasons(account), []
    if account.association is None:
        return _associate(account, picture)
    if not account.exists:
        remove = f"aws eks delete-pod-identity-association --cluster-name {picture.cluster}"
        return (
            4,
            "associate a ServiceAccount that is there",
            [f"{remove} --association-id {account.association.id}"],
        )
    return _move(account, account.association)


def _move(account: Account, association: Association) -> tuple[int, str, Sequence[str]]:
    others = [pod for pod in account.pods if pod.mechanism != "pod-identity" and not pod.stays_with_irsa]
    ending = [pod.name for pod in others if pod.ends_by_itself]
    if behind := [pod for pod in others if not pod.ends_by_itself]:
        names = ", ".join(pod.name for pod in behind)
        return 5, f"restart what still runs without Pod Identity: {names}", _restarts(account, behind)
    if account.irsa_role_arn:
        remove = f"kubectl --namespace {account.namespace} annotate serviceaccount {account.name} {ANNOTATION}-"
        return 6, "remove the annotation; keep the old role for a day or two, for the way back", [remove]
    if ending:
        return 7, f"keep the old role until {', '.join(ending)} ended", []
    done = f"done: Pod Identity alone, role {association.role}; delete the old role when nobody needs the way back"
    return 8, done, []


def _associate(account: Account, picture: Picture) -> tuple[int, str, Sequence[str]]:
    cluster, old = picture.cluster, account.irsa_role_arn.rpartition("/")[2]
    if picture.agent == "missing":
        addon = f"aws eks create-addon --cluster-name {cluster} --addon-name eks-pod-identity-agent"
        return 2, "install the agent", [addon]
    if picture.agent == "not ready":
        look = "kubectl --namespace kube-system rollout status daemonset/eks-pod-identity-agent"
        return 2, "wait until the agent is ready on every node", [look]
    role, new = picture.roles.get(account.irsa_role_arn), f"{old[: _LONGEST_ROLE - len(_NEW)]}{_NEW}"
    partition, owner = picture.cluster_arn.split(":")[1], account_of(picture.cluster_arn)
    commands = [
        f"aws iam create-role --role-name {new} --assume-role-policy-document '{json.dumps(_TRUST)}'",
        *(command for name in (role.policies if role else ()) for command in _grant(name, old, new)),
        (
            f"aws eks create-pod-identity-association --cluster-name {cluster} --namespace {account.namespace} "
            f"--service-account {account.name} --role-arn arn:{partition}:iam::{owner}:role/{new}"
        ),
    ]
    names = ", ".join(role.policies) if role else "its policies"
    what = f"create a role that trusts pods.eks.amazonaws.com and has what {old} has ({names}), and associate it"
    return 3, what, commands


def _grant(policy: str, old: str, new: str) -> list[str]:
    """Return the commands that give the new role a policy of the old one."""
    if policy.startswith("arn:"):
        return [f"aws iam attach-role-policy --role-name {new} --policy-arn {policy}"]
    read = f"aws iam get-role-policy --role-name {old} --policy-name {policy} --query PolicyDocument"
    return [f'aws iam put-role-policy --role-name {new} --policy-name {policy} --policy-document "$({read})"']


def _reasons(account: Account) -> str:
    return "; ".join(f"{pod.name} is {pod.stays_with_irsa}" for pod in account.pods if pod.stays_with_irsa)


def _restarts(account: Account, pods: Sequence[PodUse]) -> list[str]:
    commands: dict[str, None] = {}
    for pod in pods:
        command = f"rollout restart {pod.workload}" if pod.workload else f"delete pod {pod.name}"
        commands[f"kubectl --namespace {account.namespace} {command}"] = None
    return list(commands)


def _judge(account: Account, picture: Picture) -> tuple[list[str], list[str]]:
    """Return what is wrong, and what could not be told."""
    association = account.association
    faults = _broken(account, picture)
    if account.association and not account.exists:
        faults.append("the association names a ServiceAccount that is not there; names are case-sensitive")
    if association is None:
        return faults, []
    if picture.agent != "ready":
        faults.append("the agent is not ready on every node: pods that restart now get no credentials there")
    if stay := [pod.name for pod in account.pods if pod.stays_with_irsa]:
        faults.append(f"{', '.join(stay)} cannot use Pod Identity ({_reasons(account)}), and its association wins")
    own = dict.fromkeys([association.role_arn, association.effective_role_arn])
    faults += [f"the association's role {arn} is gone" for arn in own if picture.roles.get(arn, account) is None]
    arns = dict.fromkeys([*own, account.irsa_role_arn])
    unknown = [f"{arn} could not be read: {picture.unread[arn]}" for arn in arns if arn in picture.unread]
    if role := picture.roles.get(association.role_arn):
        actions, keys = refused(role, association, picture.cluster_arn)
        told = f"{role.name} does not let pods.eks.amazonaws.com do {', '.join(actions)}"
        if actions and keys:
            unknown.append(f"{told}, unless {', '.join(keys)} of a pod's call says otherwise")
        elif actions:
            faults.append(told)
    if role := picture.roles.get(association.effective_role_arn):
        faults += _lost_permissions(picture.roles.get(account.irsa_role_arn), role)
    return faults, unknown


def _broken(account: Account, picture: Picture) -> list[str]:
    """Return what is wrong with pods that run with IRSA."""
    with_irsa = [pod for pod in account.pods if pod.mechanism in {"irsa", "both"}]
    names = ", ".join(pod.name for pod in with_irsa)
    faults: list[str] = []
    if account.irsa_role_arn and with_irsa and picture.roles.get(account.irsa_role_arn, account) is None:
        faults.append(f"{names} run as {account.irsa_role_arn}, which is gone")
    if not account.irsa_role_arn and (left := [pod.name for pod in with_irsa if not pod.ends_by_itself]):
        faults.append(f"{', '.join(left)} still run as IRSA's role, and the annotation is gone: restart, then delete")
    return faults


def _lost_permissions(old: Role | None, new: Role) -> list[str]:
    """Return the policies of the old role that the new one has not: managed ones by ARN, all by content."""
    if old is None:
        return []
    known = [_normal(document) for document in new.policies.values()]
    lost = [
        name
        for name, document in old.policies.items()
        if not (name.startswith("arn:") and name in new.policies) and _normal(document) not in known
    ]
    return [f"{new.name} lacks {name} of {old.name}" for name in lost]


def _normal(document: Any) -> str:
    return json.dumps(document, sort_keys=True)
