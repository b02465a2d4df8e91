"""RoBERTa, DistilBERT, ALBERT, BART and Megatron's BERT: what transformers 5.23 writes, and their other layouts written down a second
time in plain numpy."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from contrastive import Arrays, back, differing, morph, quiet_transformers, randomised, saved, to

import isomorph as iso
from isomorph.errors import MorphError
from isomorph.formats.memory import ArrayCheckpoint
from isomorph.layouts.catalogue import family, layouts
from isomorph.layouts.hub import schema

LAYERS, WIDTH, HEADS, FFN, VOCAB, POSITIONS, TYPES, CLASSES = 2, 12, 3, 20, 31, 11, 5, 7
HEAD_DIM = WIDTH // HEADS
BERT_LIKE = {
    "num_hidden_layers": LAYERS, "hidden_size": WIDTH, "num_attention_heads": HEADS, "intermediate_size": FFN,
    "vocab_size": VOCAB, "max_position_embeddings": POSITIONS, "type_vocab_size": TYPES,
}  # fmt: skip
CONFIGS: dict[str, dict[str, int]] = {
    "megatron_bert": BERT_LIKE,
    "roberta": {**BERT_LIKE, "type_vocab_size": 1},
    "albert": {**BERT_LIKE, "embedding_size": 6, "num_hidden_groups": 3, "inner_group_num": 2, "num_hidden_layers": 9},
    "distilbert": {
        "n_layers": LAYERS, "dim": WIDTH, "n_heads": HEADS, "hidden_dim": FFN, "vocab_size": VOCAB,
        "max_position_embeddings": POSITIONS,
    },
    "bart": {
        "d_model": WIDTH, "encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 3, "decoder_attention_heads": 2,
        "encoder_ffn_dim": 20, "decoder_ffn_dim": 22, "vocab_size": VOCAB, "max_position_embeddings": POSITIONS,
        "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2,
    },
}  # fmt: skip
MODELS = {
    "megatron_bert": (
        "MegatronBert",
        ("Model", "ForPreTraining", "ForMaskedLM", "ForSequenceClassification", "ForQuestionAnswering"),
    ),
    "roberta": (
        "Roberta",
        ("Model", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "ForMultipleChoice",
         "ForQuestionAnswering"),
    ),
    "albert": (
        "Albert",
        ("Model", "ForPreTraining", "ForMaskedLM", "ForSequenceClassification", "ForQuestionAnswering"),
    ),
    "distilbert": (
        "DistilBert",
        ("Model", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering"),
    ),
    "bart": ("Bart", ("Model", "ForConditionalGeneration", "ForSequenceClassification", "ForQuestionAnswering")),
}  # fmt: skip
EVERY = [(of, head) for of, (_, heads) in MODELS.items() for head in heads]
LARGEST = {
    "megatron_bert": "ForPreTraining", "roberta": "ForMaskedLM", "albert": "ForPreTraining", "distilbert": "ForMaskedLM",
    "bart": "ForConditionalGeneration",
}  # fmt: skip


@pytest.fixture(scope="module")
def transformers() -> Any:
    return quiet_transformers()


@pytest.fixture(scope="module")
def model(transformers: Any) -> Callable[[str, str], Any]:
    made: dict[tuple[str, str], Any] = {}

    def of(name: str, head: str) -> Any:
        if (name, head) not in made:
            prefix = MODELS[name][0]
            labels = 2 if head == "ForQuestionAnswering" else CLASSES
            config = getattr(transformers, f"{prefix}Config")(**CONFIGS[name], num_labels=labels)
            made[name, head] = randomised(getattr(transformers, prefix + head)(config))
        return made[name, head]

    return of


@pytest.fixture(scope="module")
def disk(model: Callable[[str, str], Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Arrays]:
    """What save_pretrained writes, with the prefix that a bare model is written without."""
    made: dict[tuple[str, str], Arrays] = {}

    def of(name: str, head: str) -> Arrays:
        if (name, head) not in made:
            base = family(name).base if head == "Model" else ""
            arrays = saved(model(name, head), tmp_path_factory.mktemp(name))
            made[name, head] = {f"{base}{key}": array for key, array in arrays.items()}
        return made[name, head]

    return of


def transposed(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.ascontiguousarray(array.T)


def read_as_hub(name: str, arrays: Mapping[str, Any]) -> Any:
    with ArrayCheckpoint(arrays) as checkpoint:
        return schema(name).read(checkpoint.manifest)


# ── all of them ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("name", "head"), EVERY)
def test_the_hub_is_what_transformers_writes(disk: Callable[[str, str], Arrays], name: str, head: str) -> None:
    found = read_as_hub(name, disk(name, head))
    assert ((), (), ()) == (found.unknown, found.missing, found.clashes)
    of = family(name)
    told = {of.axes[axis].config: size for axis, size in found.sizes.items() if of.axes[axis].config}
    told.pop("num_labels", None)
    assert told == {key: size for key, size in CONFIGS[name].items() if key in told}
    untold = {key for key in CONFIGS[name] if "head" in key or key.endswith("token_id")}
    assert set(told) >= set(CONFIGS[name]) - untold - {"num_hidden_layers"}, "all that shapes and numbers can tell"


@pytest.mark.parametrize(("name", "head"), EVERY)
def test_the_hub_is_the_identity(disk: Callable[[str, str], Arrays], name: str, head: str) -> None:
    assert [] == differing(disk(name, head), back(f"{name}/hf", disk(name, head)))


@pytest.mark.parametrize("name", ["roberta", "albert", "distilbert", "bart"])
def test_hf_v4_is_the_state_dict_with_its_aliases(
    model: Callable[[str, str], Any], disk: Callable[[str, str], Arrays], name: str
) -> None:
    head = LARGEST[name]
    aliased = {key: tensor.numpy() for key, tensor in model(name, head).state_dict().items()}
    assert len(aliased) > len(disk(name, head))
    assert [] == differing(disk(name, head), back(f"{name}/hf_v4", aliased))
    assert [] == differing(aliased, to(f"{name}/hf_v4", disk(name, head)))


@pytest.mark.parametrize("head", ["Model", "ForSequenceClassification", "ForQuestionAnswering"])
def test_barts_other_heads_as_transformers_4_wrote_them(
    model: Callable[[str, str], Any], disk: Callable[[str, str], Arrays], head: str
) -> None:
    base = "model." if head == "Model" else ""
    aliased = {base + key: tensor.numpy() for key, tensor in model("bart", head).state_dict().items()}
    assert [] == differing(disk("bart", head), back("bart/hf_v4_base", aliased))
    assert [] == differing(aliased, to("bart/hf_v4_base", disk("bart", head)))


FUSED = {
    "roberta": (".attention.self.", ("query", "key", "value"), "qkv_proj"),
    "albert": (".attention.", ("query", "key", "value"), "qkv_proj"),
    "distilbert": (".attention.", ("q_lin", "k_lin", "v_lin"), "qkv_lin"),
    "bart": (".self_attn.", ("q_proj", "k_proj", "v_proj"), "qkv_proj"),
}


@pytest.mark.parametrize("name", FUSED)
def test_fused_qkv(disk: Callable[[str, str], Arrays], name: str) -> None:
    hub = disk(name, LARGEST[name])
    expected = dict(hub)

    def fuse(at: str, parts: tuple[str, ...], together: str) -> None:
        for key in [key for key in expected if f"{at}{parts[0]}." in key]:
            rows = [expected.pop(key.replace(parts[0], part)) for part in parts]
            expected[key.replace(parts[0], together)] = np.concatenate(rows)

    at, parts, together = FUSED[name]
    fuse(at, parts, together)
    if name == "bart":
        fuse(".encoder_attn.", ("k_proj", "v_proj"), "kv_proj")
    assert len(expected) < len(hub)
    assert [] == differing(expected, to(f"{name}/fused_qkv", hub))
    assert [] == differing(hub, back(f"{name}/fused_qkv", expected))


def flax(hub: Arrays) -> Arrays:
    made: Arrays = {}
    for key, array in hub.items():
        name = key
        if "embeddings.weight" in key:
            name = key.replace("weight", "embedding")
        elif key.endswith(("LayerNorm.weight", "layer_norm.weight")):
            name = key.replace("weight", "scale")
        elif key.endswith("weight"):
            name, array = key.replace("weight", "kernel"), transposed(array)
        made[name.replace(".", "/")] = array
    return made


@pytest.mark.parametrize(("name", "head"), [one for one in EVERY if one[0] in ("roberta", "distilbert")])
def test_flax(disk: Callable[[str, str], Arrays], name: str, head: str) -> None:
    hub = disk(name, head)
    assert [] == differing(flax(hub), to(f"{name}/flax", hub))
    assert [] == differing(hub, back(f"{name}/flax", flax(hub)))


KERAS_LAYER = {
    "distilbert": {
        "_self_attention_layer/query_dense": "attention.q_lin",
        "_self_attention_layer/key_dense": "attention.k_lin",
        "_self_attention_layer/value_dense": "attention.v_lin",
        "_self_attention_layer/output_dense": "attention.out_lin",
        "_self_attention_layer_norm": "sa_layer_norm",
        "_feedforward_intermediate_dense": "ffn.lin1",
        "_feedforward_output_dense": "ffn.lin2",
        "_feedforward_layer_norm": "output_layer_norm",
    },
    "albert": {
        "_self_attention_layer/query_dense": "attention.query",
        "_self_attention_layer/key_dense": "attention.key",
        "_self_attention_layer/value_dense": "attention.value",
        "_self_attention_layer/output_dense": "attention.dense",
        "_self_attention_layer_norm": "attention.LayerNorm",
        "_feedforward_intermediate_dense": "ffn",
        "_feedforward_output_dense": "ffn_output",
        "_feedforward_layer_norm": "full_layer_layer_norm",
    },
}
KERAS_REST = {
    "distilbert": {
        "layers/token_and_position_embedding/token_embedding/vars/0": "embeddings.word_embeddings.weight",
        "layers/token_and_position_embedding/position_embedding/vars/0": "embeddings.position_embeddings.weight",
        "layers/layer_normalization/vars/0": "embeddings.LayerNorm.weight",
        "layers/layer_normalization/vars/1": "embeddings.LayerNorm.bias",
    },
    "albert": {
        "layers/reversible_embedding/vars/0": "embeddings.word_embeddings.weight",
        "layers/position_embedding/vars/0": "embeddings.position_embeddings.weight",
        "layers/embedding/vars/0": "embeddings.token_type_embeddings.weight",
        "layers/layer_normalization/vars/0": "embeddings.LayerNorm.weight",
        "layers/layer_normalization/vars/1": "embeddings.LayerNorm.bias",
        "layers/dense/vars/0": "encoder.embedding_hidden_mapping_in.weight",
        "layers/dense/vars/1": "encoder.embedding_hidden_mapping_in.bias",
        "layers/dense_1/vars/0": "pooler.weight",
        "layers/dense_1/vars/1": "pooler.bias",
    },
}


@pytest.mark.parametrize("name", KERAS_LAYER)
def test_keras_hub(disk: Callable[[str, str], Arrays], name: str) -> None:
    """As KerasHub 0.32's backbones number their variables; ALBERT's three groups of two layers stand in one row."""
    hub = disk(name, "Model")
    sources = [f"{name}.transformer.layer.{layer}" for layer in range(LAYERS)]
    if name == "albert":
        groups = f"{name}.encoder.albert_layer_groups"
        sources = [f"{groups}.{group}.albert_layers.{layer}" for group in range(3) for layer in range(2)]
    expected = {key: hub[f"{name}.{source}"] for key, source in KERAS_REST[name].items()}
    for number, source in enumerate(sources):
        for theirs, ours in KERAS_LAYER[name].items():
            at = f"layers/transformer_encoder{f'_{number}' if number else ''}/{theirs}/vars"
            kernel, bias = hub[f"{source}.{ours}.weight"], hub[f"{source}.{ours}.bias"]
            if "norm" not in theirs:
                kernel = transposed(kernel)
            if theirs.endswith("_layer/output_dense"):
                kernel = kernel.reshape(HEADS, HEAD_DIM, WIDTH)
            elif "_layer/" in theirs:
                kernel, bias = kernel.reshape(WIDTH, HEADS, HEAD_DIM), bias.reshape(HEADS, HEAD_DIM)
            expected[f"{at}/0"], expected[f"{at}/1"] = kernel, bias
    for key in ("layers/dense/vars/0", "layers/dense_1/vars/0"):
        if key in expected:
            expected[key] = transposed(expected[key])
    rules = morph(f"{name}/keras_hub")
    sizes = {"inner": 2} if name == "albert" else {}
    assert [] == differing(expected, to(f"{name}/keras_hub", hub, heads=HEADS, **sizes))
    assert [] == differing(hub, rules.plan(expected, **sizes).state_dict("numpy"))


@pytest.mark.parametrize("layout", [str(one) for name in MODELS for one in layouts(name)])
def test_every_layout_says_what_it_is(layout: str) -> None:
    one = next(each for each in layouts(layout.partition("/")[0]) if str(each) == layout)
    assert one.header.title and one.header.sources
    one.morph.check()


# ── RoBERTa ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def without_types(hub: Arrays) -> Arrays:
    """RoBERTa's one token type is nothing in every released model: fairseq has none."""
    table = "roberta.embeddings.token_type_embeddings.weight"
    return hub | {table: np.zeros_like(hub[table])}


