"""Nested dicts and lists of tensors -> flat names: `{"model": {"w": t}, "steps": [1, 2]}` -> tensor `model/w`, leaf `steps`.

Keys and list indices are joined by `/`; attributes of a TorchScript module, whose names are dotted, by `.`. The walk is iterative
and bounded: what a pickle describes may refer to itself, or to the same thing 2**60 times.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from isomorph.errors import FormatError, printable
from isomorph.formats.pickle.objects import Array, FrozenSet, Global, NumpyDType, Object, Payload, Saved, Set, Tensor

MAX_DEPTH = 100
MAX_NAME_CHARACTERS = 64 << 20
"""All names together: deep containers with long keys multiply."""

TENSOR_ALONE = "tensor"
"""What a checkpoint that is one bare tensor calls it."""

_ATOMS = (str, int, float, type(None), Global, Payload, NumpyDType)
_SEQUENCES = (list, tuple, Set, FrozenSet)


@dataclass(frozen=True)
class Flat:
    """The tensors and the rest of a nested object, by flat name, in the order of the file; and which containers hold tensors."""

    tensors: Mapping[str, Tensor | Array]
    leaves: Mapping[str, str]
    containers: tuple[str, ...]


def flatten(root: Any, path: object, *, nodes: int, named_tuples: bool = False) -> Flat:
    """Name every tensor below `root`, a result of the pickle interpreter, which made `nodes` containers.

    `named_tuples`: a tuple (text, array) is an array, as Paddle writes them. FormatError when the nesting is too deep, unfolds to
    far more entries than the pickle has, when a key is no name, or two entries have one name.
    """
    tensors: dict[str, Tensor | Array] = {}
    leaves: dict[str, str] = {}
    holders: dict[str, None] = {}
    slashed: list[tuple[int, str]] = []
    if named_tuples and _is_named_array(root):
        root = root[1]
    if type(root) in (Tensor, Array):
        return Flat({TENSOR_ALONE: root}, {}, ())
    if not isinstance(root, dict | list | tuple) and not (type(root) is Object and isinstance(root.state, dict)):
        raise FormatError(path, f"its pickle holds no tensors, but {leaf_text(root)}")
    visits, characters, most = 0, 0, 8 * nodes + 20_000
    # One frame a container that is being walked: its children, the prefix of their names, its own name.
    frames: list[tuple[Iterator[tuple[Any, Any]], str, str | None]] = [(_children(root), "", None)]
    while frames:
        children, prefix, _ = frames[-1]
        for key, value in children:
            visits += 1
            name = prefix + (key if type(key) is str else _key_text(key, path, prefix))
            characters += len(name)
            if visits > most or characters > MAX_NAME_CHARACTERS:
                raise FormatError(
                    path,
                    f"its containers refer to each other so often that they unfold to more than {visits - 1:,} entries "
                    f"(at `{printable(name, 80)}`)",
                    "Nothing was executed and nothing written.",
                )
            kind = type(value)
            if named_tuples and kind is tuple and _is_named_array(value):
                value, kind = value[1], Array
            if kind is Tensor or kind is Array:
                if name in tensors or name in leaves:
                    _twice(path, name)
                tensors[name] = value
                if "/" in name[len(prefix) :]:
                    slashed.append((len(prefix), name))
                for _, _, holder in frames[1:]:
                    if holder is not None:
                        holders[holder] = None
                continue
            inner: Any = None
            if isinstance(value, dict | list | tuple):
                if len(value) and not (
                    kind in _SEQUENCES and all(type(item) in _ATOMS or isinstance(item, str) for item in value)
                ):
                    inner = value
                visits += len(value) >> 6
            elif (
                kind is Object
                and value.kind in ("namespace", "script")
                and isinstance(value.state, dict)
                and value.state
            ):
                inner = value
            if inner is None:
                if name in tensors or name in leaves:
                    _twice(path, name)
                leaves[name] = leaf_text(value)
                continue
            if len(frames) >= MAX_DEPTH:
                raise FormatError(path, f"containers nested deeper than {MAX_DEPTH} (at `{printable(name, 80)}`)")
            script = isinstance(inner, Object) and inner.kind == "script"
            frames.append((_children(inner), name + ("." if script else "/"), None if script else name))
            break
        else:
            frames.pop()
    lengths = set(map(len, holders))
    for begin, name in slashed:  # `{"a/w": …, "a": {…}}`: `a/w` is not in `a`, so that `a` cannot be entered
        at = name.find("/", begin)
        while at >= 0:
            if at in lengths:  # a key of thousands of slashes is not copied at each of them
                holders.pop(name[:at], None)
            at = name.find("/", at + 1)
    return Flat(tensors, leaves, tuple(sorted(holders, key=lambda name: name.count("/"))))


def holders_of(names: Iterable[str], path: object) -> tuple[str, ...]:
    """The containers of tensors whose names are paths, the outer first. FormatError where they are too deep, or too long.

    >>> holders_of(["a/b/w", "a/c"], "m")
    ('a', 'a/b')
    """
    found: set[str] = set()
    characters = 0
    for name in names:
        if name.count("/") >= MAX_DEPTH:
            raise FormatError(path, f"arrays nested deeper than {MAX_DEPTH} (at `{printable(name, 80)}`)")
        at = name.rfind("/")
        while at >= 0 and name[:at] not in found:
            found.add(name[:at])
            characters += at
            at = name.rfind("/", 0, at)
        if characters > MAX_NAME_CHARACTERS:
            raise FormatError(
                path, f"the groups of its arrays have names of more than {MAX_NAME_CHARACTERS:,} characters"
            )
    return tuple(sorted(found, key=lambda name: (name.count("/"), name)))


def _is_named_array(value: Any) -> bool:
    """True for (text, array): how Paddle pickles a tensor that is not in a state dict."""
    return type(value) is tuple and len(value) == 2 and isinstance(value[0], str) and type(value[1]) is Array


def _twice(path: object, name: str) -> None:
    raise FormatError(path, f"two entries have the name `{printable(name)}` once keys are joined by `/`")


def _children(value: Any) -> Iterator[tuple[Any, Any]]:
    if type(value) is Object:
        return iter(value.state.items())
    return iter(value.items() if isinstance(value, dict) else enumerate(value))


def _key_text(key: Any, path: object, prefix: str) -> str:
    if isinstance(key, str):
        return str.__str__(key)
    if isinstance(key, int) and key.bit_length() > 256:
        raise FormatError(path, f"a key in `{printable(prefix, 80)}` is a number of {key.bit_length()} bits")
    if isinstance(key, int | float | None):
        return str(key)
    if type(key) is tuple:
        return ",".join(_key_text(part, path, prefix) for part in key)
    if type(key) is Global:
        return key.full_name
    raise FormatError(path, f"a key in `{printable(prefix, 80)}` is a {type(key).__name__.lower()}, not a name")


def leaf_text(value: Any) -> str:
    """What a leaf is, in a few words. Never looks further into it than its first items."""
    if isinstance(value, str):
        text = str.__str__(value)
        return repr(text if len(text) <= 60 else text[:59] + "…")
    if isinstance(value, int) and value.bit_length() > 256:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, int | float | None):
        return repr(value)
    if isinstance(value, dict):
        return "an empty dict" if not value else f"a dict of {len(value)}"
    if isinstance(value, list | tuple):
        if not value:
            return f"an empty {type(value).__name__.lower()}"
        few = [leaf_text(item) if type(item) not in (*_SEQUENCES, dict) else "…" for item in value[:4]]
        shown = ", ".join(text if len(text) <= 20 else text[:19] + "…" for text in few)
        return f"[{shown}{f', … {len(value)} items' if len(value) > 4 else ''}]"
    if type(value) is Global:
        return value.full_name[:80]
    if type(value) is Payload:
        return f"{value.nbytes} bytes"
    if type(value) is Object:
        parts = [leaf_text(part) for part in value.args[:3] if isinstance(part, str | int | float)]
        return f"{value.name[:80]}{' ' + ' '.join(parts) if parts else ''}"
    if type(value) is NumpyDType:
        return f"dtype {value.code[:20]}"
    if type(value) is Saved:
        return "a storage"
    return f"a {type(value).__name__.lower()}"
