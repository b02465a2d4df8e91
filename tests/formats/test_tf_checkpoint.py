"""TensorFlow's checkpoints: what TensorFlow 2.21 wrote (make_tf_checkpoint.py) is read, and broken or lying ones are refused."""

from __future__ import annotations

import random
import shutil
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isomorph.cli.app import run
from isomorph.errors import FormatError, UnsafeError
from isomorph.formats.registry import open_checkpoint
from isomorph.formats.tf.crc32c import crc32c, masked
from isomorph.formats.tf.read import slice_key
from isomorph.formats.tf.table import MAGIC
from isomorph.testing.formats import whole

DATA = Path(__file__).parent / "data"
TF1 = {
    "embedding/weights": ("f32", (7, 4)), "wide/weights": ("f32", (7, 4)), "other/kernel": ("f32", (3, 5)), "empty": ("f32", (0, 3)),
    "layer/float32": ("f32", (2, 3)), "layer/float64": ("f64", (2, 3)), "layer/float16": ("f16", (2, 3)),
    "layer/bfloat16": ("bf16", (2, 3)), "layer/int8": ("i8", (2, 3)), "layer/int32": ("i32", (2, 3)), "layer/int64": ("i64", (2, 3)),
    "layer/uint8": ("u8", (2, 3)), "layer/bool": ("bool", (2, 3)), "layer/complex64": ("c64", (2, 3)),
}  # fmt: skip
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


def failure(path: Path) -> str:
    with pytest.raises(FormatError) as caught, open_checkpoint(path) as checkpoint:
        for name in checkpoint.manifest:
            whole(checkpoint, name)
    return str(caught.value)


def test_a_savers_checkpoint_is_read() -> None:
    """Every dtype, two shards, variables partitioned along rows and along columns; texts are leaves."""
    with open_checkpoint(DATA / "tf1") as checkpoint:
        assert checkpoint.format == "tf_checkpoint"
        assert {*TF1, "scalar"} == set(checkpoint.manifest)
        for name, (kind, shape) in TF1.items():
            spec = checkpoint.manifest[name]
            assert (str(spec.dtype), spec.shape) == (kind, shape)
            expected = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(spec.dtype.numpy)
            assert expected.tobytes() == np.ascontiguousarray(whole(checkpoint, name)).tobytes(), name
        assert whole(checkpoint, "scalar").tobytes() == struct.pack("<f", 2.5)
        assert {"text": "text [2]"} == dict(checkpoint.manifest.leaves)
        assert [path.name for path in checkpoint.paths] == [f"model.ckpt-7.data-0000{n}-of-00002" for n in range(2)]
        runs = checkpoint.runs("embedding/weights")
        assert runs is not None and [run.numel for run in runs] == [12, 8, 8]
        assert checkpoint.runs("wide/weights") is None
        checkpoint.keep_sums()
        for name in checkpoint.manifest:
            whole(checkpoint, name)
        checkpoint.check_sums()


@pytest.mark.parametrize("path", ["tf2", "tf2/ckpt-1", "tf2/ckpt-1.index"])
def test_an_object_based_checkpoint_is_read_by_any_of_its_names(path: str) -> None:
    """The folder, the prefix that TensorFlow itself takes, and the index; keys are kept as they are."""
    with open_checkpoint(DATA / path) as checkpoint:
        expected = {
            "model/kernel": (3, 4),
            "model/layers/0": (5,),
            "model/layers/1": (2, 2),
            "step": (),
            "save_counter": (),
        }
        assert {name + VALUE: shape for name, shape in expected.items()} == {
            name: spec.shape for name, spec in checkpoint.manifest.items()
        }
        assert whole(checkpoint, "model/kernel" + VALUE).view("<f4").reshape(-1).tolist() == list(range(12))
        assert whole(checkpoint, "step" + VALUE).view("<i8").tolist() == 7
        assert ["_CHECKPOINTABLE_OBJECT_GRAPH"] == list(checkpoint.manifest.leaves)


