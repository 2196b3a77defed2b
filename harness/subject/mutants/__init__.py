"""Agents and webhooks with one deliberate fault each: what the suites must find out (docs/mutants.md).

Each is ours with one seam overridden, started as ``python -m harness.subject.mutants NAME ARGUMENTS…``. ``agent`` and
``webhook`` are the one place of the harness that imports the subjects, and nothing of the subjects imports this.
"""
