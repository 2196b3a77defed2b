"""The page in a real browser, without a network: its script runs under its own policy, and it fits a phone."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conformance_runs import make_run

from harness.conformance.outcomes import could_not_run
from harness.conformance.reports import write_reports

RUN = make_run({"AGT-1": "passed", "AGT-2": "failed", "WHK-1": ""}, message="E   assert 500 == 400")


@pytest.fixture
def page(tmp_path: Path) -> str:
    write_reports(tmp_path, RUN)
    return (tmp_path / "index.html").as_uri()


@pytest.fixture
def chromium(tmp_path: Path) -> list[str]:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        could_not_run("prerequisite", "no Chromium on PATH; on Debian: apt-get install chromium")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    offline = ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path / 'profile'}"]
    return [program, *options, *offline, "--virtual-time-budget=2000"]


def browse(chromium: list[str], *arguments: str) -> str:
    return subprocess.run([*chromium, *arguments], capture_output=True, text=True, timeout=60, check=True).stdout


def test_a_link_to_a_requirement_opens_it(chromium: list[str], page: str) -> None:
    document = browse(chromium, "--dump-dom", f"{page}#AGT-2")

    assert '<html lang="en" class="js"' in document
    opened = re.findall(r'<details class="row [^"]*" id="([^"]+)"[^>]* open="">', document)
    assert opened == ["AGT-2"]


def test_the_page_is_painted(chromium: list[str], page: str, tmp_path: Path) -> None:
    browse(chromium, "--window-size=1280,1600", f"--screenshot={tmp_path / 'page.png'}", page)

    # A blank page compresses to a few kilobytes.
    assert (tmp_path / "page.png").stat().st_size > 40_000
