"""Typed values of GGUF's metadata, and texts that stand for them in files that hold texts only. Both ways, byte for byte.

A value of the file is (type, its bytes). In the metadata of other formats it is an entry under `gguf:KEY`:

    u32 32             numbers as they are read; a float as the shortest decimal that is its bits
    bool true
    string llama
    [i32 3] [1, 2, 3]  short arrays of numbers and strings as JSON
    [string 128256] base64:…   whatever is longer, or has no such text: the bytes of the value

What else a file of texts says of itself (`format: pt`) has no such key and is written as a string, but for `format`.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from isomorph.errors import FormatError, printable

PREFIX = "gguf:"
"""How the keys of typed values begin among texts."""

ALIGNMENT_KEY = "general.alignment"
DEFAULT_ALIGNMENT = 32
MOST_ALIGNMENT = 1 << 20

SCALARS: Mapping[int, tuple[str, str]] = {
    0: ("u8", "<B"), 1: ("i8", "<b"), 2: ("u16", "<H"), 3: ("i16", "<h"), 4: ("u32", "<I"), 5: ("i32", "<i"), 6: ("f32", "<f"),
    7: ("bool", "<B"), 10: ("u64", "<Q"), 11: ("i64", "<q"), 12: ("f64", "<d"),
}  # fmt: skip
"""Number of a type -> (its name in texts, how struct packs it)."""

U32, STRING, ARRAY = 4, 8, 9
NAMES: Mapping[int, str] = {**{number: name for number, (name, _) in SCALARS.items()}, STRING: "string", ARRAY: "array"}
NUMBERS = {name: number for number, name in NAMES.items()}

SHORT = 64
"""Elements of an array that is still written out."""
MOST_DEPTH = 4
"""Arrays within arrays."""


class Value(NamedTuple):
    """A value as the file has it: the number of its type, and its bytes (a string with its length, an array with its head)."""

    kind: int
    raw: bytes


def width(kind: int) -> int | None:
    """Bytes of a value of a scalar type; None for strings, arrays and numbers of no type."""
    return struct.calcsize(SCALARS[kind][1]) if kind in SCALARS else None


def string(text: bytes) -> bytes:
    """The bytes of a string, with its length."""
    return struct.pack("<Q", len(text)) + text


# ── to text ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def to_text(value: Value) -> str:
    """The text that stands for a value; `from_text` gives back the same bytes."""
    head = NAMES[value.kind]
    if value.kind == ARRAY:
        inner, count = struct.unpack_from("<IQ", value.raw)
        head = f"[{NAMES[inner]} {count}]"
        read = _elements(inner, count, value.raw[12:]) if count <= SHORT and inner != ARRAY else None
        body = None if read is None else json.dumps(read, ensure_ascii=False)
    else:
        read = _elements(value.kind, 1, value.raw)
        body = None if read is None else _plain(value.kind, read[0])
    if body is not None:
        found = f"{head} {body}"
        try:
            if from_text(found) == value:
                return found
        except ValueError:
            pass
    return f"{head} base64:{base64.b64encode(value.raw).decode()}"


def _plain(kind: int, value: Any) -> str:
    return str(value) if kind == STRING else json.dumps(value)


def _elements(kind: int, count: int, raw: bytes) -> list[Any] | None:
    """Numbers, texts, truth values; None where one has no plain text (a float that is no number, a string that is no UTF-8)."""
    if kind == STRING:
        found, at = [], 0
        for _ in range(count):
            nbytes = int.from_bytes(raw[at : at + 8], "little")
            try:
                found.append(raw[at + 8 : at + 8 + nbytes].decode())
            except UnicodeDecodeError:
                return None
            at += 8 + nbytes
        return found
    numbers: list[Any] = [number for (number,) in struct.iter_unpack(SCALARS[kind][1], raw)]
    if NAMES[kind] == "bool":
        return [bool(number) for number in numbers] if max(numbers, default=0) <= 1 else None
    if NAMES[kind] == "f32":
        import numpy as np

        numbers = [float(str(np.float32(number))) for number in numbers]  # the fewest digits that are this float
    if any(number != number or number in (float("inf"), float("-inf")) for number in numbers):
        return None
    return numbers


# ── and back ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def from_text(text: str) -> Value:
    """The value that a text stands for. ValueError where it stands for none."""
    if text.startswith("["):
        inner, _, rest = text[1:].partition(" ")
        written, _, body = rest.partition("] ")
        if inner not in NUMBERS or not written.isdecimal() or len(written) > 19:
            raise ValueError("it begins with no type")
        return _array(NUMBERS[inner], int(written), body)
    head, separator, body = text.partition(" ")
    kind = NUMBERS.get(head)
    if kind is None or kind == ARRAY or not separator:
        raise ValueError("it begins with no type")
    if body.startswith("base64:"):
        raw = _bytes(body)
        _require_one(kind, raw)
    else:
        raw = _packed(kind, body if kind == STRING else _json(body))
    return Value(kind, raw)


def _array(inner: int, count: int, body: str) -> Value:
    if body.startswith("base64:"):
        raw = _bytes(body)
        if raw[:12] != struct.pack("<IQ", inner, count) or after_value(ARRAY, raw) != len(raw):
            raise ValueError("its bytes are not such an array")
        return Value(ARRAY, raw)
    elements = _json(body)
    if type(elements) is not list or len(elements) != count or inner == ARRAY:
        raise ValueError(f"it is not {count} elements")
    return Value(ARRAY, struct.pack("<IQ", inner, count) + b"".join(_packed(inner, each) for each in elements))


def _json(body: str) -> Any:
    if len(body) > 1 << 20:
        raise ValueError("it is longer than such a text can be")
    try:
        return json.loads(body)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _bytes(body: str) -> bytes:
    try:
        return base64.b64decode(body.removeprefix("base64:"), validate=True)
    except binascii.Error as error:
        raise ValueError(f"its base64 is broken ({error})") from None


def _require_one(kind: int, raw: bytes) -> None:
    if after_value(kind, raw) != len(raw):
        raise ValueError(f"its bytes are no {NAMES[kind]}")


def _packed(kind: int, value: Any) -> bytes:
    name = NAMES[kind]
    if kind == STRING:
        if type(value) is not str:
            raise ValueError("it is no text")
        return string(value.encode())
    if name == "bool":
        if type(value) is not bool:
            raise ValueError("it is neither true nor false")
        return bytes([value])
    allowed = (int, float) if name in ("f32", "f64") else (int,)
    if type(value) not in allowed:
        raise ValueError(f"it is no {name}")
    try:
        return struct.pack(SCALARS[kind][1], value)
    except (struct.error, OverflowError):
        raise ValueError(f"{str(value)[:40]} is beyond {name}") from None


def after_value(kind: int, raw: bytes, at: int = 0, depth: int = 0) -> int:
    """Where a value that begins at `at` ends. ValueError where it is cut, of no type, or nested too deeply."""
    size = width(kind)
    if size is not None:
        end = at + size
    elif kind == STRING:
        end = at + 8 + int.from_bytes(raw[at : at + 8], "little")
    elif kind == ARRAY and depth < MOST_DEPTH:
        inner, count = (
            int.from_bytes(raw[at : at + 4], "little"),
            int.from_bytes(raw[at + 4 : at + 12], "little"),
        )
        end, size = at + 12, width(inner)
        if size is not None:
            end += size * count
        elif count * 8 > len(raw) - end:
            raise ValueError("it is cut")
        else:
            for _ in range(count):
                end = after_value(inner, raw, end, depth + 1)
    else:
        raise ValueError(f"{kind} is the number of no type" if kind != ARRAY else "it is nested too deeply")
    if end > len(raw):
        raise ValueError("it is cut")
    return end


# ── entries ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def as_metadata(values: Mapping[str, Value]) -> dict[str, str]:
    """Typed values as entries of texts, in their order."""
    return {PREFIX + key: to_text(value) for key, value in values.items()}


def as_values(metadata: Mapping[str, str], fail: Callable[[str], FormatError]) -> dict[str, Value]:
    """Entries of texts as typed values: those under `gguf:` as they were, others as strings; `format` is left out.

    Raises what `fail` makes of a sentence, for an entry under `gguf:` that stands for no value.
    """
    found: dict[str, Value] = {}
    for key, text in metadata.items():
        if key.startswith(PREFIX):
            try:
                found[key.removeprefix(PREFIX)] = from_text(text)
            except ValueError as error:
                raise fail(f"its metadata `{printable(key, 80)}` stands for no value of GGUF: {error}") from None
    for key, text in metadata.items():
        if not key.startswith(PREFIX) and key != "format" and key not in found:
            found[key] = Value(STRING, string(text.encode("utf-8", "surrogatepass")))
    return found


def alignment_of(values: Mapping[str, Value], fail: Callable[[str], FormatError]) -> int:
    """The bytes of which offsets are multiples. Raises what `fail` makes of a sentence, where it is no power of two in bounds."""
    value = values.get(ALIGNMENT_KEY)
    if value is None:
        return DEFAULT_ALIGNMENT
    found = int.from_bytes(value.raw, "little")
    if value.kind != U32 or found < 8 or found & (found - 1) or found > MOST_ALIGNMENT:
        shown = to_text(value)[:40]
        raise fail(
            f"its {ALIGNMENT_KEY} is {printable(shown)}; a power of two from 8 to {MOST_ALIGNMENT:,} (u32) is read"
        )
    return found
