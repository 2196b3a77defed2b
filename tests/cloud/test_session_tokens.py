"""GetSessionToken and what an access key tells (``iam.md`` 11.7)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from harness.cloud.ports import Credential, Principal, Refusal
from harness.cloud.sts_sessions import access_key_account, check_session_limits, session_token
from harness.subject.cloud_ports import SeededIds, SettableClock

ACCOUNT = "123456789012"


def long_term(kind: Any = "user") -> Credential:
    arn = f"arn:aws:iam::{ACCOUNT}:{'user/alice' if kind == 'user' else 'root'}"
    return Credential(
        "AKIAEXAMPLE", "secret", None, Principal(kind, arn, ACCOUNT, "AIDA1"), SettableClock().now(), None
    )


@pytest.mark.parametrize(
    ("kind", "asked", "given"),
    [("user", None, 43_200), ("user", 129_600, 129_600), ("root", None, 3600), ("root", 7200, 3600)],
)
def test_temporary_keys_are_the_same_caller_s(kind: str, asked: int | None, given: int) -> None:
    clock = SettableClock()

    credential = session_token(long_term(kind), asked, SeededIds(), clock)

    assert credential.principal == long_term(kind).principal
    assert credential.access_key_id.startswith("ASIA")
    assert credential.session_token
    assert credential.expires_at == clock.now() + timedelta(seconds=given)


@pytest.mark.parametrize(("seconds", "ending"), [(899, "greater than or equal to 900"), (129_601, "to 129600")])
def test_a_session_token_lasts_no_other_time(seconds: int, ending: str) -> None:
    with pytest.raises(Refusal) as caught:
        session_token(long_term(), seconds, SeededIds(), SettableClock())

    assert caught.value.code == "ValidationError"
    assert caught.value.message.endswith(ending)


def test_keys_of_a_session_get_no_session_token_and_few_calls() -> None:
    """S22."""
    temporary = session_token(long_term(), None, SeededIds(), SettableClock())

    with pytest.raises(Refusal, match="Cannot call GetSessionToken with session credentials"):
        session_token(temporary, None, SeededIds(), SettableClock())
    with pytest.raises(Refusal, match="InvalidClientTokenId"):
        check_session_limits(temporary, "iam", "ListRoles")
    with pytest.raises(Refusal, match="AccessDenied"):
        check_session_limits(temporary, "sts", "GetAccessKeyInfo")
    check_session_limits(temporary, "sts", "AssumeRole")
    check_session_limits(temporary, "s3", "ListBuckets")
    check_session_limits(long_term(), "iam", "ListRoles")


def test_an_access_key_tells_its_account() -> None:
    temporary = session_token(long_term(), None, SeededIds(), SettableClock())

    assert access_key_account(temporary.access_key_id) == ACCOUNT
    with pytest.raises(Refusal, match="ValidationError"):
        access_key_account("AKIA")
