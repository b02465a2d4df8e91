"""Attention as a formula with parameters, in numpy: what one side computes between its projections, and what else it might.

Letters are axes: B batch, T queries, S keys, H heads, D width of a head. q is [B T (H D)], k and v are [B S (H D)] or narrower.

    out = merge(softmax(scale · rotated(q) @ rotated(k)ᵀ + bias, masked) @ v)

source: Vaswani et al. 2017, arxiv.org/abs/1706.03762; Su et al. 2021, arxiv.org/abs/2104.09864 (rotary)
source: Raffel et al. 2020, arxiv.org/abs/1910.10683, and mesh_tensorflow transformer_layers.py (buckets of relative positions)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import ml_dtypes
import numpy as np

from isomorph.trace.nouns import Array

Split = Literal["h d", "d h", "not transposed"]
SPLITS: tuple[Split, ...] = ("h d", "d h", "not transposed")


@dataclass(frozen=True)
class Rotary:
    """Rotary positions: `style` pairs entry i with i + D/2 ("half") or 2i with 2i + 1 ("pairs").

    `width` entries of each head are turned, the first ones; position p turns pair i by p · times[i] · theta^(-2i/over), the other
    way round where `is_reversed`. `over` None is the width; `times` is one number for all pairs, or one for each.
    """

    style: Literal["half", "pairs"] = "half"
    theta: float = 10000.0
    width: int | None = None
    is_reversed: bool = False
    turns: Literal["both", "queries", "keys", "values too"] = "both"
    over: int | None = None
    times: tuple[float, ...] = (1.0,)


@dataclass(frozen=True)
class Buckets:
    """A table of biases by bucket of the relative position, [buckets H]; `table` names it among the values given to `attend`."""

    table: str
    is_bidirectional: bool = True
    max_distance: int = 128
    is_flipped: bool = False
    offset: int = 0
    times: float = 1.0
    is_scaled: bool = False
    logarithm: Literal["float32", "float64"] = "float32"


@dataclass(frozen=True)
class Mask:
    """Which keys a query may see, and what is done to the others.

    `causal`: None, or the k in "query t sees keys up to t + k"; `is_upper` turns that round. `padding`: None, or what is taken for
    the real keys. `fill` is added to the scores of hidden keys ("add"), takes their place ("set"), or the probabilities are
    set to zero after the softmax ("after"). `is_inverted`: what would be seen is hidden, and the other way round. `window`: the
    most keys that a query sees, its own among them (without a causal mask, as many on either side).
    """

    causal: int | None = None
    is_upper: bool = False
    padding: Literal["real", "inverted", "flipped", "next", "last", "rolled right", "rolled left"] | None = None
    fill: float = -math.inf
    how: Literal["add", "set", "after"] = "add"
    window: int | None = None
    is_inverted: bool = False


@dataclass(frozen=True)
class Attention:
    """All parameters. `roles` says which of three tensors are q, k and v; `head_order` in which order heads are merged."""

    heads: int
    scale: float
    key_heads: int | None = None
    mask: Mask = Mask()
    bias: Buckets | None = None
    rotary: Rotary | None = None
    roles: tuple[int, int, int] = (0, 1, 2)
    split: Split = "h d"
    split_of: Literal["all", "q", "k", "v"] = "all"
    merge: Split = "h d"
    head_order: tuple[int, ...] | None = None
    groups: Literal["repeat", "tile"] = "repeat"
    softmax: Literal["keys", "queries", "heads", "none", "off by one"] = "keys"
    half: str | None = None
    half_at: Literal["factors", "products", "scores", "probabilities", "both", "all"] = "both"
    soft_cap: float | None = None


def attend(
    rule: Attention,
    given: tuple[Array, Array, Array],
    *,
    real: Array | None = None,
    tables: dict[str, Array] | None = None,
    rows: Array | None = None,
) -> Array:
    """out [B T (H D)] of three tensors in float64; `real` [B S] is True at keys that are not padding.

    With `rows` only those queries' rows are made, [B rows (H D)]; rules that mix the queries (`mixes_queries`) make all and pick.
    """
    if rows is not None and mixes_queries(rule):
        return attend(rule, given, real=real, tables=tables)[:, rows]
    q, k, v = (given[role] for role in rule.roles)
    key_heads = rule.key_heads or rule.heads
    positions = np.arange(q.shape[1])
    splits: list[Split] = [rule.split if rule.split_of in ("all", letter) else "h d" for letter in ("q", "k", "v")]
    q_BHTD = split_heads(q, rule.heads, splits[0])
    if rows is not None:
        q_BHTD, positions = q_BHTD[:, :, rows], rows
    k_BHSD, v_BHSD = split_heads(k, key_heads, splits[1]), split_heads(v, key_heads, splits[2])
    if rule.rotary is not None:
        if rule.rotary.turns != "keys":
            q_BHTD = rotate(q_BHTD, positions, rule.rotary)
        if rule.rotary.turns != "queries":
            k_BHSD = rotate(k_BHSD, np.arange(k_BHSD.shape[2]), rule.rotary)
        if rule.rotary.turns == "values too":
            v_BHSD = rotate(v_BHSD, np.arange(v_BHSD.shape[2]), rule.rotary)
    if key_heads != rule.heads:
        times = rule.heads // key_heads
        k_BHSD, v_BHSD = (_share(x, times, rule.groups) for x in (k_BHSD, v_BHSD))
    scale = rule.scale
    if rule.half is not None and rule.half_at in ("factors", "products", "all"):
        if rule.half_at == "factors":
            q_BHTD, scale = q_BHTD * scale, 1.0
        q_BHTD, k_BHSD = round_to(q_BHTD, rule.half), round_to(k_BHSD, rule.half)
        v_BHSD = round_to(v_BHSD, rule.half) if rule.half_at == "all" else v_BHSD
    scores = np.matmul(q_BHTD, k_BHSD.swapaxes(-1, -2))
    if rule.half is not None and rule.half_at in ("factors", "products", "all"):
        scores = round_to(scores, rule.half)
    bias = None
    if rule.bias is not None:
        bias = bias_of(rule.bias, (tables or {})[rule.bias.table], positions, k_BHSD.shape[2], rule.heads)
    if bias is not None and rule.bias is not None and rule.bias.is_scaled:
        scores = (scores + bias) * scale
    else:
        scores = scores * scale
        scores = scores if bias is None else scores + bias
    if rule.soft_cap is not None:
        scores = rule.soft_cap * np.tanh(scores / rule.soft_cap)
    probabilities = weigh(rule, scores, seen(rule.mask, positions, k_BHSD.shape[2], real))
    mixed = np.matmul(probabilities, v_BHSD)
    if rule.half is not None and rule.half_at == "all":
        mixed = round_to(mixed, rule.half)
    return merge_heads(mixed, rule.merge, rule.head_order)


def mixes_queries(rule: Attention) -> bool:
    """True when one row of the output needs other queries' rows."""
    return rule.softmax == "queries" or rule.merge == "not transposed"


