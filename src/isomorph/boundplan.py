"""A morph that was proved on a source: what `iso.morph(…).plan(…)` gives. Printing it is the proof; written, or read in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from isomorph.errors import UsageError
from isomorph.formats.base import Checkpoint
from isomorph.job.byte_sizes import byte_size
from isomorph.job.convert import Converted, Writing
from isomorph.job.inputs import open_sources, place
from isomorph.job.port import Port
from isomorph.job.progress import notebook_stages
from isomorph.tensors import Manifest

PathLike = str | os.PathLike[str]


class BoundPlan:
    """A plan together with its source. `print(plan)` is the proof; `write`, `items` and `state_dict` carry it out."""

    def __init__(self, plan: Any, port: Port, source: Checkpoint) -> None:
        self.plan = plan
        self.port = port
        self.source = source

    @property
    def manifest(self) -> Manifest:
        """Names and specs of what comes out."""
        found: Manifest = self.plan.manifest
        return found

    def write(
        self,
        *targets: PathLike,
        format: str | None = None,
        max_shard_size: int | str | None = None,
        max_memory: int | str = 256 << 20,
        workers: int | None = None,
        resume: bool = False,
        overwrite: bool = False,
        verify: bool = True,
    ) -> Converted:
        """Write the result; it gets its name when it is complete, synced, verified. Raises RefusedError, Different, CheckError."""
        from isomorph.job.convert import convert as carry_out

        how = writing(format, max_shard_size, max_memory, workers, resume, overwrite, verify)
        return carry_out(
            self.port, self.source, [place(one) for one in targets], how, plan=self.plan, stage=notebook_stages()
        )

    def items(self, library: str = "numpy", *, device: Any = None) -> Iterator[tuple[str, Any]]:
        """(name, array) one target at a time; `library` is numpy, torch or paddle. Ties and constants are checked too."""
        from isomorph.engine.arrays import arrays
        from isomorph.job.arrays import from_numpy

        def converted(made: tuple[str, Any]) -> tuple[str, Any]:
            return made[0], from_numpy(made[1], library, device)

        yield from map(converted, arrays(self.plan, self.source))  # no name here holds an array while the next is made

    def state_dict(self, library: str = "numpy", *, device: Any = None) -> dict[str, Any]:
        """All targets in memory, name -> array."""
        return dict(self.items(library, device=device))

    def __str__(self) -> str:
        from isomorph.plan.explain import explain

        return explain(self.plan, title=self.port.title)

    def __repr__(self) -> str:
        return f"<plan: {len(self.plan.source):,} tensors in, {len(self.plan.targets):,} out>"

    def _repr_html_(self) -> str:
        from isomorph.describe.html import preformatted

        return preformatted(str(self))


def bind(port: Port, source: Any, *, like: Any = None) -> BoundPlan:
    """Open the source, find its config, prove the port on it."""
    from isomorph.job.likes import like as like_manifest

    checkpoint = open_sources([source])
    try:
        port = port.with_config_beside(checkpoint.paths[:1]).settled(checkpoint.manifest)
        plan = port.plan(checkpoint.manifest, None if like is None else like_manifest(like))
    except BaseException:
        if isinstance(source, str | os.PathLike):
            checkpoint.close()
        raise
    return BoundPlan(plan, port, checkpoint)


MOST_WORKERS = 256


def writing(
    format: str | None, max_shard_size: int | str | None, max_memory: int | str, workers: int | None, *rest: bool
) -> Writing:
    """How to write; sizes are bytes, or text as on the command line (`5GB`). UsageError for no size, or no number of threads."""
    if workers is not None and not (isinstance(workers, int) and 1 <= workers <= MOST_WORKERS):
        raise UsageError(f"workers={workers!r}: a number of threads is from 1 to {MOST_WORKERS}")
    cut = None if max_shard_size is None else byte_size(max_shard_size)
    return Writing(format, cut, byte_size(max_memory), workers, *rest)
