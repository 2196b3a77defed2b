"""The partition of a region (WHK-410)."""

import pytest
from podid_webhook.instance import role_prefix


@pytest.mark.parametrize(
    ("region", "partition"),
    [
        ("eu-west-1", "aws"),
        ("cn-north-1", "aws-cn"),
        ("us-gov-west-1", "aws-us-gov"),
        ("us-iso-east-1", "aws-iso"),
        ("us-isob-east-1", "aws-iso-b"),
        ("eusc-de-east-1", "aws-eusc"),
        ("us-east-1", "aws"),
    ],
)
def test_partition(region: str, partition: str) -> None:
    assert role_prefix("111122223333", region) == f"arn:{partition}:iam::111122223333:role/"
