"""Ctrl-C and SIGTERM: the first ends a run in order, with clean-up and reports; the second ends it at once."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

__all__ = ["Interruption", "exit_code_of"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def exit_code_of(number: int) -> int:
    """Return the exit code of a program that a signal ended: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + number


class Interruption:
    """Handles both signals while a run lasts; in the process that the person started."""

    def __init__(self, what_is_left: Callable[[], str]) -> None:
        """Keep what to say when there is no time to clean up.

        Args:
            what_is_left: Says what stays behind and how to remove it.
        """
        self._what_is_left = what_is_left
        self._has_begun = False
        self._before: dict[int, object] = {}

    def watch(self) -> None:
        """Begin to handle them."""
        self._before = {number: signal.signal(number, self._handle) for number in _SIGNALS}

    def stop_watching(self) -> None:
        """Handle them as before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType] - what signal() returned
        self._before = {}

    def _handle(self, number: int, _frame: FrameType | None) -> NoReturn:
        if self._has_begun:
            print(f"\npodid: stopped at once; {self._what_is_left()}", file=sys.stderr, flush=True)
            # Nothing that waits for a connection or a process may hold this up.
            os._exit(exit_code_of(number))
        self._has_begun = True
        raise KeyboardInterrupt
