"""REFERENCE and CANDIDATE of a trace -> the models, and what their configs say of the inputs they take."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from isomorph.errors import MorphError, UsageError
from isomorph.job.models import model_of

if TYPE_CHECKING:
    from isomorph.tensors import Manifest
    from isomorph.trace.facts import Facts

CONFIG_NAMES = ("config", "cfg", "hparams")
MOST_MODULES = 64


def built(model: Any, word: str) -> tuple[Any, tuple[str, ...]]:
    """A model as it was given, or built from `package.module:callable[@PATH]` (this runs the user's code); with notes.

    A model that is built here is put into evaluation mode. Raises UsageError for what is no model.
    """
    if isinstance(model, str | os.PathLike):
        text = os.fspath(model)
        found = model_of(text)
        if found is None:
            raise UsageError(
                f"{text}: a trace runs two models, and this is none. Name the {word} as  package.module:callable  or  "
                "package.module:Class@PATH, for example  transformers:CLIPModel@clip-vit-base/"
            )
        model = found.build()
        if isinstance(model, Mapping):
            raise UsageError(
                f"{text} gave a mapping of arrays; a trace runs models. Give a callable that returns the module"
            )
        if getattr(model, "training", False) is True and hasattr(model, "eval"):
            model.eval()
            return model, (f"the {word} was built in training mode; it was put into evaluation mode",)
        return model, ()
    if isinstance(model, Mapping) or (not callable(model) and hasattr(model, "checkpoint")):
        raise UsageError(
            f"the {word} is a mapping of arrays: a trace runs two models. Pass the module; to compare weights alone, use verify"
        )
    return model, ()


def config_mapping(model: Any) -> dict[str, Any] | None:
    """The config that a model carries, or a module in it: transformers', a dataclass, a mapping, an object with plain fields."""
    for module in _modules(model):
        for name in CONFIG_NAMES:
            found = _plain(getattr(module, name, None))
            if found:
                return found
    return None


def _modules(model: Any) -> Iterator[Any]:
    """The model and modules inside it, the outer ones first."""
    model = getattr(model, "__self__", model)
    level, seen = [model], 0
    while level and seen < MOST_MODULES:
        yield from level
        seen += len(level)
        below = []
        for module in level:
            children = getattr(module, "children", None)
            try:
                below += list(children()) if callable(children) else []
            except TypeError:  # another library's children, which want arguments
                continue
        level = below


def _plain(config: Any) -> dict[str, Any] | None:
    told = getattr(config, "to_dict", None)
    if callable(told) and not isinstance(config, type):
        found = told()
        return dict(found) if isinstance(found, Mapping) else None
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return dataclasses.asdict(config)
    if isinstance(config, Mapping):
        return {str(key): value for key, value in config.items()}
    fields = getattr(config, "__dict__", None)
    if fields is None or callable(config) or isinstance(config, type):
        return None
    return {key: _plain(value) or value for key, value in fields.items() if not key.startswith("_")}


def known_facts(
    models: tuple[Any, Any], manifests: tuple[Manifest, Manifest], given: Mapping[str, Any] | None
) -> Facts:
    """What is known of the inputs: from the config that was given, the models' own, and the catalogue's sizes of their layouts."""
    from isomorph.trace.facts import Facts, facts_of

    found = facts_of(given)
    for model in models:
        found = found.over(facts_of(config_mapping(model)))
    if found == Facts():
        for manifest in manifests:
            found = found.over(facts_of(_recognised(manifest)))
    return found.sane


def _recognised(manifest: Manifest) -> dict[str, Any] | None:
    """A config of the sizes that the catalogue sees in a state dict."""
    from isomorph.layouts.compose import family_config
    from isomorph.layouts.recognise import recognise

    try:
        found = recognise(manifest)
    except MorphError:
        return None
    return family_config(found.layout.family, found.layout.family.complete(found.sizes))
