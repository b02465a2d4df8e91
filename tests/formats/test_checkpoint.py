"""Opening: what a path may be, what the errors say; and a source that changes underneath."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import isomorph
from isomorph.describe.summary import Summary
from isomorph.errors import FormatError, RefusedError, SourceChanged, UnsafeError, UsageError
from isomorph.formats import decode
from isomorph.formats.base import Contents, Location
from isomorph.formats.checkpoint import FileCheckpoint
from isomorph.formats.joined import Joined
from isomorph.formats.memory import ArrayCheckpoint
from isomorph.formats.nested import enter
from isomorph.formats.registry import FORMATS, format_named, lay_out, open_checkpoint, split_inner, writable
from isomorph.formats.sniff import BY_SUFFIX
from isomorph.formats.source import Source
from isomorph.tensors import TensorSpec, dtype, spec
from isomorph.testing.formats import tensors_of, whole, write_checkpoint

ONE = tensors_of({"w": np.arange(6, dtype="f4").reshape(2, 3)})


def failure(path: Path | str) -> str:
    with pytest.raises(FormatError) as caught:
        open_checkpoint(path)
    return str(caught.value)


# What a path may be


def test_a_missing_file_offers_near_misses(tmp_path: Path) -> None:
    """The names in the folder that look most like it are offered."""
    write_checkpoint(tmp_path / "model.safetensors", ONE)
    path = tmp_path / "modle.safetensors"
    assert failure(path) == f"{path}: no such file. Did you mean model.safetensors?"
    assert failure(tmp_path / "other.npz") == f"{tmp_path}/other.npz: no such file"
    assert failure(tmp_path / "no/w.npz") == f"{tmp_path}/no/w.npz: no such file: there is no folder {tmp_path}/no"
    assert "is a file, not a folder" in failure(tmp_path / "model.safetensors" / "x")


def test_a_dangling_link_says_where_it_points(tmp_path: Path) -> None:
    """The link's target is what is missing."""
    (tmp_path / "m.bin").symlink_to("gone.bin")
    assert failure(tmp_path / "m.bin") == f"{tmp_path}/m.bin: a link to gone.bin, which does not exist"


def test_an_unreadable_file_is_one_error(tmp_path: Path) -> None:
    """Permission is named, and what to do about it."""
    path = tmp_path / "m.bin"
    path.write_bytes(b"secret")
    path.chmod(0)
    with as_nobody(tmp_path):
        assert failure(path) == f"{path}: may not be read (permission denied). Ask its owner, or: chmod +r {path}"
    (tmp_path / "closed").mkdir(mode=0)
    with as_nobody(tmp_path):
        assert "may not be read (permission denied)" in failure(tmp_path / "closed" / "m.bin#x")
        assert "the folder cannot be listed: Permission denied" in failure(tmp_path / "closed")


@contextlib.contextmanager
def as_nobody(folder: Path) -> Iterator[None]:
    """Root may read everything, so that it must become another; everybody else already is. `folder` stays within reach."""
    if os.geteuid() != 0:
        yield
        return
    modes = {parent: parent.stat().st_mode for parent in (folder, *folder.parents)}
    modes = {parent: mode for parent, mode in modes.items() if mode & 0o011 != 0o011}
    for parent in modes:
        parent.chmod(modes[parent] | 0o011)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        for parent, mode in modes.items():
            parent.chmod(mode)


def test_empty_files_pipes_and_devices_are_refused_at_once(tmp_path: Path) -> None:
    """Only regular files are read; a pipe does not block."""
    (tmp_path / "empty.bin").touch()
    os.mkfifo(tmp_path / "pipe.bin")
    assert "an empty file (0 bytes)" in failure(tmp_path / "empty.bin")
    assert "a named pipe, not a file of weights" in failure(tmp_path / "pipe.bin")
    assert "a device, not a file of weights" in failure("/dev/zero")
    with socket.socket(socket.AF_UNIX) as bound:
        here = Path.cwd()
        os.chdir(tmp_path)
        try:
            bound.bind("s.bin")
        finally:
            os.chdir(here)
        assert "socket" in failure(tmp_path / "s.bin")