def split_heads(x: Array, heads: int, how: Split) -> Array:
    """[B T (H D)] -> [B H T D]; "not transposed" reads the same memory as [B H T D] at once."""
    batch, length, width = x.shape
    each = width // heads
    if how == "not transposed":
        return x.reshape(batch, heads, length, each)
    if how == "d h":
        return x.reshape(batch, length, each, heads).transpose(0, 3, 1, 2)
    return x.reshape(batch, length, heads, each).transpose(0, 2, 1, 3)


def merge_heads(x: Array, how: Split, order: tuple[int, ...] | None) -> Array:
    """[B H T D] -> [B T (H D)]."""
    batch, heads, length, each = x.shape
    if order is not None:
        x = x[:, list(order)]
    if how == "not transposed":
        return x.reshape(batch, length, heads * each)
    if how == "d h":
        return x.transpose(0, 2, 3, 1).reshape(batch, length, heads * each)
    return x.transpose(0, 2, 1, 3).reshape(batch, length, heads * each)


def _share(x: Array, times: int, how: str) -> Array:
    return np.tile(x, (1, times, 1, 1)) if how == "tile" else np.repeat(x, times, axis=1)


def rotate(x_BHTD: Array, positions: Array, rotary: Rotary) -> Array:
    """The entries of each head, turned by their position's angles."""
    each = x_BHTD.shape[-1]
    width = min(rotary.width or each, each) // 2 * 2
    if width == 0:
        return x_BHTD
    rates = np.asarray(rotary.times) * rotary.theta ** (-np.arange(0, width, 2) / (rotary.over or width))
    angle = positions[:, None] * rates
    cos, sin = np.cos(angle), np.sin(angle) * (-1 if rotary.is_reversed else 1)
    out = x_BHTD.copy()
    if rotary.style == "half":
        one, two = slice(0, width // 2), slice(width // 2, width)
    else:
        one, two = slice(0, width, 2), slice(1, width, 2)
    first, second = x_BHTD[..., one], x_BHTD[..., two]
    out[..., one] = first * cos - second * sin
    out[..., two] = second * cos + first * sin
    return out


def bucket_of(
    relative: Array, buckets: int, *, is_bidirectional: bool, max_distance: int, logarithm: str = "float32"
) -> Array:
    """The bucket of each relative position (key − query): half of them exact, the rest logarithmic up to `max_distance`."""
    result = np.zeros(relative.shape, np.int64)
    if is_bidirectional:
        buckets //= 2
        result = (relative > 0) * buckets
        distance = np.abs(relative)
    else:
        distance = np.maximum(-relative, 0)
    exact = max(buckets // 2, 1)
    kind = np.dtype(logarithm).type  # the truncation to whole numbers feels its last bit
    fraction = np.log(np.maximum(distance, 1).astype(kind) / kind(exact)) / kind(
        math.log(max(max_distance / exact, 1 + 1e-6))
    )
    far = exact + (fraction * kind(buckets - exact)).astype(np.int64)
    return np.asarray(result + np.where(distance < exact, distance, np.minimum(far, buckets - 1)))


def bias_of(rule: Buckets, table: Array, queries: Array, keys: int, heads: int) -> Array:
    """[H T S] from a table [buckets H] (or [H buckets])."""
    if table.shape[1] != heads:
        table = table.T
    relative = np.arange(keys)[None, :] - queries[:, None] + rule.offset
    bucket = bucket_of(
        -relative if rule.is_flipped else relative,
        len(table),
        is_bidirectional=rule.is_bidirectional,
        max_distance=rule.max_distance,
        logarithm=rule.logarithm,
    )
    return np.asarray(table[bucket].transpose(2, 0, 1) * rule.times)


def seen(mask: Mask, queries: Array, keys: int, real: Array | None) -> Array | None:
    """[B or 1, 1, T, S] True where a query sees a key; None where all see all."""
    allowed = None
    if mask.causal is not None:
        gap = np.arange(keys)[None, :] - queries[:, None]
        allowed = (gap >= mask.causal) if mask.is_upper else (gap <= mask.causal)
        if mask.window is not None:
            allowed &= gap > mask.causal - mask.window
        allowed = allowed[None, None]
    elif mask.window is not None:
        allowed = (np.abs(np.arange(keys)[None, :] - queries[:, None]) < mask.window)[None, None]
    if mask.padding is not None and real is not None and real.shape[1] == keys:
        given = {
            "real": real,
            "inverted": ~real,
            "flipped": real[:, ::-1],
            "next": np.concatenate([real[:, 1:], real[:, -1:]], axis=1),
            "last": np.concatenate([real[:, :1], real[:, :-1]], axis=1),
            "rolled right": np.roll(real, 1, axis=1),
            "rolled left": np.roll(real, -1, axis=1),
        }[mask.padding][:, None, None, :]
        allowed = given if allowed is None else allowed & given
    return ~allowed if allowed is not None and mask.is_inverted else allowed


def weigh(rule: Attention, scores: Array, allowed: Array | None) -> Array:
    """Scores [B H T S] -> what v is multiplied with. A row that sees nothing gives zeros where `fill` is −inf."""
    mask = rule.mask
    if allowed is not None and mask.how == "add":
        scores = scores + np.where(allowed, 0.0, mask.fill)
    elif allowed is not None and mask.how == "set":
        scores = np.where(allowed, scores, mask.fill)
    if rule.half is not None and rule.half_at in ("scores", "both", "all"):
        scores = round_to(scores, rule.half)
    if rule.softmax == "none":
        weights = scores if allowed is None or mask.how == "after" else np.where(allowed, scores, 0.0)
    else:
        axis = {"queries": -2, "heads": 1}.get(rule.softmax, -1)
        top = scores.max(axis=axis, keepdims=True)
        weights = np.exp(scores - np.where(np.isfinite(top), top, 0.0))
        total = weights.sum(axis=axis, keepdims=True)
        if rule.softmax == "off by one":
            total = total + np.exp(-np.where(np.isfinite(top), top, 0.0))
        weights = weights / np.where(total == 0, 1.0, total)
    if allowed is not None and mask.how == "after":
        weights = np.where(allowed, weights, 0.0)
    if rule.half is not None and rule.half_at in ("probabilities", "both", "all"):
        weights = round_to(weights, rule.half)
    return np.asarray(weights)


HALVES = {
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float32": np.dtype(np.float32),
}


@np.errstate(over="ignore")
def round_to(x: Array, dtype: str) -> Array:
    """Through a narrower dtype and back to float64."""
    return np.asarray(x.astype(HALVES[dtype]).astype(np.float64))


FUSED = ("3 h d", "h 3 d", "h d 3", "3 d h", "d 3 h", "d h 3")


def parts(fused: Array, layout: str, heads: int) -> tuple[Array, Array, Array]:
    """Three tensors [B T (H D)] of one [B T (3 H D)], read in one of `FUSED`'s orders."""
    axes = layout.split()
    batch, length, width = fused.shape
    sizes = {"3": 3, "h": heads, "d": width // (3 * heads)}
    cut = fused.reshape(batch, length, *(sizes[axis] for axis in axes))
    ordered = cut.transpose(2 + axes.index("3"), 0, 1, 2 + axes.index("h"), 2 + axes.index("d"))
    q, k, v = ordered.reshape(3, batch, length, width // 3)
    return q, k, v


def blocks(fused: Array, key_width: int) -> tuple[Array, Array, Array]:
    """q, k and v of one tensor whose first part is q and whose last two are `key_width` wide."""
    width = fused.shape[-1] - 2 * key_width
    return fused[..., :width], fused[..., width : width + key_width], fused[..., width + key_width :]
