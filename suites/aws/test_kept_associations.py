"""Associations that are there: described, listed, changed, tagged and deleted, and how many there may be."""

from __future__ import annotations

from typing import Any

import pytest

from harness.cloud.eks import EksSettings, Scope
from harness.cloud.localstack.emulator import Settings
from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.subject.eks_lab import ACCOUNT, NAME, READER, SCOPE, Lab, by_id, refused

POLICY = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}'


@pytest.fixture
def cloud() -> Lab:
    return Lab.new(names=("pod-identity-lab", "second"))


@requirement("API-231", "API-232", "API-233", "API-261", "API-263")
def test_describe_update_and_delete_go_by_id_and_cluster(cloud: Lab) -> None:
    """API-231 to API-233, API-261."""
    record = cloud.create()
    service = cloud.eks.associations

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
    assert cloud.clusters.published["pod-identity-lab"] == []
    assert cloud.create()["associationId"] != record["associationId"]


@requirement("API-109")
def test_other_accounts_and_regions_see_nothing(cloud: Lab) -> None:
    """API-109."""
    record = cloud.create()

    for scope in (Scope("987654321098", "eu-west-1"), Scope(ACCOUNT, "us-east-1")):
        assert refused(lambda scope=scope: cloud.eks.associations.describe(scope, by_id(record)))[0] == 404


@requirement("API-234", "API-235")
def test_list_is_filtered_exactly_and_shows_no_role(cloud: Lab) -> None:
    """API-234, API-235."""
    first = cloud.create("a")
    cloud.create("b")
    cloud.create("a", namespace="other")

    def found(**filters: str) -> list[dict[str, Any]]:
        return cloud.eks.associations.list(SCOPE, NAME | filters)["associations"]

    members = ("clusterName", "namespace", "serviceAccount", "associationArn", "associationId")
    assert found(namespace="demo", serviceAccount="a") == [{name: first[name] for name in members}]
    assert len(found(serviceAccount="a")) == 2
    assert len(found(namespace="demo")) == 2
    assert found(namespace="Demo") == []


@requirement("API-237")
def test_pages_hold_every_association_once(cloud: Lab) -> None:
    """API-236, API-237; one that goes away between two pages disturbs nothing."""
    records = [cloud.create(f"sa-{number}") for number in range(25)]
    seen: list[str] = []
    request: dict[str, Any] = NAME | {"maxResults": 10}
    while True:
        page = cloud.eks.associations.list(SCOPE, request)
        seen += [summary["associationId"] for summary in page["associations"]]
        if "nextToken" not in page:
            break
        request["nextToken"] = page["nextToken"]

    assert sorted(seen) == sorted(record["associationId"] for record in records)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"maxResults": 0}, marks=requirement("API-236")),
        pytest.param({"maxResults": 101}, marks=requirement("API-236")),
        pytest.param({"nextToken": "x"}, marks=requirement("API-238")),
        pytest.param({"nextToken": "e30="}, marks=requirement("API-238")),
    ],
)
def test_page_parameters_are_checked(cloud: Lab, changes: dict[str, Any]) -> None:
    """What is out of range or from elsewhere is refused."""
    assert refused(lambda: cloud.eks.associations.list(SCOPE, NAME | changes))[:2] == (400, "InvalidParameterException")


@requirement("API-236", "API-237", "API-240")
def test_pages_are_of_a_hundred(cloud: Lab) -> None:
    """250 associations make pages of 100, 100 and 50, or of one; the order is the same every time."""
    made = [cloud.create(f"sa-{number}")["associationId"] for number in range(250)]

    def pages(**request: Any) -> list[list[str]]:
        found: list[list[str]] = []
        token: dict[str, str] = {}
        while not found or token:
            page = cloud.eks.associations.list(SCOPE, NAME | request | token)
            found.append([summary["associationId"] for summary in page["associations"]])
            token = {"nextToken": page["nextToken"]} if page.get("nextToken") else {}
        return found

    by_default, singly = pages(), pages(maxResults=1)
    seen = [identifier for page in by_default for identifier in page]
    check("API-236", expected=[100, 100, 50], observed=[len(page) for page in by_default])
    check("API-236", what="smallest page", expected=250, observed=len(singly))
    check("API-237", expected=sorted(made), observed=sorted(seen))
    check("API-240", expected=seen, observed=[page[0] for page in singly])


@requirement("API-239")
def test_list_of_nothing_is_empty(cloud: Lab) -> None:
    """No match is no error, an unknown cluster is one."""
    cloud.create()

    assert cloud.eks.associations.list(SCOPE, NAME | {"namespace": "none"}) == {"associations": []}
    unknown = refused(lambda: cloud.eks.associations.list(SCOPE, {"clusterName": "nope"}))
    assert unknown == (404, "ResourceNotFoundException", "No cluster found for name: nope.")


@requirement("API-238")
def test_page_token_is_good_for_its_own_filters_only(cloud: Lab) -> None:
    for name in "ab":
        cloud.create(name)
    token = cloud.eks.associations.list(SCOPE, NAME | {"maxResults": 1})["nextToken"]

    other = NAME | {"nextToken": token, "namespace": "demo"}
    assert refused(lambda: cloud.eks.associations.list(SCOPE, other))[1] == "InvalidParameterException"


