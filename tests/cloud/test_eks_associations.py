"""Pod identity associations, as section 3 of the API's specification says."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
from eks_fakes import ACCOUNT, READER, SCOPE, Lab

from harness.cloud.eks import EksSettings, Scope
from harness.cloud.ports import Refusal

NAME = {"clusterName": "pod-identity-lab"}


@pytest.fixture
def lab() -> Lab:
    return Lab.new(names=("pod-identity-lab", "second"))


def refused(call: Callable[[], object]) -> tuple[int, str, str]:
    with pytest.raises(Refusal) as refusal:
        call()
    return refusal.value.status, refusal.value.code, refusal.value.message


def by_id(record: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**NAME, "associationId": record["associationId"], **changes}


def test_record_is_complete_and_has_nothing_that_is_unset(lab: Lab) -> None:
    """API-201 to API-204."""
    record = lab.create()

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
        "createdAt": lab.clock.now(),
        "modifiedAt": lab.clock.now(),
        "disableSessionTags": False,
    }


def test_pairs_are_published_sorted_before_the_answer(lab: Lab) -> None:
    lab.create("b")
    lab.create("a")

    assert lab.clusters.published == {"pod-identity-lab": [("demo", "a"), ("demo", "b")]}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"clusterName": "nope"}, (404, "ResourceNotFoundException", "No cluster found for name: nope.")),
        (
            {"roleArn": f"arn:aws:iam::{ACCOUNT}:role/nope"},
            (400, "InvalidParameterException", "Role provided in the request does not exist."),
        ),
        (
            {"roleArn": f"arn:aws:iam::{ACCOUNT}:role/irsa"},
            (
                400,
                "InvalidParameterException",
                (
                    "Trust policy of the role provided is invalid."
                    " Follow the official documentation to resolve the issue."
                ),
            ),
        ),
    ],
)
def test_faults_have_awss_words(lab: Lab, changes: dict[str, str], expected: tuple[int, str, str]) -> None:
    """API-206, API-210, API-211; nothing is left behind (API-225)."""
    lab.add_role(
        f"arn:aws:iam::{ACCOUNT}:role/irsa",
        '{"Statement":{"Effect":"Allow","Principal":{"Federated":"x"},"Action":"sts:AssumeRoleWithWebIdentity"}}',
    )

    assert refused(lambda: lab.create(**changes)) == expected
    assert lab.eks.associations.list(SCOPE, NAME) == {"associations": []}
    assert lab.clusters.published == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"namespace": ""},
        {"serviceAccount": None},
        {"roleArn": "not an arn"},
        {"roleArn": "arn:aws:iam::987654321098:role/elsewhere"},
        {"roleArn": f"arn:aws:iam::{ACCOUNT}:user/somebody"},
        {"targetRoleArn": "nonsense"},
        {"disableSessionTags": "yes"},
        {"policy": "{}"},
        {"policy": "{}", "disableSessionTags": True},
        {"policy": "no json", "disableSessionTags": True},
        {"policy": '{"Statement":"%s"}' % ("x" * 2048), "disableSessionTags": True},
        {"tags": {f"k{number}": "v" for number in range(51)}},
        {"tags": {"Aws:owner": "v"}},
        {"tags": {"": "v"}},
        {"tags": {"k" * 129: "v"}},
        {"tags": {"k": "v" * 257}},
    ],
)
def test_parameters_that_cannot_be_are_refused(lab: Lab, changes: dict[str, Any]) -> None:
    """API-213, API-214, API-218, API-219, API-223, API-224."""
    assert refused(lambda: lab.create(**changes))[:2] == (400, "InvalidParameterException")


@pytest.mark.parametrize(
    "statement",
    [
        '{"Effect":"Allow","Principal":{"Service":"pods.eks.amazonaws.com"},"Action":"sts:AssumeRole"}',
        '[{"Effect":"Allow","Principal":{"Service":["ec2.amazonaws.com","pods.eks.amazonaws.com"]},"Action":"sts:*"}]',
        '{"Effect":"Allow","Principal":{"Service":"pods.eks.amazonaws.com"},"Action":["STS:assumerole"],"Condition":{}}',
    ],
)
def test_trust_needs_principal_and_assume_role_only(lab: Lab, statement: str) -> None:
    """API-212: tags and conditions are looked at when a pod asks."""
    lab.add_role(READER, f'{{"Statement":{statement}}}')

    assert lab.create()["roleArn"] == READER


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
def test_other_trusts_are_refused(lab: Lab, trust: str) -> None:
    lab.add_role(READER, trust)

    assert refused(lab.create)[:2] == (400, "InvalidParameterException")


def test_second_association_names_the_first(lab: Lab) -> None:
    """API-207; other names, namespaces and clusters are independent (API-209, API-112)."""
    first = lab.create()

    text = f"Association already exists: {first['associationId']}"
    assert refused(lab.create) == (409, "ResourceInUseException", text)
    ids = {
        lab.create(**changes)["associationId"]
        for changes in ({"namespace": "other"}, {"clusterName": "second"}, {"service_account": "S3-Reader"})
    }
    assert len(ids) == 3


def test_one_of_many_concurrent_creates_succeeds(lab: Lab) -> None:
    """API-208."""
    outcomes: list[str] = []

    def create() -> None:
        try:
            outcomes.append(lab.create()["associationId"])
        except Refusal as refusal:
            outcomes.append(refusal.code)

    threads = [threading.Thread(target=create) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert outcomes.count("ResourceInUseException") == 11


def test_client_token_makes_a_create_repeatable(lab: Lab) -> None:
    """API-221."""
    first = lab.create(clientRequestToken="t")

    assert lab.create(clientRequestToken="t") == first
    again = refused(lambda: lab.create(clientRequestToken="t", namespace="other"))
    assert again[:2] == (400, "InvalidParameterException")


def test_quota_is_enforced_per_cluster() -> None:
    """API-222."""
    lab = Lab.new(settings=EksSettings(associations_per_cluster=2))
    lab.create("a")
    lab.create("b")

    assert refused(lambda: lab.create("c"))[:2] == (400, "ResourceLimitExceededException")


def test_target_role_brings_the_external_id(lab: Lab) -> None:
    """API-216, API-217."""
    target = "arn:aws:iam::987654321098:role/target"

    record = lab.create(targetRoleArn=target)

    assert record["targetRoleArn"] == target
    assert record["externalId"] == f"eu-west-1/{ACCOUNT}/pod-identity-lab/demo/s3-reader"


def test_describe_update_and_delete_go_by_id_and_cluster(lab: Lab) -> None:
    """API-231 to API-233, API-261."""
    record = lab.create()
    service = lab.eks.associations

    assert service.describe(SCOPE, by_id(record)) == {"association": record}
    short = {**NAME, "associationId": "a-short"}
    for operation in (service.describe, service.update, service.delete):
        assert refused(lambda operation=operation: operation(SCOPE, short | {"roleArn": READER})) == (
            400,
            "InvalidParameterException",
            "The parameter associationId should be 19 characters long.",
        )
    elsewhere = by_id(record, clusterName="second")
    assert refused(lambda: service.describe(SCOPE, elsewhere))[:2] == (404, "ResourceNotFoundException")
    assert service.delete(SCOPE, by_id(record)) == {"association": record}
    assert refused(lambda: service.delete(SCOPE, by_id(record)))[:2] == (404, "ResourceNotFoundException")
    assert lab.clusters.published["pod-identity-lab"] == []
    assert lab.create()["associationId"] != record["associationId"]


def test_other_accounts_and_regions_see_nothing(lab: Lab) -> None:
    """API-109."""
    record = lab.create()

    for scope in (Scope("987654321098", "eu-west-1"), Scope(ACCOUNT, "us-east-1")):
        assert refused(lambda scope=scope: lab.eks.associations.describe(scope, by_id(record)))[0] == 404


def test_list_is_filtered_exactly_and_shows_no_role(lab: Lab) -> None:
    """API-234, API-235."""
    first = lab.create("a")
    lab.create("b")
    lab.create("a", namespace="other")

    def found(**filters: str) -> list[dict[str, Any]]:
        return lab.eks.associations.list(SCOPE, NAME | filters)["associations"]

    members = ("clusterName", "namespace", "serviceAccount", "associationArn", "associationId")
    assert found(namespace="demo", serviceAccount="a") == [{name: first[name] for name in members}]
    assert len(found(serviceAccount="a")) == 2
    assert len(found(namespace="demo")) == 2
    assert found(namespace="Demo") == []


def test_pages_hold_every_association_once(lab: Lab) -> None:
    """API-236, API-237; one that goes away between two pages disturbs nothing."""
    records = [lab.create(f"sa-{number}") for number in range(25)]
    seen: list[str] = []
    request: dict[str, Any] = NAME | {"maxResults": 10}
    while True:
        page = lab.eks.associations.list(SCOPE, request)
        seen += [summary["associationId"] for summary in page["associations"]]
        if "nextToken" not in page:
            break
        request["nextToken"] = page["nextToken"]

    assert sorted(seen) == sorted(record["associationId"] for record in records)


@pytest.mark.parametrize("changes", [{"maxResults": 0}, {"maxResults": 101}, {"nextToken": "x"}, {"nextToken": "e30="}])
def test_page_parameters_are_checked(lab: Lab, changes: dict[str, Any]) -> None:
    """API-236, API-238."""
    assert refused(lambda: lab.eks.associations.list(SCOPE, NAME | changes))[:2] == (400, "InvalidParameterException")


def test_page_token_is_good_for_its_own_filters_only(lab: Lab) -> None:
    for name in "ab":
        lab.create(name)
    token = lab.eks.associations.list(SCOPE, NAME | {"maxResults": 1})["nextToken"]

    other = NAME | {"nextToken": token, "namespace": "demo"}
    assert refused(lambda: lab.eks.associations.list(SCOPE, other))[1] == "InvalidParameterException"


def test_update_changes_what_is_given_and_moves_the_date(lab: Lab) -> None:
    """API-251, API-252, API-256."""
    other = f"arn:aws:iam::{ACCOUNT}:role/other"
    lab.add_role(other)
    record = lab.create(targetRoleArn="arn:aws:iam::987654321098:role/target")
    update = lab.eks.associations.update

    changed = update(SCOPE, by_id(record, roleArn=other))["association"]
    assert (changed["roleArn"], changed["targetRoleArn"]) == (other, record["targetRoleArn"])
    assert changed["modifiedAt"] > changed["createdAt"] == record["createdAt"]

    cleared = update(SCOPE, by_id(record, targetRoleArn=""))["association"]
    assert not {"targetRoleArn", "externalId"} & cleared.keys()


def test_update_is_validated_as_a_whole(lab: Lab) -> None:
    """API-254, API-255: tags cannot be switched on while there is a policy."""
    record = lab.create(policy='{"Version":"2012-10-17","Statement":[]}', disableSessionTags=True)
    update = lab.eks.associations.update

    for changes in ({}, {"disableSessionTags": False}, {"roleArn": f"arn:aws:iam::{ACCOUNT}:role/nope"}):
        assert refused(lambda changes=changes: update(SCOPE, by_id(record, **changes)))[0] == 400
    both = update(SCOPE, by_id(record, disableSessionTags=False, policy=""))["association"]
    assert both["disableSessionTags"] is False
    assert "policy" not in both


def test_tags_are_merged_and_removed_without_moving_the_date(lab: Lab) -> None:
    """API-271 to API-273."""
    record = lab.create(tags={"a": "1"})
    arn = {"resourceArn": record["associationArn"]}

    lab.eks.tag(SCOPE, arn | {"tags": {"b": "2"}})
    lab.eks.untag(SCOPE, arn | {"tagKeys": ["a", "absent"]})

    assert lab.eks.list_tags(SCOPE, arn) == {"tags": {"b": "2"}}
    described = lab.eks.associations.describe(SCOPE, by_id(record))["association"]
    assert (described["tags"], described["modifiedAt"]) == ({"b": "2"}, record["modifiedAt"])
    assert refused(lambda: lab.eks.list_tags(SCOPE, {"resourceArn": "nonsense"}))[:2] == (400, "BadRequestException")
    reserved = arn | {"tags": {"aws:x": "y"}}
    assert refused(lambda: lab.eks.tag(SCOPE, reserved))[:2] == (400, "BadRequestException")
    unknown = {"resourceArn": record["associationArn"][:-1] + "_"}
    assert refused(lambda: lab.eks.list_tags(SCOPE, unknown))[:2] == (404, "NotFoundException")


def test_refused_publication_leaves_everything_as_it_was(lab: Lab) -> None:
    """API-225 and API-905: EKS never knows more or less than admission."""
    record = lab.create()
    lab.clusters.refuses = True

    assert refused(lambda: lab.create("other"))[:2] == (500, "ServerException")
    assert refused(lambda: lab.eks.associations.delete(SCOPE, by_id(record)))[0] == 500

    lab.clusters.refuses = False
    found = lab.eks.associations.list(SCOPE, NAME)["associations"]
    assert [summary["associationId"] for summary in found] == [record["associationId"]]


def test_auth_sees_changes_after_its_delay() -> None:
    """API-903: on creation, update and deletion alike; describing is never delayed."""
    lab = Lab.new(settings=EksSettings(auth_delay=5))
    cluster = lab.eks.clusters.get(SCOPE, "pod-identity-lab")
    record = lab.create()

    def seen() -> bool:
        return lab.eks.associations.seen_by_auth(cluster, "demo", "s3-reader") is not None

    assert not seen()
    lab.clock.advance(5)
    assert seen()
    lab.eks.associations.delete(SCOPE, by_id(record))
    lab.clock.advance(4.9)
    assert seen()
    lab.clock.advance(0.1)
    assert not seen()


def test_removed_cluster_takes_its_associations_along(lab: Lab) -> None:
    """API-264."""
    record = lab.create()
    lab.eks.remove_cluster(lab.eks.clusters.get(SCOPE, "pod-identity-lab"))

    assert refused(lambda: lab.eks.associations.describe(SCOPE, by_id(record)))[2] == (
        "No cluster found for name: pod-identity-lab."
    )
