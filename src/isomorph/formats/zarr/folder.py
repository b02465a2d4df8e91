"""Which folders are Orbax's, T5X's or zarr's: trees of folders in which each array has one of its own, or OCDBT."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from isomorph.errors import FormatError, printable
from isomorph.formats.links import open_beside
from isomorph.formats.sniff import GROUP
from isomorph.formats.source import Source
from isomorph.formats.zarr.ocdbt import MANIFEST
from isomorph.formats.zarr.orbax import DESCRIPTIONS, LARGEST_ARRAY_METADATA, METADATA, Inline
from isomorph.formats.zarr.read import is_group

STEP = "_CHECKPOINT_METADATA"
"""What Orbax puts into the folder of a step and of an item."""

MOST_LEVELS = 4


def is_beside_arrays(path: Path) -> bool:
    """True for T5X's `checkpoint`: folders of arrays lie beside it."""
    return path.name == "checkpoint" and any(
        (each / name).is_file() for each in path.parent.iterdir() if not each.is_symlink() for name in DESCRIPTIONS
    )


def arrays_in(folder: Path, names: Sequence[str], levels: int = MOST_LEVELS) -> Path | None:
    """The file that says what the folder, or the only step and item in it, holds; None when it is no such folder. A folder of
    arrays alone has none: it is then called as if it were a group of zarr 2, and `open_group` makes up the file.

    FormatError when it holds several steps, or several items.
    """
    for name in (METADATA, MANIFEST, GROUP, *DESCRIPTIONS):
        if name in names:
            return folder / name
    if "checkpoint" in names and is_beside_arrays(folder / "checkpoint"):
        return folder / "checkpoint"
    inner = [
        each
        for each in sorted(folder.iterdir())
        if each.is_dir()
        and not each.is_symlink()
        and any((each / name).is_file() for name in (METADATA, MANIFEST, STEP, GROUP, *DESCRIPTIONS))
    ]
    if not inner or not levels:
        return None
    if len(inner) == 1:
        return arrays_in(inner[0], [each.name for each in inner[0].iterdir() if each.is_file()], levels - 1)
    if all(_is_array(each) for each in inner):
        return folder / GROUP  # arrays that nothing groups: `open_group` stands in for the file
    shown = ", ".join(printable(each.name) for each in inner[:10]) + (
        f" and {len(inner) - 10} more" if inner[10:] else ""
    )
    raise FormatError(
        folder, f"holds several checkpoints of Orbax (steps or items): {shown}", "Name the one that is meant"
    )


def open_group(found: Path) -> Source:
    """The `.zgroup` that `arrays_in` found. Of arrays that no file groups, one in memory."""
    if found.exists():
        return open_beside(found.parent, found.name)
    group = Inline(found)
    group.put(b'{"zarr_format": 2}')
    return group


def _is_array(folder: Path) -> bool:
    """True for the folder of one array."""
    if (folder / ".zarray").is_file():
        return True
    described = folder / "zarr.json"
    if not described.is_file():
        return False
    source = Source(described, follow_links=False)
    try:
        return source.size <= LARGEST_ARRAY_METADATA and not is_group(described, source.read(0, source.size))
    finally:
        source.close()
