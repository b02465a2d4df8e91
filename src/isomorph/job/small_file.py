"""A small file of what was found (a morph, a plan, a report): nothing is overwritten unasked, and a failure names the file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from isomorph.errors import IsomorphError, RefusedError

TAKEN = "Give --overwrite (in Python overwrite=True) to replace it, or another name"


def check_free(
    path: str | os.PathLike[str],
    what: str,
    *,
    overwrite: bool = False,
    replaces: Callable[[str], bool] | None = None,
    advice: str = TAKEN,
) -> None:
    """RefusedError where `what` would replace a file, or has no folder to lie in: to be asked before the work begins.

    A file of which `replaces` is true is one of the same kind, which a new one may replace.
    """
    target = Path(path)
    if target.is_dir():
        raise RefusedError(path, "is a folder", f"Name the {what} in it")
    is_there = target.exists() or target.is_symlink()
    if is_there and not overwrite and not (replaces is not None and replaces(os.fspath(path))):
        raise RefusedError(path, "exists", advice)
    if not target.parent.is_dir():
        raise RefusedError(path, f"cannot be written: the folder {target.parent} does not exist", "Make it first")


@contextmanager
def named(path: str | os.PathLike[str]) -> Iterator[None]:
    """RefusedError that names `path`, for what the system says of the hidden file beside it under which it is written."""
    try:
        yield
    except IsomorphError:
        raise
    except OSError as error:
        said_of = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else None
        if said_of is not None and not (said_of.name.startswith(".") and said_of.parent == Path(path).parent):
            raise
        raise RefusedError.by_system(path, error) from None


def write_text(
    text: str, path: str | os.PathLike[str], *, replace: Callable[[Path, Path], object] = Path.replace
) -> None:
    """Write the text under a temporary name, synced, and let `replace` give it its own. Raises RefusedError."""
    target = Path(path)
    temporary = target.with_name(f".{target.name[:64]}.{os.getpid()}")
    try:
        with named(path):
            with temporary.open("w", encoding="utf-8", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            replace(temporary, target)
    finally:
        with suppress(OSError):  # as of a file that is not there, on a file system that is not written to
            temporary.unlink()
