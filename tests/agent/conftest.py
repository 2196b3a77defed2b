from __future__ import annotations

from collections.abc import Iterator

import hypothesis
import pytest
from agent_process import Agent, make_token, running_agent
from fake_eks_auth import FakeEKSAuth

# The same examples at every run, and no limit on how long a slow machine takes for one.
hypothesis.settings.register_profile(
    "podid", derandomize=True, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("podid")


@pytest.fixture(scope="session")
def eks_auth() -> Iterator[FakeEKSAuth]:
    fake = FakeEKSAuth()
    yield fake
    fake.close()
    assert fake.rejected == []


@pytest.fixture(scope="session")
def agent(eks_auth: FakeEKSAuth) -> Iterator[Agent]:
    """One agent for all tests that need no flags of their own; tests keep apart by token.

    Its requests wait as long as a slow machine may take.
    """
    with running_agent(eks_auth.url, "--request-timeout", "1m", hosts=("127.0.0.1", "127.0.0.2")) as running:
        yield running


@pytest.fixture
def token() -> str:
    return make_token()
