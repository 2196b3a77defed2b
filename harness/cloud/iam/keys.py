"""The global condition keys and their types, declared in one place (IAM-DATA-04, ``iam.md`` section 8)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

__all__ = ["GLOBAL_KEYS", "KeyType", "is_multivalued"]

KeyType = Literal["String", "ARN", "Bool", "Numeric", "Date", "IPAddress", "ArrayOfString"]

GLOBAL_KEYS: Mapping[str, KeyType] = {
    "aws:CalledVia": "ArrayOfString",
    "aws:CalledViaFirst": "String",
    "aws:CalledViaLast": "String",
    "aws:CurrentTime": "Date",
    "aws:EC2InstanceSourcePrivateIPv4": "IPAddress",
    "aws:EC2InstanceSourceVPC": "String",
    "aws:EpochTime": "Date",
    "aws:FederatedProvider": "String",
    "aws:MultiFactorAuthAge": "Numeric",
    "aws:MultiFactorAuthPresent": "Bool",
    "aws:PrincipalAccount": "String",
    "aws:PrincipalArn": "ARN",
    "aws:PrincipalIsAWSService": "Bool",
    "aws:PrincipalOrgID": "String",
    "aws:PrincipalOrgPaths": "ArrayOfString",
    "aws:PrincipalServiceName": "String",
    "aws:PrincipalServiceNamesList": "ArrayOfString",
    "aws:PrincipalTag/*": "String",
    "aws:PrincipalType": "String",
    "aws:Referer": "String",
    "aws:RequestTag/*": "String",
    "aws:RequestedRegion": "String",
    "aws:ResourceAccount": "String",
    "aws:ResourceOrgID": "String",
    "aws:ResourceOrgPaths": "ArrayOfString",
    "aws:ResourceTag/*": "String",
    "aws:SecureTransport": "Bool",
    "aws:SourceAccount": "String",
    "aws:SourceArn": "ARN",
    "aws:SourceIdentity": "String",
    "aws:SourceIp": "IPAddress",
    "aws:SourceOrgID": "String",
    "aws:SourceOrgPaths": "ArrayOfString",
    "aws:SourceVpc": "String",
    "aws:SourceVpcArn": "ARN",
    "aws:SourceVpce": "String",
    "aws:TagKeys": "ArrayOfString",
    "aws:TokenIssueTime": "Date",
    "aws:UserAgent": "String",
    "aws:ViaAWSService": "Bool",
    "aws:VpcSourceIp": "IPAddress",
    "aws:userid": "String",
    "aws:username": "String",
    "ec2:RoleDelivery": "Numeric",
    "ec2:SourceInstanceARN": "ARN",
}
"""As AWS writes them; a star stands for the name of a tag."""
_SEVERAL = frozenset(key.lower() for key, kind in GLOBAL_KEYS.items() if kind.startswith("ArrayOf"))


def is_multivalued(key: str) -> bool:
    """Tell whether a global key, in any case, is a list; a web identity's ``amr`` is one whoever its provider is.

    Those of services are in the tables of :mod:`harness.iam_reference`.
    """
    return key.lower() in _SEVERAL or key.lower().endswith(":amr")
