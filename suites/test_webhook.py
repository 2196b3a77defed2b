"""The webhook on a real cluster: a burst with a replica killed, races with its caches, its certificate, its absence.

What a request to the webhook alone shows is decided in ``suites/webhook/``. Here an API server asks, and most pods are
server-side dry runs: admission is the same as for any pod, and nothing has to run.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from harness import limits, wait
from harness.cluster.base import Cluster
from harness.conformance.marks import requirement
from harness.conformance.recording import Evidence, attach, check
from harness.doctor_webhook import passed_over, webhook_checks
from harness.kube import ApiException, Kube, Manifest, Pod, pod_manifest
from harness.lab import Lab
from harness.pki import Authority
from harness.scenario import AwsAccount, caller_identity, wait_until_admission_injects, without_webhook

pytestmark = pytest.mark.usefixtures("agent_addon")

ROOT = Path(__file__).parents[1]
TRUST = ROOT / "fixtures" / "s3" / "pod-identity-trust.json"
IMAGE = "amazon/aws-cli:latest"
SYSTEM = "kube-system"
WEBHOOK = "pod-identity-webhook"
SELECTOR = f"app.kubernetes.io/name={WEBHOOK}"
SKIP_LABEL = "eks.amazonaws.com/skip-pod-identity-webhook"
ROLE_ANNOTATION = "eks.amazonaws.com/role-arn"
IRSA_ROLE = "arn:aws:iam::123456789012:role/irsa"
TOKEN_DIRECTORY = "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount"
NOWHERE = {"nodeSelector": {"podid.example/no-such-node": "true"}}
"""Keeps a pod from being scheduled: it exists, and costs nothing."""
PODS, NAMESPACES, WORKERS = 500, 20, 8


class Admission:
    """The API server's way to the webhook, and the webhook's Deployment."""

    def __init__(self, kube: Kube) -> None:
        self.kube = kube

    def admit(self, namespace: str, account: str = "app", **spec: Any) -> Manifest:
        """Return the pod that admission makes, as a dry run."""
        return self.kube.admit(pod_manifest("probe", IMAGE, account, ["sleep", "3600"], spec), namespace)

    def create(self, name: str, namespace: str, account: str = "app") -> Pod:
        """Create a pod that no node takes."""
        return self.kube.run(
            name, namespace, image=IMAGE, service_account=account, command=["sleep", "3600"], overrides=NOWHERE
        )

    def pods(self) -> list[Pod]:
        """Return the webhook's pods."""
        return self.kube.pods(SYSTEM, SELECTOR)

    def metric(self, pod: Pod, name: str) -> float:
        """Return one metric of a replica, asked for through the API server."""
        text = self.kube.raw(f"/api/v1/namespaces/{SYSTEM}/pods/{pod.name}:9999/proxy/metrics")
        found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0


def environment(pod: Manifest) -> list[str]:
    """Return the names of the first container's variables."""
    return [entry["name"] for entry in pod["spec"]["containers"][0].get("env", [])]


def mechanism(pod: Manifest) -> str:
    """Tell whose credentials a pod has variables for."""
    names = environment(pod)
    found = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "Pod Identity", "AWS_ROLE_ARN": "IRSA"}
    return " and ".join(text for name, text in found.items() if name in names) or "none"


@pytest.fixture(scope="module")
def admission(kube: Kube) -> Iterator[Admission]:
    """The webhook with two replicas, which wait up to a second for a ServiceAccount that they do not know yet.

    Their debugging handlers are on: one of them answers as a defect would be answered.
    """
    patient = "--service-account-lookup-grace-period=1s"
    deployment = kube.read("apps/v1", "Deployment", WEBHOOK, SYSTEM)
    (container,) = deployment["spec"]["template"]["spec"]["containers"]

    def run(replicas: int, arguments: Sequence[str]) -> None:
        containers = [{"name": container["name"], "args": list(arguments)}]
        spec = {"replicas": replicas, "template": {"spec": {"containers": containers}}}
        kube.apps.patch_namespaced_deployment(WEBHOOK, SYSTEM, {"spec": spec})
        kube.wait_until_deployed("Deployment", WEBHOOK, SYSTEM)

    run(2, [*container["args"], patient, "--enable-debugging-handlers"])
    yield Admission(kube)
    run(deployment["spec"]["replicas"], container["args"])


