"""What no request shows: what becomes of a defect. Functions of the webhook are broken while it runs.

For webhooks in Python only. Nothing of the webhook is imported: its interpreter itself lets the suite in.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.conformance.marks import requirement
from harness.conformance.outcomes import could_not_run
from harness.conformance.recording import check
from harness.errors import SubjectFault
from harness.subject.interpreter import Interpreter
from harness.subject.reviews import pod, review
from harness.subject.webhook import Surroundings, Webhook

CANARY = "CANARY-of-a-pod"
"""Text of the error: such texts can quote what the pod holds."""


@pytest.fixture
def inside(surroundings: Surroundings, tmp_path: Path) -> Iterator[tuple[Webhook, Interpreter]]:
    """A webhook, and a way into it."""
    interpreter = Interpreter(tmp_path)
    file = f"--watch-container-credentials-config={surroundings.directory / 'identities.json'}"
    wait = "--service-account-lookup-grace-period=50ms"
    with surroundings.webhook(file, wait, environment=interpreter.environment) as webhook:
        # Until it has answered it may be on its way; one that never answers is found out by the tests.
        with contextlib.suppress(SubjectFault):
            webhook.admit(pod())
        if not interpreter.is_there:
            could_not_run("prerequisite", "the command does not start a Python of this machine: use the plain webhook")
        yield webhook, interpreter


@requirement("WHK-114")
@pytest.mark.parametrize(
    ("function", "account"),
    [
        ("server.decode_review", "s3-reader"),
        ("server.mutate_pod", "s3-reader"),
        ("server.mutate_pod", "unheard-of"),
        ("review.encode", "s3-reader"),
        ("server.log_decision", "s3-reader"),
    ],
    ids=["while it is read", "while it is decided", "after a wait", "while it is answered", "while it is logged"],
)
def test_defect_is_an_internal_server_error(inside: tuple[Webhook, Interpreter], function: str, account: str) -> None:
    """A review that meets one is not denied but answered with 500; the next one is answered as if nothing had been."""
    webhook, interpreter = inside
    module, name = function.split(".")

    with interpreter.broken(f"podid_webhook.{module}", name, CANARY):
        reply = webhook.post(json.dumps(review(pod(service_account=account), "demo")).encode())
    failures = webhook.metric("pod_identity_webhook_review_failures", reason="internal")
    log = webhook.wait_for_log("review failed: .*")

    check("WHK-114", what="status", expected=500, observed=reply.status)
    check("WHK-114", what="body", expected="no denial", observed=reply.text, holds="allowed" not in reply.text)
    check("WHK-114", what="counted", expected=1.0, observed=failures)
    check("WHK-114", what="log", expected="names the error", observed=log, holds="RuntimeError" in log)
    check("WHK-114", what="next review", expected="Pod Identity", observed=webhook.mechanism("s3-reader"))
    assert CANARY not in webhook.log + reply.text
