"""Section 10.4 of the contract: flags, their defaults, and command lines that cannot work."""

from __future__ import annotations

import re
import socket

import pytest

from harness import limits, wait
from harness.conformance.marks import requirement
from harness.conformance.outcomes import could_not_run
from harness.conformance.recording import check
from harness.subject.kube_api import KubeApi
from harness.subject.reviews import pod
from harness.subject.webhook import Surroundings, Webhook

URI, TOKEN_FILE = "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"


@requirement("WHK-861")
def test_defaults(plain: Webhook) -> None:
    """Without a flag its default counts."""
    pod_identity = plain.review(pod(metadata={"annotations": {"eks.amazonaws.com/token-expiration": "7000"}}))
    irsa = plain.review(pod(service_account="with-role"))
    secrets = "/var/run/secrets"

    observed = {
        "uri": pod_identity.value(URI),
        "token file": pod_identity.value(TOKEN_FILE),
        "mounts": [mount.get("mountPath") for mount in (*pod_identity.mounts(), *irsa.mounts())],
        "token": pod_identity.token("eks-pod-identity-token"),
        "names": [*pod_identity.names(), *irsa.names()],
        "irsa token": irsa.token("aws-iam-token"),
    }
    assert observed == {
        "uri": "http://169.254.170.23/v1/credentials",
        "token file": f"{secrets}/pods.eks.amazonaws.com/serviceaccount/eks-pod-identity-token",
        "mounts": [f"{secrets}/pods.eks.amazonaws.com/serviceaccount", f"{secrets}/eks.amazonaws.com/serviceaccount"],
        "token": {"audience": "pods.eks.amazonaws.com", "expirationSeconds": 7000, "path": "eks-pod-identity-token"},
        "names": [URI, TOKEN_FILE, "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE"],
        "irsa token": {"audience": "sts.amazonaws.com", "expirationSeconds": 86400, "path": "token"},
    }


@requirement("WHK-861")
def test_values_behind_a_blank(custom: Webhook, kube_api: KubeApi) -> None:
    """`--flag value` and a bare `--flag` count."""
    pod_identity, irsa = custom.review(pod()), custom.review(pod(service_account="with-role"))
    wait.until(
        lambda: [r.path for r in kube_api.requests if r.path == "/api/v1/namespaces/elsewhere/configmaps"],
        what="the ConfigMap of --namespace to be watched",
        timeout=limits.SUBJECT_ACTS,
    )

    observed = {
        "names": pod_identity.names(),
        "values": [variable.get("value") for variable in pod_identity.env()],
        "mounts": [mount.get("mountPath") for mount in (*pod_identity.mounts(), *irsa.mounts())],
        "token": pod_identity.token("pi-volume"),
        "irsa token": irsa.token("aws-iam-token"),
    }
    assert observed == {
        "names": ["AWS_STS_REGIONAL_ENDPOINTS", "AWS_DEFAULT_REGION", "AWS_REGION", URI, TOKEN_FILE],
        "values": [
            "regional",
            "ap-south-1",
            "ap-south-1",
            "http://[fd00:ec2::23]/v1/credentials",
            "/pi/tokens/pi-token",
        ],
        "mounts": ["/pi//./x/../tokens/", "/irsa/"],
        "token": {"audience": "pi-audience", "expirationSeconds": 7200, "path": "pi-token"},
        "irsa token": {"audience": "irsa-audience", "expirationSeconds": 7200, "path": "token"},
    }


@requirement("WHK-861", "WHK-862")
def test_arguments_of_upstream_s_manifests(surroundings: Surroundings, kube_api: KubeApi) -> None:
    """Values behind `=`, booleans that are off, klog's flags and --kube-api start a webhook like any other."""
    switches = ["--in-cluster=false", "--sts-regional-endpoint=false", "--watch-config-map=false"]
    switches += ["--compose-role-arn=false", "--enable-debugging-handlers=false"]
    flags = ["--namespace=default", "--service-name=x", "--tls-secret=x", "--annotation-prefix=eks.amazonaws.com"]
    flags += ["--token-audience=sts.amazonaws.com", "--resync-period=60s", f"--kube-api={kube_api.url}"]
    flags += ["--token-expiration=86400", "--service-account-lookup-grace-period=0s"]
    klog = ["--logtostderr", "--alsologtostderr=false", "--stderrthreshold=INFO", "--vmodule=a=1", "-v=4"]

    with surroundings.webhook(*switches, *flags, *klog, own=surroundings.certificates.flags) as webhook:
        surroundings.settle(webhook)
        admission = webhook.review(pod(service_account="with-role"))

    for identifier in ("WHK-861", "WHK-862"):
        check(identifier, expected=["AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE"], observed=admission.names())


