"""--like TARGET -> Manifest: a checkpoint, or a model `package.module:callable`, built on the meta device where it has one."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isomorph.errors import UsageError
from isomorph.job.inputs import as_checkpoint, open_place, place
from isomorph.tensors import Manifest

_MODEL = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)")


def like(target: Any) -> Manifest:
    """The names and specs that the result must have.

    `target` is a Manifest, a path, `package.module:callable` (this imports and calls the user's code; nothing else does), a
    mapping of arrays, or a model with `state_dict()`.
    """
    if isinstance(target, Manifest):
        return target
    if isinstance(target, str | os.PathLike):
        text = os.fspath(target)
        match = _MODEL.fullmatch(text)
        if match is not None and not Path(text).exists():
            return model_manifest(match[1], match[2])
        with open_place(place(text)) as checkpoint:
            return checkpoint.manifest
    if isinstance(target, Mapping) or hasattr(target, "state_dict"):
        from isomorph.job.arrays import manifest_of

        return manifest_of(target)
    return as_checkpoint(target).manifest


def model_manifest(module_name: str, callable_name: str) -> Manifest:
    """Import, call without arguments, and take the names and specs of what comes back."""
    from isomorph.job.arrays import manifest_of

    written = f"{module_name}:{callable_name}"
    found = _imported(module_name, written)
    for part in callable_name.split("."):
        if not hasattr(found, part):
            raise UsageError(f"{written}: {module_name} has no `{callable_name}`")
        found = getattr(found, part)
    if callable(found):
        torch = sys.modules.get("torch")
        device = torch.device("meta") if torch is not None else contextlib.nullcontext()
        try:
            with device:
                found = found()
        except Exception as error:
            raise UsageError(
                f"{written}: calling it without arguments failed: {type(error).__name__}: {error}"
            ) from error
    if not isinstance(found, Mapping) and not hasattr(found, "state_dict"):
        raise UsageError(
            f"{written} gave a {type(found).__name__}; a model with state_dict() or a mapping of arrays is needed"
        )
    return manifest_of(found, origin=written)


def _imported(module_name: str, written: str) -> Any:
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(module_name)
    except Exception as error:
        raise UsageError(f"{written}: importing {module_name} failed: {type(error).__name__}: {error}") from error
    finally:
        if added:
            sys.path.remove(here)
