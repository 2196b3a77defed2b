"""The External Secrets Operator in daily use, on a cluster where its association was there first.

Nothing is restarted here: refreshing, rotation, finding, pushing, Parameter Store, IRSA beside it, two hundred at once,
and what each failure says. The metadata service is closed to pods, so whatever works, works through Pod Identity.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import limits, wait
from harness.cloud.localstack.control import Control
from harness.cluster.base import Cluster, Completed
from harness.conformance.marks import requirement
from harness.conformance.recording import Evidence, attach, check
from harness.conformance.redaction import Redactor
from harness.external_secrets import NAMESPACE, Calls, Condition, Operator, Resource, attempt, installed, secret_data
from harness.kube import Kube, Manifest, load_manifests
from harness.lab import Lab
from harness.scenario import NOT_BY_WEB_IDENTITY, UUID4, AwsAccount, read_document, web_identity_refusals

pytestmark = pytest.mark.usefixtures("ipv4_pods", "agent_addon", "synced")

FIXTURES = Path(__file__).parent.parent / "fixtures"
FILES = FIXTURES / "external-secrets"
UNIVERSAL_TRUST = FIXTURES / "s3" / "pod-identity-trust.json"
ROLE_ARN = "arn:aws:iam::123456789012:role/pod-identity-lab-eso-role"
SESSION = f"arn:aws:sts::123456789012:assumed-role/pod-identity-lab-eso-role/eks-pod-identi-external-s-{UUID4}"
OPERATOR = "external-secrets"
"""The operator's ServiceAccount."""
FAILED = Condition("False", "SecretSyncedError", "could not get secret data from provider")


# --- Set-up: association first, then the operator -----------------------------------------------------------------


@pytest.fixture(scope="module")
def control(lab: Lab) -> Control:
    return lab.control()


@pytest.fixture(scope="module")
def operator(lab: Lab, cluster: Cluster, kube: Kube, aws: AwsAccount) -> Iterator[Operator]:
    """``aws eks create-pod-identity-association …``, then ``helm install external-secrets …``: the guide's order."""
    aws.wait_until_agent_is_active(cluster.name)
    with (
        aws.secret("demo/app-config", '{"db_password":"changeme"}', {}),
        aws.policy("pod-identity-lab-eso-policy", (FILES / "eso-policy.json").read_text()) as policy,
        aws.role("pod-identity-lab-eso-role", UNIVERSAL_TRUST.read_text(), policies=[policy]) as role,
        aws.association(cluster.name, NAMESPACE, OPERATOR, role),
        installed(lab, cluster, kube) as the_operator,
    ):
        yield the_operator


@pytest.fixture(scope="module")
def synced(kubectl: Callable[..., Completed], kube: Kube, operator: Operator) -> Iterator[Completed]:
    """The guide's store and ExternalSecret in version v1, in namespace demo: what ``kubectl apply`` said."""
    assert operator
    with kube.namespace("demo"):
        applied = kubectl("apply", "-f", str(FILES / "secretstore-v1.yaml"))
        assert applied.returncode == 0, applied.stderr
        Resource(kube, "ExternalSecret", "app-config", "demo").wait_until("SecretSynced")
        yield applied


def told(principal: str, action: str = "secretsmanager:GetSecretValue") -> str:
    """Return what a denied caller is told, up to the resource."""
    return f"api error AccessDeniedException: User: {principal} is not authorized to perform: {action}"


def external_secret(kube: Kube, name: str, key: str, prop: str) -> Resource:
    """Apply an ExternalSecret in namespace demo for one property of one secret."""
    kube.apply(load_manifests(FILES / "external-secret.yaml", {"NAME": name, "KEY": key, "PROPERTY": prop}))
    return Resource(kube, "ExternalSecret", name, "demo")


# --- It works at once, and goes on working --------------------------------------------------------------------------


