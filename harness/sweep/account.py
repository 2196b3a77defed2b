"""Which account of AWS may be touched: the one that was named, that its owner calls disposable, with keys that end."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from botocore.exceptions import BotoCoreError, ClientError

from harness.errors import MissingPrerequisite, UsageError

__all__ = ["accounts_file", "require_account"]

_EXAMPLE = 'accounts: {"ACCOUNT": {disposable: true}}'


def accounts_file() -> Path:
    """Return the file that lists disposable accounts."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "podid" / "accounts.yaml"


def require_account(session: Any, account: str, file: Path, *, allows_static_keys: bool = False) -> None:
    """Return if this session is of an account that may be touched; GetCallerIdentity is all that is called.

    Args:
        session: A boto3 session.
        account: The account that the caller means.
        file: List of the accounts that are disposable.
        allows_static_keys: Whether keys without an end are taken.

    Raises:
        UsageError: The list cannot be read.
        MissingPrerequisite: It is not listed (HRN-EXT-07), the keys are static (HRN-EXT-18), or another account answers
            (HRN-EXT-06).
    """
    if not _listed(file).get(account, {}).get("disposable"):
        raise MissingPrerequisite(
            f"account {account} is not listed as disposable in {file}",
            hint=f"if everything in it may be lost, write there: {_EXAMPLE.replace('ACCOUNT', account)}",
            kind="opt-in-required",
        )
    credentials = session.get_credentials()
    if credentials is None:
        raise MissingPrerequisite("there are no credentials of AWS", hint="log in first: aws sso login")
    if credentials.access_key.startswith("AKIA") and not allows_static_keys:
        raise MissingPrerequisite(
            f"access key {credentials.access_key[:8]}… is a static one, which does not end by itself",
            hint="use SSO or OIDC; or allow it with: --allow-static-keys",
            kind="opt-in-required",
        )
    try:
        found = str(session.client("sts").get_caller_identity()["Account"])
    except (BotoCoreError, ClientError) as error:
        raise MissingPrerequisite(f"AWS does not say whose credentials these are: {error}") from error
    if found != account:
        raise MissingPrerequisite(
            f"these credentials are of account {found}, not of {account}; nothing else was called",
            hint="choose another profile: set AWS_PROFILE",
        )


def _listed(file: Path) -> Mapping[str, Any]:
    if not file.exists():
        return {}
    try:
        document: Any = yaml.safe_load(file.read_text()) or {}
        accounts: dict[Any, Any] = document["accounts"]
        return {str(account): members or {} for account, members in accounts.items()}
    except (OSError, yaml.YAMLError, LookupError, TypeError, AttributeError) as error:
        raise UsageError(f"cannot read {file}: {error!r}", hint=f"it looks like this: {_EXAMPLE}") from error
