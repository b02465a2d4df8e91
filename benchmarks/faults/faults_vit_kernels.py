"""Faults of ViT's candidate in the style of Google's JAX release."""

from __future__ import annotations

import functools

from benchmarks.faults import taxonomy as t
from benchmarks.faults.planted import Fault
from benchmarks.faults.taxonomy import Tower, ends
from benchmarks.faults.weights import changed

KERNELS = Tower(
    "vit kernels", "", "encoderblocks.{}", "attention", ("attention",), "attention.out", "MlpBlock_3.Dense_0",
    "MlpBlock_3.Dense_1", "MlpBlock_3", ("LayerNorm_0", "LayerNorm_2"), matrix="kernel", heads=5,
    parts=("attention.query", "attention.key", "attention.value"),
)  # fmt: skip


def kernels() -> list[Fault]:
    """Google's style: kernels of three axes."""
    f = functools.partial(ends, "vit kernels")

    def heads_last(layer: int, part: str) -> Fault:
        where = KERNELS.at(layer, f"attention.{part}")
        lines = {key: KERNELS.line(key).replace("[(h d)", "[(d h)") for key in (f"{where}.kernel", f"{where}.bias")}
        there = (where, *t.core(KERNELS, layer))
        return KERNELS.fault(f"{part} heads of (d h)", layer, ("heads-permuted", "head-split"), there, morph=lines)

    def exchanged(layer: int, one: str, other: str) -> Fault:
        a, b = (KERNELS.at(layer, f"attention.{part}") for part in (one, other))
        lines = {}
        for end in (".kernel", ".bias"):
            for mine, theirs in ((a, b), (b, a)):
                lines[mine + end] = (
                    KERNELS.line(theirs + end).split(" <-> ")[0] + " <-> " + KERNELS.line(mine + end).split(" <-> ")[1]
                )
        return KERNELS.fault(f"{one} and {other} exchanged", layer, ("qkv-order", "other-tensor"), (a, b, *t.core(KERNELS, layer)),
                             morph=lines)  # fmt: skip

    def out_heads(layer: int) -> Fault:
        where = KERNELS.at(layer, "attention.out")
        lines = {f"{where}.kernel": KERNELS.line(f"{where}.kernel").replace("[o (h d)]", "[o (d h)]")}
        there = (where, *t.core(KERNELS, layer))
        return KERNELS.fault("out heads of (d h)", layer, ("heads-permuted", "head-merge"), there, morph=lines)

    found = [
        heads_last(0, "query"),
        heads_last(3, "value"),
        heads_last(2, "key"),
        out_heads(2),
        exchanged(0, "key", "value"),
        exchanged(2, "query", "key"),
        exchanged(3, "query", "key"),
        t.attention_scale(KERNELS, 2, "none"),
        t.merge(KERNELS, 3, "no transpose"),
        t.softmax_axis(KERNELS, 0),
        t.reshaped(KERNELS, 0, "MlpBlock_3.Dense_0"),
        t.reshaped(KERNELS, 3, "MlpBlock_3.Dense_1"),
        reshaped_by_morph(2),
        t.bias(KERNELS, 2, "attention.value", "ignored"),
        t.bias(KERNELS, 0, "attention.query", "doubled"),
        t.bias(KERNELS, 3, "attention.out", "ignored"),
        t.eps(KERNELS, 0, 0, 1e-12),
        t.eps(KERNELS, 3, 1, 1e-5),
        t.activation(KERNELS, 2, "tanh"),
        t.residual(KERNELS, 3, "mlp", "dropped"),
        t.residual(KERNELS, 0, "attention", "doubled"),
        f("patches by columns", "patch-order", ("embedding", ""), code={"embedding:patches": "columns"}),
        f(
            "patch kernel of [x y]",
            ("weight-transposed", "weight-axes"),
            "embedding",
            morph={
                "embedding.kernel": "vit.embeddings.patch_embeddings.projection.weight [o c y x] <-> embedding.kernel [x y c o]"
            },
        ),
        f(
            "patch kernel with its channels turned",
            ("channel-order", "weight-rows-permuted"),
            "embedding",
            weights=changed("embedding.kernel", lambda rows: rows[:, :, ::-1]),
        ),
        f(
            "layers 2 and 3 exchanged in code",
            "layer-order",
            ("", "encoderblocks", "encoderblocks.2", "encoderblocks.3"),
            "last",
            code={":order": (0, 1, 3, 2)},
        ),
    ]
    none = [
        f(
            "key bias left out",
            "bias-missing",
            "encoderblocks.1.attention.key",
            "middle",
            code={"encoderblocks.1.attention.key:bias": "ignored"},
            equivalent="a key's bias adds the same to every score of a query, and the softmax takes it out",
        ),
    ]
    return found + none


def reshaped_by_morph(layer: int) -> Fault:
    """[80 40] read in its own order as [40 80], by the morph."""
    where = KERNELS.at(layer, "MlpBlock_3.Dense_0")
    line = KERNELS.line(f"{where}.kernel").split(" [o i] <-> ")[0]
    lines = {f"{where}.kernel": f"{line} [(a b) c] <-> {where}.kernel [a (b c)] where b=2"}
    return KERNELS.fault("Dense_0 reshaped by the morph", layer, "weight-reshaped", where, morph=lines)
