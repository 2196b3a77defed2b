"""What scenarios stand on, and whether it still holds: without it, a test says nothing about the subject."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator

__all__ = ["Ground"]


class Ground:
    """Asked at the end of every test; once lost, it stays lost for the run."""

    def __init__(self) -> None:
        """Begin with nothing that could give way."""
        self._looks: list[Callable[[], str | None]] = []
        self._lost: str | None = None

    @contextlib.contextmanager
    def watching(self, look: Callable[[], str | None]) -> Generator[None]:
        """Depend on something during the body: another attempt at a test stands on fixtures of its own.

        Args:
            look: Returns why it cannot be relied on any more.
        """
        self._looks.append(look)
        try:
            yield
        finally:
            self._looks.remove(look)

    def lost(self) -> str | None:
        """Return why nothing that is observed counts any more, None while all is well."""
        if self._lost is None:
            self._lost = next((reason for look in self._looks if (reason := look())), None)
        return self._lost
