"""Inference by values on freshly initialised models: norms 1, biases 0. What values do not say, relatives and names do; what is found
must hold for any other weights of these shapes, or be asked."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import numpy as np
import pytest
from conversions import Array, Arrays
from corpora import deep_fresh, fresh
from judged import carried_out, differing, outcome

from isomorph.formats.memory import ArrayCheckpoint
from isomorph.infer.by_name.relatives import Relatives, blocks, kind, module, renamed
from isomorph.infer.nouns import Inference, copy_of
from isomorph.infer.run import infer

DIM, HEADS, LAYERS = 16, 4, 4
EXAMPLES = {**fresh(), **deep_fresh()}


def inferred(source: Arrays, target: Arrays) -> Inference:
    return infer(ArrayCheckpoint(source), ArrayCheckpoint(target))


def encoder(random: bool = False, seed: int = 0, count: int = LAYERS) -> Arrays:
    """A pre-norm tower; of random weights, or as it is initialised."""
    rng = np.random.default_rng(seed)

    def made(shape: tuple[int, ...], value: float | None = None) -> Array:
        if random or value is None:
            return rng.standard_normal(shape).astype(np.float32)
        return np.full(shape, value, np.float32)

    a: Arrays = {"embed.weight": made((20, DIM))}
    for layer in range(count):
        at = f"layers.{layer}."
        for part, rows, columns in (
            ("attn.q", DIM, DIM),
            ("attn.k", DIM, DIM),
            ("attn.v", DIM, DIM),
            ("attn.out", DIM, DIM),
            ("mlp.fc1", 3 * DIM, DIM),
            ("mlp.fc2", DIM, 3 * DIM),
        ):
            a[f"{at}{part}.weight"], a[f"{at}{part}.bias"] = made((rows, columns)), made((rows,), 0)
        for norm in ("norm1", "norm2"):
            a[f"{at}{norm}.weight"], a[f"{at}{norm}.bias"] = made((DIM,), 1), made((DIM,), 0)
        a[f"{at}scale.gamma"] = made((DIM,), 1e-5)
    a["norm.weight"], a["norm.bias"] = made((DIM,), 1), made((DIM,), 0)
    return a


def numbered(a: Arrays, of: Callable[[int], str | None]) -> Arrays:
    """Under other layers: number -> the new prefix, or None where the layer is left out."""
    found: Arrays = {}
    for name, array in a.items():
        layer = re.match(r"layers\.(\d+)\.", name)
        start = of(int(layer[1])) if layer else ""
        if start is not None:
            found[start + name[layer.end() if layer else 0 :]] = array
    return found


def fused(a: Arrays) -> Arrays:
    """q, k and v in one, biases too."""
    found: Arrays = {}
    for name, array in a.items():
        if ".attn.q." in name:
            found[name.replace(".q.", ".qkv.")] = np.concatenate([a[name.replace(".q.", f".{p}.")] for p in "qkv"])
        elif not re.search(r"attn\.[kv]\.", name):
            found[name] = array
    return found


def per_head(a: Arrays) -> Arrays:
    """Kernels with the output last, cut into heads; biases cut alike."""
    found: Arrays = {}
    for name, array in a.items():
        if re.search(r"attn\.[qkv]\.", name):
            array = array.T.reshape(*array.T.shape[:-1], HEADS, DIM // HEADS)
        elif array.ndim == 2 and "embed" not in name:
            array = array.T
        found[name.replace("weight", "kernel") if array.ndim > 1 else name] = array
    return found


CONVERSIONS: Mapping[str, Callable[[Arrays], Arrays]] = {
    "reversed": lambda a: numbered(a, lambda layer: f"h.{LAYERS - 1 - layer}."),
    "every second": lambda a: numbered(a, lambda layer: None if layer % 2 else f"h.{layer // 2}."),
    "stages": lambda a: numbered(a, lambda layer: f"stages.{layer // 2}.blocks.{layer % 2}."),
    "permuted": lambda a: numbered(a, lambda layer: f"h.{(2, 0, 3, 1)[layer]}."),
    "from one": lambda a: numbered(a, lambda layer: f"h.{layer + 1}."),
    "fused and reversed": lambda a: fused(numbered(a, lambda layer: f"h.{LAYERS - 1 - layer}.")),
    "heads": per_head,
}


@pytest.mark.parametrize("name", CONVERSIONS)
def test_what_is_found_of_fresh_weights_holds_for_others(name: str) -> None:
    convert = CONVERSIONS[name]
    found = inferred(encoder(), convert(encoder()))
    assert found.is_proved
    others = encoder(random=True, seed=1)
    assert differing(carried_out(found.text, others, None), convert(others)) == []
    assert found.text.count("\n") < 24


@pytest.mark.parametrize(
    "name",
    [
        "llama to phi3 (fresh)",
        "layers reversed (fresh)",
        "stages for layers (fresh)",
        "resnet to flax (fresh)",
        "swin to transformers (fresh)",
        "every second layer (fresh)",
        "lstm gates reordered (fresh)",
        "mamba to gguf (fresh)",
        "timm to keras hub (fresh)",
        "vit/timm to hf (fresh)",
    ],
)
def test_corpora_of_fresh_weights(name: str) -> None:
    example = EXAMPLES[name]()
    found = infer(ArrayCheckpoint(example.source), ArrayCheckpoint(example.target), configs=example.configs)
    seen = outcome(example, found)
    assert (found.is_proved, seen.is_exact, seen.again) == (True, True, ())


@pytest.mark.parametrize("name", ["beit to fused (fresh)", "lstm to onnx (fresh)", "norms one more (fresh)"])
def test_what_values_cannot_decide_is_not_stated(name: str) -> None:
    """Zeros that may be the zeros of sources that go nowhere; twos that may be ones and one more."""
    example = EXAMPLES[name]()
    found = infer(ArrayCheckpoint(example.source), ArrayCheckpoint(example.target), configs=example.configs)
    seen = outcome(example, found)
    assert (found.is_proved, seen.wrong, seen.is_honest) == (False, (), True)
    assert found.questions or found.coverage.unplaced


def test_two_norms_with_opaque_names_are_asked() -> None:
    names = {"norm1": "zork", "norm2": "blib"}

    def convert(a: Arrays) -> Arrays:
        return {re.sub("norm[12]", lambda one: names[one[0]], name): array for name, array in a.items()}

    found = inferred(encoder(), convert(encoder()))
    assert not found.is_proved
    assert {one.kind for one in found.questions} == {"source"}
    asked = {name for one in found.questions for name in one.targets}
    assert asked == {name for name in convert(encoder()) if "zork" in name or "blib" in name}
    for question in found.questions:
        stated = [
            set(zip(one.targets, one.sources, strict=True)) for way in question.alternatives for one in way.relations
        ]
        for target in question.targets:
            truth = target.replace("zork", "norm1").replace("blib", "norm2")
            assert any((target, truth) in pairs for pairs in stated)


def test_a_new_bias_is_made_where_no_source_of_its_value_is_left() -> None:
    source = {name: array for name, array in encoder().items() if not name.endswith("k.bias")}
    found = inferred(source, encoder())
    assert found.is_proved
    constants = [one for one in found.evidence if one.evidence == "constant"]
    assert {name for one in constants for name in one.targets} == {f"layers.{n}.attn.k.bias" for n in range(LAYERS)}


def test_relatives_tell_blocks_and_modules() -> None:
    known = [
        copy_of(f"h.{here}.{name}.w", f"s.{there}.{name}.kernel", (2, 2))
        for here, there in ((2, 0), (0, 1))
        for name in ("q", "k")
    ]
    source = [f"h.{n}.{name}.{leaf}" for n in range(3) for name in ("q", "k") for leaf in ("w", "b")]
    target = [f"s.{n}.{name}.{leaf}" for n in range(2) for name in ("q", "k") for leaf in ("kernel", "bias")]
    found = Relatives.of(known, source, target)
    assert found.blocks == {"s.0.": "h.2.", "s.1.": "h.0."}
    assert found.modules["h.2.q."] == "s.0.q."
    assert found.lost == {"h.1."}
    assert found.allows(copy_of("h.2.q.b", "s.0.q.bias", (2,)))
    assert not found.allows(copy_of("h.0.q.b", "s.0.q.bias", (2,)))
    (only,) = found.rounds(target)
    assert only.sources(found, source)["h.0.k.b"] == "s.1.k.b"


def test_names_of_relatives_do_not_meet() -> None:
    """A source that is called as the relative of another is stands apart."""
    assert renamed(["b.w", "a.w", "c.w"], {"a.": "b."}) == {"b.w": "other.b.w", "a.w": "b.w", "c.w": "c.w"}
    assert renamed(["m.a.w", "m.c"], {"m.a.": "n.x.b."}, ("m.", "n.")) == {"m.a.w": "n.x.b.w", "m.c": "n.c"}


def test_words_of_names() -> None:
    assert [kind(name) for name in ("n.running_var", "n.gamma", "n.b", "w", "token")] == [
        "var",
        "scale",
        "bias",
        "scale",
        "",
    ]
    assert (module("rnn.weight_ih"), module("n/beta:0")) == ("rnn.weight_ih", "n/")
    assert blocks(["l.0.q.w", "l.0.k.w", "mlp.0.w", "mlp.0.b"]) == {"l.0."}
    assert blocks(["t/b/q/w", "t/b/k/w", "t/b_1/q/w", "t/b_1/k/w"]) == {"t/b/", "t/b_1/"}
