"""Names of families that the pairs do not have: small manifests in the names that libraries give them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
from name_scores import pairs
from proposing import headers

from isomorph.infer.by_name.correspond import correspond
from isomorph.infer.by_name.correspondence import Correspondence

Shapes = dict[str, tuple[int, ...]]
NORM = ("weight", "bias", "running_mean", "running_var")
FLAX = {"weight": "params/{}/scale", "bias": "params/{}/bias", "running_mean": "batch_stats/{}/mean"}
FLAX["running_var"] = "batch_stats/{}/var"


def residual(widths: tuple[int, ...], depth: int) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """A residual network's convolutions: torchvision's name, transformers', and the shape of the weight."""
    yield "conv1", "resnet.embedder.embedder.convolution", (widths[0], 3, 7, 7)
    last = widths[0]
    for stage, width in enumerate(widths):
        for block in range(depth):
            torch, hub = f"layer{stage + 1}.{block}", f"resnet.encoder.stages.{stage}.layers.{block}"
            if last != width:
                yield f"{torch}.downsample.0", f"{hub}.shortcut.convolution", (width, last, 1, 1)
            yield f"{torch}.conv1", f"{hub}.layer.0.convolution", (width, last, 3, 3)
            yield f"{torch}.conv2", f"{hub}.layer.1.convolution", (width, width, 3, 3)
            last = width


def networks(widths: tuple[int, ...], depth: int) -> tuple[Shapes, Shapes, Shapes, dict[str, str]]:
    """The same network as torchvision, transformers and its Flax twin name it; and which of torchvision's makes which."""
    torch: Shapes = {}
    hub: Shapes = {}
    flax: Shapes = {}
    truth: dict[str, str] = {}
    for one, other, shape in residual(widths, depth):
        norm = one.replace("conv", "bn").replace("downsample.0", "downsample.1")
        hub_norm = other.replace("convolution", "normalization")
        entries = [(f"{one}.weight", f"{other}.weight", f"params/{other.replace('.', '/')}/kernel", shape)]
        entries += [
            (f"{norm}.{leaf}", f"{hub_norm}.{leaf}", FLAX[leaf].format(hub_norm.replace(".", "/")), shape[:1])
            for leaf in NORM
        ]
        for a, b, c, size in entries:
            torch[a], hub[b], flax[c] = size, size, size if len(size) == 1 else (*size[2:], size[1], size[0])
            truth[b] = truth[c] = a
    return torch, hub, flax, truth


def said(found: Correspondence) -> dict[str, str]:
    """What is certain, of one source each."""
    return {target: next(iter(sources)) for target, sources in pairs(found.matches)}


@pytest.mark.parametrize("widths, depth", [((16, 32, 64, 128), 2), ((8, 24, 40), 3), ((8, 24, 40), 1)])
@pytest.mark.parametrize("kind", ["hub", "flax"])
def test_stages_of_other_widths(kind: str, widths: tuple[int, ...], depth: int) -> None:
    torch, hub, flax, truth = networks(widths, depth)
    target = hub if kind == "hub" else flax
    found = said(correspond(headers(torch), headers(target)))
    wrong = {name: source for name, source in found.items() if truth[name] != source}
    assert not wrong
    in_stages = [name for name in target if "embedder" not in name]
    assert [name for name in in_stages if name not in found] == []


@pytest.mark.parametrize("widths", [(32, 32, 32), (16, 32), (16, 16, 32, 32)])
def test_stages_of_few_widths_are_no_signature(widths: tuple[int, ...]) -> None:
    """Where stages are alike, shapes say little: what is said is right, and nothing is forced."""
    torch, hub, _, truth = networks(widths, 2)
    found = said(correspond(headers(torch), headers(hub)))
    assert {name for name, source in found.items() if truth[name] != source} == set()


def test_a_stage_less_is_not_matched() -> None:
    """Another depth has other signatures."""
    torch, _, _, _ = networks((16, 32, 64, 128), 2)
    _, hub, _, _ = networks((16, 32, 64, 128), 3)
    found = said(correspond(headers(torch), headers(hub)))
    assert not [name for name in found if ".layer." in name]


