from __future__ import annotations

from collections.abc import Iterator

import pytest
from agent_process import Agent, make_token, running_agent
from fake_eks_auth import FakeEKSAuth


@pytest.fixture(scope="session")
def eks_auth() -> Iterator[FakeEKSAuth]:
    fake = FakeEKSAuth()
    yield fake
    fake.close()
    assert fake.rejected == []


@pytest.fixture(scope="session")
def agent(eks_auth: FakeEKSAuth) -> Iterator[Agent]:
    """One agent for all tests that need no flags of their own; tests keep apart by token."""
    with running_agent(eks_auth.url, hosts=("127.0.0.1", "127.0.0.2")) as running:
        yield running


@pytest.fixture
def token() -> str:
    return make_token()
