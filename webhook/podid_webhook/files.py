"""Notice changed files, however they change.

By reading them: two or three small files, ten times a second, cost a few thousandths of a core, and no kind of
change can be missed. File events would need one watch on the file, one on its directory and one on each symlink's
target to see an in-place write, a rename and the ``..data`` swap of a mounted ConfigMap, and a poll all the same for
the events that get lost (WHK-702, WHK-707, WHK-708, WHK-822, WHK-825).
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

POLL_INTERVAL = 0.1

_log = logging.getLogger(__name__)

Contents = tuple[bytes | None, ...]
"""The content of each file, None for one that does not exist."""


def read_files(paths: Sequence[Path]) -> Contents:
    """Read all the files.

    Raises:
        OSError: If a file exists and cannot be read.
    """
    return tuple(_read(path) for path in paths)


async def watch_files(paths: Sequence[Path], seen: Contents, changed: Callable[[Contents], None]) -> None:
    """Report each new content of a group of files, forever.

    A content counts once two readings in a row agree on it: a file that is being written, or a certificate without
    its new key, is not reported.

    Args:
        paths: The files that belong together.
        seen: What the caller knows already.
        changed: Called with the content of all the files, in their order, when that of any has changed.
    """
    previous = seen
    failure = ""
    while True:
        await asyncio.sleep(POLL_INTERVAL)
        try:
            current = read_files(paths)
        except OSError as error:
            if str(error) != failure:
                failure = str(error)
                _log.error("cannot read: %s; the previous content stays in use", error)
            continue
        failure = ""
        if current == previous and current != seen:
            seen = current
            changed(current)
        previous = current


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
