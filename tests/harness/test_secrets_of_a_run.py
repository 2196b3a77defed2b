"""No secret of a run reaches what it leaves: the plugin on small suites."""

from __future__ import annotations

import base64
import hashlib
import json

import pytest
from small_suites import BOTH_PASS, directory, make_suite, record, run, the_test

from harness.conformance.canary import VARIABLE

pytest_plugins = ["pytester"]


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    return make_suite(pytester, monkeypatch)


def test_no_secret_reaches_record_reports_or_screen(suite: pytest.Pytester) -> None:
    secret, token = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY12", "IQoJb3JpZ2luX2VjEXAMPLETOKEN0123456789"
    body = f"""
@requirement("AGT-1")
def test_a():
    attach(Evidence("http", "GET", {{"SecretAccessKey": "{secret}", "headers": "X-Amz-Security-Token: {token}"}}))
    print("printed {token}")
    answer = 'AWS_SECRET_ACCESS_KEY={secret}'
    assert answer == ""
"""

    result = run(suite, body)

    assert result.ret == 1
    files = [path for path in directory(suite).rglob("*") if path.is_file()]
    texts = [file.read_text() for file in files] + [result.stdout.str()]
    shown = [text for text in texts if secret in text or token in text]
    # pytest quotes the lines of the test itself, where these two stand.
    assert shown == []
    assert record(suite).redactions["session-token"] >= 1


def test_whatever_a_subject_says_can_be_written_down(suite: pytest.Pytester) -> None:
    body = """
@requirement("AGT-1")
def test_a():
    attach(Evidence("text", "odd \\ud800", {"b": b"\\xff", 1: float("nan"), "o": object, "deep": [{"x": {1, 2}}]}))
    check("AGT-1", expected="\\ud800", observed="\\x00")
"""

    assert run(suite, body).ret == 1
    assert the_test(suite).evidence[0].title == "odd ?"
    assert the_test(suite).evidence[0].content["1"] == "nan"


def test_a_canary_that_comes_through_closes_the_run(suite: pytest.Pytester) -> None:
    body = f"""
import os
@requirement("AGT-1")
def test_a(): attach(Evidence("text", "environment", "pod says " + os.environ["{VARIABLE}"]))
"""

    result = run(suite, body)

    assert result.ret == 3
    assert [fault.message.split()[0] for fault in record(suite).faults] == ["events.jsonl", "index.html", "run.json"]
    assert "PODIDCANARY" not in "".join(path.read_text() for path in directory(suite).iterdir())
    assert not (directory(suite) / "publish").exists()


def test_the_canary_s_specimen_shows_what_became_of_it(suite: pytest.Pytester) -> None:
    run(suite, BOTH_PASS)

    specimen = record(suite).specimen
    assert specimen["data"]["SecretAccessKey"].startswith("«aws-secret:")
    assert "PODIDCANARY" not in json.dumps(specimen)


# --- Secrets that were issued ---------------------------------------------------------------------------------------

LEAKY_COLLECTOR = """
import base64

class LeakyCollector:
    name = "leaky"
    def __init__(self, content): self.content = content
    def collect(self, folder, since):
        folder.text("seen.txt", "something")
        # Past the door that takes secrets out.
        (folder._directory / "dump.txt").write_text(self.content)

@pytest.fixture
def minted(issued, diagnostics):
    secret = SECRET
    issued.add({{secret: "token signature"}})
    looker = LeakyCollector({encoded})
    diagnostics.register(looker)
    yield
    diagnostics.unregister(looker)

@requirement("AGT-1")
def test_a(minted): assert {holds}
"""
# Nothing in it comes twice, or the forms of two places would be found in it.
ISSUED_TOKEN = base64.urlsafe_b64encode(b"".join(hashlib.sha256(bytes([n])).digest() for n in range(8))).decode()[:340]


@pytest.mark.parametrize(
    ("secret", "encoded", "found"),
    [
        (f'"{ISSUED_TOKEN}"', "secret", "token signature (plain)"),
        (f'"{ISSUED_TOKEN}"', "base64.b64encode(b'.' + secret.encode()).decode()", "token signature (base64 at 1)"),
        ('issued.marker + "x" * 28', "secret", "AWS secret with the run's marker (plain)"),
        ('issued.marker + "x" * 28', "secret.encode().hex()", "AWS secret with the run's marker (hex)"),
    ],
    ids=["token", "token in base64", "minted", "minted in hex"],
)
@pytest.mark.parametrize("workers", [[], ["-pxdist", "-n1"]], ids=["one process", "pytest-xdist"])
def test_a_leaky_collector_is_found_out(
    suite: pytest.Pytester, secret: str, encoded: str, found: str, workers: list[str]
) -> None:
    body = LEAKY_COLLECTOR.replace("SECRET", secret).format(encoded=encoded, holds=False)

    result = run(suite, body, *workers)

    made = directory(suite)
    (fault,) = record(suite).faults
    assert result.ret == 3
    assert (fault.where, fault.message) == (
        "secret",
        f"diagnostics/test_a/dump.txt held a secret and was deleted: {found}",
    )
    assert not (made / "publish").exists()
    assert (made / "diagnostics" / "test_a" / "seen.txt").exists()
    assert not any(ISSUED_TOKEN in file.read_text() for file in made.rglob("*") if file.is_file())
    assert ISSUED_TOKEN not in result.stdout.str()