@pytest.fixture(scope="module")
def role_arn(aws: AwsAccount) -> Iterator[str]:
    with aws.role("webhook-scenario-role", TRUST.read_text()) as arn:
        yield arn


@pytest.fixture(scope="module")
def demo(kube: Kube, cluster: Cluster, aws: AwsAccount, admission: Admission, role_arn: str) -> Iterator[str]:
    """A namespace with a ServiceAccount ``app`` that has an association, which admission knows."""
    with kube.namespace("webhook-demo") as namespace:
        kube.create_service_account("app", namespace)
        with aws.association(cluster.name, namespace, "app", role_arn):
            wait_until_admission_injects(admission.kube, namespace, "app")
            yield namespace


# --- Many at once ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def teams(kube: Kube, cluster: Cluster, aws: AwsAccount, admission: Admission, role_arn: str) -> Iterator[list[str]]:
    """Twenty namespaces, each with a ServiceAccount ``app`` that has an association, which admission knows."""
    names = [f"webhook-team-{number}" for number in range(NAMESPACES)]
    # What the pods of an earlier file ask AWS for would be taken for the webhook's doing.
    kube.wait_until_left_namespaces_are_gone()
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(kube.namespace(name))
            kube.create_service_account("app", name)
            stack.enter_context(aws.association(cluster.name, name, "app", role_arn))
        wait_until_admission_injects(admission.kube, names[-1], "app")
        yield names


@requirement("WHK-113", "WHK-802", "WHK-207")
def test_burst_loses_no_pod_while_a_replica_dies(admission: Admission, teams: list[str], lab: Lab) -> None:
    """Of 500 pods at once none is refused; what a dying replica did not answer is admitted without it, and counted."""
    before, asked = passed_over(admission.kube), lab.control().journal()[-1]["number"] + 1
    victim = admission.pods()[0]

    def create(number: int) -> str:
        if number == PODS // 2:
            admission.kube.core.delete_namespaced_pod(victim.name, SYSTEM, grace_period_seconds=0)
        try:
            admission.create(f"burst-{number}", teams[number % NAMESPACES])
        except ApiException as error:
            return f"refused: {error.body}"
        return "created"

    started = time.monotonic()
    with ThreadPoolExecutor(WORKERS) as pool:
        answers = list(pool.map(create, range(PODS)))
    seconds = time.monotonic() - started
    outcomes = [mechanism(pod) for team in teams for pod in admission.kube.items(f"/api/v1/namespaces/{team}/pods")]
    attach(Evidence("object", f"{PODS} pods in {seconds:.1f} s", {o: outcomes.count(o) for o in outcomes}))

    check("WHK-113", expected=[], observed=[text for text in answers if text != "created"])
    check(
        "WHK-802",
        what="pods without variables, of which each is counted",
        expected=passed_over(admission.kube) - before,
        observed=outcomes.count("none"),
    )
    check("WHK-113", what="all others", expected=PODS, observed=outcomes.count("Pod Identity") + outcomes.count("none"))
    calls = [entry["operation"] for entry in lab.control().journal(asked)]
    check("WHK-207", what="calls to AWS meanwhile", expected=[], observed=calls)
    admission.kube.wait_until_deployed("Deployment", WEBHOOK, SYSTEM)


# --- Just before the pod --------------------------------------------------------------------------------------------


@requirement("WHK-727")
def test_pod_just_after_its_service_account(admission: Admission, demo: str) -> None:
    """A pod that comes 50 ms after its annotated ServiceAccount has the role: ten times of ten."""

    def pod_after_account(number: int) -> str:
        admission.kube.create_service_account(f"fresh-{number}", demo, {ROLE_ANNOTATION: IRSA_ROLE})
        time.sleep(0.05)  # not a wait for anything: the distance that is asked about
        return mechanism(admission.admit(demo, f"fresh-{number}"))

    check("WHK-727", expected=["IRSA"] * 10, observed=[pod_after_account(number) for number in range(10)])