@requirement("ESO-CRD-V1", "ESO-SYNC", "ESO-CRED-ROLE", "ESO-CALLS-MINIMAL")
def test_with_the_association_first_it_works_at_once(kube: Kube, synced: Completed, control: Control) -> None:
    """The same in version v1: nothing is ever denied, and every call is of the operator's Pod Identity session."""
    secret = Resource(kube, "ExternalSecret", "app-config", "demo")
    calls = Calls(control)
    attempt(secret, control)

    denied = [message for message in secret.messages("UpdateFailed") if "AccessDenied" in message]
    check("ESO-CRD-V1", what="warnings", expected="", observed=synced.stderr)
    check("ESO-CRD-V1", expected="SecretSynced", observed=secret.ready().reason)
    data = secret_data(kube, "app-config", "demo")
    check("ESO-SYNC", expected=({"db_password": "changeme"}, []), observed=(data, denied))
    call = calls.made()[0]
    is_session = bool(re.fullmatch(SESSION, call["principal"]))
    check("ESO-CALLS-MINIMAL", expected="GetSecretValue", observed=call["operation"])
    check("ESO-CRED-ROLE", expected=SESSION, observed=call["principal"], holds=is_session)


@requirement("ESO-SYNC")
def test_rotation_arrives_within_the_refresh_interval(kube: Kube, aws: AwsAccount) -> None:
    """A new version of the secret is in the cluster's Secret at most three seconds (and a look at it) later."""
    with aws.secret("demo/rotated", '{"db_password":"first"}', {}) as name:
        kube.apply(load_manifests(FILES / "rotation.yaml"))
        Resource(kube, "ExternalSecret", "rotated", "demo").wait_until("SecretSynced")
        before = secret_data(kube, "rotated", "demo")
        aws.client("secretsmanager").put_secret_value(SecretId=name, SecretString='{"db_password":"second"}')
        put_at = time.monotonic()
        after = wait.until(
            lambda: secret_data(kube, "rotated", "demo"),
            lambda data: data != before,
            what="the new version to arrive",
            timeout=limits.CONTROLLER,
        )
        seconds = time.monotonic() - put_at
        kube.delete(load_manifests(FILES / "rotation.yaml")[0])

    check("ESO-SYNC", expected=({"db_password": "first"}, {"db_password": "second"}), observed=(before, after))
    check("ESO-SYNC", what="seconds", expected="3 and a look", observed=seconds, holds=seconds < 6)


# --- Never a stale success ------------------------------------------------------------------------------------------


@requirement("ESO-ARN-SUFFIX", "ESO-DENY-EVENT")
def test_policy_covers_plain_names_below_its_prefix_only(kube: Kube, aws: AwsAccount) -> None:
    """``…:secret:demo/*`` is of ARNs with a random end: it permits demo/app-config by name, not other/app-config."""
    with aws.secret("other/app-config", '{"db_password":"of others"}', {}):
        other = external_secret(kube, "other-prefix", "other/app-config", "db_password")
        event = other.wait_for_message("UpdateFailed", "AccessDeniedException")

    own = Resource(kube, "ExternalSecret", "app-config", "demo").ready().reason
    check("ESO-ARN-SUFFIX", what="demo/", expected="SecretSynced", observed=own)
    check("ESO-ARN-SUFFIX", what="other/", expected=None, observed=secret_data(kube, "other-prefix", "demo"))
    expected = rf".*{told(SESSION)} on resource: other/app-config because no identity-based policy allows .*"
    check("ESO-DENY-EVENT", expected=expected, observed=event, holds=bool(re.fullmatch(expected, event)))


