"""What each rank wrote of a model in safetensors (torch's HuggingFaceStorageWriter): shards that say which boxes they hold.

    shard-00001-model-00001-of-00001.safetensors    __metadata__["DCP_SHARDING_INFO"] = {"w": {"saved_offsets": [0, 0]}}
    shard-00002-model-00001-of-00001.safetensors    … {"w": {"saved_offsets": [3, 0]}}

A tensor is as large as its boxes reach, and they must cover it once. Opening one shard opens all that lie beside it.

Source: torch/distributed/checkpoint/hf_storage.py and _hf_utils.py of torch 2.13.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isomorph.errors import FormatError, printable
from isomorph.formats.base import Contents, Location, Tile, in_file
from isomorph.formats.links import listing
from isomorph.formats.pickle.tensors import sizes
from isomorph.formats.safetensors import read as read_safetensors
from isomorph.formats.shelf import open_all
from isomorph.formats.sniff import DCP_SHARD
from isomorph.formats.source import Source
from isomorph.formats.strict_json import load_strictly
from isomorph.formats.tiles import flaw
from isomorph.tensors import TensorSpec

INFO = "DCP_SHARDING_INFO"
MOST_FILES = 100_000


def read(source: Source) -> tuple[Contents, list[Source]]:
    """What all shards beside `source` hold together, and the opened shards. FormatError when the boxes do not fit together."""
    folder = source.path.parent
    with listing(folder):
        names = sorted(each.name for each in folder.iterdir() if DCP_SHARD(each.name))
    if len(names) > MOST_FILES:
        raise FormatError(folder, f"{len(names):,} shards; at most {MOST_FILES:,} are read")
    opened = open_all(folder, names)
    try:
        source.close()
        return _joined(opened), opened
    except BaseException:
        for each in opened:
            each.close()
        raise


def _joined(opened: list[Source]) -> Contents:
    boxes: dict[str, list[Tile]] = {}
    kinds: dict[str, Any] = {}
    metadata: dict[str, str] = {}
    for number, source in enumerate(opened):
        contents = read_safetensors(source)
        starts = _starts(source, contents)
        for name, spec in contents.tensors.items():
            if kinds.setdefault(name, spec.dtype) != spec.dtype or len(starts[name]) != len(spec.shape):
                raise FormatError(
                    source.path, f"tensor `{printable(name)}`: its dtype or its axes differ between shards"
                )
            boxes.setdefault(name, []).append(Tile(starts[name], spec.shape, in_file(contents.locations[name], number)))
        metadata = {**{key: text for key, text in contents.metadata.items() if not key.startswith("DCP_")}, **metadata}
    tensors: dict[str, TensorSpec] = {}
    locations: dict[str, Location] = {}
    for name, tiles in boxes.items():
        if len({len(tile.shape) for tile in tiles}) != 1:
            raise FormatError(opened[0].path, f"tensor `{printable(name)}`: its number of axes differs between shards")
        reach = [[at + size for at, size in zip(tile.start, tile.shape, strict=True)] for tile in tiles]
        tensors[name] = spec = TensorSpec(kinds[name], tuple(max(column) for column in zip(*reach, strict=True)))
        alone = len(tiles) == 1 and tiles[0].shape == spec.shape
        locations[name] = tiles[0].location if alone else Location(0, 0, tiles=tuple(tiles))
    _require_shards(opened, tensors, boxes)
    sharded = sum(bool(where.tiles) for where in locations.values())
    notes = (
        (
            f"{sharded:,} tensors are put together from the shards of several ranks, as far as these reach: "
            f"shards say nothing of how many there were ({len(opened):,} are here)",
        )
        if sharded
        else ()
    )
    return Contents(
        tuple(each.path for each in opened), tensors, locations, metadata, notes=notes, format="safetensors_dcp"
    )


def _require_shards(opened: list[Source], tensors: Mapping[str, TensorSpec], boxes: Mapping[str, list[Tile]]) -> None:
    """FormatError when a number among the shards is missing, and part of a tensor. (A rank that holds nothing writes none.)"""
    numbers = {int(source.path.name[6:11]) for source in opened}
    missing = [number for number in range(1, max(numbers, default=0)) if number not in numbers]
    if not missing:
        return
    for name, tiles in boxes.items():
        problem = flaw(tensors[name].shape, tiles)
        if problem is not None:
            shown = ", ".join(f"shard-{number:05d}-…" for number in missing[:5])
            raise FormatError(
                opened[0].path.parent,
                f"tensor `{printable(name)}` {tensors[name]}: {problem}, and there is no {shown}",
                "Fetch the shards of all ranks into the same folder",
            )


def _starts(source: Source, contents: Contents) -> Mapping[str, tuple[int, ...]]:
    """Where the box of each tensor of a shard begins."""
    raw = contents.metadata.get(INFO)
    if raw is None:
        raise FormatError(source.path, f"a shard of one rank that does not say which ({INFO} is missing)")
    said = load_strictly(raw.encode("utf-8", "surrogatepass"), source.path, INFO, depth=8)
    found: dict[str, tuple[int, ...]] = {}
    for name in contents.tensors:
        info = said.get(name)
        start = sizes(info.get("saved_offsets")) if isinstance(info, dict) else None
        if start is None:
            raise FormatError(source.path, f"tensor `{printable(name)}`: its {INFO} does not say where it begins")
        found[name] = start
    return found
