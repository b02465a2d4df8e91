"""Conversions of vision, audio and encoder models: convolutions, norms with buffers, stages, recurrent gates, irregular names."""

from __future__ import annotations

import re

import numpy as np
from conversions import Array, Arrays, Conversion, Maker, buffer, cast, changed, full
from strange_decoders import renamed

DIM = 16


def linear(m: Maker, a: Arrays, name: str, out: int, into: int, bias: bool = True) -> None:
    """A matrix and its bias."""
    a[f"{name}.weight"] = m.w(out, into)
    if bias:
        a[f"{name}.bias"] = m.b(out)


def norm(m: Maker, a: Arrays, name: str, width: int) -> None:
    """A norm's scale and shift."""
    a[f"{name}.weight"], a[f"{name}.bias"] = m.norm(width), m.b(width)


def vit(m: Maker, count: int = 3, fused: bool = True, key_bias: bool = True) -> Arrays:
    """A vision transformer as timm has it."""
    a: Arrays = {
        "cls_token": m.w(1, 1, DIM),
        "pos_embed": m.w(1, 10, DIM),
        "patch_embed.proj.weight": m.w(DIM, 3, 4, 4),
    }
    a["patch_embed.proj.bias"] = m.b(DIM)
    for layer in range(count):
        at = f"blocks.{layer}."
        norm(m, a, f"{at}norm1", DIM)
        if key_bias:
            linear(m, a, f"{at}attn.qkv", 3 * DIM, DIM)
        else:
            a[f"{at}attn.qkv.weight"], a[f"{at}attn.q_bias"], a[f"{at}attn.v_bias"] = (
                m.w(3 * DIM, DIM),
                m.b(DIM),
                m.b(DIM),
            )
            a[f"{at}attn.relative_position_bias_table"] = m.w(27, 4)
            a[f"{at}gamma_1"], a[f"{at}gamma_2"] = m.norm(DIM), m.norm(DIM)
        linear(m, a, f"{at}attn.proj", DIM, DIM)
        norm(m, a, f"{at}norm2", DIM)
        linear(m, a, f"{at}mlp.fc1", 4 * DIM, DIM)
        linear(m, a, f"{at}mlp.fc2", DIM, 4 * DIM)
    norm(m, a, "norm", DIM)
    linear(m, a, "head", 7, DIM)
    return a


def keras_hub(a: Arrays) -> Arrays:
    """KerasHub: axes of heads, Keras's numbering, convolutions last, no unit axis for the class token."""
    made: Arrays = {}
    for name, array in a.items():
        found = re.match(r"blocks\.(\d+)\.(.*)", name)
        inside = found[2] if found else name
        number = "" if not found or found[1] == "0" else f"_{found[1]}"
        at = f"encoder/transformer_block{number}/" if found else ""
        if inside == "attn.qkv.weight":
            for part, rows in zip(("query", "key", "value"), np.split(array, 3), strict=True):
                made[f"{at}mha/{part}/kernel"] = rows.T.reshape(DIM, 4, 4)
        elif inside == "attn.qkv.bias":
            for part, rows in zip(("query", "key", "value"), np.split(array, 3), strict=True):
                made[f"{at}mha/{part}/bias"] = rows.reshape(4, 4)
        elif inside == "attn.proj.weight":
            made[f"{at}mha/attention_output/kernel"] = array.T.reshape(4, 4, DIM)
        elif inside == "patch_embed.proj.weight":
            made["patching/kernel"] = array.transpose(2, 3, 1, 0)
        elif inside == "cls_token":
            made["class_token"] = array[0, 0]
        else:
            last = array.T if array.ndim == 2 else array
            plain = re.sub(r"weight$", "gamma" if "norm" in inside else "kernel", inside)
            plain = re.sub(r"bias$", "beta", plain) if "norm" in inside else plain
            made[at + plain.replace("attn.proj", "mha/attention_output").replace(".", "/")] = last
    return {name.replace("norm1", "ln_1").replace("norm2", "ln_2"): array for name, array in made.items()}


