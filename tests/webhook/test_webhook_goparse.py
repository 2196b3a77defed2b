"""Go's parsers: what they take and what they refuse."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from podid_webhook.goparse import clean_join, first_csv_record, parse_bool, parse_duration, parse_int64


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3600", 3600),
        ("+3600", 3600),
        ("00600", 600),
        ("-5", -5),
        ("0", 0),
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
        ("0" * 5000 + "7", 7),
    ],
)
def test_int64(text: str, value: int) -> None:
    assert parse_int64(text) == value


@pytest.mark.parametrize(
    "text",
    [
        " 3600",
        "3600 ",
        "3600\n",
        "3600s",
        "3_600",
        "0x10",
        "1e3",
        "",
        "+",
        "--5",
        "9223372036854775808",
        "٣٦٠٠",
        "1" * 5000,
    ],
)
def test_no_int64(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_int64(text)


@given(st.text())
def test_int64_never_fails_otherwise(text: str) -> None:
    try:
        value = parse_int64(text)
    except ValueError:
        return
    assert int(text) == value


@pytest.mark.parametrize("text", ["yes", "", " true", "tRUE", "2"])
def test_no_bool(text: str) -> None:
    with pytest.raises(ValueError, match="not a boolean"):
        parse_bool(text)


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("a", ("a",)),
        ("a, b", ("a", " b")),
        ('"a,b",c', ("a,b", "c")),
        ("a,", ("a", "")),
        ('"a""b"', ('a"b',)),
        ("a\nb", ("a",)),
        ("\na,b", ("a", "b")),
        ("\r\n\r\na", ("a",)),
        ('"a\nb",c', ("a\nb", "c")),
        ('"a\r\nb"', ("a\nb",)),
        ('a\n"broken', ("a",)),
        (" ", (" ",)),
        ("", ()),
        ("\n", ()),
        ('a"b', ()),
        ('"a', ()),
        ('"a" ,b', ()),
        (' "a"', ()),
    ],
)
def test_csv(text: str, fields: tuple[str, ...]) -> None:
    assert first_csv_record(text) == fields


@given(st.lists(st.text(alphabet='ab", \n'), min_size=1).filter(lambda fields: fields != [""]))
def test_quoted_csv_comes_back(fields: list[str]) -> None:
    text = ",".join('"' + field.replace('"', '""') + '"' for field in fields)

    assert first_csv_record(text) == tuple(fields)


@pytest.mark.parametrize(
    ("parts", "path"),
    [
        (("/a/b/", "t"), "/a/b/t"),
        (("//a//b", "./t"), "/a/b/t"),
        (("/a/b/..", "t"), "/a/t"),
        (("", "t"), "t"),
        (("/a", ""), "/a"),
        (("", ""), ""),
        (("/..", "t"), "/t"),
    ],
)
def test_join(parts: tuple[str, str], path: str) -> None:
    assert clean_join(*parts) == path


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("100ms", 0.1), ("1s", 1), ("1m30s", 90), ("1.5h", 5400), ("0", 0), ("-1s", -1), ("+.5s", 0.5)],
)
def test_duration(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["100", "", "1 s", "s", "1d", "1s ", "-", "."])
def test_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)
