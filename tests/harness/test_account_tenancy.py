"""What becomes of the calls of a run in somebody's account of AWS; nothing is sent."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from harness import limits, wait
from harness.account_tenancy import AccountTenancy, Record, is_allowed
from harness.errors import MissingPrerequisite
from harness.tenancy import Mark

FIXTURES = Path(__file__).parents[2] / "fixtures"
BOUNDARY = "arn:aws:iam::111122223333:policy/podid-boundary"
TAGS = {
    "podid:run": "ab12cd",
    "podid:owner": "ann.o@host",
    "podid:repo": "acme/agent",
    "podid:expires": "2026-11-26T16:00:00Z",
}
PAIRS = [{"Key": key, "Value": value} for key, value in TAGS.items()]


@pytest.fixture
def tenancy(tmp_path: Path) -> AccountTenancy:
    mark = Mark("ab12cd", "ann(o@host", "acme/agent", datetime(2026, 11, 26, 16, tzinfo=UTC))
    record = Record(tmp_path / "account.json")
    return AccountTenancy(mark, "111122223333", "eu-north-1", "my-cluster", BOUNDARY, record)


# --- names ----------------------------------------------------------------------------------------------------------


def test_name_of_the_guide_becomes_one_of_the_run_once(tenancy: AccountTenancy) -> None:
    """HRN-EXT-09."""
    assert tenancy.name("my-app-bucket") == "podid-ab12cd-my-app-bucket"
    assert tenancy.name("podid-ab12cd-my-app-bucket") == "podid-ab12cd-my-app-bucket"


@pytest.mark.parametrize(
    ("guide", "here"),
    [
        ("arn:aws:s3:::my-app-bucket/*", "arn:aws:s3:::podid-ab12cd-my-app-bucket/*"),
        ("aws s3 cp s3://migration-bucket/a.txt -", "aws s3 cp s3://podid-ab12cd-migration-bucket/a.txt -"),
        (
            "arn:aws:iam::123456789012:role/reader",
            "arn:aws:iam::111122223333:role/podid/ab12cd/podid-ab12cd-reader",
        ),
        (
            "arn:aws:sts::123456789012:assumed-role/reader/session",
            "arn:aws:sts::111122223333:assumed-role/podid-ab12cd-reader/session",
        ),
        (
            "arn:aws:dynamodb:eu-west-1:123456789012:table/notes",
            "arn:aws:dynamodb:eu-north-1:111122223333:table/podid-ab12cd-notes",
        ),
        ("arn:aws:iam::aws:policy/ReadOnlyAccess", "arn:aws:iam::aws:policy/ReadOnlyAccess"),
        ("arn:aws:s3:::*", "arn:aws:s3:::*"),
        ("every pod", "every pod"),
    ],
    ids=["bucket", "url", "role", "session", "table", "of-aws", "wildcard", "prose"],
)
def test_text_of_the_guide_reads_as_it_is_here(tenancy: AccountTenancy, guide: str, here: str) -> None:
    assert tenancy.text(guide) == here
    assert tenancy.text(here) == here


def test_policies_of_the_scenarios_name_what_the_run_makes(tenancy: AccountTenancy) -> None:
    """No policy of a scenario that runs on AWS is left with a name of the guide, which would be somebody's."""
    documents = [path for name in ("s3", "abac", "migration") for path in sorted((FIXTURES / name).glob("*.json"))]
    texts = [tenancy.text(path.read_text()) for path in documents]

    resources = [word for text in texts for word in text.split('"') if word.startswith("arn:aws:")]
    # Of the account as a whole trust policies speak that leave it to policies who may come.
    others = ("arn:aws:eks:", "arn:aws:iam::111122223333:oidc-", "arn:aws:iam::111122223333:root")
    ours = [word for word in resources if not word.startswith(others)]
    assert ours
    assert [word for word in ours if "podid-ab12cd-" not in word] == []


# --- calls ----------------------------------------------------------------------------------------------------------


def test_role_gets_name_path_tags_and_boundary(tenancy: AccountTenancy) -> None:
    """HRN-EXT-09, HRN-EXT-10: whatever the caller said."""
    trust = '{"Principal": {"AWS": "arn:aws:iam::123456789012:role/first"}}'
    asked = {"RoleName": "reader", "AssumeRolePolicyDocument": trust, "PermissionsBoundary": "another"}

    assert tenancy.adapted("iam", "CreateRole", asked) == {
        "RoleName": "podid-ab12cd-reader",
        "Path": "/podid/ab12cd/",
        "Tags": PAIRS,
        "PermissionsBoundary": BOUNDARY,
        "AssumeRolePolicyDocument": trust.replace(
            "123456789012:role/first", "111122223333:role/podid/ab12cd/podid-ab12cd-first"
        ),
    }


def test_tags_of_a_scenario_stay_beside_ours(tenancy: AccountTenancy) -> None:
    sent = tenancy.adapted("secretsmanager", "CreateSecret", {"Name": "a", "Tags": [{"Key": "team", "Value": "a"}]})
    assert sent == {"Name": "podid-ab12cd-a", "Tags": [{"Key": "team", "Value": "a"}, *PAIRS]}


def test_association_is_tagged_and_of_the_cluster_that_was_named(tenancy: AccountTenancy) -> None:
    pair = {"namespace": "demo", "serviceAccount": "a"}
    sent = tenancy.adapted("eks", "CreatePodIdentityAssociation", pair | {"clusterName": "my-cluster"})
    assert sent["tags"] == TAGS

    with pytest.raises(MissingPrerequisite, match="is about cluster theirs, not my-cluster"):
        tenancy.adapted("eks", "CreatePodIdentityAssociation", pair | {"clusterName": "theirs"})


