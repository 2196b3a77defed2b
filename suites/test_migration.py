"""Migrating from IRSA to Pod Identity: the article's seven steps on one application, and its way back.

The application is a Deployment that reads an object every second and prints how it went. Each step is a fixture that
builds on the one before and keeps what it saw; the tests read from top to bottom like the article, and the last one
counts the reads of the whole way.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from harness import limits, wait
from harness.cluster.base import Cluster, Completed
from harness.conformance.marks import requirement
from harness.conformance.recording import Evidence, attach, check
from harness.kube import Kube, Pod, load_manifests
from harness.lab import Lab
from harness.scenario import (
    AGENT_ADDON,
    NOT_BY_WEB_IDENTITY,
    UUID4,
    AwsAccount,
    LogReader,
    caller_identity,
    credentials_uri,
    read_document,
    stage_of,
    wait_until_admission_injects,
    wait_until_admission_leaves_alone,
    wait_until_association_serves,
    wait_until_irsa_serves,
    web_identity_refusals,
)

pytestmark = pytest.mark.on_aws

FIXTURES = Path(__file__).parent.parent / "fixtures"
FILES = FIXTURES / "migration"
NAMESPACE = "migration-test"
BUCKET = "migration-bucket"
OBJECT = f"s3://{BUCKET}/hello.txt"
NEW_ROLE_ARN = "arn:aws:iam::123456789012:role/migration-podidentity-role"
ANNOTATION = "eks.amazonaws.com/role-arn"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
IRSA_ARN = r"arn:aws:sts::123456789012:assumed-role/migration-irsa-role/botocore-session-\d{10}"


@pytest.fixture(scope="module")
def irsa_variables(cluster: Cluster, irsa_role_arn: str) -> dict[str, str]:
    """What admission gives a pod whose ServiceAccount has the annotation."""
    return {
        "AWS_STS_REGIONAL_ENDPOINTS": "regional",
        "AWS_DEFAULT_REGION": cluster.spec.region,
        "AWS_REGION": cluster.spec.region,
        "AWS_ROLE_ARN": irsa_role_arn,
        "AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/secrets/eks.amazonaws.com/serviceaccount/token",
    }


@pytest.fixture(scope="module")
def pod_identity_variables(cluster: Cluster) -> dict[str, str]:
    """What admission gives a pod that has an association."""
    return {
        "AWS_STS_REGIONAL_ENDPOINTS": "regional",
        "AWS_DEFAULT_REGION": cluster.spec.region,
        "AWS_REGION": cluster.spec.region,
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": credentials_uri(cluster),
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": (
            "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount/eks-pod-identity-token"
        ),
    }


@dataclass(frozen=True, slots=True)
class Moment:
    """What was seen of the application after a step."""

    pod: str
    variables: dict[str, str]
    """``env | grep AWS_`` in the container."""
    arn: str
    """``aws sts get-caller-identity``."""
    annotations: dict[str, str]
    """Of the ServiceAccount."""
    volumes: list[str]
    """Of the pod."""


class Application:
    """The Deployment ``app``, and everything that its pods ever printed."""

    def __init__(self, files: Path, kube: Kube, kubectl: Callable[..., Completed]) -> None:
        self._files = files
        self._kube = kube
        self._kubectl = kubectl
        self._logs: list[LogReader] = []
        self.restarts: dict[str, datetime] = {}
        """Pod → when it was ready."""

    def create_account(self) -> None:
        """``kubectl apply -f``: the ServiceAccount with its annotation."""
        self.kubectl("apply", f"--filename={self._files / 'service-account.yaml'}")

    def start(self) -> Moment:
        """``kubectl apply -f``: the Deployment."""
        self._kube.apply(load_manifests(self._files / "deployment.yaml"))
        return self._follow()

    def restart(self) -> Moment:
        """``kubectl rollout restart deployment app``, and wait for it."""
        self.kubectl("rollout", "restart", "deployment", "app")
        return self._follow()

    def _follow(self) -> Moment:
        self._kube.wait_until_deployed("Deployment", "app", NAMESPACE)
        self._logs.append(LogReader(self.pod))
        self.restarts[self.pod.name] = datetime.now(UTC)
        return self.look(reads=1)  # it became ready with its first

    @property
    def pod(self) -> Pod:
        """Its newest pod."""
        return self._kube.newest_pod(NAMESPACE, "app=app")

    def look(self, *, reads: int = 2) -> Moment:
        """Look at its newest pod after it has read so many times more."""
        log, pod = self._logs[-1], self.pod
        so_far = len(log.lines())
        wait.until(
            lambda: len(log.lines()) >= so_far + reads, what=f"{reads} reads of {pod.name}", timeout=limits.READS
        )
        printed = (line.partition("=") for line in pod.exec("env").stdout.splitlines())
        account = self._kube.read("v1", "ServiceAccount", "app", NAMESPACE)
        return Moment(
            pod=pod.name,
            variables={name: value for name, _, value in printed if name.startswith("AWS_")},
            arn=caller_identity(pod)["Arn"],
            annotations=account["metadata"].get("annotations", {}),
            volumes=[volume["name"] for volume in pod.read()["spec"]["volumes"]],
        )

    def finish_former(self) -> None:
        """Read the logs of the pods that were replaced to their ends: with the API server away they may be lost."""
        for log in self._logs[:-1]:
            log.close()

    def reads(self) -> dict[str, list[str]]:
        """Return pod → the lines it printed, one a read."""
        return {log.pod.name: log.lines() for log in self._logs}

    def kubectl(self, *arguments: str) -> str:
        """Run ``kubectl --namespace migration-test …``."""
        done = self._kubectl(f"--namespace={NAMESPACE}", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def stop(self) -> None:
        """Delete the Deployment, and read its last pod's log to the end."""
        self.kubectl("delete", "deployment", "app", "--ignore-not-found")
        for log in self._logs:
            log.close()