@requirement("WHK-861", "WHK-843")
def test_default_ports(surroundings: Surroundings) -> None:
    """Without flags it serves on 443 and 9999; where it may not, it ends and says which port it was."""
    for port in (443, 9999):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                could_not_run("environment", f"something else listens on port {port} of this machine")

    with surroundings.webhook(ports=False) as webhook:
        if webhook.is_running:
            expected: object = (200, 200)
            observed: object = (webhook.get("/healthz").status, webhook.get_plain("/metrics").status)
            holds = observed == expected
        else:
            expected = "443 or 9999 in the log of a webhook that ended"
            observed = webhook.log
            holds = re.search(r"\b(443|9999)\b", webhook.log) is not None

    for identifier in ("WHK-861", "WHK-843"):
        check(identifier, expected=expected, observed=observed, holds=holds)


@requirement("WHK-861")
def test_version(surroundings: Surroundings) -> None:
    """--version prints one and ends well."""
    ended = surroundings.run_to_its_end("--version")

    assert ended.exit_code == 0
    assert re.search(r"\d+\.\d+", ended.output)


@requirement("WHK-863")
@pytest.mark.parametrize(
    "argument",
    [
        "--no-such-flag=1",
        "--port=many",
        "--token-expiration=1.5",
        "--sts-regional-endpoint=yes",
        "--service-account-lookup-grace-period=100",
    ],
)
def test_wrong_flags_are_fatal(surroundings: Surroundings, argument: str) -> None:
    """An unknown flag and a value that cannot be parsed end it with a message that names the flag."""
    ended = surroundings.run_to_its_end(*surroundings.flags(), argument)

    assert ended.exit_code not in (0, None)
    assert argument.partition("=")[0].removeprefix("--") in ended.output


@requirement("WHK-864")
def test_no_kubernetes_is_fatal(surroundings: Surroundings) -> None:
    """Outside of a cluster and without a kubeconfig it ends and says so."""
    ended = surroundings.run_to_its_end(*surroundings.certificates.flags)

    assert ended.exit_code not in (0, None)
    assert re.search("KUBERNETES_SERVICE_HOST|in-cluster|kubeconfig", ended.output)


@requirement("WHK-864")
@pytest.mark.parametrize("content", [None, "nonsense: [", "apiVersion: v1\nkind: Config\n"])
def test_unusable_kubeconfig_is_fatal(surroundings: Surroundings, content: str | None) -> None:
    """A kubeconfig that is missing, broken or empty ends it."""
    path = surroundings.directory / "unusable"
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_text(content)

    ended = surroundings.run_to_its_end(*surroundings.flags(kubeconfig=path))

    assert ended.exit_code not in (0, None)
    assert ended.output.strip()


@requirement("WHK-831")
def test_certificate_is_not_requested_by_default(surroundings: Surroundings) -> None:
    """Without the flag the files are served."""
    own = [*surroundings.certificates.flags, f"--kubeconfig={surroundings.kubeconfig}"]

    with surroundings.webhook(own=own) as webhook:
        assert webhook.get("/healthz").status == 200


@requirement("WHK-831")
@pytest.mark.parametrize("argument", ["--in-cluster", "--in-cluster=true"])
def test_certificate_by_request_is_refused(surroundings: Surroundings, argument: str) -> None:
    """Kubernetes signs no such certificates any more, and the error says so instead of waiting for one."""
    ended = surroundings.run_to_its_end(*surroundings.flags(), argument)

    assert ended.exit_code not in (0, None)
    assert "--in-cluster" in ended.output
