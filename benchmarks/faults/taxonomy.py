"""The faults that every transformer block can have, for a tower of any candidate: what is planted, where, and its names."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np
from benchmarks.faults.families import FAMILIES, Array
from benchmarks.faults.planted import Depth, Fault
from benchmarks.faults.weights import changed, left_as_made, rolled_heads, rounded, taken_from, third

DEPTHS: dict[int, Depth] = {0: "first", 1: "middle", 2: "middle", 3: "last"}


@dataclass(frozen=True)
class Tower:
    """The names of one stack of blocks in a candidate. `{}` in `block` is the layer; the other names are below it.

    `core`: the modules that may be named for what happens between q, k, v and the projection after the heads. `fused` is the name
    of q, k and v's matrix, or None where they are apart (`parts`).
    """

    family: str
    title: str
    block: str
    attention: str
    core: tuple[str, ...]
    out: str
    up: str
    down: str
    mlp: str
    norms: tuple[str, str]
    fused: str | None = None
    parts: tuple[str, str, str] = ("", "", "")
    activation: str = "erf"
    matrix: str = "weight"
    heads: int = 1
    shallow: int = 4
    """How many layers are enough for a fault in the first."""

    def at(self, layer: int, name: str = "") -> str:
        block = self.block.format(layer)
        return f"{block}.{name}" if name else block

    def line(self, key: str) -> str:
        """The line of the sound morph."""
        return sound_lines(self.family)[key]

    def fault(
        self,
        what: str,
        layer: int,
        kinds: Sequence[str] | str,
        where: Sequence[str] | str,
        **how: Any,
    ) -> Fault:
        kinds = (kinds,) if isinstance(kinds, str) else tuple(kinds)
        where = (where,) if isinstance(where, str) else tuple(where)
        how.setdefault("layers", self.shallow if layer == 0 else 4)
        return Fault(f"{self.family}/{self.title}{layer}/{what}", self.family, DEPTHS[layer], kinds, where, **how)


@functools.cache
def sound_lines(family: str, layers: int = 4) -> Mapping[str, str]:
    made = FAMILIES[family]
    return made.lines(made.config(layers))


def turned(line: str) -> str:
    """The same line with a matrix's axes the other way round on the candidate's side."""
    left, right = line.split(" <-> ")
    return f"{left} <-> " + (right.replace("[o i]", "[i o]") if "[o i]" in right else right.replace("[i o]", "[o i]"))


# Faults of a block, by the name by which the tables below pick them.
def attention_scale(tower: Tower, layer: int, how: str) -> Fault:
    key = tower.at(layer, tower.attention) + ":scale"
    return tower.fault(f"attention scale {how}", layer, "attention-scale", core(tower, layer), code={key: how})


def core(tower: Tower, layer: int) -> tuple[str, ...]:
    return tuple(tower.at(layer, name) for name in tower.core)


def in_core(tower: Tower, layer: int, what: str, kinds: Sequence[str] | str, key: str, value: Any) -> Fault:
    """A fault between q, k and v and the projection after the heads."""
    return tower.fault(
        what, layer, kinds, core(tower, layer), code={f"{tower.at(layer, tower.attention)}:{key}": value}
    )


def softmax_axis(tower: Tower, layer: int) -> Fault:
    return in_core(tower, layer, "softmax over the queries", "attention-softmax", "softmax-axis", -2)


def merge(tower: Tower, layer: int, how: str) -> Fault:
    return in_core(tower, layer, f"heads merged, {how}", "head-merge", "merge", how)


def half_scores(tower: Tower, layer: int) -> Fault:
    return in_core(tower, layer, "scores in bfloat16", "half-accumulation", "accumulate", "half")


def attention_dropout(tower: Tower, layer: int) -> Fault:
    return in_core(tower, layer, "functional dropout on", "dropout", "dropout", 0.1)


def parts_by_head(tower: Tower, layer: int) -> Fault:
    return in_core(tower, layer, "fused q, k, v read by head", "qkv-interleaved", "parts", "by head")


def starts(tower: Tower, layer: int, at: tuple[float, ...], what: str, kind: str) -> Fault:
    return in_core(tower, layer, what, kind, "starts", at)


def heads_number(tower: Tower, layer: int, number: int) -> Fault:
    return in_core(tower, layer, f"{number} heads for {tower.heads}", ("heads-number",), "heads-number", number)


def split_width_first(tower: Tower, layer: int) -> Fault:
    return in_core(tower, layer, "heads split, width first", ("head-split", "heads-permuted"), "heads", "last")


def residual(tower: Tower, layer: int, which: str, how: str) -> Fault:
    kind = {"dropped": "residual-dropped"}.get(how, "residual-doubled")
    where = tower.at(layer)
    return tower.fault(f"{which} residual {how}", layer, kind, where, code={f"{where}:{which}-residual": how})


def of_block(
    tower: Tower, layer: int, what: str, kinds: Sequence[str] | str, key: str, value: Any, *more: str
) -> Fault:
    where = tower.at(layer)
    return tower.fault(
        what, layer, kinds, (where, *(tower.at(layer, name) for name in more)), code={f"{where}:{key}": value}
    )


def norm(tower: Tower, layer: int, which: int, what: str, kinds: Sequence[str] | str, key: str, value: Any) -> Fault:
    where = tower.at(layer, tower.norms[which])
    return tower.fault(f"{what} in {tower.norms[which]}", layer, kinds, where, code={f"{where}:{key}": value})


def eps(tower: Tower, layer: int, which: int, value: float) -> Fault:
    return norm(tower, layer, which, f"eps {value:g}", "norm-eps", "eps", value)


def plus_one(tower: Tower, layer: int, which: int) -> Fault:
    return norm(tower, layer, which, "1 + weight", "norm-plus-one", "plus", 1.0)


def rms(tower: Tower, layer: int, which: int) -> Fault:
    return norm(tower, layer, which, "RMS for LayerNorm", "norm-kind", "form", "rms")


def activation(tower: Tower, layer: int, how: str) -> Fault:
    where = tower.at(layer, tower.mlp) if tower.mlp else tower.at(layer)
    return tower.fault(f"{how} for {tower.activation}", layer, "activation", where, code={f"{where}:activation": how})


def bias(tower: Tower, layer: int, name: str, how: str) -> Fault:
    where = tower.at(layer, name)
    kind = "bias-doubled" if how == "doubled" else "bias-missing"
    lines: dict[str, str | None] = {}
    if how == "absent":
        source = tower.line(f"{where}.bias").split(" <-> ")[0]
        lines[f"{where}.bias"] = f"drop {source}"
    return tower.fault(f"{name} bias {how}", layer, kind, where, code={f"{where}:bias": how}, morph=lines)


def half_product(tower: Tower, layer: int, name: str) -> Fault:
    where = tower.at(layer, name)
    return tower.fault(f"{name} in bfloat16", layer, "half-accumulation", where, code={f"{where}:accumulate": "half"})


def turned_in_code(tower: Tower, layer: int) -> Fault:
    where = tower.at(layer, tower.out)
    return tower.fault("square weight used turned", layer, "weight-transposed", where, code={f"{where}:turned": True})


def turned_by_morph(tower: Tower, layer: int, name: str = "") -> Fault:
    where = tower.at(layer, name or tower.out)
    key = f"{where}.{tower.matrix}"
    lines = {key: turned(tower.line(key))}
    return tower.fault(
        f"{name or tower.out} not transposed by the morph", layer, "weight-transposed", where, morph=lines
    )


def turned_in_weights(tower: Tower, layer: int) -> Fault:
    where = tower.at(layer, tower.out)
    plant = changed(f"{where}.{tower.matrix}", lambda rows: rows.T)
    return tower.fault("square weight transposed", layer, "weight-transposed", where, weights=plant)


def reshaped(tower: Tower, layer: int, name: str) -> Fault:
    """What a reshape makes of a matrix that should have been transposed."""
    where = tower.at(layer, name)
    plant = changed(f"{where}.{tower.matrix}", lambda rows: rows.T.reshape(rows.shape))
    return tower.fault(f"{name} reshaped for transposed", layer, "weight-reshaped", where, weights=plant)


def fused_by_morph(tower: Tower, layer: int, order: str) -> Fault:
    """The blocks of q, k and v in another order: `q + v + k`."""
    assert tower.fused is not None
    keys = [tower.at(layer, tower.fused) + end for end in ((".weight", ".bias") if "proj" not in tower.fused.split(".")[-1]
            and not tower.fused.endswith("in_proj") else ("_weight", "_bias"))]  # fmt: skip
    lines = {key: tower.line(key).replace("(q + k + v)", f"({order})") for key in keys}
    where = owner(tower, layer)
    return tower.fault(f"fused as {order}", layer, "qkv-order", where, morph=lines)


def owner(tower: Tower, layer: int) -> tuple[str, ...]:
    """What may be named for q, k and v's own matrix: the Linear, or the module whose bare parameter it is."""
    name = str(tower.fused)
    return core(tower, layer) if name.endswith("in_proj") else (tower.at(layer, name), *core(tower, layer))