CONTENT = {
    "a Git LFS pointer (134 bytes), not the weights. Fetch them: git lfs pull": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1710671599"
    ).ljust(134),
    "a web page (HTML or XML)": b"\n <!DOCTYPE html><html><body>404</body></html>",
    "a model's configuration, not an index of shards": b'{"architectures": ["CLIPModel"], "model_type": "clip"}',
    "a JSON file, not an index of shards": b'{"a": 1}',
    "a single numpy array (.npy)": b"\x93NUMPY\1\0",
    "a broken HDF5 file": b"\x89HDF\r\n\x1a\n" + bytes(100),
    "a GGUF file": b"GGUF\3\0\0\0",
    "compressed with gzip. Unpack it first: gunzip": b"\x1f\x8b\x08\0",
    "not a checkpoint of a known format (its first bytes are zeros only, as of a download that did not finish)": bytes(
        1000
    ),
    "not a checkpoint of a known format (its first bytes are 'hello \\x1b[31mworld'). Read are safetensors, torch": (
        b"hello \x1b[31mworld, this is a text"
    ),
    "compressed with lz4. Unpack it first: unlz4": b"\x04\x22M\x18" + bytes(20),
    "a file of ggml from before GGUF. Turn it into GGUF": b"tjgg\3\0\0\0" + bytes(20),
    "a TensorFlow Lite model, which is not read. Name": b"\x1c\0\0\0TFL3" + bytes(20),
    "an empty zip archive": b"PK\5\6" + bytes(18),
}


@pytest.mark.parametrize("expected", CONTENT)
@pytest.mark.parametrize("suffix", [".bin", ".npz"])
def test_what_is_no_checkpoint_is_named_by_its_content(expected: str, suffix: str, tmp_path: Path) -> None:
    """Content decides, and the message says what the file is instead."""
    (tmp_path / f"m{suffix}").write_bytes(CONTENT[expected])
    assert f"m{suffix}: {expected}" in failure(tmp_path / f"m{suffix}").replace("b'hello", "'hello")


@pytest.mark.parametrize("suffix", BY_SUFFIX)
def test_what_has_no_mark_of_its_own_is_named_by_its_suffix(suffix: str, tmp_path: Path) -> None:
    """Where the content says nothing; a checkpoint of that name is one all the same."""
    path = tmp_path / f"m{suffix}"
    path.write_bytes(bytes(16) + b"\4\0\0\0\x08\5\x10\6" + bytes(100))
    what, advice = BY_SUFFIX[suffix]
    assert f"{path}: {what}. {advice}" == failure(path)
    np.savez(tmp_path / "m.npz", w=np.ones(2))
    (tmp_path / "m.npz").rename(path)
    with open_checkpoint(path) as checkpoint:
        assert ["w"] == list(checkpoint.manifest)


def test_the_suffix_does_not_matter(tmp_path: Path) -> None:
    """A safetensors file called .bin is a safetensors file, and an .npz called .pth an .npz."""
    write_checkpoint(tmp_path / "m.bin", ONE, format="safetensors")
    write_checkpoint(tmp_path / "m.pth", ONE, format="npz")
    for name, kind in [("m.bin", "safetensors"), ("m.pth", "npz")]:
        with open_checkpoint(tmp_path / name) as checkpoint:
            assert checkpoint.format == kind


# Folders


def test_a_folder_holds_one_checkpoint(tmp_path: Path) -> None:
    """The file by which libraries know the weights is taken, and what else lies there is said."""
    write_checkpoint(tmp_path / "other.npz", ONE)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "training_args.bin").write_bytes(b"x")
    with open_checkpoint(tmp_path) as checkpoint:
        assert (checkpoint.format, checkpoint.manifest.notes) == ("npz", ())
    write_checkpoint(tmp_path / "model.safetensors", ONE)
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.format == "safetensors"
        assert checkpoint.manifest.notes == ("model.safetensors was taken from the folder; also there: other.npz",)


def test_a_folder_with_several_or_none_is_refused(tmp_path: Path) -> None:
    """No guess is made between equals."""
    assert "a folder without a checkpoint (it is empty)" in failure(tmp_path)
    (tmp_path / "readme.md").write_text("x")
    assert "a folder without a checkpoint (it holds readme.md)" in failure(tmp_path)
    write_checkpoint(tmp_path / "a.npz", ONE)
    write_checkpoint(tmp_path / "b.safetensors", ONE)
    assert "holds several checkpoints: a.npz, b.safetensors. Name the one that is meant" in failure(tmp_path)


def test_shards_without_their_index_say_so(tmp_path: Path) -> None:
    """One shard is never taken for the whole."""
    write_checkpoint(tmp_path / "model-00001-of-00002.safetensors", ONE)
    assert "but not their index model.safetensors.index.json" in failure(tmp_path)


