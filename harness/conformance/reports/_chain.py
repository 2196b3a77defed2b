"""One credential of the run, hop by hop: from admission to an answer of AWS, each with what was really seen of it.

What belongs together is told by what it carries: the pod's UID (admission, token, session tags), the access key's ID
(the agent's answer, STS's record) and the session's ARN (every later call).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from harness.conformance.record import Run

__all__ = ["Chain", "Hop", "chain_of"]

_SECONDS_APART = 2.0
"""CloudTrail's times have no fractions, and its record is of the second step of a call."""
_MISSING = "not among this run's evidence"


@dataclass(frozen=True, slots=True)
class Hop:
    """One exchange."""

    sender: str
    receiver: str
    what: str
    """The message and how it was answered."""
    detail: str
    anchor: str = ""
    """Where its evidence stands on the page; empty when there is none."""


@dataclass(frozen=True, slots=True)
class Chain:
    """All hops of one pod's credential."""

    pod: str
    session: str
    hops: list[Hop]


@dataclass(frozen=True, slots=True)
class _Piece:
    """A piece of evidence, or one of the entries it lists."""

    kind: str
    content: Any
    anchor: str


def chain_of(run: Run) -> Chain | None:
    """Return the credential of which the run saw most hops, or None: then no test read STS's record of one."""
    files: dict[str, list[_Piece]] = {}
    for number, test in enumerate(run.tests):
        pieces = files.setdefault(test.file, [])
        for index, entry in enumerate(test.evidence):
            listed = _list({"": entry.content}, "") or [entry.content]
            pieces += (_Piece(entry.kind, content, f"evidence-{number}-{index}") for content in listed)
    chains = [chain for pieces in files.values() for chain in _chains(pieces)]
    return max(chains, key=lambda chain: sum(bool(hop.anchor) for hop in chain.hops), default=None)


def _chains(pieces: list[_Piece]) -> Iterator[Chain]:
    for piece in pieces:
        if piece.kind != "cloudtrail" or _get(piece.content, "eventName") != "AssumeRole":
            continue
        tags = {_get(tag, "key"): _get(tag, "value") for tag in _list(piece.content, "requestParameters", "tags")}
        if uid := tags.get("kubernetes-pod-uid"):
            pod = f"{tags.get('kubernetes-namespace')}/{tags.get('kubernetes-pod-name')}"
            session = _text(piece.content, "responseElements", "assumedRoleUser", "arn")
            yield Chain(pod, session, list(_hops(pieces, piece, str(uid), session, len(tags))))


def _hops(pieces: list[_Piece], record: _Piece, uid: str, session: str, tags: int) -> Iterator[Hop]:
    key = _text(record.content, "responseElements", "credentials", "accessKeyId")
    role = _text(record.content, "requestParameters", "roleArn").rpartition("/")[2]

    admitted = _first(p for p in pieces if p.kind == "admission" and _get(p.content, "uid") == uid)
    variables = len(_list(admitted.content, "variables")) if admitted else 0
    yield _hop("kube-apiserver", "webhook", "admission review", f"{variables} variables and a token volume", admitted)

    token = _first(p for p in pieces if p.kind == "token" and _text(p.content, "kubernetes.io", "pod", "uid") == uid)
    subject = _text(token.content, "sub").removeprefix("system:serviceaccount:") if token else ""
    audience = ", ".join(map(str, _list(token.content, "aud"))) if token else ""
    yield _hop("kubelet", "pod", f"token for {audience}", subject, token)

    answer = _first(p for p in pieces if p.kind == "http" and key and key in json.dumps(p.content, ensure_ascii=False))
    yield _hop("pod", "agent", "GET /v1/credentials", f"200, key {key}", answer)

    asked = _first(p for p in pieces if _is_exchange(p, record))
    signer = _text(asked.content, "principal").partition("assumed-role/")[2] if asked else ""
    yield _hop("agent", "EKS Auth", "AssumeRoleForPodIdentity", f"200, signed by {signer}", asked)

    yield _hop("EKS Auth", "STS", f"AssumeRole {role}", f"{tags} session tags", record)

    calls = [p for p in pieces if p.kind == "aws-calls" and _get(p.content, "principal") == session]
    call = _first(p for p in calls if _list(p.content, "decisions")) or _first(calls)
    service = _text(call.content, "service") if call else "a service"
    what = f"{_text(call.content, 'operation')}" if call else "a signed call"
    yield _hop("pod", service.upper() if call else service, what, _decision(call) if call else "", call)


def _hop(sender: str, receiver: str, what: str, detail: str, piece: _Piece | None) -> Hop:
    return Hop(sender, receiver, what, detail, piece.anchor) if piece else Hop(sender, receiver, "", _MISSING)


def _is_exchange(piece: _Piece, record: _Piece) -> bool:
    """Tell whether a call is the one that made EKS Auth assume the role."""
    if piece.kind != "aws-calls" or _get(piece.content, "operation") != "AssumeRoleForPodIdentity":
        return False
    try:
        asked = datetime.fromisoformat(_text(piece.content, "at"))
        assumed = datetime.fromisoformat(_text(record.content, "eventTime"))
    except ValueError:
        return False
    return _get(piece.content, "status") == 200 and abs((asked - assumed).total_seconds()) <= _SECONDS_APART


def _decision(call: _Piece) -> str:
    status = str(_get(call.content, "status"))
    decision = next(iter(_list(call.content, "decisions")), None)
    if decision is None:
        return status
    word = "allowed" if _get(decision, "allowed") else "denied"
    policy = (_text(decision, "policy") or _text(decision, "layer")).rpartition("/")[2]
    return f"{status}, {word} by {policy}"


def _first(pieces: Iterable[_Piece]) -> _Piece | None:
    return next(iter(pieces), None)


def _get(value: Any, name: str) -> Any:
    """Return a member; evidence is what a subject and AWS said, and may have any shape."""
    if not isinstance(value, Mapping):
        return None
    members: Mapping[str, Any] = value  # pyright: ignore[reportUnknownVariableType]
    return members.get(name)


def _text(value: Any, *path: str) -> str:
    for name in path:
        value = _get(value, name)
    return value if isinstance(value, str) else ""


def _list(value: Any, *path: str) -> list[Any]:
    for name in path:
        value = _get(value, name)
    return value if isinstance(value, list) else []  # pyright: ignore[reportUnknownVariableType]
