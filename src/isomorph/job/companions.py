"""Folder to folder: what lies beside the weights and belongs to them is copied; code, pickles, old indexes, and links that lead
out of the folder are listed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from isomorph.formats.links import leads_outside
from isomorph.tensors import DType

COPIED = ("*.json", "*.txt", "*.model", "*.jinja", "README*", "LICENSE*")
NOT_COPIED = ("*.index.json",)
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
    import os

    copied = []
    for name in companions.copied:
        if (target / name).exists():
            continue
        config = _config_with_dtype(source / name, cast) if name == "config.json" and cast is not None else None
        if config is not None:
            (target / name).write_text(config, encoding="utf-8")
        else:
            shutil.copyfile(source / name, target / name)
        with (target / name).open("rb") as file:
            os.fsync(file.fileno())
        copied.append(name)
    return Companions(tuple(copied), companions.left)


def _config_with_dtype(path: Path, cast: DType) -> str | None:
    """The text of config.json with its dtypes set; None when it is no JSON object or names no dtype."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(config, dict) or not _set_dtype(config, TORCH_NAMES[cast.name]):
        return None
    return json.dumps(config, indent=2, ensure_ascii=False) + "\n"


def _set_dtype(config: dict[str, Any], name: str) -> bool:
    changed = False
    for key, value in config.items():
        if key in CONFIG_DTYPES and isinstance(value, str):
            config[key] = name
            changed = True
        elif isinstance(value, dict) and key.endswith("config"):
            changed = _set_dtype(value, name) or changed
    return changed
