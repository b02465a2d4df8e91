"""A quantised checkpoint as its layout sees it: shapes in elements, where the manifest counts items.

    blk.0.ffn_down.weight  q4_k[4096,43]  ->  [4096 11008]

Only for reading a layout off names and shapes. A plan moves items, and is made on the manifest as it is.
"""

from __future__ import annotations

from dataclasses import replace

from isomorph.tensors import DTYPES, Manifest, TensorSpec


def in_elements(manifest: Manifest) -> Manifest:
    """The manifest with every block of items spread out, as numbers that can be put anywhere; itself where there are none.

    >>> from isomorph.tensors import spec
    >>> str(in_elements(Manifest({"w": spec("q4_k[8,2]")}))["w"])
    'f32[8,512]'
    """
    if not any(spec.dtype.block for spec in manifest.values()):
        return manifest
    number = DTYPES["f32"]
    return replace(
        manifest,
        tensors={
            name: TensorSpec(number, spec.element_shape) if spec.dtype.block else spec
            for name, spec in manifest.items()
        },
    )
