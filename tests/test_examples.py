"""The shipped notebooks run from top to bottom, and end with what they promise."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))

RUN = """
import sys
import nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
folder = {"metadata": {"path": sys.argv[2]}}
NotebookClient(notebook, timeout=300, kernel_name="python3", resources=folder, coalesce_streams=True).execute()
for cell in notebook.cells:
    for output in cell.get("outputs", []):
        print(output.get("text") or output["data"].get("text/html") or output["data"].get("text/plain"))
"""


def ran(name: str, folder: Path) -> str:
    """All that a notebook shows, run in a folder and in an interpreter of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUN, str(EXAMPLES / name), str(folder)],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_clip_tower_notebook_runs(tmp_path: Path) -> None:
    """On the small checkpoint that it makes."""
    shown = ran("clip_vision_tower.ipynb", tmp_path)
    for said in (
        "96 tensors · 539,553 parameters",
        "96 in = 54 used + 42 dropped · 42 out",
        "393,905 of 393,905 elements, bit for bit",
        "54 tensors have their old names and bytes again",
        "transformer.layers.1.self_attn.qkv_proj.weight, ",
        "parts k and v are swapped",
    ):
        assert said in shown, said
    assert (tmp_path / "tower.safetensors").exists()


AGREE = (
    ("logits of Paddle and of transformers differ by ", 1e-5),
    ("ViT's blocks and those of CLIP's tower differ by ", 1e-5),
    ("transformers' differ by ", 1e-5),
    ("its texts are BERT's, projected: they differ by ", 1e-5),
    ("its images are ViT's: they differ by ", 1e-5),
    ("causal: float16, all finite: True, ", 2e-2),
    ("causal and padded: float16, all finite: True, ", 2e-2),
)


def test_the_port_notebook_runs(tmp_path: Path) -> None:
    """What it promises is what it shows: equal outputs, growth of the stream, the fault found in module and file, half precision."""
    shown = ran("vit_bert_clip_paddle.ipynb", tmp_path)
    for said in (
        "vit.encoder.layer.{l}.layernorm_before.*",
        "encoder.layer.{l}.attention.output.LayerNorm.*",
        "text_model.encoder.layers.{l}.self_attn.q_proj.*",
        "encoder.block.{l}.layer.0.SelfAttention.relative_attention_bias.weight",
        "x_BTC = x_BTC + self.attention(self.layernorm_before(x_BTC))",
        "return self.LayerNorm(self.dense(inner_BTF) + residual_BTD)",
        "layout    vit/hf -> vit/paddle_nn",
        "104 of 104 tensors came back with their names and bytes",
        "SAME ",
        "◀ first divergence",
        "DIFFERENT 1 of 104: encoder.layers.3.self_attn.out_proj.weight, ",
        "cause     transposed: equal to the expected tensor's transpose",
        "wrote     spliced · 206 tensors",
        "wrote     dual · 210 tensors",
        "the dual encoder runs: logits [3, 8]",
        "a float32 mask: ",
        "cast to float16, lowest number: -inf",
        "a row that sees nothing: [nan, nan, nan]",
    ):
        assert said in shown, said
    assert re.search(
        r"^encoder\.layers\.3\.self_attn\.out_proj: weight is transposed; .* agrees to \de-1\d ", shown, re.MULTILINE
    )
    for before, limit in AGREE:
        assert number_after(before, shown) <= limit, before
    post, pre = (numbers(re.escape(name), shown) for name in ("BERT, post-LN", "ViT, pre-LN"))
    assert [32**0.5] * 6 == pytest.approx(post, abs=1e-2)
    assert pre == sorted(pre) and len(set(pre)) == 6
    assert 0.9 < min(numbers(r"cosine of the logits, image by image: \[", shown)) < 0.999


def number_after(text: str, shown: str) -> float:
    """The number that follows a text."""
    found = re.search(re.escape(text) + r"([\d.e+-]+)", shown)
    assert found is not None, text
    return float(found[1])


def numbers(pattern: str, shown: str) -> list[float]:
    """The numbers of the line that begins so."""
    found = re.search(rf"^{pattern}([\d. ]+)", shown, re.MULTILINE)
    assert found is not None, pattern
    return [float(one) for one in found[1].split()]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=[notebook.stem for notebook in NOTEBOOKS])
def test_notebooks_are_shipped_without_outputs(notebook: Path) -> None:
    """What they show is made when they run."""
    text = notebook.read_text(encoding="utf-8")
    assert '"outputs": []' in text
    assert '"output_type"' not in text
