"""EKS, EKS Auth (``iam.md`` 9.1)."""

from __future__ import annotations

from collections.abc import Mapping

from harness.cloud.actions.model import ParsedCall, Plan, PlannedCheck, RequestTags, Resources, planned
from harness.cloud.documents import entries, members
from harness.cloud.iam.model import Check, ContextValue

# Operation → member that names the cluster.
_ON_CLUSTER = {
    "CreateAddon": "clusterName",
    "CreatePodIdentityAssociation": "clusterName",
    "DescribeCluster": "name",
    "ListAddons": "clusterName",
    "ListPodIdentityAssociations": "clusterName",
}
_ON_ASSOCIATION = {
    "DeletePodIdentityAssociation",
    "DescribePodIdentityAssociation",
    "UpdatePodIdentityAssociation",
}
_ON_ADDON = {"DeleteAddon", "DescribeAddon", "UpdateAddon"}
_ON_ANYTHING = {"DescribeAddonVersions", "ListClusters"}
_ON_GIVEN_ARN = {"ListTagsForResource", "TagResource", "UntagResource"}


def plan_eks(call: ParsedCall, resources: Resources) -> Plan | None:
    """Return the checks of an EKS call."""
    name = call.operation
    if name in _ON_ANYTHING:
        return Plan((planned(call, "*"),))
    if name in _ON_GIVEN_ARN:
        keys: dict[str, ContextValue] = RequestTags.of(call.parameters.get("tags")).context()
        if removed := call.parameters.get("tagKeys"):
            keys["aws:TagKeys"] = tuple(str(key) for key in removed)
        return Plan((planned(call, call.text("resourceArn"), context=keys, tags=()),))
    cluster = call.arn("eks", f"cluster/{call.text(_ON_CLUSTER.get(name, 'clusterName'))}")
    if name in _ON_CLUSTER:
        tags = RequestTags.of(call.parameters.get("tags")).context()
        own = planned(call, cluster, context=tags, tags=())
        return Plan((own, *_passed_roles(call, cluster)))
    if name in _ON_ASSOCIATION:
        resource = f"podidentityassociation/{call.text('clusterName')}/{call.text('associationId')}"
        own = planned(call, call.arn("eks", resource), tags=())
        return Plan((own, *_passed_roles(call, cluster)))
    if name in _ON_ADDON:
        own = planned(call, resources.addon_arn(cluster, call.text("addonName")), tags=())
        return Plan((own, *_passed_roles(call, cluster)))
    return None


def plan_eks_auth(call: ParsedCall, _: Resources) -> Plan | None:
    """Return the check of AssumeRoleForPodIdentity: on EKS's cluster, with its tags and nothing else."""
    if call.operation != "AssumeRoleForPodIdentity":
        return None
    return Plan((planned(call, call.arn("eks", f"cluster/{call.text('clusterName')}"), tags=()),))


def _passed_roles(call: ParsedCall, cluster: str) -> tuple[PlannedCheck, ...]:
    """Return ``iam:PassRole`` for the role of each association; target roles are not passed but assumed."""
    own = [members(one).get("roleArn") for one in entries(call.parameters.get("podIdentityAssociations"))]
    context: Mapping[str, ContextValue] = {
        "iam:PassedToService": "pods.eks.amazonaws.com",
        "iam:AssociatedResourceArn": cluster,
    }
    roles = (str(role) for role in (call.text("roleArn"), *own) if role)
    return tuple(PlannedCheck(Check("iam:PassRole", role, context=context)) for role in roles)
