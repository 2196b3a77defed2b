"""When an image counts as built, and what a build is given of this machine. No image is built here: a lab does that."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import pytest

from harness import image_builder, images
from harness.errors import HarnessFault
from harness.images import ImageSpec, registry_configuration
from harness.progress import Progress

BLOBS = "docker/registry/v2/blobs/sha256"


@pytest.fixture
def spec(tmp_path: Path) -> ImageSpec:
    context = tmp_path / "context"
    (context / "app").mkdir(parents=True)
    (context / "Dockerfile").write_text("FROM scratch\nCOPY app /app\n")
    (context / "app/main.py").write_text("print(1)\n")
    return ImageSpec("docker.io/podid/demo:0.1.0", context)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    (tmp_path / "cache/images").mkdir(parents=True)
    return tmp_path / "cache"


def write_blob(cache: Path, content: bytes) -> str:
    value = hashlib.sha256(content).hexdigest()
    file = cache / "registry" / BLOBS / value[:2] / value / "data"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return f"sha256:{value}"


def store(cache: Path, spec: ImageSpec, *layers: bytes) -> list[str]:
    """Put an image where the registry keeps it; return the digests of manifest, configuration and layers."""
    parts = [write_blob(cache, content) for content in (b"{}", *layers)]
    descriptors = [{"digest": digest} for digest in parts]
    manifest = write_blob(cache, json.dumps({"config": descriptors[0], "layers": descriptors[1:]}).encode())
    tag = cache / "registry/docker/registry/v2/repositories" / spec.repository / "_manifests/tags" / spec.tag
    (tag / "current").mkdir(parents=True)
    (tag / "current/link").write_text(manifest)
    record = cache / "images" / f"{spec.repository.replace('/', '_')}_{spec.tag}.json"
    record.write_text(json.dumps({"key": spec.key(), "digest": manifest}))
    return [manifest, *parts]


def blob(cache: Path, digest: str) -> Path:
    value = digest.removeprefix("sha256:")
    return cache / "registry" / BLOBS / value[:2] / value / "data"


def missing(cache: Path, *specs: ImageSpec) -> tuple[list[ImageSpec], str]:
    stream = io.StringIO()
    with Progress(stream) as progress, progress.phase("images") as phase:
        lacking, damaged = images._examine(specs, cache)
        images._remove(damaged, cache, phase)
        return lacking, stream.getvalue()


def test_a_reference_is_split_as_the_mirror_sees_it() -> None:
    spec = ImageSpec("registry.k8s.io/coredns/coredns:v1.13.1", Path())

    assert (spec.repository, spec.tag) == ("coredns/coredns", "v1.13.1")


def test_an_image_that_is_stored_needs_nothing(cache: Path, spec: ImageSpec) -> None:
    store(cache, spec, b"layer")

    with Progress(io.StringIO()) as progress:
        images.ensure([spec], cache, Path("/no/registry/is/started"), progress)


def test_an_image_that_is_not_stored_is_missing(cache: Path, spec: ImageSpec) -> None:
    assert missing(cache, spec)[0] == [spec]


def test_an_image_is_missing_when_its_sources_changed(cache: Path, spec: ImageSpec) -> None:
    store(cache, spec, b"layer")
    (spec.context / "app/main.py").write_text("print(2)\n")

    assert missing(cache, spec)[0] == [spec]


def test_an_image_that_somebody_else_pushed_under_the_name_is_built_again(cache: Path, spec: ImageSpec) -> None:
    store(cache, spec, b"layer")
    tag = cache / "registry/docker/registry/v2/repositories/podid/demo/_manifests/tags/0.1.0/current/link"
    tag.write_text(write_blob(cache, b'{"config": {}, "layers": []}'))

    assert missing(cache, spec)[0] == [spec]


@pytest.mark.parametrize("part", [0, 1, 2], ids=["manifest", "configuration", "layer"])
@pytest.mark.parametrize("content", [b"", b'{"config": 1}', b"other"])
def test_a_damaged_blob_is_said_and_removed_and_its_image_built_again(
    cache: Path, spec: ImageSpec, part: int, content: bytes
) -> None:
    """The registry would keep the damaged one: it does not write a blob that it has."""
    damaged = store(cache, spec, b"layer")[part]
    blob(cache, damaged).write_bytes(content)

    found, printed = missing(cache, spec)

    assert found == [spec]
    assert f"damaged, and built again: {damaged}" in printed
    assert not blob(cache, damaged).exists()


def test_damage_of_one_image_leaves_the_others_alone(cache: Path, spec: ImageSpec) -> None:
    other = ImageSpec("docker.io/podid/other:1", spec.context)
    shared, own, others = b"base", b"own", b"others"
    damaged = store(cache, spec, shared, own)[3]
    intact = store(cache, other, shared, others)
    blob(cache, damaged).write_bytes(b"")

    assert missing(cache, spec, other)[0] == [spec]
    assert all(blob(cache, digest).exists() for digest in intact)


def test_damage_of_a_shared_layer_concerns_all_its_images(cache: Path, spec: ImageSpec) -> None:
    other = ImageSpec("docker.io/podid/other:1", spec.context)
    damaged = store(cache, spec, b"base")[2]
    store(cache, other, b"base", b"others")
    blob(cache, damaged).unlink()

    assert missing(cache, spec, other)[0] == [spec, other]


@pytest.mark.parametrize("name", ["Dockerfile", "app/main.py", "app/new.py"])
def test_the_key_follows_every_file(spec: ImageSpec, name: str) -> None:
    before = spec.key()

    (spec.context / name).write_text("changed")

    assert spec.key() != before


def test_the_key_follows_modes_names_and_added_files(spec: ImageSpec, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("1")
    keys = [spec.key(), ImageSpec("docker.io/podid/demo:0.2.0", spec.context).key()]
    with_program = ImageSpec(spec.reference, spec.context, {"program": program})
    keys.append(with_program.key())
    program.write_text("2")
    keys.append(with_program.key())
    program.chmod(0o755)
    keys.append(with_program.key())

    assert len(set(keys)) == 5


@pytest.mark.parametrize(
    ("pattern", "left_out"),
    [
        ("deploy", {"deploy/a.yaml", "deploy/sub/b.yaml"}),
        ("/deploy/", {"deploy/a.yaml", "deploy/sub/b.yaml"}),
        ("**/__pycache__", {"__pycache__/x.pyc", "app/__pycache__/y.pyc"}),
        ("*.md", {"README.md"}),
        ("**/*.md", {"README.md", "app/NOTES.md"}),
        ("app/?.py", {"app/a.py"}),
        ("deploy\n!deploy/sub", {"deploy/a.yaml"}),
        ("# deploy\n\n", set[str]()),
        ("a.yaml", set[str]()),
    ],
)
def test_dockerignore_reads_as_docker_reads_it(tmp_path: Path, pattern: str, left_out: set[str]) -> None:
    names = {
        "deploy/a.yaml",
        "deploy/sub/b.yaml",
        "__pycache__/x.pyc",
        "app/__pycache__/y.pyc",
        "README.md",
        "app/NOTES.md",
        "app/a.py",
        "app/ab.py",
    }
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / ".dockerignore").write_text(pattern)

    files = {name for name, _ in ImageSpec("docker.io/x:1", tmp_path).files()} - {".dockerignore"}

    assert names - files == left_out


def test_the_lab_s_registry_takes_no_pushes_and_has_no_debug_port(tmp_path: Path) -> None:
    configuration = json.loads(registry_configuration(tmp_path, "10.0.0.2:5000", read_only=True))

    assert configuration["storage"]["filesystem"]["rootdirectory"] == str(tmp_path / "registry")
    assert configuration["storage"]["maintenance"]["readonly"] == {"enabled": True}
    assert configuration["http"] == {"addr": "10.0.0.2:5000"}
    assert configuration["log"]["level"] == "warn"


def test_the_registry_that_takes_pushes_says_where_it_listens(cache: Path) -> None:
    """The port is the kernel's choice: asking for a free one first would be a race."""
    program = cache / "registry-program"
    program.write_text("#!/bin/sh\necho 'level=info msg=\"listening on 127.0.0.1:43210\"' >&2\nexec sleep 60\n")
    program.chmod(0o755)

    with images.running_registry(program, cache) as address:
        assert address == "127.0.0.1:43210"


