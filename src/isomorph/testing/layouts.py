"""Checkpoints for layouts: every size another prime, every element its own number; and what a layout makes of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from isomorph.layouts.catalogue import Layout, family
from isomorph.layouts.compose import family_config, merged, plan_sized
from isomorph.layouts.hub import schema
from isomorph.testing.shapes import primes

if TYPE_CHECKING:
    import numpy as np

    from isomorph.plan.plan import Plan

    Array = np.ndarray[Any, np.dtype[Any]]

FIRST_SHAPE = 5
"""Shapes begin with this prime; indices take those below."""


def probe_sizes(name: str) -> dict[str, int]:
    """A size for every axis of a family's vocabulary: 2 or 3 of each index, a prime of its own for what is not derived."""
    of = family(name)
    indices = {axis.removesuffix("_") for one in schema(name).tensors for axis in one.indices}
    chosen: dict[str, int] = {}
    for number, axis in enumerate(axis for axis in of.axes if axis in indices):
        chosen[axis] = 2 + number % 2
    left = (prime for prime in primes() if prime >= FIRST_SHAPE)
    for axis, facts in of.axes.items():
        if facts.of is None and axis not in chosen:
            chosen[axis] = next(left)
    return of.complete({**chosen, **of.probe})


def probe_config(name: str) -> dict[str, Any]:
    """The config of that model, by the hub's keys."""
    of = family(name)
    return merged(of.example, family_config(of, probe_sizes(name)))


def hub_probe(
    name: str, sizes: Mapping[str, int] | None = None, groups: Iterable[str] | None = None
) -> dict[str, Array]:
    """The hub's tensors with these groups (all unless said), name -> f64; every element of the checkpoint is another number, but
    for the family's zeros."""
    import numpy as np

    of = family(name)
    found = schema(name).expand(sizes or probe_sizes(name), of.groups if groups is None else groups)
    arrays: dict[str, Array] = {}
    at = 1
    for tensor, spec in found.items():
        arrays[tensor] = np.arange(at, at + spec.numel, dtype=np.float64).reshape(spec.shape)
        if tensor in of.zeros:
            arrays[tensor] = np.zeros(spec.shape)
        at += spec.numel
    return arrays


def plan_into(layout: Layout, hub: Mapping[str, Array], sizes: Mapping[str, int] | None = None) -> Plan:
    """The plan that makes a layout of the hub's arrays: its morph read backward."""
    from isomorph.formats.memory import ArrayCheckpoint

    known = dict(sizes or probe_sizes(layout.family.name))
    config = merged(probe_config(layout.family.name), family_config(layout.family, known))
    programs = layout.morph.inverse.programs(config)
    return plan_sized(programs, ArrayCheckpoint(hub).manifest, layout.family, known, config)[0]


def in_layout(layout: Layout, hub: Mapping[str, Array], sizes: Mapping[str, int] | None = None) -> dict[str, Array]:
    """What the hub's arrays are in a layout, carried out in memory."""
    from isomorph.engine.arrays import arrays
    from isomorph.formats.memory import ArrayCheckpoint

    if layout.is_hub:
        return dict(hub)
    plan = plan_into(layout, hub, sizes)
    return {target: array.copy() for target, array in arrays(plan, ArrayCheckpoint(hub))}
