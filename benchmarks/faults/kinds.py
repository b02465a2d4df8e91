"""When a cause names a fault: the benchmark's own kinds, and what a trace may call them.

Written beside the tables of `isomorph.trace.diagnose`, whose slugs these are. A slug that says too little must say the rest in its
sentence: "attention-mask" is right for a missing mask only where the sentence says that it is missing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from benchmarks.faults.planted import Fault

ACCEPTED: dict[str, tuple[tuple[str, str], ...]] = {
    "activation": (("activation", ""),),
    "attention-scale": (("attention-scale", ""),),
    "attention-softmax": (("attention-softmax", "quer"),),
    "bias-doubled": (("bias-doubled", ""), ("attention-qkv-bias", "twice|doubl"), ("bias-scaled", "2")),
    "bias-missing": (("bias-missing", ""), ("bias-scaled", " 0")),
    "channel-order": (("channels-reversed|rows-permuted|parts-permuted", ""),),
    "class-token": (("class-token.*", ""), ("position-place", ""), ("position-.*", "class token")),
    "dropout": (("dropout|nondeterministic|refused", ""),),
    "embedding-scale": (("embedding-scale|embedding-scaled|term-scaled", ""),),
    "final-norm-missing": (("norm-missing", ""),),
    "gate-missing": (("gate|activation", "missing|second"),),
    "gate-swapped": (("gate|parts-permuted|weights-swapped|weight-of-another", ""),),
    "half-accumulation": (("precision|half-.*", ""),),
    "head-merge": (("attention-merge|heads-permuted|interleaved", ""),),
    "head-scale": (("head-scale|output-scaled|term-scaled|logit-scale", ""),),
    "head-split": (("attention-split|heads-permuted|interleaved", ""),),
    "heads-number": (("attention-heads", ""), ("attention-split", "heads")),
    "heads-permuted": (("heads-permuted|interleaved|attention-head-order|rows-permuted|attention-split|attention-merge", ""),),
    "layer-order": (("layer-order|layers-.*", ""),),
    "layer-repeated": (("layer-order", "times|twice|order"),),
    "layer-skipped": (("layer-order", "not run|order"),),
    "logit-scale": (("logit-scale", ""),),
    "mask-causal": (("attention-mask.*", "causal|later|ahead|future"),),
    "mask-constant": (("attention-mask-value", ""), ("attention-padding-mask", "by")),
    "mask-inverted": (("attention-.*mask.*", "invert|transposed|hides"),),
    "mask-missing": (("attention-.*mask.*", "missing"),),
    "mask-offset": (("attention-mask-offset", ""), ("attention-padding-mask", "off by one")),
    "norm-eps": (("norm-eps|norm-eps-place", ""),),
    "norm-kind": (("norm-mean", ""),),
    "norm-missing": (("norm-missing", ""),),
    "norm-order": (("norm-order", ""),),
    "norm-plus-one": (("norm-one-plus-weight", ""),),
    "norm-swapped": (("norm-order", ""),),
    "normalise-missing": (("normalisation", ""),),
    "other-tensor": (("weight-of-another|weights-swapped", ""), ("weight-other", "")),
    "parallel-block": (("norm-order|residual-.*|term-replaced|parallel.*", ""),),
    "parameter-missing": (("weight-not-loaded|weight-other|weight-zero", ""),),
    "patch-order": (("patch-order|position-order", ""),),
    "pooler-tanh": (("activation|pooling|head-function", "tanh"),),
    "pooling": (("pooling", ""),),
    "position-missing": (("position-embedding(-missing)?", "missing"), ("term-.*|embedding-missing", "posi.*missing")),
    "position-offset": (("position-offset|embedding-offset|ids-offset", ""),),
    "qkv-interleaved": (("parts-interleaved|attention-split|interleaved", ""),),
    "qkv-layout": (("parts-.*|attention-split|attention-roles", ""),),
    "qkv-order": (("parts-permuted|attention-roles|attention-split|weights-swapped", ""),),
    "qkv-split": (("attention-split|attention-roles", ""),),
    "relative-bias": (("attention-bias", ""),),
    "relative-bias-missing": (("attention-bias", "missing"),),
    "residual-doubled": (("residual-doubled|residual-scaled", ""), ("term-(doubled|scaled)", "")),
    "residual-dropped": (("residual-missing|residual-dropped", ""), ("term-missing", "")),
    "residual-source": (("norm-order|residual-.*|term-replaced", ""),),
    "tied-weight-stale": (("tied-stale|weight-not-loaded|weight-other", ""),),
    "token-type": (("ids-.*|token-type.*", ""),),
    "token-type-missing": (("embedding-missing|term-missing", "type"), ("ids-constant", "")),
    "weight-axes": (("kernel-transposed|weight-transposed", ""),),
    "weight-reshaped": (("weight-reshaped", ""),),
    "weight-rounded": (("weight-rounded|precision", ""),),
    "weight-rows-permuted": (("rows-permuted|heads-permuted|channels-reversed|parts-permuted|interleaved|attention-bias", ""),),
    "weight-transposed": (("weight-transposed|kernel-transposed|projection-transposed", ""),),
}  # fmt: skip
"""kind -> (pattern of the whole slug, pattern that the sentence holds)."""


def named(fault: Fault, kind: str, says: str) -> bool:
    """Whether a cause with this slug and this sentence names the fault."""
    return kind in fault.kinds or any(
        re.fullmatch(slug, kind) and re.search(word, says) for own in fault.kinds for slug, word in ACCEPTED[own]
    )


def unknown_kinds(faults: Sequence[Fault]) -> set[str]:
    """Kinds of faults that no cause could name."""
    return {kind for fault in faults for kind in fault.kinds} - set(ACCEPTED)
