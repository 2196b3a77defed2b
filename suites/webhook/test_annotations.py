"""Section 8 of the contract: annotations of pods and ServiceAccounts, and what counts as a value."""

from __future__ import annotations

from typing import Any

import pytest

from harness.conformance.marks import requirement
from harness.subject.reviews import Object, pod
from harness.subject.webhook import Surroundings, Webhook

PREFIX = "eks.amazonaws.com"
ROLE = f"{PREFIX}/role-arn"
EXPIRATION = f"{PREFIX}/token-expiration"
STS_KEY = f"{PREFIX}/sts-regional-endpoints"
SKIP = f"{PREFIX}/skip-containers"
STS = "AWS_STS_REGIONAL_ENDPOINTS"
PI_VOLUME, IRSA_VOLUME = "eks-pod-identity-token", "aws-iam-token"
AN_ARN = "arn:aws:iam::111122223333:role/annotated"

PARSED = [
    ("3600", 3600),
    ("+3600", 3600),
    ("003600", 3600),
    ("7199", 7199),
    ("00600", 600),
    ("9223372036854775807", 2**63 - 1),
]
IGNORED = [" 3600", "3600 ", "3600s", "3_600", "0x10", "1e3", "3600.0", "", "+", "9223372036854775808", "٣٦٠٠"]
RAISED = ["599", "1", "0", "-0", "-5", "-9223372036854775808"]


def annotated(**annotations: str) -> Object:
    keys = {f"{PREFIX}/{key.replace('_', '-')}": value for key, value in annotations.items()}
    return pod(service_account="annotated", metadata={"annotations": keys})


def expiration(webhook: Webhook, the_pod: Object, volume: str = PI_VOLUME) -> Any:
    return webhook.review(the_pod).token(volume).get("expirationSeconds")


@requirement("WHK-601")
@pytest.mark.parametrize("account", ["annotated", "with-role", "plain"])
def test_keys_of_service_accounts_do_not_count_on_pods(eks: Webhook, account: str) -> None:
    """Role, audience and STS setting on a pod have no effect."""
    keys = {"role-arn": "x", "audience": "x", "sts-regional-endpoints": "false"}
    fixed = {EXPIRATION: "7000"}
    wrong = {f"{PREFIX}/{key}": value for key, value in keys.items()}
    expected = eks.review(pod(service_account=account, metadata={"annotations": fixed}))

    observed = eks.review(pod(service_account=account, metadata={"annotations": fixed | wrong}))

    assert observed.patch == expected.patch
    assert bool(observed.patch) is (account != "plain")


@requirement("WHK-601")
@pytest.mark.parametrize(
    "annotations",
    [
        {SKIP: "app"},
        {f"{PREFIX}/region": "paris"},
        {f"{PREFIX}/volume-name": "x"},
        {f"{PREFIX}/include-containers": "other"},
        {f"{PREFIX}/fs-group": "1"},
        {f"{PREFIX}/Token-Expiration": "7777"},
        {"token-expiration": "7777"},
        {"other.example/token-expiration": "7777"},
    ],
    ids=lambda annotations: next(iter(annotations)),
)
def test_other_keys_do_not_count_on_service_accounts(
    eks: Webhook, surroundings: Surroundings, annotations: dict[str, str]
) -> None:
    """Keys of pods, unknown keys, other letter case and other prefixes have no effect on a ServiceAccount."""
    surroundings.annotate(eks, "annotated", {EXPIRATION: "7001"} | annotations)

    admission = eks.review(annotated())

    assert admission.token(PI_VOLUME).get("expirationSeconds") == 7001
    assert admission.volume_names == [PI_VOLUME]
    assert len(admission.names()) == 5
    assert admission.value("AWS_REGION") == "eu-west-1"


@requirement("WHK-602")
def test_prefix_moves_annotations_and_no_label(custom: Webhook, surroundings: Surroundings) -> None:
    """With --annotation-prefix the keys under it count, those under the default do not, and labels stay."""
    under_both = {"own.example/token-expiration": "7001", EXPIRATION: "7002", "own.example/sts-regional-endpoints": "0"}
    on_pod = {"own.example/skip-containers": "skipped", SKIP: "app"}
    surroundings.annotate(custom, "annotated", under_both)

    admission = custom.review(
        pod({"name": "app"}, {"name": "skipped"}, service_account="annotated", metadata={"annotations": on_pod})
    )

    assert admission.token("pi-volume").get("expirationSeconds") == 7001
    assert STS not in admission.names("app")
    assert admission.mechanism("app") == "Pod Identity"
    assert admission.mechanism("skipped") == "none"
    assert admission.labels == {"eks.amazonaws.com/pod-identity": "enabled"}


