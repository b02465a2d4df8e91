"""BERT: word, position and type embeddings, post-LN blocks, a pooler, and the heads of pretraining and of the usual tasks.

Post-LN: a block adds first and normalises after, `x = LayerNorm(x + attention(x))`, `x = LayerNorm(x + mlp(x))`, so that what
leaves the encoder is normalised already and there is no norm at its end.

Sources: Devlin et al. 2018, "BERT: Pre-training of Deep Bidirectional Transformers" (arXiv 1810.04805), section 3 and A.2;
google-research/bert modeling.py; transformers models/bert/modeling_bert.py, whose outputs these are.

The names of the state dict are those of the layout bert/hf, without `bert.` in a model that has no head; with `fused=True` those of
bert/fused_qkv. Shapes: B batch, T tokens, D width, H heads, K width of a head, F width of the MLP, V tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from isomorph.models.activations import activation
from isomorph.models.attention import Attention, Names, allowed_keys
from isomorph.models.settings import check_settings

PREFIX = "bert."
NAMES = Names(query="query", key="key", value="value", fused="qkv_proj")


@dataclass(frozen=True)
class Config:
    """The fields of a BERT config.json that decide what is computed, with the values of bert-base where a config says nothing."""

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    is_decoder: bool = False
    num_labels: int = 2

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Config:
        """From a config.json, whose other keys decide nothing here. Raises ValueError for a model that this file is not."""
        for key, only in (("position_embedding_type", "absolute"), ("add_cross_attention", False)):
            if config.get(key, only) not in (only, None):
                raise ValueError(f"{key} = {config[key]!r} is not supported by this BERT: only {only!r} is")
        found = {key: config[key] for key in cls.__dataclass_fields__ if config.get(key) is not None}
        if config.get("num_labels") is None and config.get("id2label"):
            found["num_labels"] = len(config["id2label"])
        return cls(**found)

    def __post_init__(self) -> None:
        check_settings(self)
        activation(self.hidden_act)
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size = {self.hidden_size} is not a multiple of num_attention_heads = {self.num_attention_heads}"
            )


class BertOutput(NamedTuple):
    """`last_hidden_state` [B T D]; `pooler_output` [B D], None in a model without a pooler."""

    last_hidden_state: Tensor
    pooler_output: Tensor | None


class PretrainingOutput(NamedTuple):
    """`prediction_logits` [B T V], `seq_relationship_logits` [B 2]: is the second sentence the next one (0), or any other (1)."""

    prediction_logits: Tensor
    seq_relationship_logits: Tensor


class LogitsOutput(NamedTuple):
    """`logits`: [B T V] of masked tokens, [B T labels] of tokens, [B labels] of sequences."""

    logits: Tensor


class AnswerOutput(NamedTuple):
    """`start_logits` and `end_logits` [B T]."""

    start_logits: Tensor
    end_logits: Tensor


class BertEmbeddings(nn.Module):
    """Word + type + position, then the norm."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None, position_ids: Tensor | None) -> Tensor:
        length, limit = input_ids.shape[1], self.position_embeddings.num_embeddings
        if position_ids is None:
            if length > limit:
                raise ValueError(f"{length} tokens are given; this BERT has positions for {limit}: cut input_ids")
            position_ids = torch.arange(length, device=input_ids.device)
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(input_ids)
        x_BTD = self.word_embeddings(input_ids) + self.token_type_embeddings(token_type_ids)
        return self.LayerNorm(x_BTD + self.position_embeddings(position_ids))  # type: ignore[no-any-return]  # torch


class BertSum(nn.Module):
    """The end of each half of a block: a linear layer back to the width, the residual, the norm."""

    def __init__(self, inner: int, config: Config) -> None:
        super().__init__()
        self.dense = nn.Linear(inner, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, inner_BTF: Tensor, residual_BTD: Tensor) -> Tensor:
        return self.LayerNorm(self.dense(inner_BTF) + residual_BTD)  # type: ignore[no-any-return]  # torch


class BertAttention(nn.Module):
    """x = LayerNorm(x + attention(x))."""

    def __init__(self, config: Config, fused: bool) -> None:
        super().__init__()
        self.self = Attention(config.hidden_size, config.num_attention_heads, NAMES, fused=fused)
        self.output = BertSum(config.hidden_size, config)

    def forward(self, x_BTD: Tensor, mask: Tensor | None, is_causal: bool) -> Tensor:
        return self.output(self.self(x_BTD, mask, is_causal=is_causal), x_BTD)  # type: ignore[no-any-return]  # torch


