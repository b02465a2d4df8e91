"""Bridge: a proved plan, held as what it says of two models: which parameters correspond, entry by entry, and values carried over.

Entries are found in the plan's strided boxes, a line at a time; no array of a tensor's size is made. What an operator does to
values on the way (`w -> 1 + w`, a cast) does not matter for which entry is which.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import numpy as np

from isomorph.engine.arrays import make
from isomorph.engine.evaluate import evaluate
from isomorph.engine.kernels import place
from isomorph.formats.base import Checkpoint
from isomorph.formats.memory import ArrayCheckpoint
from isomorph.operators.base import Changes
from isomorph.plan.boxes import row_major
from isomorph.plan.moves import Along, Box, Fill, Mix, Move, Source, names_of
from isomorph.plan.plan import Plan
from isomorph.tensors import Manifest
from isomorph.trace.nouns import Array

LINES = 4
"""How many lines along an axis must agree before the map of its entries is believed."""


@dataclass(frozen=True)
class Held:
    """Of some elements of a candidate tensor: which (`at`, numbers into what was asked) are which flat elements of `name`."""

    name: str
    at: Array
    flat: Array


@dataclass(frozen=True)
class Entries:
    """Entry `reference[i]` along an axis of a reference tensor is entry `candidate[i]` along an axis of a candidate tensor."""

    reference: Array
    candidate: Array

    def is_identity(self, reference_size: int, candidate_size: int) -> bool:
        """True when both axes are whole, and in one order."""
        whole = np.arange(reference_size)
        return (
            reference_size == candidate_size == len(self.reference)
            and bool(np.array_equal(self.reference, whole))
            and bool(np.array_equal(self.candidate, whole))
        )


class Bridge:
    """The morph between the reference's state dict and the candidate's, proved on the reference's names and shapes."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    @property
    def reference(self) -> Manifest:
        """Names and specs of the reference's state dict, as the plan took them."""
        return self.plan.source

    @property
    def candidate(self) -> Manifest:
        """Names and specs that the plan makes."""
        return self.plan.manifest

    @cached_property
    def _moves(self) -> Mapping[str, tuple[Move, ...]]:
        return {name: tuple(moves) for name, moves in groupby(self.plan.moves, key=lambda move: move.target.tensor)}

    @cached_property
    def _sources(self) -> Mapping[str, tuple[str, ...]]:
        return {
            name: tuple(dict.fromkeys(source for move in self._moves.get(name, ()) for source in names_of(move.source)))
            for name in self.plan.targets
        }

    def sources(self, candidate: str) -> tuple[str, ...]:
        """The reference tensors that a candidate tensor is made of; () for one that the plan does not make, or of constants."""
        return self._sources.get(candidate, ())

    @cached_property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """(reference name, candidate name) of tensors that share an element, in the plan's order."""
        return tuple((source, target) for target, sources in self._sources.items() for source in sources)

    def forward(self, state: Mapping[str, Array]) -> dict[str, Array]:
        """What the morph makes of these values, by candidate name, in the plan's dtypes.

        The values are cast to the dtypes that the plan was proved on. Ties and constants of the morph are not checked: see `kept`.
        """
        checkpoint = self._checkpoint(state)
        found = {}
        for name, target in self.plan.targets.items():
            bits = make(self.plan, target, self._moves.get(name, ()), checkpoint, Changes())
            found[name] = bits.view(target.spec.dtype.numpy)
        return found

    def kept(self, state: Mapping[str, Array]) -> dict[str, Array]:
        """These values of the reference, changed where they must be so that both sides can hold them.

        Tensors that the morph declares equal copies are made equal, elements that it declares constant get the constant, and
        floats are rounded to the coarsest dtype that they pass through.
        """
        found = {}
        for name, spec in self.plan.source.items():
            if name not in state:
                continue
            value = np.array(state[name]).astype(spec.dtype.numpy)
            coarse = self._coarsest.get(name)
            found[name] = value if coarse is None else value.astype(coarse).astype(spec.dtype.numpy)
        for check in self.plan.checks:
            if not isinstance(check.source, Box) or check.operators or check.source.tensor not in found:
                continue
            if not all(name in found for name in names_of(check.expected)):
                continue
            bits, _ = evaluate(check.expected, (), ArrayCheckpoint(found))
            whole = found[check.source.tensor]
            flat = np.ascontiguousarray(whole).reshape(-1).view(bits.dtype)
            place(bits, flat, check.source.offset, check.source.strides)
            found[check.source.tensor] = flat.view(whole.dtype).reshape(whole.shape)
        return found

    @cached_property
    def _coarsest(self) -> Mapping[str, np.dtype[np.generic]]:
        """Of reference tensors that pass through a dtype with fewer digits than their own: that dtype."""
        found: dict[str, np.dtype[np.generic]] = {}
        digits = {"f64": 52, "f32": 23, "f16": 10, "bf16": 7}
        for source, target in self.pairs:
            held, made = self.plan.source[source].dtype, self.plan.targets[target].spec.dtype
            if held.name in digits and made.name in digits and digits[made.name] < digits[held.name]:
                known = found.get(source)
                if known is None or known.itemsize > made.numpy.itemsize:
                    found[source] = made.numpy
        return found

    def _checkpoint(self, state: Mapping[str, Array]) -> Checkpoint:
        used = {name for sources in self._sources.values() for name in sources}
        return ArrayCheckpoint(
            {
                name: np.asarray(state[name]).astype(spec.dtype.numpy, copy=False)
                for name, spec in self.plan.source.items()
                if name in used
            }
        )

    def trace(self, candidate: str, flat: Array) -> list[Held]:
        """Which elements of reference tensors these flat (row-major) elements of a candidate tensor are made of."""
        found: list[Held] = []
        for move in self._moves.get(candidate, ()):
            at, index = _within(move.target, flat)
            if len(at):
                found.extend(_sources_of(move.source, at, index))
        return found

    def entries(
        self, candidate: str, candidate_axis: int, reference: str, reference_axis: int, *, seed: int = 0
    ) -> Entries | None:
        """Which entries along one axis of a reference tensor are which along an axis of a candidate tensor.

        None when they are not the same axis: along several lines that start at random, the entries of the candidate's axis are not
        all the same entries of the reference's, one for one, with every other axis of the reference standing still.
        """
        asked = (candidate, candidate_axis, reference, reference_axis)
        if asked not in self._entries:
            self._entries[asked] = self._found(*asked, seed)
        return self._entries[asked]

    @cached_property
    def _entries(self) -> dict[tuple[str, int, str, int], Entries | None]:
        return {}

    def _found(
        self, candidate: str, candidate_axis: int, reference: str, reference_axis: int, seed: int
    ) -> Entries | None:
        target, source = self.plan.targets.get(candidate), self.plan.source.tensors.get(reference)
        if target is None or source is None or reference not in self.sources(candidate):
            return None
        shape, strides = target.spec.shape, row_major(target.spec.shape)
        if 0 in shape or 0 in source.shape:
            return None
        steps = np.arange(shape[candidate_axis]) * strides[candidate_axis]
        agreed: Entries | None = None
        lines = 0
        for start in _starts(shape, candidate_axis, seed):
            base = sum(index * stride for index, stride in zip(start, strides, strict=True))
            held = [one for one in self.trace(candidate, base + steps) if one.name == reference]
            if not held:
                continue  # a line through another tensor's part
            at, flat = np.concatenate([one.at for one in held]), np.concatenate([one.flat for one in held])
            order = np.argsort(at, kind="stable")
            at, flat = at[order], flat[order]
            places = np.unravel_index(flat, source.shape) if source.shape else ()
            along = places[reference_axis]
            still = all(axis == reference_axis or (where == where[0]).all() for axis, where in enumerate(places))
            one_for_one = len(np.unique(along)) == len(along) and len(np.unique(at)) == len(at)
            if (
                not still
                or not one_for_one
                or (len(along) == 1 and shape[candidate_axis] > 1 < source.shape[reference_axis])
            ):
                return None
            met = Entries(along.astype(np.int64), at.astype(np.int64))
            if agreed is not None and not (
                np.array_equal(agreed.reference, met.reference) and np.array_equal(agreed.candidate, met.candidate)
            ):
                return None
            agreed = met
            lines += 1
            if lines == LINES:
                break
        return agreed


