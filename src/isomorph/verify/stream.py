"""The work of a verification: regions cut into tiles, compared by two threads, and what was seen of each tensor.

stages ──tasks_of──▶ (tally, region) … ──carry_out──▶ tallies: elements seen, differing, the first that differs
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from isomorph.formats.base import Checkpoint
from isomorph.tensors import TensorSpec
from isomorph.verify.evaluate import Bench
from isomorph.verify.operators import CannotCarryOut
from isomorph.verify.regions import TARGET, Leaf, Made, Node, Region, coalesced, leaves, part, trace
from isomorph.verify.shown import place_of, source_text
from isomorph.verify.stage import Check, Stage
from isomorph.verify.tiles import tiles
from isomorph.verify.values import BadConstant
from isomorph.verify.witness import agrees

RUN_NBYTES = 1 << 20
"""Both sides one run: so many bytes at a time, which the cache holds."""
THREADS = 2
MOST_AT_ONCE = 256
"""Tiles that a thread takes at a time."""
ALONE_NBYTES = 32 << 20
"""Less than this is compared in one thread: two would only wait for each other."""
MOST_WITNESSED = 5_000
"""Regions confirmed by the plain reading of their corners; of more, every so many-th."""

Progress = Callable[[int], object]
"""Called with the number of bytes of the target just compared; from any of the threads."""


@dataclass(slots=True)
class Tally:
    """What was seen of one tensor (or one check). Guarded by the lock of its run."""

    name: str
    spec: TensorSpec
    check: Check | None = None
    seen: int = 0
    differing: int = 0
    first: int | None = None
    region: Region | None = None
    at: tuple[int, ...] = ()
    refused: tuple[int, str] | None = None
    disagrees: bool = False


@dataclass
class Run:
    """One verification under way."""

    stages: list[Stage]
    source: Checkpoint
    target: Checkpoint
    most_nbytes: int
    progress: Progress | None
    lock: threading.Lock = field(default_factory=threading.Lock)
    stop: bool = False
    error: BaseException | None = None

    def bench(self) -> Bench:
        return Bench({0: self.source, TARGET: self.target}, self.pieces)

    def pieces(self, level: int, name: str) -> list[Region]:
        return self.stages[level - 1].pieces(name)

    def regions(self, name: str) -> Iterator[Region]:
        """What tensor `name` of the target must be, back to the source."""
        for piece in self.stages[-1].pieces(name):
            under_test = piece.left
            assert isinstance(under_test, Leaf)
            left = Leaf(TARGET, name, under_test.offset, under_test.strides, under_test.dtype)
            yield from trace(Region(piece.shape, left, piece.right), self.pieces)


def tasks_of(run: Run, tallies: list[Tally], checks: list[Tally]) -> Iterator[tuple[Tally, Region]]:
    """Every tile of every tensor and of every check. Adds the checks to `checks` as it comes to them."""
    chance = random.Random(0)
    witnessed = 0
    for tally in tallies:
        for region in run.regions(tally.name):
            witnessed += 1
            is_asked = witnessed <= MOST_WITNESSED or witnessed % 64 == 0
            if is_asked and not agrees(run.stages, tally.name, region, 1, chance):
                tally.disagrees = True
                break
            yield from ((tally, tile) for tile in _tiles(run, region))
    for stage in run.stages:
        for check in stage.checks():
            left = next(leaves(check.region.left), None)
            name = left.name if left is not None else check.what
            tally = Tally(name, TensorSpec(check.region.right.dtype, check.region.shape), check)
            checks.append(tally)
            for region in trace(check.region, run.pieces):
                if region.left == region.right:
                    tally.seen += region.numel
                else:
                    yield from ((tally, tile) for tile in _tiles(run, region))


def _tiles(run: Run, region: Region) -> Iterator[Region]:
    region = coalesced(region)
    widest = max([region.left.dtype.nbytes, *(leaf.dtype.nbytes for leaf in leaves(region.right))])
    if isinstance(region.left, Leaf) and isinstance(region.right, Leaf) and len(region.shape) <= 1:
        most = RUN_NBYTES // widest
    else:
        sources = sum(1 for _ in leaves(region.right)) + isinstance(region.right, Made)
        most = run.most_nbytes // widest // max(1, sources)
    return tiles(region, max(1, most))


def _batch(tasks: Iterator[tuple[Tally, Region]]) -> list[tuple[Tally, Region]]:
    """The next tile, or many when they are small."""
    batch: list[tuple[Tally, Region]] = []
    nbytes = 0
    while nbytes < RUN_NBYTES // 4 and len(batch) < MOST_AT_ONCE:
        task = next(tasks, None)
        if task is None:
            break
        batch.append(task)
        nbytes += task[1].numel * task[0].spec.dtype.nbytes
    return batch


def carry_out(run: Run, tasks: Iterator[tuple[Tally, Region]]) -> None:
    """Compare all tiles, in a few threads that take them one after the other."""

    def work() -> None:
        bench = run.bench()
        try:
            while not run.stop:
                with run.lock:
                    batch = _batch(tasks)
                if not batch:
                    return
                for task in batch:
                    _compare_tile(run, bench, *task)
        except BaseException as error:  # carried to the thread that waits, where it is raised
            run.stop = True
            run.error = run.error or error

    threads = THREADS if run.target.manifest.nbytes >= ALONE_NBYTES else 1
    others = [threading.Thread(target=work, daemon=True) for _ in range(threads - 1)]
    for thread in others:
        thread.start()
    work()
    for thread in others:
        thread.join()
    if run.error is not None:
        raise run.error


def _compare_tile(run: Run, bench: Bench, tally: Tally, tile: Region) -> None:
    try:
        left, right = bench.sides(tile.left, tile.right, tile.shape)
    except (CannotCarryOut, BadConstant):
        place, why = _first_refused(run, bench, tile)
        with run.lock:
            if tally.refused is None or place < tally.refused[0]:
                tally.refused = (place, why)
        return
    wrong = bench.differing(left, right)
    with run.lock:
        tally.seen += tile.numel
        if wrong is not None:
            _note(tally, tile, *wrong)
    if run.progress is not None and tally.check is None:
        run.progress(tile.numel * tally.spec.dtype.nbytes)


def _first_refused(run: Run, bench: Bench, tile: Region) -> tuple[int, str]:
    """(flat index on the left, why) of the first element of a tile whose value an operator refuses."""
    while True:
        axis = next((axis for axis, size in enumerate(tile.shape) if size > 1), None)
        if axis is not None:
            half = tile.shape[axis] // 2
            first = part(tile, axis, 0, half)
            try:
                bench.sides(first.left, first.right, first.shape)
            except (CannotCarryOut, BadConstant):
                tile = first
            else:
                tile = part(tile, axis, half, tile.shape[axis])
            continue
        try:
            bench.sides(tile.left, tile.right, tile.shape)
        except (CannotCarryOut, BadConstant) as failure:
            return _offset(tile.left), f"{source_text(tile.right, run.source.manifest)}: {failure}"
        raise AssertionError("a tile is refused whole and not in any of its elements")


def _note(tally: Tally, tile: Region, count: int, first: int) -> None:
    """Count the elements of a tile that differ, and keep the one that comes first in the tensor.

    The axes of a tile are sorted by the steps of its left side, so that the first of the tile is its first in the tensor.
    """
    tally.differing += count
    at = place_of(first, tile.shape)
    flat = _offset(tile.left) + sum(
        place * stride for place, stride in zip(at, _strides(tile.left, tile.shape), strict=True)
    )
    if tally.first is None or flat < tally.first:
        tally.first, tally.region, tally.at = flat, tile, at


def first_leaf(node: Node) -> Leaf | None:
    return next(leaves(node), None)


def _offset(node: Node) -> int:
    leaf = first_leaf(node)
    return leaf.offset if leaf is not None else 0


def _strides(node: Node, shape: tuple[int, ...]) -> tuple[int, ...]:
    leaf = first_leaf(node)
    return leaf.strides if leaf is not None else (0,) * len(shape)
