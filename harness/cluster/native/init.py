"""PID 1 of a sandbox: sets up its mounts, starts its programs, restarts what dies.

Runs by file name with nothing but the standard library, as the first process of new mount, PID, network, UTS and IPC
namespaces. When it ends, for whatever reason, the kernel ends every process of the sandbox and drops its mounts and
network devices: that is what makes ``podid down`` reliable after a ``kill -9``.

``init.py SPEC.json`` reads one line from standard input before it starts anything: the parent wires the network first.
End of file there means that the parent is gone, and so the sandbox goes too.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

MS_BIND, MS_REC, MS_SHARED = 4096, 16384, 1 << 20
BACKOFF_SECONDS = (0.2, 0.5, 1, 2, 5)
# A program that ran this long is healthy again: its back-off starts over.
HEALTHY_AFTER_SECONDS = 30

_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Mount with the system call.

    Raises:
        OSError: What the kernel said, with the target.
    """
    if _libc.mount(source.encode(), target.encode(), kind.encode(), flags, data.encode()) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot mount {source} on {target}: {os.strerror(number)}")


def set_up_mounts(spec: dict[str, Any]) -> None:
    """Cover the host's changing directories with the sandbox's own, and keep the paths it needs visible."""
    # Kubelet expects shared mounts; the namespace is our own, so nothing leaks to the host.
    mount("none", "/", "", MS_REC | MS_SHARED)
    keep = {path: os.open(path, os.O_PATH) for path in spec["keep"]}
    for target, source in spec["mounts"].items():
        if source == "tmpfs":
            mount("tmpfs", target, "tmpfs", 0, "mode=755")
        else:
            mount(source, target, "", MS_BIND | MS_REC)
    for path, descriptor in keep.items():
        if not _same(path, descriptor):
            Path(path).mkdir(parents=True, exist_ok=True)
            mount(f"/proc/self/fd/{descriptor}", path, "", MS_BIND | MS_REC)
        os.close(descriptor)
    for directory in spec["directories"]:
        Path(directory).mkdir(parents=True, exist_ok=True)


def _same(path: str, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))  # noqa: PTH116 - fstat has no Path form
    except FileNotFoundError:
        return False


class Program:
    """One supervised program."""

    def __init__(self, spec: dict[str, Any], log_directory: Path) -> None:
        self.name: str = spec["name"]
        self._argv: list[str] = spec["argv"]
        self._environment: dict[str, str] = spec["environment"]
        self._log = log_directory / f"{self.name}.log"
        self.pid = 0
        self.exits: list[int] = []
        self.starts = 0
        self._started = 0.0
        self.due = 0.0

    def start(self) -> None:
        """Start the program with its output appended to its log."""
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
            )
        self.pid, self._started, self.due = process.pid, time.monotonic(), 0.0
        self.starts += 1
        # PID 1 reaps every child itself; Popen must not try again when it is collected.
        process.returncode = 0

    def ended(self, status: int) -> None:
        """Note an exit and plan the next start."""
        now = time.monotonic()
        if now - self._started > HEALTHY_AFTER_SECONDS:
            self.exits.clear()
        self.exits.append(os.waitstatus_to_exitcode(status))
        self.pid = 0
        self.due = now + BACKOFF_SECONDS[min(len(self.exits), len(BACKOFF_SECONDS)) - 1]


def supervise(programs: list[Program], status_file: Path) -> None:
    """Start all programs at once and keep them running; returns never."""
    for program in programs:
        program.start()
    write_status(programs, status_file)
    # A handler and a pipe instead of a blocked signal: programs would inherit the mask, and shims live by SIGCHLD.
    readable, writable = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    while True:
        if select.select([readable], [], [], 0.2)[0]:
            os.read(readable, 4096)
        changed = reap(programs)
        for program in programs:
            if not program.pid and program.due <= time.monotonic():
                program.start()
                changed = True
        if changed:
            write_status(programs, status_file)


def reap(programs: list[Program]) -> bool:
    """Collect every dead child, orphans of containers included; tell whether a program was among them."""
    found = False
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        for program in programs:
            if program.pid == pid:
                program.ended(status)
                found = True


def write_status(programs: list[Program], status_file: Path) -> None:
    """Write what ``podid status`` shows, atomically."""
    status = {
        program.name: {"running": bool(program.pid), "exits": program.exits[-5:], "starts": program.starts}
        for program in programs
    }
    temporary = status_file.with_suffix(".new")
    temporary.write_text(json.dumps(status))
    temporary.replace(status_file)


def main() -> None:
    """Run the sandbox described by the file named on the command line."""
    spec = json.loads(Path(sys.argv[1]).read_text())
    if not sys.stdin.readline():
        sys.exit("the parent went away before the network was ready")
    set_up_mounts(spec)
    socket.sethostname(spec["hostname"])
    log_directory = Path(spec["logs"])
    supervise([Program(program, log_directory) for program in spec["programs"]], Path(spec["status"]))


if __name__ == "__main__":
    main()
