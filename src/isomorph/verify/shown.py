"""One element in words: its value (with its bits where the value alone would not tell), and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from isomorph.tensors import DType, TensorSpec
from isomorph.verify.regions import Along, Constant, Leaf, Node


def place_of(flat: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The index of element `flat`, row-major."""
    place: list[int] = []
    for size in reversed(shape):
        flat, at = divmod(flat, size)
        place.append(at)
    return tuple(reversed(place))


@np.errstate(all="ignore")
def value_text(bits: Any, kind: DType) -> str:
    """The shortest text that reads back as this value."""
    if kind.kind == "opaque":
        return _hexadecimal(bits, kind)
    value = np.asarray(bits, dtype=kind.bits).reshape(1).view(kind.numpy)[0]
    if kind.kind == "bool":
        return str(int(np.asarray(bits).view(np.uint8)))
    return str(value)


def element_text(found: Any, expected: Any, kind: DType) -> tuple[str, str]:
    """Both values; with their bits where the texts are the same or a NaN hides them."""
    texts = value_text(found, kind), value_text(expected, kind)
    if texts[0] == texts[1] or any("nan" in text for text in texts):
        return f"{texts[0]} ({_hexadecimal(found, kind)})", f"{texts[1]} ({_hexadecimal(expected, kind)})"
    return texts


def _hexadecimal(bits: Any, kind: DType) -> str:
    raw = np.asarray(bits, dtype=kind.bits).tobytes()[::-1]
    return "0x" + raw.hex()


def _names(node: Node) -> str:
    """The tensors of a node, by name alone."""
    if isinstance(node, Leaf):
        return node.name
    if isinstance(node, Constant):
        return f"the constant {node.value}"
    if isinstance(node, Along):
        return ", ".join(dict.fromkeys(_names(region.right) for region in node.whole.regions))
    return " + ".join(_names(part) for part in node.parts)


def source_text(node: Node, source: Mapping[str, TensorSpec]) -> str:
    """Where the one element of a box of one comes from: `name[index]`, `the constant 0`, `a[0] + b[0] | cast`."""
    if isinstance(node, Leaf):
        place = place_of(node.offset, source[node.name].shape)
        return f"{node.name}[{', '.join(map(str, place))}]"
    if isinstance(node, Constant):
        return f"arange {node.offset}" if node.counts else f"the constant {node.value}"
    if isinstance(node, Along):
        names = dict.fromkeys(_names(region.right) for region in node.whole.regions)
        return f"{', '.join(names)} | {node.whole.operator.name}"
    text = " + ".join(source_text(part, source) for part in node.parts)
    steps = [
        op.name if op.name != "cast" else f"{op.source} {'~>' if op.rounding else '->'} {op.target}"
        for op in node.operators
    ]
    return f"{text} | {', '.join(steps)}" if steps else text
