"""The agent's speed, memory and start beside another agent's (``nox -s bench -- agent``; contract, chapter 11).

Both agents run in one session against the same stand-in for EKS Auth and are measured by turns, so that what the
machine does meanwhile meets both. Throughput and mass starts need agents without the limit of 1,000 requests a second:
ours is started so, another one by ``--peer-unlimited-command``. No test fails on what is printed here; what the
contract asks of it is said below the table, and a MUST that is not met ends the bench with 1.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import platform
import resource
import shlex
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import podid_agent
from agent_findings import (
    AT_RATE_P99,
    CONNECTIONS,
    LIMIT,
    ONE_CORE_START,
    SLOWEST_POD,
    Finding,
    Row,
    at_limit,
    findings,
    hits,
    processor_at_limit,
)
from bench_aws import processor_seconds
from http_load import Load, connect, exchange, request, run_at_rate, run_flat_out, run_pods

from harness.progress import Progress
from harness.subject.agent import Agent, AgentCommand
from harness.subject.eks_auth import FakeEKSAuth, grant
from harness.subject.memory import resident_bytes
from harness.subject.pod_token import make_token

UNLIMITED = (
    "from podid_agent import cli, credentials_endpoint as e; e._REQUESTS_PER_SECOND = e._BURST = 10**9;"
    "raise SystemExit(cli.main())"
)
RATE = 900
RATE_CONNECTIONS = 16
PODS, POD_CONNECTIONS, POD_TURNS = 500, 4, 4
ENTRIES = 2000
TOKEN_BYTES = 1200
"""About what a projected token has."""


@dataclass(frozen=True, slots=True)
class Contender:
    """An agent in two forms."""

    name: str
    command: AgentCommand
    unlimited: AgentCommand
    """Without a rate limit."""


def long_token() -> str:
    """Return a token of a pod of its own, as long as a real one."""
    short = make_token()
    return short + "x" * (TOKEN_BYTES - len(short))


@contextmanager
def serving(command: AgentCommand, eks_auth: FakeEKSAuth, *flags: str) -> Iterator[Agent]:
    """Run an agent at the default log level."""
    with command.serving(eks_auth.url, *flags, verbosity="info") as agent:
        agent.require_alive()
        yield agent


def medians(rounds: Sequence[float]) -> float:
    """Return the median of the rounds."""
    return statistics.median(rounds)


# --- What is measured -----------------------------------------------------------------------------------------------


def bench_start(contenders: Sequence[Contender], eks_auth: FakeEKSAuth, rounds: int) -> list[Row]:
    """From the program's start to the first 200, call of EKS Auth included (AGT-1105)."""
    times: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    used: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    alone: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for _ in range(rounds * 3):
        for contender in contenders:
            seconds, processor = start_once(contender, eks_auth)
            times[contender.name].append(seconds)
            used[contender.name].append(processor)
            alone[contender.name].append(start_once(contender, eks_auth, within=("taskset", "--cpu-list", "0"))[0])
    return [
        Row("start to first 200", "ms", {n: medians(v) * 1e3 for n, v in times.items()}, "<= 300 ms"),
        Row("start to first 200, processor", "ms", {n: medians(v) * 1e3 for n, v in used.items()}),
        Row(ONE_CORE_START, "ms", {n: medians(v) * 1e3 for n, v in alone.items()}, "<= 1,000 ms"),
    ]


def start_once(contender: Contender, eks_auth: FakeEKSAuth, within: Sequence[str] = ()) -> tuple[float, float]:
    """Start an agent for one request.

    Returns:
        Seconds until its 200, and seconds of processor until then.
    """
    started = time.perf_counter()
    with contender.command.serving(eks_auth.url, verbosity="info", within=within, wait_until_listening=False) as agent:
        data = request(long_token())
        while True:
            try:
                sock = socket.create_connection(("127.0.0.1", agent.port), timeout=10)
            except ConnectionRefusedError:
                time.sleep(0.001)
                continue
            with sock:
                expect_200(exchange(sock, data))
            break
        return time.perf_counter() - started, processor_seconds(agent.process.pid)