def beit(a: Arrays) -> Arrays:
    """The bias of q, k and v as one, with zeros for the keys, which have none."""
    made: Arrays = {}
    for name, array in a.items():
        if "q_bias" in name:
            parts = [array, full(array.shape, 0, array), a[name.replace("q_bias", "v_bias")]]
            made[name.replace("q_bias", "qkv.bias")] = np.concatenate(parts)
        elif "v_bias" not in name:
            made[name] = array
    return renamed(made, (r"gamma_(\d)", r"ls\1.gamma"), (r"^blocks", "encoder.layers"))


def patches_last(a: Arrays) -> Arrays:
    """The patch embedding as a matrix over pixels with their channels last; tokens without unit axes; the head dropped."""
    made = {name: array for name, array in a.items() if "head" not in name}
    patch = made["patch_embed.proj.weight"]
    made["patch_embed.proj.weight"] = patch.transpose(0, 2, 3, 1).reshape(DIM, -1)
    made["cls_token"], made["pos_embed"] = made["cls_token"].reshape(DIM), made["pos_embed"][0]
    return renamed(made, ("patch_embed.proj", "embeddings.patches"), ("^(cls_token|pos_embed)", r"embeddings.\1"))


def stages(a: Arrays) -> Arrays:
    """Layers 0…5 as three stages of two blocks."""
    number = re.compile(r"^blocks\.(\d+)")
    return {
        number.sub(lambda found: f"encoder.stages.{int(found[1]) // 2}.blocks.{int(found[1]) % 2}", name): array
        for name, array in a.items()
    }


def swin(m: Maker) -> Arrays:
    """Swin as timm has it: wider from stage to stage, index buffers."""
    a: Arrays = {"patch_embed.proj.weight": m.w(8, 3, 4, 4), "patch_embed.proj.bias": m.b(8)}
    index = np.add.outer(np.arange(4), np.arange(4)).astype(np.int64)
    for stage, (count, width) in enumerate([(2, 8), (2, 16), (3, 32)]):
        at = f"layers.{stage}."
        if stage:
            norm(m, a, f"{at}downsample.norm", 2 * width)
            linear(m, a, f"{at}downsample.reduction", width, 2 * width, bias=False)
        for block in range(count):
            inside = f"{at}blocks.{block}."
            norm(m, a, f"{inside}norm1", width)
            a[f"{inside}attn.relative_position_bias_table"] = m.w(9, 2 << stage)
            a[f"{inside}attn.relative_position_index"] = m.given(index)
            linear(m, a, f"{inside}attn.qkv", 3 * width, width)
            linear(m, a, f"{inside}attn.proj", width, width)
            norm(m, a, f"{inside}norm2", width)
            linear(m, a, f"{inside}mlp.fc1", 4 * width, width)
            linear(m, a, f"{inside}mlp.fc2", width, 4 * width)
    norm(m, a, "norm", 32)
    linear(m, a, "head.fc", 5, 32)
    return a


def swin_hf(a: Arrays) -> Arrays:
    """Swin as transformers has it: q, k, v apart, the merging of patches in the stage before."""
    made: Arrays = {}
    for name, array in a.items():
        if "attn.qkv" in name:
            for part, rows in zip(("query", "key", "value"), np.split(array, 3), strict=True):
                made[name.replace("attn.qkv", f"attention.self.{part}")] = rows
        else:
            made[name] = array
    earlier = re.compile(r"^layers\.(\d)\.downsample")
    made = {earlier.sub(lambda f: f"layers.{int(f[1]) - 1}.downsample", name): array for name, array in made.items()}
    return renamed(
        made, ("attn.proj", "attention.output.dense"), ("attn.rel", "attention.self.rel"), ("mlp.fc1", "intermediate.dense"),
        ("mlp.fc2", "output.dense"), ("norm1", "layernorm_before"), ("norm2", "layernorm_after"), ("^layers", "swin.encoder.layers"),
        ("^norm", "swin.layernorm"), ("head.fc", "classifier"), ("^patch_embed.proj", "swin.embeddings.patch_embeddings.projection"),
    )  # fmt: skip


