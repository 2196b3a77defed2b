"""What the agent's suite is written with: an agent, a stand-in for EKS Auth, and agents with flags of their own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack

import pytest

from harness.collectors import AgentOutput
from harness.conformance.diagnostics import Diagnostics
from harness.conformance.features import Detection, offered
from harness.errors import SubjectFault
from harness.subject.agent import Agent, AgentCommand
from harness.subject.eks_auth import FakeEKSAuth
from harness.subject.pod_token import make_token

StartAgent = Callable[..., Agent]
"""Starts an agent with flags of its own, as :meth:`AgentCommand.serving`; it lives until the test is over."""

MOST_RESTARTS = 5


@pytest.hookimpl(optionalhook=True)
def pytest_podid_detect(item: pytest.Item, feature: str) -> Detection | None:
    """Whether the cache can be keyed by pod, which came with the agent's second generation (g2)."""
    if feature != "g2":
        return None
    return _offers_pod_cache(item.config.getoption("--agent-command"), item.config.getoption("--subject") != "upstream")


@functools.cache
def _offers_pod_cache(command: str, is_ours: bool) -> Detection | None:
    try:
        told = AgentCommand.of(command, is_ours=is_ours).run("server", "--help").output
    except SubjectFault:
        # Whoever says nothing has not said that it lacks something: the tests decide.
        return None
    return offered("--cache-key", "server", told)


@pytest.fixture(scope="session")
def agent_command(pytestconfig: pytest.Config, run_environment: dict[str, str]) -> AgentCommand:
    """How the agent under test is called."""
    text = pytestconfig.getoption("--agent-command")
    command = AgentCommand.of(text, is_ours=pytestconfig.getoption("--subject") != "upstream")
    run_environment["agent"] = text or "this repository's"
    return command


@pytest.fixture(scope="session")
def patient(agent_command: AgentCommand) -> Sequence[str]:
    """Flags with which requests wait as long as a slow machine may take; AWS's agent waits anyway."""
    return ("--request-timeout", "30s") if agent_command.is_ours else ()


@pytest.fixture(scope="session")
def eks_auth() -> Iterator[FakeEKSAuth]:
    fake = FakeEKSAuth()
    yield fake
    fake.close()


class _SharedAgent:
    """One agent for all tests that need no flags of their own; tests keep apart by token.

    Should a test end it, the next one gets another.
    """

    def __init__(self, start: Callable[[], Agent]) -> None:
        self._start = start
        self._restarts = 0
        self._agent = start()

    def current(self) -> Agent:
        has_ended = self._agent.process.poll() is not None
        if has_ended and self._agent.has_listened and self._restarts < MOST_RESTARTS:
            self._restarts += 1
            self._agent = self._start()
        return self._agent


@pytest.fixture(scope="session")
def _shared_agent(
    agent_command: AgentCommand, eks_auth: FakeEKSAuth, patient: Sequence[str], diagnostics: Diagnostics
) -> Iterator[_SharedAgent]:
    hosts = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
    with ExitStack() as stack:

        def start() -> Agent:
            agent = stack.enter_context(agent_command.serving(eks_auth.url, *patient, hosts=hosts))
            _watch(agent, diagnostics, stack)
            return agent

        yield _SharedAgent(start)


@pytest.fixture
def agent(_shared_agent: _SharedAgent) -> Agent:
    """An agent on three listeners, with the default flags. Only the rate limit's test may flood 127.0.0.3."""
    return _shared_agent.current()


@pytest.fixture
def start_agent(agent_command: AgentCommand, diagnostics: Diagnostics) -> Iterator[StartAgent]:
    with ExitStack() as stack:

        def start(
            endpoint: str,
            *arguments: str,
            hosts: Sequence[str] = ("127.0.0.1",),
            env: Mapping[str, str] | None = None,
            verbosity: str = "trace",
            within: Sequence[str] = (),
        ) -> Agent:
            context = agent_command.serving(
                endpoint, *arguments, hosts=hosts, env=env, verbosity=verbosity, within=within
            )
            agent = stack.enter_context(context)
            _watch(agent, diagnostics, stack)
            return agent

        yield start


def _watch(agent: Agent, diagnostics: Diagnostics, stack: ExitStack) -> None:
    """Have the agent's output looked into when a test fails."""
    collector = AgentOutput(agent.port, agent.stdout, agent.stderr)
    diagnostics.register(collector)
    stack.callback(diagnostics.unregister, collector)


@pytest.fixture
def token() -> str:
    return make_token()
