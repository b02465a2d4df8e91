"""Places targets that are made of several sources, sources that are cut into several targets, and stacks of either.

    target tensor  = sources, stacks of sources      fused, stacked
    source tensor  = targets, stacks of targets      split, unstacked
    stack of targets = sources, stacks of sources    ranks, many to many
    stack of sources = targets, stacks of targets

The sums are found by fingerprints (sums.py); siblings of what was found are tried by their names first, near ones by their numbers
next, all last: names that say nothing only cost time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from isomorph.infer.by_value.copies import is_silent, look
from isomorph.infer.by_value.fingerprint import Print
from isomorph.infer.by_value.forms import with_copies
from isomorph.infer.by_value.hashing import hash_of
from isomorph.infer.by_value.laying import Laying
from isomorph.infer.by_value.ledger import Ledger, in_order
from isomorph.infer.by_value.sums import WORD, Item, Pool, items, most_for_pairs
from isomorph.infer.by_value.templates import Index, named, suggestions
from isomorph.tensors import DType

NEAR = 64
"""Items that share the most numbers with a target are searched first, up to sums of four."""
PATIENCE = 400
"""So many searches among all items without any success, and no more are made: nothing here is a sum."""
PATIENCE_OF_CLASS = 100
"""So many members of one class without any success, and the others are not looked for."""
MOST_RECIPES = 4
MOST_TRIED = 3
"""Sums that agree but that no layout explains."""

Accept = Callable[[Item, Sequence[Item]], bool]


def place_sums(ledger: Ledger, laying: Laying) -> None:
    """Book every relation that a sum of fingerprints shows and a layout explains."""
    for dtype in ledger.dtypes():
        for stacks in (False, True):
            for backward in (False, True):
                _Search(ledger, laying, dtype, stacks=stacks, backward=backward).run()


@dataclass(frozen=True, slots=True)
class _Recipe:
    """What one member of a class was made of: templates and numbers."""

    index: Index
    parts: tuple[tuple[str, Index], ...]


class _Search:
    """One direction: each of `wholes` as a sum of items of the other side."""

    def __init__(self, ledger: Ledger, laying: Laying, dtype: DType, *, stacks: bool, backward: bool) -> None:
        self.ledger, self.laying, self.dtype, self.backward = ledger, laying, dtype, backward
        scene = ledger.scene
        zero = hash_of(0, dtype)
        self.copies: dict[str, list[str]] = {}
        sources = self._single(ledger.sources(silent=True), scene.sources)
        targets = self._single(
            [name for name in ledger.targets(silent=True) if scene.targets[name].dtype == dtype], scene.targets
        )
        sides = []
        for names, prints in ((sources, scene.sources), (targets, scene.targets)):
            numels = {name: prints[name].numel for name in names}
            keys = {name: look(prints[name], dtype).total - numels[name] * zero for name in names}
            sides.append(items(keys, numels, {name for name in names if is_silent(prints[name])}))
        parts, wholes = (sides[1], sides[0]) if backward else (sides[0], sides[1])
        wholes_prints = scene.sources if backward else scene.targets
        self.wholes = [item for item in wholes if item.is_stack == stacks]
        self.wholes.sort(key=lambda item: -len(wholes_prints[item.names[0]].shape))  # a bias lies as its weight does
        self.parts = parts
        self.lookup = {(item.template, item.index): item for item in parts}
        self.recipes: dict[str, list[_Recipe]] = {}
        self.failures = 0
        self.failures_of: dict[str, int] = {}
        longest = max((len(item.index) for item in parts), default=0)
        self.numbers = np.full((len(parts), longest), -1, np.int64)
        for place, item in enumerate(parts):
            self.numbers[place, : len(item.index)] = [-1 if number is None else number for number in item.index]
        self._near = lru_cache(maxsize=64)(self._near_pool)
        self._whole_pool: Pool | None = None

    def _single(self, names: Sequence[str], prints: Mapping[str, Print]) -> list[str]:
        """Names without the ties among them: the first stands for tensors that are equal and of classes of their own."""
        groups: dict[tuple[object, ...], list[str]] = {}
        for name in names:
            one = prints[name]
            groups.setdefault((one.total, one.numel, one.dtype, one.shape, one.axes), []).append(name)
        kept = set()
        for group in groups.values():
            is_tie = len({named(name).template for name in group}) == len(group) and not is_silent(prints[group[0]])
            kept.update(group[:1] if is_tie else group)
            if is_tie:
                self.copies[group[0]] = group[1:]
        return [name for name in names if name in kept]

    def run(self) -> None:
        """Look for every whole that is still free."""
        if not self.parts:
            return
        for whole in self.wholes:
            tried = 0
            for chosen in self._candidates(whole):
                if not self._is_free(whole, chosen):
                    continue
                if self._book(whole, chosen):
                    self._learn(whole, chosen)
                    self.failures = self.failures_of[whole.template] = 0
                    break
                tried += 1
                if tried == MOST_TRIED:
                    break
        self._whole_pool = None  # it is large

    def _candidates(self, whole: Item) -> Iterator[tuple[Item, ...]]:
        if not self._is_free(whole, ()):
            return
        zeros = self._zeros(whole)
        for recipe in self.recipes.get(whole.template, ()):
            examples = [number for _, index in recipe.parts for number in index]
            for numbers in suggestions(recipe.index, tuple(examples), whole.index):
                chosen = self._named(recipe, numbers)
                if chosen is None or (sum(item.key for item in chosen) - whole.key) % WORD:
                    continue
                if 0 <= whole.numel - sum(item.numel for item in chosen) <= zeros:
                    yield chosen
        if self.failures_of.get(whole.template, 0) > PATIENCE_OF_CLASS:
            return
        self.failures_of[whole.template] = self.failures_of.get(whole.template, 0) + 1
        yield from self._near(whole.index).hits(whole.key, whole.numel, zeros=zeros)
        self.failures += 1
        if self.failures <= PATIENCE:
            yield from self._all().hits(whole.key, whole.numel, zeros=zeros, most=3)

    def _named(self, recipe: _Recipe, numbers: Index) -> tuple[Item, ...] | None:
        found, start = [], 0
        for template, index in recipe.parts:
            item = self.lookup.get((template, numbers[start : start + len(index)]))
            if item is None:
                return None
            found.append(item)
            start += len(index)
        return tuple(found)

    def _near_pool(self, index: Index) -> Pool:
        """The items that share the most numbers with this index, and have the fewest others."""
        wanted = [number for number in index if number is not None]
        shared = np.isin(self.numbers, wanted).sum(axis=1)
        others = (self.numbers >= 0).sum(axis=1) - shared
        return Pool([self.parts[place] for place in np.lexsort((others, -shared))[:NEAR]])

    def _all(self) -> Pool:
        if self._whole_pool is None:
            some = self.parts
            most = most_for_pairs(self.ledger.scene.max_memory)
            if len(some) > most:
                some = sorted(some, key=lambda item: (not item.is_stack, len(item.index)))[:most]
            self._whole_pool = Pool(some)
        return self._whole_pool

    def _zeros(self, whole: Item) -> int:
        prints = self.ledger.scene.sources if self.backward else self.ledger.scene.targets
        return sum(prints[name].n_zero for name in whole.names)

    def _is_free(self, whole: Item, parts: Sequence[Item]) -> bool:
        own, other = self.ledger.placed, self.ledger.used
        if self.backward:
            own, other = other, own
        return own.isdisjoint(whole.names) and all(other.isdisjoint(item.names) for item in parts)

    def _book(self, whole: Item, parts: Sequence[Item]) -> bool:
        """Ask for the layout, and book it."""
        scene = self.ledger.scene
        ours = whole.names
        others = tuple(name for item in parts for name in item.names)
        sources, targets = (ours, others) if self.backward else (others, ours)
        sources, targets = in_order(sources, scene.sources), in_order(targets, scene.targets)
        zeros = () if self.backward else self._zero_sources(whole, parts)
        relation = self.laying.relation(sources, targets, zeros=zeros)
        if relation is None:
            return False
        relation = with_copies(relation, self.copies)
        if not self.ledger.is_free(relation.sources, relation.targets):
            return False
        self.ledger.add(relation)
        return True

    def _zero_sources(self, whole: Item, parts: Sequence[Item]) -> list[str]:
        """Sources of zeros that may be what the sum leaves over: named like the parts, but for words."""
        missing = whole.numel - sum(item.numel for item in parts)
        if not missing:
            return []
        prints = self.ledger.scene.sources
        alike = {(item.index, _tail(item.template)) for item in parts}
        return [
            name
            for name in self.ledger.sources(silent=True)
            if prints[name].constant == "0"
            and prints[name].numel == missing
            and (named(name).numbers, _tail(named(name).template)) in alike
        ]

    def _learn(self, whole: Item, parts: Sequence[Item]) -> None:
        known = self.recipes.setdefault(whole.template, [])
        known.insert(0, _Recipe(whole.index, tuple((item.template, item.index) for item in parts)))
        del known[MOST_RECIPES:]


def _tail(template: str) -> str:
    """The last piece of a name."""
    return template.replace("/", ".").rpartition(".")[2]
