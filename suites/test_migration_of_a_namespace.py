"""A namespace of mixed workloads goes from IRSA to Pod Identity, led by ``podid migrate plan`` (docs/migrate.md).

Deployment, StatefulSet, DaemonSet and CronJob, each with a ServiceAccount of its own. The tests run the plan's commands
as they are printed; each stage is a fixture that builds on the one before.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness import limits, wait
from harness.cluster.base import Cluster, Completed
from harness.conformance.marks import requirement
from harness.conformance.recording import Evidence, attach, check
from harness.kube import Kube, load_manifests
from harness.lab import Lab
from harness.migrate import Step, gather, plan
from harness.scenario import (
    NOT_BY_WEB_IDENTITY,
    AwsAccount,
    caller_identity,
    read_document,
    wait_until_admission_injects,
    web_identity_refusals,
)

FIXTURES = Path(__file__).parent.parent / "fixtures"
FILES = FIXTURES / "migration"
NAMESPACE = "mixed"
ACCOUNTS = ("collector", "report", "store", "web")
LONG_RUNNING = {"collector": "DaemonSet", "store": "StatefulSet", "web": "Deployment"}
IRSA_SESSION = "arn:aws:sts::123456789012:assumed-role/mixed-irsa-role/"
NEW_SESSION = "arn:aws:sts::123456789012:assumed-role/mixed-pod-identity-role/eks-"


class Fleet:
    """The namespace, its plan, and who its workloads are."""

    def __init__(self, kube: Kube, kubectl: Callable[..., Completed], cluster: Cluster, aws: AwsAccount) -> None:
        self.kube, self.cluster, self.aws = kube, cluster, aws
        self._kubectl = kubectl

    def plan(self) -> list[Step]:
        """``podid migrate plan --namespace mixed``."""
        aws = self.aws
        return plan(gather(self.kube, aws.client("eks"), aws.client("iam"), self.cluster.name, NAMESPACE))

    def wait_for(self, numbers: Sequence[int]) -> list[Step]:
        """Wait until every ServiceAccount is at its step: old pods take a moment to go."""
        steps = wait.until(
            self.plan,
            lambda found: [step.number for step in found] == numbers,
            what=f"steps {numbers}",
            timeout=limits.ROLLOUT,
        )
        shown = [f"{step.account}: step {step.number}, {step.what}\n  " + "\n  ".join(step.commands) for step in steps]
        attach(Evidence("command", "podid migrate plan --namespace mixed", "\n".join(shown)))
        return steps

    def follow(self, steps: Sequence[Step]) -> None:
        """Run the commands of a plan as they are printed."""
        for command in (shlex.split(command) for step in steps for command in step.commands):
            assert command[0] == "kubectl"
            done = self._kubectl(*command[1:])
            assert done.returncode == 0, done.stderr

    def sessions(self, run: str) -> dict[str, str]:
        """Return account → the session that its workload has; the CronJob runs once for this."""
        done = self._kubectl("--namespace", NAMESPACE, "create", "job", run, "--from=cronjob/report")
        assert done.returncode == 0, done.stderr
        pods = {app: self.kube.newest_pod(NAMESPACE, f"app={app}") for app in LONG_RUNNING}
        found = {app: caller_identity(pod)["Arn"] for app, pod in pods.items()}
        return {**found, "report": self._printed(run)}

    def _printed(self, run: str) -> str:
        core: Any = self.kube.core
        (name,) = wait.until(
            lambda: [
                pod.metadata.name
                for pod in core.list_namespaced_pod(NAMESPACE, label_selector=f"job-name={run}").items
                if pod.status.phase == "Succeeded"
            ],
            what=f"job {run} to end",
            timeout=limits.POD_READY,
        )
        return str(core.read_namespaced_pod_log(name, NAMESPACE)).strip()


def podid_migrate_check(lab: Lab, cluster: Cluster) -> Completed:
    """``podid migrate check --namespace mixed``."""
    podid = Path(sys.executable).with_name("podid")
    command = [podid, "migrate", "check", "--lab", lab.name, "--cluster", cluster.name, "--namespace", NAMESPACE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    return Completed(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def policy_arn(aws: AwsAccount) -> Iterator[str]:
    """The permissions that both roles carry."""
    with aws.policy("mixed-s3-read-policy", (FILES / "s3-read-policy.json").read_text()) as arn:
        yield arn


@pytest.fixture(scope="module")
def fleet(
    kube: Kube, kubectl: Callable[..., Completed], cluster: Cluster, aws: AwsAccount, policy_arn: str
) -> Iterator[Fleet]:
    """Everything runs with IRSA, and the agent is installed."""
    aws.create_agent_addon(cluster.name)
    aws.wait_until_agent_is_active(cluster.name)
    trust = read_document(FILES / "mixed-irsa-trust.json", cluster)
    with (
        aws.oidc_provider(cluster.spec.issuer),
        aws.role("mixed-irsa-role", trust, policies=[policy_arn]),
        kube.namespace(NAMESPACE),
    ):
        manifests = load_manifests(FILES / "mixed-workloads.yaml")
        kube.apply([entry for entry in manifests if entry["kind"] == "ServiceAccount"], NAMESPACE)
        for account in ACCOUNTS:
            wait_until_admission_injects(kube, NAMESPACE, account, "AWS_ROLE_ARN")
        kube.apply([entry for entry in manifests if entry["kind"] != "ServiceAccount"], NAMESPACE)
        fleet = Fleet(kube, kubectl, cluster, aws)
        for app in LONG_RUNNING:
            kube.newest_pod(NAMESPACE, f"app={app}")
        yield fleet


@pytest.fixture(scope="module")
def associated(lab: Lab, fleet: Fleet, policy_arn: str) -> Iterator[tuple[Completed, list[Step]]]:
    """Steps 3 and 4, the role first without its policy: what the plan says then, and with it."""
    trust, aws, name = (FIXTURES / "s3" / "pod-identity-trust.json").read_text(), fleet.aws, fleet.cluster.name
    with aws.role("mixed-pod-identity-role", trust) as arn, contextlib.ExitStack() as stack:
        for account in ACCOUNTS:
            stack.enter_context(aws.association(name, NAMESPACE, account, arn))
        for account in ACCOUNTS:
            wait_until_admission_injects(fleet.kube, NAMESPACE, account)
        bare = podid_migrate_check(lab, fleet.cluster)
        with aws.attached(arn, policy_arn):
            yield bare, fleet.wait_for([5, 6, 5, 5])


@requirement("MIG-101")
def test_plan_begins_with_a_role_for_each(fleet: Fleet) -> None:
    """With IRSA alone the next step is a new role, and the plan names the policies that it must have."""
    steps = fleet.plan()

    check("MIG-101", expected=[f"mixed/{account}" for account in ACCOUNTS], observed=[step.account for step in steps])
    check("MIG-101", what="step", expected={3}, observed={step.number for step in steps})
    check(
        "MIG-101", what="policies", expected=True, observed=all("mixed-s3-read-policy" in step.what for step in steps)
    )
    check("MIG-101", what="nothing is wrong", expected=[], observed=[fault for step in steps for fault in step.wrong])


@requirement("API-706")
def test_old_role_is_for_the_namespace_alone(fleet: Fleet) -> None:
    """One trust policy with a wildcard served all of the namespace's ServiceAccounts, and nobody of another one."""
    role = "arn:aws:iam::123456789012:role/mixed-irsa-role"
    observed = [web_identity_refusals(fleet.kube, fleet.aws, role, NAMESPACE, account) for account in ACCOUNTS]

    stranger = {"default/default": NOT_BY_WEB_IDENTITY}
    expected = [{f"{NAMESPACE}/{account}": ""} | stranger for account in ACCOUNTS]
    check("API-706", expected=expected, observed=observed)


