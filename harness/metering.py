"""Reads what agent and webhook use, of their processes on the nodes of a cluster: the same on kind and natively.

Everything comes from ``/proc``, which says the same with cgroup v1, cgroup v2 and none; cgroups only tell which
processes are a container's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from harness.cluster.base import Cluster
from harness.conformance.record import Use
from harness.conformance.usage import Reading, Readings, use_between
from harness.kube import Kube

__all__ = ["PodMeter", "parse_readings"]

_PROGRAMS = {"eks-pod-identity-agent": "agent", "pod-identity-webhook": "webhook"}
"""Beginning of a pod's name → program."""
_NAMESPACE = "kube-system"
_SECONDS = 10.0
_TICKS = os.sysconf("SC_CLK_TCK")

# Writing 5 to clear_refs starts VmHWM afresh: the next peak is of what follows. A process may end at any moment.
_SCRIPT = r"""
grep -HoE "$1" /proc/[0-9]*/cgroup 2>/dev/null | sort -u | while IFS=: read -r file id; do
  process=${file%/cgroup}
  echo "container $id files $(ls "$process/fd" 2>/dev/null | wc -l)"
  cat "$process/stat" 2>/dev/null
  grep -E "^(VmRSS|VmHWM|Threads):" "$process/status" 2>/dev/null
  { echo 5 > "$process/clear_refs"; } 2>/dev/null
done
"""


class PodMeter:
    """Reads the processes of the agent's and the webhook's containers."""

    def __init__(self, cluster: Cluster, kube: Kube) -> None:
        """Keep the cluster and an administrator of it."""
        self._cluster = cluster
        self._core: Any = kube.core
        self._last: Readings = {}

    def lap(self) -> Use:
        """Return what each program used since the last lap; since its start, if there was none."""
        now = self.read()
        use = use_between(self._last, now)
        self._last = now
        return use

    def read(self) -> Mapping[str, Reading]:
        """Read, and start peaks afresh."""
        readings: dict[str, Reading] = {}
        try:
            containers = self._containers()
            for node in self._cluster.nodes if containers else ():
                command = ["sh", "-c", _SCRIPT, "meter", "|".join(containers)]
                done = self._cluster.run_on_node(node.name, command, timeout=_SECONDS)
                readings |= parse_readings(done.stdout, containers, node.name)
        except Exception:  # noqa: BLE001 - what cannot be read is not reported, and never decides about a test
            return {}
        return readings

    def _containers(self) -> dict[str, str]:
        """Return container ID → program."""
        found: dict[str, str] = {}
        for pod in self._core.list_namespaced_pod(_NAMESPACE, _request_timeout=_SECONDS).items:
            program = next((name for prefix, name in _PROGRAMS.items() if pod.metadata.name.startswith(prefix)), "")
            statuses: list[Any] = pod.status.container_statuses or [] if program else []
            identifiers = [str(status.container_id or "").rpartition("/")[2] for status in statuses]
            found |= {identifier: program for identifier in identifiers if identifier}
        return found


def parse_readings(text: str, containers: Mapping[str, str], node: str) -> dict[str, Reading]:
    """Read the script's output; a process that ended meanwhile is left out.

    Args:
        text: The output.
        containers: Container ID → program.
        node: The node's name, which makes a process's key unique.
    """
    readings: dict[str, Reading] = {}
    for block in re.split(r"^container ", text, flags=re.MULTILINE)[1:]:
        identifier, _, files = block.partition("\n")[0].split()
        members = dict(re.findall(r"^(\w+):\s+([0-9]+)", block, flags=re.MULTILINE))
        # The second field of stat is the program's name, which may have blanks and brackets of its own.
        stat = re.search(r"^([0-9]+) \(.*\) (.*)$", block, flags=re.MULTILINE)
        if not stat or not members.keys() >= {"VmRSS", "VmHWM", "Threads"}:
            continue
        fields = stat[2].split()
        # Counted from the third field: utime, stime and starttime are the 14th, 15th and 22nd.
        readings[f"{node}/{stat[1]}@{fields[19]}"] = Reading(
            program=containers[identifier],
            rss_mib=int(members["VmRSS"]) / 1024,
            rss_peak_mib=int(members["VmHWM"]) / 1024,
            cpu_s=(int(fields[11]) + int(fields[12])) / _TICKS,
            threads=int(members["Threads"]),
            fds=int(files),
        )
    return readings
