"""Clusters that the harness did not create: what is read of a kubeconfig, of a Corefile, and what a plan says."""

from __future__ import annotations

import base64
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from harness.cluster.base import ClusterSpec
from harness.cluster.existing.changes import Changes, Edit, Thing
from harness.cluster.existing.cluster import ExistingCluster
from harness.cluster.existing.corefile import answering_for_aws
from harness.cluster.existing.marked import KINDS
from harness.cluster.existing.rights import NEEDED
from harness.cluster.existing.target import Target
from harness.errors import MissingPrerequisite, UsageError
from harness.existing_commands import target_of
from harness.kube import ApiException
from harness.lab.aws import LabAws
from harness.lab.existing import ExistingProvider
from harness.lab.existing_plan import planned
from harness.lab.paths import LabPaths

KUBEADM = """\
.:53 {
    errors
    health {
       lameduck 5s
    }
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       pods insecure
    }
    forward . /etc/resolv.conf
    reload
}
"""
EXPECTED = """\
amazonaws.com:53 api.aws:53 {
    errors
    template IN A amazonaws.com api.aws {
        answer "{{ .Name }} 30 IN A 192.0.2.7"
    }
    template IN AAAA amazonaws.com api.aws {
        rcode NOERROR
    }
    cache 30
}
"""
KUBECONFIG = """\
apiVersion: v1
kind: Config
current-context: production
contexts:
- {name: production, context: {cluster: production, user: admin}}
- {name: staging, context: {cluster: staging, user: admin}}
clusters:
- {name: production, cluster: {server: "https://192.0.2.1:6443"}}
- {name: staging, cluster: {server: "https://192.0.2.2:6443", certificate-authority: ca.crt}}
users:
- {name: admin, user: {token: t}}
"""


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    (tmp_path / "ca.crt").write_text("a certificate")
    file = tmp_path / "config"
    file.write_text(KUBECONFIG)
    return file


# --- which cluster --------------------------------------------------------------------------------------------------


def test_the_current_context_is_never_taken(kubeconfig: Path) -> None:
    """HRN-EXT-01: without a context nothing is done, and the message lists those that there are."""
    with pytest.raises(UsageError, match="needs --context") as refused:
        target_of("existing", kubeconfig=kubeconfig, context="", cluster_uid="", allow_install=False)

    assert refused.value.exit_code == 3
    assert "production, staging" in refused.value.hint


