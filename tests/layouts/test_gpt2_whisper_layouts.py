"""GPT-2's and Whisper's layouts against real models: what transformers writes and reads, Megatron's orders, by hand in numpy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contrastive import Arrays, as_torch, back, differing, morph, quiet_transformers, randomised, saved, to

from isomorph.errors import MorphError
from isomorph.formats.memory import ArrayCheckpoint
from isomorph.layouts.catalogue import family, layouts
from isomorph.layouts.hub import schema
from isomorph.tensors import Manifest, spec
from isomorph.testing.layouts import hub_probe, in_layout

LAYERS, WIDTH, HEADS, FFN, VOCAB, POSITIONS, PAD = 2, 12, 3, 26, 31, 11, 5
ENC, DEC, ENC_FFN, DEC_FFN, TOKENS, MELS, AUDIO, TEXT = 2, 3, 20, 22, 60, 4, 10, 8
FACTS: dict[str, dict[str, str]] = json.loads(
    (Path(__file__).parent / "t5_gpt2_whisper_facts.json").read_text(encoding="utf-8")
)
"""What transformers 4.46 wrote with Flax 0.10 and TensorFlow 2.18 for models of these sizes: name -> shape."""
PROJECTIONS = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")


@pytest.fixture(scope="module")
def transformers() -> Any:
    return quiet_transformers()


def gpt2_config(transformers: Any, **more: Any) -> Any:
    return transformers.GPT2Config(
        n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, n_inner=FFN, vocab_size=VOCAB, n_positions=POSITIONS,
        bos_token_id=0, eos_token_id=1, **more,
    )  # fmt: skip


def whisper_config(transformers: Any, **more: Any) -> Any:
    return transformers.WhisperConfig(
        d_model=WIDTH, encoder_layers=ENC, decoder_layers=DEC, encoder_attention_heads=2, decoder_attention_heads=3,
        encoder_ffn_dim=ENC_FFN, decoder_ffn_dim=DEC_FFN, vocab_size=TOKENS, max_source_positions=AUDIO,
        max_target_positions=TEXT, num_mel_bins=MELS, pad_token_id=1, bos_token_id=0, eos_token_id=2,
        decoder_start_token_id=3, classifier_proj_size=7, begin_suppress_tokens=None, suppress_tokens=None, **more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def gpt2(transformers: Any, tmp_path_factory: pytest.TempPathFactory) -> Arrays:
    model = randomised(transformers.GPT2LMHeadModel(gpt2_config(transformers)))
    return saved(model, tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(scope="module")
def whisper(transformers: Any, tmp_path_factory: pytest.TempPathFactory) -> Arrays:
    model = randomised(transformers.WhisperForConditionalGeneration(whisper_config(transformers)))
    return saved(model, tmp_path_factory.mktemp("whisper"))


def facts(key: str) -> dict[str, tuple[int, ...]]:
    """A key set written down layer by layer, unfolded."""
    found = {}
    for name, shape in FACTS[key].items():
        for fold, count in (("{enc}", ENC), ("{dec}", DEC), ("{l}", LAYERS)):
            if fold in name:
                found.update({name.replace(fold, str(layer)): shape for layer in range(count)})
                break
        else:
            found[name] = shape
    return {name: tuple(map(int, shape.split())) for name, shape in found.items()}


def shapes(arrays: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in arrays.items()}


def manifest(arrays: Mapping[str, Any]) -> Manifest:
    return Manifest(
        {name: spec(f"f32[{','.join(map(str, array.shape))}]") for name, array in arrays.items()}, origin="made"
    )


def whole(arrays: Mapping[str, Any]) -> Arrays:
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def prefixed(prefix: str, arrays: Mapping[str, Any]) -> Arrays:
    return {f"{prefix}{name}": array for name, array in arrays.items()}


# ── the hubs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("cls", "more", "prefix", "groups"),
    [
        ("GPT2LMHeadModel", {}, "", ()),
        ("GPT2LMHeadModel", {"tie_word_embeddings": False}, "", ("head",)),
        ("GPT2LMHeadModel", {"add_cross_attention": True}, "", ("cross_attention",)),
        ("GPT2Model", {}, "transformer.", ()),  # the base, written without the prefix
        ("GPT2ForSequenceClassification", {"num_labels": 5}, "", ("sequence_classes",)),
        ("GPT2ForTokenClassification", {"num_labels": 5}, "", ("token_classes",)),
        ("GPT2ForQuestionAnswering", {"num_labels": 2}, "", ("answers",)),
        ("GPT2DoubleHeadsModel", {"num_labels": 1}, "", ("choices",)),
    ],
)
def test_gpt2s_hub_is_what_transformers_writes(
    transformers: Any, tmp_path: Path, cls: str, more: dict[str, Any], prefix: str, groups: tuple[str, ...]
) -> None:
    disk = prefixed(prefix, saved(randomised(getattr(transformers, cls)(gpt2_config(transformers, **more))), tmp_path))
    sizes = {"layers": LAYERS, "width": WIDTH, "ffn": FFN, "vocab": VOCAB, "positions": POSITIONS,
             "classes": more.get("num_labels", 0)}  # fmt: skip
    assert {name: one.shape for name, one in schema("gpt2").expand(sizes, groups).items()} == shapes(disk)
    found = schema("gpt2").read(manifest(disk))
    assert (found.unknown, found.missing, found.clashes, found.groups) == ((), (), (), frozenset(groups))


@pytest.mark.parametrize(
    ("cls", "more", "prefix", "groups"),
    [
        ("WhisperForConditionalGeneration", {}, "", ("encoder", "decoder")),
        ("WhisperModel", {}, "model.", ("encoder", "decoder")),
        ("WhisperForCausalLM", {}, "", ("decoder",)),
    ],
)
def test_whispers_hub_is_what_transformers_writes(
    transformers: Any, tmp_path: Path, cls: str, more: dict[str, Any], prefix: str, groups: tuple[str, ...]
) -> None:
    model = randomised(getattr(transformers, cls)(whisper_config(transformers, **more)))
    disk = prefixed(prefix, saved(model, tmp_path))
    sizes = {"enc_layers": ENC, "dec_layers": DEC, "width": WIDTH, "enc_ffn": ENC_FFN, "dec_ffn": DEC_FFN,
             "vocab": TOKENS, "mels": MELS, "enc_positions": AUDIO, "dec_positions": TEXT}  # fmt: skip
    assert {name: one.shape for name, one in schema("whisper").expand(sizes, groups).items()} == shapes(disk)
    found = schema("whisper").read(manifest(disk))
    assert (found.unknown, found.missing, found.clashes, found.groups) == ((), (), (), frozenset(groups))


@pytest.mark.parametrize("weighted", [False, True])
def test_whispers_audio_classifier_has_no_prefix(transformers: Any, tmp_path: Path, weighted: bool) -> None:
    config = whisper_config(transformers, num_labels=5, use_weighted_layer_sum=weighted)
    disk = saved(randomised(transformers.WhisperForAudioClassification(config)), tmp_path)
    hub = back("whisper/hf_audio_classes", disk)
    found = schema("whisper").read(manifest(hub))
    assert (found.unknown, found.missing) == ((), ())
    assert "audio_classes" in found.groups
    assert ("weighted_sum" in found.groups) == weighted
    assert differing(disk, to("whisper/hf_audio_classes", hub)) == []


def megatron_sizes(layout: str, heads: int, vocab: int) -> dict[str, int]:
    """What a Megatron file does not show; the order of version 0 is that of the hub, whatever the heads."""
    if "megatron" not in layout:
        return {}
    return {"vocab": vocab} if "_v0" in layout else {"vocab": vocab, "heads": heads}


@pytest.mark.parametrize("name", ["gpt2", "whisper"])
def test_every_layout_gives_the_hub_back_where_it_carries_it(name: str) -> None:
    hub = hub_probe(name)
    for layout in layouts(name):
        if layout.is_hub:
            continue
        made = in_layout(layout, hub)
        again = back_from(str(layout), made, **megatron_sizes(layout.name, 5, 13))
        assert {key for key in again if not np.array_equal(again[key], hub[key])} == set(), layout
        core = (
            "transformer.w",
            "transformer.ln_f.",
            "transformer.h.0.attn.c_",
            "transformer.h.1.mlp.",
            "model.encoder.",
        )
        assert {key for key in hub if key.startswith(core)} <= set(again), layout


def back_from(layout: str, arrays: Mapping[str, Any], **sizes: int) -> Arrays:
    """A layout's tensors as the hub has them, with sizes that the file does not show."""
    return dict(morph(layout).plan(arrays, **sizes).state_dict("numpy"))


