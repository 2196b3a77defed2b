from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cloud.credentials import (
    CredentialRegistry,
    account_of_access_key,
    new_access_key_id,
    new_role_id,
    new_secret,
    new_session_token,
    new_user_id,
)
from harness.cloud.ports import Credential, Principal
from harness.subject.cloud_ports import SeededIds, SettableClock


def credential(key: str) -> Credential:
    return Credential(
        access_key_id=key,
        secret_access_key="secret",
        session_token=None,
        principal=Principal(kind="root", arn="", account="123456789012", user_id="123456789012"),
        issued_at=SettableClock().now(),
        expires_at=None,
    )


@pytest.mark.parametrize(
    ("key", "account"), [("ASIAQAAAAAAAGMKEM7X5", "000000000000"), ("AKIARZPUZDIKGB2VALC4", "123456789012")]
)
def test_the_account_can_be_read_from_keys_in_awss_form(key: str, account: str) -> None:
    assert account_of_access_key(key) == account


@pytest.mark.parametrize("text", ["", "test", "000000000000", "ASIAAAAAAAAAAAAAAAAA", "ASIAQAAAAAAAGMKEM7X1", "A" * 21])
def test_texts_that_are_no_key_have_no_account(text: str) -> None:
    assert account_of_access_key(text) is None


@given(st.from_regex(r"[0-9]{12}", fullmatch=True).filter(str.isascii))
def test_every_account_survives_the_way_into_a_key_and_back(account: str) -> None:
    key = new_access_key_id(account, "ASIA", SeededIds())

    assert re.fullmatch(r"ASIA[A-Z2-7]{16}", key)
    assert account_of_access_key(key) == account


def test_an_account_that_is_no_account_gets_no_key() -> None:
    with pytest.raises(ValueError, match="twelve digits"):
        new_access_key_id("1234", "AKIA", SeededIds())


def test_secrets_tokens_and_unique_ids_have_awss_forms() -> None:
    ids = SeededIds()

    assert re.fullmatch(r"[A-Za-z0-9+/]{40}", new_secret(ids))
    assert re.fullmatch(r"IQoJ[A-Za-z0-9+/]{352}", new_session_token(ids))
    assert re.fullmatch(r"AROA[A-Z0-9]{17}", new_role_id(ids))
    assert re.fullmatch(r"AIDA[A-Z0-9]{17}", new_user_id(ids))


def test_the_registry_finds_what_was_added_until_it_is_removed() -> None:
    registry = CredentialRegistry()
    registry.add(credential("AKIA1"))
    registry.add(credential("AKIA2"))

    assert registry.find("AKIA1") == credential("AKIA1")
    assert registry.find("AKIA3") is None
    registry.remove("AKIA1")
    assert registry.find("AKIA1") is None
    assert len(registry) == 1
    registry.clear()
    assert len(registry) == 0


def test_the_registry_never_gives_a_key_a_second_owner() -> None:
    registry = CredentialRegistry()
    registry.add(credential("AKIA1"))

    with pytest.raises(ValueError, match="already registered"):
        registry.add(credential("AKIA1"))


def test_secrets_are_not_in_the_text_form_of_a_credential() -> None:
    assert "secret" not in repr(credential("AKIA1")).replace("secret_access_key", "")
