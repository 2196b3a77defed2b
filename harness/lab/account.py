"""An administrator's view of one AWS account, the lab's or somebody's: clients, and resources that go away again."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from harness import limits, wait
from harness.account_tenancy import AccountTenancy
from harness.errors import MissingPrerequisite, NotReady

__all__ = ["AGENT_ADDON", "AwsAccount", "Event"]

AGENT_ADDON = "eks-pod-identity-agent"
AGENT_VERSION = "v1.3.10-eksbuild.2"

T = TypeVar("T")

_IN_A_ROW = 3
"""Amazon's IAM answers from copies, which learn of a change one by one."""
_ONLY_OTHERWISE = "us-east-1"
"""Region that S3 wants not to be named."""


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
    """An administrator's view of one account."""

    def __init__(self, session: Any, endpoint: str | None = None, tenancy: AccountTenancy | None = None) -> None:
        """Keep the credentials; nothing is called yet.

        Args:
            session: A boto3 session with a region.
            endpoint: URL at which the lab's AWS answers for all services; None for Amazon's.
            tenancy: What to keep to in an account that is somebody else's.
        """
        self.session = session
        self.endpoint = endpoint
        self._tenancy = tenancy
        self._clients: dict[tuple[str, str | None], Any] = {}

    @classmethod
    def of_lab(cls, endpoint: str, access_key_id: str, secret_access_key: str, region: str) -> AwsAccount:
        """Return an account of the lab's AWS, by the keys of its administrator."""
        return cls(boto3.Session(access_key_id, secret_access_key, region_name=region), endpoint)

    def client(self, service: str, region: str | None = None) -> Any:
        """Return the boto3 client of a service, in another region than ours if one is named."""
        if (service, region) not in self._clients:
            ours = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 2})
            configuration = ours if self._tenancy is None else Config(retries={"mode": "standard"})
            made = self.session.client(service, region, endpoint_url=self.endpoint, config=configuration)
            if self._tenancy:
                self._tenancy.watch(made)
            self._clients[service, region] = made
        return self._clients[service, region]

    # --- the guide's names, and somebody's account ------------------------------------------------------------------

    def name(self, name: str) -> str:
        """Return what a resource of the guide is called here: the same, in a lab."""
        return self._tenancy.name(name) if self._tenancy else name

    def text(self, text: str) -> str:
        """Return a document, ARN or URL of the guide as it reads here: the same, in a lab."""
        return self._tenancy.text(text) if self._tenancy else text

    @property
    def tags(self) -> dict[str, str]:
        """Tags that everything gets which is made here: none, in a lab."""
        return self._tenancy.tags if self._tenancy else {}

    @property
    def is_eventual(self) -> bool:
        """Whether changes of IAM are known everywhere after some seconds only."""
        return self._tenancy is not None

    @property
    def agent_versions(self) -> str:
        """Pattern of the version that the agent's add-on has: a lab's own, or in somebody's account any."""
        return re.escape(AGENT_VERSION) if self._tenancy is None else r"v\d+\.\d+\.\d+-eksbuild\.\d+"

    def eventually(self, read: Callable[[], T], ready: Callable[[T], bool], what: str) -> T:
        """Return a reading that a change of IAM decides: the first one in a lab, which knows changes at once.

        Amazon's services learn of it after some seconds: there it is read until it is as wanted (HRN-EXT-17).

        Args:
            read: Takes one reading.
            ready: Tells whether the change is known.
            what: What is waited for, as the end of "waited for …".

        Raises:
            harness.wait.Timeout: It is not known in time.
        """
        return wait.until(read, ready, what=what, timeout=limits.IAM_EFFECTIVE) if self._tenancy else read()

    def _settle(self, shows: Callable[[], bool], what: str) -> None:
        """Wait until somebody's account shows a change of IAM several times in a row; a lab does at once."""

        def shown() -> bool:
            with _ignoring("NoSuchEntity"):
                return shows()
            return False

        if self._tenancy:
            wait.until(shown, what=what, timeout=limits.IAM_EFFECTIVE, successes=_IN_A_ROW)

    # --- resources --------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def bucket(self, name: str) -> Generator[str]:
        """Create a bucket and yield what it is called here; empty and delete it at the end."""
        s3, region = self.client("s3"), self.session.region_name
        self._delete_bucket(name)
        where = {"CreateBucketConfiguration": {"LocationConstraint": region}} if region != _ONLY_OTHERWISE else {}
        s3.create_bucket(Bucket=name, **where)
        try:
            if tags := _pairs(self.tags):
                s3.put_bucket_tagging(Bucket=name, Tagging={"TagSet": tags})
            yield self.name(name)
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
        self._delete_policy(name)
        arn = iam.create_policy(PolicyName=name, PolicyDocument=document)["Policy"]["Arn"]
        try:
            self._settle(lambda: bool(iam.get_policy(PolicyArn=arn)), f"IAM to show policy {arn}")
            yield arn
        finally:
            self._delete_policy(name)

    def _delete_policy(self, name: str) -> None:
        with _ignoring("NoSuchEntity"):
            self.client("iam").delete_policy(PolicyArn=f"arn:aws:iam::{self.account}:policy/{name}")

    @contextlib.contextmanager
    def role(self, name: str, trust: str, policies: Sequence[str] = ()) -> Generator[str]:
        """Create a role with attached managed policies, yield its ARN, delete it at the end."""
        iam = self.client("iam")
        self._delete_role(name)
        arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)["Role"]["Arn"]
        try:
            for policy in policies:
                iam.attach_role_policy(RoleName=name, PolicyArn=policy)
            self._settle(lambda: self._attached_to(name) >= set(policies), f"IAM to show role {arn} with its policies")
            yield arn
        finally:
            self._delete_role(name)

    def _attached_to(self, role: str) -> set[str]:
        attached = self.client("iam").list_attached_role_policies(RoleName=role)["AttachedPolicies"]
        return {policy["PolicyArn"] for policy in attached}

    def _delete_role(self, name: str) -> None:
        iam = self.client("iam")
        with _ignoring("NoSuchEntity"):
            for policy in self._attached_to(name):
                iam.detach_role_policy(RoleName=name, PolicyArn=policy)
            iam.delete_role(RoleName=name)

    @contextlib.contextmanager
    def attached(self, role_arn: str, policy_arn: str) -> Generator[None]:
        """Attach a managed policy to a role; detach it at the end."""
        iam, name = self.client("iam"), role_arn.rpartition("/")[2]
        iam.attach_role_policy(RoleName=name, PolicyArn=policy_arn)
        try:
            self._settle(lambda: policy_arn in self._attached_to(name), f"IAM to show {policy_arn} on role {name}")
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

        def trust() -> Any:
            return iam.get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"]

        before = json.dumps(trust())
        iam.update_assume_role_policy(RoleName=name, PolicyDocument=document)
        try:
            self._settle(lambda: trust() == json.loads(self.text(document)), f"IAM to show the new trust of {name}")
            yield
        finally:
            iam.update_assume_role_policy(RoleName=name, PolicyDocument=before)

    @contextlib.contextmanager
    def oidc_provider(self, issuer: str, audiences: Sequence[str] = ("sts.amazonaws.com",)) -> Generator[str]:
        """Make IAM know an issuer of web identity tokens, yield the provider's ARN, delete it at the end.

        In somebody's account one that is there is used, and stays.
        """
        iam = self.client("iam")
        arn = f"arn:aws:iam::{self.account}:oidc-provider/{issuer.removeprefix('https://')}"
        if arn in {known["Arn"] for known in iam.list_open_id_connect_providers()["OpenIDConnectProviderList"]}:
            if self._tenancy:
                yield arn
                return
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
        """Create a secret of Secrets Manager, yield what it is called here, delete it at the end."""
        manager = self.client("secretsmanager")
        with _ignoring("ResourceNotFoundException"):
            manager.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)
        manager.create_secret(Name=name, SecretString=value, Tags=_pairs(tags))
        try:
            yield self.name(name)
        finally:
            manager.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)

    @contextlib.contextmanager
    def table(self, name: str, partition_key: str, items: Sequence[Mapping[str, str]]) -> Generator[str]:
        """Create a table of DynamoDB with items of texts, yield what it is called here, delete it at the end."""
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
            wait.until(
                lambda: dynamodb.describe_table(TableName=name)["Table"]["TableStatus"],
                lambda status: status == "ACTIVE",
                what=f"table {name} to be active",
                timeout=limits.OBJECT_READY,
            )
            for item in items:
                dynamodb.put_item(TableName=name, Item={key: {"S": value} for key, value in item.items()})
            yield self.name(name)
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

        def create() -> dict[str, Any]:
            return eks.create_pod_identity_association(**pair, roleArn=role_arn, **options)["association"]

        record = self._once_the_role_is_known(create)
        try:
            yield record
        finally:
            # A scenario may have deleted it itself.
            with _ignoring("ResourceNotFoundException"):
                eks.delete_pod_identity_association(clusterName=cluster, associationId=record["associationId"])

    def _once_the_role_is_known(self, create: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Create an association; somebody's EKS refuses a role that IAM has just got, and is asked again."""
        if self._tenancy is None:
            return create()

        def created() -> dict[str, Any]:
            with _ignoring("InvalidParameterException"):
                return create()
            return {}

        try:
            return wait.until(created, what="EKS to accept the role of an association", timeout=limits.IAM_EFFECTIVE)
        except wait.Timeout:
            return create()  # its own refusal says more

    def create_agent_addon(self, cluster: str) -> None:
        """Create the agent's add-on unless it is there; does not wait for it.

        Raises:
            MissingPrerequisite: It is not there, and the account is somebody's: what it has is what is tested.
        """
        if self._tenancy:
            if self._has_agent_addon(cluster):
                return
            raise MissingPrerequisite(
                f"{cluster} has no add-on {AGENT_ADDON}, and a run on AWS installs nothing",
                hint=f"aws eks create-addon --cluster-name {cluster} --addon-name {AGENT_ADDON}",
                kind="environment",
            )
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
        self.client("eks").delete_addon(clusterName=cluster, addonName=AGENT_ADDON)
        wait.until(
            lambda: not self._has_agent_addon(cluster),
            what=f"add-on {AGENT_ADDON} of {cluster} to be deleted",
            timeout=limits.CLEANUP_STEP,
        )

    def _has_agent_addon(self, cluster: str) -> bool:
        with _ignoring("ResourceNotFoundException"):
            return bool(self.client("eks").describe_addon(clusterName=cluster, addonName=AGENT_ADDON))
        return False

    @property
    def account(self) -> str:
        """Account number of the administrator."""
        return str(self.client("sts").get_caller_identity()["Account"])

    def lookup_events(self, region: str | None = None, **attribute: str) -> list[Event]:
        """Return CloudTrail's events, newest first.

        Args:
            region: Where the calls were made; those of services without regions are in us-east-1.
            attribute: At most one lookup attribute, such as ``EventName="AssumeRole"``.

        Raises:
            MissingPrerequisite: It is Amazon's CloudTrail, which has events when the scenario is long over.
        """
        if self._tenancy:
            raise MissingPrerequisite(
                "Amazon's CloudTrail has an event up to a quarter of an hour after the call: this scenario cannot wait",
                hint="run it in a lab, whose CloudTrail has it at once: --provider native or --provider kind",
                kind="backend-unsupported",
            )
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


def _pairs(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


@contextlib.contextmanager
def _ignoring(code: str) -> Generator[None]:
    try:
        yield
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") != code:
            raise
