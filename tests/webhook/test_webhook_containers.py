"""What a pod gets of it: label, volumes, variables and mounts, and what it keeps (sections 5 and 7)."""

import pytest
from mutated_pods import LABELS, PI, PI_MOUNT, PI_PAIR, Pod, applied, patch_of, paths, pi_volume, pod


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
