"""Blocks shared with the source: on XFS and btrfs images where they can be mounted, on any folder with an ioctl that is played.

Where nothing can be mounted (no root, no loop devices) the same tests run in an ordinary folder, and hold that ranges are copied: what
is expected is found out by `cp --reflink=always` in the same folder.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import shutil
import struct
import subprocess
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from engine_plans import identity
from hypothesis import given
from hypothesis import strategies as st

import isomorph as iso
from isomorph.engine import checksums, clone, sharing
from isomorph.engine.clone import Cloner
from isomorph.engine.pieces import Clone, Copy, Part, Sum
from isomorph.engine.run import Written, write
from isomorph.engine.sharing import shared, sharing_for
from isomorph.errors import RefusedError
from isomorph.formats.base import Sharing, Wish
from isomorph.formats.memory import ArrayCheckpoint
from isomorph.formats.registry import lay_out, open_checkpoint
from isomorph.formats.sharing import arranged
from isomorph.tensors import TensorSpec, dtype, spec

BLOCK = 4096
SHARED_EXTENT = 0x2000
FIEMAP = 0xC020660B


@dataclass(frozen=True)
class Disk:
    """A folder to write into; `shares` as `cp --reflink=always` found it."""

    folder: Path
    shares: bool


def shares_blocks(folder: Path) -> bool:
    """Whether cp can clone there."""
    (folder / "probe").write_bytes(bytes(1 << 20))
    command = ["cp", "--reflink=always", str(folder / "probe"), str(folder / "probed")]
    found = subprocess.run(command, capture_output=True, check=False).returncode == 0
    for name in ("probe", "probed"):
        (folder / name).unlink(missing_ok=True)
    return found


@pytest.fixture(scope="module", params=["xfs", "btrfs", "as it is"])
def disk(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    """An image of that file system, mounted; the folder alone where that is impossible."""
    folder = tmp_path_factory.mktemp("disk")
    image, mounted = folder / "image", folder / "mounted"
    mounted.mkdir()
    made = shutil.which(f"mkfs.{request.param}") is not None and os.geteuid() == 0
    if made:
        with image.open("wb") as file:
            file.truncate(400 << 20)
        commands = [[f"mkfs.{request.param}", "-q", str(image)], ["mount", "-o", "loop", str(image), str(mounted)]]
        made = all(subprocess.run(each, capture_output=True, check=False).returncode == 0 for each in commands)
    try:
        yield Disk(mounted, shares_blocks(mounted))
    finally:
        if made:
            subprocess.run(["umount", str(mounted)], check=True)


def model() -> dict[str, np.ndarray]:
    """About 8 MB: large matrices between vectors of odd lengths, and a count that is wider than the rest."""
    generator = np.random.default_rng(5)
    arrays: dict[str, np.ndarray] = {"scale": np.array(2.5, "f4")}
    for layer in range(4):
        arrays[f"layers.{layer}.bias"] = generator.standard_normal(77 + layer, dtype="f4")
        arrays[f"layers.{layer}.weight"] = generator.standard_normal((700, 713), dtype="f4")
    arrays["ids"] = np.arange(9, dtype="i8")
    return arrays


def save(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    source = ArrayCheckpoint(arrays)
    plan = identity(source.manifest)
    write(plan, source, lay_out(dict(plan.manifest), path), path, overwrite=True)
    return path


def copy(source: Path, target: Path, **options: object) -> Written:
    with open_checkpoint(source) as opened:
        plan = identity(opened.manifest)
        layout = lay_out(dict(plan.manifest), target, sharing=sharing_for(plan, opened, target.parent))
        return write(plan, opened, layout, target, overwrite=True, **options)  # type: ignore[arg-type]


def values(path: Path) -> dict[str, bytes]:
    with open_checkpoint(path) as found:
        return {name: found.fetch(name, 0, (spec.numel,), (1,)).tobytes() for name, spec in found.manifest.items()}


def shared_bytes(path: Path) -> int:
    """The bytes of a file that lie in extents which other files hold as well, as the kernel tells (FIEMAP)."""
    most = 1000
    request = array.array("B", struct.pack("=QQLLLL", 0, 1 << 62, 1, 0, most, 0) + bytes(56 * most))
    with path.open("rb") as file:
        try:
            fcntl.ioctl(file, FIEMAP, request)
        except OSError as error:
            assert error.errno in (errno.EOPNOTSUPP, errno.ENOTTY)  # tmpfs and such have no extents
            return 0
    (count,) = struct.unpack_from("=L", request, 20)
    extents = [struct.unpack_from("=QQQQQL", request, 32 + 56 * number) for number in range(count)]
    return sum(extent[2] for extent in extents if extent[5] & SHARED_EXTENT)


def test_a_renamed_checkpoint_shares_its_blocks_with_the_source(disk: Disk):
    """Nearly all of the file is not moved; what is not a whole block is copied; elsewhere everything is, into a file of the usual layout."""
    source = save(disk.folder / "source.safetensors", model())
    nbytes = sum(found.nbytes for found in model().values())
    done = iso.convert(
        source, disk.folder / "renamed.safetensors", iso.morph(text="layers.** <-> blocks.**\n** <-> **\n")
    )
    target = disk.folder / "renamed.safetensors"
    assert values(source) == {name.replace("blocks.", "layers."): raw for name, raw in values(target).items()}
    if disk.shares:
        assert nbytes - 2 * BLOCK <= done.cloned == shared_bytes(target) <= nbytes
        assert f"cloned    {done.cloned / 1e6:.3g} MB (no bytes moved" in str(done)
        assert done.to_json()["cloned"] == done.cloned
    else:
        assert done.cloned == 0 and "cloned" not in str(done)
        arrays = {name.replace("layers.", "blocks."): found for name, found in model().items()}
        assert save(disk.folder / "plain.safetensors", arrays).read_bytes() == target.read_bytes()


@pytest.mark.parametrize(
    "way", [(".safetensors", ".pth"), (".safetensors", ".npz"), (".pth", ".pth"), (".npz", ".safetensors")]
)
def test_zip_records_are_put_where_their_blocks_can_be_shared(disk: Disk, way: tuple[str, str]):
    """Each record is padded by itself; its checksum is right although its bytes were not written."""
    source = save(disk.folder / f"zip_source{way[0]}", model())
    target = disk.folder / f"zip_target{way[1]}"
    done = copy(source, target)
    assert values(source) == values(target)
    if way[1] != ".safetensors":
        with zipfile.ZipFile(target) as archive:
            assert archive.testzip() is None
        large = sum(found.nbytes for name, found in model().items() if name.endswith("weight"))
        assert (large - 8 * BLOCK if disk.shares else 0) <= done.cloned <= (large if disk.shares else 0)
    assert done.cloned == shared_bytes(target)


def test_a_file_larger_than_what_is_free_is_renamed_where_blocks_are_shared(disk: Disk):
    """Shared blocks need no room: three times 120 MB fit on a disk of 400 MB. Elsewhere they are three files as always."""
    rows = 30 if disk.shares else 3
    large = {"weight": np.ones((rows, 1 << 20), "f4"), "bias": np.ones(3, "f4")}
    source = save(disk.folder / "large.safetensors", large)
    targets = [disk.folder / f"large_{number}.safetensors" for number in range(3)]
    for target in targets:
        assert copy(source, target).cloned == ((rows << 22) - BLOCK if disk.shares else 0)
    assert values(targets[2])["bias"] == large["bias"].tobytes()
    for path in (source, *targets):
        path.unlink()


def test_a_target_on_another_disk_is_copied(disk: Disk, tmp_path: Path):
    """Blocks are not shared between two file systems: the probe says no, and nothing is padded."""
    source = save(disk.folder / "here.safetensors", model())
    done = copy(source, tmp_path / "there.safetensors")
    across = disk.folder.stat().st_dev != tmp_path.stat().st_dev
    assert across or not disk.shares or done.cloned > 0
    assert not across or done.cloned == 0
    assert values(source) == values(tmp_path / "there.safetensors")


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """A file system that shares blocks, played: ranges of whole blocks are copied, others refused; (target offset, nbytes) of each."""
    calls: list[tuple[int, int]] = []

    def clone_range(source: int, offset: int, nbytes: int, target: int, target_offset: int) -> None:
        if offset % BLOCK or nbytes % BLOCK or target_offset % BLOCK:
            raise OSError(errno.EINVAL, "not whole blocks")
        calls.append((target_offset, nbytes))
        assert nbytes == os.pwrite(target, os.pread(source, nbytes, offset), target_offset)

    monkeypatch.setattr(clone, "clone_range", clone_range)
    monkeypatch.setattr(clone, "shared_block", lambda folder, source, nbytes: BLOCK)
    return calls


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".npz"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_renaming_is_one_call_for_each_run(tmp_path: Path, played: list[tuple[int, int]], suffix: str, workers: int):
    """safetensors: all of it in one; a zip archive: one for each large record."""
    source = save(tmp_path / "source.safetensors", model())
    done = copy(source, tmp_path / f"target{suffix}", workers=workers)
    assert values(source) == values(tmp_path / f"target{suffix}")
    assert (1 if suffix == ".safetensors" else 4) == len(played)
    assert done.cloned == sum(nbytes for _, nbytes in played) <= done.copied


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EINVAL, errno.EXDEV, errno.ETXTBSY, errno.ENOSPC])
def test_what_cannot_be_shared_after_all_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, played: list[tuple[int, int]], suffix: str, code: int
):
    """The probe said yes and the real call says no, at once or after two: the file is the same, and the system is not asked again."""
    played_range = clone.clone_range
    for most in (0, 2):
        asked: list[int] = []

        def refusing(*call: int, most: int = most, asked: list[int] = asked) -> None:
            asked.append(call[2])
            if len(asked) > most:
                raise OSError(code, os.strerror(code))
            played_range(*call)

        monkeypatch.setattr(clone, "clone_range", refusing)
        source = save(tmp_path / "source.safetensors", model())
        done = copy(source, tmp_path / f"target{suffix}", workers=0)
        assert values(source) == values(tmp_path / f"target{suffix}")
        assert done.cloned == sum(asked[:most])
        assert len(asked) == (1 if suffix == ".safetensors" else most + 1)


def test_a_run_cut_off_between_clones_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, played: list[tuple[int, int]]
):
    """Cut off after the second record of four: --resume ends in the bytes of a run that was not."""
    source = save(tmp_path / "source.safetensors", model())
    copy(source, tmp_path / "whole.pth")
    monkeypatch.setattr("isomorph.engine.sync.SYNC_EVERY", 0)

    def cut(done: int, total: int) -> None:
        if len(played) >= 6:
            raise KeyboardInterrupt

    monkeypatch.setattr("isomorph.engine.run.time.monotonic", iter(range(1 << 30)).__next__)
    with pytest.raises(KeyboardInterrupt) as caught:
        copy(source, tmp_path / "target.pth", workers=0, progress=cut)
    assert "--resume goes on from there" in "".join(caught.value.__notes__)
    assert not (tmp_path / "target.pth").exists()
    done = copy(source, tmp_path / "target.pth", resume=True)
    assert done.resumed_from > 0
    assert (tmp_path / "whole.pth").read_bytes() == (tmp_path / "target.pth").read_bytes()


def test_checksums_of_whole_records_are_carried_over(tmp_path: Path):
    """pth → pth: a record whose sum the source keeps is not summed again, and a damaged one stays known as damaged."""
    source = save(tmp_path / "source.pth", model())
    with zipfile.ZipFile(source) as archive:
        at = next(one.header_offset for one in archive.infolist() if one.file_size > 1 << 20) + 5000
        sums = {one.filename: one.CRC for one in archive.infolist()}
    raw = bytearray(source.read_bytes())
    raw[at] ^= 1
    source.write_bytes(raw)
    copy(source, tmp_path / "target.pth")
    with zipfile.ZipFile(tmp_path / "target.pth") as archive:
        assert sums == {one.filename: one.CRC for one in archive.infolist()}
        assert archive.testzip() is not None


def test_the_sum_of_joined_records_is_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Three records that become one: its sum is made of theirs, and nothing is summed."""
    summed: list[object] = []

    def record_crcs(*given: object) -> list[tuple[int, int, int, int]]:
        found = checksums.record_crcs(*given)  # type: ignore[arg-type]
        summed.extend(found)
        return found

    monkeypatch.setattr("isomorph.engine.run.record_crcs", record_crcs)
    generator = np.random.default_rng(1)
    source = save(tmp_path / "source.pth", {f"{part}.weight": generator.standard_normal((33, 100)) for part in "qkv"})
    assert 3 == len({one[0] for one in summed})  # type: ignore[index]
    summed.clear()
    iso.convert(source, tmp_path / "target.pth", iso.morph(text="{p=q|k|v}.weight [o i] <-> qkv.weight [(p o) i]\n"))
    assert [] == summed
    with zipfile.ZipFile(tmp_path / "target.pth") as archive:
        assert archive.testzip() is None


