"""Pods before and after: upstream's own cases and the contract's further ones (sections 5, 7, 8 and 12)."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from podid_webhook.configuration import Account, NamespacedName, Settings, account_from_annotations, mutate_pod
from podid_webhook.pod import decode_pod
from podid_webhook.pod_schema import WrongTypeError

Pod = dict[str, Any]

ROLE = "arn:aws:iam::111122223333:role/s3-reader"
PI_PAIR = [
    {"name": "AWS_CONTAINER_CREDENTIALS_FULL_URI", "value": "http://169.254.170.23/v1/credentials"},
    {
        "name": "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        "value": "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount/eks-pod-identity-token",
    },
]
PI_MOUNT = {
    "name": "eks-pod-identity-token",
    "readOnly": True,
    "mountPath": "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount",
}
IRSA_PAIR = [
    {"name": "AWS_ROLE_ARN", "value": ROLE},
    {
        "name": "AWS_WEB_IDENTITY_TOKEN_FILE",
        "value": "/var/run/secrets/eks.amazonaws.com/serviceaccount/token",
    },
]
IRSA_MOUNT = {
    "name": "aws-iam-token",
    "readOnly": True,
    "mountPath": "/var/run/secrets/eks.amazonaws.com/serviceaccount",
}
STS = {"name": "AWS_STS_REGIONAL_ENDPOINTS", "value": "regional"}
REGIONS = [{"name": "AWS_DEFAULT_REGION", "value": "seattle"}, {"name": "AWS_REGION", "value": "seattle"}]
LABELS = {"eks.amazonaws.com/pod-identity": "enabled"}


def pi_volume(expiration: int = 79200) -> Any:
    token = {
        "audience": "pods.eks.amazonaws.com",
        "expirationSeconds": expiration,
        "path": "eks-pod-identity-token",
    }
    return {"name": "eks-pod-identity-token", "projected": {"sources": [{"serviceAccountToken": token}]}}


def irsa_volume(expiration: int = 86400, **audience: str) -> Any:
    token = {**audience, "expirationSeconds": expiration, "path": "token"}
    return {"name": "aws-iam-token", "projected": {"sources": [{"serviceAccountToken": token}]}}


class World:
    """What the caches hold: service accounts by their annotations, and the names with an association."""

    def __init__(self, *identities: str, prefix: str = "eks.amazonaws.com", **annotations: dict[str, str]) -> None:
        self._identities = identities
        self._accounts = {
            name.replace("_", "-"): account_from_annotations(
                {f"{prefix}/{key}": value for key, value in keys.items()}, prefix
            )
            for name, keys in annotations.items()
        }
        self.config_map: dict[str, Account] = {}

    def has_identity(self, account: NamespacedName) -> bool:
        return account.namespace == "demo" and account.name in self._identities

    def cached_account(self, account: NamespacedName) -> Account | None:
        return self._accounts.get(account.name) if account.namespace == "demo" else None

    def configured_account(self, account: NamespacedName) -> Account | None:
        return self.config_map.get(f"{account.namespace}/{account.name}")

    def wildcard_account(self, name: str) -> Account | None:
        return self.config_map.get(f"*/{name}")


PI = World("s3-reader", s3_reader={})
IRSA = World(s3_reader={"role-arn": ROLE})


def pod(*containers: Pod, annotations: Any = None, **spec: Any) -> Pod:
    return {
        "metadata": {"name": "p"} | ({} if annotations is None else {"annotations": annotations}),
        "spec": {"serviceAccountName": "s3-reader", "containers": list(containers or [{"name": "app"}])} | spec,
    }


def patch_of(sent: Pod, world: World, settings: Settings | None = None) -> Any:
    before = copy.deepcopy(sent)
    mutation = mutate_pod(decode_pod(sent), "demo", world, settings or Settings(), lambda low, _high: low)
    assert sent == before, "the pod as sent was changed"
    return None if mutation is None else json.loads(json.dumps(mutation.patch))


def applied(sent: Pod, world: World, settings: Settings | None = None) -> Pod:
    return apply_patch(sent, patch_of(sent, world, settings))


def apply_patch(document: Any, patch: Any) -> Any:
    """Apply RFC 6902's `add`, the only operation that the webhook sends; a path without its parent is an error."""
    result = copy.deepcopy(document)
    for operation in patch:
        assert operation.keys() == {"op", "path", "value"}
        assert operation["op"] == "add"
        start, *keys = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")]
        assert start == ""
        parent = result
        for key in keys[:-1]:
            parent = parent[int(key)] if isinstance(parent, list) else parent[key]
        if isinstance(parent, list):
            assert 0 <= int(keys[-1]) <= len(parent)
            parent.insert(int(keys[-1]), operation["value"])
        else:
            parent[keys[-1]] = operation["value"]
    return result


