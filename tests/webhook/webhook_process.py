"""The webhook as a process of its own, and reviews sent to it over HTTPS."""

import base64
import json
import multiprocessing
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import urllib3
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed
from webhook_fake_api import FakeApi

SERVER_NAME = "pod-identity-webhook.kube-system.svc"

# Webhooks are forked from a process that has imported everything: the imports would be most of the suite's time.
_fork = multiprocessing.get_context("forkserver")
_fork.set_forkserver_preload(["podid_agent.server", "podid_webhook.main", "podid_webhook.certs", "pytest"])


def _main(arguments: Sequence[str], stderr: Connection) -> None:
    """Be a webhook: runs in a process of its own."""
    for name in [name for name in os.environ if name.startswith("KUBERNETES_")]:
        del os.environ[name]
    os.dup2(stderr.fileno(), 2)
    stderr.close()
    sys.argv = ["amazon-eks-pod-identity-webhook", *arguments]
    from podid_webhook.main import main  # noqa: PLC0415 - what starts the process does without

    main()


def run_webhook(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a webhook that ends by itself."""
    reader, writer = _fork.Pipe(duplex=False)
    process = _fork.Process(target=_main, args=(arguments, writer))
    process.start()
    writer.close()
    with os.fdopen(os.dup(reader.fileno())) as stream:
        reader.close()
        stderr = stream.read()
    process.join(60)
    assert process.exitcode is not None
    return subprocess.CompletedProcess(arguments, process.exitcode, None, stderr)


@dataclass(frozen=True)
class Certificates:
    """A directory as a mounted Secret, with the CA beside it."""

    directory: Path

    @property
    def ca(self) -> Path:
        return self.directory / "ca.crt"

    @property
    def flags(self) -> list[str]:
        return [f"--tls-cert={self.directory / 'tls.crt'}", f"--tls-key={self.directory / 'tls.key'}"]


def create_certificates(directory: Path, *arguments: str) -> Certificates:
    """Create them as an administrator does."""
    directory.mkdir(exist_ok=True)
    process = _fork.Process(target=_create_certificates, args=(f"--output-dir={directory}", *arguments))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    return Certificates(directory)


def _create_certificates(*arguments: str) -> None:
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    sys.argv = ["amazon-eks-pod-identity-webhook-certs", *arguments]
    from podid_webhook.certs import main  # noqa: PLC0415 - as above

    main()


def write_kubeconfig(api: FakeApi, path: Path) -> Path:
    config = {
        "current-context": "fake",
        "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
        "clusters": [{"name": "fake", "cluster": {"server": api.url}}],
        "users": [{"name": "fake", "user": {"token": "t-1"}}],
    }
    path.write_text(json.dumps(config))
    return path


class WebhookProcess:
    def __init__(self, arguments: list[str], ca: Path) -> None:
        reader, writer = _fork.Pipe(duplex=False)
        self.process = _fork.Process(target=_main, args=(["--port=0", "--metrics-port=0", *arguments], writer))
        self.process.start()
        writer.close()
        self._stderr = os.fdopen(os.dup(reader.fileno()))
        reader.close()
        self.log: list[str] = []
        self._changed = threading.Condition()
        self._log_ended = False
        self._reader = threading.Thread(target=self._read_log)
        self._reader.start()
        try:
            match = self.wait_for_log(r"https on port (\d+) and metrics on port (\d+)")
        except AssertionError:
            self._end()
            raise
        self.port, self.metrics_port = int(match[1]), int(match[2])
        self.https = https_pool(self.port, ca)
        self.plain = urllib3.HTTPConnectionPool("127.0.0.1", self.metrics_port, retries=False, timeout=60)

    def _read_log(self) -> None:
        for line in self._stderr:
            with self._changed:
                self.log.append(line)
                self._changed.notify_all()
        with self._changed:
            self._log_ended = True
            self._changed.notify_all()

    def wait_for_log(self, pattern: str) -> re.Match[str]:
        def found() -> re.Match[str] | None:
            return re.search(pattern, "".join(self.log))

        with self._changed:
            self._changed.wait_for(lambda: found() or self._log_ended, timeout=60)
            match = found()
        assert match, f"no line {pattern!r} in the log:\n{''.join(self.log)}"
        return match

    def get(self, path: str) -> urllib3.BaseHTTPResponse:
        return self.https.request("GET", path)

    def post(self, body: bytes, content_type: str | None = "application/json") -> urllib3.BaseHTTPResponse:
        headers = {} if content_type is None else {"Content-Type": content_type}
        return self.https.request("POST", "/mutate", body=body, headers=headers)

    def review(self, pod: Any, namespace: str = "demo", uid: str = "u-1") -> dict[str, Any]:
        review = {
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {"uid": uid, "namespace": namespace, "object": pod},
        }
        answer = self.post(json.dumps(review).encode())
        assert answer.status == 200
        return answer.json()["response"]

    def patch(self, pod: Any, namespace: str = "demo") -> list[dict[str, Any]] | None:
        response = self.review(pod, namespace)
        assert response["allowed"] is True
        return json.loads(base64.b64decode(response["patch"])) if "patch" in response else None

    def method(self, service_account: str, namespace: str = "demo") -> str:
        """Tell which mechanism a pod of the account gets."""
        patch = json.dumps(self.patch(pod_of(service_account), namespace))
        if "AWS_CONTAINER_CREDENTIALS_FULL_URI" in patch:
            return "pod identity"
        return "irsa" if "AWS_ROLE_ARN" in patch else "none"

    def wait_until(self, read: Callable[[], object], expected: object) -> None:
        """Return when ``read`` gives what is expected; nothing depends on how soon that is."""
        Retrying(stop=stop_after_delay(60), wait=wait_fixed(0.02), retry=retry_if_result(lambda v: v != expected))(read)

    def wait_until_ready(self) -> None:
        self.wait_until(lambda: self.get("/readyz").status, 200)

    def stop(self) -> int | None:
        """Tell it to end, and return its exit code, None if it does not."""
        self.process.terminate()
        self.process.join(30)
        return self.process.exitcode

    def close(self) -> None:
        self._end()
        self.https.close()
        self.plain.close()

    def _end(self) -> None:
        if self.process.is_alive():
            self.process.kill()
        self.process.join()
        self.process.close()
        self._reader.join()
        self._stderr.close()


@contextmanager
def running_webhook(arguments: list[str], ca: Path) -> Iterator[WebhookProcess]:
    webhook = WebhookProcess(arguments, ca)
    try:
        yield webhook
    finally:
        webhook.close()


def https_pool(port: int, ca: Path, **arguments: Any) -> urllib3.HTTPSConnectionPool:
    return urllib3.HTTPSConnectionPool(
        "127.0.0.1",
        port,
        ca_certs=str(ca),
        server_hostname=SERVER_NAME,
        assert_hostname=SERVER_NAME,
        retries=False,
        timeout=60,
        maxsize=16,
        **arguments,
    )


def pod_of(service_account: str) -> dict[str, Any]:
    return {
        "metadata": {"name": "s3-test"},
        "spec": {"serviceAccountName": service_account, "containers": [{"name": "app", "image": "amazon/aws-cli"}]},
    }


def identities(*pairs: str) -> str:
    entries = [dict(zip(("namespace", "serviceAccount"), pair.split("/"), strict=True)) for pair in pairs]
    return json.dumps({"identities": entries})
