"""Fuzzing of policies and signatures for a given time (``nox -s fuzz -- --minutes 10``); not part of the tests.

What is looked for: an exception that nobody handles, and an Allow that should not be. Decisions are compared with a
second evaluator, damaged documents must allow nothing, damaged requests must be refused. The seed of every round is
printed when it fails, and ``--seed`` repeats it.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from reference import ACCOUNT, ROLE, SESSION, decide

from harness.cloud.credentials import CredentialRegistry
from harness.cloud.iam import Check, EvaluationRequest, PolicySet, authorize
from harness.cloud.iam.json_lines import evaluate_lines
from harness.cloud.iam.resource_policies import check_bucket_policy
from harness.cloud.iam.validation import check_document
from harness.cloud.ports import Credential, NamedPolicy, Principal, Refusal
from harness.cloud.sigv4 import RawRequest, is_anonymous, verify
from harness.subject.cloud_ports import SettableClock

COUNTS: Counter[str] = Counter()
POD = Principal("role-session", SESSION, ACCOUNT, "AROAAPP:pod", role_arn=ROLE, tags={"team": "a"})

# --- decisions ------------------------------------------------------------------------------------------------------

ACTIONS = ["s3:GetObject", "s3:PutObject", "s3:Get*", "s3:*", "*", "S3:getobject", "sqs:*", "s3:?etObject"]
ASKED = ["s3:GetObject", "s3:PutObject", "sqs:SendMessage"]
RESOURCES = [
    "*", "arn:aws:s3:::*", "arn:aws:s3:::notes", "arn:aws:s3:::notes/*", "arn:aws:s3:::notes/a", "arn:aws:s3:::no*/a",
    "arn:aws:s3:::notes/${aws:PrincipalTag/team}/*", "arn:aws:s3:::${s3:prefix}/a", "arn:*:s3:::notes/a?",
    "arn:aws:s3:::notes/a/b/c/d/*", "arn:aws:s3:::notes/a/b/c/d/e/f", "arn:aws:s3:::*a*", "arn:aws:s3:::notes/a/*",
    "arn:aws:s3:::notes/${aws:TagKeys}/*", "arn:aws:sqs:eu-west-1:*:notes",
]  # fmt: skip
TARGETS = [
    "arn:aws:s3:::notes", "arn:aws:s3:::notes/a", "arn:aws:s3:::notes/a/b", "arn:aws:s3:::notes/a/b/c/d/e",
    "arn:aws:s3:::notes/a/b/c/d/e/f", "arn:aws:s3:::other/a", "arn:aws:s3:::notes/*", "*", "arn:aws:s3:::notes/",
    "arn:aws:s3:::notes//a", "arn:aws:s3:::notesx/a",
]  # fmt: skip
VALUES = ["a", "b", "", "*", "a*", "?", "${aws:PrincipalTag/team}", "${s3:prefix}", "${no:such}x"]
OPERATORS = ["StringEquals", "StringNotEquals", "StringLike", "StringNotLike"]
KEYS = ["s3:prefix", "aws:PrincipalTag/team", "AWS:principaltag/TEAM", "s3:delimiter", "aws:TagKeys"]
SEVERAL = ["ForAllValues:StringEquals", "ForAnyValue:StringLike"]


def some(of: list[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(of), min_size=1, max_size=3)


CONDITION = st.one_of(
    st.tuples(st.sampled_from(OPERATORS), st.sampled_from(KEYS), some(VALUES)),
    st.tuples(st.sampled_from(SEVERAL), st.just("aws:TagKeys"), some(VALUES)),
    st.tuples(st.just("Null"), st.sampled_from(KEYS), st.sampled_from([["true"], ["false"]])),
)


@st.composite
def statements(draw: st.DrawFn, principals: st.SearchStrategy[Any] | None = None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for _ in range(draw(st.integers(0, 4))):
        conditions: dict[str, dict[str, list[str]]] = {}
        for operator, key, values in draw(st.lists(CONDITION, max_size=2)):
            conditions.setdefault(operator, {})[key] = values
        statement: dict[str, Any] = {
            "Effect": draw(st.sampled_from(["Allow", "Allow", "Deny"])),
            draw(st.sampled_from(["Action", "Action", "Action", "NotAction"])): draw(some(ACTIONS)),
            draw(st.sampled_from(["Resource", "Resource", "Resource", "NotResource"])): draw(some(RESOURCES)),
            "Condition": conditions,
        }
        if principals is not None:
            statement["Principal"] = draw(principals)
        found.append(statement)
    return found


PRINCIPALS = st.one_of(
    st.just("*"),
    some(["*", ROLE, SESSION, ACCOUNT, f"arn:aws:iam::{ACCOUNT}:root", "987654321098", f"{ROLE}x"]).map(
        lambda listed: {"AWS": listed}
    ),
)
LAYERS = st.fixed_dictionaries(
    {"identity": statements()},
    optional={
        "boundary": statements(),
        "session": statements(),
        "resource": statements(PRINCIPALS),
        "scp": st.lists(statements(), min_size=1, max_size=2),
    },
)
CONTEXT = st.fixed_dictionaries(
    {},
    optional={
        "s3:prefix": st.sampled_from(["", "a", "b", "*", "notes"]),
        "aws:tagkeys": st.lists(st.sampled_from(["a", "b", "ab"]), max_size=2).map(tuple),
        "s3:delimiter": st.sampled_from(["/", "a"]),
    },
)


def document(body: Any) -> NamedPolicy:
    return NamedPolicy("inline:fuzz", json.dumps({"Version": "2012-10-17", "Statement": body}))


@given(layers=LAYERS, contexts=st.lists(CONTEXT, min_size=1, max_size=3))
def decisions(layers: dict[str, Any], contexts: list[dict[str, Any]]) -> None:
    """Engine and reference say the same about every action and resource."""
    policies = PolicySet(
        identity=(document(layers["identity"]),),
        boundaries=(document(layers["boundary"]),) if "boundary" in layers else (),
        session=(document(layers["session"]),) if "session" in layers else None,
        resource=document(layers["resource"]) if "resource" in layers else None,
        scp=tuple((document(level),) for level in layers.get("scp", [])),
    )

    for context, target, action in product(contexts, TARGETS, ASKED):
        decision = authorize(EvaluationRequest(Check(action, target, ACCOUNT), POD, policies, context))

        wanted = decide(layers, action, target, {"aws:principaltag/team": "a", **context})
        assert not decision.fault, decision
        assert (decision.allowed, decision.explicit) == wanted, (context, decision, wanted)
        COUNTS["decisions allowed" if decision.allowed else "decisions denied"] += 1


# --- documents ------------------------------------------------------------------------------------------------------

PIECES = [
    "{", "}", "[", "]", ",", ":", '"', "\\", "\\u0000", "null", "true", "1e999", "-0", "NaN", '"Statement"', '"Effect"',
    '"Allow"', '"Deny"', '"Action"', '"NotAction"', '"Resource"', '"Principal"', '"Condition"', '"*"', "[" * 50,
    "${", "${aws:username", "}", "\ud800", "\x00", "é", '"StringLike"', '"Null"', "/", "*" * 40, "*", "?", "a", " ", "",
]  # fmt: skip


@given(layers=LAYERS, data=st.data(), target=st.sampled_from(TARGETS))
def documents(layers: dict[str, Any], data: st.DataObject, target: str) -> None:
    """A damaged document is answered; unless it still says Allow, and can be read, it allows nothing."""
    whole = document(layers["identity"]).document
    for _ in range(20):
        chance = data.draw(st.randoms(use_true_random=False))
        text = whole
        for _ in range(chance.randint(1, 3)):
            at = chance.randint(0, len(text))
            text = text[:at] + chance.choice(PIECES) + text[at + chance.choice([0, 0, 1, 1, 8]) :]
        _answer(text, target)


def _answer(text: str, target: str) -> None:
    policies = PolicySet(identity=(NamedPolicy("inline:damaged", text),))

    decision = authorize(EvaluationRequest(Check("s3:GetObject", target, ACCOUNT), POD, policies, {}))

    assert "the engine failed" not in decision.fault, decision
    if decision.allowed:
        body = json.loads(text)
        listed = [body["Statement"]] if isinstance(body["Statement"], dict) else body["Statement"]
        readable = [_plain(statement) for statement in listed]
        if body["Version"] == "2012-10-17" and all(map(_is_plain, readable)):
            assert decide({"identity": readable}, "s3:GetObject", target, CALLER)[0], text
            COUNTS["documents compared"] += 1
        else:
            # What the reference does not know must at least say Allow.
            assert any(statement["Effect"] == "Allow" for statement in listed), text
    for check in (
        lambda: check_document(text, "identity"),
        lambda: check_document(text, "trust"),
        lambda: check_bucket_policy(text, "notes", bool),
    ):
        _refused_or_not(check)
    question = {
        "principal": SESSION,
        "action": "s3:GetObject",
        "resource": target,
        "identity": [text],
        "context": {"aws:PrincipalTag/team": "a", "aws:PrincipalArn": ROLE},
    }
    (answer,) = evaluate_lines([json.dumps(question).encode()])
    assert answer.is_error or (answer.data["decision"] == "Allowed") == decision.allowed
    COUNTS["documents allowed" if decision.allowed else "documents denied"] += 1


CALLER = {"aws:principaltag/team": "a", "aws:principalaccount": ACCOUNT, "aws:principalarn": ROLE}


def _plain(statement: dict[str, Any]) -> dict[str, Any]:
    """Return a statement in the form in which the reference knows it: lists everywhere."""
    lists = {
        name: value if isinstance(value, list) else [value]
        for name, value in statement.items()
        if name in {"Action", "NotAction", "Resource", "NotResource"}
    }
    conditions = {
        operator: {key: values if isinstance(values, list) else [values] for key, values in tests.items()}
        for operator, tests in statement.get("Condition", {}).items()
    }
    return {**statement, **lists, "Condition": conditions}


def _is_plain(statement: dict[str, Any]) -> bool:
    """Tell whether the reference knows what a statement says."""
    texts = [
        *statement.get("Resource", statement.get("NotResource", ())),
        *(text for tests in statement["Condition"].values() for values in tests.values() for text in values),
    ]
    return statement["Condition"].keys() <= {*OPERATORS, *SEVERAL, "Null"} and all(
        isinstance(text, str) and "$" not in re.sub(r"\$\{[^}$,\' ]*\}", "", text) for text in texts
    )


def _refused_or_not(call: Callable[[], object]) -> None:
    try:
        call()
    except Refusal:
        return


@given(line=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace"))))
def lines(line: bytes) -> None:
    """Any bytes are answered, and nothing but a question is allowed."""
    for answer in evaluate_lines(line.split(b"\n")):
        assert answer.is_error, answer
    COUNTS["lines"] += 1


# --- signatures -----------------------------------------------------------------------------------------------------

NOW = datetime.now(UTC)
KEY = Credential(
    "ASIALABEXAMPLE000001", "lab/EXAMPLE+secret/0123456789abcdefABCDE", "IQoLabToken==", POD, NOW - timedelta(hours=1),
    NOW + timedelta(hours=5),
)  # fmt: skip
STORE = CredentialRegistry()
STORE.add(KEY)
NOISE = ["", "/", "..", "%2F", "%", "+", " ", "\t", "\x00", "\xff", ";", ",", "=", "&", "?", "a", "A", "0", "9" * 30]


def signed(form: str, path: str, body: bytes) -> tuple[RawRequest, str]:
    """Return a request that botocore signed, and the service that it is for."""
    service = "sts" if form == "sts" else "s3"
    credentials = Credentials(KEY.access_key_id, KEY.secret_access_key, KEY.session_token)
    host = f"notes.{service}.eu-west-1.amazonaws.com"
    method = "GET" if form == "presigned" else "PUT"
    request = AWSRequest(method, f"https://{host}/{path}?a=1&b=2", {"Host": host, "X-Amz-Meta-A": "one"}, body)
    signer = {"sts": SigV4Auth, "s3": S3SigV4Auth, "presigned": S3SigV4QueryAuth}[form]
    signer(credentials, service, "eu-west-1").add_auth(request)
    _, _, rest = request.url.partition(f"{host}")
    raw_path, _, query = rest.partition("?")
    return RawRequest(method, raw_path, query, list(request.headers.items()), body), service


def accepted(request: RawRequest, service: str) -> bool:
    """Tell whether a request is let in as the session's own; anonymous is not."""
    if is_anonymous(request):
        return False
    try:
        verify(request, STORE, SettableClock(NOW), service=service, region="eu-west-1")
    except Refusal:
        return False
    return True


