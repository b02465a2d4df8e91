"""The conversions that are cut off: sources made on the spot, targets that may lie there already, and what must hold afterwards."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from crash_forks import Forks

from isomorph.testing.formats import tensors_of, write_checkpoint

Files = dict[str, bytes]
"""Path below a folder -> content."""

SHAPES = {f"{part}.{number}.weight": (64, 96) for part in ("vision", "text") for number in range(3)}


def arrays(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    made: dict[str, Any] = {name: rng.standard_normal(shape).astype("f4") for name, shape in SHAPES.items()}
    return {**made, "vision.bias": rng.standard_normal(96).astype("f4"), "text.steps": np.arange(7)}


def files_of(folder: Path) -> Files:
    """Every file below a folder; `name/` stands for an empty folder."""
    found: Files = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = b"-> " + bytes(path.readlink())
        elif path.is_file():
            found[name] = path.read_bytes()
        elif not any(path.iterdir()):
            found[name + "/"] = b""
    return found


def save(path: Path, seed: int, **options: Any) -> None:
    write_checkpoint(path, tensors_of(arrays(seed)), **options)


def plain(folder: Path) -> None:
    save(folder / "src" / "model.safetensors", 1)


def sharded(folder: Path) -> None:
    """A folder of shards, with a config and a tokenizer."""
    source = folder / "src" / "model"
    save(source, 1, format="safetensors", max_shard_size=60_000)
    (source / "config.json").write_text(json.dumps({"torch_dtype": "float32"}))
    (source / "tokenizer.json").write_text("{}" + " " * 5000)


def file_there(folder: Path) -> None:
    plain(folder)
    save(folder / "out" / "t.safetensors", 2)


def folder_there(folder: Path) -> None:
    """An older checkpoint in the same shards, other files beside it."""
    sharded(folder)
    old = folder / "out" / "t"
    save(old, 2, format="safetensors", max_shard_size=60_000)
    (old / "config.json").write_text(json.dumps({"torch_dtype": "float32", "old": True}))
    (old / "notes.txt").write_text("mine")


def folders_there(folder: Path) -> None:
    """The same with a folder of somebody's in it."""
    folder_there(folder)
    (folder / "out" / "t" / "logs").mkdir()
    (folder / "out" / "t" / "logs" / "1").write_text("mine")


def turned(folder: Path) -> None:
    plain(folder)
    lines = [f"{part}.{{l}}.weight [o i] <-> {part}.{{l}}.kernel [i o]\n" for part in ("vision", "text")]
    (folder / "turn.morph").write_text("".join(lines) + "vision.bias <-> vision.bias\ntext.steps <-> text.steps\n")


def split(folder: Path) -> None:
    plain(folder)
    (folder / "split.morph").write_text("vision.{x**} <-> v::{x**}\ntext.{x**} <-> t::{x**}\n".replace("**", "*"))


@dataclass(frozen=True)
class World:
    """One conversion: what makes its files, its arguments, the names in `out` that it makes, and how it is finished after a kill."""

    make: Callable[[Path], None]
    arguments: tuple[str, ...]
    targets: tuple[str, ...]
    again: tuple[str, ...] = ("--resume",)
    may_mix: bool = False
    """True where a folder of somebody's lies in the target, so that its files can only be replaced one by one."""


WORLDS: Mapping[str, World] = {
    "safetensors": World(plain, ("src/model.safetensors", "out/t.safetensors"), ("t.safetensors",)),
    "pth": World(plain, ("src/model.safetensors", "out/t.pth"), ("t.pth",)),
    "folder": World(sharded, ("src/model", "out/t", "--format", "torch_zip", "--max-shard-size", "60000"), ("t",)),
    "made": World(
        turned, ("src/model.safetensors", "out/t.pth", "-m", "turn.morph", "--dtype", "bf16"), ("t.pth",)
    ),
    "two outputs": World(
        split,
        ("src/model.safetensors", "v=out/v.safetensors", "t=out/t.pth", "-m", "split.morph"),
        ("v.safetensors", "t.pth"),
    ),
    "unverified": World(plain, ("src/model.safetensors", "out/t.npz", "--no-verify"), ("t.npz",)),
    "overwritten file": World(
        file_there, ("src/model.safetensors", "out/t.safetensors", "--overwrite"), ("t.safetensors",), ()
    ),
    "overwritten folder": World(
        folder_there, ("src/model", "out/t", "--overwrite", "--max-shard-size", "60000"), ("t",), ()
    ),
    "overwritten beside folders": World(
        folders_there, ("src/model", "out/t", "--overwrite", "--max-shard-size", "60000"), ("t",), (), may_mix=True
    ),
}  # fmt: skip


