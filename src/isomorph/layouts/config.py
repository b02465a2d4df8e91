"""config.json beside the weights: sizes from shapes, facts from whoever states them, and a question for each that nobody does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from isomorph.errors import Gap, MorphError
from isomorph.layouts.catalogue import Layout
from isomorph.layouts.compose import look_up, merged, put
from isomorph.layouts.recipe import Kind, Recipe, in_hub_terms, recipe
from isomorph.layouts.route import Route


def has_config(layout: Layout) -> bool:
    """Whether a config.json belongs beside weights in this layout."""
    of = recipe(layout.family.name)
    return of is not None and any(layout.name in kind.layouts for kind in of.kinds)


def port_config(route: Route, dtype: str | None = None) -> dict[str, Any] | None:
    """The config.json of what a route makes; None when none belongs there. `dtype` is what its `dtype` says, in torch's words.

    Raises MorphError (kind `config`) with every fact that nobody states.
    """
    of = recipe(route.target.family.name)
    if of is None:
        return None
    groups = _groups_made(route)
    kind = next(
        (one for one in of.kinds if route.target.name in one.layouts and groups.issuperset(one.groups)),
        None,
    )
    if kind is None:
        return None
    family = route.target.family
    own = route.given.get("model_type")
    source = dict(in_hub_terms(family.name, route.given) or {})
    made: dict[str, Any] = {}
    if family.is_kind(own) or any(own == one.model_type for one in of.kinds if own is not None):
        made = merged(made, source)
    made = merged(made, _nested(of.says))
    for name in family.groups:
        made = merged(made, _nested((of.present if name in groups else of.absent).get(name, {})))
    computed = {key: one for key, one in of.told_by(route.known).items() if _belongs(key, kind, groups, of)}
    stated = merged(merged(_nested(computed), _nested(route.source.layout.header.stated(route.given))), made)
    for axis in family.axes.values():
        if axis.config is not None and axis.name in route.known and _belongs(axis.config, kind, groups, of):
            put(stated, axis.config, route.known[axis.name])
    stated = merged(stated, {key: value for key, value in source.items() if key.endswith("_config") or key in of.facts})
    missing = [key for key in of.facts if _belongs(key, kind, groups, of) and look_up(stated, key) is None]
    if missing:
        raise MorphError(_questions(route, of, missing))
    whole = look_up(stated, kind.root) if kind.root else stated
    assert isinstance(whole, dict)
    found = {key: value for key, value in whole.items() if key not in ("architectures", "model_type", "torch_dtype")}
    if not kind.root:
        found = {
            key: value
            for key, value in found.items()
            if not (isinstance(value, dict) and key.endswith("_config")) or _tower(key) in groups or key in source
        }
    model_type = kind.model_type or (own if family.is_kind(own) else family.model_type)
    kept = route.given.get("architectures") if own in family.also else None  # a twin's classes have names of their own
    head: dict[str, Any] = {"architectures": kept or [kind.architecture], "model_type": model_type}
    if dtype is not None:
        found["dtype"] = dtype
    return {**head, **found}


def missing_files(layout: Layout, names: Sequence[str]) -> Iterator[str]:
    """What belongs beside the weights and is not among these names: `tokenizer (tokenizer.json or vocab.txt)`."""
    of = recipe(layout.family.name)
    for what, files in (of.files if of is not None and has_config(layout) else {}).items():
        if not set(files) & set(names):
            yield f"{what} ({' or '.join(files)})"


def differing_facts(route: Route) -> Iterator[str]:
    """Facts that the target's layout fixes and the source's config states otherwise, for people."""
    if route.target == route.source.layout:
        return
    for key, value in route.target.header.facts.items():
        before = look_up(in_hub_terms(route.target.family.name, route.given), key)
        if before is not None and before != value:
            yield f"{route.target} has {key} = {value!r}, and the source's config {before!r}: set it where the result is loaded"


def _groups_made(route: Route) -> frozenset[str]:
    """The groups of the hub that the target's layout carries of what is there."""
    groups = route.source.fit.found.groups
    parts = route.target.header.parts
    return groups if not parts else frozenset(group for group in groups if group in parts)


def _nested(facts: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in facts.items():
        put(made, key, value)
    return made


def _tower(key: str) -> str:
    return key.removesuffix("_config")


def _belongs(key: str, kind: Kind, groups: frozenset[str], of: Recipe) -> bool:
    """Whether a config key is asked of this kind of model: its tower is there, and it lies below the kind's root."""
    if kind.root:
        return key.startswith(kind.root + ".")
    head, dot, _ = key.partition(".")
    return not dot or not head.endswith("_config") or _tower(head) in groups


def _questions(route: Route, of: Recipe, missing: Sequence[str]) -> list[Gap]:
    return [
        Gap(
            "config",
            f"config.json of {route.target} needs {len(missing)} facts that neither shapes nor {route.source.layout} tell"
            if len(missing) > 1
            else f"config.json of {route.target} needs a fact that neither shapes nor {route.source.layout} tell",
            details=tuple(f"{key}: {of.facts[key]}" for key in missing),
            hint="State them: --config FILE, or  " + "  ".join(f"--set config.{key}=…" for key in missing),
        )
    ]