def test_another_module_of_the_same_shapes() -> None:
    """Two modules with one signature are told apart by their words or not at all."""
    torch, hub, _, truth = networks((16, 32, 64), 2)
    twice = {**torch, **{name.replace("conv2", "conv_b"): shape for name, shape in torch.items() if "conv2" in name}}
    found = said(correspond(headers(twice), headers(hub)))
    assert {name for name, source in found.items() if truth[name] != source} == set()


def unlike_stages(widths: tuple[int, ...]) -> tuple[Shapes, Shapes, dict[str, str]]:
    """Blocks numbered through against blocks in stages; the norms numbered on one side, named on the other."""
    source: Shapes = {}
    target: Shapes = {}
    truth: dict[str, str] = {}
    last, count = widths[0], 0
    for stage, width in enumerate(widths):
        for block in range(2):
            for one, other, size in (
                ("norm1", "layernorm_before", (last,)),
                ("norm2", "layernorm_after", (width,)),
                ("mlp.fc1", "mlp.fc1", (4 * width, width)),
                ("mlp.fc2", "mlp.fc2", (width, 4 * width)),
            ):
                a, b = f"blocks.{count}.{one}.weight", f"hiera.encoder.stages.{stage}.layers.{block}.{other}.weight"
                source[a] = target[b] = size
                truth[b] = a
            last, count = width, count + 1
    return source, target, truth


def test_blocks_numbered_through_against_stages() -> None:
    source, target, truth = unlike_stages((16, 32, 64))
    assert said(correspond(headers(source), headers(target))) == truth


def layer_of(names: Mapping[str, tuple[int, ...]], prefix: str, count: int = 3) -> Shapes:
    """The same tensors in so many layers."""
    return {f"{prefix}.{layer}.{name}": shape for layer in range(count) for name, shape in names.items()}


