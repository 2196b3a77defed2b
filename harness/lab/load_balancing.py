"""Load balancers in a lab: the data plane on a cluster's node, and the programs and images that the scenario needs.

Brought up when somebody wants them: a lab without load balancers has none of it.
"""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness import binaries
from harness.cluster.base import Cluster
from harness.image_lock import built
from harness.images import ImageSpec
from harness.kube import Kube, load_manifests
from harness.lab.lab import Lab
from harness.lab.paths import CHECKOUT, cache_directory
from harness.progress import Progress

__all__ = ["ControllerFiles", "bring_up", "controller_files", "image_specs"]

NAMESPACE = "podid-load-balancers"
_MANIFESTS = CHECKOUT / "fixtures" / "lab" / "load-balancers.yaml"


@dataclass(frozen=True, slots=True)
class ControllerFiles:
    """What is needed to install the AWS Load Balancer Controller as its users do."""

    helm: Path
    chart: Path
    policy: Path
    """The IAM policy of its documentation."""


def controller_files(lab: Lab, progress: Progress) -> ControllerFiles:
    """Return the controller's chart and policy from its pinned module, and Helm; built when they are not there.

    The chart is a directory: Helm leaves out what ``.helmignore`` names when it reads one, not from an archive.
    """
    cache = cache_directory()
    found = binaries.ensure(cache, progress, [binaries.LOAD_BALANCER_CONTROLLER])
    own = shutil.which("helm")
    helm = Path(own) if own else binaries.ensure(cache, progress, [binaries.HELM])["helm"]
    charts = lab.paths.directory / "charts"
    with tarfile.open(found["aws-load-balancer-controller.tgz"]) as archive:
        archive.extractall(charts, filter="data")
    return ControllerFiles(helm, charts / "aws-load-balancer-controller", found["iam_policy.json"])


def bring_up(lab: Lab, cluster: Cluster, kube: Kube, progress: Progress) -> None:
    """Build what is missing, and start the data plane on the cluster's first node.

    Args:
        lab: A lab that is up.
        cluster: One of its clusters.
        kube: An administrator of it.
        progress: Where to report.
    """
    found = binaries.ensure(cache_directory(), progress, [binaries.LOAD_BALANCER_CONTROLLER])
    lab.add_images(cluster.name, image_specs(found), progress)
    with progress.phase("load balancers") as phase:
        phase.step("starting the data plane")
        access = {"AWS_ADDRESS": lab.aws_address, "DATA_PLANE_TOKEN": lab.data_plane_token}
        # Names of load balancers lead there (CoreDNS, `podid curl`).
        place = {"FIRST_NODE": cluster.nodes[0].name}
        kube.apply(load_manifests(_MANIFESTS, access | place))
        kube.wait_until_deployed("Deployment", "load-balancers", NAMESPACE)


def image_specs(programs: Mapping[str, Path]) -> list[ImageSpec]:
    """Return the images of the scenario: controller, application, data plane."""
    controller = "aws-load-balancer-controller"
    package = CHECKOUT / "harness"
    modules = [
        package / "__init__.py",
        package / "cloud" / "__init__.py",
        package / "cloud" / "documents.py",
        *(package / "cloud" / "elbv2").glob("*.py"),
        *(package / "load_balancer").glob("*.py"),
    ]
    # Of the cloud's rules only those that the data plane runs.
    needed = [module for module in modules if module.name not in {"names.py", "security.py", "targets.py"}]
    return [
        built(controller, {controller: programs[controller]}),
        built("nginx"),
        built("load-balancer", {str(module.relative_to(CHECKOUT)): module for module in needed}),
    ]
