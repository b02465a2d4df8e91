"""Links inside the folder of a checkpoint: whoever made the folder must not choose which other files of this machine are read.

Followed are links to a file beside the link, and those of which the hub's cache is made (`../../blobs/<hash>`), not chains.
A path that the user names is followed wherever it leads, and so is a hard link, which is a file like any other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from isomorph.errors import ADVICE, FormatError, UnsafeError, printable
from isomorph.formats.source import Source, open_source
from isomorph.stores.url import Url

BLOB = re.compile(r"(?:\.\./){1,8}blobs/[0-9a-f]{32,64}")
"""How a file of the hub's cache is linked: `../../blobs/<hash>`."""


def leads_outside(path: Path) -> str | None:
    """Where a symbolic link leads, when that is not allowed; None for what is no link, or an allowed one."""
    if not path.is_symlink():
        return None
    link = str(path.readlink())
    if BLOB.fullmatch(link) or not ("/" in link or "\\" in link):
        return None if not (path.parent / link).is_symlink() else link
    return link


def open_beside(folder: Path, name: str, *, advice: str = "copy the file here if it is meant") -> Source:
    """Open `folder/name`. UnsafeError when it is a link that leads elsewhere; FormatError as for any file."""
    path = folder / name
    if not path.is_symlink():
        return open_source(path, follow_links=False)
    link = str(path.readlink())
    inside = "/" not in link and "\\" not in link
    if not inside and not BLOB.fullmatch(link):
        raise UnsafeError(
            path,
            f"a link to {printable(link)}, out of its folder",
            f"Only links of the hub's cache (../../blobs/<hash>) are followed; {advice}",
        )
    if not (folder / link).is_symlink() and not (folder / link).exists():
        raise FormatError(path, f"a link to {printable(link)}, which does not exist", "Was a download interrupted?")
    source = Source(folder / link, follow_links=False)
    source.path = path
    return source


def names_in(folder: Path) -> frozenset[str]:
    """The names in a folder of a store, in one request; none of a folder on disk, which is cheaply asked name by name."""
    return frozenset(entry.name for entry in folder.iterdir()) if isinstance(folder, Url) else frozenset()


@contextmanager
def listing(folder: Path) -> Iterator[None]:
    """FormatError for what the system says while a folder is listed."""
    try:
        yield
    except OSError as error:
        problem = f"the folder cannot be listed: {error.strerror}"
        raise FormatError(folder, problem, ADVICE.get(error.errno or 0)) from None


def require_beside(path: Path, names: Sequence[str], whole: str) -> None:
    """FormatError that counts and names those of `names` that do not lie beside `path`; `whole` is what they all are."""
    with listing(path.parent):
        present = {entry.name for entry in path.parent.iterdir()}
    missing = [name for name in names if name not in present]
    if missing:
        raise FormatError(
            path,
            f"{len(missing):,} of {whole} {'is' if len(missing) == 1 else 'are'} missing: "
            + ", ".join(printable(name) for name in missing[:5]),
            "Fetch them into the same folder",
        )
