"""Torch zips that mean two things, lie about sizes, or reach outside themselves."""

from __future__ import annotations

import random
import re
import struct
import tarfile
import zlib
from pathlib import Path

import pytest
from torch_files import (
    FLOATS,
    HOOKS,
    Part,
    name,
    pickle_of,
    storage,
    tensor,
    text,
    torch_file,
    zip_of,
)  # fmt: skip

import isomorph
from isomorph.errors import FormatError, UnsafeError
from isomorph.formats.registry import open_checkpoint

GOOD = pickle_of({"w": tensor()})
DATA = Part("archive/data/0", FLOATS)
PICKLE = Part("archive/data.pkl", GOOD)


def view(shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0, numel: int = 6) -> bytes:
    return torch_file(pickle_of({"layer.w": tensor(shape, strides, offset, stored=storage(numel=numel))}))


def flagged(flags: int) -> bytes:
    return zip_of([PICKLE, Part("archive/data/0", FLOATS, flags=flags)])


CASES: dict[str, tuple[bytes, type[FormatError], list[str]]] = {
    # row 3: sizes of storages
    "storage_too_long": (
        torch_file(pickle_of({"w": tensor(stored=storage(numel=7))})), FormatError, ["`w`", "7 elements", "28 bytes", "24 bytes"],
    ),
    "storage_too_short": (torch_file(pickle_of({"w": tensor(stored=storage(numel=5))})), FormatError, ["`w`", "5 elements"]),
    "two_lengths": (
        torch_file(pickle_of({"a": tensor(), "b": tensor(stored=storage(numel=7))})), FormatError, ["'0'", "two lengths"],
    ),
    "two_types": (
        torch_file(pickle_of({"a": tensor(), "b": tensor(stored=storage(kind="IntStorage"))})), FormatError, ["two types"],
    ),
    "negative_numel": (torch_file(pickle_of({"w": tensor(stored=storage(numel=-6))})), FormatError, ["number of elements"]),
    "no_storage_class": (
        torch_file(pickle_of({"w": tensor(stored=b"(" + text("storage") + name("collections", "OrderedDict") + text("0")
                                          + text("cpu") + b"K\6tQ")})),
        FormatError, ["no storage"],
    ),
    # rows 17, 18: views
    "outside": (view((2, 3), (3, 1), 1), FormatError, ["`layer.w`", "number 6", "6 elements"]),
    "far_outside": (view((2, 2), (1 << 62, 1)), FormatError, ["`layer.w`", "6 elements"]),
    "offset_overflow": (view((1,), (1,), (1 << 63) - 1), FormatError, ["`layer.w`", "6 elements"]),
    "offset_beyond": (view((1,), (1,), 1 << 63), FormatError, ["`layer.w`", "offset"]),
    "negative_stride": (view((2, 3), (-3, 1), 5), FormatError, ["`layer.w`", "strides"]),
    "negative_offset": (view((2, 3), (3, 1), -1), FormatError, ["`layer.w`", "offset"]),
    "negative_size": (view((-2, 3), (3, 1)), FormatError, ["`layer.w`", "shape"]),
    "too_many_strides": (view((6,), (1, 1)), FormatError, ["`layer.w`", "strides"]),
    "too_many_dims": (view((1,) * 65, (1,) * 65), FormatError, ["`layer.w`", "shape"]),
    "overflow": (view((1 << 40, 1 << 40), (0, 0)), UnsafeError, ["`layer.w`", "24 bytes"]),
    "expand_bomb": (view((1 << 20, 1 << 20), (0, 0)), UnsafeError, ["`layer.w`", "24 bytes", "4,398,046,511,104 bytes"]),
    "bool_shape": (
        torch_file(pickle_of({"w": name("torch._utils", "_rebuild_tensor_v2") + b"(" + storage() + b"K\0\x88\x85\x88\x85\x89"
                              + HOOKS + b"tR"})),
        FormatError, ["`w`", "shape"],
    ),
    # row 19: many names for one storage
    "aliases": (
        torch_file(b"\x80\x02}" + text("a") + tensor((1 << 20,), (1,), stored=storage(numel=1 << 20)) + b"q\x01s"
                   + b"".join(text(str(k)) + b"h\x01s" for k in range(10_000)) + b".", {"0": bytes(4 << 20)}),
        UnsafeError, ["expand"],
    ),
    "aliases_of_a_packed_storage": (
        zip_of([
            Part("archive/data.pkl", b"\x80\x02}" + text("a") + tensor((1 << 20,), (1,), stored=storage(numel=1 << 20)) + b"q\x01s"
                 + b"".join(text(str(k)) + b"h\x01s" for k in range(10_000)) + b"."),
            Part("archive/data/0", bytes(4 << 20), deflated=True),
        ]),
        UnsafeError, ["expand", "41,947,"],
    ),
    # row 20: keys
    "traversal": (torch_file(pickle_of({"w": tensor(stored=storage("../../etc/passwd"))})), FormatError, ["`w`", "no storage"]),
    "other_member": (torch_file(pickle_of({"w": tensor(stored=storage("../version"))})), FormatError, ["no storage"]),
    "absolute": (torch_file(pickle_of({"w": tensor(stored=storage("/etc/passwd"))})), FormatError, ["no storage"]),
    "missing": (torch_file(pickle_of({"w": tensor(stored=storage("1"))})), FormatError, ["`w`", "'1'"]),
    # row 21: a pickle whose CRC is wrong is another pickle
    "pickle_crc": (zip_of([Part("archive/data.pkl", GOOD, crc=1), DATA]), FormatError, ["data.pkl", "CRC"]),
    # row 22: flags and names
    **{f"flags_{flags:x}": (flagged(flags), FormatError, ["archive/data/0", f"{flags:#x}"]) for flags in (1, 0x20, 0x40, 0x2000)},
    "local_flags": (zip_of([PICKLE, Part("archive/data/0", FLOATS, local_flags=1)]), FormatError, ["archive/data/0"]),
    "local_name": (
        zip_of([PICKLE, Part("archive/data/0", FLOATS, local_name="archive/data/1")]),
        FormatError, ["archive/data/0", "archive/data/1"],
    ),
    "local_nul": (
        zip_of([PICKLE, Part("archive/data/0", FLOATS, local_name="archive/data/0\0")]), FormatError, ["archive/data/0"],
    ),
    # row 23: duplicates and tops
    "duplicate": (zip_of([PICKLE, DATA, DATA]), FormatError, ["archive/data/0", "twice"]),
    "duplicate_pickle": (zip_of([PICKLE, PICKLE, DATA]), FormatError, ["archive/data.pkl", "twice"]),
    "case_variant": (zip_of([PICKLE, Part("archive/DATA.PKL", GOOD), DATA]), FormatError, ["DATA.PKL", "archive/data.pkl"]),
    "upper_case": (zip_of([Part("archive/DATA.PKL", GOOD), DATA]), FormatError, ["archive/data.pkl", "DATA.PKL"]),
    "two_tops": (zip_of([PICKLE, DATA, Part("other/data.pkl", GOOD)]), FormatError, ["2", "archive", "other"]),
    "no_top": (zip_of([Part("data.pkl", GOOD), Part("data/0", FLOATS)]), FormatError, ["one folder at its top"]),
    # row 24: overlaps
    "overlap": (zip_of([PICKLE, DATA, Part("archive/data/1", FLOATS, header_offset=0)]), FormatError, ["archive/data"]),
    "quoted_overlap": (
        zip_of([PICKLE, Part("archive/data/0", FLOATS, claimed_nbytes=48), Part("archive/data/1", FLOATS)]),
        FormatError, ["overlap"],
    ),
    "beyond": (zip_of([PICKLE, Part("archive/data/0", FLOATS, claimed_nbytes=1 << 20)]), FormatError, ["archive/data/0"]),
    # row 25: bombs
    "pickle_bomb": (
        zip_of([Part("archive/data.pkl", b"\x80\x02}" + b"N0" * (4 << 20) + b".", deflated=True), DATA]), FormatError, ["inflate"],
    ),
    "pickle_lie": (
        zip_of([Part("archive/data.pkl", GOOD, deflated=True, claimed_nbytes=len(GOOD) - 1), DATA]), FormatError, ["data.pkl"],
    ),
    "pickle_huge": (
        zip_of([Part("archive/data.pkl", GOOD, deflated=True, claimed_nbytes=0xFFFFFFF0), DATA]), FormatError, ["data.pkl"],
    ),
    "deflated_lie": (
        torch_file(pickle_of({"w": tensor((1 << 20,), (1,), stored=storage("1", 1 << 20))}),
                   {"0": b""}, Part("archive/data/1", FLOATS, deflated=True, claimed_nbytes=4 << 20)),
        FormatError, ["archive/data/1"],
    ),
    # row 26: bytes before, after and between
    "prefix": (torch_file(GOOD, prefix=b"#!/bin/sh\n"), FormatError, ["known format"]),
    "zip_prefix": (torch_file(GOOD, prefix=b"PK\3\4xxxx"), FormatError, ["8 bytes between"]),
    "suffix": (torch_file(GOOD, suffix=b"<script>"), FormatError, ["follow its end"]),
    "comment": (torch_file(GOOD, comment=b"x" * 100), FormatError, ["ends with its directory"]),
    "two_archives": (torch_file(GOOD) + torch_file(GOOD), FormatError, ["bytes were put"]),
    "two_ends": (torch_file(GOOD) + torch_file(GOOD)[-22:], FormatError, ["directory"]),
    # row 27: something else that begins like a zip
    "zip_magic": (b"PK\3\4" + b"\0" * 200, FormatError, ["zip"]),
    "zip_of_text": (zip_of([Part("readme.txt", b"hello")]), FormatError, ["not a checkpoint", "readme.txt"]),
    "pickle_ends": (torch_file(GOOD + b"cos\nsystem\n."), FormatError, ["follow the end of its pickle"]),
    # row 28: byte order
    "middle_endian": (torch_file(GOOD, None, Part("archive/byteorder", b"middle")), FormatError, ["byteorder", "middle"]),
    "no_byteorder": (torch_file(GOOD, None, Part("archive/byteorder", b"")), FormatError, ["byteorder"]),
    # tensors that are no plain tensors
    "conjugate": (
        torch_file(pickle_of({"c": tensor(metadata=b"}" + text("conj") + b"\x88s")})),
        FormatError, ["`c`", "conjugate", "resolve_conj"],
    ),
    "sparse": (
        torch_file(pickle_of({"s": name("torch._utils", "_rebuild_sparse_tensor") + b")R", "w": tensor()})),
        FormatError, ["`s`", "sparse"],
    ),
    "quantised": (
        torch_file(pickle_of({"w": tensor(stored=storage(kind="QInt8Storage"))}), {"0": FLOATS[:6]}),
        FormatError, ["`w`", "quantised"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_refused_by_name(tmp_path: Path, case: str) -> None:
    """Rows 3, 17–28: the error's class is exact, and its message names the culprit."""
    data, kind, parts = CASES[case]
    path = tmp_path / f"{case}.pt"
    path.write_bytes(data)
    with pytest.raises(kind) as caught:
        open_checkpoint(path)
    assert type(caught.value) is kind
    assert str(path) in str(caught.value)
    assert [part for part in parts if part not in str(caught.value)] == [], str(caught.value)


def test_the_helper_makes_honest_files(tmp_path: Path) -> None:
    """What the cases change is what they are refused for: the unchanged file reads."""
    path = tmp_path / "good.pt"
    path.write_bytes(torch_file(GOOD))
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.fetch("w", 0, (2, 3), (3, 1)).tobytes() == FLOATS
        assert checkpoint.manifest.notes == ()


def test_random_views_stay_inside_or_are_refused(tmp_path: Path) -> None:
    """Row 18: of random shapes, strides and offsets, exactly those inside the storage open."""
    rng = random.Random(4)
    path = tmp_path / "view.pt"
    for _ in range(300):
        rank = rng.randrange(4)
        shape = tuple(rng.choice([0, 1, 2, 3]) for _ in range(rank))
        strides = tuple(rng.choice([0, 1, 2, 3, -1, 1 << 40]) for _ in range(rank))
        offset = rng.choice([0, 1, 5, 6, -1, 1 << 62])
        last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        inside = 0 <= offset < 1 << 63 and min(strides, default=0) >= 0 and (0 in shape or last < 6)
        path.write_bytes(view(shape, strides, offset))
        if not inside:
            with pytest.raises(FormatError, match=r"layer\.w"):
                open_checkpoint(path)
            continue
        with open_checkpoint(path) as checkpoint:
            assert shape == checkpoint.manifest["layer.w"].shape


@pytest.mark.parametrize("into", ["out.safetensors", "out.pth"])
def test_tampered_storages_are_found_by_their_checksums(tmp_path: Path, into: str) -> None:
    """Row 21: torch loads such a file without a word; nothing made of it is verified, so none gets its name."""
    path, out = tmp_path / "tampered.pt", tmp_path / into
    path.write_bytes(torch_file(GOOD).replace(FLOATS, FLOATS[:-1] + b"\x41"))
    wrong = f"CRC-32 {zlib.crc32(FLOATS[:-1] + b'A'):08x}, not {zlib.crc32(FLOATS):08x}"
    message = rf"tampered.pt: damaged: the bytes of `w` are not those that were saved \(archive/data/0: {wrong}\)"
    with pytest.raises(FormatError, match=message):
        isomorph.convert(path, out)
    assert [found.name for found in tmp_path.iterdir()] == ["tampered.pt"]
    isomorph.convert(path, out, verify=False)
    with pytest.raises(FormatError, match=message):
        isomorph.verify(path, out)


def test_the_archives_of_the_oldest_torch_are_not_unpacked(tmp_path: Path) -> None:
    """Row 2: a tar of links in the place of the four files of torch before 0.2 is refused, whatever the file is called."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    path = tmp_path / "old.pt"
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
            for member in ("sys_info", "pickle", "storages", "tensors"):
                link = tarfile.TarInfo(member)
                link.type, link.linkname = kind, str(secret)
                archive.addfile(link)
        for named in (path, tmp_path / "old.safetensors"):
            named.write_bytes(path.read_bytes())
            with pytest.raises(
                FormatError,
                match=r"a tar archive that holds a (symbolic|hard) link \(sys_info\), which is not followed. Unpack it first",
            ):
                open_checkpoint(named)
    assert {"secret", "old.pt", "old.safetensors"} == {found.name for found in tmp_path.iterdir()}


MAGIC = 0x1950A86A20F9469CFC6C


@pytest.mark.parametrize(
    ("magic", "outcome"),
    [
        (b"\x80\x02\x8b\x0a\0\0\0" + MAGIC.to_bytes(10, "little") + b".", "torch_legacy"),
        (b"\x80\x02L%dL\n." % MAGIC, "torch_legacy"),
        (b"L%dL\n." % MAGIC, "not a checkpoint of a known format"),
        (b"\x80\x02" + name("builtins", "int") + text(str(MAGIC)) + b"\x85R.", "builtins.int"),
        (b"\x80\x02" + name("os", "getpid") + b")R.", "would call os.getpid"),
        (b"\x80\x02\x8a\x0a" + (MAGIC + 1).to_bytes(10, "little") + b".", "no tensors, but"),
    ],
)
def test_a_magic_number_that_is_written_otherwise_is_no_way_past(tmp_path: Path, magic: bytes, outcome: str) -> None:
    """Row 27: the number may be any pickle that makes it; its value counts, nothing is called for it, and what follows is read."""
    rest = b"\x80\x02M\xe9\x03." + b"\x80\x02}."
    evil = b"\x80\x02" + name("os", "system") + text("x") + b"\x85R."
    path = tmp_path / "bypass.pt"
    honest = pickle_of({"w": tensor(stored=storage()[:-2] + b"NtQ")}) + b"\x80\x02](" + text("0") + b"e."
    path.write_bytes(magic + rest + honest + struct.pack("<q", 6) + FLOATS)
    if outcome == "torch_legacy":
        with open_checkpoint(path) as checkpoint:
            assert checkpoint.format == outcome
        path.write_bytes(magic + rest + evil)
        outcome = "would call os.system"
    with pytest.raises(FormatError, match=re.escape(outcome)):
        open_checkpoint(path)


def test_a_file_without_checksums_says_so(tmp_path: Path) -> None:
    """Row 21: torch can write CRC 0 everywhere; that is read, and noted."""
    path = tmp_path / "zero.pt"
    path.write_bytes(zip_of([Part("archive/data.pkl", GOOD, crc=0), Part("archive/data/0", FLOATS, crc=0)]))
    with open_checkpoint(path) as checkpoint:
        (note,) = checkpoint.manifest.notes
    assert "without checksums" in note
    isomorph.convert(path, tmp_path / "out.pth")


def test_deflated_members_are_inflated(tmp_path: Path) -> None:
    """Row 25: an honest archive that was packed again reads, its pickle and its storages."""
    path = tmp_path / "packed.pt"
    data = struct.pack("<4096f", *range(4096))
    pickled = pickle_of({"w": tensor((64, 64), (1, 64), stored=storage(numel=4096))})
    path.write_bytes(
        zip_of([Part("archive/data.pkl", pickled, deflated=True), Part("archive/data/0", data, deflated=True)])
    )
    with open_checkpoint(path) as checkpoint:
        assert dict(checkpoint.manifest.encodings) == {"w": "deflate"}
        column = checkpoint.fetch("w", 0, (64,), (1,)).tobytes()
        assert struct.pack("<64f", *range(0, 4096, 64)) == column
    isomorph.convert(path, tmp_path / "out.pth")


def test_big_endian_files_are_swapped(tmp_path: Path) -> None:
    """Row 28: `byteorder` big is honoured for every element, in views too."""
    path = tmp_path / "big.pt"
    big = struct.pack(">6f", *range(6))
    path.write_bytes(
        torch_file(pickle_of({"w": tensor((3, 2), (1, 3))}), {"0": big}, Part("archive/byteorder", b"big"))
    )
    with open_checkpoint(path) as checkpoint:
        assert struct.pack("<6f", 0, 3, 1, 4, 2, 5) == checkpoint.fetch("w", 0, (3, 2), (2, 1)).tobytes()
        assert checkpoint.run("w") is None
        assert any("big-endian" in note for note in checkpoint.manifest.notes)


def test_repeating_views_of_honest_size_are_read(tmp_path: Path) -> None:
    """Row 17: `expand` is no attack as long as what it makes is small."""
    path = tmp_path / "expanded.pt"
    path.write_bytes(view((4, 6), (0, 1)))
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.fetch("layer.w", 0, (24,), (1,)).tobytes() == FLOATS * 4


def test_script_archives_give_their_weights_and_nothing_else(tmp_path: Path) -> None:
    """Row 2: the classes of a TorchScript archive are records; their names are those of its state dict; code is not read."""
    script = b"\x80\x02" + name("__torch__.net", "Net") + b")\x81}" + text("conv")
    script += (
        name("__torch__.torch.nn", "Conv")
        + b")\x81}"
        + text("weight")
        + tensor()
        + b"s"
        + text("padded")
        + b"\x89s"
        + text("training")
        + b"\x89sbsb."
    )
    path = tmp_path / "script.pt"
    path.write_bytes(
        torch_file(
            script,
            None,
            Part("archive/code/net.py", b"import os; os.system('x')"),
            Part("archive/constants.pkl", b"cos\n"),
        )
    )
    with open_checkpoint(path) as checkpoint:
        assert list(checkpoint.manifest) == ["conv.weight"]
        assert dict(checkpoint.manifest.leaves) == {"conv.padded": "False"}
        assert any("TorchScript" in note for note in checkpoint.manifest.notes)
    path.write_bytes(torch_file(script))
    with pytest.raises(UnsafeError, match=r"would build a __torch__\.net\.Net"):
        open_checkpoint(path)


def test_legacy_storages_that_lie_are_refused(tmp_path: Path) -> None:
    """Rows 3 and 13 in a legacy file: lengths that differ, keys that are missing or twice, a file that is cut."""
    magic = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
    head = magic + b"\x80\x02M\xe9\x03." + b"\x80\x02}" + text("little_endian") + b"\x88s."
    legacy_storage = storage()[:-2] + b"NtQ"
    body = head + pickle_of({"w": tensor(stored=legacy_storage)})
    keys = b"\x80\x02](" + text("0") + b"e."
    path = tmp_path / "legacy.pt"
    path.write_bytes(body + keys + struct.pack("<q", 6) + FLOATS)
    with open_checkpoint(path) as checkpoint:
        assert (checkpoint.format, checkpoint.fetch("w", 0, (6,), (1,)).tobytes()) == ("torch_legacy", FLOATS)
    lies = {
        "its pickle says 6": keys + struct.pack("<q", 7) + FLOATS,
        "has -6 elements": keys + struct.pack("<q", -6) + FLOATS,
        "truncated": keys + struct.pack("<q", 6) + FLOATS[:-1],
        "does not hold it": b"\x80\x02]." + struct.pack("<q", 6) + FLOATS,
        "names one twice": b"\x80\x02](" + text("0") * 2 + b"e." + struct.pack("<q", 6) + FLOATS,
        "nothing says of what type": b"\x80\x02]("
        + text("0")
        + text("1")
        + b"e."
        + struct.pack("<q", 6)
        + FLOATS
        + bytes(8),
        "not a list of names": b"\x80\x02](K\1e." + struct.pack("<q", 6) + FLOATS,
    }
    for message, tail in lies.items():
        path.write_bytes(body + tail)
        with pytest.raises(FormatError, match=message):
            open_checkpoint(path)
    path.write_bytes(head + b"\x80\x02" + name("os", "system") + text("x") + b"\x85R." + keys)
    with pytest.raises(UnsafeError, match=r"would call os\.system \(object, byte \d+\)"):
        open_checkpoint(path)


def test_legacy_views_of_a_storage_are_bounded(tmp_path: Path) -> None:
    """Very old files name a part of a storage (key, offset, length); it must lie inside."""
    magic = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
    head = magic + b"\x80\x02M\xe9\x03." + b"\x80\x02}."
    keys = b"\x80\x02](" + text("0") + b"e."
    path = tmp_path / "view.pt"
    for offset, fits in ((2, True), (4, False)):
        part = storage()[:-2] + b"(" + text("1") + b"K" + bytes([offset]) + b"K\3ttQ"
        path.write_bytes(
            head + pickle_of({"w": tensor((3,), (1,), stored=part)}) + keys + struct.pack("<q", 6) + FLOATS
        )
        if fits:
            with open_checkpoint(path) as checkpoint:
                assert FLOATS[8:20] == checkpoint.fetch("w", 0, (3,), (1,)).tobytes()
        else:
            with pytest.raises(FormatError, match="`w`: its view of storage"):
                open_checkpoint(path)