def test_the_key_sets_shown_are_those_of_the_models_they_name() -> None:
    gpt2 = schema("gpt2").expand(family("gpt2").sizes)
    assert (len(gpt2), sum(one.numel for one in gpt2.values())) == (148, 124_439_808)
    tiny = schema("whisper").expand(family("whisper").sizes)
    assert sum(one.numel for one in tiny.values()) == 37_760_640  # 39 million, as OpenAI counts


# ── GPT-2 ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_v4_gpt2_has_the_head_and_the_masks(transformers: Any, gpt2: Arrays) -> None:
    model = transformers.GPT2LMHeadModel(gpt2_config(transformers))
    model.load_state_dict(as_torch({**gpt2, "lm_head.weight": gpt2["transformer.wte.weight"]}))
    memory = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    assert differing(memory, to("gpt2/hf_v4", gpt2)) == []
    for layer in range(LAYERS):  # what 4.26 wrote too
        memory[f"transformer.h.{layer}.attn.bias"] = np.tril(np.ones((1, 1, POSITIONS, POSITIONS), bool))
        memory[f"transformer.h.{layer}.attn.masked_bias"] = np.array(-1e4, "f4")
    assert differing(gpt2, back("gpt2/hf_v4", memory)) == []
    del memory["lm_head.weight"]  # a safetensors file of that time: the hub, with its masks
    found = schema("gpt2").read(ArrayCheckpoint(memory).manifest)
    assert (found.unknown, found.missing, found.groups) == ((), (), {"masks", "masked_values"})


