"""Which account of AWS may be touched: the one that was named, that its owner calls disposable, with keys that end."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import boto3
import yaml
from botocore.exceptions import BotoCoreError, ClientError

from harness.cluster.existing.target import Target
from harness.errors import MissingPrerequisite, UsageError

__all__ = ["AccountRules", "accounts_file", "require_account", "require_undenied", "rules_of", "session_of"]

_EXAMPLE = 'accounts: {"ACCOUNT": {disposable: true}}'
_DENIED_ALIAS = "podid-deny"
"""An alias has no colon."""
_DENIED_TAG = "podid:deny"
_NOBODY_CAN_TELL = {
    "AWSOrganizationsNotInUseException",
    "AccessDenied",
    "AccessDeniedException",
    "NotImplemented",
    "TargetNotFoundException",
}
"""Codes with which an account that may not look into an organization, or is in none, is answered; a lab has none."""


@dataclass(frozen=True, slots=True)
class AccountRules:
    """What the owner of an account says about it."""

    permissions_boundary: str = ""
    """ARN of the policy that limits every role which a run makes (HRN-EXT-10)."""
    max_resources: int = 60
    """So many resources of runs may be there when another run begins (HRN-EXT-15)."""
    max_minutes: int = 90
    """So long a run may probably take."""


def accounts_file() -> Path:
    """Return the file that lists disposable accounts."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "podid" / "accounts.yaml"


def require_account(session: Any, account: str, file: Path, *, allows_static_keys: bool = False) -> AccountRules:
    """Return what is said of an account, if this session is of it and may touch it; only GetCallerIdentity is called.

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
    listed = _listed(file).get(account, {})
    if not listed.get("disposable"):
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
    try:
        return AccountRules(**{name: value for name, value in listed.items() if name != "disposable"})
    except TypeError as error:
        known = ", ".join(AccountRules.__slots__)
        raise UsageError(f"{file}, account {account}: {error}", hint=f"beside disposable it takes {known}") from error


def session_of(target: Target) -> Any:
    """Return a boto3 session in the target's region, with the credentials that boto3 finds; nothing is called."""
    return boto3.Session(region_name=target.aws_region)


def rules_of(target: Target, session: Any) -> AccountRules:
    """Return what the owner says of the target's account, as :func:`require_account` does.

    Raises:
        MissingPrerequisite: The credentials are of another account, or it may not be touched.
    """
    return require_account(session, target.aws_account, accounts_file(), allows_static_keys=target.allows_static_keys)


def require_undenied(client: Callable[[str], Any], account: str) -> None:
    """Return unless an account must not be touched whatever the list says; only reads (HRN-EXT-07).

    Args:
        client: Returns the boto3 client of a service.
        account: The account.

    Raises:
        MissingPrerequisite: It manages an organization, or has an alias or a tag that says no.
    """
    aliases = client("iam").list_account_aliases()["AccountAliases"]
    if _DENIED_ALIAS in aliases:
        _deny(account, f"has the alias {_DENIED_ALIAS}")
    try:
        organizations = client("organizations")
        if organizations.describe_organization()["Organization"]["MasterAccountId"] == account:
            _deny(account, "manages an organization")
        tags = organizations.list_tags_for_resource(ResourceId=account)["Tags"]
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") not in _NOBODY_CAN_TELL:
            raise
        return
    if any(tag["Key"] == _DENIED_TAG for tag in tags):
        _deny(account, f"has the tag {_DENIED_TAG}")


def _deny(account: str, why: str) -> NoReturn:
    raise MissingPrerequisite(
        f"account {account} {why}: no run and no sweep touches it", hint="use an account of its own for runs"
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
