"""What the lab's AWS adds to LocalStack, and whether it slows down with its contents (``nox -s bench``).

Two processes on loopback, ours and LocalStack without guard, gate and recorder, get the same calls by turns. No test
fails on what is printed here (IAM-PERF-07).
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from harness import limits, wait
from harness.cloud.localstack import environment
from harness.lab.paths import cache_directory
from harness.progress import Progress
from harness.subject.aws import ACCOUNT, CLUSTER, REGION, Aws, user_key
from harness.subject.bound_cluster import ApiServerDouble
from harness.subject.running_aws import bound_cluster, running_aws

BARE = (
    "from harness.cloud.localstack import internals, serve; internals.install_handlers = lambda **_: None; serve.main()"
)
PODS = {"Service": "pods.eks.amazonaws.com"}
CLUSTER_PATH = f"/clusters/{CLUSTER}"
ASSOCIATIONS = f"{CLUSTER_PATH}/pod-identity-associations"
IDLE = 20
"""Seconds after which a connection is made anew: the server closes idle ones."""
SAMPLES = 100
"""Calls that a row is made of."""


class Client:
    """One kept connection; requests are signed by botocore before the clock runs."""

    def __init__(self, aws: Aws, key: Any) -> None:
        address = urlsplit(aws.endpoint)
        self._endpoint = aws.endpoint
        self._connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=60)
        self._used_at = 0.0
        self._credentials = Credentials(key.access_key_id, key.secret_access_key)

    def call(self, service: str, method: str, path: str, body: Any = None) -> tuple[float, Any]:
        """Return the seconds that a call took, and its answer."""
        data = b"" if body is None else json.dumps(body).encode()
        request = AWSRequest(method, self._endpoint + path, {"Content-Type": "application/json"}, data)
        signer = S3SigV4Auth if service == "s3" else SigV4Auth
        signer(self._credentials, service, REGION).add_auth(request)
        headers = dict(request.headers.items())
        start = time.perf_counter()
        if start - self._used_at > IDLE:
            self._connection.close()
            self._connection.connect()
            start = time.perf_counter()
        self._connection.request(method, path, data, headers)
        answer = self._connection.getresponse()
        text = answer.read()
        self._used_at = time.perf_counter()
        took = self._used_at - start
        if answer.status >= 300:
            raise AssertionError(f"{method} {path}: {answer.status} {text.decode()}")
        return took, text


def is_alive(aws: Aws, stopped: Callable[[], str | None]) -> None:
    """Wait for LocalStack's own word that it is up: the bare process knows no other."""

    def health() -> str:
        if reason := stopped():
            raise AssertionError(reason)
        with urllib.request.urlopen(f"{aws.endpoint}/_localstack/health", timeout=5) as answer:
            return str(answer.status)

    wait.until(health, what="LocalStack", timeout=limits.EMULATOR_READY, transient=(OSError,))


def milliseconds(times: list[float]) -> str:
    """Return median and 99th percentile."""
    return f"{statistics.median(times) * 1e3:9.2f} {statistics.quantiles(times, n=100)[98] * 1e3:9.2f}"


