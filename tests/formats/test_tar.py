"""Tars: the archives of torch before 0.2 against torch.load itself, one checkpoint packed for transport, and tars that lie."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from isomorph.cli.app import run
from isomorph.errors import FormatError, UnsafeError
from isomorph.formats import tar as tars
from isomorph.formats.registry import open_checkpoint
from isomorph.formats.torch import tar as torch_tar
from isomorph.testing.formats import ReadingConformance, tensors_of, whole, write_checkpoint

CLASSES = {
    "f4": "Float", "f8": "Double", "f2": "Half", "i8": "Long", "i4": "Int", "i2": "Short", "i1": "Char", "u1": "Byte",
}  # fmt: skip


class Held:
    """Stands for a tensor or a storage in the pickle of the object, by its number."""

    def __init__(self, number: int) -> None:
        self.number = number


class Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> str | None:
        return str(obj.number) if isinstance(obj, Held) else None


def pickled(value: Any) -> bytes:
    made = io.BytesIO()
    Pickler(made, 2).dump(value)
    return made.getvalue()


def record(number: int, text: str | int, name: str) -> bytes:
    """A pickled (number, text or number, torch.NAME)."""
    second = (
        pickle.dumps(text, 2)[2:-1] if isinstance(text, int) else b"X" + struct.pack("<I", len(text)) + text.encode()
    )
    return b"\x80\x02(" + pickle.dumps(number, 2)[2:-1] + second + f"ctorch\n{name}\nt.".encode()


def storage(number: int, array: Any, numel: int | None = None) -> bytes:
    said = array.size if numel is None else numel
    return record(number, "cpu", CLASSES[array.dtype.str[1:]] + "Storage") + struct.pack("<q", said) + array.tobytes()


def tensor(
    number: int, of: int, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0, kind: str = "Float"
) -> bytes:
    head = record(number, of, f"{kind}Tensor") + struct.pack("<ii", len(shape), 0)
    return head + struct.pack(f"<{2 * len(shape)}q", *shape, *strides) + struct.pack("<q", offset)


def old_torch(
    storages: list[bytes],
    tensors: list[bytes],
    state: Any,
    views: list[Any] | None = None,
    **info: Any,
) -> dict[str, bytes]:
    """The four members, in the order in which torch 0.1 wrote them."""
    said = {"protocol_version": 1000, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 8}, **info}
    return {
        "sys_info": pickled(said),
        "pickle": pickled(state),
        "storages": pickled(len(storages)) + b"".join(storages) + pickled(views or []),
        "tensors": pickled(len(tensors)) + b"".join(tensors),
    }


def packed(path: Path, members: Mapping[str, bytes], format: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=format) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(np.prod(shape[axis + 1 :], dtype=int)) for axis in range(len(shape)))


def archive_of(arrays: Mapping[str, Any]) -> dict[str, bytes]:
    storages, tensors, state = [], [], OrderedDict()
    for number, (name, array) in enumerate(arrays.items(), 1):
        storages.append(storage(2 * number, array.reshape(-1)))
        kind = CLASSES[array.dtype.str[1:]]
        tensors.append(tensor(2 * number + 1, 2 * number, array.shape, row_major(array.shape), kind=kind))
        state[name] = Held(2 * number + 1)
    return old_torch(storages, tensors, state)


def loaded(path: Path) -> Any:
    """What torch itself reads: the oracle (it is told to trust the file, which these tests made)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(path, weights_only=False)


class TestTorchTar(ReadingConformance):
    format = "torch_tar"
    file_name = "model.pt"
    tries = 300

    def oracle_arrays(self) -> dict[str, Any]:
        return {name: array for name, array in super().oracle_arrays().items() if name != "flags"}

    def save_with_oracle(self, path: Path, arrays: Mapping[str, Any]) -> None:
        """No library writes these any more; torch reads the same from what is written here."""
        packed(path, archive_of(arrays))
        found = loaded(path)
        assert {name: array.tobytes() for name, array in arrays.items()} == {
            name: np.ascontiguousarray(one.numpy()).tobytes() for name, one in found.items()
        }

    def cuts(self, nbytes: int) -> Any:
        """All but those within the zeros at the end of the archive."""
        yield from (length for length in super().cuts(nbytes) if length < nbytes - 10_000)