def test_a_saved_model_gives_its_variables(tmp_path: Path) -> None:
    """Its folder, or `variables/`; a link in place of `variables` is refused."""
    with open_checkpoint(DATA / "saved_model") as checkpoint, open_checkpoint(DATA / "saved_model/variables") as inner:
        assert list(checkpoint.manifest) == list(inner.manifest)
        assert "the variables of a SavedModel; its graph (saved_model.pb) is not read" in checkpoint.manifest.notes
    shutil.copytree(DATA / "saved_model", tmp_path / "m")
    (tmp_path / "m" / "variables").rename(tmp_path / "elsewhere")
    (tmp_path / "m" / "variables").symlink_to("../elsewhere")
    with pytest.raises(UnsafeError, match="a link where the folder of a SavedModel's variables belongs"):
        open_checkpoint(tmp_path / "m")
    (tmp_path / "m" / "variables").unlink()
    assert "a SavedModel without variables/variables.index" in failure(tmp_path / "m")


def test_the_last_of_several_is_the_one_that_checkpoint_names(tmp_path: Path) -> None:
    """Only the name in `checkpoint` counts: TensorFlow writes the whole path of the machine that saved it."""
    shutil.copytree(DATA / "tf2", tmp_path / "c")
    for path in list((tmp_path / "c").glob("ckpt-1.*")):
        shutil.copy(path, path.with_name(path.name.replace("ckpt-1", "ckpt-2")))
    state = tmp_path / "c" / "checkpoint"
    state.write_text('model_checkpoint_path: "/somewhere/else/ckpt-2"\n')
    with open_checkpoint(tmp_path / "c") as checkpoint:
        assert checkpoint.paths[0].name == "ckpt-2.data-00000-of-00001"
    state.write_text('model_checkpoint_path: "/etc/passwd"\n')
    assert "holds several checkpoints: ckpt-1.index, ckpt-2.index" in failure(tmp_path / "c")
    state.write_text('model_checkpoint_path: "ckpt-2"\n')
    (tmp_path / "c" / "ckpt-2.data-00000-of-00001").unlink()
    assert "ckpt-2.index: 1 of its 1 shards is missing: ckpt-2.data-00000-of-00001" in failure(tmp_path / "c")
    (tmp_path / "c" / "ckpt-2.index").unlink()
    with open_checkpoint(tmp_path / "c") as checkpoint:
        assert (
            "checkpoint names ckpt-2.index as the last one saved, which is not in the folder"
            in checkpoint.manifest.notes
        )


def test_a_conversion_is_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """convert and verify as anybody runs them."""
    target = str(tmp_path / "m.safetensors")
    assert run(["convert", str(DATA / "tf1"), target]) == 0
    assert run(["verify", str(DATA / "tf1" / "model.ckpt-7"), target]) == 0
    assert "132 of 132 elements" in capsys.readouterr().out


# The index, rewritten


def table_of(entries: dict[bytes, bytes], *, block: int = 1 << 30) -> bytes:
    """A LevelDB table with restart points every 16 entries, as TensorFlow writes them."""
    out = bytearray()
    handles: list[tuple[bytes, bytes]] = []

    def put(items: list[tuple[bytes, bytes]]) -> bytes:
        body, restarts, before = bytearray(), [], b""
        for number, (key, value) in enumerate(items):
            shared = 0
            if number % 16 == 0:
                restarts.append(len(body))
            else:
                shared = next(
                    (k for k, pair in enumerate(zip(before, key, strict=False)) if pair[0] != pair[1]),
                    min(len(before), len(key)),
                )
            body += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
            before = key
        body += b"".join(struct.pack("<I", each) for each in restarts or [0]) + struct.pack("<I", len(restarts or [0]))
        handle = varint(len(out)) + varint(len(body))
        body += b"\0"
        out.extend(body + struct.pack("<I", masked(crc32c([bytes(body)]))))
        return handle

    items = sorted(entries.items())
    for begin in range(0, len(items), block):
        part = items[begin : begin + block]
        handles.append((part[-1][0] + b"\1", put(part)))
    meta, index = put([]), put(handles)
    return bytes(out) + (meta + index).ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    return varint(number << 3) + varint(value % (1 << 64))


def entry(
    dtype: int = 1,
    shape: tuple[int, ...] = (2, 3),
    shard: int = 0,
    offset: int = 0,
    nbytes: int = 24,
    data: bytes | None = None,
) -> bytes:
    dims = b"".join(field(2, field(1, size)) for size in shape)
    crc = masked(crc32c([data])) if data is not None else 0
    return (
        field(1, dtype)
        + field(2, dims)
        + field(3, shard)
        + field(4, offset)
        + field(5, nbytes)
        + b"\x35"
        + struct.pack("<I", crc)
    )


def saved(
    folder: Path, entries: dict[bytes, bytes], data: bytes = bytes(range(64)), header: bytes = field(1, 1)
) -> Path:
    (folder / "c.index").write_bytes(table_of({b"": header, **entries}))
    (folder / "c.data-00000-of-00001").write_bytes(data)
    return folder / "c.index"


