"""A checkpoint in shards: `*.index.json` says which tensor lies in which file, and the headers of the files must say the same."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from isomorph.errors import FormatError, UnsafeError, printable
from isomorph.formats.base import Contents, Location, in_file
from isomorph.formats.hdf5.shards import Groups, groups_of, tensors_of
from isomorph.formats.links import names_in, open_beside
from isomorph.formats.source import Source
from isomorph.formats.strict_json import load_strictly
from isomorph.tensors import TensorSpec, total_nbytes

_INDEX = re.compile(r"(.+)(\.[a-z0-9]+)\.index(\.[A-Za-z0-9_-]+)?\.json")
LARGEST_INDEX = 256 << 20
MOST_SHARDS = 10_000


def whole_of_index(name: str) -> str | None:
    """The file that the shards of an index stand for, which a variant has its name in; None for what is no index.

    >>> whole_of_index("model.safetensors.index.json"), whole_of_index("model.safetensors.index.fp16.json")
    ('model.safetensors', 'model.fp16.safetensors')
    """
    match = _INDEX.fullmatch(name)
    return None if match is None else match[1] + (match[3] or "") + match[2]


def read_index(source: Source) -> tuple[Contents, list[Source]]:
    """The contents of all shards, and the opened shards. FormatError when index and headers disagree, with every difference."""
    mapped, groups, total = _weight_map(source)
    folder = source.path.parent
    names = sorted({*mapped.values(), *(file for files in groups.values() for file in files)})
    if len(names) > MOST_SHARDS:
        raise FormatError(source.path, f"its index names {len(names):,} shards; at most {MOST_SHARDS:,} are read")
    for name in names:
        _require_plain(source.path, name)
    there = names_in(folder)
    missing = [name for name in names if name not in there and not os.path.lexists(folder / name)]
    if missing:
        raise FormatError(
            source.path,
            f"{len(missing)} of its {len(names)} shards {'is' if len(missing) == 1 else 'are'} missing: {_listed(missing)}",
            "Fetch them into the same folder",
        )
    opened: list[Source] = []
    try:
        parts: list[Contents] = []
        for name in names:
            shard = open_beside(folder, name)
            opened.append(shard)
            parts.append(_read_shard(shard))
        if groups:
            mapped = tensors_of(source.path, groups, dict(zip(names, parts, strict=True)))
        elif all(part.format == "hdf5" for part in parts):
            mapped = _without_model(mapped, parts)
        _require_agreement(source.path, mapped, dict(zip(names, parts, strict=True)))
        return _merged(source.path, parts, total), opened
    except BaseException:
        for shard in opened:
            shard.close()
        raise
    finally:
        source.close()


def read_shards(folder: Path, names: Sequence[str]) -> tuple[Contents, list[Source]]:
    """Some shards of a checkpoint without its index: what they hold, and the opened shards. For who knows what must be in them."""
    opened: list[Source] = []
    try:
        for name in names:
            _require_plain(folder, name)
            opened.append(open_beside(folder, name))
        return _merged(folder, [_read_shard(shard) for shard in opened], None), opened
    except BaseException:
        for shard in opened:
            shard.close()
        raise


def _weight_map(source: Source) -> tuple[dict[str, str], Groups, int | None]:
    """(tensor -> shard, or else Keras's groups of variables -> shards, total size said)."""
    path = source.path
    if source.size > LARGEST_INDEX:
        raise FormatError(path, f"a JSON file of {source.size:,} bytes; at most {LARGEST_INDEX:,} are read")
    index = load_strictly(source.read(0, source.size), path, "index", depth=32, floats=True)
    mapped = index.get("weight_map")
    if mapped is None:
        what = "a model's configuration" if "architectures" in index or "model_type" in index else "a JSON file"
        raise FormatError(
            path, f"{what}, not an index of shards (it has no weight_map)", "Name the file of weights, or its folder"
        )
    groups = groups_of(mapped) or {}
    if groups:
        mapped = {}
    elif type(mapped) is not dict or not all(type(shard) is str for shard in mapped.values()) or not mapped:
        raise FormatError(path, "its weight_map does not map names of tensors to names of files")
    metadata = index.get("metadata")
    total: Any = metadata.get("total_size") if type(metadata) is dict else None
    said = isinstance(total, int | float) and not isinstance(total, bool) and 0 <= total < 1 << 63
    return mapped, groups, int(total) if said else None


def _require_plain(path: Path, name: str) -> None:
    """UnsafeError for a shard that is more than the name of a file of weights in the same folder."""
    if not name or name in (".", "..") or any(letter in name for letter in "/\\:\0") or not name.isprintable():
        raise UnsafeError(
            path,
            f"its index names the shard {printable(name)!r}, which is not a file beside it",
            "Nothing was read from there",
        )
    expected = Path(whole_of_index(path.name) or "").suffix
    from isomorph.formats.registry import format_of_suffix

    if format_of_suffix(Path(name)) is None or (expected and Path(name).suffix != expected):
        raise UnsafeError(
            path,
            f"its index names the shard {printable(name)!r}, which is not a {expected or 'known kind of'} file",
            "Nothing was read from there",
        )


def _read_shard(shard: Source) -> Contents:
    from isomorph.formats.registry import FORMATS
    from isomorph.formats.sniff import INDEX, sniff

    kind = sniff(shard)
    if kind == INDEX:
        raise FormatError(shard.path, "a JSON file where a shard of weights belongs")
    if FORMATS[kind].many_files:
        raise FormatError(shard.path, f"a {kind} checkpoint, which lies in several files, where one shard belongs")
    contents, _ = FORMATS[kind].read(shard)
    return contents


def _without_model(mapped: Mapping[str, str], parts: list[Contents]) -> dict[str, str]:
    """TensorFlow's index says `tf_bert/bert/…/kernel:0` where the shard's dataset is `bert/…/kernel:0`."""
    held = {name for part in parts for name in part.tensors}
    return {
        name.partition("/")[2] if name not in held and name.partition("/")[2] in held else name: shard
        for name, shard in mapped.items()
    }


def _require_agreement(path: Path, mapped: Mapping[str, str], parts: Mapping[str, Contents]) -> None:
    """FormatError unless each tensor lies in exactly the shard that the index says, and the index names them all."""
    held = sum(len(contents.tensors) for contents in parts.values())
    if held == len(mapped) and all(
        {shard}.issuperset(map(mapped.get, contents.tensors)) for shard, contents in parts.items()
    ):
        return
    homes: dict[str, list[str]] = {}
    for shard, contents in parts.items():
        for name in contents.tensors:
            homes.setdefault(name, []).append(shard)
    twice = [name for name, shards in homes.items() if len(shards) > 1]
    absent = [name for name in mapped if name not in homes]
    elsewhere = [name for name, shard in mapped.items() if name in homes and shard not in homes[name]]
    unnamed = [name for name in homes if name not in mapped]
    problems = [
        f"{len(names):,} tensor{'s' * (len(names) > 1)} {what}: {_listed(names)}"
        for names, what in [
            (twice, "in two shards"),
            (absent, "that the index names, in no shard"),
            (elsewhere, "in another shard than the index says"),
            (unnamed, "in a shard, and not in the index"),
        ]
        if names
    ]
    if problems:
        raise FormatError(
            path,
            f"its index and its shards disagree: {'; '.join(problems)}",
            "Fetch index and shards of one version",
        )


def _listed(names: list[str]) -> str:
    return ", ".join(printable(name) for name in names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _merged(path: Path, parts: list[Contents], total: int | None) -> Contents:
    tensors: dict[str, TensorSpec] = {}
    locations: dict[str, Location] = {}
    metadata: dict[str, str] = {}
    leaves: dict[str, str] = {}
    for number, part in enumerate(parts):
        tensors.update(part.tensors)
        locations.update({name: in_file(where, number) for name, where in part.locations.items()})
        metadata = {**part.metadata, **metadata}
        leaves.update(part.leaves)
    held = total_nbytes(tensors.values())
    notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
    if total is not None and total != held:
        notes += (f"{path.name} says {total:,} bytes of tensors; the shards hold {held:,}",)
    containers: Any = dict.fromkeys(name for part in parts for name in part.containers)
    formats = dict.fromkeys(part.format for part in parts)
    return Contents(
        tuple(part.files[0] for part in parts),
        tensors,
        locations,
        metadata,
        leaves,
        notes,
        "+".join(formats),
        tuple(containers),
        any(part.is_tree for part in parts),
    )
