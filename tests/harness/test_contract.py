"""docs/harness-contract.md names every MUST on the harness, once, and only files that there are."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "harness-contract.md").read_text()
LINES = re.findall(r"^\| (HRN-[A-Z]+-[0-9]+) \| (.*) \|$", PAGE, flags=re.MULTILINE)
MUSTS = (Path(__file__).parent / "harness_musts.txt").read_text().split()


def test_every_must_has_one_line() -> None:
    assert sorted(name for name, _ in LINES) == sorted(MUSTS)
    assert len(set(MUSTS)) == len(MUSTS)


def test_every_line_says_how_it_stands() -> None:
    odd = [name for name, text in LINES if not re.match(r"(met|partly|open|elsewhere)( [a-z, ]+)?: \S|met but ", text)]

    assert odd == []


def test_every_file_that_is_named_is_there() -> None:
    found = {name for _, text in LINES for name in re.findall(r"`([\w./_-]+(?:\.(?:py|json|yaml|txt|lock)|/))`", text)}
    # Of a run's directory, not of the checkout.
    names = found - {"run.json", "publish/"}
    homes = (ROOT, ROOT / "harness" / "conformance")

    assert len(names) > 50
    assert sorted(name for name in names if not any((home / name).exists() for home in homes)) == []


def test_every_id_that_a_line_refers_to_is_a_must() -> None:
    named = {name for _, text in LINES for name in re.findall(r"HRN-[A-Z]+-[0-9]+", text)}

    assert named <= set(MUSTS)
