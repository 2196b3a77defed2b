"""What a build by a Docker engine is given of this machine, and that nothing of it stays."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from harness.docker_images import _copy_image, build_context, has_settings, with_settings, without_layer
from harness.images import ImageSpec

DOCKERFILE = """\
FROM debian:trixie-slim AS build
RUN one
FROM debian:trixie-slim
COPY --from=build /x /x
"""


def test_each_stage_over_the_base_begins_with_the_machine_s_settings() -> None:
    assert with_settings(DOCKERFILE) == (
        "FROM debian:trixie-slim AS build\nCOPY .podid-build-host/ /\nRUN one\n"
        "FROM debian:trixie-slim\nCOPY .podid-build-host/ /\nCOPY --from=build /x /x\n"
    )


def test_an_image_from_scratch_gets_none() -> None:
    assert with_settings("FROM scratch\nCOPY pause /pause\n") == "FROM scratch\nCOPY pause /pause\n"


@pytest.mark.parametrize(
    ("dockerfile", "expected"),
    [
        ("FROM debian:trixie-slim\nRUN true\n", True),
        ("FROM debian:trixie-slim AS build\nRUN true\nFROM scratch\nCOPY --from=build /x /x\n", False),
        ("FROM scratch\nCOPY pause /pause\n", False),
    ],
)
def test_only_a_last_stage_over_the_base_has_a_layer_of_settings(
    tmp_path: Path, dockerfile: str, expected: bool
) -> None:
    (tmp_path / "Dockerfile").write_text(dockerfile)

    assert has_settings(ImageSpec("docker.io/podid/x:1", tmp_path)) is expected


def test_the_context_has_files_with_their_modes_and_the_settings(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    (tmp_path / "run").write_text("#!/bin/sh\n")
    (tmp_path / "run").chmod(0o755)
    files = [("Dockerfile", tmp_path / "Dockerfile"), ("bin/run", tmp_path / "run")]

    context = build_context(files, {"/etc/pip.conf": b"[global]\n"})

    with tarfile.open(fileobj=io.BytesIO(context)) as archive:
        modes = {entry.name: entry.mode for entry in archive}
    assert modes["bin/run"] == 0o755
    assert modes[".podid-build-host/etc/pip.conf"] == 0o644


def image(layers: int, drop: int) -> dict[str, Any]:
    history: list[dict[str, Any]] = [{"created_by": f"layer {number}"} for number in range(layers)]
    history[drop]["created_by"] = "COPY .podid-build-host/ /"
    history.insert(1, {"created_by": "CMD", "empty_layer": True})
    return {
        "config": {"Cmd": ["x"]},
        "container_config": {"Env": ["secret"]},
        "history": history,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{number}" for number in range(layers)]},
    }


def test_the_layer_of_settings_goes_with_its_history_and_the_builder_s_notes() -> None:
    configuration = image(layers=3, drop=1)

    cleaned = without_layer(configuration, 1)

    assert cleaned["rootfs"]["diff_ids"] == ["sha256:0", "sha256:2"]
    assert [entry["created_by"] for entry in cleaned["history"]] == ["layer 0", "CMD", "layer 2"]
    assert cleaned["config"] == {"Cmd": ["x"]}
    assert "secret" not in json.dumps(cleaned)


def saved_image() -> tarfile.TarFile:
    """Return an archive as ``docker save`` writes it, its second layer with a canary."""
    configuration = image(layers=3, drop=1)
    members = {f"{number}/layer.tar": b"canary" if number == 1 else b"layer" for number in range(3)}
    entry = {"Config": "c.json", "Layers": list(members), "RepoTags": None}
    files = {"c.json": json.dumps(configuration).encode(), "manifest.json": json.dumps([entry]).encode(), **members}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return tarfile.open(fileobj=io.BytesIO(buffer.getvalue()))


def test_an_archive_has_no_byte_of_the_settings_and_shared_layers_once() -> None:
    buffer, written = io.BytesIO(), set[str]()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        first = _copy_image(saved_image(), archive, written, drop=1)
        second = _copy_image(saved_image(), archive, written, drop=1)

    assert first == second
    assert first["Layers"] == ["0/layer.tar", "2/layer.tar"]
    with tarfile.open(fileobj=io.BytesIO(buffer.getvalue())) as archive:
        assert archive.getnames() == ["0/layer.tar", "2/layer.tar", first["Config"]]
    assert b"canary" not in buffer.getvalue()
