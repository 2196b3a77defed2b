"""The rules: what keeps a pod from its credentials, one rule a cause. Pure.

The way of a credential has steps: the pod is scheduled, injected, reaches the agent, the agent gets an answer, the SDK
takes it. A step can only be judged when those before it are fine; so the first step at which something is wrong ends
the search, and one fault is named by one cause.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from harness.cloud.documents import entries, members
from harness.diagnose.picture import AGENT, AGENT_ADDRESS, Association, Picture, compute_type
from harness.diagnose.policies import blocking_policies

__all__ = ["Finding", "find_causes"]

_TIMEOUT = 'Connect timeout on endpoint URL: "http://169.254.170.23/v1/credentials"'
_REFUSED = 'Could not connect to the endpoint URL: "http://169.254.170.23/v1/credentials"'
_SILENT = 'Read timeout on endpoint URL: "http://169.254.170.23/v1/credentials"'
_NODE_ROLE = "Pod still using node role instead of Pod Identity"
_NO_CREDENTIALS = "Unable to locate credentials"
_UNSUPPORTED = f"Unsupported host '{AGENT_ADDRESS}'"
_FIRST_SDK = (1, 32, 0)
"""The first botocore that takes credentials from 169.254.170.23; the article asks for boto3 1.34.41."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A cause."""

    cause: str
    """A short name that stays, for scripts."""
    what: str
    """The cause in one sentence."""
    search: str
    """What a person sees and searches for."""
    evidence: Sequence[str]
    cure: Sequence[str]
    """What to do; commands can be pasted."""

    @property
    def text(self) -> str:
        """The finding for people, several lines."""
        lines = [
            f"{self.cause}: {self.what}",
            f"  seen as   {self.search}",
            *(f"  evidence  {entry}" for entry in self.evidence),
            *(f"  cure      {entry}" for entry in self.cure),
        ]
        return "\n".join(lines)


Rule = Callable[[Picture], Finding | None]


def find_causes(picture: Picture) -> list[Finding]:
    """Return the causes of the first step at which something is wrong; none if nothing is."""
    for step in _STEPS:
        found = [finding for rule in step if (finding := rule(picture))]
        if found:
            return found
    return []


# --- The pod is scheduled -------------------------------------------------------------------------------------------


def _fargate_profile(picture: Picture) -> Finding | None:
    """A Fargate profile claims the namespace of a pod that must not run there."""
    messages = [event.get("message") or "" for event in picture.events]
    told = next((text for text in messages if "MatchNodeSelector failed: Fargate profile" in text), None)
    if picture.node_name or told is None:
        return None
    profile = picture.labels.get("eks.amazonaws.com/fargate-profile", "")
    return Finding(
        "fargate-profile",
        "A Fargate profile claims this namespace, and the pod's node selector or affinity excludes Fargate.",
        told,
        [f"event: {told}", *([f"Fargate profile of the pod: {profile}"] if profile else [])],
        [
            (
                "install the workload in a namespace that no Fargate profile selects, as the guide does; "
                "see: aws eks list-fargate-profiles --cluster-name CLUSTER"
            )
        ],
    )


# --- Admission injected it ------------------------------------------------------------------------------------------


def _has_nothing(picture: Picture) -> bool:
    """Whether nobody gave the pod a role; one of IRSA's has the role it is meant to have, until it is associated."""
    return not picture.is_injected and not picture.is_with_irsa


def _whole_seconds(moment: datetime) -> datetime:
    """Return a moment as Kubernetes tells it: a pod may look older than what came before it in the same second."""
    return moment.replace(microsecond=0)


def _exact(picture: Picture) -> Association | None:
    pair = (picture.namespace, picture.service_account)
    return next((one for one in picture.associations or () if (one.namespace, one.service_account) == pair), None)


