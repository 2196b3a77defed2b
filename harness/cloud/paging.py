"""Pages with opaque continuation tokens, as AWS's list calls give them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import TypeVar

__all__ = ["InvalidTokenError", "Pager"]

T = TypeVar("T")


class InvalidTokenError(ValueError):
    """A continuation token that is damaged, foreign, or was given for other parameters."""


class Pager:
    """Cuts sorted items into pages; safe while items come and go between two pages."""

    def __init__(self, secret: str) -> None:
        """Keep the secret.

        Args:
            secret: Signs tokens, so that those of another process or made up ones are refused.
        """
        self._secret = secret.encode()

    def page(
        self,
        items: Sequence[T],
        key: Callable[[T], str],
        *,
        query: str,
        size: int,
        token: str | None,
    ) -> tuple[list[T], str | None]:
        """Return one page and the token of the next, or None behind the last.

        Args:
            items: All items, in ascending order of ``key``.
            key: Unique text of an item.
            query: Everything else that was asked; a token is good for the same question only.
            size: Items a page, at least 1.
            token: Token of an earlier page, or None for the first.

        Raises:
            InvalidTokenError: The token is not one of ours for this query.
        """
        after = self._open(token, query) if token is not None else None
        start = 0 if after is None else bisect_right(items, after, key=key)
        page = list(items[start : start + size])
        return page, self._seal(key(page[-1]), query) if len(items) > start + size else None

    def _signature(self, after: str, query: str) -> str:
        return hmac.new(self._secret, json.dumps([after, query]).encode(), hashlib.sha256).hexdigest()[:32]

    def _seal(self, after: str, query: str) -> str:
        return base64.urlsafe_b64encode(json.dumps([after, self._signature(after, query)]).encode()).decode()

    def _open(self, token: str, query: str) -> str:
        try:
            after, signature = json.loads(base64.b64decode(token.encode(), altchars=b"-_", validate=True))
            is_ours = hmac.compare_digest(self._signature(str(after), query), str(signature))
        except (binascii.Error, RecursionError, TypeError, ValueError) as error:
            raise InvalidTokenError(token) from error
        if not is_ours:
            raise InvalidTokenError(token)
        return str(after)
