"""Ending in the middle: builds that an error ends at once, and a clean-up that nothing ends."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness.cluster.native.sandbox import MARK, marked_processes

__all__ = ["builds", "without_interruption"]


@contextlib.contextmanager
def builds(mark: Path, interrupt: Callable[[], None]) -> Generator[ThreadPoolExecutor]:
    """Yield a pool for builds whose processes (go, buildah, uv, kind) carry the lab's mark; end them on an error."""
    before = os.environ.get(MARK)
    os.environ[MARK] = str(mark)
    pool = ThreadPoolExecutor()
    try:
        yield pool
    except BaseException:
        interrupt()
        # The threads wait for these processes: without them they end at once.
        for pid in marked_processes(mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        os.environ.pop(MARK) if before is None else os.environ.update({MARK: before})


@contextlib.contextmanager
def without_interruption() -> Generator[None]:
    """Finish cleaning up although Ctrl-C is pressed again; a third time is a kill -9's business."""
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
