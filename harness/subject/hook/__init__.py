"""Loaded by an agent's interpreter, not by the harness."""
