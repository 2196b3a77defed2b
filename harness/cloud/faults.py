"""Faults that a lab is told to have: refusals, delays, dropped connections, for the calls that somebody chose."""

from __future__ import annotations

import base64
import binascii
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from harness.cloud.documents import members

__all__ = ["Fault", "Faults", "Target"]

_EKS_AUTH: Mapping[str, tuple[int, str]] = {
    "AccessDeniedException": (400, "The fault of a lab: access denied."),
    "ExpiredTokenException": (400, "The fault of a lab: expired token."),
    "InternalServerException": (500, "The fault of a lab: internal error."),
    "InvalidParameterException": (400, "The fault of a lab: invalid parameter."),
    "InvalidRequestException": (400, "The fault of a lab: invalid request."),
    "InvalidTokenException": (400, "The fault of a lab: invalid token."),
    "ResourceNotFoundException": (404, "The fault of a lab: not found."),
    "ServiceUnavailableException": (503, "The fault of a lab: unavailable."),
    "ThrottlingException": (429, "The fault of a lab: rate exceeded."),
}
"""Status and text of EKS Auth's own errors, where a fault gives none."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a call is about, as far as a fault can choose it; empty: not told."""

    service: str
    operation: str = ""
    principal: str = ""
    """ARN."""
    cluster: str = ""
    namespace: str = ""
    service_account: str = ""

    @classmethod
    def of(cls, service: str, operation: str, principal: str, parameters: Mapping[str, Any]) -> Target:
        """Return the target of a call; whose token it carries is read without being believed."""
        claims = members(_claims(parameters.get("token") if service == "eks-auth" else None).get("kubernetes.io"))
        return cls(
            service=service,
            operation=operation,
            principal=principal,
            cluster=str(parameters.get("clusterName") or parameters.get("name") or ""),
            namespace=str(claims.get("namespace") or parameters.get("namespace") or ""),
            service_account=str(
                members(claims.get("serviceaccount")).get("name") or parameters.get("serviceAccount") or ""
            ),
        )


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to the calls it is for; a chooser that is empty chooses all."""

    service: str = ""
    operation: str = ""
    principal: str = ""
    cluster: str = ""
    namespace: str = ""
    service_account: str = ""
    code: str = ""
    """Error code of the refusal; none when empty."""
    status: int = 0
    """Its HTTP status; 0: the one that EKS Auth gives the code."""
    message: str = ""
    delay: float = 0
    """Seconds to wait before anything else happens."""
    drop: bool = False
    """Whether the connection is closed without an answer."""
    times: int | None = None
    """How many calls are hit; None: all."""

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Fault:
        """Return a fault from JSON.

        Raises:
            ValueError: It has unknown members, does nothing, or is not complete.
        """
        known = {field.name for field in fields(cls)}
        if unknown := data.keys() - known:
            raise ValueError(f"a fault has no {', '.join(sorted(unknown))}")
        fault = cls(**data)
        if not (fault.code or fault.delay or fault.drop):
            raise ValueError("a fault needs a code, a delay or drop")
        if fault.delay < 0 or (fault.times is not None and fault.times < 1):
            raise ValueError("delay and times are positive")
        if not fault.code or fault.status:
            return fault
        if fault.code not in _EKS_AUTH:
            raise ValueError(f"{fault.code} is no error of EKS Auth: say which status it has")
        status, text = _EKS_AUTH[fault.code]
        return replace(fault, status=status, message=fault.message or text)

    def hits(self, target: Target) -> bool:
        """Tell whether a call is one of those that were chosen."""
        return all(
            getattr(self, name) in {"", getattr(target, name)} for name in (field.name for field in fields(target))
        )


class Faults:
    """The faults that are set, in order; safe for use by several threads."""

    def __init__(self) -> None:
        """Begin without any."""
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def __bool__(self) -> bool:
        """Tell whether any are set."""
        return bool(self._faults)

    def set(self, faults: list[Fault]) -> None:
        """Replace all."""
        with self._lock:
            self._faults = list(faults)

    def take(self, target: Target) -> Fault | None:
        """Return the first fault that hits a call, and count it."""
        with self._lock:
            for index, fault in enumerate(self._faults):
                if not fault.hits(target):
                    continue
                if fault.times is not None:
                    left = replace(fault, times=fault.times - 1)
                    self._faults[index : index + 1] = [left] if left.times else []
                return fault
        return None


def _claims(token: Any) -> Mapping[str, Any]:
    payload = token.split(".")[1] if isinstance(token, str) and token.count(".") == 2 else ""
    try:
        return members(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))))
    except (binascii.Error, RecursionError, ValueError):
        return {}