class BertIntermediate(nn.Module):
    """Into the MLP: a linear layer and the activation."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = activation(config.hidden_act)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.activation(self.dense(x_BTD))


class BertLayer(nn.Module):
    """One post-LN block."""

    def __init__(self, config: Config, fused: bool) -> None:
        super().__init__()
        self.attention = BertAttention(config, fused)
        self.intermediate = BertIntermediate(config)
        self.output = BertSum(config.intermediate_size, config)

    def forward(self, x_BTD: Tensor, mask: Tensor | None, is_causal: bool) -> Tensor:
        x_BTD = self.attention(x_BTD, mask, is_causal)
        return self.output(self.intermediate(x_BTD), x_BTD)  # type: ignore[no-any-return]  # torch


class BertEncoder(nn.Module):
    """The blocks, one after the other."""

    def __init__(self, config: Config, fused: bool) -> None:
        super().__init__()
        self.layer = nn.ModuleList([BertLayer(config, fused) for _ in range(config.num_hidden_layers)])

    def forward(self, x_BTD: Tensor, mask: Tensor | None, is_causal: bool) -> Tensor:
        for layer in self.layer:
            x_BTD = layer(x_BTD, mask, is_causal)
        return x_BTD


class BertPooler(nn.Module):
    """tanh of a linear layer on the first token."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return torch.tanh(self.dense(x_BTD[:, 0]))


class BertModel(nn.Module):
    """Embeddings, encoder and, where the checkpoint has one, the pooler."""

    def __init__(self, config: Config, *, pooler: bool = True, fused: bool = False) -> None:
        super().__init__()
        self.config = config
        self.embeddings = BertEmbeddings(config)
        self.encoder = BertEncoder(config, fused)
        self.pooler = BertPooler(config) if pooler else None

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> BertOutput:
        """`attention_mask` [B T]: not 0 where there is a token; [B 1 T T] is taken as it is, boolean or added to the scores."""
        x_BTD = self.embeddings(input_ids, token_type_ids, position_ids)
        length, causal = input_ids.shape[1], self.config.is_decoder
        mask = allowed_keys(attention_mask, length, length, causal=causal, device=x_BTD.device)
        x_BTD = self.encoder(x_BTD, mask, causal and mask is None)
        return BertOutput(x_BTD, None if self.pooler is None else self.pooler(x_BTD))


class BertPredictionTransform(nn.Module):
    """Before a token is predicted: a linear layer, the activation, the norm."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = activation(config.hidden_act)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.LayerNorm(self.activation(self.dense(x_BTD)))  # type: ignore[no-any-return]  # torch


class BertPredictions(nn.Module):
    """Scores of the vocabulary. The matrix is the word embedding, so only the bias is this module's own."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.transform = BertPredictionTransform(config)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, x_BTD: Tensor, words_VD: Tensor) -> Tensor:
        return functional.linear(self.transform(x_BTD), words_VD, self.bias)


class BertHeads(nn.Module):
    """`cls`: the heads of pretraining, both or one of them."""

    def __init__(self, config: Config, heads: Collection[str]) -> None:
        super().__init__()
        if "predictions" in heads:
            self.predictions = BertPredictions(config)
        if "seq_relationship" in heads:
            self.seq_relationship = nn.Linear(config.hidden_size, 2)

    def forward(self, x_BTD: Tensor, pooled_BD: Tensor | None, words_VD: Tensor) -> tuple[Tensor, ...]:
        """Those that are there: scores of the vocabulary [B T V], of the next sentence [B 2]."""
        found = []
        if hasattr(self, "predictions"):
            found.append(self.predictions(x_BTD, words_VD))
        if hasattr(self, "seq_relationship"):
            found.append(self.seq_relationship(pooled_BD))
        return tuple(found)


class HeadedBert(nn.Module):
    """A BERT under `bert.` with a head beside it; what is below says which. `needs_pooler`: the head reads the pooled token."""

    needs_pooler = False

    def __init__(self, config: Config, *, pooler: bool | None = None, fused: bool = False) -> None:
        super().__init__()
        if self.needs_pooler and pooler is False:
            raise ValueError(f"{type(self).__name__} reads the pooled token, and there is no pooler")
        self.config = config
        self.bert = BertModel(config, pooler=self.needs_pooler if pooler is None else pooler, fused=fused)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> Any:
        """What `head` gives; the inputs are BertModel's."""
        return self.head(*self.bert(input_ids, attention_mask, token_type_ids, position_ids))

    def head(self, x_BTD: Tensor, pooled_BD: Tensor) -> Any:
        raise NotImplementedError


class BertForPreTraining(HeadedBert):
    """Both heads: masked tokens, next sentence."""

    needs_pooler = True
    heads: tuple[str, ...] = ("predictions", "seq_relationship")

    def __init__(self, config: Config, *, pooler: bool | None = None, fused: bool = False) -> None:
        super().__init__(config, pooler=pooler, fused=fused)
        self.cls = BertHeads(config, self.heads)

    def head(self, x_BTD: Tensor, pooled_BD: Tensor) -> Any:
        scores = self.cls(x_BTD, pooled_BD, self.bert.embeddings.word_embeddings.weight)
        return LogitsOutput(*scores) if len(self.heads) == 1 else PretrainingOutput(*scores)


