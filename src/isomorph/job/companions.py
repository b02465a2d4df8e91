"""Beside the weights. What lies there and belongs to them is copied folder to folder; code, pickles, old indexes, and links that
lead out of the folder are listed. Where a layout of the catalogue is written, its config.json is made."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isomorph.errors import FormatError
from isomorph.formats.links import leads_outside
from isomorph.job.config import config_text, read_config
from isomorph.stores.url import is_remote
from isomorph.tensors import DType

if TYPE_CHECKING:
    from isomorph.job.port import Port
    from isomorph.plan.plan import Plan

CONFIG = "config.json"
CONFIGS = (CONFIG, "params.json")
COPIED = ("*.json", "*.txt", "*.model", "*.jinja", "README*", "LICENSE*")
NOT_COPIED = ("*.index.json", "*.index.*.json", "*.weights.json")
TORCH_NAMES = {
    "f64": "float64",
    "f32": "float32",
    "f16": "float16",
    "bf16": "bfloat16",
    "f8e4m3": "float8_e4m3fn",
    "f8e5m2": "float8_e5m2",
}
CONFIG_DTYPES = ("torch_dtype", "dtype")


@dataclass(frozen=True)
class Companions:
    """Names of files beside the weights: those copied, and those left where they were."""

    copied: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    written: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    """What a library that loads the result asks for, and that is not there: `tokenizer (tokenizer.json or vocab.txt)`."""


@dataclass(frozen=True)
class Written:
    """What is written beside the weights besides copies: config.json, where the target's layout has one."""

    config: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, port: Port, plan: Plan) -> Written:
        """What belongs beside the result of a port. Raises MorphError (kind `config`) for facts that nobody states."""
        if port.route is None:
            return cls()
        from isomorph.layouts.config import port_config

        floats = Counter(target.spec.dtype.name for target in plan.targets.values() if target.spec.dtype.is_float)
        common = floats.most_common(1)[0][0] if floats else ""
        return cls(port_config(port.route, TORCH_NAMES.get(common)))

    @property
    def names(self) -> tuple[str, ...]:
        return () if self.config is None else (CONFIG,)

    def into(self, folder: Path) -> tuple[str, ...]:
        """Write it there, synced; the names."""
        if self.config is None:
            return ()
        path = folder / CONFIG
        path.write_text(config_text(self.config), encoding="utf-8")
        _sync(path)
        return self.names


def for_route(companions: Companions, port: Port, names: Iterable[str]) -> Companions:
    """The companions of a conversion between two layouts: the source's config is of its own layout, and stays where it is.

    `names` are the files that are made for the target.
    """
    if port.route is None:
        return companions
    from isomorph.layouts.config import missing_files

    same = port.route.source.layout == port.route.target
    taken = CONFIGS if not same else ()
    copied = tuple(name for name in companions.copied if name not in taken)
    left = tuple(name for name in companions.copied if name in taken and name not in names)
    missing = tuple(missing_files(port.route.target, [*copied, *names]))
    return replace(companions, copied=copied, left=(*left, *companions.left), missing=missing)


def find_companions(folder: Path, weights: Iterable[Path]) -> Companions:
    """Sort the entries of a checkpoint's folder; the files that the weights were read from are neither copied nor left."""
    read = {path.name for path in weights}
    copied: list[str] = []
    left: list[str] = []
    for entry in sorted(folder.iterdir(), key=lambda one: one.name):
        if entry.name in read:
            continue
        wanted = any(fnmatch(entry.name, pattern) for pattern in COPIED)
        refused = any(fnmatch(entry.name, pattern) for pattern in NOT_COPIED)
        is_ours = entry.is_file() and leads_outside(entry) is None
        (copied if wanted and not refused and is_ours else left).append(entry.name)
    return Companions(tuple(copied), tuple(left))


def copy_companions(companions: Companions, source: Path, target: Path, cast: DType | None) -> Companions:
    """Copy into `target` what is not there yet, synced; in config.json, `torch_dtype` and `dtype` follow `cast`."""
    copied = []
    for name in companions.copied:
        if (target / name).exists():
            continue
        config = _config_with_dtype(source / name, cast) if name == CONFIG and cast is not None else None
        if config is not None:
            (target / name).write_text(config, encoding="utf-8")
        else:
            _copy(source / name, target / name)
        _sync(target / name)
        copied.append(name)
    return replace(companions, copied=tuple(copied))


def _copy(path: Path, target: Path) -> None:
    if is_remote(path) or is_remote(target):
        target.write_bytes(path.read_bytes())
    else:
        shutil.copyfile(path, target)


def _sync(path: Path) -> None:
    """Wait until what was written there is on the disk; a store says so itself."""
    if is_remote(path):
        return
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _config_with_dtype(path: Path, cast: DType) -> str | None:
    """The text of config.json with its dtypes set; None when it is no JSON object or names no dtype."""
    try:
        config = read_config(path)
    except FormatError:
        return None
    if not _set_dtype(config, TORCH_NAMES[cast.name]):
        return None
    return config_text(config)


def _set_dtype(config: dict[str, Any], name: str) -> bool:
    changed = False
    for key, value in config.items():
        if key in CONFIG_DTYPES and isinstance(value, str):
            config[key] = name
            changed = True
        elif isinstance(value, dict) and key.endswith("config"):
            changed = _set_dtype(value, name) or changed
    return changed
