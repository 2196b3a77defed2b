"""Can a run use somebody's account of AWS? Looks with the caller's credentials, and changes nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from harness.cluster.existing.target import Target
from harness.doctor_check import Check
from harness.errors import MissingPrerequisite
from harness.lab.account import AGENT_ADDON
from harness.sweep.account import AccountRules, accounts_file, require_undenied, rules_of, session_of
from harness.sweep.aws import find_tagged

__all__ = ["account_checks", "issuer_on_eks"]


def issuer_on_eks(target: Target) -> str:
    """Return the issuer of the cluster's tokens, as EKS says it."""
    described = session_of(target).client("eks").describe_cluster(name=target.eks_cluster)["cluster"]
    return str(described["identity"]["oidc"]["issuer"])


def account_checks(target: Target) -> list[Check]:
    """Run every check of the account; after a failure nothing more is asked."""
    checks: list[Check] = []
    for check in _checks(target):
        checks.append(check)
        if check.status == "fail":
            break
    return checks


def _checks(target: Target) -> Iterator[Check]:
    if (origin := _foreign_pull_request()) is not None:
        yield Check("pull request", "fail", f"this is a run for {origin}", "code of this repository, on AWS")
        return
    session = session_of(target)
    try:
        rules = rules_of(target, session)
        yield Check("account", "ok", f"{target.aws_account}, disposable, in {target.aws_region}", "")
        require_undenied(session.client, target.aws_account)
        yield _boundary(session, target, rules)
        yield _cluster(session, target)
        yield _room(session, rules)
    except MissingPrerequisite as error:
        yield Check("account", "fail", error.message, "an account that may be touched", error.hint)
    except (BotoCoreError, ClientError) as error:
        fix = "use a role that may do what fixtures/aws/policies/run.json says"
        yield Check("AWS", "fail", str(error), "an answer", fix)


def _foreign_pull_request() -> str | None:
    """Return where a pull request comes from whose workflow this is, unless that is the repository itself."""
    file = os.environ.get("GITHUB_EVENT_PATH")
    event: Any = json.loads(Path(file).read_text()) if file and Path(file).exists() else {}
    if "pull_request" not in event:
        return None
    fork: Any = event["pull_request"]["head"]["repo"]
    origin = str(fork["full_name"]) if fork else "a fork that is gone"
    return None if origin == event["repository"]["full_name"] else origin


def _boundary(session: Any, target: Target, rules: AccountRules) -> Check:
    needed = "the policy that limits the roles which a run makes"
    fix = f"create it from fixtures/aws/policies/permissions-boundary.json, and name it in {accounts_file()}"
    if not rules.permissions_boundary:
        return Check("boundary", "fail", f"{accounts_file()} names no permissions_boundary", needed, fix)
    if f"::{target.aws_account}:policy/" not in rules.permissions_boundary:
        return Check("boundary", "fail", f"{rules.permissions_boundary} is no policy of the account", needed, fix)
    try:
        session.client("iam").get_policy(PolicyArn=rules.permissions_boundary)
    except ClientError as error:
        return Check("boundary", "fail", f"{rules.permissions_boundary}: {error}", needed, fix)
    return Check("boundary", "ok", rules.permissions_boundary, "")


def _cluster(session: Any, target: Target) -> Check:
    name = target.eks_cluster
    try:
        addon = session.client("eks").describe_addon(clusterName=name, addonName=AGENT_ADDON)["addon"]
    except ClientError as error:
        fix = f"aws eks create-addon --cluster-name {name} --addon-name {AGENT_ADDON}"
        return Check("agent", "fail", str(error), "the add-on, which is what is tested", fix)
    if addon["status"] != "ACTIVE":
        fix = f"see: aws eks describe-addon --cluster-name {name} --addon-name {AGENT_ADDON}"
        return Check("agent", "fail", f"add-on {AGENT_ADDON} is {addon['status']}", "it active", fix)
    return Check("agent", "ok", f"add-on {AGENT_ADDON} {addon['addonVersion']}", "")


def _room(session: Any, rules: AccountRules) -> Check:
    count = sum(1 for _ in find_tagged(session.client))
    if count > rules.max_resources:
        return Check(
            "room",
            "fail",
            f"{count} resources of runs are there",
            f"{rules.max_resources} at most (max_resources)",
            "remove what has expired with: podid sweep --account ID --region REGION --delete",
        )
    return Check("room", "ok", f"{count} resources of runs are there, {rules.max_resources} at most", "")
