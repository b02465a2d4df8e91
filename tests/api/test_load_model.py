"""load_model: a checkpoint into a live module. Proved first, then filled one tensor at a time; what was tied, held or chosen stays."""

from __future__ import annotations

import tracemalloc
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertForMaskedLM, CLIPConfig, CLIPModel, ViTConfig, ViTModel

import isomorph as iso
from isomorph.errors import CheckError, MorphError, UsageError

with warnings.catch_warnings(action="ignore"):  # it looks for compilers when it is imported
    import paddle

CLIP = CLIPConfig(
    text_config={"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 11,
                 "max_position_embeddings": 5},
    vision_config={"hidden_size": 6, "intermediate_size": 10, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 8,
                   "patch_size": 4},
    projection_dim=7,
)  # fmt: skip
BERT = BertConfig(vocab_size=13, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12,
                  max_position_embeddings=6)  # fmt: skip


def small() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))


def saved(model: torch.nn.Module, path: Path, **renamed: str) -> Path:
    """The state dict of a model as safetensors, every tensor on its own."""
    save_file({renamed.get(name, name): value.clone().contiguous() for name, value in model.state_dict().items()}, path)
    return path


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    left, right = one.state_dict(), other.state_dict()
    return list(left) == list(right) and all(torch.equal(left[name], right[name]) for name in left)


def message(model: object, *given: object, **options: object) -> str:
    with pytest.raises((MorphError, UsageError)) as caught:
        iso.torch.load_model(model, *given, **options)
    return str(caught.value)


# ── real models ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_clip_is_filled_in_place_through_a_morph(tmp_path: Path) -> None:
    """Every parameter is the object it was, with the values of the file."""
    source, model = CLIPModel(CLIP), CLIPModel(CLIP)
    path = tmp_path / "clip.safetensors"
    save_file({f"net/{name}": value.clone().contiguous() for name, value in source.state_dict().items()}, path)
    before = {name: id(value) for name, value in model.named_parameters()}
    loaded = iso.torch.load_model(model, path, iso.morph(text="net/{x*} <-> {x*}\n"))
    assert tuple(loaded) == ([], []) and repr(loaded) == "<All keys matched successfully>"
    assert same(model, source) and before == {name: id(value) for name, value in model.named_parameters()}


def test_a_tied_bert_on_meta_is_made_on_the_device_and_stays_tied(tmp_path: Path) -> None:
    """One name of a tie is enough; both are one parameter afterwards."""
    source = BertForMaskedLM(BERT)
    state = {name: value.clone().contiguous() for name, value in source.state_dict().items()}
    del state["cls.predictions.decoder.weight"], state["cls.predictions.decoder.bias"]
    save_file(state, tmp_path / "bert.safetensors")
    with torch.device("meta"):
        model = BertForMaskedLM(BERT)
    with pytest.warns(UserWarning, match="are still on the meta device.*position_ids"):
        loaded = iso.torch.load_model(model, tmp_path / "bert.safetensors")
    assert tuple(loaded) == ([], [])
    assert loaded.still_empty == tuple(name for name, held in model.named_buffers() if held.is_meta)
    assert "bert.embeddings.position_ids" in loaded.still_empty
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight
    assert model.cls.predictions.decoder.bias is model.cls.predictions.bias
    assert same(model, source) and not any(parameter.is_meta for parameter in model.parameters())


def test_the_catalogue_finds_the_way_into_a_model(tmp_path: Path) -> None:
    """`to=` names the model's layout; the source's is recognised, or told by `from_`."""
    source, model = BertForMaskedLM(BERT), BertForMaskedLM(BERT)
    source.save_pretrained(tmp_path / "saved")
    loaded = iso.torch.load_model(model, tmp_path / "saved", to="bert/hf", strict=False)
    assert loaded.unexpected_keys == [] and same(model, source)