def _pod_older_than_association(picture: Picture) -> Finding | None:
    """The association came after the pod; admission acts on new pods only."""
    association = _exact(picture)
    if picture.is_injected or association is None or association.created_at is None:
        return None
    if _whole_seconds(association.created_at) <= picture.created_at:
        return None
    return Finding(
        "pod-older-than-association",
        "The pod was created before the association; admission gives variables to new pods only.",
        _seen_without_variables(picture),
        [
            f"pod created at {picture.created_at.isoformat()}",
            f"association {association.id} created at {association.created_at.isoformat()}",
            *_acts_as(picture),
        ],
        [_recreate(picture)],
    )


def _not_injected(picture: Picture) -> Finding | None:
    """The association was there first, and the pod still got nothing."""
    association = _exact(picture)
    if picture.is_injected or association is None:
        return None
    if association.created_at is None or _whole_seconds(association.created_at) > picture.created_at:
        return None
    labels = picture.labels
    skip = "eks.amazonaws.com/skip-pod-identity-webhook"
    skipped = skip in labels
    return Finding(
        "not-injected",
        f"The pod has the label {skip}, so the webhook left it alone."
        if skipped
        else "The association is older than the pod, and the webhook did not inject it: it was down, or had not heard "
        "of the association yet.",
        _seen_without_variables(picture),
        [
            f"association {association.id} created at {association.created_at.isoformat()}",
            f"pod created at {picture.created_at.isoformat()}",
            *([f"label {skip}={labels[skip]}"] if skipped else []),
            *_acts_as(picture),
        ],
        [f"remove the label {skip} from the pod's template" if skipped else _recreate(picture)],
    )


def _case_mismatch(picture: Picture) -> Finding | None:
    """An association differs from the pod in upper and lower case only."""
    near = _nearly(picture)
    if near is None:
        return None
    return Finding(
        "case-mismatch",
        "Names of associations are case-sensitive, and the only association like this pod's differs in case.",
        _seen_without_variables(picture),
        [
            f"pod runs as {picture.namespace}/{picture.service_account}",
            f"association {near.id} is for {near.namespace}/{near.service_account}",
            *_acts_as(picture),
        ],
        [_associate(picture), _recreate(picture)],
    )


def _nearly(picture: Picture) -> Association | None:
    if not _has_nothing(picture) or _exact(picture) is not None:
        return None
    pair = (picture.namespace.lower(), picture.service_account.lower())
    known = picture.associations or ()
    return next((one for one in known if (one.namespace.lower(), one.service_account.lower()) == pair), None)


def _service_account_mismatch(picture: Picture) -> Finding | None:
    """The pod runs as another ServiceAccount, or in another namespace, than the association names."""
    others = _others(picture)
    if not others:
        return None
    return Finding(
        "service-account-mismatch",
        f"No association names {picture.namespace}/{picture.service_account}, but there are some that look meant.",
        _seen_without_variables(picture),
        [
            f"pod runs as {picture.namespace}/{picture.service_account}",
            *(f"association {one.id} is for {one.namespace}/{one.service_account}" for one in others),
            *_acts_as(picture),
        ],
        [
            f"{_associate(picture)}; or, if that is who the pod is meant to be, run it as {_accounts(others)}",
            _recreate(picture),
        ],
    )


def _accounts(associations: Sequence[Association]) -> str:
    return ", ".join(f"{one.namespace}/{one.service_account}" for one in associations)


def _others(picture: Picture) -> list[Association]:
    if not _has_nothing(picture) or _exact(picture) or _nearly(picture):
        return []
    account = picture.service_account
    return [
        one
        for one in picture.associations or ()
        # Every namespace has a ServiceAccount default: that name alone means nothing.
        if one.namespace == picture.namespace or (one.service_account == account != "default")
    ]


def _no_association(picture: Picture) -> Finding | None:
    """Nothing connects the pod's ServiceAccount with a role."""
    if not _has_nothing(picture) or picture.associations is None:
        return None
    if _exact(picture) or _nearly(picture) or _others(picture):
        return None
    return Finding(
        "no-association",
        f"No association names {picture.namespace}/{picture.service_account}.",
        _seen_without_variables(picture),
        [f"{len(picture.associations)} associations in this cluster, none for it", *_acts_as(picture)],
        [_associate(picture), _recreate(picture)],
    )


