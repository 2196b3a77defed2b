"""``kind_cluster``: tests that were written for pytest-kind run on a cluster of a lab (HRN-PK-01).

The fixture's object has the public names of pytest-kind's ``KindCluster`` and, where that package is installed
(dependency group ``pytest-kind``), is one. Nothing of its behaviour is used: docs/kind.md says why. It is
GPL-3.0-or-later, and nothing here needs it.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from functools import cached_property
from pathlib import Path
from typing import IO, Any, cast

from harness.cluster.base import Cluster
from harness.errors import HarnessFault, MissingPrerequisite, UsageError

__all__ = ["LabKindCluster", "adapt"]

_COMMAND_SECONDS = 120
_FORWARDING = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+) ->")


class LabKindCluster:
    """A cluster of a lab behind the names of pytest-kind's ``KindCluster``."""

    def __init__(self, cluster: Cluster) -> None:
        """Attach; the lab raised the cluster and removes it.

        Args:
            cluster: The cluster.
        """
        self._cluster = cluster
        self.name = cluster.name
        self.kubeconfig_path = cluster.kubeconfig

    @cached_property
    def kubectl_path(self) -> Path:
        """The ``kubectl`` on PATH.

        Raises:
            MissingPrerequisite: There is none.
        """
        if found := shutil.which("kubectl"):
            return Path(found)
        raise MissingPrerequisite("there is no kubectl on PATH", hint='eval "$(podid exports)" brings one')

    @cached_property
    def api(self) -> Any:
        """A pykube client.

        Raises:
            MissingPrerequisite: pykube-ng is not installed.
        """
        if importlib.util.find_spec("pykube") is None:
            raise MissingPrerequisite("pykube-ng is not installed", hint="uv sync --group pytest-kind")
        pykube: Any = importlib.import_module("pykube")
        return pykube.HTTPClient(pykube.KubeConfig.from_file(str(self.kubeconfig_path)))

    def ensure_kubectl(self) -> None:
        """Raise if there is no ``kubectl``."""
        _ = self.kubectl_path

    def create(self, config_file: str | Path | None = None) -> None:
        """Do nothing: the lab has raised the cluster.

        Raises:
            UsageError: Another configuration is asked for.
        """
        if config_file is not None:
            raise UsageError("a lab's clusters have the lab's configuration", hint="change kind-config.yaml")

    def delete(self) -> None:
        """Remove the cluster; the lab would do it at the end."""
        self._cluster.delete()

    def load_docker_image(self, docker_image: str) -> None:
        """Make an image of the Docker engine available to pods, through an archive.

        Args:
            docker_image: Its name; without a tag ``latest``.

        Raises:
            UsageError: The engine has no such image.
            MissingPrerequisite: No engine answers.
        """
        # Here: every run loads this module, and native labs need not wait for Docker's SDK.
        import docker  # noqa: PLC0415
        from docker.errors import DockerException, ImageNotFound  # noqa: PLC0415

        try:
            client: Any = docker.from_env()
            image = client.images.get(docker_image)
            with tempfile.NamedTemporaryFile(suffix=".tar") as archive:
                for chunk in image.save(named=True):
                    archive.write(chunk)
                archive.flush()
                self._cluster.load_image(docker_image, Path(archive.name))
        except ImageNotFound as error:
            raise UsageError(
                f"the Docker engine has no image {docker_image!r}", hint="build or pull it first"
            ) from error
        except DockerException as error:
            raise MissingPrerequisite(f"{docker_image!r} cannot be read from a Docker engine: {error}") from error

    def kubectl(self, *args: str, timeout: float = _COMMAND_SECONDS, **kwargs: Any) -> str:
        """Run ``kubectl`` on the cluster and return what it printed.

        Args:
            *args: Its arguments.
            timeout: Seconds after which it is ended.
            **kwargs: For :func:`subprocess.run`.

        Raises:
            subprocess.CalledProcessError: It failed; a note has the command to paste and what it said.
            subprocess.TimeoutExpired: It took too long.
        """
        command = [str(self.kubectl_path), *args]
        done = subprocess.run(
            command, env=self._environment, capture_output=True, text=True, timeout=timeout, check=False, **kwargs
        )
        if done.returncode != 0:
            error = subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
            error.add_note(f"$ KUBECONFIG={self.kubeconfig_path} kubectl {' '.join(args)}\n{done.stdout}{done.stderr}")
            raise error
        return done.stdout

    @contextlib.contextmanager
    def port_forward(
        self, service_or_pod_name: str, remote_port: int, *args: str, local_port: int | None = None, retries: int = 1
    ) -> Generator[int]:
        """Yield a port of this machine that leads to a pod or service.

        Args:
            service_or_pod_name: Such as ``service/web``.
            remote_port: Its port.
            *args: Further arguments of ``kubectl port-forward``, such as ``-n``, ``demo``.
            local_port: The port; a free one if none is given.
            retries: Of no effect: the kernel gives a free port, so one try is enough.

        Raises:
            HarnessFault: kubectl ended, with what it said.
        """
        del retries
        ports = f"{local_port or ''}:{remote_port}"
        command = [str(self.kubectl_path), "port-forward", *args, "--address=127.0.0.1", service_or_pod_name, ports]
        with subprocess.Popen(
            command, env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            try:
                yield _forwarded_port(cast("IO[str]", process.stdout))
            finally:
                process.terminate()

    @property
    def _environment(self) -> dict[str, str]:
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig_path)}


def adapt(cluster: Cluster) -> LabKindCluster:
    """Return a cluster behind pytest-kind's names; an instance of its ``KindCluster`` too if that is installed."""
    if importlib.util.find_spec("pytest_kind") is None:
        return LabKindCluster(cluster)
    base = importlib.import_module("pytest_kind").KindCluster
    return type("KindCluster", (LabKindCluster, base), {})(cluster)


def _forwarded_port(output: IO[str]) -> int:
    """Return the port that ``kubectl port-forward`` names in its first line.

    It prints that or ends, and ends within its own time limits when the API server does not answer.
    """
    said = output.readline()
    if found := _FORWARDING.match(said):
        return int(found[1])
    raise HarnessFault(f"kubectl port-forward failed: {said}{output.read()}".strip())
