"""What scenarios are written with: an AWS account to set up, a cluster's admission to wait for, a pod to ask.

Everything a scenario creates is created through a context manager here and removed in reverse order, also after a
failure. A leftover of the same name from an earlier, interrupted run is removed first.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import urllib3.exceptions

from harness import limits, wait
from harness.cluster.base import Cluster, ClusterSpec, Node
from harness.conformance.recording import Evidence, attach
from harness.doctor_webhook import passed_over
from harness.errors import HarnessFault, MissingPrerequisite, NotReady, SubjectFault
from harness.kube import ApiException, Kube, Manifest, Pod
from harness.kube_client import UNTIL_CLOSED
from harness.lab import Lab
from harness.lab.account import AGENT_ADDON, AwsAccount, Event
from harness.progress import Progress

__all__ = [
    "AGENT_ADDON",
    "NOT_ASSUMED",
    "NOT_BY_WEB_IDENTITY",
    "RESTARTS",
    "UUID4",
    "AwsAccount",
    "CredentialsResponse",
    "Event",
    "LogReader",
    "admitted_variables",
    "assume_role_records",
    "caller_identity",
    "credentials_response",
    "decode_token",
    "hide_agent_link",
    "kill_agents",
    "read_document",
    "restart",
    "session_of",
    "show_agent_link",
    "shown_progress",
    "stage_of",
    "wait_until_admission_injects",
    "wait_until_admission_leaves_alone",
    "wait_until_association_serves",
    "wait_until_irsa_serves",
    "wait_until_let_in",
    "web_identity_refusals",
    "without_agent",
    "without_webhook",
]

UUID4 = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
"""Pattern of the random end of a session's name."""
NOT_ASSUMED = (
    r"\[[0-9a-f-]{36}\]: \(AccessDeniedException\): "
    r"Unauthorized Exception! EKS does not have permissions to assume the associated role\., fault: client\n"
)
"""Pattern of what a pod is told when EKS Auth may not assume the association's role."""
NOT_BY_WEB_IDENTITY = "AccessDenied: Not authorized to perform sts:AssumeRoleWithWebIdentity"
"""What STS tells a web identity that a role's trust policy does not let in."""
_OUT_OF_TIME = re.compile(r"\[\]: \((RequestTimeout|ConnectTimeout)\): ")
"""What the agent tells a pod when it has waited for EKS Auth as long as the pod's SDK waits for it."""
_TOKEN_FILE = "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount/eks-pod-identity-token"  # noqa: S105 - a path
_PAUSE = ("sleep", "3600")


def hide_agent_link(cluster: Cluster, node: Node) -> None:
    """Take away the link that an agent leaves behind: its address is then routed away, and nobody answers.

    Hidden and not deleted, because some agents need to find it. The kernel answers for addresses of a link that is
    down, so they have to go.
    """
    steps = "ip address flush dev pod-id-link0; ip link set pod-id-link0 down name pod-id-away"
    cluster.run_on_node(node.name, ["sh", "-c", steps])


def show_agent_link(cluster: Cluster, node: Node) -> None:
    """Put back what :func:`hide_agent_link` took away; the next agent gives it its addresses."""
    cluster.run_on_node(node.name, ["ip", "link", "set", "pod-id-away", "name", "pod-id-link0"])


@contextlib.contextmanager
def stage_of(requirement: str) -> Generator[None]:
    """A stage of a walkthrough, in a fixture: what it waits for in vain is what this requirement promises.

    Raises:
        NotReady: A wait ran out: the requirement fails, and what builds on the stage could not run.
    """
    try:
        yield
    except wait.Timeout as timeout:
        raise NotReady(timeout.message, requirement=requirement, hint=timeout.hint) from timeout


@contextlib.contextmanager
def shown_progress(config: pytest.Config) -> Generator[Progress]:
    """Report what takes long to the person who waits, although pytest keeps what tests print."""
    capture: Any = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled(), Progress() as progress:
        yield progress


