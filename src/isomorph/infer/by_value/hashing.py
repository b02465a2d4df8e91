"""A hash of one element: the same for one value in whatever dtype, and fit to be added up.

    hash_elements([1.0] as bf16) == hash_elements([1.0] as f32) == hash_elements([1.0] as f64) != hash_elements([1] as i64)

Sums modulo 2**64 of these hashes stand for multisets (MSet-Add: Clarke et al., Incremental multiset hash functions, 2003). They
find what may be equal; what is equal is compared element by element. Each hash is a canonical element, mixed in two rounds (where
it has 32 bits) or three (64 bits) of multiplication and shift, as in the finaliser of SplitMix64 (Steele, Lea, Flood, 2014):

    f16, bf16, f8, f32, and an f64 that f32 holds    the bits of f32 (NaN as a cast widens it; -0.0 is not 0.0)
    any other f64                                    its own bits, in a domain of their own
    integers of all widths                           the value, in one domain (2**63 and above in another)
    bool, and every opaque dtype                     the byte, in a domain of their own; the bytes of an item in turn
    complex                                          the hashes of both parts, mixed
"""

from __future__ import annotations

import zlib
from functools import cache
from typing import Any

import numpy as np

from isomorph.operators.casting import convert
from isomorph.operators.numbers import widens
from isomorph.tensors import DTYPES, OPAQUE_DTYPES, DType

Array = np.ndarray[Any, np.dtype[Any]]
U64 = np.uint64
MASK = (1 << 64) - 1

TILE = 1 << 16
"""Elements hashed at a time: with their scratch they stay in the second-level cache."""

_GOLDEN = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB
_ROUNDS = ((32, _FIRST),)
_LAST_ROUND = (27, _SECOND)
_F32, _F64, _BITS_F32 = DTYPES["f32"], DTYPES["f64"], np.dtype("<u4")
_DOMAINS = {
    name: number
    for number, name in enumerate(
        ["float", "f64", "integer", "large", "bool", "complex", "fibre", *OPAQUE_DTYPES, "item"], 1
    )
}


def hash_elements(bits: Array, dtype: DType, *, out: Array | None = None) -> Array:
    """The hash of each element, u64, in the shape of `bits`.

    `bits` holds elements of `dtype` under any numpy dtype of that width (`dtype.bits` or `dtype.numpy`), in any layout, and is left
    as it is. `out`: a contiguous u64 array of as many elements, which is filled and returned.
    """
    flat = np.ascontiguousarray(bits).reshape(-1).view(dtype.bits)
    if out is None:
        out = np.empty(bits.shape, U64)
    made = out.reshape(-1)
    scratch = np.empty(min(TILE, flat.size), U64)
    for start in range(0, flat.size, TILE):
        part = flat[start : start + TILE]
        _hash_tile(part, dtype, made[start : start + TILE], scratch[: part.size])
    return out


def hash_of(element: int, dtype: DType) -> int:
    """The hash of one element, given by its bits."""
    return int(hash_elements(np.frombuffer(element.to_bytes(dtype.nbytes, "little"), dtype.bits), dtype)[0])


def mix(numbers: Array, places: Array | int | None = None) -> Array:
    """Hashes of u64 numbers (sums of hashes): of each alone, or with `places` of each together with its place."""
    mixed = np.array(numbers, U64)
    if places is not None:
        mixed += np.atleast_1d(np.asarray(places, U64)) * U64(_SECOND) + U64(_FIRST)
    return _finish(mixed, "fibre", np.empty_like(mixed))


def total(hashes: Array) -> int:
    """The sum of hashes, modulo 2**64."""
    return int(np.add.reduce(hashes, axis=None, dtype=U64))


def _hash_tile(bits: Array, dtype: DType, out: Array, scratch: Array) -> None:
    if dtype.block:
        _hash_items(bits, dtype, out, scratch)
    elif dtype.nbytes == 1:
        np.take(_table(dtype), bits.astype(np.intp), out=out, mode="clip")
    elif dtype.nbytes == 2:
        places = scratch.view(np.intp)
        places[...] = bits
        np.take(_table(dtype), places, out=out, mode="clip")
    elif dtype == _F32:
        out[...] = bits
        _finish(out, "float", scratch)
    elif dtype == _F64:
        _hash_f64(bits, out, scratch)
    elif dtype.is_integer:
        _hash_integers(bits, dtype, out, scratch)
    else:
        _hash_complex(bits, dtype, out, scratch)


