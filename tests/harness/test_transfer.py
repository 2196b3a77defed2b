"""What a lab needs is carried from one cache to another, whole or not at all."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from harness.errors import HarnessFault, MissingPrerequisite, UsageError
from harness.lab.provider import Parts, Provider
from harness.lab.transfer import load, require_all_parts, save, saved_by
from harness.progress import Progress


class Engine:
    """A provider whose engine is a dictionary: what is loaded into it can be looked at."""

    name = "kind"

    def __init__(self, parts: Parts, missing: Sequence[str] = ()) -> None:
        self._parts = parts
        self._missing = missing
        self.images: dict[str, str] = {}

    def missing(self) -> Sequence[str]:
        return self._missing

    def parts(self) -> Parts:
        return self._parts

    def save_image(self, name: str, identifier: str, file: Path) -> None:
        file.write_text(f"{name} {identifier}")

    def load_image(self, name: str, identifier: str, file: Path) -> None:
        assert file.read_text() == f"{name} {identifier}"
        self.images[name] = identifier


@pytest.fixture
def progress() -> Progress:
    return Progress(io.StringIO())


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    directory = tmp_path / "here" / "binaries" / "etcd-3"
    directory.mkdir(parents=True)
    (directory / "etcd").write_text("program")
    (directory / "etcd").chmod(0o755)
    (directory / "etcdctl").symlink_to("etcd")
    return tmp_path / "here"


@pytest.fixture
def saved(tmp_path: Path, cache: Path, progress: Progress) -> Path:
    parts = Parts([cache / "binaries" / "etcd-3"], {"debian:trixie-slim": "sha256:1"})
    save(tmp_path / "carried", provider(Engine(parts)), cache, progress)
    return tmp_path / "carried"


def provider(engine: Engine) -> Provider:
    return cast("Provider", engine)


def change(saved: Path, **members: Any) -> None:
    manifest = json.loads((saved / "manifest.json").read_text())
    (saved / "manifest.json").write_text(json.dumps(manifest | members))


def test_files_links_modes_and_images_arrive(saved: Path, tmp_path: Path, progress: Progress) -> None:
    engine = Engine(Parts([], {}))

    load(saved, provider(engine), tmp_path / "there", progress)

    directory = tmp_path / "there" / "binaries" / "etcd-3"
    assert (directory / "etcd").read_text() == "program"
    assert (directory / "etcd").stat().st_mode & 0o777 == 0o755
    assert (directory / "etcdctl").readlink() == Path("etcd")
    assert engine.images == {"debian:trixie-slim": "sha256:1"}
    assert saved_by(saved) == "kind"


def test_loading_twice_is_loading_once(saved: Path, tmp_path: Path, progress: Progress) -> None:
    for _ in range(2):
        load(saved, provider(Engine(Parts([], {}))), tmp_path / "there", progress)

    assert sorted(path.name for path in (tmp_path / "there" / "binaries" / "etcd-3").iterdir()) == ["etcd", "etcdctl"]


@pytest.mark.parametrize("harm", ["change", "remove"])
def test_a_damaged_file_stops_everything(saved: Path, tmp_path: Path, progress: Progress, harm: str) -> None:
    file = saved / "cache" / "binaries" / "etcd-3" / "etcd"
    file.write_text("other") if harm == "change" else file.unlink()

    with pytest.raises(HarnessFault, match="damaged or missing"):
        load(saved, provider(Engine(Parts([], {}))), tmp_path / "there", progress)
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"schema": "podid-parts/9"}, "schema"),
        ({"machine": "abacus"}, "is for abacus"),
        ({"files": {"cache/../../etc/passwd": "0"}}, "do not trust it"),
    ],
)
def test_what_is_not_for_us_is_refused(
    saved: Path, tmp_path: Path, progress: Progress, members: dict[str, Any], said: str
) -> None:
    change(saved, **members)

    with pytest.raises(UsageError, match=said):
        load(saved, provider(Engine(Parts([], {}))), tmp_path / "there", progress)


def test_a_directory_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="was not written by podid images save"):
        saved_by(tmp_path)


def test_nothing_is_overwritten(tmp_path: Path, cache: Path, progress: Progress) -> None:
    with pytest.raises(UsageError, match="is there already"):
        save(tmp_path, provider(Engine(Parts([], {}))), cache, progress)


def test_what_was_never_built_cannot_be_saved(tmp_path: Path, cache: Path, progress: Progress) -> None:
    with pytest.raises(MissingPrerequisite, match="the node image"):
        save(tmp_path / "carried", provider(Engine(Parts([], {}), ["the node image"])), cache, progress)
    assert not (tmp_path / "carried").exists()


def test_a_failure_leaves_nothing_half_made(tmp_path: Path, cache: Path, progress: Progress) -> None:
    gone = Parts([cache / "binaries" / "etcd-3", cache / "binaries" / "gone"], {})

    with pytest.raises(FileNotFoundError):
        save(tmp_path / "carried", provider(Engine(gone)), cache, progress)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here"]


def test_offline_lists_everything_that_is_missing() -> None:
    with pytest.raises(MissingPrerequisite, match=r"the node image\n  the program kind\n.*podid images load"):
        require_all_parts(provider(Engine(Parts([], {}), ["the node image", "the program kind"])))
