"""Every hostile sample through the command line: one message that names the file, exit code 2, and nothing written."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from onnx import TensorProto, helper
from test_gguf_hostile import HOSTILE as GGUF
from test_pickles import GADGETS, RAW, calling
from test_torch_zips import CASES
from test_zip import REFUSED
from torch_files import FLOATS, pickle_of, storage, tensor, torch_file

from isomorph.cli.app import run
from isomorph.engine import places


def safetensors(header: object, data: bytes = b"") -> bytes:
    raw = json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + data


def hdf5(make: Callable[[Any], None]) -> bytes:
    raw = io.BytesIO()
    with h5py.File(raw, "w") as file:
        make(file)
    return raw.getvalue()


def set_item(name: str, value: Any) -> Callable[[Any], None]:
    return lambda file: file.__setitem__(name, value)


def onnx(**fields: Any) -> bytes:
    """A model of one initialiser f32[4], `fields` of which are set; `external` are the entries of its external data."""
    made = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=fields.pop("dims", [4]))
    external = fields.pop("external", None)
    if external is not None:
        made.data_location = TensorProto.EXTERNAL
        for key, value in external.items():
            made.external_data.add(key=key, value=str(value))
    for key, value in fields.items():
        setattr(made, key, value)
    graph = helper.make_graph([], "g", [], [], [made])
    return helper.make_model(graph).SerializeToString()


HONEST = hdf5(set_item("a/w", np.arange(5.0)))
PLACE = HONEST.index(np.arange(5.0).tobytes())
ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
SAMPLES: dict[str, dict[str, bytes]] = {
    "torch zips": {f"{case}.pt": data for case, (data, _, _) in CASES.items()},
    "pickles": {f"{case}.pdparams": data for case, (data, _, _) in RAW.items()},
    "calls": {
        f"{module}.{attribute}.bin": torch_file(calling(module, attribute, "REDUCE")[0]) for module, attribute in GADGETS
    },
    "zips": {f"{number}.npz": bytes(make()) for number, (make, _) in enumerate(REFUSED.values())},
    "safetensors": {
        "length.safetensors": (1 << 63).to_bytes(8, "little") + b"{}",
        "hole.safetensors": safetensors({"a": {**ENTRY, "data_offsets": [4, 12]}}, bytes(12)),
        "overlap.safetensors": safetensors({"a": ENTRY, "b": {**ENTRY, "data_offsets": [4, 12]}}, bytes(12)),
        "trailing.safetensors": safetensors({"a": ENTRY}, bytes(9)),
        "wrapping.safetensors": safetensors({"a": {**ENTRY, "shape": [1 << 62, 1 << 62]}}, bytes(8)),
        "minus.safetensors": safetensors({"a": {**ENTRY, "shape": [-2]}}, bytes(8)),
        "deep.safetensors": (200_001).to_bytes(8, "little") + b"{" + b"[" * 200_000,
    },
    "msgpack": {
        "length.msgpack": b"\x81\xa1w\xc9\xff\xff\xff\xff\x01\x93\x91\x02",
        "shape.msgpack": b"\x81\xa1w\xc7\x15\x01\x93\x91\xcf\x40\0\0\0\0\0\0\0\xa7float32\xc4\x00",
        "twice.msgpack": b"\x82\xa1w\x01\xa1w\x02",
        "entries.msgpack": b"\xdf\xff\xff\xff\xff\xa1w\x01",
        "deep.msgpack": b"\x81\xa1w" * 200_000 + b"\x01",
    },
    "hdf5": {
        "external.h5": hdf5(set_item("w", h5py.ExternalLink("/etc/passwd", "/w"))),
        "elsewhere.h5": hdf5(lambda file: file.create_dataset("w", (8,), "u1", external=[("/etc/passwd", 0, 8)])),
        "circle.h5": hdf5(lambda file: file.create_group("a").__setitem__("b", file["/"])),
        "cut.h5": HONEST[:-1],
        "names.h5": HONEST.replace(b"HEAP", b"HEAD"),
        "far.h5": HONEST.replace(PLACE.to_bytes(8, "little"), (1 << 60).to_bytes(8, "little")),
    },
    "gguf": {f"{number}.gguf": data for number, (data, _) in enumerate(GGUF.values())},
    "onnx": {
        "outside.onnx": onnx(external={"location": "../x.bin"}),
        "absolute.onnx": onnx(external={"location": "/etc/passwd"}),
        "backslash.onnx": onnx(external={"location": "..\\x.bin"}),
        "itself.onnx": onnx(external={"location": "itself.onnx", "offset": 1 << 40, "length": 16}),
        "minus.onnx": onnx(external={"location": "minus.onnx", "offset": -4, "length": 16}),
        "missing.onnx": onnx(external={"location": "no.bin"}),
        "short.onnx": onnx(raw_data=bytes(15)),
        "large.onnx": onnx(raw_data=bytes(16), dims=[1 << 40, 1 << 40]),
        "negative.onnx": onnx(raw_data=bytes(16), dims=[-4]),
        "unknown.onnx": onnx(raw_data=bytes(16), data_type=99),
    },
    "indexes": {
        "outside.index.json": b'{"weight_map": {"a": "../x.safetensors"}}',
        "absolute.index.json": b'{"weight_map": {"a": "/etc/passwd"}}',
        "backslash.index.json": b'{"weight_map": {"a": "..\\\\x.safetensors"}}',
        "missing.index.json": b'{"weight_map": {"a": "no.safetensors"}}',
        "twice.index.json": b'{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}}',
        "deep.index.json": b'{"weight_map": ' + b"[" * 100_000,
    },
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("kind", SAMPLES)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth", "/"])
def test_refused_in_one_message_and_nothing_is_written(
    folder: Path, capsys: pytest.CaptureFixture[str], kind: str, suffix: str
) -> None:
    for file, data in SAMPLES[kind].items():
        path = folder / file
        path.write_bytes(data)
        code = run(["convert", file, "out" + suffix])
        said = capsys.readouterr()
        assert (code, said.out) == (2, ""), (file, said)
        assert file in said.err, said.err
        assert "internal error" not in said.err and "Traceback" not in said.err, said.err
        assert said.err.count("\n") == 1 and len(said.err) < 3000, said.err
        assert {file} == names(folder)
        path.unlink()


@pytest.mark.parametrize("command", [["inspect"], ["plan"], ["show", "w"], ["diff"], ["verify"]])
def test_no_command_opens_what_another_refuses(
    folder: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    """A pickle that calls os.system, before or after an honest file."""
    (folder / "evil.pt").write_bytes(torch_file(calling("os", "system", "REDUCE")[0]))
    np.savez("good.npz", w=np.zeros(2, "f4"))
    lines = [["evil.pt", "good.npz"], ["good.npz", "evil.pt"]] if command[0] in ("diff", "verify") else [["evil.pt"]]
    for files in lines:
        assert run([command[0], *files, *command[1:]]) == 2
        said = capsys.readouterr()
        assert "evil.pt: its pickle would call os.system (archive/data.pkl, byte" in said.err
        assert "Nothing was executed and nothing written" in said.err
    assert {"evil.pt", "good.npz"} == names(folder)


def test_a_sparse_file_is_not_written_out_where_there_is_no_room(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """1 TiB of holes takes no room until it is copied: what the copy needs is compared with what is free."""

    class Free:
        f_bavail, f_frsize = 1 << 20, 4096

    monkeypatch.setattr(places.os, "statvfs", lambda path: Free)
    nbytes = 1 << 40
    header = safetensors({"a": {"dtype": "F32", "shape": [nbytes >> 2], "data_offsets": [0, nbytes]}})
    with (folder / "holes.safetensors").open("wb") as file:
        file.write(header)
        file.truncate(len(header) + nbytes)
    for target in ("out.safetensors", "out.pth", "out/"):
        assert run(["convert", "holes.safetensors", target]) == 2
        assert "needs 1.1 TB, and 4.29 GB are free in" in capsys.readouterr().err
        assert {"holes.safetensors"} == names(folder)


def test_a_packed_tensor_is_not_unpacked_where_there_is_no_room(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What deflate makes of a few bytes goes to a temporary file: its size is known, and looked at, before the first byte."""
    from isomorph.formats import decode

    class Free:
        f_bavail, f_frsize = 10, 4096

    def never(*given: object) -> int:
        raise AssertionError("written all the same")

    np.savez_compressed("bomb.npz", w=np.zeros(1 << 20, "f4"))
    monkeypatch.setattr(decode.os, "fstatvfs", lambda descriptor: Free)
    monkeypatch.setattr(decode.os, "pwrite", never)
    assert run(["convert", "bomb.npz", "out.safetensors"]) == 2
    assert "is full: 4,194,432 bytes are needed there to decode a compressed tensor" in capsys.readouterr().err
    assert {"bomb.npz"} == names(folder)


@pytest.mark.parametrize("suffix", [".safetensors", "/"])
def test_a_link_in_the_place_of_a_target_is_not_written_through(
    folder: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    """Refused without --overwrite, even when it leads nowhere; with it, the link is replaced and what it leads to stays."""
    (folder / "in.pt").write_bytes(torch_file(pickle_of({"w": tensor(stored=storage())}), {"0": FLOATS}))
    (folder / "precious").write_bytes(b"precious")
    place = folder / "out.safetensors"
    if suffix == "/":
        (folder / "out").mkdir()
        place = folder / "out/model.safetensors"
    target = "out" + suffix
    place.symlink_to(folder / "nowhere")
    assert run(["convert", "in.pt", target]) == 2
    assert "not touched. Use --overwrite" in capsys.readouterr().err
    assert not (folder / "nowhere").exists()
    place.unlink()
    place.symlink_to(folder / "precious")
    assert run(["convert", "in.pt", target]) == 2
    assert place.is_symlink()
    assert run(["convert", "in.pt", target, "--overwrite", "-q"]) == 0
    assert not place.is_symlink()
    assert (folder / "precious").read_bytes() == b"precious"
