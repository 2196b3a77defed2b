"""What surrounds a container on EKS, for programs that run beside the emulator: the agent, a token, the variables."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from harness.subject.agent import Agent, AgentCommand
from harness.subject.aws import CLUSTER, REGION, Aws
from harness.subject.bound_cluster import ApiServerDouble

__all__ = ["Container", "Done", "container"]


@dataclass(frozen=True, slots=True)
class Done:
    """What a program left."""

    exit_code: int
    stdout: str
    stderr: str

    def json(self) -> Any:
        """Return its output as JSON; fails with its errors if it failed."""
        if self.exit_code != 0:
            raise AssertionError(f"exit code {self.exit_code}: {self.stderr}")
        return json.loads(self.stdout)


@dataclass(frozen=True, slots=True)
class Container:
    """Where a program runs as a pod's container would: with nothing but what AWS's clients read themselves."""

    home: Path
    variables: Mapping[str, str]

    def run(self, command: Sequence[str | Path], *, stdin: bytes = b"", **variables: str) -> Done:
        """Run a program to its end; one that takes longer than a minute is ended."""
        done = subprocess.run(
            [str(word) for word in command],
            input=stdin,
            env={**self.variables, **variables},
            cwd=self.home,
            capture_output=True,
            timeout=60,
            check=False,
        )
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


@contextmanager
def container(aws: Aws, api: ApiServerDouble, home: Path, service_account: str) -> Generator[Container]:
    """Run our agent with the node's credentials, and yield a container of a pod with a service account.

    Args:
        aws: The emulator; a node must be registered.
        api: The cluster, whose key signs the token.
        home: Empty directory.
        service_account: In namespace ``demo``.
    """
    node = aws.node_credentials()
    credentials = {
        "AWS_ACCESS_KEY_ID": node["accessKeyId"],
        "AWS_SECRET_ACCESS_KEY": node["secretAccessKey"],
        "AWS_SESSION_TOKEN": node["sessionToken"],
    }
    token = home / "eks-pod-identity-token"
    token.write_text(api.token(time.time(), "demo", service_account))
    command = AgentCommand.of("", is_ours=True)
    with (
        command.serving(aws.endpoint, "--cluster-name", CLUSTER, env=credentials, verbosity="info") as agent,
        _link_local(agent) as address,
    ):
        variables = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(home),
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_STS_REGIONAL_ENDPOINTS": "regional",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://{address}/v1/credentials",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(token),
            # In place of the lab's name resolution.
            "AWS_ENDPOINT_URL": f"https://localhost:{urlsplit(aws.endpoint).port}",
            "AWS_CA_BUNDLE": str(aws.authority),
        }
        yield Container(home, variables)


@contextmanager
def _link_local(agent: Agent) -> Generator[str]:
    """Play the link with 169.254.170.23 on it: an agent refuses to be called by another address than its own."""

    class Handler(BaseHTTPRequestHandler):
        disable_nagle_algorithm = True

        def log_message(self, format: str, *_: object) -> None:  # noqa: A002 - the name of the base class
            pass

        def do_GET(self) -> None:
            reply = agent.send(self.headers.get("Authorization"), path=self.path).reply()
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.headers.get("content-type", ""))
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
