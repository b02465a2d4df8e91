"""Strided moves -> a Relation: the axes that tensors are made of, found from the strides of what moves between them.

moves ──gather──▶ blocks of stacks (blocks.py) ──read──▶ sums and products (parse.py) ──write──▶ Relation
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from isomorph.infer.factor.blocks import Block, NoLayout, blocks_of, gathered, in_stacks, within_dims
from isomorph.infer.factor.moves import as_rule_text, moves_of, tree_dims
from isomorph.infer.factor.parse import Chain, Refined, Same, Stack, stacks_of
from isomorph.infer.factor.write import written
from isomorph.infer.nouns import Dropped, Evidence, Filled, Part, Relation
from isomorph.language.tree import Op
from isomorph.plan.moves import Box, Move, names_of
from isomorph.tensors import TensorSpec

MOST_ROUNDS = 256
"""Of cutting and splitting: each round makes at least one block or axis more."""
FEW_SUMMANDS = 4
"""So many parts of one dim are written each by itself, `q, k, v <-> (a + b + b)`, where not all of them are alike."""

Specs = Mapping[str, TensorSpec]
Term = Part | Filled | Dropped


def relation(
    moves: Sequence[Move],
    sources: Specs,
    targets: Specs,
    *,
    operators: tuple[Op, ...] = (),
    evidence: Evidence = "values",
    note: str = "",
) -> Relation | None:
    """The relation that these moves are, in the fewest and coarsest axes; None where no sums of products of axes explain them.

    `moves` fill every element of their targets once, from boxes and constants. What is read of no source tensor of theirs becomes
    Dropped; a target filled like another one becomes its copy (an element that is read twice in any other way: None). Equal parts
    at equal distances become one Part with `along`. `operators` are those of the relation; where none are given,
    those of the moves, if they are the same in all.
    """
    try:
        return _relation(tuple(moves), sources, targets, operators, evidence, note)
    except NoLayout:
        return None


def _relation(
    moves: tuple[Move, ...],
    sources: Specs,
    targets: Specs,
    operators: tuple[Op, ...],
    evidence: Evidence,
    note: str,
) -> Relation:
    if not operators:
        used = list(dict.fromkeys(move.operators for move in moves if isinstance(move.source, Box)))
        if len(used) > 1:
            raise NoLayout
        operators = used[0] if used else ()
    read: Specs = {name: spec for name, spec in sources.items() if any(name in names_of(move.source) for move in moves)}
    kept, copies = _copies(moves)
    made: Specs = {name: spec for name, spec in targets.items() if any(move.target.tensor == name for move in kept)}
    if set(read) & set(made):
        read, made, kept = _apart(read, made, kept)
    specs = {**read, **made}
    blocks = blocks_of(kept)
    try:
        found = written(*_read(gathered(blocks, specs), specs), specs, operators)
    except NoLayout:  # what was gathered by chance may stand across what the moves are cut by
        found = written(*_read(blocks, specs), specs, operators)
    found = replace(found, evidence=evidence, note=note)
    found = replace(found, left=tuple(_named(part, {}) for part in found.left))
    return replace(found, right=tuple(_named(part, copies) for part in found.right))


def _read(blocks: list[Block], specs: Specs) -> tuple[list[Block], list[Stack], list[Stack], Same]:
    apart: frozenset[str] = frozenset()
    for _ in range(MOST_ROUNDS):
        blocks = within_dims(in_stacks(blocks, specs, apart), specs)
        same = Same()
        try:
            left, right = (stacks_of(blocks, is_target, specs, same) for is_target in (False, True))
        except Refined as refined:
            blocks = refined.blocks
            continue
        more = {name for stack in (*left, *right) if not _is_grid(stack) for name in stack.names}
        more |= _few(left, right, same, blocks) | _few(right, left, same, blocks)
        if not more - apart:
            return blocks, left, right, same
        apart |= more
    raise NoLayout


def _is_grid(stack: Stack) -> bool:
    """True when the tensors of a stack are a product of axes: all of them are alike."""
    chains = stack.dims[0]
    return len(chains) == 1 and not chains[0].inner and not chains[0].gap


def _few(stacks: Sequence[Stack], others: Sequence[Stack], same: Same, blocks: list[Block]) -> set[str]:
    """Tensors stacked in a few parts of a dim that has other parts too."""
    along = {same.find(axis): other.names for other in others if _is_grid(other) for axis in other.dims[0][0].axes}
    found: set[str] = set()
    for stack in stacks:
        pending = list(stack.dims[1:])
        while pending:
            chains = pending.pop()
            pending.extend(chain.inner for chain in chains if chain.inner)
            stacked = [chain for chain in chains if chain.axes and same.find(chain.axes[0]) in along]
            count = sum(_count(chain, same, along, blocks) for chain in chains)
            if stacked and sum(not chain.gap for chain in chains) > 1 and count <= FEW_SUMMANDS:
                found.update(name for chain in stacked for name in along[same.find(chain.axes[0])])
    return found


def _count(chain: Chain, same: Same, along: Mapping[tuple[int, int], tuple[str, ...]], blocks: list[Block]) -> int:
    return math.prod(blocks[block].shape[axis] for block, axis in chain.axes if same.find((block, axis)) in along)


def _copies(moves: Sequence[Move]) -> tuple[list[Move], dict[str, list[str]]]:
    """The moves without those of targets that are filled like an earlier one, and the names of these copies."""
    of: dict[str, list[Move]] = {}
    for move in moves:
        of.setdefault(move.target.tensor, []).append(move)
    first: dict[tuple[object, ...], str] = {}
    copies: dict[str, list[str]] = {}
    for name, each in of.items():
        if any(isinstance(move.source, Box) for move in each):
            form = tuple(
                (move.target.offset, move.target.shape, move.target.strides, move.source, move.operators)
                for move in sorted(each, key=lambda move: move.target.offset)
            )
            if first.setdefault(form, name) != name:
                copies.setdefault(first[form], []).append(name)
    gone = {name for names in copies.values() for name in names}
    return [move for move in moves if move.target.tensor not in gone], copies


SEPARATE = "\0"
"""Begins the names of targets inside, where a source has the same name."""


def _apart(read: Specs, made: Specs, moves: list[Move]) -> tuple[Specs, Specs, list[Move]]:
    renamed = {SEPARATE + name: spec for name, spec in made.items()}
    return (
        read,
        renamed,
        [replace(move, target=replace(move.target, tensor=SEPARATE + move.target.tensor)) for move in moves],
    )


def _named(part: Term, copies: Mapping[str, Sequence[str]]) -> Term:
    if not isinstance(part, Part):
        return part
    names = tuple(name.removeprefix(SEPARATE) for name in part.names)
    counts = {len(copies.get(name, ())) for name in names}
    if len(counts) > 1:
        raise NoLayout
    grids = tuple(tuple(copies[name][number] for name in names) for number in range(counts.pop()))
    return replace(part, names=names, copies=grids)


def groups(moves: Sequence[Move]) -> list[tuple[Move, ...]]:
    """The moves in groups that share no tensor: targets are linked by the sources they are made of. In order of appearance."""
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def find(node: tuple[str, str]) -> tuple[str, str]:
        while (above := parent.get(node, node)) != node:
            parent[node] = parent.get(above, above)
            node = above
        return node

    for move in moves:
        for name in names_of(move.source):
            first, second = find(("target", move.target.tensor)), find(("source", name))
            parent[second] = first
    found: dict[tuple[str, str], list[Move]] = {}
    for move in moves:
        found.setdefault(find(("target", move.target.tensor)), []).append(move)
    return [tuple(group) for group in found.values()]


__all__ = ["as_rule_text", "groups", "moves_of", "relation", "tree_dims"]