def bench_hits(contenders: Sequence[Contender], eks_auth: FakeEKSAuth, rounds: int, seconds: float) -> list[Row]:
    """Cached hits a second over kept connections (AGT-1102)."""
    rows: list[Row] = []
    for connections in CONNECTIONS:
        loads = by_turns(
            contenders,
            eks_auth,
            rounds,
            lambda agent, data, connections=connections: run_flat_out(agent.port, data, connections, seconds),
        )
        name = hits(connections)
        rows += [
            Row(name, "/s", _median(loads, lambda load: load.per_second), ">= 1.5"),
            Row(f"{name}, p50", "us", _median(loads, lambda load: load.quantile_us(50))),
            Row(f"{name}, p99", "us", _median(loads, lambda load: load.quantile_us(99))),
            Row(f"{name}, client's processor", "%", _median(loads, client_share)),
        ]
    return rows


def bench_rate(contenders: Sequence[Contender], eks_auth: FakeEKSAuth, rounds: int, seconds: float) -> list[Row]:
    """Latency and processor time at a fixed rate, as a busy node has it (AGT-1101)."""
    loads, used = at_rate(contenders, eks_auth, rounds, connections=RATE_CONNECTIONS, rate=RATE, seconds=seconds)
    return [
        Row(f"{RATE}/s, p50", "us", _median(loads, lambda load: load.quantile_us(50))),
        Row(AT_RATE_P99, "us", _median(loads, lambda load: load.quantile_us(99)), "<= 0.7"),
        Row(f"{RATE}/s, processor per 1,000 hits", "ms", used, "<= 0.5"),
        Row(f"{RATE}/s, refused", "", _median(loads, lambda load: float(load.refused))),
    ]


def bench_limit(contenders: Sequence[Contender], eks_auth: FakeEKSAuth, rounds: int, seconds: float) -> list[Row]:
    """What it costs to answer as fast as the rate limit lets through (AGT-1102)."""
    rows: list[Row] = []
    for connections in CONNECTIONS:
        loads, used = at_rate(contenders, eks_auth, rounds, connections=connections, rate=LIMIT, seconds=seconds)
        rows += [
            Row(at_limit(connections), "/s", _median(loads, lambda load: load.per_second)),
            Row(processor_at_limit(connections), "ms", used),
        ]
    return rows


def at_rate(
    contenders: Sequence[Contender],
    eks_auth: FakeEKSAuth,
    rounds: int,
    *,
    connections: int,
    rate: float,
    seconds: float,
) -> tuple[Mapping[str, Sequence[Load]], Mapping[str, float]]:
    """Ask at a fixed rate, with the rate limit.

    Returns:
        The loads of each contender, and its milliseconds of processor for 1,000 hits.
    """
    used: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    limited = [Contender(c.name, c.command, c.command) for c in contenders]
    names = {}

    def measure(agent: Agent, data: bytes) -> Load:
        before = processor_seconds(agent.process.pid)
        load = run_at_rate(agent.port, data, connections, rate, seconds)
        spent = processor_seconds(agent.process.pid) - before
        used[names[agent.process.pid]].append(spent * 1e6 / len(load.latencies))
        return load

    loads = by_turns(limited, eks_auth, rounds, measure, names)
    return loads, {name: medians(taken) for name, taken in used.items()}


def bench_misses(contenders: Sequence[Contender], eks_auth: FakeEKSAuth, count: int) -> list[Row]:
    """Latency of first requests, one after the other, on a kept connection."""
    times: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for contender in contenders:
        with serving(contender.command, eks_auth) as agent, connect(agent.port) as sock:
            for turn in range(count + 10):
                data = request(long_token())
                started = time.perf_counter()
                expect_200(exchange(sock, data))
                if turn >= 10:
                    times[contender.name].append(time.perf_counter() - started)
    quantiles = {name: statistics.quantiles(taken, n=100) for name, taken in times.items()}
    return [
        Row("cold miss, p50", "us", {name: found[49] * 1e6 for name, found in quantiles.items()}),
        Row("cold miss, p99", "us", {name: found[98] * 1e6 for name, found in quantiles.items()}),
    ]