@contextlib.contextmanager
def without_agent(cluster: Cluster, aws: AwsAccount, kube: Kube, *, keeps_link: bool = False) -> Generator[None]:
    """Make the nodes look as if no agent ever ran there: no add-on, no pod, no link; put all of it back at the end.

    Args:
        cluster: The cluster.
        aws: Administrator of its account.
        kube: Administrator of the cluster.
        keeps_link: Keep the link, as an agent that ends leaves it: then clients are refused, and do not wait in vain.
    """
    daemon_set = kube.read("apps/v1", "DaemonSet", AGENT_ADDON, "kube-system")
    selector = ",".join(f"{key}={value}" for key, value in daemon_set["spec"]["selector"]["matchLabels"].items())
    hidden: Sequence[Node] = () if keeps_link else cluster.nodes
    for node in hidden:
        # Where commands cannot be run on nodes, nothing shall have been done.
        cluster.run_on_node(node.name, ["true"])
    aws.delete_agent_addon(cluster.name)
    try:
        kube.wait_until_no_pod("kube-system", selector, "the agent's pods")
        for node in hidden:
            hide_agent_link(cluster, node)
        yield
    finally:
        for node in hidden:
            show_agent_link(cluster, node)
        aws.create_agent_addon(cluster.name)
        aws.wait_until_agent_is_active(cluster.name)


def read_document(path: Path, cluster: Cluster) -> str:
    """Return a policy of ``fixtures/``, with a cluster in the place of the article's."""
    article, spec = ClusterSpec(), cluster.spec
    text = path.read_text().replace(article.arn, spec.arn)
    text = text.replace(article.issuer.removeprefix("https://"), spec.issuer.removeprefix("https://"))
    # As an external ID has it: region, account, cluster, namespace, ServiceAccount.
    return text.replace(f"/{article.account}/{article.name}/", f"/{spec.account}/{spec.name}/")


def admitted_variables(pod: Pod) -> dict[str, str]:
    """Return the variables of the first container's specification, in order; what was admitted becomes evidence."""
    admitted = pod.read()
    variables: list[Manifest] = admitted["spec"]["containers"][0].get("env", [])
    content = {
        "uid": admitted["metadata"]["uid"],
        "variables": variables,
        "volumes": admitted["spec"].get("volumes", []),
    }
    attach(Evidence("admission", f"pod {pod.namespace}/{pod.name} as admitted: {len(variables)} variables", content))
    return {entry["name"]: entry.get("value", "") for entry in variables}


def credentials_uri(cluster: Cluster) -> str:
    """Return what pods of a cluster are to ask for credentials: on EKS its IP family decides."""
    if cluster.spec.ip_family == "ipv6":
        return "http://[fd00:ec2::23]/v1/credentials"
    return "http://169.254.170.23/v1/credentials"


def caller_identity(pod: Pod, *options: str) -> dict[str, str]:
    """Return what ``aws sts get-caller-identity`` prints in a pod.

    Raises:
        SubjectFault: The pod got no credentials, or they are not good for this call.
    """
    done = pod.exec("aws", "sts", "get-caller-identity", *options)
    if done.returncode != 0:
        raise SubjectFault(f"pod {pod.namespace}/{pod.name} has no identity: {done.stderr.strip()}")
    attach(Evidence("command", f"pod {pod.name}: aws sts get-caller-identity", done.stdout))
    return json.loads(done.stdout)


def session_of(arn: str) -> str:
    """Return the session's name in the ARN of an assumed role."""
    return arn.rpartition("/")[2]


def assume_role_records(aws: AwsAccount, role_arn: str | None = None) -> list[dict[str, Any]]:
    """Return STS's AssumeRole records that EKS caused, newest first; of one role, if given."""
    records = [event.record for event in aws.lookup_events(EventName="AssumeRole")]
    found = [
        record
        for record in records
        if record["userIdentity"].get("invokedBy") == "pods.eks.amazonaws.com"
        and role_arn in (None, record["requestParameters"]["roleArn"])
    ]
    attach(Evidence("cloudtrail", f"CloudTrail: {len(found)} AssumeRole records that EKS caused", found[:5]))
    return found


