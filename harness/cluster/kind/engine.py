"""The Docker engine, and what of one lab is in it.

Everything that a lab makes in the engine can be found again by what the engine itself knows: containers and networks
carry the lab's labels; kind, which makes the nodes and takes no labels, puts them on the lab's network.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import ipaddress
import os
import socket
import tarfile
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import docker
import docker.types
import requests
from docker.context import ContextAPI
from docker.errors import APIError, DockerException, NotFound

from harness import limits, wait
from harness.cluster.addresses import ipv6_beside
from harness.cluster.base import Completed
from harness.errors import HarnessFault, MissingPrerequisite, UsageError

__all__ = [
    "DIRECTORY_LABEL",
    "LAB_LABEL",
    "Engine",
    "LabEngine",
    "connect",
    "explained",
    "instance_id",
    "is_lab_node",
    "refusal",
]

LAB_LABEL = "io.podid.lab"
"""Name of the lab that a container or network belongs to."""
DIRECTORY_LABEL = "io.podid.directory"
"""The lab's directory: labs of one name may exist in several state directories."""
_KIND_LABEL = "io.x-k8s.kind.cluster"
_START_HINT = "start Docker (on Linux: systemctl start docker)"


class Engine:
    """A Docker engine that answers."""

    def __init__(self, client: Any) -> None:
        """Keep the SDK's client.

        Args:
            client: A ``docker.DockerClient``.
        """
        self.client: Any = client

    @property
    def version(self) -> str:
        """Version of the engine."""
        return str(self.client.version()["Version"])

    def info(self) -> Mapping[str, Any]:
        """Return what ``docker info`` returns."""
        return self.client.info()

    @property
    def cgroup_version(self) -> str:
        """``1`` or ``2``."""
        return str(self.info().get("CgroupVersion", "2"))

    def run_privileged(self, image: str, command: Sequence[str], labels: Mapping[str, str]) -> str:
        """Run a command as kind runs its nodes, with all rights, and return what it printed.

        Engines refuse in words of their own (a policy's, the runtime's), so where it fails the same is tried without
        rights: if that works, rights are what is refused.

        Args:
            image: The image; must be there.
            command: Program and arguments.
            labels: Labels of the container, by which it is found if this command is killed.

        Raises:
            MissingPrerequisite: The engine refuses privileged containers.
            HarnessFault: It refused otherwise.
        """
        try:
            return self._run_once(image, command, labels, privileged=True)
        except HarnessFault as error:
            self._run_once(image, command, labels, privileged=False)
            raise MissingPrerequisite(
                f"the Docker engine refuses docker run --privileged, which kind's nodes need: {error.message}",
                hint="allow them in the engine's configuration, or use --provider native on Linux as root",
            ) from error

    def _run_once(self, image: str, command: Sequence[str], labels: Mapping[str, str], *, privileged: bool) -> str:
        """Run a command in a container without network, and remove the container."""
        with explained("running a container"):
            container: Any = self.client.containers.create(
                image,
                list(command[1:]),
                entrypoint=command[0],
                labels=dict(labels),
                privileged=privileged,
                network_mode="none",
            )
            try:
                container.start()
                container.wait(timeout=30)
                return container.logs().decode(errors="replace")
            finally:
                container.remove(v=True, force=True)

    def close(self) -> None:
        """Close the connections."""
        self.client.close()


def connect(timeout: float = 60) -> Engine:
    """Return the engine that the user's ``docker`` command talks to.

    Args:
        timeout: Seconds without an answer after which a request fails.

    Raises:
        MissingPrerequisite: No engine answers, or the user may not talk to it.
    """
    try:
        engine = Engine(_client(timeout))
        engine.client.ping()
    except (DockerException, requests.RequestException, OSError) as error:
        raise _unreachable(error) from error
    return engine


def _client(timeout: float) -> Any:
    # from_env knows DOCKER_HOST only; Docker Desktop and rootless engines are found through the current context.
    if host := os.environ.get("DOCKER_HOST"):
        _knock(host)
        return docker.from_env(timeout=int(timeout))
    context: Any = cast("Any", ContextAPI).get_current_context()
    _knock(str(context.Host))
    return docker.DockerClient(base_url=context.Host, tls=context.TLSConfig or False, timeout=int(timeout))


def _knock(host: str) -> None:
    """Raise the system's own error where nobody listens; the SDK's wraps it three times."""
    if host.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(host.removeprefix("unix://"))
            except OSError as error:
                raise type(error)(f"{host}: {error.strerror}") from error


