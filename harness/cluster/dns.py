"""What the CoreDNS of a lab's cluster says about AWS's names. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from harness.cluster.base import ClusterSpec

__all__ = ["aws_answers"]

_RECORDS = {4: "A", 6: "AAAA"}


def aws_answers(spec: ClusterSpec, addresses: Mapping[int, str]) -> dict[str, str]:
    """Return what ``template`` blocks of a Corefile say, for the words ``ANSWER_IPV4`` and ``ANSWER_IPV6`` in it.

    Pods are told the addresses that they can reach, of the versions of IP that they have. A name without one of the
    other kind is there all the same, and has to be: NXDOMAIN would be said of both kinds.

    Args:
        spec: The cluster.
        addresses: Version of IP → address of the lab's AWS.
    """
    return {
        f"ANSWER_IPV{version}": f'answer "{{{{ .Name }}}} 30 IN {record} {addresses[version]}"'
        if version in spec.ip_versions
        else "rcode NOERROR"
        for version, record in _RECORDS.items()
    }
