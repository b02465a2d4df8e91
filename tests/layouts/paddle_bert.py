"""PaddleNLP 2.8's BertForPretraining made of paddle.nn, run by itself: loads a .pdparams, and says what was missing and what it makes.

python paddle_bert.py WEIGHTS TOKENS.npz RESULT.npz
"""

from __future__ import annotations

import sys

import numpy as np
import paddle
from paddle import nn

HEADS, EPSILON = 3, 1e-12


class Embeddings(nn.Layer):  # type: ignore[misc]
    def __init__(self, vocab: int, width: int, positions: int, types: int) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(vocab, width)
        self.position_embeddings = nn.Embedding(positions, width)
        self.token_type_embeddings = nn.Embedding(types, width)
        self.layer_norm = nn.LayerNorm(width, epsilon=EPSILON)

    def forward(self, tokens: paddle.Tensor, types: paddle.Tensor) -> paddle.Tensor:
        positions = paddle.arange(tokens.shape[1]).unsqueeze(0)
        found = self.word_embeddings(tokens) + self.position_embeddings(positions) + self.token_type_embeddings(types)
        return self.layer_norm(found)


class Pooler(nn.Layer):  # type: ignore[misc]
    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)

    def forward(self, hidden: paddle.Tensor) -> paddle.Tensor:
        return paddle.tanh(self.dense(hidden[:, 0]))


class Bert(nn.Layer):  # type: ignore[misc]
    def __init__(self, vocab: int, width: int, positions: int, types: int, ffn: int, layers: int) -> None:
        super().__init__()
        self.embeddings = Embeddings(vocab, width, positions, types)
        layer = nn.TransformerEncoderLayer(width, HEADS, ffn, dropout=0.0, activation="gelu", act_dropout=0.0)
        self.encoder = nn.TransformerEncoder(layer, layers)
        self.pooler = Pooler(width)
        for one in self.encoder.sublayers():
            if isinstance(one, nn.LayerNorm):
                one._epsilon = EPSILON


class Decoder(nn.Layer):  # type: ignore[misc]
    """PaddleNLP's TransposedLinear: [out in], unlike paddle.nn.Linear."""

    def __init__(self, width: int, vocab: int) -> None:
        super().__init__()
        self.weight = self.create_parameter([vocab, width])
        self.bias = self.create_parameter([vocab], is_bias=True)


class Predictions(nn.Layer):  # type: ignore[misc]
    def __init__(self, width: int, vocab: int) -> None:
        super().__init__()
        self.transform = nn.Linear(width, width)
        self.layer_norm = nn.LayerNorm(width, epsilon=EPSILON)
        self.decoder = Decoder(width, vocab)
        self.decoder_bias = self.decoder.bias

    def forward(self, hidden: paddle.Tensor) -> paddle.Tensor:
        hidden = self.layer_norm(nn.functional.gelu(self.transform(hidden)))
        return paddle.matmul(hidden, self.decoder.weight, transpose_y=True) + self.decoder.bias


class Heads(nn.Layer):  # type: ignore[misc]
    def __init__(self, width: int, vocab: int) -> None:
        super().__init__()
        self.predictions = Predictions(width, vocab)
        self.seq_relationship = nn.Linear(width, 2)


class Pretraining(nn.Layer):  # type: ignore[misc]
    def __init__(self, vocab: int, width: int, positions: int, types: int, ffn: int, layers: int) -> None:
        super().__init__()
        self.bert = Bert(vocab, width, positions, types, ffn, layers)
        self.cls = Heads(width, vocab)


def main(weights: str, tokens: str, result: str) -> None:
    state = paddle.load(weights)
    vocab, width = state["bert.embeddings.word_embeddings.weight"].shape
    positions = state["bert.embeddings.position_embeddings.weight"].shape[0]
    types = state["bert.embeddings.token_type_embeddings.weight"].shape[0]
    ffn = state["bert.encoder.layers.0.linear1.weight"].shape[1]
    layers = sum(name.endswith("linear1.bias") for name in state)
    model = Pretraining(vocab, width, positions, types, ffn, layers)
    missing, unexpected = model.set_state_dict(state)
    model.eval()
    given = np.load(tokens)
    hidden = model.bert.encoder(
        model.bert.embeddings(paddle.to_tensor(given["tokens"]), paddle.to_tensor(given["types"]))
    )
    np.savez(
        result,
        missing=np.array(missing, dtype=str),
        unexpected=np.array(unexpected, dtype=str),
        prediction_logits=model.cls.predictions(hidden).numpy(),
        seq_relationship_logits=model.cls.seq_relationship(model.bert.pooler(hidden)).numpy(),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
