"""The table of formats: which file is which (by content, never by suffix), who reads it, who writes it.

To add a format: one file with `read(source) -> Contents` and, to write, a class like `base.Writer`; and one row here. A format
that lies in several files has a `read(source) -> (Contents, opened files)` instead: `source` is the one that names the others.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from json.encoder import encode_basestring
from pathlib import Path
from typing import Any

from isomorph.collector import uncollected
from isomorph.errors import FormatError, UsageError, near_misses, printable
from isomorph.formats.base import Checkpoint, Contents, FileLayout, Literal, OutputLayout, Sharing, Writer
from isomorph.formats.checkpoint import FileCheckpoint
from isomorph.formats.source import Source, is_folder, open_source
from isomorph.stores.url import path_of
from isomorph.tensors import TensorSpec, by_identity, total_nbytes


@dataclass(frozen=True)
class Format:
    """One row: `module:name` of what reads and of what writes, loaded when first used.

    `many_files`: what reads gives (Contents, the opened files that `Contents.files` names) and closes what it no longer needs.
    `keeps`: the keys of a source's metadata that its files have a place for; None for all of them.
    `shares`: its writer can move tensors to where their blocks can be shared with the source (`base.Sharing`).
    `suffixes` choose the format of a target; `folder_name` is what the file is called in a folder, and `shard_name` a shard of it.
    """

    name: str
    reader: str
    writer: str | None = None
    many_files: bool = False
    suffixes: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    folder_name: str = ""
    shard_name: str = ""
    keeps: Collection[str] | None = ()
    shares: bool = False

    def read(self, source: Source) -> tuple[Contents, list[Source]]:
        """What the headers say, and the open files that the tensors lie in."""
        read = _load(self.reader)
        if self.many_files:
            contents, sources = read(source)
            return contents, sources
        return read(source), [source]

    def make_writer(self) -> Writer:
        if self.writer is None:
            raise UsageError(f"{self.name} is read but not written; choose one of {', '.join(writable())}")
        made: Writer = _load(self.writer)()
        return made


FORMATS: Mapping[str, Format] = {
    row.name: row
    for row in [
        Format(
            "safetensors",
            "isomorph.formats.safetensors:read",
            "isomorph.formats.safetensors:Writer",
            suffixes=(".safetensors",),
            folder_name="model.safetensors",
            shard_name="model{shard}.safetensors",
            keeps=None,
            shares=True,
        ),
        Format(
            "torch_zip",
            "isomorph.formats.torch.zip:read",
            "isomorph.formats.torch.zip:Writer",
            suffixes=(".pth", ".pt", ".bin", ".ckpt"),
            aliases=("torch", "pytorch", "pt", "pth", "bin"),
            folder_name="pytorch_model.bin",
            shard_name="pytorch_model{shard}.bin",
            shares=True,
        ),
        Format("torch_legacy", "isomorph.formats.torch.legacy:read"),
        Format("tar", "isomorph.formats.tar:read"),
        Format("tf_checkpoint", "isomorph.formats.tf.read:read", many_files=True),
        Format("orbax", "isomorph.formats.zarr.orbax:read", many_files=True, aliases=("zarr", "ocdbt", "t5x")),
        Format("safetensors_dcp", "isomorph.formats.dcp.in_safetensors:read", many_files=True),
        Format("torch_dcp", "isomorph.formats.dcp.read:read", many_files=True),
        Format(
            "npz",
            "isomorph.formats.npz:read",
            "isomorph.formats.npz:Writer",
            suffixes=(".npz",),
            aliases=("numpy",),
            folder_name="model.npz",
            shares=True,
        ),
        Format(
            "paddle",
            "isomorph.formats.paddle:read",
            "isomorph.formats.paddle:Writer",
            suffixes=(".pdparams",),
            aliases=("pdparams",),
            folder_name="model_state.pdparams",
        ),
        Format(
            "flax",
            "isomorph.formats.flax.read:read",
            "isomorph.formats.flax.write:Writer",
            suffixes=(".msgpack",),
            aliases=("msgpack", "flax_msgpack"),
            folder_name="flax_model.msgpack",
            shard_name="flax_model{shard}.msgpack",
        ),
        Format(
            "gguf",
            "isomorph.formats.gguf.read:read",
            "isomorph.formats.gguf.write:Writer",
            many_files=True,
            suffixes=(".gguf",),
            folder_name="model.gguf",
            keeps=None,
        ),
        Format(
            "hdf5",
            "isomorph.formats.hdf5.read:read",
            "isomorph.formats.hdf5.write:Writer",
            suffixes=(".h5", ".hdf5"),
            aliases=("keras", "keras_h5", "h5", "tf"),
            folder_name="tf_model.h5",
            shard_name="tf_model{shard}.h5",
            keeps=("backend", "keras_version"),
        ),
        Format("onnx", "isomorph.formats.onnx.read:read", many_files=True),
    ]
}


def _load(where: str) -> Any:
    module, _, name = where.partition(":")
    return getattr(importlib.import_module(module), name)


def writable() -> tuple[str, ...]:
    return tuple(row.name for row in FORMATS.values() if row.writer is not None)


def open_checkpoint(path: str | Path, *, inner: str | None = None) -> Checkpoint:
    """Open a file, an index of shards, or a folder that holds one checkpoint; only headers are read.

    `inner` (what follows `#` in `PATH#inner`, which may also be given in `path`) enters a nested container; `""` stays outside.
    FormatError (UnsafeError for what a hostile file asks for) says what is wrong and what to do.
    """
    with uncollected():
        return _open(*(split_inner(path) if inner is None else (path_of(path), inner)))


def _open(where: Path, inner: str | None) -> Checkpoint:
    from isomorph.formats.nested import enter

    notes: tuple[str, ...] = ()
    if not is_folder(where):
        from isomorph.formats.tf.read import index_of

        where = index_of(where) or where
    if is_folder(where):
        from isomorph.formats.folder import find_in_folder
        from isomorph.formats.links import open_beside
        from isomorph.formats.sniff import GROUP

        found, notes = find_in_folder(where)
        if found.name == GROUP:
            from isomorph.formats.zarr.folder import open_group

            source = open_group(found)
        else:
            source = open_beside(found.parent, found.name, advice="name the file itself if it is meant")
    else:
        source = open_source(where)
    sources = [source]
    try:
        from isomorph.formats.sniff import INDEX, sniff

        kind = sniff(source)
        if kind == INDEX:
            from isomorph.formats.sharded import read_index

            contents, sources = read_index(source)
        else:
            contents, sources = FORMATS[kind].read(source)
        return FileCheckpoint(enter(contents, inner, notes), sources)
    except BaseException:
        for opened in {id(one): one for one in [source, *sources]}.values():
            opened.close()
        raise


def split_inner(path: str | Path) -> tuple[Path, str | None]:
    """(`PATH`, `inner`) of `PATH#inner`; a path that exists as it stands has no inner part.

    >>> split_inner("model.pt#state_dict")[1]
    'state_dict'
    """
    whole = path_of(path)
    text = str(path)
    if "#" not in text or os.path.lexists(whole):
        return whole, None
    outside, _, inner = text.partition("#")
    return path_of(outside), inner


def format_named(name: str) -> Format:
    """The format of that name or alias. UsageError lists them."""
    key = name.lower().removeprefix(".")
    for row in FORMATS.values():
        if key == row.name or key == row.name.replace("_", "-") or key in row.aliases or "." + key in row.suffixes:
            return row
    guesses = near_misses(key, FORMATS)
    raise UsageError(
        f"no format is called {name}"
        + (f"; did you mean {guesses[0]}?" if guesses else f"; there are {', '.join(writable())}")
    )


def not_kept(format: str, metadata: Mapping[str, str]) -> tuple[str, ...]:
    """A note where a file of this format has no place for metadata of its source; `format` is no fact of the model."""
    kept = FORMATS[format].keeps
    lost = [] if kept is None else [key for key in metadata if key not in kept and key != "format"]
    if not lost:
        return ()
    shown = ", ".join(printable(key, 60) for key in lost[:3]) + (", …" if len(lost) > 3 else "")
    return (f"{format} files have no place for the source's metadata, which is not kept ({shown})",)


def format_of_suffix(path: Path) -> Format | None:
    return next((row for row in FORMATS.values() if path.suffix.lower() in row.suffixes), None)


NOT_FOLDERS = (
    ".gz", ".index", ".json", ".keras", ".mlmodel", ".npy", ".onnx", ".pb", ".pdopt",
    ".pickle", ".pkl", ".tar", ".tflite", ".txt", ".yaml", ".zip",
)  # fmt: skip
"""Suffixes of files that are not written; a target with any other unknown suffix (`model-v1.5`) is a folder."""


def is_folder_target(path: str | Path) -> bool:
    """True when a target of that name is a folder: it is one already, it ends in a slash, or its suffix is no file's.

    UsageError when the suffix is that of a kind of file which is not written, or nearly that of one which is.
    """
    target = path_of(path)
    if str(path).endswith("/") or is_folder(target):
        return True
    if target.suffix.lower() in NOT_FOLDERS:
        raise UsageError(
            f"{path}: {target.suffix} files are not written; choose one of {', '.join(_suffixes())}, or a folder"
        )
    if format_of_suffix(target) is not None:
        return False
    written = target.suffix.lower()
    near = near_misses(written, [each for each in _suffixes() if each != ".h5" or written.startswith(".h")], 1)
    if near:  # `.v5` and `.5` are versions, not misspelt
        raise UsageError(
            f"{path}: did you mean {target.with_suffix(near[0])}? (For a folder of that name, write {path}/)"
        )
    return True


LARGEST_TARGET = 1 << 62
"""Bytes from which no file system has room, and the fields of the formats none either."""


def lay_out(
    specs: Mapping[str, TensorSpec],
    path: str | Path,
    *,
    format: str | None = None,
    metadata: Mapping[str, str] | None = None,
    max_shard_size: int | None = None,
    sharing: Sharing | None = None,
) -> OutputLayout:
    """Every file of a target, byte by byte, before a tensor is read.

    A folder (see `is_folder_target`) holds one file of the format's usual name, or shards and an index when the tensors
    take more than `max_shard_size` bytes. With `sharing`, a format that can puts tensors where the target's file system
    can share their blocks with the source; without it the bytes of a target depend on its tensors alone. UsageError for a format
    that cannot be written or cut; FormatError for tensors it cannot hold.
    """
    target = path_of(path)
    in_folder = is_folder_target(path)
    by_suffix = None if in_folder else format_of_suffix(target)
    row = format_named(format) if format is not None else by_suffix or FORMATS["safetensors"]
    writer = row.make_writer()
    try:
        writer.check(specs)
    except FormatError as error:
        raise FormatError(target, f"{row.name} {error.problem}", error.advice) from None
    nbytes = total_nbytes(specs.values())
    if nbytes >= LARGEST_TARGET:
        largest = max(specs, key=lambda name: specs[name].nbytes)
        raise FormatError(
            target,
            f"its tensors would take {nbytes:,} bytes, more than a file can have (the largest is `{printable(largest)}` "
            f"{specs[largest]})",
            "Mend the sizes",
        )
    given = dict(metadata or {})
    groups = _shards(specs, max_shard_size)
    wanted: dict[str, Any] = {"sharing": sharing} if sharing is not None and row.shares else {}
    if len(groups) == 1:
        return OutputLayout(
            row.name,
            (writer.lay_out(specs, name=row.folder_name if in_folder else target.name, metadata=given, **wanted),),
            in_folder,
        )
    if not in_folder:
        raise UsageError(
            f"{path}: {len(groups)} shards need a folder, and this names one file. Give a folder, or a larger --max-shard-size"
        )
    if not row.shard_name:
        raise UsageError(
            f"{row.name} has no shards; write one file (no --max-shard-size), or choose safetensors or torch_zip"
        )
    from isomorph.formats.safetensors import require_unicode

    try:
        require_unicode("an index", specs)
    except FormatError as error:
        raise FormatError(target, f"{error.path} {error.problem}", error.advice) from None
    files = []
    weight_map: dict[str, str] = {}
    for number, group in enumerate(groups, 1):
        name = row.shard_name.format(shard=f"-{number:05d}-of-{len(groups):05d}")
        files.append(writer.lay_out({key: specs[key] for key in group}, name=name, metadata=given, **wanted))
        weight_map.update(dict.fromkeys(group, name))
    files.append(lay_out_index(row.name, weight_map, nbytes))
    return OutputLayout(row.name, tuple(files), in_folder)


def lay_out_index(format: str, weight_map: Mapping[str, str], nbytes: int) -> FileLayout:
    """The index of shards: `weight_map` says in which each tensor lies, `nbytes` is that of all tensors."""
    raw = _index_text(nbytes, weight_map).encode()
    return FileLayout(f"{FORMATS[format].folder_name}.index.json", len(raw), {}, (Literal(0, raw),))


def _index_text(total: int, weight_map: Mapping[str, str]) -> str:
    """What `json.dumps(indent=2, sort_keys=True, ensure_ascii=False)` gives of an index, in a fifth of its time."""
    shards = {shard: encode_basestring(shard) for shard in set(weight_map.values())}
    lines = ",\n    ".join([f"{encode_basestring(name)}: {shards[weight_map[name]]}" for name in sorted(weight_map)])
    return f'{{\n  "metadata": {{\n    "total_size": {total}\n  }},\n  "weight_map": {{\n    {lines}\n  }}\n}}\n'


def _suffixes() -> Iterable[str]:
    return (suffix for row in FORMATS.values() if row.writer for suffix in row.suffixes)


def _shards(specs: Mapping[str, TensorSpec], most: int | None) -> list[list[str]]:
    """The names of each shard: in key order, at most `most` bytes each; a larger tensor is a shard of its own."""
    if most is None or total_nbytes(specs.values()) <= most:
        return [list(specs)]
    if most <= 0:
        raise UsageError("--max-shard-size is a number of bytes above 0")
    groups: list[list[str]] = []
    current: list[str] = []
    held = 0
    sizes = {identity: spec.nbytes for identity, spec in by_identity(specs.values()).items()}
    for name, spec in specs.items():
        nbytes = sizes[id(spec)]
        if nbytes > most:
            groups.append([name])
            continue
        if held + nbytes > most:
            groups.append(current)
            current, held = [], 0
        current.append(name)
        held += nbytes
    if current:
        groups.append(current)
    return groups
