"""`initialize`, and who can reach the listeners: in network namespaces of their own (chapter 5 of the contract).

They need no privileges but user namespaces. The commands run as root of a fresh namespace, whose only link is a
loopback that is down.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping

import pytest

from harness.conformance.marks import requirement
from harness.conformance.outcomes import could_not_run
from harness.conformance.recording import check
from harness.subject.agent import AgentCommand

UNSHARE = ("unshare", "--user", "--map-root-user", "--net", "--")
ONLY_NET_ADMIN = "setpriv --bounding-set=-all,+net_admin --inh-caps=-all"
WITHOUT_NET_ADMIN = "setpriv --bounding-set=-net_admin --inh-caps=-net_admin"
STATE = """
ip -o address show scope global
ip route show table main
ip -6 route show table main
"""
# Asks addresses in turn for a path, each until it is answered or its seconds are over, and prints what came of it.
ASK = """
import socket, sys, time
for question in sys.argv[1:]:
    address, port, path, seconds = question.split(",")
    give_up_at, found = time.monotonic() + float(seconds), "refused"
    while True:
        try:
            with socket.create_connection((address, int(port)), timeout=5) as sock:
                sock.sendall(f"GET {path} HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n".encode())
                found = sock.recv(100).split()[1].decode()
        except OSError:
            pass
        if found in {"200", "404"} or time.monotonic() > give_up_at:
            break
        time.sleep(0.1)
    print(address, port, path, found)
"""

# Asks the probe port for paths, and prints status and body of each.
PROBE = """
import sys, urllib.error, urllib.request
for path in sys.argv[1:]:
    try:
        answer = urllib.request.urlopen(f"http://127.0.0.1:2703{path}", timeout=15)
    except urllib.error.HTTPError as error:
        answer = error
    print(path, answer.status, ascii(answer.read().decode()))
