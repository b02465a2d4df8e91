"""safetensors: eight bytes of length, a JSON header, then the tensors without a gap.

Reading keeps to what the format's description says, which is stricter than its library: one meaning a file, or none.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from json.encoder import encode_basestring
from typing import Any

from isomorph.errors import FormatError, printable
from isomorph.formats.base import Contents, FileLayout, Literal, Location, Sharing
from isomorph.formats.sharing import arranged
from isomorph.formats.source import Source
from isomorph.formats.strict_json import load_strictly
from isomorph.tensors import DType, TensorSpec, by_identity, dtype, packed, total_nbytes

LARGEST_HEADER = 100_000_000
MOST_DIMS = 64
LARGEST_SIZE = 1 << 63

NAMES: Mapping[str, DType] = {
    name: dtype(ours)
    for name, ours in [
        ("BOOL", "bool"), ("U8", "u8"), ("I8", "i8"), ("U16", "u16"), ("I16", "i16"), ("U32", "u32"), ("I32", "i32"),
        ("U64", "u64"), ("I64", "i64"), ("F16", "f16"), ("BF16", "bf16"), ("F32", "f32"), ("F64", "f64"), ("C64", "c64"),
        ("F8_E4M3", "f8e4m3"), ("F8_E5M2", "f8e5m2"), ("F8_E4M3FNUZ", "f8e4m3fnuz"), ("F8_E5M2FNUZ", "f8e5m2fnuz"),
        ("F8_E8M0", "f8e8m0"), ("F4", "f4"), ("F6_E2M3", "f6e2m3"), ("F6_E3M2", "f6e3m2"),
    ]
}  # fmt: skip
CODES = {ours.name: name for name, ours in NAMES.items()}


def read(source: Source) -> Contents:
    """The header of one file. FormatError for anything that two readers could understand differently."""
    path = source.path
    if source.size < 8:
        raise FormatError(path, f"truncated: {source.size} bytes, too short for the length of a safetensors header")
    length = int.from_bytes(source.read(0, 8), "little")
    if length > LARGEST_HEADER:
        raise FormatError(path, f"its safetensors header claims {length:,} bytes; at most {LARGEST_HEADER:,} are read")
    if length > source.size - 8:
        raise FormatError(
            path,
            f"truncated: its safetensors header has {length:,} bytes, the file ends after {source.size - 8:,} of them",
        )
    if length < 2:
        raise FormatError(path, f"its safetensors header has {length} bytes; the shortest is {{}}")
    raw = source.read(8, length)
    if raw[:1] != b"{":
        raise FormatError(path, f"its safetensors header begins with {raw[:1]!r} (byte 8), not with {{")
    header = load_strictly(raw.rstrip(b" "), path, "safetensors header", depth=4)
    metadata = _metadata(header.pop("__metadata__", {}), path)
    tensors, ranges = _entries(header, path)
    _require_no_holes(ranges, source.size - 8 - length, path)
    data = 8 + length
    locations = {name: Location(0, data + begin) for name, (begin, _) in ranges.items()}
    order = sorted(ranges, key=ranges.__getitem__)
    return Contents((path,), {name: tensors[name] for name in order}, locations, metadata, format="safetensors")


def _metadata(found: Any, path: object) -> dict[str, str]:
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise FormatError(path, "__metadata__ is not an object of strings")
    return found


def _entries(header: dict[str, Any], path: object) -> tuple[dict[str, TensorSpec], dict[str, tuple[int, int]]]:
    tensors: dict[str, TensorSpec] = {}
    ranges: dict[str, tuple[int, int]] = {}
    specs: dict[tuple[str, tuple[int, ...]], tuple[TensorSpec, int]] = {}  # checked before; checkpoints have few kinds
    for name, entry in header.items():
        if type(entry) is not dict or entry.keys() != {"dtype", "shape", "data_offsets"}:
            raise FormatError(path, f"tensor `{printable(name)}`: {_what_is_odd(entry)}")
        kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        known = NAMES.get(kind) if type(kind) is str else None
        if known is None:
            raise FormatError(path, f"tensor `{printable(name)}`: {_unknown_dtype(kind)}")
        if type(shape) is not list or len(shape) > MOST_DIMS or not _sizes(shape):
            raise FormatError(path, f"tensor `{printable(name)}`: its shape is not a list of at most {MOST_DIMS} sizes")
        if type(offsets) is not list or len(offsets) != 2 or not _sizes(offsets):
            raise FormatError(path, f"tensor `{printable(name)}`: its data_offsets are not two byte offsets")
        begin, end = offsets
        checked = specs.get((kind, tuple(shape)))
        if checked is not None and end - begin == checked[1]:
            tensors[name] = checked[0]
            ranges[name] = (begin, end)
            continue
        spec = TensorSpec(known, tuple(shape)) if not known.block else _packed(known, shape, name, path)
        wanted = spec.nbytes
        if end - begin != wanted:
            raise FormatError(
                path,
                f"tensor `{printable(name)}`: {kind} {shape} takes {wanted:,} bytes, "
                f"its data_offsets {begin:,} to {end:,} hold {end - begin:,}",
            )
        if not wanted and math.prod(size or 1 for size in shape) * known.nbytes >= LARGEST_SIZE:
            raise FormatError(path, f"tensor `{printable(name)}`: the shape {shape} is beyond any memory")
        specs[(kind, tuple(shape))] = spec, wanted
        tensors[name] = spec
        ranges[name] = (begin, end)
    return tensors, ranges


def _packed(known: DType, shape: list[int], name: str, path: object) -> TensorSpec:
    """The spec of a shape in elements that share bytes."""
    try:
        spec = packed(known, shape)
    except ValueError as error:
        raise FormatError(path, f"tensor `{printable(name)}`: {CODES[known.name]} {shape}: {error}") from None
    if spec is None:
        bits = 8 * known.nbytes // known.elements
        raise FormatError(
            path,
            f"tensor `{printable(name)}`: {CODES[known.name]} {shape} ends amid a byte: its elements have {bits} bits",
        )
    return spec


def _sizes(values: list[Any]) -> bool:
    """True when all are integers from 0 to 2**63 - 1 (true and false are no integers here)."""
    for value in values:  # noqa: SIM110  (a generator costs twice as much, and this runs for every tensor)
        if type(value) is not int or not 0 <= value < LARGEST_SIZE:
            return False
    return True


def _what_is_odd(entry: Any) -> str:
    if type(entry) is not dict:
        return "its entry is not an object"
    fields = ("dtype", "shape", "data_offsets")
    missing = [field for field in fields if field not in entry]
    if missing:
        return f"its entry lacks {' and '.join(missing)}"
    odd = next(field for field in entry if field not in fields)
    return f"its entry has the field `{printable(odd)}`, which the format does not know"


def _unknown_dtype(kind: Any) -> str:
    if type(kind) is not str:
        return "its dtype is not a text"
    return f"unknown dtype {printable(kind, 40)}; known are {', '.join(NAMES)}"


def _require_no_holes(ranges: Mapping[str, tuple[int, int]], nbytes: int, path: object) -> None:
    """The tensors lie one after the other from the first byte after the header to the last of the file."""
    reached, before = 0, ""
    for (begin, end), name in sorted((where, name) for name, where in ranges.items()):
        if begin != reached:
            kind = "overlaps" if begin < reached else f"leaves a hole of {begin - reached:,} bytes after"
            other = f"`{printable(before)}`" if before else "the header"
            raise FormatError(path, f"tensor `{printable(name)}` (data byte {begin:,}) {kind} {other}")
        reached, before = end, name
    if reached > nbytes:
        raise FormatError(
            path,
            f"truncated: its tensors take {reached:,} bytes, the file has {nbytes:,} of them",
            "Copy or download it again",
        )
    if reached < nbytes:
        raise FormatError(path, f"{nbytes - reached:,} bytes follow the last tensor; a safetensors file ends with it")


class Writer:
    """Lays out one safetensors file; tensors wider first, so that every offset is a multiple of its element's width."""

    def check(self, specs: Mapping[str, TensorSpec]) -> None:
        kinds = {spec.dtype for spec in {id(spec): spec for spec in specs.values()}.values()}
        if any(code(kind) is None for kind in kinds):
            bad = {name: spec for name, spec in specs.items() if code(spec.dtype) is None}
            raise unsupported("safetensors", bad)
        if "__metadata__" in specs:
            raise FormatError(
                "safetensors", "cannot hold a tensor called `__metadata__`: the name is taken", "Rename it"
            )
        require_unicode("safetensors", specs)

    def lay_out(
        self,
        specs: Mapping[str, TensorSpec],
        *,
        name: str,
        metadata: Mapping[str, str],
        sharing: Sharing | None = None,
    ) -> FileLayout:
        """The file. With `sharing`, spaces after the header put the tensors where they can be shared with the source."""
        self.check(specs)
        offsets = aligned_offsets(specs)
        arrangement = None if sharing is None else arranged(list(offsets), specs, sharing)
        if arrangement is not None:
            offsets = _offsets(arrangement.order, specs)
        raw = _header({**metadata, "format": "pt"}, offsets, specs).encode()
        raw += b" " * (-len(raw) % 8)
        if arrangement is not None and sharing is not None:
            raw += b" " * ((arrangement.residue - 8 - len(raw)) % sharing.block)
        if len(raw) > LARGEST_HEADER:
            raise FormatError(
                name,
                f"its header would have {len(raw):,} bytes; safetensors allows {LARGEST_HEADER:,}",
                "Write shards (--max-shard-size)",
            )
        data = 8 + len(raw)
        nbytes = data + total_nbytes(specs.values())
        return FileLayout(
            name,
            nbytes,
            {tensor: data + begin for tensor, begin in offsets.items()},
            (Literal(0, len(raw).to_bytes(8, "little") + raw),),
        )