# Nested


def nested(*tensors: str, containers: tuple[str, ...] = (), leaves: tuple[str, ...] = ()) -> Contents:
    return Contents(
        (Path("m.bin"),),
        {name: spec("f32[1]") for name in tensors},
        {name: Location(0, 0) for name in tensors},
        containers=containers,
        leaves=dict.fromkeys(leaves, "3"),
    )


def test_a_single_nested_state_dict_is_entered_and_said() -> None:
    """Where one container holds every tensor, names begin inside it."""
    found = enter(nested("sd/a.w", "sd/b", containers=("sd",), leaves=("epoch", "sd/n")), None)
    assert list(found.tensors) == ["a.w", "b"]
    assert found.leaves == {"epoch": "3", "n": "3"}
    assert found.notes == ("entered `sd`, which holds all tensors",)


def test_wrappers_of_a_state_dict_are_passed_through() -> None:
    """Containers that hold nothing but one container are entered, up to the first that holds tensors itself."""
    assert list(enter(nested("a/b/w", "a/b/v", containers=("a", "a/b")), None).tensors) == ["w", "v"]
    assert list(enter(nested("a/w", "a/b/v", containers=("a", "a/b")), None).tensors) == ["w", "b/v"]


def test_a_tree_of_modules_keeps_its_whole_names() -> None:
    """Where no container is a state dict that holds every tensor, nothing is entered unless asked for."""
    tree = nested("p/x/w", "p/y/w", containers=("p", "p/x", "p/y"))
    assert list(enter(tree, None).tensors) == ["p/x/w", "p/y/w"]
    assert list(enter(tree, "p").tensors) == ["x/w", "y/w"]
    assert list(enter(tree, "p/x/").tensors) == ["w"]


def test_several_containers_are_listed_and_not_entered() -> None:
    """With a choice to make, nothing is entered until #NAME says which."""
    both = nested("sd/w", "ema/w", "ema/v", containers=("sd", "ema"))
    kept = enter(both, None)
    assert list(kept.tensors) == ["sd/w", "ema/w", "ema/v"]
    assert kept.notes == ("tensors lie in `sd` (1), `ema` (2); #NAME after the path enters one",)
    assert list(enter(both, "ema").tensors) == ["w", "v"]
    assert enter(both, "ema").notes == ("entered `ema`; 1 tensors outside it are not read",)
    assert list(enter(both, "").tensors) == ["sd/w", "ema/w", "ema/v"]
    with pytest.raises(FormatError, match=r"no container `emma` \(after #\)\. Did you mean #ema\?"):
        enter(both, "emma")


def test_a_slash_in_a_flat_name_is_no_container() -> None:
    """Formats that do not nest are never entered."""
    flat = nested("bert/w", "bert/b")
    assert list(enter(flat, None).tensors) == ["bert/w", "bert/b"]
    with pytest.raises(FormatError, match="not nested: leave out what follows #"):
        enter(flat, "bert")


def test_the_first_pieces_of_dotted_names_are_entered_when_asked_for() -> None:
    """`#model_ema` takes what begins with `model_ema.`, also in the one state dict that would be entered by itself."""
    flat = nested("model.w", "model_ema.w", "model_ema.b.v", "model_emax.w")
    assert list(enter(flat, None).tensors) == ["model.w", "model_ema.w", "model_ema.b.v", "model_emax.w"]
    for inner in ("model_ema", "model_ema."):
        found = enter(flat, inner)
        assert list(found.tensors) == ["w", "b.v"]
        assert found.notes == ("only the tensors below `model_ema.`; 2 tensors outside it are not read",)
    assert list(enter(flat, "model_ema.b").tensors) == ["v"]
    wrapped = nested("sd/module.w", "sd/other.w", containers=("sd",))
    for inner in ("module", "sd/module"):
        assert list(enter(wrapped, inner).tensors) == ["w"]
    for inner in ("model_e", "w"):
        with pytest.raises(FormatError, match="after #"):
            enter(flat, inner)


def test_the_path_is_cut_at_the_hash_unless_the_file_is_called_so(tmp_path: Path) -> None:
    """A file whose name holds # can be opened by its name."""
    assert split_inner("m.pt#a/b") == (Path("m.pt"), "a/b")
    (tmp_path / "m#1.pt").touch()
    assert split_inner(tmp_path / "m#1.pt") == (tmp_path / "m#1.pt", None)