def test_openai_weights_go_into_a_clip_on_meta(tmp_path: Path) -> None:
    """Fused q, k, v taken apart, transposed projections turned; and facts that weights do not carry are told."""
    config = CLIPConfig(
        text_config={
            **CLIP.text_config.to_dict(),
            "hidden_size": 64,
            "intermediate_size": 256,
            "num_attention_heads": 1,
        },
        vision_config={
            **CLIP.vision_config.to_dict(),
            "hidden_size": 128,
            "intermediate_size": 512,
            "num_attention_heads": 2,
        },
        projection_dim=7,
    )
    source = CLIPModel(config)
    iso.convert(source.state_dict(), tmp_path / "clip.safetensors", to="clip/openai")
    with torch.device("meta"):
        model = CLIPModel(config)
    with pytest.warns(UserWarning, match="buffers of CLIPModel are still on the meta device"):
        loaded = iso.torch.load_model(model, tmp_path / "clip.safetensors", to="clip/hf")
    assert tuple(loaded) == ([], []) and same(model, source) and isinstance(loaded.notes, tuple)


def test_a_model_for_another_image_size_gets_resized_position_embeddings(tmp_path: Path) -> None:
    """The morph says how; the new size is the model's own config's."""
    small_vit = {
        "hidden_size": 6,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 8,
        "patch_size": 4,
    }
    source = ViTModel(ViTConfig(image_size=20, **small_vit), add_pooling_layer=False)
    model = ViTModel(ViTConfig(image_size=32, **small_vit), add_pooling_layer=False)
    torch.nn.init.normal_(source.embeddings.position_embeddings)
    path = saved(source, tmp_path / "vit.safetensors")
    name = "embeddings.position_embeddings"
    assert "size mismatch" in message(model, path)
    text = (
        f"{name} [1 (1 + n) d] -> {name} [1 (1 + m) d] | resize n -> m transformers where m=g*g, g=config.image_size//config.patch_size\n"
        "** <-> **\n"
    )
    assert tuple(iso.torch.load_model(model, path, iso.morph(text=text))) == ([], [])
    pixels = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        meant = source(pixels, interpolate_pos_encoding=True).last_hidden_state
        assert torch.allclose(model.eval()(pixels).last_hidden_state, meant, atol=1e-5)


