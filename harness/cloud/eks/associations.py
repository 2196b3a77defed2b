"""The five operations on pod identity associations, and who finds which association when (``eks-api.md`` section 3)."""

from __future__ import annotations

import json
import string
import threading
from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import product
from typing import Any, TypeVar

from harness.cloud.eks import validation
from harness.cloud.eks.clusters import Clusters
from harness.cloud.eks.model import Addon, Association, Cluster, ClusterDirectory, ClusterError, Scope
from harness.cloud.paging import InvalidTokenError, Pager
from harness.cloud.ports import Clock, IamStore, Ids, Refusal

__all__ = ["Associations", "EksSettings"]

K = TypeVar("K")
T = TypeVar("T", str, tuple[str, str])

_ID_ALPHABET = string.ascii_lowercase + string.digits
_CHANGEABLE = ("roleArn", "targetRoleArn", "disableSessionTags", "policy")


@dataclass(frozen=True, slots=True)
class EksSettings:
    """What can be set about EKS in the lab."""

    associations_per_cluster: int = 5000
    """Quota (API-902)."""
    auth_delay: float = 0
    """Seconds until EKS Auth acts on a change of associations (API-903)."""


_Filter = tuple[str, str | None, str | None]
"""ARN of a cluster, namespace and service account; None: whatever it is."""


@dataclass(slots=True)
class _Change:
    """An association, or its end, as EKS Auth sees it from ``at`` on."""

    at: datetime
    association: Association | None


