"""Making pod identity associations, as section 3.1 of the API's specification says."""

from __future__ import annotations

import json
import re
import threading
from typing import Any

import pytest

<<<<<<< HEAD
from harness import limits, wait
from harness.cloud.eks import Eks, EksSettings, Scope
from harness.cloud.localstack.emulator import Settings
from harness.cloud.localstack.kubernetes import ApiAccess, BoundClusters
=======
from harness.cloud.eks import EksSettings
>>>>>>> h6
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
<<<<<<< HEAD


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


@requirement("API-225", "API-905")
def test_refused_publication_leaves_everything_as_it_was(cloud: Lab) -> None:
    """API-225 and API-905: EKS never knows more or less than admission."""
    record = cloud.create()
    cloud.clusters.refuses = True

    assert refused(lambda: cloud.create("other"))[:2] == (500, "ServerException")
    assert refused(lambda: cloud.eks.associations.delete(SCOPE, by_id(record)))[0] == 500

    cloud.clusters.refuses = False
    found = cloud.eks.associations.list(SCOPE, NAME)["associations"]
    assert [summary["associationId"] for summary in found] == [record["associationId"]]


@requirement("API-903")
def test_auth_sees_changes_after_its_delay() -> None:
    """API-903: on creation, update and deletion alike; describing is never delayed."""
    cloud = Lab.new(settings=EksSettings(auth_delay=5))
    cluster = cloud.eks.clusters.get(SCOPE, "pod-identity-lab")
    record = cloud.create()

    def seen() -> bool:
        return cloud.eks.associations.seen_by_auth(cluster, "demo", "s3-reader") is not None

    assert not seen()
    cloud.clock.advance(5)
    assert seen()
    cloud.eks.associations.delete(SCOPE, by_id(record))
    cloud.clock.advance(4.9)
    assert seen()
    cloud.clock.advance(0.1)
    assert not seen()


@requirement("API-264")
def test_removed_cluster_takes_its_associations_along(cloud: Lab) -> None:
    """API-264."""
    record = cloud.create()
    cloud.eks.remove_cluster(cloud.eks.clusters.get(SCOPE, "pod-identity-lab"))

    assert refused(lambda: cloud.eks.associations.describe(SCOPE, by_id(record)))[2] == (
        "No cluster found for name: pod-identity-lab."
    )


@requirement("API-903", "API-905")
def test_admission_learns_of_changes_after_its_own_delay(tmp_path: Path) -> None:
    """List, and EKS Auth, know of a change at once; admission does so later, and then of exactly the same pairs."""
    api = ApiServerDouble(tmp_path)
    clusters = BoundClusters(publication_delay=0.5)
    made = Lab.new()
    eks = Eks(clusters, clusters, made.iam, made.clock, made.ids)
    bound = made.eks.clusters.get(SCOPE, "pod-identity-lab")
    eks.clusters.bind(bound)
    access = ApiAccess(api.endpoint, api.authority.certificate, "", "", str(api.token_file), ())
    clusters.bind(bound.arn, access)
    try:
        request = NAME | {"namespace": "demo", "serviceAccount": "s3-reader", "roleArn": READER}
        record = eks.associations.create(SCOPE, request)["association"]
        early = CONFIG_MAP in api.objects
        listed = [found["associationId"] for found in eks.associations.list(SCOPE, NAME)["associations"]]
        is_seen = eks.associations.seen_by_auth(bound, "demo", "s3-reader") is not None
        wait.until(lambda: CONFIG_MAP in api.objects, what="the publication", timeout=limits.SUBJECT_ACTS)
    finally:
        clusters.unbind(bound.arn)
        api.stop()

    check("API-903", what="published at once", expected=False, observed=early)
    check(
        "API-903",
        what="listed at once",
        expected=[record["associationId"]],
        observed=listed,
    )
    check("API-903", what="known to EKS Auth at once", expected=True, observed=is_seen)
    check("API-905", expected=[{"namespace": "demo", "serviceAccount": "s3-reader"}], observed=api.published())


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


@requirement("API-321")
@pytest.mark.parametrize(
    ("name", "is_good"),
    [
        ("a", True),
        ("9-lives_X", True),
        ("a" * 100, True),
        ("", False),
        ("a" * 101, False),
        ("-a", False),
        ("_a", False),
        ("a.b", False),
        ("ä", False),
        ("a\n", False),
    ],
)
def test_a_cluster_has_a_name_that_eks_takes(cloud: Lab, name: str, is_good: bool) -> None:
    cluster = replace(cloud.eks.clusters.get(SCOPE, "second"), name=name)
    with suppress(ValueError):
        cloud.eks.clusters.bind(cluster)

    names = cloud.eks.clusters.list(SCOPE, {})["clusters"]
    check("API-321", what=repr(name), expected=is_good, observed=name in names)
=======
>>>>>>> h6