def _header(metadata: Mapping[str, str], offsets: Mapping[str, int], specs: Mapping[str, TensorSpec]) -> str:
    """What `json.dumps` gives of the header, in a third of its time: there may be a million entries of few kinds."""
    quoted = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
    kinds: dict[int, tuple[str, int]] = {}
    entries = [f'"__metadata__":{quoted(metadata)}']
    for name, begin in offsets.items():
        spec = specs[name]
        kind = kinds.get(id(spec))
        if kind is None:
            begun = quoted({"dtype": code(spec.dtype), "shape": list(spec.element_shape)})[:-1] + ',"data_offsets":['
            kind = kinds[id(spec)] = begun, spec.nbytes
        entries.append(f"{encode_basestring(name)}:{kind[0]}{begin},{begin + kind[1]}]}}")
    return "{" + ",".join(entries) + "}"


def code(kind: DType) -> str | None:
    """What safetensors calls the dtype; None for one that it lacks. Packed elements are counted singly, whatever their items."""
    found = CODES.get(kind.name)
    return found if found is not None or not kind.block else CODES.get(kind.name.partition("_")[0])


def aligned_offsets(specs: Mapping[str, TensorSpec]) -> dict[str, int]:
    """name -> byte offset in the data, without gaps, each a multiple of its element's width.

    The given order is kept when it does that by itself; otherwise tensors of wider elements come first.
    """
    offsets = _offsets(specs, specs)
    alignments = {identity: spec.dtype.alignment for identity, spec in by_identity(specs.values()).items()}
    if not any(offset % alignments[id(specs[name])] for name, offset in offsets.items()):
        return offsets
    offsets = _offsets(sorted(specs, key=lambda name: -specs[name].dtype.alignment), specs)
    if not any(offset % alignments[id(specs[name])] for name, offset in offsets.items()):
        return offsets
    raise AssertionError("widths are powers of two, so that wider first is always aligned")


