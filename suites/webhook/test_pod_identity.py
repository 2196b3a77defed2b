"""Section 5 of the contract: what Pod Identity adds to a pod."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.subject.reviews import pod
from harness.subject.webhook import Webhook

LABEL = "eks.amazonaws.com/pod-identity"
VOLUME = "eks-pod-identity-token"
URI, TOKEN_FILE = "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"
MOUNT_PATH = "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount"


def expiring(seconds: str) -> dict[str, Any]:
    return {"annotations": {"eks.amazonaws.com/token-expiration": seconds}}


def of_other_prefix(seconds: str) -> dict[str, Any]:
    return {"annotations": {"own.example/token-expiration": seconds}}


@requirement("WHK-301")
def test_label(plain: Webhook, released_since: Callable[[str], None]) -> None:
    """The pod gets the label, beside those that it has."""
    released_since("0.6.15")

    assert plain.review(pod()).labels == {LABEL: "enabled"}
    assert plain.review(pod(metadata={"labels": {"app": "x"}})).labels == {"app": "x", LABEL: "enabled"}


@requirement("WHK-302")
@pytest.mark.parametrize("value", ["disabled", "", "enabled"])
def test_label_has_one_value(plain: Webhook, value: str, released_since: Callable[[str], None]) -> None:
    """Whatever the pod has there becomes `enabled`."""
    released_since("0.6.15")

    assert plain.review(pod(metadata={"labels": {LABEL: value}})).labels.get(LABEL) == "enabled"


@requirement("WHK-302")
def test_label_comes_without_any_change_to_a_container(plain: Webhook, released_since: Callable[[str], None]) -> None:
    """A pod whose containers are all skipped, or all complete, is labelled too."""
    released_since("0.6.15")
    skipping = {"annotations": {"eks.amazonaws.com/skip-containers": "app"}}
    names = ("AWS_REGION", "AWS_STS_REGIONAL_ENDPOINTS", URI)
    complete = {"name": "app", "env": [{"name": name, "value": "own"} for name in names]}

    assert plain.review(pod(metadata=skipping)).labels.get(LABEL) == "enabled"
    assert plain.review(pod(complete)).labels.get(LABEL) == "enabled"


@requirement("WHK-303")
@pytest.mark.parametrize(
    ("metadata", "path", "value"),
    [
        ({}, "/metadata/labels", {LABEL: "enabled"}),
        ({"labels": None}, "/metadata/labels", {LABEL: "enabled"}),
        ({"labels": {}}, "/metadata/labels/eks.amazonaws.com~1pod-identity", "enabled"),
        ({"labels": {"app": "x"}}, "/metadata/labels/eks.amazonaws.com~1pod-identity", "enabled"),
    ],
    ids=["absent", "null", "empty", "present"],
)
def test_label_operation(
    plain: Webhook, metadata: dict[str, Any], path: str, value: object, released_since: Callable[[str], None]
) -> None:
    """The whole object is added where there is none, else the one label at its escaped path."""
    released_since("0.6.15")

    operations = [
        operation for operation in plain.review(pod(metadata=metadata)).patch if "labels" in operation.get("path", "")
    ]

    assert operations == [{"op": "add", "path": path, "value": value}]


@requirement("WHK-304")
def test_volume(plain: Webhook) -> None:
    """One projected volume with one source, a token for the agent's audience."""
    volume = plain.review(pod(metadata=expiring("7000"))).volume(VOLUME)

    token = {"audience": "pods.eks.amazonaws.com", "expirationSeconds": 7000, "path": "eks-pod-identity-token"}
    assert volume == {"name": VOLUME, "projected": {"sources": [{"serviceAccountToken": token}]}}


@requirement("WHK-304")
def test_volume_by_flags(custom: Webhook) -> None:
    """Name, audience and path are those of the flags."""
    admission = custom.review(pod(metadata=of_other_prefix("7000")))

    assert admission.volume_names == ["pi-volume"]
    assert admission.token("pi-volume") == {"audience": "pi-audience", "expirationSeconds": 7000, "path": "pi-token"}


@requirement("WHK-305")
def test_audience_annotation_has_no_effect(plain: Webhook) -> None:
    """The account's audience annotation is IRSA's alone."""
    assert plain.review(pod(service_account="both")).token(VOLUME).get("audience") == "pods.eks.amazonaws.com"


@requirement("WHK-306")
@pytest.mark.parametrize("metadata", [{}, expiring("86400")], ids=["default", "explicit"])
def test_default_expiration_is_spread(
    plain: Webhook, metadata: dict[str, Any], released_since: Callable[[str], None]
) -> None:
    """Sixty pods have lives all over the two hours below a day: near both ends, and hardly two the same."""
    released_since("0.6.4")

    drawn = [plain.admit(pod(metadata=metadata)).token(VOLUME).get("expirationSeconds", 0) for _ in range(60)]

    check("WHK-306", expected="79200 to 86400", observed=sorted(drawn), holds=all(79200 <= n <= 86400 for n in drawn))
    # One draw in three lies in each part: that none of sixty does happens once in 10^10 runs.
    check("WHK-306", expected="some below 81600", observed=min(drawn), holds=min(drawn) < 81600)
    check("WHK-306", expected="some above 84000", observed=max(drawn), holds=max(drawn) > 84000)
    check("WHK-306", expected="over 40 different", observed=len(set(drawn)), holds=len(set(drawn)) > 40)


@requirement("WHK-307")
@pytest.mark.parametrize("seconds", ["10000", "600", "86399", "86401", "79200"])
def test_other_expirations_are_exact(plain: Webhook, seconds: str) -> None:
    """Anything but precisely a day is used as it is."""
    observed = {plain.admit(pod(metadata=expiring(seconds))).token(VOLUME).get("expirationSeconds") for _ in range(3)}

    assert observed == {int(seconds)}


