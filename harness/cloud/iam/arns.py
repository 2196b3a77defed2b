"""ARN patterns: six parts, each matched on its own (IAM-STMT-03)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from harness.cloud.iam.model import PolicyKind
from harness.cloud.iam.values import ContextValue
from harness.cloud.iam.variables import literal_tokens, template_tokens
from harness.cloud.iam.wildcard import STAR, Pattern, TextTest, Token, Variable

__all__ = ["ArnPattern", "Tree", "arn_condition_pattern", "path", "resource_pattern"]

_PARTS = 6
_DEEPEST = 5
"""Slash-separated pieces of an ARN that the tree looks at; bounds what a policy full of slashes costs."""


class ArnPattern:
    """A pattern that never lets a wildcard or a variable cross one of the first five colons."""

    __slots__ = ("is_everything", "matches", "node", "variables")

    matches: TextTest
    """Tells whether the pattern matches an ARN; only a pattern of stars matches a text that is none."""
    node: str | None
    """Where in a :class:`Tree` its ARNs hang: all are this text or begin with it and a slash. None: anywhere."""
    variables: tuple[Variable, ...]

    def __init__(self, parts: Sequence[Sequence[Token]], *, everything: bool = False) -> None:
        """Compile the tokens of each part; fewer than six parts match nothing unless ``everything``."""
        self.node = None
        self.is_everything = everything
        self.variables = tuple(token for tokens in parts for token in tokens if isinstance(token, Variable))
        head = _literal_head(parts)
        if everything:
            self.matches = _always
        elif len(parts) != _PARTS:
            self.matches = _never
        elif head is None:
            patterns = [Pattern(tokens) for tokens in parts]
            self.matches = lambda arn, context: _matches_parts(patterns, arn, context)
        else:
            # The first five parts are one literal with the colons in it, so nothing behind can cross them.
            whole = Pattern([head, *parts[5]])
            is_text = all(isinstance(token, str) for token in parts[5])
            self.matches = whole.matches
            self.node = _node(whole.literal_head, is_whole=is_text)


def _always(_arn: str, _context: Mapping[str, ContextValue]) -> bool:
    return True


def _never(_arn: str, _context: Mapping[str, ContextValue]) -> bool:
    return False


def _matches_parts(patterns: Sequence[Pattern], arn: str, context: Mapping[str, ContextValue]) -> bool:
    texts = arn.split(":", _PARTS - 1)
    return len(texts) == _PARTS and all(
        pattern.matches(text, context) for pattern, text in zip(patterns, texts, strict=True)
    )


def _literal_head(parts: Sequence[Sequence[Token]]) -> str | None:
    head = ""
    for tokens in parts[:5]:
        if not all(isinstance(token, str) for token in tokens):
            return None
        head += "".join(token for token in tokens if isinstance(token, str)) + ":"
    return head


def _node(head: str, *, is_whole: bool) -> str | None:
    """Return a head up to its last slash, or all of it where nothing follows; never deeper than the tree is."""
    pieces = head.split("/")
    if not is_whole:
        pieces.pop()
    return "/".join(pieces[:_DEEPEST]) or None


class Tree:
    """The nodes that some patterns hang at: finds those that can match an ARN without asking each (IAM-PERF-02)."""

    __slots__ = ("_nodes",)

    def __init__(self, nodes: Iterable[str]) -> None:
        """Keep the nodes and all that they hang below."""
        self._nodes: dict[str, bool] = {}
        """Every node, and whether anything hangs below it."""
        for node in nodes:
            *above, last = path(node)
            self._nodes.update(dict.fromkeys(above, True))
            self._nodes.setdefault(last, False)

    def node(self, arn: str) -> str | None:
        """Return the deepest node that an ARN hangs at or below; None: patterns that hang nowhere are all there are."""
        nodes = self._nodes
        found, slash, _ = arn.partition("/")
        goes_on = nodes.get(found)
        if goes_on is None:
            return None
        while goes_on and slash:
            end = arn.find("/", len(found) + 1)
            deeper = arn[:end] if end >= 0 else arn
            goes_on = nodes.get(deeper)
            if goes_on is None:
                break
            found, slash = deeper, end >= 0
        return found


def path(node: str) -> Iterator[str]:
    """Return a node and all that it hangs below, itself last."""
    for index, character in enumerate(node):
        if character == "/":
            yield node[:index]
    yield node


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
