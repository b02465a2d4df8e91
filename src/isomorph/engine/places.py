"""Where a target goes: refused or not, its temporary name beside it, and the step to its final name.

out/model.pth     is written as out/.model.pth.isomorph-part, then linked to its name: a file that appeared meanwhile stays
out/              is written as .out.isomorph-part/, then renamed; with overwrite, swapped with the folder that is there
/mnt/disk/        a folder that is a disk of its own: written as /mnt/disk/.isomorph-part/, its files then moved up one by one
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from isomorph.engine.exchange import exchange
from isomorph.errors import RefusedError
from isomorph.formats.base import OutputLayout


def human(nbytes: float) -> str:
    """`1.21 GB`: powers of a thousand, three digits."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if nbytes < 999.5 or unit == "TB":
            return f"{nbytes:.0f} {unit}" if unit == "bytes" else f"{nbytes:.3g} {unit}"
        nbytes /= 1000
    raise AssertionError("unreachable")


WEIGHTS = frozenset({".safetensors", ".bin", ".pt", ".pth", ".npz", ".pdparams"})
"""Suffixes of files that a reader would take for the weights of a folder."""


class Place:
    """A target, and the temporary name under which it is written."""

    def __init__(
        self, target: Path, layout: OutputLayout, sources: Iterable[Path], *, overwrite: bool, resume: bool = False
    ) -> None:
        """RefusedError where the target is its own source, or exists and is not to be overwritten, or has no folder to lie in.

        With `resume` an existing target that has all its files is not refused yet, but `is_there`: it may be finished already.
        """
        self.target = target.absolute()
        if layout.is_folder and self.target.is_symlink() and self.target.is_dir():
            self.target = self.target.resolve()  # a link to a folder stands for the folder
        self.is_disk = layout.is_folder and os.path.ismount(self.target)
        self.shown = target
        self.layout = layout
        self.overwrite = overwrite
        self.sources = tuple(sources)
        self.parent = self.target if self.is_disk else self.target.parent
        self.temporary = self._beside("part")
        self.journal = self._beside("journal")
        self.is_there = False
        try:
            self.check()
        except RefusedError:
            self.is_there = resume and all(os.path.lexists(final) for final in self.finals)
            if not self.is_there or any(_same_file(final, one) for final in self.finals for one in self.sources):
                raise

    def _beside(self, kind: str) -> Path:
        name = "" if self.is_disk else self.target.name
        if len(os.fsencode(name)) > 200:
            name = hashlib.blake2b(os.fsencode(name), digest_size=16).hexdigest()
        return self.parent / f"{'.' if name else ''}{name}.isomorph-{kind}"

    @property
    def finals(self) -> tuple[Path, ...]:
        """The files that will be there at the end."""
        return tuple(self.target / file.name for file in self.layout.files) if self.layout.is_folder else (self.target,)

    @property
    def temporaries(self) -> tuple[Path, ...]:
        if self.layout.is_folder:
            return tuple(self.temporary / file.name for file in self.layout.files)
        return (self.temporary,)

    def check(self) -> None:
        """Refuse what must not be written. Touches nothing."""
        if not self.parent.is_dir():
            nearest = next(one for one in (self.parent, *self.parent.parents) if os.path.lexists(one))
            if not nearest.is_dir():
                raise RefusedError(
                    self.shown, f"cannot be written: {nearest} is a file, not a folder", "Give another name"
                )
            raise RefusedError(
                self.shown,
                f"cannot be written: there is no folder {self.shown.parent}",
                f"mkdir -p {self.shown.parent}",
            )
        for file in self.layout.files:
            if self.layout.is_folder and (Path(file.name).name != file.name or file.name in ("", ".", "..")):
                raise RefusedError(self.shown, f"cannot hold a file of the name {file.name!r}")
        for final in self.finals:
            for source in self.sources:
                if _same_file(final, source):
                    shown = final if self.layout.is_folder else self.shown
                    other = "" if source.absolute() == final else f" {source} by another name"
                    raise RefusedError(shown, f"is the source{other}; not touched", "Give another name")
        if not os.path.lexists(self.target):
            return
        if self.layout.is_folder:
            if not self.target.is_dir():
                raise RefusedError(self.shown, "is a file, not a folder; not touched", "Give another name")
            if not self.overwrite and self._holds_others():
                there = [final.name for final in self.finals if os.path.lexists(final)]
                what = f"holds {there[0]} already" if there else "is not empty"
                raise RefusedError(self.shown, f"{what}; not touched", "Use --overwrite, or another name")
            for final in self.finals:
                if final.is_dir() and not final.is_symlink():
                    raise RefusedError(final, "is a folder; not touched", "Give another name")
            stale = sorted(path.name for path in self.target.iterdir() if self._is_other_weights(path))
            if stale:
                raise RefusedError(
                    self.shown,
                    f"holds {', '.join(stale[:5])}{' …' if len(stale) > 5 else ''}, which would stay beside the new files: "
                    "a folder of two checkpoints; not touched",
                    "Remove what is old, or give another folder",
                )
            return
        if self.target.is_dir():
            raise RefusedError(self.shown, "is a folder; not touched", "Give the name of a file in it")
        if not self.overwrite:
            raise self._exists()

    def _holds_others(self) -> bool:
        """True when the folder of the target holds anything but what this run leaves there meanwhile."""
        return any(path not in (self.temporary, self.journal) for path in self.target.iterdir())

    def _is_other_weights(self, path: Path) -> bool:
        """True for weights in the target folder that this run neither writes nor replaces."""
        ours = path in self.finals or path in (self.temporary, self.journal)
        return not ours and (path.suffix in WEIGHTS or path.name.endswith(".index.json"))

    def _exists(self) -> RefusedError:
        found = self.target.lstat()
        return RefusedError(
            self.shown, f"exists ({human(found.st_size)}); not touched", "Use --overwrite, or another name"
        )

    def check_room(self, needed: int) -> None:
        """RefusedError where the file system has less free than the `needed` bytes."""
        found = os.statvfs(self.parent)
        free = found.f_bavail * found.f_frsize
        if needed > free:
            raise self.no_room(needed, free)

    def no_room(self, needed: int, free: int | None = None) -> RefusedError:
        if free is None:
            found = os.statvfs(self.parent)
            free = found.f_bavail * found.f_frsize
        return RefusedError(
            self.shown,
            f"needs {human(needed)}, and {human(free)} are free in {self.parent}: the disk is full",
            "Free some, or write elsewhere",
        )

    def remove_temporary(self) -> None:
        """Remove what an unfinished run left under the temporary name; only ever what is ours by name."""
        if self.temporary.is_symlink() or not self.temporary.is_dir():
            with contextlib.suppress(FileNotFoundError):
                self.temporary.unlink()
        else:
            shutil.rmtree(self.temporary)

    def clear_after(self, number: int) -> None:
        """Remove all of an unfinished folder but its files up to `number`: what the caller put with them may be half a file."""
        if self.layout.is_folder:
            kept = set(self.temporaries[: number + 1])
            for path in self.temporary.iterdir():
                if path not in kept:
                    path.unlink()

    def finish(self) -> None:
        """Give the finished temporary its final name. RefusedError where something has taken it meanwhile."""
        self.check()
        if not self.layout.is_folder:
            self._name_file(self.temporary, self.target)
        elif not self.target.exists() or not any(self.target.iterdir()):
            try:
                self.temporary.rename(self.target)
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise RefusedError(
                        self.shown, "appeared while it was written; not touched", "Use --overwrite, or another name"
                    ) from None
                raise
        elif not self._swap():
            self._replace_files()
        sync_folder(self.parent)

    def _swap(self) -> bool:
        """Swap the new folder with the old one, which goes; False, and nothing done, where it must keep its place.

        What is not ours in the old folder is linked into the new one before. Folders cannot be: where there are some, or where
        somebody stands in the old folder, files are replaced one by one.
        """
        others = [path for path in self.target.iterdir() if path not in (*self.finals, self.temporary, self.journal)]
        if self.is_disk or any(path.is_dir() and not path.is_symlink() for path in others) or _is_here(self.target):
            return False
        if [path.name for path in self.temporary.iterdir()] == [self.finals[0].name]:
            return False  # one file is replaced in one step anyway
        linked: list[Path] = []
        try:
            for path in others:
                new = self.temporary / path.name
                if not os.path.lexists(new):
                    os.link(path, new, follow_symlinks=False)
                    linked.append(new)
            shutil.copystat(self.target, self.temporary)
            sync_folder(self.temporary)
        except OSError:  # a file system without hard links
            for path in linked:
                path.unlink()
            return False
        if not exchange(self.temporary, self.target):
            for path in linked:
                path.unlink()
            return False
        for path in self.temporary.iterdir():  # what came into the old folder in the last moment
            if not os.path.lexists(self.target / path.name):
                path.rename(self.target / path.name)
        sync_folder(self.parent)
        shutil.rmtree(self.temporary)
        return True

    def _replace_files(self) -> None:
        """Move the files up one by one: an old index goes first and the new one comes last, so that no index names mixed shards."""
        ours = set(self.temporaries)
        beside = [path for path in self.temporary.iterdir() if path not in ours]  # what the caller put with them
        if len(self.finals) > 1:
            self.finals[-1].unlink(missing_ok=True)
            sync_folder(self.target)
        for part in (*beside, *self.temporaries):
            part.replace(self.target / part.name)
        sync_folder(self.target)
        shutil.rmtree(self.temporary)

    def _name_file(self, part: Path, final: Path) -> None:
        if self.overwrite:
            part.replace(final)
            return
        try:
            os.link(part, final)
        except FileExistsError:
            raise self._exists() from None
        except OSError:  # a file system without hard links
            if os.path.lexists(final):
                raise self._exists() from None
            part.rename(final)
            return
        part.unlink()


def _is_here(folder: Path) -> bool:
    """True when this process stands in `folder`."""
    try:
        return folder.samefile(os.curdir)
    except OSError:  # where it stood is gone
        return False


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there
        return False


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable, where the file system can. RefusedError when the disk fails at it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno in (errno.EIO, errno.ENOSPC, errno.EDQUOT):
            raise RefusedError(
                folder, f"could not be sent to the disk: {(error.strerror or 'failed').lower()}", "Look after the disk"
            ) from None
    finally:
        os.close(descriptor)