def test_many_blocks_and_shared_prefixes_are_read(tmp_path: Path) -> None:
    """A thousand keys in blocks of 40, each sharing what it can with the one before; big-endian data is turned round."""
    data = np.arange(6000, dtype=">f4").tobytes()
    entries = {
        f"layer/{n:04d}/kernel".encode(): entry(offset=24 * n, data=data[24 * n : 24 * n + 24]) for n in range(1000)
    }
    saved(tmp_path, {}, data)
    (tmp_path / "c.index").write_bytes(table_of({b"": field(1, 1) + field(2, 1), **entries}, block=40))
    with open_checkpoint(tmp_path / "c") as checkpoint:
        assert 1000 == len(checkpoint.manifest)
        checkpoint.keep_sums()
        for n in range(1000):
            assert whole(checkpoint, f"layer/{n:04d}/kernel").view("<f4").reshape(-1).tolist() == list(
                range(6 * n, 6 * n + 6)
            )
        checkpoint.check_sums()


def test_damaged_tensors_are_found_by_their_checksums(tmp_path: Path) -> None:
    """One bit of a shard: found when what was carried is verified."""
    shutil.copytree(DATA / "tf1", tmp_path / "c")
    path = tmp_path / "c" / "model.ckpt-7.data-00000-of-00002"
    raw = bytearray(path.read_bytes())
    raw[100] ^= 4
    path.write_bytes(raw)
    with open_checkpoint(tmp_path / "c") as checkpoint:
        checkpoint.keep_sums()
        for name in checkpoint.manifest:
            whole(checkpoint, name)
        with pytest.raises(FormatError, match=r"damaged: the bytes of `.*` are not those that were saved"):
            checkpoint.check_sums()


HOSTILE: dict[str, dict[bytes, bytes]] = {
    "bytes 9,223,372,036,854,775,800 to 9,223,372,036,854,775,824 are needed, the file has 64": {b"w": entry(offset=(1 << 63) - 8)},
    "a tensor at a negative place": {b"w": entry(offset=-8)},
    "tensor `w` f32[4611686018427387904,4] takes": {b"w": entry(shape=(1 << 62, 4))},
    "tensor `w` f32[2,3] takes 24 bytes, its index says 25": {b"w": entry(nbytes=25)},
    "a shape that is none": {b"w": entry(shape=(-1, 3))},
    "a tensor lies in shard 7; there are 1": {b"w": entry(shard=7)},
    "1 tensors have a dtype that is not read: `w` (type 99)": {b"w": entry(dtype=99)},
    "the name of a tensor is not UTF-8": {b"\xff\xfe": entry()},
    "tensor `w`: its slice 0,1:- is not in the index": {b"w": entry(nbytes=0) + field(7, field(1, field(2, 1)) + field(1, b""))},
    "has wire type": {b"w": field(2, 5)},
    "unknown rank": {b"w": field(1, 1) + field(2, field(3, 1))},
    "a TensorFlow checkpoint without a tensor": {},
}  # fmt: skip


@pytest.mark.parametrize("message", HOSTILE)
def test_indexes_that_lie_are_one_error(message: str, tmp_path: Path) -> None:
    """Offsets, sizes, shapes, shards, slices: one message that says which tensor."""
    assert message in failure(saved(tmp_path, HOSTILE[message]))


def test_slices_that_leave_gaps_are_refused(tmp_path: Path) -> None:
    """Two slices of three rows that hold one row each."""
    extents = [((row, 1), (0, -1)) for row in (0, 2)]
    slices = b"".join(field(7, field(1, field(1, row) + field(2, 1)) + field(1, b"")) for row in (0, 2))
    parts = {slice_key(b"w", each): entry(shape=(1, 3), nbytes=12) for each in extents}
    path = saved(tmp_path, {b"w": entry(shape=(3, 3), nbytes=0) + slices, **parts})
    assert "tensor `w` f32[3,3]: its element [1, 0] lies in no tile" in failure(path)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (field(1, 0), "0 shards; 1 to 10,000 are read"),
        (field(1, 1 << 40), "1,099,511,627,776 shards"),
        (field(1, 3), "3 of its 3 shards are missing: c.data-00000-of-00003"),
    ],
)
def test_shards_that_are_not_there_are_refused(header: bytes, message: str, tmp_path: Path) -> None:
    """However many there are said to be."""
    assert message in failure(saved(tmp_path, {b"w": entry()}, header=header))


