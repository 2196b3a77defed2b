"""Takes secrets out of everything that is written down.

There is one door: texts and data enter records, reports and diagnostics only through a :class:`Redactor`. A secret is
replaced by its class and four hex digits of a keyed hash, so that equal secrets stay recognisable within a run and
nowhere else. The key is never stored.
"""

from __future__ import annotations

import base64
import hmac
import json
import re
import secrets
from collections import Counter
from collections.abc import Mapping
from typing import Any

__all__ = ["Redactor"]

_BASE64URL = r"[A-Za-z0-9_-]"
_JWT = re.compile(rf"eyJ{_BASE64URL}{{10,}}\.(eyJ{_BASE64URL}*)\.{_BASE64URL}*")
_KEY_ID = re.compile(r"\b(?:AKIA|ASIA|LKIA|LSIA)[A-Z0-9]{12,124}\b")
_PRIVATE_KEY = re.compile(r"-----BEGIN ([A-Z ]*)PRIVATE KEY-----.*?(?:-----END \1PRIVATE KEY-----|\Z)", re.DOTALL)
_SESSION_TOKEN = re.compile(r"\b(?:IQoJ|FwoG|FQoG|AQoE|AQoD)[A-Za-z0-9+/_%-]{16,}={0,2}")
_FORGE_TOKEN = re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|ls-[A-Za-z0-9-]{30,})")
_SIGNATURE = re.compile(r"((?:X-Amz-)?Signature[\"']?\s*[=:]\s*[\"']?)([0-9a-f]{64})", re.IGNORECASE)
# A value behind a name that says what it is: JSON, YAML, environment, INI, HTTP header, query.
_NAMED = re.compile(
    r"((?:secret_?access_?key|session_?token|security-?_?token|auth(?:orization)?_?token|client-key-data|password"
    r"|X-Amz-Security-Token)[\"']?\s*[=:]\s*[\"']?)([^\s\"',;&}]{8,})",
    re.IGNORECASE,
)
_BEARER = re.compile(
    r"((?:authorization[\"']?\s*[=:]\s*[\"']?)?\b(?:bearer|basic)\s+)([A-Za-z0-9._~+/=-]{8,})", re.IGNORECASE
)
# A secret access key without a name: 40 characters of base64 with capitals, small letters and digits.
_BARE_SECRET = re.compile(
    r"(?<![A-Za-z0-9/+=])(?=[A-Za-z0-9/+]*[A-Z])(?=[A-Za-z0-9/+]*[a-z])(?=[A-Za-z0-9/+]*[0-9])[A-Za-z0-9/+]{40}"
    r"(?![A-Za-z0-9/+=])"
)
# Of a container; variables that name a file or an address are none.
_SECRET_VARIABLE = re.compile(r"(?:PASSWORD|SECRET_ACCESS_KEY|SECRET_KEY|API_KEY|TOKEN|CANARY)$")
_SECRET_MEMBERS = {
    "secretaccesskey": "aws-secret",
    "awssecretaccesskey": "aws-secret",
    "sessiontoken": "session-token",
    "awssessiontoken": "session-token",
    "xamzsecuritytoken": "session-token",
    "secretstring": "secret-value",
    "secretbinary": "secret-value",
    "password": "password",
    "clientkeydata": "private-key",
}


class Redactor:
    """Removes secrets, and counts what it removed by class."""

    def __init__(self) -> None:
        """Choose this run's key."""
        self._key = secrets.token_bytes(32)
        self.counts: Counter[str] = Counter()

    def text(self, text: str) -> str:
        """Return a text without secrets, and without what UTF-8 cannot hold: subjects print anything."""
        text = text.encode("utf-8", "replace").decode()
        text = _PRIVATE_KEY.sub(lambda match: self._mark("private-key", match[0]), text)
        text = _JWT.sub(self._jwt, text)
        text = _SESSION_TOKEN.sub(lambda match: self._mark("session-token", match[0]), text)
        text = _SIGNATURE.sub(lambda match: match[1] + self._mark("signature", match[2]), text)
        text = _NAMED.sub(self._named, text)
        text = _BEARER.sub(lambda match: match[1] + self._mark("bearer-token", match[2]), text)
        text = _FORGE_TOKEN.sub(lambda match: self._mark("forge-token", match[0]), text)
        text = _BARE_SECRET.sub(lambda match: self._mark("aws-secret", match[0]), text)
        return _KEY_ID.sub(self._key_id, text)

    def data(self, value: Any) -> Any:
        """Return JSON data without secrets; members whose name says what they hold lose their value."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.data(entry) for entry in value]  # pyright: ignore[reportUnknownVariableType]
        if isinstance(value, Mapping):
            members: dict[str, Any] = dict(value)  # pyright: ignore[reportUnknownArgumentType]
            if members.get("kind") == "Secret":
                members = self._kubernetes_secret(members)
            if _SECRET_VARIABLE.search(str(members.get("name", ""))) and isinstance(members.get("value"), str):
                members["value"] = self._once("variable", members["value"])
            return {self.text(str(name)): self._member(str(name), entry) for name, entry in members.items()}
        return value

    def _member(self, name: str, value: Any) -> Any:
        secret_class = _SECRET_MEMBERS.get(re.sub(r"[^a-z]", "", name.lower()))
        if secret_class and isinstance(value, str):
            return self._once(secret_class, value)
        return self.data(value)

    def _once(self, secret_class: str, value: str) -> str:
        return self._mark(secret_class, value) if value and not value.startswith("«") else value

    def _kubernetes_secret(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Keep the keys and lengths of a Secret; it may also stand, whole, in its last-applied annotation."""
        hidden = dict(manifest)
        for member in ("data", "stringData"):
            if isinstance(hidden.get(member), Mapping):
                values: dict[str, Any] = hidden[member]
                self.counts["kubernetes-secret"] += len(values)
                hidden[member] = {key: f"«{len(str(value))} characters»" for key, value in values.items()}
        metadata = dict(hidden.get("metadata") or {})
        metadata.pop("annotations", None)
        metadata.pop("managedFields", None)
        return hidden | {"metadata": metadata}

    def _mark(self, secret_class: str, secret: str) -> str:
        self.counts[secret_class] += 1
        return f"«{secret_class}:{hmac.digest(self._key, secret.encode(), 'sha256').hex()[:4]}»"

    def _named(self, match: re.Match[str]) -> str:
        if match[2].startswith("«") or "«" in match[2]:
            return match[0]
        return match[1] + self._mark("named-secret", match[2])

    def _key_id(self, match: re.Match[str]) -> str:
        self.counts["access-key-id"] += 1
        return f"{match[0][:4]}…{match[0][-4:]}"

    def _jwt(self, match: re.Match[str]) -> str:
        """Keep what a token says and drop what makes it valid."""
        mark = self._mark("jwt", match[0])
        try:
            claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(match[1] + "=" * (-len(match[1]) % 4)))
        except ValueError:
            return mark
        shown = {name: claims[name] for name in ("iss", "sub", "aud") if name in claims}
        return f"{mark[:-1]} {' '.join(f'{name}={_words(value)}' for name, value in shown.items())}»"


def _words(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)  # pyright: ignore[reportUnknownArgumentType]