def _seen_without_variables(picture: Picture) -> str:
    if picture.is_with_irsa:
        return "Pod still using IRSA's role instead of Pod Identity"
    return _NO_CREDENTIALS if picture.sdk.method == "none" else _NODE_ROLE


def _acts_as(picture: Picture) -> list[str]:
    facts = {
        "iam-role": "its SDK says get_credentials().method = iam-role: the node's role, from IMDS",
        "none": "its SDK finds no credentials: the node's IMDS gives it none, as with hop limit 1",
    }
    return ["no container has AWS_CONTAINER_CREDENTIALS_FULL_URI", *filter(None, [facts.get(picture.sdk.method)])]


def _associate(picture: Picture) -> str:
    return (
        f"aws eks create-pod-identity-association --cluster-name CLUSTER --namespace {picture.namespace} "
        f"--service-account {picture.service_account} --role-arn ROLE_ARN"
    )


def _recreate(picture: Picture) -> str:
    if picture.workload:
        return f"kubectl --namespace {picture.namespace} rollout restart {picture.workload}"
    return f"kubectl --namespace {picture.namespace} delete pod {picture.name}, and create it again"


# --- It reaches the agent -------------------------------------------------------------------------------------------


def _fargate_node(picture: Picture) -> Finding | None:
    """Fargate runs no DaemonSets, so no agent."""
    if not picture.is_injected or not picture.is_on_fargate:
        return None
    return Finding(
        "fargate-node",
        "The pod runs on Fargate, which runs no DaemonSets: there is no agent and never will be.",
        _TIMEOUT,
        [f"node {picture.node_name} is one of Fargate's", *_reached(picture)],
        ["run the workload on EC2 nodes, or use IRSA for it"],
    )


def _may_lack_agent(picture: Picture) -> bool:
    """Whether the agent can be looked for: an answer comes from one, wherever it is."""
    is_elsewhere = picture.is_on_fargate or picture.has_agent_built_in or picture.reach.outcome == "answered"
    return picture.is_injected and picture.is_agent_known and not is_elsewhere


def _agent_missing(picture: Picture) -> Finding | None:
    """The add-on is not installed."""
    if not _may_lack_agent(picture) or picture.daemon_set is not None:
        return None
    return Finding(
        "agent-missing",
        f"The add-on {AGENT} is not installed.",
        _TIMEOUT,
        [f"there is no DaemonSet kube-system/{AGENT}", *_reached(picture)],
        [f"aws eks create-addon --cluster-name CLUSTER --addon-name {AGENT}"],
    )


def _node_without_agent(picture: Picture) -> Finding | None:
    """The DaemonSet is there, but has no pod on the node."""
    if not _may_lack_agent(picture) or picture.daemon_set is None or not picture.node_name:
        return None
    if picture.agent_pod is not None:
        return None
    status = members(picture.daemon_set.get("status"))
    desired, ready = status.get("desiredNumberScheduled", 0), status.get("numberReady", 0)
    return Finding(
        "node-without-agent",
        f"The agent's DaemonSet has no pod on node {picture.node_name}.",
        _TIMEOUT,
        [f"desired {desired}, ready {ready}, none on {picture.node_name}", *_reached(picture)],
        [_cover_node(picture)],
    )


def _cover_node(picture: Picture) -> str:
    if compute_type(picture.node) == "hybrid":
        values = """'{"daemonsets":{"hybrid":{"create":true}}}'"""
        return f"aws eks update-addon --cluster-name CLUSTER --addon-name {AGENT} --configuration-values {values}"
    return (
        "make the DaemonSet's node selector, affinity and tolerations fit the node, or move the pod; "
        f"see: kubectl --namespace kube-system describe daemonset {AGENT}"
    )


