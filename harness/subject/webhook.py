"""A webhook as a process: any command, known by its flags, HTTPS, metrics, log and exit code alone.

Nothing here judges. A webhook that does not start or does not answer is a :class:`SubjectFault` where a test first
needs it, so that the test fails, and at once.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from harness import limits, wait
from harness.conformance.recording import Evidence, attach
from harness.errors import MissingPrerequisite, SubjectFault
from harness.pki import Authority, KeyPair
from harness.subject.kube_api import KubeApi
from harness.subject.memory import resident_bytes
from harness.subject.ports import free_ports
from harness.subject.reviews import Admission, Object, pod, review

__all__ = [
    "Ended",
    "Reply",
    "Sample",
    "ServingFiles",
    "Surroundings",
    "Webhook",
    "default_command",
    "identities",
    "parse_command",
]

SERVICE = "pod-identity-webhook.kube-system.svc"
"""The name by which an API server calls the webhook, and which it checks."""
OTHER_PREFIX = "own.example"
"""An annotation prefix that is not the default."""
_START_SECONDS = 15.0
_ANSWER_SECONDS = 5.0
_END_SECONDS = 15.0
_IMPATIENT_SECONDS = 2.0
_SILENCES = 2
"""After so many unanswered requests in a row a webhook is not asked again: a deaf one must not cost minutes."""


def default_command() -> str:
    """Return the command of our webhook, in the environment of this interpreter."""
    return shlex.quote(str(Path(sys.executable).with_name("amazon-eks-pod-identity-webhook")))


def parse_command(text: str) -> tuple[str, ...]:
    """Split a command line.

    Raises:
        MissingPrerequisite: There is no such program.
    """
    command = tuple(shlex.split(text))
    if not command or shutil.which(command[0]) is None:
        raise MissingPrerequisite(f"there is no webhook to run: {text!r}", hint="give --webhook-command")
    return command


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode(errors="replace")

    @property
    def review(self) -> Object:
        """The body as a JSON object.

        Raises:
            SubjectFault: It is none.
        """
        try:
            document = json.loads(self.body)
        except ValueError as error:
            raise SubjectFault(f"the answer ({self.status}) is not JSON: {self.text[:200]!r}") from error
        if not isinstance(document, dict):
            raise SubjectFault(f"the answer ({self.status}) is no JSON object: {self.text[:200]!r}")
        return cast("Object", document)

    @property
    def response(self) -> Object:
        """The ``response`` of the review in the body; empty if there is none."""
        response = self.review.get("response")
        return cast("Object", response) if isinstance(response, dict) else {}


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of a metric."""

    name: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Ended:
    """What a webhook that ended by itself left."""

    exit_code: int | None
    """None if it did not end."""
    output: str


@dataclass(frozen=True, slots=True)
class ServingFiles:
    """A directory with ``tls.crt`` and ``tls.key``, as a mounted Secret is one."""

    directory: Path

    @property
    def certificate(self) -> Path:
        """The certificate's file."""
        return self.directory / "tls.crt"

    @property
    def key(self) -> Path:
        """The key's file."""
        return self.directory / "tls.key"

    @property
    def flags(self) -> list[str]:
        """What tells a webhook of them."""
        return [f"--tls-cert={self.certificate}", f"--tls-key={self.key}"]

    def write(self, pair: KeyPair) -> ServingFiles:
        """Write a pair in place."""
        self.directory.mkdir(exist_ok=True)
        pair.write(self.directory, "tls")
        return self


