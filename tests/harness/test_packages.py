"""System packages: what is missing, and who installs it. apt-get is a script that writes down how it was called."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from harness import packages
from harness.errors import MissingPrerequisite
from harness.packages import Need
from harness.progress import Progress


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Debian on which we are root, and one header file is missing."""
    need = Need(str(tmp_path / "seccomp.h"), "building runc", "libseccomp-dev", "libseccomp-devel", "libseccomp")
    monkeypatch.setattr(packages, "NEEDS", [need])
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def write_apt(machine: Path, on_install: str) -> None:
    script = machine / "apt-get"
    script.write_text(
        "#!/bin/sh\n"
        f'cd "{machine}"\n'
        'echo "$DEBIAN_FRONTEND $*" >> calls\n'
        'case "$*" in *update*) touch updated;;\n'
        f"*install*) {on_install};; esac\n"
    )
    script.chmod(0o755)


def calls(machine: Path) -> list[str]:
    file = machine / "calls"
    return [line.partition("=120 ")[2] for line in file.read_text().splitlines()] if file.exists() else []


def install() -> str:
    stream = io.StringIO()
    with Progress(stream) as progress:
        packages.install(progress)
    return stream.getvalue()


def test_nothing_is_called_where_nothing_is_missing(machine: Path) -> None:
    write_apt(machine, "false")
    (machine / "seccomp.h").touch()

    assert install() == ""
    assert calls(machine) == []


def test_what_is_missing_is_named_with_its_reason_and_installed(machine: Path) -> None:
    write_apt(machine, "touch seccomp.h")

    printed = install()

    assert f"missing: {machine}/seccomp.h (building runc)" in printed
    assert calls(machine) == ["install --yes --no-install-recommends libseccomp-dev"]
    assert (machine / "calls").read_text().startswith("noninteractive ")


def test_package_lists_are_updated_only_when_installing_fails_without(machine: Path) -> None:
    write_apt(machine, "test -e updated && touch seccomp.h")

    install()

    assert [call.split()[0] for call in calls(machine)] == ["install", "update", "install"]


def test_a_failing_apt_is_quoted(machine: Path) -> None:
    write_apt(machine, "echo 'E: Unable to locate package libseccomp-dev'; exit 100")

    with pytest.raises(MissingPrerequisite) as error:
        install()

    assert "E: Unable to locate package libseccomp-dev" in error.value.message
    assert error.value.hint.endswith("apt-get update && apt-get install libseccomp-dev")


def test_a_package_that_does_not_bring_what_it_should_is_an_error(machine: Path) -> None:
    write_apt(machine, "true")

    with pytest.raises(MissingPrerequisite, match=r"still missing: .*seccomp\.h"):
        install()


def test_who_is_not_root_is_told_what_to_install_on_each_distribution(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_apt(machine, "true")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with pytest.raises(MissingPrerequisite) as error:
        install()

    assert error.value.hint == (
        "Debian, Ubuntu: apt-get install --no-install-recommends libseccomp-dev; "
        "Fedora: dnf install libseccomp-devel; Arch: pacman -S libseccomp"
    )
    assert calls(machine) == []


def test_arch_s_user_packages_are_not_in_pacman_s_command() -> None:
    needs = {need.path: need for need in packages.NEEDS if need.path in {"buildah", "mmdebstrap"}}

    hint = packages.install_hint(needs)

    assert hint.endswith("Arch: pacman -S buildah; Arch, from the AUR: mmdebstrap")
