"""The conformance suite that every format inherits, and a small writer that turns a FileLayout and arrays into bytes.

    class TestSafetensors(FormatConformance):
        format = "safetensors"
        file_name = "model.safetensors"

        def load_with_oracle(self, path): return safetensors.numpy.load_file(path)
        def save_with_oracle(self, path, arrays): safetensors.numpy.save_file(arrays, path)

The reference library (the oracle) opens what we write, we open what it writes; files that were cut or changed end in
FormatError.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from isomorph.errors import FormatError, SourceChanged
from isomorph.formats.base import Checkpoint, FileLayout, OutputLayout
from isomorph.formats.gather import row_major
from isomorph.formats.memory import ArrayCheckpoint
from isomorph.formats.registry import lay_out, open_checkpoint
from isomorph.tensors import DTYPES, OPAQUE_DTYPES, DType, TensorSpec, dtype

Array = np.ndarray[Any, np.dtype[Any]]
Tensors = Mapping[str, tuple[DType, Array]]
"""name -> (dtype, elements as `dtype.bits`)."""


def tensors_of(arrays: Mapping[str, Array]) -> dict[str, tuple[DType, Array]]:
    """Plain arrays as bits with their dtype."""
    with ArrayCheckpoint(arrays) as checkpoint:
        return {name: (spec.dtype, whole(checkpoint, name)) for name, spec in checkpoint.manifest.items()}


def whole(checkpoint: Checkpoint, name: str) -> Array:
    """Every element of a tensor, as `dtype.bits`, in its shape."""
    shape = checkpoint.manifest[name].shape
    return checkpoint.fetch(name, 0, shape, row_major(shape))


def materialise(layout: FileLayout, tensors: Tensors) -> bytes:
    """The bytes of a target file. Every byte must be laid out exactly once: gaps and overlaps fail here."""
    parts = [(literal.offset, literal.data) for literal in layout.literals]
    parts += [(offset, np.ascontiguousarray(tensors[name][1]).tobytes()) for name, offset in layout.tensors.items()]
    if layout.trailer is not None:
        made = bytearray(layout.nbytes)
        for offset, data in parts:
            made[offset : offset + len(data)] = data
        crcs = [zlib.crc32(made[offset : offset + nbytes]) for offset, nbytes in layout.records]
        parts += [(literal.offset, literal.data) for literal in layout.trailer(crcs)]
    reached = 0
    pieces: list[bytes] = []
    for offset, data in sorted((part for part in parts if part[1]), key=lambda part: part[0]):
        assert reached == offset, f"{layout.name}: byte {reached} is followed by byte {offset}"
        pieces.append(data)
        reached += len(data)
    assert layout.nbytes == reached
    return b"".join(pieces)


def write_checkpoint(
    path: Path,
    tensors: Tensors,
    *,
    format: str | None = None,
    metadata: Mapping[str, str] | None = None,
    max_shard_size: int | None = None,
) -> OutputLayout:
    """Write `tensors` at `path` the way the engine does, but all in memory."""
    specs = {name: TensorSpec(kind, bits.shape) for name, (kind, bits) in tensors.items()}
    layout = lay_out(specs, path, format=format, metadata=metadata or {}, max_shard_size=max_shard_size)
    if layout.is_folder:
        path.mkdir(exist_ok=True)
    for file in layout.files:
        (path / file.name if layout.is_folder else path).write_bytes(materialise(file, tensors))
    return layout


def random_bits(kind: DType, shape: Sequence[int], seed: int) -> Array:
    """Random bit patterns of a dtype: NaNs with payloads, infinities and -0.0 among them."""
    count = int(np.prod(shape, dtype=np.int64))
    raw = np.random.default_rng(seed).integers(0, 256, count * kind.nbytes, dtype=np.uint8)
    if kind.name == "bool":
        raw &= 1
    return raw.view(kind.bits).reshape(tuple(shape))


class ReadingConformance:
    """What holds for every format that is read. A subclass names the format and gives the hook."""

    format: ClassVar[str]
    """The format's name in the registry."""

    file_name: ClassVar[str]

    keeps_dtypes: ClassVar[bool] = True
    """False where the format stores some dtypes as others."""

    tries: ClassVar[int] = 600
    """How often a byte is changed; bytes are put in and taken out half as often."""

    def save_with_oracle(self, path: Path, arrays: Mapping[str, Array]) -> None:
        """Write `arrays` with the reference library."""
        raise NotImplementedError

    def check_equal(self, expected: Tensors, path: Path) -> None:
        with open_checkpoint(path, inner="") as checkpoint:
            assert checkpoint.format == self.format
            assert set(expected) == set(checkpoint.manifest)
            for name, (kind, bits) in expected.items():
                found = checkpoint.manifest[name]
                assert bits.shape == found.shape, name
                if self.keeps_dtypes:
                    assert kind == found.dtype, name
                assert bits.tobytes() == np.ascontiguousarray(whole(checkpoint, name)).tobytes(), name
            checkpoint.check_unchanged()

    def oracle_arrays(self) -> dict[str, Array]:
        rng = np.random.default_rng(5)
        arrays: dict[str, Array] = {
            "matrix": rng.standard_normal((4, 6)).astype("f4"),
            "double": rng.standard_normal((3,)),
            "half": rng.standard_normal((2, 3, 4)).astype("f2"),
            "counts": rng.integers(-9, 9, (5,)),
            "bytes": rng.integers(0, 255, (2, 2)).astype("u1"),
            "flags": np.array([True, False, True]),
            "scalar": np.array(2.5, "f4"),
            "empty": np.zeros((0, 3), "f4"),
        }
        arrays["matrix"][0, :3] = [np.nan, -np.inf, -0.0]
        return arrays

    def test_we_read_what_the_reference_library_writes(self, tmp_path: Path) -> None:
        """Names, shapes, dtypes and every bit of a file that the format's own library wrote."""
        path = tmp_path / self.file_name
        arrays = self.oracle_arrays()
        self.save_with_oracle(path, arrays)
        self.check_equal(tensors_of(arrays), path)

    # Broken files

    def broken_base(self, folder: Path) -> Path:
        """A small whole file to be broken."""
        path = folder / self.file_name
        rng = np.random.default_rng(3)
        arrays: dict[str, Array] = {"a.weight": rng.standard_normal((3, 4)).astype("f4"), "b": np.arange(5)}
        self.save_with_oracle(path, arrays)
        return path

    def is_refused_or_reads(self, path: Path) -> bool:
        """True when the file is refused with FormatError; False when it reads, wholly and within bounds. Nothing else happens."""
        try:
            with open_checkpoint(path, inner="") as checkpoint:
                assert checkpoint.manifest.nbytes < 1 << 20
                for name in checkpoint.manifest:
                    assert checkpoint.manifest[name].shape == whole(checkpoint, name).shape
                str(checkpoint.manifest)
        except (FormatError, SourceChanged) as error:
            assert path.name in str(error) or str(path) in str(error)
            return True
        return False

    def cuts(self, nbytes: int) -> Iterator[int]:
        """Every length near both ends, and some between."""
        yield from sorted({*range(min(nbytes, 300)), *range(max(0, nbytes - 300), nbytes), *range(0, nbytes, 37)})

    def test_a_truncated_file_is_refused(self, tmp_path: Path) -> None:
        """A file cut after any number of bytes is a FormatError that names it."""
        path = self.broken_base(tmp_path)
        raw = path.read_bytes()
        for length in self.cuts(len(raw)):
            path.write_bytes(raw[:length])
            assert self.is_refused_or_reads(path), f"cut to {length} of {len(raw)} bytes"

    def test_a_changed_byte_is_refused_or_harmless(self, tmp_path: Path) -> None:
        """A byte changed anywhere gives FormatError, or a checkpoint that reads within bounds; never another exception."""
        path = self.broken_base(tmp_path)
        raw = path.read_bytes()
        rng = random.Random(7)
        for _ in range(self.tries):
            position, value = rng.randrange(len(raw)), rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
            path.write_bytes(raw[:position] + bytes([value]) + raw[position + 1 :])
            self.is_refused_or_reads(path)

    def test_inserted_and_removed_bytes_are_refused_or_harmless(self, tmp_path: Path) -> None:
        """Bytes put in or taken out anywhere give FormatError, or a checkpoint that reads within bounds."""
        path = self.broken_base(tmp_path)
        raw = path.read_bytes()
        rng = random.Random(11)
        for _ in range(self.tries // 2):
            position, count = rng.randrange(len(raw)), rng.randrange(1, 9)
            put = rng.randbytes(count) if rng.random() < 0.5 else b""
            path.write_bytes(raw[:position] + put + raw[position + (0 if put else count) :])
            self.is_refused_or_reads(path)


class FormatConformance(ReadingConformance):
    """What holds for every format that is read and written. A subclass gives the second hook as well."""

    keeps_order: ClassVar[bool] = True
    """Tensors that need no alignment come back in the order in which they were written."""

    aligns: ClassVar[bool] = True
    """Each tensor begins at a multiple of its element's width."""

    dtypes: ClassVar[Sequence[str]] = (*DTYPES, *OPAQUE_DTYPES)
    """The dtypes that the format can hold."""

    names: ClassVar[Sequence[str]] = (
        "w", "layers.0.attn.weight", "a/b/c", "ünï·côdé.重み", "with space", "..", "new\nline", "\x1b[31mred", 'quo"te\\', "0",
        "x" * 300,
    )  # fmt: skip

    def load_with_oracle(self, path: Path) -> Mapping[str, Any]:
        """name -> array (anything numpy can read) as the reference library reads it."""
        raise NotImplementedError

    def write(self, folder: Path, tensors: Tensors) -> Path:
        path = folder / self.file_name
        write_checkpoint(path, tensors, format=self.format)
        return path

    def sample(self) -> dict[str, tuple[DType, Array]]:
        """A small checkpoint with every dtype, several ranks, an empty tensor, a scalar."""
        made: dict[str, tuple[DType, Array]] = {}
        for number, name in enumerate(self.dtypes):
            kind = dtype(name)
            shape = [(3, 5), (7,), (2, 1, 4), (), (0, 3)][number % 5]
            made[f"{name}.weight"] = (kind, random_bits(kind, shape, number))
        return made

    # Round trips

    def test_every_dtype_comes_back_bit_for_bit(self, tmp_path: Path) -> None:
        """Random bits of every dtype, NaN payloads included, in shapes of rank 0 to 3, come back as they were."""
        sample = self.sample()
        self.check_equal(sample, self.write(tmp_path, sample))

    def test_odd_names_come_back(self, tmp_path: Path) -> None:
        """Names are text: separators, control characters and other scripts in them mean nothing."""
        kind = dtype("f32")
        tensors = {name: (kind, random_bits(kind, (2,), number)) for number, name in enumerate(self.names)}
        self.check_equal(tensors, self.write(tmp_path, tensors))

    def test_empty_and_scalar_tensors_come_back(self, tmp_path: Path) -> None:
        """A tensor of no elements keeps its shape, and one of rank 0 its one element."""
        kind = dtype("f32")
        shapes: list[tuple[int, ...]] = [(), (0,), (1,), (0, 4), (4, 0, 2), (1, 1, 1)]
        tensors = {str(shape): (kind, random_bits(kind, shape, 1)) for shape in shapes}
        self.check_equal(tensors, self.write(tmp_path, tensors))

    def test_many_tensors_come_back_in_order(self, tmp_path: Path) -> None:
        """A thousand tensors keep their order when nothing forces another."""
        kind = dtype("f32")
        names = [f"layers.{number}.w" for number in range(1000)]
        random.Random(0).shuffle(names)
        tensors = {name: (kind, random_bits(kind, (number % 3,), number)) for number, name in enumerate(names)}
        path = self.write(tmp_path, tensors)
        self.check_equal(tensors, path)
        if self.keeps_order:
            with open_checkpoint(path, inner="") as checkpoint:
                assert names == list(checkpoint.manifest)

    def test_plain_tensors_are_runs_of_the_file(self, tmp_path: Path) -> None:
        """What is written is one row-major little-endian run of bytes, at a multiple of its element's width."""
        sample = self.sample()
        path = self.write(tmp_path, sample)
        raw = path.read_bytes()
        with open_checkpoint(path, inner="") as checkpoint:
            for name, (kind, bits) in sample.items():
                run = checkpoint.run(name)
                assert run is not None, name
                assert bits.tobytes() == raw[run[1] : run[1] + bits.nbytes]
                if self.aligns:
                    assert run[1] % kind.alignment == 0
                buffer = bytearray(bits.nbytes)
                checkpoint.pread(run[0], run[1], memoryview(buffer))
                assert bits.tobytes() == bytes(buffer)

    def test_equal_tensors_make_equal_files(self, tmp_path: Path) -> None:
        """The same tensors give the same bytes: no clock, no random number, no address."""
        sample = self.sample()
        assert self.write(tmp_path, sample).read_bytes() == self.write(tmp_path, sample).read_bytes()

    def test_the_reference_library_reads_what_we_write(self, tmp_path: Path) -> None:
        """Names, shapes and every bit, as the format's own library sees them."""
        arrays = self.oracle_arrays()
        loaded = self.load_with_oracle(self.write(tmp_path, tensors_of(arrays)))
        assert set(arrays) == set(loaded)
        for name, array in arrays.items():
            found = np.asarray(loaded[name])
            assert (array.shape, array.tobytes()) == (found.shape, np.ascontiguousarray(found).tobytes()), name


__all__ = [
    "FormatConformance",
    "ReadingConformance",
    "Tensors",
    "materialise",
    "random_bits",
    "tensors_of",
    "whole",
    "write_checkpoint",
]