def test_a_full_disk_is_said_also_where_blocks_are_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, played: list[tuple[int, int]]
):
    """What is not shared must fit: nothing is begun otherwise."""
    source = save(tmp_path / "source.safetensors", model())
    with open_checkpoint(source) as opened:
        plan = identity(opened.manifest)
        layout = lay_out(dict(plan.manifest), tmp_path / "target.safetensors")
        monkeypatch.setattr(
            "isomorph.engine.places.os.statvfs",
            lambda path: os.statvfs_result((BLOCK, BLOCK, 10, 1, 1, 1, 1, 1, 0, 255)),
        )
        with pytest.raises(RefusedError, match=r"needs .* and 4\.1 kB are free .* the disk is full"):
            write(plan, opened, layout, tmp_path / "target.safetensors")
    assert played == []


sizes = st.lists(
    st.tuples(st.integers(0, 40), st.sampled_from(["u8", "f16", "f32", "i64"]), st.integers(0, 7), st.booleans()),
    max_size=12,
)


@given(sizes)
def test_an_arrangement_holds_every_tensor_once_and_aligned(given_sizes: list[tuple[int, str, int, bool]]):
    """Whatever is wished for: each name once, offsets in the data at multiples of the widths, the promised bytes where they are wanted."""
    block = 64
    ordered = sorted(given_sizes, key=lambda one: -dtype(one[1]).nbytes)
    specs = {str(number): TensorSpec(dtype(kind), (numel,)) for number, (numel, kind, _, _) in enumerate(ordered)}
    wishes = {
        str(number): Wish(at * 8, specs[str(number)].nbytes)
        for number, (numel, _, at, wanted) in enumerate(ordered)
        if wanted and numel
    }
    found = arranged(list(specs), specs, Sharing(block, wishes))
    if found is None:
        assert not wishes
        return
    assert sorted(specs) == sorted(found.order)
    offset = shared_nbytes = 0
    for name in found.order:
        assert offset % specs[name].dtype.nbytes == 0
        if name in wishes and (found.residue + offset - wishes[name].residue) % block == 0:
            shared_nbytes += wishes[name].nbytes
        offset += specs[name].nbytes
    assert shared_nbytes == found.shared > 0


