"""When a cause names a fault: the benchmark's own kinds, and what a trace may call them.

The slugs are those of `isomorph.trace.diagnose`. One that says too little must say the rest in its sentence: "layer-order" is right
for a layer that is left out only where the sentence says that it is not run.
"unknown" names nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from benchmarks.faults.planted import Fault

ACCEPTED: dict[str, tuple[tuple[str, str], ...]] = {
    "activation": (),
    "attention-scale": (),
    "attention-softmax": (),
    "bias-doubled": (("bias-scaled", "2|twice"),),
    "bias-missing": (),
    "channel-order": (("channels-reversed|rows-permuted", ""),),
    "class-token": (("position-.*", "class token"),),
    "dropout": (),
    "embedding-scale": (("term-scaled", "embed"),),
    "final-norm-missing": (("norm-missing", ""),),
    "gate-missing": (),
    "gate-swapped": (("parts-permuted|weights-swapped|weight-of-another", ""),),
    "half-accumulation": (("precision", ""),),
    "head-merge": (("heads-permuted|interleaved", ""),),
    "head-scale": (("output-scaled|term-scaled", ""),),
    "head-split": (("heads-permuted|interleaved", ""),),
    "heads-number": (),
    "heads-permuted": (("interleaved|rows-permuted|head-split|head-merge", ""),),
    "layer-order": (("layers-.*|run-order", ""),),
    "layer-repeated": (("layer-order", "times|twice"),),
    "layer-skipped": (("layer-order", "not run"),),
    "logit-scale": (),
    "mask-causal": (("mask-(missing|offset)", "causal|later|future"),),
    "mask-constant": (),
    "mask-inverted": (),
    "mask-missing": (),
    "mask-offset": (),
    "norm-eps": (),
    "norm-eps-place": (),
    "norm-kind": (("norm-mean", ""),),
    "norm-missing": (),
    "norm-order": (),
    "norm-plus-one": (("norm-one-plus-weight", ""),),
    "norm-swapped": (("norm-order", "the reference applies"),),
    "normalise-missing": (),
    "other-tensor": (("weight-of-another|weights-swapped", ""),),
    "parallel-block": (),
    "parameter-missing": (("weight-not-loaded|weight-zero", ""),),
    "patch-order": (),
    "pooler-tanh": (("activation(-missing)?|pooling|head-function", "tanh"),),
    "pooling": (),
    "position-missing": (),
    "position-offset": (("embedding-offset|ids-shifted", ""),),
    "position-order": (),
    "position-rows": (("class-token|position-place", "position"),),
    "qkv-interleaved": (("parts-interleaved", ""),),
    "qkv-order": (("parts-permuted|weights-swapped", ""),),
    "qkv-split": (),
    "relative-bias": (),
    "relative-bias-missing": (),
    "residual-doubled": (("residual-scaled|term-(doubled|scaled)", "2|twice"),),
    "residual-dropped": (("residual-missing", ""),),
    "residual-source": (),
    "tied-weight-stale": (("tied-stale|weight-not-loaded", ""),),
    "token-type": (("ids-.*", ""),),
    "token-type-missing": (("embedding-missing|term-missing", "type"), ("ids-constant", "")),
    "weight-axes": (("kernel-transposed|weight-transposed", ""),),
    "weight-reshaped": (),
    "weight-rounded": (),
    "weight-rows-permuted": (("rows-permuted|heads-permuted|channels-reversed|parts-permuted", ""),),
    "weight-transposed": (("kernel-transposed", ""),),
}
"""kind -> (pattern of the whole slug, pattern that the sentence holds): what names it besides the kind itself."""


def named(fault: Fault, kind: str, says: str) -> bool:
    """Whether a cause with this slug and this sentence names the fault."""
    return kind in fault.kinds or any(
        re.fullmatch(slug, kind) and re.search(word, says) for own in fault.kinds for slug, word in ACCEPTED[own]
    )


def unknown_kinds(faults: Sequence[Fault]) -> set[str]:
    """Kinds of faults that no cause could name."""
    return {kind for fault in faults for kind in fault.kinds} - set(ACCEPTED)
