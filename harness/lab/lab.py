"""A lab as a whole: up, down, and what is in it.

Up overlaps what it can: AWS starts while clusters start while images are built. Everything that exists on the machine
is recorded in the lab's directory before it is created, so that down finds it after any crash.
"""

from __future__ import annotations

__all__ = ["Lab", "LabCluster"]

REGION = "eu-west-1"
NODE_ROLE = "pod-identity-lab-node-role"
WEBHOOK = ("pod-identity-webhook", "kube-system")
