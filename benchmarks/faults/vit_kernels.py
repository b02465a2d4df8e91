"""ViT as Google's JAX release is built: kernels [D h d] with heads as an axis of their own, einsums, [in out] matrices."""

from __future__ import annotations

from typing import Any

import torch
from benchmarks.faults.hook import SOUND, Faults
from benchmarks.faults.parts import ACTIVATIONS, Dense, Norm, attend, fresh, residual
from torch import Tensor, nn

EPS = 1e-6


class Kernel(nn.Module):
    """A projection into heads, [D h d], or out of them, [h d D]."""

    def __init__(self, shape: tuple[int, int, int], bias: tuple[int, ...], equation: str, faults: Faults) -> None:
        super().__init__()
        self.faults, self.equation = faults, equation
        self.kernel, self.bias = fresh(*shape), nn.Parameter(torch.zeros(*bias))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.einsum(self.equation, x, self.kernel)
        how = self.faults("bias", "used")
        return {"used": y + self.bias, "ignored": y, "doubled": y + self.bias + self.bias}[how]


class HeadsApart(nn.Module):
    """Attention whose heads are an axis of their own everywhere."""

    def __init__(self, width: int, heads: int, faults: Faults) -> None:
        super().__init__()
        self.faults, shape = faults, (width, heads, width // heads)
        self.query, self.key, self.value = (
            Kernel(shape, shape[1:], "btm,mhd->bthd", faults.below(name)) for name in ("query", "key", "value")
        )
        self.out = Kernel((heads, width // heads, width), (width,), "bthd,hdm->btm", faults.below("out"))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.query(x), self.key(x), self.value(x)
        return self.out(attend(q, k, v, self.faults).unflatten(-1, q.shape[2:]))


class Mlp(nn.Module):
    def __init__(self, width: int, inner: int, faults: Faults) -> None:
        super().__init__()
        self.faults = faults
        self.Dense_0 = Dense(width, inner, faults.below("Dense_0"), kernel=True)
        self.Dense_1 = Dense(inner, width, faults.below("Dense_1"), kernel=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.Dense_1(ACTIVATIONS[self.faults("activation", "erf")](self.Dense_0(x)))


class Block(nn.Module):
    def __init__(self, config: Any, faults: Faults) -> None:
        super().__init__()
        width, self.faults = config.hidden_size, faults
        self.LayerNorm_0 = Norm(width, EPS, faults.below("LayerNorm_0"), weight="scale")
        self.attention = HeadsApart(width, config.num_attention_heads, faults.below("attention"))
        self.LayerNorm_2 = Norm(width, EPS, faults.below("LayerNorm_2"), weight="scale")
        self.MlpBlock_3 = Mlp(width, config.intermediate_size, faults.below("MlpBlock_3"))

    def forward(self, x: Tensor) -> Tensor:
        x = residual(x, self.attention(self.LayerNorm_0(x)), self.faults, "attention-residual")
        return residual(x, self.MlpBlock_3(self.LayerNorm_2(x)), self.faults, "mlp-residual")


class Vit(nn.Module):
    """Google's, every patch [y x c] a product with one kernel."""

    def __init__(self, config: Any, faults: Faults = SOUND) -> None:
        super().__init__()
        self.faults, width, self.patch = faults, config.hidden_size, config.patch_size
        count = (config.image_size // self.patch) ** 2
        self.cls, self.pos_embedding = fresh(1, 1, width), fresh(1, count + 1, width)
        self.embedding = Patches(self.patch, width, faults.below("embedding"))
        self.encoderblocks = nn.ModuleList(
            [Block(config, faults.below(f"encoderblocks.{layer}")) for layer in range(config.num_hidden_layers)]
        )
        self.encoder_norm = Norm(width, EPS, faults.below("encoder_norm"), weight="scale")
        self.head = Dense(width, config.num_labels, faults.below("head"), kernel=True)

    def forward(self, images: Tensor) -> Tensor:
        x = torch.cat((self.cls.expand(images.shape[0], -1, -1), self.embedding(images)), 1) + self.pos_embedding
        for layer in self.faults("order", range(len(self.encoderblocks))):
            x = self.encoderblocks[layer](x)
        return self.head(self.encoder_norm(x[:, 0]))


class Patches(nn.Module):
    """Squares of the image, [y x c], times a kernel [y x c o]."""

    def __init__(self, patch: int, width: int, faults: Faults) -> None:
        super().__init__()
        self.faults, self.patch = faults, patch
        self.kernel, self.bias = fresh(patch, patch, 3, width), nn.Parameter(torch.zeros(width))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        batch, channels, height, width = x_BCHW.shape
        rows, columns = height // self.patch, width // self.patch
        squares = x_BCHW.reshape(batch, channels, rows, self.patch, columns, self.patch)
        made = torch.einsum("bcryqx,yxco->brqo", squares, self.kernel) + self.bias
        return (made if self.faults("patches", "rows") == "rows" else made.transpose(1, 2)).flatten(1, 2)


def lines(config: Any) -> dict[str, str]:
    """The morph from vit/hf to the kernels, a line a tensor."""
    heads = config.num_attention_heads
    found = {
        "cls": "vit.embeddings.cls_token <-> cls",
        "pos_embedding": "vit.embeddings.position_embeddings <-> pos_embedding",
        "embedding.kernel": "vit.embeddings.patch_embeddings.projection.weight [o c y x] <-> embedding.kernel [y x c o]",
        "embedding.bias": "vit.embeddings.patch_embeddings.projection.bias <-> embedding.bias",
        "encoder_norm": "vit.layernorm.{t=weight|bias} <-> encoder_norm.{t=scale|bias}",
        "head.kernel": "classifier.weight [o i] <-> head.kernel [i o]",
        "head.bias": "classifier.bias <-> head.bias",
    }
    for layer in range(config.num_hidden_layers):
        ours, theirs = f"encoderblocks.{layer}", f"vit.encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            at, other = f"{ours}.attention.{part}", f"{theirs}.attention.attention.{part}"
            found[f"{at}.kernel"] = f"{other}.weight [(h d) i] <-> {at}.kernel [i h d] where h={heads}"
            found[f"{at}.bias"] = f"{other}.bias [(h d)] <-> {at}.bias [h d] where h={heads}"
        out, other = f"{ours}.attention.out", f"{theirs}.attention.output.dense"
        found[f"{out}.kernel"] = f"{other}.weight [o (h d)] <-> {out}.kernel [h d o] where h={heads}"
        found[f"{out}.bias"] = f"{other}.bias <-> {out}.bias"
        for number, other in ((0, "intermediate"), (1, "output")):
            at = f"{ours}.MlpBlock_3.Dense_{number}"
            found[f"{at}.kernel"] = f"{theirs}.{other}.dense.weight [o i] <-> {at}.kernel [i o]"
            found[f"{at}.bias"] = f"{theirs}.{other}.dense.bias <-> {at}.bias"
        for number, other in ((0, "before"), (2, "after")):
            at = f"{ours}.LayerNorm_{number}"
            found[at] = f"{theirs}.layernorm_{other}.{{t=weight|bias}} <-> {at}.{{t=scale|bias}}"
    return found
