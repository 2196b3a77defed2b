"""Conformance harness and laptop lab for Amazon EKS Pod Identity."""