@requirement("ESO-MSG-GENERIC")
@pytest.mark.parametrize(
    ("name", "key", "prop", "says"),
    [
        ("absent-secret", "demo/absent", "db_password", "Secret does not exist"),
        ("absent-property", "demo/app-config", "user", "key user does not exist in secret demo/app-config"),
        ("no-json", "demo/no-json", "db_password", "key db_password does not exist in secret demo/no-json"),
    ],
)
def test_the_event_says_what_the_condition_does_not(
    kube: Kube, aws: AwsAccount, *, name: str, key: str, prop: str, says: str
) -> None:
    """Secret or property that is not there, or no JSON: the condition is that of the gotcha, word by word."""
    with aws.secret("demo/no-json", "plain text", {}):
        secret = external_secret(kube, name, key, prop)
        event = secret.wait_for_message("UpdateFailed", says)
        condition = secret.wait_until("SecretSyncedError")

    check("ESO-MSG-GENERIC", expected=FAILED, observed=condition)
    check("ESO-MSG-GENERIC", what="event", expected=says, observed=event, holds="AccessDenied" not in event)
    assert secret_data(kube, name, "demo") is None


@requirement("ESO-MSG-GENERIC")
def test_throttled_operator_says_so_and_goes_on_by_itself(kube: Kube, control: Control) -> None:
    """As long as AWS throttles it, the event names the code; afterwards nobody has to do anything."""
    fault = {"service": "secretsmanager", "operation": "GetSecretValue", "code": "ThrottlingException"}
    control.set_faults(fault | {"message": "Rate exceeded", "status": 400})
    try:
        secret = external_secret(kube, "throttled", "demo/app-config", "db_password")
        event = secret.wait_for_message("UpdateFailed", "api error ThrottlingException: Rate exceeded")
        condition = secret.wait_until("SecretSyncedError")
    finally:
        control.set_faults()
    synced = secret.wait_until("SecretSynced")

    check("ESO-MSG-GENERIC", expected=FAILED, observed=condition)
    tried = "exceeded maximum number of attempts"
    check("ESO-MSG-GENERIC", what="event", expected=tried, observed=event, holds=tried in event)
    check("ESO-MSG-GENERIC", what="afterwards", expected="SecretSynced", observed=synced.reason)


# --- More of the operator -------------------------------------------------------------------------------------------


@pytest.fixture
def permitted(aws: AwsAccount) -> Iterator[Callable[[str], None]]:
    """Attach another policy of the fixtures to the operator's role, by its name, until the test ends."""
    with contextlib.ExitStack() as stack:

        def permit(name: str) -> None:
            document = (FILES / f"{name}.json").read_text()
            policy = stack.enter_context(aws.policy(f"pod-identity-lab-eso-{name}", document))
            stack.enter_context(aws.attached(ROLE_ARN, policy))

        yield permit


@requirement("ESO-CRED-ROLE", "ESO-DENY-EVENT")
def test_secrets_are_found_by_name_and_by_tag(
    kube: Kube, aws: AwsAccount, control: Control, permitted: Callable[[str], None]
) -> None:
    """ListSecrets has no resource, so the guide's statement for it grants nothing; tags find only what may be read."""
    tags = {"team": "payments"}
    manifests = load_manifests(FILES / "find.yaml")
    by_name, by_tag = [Resource(kube, "ExternalSecret", manifest["metadata"]["name"], "demo") for manifest in manifests]
    with (
        aws.secret("demo/found-a", "a", tags),
        aws.secret("demo/found-b", "b", {}),
        aws.secret("other/found-c", "c", tags),
    ):
        kube.apply(manifests)
        event = by_name.wait_for_message("UpdateFailed", "secretsmanager:ListSecrets")
        calls = Calls(control)
        permitted("find-policy")
        for found in (by_name, by_tag):
            found.refresh()
            found.wait_until("SecretSynced")
    # It tries again by itself as well, before and after it is permitted.
    made = {call["operation"] for call in calls.made() if not call["error_code"]}

    expected = rf".*{told(SESSION, 'secretsmanager:ListSecrets')} because no identity-based policy allows .*"
    check("ESO-DENY-EVENT", expected=expected, observed=event, holds=bool(re.fullmatch(expected, event)))
    check("ESO-CRED-ROLE", expected={"ListSecrets", "GetSecretValue", "BatchGetSecretValue"}, observed=made)
    assert secret_data(kube, "found-by-name", "demo") == {"found-a": "a", "found-b": "b"}
    assert secret_data(kube, "found-by-tag", "demo") == {"found-a": "a"}


