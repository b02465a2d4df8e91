"""GGUF, version 3, laid out: the values that the metadata stands for, the list of tensors, each at a multiple of the alignment."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from isomorph.errors import FormatError, printable
from isomorph.formats.base import FileLayout, Literal
from isomorph.formats.gguf.read import MAGIC, MOST_DIMS, MOST_METADATA, MOST_TEXT, NUMBERS
from isomorph.formats.gguf.values import alignment_of, as_values, string
from isomorph.formats.safetensors import require_unicode
from isomorph.tensors import TensorSpec

LONGEST_NAME = 63
"""Bytes: ggml keeps the name of a tensor in 64, with a zero after it."""


class Writer:
    """Lays out one file that ggml's loaders read."""

    def check(self, specs: Mapping[str, TensorSpec]) -> None:
        """FormatError that names every tensor which GGUF does not hold: its dtype, its number of dims, the length of its name."""
        require_unicode("gguf", specs)
        kinds = [f"`{printable(name)}` {spec}" for name, spec in specs.items() if spec.dtype.name not in NUMBERS]
        if kinds:
            raise FormatError(
                "gguf",
                f"cannot hold {_listed(kinds)}: it has f32, f16, bf16, f64, i8, i16, i32, i64 and ggml's blocks",
                "Cast them in the morph (| bool -> i8), drop them, or choose another format",
            )
        deep = [f"`{printable(name)}` {spec}" for name, spec in specs.items() if len(spec.shape) > MOST_DIMS]
        if deep:
            raise FormatError(
                "gguf", f"cannot hold {_listed(deep)}: at most {MOST_DIMS} dims", "Merge axes in the morph"
            )
        long = [f"`{printable(name, 120)}`" for name in specs if len(name.encode()) > LONGEST_NAME]
        if long:
            raise FormatError(
                "gguf",
                f"cannot hold names of more than {LONGEST_NAME} bytes: {_listed(long)}",
                "Rename them in the morph",
            )

    def lay_out(self, specs: Mapping[str, TensorSpec], *, name: str, metadata: Mapping[str, str]) -> FileLayout:
        """The file; what of `metadata` came from a GGUF file is as it was there, byte for byte."""
        self.check(specs)

        def fail(problem: str) -> FormatError:
            return FormatError(name, problem)

        values = as_values(metadata, fail)
        alignment = alignment_of(values, fail)
        if sum(len(value.raw) for value in values.values()) > MOST_METADATA:
            raise fail(f"its metadata takes more than {MOST_METADATA:,} bytes")
        parts = [MAGIC, struct.pack("<IQQ", 3, len(specs), len(values))]
        for key, value in values.items():
            if len(key.encode("utf-8", "surrogatepass")) > MOST_TEXT:
                raise fail(f"its metadata has a key of more than {MOST_TEXT:,} bytes: {printable(key, 60)}")
            parts += [string(key.encode("utf-8", "surrogatepass")), struct.pack("<I", value.kind), value.raw]
        offsets: dict[str, int] = {}
        reached = 0
        for tensor, spec in specs.items():
            dims = tuple(reversed(spec.element_shape))
            parts.append(string(tensor.encode()) + struct.pack(f"<I{len(dims)}Q", len(dims), *dims))
            parts.append(struct.pack("<IQ", NUMBERS[spec.dtype.name], reached))
            offsets[tensor] = reached
            reached += spec.nbytes + -spec.nbytes % alignment
        header = b"".join(parts)
        header += bytes(-len(header) % alignment)
        data = len(header)
        literals = [Literal(0, header)]
        for tensor, offset in offsets.items():
            end = offset + specs[tensor].nbytes
            if end % alignment:
                literals.append(Literal(data + end, bytes(-end % alignment)))
        return FileLayout(
            name, data + reached, {tensor: data + offset for tensor, offset in offsets.items()}, tuple(literals)
        )


def _listed(found: list[str]) -> str:
    return ", ".join(found[:10]) + (f" and {len(found) - 10:,} more" if len(found) > 10 else "")
