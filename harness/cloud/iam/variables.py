"""Policy variables: ``${key}``, ``${key, 'default'}`` and the escapes ``${*}``, ``${?}``, ``${$}`` (``iam.md`` 6)."""

from __future__ import annotations

from harness.cloud.iam.wildcard import Token, Variable, wildcard_tokens

__all__ = ["literal_tokens", "template_tokens"]

_ESCAPES = {"*", "?", "$"}


def template_tokens(text: str, *, has_wildcards: bool) -> list[Token]:
    """Split a text into literals, variables and, if wanted, wildcards.

    Args:
        text: Resource part or condition value of a document with variables (version 2012-10-17).
        has_wildcards: Whether stars and question marks outside variables are wildcards.
    """
    tokens: list[Token] = []
    position = 0
    while position < len(text):
        opening = text.find("${", position)
        found = _variable_at(text, opening) if opening >= 0 else None
        if found is None:
            # No variable begins in the rest; an opening without its end is ordinary text (IAM-VAR-09).
            opening = len(text)
        tokens += literal_tokens(text[position:opening], has_wildcards=has_wildcards)
        if found is None:
            break
        token, position = found
        tokens.append(token)
    return tokens


def literal_tokens(text: str, *, has_wildcards: bool) -> list[Token]:
    """Split a text in which ``${`` has no meaning."""
    if has_wildcards:
        return wildcard_tokens(text)
    return [text] if text else []


def _variable_at(text: str, opening: int) -> tuple[Token, int] | None:
    """Return the variable that begins at ``opening`` and the position behind it, or None if it has no end."""
    closing = text.find("}", opening)
    if closing < 0:
        return None
    inner = text[opening + 2 : closing]
    if inner in _ESCAPES:
        return inner, closing + 1
    comma = inner.find(",")
    while comma >= 0:
        # Tag keys hold no commas, but only a quoted default ends the key.
        quote = opening + 2 + comma + 1
        while text[quote : quote + 1] == " ":
            quote += 1
        if text[quote : quote + 1] == "'":
            return _with_default(text, opening, opening + 2 + comma, quote)
        comma = inner.find(",", comma + 1)
    return Variable(inner.strip().lower()), closing + 1


def _with_default(text: str, opening: int, comma: int, quote: int) -> tuple[Token, int] | None:
    end = text.find("'", quote + 1)
    closing = text.find("}", end) if end >= 0 else -1
    if closing < 0 or text[end + 1 : closing].strip():
        return None
    return Variable(text[opening + 2 : comma].strip().lower(), text[quote + 1 : end]), closing + 1
