"""A GGUF file in parts, `NAME-00001-of-00003.gguf` …: the first holds the metadata, every part says which of how many it is."""

from __future__ import annotations

import contextlib
import re

from isomorph.errors import FormatError, printable
from isomorph.formats.base import Contents
from isomorph.formats.gguf.read import Header, contents_of
from isomorph.formats.gguf.values import Value, to_text, width
from isomorph.formats.links import open_beside
from isomorph.formats.source import Source

COUNT, NUMBER, TENSORS = "split.count", "split.no", "split.tensors.count"
NAME = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
MOST_PARTS = 512
"""Files that are open at once."""


def parts_of(header: Header) -> int:
    """How many parts a file is one of; 1 for a whole one."""
    return _number(header, COUNT) or 1


def read_parts(source: Source, header: Header, count: int) -> tuple[Contents, list[Source]]:
    """The whole of which `source` (its header is read) is a part. FormatError when a part is missing, or of another whole."""
    path = source.path
    match = NAME.fullmatch(path.name)
    own = _number(header, NUMBER) or 0
    if count > MOST_PARTS:
        raise FormatError(
            path, f"one of {count:,} parts; at most {MOST_PARTS} are read", "Merge them with llama-gguf-split"
        )
    if match is None or int(match[3]) != count or int(match[2]) != own + 1:
        raise FormatError(
            path,
            f"part {own + 1} of {count}, but its name does not say so",
            f"Name it NAME-{own + 1:05d}-of-{count:05d}.gguf, beside the others",
        )
    names = [f"{match[1]}-{number:05d}-of-{count:05d}.gguf" for number in range(1, count + 1)]
    missing = [name for name in names if not (path.parent / name).exists()]
    if missing:
        listed = ", ".join(printable(name) for name in missing[:5]) + (
            f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        )
        raise FormatError(path, f"part {own + 1} of {count}; missing beside it: {listed}", "Fetch all parts")
    with contextlib.ExitStack() as opened:
        sources = []
        headers = []
        for number, name in enumerate(names):
            if number == own:
                part, said = source, header
            else:
                part = open_beside(path.parent, name)
                opened.callback(part.close)
                said = Header(part)
            if (_number(said, COUNT) or 1, _number(said, NUMBER) or 0) != (count, number):
                raise FormatError(
                    part.path, f"is not part {number + 1} of {count}, as its name says", "Fetch all parts of one split"
                )
            sources.append(part)
            headers.append(said)
        contents = contents_of(headers)
        told = _number(headers[0], TENSORS)
        if told is not None and told != len(contents.tensors):
            raise FormatError(
                headers[0].source.path, f"says {told:,} tensors, its {count} parts hold {len(contents.tensors):,}"
            )
        opened.pop_all()
    left_out = {f"gguf:{key}" for key in (COUNT, NUMBER, TENSORS)}
    metadata = {key: text for key, text in contents.metadata.items() if key not in left_out}
    return Contents(contents.files, contents.tensors, contents.locations, metadata, format=contents.format), sources


def _number(header: Header, key: str) -> int | None:
    """A value that must be a whole number; None where there is none."""
    value: Value | None = header.values.get(key)
    if value is None:
        return None
    said = to_text(value)
    if width(value.kind) is None or said[0] not in "ui" or said.partition(" ")[2].startswith("-"):
        raise FormatError(header.source.path, f"its {key} is {printable(said[:40])}, not a number")
    return int.from_bytes(value.raw, "little")
