"""Which dim of a matrix has its outputs, on either side: what widens says it.

torch has [out in], Flax, Keras and Paddle [in out], and Paddle calls it `weight` too. A matrix that goes up in an mlp has more
outputs than inputs, one that goes down fewer: its shape says how all of the same last word lie.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from isomorph.infer.by_name.correspondence import Bundle, Match
from isomorph.infer.by_name.orientation import leaf
from isomorph.tensors import Manifest

WIDENS: Mapping[str, bool] = {"up": True, "gate": True, "gate_up": True, "qkv": True, "kv": True, "down": False}
Rows = Mapping[tuple[int, str], int]
"""Side (0 or 1) and last word -> the dim of the outputs, 0 or 1; without an entry where nothing or two things say it."""


def rows_of(matches: Iterable[Match], sides: tuple[Manifest, Manifest]) -> Rows:
    """What the matrices of mlps say."""
    found: dict[tuple[int, str], set[int]] = {}
    for match in matches:
        for link in match.links[:1]:
            for side, bundles in enumerate((link.sources, link.targets)):
                for bundle in bundles:
                    seen = _rows(bundle, sides[side])
                    if seen is not None:
                        found.setdefault((side, leaf(bundle.names[0])), set()).add(seen)
    kernels = {(side, "kernel"): 1 for side in (0, 1)}
    return {**kernels, **{key: min(dims) for key, dims in found.items() if len(dims) == 1}}


def _rows(bundle: Bundle, manifest: Manifest) -> int | None:
    shape = manifest[bundle.names[0]].shape
    if bundle.role not in WIDENS or len(shape) != 2 or shape[0] == shape[1]:
        return None
    return int((shape[0] > shape[1]) != WIDENS[bundle.role])
