"""Manners on somebody else's cluster: marks on the way out, and no change of what is not the run's."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.errors import MissingPrerequisite
from harness.kube import Kube
from harness.tenancy import Mark, Tenancy

MARK = Mark("ab12cd", "ann@laptop", "acme/agent", datetime(2026, 11, 26, 23, 0, tzinfo=UTC))
LABELS = {
    "podid.dev/run": "ab12cd",
    "podid.dev/owner": "ann.laptop",
    "podid.dev/repo": "acme.agent",
    "podid.dev/expires": "20261126T230000Z",
}
TENANCY = Tenancy(MARK, {"docker.io/amazon/aws-cli:latest": "registry.example/aws-cli:latest"}, "a bundle")


class Api:
    """Objects by path, and every request that would change one."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.changes: list[tuple[str, str, Any]] = []

    def has(self, path: str, **labels: str) -> None:
        """Put an object there."""
        self.objects[path] = {"metadata": {"name": path.rpartition("/")[2], "labels": labels}}


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    the_api = Api()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.partition("?")[0]
            if self.command != "GET":
                the_api.changes.append((self.command, path, json.loads(body) if body else None))
            found = the_api.objects.get(path, {} if self.command == "POST" else None)
            content = json.dumps(found or {"kind": "Status"}).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = answer  # noqa: N815 - names of the base class

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base class's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "theirs",
        "clusters": [{"name": "theirs", "cluster": {"server": f"http://127.0.0.1:{server.server_address[1]}"}}],
        "users": [{"name": "theirs", "user": {}}],
        "contexts": [{"name": "theirs", "context": {"cluster": "theirs", "user": "theirs"}}],
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(document))
    yield the_api
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def kube(api: Api, tmp_path: Path) -> Iterator[Kube]:
    assert api
    client = Kube(tmp_path / "kubeconfig", tenancy=TENANCY)
    yield client
    client.close()


# --- marks ----------------------------------------------------------------------------------------------------------


def test_mark_is_four_labels_and_four_tags() -> None:
    """HRN-EXT-09: labels have no room for every character, tags have."""
    assert MARK.labels == LABELS
    assert MARK.tags == {
        "podid:run": "ab12cd",
        "podid:owner": "ann@laptop",
        "podid:repo": "acme/agent",
        "podid:expires": "2026-11-26T23:00:00Z",
    }


def test_expiry_is_read_back_from_four_labels_only() -> None:
    assert Mark.expiry_of(LABELS) == MARK.expires
    assert Mark.expiry_of(LABELS | {"podid.dev/expires": "tomorrow"}) is None
    for name in LABELS:
        assert Mark.expiry_of({key: value for key, value in LABELS.items() if key != name}) is None


def test_pod_gets_labels_trust_and_the_clusters_name_of_its_image() -> None:
    pod = {"spec": {"containers": [{"name": "a", "image": "amazon/aws-cli"}, {"name": "b", "image": "example/b:1"}]}}

    spec = TENANCY.adapted(pod)["spec"]

    assert [container["image"] for container in spec["containers"]] == [
        "registry.example/aws-cli:latest",
        "example/b:1",
    ]
    assert spec["containers"][0]["imagePullPolicy"] == "IfNotPresent"
    assert spec["volumes"] == [{"name": "podid-lab-trust", "configMap": {"name": "podid-lab-trust"}}]
    assert [mount["mountPath"] for mount in spec["containers"][1]["volumeMounts"]] == [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
    ]
    assert "volumes" not in pod["spec"]


def test_template_of_a_workload_is_adapted_too() -> None:
    """Else its pods would be nobody's."""
    container = {"name": "a", "image": "amazon/aws-cli:latest"}
    made = TENANCY.adapted({"metadata": {"name": "app"}, "spec": {"template": {"spec": {"containers": [container]}}}})

    template = made["spec"]["template"]
    assert made["metadata"]["labels"] == template["metadata"]["labels"] == LABELS
    assert template["spec"]["volumes"]


def test_adapting_twice_is_adapting_once() -> None:
    once = TENANCY.adapted({"spec": {"containers": [{"name": "a", "image": "amazon/aws-cli:latest"}]}})

    assert TENANCY.adapted(once) == once


