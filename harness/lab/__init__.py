"""The lab: AWS and clusters on one private network, raised and removed as a whole."""

from harness.lab.lab import Lab

__all__ = ["Lab"]