def fairseq_roberta(hub: Arrays, *, under: str, norm: str, fused: bool) -> Arrays:
    words = {
        "roberta.embeddings.word_embeddings": "sentence_encoder.embed_tokens",
        "roberta.embeddings.position_embeddings": "sentence_encoder.embed_positions",
        "roberta.embeddings.LayerNorm": f"sentence_encoder.{norm}",
        "roberta.encoder.layer": "sentence_encoder.layers",
        "attention.self.query": "self_attn.q_proj",
        "attention.self.key": "self_attn.k_proj",
        "attention.self.value": "self_attn.v_proj",
        "attention.output.dense": "self_attn.out_proj",
        "attention.output.LayerNorm": "self_attn_layer_norm",
        "intermediate.dense": "fc1",
        "output.dense": "fc2",
        "output.LayerNorm": "final_layer_norm",
    }
    made: Arrays = {}
    for key, array in hub.items():
        if key.startswith("classifier."):
            made[key.replace("classifier", "classification_heads.mnli")] = array
        elif "token_type" not in key:
            for ours, theirs in words.items():
                key = key.replace(ours, theirs)
            made[f"{under}.{key}"] = array
    made[f"{under}.lm_head.weight"] = hub["roberta.embeddings.word_embeddings.weight"]
    for key in [key for key in made if fused and ".q_proj." in key]:
        rows = [made.pop(key.replace("q_proj", part)) for part in ("q_proj", "k_proj", "v_proj")]
        made[key.replace("q_proj.", "in_proj_")] = np.concatenate(rows)
    return made


