"""Section 3 of the contract: from the body of a request to the body of its answer."""

from __future__ import annotations

import contextlib
import json
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.errors import SubjectFault
from harness.subject.reviews import pod, review
from harness.subject.webhook import Surroundings, Webhook

# With an expiration of its own a pod's patch has nothing random in it.
FIXED = {"annotations": {"eks.amazonaws.com/token-expiration": "7000"}}
HEAD = b"POST /mutate HTTP/1.1\r\nHost: webhook\r\nContent-Type: application/json\r\n"


@requirement("WHK-101", "WHK-104", "WHK-112")
def test_review_is_answered_with_a_review(eks: Webhook) -> None:
    """Whoever posts a review over HTTPS gets a review with its uid, and a patch for a pod with an association."""
    reply = eks.post(json.dumps(review(pod(), uid="0e1f3a52-6f8c")).encode())

    check("WHK-101", expected=(200, True), observed=(reply.status, bool(reply.response.get("uid"))))
    check("WHK-104", expected="0e1f3a52-6f8c", observed=reply.response.get("uid"))
    check(
        "WHK-112",
        expected=(True, "JSONPatch", True),
        observed=(reply.response.get("allowed"), reply.response.get("patchType"), bool(reply.response.get("patch"))),
    )


@requirement("WHK-119")
def test_answer_says_that_it_is_json(eks: Webhook) -> None:
    """The answer to a review has the content type application/json."""
    reply = eks.post(json.dumps(review(pod())).encode())

    assert reply.headers.get("content-type") == "application/json"


@requirement("WHK-112")
def test_complete_pod_has_a_patch_too(eks: Webhook) -> None:
    """A pod that needs no change is answered with a patch all the same, and the patch applies."""
    complete = eks.review(pod()).pod

    again = eks.review(complete)

    assert again.response.get("patchType") == "JSONPatch"
    assert again.response.get("patch")
    assert again.pod == complete


@requirement("WHK-102")
@pytest.mark.parametrize(
    "content_type",
    [None, "", "application/yaml", "application/JSON", "application/json; charset=utf-8", "text/plain"],
)
def test_other_content_types_are_415(eks: Webhook, content_type: str | None) -> None:
    """Anything but precisely application/json is refused with a text that says what was expected."""
    reply = eks.post(json.dumps(review(pod())).encode(), content_type)

    assert (reply.status, reply.body) == (415, b"Invalid Content-Type, expected `application/json`\n")
    assert reply.headers.get("content-type", "").startswith("text/plain")


@requirement("WHK-105")
@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_type_of_the_request_is_repeated(eks: Webhook, version: str, released_since: Callable[[str], None]) -> None:
    """The answer has apiVersion and kind of the request: an API server takes no other."""
    released_since("0.6.18")

    answer = eks.review(pod(), version=version).answer

    assert (answer.get("apiVersion"), answer.get("kind")) == (f"admission.k8s.io/{version}", "AdmissionReview")


@requirement("WHK-105")
def test_type_is_absent_where_the_request_has_none(eks: Webhook) -> None:
    """A request without apiVersion and kind is answered without."""
    untyped = {"request": review(pod())["request"]}

    answer = eks.post(json.dumps(untyped).encode()).review

    assert {"apiVersion", "kind"} & answer.keys() == set()
    assert answer.get("response", {}).get("allowed") is True


@requirement("WHK-106")
def test_both_versions_have_the_same_answer(eks: Webhook) -> None:
    """Reviews of v1 and v1beta1 are taken, and their answers have the same content."""
    answers = [eks.review(pod(metadata=FIXED), version=version) for version in ("v1", "v1beta1")]

    assert answers[0].patch
    assert answers[1].response == answers[0].response


@requirement("WHK-103", "WHK-104", "WHK-107")
@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'"review"',
        b"\xff\xfe\x00",
        b'{"request": 1}',
        b'{"request": {"uid": 5}}',
        b'{"a": NaN}',
        b'{"request": {"uid": "u-1"}',
        b"[" * 20_000,
    ],
    ids=["cut", "list", "text", "binary", "number", "uid", "nan", "unclosed", "deep"],
)
def test_undecodable_body_is_refused_in_a_review(eks: Webhook, body: bytes) -> None:
    """What cannot be read is a refusal with a message, in a review, with status 200."""
    reply = eks.post(body)

    message = reply.response.get("status", {}).get("message")
    check("WHK-103", expected=(200, True), observed=(reply.status, "response" in reply.review))
    check("WHK-104", expected="", observed=reply.response.get("uid"))
    check(
        "WHK-107",
        expected="not allowed, with a message",
        observed=reply.response,
        holds=reply.response.get("allowed") is False and bool(message),
    )


