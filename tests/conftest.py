from __future__ import annotations

import harness.subject.property_tests  # noqa: F401 - takes effect when it is imported