@requirement("WHK-708", "WHK-907")
def test_pod_just_after_its_association(
    admission: Admission, cluster: Cluster, aws: AwsAccount, demo: str, role_arn: str
) -> None:
    """An association counts within a second; a pod from before that moment stays as it was admitted."""
    admission.kube.create_service_account("late", demo)
    before = admission.create("before", demo, "late")

    with aws.association(cluster.name, demo, "late", role_arn):
        made = time.monotonic()
        wait_until_admission_injects(admission.kube, demo, "late")
        took = time.monotonic() - made
        after = admission.create("after", demo, "late")

    check(
        "WHK-708",
        what="seconds from the association to the first pod with it",
        expected="at most 1",
        observed=took,
        holds=took <= 1,
    )
    check("WHK-907", what="pod from before", expected="none", observed=mechanism(before.read()))
    check("WHK-907", what="pod from after", expected="Pod Identity", observed=mechanism(after.read()))


# --- One pod --------------------------------------------------------------------------------------------------------


@requirement("WHK-211")
def test_host_network_pod_is_mutated(kube: Kube, cluster: Cluster, aws: AwsAccount, demo: str) -> None:
    """It acts as its association's role, although the node's role is within its reach."""
    aws.wait_until_agent_is_active(cluster.name)
    overrides = {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}
    pod = kube.run(
        "on-the-host", demo, image=IMAGE, service_account="app", command=["sleep", "3600"], overrides=overrides
    ).wait_until_ready()
    token = "curl --silent --request PUT --header X-aws-ec2-metadata-token-ttl-seconds:60"
    metadata = pod.exec(
        "sh", "-c", f"{token} --output /dev/null --write-out '%{{http_code}}' 169.254.169.254/latest/api/token"
    )

    check("WHK-211", what="variables", expected="Pod Identity", observed=mechanism(pod.read()))
    check("WHK-211", what="answer of the instance metadata service", expected="200", observed=metadata.stdout)
    arn = caller_identity(pod)["Arn"]
    role = "arn:aws:sts::123456789012:assumed-role/webhook-scenario-role/eks-"
    check("WHK-211", what="role", expected=role, observed=arn, holds=arn.startswith(role))


@requirement("WHK-502")
def test_ephemeral_container_is_left_alone(admission: Admission, demo: str) -> None:
    """``kubectl debug``: the container that comes later has neither variables nor the token."""
    admission.create("debugged", demo)
    debugger = {"name": "debugger", "image": IMAGE, "command": ["sleep", "60"]}
    changed = admission.kube.core.patch_namespaced_pod_ephemeralcontainers(
        "debugged", demo, {"spec": {"ephemeralContainers": [debugger]}}
    )
    (container,) = changed.spec.ephemeral_containers

    check("WHK-502", what="the pod's own container", expected="Pod Identity", observed=mechanism(changed.to_dict()))
    check("WHK-502", what="variables", expected=[], observed=container.env or [])
    mounts = [mount.name for mount in container.volume_mounts or []]
    check("WHK-502", what="mounts", expected="no token", observed=mounts, holds="eks-pod-identity-token" not in mounts)


@requirement("WHK-508")
def test_foreign_mount_at_the_same_path_is_refused(admission: Admission, demo: str) -> None:
    """The API server refuses the two mounts; a pod without its token would be worse."""
    mount = {"name": "own", "mountPath": TOKEN_DIRECTORY}
    container = {"name": "app", "image": IMAGE, "volumeMounts": [mount]}

    with pytest.raises(ApiException) as refused:
        admission.admit(demo, containers=[container], volumes=[{"name": "own", "emptyDir": {}}])

    check("WHK-508", what="status", expected=422, observed=refused.value.status)
    assert "must be unique" in str(refused.value.body)