def convnext(m: Maker) -> Arrays:
    """ConvNeXt as first published."""
    a: Arrays = {"downsample_layers.0.0.weight": m.w(6, 3, 4, 4), "downsample_layers.0.0.bias": m.b(6)}
    norm(m, a, "downsample_layers.0.1", 6)
    for stage, (count, width) in enumerate([(2, 6), (3, 12)]):
        if stage:
            norm(m, a, f"downsample_layers.{stage}.0", width // 2)
            a[f"downsample_layers.{stage}.1.weight"] = m.w(width, width // 2, 2, 2)
            a[f"downsample_layers.{stage}.1.bias"] = m.b(width)
        for block in range(count):
            at = f"stages.{stage}.{block}."
            a[f"{at}gamma"] = m.norm(width)
            a[f"{at}dwconv.weight"], a[f"{at}dwconv.bias"] = m.w(width, 1, 7, 7), m.b(width)
            norm(m, a, f"{at}norm", width)
            linear(m, a, f"{at}pwconv1", 4 * width, width)
            linear(m, a, f"{at}pwconv2", width, 4 * width)
    norm(m, a, "norm", 12)
    linear(m, a, "head", 5, 12)
    return a


def convnext_timm(a: Arrays) -> Arrays:
    """timm's names; the pointwise matrices as convolutions of one pixel."""
    made = {
        name: array[..., None, None] if "pwconv" in name and array.ndim == 2 else array for name, array in a.items()
    }
    return renamed(
        made, (r"downsample_layers\.0\.", "stem."), (r"downsample_layers\.(\d)", r"stages.\1.downsample"), (r"^norm", "head.norm"),
        (r"stages\.(\d)\.(\d)", r"stages.\1.blocks.\2"), ("pwconv", "mlp.fc"), ("dwconv", "conv_dw"), (r"^head\.([wb])", r"head.fc.\1"),
    )  # fmt: skip


def resnet(m: Maker) -> Arrays:
    """ResNet as torchvision has it."""
    a: Arrays = {}

    def conv(name: str, out: int, into: int, size: int, bn: str) -> None:
        a[f"{name}.weight"] = m.w(out, into, size, size)
        norm(m, a, bn, out)
        a[f"{bn}.running_mean"], a[f"{bn}.running_var"] = m.b(out), m.positive(out)
        a[f"{bn}.num_batches_tracked"] = m.given(np.array(1000, np.int64))

    conv("conv1", 8, 3, 7, "bn1")
    for stage, width in ((1, 8), (2, 16)):
        for block in range(2):
            at = f"layer{stage}.{block}."
            conv(f"{at}conv1", width, width // (2 if stage == 2 and block == 0 else 1), 3, f"{at}bn1")
            conv(f"{at}conv2", width, width, 3, f"{at}bn2")
            if stage == 2 and block == 0:
                conv(f"{at}downsample.0", width, width // 2, 1, f"{at}downsample.1")
    linear(m, a, "fc", 5, 16)
    return a


def resnet_flax(a: Arrays) -> Arrays:
    """Flax: kernels with the output last, statistics in a tree of their own, no counters."""
    made: Arrays = {}
    for name, array in a.items():
        if "num_batches" in name:
            continue
        path, _, leaf = name.replace("downsample.0", "proj_conv").replace("downsample.1", "proj_bn").rpartition(".")
        path = re.sub(r"layer(\d)\.(\d)", lambda f: f"Stage_{int(f[1]) - 1}.Block_{f[2]}", path)
        if leaf.startswith("running"):
            made[f"batch_stats.{path}.{leaf.removeprefix('running_')}"] = array
        else:
            leaf = {1: "scale", 2: "kernel", 4: "kernel"}[array.ndim] if leaf == "weight" else leaf
            turned = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
            made[f"params.{path}.{leaf}"] = turned
    return {name.replace(".", "/"): array for name, array in made.items()}


def efficient(m: Maker) -> Arrays:
    """A few blocks of EfficientNet."""
    a: Arrays = {"_conv_stem.weight": m.w(8, 3, 3, 3)}
    for block in range(3):
        at = f"_blocks.{block}."
        a[f"{at}_expand_conv.weight"], a[f"{at}_depthwise_conv.weight"] = m.w(48, 8, 1, 1), m.w(48, 1, 5, 5)
        linear(m, a, f"{at}_se_reduce", 2, 48)
        linear(m, a, f"{at}_se_expand", 48, 2)
        a[f"{at}_project_conv.weight"] = m.w(8, 48, 1, 1)
        norm(m, a, f"{at}_bn2", 8)
        a[f"{at}_bn2.running_mean"], a[f"{at}_bn2.running_var"] = m.b(8), m.positive(8)
    return a


def efficient_tf(a: Arrays) -> Arrays:
    """TensorFlow: kernels with the output last, depthwise ones with the multiplier last, squeezes as convolutions."""
    made: Arrays = {}
    for name, array in a.items():
        if "depthwise" in name:
            array = array.transpose(2, 3, 0, 1)
        elif array.ndim == 4:
            array = array.transpose(2, 3, 1, 0)
        elif array.ndim == 2:
            array = array.T[None, None]
        made[name] = array
    return renamed(
        made, (r"_blocks\.(\d)\.", r"block\1_"), ("depthwise_conv.weight", "depthwise_conv.depthwise_kernel"), ("running_var", "moving_variance"),
        ("running_mean", "moving_mean"), (r"bn2.weight", "bn2.gamma"), (r"bn2.bias", "bn2.beta"), ("weight$", "kernel"), (r"\.", "/"),
    )  # fmt: skip


def speech(m: Maker) -> Arrays:
    """wav2vec 2.0 as fairseq has it: convolutions, one of them normed by weight; layers with q, k, v."""
    a: Arrays = {}
    for number in range(3):
        a[f"feature_extractor.conv_layers.{number}.0.weight"] = m.w(12, 12 if number else 1, 3)
        norm(m, a, f"feature_extractor.conv_layers.{number}.2.1", 12)
    norm(m, a, "layer_norm", 12)
    linear(m, a, "post_extract_proj", DIM, 12)
    a["encoder.pos_conv.0.bias"], a["encoder.pos_conv.0.weight_g"] = m.b(DIM), m.norm(1, 1, 8)
    a["encoder.pos_conv.0.weight_v"] = m.w(DIM, 4, 8)
    a["mask_emb"] = m.w(DIM)
    for layer in range(3):
        at = f"encoder.layers.{layer}."
        for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
            linear(m, a, f"{at}self_attn.{part}", DIM, DIM)
        norm(m, a, f"{at}self_attn_layer_norm", DIM)
        linear(m, a, f"{at}fc1", 2 * DIM, DIM)
        linear(m, a, f"{at}fc2", DIM, 2 * DIM)
        norm(m, a, f"{at}final_layer_norm", DIM)
    norm(m, a, "encoder.layer_norm", DIM)
    return a


def speech_hf(a: Arrays) -> Arrays:
    """transformers' names, with torch's new parametrizations."""
    return renamed(
        a, (r"conv_layers\.(\d)\.0\.", r"conv_layers.\1.conv."), (r"conv_layers\.(\d)\.2\.1", r"conv_layers.\1.layer_norm"),
        ("^layer_norm", "feature_projection.layer_norm"), ("^post_extract_proj", "feature_projection.projection"),
        ("pos_conv.0.weight_g", "pos_conv_embed.conv.parametrizations.weight.original0"), ("^mask_emb", "masked_spec_embed"),
        ("pos_conv.0.weight_v", "pos_conv_embed.conv.parametrizations.weight.original1"), ("pos_conv.0", "pos_conv_embed.conv"),
        ("self_attn_layer_norm", "layer_norm"), ("self_attn", "attention"), ("fc1", "feed_forward.intermediate_dense"),
        ("fc2", "feed_forward.output_dense"), ("^", "wav2vec2."),
    )  # fmt: skip


def mamba(m: Maker) -> Arrays:
    """Mamba: a state space with a logarithm for its decay."""
    a: Arrays = {"backbone.embedding.weight": m.w(50, DIM)}
    for layer in range(3):
        at = f"backbone.layers.{layer}."
        a[f"{at}mixer.A_log"] = m.w(32, 8)
        a[f"{at}mixer.D"], a[f"{at}mixer.conv1d.weight"], a[f"{at}mixer.conv1d.bias"] = (
            m.norm(32),
            m.w(32, 1, 4),
            m.b(32),
        )
        linear(m, a, f"{at}mixer.in_proj", 64, DIM, bias=False)
        linear(m, a, f"{at}mixer.x_proj", 17, 32, bias=False)
        linear(m, a, f"{at}mixer.dt_proj", 32, 1)
        linear(m, a, f"{at}mixer.out_proj", DIM, 32, bias=False)
        a[f"{at}norm.weight"] = m.norm(DIM)
    a["backbone.norm_f.weight"] = m.norm(DIM)
    return a


def mamba_gguf(a: Arrays) -> Arrays:
    """llama.cpp: A = -exp(A_log), the convolution without its unit axis, dt_proj's matrix a column."""
    made: Arrays = {}
    for name, array in a.items():
        if name.endswith("A_log"):
            array = changed(array, lambda values: -np.exp(values.astype(np.float64)).astype(np.float32))
        elif "conv1d.weight" in name:
            array = array[:, 0]
        made[name] = array
    return renamed(
        made, ("backbone.layers", "blk"), ("mixer.A_log", "ssm_a"), ("mixer.D", "ssm_d"), (r"mixer.(\w+)_proj", r"ssm_\1"),
        ("mixer.conv1d", "ssm_conv1d"), ("backbone.embedding", "token_embd"), ("backbone.norm_f", "output_norm"), ("norm.w", "attn_norm.w"),
    )  # fmt: skip


def mamba_split(a: Arrays) -> Arrays:
    """in_proj as its two halves; x_proj as three; the logarithm kept."""
    made: Arrays = {}
    for name, array in a.items():
        if "in_proj" in name:
            made[name.replace("in_proj", "x_in")], made[name.replace("in_proj", "z_gate")] = np.split(array, 2)
        elif "x_proj" in name:
            for part, rows in zip(("dt", "B", "C"), np.split(array, [1, 9]), strict=True):
                made[name.replace("x_proj", f"to_{part}")] = rows
        else:
            made[name] = array
    return made


def recurrent(m: Maker) -> Arrays:
    """A two-layer LSTM in both directions, as torch has it: gates i f g o."""
    a: Arrays = {}
    for layer in range(2):
        for way in ("", "_reverse"):
            a[f"lstm.weight_ih_l{layer}{way}"] = m.w(4 * 6, 12 if layer else 5)
            a[f"lstm.weight_hh_l{layer}{way}"] = m.w(4 * 6, 6)
            a[f"lstm.bias_ih_l{layer}{way}"], a[f"lstm.bias_hh_l{layer}{way}"] = m.b(24), m.b(24)
    return a


def recurrent_onnx(a: Arrays) -> Arrays:
    """ONNX: gates i o f c, both directions stacked, the two biases one after the other."""

    def gates(array: Array) -> Array:
        i, f, g, o = np.split(array, 4)
        return np.concatenate([i, o, f, g])

    made: Arrays = {}
    for layer in range(2):
        both = [{name: gates(a[f"lstm.{name}_l{layer}{way}"]) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")} for way in ("", "_reverse")]  # fmt: skip
        made[f"layer{layer}.W"] = np.stack([one["weight_ih"] for one in both])
        made[f"layer{layer}.R"] = np.stack([one["weight_hh"] for one in both])
        made[f"layer{layer}.B"] = np.stack([np.concatenate([one["bias_ih"], one["bias_hh"]]) for one in both])
    return made


def recurrent_mxnet(a: Arrays) -> Arrays:
    """Gates i f o g, matrices transposed."""

    def gates(array: Array) -> Array:
        i, f, g, o = np.split(array, 4)
        return np.concatenate([i, f, o, g])

    return {name.replace("lstm.", "rnn_"): gates(array).T for name, array in a.items()}


def unet(m: Maker) -> Arrays:
    """A corner of the U-Net of latent diffusion, numbered through."""
    a: Arrays = {"input_blocks.0.0.weight": m.w(8, 4, 3, 3), "input_blocks.0.0.bias": m.b(8)}

    def resnet_block(at: str, into: int, out: int) -> None:
        norm(m, a, f"{at}.in_layers.0", into)
        a[f"{at}.in_layers.2.weight"], a[f"{at}.in_layers.2.bias"] = m.w(out, into, 3, 3), m.b(out)
        linear(m, a, f"{at}.emb_layers.1", out, 32)
        norm(m, a, f"{at}.out_layers.0", out)
        a[f"{at}.out_layers.3.weight"], a[f"{at}.out_layers.3.bias"] = m.w(out, out, 3, 3), m.b(out)
        if into != out:
            a[f"{at}.skip_connection.weight"], a[f"{at}.skip_connection.bias"] = m.w(out, into, 1, 1), m.b(out)

    def attention(at: str, width: int) -> None:
        norm(m, a, f"{at}.norm", width)
        a[f"{at}.proj_in.weight"], a[f"{at}.proj_in.bias"] = m.w(width, width, 1, 1), m.b(width)
        for number, context in ((1, width), (2, 10)):
            inside = f"{at}.transformer_blocks.0.attn{number}"
            linear(m, a, f"{inside}.to_q", width, width, bias=False)
            linear(m, a, f"{inside}.to_k", width, context, bias=False)
            linear(m, a, f"{inside}.to_v", width, context, bias=False)
            linear(m, a, f"{inside}.to_out.0", width, width)
        a[f"{at}.proj_out.weight"], a[f"{at}.proj_out.bias"] = m.w(width, width, 1, 1), m.b(width)

    for number, (into, out) in ((1, (8, 8)), (2, (8, 8)), (4, (8, 16)), (5, (16, 16))):
        resnet_block(f"input_blocks.{number}.0", into, out)
        attention(f"input_blocks.{number}.1", out)
    a["input_blocks.3.0.op.weight"], a["input_blocks.3.0.op.bias"] = m.w(8, 8, 3, 3), m.b(8)
    linear(m, a, "time_embed.0", 32, 8)
    linear(m, a, "time_embed.2", 32, 32)
    return a


def unet_diffusers(a: Arrays) -> Arrays:
    """diffusers: blocks and resnets counted apart; the projections as matrices."""
    number = re.compile(r"^input_blocks\.(\d)\.(\d)")

    def place(found: re.Match[str]) -> str:
        at, inside = int(found[1]), int(found[2])
        if at == 3:
            return "down_blocks.0.downsamplers.0"
        kind = "attentions" if inside else "resnets"
        return f"down_blocks.{(at - 1) // 3}.{kind}.{(at - 1) % 3}"

    made = {"conv_in.weight": a["input_blocks.0.0.weight"], "conv_in.bias": a["input_blocks.0.0.bias"]}
    for name, array in a.items():
        if not name.startswith("input_blocks.0"):
            flat = array[:, :, 0, 0] if re.search(r"proj_(in|out)\.weight", name) else array
            made[number.sub(place, name)] = flat
    return renamed(
        made, (r"in_layers\.0", "norm1"), (r"in_layers\.2", "conv1"), (r"out_layers\.0", "norm2"), (r"out_layers\.3", "conv2"),
        (r"emb_layers\.1", "time_emb_proj"), ("skip_connection", "conv_shortcut"), (r"samplers\.0\.op", "samplers.0.conv"),
        (r"time_embed\.0", "time_embedding.linear_1"), (r"time_embed\.2", "time_embedding.linear_2"),
    )  # fmt: skip


def opt(m: Maker) -> Arrays:
    """A decoder with learned positions, the first two of which are never used."""
    a: Arrays = {"decoder.embed_tokens.weight": m.w(40, DIM), "decoder.embed_positions.weight": m.w(22, DIM)}
    a["decoder.version"] = m.given(np.array([3.0], np.float32))
    for layer in range(3):
        at = f"decoder.layers.{layer}."
        for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
            linear(m, a, f"{at}self_attn.{part}", DIM, DIM)
        norm(m, a, f"{at}self_attn_layer_norm", DIM)
        linear(m, a, f"{at}fc1", 4 * DIM, DIM)
        linear(m, a, f"{at}fc2", DIM, 4 * DIM)
        norm(m, a, f"{at}final_layer_norm", DIM)
    return a


def opt_trimmed(a: Arrays) -> Arrays:
    """Positions without the two rows; 1-d convolutions for matrices; a buffer of positions; a head tied by copying."""
    made = {name: array[..., None] if re.search(r"fc\d.weight", name) else array for name, array in a.items()}
    del made["decoder.version"]
    made["decoder.embed_positions.weight"] = made["decoder.embed_positions.weight"][2:]
    made["decoder.position_ids"] = buffer(np.arange(20, dtype=np.int64)[None], made["decoder.embed_tokens.weight"])
    made["lm_head.weight"] = made["decoder.embed_tokens.weight"]
    return renamed(
        made, ("self_attn_layer_norm", "ln_1"), ("final_layer_norm", "ln_2"), ("fc1", "mlp.conv1"), ("fc2", "mlp.conv2")
    )


def t5(m: Maker) -> Arrays:
    """The encoder and decoder of a T5 v1.1."""
    a: Arrays = {"shared.weight": m.w(50, DIM)}
    for side in ("encoder", "decoder"):
        for layer in range(3):
            at = f"{side}.block.{layer}.layer."
            kinds = ["SelfAttention"] + (["EncDecAttention"] if side == "decoder" else [])
            for number, kind in enumerate(kinds):
                for part in "qkv":
                    a[f"{at}{number}.{kind}.{part}.weight"] = m.w(3 * 4, DIM)
                a[f"{at}{number}.{kind}.o.weight"] = m.w(DIM, 3 * 4)
                if layer == 0 and kind == "SelfAttention":
                    a[f"{at}{number}.{kind}.relative_attention_bias.weight"] = m.w(8, 3)
                a[f"{at}{number}.layer_norm.weight"] = m.norm(DIM)
            last = len(kinds)
            for part, shape in (("wi_0", (20, DIM)), ("wi_1", (20, DIM)), ("wo", (DIM, 20))):
                a[f"{at}{last}.DenseReluDense.{part}.weight"] = m.w(*shape)
            a[f"{at}{last}.layer_norm.weight"] = m.norm(DIM)
        a[f"{side}.final_layer_norm.weight"] = m.norm(DIM)
    a["lm_head.weight"] = m.w(50, DIM)
    return a


def t5x_scanned(a: Arrays) -> Arrays:
    """T5X: layers stacked along axis 1, the output last."""
    made: Arrays = {
        "token_embedder/embedding": a["shared.weight"],
        "decoder/logits_dense/kernel": a["lm_head.weight"].T,
    }
    attention = {"SelfAttention": "self_attention", "EncDecAttention": "encoder_decoder_attention"}
    words = {"q": "query", "k": "key", "v": "value", "o": "out"}
    for side in ("encoder", "decoder"):
        made[f"{side}/{side}_norm/scale"] = a[f"{side}.final_layer_norm.weight"]
        for name in [name for name in a if name.startswith(f"{side}.block.0.")]:
            inside = name.split(".layer.", 1)[1]
            if "relative" in inside:
                made[f"{side}/relpos_bias/rel_embedding"] = a[name].T
                continue
            each = [a[name.replace("block.0.", f"block.{layer}.")] for layer in range(3)]
            number, *path = inside.removesuffix(".weight").split(".")
            if path == ["layer_norm"]:
                kinds = (
                    ["pre_self_attention", "pre_cross_attention", "pre_mlp"]
                    if side == "decoder"
                    else ["pre_attention", "pre_mlp"]
                )
                made[f"{side}/layers/{kinds[int(number)]}_layer_norm/scale"] = np.stack(each, axis=1)
            else:
                kind = attention.get(path[0], "mlp")
                leaf = words.get(path[1], path[1])
                made[f"{side}/layers/{kind}/{leaf}/kernel"] = np.stack([one.T for one in each], axis=1)
    return made


def bart(m: Maker) -> Arrays:
    """fairseq's BART: positions with two rows more, encoder and decoder, tied tables."""
    a: Arrays = {}
    table = m.w(30, DIM)
    for side in ("encoder", "decoder"):
        a[f"{side}.embed_tokens.weight"] = table
        a[f"{side}.embed_positions.weight"] = m.w(14, DIM)
        for layer in range(2):
            for kind in ["self_attn", *(["encoder_attn"] if side == "decoder" else [])]:
                for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
                    linear(m, a, f"{side}.layers.{layer}.{kind}.{part}", DIM, DIM)
                norm(m, a, f"{side}.layers.{layer}.{kind}_layer_norm", DIM)
            linear(m, a, f"{side}.layers.{layer}.fc1", 2 * DIM, DIM)
            linear(m, a, f"{side}.layers.{layer}.fc2", DIM, 2 * DIM)
            norm(m, a, f"{side}.layers.{layer}.final_layer_norm", DIM)
        norm(m, a, f"{side}.layernorm_embedding", DIM)
    return a


def bart_packed(a: Arrays) -> Arrays:
    """torch's own attention: q, k, v packed; a bias of zeros for the logits; the table three times, half of it half precision."""
    made: Arrays = {"model.shared.weight": a["encoder.embed_tokens.weight"]}
    for name, array in a.items():
        if ".q_proj." in name:
            parts = [a[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            made[re.sub(r"q_proj\.(\w+)", r"in_proj_\1", name)] = np.concatenate(parts)
        elif not re.search(r"\.[kv]_proj\.", name):
            made[name] = array
    made["final_logits_bias"] = full((1, 30), 0, a["encoder.embed_tokens.weight"])
    made["model.decoder.embed_positions.weight"] = cast(made.pop("decoder.embed_positions.weight"), np.float16)
    return renamed(made, (r"^(encoder|decoder)", r"model.\1"))


TOWERS = (
    Conversion("timm to keras hub", vit, keras_hub),
    Conversion("beit to fused", lambda m: vit(m, key_bias=False), beit),
    Conversion("patches last", vit, patches_last),
    Conversion("stages for layers", lambda m: vit(m, 6), stages),
    Conversion("swin to transformers", swin, swin_hf),
    Conversion("convnext to timm", convnext, convnext_timm),
    Conversion("resnet to flax", resnet, resnet_flax),
    Conversion("efficientnet to tf", efficient, efficient_tf),
    Conversion("fairseq speech to transformers", speech, speech_hf),
    Conversion("mamba to gguf", mamba, mamba_gguf),
    Conversion("mamba split", mamba, mamba_split),
    Conversion("lstm to onnx", recurrent, recurrent_onnx),
    Conversion("lstm gates reordered", recurrent, recurrent_mxnet),
    Conversion("unet to diffusers", unet, unet_diffusers),
    Conversion("opt trimmed", opt, opt_trimmed),
    Conversion("t5 to t5x scanned", t5, t5x_scanned),
    Conversion("bart to packed", bart, bart_packed),
)
