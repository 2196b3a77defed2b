"""One lab's AWS, composed: the domain's parts with LocalStack's state and the bound clusters behind them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

from harness.cloud.authorization_messages import AuthorizationMessages
from harness.cloud.cloudtrail import CloudTrail
from harness.cloud.credentials import CredentialRegistry
from harness.cloud.eks import ClusterError, Eks, EksSettings
from harness.cloud.eks_auth import EksAuth
from harness.cloud.elbv2.targets import Targets
from harness.cloud.faults import Faults
from harness.cloud.imds import Imds, ImdsNode
from harness.cloud.localstack import internals
from harness.cloud.localstack.bootstrap import ADMINISTRATOR, Bootstrap, SystemIds
from harness.cloud.localstack.iam_store import AccessKeys, StoredIam
from harness.cloud.localstack.journal import Journal
from harness.cloud.localstack.kubernetes import BoundClusters
from harness.cloud.localstack.network import Network
from harness.cloud.localstack.stored_resources import StoredResources
from harness.cloud.ports import Credential, Principal
from harness.cloud.session_tags import PackingProfile
from harness.cloud.sts import AssumeRoleRequest, assume_role
from harness.cloud.web_identity import KeysUnavailable, OidcProvider

__all__ = ["Emulator", "LabClock", "Settings"]

_NODE_SESSION = timedelta(hours=6)


class LabClock:
    """The machine's time and an offset that the control route moves."""

    def __init__(self) -> None:
        """Begin in the present."""
        self.offset = timedelta()

    def now(self) -> datetime:
        """Return the lab's time."""
        return datetime.now(UTC) + self.offset


@dataclass(frozen=True, slots=True)
class Settings:
    """What can be set about a lab's AWS; each is a variable of the process, ``PODID_`` and its name in capitals."""

    publication_delay: float = 0
    """Seconds until admission learns of a change of associations."""
    auth_delay: float = 0
    """Seconds until EKS Auth acts on one."""
    event_delay: float = 0
    """Seconds until CloudTrail shows an event."""
    iam_delay: float = 0
    """Seconds until a change of roles, users and policies counts (IAM-GATE-05)."""
    lookups_per_second: int = 0
    """LookupEvents of an account and region beyond which CloudTrail throttles; 0: never."""
    associations_per_cluster: int = 5000
    """Quota (API-902)."""
    policy_arn_in_denials: bool = False
    """Whether explicit denials tell the ARN of their policy (IAM-MSG-06)."""
    packed_policy_profile: PackingProfile = "roomy"
    """How much room session tags take (IAM-STS-33)."""

    @classmethod
    def read(cls, variables: Mapping[str, str]) -> Settings:
        """Return the settings of an environment.

        Raises:
            ValueError: A variable has an unusable value.
        """
        given: dict[str, Any] = {}
        for field in fields(cls):
            text = variables.get(f"PODID_{field.name.upper()}")
            if text is not None:
                given[field.name] = _READERS[str(field.type)](text)
        return cls(**given)


def _read_flag(text: str) -> bool:
    if text not in {"0", "1"}:
        raise ValueError(f"{text!r} is neither 0 nor 1")
    return text == "1"


def _read_profile(text: str) -> PackingProfile:
    if text not in get_args(PackingProfile):
        raise ValueError(f"{text!r} is none of {', '.join(get_args(PackingProfile))}")
    return "observed" if text == "observed" else "roomy"


_READERS: Mapping[str, Callable[[str], Any]] = {
    "float": float,
    "int": int,
    "bool": _read_flag,
    "PackingProfile": _read_profile,
}


