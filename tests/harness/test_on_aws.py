"""Runs on Amazon's AWS: what must be said before one begins, what its owner may say, and what a dry run lists."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from harness import doctor_aws, limits
from harness.cluster.existing.rights import NEEDED, NEEDED_BY_SCENARIOS
from harness.cluster.existing.target import Target
from harness.errors import MissingPrerequisite, UsageError
from harness.existing_commands import on_backend, target_of
from harness.kube import Kube
from harness.lab import Lab
from harness.lab.account import AwsAccount
from harness.lab.account_plan import read_plan
from harness.sweep.account import AccountRules, require_account, require_undenied

ACCOUNT = "123456789012"
BOUNDARY = f"arn:aws:iam::{ACCOUNT}:policy/podid-boundary"
TARGET = Target("/config", "ctx", "uid", backend="aws", aws_account=ACCOUNT, aws_region="eu-west-1", eks_cluster="mine")


def target(**options: Any) -> Target | None:
    given: dict[str, Any] = {"kubeconfig": Path("/config"), "context": "ctx", "cluster_uid": "", "allow_install": False}
    on_aws = {"backend": "aws", "aws_account": ACCOUNT, "aws_region": "eu-west-1", "eks_cluster": "mine"}
    return target_of(options.pop("provider", "existing"), **given | on_aws | options)


# --- options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"aws_account": ""}, "--backend aws needs --aws-account"),
        ({"aws_region": "", "eks_cluster": ""}, "--backend aws needs --aws-region, --eks-cluster"),
        ({"backend": "emulator"}, "--aws-account, --aws-region, --eks-cluster without --backend aws"),
        ({"provider": "native"}, "--backend aws with provider native"),
        ({"allow_install": True}, "are about what a lab installs"),
    ],
    ids=["account", "region-and-cluster", "backend", "provider", "install"],
)
def test_amazons_aws_is_used_only_where_all_of_it_is_said(options: dict[str, Any], text: str) -> None:
    """HRN-EXT-06, HRN-EXT-08: code 3."""
    with pytest.raises(UsageError, match=text) as refused:
        target(**options)

    assert refused.value.exit_code == 3


def test_target_survives_its_file_and_says_its_options(tmp_path: Path) -> None:
    TARGET.write(tmp_path / "target.json")

    assert Target.read(tmp_path / "target.json") == TARGET
    assert Target.read(tmp_path / "none.json") is None
    assert TARGET.options("uid").endswith(
        "--backend aws --aws-account 123456789012 --aws-region eu-west-1 --eks-cluster mine"
    )


def test_backend_is_told_to_the_processes_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """HRN-EXT-08: whatever the environment said before."""
    monkeypatch.setenv(limits.BACKEND_VARIABLE, "aws")
    assert on_backend(None, ["a"], ["-q"], labs=1, images="") == (["a"], ["-q"])
    assert limits.ASSOCIATION_VISIBLE.allowed == limits.ASSOCIATION_VISIBLE.seconds

    assert on_backend(TARGET, ["a"], ["-q"], labs=1, images="") == (["mine"], ["-q", "--subject=upstream"])
    assert limits.ASSOCIATION_VISIBLE.allowed == limits.ASSOCIATION_VISIBLE.on_aws
    with pytest.raises(UsageError, match="--labs, --agent-image"):
        on_backend(TARGET, ["a"], [], labs=2, images="")


def test_lab_on_aws_is_not_used_again_by_chance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HRN-EXT-08: a lab that was kept is used by those who name the account again."""
    monkeypatch.setenv("PODID_STATE_DIR", str(tmp_path))
    monkeypatch.delenv(limits.BACKEND_VARIABLE, raising=False)
    lab = Lab("kept")
    lab.paths.directory.mkdir(parents=True)
    lab.paths.description.write_text('{"provider": "existing"}')
    TARGET.write(lab.paths.target)

    assert lab.on_aws
    with pytest.raises(UsageError, match="used only by those who say so"):
        lab.on_aws.require("ipv4")
    with pytest.raises(MissingPrerequisite, match="the endpoint of the lab's AWS: AWS is Amazon's") as refused:
        lab.control()
    assert refused.value.kind == "backend-unsupported"
    with pytest.raises(MissingPrerequisite, match="a run on AWS has one account"):
        lab.administrator("987654321098")


