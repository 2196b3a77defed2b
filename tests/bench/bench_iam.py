"""Decisions and signatures a second, as ratios to a fixed loop of the same run (``nox -s bench``).

Rates of one machine say little about another, and nothing on a busy one; a ratio to a loop that is measured beside it
does. No test fails on what is printed here (IAM-PERF-07).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from harness.cloud.credentials import CredentialRegistry
from harness.cloud.iam import CallContext, Check, EvaluationRequest, PolicySet, authorize
from harness.cloud.ports import Credential, NamedPolicy, Principal
from harness.cloud.sigv4 import RawRequest, verify
from harness.subject.cloud_ports import SettableClock

ACCOUNT = "123456789012"
POD = Principal(
    "role-session",
    f"arn:aws:sts::{ACCOUNT}:assumed-role/notes-app/pod",
    ACCOUNT,
    "AROANOTES:pod",
    role_arn=f"arn:aws:iam::{ACCOUNT}:role/notes-app",
    tags={"kubernetes-namespace": "team-a", "kubernetes-service-account": "app"},
)
KEYS = {
    "aws:CurrentTime": "2026-04-10T14:00:00Z",
    "aws:SecureTransport": "true",
    "aws:SourceIp": "10.213.0.1",
    "s3:authType": "REST-HEADER",
}
ROUNDS = 5
SECONDS = 0.2
CALLS = 50
"""Different resources that are asked about in turn."""


def policy(*statements: Mapping[str, Any]) -> NamedPolicy:
    return NamedPolicy("inline:bench", json.dumps({"Version": "2012-10-17", "Statement": statements}))


def statement(bucket: str) -> dict[str, Any]:
    """Allow a tenant its own prefix: two variables and two conditions."""
    return {
        "Effect": "Allow",
        "Action": ["s3:GetObject", "s3:PutObject"],
        "Resource": f"arn:aws:s3:::{bucket}/${{aws:PrincipalTag/kubernetes-namespace}}/*",
        "Condition": {
            "StringEquals": {"aws:PrincipalTag/kubernetes-service-account": "app"},
            "Bool": {"aws:SecureTransport": "true"},
        },
    }


def requests(statements: int, *, is_prepared: bool = True, has_three_policies: bool = True) -> list[EvaluationRequest]:
    """Ask for objects that the last of the identity policy's statements allows."""
    identity = policy(*[statement(f"bucket-{number}") for number in range(statements - 1)], statement("notes"))
    boundary = policy({"Effect": "Allow", "Action": "s3:*", "Resource": "*"})
    resource = policy(
        {
            "Effect": "Deny",
            "Principal": "*",
            "Action": "s3:*",
            "Resource": "arn:aws:s3:::notes/*",
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        },
        {"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "s3:Get*", "Resource": "arn:aws:s3:::notes/*"},
    )
    policies = PolicySet(identity=(identity,))
    if has_three_policies:
        policies = PolicySet(identity=(identity,), boundaries=(boundary,), resource=resource)
    context = CallContext(POD, KEYS) if is_prepared else KEYS
    found = [
        EvaluationRequest(Check("s3:GetObject", f"arn:aws:s3:::notes/team-a/{number}", ACCOUNT), POD, policies, context)
        for number in range(CALLS)
    ]
    for asked in found:
        if not authorize(asked).allowed:
            raise AssertionError(authorize(asked).sentence())
    return found


def calibrate() -> None:
    """Do a fixed piece of work of the kind that decisions are made of."""
    keys = {"aws:username": "alice"}
    for _ in range(100):
        keys.get("aws:username")


def signed() -> Callable[[], object]:
    """Return the verification of a request of 1 KiB whose signing key is known (IAM-PERF-04)."""
    now = datetime.now(UTC)
    key = Credential(
        "ASIALABEXAMPLE000001", "s" * 40, "t" * 356, POD, now - timedelta(minutes=1), now + timedelta(hours=1)
    )
    store = CredentialRegistry()
    store.add(key)
    host, body = "sts.eu-west-1.amazonaws.com", b"x" * 1024
    request = AWSRequest("POST", f"https://{host}/", {"Host": host}, body)
    credentials = Credentials(key.access_key_id, key.secret_access_key, key.session_token)
    SigV4Auth(credentials, "sts", "eu-west-1").add_auth(request)
    raw = RawRequest("POST", "/", "", list(request.headers.items()), body)
    clock = SettableClock(now)
    return lambda: verify(raw, store, clock, service="sts", region="eu-west-1")


def rate(work: Callable[[], object], calls_of_work: int = 1) -> float:
    """Return calls a second of processor time."""
    calls, start = 0, time.process_time()
    while time.process_time() - start < SECONDS:
        for _ in range(CALLS // calls_of_work):
            work()
        calls += CALLS
    return calls / (time.process_time() - start)


def decide(asked: list[EvaluationRequest]) -> None:
    for one in asked:
        authorize(one)


def main() -> None:
    """Print a table; every row is the best of interleaved rounds, because disturbances only ever slow down."""
    rows = {
        "identity, 10 statements": requests(10, has_three_policies=False),
        "three policies, 10 statements": requests(10),
        "three policies, 200 statements": requests(200),
        "three policies, context not prepared": requests(10, is_prepared=False),
    }
    work = {name: (lambda asked=asked: decide(asked), CALLS) for name, asked in rows.items()}
    work |= {"signatures of 1 KiB": (signed(), 1), "": (calibrate, 1)}
    best: dict[str, float] = dict.fromkeys(work, 0.0)
    for _ in range(ROUNDS):
        for name, (call, calls) in work.items():
            best[name] = max(best[name], rate(call, calls))
    print(f"{'':40} {'a second':>12} {'per loop':>9}")
    for name in [*rows, "signatures of 1 KiB"]:
        print(f"{name:40} {best[name]:12,.0f} {best[name] / best['']:9.3f}")
    ratio = best["three policies, 200 statements"] / best["three policies, 10 statements"]
    print(f"{'calibration loop (100 look-ups)':40} {best['']:12,.0f} {1:9.3f}")
    print(f"200 statements run at {ratio:.2f} of the speed of 10")


if __name__ == "__main__":
    main()
