"""A pod's token exchanged for credentials, over the domain of EKS Auth and a lab with one cluster."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from harness.cloud.credentials import CredentialRegistry
from harness.cloud.eks import EksSettings
from harness.cloud.eks_auth import AssumedForPod, EksAuth
from harness.cloud.ports import NamedPolicy, Refusal
from harness.subject.eks_lab import ACCOUNT, ISSUER, READER, SCOPE, Lab

KEY = rsa.generate_private_key(65537, 2048)
OTHER_KEY = rsa.generate_private_key(65537, 2048)
UUID4 = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
CLUSTER_ARN = f"arn:aws:eks:eu-west-1:{ACCOUNT}:cluster/pod-identity-lab"
POD_UID = "2b4e8f3c-1d55-4f0e-9a5e-6a1f0c7d9b21"
SIX_TAGS = [
    ("eks-cluster-arn", CLUSTER_ARN),
    ("eks-cluster-name", "pod-identity-lab"),
    ("kubernetes-namespace", "demo"),
    ("kubernetes-service-account", "s3-reader"),
    ("kubernetes-pod-name", "s3-test"),
    ("kubernetes-pod-uid", POD_UID),
]
OTHER_ACCOUNT = "210987654321"
TARGET = f"arn:aws:iam::{OTHER_ACCOUNT}:role/lab/target"
EXTERNAL_ID = "eu-west-1/123456789012/pod-identity-lab/demo/s3-reader"
BOTH = ("sts:AssumeRole", "sts:TagSession")
NOT_ASSUMED = (
    400,
    "AccessDeniedException",
    "Unauthorized Exception! EKS does not have permissions to assume the associated role.",
)


def trust(principal: dict[str, str], *actions: str, condition: Any = None) -> str:
    """Return a trust policy; by default for assuming and tagging."""
    statement: dict[str, Any] = {"Effect": "Allow", "Principal": principal, "Action": list(actions or BOTH)}
    if condition:
        statement["Condition"] = condition
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def pods_trust(*actions: str, condition: Any = None) -> str:
    """Return a trust policy for EKS Pod Identity."""
    return trust({"Service": "pods.eks.amazonaws.com"}, *actions, condition=condition)


def allow(*actions: str, resource: str) -> NamedPolicy:
    """Return an inline policy."""
    statement = {"Effect": "Allow", "Action": list(actions), "Resource": resource}
    return NamedPolicy("inline:allow", json.dumps({"Version": "2012-10-17", "Statement": [statement]}))


@dataclass
class Exchange:
    """EKS Auth over a lab with one cluster."""

    lab: Lab
    auth: EksAuth
    credentials: CredentialRegistry

    @classmethod
    def new(cls, settings: EksSettings = EksSettings()) -> Exchange:  # noqa: B008 - immutable
        """Return one whose cluster signs with :data:`KEY`."""
        lab, credentials = Lab.new(settings=settings), CredentialRegistry()
        public = json.loads(RSAAlgorithm.to_jwk(KEY.public_key()))
        lab.clusters.keys = {"keys": [public | {"kid": "k1", "use": "sig", "alg": "RS256"}]}
        auth = EksAuth(lab.eks, lab.clusters, lab.iam, credentials, clock=lab.clock, ids=lab.ids)
        return cls(lab, auth, credentials)

    def token(self, key: rsa.RSAPrivateKey = KEY, pod: str = "s3-test", **changes: Any) -> str:
        """Return a token of demo/s3-reader, good for a day, with some claims changed."""
        now = int(self.lab.clock.now().timestamp())
        claims = {
            "aud": ["pods.eks.amazonaws.com"],
            "exp": now + 86400,
            "nbf": now,
            "iat": now,
            "iss": ISSUER,
            "sub": "system:serviceaccount:demo:s3-reader",
            "kubernetes.io": {
                "namespace": "demo",
                "serviceaccount": {"name": "s3-reader", "uid": "7d1c0f1e-52a4-4a0e-8f57-1f8fd4f1a5b0"},
                "pod": {"name": pod, "uid": POD_UID},
            },
        }
        return jwt.encode(claims | changes, key, algorithm="RS256", headers={"kid": "k1"})

    def assume(self, token: str | None = None, **changes: Any) -> AssumedForPod:
        """Exchange a token, by default a good one."""
        request = {"clusterName": "pod-identity-lab", "token": self.token() if token is None else token}
        return self.auth.assume_role_for_pod_identity(SCOPE, request | changes)

    def refusal(self, token: str | None = None, **changes: Any) -> tuple[int, str, str]:
        """Return how the exchange was refused, having checked that no credentials were issued."""
        with pytest.raises(Refusal) as refusal:
            self.assume(token, **changes)
        if len(self.credentials):
            raise AssertionError("credentials were issued all the same")
        return refusal.value.status, refusal.value.code, refusal.value.message

    def trust(self, document: str, role: str = READER) -> None:
        """Replace a role's trust policy."""
        self.lab.iam.roles[role] = replace(self.lab.iam.roles[role], trust_policy=document)

    def permit(self, *policies: NamedPolicy) -> None:
        """Replace the reader's own policies."""
        self.lab.iam.roles[READER] = replace(self.lab.iam.roles[READER], identity_policies=policies)
