"""EKS Auth: a pod's token for a role's credentials (``eks-api.md`` sections 5 and 6)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import jwt
from jwt.types import Options

from harness.cloud.credentials import CredentialRegistry
from harness.cloud.documents import members
from harness.cloud.eks.model import Association, Cluster, ClusterDirectory, ClusterError, Scope
from harness.cloud.eks.service import Eks
from harness.cloud.eks.validation import CLUSTER_NAME, POD_IDENTITY_SERVICE
from harness.cloud.ports import Clock, Credential, IamStore, Ids, Principal, Refusal
from harness.cloud.session_tags import PackingProfile
from harness.cloud.sts import AssumedRole, AssumeRoleRequest, assume_role

__all__ = ["AssumedForPod", "EksAuth", "PodClaims", "TargetRefused", "verify_token"]

AUDIENCE = "pods.eks.amazonaws.com"
SESSION_SECONDS = 21600
TARGET_SESSION_SECONDS = 3540

_TOKEN = re.compile(r"[A-Za-z0-9\-_=]+\.[A-Za-z0-9\-_=]+\.[A-Za-z0-9\-_=]+")
_ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512")
_UNAUTHORIZED = "Unauthorized Exception! EKS does not have permissions to assume the associated role."
_ASSUME_DENIALS = {"AccessDenied", "AccessDeniedException"}


@dataclass(frozen=True, slots=True)
class PodClaims:
    """Whose token it is."""

    namespace: str
    service_account: str
    pod_name: str
    pod_uid: str


@dataclass(frozen=True, slots=True)
class AssumedForPod:
    """The answer and the sessions that were made for it."""

    response: dict[str, Any]
    sessions: tuple[AssumedRole, ...]
    """The role's session and, with a target role, the target's behind it; only the last was handed out."""


class TargetRefused(Refusal):
    """The target role could not be assumed; the role before it was, which CloudTrail tells although nobody got it."""

    def __init__(self, first: AssumedRole, request: AssumeRoleRequest, cause: Refusal) -> None:
        """Keep how far it went.

        Args:
            first: The role's session.
            request: The call that STS refused.
            cause: STS's own words; EKS Auth answers with others.
        """
        answer = _answer(cause)
        super().__init__(answer.code, answer.message, answer.status)
        self.first = first
        self.request = request
        self.cause = cause


class EksAuth:
    """Amazon EKS Auth. Every call makes new sessions; nothing is cached (API-414)."""

    def __init__(
        self,
        eks: Eks,
        directory: ClusterDirectory,
        iam: IamStore,
        credentials: CredentialRegistry,
        *,
        clock: Clock,
        ids: Ids,
        packing: PackingProfile = "roomy",
    ) -> None:
        """Keep the neighbours.

        Args:
            eks: Clusters and associations.
            directory: Keys of the real clusters.
            iam: Roles and their policies.
            credentials: Receives the sessions that are handed out.
            clock: The lab's time.
            ids: Source of identifiers.
            packing: How much room session tags take.
        """
        self._packing: PackingProfile = packing
        self._eks = eks
        self._directory = directory
        self._iam = iam
        self._credentials = credentials
        self._clock = clock
        self._ids = ids

    def assume_role_for_pod_identity(self, scope: Scope, request: Mapping[str, Any]) -> AssumedForPod:
        """Answer AssumeRoleForPodIdentity; the caller's own right to ask was decided before.

        Raises:
            Refusal: In the order and with the codes of section 5.
        """
        name, token = _shape(request)
        cluster = self._cluster(scope, name)
        claims = verify_token(token, cluster, self._directory, self._clock.now())
        association = self._eks.associations.seen_by_auth(cluster, claims.namespace, claims.service_account)
        if association is None:
            raise Refusal(
                "ResourceNotFoundException",
                f"No pod identity association found for service account {claims.service_account}"
                f" in namespace {claims.namespace} of cluster {cluster.name}.",
                404,
            )
        sessions = self._assume(association, claims)
        handed_out = sessions[-1].credential
        self._credentials.add(handed_out)
        return AssumedForPod(_response(association, claims, handed_out), sessions)

    def _cluster(self, scope: Scope, name: str) -> Cluster:
        try:
            return self._eks.clusters.get(scope, name)
        except Refusal as refusal:
            raise Refusal("ResourceNotFoundException", refusal.message, 404) from refusal

    def _assume(self, association: Association, claims: PodClaims) -> tuple[AssumedRole, ...]:
        """Assume the role and, if there is one, the target role with the first session (API-601)."""
        cluster = association.cluster
        tags = () if association.disable_session_tags else _session_tags(cluster, claims)
        policy = association.policy or None
        request = AssumeRoleRequest(
            role_arn=association.role_arn,
            role_session_name=self._session_name(cluster, claims),
            duration_seconds=SESSION_SECONDS,
            tags=tags,
            transitive_tag_keys=tuple(key for key, _ in tags),
            policy=None if association.target_role_arn else policy,
        )
        service = Principal(kind="service", arn="", account="", user_id="", service=POD_IDENTITY_SERVICE)
        try:
            first = self._assume_one(request, service, cluster)
        except Refusal as cause:
            raise _answer(cause) from cause
        if not association.target_role_arn:
            return (first,)
        second = AssumeRoleRequest(
            role_arn=association.target_role_arn,
            role_session_name=self._session_name(cluster, claims),
            duration_seconds=TARGET_SESSION_SECONDS,
            external_id=association.external_id,
            policy=policy,
        )
        try:
            return first, self._assume_one(second, first.credential, cluster)
        except Refusal as cause:
            raise TargetRefused(first, second, cause) from cause

    def _assume_one(self, request: AssumeRoleRequest, caller: Credential | Principal, cluster: Cluster) -> AssumedRole:
        is_service = isinstance(caller, Principal)
        assumed = assume_role(
            request,
            caller,
            self._iam,
            self._ids,
            self._clock,
            source_arn=cluster.arn if is_service else "",
            source_account=cluster.scope.account if is_service else "",
            inherited_as_request_tags=not is_service,
            packing=self._packing,
        )
        return replace(assumed, credential=replace(assumed.credential, origin="pod-identity"))

    def _session_name(self, cluster: Cluster, claims: PodClaims) -> str:
        """Return a session name; the UUID is new each time and not the pod's (API-501, API-502)."""
        return f"eks-{cluster.name[:10]}-{claims.pod_name[:10]}-{self._ids.uuid()}"