FAIRSEQ = {
    "fairseq": {"under": "encoder", "norm": "layernorm_embedding", "fused": False},
    "fairseq_2020": {"under": "decoder", "norm": "emb_layer_norm", "fused": False},
    "fairseq_2019": {"under": "decoder", "norm": "emb_layer_norm", "fused": True},
}


@pytest.mark.parametrize("layout", FAIRSEQ)
@pytest.mark.parametrize("classified", [False, True])
def test_roberta_of_fairseq(disk: Callable[[str, str], Arrays], layout: str, classified: bool) -> None:
    hub = without_types(disk("roberta", "ForMaskedLM"))
    if classified:
        head = disk("roberta", "ForSequenceClassification")
        hub |= {key: array for key, array in head.items() if key.startswith("classifier.")}
    expected = fairseq_roberta(hub, **FAIRSEQ[layout])  # type: ignore[arg-type] # three keywords of two types
    assert [] == differing(expected, to(f"roberta/{layout}", hub))
    version = {f"{FAIRSEQ[layout]['under']}.sentence_encoder.version": np.array([3.0], dtype=np.float32)}
    assert [] == differing(hub, back(f"roberta/{layout}", expected | version))


def test_a_token_type_that_is_something_has_no_place_in_fairseq(disk: Callable[[str, str], Arrays]) -> None:
    """To drop it would change what the model answers."""
    with pytest.raises(MorphError, match="token_type_embeddings"):
        to("roberta/fairseq", disk("roberta", "ForMaskedLM"))


