"""What the environment tells the agent: region, its own credentials, endpoints, trust (section 1.2 of the contract)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from harness import limits, wait
from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.subject.agent import AgentCommand
from harness.subject.eks_auth import FakeEKSAuth, refusal
from harness.subject.imds import FakeIMDS
from harness.subject.pod_token import make_token
from harness.subject.ports import free_ports
from suites.agent.conftest import StartAgent

CANNOT_CALL = (
    "error getting credentials to cache: unable to fetch credentials from EKS Auth: "
    "operation error EKS Auth: AssumeRoleForPodIdentity, "
)
NO_KEYS = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}


def _signer(eks_auth: FakeEKSAuth, token: str) -> tuple[str, str]:
    """Return access key ID and region of the last call with a token."""
    found = re.match(
        r"AWS4-HMAC-SHA256 Credential=([^/]+)/\d{8}/([^/]*)/eks-auth/",
        eks_auth.wait_for_calls(token)[-1].headers["authorization"],
    )
    assert found
    return found[1], found[2]


@pytest.fixture
def imds() -> Iterator[FakeIMDS]:
    fake = FakeIMDS(life=3600)
    yield fake
    fake.close()


# --- Region ---------------------------------------------------------------------------------------------------------


@requirement("AGT-130")
@pytest.mark.parametrize(
    ("env", "region"),
    [
        ({"AWS_REGION": "us-east-2", "AWS_DEFAULT_REGION": "eu-west-1"}, "us-east-2"),
        ({"AWS_REGION": "", "AWS_DEFAULT_REGION": "ap-south-1"}, "ap-south-1"),
        ({"AWS_REGION": "", "AWS_CONFIG_FILE": "file"}, "sa-east-1"),
    ],
    ids=["AWS_REGION", "AWS_DEFAULT_REGION", "file"],
)
def test_region_of_the_signature(
    start_agent: StartAgent, eks_auth: FakeEKSAuth, token: str, tmp_path: Path, *, env: dict[str, str], region: str
) -> None:
    """AWS_REGION comes before AWS_DEFAULT_REGION, and that before the shared config file."""
    file = tmp_path / "config"
    file.write_text("[default]\nregion = sa-east-1\n")
    env = {name: str(file) if value == "file" else value for name, value in env.items()}
    agent = start_agent(eks_auth.url, env=env)

    assert agent.get(token).status == 200
    assert _signer(eks_auth, token)[1] == region


@requirement("AGT-130", "AGT-131", "AGT-132", "AGT-275", "AGT-606")
def test_without_a_region_the_agent_is_ready_and_every_request_is_500(
    start_agent: StartAgent, token: str, imds: FakeIMDS
) -> None:
    """There is neither a region nor an endpoint, and the metadata service is not asked for one."""
    env = {**imds.environment, "AWS_ACCESS_KEY_ID": "AKIDNODE", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": ""}
    agent = start_agent("", env=env)

    for identifier in ("AGT-132", "AGT-606"):
        check(identifier, expected=200, observed=agent.probe("/readyz").status)
    reply = agent.get(token)
    check("AGT-131", expected=500, observed=reply.status, what="status")
    ends = reply.text.endswith("Invalid Configuration: Missing Region\n")
    check("AGT-131", expected="… Invalid Configuration: Missing Region", observed=reply.text, holds=ends, what="body")
    begins = reply.text.startswith(CANNOT_CALL)
    check("AGT-275", expected=f"{CANNOT_CALL}…", observed=reply.text, holds=begins)
    check("AGT-130", expected=[], observed=[path for path in imds.rejected if "placement" in path])


# --- Own credentials ------------------------------------------------------------------------------------------------


@requirement("AGT-132", "AGT-137", "AGT-275", "AGT-606")
def test_without_credentials_of_its_own_every_request_is_500(
    start_agent: StartAgent, eks_auth: FakeEKSAuth, token: str
) -> None:
    """The agent is ready, says what it cannot do, and calls nobody."""
    agent = start_agent(eks_auth.url, env=NO_KEYS)

    for identifier in ("AGT-132", "AGT-606"):
        check(identifier, expected=200, observed=agent.probe("/readyz").status)
    reply = agent.get(token)
    check("AGT-137", expected=(500, []), observed=(reply.status, eks_auth.calls_with(token)))
    begins = reply.text.startswith(CANNOT_CALL)
    check("AGT-137", expected=f"{CANNOT_CALL}…", observed=reply.text, holds=begins, what="body")
    check("AGT-275", expected=f"{CANNOT_CALL}…", observed=reply.text, holds=begins)


@requirement("AGT-138")
def test_variables_that_name_the_agent_itself_are_ignored(
    start_agent: StartAgent, eks_auth: FakeEKSAuth, token: str
) -> None:
    """A pod's variables in the agent's own environment lead to a warning, and to no call of itself."""
    env = {**NO_KEYS, "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.23/v1/credentials"}
    agent = start_agent(eks_auth.url, env=env)

    watch = agent.stopwatch()
    reply = agent.get(token)

    assert watch.seconds < 1
    assert (reply.status, reply.text.startswith(CANNOT_CALL)) == (500, True)
    warnings = [str(line.get("msg")) for line in agent.log_lines() if line.get("level") == "warning"]
    assert any("AWS_CONTAINER_CREDENTIALS_FULL_URI" in text for text in warnings)


@requirement("AGT-134")
def test_own_credentials_come_from_the_shared_file(
    start_agent: StartAgent, eks_auth: FakeEKSAuth, token: str, tmp_path: Path
) -> None:
    """Without keys in the environment, the file's sign."""
    file = tmp_path / "credentials"
    file.write_text("[default]\naws_access_key_id = AKIDFILE\naws_secret_access_key = CANARY-FILE\n")
    agent = start_agent(eks_auth.url, env={**NO_KEYS, "AWS_SHARED_CREDENTIALS_FILE": str(file)})

    assert agent.get(token).status == 200
    assert _signer(eks_auth, token)[0] == "AKIDFILE"


