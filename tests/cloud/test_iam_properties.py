"""What holds for all policies: denies win, allows add up, order and repetition change nothing, work stays linear."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from harness.cloud.iam import CallContext, Check, Decision, EvaluationRequest, PolicySet, authorize
from harness.cloud.iam.arns import Tree, path, resource_pattern
from harness.cloud.iam.index import index_by_content, index_of
from harness.cloud.iam.policy import compile_policy
from harness.cloud.iam.variables import template_tokens
from harness.cloud.iam.wildcard import Pattern
from harness.cloud.ports import NamedPolicy
from harness.subject.iam_requests import ACCOUNT, OBJECT, OTHER_ACCOUNT, POD, ROLE, USER, ask, policy

RESOURCES = [
    "*", "arn:aws:s3:::*", "arn:aws:s3:::notes/*", "arn:aws:s3:::notes/a", "arn:aws:s3:::notes", "arn:*:s3:::no*/?",
    "arn:aws:s3:::notes/${aws:username, 'a'}", "arn:aws:s3:::${s3:prefix}", "arn:aws:sqs:eu-west-1:1:notes",
]  # fmt: skip
TARGETS = st.sampled_from([OBJECT, "arn:aws:s3:::notes", "arn:aws:s3:::other/a", "arn:aws:s3:::notes:x", "*", "no arn"])
STATEMENT = st.fixed_dictionaries(
    {
        "Effect": st.sampled_from(["Allow", "Deny"]),
        "Action": st.sampled_from(["*", "s3:*", "s3:GetObject", "s3:Put*", "iam:*"]),
    },
    optional={
        "Condition": st.sampled_from(
            [
                {},
                {"StringEquals": {"s3:prefix": "a"}},
                {"StringNotLike": {"s3:prefix": "a*"}},
                {"ForAllValues:StringEquals": {"aws:TagKeys": ["x"]}},
                {"ForAnyValue:StringLike": {"aws:TagKeys": ["x*", "${aws:username}"]}},
                {"Null": {"s3:prefix": "true"}},
                {"NumericLessThanIfExists": {"s3:max-keys": 10}},
            ]
        )
    },
).flatmap(
    lambda body: st.tuples(
        st.sampled_from(["Resource", "NotResource"]), st.lists(st.sampled_from(RESOURCES), min_size=1, max_size=3)
    ).map(lambda item: {**body, item[0]: item[1]})
)
STATEMENTS = st.lists(STATEMENT, max_size=5)
CONTEXT = st.fixed_dictionaries(
    {},
    optional={
        "s3:prefix": st.sampled_from(["", "a", "ab", "*"]),
        "aws:TagKeys": st.lists(st.sampled_from(["x", "xy", "z"]), max_size=2).map(tuple),
        "s3:max-keys": st.sampled_from(["1", "10", "many"]),
    },
)
CALLERS = st.sampled_from([POD, USER])
ALLOW = {"Effect": "Allow", "Action": "*", "Resource": "*"}
DENY = {"Effect": "Deny", "Action": "*", "Resource": "*"}


def said(decision: Decision) -> tuple[bool, bool, str]:
    return decision.allowed, decision.explicit, decision.layer


@given(statements=STATEMENTS, caller=CALLERS, context=CONTEXT, target=TARGETS, at=st.integers(0, 5))
def test_no_allow_overcomes_a_deny(statements: list[Any], caller: Any, context: Any, target: str, at: int) -> None:
    with_deny = policy(*statements[:at], DENY, *statements[at:], ALLOW)

    decision = ask(caller, target=target, context=context, identity=[policy(ALLOW), with_deny, policy(ALLOW)])

    assert said(decision) == (False, True, "identity")


@given(statements=STATEMENTS, more=STATEMENT, caller=CALLERS, context=CONTEXT, target=TARGETS)
def test_a_further_allow_denies_nothing(
    statements: list[Any], more: Any, caller: Any, context: Any, target: str
) -> None:
    before = ask(caller, target=target, context=context, identity=[policy(*statements)])

    after = ask(caller, target=target, context=context, identity=[policy(*statements, {**more, "Effect": "Allow"})])

    assert after.allowed >= before.allowed
    assert after.explicit == before.explicit


@given(statements=STATEMENTS, more=STATEMENT, caller=CALLERS, context=CONTEXT, target=TARGETS)
def test_a_further_deny_allows_nothing(
    statements: list[Any], more: Any, caller: Any, context: Any, target: str
) -> None:
    before = ask(caller, target=target, context=context, identity=[policy(*statements)])

    after = ask(caller, target=target, context=context, identity=[policy(*statements, {**more, "Effect": "Deny"})])

    assert after.allowed <= before.allowed


@given(data=st.data(), statements=STATEMENTS, caller=CALLERS, context=CONTEXT, target=TARGETS)
def test_order_and_division_of_statements_do_not_matter(
    data: st.DataObject, statements: list[Any], caller: Any, context: Any, target: str
) -> None:
    shuffled = data.draw(st.permutations(statements))
    cut = data.draw(st.integers(0, len(statements)))

    one = ask(caller, target=target, context=context, identity=[policy(*statements)])
    several = ask(caller, target=target, context=context, identity=[policy(*shuffled[cut:]), policy(*shuffled[:cut])])

    assert said(one) == said(several)


@given(statements=STATEMENTS, caller=CALLERS, context=CONTEXT, target=TARGETS)
def test_the_same_question_has_the_same_answer(statements: list[Any], caller: Any, context: Any, target: str) -> None:
    """Also after what the engine remembers is forgotten, and with a context that was prepared."""
    document = policy(*statements)
    check, policies = Check("s3:GetObject", target, ACCOUNT), PolicySet(identity=(document,))

    first = authorize(EvaluationRequest(check, caller, policies, context))
    again = authorize(EvaluationRequest(check, caller, policies, CallContext(caller, context)))
    compile_policy.cache_clear()
    index_by_content.cache_clear()
    anew = authorize(EvaluationRequest(check, caller, PolicySet(identity=(document,)), context))

    assert first == again == anew


@given(statements=STATEMENTS, context=CONTEXT, target=TARGETS)
def test_the_index_hides_no_statement(statements: list[Any], context: Any, target: str) -> None:
    """Candidates are those statements that a look at every one of them would find."""
    policies = PolicySet(identity=(policy(*statements),))
    keys = {key.lower(): value for key, value in context.items()}

    plan = index_of(policies).plan("identity", "s3:getobject", target)

    candidates = [one.statement for one in (*plan.denies, *plan.allows["identity"])]
    assert {statement.index for statement in candidates if statement.applies(target, keys)} == {
        statement.index
        for statement in compile_policy(policies.identity[0].document, "identity-inline").statements
        if statement.is_about("s3:getobject") and statement.applies(target, keys)
    }


PIECES = st.lists(st.sampled_from(["notes", "a", "b", "", "*", "a*"]), min_size=1, max_size=7).map("/".join)


@given(patterns=st.lists(PIECES, min_size=1, max_size=6), key=PIECES)
def test_the_tree_finds_every_pattern_that_matches(patterns: list[str], key: str) -> None:
    compiled = [resource_pattern(f"arn:aws:s3:::{text}", "identity-inline", has_variables=True) for text in patterns]
    arn = f"arn:aws:s3:::{key}"
    found = Tree(pattern.node for pattern in compiled if pattern.node is not None).node(arn)

    near = {None, *(path(found) if found else ())}

    assert {pattern.node for pattern in compiled if pattern.matches(arn, {})} <= near


@given(own=STATEMENTS, foreign=STATEMENTS, context=CONTEXT)
def test_another_account_s_resource_needs_both_sides(own: list[Any], foreign: list[Any], context: Any) -> None:
    shared = policy(*[{**statement, "Principal": {"AWS": ROLE}} for statement in foreign])

    both = ask(POD, owner=OTHER_ACCOUNT, context=context, identity=[policy(*own)], resource=shared)

    assert not ask(POD, owner=OTHER_ACCOUNT, context=context, identity=[policy(*own)]).allowed
    assert not ask(POD, owner=OTHER_ACCOUNT, context=context, resource=shared).allowed
    if both.allowed:
        assert ask(POD, context=context, identity=[policy(*own)]).allowed


def test_a_context_of_another_principal_decides_nothing() -> None:
    request = EvaluationRequest(
        Check("s3:GetObject", OBJECT, ACCOUNT), POD, PolicySet(identity=(policy(ALLOW),)), CallContext(USER, {})
    )

    decision = authorize(request)

    assert not decision.allowed
    assert "prepared for another principal" in decision.fault


# --- hostile documents ----------------------------------------------------------------------------------------------


class CountedText(str):
    """A resource that counts how often the engine looks into it."""

    __slots__ = ()
    looks = 0

    def find(self, *arguments: Any) -> int:
        CountedText.looks += 1
        return super().find(*arguments)

    def startswith(self, *arguments: Any) -> bool:
        CountedText.looks += 1
        return super().startswith(*arguments)


def looks(wildcards: int) -> int:
    compiled = compile_policy(
        policy({**ALLOW, "Resource": "arn:aws:s3:::" + "*a" * wildcards + "*b*"}).document, "identity-inline"
    )
    (statement,) = compiled.statements
    (pattern,) = statement.resources or ()
    CountedText.looks = 0
    assert not pattern.matches(CountedText("arn:aws:s3:::" + "a" * (2 * wildcards)), {})
    return CountedText.looks


def test_ten_thousand_wildcards_take_work_in_proportion_to_their_number() -> None:
    """IAM-PERF-06: looks into the text, not seconds."""
    assert looks(10_000) <= 2.2 * looks(5_000)
    assert 10_000 <= looks(10_000) <= 20_010


def test_deep_nesting_and_many_statements_are_answered() -> None:
    nested = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": ' + "[" * 50_000 + "]" * 50_000
    many = json.dumps({"Version": "2012-10-17", "Statement": [ALLOW] * 5_000})

    assert not ask(USER, identity=[NamedPolicy("inline:nested", nested + "}]}")]).allowed
    assert ask(USER, identity=[NamedPolicy("inline:many", many)]).allowed


def test_a_stream_of_unknown_resources_and_tags_does_not_grow_memory() -> None:
    """IAM-PERF-05."""
    pattern = Pattern(template_tokens("notes/${s3:prefix}/*", has_wildcards=True))
    index = index_of(PolicySet(identity=(policy({**ALLOW, "Resource": "arn:aws:s3:::notes/*"}),)))

    for number in range(2_000):
        pattern.matches("notes/a", {"s3:prefix": f"{number}"})
        index.plan("identity", "s3:getobject", f"arn:aws:s3:::bucket-{number}/x")
        index.plan("identity", "s3:getobject", f"arn:aws:s3:::notes/{number}")
        index.plan("identity", f"s3:action{number}", OBJECT)

    assert 0 < len(pattern._filled) <= 256
    assert 2 < len(index._plans) <= 1024
    assert {node for _, action, node in index._plans if action == "s3:getobject"} <= {None, "arn:aws:s3:::notes"}
