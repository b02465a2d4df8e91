"""GGUF from strangers: counts, lengths and sizes that lie, byte orders, types that are none; files that would cost memory or time."""

from __future__ import annotations

import struct
import time
import tracemalloc
from pathlib import Path

import gguf
import pytest

from isomorph.cli.app import run
from isomorph.errors import FormatError
from isomorph.formats.gguf import read as ours
from isomorph.formats.registry import open_checkpoint

SECONDS = 10.0
"""For one small file, on a busy machine. It takes milliseconds; without bounds, hours."""
MOST = 2**64 - 1


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def value(key: bytes, kind: int, raw: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + raw


def u32(key: bytes, number: int) -> bytes:
    return value(key, 4, struct.pack("<I", number))


def array(kind: int, count: int, raw: bytes = b"") -> bytes:
    return struct.pack("<IQ", kind, count) + raw


def tensor(
    name: bytes = b"w", dims: tuple[int, ...] = (4,), kind: int = 0, offset: int = 0, rank: int | None = None
) -> bytes:
    rank = len(dims) if rank is None else rank
    return (
        text(name) + struct.pack("<I", rank) + struct.pack(f"<{len(dims)}Q", *dims) + struct.pack("<IQ", kind, offset)
    )


def file(
    values: tuple[bytes, ...] = (),
    tensors: tuple[bytes, ...] = (),
    *,
    data: int = 16,
    start: bytes = b"GGUF",
    version: int = 3,
    counts: tuple[int, int] | None = None,
) -> bytes:
    counts = (len(tensors), len(values)) if counts is None else counts
    head = start + struct.pack("<IQQ", version, *counts) + b"".join(values) + b"".join(tensors)
    return head + bytes(-len(head) % 32 + data)


HOSTILE = {
    "an array of 2^63 strings, of 57 bytes": (file((value(b"a", 9, array(8, 2**63)),), data=0)[:57], "claims an array of"),
    "an array of 2^63 numbers": (file((value(b"a", 9, array(4, 2**63)),)), "`a` claims an array of 9,223,372,036,854,775,808"),
    "an array of 2^64 - 1 bytes": (file((value(b"a", 9, array(0, MOST)),)), "`a` claims an array of"),
    "an array of arrays without end": (file((value(b"a", 9, array(9, 1) * 4000),)), "more than 4 deep"),
    "an array of a type that is none": (file((value(b"a", 9, array(99, 1, bytes(9))),)), "is of type 99, which is none"),
    "a value of a type that is none": (file((value(b"a", 13, bytes(9)),)), "is of type 13, which is none"),
    "a string of 2^63 bytes": (file((value(b"a", 8, struct.pack("<Q", 2**63)),)), "a value of 9,223,372,036,854,775,808 bytes"),
    "strings that end beyond the file": (
        file((value(b"a", 9, array(8, 2, text(b"x") + struct.pack("<Q", 2**40))),)), "beyond the end of the file",
    ),
    "a key of 2^40 bytes": (file((struct.pack("<Q", 2**40),)), "a key of 1,099,511,627,776 bytes"),
    "a key that is no text": (file((u32(b"\xff\xfe", 1),)), "a key that is no UTF-8"),
    "a key twice": (file((u32(b"a", 1), u32(b"a", 2))), "its metadata has `a` twice"),
    "2^63 values": (file(counts=(0, 2**63)), "claims 9,223,372,036,854,775,808 values"),
    "2^63 tensors": (file(counts=(2**63, 0)), "claims 9,223,372,036,854,775,808 tensors"),
    "2^32 - 1 dims": (file((), (tensor(rank=2**32 - 1),)), "`w`: 4,294,967,295 dims; GGUF has at most 4"),
    "dims whose product wraps": (file((), (tensor(dims=(2**32, 2**32, 4)),)), "are needed, the file has"),
    "dims whose product wraps to what is there": (file((), (tensor(dims=(2**62 + 1, 4)),)), "are needed, the file has"),
    "a dim of 2^63": (file((), (tensor(dims=(2**63,)),)), "beyond any file"),
    "nothing, of a shape beyond any memory": (file((), (tensor(dims=(2**62, 0, 2**62)),)), "beyond any memory"),
    "an offset of 2^64 - 32": (file((), (tensor(offset=2**64 - 32),)), "beyond any file"),
    "an offset that wraps": (file((), (tensor(offset=2**63 - 32),)), "are needed, the file has"),
    "an offset amid a stretch": (file((), (tensor(offset=8),), data=64), "begins at byte 8 of the data, which is no multiple of 32"),
    "a tensor beyond the end": (file((), (tensor(dims=(5,)),)), "are needed, the file has"),
    "blocks that are cut": (file((), (tensor(dims=(100,), kind=12),)), "rows of 100 elements are no whole q4_k blocks of 256"),
    "a block without dims": (file((), (tensor(dims=(), kind=2),), data=64), "rows of 1 elements are no whole q4_0"),
    "blocks beyond the end": (file((), (tensor(dims=(2**40,), kind=12),)), "are needed, the file has"),
    "a ggml type that is none": (file((), (tensor(kind=999),)), "unknown ggml type 999"),
    "a ggml type that was given up": (file((), (tensor(kind=4),)), "unknown ggml type 4"),
    "two tensors of one name": (file((), (tensor(), tensor())), "there are two of that name"),
    "a name that is no text": (file((), (tensor(name=b"\x80"),)), "the name of a tensor that is no UTF-8"),
    "a name of 2^63 bytes": (file((), (struct.pack("<Q", 2**63) + bytes(30),)), "the name of a tensor of 9,223,372"),
    "an alignment of 2^30": (file((u32(b"general.alignment", 2**30),), (tensor(),)), "general.alignment is u32 1073741824"),
    "an alignment of 0": (file((u32(b"general.alignment", 0),), (tensor(),)), "a power of two from 8 to 1,048,576"),
    "an alignment of 24": (file((u32(b"general.alignment", 24),), (tensor(),)), "general.alignment is u32 24"),
    "an alignment that is a text": (file((value(b"general.alignment", 8, text(b"32")),), (tensor(),)), "is string 32"),
    "a big-endian file": (
        b"GGUF" + struct.pack(">IQQ", 3, 0, 0) + bytes(40), "a big-endian GGUF file, which is not read. Turn it round with gguf",
    ),
    "version 1": (file(version=1), "a GGUF file of version 1; versions 2 and 3 are read"),
    "version 2^32 - 1": (file(version=2**32 - 1), "of version 4,294,967,295"),
    "a part of no whole": (file((value(b"split.count", 2, b"\x03\0"),), (tensor(),)), "part 1 of 3, but its name does not say so"),
    "a part of a text": (file((value(b"split.count", 8, text(b"3")),), (tensor(),)), "its split.count is string 3, not a number"),
    "a part of many": (file((value(b"split.count", 2, b"\xff\xff"),), (tensor(),)), "one of 65,535 parts; at most 512 are read"),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_gguf_that_lies_is_refused(tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One message that names the file and the culprit, soon, in little memory; nothing is written."""
    raw, said = HOSTILE[what]
    path = tmp_path / "m.gguf"
    path.write_bytes(raw)
    begin = time.monotonic()
    tracemalloc.start()
    try:
        code = run(["convert", str(path), str(tmp_path / "out.gguf")])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    error = capsys.readouterr().err
    assert code == 2
    assert str(path) in error and said in error and len(error) < 1000, error
    assert time.monotonic() - begin < SECONDS
    assert peak < 16 << 20
    assert [one.name for one in tmp_path.iterdir()] == ["m.gguf"]


def test_names_that_speak_to_the_terminal_are_printed_escaped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Keys, values and names of tensors are text: what they would do to a terminal is shown instead."""
    path = tmp_path / "m.gguf"
    path.write_bytes(file((value(b"k\x1b[2J", 8, text(b"v\x1b[31m\r")),), (tensor(b"w\x1b[31m\n../x"),)))
    assert run(["inspect", str(path)]) == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said and "\r" not in said
    assert "gguf:k\\x1b[2J = string v\\x1b[31m\\r" in said


def test_very_many_small_values_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each value costs more in memory than in the file, and is counted so; so is each tensor of the list."""
    path = tmp_path / "m.gguf"
    path.write_bytes(file(tuple(value(b"%d" % number, 0, b"\0") for number in range(5000))))
    monkeypatch.setattr(ours, "MOST_METADATA", 400_000)
    with pytest.raises(FormatError) as caught:
        open_checkpoint(path)
    assert "its metadata takes more than 400,000 bytes (at `" in str(caught.value)
    path.write_bytes(file((), tuple(tensor(b"%d" % number, (), 24) for number in range(5000))))
    monkeypatch.setattr(ours, "MOST_LISTED", 100_000)
    with pytest.raises(FormatError) as caught:
        open_checkpoint(path)
    assert "the list of tensors takes more than 100,000 bytes" in str(caught.value)


def test_a_vocabulary_of_a_quarter_million_is_read_soon(tmp_path: Path) -> None:
    """What real files hold: 256,000 strings, their scores and types, within the bounds and a second or two."""
    path = tmp_path / "m.gguf"
    tokens = b"".join(text(b"token%d" % number) for number in range(256_000))
    path.write_bytes(
        file(
            (
                value(b"tokens", 9, array(8, 256_000, tokens)),
                value(b"scores", 9, array(6, 256_000, bytes(4 * 256_000))),
                value(b"arrays", 9, array(9, 2, array(4, 1, bytes(4)) + array(8, 1, text(b"x")))),
            ),
            (tensor(),),
        )
    )
    begin = time.monotonic()
    with open_checkpoint(path) as opened:
        assert opened.manifest.metadata["gguf:tokens"].startswith("[string 256000] base64:")
        assert opened.manifest.metadata["gguf:arrays"].startswith("[array 2] base64:")
    assert time.monotonic() - begin < SECONDS


def test_the_longest_of_what_is_allowed_is_read(tmp_path: Path) -> None:
    """Four dims, a name of thousands of bytes, blocks at the very end, version 2: the bounds do not bite what is right."""
    path = tmp_path / "m.gguf"
    name = b"n" * 5000
    path.write_bytes(file((), (tensor(name, (256, 1, 2, 1), 12),), data=288, version=2))
    with open_checkpoint(path) as opened:
        assert {one: str(kind) for one, kind in opened.manifest.items()} == {name.decode(): "q4_k[1,2,1,1]"}
    assert gguf.GGUFReader(path).tensors[0].n_bytes == 288