def test_linear_is_the_transpose_of_conv1d(transformers: Any, gpt2: Arrays) -> None:
    import torch

    expected = {
        name: array.T if name.endswith(".weight") and any(f".{one}." in name for one in PROJECTIONS) else array
        for name, array in gpt2.items()
    }
    expected = whole({**expected, "lm_head.weight": gpt2["transformer.wte.weight"]})
    made = to("gpt2/linear", gpt2)
    assert differing(expected, made) == []
    assert differing(gpt2, back("gpt2/linear", expected)) == []
    at = "transformer.h.1.attn.c_attn."  # by function: torch's Linear gives what Conv1D gives
    conv = transformers.pytorch_utils.Conv1D(3 * WIDTH, WIDTH)
    conv.load_state_dict(as_torch({"weight": gpt2[f"{at}weight"], "bias": gpt2[f"{at}bias"]}))
    x = torch.linspace(-1, 1, WIDTH)[None]
    ours = torch.nn.functional.linear(x, *as_torch({"w": made[f"{at}weight"], "b": made[f"{at}bias"]}).values())
    torch.testing.assert_close(ours, conv(x).detach())


GGUF = {"wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm", "ln_1": "attn_norm", "ln_2": "ffn_norm",
        "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down"}  # fmt: skip
"""gguf 0.17's get_tensor_name_map(MODEL_ARCH.GPT2)."""


def test_gpt2_in_gguf(gpt2: Arrays) -> None:
    expected: Arrays = {}
    for name, array in gpt2.items():
        module, _, kind = name.removeprefix("transformer.").rpartition(".")
        layer, within = (module.split(".")[1], module.split(".", 2)[2]) if module.startswith("h.") else (None, module)
        conv = within in PROJECTIONS and kind == "weight"
        expected[("" if layer is None else f"blk.{layer}.") + f"{GGUF[within]}.{kind}"] = array.T if conv else array
    recent = whole(expected)
    expected = {**recent, "output.weight": recent["token_embd.weight"]}
    assert differing(expected, to("gpt2/gguf", gpt2)) == []
    assert differing(gpt2, back("gpt2/gguf", expected)) == []
    assert differing(gpt2, back("gpt2/gguf", recent)) == []


def reordered(array: Any, version: int) -> Any:
    """Fused rows of a Megatron checkpoint -> all q, then k, then v; as Megatron-LM's own fix_query_key_value_ordering does it."""
    import torch

    param = torch.from_numpy(np.array(array))
    size = WIDTH // HEADS
    if version == 1:
        param = param.view(HEADS, size, 3, *param.shape[1:]).transpose(0, 2).transpose(1, 2)
    elif version >= 2:
        param = param.view(HEADS, 3, size, *param.shape[1:]).transpose(0, 1)
    return param.reshape(array.shape).numpy()


