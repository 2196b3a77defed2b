"""What is counted of traffic under a change, on attempts that are written out here."""

from __future__ import annotations

from harness.traffic import Attempt, Step, Traffic, around, parse_attempts

STEP = Step("rolled", baseline_at=100.0, change_at=110.0, settled_at=115.0, ended_at=125.0)
REFUSED = "MetadataRetrievalError: Error when retrieving credentials from container-role: Connection refused"


def read(kind: str, began: float, error: str = "", *, seconds: float = 0.1, node: str = "one") -> Attempt:
    return Attempt(node, kind, began, began + seconds, error)


def test_what_clients_print_is_read_and_other_lines_are_passed_over() -> None:
    lines = ["Traceback", '{"began": 1.5, "ended": 2.0, "error": ""}']

    assert parse_attempts("one", "cold", lines) == [Attempt("one", "cold", 1.5, 2.0, "")]


def test_an_attempt_belongs_to_the_phase_in_which_it_began() -> None:
    moments = (99.9, 100.0, 110.0, 115.0, 124.9, 125.0)

    phases = [STEP.phase(read("cold", at)) for at in moments]

    assert phases == [None, "baseline", "change", "settled", "settled", None]


def test_what_is_on_its_way_when_the_change_begins_belongs_to_the_change() -> None:
    assert STEP.phase(read("cold", 109.5, seconds=1.0)) == "change"


def test_failures_are_counted_by_kind_and_phase() -> None:
    traffic = Traffic([read("cached", 101), read("cold", 102, "x"), read("cold", 111, "y"), read("cold", 112)])

    counts = traffic.counts(STEP)

    assert counts["cached"]["baseline"] == {"attempts": 1, "failed": 0}
    assert counts["cold"]["baseline"] == {"attempts": 1, "failed": 1}
    assert counts["cold"]["change"] == {"attempts": 2, "failed": 1}
    assert counts["cold"]["settled"] == {"attempts": 0, "failed": 0}
    assert [attempt.error for attempt in traffic.failed(STEP, "cold", "change")] == ["y"]


def test_the_longest_gap_is_between_two_good_reads_of_one_client() -> None:
    reads = [read("cold", 100 + number) for number in range(25)]
    bad = [read("cold", 112, "refused"), read("cold", 113, "refused")]
    other_node = [read("cold", 100 + number, node="two") for number in range(25)]

    kept = [one for one in reads if one.began not in {112, 113}]

    assert Traffic([*kept, *bad, *other_node]).longest_gap_ms(STEP, "cold") == 3000


def test_a_client_that_never_reads_again_has_its_gap_to_the_end() -> None:
    assert Traffic([read("cold", 104.9)]).longest_gap_ms(STEP, "cold") == 20000


def test_only_refused_credentials_in_the_silence_of_their_node_are_explained() -> None:
    silence = read("port", 111, "refused", seconds=2)
    inside, sooner = read("cold", 110.5, REFUSED, seconds=1), read("cold", 105, REFUSED, seconds=2)
    elsewhere = read("cold", 111.5, REFUSED, node="two")
    other = read("cold", 111.6, "ClientError: An error occurred (AccessDenied)")

    traffic = Traffic([silence, inside, sooner, elsewhere, other])

    assert traffic.silent_ms(STEP) == 2000
    assert traffic.outside_the_gap(STEP) == [sooner, elsewhere, other]


def test_a_slow_machine_is_told_by_what_other_nodes_read_meanwhile() -> None:
    """Four times at most. Reads that waited for the silent agent, failed, or were at another time tell nothing."""
    silence = read("port", 111, "refused", seconds=4)
    others = [
        read("cold", 111, seconds=3.0),
        read("cold", 112, "refused", seconds=2.0, node="two"),
        read("cold", 109, seconds=1.9, node="two"),
        read("cold", 115.1, seconds=2.0, node="two"),
    ]

    def traffic(seconds: float) -> Traffic:
        return Traffic(
            [silence, *others, *(read("cold", at, seconds=seconds, node="two") for at in (110.97, 112, 115))]
        )

    assert round(traffic(0.16).slowness(silence), 1) == 2.0
    assert round(traffic(0.16).idle_silent_ms(STEP)) == 2000
    assert traffic(0.05).slowness(silence) == 1.0
    assert traffic(1.0).slowness(silence) == 4.0
    assert Traffic([silence, *others]).idle_silent_ms(STEP) == 4000
    assert Traffic([]).idle_silent_ms(STEP) == 0


def test_an_attempt_is_tied_to_the_log_of_its_node_about_then() -> None:
    lines = {"one": [(105.0, "long before"), (109.0, "shutting down"), (112.5, "starting")], "two": [(110.0, "other")]}

    assert around(read("cold", 110, REFUSED, seconds=2), lines) == ["shutting down", "starting"]


def test_the_plot_has_a_line_for_each_client_and_the_steps() -> None:
    plot = Traffic([read("cached", 100), read("cold", 101, "x"), read("port", 100.5, "refused")]).plot([STEP])

    assert plot["series"] == [
        {"name": "one cached", "points": [[0.0, True]]},
        {"name": "one cold", "points": [[1.0, False]]},
    ]
    assert plot["events"] == [{"at": 10.0, "what": "rolled"}]


def test_the_log_says_phase_time_and_error_of_each_attempt() -> None:
    log = Traffic([read("cold", 109), read("cold", 111, "refused")]).log(STEP)

    assert log == {"one cold": ["-1.00 s baseline: 100 ms, read", "+1.00 s change: 100 ms, refused"]}
