"""Clusters that the harness did not create."""
