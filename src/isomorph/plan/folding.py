"""Many names in few words, for a plan's text: numbers folded to ranges, families to their common beginning."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

_NUMBER = re.compile(r"(?<![^./_])(\d{1,9})(?![^./_])")


def template(name: str) -> str:
    """The name with every number left open: names with one template differ in numbers alone (`02` is no `2`)."""
    return ".".join(map(_piece_template, name.split(".")))


@lru_cache(maxsize=1 << 16)
def _piece_template(piece: str) -> str:
    opened = piece.replace("{}", "{ }")  # a name may hold braces of its own
    return _NUMBER.sub(lambda number: "{}" if number[0] == str(int(number[0])) else f"{{:0{len(number[0])}}}", opened)


def fold_numbers(names: Sequence[str]) -> str:
    """Names that differ only in numbers as one: `layers.{0..23}.weight`."""
    split = [_NUMBER.split(name) for name in names]
    if len({len(pieces) for pieces in split}) > 1:
        return names[0]
    parts: list[str] = []
    for position, text in enumerate(split[0]):
        if position % 2 == 0:
            parts.append(text)
            continue
        numbers = sorted({int(pieces[position]) for pieces in split})
        width = len(text) if text.startswith("0") else 1
        parts.append(text if len(numbers) == 1 else "{" + _ranges(numbers, width) + "}")
    return "".join(parts)


def _ranges(numbers: Sequence[int], width: int) -> str:
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    shown = [f"{low:0{width}}" if low == high else f"{low:0{width}}..{high:0{width}}" for low, high in runs[:6]]
    return ",".join(shown) + (",…" if len(runs) > 6 else "")


def folded(names: Iterable[str], most: int = 12) -> list[str]:
    """Many names in few words: by common beginnings, `text_model.** 197`, `logit_scale`."""
    names = list(names)
    if len(names) <= 4:
        return names
    heads: dict[str, list[str]] = {}
    for name in names:
        heads.setdefault(_head_piece(name), []).append(name)
    found = []
    for inside in heads.values():
        if len(inside) == 1:
            found.append(inside[0])
            continue
        first = template(inside[0])
        alike = all(template(name) == first for name in inside)
        shown = fold_numbers(inside) if alike else _beginning(inside) + "**"
        found.append(f"{shown} {len(inside):,}")
    return found if len(found) <= most else [*found[:most], f"… {len(names):,} in all"]


def _head_piece(name: str) -> str:
    head = name.partition(".")[0]
    return head.partition("/")[0] if "/" in head else head


def _beginning(names: Sequence[str]) -> str:
    """What all names begin with, to a border of pieces, numbers folded: `transformer.layers.{0..23}.`"""
    first, last = template(min(names)), template(max(names))  # all names share no more than these two
    at = next((k for k, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    for count in range(first.count(".", 0, at) + first.count("/", 0, at), 0, -1):
        begun = dict.fromkeys(_first_pieces(name, count) for name in names)
        if len(set(map(template, begun))) == 1:
            return fold_numbers(list(begun))
    return ""


def _first_pieces(name: str, count: int) -> str:
    """The first so many pieces, each with what ends it."""
    if "/" in name:
        return "".join(re.split(r"([./])", name)[: 2 * count])
    pieces = name.split(".", count)
    pieces[-1] = ""
    return ".".join(pieces)


def differing(names: Sequence[str]) -> list[str]:
    """What tells names apart: `a.q_proj.weight`, `a.k_proj.weight` give `q`, `k`."""
    if len(names) < 2:
        return [last_pieces(name) for name in names]
    split = [re.split(r"[./]", name) for name in names]
    if len({len(pieces) for pieces in split}) == 1:
        columns = [k for k in range(len(split[0])) if len({pieces[k] for pieces in split}) > 1]
        if len(columns) == 1:
            words = [pieces[columns[0]] for pieces in split]
            start = _shared(words)
            end = _shared([word[::-1][: len(word) - start] for word in words])
            cut = [word[start : len(word) - end] for word in words]
            return cut if all(cut) else words
    return [last_pieces(name) for name in names]


def _shared(words: Sequence[str]) -> int:
    count = 0
    for letters in zip(*words, strict=False):
        if len(set(letters)) > 1:
            break
        count += 1
    return count


def last_pieces(name: str) -> str:
    return ".".join(re.split(r"[./]", name)[-2:])
