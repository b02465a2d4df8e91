"""The text of a morph -> a file, whole or not at all; nothing is overwritten unasked."""

from __future__ import annotations

import os
from pathlib import Path

from isomorph.errors import RefusedError

TAKEN = "Give --overwrite (in Python overwrite=True) to replace it, or another name"


def check_free(path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """RefusedError where a morph would replace something, or has no folder to lie in: to be asked before the work begins."""
    target = Path(path)
    if target.is_dir():
        raise RefusedError(path, "is a folder", "Name the .morph file")
    if (target.exists() or target.is_symlink()) and not overwrite:
        raise RefusedError(path, "exists", TAKEN)
    if not target.parent.is_dir():
        raise RefusedError(path, f"cannot be written: the folder {target.parent} does not exist")


def write_morph(text: str, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write the text under a temporary name, synced, and give it its own last. Raises RefusedError, OSError."""
    check_free(path, overwrite=overwrite)
    target = Path(path)
    temporary = target.with_name(f".{target.name[:64]}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            temporary.replace(target)
        else:
            _name(temporary, target)
    except UnicodeEncodeError as error:
        raise RefusedError(
            path, f"cannot be written: a tensor's name is no text that UTF-8 has ({error.reason})"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def _name(temporary: Path, target: Path) -> None:
    """Give a file its name unless something took it since; where there are no links, as nearly so as can be."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise RefusedError(target, "exists", TAKEN) from None
    except OSError:
        check_free(target, overwrite=False)
        temporary.replace(target)
