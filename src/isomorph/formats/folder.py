"""The one checkpoint in a folder."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path

from isomorph.errors import FormatError, printable
from isomorph.formats.hdf5.shards import INDEX_SUFFIX, index_of_shard
from isomorph.formats.hub_cache import models_in, within
from isomorph.formats.links import listing
from isomorph.formats.sharded import whole_of_index
from isomorph.formats.sniff import DCP_SHARD
from isomorph.formats.tf.folder import latest, saved_model, tf_tables
from isomorph.stores.url import Url

PREFERRED = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "model_state.pdparams",
    "flax_model.msgpack",
    "flax_model.msgpack.index.json",
    "tf_model.h5",
    "tf_model.h5.index.json",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "adapter_model.safetensors",
    "model.onnx",
)
"""The names by which libraries know the weights of a folder, most wanted first."""

SUFFIXES = (
    ".safetensors", ".bin", ".pth", ".pt", ".ckpt", ".pdparams", ".npz", ".msgpack", ".h5", ".hdf5", ".keras", ".onnx", ".gguf",
)  # fmt: skip
NOT_WEIGHTS = re.compile(
    r"training_args\.bin|(optimizer|scheduler|scaler|rng_state.*|random_states.*)\.(bin|pt|pth|pkl)|.*\.pdopt"
)
MOST_FOLDERS = 1000
"""Entries of a folder that are looked at to say where a checkpoint may be."""

SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}(\.[a-z0-9]+)")


def find_in_folder(folder: Path) -> tuple[Path, tuple[str, ...]]:
    """(the file to open, notes on what else lies there). FormatError when there is none, or no telling which."""
    with listing(folder):
        folder = within(folder)
    with listing(folder):
        names = sorted(entry.name for entry in list(folder.iterdir()) if not entry.is_dir())
    indexes = [name for name in names if name.endswith((".index.json", INDEX_SUFFIX)) or whole_of_index(name)]
    indexed = {whole_of_index(name) for name in indexes}
    weights = [name for name in names if name.endswith(SUFFIXES) and not NOT_WEIGHTS.fullmatch(name)]
    weights = [name for name in weights if index_of_shard(name) not in indexes]
    shards = [name for name in weights if _whole_name(name) is not None]
    parts = {_whole_name(name): name for name in reversed(shards) if name.endswith(".gguf")}  # they need no index
    orphans = sorted({str(_whole_name(name)) for name in shards} - indexed - {str(name) for name in parts})
    candidates = [name for name in weights if name not in shards] + indexes + list(parts.values())
    tables = tf_tables(names)
    candidates += tables
    last = None
    if "checkpoint" in names and any(name.endswith(".index") for name in names):
        last = latest(folder / "checkpoint")  # the file in which TensorFlow says which one is the last
    if last in names:
        candidates = [*(name for name in candidates if name not in tables), str(last)]
    if "saved_model.pb" in names and not candidates:
        return saved_model(folder)
    ranks = [name for name in shards if DCP_SHARD(name)]
    if ranks:  # what each rank wrote: the first leads to the others
        candidates.append(ranks[0])
    if ".metadata" in names and any(name.endswith(".distcp") for name in names):
        candidates.append(".metadata")
    candidates = [name for name in candidates if not name.endswith(".onnx")] or candidates  # exported from the others
    chosen = next((name for name in PREFERRED if name in candidates), None)
    if chosen is None and len(candidates) == 1:
        chosen = candidates[0]
    if chosen is None and not candidates:
        from isomorph.formats.zarr.folder import arrays_in

        arrays = arrays_in(folder, names)
        if arrays is not None:
            inner = arrays.parent.relative_to(folder).as_posix()
            return arrays, () if inner == "." else (f"entered {printable(inner)}, the only checkpoint in the folder",)
    if chosen is None:
        raise _undecided(folder, candidates, orphans, names)
    others = [name for name in candidates if name != chosen]
    if last is not None and chosen in tables and chosen != last:
        return folder / chosen, (
            f"checkpoint names {printable(last)} as the last one saved, which is not in the folder",
        )
    if not others:
        return folder / chosen, ()
    listed = ", ".join(printable(name) for name in others[:5]) + (
        f" and {len(others) - 5} more" if len(others) > 5 else ""
    )
    return folder / chosen, (f"{chosen} was taken from the folder; also there: {listed}",)


def _whole_name(name: str) -> str | None:
    """`model.safetensors` for `model-00001-of-00003.safetensors`; None for what is no shard."""
    match = SHARD.fullmatch(name)
    return None if match is None else match[1] + match[2]


def _undecided(folder: Path, candidates: list[str], orphans: list[str], names: list[str]) -> FormatError:
    if candidates:
        listed = ", ".join(printable(name) for name in candidates[:10])
        more = f" and {len(candidates) - 10} more" if len(candidates) > 10 else ""
        return FormatError(folder, f"holds several checkpoints: {listed}{more}", "Name the one that is meant")
    if orphans:
        return FormatError(
            folder,
            f"holds shards of {printable(orphans[0])}, but not their index {printable(orphans[0])}.index.json",
            "Fetch the index as well",
        )
    if any(name.endswith(".distcp") for name in names):
        return FormatError(
            folder,
            "a checkpoint of torch.distributed without its .metadata, which says what lies where in its *.distcp",
            "Fetch it as well (its name begins with a dot, and copies often leave it out)",
        )
    models = models_in(folder)
    if models:
        listed = ", ".join(printable(name) for name in models[:10])
        more = f" and {len(models) - 10} more" if models[10:] else ""
        raise FormatError(folder, f"the hub's cache, of these models: {listed}{more}", "Name the folder of one")
    inside = _checkpoints_below(folder)
    if inside:
        what = (
            "a pipeline of several models"
            if "model_index.json" in names
            else "a folder without a checkpoint of its own"
        )
        shown = ", ".join(printable(name) for name in inside[:10]) + (
            f" and {len(inside) - 10} more" if inside[10:] else ""
        )
        return FormatError(
            folder,
            f"{what}; there is one in {shown}",
            f"Name the one that is meant: {printable(str(folder / inside[0]))}",
        )
    seen = ", ".join(printable(name) for name in names[:5]) + (", …" if len(names) > 5 else "")
    return FormatError(
        folder,
        "a folder without a checkpoint " + (f"(it holds {seen})" if names else "(it is empty)"),
        f"A checkpoint ends in {', '.join(SUFFIXES)} or .index.json",
    )


def _checkpoints_below(folder: Path) -> list[str]:
    """The folders in it that hold files of weights, by their names alone. Of a store, none: each would be asked for by itself."""
    found: list[str] = []
    if isinstance(folder, Url):
        return found
    for each in sorted(folder.iterdir())[:MOST_FOLDERS]:
        if each.is_dir() and not each.is_symlink():
            try:
                names = [entry.name for entry in islice(each.iterdir(), MOST_FOLDERS)]
            except OSError:
                continue
            if any(name.endswith((*SUFFIXES, ".index.json", ".distcp")) for name in names):
                found.append(each.name)
    return found
