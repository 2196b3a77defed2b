"""The AWS sandbox: LocalStack with our plugin, IMDS and the image registry, on the lab's bridge."""

from __future__ import annotations

from pathlib import Path

from harness.cluster.native.sandbox import Sandbox

__all__ = ["LabAws", "serving_names"]


def serving_names(region: str) -> list[str]:
    """Return the host names that the lab's AWS serves: a wildcard covers one label only."""
    return [
        "*.amazonaws.com",
        f"*.{region}.amazonaws.com",
        "*.us-east-1.amazonaws.com",
        f"*.s3.{region}.amazonaws.com",
        "*.s3.amazonaws.com",
        f"*.{region}.api.aws",
        f"oidc.eks.{region}.amazonaws.com",
        "localhost",
    ]


class LabAws:
    """The lab's AWS, known by its directory."""

    def __init__(self, directory: Path) -> None:
        """Attach to the directory; nothing is created or started."""
        self.directory = directory
        self.sandbox = Sandbox(directory)

    @property
    def authority_file(self) -> Path:
        """Certificate of the lab's CA, PEM."""
        return self.directory / "ca.crt"
