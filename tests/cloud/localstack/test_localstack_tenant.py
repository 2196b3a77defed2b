"""A run's calls in an account that is somebody's: an emulator stands for Amazon's, and sees what arrives."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import boto3
import pytest

from harness.account_tenancy import AccountTenancy, Record
from harness.errors import MissingPrerequisite
from harness.lab.account import AwsAccount
from harness.lab.account_plan import read_plan
from harness.subject.aws import ACCOUNT, CLUSTER, REGION, Aws
from harness.subject.bound_cluster import ApiServerDouble
from harness.sweep.aws import find_tagged
from harness.tenancy import Mark

FIXTURES = Path(__file__).parents[3] / "fixtures"
BOUNDARY = f"arn:aws:iam::{ACCOUNT}:policy/podid-boundary"
ISSUER = "https://issuer.example.com"


@pytest.fixture
def somebodys(aws: Aws, api: ApiServerDouble, tmp_path: Path) -> AwsAccount:
    """An account with a boundary, as a run may use it."""
    assert api
    document = (FIXTURES / "aws" / "policies" / "permissions-boundary.json").read_text()
    aws.client("iam").create_policy(PolicyName="podid-boundary", PolicyDocument=document)
    mark = Mark("ab12cd", "ann", "acme/agent", datetime(2026, 11, 26, 16, tzinfo=UTC))
    keys = aws.bootstrap.account(ACCOUNT).administrator
    session = boto3.Session(keys.access_key_id, keys.secret_access_key, region_name=REGION)
    tenancy = AccountTenancy(mark, ACCOUNT, REGION, CLUSTER, BOUNDARY, Record(tmp_path / "account.json"))
    return AwsAccount(session, aws.endpoint, tenancy)


def scenario(aws: AwsAccount, seen: Callable[[], None]) -> None:
    """Make one resource of each kind, look, and remove them."""
    policy = (FIXTURES / "s3" / "s3-read-policy.json").read_text()
    trust = (FIXTURES / "s3" / "pod-identity-trust.json").read_text()
    with (
        aws.bucket("my-app-bucket") as bucket,
        aws.policy("reader-policy", policy) as policy_arn,
        aws.role("reader", trust, policies=[policy_arn]) as arn,
        aws.secret("a", "of team-a", {"team": "a"}),
        aws.table("notes", "team", [{"team": "a"}]),
        aws.oidc_provider("https://issuer.example.com"),
        aws.association("pod-identity-lab", "demo", "s3-reader", arn),
    ):
        aws.client("s3").put_object(Bucket=bucket, Key="hello.txt", Body=b"1")
        seen()


def test_everything_is_named_tagged_and_gone_at_the_end(somebodys: AwsAccount, aws: Aws, tmp_path: Path) -> None:
    """HRN-EXT-09, HRN-EXT-10, HRN-EXT-05: and the dry run's list is what was made and called."""
    iam, found = aws.client("iam"), dict[str, str]()

    def look() -> None:
        found.update({resource.kind: resource.name for resource in find_tagged(aws.client)})
        role = iam.get_role(RoleName="podid-ab12cd-reader")["Role"]
        assert (role["Path"], role["PermissionsBoundary"]["PermissionsBoundaryArn"]) == ("/podid/ab12cd/", BOUNDARY)
        (policy,) = iam.list_policies(Scope="Local", PathPrefix="/podid/ab12cd/")["Policies"]
        version = iam.get_policy_version(PolicyArn=policy["Arn"], VersionId="v1")["PolicyVersion"]
        assert "arn:aws:s3:::podid-ab12cd-my-app-bucket/*" in json.dumps(version["Document"])

    scenario(somebodys, look)

    association = found.pop("association")
    assert association.startswith(f"{CLUSTER}/a-")
    assert found == {
        "bucket": "podid-ab12cd-my-app-bucket",
        "secret": "podid-ab12cd-a",
        "table": "podid-ab12cd-notes",
        "OIDC provider": "issuer.example.com",
        "role": "podid-ab12cd-reader",
        "policy": "podid-ab12cd-reader-policy",
    }
    assert list(find_tagged(aws.client)) == []
    record = Record(tmp_path / "account.json")
    assert (len(record.made), record.left()) == (7, [])
    plan = read_plan([scenario])
    of_their_own = {("association", "s3-reader"), ("OIDC provider", "")}
    assert {(kind, somebodys.name(name)) for kind, name in set(plan.resources) - of_their_own} == {
        (one.kind, one.name) for one in record.made if one.kind not in {"association", "OIDC provider"}
    }
    assert record.calls <= plan.calls


def test_what_is_somebodys_is_used_and_stays(somebodys: AwsAccount, aws: Aws, make_role: Callable[..., str]) -> None:
    """HRN-EXT-04 for AWS: an issuer that IAM knows already, and associations of the same pair."""
    iam, eks = aws.client("iam"), aws.client("eks")
    theirs = iam.create_open_id_connect_provider(Url=ISSUER)["OpenIDConnectProviderArn"]
    with somebodys.oidc_provider(ISSUER) as arn:
        assert arn == theirs
    assert iam.get_open_id_connect_provider(OpenIDConnectProviderArn=theirs)

    role = make_role("theirs", {"Service": "pods.eks.amazonaws.com"})
    pair = {"clusterName": CLUSTER, "namespace": "demo", "serviceAccount": "s3-reader"}
    eks.create_pod_identity_association(**pair, roleArn=role)
    with (
        pytest.raises(MissingPrerequisite, match="which this run did not make"),
        somebodys.association(CLUSTER, "demo", "s3-reader", role),
    ):
        pass
    assert len(eks.list_pod_identity_associations(**pair)["associations"]) == 1


def test_nothing_is_installed(somebodys: AwsAccount) -> None:
    """An add-on that is missing is named, and not created."""
    with pytest.raises(MissingPrerequisite, match="has no add-on eks-pod-identity-agent"):
        somebodys.create_agent_addon(CLUSTER)
    with pytest.raises(MissingPrerequisite, match="eks:DeleteAddon is nothing that a run does"):
        somebodys.delete_agent_addon(CLUSTER)
    with pytest.raises(MissingPrerequisite, match="Amazon's CloudTrail"):
        somebodys.lookup_events()