@pytest.mark.parametrize(
    ("service", "operation", "asked"),
    [
        ("iam", "DeleteRole", {"RoleName": "admin"}),
        ("s3", "DeleteBucket", {"Bucket": "their-bucket"}),
        ("secretsmanager", "DeleteSecret", {"SecretId": "their-secret"}),
    ],
)
def test_somebodys_resource_of_the_same_name_is_never_meant(
    tenancy: AccountTenancy, service: str, operation: str, asked: dict[str, str]
) -> None:
    """What names a resource in a call names the run's."""
    (name,) = tenancy.adapted(service, operation, asked).values()
    assert name.startswith("podid-ab12cd-")


@pytest.mark.parametrize(
    ("service", "operation", "asked"),
    [
        ("iam", "DeletePolicy", {"PolicyArn": "arn:aws:iam::111122223333:policy/podid/ffffff/podid-ffffff-x"}),
        (
            "iam",
            "DeleteOpenIDConnectProvider",
            {"OpenIDConnectProviderArn": "arn:aws:iam::111122223333:oidc-provider/x"},
        ),
        ("eks", "DeletePodIdentityAssociation", {"clusterName": "my-cluster", "associationId": "a-1"}),
    ],
)
def test_what_aws_named_must_be_this_runs(
    tenancy: AccountTenancy, service: str, operation: str, asked: dict[str, str]
) -> None:
    with pytest.raises(MissingPrerequisite, match="which this run did not make") as refused:
        tenancy.adapted(service, operation, asked)

    assert refused.value.kind == "backend-unsupported"


@pytest.mark.parametrize(
    ("service", "operation"),
    [("eks", "CreateAddon"), ("eks", "DeleteCluster"), ("iam", "CreateUser"), ("ec2", "TerminateInstances")],
)
def test_anything_else_that_changes_something_is_refused(tenancy: AccountTenancy, service: str, operation: str) -> None:
    with pytest.raises(MissingPrerequisite, match="nothing that a run does in somebody else's account"):
        tenancy.adapted(service, operation, {})


def test_reading_is_allowed_and_finds_the_runs(tenancy: AccountTenancy) -> None:
    assert tenancy.adapted("iam", "GetRole", {"RoleName": "reader"}) == {"RoleName": "podid-ab12cd-reader"}
    assert tenancy.adapted("eks", "DescribeCluster", {"name": "my-cluster"}) == {"name": "my-cluster"}
    assert [is_allowed(call) for call in ("s3 list_objects_v2", "iam create_role", "eks create_addon")] == [
        True,
        True,
        False,
    ]


# --- the record -----------------------------------------------------------------------------------------------------


def test_record_knows_what_was_made_and_removed(tmp_path: Path) -> None:
    """HRN-EXT-19: also in another process, and with times."""
    record = Record(tmp_path / "account.json")
    asked: dict[str, Any] = {"namespace": "demo", "serviceAccount": "a"}
    record.note("eks create_x", ("association", ""), asked, {"association": {"associationId": "a-1"}})
    record.note("s3 create_bucket", ("bucket", ""), {"Bucket": "podid-ab12cd-b"}, {})
    record.note("eks delete_x", ("", "association"), {"associationId": "a-1"}, {})

    again = Record(tmp_path / "account.json")
    assert [(one.kind, one.name, bool(one.removed_at)) for one in again.made] == [
        ("association", "demo/a", True),
        ("bucket", "podid-ab12cd-b", False),
    ]
    assert [one.name for one in again.left()] == ["podid-ab12cd-b"]
    assert "NOT REMOVED" in str(again.left()[0])
    assert again.knows("a-1")
    assert again.calls == {"eks create_x", "eks delete_x", "s3 create_bucket"}


# --- times ----------------------------------------------------------------------------------------------------------


def test_waits_have_longer_on_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """HRN-EXT-17: and the message says which limit it was."""
    assert limits.ASSOCIATION_VISIBLE.allowed == 30
    monkeypatch.setenv(limits.BACKEND_VARIABLE, "aws")
    assert limits.ASSOCIATION_VISIBLE.allowed == 60
    assert limits.PROCESS_START.allowed == limits.PROCESS_START.seconds

    now = [0.0]
    clock = wait.Clock(lambda: now[0], lambda seconds: now.__setitem__(0, now[0] + seconds))
    with pytest.raises(wait.Timeout, match=r"waited 60 s for it \(limit ASSOCIATION_VISIBLE, 60 s\)"):
        wait.until(lambda: False, what="it", timeout=limits.ASSOCIATION_VISIBLE, clock=clock)


# --- what a user copies ---------------------------------------------------------------------------------------------


def test_sweeper_s_policy_deletes_only_under_our_marks() -> None:
    """HRN-EXT-14: by path, by name, or by all four tags; nothing is created or changed."""
    policy = json.loads((FIXTURES / "aws" / "policies" / "sweep.json").read_text())
    look, *removing = policy["Statement"]

    assert not [
        action for action in look["Action"] if not action.partition(":")[2].startswith(("Describe", "Get", "List"))
    ]
    tags = {f"aws:ResourceTag/{name}": "false" for name in TAGS}
    for statement in removing:
        verbs = {action.partition(":")[2] for action in statement["Action"]}
        assert all(verb.startswith(("Delete", "Detach", "ListBucketVersions")) for verb in verbs)
        resources = [statement["Resource"]] if isinstance(statement["Resource"], str) else statement["Resource"]
        by_name = all("/podid/" in resource or ":::podid-" in resource for resource in resources)
        assert by_name or statement["Condition"] == {"Null": tags}
