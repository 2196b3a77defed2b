"""What scenarios make in an account of AWS and in a cluster, read from their sources; nothing is run (HRN-EXT-05).

A scenario makes everything through :class:`harness.lab.account.AwsAccount` and :class:`harness.kube.Kube`, whose
methods name what is made by their first argument; the operations of AWS are those that the methods behind them call.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

from harness.account_tenancy import is_allowed
from harness.lab.account import AwsAccount

__all__ = ["AccountPlan", "read_plan"]

_MAKES: Mapping[str, tuple[str, int | None]] = {
    "bucket": ("bucket", 0),
    "policy": ("policy", 0),
    "role": ("role", 0),
    "secret": ("secret", 0),
    "table": ("table", 0),
    "oidc_provider": ("OIDC provider", None),
    "association": ("association", 2),
}
"""Method of an account → kind of what it makes, and which argument names it: None where AWS does."""
_MAKES_IN_CLUSTER = {"namespace": "Namespace", "create_service_account": "ServiceAccount", "run": "Pod"}


@dataclass(slots=True)
class AccountPlan:
    """What scenarios would do."""

    resources: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """Kind, and name in the guide: of an association its ServiceAccount."""
    objects: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """The same of what is made in the cluster; what manifests hold is not among it."""
    calls: set[str] = field(default_factory=set[str])
    """Operations of AWS, such as ``iam create_role``."""

    def lines(self, name: Callable[[str], str]) -> list[str]:
        """Return it for people.

        Args:
            name: Returns the run's name for one of the guide.
        """
        unnamed = ("association", "OIDC provider")
        named = [f"{kind} {text if kind in unnamed else name(text)}".strip() for kind, text in self.resources]
        return [
            *(f"would create in the cluster  {kind} {text}" for kind, text in self.objects),
            *(f"would create in AWS          {line}" for line in named),
            *(f"would call                   {call}" for call in sorted(self.calls)),
        ]


def read_plan(functions: Iterable[Callable[..., Any]]) -> AccountPlan:
    """Return what functions of scenarios would do, with functions of their modules and helpers that they call.

    Args:
        functions: Tests and fixtures.
    """
    reader = _Reader()
    for function in functions:
        reader.read(_plain(function))
    return reader.plan


def _plain(function: Callable[..., Any]) -> FunctionType:
    plain: Any = inspect.unwrap(function)
    return getattr(plain, "__func__", plain)


class _Reader:
    """Reads functions, each once."""

    def __init__(self) -> None:
        # Whose credentials these are is asked before anything else.
        self.plan = AccountPlan(calls={"sts get_caller_identity"})
        self._seen = set[FunctionType]()

    def read(self, function: FunctionType) -> None:
        if function in self._seen:
            return
        self._seen.add(function)
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        services = dict(_services(tree))
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            called = call.func
            if isinstance(called, ast.Name):
                found = function.__globals__.get(called.id)
                if inspect.isfunction(found) and found.__module__ in {function.__module__, "harness.scenario"}:
                    self.read(_plain(found))
            elif isinstance(called, ast.Attribute):
                if service := _service_of(called.value, services):
                    self._note_call(f"{service} {_operation(called.attr, call)}")
                elif isinstance(called.value, ast.Name):
                    self._read_method(function, call, called.value.id, called.attr)

    def _note_call(self, name: str) -> None:
        # What a run may not call in somebody's account ends the scenario, and is not called.
        if is_allowed(name):
            self.plan.calls.add(name)

    def _read_method(self, function: FunctionType, call: ast.Call, owner: str, method: str) -> None:
        if owner == "kube" and method in _MAKES_IN_CLUSTER:
            _add(self.plan.objects, _MAKES_IN_CLUSTER[method], _text(call.args[0], function))
        if owner == "aws" and method in _MAKES:
            kind, place = _MAKES[method]
            _add(self.plan.resources, kind, "" if place is None else _text(call.args[place], function))
        if owner == "aws" or (owner == "self" and function.__module__ == AwsAccount.__module__):
            of_account = inspect.getattr_static(AwsAccount, method, None)
            if callable(of_account):
                self.read(_plain(of_account))


def _add(found: list[tuple[str, str]], kind: str, name: str) -> None:
    if (kind, name) not in found:
        found.append((kind, name))


def _services(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield variables that hold clients, and the services of these; several can be assigned at once."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            (target,) = node.targets
            pairs = [(target, node.value)]
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = list(zip(target.elts, node.value.elts, strict=True))
            for name, value in pairs:
                if isinstance(name, ast.Name) and (service := _service_of(value, {})):
                    yield name.id, service


def _service_of(node: ast.expr, services: Mapping[str, str]) -> str:
    """Return the service of a client: a variable's, or that of ``….client("iam")``; empty for anything else."""
    if isinstance(node, ast.Name):
        return services.get(node.id, "")
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "client":
        first = node.args[0]
        return str(first.value) if isinstance(first, ast.Constant) else ""
    return ""


def _operation(method: str, call: ast.Call) -> str:
    first = call.args[0] if call.args else None
    is_pages = method == "get_paginator" and isinstance(first, ast.Constant)
    return str(first.value) if is_pages and isinstance(first, ast.Constant) else method


def _text(node: ast.expr, function: FunctionType) -> str:
    """Return an argument's value where the source says it: a constant, or a name of the module; else the source."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.Name) and isinstance(found := function.__globals__.get(node.id), str):
        return found
    return ast.unparse(node)