@dataclass
class Stage:
    """A world on the disk: `before` and `after` are the files of `out` without and with the conversion; `count` its system calls."""

    world: World
    folder: Path
    forks: Forks
    before: Files = field(default_factory=dict)
    after: Files = field(default_factory=dict)
    sources: Files = field(default_factory=dict)
    count: int = 0
    calls: dict[str, int] = field(default_factory=dict)
    kept: int = 0
    """How often --resume went on from something."""

    def __post_init__(self) -> None:
        for name in ("src", "out", "was"):
            (self.folder / name).mkdir(parents=True)
        self.world.make(self.folder)
        shutil.copytree(self.folder / "out", self.folder / "was", dirs_exist_ok=True)
        self.before = files_of(self.folder / "out")
        self.sources = files_of(self.folder / "src")
        done = self.run()
        assert done["code"] == 0, done["said"]
        self.after, self.count, self.calls = files_of(self.folder / "out"), done["count"], done["calls"]
        self.reset()

    def run(self, *more: str, **job: Any) -> dict[str, Any]:
        return self.forks.run(self.folder, ["convert", *self.world.arguments, *more], **job)

    def reset(self) -> None:
        """`out` as it was before."""
        shutil.rmtree(self.folder / "out")
        shutil.copytree(self.folder / "was", self.folder / "out", symlinks=True)

    def require_whole(self, what: str) -> bool:
        """Every target is absent, old or new, as a whole; nothing else has changed. True when all are new."""
        now = files_of(self.folder / "out")
        new = []
        for target in self.world.targets:
            states = [_below(files, target) for files in (now, self.before, self.after)]
            if self.world.may_mix and states[0] not in states[1:]:
                self._require_unreadable_or_one(states[0], what)
            else:
                assert states[0] in states[1:], f"{what}: {target} is torn: {sorted(states[0])}"
            new.append(states[0] == states[2])
            now = {name: data for name, data in now.items() if not _is_below(name, target)}
        rest = {name for name in now if not _is_debris(name, self.world.targets)}
        assert rest == {name for name in self.before if not any(_is_below(name, one) for one in self.world.targets)}, (
            what
        )
        assert self.sources == files_of(self.folder / "src"), f"{what}: a source was touched"
        return all(new)

    def _require_unreadable_or_one(self, found: Files, what: str) -> None:
        """Files of both checkpoints may lie there; no index then says that they are one, and what is not ours is whole."""
        for name, data in found.items():
            assert data in (self.before.get(name), self.after.get(name)), f"{what}: {name} is torn"
        indexed = any(name.endswith(".index.json") for name in found)
        weights = [
            {n: d for n, d in files.items() if n.endswith(".safetensors")} for files in (found, self.before, self.after)
        ]
        assert not indexed or weights[0] in weights[1:], f"{what}: shards of two checkpoints under one index"
        assert {name for name in self.before if "notes" in name or "logs" in name} <= set(found), what

    def finish(self, what: str, *more: str) -> None:
        """Run again: it ends in the bytes of a run that nothing disturbed, and leaves nothing else. Then as before."""
        done_before = self.require_whole(what)
        done = self.run(*more)
        if done["code"] != 0:
            assert done_before or any(_below(files_of(self.folder / "out"), one) for one in self.world.targets), done[
                "said"
            ]
            assert not more and "not touched" in done["said"], f"{what}: {done['said']}"
            self.require_whole(f"{what}, run again")
        else:
            assert self.after == files_of(self.folder / "out"), f"{what}, run again {more}: {done['said']}"
            self.kept += bool(more) and "begun anew" not in done["said"]
        self.reset()


def _is_below(name: str, target: str) -> bool:
    return name == target or name.startswith(target + "/")


def _below(files: Files, target: str) -> Files:
    return {name: data for name, data in files.items() if _is_below(name, target)}


def _is_debris(name: str, targets: tuple[str, ...]) -> bool:
    return any(name.startswith((f".{target}.isomorph-part", f".{target}.isomorph-journal")) for target in targets)
