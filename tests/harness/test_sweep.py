"""What the sweeper may remove, and which account it may touch; decided without asking AWS for more than who it is."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.errors import MissingPrerequisite, UsageError
from harness.sweep.account import require_account
from harness.sweep.aws import Resource, judge

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
TAGS = {
    "podid:run": "ab12cd",
    "podid:owner": "ann",
    "podid:repo": "acme/agent",
    "podid:expires": "2026-11-26T11:59:59Z",
}


def resource(name: str = "podid-ab12cd-bucket", path: str | None = None, **tags: str) -> Resource:
    return Resource("bucket", name, TAGS | {f"podid:{key}": value for key, value in tags.items()}, lambda: None, path)


# --- what may go (HRN-EXT-11) ---------------------------------------------------------------------------------------


def test_expired_resource_with_our_name_may_go() -> None:
    assert judge(resource(), NOW) == ""


@pytest.mark.parametrize(
    ("kept", "reason"),
    [
        (resource("my-app-bucket"), "its name does not begin with podid-ab12cd-"),
        (resource(run="999999"), "its name does not begin with podid-999999-"),
        (resource(expires="2026-11-26T12:00:01Z"), "it may stay until 2026-11-26T12:00:01Z"),
        (resource(expires="tomorrow"), "its tag podid:expires is no instant: 'tomorrow'"),
        (resource(path="/"), "its path is /, not /podid/ab12cd/"),
    ],
    ids=["name", "run", "not-yet", "no-instant", "path"],
)
def test_everything_else_stays_and_says_why(kept: Resource, reason: str) -> None:
    assert judge(kept, NOW) == reason


def test_what_nobody_names_is_known_by_its_tags() -> None:
    """An association has an ID that AWS chooses."""
    assert judge(Resource("association", "a-1", TAGS, lambda: None, has_name=False), NOW) == ""


# --- which account (HRN-EXT-06, -07, -18) ---------------------------------------------------------------------------


class Session:
    """A boto3 session of an account, which counts the calls that were made with it."""

    def __init__(self, account: str = "123456789012", key: str = "ASIAEXAMPLE") -> None:
        self._account = account
        self._key = key
        self.calls: list[str] = []

    def get_credentials(self) -> Any:
        return SimpleNamespace(access_key=self._key) if self._key else None

    def client(self, service: str) -> Any:
        def get_caller_identity() -> dict[str, str]:
            self.calls.append(f"{service}:GetCallerIdentity")
            return {"Account": self._account}

        return SimpleNamespace(get_caller_identity=get_caller_identity)


@pytest.fixture
def accounts(tmp_path: Path) -> Path:
    file = tmp_path / "accounts.yaml"
    file.write_text('accounts: {"123456789012": {disposable: true}, 210987654321: {}}')
    return file


def test_listed_account_with_keys_that_end_is_taken(accounts: Path) -> None:
    session = Session()
    require_account(session, "123456789012", accounts)

    assert session.calls == ["sts:GetCallerIdentity"]


@pytest.mark.parametrize("account", ["111111111111", "210987654321"], ids=["unlisted", "listed-but-not-disposable"])
def test_account_that_nobody_calls_disposable_is_refused_before_any_call(accounts: Path, account: str) -> None:
    session = Session()
    with pytest.raises(MissingPrerequisite, match="not listed as disposable") as refused:
        require_account(session, account, accounts)

    assert (refused.value.exit_code, refused.value.kind, session.calls) == (2, "opt-in-required", [])


def test_without_a_list_every_account_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingPrerequisite, match="not listed as disposable"):
        require_account(Session(), "123456789012", tmp_path / "none.yaml")


def test_credentials_of_another_account_are_refused(accounts: Path) -> None:
    session = Session("999999999999")
    with pytest.raises(MissingPrerequisite, match="of account 999999999999, not of 123456789012"):
        require_account(session, "123456789012", accounts)

    assert session.calls == ["sts:GetCallerIdentity"]


def test_static_keys_are_refused_unless_allowed(accounts: Path) -> None:
    session = Session(key="AKIAIOSFODNN7EXAMPLE")
    with pytest.raises(MissingPrerequisite, match="AKIAIOSF… is a static one"):
        require_account(session, "123456789012", accounts)
    assert session.calls == []

    require_account(session, "123456789012", accounts, allows_static_keys=True)


def test_no_credentials_are_refused(accounts: Path) -> None:
    with pytest.raises(MissingPrerequisite, match="no credentials"):
        require_account(Session(key=""), "123456789012", accounts)


def test_list_that_cannot_be_read_is_a_usage_error(tmp_path: Path) -> None:
    file = tmp_path / "accounts.yaml"
    file.write_text("[1, 2]")
    with pytest.raises(UsageError, match="cannot read"):
        require_account(Session(), "123456789012", file)