"""

Scripts = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module", autouse=True)
def _namespaces() -> None:
    """End the tests here if this machine gives nobody a network namespace."""
    lacking = [name for name in ("unshare", "ip", "setpriv") if not shutil.which(name)]
    if lacking:
        could_not_run("prerequisite", f"needs {', '.join(lacking)}: install util-linux and iproute2")
    tried = subprocess.run((*UNSHARE, "ip", "link"), capture_output=True, text=True, timeout=30, check=False)
    if tried.returncode != 0:
        could_not_run(
            "prerequisite", f"user namespaces are forbidden here (AppArmor may do so): {tried.stderr.strip()}"
        )


@pytest.fixture
def run(agent_command: AgentCommand) -> Scripts:
    """Run shell commands in a namespace; ``$agent`` and ``$ask`` are what they ask with."""
    prefix = f"agent={shlex.quote(shlex.join(agent_command.words))}\nask={shlex.quote(f'{sys.executable} -c')}\n"

    def script(text: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        variables = {
            "PATH": os.environ["PATH"],
            "HOME": "/nonexistent",
            "ASK": ASK,
            "PROBE": PROBE,
            "AWS_REGION": "eu-west-1",
        }
        return subprocess.run(
            (*UNSHARE, "bash", "-ec", prefix + text),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**variables, **(env or {})},
        )

    return script


@pytest.fixture
def link(agent_command: AgentCommand, run: Scripts) -> str:
    """Return a command that makes the link, for an agent that needs a driver which this kernel lacks; else nothing."""
    if agent_command.is_ours or run("ip link add probe type dummy").returncode == 0:
        return ""
    return "ip link add pod-id-link0 type ifb"


# --- initialize -----------------------------------------------------------------------------------------------------


@requirement("AGT-502", "AGT-503", "AGT-504", "AGT-508", "AGT-512", "AGT-513")
def test_both_addresses_are_there_and_a_second_run_changes_nothing(run: Scripts, link: str) -> None:
    """On a link that is up, with a host route each; the IPv6 address can be used at once."""
    done = run(
        f"{link}\n$agent initialize >&2; ip -o link show up >&2; {STATE} echo ===; $agent initialize >&2; {STATE}"
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.split("===\n")

    ipv4, ipv6 = first.find(" inet 169.254.170.23/32 "), first.find(" inet6 fd00:ec2::23/128 ")
    check("AGT-502", expected="both", observed=first, holds=min(ipv4, ipv6) >= 0)
    device = first[: max(0, ipv4)].split()[-1:]
    up = [line.split(": ")[1] for line in done.stderr.splitlines() if "state" in line and ",UP" in line]
    check("AGT-503", expected=device, observed=up, holds=set(device) <= set(up) and bool(device))
    routes = (
        all(f"{address} dev {device[0]}" in first for address in ("169.254.170.23", "fd00:ec2::23")) if device else ""
    )
    check("AGT-504", expected="a route each over that link", observed=first, holds=bool(routes))
    check("AGT-508", expected=first, observed=second)
    check("AGT-512", expected="an address without duplicate detection", observed=first, holds="nodad" in first)
    check("AGT-513", expected="no tentative address", observed=first, holds=ipv6 >= 0 and "tentative" not in first)


@requirement("AGT-501", "AGT-511")
def test_there_is_a_link_whatever_the_kernel_has(run: Scripts, agent_command: AgentCommand) -> None:
    """A dummy one called pod-id-link0; without that driver another kind, or the loopback, and a warning names it."""
    done = run(
        "ip link add probe type dummy && ip link del probe && echo has-dummy; $agent initialize; ip -d link show"
    )
    has_dummy = done.stdout.startswith("has-dummy")
    if not has_dummy and not agent_command.is_ours:
        could_not_run("prerequisite", "this kernel has no dummy driver, without which AWS's agent makes no link")

    there = "pod-id-link0" in done.stdout
    check("AGT-501", expected="pod-id-link0", observed=done.stdout, holds=there and done.returncode == 0)
    warned = "The kernel has no" in done.stdout
    check("AGT-511", expected=not has_dummy, observed=warned, what="warning")
    check("AGT-511", expected=0, observed=done.returncode)


@requirement("AGT-501", "AGT-502")
def test_a_link_that_exists_is_used(run: Scripts) -> None:
    """Of whatever kind, and a wider prefix of its own holds the address already."""
    done = run("""
        ip link add pod-id-link0 type ifb
        ip address add 169.254.170.23/24 dev pod-id-link0
        $agent initialize >&2
        ip -o -4 address show
        ip -d link show pod-id-link0
    """)

    check("AGT-501", expected="the same link", observed=done.stdout, holds=" ifb " in done.stdout)
    kept = " inet 169.254.170.23/24 " in done.stdout and " inet 169.254.170.23/32 " not in done.stdout
    check("AGT-502", expected="the wider one alone", observed=done.stdout, holds=kept)
    assert done.returncode == 0, done.stderr


@requirement("AGT-504")
def test_wider_routes_do_not_count(run: Scripts, link: str) -> None:
    """Only a route to that very address does."""
    done = run(f"""
        {link}
        ip link set lo up
        ip route add 169.254.0.0/16 dev lo
        $agent initialize >&2
        ip route show 169.254.170.23
    """)

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("169.254.170.23 dev "), done.stdout


@requirement("AGT-505", "AGT-506")
def test_a_route_over_another_link_is_refused(run: Scripts, link: str) -> None:
    """It is named, with what to do; for IPv4 the exit code is 1."""
    done = run(f"{link}\nip link set lo up\nip route add 169.254.170.23/32 dev lo\n$agent initialize || echo exit $?")

    text = "expected route 169.254.170.23/32 to be interface index "
    said = (
        text in done.stderr + done.stdout and "but is 1, please remove route and try again" in done.stderr + done.stdout
    )
    check("AGT-505", expected=text, observed=done.stderr + done.stdout, holds=said)
    check("AGT-506", expected="exit 1", observed=done.stdout[-200:], holds=done.stdout.endswith("exit 1\n"))


@requirement("AGT-506")
def test_a_node_without_ipv6_gets_ipv4(run: Scripts, link: str) -> None:
    """Its lack is told in the log and does no harm."""
    done = run(f"""
        for place in all default; do echo 1 > /proc/sys/net/ipv6/conf/$place/disable_ipv6; done
        {link}
        $agent initialize
        ip route show table main
    """)

    assert done.returncode == 0, done.stderr
    assert "fd00:ec2::23" in done.stdout
    assert "\n169.254.170.23 dev " in done.stdout


@requirement("AGT-507")
def test_a_link_that_cannot_be_made_ends_it(run: Scripts) -> None:
    """Without the right to, it says so and exits 1."""
    done = run(f"{WITHOUT_NET_ADMIN} $agent initialize || echo exit $?")

    assert "Unable to initalize agent: " in done.stderr
    assert done.stdout.endswith("exit 1\n")


@requirement("AGT-509")
def test_nothing_else_is_changed(run: Scripts, link: str) -> None:
    """No sysctl, no rule, no policy route, and other links keep what they have."""
    state = """
        ip rule show; ip -6 rule show; ip -o -4 address show dev other; ip route show dev other
        if command -v nft >/dev/null; then nft list ruleset 2>/dev/null || true; fi
        for place in ipv4/ip_forward ipv4/conf/{all,default,lo,other}/{forwarding,rp_filter,arp_ignore} \
            ipv6/conf/{all,default,lo,other}/{disable_ipv6,accept_ra,forwarding}; do cat /proc/sys/net/$place; done
    """
    done = run(f"""
        {link}
        ip link add other type bridge; ip address add 10.9.9.1/24 dev other; ip link set other up
        {state}
        $agent initialize >&2
        echo ===
        {state}
    """)

    assert done.returncode == 0, done.stderr
    before, after = done.stdout.split("===\n")
    assert before == after


@requirement("AGT-510")
def test_net_admin_is_all_it_needs(run: Scripts) -> None:
    """With every other capability dropped, the addresses are there."""
    done = run(f"{ONLY_NET_ADMIN} $agent initialize >&2; {STATE}")

    assert done.returncode == 0, done.stderr
    assert " inet 169.254.170.23/32 " in done.stdout


# --- Listeners ------------------------------------------------------------------------------------------------------

SERVER = "$agent server --cluster-name test-cluster >&2 & server=$!; trap 'kill $server' EXIT"


@requirement("AGT-520", "AGT-521", "AGT-610")
def test_each_port_can_be_had_where_it_belongs(run: Scripts, link: str) -> None:
    """Credentials at the two addresses, probes at loopback, whatever proxy is set; nothing at the node's address."""
    questions = [
        "169.254.170.23,80,/,40",
        "fd00:ec2::23,80,/,5",
        "10.9.9.1,80,/,0",
        "127.0.0.1,80,/,0",
        "127.0.0.1,2703,/readyz,10",
        "10.9.9.1,2703,/readyz,0",
    ]
    done = run(
        f"""
        {link}
        ip link set lo up
        ip link add other type bridge; ip address add 10.9.9.1/24 dev other; ip link set other up
        $agent initialize >&2
        {SERVER}
        $ask "$ASK" {" ".join(questions)}
        """,
        {"HTTP_PROXY": "http://10.9.9.9:1", "http_proxy": "http://10.9.9.9:1"},
    )
    assert done.returncode == 0, done.stderr
    told = {line.rpartition(" ")[0]: line.rpartition(" ")[2] for line in done.stdout.splitlines()}

    there = [told["169.254.170.23 80 /"], told["fd00:ec2::23 80 /"]]
    check("AGT-520", expected=["404", "404"], observed=there, what="the two addresses")
    elsewhere = [told["10.9.9.1 80 /"], told["127.0.0.1 80 /"]]
    check("AGT-520", expected=["refused", "refused"], observed=elsewhere, what="other addresses")
    check("AGT-521", expected="refused", observed=told["10.9.9.1 2703 /readyz"])
    check("AGT-610", expected="200", observed=told["127.0.0.1 2703 /readyz"])