def meaning(request: RawRequest, form: str) -> Any:
    """Return everything that a signature protects, in a form that only harmless changes leave as it is."""
    headers = sorted(
        (name.lower(), " ".join(value.strip(" \t").replace("\t", " ").split(" ")).strip())
        for name, value in request.headers
        if name.lower() == "host" or name.lower().startswith("x-amz-")
    )
    collapsed = [(name, " ".join(part for part in value.split(" ") if part)) for name, value in headers]
    path = request.path or "/"
    body = b"" if form == "presigned" else request.body
    return request.method, path, sorted(request.query_items()), collapsed, body


@given(
    form=st.sampled_from(["s3", "sts", "presigned"]),
    path=st.sampled_from(["a.txt", "team-a/%20b", ""]),
    body=st.sampled_from([b"", b"Action=GetCallerIdentity&Version=2011-06-15"]),
    data=st.data(),
)
def signatures(form: str, path: str, body: bytes, data: st.DataObject) -> None:
    """What was signed is let in, what was changed is not, and nothing raises but a refusal."""
    body = b"" if form == "presigned" else body
    request, service = signed(form, path, body)
    assert accepted(request, service), request
    changed = request
    for _ in range(data.draw(st.integers(1, 3))):
        changed = _damaged(changed, data)
    if accepted(changed, service):
        if form == "sts":
            # Everybody but S3 drops empty and dot segments from the path before signing.
            request, changed = (replace(one, path=_normal(one.path)) for one in (request, changed))
        assert meaning(changed, form) == meaning(request, form), (request, changed)
        COUNTS["signatures unharmed"] += 1
    else:
        COUNTS["signatures refused"] += 1