@requirement("WHK-104", "WHK-108")
@pytest.mark.parametrize("body", [b"", b"{}", b'{"request": null}'], ids=["empty", "no request", "null request"])
def test_review_without_a_request_is_bad_content(eks: Webhook, body: bytes) -> None:
    """An empty body and a review without a request are refused with the same two words."""
    response = eks.post(body).response

    check("WHK-104", expected="", observed=response.get("uid"))
    check(
        "WHK-108",
        expected=(False, "bad content"),
        observed=(response.get("allowed"), response.get("status", {}).get("message")),
    )


@requirement("WHK-104", "WHK-109")
@pytest.mark.parametrize(
    "the_pod",
    [
        None,
        5,
        "pod",
        [],
        {"spec": []},
        {"spec": {"containers": {}}},
        {"spec": {"containers": [5]}},
        {"spec": {"serviceAccountName": 7}},
        {"spec": {"volumes": "none"}},
        {"spec": {"nodeSelector": {"kubernetes.io/os": 1}}},
        {"spec": {"containers": [{"name": "app", "env": [{"name": 1}]}]}},
        {"metadata": {"labels": {"a": 1}}},
        {"metadata": {"annotations": []}},
        # Fields that the webhook does not read are decoded all the same.
        {"spec": {"containers": [{"name": "app", "image": 5}]}},
        {"spec": {"hostNetwork": "yes"}},
        {"spec": {"terminationGracePeriodSeconds": 1.5}},
    ],
)
def test_object_that_is_no_pod_is_refused(eks: Webhook, the_pod: Any) -> None:
    """An object that is no pod, or has a wrong type anywhere, is refused with a message and the review's uid."""
    response = eks.review(the_pod, uid="u-109").response

    check("WHK-104", expected="u-109", observed=response.get("uid"))
    check(
        "WHK-109",
        expected="not allowed, with a message",
        observed=response,
        holds=response.get("allowed") is False and bool(response.get("status", {}).get("message")),
    )


@requirement("WHK-109")
def test_request_without_an_object_is_refused(eks: Webhook) -> None:
    """No object at all is refused like one that is no pod."""
    body = review(None)
    del body["request"]["object"]

    response = eks.post(json.dumps(body).encode()).response

    assert (response.get("uid"), response.get("allowed")) == ("u-1", False)
    assert response.get("status", {}).get("message")


