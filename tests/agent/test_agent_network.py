"""`initialize`, in a network namespace of its own (AGT section 5.1); needs no privileges, but user namespaces."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

UNSHARE = ("unshare", "--user", "--map-root-user", "--net", "--")
INITIALIZE = f"{sys.executable} -m podid_agent initialize"

pytestmark = pytest.mark.skipif(
    not shutil.which("unshare")
    or subprocess.run((*UNSHARE, "ip", "link"), capture_output=True, check=False).returncode != 0,
    reason="prerequisite: needs unshare, ip and unprivileged user namespaces (Ubuntu: AppArmor may forbid them)",
)


def run(script: str) -> subprocess.CompletedProcess[str]:
    """Run shell commands in a new network namespace, as its root."""
    command = (*UNSHARE, "sh", "-ec", script)
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_both_addresses_are_there_and_a_second_run_changes_nothing() -> None:
    """AGT-501 to AGT-504, AGT-508, AGT-511 to AGT-513: whatever kind of link this kernel offers."""
    state = "ip -o address show scope global; ip route show table main; ip -6 route show table main"
    done = run(f"{INITIALIZE} >&2; {state}; echo ===; {INITIALIZE} >&2; {state}")

    assert done.returncode == 0, done.stderr
    first, second = done.stdout.split("===\n")
    assert first == second
    assert "inet 169.254.170.23/32 scope global" in first
    assert "inet6 fd00:ec2::23/128 scope global" in first
    assert "tentative" not in first
    assert "169.254.170.23 dev " in first
    assert "\nfd00:ec2::23 dev " in first


def test_a_link_that_exists_is_used() -> None:
    """AGT-501, AGT-502: of whatever kind, and a wider prefix of its own holds the address already."""
    done = run(f"""
        ip link add pod-id-link0 type veth
        ip address add 169.254.170.23/24 dev pod-id-link0
        {INITIALIZE} >&2
        ip -o -4 address show dev pod-id-link0
    """)

    assert done.returncode == 0, done.stderr
    assert "inet 169.254.170.23/24 " in done.stdout
    assert "inet 169.254.170.23/32 " not in done.stdout


def test_node_without_ipv6_gets_ipv4() -> None:
    """AGT-506."""
    done = run(f"""
        for place in all default; do echo 1 > /proc/sys/net/ipv6/conf/$place/disable_ipv6; done
        {INITIALIZE}
        ip route show table main
    """)

    assert done.returncode == 0, done.stderr
    assert "Going on without fd00:ec2::23" in done.stdout
    assert "\n169.254.170.23 dev " in done.stdout


def test_route_over_another_link_is_refused() -> None:
    """AGT-505 to AGT-507."""
    done = run(f"""
        ip link set lo up
        ip route add 169.254.170.23/32 dev lo
        {INITIALIZE}
    """)

    assert done.returncode == 1
    assert "Unable to initalize agent: expected route 169.254.170.23/32 to be interface index " in done.stderr
    assert "but is 1, please remove route and try again" in done.stderr