PADDLE_WORDS = {
    "roberta": {
        "embeddings.LayerNorm": "embeddings.layer_norm",
        "encoder.layer.": "encoder.layers.",
        "attention.self.query": "self_attn.q_proj",
        "attention.self.key": "self_attn.k_proj",
        "attention.self.value": "self_attn.v_proj",
        "attention.output.dense": "self_attn.out_proj",
        "attention.output.LayerNorm": "norm1",
        "intermediate.dense": "linear1",
        "output.dense": "linear2",
        "output.LayerNorm": "norm2",
        "qa_outputs": "classifier",
    },
    "bart": {
        "model.": "bart.",
        "encoder.embed": "encoder.encoder_embed",
        "decoder.embed": "decoder.decoder_embed",
        "encoder.layer": "encoder.encoder.layer",
        "decoder.layer": "decoder.decoder.layer",
        "encoder.encoder.layernorm": "encoder.encoder_layernorm",
        "decoder.decoder.layernorm": "decoder.decoder_layernorm",
        "self_attn_layer_norm": "norm1",
        "encoder_attn_layer_norm": "norm2",
        "encoder_attn": "cross_attn",
        ".fc": ".linear",
    },
}


def paddle(name: str, hub: Arrays) -> Arrays:
    """PaddleNLP 2.8's names, by the words of its own mappings from transformers' (_get_name_mappings)."""
    made: Arrays = {}
    for key, array in hub.items():
        matrix = array.ndim == 2 and "embed" not in key and "shared" not in key and key != "final_logits_bias"
        for ours, theirs in PADDLE_WORDS[name].items():
            key = key.replace(ours, theirs)
        if name == "bart":
            key = key.replace("final_layer_norm", "norm3" if "decoder" in key else "norm2")
        made[key] = transposed(array) if matrix else array
    return made