# --- The seven steps, in the article's order ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def policy_arn(aws: AwsAccount) -> Iterator[str]:
    """The bucket and the permissions that both roles carry."""
    with aws.bucket(BUCKET) as name:
        aws.client("s3").put_object(Bucket=name, Key="hello.txt", Body=b"Hello from Pod Identity!\n")
        with aws.policy("migration-s3-read-policy", (FILES / "s3-read-policy.json").read_text()) as arn:
            yield arn


@pytest.fixture(scope="module")
def irsa_role_arn(cluster: Cluster, aws: AwsAccount, policy_arn: str) -> Iterator[str]:
    """Before the first step: an issuer that IAM knows, and a role that trusts it."""
    trust = read_document(FILES / "irsa-trust.json", cluster)
    with (
        aws.oidc_provider(cluster.spec.issuer),
        aws.role("migration-irsa-role", trust, policies=[policy_arn]) as arn,
    ):
        yield arn


@pytest.fixture(scope="module")
def irsa_arn(aws: AwsAccount) -> str:
    """Pattern of the ARN of the old role's sessions."""
    return aws.text(IRSA_ARN)


@pytest.fixture(scope="module")
def new_role_sessions(aws: AwsAccount) -> str:
    """What the ARN of a session of the new role begins with."""
    return aws.text("arn:aws:sts::123456789012:assumed-role/migration-podidentity-role/eks-")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, aws: AwsAccount) -> Path:
    """The manifests, with the role and the bucket that are used."""
    directory = tmp_path_factory.mktemp("migration")
    for name in ("service-account.yaml", "deployment.yaml"):
        (directory / name).write_text(aws.text((FILES / name).read_text()))
    return directory


@pytest.fixture(scope="module")
def application(
    kube: Kube, kubectl: Callable[..., Completed], files: Path, irsa_role_arn: str
) -> Iterator[Application]:
    """A namespace for it."""
    assert irsa_role_arn
    with kube.namespace(NAMESPACE):
        application = Application(files, kube, kubectl)
        yield application
        application.stop()


@pytest.fixture(scope="module")
def baseline(application: Application, kube: Kube, aws: AwsAccount, irsa_role_arn: str) -> Moment:
    """Step 1: IRSA alone; the application is ready once it has read."""
    application.create_account()
    wait_until_admission_injects(kube, NAMESPACE, "app", "AWS_ROLE_ARN")
    wait_until_irsa_serves(aws, kube, irsa_role_arn, NAMESPACE, "app")
    with stage_of("API-711"):
        return application.start()