def wait_until_admission_injects(
    kube: Kube, namespace: str, service_account: str, variable: str = "AWS_CONTAINER_CREDENTIALS_FULL_URI"
) -> None:
    """Wait until a pod created now would get Pod Identity's variables, or those of IRSA.

    Associations reach admission with a delay and without a status to poll (API-901); a server-side dry run asks
    admission itself and leaves nothing behind.

    Args:
        kube: Administrator of the cluster.
        namespace: Of the pod.
        service_account: Of the pod.
        variable: What it is known by; ``AWS_ROLE_ARN`` is IRSA's.
    """
    wait.until(
        lambda: _admitted_environment(kube, namespace, service_account),
        lambda names: variable in names,
        what=f"admission to give {variable} to pods of {namespace}/{service_account} (WHK-201)",
        timeout=limits.ASSOCIATION_VISIBLE,
        hint="see: kubectl --namespace kube-system logs deployment/pod-identity-webhook",
    )


def wait_until_admission_leaves_alone(kube: Kube, namespace: str, service_account: str) -> None:
    """Wait until a pod created now would get none of Pod Identity's variables."""
    wait.until(
        lambda: _admitted_environment(kube, namespace, service_account),
        lambda names: "AWS_CONTAINER_CREDENTIALS_FULL_URI" not in names,
        what=f"admission to forget the association of {namespace}/{service_account} (WHK-201)",
        timeout=limits.ASSOCIATION_VISIBLE,
    )


def wait_until_let_in(aws: AwsAccount, pod: Pod, *command: str) -> None:
    """Wait until a role and its policies are known wherever a command of a pod needs them (HRN-EXT-17).

    In a lab they are at once, and nothing is waited for: then the first call of a scenario counts.
    """
    if aws.is_eventual:
        wait.until(
            lambda: pod.exec(*command),
            lambda done: done.returncode == 0,
            what=f"{' '.join(command)} to be allowed in pod {pod.name}",
            timeout=limits.IAM_EFFECTIVE,
        )


def wait_until_association_serves(
    aws: AwsAccount, kube: Kube, namespace: str, service_account: str, *command: str
) -> None:
    """Wait as :func:`wait_until_let_in` does, with a pod of its own, before a pod that must not fail once is started.

    In a lab, once admission knows an association, nothing else is waited for.
    """
    if aws.is_eventual:
        probe = kube.run(
            "probe", namespace, image="amazon/aws-cli:latest", service_account=service_account, command=_PAUSE
        )
        wait_until_let_in(aws, probe.wait_until_ready(), *command)
        probe.delete()


def wait_until_irsa_serves(aws: AwsAccount, kube: Kube, role_arn: str, namespace: str, service_account: str) -> None:
    """Wait until STS knows a role of IRSA, before a pod that must not fail once starts; a lab does at once."""
    if aws.is_eventual:
        wait.until(
            lambda: aws.web_identity_refusal(role_arn, kube.token(service_account, namespace, "sts.amazonaws.com")),
            lambda refusal: not refusal,
            what=f"STS to know {role_arn}",
            timeout=limits.IAM_EFFECTIVE,
        )


def _admitted_environment(kube: Kube, namespace: str, service_account: str) -> list[str]:
    pod: Manifest = kube.dry_run(
        "admission-probe", namespace, image="amazon/aws-cli:latest", service_account=service_account, command=_PAUSE
    )
    return [entry["name"] for entry in pod["spec"]["containers"][0].get("env", [])]


@dataclass(frozen=True, slots=True)
class CredentialsResponse:
    """The agent's answer to a pod."""

    status: int
    content_type: str
    body: str


