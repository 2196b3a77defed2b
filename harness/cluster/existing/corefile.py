"""A Corefile that answers for AWS, made of somebody's own. Pure."""

from __future__ import annotations

__all__ = ["answering_for_aws"]

_ZONES = ("amazonaws.com", "api.aws")
_ANSWERS = """\
amazonaws.com:53 api.aws:53 {
    errors
    template IN A amazonaws.com api.aws {
        answer "{{ .Name }} 30 IN A AWS_ADDRESS"
    }
    template IN AAAA amazonaws.com api.aws {
        rcode NOERROR
    }
    cache 30
}
"""


def answering_for_aws(corefile: str, aws_address: str) -> str:
    """Return a Corefile that sends every name of AWS to an address, and is otherwise as it was.

    A server block of its own, because CoreDNS takes the block with the longest zone. Blocks that answered for AWS so
    far make room: two for one zone are an error.

    Args:
        corefile: The cluster's.
        aws_address: Address of the lab's AWS.
    """
    kept = [block for block in _blocks(corefile) if not _is_about_aws(block)]
    return "".join([*kept, _ANSWERS.replace("AWS_ADDRESS", aws_address)])


def _blocks(corefile: str) -> list[str]:
    """Return the top-level blocks, each with the comments in front of it."""
    blocks: list[str] = []
    current, depth = "", 0
    for line in corefile.splitlines(keepends=True):
        text = line.partition("#")[0]
        depth += text.count("{") - text.count("}")
        current += line
        if depth == 0 and text.strip().endswith("}"):
            blocks.append(current)
            current = ""
    return [*blocks, current if not current or current.endswith("\n") else current + "\n"]


def _is_about_aws(block: str) -> bool:
    lines = (line.partition("#")[0].strip() for line in block.splitlines())
    head = next((line for line in lines if line), "")
    zones = [word.rpartition("://")[2].partition(":")[0].rstrip(".") for word in head.replace("{", " ").split()]
    return bool(zones) and all(any(zone == aws or zone.endswith(f".{aws}") for aws in _ZONES) for zone in zones)