def test_a_registry_that_ends_at_once_is_an_error_that_names_its_log(cache: Path) -> None:
    program = cache / "registry-program"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)

    with pytest.raises(HarnessFault, match=r"it ended; see .*/logs/push-registry\.log"):
        with images.running_registry(program, cache):
            pytest.fail("it did not listen")


def test_a_build_asks_for_packages_where_this_machine_does(tmp_path: Path) -> None:
    """Files first, the environment over them; nothing but what says where packages are."""
    (tmp_path / ".config/pip").mkdir(parents=True)
    (tmp_path / ".config/pip/pip.conf").write_text(
        "[global]\nindex-url = https://file.test/simple\ntimeout = 7\nfind-links = /home/me\n[install]\nuser = true\n"
    )
    environment = {
        "HOME": str(tmp_path),
        "PIP_CONFIG_FILE": "/nonexistent",
        "PIP_INDEX_URL": "https://environment.test/simple",
        "PIP_FIND_LINKS": "/opt/wheels",
        "PIP_TARGET": "/somewhere",
        "AWS_SECRET_ACCESS_KEY": "canary",
    }

    assert image_builder.pip_configuration(environment, has_ca=True, system=tmp_path / "none") == (
        "[global]\nindex-url = https://environment.test/simple\ntimeout = 7\ncert = /etc/ssl/build-host.crt\n"
    )


def test_certificates_are_the_machine_s_choice_before_the_distribution_s(tmp_path: Path) -> None:
    own = tmp_path / "own.crt"
    own.write_text("certificates")

    assert image_builder.ca_bundle({"SSL_CERT_FILE": str(own)}) == own
    assert image_builder.ca_bundle({"SSL_CERT_FILE": str(tmp_path / "gone"), "PIP_CERT": str(own)}) == own
