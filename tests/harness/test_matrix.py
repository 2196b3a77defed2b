"""The version matrix: what check says of a wrong one, and what the verbs print. No leg runs but one that cannot."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from harness.conformance.ledger import Ledger, read_ledger
from harness.errors import UsageError
from harness.lab.paths import CHECKOUT
from harness.matrix import Leg, Matrix, features_of, read_matrix
from harness.matrix_commands import Row, app, table, worst_code

FILE = CHECKOUT / "suites" / "matrix.yaml"


@pytest.fixture(scope="module")
def ledger() -> Ledger:
    return read_ledger(CHECKOUT / "suites" / "requirements")


@pytest.fixture
def matrix() -> Matrix:
    return read_matrix(FILE)


def test_the_matrix_covers_everything_there_is(matrix: Matrix, ledger: Ledger) -> None:
    assert matrix.faults(ledger) == []


def test_names_are_made_of_the_axes(matrix: Matrix) -> None:
    names = [leg.name for leg in matrix.legs]

    assert len(set(names)) == len(names)
    assert "native-1.34-ours-all" in names
    assert "process-ours-process" in names


def without(name: str) -> Callable[[Matrix], Matrix]:
    return lambda matrix: replace(matrix, legs=[leg for leg in matrix.legs if leg.name != name])


def with_leg(**changes: Any) -> Callable[[Matrix], Matrix]:
    return lambda matrix: replace(matrix, legs=[*matrix.legs, replace(matrix.legs[0], **changes)])


def with_kubernetes(minor: str, **sources: str) -> Callable[[Matrix], Matrix]:
    return lambda matrix: replace(matrix, kubernetes={**matrix.kubernetes, minor: sources})


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        pytest.param(without("native-1.34-ours-all"), "no leg runs suites/test_upgrade.py", id="scenario"),
        pytest.param(without("process-ours-process"), "no leg runs suites/aws", id="suite"),
        pytest.param(without("kind-1.36-ours-kind"), "no leg runs Kubernetes 1.36 on kind", id="version"),
        pytest.param(with_leg(provider="docker"), "provider 'docker' is none of native, kind, process", id="provider"),
        pytest.param(with_leg(subject="theirs"), "subject 'theirs' is none of ours, upstream", id="subject"),
        pytest.param(with_leg(scenarios="some"), "scenarios 'some' is none of", id="set"),
        pytest.param(with_leg(kubernetes="1.99"), "kubernetes '1.99' is none of", id="unknown-version"),
        pytest.param(with_leg(kubernetes="1.37"), "Kubernetes 1.37 has nothing for provider native", id="no-source"),
        pytest.param(with_leg(on=("yearly",)), "no trigger 'yearly'", id="trigger"),
        pytest.param(with_leg(), "two legs are called native-1.34-ours-all", id="twice"),
        pytest.param(
            lambda matrix: replace(matrix, scenarios={**matrix.scenarios, "s3": ["test_s4.py"]}),
            "scenarios s3: there is no test_s4.py in suites/",
            id="file",
        ),
        pytest.param(
            lambda matrix: replace(matrix, kind_range=("1.35", "1.37")),
            "kind 0.33.0 has no node image of Kubernetes 1.34",
            id="range",
        ),
        pytest.param(
            lambda matrix: replace(matrix, kind_release="0.31.0"), "kind 0.31.0 is not the one we build", id="release"
        ),
        pytest.param(
            with_kubernetes("1.37", kind="kindest/node:v1.37.0"),
            "is no node image of it, pinned by digest",
            id="digest",
        ),
        pytest.param(with_kubernetes("1.35", native="v1.35.0"), "v1.35.0 is not what tools/ builds", id="native"),
    ],
)
def test_what_is_wrong_is_said(matrix: Matrix, ledger: Ledger, change: Callable[[Matrix], Matrix], fault: str) -> None:
    assert fault in "\n".join(change(matrix).faults(ledger))


def test_a_feature_without_a_leg_is_said(matrix: Matrix, ledger: Ledger) -> None:
    """Cross-account is decided by one scenario and by the suite of AWS."""
    without_it = {"all": ["test_s3.py"], "kind": ["test_s3.py"], "process": ["agent"], "s3": ["test_s3.py"]}

    faults = replace(matrix, scenarios=without_it).faults(ledger)

    assert "no leg covers the feature cross-account" in faults


def test_features_are_read_from_decorators(ledger: Ledger, tmp_path: Path) -> None:
    scenario = tmp_path / "test_it.py"
    scenario.write_text('@requirement("UPG-101", "NO-SUCH")\ndef test_it() -> None: ...\n')

    assert features_of(scenario, ledger) == {"core"}


@pytest.mark.parametrize("text", ["schema: other/1\n", "legs: [\n", "schema: podid-matrix/1\n"])
def test_a_file_of_another_form_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "matrix.yaml").write_text(text)

    with pytest.raises(UsageError, match=r"matrix\.yaml"):
        read_matrix(tmp_path / "matrix.yaml")


def test_an_unknown_trigger_is_a_usage_error(matrix: Matrix) -> None:
    with pytest.raises(UsageError, match="there is no trigger 'hourly'"):
        matrix.on("hourly")


def test_json_is_the_matrix_of_github() -> None:
    printed = CliRunner().invoke(app, ["json", "--on", "nightly", "kind-1.37-*"])

    (leg,) = json.loads(printed.stdout)["include"]
    assert leg["name"] == "kind-1.37-ours-kind"
    assert leg["node-image"].startswith("kindest/node:v1.37.0@sha256:")
    assert leg["suites"].startswith("suites/test_abac.py ")


def test_the_whole_of_the_scenarios_needs_no_paths() -> None:
    """Files by name would be a part of the suites, which is never conformant."""
    printed = CliRunner().invoke(app, ["json", "native-1.34-*"])

    assert json.loads(printed.stdout)["include"][0]["suites"] == ""


def test_node_image_of_a_version_is_printed() -> None:
    assert CliRunner().invoke(app, ["node-image", "1.36"]).stdout == f"{read_matrix(FILE).kubernetes['1.36']['kind']}\n"

    with pytest.raises(UsageError, match=r"no node image of Kubernetes '1\.3'\nmatrix\.yaml has 1\.34, 1\.35"):
        CliRunner().invoke(app, ["node-image", "1.3"], catch_exceptions=False)


def test_a_plan_reads_no_credentials_and_says_so() -> None:
    printed = CliRunner().invoke(app, ["plan", "kind-1.34-upstream-s3"]).stdout

    assert re.search(r"pulls: +kindest/node:v1\.34\.11@sha256:", printed)
    assert "is given:    PODID_AGENT_IMAGE PODID_WEBHOOK_IMAGE" in printed
    assert "credentials: none, AWS is emulated" in printed


def test_a_leg_that_cannot_run_is_typed_and_never_a_pass(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("PODID_AGENT_IMAGE", "PODID_WEBHOOK_IMAGE"):
        monkeypatch.delenv(name, raising=False)

    done = CliRunner().invoke(app, ["run", "kind-1.34-upstream-s3", f"--report-dir={tmp_path}"])

    assert done.exit_code == 2
    assert re.search(r"kind-1.34-upstream-s3  could-not-run .* prerequisite: no image of upstream", done.stdout)
    assert "matrix: 0 of 1 legs fine, 1 could not run (exit 2)" in done.stdout


def row(verdict: str, code: int) -> Row:
    return Row("leg", verdict, "1 of 2", 60.0, "", code)


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        ([row("conformant", 0), row("conformant", 0)], 0),
        ([row("conformant", 0), row("could-not-run", 2)], 2),
        ([row("conformant", 0), row("could-not-run", 0)], 2),
        ([row("could-not-run", 2), row("non-conformant", 1)], 1),
        ([row("non-conformant", 1), row("incomplete", 3)], 3),
    ],
    ids=["fine", "could-not-run", "nothing-observed", "non-conformant", "harness"],
)
def test_the_exit_code_is_that_of_the_worst_leg(rows: list[Row], code: int) -> None:
    assert worst_code(rows) == code
    assert table(rows)[-1].endswith(f"(exit {code})")


def test_legs_in_yaml_may_leave_out_kubernetes_only_without_a_cluster(matrix: Matrix) -> None:
    data = yaml.safe_load(FILE.read_text())

    assert {leg["provider"] for leg in data["legs"] if "kubernetes" not in leg} == {"process"}
    assert matrix.source(Leg("process", "ours", "process", ("pr",))) == ""
