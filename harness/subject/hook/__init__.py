"""Loaded by a subject's interpreter, not by the harness."""
