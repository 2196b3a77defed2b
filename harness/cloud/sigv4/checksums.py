"""The checksums S3 clients send as trailers: CRC32, CRC32C, CRC64NVME, SHA1, SHA256.

The standard library has no CRC32C and no CRC64NVME, and the AWS CLI sends CRC64NVME with every upload, while a table
loop over single bytes does 10 MB/s. A CRC is linear, so a long message can be folded: advancing a word by a fixed
distance is a fixed linear map of its bytes, and the result is added to the word found there. Applied to all words of
one half at once, the map is ``bytes.translate`` per byte lane and the sum is an XOR of big integers: 50 MB/s and more.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Callable, Mapping

__all__ = ["CHECKSUMS", "crc32c", "crc64nvme"]

_FOLD_FROM = 1 << 13
"""Length in bytes up to which the loop over bytes is used."""


class _ReflectedCrc:
    """A CRC with reflected input and output whose initial value and final XOR are all ones."""

    def __init__(self, polynomial: int, bits: int) -> None:
        self._polynomial = polynomial
        self._bits = bits
        self._width = bits // 8
        self._mask = (1 << bits) - 1
        self._table = [self._after_zero_bits(value, 8) for value in range(256)]
        # Images of each register bit after 1, 2, 4, … words of zeros.
        self._advances = [[self._after_zero_bits(1 << bit, bits) for bit in range(bits)]]
        self._fold_tables: dict[int, list[list[bytes]]] = {}

    def __call__(self, data: bytes) -> int:
        """Return the CRC of ``data``."""
        width = self._width
        if len(data) < width:
            return self._loop(self._mask, data) ^ self._mask
        # Starting from all ones is the same as starting from zero with the first word inverted.
        head = int.from_bytes(data[:width], "little") ^ self._mask
        message = head.to_bytes(width, "little") + data[width:]
        while len(message) > _FOLD_FROM:
            message = self._fold(message)
        return self._loop(0, message) ^ self._mask

    def _after_zero_bits(self, register: int, count: int) -> int:
        for _ in range(count):
            register = register >> 1 ^ (self._polynomial if register & 1 else 0)
        return register

    def _loop(self, register: int, data: bytes) -> int:
        table = self._table
        for byte in data:
            register = register >> 8 ^ table[(register ^ byte) & 255]
        return register

    def _fold(self, message: bytes) -> bytes:
        """Return a message about half as long that leaves a zero register in the same state.

        Every word of the front moves back by ``distance``, the largest power of two of words that leaves something in
        front; the front is then never longer than the distance.
        """
        width = self._width
        exponent = ((len(message) - width) // width).bit_length() - 1
        distance = width << exponent
        front = (len(message) - distance) // width * width
        tables = self._tables_for(exponent)
        moved = bytearray(front)
        for out in range(width):
            total = 0
            for lane in range(width):
                total ^= int.from_bytes(message[lane:front:width].translate(tables[lane][out]), "little")
            moved[out::width] = total.to_bytes(front // width, "little")
        target = int.from_bytes(message[distance : distance + front], "little") ^ int.from_bytes(moved, "little")
        return message[front:distance] + target.to_bytes(front, "little") + message[distance + front :]

    def _tables_for(self, exponent: int) -> list[list[bytes]]:
        """Return, for moving by ``2**exponent`` words, one translation per byte of a word and byte of its image."""
        if exponent not in self._fold_tables:
            while len(self._advances) <= exponent:
                last = self._advances[-1]
                self._advances.append([_image(bits, last) for bits in last])
            basis = self._advances[exponent]
            tables: list[list[bytes]] = []
            for lane in range(self._width):
                images = [_image(value << 8 * lane, basis) for value in range(256)]
                tables.append([bytes(image >> 8 * out & 255 for image in images) for out in range(self._width)])
            self._fold_tables[exponent] = tables
        return self._fold_tables[exponent]


def _image(register: int, basis: list[int]) -> int:
    """Return the image of a register under the linear map that sends bit ``i`` to ``basis[i]``."""
    image = 0
    while register:
        low = register & -register
        image ^= basis[low.bit_length() - 1]
        register ^= low
    return image


crc32c = _ReflectedCrc(0x82F63B78, 32)
crc64nvme = _ReflectedCrc(0x9A6C9329AC4BC9B5, 64)


def _encoded(digest: Callable[[bytes], bytes]) -> Callable[[bytes], str]:
    return lambda data: base64.b64encode(digest(data)).decode()


CHECKSUMS: Mapping[str, Callable[[bytes], str]] = {
    "x-amz-checksum-crc32": _encoded(lambda data: zlib.crc32(data).to_bytes(4, "big")),
    "x-amz-checksum-crc32c": _encoded(lambda data: crc32c(data).to_bytes(4, "big")),
    "x-amz-checksum-crc64nvme": _encoded(lambda data: crc64nvme(data).to_bytes(8, "big")),
    "x-amz-checksum-sha1": _encoded(lambda data: hashlib.sha1(data, usedforsecurity=False).digest()),
    "x-amz-checksum-sha256": _encoded(lambda data: hashlib.sha256(data).digest()),
}
"""Header name → function from a body to the header's value. Newer algorithms are not verified (``iam.md`` 13.4)."""
