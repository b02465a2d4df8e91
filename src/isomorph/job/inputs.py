"""SRC… -> one Checkpoint: paths, URLs (`name=PATH`, `PATH#inner`), a MODEL's own values, open checkpoints, mappings of arrays."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isomorph.errors import FormatError, UsageError
from isomorph.formats.base import Checkpoint
from isomorph.formats.tf.read import index_of
from isomorph.job.models import model_of
from isomorph.stores.url import Url, path_of

_NAMED = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.-]*)=(.+)", re.DOTALL)


@dataclass(frozen=True)
class Place:
    """Where a checkpoint is or will be. `name` is "" without `name=`; `text` the path as written, `inner` what follows `#`."""

    name: str
    text: str
    inner: str | None = None

    @property
    def path(self) -> Path:
        return path_of(self.text)

    def __str__(self) -> str:
        return (f"{self.name}=" if self.name else "") + self.text + (f"#{self.inner}" if self.inner is not None else "")


def place(text: str | os.PathLike[str]) -> Place:
    """Read `PATH`, `name=PATH`, `PATH#inner`, `PATH#` (nothing is entered); a path that exists as written is taken as it is."""
    written = os.fspath(text)
    if not written:
        raise UsageError("a path is empty")
    if written == "-" and not _exists(written):
        advice = "name a file (or ./- where that is its name)"
        raise UsageError(f"-: a checkpoint is read and written by its parts, not as a stream: {advice}")
    name = ""
    if not _exists(written) and (match := _NAMED.fullmatch(written)):
        name, written = match.groups()
    inner: str | None = None
    if "#" in written and not _exists(written):
        head, _, tail = written.partition("#")
        while tail and "#" in tail and not _exists(head):
            more, _, tail = tail.partition("#")
            head += "#" + more
        if _exists(head):
            written, inner = head, tail
    return Place(name, written, inner)


def _exists(text: str) -> bool:
    try:
        return path_of(text).exists()
    except (OSError, ValueError):
        return False


def open_place(one: Place) -> Checkpoint:
    """Open the checkpoint there, or build the MODEL that is named. FormatError when it is none, OSError when it cannot be read."""
    from isomorph.formats.registry import open_checkpoint

    if "\0" in one.text:
        raise UsageError("a path holds a NUL character")
    model = model_of(one.text)
    if model is not None:
        return as_checkpoint(model.build())
    if isinstance(one.path, Url):  # opening asks for it anyway, and says more
        return open_checkpoint(one.path, inner=one.inner)
    if not one.path.exists() and not one.path.is_symlink() and index_of(one.path) is None:
        raise FormatError(one.text, "no such file or folder", nearby(one.path))
    return open_checkpoint(one.path, inner=one.inner)


def nearby(path: Path) -> str | None:
    """What lies beside a path that does not exist and looks like it."""
    from isomorph.errors import near_misses

    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return f"The folder {path.parent} does not exist either" if not path.parent.exists() else None
    near = near_misses(path.name, names)
    return f"Did you mean {' or '.join(str(path.parent / name) for name in near)}?" if near else None


def open_sources(sources: Sequence[Any]) -> Checkpoint:
    """One checkpoint of all sources. Several must be named, and their tensors are then `name::tensor`.

    A source is a path, a Place, an open Checkpoint, something with a `.checkpoint`, or a mapping of names to arrays.
    """
    if not sources:
        raise UsageError("no source was given")
    for source in sources:
        if isinstance(source, str | Place) and str(source).endswith(".morph"):
            raise UsageError(f"{source} is a morph, not a checkpoint: give it as  -m {source}")
    opened: dict[str, Checkpoint] = {}
    try:
        for source in sources:
            one = source if isinstance(source, Place) else None
            if isinstance(source, str | os.PathLike):
                one = place(source)
            name = one.name if one is not None else ""
            if name in opened:
                problem = f"two sources are named `{name}`" if name else "several sources need a name each"
                raise UsageError(
                    f"{problem}: write them as  vision=PATH text=PATH  and use vision:: and text:: in the morph"
                )
            opened[name] = open_place(one) if one is not None else as_checkpoint(source)
    except BaseException:
        for checkpoint in opened.values():
            checkpoint.close()
        raise
    if list(opened) == [""]:
        return opened[""]
    if "" in opened:
        raise UsageError("several sources need a name each: write them as  vision=PATH text=PATH")
    from isomorph.formats.joined import Joined

    return Joined(opened)


def as_checkpoint(source: object) -> Checkpoint:
    """What is already in memory: an open checkpoint, or a mapping of names to arrays (numpy, torch on the CPU, paddle)."""
    if isinstance(source, Checkpoint):
        return source
    held = getattr(source, "checkpoint", None)
    if isinstance(held, Checkpoint):
        return held
    if isinstance(source, Mapping) or hasattr(source, "state_dict"):
        from isomorph.job.arrays import array_checkpoint

        return array_checkpoint(source)
    raise UsageError(
        f"a source is a path, a mapping of names to arrays, or an open checkpoint; not a {type(source).__name__}"
    )
