"""The formula of attention is attention: equal to torch's own, to loops over queries and keys, and to transformers' buckets."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers.models.t5.modeling_t5 import T5Attention

from isomorph.trace.diagnose.attention_formula import (
    FUSED,
    SPLITS,
    Attention,
    Buckets,
    Mask,
    Rotary,
    attend,
    bucket_of,
    merge_heads,
    parts,
    rotate,
    split_heads,
)

BATCH, QUERIES, KEYS, HEADS, EACH = 2, 7, 7, 3, 4


def qkv(seed: int = 0, keys: int = KEYS):
    """q [B T (H D)], k and v [B S (H D)]."""
    random = np.random.default_rng(seed)
    sizes = (QUERIES, keys, keys)
    return tuple(random.normal(size=(BATCH, size, HEADS * EACH)) for size in sizes)


def real_keys():
    """The first row is whole, the second has three positions of padding on the right."""
    real = np.ones((BATCH, KEYS), bool)
    real[1, 4:] = False
    return real


def by_torch(given, mask=None, scale=None):
    """scaled_dot_product_attention over split heads, merged."""
    q, k, v = (torch.from_numpy(split_heads(x, HEADS, "h d").copy()) for x in given)
    mask = None if mask is None else torch.from_numpy(mask)
    out = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    return merge_heads(out.numpy(), "h d", None)


@pytest.mark.parametrize("scale", [0.5, 1.0, 0.1])
@pytest.mark.parametrize("keys", [KEYS, 5])
def test_attention_is_torchs(scale, keys):
    """Without a mask, with any scale and over a memory of another length."""
    given = qkv(keys=keys)
    np.testing.assert_allclose(by_torch(given, scale=scale), attend(Attention(HEADS, scale), given), atol=1e-14)


@pytest.mark.parametrize("how", ["add", "set"])
@pytest.mark.parametrize("fill", [-math.inf, -1e9])
def test_masks_are_torchs(how, fill):
    """Causal and padding masks together hide what a boolean mask hides."""
    given, real = qkv(), real_keys()
    allowed = np.tril(np.ones((QUERIES, KEYS), bool))[None, None] & real[:, None, None]
    rule = Attention(HEADS, 0.5, mask=Mask(causal=0, padding="real", fill=fill, how=how))
    np.testing.assert_allclose(by_torch(given, allowed, 0.5), attend(rule, given, real=real), atol=1e-8)


def test_a_finite_mask_leaks_by_its_value():
    """An additive mask of −2 is a boolean one's opposite: torch with the same additive mask."""
    given, real = qkv(), real_keys()
    added = np.where(real, 0.0, -2.0)[:, None, None] * np.ones((1, 1, QUERIES, 1))
    rule = Attention(HEADS, 0.5, mask=Mask(padding="real", fill=-2.0))
    np.testing.assert_allclose(by_torch(given, added, 0.5), attend(rule, given, real=real), atol=1e-14)


