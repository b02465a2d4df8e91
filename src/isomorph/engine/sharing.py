"""Plan + source -> which bytes of a target can be shared with the source, before it is laid out, and while it is written."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from isomorph.engine.clone import LEAST_NBYTES, Cloner
from isomorph.engine.pieces import Clone, Copy, Groups, Part, Sum, as_copy, moves_by_target
from isomorph.formats.base import Checkpoint, FileLayout, Sharing, Wish
from isomorph.plan.plan import Plan


def sharing_for(plan: Plan, source: Checkpoint, folder: Path) -> Sharing | None:
    """Where the tensors of a target in `folder` should lie, when its file system can share blocks with the source; else None.

    A tensor made of several runs is wanted where most of its bytes can be shared.
    """
    cloner = Cloner(folder, source)
    block = cloner.common_block()
    if block is None:
        return None
    wishes: dict[str, Wish] = {}
    for name, moves in moves_by_target(plan).items():
        itemsize = plan.targets[name].spec.dtype.nbytes
        votes: dict[int, int] = defaultdict(int)
        for move in moves:
            run = as_copy(move, 0, itemsize, source) if 0 not in move.target.shape else None
            if run is not None and run.nbytes >= LEAST_NBYTES and cloner.block(run.file) is not None:
                votes[(run.source_offset - run.offset) % block] += run.nbytes
        if votes:
            best = max(votes, key=lambda residue: (votes[residue], -residue))
            wishes[name] = Wish(best, votes[best])
    return Sharing(block, wishes) if wishes else None


def joined(parts: Iterator[Part]) -> Iterator[Part]:
    """The same parts, copies that follow each other on both sides as one."""
    held: Copy | None = None
    for part in parts:
        if (
            isinstance(part, Copy)
            and held is not None
            and part.file == held.file
            and part.offset == held.offset + held.nbytes
            and part.source_offset == held.source_offset + held.nbytes
        ):
            held = Copy(held.offset, held.nbytes + part.nbytes, held.file, held.source_offset)
            continue
        if held is not None:
            yield held
        held = part if isinstance(part, Copy) else None
        if held is None:
            yield part
    if held is not None:
        yield held


def shared(
    parts: Iterator[Part], cloner: Cloner, sums: Sequence[tuple[int, int]] = (), chunk: int = 1 << 20
) -> Iterator[Part]:
    """The same bytes, whole blocks of copies as Clones where that can be done.

    `sums` are the (offset, nbytes) of the target, by increasing offset, of which a checksum is wanted: what is cloned of them
    comes before as Sums of at most `chunk` bytes, which are read and not written.
    """
    for part in joined(parts):
        block = cloner.block(part.file) if isinstance(part, Copy) and part.nbytes >= LEAST_NBYTES else None
        if not isinstance(part, Copy) or block is None or (part.offset - part.source_offset) % block:
            yield part
            continue
        head = -part.offset % block
        body = (part.nbytes - head) // block * block
        if body < LEAST_NBYTES:
            yield part
            continue
        tail = part.nbytes - head - body
        if head:
            yield Copy(part.offset, head, part.file, part.source_offset)
        clone = Clone(part.offset + head, body, part.file, part.source_offset + head)
        yield from _sums(clone, sums, chunk)
        yield clone
        if tail:
            yield Copy(clone.offset + body, tail, part.file, clone.source_offset + body)


def _sums(clone: Clone, sums: Sequence[tuple[int, int]], chunk: int) -> Iterator[Sum]:
    end = clone.offset + clone.nbytes
    for number in range(max(0, bisect_right(sums, (clone.offset, 1 << 62)) - 1), len(sums)):
        offset, nbytes = sums[number]
        if offset >= end:
            return
        low, high = max(offset, clone.offset), min(offset + nbytes, end)
        for at in range(low, high, chunk):
            yield Sum(at, min(chunk, high - at), clone.file, clone.source_offset + at - clone.offset)


def cloned_nbytes(groups: Groups, plan: Plan, layout: FileLayout, source: Checkpoint, cloner: Cloner) -> int:
    """How many bytes of a target file are expected to be shared."""

    def copies() -> Iterator[Part]:
        for name, base in layout.tensors.items():
            itemsize = plan.targets[name].spec.dtype.nbytes
            moves = (move for move in groups.get(name, ()) if 0 not in move.target.shape)
            found = [run for move in moves if (run := as_copy(move, base, itemsize, source)) is not None]
            yield from sorted(found, key=lambda run: run.offset)

    return sum(part.nbytes for part in shared(copies(), cloner) if isinstance(part, Clone))
