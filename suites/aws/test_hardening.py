"""What must hold whatever is sent: bounded memory, even times, random keys, and no answer before the gate."""

from __future__ import annotations

import random
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.cloud.credentials import account_of_access_key, new_access_key_id, new_role_id, new_secret
from harness.cloud.iam.index import index_by_content, index_of
from harness.cloud.iam.model import PolicySet
from harness.cloud.iam.policy import compile_policy
from harness.cloud.iam.variables import template_tokens
from harness.cloud.iam.wildcard import Pattern
from harness.cloud.localstack import environment, process
from harness.cloud.localstack.bootstrap import SystemIds
from harness.cloud.ports import Refusal
from harness.cloud.sigv4 import RawRequest, verify
from harness.cloud.sigv4.canonical import signing_key
from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.subject.aws import ACCOUNT, Aws
from harness.subject.cloud_ports import SettableClock
from harness.subject.iam_requests import ALLOW_ALL, policy
from harness.subject.running_aws import running_aws
from harness.subject.signed_requests import SESSION, V1, authorization, store_of, with_headers


@requirement("IAM-PERF-05")
def test_random_requests_do_not_fill_the_memory() -> None:
    """Actions, resources, tags, policies and secrets that never come again are forgotten."""
    index = index_of(PolicySet(identity=(policy({**ALLOW_ALL, "Resource": "arn:aws:s3:::notes/*"}),)))
    pattern = Pattern(template_tokens("notes/${aws:PrincipalTag/a}/${s3:prefix}/*", has_wildcards=True))

    for number in range(3000):
        index.plan("identity", f"s3:action{number}", f"arn:aws:s3:::notes/{number}")
        index.plan("identity", "s3:getobject", f"arn:aws:s3:::bucket-{number}/x")
        pattern.matches("notes/a", {"s3:prefix": f"{number}", "aws:principaltag/a": "x"})

    plans, filled = len(index._plans), len(pattern._filled)  # noqa: SLF001 - what is bounded is nobody else's business
    check("IAM-PERF-05", what="plans", expected="at most 1,024", observed=plans, holds=plans <= 1024)
    check("IAM-PERF-05", what="filled patterns", expected="at most 256", observed=filled, holds=filled <= 256)
    for name, cache in (("policies", compile_policy), ("sets", index_by_content), ("signing keys", signing_key)):
        bound = cache.cache_info().maxsize
        check(
            "IAM-PERF-05", what=f"bound of {name}", expected="a number", observed=bound, holds=0 < (bound or 0) <= 4096
        )


@requirement("IAM-SIG-07")
def test_a_check_takes_the_same_way_for_known_and_unknown_keys() -> None:
    """The same functions in the same order up to the comparison, which is the constant-time one."""
    wrong = with_headers(
        V1, authorization=authorization("s3", "host;x-amz-content-sha256;x-amz-date;x-amz-security-token", "0" * 64)
    )

    called(wrong, known=True)  # what Python imports at the first call is no difference
    known, unknown = called(wrong, known=True), called(wrong, known=False)

    end = known.index("compare_digest") + 1
    check("IAM-SIG-07", what="functions up to the comparison", expected=known[:end], observed=unknown[:end])
    check("IAM-SIG-07", what="signing before it", expected=True, observed="sign" in known[:end])


def called(request: RawRequest, *, known: bool) -> list[str]:
    """Return the names of all functions that a verification calls, in order."""
    store = store_of(*([SESSION] if known else []))
    names: list[str] = []

    def note(frame: Any, event: str, argument: Any) -> None:
        if event == "call":
            names.append(frame.f_code.co_name)
        elif event == "c_call":
            names.append(argument.__name__)

    signing_key.cache_clear()
    sys.setprofile(note)
    try:
        verify(request, store, SettableClock(), service="s3", region="eu-west-1")
    except Refusal:
        pass
    finally:
        sys.setprofile(None)
    return names


@requirement("IAM-SEC-06")
def test_keys_are_random_and_tell_the_account_only() -> None:
    """Not from a generator that can be seeded; two keys of an account have nothing but the account in common."""
    ids = SystemIds()
    made: list[list[str]] = []
    for _ in range(2):
        random.seed(7)
        made.append([new_access_key_id(ACCOUNT, "ASIA", ids), new_secret(ids), new_role_id(ids), ids.uuid()])
    keys = {new_access_key_id(ACCOUNT, "ASIA", ids) for _ in range(2000)}

    check("IAM-SEC-06", what="alike after the same seed", expected=0, observed=sum(map(str.__eq__, *made)))
    check("IAM-SEC-06", what="different keys of 2,000", expected=2000, observed=len(keys))
    check("IAM-SEC-06", what="account", expected={ACCOUNT}, observed=set(map(account_of_access_key, keys)))
    varied = [len({key[place] for key in keys}) for place in range(13, 20)]
    check("IAM-SEC-06", what="letters in each of the last places", expected=[32] * 7, observed=varied)


@requirement("IAM-SEC-04")
def test_no_request_is_answered_before_the_gate(
    localstack_environment: environment.Environment, tmp_path: Path
) -> None:
    """From the first connection on that is taken, an unsigned call is refused."""
    seen: list[int | str] = []

    def hammer(aws: Aws, stopped: Callable[[], str | None]) -> None:
        while not seen or seen[-1] == "no answer":
            assert stopped() is None
            try:
                with urllib.request.urlopen(f"{aws.endpoint}/some-bucket?list-type=2", timeout=20) as answer:
                    seen.append(answer.status)
            except urllib.error.HTTPError as error:
                seen.append(error.code)
            except OSError:
                seen.append("no answer")
        process.wait_until_ready(aws.endpoint, aws.bootstrap, stopped=stopped)

    with running_aws(localstack_environment, tmp_path, wait_until_ready=hammer):
        pass

    check("IAM-SEC-04", what="the first answer", expected=403, observed=seen[-1])
    check("IAM-SEC-04", what="calls before it", expected="at least one", observed=len(seen) - 1, holds=len(seen) > 1)