LATER = ("encoder", "self_attention")
FIRST = ("transformer", "attention")
"""What Megatron-LM calls the stack and its attention, whatever the checkpoint_version."""


def megatron_to_hf(source: Arrays, version: int, names: tuple[str, str]) -> Arrays:
    """What transformers' convert_megatron_gpt2_checkpoint makes, by hand."""
    model = {name.removeprefix("model/language_model/"): array for name, array in source.items()}
    stack, attention = names
    made = {
        "transformer.wte.weight": model["embedding/word_embeddings/weight"][:VOCAB],
        "transformer.wpe.weight": model["embedding/position_embeddings/weight"],
    }
    for kind in ("weight", "bias"):
        made[f"transformer.ln_f.{kind}"] = model[f"{stack}/final_layernorm.{kind}"]
        for layer in range(LAYERS):
            theirs, ours = f"{stack}/layers.{layer}.", f"transformer.h.{layer}."
            made[f"{ours}ln_1.{kind}"] = model[f"{theirs}input_layernorm.{kind}"]
            made[f"{ours}ln_2.{kind}"] = model[f"{theirs}post_attention_layernorm.{kind}"]
            made[f"{ours}attn.c_attn.{kind}"] = reordered(
                model[f"{theirs}{attention}.query_key_value.{kind}"], version
            ).T
            made[f"{ours}attn.c_proj.{kind}"] = model[f"{theirs}{attention}.dense.{kind}"].T
            made[f"{ours}mlp.c_fc.{kind}"] = model[f"{theirs}mlp.dense_h_to_4h.{kind}"].T
            made[f"{ours}mlp.c_proj.{kind}"] = model[f"{theirs}mlp.dense_4h_to_h.{kind}"].T
    return whole(made)


def megatron(names: tuple[str, str] = LATER) -> Arrays:
    """A checkpoint of random numbers, as Megatron-LM writes it."""
    generator = np.random.default_rng(5)
    stack, attention = names
    sizes: dict[str, tuple[int, ...]] = {
        "embedding/word_embeddings/weight": (VOCAB + PAD, WIDTH),
        "embedding/position_embeddings/weight": (POSITIONS, WIDTH),
        f"{stack}/final_layernorm.weight": (WIDTH,),
        f"{stack}/final_layernorm.bias": (WIDTH,),
    }
    for layer in range(LAYERS):
        for name, shape in {
            "input_layernorm": (WIDTH,), "post_attention_layernorm": (WIDTH,),
            f"{attention}.query_key_value": (3 * WIDTH, WIDTH), f"{attention}.dense": (WIDTH, WIDTH),
            "mlp.dense_h_to_4h": (FFN, WIDTH), "mlp.dense_4h_to_h": (WIDTH, FFN),
        }.items():  # fmt: skip
            sizes[f"{stack}/layers.{layer}.{name}.weight"] = shape
            sizes[f"{stack}/layers.{layer}.{name}.bias"] = shape[:1]
    made = {name: generator.standard_normal(shape).astype("f4") for name, shape in sizes.items()}
    return prefixed("model/language_model/", made)


@pytest.mark.parametrize(
    ("layout", "version", "names"),
    [
        ("gpt2/megatron_v0", 0, FIRST),
        ("gpt2/megatron_v1", 1, FIRST),
        ("gpt2/megatron_v2", 2, FIRST),
        ("gpt2/megatron_v0_encoder", 0, LATER),
        ("gpt2/megatron_v1_encoder", 1, LATER),
        ("gpt2/megatron_v3", 3, LATER),
    ],
)
def test_megatrons_orders_go_by_checkpoint_version(layout: str, version: int, names: tuple[str, str]) -> None:
    source = megatron(names)
    sizes = megatron_sizes(layout, HEADS, VOCAB)
    hub = back_from(layout, source, **sizes)
    assert differing(megatron_to_hf(source, version, names), hub) == []
    heads = {axis: size for axis, size in sizes.items() if axis != "vocab"}
    again = to(layout, hub, pad=PAD, **heads)
    words = "model/language_model/embedding/word_embeddings/weight"
    assert differing(source, again) == [words]  # the rows that pad it
    assert np.array_equal(again[words][:VOCAB], source[words][:VOCAB])
    assert again[words].shape == source[words].shape
    assert not again[words][VOCAB:].any()
    trained = {
        **source,
        "optimizer/optimizer/state/0/exp_avg": np.ones(3),
        "rng_state/0/torch_rng_state": np.ones(2, "u1"),
    }
    assert differing(hub, back_from(layout, trained, **sizes)) == []


