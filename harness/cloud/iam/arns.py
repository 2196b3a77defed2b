"""ARN patterns: six parts, each matched on its own (IAM-STMT-03)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.cloud.iam.model import PolicyKind
from harness.cloud.iam.values import ContextValue
from harness.cloud.iam.variables import literal_tokens, template_tokens
from harness.cloud.iam.wildcard import STAR, Pattern, Token, Variable

__all__ = ["ArnPattern", "arn_condition_pattern", "resource_key", "resource_pattern"]

_PARTS = 6


class ArnPattern:
    """A pattern that never lets a wildcard or a variable cross one of the first five colons."""

    __slots__ = ("_everything", "_literal_head", "_parts", "resource_key", "variables")

    def __init__(self, parts: Sequence[Sequence[Token]], *, everything: bool = False) -> None:
        """Compile the tokens of each part; fewer than six parts match nothing unless ``everything``."""
        patterns = [Pattern(tokens) for tokens in parts]
        self._everything = everything
        self._parts = patterns if len(patterns) == _PARTS else []
        self._literal_head = _literal_head(parts) if self._parts else None
        self.resource_key = self._own_key(parts)
        """:func:`resource_key` of every ARN that can match; None if there are several."""
        self.variables: tuple[Variable, ...] = tuple(variable for pattern in patterns for variable in pattern.variables)

    def _own_key(self, parts: Sequence[Sequence[Token]]) -> str | None:
        if self._literal_head is None:
            return None
        head = self._parts[5].literal_head
        key = resource_key(self._literal_head + head)
        is_whole = all(isinstance(token, str) for token in parts[5])
        return key if is_whole or len(key) < len(self._literal_head + head) else None

    def matches(self, arn: str, context: Mapping[str, ContextValue]) -> bool:
        """Tell whether the pattern matches an ARN; only a pattern of stars matches a text that is none."""
        if self._everything:
            return True
        if not self._parts:
            return False
        head = self._literal_head
        if head is not None:
            # Most resources are literal up to their sixth part: one comparison instead of six.
            return arn.startswith(head) and self._parts[5].matches(arn[len(head) :], context)
        texts = arn.split(":", _PARTS - 1)
        if len(texts) != _PARTS:
            return False
        return all(pattern.matches(text, context) for pattern, text in zip(self._parts, texts, strict=True))


def resource_key(arn: str) -> str:
    """Return an ARN up to the first slash or colon of its sixth part: what statements are indexed by."""
    parts = arn.split(":", _PARTS)
    if len(parts) < _PARTS:
        return arn
    head, slash, _ = parts[5].partition("/")
    return ":".join([*parts[:5], head]) if slash or len(parts) > _PARTS else arn


def _literal_head(parts: Sequence[Sequence[Token]]) -> str | None:
    head = ""
    for tokens in parts[:5]:
        if not all(isinstance(token, str) for token in tokens):
            return None
        head += "".join(token for token in tokens if isinstance(token, str)) + ":"
    return head


def resource_pattern(text: str, kind: PolicyKind, *, has_variables: bool) -> ArnPattern:
    """Compile an element of Resource or NotResource.

    Variables count in the sixth part only (IAM-VAR-02). Short patterns follow IAM-STMT-08.
    """
    if text and not text.strip("*"):
        return ArnPattern([], everything=True)
    raw = text.split(":", _PARTS - 1)
    parts: list[Sequence[Token]] = [literal_tokens(part, has_wildcards=True) for part in raw[:5]]
    if len(raw) == _PARTS:
        split = template_tokens if has_variables else literal_tokens
        parts.append(split(raw[5], has_wildcards=True))
    elif _is_padded(text, kind):
        parts += [[STAR]] * (_PARTS - len(raw))
    return ArnPattern(parts)


def _is_padded(text: str, kind: PolicyKind) -> bool:
    if kind == "scp":
        return text.endswith("*")
    return kind != "resource" or "*" in text or "?" in text


def arn_condition_pattern(tokens: Sequence[Token]) -> ArnPattern:
    """Compile a value of an ARN operator; colons inside variable values never separate parts (IAM-SEC-02)."""
    if tokens and all(token is STAR for token in tokens):
        return ArnPattern([], everything=True)
    parts: list[list[Token]] = [[]]
    for token in tokens:
        if not isinstance(token, str):
            parts[-1].append(token)
            continue
        pieces = token.split(":", _PARTS - len(parts))
        for index, piece in enumerate(pieces):
            if index:
                parts.append([])
            if piece:
                parts[-1].append(piece)
    return ArnPattern(parts)