def paths(sent: Pod, world: World) -> list[str]:
    return [operation["path"] for operation in patch_of(sent, world)]


def expiration_of(result: Pod) -> int:
    return result["spec"]["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"]


class TestUpstreamCasesOfIrsa:
    def test_without_volumes(self) -> None:
        assert paths(pod(), IRSA) == ["/spec/volumes", "/spec/containers"]
        assert applied(pod(), IRSA) == pod(
            {"name": "app", "env": IRSA_PAIR, "volumeMounts": [IRSA_MOUNT]},
            volumes=[irsa_volume(audience="sts.amazonaws.com")],
        )

    def test_with_volumes(self) -> None:
        sent = pod(volumes=[{"name": "own", "emptyDir": {}}])

        assert paths(sent, IRSA) == ["/spec/volumes/0", "/spec/containers"]
        assert [volume["name"] for volume in applied(sent, IRSA)["spec"]["volumes"]] == ["aws-iam-token", "own"]

    def test_has_volume_mount(self) -> None:
        own = {"name": "aws-iam-token", "mountPath": "/elsewhere"}
        sent = pod(
            {"name": "app", "volumeMounts": [own]}, volumes=[{"name": "aws-iam-token", "hostPath": {"path": "/"}}]
        )

        result = applied(sent, IRSA)

        assert paths(sent, IRSA) == ["/spec/containers"]
        assert result["spec"]["containers"] == [{"name": "app", "volumeMounts": [own], "env": IRSA_PAIR}]
        assert result["spec"]["volumes"] == sent["spec"]["volumes"]

    def test_needs_region(self) -> None:
        result = applied(pod(), IRSA, Settings(region="seattle"))

        assert result["spec"]["containers"][0]["env"] == [*REGIONS, *IRSA_PAIR]

    def test_region_present(self) -> None:
        own = {"name": "AWS_REGION", "value": "paris"}

        assert applied(pod({"name": "app", "env": [own]}), IRSA)["spec"]["containers"][0]["env"] == [own, *IRSA_PAIR]

    def test_needs_sts(self) -> None:
        result = applied(pod(), IRSA, Settings(region="seattle", regional_sts=True))

        assert result["spec"]["containers"][0]["env"] == [STS, *REGIONS, *IRSA_PAIR]

    def test_has_sts(self) -> None:
        own = [{"name": "AWS_REGION", "value": "paris"}, {"name": "AWS_STS_REGIONAL_ENDPOINTS", "value": "legacy"}]
        sent = pod({"name": "app", "env": own})

        container = applied(sent, IRSA, Settings(region="seattle", regional_sts=True))["spec"]["containers"][0]

        assert container == {"name": "app", "env": [*own, *IRSA_PAIR], "volumeMounts": [IRSA_MOUNT]}

    def test_has_all(self) -> None:
        """Untouched, without a mount even; the volume is added all the same (WHK-506)."""
        names = ("AWS_REGION", "AWS_STS_REGIONAL_ENDPOINTS", "AWS_ROLE_ARN")
        container = {"name": "app", "env": [{"name": name, "value": "own"} for name in names]}

        result = applied(pod(container), IRSA, Settings(region="x", regional_sts=True, token_expiration=3600))

        assert result["spec"]["containers"] == [container]
        assert expiration_of(result) == 3600

    def test_annotation_overrides_sts_flag(self) -> None:
        world = World(s3_reader={"role-arn": ROLE, "sts-regional-endpoints": "false"})

        result = applied(pod(), world, Settings(region="seattle", regional_sts=True))

        assert result["spec"]["containers"][0]["env"] == [*REGIONS, *IRSA_PAIR]

    @pytest.mark.parametrize(("annotation", "expiration"), [("3600", 3600), ("0", 600)])
    def test_expiration_of_the_pod(self, annotation: str, expiration: int) -> None:
        sent = pod(annotations={"eks.amazonaws.com/token-expiration": annotation})

        assert expiration_of(applied(sent, IRSA)) == expiration

    def test_skip(self) -> None:
        own = {"name": "AWS_ROLE_ARN", "value": "own"}
        sent = pod(
            {"name": "sidecar"},
            {"name": "app", "env": [own]},
            annotations={"eks.amazonaws.com/skip-containers": "sidecar"},
        )

        sidecar, app = applied(sent, IRSA, Settings(region="seattle"))["spec"]["containers"]

        assert sidecar == {"name": "sidecar"}
        assert app == {"name": "app", "env": [own, *REGIONS], "volumeMounts": [IRSA_MOUNT]}

    def test_init_containers(self) -> None:
        sent = pod(initContainers=[{"name": "a"}, {"name": "b", "restartPolicy": "Always"}])

        result = applied(sent, IRSA, Settings(region="seattle"))

        complete = {"env": [*REGIONS, *IRSA_PAIR], "volumeMounts": [IRSA_MOUNT]}
        assert paths(sent, IRSA) == ["/spec/volumes", "/spec/containers", "/spec/initContainers"]
        assert result["spec"]["containers"] == [{"name": "app", **complete}]
        assert result["spec"]["initContainers"] == [
            {"name": "a", **complete},
            {"name": "b", "restartPolicy": "Always", **complete},
        ]

    @pytest.mark.parametrize("label", ["kubernetes.io/os", "beta.kubernetes.io/os"])
    def test_windows(self, label: str) -> None:
        container = applied(pod(nodeSelector={label: "windows"}), IRSA)["spec"]["containers"][0]

        assert container["env"][1]["value"] == r"C:\var\run\secrets\eks.amazonaws.com\serviceaccount\token"
        assert container["volumeMounts"] == [IRSA_MOUNT]


