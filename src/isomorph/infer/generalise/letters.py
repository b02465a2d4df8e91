"""The letters that the field gives to axes: o i of a matrix, o c y x of a convolution, v d of an embedding, l layers, e experts.

Nothing depends on them but the reader: a letter that is taken is passed over for the next that fits.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from isomorph.infer.generalise.patterns import Dim, Index, Labels, Rule, Template, Term, dims_axes, token_axes

LAYERS = frozenset(["layer", "layers", "block", "blocks", "h", "resblocks", "encoderblock", "l"])
EXPERTS = frozenset(["expert", "experts"])
STAGES = frozenset(["stage", "stages", "levels"])
KINDS = frozenset(["weight", "bias", "kernel", "scale", "gamma", "beta", "weights", "w", "b", "running", "var", "mean"])
STACKS = frozenset(["encoder", "decoder"])
MODELS = frozenset(["vision", "text", "visual", "image", "audio"])
PARTS = frozenset(["q", "k", "v", "o", "query", "key", "value", "out", "qkv", "proj", "gate", "up"])
EMBEDDINGS = ("emb", "wte", "vocab", "token")
POSITIONS = ("pos", "wpe")
SPARE = "abcfgjkruwzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def letters(rule: Rule, wanted: dict[str, str] | None = None) -> dict[str, str]:
    """A name for every axis of a canonical rule. `wanted` are names that come from elsewhere (config keys)."""
    found: dict[str, str] = {}
    taken = set((wanted or {}).values())

    def name(axis: str, choices: Iterable[str]) -> None:
        if axis in found or axis == "..." or axis.isdigit():
            return
        if wanted and axis in wanted:
            found[axis] = wanted[axis]
            return
        found[axis] = next(letter for letter in itertools.chain(choices, SPARE, _numbered()) if letter not in taken)
        taken.add(found[axis])

    for template in rule.names:
        for at, token in enumerate(template):
            for position, axis in enumerate(token_axes(token)):
                if isinstance(token, Index):
                    name(axis, _index_letters(template, at, position, token))
                elif isinstance(token, Labels):
                    name(axis, _label_letters(token))
    for term in (*rule.left, *rule.right):
        if term.name is None and term.dims is not None and any(len(dim) for dim in term.dims):
            lone = _lone(rule, term)
            if lone is not None:
                name(lone, ("pad",))
    for term in (*rule.left, *rule.right):
        for axis in (product[0] for dim in term.dims or () if len(dim) > 1 for product in dim if len(product) == 1):
            parts = _part_letters(axis, rule) if isinstance(axis, str) else ()
            if parts:
                name(axis, parts)
    for side in torch_first(rule):
        for term in side:
            _name_dims(term, rule, name)
    for term in (*rule.left, *rule.right):
        for axis in dims_axes(term.dims):
            name(axis, ())
    return found


def _numbered() -> Iterable[str]:
    number = 1
    while True:
        yield f"x{number}"
        number += 1


def _index_letters(template: Template, at: int, position: int, token: Index) -> Sequence[str]:
    words = [word for word in template[:at] if isinstance(word, str) and word not in "._/-:"]
    word = words[-1].lower() if words else ""
    before = template[at - 1] if at else ""
    if token.tied:
        return ("r",)
    if word in EXPERTS or word.endswith("experts"):
        return ("e", "x")
    if word in STAGES:
        return ("s", "l")
    if (
        word in LAYERS
        and (word != "h" or before == ".")
        and (before in ("._", ".", "_", "/") or word.startswith(("enc", "layer", "block")))
    ):
        return ("l", "j", "k") if position == 0 else ("j", "k")
    return ("l", "j", "n", "k") if before in (".", "/") else ("n", "k", "j")


def _label_letters(token: Labels) -> Sequence[str]:
    words = {word for label in token.labels for word in label.replace("/", ".").replace("_", ".").split(".") if word}
    lower = {word.lower() for word in words}
    if lower and lower <= KINDS:
        return ("t", "n", "k")
    if lower & STACKS and len(token.labels) <= 3:
        return ("s", "n", "m")
    if lower & MODELS and len(token.labels) <= 3:
        return ("m", "n", "s")
    if lower <= {"w", "w1", "w2", "w3", "gate", "up", "1", "3"} and lower & {"w1", "gate", "w"}:
        return ("w", "n")
    if lower and len(lower & {"q", "k", "v", "query", "key", "value"}) >= 2:
        return ("p", "n")
    return ("n", "p", "k", "j", "u") if not token.axis.startswith("a") else ("p", "n", "k", "w")


def _lone(rule: Rule, term: Term) -> str | None:
    """The axis of a constant or drop that stands in a sum and in no other term of its side."""
    side = rule.left if any(term is one for one in rule.left) else rule.right
    other = rule.right if side is rule.left else rule.left
    beside = {axis for one in side if one is not term for axis in dims_axes(one.dims)}
    in_sums = {
        product[0] for one in other for dim in one.dims or () if len(dim) > 1 for product in dim if len(product) == 1
    }
    lone = [axis for axis in dims_axes(term.dims) if axis not in beside and axis in in_sums]
    return lone[0] if len(lone) == 1 else None


def torch_first(rule: Rule) -> tuple[tuple[Term, ...], tuple[Term, ...]]:
    """The side whose matrices are [out in] first, as far as the names tell."""
    right = {str(name[-1]) for name in rule.names[rule.n_left :] if name}
    left = {str(name[-1]) for name in rule.names[: rule.n_left] if name}
    if any("kernel" in _text(name) for name in rule.names[: rule.n_left]) or (
        "weight" in right and "weight" not in left
    ):
        return rule.right, rule.left
    return rule.left, rule.right


def _text(template: Template) -> str:
    return "".join(
        token if isinstance(token, str) else "|".join(token.labels) if isinstance(token, Labels) else ""
        for token in template
    ).lower()


def _name_dims(term: Term, rule: Rule, name: object) -> None:
    assert callable(name)
    head = term.name
    if head is None or term.dims is None:
        return
    words = _text(head)
    dims = [dim for dim in term.dims if dim != ((),)]
    rank = len(dims)
    if any(word in words for word in POSITIONS):
        spatial: tuple[tuple[str, ...], ...] = (("n",), ("d",))
    elif any(word in words for word in EMBEDDINGS) and "patch" not in words:
        spatial = (("v",), ("d",))
    else:
        spatial = (("o", "a"), ("i", "c", "b"))
    if rank == 4:
        spatial = (("o",), ("c",), ("y",), ("x",))
    elif rank == 5:
        spatial = (("o",), ("c",), ("z",), ("y",), ("x",))
    elif rank == 3 and "conv" in words:
        spatial = (("o",), ("c",), ("x",))
    elif rank == 1 and words.endswith(("bias", "scale", "gamma", "beta")):
        spatial = (("o", "d"),)
    elif rank == 1:
        spatial = (("d", "o"),)
    for position, dim in enumerate(dims):
        choices = spatial[position] if position < len(spatial) else ()
        _name_dim(dim, choices, rule, name)


def _name_dim(dim: Dim, choices: Sequence[str], rule: Rule, name: object) -> None:
    assert callable(name)
    if len(dim) > 1:
        for product in dim:
            for axis in product:
                if isinstance(axis, str) and len(product) == 1 and (parts := _part_letters(axis, rule)):
                    name(axis, parts)
                elif not isinstance(axis, str):
                    _name_dim(axis, (), rule, name)
        return
    axes = [axis for axis in dim[0] if isinstance(axis, str)]
    named = {axis for template in rule.names for token in template for axis in token_axes(token)}
    free = [axis for axis in axes if axis not in named and not axis.isdigit()]
    if len(free) == 1 and len(dim[0]) == len([axis for axis in axes if axis in named]) + 1:
        name(free[0], choices)
    else:
        usual = {1: ("d",), 2: ("h", "d"), 3: ("g", "r", "d")}.get(len(free), ())
        for axis, letter in zip(free, usual, strict=False):
            name(axis, (letter,))
    for factor in dim[0]:
        if not isinstance(factor, str):
            _name_dim(factor, (), rule, name)


def _part_letters(axis: str, rule: Rule) -> Sequence[str]:
    """q, k, v of a sum, by the names of the tensors that hold the axis."""
    holders = [
        term.name for term in (*rule.left, *rule.right) if term.name is not None and axis in dims_axes(term.dims)
    ]
    found: list[str] = []
    for template in holders:
        words = [token.lower() for token in template if isinstance(token, str)]
        others = [{token for token in one if isinstance(token, str)} for one in rule.names if one is not template]
        own = [word for word in words if not all(word in other for other in others)]
        short = next((word[0] for word in own if word in PARTS and word not in ("proj", "out", "qkv")), None)
        if short and short not in found:
            found.append(short)
    return ("".join(found),) if found else ()
