"""Many names in few words, for a plan's text: numbers folded to ranges, families to their common beginning."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

_NUMBER = re.compile(r"(?<![^./_])(\d{1,9})(?![^./_])")


def template(name: str) -> str:
    """The name with every number left open: names with one template differ in numbers alone (`02` is no `2`)."""
    opened = name.replace("{}", "{ }")  # a name may hold braces of its own
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
    heads: Counter[str] = Counter(_head_piece(name) for name in names)
    found = []
    for head, count in heads.items():
        inside = [name for name in names if _head_piece(name) == head]
        if count == 1:
            found.append(inside[0])
            continue
        alike = len({template(name) for name in inside}) == 1
        shown = fold_numbers(inside) if alike else _beginning(inside) + "**"
        found.append(f"{shown} {count:,}")
    return found if len(found) <= most else [*found[:most], f"… {sum(heads.values()):,} in all"]


def _head_piece(name: str) -> str:
    cut = min((at for at in (name.find("."), name.find("/")) if at >= 0), default=len(name))
    return name[:cut]


def _beginning(names: Sequence[str]) -> str:
    """What all names begin with, to a border of pieces, numbers folded: `transformer.layers.{0..23}.`"""
    opened = [template(name) for name in names]
    first, last = min(opened), max(opened)
    at = next((k for k, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    border = max(first.rfind(".", 0, at), first.rfind("/", 0, at))
    pieces = len(re.findall(r"[./]", first[: border + 1]))
    begun = ["".join(re.split(r"([./])", name)[: 2 * pieces]) for name in names]
    return fold_numbers(begun) if pieces else ""


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
