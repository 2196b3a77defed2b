"""An administrator's view of one AWS account in the lab: clients, and resources that go away again."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from harness import limits, wait
from harness.errors import NotReady

__all__ = ["AGENT_ADDON", "AwsAccount", "Event"]

AGENT_ADDON = "eks-pod-identity-agent"
AGENT_VERSION = "v1.3.10-eksbuild.2"


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
        self.endpoint = endpoint
        self.session: Any = boto3.Session(access_key_id, secret_access_key, region_name=region)
        self._clients: dict[tuple[str, str | None], Any] = {}

    def client(self, service: str, region: str | None = None) -> Any:
        """Return the boto3 client of a service, in another region than ours if one is named."""
        if (service, region) not in self._clients:
            configuration = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 2})
            self._clients[service, region] = self.session.client(
                service, region, endpoint_url=self.endpoint, config=configuration
            )
        return self._clients[service, region]

    @contextlib.contextmanager
    def bucket(self, name: str) -> Generator[str]:
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
    def policy(self, name: str, document: str) -> Generator[str]:
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
    def role(self, name: str, trust: str, policies: Sequence[str] = ()) -> Generator[str]:
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
    def attached(self, role_arn: str, policy_arn: str) -> Generator[None]:
        """Attach a managed policy to a role; detach it at the end."""
        iam, name = self.client("iam"), role_arn.rpartition("/")[2]
        iam.attach_role_policy(RoleName=name, PolicyArn=policy_arn)
        try:
            yield
        finally:
            iam.detach_role_policy(RoleName=name, PolicyArn=policy_arn)

    @contextlib.contextmanager
    def granting(self, policy_arn: str, document: str) -> Generator[None]:
        """Replace what a managed policy says by a new version; make the former one the default again at the end."""
        iam = self.client("iam")
        former = iam.get_policy(PolicyArn=policy_arn)["Policy"]["DefaultVersionId"]
        made = iam.create_policy_version(PolicyArn=policy_arn, PolicyDocument=document, SetAsDefault=True)
        try:
            yield
        finally:
            iam.set_default_policy_version(PolicyArn=policy_arn, VersionId=former)
            iam.delete_policy_version(PolicyArn=policy_arn, VersionId=made["PolicyVersion"]["VersionId"])

    @contextlib.contextmanager
    def trusting(self, role_arn: str, document: str) -> Generator[None]:
        """Replace the trust policy of a role; put the former one back at the end."""
        iam, name = self.client("iam"), role_arn.rpartition("/")[2]
        before = json.dumps(iam.get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"])
        iam.update_assume_role_policy(RoleName=name, PolicyDocument=document)
        try:
            yield
        finally:
            iam.update_assume_role_policy(RoleName=name, PolicyDocument=before)

    @contextlib.contextmanager
    def oidc_provider(self, issuer: str, audiences: Sequence[str] = ("sts.amazonaws.com",)) -> Generator[str]:
        """Make IAM know an issuer of web identity tokens, yield the provider's ARN, delete it at the end."""
        iam = self.client("iam")
        arn = f"arn:aws:iam::{self.account}:oidc-provider/{issuer.removeprefix('https://')}"
        with _ignoring("NoSuchEntity"):
            iam.delete_open_id_connect_provider(OpenIDConnectProviderArn=arn)
        iam.create_open_id_connect_provider(Url=issuer, ClientIDList=list(audiences))
        try:
            yield arn
        finally:
            iam.delete_open_id_connect_provider(OpenIDConnectProviderArn=arn)

    def web_identity_refusal(self, role_arn: str, token: str) -> str:
        """Exchange a token for a role's credentials, as IRSA does, and throw them away.

        Returns:
            STS's code and text; empty when it gave credentials.
        """
        try:
            self.client("sts").assume_role_with_web_identity(
                RoleArn=role_arn, RoleSessionName="probe", WebIdentityToken=token
            )
        except ClientError as error:
            told = error.response.get("Error", {})
            return f"{told.get('Code')}: {told.get('Message')}"
        return ""

    @contextlib.contextmanager
    def secret(self, name: str, value: str, tags: Mapping[str, str]) -> Generator[str]:
        """Create a secret of Secrets Manager, yield its name, delete it at the end."""
        manager = self.client("secretsmanager")
        with _ignoring("ResourceNotFoundException"):
            manager.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)
        entries = [{"Key": key, "Value": entry} for key, entry in tags.items()]
        manager.create_secret(Name=name, SecretString=value, Tags=entries)
        try:
            yield name
        finally:
            manager.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)

    @contextlib.contextmanager
    def table(self, name: str, partition_key: str, items: Sequence[Mapping[str, str]]) -> Generator[str]:
        """Create a table of DynamoDB with items of texts, yield its name, delete it at the end."""
        dynamodb = self.client("dynamodb")
        with _ignoring("ResourceNotFoundException"):
            dynamodb.delete_table(TableName=name)
        dynamodb.create_table(
            TableName=name,
            AttributeDefinitions=[{"AttributeName": partition_key, "AttributeType": "S"}],
            KeySchema=[{"AttributeName": partition_key, "KeyType": "HASH"}],
            BillingMode="PAY_PER_REQUEST",
        )
        try:
            for item in items:
                dynamodb.put_item(TableName=name, Item={key: {"S": value} for key, value in item.items()})
            yield name
        finally:
            dynamodb.delete_table(TableName=name)

    @contextlib.contextmanager
    def association(
        self, cluster: str, namespace: str, service_account: str, role_arn: str, **options: Any
    ) -> Generator[dict[str, Any]]:
        """Create a pod identity association, yield its record, delete it at the end.

        Args:
            cluster: Name of the cluster.
            namespace: Namespace of the pods.
            service_account: ServiceAccount of the pods.
            role_arn: Role of the cluster's account.
            options: Further members of CreatePodIdentityAssociation, such as ``targetRoleArn``.
        """
        eks = self.client("eks")
        pair = {"clusterName": cluster, "namespace": namespace, "serviceAccount": service_account}
        for leftover in eks.list_pod_identity_associations(**pair)["associations"]:
            eks.delete_pod_identity_association(clusterName=cluster, associationId=leftover["associationId"])
        record = eks.create_pod_identity_association(**pair, roleArn=role_arn, **options)["association"]
        try:
            yield record
        finally:
            # A scenario may have deleted it itself.
            with _ignoring("ResourceNotFoundException"):
                eks.delete_pod_identity_association(clusterName=cluster, associationId=record["associationId"])

    def create_agent_addon(self, cluster: str) -> None:
        """Create the agent's add-on unless it is there; does not wait for it."""
        with _ignoring("ResourceInUseException"):
            self.client("eks").create_addon(clusterName=cluster, addonName=AGENT_ADDON, addonVersion=AGENT_VERSION)

    def wait_until_agent_is_active(self, cluster: str) -> None:
        """Wait until the agent's add-on is active.

        Raises:
            NotReady: It failed, or did not become active in time.
        """
        eks = self.client("eks")
        try:
            wait.until(
                lambda: eks.describe_addon(clusterName=cluster, addonName=AGENT_ADDON)["addon"],
                lambda addon: addon["status"] == "ACTIVE",
                what=f"add-on {AGENT_ADDON} of {cluster} to be active",
                timeout=limits.AGENT_READY,
                stop=lambda addon: (
                    f"it is {addon['status']}: {addon['health']}" if "FAILED" in addon["status"] else None
                ),
            )
        except wait.Timeout as timeout:
            hint = "see: kubectl --namespace kube-system describe daemonset,pod"
            raise NotReady(timeout.message, requirement="AGT-801", hint=hint) from timeout

    def delete_agent_addon(self, cluster: str) -> None:
        """Delete the agent's add-on and wait until AWS no longer knows it."""
        eks = self.client("eks")
        eks.delete_addon(clusterName=cluster, addonName=AGENT_ADDON)

        def is_gone() -> bool:
            with _ignoring("ResourceNotFoundException"):
                eks.describe_addon(clusterName=cluster, addonName=AGENT_ADDON)
                return False
            return True

        wait.until(is_gone, what=f"add-on {AGENT_ADDON} of {cluster} to be deleted", timeout=limits.CLEANUP_STEP)

    @property
    def account(self) -> str:
        """Account number of the administrator."""
        return str(self.client("sts").get_caller_identity()["Account"])

    def lookup_events(self, region: str | None = None, **attribute: str) -> list[Event]:
        """Return CloudTrail's events, newest first.

        Args:
            region: Where the calls were made; those of services without regions are in us-east-1.
            attribute: At most one lookup attribute, such as ``EventName="AssumeRole"``.
        """
        attributes = [{"AttributeKey": key, "AttributeValue": value} for key, value in attribute.items()]
        pages = self.client("cloudtrail", region).get_paginator("lookup_events").paginate(LookupAttributes=attributes)
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
def _ignoring(code: str) -> Generator[None]:
    try:
        yield
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") != code:
            raise
