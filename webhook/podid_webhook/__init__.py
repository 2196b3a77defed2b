"""Mutating admission webhook for Amazon EKS Pod Identity and IAM roles for service accounts."""

__version__ = "0.1.0"
__all__ = ["__version__"]
