"""Credentials of a pod, and their JSON form (AGT-230 to AGT-237)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime

__all__ = ["PodCredentials"]


@dataclass(frozen=True, slots=True, eq=False)
class PodCredentials:
    """What EKS Auth granted for a token."""

    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    session_token: str = field(repr=False)
    account_id: str
    """May be empty."""

    expires_at: float
    """Seconds since the epoch."""

    role_arn: str = ""
    role_id: str = ""
    association_id: str = ""
    body: bytes = field(init=False, repr=False)
    """The JSON that SDKs read, made once (AGT-1106)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "body", self._to_json())

    def _to_json(self) -> bytes:
        members = {
            "AccessKeyId": self.access_key_id,
            "SecretAccessKey": self.secret_access_key,
            "Token": self.session_token,
            "AccountId": self.account_id,
            "Expiration": _rfc3339(self.expires_at),
        }
        if not self.account_id:
            del members["AccountId"]
        text = json.dumps(members, ensure_ascii=False, separators=(",", ":"))
        # Go's encoder writes these so that JSON can stand in HTML (AGT-235).
        for character in "&<>\u2028\u2029":
            text = text.replace(character, f"\\u{ord(character):04x}")
        return text.encode()


def _rfc3339(seconds: float) -> str:
    """Return an instant in UTC, cut to milliseconds, without trailing zeros (AGT-234)."""
    milliseconds = int(seconds * 1000)
    whole = datetime.fromtimestamp(milliseconds // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f".{milliseconds % 1000:03d}".rstrip("0").rstrip(".")
    return f"{whole}{fraction}Z"
