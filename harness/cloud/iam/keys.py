"""Which condition keys have several values, declared in one place (``iam.md`` section 8)."""

from __future__ import annotations

__all__ = ["is_multivalued"]

_SEVERAL = frozenset(
    {
        "aws:calledvia",
        "aws:principalorgpaths",
        "aws:principalservicenameslist",
        "aws:resourceorgpaths",
        "aws:sourceorgpaths",
        "aws:tagkeys",
        "dynamodb:attributes",
        "dynamodb:leadingkeys",
        "elasticloadbalancing:securitygroup",
        "elasticloadbalancing:subnet",
        "s3:requestobjecttagkeys",
        "sts:transitivetagkeys",
    }
)
"""Lower-cased."""


def is_multivalued(key: str) -> bool:
    """Tell whether a key, in any case, is a list; a web identity's ``amr`` is one whoever its provider is."""
    return key.lower() in _SEVERAL or key.lower().endswith(":amr")