def _unreachable(error: Exception) -> MissingPrerequisite:
    text = str(error)
    if isinstance(error, PermissionError) or "Permission denied" in text:
        return MissingPrerequisite(
            f"this user may not use the Docker engine: {text}",
            hint='join its group and log in again: sudo usermod --append --groups docker "$USER"',
        )
    return MissingPrerequisite(f"no Docker engine answers: {text}", hint=_START_HINT)


@contextlib.contextmanager
def explained(what: str) -> Generator[None]:
    """Turn errors of the engine into ours.

    Args:
        what: What was being done, such as ``creating the lab's network``.

    Raises:
        MissingPrerequisite: The engine does not answer, or its disk is full.
        HarnessFault: It refused otherwise.
    """
    try:
        yield
    except APIError as error:
        raise refusal(what, str(error.explanation or error)) from error
    except (DockerException, requests.RequestException) as error:
        raise MissingPrerequisite(f"{what} failed: {error}", hint=_START_HINT) from error


def refusal(what: str, text: str) -> HarnessFault | MissingPrerequisite:
    """Return the error for a refusal of the engine.

    Args:
        what: What was being done.
        text: What the engine, or a command that talks to it, said.
    """
    if "no space left on device" in text.lower():
        return MissingPrerequisite(
            f"{what} failed, the Docker engine's disk is full: {text}",
            hint="free some space, for example with: docker system prune",
        )
    return HarnessFault(f"{what} failed: {text}")


