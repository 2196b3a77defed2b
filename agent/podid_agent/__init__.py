"""An EKS Pod Identity Agent: hands credentials of IAM roles to pods."""

__all__ = ["__version__"]

__version__ = "0.1.0"
