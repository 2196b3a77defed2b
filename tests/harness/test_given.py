"""Images of somebody else's agent or webhook, as a lab takes them in."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.cluster.base import ClusterSpec
from harness.errors import UsageError
from harness.lab import Lab
from harness.lab.given import lab_images, previous_images, read_given, take_in
from harness.lab.native import NativeProvider
from harness.lab.reuse import makings
from harness.lab.wiring import agent_manifests
from harness.progress import Progress


def archive(path: Path, manifest: Sequence[object] | bytes = ({"Config": "c.json"},)) -> str:
    data = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
    with tarfile.open(path, "w") as file:
        info = tarfile.TarInfo("manifest.json")
        info.size = len(data)
        file.addfile(info, io.BytesIO(data))
    return str(path)


def no_engine(reference: str, file: Path) -> None:
    raise AssertionError(f"{reference} was asked for, {file}")


def test_a_lab_keeps_a_copy_and_runs_it_under_a_name_of_its_own(tmp_path: Path) -> None:
    source = archive(tmp_path / "agent.tar")

    take_in(tmp_path / "given", {"agent": source}, no_engine)
    Path(source).unlink()

    given = read_given(tmp_path / "given")
    image = lab_images(given)["agent"]
    assert image.is_archive
    assert image.reference == f"docker.io/podid/given-agent:{given['agent'].sha256[:12]}"
    assert [name for name, _ in image.files()] == ["image.tar"]
    assert given["agent"].source == source


def test_what_is_not_given_is_ours(tmp_path: Path) -> None:
    take_in(tmp_path / "given", {"webhook": archive(tmp_path / "webhook.tar")}, no_engine)

    images = lab_images(read_given(tmp_path / "given"))

    assert images["webhook"].is_archive
    assert images["agent"] == lab_images({})["agent"]


def test_the_reference_of_an_image_is_exported(tmp_path: Path) -> None:
    take_in(tmp_path / "given", {"agent": "my/agent:dev"}, lambda _, file: Path(archive(file)).touch())

    assert read_given(tmp_path / "given")["agent"].source == "my/agent:dev"


def test_every_container_of_the_agent_runs_the_image() -> None:
    (daemon_set,) = agent_manifests(ClusterSpec(), "docker.io/podid/given-agent:1")

    pod = daemon_set["spec"]["template"]["spec"]
    assert {c["image"] for c in [*pod["initContainers"], *pod["containers"]]} == {"docker.io/podid/given-agent:1"}


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("nowhere.tar", "there is no file nowhere.tar"),
        ("a name", "there is no file a name"),
        ("text", "is no archive of an image"),
        ("two.tar", "holds 2 images, not one"),
        ("broken.tar", "is no archive of an image"),
        ("empty.tar", "is no archive of an image"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text").write_text("nothing")
    archive(Path("two.tar"), [{}, {}])
    archive(Path("broken.tar"), b"{")
    tarfile.open("empty.tar", "w").close()

    with pytest.raises(UsageError, match=text) as refusal:
        take_in(tmp_path / "given", {"agent": source}, no_engine)

    assert "docker save" in str(refusal.value)


def test_a_native_lab_says_that_it_cannot_pull(tmp_path: Path) -> None:
    lab = Lab("any")
    with pytest.raises(UsageError, match=r"docker save --output FILE.tar ghcr.io/x/agent:1"):
        NativeProvider("any", lab.paths, lab.aws).export_image("ghcr.io/x/agent:1", tmp_path / "x")


def test_a_source_names_an_image_while_its_file_is_the_same(tmp_path: Path) -> None:
    source = archive(tmp_path / "agent.tar")
    take_in(tmp_path / "given", {"agent": source}, no_engine)
    image = read_given(tmp_path / "given")["agent"]

    assert image.is_from(source)
    archive(tmp_path / "agent.tar", [{"Config": "other.json"}])
    assert not image.is_from(source)
    assert not image.is_from("other.tar")


@pytest.fixture
def up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A lab that says it is up, made of what a new one would be."""
    monkeypatch.setenv("PODID_STATE_DIR", str(tmp_path))
    lab = Lab("reused")
    lab.paths.directory.mkdir(parents=True)
    lab.paths.description.write_text(json.dumps({"provider": "native", "made_of": makings("native", {})}))
    monkeypatch.setattr(Lab, "is_up", property(lambda _: True))
    monkeypatch.setattr(NativeProvider, "require", lambda *_: None)
    monkeypatch.setattr(NativeProvider, "clusters", lambda _: [])
    return lab


@pytest.mark.parametrize("what", ["Kubernetes", "configuration", "subject", "major version of the harness"])
def test_a_lab_made_of_something_else_is_used_again_only_by_force(up: Lab, what: str) -> None:
    up.up([], Progress())
    then = makings("native", {}) | {what: "another"}
    up.paths.description.write_text(json.dumps({"provider": "native", "made_of": then}))

    with pytest.raises(UsageError, match=rf"is not what would be raised now:\n  {what}: another → .*\n.*--reuse force"):
        up.up([], Progress())
    up.up([], Progress(), reuse="force")

    assert [line.partition(":")[0] for line in up.differences()] == [what]


def test_a_lab_of_which_nothing_is_known_is_refused(up: Lab) -> None:
    up.paths.description.write_text(json.dumps({"provider": "native"}))

    with pytest.raises(UsageError, match="subject: not known"):
        up.up([], Progress())


def test_an_upgrade_begins_with_our_own_images_of_another_version(tmp_path: Path) -> None:
    """Other images: the same sources under another name, and with another version in them."""
    take_in(tmp_path / "previous", {}, no_engine)

    images = previous_images(tmp_path / "previous", {})

    for role in ("agent", "webhook"):
        now, old = lab_images({})[role], images[role]
        files = dict(old.files())
        assert old.reference.endswith(":0.0.0")
        assert '__version__ = "0.0.0"' in files[f"podid_{role}/__init__.py"].read_text()
        assert files.keys() == dict(now.files()).keys()


def test_an_upgrade_begins_with_what_is_given_for_it(tmp_path: Path) -> None:
    take_in(tmp_path / "previous", {"agent": archive(tmp_path / "old.tar")}, no_engine)

    images = previous_images(tmp_path / "previous", {})

    assert images["agent"].is_archive
    assert not images["webhook"].is_archive


def test_of_a_foreign_agent_there_is_no_older_version_unless_it_is_given(tmp_path: Path) -> None:
    take_in(tmp_path / "given", {"agent": archive(tmp_path / "agent.tar")}, no_engine)
    take_in(tmp_path / "previous", {}, no_engine)

    assert previous_images(tmp_path / "previous", read_given(tmp_path / "given")).keys() == {"webhook"}
