"""What a webhook adds to a pod's creation, and how much of that would be there with any webhook.

A lab's API server admits pods, as server-side dry runs: everything happens but the write to etcd. Beside the lab's own
webhook stand others on this machine, each registered for the pods of one label: two bare ones, which show what an API
server spends on a call and on a patch whoever answers, and the webhooks that are compared.
"""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from podid_webhook.http1 import HttpServer, Request, Response

from harness import limits, wait
from harness.kube import Kube, Manifest, pod_manifest
from harness.pki import Authority
from harness.subject.kube_api import serve_kube_api
from harness.subject.webhook import ServingFiles, Surroundings, parse_command

__all__ = ["BARE_ANSWER", "BARE_PATCH", "IN_CLUSTER", "NONE", "admission_times"]

NONE = "no webhook"
IN_CLUSTER = "the lab's webhook"
BARE_ANSWER = "bare, answers only"
BARE_PATCH = "bare, same patch"
_ROLE = "arn:aws:iam::111122223333:role/s3-reader"
_TOKENS = "/var/run/secrets/eks.amazonaws.com/serviceaccount"
_SKIP = "eks.amazonaws.com/skip-pod-identity-webhook"
_LABEL = "podid.example/bench-webhook"
_WARM_UP = 20


def admission_times(kubeconfig: Path, commands: Mapping[str, str], rounds: int) -> dict[str, list[float]]:
    """Return the milliseconds that creations of a pod took, by the webhook that was asked, by turns.

    Args:
        kubeconfig: Of the lab's cluster, whose webhook is installed.
        commands: Webhooks to start on this machine, by name.
        rounds: How many pods for each.
    """
    kube = Kube(kubeconfig)
    with ExitStack() as stack:
        stack.callback(kube.close)
        namespace = stack.enter_context(kube.namespace("bench-webhook"))
        kube.create_service_account("app", namespace, {"eks.amazonaws.com/role-arn": _ROLE})
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="podid-bench-")))
        here = _address_towards(kube.core.api_client.configuration.host)
        authority = Authority("bench CA")
        files = ServingFiles(directory / "certificates")
        files.write(authority.issue("webhook", addresses=[here], serving=True))
        ports = {
            name: stack.enter_context(_bare(files, patches=patches))
            for name, patches in ((BARE_ANSWER, False), (BARE_PATCH, True))
        }
        for name, command in commands.items():
            own = directory / name
            own.mkdir()
            surroundings = Surroundings(parse_command(command), stack.enter_context(serve_kube_api()), own)
            flags = surroundings.flags(certificates=files, kubeconfig=kubeconfig)
            profile = ("--aws-default-region=eu-west-1", "--sts-regional-endpoint=true")
            ports[name] = stack.enter_context(surroundings.webhook(*profile, own=flags)).port
        pods = {NONE: _pod({_SKIP: "true"}), IN_CLUSTER: _pod({})}
        for number, (name, port) in enumerate(ports.items()):
            url = f"https://{here}:{port}/mutate"
            stack.enter_context(_registered(kube, f"bench-{number}", url, authority.certificate))
            pods[name] = _pod({_SKIP: "true", _LABEL: f"bench-{number}"})
        return _measure({name: lambda pod=pod: kube.admit(pod, namespace) for name, pod in pods.items()}, rounds)


def _measure(admissions: Mapping[str, Callable[[], Manifest]], rounds: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in admissions}
    for name, admit in admissions.items():
        mutated = name not in {NONE, BARE_ANSWER}
        wait.until(
            lambda admit=admit, mutated=mutated: _is_mutated(admit()) == mutated,
            what=f"pods to be admitted as by: {name}",
            timeout=limits.CONTROLLER,
        )
    for turn in range(rounds + _WARM_UP):
        for name, admit in admissions.items():
            started = time.perf_counter()
            admitted = admit()
            took = time.perf_counter() - started
            if _is_mutated(admitted) == (name in {NONE, BARE_ANSWER}):
                raise AssertionError(f"{name}: {admitted['spec']['containers']}")
            if turn >= _WARM_UP:
                times[name].append(took * 1e3)
    return times