@requirement("ESO-CRED-ROLE")
def test_secret_is_pushed_and_removed(kube: Kube, aws: AwsAccount, permitted: Callable[[str], None]) -> None:
    """A PushSecret makes a secret of Secrets Manager that carries the operator's mark, and takes it away again."""
    permitted("push-policy")
    manifests = load_manifests(FILES / "push.yaml")
    earlier = _creations(aws)
    kube.apply(manifests)
    Resource(kube, "PushSecret", "generated", "demo").wait_until("Synced")
    manager = aws.client("secretsmanager")
    pushed = manager.get_secret_value(SecretId="demo/pushed")
    tags = manager.describe_secret(SecretId="demo/pushed")["Tags"]
    kube.delete(manifests[1])
    wait.until(
        lambda: manager.describe_secret(SecretId="demo/pushed").get("DeletedDate"),
        what="the pushed secret to be scheduled for deletion",
        timeout=limits.CONTROLLER,
    )
    callers = {caller for event, caller in _creations(aws).items() if event not in earlier}
    manager.restore_secret(SecretId="demo/pushed")
    manager.delete_secret(SecretId="demo/pushed", ForceDeleteWithoutRecovery=True)

    is_session = len(callers) == 1 and all(re.fullmatch(SESSION, caller) for caller in callers)
    check("ESO-CRED-ROLE", expected=SESSION, observed=callers, holds=is_session)
    assert json.loads(pushed["SecretBinary"]) == {"token": "made-in-the-cluster"}
    assert {"Key": "managed-by", "Value": "external-secrets"} in tags


def _creations(aws: AwsAccount) -> dict[str, str]:
    """Return CloudTrail's events of the pushed secret's creation, and who called; a lab that stays has earlier ones."""
    records = [event.record for event in aws.lookup_events(EventName="CreateSecret")]
    about = [record for record in records if record["requestParameters"]["name"] == "demo/pushed"]
    return {record["eventID"]: record["userIdentity"]["arn"] for record in about}


@requirement("ESO-PUSH-OWN")
def test_whoever_pushes_leaves_the_secrets_of_others_alone(
    kube: Kube, aws: AwsAccount, permitted: Callable[[str], None]
) -> None:
    """The operator marks what it makes and looks for the mark itself; a pod with its role meets the policy."""
    permitted("push-policy")
    pod = kube.run(
        "as-role", NAMESPACE, image="amazon/aws-cli:latest", service_account=OPERATOR, command=("sleep", "3600")
    )
    pod.wait_until_ready()
    with aws.secret("demo/somebody-s", "theirs", {}) as theirs:
        attempts = {
            "CreateSecret": ("create-secret", f"--name={theirs}", "--secret-string=mine"),
            "PutSecretValue": ("put-secret-value", f"--secret-id={theirs}", "--secret-string=mine"),
            "DeleteSecret": ("delete-secret", f"--secret-id={theirs}"),
        }
        done = {action: pod.exec("aws", "secretsmanager", *words) for action, words in attempts.items()}
    pod.delete()

    session = SESSION.replace("external-s", "as-role")
    for action, ended in done.items():
        expected = rf"\(AccessDeniedException\).*User: {session} is not authorized to perform: secretsmanager:{action} "
        is_denied = ended.returncode == 254 and bool(re.search(expected, ended.stderr))
        check("ESO-PUSH-OWN", what=action, expected=expected, observed=ended.stderr, holds=is_denied)