def test_views_strides_and_shared_storages(tmp_path: Path) -> None:
    """A transposed tensor, one that begins amid its storage, a view of a storage, a name twice: as torch reads them."""
    numbers = np.arange(24, dtype="f4")
    members = old_torch(
        [storage(10, numbers), storage(12, np.arange(4, dtype="i8"))],
        [
            tensor(1, 10, (6, 4), (1, 6)),
            tensor(2, 10, (2, 3), (3, 1), 5),
            tensor(3, 11, (2, 2), (2, 1), 1),
            tensor(4, 12, (4,), (1,), kind="Long"),
        ],
        {"state": OrderedDict(t=Held(1), part=Held(2), view=Held(3), again=Held(1)), "epoch": 3, "more": [Held(4)]},
        [(11, 10, 8, 8)],
    )
    path = packed(tmp_path / "m.pt", members)
    theirs = loaded(path)
    expected = {**{f"state/{name}": one for name, one in theirs["state"].items()}, "more/0": theirs["more"][0]}
    with open_checkpoint(path, inner="") as opened:
        assert {name: whole(opened, name).tobytes() for name in opened.manifest} == {
            name: one.contiguous().numpy().tobytes() for name, one in expected.items()
        }
        assert opened.manifest["state/t"].shape == (6, 4)
        assert ("state/t", "state/again") in opened.manifest.shared
        assert opened.manifest.leaves["epoch"] == "3"
        assert "an archive of torch before 0.2" in opened.manifest.notes
    assert run(["convert", str(path), str(tmp_path / "m.safetensors"), "-q"]) == 0


