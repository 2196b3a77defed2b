"""What is going on: phases that may overlap, each with its step, n of m and elapsed time.

A live table on a terminal, plain lines without control characters elsewhere, and with ``CI``, ``NO_COLOR`` or a dumb
terminal (HRN-PROG-04). Everything goes to standard error.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

__all__ = ["Phase", "Progress"]

_SILENCE_SECONDS = 15
_TICK_SECONDS = 1


@dataclass(slots=True)
class Phase:
    """One phase; reported by the code that does its work."""

    name: str
    total: int
    _progress: Progress = field(repr=False)
    done: int = 0
    text: str = ""
    outcome: str = ""
    """Empty while it runs, then ``done`` or ``failed``."""
    started: float = field(default_factory=time.monotonic)
    ended: float = 0.0

    def step(self, text: str) -> None:
        """Say what the phase does now; the step before is done.

        Args:
            text: What is being done, such as ``building etcd v3.6.6``.
        """
        self.done = self.done + 1 if self.text else 0
        self.text = text
        self._progress.report(self)

    def note(self, text: str) -> None:
        """Say something that a person should read, once."""
        self._progress.say(f"{self.elapsed:6.1f} s  {self.name:12} {text}")

    @property
    def elapsed(self) -> float:
        """Seconds since the start, up to the end."""
        return (self.ended or time.monotonic()) - self.started

    def line(self) -> str:
        """Say how the phase is doing."""
        if self.outcome or not self.text:
            return f"{self.name:12} {self.outcome or 'started'}"
        count = f"[{min(self.done + 1, self.total)}/{self.total}] " if self.total else ""
        return f"{self.name:12} {count}{self.text}"


class Progress:
    """All phases of one command; use as a context manager."""

    def __init__(self, stream: TextIO | None = None) -> None:
        """Choose the form of the output.

        Args:
            stream: Where to write; standard error by default.
        """
        self._stream = stream or sys.stderr
        self._phases: list[Phase] = []
        self._lock = threading.RLock()
        self._spoke = time.monotonic()
        self._stopped = threading.Event()
        self._is_quiet = False
        self._live: Live | None = None
        if self._stream.isatty() and not is_plain(os.environ):
            self._live = Live(
                console=Console(file=self._stream),
                get_renderable=self._table,
                refresh_per_second=8,
                transient=True,
                redirect_stdout=False,
            )
        self._heart = threading.Thread(target=self._beat, name="progress", daemon=True)

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        self._heart.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stopped.set()
        self._heart.join()
        if self._live:
            self._live.stop()
        if line := self.summary():
            self.say(line)

    @contextlib.contextmanager
    def quiet(self) -> Generator[None]:
        """Leave the terminal to somebody else: nothing is drawn or repeated meanwhile."""
        self._is_quiet = True
        if self._live:
            self._live.stop()
        try:
            yield
        finally:
            if self._live:
                self._live.start()
            self._is_quiet = False

    @contextlib.contextmanager
    def phase(self, name: str, total: int = 0) -> Generator[Phase]:
        """Run a phase; phases of several threads may overlap.

        Args:
            name: One or two words.
            total: Number of steps, or 0 if nobody knows yet.
        """
        phase = Phase(name, total, self)
        with self._lock:
            self._phases.append(phase)
        self.report(phase)
        try:
            yield phase
        except BaseException:
            self._end(phase, "failed")
            raise
        self._end(phase, "done")

    def report(self, phase: Phase) -> None:
        """Show a phase's news."""
        if not self._live:
            self.say(f"{phase.elapsed:6.1f} s  {phase.line()}")

    def summary(self, longest: int = 6) -> str:
        """Return the slowest phases in one line, slowest first; empty if none took a second."""
        slow = [phase for phase in tuple(self._phases) if phase.elapsed >= 1]
        slowest = sorted(slow, key=lambda phase: phase.elapsed, reverse=True)[:longest]
        return "slowest: " + ", ".join(f"{phase.name} {phase.elapsed:.0f} s" for phase in slowest) if slowest else ""

    def _end(self, phase: Phase, outcome: str) -> None:
        phase.ended, phase.outcome = time.monotonic(), outcome
        self.say(f"{phase.elapsed:6.1f} s  {phase.line()}", style="green" if outcome == "done" else "red")

    def say(self, line: str, style: str = "") -> None:
        """Print a line that stays."""
        with self._lock:
            self._spoke = time.monotonic()
            if self._live:
                self._live.console.print(Text(line, style=style))
            else:
                plain = "".join(char if char.isprintable() else " " for char in line)
                print(plain, file=self._stream, flush=True)

    def _beat(self) -> None:
        """Never be silent for long: a silent program looks like a hanging one."""
        while not self._stopped.wait(_TICK_SECONDS):
            if self._live or self._is_quiet or time.monotonic() - self._spoke < _SILENCE_SECONDS:
                continue
            for phase in self._running():
                self.report(phase)

    def _running(self) -> list[Phase]:
        # No lock: rich calls this with its own lock held, and say() would take the two in the other order.
        return [phase for phase in tuple(self._phases) if not phase.outcome]

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for phase in self._running():
            table.add_row(
                f"{phase.elapsed:6.0f} s", Text(phase.line(), style="cyan", no_wrap=True, overflow="ellipsis")
            )
        return table


def is_plain(environment: Mapping[str, str]) -> bool:
    """Tell whether plain lines are wanted although there is a terminal."""
    return bool(environment.get("CI") or environment.get("NO_COLOR") or environment.get("TERM") == "dumb")