def test_a_shard_that_is_a_link_elsewhere_is_refused(tmp_path: Path) -> None:
    """Links out of the folder are not followed."""
    (tmp_path / "c").mkdir()
    saved(tmp_path / "c", {b"w": entry()})
    (tmp_path / "c" / "c.data-00000-of-00001").rename(tmp_path / "x")
    (tmp_path / "c" / "c.data-00000-of-00001").symlink_to("../x")
    with pytest.raises(UnsafeError, match=r"a link to \.\./x, out of its folder"):
        open_checkpoint(tmp_path / "c")


def changes(raw: bytes) -> Iterator[bytes]:
    rng = random.Random(3)
    yield from (raw[:length] for length in range(0, len(raw), 3))
    for _ in range(300):
        at = rng.randrange(len(raw))
        yield raw[:at] + bytes([rng.choice([0, 1, 0x7F, 0x80, 0xFF])]) + raw[at + 1 :]
        yield raw[:at] + rng.randbytes(rng.randrange(9)) + raw[at + rng.randrange(4) :]


def test_a_broken_index_is_refused(tmp_path: Path) -> None:
    """Cut anywhere, changed anywhere: FormatError or the very same checkpoint, since every block has its checksum."""
    shutil.copytree(DATA / "tf1", tmp_path / "c")
    path = tmp_path / "c" / "model.ckpt-7.index"
    raw = path.read_bytes()
    with open_checkpoint(path) as checkpoint:
        original = dict(checkpoint.manifest)
    for changed in changes(raw):
        path.write_bytes(changed)
        try:
            with open_checkpoint(path) as checkpoint:
                assert original == dict(checkpoint.manifest)
        except FormatError as error:
            assert str(path) in str(error)


def test_the_first_format_says_what_to_do(tmp_path: Path) -> None:
    """V1 has no index: its table holds the tensors, and begins with a message (SavedTensorSliceMeta) where V2 counts shards."""
    path = tmp_path / "model.ckpt"
    path.write_bytes(table_of({b"": field(1, field(1, b"w")), b"\0w": field(2, b"1234")}))
    assert "TensorFlow's first format (V1, which `Saver` wrote before 2017)" in failure(path)
    assert "Restore it in TensorFlow and save it with tf.compat.v1.train.Saver()" in failure(path)
    with path.open("r+b") as file:
        file.truncate(300 << 20)
        file.seek(-8, 2)
        file.write(MAGIC)
    assert "an index of 314,572,800 bytes; at most 268,435,456 are read. If it is of" in failure(path)


def test_a_table_that_is_compressed_says_so(tmp_path: Path) -> None:
    """The kind of a block is said; TensorFlow writes plain ones."""
    path = saved(tmp_path, {b"w": entry()})
    raw = bytearray(path.read_bytes())
    footer = raw[-48:]
    index, position = [], 0
    while len(index) < 4:
        value, shift = 0, 0
        while True:
            byte = footer[position]
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        index.append(value)
    raw[index[2] + index[3]] = 1
    path.write_bytes(raw)
    assert "its index is compressed" in failure(path)


@given(st.binary(max_size=5000), st.integers(0, 5000))
def test_checksums_do_not_depend_on_how_bytes_come(data: bytes, cut: int) -> None:
    """The same CRC-32C in one piece or two, and what byte by byte arithmetic gives."""
    crc = 0xFFFFFFFF
    for byte in data[:300]:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    assert crc ^ 0xFFFFFFFF == crc32c([data[:300]])
    assert crc32c([data]) == crc32c([data[:cut], data[cut:]])
    assert zlib.crc32(b"123456789") != crc32c([b"123456789"]) == 0xE3069283


@pytest.mark.parametrize(
    ("extents", "tail"),
    [((), "00"), (((0, 3), (0, -1)), "010280 83 80 7f"), (((64, 128), (8192, -65)), "0102 c040 c080 e02000 3fbf")],
)
def test_keys_of_slices_are_ordered_codes(extents: tuple[tuple[int, int], ...], tail: str) -> None:
    """0, the name with its end marked, the rank, then start and length of each axis."""
    assert b"\0w\0\1" + bytes.fromhex(tail) == slice_key(b"w", extents)
    assert b"\0a\0\xffb\xff\0\0\1" + bytes.fromhex(tail) == slice_key(b"a\0b\xff", extents)
