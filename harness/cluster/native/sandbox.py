"""A sandbox: a set of fresh kernel namespaces with a supervised group of programs in it.

Both the lab's AWS and every native cluster live in one. The sandbox has no name in the kernel: its network namespace,
mounts and processes exist exactly as long as its first process (:mod:`harness.cluster.native.init`).
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from harness import limits, wait
from harness.cluster.native import init
from harness.errors import HarnessFault

__all__ = ["MARK", "Program", "Sandbox", "let_outlive", "marked_processes"]

MARK = "PODID_SANDBOX"
"""Environment variable that every process of a sandbox carries; its value is the sandbox's directory."""

_STARTED_HERE: list[subprocess.Popen[bytes]] = []
"""What this process started and may outlive it. Python warns of a running child whose handle is forgotten, which ends a
test run where warnings are errors."""


def let_outlive(process: subprocess.Popen[bytes]) -> None:
    """Keep the handle of a process that may outlive this one."""
    _STARTED_HERE.append(process)


@atexit.register
def _let_them_go() -> None:
    """Call what outlives this process done, so that Python's end does not warn of it."""
    for process in _STARTED_HERE:
        if process.poll() is None:
            process.returncode = 0


@dataclass(frozen=True, slots=True)
class Program:
    """A program to supervise; its log is ``logs/<name>.log``."""

    name: str
    argv: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict[str, str])


