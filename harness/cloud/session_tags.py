"""Session tags: which may be passed, which a session ends up with, and how much room they take (``iam.md`` 11.4, 11.5).

Keys compare without case everywhere; the case of the winner is kept.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from harness.cloud.ports import Refusal

__all__ = ["PackingProfile", "check_session_tags", "overlaid", "packed_size", "resource_tags", "transitive_tags"]

PackingProfile = Literal["roomy", "observed"]

_TAG_SPACE: Mapping[PackingProfile, int] = {"roomy": 700, "observed": 345}
"""Bytes of tags that fill the allotted space. By default the six of Pod Identity always fit (IAM-STS-32); as they were
seen to fill AWS's, long names are too big (IAM-STS-33)."""
_POLICY_SPACE = 1200
"""Bytes of compressed policies that do."""


def check_session_tags(
    tags: Iterable[tuple[str, str]], transitive_keys: Iterable[str], inherited: Mapping[str, str]
) -> None:
    """Check passed tags against one another and against those of the calling session (IAM-STS-30).

    Args:
        tags: Passed tags.
        transitive_keys: Those of them that are to be transitive.
        inherited: Transitive tags of the calling session.

    Raises:
        Refusal: ``InvalidParameterValue``.
    """
    keys = [key.lower() for key, _ in tags]
    if len(set(keys)) < len(keys):
        raise _invalid("Duplicate tag keys found. Please note that Tag keys are case insensitive.")
    if any(key.lower() not in keys for key in transitive_keys):
        raise _invalid("The specified transitive tag key must be included in the requested tags.")
    if any(key.lower() in keys for key in inherited):
        raise _invalid(
            "One of the specified transitive tag keys can't be set because it conflicts with a transitive tag key"
            " from the calling session."
        )


def _invalid(message: str) -> Refusal:
    return Refusal("InvalidParameterValue", message, 400)


def overlaid(*layers: Mapping[str, str]) -> dict[str, str]:
    """Return the tags of all layers; of keys that are equal without case, the last layer's key and value."""
    winners: dict[str, tuple[str, str]] = {}
    for layer in layers:
        winners |= {key.lower(): (key, value) for key, value in layer.items()}
    return dict(winners.values())


def transitive_tags(
    tags: Mapping[str, str], transitive_keys: Iterable[str], inherited: Mapping[str, str]
) -> dict[str, str]:
    """Return the tags that outlive a session: its inherited ones, and those passed whose keys are listed."""
    listed = {key.lower() for key in transitive_keys}
    return overlaid({key: value for key, value in tags.items() if key.lower() in listed}, inherited)


def resource_tags(role_tags: Mapping[str, str], inherited: Mapping[str, str]) -> dict[str, str]:
    """Return a role's own tags as a chained AssumeRole sees them: inherited values replace those of the same key."""
    by_key = {key.lower(): value for key, value in inherited.items()}
    return {key: by_key.get(key.lower(), value) for key, value in role_tags.items()}


def packed_size(tags: Mapping[str, str], policies: Sequence[str], profile: PackingProfile = "roomy") -> int | None:
    """Return how many percent of its space a session takes; None for one without tags and session policies.

    AWS's packing is not known: this is an estimate that grows with every byte of the tags (IAM-STS-31).

    Args:
        tags: Passed and inherited tags.
        policies: Inline session policy, if any, and ARNs of managed ones.
        profile: How tightly is packed.

    Raises:
        Refusal: ``PackedPolicyTooLarge``, for more than 100 percent (IAM-STS-32).
    """
    if not tags and not policies:
        return None
    tag_bytes = sum(len(key.encode()) + len(value.encode()) + 2 for key, value in tags.items())
    policy_bytes = len(zlib.compress("".join(policies).encode())) if policies else 0
    # Rounded up in whole numbers: a float's error must not decide about the last byte.
    space = _TAG_SPACE[profile]
    percent = -(-100 * (tag_bytes * _POLICY_SPACE + policy_bytes * space) // (space * _POLICY_SPACE))
    if percent <= 100:
        return percent
    message = (
        f"Packed policy consumes {percent}% of allotted space, please use smaller policy."
        if policies
        else f"Packed size of session tags consumes {percent}% of allotted space."
    )
    raise Refusal("PackedPolicyTooLarge", message, 400)
