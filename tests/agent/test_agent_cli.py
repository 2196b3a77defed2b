"""The command line, and starts that are refused (AGT section 1.1)."""

from __future__ import annotations

import re

import pytest
from podid_agent.cli import run
from podid_agent.config import SERVER_FLAGS, ConfigurationError, ServerConfig
from podid_agent.flags import FlagError, parse_duration, parse_flags

SERVER = ("server", "-c", "test-cluster", "-b", "127.0.0.1")


def _config(*arguments: str) -> ServerConfig:
    return ServerConfig.from_flags(parse_flags(arguments, SERVER_FLAGS).values)


@pytest.mark.parametrize("arguments", [(), ("-h",), ("help",), ("--help",), ("-v", "debug", "--help")])
def test_help_of_the_program(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """AGT-101 to AGT-103."""
    assert run(arguments) == 0

    printed = capsys.readouterr()
    assert printed.err == ""
    assert re.findall(r"^  (\w+) ", printed.out, re.MULTILINE) == ["help", "initialize", "server", "version"]


@pytest.mark.parametrize("arguments", [("server", "-h"), ("help", "server")])
def test_help_of_server_names_every_flag(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """AGT-103, AGT-116, AGT-126: also without the required flag."""
    assert run(arguments) == 0

    printed = capsys.readouterr()
    assert printed.err == ""
    assert set(re.findall(r"--([a-z-]+) ", printed.out)) == {
        "bind-hosts", "cache-key", "cluster-name", "disable-metrics", "endpoint", "help", "jwks-cache",
        "max-cache-size", "max-credential-retention-before-renewal", "max-service-qps", "metrics-address",
        "metrics-port", "port", "probe-port", "request-timeout", "rotate-credentials", "verbosity",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("nope",), 'Error: unknown command "nope" for "eks-pod-identity-agent"'),
        (("server", "--nope"), "Error: unknown flag: --nope"),
        (("server", "--cluster", "x"), "Error: unknown flag: --cluster"),
        (("server", "-x"), "Error: unknown shorthand flag: 'x' in -x"),
        (("server", "-c"), "Error: flag needs an argument: 'c' in -c"),
        (("server", "--port"), "Error: flag needs an argument: --port"),
        (("server", "-p", "70000"), 'Error: invalid argument "70000" for "-p, --port" flag: '),
        (("server", "--rotate-credentials=maybe"), 'Error: invalid argument "maybe" for "--rotate-credentials" flag: '),
        (("version", "-v", "loud"), "Invalid logging verbosity:"),
        (("server",), 'required flag(s) "cluster-name" not set'),
        (("server", "-c", ""), '"" is no cluster name'),
        (("server", "-c", "a/b"), '"a/b" is no cluster name'),
        ((*SERVER, "-b", "127.0.0.1,127.0.0.2"), 'bind host "127.0.0.1,127.0.0.2" is no address'),
        ((*SERVER, "-b", "0.0.0.0"), 'bind host "0.0.0.0" would hand credentials to other machines'),
    ],
)
def test_bad_command_line_exits_1(arguments: tuple[str, ...], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """AGT-104 to AGT-106, AGT-108, AGT-111, AGT-114, AGT-115, AGT-117, AGT-119, AGT-526."""
    assert run(arguments) == 1

    printed = capsys.readouterr()
    assert printed.out == ""
    assert text in printed.err


@pytest.mark.parametrize(
    "words", [("--cluster-name", "x"), ("--cluster-name=x",), ("-c", "x"), ("-cx",), ("-c=x",), ("-c", "y", "-c", "x")]
)
def test_forms_of_a_flag_are_equivalent(words: tuple[str, ...]) -> None:
    """AGT-107."""
    assert _config(*words).cluster_name == "x"


def test_booleans_surplus_words_and_the_end_of_flags() -> None:
    """AGT-108, AGT-109: the chart writes booleans as two words."""
    assert _config("-c", "x", "--rotate-credentials", "true", "extra").rotate_credentials
    assert not _config("-c", "x", "--rotate-credentials=F", "--", "--nope").rotate_credentials


def test_bind_hosts_replace_the_default_and_may_lack_brackets() -> None:
    """AGT-119, AGT-120."""
    assert _config("-c", "x").bind_hosts == ("169.254.170.23", "fd00:ec2::23")
    assert _config("-c", "x", "-b", "::1", "-b", "[fd00:ec2::23]").bind_hosts == ("::1", "fd00:ec2::23")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("0", 0),
        ("1900ms", 1.9),
        ("2us", 2e-6),
        ("3µs", 3e-6),
        ("-1s", -1),
        (".5s", 0.5),
    ],
)
def test_durations_have_gos_form(text: str, seconds: float) -> None:
    """AGT-118."""
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "fault"),
    [("3", 'time: missing unit in duration "3"'), ("3d", 'time: unknown unit "d" in duration "3d"'),
     ("", 'time: invalid duration ""'), ("x", 'time: invalid duration "x"')],
)  # fmt: skip
def test_bad_durations_are_refused_in_gos_words(text: str, fault: str) -> None:
    """AGT-118."""
    with pytest.raises(FlagError) as caught:
        parse_flags(["--request-timeout", text], SERVER_FLAGS)

    assert str(caught.value) == f'invalid argument "{text}" for "--request-timeout" flag: {fault}'


def test_rate_that_cannot_keep_up_is_refused() -> None:
    """AGT-123."""
    with pytest.raises(ConfigurationError) as caught:
        _config("-c", "x", "--max-cache-size", "8", "--max-credential-retention-before-renewal", "1s")

    assert str(caught.value).startswith(
        "Refresh QPS is too small (3) or credentials renewal to small (1.00s) to keep up with cache's size (8)"
    )


@pytest.mark.parametrize(("size", "retention"), [("7", "1900ms"), ("0", "1s"), ("8", "0")])
def test_rate_that_can_keep_up_is_accepted(size: str, retention: str) -> None:
    """AGT-123."""
    _config("-c", "x", "--max-cache-size", size, "--max-credential-retention-before-renewal", retention)


@pytest.mark.parametrize(
    "words", [("--max-cache-size", "-1"), ("--max-credential-retention-before-renewal", "-1s"), ("--endpoint", "x")]
)
def test_values_that_make_no_sense_are_refused(words: tuple[str, ...]) -> None:
    """AGT-125."""
    with pytest.raises(ConfigurationError):
        _config("-c", "x", *words)


def test_a_request_waits_less_than_the_two_seconds_of_its_client() -> None:
    """AGT-720."""
    assert _config("-c", "x").request_timeout == 1.8


def test_qps_of_zero_means_three() -> None:
    """AGT-122."""
    assert _config("-c", "x", "--max-service-qps", "0").max_service_qps == 3