def _finish(numbers: Array, domain: str, scratch: Array) -> Array:
    """Mix u64 numbers in place. Floats are below 2**32 and sums of hashes are mixed already: one round less is enough for these."""
    numbers *= U64(_GOLDEN)
    numbers += U64(_DOMAINS[domain] * _SECOND & MASK)
    for shift, factor in _ROUNDS if domain in ("float", "fibre") else (*_ROUNDS, _LAST_ROUND):
        np.right_shift(numbers, U64(shift), out=scratch)
        np.bitwise_xor(numbers, scratch, out=scratch)
        np.multiply(scratch, U64(factor), out=numbers)
    np.right_shift(numbers, U64(29), out=scratch)
    numbers ^= scratch
    return numbers


def _hash_f64(bits: Array, out: Array, scratch: Array) -> None:
    narrow = np.empty(bits.shape, _BITS_F32)
    again = np.empty(bits.shape, U64)
    with np.errstate(all="ignore"):
        convert(bits, _F64, _F32, narrow, True)
        convert(narrow, _F32, _F64, again, True)
    fits = again == bits
    count = int(np.count_nonzero(fits))
    if count:
        out[...] = narrow
        _finish(out, "float", scratch)
    if count < bits.size:
        again[...] = bits
        _finish(again, "f64", scratch)
        np.copyto(out, again, where=~fits)


def _hash_integers(bits: Array, dtype: DType, out: Array, scratch: Array) -> None:
    values = bits.view(dtype.numpy)
    out[...] = values.astype(np.int64).view(U64) if dtype.kind == "signed" else values
    large = out >= U64(1 << 63) if dtype.name == "u64" else None
    if large is not None and large.any():
        others = out[large]
        _finish(others, "large", np.empty_like(others))
        _finish(out, "integer", scratch)
        out[large] = others
        return
    _finish(out, "integer", scratch)


def _hash_items(bits: Array, dtype: DType, out: Array, scratch: Array) -> None:
    """Items of any number of bytes: each word is added to the hash of those before it, from that of the dtype's name on."""
    word = next(size for size in (8, 4, 2, 1) if dtype.nbytes % size == 0)
    words = bits.view(f"<u{word}").reshape(bits.size, -1)
    out[...] = zlib.crc32(dtype.name.encode())
    for place in range(words.shape[1]):
        out += words[:, place]
        _finish(out, "item", scratch)


def _hash_complex(bits: Array, dtype: DType, out: Array, scratch: Array) -> None:
    part = DTYPES["f32" if dtype.name == "c64" else "f64"]
    sides = bits.view(part.bits).reshape(-1, 2)
    _hash_tile(np.ascontiguousarray(sides[:, 0]), part, out, scratch)
    imaginary = np.empty_like(out)
    _hash_tile(np.ascontiguousarray(sides[:, 1]), part, imaginary, scratch)
    out += _finish(imaginary, "complex", scratch)
    _finish(out, "complex", scratch)


@cache
def _table(dtype: DType) -> Array:
    """The hashes of all elements of a dtype of one or two bytes."""
    every = np.arange(1 << (8 * dtype.nbytes), dtype=np.uint32).astype(dtype.bits)
    hashes = np.empty(every.size, U64)
    if dtype.is_float:
        wide = np.empty(every.size, _BITS_F32)
        assert widens(dtype, _F32)
        convert(every, dtype, _F32, wide, True)
        hashes[...] = wide
        domain = "float"
    elif dtype.is_integer:
        hashes[...] = every.view(dtype.numpy).astype(np.int64).view(U64)
        domain = "integer"
    else:
        hashes[...] = every
        domain = dtype.name
    _finish(hashes, domain, np.empty_like(hashes))
    hashes.flags.writeable = False
    return hashes