class BertForMaskedLM(BertForPreTraining):
    """The head for masked tokens alone; with `is_decoder` in the config, for the next token."""

    needs_pooler = False
    heads = ("predictions",)


class BertForNextSentencePrediction(BertForPreTraining):
    """The head for the next sentence alone."""

    heads = ("seq_relationship",)


class BertForTokenClassification(HeadedBert):
    """One linear layer on every token."""

    def __init__(self, config: Config, *, pooler: bool | None = None, fused: bool = False) -> None:
        super().__init__(config, pooler=pooler, fused=fused)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)

    def head(self, x_BTD: Tensor, pooled_BD: Tensor) -> LogitsOutput:
        return LogitsOutput(self.classifier(x_BTD))


class BertForSequenceClassification(BertForTokenClassification):
    """The same on the pooled token."""

    needs_pooler = True

    def head(self, x_BTD: Tensor, pooled_BD: Tensor) -> LogitsOutput:
        return LogitsOutput(self.classifier(pooled_BD))


class BertForMultipleChoice(BertForSequenceClassification):
    """One score for each of several texts: `input_ids`, and what goes with them, are [B choices T]."""

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> LogitsOutput:
        rest = (attention_mask, token_type_ids, position_ids)
        flat = super().forward(input_ids.flatten(0, 1), *(None if one is None else one.flatten(0, 1) for one in rest))
        return LogitsOutput(flat.logits.view(input_ids.shape[:2]))


class BertForQuestionAnswering(HeadedBert):
    """The two ends of an answer."""

    def __init__(self, config: Config, *, pooler: bool | None = None, fused: bool = False) -> None:
        super().__init__(config, pooler=pooler, fused=fused)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)

    def head(self, x_BTD: Tensor, pooled_BD: Tensor) -> AnswerOutput:
        return AnswerOutput(*self.qa_outputs(x_BTD).unbind(-1))


MODELS: dict[str, type[nn.Module]] = {
    "BertModel": BertModel,
    "BertForPreTraining": BertForPreTraining,
    "BertForMaskedLM": BertForMaskedLM,
    "BertLMHeadModel": BertForMaskedLM,
    "BertForNextSentencePrediction": BertForNextSentencePrediction,
    "BertForSequenceClassification": BertForSequenceClassification,
    "BertForMultipleChoice": BertForMultipleChoice,
    "BertForTokenClassification": BertForTokenClassification,
    "BertForQuestionAnswering": BertForQuestionAnswering,
}


def from_config(config: Mapping[str, Any], *, fused: bool = False) -> nn.Module:
    """The model that a config.json is for, by its `architectures`; BertModel where it names none of MODELS. Weights are random."""
    named = next((name for name in config.get("architectures") or () if name in MODELS), "BertModel")
    made = Config.from_dict(config)
    return MODELS[named](replace(made, num_labels=1) if named == "BertForMultipleChoice" else made, fused=fused)


def build(config: Mapping[str, Any], names: Collection[str], *, fused: bool = False) -> nn.Module:
    """The model of a config.json that holds these tensors of bert/hf (with or without `bert.`), and no others.

    The heads that are there decide; `architectures` only between those that have the same names. Raises ValueError.
    """
    made = Config.from_dict(config)
    heads = {name.partition(".")[0] for name in names} & {"cls", "classifier", "qa_outputs"}
    pooler = any(name.removeprefix(PREFIX).startswith("pooler.") for name in names)
    if not heads:
        return BertModel(made, pooler=pooler, fused=fused)
    if len(heads) > 1:
        raise ValueError(
            f"a BERT with {' and '.join(sorted(heads))} at once is none of the known ones: drop all heads but one"
        )
    if heads == {"qa_outputs"}:
        return BertForQuestionAnswering(made, pooler=pooler, fused=fused)
    if heads == {"classifier"}:
        said = config.get("architectures") or ()
        if not pooler or "BertForTokenClassification" in said:
            return BertForTokenClassification(made, pooler=pooler, fused=fused)
        kind = BertForMultipleChoice if "BertForMultipleChoice" in said else BertForSequenceClassification
        return kind(replace(made, num_labels=1) if kind is BertForMultipleChoice else made, fused=fused)
    predictions = any(name.startswith("cls.predictions.") for name in names)
    if predictions and any(name.startswith("cls.seq_relationship.") for name in names):
        return BertForPreTraining(made, pooler=pooler, fused=fused)
    return (BertForMaskedLM if predictions else BertForNextSentencePrediction)(made, pooler=pooler, fused=fused)