@requirement("AGT-134")
def test_own_credentials_come_from_the_environment_first(
    start_agent: StartAgent, eks_auth: FakeEKSAuth, token: str, tmp_path: Path, imds: FakeIMDS
) -> None:
    """Keys in the environment win over the file and the metadata service."""
    file = tmp_path / "credentials"
    file.write_text("[default]\naws_access_key_id = AKIDFILE\naws_secret_access_key = CANARY-FILE\n")
    env = {**imds.environment, "AWS_SHARED_CREDENTIALS_FILE": str(file), "AWS_ACCESS_KEY_ID": "AKIDENV"}
    agent = start_agent(eks_auth.url, env={**env, "AWS_SECRET_ACCESS_KEY": "CANARY-ENV"})

    assert agent.get(token).status == 200
    assert (_signer(eks_auth, token)[0], imds.granted) == ("AKIDENV", 0)


@requirement("AGT-134", "AGT-135")
def test_the_node_role_is_renewed_in_time(start_agent: StartAgent, eks_auth: FakeEKSAuth) -> None:
    """Keys of the metadata service sign as long as they are good; the next ones sign before these have expired.

    Keys with little life, because AWS's SDKs renew long-lived ones early, but others only at their end.
    """
    life = 4.0
    imds = FakeIMDS(life=life)
    tokens: list[str] = []

    def signers() -> list[str]:
        tokens.append(make_token())
        assert agent.get(tokens[-1]).status == 200
        return [_signer(eks_auth, token)[0] for token in tokens]

    try:
        agent = start_agent(eks_auth.url, env=imds.environment)
        seen = wait.until(
            signers, lambda found: len(set(found)) > 1, what="other keys", timeout=limits.SUBJECT_ACTS.after(life)
        )
    finally:
        imds.close()
    ages = [
        eks_auth.call_with(token).received_at - imds.granted_at[signer]
        for token, signer in zip(tokens, seen, strict=True)
    ]

    check("AGT-134", expected="AKIDIMDS…", observed=seen[0], holds=seen[0].startswith("AKIDIMDS"))
    check("AGT-134", expected=[], observed=imds.rejected, what="requests that IMDS would not know")
    check("AGT-135", expected="keys younger than their life", observed=max(ages), holds=max(ages) < life)