def _agent_not_ready(picture: Picture) -> Finding | None:
    """The agent on the node crashes or is not ready."""
    agent = picture.agent_pod
    if not _may_lack_agent(picture) or agent is None:
        return None
    status = members(agent.get("status"))
    if any(one["type"] == "Ready" and one["status"] == "True" for one in entries(status.get("conditions"))):
        return None
    name = agent["metadata"]["name"]
    return Finding(
        "agent-not-ready",
        f"The agent on node {picture.node_name} is not ready.",
        _not_reached(picture),
        [f"pod kube-system/{name} is {status.get('phase')}, not ready", *_troubles(status), *_reached(picture)],
        [f"see why: kubectl --namespace kube-system logs {name}; kubectl --namespace kube-system describe pod {name}"],
    )


def _network_policy(picture: Picture) -> Finding | None:
    """A NetworkPolicy closes the way to the agent's address."""
    blocking = _blocking(picture)
    if not blocking:
        return None
    names = ", ".join(blocking)
    unseen = "; whether anything enforces it was not seen" if picture.reach.outcome == "not-asked" else ""
    return Finding(
        "network-policy",
        f"NetworkPolicy {names} denies egress to {AGENT_ADDRESS}, and none allows it{unseen}.",
        _TIMEOUT,
        [f"selected by {names} of namespace {picture.namespace}", *_reached(picture)],
        [
            (
                f"allow egress to {AGENT_ADDRESS}/32 on TCP port 80 (IPv6: fd00:ec2::23/128) in namespace "
                f"{picture.namespace}"
            )
        ],
    )


def _blocking(picture: Picture) -> list[str]:
    if not picture.is_injected or _agent_is_away(picture) or picture.reach.outcome in {"answered", "refused", "silent"}:
        # A policy that nothing enforces keeps nobody from the agent.
        return []
    return blocking_policies(picture.pod, picture.network_policies, AGENT_ADDRESS, 80)


def _agent_is_away(picture: Picture) -> bool:
    return any(rule(picture) for rule in (_fargate_node, _agent_missing, _node_without_agent, _agent_not_ready))


def _path_blocked(picture: Picture) -> Finding | None:
    """The agent runs beside the pod, and the pod cannot reach it."""
    if not picture.is_injected or picture.reach.outcome not in {"timeout", "refused"}:
        return None
    if _agent_is_away(picture) or _blocking(picture):
        return None
    return Finding(
        "path-blocked",
        f"The agent is ready on node {picture.node_name}, and the pod does not reach {AGENT_ADDRESS}:80.",
        _not_reached(picture),
        [f"no NetworkPolicy seen in namespace {picture.namespace} explains it", *_reached(picture)],
        [
            (
                f"look for packet filters on node {picture.node_name} and for other policies of its CNI: "
                f"nft list ruleset; ip route get {AGENT_ADDRESS}"
            )
        ],
    )


def _troubles(status: Mapping[str, Any]) -> Iterator[str]:
    """Yield what keeps the containers of a pod from running."""
    told = entries(status.get("initContainerStatuses")) + entries(status.get("containerStatuses"))
    for one in map(members, told):
        if restarts := one.get("restartCount"):
            yield f"container {one['name']}: {restarts} restarts"
        waits = members(members(one.get("state")).get("waiting"))
        if waits and waits.get("reason") != "PodInitializing":
            yield f"container {one['name']} waits: {waits.get('reason')}: {waits.get('message', 'no message')}"


def _not_reached(picture: Picture) -> str:
    """Return what botocore says of an agent that it does not reach."""
    match picture.reach.outcome:
        case "refused":
            return _REFUSED
        case "silent":
            return _SILENT
        case _:
            return _TIMEOUT


def _reached(picture: Picture) -> list[str]:
    match picture.reach.outcome:
        case "timeout":
            return [f"asked from inside the pod, {AGENT_ADDRESS}:80 does not answer"]
        case "refused":
            return [f"asked from inside the pod, nobody listens at {AGENT_ADDRESS}:80"]
        case "silent":
            return [f"asked from inside the pod, {AGENT_ADDRESS}:80 takes the connection and says nothing"]
        case _:
            return []


# --- The agent gets an answer ---------------------------------------------------------------------------------------


def _refusal(picture: Picture, pattern: str) -> bool:
    reach = picture.reach
    return reach.outcome == "answered" and reach.status != 200 and re.search(pattern, reach.body) is not None