def test_an_unknown_context_is_refused_with_the_known_ones(kubeconfig: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no context 'stagging'") as refused:
        Target(str(kubeconfig), "stagging", "").write_copy(tmp_path / "copy")

    assert "production, staging" in refused.value.hint


def test_the_copy_has_the_named_context_alone_and_the_original_stays(kubeconfig: Path, tmp_path: Path) -> None:
    """HRN-CLI-08: files are taken inside, so that the copy works anywhere; nothing of another cluster is in it."""
    Target(str(kubeconfig), "staging", "").write_copy(tmp_path / "copy")

    copy: dict[str, Any] = yaml.safe_load((tmp_path / "copy").read_text())
    encoded = base64.b64encode(b"a certificate").decode()
    assert copy["current-context"] == "staging"
    assert [len(copy[part]) for part in ("contexts", "clusters", "users")] == [1, 1, 1]
    assert copy["clusters"][0]["cluster"] == {
        "server": "https://192.0.2.2:6443",
        "certificate-authority-data": encoded,
    }
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o600
    assert kubeconfig.read_text() == KUBECONFIG


def test_options_of_an_existing_cluster_need_its_provider(kubeconfig: Path) -> None:
    with pytest.raises(UsageError, match="not about provider native"):
        target_of("native", kubeconfig=kubeconfig, context="staging", cluster_uid="", allow_install=False)


def test_other_providers_have_no_target() -> None:
    assert target_of("auto", kubeconfig=None, context="", cluster_uid="", allow_install=False) is None


def test_a_lab_stays_on_its_cluster(tmp_path: Path) -> None:
    """A lab that is up does not move to another cluster because another context is named."""
    paths = LabPaths(tmp_path, "lab")
    paths.directory.mkdir(parents=True)
    (paths.directory / "target.json").write_text('{"kubeconfig": "/config", "context": "staging", "uid": "1"}')
    provider = ExistingProvider(paths, LabAws(paths.aws), Target("/config", "production", "2"))

    with pytest.raises(UsageError, match="the lab is on context staging"):
        _ = provider.target


# --- cluster DNS ----------------------------------------------------------------------------------------------------


def test_a_corefile_answers_for_aws_in_a_block_of_its_own() -> None:
    """Everything that was there stays as it was, byte for byte."""
    assert answering_for_aws(KUBEADM, "192.0.2.7") == KUBEADM + EXPECTED


def test_blocks_that_answered_for_aws_make_room() -> None:
    """Two blocks for one zone would keep CoreDNS from starting; a block of somebody else's zone stays."""
    mine = "# ours\nexample.com:53 {\n    errors\n}\n"
    former = "elb.amazonaws.com:53 {\n    errors\n}\namazonaws.com:53 api.aws:53 {\n    template IN A {\n    }\n}\n"

    assert answering_for_aws(mine + former + KUBEADM, "192.0.2.7") == mine + KUBEADM + EXPECTED


def test_a_corefile_that_answers_already_stays_the_same() -> None:
    once = answering_for_aws(KUBEADM, "192.0.2.7")

    assert answering_for_aws(once, "192.0.2.7") == once


# --- what is put back -----------------------------------------------------------------------------------------------

DNS = Thing("v1", "ConfigMap", "coredns", "kube-system")


class OneObject:
    """A cluster with one object, or none."""

    def __init__(self, content: dict[str, Any] | None) -> None:
        self.content = content

    def read(self, *_: object) -> dict[str, Any]:
        if self.content is None:
            raise ApiException(status=404)
        return self.content

    def merge(self, api_version: str, kind: str, name: str, change: dict[str, Any], namespace: str) -> None:
        assert (api_version, kind, name, namespace) == ("v1", "ConfigMap", "coredns", "kube-system")
        assert self.content is not None
        self.content = merged(self.content, change)


def merged(content: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Apply a JSON merge patch (RFC 7396)."""
    result = dict(content)
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key) or {}, value) if isinstance(value, dict) else value
    return result


def edited(content: dict[str, Any], change: dict[str, Any], notes: Path) -> tuple[OneObject, Changes]:
    cluster: Any = OneObject(content)
    changes = Changes(notes, cluster)
    changes.edit(DNS, change)
    return cluster, changes


def test_edit_is_taken_back_member_by_member(tmp_path: Path) -> None:
    """HRN-EXT-04: what the owner changed elsewhere in the object meanwhile stays."""
    cluster, changes = edited({"data": {"Corefile": "theirs"}}, {"data": {"Corefile": "ours"}}, tmp_path / "notes")
    assert cluster.content == {"data": {"Corefile": "ours"}}
    assert cluster.content is not None
    cluster.content["data"]["other"] = "of today"

    assert changes.undo() == []
    assert cluster.content == {"data": {"Corefile": "theirs", "other": "of today"}}


def test_member_that_was_not_there_goes_again(tmp_path: Path) -> None:
    change = {"metadata": {"annotations": {"podid.dev/restarted-for": "ab12cd"}}}
    cluster, changes = edited({"metadata": {"name": "coredns"}}, change, tmp_path / "notes")

    assert changes.undo() == []
    assert cluster.content == {"metadata": {"name": "coredns", "annotations": {}}}


def test_edit_of_an_edit_is_left_and_named(tmp_path: Path) -> None:
    """Somebody's newer Corefile is worth more than ours of yesterday."""
    cluster, changes = edited({"data": {"Corefile": "theirs"}}, {"data": {"Corefile": "ours"}}, tmp_path / "notes")
    cluster.content = {"data": {"Corefile": "theirs of today"}}

    (left,) = changes.undo()
    assert str(left.thing) == "ConfigMap kube-system/coredns"
    assert cluster.content == {"data": {"Corefile": "theirs of today"}}


def test_taking_back_twice_is_fine() -> None:
    """A clean-up may be killed between the change and its note."""
    cluster: Any = OneObject({"data": {"Corefile": "theirs"}})
    edit = Edit.of(cluster, DNS, {"data": {"Corefile": "ours"}})
    cluster.content = {"data": {"Corefile": "ours"}}

    assert Edit.from_data(edit.as_data()).take_back(cluster)
    assert edit.take_back(cluster)
    assert cluster.content == {"data": {"Corefile": "theirs"}}


def test_object_that_somebody_removed_is_not_made_again(tmp_path: Path) -> None:
    cluster, changes = edited({"data": {"Corefile": "theirs"}}, {"data": {"Corefile": "ours"}}, tmp_path / "notes")
    cluster.content = None

    assert changes.undo() == []
    assert cluster.content is None


def test_nothing_of_somebodys_is_replaced(tmp_path: Path) -> None:
    """HRN-EXT-04: an object of the same name keeps the run from beginning."""
    cluster: Any = SimpleNamespace(exists=lambda *_: True)
    with pytest.raises(MissingPrerequisite, match="already, and not from this lab: ConfigMap kube-system/coredns"):
        Changes(tmp_path / "notes", cluster).will_create([DNS.as_manifest()])

    assert not (tmp_path / "notes").exists()


# --- limits and plan ------------------------------------------------------------------------------------------------


def test_nodes_of_somebody_are_out_of_reach(tmp_path: Path) -> None:
    """HRN-EXT-16: typed, so that a scenario which needs it could not run, and says why."""
    with pytest.raises(
        MissingPrerequisite, match="not possible on a cluster that the harness did not create"
    ) as refused:
        ExistingCluster(tmp_path).run_on_node("node-1", ["true"])

    assert refused.value.kind == "environment"


def test_plan_names_every_object_outside_of_scenarios() -> None:
    """HRN-EXT-05."""
    assert [str(thing) for thing in planned(ClusterSpec())] == [
        "ServiceAccount kube-system/podid-RUN-eks",
        "ClusterRole podid-RUN-eks",
        "ClusterRoleBinding podid-RUN-eks",
        "Role kube-system/podid-RUN-eks",
        "RoleBinding kube-system/podid-RUN-eks",
        "ConfigMap kube-system/podid-lab-trust",
        "ConfigMap kube-system/podid-RUN-edits",
        "Deployment kube-system/pod-identity-webhook",
        "PodDisruptionBudget kube-system/pod-identity-webhook",
        "MutatingWebhookConfiguration pod-identity-webhook",
        "ServiceAccount kube-system/pod-identity-webhook",
        "ClusterRole pod-identity-webhook",
        "ClusterRoleBinding pod-identity-webhook",
        "Role kube-system/pod-identity-webhook",
        "RoleBinding kube-system/pod-identity-webhook",
        "Secret kube-system/pod-identity-webhook",
        "Service kube-system/pod-identity-webhook",
        "ConfigMap kube-system/podid-agent-hosts",
        "DaemonSet kube-system/eks-pod-identity-agent",
        "ConfigMap kube-system/pod-identity-associations",
    ]


def test_rights_and_clean_up_cover_every_kind_of_the_plan() -> None:
    """HRN-EXT-03: whatever a run would make, it asks first whether it may make and remove it."""
    plural = {thing.kind: f"{thing.kind.lower()}s" for thing in planned(ClusterSpec())}
    asked = {(right.verb, right.resource) for right in NEEDED}

    assert {(verb, name) for verb in ("create", "delete") for name in plural.values()} - asked == set()
    assert plural.keys() - {kind for _, kind, _ in KINDS} == set()
