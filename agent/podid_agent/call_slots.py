"""A bound on calls under way, first come first served, requests before renewals (AGT-428)."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Literal

__all__ = ["CallSlots", "Trigger"]

Trigger = Literal["request", "renewal"]
"""Why a call is made."""


class CallSlots:
    """A semaphore with two queues."""

    def __init__(self, slots: int) -> None:
        """Let ``slots`` holders in at once."""
        self._free = slots
        self._queues: dict[Trigger, deque[asyncio.Future[None]]] = {"request": deque(), "renewal": deque()}

    async def acquire(self, trigger: Trigger) -> None:
        """Wait for a slot; give it back with :meth:`release`."""
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queues[trigger].append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release()
            raise

    def release(self) -> None:
        """Hand the slot to the next in line."""
        for queue in self._queues.values():
            while queue:
                turn = queue.popleft()
                if not turn.done():
                    turn.set_result(None)
                    return
        self._free += 1