def _shape(request: Mapping[str, Any]) -> tuple[str, str]:
    name = request.get("clusterName")
    token = request.get("token")
    if not isinstance(name, str) or not CLUSTER_NAME.fullmatch(name):
        raise Refusal("InvalidParameterException", "The cluster name is not valid.", 400)
    if not isinstance(token, str) or not token:
        raise Refusal("InvalidParameterException", "The token is missing.", 400)
    if not _TOKEN.fullmatch(token):
        raise Refusal("InvalidParameterException", "The token is not a JSON Web Token.", 400)
    return name, token


def _answer(cause: Refusal) -> Refusal:
    """Return what EKS Auth says when STS refuses it a role."""
    if cause.code in _ASSUME_DENIALS:
        return Refusal("AccessDeniedException", _UNAUTHORIZED, 400)
    # Such as PackedPolicyTooLarge, whose name tells the remedy (API-434).
    return Refusal("InvalidRequestException", f"{cause.code}: {cause.message}", 400)


def _session_tags(cluster: Cluster, claims: PodClaims) -> tuple[tuple[str, str], ...]:
    """Return the six session tags in AWS's order (API-504)."""
    return (
        ("eks-cluster-arn", cluster.arn),
        ("eks-cluster-name", cluster.name),
        ("kubernetes-namespace", claims.namespace),
        ("kubernetes-service-account", claims.service_account),
        ("kubernetes-pod-name", claims.pod_name),
        ("kubernetes-pod-uid", claims.pod_uid),
    )


def _response(association: Association, claims: PodClaims, credential: Credential) -> dict[str, Any]:
    return {
        "subject": {"namespace": claims.namespace, "serviceAccount": claims.service_account},
        "audience": AUDIENCE,
        "podIdentityAssociation": {
            "associationArn": association.arn,
            "associationId": association.association_id,
        },
        "assumedRoleUser": {"arn": credential.principal.arn, "assumeRoleId": credential.principal.user_id},
        "credentials": {
            "accessKeyId": credential.access_key_id,
            "secretAccessKey": credential.secret_access_key,
            "sessionToken": credential.session_token,
            "expiration": credential.expires_at,
        },
    }


