"""Which tensors together hold the elements of another: fingerprints add, so this is a search for sums.

Keys are *centred*: the total less the hash of as many zeros as there are elements. A zero then adds nothing, and zeros that pad a
target, or stand in it for a bias that the source does not have, need not be known beforehand (fewer elements than the target has).

    one        key(t) = key(a)
    two        key(t) - key(a) is a key                                     O(n)
    three      key(t) - key(a) is a sum of two; all sums of two, sorted     O(n) look-ups in n²/2, once for all targets
    four       key(t) - (a + b) is a sum of two                             O(n²), in small pools only

An item is a tensor, or a whole stack of siblings (all experts of a layer, all layers, all ranks). After Horowitz and Sahni 1974.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from typing import Any

import numpy as np

from isomorph.infer.by_value.templates import Index, by_template, grid

WORD = 1 << 64
MOST_FOR_PAIRS = 3000
"""Items among which all sums of two are formed (4.5 million)."""
BYTES_PER_PAIR = 48
"""What forming one of these sums takes, at its peak."""
MOST_FOR_FOUR = 100
MOST_HITS = 16
MOST_LOOKED_AT = 256
"""Sums that agree. More say nothing: tensors of a few small numbers."""
MOST_SLOTS = 4

Words = np.ndarray[Any, np.dtype[np.uint64]]


@dataclass(frozen=True, slots=True)
class Item:
    """A tensor or a stack of tensors: its names row-major, the sum of their centred keys, their template and numbers."""

    names: tuple[str, ...]
    key: int
    numel: int
    template: str
    index: Index

    @property
    def is_stack(self) -> bool:
        return len(self.names) > 1


def items(keys: Mapping[str, int], numels: Mapping[str, int], silent: frozenset[str] | set[str]) -> list[Item]:
    """All tensors that are not silent (constant), and all full stacks of siblings of which one at least is not.

    `keys` and `numels` hold the silent ones too: a stack of norms may have members that are all ones.
    """
    found: list[Item] = []
    for template, members in by_template(keys).items():
        for index, name in members.items():
            if name not in silent:
                found.append(Item((name,), keys[name] % WORD, numels[name], template, index))
        found.extend(_stacks(template, members, keys, numels, silent))
    return found


def _stacks(
    template: str,
    members: Mapping[tuple[int, ...], str],
    keys: Mapping[str, int],
    numels: Mapping[str, int],
    silent: frozenset[str] | set[str],
) -> Iterator[Item]:
    slots = [slot for slot, values in enumerate(zip(*members, strict=True)) if len(set(values)) > 1]
    for count in range(1, min(len(slots), MOST_SLOTS) + 1):
        for free in combinations(slots, count):
            groups: dict[Index, dict[tuple[int, ...], str]] = {}
            for index, name in members.items():
                fixed = tuple(None if slot in free else value for slot, value in enumerate(index))
                groups.setdefault(fixed, {})[index] = name
            for fixed, group in groups.items():
                names = grid(group, free) if len(group) > 1 else None
                if names is None or all(name in silent for name in names):
                    continue
                if any(len({index[slot] for index in group}) < 2 for slot in free):
                    continue  # one value of a number is no stack along it
                key = sum(keys[name] for name in names) % WORD
                yield Item(names, key, sum(numels[name] for name in names), template, fixed)


def most_for_pairs(max_memory: int) -> int:
    """Of how many items all sums of two fit into so much memory."""
    return min(MOST_FOR_PAIRS, math.isqrt(2 * max_memory // BYTES_PER_PAIR))


class Pool:
    """Items among which sums are looked for. Build once, ask for many targets."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = tuple(items)
        self._keys: Words = np.array([item.key for item in self.items], np.uint64)
        self._order = np.argsort(self._keys, kind="stable")
        self._sorted = self._keys[self._order]
        self._pairs: tuple[Words, Words, Words] | None = None

    def hits(self, key: int, numel: int, *, zeros: int, most: int = 4) -> list[tuple[Item, ...]]:
        """Sets of items whose keys add up to `key`: fewest items first, sets without a gap before those that leave zeros over.

        `numel` elements are wanted; up to `zeros` of them may be missing. At most MOST_HITS sets.
        """
        found: list[tuple[Item, ...]] = []
        wanted = np.uint64(key % WORD)
        for size, candidates in enumerate((self._one, self._two, self._three, self._four)[:most]):
            for numbers in islice(candidates(wanted), MOST_LOOKED_AT):
                chosen = tuple(self.items[number] for number in numbers)
                missing = numel - sum(item.numel for item in chosen)
                names = [name for item in chosen for name in item.names]
                if 0 <= missing <= zeros and len(set(names)) == len(names) and chosen not in found:
                    found.append(chosen)
                if len(found) >= MOST_HITS:
                    break
            if any(sum(item.numel for item in chosen) == numel for chosen in found if len(chosen) == size + 1):
                break
        return sorted(found, key=lambda chosen: numel - sum(item.numel for item in chosen))

    def _at(self, value: np.uint64) -> range:
        low = int(np.searchsorted(self._sorted, value, "left"))
        high = int(np.searchsorted(self._sorted, value, "right"))
        return range(low, high)

    def _one(self, wanted: np.uint64) -> Iterator[tuple[int, ...]]:
        for place in self._at(wanted):
            yield (int(self._order[place]),)

    def _two(self, wanted: np.uint64) -> Iterator[tuple[int, ...]]:
        for first in np.sort(self._order[_present(wanted - self._sorted, self._sorted)]):
            for place in self._at(_less(wanted, self._keys[first])):
                if first < self._order[place]:
                    yield int(first), int(self._order[place])

    def _sums(self) -> tuple[Words, Words, Words]:
        """All sums of two, sorted, with the numbers of both."""
        if self._pairs is None:
            count = len(self.items)
            if count > MOST_FOR_PAIRS:
                count = 0
            first, second = np.triu_indices(count, 1)
            sums = self._keys[first] + self._keys[second]
            order = np.argsort(sums, kind="stable")
            self._pairs = sums[order], first[order].astype(np.uint32), second[order].astype(np.uint32)
        return self._pairs

    def _three(self, wanted: np.uint64) -> Iterator[tuple[int, ...]]:
        sums, first, second = self._sums()
        if not len(sums):
            return
        for number in np.sort(self._order[_present(wanted - self._sorted, sums)]):
            rest = _less(wanted, self._keys[number])
            for place in range(int(np.searchsorted(sums, rest, "left")), int(np.searchsorted(sums, rest, "right"))):
                chosen = (int(first[place]), int(second[place]))
                if number < chosen[0]:
                    yield int(number), *chosen

    def _four(self, wanted: np.uint64) -> Iterator[tuple[int, ...]]:
        if len(self.items) > MOST_FOR_FOUR:
            return
        sums, first, second = self._sums()
        if not len(sums):
            return
        for number in np.sort(_present(wanted - sums, sums)):
            place = int(np.searchsorted(sums, _less(wanted, sums[number])))
            chosen = (int(first[number]), int(second[number]), int(first[place]), int(second[place]))
            if chosen[0] < chosen[2] and len(set(chosen)) == 4:
                yield tuple(sorted(chosen))


def _less(one: np.uint64, other: np.uint64) -> np.uint64:
    return np.uint64((int(one) - int(other)) % WORD)


def _present(keys: Words, held: Words) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Which of these keys are among those held (sorted). Keys in descending order are found fastest."""
    if not len(held):
        return np.empty(0, np.intp)
    at = np.minimum(np.searchsorted(held, keys[::-1]), len(held) - 1)[::-1]
    return np.flatnonzero(held[at] == keys)