@pytest.fixture(scope="module")
def addon(baseline: Moment, cluster: Cluster, aws: AwsAccount) -> str:
    """Step 2: ``aws eks create-addon``: its name, once it is active."""
    assert baseline
    aws.create_agent_addon(cluster.name)
    aws.wait_until_agent_is_active(cluster.name)
    return AGENT_ADDON


@pytest.fixture(scope="module")
def role_arn(addon: str, aws: AwsAccount, policy_arn: str) -> Iterator[str]:
    """Step 3: a new role with the universal trust policy and the old role's permissions."""
    assert addon
    trust = (FIXTURES / "s3" / "pod-identity-trust.json").read_text()
    with aws.role("migration-podidentity-role", trust, policies=[policy_arn]) as arn:
        yield arn


@pytest.fixture(scope="module")
def associated(
    application: Application, kube: Kube, cluster: Cluster, aws: AwsAccount, role_arn: str
) -> Iterator[Moment]:
    """Step 4: ``aws eks create-pod-identity-association``; the running pod is looked at once admission knows it."""
    with aws.association(cluster.name, NAMESPACE, "app", role_arn):
        wait_until_admission_injects(kube, NAMESPACE, "app")
        wait_until_association_serves(aws, kube, NAMESPACE, "app", "aws", "s3", "cp", aws.text(OBJECT), "-")
        yield application.look()


@pytest.fixture(scope="module")
def restarted(application: Application, associated: Moment) -> Moment:
    """Step 5: restart, and Pod Identity takes over."""
    assert associated
    return application.restart()


@pytest.fixture(scope="module")
def unannotated(application: Application, restarted: Moment) -> Moment:
    """Step 6: ``kubectl annotate sa app eks.amazonaws.com/role-arn-``, and one restart more."""
    assert restarted
    application.kubectl("annotate", "serviceaccount", "app", f"{ANNOTATION}-")
    return application.restart()


@pytest.fixture(scope="module")
def annotated_again(application: Application, unannotated: Moment, irsa_role_arn: str) -> Moment:
    """The way back, done wrong: the annotation again and a restart, while the association still exists."""
    assert unannotated
    application.kubectl("annotate", "serviceaccount", "app", f"{ANNOTATION}={irsa_role_arn}", "--overwrite")
    return application.restart()


@pytest.fixture(scope="module")
def rolled_back(
    application: Application, annotated_again: Moment, kube: Kube, cluster: Cluster, aws: AwsAccount
) -> Moment:
    """The way back, done right: the association deleted, and a restart."""
    assert annotated_again
    delete_association(aws, cluster)
    wait_until_admission_leaves_alone(kube, NAMESPACE, "app")
    return application.restart()


def delete_association(aws: AwsAccount, cluster: Cluster) -> None:
    """``aws eks list-pod-identity-associations`` and ``delete-pod-identity-association``."""
    eks = aws.client("eks")
    (found,) = eks.list_pod_identity_associations(clusterName=cluster.name, namespace=NAMESPACE, serviceAccount="app")[
        "associations"
    ]
    eks.delete_pod_identity_association(clusterName=cluster.name, associationId=found["associationId"])


@pytest.fixture(scope="module")
def forward_again(
    application: Application, rolled_back: Moment, kube: Kube, cluster: Cluster, aws: AwsAccount
) -> Iterator[Moment]:
    """Steps 4 to 6 once more: association, annotation removed, restart."""
    assert rolled_back
    with aws.association(cluster.name, NAMESPACE, "app", aws.text(NEW_ROLE_ARN)):
        wait_until_admission_injects(kube, NAMESPACE, "app")
        wait_until_association_serves(aws, kube, NAMESPACE, "app", "aws", "s3", "cp", aws.text(OBJECT), "-")
        application.kubectl("annotate", "serviceaccount", "app", f"{ANNOTATION}-")
        yield application.restart()


@pytest.fixture(scope="module")
def migrated(application: Application, forward_again: Moment, aws: AwsAccount, policy_arn: str) -> Moment:
    """Step 7: ``aws iam detach-role-policy`` and ``delete-role`` of the old role."""
    assert forward_again
    iam = aws.client("iam")
    iam.detach_role_policy(RoleName="migration-irsa-role", PolicyArn=policy_arn)
    iam.delete_role(RoleName="migration-irsa-role")
    return application.look()


