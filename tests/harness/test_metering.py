"""What agent and webhook use: read from /proc, counted over a test and over a scenario."""

from __future__ import annotations

import os
import subprocess
from types import SimpleNamespace
from typing import Any

from harness.cluster.base import Completed, Node
from harness.conformance.usage import Reading, total_use, use_between
from harness.metering import PodMeter, parse_readings

OUTPUT = """\
container aaa files 11
70 (python3 (x) y) S 1 70 70 0 -1 4194560 9 0 0 0 150 50 0 0 20 0 4 0 8675 999 1 2
VmHWM:\t   51200 kB
VmRSS:\t   40960 kB
Threads:\t4
container bbb files 7
71 (gone) S 1 70 70 0 -1 4194560 9 0 0 0 1 1 0 0 20 0 4 0 8676 999 1 2
"""


def reading(**members: Any) -> Reading:
    values: dict[str, Any] = {"program": "agent", "rss_mib": 40.0, "rss_peak_mib": 50.0, "cpu_s": 2.0}
    return Reading(**values | {"threads": 4, "fds": 11} | members)


def test_a_process_is_read_and_one_that_ended_meanwhile_is_left_out() -> None:
    assert os.sysconf("SC_CLK_TCK") == 100
    assert parse_readings(OUTPUT, {"aaa": "agent", "bbb": "webhook"}, "node") == {"node/70@8675": reading()}


def test_a_test_s_cpu_is_what_came_on_top() -> None:
    before = {"70": reading(cpu_s=1.5), "old": reading(cpu_s=9.0)}
    after = {"70": reading(), "new": reading(cpu_s=0.25)}

    assert use_between(before, after)["agent"] == {
        "rss_mib": 80.0,
        "rss_peak_mib": 100.0,
        "cpu_s": 0.75,
        "threads": 8.0,
        "fds": 22.0,
    }
    assert use_between(before, {}) == {}


def test_over_a_scenario_cpu_adds_up_and_of_all_else_the_most_counts() -> None:
    uses = [{"agent": {"cpu_s": 0.5, "rss_peak_mib": 60.0}}, {}, {"agent": {"cpu_s": 0.25, "rss_peak_mib": 50.0}}]

    assert total_use(uses) == {"agent": {"cpu_s": 0.75, "rss_peak_mib": 60.0}}


class HereCluster:
    """Stands in for a cluster: its node is this machine, and its agent's container is wherever this process runs."""

    nodes = (Node("here", "127.0.0.1", "i-1"),)

    def __init__(self, *, breaks: bool = False) -> None:
        self._breaks = breaks

    def run_on_node(self, node: str, command: list[str], *, timeout: float) -> Completed:
        if self._breaks:
            raise subprocess.TimeoutExpired(command, timeout)
        assert (node, command[-1]) == ("here", "0123abcd|4567cdef")
        # No process here is in a container of that name: this one stands in.
        script = command[2].replace('grep -HoE "$1" /proc/[0-9]*/cgroup', f"echo /proc/{os.getpid()}/cgroup:0123abcd")
        done = subprocess.run([*command[:2], script, *command[3:]], capture_output=True, text=True, check=False)
        return Completed(done.returncode, done.stdout, done.stderr)


def pods(**containers: str) -> Any:
    items = [
        SimpleNamespace(
            metadata=SimpleNamespace(name=f"{name.replace('_', '-')}-x7"),
            status=SimpleNamespace(container_statuses=[SimpleNamespace(container_id=f"containerd://{identifier}")]),
        )
        for name, identifier in containers.items()
    ]
    core = SimpleNamespace(list_namespaced_pod=lambda *_, **__: SimpleNamespace(items=items))
    return SimpleNamespace(core=core)


KUBE = pods(eks_pod_identity_agent="0123abcd", pod_identity_webhook="4567cdef", coredns="89")


def test_a_lap_counts_from_the_one_before() -> None:
    cluster: Any = HereCluster()
    meter = PodMeter(cluster, KUBE)

    first, second = meter.lap(), meter.lap()

    assert second["agent"]["cpu_s"] < first["agent"]["cpu_s"]
    assert second["agent"]["rss_mib"] > 0


def test_processes_are_read_where_the_pods_run() -> None:
    cluster: Any = HereCluster()

    (found,) = PodMeter(cluster, KUBE).read().values()

    assert found.program == "agent"
    assert 0 < found.rss_mib <= found.rss_peak_mib
    assert found.cpu_s > 0
    assert (found.threads >= 1, found.fds >= 3) == (True, True)


def test_what_cannot_be_read_is_not_reported() -> None:
    cluster: Any = HereCluster(breaks=True)

    assert PodMeter(cluster, KUBE).read() == {}