def together(source: Mapping[str, tuple[int, ...]], target: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """What is said of one layer of three: target -> source, without their prefixes."""
    one, other = layer_of(source, "model.layers"), layer_of(target, "layers")
    found = said(correspond(headers(one), headers(other)))
    assert all(name.split(".")[1] == made.split(".")[2] for name, made in found.items())
    return {name.split(".", 2)[2]: made.split(".", 3)[3] for name, made in found.items()}


ATTENTION = {f"attn.{part}_proj.weight": (48, 48) for part in "qkv"} | {"attn.output_proj.weight": (48, 48)}


def test_two_norms_before_and_two_after() -> None:
    """Gemma 2: torchtune's words are `norm` for those before and `scale` for those after."""
    norms = {
        "sa_norm.scale": "input_layernorm.weight",
        "sa_scale.scale": "post_attention_layernorm.weight",
        "mlp_norm.scale": "pre_feedforward_layernorm.weight",
        "mlp_scale.scale": "post_feedforward_layernorm.weight",
    }
    source = {name.replace("attn", "self_attn"): shape for name, shape in ATTENTION.items()}
    found = together(source | dict.fromkeys(norms.values(), (48,)), ATTENTION | dict.fromkeys(norms, (48,)))
    assert {name: made for name, made in found.items() if "attn" not in name} == norms


def test_words_in_another_order_are_another_name() -> None:
    """SAM: the two cross attentions of a layer have the same words."""
    kinds = ("cross_attn_token_to_image", "cross_attn_image_to_token")
    names = {f"{kind}.{part}_proj.weight": (16, 48) for kind in kinds for part in "qkv"}
    assert together(names, names) == {name: name for name in names}


def test_a_third_matrix_with_a_letter_of_its_own() -> None:
    """DBRX: w1, v1 and w2."""
    source = {f"ffn.experts.mlp.{each}": (128, 48) for each in ("w1", "v1", "w2")}
    target = {f"ffn.experts.{expert}.{each}.weight": (32, 48) for each in ("w1", "v1") for expert in range(4)}
    target |= {f"ffn.experts.{expert}.w2.weight": (48, 32) for expert in range(4)}
    found = together(source, target)
    assert found == {name: f"ffn.experts.mlp.{name.split('.')[3]}" for name in target}


def test_what_has_a_bias_is_no_token() -> None:
    """DETR calls its classifier `class_embed`."""
    block = layer_of({"linear1.weight": (96, 48), "linear2.weight": (48, 96)}, "layers")
    source = block | {"class_embed.weight": (6, 48), "class_embed.bias": (6,)}
    target = block | {"class_labels_classifier.weight": (6, 48), "class_labels_classifier.bias": (6,)}
    found = said(correspond(headers(source), headers(target)))
    assert found["class_labels_classifier.weight"] == "class_embed.weight"
    assert found["class_labels_classifier.bias"] == "class_embed.bias"


def test_numbers_that_keras_counts_through_the_layers() -> None:
    """Keras numbers a module in each layer through the whole model: `moe`, `moe_1`, `moe_2` are of layers 0, 1 and 2."""
    target: Shapes = {}
    for layer in range(3):
        moe = f"transformer_layer_{layer}/sparse_moe_block" + (f"_{layer}" if layer else "")
        target[f"transformer_layer_{layer}/self_attention/query/kernel"] = (48, 4, 12)
        target[f"{moe}/sparse_feedforward_gate_dense/kernel"] = (48, 4)
        target[f"{moe}/experts/expert_feedforward_output_dense"] = (4, 96, 48)
    source = layer_of({"self_attn.q_proj.weight": (48, 48), "block_sparse_moe.gate.weight": (4, 48)}, "model.layers")
    experts = {f"block_sparse_moe.experts.{expert}.w2.weight": (48, 96) for expert in range(4)}
    source |= layer_of(experts, "model.layers")
    found = dict(pairs(correspond(headers(source), headers(target)).matches))
    assert set(found) == set(target)
    for name, sources in found.items():
        layer = name.split("_")[2][0]
        assert all(one.startswith(f"model.layers.{layer}.") for one in sources)


def test_two_modules_of_one_signature() -> None:
    """PVT: the norm of a stage's patches and that at its end have the same widths; a word tells them apart."""
    widths = (16, 32, 48, 64)
    source = {f"patch_embed{stage + 1}.norm.weight": (width,) for stage, width in enumerate(widths)}
    source |= {f"norm{stage + 1}.weight": (width,) for stage, width in enumerate(widths)}
    target = {
        f"encoder.layers.{stage}.patch_embedding.layer_norm.weight": (width,) for stage, width in enumerate(widths)
    }
    target |= {f"encoder.layers.{stage}.layer_norm.weight": (width,) for stage, width in enumerate(widths)}
    found = said(correspond(headers(source), headers(target)))
    assert set(found) == set(target)
    assert all(("patch" in name) == ("patch" in made) for name, made in found.items())
    plain = {name.replace("patch_embed", "a"): shape for name, shape in source.items()}
    assert not said(correspond(headers(plain), headers(target)))


def test_stages_counted_from_the_other_end() -> None:
    """The decoder of a VAE: `up.3` is `up_blocks.0`."""
    widths = (16, 32, 48, 64)
    source: Shapes = {}
    target: Shapes = {}
    truth: dict[str, str] = {}
    for stage, width in enumerate(widths):
        for block in range(2):
            for conv in ("conv1", "conv2"):
                one = f"decoder.up_blocks.{len(widths) - 1 - stage}.resnets.{block}.{conv}.weight"
                other = f"decoder.up.{stage}.block.{block}.{conv}.weight"
                source[one] = target[other] = (width, width, 3, 3)
                truth[other] = one
    assert said(correspond(headers(source), headers(target))) == truth


def test_rows_of_one_signature_that_end_alike() -> None:
    """The projections of a UNet's attentions have one shape in each block; their last words tell them apart."""
    source: Shapes = {}
    target: Shapes = {}
    truth: dict[str, str] = {}
    for count, width in enumerate((16, 16, 32, 32, 64, 64)):
        for each in ("to_q", "to_k", "to_v", "to_out.0"):
            one = f"down_blocks.{count // 2}.attentions.{count % 2}.transformer_blocks.0.attn1.{each}.weight"
            other = f"input_blocks.{count + 1 + count // 2}.1.transformer_blocks.0.attn1.{each}.weight"
            source[one] = target[other] = (width, width)
            truth[other] = one
    assert said(correspond(headers(source), headers(target))) == truth
