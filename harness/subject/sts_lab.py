"""STS over an IAM that a test arranges, and the callers of the worked examples."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from harness.cloud.ports import Credential, NamedPolicy, Principal, Refusal, Role
from harness.cloud.sts import AssumedRole, AssumeRoleRequest, assume_role
from harness.subject.cloud_ports import SeededIds, SettableClock, StoredIam

A = "123456789012"
B = "210987654321"
ALICE = f"arn:aws:iam::{A}:user/alice"
TARGET = f"arn:aws:iam::{A}:role/team/target"
NOTES = f"arn:aws:iam::{A}:role/notes-app"
NOTES_SESSION = f"arn:aws:sts::{A}:assumed-role/notes-app/eks-pod-identi-notes-1"
CLUSTER_ARN = f"arn:aws:eks:eu-west-1:{A}:cluster/pod-identity-lab"
SIX_TAGS = {
    "eks-cluster-arn": CLUSTER_ARN,
    "eks-cluster-name": "pod-identity-lab",
    "kubernetes-namespace": "team-a",
    "kubernetes-service-account": "app",
    "kubernetes-pod-name": "test",
    "kubernetes-pod-uid": "2b4e8f3c-1d55-4f0e-9a5e-6a1f0c7d9b21",
}
ALL_STS = ("sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity")
PODS = Principal(kind="service", arn="", account="", user_id="", service="pods.eks.amazonaws.com")
START = datetime(2026, 4, 10, 14, 0, tzinfo=UTC)


def policy(*statements: dict[str, Any]) -> str:
    """Return a document of these statements."""
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def trust(principal: Any, *actions: str, condition: Any = None) -> str:
    """T(x) of the examples."""
    statement = {"Effect": "Allow", "Principal": principal, "Action": list(actions or ["sts:AssumeRole"])}
    return policy(statement | ({"Condition": condition} if condition else {}))


def allow(*actions: str, resource: str = "*") -> NamedPolicy:
    """Return an identity policy that allows these actions."""
    return NamedPolicy("inline:allow", policy({"Effect": "Allow", "Action": list(actions), "Resource": resource}))


def user(**changes: Any) -> Credential:
    """Return alice's long-term key."""
    principal = Principal(kind="user", arn=ALICE, account=A, user_id="AIDAEXAMPLEEXAMPLE12")
    values: dict[str, Any] = {"principal": principal, "issued_at": START, "expires_at": None, "origin": "iam-user"}
    return Credential("AKIAEXAMPLE", "secret", None, **values | changes)


def pod_session(tags: dict[str, str] = SIX_TAGS, **changes: Any) -> Credential:
    """A Pod Identity session of notes-app."""
    principal = Principal(
        kind="role-session",
        arn=NOTES_SESSION,
        account=A,
        user_id="AROANOTESNOTESNOTES12:eks-pod-identi-notes-1",
        role_arn=NOTES,
        tags=tags,
    )
    values: dict[str, Any] = {
        "principal": principal,
        "issued_at": START,
        "expires_at": START + timedelta(hours=6),
        "transitive_tags": tags,
        "session_name": "eks-pod-identi-notes-1",
        "origin": "pod-identity",
    }
    return Credential("ASIAEXAMPLE", "secret", "token", **values | changes)


@dataclass
class Lab:
    """IAM as a test arranges it, and STS over it."""

    iam: StoredIam = field(default_factory=StoredIam)
    clock: SettableClock = field(default_factory=SettableClock)
    ids: SeededIds = field(default_factory=SeededIds)

    @classmethod
    def trusting_the_account(cls) -> Lab:
        """Alice may assume and tag the target role, which trusts her account."""
        lab = cls()
        lab.role(TARGET, trust({"AWS": f"arn:aws:iam::{A}:root"}, *ALL_STS))
        lab.role(NOTES, trust({"Service": "pods.eks.amazonaws.com"}, *ALL_STS), [allow(*ALL_STS)])
        lab.user(allow(*ALL_STS))
        return lab

    def role(self, arn: str, trust_policy: str, policies: Sequence[NamedPolicy] = (), **changes: Any) -> None:
        """Store a role."""
        name, account = arn.rpartition("/")[2], arn.split(":")[4]
        role_id = "AROANOTESNOTESNOTES12" if arn == NOTES else "AROATARGETTARGETTAR12"
        values: dict[str, Any] = {"boundary": None, "tags": {}}
        self.iam.roles[arn] = Role(arn, name, role_id, account, trust_policy, tuple(policies), **values | changes)

    def user(self, *policies: NamedPolicy) -> None:
        """Give alice these policies."""
        self.iam.users = {ALICE: policies}

    def assume(self, caller: Credential | Principal, role: str = TARGET, **changes: Any) -> AssumedRole:
        """Call AssumeRole; what is no parameter of AWS goes to the function."""
        outside = {"source_arn", "source_account", "inherited_as_request_tags", "context", "managed_policy"}
        options: dict[str, Any] = {name: value for name, value in changes.items() if name in outside}
        values: dict[str, Any] = {"role_session_name": "me"} | {k: v for k, v in changes.items() if k not in outside}
        request = AssumeRoleRequest(role_arn=role, **values)
        return assume_role(request, caller, self.iam, self.ids, self.clock, **options)

    def refusal(self, caller: Credential | Principal, role: str = TARGET, **changes: Any) -> tuple[int, str, str]:
        """Return how the call was refused."""
        with pytest.raises(Refusal) as refusal:
            self.assume(caller, role, **changes)
        return refusal.value.status, refusal.value.code, refusal.value.message


def denied(action: str, caller: str = ALICE, role: str = TARGET) -> tuple[int, str, str]:
    """Return the refusal of a call that policies do not allow."""
    return 403, "AccessDenied", f"User: {caller} is not authorized to perform: {action} on resource: {role}"