def test_tensors_in_another_order_are_walked_back_into_one_that_shares():
    """Odd lengths between whole blocks, given last: they are put back where they lead from one place to the next."""
    specs = {f"w{n}": spec("f32[1024]") for n in range(4)} | {f"b{n}": spec("f32[100]") for n in range(3)}
    places = {f"w{n}": Wish(n * 400 % BLOCK, BLOCK) for n in range(4)}
    found = arranged(list(specs), specs, Sharing(BLOCK, places))
    assert found is not None
    assert 4 * BLOCK == found.shared
    assert ["w0", "w1", "w2", "w3"] == [name for name in found.order if name.startswith("w")]


@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(1, 3000)), max_size=8),
    st.lists(st.tuples(st.integers(0, 500), st.integers(1, 2000)), max_size=5),
)
def test_cutting_copies_into_clones_changes_no_byte(runs: list[tuple[int, int]], records: list[tuple[int, int]]):
    """Clones and copies together cover what was given, from the same places; every byte to be summed of a clone is in one Sum before it."""
    parts: list[Copy] = []
    at = 0
    for gap, nbytes in runs:
        parts.append(Copy(at + gap, nbytes, 0, 7 * gap))
        at += gap + nbytes
    sums, end = [], 0
    for gap, nbytes in records:
        sums.append((end + gap, nbytes))
        end += gap + nbytes

    class Always(Cloner):
        def __init__(self) -> None:
            pass

        def block(self, file: int) -> int | None:
            return 8

    before: Iterator[Part] = iter(parts)
    least, sharing.LEAST_NBYTES = sharing.LEAST_NBYTES, 16
    try:
        found = list(shared(before, Always(), sums, 50))
    finally:
        sharing.LEAST_NBYTES = least
    copied = [part for part in found if isinstance(part, Copy | Clone)]
    summed = {part.offset + n for part in found if isinstance(part, Sum) for n in range(part.nbytes)}
    cover = {part.offset + n: part.source_offset + n for part in copied for n in range(part.nbytes)}
    assert {part.offset + n: part.source_offset + n for part in parts for n in range(part.nbytes)} == cover
    assert sum(part.nbytes for part in copied) == len(cover)
    wanted = {offset + n for offset, nbytes in sums for n in range(nbytes)}
    cloned = {part.offset + n for part in found if isinstance(part, Clone) for n in range(part.nbytes)}
    assert wanted & cloned == summed
    assert all(
        part.offset % 8 == part.nbytes % 8 == part.source_offset % 8 == 0 for part in found if isinstance(part, Clone)
    )
