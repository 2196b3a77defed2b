"""What is pulled is pinned, and the lock says all."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import HarnessFault
from harness.image_lock import built, pulled, read_lock
from harness.lab.given import lab_images
from harness.lab.kind import _aws_image
from harness.lab.native import _image_specs

_ENTRY = "{name: x, origin: %s, reference: %s, providers: [kind], purpose: p, licence: l}"


def write(path: Path, entry: str, schema: str = "podid-images/1") -> Path:
    path.write_text(f"schema: {schema}\nimages:\n- {entry}\n")
    return path


def test_every_image_that_a_lab_builds_is_in_the_lock() -> None:
    programs = {name: Path(name) for name in ("pause", "coredns", "aws-load-balancer-controller")}

    at_start = [*_image_specs(programs, lab_images({}).values()), _aws_image()]
    later = ["old-sdk", "aws-load-balancer-controller", "nginx", "load-balancer", "external-secrets"]
    later += ["kube-network-policies", "previous-agent", "previous-webhook"]
    specs = {spec.reference for spec in [*at_start, *map(built, later)]}

    assert specs == {image.reference for image in read_lock().values() if image.origin == "build"}


def test_what_is_built_has_a_dockerfile_over_nothing_or_over_the_locked_base() -> None:
    for image in read_lock().values():
        if image.origin == "build":
            lines = (built(image.name).context / "Dockerfile").read_text().splitlines()
            bases = {line.split()[1] for line in lines if line.startswith("FROM ")}
            assert bases <= {"scratch", pulled("base").tagged}


@pytest.mark.parametrize(
    "reference", ["debian", "debian:trixie", "debian:latest@sha256:12", "debian@sha256:" + "0" * 64]
)
def test_what_is_pulled_has_a_tag_and_a_digest(tmp_path: Path, reference: str) -> None:
    with pytest.raises(HarnessFault, match="needs a tag and a digest"):
        read_lock(write(tmp_path / "images.lock", _ENTRY % ("pull", reference)))


@pytest.mark.parametrize(
    ("entry", "schema", "said"),
    [
        (_ENTRY % ("build", "x:1"), "podid-images/1", "needs the directory of its Dockerfile"),
        (_ENTRY % ("build", "x:1"), "podid-images/2", "schema 'podid-images/2'"),
        ("{name: x}", "podid-images/1", "cannot be read"),
        ("{", "podid-images/1", "cannot be read"),
    ],
)
def test_a_lock_that_is_not_as_it_must_be_says_why(tmp_path: Path, entry: str, schema: str, said: str) -> None:
    with pytest.raises(HarnessFault, match=said):
        read_lock(write(tmp_path / "images.lock", entry, schema))
