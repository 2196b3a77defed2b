"""An agent under test: any command, started on loopback and seen only through flags, HTTP, output and exit code.

Nothing here judges while a fixture sets up: an agent that does not start, or stops answering, is a
:class:`~harness.errors.SubjectFault` in the test that asks it, so that a broken subject is *failed*, never an error.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from harness.conformance.recording import Evidence, attach
from harness.errors import MissingPrerequisite, SubjectFault, UsageError
from harness.subject.eks_auth import CLUSTER_NAME
from harness.subject.http1 import Reply, read_replies
from harness.subject.pod_token import CANARY
from harness.subject.ports import free_ports
from harness.subject.stopwatch import Stopwatch

__all__ = ["HOST", "Agent", "AgentCommand", "Ended", "Pending"]

HOST = "169.254.170.23"
PROGRAM = "eks-pod-identity-agent"
_START_TIMEOUT = 30.0
_RUN_TIMEOUT = 20.0
_SILENCES = 2
"""After so many unanswered requests in a row an agent is not asked again: a deaf one must not cost minutes."""
_SERIES = re.compile(r"(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Ended:
    """What a command that ended by itself left."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        """Both streams."""
        return self.stdout + self.stderr


@dataclass(frozen=True, slots=True)
class AgentCommand:
    """How the agent under test is called."""

    words: tuple[str, ...]
    is_ours: bool
    """Whether it takes our own flags; they are given to no other."""
    _ends: list[bool] = field(default_factory=list[bool], init=False, compare=False)
    """Of each command that was to end by itself, whether it did."""
    _served: list[Agent] = field(default_factory=list["Agent"], init=False, compare=False)

    @classmethod
    def of(cls, text: str, *, is_ours: bool) -> AgentCommand:
        """Read the option ``--agent-command``.

        Args:
            text: A command line; empty for the agent of this environment.
            is_ours: See the attribute.

        Raises:
            UsageError: The text is no command line.
            MissingPrerequisite: There is no such program.
        """
        if not text:
            program = Path(sys.executable).with_name(PROGRAM)
            if not program.exists():
                raise MissingPrerequisite(f"{program} is missing", hint="install this repository's agent: uv sync")
            return cls((str(program),), is_ours)
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise UsageError(f"--agent-command {text!r}: {error}") from error
        if not words:
            raise UsageError("--agent-command is blank")
        return cls(tuple(words), is_ours)

    @property
    def patience(self) -> float:
        """Seconds after which an unanswered request is a fault; AWS's agent tries up to nine.

        After agents that had to be given up, the next ones get little.
        """
        given_up = sum(agent.is_deaf for agent in self._served) >= _SILENCES
        if given_up or sum(agent.is_mute for agent in self._served) > _SILENCES:
            return 1.0
        return 6.0 if self.is_ours else 15.0

    @property
    def sweep(self) -> float:
        """Seconds that a renewal may be late: AWS's agent looks for due ones once a minute."""
        return 1.0 if self.is_ours else 65.0

    def run(self, *arguments: str, env: Mapping[str, str] | None = None) -> Ended:
        """Run a command that ends by itself; after some that did not, none gets much time.

        Raises:
            SubjectFault: It does not.
        """
        timeout = _RUN_TIMEOUT
        if self._ends.count(False) >= _SILENCES:
            timeout /= 5 if any(self._ends[-5:]) else 20
        with tempfile.TemporaryDirectory(prefix="podid-agent-") as home:
            try:
                done = subprocess.run(
                    [*self.words, *arguments],
                    env=_environment(home, env or {}),
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    timeout=timeout,
                    check=False,
                )
            except subprocess.TimeoutExpired as error:
                self._ends.append(False)
                raise SubjectFault(f"{shlex.join(arguments)} has not ended after {timeout:g} s") from error
            except OSError as error:
                raise self._cannot_start(error) from error
        self._ends.append(True)
        return Ended(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    @contextmanager
    def serving(
        self,
        endpoint: str,
        *arguments: str,
        hosts: Sequence[str] = ("127.0.0.1",),
        env: Mapping[str, str] | None = None,
        verbosity: str = "trace",
        within: Sequence[str] = (),
        wait_until_listening: bool = True,
    ) -> Generator[Agent, None, None]:
        """Run ``server`` on free ports of loopback until the block ends.

        Args:
            endpoint: URL of EKS Auth; empty leaves ``--endpoint`` out.
            arguments: Further flags.
            hosts: Bind hosts.
            env: Variables beside the usual ones; an empty value takes one away.
            verbosity: Log level.
            within: A command that runs the one put after it.
            wait_until_listening: Whether the block begins when all ports accept connections, or at once.
        """
        port, probe_port, metrics_port = free_ports(3)
        words = [
            *within,
            *self.words,
            "server",
            *("--cluster-name", CLUSTER_NAME),
            *(word for host in hosts for word in ("-b", host)),
            *("--port", str(port), "--probe-port", str(probe_port)),
            *("--metrics-address", "127.0.0.1", "--metrics-port", str(metrics_port)),
            *("--verbosity", verbosity),
            *(("--endpoint", endpoint) if endpoint else ()),
            *arguments,
        ]
        with tempfile.TemporaryDirectory(prefix="podid-agent-") as directory:
            home, stdout, stderr = (Path(directory, name) for name in ("home", "stdout", "stderr"))
            home.mkdir()
            try:
                with stdout.open("wb") as out, stderr.open("wb") as err:
                    process = subprocess.Popen(
                        words,
                        env=_environment(str(home), env or {}),
                        cwd=home,
                        stdin=subprocess.DEVNULL,
                        stdout=out,
                        stderr=err,
                        start_new_session=True,
                    )
            except OSError as error:
                raise self._cannot_start(error) from error
            agent = Agent(process, tuple(hosts), port, probe_port, metrics_port, stdout, stderr, home, self.patience)
            self._served.append(agent)
            try:
                if wait_until_listening:
                    agent.wait_until_listening(without_metrics="--disable-metrics" in arguments)
                yield agent
            finally:
                agent.hang_up()
                # The whole session: the command may be a script that started the agent.
                _kill_group(process)
                process.wait()

    def _cannot_start(self, error: OSError) -> UsageError:
        return UsageError(f"{shlex.join(self.words)} cannot be run: {error}", hint="correct --agent-command")


def _environment(home: str, extra: Mapping[str, str]) -> dict[str, str]:
    variables = {
        "PATH": os.environ["PATH"],
        "HOME": home,
        "AWS_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "AKIDNODE",
        "AWS_SECRET_ACCESS_KEY": f"{CANARY}-NODE-SECRET",
        "AWS_EC2_METADATA_DISABLED": "true",
        **extra,
    }
    return {name: value for name, value in variables.items() if value}


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.kill()


@dataclass(slots=True)
class Agent:
    """An agent that serves, or should."""

    process: subprocess.Popen[bytes]
    hosts: tuple[str, ...]
    port: int
    probe_port: int
    metrics_port: int
    stdout: Path
    stderr: Path
    home: Path
    """Its home and working directory."""
    patience: float
    """Seconds to wait for an answer."""
    fault: str = ""
    """Why it cannot be asked, if so."""
    has_listened: bool = False
    """Whether all its ports accepted connections once."""
    is_deaf: bool = False
    """Whether it has stopped answering."""
    _silences: int = field(default=0, init=False)
    _has_answered: bool = field(default=False, init=False)
    _connections: list[socket.socket] = field(default_factory=list[socket.socket], init=False)

    # --- Requests ---------------------------------------------------------------------------------------------------

    def get(
        self,
        token: str | bytes | None = None,
        *,
        path: str = "/v1/credentials",
        host: str = HOST,
        method: str = "GET",
        address: str = "",
    ) -> Reply:
        """Ask for credentials as an SDK does, and return the answer; both become evidence of the running test."""
        reply = self.send(token, path=path, host=host, method=method, address=address).reply()
        answer = {"status": reply.status, "headers": dict(reply.headers), "body": reply.text[:4000]}
        attach(Evidence("http", f"{method} {path} → {reply.status}", {"host": host, "answer": answer}))
        return reply

    def send(
        self,
        token: str | bytes | None = None,
        *,
        path: str = "/v1/credentials",
        host: str = HOST,
        method: str = "GET",
        address: str = "",
    ) -> Pending:
        """Ask, and leave the answer for later."""
        lines = [f"{method} {path} HTTP/1.1".encode(), f"Host: {host}".encode(), b"Connection: close"]
        if token is not None:
            lines.append(b"Authorization: " + (token.encode() if isinstance(token, str) else token))
        return self.send_bytes(b"\r\n".join(lines) + b"\r\n\r\n", address=address)

    def raw(self, data: bytes, *, port: int = 0, address: str = "") -> list[Reply]:
        """Send bytes and return all answers until the agent closes, which the last request must ask for."""
        return self.send_bytes(data, port=port, address=address).replies()

    def send_bytes(self, data: bytes, *, port: int = 0, address: str = "") -> Pending:
        """Send bytes on a connection of their own."""
        return self.send_on(self.connect(port=port, address=address), data)

    def send_on(self, sock: socket.socket, data: bytes) -> Pending:
        """Send bytes on an open connection, which the agent is to close."""
        # It may answer and close before it has read everything.
        with suppress(OSError):
            sock.sendall(data)
        return Pending(self, sock, is_head=data.startswith(b"HEAD"))

    def connect(self, *, port: int = 0, address: str = "") -> socket.socket:
        """Open a connection.

        Raises:
            SubjectFault: Nothing accepts it.
        """
        self.require_alive()
        where = (address or self.hosts[0].strip("[]"), port or self.port)
        try:
            sock = socket.create_connection(where, timeout=self.patience)
        except OSError as error:
            raise SubjectFault(f"the agent does not accept connections on {where[0]}:{where[1]}: {error}") from error
        # A test that fails leaves answers unread: its connections are closed with the agent, not by chance.
        self._connections = [open_one for open_one in self._connections if open_one.fileno() >= 0]
        self._connections.append(sock)
        return sock

    @contextmanager
    def connection(self) -> Generator[socket.socket, None, None]:
        """Give a connection to speak on by hand.

        Raises:
            SubjectFault: It cannot be had, or breaks.
        """
        with self.connect() as sock:
            try:
                yield sock
            except OSError as error:
                raise SubjectFault(f"the connection broke: {error}") from error

    def probe(self, path: str, port: int = 0, method: str = "GET") -> Reply:
        """Ask the probe port, or another one."""
        request = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        return self.send_bytes(request.encode(), port=port or self.probe_port, address="127.0.0.1").reply()

    def stopwatch(self) -> Stopwatch:
        """Start a watch for a limit that the agent must keep, however busy the machine is."""
        return Stopwatch(self.process.pid)

    # --- Metrics and logs -------------------------------------------------------------------------------------------

    def metrics_text(self) -> str:
        """Return a scrape."""
        return self.probe("/metrics", self.metrics_port).text

    def metrics(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """Return a scrape as (name, labels) → value."""
        found: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        for line in self.metrics_text().splitlines():
            series = None if line.startswith("#") else _SERIES.fullmatch(line)
            if series is None:
                continue
            try:
                value = float(series["value"])
            except ValueError:
                continue
            found[series["name"], frozenset(_LABEL.findall(series["labels"] or ""))] = value
        return found

    def metric(self, name: str, **labels: str) -> float:
        """Return one series, zero if it is not there."""
        return self.metrics().get((name, frozenset(labels.items())), 0.0)

    def log_text(self) -> str:
        """Return what was written to stdout so far."""
        return self.stdout.read_text(errors="replace")

    def stderr_text(self) -> str:
        """Return what was written to stderr so far."""
        return self.stderr.read_text(errors="replace")

    def log_lines(self) -> list[dict[str, Any]]:
        """Return the lines of the log that are JSON objects."""
        lines: list[dict[str, Any]] = []
        for line in self.log_text().splitlines():
            try:
                value: object = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict):
                lines.append(cast("dict[str, Any]", value))
        return lines

    # --- The process ------------------------------------------------------------------------------------------------

    def require_alive(self) -> None:
        """Return if the agent can be asked.

        Raises:
            SubjectFault: It has ended, never served, or has stopped answering.
        """
        if (code := self.process.poll()) is not None:
            raise SubjectFault(f"the agent ended with code {code}: {self._last_words()}")
        if self.fault:
            raise SubjectFault(f"{self.fault}: {self._last_words()}")

    def hang_up(self) -> None:
        """Close what connections are left."""
        for sock in self._connections:
            sock.close()

    def note_answer(self, *, came: bool) -> None:
        """Take note that a request was answered, or that its time ran out."""
        self._silences = 0 if came else self._silences + 1
        self._has_answered |= came
        if self._silences >= _SILENCES:
            self.is_deaf = True
            self.fault = f"the agent has left {_SILENCES} requests in a row without an answer"

    @property
    def is_mute(self) -> bool:
        """Whether it was asked and has never answered."""
        return self._silences > 0 and not self._has_answered

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal; does not wait."""
        self.process.send_signal(number)

    def wait(self, timeout: float = 10.0) -> int:
        """Return the exit code.

        Raises:
            SubjectFault: The process goes on.
        """
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise SubjectFault(f"the agent has not ended after {timeout:g} s") from error

    def wait_until_listening(self, *, without_metrics: bool) -> None:
        """Return when all ports accept connections, or when it is clear that they will not."""
        addresses = [(host.strip("[]"), self.port) for host in self.hosts] + [("127.0.0.1", self.probe_port)]
        if not without_metrics:
            addresses.append(("127.0.0.1", self.metrics_port))
        give_up_at = time.monotonic() + _START_TIMEOUT
        for address in addresses:
            while not _accepts(address):
                if self.process.poll() is not None:
                    return
                if time.monotonic() > give_up_at:
                    self.fault = f"the agent does not listen on {address[0]}:{address[1]}"
                    return
                time.sleep(0.01)
        self.has_listened = True
        self._await_an_answer()

    def _await_an_answer(self) -> None:
        """Return when it answers, since it may listen before it can, or when it is clear that it is slow to."""
        question = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        where = (self.hosts[-1].strip("[]"), self.port)
        with suppress(OSError), socket.create_connection(where, timeout=self.patience) as sock:
            sock.sendall(question)
            sock.recv(1)

    def _last_words(self) -> str:
        return " ".join((self.stderr_text()[-1000:] + self.log_text()[-1000:]).split()) or "it said nothing"


def _accepts(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=1).close()
    except OSError:
        return False
    return True


@dataclass(slots=True)
class Pending:
    """A connection on which the agent owes answers."""

    agent: Agent
    sock: socket.socket
    is_head: bool = False

    def reply(self) -> Reply:
        """Return the one answer.

        Raises:
            SubjectFault: There is none, or more than one.
        """
        replies = self.replies()
        if len(replies) != 1:
            raise SubjectFault(f"one request got {len(replies)} answers")
        return replies[0]

    def replies(self) -> list[Reply]:
        """Return all answers until the agent closes.

        Raises:
            SubjectFault: Something else comes, or nothing in time.
        """
        with self.sock:
            try:
                replies = list(read_replies(self.sock, head_only=self.is_head))
            except SubjectFault as fault:
                self.agent.note_answer(came=not isinstance(fault.__cause__, TimeoutError))
                raise
        self.agent.note_answer(came=True)
        return replies

    def hang_up(self) -> None:
        """Close without waiting for an answer."""
        self.sock.close()
