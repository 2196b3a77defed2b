"""A real agent process on loopback, and raw requests to it."""

from __future__ import annotations

import base64
import json
import multiprocessing
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

HOST = "169.254.170.23"

# Agents are forked from a process that has imported everything: the imports would be most of the suite's time.
_fork = multiprocessing.get_context("forkserver")
_fork.set_forkserver_preload(["podid_agent.server", "podid_webhook.main", "podid_webhook.certs", "pytest"])


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, below those that the kernel gives to outgoing connections meanwhile."""
    ports: list[int] = []
    while len(ports) < count:
        port = random.randrange(10_000, 32_768)
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        if port not in ports:
            ports.append(port)
    return ports


def environment(home: str, **extra: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": home,
        "AWS_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "AKIDNODE",
        "AWS_SECRET_ACCESS_KEY": "CANARY-NODE-SECRET",
        "AWS_EC2_METADATA_DISABLED": "true",
        "PYTHONWARNINGS": "error",
        **extra,
    }


def _main(arguments: Sequence[str], env: Mapping[str, str], stdout: Path, stderr: Path) -> None:
    """Be an agent: runs in a process of its own."""
    os.environ.clear()
    os.environ.update(env)
    warnings.simplefilter("error")
    for path, descriptor in ((stdout, 1), (stderr, 2)):
        with path.open("wb") as file:
            os.dup2(file.fileno(), descriptor)
    from podid_agent.cli import run  # noqa: PLC0415 - what starts the process does without

    sys.exit(run(arguments))


def run_agent(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command that ends by itself."""
    with tempfile.TemporaryDirectory() as home:
        stdout, stderr = Path(home, "stdout"), Path(home, "stderr")
        process = _fork.Process(target=_main, args=(arguments, env or environment(home), stdout, stderr))
        process.start()
        process.join(60)
        assert process.exitcode is not None, f"{arguments} does not end"
        return subprocess.CompletedProcess(arguments, process.exitcode, stdout.read_text(), stderr.read_text())


def execute_agent(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command that ends by itself as a container does: by the interpreter."""
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, "-m", "podid_agent", *arguments]
        return subprocess.run(command, env=environment(home), capture_output=True, text=True, timeout=60, check=False)


@dataclass
class Agent:
    process: BaseProcess
    hosts: tuple[str, ...]
    port: int
    probe_port: int
    metrics_port: int
    log_file: Path
    stderr_file: Path
    home: Path

    def get(self, token: str | bytes | None = None, path: str = "/v1/credentials", host: str = HOST,
            method: str = "GET", address: str = "127.0.0.1") -> Reply:  # fmt: skip
        lines = [f"{method} {path} HTTP/1.1".encode(), f"Host: {host}".encode(), b"Connection: close"]
        if token is not None:
            lines.append(b"Authorization: " + (token.encode() if isinstance(token, str) else token))
        return self.raw(b"\r\n".join(lines) + b"\r\n\r\n", address=address)[0]

    def raw(self, data: bytes, *, port: int = 0, address: str = "127.0.0.1") -> list[Reply]:
        """Send bytes and return all replies until the agent closes, which the last request must ask for."""
        with socket.create_connection((address, port or self.port), timeout=60) as sock:
            sock.sendall(data)
            return list(read_replies(sock, head_only=data.startswith(b"HEAD")))

    def probe(self, path: str, port: int = 0) -> Reply:
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        return self.raw(request.encode(), port=port or self.probe_port)[0]

    def metric(self, name: str) -> float:
        """The value of one series, given with its labels as Prometheus prints them."""
        text = self.probe("/metrics", self.metrics_port).text
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def log_lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log_file.read_text().splitlines()]

    def terminate(self) -> int | None:
        """Tell it to end, and return its exit code, None if it does not."""
        self.process.terminate()
        return self.wait()

    def wait(self) -> int | None:
        self.process.join(30)
        return self.process.exitcode


def read_replies(sock: socket.socket, *, head_only: bool = False) -> Iterator[Reply]:
    with sock.makefile("rb") as stream:
        while line := stream.readline():
            status = int(line.split()[1])
            headers: dict[str, str] = {}
            while (line := stream.readline()) not in {b"\r\n", b""}:
                name, _, value = line.decode().partition(":")
                headers[name.lower()] = value.strip()
            length = 0 if head_only else int(headers["content-length"])
            yield Reply(status, headers, stream.read(length))


@contextmanager
def running_agent(
    endpoint: str, *arguments: str, hosts: tuple[str, ...] = ("127.0.0.1",), env: Mapping[str, str] | None = None
) -> Iterator[Agent]:
    """An agent that serves; afterwards it must end well and have kept every canary to itself."""
    port, probe_port, metrics_port = free_ports(3)
    with tempfile.TemporaryDirectory() as home:
        log_file, stderr_file = Path(home, "log"), Path(home, "stderr")
        log_file.touch()
        stderr_file.touch()
        full_environment = {name: value for name, value in environment(home, **(env or {})).items() if value}
        command = (
            ["server", "-c", "test-cluster"]
            + [word for host in hosts for word in ("-b", host)]
            + ["-p", str(port), "--probe-port", str(probe_port)]
            + ["--metrics-address", "127.0.0.1", "--metrics-port", str(metrics_port), "-v", "trace"]
            + (["--endpoint", endpoint] if endpoint else [])
            + list(arguments)
        )
        process = _fork.Process(target=_main, args=(command, full_environment, log_file, stderr_file))
        process.start()
        agent = Agent(process, hosts, port, probe_port, metrics_port, log_file, stderr_file, Path(home))
        try:
            _wait_until_ready(agent)
            yield agent
        finally:
            if process.is_alive():
                code = agent.terminate()
                if code is None:
                    process.kill()
                assert code == 0, f"exit code {code}\n{stderr_file.read_text()}"
            process.close()
        output = log_file.read_text() + stderr_file.read_text()
        assert "CANARY" not in output
        assert all({"level", "msg", "time"} <= line.keys() for line in agent.log_lines())
        assert len(stderr_file.read_text().splitlines()) == 1, stderr_file.read_text()


def _wait_until_ready(agent: Agent) -> None:
    def is_ready() -> bool:
        assert agent.process.is_alive(), agent.log_file.read_text() + agent.stderr_file.read_text()
        try:
            return agent.probe("/readyz").status == 200
        except OSError:
            return False

    wait_until(is_ready, "the agent is ready")


def wait_until(ready: Callable[[], object], what: str) -> None:
    """Return when ``ready`` says so; nothing depends on how soon that is."""
    give_up_at = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < give_up_at, f"not within 60 s: {what}"
        time.sleep(0.01)


def segment(value: object) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def make_token(header: object | None = None, **claims: object) -> str:
    """A token of a pod of its own; nothing verifies the signature."""
    uid = str(uuid.uuid4())
    full = {
        "aud": ["pods.eks.amazonaws.com"],
        "exp": int(time.time()) + 3600,
        "kubernetes.io": {
            "namespace": "ns-1",
            "serviceaccount": {"name": "sa-1"},
            "pod": {"name": "pod-1", "uid": uid},
        },
        **claims,
    }
    return f"{segment(header or {'alg': 'RS256', 'kid': 'k'})}.{segment(full)}.CANARY{segment(uid)}"
