"""The environment is built once and rebuilt when something of it is missing."""

from __future__ import annotations

import os
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


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Damage must not hit the environment that the process of other tests runs from."""
    monkeypatch.setenv("PODID_CACHE_DIR", str(tmp_path))


@pytest.mark.usefixtures("own_cache")
def test_damaged_environment_is_rebuilt() -> None:
    built = ensure()
    (damaged,) = built.directory.glob("lib/python*/site-packages/localstack/constants.py")
    size = damaged.stat().st_size
    # Replaced, not overwritten: never write through a hard link into somebody's cache.
    damaged.unlink()
    damaged.write_text("")

    assert ensure() == built
    assert damaged.stat().st_size == size


def test_process_without_its_entry_points_refuses_to_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """LocalStack would go on without the guard."""
    Bootstrap.generate(["123456789012"]).write(tmp_path / "b.json")
    monkeypatch.setenv("PODID_BOOTSTRAP_FILE", str(tmp_path / "b.json"))
    monkeypatch.setattr(serve.importlib.metadata, "entry_points", lambda **_: [])

    with pytest.raises(RuntimeError, match=r"lacks the entry points podid of localstack.hooks.on_infra_start"):
        serve.main()
