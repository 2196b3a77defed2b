"""Which mechanism, and with which values: sources, annotations, flags (sections 4, 8, 9 and 10)."""

import pytest
from mutated_pods import (
    IRSA,
    LABELS,
    PI,
    PI_PAIR,
    ROLE,
    STS,
    Pod,
    World,
    applied,
    expiration_of,
    irsa_volume,
    patch_of,
    pod,
)
from podid_webhook.configuration import Account, Settings, mutate_pod
from podid_webhook.pod import decode_pod


class TestDecision:
    def test_neither(self) -> None:
        assert patch_of(pod(), World(s3_reader={})) is None
        assert patch_of(pod(), World()) is None

    def test_empty_role_is_no_role(self) -> None:
        assert patch_of(pod(), World(s3_reader={"role-arn": ""})) is None

    def test_invalid_role_is_injected(self) -> None:
        result = applied(pod(), World(s3_reader={"role-arn": "not-an-arn"}))

        assert result["spec"]["containers"][0]["env"][0] == {"name": "AWS_ROLE_ARN", "value": "not-an-arn"}

    def test_own_role_variable_stays_beside_the_pair(self) -> None:
        own = {"name": "AWS_ROLE_ARN", "value": "own"}

        assert applied(pod({"name": "app", "env": [own]}), PI)["spec"]["containers"][0]["env"] == [own, *PI_PAIR]

    def test_config_map_order(self) -> None:
        """Account with a role, then the exact entry, then the one for every namespace (WHK-723)."""
        entries = {"demo/s3-reader": Account(role_arn="exact"), "*/s3-reader": Account(role_arn="wild")}
        world, annotated = World(s3_reader={}), World(s3_reader={"role-arn": ROLE})
        world.config_map = annotated.config_map = entries

        def role(world: World) -> str:
            return applied(pod(), world)["spec"]["containers"][0]["env"][0]["value"]

        assert role(annotated) == ROLE
        assert role(world) == "exact"
        del entries["demo/s3-reader"]
        assert role(world) == "wild"

    def test_pod_identity_takes_sts_from_the_exact_entry_only(self) -> None:
        """WHK-724: an account in the cache, annotated or not, comes first; the wildcard never counts."""
        entry = Account(role_arn="x", regional_sts=True, token_expiration=7000)
        uncached, cached, wild = World("s3-reader"), World("s3-reader", s3_reader={}), World("s3-reader")
        uncached.config_map = cached.config_map = {"demo/s3-reader": entry}
        wild.config_map = {"*/s3-reader": entry}

        assert expiration_of(applied(pod(), uncached)) == 7000
        assert applied(pod(), uncached)["spec"]["containers"][0]["env"][0] == STS
        assert patch_of(pod(), cached) == patch_of(pod(), PI)
        assert patch_of(pod(), wild) == patch_of(pod(), PI)

    @pytest.mark.parametrize(
        "spec",
        [
            {"hostNetwork": True},
            {"nodeName": "n"},
            {"schedulerName": "fargate-scheduler"},
            {"automountServiceAccountToken": False},
            {"runtimeClassName": "x"},
            {"restartPolicy": "Never"},
        ],
    )
    def test_no_influence(self, spec: Pod) -> None:
        assert patch_of(pod(**spec), PI) == patch_of(pod(), PI)