def bench_cold_start(contenders: Sequence[Contender], eks_auth: FakeEKSAuth, rounds: int) -> list[Row]:
    """500 pods start at once and ask 16 times each (AGT-1103, AGT-1107)."""
    calls: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    slowest: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    refusals: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for _ in range(rounds):
        for contender in contenders:
            # Requests of a cold node wait; here nobody is to be refused for it.
            flags = ("--request-timeout", "0") if contender.command.is_ours else ()
            with serving(contender.unlimited, eks_auth, *flags) as agent:
                before = len(eks_auth.calls)
                pods = [request(long_token()) for _ in range(PODS)]
                ends, refused = run_pods(agent.port, pods, POD_CONNECTIONS, POD_TURNS)
                calls[contender.name].append(len(eks_auth.calls) - before)
                slowest[contender.name].append(max(ends))
                refusals[contender.name].append(refused)
    return [
        Row(f"{PODS} pods start, upstream calls", "", {n: medians(v) for n, v in calls.items()}, "= 500"),
        Row(f"{PODS} pods start, refusals", "", {n: medians(v) for n, v in refusals.items()}),
        Row(SLOWEST_POD, "ms", {n: medians(v) * 1e3 for n, v in slowest.items()}, "<= 1"),
    ]


def bench_memory(contenders: Sequence[Contender], eks_auth: FakeEKSAuth) -> list[Row]:
    """Resident memory without and with a full cache (AGT-1104)."""
    idle: dict[str, float] = {}
    full: dict[str, float] = {}
    for contender in contenders:
        with serving(contender.unlimited, eks_auth) as agent, connect(agent.port) as sock:
            # What only a first request brings belongs to no entry.
            expect_200(exchange(sock, request(long_token())))
            idle[contender.name] = resident_bytes(agent.process.pid)
            for _ in range(ENTRIES):
                expect_200(exchange(sock, request(long_token())))
            full[contender.name] = resident_bytes(agent.process.pid)
    per_entry = {name: (full[name] - idle[name]) / ENTRIES / 1024 for name in idle}
    mebibytes = 1024 * 1024
    return [
        Row("memory, idle", "MiB", {name: value / mebibytes for name, value in idle.items()}, "<= 40 MiB"),
        Row(f"memory, {ENTRIES:,} entries", "MiB", {name: value / mebibytes for name, value in full.items()}),
        Row("memory, per entry", "KiB", per_entry, "<= 8 KiB"),
    ]


# --- How ------------------------------------------------------------------------------------------------------------


def by_turns(
    contenders: Sequence[Contender],
    eks_auth: FakeEKSAuth,
    rounds: int,
    measure: Callable[[Agent, bytes], Load],
    names: dict[int, str] | None = None,
) -> dict[str, list[Load]]:
    """Measure each contender once a round, each round with new processes, on one cached token."""
    loads: dict[str, list[Load]] = {contender.name: [] for contender in contenders}
    for _ in range(rounds):
        for contender in contenders:
            with serving(contender.unlimited, eks_auth) as agent:
                if names is not None:
                    names[agent.process.pid] = contender.name
                data = request(long_token())
                with connect(agent.port) as sock:
                    for _ in range(200):
                        expect_200(exchange(sock, data))
                time.sleep(0.5)  # a limit that the warm-up used up fills again
                loads[contender.name].append(measure(agent, data))
    return loads


def _median(loads: Mapping[str, Sequence[Load]], value: Callable[[Load], float]) -> dict[str, float]:
    return {name: medians([value(load) for load in taken]) for name, taken in loads.items()}


def client_share(load: Load) -> float:
    """Return how much of a processor the client used: near 100 it, and not the agent, is what was measured."""
    return 100 * load.client_processor_seconds / load.seconds