@requirement("WHK-611", "WHK-806")
@pytest.mark.parametrize("value", ["true", "false"])
def test_pod_with_the_skip_label_is_not_sent(admission: Admission, demo: str, value: str) -> None:
    """Whatever the label's value: the pod is admitted as it came."""
    labelled = pod_manifest("skipped", IMAGE, "app", ["sleep", "3600"])
    labelled["metadata"]["labels"] = {SKIP_LABEL: value}

    check("WHK-611", expected="none", observed=mechanism(admission.kube.admit(labelled, demo)))


# --- The certificate ------------------------------------------------------------------------------------------------


@contextmanager
def steady_pods(admission: Admission, namespace: str) -> Generator[list[str]]:
    """Have pods admitted one after the other meanwhile; gives how each came out."""
    outcomes: list[str] = []
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            outcomes.append(mechanism(admission.admit(namespace)))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield outcomes
    finally:
        stop.set()
        thread.join()


def new_certificate(directory: Path) -> dict[str, bytes]:
    """Run ``amazon-eks-pod-identity-webhook-certs``; give the files it writes."""
    arguments = ["--namespace", SYSTEM, "--output-dir", str(directory)]
    path = {**os.environ, "PYTHONPATH": str(ROOT / "webhook")}
    subprocess.run([sys.executable, "-m", "podid_webhook.certs", *arguments], env=path, check=True, timeout=60)
    return {name: (directory / name).read_bytes() for name in ("ca.crt", "tls.crt", "tls.key")}


@requirement("WHK-826", "WHK-827", "WHK-822")
def test_certificate_is_renewed_without_losing_a_pod(
    admission: Admission, kubectl: Callable[..., object], demo: str, tmp_path: Path
) -> None:
    """The README's way, without cert-manager: a new CA beside the old, a new certificate, then the old CA out."""
    files = new_certificate(tmp_path)
    names = x509.load_pem_x509_certificate(files["tls.crt"]).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    expires_at = x509.load_pem_x509_certificate(files["tls.crt"]).not_valid_after_utc.timestamp()
    registration = admission.kube.read("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", WEBHOOK)
    old = base64.b64decode(registration["webhooks"][0]["clientConfig"]["caBundle"])

    def trust(bundle: bytes) -> None:
        value = base64.b64encode(bundle).decode()
        patch = f'[{{"op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": "{value}"}}]'
        kubectl("patch", "mutatingwebhookconfiguration", WEBHOOK, "--type=json", f"--patch={patch}")

    before = passed_over(admission.kube)
    with steady_pods(admission, demo) as outcomes:
        trust(old + files["ca.crt"])
        data = {name: base64.b64encode(files[name]).decode() for name in ("tls.crt", "tls.key")}
        admission.kube.core.patch_namespaced_secret(WEBHOOK, SYSTEM, {"data": data})
        # A change of the pod makes the kubelet look at its Secret now rather than within a minute.
        for pod in admission.pods():
            annotations = {"podid.example/renewed-at": str(int(time.time()))}
            admission.kube.core.patch_namespaced_pod(pod.name, SYSTEM, {"metadata": {"annotations": annotations}})
        wait.until(
            lambda: [
                admission.metric(pod, f"{WEBHOOK.replace('-', '_')}_certificate_expiry_seconds")
                for pod in admission.pods()
            ],
            lambda instants: instants == [expires_at] * 2,
            what="both replicas to serve the new certificate",
            timeout=limits.CERTIFICATE_RENEWED,
        )
        trust(files["ca.crt"])
        seen = len(outcomes)
        wait.until(lambda: len(outcomes) >= seen + 20, what="twenty more pods", timeout=limits.CONTROLLER)

    check(
        "WHK-826",
        what="names in the certificate",
        expected=[WEBHOOK, f"{WEBHOOK}.{SYSTEM}", f"{WEBHOOK}.{SYSTEM}.svc", f"{WEBHOOK}.{SYSTEM}.svc.cluster.local"],
        observed=names.value.get_values_for_type(x509.DNSName),
    )
    check("WHK-827", what=f"{len(outcomes)} pods meanwhile", expected={"Pod Identity"}, observed=set(outcomes))
    check("WHK-827", what="reviews that failed", expected=0, observed=passed_over(admission.kube) - before)


# --- Its health -----------------------------------------------------------------------------------------------------


