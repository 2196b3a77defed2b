"""The cache of built programs. Go is a script here, but for the last test, which builds one program for real."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness import binaries, limits, wait
from harness.binaries import Group
from harness.errors import HarnessFault, MissingPrerequisite, PodidError
from harness.progress import Progress

TOOLS = Path(__file__).parents[2] / "tools"
EVERY_KUBERNETES = [group for minor in binaries.KUBERNETES for group in binaries.groups_of(minor)]
TINY = Group("tiny", "1.2", {"one": "example.test/cmd/one", "two": "example.test/cmd/two"})
# Writes a file per package into the directory after -o, and one line per call.
BUILDS = """
for word in "$@"; do
  case "$previous" in -o) output="$word";; esac; previous="$word"
  case "$word" in example.test/*) echo "program ${word##*/}" > "$output${word##*/}";; esac
done
echo call >> "$CALLS"
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; the sources of the group ``tiny`` lie beside it."""
    sources = tmp_path / "tools" / "tiny"
    sources.mkdir(parents=True)
    (sources / "go.mod").write_text("module example.test\n")
    (sources / "go.sum").write_text("")
    monkeypatch.setattr(binaries, "TOOLS", tmp_path / "tools")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setattr(binaries, "find_go", lambda *_: tmp_path / "go")
    write_go(tmp_path, BUILDS)
    return tmp_path / "cache"


def write_go(directory: Path, on_build: str) -> None:
    script = directory / "go"
    script.write_text(f'#!/bin/sh\n[ "$1" = version ] && echo "go version go1.26.6 linux/amd64" && exit\n{on_build}\n')
    script.chmod(0o755)


def ensure(cache: Path, group: Group = TINY) -> tuple[dict[str, Path], str]:
    stream = io.StringIO()
    with Progress(stream) as progress:
        return binaries.ensure(cache, progress, [group]), stream.getvalue()


def builds(cache: Path) -> int:
    return (cache.parent / "calls").read_text().count("call")


def failure(cache: Path) -> PodidError:
    with pytest.raises(PodidError) as error:
        ensure(cache)
    return error.value


def test_programs_are_built_once(cache: Path) -> None:
    programs, printed = ensure(cache)
    again, silence = ensure(cache)

    assert programs == again
    assert programs["two"].read_text() == "program two\n"
    assert "[1/1] building tiny 1.2" in printed
    assert "building" not in silence
    assert builds(cache) == 1


def test_a_package_with_several_names_is_built_once(cache: Path) -> None:
    both = Group("tiny", "1.2", {"one": "example.test/cmd/all", "two": "example.test/cmd/all"})

    programs, _ = ensure(cache, both)

    assert {path.read_text() for path in programs.values()} == {"program all\n"}
    assert ensure(cache, both)[0] == programs
    assert builds(cache) == 1


def test_no_go_is_needed_where_everything_is_built(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs, _ = ensure(cache)
    monkeypatch.setattr(binaries, "find_go", lambda *_: pytest.fail("asked for Go"))

    assert ensure(cache)[0] == programs


@pytest.mark.parametrize(
    "change",
    [
        lambda cache: (cache.parent / "tools/tiny/go.mod").write_text("module example.test\n\ngo 1.25\n"),
        lambda cache: (cache.parent / "tools/tiny/go.sum").write_text("example.test/x v1.0.0 h1:x\n"),
    ],
    ids=["go.mod", "go.sum"],
)
def test_programs_are_built_again_when_their_pins_change(cache: Path, change: Callable[[Path], int]) -> None:
    before, _ = ensure(cache)
    change(cache)

    after, _ = ensure(cache)

    assert before["one"] != after["one"]
    assert before["one"].exists(), "a running lab may still use it"


@pytest.mark.parametrize(
    "group", [Group("tiny", "1.2", TINY.programs, tags="seccomp"), Group("tiny", "1.3", TINY.programs)]
)
def test_tags_and_versions_have_entries_of_their_own(cache: Path, group: Group) -> None:
    assert ensure(cache)[0]["one"] != ensure(cache, group)[0]["one"]


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.write_text("program onE\n"),
        lambda path: path.unlink(),
        lambda path: (path.parent / "manifest.json").write_text("{"),
        lambda path: (path.parent / "manifest.json").write_text("[]"),
        lambda path: (path.parent / "manifest.json").unlink(),
    ],
    ids=["other bytes", "missing", "half a manifest", "no manifest of ours", "no manifest"],
)
def test_a_damaged_entry_is_noticed_said_and_built_again(cache: Path, harm: Callable[[Path], None]) -> None:
    path = ensure(cache)[0]["one"]
    harm(path)

    _, printed = ensure(cache)

    assert "the cached tiny 1.2 is damaged; building it again" in printed
    assert path.read_text() == "program one\n"
    assert builds(cache) == 2


def test_what_a_killed_build_left_is_removed(cache: Path) -> None:
    leftover = cache / "binaries/.tiny-abc"
    leftover.mkdir(parents=True)

    ensure(cache)

    assert not leftover.exists()


def test_a_failing_build_says_why_and_leaves_no_entry(cache: Path) -> None:
    write_go(cache.parent, "echo 'go: downloading example.test v1'; echo 'one.go:3: undefined: x'; exit 1")

    error = failure(cache)

    assert isinstance(error, HarnessFault)
    assert error.message == (
        f"building tiny 1.2 failed; {cache}/logs/build-tiny.log ends with:\n  one.go:3: undefined: x"
    )
    assert [entry.name for entry in (cache / "binaries").iterdir()] == [".tiny.lock"]


@pytest.mark.parametrize(
    "text",
    [
        'example.test@v1: Get "https://proxy.test/x.zip": dial tcp: lookup proxy.test: no such host',
        "example.test@v1: module lookup disabled by GOPROXY=off",
        "example.test@v1: reading https://proxy.test/x.zip: 403 Forbidden",
        'Get "https://proxy.test/x.zip": tls: failed to verify certificate: x509: unknown authority',
    ],
)
def test_a_missing_network_is_told_from_a_broken_build(cache: Path, text: str) -> None:
    write_go(cache.parent, f"echo '{text}'; echo '{text}'; exit 1")

    error = failure(cache)

    assert isinstance(error, MissingPrerequisite)
    assert error.message.count(text) == 1
    assert "check the network and Go's proxy" in error.hint


def test_a_full_disk_is_told_from_a_broken_build(cache: Path) -> None:
    write_go(cache.parent, "echo 'link: write /x: no space left on device'; exit 1")

    error = failure(cache)

    assert isinstance(error, MissingPrerequisite)
    assert "PODID_CACHE_DIR" in error.hint


def test_a_module_that_is_not_what_go_sum_pins_is_no_network_problem(cache: Path) -> None:
    write_go(cache.parent, "echo 'verifying example.test@v1: checksum mismatch'; exit 1")

    error = failure(cache)

    assert isinstance(error, HarnessFault)
    assert "go clean -modcache" in error.hint


def test_of_two_commands_one_builds_and_the_other_waits(cache: Path) -> None:
    """Flock is per open file, so two threads exclude each other as two processes do."""
    pipe = cache.parent / "pipe"
    os.mkfifo(pipe)
    write_go(cache.parent, f'read line < "{pipe}"\n{BUILDS}')
    results: list[tuple[dict[str, Path], str]] = []
    threads = [threading.Thread(target=lambda: results.append(ensure(cache)), daemon=True) for _ in range(2)]

    for thread in threads:
        thread.start()
    # Opening the pipe waits for the build that reads it.
    with pipe.open("w") as file:
        file.write("go\n")
    for thread in threads:
        thread.join(20)

    assert results[0][0] == results[1][0]
    assert builds(cache) == 1


def test_the_first_error_ends_the_other_build(cache: Path) -> None:
    """Two groups at once: the one fails when the other has begun, which would take a minute."""
    shutil.copytree(cache.parent / "tools/tiny", cache.parent / "tools/slow")
    write_go(
        cache.parent,
        f"""case "$PWD" in */slow) echo $$ > "{cache.parent}/pid"; exec sleep 60;; esac
        until [ -s "{cache.parent}/pid" ]; do :; done; echo broken; exit 1""",
    )
    slow = Group("slow", "1", {"one": "example.test/cmd/one"})

    with Progress(io.StringIO()) as progress, pytest.raises(HarnessFault, match="building tiny"):
        binaries.ensure(cache, progress, [slow, TINY])

    assert not is_running(read_pid(cache.parent / "pid"))
    assert sorted(entry.name for entry in (cache / "binaries").iterdir()) == [".slow.lock", ".tiny.lock"]


def test_a_build_ends_with_the_podid_that_started_it(cache: Path) -> None:
    """However podid ends: a kill -9 would leave minutes of building behind."""
    write_go(cache.parent, f'echo $$ > "{cache.parent}/pid"; exec sleep 60')
    program = (
        "import sys; from pathlib import Path; from harness import binaries; from harness.progress import Progress\n"
        "directory = Path(sys.argv[1])\n"
        "binaries.TOOLS = directory / 'tools'\n"
        "binaries.find_go = lambda *_: directory / 'go'\n"
        "group = binaries.Group('tiny', '1', {'one': 'example.test/cmd/one'})\n"
        "with Progress() as progress: binaries.ensure(directory / 'cache', progress, [group])\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, cache.parent], cwd=TOOLS.parent, stderr=subprocess.DEVNULL
    ) as podid:
        build = wait.until(lambda: read_pid(cache.parent / "pid"), what="the build", timeout=limits.PROCESS_START)
        podid.kill()

    wait.until(lambda: not is_running(build), what="the build to end", timeout=limits.PROCESS_END)


def read_pid(file: Path) -> int:
    return int(file.read_text().strip() or 0) if file.exists() else 0


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("group", "pin"),
    [
        ("cni", "github.com/containernetworking/plugins v1.9.1"),
        ("containerd", "github.com/containerd/containerd/v2 v2.1.5"),
        ("coredns", "github.com/coredns/coredns v1.13.1"),
        ("etcd", "go.etcd.io/etcd/server/v3 v3.6.6"),
        ("helm", "helm.sh/helm/v3 v3.19.0"),
        ("external-secrets", "github.com/external-secrets/external-secrets v0.20.4"),
        ("kube-network-policies", "sigs.k8s.io/kube-network-policies v0.7.0"),
        ("kubectl", "k8s.io/kubectl v0.34.4"),
        ("kubernetes", "k8s.io/kubernetes v1.34.4"),
        ("kubernetes-1.35", "k8s.io/kubernetes v1.35.4"),
        ("aws-sdk-go", "github.com/aws/aws-sdk-go-v2 v1.48.0"),
        ("old-aws-sdk-go", "github.com/aws/aws-sdk-go v1.47.10"),
        ("registry", "github.com/distribution/distribution/v3 v3.0.0"),
        ("runc", "github.com/opencontainers/runc v1.4.3"),
    ],
)
def test_the_modules_pin_the_versions_that_the_groups_name(group: str, pin: str) -> None:
    sources = (TOOLS / group / "go.mod").read_text()
    versions = {
        each.name: each.version
        for each in (
            *EVERY_KUBERNETES,
            binaries.AWS_SDK_GO,
            binaries.EXTERNAL_SECRETS,
            binaries.HELM,
            binaries.KUBECTL,
            binaries.NETWORK_POLICIES,
            binaries.OLD_AWS_SDK_GO,
        )
    }

    assert re.search(rf"^(?:require|\t) ?{re.escape(pin)}(?: //.*)?$", sources, re.MULTILINE)
    # Libraries of Kubernetes are v0 where it is v1.
    assert pin.endswith(versions[group].removeprefix("v1" if group == "kubectl" else "v"))
    assert (TOOLS / group / "go.sum").stat().st_size > 0


def test_every_directory_of_tools_is_a_group() -> None:
    others = (
        binaries.ACTIONLINT,
        binaries.AWS_SDK_GO,
        binaries.EXTERNAL_SECRETS,
        binaries.HELM,
        binaries.KIND,
        binaries.KUBECTL,
        binaries.LOAD_BALANCER_CONTROLLER,
        binaries.NETWORK_POLICIES,
        binaries.OLD_AWS_SDK_GO,
    )
    assert {group.name for group in (*EVERY_KUBERNETES, *others)} == {
        path.name for path in TOOLS.iterdir() if path.is_dir()
    }


def test_the_load_balancer_controller_is_the_commit_of_its_release() -> None:
    """LBC-BUILD-PIN: its tags do not resolve as versions of its module, so the pin is a commit, with its checksum."""
    module = "github.com/kubernetes-sigs/aws-load-balancer-controller v0.0.0-20260423195125-93ff3b5fdaad"
    sources = TOOLS / "aws-load-balancer-controller"

    assert f"replace sigs.k8s.io/aws-load-balancer-controller => {module}\n" in (sources / "go.mod").read_text()
    assert f"{module} h1:" in (sources / "go.sum").read_text()


def test_files_of_a_module_are_kept_beside_its_programs(cache: Path) -> None:
    """A file as it is, a directory packed under its own name; what was changed in the cache is made again."""
    module = cache.parent / "module"
    (module / "chart" / "templates").mkdir(parents=True)
    (module / "chart" / "templates" / "one.yaml").write_text("kind: One\n")
    (module / "policy.json").write_text("{}")
    write_go(cache.parent, f'[ "$1" = list ] && echo "{module}" && exit\n{BUILDS}')
    files = {"chart.tgz": "example.test:chart", "policy.json": "example.test:policy.json"}
    group = replace(TINY, files=files)

    found = ensure(cache, group)[0]
    with tarfile.open(found["chart.tgz"]) as archive:
        names = archive.getnames()
    found["policy.json"].write_text("changed")
    again = ensure(cache, group)[0]

    assert names == ["chart/templates/one.yaml"]
    assert again["policy.json"].read_text() == "{}"
    assert builds(cache) == 2


@pytest.mark.skipif(not shutil.which("go"), reason="prerequisite: needs Go 1.26.2 on PATH; a lab downloads its own")
def test_pause_is_built_and_ends_when_told_to(tmp_path: Path) -> None:
    (pause,) = (group for group in binaries.GROUPS if group.name == "pause")
    program = ensure(tmp_path, pause)[0]["pause"]

    with subprocess.Popen([program]) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) in {0, -signal.SIGTERM}