def _pod(labels: Mapping[str, str]) -> Manifest:
    manifest = pod_manifest("bench", "amazon/aws-cli:latest", "app", ["sleep", "3600"])
    manifest["metadata"]["labels"] = dict(labels)
    return manifest


def _is_mutated(pod: Manifest) -> bool:
    return "AWS_ROLE_ARN" in [entry["name"] for entry in pod["spec"]["containers"][0].get("env", [])]


def _address_towards(api_server: str) -> str:
    """Return this machine's address on the way to the API server, by which that one reaches us."""
    target = urlsplit(api_server)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((target.hostname, target.port or 443))
        return probe.getsockname()[0]


@contextmanager
def _registered(kube: Kube, name: str, url: str, ca: str) -> Generator[None]:
    """Have the API server ask a webhook for the pods with its label, registered as ours is otherwise."""
    webhook = {
        "name": f"{name}.podid.example",
        "admissionReviewVersions": ["v1"],
        "clientConfig": {"url": url, "caBundle": base64.b64encode(ca.encode()).decode()},
        "failurePolicy": "Fail",
        "reinvocationPolicy": "IfNeeded",
        "sideEffects": "None",
        "timeoutSeconds": 10,
        "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
        "objectSelector": {"matchLabels": {_LABEL: name}},
    }
    registration = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": [webhook],
    }
    kube.apply([registration])
    try:
        yield
    finally:
        kube.delete(registration)


@contextmanager
def _bare(files: ServingFiles, *, patches: bool) -> Generator[int]:
    """Serve a webhook that checks and looks up nothing, and does not log; gives its port."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(files.certificate, files.key)
    server = HttpServer(lambda request: _bare_answer(request, patches=patches), 8 * 1024**2)
    listening = socket.create_server(("", 0))
    asyncio.run_coroutine_threadsafe(server.start(listening, tls), loop).result(10)
    try:
        yield listening.getsockname()[1]
    finally:
        asyncio.run_coroutine_threadsafe(server.close(1), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _bare_answer(request: Request, *, patches: bool) -> Response:
    review = json.loads(request.body)
    response: dict[str, Any] = {"uid": review["request"]["uid"], "allowed": True}
    if patches:
        patch = json.dumps(_bare_patch(review["request"]["object"])).encode()
        response |= {"patchType": "JSONPatch", "patch": base64.b64encode(patch).decode()}
    answer = {"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response}
    return Response(200, json.dumps(answer).encode(), "application/json")


def _bare_patch(pod: Manifest) -> list[Manifest]:
    token = {"audience": "sts.amazonaws.com", "expirationSeconds": 86400, "path": "token"}
    volume = {"name": "aws-iam-token", "projected": {"sources": [{"serviceAccountToken": token}]}}
    variables = {
        "AWS_STS_REGIONAL_ENDPOINTS": "regional",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_REGION": "eu-west-1",
        "AWS_ROLE_ARN": _ROLE,
        "AWS_WEB_IDENTITY_TOKEN_FILE": f"{_TOKENS}/token",
    }
    containers = pod["spec"]["containers"]
    # A second round finds everything there, as with any webhook.
    if not _is_mutated(pod):
        for container in containers:
            container.setdefault("env", []).extend({"name": key, "value": text} for key, text in variables.items())
            mount = {"name": "aws-iam-token", "readOnly": True, "mountPath": _TOKENS}
            container.setdefault("volumeMounts", []).append(mount)
    operations = [{"op": "add", "path": "/spec/containers", "value": containers}]
    if all(known["name"] != volume["name"] for known in pod["spec"]["volumes"]):
        operations.insert(0, {"op": "add", "path": "/spec/volumes/0", "value": volume})
    return operations
