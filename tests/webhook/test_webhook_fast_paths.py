"""What runs at the speed of C judges as what it stands in for."""

import json
from functools import cache
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from podid_webhook import jsontext, pod_schema
from podid_webhook.review import decode_review

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3)
)
json_values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner))


def fields(kind: str, depth: int) -> st.SearchStrategy[Any]:
    """Values of a type of the table, mostly: at any place another value may stand."""
    if kind.startswith("[]"):
        return st.lists(fields(kind[2:], depth), max_size=2) | scalars
    if kind.startswith("{}"):
        return st.dictionaries(st.text(max_size=2), fields(kind[2:], depth), max_size=2) | scalars
    if kind not in pod_schema._TYPES or depth == 0:
        return {"string": st.text(max_size=2), "bool": st.booleans(), "int": st.integers()}.get(kind, scalars) | scalars
    known = pod_schema._TYPES[kind]
    members = {name: fields(inner, depth - 1) for name, inner in known.items()}
    folded = {name.upper(): value for name, value in list(members.items())[:2]}
    return st.fixed_dictionaries({}, optional=members | folded | {"unknown": scalars})


def refused(check: Any, value: Any) -> bool:
    try:
        check(value)
    except pod_schema.WrongTypeError:
        return True
    return False


KINDS = ("Container", "EnvVar", "ObjectMeta", "Probe", "ResourceRequirements", "Toleration", "Volume")
VALUES: list[Any] = [None, True, 0, 1.0, 1.5, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 10**30, "", "1"]
VALUES += [[], ["a"], [1], {}, {"a": "b"}, {"a": 1}]


@pytest.mark.parametrize("kind", ["string", "bool", "int", "quantity", "intOrString", "[]string", "{}quantity", "any"])
@pytest.mark.parametrize("value", VALUES, ids=str)
def test_scalars_are_judged_as_by_the_table(kind: str, value: Any) -> None:
    """Exactly: a value is refused by both or by neither."""
    assert compiled_refuses(kind, value) == refused(lambda item: pod_schema._check(item, kind, kind), value)


@given(st.sampled_from(KINDS).flatmap(lambda kind: st.tuples(st.just(kind), fields(kind, 2))))
def test_types_are_judged_as_by_the_table(kind_and_value: tuple[str, Any]) -> None:
    """What the compiled types take, the walk over the table takes too; only that is left to them (WHK-109)."""
    kind, value = kind_and_value
    by_table = refused(lambda item: pod_schema._check(item, kind, kind), value)
    pod = {"spec": {"containers": [value]}} if kind == "Container" else None

    if not compiled_refuses(kind, value):
        assert not by_table
    if pod is not None:
        assert refused(pod_schema.check_pod, pod) == by_table


@cache
def decoder(kind: str) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(pod_schema.compiled(kind))


def compiled_refuses(kind: str, value: Any) -> bool:
    try:
        decoder(kind).decode(json.dumps(value))
    except msgspec.MsgspecError:
        return True
    return False


USUAL = {
    "metadata": {"labels": None, "creationTimestamp": None},
    "spec": {
        "containers": [
            {
                "name": "app",
                "env": [{"name": "A", "value": None}],
                "resources": {"limits": {"cpu": 1, "memory": "1Gi", "x": 1.50}},
                "args": [],
            }
        ],
        "priority": 0,
    },
}


def test_usual_pod_is_decoded_by_the_schema_and_comes_back() -> None:
    """Or all of this would be of no use; what is null or empty stays so (WHK-514)."""
    pod = decoder("Pod").decode(json.dumps(USUAL))

    assert isinstance(pod, msgspec.Struct)
    assert json.loads(jsontext.encode(pod)) == USUAL
    assert compiled_refuses("Pod", {"Spec": {}})


@given(json_values)
def test_json_comes_back(value: Any) -> None:
    assert jsontext.decode(jsontext.encode(value)) == value
    assert jsontext.decode(json.dumps(value).encode()) == value
    assert json.loads(jsontext.encode(value)) == value


@pytest.mark.parametrize("text", ['"\\ud800"', '{"a": "\\udfff b", "n": 1}'])
def test_lone_surrogate_survives(text: str) -> None:
    """Go takes it, and so does Python's own decoder."""
    assert json.loads(jsontext.encode(jsontext.decode(text.encode()))) == json.loads(text)


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**30])
def test_long_integers_keep_their_digits(number: int) -> None:
    assert jsontext.encode(jsontext.decode(str(number).encode())) == str(number).encode()


@given(st.binary(max_size=20) | st.text(alphabet='{}[]",:0123456789eE+-.truefalsn\\ud8').map(str.encode))
def test_text_is_refused_as_by_the_exact_decoder(text: bytes) -> None:
    """The quick decoder takes nothing that the exact one refuses, and reads it the same."""
    try:
        expected: Any = jsontext._decode_exactly(text)
    except jsontext.JsonError:
        with pytest.raises(jsontext.JsonError):
            jsontext.decode(text)
    else:
        assert jsontext.decode(text) == expected


@pytest.mark.parametrize("unknown", ["", '"unknown": 1,'], ids=["by the schema", "as it came"])
def test_of_duplicate_keys_the_last_counts(unknown: str) -> None:
    """However the pod is decoded."""
    spec = f'{{{unknown} "serviceAccountName": "plain", "serviceAccountName": "s3-reader", "containers": []}}'
    pod = decode_review(f'{{"request": {{"object": {{"spec": {{}}, "spec": {spec}}}}}}}'.encode()).pod

    assert (pod.service_account, pod.containers.items) == ("s3-reader", ())