@requirement("WHK-602")
def test_default_prefix_means_nothing_under_another(custom: Webhook, surroundings: Surroundings) -> None:
    """A role under the default prefix is none for a webhook with a prefix of its own."""
    surroundings.annotate(custom, "other-prefix", {ROLE: AN_ARN})
    assert custom.review(pod(service_account="other-prefix")).mechanism() == "none"

    surroundings.annotate(custom, "other-prefix", {"own.example/role-arn": AN_ARN})
    assert custom.review(pod(service_account="other-prefix")).value("AWS_ROLE_ARN") == AN_ARN


NAMES = ["a", "b", " b", "a,b", 'a"b', "c", "b "]


def skipped_of(webhook: Webhook, value: str, account: str = "s3-reader") -> set[str]:
    containers = [{"name": name} for name in NAMES]
    admission = webhook.review(pod(*containers, service_account=account, metadata={"annotations": {SKIP: value}}))
    assert admission.patch
    return {name for name in NAMES if admission.mechanism(name) == "none" and not admission.mounts(name)}


@requirement("WHK-603")
@pytest.mark.parametrize("account", ["s3-reader", "with-role"])
@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("a", {"a"}),
        ("a,b", {"a", "b"}),
        ("a, b", {"a", " b"}),
        ('"a,b",c', {"a,b", "c"}),
        ('"a""b"', {'a"b'}),
        ('"a","c"', {"a", "c"}),
        ("b ,c", {"b ", "c"}),
    ],
)
def test_skip_containers_is_csv(eks: Webhook, value: str, names: set[str], account: str) -> None:
    """One record with quotes; blanks belong to the names."""
    assert skipped_of(eks, value, account) == names


@requirement("WHK-604")
@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("", set[str]()),
        ('a"b', set[str]()),
        ('"a', set[str]()),
        ('"a" ,b', set[str]()),
        ("a,", {"a"}),
        ("a\nb", {"a"}),
        ("\nb,c", {"b", "c"}),
    ],
)
def test_broken_csv_skips_nothing(eks: Webhook, value: str, names: set[str]) -> None:
    """An empty value and broken quotes skip nothing, and only the first line counts."""
    assert skipped_of(eks, value) == names


@requirement("WHK-604")
def test_empty_field_is_the_empty_name(eks: Webhook) -> None:
    """`a,` skips a container without a name too, which only a direct review has."""
    admission = eks.review(pod({"name": "a"}, {"name": ""}, {"name": "b"}, metadata={"annotations": {SKIP: "a,"}}))

    assert [admission.mechanism(name) for name in ("a", "", "b")] == ["none", "none", "Pod Identity"]


@requirement("WHK-605")
def test_skip_containers_counts_for_init_containers(eks: Webhook) -> None:
    """Names are those of containers and init containers alike, and unknown ones do no harm."""
    inits = [{"name": "init-a"}, {"name": "init-b"}]
    metadata = {"annotations": {SKIP: "nobody,init-a,b"}}

    admission = eks.review(pod({"name": "a"}, {"name": "b"}, initContainers=inits, metadata=metadata))

    observed = [admission.mechanism(name) for name in ("a", "b", "init-a", "init-b")]
    assert observed == ["Pod Identity", "none", "none", "Pod Identity"]


@requirement("WHK-606")
@pytest.mark.parametrize(("text", "seconds"), PARSED)
def test_expirations_that_are_numbers(eks: Webhook, surroundings: Surroundings, text: str, seconds: int) -> None:
    """Decimal digits with an optional sign, on pod and ServiceAccount, for both mechanisms."""
    surroundings.annotate(eks, "annotated", {EXPIRATION: text})
    surroundings.annotate(eks, "annotated-role", {ROLE: AN_ARN, EXPIRATION: text})

    assert expiration(eks, annotated()) == seconds
    assert expiration(eks, pod(service_account="annotated-role"), IRSA_VOLUME) == seconds
    assert expiration(eks, pod(metadata={"annotations": {EXPIRATION: text}})) == seconds


@requirement("WHK-606")
@pytest.mark.parametrize("text", IGNORED)
def test_expirations_that_are_none(eks: Webhook, surroundings: Surroundings, text: str) -> None:
    """Anything else gives way to the next source: from the pod to the account, from the account to the flag."""
    surroundings.annotate(eks, "annotated", {EXPIRATION: "7001"})
    surroundings.annotate(eks, "annotated-role", {ROLE: AN_ARN, EXPIRATION: text})

    assert expiration(eks, annotated(token_expiration=text)) == 7001
    assert expiration(eks, pod(service_account="annotated-role"), IRSA_VOLUME) == 86400


