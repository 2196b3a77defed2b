"""Reviews over HTTPS, as the API server sends them: the real process, everything around it fake."""

import base64
import json
import random
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from webhook_process import SERVER_NAME, WebhookProcess, pod_of

REVIEW: dict[str, Any] = {
    "apiVersion": "admission.k8s.io/v1",
    "kind": "AdmissionReview",
    "request": {"uid": "u-1", "namespace": "demo", "object": pod_of("s3-reader")},
}


def review(**request: Any) -> bytes:
    return json.dumps({**REVIEW, "request": {**REVIEW["request"], **request}}).encode()


def test_worked_example(webhook: WebhookProcess) -> None:
    """The pod of the contract's section 2 gets exactly that section's patch (WHK-101, WHK-104, WHK-105, WHK-112)."""
    pod = pod_of("s3-reader")
    pod["spec"]["volumes"] = [{"name": "kube-api-access-x", "projected": {"sources": []}}]
    own_mount = {"name": "kube-api-access-x", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
    pod["spec"]["containers"][0]["volumeMounts"] = [own_mount]

    answer = webhook.post(review(object=pod))

    document = answer.json()
    patch = json.loads(base64.b64decode(document["response"].pop("patch")))
    expiration = patch[1]["value"]["projected"]["sources"][0]["serviceAccountToken"].pop("expirationSeconds")
    assert answer.headers["Content-Type"] == "application/json"
    assert document == {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "response": {"uid": "u-1", "allowed": True, "patchType": "JSONPatch"},
    }
    assert 79200 <= expiration <= 86400
    assert patch == [
        {"op": "add", "path": "/metadata/labels", "value": {"eks.amazonaws.com/pod-identity": "enabled"}},
        {
            "op": "add",
            "path": "/spec/volumes/0",
            "value": {
                "name": "eks-pod-identity-token",
                "projected": {
                    "sources": [
                        {
                            "serviceAccountToken": {
                                "audience": "pods.eks.amazonaws.com",
                                "path": "eks-pod-identity-token",
                            }
                        }
                    ]
                },
            },
        },
        {
            "op": "add",
            "path": "/spec/containers",
            "value": [
                {
                    "name": "app",
                    "image": "amazon/aws-cli",
                    "env": [
                        {"name": "AWS_STS_REGIONAL_ENDPOINTS", "value": "regional"},
                        {"name": "AWS_DEFAULT_REGION", "value": "eu-west-1"},
                        {"name": "AWS_REGION", "value": "eu-west-1"},
                        {
                            "name": "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                            "value": "http://169.254.170.23/v1/credentials",
                        },
                        {
                            "name": "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
                            "value": "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount/eks-pod-identity-token",
                        },
                    ],
                    "volumeMounts": [
                        own_mount,
                        {
                            "name": "eks-pod-identity-token",
                            "readOnly": True,
                            "mountPath": "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount",
                        },
                    ],
                }
            ],
        },
    ]


@pytest.mark.parametrize("content_type", [None, "", "application/yaml", "application/json; charset=utf-8"])
def test_wrong_content_type(webhook: WebhookProcess, content_type: str | None) -> None:
    """Anything but exactly application/json is 415 with upstream's text (WHK-102)."""
    answer = webhook.post(review(), content_type)

    assert (answer.status, answer.data) == (415, b"Invalid Content-Type, expected `application/json`\n")


@pytest.mark.parametrize("body", [b"", b"{}", b'{"request": null}'])
def test_review_without_request_is_bad_content(webhook: WebhookProcess, body: bytes) -> None:
    """WHK-108, and no apiVersion where the request has none (WHK-105)."""
    answer = webhook.post(body)

    assert answer.status == 200
    assert answer.json() == {"response": {"uid": "", "allowed": False, "status": {"message": "bad content"}}}


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b'"x"', b"\xff\xfe", b'{"request": 1}', b'{"request": {"uid": 5}}', b"[" * 100_000, b'{"a": NaN}'],
)
def test_undecodable_body_is_refused(webhook: WebhookProcess, body: bytes) -> None:
    """WHK-107."""
    answer = webhook.post(body)

    response = answer.json()["response"]
    assert (answer.status, response["uid"], response["allowed"]) == (200, "", False)
    assert response["status"]["message"]


@pytest.mark.parametrize(
    "pod",
    [
        None,
        5,
        [],
        {"spec": []},
        {"spec": {"containers": {}}},
        {"spec": {"serviceAccountName": 7}},
        {"metadata": {"labels": {"a": 1}}},
        {"spec": {"containers": [{"name": "app", "image": 5}]}},
        {"spec": {"hostNetwork": "yes"}},
        {"spec": {"terminationGracePeriodSeconds": 1.5}},
    ],
)
def test_object_that_is_no_pod_is_refused(webhook: WebhookProcess, pod: Any) -> None:
    """Also for wrong types in fields that the webhook does not read (WHK-109)."""
    response = webhook.review(pod)

    assert (response["uid"], response["allowed"]) == ("u-1", False)
    assert response["status"]["message"]


def test_request_without_object_is_refused(webhook: WebhookProcess) -> None:
    answer = webhook.post(b'{"request": {"uid": "u-2", "namespace": "demo"}}')

    assert answer.json()["response"]["allowed"] is False
    assert answer.json()["response"]["uid"] == "u-2"


def test_unlisted_account_is_allowed_without_patch(webhook: WebhookProcess) -> None:
    """WHK-111, and the exact, case-sensitive match of WHK-205."""
    assert webhook.review(pod_of("other")) == {"uid": "u-1", "allowed": True}
    assert webhook.review(pod_of("S3-reader")) == {"uid": "u-1", "allowed": True}
    assert webhook.review(pod_of(""))["allowed"] is True
    assert "patch" not in webhook.review(pod_of("s3-reader"), namespace="Demo")


