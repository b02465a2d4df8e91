"""Where to say that something is: folded names, the module that holds two others."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from isomorph.trace.nouns import Array, Capture, Event, ModuleFacts, Site
from isomorph.trace.owners import owner_of
from isomorph.trace.pairing import value
from isomorph.trace.timeline import places

Fold = tuple[str, str, str]
_NUMBER = re.compile(r"\d+")


def folded(name: str) -> str:
    """A dotted name without its numbers: `layers.3.fc1` is `layers.#.fc1`."""
    return ".".join("#" if part.isdigit() else part for part in name.split("."))


def fold(event: Event) -> Fold:
    """What is the same for an event of every layer: which border of which node."""
    node = event.node
    left = (event.link.reference,) if node is None else node.reference
    right = (event.link.candidate,) if node is None else node.candidate
    return (event.link.border, *_both(" ".join(map(folded, left)), " ".join(map(folded, right))))


def cut(event: Event) -> Fold:
    """`fold` of one link alone: of a fused node, which of its parts."""
    return (event.link.border, *_both(folded(event.link.reference), folded(event.link.candidate)))


def _both(left: str, right: str) -> tuple[str, str]:
    """Folded names of both sides. Where one counts its layers in parts of a name, the other may write `layers_3`."""
    if "#" in left:
        return left, _NUMBER.sub("#", right)
    return (_NUMBER.sub("#", left), right) if "#" in right else (left, right)


def common(names: Iterable[str]) -> str:
    """The longest dotted prefix of all: the innermost module that holds them."""
    parts = [name.split(".") if name else [] for name in names]
    found: list[str] = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        found.append(level[0])
    return ".".join(found)


def producers(seen: Capture, array: Array) -> list[Site]:
    """Outputs of modules that are this very tensor, bit for bit, in the order of their calls."""
    return [
        site
        for site, other in seen.values.items()
        if site.border == "out"
        and site.module
        and other.shape == array.shape
        and other.dtype == array.dtype
        and np.array_equal(other, array, equal_nan=array.dtype.kind == "f")
    ]


def holder(seen: Capture, modules: Mapping[str, ModuleFacts], at: Site, before: Sequence[Site]) -> str:
    """The innermost module that holds a stretch: it holds what comes before, and what it gives is the tensor at the end.

    `before` are tensors that lead there, the last one last. A module that only hands one of them on does not hold the stretch: it
    lies behind it (a sum with one term).
    """
    last = before[-1] if before else None
    ends = at.module.rpartition(".")[0] if at.border == "in" else at.module
    inner = common([ends, last.module]) if last is not None else ends
    if (
        at.border == "out"
        and last is not None
        and (last.module == at.module or last.module.startswith(f"{at.module}."))
    ):
        return at.module
    array = value(seen, at)
    if array is not None and not at.module and (alone := _last_step(seen, array, before)):
        return alone
    if array is None or last is None or (at.border != "in" and at.module):
        return inner
    found = [
        site.module
        for site in producers(seen, array)
        if any(one.module.startswith(f"{site.module}.") for one in (before if not at.module else [last]))
        and len(site.module) > len(inner)
        and site.module in modules
        and modules[site.module].children
    ]
    if not found or any(_is_moved(value(seen, site), array) for site in before):
        return inner
    return max(found, key=len)


def _last_step(seen: Capture, array: Array, before: Sequence[Site]) -> str:
    """The module that is given one of the tensors before, and gives the output of the model; or ""."""
    led = [held for site in before if (held := value(seen, site)) is not None]
    for site in producers(seen, array):
        given = seen.values.get(site._replace(border="in", index=0))
        if given is not None and any(_is_moved(one, given) for one in led):
            return site.module
    return ""


def _is_moved(one: Array | None, array: Array) -> bool:
    """Whether two tensors hold the same values, axes moved or merged."""
    return (
        one is not None
        and one.size == array.size
        and one.dtype == array.dtype
        and np.array_equal(np.sort(one, axis=None), np.sort(array, axis=None), equal_nan=one.dtype.kind == "f")
    )


def is_inside(name: str, module: str) -> bool:
    """Whether a name is that module, or below it."""
    return not module or name == module or name.startswith(f"{module}.")


def left_out(
    modules: tuple[Mapping[str, ModuleFacts], Mapping[str, ModuleFacts]],
    pairs: Iterable[tuple[str, str]],
    seen: tuple[Capture, Capture],
    window: tuple[int, int],
) -> list[str]:
    """Modules of the candidate that it never calls, whose like the reference calls between two moments.

    Outermost ones: a whole layer. A single module without others inside (a norm, an embedding) is left out by the one around it.
    """
    when = places(seen[0])
    owner, other_owner = map(owner_of, modules)
    between = {call.module for (call, border), at in when.items() if border == "in" and window[0] < at <= window[1]}
    called = {call.module for call in seen[1].began}
    missing = {
        other_owner[other]
        for one, other in pairs
        if owner.get(one) in between and other in other_owner and other_owner[other] not in called
    }
    found: dict[str, None] = {}
    for name in modules[1]:
        if name not in missing:
            continue
        while (above := name.rpartition(".")[0]) and not any(is_inside(one, above) for one in called):
            name = above
        found[name if modules[1][name].children else name.rpartition(".")[0]] = None
    return list(found)


__all__ = ["Fold", "common", "cut", "fold", "folded", "holder", "is_inside", "left_out", "producers"]