def test_fewer_rights_are_needed_where_nothing_is_installed() -> None:
    verbs = {right.verb for right in NEEDED_BY_SCENARIOS if right.resource == "mutatingwebhookconfigurations"}

    assert set(NEEDED_BY_SCENARIOS) < set(NEEDED)
    assert not verbs


# --- what the owner says --------------------------------------------------------------------------------------------


class Session:
    """A session of the account, with organizations that answer as they are told."""

    def __init__(self, aliases: list[str], organization: dict[str, str] | str, tags: list[str]) -> None:
        self._answers = {"aliases": aliases, "tags": [{"Key": key, "Value": ""} for key in tags]}
        self._organization = organization

    def get_credentials(self) -> Any:
        return SimpleNamespace(access_key="ASIAEXAMPLE")

    def client(self, service: str) -> Any:
        if service == "sts":
            return SimpleNamespace(get_caller_identity=lambda: {"Account": ACCOUNT})
        if service == "iam":
            return SimpleNamespace(list_account_aliases=lambda: {"AccountAliases": self._answers["aliases"]})

        def describe_organization() -> dict[str, Any]:
            if isinstance(self._organization, str):
                raise ClientError({"Error": {"Code": self._organization}}, "DescribeOrganization")
            return {"Organization": self._organization}

        return SimpleNamespace(
            describe_organization=describe_organization,
            list_tags_for_resource=lambda **_: {"Tags": self._answers["tags"]},
        )


MEMBER = {"MasterAccountId": "999999999999"}


@pytest.mark.parametrize(
    ("session", "text"),
    [
        (Session(["podid-deny"], MEMBER, []), "has the alias podid-deny"),
        (Session([], {"MasterAccountId": ACCOUNT}, []), "manages an organization"),
        (Session([], MEMBER, ["podid:deny"]), "has the tag podid:deny"),
    ],
    ids=["alias", "management", "tag"],
)
def test_account_that_says_no_is_refused(session: Session, text: str) -> None:
    """HRN-EXT-07: although it is listed."""
    with pytest.raises(MissingPrerequisite, match=text):
        require_undenied(session.client, ACCOUNT)


@pytest.mark.parametrize(
    "session",
    [
        Session(["sandbox"], MEMBER, ["team"]),
        Session([], "AWSOrganizationsNotInUseException", []),
        Session([], "AccessDeniedException", []),
    ],
    ids=["member", "in-none", "may-not-look"],
)
def test_other_accounts_are_taken(session: Session) -> None:
    require_undenied(session.client, ACCOUNT)


def test_trouble_with_the_question_is_no_yes() -> None:
    with pytest.raises(ClientError, match="ServiceException"):
        require_undenied(Session([], "ServiceException", []).client, ACCOUNT)


def test_rules_of_an_account_are_read(tmp_path: Path) -> None:
    """HRN-EXT-10, HRN-EXT-15: and what is not known is refused, so that no typing error removes a limit."""
    file = tmp_path / "accounts.yaml"
    file.write_text(
        f'accounts: {{"{ACCOUNT}": {{disposable: true, permissions_boundary: "{BOUNDARY}", max_minutes: 5}}}}'
    )
    session = Session([], MEMBER, [])
    assert require_account(session, ACCOUNT, file) == AccountRules(BOUNDARY, 60, 5)

    file.write_text(f'accounts: {{"{ACCOUNT}": {{disposable: true, max_minute: 5}}}}')
    with pytest.raises(UsageError, match="max_minute"):
        require_account(session, ACCOUNT, file)


