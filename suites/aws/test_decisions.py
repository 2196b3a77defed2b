"""The worked decisions, and what the layers do to each other (``iam.md`` sections 7 and 18.1)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, cast

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from harness.cloud.iam import Decision
from harness.cloud.ports import NamedPolicy, Principal
from harness.conformance.marks import requirement
from harness.subject.iam_requests import (
    ACCOUNT,
    ALLOW_ALL,
    ANONYMOUS,
    DENY_ALL,
    EKS,
    OBJECT,
    OTHER_ACCOUNT,
    POD,
    ROLE,
    ROOT,
    SESSION,
    USER,
    alone,
    ask,
    policy,
)

WORLD = cast("dict[str, Any]", yaml.safe_load(Path(__file__).with_name("decisions.yaml").read_text()))
LAYERS = ("boundary", "session", "resource", "trust")
TARGET_ROLE = f"arn:aws:iam::{ACCOUNT}:role/target"
BUCKET = "arn:aws:s3:::notes"
CORRUPT = NamedPolicy("inline:corrupt", '{"Version": "2012-10-17", "Statement": [{')


def principal(name: str) -> Principal:
    facts = WORLD["principals"][name]
    return Principal(
        kind=facts["kind"],
        arn=facts.get("arn", ""),
        account=facts.get("account", ""),
        user_id=facts.get("userid", ""),
        role_arn=facts.get("role", ""),
        service=facts.get("service", ""),
        tags=facts.get("tags", {}),
    )


def layers(example: dict[str, Any]) -> dict[str, Any]:
    version = example.get("version", "2012-10-17")
    documents: dict[str, Any] = {
        name: policy(*example[name], name=name, version=version) for name in LAYERS if name in example
    }
    if "session" in documents:
        documents["session"] = (documents["session"],)
    if "boundary" in documents:
        documents["boundaries"] = (documents.pop("boundary"),)
    documents["identity"] = [policy(*example["identity"], version=version)] if "identity" in example else []
    documents["scp"] = tuple((policy(*level, name="scp"),) for level in example.get("scp", ()))
    return documents


def answer(decision: Decision) -> str:
    return "Allow" if decision.allowed else "Deny-explicit" if decision.explicit else "Deny-implicit"


@pytest.mark.parametrize(
    "example",
    [pytest.param(example, id=example["id"], marks=requirement(*example["decides"])) for example in WORLD["decisions"]],
)
def test_worked_decision(example: dict[str, Any]) -> None:
    sent: dict[str, Any] = example.get("ctx", {})
    context = {
        key: tuple(cast("list[str]", value)) if isinstance(value, list) else value for key, value in sent.items()
    }

    decision = ask(principal(example["who"]), example["action"], example["target"], context=context, **layers(example))

    assert (answer(decision), decision.layer) == (example["expect"], example["by"]), example["shows"]
    assert decision.fault == ""


# --- layers ---------------------------------------------------------------------------------------------------------


@requirement("IAM-EVAL-01")
@pytest.mark.parametrize("layer", ["scp", "rcp", "endpoint", "resource", "identity", "boundary", "session"])
def test_an_explicit_deny_of_any_layer_wins(layer: str) -> None:
    principal = {"Principal": {"AWS": ACCOUNT}} if layer in {"rcp", "resource"} else {}
    said = alone(layer, policy(ALLOW_ALL | principal, DENY_ALL | principal))
    willing: dict[str, Any] = {"identity": [policy(ALLOW_ALL)], "resource": policy({**ALLOW_ALL, "Principal": "*"})}

    decision = ask(POD, **(willing | said))

    assert (decision.allowed, decision.explicit, decision.layer, decision.statement) == (False, True, layer, 1)


@requirement("IAM-STS-19")
def test_session_policies_are_a_union() -> None:
    listing, reading = policy(ALLOW_ALL | {"Action": "s3:List*"}), policy(ALLOW_ALL | {"Action": "s3:Get*"})

    assert ask(POD, identity=[policy(ALLOW_ALL)], session=(listing, reading)).allowed
    assert ask(POD, identity=[policy(ALLOW_ALL)], session=(listing,)).layer == "session"
    assert ask(POD, identity=[policy(ALLOW_ALL)], session=()).layer == "session"
    assert ask(POD, identity=[policy(ALLOW_ALL)], session=None).allowed


@requirement("IAM-EVAL-12")
def test_a_boundary_whose_policy_is_gone_denies() -> None:
    gone = NamedPolicy("arn:aws:iam::123456789012:policy/gone", "")

    decision = ask(POD, identity=[policy(ALLOW_ALL)], boundaries=(gone,))

    assert (answer(decision), decision.layer, decision.fault) == ("Deny-implicit", "boundary", "")
    assert not ask(POD, identity=[gone]).allowed


@requirement("IAM-EVAL-09")
def test_service_control_policies_do_not_bind_services() -> None:
    trust = policy({"Effect": "Allow", "Principal": {"Service": "pods.eks.amazonaws.com"}, "Action": "sts:AssumeRole"})

    decision = ask(EKS, "sts:AssumeRole", TARGET_ROLE, trust=trust, scp=((policy(DENY_ALL),),))

    assert (decision.allowed, decision.layer, decision.grade) == (True, "trust", "service")
    assert not ask(
        Principal("service", "", "", "", service="ec2.amazonaws.com"), "sts:AssumeRole", TARGET_ROLE, trust=trust
    ).allowed


@requirement("IAM-S3-12")
@pytest.mark.parametrize("action", ["s3:DeleteBucketPolicy", "s3:GetBucketPolicy", "s3:PutBucketPolicy"])
def test_root_gets_the_policy_of_its_bucket_back_from_any_deny(action: str) -> None:
    deny_everybody = policy(DENY_ALL | {"Principal": "*"})

    assert ask(ROOT, action, BUCKET, resource=deny_everybody).layer == "root"
    assert ask(ROOT, action, BUCKET, resource=CORRUPT).allowed
    assert ask(ROOT, "s3:ListBucket", BUCKET, resource=deny_everybody).explicit
    assert ask(ROOT, action, BUCKET, owner=OTHER_ACCOUNT, resource=deny_everybody).explicit


@requirement("IAM-EVAL-04")
def test_the_account_of_the_resource_comes_from_its_arn() -> None:
    table = f"arn:aws:dynamodb:eu-west-1:{OTHER_ACCOUNT}:table/notes"

    decision = ask(POD, "dynamodb:GetItem", table, owner="", identity=[policy(ALLOW_ALL)])

    assert (decision.allowed, decision.layer, decision.cross_account) == (False, "resource", True)


@requirement("IAM-EVAL-07")
def test_everybody_may_ask_who_they_are() -> None:
    assert ask(POD, "sts:GetCallerIdentity", "*", identity=[policy(DENY_ALL)]).layer == "always"
    assert ask(POD, "sts:GetCallerIdentity", "*", identity=[CORRUPT]).allowed


# --- trust policies -------------------------------------------------------------------------------------------------


def trust(name: object, *actions: str) -> NamedPolicy:
    return policy({"Effect": "Allow", "Principal": name, "Action": list(actions or ("sts:AssumeRole",))}, name="trust")


@requirement("IAM-EVAL-05")
@pytest.mark.parametrize(
    ("caller", "named", "identity", "expected"),
    [
        (USER, {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, True, ("Allow", "identity")),
        (USER, {"AWS": ACCOUNT}, False, ("Deny-implicit", "identity")),
        (USER, {"AWS": USER.arn}, False, ("Allow", "trust")),
        (POD, {"AWS": ROLE}, False, ("Allow", "trust")),
        (POD, {"AWS": SESSION}, False, ("Allow", "trust")),
        (USER, {"AWS": ROLE}, True, ("Deny-implicit", "trust")),
        (USER, {"Service": "pods.eks.amazonaws.com"}, True, ("Deny-implicit", "trust")),
        (ROOT, {"AWS": ROLE}, False, ("Deny-implicit", "trust")),
        (ANONYMOUS, {"AWS": ACCOUNT}, False, ("Deny-implicit", "trust")),
    ],
)
def test_nobody_assumes_a_role_without_its_consent(
    caller: Principal, named: object, identity: bool, expected: tuple[str, str]
) -> None:
    decision = ask(
        caller, "sts:AssumeRole", TARGET_ROLE, trust=trust(named), identity=[policy(ALLOW_ALL)] if identity else []
    )

    assert (answer(decision), decision.layer) == expected


@requirement("IAM-EVAL-05")
def test_a_role_without_trust_policy_gives_no_consent() -> None:
    assert ask(USER, "sts:AssumeRole", TARGET_ROLE, identity=[policy(ALLOW_ALL)]).layer == "trust"


@requirement("IAM-EVAL-05")
def test_a_role_of_another_account_needs_both_sides() -> None:
    role = f"arn:aws:iam::{OTHER_ACCOUNT}:role/target"

    assert ask(POD, "sts:AssumeRole", role, owner="", trust=trust({"AWS": ROLE})).layer == "identity"
    assert ask(POD, "sts:AssumeRole", role, owner="", identity=[policy(ALLOW_ALL)], trust=trust({"AWS": ROLE})).allowed


@requirement("IAM-PRIN-06", "IAM-PRIN-13")
def test_each_way_into_a_role_uses_its_own_statement() -> None:
    provider = f"arn:aws:iam::{ACCOUNT}:oidc-provider/oidc.example.com/id/1"
    both = policy(
        {"Effect": "Allow", "Principal": {"Service": "pods.eks.amazonaws.com"}, "Action": "sts:AssumeRole"},
        {"Effect": "Allow", "Principal": {"Federated": provider}, "Action": "sts:AssumeRoleWithWebIdentity"},
    )
    web_identity = Principal("web-identity", "", "", "")
    foreign = provider.replace(ACCOUNT, OTHER_ACCOUNT)

    def enters(caller: Principal, action: str, provider: str) -> bool:
        return ask(caller, action, TARGET_ROLE, trust=both, context={"aws:FederatedProvider": provider}).allowed

    assert enters(EKS, "sts:AssumeRole", provider)
    assert enters(web_identity, "sts:AssumeRoleWithWebIdentity", provider)
    assert not enters(web_identity, "sts:AssumeRole", provider)
    assert not enters(EKS, "sts:AssumeRoleWithWebIdentity", provider)
    assert not enters(web_identity, "sts:AssumeRoleWithWebIdentity", foreign)


# --- explanations and faults ----------------------------------------------------------------------------------------


@requirement("IAM-DOC-07")
@pytest.mark.parametrize("layer", ["identity", "resource", "boundary", "session", "scp"])
def test_an_unreadable_policy_of_any_layer_denies(layer: str) -> None:
    willing: dict[str, Any] = {"identity": [policy(ALLOW_ALL)]}

    decision = ask(POD, **(willing | alone(layer, CORRUPT)))

    assert (answer(decision), decision.layer) == ("Deny-implicit", layer)
    assert decision.fault.startswith('policy "inline:corrupt": not JSON that IAM would take')


# --- properties -----------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
ELEMENT = st.sampled_from(
    ["*", "s3:*", "S3:get?bject", "iam:*", "", "arn:aws:s3:::notes/*", "arn:aws:s3:::${aws:username}", "${", ACCOUNT]
)
CONDITION = st.dictionaries(
    st.sampled_from(["StringLike", "ForAllValues:ArnLike", "NumericEqualsIfExists", "DateLessThan", "Null", "Bogus"]),
    st.dictionaries(st.sampled_from(["aws:PrincipalArn", "aws:CurrentTime", "s3:prefix"]), ELEMENT | JSON, max_size=2)
    | JSON,
    max_size=2,
)
STATEMENT = st.fixed_dictionaries(
    {"Effect": st.sampled_from(["Allow", "Deny"]) | JSON, "Action": ELEMENT | JSON},
    optional={
        "Resource": ELEMENT | st.lists(ELEMENT, max_size=3) | JSON,
        "NotResource": ELEMENT,
        "Principal": st.just("*") | st.dictionaries(st.sampled_from(["AWS", "Service", "X"]), ELEMENT | JSON) | JSON,
        "Condition": CONDITION | JSON,
    },
)
DOCUMENT = st.builds(
    json.dumps,
    st.fixed_dictionaries({"Version": st.just("2012-10-17"), "Statement": st.lists(STATEMENT, max_size=3)}) | JSON,
) | st.text(max_size=20)
CALLER = st.sampled_from([POD, USER, ROOT, EKS, ANONYMOUS])


@requirement("IAM-EVAL-13", "IAM-SEC-01")
@given(
    documents=st.lists(DOCUMENT, min_size=3, max_size=3), caller=CALLER, target=st.text(max_size=30) | st.just(OBJECT)
)
def test_no_stored_document_makes_the_engine_fail(documents: list[str], caller: Principal, target: str) -> None:
    first, second, third = (NamedPolicy(f"inline:{index}", text) for index, text in enumerate(documents))

    decision = ask(caller, target=target, identity=[first], boundaries=(second,), resource=third)

    assert not (decision.allowed and decision.fault)
    assert "engine failed" not in decision.fault
    json.dumps(decision.as_data())


@requirement("IAM-EVAL-01")
@given(
    layer=st.sampled_from(["identity", "boundary", "session", "resource", "scp"]),
    statements=st.lists(st.sampled_from([ALLOW_ALL, {**ALLOW_ALL, "Action": "s3:*"}]), max_size=3),
    position=st.integers(0, 3),
    caller=st.sampled_from([POD, USER]),
)
def test_a_deny_wins_wherever_it_stands(
    layer: Literal["identity", "boundary", "session", "resource", "scp"],
    statements: list[dict[str, str]],
    position: int,
    caller: Principal,
) -> None:
    said = [*statements[:position], DENY_ALL, *statements[position:]]
    everybody = [{**statement, "Principal": "*"} for statement in said]
    document = policy(*(everybody if layer == "resource" else said))
    willing: dict[str, Any] = {"identity": [policy(ALLOW_ALL)]}

    decision = ask(caller, **(willing | alone(layer, document)))

    assert (answer(decision), decision.layer) == ("Deny-explicit", layer)


@requirement("IAM-EVAL-13", "IAM-SEC-01")
def test_a_fault_of_the_engine_is_a_denial(monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(*_: object) -> None:
        raise ZeroDivisionError("broken")

    monkeypatch.setattr("harness.cloud.iam.context.caller_keys", break_down)

    decision = ask(POD, identity=[policy(ALLOW_ALL)])

    assert not decision.allowed
    assert decision.fault == "the engine failed: ZeroDivisionError('broken')"