def processor_seconds(pid: int) -> float:
    """Return the processor time that a process has used: unlike waiting, other processes hardly change it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- GetObject ------------------------------------------------------------------------------------------------------


def bench_get_object(ours: Aws, bare: Aws, rounds: int) -> None:
    """Print what identity policy, bucket policy, signature and journal cost a small GetObject."""
    clients: dict[str, Client] = {}
    for name, aws in (("ours", ours), ("bare", bare)):
        statement = {"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::notes/${aws:username}/*"}
        guarded = {**statement, "Condition": {"StringEquals": {"aws:PrincipalAccount": ACCOUNT}}}
        key = user_key(aws, "alice", statement, guarded)
        s3 = aws.client("s3")
        s3.create_bucket(Bucket="notes", CreateBucketConfiguration={"LocationConstraint": REGION})
        s3.put_object(Bucket="notes", Key="alice/a.txt", Body=b"x" * 1024)
        deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": "arn:aws:s3:::notes/secret/*"}
        s3.put_bucket_policy(Bucket="notes", Policy=json.dumps({"Version": "2012-10-17", "Statement": [deny]}))
        clients[name] = Client(aws, key)
    times: dict[str, list[float]] = {name: [] for name in clients}
    processes = {"ours": ours.process.pid, "bare": bare.process.pid}
    used: dict[str, float] = {}
    for turn in range(rounds + 20):
        if turn == 20:
            used = {name: processor_seconds(pid) for name, pid in processes.items()}
        for name, client in clients.items():
            took, _ = client.call("s3", "GET", "/notes/alice/a.txt")
            if turn >= 20:
                times[name].append(took)
    print(f"\n{'GetObject of 1 KiB':34} {'p50 ms':>9} {'p99 ms':>9} {'processor ms':>14}")
    for name, taken in times.items():
        spent = (processor_seconds(processes[name]) - used[name]) / rounds
        print(f"{name:34} {milliseconds(taken)} {spent * 1e3:14.2f}")
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    added = medians["ours"] - medians["bare"]
    print(f"added at the median: {added * 1e3:.2f} ms, {medians['ours'] / medians['bare']:.2f} of bare LocalStack")


# --- associations ---------------------------------------------------------------------------------------------------


def bench_associations(aws: Aws, api: ApiServerDouble, sizes: list[int]) -> None:
    """Print create, list and assume at growing numbers of associations of one cluster."""
    administrator = aws.bootstrap.account(ACCOUNT).administrator
    role = _role(aws, "reader", PODS)
    node = user_key(aws, "node", {"Effect": "Allow", "Action": "eks-auth:AssumeRoleForPodIdentity", "Resource": "*"})
    eks, auth = Client(aws, administrator), Client(aws, node)
    print(f"\n{'associations':34} {'p50 ms':>9} {'p99 ms':>9}")
    first: dict[str, float] = {}
    for size in sizes:
        created = _create_up_to(eks, api, size, role)
        rows = {"create": created, "list, a page": _listed(eks, size), "assume": _assumed(auth, api, size)}
        for name, times in rows.items():
            median = statistics.median(times)
            ratio = median / first.setdefault(name, median)
            print(f"{f'{name} with {size:,}':34} {milliseconds(times)}   {ratio:5.2f} of the first row")
    bench_parallel(aws, api, node)


def _role(aws: Aws, name: str, principal: Mapping[str, str]) -> str:
    trust = {"Effect": "Allow", "Principal": principal, "Action": ["sts:AssumeRole", "sts:TagSession"]}
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    return str(aws.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=document)["Role"]["Arn"])


def _create_up_to(eks: Client, api: ApiServerDouble, size: int, role: str) -> list[float]:
    """Create associations until there are so many; return the times of the last ones."""
    there = len(api.published())
    times = [
        eks.call(
            "eks",
            "POST",
            ASSOCIATIONS,
            {"namespace": f"team-{number % 50}", "serviceAccount": f"app-{number}", "roleArn": role},
        )[0]
        for number in range(there, size)
    ]
    return times[-SAMPLES:]


def _listed(eks: Client, size: int) -> list[float]:
    times: list[float] = []
    while len(times) < SAMPLES:
        found, token = 0, ""
        while token is not None and len(times) < SAMPLES + 50:
            took, text = eks.call("eks", "GET", f"{ASSOCIATIONS}{f'?nextToken={token}' if token else ''}")
            answer = json.loads(text)
            times.append(took)
            found, token = found + len(answer["associations"]), answer.get("nextToken")
        if token is None and found != size:
            raise AssertionError(f"{found} associations were listed of {size}")
    return times


def _assumed(auth: Client, api: ApiServerDouble, size: int) -> list[float]:
    times: list[float] = []
    for turn in range(SAMPLES):
        number = turn * 37 % size
        token = api.token(time.time(), f"team-{number % 50}", f"app-{number}")
        took, _ = auth.call("eks-auth", "POST", f"{CLUSTER_PATH}/assume-role-for-pod-identity", {"token": token})
        times.append(took)
    return times


def bench_parallel(aws: Aws, api: ApiServerDouble, node: Any, seconds: float = 3) -> None:
    """Print how many pods a second get credentials over several connections."""
    token = api.token(time.time(), "team-0", "app-0")

    def work(_: int) -> int:
        client, calls, end = Client(aws, node), 0, time.perf_counter() + seconds
        while time.perf_counter() < end:
            client.call("eks-auth", "POST", f"{CLUSTER_PATH}/assume-role-for-pod-identity", {"token": token})
            calls += 1
        return calls

    with ThreadPoolExecutor(2) as pool:
        calls = sum(pool.map(work, range(2)))
    print(f"AssumeRoleForPodIdentity, two connections: {calls / seconds:,.0f}/s")


def main() -> None:
    """Start both processes, measure, stop them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=500, help="GetObject calls of each process")
    parser.add_argument("--associations", type=int, nargs="+", default=[10, 500, 5000], metavar="N")
    arguments = parser.parse_args()
    with Progress() as progress:
        found = environment.ensure(cache_directory(), progress)
    with tempfile.TemporaryDirectory(prefix="podid-bench-") as name:
        directories = [Path(name) / part for part in ("ours", "bare", "cluster")]
        for directory in directories:
            directory.mkdir()
        with running_aws(found, directories[0]) as ours:
            with running_aws(found, directories[1], arguments=["-c", BARE], wait_until_ready=is_alive) as bare:
                bench_get_object(ours, bare, arguments.rounds)
            with bound_cluster(ours, directories[2]) as api:
                bench_associations(ours, api, arguments.associations)


if __name__ == "__main__":
    main()
