"""Checksums and families of services."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable

import pytest

from harness.cloud.sigv4 import family_of
from harness.cloud.sigv4.checksums import CHECKSUMS, crc32c, crc64nvme


def test_families_are_told_by_signing_name() -> None:
    names = ["s3", "sts", "iam", "eks", "eks-auth", "secretsmanager", "cloudtrail", "ec2", "elasticloadbalancing"]

    assert [family_of(name) for name in names] == [
        "s3", "query", "query", "rest-json", "rest-json", "json", "json", "ec2", "query",
    ]  # fmt: skip


def test_crcs_give_the_published_check_values() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc64nvme(b"123456789") == 0xAE8B14860A799888


@pytest.mark.parametrize("crc", [crc32c, crc64nvme])
@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 8192, 8193, 8200, 16385, 20001, 65543, 100003])
def test_folding_gives_what_the_byte_loop_gives(crc: Callable[[bytes], int], size: int) -> None:
    data = bytes((i * i + 7 * i) & 255 for i in range(size))
    polynomial, mask = (0x82F63B78, 2**32 - 1) if crc is crc32c else (0x9A6C9329AC4BC9B5, 2**64 - 1)
    register = mask
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (polynomial if register & 1 else 0)

    assert crc(data) == register ^ mask


def test_crc32_is_sent_big_endian() -> None:
    assert (
        CHECKSUMS["x-amz-checksum-crc32"](b"hello")
        == base64.b64encode(zlib.crc32(b"hello").to_bytes(4, "big")).decode()
    )