def _offsets(order: Iterable[str], specs: Mapping[str, TensorSpec]) -> dict[str, int]:
    sizes = {identity: spec.nbytes for identity, spec in by_identity(specs.values()).items()}
    offsets: dict[str, int] = {}
    reached = 0
    for name in order:
        offsets[name] = reached
        reached += sizes[id(specs[name])]
    return offsets


def require_unicode(where: str, names: Iterable[str]) -> None:
    """FormatError when one of the names is not Unicode text (it has lone surrogates, which pickles can hold)."""
    names = list(names)
    if all(map(str.isascii, names)):
        return
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise FormatError(
                where, f"cannot hold a tensor called '{printable(name)}', which is no Unicode text", "Rename it"
            ) from None


def unsupported(where: str, bad: Mapping[str, TensorSpec]) -> FormatError:
    """The error that a format, which has f32 and c64, cannot hold these tensors."""
    listed = ", ".join(f"`{printable(name)}` {spec}" for name, spec in list(bad.items())[:5])
    more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
    kinds = {spec.dtype.kind for spec in bad.values()}
    if kinds == {"opaque"}:
        advice = "They are carried whole and never cast: dequantize them first, or choose a format that has them"
    else:
        ways = [
            way for kind, way in (("float", "--dtype f32"), ("complex", "in the morph: | c128 ~> c64")) if kind in kinds
        ]
        whole = next((name for name, spec in bad.items() if spec.dtype.kind == "opaque"), None)
        but = "" if whole is None else f" where that goes (`{printable(whole)}` is carried whole, never cast)"
        advice = f"Cast them ({'; '.join(ways)}){but}, or choose another format"
    return FormatError(where, f"cannot hold {listed}{more}", advice)
