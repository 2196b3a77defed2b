"""Encoded authorization messages: what EC2 tells of a denial only to whoever may decode it (``iam.md`` 14.2)."""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from harness.cloud.iam.model import Check, ContextValue, Decision
from harness.cloud.ports import Ids, Principal, Refusal

__all__ = ["AuthorizationMessages", "denial_message"]

_NONCE = 12
_HEX = "0123456789abcdef"


class AuthorizationMessages:
    """Encodes messages and decodes its own; another account's, or another lab's, are unreadable."""

    def __init__(self, ids: Ids) -> None:
        """Make a key."""
        self._ids = ids
        self._cipher = AESGCM(bytes.fromhex(ids.letters(64, _HEX)))

    def encode(self, message: Mapping[str, object], account: str) -> str:
        """Return a message as text that only :meth:`decode` for the same account can read."""
        nonce = bytes.fromhex(self._ids.letters(2 * _NONCE, _HEX))
        plain = zlib.compress(json.dumps(message, separators=(",", ":")).encode())
        return base64.urlsafe_b64encode(nonce + self._cipher.encrypt(nonce, plain, account.encode())).decode()

    def decode(self, text: str, account: str) -> str:
        """Return a message as JSON.

        Raises:
            Refusal: It is none, or of another account.
        """
        try:
            data = base64.b64decode(text, altchars=b"-_", validate=True)
            plain = self._cipher.decrypt(data[:_NONCE], data[_NONCE:], account.encode())
        except (InvalidTag, ValueError, binascii.Error) as error:
            raise Refusal("InvalidAuthorizationMessageException", "Message is not valid.", 400) from error
        return zlib.decompress(plain).decode()


def denial_message(
    principal: Principal, check: Check, decision: Decision, context: Mapping[str, ContextValue]
) -> dict[str, object]:
    """Return what AWS says about a denial: who asked what, with which keys, and the statement that denied."""
    matched = [{"statementId": decision.sid, "effect": "DENY"}] if decision.explicit else []
    conditions = [
        {"key": key, "values": {"items": [{"value": one} for one in ((value,) if isinstance(value, str) else value)]}}
        for key, value in sorted(context.items())
    ]
    return {
        "allowed": False,
        "explicitDeny": decision.explicit,
        "matchedStatements": {"items": matched},
        "failures": {"items": []},
        "context": {
            "principal": {"id": principal.user_id, "arn": principal.arn},
            "action": decision.action,
            "resource": check.resource,
            "conditions": {"items": conditions},
        },
    }