def test_megatrons_orders_differ() -> None:
    """The same file read as three versions: three weights."""
    source = megatron(FIRST)
    names = [f"gpt2/megatron_v{version}" for version in (0, 1, 2)]
    found = [back_from(layout, source, **megatron_sizes(layout, HEADS, VOCAB)) for layout in names]
    at = "transformer.h.0.attn.c_attn.weight"
    assert all(not np.array_equal(a[at], b[at]) for n, a in enumerate(found) for b in found[n + 1 :])


def test_how_many_tokens_megatron_has_is_asked_for() -> None:
    with pytest.raises(MorphError, match=r"vocab.*(\n.*)*--set"):
        back_from("gpt2/megatron_v3", megatron(), heads=HEADS)
    with pytest.raises(MorphError, match=r"heads.*(\n.*)*--set"):
        back_from("gpt2/megatron_v3", megatron(), vocab=VOCAB)


def test_megatron_without_padding() -> None:
    source = megatron()
    words = "model/language_model/embedding/word_embeddings/weight"
    source[words] = source[words][:VOCAB]
    hub = back_from("gpt2/megatron_v3", source, heads=HEADS, vocab=VOCAB)
    assert differing(source, to("gpt2/megatron_v3", hub, heads=HEADS, pad=0)) == []


def gpt2_elsewhere(hub: Arrays, layout: str) -> Arrays:
    """Paddle's, Flax's, TensorFlow's and OpenAI's GPT-2, by hand."""
    made: Arrays = {}
    for name, array in hub.items():
        pieces = name.split(".")[1:]
        kind = pieces.pop()
        path = "/".join(pieces)
        norm = pieces[-1].startswith("ln_")
        if layout == "paddle":
            at = f"gpt.decoder.layers.{pieces[1]}." if pieces[0] == "h" else "gpt."
            match pieces:
                case ["wte"]:
                    made["gpt.embeddings.word_embeddings.weight"] = array
                case ["wpe"]:
                    made["gpt.embeddings.position_embeddings.weight"] = array
                case ["ln_f"]:
                    made[f"gpt.decoder.norm.{kind}"] = array
                case [_, _, "attn", "c_attn"]:
                    for letter, part in zip("qkv", np.split(array, 3, axis=-1), strict=True):
                        made[f"{at}self_attn.{letter}_proj.{kind}"] = part
                case [_, _, *rest]:
                    theirs = {"attn/c_proj": "self_attn.out_proj", "mlp/c_fc": "linear1", "mlp/c_proj": "linear2",
                              "ln_1": "norm1", "ln_2": "norm2"}["/".join(rest)]  # fmt: skip
                    made[f"{at}{theirs}.{kind}"] = array
        elif layout == "flax":
            word = "embedding" if pieces[0] in ("wte", "wpe") else "scale" if norm else "kernel"
            made[f"transformer/{path}/{word if kind == 'weight' else 'bias'}"] = array.T if word == "kernel" else array
        elif layout == "openai_tf":
            at = "model/" + path.replace("h/", "h", 1) if pieces[0] == "h" else f"model/{path}"
            if pieces[0] in ("wte", "wpe"):
                made[at] = array
            elif norm:
                made[f"{at}/{'g' if kind == 'weight' else 'b'}"] = array
            else:
                made[f"{at}/{kind[0]}"] = array[None] if kind == "weight" else array
        else:
            model = {"tf_keras": "tfgpt2lm_head_model", "tf_keras_model": "tfgpt2_model"}[layout]
            at = f"transformer/{model}/transformer/" + (path.replace("h/", "h_._", 1) if pieces[0] == "h" else path)
            if pieces[0] in ("wte", "wpe"):
                made[f"{at}/embeddings:0"] = array
            elif norm:
                made[f"{at}/{'gamma' if kind == 'weight' else 'beta'}:0"] = array
            else:
                made[f"{at}/{kind}:0"] = array if kind == "weight" else array[None]
    return whole(made)


