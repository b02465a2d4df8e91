"""The CRC-32 of a whole from those of its parts: crc(a + b) = crc(a)·x^(8·len b) + crc(b), modulo the CRC's polynomial."""

from __future__ import annotations

import zlib
from functools import lru_cache


def zeros_crc(nbytes: int) -> int:
    """The CRC-32 of so many zero bytes."""
    crc, zeros = 0, bytes(min(nbytes, 1 << 16))
    while nbytes > 0:
        crc = zlib.crc32(zeros[:nbytes], crc)
        nbytes -= len(zeros)
    return crc


POLYNOMIAL = 0xEDB88320
ONE = 1 << 31  # bit-reversed, as CRC-32 keeps its polynomials


def combine_crc(first: int, second: int, second_nbytes: int) -> int:
    """The CRC-32 of two runs of bytes, one after the other, from the CRC-32 of each.

    >>> combine_crc(zlib.crc32(b"ab"), zlib.crc32(b"c"), 1) == zlib.crc32(b"abc")
    True
    """
    return times(power(8 * second_nbytes), first) ^ second


@lru_cache(maxsize=4096)
def power(exponent: int, polynomial: int = POLYNOMIAL) -> int:
    """x^exponent, bit-reversed, modulo the polynomial."""
    result, square = ONE, ONE >> 1
    while exponent:
        if exponent & 1:
            result = times(square, result, polynomial)
        square = times(square, square, polynomial)
        exponent >>= 1
    return result


def times(left: int, right: int, polynomial: int = POLYNOMIAL) -> int:
    """The product of two polynomials, bit-reversed, modulo `polynomial`."""
    product = 0
    for bit in range(31, -1, -1):
        if left >> bit & 1:
            product ^= right
        right = right >> 1 ^ (polynomial if right & 1 else 0)
    return product
