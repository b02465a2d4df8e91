"""T5's and UMT5's layouts against real models: what transformers writes and reads, what T5X computes, by hand in numpy."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contrastive import Arrays, as_torch, back, differing, quiet_transformers, randomised, saved, to

from isomorph.errors import MorphError
from isomorph.layouts.catalogue import family, layouts
from isomorph.layouts.hub import schema
from isomorph.tensors import Manifest, spec
from isomorph.testing.layouts import hub_probe, in_layout

ENC, DEC, WIDTH, HEADS, HEAD_DIM, FFN, VOCAB, BUCKETS = 2, 3, 10, 4, 3, 14, 30, 8
SIZES = {"heads": HEADS, "head_dim": HEAD_DIM}
FACTS: dict[str, dict[str, str]] = json.loads(
    (Path(__file__).parent / "t5_gpt2_whisper_facts.json").read_text(encoding="utf-8")
)
"""What transformers 4.46 wrote with Flax 0.10 and TensorFlow 2.18 for models of these sizes: name -> shape."""
ALIASES = ["shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"]
LETTER = {"query": "q", "key": "k", "value": "v", "out": "o"}


@pytest.fixture(scope="module")
def transformers() -> Any:
    return quiet_transformers()


def config(transformers: Any, cls: str = "T5Config", **more: Any) -> Any:
    return getattr(transformers, cls)(
        d_model=WIDTH, d_kv=HEAD_DIM, d_ff=FFN, num_layers=ENC, num_decoder_layers=DEC, num_heads=HEADS, vocab_size=VOCAB,
        relative_attention_num_buckets=BUCKETS, **more,
    )  # fmt: skip


def written(transformers: Any, folder: Path, cls: str, **more: Any) -> Arrays:
    """What transformers writes for a model of random numbers."""
    kind = "UMT5Config" if cls.startswith("UMT5") else "T5Config"
    return saved(randomised(getattr(transformers, cls)(config(transformers, kind, **more))), folder)


@pytest.fixture(scope="module")
def t5(transformers: Any, tmp_path_factory: pytest.TempPathFactory) -> Arrays:
    """Version 1.0: one matrix into the feed forward, the head is the embedding."""
    return written(transformers, tmp_path_factory.mktemp("t5"), "T5ForConditionalGeneration")


@pytest.fixture(scope="module")
def gated(transformers: Any, tmp_path_factory: pytest.TempPathFactory) -> Arrays:
    """Version 1.1: gated, and with a head of its own (which transformers 5 only keeps when a file brings it)."""
    hub = written(
        transformers, tmp_path_factory.mktemp("gated"), "T5ForConditionalGeneration", feed_forward_proj="gated-gelu"
    )
    return {**hub, "lm_head.weight": head()}


@pytest.fixture(scope="module")
def umt5(transformers: Any, tmp_path_factory: pytest.TempPathFactory) -> Arrays:
    hub = written(transformers, tmp_path_factory.mktemp("umt5"), "UMT5ForConditionalGeneration")
    return {**hub, "lm_head.weight": head()}


@pytest.fixture(scope="module")
def encoder(transformers: Any, tmp_path_factory: pytest.TempPathFactory) -> Arrays:
    return written(transformers, tmp_path_factory.mktemp("encoder"), "T5EncoderModel")


def head() -> Any:
    return np.random.default_rng(3).standard_normal((VOCAB, WIDTH)).astype(np.float32)


def facts(key: str) -> dict[str, tuple[int, ...]]:
    """A key set written down layer by layer, unfolded."""
    found = {}
    for name, shape in FACTS[key].items():
        for fold, count in (("{enc}", ENC), ("{dec}", DEC)):
            if fold in name:
                found.update({name.replace(fold, str(layer)): shape for layer in range(count)})
                break
        else:
            found[name] = shape
    return {name: tuple(map(int, shape.split())) for name, shape in found.items()}


def shapes(arrays: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in arrays.items()}


# ── the hub ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("cls", "more", "groups"),
    [
        ("T5ForConditionalGeneration", {}, ("encoder", "decoder", "plain")),
        ("T5ForConditionalGeneration", {"feed_forward_proj": "gated-gelu"}, ("encoder", "decoder", "gated")),
        ("T5EncoderModel", {}, ("encoder", "plain")),
        ("T5ForQuestionAnswering", {"num_labels": 2}, ("encoder", "decoder", "plain", "answers")),
        ("UMT5ForConditionalGeneration", {}, ("encoder", "decoder", "gated")),
        ("UMT5EncoderModel", {}, ("encoder", "gated")),
    ],
)
def test_the_hub_is_what_transformers_writes(
    transformers: Any, tmp_path: Path, cls: str, more: dict[str, Any], groups: tuple[str, ...]
) -> None:
    disk = written(transformers, tmp_path, cls, **more)
    known = schema("umt5" if cls.startswith("UMT5") else "t5")
    sizes = {"enc_layers": ENC, "dec_layers": DEC, "width": WIDTH, "ffn": FFN, "vocab": VOCAB, "buckets": BUCKETS,
             "classes": 2, **SIZES}  # fmt: skip
    expected = known.expand(sizes, groups)
    assert {name: one.shape for name, one in expected.items()} == shapes(disk)
    found = known.read(manifest(disk))
    assert (found.unknown, found.missing, found.clashes) == ((), (), ())
    assert found.groups == frozenset(groups)
    told = {axis: size for axis, size in found.sizes.items() if axis in sizes}
    assert told == {axis: sizes[axis] for axis in told}
    assert {"enc_layers", "heads", "head_dim"} <= set(told)


def manifest(arrays: Mapping[str, Any]) -> Manifest:
    return Manifest(
        {name: spec(f"f32[{','.join(map(str, array.shape))}]") for name, array in arrays.items()}, origin="made"
    )


@pytest.mark.parametrize("name", ["t5", "umt5"])
def test_every_layout_gives_the_hub_back_where_it_carries_it(name: str) -> None:
    hub = hub_probe(name)
    for layout in layouts(name):
        if layout.is_hub:
            continue
        made = in_layout(layout, hub)
        again = back(str(layout), made)
        assert {key for key in again if not np.array_equal(again[key], hub[key])} == set(), layout
        carried = {key for key in hub if key.startswith("encoder.")} | {"shared.weight"}
        if layout.name == "gguf_plain":
            carried -= {key for key in carried if ".wi_" in key}
        if layout.name in ("wan", "gguf"):
            carried -= {key for key in carried if ".wi." in key}
        assert carried <= set(again), layout


def test_the_key_sets_shown_are_those_of_the_models_they_name() -> None:
    listed = {name: schema(name).expand(family(name).sizes) for name in ("t5", "umt5")}
    assert len(listed["t5"]) == 131  # t5-small: 1 + 6 x 8 + 6 x 13 + 2 biases + 2 norms
    assert sum(one.numel for one in listed["t5"].values()) == 60_506_624  # as its authors count
    assert len(listed["umt5"]) == 2 + 8 * 10 + 8 * 15 + 2
    assert round(sum(one.numel for one in listed["umt5"].values()) / 1e6) == 307


# ── transformers 4 ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_v4_state_dict_of_v1_1_has_three_names_of_one_embedding(gated: Arrays, umt5: Arrays) -> None:
    for layout, hub in (("t5/hf_v4", gated), ("umt5/hf_v4", umt5)):
        expected = {**hub, **dict.fromkeys(ALIASES, hub["shared.weight"])}
        assert differing(expected, to(layout, hub)) == []
        assert differing(hub, back(layout, expected)) == []
        for alias in ALIASES:  # one of them is enough
            alone = {name: array for name, array in expected.items() if name not in ALIASES or name == alias}
            assert differing(hub, back(layout, alone)) == []


def test_a_v4_state_dict_of_v1_0_has_the_head_for_a_fourth(transformers: Any, t5: Arrays) -> None:
    model = transformers.T5ForConditionalGeneration(config(transformers))
    model.load_state_dict(as_torch({**t5, **dict.fromkeys([*ALIASES, "lm_head.weight"], t5["shared.weight"])}))
    memory = {name: tensor.numpy() for name, tensor in model.state_dict().items()}  # what a .bin holds
    assert differing(memory, to("t5/hf_v4_tied", t5)) == []
    assert differing(t5, back("t5/hf_v4_tied", memory)) == []


def test_the_tied_layout_refuses_a_head_of_its_own(gated: Arrays) -> None:
    untied = to("t5/hf_v4", gated)
    with pytest.raises(MorphError, match=r"lm_head\.weight"):
        back("t5/hf_v4_tied", untied)


def test_the_bias_that_nothing_reads_is_dropped(t5: Arrays) -> None:
    old = to("t5/hf_v4_tied", t5)
    old["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"] = np.zeros((BUCKETS, HEADS), "f4")
    assert differing(t5, back("t5/hf_v4_tied", old)) == []
    assert differing({**t5, "lm_head.weight": t5["shared.weight"]}, back("t5/hf_v4", old)) == []


def test_a_v4_encoder_alone(encoder: Arrays) -> None:
    expected = {**encoder, "encoder.embed_tokens.weight": encoder["shared.weight"]}
    assert differing(expected, to("t5/hf_v4_encoder", encoder)) == []
    assert differing(encoder, back("t5/hf_v4_encoder", expected)) == []
    assert differing(encoder, back("t5/hf_v4", expected)) == []


@pytest.mark.parametrize("cls", ["T5ForSequenceClassification", "T5ForTokenClassification"])
def test_classifiers_lie_under_a_prefix(transformers: Any, tmp_path: Path, cls: str) -> None:
    disk = written(transformers, tmp_path, cls, num_labels=5)
    hub = back("t5/hf_classes", disk)
    found = schema("t5").read(manifest(hub))
    assert (found.unknown, found.missing) == ((), ())
    model = getattr(transformers, cls)(config(transformers, num_labels=5))
    ours = as_torch(to("t5/hf_classes", hub))
    missing = model.load_state_dict(ours, strict=False)
    assert set(missing.missing_keys) | set(missing.unexpected_keys) <= {
        "transformer.encoder.embed_tokens.weight",
        "transformer.decoder.embed_tokens.weight",
    }
    assert differing(disk, {name: ours[name].numpy() for name in disk}) == []


# ── T5X ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def t5x_names(stack: str, layer: int | str, block: int) -> dict[str, str]:
    """T5X's name of a weight within a layer -> the hub's, for one layer of one stack."""
    hub = f"{stack}.block.{block}.layer."
    attentions = (
        {"attention": "0.SelfAttention"}
        if stack == "encoder"
        else {"self_attention": "0.SelfAttention", "encoder_decoder_attention": "1.EncDecAttention"}
    )
    feed = len(attentions)
    norms = ["attention", "mlp"] if stack == "encoder" else ["self_attention", "cross_attention", "mlp"]
    found = {f"pre_{norm}_layer_norm/scale": f"{hub}{n}.layer_norm.weight" for n, norm in enumerate(norms)}
    for theirs, ours in attentions.items():
        for part, letter in LETTER.items():
            found[f"{theirs}/{part}/kernel"] = f"{hub}{ours}.{letter}.weight"
    for part in ("wi", "wi_0", "wi_1", "wo"):
        found[f"mlp/{part}/kernel"] = f"{hub}{feed}.DenseReluDense.{part}.weight"
    return {f"{stack}/{layer}/{theirs}": ours for theirs, ours in found.items()}


def t5x_ends(hub: Arrays) -> Arrays:
    made = {"token_embedder/embedding": hub["shared.weight"]}
    if "lm_head.weight" in hub:
        made["decoder/logits_dense/kernel"] = hub["lm_head.weight"].T
    for stack in ("encoder", "decoder"):
        if f"{stack}.final_layer_norm.weight" in hub:
            made[f"{stack}/{stack}_norm/scale"] = hub[f"{stack}.final_layer_norm.weight"]
    return made


def t5x_by_hand(hub: Arrays) -> Arrays:
    """Layers apart, after transformers' convert_t5x_checkpoint_to_pytorch read the other way."""
    made = t5x_ends(hub)
    for stack, count in (("encoder", ENC), ("decoder", DEC)):
        bias = hub.get(f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight")
        if bias is not None:
            made[f"{stack}/relpos_bias/rel_embedding"] = bias.T
        for layer in range(count):
            for theirs, ours in t5x_names(stack, f"layers_{layer}", layer).items():
                if ours in hub:
                    made[theirs] = hub[ours].T
    return {f"target/{name}": np.ascontiguousarray(array) for name, array in made.items()}


def headed(array: Any, name: str) -> Any:
    """A weight [out in] as T5X's scalable layers have it: [in out], with the heads apart in an attention."""
    kernel = array.T
    if "attention/out/" in name:
        return kernel.reshape(HEADS, HEAD_DIM, WIDTH)
    return kernel.reshape(WIDTH, HEADS, HEAD_DIM) if "attention/" in name else kernel


def scanned_by_hand(hub: Arrays) -> Arrays:
    """Layers stacked on axis 1, after transformers' convert_umt5_checkpoint_to_pytorch read the other way."""
    made = t5x_ends(hub)
    for stack, count in (("encoder", ENC), ("decoder", DEC)):
        bias = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        if bias.replace("block.0", "block.1") in hub:
            tables = [hub[bias.replace("block.0", f"block.{layer}")].T for layer in range(count)]
            made[f"{stack}/{stack}/relpos_bias/rel_embedding"] = np.stack(tables, axis=1)
        else:
            made[f"{stack}/relpos_bias/rel_embedding"] = hub[bias].T
        names = [t5x_names(stack, stack, layer) for layer in range(count)]
        for theirs in names[0]:
            if names[0][theirs] in hub:
                made[theirs] = np.stack([headed(hub[one[theirs]], theirs) for one in names], axis=1)
    return {f"target/{name}": np.ascontiguousarray(array) for name, array in made.items()}


@pytest.mark.parametrize("vintage", ["t5", "gated", "encoder"])
def test_t5x_with_its_layers_apart(vintage: str, request: pytest.FixtureRequest) -> None:
    hub = request.getfixturevalue(vintage)
    expected = t5x_by_hand(hub)
    assert differing(expected, to("t5/t5x", hub)) == []
    assert differing(hub, back("t5/t5x", expected)) == []
    bare = {name.removeprefix("target/"): array for name, array in expected.items()}
    assert differing(bare, to("t5/t5x_params", hub)) == []
    assert differing(hub, back("t5/t5x_params", bare)) == []


@pytest.mark.parametrize(("layout", "vintage"), [("t5/t5x_scanned", "gated"), ("umt5/t5x_scanned", "umt5")])
def test_t5x_with_its_layers_scanned(layout: str, vintage: str, request: pytest.FixtureRequest) -> None:
    hub = request.getfixturevalue(vintage)
    expected = scanned_by_hand(hub)
    assert expected["target/encoder/encoder/attention/query/kernel"].shape == (WIDTH, ENC, HEADS, HEAD_DIM)
    assert expected["target/decoder/decoder/self_attention/out/kernel"].shape == (HEADS, DEC, HEAD_DIM, WIDTH)
    assert differing(expected, to(layout, hub, heads=HEADS)) == []
    assert differing(hub, back(layout, expected)) == []  # the layout shows how many heads there are
    bare = {name.removeprefix("target/"): array for name, array in expected.items()}
    assert differing(bare, to(f"{layout}_params", hub, head_dim=HEAD_DIM)) == []
    assert differing(hub, back(f"{layout}_params", bare)) == []


def test_without_heads_a_scanned_file_cannot_be_made(umt5: Arrays) -> None:
    with pytest.raises(MorphError, match=r"heads.*(\n.*)*--set"):
        to("umt5/t5x_scanned", umt5)


def test_umt5_unscanned_has_heads_and_positions_in_each_layer(umt5: Arrays) -> None:
    expected = {f"target/{name}": array for name, array in t5x_ends(umt5).items()}
    for stack, count in (("encoder", ENC), ("decoder", DEC)):
        for layer in range(count):
            bias = umt5[f"{stack}.block.{layer}.layer.0.SelfAttention.relative_attention_bias.weight"]
            expected[f"target/{stack}/layers_{layer}/relpos_bias/rel_embedding"] = bias.T
            for theirs, ours in t5x_names(stack, f"layers_{layer}", layer).items():
                if ours in umt5:
                    expected[f"target/{theirs}"] = headed(umt5[ours], theirs)
    assert differing(expected, to("umt5/t5x", umt5, heads=HEADS)) == []
    assert differing(umt5, back("umt5/t5x", expected)) == []


def test_t5x_projects_to_the_heads_that_transformers_has(transformers: Any, umt5: Arrays) -> None:
    """By function: T5X's einsum with the scanned kernel gives head by head what the torch module's view gives."""
    import torch

    kernel = to("umt5/t5x_scanned", umt5, heads=HEADS)["target/decoder/decoder/self_attention/key/kernel"]
    x = np.linspace(-1, 1, WIDTH, dtype=np.float32)
    weight = torch.from_numpy(umt5["decoder.block.1.layer.0.SelfAttention.k.weight"])
    theirs = torch.nn.functional.linear(torch.from_numpy(x), weight).view(HEADS, HEAD_DIM)
    np.testing.assert_allclose(np.einsum("d,dhk->hk", x, kernel[:, 1]), theirs.numpy(), rtol=1e-5, atol=1e-6)


def test_training_state_is_left_behind(t5: Arrays) -> None:
    trained = {
        **t5x_by_hand(t5),
        "state/step": np.array(7),
        "state/param_states/encoder/encoder_norm/scale/v": np.ones(3),
    }
    assert differing(t5, back("t5/t5x", trained)) == []


# ── Flax, TensorFlow, Paddle, Mesh TensorFlow ────────────────────────────────────────────────────────────────────────


def flax_by_hand(hub: Arrays) -> Arrays:
    made: Arrays = {}
    for name, array in hub.items():
        path, _, _ = name.replace(".", "/").rpartition("/")
        if name == "shared.weight" or "relative_attention_bias" in name:
            made[f"{path}/embedding"] = array
        elif array.ndim == 1:
            made[f"{path}/weight"] = array
        else:
            made[f"{path}/kernel"] = array.T
    return made


def tf_by_hand(model: str, users: list[str], hub: Arrays) -> Arrays:
    made = {f"{user}/shared/shared/embeddings:0": hub["shared.weight"] for user in users}
    for name, array in hub.items():
        stack, _, rest = name.partition(".")
        if stack == "shared":
            continue
        path = (
            rest.removesuffix(".weight").replace("block.", "block_._").replace("layer.", "layer_._").replace(".", "/")
        )
        path = path.replace("_/_", "_._")  # Keras' own dots stay
        if stack == "lm_head":
            made[f"lm_head/{model}/lm_head/kernel:0"] = array.T
        elif "relative_attention_bias" in name:
            made[f"{stack}/{model}/{stack}/{path}/embeddings:0"] = array
        elif array.ndim == 1:
            made[f"{stack}/{model}/{stack}/{path}/weight:0"] = array
        else:
            made[f"{stack}/{model}/{stack}/{path}/kernel:0"] = array.T
    return made


@pytest.mark.parametrize(("vintage", "fact"), [("t5", "t5/flax"), ("gated", "t5/flax gated"), ("encoder", None)])
def test_flax(vintage: str, fact: str | None, request: pytest.FixtureRequest) -> None:
    hub = request.getfixturevalue(vintage)
    expected = flax_by_hand(hub)
    if fact is not None:
        assert shapes(expected) == facts(fact)
    assert differing(expected, to("t5/flax", hub)) == []
    assert differing(hub, back("t5/flax", expected)) == []


CONDITIONAL = "tft5_for_conditional_generation"


@pytest.mark.parametrize(
    ("vintage", "layout", "fact", "model", "users"),
    [
        ("t5", "tf_keras", "t5/tf_keras", CONDITIONAL, ["shared", "encoder", "decoder"]),
        ("gated", "tf_keras", "t5/tf_keras gated", CONDITIONAL, ["shared", "encoder", "decoder"]),
        ("t5", "tf_keras_model", "t5/tf_keras_model", "tft5_model", ["shared", "encoder", "decoder"]),
        ("encoder", "tf_keras_encoder", "t5/tf_keras_encoder", "tft5_encoder_model", ["shared", "encoder"]),
    ],
)
def test_tensorflow(
    vintage: str, layout: str, fact: str, model: str, users: list[str], request: pytest.FixtureRequest
) -> None:
    hub = request.getfixturevalue(vintage)
    expected = tf_by_hand(model, users, hub)
    assert shapes(expected) == facts(fact)
    assert differing(expected, to(f"t5/{layout}", hub)) == []
    assert differing(hub, back(f"t5/{layout}", expected)) == []


@pytest.mark.parametrize("vintage", ["t5", "gated"])
def test_tensorflow_built_without_a_name_of_the_model(vintage: str, request: pytest.FixtureRequest) -> None:
    """As transformers 4.46 names them after `model.build()`: the same names, without the model's."""
    hub = request.getfixturevalue(vintage)
    named = tf_by_hand(CONDITIONAL, ["shared", "encoder", "decoder"], hub)
    expected = {name.replace(f"/{CONDITIONAL}/", "/"): array for name, array in named.items()}
    assert differing(expected, to("t5/tf_keras_built", hub)) == []
    assert differing(hub, back("t5/tf_keras_built", expected)) == []


def paddle_by_hand(hub: Arrays) -> Arrays:
    made = {f"t5.{alias}": hub["shared.weight"] for alias in ALIASES}
    for name, array in hub.items():
        if name != "shared.weight":
            linear = array.ndim == 2 and "relative_attention_bias" not in name
            made[name if name == "lm_head.weight" else f"t5.{name}"] = array.T if linear else array
    return made


def mesh_by_hand(hub: Arrays) -> Arrays:
    made = {"shared/embedding": hub["shared.weight"]}
    if "lm_head.weight" in hub:
        made["decoder/logits/kernel"] = hub["lm_head.weight"].T
    for name, array in hub.items():
        pieces = name.split(".")
        if pieces[1] == "final_layer_norm":
            made[f"{pieces[0]}/rms_norm/scale"] = array
        elif pieces[1] == "block":
            at = f"{pieces[0]}/block_{int(pieces[2]):03}/layer_{int(pieces[4]):03}"
            match pieces[5:-1]:
                case ["layer_norm"]:
                    made[f"{at}/rms_norm/scale"] = array
                case ["DenseReluDense", part]:
                    made[f"{at}/DenseReluDense/{part}/kernel"] = array.T
                case [attention, part]:
                    made[f"{at}/{attention}/{part}"] = array.T
    return made


@pytest.mark.parametrize("vintage", ["t5", "gated"])
@pytest.mark.parametrize(
    ("layout", "by_hand"), [("t5/paddle", paddle_by_hand), ("t5/mesh_tf", mesh_by_hand)], ids=["paddle", "mesh_tf"]
)
def test_paddle_and_mesh(
    layout: str, by_hand: Callable[[Arrays], Arrays], vintage: str, request: pytest.FixtureRequest
) -> None:
    hub = request.getfixturevalue(vintage)
    expected = by_hand(hub)
    assert differing(expected, to(layout, hub)) == []
    assert differing(hub, back(layout, expected)) == []


def test_mesh_names_are_those_that_transformers_looked_for(t5: Arrays) -> None:
    """A few of t5-small's variables, as they stand in Google's checkpoint."""
    made = to("t5/mesh_tf", t5)
    for name in (
        "encoder/block_000/layer_000/SelfAttention/relative_attention_bias",
        "encoder/block_001/layer_001/DenseReluDense/wi/kernel",
        "decoder/block_002/layer_001/EncDecAttention/q",
        "decoder/block_000/layer_002/rms_norm/scale",
        "encoder/rms_norm/scale",
    ):
        assert name in made
    slots = {f"{name}_slot_{slot}": np.ones(2, "f4") for name in list(made)[:3] for slot in ("v", "vr", "vc", "m")}
    assert differing(t5, back("t5/mesh_tf", {**made, **slots, "global_step": np.array(1)})) == []


GGUF = {
    "encoder": {"0.SelfAttention": "attn", "0.layer_norm": "attn_norm", "1.layer_norm": "ffn_norm"},
    "decoder": {"0.SelfAttention": "attn", "1.EncDecAttention": "cross_attn", "0.layer_norm": "attn_norm",
                "1.layer_norm": "cross_attn_norm", "2.layer_norm": "ffn_norm"},
    "feed": {"wi": "ffn_up", "wi_0": "ffn_gate", "wi_1": "ffn_up", "wo": "ffn_down"},
}  # fmt: skip
"""gguf 0.17's get_tensor_name_map(MODEL_ARCH.T5)."""


def gguf_by_hand(hub: Arrays) -> Arrays:
    made: Arrays = {}
    for name, array in hub.items():
        pieces = name.split(".")
        stack = pieces[0]
        if pieces[1] == "block":
            at = f"{stack[:3]}.blk.{pieces[2]}"
            part = ".".join(pieces[4:6])
            if part.endswith("DenseReluDense"):
                made[f"{at}.{GGUF['feed'][pieces[6]]}.weight"] = array
            elif part.endswith("layer_norm"):
                made[f"{at}.{GGUF[stack][part]}.weight"] = array
            else:
                kind = "rel_b" if pieces[6] == "relative_attention_bias" else pieces[6]
                made[f"{at}.{GGUF[stack][part]}_{kind}.weight"] = array
        else:
            theirs = {
                "shared": "token_embd",
                "lm_head": "output",
                "encoder": "enc.output_norm",
                "decoder": "dec.output_norm",
            }
            made[f"{theirs[stack]}.weight"] = array
    return made


@pytest.mark.parametrize(
    ("layout", "vintage"),
    [("t5/gguf_plain", "t5"), ("t5/gguf_plain", "encoder"), ("t5/gguf", "gated"), ("umt5/gguf", "umt5")],
)
def test_gguf(layout: str, vintage: str, request: pytest.FixtureRequest) -> None:
    hub = request.getfixturevalue(vintage)
    expected = gguf_by_hand(hub)
    assert differing(expected, to(layout, hub)) == []
    assert differing(hub, back(layout, expected)) == []


def test_gguf_of_v1_1_has_no_place_for_v1_0(t5: Arrays) -> None:
    with pytest.raises(MorphError, match=r"wi_0|ffn_"):
        to("t5/gguf", t5)


def test_wan_carries_the_encoder(umt5: Arrays) -> None:
    expected = {
        "token_embedding.weight": umt5["shared.weight"],
        "norm.weight": umt5["encoder.final_layer_norm.weight"],
    }
    for layer in range(ENC):
        at = f"encoder.block.{layer}.layer."
        for theirs, ours in {
            "norm1": "0.layer_norm", "norm2": "1.layer_norm", "attn.q": "0.SelfAttention.q", "attn.k": "0.SelfAttention.k",
            "attn.v": "0.SelfAttention.v", "attn.o": "0.SelfAttention.o", "ffn.gate.0": "1.DenseReluDense.wi_0",
            "ffn.fc1": "1.DenseReluDense.wi_1", "ffn.fc2": "1.DenseReluDense.wo",
            "pos_embedding.embedding": "0.SelfAttention.relative_attention_bias",
        }.items():  # fmt: skip
            expected[f"blocks.{layer}.{theirs}.weight"] = umt5[f"{at}{ours}.weight"]
    assert differing(expected, to("umt5/wan", umt5)) == []
    assert set(back("umt5/wan", expected)) == {name for name in umt5 if not name.startswith(("decoder.", "lm_head."))}


# ── what comes out is a model ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("layout", "vintage", "cls"),
    [
        ("t5/t5x_scanned", "gated", "T5ForConditionalGeneration"),
        ("t5/mesh_tf", "t5", "T5ForConditionalGeneration"),
        ("t5/flax", "encoder", "T5EncoderModel"),
        ("umt5/t5x_scanned", "umt5", "UMT5ForConditionalGeneration"),
        ("umt5/wan", "umt5", "UMT5EncoderModel"),
    ],
)
def test_transformers_loads_what_comes_back(
    transformers: Any, layout: str, vintage: str, cls: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    from safetensors.numpy import save_file

    hub = request.getfixturevalue(vintage)
    again = back(layout, to(layout, hub, **({"heads": HEADS} if "scanned" in layout else {})))
    save_file(
        {name: np.ascontiguousarray(array) for name, array in again.items()},
        tmp_path / "model.safetensors",
        {"format": "pt"},
    )
    kind = "UMT5Config" if cls.startswith("UMT5") else "T5Config"
    feed = {} if vintage in ("t5", "encoder") else {"feed_forward_proj": "gated-gelu"}
    config(transformers, kind, **feed).save_pretrained(tmp_path)
    model, info = getattr(transformers, cls).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    memory = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    assert differing({name: hub[name] for name in again}, {name: memory[name] for name in again}) == []
