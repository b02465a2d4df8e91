"""The promises of SECURITY.md, measured on the real command in a process of its own: what is run, opened, held and written."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_command_line import SAMPLES
from watched import LIBRARIES, Seen, watched, watched_each

from isomorph.cli.app import run
from isomorph.formats.registry import FORMATS, writable
from isomorph.testing.formats import tensors_of, write_checkpoint

MB = 1 << 20
BESIDES = 64_000_000
"""What is held besides the budget: the interpreter, the libraries, the names of a model of ordinary size."""
A_HEADER_BYTE = 128
"""What a byte of names, shapes and places may take while all of them are looked at, where no --max-memory limits it."""


def outside(seen: Seen, folder: Path) -> list[str]:
    """The paths that were opened and lie neither in `folder` nor among the libraries."""
    ours = (os.devnull, os.path.realpath(folder), *(os.path.realpath(one) for one in LIBRARIES))
    paths = [os.path.realpath(folder / path) for path, _ in seen.opened if not path.startswith("descriptor ")]
    return [path for path in paths if not path.startswith(ours)]


def touched(seen: Seen) -> set[str]:
    """The names of the files that were opened for writing, made, renamed or removed."""
    return {Path(path).name for path, writing in seen.opened if writing and path != os.devnull} | {
        Path(path).name for _, path in seen.changed
    }


@pytest.mark.parametrize("kind", SAMPLES)
def test_a_hostile_file_runs_nothing_opens_nothing_and_holds_little(tmp_path: Path, kind: str) -> None:
    """Every sample: exit 2; no code, no file but itself, none written; memory and time as for any file of its length."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name, data in SAMPLES[kind].items():
        (folder / name).write_bytes(data)
    commands = [["convert", name, "out.safetensors", "--max-memory", "8MB"] for name in SAMPLES[kind]]
    found = watched_each([["inspect", "no.safetensors"], *commands], folder=folder, limit=2 << 30)[1:]
    for (name, data), seen in zip(SAMPLES[kind].items(), found, strict=True):
        assert (2, "") == (seen.code, seen.out), (name, seen)
        assert [] == seen.executed, name
        assert set() == touched(seen), name
        assert [] == outside(seen, folder), name
        there = {path for path, _ in seen.opened if not path.startswith(LIBRARIES) and (folder / path).is_file()}
        assert there <= {name}, name
        assert seen.anon_peak <= 8 * MB + BESIDES, (name, seen.anon_peak)
        assert seen.seconds < 1 + len(data) / MB, (name, seen.seconds)
        assert seen.written < 10_000, name
    assert set(SAMPLES[kind]) == {path.name for path in folder.iterdir()}


ARRAYS = {f"layer.{number}.weight": np.arange(12_000, dtype="f4").reshape(100, 120) + number for number in range(6)}
SUFFIXES = {name: FORMATS[name].suffixes[0] for name in writable()}


@pytest.fixture(scope="module")
def converted(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, dict[tuple[str, str], tuple[Seen, dict[str, Any]]]]:
    """Every format that is written -> every such format, with what the plan said of the target before."""
    folder = tmp_path_factory.mktemp("all")
    (folder.parent / "secret.json").write_text("{}")
    pairs = [(one, other) for one in SUFFIXES for other in SUFFIXES]
    for name, suffix in SUFFIXES.items():
        write_checkpoint(folder / f"in{suffix}", tensors_of(ARRAYS), format=name)
    commands = []
    for one, other in pairs:
        source, target = f"in{SUFFIXES[one]}", f"{one}-to-{other}{SUFFIXES[other]}"
        commands.append(["convert", source, target, "--json", "--format", other, "--max-memory", "16MB"])
    found = watched_each(commands, folder=folder)
    return folder, {pair: (seen, json.loads(seen.out)) for pair, seen in zip(pairs, found, strict=True)}


def each(found: Any) -> Iterable[tuple[str, Seen, dict[str, Any]]]:
    for (one, other), (seen, said) in found[1].items():
        assert seen.code == 0, (one, other, seen.err)
        yield f"{one}-to-{other}{SUFFIXES[other]}", seen, said