@pytest.mark.parametrize(
    ("layout", "head"),
    [
        ("paddle", "ForMaskedLM"),
        ("paddle_base", "Model"),
        ("paddle_base", "ForSequenceClassification"),
        ("paddle_base", "ForTokenClassification"),
        ("paddle_qa", "ForQuestionAnswering"),
    ],
)
def test_roberta_of_paddle(disk: Callable[[str, str], Arrays], layout: str, head: str) -> None:
    hub = disk("roberta", head)
    expected = paddle("roberta", hub)
    if layout == "paddle":
        expected["lm_head.decoder.weight"] = hub["roberta.embeddings.word_embeddings.weight"]
        expected["lm_head.decoder.bias"] = hub["lm_head.bias"]
    assert [] == differing(expected, to(f"roberta/{layout}", hub))
    assert [] == differing(hub, back(f"roberta/{layout}", expected))


def test_bart_of_paddle(disk: Callable[[str, str], Arrays]) -> None:
    hub = disk("bart", "ForConditionalGeneration")
    expected = paddle("bart", hub)
    for key in ("bart.encoder.embed_tokens.weight", "bart.decoder.embed_tokens.weight", "lm_head_weight"):
        expected[key] = hub["model.shared.weight"]
    assert [] == differing(expected, to("bart/paddle", hub))
    assert [] == differing(hub, back("bart/paddle", expected))


