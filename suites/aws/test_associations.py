"""Making pod identity associations, as section 3.1 of the API's specification says."""

from __future__ import annotations

import json
import re
import threading
from typing import Any

import pytest

from harness.cloud.eks import EksSettings
from harness.cloud.ports import Refusal
from harness.conformance.marks import requirement
from harness.subject.eks_lab import ACCOUNT, NAME, READER, SCOPE, Lab, by_id, refused

POLICY = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}'
ABSENT = f"arn:aws:iam::{ACCOUNT}:role/absent"


@pytest.fixture
def cloud() -> Lab:
    return Lab.new(names=("pod-identity-lab", "second"))


@requirement("API-201", "API-202", "API-203", "API-204")
def test_record_is_complete_and_has_nothing_that_is_unset(cloud: Lab) -> None:
    """API-201 to API-204."""
    record = cloud.create()

    assert re.fullmatch("a-[a-z0-9]{17}", record["associationId"])
    arn = f"arn:aws:eks:eu-west-1:{ACCOUNT}:podidentityassociation/pod-identity-lab/{record['associationId']}"
    assert record == {
        "clusterName": "pod-identity-lab",
        "namespace": "demo",
        "serviceAccount": "s3-reader",
        "roleArn": READER,
        "associationArn": arn,
        "associationId": record["associationId"],
        "tags": {},
        "createdAt": cloud.clock.now(),
        "modifiedAt": cloud.clock.now(),
        "disableSessionTags": False,
    }


@requirement("API-225")
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param(
            {"clusterName": "nope"},
            (404, "ResourceNotFoundException", "No cluster found for name: nope."),
            marks=requirement("API-206"),
        ),
        pytest.param(
            {"roleArn": f"arn:aws:iam::{ACCOUNT}:role/nope"},
            (400, "InvalidParameterException", "Role provided in the request does not exist."),
            marks=requirement("API-210"),
        ),
        pytest.param(
            {"roleArn": f"arn:aws:iam::{ACCOUNT}:role/irsa"},
            (
                400,
                "InvalidParameterException",
                "Trust policy of the role provided is invalid. Follow the official documentation to resolve the issue.",
            ),
            marks=requirement("API-211"),
        ),
    ],
)
def test_faults_have_awss_words(cloud: Lab, changes: dict[str, str], expected: tuple[int, str, str]) -> None:
    """Clients match these texts; nothing is left behind."""
    cloud.add_role(
        f"arn:aws:iam::{ACCOUNT}:role/irsa",
        '{"Statement":{"Effect":"Allow","Principal":{"Federated":"x"},"Action":"sts:AssumeRoleWithWebIdentity"}}',
    )

    assert refused(lambda: cloud.create(**changes)) == expected
    assert cloud.eks.associations.list(SCOPE, NAME) == {"associations": []}
    assert cloud.clusters.published == {}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"namespace": ""}, marks=requirement("API-224")),
        pytest.param({"namespace": None}, marks=requirement("API-224")),
        pytest.param({"serviceAccount": None}, marks=requirement("API-224")),
        pytest.param({"roleArn": None}, marks=requirement("API-224")),
        pytest.param({"roleArn": "not an arn"}, marks=requirement("API-214")),
        pytest.param({"roleArn": f"arn:aws:iam::{ACCOUNT}:user/somebody"}, marks=requirement("API-214")),
        pytest.param({"roleArn": "arn:aws:iam::987654321098:role/elsewhere"}, marks=requirement("API-213")),
        pytest.param({"policy": POLICY}, marks=requirement("API-218", "IAM-ABAC-09")),
        pytest.param({"policy": POLICY, "disableSessionTags": False}, marks=requirement("API-218", "IAM-ABAC-09")),
        pytest.param({"policy": "{}", "disableSessionTags": True}, marks=requirement("API-219")),
        pytest.param({"policy": "no json", "disableSessionTags": True}, marks=requirement("API-219")),
        pytest.param(
            {"policy": '{"Statement":"%s"}' % ("x" * 2048), "disableSessionTags": True}, marks=requirement("API-219")
        ),
        pytest.param({"tags": {f"k{number}": "v" for number in range(51)}}, marks=requirement("API-223")),
        pytest.param({"tags": {"Aws:owner": "v"}}, marks=requirement("API-223")),
        pytest.param({"tags": {"": "v"}}, marks=requirement("API-223")),
        pytest.param({"tags": {"k" * 129: "v"}}, marks=requirement("API-223")),
        pytest.param({"tags": {"k": "v" * 257}}, marks=requirement("API-223")),
    ],
)
def test_parameters_that_cannot_be_are_refused(cloud: Lab, changes: dict[str, Any]) -> None:
    """One fault at a time."""
    assert refused(lambda: cloud.create(**changes))[:2] == (400, "InvalidParameterException")


@requirement("API-223")
def test_tags_at_their_limits_are_stored(cloud: Lab) -> None:
    """Fifty tags, a key of 128 and a value of 256 characters."""
    tags = {"k" * 128: "v" * 256} | {f"k{number}": "" for number in range(49)}

    assert cloud.create(tags=tags)["tags"] == tags


@requirement("API-216")
def test_target_role_may_be_elsewhere_and_absent(cloud: Lab) -> None:
    """Only the first role has to be in the cluster's account, and to be at all."""
    for number, account in enumerate((ACCOUNT, "987654321098")):
        target = f"arn:aws:iam::{account}:role/absent"
        assert cloud.create(f"sa-{number}", targetRoleArn=target)["targetRoleArn"] == target


