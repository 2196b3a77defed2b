"""The command line, and starts that are refused (section 1.1 of the contract)."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence

import pytest

from harness.conformance.marks import requirement
from harness.conformance.outcomes import could_not_run
from harness.conformance.recording import check
from harness.subject.agent import AgentCommand, Ended
from harness.subject.eks_auth import FakeEKSAuth
from harness.subject.ports import free_ports
from suites.agent.conftest import StartAgent

SERVER = ("server", "-c", "test-cluster", "-b", "127.0.0.1")
RETENTION = "--max-credential-retention-before-renewal"
FLAG_LINE = re.compile(r" +(?:-(?P<short>\w), )?--(?P<name>[a-z0-9-]+)(?: (?P<type>\w+))?(?:  .*)?")
DEFAULT = re.compile(r"\(default (.*)\)$")
UPSTREAM_FLAGS = {
    "bind-hosts": ("b", "string", "[169.254.170.23,[fd00:ec2::23]]"),
    "cluster-name": ("c", "string", ""),
    "endpoint": ("", "string", ""),
    "max-cache-size": ("", "int", "2000"),
    "max-credential-retention-before-renewal": ("", "duration", "3h0m0s"),
    "max-service-qps": ("", "int", "3"),
    "metrics-address": ("", "string", '"0.0.0.0"'),
    "metrics-port": ("", "uint16", "2705"),
    "port": ("p", "uint16", "80"),
    "probe-port": ("", "uint16", "2703"),
    "rotate-credentials": ("", "", ""),
}
OWN_FLAGS = {
    "cache-key": ("", "string", '"token"'),
    "disable-metrics": ("", "", ""),
    "jwks-cache": ("", "string", '"/var/lib/eks-pod-identity-agent/jwks-cache.json"'),
    "request-timeout": ("", "duration", "1.8s"),
}
GLOBAL_FLAGS = {"help", "verbosity"}


def _flags(help_text: str) -> dict[str, tuple[str, str, str]]:
    """Read flags from a help text as pflag prints it: name → short form, type, default."""
    flags: dict[str, tuple[str, str, str]] = {}
    for line in help_text.splitlines():
        if found := FLAG_LINE.fullmatch(line):
            default = DEFAULT.search(line)
            # A repeatable string has another name in every version of pflag.
            kind = re.sub(r"^string\w+$", "string", found["type"] or "")
            flags[found["name"]] = (found["short"] or "", kind, default[1] if default else "")
    return flags


def _ports() -> list[str]:
    """Return flags that name three free ports."""
    names = ("--port", "--probe-port", "--metrics-port")
    pairs = zip(names, map(str, free_ports(3)), strict=True)
    return [*(word for pair in pairs for word in pair), "--metrics-address", "127.0.0.1"]


def _refusals(ended: Ended) -> list[str]:
    """Return what was said about a start that failed: lines of stderr and fatal ones of the log."""
    said = [line for line in ended.stderr.splitlines() if "Setting logging verbosity level to" not in line]
    return said + [line for line in ended.stdout.splitlines() if re.search(r'"level": ?"fatal"', line)]


@requirement("AGT-101")
def test_the_program_has_four_subcommands(agent_command: AgentCommand) -> None:
    """Help names the program and its subcommands."""
    ended = agent_command.run("--help")

    assert re.search(r"^ +eks-pod-identity-agent ", ended.stdout, re.MULTILINE)
    assert {"help", "initialize", "server", "version"} <= set(re.findall(r"^  (\w+) +", ended.stdout, re.MULTILINE))


@requirement("AGT-102")
def test_without_a_subcommand_it_helps(agent_command: AgentCommand) -> None:
    """No arguments: help on stdout, exit code 0."""
    ended = agent_command.run()

    assert (ended.exit_code, "Usage:" in ended.stdout) == (0, True)


@requirement("AGT-103")
@pytest.mark.parametrize(
    "arguments",
    [("-h",), ("--help",), ("help",), ("help", "server"), ("server", "-h"), ("server", "--help")],
    ids=" ".join,
)
def test_help_can_be_had_in_every_form(agent_command: AgentCommand, arguments: tuple[str, ...]) -> None:
    """Usage is on stdout and the exit code 0, also without the required flag."""
    ended = agent_command.run(*arguments)

    assert ended.exit_code == 0
    assert "Usage:" in ended.stdout
    assert ("--cluster-name" in ended.stdout) == ("server" in arguments)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        pytest.param(
            ("nope",), 'Error: unknown command "nope" for "eks-pod-identity-agent"', marks=requirement("AGT-104")
        ),
        pytest.param(("server", "--nope"), "Error: unknown flag: --nope", marks=requirement("AGT-105")),
        pytest.param(("server", "-c"), "Error: flag needs an argument: 'c' in -c", marks=requirement("AGT-105")),
        pytest.param(
            ("server", "-p", "70000"),
            'Error: invalid argument "70000" for "-p, --port" flag:',
            marks=requirement("AGT-105", "AGT-117"),
        ),
        pytest.param(
            ("server", "-p", "abc"),
            'Error: invalid argument "abc" for "-p, --port" flag:',
            marks=requirement("AGT-117"),
        ),
        pytest.param(
            ("server", "--probe-port", "-1"),
            'invalid argument "-1" for "--probe-port" flag:',
            marks=requirement("AGT-117"),
        ),
        pytest.param(("server", "--cluster", "x"), "unknown flag: --cluster", marks=requirement("AGT-106")),
        pytest.param(
            ("server", "--rotate-credentials=maybe"),
            'invalid argument "maybe" for "--rotate-credentials" flag:',
            marks=requirement("AGT-108"),
        ),
        pytest.param(("version", "-v", "loud"), "Invalid logging verbosity:", marks=requirement("AGT-111")),
        pytest.param(("server",), 'required flag(s) "cluster-name" not set', marks=requirement("AGT-114")),
        pytest.param(("server", RETENTION, "3"), 'missing unit in duration "3"', marks=requirement("AGT-118")),
        pytest.param(("server", RETENTION, "3d"), 'unknown unit "d" in duration "3d"', marks=requirement("AGT-118")),
        pytest.param(("server", RETENTION, ""), 'invalid duration ""', marks=requirement("AGT-118")),
    ],
)
def test_a_bad_command_line_exits_1(agent_command: AgentCommand, arguments: tuple[str, ...], text: str) -> None:
    """The exit code is 1, stderr says why, and stdout stays empty."""
    ended = agent_command.run(*arguments)

    assert (ended.exit_code, ended.stdout) == (1, "")
    assert text in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (("--port", "70000"), "70000"),
        (("--port=70000",), "70000"),
        (("-p", "70000"), "70000"),
        (("-p70000",), "70000"),
        (("-p=70000",), "70000"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
@requirement("AGT-107")
def test_forms_of_a_flag_are_equivalent(agent_command: AgentCommand, arguments: tuple[str, ...], shown: str) -> None:
    """Each form carries the same value, as its refusal shows."""
    ended = agent_command.run("server", "-c", "x", *arguments)

    assert ended.exit_code == 1
    assert f'invalid argument "{shown}" for "-p, --port" flag' in ended.stderr


@requirement("AGT-107")
def test_the_last_of_a_repeated_flag_counts(agent_command: AgentCommand) -> None:
    """The size that a refusal names is the last one given."""
    ended = agent_command.run(*SERVER, *_ports(), "--max-cache-size", "5", "--max-cache-size=9000", RETENTION, "1s")

    assert ended.exit_code != 0
    assert "to keep up with cache's size (9000)" in ended.output


@requirement("AGT-118")
@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1h30m", "5400.00"),
        ("1.5h", "5400.00"),
        ("1900ms", "1.90"),
        (".5s", "0.50"),
        ("3000000µs", "3.00"),
        ("2500000us", "2.50"),
    ],
)
def test_durations_have_gos_form(agent_command: AgentCommand, text: str, seconds: str) -> None:
    """The retention that a refusal names is the duration in seconds."""
    ended = agent_command.run(*SERVER, *_ports(), "--max-cache-size", "90000", RETENTION, text)

    assert ended.exit_code != 0
    assert f"credentials renewal to small ({seconds}s)" in ended.output


@requirement("AGT-109", "AGT-108", "AGT-118", "AGT-123")
def test_surplus_words_and_the_end_of_flags_do_no_harm(start_agent: StartAgent, eks_auth: FakeEKSAuth) -> None:
    """Booleans in two words, more arguments and whatever follows ``--`` are let be; a retention may be a bare 0."""
    words = ("--rotate-credentials", "true", "extra", "--rotate-credentials=F", RETENTION, "0", "--", "--nope")
    agent = start_agent(eks_auth.url, *words)

    ready = agent.probe("/readyz").status
    for identifier in ("AGT-109", "AGT-108", "AGT-118", "AGT-123"):
        check(identifier, expected="the agent is ready", observed=f"/readyz is {ready}", holds=ready == 200)


@requirement("AGT-110")
@pytest.mark.parametrize(
    "arguments",
    [
        ("-v", "WARN", "version"),
        ("--verbosity=Warning", "version"),
        ("version", "-v", "debug"),
        ("version", "--verbosity", "TRACE"),
        ("version", "-vpanic"),
        ("-v=fatal", "version"),
        ("version", "-v", "eRRor"),
        ("version", "-v", "info"),
    ],
    ids=" ".join,
)
def test_verbosity_is_a_level_in_any_case_before_or_after(
    agent_command: AgentCommand, arguments: tuple[str, ...]
) -> None:
    """All eight names are taken."""
    ended = agent_command.run(*arguments)

    assert ended.exit_code == 0, ended.stderr


@requirement("AGT-112", "AGT-113")
def test_version_is_on_stdout_and_verbosity_on_stderr(agent_command: AgentCommand) -> None:
    """The version stands alone on stdout, the level as it was given and its number on stderr."""
    ended = agent_command.run("-v", "DeBug", "version")

    check("AGT-113", expected=0, observed=ended.exit_code, what="exit code")
    version = re.fullmatch(r"EKS Pod Identity Agent version \S+\n", ended.stdout)
    check("AGT-113", expected="one line", observed=ended.stdout, holds=bool(version), what="stdout")
    level = re.fullmatch(r"\S+ \S+ Setting logging verbosity level to: DeBug \(5\)\n", ended.stderr)
    check("AGT-112", expected="a dated line", observed=ended.stderr, holds=bool(level))


@requirement("AGT-112")
def test_verbosity_is_told_before_a_missing_flag_and_not_before_help(agent_command: AgentCommand) -> None:
    """It comes as soon as the flags are understood, and only then."""
    line = "Setting logging verbosity level to: info (4)"

    assert line in agent_command.run("server").stderr
    assert line not in agent_command.run("server", "-h").output
    assert line not in agent_command.run("server", "--nope").stderr


@requirement("AGT-116", "AGT-126")
def test_server_has_the_flags_of_the_contract(agent_command: AgentCommand) -> None:
    """Names, short forms, types and defaults, as help tells them."""
    flags = _flags(agent_command.run("server", "-h").stdout)

    upstream = {name: flag for name, flag in flags.items() if name in UPSTREAM_FLAGS}
    check("AGT-116", expected=UPSTREAM_FLAGS, observed=upstream)
    own = {name: flag for name, flag in flags.items() if name not in {*UPSTREAM_FLAGS, *GLOBAL_FLAGS}}
    check("AGT-126", expected=OWN_FLAGS, observed=own)


@requirement("AGT-115")
@pytest.mark.parametrize("name", ["", "a/b", "-a", "a b", "x" * 101], ids=["empty", "slash", "dash", "blank", "long"])
def test_a_name_that_no_cluster_has_is_refused(agent_command: AgentCommand, name: str) -> None:
    """It exits 1 before anything is bound."""
    ended = agent_command.run("server", f"--cluster-name={name}", "-b", "127.0.0.1", *_ports())

    assert ended.exit_code == 1
    assert "cluster" in ended.stderr


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    "written",
    [
        pytest.param("[::1]", marks=requirement("AGT-119")),
        pytest.param("::1", marks=requirement("AGT-120")),
    ],
)
def test_ipv6_hosts_are_served(start_agent: StartAgent, eks_auth: FakeEKSAuth, token: str, written: str) -> None:
    """The second of two bind hosts is an IPv6 address."""
    if not _has_ipv6():
        could_not_run("environment", "this machine has no ::1; enable IPv6 on its loopback interface")
    agent = start_agent(eks_auth.url, hosts=("127.0.0.1", written))

    statuses = [agent.get(token, address=address).status for address in ("127.0.0.1", "::1")]

    assert statuses == [200, 200]


@requirement("AGT-119")
def test_bind_hosts_are_not_split_at_commas(agent_command: AgentCommand) -> None:
    """A list in one value is no host."""
    assert agent_command.run("server", "-c", "x", "-b", "127.0.0.1,127.0.0.2", *_ports()).exit_code == 1


@requirement("AGT-121")
def test_the_same_host_twice_exits_1(agent_command: AgentCommand) -> None:
    """The second listener finds the address in use."""
    ended = agent_command.run(*SERVER, "-b", "127.0.0.1", *_ports())

    assert ended.exit_code == 1
    assert "address already in use" in ended.output


@requirement("AGT-122", "AGT-123")
def test_a_rate_of_zero_is_three(start_agent: StartAgent, eks_auth: FakeEKSAuth) -> None:
    """Three a second keep up with seven entries that live for a whole second, and zero or two would not."""
    agent = start_agent(eks_auth.url, "--max-service-qps", "0", "--max-cache-size", "7", RETENTION, "1900ms")

    ready = agent.probe("/readyz").status
    check("AGT-122", expected="the agent is ready", observed=f"/readyz is {ready}", holds=ready == 200)
    check("AGT-123", expected="the agent is ready", observed=f"/readyz is {ready}", holds=ready == 200)


@pytest.mark.parametrize(
    "qps", [["--max-service-qps", "-1"], ["--max-service-qps", "3"], []], ids=["-1", "3", "default"]
)
@requirement("AGT-122", "AGT-123")
def test_a_rate_that_cannot_keep_up_is_refused(agent_command: AgentCommand, qps: list[str]) -> None:
    """Three a second are too few for eight entries that live for a second."""
    ended = agent_command.run(*SERVER, *_ports(), *qps, "--max-cache-size", "8", RETENTION, "1s")

    text = "credentials renewal to small (1.00s) to keep up with cache's size (8)"
    check("AGT-122", expected="a refusal", observed=f"exit code {ended.exit_code}", holds=ended.exit_code != 0)
    check("AGT-123", expected=text, observed=ended.stderr, holds=ended.exit_code != 0 and text in ended.stderr)


@requirement("AGT-123")
def test_without_a_cache_no_rate_is_too_low(start_agent: StartAgent, eks_auth: FakeEKSAuth) -> None:
    """Size zero is never refused."""
    agent = start_agent(eks_auth.url, "--max-cache-size", "0", "--max-service-qps", "1", RETENTION, "1s")

    assert agent.probe("/readyz").status == 200


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("--max-cache-size", "8", RETENTION, "1s"), marks=requirement("AGT-124"), id="rate"),
        pytest.param(("--max-cache-size", "-1"), marks=requirement("AGT-124", "AGT-125"), id="size"),
        pytest.param((RETENTION, "-1s"), marks=requirement("AGT-124", "AGT-125"), id="retention"),
        pytest.param(("--request-timeout", "-1s"), marks=requirement("AGT-124"), id="timeout"),
        pytest.param(("--endpoint", "x"), marks=requirement("AGT-124"), id="endpoint"),
        pytest.param(("-b", "203.0.113.9"), marks=requirement("AGT-124"), id="host"),
        pytest.param(("-b", "127.0.0.1"), marks=requirement("AGT-124"), id="twice"),
    ],
)
def test_a_refused_start_says_why_in_one_line(agent_command: AgentCommand, arguments: tuple[str, ...]) -> None:
    """Exit code 1, one line, no traceback."""
    ended = agent_command.run(*SERVER, *_ports(), *arguments)

    assert ended.exit_code == 1
    assert len(_refusals(ended)) == 1
    assert "Traceback" not in ended.output


@requirement("AGT-124")
@pytest.mark.parametrize("extra", [{"AWS_PROFILE": "nope"}, {"AWS_MAX_ATTEMPTS": "many"}], ids=["profile", "attempts"])
def test_a_start_refused_for_its_environment_says_why_in_one_line(
    agent_command: AgentCommand, extra: dict[str, str]
) -> None:
    """Exit code 1, one line, no traceback."""
    ended = agent_command.run(*SERVER, *_ports(), env=extra)

    assert ended.exit_code == 1
    assert len(_refusals(ended)) == 1
    assert "Traceback" not in ended.output


@requirement("AGT-151")
@pytest.mark.parametrize("flag", ["--port", "--probe-port", "--metrics-port"])
def test_a_busy_port_exits_1(agent_command: AgentCommand, flag: str) -> None:
    """The last log line is fatal and says which address is in use."""
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = str(busy.getsockname()[1])
        ended = agent_command.run(*SERVER, *_ports(), flag, port)

    assert ended.exit_code == 1
    last = ended.stdout.strip().rpartition("\n")[2]
    assert re.search(r'"level": ?"fatal"', last)
    assert "Unable to start server: listen tcp" in last
    assert port in last
    assert "address already in use" in last


def _starts(*hosts: str) -> Sequence[str]:
    return ["server", "-c", "test-cluster", *(word for host in hosts for word in ("-b", host)), *_ports()]


@pytest.mark.parametrize(
    "hosts",
    [
        pytest.param(("203.0.113.9",), marks=requirement("AGT-522")),
        pytest.param(("127.0.0.1", "203.0.113.9"), marks=requirement("AGT-522")),
        pytest.param(("0.0.0.0",), marks=requirement("AGT-526")),
        pytest.param(("[::]",), marks=requirement("AGT-526")),
        pytest.param(("192.0.2.1",), marks=requirement("AGT-526")),
    ],
)
def test_a_host_that_cannot_or_must_not_be_served_exits_1(agent_command: AgentCommand, hosts: tuple[str, ...]) -> None:
    """One bad host among good ones is enough."""
    assert agent_command.run(*_starts(*hosts)).exit_code == 1


@requirement("AGT-524")
def test_an_agent_without_any_host_exits_1(agent_command: AgentCommand) -> None:
    """The default hosts are not there without ``initialize``."""
    try:
        socket.create_server(("169.254.170.23", 0)).close()
    except OSError:
        pass
    else:
        could_not_run("environment", "this machine has 169.254.170.23; remove link pod-id-link0 or run elsewhere")

    assert agent_command.run(*_starts()).exit_code == 1


@requirement("AGT-527")
def test_metrics_can_be_turned_off(start_agent: StartAgent, eks_auth: FakeEKSAuth) -> None:
    """Nothing listens on the metrics port, and the rest serves."""
    agent = start_agent(eks_auth.url, "--disable-metrics")

    assert agent.probe("/readyz").status == 200
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", agent.metrics_port), timeout=5).close()