@requirement("MIG-103")
def test_lost_permission_is_found_first(associated: tuple[Completed, list[Step]]) -> None:
    """While the new role lacks the old one's policy ``podid migrate check`` says so of each ServiceAccount."""
    bare, complete = associated
    policy = "arn:aws:iam::123456789012:policy/mixed-s3-read-policy"

    lacks = f"mixed-pod-identity-role lacks {policy} of mixed-irsa-role"
    lines = [f"WRONG    {NAMESPACE}/{account}: {lacks}" for account in ACCOUNTS]
    observed = (bare.returncode, bare.stdout.splitlines())
    check("MIG-103", what="without", expected=(1, lines), observed=observed)
    check("MIG-103", what="with", expected=[], observed=[fault for step in complete for fault in step.wrong])


@requirement("MIG-101", "MIG-102")
def test_commands_of_the_plan_move_everything(lab: Lab, fleet: Fleet, associated: tuple[Completed, list[Step]]) -> None:
    """Restarts for what runs, nothing for what comes anew by itself; then the annotations, and it is done."""
    before, steps = fleet.sessions("before"), associated[1]
    restarts = {step.account: list(step.commands) for step in steps if step.number == 5}
    fleet.follow([step for step in steps if step.number == 5])
    unannotate = fleet.wait_for([6, 6, 6, 6])
    fleet.follow(unannotate)
    done = fleet.wait_for([8, 8, 8, 8])
    sound = podid_migrate_check(lab, fleet.cluster)
    after = fleet.sessions("after")

    expected = {
        f"mixed/{app}": [f"kubectl --namespace mixed rollout restart {kind.lower()}/{app}"]
        for app, kind in LONG_RUNNING.items()
    }
    check("MIG-101", what="restarts", expected=expected, observed=restarts)
    check("MIG-101", what="nothing is wrong", expected=[], observed=[fault for step in done for fault in step.wrong])
    assert (sound.returncode, sound.stdout) == (0, "nothing is wrong with 4 ServiceAccounts\n"), sound.stderr
    # The job is a new pod, so it has Pod Identity as soon as there is an association.
    check(
        "MIG-102",
        what="before",
        expected=True,
        observed=all(before[app].startswith(IRSA_SESSION) for app in LONG_RUNNING),
    )
    check("MIG-102", what="job", expected=True, observed=before["report"].startswith(NEW_SESSION))
    moved = {account: arn.startswith(NEW_SESSION) for account, arn in after.items()}
    check("MIG-102", what="after", expected=dict.fromkeys(ACCOUNTS, True), observed=dict(sorted(moved.items())))
    annotations = [
        one["metadata"].get("annotations", {})
        for one in fleet.kube.items(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts")
    ]
    assert "eks.amazonaws.com/role-arn" not in json.dumps(annotations)