@pytest.mark.parametrize("layout", ["paddle", "flax", "openai_tf", "tf_keras", "tf_keras_model"])
def test_gpt2_elsewhere(layout: str, gpt2: Arrays) -> None:
    expected = gpt2_elsewhere(gpt2, layout)
    if f"gpt2/{layout}" in FACTS:
        assert shapes(expected) == facts(f"gpt2/{layout}")
    assert differing(expected, to(f"gpt2/{layout}", gpt2)) == []
    assert differing(gpt2, back(f"gpt2/{layout}", expected)) == []


@pytest.mark.parametrize(
    ("name", "model"), [("gpt2", "tfgpt2lm_head_model"), ("whisper", "tf_whisper_for_conditional_generation")]
)
def test_tensorflow_built_without_a_name_of_the_model(name: str, model: str, request: pytest.FixtureRequest) -> None:
    """As transformers 4.46 names them after `model.build()`: the same names, without the model's."""
    hub = request.getfixturevalue(name)
    by_hand = gpt2_elsewhere if name == "gpt2" else whisper_elsewhere
    expected = {key.replace(f"/{model}/", "/"): array for key, array in by_hand(hub, "tf_keras").items()}
    assert differing(expected, to(f"{name}/tf_keras_built", hub)) == []
    assert differing(hub, back(f"{name}/tf_keras_built", expected)) == []


# ── Whisper ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_v4_whisper_has_the_projection_under_its_own_name(transformers: Any, whisper: Arrays) -> None:
    model = transformers.WhisperForConditionalGeneration(whisper_config(transformers))
    model.load_state_dict(as_torch({**whisper, "proj_out.weight": whisper["model.decoder.embed_tokens.weight"]}))
    memory = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    assert differing(memory, to("whisper/hf_v4", whisper)) == []
    assert differing(whisper, back("whisper/hf_v4", memory)) == []


OPENAI = [  # in transformers' own order of replacements, from convert_openai_to_hf
    ("blocks", "layers"), ("mlp.0", "fc1"), ("mlp.2", "fc2"), ("mlp_ln", "final_layer_norm"),
    (".attn.query", ".self_attn.q_proj"), (".attn.key", ".self_attn.k_proj"), (".attn.value", ".self_attn.v_proj"),
    (".attn_ln", ".self_attn_layer_norm"), (".attn.out", ".self_attn.out_proj"),
    (".cross_attn.query", ".encoder_attn.q_proj"), (".cross_attn.key", ".encoder_attn.k_proj"),
    (".cross_attn.value", ".encoder_attn.v_proj"), (".cross_attn_ln", ".encoder_attn_layer_norm"),
    (".cross_attn.out", ".encoder_attn.out_proj"), ("decoder.ln.", "decoder.layer_norm."),
    ("token_embedding", "embed_tokens"), ("encoder.positional_embedding", "encoder.embed_positions.weight"),
    ("decoder.positional_embedding", "decoder.embed_positions.weight"), ("ln_post", "layer_norm"),
]  # fmt: skip


def openai_names() -> dict[str, tuple[int, ...]]:
    """The names and shapes of whisper.model.Whisper(dims).state_dict()."""
    names: dict[str, tuple[int, ...]] = {
        "encoder.conv1.weight": (WIDTH, MELS, 3), "encoder.conv2.weight": (WIDTH, WIDTH, 3),
        "encoder.positional_embedding": (AUDIO, WIDTH), "decoder.positional_embedding": (TEXT, WIDTH),
        "decoder.token_embedding.weight": (TOKENS, WIDTH),
    }  # fmt: skip
    for one in ("encoder.conv1.bias", "encoder.conv2.bias", "encoder.ln_post.weight", "encoder.ln_post.bias",
                "decoder.ln.weight", "decoder.ln.bias"):  # fmt: skip
        names[one] = (WIDTH,)
    for stack, count, ffn in (("encoder", ENC, ENC_FFN), ("decoder", DEC, DEC_FFN)):
        for layer in range(count):
            at = f"{stack}.blocks.{layer}."
            for attention in ("attn", "cross_attn")[: 1 + (stack == "decoder")]:
                for part in ("query", "key", "value", "out"):
                    names[f"{at}{attention}.{part}.weight"] = (WIDTH, WIDTH)
                    if part != "key":
                        names[f"{at}{attention}.{part}.bias"] = (WIDTH,)
                names |= {f"{at}{attention}_ln.weight": (WIDTH,), f"{at}{attention}_ln.bias": (WIDTH,)}
            names |= {f"{at}mlp_ln.weight": (WIDTH,), f"{at}mlp_ln.bias": (WIDTH,)}
            names |= {f"{at}mlp.0.weight": (ffn, WIDTH), f"{at}mlp.0.bias": (ffn,)}
            names |= {f"{at}mlp.2.weight": (WIDTH, ffn), f"{at}mlp.2.bias": (WIDTH,)}
    return names


