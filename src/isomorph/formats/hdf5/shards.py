"""Keras's index of shards, `model.weights.json`: its weight_map maps groups of variables, not tensors, to files.

    "weight_map": {"/layers/dense/vars": ["model_00000.weights.h5", "model_00001.weights.h5"]}

The variables of that group are the datasets `layers/dense/vars/0`, `…/1`, wherever among those files they lie.

Source: keras/src/saving/saving_lib.py (ShardedH5IOStore) of Keras 3.15.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isomorph.errors import FormatError, printable
from isomorph.formats.base import Contents

INDEX_SUFFIX = ".weights.json"
_SHARD = re.compile(r"(.+)_\d{5}\.weights\.h5")

Groups = Mapping[str, frozenset[str]]
"""Group of variables, without the slash before it -> the files it lies in."""


def index_of_shard(name: str) -> str | None:
    """`model.weights.json` for `model_00001.weights.h5`; None for what is no shard of Keras's.

    >>> index_of_shard("model_00001.weights.h5")
    'model.weights.json'
    """
    match = _SHARD.fullmatch(name)
    return None if match is None else match[1] + INDEX_SUFFIX


def groups_of(mapped: Any) -> Groups | None:
    """The weight_map as groups; None when no value of it is a list, so that it maps tensors, or when it is none."""
    if type(mapped) is not dict or not any(type(files) is list for files in mapped.values()):
        return None
    found: dict[str, frozenset[str]] = {}
    for group, files in mapped.items():
        listed = files if type(files) is list else [files]
        if not listed or not all(type(file) is str for file in listed):
            return None
        found[group.strip("/")] = frozenset(listed)
    return found


def tensors_of(path: Path, groups: Groups, parts: Mapping[str, Contents]) -> dict[str, str]:
    """tensor -> the file that the index puts it in. FormatError when a group is not in a file that should have it."""
    found: dict[str, str] = {}
    held: set[tuple[str, str]] = set()
    for file, contents in parts.items():
        for name in contents.tensors:
            group = name.rpartition("/")[0]
            if file in groups.get(group, frozenset()):
                held.add((group, file))
                found.setdefault(name, file)
    empty = [(group, file) for group, files in groups.items() for file in sorted(files) if (group, file) not in held]
    if empty:
        shown = ", ".join(f"`{printable(group)}` in {printable(file)}" for group, file in empty[:5])
        raise FormatError(
            path,
            f"{len(empty):,} groups of variables are not where its weight_map says: {shown}",
            "Fetch index and shards of one version",
        )
    return found