@requirement("WHK-307")
def test_expiration_of_the_flag_is_exact(custom: Webhook) -> None:
    """So is one that the flag gives."""
    assert custom.review(pod()).token("pi-volume").get("expirationSeconds") == 7200


@requirement("WHK-308")
def test_one_draw_a_pod(plain: Webhook, released_since: Callable[[str], None]) -> None:
    """All containers of a pod share one volume with one life, and the next pod has another."""
    released_since("0.6.4")
    the_pod = pod({"name": "a"}, {"name": "b"}, initContainers=[{"name": "c"}])

    admissions = [plain.review(the_pod) for _ in range(10)]

    assert all(admission.volume_names == [VOLUME] for admission in admissions)
    assert all(admission.mounted(name) == [VOLUME] for admission in admissions for name in "abc")
    assert len({admission.token(VOLUME).get("expirationSeconds") for admission in admissions}) > 1


@requirement("WHK-309")
def test_pair_in_order_behind_sts_and_region(plain: Webhook, eks: Webhook) -> None:
    """Each container ends with the credentials URI and the token file, in this order."""
    the_pod = pod({"name": "a"}, {"name": "b", "env": [{"name": "OWN", "value": "x"}]})

    assert plain.review(the_pod).names("a") == [URI, TOKEN_FILE]
    assert plain.review(the_pod).names("b") == ["OWN", URI, TOKEN_FILE]
    assert [eks.review(the_pod).names(name)[-2:] for name in "ab"] == [[URI, TOKEN_FILE]] * 2


@requirement("WHK-310")
@pytest.mark.parametrize("name", [URI, TOKEN_FILE])
def test_either_name_keeps_the_pair_away(plain: Webhook, name: str) -> None:
    """A container with one of the two is given neither; another one of the pod is."""
    own = {"name": name, "value": "own"}

    admission = plain.review(pod({"name": "app", "env": [own]}, {"name": "other"}))

    assert admission.env() == [own]
    assert admission.names("other") == [URI, TOKEN_FILE]


@requirement("WHK-311")
@pytest.mark.parametrize("name", ["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN"])
def test_related_names_do_not(plain: Webhook, name: str) -> None:
    """The relative URI and the token itself are other variables."""
    assert plain.review(pod({"name": "app", "env": [{"name": name, "value": "x"}]})).names() == [name, URI, TOKEN_FILE]


@requirement("WHK-312", "WHK-313")
def test_uri(plain: Webhook, custom: Webhook) -> None:
    """The URI is IPv4's link-local address unless the flag says otherwise, for instance IPv6's."""
    by_default, by_flag = plain.review(pod()).value(URI), custom.review(pod()).value(URI)

    check("WHK-312", expected="http://169.254.170.23/v1/credentials", observed=by_default, what="default")
    check("WHK-312", expected="http://[fd00:ec2::23]/v1/credentials", observed=by_flag, what="flag")
    check("WHK-313", expected="http://169.254.170.23/v1/credentials", observed=by_default, what="no flag")
    check("WHK-313", expected="http://[fd00:ec2::23]/v1/credentials", observed=by_flag, what="flag")


@requirement("WHK-314")
def test_token_file_is_a_clean_path(plain: Webhook, custom: Webhook) -> None:
    """Mount path and token path are joined, and slashes, `.` and `..` resolved."""
    assert plain.review(pod()).value(TOKEN_FILE) == f"{MOUNT_PATH}/eks-pod-identity-token"
    assert custom.review(pod()).value(TOKEN_FILE) == "/pi/tokens/pi-token"


@requirement("WHK-315")
def test_mount(plain: Webhook) -> None:
    """Each container mounts the token's volume read-only."""
    admission = plain.review(pod({"name": "a"}, {"name": "b"}))

    for name in "ab":
        mount = admission.mounts(name)[0] if admission.mounts(name) else {}
        assert (mount.get("name"), mount.get("readOnly")) == (VOLUME, True)
        assert str(mount.get("mountPath")).rstrip("/") == MOUNT_PATH


@requirement("WHK-316")
def test_mount_path_is_verbatim(plain: Webhook, custom: Webhook) -> None:
    """The path is the flag's to the letter, and the mount has nothing else."""
    assert plain.review(pod()).mounts() == [{"name": VOLUME, "readOnly": True, "mountPath": MOUNT_PATH}]
    assert custom.review(pod()).mounts() == [
        {"name": "pi-volume", "readOnly": True, "mountPath": "/pi//./x/../tokens/"}
    ]


@requirement("WHK-317")
@pytest.mark.parametrize("source", [{"emptyDir": {}}, {"hostPath": {"path": "/x"}}, {"projected": {"sources": []}}])
def test_volume_of_the_name_is_kept(plain: Webhook, source: dict[str, Any]) -> None:
    """An own volume of the token's name stays, and variables and label come all the same."""
    own = {"name": VOLUME, **source}

    admission = plain.review(pod(volumes=[{"name": "first"}, own]))

    assert admission.volumes == [{"name": "first"}, own]
    assert admission.names() == [URI, TOKEN_FILE]
    assert admission.value(TOKEN_FILE) == f"{MOUNT_PATH}/eks-pod-identity-token"
    assert admission.labels.get(LABEL) == "enabled"


@requirement("WHK-318")
def test_windows(plain: Webhook) -> None:
    """The token file of a Windows pod is a path on drive C."""
    admission = plain.review(pod(nodeSelector={"kubernetes.io/os": "windows"}))

    expected = r"C:\var\run\secrets\pods.eks.amazonaws.com\serviceaccount\eks-pod-identity-token"
    assert admission.value(TOKEN_FILE) == expected