_NOT_AUTHORIZED = "is not authorized to perform: eks-auth:AssumeRoleForPodIdentity"
_NOT_ASSUMED = "EKS does not have permissions to assume the associated role"
_NO_SUCH = r"\(ResourceNotFoundException\)"
_NO_EKS_AUTH = (
    r"^\[\]: .*(NameResolution|ConnectTimeout|ConnectionRefused|ConnectionReset|TLSError|ProxyError|RequestTimeout"
    r"|ConnectionError|dial tcp|i/o timeout|no such host|connection refused|deadline exceeded|x509)"
)
"""Ours and the released agent's words; who was answered by EKS Auth has its request ID in the brackets."""


def _node_role_permission(picture: Picture) -> Finding | None:
    """The node's role may not call EKS Auth."""
    if not _refusal(picture, _NOT_AUTHORIZED):
        return None
    found = re.search(r"assumed-role/([^/]+)/", picture.reach.body)
    role = found[1] if found else "NODE_ROLE"
    return Finding(
        "node-role-permission",
        f"The node role {role} lacks eks-auth:AssumeRoleForPodIdentity.",
        "AccessDeniedException: User is not authorized to perform: eks-auth:AssumeRoleForPodIdentity",
        [f"the agent answered {picture.reach.status}: {picture.reach.body.strip()}"],
        [
            (
                f"aws iam attach-role-policy --role-name {role} "
                "--policy-arn arn:aws:iam::aws:policy/AmazonEKSWorkerNodePolicy"
            )
        ],
    )


def _role_not_assumable(picture: Picture) -> Finding | None:
    """EKS may not assume the association's role."""
    if not _refusal(picture, _NOT_ASSUMED):
        return None
    association = _exact(picture)
    role = association.role_arn if association and association.role_arn else "the association's role"
    target = association.target_role_arn if association else ""
    what = f"EKS may not assume {role}: it is gone, or its trust policy does not let pods.eks.amazonaws.com."
    if target:
        what = f"EKS may not assume {role}, or that role may not assume {target}; CloudTrail says which."
    return Finding(
        "role-not-assumable",
        what,
        "EKS does not have permissions to assume the associated role",
        [f"the agent answered {picture.reach.status}: {picture.reach.body.strip()}"],
        [
            (
                "give the role the universal trust policy: pods.eks.amazonaws.com may sts:AssumeRole and "
                "sts:TagSession, without a condition that this pod fails"
            ),
            *([_let_on(role, target)] if target else []),
        ],
    )


def _let_on(role: str, target: str) -> str:
    return (
        f"let {role} do sts:AssumeRole and sts:TagSession on {target}, and let it in the trust policy of {target}, "
        "with the association's external ID"
    )


def _association_deleted(picture: Picture) -> Finding | None:
    """The pod has the variables of an association that is gone."""
    if not _refusal(picture, _NO_SUCH):
        return None
    return Finding(
        "association-deleted",
        f"The pod was injected, and {picture.namespace}/{picture.service_account} has no association any more.",
        "ResourceNotFoundException",
        [f"the agent answered {picture.reach.status}: {picture.reach.body.strip()}"],
        [_associate(picture)],
    )


def _eks_auth_unreachable(picture: Picture) -> Finding | None:
    """The agent waits for EKS Auth: there is no way from the node to it."""
    is_silent = picture.reach.outcome == "silent"
    if not is_silent and not _refusal(picture, _NO_EKS_AUTH):
        return None
    text = picture.reach.body.strip()
    told = "the agent takes the request and does not answer" if is_silent else f"the agent answered: {text}"
    return Finding(
        "eks-auth-unreachable",
        f"The agent on node {picture.node_name} gets no answer from EKS Auth.",
        text or _SILENT,
        [told],
        [
            (
                "give the node's subnet a way to eks-auth.REGION.api.aws on port 443: a NAT gateway, or the interface "
                "endpoint com.amazonaws.REGION.eks-auth, whose security group lets the nodes in"
            )
        ],
    )


