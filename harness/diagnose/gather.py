"""Looks at a pod, its node, the agent and the associations: reads the APIs, and asks the agent from inside the pod."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import urllib3.exceptions
from botocore.exceptions import BotoCoreError, ClientError

from harness.cloud.documents import entries, members
from harness.cluster.base import Completed
from harness.diagnose.picture import AGENT, Association, Picture, Reach, Sdk, agent_argument
from harness.errors import HarnessFault, UsageError
from harness.kube import ApiException, Kube, Manifest, Pod

__all__ = ["gather"]

_EXEC_SECONDS = 40

# Asks the agent as an SDK does, without the proxies and with them. Credentials never leave the pod: of a 200 only the
# status is printed. The last line is "<curl's exit code> <status>".
_ASK = r"""
uri=${AWS_CONTAINER_CREDENTIALS_FULL_URI:?}
ask() {
  answer=$(curl --silent --max-time 4 --header "Authorization: $(cat "$AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")" \
    --write-out '\n%{http_code}' "$@" "$uri"); code=$?
  status=$(printf '%s' "$answer" | tail -n 1)
}
command -v curl > /dev/null || exit 64
ask --noproxy '*'
direct="$code $status"
[ "$status" = 200 ] || printf '%s' "$answer" | sed '$d'
# The rest only makes sense if it went well.
[ -z "${HTTP_PROXY}${http_proxy}" ] || [ "$status" != 200 ] || ask
printf '\n%s %s %s\n' "$direct" "$code" "$status"
"""
_NO_CURL = 64
_CURL_TIMEOUT = 28

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
    gaps: list[str] = []
    node_name = pod["spec"].get("nodeName")
    account = pod["spec"].get("serviceAccountName") or "default"
    daemon_set = kube.get(f"/apis/apps/v1/namespaces/kube-system/daemonsets/{AGENT}")
    associations = _associations(eks, cluster or agent_argument(daemon_set, "--cluster-name"), namespace, account, gaps)
    reach = _reach(kube.pod(name, namespace), pod, gaps, ask=ask)
    return Picture(
        pod=pod,
        node=kube.get(f"/api/v1/nodes/{node_name}") if node_name else None,
        daemon_set=daemon_set,
        agent_pods=_agent_pods(kube, daemon_set),
        events=kube.items(f"/api/v1/namespaces/{namespace}/events", fieldSelector=f"involvedObject.name={name}"),
        network_policies=kube.items(f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies"),
        associations=associations,
        reach=reach,
        # An SDK that waits for an agent says nothing new.
        sdk=Sdk() if reach.outcome in {"timeout", "refused"} else _sdk(kube.pod(name, namespace), pod, ask=ask),
        gaps=gaps,
    )


def _agent_pods(kube: Kube, daemon_set: Manifest | None) -> Sequence[Manifest]:
    if daemon_set is None:
        return ()
    labels = members(daemon_set["spec"]["selector"].get("matchLabels"))
    selector = ",".join(f"{key}={value}" for key, value in labels.items())
    found = kube.items("/api/v1/namespaces/kube-system/pods", labelSelector=selector)
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


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
    return Association(*pair, entry["associationId"], association["roleArn"], association["createdAt"])


def _reach(handle: Pod, pod: Manifest, gaps: list[str], *, ask: bool) -> Reach:
    """Ask the agent from inside the pod, if it has the variables and something to ask with."""
    is_injected = any(
        entry["name"] == "AWS_CONTAINER_CREDENTIALS_FULL_URI" for entry in pod["spec"]["containers"][0].get("env") or ()
    )
    if not is_injected or not _runs(pod):
        return Reach(why_not="the first container has no variables, or does not run")
    done = _run(handle, ["sh", "-c", _ASK]) if ask else None
    if done is None or done.returncode != 0:
        why = (
            "not allowed" if not ask else "the container has no shell" if done is None else "the container has no curl"
        )
        gaps.append(f"the agent was not asked from inside the pod: {why}")
        return Reach(why_not=why)
    *lines, last = done.stdout.strip("\n").split("\n")
    code, status, proxied_code, proxied_status = map(int, last.split())
    body = "\n".join(lines).strip()
    if code == 0:
        same = (proxied_code, proxied_status) == (code, status)
        return Reach("answered", status, body, "same" if same else "fails")
    return Reach("timeout" if code == _CURL_TIMEOUT else "refused")


def _sdk(handle: Pod, pod: Manifest, *, ask: bool) -> Sdk:
    """Ask a botocore in the pod for its version and where it takes credentials from."""
    done = _run(handle, ["python3", "-c", _SDK]) if ask and _runs(pod) else None
    if done is None or done.returncode != 0:
        return Sdk()
    try:
        told: dict[str, str] = json.loads(done.stdout)
    except ValueError:
        return Sdk()
    return Sdk(told.get("version", ""), told.get("method", ""), told.get("error", ""))


def _runs(pod: Manifest) -> bool:
    statuses = entries(members(pod.get("status")).get("containerStatuses"))
    return bool(statuses) and "running" in members(statuses[0].get("state"))


def _run(handle: Pod, command: list[str]) -> Completed | None:
    """Run a command in the pod's first container; None where there is no such program, right or answer."""
    try:
        done = handle.exec(*command, timeout=_EXEC_SECONDS)
    except (ApiException, HarnessFault, OSError, ValueError, urllib3.exceptions.HTTPError):
        return None
    return done