class Emulator:
    """Everything that guard, gate, providers and control route share."""

    def __init__(self, bootstrap: Bootstrap, settings: Settings) -> None:
        """Compose; nothing of LocalStack is touched before :meth:`create_first_identities`."""
        self.bootstrap = bootstrap
        self.settings = settings
        self.clock = LabClock()
        self.ids = SystemIds()
        self.iam = StoredIam(self.clock, delay=settings.iam_delay)
        self.registry = CredentialRegistry()
        self.keys = AccessKeys(self.registry)
        self.clusters = BoundClusters(settings.publication_delay)
        eks_settings = EksSettings(settings.associations_per_cluster, auth_delay=settings.auth_delay)
        self.eks = Eks(self.clusters, self.clusters, self.iam, self.clock, self.ids, settings=eks_settings)
        self.eks_auth = EksAuth(
            self.eks,
            self.clusters,
            self.iam,
            self.registry,
            clock=self.clock,
            ids=self.ids,
            packing=settings.packed_policy_profile,
        )
        self.cloudtrail = CloudTrail(
            self.clock, self.ids, delay=settings.event_delay, lookups_per_second=settings.lookups_per_second
        )
        self.messages = AuthorizationMessages(self.ids)
        self.journal = Journal()
        self.faults = Faults()
        self.nodes: dict[str, ImdsNode] = {}
        """Registered nodes by address."""
        self.imds = Imds(self.nodes.get, self.issue_node_credentials, self.clock, self.ids)
        self.network = Network(self.nodes, self.eks, self.clusters)
        self.targets = Targets(self.clock)
        self.resources = StoredResources(self.eks, self.iam)
        self.providers = StoredProviders(self.iam, self.eks, self.clusters)
        self._reset_lock = threading.Lock()

    def create_first_identities(self) -> None:
        """Make root and administrator of every account known."""
        now = self.clock.now()
        for account in self.bootstrap.accounts:
            self.iam.create_administrator(account.number)
            user = internals.iam_backend(account.number).users[ADMINISTRATOR]
            root_arn = f"arn:aws:iam::{account.number}:root"
            for key, principal in (
                (account.administrator, Principal("user", str(user.arn), account.number, str(user.id))),
                (account.root, Principal("root", root_arn, account.number, account.number)),
            ):
                self.registry.add(
                    Credential(
                        access_key_id=key.access_key_id,
                        secret_access_key=key.secret_access_key,
                        session_token=None,
                        principal=principal,
                        issued_at=now,
                        expires_at=None,
                        origin="bootstrap",
                    )
                )

    def issued(self) -> dict[str, str]:
        """Return secret → its kind: what was issued, and what was there from the start; a reset forgets nothing."""
        keys = [key for account in self.bootstrap.accounts for key in (account.administrator, account.root)]
        first = {key.secret_access_key: "secret access key" for key in keys}
        return first | {self.bootstrap.control_token: "control token"} | self.ids.issued()

    def see_token(self, token: object) -> None:
        """Remember what makes a token valid: whoever holds it may act as the pod until it expires."""
        if isinstance(token, str) and (signature := token.rpartition(".")[2]):
            self.ids.remember("token signature", signature)

    def reset(self) -> None:
        """Return to the first state; clusters stay bound and nodes registered, associations are withdrawn."""
        with self._reset_lock:
            self.eks.clear()
            self.iam.forget_changes()
            self.iam.organizations.clear()
            self.registry.clear()
            internals.reset_services()
            self.targets.clear()
            self.cloudtrail.clear()
            self.journal.clear()
            self.faults.set([])
            self.imds.reset()
            self.clock.offset = timedelta()
            self.create_first_identities()

    def issue_node_credentials(self, node: ImdsNode) -> Credential:
        """Assume a node's role as EC2 does: session name is the instance id, six hours whatever the role's maximum.

        Raises:
            harness.cloud.ports.Refusal: The role is absent or does not trust EC2.
        """
        service = Principal(kind="service", arn="", account="", user_id="", service="ec2.amazonaws.com")
        request = AssumeRoleRequest(role_arn=node.role_arn, role_session_name=node.instance_id)
        credential = assume_role(request, service, self.iam, self.ids, self.clock).credential
        credential = replace(credential, origin="imds", expires_at=credential.issued_at + _NODE_SESSION)
        self.registry.add(credential)
        return credential


class StoredProviders:
    """OIDC providers as IAM has them, with the keys of the bound clusters that issue their tokens."""

    def __init__(self, iam: StoredIam, eks: Eks, clusters: BoundClusters) -> None:
        """Keep the stores."""
        self._iam = iam
        self._eks = eks
        self._clusters = clusters

    def provider(self, account: str, issuer: str) -> OidcProvider | None:
        """Return the account's provider for an issuer, given without ``https://``."""
        return self._iam.provider(account, issuer)

    def keys(self, issuer: str, *, is_fresh: bool) -> Mapping[str, Any]:
        """Return the key set that the issuing cluster publishes.

        Raises:
            KeysUnavailable: No bound cluster has this issuer, or it does not answer.
        """
        cluster = next((one for one in self._eks.clusters.all() if one.issuer == f"https://{issuer}"), None)
        if cluster is None:
            raise KeysUnavailable(issuer)
        try:
            return self._clusters.jwks(cluster, is_fresh=is_fresh)
        except ClusterError as error:
            raise KeysUnavailable(issuer) from error
