"""What is done to an image before its patches, and to the patches after: colours, sides, scaling; the order in which they stand.

Carried out on the reference's own tensors, which must then be the candidate's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from isomorph.trace.diagnose.leaf import PARTS
from isomorph.trace.diagnose.matrices import number
from isomorph.trace.diagnose.orders import order_of_lines, say_order
from isomorph.trace.nouns import Array, Cause

if TYPE_CHECKING:
    from isomorph.trace.scene import Scene

MOST_BEFORE = 8


def hypotheses(scene: Scene) -> Iterator[Cause]:
    """Of an image that goes in; of patches in what comes of them."""
    try:
        reference, candidate = scene.pair(scene.suspect.at)
    except ValueError:
        return
    if reference.dtype.kind != "f":
        return
    if reference.ndim == 4 and scene.suspect.at.reference.border == "in":
        yield from _image(scene, reference, candidate)
    yield from _rows(scene, reference, candidate)
    yield from _among_others(scene, reference, candidate)


def _image(scene: Scene, reference: Array, candidate: Array) -> Iterator[Cause]:
    """[batch, channels, height, width] or with the channels last: turned, exchanged or scaled."""
    channels = 1 if reference.shape[1] <= reference.shape[3] else 3
    height, width = (2, 3) if channels == 1 else (1, 2)
    changes = [
        (
            "channels-reversed",
            "the image's channels stand in reverse order (BGR for RGB)",
            np.flip(reference, channels),
        ),
        ("image-flipped", "the image is upside down", np.flip(reference, height)),
        ("image-flipped", "the image is mirrored", np.flip(reference, width)),
    ]
    if reference.shape[height] == reference.shape[width]:
        changes.append(
            ("image-transposed", "the image has height and width exchanged", reference.swapaxes(height, width))
        )
    for kind, says, made in changes:
        yield _cause(scene, kind, says, made, candidate)
    yield from _scaled(scene, reference, candidate, channels)


def _scaled(scene: Scene, reference: Array, candidate: Array, axis: int) -> Iterator[Cause]:
    """One factor and one step a channel."""
    others = tuple(one for one in range(reference.ndim) if one != axis)
    mean_x, mean_y = reference.mean(axis=others, keepdims=True), candidate.mean(axis=others, keepdims=True)
    spread = np.square(reference - mean_x).sum(axis=others, keepdims=True)
    if not spread.all():
        return
    factor = ((reference - mean_x) * (candidate - mean_y)).sum(axis=others, keepdims=True) / spread
    step = mean_y - factor * mean_x
    step = np.where(np.abs(step) <= 4 * scene.tolerance * np.abs(candidate).max(), 0.0, step)
    says = f"the image is scaled by {_few(factor)}" + (f" and moved by {_few(step)}" if step.any() else "")
    yield _cause(scene, "image-scaled", says, factor * reference + step, candidate)


def _few(values: Array) -> str:
    flat = [number(float(one)) for one in values.reshape(-1)]
    return flat[0] if len(set(flat)) == 1 else " ".join(flat[:4])


def _rows(scene: Scene, reference: Array, candidate: Array) -> Iterator[Cause]:
    """The tensor itself has the right positions in another order."""
    if reference.ndim not in (3, 4):
        return
    one, two = (_positions(values) for values in (reference, candidate))
    order = order_of_lines(two.swapaxes(0, 1), one.swapaxes(0, 1), scene.tolerance * _size(reference))
    if order is not None:
        yield _cause(scene, "patch-order", _in_words(order), one[:, order], two)


def _among_others(scene: Scene, reference: Array, candidate: Array) -> Iterator[Cause]:
    """A tensor of before is added with its positions in another order, behind what stands before it (a class token)."""
    if reference.ndim != 3 or scene.suspect.kind != "stretch":
        return
    for event in scene.suspect.before[-MOST_BEFORE:]:
        try:
            part = _positions(scene.pair(event)[0])
        except ValueError:
            continue
        first = reference.shape[1] - part.shape[1] if part.ndim == 3 else -1
        if first < 0 or part.shape[0] != reference.shape[0] or part.shape[2] != reference.shape[2]:
            continue
        moved = candidate[:, first:] - reference[:, first:] + part
        order = order_of_lines(moved.swapaxes(0, 1), part.swapaxes(0, 1), scene.tolerance * _size(reference))
        if order is not None:
            made = reference.copy()
            made[:, first:] += part[:, order] - part
            yield _cause(scene, "patch-order", _in_words(order), made, candidate)


def _positions(values: Array) -> Array:
    """[batch, positions, channels] of [batch, channels, height, width] too."""
    return values.reshape(*values.shape[:2], -1).swapaxes(1, 2) if values.ndim == 4 else values


def _in_words(order: Array) -> str:
    said = say_order(order, "positions")
    if said.kind in ("interleaved", "rotary-order"):
        return "patches are taken column by column (height and width of their grid are exchanged)"
    return said.says.replace("heads (of", "blocks (of").replace("heads ", "blocks ").replace("positions", "patches")


def _size(values: Array) -> float:
    return float(np.max(np.abs(values), initial=0.0))


def _cause(scene: Scene, kind: str, says: str, made: Array, candidate: Array) -> Cause:
    residual = scene.error(made, candidate) if made.shape == candidate.shape else float("inf")
    return Cause(kind, says, residual, scene.tolerance / PARTS)
