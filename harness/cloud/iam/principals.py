"""Who calls: the names policies know a caller by, and the context keys that follow from it (``iam.md`` 4 and 8.1)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.cloud.iam.values import GRADES, ContextValue, Grade
from harness.cloud.ports import Principal

__all__ = ["Caller", "PrincipalElement", "caller_keys", "is_caller_key"]

_ROLE = re.compile(r"arn:([^:]*):iam::([^:]*):role/(?:.*/)?([^/]+)")
_SESSION = re.compile(r"arn:([^:]*):sts::([^:]*):assumed-role/([^/]+)/.*")
_PATHLESS = "role-without-path"
"""Pseudo kind under which roles are also filed, for sessions whose role's path is not known (IAM-PRIN-04)."""
_TAG_PREFIX = "aws:principaltag/"
_CALLER_KEYS = frozenset(
    {
        "aws:principalarn",
        "aws:principalaccount",
        "aws:principaltype",
        "aws:principalisawsservice",
        "aws:principalservicename",
        "aws:principalservicenameslist",
        "aws:userid",
        "aws:username",
    }
)


@dataclass(frozen=True, slots=True)
class Caller:
    """A caller as Principal elements see it."""

    grades: Mapping[str, Grade]
    """Names, with their kind in front, and how good a match each is; none for anonymous callers."""
    names: frozenset[str]
    """The same names."""

    @classmethod
    def of(cls, principal: Principal, *, provider: str = "") -> Caller:
        """Return the names of a principal.

        Args:
            principal: The principal.
            provider: For web identities the ARN of their OIDC provider.
        """
        names: list[tuple[str, str, Grade]] = []
        if principal.kind == "service":
            names = [("Service", principal.service, "service")]
        elif principal.kind == "web-identity":
            names = [("Federated", provider, "federated")]
        elif principal.kind == "user":
            names = [("AWS", principal.arn, "direct"), ("AWS", principal.user_id, "direct")]
        elif principal.kind == "federated-user":
            names = [("AWS", principal.arn, "direct")]
        elif principal.kind == "role-session":
            # A role whose session is not known is nobody's session in particular.
            is_session = principal.arn != principal.role_arn
            names = [("AWS", principal.arn, "direct")] if is_session else []
            names.append(("AWS", principal.user_id.partition(":")[0], "role"))
            if principal.role_arn:
                names.append(("AWS", principal.role_arn, "role"))
            else:
                names.append((_PATHLESS, _role_of(principal.arn), "role"))
        if principal.kind in {"root", "user", "role-session", "federated-user"}:
            partition = [*principal.arn.split(":"), ""][1]
            names.append(("AWS", principal.account, "account"))
            names.append(("AWS", f"arn:{partition}:iam::{principal.account}:root", "account"))
        grades: dict[str, Grade] = {_filed(kind, name): grade for kind, name, grade in names if name}
        return cls(grades, frozenset(grades))


@dataclass(frozen=True, slots=True)
class PrincipalElement:
    """A compiled Principal or NotPrincipal."""

    anyone: bool
    names: frozenset[str]
    """Everybody listed, with the kind in front."""
    inverted: bool

    @classmethod
    def of(cls, names: Mapping[str, Sequence[str]], *, inverted: bool = False) -> PrincipalElement:
        """Compile the names of each kind; no kind at all is nobody."""
        aws = names.get("AWS", ())
        filed = {_filed(kind, text) for kind, texts in names.items() for text in texts}
        filed |= {_filed(_PATHLESS, ":".join(found.groups())) for found in map(_ROLE.fullmatch, aws) if found}
        return cls("*" in aws, frozenset(filed), inverted)

    def grade(self, caller: Caller, *, is_deny: bool, has_boundary: bool) -> Grade:
        """Return the best grade in which a statement with this element is about a caller.

        Args:
            caller: Who calls.
            is_deny: Whether the statement denies.
            has_boundary: Whether a permissions boundary limits the caller (IAM-PRIN-10).
        """
        found = self._found(caller)
        if not self.inverted:
            return found
        if found != "none":
            # A principal with a boundary is hit although it is listed (IAM-PRIN-10).
            return "direct" if is_deny and has_boundary else "none"
        # Anonymous callers get in by a star only (IAM-EVAL-08).
        return "direct" if is_deny or caller.names else "none"

    def _found(self, caller: Caller) -> Grade:
        if self.anyone:
            return "direct"
        found = self.names & caller.names
        if len(found) > 1:
            return max([caller.grades[name] for name in found], key=GRADES.index)
        for name in found:
            return caller.grades[name]
        return "none"


def _filed(kind: str, name: str) -> str:
    # One text instead of a pair: texts remember their hash, and every decision about a resource policy needs it.
    return f"{kind} {name}"


def _role_of(session_arn: str) -> str:
    found = _SESSION.fullmatch(session_arn)
    return ":".join(found.groups()) if found else ""


def is_caller_key(key: str) -> bool:
    """Tell whether a lower-cased key follows from the principal, so that nothing in a call can set it."""
    return key in _CALLER_KEYS or key.startswith(_TAG_PREFIX)


def caller_keys(principal: Principal) -> dict[str, ContextValue]:
    """Return the lower-cased keys of section 8.1 that follow from the principal; absent ones are not in the map."""
    keys: dict[str, ContextValue] = {"aws:principalisawsservice": "false"}
    if principal.kind == "service":
        return {
            "aws:principalisawsservice": "true",
            "aws:principalservicename": principal.service,
            "aws:principalservicenameslist": (principal.service,),
        }
    if principal.kind == "anonymous":
        return keys | {"aws:principalaccount": "anonymous", "aws:principaltype": "Anonymous"}
    if principal.kind == "web-identity":
        return keys
    keys["aws:principalaccount"] = principal.account
    if principal.user_id:
        keys["aws:userid"] = principal.user_id
    keys |= {_TAG_PREFIX + key.lower(): value for key, value in principal.tags.items()}
    if principal.kind == "root":
        return keys | {"aws:principalarn": principal.arn, "aws:principaltype": "Account"}
    if principal.kind == "user":
        name = principal.arn.rpartition("/")[2]
        return keys | {"aws:principalarn": principal.arn, "aws:principaltype": "User", "aws:username": name}
    is_federated = principal.kind == "federated-user"
    arn, kind = (principal.arn, "FederatedUser") if is_federated else (_role_arn(principal), "AssumedRole")
    return keys | {"aws:principalarn": arn, "aws:principaltype": kind}


def _role_arn(principal: Principal) -> str:
    """Return the ARN of a session's role, never that of the session; without the path if that is not known."""
    found = _SESSION.fullmatch(principal.arn)
    if principal.role_arn or not found:
        return principal.role_arn
    partition, account, name = found.groups()
    return f"arn:{partition}:iam::{account}:role/{name}"