class LabEngine:
    """One lab's part of the engine."""

    def __init__(self, engine: Engine, lab: str, directory: Path) -> None:
        """Attach; nothing is created.

        Args:
            engine: The engine.
            lab: Name of the lab.
            directory: The lab's directory.
        """
        self.engine = engine
        self.lab = lab
        self.directory = directory
        self.labels = {LAB_LABEL: lab, DIRECTORY_LABEL: str(directory)}

    @property
    def network_name(self) -> str:
        """Name of the lab's network."""
        return f"podid-{self.lab}"

    # --- network ----------------------------------------------------------------------------------------------------

    def create_network(self, *, has_ipv6: bool = False) -> str:
        """Create the lab's network and return its subnet; with IPv6, :func:`ipv6_beside` tells its other one.

        A fixed address in it needs a subnet that was given, and only the engine knows which are free: a first network
        learns one, the second is given it.

        Raises:
            UsageError: Somebody else has a network of this name.
        """
        if foreign := [network for network in self._networks_of_name() if not self._is_ours(network.attrs["Labels"])]:
            labels: dict[str, str] = foreign[0].attrs["Labels"] or {}
            owner = labels.get(DIRECTORY_LABEL, "somebody else")
            raise UsageError(
                f"the Docker network {self.network_name!r} belongs to {owner}",
                hint="use another lab: set PODID_LAB",
            )
        networks: Any = self.engine.client.networks
        with explained("creating the lab's network"):
            first = networks.create(self.network_name, driver="bridge", labels=self.labels)
            first.reload()
            subnet = str(first.attrs["IPAM"]["Config"][0]["Subnet"])
            first.remove()
            subnets = [subnet, *([ipv6_beside(subnet)] if has_ipv6 else [])]
            pools = [docker.types.IPAMPool(subnet=one, gateway=str(ipaddress.ip_network(one)[1])) for one in subnets]
            options = {"com.docker.network.bridge.enable_ip_masquerade": "true"}
            networks.create(
                self.network_name,
                driver="bridge",
                labels=self.labels,
                options=options,
                ipam=docker.types.IPAMConfig(pool_configs=pools),
                enable_ipv6=has_ipv6,
            )
        return subnet

    def _networks_of_name(self) -> list[Any]:
        found: list[Any] = self.engine.client.networks.list(names=[self.network_name])
        # The engine's filter matches parts of names too.
        return [network for network in found if network.name == self.network_name]

    def _is_ours(self, labels: Mapping[str, str] | None) -> bool:
        return (labels or {}).get(DIRECTORY_LABEL) == str(self.directory)

    # --- containers -------------------------------------------------------------------------------------------------

    def containers(self) -> list[Any]:
        """Return every container of the lab, running or not."""
        listed: list[Any] = self.engine.client.containers.list(all=True, sparse=True)
        is_our_network = all(self._is_ours(network.attrs["Labels"]) for network in self._networks_of_name())
        return [
            container
            for container in listed
            if self._is_ours(container.attrs.get("Labels"))
            or (is_our_network and is_lab_node(container.attrs, self.network_name))
        ]

    def refuse_foreign_cluster(self, kind_name: str) -> None:
        """Refuse a name under which somebody else has a kind cluster.

        Raises:
            UsageError: There is one.
        """
        ours = {str(container.id) for container in self.containers()}
        with explained("looking for kind clusters"):
            nodes: list[Any] = self.engine.client.containers.list(
                all=True, sparse=True, filters={"label": f"{_KIND_LABEL}={kind_name}"}
            )
        if foreign := [str(node.attrs["Names"][0]).lstrip("/") for node in nodes if str(node.id) not in ours]:
            raise UsageError(
                f"there is a kind cluster {kind_name!r} that is not of this lab: {', '.join(foreign)}",
                hint="use another lab: set PODID_LAB",
            )

    def is_running(self, name: str) -> bool:
        """Tell whether a container runs."""
        try:
            return bool(self.engine.client.containers.get(name).status == "running")
        except NotFound:
            return False

    def run_in(self, container: str, command: Sequence[str], *, timeout: float = 60) -> Completed:
        """Run a command in a container; it is killed after ``timeout`` seconds, and then returns 137.

        Raises:
            HarnessFault: The container does not run.
        """
        bounded = ["timeout", "--signal=KILL", str(timeout), *command]
        api: Any = self.engine.client.api
        with explained(f"running {command[0]} in {container}"):
            execution = api.exec_create(container, bounded)["Id"]
            out, err = api.exec_start(execution, demux=True)
            code = int(api.exec_inspect(execution)["ExitCode"])
        return Completed(code, (out or b"").decode(errors="replace"), (err or b"").decode(errors="replace"))

    def put_files(self, container: str, files: Mapping[str, str], *, mode: int = 0o600) -> None:
        """Write files in a container, running or not; secrets get in this way and no other.

        Args:
            container: Name of the container.
            files: Absolute path → text. Directories are made.
            mode: Of the files.
        """
        with explained(f"writing files in {container}"):
            self.engine.client.api.put_archive(container, "/", archive_of(files, mode))

    # --- removal ----------------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        """Tell whether anything of the lab is in the engine."""
        return bool(self.containers() or self._labelled_networks() or self._labelled_volumes())

    def _labelled_networks(self) -> list[Any]:
        return self.engine.client.networks.list(filters={"label": f"{DIRECTORY_LABEL}={self.directory}"})

    def _labelled_volumes(self) -> list[Any]:
        return self.engine.client.volumes.list(filters={"label": f"{DIRECTORY_LABEL}={self.directory}"})

    def remove(self) -> bool:
        """Remove everything of the lab, and wait until the engine no longer knows it.

        A command that was killed may have left a request behind that still makes a container: it is on the lab's
        network, so the network cannot go before it does, and the next round finds it.

        Returns:
            Whether there was anything.
        """
        with explained("removing the lab from the Docker engine"):
            found = self.exists()
            if found:
                wait.until(self._removed, what="the lab's containers and networks to go", timeout=limits.CLUSTER_GONE)
        return found

    def _removed(self) -> bool:
        self.remove_containers([str(container.id) for container in self.containers()])
        for item in [*self._labelled_networks(), *self._labelled_volumes()]:
            with contextlib.suppress(APIError):
                item.remove()
        return not self.exists()

    def remove_containers(self, names: Sequence[str]) -> None:
        """Remove containers with their anonymous volumes, all at once; some may be gone or going already."""
        if not names:
            return
        with ThreadPoolExecutor(len(names)) as pool:
            list(pool.map(self._remove_container, names))

    def _remove_container(self, name: str) -> None:
        with contextlib.suppress(APIError):
            self.engine.client.api.remove_container(name, v=True, force=True)


def is_lab_node(attributes: Mapping[str, Any], network: str) -> bool:
    """Tell from a container's entry in the engine's list whether kind made it on this network.

    Args:
        attributes: The entry.
        network: Name of the lab's network.
    """
    settings: Mapping[str, Any] = attributes.get("NetworkSettings") or {}
    networks: Mapping[str, Any] = settings.get("Networks") or {}
    host: Mapping[str, Any] = attributes.get("HostConfig") or {}
    labels: Mapping[str, str] = attributes.get("Labels") or {}
    return _KIND_LABEL in labels and (network in networks or host.get("NetworkMode") == network)


def archive_of(files: Mapping[str, str], mode: int) -> bytes:
    """Return a tar of files that belong to root."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, text in files.items():
            data = text.encode()
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size, entry.mode = len(data), mode
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def instance_id(lab: str, index: int) -> str:
    """Return ``i-`` and 17 hex digits, the same for the same node of the same lab."""
    return "i-0" + hashlib.sha256(f"{lab}/{index}".encode()).hexdigest()[:16]
