"""What goes into a module or comes out of it -> its tensors, in order, each with its path; and the same with some tensors replaced.

Entered are mappings (transformers' ModelOutput among them), dataclasses, NamedTuples, tuples and lists. Everything else that is no
tensor is skipped: numbers, None, caches, arbitrary objects.
"""

from __future__ import annotations

import copy
import dataclasses
import enum
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any

IsTensor = Callable[[Any], bool]
DEEPEST = 24
"""Containers that hold themselves end here."""

_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType)
_SINGLE = frozenset((type(None), bool, int, float, str))
_PLAIN = (str, bytes, int, float, complex, type, enum.Enum, types.ModuleType, *_FUNCTIONS)


def leaves(value: Any, is_tensor: IsTensor) -> list[tuple[str, Any]]:
    """The tensors of `value` with their paths: keys, field names and numbers, joined by "."; a tensor alone has the path "".

    >>> leaves({"a": (1, 2.5), "b": [3.5]}, lambda one: isinstance(one, float))
    [('a.1', 2.5), ('b.0', 3.5)]
    """
    found: list[tuple[str, Any]] = []

    def walk(path: str, one: Any, depth: int) -> None:
        if is_tensor(one):
            found.append((path, one))
        elif depth < DEEPEST:
            for key, below in _entries(one):
                walk(f"{path}.{key}" if path else str(key), below, depth + 1)

    walk("", value, 0)
    return found


def replace(value: Any, tensors: Mapping[int, Any], is_tensor: IsTensor) -> Any:
    """`value` with its tensors of these numbers (their places in `leaves`) replaced.

    Containers on the way to a replaced tensor are new ones of the same kind; all others are the same objects.

    >>> replace({"a": (1, 2.5), "b": [3.5]}, {1: 4.5}, lambda one: isinstance(one, float))
    {'a': (1, 2.5), 'b': [4.5]}
    """
    count = 0

    def walk(one: Any, depth: int) -> Any:
        nonlocal count
        if is_tensor(one):
            number, count = count, count + 1
            return tensors.get(number, one)
        if depth >= DEEPEST:
            return one
        changed = {}
        for key, below in _entries(one):
            made = walk(below, depth + 1)
            if made is not below:
                changed[key] = made
        return _with(one, changed) if changed else one

    return walk(value, 0)


def snapshot(value: Any, is_kept: IsTensor) -> Any:
    """A copy of containers and objects, all the way down, so that what changes them later does not change the copy.

    What `is_kept` (tensors, modules) is shared, and so are functions, types and values that never change.
    """
    made: dict[int, Any] = {}
    alive: list[Any] = []

    def walk(one: Any, depth: int) -> Any:
        if one is None or isinstance(one, _PLAIN) or depth >= DEEPEST or is_kept(one):
            return one
        if id(one) in made:
            return made[id(one)]
        alive.append(one)
        new = one
        entries = _entries(one)
        if isinstance(one, tuple):
            new = _with(one, {key: walk(below, depth + 1) for key, below in entries})
        elif entries or isinstance(one, dict | list) or hasattr(one, "__dict__"):
            try:
                new = copy.copy(one)
            except Exception:  # an object that cannot be copied is shared
                return one
            made[id(one)] = new
            for key, below in entries:
                _put(new, key, walk(below, depth + 1))
            for name, below in vars(one).items() if hasattr(one, "__dict__") else ():
                if not any(name == key for key, _ in entries):
                    vars(new)[name] = walk(below, depth + 1)
        made[id(one)] = new
        return new

    return walk(value, 0)


def _entries(one: Any) -> list[tuple[Any, Any]]:
    """What a container holds, by key, field or number; nothing for what is no container."""
    kind = one.__class__
    if kind is tuple or kind is list:
        return list(enumerate(one))
    if kind in _SINGLE:
        return []
    if kind is dict:
        return list(one.items())
    if isinstance(one, Mapping):
        return list(one.items())
    if dataclasses.is_dataclass(one) and not isinstance(one, type):
        return [(field.name, getattr(one, field.name)) for field in dataclasses.fields(one) if hasattr(one, field.name)]
    if isinstance(one, tuple) and hasattr(one, "_fields"):
        return list(zip(one._fields, one, strict=True))
    return list(enumerate(one)) if isinstance(one, tuple | list) else []


def _with(one: Any, changed: Mapping[Any, Any]) -> Any:
    """A container like this one, with these entries replaced."""
    if isinstance(one, tuple):
        items = [changed.get(key, below) for key, below in _entries(one)]
        return _tuple(one, items)
    new = copy.copy(one)
    for key, below in changed.items():
        _put(new, key, below)
    return new


def _tuple(one: Any, items: Iterable[Any]) -> Any:
    if hasattr(one, "_fields"):
        return type(one)(*items)
    return type(one)(items)


def _put(container: Any, key: Any, value: Any) -> None:
    if isinstance(container, Mapping | list):
        container[key] = value  # type: ignore[index]  # a Mapping that is replaced in can be written
    else:
        object.__setattr__(container, key, value)
