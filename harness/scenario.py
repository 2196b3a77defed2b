"""What scenarios are written with: an AWS account to set up, a cluster's admission to wait for, a pod to ask.

Everything a scenario creates is created through a context manager here and removed in reverse order, also after a
failure. A leftover of the same name from an earlier, interrupted run is removed first.
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from harness import wait
from harness.errors import HarnessFault
from harness.kube import Kube, Manifest, Pod

__all__ = [
    "AwsAccount",
    "CredentialsResponse",
    "Event",
    "assume_role_records",
    "credentials_response",
    "decode_token",
    "wait_until_admission_injects",
    "wait_until_admission_leaves_alone",
]

AGENT_ADDON = "eks-pod-identity-agent"
AGENT_VERSION = "v1.3.10-eksbuild.2"
_TOKEN_FILE = "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount/eks-pod-identity-token"  # noqa: S105 - a path
_PAUSE = ("sleep", "3600")


@dataclass(frozen=True, slots=True)
class Event:
    """One event that CloudTrail's LookupEvents returned."""

    name: str
    username: str
    resources: list[tuple[str, str]]
    """(type, name) pairs."""
    record: dict[str, Any]
    """The CloudTrail record, parsed."""


class AwsAccount:
    """An administrator's view of one account in the lab."""

    def __init__(self, endpoint: str, access_key_id: str, secret_access_key: str, region: str) -> None:
        """Keep the credentials; nothing is called yet.

        Args:
            endpoint: URL at which the lab's AWS answers for all services.
            access_key_id: Key of an administrator.
            secret_access_key: Its secret.
            region: Region for regional services.
        """
        self._endpoint = endpoint
        self._session: Any = boto3.Session(access_key_id, secret_access_key, region_name=region)
        self._clients: dict[str, Any] = {}

    def client(self, service: str) -> Any:
        """Return the boto3 client of a service."""
        if service not in self._clients:
            configuration = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 2})
            self._clients[service] = self._session.client(service, endpoint_url=self._endpoint, config=configuration)
        return self._clients[service]

    @contextlib.contextmanager
    def bucket(self, name: str) -> Iterator[str]:
        """Create a bucket; empty and delete it at the end."""
        s3 = self.client("s3")
        self._delete_bucket(name)
        s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
        try:
            yield name
        finally:
            self._delete_bucket(name)

    def _delete_bucket(self, name: str) -> None:
        s3 = self.client("s3")
        with _ignoring("NoSuchBucket"):
            for page in s3.get_paginator("list_objects_v2").paginate(Bucket=name):
                for entry in page.get("Contents", []):
                    s3.delete_object(Bucket=name, Key=entry["Key"])
            s3.delete_bucket(Bucket=name)

    @contextlib.contextmanager
    def policy(self, name: str, document: str) -> Iterator[str]:
        """Create a managed policy, yield its ARN, delete it at the end."""
        iam = self.client("iam")
        with _ignoring("NoSuchEntity"):
            iam.delete_policy(PolicyArn=f"arn:aws:iam::{self.account}:policy/{name}")
        arn = iam.create_policy(PolicyName=name, PolicyDocument=document)["Policy"]["Arn"]
        try:
            yield arn
        finally:
            iam.delete_policy(PolicyArn=arn)

    @contextlib.contextmanager
    def role(self, name: str, trust: str, policies: Sequence[str] = ()) -> Iterator[str]:
        """Create a role with attached managed policies, yield its ARN, delete it at the end."""
        iam = self.client("iam")
        self._delete_role(name)
        arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)["Role"]["Arn"]
        try:
            for policy in policies:
                iam.attach_role_policy(RoleName=name, PolicyArn=policy)
            yield arn
        finally:
            self._delete_role(name)

    def _delete_role(self, name: str) -> None:
        iam = self.client("iam")
        with _ignoring("NoSuchEntity"):
            for policy in iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]:
                iam.detach_role_policy(RoleName=name, PolicyArn=policy["PolicyArn"])
            iam.delete_role(RoleName=name)

    @contextlib.contextmanager
    def association(
        self, cluster: str, namespace: str, service_account: str, role_arn: str
    ) -> Iterator[dict[str, Any]]:
        """Create a pod identity association, yield its record, delete it at the end."""
        eks = self.client("eks")
        pair = {"clusterName": cluster, "namespace": namespace, "serviceAccount": service_account}
        for leftover in eks.list_pod_identity_associations(**pair)["associations"]:
            eks.delete_pod_identity_association(clusterName=cluster, associationId=leftover["associationId"])
        record = eks.create_pod_identity_association(**pair, roleArn=role_arn)["association"]
        try:
            yield record
        finally:
            eks.delete_pod_identity_association(clusterName=cluster, associationId=record["associationId"])

    def install_agent(self, cluster: str) -> None:
        """Create the agent's add-on unless it is there, and wait until it is active.

        Raises:
            harness.wait.Timeout: It failed, or did not become active in time.
        """
        eks = self.client("eks")
        with _ignoring("ResourceInUseException"):
            eks.create_addon(clusterName=cluster, addonName=AGENT_ADDON, addonVersion=AGENT_VERSION)
        wait.until(
            lambda: eks.describe_addon(clusterName=cluster, addonName=AGENT_ADDON)["addon"],
            lambda addon: addon["status"] == "ACTIVE",
            what=f"add-on {AGENT_ADDON} of {cluster} to be active",
            timeout=90,
            stop=lambda addon: f"it is {addon['status']}: {addon['health']}" if "FAILED" in addon["status"] else None,
            hint="see: kubectl --namespace kube-system describe daemonset,pod",
        )

    def remove_agent(self, cluster: str) -> None:
        """Delete the agent's add-on and wait until AWS no longer knows it."""
        eks = self.client("eks")
        eks.delete_addon(clusterName=cluster, addonName=AGENT_ADDON)

        def is_gone() -> bool:
            with _ignoring("ResourceNotFoundException"):
                eks.describe_addon(clusterName=cluster, addonName=AGENT_ADDON)
                return False
            return True

        wait.until(is_gone, what=f"add-on {AGENT_ADDON} of {cluster} to be deleted", timeout=60)

    @property
    def account(self) -> str:
        """Account number of the administrator."""
        return str(self.client("sts").get_caller_identity()["Account"])

    def lookup_events(self, **attribute: str) -> list[Event]:
        """Return CloudTrail's events, newest first.

        Args:
            attribute: At most one lookup attribute, such as ``EventName="AssumeRole"``.
        """
        attributes = [{"AttributeKey": key, "AttributeValue": value} for key, value in attribute.items()]
        pages = self.client("cloudtrail").get_paginator("lookup_events").paginate(LookupAttributes=attributes)
        return [
            Event(
                name=event["EventName"],
                username=event.get("Username", ""),
                resources=[(entry["ResourceType"], entry["ResourceName"]) for entry in event.get("Resources", [])],
                record=json.loads(event["CloudTrailEvent"]),
            )
            for page in pages
            for event in page["Events"]
        ]