# --- checks ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[str, str]]]:
    """Names and outcomes of the account's checks, with so many resources there."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("GITHUB_EVENT_PATH", raising=False)

    def run(rules: str, *, resources: int = 0) -> list[tuple[str, str]]:
        (tmp_path / "podid").mkdir(exist_ok=True)
        (tmp_path / "podid" / "accounts.yaml").write_text(f'accounts: {{"{ACCOUNT}": {{disposable: true, {rules}}}}}')
        session: Any = Session([], MEMBER, [])
        others = session.client
        addon = {"status": "ACTIVE", "addonVersion": "v1.3.10-eksbuild.2"}
        of_service = {
            "eks": SimpleNamespace(describe_addon=lambda **_: {"addon": addon}),
            "iam": SimpleNamespace(get_policy=lambda **_: {}, list_account_aliases=lambda: {"AccountAliases": []}),
        }
        session.client = lambda service: of_service.get(service) or others(service)
        monkeypatch.setattr(doctor_aws, "session_of", lambda _: session)
        monkeypatch.setattr(doctor_aws, "find_tagged", lambda _: iter(range(resources)))
        return [(check.name, check.status) for check in doctor_aws.account_checks(TARGET)]

    return run


def test_account_with_boundary_agent_and_room_is_fine(checks: Callable[..., list[tuple[str, str]]]) -> None:
    found = checks(f'permissions_boundary: "{BOUNDARY}"', resources=60)
    assert found == [("account", "ok"), ("boundary", "ok"), ("agent", "ok"), ("room", "ok")]


@pytest.mark.parametrize(
    ("rules", "resources", "failing"),
    [
        ("max_minutes: 5", 0, "boundary"),
        ('permissions_boundary: "arn:aws:iam::999999999999:policy/x"', 0, "boundary"),
        (f'permissions_boundary: "{BOUNDARY}"', 61, "room"),
        (f'permissions_boundary: "{BOUNDARY}", max_resources: 3', 4, "room"),
    ],
    ids=["no-boundary", "boundary-of-others", "full", "full-by-its-own-limit"],
)
def test_run_is_refused_and_nothing_more_is_asked(
    checks: Callable[..., list[tuple[str, str]]], rules: str, resources: int, failing: str
) -> None:
    """HRN-EXT-10, HRN-EXT-15."""
    assert checks(rules, resources=resources)[-1] == (failing, "fail")


def test_pull_request_of_a_fork_never_reaches_aws(
    checks: Callable[..., list[tuple[str, str]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HRN-EXT-08: whatever credentials its workflow has."""
    event = tmp_path / "event.json"
    monkeypatch.setenv("GITHUB_EVENT_PATH", str(event))
    rules = f'permissions_boundary: "{BOUNDARY}"'

    def of(origin: str) -> str:
        head = {"repo": {"full_name": origin} if origin else None}
        return json.dumps({"pull_request": {"head": head}, "repository": {"full_name": "acme/agent"}})

    outcomes: Iterator[list[tuple[str, str]]] = (
        (event.write_text(text), checks(rules))[1] for text in (of("mallory/agent"), of(""), of("acme/agent"), "{}")
    )
    assert [found[0] for found in outcomes] == [
        ("pull request", "fail"),
        ("pull request", "fail"),
        ("account", "ok"),
        ("account", "ok"),
    ]


# --- a dry run ------------------------------------------------------------------------------------------------------

BUCKET = "my-app-bucket"


def steps(aws: AwsAccount, kube: Kube) -> None:
    with aws.bucket(BUCKET) as name, kube.namespace("demo"), aws.association("c", "demo", "s3-reader", "arn"):
        helper(aws)
        aws.client("s3").put_object(Bucket=name, Key="a", Body=b"")
        aws.create_agent_addon("c")


def helper(aws: AwsAccount) -> None:
    eks = aws.client("eks")
    for page in eks.get_paginator("list_clusters").paginate():
        eks.describe_cluster(name=page["clusters"][0])


def test_dry_run_reads_what_scenarios_make_and_call() -> None:
    """HRN-EXT-05: also through functions beside them and the account's own methods; what is refused is not called."""
    plan = read_plan([steps])

    assert plan.resources == [("bucket", BUCKET), ("association", "s3-reader")]
    assert plan.objects == [("Namespace", "demo")]
    assert {"eks list_clusters", "eks describe_cluster", "s3 put_object", "s3 create_bucket"} <= plan.calls
    assert {"s3 put_bucket_tagging", "eks create_pod_identity_association"} <= plan.calls
    assert "eks create_addon" not in plan.calls
    assert "would create in AWS          bucket podid-RUN-my-app-bucket" in plan.lines("podid-RUN-{}".format)
