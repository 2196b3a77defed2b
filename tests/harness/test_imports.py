"""The tree is the architecture: dependencies point down, and subjects know nothing of the harness."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PURE_FORBIDDEN = {
    "localstack",
    "moto",
    "werkzeug",
    "boto3",
    "botocore",
    "requests",
    "socket",
    "subprocess",
}


def imports(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def modules(*directories: str, without: str = "/nothing/") -> list[Path]:
    found = [file for directory in directories for file in sorted((ROOT / directory).rglob("*.py"))]
    assert found
    return [file for file in found if without not in str(file)]


def is_below(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


@pytest.mark.parametrize("file", modules("agent", "webhook"), ids=lambda file: str(file.relative_to(ROOT)))
def test_subjects_import_nothing_of_the_harness(file: Path) -> None:
    assert not {name for name in imports(file) if is_below(name, "harness")}


@pytest.mark.parametrize(
    "file", modules("harness/cloud", without="/localstack/"), ids=lambda file: str(file.relative_to(ROOT))
)
def test_the_cloud_s_domain_knows_no_emulator_and_does_no_input_or_output(file: Path) -> None:
    names = imports(file)

    assert not {name for name in names if name.partition(".")[0] in PURE_FORBIDDEN}
    assert not {name for name in names if is_below(name, "harness") and not is_below(name, "harness.cloud")}
    assert not {name for name in names if is_below(name, "harness.cloud.localstack")}


@pytest.mark.parametrize("file", modules("harness/cluster"), ids=lambda file: str(file.relative_to(ROOT)))
def test_clusters_know_neither_the_cloud_nor_the_suites(file: Path) -> None:
    above = ("harness.cloud", "harness.lab", "harness.scenario", "harness.conformance", "harness.cli")

    assert not {name for name in imports(file) for package in above if is_below(name, package)}


@pytest.mark.parametrize(
    "file", modules("harness", without="/localstack/"), ids=lambda file: str(file.relative_to(ROOT))
)
def test_only_the_adapter_knows_localstack(file: Path) -> None:
    assert not {name for name in imports(file) if name.partition(".")[0] in {"localstack", "moto"}}


def test_only_one_package_names_localstack() -> None:
    """EMU-PORT-ONEMODULE: nor do texts that are imported later name it, but for the groups of entry points."""
    named = {
        f"{file.name}: {node.value}"
        for file in modules("harness/cloud/localstack", without="/internals/")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(r"(localstack|moto|rolo|twisted)(\.\w+)+", node.value)
    }

    assert named == {
        "serve.py: localstack.aws.provider",
        "serve.py: localstack.hooks.on_infra_start",
    }


@pytest.mark.parametrize("file", modules("harness/conformance"), ids=lambda file: str(file.relative_to(ROOT)))
def test_the_engine_knows_neither_lab_nor_cluster_nor_cloud(file: Path) -> None:
    above = ("harness.cloud", "harness.cluster", "harness.kube", "harness.lab", "harness.scenario", "harness.cli")

    assert not {name for name in imports(file) for package in above if is_below(name, package)}


@pytest.mark.parametrize("file", modules("harness/conformance/reports"), ids=lambda file: file.stem)
def test_a_report_reads_the_record_and_knows_no_other_report(file: Path) -> None:
    below = "harness.conformance"
    known = {name for name in imports(file) if is_below(name, below)}

    mine = (f"{below}.record", f"{below}.sizes")
    assert not {name for name in known if not any(is_below(name, one) for one in mine) and "._" not in name}


@pytest.mark.parametrize(
    "file", modules("harness", without="/subject/mutants/"), ids=lambda file: str(file.relative_to(ROOT))
)
def test_only_mutants_import_subjects(file: Path) -> None:
    subjects = ("podid_agent", "podid_webhook", "harness.subject.mutants.agent", "harness.subject.mutants.webhook")

    assert not {name for name in imports(file) for package in subjects if is_below(name, package)}
