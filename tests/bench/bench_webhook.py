"""How fast webhooks answer, and what they cost: ours, and another beside it (``nox -s bench -- webhook``).

Each webhook is a process on loopback beside the suite's API server, and is asked over TLS on kept connections, by turns
with the other. Nothing fails on what is measured; the table is printed, and kept as JSON under ``reports/``.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from admission_load import BARE_PATCH, IN_CLUSTER, NONE, admission_times
from tls_load import Load, answers_per_second, latencies_ms, run

from harness.cluster.base import ClusterSpec
from harness.lab import Lab
from harness.subject.kube_api import KubeApi, serve_kube_api
from harness.subject.reviews import pod, review
from harness.subject.webhook import Surroundings, Webhook, default_command, identities, parse_command

CONNECTIONS = 8
PACE = 500
"""Reviews a second at which latencies are taken: a busy cluster, a webhook far from its limit."""
ACCOUNTS = 10_000
ROLE = "arn:aws:iam::111122223333:role/s3-reader"
EKS_PROFILE = ("--aws-default-region=eu-west-1", "--sts-regional-endpoint=true")
TARGETS = {
    "reviews/s, 2 containers": (1.5, "at least"),
    "p99 ms at 500/s, 2 containers": (0.7, "at most"),
}
"""Ratios to the other webhook that ours is to keep."""
MAX_RSS_MIB = 60.0
ADMISSIONS = 200
"""Pods with the webhook, and as many without."""
MAX_ADDED_MS = 3.0


def bench_pod(count: int) -> dict[str, Any]:
    """Return a pod as an API server sends it: defaulted, with probes, resources and the projected API access."""
    access = {"name": "kube-api-access-x7k2p", "readOnly": True}
    container = {
        "image": "public.ecr.aws/docker/library/app:1.2.3",
        "imagePullPolicy": "IfNotPresent",
        "env": [
            {"name": "LOG_LEVEL", "value": "info"},
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}},
        ],
        "ports": [{"containerPort": 8080, "protocol": "TCP"}],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": 8080, "scheme": "HTTP"}, "periodSeconds": 10},
        "resources": {"limits": {"memory": "256Mi"}, "requests": {"cpu": "100m", "memory": "256Mi"}},
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "volumeMounts": [access | {"mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}],
    }
    sources = [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
    ]
    return pod(
        *({"name": f"app-{number}"} | container for number in range(count)),
        metadata={"name": "", "generateName": "app-7d9c5b8f6-", "labels": {"app": "app"}, "namespace": "demo"},
        volumes=[{"name": access["name"], "projected": {"defaultMode": 420, "sources": sources}}],
        restartPolicy="Always",
        terminationGracePeriodSeconds=30,
        dnsPolicy="ClusterFirst",
        serviceAccount="s3-reader",
        securityContext={},
        schedulerName="default-scheduler",
        tolerations=[
            {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
            for key in ("not-ready", "unreachable")
        ],
        priority=0,
        enableServiceLinks=True,
        preemptionPolicy="PreemptLowerPriority",
    )


@dataclass(slots=True)
class Subject:
    """A webhook under measurement, and what was measured of it."""

    name: str
    surroundings: Surroundings
    rows: dict[str, list[float]] = field(default_factory=dict[str, list[float]])

    def add(self, row: str, value: float) -> None:
        """Note one measurement."""
        self.rows.setdefault(row, []).append(value)

    def median(self, row: str) -> float:
        """Return the median of a row."""
        return statistics.median(self.rows[row])

    @contextmanager
    def running(self, *flags: str) -> Generator[Webhook]:
        """Run it with an identities file of one pair, and the flags of EKS."""
        file = self.surroundings.directory / "identities.json"
        file.write_text(identities("demo/s3-reader"))
        source = f"--watch-container-credentials-config={file}"
        with self.surroundings.webhook(source, *EKS_PROFILE, *flags) as webhook:
            yield webhook


def processor_seconds(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def bench_serving(subjects: Sequence[Subject], rounds: int, seconds: float) -> None:
    """Measure rate and latency, a round of each webhook after the other."""
    requests = {f"{count} containers": review_request(bench_pod(count)) for count in (2, 20)}
    with ExitStack() as stack:
        webhooks = [stack.enter_context(subject.running()) for subject in subjects]
        for subject, webhook in zip(subjects, webhooks, strict=True):
            subject.surroundings.settle(webhook)
            check_answers(webhook)
            for request in requests.values():  # warm caches and branch predictors
                run(Load(webhook.port, webhook.tls, request, CONNECTIONS), answers_per_second, 0.5)
            subject.add("RSS MiB, idle", webhook.resident_mib)
        for turn in range(rounds):
            for subject, webhook in zip(subjects, webhooks, strict=True):
                for size, request in requests.items():
                    load = Load(webhook.port, webhook.tls, request, CONNECTIONS)
                    used = processor_seconds(webhook.pid)
                    rate = run(load, answers_per_second, seconds)
                    spent = processor_seconds(webhook.pid) - used
                    subject.add(f"reviews/s, {size}", rate)
                    subject.add(f"processor ms a review, {size}", spent / (rate * seconds) * 1e3)
                    times = statistics.quantiles(run(load, latencies_ms, seconds, PACE), n=100)
                    subject.add(f"p50 ms at {PACE}/s, {size}", times[49])
                    subject.add(f"p99 ms at {PACE}/s, {size}", times[98])
            print(f"round {turn + 1} of {rounds}", flush=True)


def review_request(the_pod: Mapping[str, Any]) -> bytes:
    """Return the bytes of a review as an API server sends it."""
    body = json.dumps(review(the_pod, uid="705ab4f5-6393-11e8-b7cc-42010a800002"), separators=(",", ":")).encode()
    head = "POST /mutate?timeout=10s HTTP/1.1\r\nHost: pod-identity-webhook.kube-system.svc\r\n"
    head += "User-Agent: kube-apiserver-admission\r\nAccept: application/json\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def check_answers(webhook: Webhook) -> None:
    """Make sure that what is measured is the whole patch.

    Raises:
        AssertionError: It is not.
    """
    admission = webhook.admit(bench_pod(2))
    if len(admission.names("app-1")) != 2 + 5 or "eks-pod-identity-token" not in admission.volume_names:
        raise AssertionError(f"not the whole patch: {base64.b64decode(admission.response.get('patch', ''))!r}")


def bench_start(subjects: Sequence[Subject], api: KubeApi, rounds: int) -> None:
    """Measure the time from the start of the process to the first review answered from full caches, and the memory."""
    for accounts in (0, ACCOUNTS):
        for number in range(accounts):
            api.put_service_account(f"team-{number % 50}", f"app-{number}", {"team.example/owner": f"owner-{number}"})
        api.put_service_account("zz-last", "annotated", {"eks.amazonaws.com/role-arn": ROLE})
        for _ in range(rounds):
            for subject in subjects:
                started = time.perf_counter()
                with subject.running() as webhook:
                    while webhook.mechanism("annotated", "zz-last") != "IRSA":
                        time.sleep(0.001)
                    subject.add(f"ms to warm, {accounts:,} ServiceAccounts", (time.perf_counter() - started) * 1e3)
                    if accounts:
                        subject.add(f"RSS MiB, {accounts:,} ServiceAccounts", webhook.resident_mib)


def table(subjects: Sequence[Subject]) -> str:
    """Return one line a measurement: median of each webhook, and the first one's ratio to the second."""
    lines = [f"{'median of rounds':40}" + "".join(f"{subject.name:>12}" for subject in subjects)]
    for row in subjects[0].rows:
        medians = [subject.median(row) for subject in subjects]
        line = f"{row:40}" + "".join(f"{median:12,.2f}" for median in medians)
        if len(medians) > 1:
            line += f"   ratio {medians[0] / medians[1]:.2f}"
            if row in TARGETS:
                line += f" (target: {TARGETS[row][1]} {TARGETS[row][0]})"
        if row.endswith(f"{ACCOUNTS:,} ServiceAccounts") and row.startswith("RSS"):
            line += f" (target: at most {MAX_RSS_MIB:.0f} MiB)"
        lines.append(line)
    return "\n".join(lines)


