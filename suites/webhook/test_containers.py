"""Section 7 of the contract: the rules for containers, volumes and patches that both mechanisms share."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import pytest

from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.subject.reviews import Object, normalized, pod
from harness.subject.webhook import Webhook

STS = "AWS_STS_REGIONAL_ENDPOINTS"
REGIONS = ["AWS_DEFAULT_REGION", "AWS_REGION"]


@dataclass(frozen=True)
class Expected:
    """What differs between the mechanisms."""

    account: str
    pair: list[str]
    volume: str
    mount_path: str
    token_file: str

    @property
    def all_names(self) -> list[str]:
        return [STS, *REGIONS, *self.pair]

    @property
    def mount(self) -> Object:
        return {"name": self.volume, "readOnly": True, "mountPath": self.mount_path}

    def pod(self, *containers: Object, **fields: Any) -> Object:
        return pod(*containers, service_account=self.account, **fields)


POD_IDENTITY = Expected(
    account="s3-reader",
    pair=["AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"],
    volume="eks-pod-identity-token",
    mount_path="/var/run/secrets/pods.eks.amazonaws.com/serviceaccount",
    token_file="/var/run/secrets/pods.eks.amazonaws.com/serviceaccount/eks-pod-identity-token",
)
IRSA = Expected(
    account="with-role",
    pair=["AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE"],
    volume="aws-iam-token",
    mount_path="/var/run/secrets/eks.amazonaws.com/serviceaccount",
    token_file="/var/run/secrets/eks.amazonaws.com/serviceaccount/token",
)


@pytest.fixture(params=[POD_IDENTITY, IRSA], ids=["pod-identity", "irsa"])
def expected(request: pytest.FixtureRequest) -> Expected:
    return request.param


def skipping(names: str) -> Object:
    return {"annotations": {"eks.amazonaws.com/skip-containers": names}}


@requirement("WHK-501")
def test_all_containers_are_alike(eks: Webhook, expected: Expected) -> None:
    """Containers, init containers and sidecars get the same variables and the same mount."""
    sent = expected.pod(
        {"name": "a"}, {"name": "b"}, initContainers=[{"name": "init"}, {"name": "sidecar", "restartPolicy": "Always"}]
    )

    admission = eks.review(sent)

    for name in ("a", "b", "init", "sidecar"):
        assert (admission.names(name), admission.mounts(name)) == (expected.all_names, [expected.mount])
    assert admission.container("sidecar").get("restartPolicy") == "Always"


@requirement("WHK-503")
def test_variables_are_appended_in_order(eks: Webhook, expected: Expected) -> None:
    """STS, default region, region, source, token file, behind what the container has."""
    own = [{"name": "ZEBRA", "value": "z"}, {"name": "ALPACA", "value": "a"}]

    admission = eks.review(expected.pod({"name": "app", "env": own}))

    assert admission.names() == ["ZEBRA", "ALPACA", *expected.all_names]
    assert admission.env()[:2] == own


@requirement("WHK-504")
@pytest.mark.parametrize(
    "content",
    [{}, {"value": ""}, {"valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
    ids=["absent", "empty", "valueFrom"],
)
def test_presence_is_by_name(eks: Webhook, expected: Expected, content: Object) -> None:
    """A name counts whatever its value is and wherever it comes from."""
    names = [STS, "AWS_REGION", expected.pair[1]]
    own = [{"name": name, **content} for name in names]

    # Names, since AWS's webhook leaves out an empty value, which means the same.
    assert eks.review(expected.pod({"name": "app", "env": own})).names() == names


@requirement("WHK-504")
def test_names_from_elsewhere_do_not_count(eks: Webhook, expected: Expected) -> None:
    """What a ConfigMap or Secret brings in is not looked into."""
    sent = expected.pod({"name": "app", "envFrom": [{"configMapRef": {"name": "aws"}}]})

    assert eks.review(sent).names() == expected.all_names


@requirement("WHK-505")
@pytest.mark.parametrize("name", REGIONS)
def test_either_region_keeps_both_away(eks: Webhook, expected: Expected, name: str) -> None:
    """A container with one of the region variables keeps it alone; STS and the pair come."""
    sent = expected.pod({"name": "app", "env": [{"name": name, "value": "paris"}]})

    admission = eks.review(sent)

    assert admission.names() == [name, STS, *expected.pair]
    assert admission.value(name) == "paris"


@requirement("WHK-505")
def test_sts_stands_by_itself(eks: Webhook, expected: Expected) -> None:
    """A container with the STS variable keeps it; regions and pair come."""
    admission = eks.review(expected.pod({"name": "app", "env": [{"name": STS, "value": "legacy"}]}))

    assert admission.names() == [STS, *REGIONS, *expected.pair]
    assert admission.value(STS) == "legacy"


@requirement("WHK-505")
def test_values_of_sts_and_regions(eks: Webhook, plain: Webhook, expected: Expected) -> None:
    """STS is `regional`, both regions are the flag's; without the flags there is neither."""
    admission = eks.review(expected.pod())

    assert [admission.value(name) for name in (STS, *REGIONS)] == ["regional", "eu-west-1", "eu-west-1"]
    assert plain.review(expected.pod()).names() == expected.pair