# ── ALBERT ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def google_albert(hub: Arrays) -> Arrays:
    """Google's variables, by the words of transformers' old load_tf_weights_in_albert, read backward."""
    made: Arrays = {}
    for key, array in hub.items():
        kind = "gamma" if "LayerNorm.weight" in key or "layer_norm.weight" in key else "kernel"
        kind = "beta" if "LayerNorm.bias" in key or "layer_norm.bias" in key else kind
        name, _, leaf = key.rpartition(".")
        if key.startswith("albert.embeddings") and "LayerNorm" not in key:
            made[name.replace("albert", "bert").replace(".", "/")] = array
            continue
        if name in ("predictions", "sop_classifier.classifier", "classifier", "qa_outputs"):
            scope = {"predictions": "cls/predictions/", "sop_classifier.classifier": "cls/seq_relationship/",
                     "classifier": "", "qa_outputs": "cls/squad/"}[name]  # fmt: skip
            made[f"{scope}output_{'weights' if leaf == 'weight' else 'bias'}"] = array
            continue
        if kind == "kernel" and leaf == "weight":
            array = transposed(array)
        leaf = kind if kind in ("gamma", "beta") or leaf == "weight" else "bias"
        name = name.replace("albert_layer_groups.", "transformer.group_").replace(".albert_layers.", ".inner_group_")
        name = name.replace("attention.LayerNorm", "LayerNorm").replace("full_layer_layer_norm", "LayerNorm_1")
        for part in ("query", "key", "value"):
            name = name.replace(f"attention.{part}", f"attention_1.self.{part}")
        name = name.replace("attention.dense", "attention_1.output.dense")
        name = name.replace("ffn_output", "ffn_1.intermediate.output.dense")
        if name.endswith(".ffn"):
            name = name.replace(".ffn", ".ffn_1.intermediate.dense")
        name = name.replace("albert.pooler", "albert.pooler.dense").replace(
            "predictions.", "cls.predictions.transform."
        )
        made[f"{name}.{leaf}".replace("albert.", "bert.").replace(".", "/")] = array
    return made


@pytest.mark.parametrize("head", MODELS["albert"][1])
def test_albert_of_google(disk: Callable[[str, str], Arrays], head: str) -> None:
    """Three groups of two layers: every number has its place, and LayerNorm_1 is the one after the feed-forward."""
    hub = disk("albert", head)
    expected = google_albert(hub)
    assert [] == differing(expected, to("albert/google_tf", hub))
    slots = {f"{key}/adam_{slot}": array + 1 for key, array in expected.items() for slot in "mv"}
    trained = expected | slots | {"global_step": np.array(9, dtype=np.int64)}
    assert [] == differing(hub, back("albert/google_tf", trained))


def test_trained_albert_is_read() -> None:
    """RXNMapper's weights: written by transformers 2, the tied decoder under its own name."""
    files = importlib.metadata.files("rxnmapper") or []
    path = next(file.locate() for file in files if file.as_posix().endswith("pytorch_model.bin"))
    arrays = {name: np.asarray(array) for name, array in iso.open(str(path)).items()}
    hub = back("albert/hf_v4", arrays)
    found = read_as_hub("albert", hub)
    assert ((), (), ()) == (found.unknown, found.missing, found.clashes)
    assert {
        "embedding": 128,
        "width": 256,
        "ffn": 512,
        "vocab": 591,
        "groups": 1,
        "inner": 1,
    }.items() <= found.sizes.items()
    assert [] == differing(arrays, to("albert/hf_v4", hub))


# ── BART ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def fairseq_bart(hub: Arrays) -> Arrays:
    made = {key.removeprefix("model."): array for key, array in hub.items() if key.startswith("model.")}
    table = made.pop("shared.weight")
    for key in ("encoder.embed_tokens", "decoder.embed_tokens", "decoder.output_projection"):
        made[f"{key}.weight"] = table
    for part in ("dense", "out_proj"):
        for leaf in ("weight", "bias"):
            if f"classification_head.{part}.{leaf}" in hub:
                made[f"classification_heads.mnli.{part}.{leaf}"] = hub[f"classification_head.{part}.{leaf}"]
    return made


@pytest.mark.parametrize(
    ("layout", "head"), [("fairseq", "ForConditionalGeneration"), ("fairseq_mnli", "ForSequenceClassification")]
)
def test_bart_of_fairseq(disk: Callable[[str, str], Arrays], layout: str, head: str) -> None:
    """The table lies there three times; transformers' bias of zeros is made, and must be zeros to be left out."""
    hub = disk("bart", head)
    expected = fairseq_bart(hub)
    assert [] == differing(expected, to(f"bart/{layout}", hub))
    older = expected | {f"{side}.version": np.array([3.0], dtype=np.float32) for side in ("encoder", "decoder")}
    older["encoder.embed_positions._float_tensor"] = np.zeros(1, dtype=np.float32)
    del older["decoder.output_projection.weight"]
    assert [] == differing(hub, back(f"bart/{layout}", older))