# Locations that lie


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (Location(0, 96), "bytes 96 to 104 are needed, the file has 100"),
        (Location(0, -1), "bytes -1 to 7 are needed"),
        (Location(0, 0, (100,)), "bytes 0 to 404 are needed"),
        (Location(0, 0, (-1,)), "strides (-1,) do not fit"),
        (Location(0, 0, (1, 1)), "strides (1, 1) do not fit"),
        (Location(0, 0, encoding="rot13"), "unknown encoding"),
        (Location(0, 0, encoding="deflate", encoded_nbytes=101, decoded_nbytes=8), "the file has 100"),
        (Location(0, 0, encoding="deflate", encoded_nbytes=9, decoded_nbytes=7), "8 bytes are needed, 7 are stored"),
        (Location(0, 0, encoding="deflate", encoded_nbytes=9, decoded_nbytes=1 << 40), "cannot decode to"),
    ],
)
def test_a_location_outside_the_file_is_refused_before_reading(where: Location, expected: str, tmp_path: Path) -> None:
    """Whatever a header claims is compared with the size of the file when it is opened."""
    (tmp_path / "m").write_bytes(bytes(100))
    contents = Contents((tmp_path / "m",), {"w": spec("f32[2]")}, {"w": where})
    with pytest.raises(FormatError) as caught:
        FileCheckpoint(contents, [Source(tmp_path / "m")])
    assert expected in str(caught.value)


def test_views_that_expand_a_file_beyond_reason_are_refused(tmp_path: Path) -> None:
    """A few bytes that claim to be terabytes (stride 0, or many names on one storage) are a trap."""
    (tmp_path / "m").write_bytes(bytes(100))
    huge = Contents((tmp_path / "m",), {"w": spec("f32[1000000,1000000]")}, {"w": Location(0, 0, (0, 0))})
    with pytest.raises(UnsafeError, match="expand 100 bytes of file to 4,000,000,000,000 bytes"):
        FileCheckpoint(huge, [Source(tmp_path / "m")])


def test_names_on_the_same_bytes_are_listed(tmp_path: Path) -> None:
    """Tied tensors are known from the header."""
    (tmp_path / "m").write_bytes(bytes(100))
    places = {"a": Location(0, 8), "b": Location(0, 8), "c": Location(0, 16)}
    contents = Contents((tmp_path / "m",), dict.fromkeys(places, spec("f32[2]")), places)
    with FileCheckpoint(contents, [Source(tmp_path / "m")]) as checkpoint:
        assert checkpoint.manifest.shared == (("a", "b"),)


# A source that changes


def test_views_that_repeat_or_skip_are_not_the_same_tensor(tmp_path: Path) -> None:
    """On the same bytes lie `rows` and `columns`, each 2 × 3, and a view of three times as many elements, which is none of them."""
    (tmp_path / "m").write_bytes(bytes(100))
    views = {
        "rows": ("f32[2,3]", None), "columns": ("f32[3,2]", (1, 3)), "thrice": ("f32[3,6]", (0, 1)), "bits": ("i32[2,3]", None),
    }  # fmt: skip
    places = {name: Location(0, 0, strides) for name, (_, strides) in views.items()}
    contents = Contents((tmp_path / "m",), {name: spec(text) for name, (text, _) in views.items()}, places)
    with FileCheckpoint(contents, [Source(tmp_path / "m")]) as checkpoint:
        assert checkpoint.manifest.shared == (("rows", "columns"),)
        shown = "\n".join(Summary("m", "", checkpoint.manifest).body(None))
    assert "shared    rows, columns   (views of the same bytes)" in shown


def test_a_file_that_is_cut_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    """A short read is never an answer."""
    path = tmp_path / "m.safetensors"
    write_checkpoint(path, ONE)
    with open_checkpoint(path) as checkpoint:
        run = checkpoint.run("w")
        assert run is not None
        os.truncate(path, run[1] + 5)
        with pytest.raises(SourceChanged, match="truncated while reading"):
            checkpoint.pread(run[0], run[1], memoryview(bytearray(24)))
        with pytest.raises(SourceChanged, match="truncated while reading"):
            whole(checkpoint, "w")
        with pytest.raises(SourceChanged, match="bytes when opened"):
            checkpoint.check_unchanged()