def test_whisper_as_openai_released_it(whisper: Arrays) -> None:
    made = to("whisper/openai", whisper)
    assert shapes(made) == openai_names()
    for name, array in made.items():
        for theirs, ours in OPENAI:
            name = name.replace(theirs, ours)
        assert np.array_equal(array, whisper[f"model.{name}"]), name
    assert differing(whisper, back("whisper/openai", made)) == []
    assert differing(whisper, back("whisper/openai", {**made, "alignment_heads": np.zeros((DEC, 3), bool)})) == []


def whisper_elsewhere(hub: Arrays, layout: str) -> Arrays:
    """Flax's and TensorFlow's Whisper, by hand."""
    made: Arrays = {}
    flax = layout == "flax"
    model = {
        "flax": "",
        "tf_keras": "tf_whisper_for_conditional_generation/model/",
        "tf_keras_model": "tf_whisper_model/model/",
    }[layout]
    for name, array in hub.items():
        pieces = name.split(".")[1:]
        kind = pieces.pop()
        path = "/".join(pieces) if flax else "/".join(pieces).replace("layers/", "layers.")
        if pieces[-1] == "embed_tokens":
            kind = "embedding" if flax else "embeddings:0"
        elif pieces[-1] == "embed_positions":
            kind = "embedding" if flax else "weight:0"
        elif pieces[-1].endswith("layer_norm"):
            kind = {"weight": "scale", "bias": "bias"}[kind] if flax else {"weight": "gamma:0", "bias": "beta:0"}[kind]
        else:
            if kind == "weight":
                array, kind = array.transpose(range(array.ndim)[::-1]), "kernel"
            kind = kind if flax else f"{kind}:0"
        made[f"model/{model}{path}/{kind}"] = array
    return whole(made)


@pytest.mark.parametrize("layout", ["flax", "tf_keras", "tf_keras_model"])
def test_whisper_elsewhere(layout: str, whisper: Arrays) -> None:
    expected = whisper_elsewhere(whisper, layout)
    assert shapes(expected) == facts(f"whisper/{layout}")
    assert differing(expected, to(f"whisper/{layout}", whisper)) == []
    assert differing(whisper, back(f"whisper/{layout}", expected)) == []


# ── what comes out is a model ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("layout", "cls"),
    [
        ("gpt2/megatron_v1", "GPT2LMHeadModel"),
        ("gpt2/openai_tf", "GPT2LMHeadModel"),
        ("gpt2/paddle", "GPT2LMHeadModel"),
        ("whisper/openai", "WhisperForConditionalGeneration"),
        ("whisper/tf_keras", "WhisperForConditionalGeneration"),
    ],
)
def test_transformers_loads_what_comes_back(
    transformers: Any, layout: str, cls: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    from safetensors.numpy import save_file

    name = layout.partition("/")[0]
    hub = request.getfixturevalue(name)
    there, here = ({"heads": HEADS, "pad": PAD}, {"heads": HEADS, "vocab": VOCAB}) if "megatron" in layout else ({}, {})
    again = back_from(layout, to(layout, hub, **there), **here)
    assert differing(hub, again) == []
    save_file(whole(again), tmp_path / "model.safetensors", {"format": "pt"})
    config = gpt2_config(transformers) if name == "gpt2" else whisper_config(transformers)
    config.save_pretrained(tmp_path)
    model, info = getattr(transformers, cls).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    memory = {key: tensor.detach().numpy() for key, tensor in model.state_dict().items()}
    assert differing(hub, {key: memory[key] for key in hub}) == []
