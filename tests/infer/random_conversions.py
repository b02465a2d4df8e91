"""Random conversions for the laws of inference: layers of modules, each carried over in some form, under other words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from conversions import Array, Arrays, Conversion, Maker, cast, full
from hypothesis import strategies as st

WORDS = (
    "alpha",
    "beta_net",
    "gate",
    "mixer",
    "dense",
    "proj",
    "key",
    "value",
    "norm",
    "conv",
    "head",
    "tok",
    "fc",
    "attn",
    "mlp",
    "out",
)


@dataclass(frozen=True)
class Form:
    """One way of carrying matrices [o i] over: how many there are in the source, and what is made of them, by name."""

    name: str
    parts: int
    make: Callable[[list[Array]], dict[str, Array]]


def fused(parts: list[Array]) -> Array:
    """One after another."""
    return np.concatenate(parts)


def by_head(parts: list[Array], heads: int = 2) -> Array:
    """One after another within each head."""
    width = parts[0].shape[1]
    return np.concatenate([one.reshape(heads, -1, width) for one in parts], axis=1).reshape(-1, width)


FORMS = (
    Form("copy", 1, lambda p: {"w": p[0]}),
    Form("transposed", 1, lambda p: {"w": p[0].T}),
    Form("fused", 3, lambda p: {"w": fused(p)}),
    Form("fused, transposed", 2, lambda p: {"w": fused(p).T}),
    Form("by head", 3, lambda p: {"w": by_head(p)}),
    Form("in turn", 2, lambda p: {"w": np.stack(p, axis=1).reshape(-1, p[0].shape[1])}),
    Form("stacked", 4, lambda p: {"w": np.stack(p)}),
    Form("stacked last", 2, lambda p: {"w": np.stack(p, axis=-1)}),
    Form("split", 1, lambda p: {"a": p[0][:2], "b": p[0][2:]}),
    Form("halves split", 1, lambda p: dict(zip("xyz", [p[0][0::2], p[0][1::2]], strict=False))),
    Form("heads apart", 1, lambda p: {"w": p[0].T.reshape(p[0].shape[1], 2, -1)}),
    Form("padded", 1, lambda p: {"w": np.concatenate([p[0], full((3, p[0].shape[1]), 0, p[0])])}),
    Form("zeros beside", 1, lambda p: {"w": p[0], "b": full((5,), 0, p[0])}),
    Form("first rows", 1, lambda p: {"w": p[0][:3]}),
    Form("left out", 1, lambda p: {}),
    Form("twice", 1, lambda p: {"w": p[0], "tied": p[0]}),
    Form("half precision", 1, lambda p: {"w": cast(p[0], np.float16)}),
    Form("pixels last", 1, lambda p: {"w": p[0].reshape(*p[0].shape, 1, 1).transpose(2, 3, 1, 0)}),
)
"""What conversions do with matrices. Rows are counted in twos, so that two heads share them."""


@dataclass(frozen=True)
class Module:
    """Matrices of one shape in every layer, and their form."""

    word: str
    other: str
    form: Form
    rows: int
    columns: int


def conversion(modules: list[Module], layers: int, shift: int, separator: str) -> Conversion:
    """The conversion of a model of these modules in each layer, and one embedding."""

    def make(m: Maker) -> Arrays:
        a: Arrays = {"embed.weight": m.w(11, 6)}
        for layer in range(layers):
            for number, module in enumerate(modules):
                for part in range(module.form.parts):
                    a[f"layers.{layer}.{module.word}{number}.{part}.weight"] = m.w(module.rows, module.columns)
        return a

    def convert(a: Arrays) -> Arrays:
        made: Arrays = {"tables.tokens": a["embed.weight"]}
        for layer in range(layers):
            for number, module in enumerate(modules):
                parts = [a[f"layers.{layer}.{module.word}{number}.{part}.weight"] for part in range(module.form.parts)]
                for leaf, array in module.form.make(parts).items():
                    made[f"net.{layer + shift}.{module.other}_{'abcdef'[number]}.{leaf}"] = array
        return {name.replace(".", separator): array for name, array in made.items()}

    return Conversion("random", make, convert)


def modules() -> st.SearchStrategy[Module]:
    """A module of even rows, six at least, and of a few columns: often square, often of the shape of another."""
    words = st.sampled_from(WORDS)
    return st.builds(
        Module, words, words, st.sampled_from(FORMS), st.sampled_from([6, 8, 10]), st.sampled_from([6, 8, 5])
    )


def conversions() -> st.SearchStrategy[Conversion]:
    """Up to four modules in up to four layers."""
    return st.builds(
        conversion,
        st.lists(modules(), min_size=1, max_size=4),
        st.integers(1, 4),
        st.sampled_from([0, 1]),
        st.sampled_from([".", "/"]),
    )
