"""What a GGUF file says of its model is its config: Llama in llama.cpp's names and order of rows, to transformers and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from safetensors.numpy import save_file

from isomorph.cli.app import run
from isomorph.formats.gguf.config import config_inside, config_of_values

WIDTH, HEADS, KV_HEADS, HEAD_DIM, FFN, VOCAB, LAYERS = 16, 4, 2, 4, 24, 20, 2


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """A Llama of random numbers as transformers writes it, with its config."""
    rng = np.random.default_rng(3)
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCAB, WIDTH), "model.norm.weight": (WIDTH,), "lm_head.weight": (VOCAB, WIDTH),
    }  # fmt: skip
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        for name, shape in {
            "self_attn.q_proj": (HEADS * HEAD_DIM, WIDTH), "self_attn.k_proj": (KV_HEADS * HEAD_DIM, WIDTH),
            "self_attn.v_proj": (KV_HEADS * HEAD_DIM, WIDTH), "self_attn.o_proj": (WIDTH, HEADS * HEAD_DIM),
            "mlp.gate_proj": (FFN, WIDTH), "mlp.up_proj": (FFN, WIDTH), "mlp.down_proj": (WIDTH, FFN),
            "input_layernorm": (WIDTH,), "post_attention_layernorm": (WIDTH,),
        }.items():  # fmt: skip
            shapes[f"{at}{name}.weight"] = shape
    folder = tmp_path / "hub"
    folder.mkdir()
    save_file(
        {name: rng.standard_normal(shape).astype("f4") for name, shape in shapes.items()}, folder / "model.safetensors"
    )
    config = {
        "model_type": "llama", "hidden_size": WIDTH, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS,
        "intermediate_size": FFN, "vocab_size": VOCAB, "num_hidden_layers": LAYERS,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def with_values(path: Path, target: Path, in_part: int = 0) -> None:
    """The tensors of a GGUF file in a new one (in parts of so many tensors) that says what llama.cpp's converter says of a Llama."""
    writer = gguf.GGUFWriter(target, "llama", split_max_tensors=in_part)
    writer.add_block_count(LAYERS)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_token_list([f"t{number}" for number in range(VOCAB)])
    for one in gguf.GGUFReader(path).tensors:
        writer.add_tensor(one.name, one.data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_llama_goes_to_llama_cpps_layout_and_back(
    hub: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file alone tells the heads by which the rows of q and k are reordered; without its values the user is asked."""
    bare, said, back = tmp_path / "bare/m.gguf", tmp_path / "said/m.gguf", tmp_path / "back.safetensors"
    for path in (bare, said):
        path.parent.mkdir()
    assert run(["convert", str(hub), str(bare), "--to", "gguf", "-q"]) == 0
    with_values(bare, said)
    assert {name: one.data.tobytes() for name, one in arrays(said).items()} == {
        name: one.data.tobytes() for name, one in arrays(bare).items()
    }
    assert run(["inspect", str(said)]) == 0
    assert "heads 4 · key/value heads 2 · head dim 4" in capsys.readouterr().out
    assert run(["convert", str(said), str(back), "--to", "hf", "--from", "llama/gguf", "-q"]) == 0
    assert run(["diff", "--values", str(hub), str(back)]) == 0
    capsys.readouterr()
    assert run(["convert", str(bare), str(tmp_path / "no.safetensors"), "--to", "hf", "--from", "llama/gguf"]) == 2
    assert "--set" in capsys.readouterr().err


def test_the_values_are_found_wherever_the_file_lies(hub: Path, tmp_path: Path) -> None:
    """By its folder, by any part of a split file, and in what carries them as text: to the hub's names and back, byte for byte."""
    bare, said = tmp_path / "bare.gguf", tmp_path / "said/m.gguf"
    said.parent.mkdir()
    (tmp_path / "parts").mkdir()
    assert run(["convert", str(hub), str(bare), "--to", "gguf", "-q"]) == 0
    with_values(bare, said)
    with_values(bare, tmp_path / "parts/m.gguf", in_part=8)
    parts = sorted((tmp_path / "parts").iterdir())
    assert len(parts) == 3
    for number, path in enumerate([said.parent, tmp_path / "parts", *parts]):
        out = tmp_path / f"out{number}"
        assert run(["convert", str(path), f"{out}/", "--to", "hf", "--from", "llama/gguf", "-q"]) == 0
        assert run(["diff", "--values", str(hub), str(out)]) == 0
    back = tmp_path / "back.gguf"
    assert run(["convert", str(tmp_path / "out0"), str(back), "--to", "llama/gguf", "--from", "llama/hf", "-q"]) == 0
    assert run(["verify", str(said), str(back)]) == 0
    assert said.read_bytes() == back.read_bytes()


def arrays(path: Path) -> dict[str, Any]:
    return {one.name: one for one in gguf.GGUFReader(path).tensors}


def test_a_config_beside_the_file_comes_first(hub: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What somebody put there on purpose says more than what llama.cpp keeps."""
    path, said = hub / "bare.gguf", tmp_path / "said.gguf"
    assert run(["convert", str(hub / "model.safetensors"), str(path), "--to", "gguf", "-q"]) == 0
    with_values(path, said)
    config = {**json.loads((hub / "config.json").read_text()), "num_attention_heads": 2, "num_key_value_heads": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert run(["inspect", str(said)]) == 0
    assert "heads 2 · key/value heads 1 · head dim 8" in capsys.readouterr().out


def test_values_of_other_kinds_say_nothing(tmp_path: Path) -> None:
    """A size that is a text, a list, or no number is none; what is no GGUF file, or a broken one, says nothing at all."""
    assert config_of_values(
        {
            "gguf:general.architecture": "string qwen2",
            "gguf:qwen2.block_count": "u32 24",
            "gguf:qwen2.attention.head_count": "string 16",
            "gguf:qwen2.feed_forward_length": "[i32 2] [1, 2]",
            "gguf:qwen2.attention.layer_norm_rms_epsilon": "f32 1e-06",
            "gguf:qwen2.rope.freq_base": "f32 base64:AADAfw==",
            "gguf:llama.embedding_length": "u32 7",
            "gguf:tokenizer.ggml.eos_token_id": "u32 5",
        }
    ) == {"model_type": "qwen2", "num_hidden_layers": 24, "rms_norm_eps": 1e-06, "eos_token_id": 5}
    assert config_of_values({"gguf:general.architecture": "u32 5"}) == {}
    assert config_of_values({"general.architecture": "llama"}) == {}
    for raw in (b"GGUF", b"GGUF\3\0\0\0" + b"\xff" * 30, b"hello"):
        (tmp_path / "m.gguf").write_bytes(raw)
        assert config_inside(tmp_path / "m.gguf") is None
    assert config_inside(tmp_path / "gone.gguf") is None
    assert config_inside(tmp_path) is None
