"""One item of a `.distcp` file: the torch zip that `torch.save(tensor)` wrote from a byte of the file on."""

from __future__ import annotations

from typing import Any

from isomorph.errors import FormatError, SourceChanged
from isomorph.formats.base import Location
from isomorph.formats.containers import TENSOR_ALONE
from isomorph.formats.source import Source
from isomorph.formats.torch_zip import read
from isomorph.formats.window import Window
from isomorph.tensors import TensorSpec


def read_item(file: Source, offset: int, nbytes: int, name: str) -> tuple[TensorSpec, Location]:
    """The one tensor of an item; its place is counted from the item's first byte. FormatError when the item is anything else."""
    try:
        window = Window(file, offset, nbytes)
        contents = read(window)
        if list(contents.tensors) != [TENSOR_ALONE]:
            raise FormatError(file.path, "it holds no single tensor")
    except FormatError as error:
        kind: Any = type(error)
        raise kind(
            file.path, f"the item of {name} at byte {offset:,} ({nbytes:,} bytes): {error.problem}", error.advice
        ) from None
    except SourceChanged:
        raise
    members = {
        f"{offset}/{member.name}": member._replace(offset=member.offset + offset, name=f"{name[1:-1]}/{member.name}")
        for member in (window.members or {}).values()
    }
    if file.members is None:
        file.members = {}
    file.members.update(members)  # type: ignore[attr-defined]
    return contents.tensors[TENSOR_ALONE], contents.locations[TENSOR_ALONE]
