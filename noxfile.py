"""Sessions: what to run, locally and in CI. Arguments after ``--`` go to what a session calls."""

from __future__ import annotations

import itertools
from pathlib import Path

import nox
import nox.command

nox.needs_version = ">=2025.5"
nox.options.default_venv_backend = "uv"
nox.options.reuse_venv = "yes"  # uv sync makes it exactly what the lock says
nox.options.sessions = ["lint", "tests", "e2e"]


def sync(session: nox.Session, *options: str) -> None:
    """Install exactly what uv.lock says into the session's environment."""
    session.run_install(
        "uv",
        "sync",
        "--locked",
        "--quiet",
        # Half a second a process, also where the environment forbids Python to keep what it compiles.
        "--compile-bytecode",
        f"--python={session.virtualenv.location}",
        *options,
        env={"UV_PROJECT_ENVIRONMENT": session.virtualenv.location, "VIRTUAL_ENV": session.virtualenv.location},
    )


@nox.session
def e2e(session: nox.Session) -> None:
    """Raise a lab, run the scenarios, print the verdict, remove the lab (-- --keep leaves it up)."""
    sync(session, "--no-dev")
    try:
        # Ctrl-C: give the clean-up its time before nox kills it.
        session.run("podid", "run", *session.posargs, interrupt_timeout=120, terminate_timeout=30)
    except nox.command.CommandFailed as failure:
        # nox itself would turn every failure into 1; ours says who is to blame (README, exit codes).
        raise SystemExit(failure.return_code) from None


@nox.session(default=False)
def agent(session: nox.Session) -> None:
    """Judge an agent by itself, no cluster, no root (-- --agent-command "…" takes somebody else's)."""
    judge(session, "suites/agent")


@nox.session(default=False)
def webhook(session: nox.Session) -> None:
    """Judge a webhook by itself, no cluster, no root (-- --webhook-command "…" takes somebody else's)."""
    judge(session, "suites/webhook")


@nox.session(default=False)
def aws(session: nox.Session) -> None:
    """Judge the emulated AWS by itself: IAM, STS, EKS, EKS Auth, CloudTrail; no cluster, no root."""
    judge(session, "suites/aws")


def judge(session: nox.Session, suite: str) -> None:
    """Run a suite that needs no cluster; its verdict is the session's exit code."""
    sync(session)
    try:
        session.run("pytest", suite, "--numprocesses=auto", "--dist=loadfile", *session.posargs)
    except nox.command.CommandFailed as failure:
        raise SystemExit(failure.return_code) from None


@nox.session(default=False)
def mutants(session: nox.Session) -> None:
    """Prove that the suites can fail: which requirement finds out which broken agent or webhook (-- --full NAME…)."""
    sync(session)
    try:
        session.run("podid", "mutants", *session.posargs, interrupt_timeout=30)
    except nox.command.CommandFailed as failure:
        raise SystemExit(failure.return_code) from None


@nox.session(default=False)
def matrix(session: nox.Session) -> None:
    """Run the legs of suites/matrix.yaml one after the other, and print a table (-- 'native-*', -- --on nightly)."""
    sync(session)
    try:
        session.run("podid", "matrix", "run", *session.posargs, interrupt_timeout=120, terminate_timeout=30)
    except nox.command.CommandFailed as failure:
        raise SystemExit(failure.return_code) from None


@nox.session
def compare(session: nox.Session) -> None:
    """Say what was lost between two runs of e2e (-- OLD NEW, directories of reports/)."""
    sync(session, "--no-dev")
    try:
        session.run("podid", "compare", *session.posargs)
    except nox.command.CommandFailed as failure:
        raise SystemExit(failure.return_code) from None


@nox.session
def tests(session: nox.Session) -> None:
    """Test the harness, the agent and the webhook without a cluster; report coverage."""
    sync(session)
    session.run("pytest", "--numprocesses=auto", "--dist=loadfile", "--cov", "--cov-report=term", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and types."""
    sync(session)
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("pyright")


@nox.session(default=False)
def workflows(session: nox.Session) -> None:
    """Check the GitHub workflows and the action: actionlint, built at first use, and zizmor."""
    sync(session)
    session.run("python", "-m", "harness.workflow_lint")
    session.run("zizmor", "--offline", "--no-progress", ".github")


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Measure what tests/bench/ can measure, or what is named (-- agent --peer-command "…")."""
    sync(session)
    known = sorted(path.stem.removeprefix("bench_") for path in Path("tests/bench").glob("bench_*.py"))
    chosen = list(itertools.takewhile(known.__contains__, session.posargs))
    options = session.posargs[len(chosen) :]
    if options and not chosen:
        session.error(f"{options[0]}: name first what is to be measured: {', '.join(known)}")
    for name in chosen or known:
        session.run("python", f"tests/bench/bench_{name}.py", *options)


@nox.session(default=False)
def fuzz(session: nox.Session) -> None:
    """Fuzz policies and signatures against a second evaluator (-- --minutes 10)."""
    sync(session)
    session.run("python", "tests/fuzz/fuzz.py", *session.posargs)


@nox.session
def doctor(session: nox.Session) -> None:
    """Check whether this machine can raise a lab."""
    sync(session, "--no-dev")
    session.run("podid", "doctor", *session.posargs)
