"""Folders for formats of several files: the input is one of them, the others are there, and so is what must never be opened."""

from __future__ import annotations

import atexit
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from fuzz.harness import Finding, read_tensors, source_of
from isomorph.formats.base import Contents
from isomorph.formats.nested import enter
from isomorph.formats.source import Source


def folder_of(files: Mapping[str, bytes], suffix: str) -> Path:
    """A folder (in memory, where there is one) of these files; and a pipe, a folder and links that lead out, all of that suffix."""
    folder = Path(tempfile.mkdtemp(prefix="isomorph-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    first = next(iter(files), "none")
    (folder / f"folder{suffix}").mkdir()
    os.mkfifo(folder / f"pipe{suffix}")
    (folder / f"out{suffix}").symlink_to("/etc/passwd")
    (folder / f"up{suffix}").symlink_to(f"../up{suffix}")
    (folder / f"in{suffix}").symlink_to(first)
    (folder / "linked").symlink_to("/etc")
    return folder


def names_in(suffix: str) -> list[str]:
    """Names that an input may give for a file beside it, good and bad ones."""
    own = [
        "in",
        "out",
        "up",
        "pipe",
        "folder",
        "../a",
        "/etc/a",
        "./a",
        "linked/a",
        "a\u202e",
        "\x1b[31m",
        "a\0",
        "c:\\a",
        "",
    ]
    return [
        *(name + suffix for name in own),
        ".",
        "..",
        "/etc/passwd",
        "linked/passwd",
        "folder" + suffix + "/a",
        "a" + suffix + "/",
    ]


def read_beside(
    read: Callable[[Source], tuple[Contents, list[Source]]], data: bytes, folder: Path, name: str
) -> dict[str, np.ndarray]:
    """Read `data` as the file `name` of a folder, and every tensor of a sane size. Finding when a file elsewhere was opened."""
    source = source_of(data, name)
    source.path = folder / name
    try:
        contents, sources = read(source)
        try:
            for one in sources:
                if one is not source and one.fileno() >= 0:
                    require_inside(one, folder)
            return read_tensors(enter(contents, None, ()), sources)
        finally:
            for one in sources:
                one.close()
    finally:
        source.close()


def require_inside(source: Source, folder: Path) -> None:
    where = Path(f"/proc/self/fd/{source.fileno()}").readlink()
    if folder not in where.parents or not stat.S_ISREG(where.stat().st_mode):
        raise Finding(f"{where} was opened")