def _normal(path: str) -> str:
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in {"", "."}:
            kept.append(segment)
    return "/" + "/".join(kept) + ("/" if kept and path.endswith("/") else "")


def _damaged(request: RawRequest, data: st.DataObject) -> RawRequest:
    def spoiled(text: str) -> str:
        at = data.draw(st.integers(0, len(text)))
        return text[:at] + data.draw(st.sampled_from(NOISE)) + text[at + data.draw(st.integers(0, 2)) :]

    headers = list(request.headers)
    at = data.draw(st.integers(0, len(headers) - 1))
    name, value = headers[at]
    match data.draw(st.sampled_from(["method", "path", "query", "value", "name", "drop", "twice", "add", "body"])):
        case "method":
            return replace(request, method=data.draw(st.sampled_from(["GET", "PUT", "POST", "get", ""])))
        case "path":
            return replace(request, path=spoiled(request.path))
        case "query":
            return replace(request, query=spoiled(request.query))
        case "value":
            headers[at] = name, spoiled(value)
        case "name":
            headers[at] = spoiled(name), value
        case "drop":
            del headers[at]
        case "twice":
            headers.append((name, spoiled(value)))
        case "add":
            headers.append((data.draw(st.sampled_from(["X-Amz-Acl", "Authorization", "Host", "X-Amz-Date"])), value))
        case _:
            return replace(request, body=request.body + b"x")
    return replace(request, headers=headers) if headers else request


# --- running --------------------------------------------------------------------------------------------------------

LIMITS = settings(
    max_examples=100,
    deadline=None,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)


def main() -> None:
    """Run every target by turns, with a new seed each round, until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--seed", type=int, help="one round with this seed")
    arguments = parser.parse_args()
    targets = [LIMITS(target) for target in (decisions, documents, lines, signatures)]
    end, rounds = time.monotonic() + arguments.minutes * 60, 0
    while rounds == 0 or (arguments.seed is None and time.monotonic() < end):
        number = random.SystemRandom().getrandbits(32) if arguments.seed is None else arguments.seed
        for target in targets:
            try:
                seed(number)(target)()
            except BaseException:
                print(f"{target.__name__}: failed with --seed {number}")
                raise
        rounds += 1
    for name, count in sorted(COUNTS.items()):
        print(f"{name:24} {count:12,}")
    print(f"{rounds:,} rounds, {sum(COUNTS.values()):,} examples, no finding")


if __name__ == "__main__":
    main()
