"""Labs side by side: which worker has which, how many there are, and how what a killed run left is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import doctor
from harness.lab import Lab
from harness.lab.side_by_side import beside, left_over, of_worker, usual, workers


@pytest.fixture(autouse=True)
def state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Labs of nobody else."""
    monkeypatch.setenv("PODID_STATE_DIR", str(tmp_path))
    return tmp_path / "labs"


@pytest.fixture
def native(state: Path) -> Lab:
    """A lab on native."""
    (state / "podid").mkdir(parents=True)
    (state / "podid" / "lab.json").write_text('{"provider": "native"}')
    return Lab("podid")


def test_first_worker_has_the_lab_that_was_named() -> None:
    assert [of_worker("podid", worker) for worker in ("", "gw0", "gw1")] == ["podid", "podid", "podid-gw1"]


def test_labs_beside_are_found_and_nobody_else_s(state: Path) -> None:
    for name in ("podid", "podid-gw1", "podid-gw12", "podid-gwen", "podid-gw1-b", "other-gw1"):
        (state / name).mkdir(parents=True)
    (state / "podid-gw3.lock").touch()
    assert [lab.name for lab in beside("podid")] == ["podid-gw1", "podid-gw12"]


def test_lab_that_a_run_uses_or_somebody_keeps_is_not_left_over(state: Path) -> None:
    """A run removes what killed ones left (HRN-CLN-08), and neither what another is at work in nor a person's own."""
    for name in ("podid", "podid-gw1", "podid-gw2"):
        (state / name).mkdir(parents=True)

    with Lab("podid-gw1").used(), Lab("podid-gw1").used():
        while_used = [lab.name for lab in left_over("podid")]
    Lab("podid").keep()

    (told,) = [check for check in doctor.run_checks("native") if check.name == "leftovers"]

    assert while_used == ["podid-gw2", "podid"]
    assert [lab.name for lab in left_over("podid")] == ["podid-gw1", "podid-gw2"]
    assert told.status == "warn"
    assert "labs of runs that were killed: podid-gw1, podid-gw2" in told.found


def test_wish_to_keep_a_lab_goes_with_it(native: Lab) -> None:
    native.keep()
    native.down()
    native.paths.directory.mkdir()
    assert native.is_left_over


def test_files_are_shared_out_among_workers(native: Lab) -> None:
    assert workers(native, 2) == ["--numprocesses=2", "--dist=loadfile", "--provider=native"]
    assert workers(native, 1) == []


@pytest.mark.parametrize(
    ("files", "processors", "gib", "watchers", "count"),
    [
        (4, 2, 12, 512, 4),
        (4, 2, 64, 1024, 4),
        (4, 2, 64, 128, 3),
        (4, 2, 11, 512, 3),
        (4, 2, 6, 128, 2),
        (3, 2, 12, 512, 1),
        (4, 1, 12, 512, 1),
        (4, 2, 1, 512, 1),
        (4, 2, 12, 16, 1),
    ],
)
def test_long_run_has_up_to_four_labs_as_there_is_room(
    native: Lab, monkeypatch: pytest.MonkeyPatch, *, files: int, processors: int, gib: int, watchers: int, count: int
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: processors)
    monkeypatch.setattr("harness.lab.side_by_side.available_memory", lambda: gib << 30)
    monkeypatch.setattr("harness.lab.side_by_side.inotify_limits", lambda: {"instances": watchers})
    assert usual(native, files) == count


def test_lab_elsewhere_is_alone(state: Path) -> None:
    (state / "podid").mkdir(parents=True)
    (state / "podid" / "lab.json").write_text('{"provider": "kind"}')
    assert usual(Lab("podid"), 99) == 1


def test_lab_that_did_not_come_up_has_nothing_beside_it() -> None:
    assert workers(Lab("absent"), 2) == []
