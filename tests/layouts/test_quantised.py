"""Quantised GGUF files: their layout is seen by elements, what is outside of blocks is moved, and what is not is said."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind

from isomorph.cli.app import run
from isomorph.describe.recognised import layout_lines, recognised
from isomorph.formats.registry import open_checkpoint

WIDTH, HEADS, KV_HEADS, HEAD_DIM, FFN, VOCAB = 256, 8, 4, 32, 512, 320


def save_llama(path: Path, kind: Kind, kind_of_v: Kind) -> Path:
    """A llama of one layer with random blocks; its norms are f32."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_embedding_length(WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(HEAD_DIM)
    generator = np.random.default_rng(0)
    q, kv = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
    matrices = {
        "token_embd": (VOCAB, WIDTH), "output": (VOCAB, WIDTH), "blk.0.attn_q": (q, WIDTH), "blk.0.attn_k": (kv, WIDTH),
        "blk.0.attn_v": (kv, WIDTH), "blk.0.attn_output": (WIDTH, q), "blk.0.ffn_gate": (FFN, WIDTH), "blk.0.ffn_up": (FFN, WIDTH),
        "blk.0.ffn_down": (WIDTH, FFN),
    }  # fmt: skip
    for name, (rows, columns) in matrices.items():
        each = kind_of_v if name.endswith("attn_v") else kind
        elements, nbytes = gguf.GGML_QUANT_SIZES[each]
        blocks = generator.integers(0, 256, (rows, columns // elements * nbytes), dtype=np.uint8)
        writer.add_tensor(f"{name}.weight", blocks, raw_dtype=each)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("kind", [Kind.Q8_0, Kind.Q4_K])
def test_its_layout_and_sizes_are_those_of_its_elements(tmp_path: Path, kind: Kind) -> None:
    """Shapes count items in the file; width and ffn are numbers of elements."""
    with open_checkpoint(save_llama(tmp_path / "m.gguf", kind, Kind.Q6_K)) as checkpoint:
        lines = "\n".join(
            layout_lines(recognised(checkpoint.manifest, {"model_type": "llama", "num_attention_heads": 8}))
        )
    assert "layout    llama/gguf" in lines
    assert "width 256 · heads 8 · key/value heads 4 · head dim 32 · ffn 512 · vocab 320" in lines


def test_rows_are_permuted_and_come_back(tmp_path: Path) -> None:
    """llama.cpp's order of rows in q and k is undone and done again; every block is as it was."""
    first = save_llama(tmp_path / "m.gguf", Kind.Q4_K, Kind.Q6_K)
    assert 0 == run(["convert", str(first), str(tmp_path / "hf.gguf"), "--to", "llama/hf", "-q"])
    there, back = str(tmp_path / "hf.gguf"), str(tmp_path / "back.gguf")
    assert 0 == run(["convert", there, back, "--to", "llama/gguf", "--from", "llama/hf", "-q"])
    read = [
        {each.name: each.data for each in gguf.GGUFReader(tmp_path / name).tensors}
        for name in ("m.gguf", "back.gguf", "hf.gguf")
    ]
    assert all(np.array_equal(read[0][name], read[1][name]) for name in read[0])
    ours = read[2]["model.layers.0.self_attn.q_proj.weight"].reshape(HEADS, 2, HEAD_DIM // 2, -1)
    theirs = read[0]["blk.0.attn_q.weight"].reshape(HEADS, HEAD_DIM // 2, 2, -1)
    assert np.array_equal(theirs.transpose(0, 2, 1, 3), ours)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("llama/flax", "`lm_head/kernel` would part the items of `lm_head.weight`"),
        ("llama/litgpt", "its last axis counts items: a rule that ties it to an axis of elements does not hold of it"),
        ("llama/megatron_core", "A tensor has one dtype, and q4_k is carried whole, never cast: dequantize first"),
    ],
)
def test_what_cannot_be_moved_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], target: str, said: str
) -> None:
    path = save_llama(tmp_path / "m.gguf", Kind.Q4_K, Kind.Q6_K)
    assert 2 == run(["convert", str(path), str(tmp_path / "out.gguf"), "--to", target])
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out.gguf").exists()
