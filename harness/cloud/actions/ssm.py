"""Parameter Store of Systems Manager, the part of SSM that the lab serves."""

from __future__ import annotations

from harness.cloud.actions.model import ParsedCall, Plan, PlannedCheck, RequestTags, Resources, planned
from harness.cloud.documents import entries
from harness.cloud.iam.model import ContextValue

_ON_PARAMETER = {
    "DeleteParameter",
    "GetParameter",
    "GetParameterHistory",
    "LabelParameterVersion",
    "PutParameter",
    "UnlabelParameterVersion",
}
_ON_PARAMETERS = {"DeleteParameters", "GetParameters"}
_ON_TAGS = {"AddTagsToResource", "ListTagsForResource", "RemoveTagsFromResource"}
_SECRETS = "/aws/reference/secretsmanager/"


def plan_ssm(call: ParsedCall, _: Resources) -> Plan | None:
    """Return the checks of a Parameter Store call; other operations of SSM are not mapped."""
    if call.operation == "DescribeParameters":
        return Plan((planned(call, call.arn("ssm", "*")),))
    names = _names(call)
    # These are secrets of Secrets Manager, which would have to be asked as well.
    if not names or any(_SECRETS in name for name in names):
        return None
    return Plan(tuple(_on_parameter(call, name) for name in names))


def _names(call: ParsedCall) -> list[str]:
    if call.operation in _ON_PARAMETER:
        return [call.text("Name")]
    if call.operation in _ON_PARAMETERS:
        return [str(name) for name in entries(call.parameters.get("Names"))]
    if call.operation == "GetParametersByPath":
        return [call.text("Path")]
    if call.operation in _ON_TAGS and call.text("ResourceType") == "Parameter":
        return [call.text("ResourceId")]
    return []


def _on_parameter(call: ParsedCall, name: str) -> PlannedCheck:
    """Return the check of a parameter: ARNs have its name with one slash before it, and no version or label."""
    arn = name if name.startswith("arn:") else call.arn("ssm", f"parameter/{name.removeprefix('/')}")
    arn = ":".join(arn.split(":")[:6])
    context: dict[str, ContextValue] = RequestTags.of(call.parameters.get("Tags")).context()
    if removed := call.parameters.get("TagKeys"):
        context["aws:TagKeys"] = tuple(str(key) for key in removed)
    if call.operation == "GetParametersByPath":
        context["ssm:Recursive"] = str(bool(call.parameters.get("Recursive"))).lower()
    if call.operation == "PutParameter":
        context["ssm:Overwrite"] = str(bool(call.parameters.get("Overwrite"))).lower()
    return planned(call, arn, context=context, tags=("ssm:resourceTag/",))