@requirement("WHK-506")
@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("half", [0, 1])
def test_container_with_a_name_of_each_group_is_untouched(
    eks: Webhook, plain: Webhook, expected: Expected, region: str, half: int
) -> None:
    """It gets no mount even, while the pod gets the volume; also where the flags would add no region or STS."""
    container = {"name": "app", "env": [{"name": n, "value": "own"} for n in (region, STS, expected.pair[half])]}

    for webhook in (eks, plain):
        admission = webhook.review(expected.pod(container))
        assert normalized(admission.container()) == container
        assert admission.volume_names == [expected.volume]


@requirement("WHK-507")
def test_mount_of_the_volume_s_name_is_enough(eks: Webhook, expected: Expected) -> None:
    """A container that mounts such a volume anywhere gets no second mount, but the variables."""
    own = {"name": expected.volume, "mountPath": "/elsewhere"}

    admission = eks.review(expected.pod({"name": "app", "volumeMounts": [own]}))

    assert admission.mounts() == [own]
    assert admission.names() == expected.all_names


@requirement("WHK-507")
def test_another_volume_at_the_path_is_not(eks: Webhook, expected: Expected) -> None:
    """Paths are not compared: the mount is added beside one of another volume at the same path."""
    own = {"name": "other", "mountPath": expected.mount_path}

    assert eks.review(expected.pod({"name": "app", "volumeMounts": [own]})).mounts() == [own, expected.mount]


@requirement("WHK-509")
@pytest.mark.parametrize("source", [{"hostPath": {"path": "/"}}, {"emptyDir": {}}, {"secret": {"secretName": "s"}}])
def test_volume_of_the_name_is_kept(eks: Webhook, expected: Expected, source: Object) -> None:
    """A volume of the token volume's name stays as and where it is, and no other is added."""
    volumes = [{"name": "first", "emptyDir": {}}, {"name": expected.volume, **source}]

    admission = eks.review(expected.pod(volumes=volumes))

    assert admission.names() == expected.all_names
    assert admission.volumes == volumes


@requirement("WHK-510")
@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({}, "/spec/volumes"),
        ({"volumes": None}, "/spec/volumes"),
        ({"volumes": []}, "/spec/volumes/0"),
        ({"volumes": [{"name": "a"}, {"name": "b"}]}, "/spec/volumes/0"),
    ],
    ids=["absent", "null", "empty", "present"],
)
def test_volume_operation(eks: Webhook, expected: Expected, spec: Object, path: str) -> None:
    """The new volume is the first, by the one operation that applies."""
    admission = eks.review(expected.pod(**spec))

    assert [entry for entry in admission.paths if "volumes" in entry] == [path]
    assert admission.volume_names == [expected.volume, *(volume["name"] for volume in spec.get("volumes") or [])]


@requirement("WHK-511")
def test_operations(eks: Webhook, expected: Expected) -> None:
    """Label, volume, containers, init containers; each at most once, all of them `add`."""
    label = ["/metadata/labels"] if expected is POD_IDENTITY else []

    admission = eks.review(expected.pod(initContainers=[{"name": "init"}]))
    without = eks.review(expected.pod(volumes=[{"name": expected.volume}]))

    assert admission.paths == [*label, "/spec/volumes", "/spec/containers", "/spec/initContainers"]
    assert {operation.get("op") for operation in admission.patch} == {"add"}
    assert without.paths == [*label, "/spec/containers"]