@requirement("ESO-CRED-ROLE")
def test_parameter_store(kube: Kube, aws: AwsAccount, permitted: Callable[[str], None]) -> None:
    """The same role reads Parameter Store where its policy says so, and is denied before."""
    aws.client("ssm").put_parameter(Name="/demo/feature-flag", Value="on", Type="SecureString", Overwrite=True)
    kube.apply(load_manifests(FILES / "parameter-store.yaml"))
    parameter = Resource(kube, "ExternalSecret", "parameter", "demo")
    event = parameter.wait_for_message("UpdateFailed", "AccessDeniedException")
    permitted("parameter-policy")
    parameter.refresh()
    parameter.wait_until("SecretSynced")

    resource = "arn:aws:ssm:eu-west-1:123456789012:parameter/demo/feature-flag"
    expected = f"{told(SESSION, 'ssm:GetParameter')} on resource: {resource}"
    check("ESO-CRED-ROLE", expected=expected, observed=event, holds=bool(re.search(expected, event)))
    assert secret_data(kube, "parameter", "demo") == {"value": "on"}


@requirement("ESO-CRED-ROLE")
def test_stores_of_all_namespaces_are_one_identity(
    kube: Kube, aws: AwsAccount, permitted: Callable[[str], None]
) -> None:
    """A policy on the caller's namespace tag sees the operator's namespace, never that of the ExternalSecret."""
    permitted("namespace-policy")
    with (
        aws.secret("external-secrets/own", '{"value":"of the operator"}', {}),
        aws.secret("demo-team/own", '{"value":"of the team"}', {}),
    ):
        own = external_secret(kube, "by-tag-own", "external-secrets/own", "value")
        own.wait_until("SecretSynced")
        team = external_secret(kube, "by-tag-team", "demo-team/own", "value")
        event = team.wait_for_message("UpdateFailed", "AccessDeniedException")

    check("ESO-CRED-ROLE", expected=SESSION, observed=event, holds=bool(re.search(told(SESSION), event)))
    assert secret_data(kube, "by-tag-own", "demo") == {"value": "of the operator"}


@requirement("ESO-CRED-ROLE")
def test_irsa_is_a_mode_of_its_own_beside_it(kube: Kube, aws: AwsAccount, cluster: Cluster, control: Control) -> None:
    """A store that names a ServiceAccount takes the role of its annotation, and insists on one."""
    manifests = load_manifests(FILES / "irsa.yaml")
    store, secret = Resource(kube, "SecretStore", "irsa", "demo"), Resource(kube, "ExternalSecret", "irsa", "demo")
    with (
        aws.oidc_provider(cluster.spec.issuer),
        aws.policy("eso-irsa", (FILES / "eso-policy.json").read_text()) as policy,
        aws.role(
            "pod-identity-lab-eso-irsa", read_document(FILES / "irsa-trust.json", cluster), policies=[policy]
        ) as irsa_role,
    ):
        bare = manifests[0] | {"metadata": {"name": "irsa-reader", "namespace": "demo", "annotations": {}}}
        kube.apply([bare, *manifests[1:]])
        message = store.wait_for_message("InvalidProviderConfig", "an IAM role must be associated with service account")
        calls = Calls(control)
        kube.apply(manifests)
        store.refresh()
        store.wait_until("Valid")
        secret.refresh()
        secret.wait_until("SecretSynced")
        callers = {call["principal"] for call in calls.made() if not re.fullmatch(SESSION, call["principal"])}
        trusted = web_identity_refusals(kube, aws, irsa_role, "demo", "irsa-reader")

    role = "arn:aws:sts::123456789012:assumed-role/pod-identity-lab-eso-irsa/external-secrets-provider-aws"
    check("ESO-CRED-ROLE", expected={role}, observed=callers)
    expected = {"demo/irsa-reader": "", "default/default": NOT_BY_WEB_IDENTITY}
    check("ESO-CRED-ROLE", what="whose role it is", expected=expected, observed=trusted)
    attach(Evidence("text", "a ServiceAccount without the annotation", message))
    assert secret_data(kube, "irsa", "demo") == {"value": "changeme"}


