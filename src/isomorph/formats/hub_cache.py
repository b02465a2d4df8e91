"""The hub's cache: `models--org--name` holds `blobs/`, `refs/main` (a revision) and `snapshots/<revision>/` with links to blobs."""

from __future__ import annotations

import re
from pathlib import Path

from isomorph.errors import FormatError, printable
from isomorph.stores.url import is_remote

SNAPSHOTS, MAIN = "snapshots", "refs/main"
REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")
MODEL = re.compile(r"models--[^/]+")


def within(folder: Path) -> Path:
    """The snapshot that a model's folder in the hub's cache stands for: that of `main`, or the only one; other folders as they are.

    FormatError when there are several and no `main`, or when the snapshot of `main` is not there.
    """
    snapshots = folder / SNAPSHOTS
    if is_remote(folder) or not _is_own(snapshots) or not (_is_own(folder / "blobs") or _is_own(folder / "refs")):
        return folder
    there = sorted(each.name for each in snapshots.iterdir() if _is_own(each))
    listed = ", ".join(printable(name, 60) for name in there[:5]) + (f" and {len(there) - 5} more" if there[5:] else "")
    revision = _main(folder)
    if revision in there:
        return snapshots / revision
    if revision is None and len(there) == 1:
        return snapshots / there[0]
    if revision is not None:
        held = f"it holds {listed}" if there else "it holds none"
        problem = f"its {MAIN} names the revision {printable(revision, 60)}, of which there is no snapshot ({held})"
        raise FormatError(folder, f"a model in the hub's cache; {problem}", "Download it again, or name a snapshot")
    raise FormatError(
        folder,
        f"a model in the hub's cache with {f'{len(there)} snapshots ({listed})' if there else 'no snapshot'} and no {MAIN}",
        "Name the snapshot that is meant" if there else "Download it again",
    )


def models_in(folder: Path) -> list[str]:
    """The folders of models, where `folder` is the hub's cache as a whole."""
    return sorted(each.name for each in folder.iterdir() if MODEL.fullmatch(each.name) and _is_own(each))


def _main(folder: Path) -> str | None:
    path = folder / MAIN
    try:
        if path.is_symlink() or not path.is_file():
            return None
        with path.open("rb") as file:
            text = file.read(512).decode("ascii", "replace").strip()
    except OSError:
        return None
    return text if REVISION.fullmatch(text) else None


def _is_own(path: Path) -> bool:
    """True for a folder that is no link."""
    try:
        return path.is_dir() and not path.is_symlink()
    except OSError:
        return False