def _starts(shape: tuple[int, ...], axis: int, seed: int) -> Iterator[tuple[int, ...]]:
    """Where lines along `axis` begin: corners of the tensor, then random places; each place once."""
    drawn = np.random.default_rng(seed)
    others = [size for number, size in enumerate(shape) if number != axis]
    total = math.prod(others)
    if total <= 4 * LINES:
        flats = list(range(total))
    else:
        flats = [0, total - 1, *(int(one) for one in drawn.integers(0, total, 8 * LINES))]
        parts = [total * number // 8 + int(drawn.integers(0, max(1, total // 8))) for number in range(8)]
        flats = [*dict.fromkeys([*flats[:2], *parts, *flats[2:]])]
    for flat in flats:
        places = list(np.unravel_index(flat % total, others)) if others else []
        places.insert(axis, 0)  # type: ignore[arg-type] # an integer as numpy's are
        yield tuple(int(place) for place in places)


def _within(box: Box, flat: Array) -> tuple[Array, list[Array]]:
    """Which of these flat elements lie in a box whose strides nest, and their places along its axes."""
    relative = flat - box.offset
    inside = relative >= 0
    index: list[Array] = [np.zeros_like(relative)] * len(box.shape)
    for axis in sorted(range(len(box.shape)), key=lambda axis: -box.strides[axis]):
        size, stride = box.shape[axis], box.strides[axis]
        if size == 1:
            continue
        where, relative = np.divmod(relative, stride)
        inside = inside & (where < size)
        index[axis] = where
    inside = inside & (relative == 0)
    at = np.flatnonzero(inside)
    return at, [where[at] for where in index]


def _sources_of(source: Source, at: Array, index: list[Array]) -> Iterator[Held]:
    """The elements that places in a source are made of."""
    if isinstance(source, Box):
        flat = np.full(len(at), source.offset, np.int64)
        for where, stride in zip(index, source.strides, strict=True):
            flat = flat + where * stride
        yield Held(source.tensor, at, flat)
    elif isinstance(source, Mix):
        for inner in source.sources:
            yield from _sources_of(inner, at, index)
    elif isinstance(source, Along):
        flat = np.full(len(at), source.offset, np.int64)
        for where, stride in zip(index, source.strides, strict=True):
            flat = flat + where * stride
        first = flat // math.prod(source.after) * math.prod(source.before)  # the axes that stay tell which entry it is
        for part in source.parts:
            inside, places = _within(part.target, first)
            if len(inside):
                yield from _sources_of(part.source, at[inside], places)
    else:
        assert isinstance(source, Fill), "a source is a box, a mix, what an operator makes, or constants"
