"""A pod's token for a role's credentials: AssumeRoleForPodIdentity from end to end (``eks-api.md`` 5 and 6)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from harness.cloud.credentials import CredentialRegistry
from harness.cloud.eks import EksSettings
from harness.cloud.eks_auth import AssumedForPod, EksAuth, TargetRefused
from harness.cloud.ports import NamedPolicy, Refusal
from harness.cloud.sts import caller_identity, role_policies
from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.subject.eks_lab import ACCOUNT, ISSUER, READER, SCOPE, Lab
from harness.subject.iam_requests import ALLOW_ALL, alone, ask, policy

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
    statement: dict[str, Any] = {"Effect": "Allow", "Principal": principal, "Action": list(actions or BOTH)}
    if condition:
        statement["Condition"] = condition
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def pods_trust(*actions: str, condition: Any = None) -> str:
    return trust({"Service": "pods.eks.amazonaws.com"}, *actions, condition=condition)


def allow(*actions: str, resource: str) -> NamedPolicy:
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
        lab, credentials = Lab.new(settings=settings), CredentialRegistry()
        public = json.loads(RSAAlgorithm.to_jwk(KEY.public_key()))
        lab.clusters.keys = {"keys": [public | {"kid": "k1", "use": "sig", "alg": "RS256"}]}
        auth = EksAuth(lab.eks, lab.clusters, lab.iam, credentials, clock=lab.clock, ids=lab.ids)
        return cls(lab, auth, credentials)

    def token(self, key: rsa.RSAPrivateKey = KEY, pod: str = "s3-test", **changes: Any) -> str:
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
        request = {"clusterName": "pod-identity-lab", "token": self.token() if token is None else token}
        return self.auth.assume_role_for_pod_identity(SCOPE, request | changes)

    def refusal(self, token: str | None = None, **changes: Any) -> tuple[int, str, str]:
        """Return how the exchange was refused, having checked that no credentials were issued."""
        with pytest.raises(Refusal) as refusal:
            self.assume(token, **changes)
        assert len(self.credentials) == 0
        return refusal.value.status, refusal.value.code, refusal.value.message

    def trust(self, document: str, role: str = READER) -> None:
        self.lab.iam.roles[role] = replace(self.lab.iam.roles[role], trust_policy=document)

    def permit(self, *policies: NamedPolicy) -> None:
        self.lab.iam.roles[READER] = replace(self.lab.iam.roles[READER], identity_policies=policies)


@pytest.fixture
def exchange() -> Exchange:
    """demo/s3-reader is associated with a role of universal trust."""
    exchange = Exchange.new()
    exchange.lab.create()
    return exchange


@pytest.fixture
def chain() -> Exchange:
    """demo/s3-reader is associated with a role and, behind it, a target role in another account."""
    exchange = Exchange.new()
    exchange.lab.add_role(TARGET, trust({"AWS": READER}))
    exchange.permit(allow(*BOTH, resource=TARGET))
    exchange.lab.create(targetRoleArn=TARGET)
    return exchange


# --- the answer -----------------------------------------------------------------------------------------------------


@requirement("API-401", "API-402", "API-501", "API-503")
def test_answer_has_subject_audience_association_role_and_credentials(exchange: Exchange) -> None:
    """API-401, API-402, API-501, API-503."""
    (association,) = exchange.lab.eks.associations.list(SCOPE, {"clusterName": "pod-identity-lab"})["associations"]

    response = exchange.assume().response

    user, credentials = response.pop("assumedRoleUser"), response.pop("credentials")
    assert response == {
        "subject": {"namespace": "demo", "serviceAccount": "s3-reader"},
        "audience": "pods.eks.amazonaws.com",
        "podIdentityAssociation": {
            "associationArn": association["associationArn"],
            "associationId": association["associationId"],
        },
    }
    session = f"eks-pod-identi-s3-test-{UUID4}"
    prefix = "arn:aws:sts::123456789012:assumed-role/pod-identity-lab-s3-reader-role/"
    assert re.fullmatch(prefix + session, user["arn"])
    assert re.fullmatch(f"AROAEXAMPLEEXAMPLE12:{session}", user["assumeRoleId"])
    assert set(user) == {"arn", "assumeRoleId"}
    assert set(credentials) == {"accessKeyId", "secretAccessKey", "sessionToken", "expiration"}
    assert credentials["expiration"] == exchange.lab.clock.now() + timedelta(seconds=21600)


@requirement("API-514")
def test_credentials_are_registered_and_act_as_the_role(exchange: Exchange) -> None:
    """API-513, API-514."""
    response = exchange.assume().response

    credential = exchange.credentials.find(response["credentials"]["accessKeyId"])
    assert credential is not None
    assert credential.session_token == response["credentials"]["sessionToken"]
    assert (credential.principal.role_arn, credential.origin) == (READER, "pod-identity")
    assert caller_identity(credential) == {
        "UserId": response["assumedRoleUser"]["assumeRoleId"],
        "Account": "123456789012",
        "Arn": response["assumedRoleUser"]["arn"],
    }


@requirement("API-504", "API-505", "IAM-ABAC-01")
def test_session_has_six_transitive_tags_in_order(exchange: Exchange) -> None:
    """API-504, API-505, IAM-ABAC-01."""
    (session,) = exchange.assume().sessions

    assert list(session.request.tags) == SIX_TAGS
    assert session.request.transitive_tag_keys == tuple(key for key, _ in SIX_TAGS)
    assert session.credential.principal.tags == dict(SIX_TAGS)
    assert session.credential.transitive_tags == dict(SIX_TAGS)
    assert session.duration_seconds == 21600
    assert not session.credential.chained


@requirement("IAM-ABAC-03")
def test_session_tags_override_tags_of_the_role(exchange: Exchange) -> None:
    """API-506, S23."""
    exchange.lab.iam.roles[READER] = replace(
        exchange.lab.iam.roles[READER], tags={"Kubernetes-Namespace": "prod", "cost": "1"}
    )

    assert exchange.assume().sessions[0].credential.principal.tags == dict(SIX_TAGS) | {"cost": "1"}


@requirement("API-414")
def test_every_call_makes_a_new_session(exchange: Exchange) -> None:
    """API-414, API-502."""
    token = exchange.token()
    first, second = exchange.assume(token).response, exchange.assume(token).response

    assert first["assumedRoleUser"]["arn"] != second["assumedRoleUser"]["arn"]
    assert first["credentials"]["accessKeyId"] != second["credentials"]["accessKeyId"]
    assert len(exchange.credentials) == 2


@requirement("API-501")
def test_short_names_are_not_padded_and_long_ones_cut_after_ten(exchange: Exchange) -> None:
    """API-501."""
    arn = exchange.assume(exchange.token(pod="carts-d49c-7f9c")).response["assumedRoleUser"]["arn"]
    assert re.search(f"/eks-pod-identi-carts-d49c-{UUID4}$", arn)
    arn = exchange.assume(exchange.token(pod="p")).response["assumedRoleUser"]["arn"]
    assert re.search(f"/eks-pod-identi-p-{UUID4}$", arn)


@requirement("API-403")
def test_newer_parameters_are_accepted_without_effect(exchange: Exchange) -> None:
    """API-403."""
    response = exchange.assume(eksNodeName="node-1", instanceId="i-0abc", zone="euw1-az1").response

    assert "workloadIdentityProviderArn" not in response


# --- refusals -------------------------------------------------------------------------------------------------------


@requirement("API-409", "API-423")
def test_token_for_another_audience_is_refused(exchange: Exchange) -> None:
    """API-409, API-423."""
    assert exchange.refusal(exchange.token(aud=["sts.amazonaws.com"]))[:2] == (400, "InvalidTokenException")


@requirement("API-406", "API-423")
def test_forged_token_is_refused(exchange: Exchange) -> None:
    """API-406."""
    assert exchange.refusal(exchange.token(OTHER_KEY))[:2] == (400, "InvalidTokenException")


@requirement("API-408", "API-422")
def test_expired_token_is_refused_by_the_labs_clock(exchange: Exchange) -> None:
    """API-408, API-422."""
    token = exchange.token()
    exchange.lab.clock.advance(86400)

    assert exchange.refusal(token) == (
        400,
        "ExpiredTokenException",
        (
            "The token included in the request is expired: current date/time 2026-04-11T14:00:00Z"
            " must be before the expiration date/time 2026-04-11T14:00:00Z"
        ),
    )


@requirement("API-424")
def test_unknown_cluster_is_not_found(exchange: Exchange) -> None:
    """API-424."""
    assert exchange.refusal(clusterName="other")[:2] == (404, "ResourceNotFoundException")


@requirement("API-425")
@pytest.mark.parametrize(
    "changes",
    [{"clusterName": "-x"}, {"clusterName": None}, {"token": ""}, {"token": 1}, {"token": "a.b"}, {"token": "a.b.c d"}],
)
def test_shape_is_checked_first(exchange: Exchange, changes: dict[str, Any]) -> None:
    """API-425, API-415."""
    assert exchange.refusal(**changes)[:2] == (400, "InvalidParameterException")


@requirement("API-424")
def test_pair_without_association_is_not_found() -> None:
    """API-424."""
    exchange = Exchange.new()
    exchange.lab.create("other")

    assert exchange.refusal() == (
        404,
        "ResourceNotFoundException",
        (
            "No pod identity association found for service account s3-reader in namespace demo"
            " of cluster pod-identity-lab."
        ),
    )


@requirement("API-413")
def test_deleted_association_is_gone_at_once(exchange: Exchange) -> None:
    """API-413."""
    name = {"clusterName": "pod-identity-lab"}
    (association,) = exchange.lab.eks.associations.list(SCOPE, name)["associations"]
    exchange.lab.eks.associations.delete(SCOPE, name | {"associationId": association["associationId"]})

    assert exchange.refusal()[:2] == (404, "ResourceNotFoundException")


@requirement("API-415")
def test_token_is_judged_before_the_association() -> None:
    """API-415."""
    exchange = Exchange.new()

    assert exchange.refusal(exchange.token(aud="x"))[1] == "InvalidTokenException"


# --- the role -------------------------------------------------------------------------------------------------------


@requirement("API-421", "API-508", "API-510")
@pytest.mark.parametrize(
    "document",
    [
        pods_trust("sts:AssumeRole"),
        pods_trust("sts:TagSession"),
        trust({"Service": "ec2.amazonaws.com"}),
        trust({"AWS": f"arn:aws:iam::{ACCOUNT}:root"}),
        pods_trust(condition={"StringEquals": {"aws:RequestTag/kubernetes-namespace": "prod"}}),
        pods_trust(condition={"StringEquals": {"aws:SourceAccount": OTHER_ACCOUNT}}),
        pods_trust(condition={"ArnLike": {"aws:SourceArn": "arn:aws:eks:*:*:podidentityassociation/*"}}),
    ],
)
def test_role_whose_trust_does_not_allow_both_actions_is_refused(exchange: Exchange, document: str) -> None:
    """API-421, API-508, API-510."""
    exchange.trust(document)

    assert exchange.refusal() == NOT_ASSUMED


@requirement("API-510")
def test_trust_conditions_see_cluster_tags_and_session(exchange: Exchange) -> None:
    """API-510."""
    condition = {
        "StringEquals": {
            "aws:SourceAccount": ACCOUNT,
            **{f"aws:RequestTag/{key}": value for key, value in SIX_TAGS},
            "aws:PrincipalServiceName": "pods.eks.amazonaws.com",
        },
        "ArnEquals": {"aws:SourceArn": CLUSTER_ARN},
        "StringLike": {"sts:RoleSessionName": "eks-pod-identi-s3-test-*"},
        "Bool": {"aws:PrincipalIsAWSService": "true"},
        "ForAllValues:StringEquals": {"sts:TransitiveTagKeys": [key for key, _ in SIX_TAGS]},
        "ForAnyValue:StringEquals": {"aws:TagKeys": ["kubernetes-pod-uid"]},
    }
    exchange.trust(pods_trust(condition=condition))

    assert exchange.assume().sessions


@requirement("API-421")
def test_deleted_role_is_refused(exchange: Exchange) -> None:
    """API-421."""
    del exchange.lab.iam.roles[READER]

    assert exchange.refusal() == NOT_ASSUMED


@requirement("API-507")
def test_without_session_tags_assume_role_is_enough() -> None:
    """API-507."""
    exchange = Exchange.new()
    exchange.lab.create(disableSessionTags=True)
    exchange.trust(pods_trust("sts:AssumeRole"))

    (session,) = exchange.assume().sessions

    assert (session.request.tags, session.request.transitive_tag_keys) == ((), ())
    assert session.credential.principal.tags == {}
    assert session.packed_policy_size is None


@requirement("API-512")
def test_policy_of_the_association_limits_the_session() -> None:
    """API-512."""
    exchange = Exchange.new()
    document = allow("s3:GetObject", resource="*").document
    exchange.lab.create(disableSessionTags=True, policy=document)

    credential = exchange.assume().sessions[0].credential

    assert credential.session_policies == (document,)
    session = role_policies(credential, exchange.lab.iam).session
    assert session is not None
    assert session[0].document == document


@requirement("API-434")
def test_too_large_tags_are_refused_by_name() -> None:
    """API-434."""
    exchange = Exchange.new()
    namespace, service_account = "n" * 250, "s" * 250
    exchange.lab.create(service_account, namespace=namespace)
    kubernetes = {
        "namespace": namespace,
        "serviceaccount": {"name": service_account},
        "pod": {"name": "p" * 250, "uid": POD_UID},
    }
    changes: dict[str, Any] = {
        "sub": f"system:serviceaccount:{namespace}:{service_account}",
        "kubernetes.io": kubernetes,
    }
    token = exchange.token(**changes)

    status, code, message = exchange.refusal(token)

    assert (status, code) == (400, "InvalidRequestException")
    assert message == "PackedPolicyTooLarge: Packed size of session tags consumes 141% of allotted space."


# --- target roles ---------------------------------------------------------------------------------------------------


@requirement("API-601", "API-602", "API-603", "API-605")
def test_target_role_is_handed_out_and_the_first_session_is_not(chain: Exchange) -> None:
    """API-601 to API-603, API-605, S15."""
    assumed = chain.assume()

    first, second = assumed.sessions
    session = f"eks-pod-identi-s3-test-{UUID4}"
    prefix = "arn:aws:sts::210987654321:assumed-role/target/"
    assert re.fullmatch(prefix + session, assumed.response["assumedRoleUser"]["arn"])
    assert assumed.response["credentials"]["accessKeyId"] == second.credential.access_key_id
    assert assumed.response["credentials"]["expiration"] == chain.lab.clock.now() + timedelta(seconds=3540)
    assert first.credential.session_name != second.credential.session_name
    assert chain.credentials.find(first.credential.access_key_id) is None
    assert chain.credentials.find(second.credential.access_key_id) is second.credential
    assert (second.duration_seconds, second.credential.chained) == (3540, True)
    assert second.caller.role_arn == READER


@requirement("API-607")
def test_tags_are_inherited_by_the_target_session(chain: Exchange) -> None:
    """API-607, IAM-ABAC-08."""
    _, second = chain.assume().sessions

    assert second.request.tags == ()
    assert second.inherited_tags == dict(SIX_TAGS)
    assert second.credential.principal.tags == dict(SIX_TAGS)
    assert second.credential.transitive_tags == dict(SIX_TAGS)


@requirement("API-604", "API-607")
@pytest.mark.parametrize(
    "condition",
    [
        {"StringEquals": {"sts:ExternalId": EXTERNAL_ID}},
        {"StringEquals": {"aws:RequestTag/kubernetes-namespace": "demo"}},
        {"StringEquals": {"aws:PrincipalTag/kubernetes-namespace": "demo"}},
        {"StringEquals": {"aws:RequestTag/eks-cluster-arn": CLUSTER_ARN}},
    ],
)
def test_trust_of_the_target_sees_external_id_and_tags(chain: Exchange, condition: Any) -> None:
    """API-604, API-607."""
    chain.trust(trust({"AWS": READER}, condition=condition), TARGET)

    assert len(chain.assume().sessions) == 2


def _drop_identity(exchange: Exchange) -> None:
    exchange.permit()


def _drop_identity_tag_session(exchange: Exchange) -> None:
    exchange.permit(allow("sts:AssumeRole", resource=TARGET))


def _permit_another_target(exchange: Exchange) -> None:
    exchange.permit(allow(*BOTH, resource=TARGET + "-2"))


def _drop_trust_of_the_first(exchange: Exchange) -> None:
    exchange.trust(pods_trust("sts:AssumeRole"))


def _drop_trust_assume_role(exchange: Exchange) -> None:
    exchange.trust(trust({"AWS": READER}, "sts:TagSession"), TARGET)


def _drop_trust_tag_session(exchange: Exchange) -> None:
    exchange.trust(trust({"AWS": READER}, "sts:AssumeRole"), TARGET)


def _trust_another_role(exchange: Exchange) -> None:
    exchange.trust(trust({"AWS": READER + "-2"}), TARGET)


def _expect_another_external_id(exchange: Exchange) -> None:
    other = EXTERNAL_ID.replace("/demo/", "/prod/")
    exchange.trust(trust({"AWS": READER}, condition={"StringEquals": {"sts:ExternalId": other}}), TARGET)


def _delete_target(exchange: Exchange) -> None:
    del exchange.lab.iam.roles[TARGET]


@requirement("API-606", "API-608", "API-609")
@pytest.mark.parametrize(
    "fault",
    [
        _drop_identity,
        _drop_identity_tag_session,
        _permit_another_target,
        _drop_trust_of_the_first,
        _drop_trust_assume_role,
        _drop_trust_tag_session,
        _trust_another_role,
        _expect_another_external_id,
        _delete_target,
    ],
)
def test_target_needs_every_permission_on_both_sides(chain: Exchange, fault: Callable[[Exchange], None]) -> None:
    """API-606, API-608, API-609."""
    fault(chain)

    assert chain.refusal() == NOT_ASSUMED


@requirement("API-608")
def test_refusal_of_the_target_tells_how_far_it_went(chain: Exchange) -> None:
    """The first role was assumed; STS's words about the second are for CloudTrail, the pod gets EKS Auth's."""
    _drop_trust_tag_session(chain)

    with pytest.raises(TargetRefused) as refused:
        chain.assume()

    source = refused.value.first.credential.principal
    assert (refused.value.status, refused.value.code, refused.value.message) == NOT_ASSUMED
    assert (source.role_arn, refused.value.request.role_arn) == (READER, TARGET)
    assert (refused.value.cause.code, refused.value.cause.message) == (
        "AccessDenied",
        f"User: {source.arn} is not authorized to perform: sts:TagSession on resource: {TARGET}",
    )


@requirement("API-507")
def test_target_without_session_tags_needs_assume_role_only() -> None:
    """API-507 on both hops."""
    exchange = Exchange.new()
    condition = {"StringEquals": {"sts:ExternalId": EXTERNAL_ID}, "Null": {"aws:RequestTag/eks-cluster-arn": "true"}}
    exchange.lab.add_role(TARGET, trust({"AWS": READER}, "sts:AssumeRole", condition=condition))
    exchange.trust(pods_trust("sts:AssumeRole"))
    exchange.permit(allow("sts:AssumeRole", resource=TARGET))
    exchange.lab.create(targetRoleArn=TARGET, disableSessionTags=True)

    _, second = exchange.assume().sessions

    assert second.credential.principal.tags == {}


@requirement("API-512")
def test_policy_limits_the_target_session_only() -> None:
    """API-512."""
    exchange = Exchange.new()
    document = allow("s3:GetObject", resource="*").document
    exchange.lab.add_role(TARGET, trust({"AWS": READER}, "sts:AssumeRole"))
    exchange.permit(allow("sts:AssumeRole", resource=TARGET))
    exchange.lab.create(targetRoleArn=TARGET, disableSessionTags=True, policy=document)

    first, second = exchange.assume().sessions

    assert (first.credential.session_policies, second.credential.session_policies) == (None, (document,))


# --- who decides about tags -----------------------------------------------------------------------------------------


@requirement("API-274", "API-506", "IAM-ABAC-02")
def test_nobody_else_sets_session_tags() -> None:
    """Neither tags of the association nor anything in the request makes a session tag; the role's yield."""
    exchange = Exchange.new()
    exchange.lab.create(tags={"team": "a", "kubernetes-namespace": "prod"})
    role = exchange.lab.iam.roles[READER]
    exchange.lab.iam.roles[READER] = replace(role, tags={"Kubernetes-Namespace": "prod"})
    sent: dict[str, Any] = {"tags": {"team": "b"}, "namespace": "prod", "eksNodeName": "n", "instanceId": "i-0"}

    (session,) = exchange.assume(**sent).sessions

    tags = dict(session.credential.principal.tags)
    check("API-274", expected=dict(SIX_TAGS), observed=tags)
    check("API-506", expected=dict(SIX_TAGS), observed=tags)
    check(
        "IAM-ABAC-02",
        expected=SIX_TAGS,
        observed=list(session.request.tags),
        holds=list(session.request.tags) == SIX_TAGS,
    )