def credentials_response(pod: Pod, token_file: str = _TOKEN_FILE) -> CredentialsResponse:
    """Ask the agent from inside a pod, as an SDK does: again as long as EKS Auth has not answered the agent in time.

    Args:
        pod: A running pod of an image with a shell and curl.
        token_file: The token to send.

    Raises:
        HarnessFault: The request did not get an answer.
        harness.wait.Timeout: Nor did the agent.
    """
    return wait.until(
        lambda: _credentials_response(pod, token_file),
        lambda answer: not (answer.status == 500 and _OUT_OF_TIME.match(answer.body)),
        what="EKS Auth to answer the agent in time",
        timeout=limits.CREDENTIALS,
    )


def _credentials_response(pod: Pod, token_file: str) -> CredentialsResponse:
    script = (
        'curl --silent --show-error --max-time 10 --header "Authorization: $(cat "$0")" '
        "--write-out '\\n%{http_code} %{content_type}' \"$AWS_CONTAINER_CREDENTIALS_FULL_URI\""
    )
    done = pod.exec("sh", "-c", script, token_file)
    if done.returncode != 0:
        raise HarnessFault(f"no answer from the agent in pod {pod.name}: {done.stderr.strip()}")
    body, _, last = done.stdout.rpartition("\n")
    status, _, content_type = last.partition(" ")
    request = f"GET $AWS_CONTAINER_CREDENTIALS_FULL_URI\nAuthorization: the token in {token_file}"
    answer = f"{status}\nContent-Type: {content_type}\n\n{body}"
    attach(Evidence("http", f"pod {pod.name} asks the agent → {status}", {"request": request, "response": answer}))
    return CredentialsResponse(int(status), content_type, body)


def kill_agents(kube: Kube) -> None:
    """Kill every agent of a cluster, as a crash does, and wait until others are ready in their places."""
    selector = f"app.kubernetes.io/name={AGENT_ADDON}"
    killed = kube.pods("kube-system", selector)
    if not killed:
        raise HarnessFault("there is no agent to kill")
    for pod in killed:
        pod.delete()
    names = {pod.name for pod in killed}
    successors = wait.until(
        lambda: [pod for pod in kube.pods("kube-system", selector) if pod.name not in names],
        lambda pods: len(pods) == len(killed),
        what="an agent in the place of each that was killed",
        timeout=limits.AGENT_READY,
    )
    for pod in successors:
        pod.wait_until_ready()


RESTARTS = ("agent", "API server")
"""What :func:`restart` can restart in the middle of a scenario."""


def restart(what: str, lab: Lab, cluster: Cluster, kube: Kube) -> None:
    """Kill every agent of a cluster, or its API server, and wait until what comes in their place is ready.

    Args:
        what: One of :data:`RESTARTS`.
        lab: The cluster's lab.
        cluster: The cluster.
        kube: Its administrator.
    """
    if what == "agent":
        kill_agents(kube)
    else:
        lab.restart_api_server(cluster)


@contextlib.contextmanager
def without_webhook(kube: Kube) -> Generator[Callable[[], int]]:
    """Run no replica of the webhook, and as many as before at the end.

    Yields:
        What tells how many pods the API server has admitted without it since.

    Raises:
        MissingPrerequisite: It runs elsewhere, as on EKS, where nobody can stop it.
    """
    name, namespace = "pod-identity-webhook", "kube-system"
    if not kube.exists("apps/v1", "Deployment", name, namespace):
        raise MissingPrerequisite(
            f"the cluster has no Deployment {name} that could be stopped",
            hint="run this scenario in a lab: --provider native or --provider kind",
            kind="environment",
        )
    replicas: int = kube.apps.read_namespaced_deployment_scale(name, namespace).spec.replicas
    before = passed_over(kube)
    kube.apps.patch_namespaced_deployment_scale(name, namespace, {"spec": {"replicas": 0}})
    try:
        kube.wait_until_no_pod(namespace, f"app.kubernetes.io/name={name}", "the webhook's pods")
        yield lambda: passed_over(kube) - before
    finally:
        kube.apps.patch_namespaced_deployment_scale(name, namespace, {"spec": {"replicas": replicas}})
        kube.wait_until_deployed("Deployment", name, namespace)