class TestUpstreamCasesOfPodIdentity:
    def test_without_volumes(self) -> None:
        result = applied(pod(), PI)

        assert paths(pod(), PI) == ["/metadata/labels", "/spec/volumes", "/spec/containers"]
        assert result["metadata"] == {"name": "p", "labels": LABELS}
        assert result["spec"]["volumes"] == [pi_volume()]
        assert result["spec"]["containers"] == [{"name": "app", "env": PI_PAIR, "volumeMounts": [PI_MOUNT]}]

    def test_with_volume(self) -> None:
        sent = pod(volumes=[{"name": "own"}])

        assert paths(sent, PI)[1] == "/spec/volumes/0"
        assert applied(sent, PI)["spec"]["volumes"] == [pi_volume(), {"name": "own"}]

    def test_conflicting_volume_and_mount(self) -> None:
        """An own volume of the name is kept, and env names the configured path nevertheless (WHK-317)."""
        own = {"name": "eks-pod-identity-token", "mountPath": "/own"}
        sent = pod({"name": "app", "volumeMounts": [own]}, volumes=[{"name": "eks-pod-identity-token", "emptyDir": {}}])

        result = applied(sent, PI)

        assert paths(sent, PI) == ["/metadata/labels", "/spec/containers"]
        assert result["spec"]["volumes"] == sent["spec"]["volumes"]
        assert result["spec"]["containers"] == [{"name": "app", "volumeMounts": [own], "env": PI_PAIR}]

    def test_skip(self) -> None:
        sent = pod({"name": "sidecar"}, annotations={"eks.amazonaws.com/skip-containers": "sidecar"})

        result = applied(sent, PI)

        assert result["spec"]["containers"] == [{"name": "sidecar"}]
        assert result["metadata"]["labels"] == LABELS
        assert result["spec"]["volumes"] == [pi_volume()]

    def test_needs_all(self) -> None:
        world = World("s3-reader", s3_reader={"sts-regional-endpoints": "true", "token-expiration": "10000"})

        result = applied(pod(), world, Settings(region="seattle"))

        assert result["spec"]["containers"][0]["env"] == [STS, *REGIONS, *PI_PAIR]
        assert expiration_of(result) == 10000

    def test_with_role_arn(self) -> None:
        """The association wins, and nothing of IRSA is added (WHK-201, WHK-305)."""
        world = World("s3-reader", s3_reader={"role-arn": ROLE, "audience": "own"})

        assert patch_of(pod(), world) == patch_of(pod(), PI)


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