VARIANTS = {
    "plain": Attention(HEADS, 0.5),
    "causal": Attention(HEADS, 0.5, mask=Mask(causal=0, padding="real")),
    "off by one": Attention(HEADS, 0.5, mask=Mask(causal=1)),
    "after": Attention(HEADS, 0.5, mask=Mask(padding="real", how="after")),
    "over queries": Attention(HEADS, 0.5, softmax="queries"),
    "over heads": Attention(HEADS, 0.5, softmax="heads"),
    "rotary": Attention(HEADS, 0.5, rotary=Rotary("half")),
    "rotary pairs": Attention(HEADS, 0.5, rotary=Rotary("pairs", width=2)),
    "merged": Attention(HEADS, 0.5, merge="not transposed"),
    "split": Attention(HEADS, 0.5, split="not transposed"),
    "split d h": Attention(HEADS, 0.5, split="d h"),
    "bias": Attention(HEADS, 0.5, bias=Buckets("table", max_distance=16)),
    "roles": Attention(HEADS, 0.5, roles=(1, 0, 2)),
    "capped": Attention(HEADS, 0.5, soft_cap=1.0),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_some_rows_are_the_rows_of_all(name):
    """A rule made for a few queries gives the same rows, whatever it mixes."""
    given, rows = qkv(), np.array([0, 3, 6])
    tables = {"table": np.random.default_rng(1).normal(size=(8, HEADS))}
    whole = attend(VARIANTS[name], given, real=real_keys(), tables=tables)
    some = attend(VARIANTS[name], given, real=real_keys(), tables=tables, rows=rows)
    np.testing.assert_allclose(whole[:, rows], some, atol=1e-14)


def test_variants_all_differ():
    """No two rules of the list give one tensor: each parameter is felt."""
    tables = {"table": np.random.default_rng(1).normal(size=(8, HEADS))}
    made = [attend(rule, qkv(), real=real_keys(), tables=tables) for rule in VARIANTS.values()]
    gaps = [np.abs(a - b).max() for i, a in enumerate(made) for b in made[:i]]
    assert min(gaps) > 1e-3


@pytest.mark.parametrize("how", SPLITS)
def test_split_and_merge_are_inverse(how):
    x = qkv()[0]
    assert np.array_equal(x, merge_heads(split_heads(x, HEADS, how), how, None))


@pytest.mark.parametrize("layout", FUSED)
def test_parts_of_a_fused_tensor(layout):
    """Each layout gives back what was fused in it."""
    given = qkv()
    stacked = np.stack([x.reshape(BATCH, QUERIES, HEADS, EACH) for x in given])
    axes = [{"3": 0, "h": 3, "d": 4}[axis] for axis in layout.split()]
    fused = stacked.transpose(1, 2, *axes).reshape(BATCH, QUERIES, -1)
    for expected, found in zip(given, parts(fused, layout, HEADS), strict=True):
        assert np.array_equal(expected, found)


def test_grouped_heads_share_keys():
    """With fewer key heads, query head h reads key head h // group ("repeat") or h modulo their number ("tile")."""
    random = np.random.default_rng(0)
    q = random.normal(size=(BATCH, QUERIES, 4 * EACH))
    k, v = (random.normal(size=(BATCH, KEYS, 2 * EACH)) for _ in range(2))
    for groups, heads in (("repeat", [0, 0, 1, 1]), ("tile", [0, 1, 0, 1])):
        wide = [x.reshape(BATCH, KEYS, 2, EACH)[:, :, heads].reshape(BATCH, KEYS, -1) for x in (k, v)]
        expected = attend(Attention(4, 0.5), (q, *wide))
        found = attend(Attention(4, 0.5, key_heads=2, groups=groups), (q, k, v))
        np.testing.assert_allclose(expected, found, atol=1e-14)


@pytest.mark.parametrize("style", ["half", "pairs"])
def test_rotary_keeps_lengths_and_sees_only_differences(style):
    """Turned scores depend on the positions' difference alone; lengths stay."""
    random = np.random.default_rng(0)
    q, k = random.normal(size=(2, 1, 1, 1, 8)), random.normal(size=(2, 1, 1, 1, 8))
    rotary = Rotary(style, theta=100.0)
    scores = []
    for start in (0, 5):
        one = rotate(q[0], np.array([start + 3]), rotary)
        two = rotate(k[0], np.array([start]), rotary)
        assert np.isclose(np.linalg.norm(q[0]), np.linalg.norm(one))
        scores.append(float((one * two).sum()))
    assert math.isclose(*scores, rel_tol=1e-12)


@pytest.mark.parametrize("is_bidirectional", [True, False])
@pytest.mark.parametrize(("buckets", "max_distance"), [(32, 128), (16, 40), (8, 20)])
def test_buckets_are_transformers(is_bidirectional, buckets, max_distance):
    """The bucket of each distance, over twice the largest one."""
    relative = np.arange(-2 * max_distance, 2 * max_distance + 1)
    expected = T5Attention._relative_position_bucket(
        torch.from_numpy(relative), is_bidirectional, buckets, max_distance
    ).numpy()
    found = bucket_of(relative, buckets, is_bidirectional=is_bidirectional, max_distance=max_distance)
    assert np.array_equal(expected, found)


def test_a_bias_that_is_scaled_is_another():
    """With `is_scaled`, the scale also meets the bias."""
    tables = {"table": np.random.default_rng(1).normal(size=(8, HEADS))}
    rule = Attention(HEADS, 0.5, bias=Buckets("table"))
    halved = replace(rule, bias=Buckets("table", times=0.5))
    scaled = replace(rule, bias=Buckets("table", is_scaled=True))
    np.testing.assert_allclose(attend(halved, qkv(), tables=tables), attend(scaled, qkv(), tables=tables), atol=1e-14)
