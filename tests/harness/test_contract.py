"""The pages of what is promised name every MUST, once, and only files and tests that there are."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = {
    "harness-contract": ("harness_musts.txt", "HRN", ("", "harness/conformance")),
    "emulator-contract": ("emulator_musts.txt", "EMU", ("", "tests/cloud/localstack")),
}
"""Name of the page: its list of MUSTs, how their IDs begin, folders of what it names."""
page = pytest.mark.parametrize("page", PAGES)


def lines(page: str) -> list[tuple[str, str]]:
    text = (ROOT / "docs" / f"{page}.md").read_text()
    return re.findall(rf"^\| ({PAGES[page][1]}-[A-Z0-9]+-[A-Z0-9]+) \| (.*) \|$", text, flags=re.MULTILINE)


def musts(page: str) -> list[str]:
    return (Path(__file__).parent / PAGES[page][0]).read_text().split()


def found(page: str, name: str) -> Path | None:
    return next((ROOT / home / name for home in PAGES[page][2] if (ROOT / home / name).exists()), None)


@page
def test_every_must_has_one_line(page: str) -> None:
    named = [name for name, _ in lines(page)]

    assert len(set(named)) == len(named)
    assert sorted(set(musts(page)) - set(named)) == []
    assert len(set(musts(page))) == len(musts(page))


@page
def test_every_line_says_how_it_stands(page: str) -> None:
    how = r"(met|partly|open|elsewhere)( [a-z, ]+)?: \S|met but "

    assert [name for name, text in lines(page) if not re.match(how, text)] == []


@page
def test_every_file_and_test_that_is_named_is_there(page: str) -> None:
    named = {
        name
        for _, text in lines(page)
        for name in re.findall(r"`([\w./_-]+(?:\.(?:py|json|yaml|txt|lock)|/)(?:::\w+)?)`", text)
    }
    # Of a run's directory, not of the checkout.
    named -= {"run.json", "publish/"}
    absent: list[str] = []
    for name in named:
        path, _, test = name.partition("::")
        file = found(page, path)
        if file is None or (test and test not in functions(file)):
            absent.append(name)

    assert len(named) > 40
    assert sorted(absent) == []


def functions(file: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef)}


@page
def test_every_id_that_a_line_refers_to_is_a_must(page: str) -> None:
    prefix = PAGES[page][1]
    named = {name for _, text in lines(page) for name in re.findall(rf"{prefix}-[A-Z]+-[A-Z0-9]+", text)}

    assert named <= set(musts(page))


# --- what no single test can show -----------------------------------------------------------------------------------

# The webhook and its suite do without it where their own contract says so.
OURS = [
    path
    for folder in ("agent", "fixtures", "harness")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in {".py", ".yaml", ".yml", ".sh", ""} and path.is_file() and "mutants" not in path.parts
]


def lines_with(pattern: str) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in OURS
        for line in path.read_text(errors="replace").splitlines()
        if re.search(pattern, line)
    ]


def test_no_client_goes_without_verification() -> None:
    """EMU-BASE-TLS: no certificate of the lab's AWS is taken on trust."""
    assert lines_with(r"verify\s*=\s*False|no-verify-ssl|_create_unverified|check_hostname\s*=\s*False") == []


def test_nothing_mounts_the_engine_s_socket() -> None:
    """EMU-CTR-NOSOCKET: no container gets the means to make others."""
    assert lines_with(r"docker\.sock[^e]") == []
