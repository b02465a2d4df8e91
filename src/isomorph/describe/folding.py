"""Names -> a tree in which equal branches are folded: `layers.0.w`, `layers.1.w` -> `layers.{0..1}.w`.

A branch is a piece of a name with everything below it. Branches whose pieces are numbers (or end in `_` and a number) and whose
contents agree in names, shapes and dtypes are one line; so 24 layers read as one, and a layer that differs stands out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from isomorph.describe.text import natural, ranges
from isomorph.tensors import TensorSpec

MAX_DEPTH = 60
"""A name is cut into at most this many pieces; what remains is one piece."""

_PIECE = re.compile(r"[^./]*[./]?")
_NUMBERED = re.compile(r"^((?:.*_)?)(0|[1-9]\d{0,8})([./]?)$", re.DOTALL)


@dataclass
class Branch:
    """One line of the tree: the text of its name below its parent, how many branches are folded into it, and what is below.

    `spec` is set for a tensor. `tensors`, `numel` and `nbytes` count everything below it once, for one of the folded branches.
    """

    text: str
    repeats: int = 1
    spec: TensorSpec | None = None
    children: list[Branch] = field(default_factory=list)
    tensors: int = 0
    numel: int = 0
    nbytes: int = 0

    def walk(self, depth: int = 0) -> Iterator[tuple[int, Branch]]:
        """Every branch with its depth, from the top down."""
        yield depth, self
        for child in self.children:
            yield from child.walk(depth + 1)


def pieces(name: str) -> list[str]:
    """`a.b/c` -> `a.`, `b/`, `c`: each piece keeps the separator that ends it."""
    found: list[str] = []
    position = 0
    while position < len(name) and len(found) < MAX_DEPTH - 1:
        match = _PIECE.match(name, position)
        assert match is not None
        found.append(match.group())
        position = match.end()
    if position < len(name) or not found:
        found.append(name[position:])
    return found


class _Node:
    __slots__ = ("children", "spec")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.spec: TensorSpec | None = None


def fold(tensors: Mapping[str, TensorSpec]) -> list[Branch]:
    """The folded tree of these tensors, in natural order."""
    root = _Node()
    for name, spec in tensors.items():
        node = root
        for piece in pieces(name):
            node = node.children.setdefault(piece, _Node())
        node.spec = spec
    signatures: dict[object, int] = {}
    branches, _ = _fold_children(root, signatures)
    return branches


def _fold_children(node: _Node, signatures: dict[object, int]) -> tuple[list[Branch], int]:
    """The branches below a node, and a number that is equal for nodes that look the same from here down."""
    made: list[tuple[str, Branch, int]] = []
    for piece in sorted(node.children, key=natural):
        child = node.children[piece]
        below, below_signature = _fold_children(child, signatures)
        branch = Branch(piece, spec=child.spec, children=below)
        branch.tensors = (child.spec is not None) + sum(one.tensors * one.repeats for one in below)
        branch.numel = (child.spec.numel if child.spec else 0) + sum(one.numel * one.repeats for one in below)
        branch.nbytes = (child.spec.nbytes if child.spec else 0) + sum(one.nbytes * one.repeats for one in below)
        signature = signatures.setdefault((child.spec, below_signature), len(signatures))
        made.append((piece, branch, signature))
    key = tuple((piece, signature) for piece, _, signature in made)
    return [_joined(branch) for branch in _fold_numbered(made)], signatures.setdefault(key, len(signatures))


def _fold_numbered(made: Iterable[tuple[str, Branch, int]]) -> list[Branch]:
    folded: list[Branch] = []
    groups: dict[tuple[str, str, int], tuple[Branch, list[int]]] = {}
    for piece, branch, signature in made:
        match = _NUMBERED.match(piece)
        if match is None:
            folded.append(branch)
            continue
        key = (match[1], match[3], signature)
        if key in groups:
            groups[key][1].append(int(match[2]))
        else:
            groups[key] = (branch, [int(match[2])])
            folded.append(branch)
    for (before, after, _), (branch, indices) in groups.items():
        if len(indices) > 1:
            branch.text = f"{before}{{{ranges(indices)}}}{after}"
            branch.repeats = len(indices)
    return folded


def _joined(branch: Branch) -> Branch:
    """A branch with a single way below it is one line: `encoder.` over `layers.` reads `encoder.layers.`."""
    while branch.spec is None and len(branch.children) == 1:
        (child,) = branch.children
        child.text = branch.text + child.text
        child.repeats *= branch.repeats
        branch = child
    return branch


_INDEX = re.compile(r"(?<![^./])(0|[1-9]\d{0,8})(?![^./])")


def fold_lines(lines: Sequence[tuple[str, str]]) -> list[tuple[str, str, int]]:
    """(name, what is said of it) -> the same with names folded, and how many each stands for; in the order of the first of each.

    Names fold that differ in numbers alone, of which the same is said, and which are all there.

    >>> fold_lines([("h.0.w", "[2]"), ("h.1.w", "[2]"), ("h.2.w", "[3]")])
    [('h.{0..1}.w', '[2]', 2), ('h.2.w', '[3]', 1)]
    """
    alike: dict[tuple[tuple[str, ...], str], list[str]] = {}
    for name, said in lines:
        alike.setdefault((tuple(_INDEX.split(name)[::2]), said), []).append(name)
    found = []
    for (_, said), names in alike.items():
        split = [_INDEX.split(name) for name in names]
        numbers = [sorted({piece[at] for piece in split}, key=int) for at in range(1, len(split[0]), 2)]
        if math.prod(map(len, numbers)) != len(names):
            found += [(name, said, 1) for name in names]
            continue
        pieces = list(split[0])
        for at, values in enumerate(numbers):
            if len(values) > 1:
                pieces[2 * at + 1] = "{" + ranges(map(int, values)) + "}"
        found.append(("".join(pieces), said, len(names)))
    return found
