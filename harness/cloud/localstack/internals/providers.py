"""Services that the plugin serves itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from harness.cloud.localstack.internals.answers import refused
from harness.cloud.localstack.internals.lookup import CALL, Context, lookup
from harness.cloud.localstack.internals.requests import service_model
from harness.cloud.ports import Refusal

Operation = Callable[[Context, Mapping[str, Any]], Mapping[str, Any]]


def provider(api: str, name: str, operations: Callable[[], Mapping[str, Operation]]) -> Any:
    """Return a plugin that serves an API by a table of functions.

    Args:
        api: As botocore names the service.
        name: ``default``, or the name that ``PROVIDER_OVERRIDE_<API>`` selects.
        operations: Called when the service is loaded; raises if the lab is not composed yet.
    """

    def create() -> Any:
        table = {operation: _rendering(function) for operation, function in operations().items()}
        skeleton = lookup("localstack.aws.skeleton", "Skeleton")(service_model(api), table)
        return lookup("localstack.services.plugins", "Service")(name=api, skeleton=skeleton)

    create.__name__ = create.__qualname__ = f"{api}_{name}"
    return lookup("localstack.services.plugins", "aws_provider")(api=api, name=name)(create)


def _rendering(function: Operation) -> Operation:
    def serve(context: Context, request: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            return function(context, request)
        except Refusal as refusal:
            raise refused(context, refusal) from refusal

    return serve


def provider_names() -> dict[str, str]:
    """Return API → name of the provider that serves it."""
    manager = lookup("localstack.services.plugins", "SERVICE_PLUGINS")
    return {api: str(manager.provider_config.get_provider(api)) for api in manager.list_available()}


def call_moto(context: Context, _: Mapping[str, Any]) -> Mapping[str, Any]:
    """Let moto answer a call."""
    getattr(context, CALL).entry.layer = "moto"
    return lookup("localstack.services.moto", "call_moto")(context)
