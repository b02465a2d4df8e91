"""A small transformer in two layouts: what the tests of the pipeline infer between."""

from __future__ import annotations

from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray[Any, Any]]
WIDTH, WIDE, LAYERS = 8, 12, 4


def source(layers: int = LAYERS, seed: int = 0) -> Arrays:
    """Under torch's conventions; q, k and v apart; norms that were trained."""
    drawn = np.random.default_rng(seed)

    def weights(*shape: int) -> np.ndarray[Any, Any]:
        return drawn.standard_normal(shape).astype("f4")

    found: Arrays = {"emb.weight": weights(17, WIDTH)}
    for layer in range(layers):
        at = f"layers.{layer}."
        for part in "qkv":
            found[f"{at}attn.{part}_proj.weight"] = weights(WIDTH, WIDTH)
            found[f"{at}attn.{part}_proj.bias"] = weights(WIDTH)
        found[f"{at}attn.out_proj.weight"] = weights(WIDTH, WIDTH)
        found[f"{at}fc1.weight"], found[f"{at}fc2.weight"] = weights(WIDE, WIDTH), weights(WIDTH, WIDE)
        for norm in (1, 2):
            found[f"{at}norm{norm}.weight"] = weights(WIDTH)
    return found


def target(given: Arrays) -> Arrays:
    """The same with q, k and v fused, and the MLP's matrices [in out]."""
    found: Arrays = {"tok.weight": given["emb.weight"]}
    layers = sum(name.endswith("fc1.weight") for name in given)
    for layer in range(layers):
        at, to = f"layers.{layer}.", f"blocks.{layer}."
        for kind in ("weight", "bias"):
            found[f"{to}mix.qkv.{kind}"] = np.concatenate([given[f"{at}attn.{part}_proj.{kind}"] for part in "qkv"])
        found[f"{to}mix.proj.weight"] = given[f"{at}attn.out_proj.weight"]
        for one, other in (("fc1", "up"), ("fc2", "down")):
            found[f"{to}mlp.{other}.kernel"] = np.ascontiguousarray(given[f"{at}{one}.weight"].T)
        for norm in (1, 2):
            found[f"{to}ln{norm}.scale"] = given[f"{at}norm{norm}.weight"]
    return found