# --- Two hundred ----------------------------------------------------------------------------------------------------


@requirement("ESO-CALLS-MINIMAL", "ESO-CRED-ROLE")
def test_one_pod_syncs_two_hundred(kube: Kube, aws: AwsAccount, control: Control) -> None:
    """Each asks once, none is throttled, and all of them share one session.

    The Secret that the operator makes has it look again at once: where its cache is not yet told that it has just
    synced, it asks again. On a busy machine that is one in a hundred or two.
    """
    calls, began_at = Calls(control), time.monotonic()
    (template,) = load_manifests(FILES / "external-secret.yaml", {"KEY": "demo/bulk", "PROPERTY": "db_password"})
    with aws.secret("demo/bulk", '{"db_password":"changeme"}', {}), kube.namespace("bulk"):
        for number in range(200):
            kube.apply([template | {"metadata": {"name": f"bulk-{number:03}", "namespace": "bulk"}}])
        wait.until(
            lambda: sum(is_synced(one) for one in kube.read_all("external-secrets.io/v1", "ExternalSecret", "bulk")),
            lambda number: number == 200,
            what="200 ExternalSecrets to be synced",
            timeout=limits.SECRET_SYNCED,
        )
        seconds = time.monotonic() - began_at
        made = calls.made("demo/bulk")
    sessions = {call["principal"] for call in made}
    attach(Evidence("text", "200 ExternalSecrets by one pod", f"{seconds:.1f} s from the first apply to the last sync"))

    failures = [call["error_code"] for call in made if call["error_code"]]
    check("ESO-CALLS-MINIMAL", what="failures", expected=[], observed=failures)
    check("ESO-CALLS-MINIMAL", expected="200 to 210 calls", observed=len(made), holds=200 <= len(made) <= 210)
    check("ESO-CRED-ROLE", expected=1, observed=len(sessions))


def is_synced(secret: Manifest) -> bool:
    """Tell whether an ExternalSecret is ready."""
    return any(condition["reason"] == "SecretSynced" for condition in secret.get("status", {}).get("conditions", []))


# --- What stays -----------------------------------------------------------------------------------------------------


@requirement("ESO-LOG-SECRETS")
def test_what_is_kept_of_the_log_has_no_secret(operator: Operator) -> None:
    """The operator prints its configuration; what goes into reports has neither values nor credentials in it."""
    kept = Redactor().text(operator.log())

    found = [word for word in ("changeme", "of others") if word in kept]
    found += re.findall(r"\bASIA[A-Z0-9]{16}\b|\beyJ[\w-]{20,}", kept)
    check("ESO-LOG-SECRETS", expected=[], observed=found)


@requirement("ESO-DELETE-CLEAN")
def test_finalizers_need_a_running_controller(kube: Kube, operator: Operator) -> None:
    """Without the controller an ExternalSecret that is deleted stays; with it, it goes, and its Secret too."""
    secret = external_secret(kube, "removed", "demo/app-config", "db_password")
    secret.wait_until("SecretSynced")
    with operator.stopped():
        kube.delete(secret.read())
        held = secret.read()["metadata"]
    wait.until(lambda: not secret.exists(), what="the ExternalSecret to go", timeout=limits.CONTROLLER)
    wait.until(lambda: secret_data(kube, "removed", "demo") is None, what="its Secret to go", timeout=limits.CONTROLLER)

    finalizers = ["externalsecrets.external-secrets.io/externalsecret-cleanup"]
    observed = (held.get("finalizers"), "deletionTimestamp" in held)
    check("ESO-DELETE-CLEAN", what="without the controller", expected=(finalizers, True), observed=observed)
    check("ESO-DELETE-CLEAN", what="with it", expected=False, observed=secret.exists())
