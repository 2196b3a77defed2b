"""The command line `eks-pod-identity-agent` (section 1.1)."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn

from podid_agent import __version__
from podid_agent.config import DEFAULT_BIND_HOSTS, SERVER_FLAGS, ConfigurationError, ServerConfig
from podid_agent.flags import Flag, FlagError, HelpRequested, Parsed, parse_flags
from podid_agent.journal import LEVELS, Journal, format_go_log_line
from podid_agent.listeners import BindError, bind
from podid_agent.network_state import LINK_NAME, is_set_up

__all__ = ["main"]

PROGRAM = "eks-pod-identity-agent"

_VERBOSITY = Flag(
    "verbosity", str, "Log level: panic, fatal, error, warn, warning, info, debug or trace", "v", "string", '"info"'
)


class _Command(NamedTuple):
    summary: str
    flags: tuple[Flag, ...]
    run: Callable[[Parsed, Journal], int]


def _server(parsed: Parsed, journal: Journal) -> int:
    config = ServerConfig.from_flags(parsed.values)
    journal.info(f"Pod Identity Agent version {__version__}")
    # Until the event loop takes over: the first process of a container would not end by SIGTERM at all.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    try:
        sockets = bind(config)
    except BindError as error:
        journal.fatal(f"Unable to start server: {error}")
        return 1
    # A tenth of a start would go into looking for garbage among modules; the server turns it on again.
    gc.disable()
    # Only now, since it takes longer than everything else of a start: pods that call meanwhile wait for an answer
    # instead of being refused (AGT-818).
    from podid_agent.server import run_server  # noqa: PLC0415 - see above

    return run_server(config, sockets, journal)


def _end(_number: int, _frame: object) -> NoReturn:
    sys.exit(0)


def _initialize(_parsed: Parsed, journal: Journal) -> int:
    if is_set_up():
        for address in DEFAULT_BIND_HOSTS:
            journal.info("Address is there already", {"link": LINK_NAME, "ip": address})
        return 0
    from podid_agent.network import run_initialize  # noqa: PLC0415 - only a first run needs netlink

    return run_initialize(journal)


def _version(_parsed: Parsed, _journal: Journal) -> int:
    print(f"EKS Pod Identity Agent version {__version__}")
    return 0


_COMMANDS = {
    "initialize": _Command("Create the link and the addresses that pods call", (), _initialize),
    "server": _Command("Serve credentials to pods", SERVER_FLAGS, _server),
    "version": _Command("Print the version", (), _version),
}


def main() -> NoReturn:
    """Run the program with the arguments of the process.

    It ends without Python's tidying up, which would take longer than a start's first half, or wait for a thread that
    asks for the node's credentials: the pod that comes next waits for the end of this one (AGT-818).
    """
    code = run(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run the program; return its exit code."""
    try:
        root = parse_flags(arguments, [_VERBOSITY], interspersed=False)
    except HelpRequested:
        print(_root_help())
        return 0
    except FlagError as error:
        return _fail(error, _root_usage())
    if not root.arguments:
        print(_root_help())
        return 0
    name, *rest = root.arguments
    if name == "help":
        return _help(rest)
    if name not in _COMMANDS:
        return _fail(f'unknown command "{name}" for "{PROGRAM}"', f"Run '{PROGRAM} --help' for usage.")
    return _run_command(name, root, rest)


def _run_command(name: str, root: Parsed, arguments: list[str]) -> int:
    command = _COMMANDS[name]
    try:
        parsed = parse_flags(arguments, [*command.flags, _VERBOSITY])
    except HelpRequested:
        print(_command_help(name))
        return 0
    except FlagError as error:
        return _fail(error, _command_usage(name))
    given = parsed.values.get("verbosity") or root.values.get("verbosity") or ["info"]
    level = str(given[-1])
    if level.lower() not in LEVELS:
        return _fail(f'Invalid logging verbosity: "{level}" is none of {", ".join(LEVELS)}')
    number = LEVELS[level.lower()]
    print(format_go_log_line(f"Setting logging verbosity level to: {level} ({number})"), file=sys.stderr)
    try:
        return command.run(parsed, Journal(level))
    except ConfigurationError as error:
        return _fail(error)


def _fail(reason: object, usage: str = "") -> int:
    print(f"Error: {reason}", file=sys.stderr)
    if usage:
        print(usage, file=sys.stderr)
    return 1


def _help(arguments: list[str]) -> int:
    name = arguments[0] if arguments else ""
    if name and name not in _COMMANDS:
        print(f"Unknown help topic [`{name}`]")
    print(_command_help(name) if name in _COMMANDS else _root_help())
    return 0


def _root_help() -> str:
    return f"An EKS Pod Identity Agent: hands credentials of IAM roles to pods\n\n{_root_usage()}"


def _root_usage() -> str:
    commands = {**{name: command.summary for name, command in _COMMANDS.items()}, "help": "Help about any command"}
    lines = [f"  {name:12}{summary}" for name, summary in sorted(commands.items())]
    return "\n".join(
        [
            f"Usage:\n  {PROGRAM} [command]\n\nAvailable Commands:",
            *lines,
            f"\nFlags:\n{_flag_lines((_VERBOSITY,), 'for ' + PROGRAM)}",
            f'\nUse "{PROGRAM} [command] --help" for more information about a command.',
        ]
    )


def _command_help(name: str) -> str:
    return f"{_COMMANDS[name].summary}\n\n{_command_usage(name)}"


def _command_usage(name: str) -> str:
    flags = _flag_lines(_COMMANDS[name].flags, f"for {name}")
    return f"Usage:\n  {PROGRAM} {name} [flags]\n\nFlags:\n{flags}\n\nGlobal Flags:\n{_flag_line(_VERBOSITY)}"


def _flag_lines(flags: tuple[Flag, ...], of: str) -> str:
    help_flag = Flag("help", str, f"help {of}", "h", boolean=True)
    return "\n".join(_flag_line(flag) for flag in sorted((*flags, help_flag), key=lambda flag: flag.name))


def _flag_line(flag: Flag) -> str:
    short = f"-{flag.short}, " if flag.short else "    "
    default = f" (default {flag.default})" if flag.default else ""
    return f"  {short}--{flag.name + (' ' + flag.kind if flag.kind else ''):52} {flag.usage}{default}"
