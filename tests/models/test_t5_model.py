"""The reference T5 against transformers', v1.0 and v1.1: both stacks, the cache, and greedy tokens.

transformers takes the mean of T5's norm in float32 whatever the model's dtype, which in a float64 model leaves an error of 1e-7. In the
float64 comparisons its norm is therefore replaced by the formula of the paper in the dtype of its input; nothing else is touched.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from parity import HALVES, OtherFloats, agree, filled, gap, loaded, names_in, padding, saved, stirred
from transformers.models.t5 import modeling_t5

from isomorph.models import t5

TINY = {
    "vocab_size": 53, "d_model": 24, "d_kv": 5, "d_ff": 40, "num_layers": 2, "num_heads": 3, "decoder_start_token_id": 0,
    "relative_attention_num_buckets": 8, "relative_attention_max_distance": 12,
}  # fmt: skip
SIZES = {
    "v1.0": TINY,
    "v1.1": TINY | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    "gated silu, uneven stacks": TINY | {"feed_forward_proj": "gated-silu", "num_decoder_layers": 3, "num_layers": 1},
    "plain gelu, other eps, one head": TINY | {"feed_forward_proj": "gelu", "layer_norm_epsilon": 1e-2, "num_heads": 1},
    "odd buckets": TINY | {"relative_attention_num_buckets": 14, "relative_attention_max_distance": 9, "d_kv": 8},
}
BOTH = ("logits", "encoder_last_hidden_state")
MASKS = {
    "no masks": (None, None),
    "right": (padding([[1] * 11, [1] * 4 + [0] * 7]), padding([[1] * 6 + [0], [1] * 7])),
    "left": (padding([[0] * 3 + [1] * 8, [1] * 11]), padding([[0] * 2 + [1] * 5, [1] * 7])),
    "encoder only": (padding([[1, 0] * 5 + [1], [1] * 11]), None),
}


@pytest.fixture
def exact_norm(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """transformers' norm in the dtype of its input."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x / (x.square().mean(-1, keepdim=True) + self.variance_epsilon).sqrt()

    monkeypatch.setattr(modeling_t5.T5LayerNorm, "forward", forward)
    yield


def reference(kind: str, sizes: dict[str, Any], *, attention: str = "sdpa", seed: int = 3, scale: float = 0.3) -> Any:
    config = transformers.T5Config(**sizes, attn_implementation=attention)
    theirs = stirred(getattr(transformers, kind)(config), seed, scale)
    if sizes.get("tie_word_embeddings") is False and kind == "T5ForConditionalGeneration":
        theirs.config.tie_word_embeddings = False
        theirs.lm_head.weight = torch.nn.Parameter(theirs.lm_head.weight.detach().flip(0).clone())
    return theirs


def ours(theirs: Any) -> Any:
    """The model that `build` makes of their config and of the names that they write."""
    dropped = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}
    if getattr(theirs, "lm_head", None) is not None and theirs.lm_head.weight is theirs.shared.weight:
        dropped.add("lm_head.weight")
    config = theirs.config.to_dict() | {"architectures": [type(theirs).__name__]}
    made = t5.build(config, set(theirs.state_dict()) - dropped)
    assert type(made).__name__ == type(theirs).__name__
    return filled(made, theirs)


