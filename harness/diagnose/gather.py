"""Looks at a pod, its node, the agent and the associations: reads the APIs, and asks the agent from inside the pod."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import urllib3.exceptions
from botocore.exceptions import BotoCoreError, ClientError

from harness import limits
from harness.cloud.documents import entries, members
from harness.cluster.base import Completed
from harness.diagnose.picture import (
    AGENT,
    Association,
    Picture,
    Reach,
    Sdk,
    agent_argument,
    deployment_of,
    reach_told_by,
    workload_of,
)
from harness.errors import HarnessFault, UsageError
from harness.kube import ApiException, Kube, Manifest, Pod

__all__ = ["gather"]

T = TypeVar("T")

# Asks the agent as an SDK does, without the proxies and with them; curl looks at http_proxy in lower case alone, others
# at both. Credentials never leave the pod: of a 200 only the status is printed. The last line is "<curl's exit code>
# <status> <seconds until there was a connection>", without the proxies, then with them.
_ASK = r"""
uri=${AWS_CONTAINER_CREDENTIALS_FULL_URI:?}
ask() {
  answer=$(curl --silent --connect-timeout 4 --max-time 12 \
    --header "Authorization: $(cat "$AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")" \
    --write-out '\n%{http_code} %{time_connect}' "$@" "$uri"); code=$?
  told=$(printf '%s' "$answer" | tail -n 1); status=${told% *}
}
command -v curl > /dev/null || exit 64
ask --noproxy '*'
direct="$code $told"
[ "$status" = 200 ] || printf '%s' "$answer" | sed '$d'
# The rest only makes sense if it went well.
[ "$status" != 200 ] || {
  export http_proxy="${http_proxy:-$HTTP_PROXY}" no_proxy="${no_proxy:-$NO_PROXY}"
  [ -z "$http_proxy" ] || ask
}
printf '\n%s %s %s\n' "$direct" "$code" "$told"
"""
_WHY = {64: "the container has no curl"}
_CURL_TIMEOUT = "28"

_SDK = r"""
import json, signal
signal.alarm(30)
try:
    from botocore import __version__
    from botocore.session import Session
except ImportError:
    from awscli.botocore import __version__
    from awscli.botocore.session import Session
found = {"version": __version__}
try:
    credentials = Session().get_credentials()
    found["method"] = credentials.method if credentials else "none"
except Exception as error:
    found["error"] = f"{type(error).__name__}: {error}"