@requirement("WHK-811")
@pytest.mark.parametrize(
    ("change", "failing"),
    [
        ('{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Fail"}', ["registration"]),
        ('{"op": "remove", "path": "/webhooks/0/objectSelector/matchExpressions"}', ["registration"]),
        ('{"op": "replace", "path": "/webhooks/0/clientConfig/service/name", "value": "gone"}', ["service", "answer"]),
        ('{"op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": "OTHER"}', ["caBundle", "answer"]),
    ],
    ids=["policy", "selector", "Service", "CA"],
)
def test_doctor_finds_what_keeps_the_webhook_from_its_work(
    admission: Admission, kubectl: Callable[..., object], change: str, failing: list[str]
) -> None:
    """``podid doctor --webhook``: all is well; after one change it says what is wrong."""
    registration = admission.kube.read("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", WEBHOOK)
    other = base64.b64encode(Authority("another CA").certificate.encode()).decode()
    well = {check.name: check.status for check in webhook_checks(admission.kube)}

    patch = f"--patch=[{change.replace('OTHER', other)}]"
    kubectl("patch", "mutatingwebhookconfiguration", WEBHOOK, "--type=json", patch)
    try:
        found = wait.until(
            lambda: [check.name for check in webhook_checks(admission.kube) if check.status == "fail"],
            lambda names: set(failing) <= set(names),
            what=f"the doctor to find {failing}",
            timeout=limits.CONTROLLER,
        )
    finally:
        kubectl("patch", "mutatingwebhookconfiguration", WEBHOOK, "--type=json", f"--patch={whole(registration)}")

    check("WHK-811", what="before", expected={"ok"}, observed=set(well.values()))
    check("WHK-811", what="after", expected=failing, observed=[name for name in found if name in failing])


@requirement("WHK-114", "WHK-802")
def test_internal_error_leaves_the_pod_to_the_failure_policy(
    admission: Admission, kubectl: Callable[..., object], demo: str
) -> None:
    """What a defect is answered with does not cost a pod: it is admitted as it came, and counted."""
    registration = admission.kube.read("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", WEBHOOK)
    before = passed_over(admission.kube)

    patch = '[{"op": "replace", "path": "/webhooks/0/clientConfig/service/path", "value": "/debug/alpha/500"}]'
    kubectl("patch", "mutatingwebhookconfiguration", WEBHOOK, "--type=json", f"--patch={patch}")
    try:
        pod = wait.until(
            lambda: admission.admit(demo),
            lambda admitted: mechanism(admitted) == "none",
            what="the API server to ask where the answer is 500",
            timeout=limits.CONTROLLER,
        )
        counted = passed_over(admission.kube) - before
    finally:
        kubectl("patch", "mutatingwebhookconfiguration", WEBHOOK, "--type=json", f"--patch={whole(registration)}")
    wait_until_admission_injects(admission.kube, demo, "app")

    check("WHK-114", what="variables", expected=[], observed=environment(pod))
    check("WHK-802", what="admitted without an answer", expected="at least 1", observed=counted, holds=counted >= 1)


def whole(registration: Manifest) -> str:
    """Return the patch that puts the registration's webhooks back."""
    return json.dumps([{"op": "replace", "path": "/webhooks", "value": registration["webhooks"]}])


# --- Its absence ----------------------------------------------------------------------------------------------------


@requirement("WHK-908", "WHK-802")
def test_pod_from_an_outage_stays_without_credentials(admission: Admission, demo: str) -> None:
    """A pod is created while no webhook runs, and counted; the webhook's return does not change it, only the next."""
    with without_webhook(admission.kube) as passed_over_since:
        pod = admission.create("orphan", demo)
        missed = passed_over_since()
    wait_until_admission_injects(admission.kube, demo, "app")

    check("WHK-802", what="admitted without an answer", expected=1, observed=missed)
    check("WHK-908", what="pod from the outage", expected="none", observed=mechanism(pod.read()))
    check(
        "WHK-908",
        what="pod from after",
        expected="Pod Identity",
        observed=mechanism(admission.create("next", demo).read()),
    )
