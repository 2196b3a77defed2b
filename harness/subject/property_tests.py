"""Settings of property tests; importing it makes them those of the session."""

from __future__ import annotations

import hypothesis

# The same examples at every run, and no limit on how long a slow machine takes for one.
hypothesis.settings.register_profile(
    "podid",
    max_examples=50,
    derandomize=True,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("podid")