@requirement("API-251", "API-252", "API-256")
def test_update_changes_what_is_given_and_moves_the_date(cloud: Lab) -> None:
    """API-251, API-252, API-256."""
    other = f"arn:aws:iam::{ACCOUNT}:role/other"
    cloud.add_role(other)
    record = cloud.create(targetRoleArn="arn:aws:iam::987654321098:role/target")
    update = cloud.eks.associations.update

    cloud.clock.advance(1)
    renames = {"namespace": "other", "serviceAccount": "other", "tags": {"a": "b"}}
    changed = update(SCOPE, by_id(record, roleArn=other, **renames))["association"]
    check("API-251", expected=record | {"roleArn": other}, observed=changed | {"modifiedAt": record["modifiedAt"]})
    check("API-252", what="unnamed", expected=record["targetRoleArn"], observed=changed.get("targetRoleArn"))
    check(
        "API-256", expected="later", observed=changed["modifiedAt"], holds=changed["modifiedAt"] > record["modifiedAt"]
    )

    cleared = update(SCOPE, by_id(record, targetRoleArn=""))["association"]
    left = sorted({"targetRoleArn", "externalId"} & cleared.keys())
    check("API-252", what="cleared", expected=[], observed=left)
    policy = update(SCOPE, by_id(record, disableSessionTags=True, policy=POLICY))["association"]
    check("API-251", what="policy", expected=(True, POLICY), observed=(policy["disableSessionTags"], policy["policy"]))


@requirement("API-253", "API-254", "API-255")
def test_update_is_validated_as_a_whole(cloud: Lab) -> None:
    """API-254, API-255: tags cannot be switched on while there is a policy."""
    record = cloud.create(policy='{"Version":"2012-10-17","Statement":[]}', disableSessionTags=True)
    update = cloud.eks.associations.update

    for changes in ({}, {"disableSessionTags": False}, {"roleArn": f"arn:aws:iam::{ACCOUNT}:role/nope"}):
        assert refused(lambda changes=changes: update(SCOPE, by_id(record, **changes)))[0] == 400
    both = update(SCOPE, by_id(record, disableSessionTags=False, policy=""))["association"]
    assert both["disableSessionTags"] is False
    assert "policy" not in both


@requirement("API-271", "API-272", "API-273")
def test_tags_are_merged_and_removed_without_moving_the_date(cloud: Lab) -> None:
    """API-271 to API-273."""
    record = cloud.create(tags={"a": "1"})
    arn = {"resourceArn": record["associationArn"]}

    cloud.eks.tag(SCOPE, arn | {"tags": {"b": "2"}})
    cloud.eks.untag(SCOPE, arn | {"tagKeys": ["a", "absent"]})

    assert cloud.eks.list_tags(SCOPE, arn) == {"tags": {"b": "2"}}
    described = cloud.eks.associations.describe(SCOPE, by_id(record))["association"]
    assert (described["tags"], described["modifiedAt"]) == ({"b": "2"}, record["modifiedAt"])
    assert refused(lambda: cloud.eks.list_tags(SCOPE, {"resourceArn": "nonsense"}))[:2] == (400, "BadRequestException")
    reserved = arn | {"tags": {"aws:x": "y"}}
    assert refused(lambda: cloud.eks.tag(SCOPE, reserved))[:2] == (400, "BadRequestException")
    unknown = {"resourceArn": record["associationArn"][:-1] + "_"}
    assert refused(lambda: cloud.eks.list_tags(SCOPE, unknown))[:2] == (404, "NotFoundException")


def pages(cloud: Lab, **asked: str | None) -> list[list[dict[str, Any]]]:
    """Return all pages of ListPodIdentityAssociations."""
    found: list[list[dict[str, Any]]] = []
    token: str | None = None
    while token is not None or not found:
        request = {"clusterName": "pod-identity-lab", **asked, **({"nextToken": token} if token else {})}
        answer = cloud.eks.associations.list(SCOPE, request)
        found.append(answer["associations"])
        token = answer.get("nextToken")
    return found


@requirement("API-902")
def test_a_cluster_has_room_for_5000_associations(cloud: Lab) -> None:
    """The 5,001st is refused, all are listed page by page, and one that goes makes room."""
    for number in range(5000):
        cloud.create(f"app-{number}", namespace=f"team-{number % 7}")

    _, beyond, _ = refused(lambda: cloud.create("one-too-many"))
    listed = pages(cloud, namespace=None)
    of_a_team = pages(cloud, namespace="team-3")
    first = listed[0][0]
    cloud.eks.associations.delete(SCOPE, {"clusterName": "pod-identity-lab", "associationId": first["associationId"]})

    check("API-902", what="the 5,001st", expected="ResourceLimitExceededException", observed=beyond)
    check("API-902", what="pages", expected=[100] * 50, observed=[len(page) for page in listed])
    identifiers = [association["associationId"] for page in listed for association in page]
    check("API-902", what="different ones, in order", expected=sorted(set(identifiers)), observed=identifiers)
    check("API-902", what="of a namespace", expected=714, observed=sum(map(len, of_a_team)))
    check("API-902", what="published", expected=4999, observed=len(cloud.clusters.published["pod-identity-lab"]))
    assert cloud.create("one-too-many")["serviceAccount"] == "one-too-many"


@requirement("API-902")
def test_the_lab_can_set_another_quota() -> None:
    """By a variable of the process."""
    settings = Settings.read({"PODID_ASSOCIATIONS_PER_CLUSTER": "2"})
    cloud = Lab.new(settings=EksSettings(settings.associations_per_cluster))
    cloud.create("a")
    cloud.create("b")

    _, beyond, _ = refused(lambda: cloud.create("c"))

    check("API-902", what="default", expected=5000, observed=Settings.read({}).associations_per_cluster)
    check("API-902", what="the third of two", expected="ResourceLimitExceededException", observed=beyond)
