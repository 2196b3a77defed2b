"""The environment is built once and rebuilt when something of it is missing."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from harness.cloud.localstack import environment, serve
from harness.cloud.localstack.bootstrap import Bootstrap
from harness.lab.paths import cache_directory
from harness.progress import Progress


def ensure() -> environment.Environment:
    with Path(os.devnull).open("w") as quiet, Progress(quiet) as progress:
        return environment.ensure(cache_directory(), progress)


def test_environment_is_reused(localstack_environment: environment.Environment) -> None:
    before = (localstack_environment.directory / "pyvenv.cfg").stat().st_ino

    assert ensure() == localstack_environment
    assert (localstack_environment.directory / "pyvenv.cfg").stat().st_ino == before


def test_damaged_environment_is_rebuilt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is installed does not matter to that, so one file stands for the packages."""
    builds: list[Path] = []

    def install(draft: Path, *_: object) -> None:
        builds.append(draft)
        (draft / "bin").mkdir(parents=True)
        (draft / "bin" / "python").symlink_to(sys.executable)
        (draft / "package.py").write_text("VERSION = 1\n")

    monkeypatch.setenv("PODID_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(environment, "_install", install)
    monkeypatch.setattr(environment, "_failure_of", lambda _: "")
    file = ensure().directory / "package.py"

    file.write_text("")
    rebuilt = ensure()

    assert file == rebuilt.directory / "package.py"
    assert file.read_text() == "VERSION = 1\n"
    assert len(builds) == 2
    assert ensure() == rebuilt
    assert len(builds) == 2


def test_process_without_its_entry_points_refuses_to_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """LocalStack would go on without the guard."""
    Bootstrap.generate(["123456789012"]).write(tmp_path / "b.json")
    monkeypatch.setenv("PODID_BOOTSTRAP_FILE", str(tmp_path / "b.json"))
    monkeypatch.setattr(serve.importlib.metadata, "entry_points", lambda **_: [])

    with pytest.raises(RuntimeError, match=r"lacks the entry points podid of localstack.hooks.on_infra_start"):
        serve.main()