def expect_200(answer: bytes) -> None:
    """End the bench if an agent does not give credentials."""
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise SystemExit(f"an agent answered {answer[:300].decode(errors='replace')!r}")


def print_table(rows: Sequence[Row]) -> None:
    """Print all rows on stdout."""
    print(f"\n{'':52}{'':>4} {'ours':>10} {'peer':>10} {'ours/peer':>10}  target")
    for row in rows:
        peer = row.values.get("peer")
        theirs = f"{peer:10,.1f}" if peer is not None else f"{'-':>10}"
        ratio = f"{row.ratio:10.2f}" if row.ratio is not None else f"{'-':>10}"
        print(f"{row.name:52}{row.unit:>4} {row.values['ours']:10,.1f} {theirs} {ratio}  {row.target}")


def save(rows: Sequence[Row], decided: Sequence[Finding], contenders: Sequence[Contender], directory: Path) -> Path:
    """Write what was measured as JSON, beside the reports of the suites."""
    now = datetime.now(UTC)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"bench-agent-{now:%Y%m%d-%H%M%S}.json"
    document = {
        "measured_at": now.isoformat(timespec="seconds"),
        "machine": {"processors": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()},
        "commands": {contender.name: shlex.join(contender.command.words) for contender in contenders},
        "rows": [
            {"name": r.name, "unit": r.unit, "values": dict(r.values), "ratio": r.ratio, "target": r.target}
            for r in rows
        ],
        "requirements": [{"id": f.id, "level": f.level, "met": f.is_met, "why": f.why} for f in decided],
    }
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-command", default="", help="another agent, such as /opt/eks-pod-identity-agent")
    parser.add_argument(
        "--peer-unlimited-command", default="", help="the same without its rate limit (default: with it)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each measurement; medians are told")
    parser.add_argument("--seconds", type=float, default=4.0, help="seconds of each round under load")
    parser.add_argument("--reports", type=Path, default=Path("reports"), help="where the JSON goes")
    arguments = parser.parse_args()
    # As in the image; an environment may forbid Python to keep what it compiles.
    compileall.compile_dir(Path(podid_agent.__path__[0]), quiet=1)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536), hard))

    unlimited = AgentCommand((sys.executable, "-c", UNLIMITED), is_ours=True)
    contenders = [Contender("ours", AgentCommand.of("", is_ours=True), unlimited)]
    if arguments.peer_command:
        peer = AgentCommand.of(arguments.peer_command, is_ours=False)
        lifted = arguments.peer_unlimited_command
        contenders.append(Contender("peer", peer, AgentCommand.of(lifted, is_ours=False) if lifted else peer))
    eks_auth = FakeEKSAuth(otherwise=grant("x" * 100))
    rounds, seconds = arguments.rounds, arguments.seconds
    steps: dict[str, Callable[[], list[Row]]] = {
        "start": lambda: bench_start(contenders, eks_auth, rounds),
        "memory": lambda: bench_memory(contenders, eks_auth),
        "misses": lambda: bench_misses(contenders, eks_auth, 500),
        "hits": lambda: bench_hits(contenders, eks_auth, rounds, seconds),
        "fixed rate": lambda: bench_rate(contenders, eks_auth, rounds, seconds * 2),
        "rate limit": lambda: bench_limit(contenders, eks_auth, rounds, seconds),
        "cold start": lambda: bench_cold_start(contenders, eks_auth, rounds),
    }
    rows: list[Row] = []
    try:
        with Progress() as progress, progress.phase("bench", len(steps)) as phase:
            for name, step in steps.items():
                phase.step(name)
                rows += step()
    finally:
        eks_auth.close()
    print_table(rows)
    decided = findings(rows)
    print("\n" + "\n".join(map(str, decided)))
    print(f"\n{save(rows, decided, contenders, arguments.reports)}")
    if any(finding.is_fatal for finding in decided):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