# --- the token ------------------------------------------------------------------------------------------------------


def verify_token(token: str, cluster: Cluster, directory: ClusterDirectory, now: datetime) -> PodClaims:
    """Find out whose token it is: signature and issuer, then expiry, then audience, then claims (API-406 to API-411).

    Args:
        token: A JWT by its form.
        cluster: Cluster it is presented for.
        directory: Gives the cluster's keys.
        now: The lab's time.

    Raises:
        Refusal: InvalidTokenException, or ExpiredTokenException for a token that is only too old.
    """
    claims = _signed_claims(token, cluster, directory)
    if claims.get("iss") != cluster.issuer:
        raise _invalid(f"The issuer of the token is not the issuer of cluster {cluster.name}.")
    _check_times(claims, now)
    audience = claims.get("aud")
    if AUDIENCE not in (audience if isinstance(audience, list) else [audience]):
        raise _invalid(f"The audience of the token is not {AUDIENCE}.")
    return _pod_claims(claims)


def _signed_claims(token: str, cluster: Cluster, directory: ClusterDirectory) -> Mapping[str, Any]:
    try:
        header = jwt.get_unverified_header(token)
    except jwt.PyJWTError as error:
        raise _invalid("The token cannot be read.") from error
    if header.get("alg") not in _ALGORITHMS:
        raise _invalid("The token is signed with an algorithm that is not accepted.")
    key = _key(header.get("kid"), cluster, directory)
    if key is None:
        raise _invalid("The token is signed with a key that the cluster does not publish.")
    # Times and audience are checked by us, against the lab's clock and in AWS's order.
    options: Options = {
        "require": ["exp", "iss"],
        "verify_aud": False,
        "verify_exp": False,
        "verify_iat": False,
        "verify_iss": False,
        "verify_nbf": False,
    }
    try:
        return jwt.decode(token, key, algorithms=list(_ALGORITHMS), options=options)
    except jwt.PyJWTError as error:
        raise _invalid("The token could not be verified.") from error


def _key(kid: object, cluster: Cluster, directory: ClusterDirectory) -> jwt.PyJWK | None:
    """Return the cluster's key with this id; the keys are read anew once, because they may have been rotated."""
    for is_fresh in (False, True):
        try:
            keys = jwt.PyJWKSet.from_dict(dict(directory.jwks(cluster, is_fresh=is_fresh))).keys
        except (ClusterError, jwt.PyJWTError) as error:
            text = f"The keys of cluster {cluster.name} are not available."
            raise Refusal("ServiceUnavailableException", text, 503) from error
        for key in keys:
            if key.key_id is not None and key.key_id == kid:
                return key
    return None


def _check_times(claims: Mapping[str, Any], now: datetime) -> None:
    expires, not_before = claims.get("exp"), claims.get("nbf")
    if isinstance(expires, bool) or not isinstance(expires, int | float):
        raise _invalid("The token has no expiration date.")
    if expires <= now.timestamp():
        raise Refusal(
            "ExpiredTokenException",
            f"The token included in the request is expired: current date/time {_rfc3339(now)}"
            f" must be before the expiration date/time {_rfc3339(datetime.fromtimestamp(expires, UTC))}",
            400,
        )
    if isinstance(not_before, int | float) and not_before > now.timestamp():
        raise _invalid("The token is not valid yet.")


def _rfc3339(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _pod_claims(claims: Mapping[str, Any]) -> PodClaims:
    kubernetes = claims.get("kubernetes.io")
    found = PodClaims(
        namespace=_text(kubernetes, "namespace"),
        service_account=_text(kubernetes, "serviceaccount", "name"),
        pod_name=_text(kubernetes, "pod", "name"),
        pod_uid=_text(kubernetes, "pod", "uid"),
    )
    if claims.get("sub") != f"system:serviceaccount:{found.namespace}:{found.service_account}":
        raise _invalid("The subject of the token contradicts its kubernetes.io claims.")
    return found


def _text(claim: Any, *path: str) -> str:
    for part in path:
        claim = members(claim).get(part)
    if not isinstance(claim, str) or not claim:
        raise _invalid(f"The token has no claim kubernetes.io/{'/'.join(path)}.")
    return claim


def _invalid(message: str) -> Refusal:
    return Refusal("InvalidTokenException", message, 400)