def inputs(length: int = 11, decoder_length: int = 7, rows: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return {
        "input_ids": torch.randint(2, TINY["vocab_size"], (rows, length), generator=generator),
        "decoder_input_ids": torch.randint(2, TINY["vocab_size"], (rows, decoder_length), generator=generator),
    }


def compare(theirs: Any, masks: tuple[torch.Tensor | None, torch.Tensor | None]) -> None:
    mask, decoder_mask = masks
    given = inputs() | {"attention_mask": mask, "decoder_attention_mask": decoder_mask}
    got, expected = ours(theirs)(**given), theirs(**given)
    agree(got, expected, ("logits",), ... if decoder_mask is None else decoder_mask > 0)
    agree(got, expected, ("encoder_last_hidden_state",), ... if mask is None else mask > 0)


@torch.no_grad()
@pytest.mark.parametrize("masks", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_logits_are_those_of_transformers(attention: str, sizes: dict[str, Any], masks: Any) -> None:
    """Float32, its norm as it is: encoder and decoder, whatever is padded."""
    compare(reference("T5ForConditionalGeneration", sizes, attention=attention), masks)


@torch.no_grad()
@pytest.mark.usefixtures("exact_norm")
@pytest.mark.parametrize("masks", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_logits_are_those_of_transformers_in_float64(sizes: dict[str, Any], masks: Any) -> None:
    """1e-12, with transformers' norm lifted out of float32 (see the top)."""
    compare(reference("T5ForConditionalGeneration", sizes).double(), masks)


@torch.no_grad()
def test_the_norm_is_the_formula_in_float64_and_transformers_bit_for_bit_in_float32() -> None:
    """So that the float64 comparisons above rest on something."""
    torch.manual_seed(1)
    x = torch.randn(3, 5, 24) * 10
    mine, theirs = t5.T5LayerNorm(24, 1e-3), modeling_t5.T5LayerNorm(24, 1e-3)
    mine.weight.copy_(torch.randn(24))
    theirs.weight.copy_(mine.weight)
    torch.testing.assert_close(mine(x), theirs(x), rtol=0, atol=0)
    exact = x.double() / (x.double().square().mean(-1, keepdim=True) + 1e-3).sqrt() * mine.weight.double()
    torch.testing.assert_close(mine.double()(x.double()), exact, rtol=1e-15, atol=1e-15)


@pytest.mark.parametrize("bidirectional", [True, False], ids=["encoder", "decoder"])
def test_buckets_are_those_of_transformers_at_every_distance(bidirectional: bool) -> None:
    """Far beyond the greatest distance, in the sizes of Google's models and in others, where rounding decides too."""
    relative = torch.arange(-1500, 1501)
    for buckets, far in ((32, 128), (32, 256), (8, 20), (14, 9), (64, 1024), (20, 100)):
        expected = modeling_t5.T5Attention._relative_position_bucket(relative, bidirectional, buckets, far)
        got = t5.relative_buckets(relative, bidirectional=bidirectional, buckets=buckets, max_distance=far)
        assert expected.tolist() == got.tolist(), (buckets, far)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["T5Model", "T5ForConditionalGeneration", "T5EncoderModel"])
@pytest.mark.parametrize("version", ["v1.0", "v1.1"])
@pytest.mark.parametrize("fused", [False, True], ids=["separate", "fused"])
def test_names_are_those_of_the_layout_and_the_file_fills_it(
    kind: str, version: str, fused: bool, tmp_path: Path
) -> None:
    """What transformers writes has the names of our model; fused it is filled through the catalogue, and computes the same."""
    theirs = reference(kind, SIZES[version])
    folder = saved(theirs, tmp_path)
    config, written = json.loads((folder / "config.json").read_text()), names_in(folder)
    assert (kind == "T5ForConditionalGeneration" and version == "v1.1") == ("lm_head.weight" in written)
    with torch.device("meta"):
        model = t5.build(config, written, fused=fused)
    if fused:
        names = set(model.state_dict())
        assert "encoder.block.0.layer.0.SelfAttention.qkv.weight" in names
        assert kind == "T5EncoderModel" or "decoder.block.1.layer.1.EncDecAttention.q.weight" in names
    else:
        assert written == set(model.state_dict())
    loaded(model, folder, "t5/fused_qkv" if fused else "t5/hf")
    given, fields = inputs(), BOTH if kind == "T5ForConditionalGeneration" else ("last_hidden_state",)
    if kind == "T5EncoderModel":
        del given["decoder_input_ids"]
    agree(model(**given), theirs(**given), fields)


@torch.no_grad()
@pytest.mark.parametrize("fused", [False, True], ids=["separate", "fused"])
@pytest.mark.parametrize("cut", [[7], [1] * 7, [3, 1, 3], [6, 1]], ids=str)
def test_a_cache_changes_nothing(cut: list[int], fused: bool) -> None:
    """The decoder's tokens in several calls, each after what is kept of those before, one of the rows padded: the logits of one call."""
    torch.manual_seed(2)
    model = t5.T5ForConditionalGeneration(t5.Config.from_dict(TINY), fused=fused).double().eval()
    stirred(model, 4)
    mask, decoder_mask = MASKS["left"]
    given = inputs()
    whole = model(**given, attention_mask=mask, decoder_attention_mask=decoder_mask)
    memory, past, at, parts = [whole.encoder_last_hidden_state], None, 0, []
    for width in cut:
        out = model(
            attention_mask=mask,
            decoder_input_ids=given["decoder_input_ids"][:, at : at + width],
            decoder_attention_mask=decoder_mask[:, : at + width],
            encoder_outputs=memory,
            past_key_values=past,
            use_cache=True,
        )
        at, past = at + width, out.past_key_values
        parts.append(out.logits)
    assert whole.past_key_values is None and past[0].key_BHSK.shape == (2, 3, 7, 5)
    assert gap(torch.cat(parts, 1), whole.logits) < 1e-13


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("version", ["v1.0", "v1.1"])
def test_greedy_tokens_are_those_of_transformers(version: str, seed: int) -> None:
    """Rows that end at different steps and are padded after, padded input with its mask and without; until all have ended, or not."""
    theirs = reference("T5ForConditionalGeneration", SIZES[version], seed=seed, scale=0.6)
    torch.manual_seed(seed)
    ids = torch.randint(2, 53, (4, 9))
    ids[1, 6:] = 0
    mask = (ids != 0).long()

    def generated(ends: int | list[int], **more: Any) -> tuple[torch.Tensor, torch.Tensor]:
        theirs.config.eos_token_id = theirs.generation_config.eos_token_id = ends
        options = {"do_sample": False, "num_beams": 1, "max_new_tokens": 12}
        return theirs.generate(ids, **options, **more), ours(theirs).generate(ids, **more, max_new_tokens=12)

    free, mine = generated([51, 52], attention_mask=mask)
    assert free.tolist() == mine.tolist()
    end = int(free[0, 3])
    for ends in (end, [end, int(free[1, 5])]):
        for more in ({"attention_mask": mask}, {}):
            expected, got = generated(ends, **more)
            assert expected.tolist() == got.tolist()
            assert end in got[0].tolist()


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_a_row_of_padding_alone_disturbs_nobody(dtype: torch.dtype) -> None:
    """No NaN, whether the encoder's row or the decoder's is padded throughout; the rows beside it are what they are without it."""
    model = ours(reference("T5ForConditionalGeneration", TINY)).to(dtype)
    given = inputs(rows=3)
    mask, decoder_mask = padding([[1] * 11, [0] * 11, [0] * 4 + [1] * 7]), padding([[1] * 7, [0] * 7, [1] * 7])
    out = model(**given, attention_mask=mask, decoder_attention_mask=decoder_mask)
    kept = {name: value[[0, 2]] for name, value in given.items()}
    alone = model(**kept, attention_mask=mask[[0, 2]], decoder_attention_mask=decoder_mask[[0, 2]])
    for field in BOTH:
        assert bool(getattr(out, field).isfinite().all())
        torch.testing.assert_close(getattr(out, field)[[0, 2]], getattr(alone, field))


@torch.no_grad()
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("version", ["v1.0", "v1.1"])
def test_half_precision_is_half_but_for_two_sums(
    version: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Float32 is seen in two places that say why: the mean of the norm, inside torch's rms_norm, and the bucket's number."""
    model = ours(reference("T5ForConditionalGeneration", SIZES[version], scale=0.15))
    mask, decoder_mask = MASKS["left"]
    given = inputs() | {"attention_mask": mask, "decoder_attention_mask": decoder_mask}
    exact = model(**given)
    model.to(dtype)
    others = OtherFloats(dtype)

    def aside(function: Any) -> Any:
        def called(*args: Any, **kwargs: Any) -> Any:
            before = len(others.found)
            out = function(*args, **kwargs)
            del others.found[before:]
            assert not out.is_floating_point() or out.dtype == dtype
            return out

        return called

    monkeypatch.setattr(t5.functional, "rms_norm", aside(t5.functional.rms_norm))
    monkeypatch.setattr(t5, "relative_buckets", aside(t5.relative_buckets))
    with others:
        out = model(**given, use_cache=True)
    assert [] == others.found
    assert out.logits.dtype == dtype and {dtype} == {one.dtype for layer in out.past_key_values for one in layer}
    real = decoder_mask > 0
    assert gap(out.logits.float()[real], exact.logits[real]) < (0.01 if dtype == torch.float16 else 0.1)


@torch.no_grad()
def test_a_residual_that_leaves_float16_comes_back_to_its_end() -> None:
    """Weights that overflow: the hidden states stay finite, as transformers' clamp has it."""
    model = ours(reference("T5ForConditionalGeneration", TINY)).half()
    model.encoder.block[0].layer[1].DenseReluDense.wo.weight.mul_(30000)
    out = model(**inputs())
    assert bool(out.encoder_last_hidden_state.isfinite().all()) and bool(out.logits.isfinite().all())


@torch.no_grad()
@pytest.mark.parametrize("version", ["v1.0", "v1.1"])
def test_every_module_is_called_under_its_name(version: str) -> None:
    """So that a hook on any of them sees what goes through, but for the lists that only hold blocks and layers."""
    model = ours(reference("T5ForConditionalGeneration", SIZES[version]))
    called: set[str] = set()
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *_, name=name: called.add(name))
    model(**inputs())
    left = {name for name, _ in model.named_modules()} - called
    assert {"block", "layer"} == {name.rpartition(".")[2] for name in left}


def test_a_config_is_read_as_transformers_reads_it(tmp_path: Path) -> None:
    """Old and new spellings of the gate, the head's scale and the ends; mT5, which never scales."""
    for given in (
        {}, {"feed_forward_proj": "gated-gelu"}, {"feed_forward_proj": "gated-silu"}, {"tie_word_embeddings": False},
        {"tie_word_embeddings": True}, {"num_decoder_layers": 5}, {"eos_token_id": [3, 4]}, {"hidden_size": 32},
    ):  # fmt: skip
        theirs = transformers.T5Config(**given)
        theirs.save_pretrained(tmp_path)
        for config in (given, json.loads((tmp_path / "config.json").read_text())):
            mine = t5.Config.from_dict(config)
            for name in ("dense_act_fn", "is_gated_act", "scale_decoder_outputs", "num_decoder_layers", "d_model"):
                assert getattr(theirs, name) == getattr(mine, name), (given, name)
            ends = theirs.eos_token_id
            assert tuple(ends if isinstance(ends, list) else [ends]) == mine.eos_token_id
    mt5 = t5.Config.from_dict({"model_type": "mt5", "tie_word_embeddings": True})
    assert (False, True, "gelu_new") == (mt5.scale_decoder_outputs, mt5.is_gated_act, mt5.dense_act_fn)


@pytest.mark.parametrize("kind", ["T5Model", "T5ForConditionalGeneration", "T5EncoderModel"])
def test_a_config_alone_says_which_model(kind: str) -> None:
    """With the tensors of transformers' class, each once; without `architectures` it is the whole with its head."""
    theirs = reference(kind, TINY)
    model = t5.from_config(theirs.config.to_dict() | {"architectures": [kind]})
    expected = {name: value.shape for name, value in theirs.named_parameters()}
    assert expected == {name: value.shape for name, value in model.state_dict().items()}
    assert type(t5.from_config(TINY, fused=True)) is t5.T5ForConditionalGeneration


@torch.no_grad()
def test_mt5_is_the_same_model(tmp_path: Path) -> None:
    """transformers' MT5ForConditionalGeneration, from its file."""
    config = transformers.MT5Config(**TINY)
    theirs = stirred(transformers.MT5ForConditionalGeneration(config), 3)
    folder = saved(theirs, tmp_path)
    model = t5.build(json.loads((folder / "config.json").read_text()), names_in(folder))
    agree(loaded(model, folder, "t5/hf")(**inputs()), theirs(**inputs()), BOTH)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_layers": -1}, "num_layers is -1: it must be a whole number that is not negative"),
        ({"eos_token_id": "x"}, r"eos_token_id is \('x',\): give a token's number, or several"),
        ({"relative_attention_max_distance": 4}, "num_buckets is 8 and relative_attention_max_distance 4: there must be 4 buckets"),
        ({"feed_forward_proj": "xielu"}, "feed_forward_proj is 'xielu', which is not implemented: known are gelu, "),
        ({"feed_forward_proj": "maxout-relu"}, "feed_forward_proj = 'maxout-relu' is neither an activation nor gated-ACTIVATION"),
    ],
    ids=str,
)  # fmt: skip
def test_a_config_that_this_t5_is_not_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        t5.Config.from_dict(TINY | given)


def test_what_no_model_takes_is_refused() -> None:
    """A head without a reference model; a decoder without tokens, or without anything to attend to."""
    with pytest.raises(
        ValueError, match="a T5 with classifier has no reference model; there are T5EncoderModel, T5Model and "
    ):
        t5.build(TINY, ["shared.weight", "classifier.weight"])
    model = t5.T5Model(t5.Config.from_dict(TINY))
    for missing in ("input_ids", "decoder_input_ids"):
        with pytest.raises(
            ValueError, match="give decoder_input_ids, and input_ids or the encoder_outputs that they lead to"
        ):
            model(**{name: value for name, value in inputs().items() if name != missing})
