"""Operators as the verifier reads them: the dtype by the words of LANGUAGE.md 3 (16), (17); the bits by their plain reference."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from isomorph.errors import CheckError, MorphError
from isomorph.language.rules import Rule
from isomorph.language.tree import Op
from isomorph.operators import reference
from isomorph.tensors import DType, dtype

Bits = np.ndarray[Any, np.dtype[Any]]


BLOCK = 1 << 16
"""Elements that the reference is given at a time: its scratch stays small."""

NAMES = ("cast", "neg", "add", "mul", "exp", "log", "sum")
"""What the notation has of itself; `resize` and `pad` act along axes, all others are of packages."""

_tables: dict[tuple[Op, DType], Bits | None] = {}


class Refused(Exception):
    """An operator that makes nothing of a dtype: one sentence."""


class CannotCarryOut(Exception):
    """A value that an operator refuses (an exact cast that would round, an overflow): one sentence."""


def as_read(op: Op) -> Op | None:
    """The operator as it acts in the reading direction; None when it leaves everything as it is."""
    if not op.inverted:
        return op
    if op.name == "cast":
        if op.source == "float":
            return None
        return replace(op, source=op.target, target=op.source, rounding=False, saturate=False, inverted=False)
    if op.name in ("exp", "log"):
        return replace(op, name="log" if op.name == "exp" else "exp", inverted=False)
    return replace(op, inverted=False) if op.name == "neg" else op


def result(op: Op, kind: DType) -> DType:
    """The dtype that `op` makes of `kind`. Refused where it makes nothing of it."""
    read = as_read(op)
    if read is None:
        return kind
    if read.name == "cast":
        assert read.source is not None and read.target is not None
        if read.source == "float":
            return dtype(read.target) if kind.is_float else kind
        if dtype(read.source) != kind:
            raise Refused(f"a cast from {read.source} to {read.target} meets {kind}")
        return dtype(read.target)
    if read.takes or read.name not in NAMES:
        try:
            return reference.result(read, kind)
        except MorphError as error:
            raise Refused(_whole(error)) from None
    if kind.kind in ("bool", "opaque"):
        raise Refused(f"`{read.name}` does nothing on {kind}")
    if read.name == "neg" and kind.kind == "unsigned":
        raise Refused(f"`neg` of {kind}")
    if read.name in ("add", "mul", "exp", "log") and kind.is_integer:
        raise Refused(f"`{read.name}` on {kind}")
    return kind


def _whole(error: MorphError) -> str:
    """The message of an error, with what to do next."""
    gap = error.gaps[0]
    return gap.message if gap.hint is None else f"{gap.message}: {gap.hint}"


def carry_out(op: Op, bits: Bits, kind: DType) -> tuple[Bits, DType]:
    """The bits that `op` makes of bits of `kind`, in their shape, and their dtype. CannotCarryOut where a value refuses."""
    made = result(op, kind)
    if as_read(op) is None or (op.name == "cast" and made == kind) or op.name == "sum":
        return bits, made
    table = _table(op, kind) if kind.nbytes <= 2 and bits.size >= BLOCK else None
    found = np.empty(bits.size, dtype=made.bits)
    flat = bits.reshape(-1)
    for start in range(0, flat.size, BLOCK):
        block = flat[start : start + BLOCK]
        if table is not None:
            np.take(table, block, out=found[start : start + BLOCK])
            continue
        try:
            values, _ = reference.reference(op, np.ascontiguousarray(block).view(kind.numpy), kind)
        except CheckError as error:
            raise CannotCarryOut(error.gaps[0].message) from None
        except MorphError as error:
            raise CannotCarryOut(error.gaps[0].message) from None
        found[start : start + BLOCK] = np.ascontiguousarray(values).view(made.bits)
    return found.reshape(bits.shape), made


def along(op: Op, bits: Bits, kind: DType, after: tuple[int, ...]) -> Bits:
    """What an operator along axes makes of [others, *before] bits of `kind`. CannotCarryOut where a value refuses."""
    try:
        values, made = reference.along(op, np.ascontiguousarray(bits).view(kind.numpy), kind, after)
    except MorphError as error:
        raise CannotCarryOut(error.gaps[0].message) from None
    return np.ascontiguousarray(values).view(made.bits).reshape(bits.shape[0], *after)


def _table(op: Op, kind: DType) -> Bits | None:
    """What `op` makes of every pattern of a narrow dtype; None when it refuses some of them."""
    if (op, kind) not in _tables:
        patterns = np.arange(1 << 8 * kind.nbytes, dtype=np.uint64).astype(kind.bits)
        try:
            values, made = reference.reference(op, patterns.view(kind.numpy), kind)
            _tables[op, kind] = np.ascontiguousarray(values).view(made.bits)
        except MorphError:
            _tables[op, kind] = None
    return _tables[op, kind]


def add(left: Bits, right: Bits, kind: DType) -> Bits:
    """left + right, rounded once: what `sum` does."""
    try:
        total = reference.add(_values(left, kind), _values(right, kind), kind)
    except CheckError as error:
        raise CannotCarryOut(error.gaps[0].message) from None
    return np.ascontiguousarray(total).view(kind.bits).reshape(left.shape)


def _values(bits: Bits, kind: DType) -> Bits:
    return np.ascontiguousarray(bits).reshape(-1).view(kind.numpy)


def classify(rule: Rule, last: Op | None, made: DType) -> str:
    """`exact`, `rounding` or `one-way`: what the words of a rule (and a cast after it) say of a tensor made as `made`."""
    if rule.arrow == "->" or any(op.name == "sum" for op in rule.operators):
        return "one-way"
    for op in (*rule.operators, *(() if last is None else (last,))):
        if op.name not in NAMES:
            said = reference.klass(op, made)
            if said != "exact":
                return said
        if op.name in ("add", "mul", "exp", "log") or (
            op.name == "cast" and op.rounding and not op.inverted and (op.source != "float" or made.is_float)
        ):
            return "rounding"
    return "exact"