def test_a_bias_that_is_no_zeros_has_no_place_in_fairseq(disk: Callable[[str, str], Arrays]) -> None:
    hub = disk("bart", "ForConditionalGeneration")
    with pytest.raises(MorphError, match="final_logits_bias"):
        to("bart/fairseq", hub | {"final_logits_bias": hub["final_logits_bias"] + 1})


# ── Megatron's BERT ──────────────────────────────────────────────────────────────────────────────────────────────────


def megatron(hub: Arrays, *, stack: str, attention: str, version: int) -> Arrays:
    """As transformers' convert_megatron_bert_checkpoint.py reads it: nested dictionaries down to the stack, joined names below."""
    layers = f"model/language_model/{stack}/layers"
    words = {
        "bert.embeddings.word_embeddings.": "model/language_model/embedding/word_embeddings/",
        "bert.embeddings.position_embeddings.": "model/language_model/embedding/position_embeddings/",
        "bert.embeddings.token_type_embeddings.": "model/language_model/embedding/tokentype_embeddings/",
        "bert.encoder.layer": layers,
        "bert.encoder.ln": f"model/language_model/{stack}/final_layernorm",
        "bert.pooler.": "model/language_model/pooler/",
        ".attention.ln.": ".input_layernorm.",
        ".ln.": ".post_attention_layernorm.",
        ".attention.output.dense": f".{attention}.dense",
        ".intermediate.dense": ".mlp.dense_h_to_4h",
        ".output.dense": ".mlp.dense_4h_to_h",
        "cls.predictions.transform.LayerNorm": "model/lm_head/layernorm",
        "cls.predictions.transform.": "model/lm_head/",
        "cls.predictions.": "model/lm_head/",
        "cls.seq_relationship.": "model/binary_head/",
    }
    made: Arrays = {}
    for key, array in hub.items():
        if ".attention.self." in key:
            continue
        for ours, theirs in words.items():
            key = key.replace(ours, theirs)
        made[key] = array
    axis = {0: 0, 1: 2, 2: 1}[version]
    for layer in range(LAYERS):
        for leaf, rest in (("weight", (WIDTH,)), ("bias", ())):
            at = f"bert.encoder.layer.{layer}.attention.self"
            parts = [hub[f"{at}.{part}.{leaf}"].reshape(HEADS, HEAD_DIM, -1) for part in ("query", "key", "value")]
            made[f"{layers}.{layer}.{attention}.query_key_value.{leaf}"] = np.stack(parts, axis).reshape(
                3 * WIDTH, *rest
            )
    return made


MEGATRON: dict[str, dict[str, Any]] = {
    "megatron_v0": {"stack": "transformer", "attention": "attention", "version": 0},
    "megatron_v1": {"stack": "transformer", "attention": "attention", "version": 1},
    "megatron_v2": {"stack": "transformer", "attention": "attention", "version": 2},
    "megatron": {"stack": "encoder", "attention": "self_attention", "version": 2},
}


@pytest.mark.parametrize("layout", MEGATRON)
@pytest.mark.parametrize("head", ["ForPreTraining", "ForMaskedLM"])
def test_megatron_bert_by_its_checkpoint_version(disk: Callable[[str, str], Arrays], layout: str, head: str) -> None:
    hub = disk("megatron_bert", head)
    expected = megatron(hub, **MEGATRON[layout])
    assert [] == differing(expected, to(f"megatron_bert/{layout}", hub, heads=HEADS))
    trained = expected | {
        "optimizer/state/0/exp_avg": np.zeros(3, dtype=np.float32),
        "model/word_embeddings_for_head/weight": np.zeros(3, dtype=np.float32),
    }
    found = morph(f"megatron_bert/{layout}").plan(trained, heads=HEADS).state_dict("numpy")
    assert [] == differing(hub, found)
