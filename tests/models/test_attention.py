"""The attention that all families share, against the formula written out in float64."""

from __future__ import annotations

import pytest
import torch

from isomorph.models.activations import ACTIVATIONS, activation
from isomorph.models.attention import Attention, Names, allowed_keys, masked_bias

NAMES = Names("q", "k", "v", "qkv", "o")


def attention(seed: int = 0, **options: object) -> Attention:
    torch.manual_seed(seed)
    return Attention(12, 3, NAMES, **options).double().eval()  # type: ignore[arg-type]


def written_out(module: Attention, x: torch.Tensor, memory: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """One batch row and one head after the other."""
    q, k, v = module.q(x), module.k(memory), module.v(memory)
    rows = []
    for row in range(len(x)):
        heads = []
        for head in range(module.heads):
            at = slice(head * module.head_dim, (head + 1) * module.head_dim)
            scores = q[row, :, at] @ k[row, :, at].T * module.scale + bias[row, head]
            heads.append(scores.softmax(-1) @ v[row, :, at])
        rows.append(torch.cat(heads, -1))
    return module.o(torch.stack(rows))


@pytest.mark.parametrize(
    "options", [{}, {"head_dim": 5, "bias": False, "out_bias": False, "scale": 1.0}], ids=["plain", "t5"]
)
def test_attention_over_a_memory_with_a_bias_is_the_formula(options: dict[str, object]) -> None:
    """Whatever the head's width and the scale; the bias is added to the scores."""
    module = attention(**options)
    x, memory, bias = (torch.randn(*shape, dtype=torch.float64) for shape in ((2, 4, 12), (2, 6, 12), (2, 3, 4, 6)))
    torch.testing.assert_close(
        module(x, bias, memory_BSC=memory), written_out(module, x, memory, bias), rtol=0, atol=1e-14
    )


def test_fused_is_the_three_matrices_one_below_the_other() -> None:
    """The rows of q, then of k, then of v; the same numbers come out."""
    apart, fused = attention(), attention(fused=True)
    for part in ("weight", "bias"):
        getattr(fused.qkv, part).data = torch.cat([getattr(getattr(apart, name), part) for name in "qkv"]).detach()
    fused.o.load_state_dict(apart.o.state_dict())
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    torch.testing.assert_close(fused(x), apart(x), rtol=0, atol=1e-14)
    assert ["qkv.weight", "qkv.bias", "o.weight", "o.bias"] == list(fused.state_dict())


def test_queries_after_a_cache_see_what_they_saw_without_it() -> None:
    """The last two of five causal queries, their keys and values cached before: the same rows."""
    module = attention()
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    q, k, v = module.queries_keys_values(x)
    mask = allowed_keys(None, 2, 5, causal=True, device=x.device)
    torch.testing.assert_close(
        module.attend(q[:, :, 3:], k, v, mask), module(x, is_causal=True)[:, 3:], rtol=0, atol=1e-14
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("biased", [False, True], ids=["boolean", "additive"])
def test_a_row_that_may_see_nothing_gives_no_nan_and_disturbs_no_other(dtype: torch.dtype, biased: bool) -> None:
    """It gets zeros from the heads; the rows beside it are what they are alone."""
    module = attention().to(dtype)
    x = torch.randn(2, 4, 12).to(dtype)
    padding = torch.tensor([[0, 0, 0, 0], [1, 1, 0, 1]])
    mask = allowed_keys(padding, 4, 4, causal=True, device=x.device)
    if biased:
        mask = masked_bias(torch.zeros(1, 3, 4, 4, dtype=dtype), mask)
        assert mask.dtype == dtype
    out = module(x, mask)
    assert out.dtype == dtype and bool(out.isfinite().all())
    torch.testing.assert_close(out[0], module.o.bias.expand(4, 12), rtol=0, atol=0)
    alone = module(x[1:], None if mask is None else mask[1:])
    torch.testing.assert_close(out[1:], alone)


def test_what_is_allowed_is_told_by_padding_and_place() -> None:
    """A mask of ones masks nothing; a causal one without padding is left to the kernel; other shapes are refused."""
    device, ones = torch.device("cpu"), torch.ones(1, 3, dtype=torch.int64)
    assert allowed_keys(ones, 3, 3, causal=False, device=device) is None
    assert allowed_keys(ones, 3, 3, causal=True, device=device) is None
    padded = allowed_keys(torch.tensor([[0, 1, 1]]), 3, 3, causal=True, device=device)
    assert padded is not None and [[[[0, 0, 0], [0, 1, 0], [0, 1, 1]]]] == padded.int().tolist()
    with pytest.raises(ValueError, match=r"attention_mask is \[1, 2\]: give \[batch, 3\], or \[batch, heads, 3, 3\]"):
        allowed_keys(torch.ones(1, 2), 3, 3, causal=False, device=device)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_those_of_transformers(name: str) -> None:
    """The same values in float64, and the dtype stays."""
    from transformers.activations import ACT2FN

    x = torch.linspace(-6, 6, 101, dtype=torch.float64)
    torch.testing.assert_close(activation(name)(x), ACT2FN[name](x), rtol=1e-14, atol=1e-15)
    assert activation(name)(x.half()).dtype == torch.float16


def test_an_unknown_activation_is_named() -> None:
    with pytest.raises(ValueError, match="feed_forward_proj is 'xielu', which is not implemented: known are gelu, "):
        activation("xielu", "feed_forward_proj")
