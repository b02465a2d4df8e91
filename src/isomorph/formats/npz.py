"""npz: a zip archive of .npy files. Stored members are ranges of the file; headers are parsed, never evaluated."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping

from isomorph.errors import FormatError, UnsafeError, printable
from isomorph.formats.base import Contents, FileLayout, Location, Sharing
from isomorph.formats.safetensors import require_unicode, unsupported
from isomorph.formats.source import Source
from isomorph.formats.zip.archive import Member, read_members
from isomorph.formats.zip.layout import Entry, lay_out_zip, placed_at
from isomorph.tensors import DType, TensorSpec, dtype

MAGIC = b"\x93NUMPY"
LARGEST_HEADER = 1 << 16
MOST_DIMS = 64
ALIGNMENT = 64

CODES: Mapping[str, str] = {
    "bool": "|b1", "u8": "|u1", "i8": "|i1", "u16": "<u2", "i16": "<i2", "u32": "<u4", "i32": "<i4", "u64": "<u8", "i64": "<i8",
    "f16": "<f2", "f32": "<f4", "f64": "<f8", "c64": "<c8", "c128": "<c16",
}  # fmt: skip
DTYPES: Mapping[str, DType] = {code[1:]: dtype(name) for name, code in CODES.items()}

_BLANKS = " \t\n\f"
"""What Python, and so numpy, lets stand between words. (Python's own `strip` and `\\s` take many more characters for blanks.)"""

_PAIR = re.compile(
    rf"""[{_BLANKS}]*(?P<q>['"])(?P<key>\w{{1,20}})(?P=q)[{_BLANKS}]*:[{_BLANKS}]*
        (?: (?P<d>['"])(?P<text>[^'"\\]{{0,40}})(?P=d) | (?P<flag>True|False)
          | \((?P<sizes>[0-9L,{_BLANKS}]*)\) | (?P<records>\[.*) )
        [{_BLANKS}]*(?:,|\Z)[{_BLANKS}]*""",
    re.VERBOSE | re.ASCII,
)


def read(source: Source) -> Contents:
    """The headers of every member. UnsafeError for arrays of Python objects, which are pickles."""
    tensors: dict[str, TensorSpec] = {}
    locations: dict[str, Location] = {}
    leaves: dict[str, str] = {}
    for member in read_members(source).values():
        name = member.name.removesuffix(".npy")
        if member.name.endswith("/"):
            continue  # a folder, as `zip -r` lists it
        if name == member.name:
            leaves[name] = f"a file of {member.nbytes:,} bytes"
            continue
        descr, fortran, shape, begin = _Header(source, member).parse()
        kind = _dtype(source, name, descr)
        if isinstance(kind, str):
            leaves[name] = f"{kind} {list(shape)}"
            continue
        spec = TensorSpec(kind, shape)
        if begin + spec.nbytes != member.nbytes:
            raise FormatError(
                source.path,
                f"`{printable(name)}` {spec} takes {spec.nbytes:,} bytes, its member has {member.nbytes - begin:,} of data",
            )
        tensors[name] = spec
        locations[name] = _location(member, spec, begin, is_big=descr[0] == ">" and kind.nbytes > 1, fortran=fortran)
    return Contents((source.path,), tensors, locations, leaves=leaves, format="npz")


def _location(member: Member, spec: TensorSpec, begin: int, *, is_big: bool, fortran: bool) -> Location:
    strides = tuple(math.prod(spec.shape[:axis]) for axis in range(len(spec.shape))) if fortran else None
    if not member.is_deflated:
        return Location(0, member.offset + begin, strides, "big" if is_big else None, spec.nbytes if is_big else 0)
    return Location(
        0,
        member.offset,
        strides,
        "deflate+big" if is_big else "deflate",
        encoded_nbytes=member.stored_nbytes,
        decoded_offset=begin,
        decoded_nbytes=member.nbytes,
        decoded_crc=member.crc,
    )


def _dtype(source: Source, name: str, descr: str) -> DType | str:
    """The dtype of an array; in a word what it holds where these are texts or dates. Everything else is refused."""
    order, code = (descr[0], descr[1:]) if descr[:1] in "<>|=" and descr else ("=", descr)
    if code[:1] == "O":
        raise UnsafeError(
            source.path,
            f"`{printable(name)}` is an array of Python objects, which is a pickle",
            "Nothing was executed. Save it again as an array of numbers",
        )
    if code[:1] in ("U", "S", "a", "M", "m"):
        return "dates" if code[:1] in "Mm" else "text"
    known = DTYPES.get(code)
    if known is not None and order != "=":
        return known
    if code[:1] == "V":
        raise FormatError(
            source.path,
            f"`{printable(name)}` has elements of {code[1:]} bytes and no type ({descr}); numpy writes bf16 and f8 so",
            "Save it as f32, or as safetensors",
        )
    raise FormatError(source.path, f"`{printable(name)}` has dtype {printable(descr)}, which is not read")


class _Header:
    """The .npy header of one member: a dict literal of three keys."""

    def __init__(self, source: Source, member: Member) -> None:
        self.source = source
        self.member = member

    def fail(self, problem: str) -> FormatError:
        return FormatError(self.source.path, f"its member {printable(self.member.name)} {problem}")

    def parse(self) -> tuple[str, bool, tuple[int, ...], int]:
        """(descr, fortran order, shape, length of the header in bytes)."""
        head = self._start(12)
        if head[:6] != MAGIC or len(head) < 10:
            raise self.fail("is not a .npy file: it does not begin with \\x93NUMPY")
        if head[6:8] == b"\1\0":
            begin, length = 10, int.from_bytes(head[8:10], "little")
        elif head[6:8] in (b"\2\0", b"\3\0") and len(head) == 12:
            begin, length = 12, int.from_bytes(head[8:12], "little")
        else:
            raise self.fail(f"has .npy version {head[6]}.{head[7]}; 1.0, 2.0 and 3.0 are read")
        if length > LARGEST_HEADER or begin + length > self.member.nbytes:
            raise self.fail(f"claims a header of {length:,} bytes; it has {self.member.nbytes:,} in all")
        raw = self._start(begin + length)[begin:]
        try:
            text = raw.decode("utf-8" if head[6] == 3 else "latin-1").strip(_BLANKS)
        except UnicodeDecodeError:
            raise self.fail("has a header that is not UTF-8") from None
        return (*self._fields(text), begin + length)

    def _start(self, nbytes: int) -> bytes:
        """The first bytes of the member, inflated when it is deflated."""
        member = self.member
        if not member.is_deflated:
            return self.source.read(member.offset, min(nbytes, member.nbytes))
        raw = self.source.read(member.offset, min(member.stored_nbytes, 2 * nbytes + 1024))
        try:
            return zlib.decompressobj(-15).decompress(raw, nbytes)
        except zlib.error as error:
            raise self.fail(f"is corrupt: {error}") from None

    def _fields(self, text: str) -> tuple[str, bool, tuple[int, ...]]:
        if not (text.startswith("{") and text.endswith("}")):
            raise self.fail("has a header that is not a dictionary")
        found: dict[str, re.Match[str]] = {}
        inside = text[1:-1]
        at = 0
        while at < len(inside):
            pair = _PAIR.match(inside, at)
            if pair is None or pair["key"] in found:
                raise self.fail(f"has a header that cannot be read at {printable(inside[at : at + 40])!r}")
            if pair["records"]:
                raise self.fail("holds records (a structured array), which are not read; save each field by itself")
            found[pair["key"]] = pair
            at = pair.end()
        if found.keys() != {"descr", "fortran_order", "shape"}:
            raise self.fail(f"has a header with the keys {', '.join(sorted(found))}")
        descr, flag, sizes = found["descr"]["text"], found["fortran_order"]["flag"], found["shape"]["sizes"]
        if not descr or flag is None or sizes is None:
            raise self.fail("has a header whose values are not a dtype, a flag and a shape")
        return descr, flag == "True", self._shape(sizes)

    def _shape(self, text: str) -> tuple[int, ...]:
        parts = [part.strip() for part in text.split(",")]
        if parts[-1] == "":
            parts.pop()
        elif len(parts) == 1:
            raise self.fail("has a shape that is a number, not a tuple")
        if len(parts) > MOST_DIMS or not all(re.fullmatch(r"(?:0|[1-9][0-9]{0,18})L?", part) for part in parts):
            raise self.fail("has a shape that is not a tuple of sizes")
        shape = tuple(int(part.rstrip("L")) for part in parts)
        if math.prod(size for size in shape if size) >= 1 << 56:
            raise self.fail(f"claims the shape {list(shape)}")
        return shape


class Writer:
    """Lays out an .npz of stored members, its tensors at multiples of 64 bytes."""

    def check(self, specs: Mapping[str, TensorSpec]) -> None:
        bad = {name: spec for name, spec in specs.items() if spec.dtype.name not in CODES}
        if bad:
            raise unsupported("npz", bad)
        odd = [name for name in specs if not name or "\0" in name]
        if odd:
            raise FormatError("npz", f"cannot hold a tensor called {printable(odd[0])!r}", "Rename it")
        require_unicode("npz", specs)

    def lay_out(
        self,
        specs: Mapping[str, TensorSpec],
        *,
        name: str,
        metadata: Mapping[str, str],
        sharing: Sharing | None = None,
    ) -> FileLayout:
        """The file, each array padded to where it can be shared with the source."""
        self.check(specs)
        return lay_out_zip(
            name,
            (
                Entry(
                    f"{tensor}.npy", npy_header(spec), tensor, spec.nbytes, *placed_at(tensor, spec, ALIGNMENT, sharing)
                )
                for tensor, spec in specs.items()
            ),
        )


def npy_header(spec: TensorSpec) -> bytes:
    """The .npy header (version 1.0) of a row-major array; its length is a multiple of 64."""
    sizes = ", ".join(map(str, spec.shape)) + ("," if len(spec.shape) == 1 else "")
    text = f"{{'descr': '{CODES[spec.dtype.name]}', 'fortran_order': False, 'shape': ({sizes}), }}"
    padding = -(10 + len(text) + 1) % 64
    raw = text.encode() + b" " * padding + b"\n"
    return MAGIC + b"\1\0" + len(raw).to_bytes(2, "little") + raw
