"""What the guides tell people to write is what the harness takes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]


def block(guide: Path, language: str) -> str:
    """Return the first block of a language."""
    found = re.search(rf"^```{language}\n(.*?)^```$", guide.read_text(), re.DOTALL | re.MULTILINE)
    assert found
    return found[1]


def test_the_scenario_of_the_guide_is_collected_and_bound(tmp_path: Path) -> None:
    """Beside copies of what it needs, so that nothing of it stays in the checkout."""
    guide = CHECKOUT / "docs" / "write-a-scenario.md"
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(CHECKOUT / name, tmp_path)
    shutil.copytree(CHECKOUT / "suites", tmp_path / "suites", ignore=shutil.ignore_patterns("test_*.py"))
    (tmp_path / "suites" / "test_upload.py").write_text(block(guide, "python"))
    with (tmp_path / "suites" / "requirements" / "iam.yaml").open("a") as ledger:
        ledger.write(block(guide, "yaml"))
    command = [sys.executable, "-m", "pytest", "suites/test_upload.py", "--dry-run", "--partial", "-q"]

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "IAM-UPLOAD-01" in done.stdout
    assert json.loads(block(guide, "json"))["Statement"][0]["Action"] == "s3:PutObject"