@requirement("AGT-523", "AGT-525", "AGT-607")
def test_a_family_that_comes_later_is_served_then(run: Scripts) -> None:
    """A node without IPv6 is ready; once it has the address, that is served within seconds."""
    done = run(f"""
        ip link set lo up
        for place in all default; do echo 1 > /proc/sys/net/ipv6/conf/$place/disable_ipv6; done
        $agent initialize >&2
        {SERVER}
        $ask "$ASK" 169.254.170.23,80,/,40 127.0.0.1,2703,/readyz,10 fd00:ec2::23,80,/,0
        for place in /proc/sys/net/ipv6/conf/*/disable_ipv6; do echo 0 > $place; done
        $agent initialize >&2
        $ask "$ASK" fd00:ec2::23,80,/,10 127.0.0.1,2703,/readyz,10
    """)
    assert done.returncode == 0, done.stderr
    told = [line.rpartition(" ")[2] for line in done.stdout.splitlines()]

    check("AGT-523", expected=["404", "refused"], observed=[told[0], told[2]])
    check(
        "AGT-523",
        expected="a warning",
        observed=done.stderr[-2000:],
        holds="Not serving on fd00:ec2::23" in done.stderr,
    )
    check("AGT-607", expected="200", observed=told[1])
    check("AGT-525", expected=["404", "200"], observed=told[3:])


@requirement("AGT-603", "AGT-608")
def test_an_agent_with_a_deaf_listener_is_alive_but_not_ready(
    run: Scripts, link: str, agent_command: AgentCommand
) -> None:
    """Its node loses one of the two addresses: readiness is 500 with a fixed text, and ours is still alive."""
    done = run(f"""
        {link}
        ip link set lo up
        $agent initialize >&2
        {SERVER}
        $ask "$ASK" 169.254.170.23,80,/,40 fd00:ec2::23,80,/,5 127.0.0.1,2703,/readyz,10 >&2
        $ask "$PROBE" /readyz /healthz
        ip address del 169.254.170.23/32 dev $(ip -o address show to 169.254.170.23/32 | awk '{{ print $2 }}')
        $ask "$PROBE" /readyz /healthz
    """)
    assert done.returncode == 0, done.stderr
    ready_before, alive_before, ready, alive = done.stdout.splitlines()

    unready = "/readyz 500 'Internal Server Error occurred'"
    check("AGT-603", expected=("/readyz 200 ''", unready), observed=(ready_before, ready))
    if agent_command.is_ours:
        check("AGT-608", expected=["/healthz 200 ''"] * 2, observed=[alive_before, alive])
