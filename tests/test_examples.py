"""The shipped notebook runs from top to bottom, and ends with what it promises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "examples" / "clip_vision_tower.ipynb"

RUN = """
import sys
import nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": sys.argv[2]}}).execute()
for cell in notebook.cells:
    for output in cell.get("outputs", []):
        print(output.get("text") or output["data"].get("text/html") or output["data"].get("text/plain"))
"""


def test_the_notebook_runs(tmp_path: Path) -> None:
    """In an interpreter of its own, on the small checkpoint that it makes."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUN, str(NOTEBOOK), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for said in (
        "96 tensors · 539,553 parameters",
        "96 in = 54 used + 42 dropped · 42 out",
        "393,905 of 393,905 elements, bit for bit",
        "54 tensors have their old names and bytes again",
        "transformer.layers.1.self_attn.qkv_proj.weight, ",
        "parts k and v are swapped",
    ):
        assert said in done.stdout, said
    assert (tmp_path / "tower.safetensors").exists()


def test_the_notebook_is_shipped_without_outputs() -> None:
    """What it shows is made when it runs."""
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert '"outputs": []' in text
    assert '"output_type"' not in text
