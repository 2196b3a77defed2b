"""Hooks that conftests answer: what the engine must know of clusters, AWS and subjects, without importing them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from harness.conformance.features import Detection

__all__ = ["Plan", "pytest_podid_detect", "pytest_podid_plan"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What tests would stand on."""

    lines: Sequence[str]
    """Such as ``clusters: pod-identity-lab``."""
    obstacles: dict[str, str] = field(default_factory=dict[str, str])
    """Node ID → why it could not run."""


@pytest.hookspec(firstresult=True)
def pytest_podid_detect(item: pytest.Item, feature: str) -> Detection | None:
    """Look for a feature in the subject, the cluster or AWS as they run, for a test that needs to know.

    None: nothing here can tell, or not yet.
    """
    del item, feature


@pytest.hookspec
def pytest_podid_plan(config: pytest.Config, items: Sequence[pytest.Item]) -> Plan | None:
    """Say what tests would stand on, and which could not run; creates nothing (HRN-SEL-02)."""
    del config, items