GOOD = archive_of({"w": np.arange(6, dtype="f4").reshape(2, 3)})
SMALL = np.arange(6, dtype="f4")
LIES: dict[str, tuple[dict[str, bytes], str]] = {
    "another protocol": ({**GOOD, "sys_info": pickled({"protocol_version": 1001})}, "of another protocol"),
    "a big-endian machine": (old_torch([], [], {}, little_endian=False), "from a big-endian machine"),
    "a billion storages": ({**GOOD, "storages": pickled(10**9)}, "its storages claims 1000000000 records; 0 to 100,000"),
    "a storage longer than the member": (old_torch([storage(2, SMALL, 7000)], [], {}), "storage 2 claims 7,000 elements"),
    "a storage of less than nothing": (old_torch([storage(2, SMALL, -1)], [], {}), "storage 2 claims -1 elements"),
    "a storage twice": (old_torch([storage(2, SMALL)] * 2, [], {}), "have two storages of number 2"),
    "a storage of a class that is none": (
        {**GOOD, "storages": pickled(1) + record(2, "cpu", "FloatTensor")}, "do not say what their storages are",
    ),
    "a view beyond its storage": (old_torch([storage(2, SMALL)], [], {}, [(3, 2, 5, 2)]), "a view 3 that goes beyond"),
    "a view of nothing": (old_torch([storage(2, SMALL)], [], {}, [(3, 9, 0, 1)]), "of a storage 9 that is not there"),
    "views that are no list": ({**GOOD, "storages": pickled(0) + pickled({})}, "do not end in a list of views"),
    "a tensor of no storage": (old_torch([], [tensor(1, 2, (1,), (1,))], {}), "name a storage that is not there"),
    "a tensor of a thousand dims": (
        old_torch([storage(2, SMALL)], [record(1, 2, "FloatTensor") + struct.pack("<ii", 1000, 0)], {}), "one of 1,000 dims",
    ),
    "a tensor that leaves its storage": (
        old_torch([storage(2, SMALL)], [tensor(1, 2, (7,), (1,))], {"w": Held(1)}), "its last element is number 6",
    ),
    "a tensor that repeats its storage": (
        old_torch([storage(2, SMALL)], [tensor(1, 2, (2**40, 6), (0, 1))], {"w": Held(1)}), "That is a trap, not a checkpoint",
    ),
    "a tensor that is not held": (old_torch([], [], {"w": Held(5)}), "tensor number 5, which the archive does not hold"),
    "a call": ({**GOOD, "pickle": b"\x80\x02cos\nsystem\nX\4\0\0\0true\x85R."}, "its pickle would call os.system"),
    "a whole module": (
        {**GOOD, "pickle": b"\x80\x02(cposix\nsystem\nX\1\0\0\0aX\1\0\0\0btQ."}, "would build a posix.system",
    ),
    "a call where a count belongs": (
        {**GOOD, "storages": b"\x80\x02cos\nsystem\nX\4\0\0\0true\x85R."}, "its pickle would call os.system",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", LIES)
def test_an_archive_of_old_torch_that_lies_is_refused(tmp_path: Path, what: str) -> None:
    """Every number is held against the bytes that are there, and nothing that the pickles name is called."""
    members, said = LIES[what]
    path = packed(tmp_path / "m.pt", members)
    with pytest.raises(FormatError) as caught:
        open_checkpoint(path)
    assert said in str(caught.value) and str(path) in str(caught.value)


# ── one checkpoint in a tar ──────────────────────────────────────────────────────────────────────────────────────────

ARRAYS: dict[str, Any] = {"a.weight": np.arange(12, dtype="f4").reshape(3, 4), "b": np.arange(5)}


def with_torch(path: Path) -> None:
    torch.save({name: torch.from_numpy(array) for name, array in ARRAYS.items()}, path)


def with_us(path: Path) -> None:
    write_checkpoint(path, tensors_of(ARRAYS))


WRITERS: dict[str, Callable[[Path], None]] = {
    "m.safetensors": lambda path: save_file(ARRAYS, path),
    "m.pth": with_torch,
    "old.bin": lambda path: torch.save(
        {name: torch.from_numpy(array) for name, array in ARRAYS.items()}, path, _use_new_zipfile_serialization=False
    ),
    "m.npz": lambda path: np.savez(path, **ARRAYS),
    "packed.npz": lambda path: np.savez_compressed(path, **ARRAYS),
    "m.pdparams": with_us,
    "m.msgpack": with_us,
    "m.gguf": with_us,
    "m.h5": with_us,
}


@pytest.mark.parametrize(
    "format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT], ids=["pax", "gnu", "ustar"]
)
@pytest.mark.parametrize("name", WRITERS)
def test_one_checkpoint_in_a_tar_is_read_where_it_lies(tmp_path: Path, name: str, format: int) -> None:
    """Beside a config, in a folder with a long name; and the conversion verifies."""
    inside = tmp_path / name
    WRITERS[name](inside)
    long = f"{'folder/' * 12}{'é' * 20}/{name}"
    path = packed(
        tmp_path / "m.tar", {"./config.json": b"{}", long: inside.read_bytes(), "training_args.bin": b"x"}, format
    )
    with open_checkpoint(path) as opened:
        assert {one: whole(opened, one).tobytes() for one in opened.manifest} == {
            one: a.tobytes() for one, a in ARRAYS.items()
        }
        assert any(f"read inside of a tar archive, where it is {long[:40]}" in note for note in opened.manifest.notes)
    assert run(["convert", str(path), str(tmp_path / "out.safetensors"), "-q"]) == 0


def test_a_damaged_zip_in_a_tar_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The checksums of a torch file hold inside of a tar as well."""
    with_torch(tmp_path / "m.pth")
    raw = bytearray((tmp_path / "m.pth").read_bytes())
    at = raw.find(ARRAYS["a.weight"].tobytes())
    raw[at + 5] ^= 1
    packed(tmp_path / "m.tar", {"m.pth": bytes(raw)})
    assert run(["convert", str(tmp_path / "m.tar"), str(tmp_path / "o.safetensors")]) == 2
    assert "the bytes of `a.weight` are not those that were saved" in capsys.readouterr().err


def test_compressed_datasets_in_a_tar_are_refused(tmp_path: Path) -> None:
    """HDF5's own library reads them, from a file of their own."""
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.create_dataset("w", data=np.zeros((64, 64), "f4"), compression="gzip")
    with pytest.raises(
        FormatError, match=r"its member m\.h5: its datasets are compressed, and are not read inside of a tar"
    ):
        open_checkpoint(packed(tmp_path / "m.tar", {"m.h5": (tmp_path / "m.h5").read_bytes()}))


def test_tars_of_several_or_no_weights_list_them(tmp_path: Path) -> None:
    """Which file is meant is for the user to say."""
    one = io.BytesIO()
    np.savez(one, w=np.zeros(3))
    cases: list[tuple[dict[str, bytes], str]] = [
        (
            {"a.npz": one.getvalue(), "b/c.safetensors": b"x"},
            "with 2 files of weights (a.npz, b/c.safetensors); one is read where",
        ),
        ({"readme": b"x"}, "with no file of weights (it holds readme)"),
        ({"a.npz": b""}, "its member a.npz is empty"),
        ({"a.npz": b"hello, world"}, "its member a.npz: not a checkpoint of a known format"),
        (
            {"m.bin": packed(tmp_path / "inner", {"a.npz": one.getvalue()}).read_bytes()},
            "its member m.bin: an archive, or a list",
        ),
    ]
    for members, said in cases:
        with pytest.raises(FormatError) as caught:
            open_checkpoint(packed(tmp_path / "m.tar", members))
        assert said in str(caught.value), caught.value


# ── tars that lie ────────────────────────────────────────────────────────────────────────────────────────────────────


def with_member(path: Path, kind: bytes, name: str = "m.pt", link: str = "/etc/passwd") -> Path:
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, link
        archive.addfile(info)
    return path


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (tarfile.SYMTYPE, "a symbolic link (m.pt)"), (tarfile.LNKTYPE, "a hard link (m.pt)"), (tarfile.CHRTYPE, "a device"),
        (tarfile.BLKTYPE, "a device"), (tarfile.FIFOTYPE, "a named pipe"), (b"S", "a sparse file"), (b"Z", "of kind b'Z'"),
    ],
)  # fmt: skip
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes, said: str) -> None:
    """What would lead elsewhere when it is unpacked is named, and nothing is unpacked here."""
    with pytest.raises(UnsafeError) as caught:
        open_checkpoint(with_member(tmp_path / "m.tar", kind))
    assert said in str(caught.value) and "which is not followed" in str(caught.value)