def test_namespace_of_the_request_decides(webhook: WebhookProcess) -> None:
    """WHK-115."""
    pod = pod_of("s3-reader")
    pod["metadata"]["namespace"] = "elsewhere"

    assert webhook.patch(pod, "demo") is not None
    assert webhook.patch(pod, "elsewhere") is None


@pytest.mark.parametrize(
    "request_fields",
    [
        {"operation": "DELETE"},
        {"kind": {"group": "apps", "version": "v1", "kind": "Deployment"}},
        {"dryRun": True},
        {"userInfo": {"username": "system:admin"}},
        {"oldObject": pod_of("x")},
        {"subResource": "status"},
    ],
)
def test_rest_of_the_request_has_no_influence(webhook: WebhookProcess, request_fields: dict[str, Any]) -> None:
    """WHK-110."""
    patch = webhook.post(review(**request_fields)).json()["response"]["patch"]

    operations = json.loads(base64.b64decode(patch))
    assert [operation["path"] for operation in operations] == ["/metadata/labels", "/spec/volumes", "/spec/containers"]


def test_v1beta1_is_answered_alike(webhook: WebhookProcess) -> None:
    """WHK-106."""
    body = json.dumps({**REVIEW, "apiVersion": "admission.k8s.io/v1beta1"}).encode()

    document = webhook.post(body).json()

    assert document["apiVersion"] == "admission.k8s.io/v1beta1"
    assert document["response"]["patchType"] == "JSONPatch"


def test_body_limit(webhook: WebhookProcess) -> None:
    """8 MiB are read, one byte more is 413 (WHK-117)."""
    padding = 8 * 1024**2 - len(review(padding=""))

    assert webhook.post(review(padding="x" * padding)).status == 200
    assert webhook.post(review(padding="x" * (padding + 1))).status == 413


def test_large_body_is_refused_before_it_is_sent(webhook: WebhookProcess) -> None:
    """The 413 comes on the announced length alone (WHK-117)."""
    with raw_connection(webhook) as connection:
        connection.sendall(
            b"POST /mutate HTTP/1.1\r\nHost: w\r\nContent-Type: application/json\r\nContent-Length: 99999999\r\n\r\n{"
        )

        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_chunked_body_over_the_limit_is_refused(webhook: WebhookProcess) -> None:
    with raw_connection(webhook) as connection:
        connection.sendall(
            b"POST /mutate HTTP/1.1\r\nHost: w\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
        connection.sendall(chunk * 9)

        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_aborted_request_leaves_it_serving(webhook: WebhookProcess) -> None:
    """WHK-118."""
    with raw_connection(webhook) as connection:
        connection.sendall(
            b"POST /mutate HTTP/1.1\r\nHost: w\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n{"
        )
    with raw_connection(webhook) as connection:
        connection.sendall(b"\x00\x01 nonsense\r\n\r\n")

    assert webhook.patch(pod_of("s3-reader"))


def test_concurrent_reviews_are_independent(webhook: WebhookProcess) -> None:
    """Each answer belongs to its review (WHK-121)."""

    def answer(number: int) -> tuple[str, bool]:
        account = "s3-reader" if number % 2 else "other"
        response = webhook.review(pod_of(account), uid=f"u-{number}")
        return response["uid"], "patch" in response

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(answer, range(200)))

    assert answers == [(f"u-{number}", bool(number % 2)) for number in range(200)]


def test_expirations_are_spread(webhook: WebhookProcess) -> None:
    """WHK-306: in range, and not all equal."""

    def expiration() -> int:
        patch = webhook.patch(pod_of("s3-reader"))
        assert patch is not None
        return patch[1]["value"][0]["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"]

    drawn = [expiration() for _ in range(50)]

    assert all(79200 <= value <= 86400 for value in drawn)
    assert len(set(drawn)) > 10


def test_no_content_of_pods_in_the_log(webhook: WebhookProcess) -> None:
    """Env values, wrong fields and undecodable bodies stay out of log and messages (WHK-871)."""
    canary = f"canary-{random.randrange(10**12)}"
    pod = pod_of("s3-reader")
    pod["spec"]["containers"][0]["env"] = [{"name": "SECRET", "value": canary}]

    webhook.review(pod)
    refused = webhook.review({"metadata": {"labels": {canary: 1}}, "spec": {"containers": [{"image": [canary]}]}})
    broken = webhook.post(f'{{"{canary}": "{canary}'.encode()).json()

    assert canary not in json.dumps([refused, broken])
    webhook.wait_for_log("review refused: not JSON")
    assert canary not in "".join(webhook.log)
    assert canary not in webhook.plain.request("GET", "/metrics").data.decode()


def test_one_log_line_per_review(webhook: WebhookProcess) -> None:
    """WHK-872."""
    pod = pod_of("s3-reader")
    pod["metadata"] = {"generateName": "web-7d9-"}

    webhook.review(pod)
    webhook.review(pod_of("nobody"))

    webhook.wait_for_log(
        r"namespace='demo' pod='web-7d9-' serviceAccount='s3-reader' outcome='mutated \(container_credentials\)'"
    )
    webhook.wait_for_log(r"namespace='demo' pod='s3-test' serviceAccount='nobody' outcome='no configuration'")


def raw_connection(webhook: WebhookProcess) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=webhook.https.ca_certs)
    plain = socket.create_connection(("127.0.0.1", webhook.port), timeout=10)
    return context.wrap_socket(plain, server_hostname=SERVER_NAME)