@requirement("WHK-606")
def test_pod_before_service_account_before_flag(custom: Webhook, surroundings: Surroundings) -> None:
    """The nearest source counts."""
    key = "own.example/token-expiration"
    surroundings.annotate(custom, "annotated", {key: "3600"})
    on_pod = pod(service_account="annotated", metadata={"annotations": {key: "600"}})

    assert expiration(custom, on_pod, "pi-volume") == 600
    assert expiration(custom, pod(service_account="annotated"), "pi-volume") == 3600
    assert expiration(custom, pod(), "pi-volume") == 7200


@requirement("WHK-607")
@pytest.mark.parametrize("text", RAISED)
def test_short_expirations_are_raised(eks: Webhook, surroundings: Surroundings, text: str) -> None:
    """Less than ten minutes, zero and negative numbers become ten minutes."""
    surroundings.annotate(eks, "annotated", {EXPIRATION: text})
    surroundings.annotate(eks, "annotated-role", {ROLE: AN_ARN, EXPIRATION: text})

    assert expiration(eks, annotated()) == 600
    assert expiration(eks, pod(service_account="annotated-role"), IRSA_VOLUME) == 600
    assert expiration(eks, pod(metadata={"annotations": {EXPIRATION: text}})) == 600


@requirement("WHK-608")
@pytest.mark.parametrize("text", ["86401", "200000", "4294967296"])
def test_long_expirations_are_kept(eks: Webhook, surroundings: Surroundings, text: str) -> None:
    """There is no upper bound."""
    surroundings.annotate(eks, "annotated-role", {ROLE: AN_ARN, EXPIRATION: text})

    assert expiration(eks, pod(metadata={"annotations": {EXPIRATION: text}})) == int(text)
    assert expiration(eks, pod(service_account="annotated-role"), IRSA_VOLUME) == int(text)


@requirement("WHK-609")
@pytest.mark.parametrize("text", ["1", "t", "T", "true", "True", "TRUE"])
def test_sts_switched_on(plain: Webhook, surroundings: Surroundings, text: str) -> None:
    """Go's words for true switch it on where the flag has it off, for both mechanisms."""
    surroundings.annotate(plain, "annotated", {STS_KEY: text})
    surroundings.annotate(plain, "annotated-role", {ROLE: AN_ARN, STS_KEY: text})

    for account in ("annotated", "annotated-role"):
        assert plain.review(pod(service_account=account)).value(STS) == "regional"


@requirement("WHK-609")
@pytest.mark.parametrize("text", ["0", "f", "F", "false", "False", "FALSE"])
def test_sts_switched_off(eks: Webhook, surroundings: Surroundings, text: str) -> None:
    """Go's words for false switch it off where the flag has it on, for both mechanisms."""
    surroundings.annotate(eks, "annotated", {STS_KEY: text})
    surroundings.annotate(eks, "annotated-role", {ROLE: AN_ARN, STS_KEY: text})

    for account in ("annotated", "annotated-role"):
        assert len(eks.review(pod(service_account=account)).names()) == 4


@requirement("WHK-609")
@pytest.mark.parametrize("text", ["yes", "on", "off", " true", "false ", "tRUE", "2", ""])
def test_other_words_leave_sts_to_the_flag(eks: Webhook, plain: Webhook, surroundings: Surroundings, text: str) -> None:
    """Anything else has no effect."""
    surroundings.annotate(eks, "annotated", {STS_KEY: text})
    surroundings.settle(plain)

    assert eks.review(annotated()).value(STS) == "regional"
    assert plain.review(annotated()).names()[:1] == ["AWS_CONTAINER_CREDENTIALS_FULL_URI"]


@requirement("WHK-610")
@pytest.mark.parametrize(("text", "expected"), [("own", "own"), ("a,b", "a,b"), ("", None)])
def test_audience_replaces_the_flag_s(
    eks: Webhook, surroundings: Surroundings, text: str, expected: str | None
) -> None:
    """The annotation counts for IRSA, also when it is empty."""
    surroundings.annotate(eks, "annotated-role", {ROLE: AN_ARN, f"{PREFIX}/audience": text})

    token = eks.review(pod(service_account="annotated-role")).token(IRSA_VOLUME)

    assert token.get("path") == "token"
    assert token.get("audience") == expected


@requirement("WHK-612")
def test_annotations_without_effect_are_named(eks: Webhook, surroundings: Surroundings) -> None:
    """One of pods on an account, one of accounts on a pod, and one that nobody knows."""
    surroundings.annotate(eks, "misplaced", {SKIP: "app", f"{PREFIX}/rolearn": "misspelt"})

    eks.review(pod(service_account="misplaced", metadata={"annotations": {ROLE: AN_ARN}}))

    for key, kind in ((SKIP, "ServiceAccount"), (f"{PREFIX}/rolearn", "ServiceAccount"), (ROLE, "pod")):
        eks.wait_for_log(rf"annotation '{key}' has no effect on a {kind}\n")
