"""What the catalogue holds: families, their layouts, and each by its name.

>>> find("clip/openai").name
'openai'
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from isomorph.errors import UsageError, near_misses
from isomorph.layouts.family import FILE, Family, read_family
from isomorph.layouts.header import Header, read_header

if TYPE_CHECKING:
    from isomorph.language.morph import Morph

FOLDER = Path(__file__).parent
SUFFIX = ".morph"
PART = "_"
"""Files whose name begins so are parts that layouts `use`, and no layouts."""


@dataclass(frozen=True)
class Entry:
    """A morph of the catalogue: its name in its folder, its text, and what its comments state."""

    name: str
    path: Path

    def __str__(self) -> str:
        return f"{self.path.parent.name}/{self.name}"

    @cached_property
    def text(self) -> str:
        """The morph as it is written."""
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def header(self) -> Header:
        """What its comments state."""
        return read_header(self.text, f"{self}{SUFFIX}", strict=True)


@dataclass(frozen=True)
class Layout(Entry):
    """One way of writing a family's weights. `morph` reads `layout <-> hub`; the hub's own is an identity."""

    family: Family

    def __repr__(self) -> str:
        return f"<layout {self}>"

    @property
    def is_hub(self) -> bool:
        return self.name == self.family.hub

    def is_called(self, name: str) -> bool:
        """Whether that is its name or another that it may be asked for by."""
        return name == self.name or name in self.header.aliases

    @cached_property
    def morph(self) -> Morph:
        """The rules, parsed. Messages call the file `clip/openai.morph`."""
        from isomorph.language.morph import Beside, Morph, Stage, read_module

        return Morph((Stage(read_module(self.path, f"{self}{SUFFIX}"), Beside(self.path.parent)),))

    @property
    def base(self) -> str | None:
        """The prefix that a model without a head is saved without, in this layout's names."""
        return self.family.base if self.is_hub else self.header.base


@cache
def families() -> tuple[str, ...]:
    """The names of all families."""
    return tuple(sorted(folder.parent.name for folder in FOLDER.glob(f"*/{FILE}")))


@cache
def family(name: str) -> Family:
    """A family by its name. Raises UsageError with what is near."""
    if name not in families():
        raise UsageError(f"there is no family `{name}` in the catalogue. {_meant(near_misses(name, families()))}")
    return read_family(FOLDER / name)


@cache
def layouts(name: str) -> tuple[Layout, ...]:
    """The layouts of a family, the hub first."""
    of = family(name)
    found = [
        Layout(path.stem, path, of)
        for path in sorted((FOLDER / name).glob(f"*{SUFFIX}"))
        if not path.name.startswith(PART)
    ]
    return tuple(sorted(found, key=lambda one: (not one.is_hub, one.name)))


SPLICES = "splice"
"""The folder of morphs over several inputs, which are no layouts; `header.inputs` says how the inputs are named."""


@cache
def splices() -> tuple[Entry, ...]:
    """The splices of the catalogue."""
    paths = sorted((FOLDER / SPLICES).glob(f"*{SUFFIX}"))
    return tuple(Entry(path.stem, path) for path in paths if not path.name.startswith(PART))


def hub(name: str) -> Layout:
    """The hub of a family."""
    return next(one for one in layouts(name) if one.is_hub)


def every() -> Iterable[Layout]:
    """All layouts of all families."""
    for name in families():
        yield from layouts(name)


def find(name: str, within: str | None = None) -> Layout:
    """The layout of that name: `clip/openai`, or `openai` within a family.

    Raises UsageError with what is near; without a family, also when several families have a layout of the name.
    """
    head, slash, tail = name.strip().partition("/")
    if slash:
        if head in families():
            return _of_family(head, tail)
        near = near_misses(name, [str(one) for one in every()]) or near_misses(head, families())
        raise UsageError(f"there is no family `{head}` in the catalogue. {_meant(near)}")
    if within is not None:
        return _of_family(within, head)
    if head in families():
        names = ", ".join(str(one) for one in layouts(head)[:6])
        raise UsageError(
            f"`{head}` is a family: write one of its layouts: {names} (`isomorph layouts {head}` lists them)"
        )
    found = [one for one in every() if one.is_called(head)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(
            f"`{head}` is a layout of {len(found)} families: write one of {', '.join(str(one) for one in found[:12])}"
        )
    near = near_misses(head, dict.fromkeys([*families(), *(one.name for one in every())]))
    raise UsageError(f"there is no layout `{head}` in the catalogue. {_meant(near)}")


def _of_family(family_name: str, name: str) -> Layout:
    for one in layouts(family_name):
        if one.is_called(name):
            return one
    known = [one.name for one in layouts(family_name)]
    near = near_misses(name, known)
    there = ", ".join(known[:12]) + (f" … (`isomorph layouts {family_name}` lists them)" if len(known) > 12 else "")
    meant = f"Did you mean {' or '.join(near)}?" if near else f"There are {there}"
    raise UsageError(
        f"{family_name} has no layout `{name}`. {meant}" if name else f"write {family_name}/LAYOUT. {meant}"
    )


def _meant(near: Iterable[str]) -> str:
    near = list(near)
    return f"Did you mean {' or '.join(near)}?" if near else "`isomorph layouts` lists them"
