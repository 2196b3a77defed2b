from __future__ import annotations

from harness.cloud.iam.model import Decision
from harness.cloud.ports import Principal, Refusal


def access_denied(
    service: str, principal: Principal, decision: Decision, resource_shown: str | None = None
) -> Refusal:
    raise NotImplementedError
