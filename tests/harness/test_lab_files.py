"""Files and locks of a lab."""

from __future__ import annotations

import configparser
import multiprocessing
import os
import shutil
from multiprocessing.synchronize import Event
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from harness.cluster.base import ClusterSpec
from harness.errors import MissingPrerequisite, UsageError
from harness.lab.lock import exclusive
from harness.lab.paths import full_disk
from harness.lab.profile import Administrator, write_aws_config, write_kubeconfig


def test_clusters_share_one_kubeconfig_and_the_first_is_current(tmp_path: Path) -> None:
    files = []
    for name in ("one", "two"):
        file = tmp_path / name
        entry = [{"name": name}]
        file.write_text(yaml.safe_dump({"current-context": name, "clusters": entry, "users": entry, "contexts": entry}))
        files.append(file)

    write_kubeconfig(tmp_path / "merged", files)

    merged = yaml.safe_load((tmp_path / "merged").read_text())
    assert merged["current-context"] == "one"
    assert [context["name"] for context in merged["contexts"]] == ["one", "two"]
    assert (tmp_path / "merged").stat().st_mode & 0o777 == 0o600


def test_each_account_has_a_profile_with_its_endpoint(tmp_path: Path) -> None:
    administrator = Administrator("123456789012", "AKIAEXAMPLE", "secret")

    write_aws_config(tmp_path / "config", [administrator], endpoint="http://10.0.0.2", region="eu-west-1")

    parser = configparser.ConfigParser()
    parser.read(tmp_path / "config")
    assert dict(parser["profile pod-identity-lab"]) == {
        "region": "eu-west-1",
        "output": "json",
        "endpoint_url": "http://10.0.0.2",
        "aws_access_key_id": "AKIAEXAMPLE",
        "aws_secret_access_key": "secret",
    }
    assert "secret" not in repr(administrator)


def test_a_second_command_on_the_same_lab_is_refused_and_told_by_whom(tmp_path: Path) -> None:
    """Flock is per open file, so a second open of the same process is refused like another process."""
    with exclusive(tmp_path / "lock", "podid"):
        with pytest.raises(UsageError, match=r"'podid' is being changed by another command: PID \d+"):
            with exclusive(tmp_path / "lock", "podid"):
                pytest.fail("held twice")

    with exclusive(tmp_path / "lock", "podid"):
        pass


def test_a_place_of_labs_that_is_somebody_else_s_is_named(tmp_path: Path) -> None:
    place = tmp_path / "labs"
    place.mkdir(mode=0o500)
    user = os.geteuid()
    if user == 0:
        # Nothing is forbidden to root.
        os.seteuid(65534)

    try:
        with pytest.raises(MissingPrerequisite, match=r"lab 'podid' cannot be locked: .*Permission denied"):
            with exclusive(place / "podid.lock", "podid"):
                pytest.fail("held")
    finally:
        os.seteuid(user)


def test_a_lock_dies_with_its_holder(tmp_path: Path) -> None:
    def hold(ready: Event) -> None:
        with exclusive(tmp_path / "lock", "podid"):
            ready.set()
            multiprocessing.Event().wait()

    context = multiprocessing.get_context("fork")
    ready = context.Event()
    holder = context.Process(target=hold, args=(ready,))
    holder.start()
    assert ready.wait(10)
    holder.kill()
    holder.join()

    with exclusive(tmp_path / "lock", "podid"):
        pass


def test_the_default_cluster_is_the_article_s() -> None:
    spec = ClusterSpec.named("pod-identity-lab")

    assert spec.arn == "arn:aws:eks:eu-west-1:123456789012:cluster/pod-identity-lab"
    assert spec.issuer == "https://oidc.eks.eu-west-1.amazonaws.com/id/EXAMPLED539D4633E53DE1B716D3041E"


def test_another_cluster_has_an_issuer_of_its_own_always_the_same() -> None:
    first, second = ClusterSpec.named("two"), ClusterSpec.named("two")

    assert first == second
    assert first.issuer != ClusterSpec().issuer
    assert first.issuer.rpartition("/")[2].isupper()


@pytest.mark.parametrize("name", ["", "-a", "a/b", "a b", "x" * 64, "ä"])
def test_a_name_that_eks_would_refuse_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="no usable cluster name"):
        ClusterSpec.named(name)


def test_a_full_disk_is_named_whatever_suffered_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Directories that do not exist yet are looked up above."""
    monkeypatch.setenv("PODID_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("PODID_CACHE_DIR", str(tmp_path / "cache" / "podid"))
    free = {"free": 1 << 40}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(**free) if path == tmp_path else None)

    assert full_disk() is None
    free["free"] = 1 << 20
    assert f"the disk of {tmp_path} is full" in str(full_disk())