def test_a_conversion_opens_its_source_and_its_target_alone(converted: Any) -> None:
    """Read: the source, and what is written. Written: the target under its temporary name, its journal, then its name."""
    for target, seen, _ in each(converted):
        assert [] == seen.executed, target
        assert [] == outside(seen, converted[0]), target
        source = f"in{SUFFIXES[target.partition('-')[0]]}"
        temporary = {f".{target}.isomorph-part", f".{target}.isomorph-journal"}
        unnamed = {
            converted[0].name
        }  # a file without a name in the folder: whether blocks can be shared is tried on it
        assert touched(seen) <= {target, *temporary, *unnamed}, target
        opened = {
            Path(path).name for path, _ in seen.opened if not path.startswith((*LIBRARIES, "descriptor ", os.devnull))
        }
        assert opened <= {source, target, *temporary, converted[0].name, "config.json", "params.json"}, target


def test_a_conversion_writes_no_more_than_its_plan_declared(converted: Any) -> None:
    """The files have the lengths that the layout said before a tensor was read, and no byte more went to the disk."""
    for target, seen, said in each(converted):
        (output,) = said["outputs"]
        (file,) = output["files"]
        assert file["nbytes"] == (converted[0] / target).stat().st_size
        assert seen.written <= 2 * file["nbytes"] + 20_000, target  # what was packed is written twice: unpacked first
    assert not [path for path in converted[0].iterdir() if "isomorph" in path.name]


def test_a_conversion_holds_the_budget_and_little_more(converted: Any) -> None:
    for target, seen, _ in each(converted):
        assert seen.anon_peak <= 16 * MB + BESIDES, (target, seen.anon_peak)


def sparse(path: Path, tensors: dict[str, tuple[int, ...]]) -> int:
    """A safetensors file of zeros that take no room. Returns the length of its header."""
    header, offset = {}, 0
    for name, shape in tensors.items():
        nbytes = 4 * int(np.prod(shape, dtype=np.int64))
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [offset, offset + nbytes]}
        offset += nbytes
    raw = json.dumps(header, separators=(",", ":")).encode()
    with path.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        file.truncate(8 + len(raw) + offset)
    return len(raw)


JOBS = {
    "a copy": [],
    "a rename": ["-m", "rename.morph"],
    "a transposition": ["-m", "transpose.morph"],
    "parts that are fused": ["-m", "fuse.morph"],
    "a cast": ["--dtype", "bf16"],
    "a torch zip": ["--format", "torch_zip"],
}
MORPHS = {
    "rename": "w.{l} [a b] <-> x.{l} [a b]\n",
    "transpose": "w.{l} [a b] <-> w.{l} [b a]\n",
    "fuse": "w.0 [a b], w.1 [c b], w.2 [d b] <-> all [b (a + c + d)]\n",
}


@pytest.mark.parametrize("job", JOBS)
def test_memory_is_the_budget_and_not_the_size_of_the_tensors(tmp_path: Path, job: str) -> None:
    """90 MB in three tensors, with 8 MB to spend; and verified."""
    sparse(tmp_path / "in.safetensors", {f"w.{number}": (750 * (number + 1), 5000) for number in range(3)})
    for name, text in MORPHS.items():
        (tmp_path / f"{name}.morph").write_text(text)
    seen = watched("convert", "in.safetensors", "out", *JOBS[job], "--max-memory", "8MB",
                   *(["--format", "safetensors"] if "--format" not in JOBS[job] else []), folder=tmp_path)  # fmt: skip
    assert seen.code == 0, seen.err
    assert seen.anon_peak <= 8 * MB + BESIDES, seen.anon_peak


def test_looking_and_comparing_hold_no_more(tmp_path: Path) -> None:
    """Values are streamed: a file of 160 MB is shown, compared with itself, and verified."""
    sparse(tmp_path / "in.safetensors", {"w.0": (8000, 2500), "w.1": (8000, 2500)})
    both = ["in.safetensors", "in.safetensors"]
    commands = [
        ["show", "in.safetensors", "w.0"],
        ["diff", *both, "--values"],
        ["verify", *both, "--max-memory", "8MB"],
    ]
    for command, seen in zip(commands, watched_each(commands, folder=tmp_path), strict=True):
        assert seen.code == 0, seen.err
        assert seen.anon_peak <= 8 * MB + BESIDES, (command, seen.anon_peak)