class TestAnnotations:
    @pytest.mark.parametrize(
        ("on_account", "on_pod", "flag", "expiration"),
        [
            (None, None, 86400, 79200),
            (None, "86400", 3600, 79200),
            ("86400", None, 3600, 79200),
            ("3600", None, 86400, 3600),
            ("3600", "600", 86400, 600),
            ("3600", "soon", 86400, 3600),
            ("soon", None, 7200, 7200),
            (None, "200000", 86400, 200000),
            (None, "-5", 86400, 600),
            (None, "+3600", 86400, 3600),
            (None, "00600", 86400, 600),
        ],
    )
    def test_expiration(self, on_account: str | None, on_pod: str | None, flag: int, expiration: int) -> None:
        world = World("s3-reader", s3_reader={} if on_account is None else {"token-expiration": on_account})
        annotations = {} if on_pod is None else {"eks.amazonaws.com/token-expiration": on_pod}

        result = applied(pod(annotations=annotations), world, Settings(token_expiration=flag))

        assert expiration_of(result) == expiration

    def test_jitter_bounds(self) -> None:
        bounds: list[tuple[int, int]] = []

        def draw(low: int, high: int) -> int:
            bounds.append((low, high))
            return high

        mutate_pod(decode_pod(pod({"name": "a"}, {"name": "b"})), "demo", PI, Settings(), draw)

        assert bounds == [(79200, 86400)]

    def test_no_jitter_for_irsa(self) -> None:
        assert expiration_of(applied(pod(), IRSA)) == 86400

    @pytest.mark.parametrize("text", ["1", "t", "T", "true", "True", "TRUE"])
    def test_sts_true(self, text: str) -> None:
        world = World("s3-reader", s3_reader={"sts-regional-endpoints": text})

        assert applied(pod(), world)["spec"]["containers"][0]["env"] == [STS, *PI_PAIR]

    @pytest.mark.parametrize("text", ["yes", "on", " true", "", "tRUE"])
    def test_sts_ignored(self, text: str) -> None:
        world = World("s3-reader", s3_reader={"sts-regional-endpoints": text})

        assert applied(pod(), world)["spec"]["containers"][0]["env"] == PI_PAIR
        assert applied(pod(), world, Settings(regional_sts=True))["spec"]["containers"][0]["env"] == [STS, *PI_PAIR]

    def test_audience(self) -> None:
        """It overrides the flag for IRSA, and empty leaves it out (WHK-409, WHK-610)."""
        own, empty = (
            World(s3_reader={"role-arn": ROLE, "audience": "own"}),
            World(s3_reader={"role-arn": ROLE, "audience": ""}),
        )

        assert applied(pod(), own)["spec"]["volumes"] == [irsa_volume(audience="own")]
        assert applied(pod(), empty)["spec"]["volumes"] == [irsa_volume()]

    def test_prefix(self) -> None:
        """It changes the annotations' names, not the label's (WHK-602)."""
        world = World("s3-reader", prefix="own.example", s3_reader={"token-expiration": "7000"})
        settings = Settings(annotation_prefix="own.example")
        sent = pod(annotations={"own.example/skip-containers": "app", "eks.amazonaws.com/token-expiration": "9999"})

        result = applied(sent, world, settings)

        assert expiration_of(result) == 7000
        assert result["spec"]["containers"] == [{"name": "app"}]
        assert result["metadata"]["labels"] == LABELS

    def test_wrong_kind(self) -> None:
        """A role on a pod and skipped containers on an account mean nothing (WHK-601)."""
        world = World("s3-reader", s3_reader={"skip-containers": "app"})

        assert applied(pod(), world)["spec"]["containers"][0]["env"] == PI_PAIR
        assert patch_of(pod(annotations={"eks.amazonaws.com/role-arn": ROLE}), World(s3_reader={})) is None

    @pytest.mark.parametrize(
        ("annotation", "skipped"),
        [
            ("a,b", {"a", "b"}),
            ("a, b", {"a", " b"}),
            ('"a,b",c', {"a,b", "c"}),
            ("unknown", set[str]()),
            ("", set[str]()),
            ('"a', set[str]()),
        ],
    )
    def test_skip_containers(self, annotation: str, skipped: set[str]) -> None:
        names = ["a", "b", " b", "a,b", "c"]
        sent = pod(*({"name": name} for name in names), annotations={"eks.amazonaws.com/skip-containers": annotation})
        sent["spec"]["initContainers"] = [{"name": "a"}]

        spec = applied(sent, PI)["spec"]

        assert {container["name"] for container in spec["containers"] if "env" not in container} == skipped
        assert ("env" not in spec["initContainers"][0]) == ("a" in skipped)


class TestFlags:
    def test_paths_and_names(self) -> None:
        settings = Settings(
            container_credentials_audience="aud",
            container_credentials_mount_path="/a/b/",
            container_credentials_volume_name="vol",
            container_credentials_token_path="t",
            container_credentials_full_uri="http://[fd00:ec2::23]/v1/credentials",
        )

        spec = applied(pod(), PI, settings)["spec"]

        token = {"audience": "aud", "expirationSeconds": 79200, "path": "t"}
        assert spec["volumes"] == [{"name": "vol", "projected": {"sources": [{"serviceAccountToken": token}]}}]
        assert [variable["value"] for variable in spec["containers"][0]["env"]] == [
            "http://[fd00:ec2::23]/v1/credentials",
            "/a/b/t",
        ]
        assert spec["containers"][0]["volumeMounts"] == [{"name": "vol", "readOnly": True, "mountPath": "/a/b/"}]

    def test_windows(self) -> None:
        env = applied(pod(nodeSelector={"kubernetes.io/os": "windows"}), PI)["spec"]["containers"][0]["env"]

        assert env[1]["value"] == r"C:\var\run\secrets\pods.eks.amazonaws.com\serviceaccount\eks-pod-identity-token"