class Sandbox:
    """One sandbox, known by its directory; also after the process that created it is gone."""

    def __init__(self, directory: Path) -> None:
        """Attach to a sandbox's directory; nothing is created or started.

        Args:
            directory: Holds spec, PID, status and logs, and the sandbox's private files.
        """
        self.directory = directory
        self.logs = directory / "logs"
        self._spec_file = directory / "spec.json"
        self._pid_file = directory / "pid"
        self._status_file = directory / "status.json"

    @property
    def pid(self) -> int | None:
        """PID of the sandbox's first process in the caller's PID namespace, or None when it does not run."""
        try:
            pid = int(self._pid_file.read_text())
        except (FileNotFoundError, ValueError):
            return None
        # A recycled PID must never be taken for ours.
        return pid if _mark_of(pid) == str(self.directory) else None

    @contextlib.contextmanager
    def starting(
        self,
        programs: Sequence[Program],
        *,
        hostname: str,
        mounts: Mapping[str, str],
        keep: Sequence[Path] = (),
        directories: Sequence[str] = (),
    ) -> Generator[int]:
        """Create the namespaces, yield the PID for wiring the network, then start the programs.

        Args:
            programs: What to run; all start together.
            hostname: Host name inside.
            mounts: Mount point → source directory or file, or ``tmpfs``.
            keep: Paths that must stay visible although a mount covers a parent of theirs.
            directories: Directories to create inside, after mounting.

        Raises:
            HarnessFault: The namespaces could not be created.
        """
        self.logs.mkdir(parents=True, exist_ok=True)
        environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
        environment[MARK] = str(self.directory)
        # Most are written in Go. A dozen share the processors: each looks for work on half of them, and spends memory,
        # of which a short life needs little, rather than time on collecting it.
        environment |= {"GOMAXPROCS": str(max(1, (os.cpu_count() or 1) // 2)), "GOGC": "400"}
        spec = {
            "programs": [
                {**asdict(program), "environment": environment | dict(program.environment)} for program in programs
            ],
            "hostname": hostname,
            "mounts": dict(mounts),
            "keep": [str(path) for path in keep],
            "directories": list(directories),
            "logs": str(self.logs),
            "status": str(self._status_file),
        }
        self._spec_file.write_text(json.dumps(spec, indent=1))
        # --kill-child ties the two processes together: whichever is killed takes the sandbox with it.
        command = ["unshare", "--mount", "--pid", "--net", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc"]
        command += [sys.executable, "-I", init.__file__, str(self._spec_file)]
        with (self.logs / "init.log").open("ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        let_outlive(process)
        assert process.stdin is not None  # noqa: S101 - follows from stdin=PIPE
        try:
            pid = wait.until(
                lambda: self._first_process(process), what="new kernel namespaces", timeout=limits.PROCESS_START
            )
            self._pid_file.write_text(str(pid))
            yield pid
            process.stdin.write(b"start\n")
            process.stdin.flush()
            wait.until(
                self._status_file.exists,
                what=f"the programs of {self.directory.name} to start",
                timeout=limits.PROCESS_START,
                stop=lambda _: self._failure() if process.poll() is not None else None,
            )
        except BaseException:
            self.kill()
            raise
        finally:
            process.stdin.close()

    def _first_process(self, unshare: subprocess.Popen[bytes]) -> int:
        if unshare.poll() is not None:
            raise HarnessFault(
                f"cannot create namespaces for {self.directory.name}: {self._failure()}", hint="run: podid doctor"
            )
        children = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children").read_text().split()
        return int(children[0]) if children else 0

    def _failure(self) -> str:
        return (self.logs / "init.log").read_text().strip()[-500:]

    def programs(self) -> dict[str, dict[str, object]]:
        """Return what the supervisor last wrote: name → ``running``, latest ``exits`` codes, number of ``starts``."""
        try:
            return json.loads(self._status_file.read_text())
        except FileNotFoundError:
            return {}

    def report(self) -> dict[str, dict[str, object]]:
        """Return the same, seen together with whether the sandbox runs: once it ended, so has its ``init``."""
        if self.pid is not None:
            return self.programs()
        ended = {name: {**state, "running": False} for name, state in self.programs().items()}
        return {"init": {"running": False, "exits": []}, **ended}

    def enter(self) -> list[str]:
        """Return the command prefix that runs a program in the sandbox's network and mounts.

        Raises:
            HarnessFault: The sandbox does not run.
        """
        pid = self.pid
        if pid is None:
            raise HarnessFault(f"{self.directory.name} does not run", hint="run: podid up")
        return ["nsenter", f"--target={pid}", "--net", "--mount", "--uts", "--ipc", "--pid"]

    def kill_program(self, name: str) -> None:
        """End one program as a crash does, and wait until it is gone; it is started again.

        Args:
            name: As in its status.

        Raises:
            HarnessFault: It does not run.
        """
        found = self._running(name)
        if not found:
            raise HarnessFault(f"{name} of {self.directory.name} does not run", hint="run: podid status")
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait.until(
            lambda: found & self._running(name),
            lambda left: not left,
            what=f"{name} of {self.directory.name} to end",
            timeout=limits.PROCESS_END,
        )

    def _running(self, name: str) -> set[int]:
        """Return the PIDs of one program, known by its command line: several may run in one interpreter."""
        programs = json.loads(self._spec_file.read_text())["programs"]
        argv = next((program["argv"] for program in programs if program["name"] == name), None)
        # Not those of a sandbox below it: a further node has programs of the same command lines.
        return {pid for pid in _pids() if _mark_of(pid) == str(self.directory) and _arguments_of(pid) == argv}

    def kill(self) -> None:
        """End every process of the sandbox, also one whose PID was never recorded, and wait until they are gone."""
        for pid in marked_processes(self.directory):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait.until(
            lambda: marked_processes(self.directory),
            lambda left: not left,
            what="processes to end",
            timeout=limits.PROCESS_END,
        )
        _STARTED_HERE[:] = [process for process in _STARTED_HERE if process.poll() is None]

    def remove(self) -> None:
        """End the sandbox and delete its directory."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=False) if self.directory.exists() else None


def marked_processes(directory: Path) -> list[int]:
    """Return the PIDs of all live processes that belong to the sandbox in ``directory`` or in one below it."""
    return [pid for pid in _pids() if _is_below(_mark_of(pid), directory)]


def _pids() -> list[int]:
    proc = Path("/proc")
    if not proc.exists():
        # Not Linux: no sandbox can be there.
        return []
    return [int(entry.name) for entry in proc.iterdir() if entry.name.isdigit()]


def _is_below(mark: str | None, directory: Path) -> bool:
    return mark is not None and Path(mark).is_relative_to(directory)


def _arguments_of(pid: int) -> list[str]:
    """Return a process's command line; empty once it is gone or only waits for its parent."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _mark_of(pid: int) -> str | None:
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    prefix = f"{MARK}=".encode()
    return next((entry[len(prefix) :].decode() for entry in variables if entry.startswith(prefix)), None)
