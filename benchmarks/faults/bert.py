"""BERT as flash_attn and NVIDIA's pretraining code are built: one Wqkv, norms beside the blocks' halves, a decoder that is tied."""

from __future__ import annotations

from typing import Any

import torch
from benchmarks.faults.hook import SOUND, Faults
from benchmarks.faults.parts import ACTIVATIONS, Dense, Norm, Table, attend, residual, split_heads
from torch import Tensor, nn

EPS = 1e-12


class Mixer(nn.Module):
    """q, k and v in one Linear, the heads of each one after the other."""

    def __init__(self, width: int, heads: int, faults: Faults) -> None:
        super().__init__()
        self.faults, self.num_heads = faults, faults("heads-number", heads)
        self.Wqkv = Dense(width, 3 * width, faults.below("Wqkv"))
        self.out_proj = Dense(width, width, faults.below("out_proj"))

    def forward(self, x: Tensor, key_padding_mask: Tensor | None) -> Tensor:
        made, width = self.Wqkv(x), x.shape[-1]
        if self.faults("parts", "blocks") == "by head":
            q, k, v = made.unflatten(-1, (self.num_heads, 3, width // self.num_heads)).unbind(-2)
        else:
            starts = self.faults("starts", (0, 1, 2))
            q, k, v = (
                split_heads(made[..., int(at * width) : int(at * width) + width], self.num_heads, self.faults)
                for at in starts
            )
        allowed = None if key_padding_mask is None else key_padding_mask[:, None, None, :].bool()
        if self.faults("mask-shift", 0) and allowed is not None:
            allowed = allowed.roll(self.faults("mask-shift", 0), -1)
        return self.out_proj(attend(q, k, v, self.faults, allowed=allowed))


class Mlp(nn.Module):
    def __init__(self, width: int, inner: int, faults: Faults) -> None:
        super().__init__()
        self.faults = faults
        self.fc1, self.fc2 = Dense(width, inner, faults.below("fc1")), Dense(inner, width, faults.below("fc2"))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(ACTIVATIONS[self.faults("activation", "erf")](self.fc1(x)))


class Block(nn.Module):
    """Post-LN."""

    def __init__(self, config: Any, faults: Faults) -> None:
        super().__init__()
        width, self.faults = config.hidden_size, faults
        self.mixer = Mixer(width, config.num_attention_heads, faults.below("mixer"))
        self.norm1 = Norm(width, EPS, faults.below("norm1"))
        self.mlp = Mlp(width, config.intermediate_size, faults.below("mlp"))
        self.norm2 = Norm(width, EPS, faults.below("norm2"))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        if self.faults("norms", "post") == "pre":
            x = x + self.mixer(self.norm1(x), mask)
            return x + self.mlp(self.norm2(x))
        if self.faults("norms", "post") == "before sum":
            x = x + self.norm1(self.mixer(x, mask))
            return x + self.norm2(self.mlp(x))
        if self.faults("norms", "post") == "swapped":
            x = self.norm2(x + self.mixer(x, mask))
            return self.norm1(x + self.mlp(x))
        x = self.norm1(residual(x, self.mixer(x, mask), self.faults, "attention-residual"))
        return self.norm2(residual(x, self.mlp(x), self.faults, "mlp-residual"))


class Embeddings(nn.Module):
    """Words, positions and types, one after the other."""

    def __init__(self, config: Any, faults: Faults) -> None:
        super().__init__()
        self.faults, width = faults, config.hidden_size
        self.word_embeddings = Table(config.vocab_size, width)
        self.position_embeddings = Table(config.max_position_embeddings, width)
        self.token_type_embeddings = Table(config.type_vocab_size, width)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        x = self.word_embeddings(input_ids) * self.faults("embedding-scale", 1.0)
        places = torch.arange(input_ids.shape[1], device=input_ids.device) + self.faults("position-offset", 0)
        limit = self.position_embeddings.weight.shape[0]
        if self.faults("positions", "used") == "used":
            x = self.position_embeddings(places.clamp(max=limit - 1))[None] + x
        kinds = {
            "used": token_type_ids,
            "zeros": torch.zeros_like(token_type_ids),
            "turned": 1 - token_type_ids.clamp(max=1),
        }
        how = self.faults("types", "used")
        return x if how == "missing" else x + self.token_type_embeddings(kinds[how])


class Encoder(nn.Module):
    def __init__(self, config: Any, faults: Faults) -> None:
        super().__init__()
        self.faults = faults
        self.layers = nn.ModuleList(
            [Block(config, faults.below(f"layers.{layer}")) for layer in range(config.num_hidden_layers)]
        )

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        for layer in self.faults("order", range(len(self.layers))):
            x = self.layers[layer](x, mask)
        return x


class Pooler(nn.Module):
    def __init__(self, width: int, faults: Faults) -> None:
        super().__init__()
        self.faults, self.dense = faults, Dense(width, width, faults.below("dense"))

    def forward(self, x: Tensor) -> Tensor:
        which = {"first": lambda: x[:, 0], "mean": lambda: x.mean(1), "last": lambda: x[:, -1]}
        y = self.dense(which[self.faults("token", "first")]())
        return torch.tanh(y) if self.faults("tanh", True) else y


class Body(nn.Module):
    def __init__(self, config: Any, faults: Faults) -> None:
        super().__init__()
        self.embeddings = Embeddings(config, faults.below("embeddings"))
        self.emb_ln = Norm(config.hidden_size, EPS, faults.below("emb_ln"))
        self.encoder = Encoder(config, faults.below("encoder"))
        self.pooler = Pooler(config.hidden_size, faults.below("pooler"))

    def forward(self, input_ids: Tensor, token_type_ids: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        x = self.encoder(self.emb_ln(self.embeddings(input_ids, token_type_ids)), mask)
        return x, self.pooler(x)


class Transform(nn.Module):
    def __init__(self, width: int, faults: Faults) -> None:
        super().__init__()
        self.faults = faults
        self.dense, self.layer_norm = (
            Dense(width, width, faults.below("dense")),
            Norm(width, EPS, faults.below("layer_norm")),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layer_norm(ACTIVATIONS[self.faults("activation", "erf")](self.dense(x)))


class Predictions(nn.Module):
    """The decoder's matrix is written too, as flash_attn does; loading ties it or, with a fault, forgets to."""

    def __init__(self, config: Any, faults: Faults) -> None:
        super().__init__()
        self.faults = faults
        self.transform = Transform(config.hidden_size, faults.below("transform"))
        self.decoder = Dense(config.hidden_size, config.vocab_size, faults.below("decoder"))

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.transform(x) * self.faults("scale", 1.0))


class Bert(nn.Module):
    """Both heads of pretraining."""

    def __init__(self, config: Any, faults: Faults = SOUND) -> None:
        super().__init__()
        self.bert = Body(config, faults.below("bert"))
        self.predictions = Predictions(config, faults.below("predictions"))
        self.seq_relationship = Dense(config.hidden_size, 2, faults.below("seq_relationship"))
        if not faults("untied", False):
            self.predictions.decoder.weight = self.bert.embeddings.word_embeddings.weight

    def forward(
        self, input_ids: Tensor, token_type_ids: Tensor, attention_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        x, pooled = self.bert(input_ids, token_type_ids, attention_mask)
        return self.predictions(x), self.seq_relationship(pooled)


def lines(config: Any) -> dict[str, str]:
    """The morph from bert/hf, a line a tensor."""
    found = {
        "words": "bert.embeddings.word_embeddings.weight [v d] <-> "
                 "{=bert.embeddings.word_embeddings|predictions.decoder}.weight [v d]",
        "positions": "bert.embeddings.position_embeddings.weight <-> bert.embeddings.position_embeddings.weight",
        "types": "bert.embeddings.token_type_embeddings.weight <-> bert.embeddings.token_type_embeddings.weight",
        "bert.emb_ln": "bert.embeddings.LayerNorm.* <-> bert.emb_ln.*",
        "bert.pooler.dense.weight": "bert.pooler.dense.weight [o i] <-> bert.pooler.dense.weight [o i]",
        "bert.pooler.dense.bias": "bert.pooler.dense.bias <-> bert.pooler.dense.bias",
        "predictions.decoder.bias": "cls.predictions.bias <-> predictions.decoder.bias",
        "predictions.transform.dense.weight":
            "cls.predictions.transform.dense.weight [o i] <-> predictions.transform.dense.weight [o i]",
        "predictions.transform.dense.bias": "cls.predictions.transform.dense.bias <-> predictions.transform.dense.bias",
        "predictions.transform.layer_norm":
            "cls.predictions.transform.LayerNorm.* <-> predictions.transform.layer_norm.*",
        "seq_relationship": "cls.seq_relationship.* <-> seq_relationship.*",
        "ids": "drop? bert.embeddings.position_ids, bert.embeddings.token_type_ids, cls.predictions.decoder.*",
    }  # fmt: skip
    for layer in range(config.num_hidden_layers):
        ours, theirs = f"bert.encoder.layers.{layer}", f"bert.encoder.layer.{layer}"
        parts = [f"{theirs}.attention.self.{part}" for part in ("query", "key", "value")]
        weights = ", ".join(f"{part}.weight [{p} i]" for p, part in zip("qkv", parts, strict=True))
        biases = ", ".join(f"{part}.bias [{p}]" for p, part in zip("qkv", parts, strict=True))
        found[f"{ours}.mixer.Wqkv.weight"] = f"{weights} <-> {ours}.mixer.Wqkv.weight [(q + k + v) i]"
        found[f"{ours}.mixer.Wqkv.bias"] = f"{biases} <-> {ours}.mixer.Wqkv.bias [(q + k + v)]"
        for mine, other in (("mixer.out_proj", "attention.output.dense"), ("mlp.fc1", "intermediate.dense"),
                            ("mlp.fc2", "output.dense")):  # fmt: skip
            found[f"{ours}.{mine}.weight"] = f"{theirs}.{other}.weight [o i] <-> {ours}.{mine}.weight [o i]"
            found[f"{ours}.{mine}.bias"] = f"{theirs}.{other}.bias <-> {ours}.{mine}.bias"
        found[f"{ours}.norm1"] = f"{theirs}.attention.output.LayerNorm.* <-> {ours}.norm1.*"
        found[f"{ours}.norm2"] = f"{theirs}.output.LayerNorm.* <-> {ours}.norm2.*"
    return found
