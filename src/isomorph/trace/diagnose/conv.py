"""Kernels and patches: a convolution, or a linear map over unfolded patches, whose weight is read with its axes in another order.

Every reading is written into the candidate's weight and its module run again.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np

from isomorph.trace.diagnose.leaf import Leaf, leaf_of
from isomorph.trace.nouns import Array, Cause

if TYPE_CHECKING:
    from isomorph.trace.scene import Scene

MOST_ELEMENTS = 1 << 24


def hypotheses(scene: Scene) -> Iterator[Cause]:
    """Readings of a kernel; a bias missing or added twice."""
    leaf = leaf_of(scene)
    if leaf is None or not leaf.given:
        return
    kernels = [one for event in leaf.outs for one in leaf.own_of_reference(event).values() if one.ndim > 2]
    if kernels or any(one.ndim > 2 for one in leaf.own.values()):
        yield from _bias(leaf)
        yield from _readings(leaf, kernels)


def _readings(leaf: Leaf, kernels: list[Array]) -> Iterator[Cause]:
    for name, one in leaf.own.items():
        if one.size > MOST_ELEMENTS:
            continue
        if one.ndim > 2:
            yield from _of_kernel(leaf, name, one)
        elif one.ndim == 2:
            for kernel in kernels:
                yield from _of_patches(leaf, name, one, kernel.shape)


def _of_kernel(leaf: Leaf, name: str, kernel: Array) -> Iterator[Cause]:
    """Spatial axes exchanged or turned round, input channels reversed, out and in exchanged."""
    last = kernel.ndim - 1
    if kernel.ndim > 3 and kernel.shape[last] == kernel.shape[last - 1]:
        yield leaf.trial(
            "kernel-transposed", "weight has height and width exchanged", {name: kernel.swapaxes(last, last - 1)}
        )
    if kernel.shape[1] > 1:
        yield leaf.trial(
            "channels-reversed", "input channels stand in reverse order (BGR for RGB)", {name: kernel[:, ::-1]}
        )
    ways: list[tuple[str, tuple[int, ...]]] = [("its width", (last,))]
    if kernel.ndim > 3:
        ways += [("its height", (last - 1,)), ("height and width", (last - 1, last))]
    for along, axes in ways:
        yield leaf.trial("kernel-flipped", f"kernel is flipped along {along}", {name: np.flip(kernel, axes)})
    if kernel.shape[0] == kernel.shape[1]:
        yield leaf.trial(
            "weight-transposed", "weight has its input and output channels exchanged", {name: kernel.swapaxes(0, 1)}
        )


def _of_patches(leaf: Leaf, name: str, weight: Array, shape: tuple[int, ...]) -> Iterator[Cause]:
    """A matrix over flattened patches (channels, height, width in some order), its columns read in another order."""
    sizes = shape[1:]
    words = ("channels", "height", "width") if len(sizes) == 3 else tuple(f"axis {axis}" for axis in range(len(sizes)))
    for is_turned in (False, True):
        stored = weight.T if is_turned else weight
        if stored.shape != (shape[0], int(np.prod(sizes))):
            continue
        for now in permutations(range(len(sizes))):
            grid = stored.reshape(shape[0], *(sizes[axis] for axis in now))
            for then in permutations(range(len(sizes))):
                if then == now:
                    continue
                altered = grid.transpose(0, *(1 + now.index(axis) for axis in then)).reshape(stored.shape)
                one, other = (" ".join(words[axis] for axis in order) for order in (then, now))
                says = f"patches are flattened as ({one}), the weight's columns stand as ({other})"
                cause = leaf.trial("patch-order", says, {name: altered.T if is_turned else altered})
                if cause.residual <= leaf.tolerance:
                    yield cause
                    return
        for axis in range(len(sizes)):
            for now in permutations(range(len(sizes))):
                grid = stored.reshape(shape[0], *(sizes[one] for one in now))
                altered = np.flip(grid, 1 + now.index(axis)).reshape(stored.shape)
                kind = "channels-reversed" if axis == 0 else "kernel-flipped"
                says = (
                    "input channels stand in reverse order (BGR for RGB)"
                    if axis == 0
                    else f"patches are flipped along their {words[axis]}"
                )
                cause = leaf.trial(kind, says, {name: altered.T if is_turned else altered})
                if cause.residual <= leaf.tolerance:
                    yield cause
                    return


def _bias(leaf: Leaf) -> Iterator[Cause]:
    """The error is one number a channel, and that is the reference's bias, or minus it."""
    for result in leaf.given:
        for values in leaf.own_of_reference(result.event).values():
            if values.ndim != 1 or not values.any():
                continue
            for axis in (1, result.reference.ndim - 1):
                if result.reference.shape[axis] != values.size:
                    continue
                line = values.reshape([-1 if at == axis else 1 for at in range(result.reference.ndim)])
                for times, kind, says in (
                    (1, "bias-missing", "bias is missing"),
                    (-1, "bias-doubled", "bias is added twice"),
                ):
                    residual = leaf.scene.error(result.reference, result.candidate + times * line)
                    yield leaf.cause(kind, says, residual)