def test_a_tensor_of_a_terabyte_is_looked_at_in_little_memory(tmp_path: Path) -> None:
    """Headers, plans and one row of it."""
    sparse(tmp_path / "in.safetensors", {"w": (1 << 20, 1 << 18)})
    found = watched_each(
        [["inspect", "in.safetensors"], ["plan", "in.safetensors"], ["show", "in.safetensors", "w[5, :8]"]],
        folder=tmp_path,
    )
    assert [0, 0, 0] == [seen.code for seen in found], [seen.err for seen in found]
    assert max(seen.anon_peak for seen in found) <= BESIDES
    assert max(seen.read for seen in found) < 8 * MB


def test_many_names_take_memory_in_proportion_to_the_header(tmp_path: Path) -> None:
    """1,000 and 5,000 tensors: what is held grows by a multiple of the bytes that name them, whatever is done with them."""
    lengths = [
        sparse(tmp_path / f"{count}.safetensors", {f"model.layers.{number}.weight": (1,) for number in range(count)})
        for count in (1_000, 5_000)
    ]
    for arguments in (["inspect"], ["convert", "out", "--format", "torch_zip", "--max-memory", "16MB", "--overwrite"]):
        few, many = (
            watched(arguments[0], f"{count}.safetensors", *arguments[1:], folder=tmp_path) for count in (1_000, 5_000)
        )
        assert (0, 0) == (few.code, many.code), few.err + many.err
        assert many.anon_peak - few.anon_peak <= A_HEADER_BYTE * (lengths[1] - lengths[0]), (
            few.anon_peak,
            many.anon_peak,
        )


N = MB
COSTLY = {
    "lists": b'{"a":[' + b",".join([b"[[]]"] * (N // 5)) + b"]}",
    "texts": b'{"a":[' + b",".join([b'"ab"'] * (N // 5)) + b"]}",
    "metadata": b'{"__metadata__":{' + b",".join(b'"%x":""' % number for number in range(N // 10)) + b"}}",
    "keys": b"{" + b",".join(b'"%x":0' % number for number in range(N // 9)) + b"}",
    "tensors": b"{"
    + b",".join(b'"%x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}' % number for number in range(N // 56))
    + b"}",
}


def test_no_header_makes_more_of_itself(tmp_path: Path) -> None:
    """The costliest that JSON can say in 1 MB, refused or read: memory in proportion to its length, and so is time."""
    for name, raw in COSTLY.items():
        (tmp_path / f"{name}.safetensors").write_bytes(len(raw).to_bytes(8, "little") + raw)
    found = watched_each([["inspect", f"{name}.safetensors"] for name in COSTLY], folder=tmp_path)
    for (name, raw), seen in zip(COSTLY.items(), found, strict=True):
        assert seen.anon_peak <= BESIDES + A_HEADER_BYTE * len(raw), (name, seen.anon_peak)
        assert seen.seconds < 10, name


def calls_of(arguments: list[str]) -> int:
    """How many functions are called, in Python and in C, while a command is carried out."""
    count = 0

    def called(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(called)
    try:
        assert run(arguments) == 0
    finally:
        sys.setprofile(before)
    return count


@pytest.mark.parametrize("format", SUFFIXES)
def test_work_grows_with_the_number_of_tensors_and_not_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    """Counted in calls of functions, which no busy machine disturbs: twice the tensors, twice the calls."""
    monkeypatch.chdir(tmp_path)
    counts = []
    for number in (50, 50, 200, 400):  # (the first imports what is imported when first used)
        arrays = {f"h.{layer}.w": np.full((2, 3), layer, "f4") for layer in range(number)}
        write_checkpoint(tmp_path / f"{number}{SUFFIXES[format]}", tensors_of(arrays), format=format)
        words = [
            "convert",
            f"{number}{SUFFIXES[format]}",
            f"out{number}",
            "--format",
            format,
            "-q",
            "--workers",
            "1",
            "--overwrite",
        ]
        counts.append(calls_of(words))
    assert counts[3] - counts[2] < 1.5 * 4 / 3 * (counts[2] - counts[1]), counts


def test_bytes_are_read_in_proportion_to_the_file(tmp_path: Path) -> None:
    """Twice the file, twice the bytes: each is read once to be written and once to be verified, the target once."""
    read = []
    for rows in (1000, 2000):
        sparse(tmp_path / f"{rows}.safetensors", {f"w{number}": (rows, 1000) for number in range(4)})
        seen = watched("convert", f"{rows}.safetensors", f"out{rows}.safetensors", folder=tmp_path)
        assert seen.code == 0, seen.err
        read.append(seen.read)
    assert read[1] - read[0] < 3.2 * 16 * 10**6, read
