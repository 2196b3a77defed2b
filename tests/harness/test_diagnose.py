"""The rules of ``podid diagnose``: one fault, one cause; and what NetworkPolicies say about the way to the agent."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from harness.cluster.base import Completed
from harness.diagnose import Association, Picture, find_causes, gather
from harness.diagnose.picture import Reach, Sdk, agent_argument, deployment_of, reach_told_by, workload_of
from harness.diagnose.policies import blocking_policies
from harness.errors import HarnessFault

CREATED = datetime(2026, 4, 10, 14, 0, tzinfo=UTC)
BEFORE, AFTER = CREATED - timedelta(hours=1), CREATED + timedelta(hours=1)
INJECTED = [{"name": "AWS_CONTAINER_CREDENTIALS_FULL_URI", "value": "http://169.254.170.23/v1/credentials"}]
DENIED = (
    "[0b0c]: (AccessDeniedException): User: arn:aws:sts::123456789012:assumed-role/node-role/i-0 is not authorized to "
    "perform: eks-auth:AssumeRoleForPodIdentity on resource: arn:aws:eks:eu-west-1:123456789012:cluster/lab"
)
DAEMON_SET = {"status": {"desiredNumberScheduled": 1, "numberReady": 1}}
DENY_ALL = {"metadata": {"name": "default-deny"}, "spec": {"podSelector": {}, "policyTypes": ["Egress"]}}


def pod(**changes: Any) -> dict[str, Any]:
    """A pod of demo/s3-reader on node-a, created at 14:00; ``env`` replaces its variables."""
    metadata = {"name": "s3-test", "namespace": "demo", "creationTimestamp": CREATED.isoformat()}
    metadata |= changes.pop("metadata", {})
    container = {"name": "app", "env": changes.pop("env", INJECTED)}
    spec = {"serviceAccountName": "s3-reader", "nodeName": "node-a", "containers": [container]} | changes
    return {"metadata": metadata, "spec": spec}


def agent(*, ready: bool = True, node: str = "node-a") -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": str(ready)}]
    return {
        "metadata": {"name": "eks-pod-identity-agent-x"},
        "spec": {"nodeName": node},
        "status": {"phase": "Running", "conditions": conditions, "containerStatuses": []},
    }


SOUND = Picture(
    pod=pod(),
    node={"metadata": {"labels": {}}},
    daemon_set=DAEMON_SET,
    agent_pods=[agent()],
    associations=[Association("demo", "s3-reader", "a-1", "arn:aws:iam::123456789012:role/reader", BEFORE)],
    reach=Reach("answered", 200, "", "same"),
    sdk=Sdk("1.35.0", "container-role"),
)
PLAIN = replace(SOUND, pod=pod(env=[]), reach=Reach(), sdk=Sdk("1.35.0", "iam-role"))
TIMEOUT = replace(SOUND, reach=Reach("timeout"), sdk=Sdk())
AUTO = {"metadata": {"labels": {"eks.amazonaws.com/compute-type": "auto"}}}
FARGATE = {"metadata": {"labels": {"eks.amazonaws.com/compute-type": "fargate"}}}
PROFILE = "MatchNodeSelector failed: Fargate profile fp-default cannot satisfy pod's node selector/affinity"


def refusal(text: str) -> Picture:
    return replace(SOUND, reach=Reach("answered", 400, text))


CASES = {
    "fargate-profile": replace(SOUND, pod=pod(env=[], nodeName=""), events=[{"message": PROFILE}]),
    "pod-older-than-association": replace(PLAIN, associations=[Association("demo", "s3-reader", "a-1", "arn", AFTER)]),
    "not-injected": PLAIN,
    "case-mismatch": replace(PLAIN, associations=[Association("Demo", "S3-Reader", "a-1")]),
    "service-account-mismatch": replace(PLAIN, associations=[Association("demo", "other", "a-1")]),
    "no-association": replace(PLAIN, associations=[Association("elsewhere", "other", "a-1")]),
    "fargate-node": replace(TIMEOUT, node=FARGATE, agent_pods=[]),
    "agent-missing": replace(TIMEOUT, daemon_set=None, agent_pods=[]),
    "node-without-agent": replace(TIMEOUT, agent_pods=[agent(node="node-b")]),
    "agent-not-ready": replace(TIMEOUT, agent_pods=[agent(ready=False)]),
    "network-policy": replace(TIMEOUT, network_policies=[DENY_ALL]),
    "path-blocked": TIMEOUT,
    "node-role-permission": refusal(DENIED),
    "role-not-assumable": refusal(
        "[0]: (AccessDeniedException): EKS does not have permissions to assume the associated role."
    ),
    "association-deleted": refusal("[0]: (ResourceNotFoundException): No association found"),
    "eks-auth-unreachable": replace(
        SOUND, reach=Reach("answered", 500, "[]: (ConnectTimeout): no connection to EKS Auth within 500 ms")
    ),
    "refused": refusal("[0]: (ThrottlingException): slow down"),
    "proxy": replace(SOUND, reach=Reach("answered", 200, "", "fails")),
    "sdk-too-old": replace(SOUND, sdk=Sdk("1.31.85", "", "ValueError: Unsupported host '169.254.170.23'.")),
    "other-credentials": replace(SOUND, sdk=Sdk("1.35.0", "env")),
    "sdk-fails": replace(SOUND, sdk=Sdk("1.35.0", "", "ProfileNotFound: The config profile (x) could not be found")),
}


@pytest.mark.parametrize("cause", CASES)
def test_one_fault_has_one_cause_with_evidence_and_cure(cause: str) -> None:
    (found,) = find_causes(CASES[cause])

    assert found.cause == cause
    assert found.evidence
    assert found.cure
    assert found.text.startswith(f"{cause}: ")


def test_a_sound_pod_has_none() -> None:
    assert find_causes(SOUND) == []


@pytest.mark.parametrize("method", ["none", "iam-role", "env"])
@pytest.mark.parametrize("reach", [SOUND.reach, Reach()])
def test_an_sdk_that_does_not_ask_the_agent_is_told_of(method: str, reach: Reach) -> None:
    """Also where there was nothing to ask the agent with."""
    (found,) = find_causes(replace(SOUND, reach=reach, sdk=Sdk("1.35.0", method)))

    assert found.cause == "other-credentials"


def test_an_sdk_says_itself_that_it_is_too_old() -> None:
    """The botocore inside AWS CLI 2 has a version of its own."""
    error = "ValueError: Unsupported host '169.254.170.23'. Can only retrieve metadata from these hosts: localhost"

    (found,) = find_causes(replace(SOUND, reach=Reach(), sdk=Sdk("2.0.0dev155", "", error)))

    assert found.cause == "sdk-too-old"


@pytest.mark.parametrize(
    "picture",
    [
        replace(SOUND, daemon_set=None, agent_pods=[]),
        replace(SOUND, agent_pods=[agent(ready=False)]),
        replace(SOUND, daemon_set=None, agent_pods=[], node=AUTO, reach=Reach(), sdk=Sdk()),
        replace(SOUND, daemon_set=None, agent_pods=[], is_agent_known=False, reach=Reach(), sdk=Sdk()),
    ],
)
def test_an_agent_that_answers_or_is_built_in_or_cannot_be_seen_is_not_missing(picture: Picture) -> None:
    assert find_causes(picture) == []


def test_an_agent_that_takes_the_request_and_is_silent_has_no_way_to_eks_auth() -> None:
    (found,) = find_causes(replace(SOUND, reach=Reach("silent"), sdk=Sdk(), network_policies=[DENY_ALL]))

    assert found.cause == "eks-auth-unreachable"


def test_both_roles_are_named_where_there_are_two() -> None:
    target = "arn:aws:iam::987654321098:role/target"
    (own,) = SOUND.associations or ()

    (found,) = find_causes(replace(CASES["role-not-assumable"], associations=[replace(own, target_role_arn=target)]))

    assert target in found.what
    assert target in found.cure[1]


@pytest.mark.parametrize(
    ("error", "reach"),
    [
        (
            'ConnectTimeoutError: Connect timeout on endpoint URL: "http://169.254.170.23/v1/credentials"',
            Reach("timeout"),
        ),
        ("Could not connect to the endpoint URL: http://169.254.170.23/v1/credentials", Reach("refused")),
        ('Read timeout on endpoint URL: "http://169.254.170.23/v1/credentials"', Reach("silent")),
        (
            f"Error retrieving metadata: Received non 200 response 400 from container metadata: {DENIED}",
            Reach("answered", 400, DENIED),
        ),
        ("ProfileNotFound: The config profile (x) could not be found", Reach()),
    ],
)
def test_what_botocore_says_of_the_agent_is_an_answer(error: str, reach: Reach) -> None:
    assert reach_told_by(error) == reach


def test_a_pod_of_irsa_is_older_than_its_association() -> None:
    irsa = pod(env=[{"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": "/var/run/token"}])

    (found,) = find_causes(replace(CASES["pod-older-than-association"], pod=irsa))

    assert (found.cause, found.search) == (
        "pod-older-than-association",
        "Pod still using IRSA's role instead of Pod Identity",
    )


def test_a_pod_of_irsa_has_none() -> None:
    irsa = [{"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": "/var/run/token"}]

    assert find_causes(replace(PLAIN, pod=pod(env=irsa), associations=[])) == []


def test_nothing_is_said_of_associations_that_nobody_could_read() -> None:
    assert find_causes(replace(PLAIN, associations=None)) == []


def test_default_of_another_namespace_is_not_meant() -> None:
    plain = replace(PLAIN, pod=pod(env=[], serviceAccountName="default"))

    (found,) = find_causes(replace(plain, associations=[Association("elsewhere", "default", "a-1")]))

    assert found.cause == "no-association"


def test_a_policy_that_nothing_enforces_is_no_cause() -> None:
    assert find_causes(replace(SOUND, network_policies=[DENY_ALL])) == []


def test_a_policy_counts_where_the_agent_could_not_be_asked() -> None:
    (found,) = find_causes(replace(SOUND, network_policies=[DENY_ALL], reach=Reach(), sdk=Sdk()))

    assert found.cause == "network-policy"


@pytest.mark.parametrize(
    ("workload", "cure"),
    [
        ("deployment/external-secrets", "kubectl --namespace demo rollout restart deployment/external-secrets"),
        ("", "kubectl --namespace demo delete pod s3-test, and create it again"),
    ],
)
def test_the_cure_restarts_the_workload(workload: str, cure: str) -> None:
    (found,) = find_causes(replace(CASES["pod-older-than-association"], workload=workload))

    assert found.cure == [cure]


@pytest.mark.parametrize(
    ("owner", "workload"),
    [
        ({"kind": "ReplicaSet", "name": "app-7d9f"}, "deployment/app"),
        ({"kind": "ReplicaSet", "name": "bare-7d9f"}, ""),
        ({"kind": "DaemonSet", "name": "fluent-bit"}, "daemonset/fluent-bit"),
        ({"kind": "StatefulSet", "name": "store"}, "statefulset/store"),
        ({"kind": "Job", "name": "report-1"}, ""),
        (None, ""),
    ],
)
def test_a_pod_is_restarted_by_what_owns_it(owner: dict[str, str] | None, workload: str) -> None:
    sets = {
        "app-7d9f": {"metadata": {"ownerReferences": [{"kind": "Deployment", "name": "app"}]}},
        "bare-7d9f": {"metadata": {}},
    }
    owned = pod(metadata={"ownerReferences": [owner] if owner else []})

    assert workload_of(owned, lambda name: deployment_of(sets[name])) == workload


def test_an_agent_without_its_image_is_told_with_the_reason() -> None:
    waiting = {"waiting": {"reason": "ErrImagePull", "message": "not found"}}
    behind = {"waiting": {"reason": "PodInitializing"}}
    away = agent(ready=False)
    away["status"] |= {
        "initContainerStatuses": [{"name": "init", "restartCount": 0, "state": waiting}],
        "containerStatuses": [{"name": "server", "restartCount": 0, "state": behind}],
    }

    (found,) = find_causes(replace(TIMEOUT, agent_pods=[away], reach=Reach("refused")))

    assert found.cause == "agent-not-ready"
    assert found.search.startswith("Could not connect to the endpoint URL")
    assert "container init waits: ErrImagePull: not found" in found.evidence
    assert not any("server" in entry for entry in found.evidence)


def test_the_cure_of_a_hybrid_node_configures_the_add_on() -> None:
    hybrid = {"metadata": {"labels": {"eks.amazonaws.com/compute-type": "hybrid"}}}

    (found,) = find_causes(replace(CASES["node-without-agent"], node=hybrid))

    assert found.cure[0].startswith("aws eks update-addon")
    assert json.loads(shlex.split(found.cure[0])[-1]) == {"daemonsets": {"hybrid": {"create": True}}}


def test_an_association_of_the_same_second_is_not_taken_for_later() -> None:
    """Kubernetes tells whole seconds, EKS fractions of them."""
    same_second = Association("demo", "s3-reader", "a-1", "arn", CREATED + timedelta(seconds=0.7))

    (found,) = find_causes(replace(PLAIN, associations=[same_second]))

    assert found.cause == "not-injected"


def test_a_pod_without_credentials_is_told_by_what_it_says() -> None:
    (found,) = find_causes(replace(CASES["no-association"], sdk=Sdk("1.35.0", "none")))

    assert found.search == "Unable to locate credentials"
    assert any("hop limit 1" in entry for entry in found.evidence)


def test_a_finding_is_data() -> None:
    (found,) = find_causes(PLAIN)

    assert json.dumps([found.cause, *found.evidence, *found.cure])


# --- NetworkPolicies ------------------------------------------------------------------------------------------------


def policy(egress: list[dict[str, Any]], **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "p"},
        "spec": {"podSelector": {}, "policyTypes": ["Egress"], "egress": egress} | spec,
    }


LINK_LOCAL = {"to": [{"ipBlock": {"cidr": "169.254.170.23/32"}}], "ports": [{"protocol": "TCP", "port": 80}]}


@pytest.mark.parametrize(
    ("policies", "blocks"),
    [
        ([], False),
        ([DENY_ALL], True),
        ([policy([LINK_LOCAL])], False),
        ([DENY_ALL, policy([LINK_LOCAL])], False),
        ([policy([{}])], False),
        ([policy([{"ports": [{"port": 53, "protocol": "UDP"}, {"port": 443}]}])], True),
        ([policy([{"ports": [{"port": 1, "endPort": 1024}]}])], False),
        ([policy([{"ports": [{"port": 80, "protocol": "UDP"}]}])], True),
        ([policy([{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}])], False),
        ([policy([{"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}}]}])], True),
        ([policy([{"to": [{"namespaceSelector": {}}]}])], True),
        ([policy([], policyTypes=["Ingress"])], False),
        ([policy([], podSelector={"matchLabels": {"app": "other"}})], False),
        ([policy([], podSelector={"matchExpressions": [{"key": "app", "operator": "Exists"}]})], True),
        ([policy([], podSelector={"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["x"]}]})], False),
    ],
)
def test_policies_block_unless_one_rule_allows(policies: list[dict[str, Any]], blocks: bool) -> None:
    labelled = {"metadata": {"labels": {"app": "x"}}}

    assert bool(blocking_policies(labelled, policies, "169.254.170.23", 80)) is blocks


# --- The cluster's name ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["--cluster-name", "lab"], "lab"),
        (["--cluster-name=lab"], "lab"),
        (["--port", "80"], ""),
        (["--cluster-name"], ""),
    ],
)
def test_the_agent_tells_the_cluster_s_name(words: list[str], name: str) -> None:
    daemon_set = {"spec": {"template": {"spec": {"containers": [{"args": words}]}}}}

    assert agent_argument(daemon_set, "--cluster-name") == name


# --- What is looked at ----------------------------------------------------------------------------------------------


class Inside:
    """A cluster with one pod, which runs no command but those that it is given answers for."""

    def __init__(self, seen: dict[str, Any], *answers: Completed | Exception) -> None:
        self.seen, self.answers = seen, iter(answers)
        self.asked: list[tuple[str, str]] = []

    def get(self, path: str) -> Any:
        if "/pods/" in path:
            return self.seen
        if "daemonsets" in path:
            raise HarnessFault("the API server does not allow it: 403")
        return None

    def items(self, _path: str, **_: str) -> list[Any]:
        return []

    def pod(self, *_: str) -> Any:
        return self

    def exec(self, *command: str, container: str, **_: object) -> Completed:
        self.asked.append((command[0], container))
        answer = next(self.answers)
        if isinstance(answer, Exception):
            raise answer
        return answer


def state_of(name: str, **state: Any) -> dict[str, Any]:
    return {"name": name, "state": state}


def with_sidecar(*statuses: dict[str, Any]) -> dict[str, Any]:
    """A pod whose second container has the variables."""
    seen = pod(containers=[{"name": "proxy"}, {"name": "app", "env": INJECTED}])
    # kubelet sorts them by name.
    return seen | {"status": {"phase": "Running", "containerStatuses": sorted(statuses, key=lambda one: one["name"])}}


def look(cluster: Inside, *, ask: bool = True) -> Picture:
    return gather(cast("Any", cluster), None, "lab", "s3-test", "demo", ask=ask)


def test_the_container_with_the_variables_is_asked() -> None:
    seen = with_sidecar(state_of("app", running={}), state_of("proxy", waiting={"reason": "CrashLoopBackOff"}))
    sdk = Completed(0, '{"version": "1.40.0", "method": "container-role"}', "")
    cluster = Inside(seen, Completed(0, "0 200 0.001 0 200 0.001\n", ""), sdk)

    picture = look(cluster)

    assert cluster.asked == [("sh", "app"), ("python3", "app")]
    assert picture.reach == Reach("answered", 200, "", "same")
    assert picture.sdk.method == "container-role"


@pytest.mark.parametrize(
    ("printed", "reach"),
    [
        ("28 000 0.000000 28 000 0.000000", Reach("timeout")),
        ("28 000 0.000412 28 000 0.000412", Reach("silent")),
        ("7 000 0.000000 7 000 0.000000", Reach("refused")),
        ("0 200 0.000412 28 000 0.000000", Reach("answered", 200, "", "fails")),
    ],
)
def test_curl_tells_how_far_it_came(printed: str, reach: Reach) -> None:
    cluster = Inside(with_sidecar(state_of("app", running={})), Completed(0, printed, ""), Completed(1, "", ""))

    assert look(cluster).reach == reach


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ({"waiting": {"reason": "CrashLoopBackOff"}}, "container app is waiting (CrashLoopBackOff)"),
        ({"terminated": {"reason": "Completed"}}, "container app is terminated (Completed)"),
    ],
)
def test_a_container_that_does_not_run_is_told_of(state: dict[str, Any], why: str) -> None:
    assert f"nothing was asked from inside the pod: {why}" in look(Inside(with_sidecar(state_of("app", **state)))).gaps


def test_a_pod_that_waits_for_a_node_is_told_of() -> None:
    assert "nothing was asked from inside the pod: the pod is Pending" in look(Inside(pod())).gaps


def test_what_may_not_be_asked_or_seen_is_told_of() -> None:
    picture = look(Inside(with_sidecar(state_of("app", running={}))), ask=False)

    assert "nothing was asked from inside the pod: not allowed" in picture.gaps
    assert any(gap.startswith("the agent: the API server does not allow it") for gap in picture.gaps)
    assert not picture.is_agent_known


def test_a_container_without_a_shell_and_python_is_told_of() -> None:
    unstartable = ValueError("invalid literal for int()")

    gaps = look(Inside(with_sidecar(state_of("app", running={})), unstartable, unstartable)).gaps

    assert "the agent was not asked from inside the pod: container app has no sh" in gaps
    assert "the SDK was not asked where its credentials come from: container app has no python3" in gaps


def test_botocore_s_words_serve_where_there_is_no_curl() -> None:
    error = f"CredentialRetrievalError: Received non 200 response 400 from container metadata: {DENIED}"
    sdk = Completed(0, json.dumps({"version": "1.40.0", "error": error}), "")

    picture = look(Inside(with_sidecar(state_of("app", running={})), Completed(64, "", ""), sdk))

    assert picture.reach == Reach("answered", 400, DENIED)
    assert [found.cause for found in find_causes(picture)] == ["node-role-permission"]
