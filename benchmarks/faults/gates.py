"""The usual gates: what a port is commonly called right by, on outputs of freshly made weights and one set of inputs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from benchmarks.faults.families import FAMILIES, Array
from benchmarks.faults.planted import Fault, port, run_both, shared


def cosine(a: Array, b: Array) -> bool:
    """Cosine of the whole tensors at least 0.99."""
    return bool(float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())) >= 0.99)


def absolute(a: Array, b: Array) -> bool:
    """No entry further than 1e-3 away."""
    return bool(np.allclose(a, b, rtol=0, atol=1e-3))


def close(a: Array, b: Array) -> bool:
    """allclose with rtol 1e-3 and atol 1e-5."""
    return bool(np.allclose(b, a, rtol=1e-3, atol=1e-5))


def statistics(a: Array, b: Array) -> bool:
    """Mean, standard deviation, smallest and largest within 5 % of the reference's (the mean: of its standard deviation)."""
    spread = a.std()
    pairs = ((a.std(), b.std(), spread), (a.min(), b.min(), abs(a.min())), (a.max(), b.max(), abs(a.max())),
             (a.mean(), b.mean(), spread))  # fmt: skip
    return all(abs(one - other) <= 0.05 * unit for one, other, unit in pairs)


GATES: dict[str, Callable[[Array, Array], bool]] = {
    "cosine 0.99": cosine,
    "atol 1e-3": absolute,
    "allclose 1e-3, 1e-5": close,
    "mean, std, min, max within 5 %": statistics,
}


def passes(fault: Fault) -> dict[str, bool]:
    """Which gates say that the port is right: in float32, on every output that both give."""
    family = FAMILIES[fault.family]
    made = port(fault, family, own="fresh")
    pairs = shared(*run_both(made, "float32", family.library))
    found = {}
    for name, gate in GATES.items():
        found[name] = all(a.shape == b.shape and gate(a, b) for a, b in pairs)
    return found
