"""The running emulator, for the tests that ask over the wire; the others ask the domain itself."""

import harness.subject.property_tests  # noqa: F401 - takes effect when it is imported
from harness.subject.aws_fixtures import api, aws, localstack_environment, make_role, no_aws_settings, node

__all__ = ["api", "aws", "localstack_environment", "make_role", "no_aws_settings", "node"]