@requirement("WHK-110")
@pytest.mark.parametrize(
    "fields",
    [
        {"operation": "DELETE"},
        {"operation": "UPDATE", "oldObject": pod(service_account="plain")},
        {"kind": {"group": "apps", "version": "v1", "kind": "Deployment"}},
        {"resource": {"group": "apps", "version": "v1", "resource": "deployments"}},
        {"subResource": "status"},
        {"dryRun": True},
        {"userInfo": {"username": "system:serviceaccount:demo:plain", "groups": []}},
        {"name": "another", "options": {"kind": "CreateOptions"}},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_rest_of_the_request_has_no_influence(eks: Webhook, fields: dict[str, Any]) -> None:
    """Only uid, namespace and object of a request count."""
    expected = eks.review(pod(metadata=FIXED)).response

    assert expected.get("patch")
    assert eks.review(pod(metadata=FIXED), **fields).response == expected


@requirement("WHK-111")
@pytest.mark.parametrize("account", ["plain", "never-seen"])
def test_pod_without_configuration_is_allowed_as_it_is(eks: Webhook, account: str) -> None:
    """An account with neither association nor role, and one that nobody knows, are allowed without a patch."""
    response = eks.review(pod(service_account=account)).response

    assert response.get("allowed") is True
    assert {"patch", "patchType"} & response.keys() == set()


@requirement("WHK-113")
@pytest.mark.parametrize(
    "annotations",
    [
        {"eks.amazonaws.com/role-arn": "not an arn"},
        {"eks.amazonaws.com/role-arn": ""},
        {"eks.amazonaws.com/role-arn": "x", "eks.amazonaws.com/token-expiration": "soon"},
        {"eks.amazonaws.com/role-arn": "x", "eks.amazonaws.com/sts-regional-endpoints": "perhaps"},
        {"eks.amazonaws.com/role-arn": "x", "eks.amazonaws.com/audience": "\n"},
        {"eks.amazonaws.com/no-such-key": "x"},
    ],
)
def test_wrong_annotations_never_refuse_a_pod(
    eks: Webhook, surroundings: Surroundings, annotations: dict[str, str]
) -> None:
    """Whatever is wrong on a ServiceAccount, its pods are allowed."""
    surroundings.annotate(eks, "wrong", annotations)

    assert eks.review(pod(service_account="wrong")).response.get("allowed") is True


@requirement("WHK-113")
@pytest.mark.parametrize(
    "the_pod",
    [
        pod(metadata={"annotations": {"eks.amazonaws.com/skip-containers": '"'}}),
        pod(metadata={"annotations": {"eks.amazonaws.com/token-expiration": "-"}}),
        pod(volumes=[{"name": "eks-pod-identity-token", "emptyDir": {}}]),
        pod({"name": "app", "env": [{"name": "AWS_ROLE_ARN", "value": "own"}]}),
        pod({"name": "app", "volumeMounts": [{"name": "x", "mountPath": "/var/run/secrets/pods.eks.amazonaws.com"}]}),
        {"spec": {"serviceAccountName": "s3-reader"}},
        {},
    ],
    ids=["csv", "expiration", "volume", "variable", "mount", "no containers", "empty"],
)
def test_conflicts_never_refuse_a_pod(eks: Webhook, the_pod: dict[str, Any]) -> None:
    """Whatever a pod carries already, it is allowed."""
    assert eks.review(the_pod).response.get("allowed") is True


@requirement("WHK-115")
def test_namespace_of_the_request_counts(eks: Webhook) -> None:
    """The pod's own metadata says nothing about where it is created."""
    elsewhere = pod(metadata={"namespace": "elsewhere"})

    assert eks.review(pod(), "demo").mechanism() == "Pod Identity"
    assert eks.review(elsewhere, "demo").mechanism() == "Pod Identity"
    assert eks.review(pod(metadata={"namespace": "demo"}), "elsewhere").mechanism() == "none"


@requirement("WHK-116")
def test_name_of_the_service_account_is_verbatim(eks: Webhook) -> None:
    """An empty or absent name is not `default`: mirror pods have none, and must not get a token."""
    absent = pod()
    del absent["spec"]["serviceAccountName"]

    assert eks.review(pod(service_account="default")).mechanism() == "Pod Identity"
    assert eks.review(pod(service_account="")).patch == []
    assert eks.review(absent).patch == []
    assert eks.review(pod(service_account=" s3-reader")).patch == []


@requirement("WHK-116")
def test_members_are_matched_without_regard_to_case(eks: Webhook) -> None:
    """As by any API server written in Go."""
    shouting = {"SPEC": {"ServiceAccountName": "s3-reader", "Containers": [{"Name": "app"}]}}

    assert eks.review(shouting).patch


@requirement("WHK-117")
def test_body_limit(eks: Webhook) -> None:
    """8 MiB are read."""
    padding = 8 * 1024**2 - len(json.dumps(review(pod(), padding="")).encode())

    assert eks.admit(pod(), padding="x" * padding).response.get("allowed") is True


@requirement("WHK-117")
@pytest.mark.parametrize("length", [8 * 1024**2 + 1, 10**12])
def test_large_body_is_refused_unread(eks: Webhook, length: int) -> None:
    """One byte more is 413, on the announced length alone."""
    with connection(eks) as stream:
        stream.sendall(HEAD + f"Content-Length: {length}\r\n\r\n{{".encode())

        assert stream.recv(4096)[:13] == b"HTTP/1.1 413 "


@requirement("WHK-117")
def test_large_body_without_a_length_is_refused(eks: Webhook) -> None:
    """A body in chunks is 413 once it is over the limit, though it has not ended."""
    with connection(eks) as stream:
        stream.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(9):
            stream.sendall(b"100000\r\n" + b" " * 0x100000 + b"\r\n")

        assert stream.recv(4096)[:13] == b"HTTP/1.1 413 "


@requirement("WHK-118")
@pytest.mark.parametrize(
    "body",
    [
        b"[" * 1_000_000,
        b'{"request":{"object":' + b'{"spec":' * 100_000,
        b'{"request":{"uid":"u","object":{"spec":{"terminationGracePeriodSeconds":' + b"9" * 100_000 + b"}}}}",
        b'{"request":{"uid":"u","object":{"spec":{"activeDeadlineSeconds":1e999999999}}}}',
        b'{"request":{"uid":"\xed\xa0\x80\xff"}}',
        b'{"request":{"uid":"\\ud800","object":{"spec":{"serviceAccountName":"s3-reader"}}}}',
        b"\x00" * 100_000,
        b'{"request":{"uid":"u","namespace":"demo","object":{"spec":{"serviceAccountName":"s3-reader","x":'
        + b"[" * 5_000 + b"]" * 5_000 + b"}}}}",
        b'{"request":null,"request":{"uid":1,"uid":"u","object":{"spec":{"containers":1,"containers":[{"env":[],"env":9}]}}}}',
    ],
    ids=["lists", "objects", "digits", "exponent", "utf-8", "surrogate", "zeros", "nested pod", "duplicate keys"],
)  # fmt: skip
def test_no_body_stops_it(eks: Webhook, body: bytes) -> None:
    """After a body that is deep, huge or no text at all it serves on."""
    with contextlib.suppress(SubjectFault):  # it may as well close the connection
        eks.post(body)

    assert eks.review(pod()).mechanism() == "Pod Identity"


@requirement("WHK-118")
@pytest.mark.parametrize("value", [None, True, -1, 1.5, "x", [], [None], {}, {"a": None}])
def test_no_type_stops_it(eks: Webhook, value: Any) -> None:
    """After any JSON type in any place of a pod it serves on."""
    members = ["volumes", "containers", "initContainers", "nodeSelector", "affinity", "securityContext", "tolerations"]
    pods = [pod(**{member: value}) for member in members]
    of_containers = ("env", "volumeMounts", "resources", "ports", "livenessProbe", "name")
    pods += [pod({"name": "app"} | {member: value}) for member in of_containers]
    of_metadata = ("labels", "annotations", "ownerReferences", "creationTimestamp", "name")
    pods += [pod(metadata={member: value}) for member in of_metadata]
    for hostile in pods:
        with contextlib.suppress(SubjectFault):
            eks.admit(hostile)

    assert eks.review(pod()).mechanism() == "Pod Identity"


@requirement("WHK-118")
def test_no_connection_stops_it(eks: Webhook) -> None:
    """After connections that end in the middle of a request, of a handshake or in nonsense it serves on."""
    for data in (HEAD + b"Content-Length: 90\r\n\r\n{", b"\x00\x01 nonsense\r\n\r\n", HEAD, b"POST"):
        with connection(eks) as stream:
            stream.sendall(data)

    assert eks.review(pod()).mechanism() == "Pod Identity"


@requirement("WHK-121")
def test_concurrent_reviews_are_independent(eks: Webhook) -> None:
    """Each of many simultaneous answers has the uid and the mechanism of its own review."""
    accounts = ["s3-reader", "with-role", "plain", "never-seen"]
    expected = [(f"u-{n}", ("Pod Identity", "IRSA", "none", "none")[n % 4]) for n in range(200)]

    def answer(number: int) -> tuple[Any, str]:
        admission = eks.admit(pod(service_account=accounts[number % 4]), uid=f"u-{number}")
        return admission.response.get("uid"), admission.mechanism()

    with ThreadPoolExecutor(8) as threads:
        observed = list(threads.map(answer, range(200)))

    assert observed == expected


@requirement("WHK-122")
def test_no_warnings_unless_they_are_switched_on(eks: Webhook) -> None:
    """An annotation without effect leads to no warning by itself."""
    response = eks.review(pod(metadata={"annotations": {"eks.amazonaws.com/role-arn": "x"}})).response

    assert "warnings" not in response


@contextlib.contextmanager
def connection(webhook: Webhook) -> Iterator[ssl.SSLSocket]:
    try:
        with webhook.socket() as stream:
            yield stream
    except OSError as error:
        raise SubjectFault(f"the connection broke: {error}") from error