@requirement("WHK-513")
@pytest.mark.parametrize(
    "sent",
    [
        pod(),
        pod(volumes=None),
        pod(volumes=[]),
        pod(metadata={"labels": None, "annotations": None}),
        pod(metadata={"labels": {"with/slash": "x", "with~tilde": "y"}}),
        pod(initContainers=None),
        pod(initContainers=[]),
        pod(initContainers=[{"name": "init", "env": None}]),
        pod({"name": "app", "env": None, "volumeMounts": None}),
        pod({"name": "app", "env": [], "volumeMounts": []}),
        {"metadata": {}, "spec": {"serviceAccountName": "s3-reader", "containers": [{"name": "app"}]}},
    ],
)
def test_patch_applies(eks: Webhook, expected: Expected, sent: Object) -> None:
    """Whatever a pod leaves out or has null or empty, the patch applies to it as it was sent."""
    the_pod = copy.deepcopy(sent)
    the_pod["spec"]["serviceAccountName"] = expected.account

    assert eks.review(the_pod).names() == expected.all_names


@requirement("WHK-513")
@pytest.mark.parametrize("metadata", [{}, {"metadata": None}], ids=["absent", "null"])
@pytest.mark.usefixtures("ours_alone")
def test_patch_applies_without_metadata(eks: Webhook, metadata: Object) -> None:
    """A pod without metadata, which only a direct review has, is labelled all the same."""
    sent = {"spec": pod()["spec"], **metadata}

    assert eks.review(sent).labels == {"eks.amazonaws.com/pod-identity": "enabled"}


@requirement("WHK-514")
def test_everything_else_survives(eks: Webhook, expected: Expected) -> None:
    """Fields that no webhook knows, and values in unusual spelling, are in the admitted pod as they were sent."""
    container = {
        "name": "app",
        "image": "x",
        "inventedField": {"nested": [1, 2.50, None, True, "ü\u2028"], "big": 2**63},
        "resources": {"limits": {"cpu": "0.50", "memory": "1024Mi", "example.com/gpu": 1}},
        "args": [],
        "tty": False,
        "startupProbe": {"grpc": {"port": 9, "service": None}},
        "restartPolicyRules": [{"action": "Restart"}],
    }
    sent = expected.pod(container, initContainers=[container | {"name": "init"}], inventedSpec={"a": [{}]})
    sent["metadata"]["inventedMeta"] = "x"
    sent["status"] = {"phase": "Pending"}

    admission = eks.review(sent)
    assert admission.names() == expected.all_names

    admitted = admission.pod
    spec = admitted.get("spec", {})
    spec.pop("volumes", None)
    for one in (*spec.get("containers", []), *spec.get("initContainers", [])):
        one.pop("env", None)
        one.pop("volumeMounts", None)
    admitted.get("metadata", {}).pop("labels", None)
    assert admitted == sent


