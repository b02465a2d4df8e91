"""Nested checkpoints: `PATH#state_dict`, and the single nested state dict that is entered by itself.

Worked example: `{"epoch": 3, "state_dict": {"conv": {"w": …}, "b": …}}` holds the tensors `state_dict/conv/w` and
`state_dict/b` in the containers `state_dict` and `state_dict/conv`. Nothing at the top is a tensor and one container
holds them all, so it is entered: the tensors are `conv/w` and `b`. The leaf `epoch` keeps its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from isomorph.errors import FormatError, near_misses, printable
from isomorph.formats.base import Contents

SEPARATOR = "/"
PIECE = "."
"""What ends the pieces of a module's name: `#model` also enters `model.`, where no container is called so."""


def join(*keys: object) -> str:
    """The name of what lies under these keys and list indices."""
    return SEPARATOR.join(str(key) for key in keys)


def enter(contents: Contents, inner: str | None, notes: tuple[str, ...] = ()) -> Contents:
    """`contents` seen from inside container `inner`; None enters a single nested state dict by itself, `""` stays outside."""
    contents = replace(contents, notes=(*notes, *contents.notes))
    if inner == "" or (inner is None and contents.is_tree):
        return contents
    if inner is not None:
        wanted = inner.strip(SEPARATOR)
        if wanted in contents.containers:
            return _inside(contents, wanted, f"entered `{printable(wanted)}`")
        before = wanted.rstrip(PIECE) + PIECE
        only = _single(contents)
        for place in (contents, contents if only is None else _inside(contents, only, f"entered `{printable(only)}`")):
            if any(name.startswith(before) for name in place.tensors):
                return _inside(place, before, f"only the tensors below `{printable(before)}`")
        raise _no_such(contents, wanted)
    only = _single(contents)
    if only is None:
        outer = [name for name in contents.containers if SEPARATOR not in name]
        if outer:
            counts = ", ".join(f"`{printable(name)}` ({_count(contents, name):,})" for name in outer[:8])
            said = f"tensors lie in {counts}; #NAME after the path enters one"
            contents = replace(contents, notes=(*contents.notes, said))
        return contents
    return _inside(contents, only, f"entered `{printable(only)}`, which holds all tensors")


def _single(contents: Contents) -> str | None:
    """The one container that is a state dict (it holds tensors itself) and holds all of them; None when there is none.

    Wrappers around it are passed through. A tree of modules, whose containers hold only containers where it branches,
    has no such place, and keeps its whole names.
    """
    found = ""
    while True:
        prefix = found + SEPARATOR if found else ""
        if any(SEPARATOR not in name[len(prefix) :] for name in contents.tensors if name.startswith(prefix)):
            return found or None
        parts = [
            name
            for name in contents.containers
            if name.startswith(prefix) and name != found and SEPARATOR not in name[len(prefix) :]
        ]
        if len(parts) != 1 or not all(name.startswith(parts[0] + SEPARATOR) for name in contents.tensors):
            return None
        found = parts[0]


def _inside(contents: Contents, container: str, note: str) -> Contents:
    prefix = container if container.endswith(PIECE) else container + SEPARATOR
    tensors = {name.removeprefix(prefix): spec for name, spec in contents.tensors.items() if name.startswith(prefix)}
    outside = len(contents.tensors) - len(tensors)
    if outside:
        note += f"; {outside:,} tensors outside it are not read"
    return replace(
        contents,
        tensors=tensors,
        locations={name: contents.locations[prefix + name] for name in tensors},
        leaves=_stripped(contents.leaves, prefix),
        containers=tuple(name.removeprefix(prefix) for name in contents.containers if name.startswith(prefix)),
        notes=(*contents.notes, note),
    )


def _stripped(leaves: Mapping[str, str], prefix: str) -> dict[str, str]:
    outside = {name: text for name, text in leaves.items() if not name.startswith(prefix)}
    return {**outside, **{name.removeprefix(prefix): text for name, text in leaves.items() if name.startswith(prefix)}}


def _count(contents: Contents, container: str) -> int:
    return sum(name.startswith(container + SEPARATOR) for name in contents.tensors)


def _no_such(contents: Contents, wanted: str) -> FormatError:
    path = contents.files[0]
    problem = f"it has no container `{printable(wanted)}` (after #)"
    if not contents.containers:
        if wanted in contents.tensors:
            return FormatError(path, f"`{printable(wanted)}` is a tensor, not a container", "Leave out what follows #")
        return FormatError(path, problem, "Its tensors are not nested: leave out what follows #")
    guesses = near_misses(wanted, contents.containers)
    if guesses:
        return FormatError(path, problem, f"Did you mean #{printable(guesses[0])}?")
    listed = ", ".join(f"`{printable(name)}`" for name in contents.containers[:8])
    return FormatError(path, problem, f"There are {listed}")
