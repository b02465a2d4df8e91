"""What a harness is, and what holds for every input of every harness.

    Harness(name, run, seeds, mutate, tokens, max_nbytes)     run(data) returns, or raises an error of isomorph, or it is a finding

`checked(harness, data)` is one execution: errors of isomorph pass when their text is harmless, anything else comes out, and so does
an input that takes too long. Nothing here knows atheris, so that findings are run again as plain tests.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from isomorph.errors import IsomorphError
from isomorph.formats.base import Contents
from isomorph.formats.checkpoint import FileCheckpoint
from isomorph.formats.gather import row_major
from isomorph.formats.nested import enter
from isomorph.formats.source import Source

Raw = Callable[[bytes, int], bytes]
"""libFuzzer's own mutation: (data, largest length) -> data."""

Mutator = Callable[[bytes, int, random.Random, Raw], bytes]

MOST_SECONDS = 5.0
"""Of processor time for one input of at most some kilobytes; what is honest takes a thousandth of it."""

LARGEST_TENSOR = 1 << 16
MOST_READ = 1 << 18
"""Bytes of tensors that are read of one input."""

LONGEST_MESSAGE = 50_000


class Finding(AssertionError):
    """Something that must not be: two readers that differ, a message that a terminal would obey, an input that takes too long."""


@dataclass(frozen=True)
class Harness:
    """One thing that is fuzzed. `seeds()` gives inputs by name; `tokens` are put into inputs by libFuzzer."""

    name: str
    run: Callable[[bytes], None]
    seeds: Callable[[], Mapping[str, bytes]]
    mutate: Mutator | None = None
    tokens: tuple[bytes, ...] = ()
    max_nbytes: int = 4096


def checked(harness: Harness, data: bytes) -> IsomorphError | None:
    """One execution; the error of isomorph that ended it, if one did. Everything else that is raised is a finding."""
    began = time.process_time()
    refused: IsomorphError | None = None
    try:
        harness.run(data)
    except IsomorphError as error:
        refused = error
        text = str(error)
        if len(text) > LONGEST_MESSAGE:
            raise Finding(f"a message of {len(text):,} characters") from error
        if not all(line.isprintable() for line in text.split("\n")):
            raise Finding(f"a message that a terminal would obey: {text[:200]!r}") from error
    spent = time.process_time() - began
    if spent > MOST_SECONDS:
        raise Finding(f"{len(data):,} bytes took {spent:.1f} s")
    return refused


class MemoryFile:
    """A file of which the memory is the disk: one a process, written anew for every input."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("fuzzed")
        self.path = Path(f"/proc/self/fd/{self.fd}")

    def source(self, data: bytes, name: str = "fuzzed.bin") -> Source:
        """A Source of these bytes, called `name`."""
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, data, 0)
        made = Source(self.path)
        made.path = Path(name)
        return made


_file: list[MemoryFile] = []


def source_of(data: bytes, name: str = "fuzzed.bin") -> Source:
    if not _file:
        _file.append(MemoryFile())
    return _file[0].source(data, name)


def read_with(read: Callable[[Source], Contents], data: bytes, name: str = "fuzzed.bin") -> dict[str, np.ndarray]:
    """Read `data` with a format's reader, then every tensor of a sane size; their elements as bits, by name."""
    source = source_of(data, name)
    try:
        return read_tensors(enter(read(source), None, ()), [source])
    finally:
        source.close()


def read_tensors(contents: Contents, sources: list[Source]) -> dict[str, np.ndarray]:
    """Every tensor of a sane size, as bits, by name. Finding when the ways to get at the elements differ."""
    arrays: dict[str, np.ndarray] = {}
    with FileCheckpoint(contents, sources) as checkpoint:
        manifest = checkpoint.manifest
        total = 0
        for name, spec in manifest.items():
            total += spec.nbytes
            if spec.nbytes > LARGEST_TENSOR or total > MOST_READ or manifest.encodings.get(name) == "hdf5":
                continue
            array = checkpoint.fetch(name, 0, spec.shape, row_major(spec.shape))
            if array.shape != spec.shape or array.dtype != spec.dtype.bits:
                raise Finding(f"{name!r} {spec} was read as {array.dtype} {array.shape}")
            run = checkpoint.run(name)
            if run is not None and spec.nbytes:
                raw = bytearray(spec.nbytes)
                checkpoint.pread(run[0], run[1], memoryview(raw))
                if bytes(raw) != array.tobytes():
                    raise Finding(f"{name!r} {spec}: its run holds other bytes than its box")
            arrays[name] = array
    return arrays