@requirement("AGT-726")
def test_a_metadata_service_that_hangs_does_not_hold_requests(
    start_agent: StartAgent, eks_auth: FakeEKSAuth, token: str
) -> None:
    """The request ends within the longest wait for EKS Auth, 1.8 s."""
    imds = FakeIMDS(life=3600, delay=60)
    try:
        agent = start_agent(eks_auth.url, env=imds.environment)
        watch = agent.stopwatch()
        reply = agent.get(token)
        waited = watch.seconds
    finally:
        imds.close()

    assert reply.status == 500
    assert waited < 2.5


@requirement("AGT-136")
def test_a_session_token_travels_with_the_signature(start_agent: StartAgent, eks_auth: FakeEKSAuth, token: str) -> None:
    """AWS_SESSION_TOKEN is X-Amz-Security-Token."""
    agent = start_agent(eks_auth.url, env={"AWS_SESSION_TOKEN": "CANARY-NODE-SESSION"})

    assert agent.get(token).status == 200
    assert eks_auth.call_with(token).headers["x-amz-security-token"] == "CANARY-NODE-SESSION"


@requirement("AGT-133")
@pytest.mark.parametrize(
    "extra", [{"AWS_PROFILE": "nope"}, {"AWS_CA_BUNDLE": "/nonexistent/bundle.pem"}], ids=["profile", "bundle"]
)
def test_unusable_aws_configuration_exits_1(agent_command: AgentCommand, extra: dict[str, str]) -> None:
    """A profile that does not exist or a bundle that cannot be read is fatal at the start."""
    port, probe_port, metrics_port = map(str, free_ports(3))
    ports = ("-p", port, "--probe-port", probe_port, "--metrics-port", metrics_port)

    ended = agent_command.run("server", "-c", "test-cluster", "-b", "127.0.0.1", *ports, env=extra)

    assert ended.exit_code == 1
    fatal = [line for line in ended.stdout.splitlines() if re.search(r'"level": ?"fatal"', line)]
    assert any("Unable to initialize aws configuration, exiting" in line for line in fatal)


# --- Endpoint and attempts ------------------------------------------------------------------------------------------


@pytest.fixture
def other() -> Iterator[FakeEKSAuth]:
    fake = FakeEKSAuth()
    yield fake
    fake.close()


@requirement("AGT-139")
def test_the_flag_wins_over_the_variable(
    start_agent: StartAgent, eks_auth: FakeEKSAuth, other: FakeEKSAuth, token: str
) -> None:
    """--endpoint is called, AWS_ENDPOINT_URL is not."""
    agent = start_agent(eks_auth.url, env={"AWS_ENDPOINT_URL": other.url})

    assert agent.get(token).status == 200
    assert (len(eks_auth.calls_with(token)), other.connections) == (1, 0)


@requirement("AGT-139")
def test_the_variable_wins_over_the_region(start_agent: StartAgent, eks_auth: FakeEKSAuth, token: str) -> None:
    """AWS_ENDPOINT_URL is called instead of the endpoint that the region implies."""
    agent = start_agent("", env={"AWS_ENDPOINT_URL": eks_auth.url})

    assert agent.get(token).status == 200
    assert len(eks_auth.calls_with(token)) == 1


@requirement("AGT-142")
def test_the_variable_bounds_the_attempts(
    start_agent: StartAgent, eks_auth: FakeEKSAuth, token: str, patient: Sequence[str]
) -> None:
    """AWS_MAX_ATTEMPTS=1 leaves one, and without it there are three."""
    eks_auth.script(token, refusal(503, "ServiceUnavailableException"))

    once = start_agent(eks_auth.url, *patient, env={"AWS_MAX_ATTEMPTS": "1"}).get(token)
    assert (once.status, len(eks_auth.calls_with(token))) == (503, 1)

    thrice = start_agent(eks_auth.url, *patient).get(token)
    assert (thrice.status, len(eks_auth.calls_with(token))) == (503, 4)