def web_identity_refusals(
    kube: Kube, aws: AwsAccount, role_arn: str, namespace: str, service_account: str
) -> dict[str, str]:
    """Ask STS for an IRSA role as its own ServiceAccount and as another one; tells what STS has against each.

    Returns:
        ServiceAccount → code and text of the refusal; empty for none.
    """
    return {
        f"{of_namespace}/{name}": aws.web_identity_refusal(
            role_arn, kube.token(name, of_namespace, "sts.amazonaws.com")
        )
        for of_namespace, name in ((namespace, service_account), ("default", "default"))
    }


class LogReader:
    """Reads what a pod prints from its first line to its last, also when it is deleted meanwhile."""

    def __init__(self, pod: Pod, *, timestamps: bool = False) -> None:
        """Begin to read.

        Args:
            pod: A pod whose first container runs.
            timestamps: Whether each line begins with when it was printed.
        """
        self.pod = pod
        self._timestamps = timestamps
        self._text = ""
        self._response: Any = self._open()
        self._thread = threading.Thread(target=self._read, name=f"log of {pod.name}", daemon=True)
        self._thread.start()

    def _open(self) -> Any:
        return self.pod.kube.core.read_namespaced_pod_log(
            self.pod.name,
            self.pod.namespace,
            follow=True,
            timestamps=self._timestamps,
            _preload_content=False,
            _request_timeout=UNTIL_CLOSED,
        )

    def _read(self) -> None:
        while self._response and not (self._is_read() and self._is_over()):
            # The API server or the kubelet went away; its successor has all that the pod ever printed.
            wait.until(
                self._is_open_again,
                what=f"the API server to go on with the log of {self.pod.name}",
                timeout=limits.CLUSTER_CREATE,
                transient=(urllib3.exceptions.HTTPError,),
            )

    def _is_over(self) -> bool:
        """Tell whether the container has ended: a log whose kubelet went away ends in the same way."""
        try:
            return "running" not in self.pod.read()["status"]["containerStatuses"][0]["state"]
        except ApiException as error:
            return _status_of(error) == 404
        except urllib3.exceptions.HTTPError:
            return False

    def _is_open_again(self) -> bool:
        """Open the log anew once the API server is ready: before that it knows nobody's rights, and forbids."""
        if not self.pod.kube.is_ready():
            return False
        try:
            self._response = self._open()
        except ApiException as error:
            # A kubelet that is not back yet, and one that does not know its pods yet.
            if _status_of(error) not in {404, 500}:
                raise
            if not self._is_over():
                return False
            self._response = None  # the pod went too
        return True

    def _is_read(self) -> bool:
        read, before = b"", self._text[: self._text.rfind("\n") + 1]
        with contextlib.suppress(urllib3.exceptions.HTTPError):
            for part in self._response.stream():
                read += part
                text = read.decode(errors="ignore")
                # For a container that is gone kubelet answers with what it lacks, in place of what was printed.
                if text.startswith(before):
                    self._text = max(self._text, text, key=len)
            return True
        return False

    def lines(self) -> list[str]:
        """Return the complete lines so far."""
        return self._text.split("\n")[:-1]

    def close(self) -> None:
        """Read on to the end of the pod, which must be near.

        Raises:
            HarnessFault: It does not end.
        """
        self._thread.join(timeout=60)
        if self._thread.is_alive():
            raise HarnessFault(f"pod {self.pod.name} is still printing a minute after it was to end")
        if self._response:
            self._response.release_conn()


def _status_of(error: ApiException) -> int | None:
    return cast("int | None", error.status)  # pyright: ignore[reportUnknownMemberType] - no types there


def decode_token(token: str) -> dict[str, Any]:
    """Return the claims of a JWT, unverified: only for looking at tokens that the cluster just issued."""
    payload = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    attach(Evidence("token", f"token of {claims.get('sub')} for {claims.get('aud')}", claims))
    return claims
