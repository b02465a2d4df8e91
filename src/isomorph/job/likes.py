"""--like TARGET -> Manifest: a checkpoint, or a MODEL, built on the meta device where it has one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from isomorph.job.arrays import manifest_of
from isomorph.job.inputs import as_checkpoint, open_place, place
from isomorph.job.models import model_of
from isomorph.tensors import Manifest


def like(target: Any) -> Manifest:
    """The names and specs that the result must have.

    `target` is a Manifest, a path, `package.module:callable[@PATH]` (this runs the user's code), a
    mapping of arrays, or a model with `state_dict()`.
    """
    if isinstance(target, Manifest):
        return target
    if isinstance(target, str | os.PathLike):
        text = os.fspath(target)
        model = model_of(text)
        if model is not None:
            return manifest_of(model.build(meta=True), origin=str(model))
        with open_place(place(text)) as checkpoint:
            return checkpoint.manifest
    if isinstance(target, Mapping) or hasattr(target, "state_dict"):
        return manifest_of(target)
    return as_checkpoint(target).manifest