class Associations:
    """All associations of a lab; safe for use by several threads."""

    def __init__(
        self,
        clusters: Clusters,
        directory: ClusterDirectory,
        iam: IamStore,
        clock: Clock,
        ids: Ids,
        *,
        settings: EksSettings,
    ) -> None:
        """Begin without associations.

        Args:
            clusters: Clusters to associate in.
            directory: Receives the set of pairs before a change is answered.
            iam: Roles.
            clock: The lab's time.
            ids: Source of association ids.
            settings: Quota and delay.
        """
        self._clusters = clusters
        self._directory = directory
        self._iam = iam
        self._clock = clock
        self._ids = ids
        self._settings = settings
        self._pager = Pager(ids.letters(32, _ID_ALPHABET))
        # One lock for all clusters: a change and its publication are one step, so that two cannot overtake each other.
        self._lock = threading.RLock()
        self._by_id: dict[str, Association] = {}
        self._by_triple: dict[tuple[str, str, str], str] = {}
        # Sorted lists, so that no call gets slower by looking at thousands of others (API-902).
        self._ids_by_filter: dict[_Filter, list[str]] = {}
        """Ids by what ListPodIdentityAssociations can ask for: cluster, and namespace and service account or not."""
        self._pairs: dict[str, list[tuple[str, str]]] = {}
        """What is published to each cluster."""
        self._changes: dict[tuple[str, str, str], list[_Change]] = {}
        self._tokens: dict[tuple[str, str], tuple[str, str]] = {}

    # --- operations -------------------------------------------------------------------------------------------------

    def create(self, scope: Scope, request: Mapping[str, Any], owner: Addon | None = None) -> dict[str, Any]:
        """Create an association.

        Raises:
            Refusal: As section 3.1 says; nothing is left behind then.
        """
        association = self._new(scope, request, owner)
        cluster = association.cluster
        with self._lock:
            if earlier := self._repeated(cluster, request):
                return {"association": earlier.record()}
            existing = self._by_triple.get(_triple(association))
            if existing:
                raise Refusal("ResourceInUseException", f"Association already exists: {existing}", 409)
            validation.check_role(self._iam.role(association.role_arn))
            if association.policy:
                validation.check_policy(association.policy, disable_session_tags=association.disable_session_tags)
            pairs = self._pairs.setdefault(cluster.arn, [])
            if len(pairs) >= self._settings.associations_per_cluster:
                limit = self._settings.associations_per_cluster
                raise Refusal(
                    "ResourceLimitExceededException",
                    f"The maximum of {limit} pod identity associations for cluster {cluster.name} is reached.",
                    400,
                )
            at = bisect_left(pairs, _pair(association))
            self._publish(cluster, [*pairs[:at], _pair(association), *pairs[at:]])
            self._keep(association)
            if token := validation.optional(request, "clientRequestToken"):
                self._tokens[cluster.arn, token] = (_fingerprint(request), association.association_id)
        return {"association": association.record()}

    def describe(self, scope: Scope, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the full record of an association."""
        return {"association": self.get(scope, request).record()}

    def list(self, scope: Scope, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return summaries, filtered exactly by namespace and service account, a page at a time."""
        cluster = self._clusters.get(scope, validation.required(request, "clusterName"))
        namespace = validation.optional(request, "namespace")
        service_account = validation.optional(request, "serviceAccount")
        with self._lock:
            try:
                page, token = self._pager.page(
                    self._ids_by_filter.get((cluster.arn, namespace, service_account), []),
                    str,
                    query=json.dumps([cluster.arn, namespace, service_account]),
                    size=validation.page_size(request),
                    token=validation.optional(request, "nextToken"),
                )
            except InvalidTokenError as error:
                raise validation.invalid_parameter("The nextToken is not valid.") from error
            summaries = [self._by_id[association_id].summary() for association_id in page]
        return {"associations": summaries} | ({"nextToken": token} if token else {})

    def update(self, scope: Scope, request: Mapping[str, Any]) -> dict[str, Any]:
        """Change role, target role, session tags or policy of an association.

        Raises:
            Refusal: Nothing to change, or the result as a whole is not valid (API-254, API-255).
        """
        if all(request.get(member) is None for member in _CHANGEABLE):
            raise validation.invalid_parameter(f"An update must change at least one of {', '.join(_CHANGEABLE)}.")
        with self._lock:
            current = self.get(scope, request)
            changed = replace(
                current,
                role_arn=validation.optional(request, "roleArn") or current.role_arn,
                target_role_arn=_given(request, "targetRoleArn", current.target_role_arn),
                policy=_given(request, "policy", current.policy),
                disable_session_tags=_flag(request, "disableSessionTags", default=current.disable_session_tags),
                modified_at=max(self._now(), current.modified_at + timedelta(milliseconds=1)),
            )
            self._check_roles(changed)
            validation.check_role(self._iam.role(changed.role_arn))
            if changed.policy:
                validation.check_policy(changed.policy, disable_session_tags=changed.disable_session_tags)
            self._keep(changed)
        return {"association": changed.record()}

    def delete(self, scope: Scope, request: Mapping[str, Any]) -> dict[str, Any]:
        """Delete an association and return its last record."""
        with self._lock:
            association = self.get(scope, request)
            kept = [pair for pair in self._pairs[association.cluster.arn] if pair != _pair(association)]
            self._publish(association.cluster, kept)
            self._drop(association)
        return {"association": association.record()}

    # --- for the neighbours -----------------------------------------------------------------------------------------

    def get(self, scope: Scope, request: Mapping[str, Any]) -> Association:
        """Return the association that a request names by cluster and id.

        Raises:
            Refusal: No such cluster, a malformed id, or no such association in this cluster.
        """
        cluster = self._clusters.get(scope, validation.required(request, "clusterName"))
        association_id = validation.required(request, "associationId")
        validation.check_association_id(association_id)
        association = self._by_id.get(association_id)
        if association is None or association.cluster.arn != cluster.arn:
            raise validation.not_found(f"No association found for ID: {association_id} in cluster {cluster.name}.")
        return association

    def of_cluster(self, cluster: Cluster) -> list[Association]:
        """Return the associations of a cluster, by id."""
        with self._lock:
            return [self._by_id[one] for one in self._ids_by_filter.get((cluster.arn, None, None), ())]

    def seen_by_auth(self, cluster: Cluster, namespace: str, service_account: str) -> Association | None:
        """Return the association that EKS Auth acts on now: a change becomes effective after the delay."""
        moment = self._clock.now() - timedelta(seconds=self._settings.auth_delay)
        with self._lock:
            changes = self._changes.get((cluster.arn, namespace, service_account), [])
            effective = [change for change in changes if change.at <= moment]
        return effective[-1].association if effective else None

    def with_arn(self, arn: str) -> Association | None:
        """Return the association with exactly this ARN."""
        association = self._by_id.get(arn.rpartition("/")[2])
        return association if association and association.arn == arn else None

    def set_tags(self, association: Association, tags: Mapping[str, str]) -> None:
        """Replace the tags; ``modifiedAt`` stays (API-273)."""
        with self._lock:
            self._keep(replace(association, tags=dict(tags)))

    def drop_cluster(self, cluster: Cluster) -> None:
        """Forget the associations of a cluster that goes away; nothing is published."""
        with self._lock:
            for association in self.of_cluster(cluster):
                self._drop(association)

    def clear(self) -> None:
        """Withdraw every association from the clusters.

        Raises:
            Refusal: A cluster did not take the withdrawal.
        """
        with self._lock:
            for cluster in {
                association.cluster.arn: association.cluster for association in self._by_id.values()
            }.values():
                self._publish(cluster, [])
                self.drop_cluster(cluster)
            self._tokens.clear()
            self._changes.clear()

    # --- inside -----------------------------------------------------------------------------------------------------

    def _new(self, scope: Scope, request: Mapping[str, Any], owner: Addon | None) -> Association:
        name = validation.required(request, "clusterName")
        namespace = validation.required(request, "namespace")
        service_account = validation.required(request, "serviceAccount")
        role_arn = validation.required(request, "roleArn")
        now = self._now()
        association = Association(
            association_id="a-" + self._ids.letters(17, _ID_ALPHABET),
            cluster=self._clusters.get(scope, name),
            namespace=namespace,
            service_account=service_account,
            role_arn=role_arn,
            created_at=now,
            modified_at=now,
            target_role_arn=validation.optional(request, "targetRoleArn") or "",
            disable_session_tags=_flag(request, "disableSessionTags", default=False),
            policy=validation.optional(request, "policy") or "",
            owner_arn=owner.arn if owner else "",
            tags=validation.check_tags(request.get("tags") or {}),
        )
        self._check_roles(association)
        return association

    @staticmethod
    def _check_roles(association: Association) -> None:
        validation.check_role_arn(association.role_arn, association.cluster.scope)
        if association.target_role_arn:
            validation.check_target_role_arn(association.target_role_arn, association.cluster.scope)

    def _repeated(self, cluster: Cluster, request: Mapping[str, Any]) -> Association | None:
        """Return what an earlier call with the same client token made, if it is still there (API-221)."""
        token = validation.optional(request, "clientRequestToken")
        if not token or (cluster.arn, token) not in self._tokens:
            return None
        fingerprint, association_id = self._tokens[cluster.arn, token]
        association = self._by_id.get(association_id)
        if association and fingerprint != _fingerprint(request):
            raise validation.invalid_parameter("The clientRequestToken was used for a different request.")
        return association

    def _publish(self, cluster: Cluster, pairs: Sequence[tuple[str, str]]) -> None:
        try:
            self._directory.publish(cluster, pairs)
        except ClusterError as error:
            raise Refusal("ServerException", f"The associations could not be published: {error}", 500) from error

    def _keep(self, association: Association) -> None:
        """File a new association, or a new state of one that is filed."""
        if association.association_id not in self._by_id:
            self._by_triple[_triple(association)] = association.association_id
            insort(self._pairs.setdefault(association.cluster.arn, []), _pair(association))
            for asked in _filters(association):
                insort(self._ids_by_filter.setdefault(asked, []), association.association_id)
        self._by_id[association.association_id] = association
        self._note(association, association)

    def _drop(self, association: Association) -> None:
        del self._by_id[association.association_id]
        del self._by_triple[_triple(association)]
        _remove(self._pairs, association.cluster.arn, _pair(association))
        for asked in _filters(association):
            _remove(self._ids_by_filter, asked, association.association_id)
        self._note(association, None)

    def _note(self, about: Association, state: Association | None) -> None:
        now = self._clock.now()
        changes = self._changes.setdefault(_triple(about), [])
        effective = [change for change in changes if change.at <= now - timedelta(seconds=self._settings.auth_delay)]
        # Everything before the one that is effective now will never be asked for again.
        del changes[: max(0, len(effective) - 1)]
        changes.append(_Change(now, state))

    def _now(self) -> datetime:
        now = self._clock.now()
        return now.replace(microsecond=now.microsecond // 1000 * 1000)


def _triple(association: Association) -> tuple[str, str, str]:
    return association.cluster.arn, association.namespace, association.service_account


def _pair(association: Association) -> tuple[str, str]:
    return association.namespace, association.service_account


def _filters(association: Association) -> Iterable[_Filter]:
    """Return everything that can be asked for and finds the association."""
    return product((association.cluster.arn,), (None, association.namespace), (None, association.service_account))


def _remove(lists: dict[K, list[T]], key: K, item: T) -> None:
    """Take an item out of a sorted list, and forget the list when it is empty."""
    listed = lists[key]
    del listed[bisect_left(listed, item)]
    if not listed:
        del lists[key]


def _fingerprint(request: Mapping[str, Any]) -> str:
    return json.dumps({**request}, sort_keys=True, default=str)


def _given(request: Mapping[str, Any], member: str, current: str) -> str:
    """Return the new value of a member: an empty text clears it, an absent one leaves it (API-252, API-253)."""
    value = validation.optional(request, member)
    return current if value is None else value


def _flag(request: Mapping[str, Any], member: str, *, default: bool) -> bool:
    value = request.get(member)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise validation.invalid_parameter(f"The parameter {member} must be true or false.")
    return value
