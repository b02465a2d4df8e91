"""Weights that show a fault: the reference's parameters, drawn anew. They go into copies of both models, through the morph.

Fresh weights hide faults: their attention is nearly uniform, their biases are zero, their norms do nothing. Trained ones hide some:
no activation is so small that a wrong eps shows. "hot" has sharp attention and random biases and norms; in "low-scale" all that
goes into norms is about as large as an eps.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from isomorph.errors import UsageError
from isomorph.trace.nouns import Array, ModuleFacts
from isomorph.trace.probes import Probe
from isomorph.trace.protocol import Side

Kind = Literal["scalar", "matrix", "table", "scale", "offset", "centred scale", "variance"]

CHAOS = 1e-3
"""The largest gap between float32 and float64 at the reference's outputs; beyond it rounding decides what comes out."""
SMALLER = 0.7
MOST_ROUNDS = 16
_BIAS = re.compile(r"(^|_)(b|bias|biases|beta|b\d+)(_|$)")
"""The last piece of a bias's name; another vector is a class token, or a row of a table."""
MOST_CHANNELS = 16
"""A kernel over no more channels is taken to face an image."""


@dataclass(frozen=True)
class Draw:
    """How large what is drawn is.

    `gain` multiplies matrices over 1/sqrt(fan-in), `pixels` more so the kernels that face an image. `table` is the spread of
    embeddings, `scale` the size of norm weights, `spread` their own (of the logarithm), `offset` the spread of biases, `variance`
    the size of running variances.
    """

    gain: float
    pixels: float
    table: float
    scale: float
    spread: float
    offset: float
    variance: float


HOT = Draw(gain=1.5, pixels=1.0, table=1.0, scale=1.0, spread=0.4, offset=0.3, variance=1.0)
LOW = Draw(gain=1.0, pixels=3e-3, table=2e-3, scale=3e-3, spread=0.3, offset=1e-3, variance=1e-5)


@dataclass(frozen=True)
class Regime:
    """One way to fill the models: "own weights" (`draw` None), "hot", "low-scale"."""

    name: str
    draw: Draw | None = None

    def state(
        self, reference: Side, seed: int = 0, probe: Probe | None = None, copies: tuple[Side, Side] | None = None
    ) -> dict[str, Array] | None:
        """Values for the reference's state dict, in float64 where floating; None: each side keeps its own weights.

        Parameters are drawn, tied ones alike; buffers stay, but for the running means of batch norms, and so does what is no
        float. Parameters of one element stay near their own value. With a probe, gains are lowered until the reference's float32
        run on it is within 1e-3 of its float64 run. Both are copies, which are filled: `copies`, or new ones.
        """
        if self.draw is None:
            return None
        own, kinds = reference.state(), kinds_of(reference)
        gain = self.draw.gain
        for _ in range(MOST_ROUNDS):
            made = {name: _drawn(name, own, kinds, self.draw, gain, seed) for name in own}
            for names in reference.ties():
                made.update(dict.fromkeys(names[1:], made[names[0]]))
            if probe is None or not _is_chaotic(reference, made, probe, copies):
                break
            gain *= SMALLER
        return made


def regimes() -> tuple[Regime, ...]:
    """The regimes that a trace runs, in order."""
    return Regime("own weights"), Regime("hot", HOT), Regime("low-scale", LOW)


REGIMES = regimes()


@dataclass(frozen=True)
class Parameter:
    """What a tensor is to its module, the sizes it sums over, and its spread over that of its like (at most 1)."""

    kind: Kind
    fan_in: int = 1
    relative: float = 1.0


