"""Plans on paper: very many tensors, very large ones, from headers alone."""

from __future__ import annotations

import json
import os
from pathlib import Path

from isomorph.formats.registry import open_checkpoint
from isomorph.language.parse import parse
from isomorph.language.scopes import flatten
from isomorph.plan.prove import make_plan
from isomorph.tensors import DTYPES, Manifest, TensorSpec

EXPERTS = """\
model.layers.{l}. <-> layers.{l}.:
  experts.{e}.{w=w1|w3}.weight [f d] <-> gate_up_proj [e (w f) d]
  experts.{e}.w2.weight [d f] <-> down_proj [e d f]
  ** <-> **
"""
INTERLEAVED = """\
layers.{l}. <-> blk.{l}.:
  gate_up_proj [e (2 f) d] <-> gate_up [e d (f 2)]
  down_proj [e d f] <-> down.{e} [f d]
  ** <-> **
"""


def mixture(layers: int, experts: int, width: int, hidden: int) -> dict[str, TensorSpec]:
    """The names and shapes of a mixture-of-experts model in bf16."""
    bf16 = DTYPES["bf16"]
    found: dict[str, TensorSpec] = {}
    for layer in range(layers):
        at = f"model.layers.{layer}."
        for expert in range(experts):
            found[f"{at}experts.{expert}.w1.weight"] = TensorSpec(bf16, (hidden, width))
            found[f"{at}experts.{expert}.w2.weight"] = TensorSpec(bf16, (width, hidden))
            found[f"{at}experts.{expert}.w3.weight"] = TensorSpec(bf16, (hidden, width))
        found[f"{at}attn.weight"] = TensorSpec(bf16, (width, width))
    return found


def sparse_safetensors(path: Path, tensors: dict[str, TensorSpec]) -> None:
    """A safetensors file whose header is real and whose data is a hole."""
    header, end = {}, 0
    for name, spec in tensors.items():
        header[name] = {"dtype": "BF16", "shape": spec.shape, "data_offsets": [end, end + spec.nbytes]}
        end += spec.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
    os.truncate(path, 8 + len(text) + end)


def test_a_model_of_a_terabyte_is_planned_from_its_header(tmp_path: Path) -> None:
    """46,909 tensors, 1.38 TB: stacked, then stacked otherwise, in one plan; each element has one source."""
    tensors = mixture(layers=61, experts=256, width=7168, hidden=2048)
    path = tmp_path / "model.safetensors"
    sparse_safetensors(path, tensors)
    with open_checkpoint(path) as checkpoint:
        source = checkpoint.manifest
    assert (46_909, 1_381_731_663_872) == (len(source), source.nbytes)
    plan = make_plan([flatten(parse(EXPERTS)), flatten(parse(INTERLEAVED))], source)
    assert source.nbytes == sum(target.spec.nbytes for target in plan.targets.values())
    assert source.numel == sum(move.target.numel for move in plan.moves)
    assert (256, 7168, 4096) == plan.targets["blk.60.gate_up"].spec.shape
    assert 61 * (1 + 256 + 1) == len(plan.targets)


def test_a_hundred_thousand_tensors_are_planned() -> None:
    """Every one of 100,000 small tensors is placed, by three rules, and reads back."""
    f32 = DTYPES["f32"]
    tensors = {
        f"encoder.layers.{layer}.{name}.{kind}": TensorSpec(f32, (8, 8) if kind == "weight" else (8,))
        for layer in range(10_000)
        for name in ("q_proj", "k_proj", "v_proj", "out_proj", "norm")
        for kind in ("weight", "bias")
    }
    text = """\
encoder.layers.{l}. <-> h.{l}.:
  {p=q|k|v}_proj.{t=weight|bias} [o ...] <-> qkv.{t} [(p o) ...]
  out_proj.weight [o i] <-> out.weight [i o]
  ** <-> **
"""
    plan = make_plan([flatten(parse(text))], Manifest(tensors))
    assert (100_000, 60_000, 0) == (len(plan.source), len(plan.targets), len(plan.dropped))