@requirement("WHK-515")
def test_security_context_probes_and_resources_stay(eks: Webhook, expected: Expected) -> None:
    """Nothing that decides how a container runs is changed."""
    container = {
        "name": "app",
        "image": "x",
        "imagePullPolicy": "Never",
        "resources": {"limits": {"cpu": "500m"}, "requests": {"memory": "64Mi"}},
        "securityContext": {"runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "livenessProbe": {"grpc": {"port": 8080, "service": "health"}, "periodSeconds": 5},
        "readinessProbe": {"httpGet": {"path": "/", "port": 80}},
        "startupProbe": {"tcpSocket": {"port": 80}},
    }
    spec = {"securityContext": {"fsGroup": 65534, "runAsNonRoot": True}, "automountServiceAccountToken": False}
    sent = expected.pod(container, **spec)

    admission = eks.review(sent)

    assert admission.names() == expected.all_names
    kept = {key: admission.container().get(key) for key in container}
    assert kept == container
    assert {key: admission.spec.get(key) for key in spec} == spec
    assert admission.spec.get("serviceAccountName") == expected.account


@requirement("WHK-516")
def test_skipped_container(eks: Webhook, expected: Expected) -> None:
    """A skipped container is untouched; the pod gets its volume, and its label under Pod Identity."""
    sent = expected.pod({"name": "sidecar"}, {"name": "app"}, metadata=skipping("sidecar"))

    admission = eks.review(sent)

    assert normalized(admission.container("sidecar")) == {"name": "sidecar"}
    assert admission.names("app") == expected.all_names
    assert admission.volume_names == [expected.volume]
    assert ("eks.amazonaws.com/pod-identity" in admission.labels) is (expected is POD_IDENTITY)


@requirement("WHK-517")
@pytest.mark.parametrize("case", ["plain", "init", "skip", "own volume", "own region"])
def test_second_pass_changes_nothing(eks: Webhook, expected: Expected, case: str) -> None:
    """A pod that was mutated and is sent again stays as it is, its expiration included."""
    sent = {
        "plain": expected.pod(),
        "init": expected.pod(initContainers=[{"name": "init"}]),
        "skip": expected.pod({"name": "a"}, {"name": "b"}, metadata=skipping("b")),
        "own volume": expected.pod(volumes=[{"name": expected.volume, "emptyDir": {}}]),
        "own region": expected.pod({"name": "app", "env": [{"name": "AWS_REGION", "value": "x"}]}),
    }[case]

    once = eks.review(sent).pod

    assert eks.review(once).pod == once


@requirement("WHK-518")
def test_added_container_is_completed(eks: Webhook, expected: Expected) -> None:
    """A container that a later webhook adds is completed in a further pass, and the others are left alone."""
    first = eks.review(expected.pod()).pod
    later = copy.deepcopy(first)
    later["spec"]["containers"].append({"name": "late"})
    later["spec"]["initContainers"] = [{"name": "late-init"}]

    second = eks.review(later)

    for name in ("late", "late-init"):
        assert (second.names(name), second.mounts(name)) == (expected.all_names, [expected.mount])
    assert second.spec.get("containers", [])[:1] == first["spec"]["containers"]
    assert second.volumes == first["spec"].get("volumes")


@requirement("WHK-519")
def test_no_default_mode(eks: Webhook, expected: Expected) -> None:
    """The API server's own mode is used."""
    projected = eks.review(expected.pod()).volume(expected.volume).get("projected", {})

    assert projected.get("sources")
    assert "defaultMode" not in projected


@requirement("WHK-520")
@pytest.mark.parametrize("label", ["kubernetes.io/os", "beta.kubernetes.io/os"])
def test_windows(eks: Webhook, expected: Expected, label: str) -> None:
    """The token variable is on drive C with backslashes; the mount path keeps its slashes."""
    admission = eks.review(expected.pod(nodeSelector={label: "windows"}))

    assert admission.value(expected.pair[1]) == "C:" + expected.token_file.replace("/", "\\")
    assert admission.mounts() == [expected.mount]


@requirement("WHK-520")
@pytest.mark.parametrize(
    "spec",
    [
        {"nodeSelector": {"kubernetes.io/os": "Windows"}},
        {"nodeSelector": {"kubernetes.io/os": "linux"}},
        {"nodeSelector": {"os": "windows"}},
        {"os": {"name": "windows"}},
        {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "kubernetes.io/os", "operator": "In", "values": ["windows"]}]}]}}}},
    ],
    ids=["other case", "linux", "other key", "os", "affinity"],
)  # fmt: skip
def test_not_windows(eks: Webhook, expected: Expected, spec: Object) -> None:
    """Nothing but these two selectors with precisely this value makes a Windows pod."""
    assert eks.review(expected.pod(**spec)).value(expected.pair[1]) == expected.token_file


@requirement("WHK-521")
def test_nulls_are_empty(eks: Webhook, expected: Expected) -> None:
    """A null list or object is like an empty or absent one."""
    sent = expected.pod(
        {"name": "app", "env": None, "volumeMounts": None},
        metadata={"labels": None, "annotations": None},
        nodeSelector=None,
        initContainers=None,
    )

    admission = eks.review(sent)

    assert (admission.names(), admission.mounts()) == (expected.all_names, [expected.mount])
    assert admission.value(expected.pair[1]) == expected.token_file


@requirement("WHK-522")
def test_added_variables_have_plain_values(eks: Webhook, expected: Expected) -> None:
    """Each has a name and a text, and nothing else."""
    env = eks.review(expected.pod()).env()

    check("WHK-522", expected=expected.all_names, observed=[entry.get("name") for entry in env], what="names")
    check("WHK-522", expected=[{"name", "value"}] * 5, observed=[set(entry) for entry in env], what="members")
    check("WHK-522", expected=True, observed=all(isinstance(entry.get("value"), str) for entry in env), what="texts")
