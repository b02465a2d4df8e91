"""External data of ONNX: tensors in files beside the model, each with `location`, `offset`, `length` and `checksum`.

The three layers of checks are those of the onnx library: the path is relative and stays below the model's folder by its words;
no folder on the way is a symbolic link, and the file is one only as `links.py` allows it; the file is a regular one, and the range
lies in it. Folders are walked by their descriptors, so that nothing can be put in their place between check and use.
"""

from __future__ import annotations

import os
from pathlib import Path

from isomorph.errors import FormatError, UnsafeError, printable
from isomorph.formats.base import Location
from isomorph.formats.links import open_beside
from isomorph.formats.source import Source, open_error
from isomorph.stores.url import Url
from isomorph.tensors import TensorSpec

MOST_FILES = 10_000
MOST_PARTS = 32


class Beside:
    """The files of external data of one model, opened when first named. File number 0 is the model itself."""

    def __init__(self, model: Path) -> None:
        self._model = model
        self._numbers: dict[str, int] = {}
        self.sources: list[Source] = []
        self.checksums = 0

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(source.path for source in self.sources)

    def where(self, name: str, spec: TensorSpec, said: dict[str, str]) -> Location:
        """The place of a tensor. FormatError for what does not fit; UnsafeError for a path out of the folder."""
        location = said.get("location", "")
        if not location:
            raise self._wrong(name, "its data are external, and no file is named")
        begin = self._number(name, "offset", said.get("offset", "0"))
        number = self._open(name, location)
        size = self.sources[number - 1].size
        length = self._number(name, "length", said["length"]) if "length" in said else size - begin
        if length != spec.nbytes:
            raise self._wrong(
                name,
                f"{spec} takes {spec.nbytes:,} bytes, and {max(length, 0):,} are given to it in {printable(location)}",
            )
        if begin + length > size:
            raise self._wrong(
                name,
                f"bytes {begin:,} to {begin + length:,} of {printable(location)} are needed, which has {size:,}: truncated?",
            )
        self.checksums += "checksum" in said
        return Location(number, begin)

    def close(self) -> None:
        for source in self.sources:
            source.close()

    def _number(self, name: str, what: str, text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            raise self._wrong(name, f"the {what} {printable(text, 40)!r} of its data is no number of bytes")
        return int(text)

    def _open(self, name: str, location: str) -> int:
        if location not in self._numbers:
            if len(self.sources) >= MOST_FILES:
                raise FormatError(
                    self._model, f"it names more than {MOST_FILES:,} files of external data", "Save them into one file"
                )
            parts = self._parts(name, location)
            try:
                self.sources.append(open_below(self._model.parent, parts))
            except FormatError as error:
                problem = f"initialiser `{printable(name)}`: its data cannot be opened: {error.path}: {error.problem}"
                raise type(error)(self._model, problem, error.advice) from None
            self._numbers[location] = len(self.sources)
        return self._numbers[location]

    def _parts(self, name: str, location: str) -> list[str]:
        """The folders and the file of a path, all of whose words lead downward."""
        parts = location.removeprefix("./").split("/")
        if (
            any(part in ("", ".", "..") for part in parts)
            or len(parts) > MOST_PARTS
            or not location.isprintable()
            or any(letter in location for letter in "\\:")
        ):
            raise UnsafeError(
                self._model,
                f"initialiser `{printable(name)}`: its data lie in {printable(location, 120)!r}, "
                "which is no file below the model's folder",
                "Nothing was read from there",
            )
        return parts

    def _wrong(self, name: str, problem: str) -> FormatError:
        return FormatError(self._model, f"initialiser `{printable(name)}`: {problem}")


def open_below(folder: Path, parts: list[str]) -> Source:
    """Open `folder/parts[0]/…/parts[-1]`. UnsafeError where a folder on the way is a link, or the file one that leads elsewhere."""
    where = folder
    if isinstance(folder, Url):  # a store has no links
        return open_beside(folder.joinpath(*parts[:-1]), parts[-1])
    walked = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts[:-1]:
            where = where / part
            try:
                below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=walked)
            except OSError as error:
                if where.is_symlink():
                    raise UnsafeError(
                        printable(str(where)),
                        "a link to a folder, which is not followed for external data",
                        "Copy the folder here if it is meant",
                    ) from None
                raise open_error(where, error) from None
            os.close(walked)
            walked = below
        source = open_beside(where, parts[-1])
        try:
            if not os.path.samestat(os.fstat(walked), where.stat()):
                raise UnsafeError(printable(str(where)), "another folder took its name while it was opened")
        except BaseException:
            source.close()
            raise
        return source
    finally:
        os.close(walked)