@contextlib.contextmanager
def _ignoring(code: str) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") != code:
            raise


def assume_role_records(aws: AwsAccount, role_arn: str | None = None) -> list[dict[str, Any]]:
    """Return STS's AssumeRole records that EKS caused, newest first; of one role, if given."""
    records = [event.record for event in aws.lookup_events(EventName="AssumeRole")]
    return [
        record
        for record in records
        if record["userIdentity"].get("invokedBy") == "pods.eks.amazonaws.com"
        and role_arn in (None, record["requestParameters"]["roleArn"])
    ]


def wait_until_admission_injects(kube: Kube, namespace: str, service_account: str) -> None:
    """Wait until a pod created now would get Pod Identity's variables.

    Associations reach admission with a delay and without a status to poll (API-901); a server-side dry run asks
    admission itself and leaves nothing behind.
    """
    wait.until(
        lambda: _admitted_environment(kube, namespace, service_account),
        lambda names: "AWS_CONTAINER_CREDENTIALS_FULL_URI" in names,
        what=f"admission to know the association of {namespace}/{service_account} (WHK-201)",
        timeout=30,
        hint="see: kubectl --namespace kube-system logs deployment/pod-identity-webhook",
    )


def wait_until_admission_leaves_alone(kube: Kube, namespace: str, service_account: str) -> None:
    """Wait until a pod created now would get none of Pod Identity's variables."""
    wait.until(
        lambda: _admitted_environment(kube, namespace, service_account),
        lambda names: "AWS_CONTAINER_CREDENTIALS_FULL_URI" not in names,
        what=f"admission to forget the association of {namespace}/{service_account} (WHK-201)",
        timeout=30,
    )


def _admitted_environment(kube: Kube, namespace: str, service_account: str) -> list[str]:
    pod: Manifest = kube.dry_run(
        "admission-probe", namespace, image="amazon/aws-cli:latest", service_account=service_account, command=_PAUSE
    )
    return [entry["name"] for entry in pod["spec"]["containers"][0].get("env", [])]


@dataclass(frozen=True, slots=True)
class CredentialsResponse:
    """The agent's answer to a pod."""

    status: int
    content_type: str
    body: str


def credentials_response(pod: Pod, token_file: str = _TOKEN_FILE) -> CredentialsResponse:
    """Ask the agent from inside a pod, as an SDK does.

    Args:
        pod: A running pod of an image with a shell and curl.
        token_file: The token to send.

    Raises:
        HarnessFault: The request did not get an answer.
    """
    script = (
        'curl --silent --show-error --max-time 10 --header "Authorization: $(cat "$0")" '
        "--write-out '\\n%{http_code} %{content_type}' \"$AWS_CONTAINER_CREDENTIALS_FULL_URI\""
    )
    done = pod.exec("sh", "-c", script, token_file)
    if done.returncode != 0:
        raise HarnessFault(f"no answer from the agent in pod {pod.name}: {done.stderr.strip()}")
    body, _, last = done.stdout.rpartition("\n")
    status, _, content_type = last.partition(" ")
    return CredentialsResponse(int(status), content_type, body)


def decode_token(token: str) -> dict[str, Any]:
    """Return the claims of a JWT, unverified: only for looking at tokens that the cluster just issued."""
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