class TestLabel:
    @pytest.mark.parametrize("metadata", [{}, {"labels": None}, {"name": "x"}])
    def test_absent_labels(self, metadata: Pod) -> None:
        sent = pod() | {"metadata": metadata}

        assert patch_of(sent, PI)[0] == {"op": "add", "path": "/metadata/labels", "value": LABELS}

    @pytest.mark.parametrize("labels", [{}, {"a": "b"}, {"eks.amazonaws.com/pod-identity": "disabled"}])
    def test_present_labels(self, labels: Pod) -> None:
        sent = pod() | {"metadata": {"labels": labels}}

        assert patch_of(sent, PI)[0] == {
            "op": "add",
            "path": "/metadata/labels/eks.amazonaws.com~1pod-identity",
            "value": "enabled",
        }
        assert applied(sent, PI)["metadata"]["labels"] == labels | LABELS

    @pytest.mark.parametrize("metadata", [{}, {"metadata": None}])
    def test_absent_metadata(self, metadata: Pod) -> None:
        """WHK-513: the patch must apply, or the API server answers 500."""
        sent = {"spec": pod()["spec"], **metadata}

        assert applied(sent, PI)["metadata"] == {"labels": LABELS}


class TestContainers:
    @pytest.mark.parametrize("name", ["AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"])
    @pytest.mark.parametrize("content", [{}, {"value": ""}, {"valueFrom": {"fieldRef": {"fieldPath": "x"}}}])
    def test_either_name_suppresses_the_pair(self, name: str, content: Pod) -> None:
        own = {"name": name, **content}

        container = applied(pod({"name": "app", "env": [own]}), PI)["spec"]["containers"][0]

        assert container == {"name": "app", "env": [own], "volumeMounts": [PI_MOUNT]}

    @pytest.mark.parametrize("name", ["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN"])
    def test_other_names_do_not(self, name: str) -> None:
        own = {"name": name, "value": "x"}

        assert applied(pod({"name": "app", "env": [own]}), PI)["spec"]["containers"][0]["env"] == [own, *PI_PAIR]

    def test_env_from_is_not_looked_into(self) -> None:
        sent = pod({"name": "app", "envFrom": [{"configMapRef": {"name": "aws"}}]})

        assert applied(sent, PI)["spec"]["containers"][0]["env"] == PI_PAIR

    def test_all_groups_present(self) -> None:
        names = ("AWS_DEFAULT_REGION", "AWS_STS_REGIONAL_ENDPOINTS", "AWS_CONTAINER_CREDENTIALS_FULL_URI")
        container = {"name": "app", "env": [{"name": name} for name in names]}

        result = applied(pod(container), PI)

        assert result["spec"]["containers"] == [container]
        assert result["metadata"]["labels"] == LABELS
        assert result["spec"]["volumes"] == [pi_volume()]

    def test_same_mount_path_is_not_compared(self) -> None:
        own = {"name": "other", "mountPath": PI_MOUNT["mountPath"]}

        result = applied(pod({"name": "app", "volumeMounts": [own]}), PI)

        assert result["spec"]["containers"][0]["volumeMounts"] == [own, PI_MOUNT]

    def test_ephemeral_containers_are_left_alone(self) -> None:
        ephemeral = [{"name": "debugger"}]

        assert applied(pod(ephemeralContainers=ephemeral), PI)["spec"]["ephemeralContainers"] == ephemeral

    def test_unknown_fields_survive(self) -> None:
        container = {"name": "app", "invented": {"by": ["kubernetes", 1.40]}, "resources": {"limits": {"cpu": "0.50"}}}

        assert applied(pod(container), PI)["spec"]["containers"][0].items() >= container.items()

    def test_nulls_are_empty(self) -> None:
        sent = pod(
            {"name": "app", "env": None, "volumeMounts": None}, initContainers=None, volumes=None, nodeSelector=None
        )
        sent["metadata"] = {"labels": None, "annotations": None}

        result = applied(sent, PI)

        assert paths(sent, PI) == ["/metadata/labels", "/spec/volumes", "/spec/containers"]
        assert result["spec"]["containers"] == [{"name": "app", "env": PI_PAIR, "volumeMounts": [PI_MOUNT]}]

    def test_empty_volumes(self) -> None:
        assert paths(pod(volumes=[]), PI)[1] == "/spec/volumes/0"

    def test_members_are_found_without_regard_to_case(self) -> None:
        """And the patch addresses the names that the object has (WHK-116, WHK-513)."""
        sent = {"Metadata": {}, "SPEC": {"ServiceAccountName": "s3-reader", "Containers": [{"NAME": "app", "Env": []}]}}

        assert applied(sent, PI)["SPEC"]["Containers"][0]["Env"] == PI_PAIR

    def test_added_container_is_completed_in_a_second_pass(self) -> None:
        """WHK-518: without touching the complete ones."""
        first = applied(pod(), PI)
        first["spec"]["containers"].append({"name": "late"})

        second = applied(first, PI)

        assert second["spec"]["containers"][0] == first["spec"]["containers"][0]
        assert second["spec"]["containers"][1] == {"name": "late", "env": PI_PAIR, "volumeMounts": [PI_MOUNT]}
        assert second["spec"]["volumes"] == first["spec"]["volumes"]


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


