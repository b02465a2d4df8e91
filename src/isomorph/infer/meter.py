"""Bytes just done -> bytes done and bytes in all, for whoever draws a bar. Called from several threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

Stage = Callable[[str], "Callable[[int, int], None] | None"]
"""Called with `reading` or `verifying`; gives what is then called with (bytes done, bytes in all)."""


@contextmanager
def metered(stage: Stage | None, label: str, total: int) -> Iterator[Callable[[int], None] | None]:
    """What is to be told of bytes just done; None where nobody looks. The bar is full when the block is left."""
    shown = None if stage is None else stage(label)
    if shown is None:
        yield None
        return
    done, lock, show = 0, Lock(), shown

    def add(nbytes: int) -> None:
        nonlocal done
        with lock:
            done += nbytes
            if done < total:  # full is said once, at the end: a pass may read some bytes twice
                show(done, total)

    try:
        yield add
    finally:
        show(total, total)
