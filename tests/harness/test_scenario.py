"""What scenarios are written with, as far as it needs no cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import urllib3.exceptions

from harness import wait
from harness.cluster.base import Completed
from harness.errors import HarnessFault, NotReady
from harness.kube import ApiException
from harness.scenario import LogReader, credentials_response, stage_of


def test_stage_that_does_not_come_fails_its_requirement() -> None:
    with pytest.raises(NotReady, match="waited for a secret") as error, stage_of("ESO-A"):
        raise wait.Timeout("waited for a secret", hint="look")

    assert (error.value.requirement, error.value.hint) == ("ESO-A", "look")


def test_anything_else_in_a_stage_is_what_it_is() -> None:
    with pytest.raises(HarnessFault, match="the lab broke"), stage_of("ESO-A"):
        raise HarnessFault("the lab broke")


def test_agent_that_got_no_answer_in_time_is_asked_again_and_one_that_failed_is_not() -> None:
    said = [
        "[]: (RequestTimeout): EKS Auth did not answer within 1.8 s\n500 text/plain",
        "[]: (ConnectTimeout): no connection\n500 text/plain",
        "[]: (Reset): closed\n500 text/plain",
        "{}\n200 application/json",
    ]
    pod: Any = SimpleNamespace(name="app", exec=lambda *_: Completed(0, said.pop(0), ""))

    answer = credentials_response(pod)

    assert (answer.status, answer.body) == (500, "[]: (Reset): closed")
    assert len(said) == 1


def read_log(
    answers: list[list[bytes | Exception]], ready: list[bool], states: Sequence[str | Exception] = ("terminated",)
) -> list[str]:
    """Return the lines that a reader has of an API server that answers like this, and is ready or not when asked.

    Args:
        answers: What each request for the log gets.
        ready: Whether the API server is ready, each time it is asked.
        states: The container's state, each time the pod is read.
    """
    seen = list(states)

    def look() -> dict[str, Any]:
        state = seen.pop(0)
        if isinstance(state, Exception):
            raise state
        return {"status": {"containerStatuses": [{"state": {state: {}}}]}}

    def read(*_: object, **__: object) -> SimpleNamespace:
        answer = answers.pop(0)
        if isinstance(answer[0], Exception):
            raise answer[0]
        return SimpleNamespace(stream=lambda: said(answer), release_conn=lambda: None)

    def said(parts: list[bytes | Exception]) -> Iterator[bytes]:
        for part in parts:
            if isinstance(part, Exception):
                raise part
            yield part

    kube = SimpleNamespace(core=SimpleNamespace(read_namespaced_pod_log=read), is_ready=lambda: ready.pop(0))
    pod: Any = SimpleNamespace(name="app", namespace="demo", kube=kube, read=look)
    reader = LogReader(pod)
    reader.close()
    assert (answers, ready, seen) == ([], [], [])
    return reader.lines()


BROKEN = urllib3.exceptions.ProtocolError("Connection broken")


def test_log_is_read_on_after_the_api_server_is_back() -> None:
    """What was printed meanwhile is there, and nothing twice; also a letter that the connection broke within."""
    away = urllib3.exceptions.MaxRetryError(None, "/log")  # pyright: ignore[reportArgumentType]
    rest = [b"one\n", "zwölf\n".encode()[:3], "zwölf\n".encode()[3:]]

    # One that is not ready would forbid it.
    assert read_log([[b"one\ntw", BROKEN], [away], rest], [False, True, True]) == ["one", "zwölf"]


def test_log_of_a_container_that_went_meanwhile_stays_what_was_read() -> None:
    """Kubelet says so with status 200, in place of the log, and at more length than the log had."""
    gone = b"unable to retrieve container logs for containerd://0f3c6b1d9e"

    assert read_log([[b"one\ntw", BROKEN], [gone]], [True]) == ["one"]


def test_log_ends_with_a_pod_that_went_with_the_api_server() -> None:
    assert read_log([[b"one\ntw", BROKEN], [ApiException(status=404)]], [True], [ApiException(status=404)]) == ["one"]


def test_log_is_read_on_after_the_kubelet_is_back() -> None:
    """The API server ends the log of a kubelet that went away as any other; the next one knows no pods at first."""
    away, unknown = ApiException(status=500, reason="connect: connection refused"), ApiException(status=404)
    answers = [[b"one\ntw"], [away], [unknown], [b"one\ntwo\n"]]

    assert read_log(answers, [True] * 3, ["running", "running", "running", "terminated"]) == ["one", "two"]


def test_log_that_ends_while_the_api_server_goes_is_read_on() -> None:
    rest = [b"one\ntwo\n"]

    assert read_log([[b"one\n"], rest], [True], [BROKEN, ApiException(status=404)]) == ["one", "two"]
