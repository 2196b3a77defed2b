"""The network of the pods on one node, as the CNI configuration that its containerd reads. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

__all__ = ["FILE_NAME", "configuration"]

FILE_NAME = "10-lab.conflist"


def configuration(pods: Sequence[str]) -> str:
    """Return the configuration of a node's bridge; other nodes' pods are led to by routes of the node.

    Args:
        pods: Networks of this node's pods, one for each version of IP.
    """
    plugins: list[dict[str, Any]] = [
        {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "hairpinMode": True,
            # Pods reach AWS and IMDS under the node's address, as behind a VPC's source NAT.
            "ipMasq": True,
            "ipMasqBackend": "nftables",
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": network}] for network in pods],
                "routes": [{"dst": "::/0" if ":" in network else "0.0.0.0/0"} for network in pods],
            },
        },
        {"type": "portmap", "capabilities": {"portMappings": True}, "backend": "nftables"},
    ]
    return json.dumps({"cniVersion": "1.0.0", "name": "lab", "plugins": plugins}, indent=1)
