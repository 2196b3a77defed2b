"""Amazon EKS in the lab: clusters, add-ons, pod identity associations. Pure; the adapter brings the real clusters."""

from harness.cloud.eks.addons import AGENT_ADDON, AGENT_VERSIONS
from harness.cloud.eks.associations import EksSettings
from harness.cloud.eks.model import (
    Addon,
    AddonDeployer,
    AddonHealth,
    AddonIssue,
    Association,
    Cluster,
    ClusterDirectory,
    ClusterError,
    Scope,
)
from harness.cloud.eks.service import Eks

__all__ = [
    "AGENT_ADDON",
    "AGENT_VERSIONS",
    "Addon",
    "AddonDeployer",
    "AddonHealth",
    "AddonIssue",
    "Association",
    "Cluster",
    "ClusterDirectory",
    "ClusterError",
    "Eks",
    "EksSettings",
    "Scope",
]
