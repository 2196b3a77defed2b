"""An audit as SARIF 2.1.0, for code scanning and whatever else collects findings. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.audit.checks import Check

__all__ = ["as_sarif"]

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def as_sarif(cluster: str, checks: Sequence[Check], version: str) -> dict[str, Any]:
    """Return the log: a rule for each check, and a result for each check and piece of evidence that is not fine.

    Args:
        cluster: Name of the cluster, which is where everything was found.
        checks: The checks.
        version: Version of the harness.
    """
    rules = [
        {
            "id": check.id,
            "shortDescription": {"text": check.title},
            **({"help": {"text": check.cure}} if check.cure else {}),
        }
        for check in checks
    ]
    driver = {"name": "podid audit", "semanticVersion": version, "rules": rules}
    results = [_result(cluster, index, check, text) for index, check in enumerate(checks) for text in _texts(check)]
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}


def _texts(check: Check) -> Sequence[str]:
    """One result for each fault; what passes, or cannot be told, is one."""
    return check.evidence if check.status == "fail" else ["; ".join(check.evidence)]


def _result(cluster: str, index: int, check: Check, text: str) -> dict[str, Any]:
    kinds = {"pass": ("pass", "none"), "fail": ("fail", "error"), "unknown": ("open", "none")}
    kind, level = kinds[check.status]
    where = {
        "logicalLocations": [{"name": cluster, "kind": "resource"}],
        # Code scanning takes no finding without a file; there is none in a repository that is at fault.
        "physicalLocation": {"artifactLocation": {"uri": f"clusters/{cluster}"}, "region": {"startLine": 1}},
    }
    return {
        "ruleId": check.id,
        "ruleIndex": index,
        "kind": kind,
        "level": level,
        "message": {"text": text},
        "locations": [where],
    }
