"""Where to say that something is: folded names, the module that holds two others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from isomorph.trace.nouns import Array, Capture, Event, ModuleFacts, Site
from isomorph.trace.pairing import value

Fold = tuple[str, str, str]


def folded(name: str) -> str:
    """A dotted name without its numbers: `layers.3.fc1` is `layers.#.fc1`."""
    return ".".join("#" if part.isdigit() else part for part in name.split("."))


def fold(event: Event) -> Fold:
    """What is the same for an event of every layer: which border of which node."""
    node = event.node
    left = (event.link.reference,) if node is None else node.reference
    right = (event.link.candidate,) if node is None else node.candidate
    return event.link.border, " ".join(map(folded, left)), " ".join(map(folded, right))


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
        and np.array_equal(other, array)
    ]


def holder(seen: Capture, modules: Mapping[str, ModuleFacts], at: Site, before: Site | None) -> str:
    """The innermost module that holds a stretch: it holds what comes before, and what it gives is the tensor at the end."""
    ends = at.module.rpartition(".")[0] if at.border == "in" else at.module
    inner = common([ends, before.module]) if before is not None else ends
    if (
        at.border == "out"
        and before is not None
        and (before.module == at.module or before.module.startswith(f"{at.module}."))
    ):
        return at.module
    array = value(seen, at)
    if array is None or before is None or at.border != "in":
        return inner
    led = value(seen, before)
    if led is not None and led.shape == array.shape and np.array_equal(led, array):
        return inner  # what comes before is handed on as it is
    found = [
        site.module
        for site in producers(seen, array)
        if (before.module.startswith(f"{site.module}.") and len(site.module) > len(inner))
        and site.module in modules
        and modules[site.module].children
    ]
    return max(found, key=len, default=inner)


__all__ = ["Fold", "common", "fold", "folded", "holder", "producers"]
