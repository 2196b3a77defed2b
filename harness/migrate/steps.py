"""The seven steps of a migration, and which is the next for a ServiceAccount. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.audit import Association, Role

__all__ = ["ANNOTATION", "Account", "Picture", "PodUse", "Step", "plan"]

ANNOTATION = "eks.amazonaws.com/role-arn"
Mechanism = Literal["irsa", "pod-identity", "both", "none"]


@dataclass(frozen=True, slots=True)
class PodUse:
    """A pod that runs, and what admission gave it."""

    name: str
    mechanism: Mechanism
    owner: str
    """What restarts it, as kubectl names it: ``deployment/app``; empty for a pod of its own."""
    stays_with_irsa: str = ""
    """Why Pod Identity cannot serve it: it is on Fargate or on Windows."""


@dataclass(frozen=True, slots=True)
class Account:
    """A ServiceAccount that has a role, by whichever mechanism."""

    namespace: str
    name: str
    irsa_role_arn: str
    """Of its annotation; empty without."""
    association: Association | None
    pods: Sequence[PodUse]

    @property
    def pair(self) -> str:
        """Namespace and name."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Picture:
    """A cluster on its way."""

    cluster: str
    accounts: Sequence[Account]
    roles: Mapping[str, Role | None]
    """ARN → role; None for one that is gone. Roles that may not be read are not in it."""
    has_agent: bool
    """Whether the agent is ready on its nodes."""


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


def plan(picture: Picture) -> list[Step]:
    """Return the next step of every ServiceAccount that has a role."""
    return [_step(account, picture) for account in sorted(picture.accounts, key=lambda account: account.pair)]


def _step(account: Account, picture: Picture) -> Step:
    number, what, commands = _next(account, picture)
    return Step(account.pair, number, what, commands, _wrong(account, picture))


def _next(account: Account, picture: Picture) -> tuple[int, str, Sequence[str]]:
    cluster, association = picture.cluster, account.association
    behind = [pod for pod in account.pods if pod.mechanism != "pod-identity" and not pod.stays_with_irsa]
    if account.irsa_role_arn and any(pod.stays_with_irsa for pod in account.pods):
        return 0, "keep IRSA: " + _reasons(account), []
    if association is None and not picture.has_agent:
        addon = f"aws eks create-addon --cluster-name {cluster} --addon-name eks-pod-identity-agent"
        return 2, "install the agent", [addon]
    if association is None:
        role = account.irsa_role_arn.rpartition("/")[2]
        policies = picture.roles.get(account.irsa_role_arn)
        names = ", ".join(policies.policies) if policies else "its policies"
        return (
            3,
            f"create a role that trusts pods.eks.amazonaws.com and has what {role} has ({names}), and associate it",
            [
                f"aws iam create-role --role-name {role}-pod-identity --assume-role-policy-document file://trust.json",
                (
                    f"aws eks create-pod-identity-association --cluster-name {cluster} --namespace {account.namespace} "
                    f"--service-account {account.name} --role-arn NEW_ROLE_ARN"
                ),
            ],
        )
    if behind:
        return (
            5,
            f"restart what still runs without Pod Identity: {', '.join(p.name for p in behind)}",
            _restarts(account, behind),
        )
    if account.irsa_role_arn:
        remove = f"kubectl --namespace {account.namespace} annotate serviceaccount {account.name} {ANNOTATION}-"
        return 6, "remove the annotation; keep the old role for a day or two, for the way back", [remove]
    return (
        8,
        f"done: Pod Identity alone, role {association.role}; delete the old role when nobody needs the way back",
        [],
    )


def _reasons(account: Account) -> str:
    return "; ".join(f"{pod.name} is {pod.stays_with_irsa}" for pod in account.pods if pod.stays_with_irsa)


def _restarts(account: Account, pods: Sequence[PodUse]) -> list[str]:
    commands: dict[str, None] = {}
    for pod in pods:
        command = f"rollout restart {pod.owner}" if pod.owner else f"delete pod {pod.name}"
        commands[f"kubectl --namespace {account.namespace} {command}"] = None
    return list(commands)


def _wrong(account: Account, picture: Picture) -> list[str]:
    faults: list[str] = []
    association = account.association
    with_irsa = [pod.name for pod in account.pods if pod.mechanism in {"irsa", "both"}]
    if with_irsa and not account.irsa_role_arn:
        faults.append(
            f"{', '.join(with_irsa)} still run as IRSA's role, and the annotation is gone: restart, then delete"
        )
    if with_irsa and account.irsa_role_arn and picture.roles.get(account.irsa_role_arn, account) is None:
        faults.append(f"{', '.join(with_irsa)} run as {account.irsa_role_arn}, which is gone")
    if association and not picture.has_agent:
        faults.append("the agent is not ready on every node: pods that restart now get no credentials there")
    if association and (stay := [pod.name for pod in account.pods if pod.stays_with_irsa]):
        faults.append(f"{', '.join(stay)} cannot use Pod Identity ({_reasons(account)}), and its association wins")
    if association is None:
        return faults
    role = picture.roles.get(association.role_arn, account)
    if role is None:
        return [*faults, f"the association's role {association.role_arn} is gone"]
    if isinstance(role, Role):
        if "pods.eks.amazonaws.com" not in json.dumps(role.trust):
            faults.append(f"{role.name} does not trust pods.eks.amazonaws.com")
        faults += _lost_permissions(picture.roles.get(account.irsa_role_arn), role)
    return faults


def _lost_permissions(old: Role | None, new: Role) -> list[str]:
    """Return the policies of the old role that the new one has neither by name nor by content."""
    if old is None:
        return []
    known = [_normal(document) for document in new.policies.values()]
    lost = [
        name for name, document in old.policies.items() if name not in new.policies and _normal(document) not in known
    ]
    return [f"{new.name} lacks {name} of {old.name}" for name in lost]


def _normal(document: Any) -> str:
    return json.dumps(document, sort_keys=True)