def test_a_file_that_is_rewritten_or_replaced_is_noticed(tmp_path: Path) -> None:
    """Size, mtime and inode are those of the file whose header was read."""
    path = tmp_path / "m.safetensors"
    write_checkpoint(path, ONE)
    with open_checkpoint(path) as checkpoint:
        checkpoint.check_unchanged()
        os.utime(path, ns=(1, 1))
        with pytest.raises(SourceChanged, match="written to since"):
            checkpoint.check_unchanged()
    with open_checkpoint(path) as checkpoint:
        write_checkpoint(tmp_path / "n.safetensors", ONE)
        (tmp_path / "n.safetensors").replace(path)
        assert np.array_equal(whole(checkpoint, "w"), ONE["w"][1])
        with pytest.raises(SourceChanged, match="another file took its name"):
            checkpoint.check_unchanged()
        path.unlink()
        with pytest.raises(SourceChanged, match="removed or renamed"):
            checkpoint.check_unchanged()


def test_no_file_stays_open_after_an_error(tmp_path: Path) -> None:
    """A refused file is closed again."""
    (tmp_path / "m.bin").write_bytes(bytes(100))
    for _ in range(5):
        failure(tmp_path / "m.bin")
    opened = [os.readlink(one) for one in Path("/proc/self/fd").iterdir() if os.path.lexists(one)]  # noqa: PTH115
    assert [] == [one for one in opened if Path(one).name == "m.bin"]


# Encodings


def latin1(tmp_path: Path, text: str, nbytes: int) -> FileCheckpoint:
    raw = text.encode()
    (tmp_path / "m").write_bytes(b"..." + raw)
    where = Location(0, 3, None, "utf8-latin1", len(raw), 0, nbytes)
    return FileCheckpoint(
        Contents((tmp_path / "m",), {"w": TensorSpec(dtype("u8"), (nbytes,))}, {"w": where}), [Source(tmp_path / "m")]
    )


def test_text_that_holds_bytes_is_decoded(tmp_path: Path) -> None:
    """Bytes above 127 took two in the file; pieces may end inside a character."""
    data = bytes(range(256)) * 9000
    with latin1(tmp_path, data.decode("latin-1"), len(data)) as checkpoint:
        assert checkpoint.run("w") is None
        assert whole(checkpoint, "w").tobytes() == data
        assert checkpoint.fetch("w", 7, (3,), (256,)).tolist() == [7, 7, 7]
        assert checkpoint.manifest.encodings == {"w": "utf8-latin1"}


@pytest.mark.parametrize(
    ("text", "nbytes", "expected"),
    [
        ("é" * 5, 4, "more than the 4 bytes declared"),
        ("é" * 5, 6, "holds 5 bytes, 6 are declared"),
        ("aĀb", 3, "not UTF-8 of"),
    ],
)
def test_decoded_data_of_another_length_is_refused(text: str, nbytes: int, expected: str, tmp_path: Path) -> None:
    """What is decoded has exactly the declared length."""
    with latin1(tmp_path, text, nbytes) as checkpoint, pytest.raises(FormatError, match=expected):
        whole(checkpoint, "w")


