"""Images that are unpacked once: when the store is made again, and what a node's clone shares with it.

The programs are stand-ins here; that a real containerd finds the images is seen by every lab.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from harness.cluster.native import image_store
from harness.errors import HarnessFault
from harness.images import ImageSpec
from harness.progress import Progress

DATABASE = "io.containerd.metadata.v1.bolt/meta.db"
LAYER = "snapshots/1/fs/app.db"
CONTAINERD = f"""#!/bin/sh
root=$(sed -n 's/^root = "\\(.*\\)"/\\1/p' "$2")
socket=$(sed -n 's/^  address = "\\(.*\\)"/\\1/p' "$2")
mkdir -p "$root/{Path(DATABASE).parent}" "$root/{Path(LAYER).parent}"
echo database > "$root/{DATABASE}"
echo layer > "$root/{LAYER}"
touch "$socket"
exec sleep 60
"""
CTR = """#!/bin/sh
for reference; do :; done
echo "$reference" >> "$CALLS"
case "$reference" in *broken*) echo "unpigz: no space left on device"; exit 1;; esac
"""
REGISTRY = "#!/bin/sh\necho 'listening on 127.0.0.1:43210' >&2\nexec sleep 60\n"
SPECS = [ImageSpec(f"docker.io/podid/{name}:0.1.0", Path(name)) for name in ("one", "two")]


def write_program(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)
    return file


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, Path]:
    """The programs; a namespace of one's own needs root, and is not what is tested."""
    write_program(tmp_path / "path/unshare", '#!/bin/sh\nshift\nexec "$@"\n')
    monkeypatch.setenv("PATH", str(tmp_path / "path"), prepend=os.pathsep)
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    texts = {"containerd": CONTAINERD, "ctr": CTR, "registry": REGISTRY}
    return {name: write_program(tmp_path / "programs-1" / name, text) for name, text in texts.items()}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    (tmp_path / "cache/logs").mkdir(parents=True)
    for spec in SPECS:
        store(tmp_path / "cache", spec, "sha256:1")
    return tmp_path / "cache"


def store(cache: Path, spec: ImageSpec, digest: str) -> None:
    """Let the registry have an image under a reference."""
    tag = cache / "registry/docker/registry/v2/repositories" / spec.repository / "_manifests/tags" / spec.tag
    (tag / "current").mkdir(parents=True, exist_ok=True)
    (tag / "current/link").write_text(digest)


def pulls(tmp_path: Path) -> list[str]:
    return (tmp_path / "calls").read_text().split()


def test_images_are_unpacked_once(cache: Path, programs: Mapping[str, Path], tmp_path: Path) -> None:
    first = image_store.unpacked(SPECS, cache, programs, Progress())
    again = image_store.unpacked(SPECS[::-1], cache, programs, Progress())

    assert again == first
    assert pulls(tmp_path) == [spec.reference for spec in SPECS]
    assert cache.joinpath("unpacked").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("changed", ["image", "containerd"])
def test_what_changed_is_unpacked_again_in_place_of_what_was(
    changed: str, cache: Path, programs: Mapping[str, Path], tmp_path: Path
) -> None:
    first = image_store.unpacked(SPECS, cache, programs, Progress())
    if changed == "image":
        store(cache, SPECS[0], "sha256:2")
    else:
        (tmp_path / "programs-1").rename(tmp_path / "programs-2")
        programs = {name: tmp_path / "programs-2" / name for name in programs}

    second = image_store.unpacked(SPECS, cache, programs, Progress())

    assert second != first
    assert list((cache / "unpacked").iterdir()) == [second]


def test_image_that_cannot_be_unpacked_is_named_and_leaves_no_store(cache: Path, programs: Mapping[str, Path]) -> None:
    broken = ImageSpec("docker.io/podid/broken:0.1.0", Path("broken"))
    store(cache, broken, "sha256:1")

    for _ in range(2):
        with pytest.raises(HarnessFault, match=r"podid/broken:0\.1\.0 cannot be unpacked: unpigz: no space left"):
            image_store.unpacked([*SPECS, broken], cache, programs, Progress())


def test_clones_share_layers_and_have_databases_of_their_own(
    cache: Path, programs: Mapping[str, Path], tmp_path: Path
) -> None:
    kept = image_store.unpacked(SPECS, cache, programs, Progress())

    image_store.clone(kept, tmp_path / "node")

    assert (tmp_path / "node" / LAYER).samefile(kept / LAYER)
    assert (tmp_path / "node" / DATABASE).read_text() == "database\n"
    assert not (tmp_path / "node" / DATABASE).samefile(kept / DATABASE)


def test_clone_beyond_a_mount_has_files_of_its_own(
    cache: Path, programs: Mapping[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two mounts of one file system have one device number, and no links between them."""
    kept = image_store.unpacked(SPECS, cache, programs, Progress())

    def refuse(self: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(target), None, str(self))

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    image_store.clone(kept, tmp_path / "node")

    assert (tmp_path / "node" / LAYER).read_text() == "layer\n"
    assert not (tmp_path / "node" / LAYER).samefile(kept / LAYER)


def test_node_outlives_its_store_and_one_that_comes_later_begins_with_nothing(
    cache: Path, programs: Mapping[str, Path], tmp_path: Path
) -> None:
    kept = image_store.unpacked(SPECS, cache, programs, Progress())
    image_store.clone(kept, tmp_path / "node")
    store(cache, SPECS[0], "sha256:2")
    image_store.unpacked(SPECS, cache, programs, Progress())

    image_store.clone(kept, tmp_path / "later")

    assert (tmp_path / "node" / LAYER).read_text() == "layer\n"
    assert not (tmp_path / "later").exists()


def test_node_that_cannot_have_its_images_says_why(cache: Path, programs: Mapping[str, Path], tmp_path: Path) -> None:
    kept = image_store.unpacked(SPECS, cache, programs, Progress())
    write_program(tmp_path / "path/cp", "#!/bin/sh\necho 'cp: No space left on device'\nexit 1\n")

    with pytest.raises(HarnessFault, match="a node cannot be given its images: cp: No space left on device"):
        image_store.clone(kept, tmp_path / "node")