def test_namespace_is_marked_and_gets_what_pods_trust(api: Api, kube: Kube) -> None:
    kube.core.create_namespace({"metadata": {"name": "demo"}})

    (_, path, namespace), (_, trust_path, trust) = api.changes
    assert (path, namespace["metadata"]["labels"]) == ("/api/v1/namespaces", LABELS)
    assert trust_path == "/api/v1/namespaces/demo/configmaps"
    assert trust["data"] == {"ca-certificates.crt": "a bundle"}


# --- what is somebody's ---------------------------------------------------------------------------------------------


def test_where_aws_is_amazons_nothing_is_mounted_and_images_stay() -> None:
    """Pods of the guide run there as Amazon's image brings its CAs; they are labelled all the same."""
    pod = {"spec": {"containers": [{"name": "aws", "image": "amazon/aws-cli:latest"}]}}
    adapted = Tenancy(MARK, {}, "").adapted(pod)

    assert adapted["spec"] == pod["spec"]
    assert adapted["metadata"]["labels"] == LABELS


def test_somebodys_namespace_of_the_same_name_is_not_deleted(api: Api, kube: Kube) -> None:
    """HRN-EXT-04: the walkthroughs' names are common ones, and their first step removes leftovers."""
    api.has("/api/v1/namespaces/demo", team="shop")

    with (
        pytest.raises(MissingPrerequisite, match="namespaces demo is not this run's") as refused,
        kube.namespace("demo"),
    ):
        pass

    assert refused.value.kind == "environment"
    assert api.changes == []


def test_another_runs_namespace_is_not_deleted(api: Api, kube: Kube) -> None:
    api.has("/api/v1/namespaces/demo", **LABELS | {"podid.dev/run": "999999"})

    with pytest.raises(MissingPrerequisite):
        kube.core.delete_namespace("demo")

    assert api.changes == []


@pytest.mark.parametrize(
    "change",
    [
        lambda core: core.patch_node("node-1", {"spec": {"unschedulable": True}}),
        lambda core: core.delete_namespaced_pod("coredns-1", "kube-system"),
        lambda core: core.replace_namespaced_config_map("coredns", "kube-system", {"metadata": {"name": "coredns"}}),
        lambda core: core.patch_namespaced_service_account("default", "shop", {"secrets": []}),
        lambda core: core.delete_collection_namespaced_pod("shop"),
        lambda core: core.create_namespaced_pod_eviction("coredns-1", "kube-system", {"metadata": {"name": "x"}}),
        lambda core: core.patch_namespace_status("shop", {"status": {}}),
    ],
    ids=["cordon", "delete", "replace", "patch", "delete-all", "evict", "status"],
)
def test_nothing_of_somebody_is_changed(api: Api, kube: Kube, change: Any) -> None:
    """HRN-EXT-04."""
    for path in (
        "/api/v1/nodes/node-1",
        "/api/v1/namespaces/kube-system",
        "/api/v1/namespaces/kube-system/pods/coredns-1",
        "/api/v1/namespaces/kube-system/configmaps/coredns",
        "/api/v1/namespaces/shop",
        "/api/v1/namespaces/shop/serviceaccounts/default",
    ):
        api.has(path)

    with pytest.raises(MissingPrerequisite):
        change(kube.core)

    assert api.changes == []


def test_what_is_the_runs_can_be_changed(api: Api, kube: Kube) -> None:
    """By its own label, or because its namespace has it: what controllers and kubectl make there is the run's too."""
    api.has("/api/v1/namespaces/demo", **LABELS)
    api.has("/api/v1/namespaces/demo/pods/app-1")
    api.has("/api/v1/namespaces/kube-system")
    api.has("/api/v1/namespaces/kube-system/secrets/ours", **LABELS)

    kube.core.delete_namespaced_pod("app-1", "demo")
    kube.core.delete_namespaced_secret("ours", "kube-system")

    assert [path for _, path, _ in api.changes] == [
        "/api/v1/namespaces/demo/pods/app-1",
        "/api/v1/namespaces/kube-system/secrets/ours",
    ]


def test_what_is_not_there_can_be_made(api: Api, kube: Kube) -> None:
    """And is marked by it."""
    api.has("/api/v1/namespaces/kube-system")
    kube.core.create_namespaced_secret("kube-system", {"metadata": {"name": "ours"}})

    ((_, path, secret),) = api.changes
    assert path == "/api/v1/namespaces/kube-system/secrets"
    assert secret["metadata"]["labels"] == LABELS
