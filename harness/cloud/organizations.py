"""Organizations: their policies and keys enter every decision here, and nowhere else (IAM-EVAL-11)."""

from __future__ import annotations

from dataclasses import replace

from harness.cloud.iam.model import Check, ContextValue, PolicySet
from harness.cloud.ports import IamStore, Principal

__all__ = ["SERVICES_UNDER_RCPS", "in_organizations", "share_an_organization"]

_UNDER_RCPS = """aoss appconfig appstream autoscaling autoscaling-plans budgets clouddirectory cloudfront cloudsearch
    cloudtrail-data codeartifact codebuild codecommit codepipeline cognito-identity cognito-idp comprehend
    comprehendmedical compute-optimizer cost-optimization-hub dax dsql dynamodb ecr ecr-public events firehose fis fms
    gamelift health inspector-scan kendra kinesisvideo kms logs memorydb networkmonitor notifications opensearch
    pca-connector-ad personalize polly pricing resource-groups rolesanywhere s3 secretsmanager servicediscovery signin
    sqs sts support swf textract timestream-influxdb transcribe transfer translate wafv2 workspaces xray"""
SERVICES_UNDER_RCPS = frozenset(_UNDER_RCPS.split())
"""Prefixes of the services whose resources resource control policies protect."""
_SERVICE_LINKED = ":role/aws-service-role/"


def in_organizations(check: Check, principal: Principal, policies: PolicySet, iam: IamStore) -> tuple[Check, PolicySet]:
    """Add what the organizations of the caller's and of the resource's account say.

    Returns:
        The check with the keys of both organizations, and the policies with those of the caller's service control
        policies and the resource's resource control policies that count; both unchanged without an organization.
    """
    owner = _owner(check, principal)
    mine = iam.organization(principal.account) if principal.account else None
    other = mine if owner == principal.account else iam.organization(owner) if owner else None
    if mine is None and other is None:
        return check, policies
    keys: dict[str, ContextValue] = {}
    is_aws = _SERVICE_LINKED in principal.role_arn
    if mine:
        keys |= {"aws:PrincipalOrgID": mine.id, "aws:PrincipalOrgPaths": mine.paths}
        policies = policies if is_aws else replace(policies, scp=mine.scp)
    if other:
        if check.resource != "*":
            keys |= {"aws:ResourceOrgID": other.id, "aws:ResourceOrgPaths": other.paths}
        if check.action.partition(":")[0].lower() in SERVICES_UNDER_RCPS and not is_aws:
            policies = replace(policies, rcp=other.rcp)
    return check._replace(context={**check.context, **keys}), policies


def share_an_organization(check: Check, principal: Principal, iam: IamStore) -> bool:
    """Tell whether caller and resource belong to one organization: then denials across accounts tell why."""
    mine, other = (iam.organization(account) for account in (principal.account, _owner(check, principal)))
    return mine is not None and other is not None and mine.id == other.id


def _owner(check: Check, principal: Principal) -> str:
    parts = check.resource.split(":", 5)
    return check.resource_account or (parts[4] if len(parts) == 6 else "") or principal.account
