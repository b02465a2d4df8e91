"""Which files of a folder are TensorFlow's: checkpoints that lie side by side, and the variables of a SavedModel."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from isomorph.errors import FormatError, UnsafeError
from isomorph.formats.links import leads_outside, open_beside

MOST_STATE = 1 << 20
"""Bytes of a `checkpoint` file that are looked at."""


def tf_tables(names: Sequence[str]) -> list[str]:
    """The indexes (`model.ckpt-7.index`) of which a shard of data lies beside them."""
    stems = {match[1] for name in names if (match := re.fullmatch(r"(.+)\.data-\d{5}-of-\d{5}", name))}
    return [name for name in names if name.endswith(".index") and name.removesuffix(".index") in stems]


def latest(state: Path) -> str | None:
    """The index that a `checkpoint` file names as the last one saved; only its name counts, not the folder it was saved in.

    The file is a text: `model_checkpoint_path: "/where/it/was/model.ckpt-7"`.
    """
    source = open_beside(state.parent, state.name)
    try:
        text = source.read(0, min(source.size, MOST_STATE))
    finally:
        source.close()
    found = re.search(rb'^model_checkpoint_path:\s*"((?:[^"\\\n]|\\.)*)"', text, re.MULTILINE)
    return None if found is None else found[1].decode("utf-8", "replace").rpartition("/")[2] + ".index"


def saved_model(folder: Path) -> tuple[Path, tuple[str, ...]]:
    """The variables of a SavedModel; its graph is not read."""
    inside = folder / "variables"
    link = leads_outside(inside)
    if link is not None or inside.is_symlink():
        raise UnsafeError(
            inside, "a link where the folder of a SavedModel's variables belongs", "Name that folder itself"
        )
    index = inside / "variables.index"
    if not index.exists():
        raise FormatError(folder, "a SavedModel without variables/variables.index: it holds no weights")
    return index, ("the variables of a SavedModel; its graph (saved_model.pb) is not read",)