def admission_table(times: Mapping[str, Sequence[float]]) -> str:
    """Return one line a webhook: median of a pod's creation, and what that is more than without one."""
    medians = {name: statistics.median(values) for name, values in times.items()}
    lines = [f"{'a pod is created with, median ms':40}{'':>12}       added"]
    lines += [f"{name:40}{median:12,.2f}{median - medians[NONE]:12,.2f}" for name, median in medians.items()]
    added, bare = medians[IN_CLUSTER] - medians[NONE], medians[BARE_PATCH] - medians[NONE]
    lines.append(
        f"added: {added:.2f} ms (target: at most {MAX_ADDED_MS:.0f}), of which any webhook would add {bare:.2f}"
    )
    return "\n".join(lines)


def write_report(subjects: Sequence[Subject], admission: Mapping[str, Sequence[float]], directory: Path) -> Path:
    """Write every measurement as JSON."""
    directory.mkdir(parents=True, exist_ok=True)
    at = datetime.now(UTC)
    report = {
        "bench": "webhook",
        "at": at.isoformat(timespec="seconds"),
        "machine": {"processors": os.cpu_count(), "python": platform.python_version(), "kernel": platform.release()},
        "settings": {"connections": CONNECTIONS, "pace": PACE},
        "admission_ms": admission,
        "subjects": {
            subject.name: {row: {"median": subject.median(row), "all": values} for row, values in subject.rows.items()}
            for subject in subjects
        },
    }
    path = directory / f"bench-webhook-{at:%Y%m%d-%H%M%S}.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    return path


def main() -> None:
    """Start the webhooks, measure, stop them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--peer-command", default="", metavar='"…"', help="command line of another webhook to compare with"
    )
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each kind; the median counts")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of each measurement")
    parser.add_argument(
        "--lab", default="", metavar="NAME", help="also: what each adds to a pod's creation in this lab, which is up"
    )
    parser.add_argument("--report-dir", type=Path, default=Path("reports"))
    arguments = parser.parse_args()
    commands = {"ours": default_command()} | ({"peer": arguments.peer_command} if arguments.peer_command else {})
    with tempfile.TemporaryDirectory(prefix="podid-bench-") as name, serve_kube_api() as api:
        api.page_size = 500
        api.put_service_account("demo", "s3-reader")
        subjects: list[Subject] = []
        for subject, command in commands.items():
            directory = Path(name) / subject
            directory.mkdir()
            subjects.append(Subject(subject, Surroundings(parse_command(command), api, directory)))
        benches: list[Callable[[], None]] = [
            lambda: bench_serving(subjects, arguments.rounds, arguments.seconds),
            lambda: bench_start(subjects, api, arguments.rounds),
        ]
        for bench in benches:
            bench()
    print(table(subjects))
    admission: dict[str, list[float]] = {}
    if arguments.lab:
        kubeconfig = Lab(arguments.lab).cluster(ClusterSpec().name).kubeconfig
        admission = admission_times(kubeconfig, commands, ADMISSIONS)
        print(admission_table(admission))
    print(write_report(subjects, admission, arguments.report_dir))


if __name__ == "__main__":
    main()
