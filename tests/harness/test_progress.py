"""What people see while they wait."""

from __future__ import annotations

import io
import threading

import pytest

from harness import progress as module
from harness.progress import Progress, is_plain


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_phase_says_which_step_of_how_many_it_is_at() -> None:
    stream = io.StringIO()

    with Progress(stream) as progress, progress.phase("binaries", total=2) as phase:
        phase.step("etcd")
        phase.step("runc")

    assert [" ".join(line.split()[2:]) for line in stream.getvalue().splitlines()] == [
        "binaries started",
        "binaries [1/2] etcd",
        "binaries [2/2] runc",
        "binaries done",
    ]


def test_a_phase_that_raises_is_failed_and_the_error_goes_on() -> None:
    stream = io.StringIO()

    with pytest.raises(ValueError, match="broken"), Progress(stream) as progress, progress.phase("images"):
        raise ValueError("broken")

    assert stream.getvalue().splitlines()[-1].split()[2:] == ["images", "failed"]


def test_plain_lines_have_no_control_characters() -> None:
    stream = io.StringIO()

    with Progress(stream) as progress, progress.phase("aws") as phase:
        phase.note("\x1b[31mred\x1b[0m\rand\tmore")

    assert "red" in stream.getvalue()
    assert all(line.isprintable() for line in stream.getvalue().split("\n"))


def test_a_terminal_keeps_what_ended_and_what_was_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CI", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()

    with Progress(stream) as progress, progress.phase("images", total=3) as phase:
        phase.step("building one")
        phase.note("something to know")

    assert "\x1b[" in stream.getvalue()
    assert "something to know" in stream.getvalue()
    assert "images       done" in stream.getvalue()


@pytest.mark.parametrize(
    ("environment", "plain"),
    [
        ({"TERM": "xterm"}, False),
        ({"TERM": "xterm", "CI": "true"}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, True),
        ({"TERM": "dumb"}, True),
    ],
)
def test_ci_and_dumb_terminals_get_plain_lines(environment: dict[str, str], plain: bool) -> None:
    assert is_plain(environment) is plain


def test_a_long_step_is_repeated_so_that_nobody_thinks_it_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SILENCE_SECONDS", 0)
    monkeypatch.setattr(module, "_TICK_SECONDS", 0.01)
    repeated = threading.Event()

    class Watched(io.StringIO):
        def write(self, text: str) -> int:
            written = super().write(text)
            if self.getvalue().count("[1/8] building kubernetes") >= 3:
                repeated.set()
            return written

    with Progress(Watched()) as progress, progress.phase("binaries", total=8) as phase:
        phase.step("building kubernetes")
        assert repeated.wait(10)


def test_phases_of_several_threads_do_not_mix_their_lines() -> None:
    stream = io.StringIO()
    together = threading.Barrier(4)

    def work(name: str) -> None:
        with progress.phase(name, total=50) as phase:
            together.wait()
            for number in range(50):
                phase.step(f"step {number}")

    with Progress(stream) as progress:
        threads = [threading.Thread(target=work, args=(f"phase-{number}",)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    printed = [line.split() for line in stream.getvalue().splitlines()]
    assert len(printed) == 4 * 52
    assert all(words[1] == "s" and words[2].startswith("phase-") for words in printed)


def test_the_end_names_the_slowest_phases() -> None:
    stream = io.StringIO()

    with Progress(stream) as progress:
        for name, seconds in (("quick", 0.2), ("slow", 240.0), ("middle", 30.0)):
            with progress.phase(name) as phase:
                phase.started -= seconds

    assert stream.getvalue().splitlines()[-1] == "slowest: slow 240 s, middle 30 s"
