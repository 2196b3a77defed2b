import hypothesis

# The same examples at every run, and no limit on how long a slow machine takes for one.
hypothesis.settings.register_profile(
    "podid", derandomize=True, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("podid")