def _refused(picture: Picture) -> Finding | None:
    """Any other refusal, in its own words."""
    if picture.reach.outcome != "answered" or picture.reach.status == 200:
        return None
    if any(_refusal(picture, pattern) for pattern in (_NOT_AUTHORIZED, _NOT_ASSUMED, _NO_SUCH, _NO_EKS_AUTH)):
        return None
    text = picture.reach.body.strip()
    agent = picture.agent_pod
    name = agent["metadata"]["name"] if agent else f"daemonset/{AGENT}"
    return Finding(
        "refused",
        "The agent or EKS Auth refuses.",
        text or f"HTTP {picture.reach.status}",
        [f"the agent answered {picture.reach.status}: {text}"],
        [f"see: kubectl --namespace kube-system logs {name}"],
    )


# --- The SDK takes it -----------------------------------------------------------------------------------------------


def _proxy(picture: Picture) -> Finding | None:
    """A proxy is asked for a link-local address, which it cannot reach."""
    if picture.reach.through_proxy != "fails":
        return None
    names = ("HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy")
    set_here = [f"{name}={found[name]}" for found in picture.variables() for name in names if name in found]
    return Finding(
        "proxy",
        f"The pod's proxy variables send requests for {AGENT_ADDRESS} to a proxy, which cannot reach it.",
        f"a time-out of clients that honour them, such as Go's, at http://{AGENT_ADDRESS}",
        ["asked directly the agent answers, through the proxy it does not", *set_here],
        [f"add {AGENT_ADDRESS} to NO_PROXY (IPv6: [fd00:ec2::23]), in capitals and lower case"],
    )


def _sdk_too_old(picture: Picture) -> Finding | None:
    """The SDK knows nothing of 169.254.170.23."""
    sdk = picture.sdk
    # The botocore inside AWS CLI 2 counts otherwise, so that what it says is asked first.
    version = tuple(int(part) for part in re.findall(r"\d+", sdk.version)[:3])
    if not picture.is_injected or not (_UNSUPPORTED in sdk.error or (version and version < _FIRST_SDK)):
        return None
    return Finding(
        "sdk-too-old",
        f"botocore {sdk.version} is older than Pod Identity.",
        sdk.error or f"SDK too old: get_credentials().method = {sdk.method}",
        [
            f"botocore {sdk.version} in the pod; 1.32.0 is the first that takes these credentials",
            *([f"it says: {sdk.error}"] if sdk.error else []),
        ],
        ["use boto3 1.34.41, AWS CLI 2.15.0 or later, build the image again, and roll it out"],
    )


def _other_credentials(picture: Picture) -> Finding | None:
    """Something in front of Pod Identity in the SDK's chain wins, or the SDK does not ask the agent at all."""
    method = picture.sdk.method
    if not picture.is_injected or method in {"", "container-role"}:
        return None
    return Finding(
        "other-credentials",
        f"The SDK takes {'none' if method == 'none' else f'others: {method}'} instead of the agent's credentials.",
        f"get_credentials().method = {method}",
        [f"get_credentials().method = {method}, not container-role"],
        ["remove static keys, profiles and web identity variables from the pod: they come before Pod Identity"],
    )


def _sdk_fails(picture: Picture) -> Finding | None:
    """The SDK fails before it has credentials: in its own words."""
    error = picture.sdk.error
    if not picture.is_injected or not error or _sdk_too_old(picture):
        return None
    return Finding(
        "sdk-fails",
        "The SDK fails before it has the agent's credentials.",
        error,
        [f"get_credentials() says: {error}"],
        ["see what its configuration is: the container's AWS_ variables, and ~/.aws/config"],
    )


_STEPS: Sequence[Sequence[Rule]] = (
    (_fargate_profile,),
    (_pod_older_than_association, _not_injected, _case_mismatch, _service_account_mismatch, _no_association),
    (_fargate_node, _agent_missing, _node_without_agent, _agent_not_ready, _network_policy, _path_blocked),
    (_node_role_permission, _role_not_assumable, _association_deleted, _eks_auth_unreachable, _refused),
    (_proxy, _sdk_too_old, _other_credentials, _sdk_fails),
)
