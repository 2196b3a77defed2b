"""What decisions cost, in units that are the same on every machine; and what the benchmark says about it."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.conformance.marks import requirement
from harness.conformance.recording import check

BENCH: dict[str, Any] = runpy.run_path(str(Path(__file__).parents[2] / "tests" / "bench" / "bench_iam.py"))
LOOPS_OF_50_000 = 0.224
"""50,000 decisions a second in calibration loops, on a machine that manages 223,000 of those a second."""


def calls_of(work: Callable[[], object]) -> int:
    """Return how many Python functions a piece of work calls."""
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls


@requirement("IAM-PERF-02")
def test_two_hundred_statements_cost_at_most_twice_what_ten_do() -> None:
    """By the functions that are called for the same questions: a count, which no busy machine changes."""
    few, many = BENCH["requests"](10), BENCH["requests"](200)
    counts = [calls_of(lambda asked=asked: BENCH["decide"](asked)) for asked in (few, many)]

    check("IAM-PERF-02", what="work", expected="at most 2", observed=counts, holds=counts[1] <= 2 * counts[0])


@requirement("IAM-PERF-02")
def test_three_policies_keep_their_rate() -> None:
    """As decisions a calibration loop, both measured by turns in processor time, the best of each."""
    asked, calls = BENCH["requests"](10), BENCH["CALLS"]
    rate, calibrate = BENCH["rate"], BENCH["calibrate"]
    best = [0.0, 0.0]
    for _ in range(5):
        best = [max(best[0], rate(lambda: BENCH["decide"](asked), calls)), max(best[1], rate(calibrate))]

    loops = best[0] / best[1]
    wanted = f"at least {LOOPS_OF_50_000}"
    check("IAM-PERF-02", what="decisions a loop", expected=wanted, observed=loops, holds=loops >= LOOPS_OF_50_000)


@requirement("IAM-PERF-07")
def test_the_benchmark_tells_rates_and_their_ratio_to_a_loop_of_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """However slow it is: nothing in it fails by time."""
    main = BENCH["main"]
    main.__globals__.update(ROUNDS=1, SECONDS=0.001)

    main()

    rows = re.findall(r"^(.+?) +([0-9,]+) +([0-9.]+)$", capsys.readouterr().out, re.MULTILINE)
    rates = {name.strip(): (float(rate.replace(",", "")), float(ratio)) for name, rate, ratio in rows}
    loop = rates.pop("calibration loop (100 look-ups)")
    told = [abs(ratio - rate / loop[0]) < 0.01 for rate, ratio in rates.values()]
    check("IAM-PERF-07", what="the loop", expected=1.0, observed=loop[1])
    check("IAM-PERF-07", what="rows with a ratio", expected=[True] * 5, observed=told)
    assert "three policies, 200 statements" in rates
