"""A real agent process on loopback, and raw requests to it."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HOST = "169.254.170.23"


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
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
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


def run_agent(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command that ends by itself."""
    with tempfile.TemporaryDirectory() as home:
        return subprocess.run(
            [sys.executable, "-m", "podid_agent", *arguments],
            env=environment(home) if env is None else env,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )


@dataclass
class Agent:
    process: subprocess.Popen[bytes]
    hosts: tuple[str, ...]
    port: int
    probe_port: int
    metrics_port: int
    log_file: Path
    stderr_file: Path
    home: Path
    _env: Mapping[str, str] = field(default_factory=dict)

    def get(self, token: str | bytes | None = None, path: str = "/v1/credentials", host: str = HOST,
            method: str = "GET", address: str = "127.0.0.1") -> Reply:  # fmt: skip
        lines = [f"{method} {path} HTTP/1.1".encode(), f"Host: {host}".encode(), b"Connection: close"]
        if token is not None:
            lines.append(b"Authorization: " + (token.encode() if isinstance(token, str) else token))
        return self.raw(b"\r\n".join(lines) + b"\r\n\r\n", address=address)[0]

    def raw(self, data: bytes, *, port: int = 0, address: str = "127.0.0.1") -> list[Reply]:
        """Send bytes and return all replies until the agent closes, which the last request must ask for."""
        with socket.create_connection((address, port or self.port), timeout=15) as sock:
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

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


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
        full_environment = environment(home, **(env or {}))
        with log_file.open("wb") as log, stderr_file.open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "podid_agent", "server", "-c", "test-cluster"]
                + [word for host in hosts for word in ("-b", host)]
                + ["-p", str(port), "--probe-port", str(probe_port)]
                + ["--metrics-address", "127.0.0.1", "--metrics-port", str(metrics_port), "-v", "trace"]
                + (["--endpoint", endpoint] if endpoint else [])
                + list(arguments),
                env={name: value for name, value in full_environment.items() if value},
                stdout=log,
                stderr=stderr,
            )
        agent = Agent(process, hosts, port, probe_port, metrics_port, log_file, stderr_file, Path(home))
        try:
            _wait_until_ready(agent)
            yield agent
        finally:
            if process.poll() is None:
                code = agent.terminate()
                assert code == 0, f"exit code {code}\n{stderr_file.read_text()}"
        output = log_file.read_text() + stderr_file.read_text()
        assert "CANARY" not in output
        assert all({"level", "msg", "time"} <= line.keys() for line in agent.log_lines())
        assert len(stderr_file.read_text().splitlines()) == 1, stderr_file.read_text()


def _wait_until_ready(agent: Agent) -> None:
    give_up_at = time.monotonic() + 15
    while True:
        assert agent.process.poll() is None, agent.log_file.read_text() + agent.stderr_file.read_text()
        try:
            if agent.probe("/readyz").status == 200:
                return
        except OSError:
            assert time.monotonic() < give_up_at, "not ready within 15 s"
        time.sleep(0.02)


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