def fused_by_head(tower: Tower, layer: int) -> Fault:
    """The morph interleaves q, k and v by head."""
    assert tower.fused is not None
    lines = {}
    for end in ("_weight", "_bias") if tower.fused.endswith("in_proj") else (".weight", ".bias"):
        key = tower.at(layer, tower.fused) + end
        left, right = tower.line(key).split(" <-> ")
        for part in "qkv":
            left = left.replace(f"[{part}", f"[(h {part})")
        lines[key] = f"{left} <-> {right.replace('(q + k + v)', '(h (q + k + v))')} where h={tower.heads}"
    return tower.fault("fused by head in the morph", layer, "qkv-interleaved", owner(tower, layer), morph=lines)


def fused_weights(tower: Tower, layer: int, what: str, kinds: Sequence[str], change: Callable[[Array], Array]) -> Fault:
    """A change of the fused matrix in the candidate's weights alone."""
    name = tower.at(layer, str(tower.fused)) + ("_weight" if str(tower.fused).endswith("in_proj") else ".weight")
    return tower.fault(what, layer, kinds, owner(tower, layer), weights=changed(name, change))


def heads_rolled(tower: Tower, layer: int) -> Fault:
    kinds = ("heads-permuted", "weight-rows-permuted")
    return fused_weights(tower, layer, "heads of q permuted", kinds, third(0, rolled_heads(tower.heads)))


