"""A module of one side that shows nothing inside, and leaves of the other with no module around just them -> an opaque node.

nn.MultiheadAttention calls none of its modules. Where the other side has q, k, v in one module and the projection after the heads
in another (BERT: attention.self, attention.output, with a norm beside it), no module holds the four alone. What goes into the first
of them that is called should go into the opaque module, and what comes out of the last should come out of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from isomorph.trace.bridge import Bridge
from isomorph.trace.channels import Asker
from isomorph.trace.leaves import first_floating, made_link
from isomorph.trace.nouns import Border, Capture, Link, Node
from isomorph.trace.owners import Owners
from isomorph.trace.timeline import first_calls


@dataclass(frozen=True)
class Spread:
    """Both sides, as far as they are aligned: `held` are the modules of each that leaves or opaque blocks speak of."""

    bridge: Bridge
    asked: tuple[Asker, Asker]
    owners: tuple[Owners, Owners]
    seen: tuple[Capture, Capture]
    held: tuple[frozenset[str], frozenset[str]]

    def nodes(self) -> list[Node]:
        """One for each innermost module, of either side, that faces leaves of the other and no module around them."""
        found: list[Node] = []
        for side in (1, 0):
            taken: set[str] = set()
            for name in reversed(self.owners[side].wide):
                names = self.owners[side].below[name]
                if names & taken or any(self.owners[side].owner.get(one) in self.held[side] for one in names):
                    continue
                made = self._node(side, name, names)
                if made is not None:
                    found.append(made)
                    taken |= names
        return found

    def _node(self, side: int, name: str, names: frozenset[str]) -> Node | None:
        pairs = [pair for pair in self.bridge.pairs if pair[side] in names]
        image = {pair[1 - side] for pair in pairs}
        if {pair[side] for pair in self.bridge.pairs if pair[1 - side] in image} != names:
            return None
        other = self.owners[1 - side]
        leaves = {other.owner[one] for one in image if one in other.owner}
        if len(leaves) < 2 or not leaves <= other.whole or leaves & self.held[1 - side]:
            return None
        first, last = _ends(self.seen[1 - side], leaves)
        links = [
            link
            for border, leaf in (("in", first), ("out", last))
            if (link := self._link(side, "in" if border == "in" else "out", name, leaf)) is not None
        ]
        if not any(link.border == "out" for link in links):
            return None
        order = first_calls(self.seen[1 - side])
        those = tuple(sorted(leaves, key=lambda leaf: order[leaf]))
        reference, candidate = ((name,), those) if side == 0 else (those, (name,))
        return Node("block", reference, candidate, tuple(pairs), tuple(links), is_opaque=True)

    def _link(self, side: int, border: Border, module: str, leaf: str) -> Link | None:
        reference, candidate = (module, leaf) if side == 0 else (leaf, module)
        left, right = self.asked[0].tensors(reference, border), self.asked[1].tensors(candidate, border)
        firsts = first_floating(left), first_floating(right)
        if firsts[0] is None or firsts[1] is None or self._is_permuted(side, border, leaf):
            return None
        return made_link(Link(border, reference, candidate, None, None, firsts[0], firsts[1]), left, right)

    def _is_permuted(self, side: int, border: Border, leaf: str) -> bool:
        """Whether the morph puts the leaf's channels at this border in another order: then nothing is said of them."""
        other = 1 - side
        for pair in self.bridge.pairs:
            if self.owners[other].owner.get(pair[other]) != leaf:
                continue
            shapes = self.asked[0].shape(pair[0]), self.asked[1].shape(pair[1])
            for axis in range(len(shapes[other])):
                asked = self.asked[other]
                at = asked.output(leaf, pair[other], axis) if border == "out" else asked.input(leaf, pair[other], axis)
                if at is None:
                    continue
                for facing in range(len(shapes[side])):
                    axes = (facing, axis) if side == 0 else (axis, facing)
                    entries = self.bridge.entries(pair[1], axes[1], pair[0], axes[0])
                    if entries is None:
                        continue
                    mine = entries.reference if other == 0 else entries.candidate
                    facing_size = entries.candidate if other == 0 else entries.reference
                    if (facing_size - facing_size[0] != mine - mine[0]).any():
                        return True
        return False


def _ends(seen: Capture, leaves: set[str]) -> tuple[str, str]:
    """The leaf that is called first, and the one that returns last."""
    first = next(call.module for call in seen.began if call.module in leaves)
    last = next(call.module for call in reversed(seen.ended) if call.module in leaves)
    return first, last