def test_an_optimizer_goes_on_with_the_parameters_it_holds(tmp_path: Path) -> None:
    """A step after loading moves the loaded values."""
    source, model = small(), small()
    path = saved(source, tmp_path / "a.safetensors")
    model[0].weight.requires_grad = False
    optimizer = torch.optim.SGD([each for each in model.parameters() if each.requires_grad], lr=0.5)
    iso.torch.load_model(model, path)
    assert not model[0].weight.requires_grad and model[2].weight.requires_grad
    model.train()
    model(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    assert torch.equal(model[0].weight, source[0].weight)
    assert torch.allclose(model[2].bias, source[2].bias - 0.5 * 5) and not torch.equal(model[2].bias, source[2].bias)


# ── what is proved before ────────────────────────────────────────────────────────────────────────────────────────────


def test_what_does_not_fit_is_said_before_anything_is_read(tmp_path: Path) -> None:
    """Missing, unexpected, another shape: in one error, and the model is as it was."""
    model = small()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = {name: value.clone() for name, value in small().state_dict().items()}
    state["extra"] = state.pop("2.bias")
    state["0.weight"] = state["0.weight"].T.contiguous()
    save_file(state, tmp_path / "a.safetensors")
    said = message(model, tmp_path / "a.safetensors")
    assert "Missing key(s) in the result, which Sequential has: 1" in said and "`2.bias` [2] f32" in said
    assert "Unexpected key(s) in the result, which Sequential lacks: 1" in said and "`extra` [2] f32" in said
    assert "`0.weight`: the result has [3 4], Sequential has [4 3] (transposed?)" in said
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_without_strict_keys_are_returned(tmp_path: Path) -> None:
    """As torch does; shapes must agree all the same."""
    source, model = small(), small()
    state = {name: value.clone() for name, value in source.state_dict().items()}
    state["extra"] = state.pop("2.bias")
    save_file(state, tmp_path / "a.safetensors")
    missing, unexpected = iso.torch.load_model(model, tmp_path / "a.safetensors", strict=False)
    assert (missing, unexpected) == (["2.bias"], ["extra"])
    assert torch.equal(model[0].weight, source[0].weight)
    state["0.weight"] = torch.zeros(5, 3)
    save_file(state, tmp_path / "b.safetensors")
    assert "size mismatch" in message(model, tmp_path / "b.safetensors", strict=False)


def test_a_parameter_that_would_stay_empty_is_an_error_even_without_strict(tmp_path: Path) -> None:
    """A model with a parameter that has no values is no model."""
    state = {name: value.clone() for name, value in small().state_dict().items() if name != "2.bias"}
    save_file(state, tmp_path / "a.safetensors")
    with torch.device("meta"):
        model = small()
    said = message(model, tmp_path / "a.safetensors", strict=False)
    assert "parameters of Sequential would stay empty" in said and "`2.bias` [2] f32" in said
    assert all(parameter.is_meta for parameter in model.parameters())


def test_values_that_break_a_tie_of_the_model_are_an_error(tmp_path: Path) -> None:
    """Two names of one parameter, two values in the file."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 3, bias=False), torch.nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    save_file({"0.weight": torch.ones(3, 3), "1.weight": torch.ones(3, 3)}, tmp_path / "a.safetensors")
    iso.torch.load_model(model, tmp_path / "a.safetensors")
    assert model[0].weight is model[1].weight and torch.equal(model[0].weight, torch.ones(3, 3))
    save_file({"0.weight": torch.ones(3, 3), "1.weight": torch.zeros(3, 3)}, tmp_path / "b.safetensors")
    with pytest.raises(CheckError, match=r"`0\.weight` and `1\.weight` are one tensor in Sequential"):
        iso.torch.load_model(model, tmp_path / "b.safetensors")


def test_a_state_dict_made_by_a_hook_is_refused(tmp_path: Path) -> None:
    """What it names is not there to be filled."""
    model = small()
    model._register_state_dict_hook(lambda module, state, prefix, _: state.update({"made": torch.zeros(1)}))
    assert "is made by a hook: `made` is no parameter" in message(model, saved(small(), tmp_path / "a.safetensors"))


def test_a_lazy_module_is_refused() -> None:
    """It has no shapes to hold the checkpoint against."""
    with warnings.catch_warnings(action="ignore"):
        model = torch.nn.LazyLinear(3)
    assert "`weight` of LazyLinear has no shape yet" in message(model, {"weight": np.zeros((3, 2), "f4")})


def test_arrays_in_memory_are_a_checkpoint_too() -> None:
    """A mapping of names to arrays, as everywhere a checkpoint is taken."""
    model = torch.nn.Linear(2, 3)
    arrays = {"weight": np.arange(6, dtype=np.float32).reshape(3, 2), "bias": np.ones(3, np.float32)}
    iso.torch.load_model(model, arrays)
    assert torch.equal(model.weight, torch.arange(6.0).reshape(3, 2)) and torch.equal(model.bias, torch.ones(3))


# ── dtypes, devices, buffers ─────────────────────────────────────────────────────────────────────────────────────────


def test_the_dtype_of_a_parameter_is_kept_unless_one_is_given(tmp_path: Path) -> None:
    """Values are rounded once; the parameter stays the object it was."""
    source, model = small(), small().to(torch.bfloat16)
    path = saved(source, tmp_path / "a.safetensors")
    kept = model[0].weight
    loaded = iso.torch.load_model(model, path)
    assert model[0].weight is kept and torch.equal(kept, source[0].weight.to(torch.bfloat16))
    assert str(loaded.cast["0.weight"][0]) == "f32" and str(loaded.cast["0.weight"][1]) == "bf16"
    assert model[1].num_batches_tracked.dtype == torch.int64
    iso.torch.load_model(model, path, dtype=torch.float64)
    assert model[0].weight is kept and kept.dtype == torch.float64 and torch.equal(kept, source[0].weight.double())
    assert model[1].running_mean.dtype == torch.float64 and model[1].num_batches_tracked.dtype == torch.int64
    assert "give a floating dtype" in message(model, path, dtype=torch.int8)


def test_a_number_too_large_for_the_parameter_is_named(tmp_path: Path) -> None:
    """Rounding is no licence to make infinities."""
    state = {name: value.clone() for name, value in small().state_dict().items()}
    state["0.weight"][2, 1] = 1e6
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(CheckError, match=r"`0\.weight`\[2, 1\]: .* overflows f16"):
        iso.torch.load_model(small().half(), tmp_path / "a.safetensors")


def test_meta_parameters_are_made_on_the_device_that_is_given(tmp_path: Path) -> None:
    """With their attributes and requires_grad; inside `torch.device("meta")` on the CPU."""
    source = small()
    path = saved(source, tmp_path / "a.safetensors")
    with torch.device("meta"):
        model = small()
        model[0].weight.requires_grad = False
        model[0].weight.note = "kept"
        iso.torch.load_model(model, path, device="cpu", dtype="bf16")
    assert {value.device.type for value in model.state_dict().values()} == {"cpu"}
    assert not model[0].weight.requires_grad and model[0].weight.note == "kept"
    assert isinstance(model[0].weight, torch.nn.Parameter)
    assert torch.equal(model[2].weight, source[2].weight.to(torch.bfloat16))
    assert torch.equal(model[1].running_var, source[1].running_var.to(torch.bfloat16))


def test_buffers_that_are_not_persistent_are_not_touched(tmp_path: Path) -> None:
    """They are no part of a checkpoint."""
    model = small()
    model.register_buffer("cache", torch.arange(3.0), persistent=False)
    with warnings.catch_warnings(action="error"):
        iso.torch.load_model(model, saved(small(), tmp_path / "a.safetensors"))
    assert torch.equal(model.cache, torch.arange(3.0))


# ── streaming ────────────────────────────────────────────────────────────────────────────────────────────────────────

COUNT, WIDTH = 24, 512


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 matrices of 1 MiB."""
    path = tmp_path_factory.mktemp("wide") / "wide.safetensors"
    save_file({f"l.{number}.weight": torch.full((WIDTH, WIDTH), float(number)) for number in range(COUNT)}, path)
    return path


def most_at_once(work: Iterator[object]) -> int:
    tracemalloc.start()
    try:
        for _ in work:
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("library", ["numpy", "torch", "paddle"])
def test_items_come_one_at_a_time(wide: Path, library: str) -> None:
    """An engine's `load_weights(plan.items("torch"))` holds one tensor, and the next while it is made."""
    plan = iso.morph(text="l.{l}.weight [o i] <-> m.{l}.w [i o]\n").plan(wide)
    names = [name for name, _ in plan.items(library)]
    assert names == [f"m.{number}.w" for number in range(COUNT)] or sorted(names) == sorted(plan.manifest)
    assert most_at_once(plan.items(library)) < 5 * 4 * WIDTH * WIDTH


def test_a_model_is_filled_without_a_second_copy(wide: Path) -> None:
    """The checkpoint passes through memory tensor by tensor."""
    model = torch.nn.Module()
    model.l = torch.nn.ModuleList(torch.nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(COUNT))

    def load() -> Iterator[object]:
        yield iso.torch.load_model(model, wide)

    assert most_at_once(load()) < 5 * 4 * WIDTH * WIDTH
    assert all(bool((layer.weight == number).all()) for number, layer in enumerate(model.l))


def test_a_morph_is_proved_against_a_live_module(wide: Path) -> None:
    """`like` takes a module, on meta too."""
    with torch.device("meta"):
        model = torch.nn.ModuleDict(
            {"m": torch.nn.ModuleList(torch.nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(COUNT))}
        )
    iso.morph(text="l. <-> m.:\n  ** <-> **\n").plan(wide, like=model)
    with pytest.raises(MorphError, match="Missing key"):
        iso.morph(text="l. <-> n.:\n  ** <-> **\n").plan(wide, like=model)


# ── Paddle ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def small_paddle() -> paddle.nn.Layer:
    return paddle.nn.Sequential(paddle.nn.Linear(3, 4), paddle.nn.BatchNorm1D(4), paddle.nn.Linear(4, 2))


MORPH = "1.running_mean <-> 1._mean\n1.running_var <-> 1._variance\ndrop 1.num_batches_tracked\n1.weight <-> 1.weight\n" \
        "{n}.weight [o i] <-> {n}.weight [i o]\n{n}.bias <-> {n}.bias\n"  # fmt: skip


def test_a_paddle_layer_is_filled_in_place(tmp_path: Path) -> None:
    """From a torch checkpoint; what it computes is what torch computes, and an optimizer goes on."""
    source, model = small().eval(), small_paddle()
    path = saved(source, tmp_path / "a.safetensors")
    held = {name: id(value) for name, value in model.state_dict().items()}
    optimizer = paddle.optimizer.SGD(0.5, parameters=model.parameters())
    loaded = iso.paddle.load_model(model, path, iso.morph(text=MORPH))
    assert tuple(loaded) == ([], []) and held == {name: id(value) for name, value in model.state_dict().items()}
    rows = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    model.eval()
    got = model(paddle.to_tensor(rows))
    assert np.allclose(got.numpy(), source(torch.from_numpy(rows)).detach().numpy(), atol=1e-5)
    got.sum().backward()
    optimizer.step()
    assert np.allclose(model[2].bias.numpy(), source[2].bias.detach().numpy() - 2.5)


def test_a_lazy_paddle_layer_is_made_and_what_stays_empty_is_refused(tmp_path: Path) -> None:
    """Under LazyGuard a parameter has no values until it is given some."""
    path = saved(small(), tmp_path / "a.safetensors")
    with paddle.LazyGuard():
        model = paddle.nn.Sequential(paddle.nn.Linear(3, 4))
    text = "0.weight [o i] <-> 0.weight [i o]\n0.bias <-> 0.bias\ndrop **\n"
    iso.paddle.load_model(model, path, iso.morph(text=text))
    assert all(value._is_initialized() for value in model.state_dict().values())
    with paddle.LazyGuard():
        model = paddle.nn.Sequential(paddle.nn.Linear(3, 4))
    with pytest.raises(MorphError, match="would stay empty"):
        iso.paddle.load_model(model, path, iso.morph(text="0.bias <-> 0.bias\ndrop **\n"), strict=False)


def test_a_tied_paddle_layer_stays_tied_and_keeps_its_dtype(tmp_path: Path) -> None:
    """Values are rounded to it."""
    model = paddle.nn.Sequential(paddle.nn.Linear(3, 3, bias_attr=False), paddle.nn.Linear(3, 3, bias_attr=False))
    model[1].weight = model[0].weight
    model.to(dtype="bfloat16")
    values = torch.randn(3, 3)
    save_file({"0.weight": values}, tmp_path / "a.safetensors")
    loaded = iso.paddle.load_model(model, tmp_path / "a.safetensors")
    assert tuple(loaded) == ([], []) and model[0].weight is model[1].weight
    assert model[0].weight.dtype == paddle.bfloat16
    assert np.array_equal(model[0].weight.astype("float32").numpy(), values.to(torch.bfloat16).float().numpy())
