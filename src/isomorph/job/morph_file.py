"""The text of a morph -> a file, whole or not at all; nothing is overwritten unasked."""

from __future__ import annotations

import os
from pathlib import Path

from isomorph.errors import RefusedError
from isomorph.job import small_file


def check_free(path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """RefusedError where a morph would replace something, or has no folder to lie in: to be asked before the work begins."""
    small_file.check_free(path, ".morph file", overwrite=overwrite)


def write_morph(text: str, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write the text under a temporary name, synced, and give it its own last. Raises RefusedError, OSError."""
    check_free(path, overwrite=overwrite)
    try:
        small_file.write_text(text, path, replace=Path.replace if overwrite else _name)
    except UnicodeEncodeError as error:
        raise RefusedError(
            path, f"cannot be written: a tensor's name is no text that UTF-8 has ({error.reason})"
        ) from None


def _name(temporary: Path, target: Path) -> None:
    """Give a file its name unless something took it since; where there are no links, as nearly so as can be."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise RefusedError(target, "exists", small_file.TAKEN) from None
    except OSError:
        check_free(target, overwrite=False)
        temporary.replace(target)
