"""Runs in the interpreter of a subject in Python, before it: moves its clocks, breaks it, looks at what it holds.

Python imports this because its directory is in ``PYTHONPATH``; :mod:`harness.subject.interpreter` is its other end. It
knows nothing of the subject.
"""

from __future__ import annotations

import gc
import json
import os
import re
import socket
import sys
import threading
import time
from collections import Counter
from types import FrameType
from typing import Any

_real_wall, _real_monotonic = time.time, time.monotonic
_ahead = {"wall": 0.0, "monotonic": 0.0}
_calls: Counter[str] = Counter()
_whole: dict[tuple[str, str], Any] = {}


def _advance(wall: float, monotonic: float) -> None:
    _ahead["wall"] += wall
    _ahead["monotonic"] += monotonic


def _find(pattern: str) -> list[str]:
    """Return all texts of a form that anything in the process refers to."""
    gc.unfreeze()  # what an agent keeps from the collector's eyes is kept all the same
    gc.collect()
    wanted, wanted_bytes = re.compile(pattern), re.compile(pattern.encode())
    found: set[str] = set()
    seen: set[int] = set()
    waiting: list[Any] = gc.get_objects()
    own = {id(waiting), id(seen), id(found)}
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or id(thing) in own:
            continue
        seen.add(id(thing))
        if isinstance(thing, str):
            found.update(wanted.findall(thing))
        elif isinstance(thing, bytes | bytearray):
            found.update(match.decode() for match in wanted_bytes.findall(thing))
        else:
            # Not all containers are known to the collector: those of plain values are reached through others.
            waiting.extend(gc.get_referents(thing))
    return sorted(found)


def _blocks() -> int:
    """Return how many pieces of memory are in use."""
    gc.collect()
    return sys.getallocatedblocks()


def _count(frame: FrameType, event: str, _argument: object) -> None:
    if event == "call":
        code = frame.f_code
        _calls[f"{frame.f_globals.get('__name__')}.{code.co_qualname}"] += 1


def _called(names: list[str]) -> dict[str, int]:
    return {name: _calls[name] for name in names}


def _break(module: str, name: str, text: str) -> None:
    def broken(*_arguments: object, **_more: object) -> None:
        raise RuntimeError(text)

    _whole[module, name] = getattr(sys.modules[module], name)
    setattr(sys.modules[module], name, broken)


def _mend(module: str, name: str) -> None:
    setattr(sys.modules[module], name, _whole.pop((module, name)))


_COMMANDS = {
    "advance": _advance,
    "find": _find,
    "blocks": _blocks,
    "called": _called,
    "break": _break,
    "mend": _mend,
}


def _serve(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        with connection, connection.makefile("rw") as stream:
            command, arguments = json.loads(stream.readline())
            json.dump(_COMMANDS[command](*arguments), stream)


def _start(path: str) -> None:
    time.time = lambda: _real_wall() + _ahead["wall"]
    time.monotonic = lambda: _real_monotonic() + _ahead["monotonic"]
    if os.environ.get("PODID_HOOK_COUNTS"):
        sys.setprofile(_count)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    threading.Thread(target=_serve, args=(listener,), daemon=True).start()


if _path := os.environ.get("PODID_HOOK"):
    _start(_path)
