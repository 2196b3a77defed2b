"""What ended in a lab while it was in use: from then on nothing that is observed says anything about a subject."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import PodidError

__all__ = ["Loss", "Losses"]

Status = Mapping[str, Mapping[str, Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class Loss:
    """A program that ended, whether it was started again or not: AWS would have forgotten everything."""

    place: str
    program: str
    exits: Sequence[int]
    """How it ended lately, as far as that is known: exit codes, and signals as negative numbers."""

    @property
    def log(self) -> str:
        """Name of its log in the lab."""
        return f"{self.place}/{self.program}"

    def __str__(self) -> str:
        """Return which program ended, and how."""
        how = f" ({_how(self.exits[-1])})" if self.exits else ""
        return f"{self.program} of {self.place} ended while the lab was in use{how}"


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


class Losses:
    """Compares what runs with what ran when somebody began to depend on it."""

    def __init__(self, status: Callable[[], Status]) -> None:
        """Begin with nothing that must run.

        Args:
            status: Returns place → program → ``running``, ``exits`` and, where a supervisor counts them, ``starts``.
        """
        self._status = status
        self._starts: dict[tuple[str, str], int] = {}
        """Place and program → how often it may have been started."""

    def begin(self) -> None:
        """Let everything that runs by now have to go on; what was noted before stays noted."""
        for place, programs in self._status().items():
            for name, state in programs.items():
                self._starts.setdefault((place, name), _starts(state))

    def expect_restart(self, place: str, program: str) -> None:
        """Let a program begin anew once more than so far: whoever is about to end it says so first."""
        if self._starts.get((place, program)):
            self._starts[place, program] += 1

    def found(self) -> list[Loss]:
        """Return what ended.

        Raises:
            PodidError: What the lab stands on does not answer.
        """
        now = {(place, name): state for place, programs in self._status().items() for name, state in programs.items()}
        losses: list[Loss] = []
        for key in sorted(self._starts.keys() | now.keys()):
            state = now.get(key, {"running": False, "exits": []})
            is_another = _starts(state) != self._starts.get(key, _starts(state))
            if is_another or not state["running"]:
                losses.append(Loss(*key, list(state["exits"])))
        return losses

    def tell(self) -> str | None:
        """Return what ended, in words; None while all is well."""
        try:
            return "; ".join(map(str, self.found())) or None
        except PodidError as error:
            return str(error)


def _starts(state: Mapping[str, Any]) -> int:
    """Return how often a program was started; 0 where nobody would start it again."""
    return int(state.get("starts", 0))