def kinds_of(side: Side) -> dict[str, Parameter | None]:
    """What each tensor of a state dict is; None for what stays as it is.

    A model that is drawn small on purpose in one place (T5's queries, which are not divided by a root later) stays so: a matrix
    keeps its spread relative to the median of those that sum over as many.
    """
    state, owners = side.state(), {name: facts for facts in side.modules().values() for name in facts.own}
    buffers = {name for facts in owners.values() for name in facts.buffers}
    found = {name: _kind(name, value, owners.get(name), name in buffers, side.library) for name, value in state.items()}
    spreads: dict[int, list[float]] = {}
    for name, one in found.items():
        if one is not None and one.kind == "matrix":
            spreads.setdefault(one.fan_in, []).append(_spread(state[name]))
    for name, one in found.items():
        if one is not None and one.kind == "matrix":
            middle = float(np.median(spreads[one.fan_in]))
            relative = _spread(state[name]) / middle if middle > 0 else 1.0
            found[name] = Parameter("matrix", one.fan_in, min(1.0, max(relative, 1 / 16)))
    return found


def _kind(name: str, value: Array, owner: ModuleFacts | None, is_buffer: bool, library: str) -> Parameter | None:
    if value.dtype.kind not in "fV" and "float" not in value.dtype.name:
        return None
    module = "" if owner is None else owner.kind.lower()
    leaf = name.rpartition(".")[2].lower()
    if "batchnorm" in module or "_mean" in leaf or "_var" in leaf:
        if leaf.endswith(("_var", "_variance")):
            return Parameter("variance")
        if leaf.endswith("_mean"):
            return Parameter("offset")
    if is_buffer:
        return None
    if value.size == 1:
        return Parameter("scalar")
    plain = value.astype(np.float64)
    sizes = [size for size in value.shape if size > 1]
    if len(sizes) <= 1:
        if (plain > 0).all():
            return Parameter("scale")
        is_norm = "norm" in module and not _BIAS.search(leaf)
        if is_norm and not plain.any():
            return Parameter("centred scale")
        return Parameter("offset" if is_norm or "norm" in module or _BIAS.search(leaf) else "table")
    if "embed" in module or value.shape[0] == 1:
        return Parameter("table")
    turned = module == "conv1d" or (library == "paddle" and "linear" in module)
    return Parameter("matrix", value.shape[0] if turned and value.ndim == 2 else int(np.prod(value.shape[1:])))


def _spread(value: Array) -> float:
    return float(np.std(value.astype(np.float64)))


def _drawn(
    name: str, own: Mapping[str, Array], kinds: Mapping[str, Parameter | None], draw: Draw, gain: float, seed: int
) -> Array:
    value, one = own[name], kinds[name]
    if one is None:
        return value
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    noise: Array = np.asarray(rng.standard_normal(value.shape))
    made: Array
    if one.kind == "scalar":
        made = value.astype(np.float64) * (1 + 0.05 * noise) + (0.0 if value.any() else 0.1 * noise)
    elif one.kind == "matrix":
        faces = draw.pixels if value.ndim >= 4 and value.shape[1] <= MOST_CHANNELS else 1.0
        made = noise * (gain * faces * one.relative / np.sqrt(one.fan_in))
    elif one.kind == "table":
        made = noise * draw.table
    elif one.kind == "offset":
        made = noise * draw.offset
    elif one.kind == "variance":
        made = draw.variance * np.exp(draw.spread * noise)
    else:
        made = draw.scale * np.exp(draw.spread * noise) - (1.0 if one.kind == "centred scale" else 0.0)
    return np.asarray(made, dtype=np.float64).astype(np.float32).astype(np.float64)


def _is_chaotic(
    reference: Side, state: Mapping[str, Array], probe: Probe, copies: tuple[Side, Side] | None = None
) -> bool:
    """Whether float32 and float64 give what is not nearly the same. A side that does not run in float64 is taken as it is."""
    outputs = []
    try:
        for copy in copies or (reference.copy("float64"), reference.copy("float32")):
            copy.fill(state)
            outputs.append(copy.run(probe.reference, watch=()).outputs)
    except UsageError:
        return False
    for name, fine in outputs[0].items():
        coarse = outputs[1].get(name)
        if coarse is None or fine.dtype.kind != "f" or fine.shape != coarse.shape or not fine.size:
            continue
        size = float(np.max(np.abs(fine)))
        gap = float(np.max(np.abs(fine - coarse.astype(np.float64))))
        if not gap <= CHAOS * size:
            return True
    return False
