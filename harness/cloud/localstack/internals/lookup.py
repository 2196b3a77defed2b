"""How LocalStack's names are found: when they are used, since they are not installed where this is only read."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from typing import Any

Context = Any
"""localstack.aws.api.RequestContext"""
Handler = Callable[[Any, Context, Any], None]
TRANSPORT = "podid.transport"
BODY_FOLLOWS = "podid.body-follows"
REFUSED = "podid.refused"
"""Names in a request's environment."""
CALL = "podid_call"
"""Attribute of the context that carries our own state."""


@cache
def lookup(module: str, name: str) -> Any:
    """Return what LocalStack never replaces once it is there: a function, a class, a table of stores."""
    return getattr(importlib.import_module(module), name)