def key_value_swapped(tower: Tower, layer: int) -> Fault:
    def swap(rows: Array) -> Array:
        q, k, v = np.split(rows, 3)
        return np.concatenate([q, v, k])

    return fused_weights(tower, layer, "k and v swapped in the weights", "qkv-order", swap)


def bias_zero(tower: Tower, layer: int, name: str) -> Fault:
    where = tower.at(layer, name)
    plant = left_as_made(f"{where}.bias")
    return tower.fault(f"{name} bias left at zero", layer, ("parameter-missing", "bias-missing"), where, weights=plant)


def never_filled(tower: Tower, layer: int, name: str) -> Fault:
    where = tower.at(layer, name)
    plant = left_as_made(f"{where}.{tower.matrix}")
    return tower.fault(f"{name} left as it was made", layer, "parameter-missing", where, weights=plant)


def other_layer(tower: Tower, layer: int, name: str, other: int) -> Fault:
    where = tower.at(layer, name)
    plant = taken_from(f"{where}.{tower.matrix}", f"{tower.at(other, name)}.{tower.matrix}")
    return tower.fault(f"{name} of layer {other}", layer, "other-tensor", where, weights=plant)


def through(tower: Tower, layer: int, name: str, dtype: str) -> Fault:
    where, kind = tower.at(layer, name), {"bf16": ml_dtypes.bfloat16, "f16": np.float16}[dtype]
    plant = rounded(kind, f"{where}.{tower.matrix}")
    return tower.fault(f"{name} rounded through {dtype}", layer, "weight-rounded", where, weights=plant)


def relayered(family: str, block: str, theirs: str, order: Sequence[int], layers: int) -> Mapping[str, str]:
    """The sound morph with layer l of the candidate filled from layer order[l]."""
    found = {}
    for key, line in sound_lines(family, layers).items():
        for layer in range(layers):
            if key.startswith((block.format(layer) + ".", block.format(layer) + "/")):
                found[key] = line.replace(theirs.format(layer), theirs.format(order[layer]))
    return found


def lexicographic(layers: int) -> list[int]:
    """0, 1, 10, 11, 2 …: the order of names that are sorted as texts."""
    return [int(text) for text in sorted(str(layer) for layer in range(layers))]


def spread(makers: Sequence[Callable[[int], Fault]], layers: Sequence[int]) -> Iterator[Fault]:
    """Each maker at every one of the layers."""
    for make in makers:
        for layer in layers:
            yield make(layer)


def ends(
    family: str,
    what: str,
    kinds: str | tuple[str, ...],
    where: str | tuple[str, ...],
    depth: Depth = "ends",
    **how: Any,
) -> Fault:
    """A fault outside the blocks, or in all of them."""
    kinds = (kinds,) if isinstance(kinds, str) else kinds
    return Fault(f"{family}/{what}", family, depth, kinds, (where,) if isinstance(where, str) else where, **how)


def called_none(fault: Fault, reason: str) -> Fault:
    return replace(fault, equivalent=reason)


def placed(fault: Fault, where: tuple[str, ...]) -> Fault:
    return replace(fault, where=where)