# --- What the steps show --------------------------------------------------------------------------------------------


@requirement("WHK-901", "API-711")
def test_step_1_irsa_works_alone(baseline: Moment, irsa_variables: dict[str, str], irsa_arn: str) -> None:
    """The pod has IRSA's pair of variables, and its session the SDK's name."""
    check("WHK-901", expected=irsa_variables, observed=baseline.variables)
    check("API-711", expected=irsa_arn, observed=baseline.arn, holds=bool(re.fullmatch(irsa_arn, baseline.arn)))


@requirement("API-712")
def test_step_1_asks_the_regional_sts(baseline: Moment, lab: Lab) -> None:
    """The pod exchanges its token with the STS of its region."""
    assert baseline
    journal = lab.control().journal()
    exchanges = [entry for entry in journal if entry["operation"] == "AssumeRoleWithWebIdentity"]
    exchanges = [entry for entry in exchanges if entry["user_agent"].startswith("aws-cli/")]

    hosts = {entry["host"] for entry in exchanges}
    check("API-712", expected=["sts.eu-west-1.amazonaws.com"], observed=sorted(hosts))


@requirement("API-706")
def test_old_role_is_for_the_application_alone(
    baseline: Moment, kube: Kube, aws: AwsAccount, irsa_role_arn: str
) -> None:
    """The trust policy that IRSA needs names the application's ServiceAccount: another one's token is refused."""
    assert baseline
    check(
        "API-706",
        expected={f"{NAMESPACE}/app": "", "default/default": NOT_BY_WEB_IDENTITY},
        observed=web_identity_refusals(kube, aws, irsa_role_arn, NAMESPACE, "app"),
    )


@requirement("WHK-902")
def test_step_4_running_pod_is_not_affected(
    application: Application, baseline: Moment, associated: Moment, irsa_variables: dict[str, str], irsa_arn: str
) -> None:
    """With add-on, role and association in place the running pod stays the same, with IRSA's variables and role."""
    kept = wait.never(
        lambda: application.pod.name, lambda name: name != baseline.pod, what="another pod", during=limits.UNAFFECTED
    )
    check("WHK-902", what="pod", expected=[baseline.pod] * 2, observed=[associated.pod, kept])
    check("WHK-902", what="variables", expected=irsa_variables, observed=associated.variables)
    check(
        "WHK-902",
        what="role",
        expected=irsa_arn,
        observed=associated.arn,
        holds=bool(re.fullmatch(irsa_arn, associated.arn)),
    )
    check("WHK-902", what="volumes", expected=baseline.volumes, observed=associated.volumes)


@requirement("WHK-903")
def test_step_5_restart_makes_pod_identity_win(
    restarted: Moment,
    cluster: Cluster,
    pod_identity_variables: dict[str, str],
    irsa_role_arn: str,
    new_role_sessions: str,
) -> None:
    """The next pod has Pod Identity's pair and nothing of IRSA, although the annotation is still there."""
    arn = rf"{new_role_sessions}{re.escape(cluster.name[:10])}-{restarted.pod[:10]}-{UUID4}"

    check("WHK-903", what="annotation", expected=irsa_role_arn, observed=restarted.annotations[ANNOTATION])
    check("WHK-903", what="variables", expected=pod_identity_variables, observed=restarted.variables)
    irsa = "aws-iam-token"
    check(
        "WHK-903",
        what="volumes",
        expected=f"no {irsa}",
        observed=restarted.volumes,
        holds=irsa not in restarted.volumes,
    )
    check("WHK-903", what="role", expected=arn, observed=restarted.arn, holds=bool(re.fullmatch(arn, restarted.arn)))


@requirement("WHK-904")
def test_step_6_annotation_is_dead_weight(
    unannotated: Moment, pod_identity_variables: dict[str, str], irsa_role_arn: str, new_role_sessions: str
) -> None:
    """Removing the annotation changes nothing; kubectl's copy of what was once applied is no annotation of IRSA's."""
    applied: dict[str, Any] = json.loads(unannotated.annotations[LAST_APPLIED])

    assert ANNOTATION not in unannotated.annotations
    assert applied["metadata"]["annotations"] == {ANNOTATION: irsa_role_arn}
    check("WHK-904", what="variables", expected=pod_identity_variables, observed=unannotated.variables)
    role = new_role_sessions
    check("WHK-904", what="role", expected=role, observed=unannotated.arn, holds=unannotated.arn.startswith(role))


