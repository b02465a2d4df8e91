"""Where tensors lie so that their blocks can be shared with the source: an order, and the offset of the first, modulo the block.

A file system shares whole blocks between files where the same bytes lie at the same offset modulo the block size. In a file
without gaps (safetensors) one tensor's length decides where the next one lies: tensors of whole blocks keep the place modulo the
block, others move it. So the given order is tried first, which a pure renaming keeps; where it shares less than it could, tensors
are put one after the other as they fit, and those of odd lengths serve as steps from one place to the next.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from isomorph.formats.base import Sharing
from isomorph.tensors import TensorSpec

MOST_STEPS = 2_000
"""Steps over odd lengths that are looked for; after them what is left comes as it was given."""


@dataclass(frozen=True)
class Arrangement:
    """Tensors in `order` without gaps, the first of them at `residue` modulo the block size: so `shared` bytes can be shared."""

    order: tuple[str, ...]
    residue: int
    shared: int


def arranged(given: Sequence[str], specs: Mapping[str, TensorSpec], sharing: Sharing) -> Arrangement | None:
    """The order that shares the most bytes, `given` where it shares as many; None where nothing can be shared.

    In `given` each tensor lies at a multiple of its element's width, counted from the first one, and so it does in what comes out;
    those with wishes do so counted from the beginning of the file as well.
    """
    plain = best_start(given, specs, sharing)
    wanted = sum(sharing.wishes[name].nbytes for name in given if name in sharing.wishes)
    if plain.shared < wanted:
        walked = best_start(_walk(given, specs, sharing), specs, sharing)
        if walked.shared > plain.shared:
            return walked
    return plain if plain.shared else None


def best_start(order: Iterable[str], specs: Mapping[str, TensorSpec], sharing: Sharing) -> Arrangement:
    """The residue of the first tensor for which the most bytes lie where they are wanted: a vote weighted by bytes."""
    votes: dict[int, int] = defaultdict(int)
    offset = 0
    order = tuple(order)
    widest = max((specs[name].dtype.alignment for name in order if name in sharing.wishes), default=1)
    for name in order:
        wish = sharing.wishes.get(name)
        if wish is not None:
            residue = (wish.residue - offset) % sharing.block
            if residue % widest == 0:
                votes[residue] += wish.nbytes
        offset += specs[name].nbytes
    best = min(votes, key=lambda residue: (-votes[residue], residue), default=0)
    return Arrangement(order, best, votes.get(best, 0))


def _walk(given: Sequence[str], specs: Mapping[str, TensorSpec], sharing: Sharing) -> list[str]:
    """Wider elements first; among those of one width, one after the other as they fit."""
    widths = sorted({specs[name].dtype.alignment for name in given}, reverse=True)
    order: list[str] = []
    here: int | None = None
    for width in widths:
        walk = _Walk([name for name in given if specs[name].dtype.alignment == width], specs, sharing, here)
        order += walk.order
        here = walk.here
    return order


class _Walk:
    """Names of one element width, put in an order; `here` is the residue at which the next tensor would begin."""

    def __init__(
        self, given: Sequence[str], specs: Mapping[str, TensorSpec], sharing: Sharing, here: int | None
    ) -> None:
        self.order: list[str] = []
        self._block, self._wishes = sharing.block, sharing.wishes
        self._nbytes = {name: specs[name].nbytes for name in given}
        self._left = dict.fromkeys(given)
        self._whole: dict[int, list[str]] = defaultdict(list)
        """Residue -> the tensors wanted there that are whole blocks long."""
        self._odd: dict[int, list[str]] = defaultdict(list)
        """Residue -> the others that are wanted there."""
        self._weight: dict[int, int] = defaultdict(int)
        self._steps: dict[int, list[str]] = defaultdict(list)
        """Length modulo the block -> all tensors of such a length, the one with the most to share first."""
        for name in given:
            step = self._nbytes[name] % self._block
            wish = self._wishes.get(name)
            if wish is not None:
                (self._odd if step else self._whole)[wish.residue].append(name)
                self._weight[wish.residue] += wish.nbytes
            if step:
                self._steps[step].append(name)
        for names in (*self._whole.values(), *self._odd.values()):
            names.reverse()  # taken from the end
        for names in self._steps.values():
            names.sort(key=lambda name: -self._lost(name))
        self.here = here if here is not None else max(self._weight, key=lambda at: self._weight[at], default=0)
        self._go()

    def _lost(self, name: str) -> int:
        return self._wishes[name].nbytes if name in self._wishes else 0

    def _go(self) -> None:
        for _ in range(MOST_STEPS):
            while self._place_what_fits():
                pass
            step = self._best_step()
            if step is None:
                break
            self._put(step)
        for name in list(self._left):
            self._put(name)

    def _place_what_fits(self) -> bool:
        """Put down the tensors that are wanted here; False when there were none."""
        names = self._whole.pop(self.here, [])
        while names:
            self._put(names.pop())
        odd = self._odd.get(self.here, [])
        while odd:
            name = odd.pop()
            if name in self._left:
                self._put(name)
                return True
        return False

    def _best_step(self) -> str | None:
        """A tensor that is not wanted here, after which the most is; None where none gains more than it loses."""
        best: tuple[int, str] | None = None
        for step, names in self._steps.items():
            while names and names[-1] not in self._left:
                names.pop()
            weight = self._weight.get((self.here + step) % self._block, 0)
            if names and weight and (best is None or weight - self._lost(names[-1]) > best[0]):
                best = weight - self._lost(names[-1]), names[-1]
        return best[1] if best is not None and best[0] > 0 else None

    def _put(self, name: str) -> None:
        if name in self._left:
            del self._left[name]
            self.order.append(name)
            if name in self._wishes:
                self._weight[self._wishes[name].residue] -= self._wishes[name].nbytes
            self.here = (self.here + self._nbytes[name]) % self._block
