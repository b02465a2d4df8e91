"""A result that was written -> what its layout's load line may ask for: where it lies, and the expression that reads it.

`{path}`    the result as it was named, a file or a folder
`{folder}`  the folder, where it holds a config too; only in a format that the layout's own library opens
`{file}`    the one file of weights; only in such a format
`{keras}`   the same, where its name is one that Keras takes for weights of Keras 3
`{torch}`   the expression that reads it as a state dict of torch tensors; only where one call of torch or safetensors does
`{paddle}`  the same for paddle
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from isomorph.formats.base import OutputLayout
    from isomorph.layouts.route import Route

TORCH = ("safetensors", "torch_zip")
"""What libraries on torch open, whichever of the two they write."""
_READS = {
    ("torch", "torch_zip"): "torch.load({})",
    ("torch", "safetensors"): "safetensors.torch.load_file({})",
    ("paddle", "paddle"): "paddle.load({})",
    ("paddle", "safetensors"): "safetensors.paddle.load_file({})",
}


CONFIGS = ("config.json", "model_config.json")
"""What `from_pretrained` of transformers and PaddleNLP reads beside the weights."""


def places(path: Path, written: OutputLayout, usual: str | None) -> Mapping[str, str]:
    """The places of a result, each as the inside of a Python string, and the expressions. `usual` is the layout's own format."""
    found = {"path": _inside(path)}
    is_opened = written.format in (TORCH if usual is None or usual in TORCH else (usual,))
    if written.is_folder and is_opened and any((path / name).is_file() for name in CONFIGS):
        found["folder"] = _inside(path)
    if len(written.files) == 1:
        file = path / written.files[0].name if written.is_folder else path
        if is_opened:
            found["file"] = _inside(file)
        if written.format == "hdf5" and file.name.endswith(".weights.h5"):
            found["keras"] = _inside(file)
        for (library, format), call in _READS.items():
            if format == written.format:
                found[library] = call.format(f'"{_inside(file)}"')
    return found


def sizes_carried(route: Route) -> Mapping[str, int]:
    """The sizes of what the checkpoint holds. A part that it lacks has none, whatever the config states (of T5's encoder by itself,
    the decoder's)."""
    from isomorph.layouts.hub import schema

    hub = schema(route.target.family.name)
    told = {*hub.read(route.source.fit.hub).sizes, *hub.hidden}
    return {axis: size for axis, size in route.known.items() if axis in told}


def _inside(path: Path) -> str:
    """A path between double quotes of Python."""
    return str(path).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