@requirement("API-502")
def test_uuid_of_the_session_is_its_own(exchange: Exchange) -> None:
    """It is new at every call, and never the pod's."""
    names = [exchange.assume().sessions[0].credential.session_name for _ in range(3)]

    uuids = {name[-36:] for name in names}
    assert len(uuids) == 3
    assert all(re.fullmatch(UUID4, text) for text in uuids)
    assert POD_UID not in uuids


@requirement("API-509", "API-209")
def test_one_role_serves_every_cluster(exchange: Exchange) -> None:
    """The universal trust policy names no cluster, so that a second one needs no change."""
    second = replace(exchange.lab.eks.clusters.get(SCOPE, "pod-identity-lab"), name="second")
    exchange.lab.eks.clusters.bind(second)
    exchange.lab.create(clusterName="second")

    answers = [exchange.assume(clusterName=name).response for name in ("pod-identity-lab", "second")]

    roles = {answer["assumedRoleUser"]["arn"].split("/")[1] for answer in answers}
    assert roles == {"pod-identity-lab-s3-reader-role"}


@requirement("API-326")
@pytest.mark.parametrize("version", ["1.13", "1.24", "1.99"])
def test_no_kubernetes_version_is_too_old(exchange: Exchange, version: str) -> None:
    """Associations, the agent's add-on and EKS Auth work on whatever cluster there is."""
    eks = exchange.lab.eks
    eks.clusters.bind(replace(eks.clusters.get(SCOPE, "pod-identity-lab"), name="old", version=version))
    addon = {"clusterName": "old", "addonName": "eks-pod-identity-agent"}

    exchange.lab.create(clusterName="old")
    assert eks.addons.create(SCOPE, addon)["addon"]["status"] == "CREATING"
    assert eks.addons.versions({"kubernetesVersion": version})["addons"]
    assert exchange.assume(clusterName="old").sessions


@requirement("API-515")
@pytest.mark.parametrize("layer", ["boundary", "scp"])
def test_limits_of_the_role_bind_its_sessions(exchange: Exchange, layer: str) -> None:
    """What a boundary or a service control policy does not allow, no session of the role may do."""
    (session,) = exchange.assume().sessions
    caller, everything = session.credential.principal, policy(ALLOW_ALL)

    free = ask(caller, identity=[everything], **alone(layer, everything))
    bound = ask(caller, identity=[everything], **alone(layer, policy(ALLOW_ALL | {"Action": "sqs:*"})))

    assert (free.allowed, bound.allowed, bound.layer) == (True, False, layer)
