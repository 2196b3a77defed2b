"""Kubernetes clusters from somewhere, behind one protocol (:mod:`harness.cluster.base`)."""