class Surroundings:
    """What webhooks stand in: an API server, an authority that signs their certificates, a directory for files."""

    def __init__(self, command: tuple[str, ...], api: KubeApi, directory: Path) -> None:
        """Make an authority and a first serving certificate.

        Args:
            command: What starts a webhook.
            api: The API server.
            directory: For certificates, kubeconfig, logs and identities.
        """
        self.api = api
        self.directory = directory
        self.authority = Authority("webhook CA")
        self.certificates = ServingFiles(directory / "certificates").write(self.new_pair())
        self.ca = directory / "ca.crt"
        self.ca.write_text(self.authority.certificate)
        self.kubeconfig = api.write_kubeconfig(directory / "kubeconfig")
        self._command = command
        self._count = 0
        self._started: list[Webhook] = []
        self._is_patient = True
        """Whether no webhook has run out of its time yet; the next ones are given little."""

    def new_pair(self) -> KeyPair:
        """Issue a serving certificate."""
        return self.authority.issue("webhook", names=[SERVICE, "pod-identity-webhook"], serving=True)

    def flags(self, *, certificates: ServingFiles | None = None, kubeconfig: Path | None = None) -> list[str]:
        """Return what every webhook needs: a certificate, from these files, and the API server.

        Args:
            certificates: Instead of those that all webhooks share.
            kubeconfig: Instead of the shared API server's.
        """
        # AWS's webhook would otherwise ask the cluster for a certificate, which no cluster signs any more.
        the_kubeconfig = f"--kubeconfig={kubeconfig or self.kubeconfig}"
        return ["--in-cluster=false", the_kubeconfig, *(certificates or self.certificates).flags]

    @contextmanager
    def webhook(
        self,
        *flags: str,
        own: Sequence[str] | None = None,
        ports: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> Generator[Webhook]:
        """Run a webhook; it is ended at the end, however that comes.

        Args:
            flags: Beside those that every webhook needs.
            own: Instead of those that every webhook needs.
            ports: Whether to choose the ports, or to leave them at their defaults.
            environment: Variables to add.
        """
        arguments = [*(self.flags() if own is None else own), *flags]
        the_webhook = self._start(arguments, ports=ports, environment=environment or {})
        try:
            self._is_patient &= the_webhook.wait_until_started(self._seconds(_START_SECONDS))
            yield the_webhook
        finally:
            the_webhook.close()

    def annotate(self, webhook: Webhook, name: str, annotations: Mapping[str, str], namespace: str = "demo") -> None:
        """Give a ServiceAccount these annotations and no others, and return when the webhook knows.

        Args:
            webhook: Who must know.
            name: The ServiceAccount's.
            annotations: By their whole key.
            namespace: The ServiceAccount's.
        """
        self.api.put_service_account(namespace, name, dict(annotations))
        self.settle(webhook)

    def settle(self, webhook: Webhook) -> None:
        """Return when a webhook knows every change of ServiceAccounts so far.

        Events come in order, so that the last one to be effective tells of all. A webhook that never gets there is
        found out by whoever asks it next, and is given little time from then on.
        """
        self._count += 1
        role = f"arn:aws:iam::111122223333:role/settled-{self._count}"
        annotations = {f"{prefix}/role-arn": role for prefix in ("eks.amazonaws.com", OTHER_PREFIX)}
        self.api.put_service_account("settling", "marker", annotations)
        with contextlib.suppress(SubjectFault):
            deadline = time.monotonic() + (0.3 if webhook.is_slow else 5.0)
            while time.monotonic() < deadline:
                if webhook.admit(pod(service_account="marker"), "settling").value("AWS_ROLE_ARN") == role:
                    return
                time.sleep(0.005)
            webhook.is_slow = True

    def run_to_its_end(self, *arguments: str, environment: Mapping[str, str] | None = None) -> Ended:
        """Run a command line that makes the webhook end by itself.

        Args:
            arguments: The whole command line, ports aside, which are added.
            environment: Variables to add.
        """
        the_webhook = self._start([*arguments], ports=True, environment=environment or {})
        try:
            ended = Ended(the_webhook.wait_for_end(self._seconds(_END_SECONDS)), the_webhook.log)
            self._is_patient &= ended.exit_code is not None
        finally:
            the_webhook.close()
        attach(Evidence("command", f"{' '.join(arguments) or 'no arguments'} → {ended.exit_code}", ended.output))
        return ended

    def _seconds(self, patient: float) -> float:
        is_patient = self._is_patient and not any(webhook.is_deaf for webhook in self._started)
        return patient if is_patient else _IMPATIENT_SECONDS

    def _start(self, arguments: list[str], *, ports: bool, environment: Mapping[str, str]) -> Webhook:
        self._count += 1
        chosen = tuple(free_ports(2)) if ports else (443, 9999)
        if ports:
            arguments = [f"--port={chosen[0]}", f"--metrics-port={chosen[1]}", *arguments]
        log = self.directory / f"webhook-{self._count}.log"
        webhook = Webhook(
            [*self._command, *arguments], chosen, self.ca, log, environment, patience=self._seconds(_ANSWER_SECONDS)
        )
        self._started.append(webhook)
        return webhook


class Webhook:
    """A webhook process and a client of it that checks its certificate as an API server does."""

    def __init__(
        self,
        argv: Sequence[str],
        ports: tuple[int, ...],
        ca: Path,
        log: Path,
        environment: Mapping[str, str],
        *,
        patience: float,
    ) -> None:
        """Start it; :meth:`wait_until_started` waits.

        Args:
            argv: Program and arguments.
            ports: Its HTTPS port and its metrics port.
            ca: File with the authorities that its certificate may be signed by.
            log: Where its output goes.
            environment: Variables to add to ours, of which it does not see those of AWS and Kubernetes.
            patience: Seconds to wait for an answer.
        """
        self._patience = patience
        self._silences = 0
        self.is_deaf = False
        """Whether it has stopped answering."""
        self.port, self.metrics_port = ports
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "KUBERNETES_"))}
        self.tls = ssl.create_default_context(cafile=ca)
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                argv,
                env={**inherited, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.is_slow = False
        """Whether it was given up once to learn of a change."""
        self._fault = "it has not been waited for"
        self._connections = threading.local()
        self._opened: list[ssl.SSLSocket] = []

    # --- The process ------------------------------------------------------------------------------------------------

    @property
    def log(self) -> str:
        """What it has written so far."""
        return self._log.read_text(errors="replace")

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    @property
    def resident_mib(self) -> float:
        """Its resident memory."""
        return resident_bytes(self.pid) / 1024**2

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process.poll() is None

    def wait_until_started(self, timeout: float) -> bool:
        """Return when it accepts connections or has ended, and whether it did either in time.

        Whoever then asks it something finds out what is wrong with it.
        """
        deadline = time.monotonic() + timeout
        self._fault = f"it does not listen on port {self.port} after {timeout:.0f} s"
        while time.monotonic() < deadline:
            if not self.is_running:
                self._fault = f"it ended with {self._process.returncode}"
                return True
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=_ANSWER_SECONDS).close()
            except OSError:
                time.sleep(0.01)
                continue
            self._fault = ""
            return True
        return False

    def wait_for_log(self, pattern: str) -> str:
        """Return the first match of a pattern in the log.

        Raises:
            wait.Timeout: There is none for some seconds.
        """
        found = wait.until(
            lambda: re.search(pattern, self.log) or None, what=f"{pattern!r} in the log", timeout=limits.SUBJECT_ACTS
        )
        return found[0] if found else ""

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def wait_for_end(self, timeout: float = _END_SECONDS) -> int | None:
        """Return the exit code, None if it does not end."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def close(self) -> None:
        """Kill it and all it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        # Those of threads that ended are still open.
        for opened in self._opened:
            opened.close()

    # --- HTTP -------------------------------------------------------------------------------------------------------

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Send a request to the HTTPS port, over a connection that each thread keeps.

        Raises:
            SubjectFault: There is no answer.
        """
        if self._fault:
            raise SubjectFault(f"the webhook cannot be asked: {self._fault}\n{self.log[-2000:]}")
        kept: http.client.HTTPConnection | None = getattr(self._connections, "kept", None)
        self._connections.kept = None
        try:
            connection = kept or self._connect()
            reply = _exchange(connection, method, path, body, headers or {})
        except (OSError, http.client.HTTPException) as error:
            if kept:
                kept.close()
            if kept and isinstance(error, http.client.RemoteDisconnected | ConnectionError):
                # It may close an idle connection at any time; on a new one there is no excuse.
                return self.request(method, path, body, headers)
            self._note_answer(came=not isinstance(error, TimeoutError))
            raise SubjectFault(f"{method} {path}: {type(error).__name__}: {error}") from error
        self._note_answer(came=True)
        if connection.sock is not None:  # pyright: ignore[reportUnnecessaryComparison] - None once the server closes it
            self._connections.kept = connection
        return reply

    def _note_answer(self, *, came: bool) -> None:
        self._silences = 0 if came else self._silences + 1
        if self._silences >= _SILENCES:
            self.is_deaf = True
            self._fault = f"it has left {_SILENCES} requests in a row without an answer"

    def get(self, path: str) -> Reply:
        """Get a path of the HTTPS port."""
        reply = self.request("GET", path)
        attach(Evidence("http", f"GET {path} → {reply.status}", reply.text))
        return reply

    def post(self, body: bytes, content_type: str | None = "application/json") -> Reply:
        """Post a body to ``/mutate``."""
        reply = self.request("POST", "/mutate", body, {} if content_type is None else {"Content-Type": content_type})
        exchange = {"request": body[:4000].decode(errors="replace"), "response": reply.text}
        attach(Evidence("http", f"POST /mutate, Content-Type {content_type} → {reply.status}", exchange))
        return reply

    def admit(self, the_pod: Any, namespace: str = "demo", **request: Any) -> Admission:
        """Send a pod for review, without evidence.

        Args:
            the_pod: The object.
            namespace: The review's.
            request: As :func:`harness.subject.reviews.review` takes it.

        Raises:
            SubjectFault: The answer is no review with status 200.
        """
        body = json.dumps(review(the_pod, namespace, **request)).encode()
        reply = self.request("POST", "/mutate", body, {"Content-Type": "application/json"})
        if reply.status != 200:
            raise SubjectFault(f"a review is answered with {reply.status}: {reply.text[:200]!r}")
        return Admission(the_pod, reply.review)

    def review(self, the_pod: Any, namespace: str = "demo", **request: Any) -> Admission:
        """Send a pod for review as :meth:`admit` does, and attach what was said."""
        admission = self.admit(the_pod, namespace, **request)
        content = {"namespace": namespace, "pod": the_pod, "response": admission.response, "patch": admission.patch}
        outcome = ", ".join(admission.paths) or "no patch"
        attach(Evidence("admission", f"review of a pod in {namespace} → {outcome}", content))
        return admission

    def mechanism(self, service_account: str, namespace: str = "demo") -> str:
        """Tell which mechanism a pod of a ServiceAccount would get now."""
        return self.admit(pod(service_account=service_account), namespace).mechanism()

    def scrape(self) -> list[Sample]:
        """Read ``/metrics``.

        Raises:
            SubjectFault: There is no answer.
        """
        reply = self.get_plain("/metrics")
        return [
            Sample(found[1], dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', found[2] or "")), float(found[3]))
            for line in reply.text.splitlines()
            if (found := re.fullmatch(r"([A-Za-z_:][\w:]*)(?:\{(.*)\})? (\S+)(?: \d+)?", line))
        ]

    def metric(self, name: str, **labels: str) -> float | None:
        """Return the value of the one series with a name and labels, None if there is none."""
        found = [sample.value for sample in self.scrape() if sample.name == name and sample.labels == labels]
        return found[0] if len(found) == 1 else None

    def get_plain(self, path: str) -> Reply:
        """Get a path of the metrics port.

        Raises:
            SubjectFault: There is no answer.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.metrics_port, timeout=self._patience)
        try:
            return _exchange(connection, "GET", path, None, {})
        except (OSError, http.client.HTTPException) as error:
            raise SubjectFault(f"GET {path} of the metrics port: {type(error).__name__}: {error}") from error
        finally:
            connection.close()

    def socket(self, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
        """Open a connection of one's own, for requests that no client would send.

        Raises:
            OSError: It is refused, or there is no agreement on TLS (``ssl.SSLError``).
        """
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=self._patience)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            return (context or self.tls).wrap_socket(plain, server_hostname=SERVICE)
        except BaseException:
            plain.close()
            raise

    def _connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=self._patience)
        # With a socket given it does not connect by itself: the certificate is for the Service's name, not the address.
        opened = self.socket()
        self._opened.append(opened)
        connection.sock = opened
        connection.auto_open = 0
        return connection


def _exchange(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
) -> Reply:
    connection.request(method, path, body, dict(headers))
    answer = connection.getresponse()
    return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())


def identities(*pairs: str) -> str:
    """Return the content of an identities file.

    Args:
        pairs: ``<namespace>/<service account>``.
    """
    entries = [dict(zip(("namespace", "serviceAccount"), pair.split("/"), strict=True)) for pair in pairs]
    return json.dumps({"identities": entries})