def header(name: bytes = b"m.npz", size: bytes = b"0", kind: bytes = b"0") -> bytes:
    head = bytearray(512)
    head[: len(name)], head[124 : 124 + len(size)], head[156:157], head[257:265] = name, size, kind, b"ustar\x0000"
    head[148:156] = b"%06o\0 " % tars._checksum(bytes(head))
    return bytes(head)


def pax(text: bytes) -> bytes:
    return header(b"x", b"%o" % len(text), b"x") + text + bytes(-len(text) % 512)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (header(size=b"77777777777"), "truncated: a member of its tar takes bytes 512 to 8,589,935,103"),
        (header(size=b"\x80" + b"\xff" * 11), "truncated: a member of its tar takes bytes"),
        (header(size=b"-1"), "the header at byte 0 has no size"),
        (header(size=b"9"), "the header at byte 0 has no size"),
        (header() + b"x" * 512, "the header at byte 512 has another checksum than it says"),
        (header() + header(), "two members called m.npz"),
        (header(b"L", b"%o" % (2 << 20), b"L") + bytes(2 << 20), "with a name of 2,097,152 bytes"),
        (pax(b"99 path=x\n") + header(), "its pax records cannot be read"),
        (pax(b"nonsense") + header(), "its pax records cannot be read"),
        (pax(b"11 size=-1\n") + header(), "a member of -1 bytes"),
        (pax(b"19 size=9999999999\n") + header(), "truncated: a member of its tar takes bytes"),
    ],
)
def test_a_tar_that_lies_is_refused(tmp_path: Path, raw: bytes, said: str) -> None:
    """Sizes, checksums and names are held against the file."""
    path = tmp_path / "m.tar"
    path.write_bytes(raw + bytes(1024))
    with pytest.raises(FormatError) as caught:
        open_checkpoint(path)
    assert said in str(caught.value), caught.value


def test_very_many_members_and_records_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound on members, and one on the pickles of the oldest torch."""
    monkeypatch.setattr(tars, "MOST_MEMBERS", 10)
    with pytest.raises(FormatError, match="of more than 10 files"):
        open_checkpoint(packed(tmp_path / "m.tar", {str(number): b"" for number in range(11)}))
    monkeypatch.setattr(torch_tar, "MOST_RECORDS", 3)
    with pytest.raises(FormatError, match="its tensors claims 4 records; 0 to 3 are read"):
        members = old_torch([storage(9, SMALL)], [tensor(number, 9, (1,), (1,)) for number in range(4)], {})
        open_checkpoint(packed(tmp_path / "m.pt", members))
