"""The cases of AWS's own tests (section 12)."""

import pytest
from mutated_pods import (
    IRSA,
    IRSA_MOUNT,
    IRSA_PAIR,
    LABELS,
    PI,
    PI_MOUNT,
    PI_PAIR,
    REGIONS,
    ROLE,
    STS,
    World,
    applied,
    expiration_of,
    irsa_volume,
    patch_of,
    paths,
    pi_volume,
    pod,
)
from podid_webhook.configuration import Settings


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
