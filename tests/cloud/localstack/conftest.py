"""The running emulator; every test here needs it."""

import pytest

from harness.subject.aws_fixtures import api, aws, localstack_environment, make_role, no_aws_settings, node

__all__ = ["api", "aws", "localstack_environment", "make_role", "no_aws_settings", "node"]


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker(pytest.mark.localstack)
