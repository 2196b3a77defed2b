"""Any pod, any configuration: the patch applies, a second changes nothing, what is the user's survives."""

from hypothesis import given
from hypothesis import strategies as st
from mutated_pods import IRSA, PI, Pod, World, applied
from podid_webhook.configuration import Settings
from podid_webhook.pod import decode_pod
from podid_webhook.pod_schema import WrongTypeError

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
