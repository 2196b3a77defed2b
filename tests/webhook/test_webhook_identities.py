"""The identities format (WHK-703 to WHK-709)."""

import json

import pytest
from podid_webhook.configuration import NamespacedName
from podid_webhook.identities import IdentitiesError, IdentitySource, parse_identities

S3_READER = {"namespace": "demo", "serviceAccount": "s3-reader"}
ONE = frozenset({NamespacedName("demo", "s3-reader")})


@pytest.mark.parametrize(
    "content",
    [
        '{"identities": [{"namespace": "demo", "serviceAccount": "s3-reader"}]}',
        '{"Identities": [{"NAMESPACE": "demo", "serviceaccount": "s3-reader", "extra": 1}], "more": {}}',
        json.dumps({"identities": [S3_READER, S3_READER]}),
        json.dumps({"identities": [S3_READER, None, {}, {"namespace": "demo"}, {**S3_READER, "serviceAccount": ""}]}),
        json.dumps({"identities": [S3_READER, {**S3_READER, "namespace": None}]}),
    ],
)
def test_one_identity(content: str) -> None:
    assert parse_identities(content.encode()) == ONE


@pytest.mark.parametrize("content", ["", "{}", "null", '{"identities": null}', '{"identities": []}'])
def test_nobody(content: str) -> None:
    assert parse_identities(content.encode()) == frozenset()


@pytest.mark.parametrize(
    "content",
    [
        b" \n",
        b"[]",
        b"5",
        b'{"identities": {}}',
        b'{"identities": [5]}',
        b'{"identities": [{"namespace": 0, "serviceAccount": "s"}]}',
        b'{"identities": []} x',
        b'{"identities": [',
        b"\xff",
        b"\xef\xbb\xbf{}",
    ],
)
def test_not_the_format(content: bytes) -> None:
    with pytest.raises(IdentitiesError):
        parse_identities(content)


def test_broken_content_keeps_the_previous_identities() -> None:
    source = IdentitySource("test")
    source.load(b'{"identities": [{"namespace": "demo", "serviceAccount": "s3-reader"}]}')

    source.load(b"{")
    assert (source.identities, source.last_load_ok) == (ONE, False)

    source.load(None)
    assert (source.identities, source.last_load_ok) == (frozenset(), True)