variable_names = st.sampled_from(
    [
        "OWN",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_STS_REGIONAL_ENDPOINTS",
        "AWS_ROLE_ARN",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    ]
)
volume_names = st.sampled_from(["own", "aws-iam-token", "eks-pod-identity-token"])
named_lists = {
    "env": st.lists(st.fixed_dictionaries({"name": variable_names}, optional={"value": st.text()}), max_size=4),
    "volumeMounts": st.lists(st.fixed_dictionaries({"name": volume_names, "mountPath": st.just("/m")}), max_size=2),
}
containers = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from(["a", "b"])},
        optional={
            **{key: st.none() | value for key, value in named_lists.items()},
            "invented": st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(), st.lists
            ),
        },
    ),
    max_size=3,
)
pods = st.fixed_dictionaries(
    {
        "spec": st.fixed_dictionaries(
            {"serviceAccountName": st.just("s3-reader")},
            optional={
                "containers": st.none() | containers,
                "initContainers": st.none() | containers,
                "volumes": st.none() | st.lists(st.fixed_dictionaries({"name": volume_names}), max_size=2),
            },
        )
    },
    optional={
        "metadata": st.none()
        | st.fixed_dictionaries(
            {},
            optional={
                "labels": st.none() | st.dictionaries(st.text(), st.text(), max_size=2),
                "annotations": st.fixed_dictionaries(
                    {"eks.amazonaws.com/skip-containers": st.text(alphabet='ab", \n')}
                ),
            },
        )
    },
)
worlds = st.sampled_from([PI, IRSA])
all_settings = st.sampled_from([Settings(), Settings(region="seattle", regional_sts=True)])


@given(pods, worlds, all_settings)
def test_patch_applies_and_a_second_one_changes_nothing(sent: Pod, world: World, settings: Settings) -> None:
    """WHK-512, WHK-513, WHK-517: for any pod."""
    once = applied(sent, world, settings)
    twice = applied(once, world, settings)

    assert twice == once


any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "metadata",
                    "spec",
                    "labels",
                    "annotations",
                    "containers",
                    "volumes",
                    "env",
                    "volumeMounts",
                    "name",
                    "securityContext",
                    "resources",
                    "limits",
                    "ports",
                    "projected",
                    "sources",
                    "affinity",
                    "nodeSelector",
                    "serviceAccountName",
                    "status",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=30,
)


@given(st.fixed_dictionaries({"metadata": any_json, "spec": any_json}))
def test_any_json_is_a_pod_or_refused(sent: Pod) -> None:
    """WHK-109, WHK-118: nothing but a refusal, and what is not refused can be patched."""
    try:
        decode_pod(sent)
    except WrongTypeError:
        return
    applied({**sent, "spec": {**(sent["spec"] or {}), "serviceAccountName": "s3-reader"}}, PI)


@given(pods, worlds, all_settings)
def test_own_content_survives(sent: Pod, world: World, settings: Settings) -> None:
    """WHK-204, WHK-514: lists keep their beginning, everything else its value."""
    result = applied(sent, world, settings)

    for key in ("containers", "initContainers"):
        before, after = sent["spec"].get(key) or [], result["spec"].get(key) or []
        assert len(before) == len(after)
        for old, new in zip(before, after, strict=True):
            for own in ("env", "volumeMounts"):
                assert (new.get(own) or [])[: len(old.get(own) or [])] == (old.get(own) or [])
            assert {k: v for k, v in new.items() if k not in {"env", "volumeMounts"}} == {
                k: v for k, v in old.items() if k not in {"env", "volumeMounts"}
            }
    assert (sent["spec"].get("volumes") or []) == [
        volume for volume in result["spec"].get("volumes") or [] if "projected" not in volume
    ]