@requirement("WHK-903")
def test_killed_api_server_leaves_the_application_its_role(
    application: Application, unannotated: Moment, lab: Lab, cluster: Cluster
) -> None:
    """Killed in the middle of the way: the application reads on with the new role, and the steps go on."""
    application.finish_former()
    lab.restart_api_server(cluster)
    after = application.look()

    check("WHK-903", expected=(unannotated.pod, unannotated.variables), observed=(after.pod, after.variables))
    role = "arn:aws:sts::123456789012:assumed-role/migration-podidentity-role/eks-"
    check("WHK-903", what="role", expected=role, observed=after.arn, holds=after.arn.startswith(role))


@requirement("WHK-905")
def test_annotation_alone_does_not_roll_back(
    annotated_again: Moment, pod_identity_variables: dict[str, str], irsa_role_arn: str, new_role_sessions: str
) -> None:
    """While the association exists, putting the annotation back and restarting leaves the pod with Pod Identity."""
    assert annotated_again.annotations[ANNOTATION] == irsa_role_arn
    check("WHK-905", what="variables", expected=pod_identity_variables, observed=annotated_again.variables)
    role = new_role_sessions
    check(
        "WHK-905", what="role", expected=role, observed=annotated_again.arn, holds=annotated_again.arn.startswith(role)
    )


@requirement("WHK-906", "API-711")
def test_deleting_the_association_rolls_back(
    rolled_back: Moment, irsa_variables: dict[str, str], irsa_arn: str
) -> None:
    """Once the association is gone, the next pod has IRSA again, with the old role that was kept for this."""
    check("WHK-906", expected=irsa_variables, observed=rolled_back.variables)
    check("API-711", expected=irsa_arn, observed=rolled_back.arn, holds=bool(re.fullmatch(irsa_arn, rolled_back.arn)))


@requirement("WHK-903")
def test_step_7_old_role_is_not_missed(
    migrated: Moment, aws: AwsAccount, pod_identity_variables: dict[str, str], new_role_sessions: str
) -> None:
    """With the old role deleted and the annotation gone, the application is the new role and goes on reading."""
    roles = [
        role["RoleName"] for page in aws.client("iam").get_paginator("list_roles").paginate() for role in page["Roles"]
    ]

    assert aws.name("migration-irsa-role") not in roles
    assert ANNOTATION not in migrated.annotations
    check("WHK-903", expected=pod_identity_variables, observed=migrated.variables)
    role = new_role_sessions
    check("WHK-903", what="role", expected=role, observed=migrated.arn, holds=migrated.arn.startswith(role))


@requirement("WHK-902", "WHK-903", "WHK-904")
def test_no_read_failed_on_the_whole_way(application: Application, migrated: Moment) -> None:
    """Five restarts, both ways, an API server killed, the end: every single read succeeded, and none came late."""
    assert migrated
    reads = application.reads()

    lines = [line for printed in reads.values() for line in printed]
    times = sorted(datetime.fromisoformat(line[:20]) for line in lines)
    silence = max((later - sooner).total_seconds() for sooner, later in pairwise(times))
    title = f"the {len(lines)} reads of the whole migration, at most {silence:.0f} s after one another"
    attach(Evidence("plot", title, drawn(reads, application.restarts)))
    assert [line for line in lines if not line.endswith("Z read")] == []
    assert len(reads) == 6
    assert silence <= limits.READ_AGAIN.allowed


def drawn(reads: dict[str, list[str]], restarts: dict[str, datetime]) -> dict[str, Any]:
    """Return the reads as a plot: a line for each pod, a point for each read, and when each step restarted it."""
    points = {
        pod: [(datetime.fromisoformat(line[:20]), line.endswith(" read")) for line in lines]
        for pod, lines in reads.items()
    }
    first = min(at for row in points.values() for at, _ in row)
    return {
        "series": [
            {"name": pod, "points": [[(at - first).total_seconds(), good] for at, good in row]}
            for pod, row in points.items()
        ],
        "events": [
            {"at": max(0.0, (at - first).total_seconds()), "what": f"pod {pod} is ready"}
            for pod, at in restarts.items()
        ],
    }