print(json.dumps(found))
"""


def gather(kube: Kube, eks: Any, cluster: str, name: str, namespace: str, *, ask: bool = True) -> Picture:
    """Return the picture of a pod.

    Args:
        kube: A client of the cluster.
        eks: A boto3 client of EKS; None when there is none.
        cluster: Name that EKS knows the cluster by.
        name: The pod.
        namespace: Its namespace.
        ask: Whether commands may be run in the pod; nothing else is ever changed.

    Raises:
        UsageError: There is no such pod.
    """
    pod = kube.get(f"/api/v1/namespaces/{namespace}/pods/{name}")
    if pod is None:
        raise UsageError(
            f"there is no pod {name!r} in namespace {namespace!r}",
            hint=f"see: kubectl --namespace {namespace} get pods",
        )
    look = _Look()
    node_name = pod["spec"].get("nodeName")
    account = pod["spec"].get("serviceAccountName") or "default"
    node = look.at("its node", lambda: kube.get(f"/api/v1/nodes/{node_name}") if node_name else None)
    agent = look.at("the agent", lambda: _agent(kube))
    daemon_set, agent_pods = agent or (None, ())
    policies = f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies"
    events = f"/api/v1/namespaces/{namespace}/events"
    found_events = look.at("its events", lambda: kube.items(events, fieldSelector=f"involvedObject.name={name}"))
    replica_sets = f"/apis/apps/v1/namespaces/{namespace}/replicasets"
    workload = look.at(
        "what restarts it", lambda: workload_of(pod, lambda owner: deployment_of(kube.get(f"{replica_sets}/{owner}")))
    )
    found_policies = look.at("NetworkPolicies", lambda: kube.items(policies))
    known = cluster or agent_argument(daemon_set, "--cluster-name")
    associations = _associations(eks, known, namespace, account, look.gaps)
    reach, sdk = _ask_inside(kube.pod(name, namespace), pod, look.gaps, may_ask=ask)
    return Picture(
        pod=pod,
        node=node,
        daemon_set=daemon_set,
        is_agent_known=agent is not None,
        agent_pods=agent_pods,
        events=found_events or (),
        network_policies=found_policies or (),
        associations=associations,
        workload=workload or "",
        reach=reach,
        sdk=sdk,
        gaps=look.gaps,
    )


class _Look:
    """Looks at one thing after the other; what may not be seen is a gap and not an error."""

    def __init__(self) -> None:
        self.gaps: list[str] = []

    def at(self, what: str, how: Callable[[], T]) -> T | None:
        try:
            return how()
        except HarnessFault as fault:
            self.gaps.append(f"{what}: {' '.join(str(fault).split())}")
            return None


def _agent(kube: Kube) -> tuple[Manifest | None, Sequence[Manifest]]:
    """Return the agent's DaemonSet, and its pods."""
    daemon_set = kube.get(f"/apis/apps/v1/namespaces/kube-system/daemonsets/{AGENT}")
    if daemon_set is None:
        return None, ()
    labels = members(daemon_set["spec"]["selector"].get("matchLabels"))
    selector = ",".join(f"{key}={value}" for key, value in labels.items())
    found = kube.items("/api/v1/namespaces/kube-system/pods", labelSelector=selector)
    return daemon_set, [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def _associations(
    eks: Any, cluster: str, namespace: str, account: str, gaps: list[str]
) -> Sequence[Association] | None:
    """Return all associations; the pod's own with its times."""
    if eks is None or not cluster:
        gaps.append("associations: EKS was not asked; name the cluster with --cluster")
        return None
    try:
        pages = eks.get_paginator("list_pod_identity_associations").paginate(clusterName=cluster)
        found = [entry for page in pages for entry in page["associations"]]
        return [_described(eks, cluster, entry, (namespace, account)) for entry in found]
    except (BotoCoreError, ClientError) as error:
        gaps.append(f"associations of {cluster}: {error}")
        return None


def _described(eks: Any, cluster: str, entry: Manifest, wanted: tuple[str, str]) -> Association:
    pair = (str(entry["namespace"]), str(entry["serviceAccount"]))
    if pair != wanted:
        return Association(*pair, id=entry["associationId"])
    told = eks.describe_pod_identity_association(clusterName=cluster, associationId=entry["associationId"])
    association = told["association"]
    target = association.get("targetRoleArn") or ""
    return Association(*pair, entry["associationId"], association["roleArn"], association["createdAt"], target)


def _ask_inside(handle: Pod, pod: Manifest, gaps: list[str], *, may_ask: bool) -> tuple[Reach, Sdk]:
    """Ask the agent and a botocore from inside the pod, in the container that has the variables."""
    containers = [container["name"] for container in pod["spec"]["containers"]]
    injected = [container["name"] for container in pod["spec"]["containers"] if _has_variables(container)]
    name = (injected or containers)[0]
    not_now = "not allowed" if not may_ask else _why_not_running(pod, name)
    if not_now:
        gaps.append(f"nothing was asked from inside the pod: {not_now}")
        return Reach(), Sdk()
    inside = _Inside(handle, name)
    reach = _reach(inside, gaps) if injected else Reach()
    if reach.outcome in {"timeout", "refused", "silent"}:
        # An SDK that waits for an agent says nothing new.
        return reach, Sdk()
    sdk = _sdk(inside, gaps)
    return (reach_told_by(sdk.error) if injected and reach.outcome == "not-asked" else reach), sdk


def _has_variables(container: Manifest) -> bool:
    return any(entry["name"] == "AWS_CONTAINER_CREDENTIALS_FULL_URI" for entry in container.get("env") or ())


def _why_not_running(pod: Manifest, name: str) -> str:
    """Return why a container does not run; empty if it does."""
    status = members(pod.get("status"))
    for one in map(members, entries(status.get("containerStatuses"))):
        if one.get("name") == name:
            states = members(one.get("state"))
            if "running" in states:
                return ""
            told = [f"{state} ({members(states[state]).get('reason', 'no reason given')})" for state in states]
            return f"container {name} is {', '.join(told) or 'waiting'}"
    return f"the pod is {status.get('phase', 'Pending')}"


class _Inside:
    """Runs commands in a container."""

    def __init__(self, handle: Pod, container: str) -> None:
        self._handle, self._container = handle, container

    def run(self, *command: str) -> Completed | str:
        """Run a command; return why that went wrong instead."""
        try:
            return self._handle.exec(*command, timeout=limits.DIAGNOSE_EXEC, container=self._container)
        except ApiException as error:
            return f"the API server refuses: {cast('Any', error).reason}"
        except (HarnessFault, OSError, urllib3.exceptions.HTTPError) as error:
            return " ".join(str(error).split())
        except (ValueError, KeyError, TypeError):
            # The runtime could not start it: then its status has no exit code.
            return f"container {self._container} has no {command[0]}"


def _reach(inside: _Inside, gaps: list[str]) -> Reach:
    """Ask the agent."""
    done = inside.run("sh", "-c", _ASK)
    if isinstance(done, str) or done.returncode != 0:
        why = (
            done if isinstance(done, str) else _WHY.get(done.returncode, f"curl's script ended with {done.returncode}")
        )
        gaps.append(f"the agent was not asked from inside the pod: {why}")
        return Reach()
    *lines, last = done.stdout.strip("\n").split("\n")
    code, status, connected, proxied_code, proxied_status, _ = last.split()
    if code == "0":
        same = (proxied_code, proxied_status) == (code, status)
        return Reach("answered", int(status), "\n".join(lines).strip(), "same" if same else "fails")
    if float(connected) > 0:
        return Reach("silent")
    return Reach("timeout" if code == _CURL_TIMEOUT else "refused")


def _sdk(inside: _Inside, gaps: list[str]) -> Sdk:
    """Ask a botocore for its version and where it takes credentials from."""
    done = inside.run("python3", "-c", _SDK)
    if isinstance(done, str) or done.returncode != 0:
        why = done if isinstance(done, str) else "the container has no botocore"
        gaps.append(f"the SDK was not asked where its credentials come from: {why}")
        return Sdk()
    told: dict[str, str] = json.loads(done.stdout)
    return Sdk(told["version"], told.get("method", ""), told.get("error", ""))