@requirement("API-219", "API-220")
def test_session_policy_comes_back_as_it_was(cloud: Lab) -> None:
    """A string, equal in JSON to what was sent, up to 2048 characters."""
    policy = POLICY + " " * (2048 - len(POLICY))

    record = cloud.create(policy=policy, disableSessionTags=True)

    found = cloud.eks.associations.describe(SCOPE, by_id(record))["association"]["policy"]
    assert isinstance(found, str)
    assert json.loads(found) == json.loads(POLICY)


@requirement("API-205")
def test_kubernetes_is_not_asked_for_names(cloud: Lab) -> None:
    """EKS talks to no API server about namespaces and service accounts: any names do."""
    record = cloud.create("no-such-account", namespace="no-such-namespace")

    assert (record["namespace"], record["serviceAccount"]) == ("no-such-namespace", "no-such-account")


@requirement("API-112")
def test_names_compare_with_their_case(cloud: Lab) -> None:
    """Names that differ in case are different names."""
    cloud.create()

    assert cloud.create("S3-Reader")["serviceAccount"] == "S3-Reader"
    assert cloud.create(namespace="Demo")["namespace"] == "Demo"
    assert refused(lambda: cloud.create("x", clusterName="Pod-Identity-Lab"))[0] == 404


@requirement("API-226")
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"namespace": "", "clusterName": "nope"}, "The parameter namespace is required."),
        ({"clusterName": "nope", "roleArn": ABSENT}, "No cluster found for name: nope."),
        ({"clientRequestToken": "t", "roleArn": ABSENT}, "clientRequestToken"),
        ({"roleArn": ABSENT}, "Association already exists"),
        ({"serviceAccount": "other", "roleArn": ABSENT, "policy": POLICY}, "does not exist"),
        ({"serviceAccount": "other", "policy": POLICY}, "A policy can only"),
        ({"serviceAccount": "other"}, "The maximum of 1 pod identity associations"),
    ],
)
def test_the_first_fault_is_named(changes: dict[str, Any], expected: str) -> None:
    """Every case has the faults of those after it too: the quota is used up in all of them."""
    cloud = Lab.new(settings=EksSettings(associations_per_cluster=1))
    cloud.create(clientRequestToken="t")

    assert expected in refused(lambda: cloud.create(**changes))[2]


@requirement("API-212")
@pytest.mark.parametrize(
    "statement",
    [
        '{"Effect":"Allow","Principal":{"Service":"pods.eks.amazonaws.com"},"Action":"sts:AssumeRole"}',
        '[{"Effect":"Allow","Principal":{"Service":["ec2.amazonaws.com","pods.eks.amazonaws.com"]},"Action":"sts:*"}]',
        '{"Effect":"Allow","Principal":{"Service":"pods.eks.amazonaws.com"},"Action":["STS:assumerole"],"Condition":{}}',
    ],
)
def test_trust_needs_principal_and_assume_role_only(cloud: Lab, statement: str) -> None:
    """API-212: tags and conditions are looked at when a pod asks."""
    cloud.add_role(READER, f'{{"Statement":{statement}}}')

    assert cloud.create()["roleArn"] == READER


@requirement("API-211")
@pytest.mark.parametrize(
    "trust",
    [
        "",
        "[]",
        '{"Statement":[{"Effect":"Deny","Principal":{"Service":"pods.eks.amazonaws.com"},"Action":"sts:AssumeRole"}]}',
        '{"Statement":[{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}]}',
        '{"Statement":[{"Effect":"Allow","Principal":{"Service":"pods.eks.amazonaws.com"},"Action":"sts:TagSession"}]}',
        '{"Statement":[{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"sts:AssumeRole"}]}',
    ],
)
def test_other_trusts_are_refused(cloud: Lab, trust: str) -> None:
    cloud.add_role(READER, trust)

    assert refused(cloud.create)[:2] == (400, "InvalidParameterException")


@requirement("API-207", "API-209")
def test_second_association_names_the_first(cloud: Lab) -> None:
    """API-207; other names, namespaces and clusters are independent (API-209, API-112)."""
    first = cloud.create()

    text = f"Association already exists: {first['associationId']}"
    assert refused(cloud.create) == (409, "ResourceInUseException", text)
    ids = {
        cloud.create(**changes)["associationId"]
        for changes in ({"namespace": "other"}, {"clusterName": "second"}, {"service_account": "S3-Reader"})
    }
    assert len(ids) == 3


@requirement("API-208")
def test_one_of_many_concurrent_creates_succeeds(cloud: Lab) -> None:
    """API-208."""
    outcomes: list[str] = []

    def create() -> None:
        try:
            outcomes.append(cloud.create()["associationId"])
        except Refusal as refusal:
            outcomes.append(refusal.code)

    threads = [threading.Thread(target=create) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert outcomes.count("ResourceInUseException") == 11


@requirement("API-221")
def test_client_token_makes_a_create_repeatable(cloud: Lab) -> None:
    """API-221."""
    first = cloud.create(clientRequestToken="t")

    assert cloud.create(clientRequestToken="t") == first
    again = refused(lambda: cloud.create(clientRequestToken="t", namespace="other"))
    assert again[:2] == (400, "InvalidParameterException")


@requirement("API-222")
def test_quota_is_enforced_per_cluster() -> None:
    """API-222."""
    cloud = Lab.new(settings=EksSettings(associations_per_cluster=2))
    cloud.create("a")
    cloud.create("b")

    assert refused(lambda: cloud.create("c"))[:2] == (400, "ResourceLimitExceededException")


@requirement("API-216", "API-217")
def test_target_role_brings_the_external_id(cloud: Lab) -> None:
    """API-216, API-217."""
    target = "arn:aws:iam::987654321098:role/target"

    record = cloud.create(targetRoleArn=target)

    assert record["targetRoleArn"] == target
    assert record["externalId"] == f"eu-west-1/{ACCOUNT}/pod-identity-lab/demo/s3-reader"
