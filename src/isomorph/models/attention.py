"""What every family shares: multi-head attention with q, k and v separate or fused, and its mask.

Letters in names are axes: B batch, T queries, S keys, C width, H heads, D width of a head. One head, over the keys it may see:

    out_TD = softmax(q_TD @ k_SD.T * scale + bias_TS) @ v_SD

    source: Vaswani et al. 2017, arxiv.org/abs/1706.03762, section 3.2
    source: torch.nn.functional.scaled_dot_product_attention (a row that allows no key gives zeros, since torch 2.5)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Names:
    """What a family calls the projections. `out` is None where the projection after the heads is a module of the caller."""

    query: str
    key: str
    value: str
    fused: str
    out: str | None = None


class Attention(nn.Module):
    """Multi-head attention of x_BTC over itself, or over memory_BSC.

    The Linears are submodules under the family's own names. With `fused` one Linear makes q, k and v: the rows of q first, then
    those of k and v; it reads one input, so attention over a memory needs them separate. `scale` is head_dim**-0.5 where None.
    There is no dropout: these models are for inference and for comparison.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        names: Names,
        *,
        head_dim: int | None = None,
        bias: bool = True,
        out_bias: bool = True,
        scale: float | None = None,
        fused: bool = False,
    ) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, head_dim if head_dim is not None else width // heads
        self.names, self.fused = names, fused
        self.scale = self.head_dim**-0.5 if scale is None else scale
        inner = self.heads * self.head_dim
        if fused:
            self.add_module(names.fused, nn.Linear(width, 3 * inner, bias=bias))
        else:
            for name in (names.query, names.key, names.value):
                self.add_module(name, nn.Linear(width, inner, bias=bias))
        if names.out is not None:
            self.add_module(names.out, nn.Linear(inner, width, bias=out_bias))

    def forward(
        self,
        x_BTC: Tensor,
        mask: Tensor | None = None,
        *,
        memory_BSC: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """out_BTC; before the projection `out` where the caller has it.

        `mask` broadcasts to BHTS: boolean, True where a query may see a key, or added to the scores, in the dtype of x.
        `is_causal` is for the case without a mask, and T = S.
        """
        if memory_BSC is None:
            q_BHTD, k_BHSD, v_BHSD = self.queries_keys_values(x_BTC)
        else:
            q_BHTD, (k_BHSD, v_BHSD) = self.queries(x_BTC), self.keys_values(memory_BSC)
        return self.attend(q_BHTD, k_BHSD, v_BHSD, mask, is_causal=is_causal)

    def queries_keys_values(self, x_BTC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v of the same input, each BHTD."""
        if not self.fused:
            return (self.queries(x_BTC), *self.keys_values(x_BTC))
        q_BTC, k_BTC, v_BTC = self.projection(self.names.fused)(x_BTC).chunk(3, dim=-1)
        return self.split(q_BTC), self.split(k_BTC), self.split(v_BTC)

    def queries(self, x_BTC: Tensor) -> Tensor:
        """q_BHTD, where the projections are separate."""
        return self.split(self.projection(self.names.query)(x_BTC))

    def keys_values(self, memory_BSC: Tensor) -> tuple[Tensor, Tensor]:
        """k_BHSD and v_BHSD, where the projections are separate: what a cache keeps."""
        key, value = self.projection(self.names.key), self.projection(self.names.value)
        return self.split(key(memory_BSC)), self.split(value(memory_BSC))

    def attend(
        self, q_BHTD: Tensor, k_BHSD: Tensor, v_BHSD: Tensor, mask: Tensor | None = None, *, is_causal: bool = False
    ) -> Tensor:
        """The weighted values of all heads side by side, projected by `out` where there is one."""
        heads_BHTD = F.scaled_dot_product_attention(
            q_BHTD, k_BHSD, v_BHSD, attn_mask=mask, is_causal=is_causal, scale=self.scale
        )
        out_BTC = heads_BHTD.transpose(1, 2).flatten(2)
        return out_BTC if self.names.out is None else self.projection(self.names.out)(out_BTC)

    def split(self, x_BTC: Tensor) -> Tensor:
        """x_BHTD: head h has the columns [h D, (h + 1) D)."""
        batch, length, _ = x_BTC.shape
        return x_BTC.view(batch, length, self.heads, self.head_dim).transpose(1, 2)

    def projection(self, name: str) -> nn.Module:
        """The Linear of that name."""
        module: nn.Module = getattr(self, name)
        return module


def allowed_keys(
    padding_mask: Tensor | None, queries: int, keys: int, *, causal: bool, device: torch.device
) -> Tensor | None:
    """Which keys each query may see, boolean, broadcasting to BHTS; None where nothing is masked or `is_causal` says it all.

    `padding_mask` is BS, true (or not 0) for keys that are there. A causal query sees the keys up to its own place; the last query
    is at the last key, so that queries may follow a cache. A boolean mask has no dtype to disagree with half precision's.
    `padding_mask` may also be BHTS, which is taken as it is: boolean, or added to the scores. Raises ValueError for other shapes.
    """
    if padding_mask is not None and padding_mask.dim() == 4:
        return padding_mask
    if padding_mask is not None and (padding_mask.dim() != 2 or padding_mask.shape[-1] != keys):
        raise ValueError(
            f"attention_mask is {list(padding_mask.shape)}: give [batch, {keys}], or [batch, heads, {queries}, {keys}]"
        )
    mask = None if padding_mask is None else padding_mask.to(device=device, dtype=torch.bool)[:, None, None, :]
    if mask is not None and bool(mask.all()):
        mask = None
    if not causal or queries == 1 or (mask is None and queries == keys):
        return mask
    seen_TS = torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)
    return seen_TS if mask is None else mask & seen_TS


def masked_bias(bias_BHTS: Tensor, mask: Tensor | None) -> Tensor:
    """A bias of the scores and a mask as one tensor to add, in the bias's dtype: -inf where a key is not seen."""
    if mask is None:
        return bias_BHTS
    if mask.dtype != torch.bool:
        return bias_BHTS + mask.to(bias_BHTS.dtype)
    return bias_BHTS.masked_fill(~mask, float("-inf"))
