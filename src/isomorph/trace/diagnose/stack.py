"""A whole stack of layers loaded in another order: one thing that went wrong, not one a tensor. Pure numpy on values."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from isomorph.trace.diagnose.weight_causes import Said
from isomorph.trace.nouns import Array

NUMBER = re.compile(r"(?<![A-Za-z0-9])\d+(?![A-Za-z0-9])")


@dataclass(frozen=True)
class Home:
    """Whose values a tensor holds: those that these other tensors should have."""

    names: tuple[str, ...]


def homes(differing: Mapping[str, Array], expected: Mapping[str, Array]) -> dict[str, Home]:
    """For each tensor that holds what others should hold: which. Tensors of one value throughout tell nothing and are left out."""
    known: dict[tuple[tuple[int, ...], bytes], list[str]] = {}
    shapes = {one.shape for one in differing.values()}
    for name, value in expected.items():
        if value.shape in shapes and _tells(value):
            known.setdefault(_print(value), []).append(name)
    found = {}
    for name, value in differing.items():
        others = known.get(_print(value), []) if _tells(value) else []
        if others:
            found[name] = Home(tuple(others))
    return found


def _tells(value: Array) -> bool:
    return value.size > 1 and bool((value != value.flat[0]).any())


def _print(value: Array) -> tuple[tuple[int, ...], bytes]:
    return value.shape, hashlib.blake2b(
        np.ascontiguousarray(value, dtype=np.float64).tobytes(), digest_size=16
    ).digest()


def stacks(differing: Mapping[str, Array], expected: Mapping[str, Array]) -> dict[str, Said]:
    """For each tensor of a stack whose layers stand in another order: the one thing to say of the whole stack.

    A stack is all names that are one name with another number in one place: `layers.3.fc.weight`, `layers.4.fc.weight` …, with
    everything below `layers.`. Its order is said when every tensor that differs there and has a home has it in the same layer, and
    whole layers have moved.
    """
    home = homes(differing, expected)
    placed: dict[str, dict[int, set[int]]] = {}
    members: dict[str, list[str]] = {}
    for name, at in home.items():
        for number in NUMBER.finditer(name):
            before, after = name[: number.start()], name[number.end() :]
            layers = {
                int(other[len(before) : len(other) - len(after)])
                for other in at.names
                if other.startswith(before)
                and other.endswith(after)
                and other[len(before) : len(other) - len(after)].isdigit()
            }
            if layers:
                places = placed.setdefault(before, {}).setdefault(int(number.group()), set(layers))
                places &= layers
                members.setdefault(before, []).append(name)
    found: dict[str, Said] = {}
    for before, layers_of in sorted(placed.items(), key=lambda one: -len(members[one[0]])):
        if any(len(where) != 1 for where in layers_of.values()) or len(layers_of) < 2:
            continue
        moved = {layer: min(where) for layer, where in layers_of.items() if min(where) != layer}
        if not _is_whole(before, moved, set(members[before]), expected) or _is_pair(before, moved, expected):
            continue
        of_stack = [name for name in differing if name.startswith(before) and name not in found]
        said = _say(before, moved, _count(before, expected))
        found |= {name: said for name in of_stack if name in members[before] or not _tells(differing[name])}
    return found


def _is_whole(before: str, moved: Mapping[int, int], members: set[str], expected: Mapping[str, Array]) -> bool:
    """Whether all that tells these layers apart from those whose values they hold is moved with them."""
    for name, value in expected.items():
        number = re.match(r"\d+(?!\w)", name[len(before) :]) if name.startswith(before) else None
        if number is None or int(number.group()) not in moved or name in members:
            continue
        other = expected.get(f"{before}{moved[int(number.group())]}{name[len(before) + number.end() :]}")
        if other is not None and other.shape == value.shape and _tells(value) and not np.array_equal(value, other):
            return False
    return True


def _is_pair(before: str, moved: Mapping[int, int], expected: Mapping[str, Array]) -> bool:
    """Whether two tensors alone changed places, `wi_0` and `wi_1`, whose numbers only end their names: no layers."""
    if not before or before[-1] in "./":
        return False
    below = [name for name in expected if any(re.match(rf"{re.escape(before)}{layer}(?!\d)", name) for layer in moved)]
    return len(below) <= 2


def _count(before: str, expected: Mapping[str, Array]) -> int:
    numbers = [
        int(match.group())
        for name in expected
        if name.startswith(before) and (match := re.match(r"\d+", name[len(before) :])) is not None
    ]
    return max(numbers, default=-1) + 1


def _say(before: str, moved: Mapping[int, int], count: int) -> Said:
    stack = before.rstrip("._/") or "the layers"
    order = [moved.get(layer, layer) for layer in range(count)]
    if order == [int(text) for text in sorted(map(str, range(count)))]:
        return Said(
            "layers-lexicographic", f"layers of {stack} stand in the order of their numbers as text ({_listed(order)})"
        )
    steps = {other - layer for layer, other in moved.items()}
    if len(steps) == 1 and len(moved) >= count - 1:
        (step,) = steps
        size, sign = abs(step), "+" if step > 0 else "-"
        return Said(
            "layers-off-by-one" if size == 1 else "layers-shifted",
            f"layers of {stack} are off by {'one' if size == 1 else size}: layer i holds the weights of layer i {sign} {size}",
        )
    if len(moved) == 2 and sorted(moved) == sorted(moved.values()):
        one, two = sorted(moved)
        return Said("layers-permuted", f"layers {one} and {two} of {stack} are swapped")
    if order == list(range(count))[::-1]:
        return Said("layers-permuted", f"layers of {stack} stand in reverse order")
    return Said("layers-permuted", f"layers of {stack} stand in another order ({_listed(order)})")


def _listed(order: list[int]) -> str:
    return " ".join(map(str, order[:13])) + (" …" if len(order) > 13 else "")