def test_a_full_temporary_folder_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoding needs room; the error names the folder and TMPDIR."""

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with latin1(tmp_path, "abc", 3) as checkpoint:
        monkeypatch.setattr(decode.os, "pwrite", full)
        with pytest.raises(RefusedError, match=r"is full: 3 bytes are needed there.*set TMPDIR"):
            whole(checkpoint, "w")


def test_threads_decode_once(tmp_path: Path) -> None:
    """Several threads that ask for one encoded tensor all get it."""
    data = bytes(range(256)) * 100
    with latin1(tmp_path, data.decode("latin-1"), len(data)) as checkpoint:
        found: list[bytes] = []
        threads = [threading.Thread(target=lambda: found.append(whole(checkpoint, "w").tobytes())) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [data] * 4


# Memory, several inputs


def test_arrays_in_memory_are_a_checkpoint() -> None:
    """Any array numpy can hold a tensor in, whatever its order and byte order; nothing else."""
    arrays = {"a": np.arange(6, dtype=">i4").reshape(2, 3), "b": np.arange(6.0).reshape(2, 3).T, "c": np.array(True)}
    with ArrayCheckpoint(arrays) as checkpoint:
        assert {name: str(kind) for name, kind in checkpoint.manifest.items()} == {
            "a": "i32[2,3]",
            "b": "f64[3,2]",
            "c": "bool[]",
        }
        assert np.array_equal(whole(checkpoint, "a").view("i4"), arrays["a"])
        assert np.array_equal(checkpoint.fetch("b", 0, (2, 3), (1, 2)).copy().view("f8"), arrays["b"].T)
        with pytest.raises(IndexError):
            checkpoint.fetch("a", 5, (2,), (1,))
    with pytest.raises(FormatError, match="`s` holds <U1, which is no dtype of tensors"):
        ArrayCheckpoint({"s": np.array(["x"])})


def test_bits_can_be_given_their_dtype() -> None:
    """bf16 held as u2 is bf16 when `dtypes` says so."""
    with ArrayCheckpoint({"a": np.zeros(3, "u2")}, dtypes={"a": dtype("bf16")}) as checkpoint:
        assert str(checkpoint.manifest["a"]) == "bf16[3]"


def test_several_inputs_are_read_as_one(tmp_path: Path) -> None:
    """`a::w` is tensor w of input a, and files are counted through."""
    write_checkpoint(tmp_path / "a.safetensors", ONE, metadata={"by": "a"})
    write_checkpoint(tmp_path / "b.npz", tensors_of({"w": np.arange(3)}))
    inputs = {"a": open_checkpoint(tmp_path / "a.safetensors"), "b": open_checkpoint(tmp_path / "b.npz")}
    with Joined(inputs) as joined:
        assert {name: str(kind) for name, kind in joined.manifest.items()} == {"a::w": "f32[2,3]", "b::w": "i64[3]"}
        assert joined.paths == (tmp_path / "a.safetensors", tmp_path / "b.npz")
        assert np.array_equal(whole(joined, "b::w").view("i8"), np.arange(3))
        run = joined.run("b::w")
        assert run is not None and run[0] == 1
        buffer = bytearray(24)
        joined.pread(*run, memoryview(buffer))
        assert np.frombuffer(buffer, "i8").tolist() == [0, 1, 2]
        joined.check_unchanged()
        with pytest.raises(KeyError):
            joined.run("w")


# Targets


def test_the_format_follows_the_suffix(tmp_path: Path) -> None:
    """A suffix names a format; --format overrules it; a folder holds the usual name."""
    specs = {"w": spec("f32[2]")}
    assert lay_out(specs, tmp_path / "x.npz").format == "npz"
    assert lay_out(specs, tmp_path / "x.npz", format="safetensors").format == "safetensors"
    folder = lay_out(specs, tmp_path / "out")
    assert (folder.is_folder, folder.files[0].name) == (True, "model.safetensors")
    assert lay_out(specs, tmp_path, format="npz").files[0].name == "model.npz"
    assert lay_out(specs, f"{tmp_path}/x.npz/").is_folder
    assert lay_out(specs, tmp_path / "model-v1.5").is_folder
    with pytest.raises(UsageError, match=r"\.onnx files are not written; choose one of \.safetensors, \.pth"):
        lay_out(specs, tmp_path / "x.onnx")
    with pytest.raises(UsageError, match="no format is called safetensor; did you mean safetensors"):
        format_named("safetensor")
    with pytest.raises(UsageError, match="torch_legacy is read but not written"):
        lay_out(specs, tmp_path / "x", format="torch-legacy")


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_checkpoint_that_nobody_closed_closes_with_the_last_to_hold_it(tmp_path: Path) -> None:
    """Files and decoded wholes are let go quietly: a notebook opens and never closes."""
    import gc

    path = tmp_path / "packed.npz"
    np.savez_compressed(path, a=np.arange(1000.0))
    gc.collect()
    before = open_files()
    checkpoint = open_checkpoint(path)
    assert 1000 == checkpoint.fetch("a", 0, (1000,), (1,)).size
    assert before + 2 == open_files()
    del checkpoint
    gc.collect()
    assert before == open_files()


@pytest.mark.parametrize("format", writable())
def test_metadata_is_kept_or_said_to_be_lost(format: str, tmp_path: Path) -> None:
    """A format that has no place for what the source says of itself is named; the others give it back."""
    source, target = tmp_path / "m.safetensors", tmp_path / f"target{FORMATS[format].suffixes[0]}"
    save_file({"dense/kernel": np.ones(2, "f4")}, source, {"format": "np", "backend": "jax", "author": "me"})
    notes = isomorph.convert(source, target).notes
    with open_checkpoint(source) as before, open_checkpoint(target) as after:
        kept = {"format", *(key.removeprefix("gguf:") for key in after.manifest.metadata)}
        lost = [key for key in before.manifest.metadata if key not in kept]
    said = f"{format} files have no place for the source's metadata, which is not kept ({', '.join(lost)})"
    assert notes == ((said,) if lost else ())
