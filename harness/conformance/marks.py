"""How a test says which requirements it decides."""

from __future__ import annotations

import pytest

__all__ = ["requirement"]


def requirement(*identifiers: str) -> pytest.MarkDecorator:
    """Bind a test to the requirements that it decides.

    Args:
        identifiers: IDs as written in ``suites/requirements/*.yaml``; literals, so that a search finds them.
    """
    return pytest.mark.requirement(*identifiers)
