"""config.toml -> Recipe: how a family's config.json is made, and how one that is given is read in the hub's terms.

One `[[config]]` for each kind of model (architecture), `[says]` what is always so, `[present.GROUP]` and `[absent.GROUP]` what a
part's being there decides, `[facts]` what shapes cannot tell, `[computed]` what sizes tell by the family's own rule, `[files]`
what else belongs beside the weights.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from isomorph.errors import MorphError
from isomorph.language.expression_syntax import read_expression
from isomorph.language.expressions import evaluate
from isomorph.language.tokens import Cursor, Line
from isomorph.language.tree import Expression

FOLDER = Path(__file__).parent
FILE = "config.toml"


@dataclass(frozen=True)
class Kind:
    """One kind of model: the layouts it is written for, the groups it must have, and the config key that becomes the whole."""

    architecture: str
    layouts: tuple[str, ...]
    groups: tuple[str, ...] = ()
    root: str = ""
    model_type: str | None = None


@dataclass(frozen=True)
class Recipe:
    """How a family's config.json is made.

    `facts` maps a config key to what it is, with the usual values, as a question says it; `computed` are those that sizes tell by
    the family's own rule, where nobody states them; `files` is what else belongs beside the weights: a name for people -> the
    file names of which one is enough.
    """

    kinds: tuple[Kind, ...] = ()
    says: Mapping[str, Any] = field(default_factory=dict)
    present: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    absent: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    computed: Mapping[str, Expression] = field(default_factory=dict)
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def told_by(self, sizes: Mapping[str, int]) -> dict[str, object]:
        """The computed facts of a model of these sizes; not those that need a size it does not have."""
        found: dict[str, object] = {}
        for key, expression in self.computed.items():
            try:
                found[key] = evaluate(expression, sizes, {})
            except MorphError:
                continue
        return found


@cache
def recipe(family: str) -> Recipe | None:
    """The recipe of a family, None where it has none."""
    path = FOLDER / family / FILE
    if not path.is_file():
        return None
    found = tomllib.loads(path.read_text(encoding="utf-8"))
    kinds = tuple(
        Kind(
            one["architecture"],
            tuple(one["layouts"]),
            tuple(one.get("groups", ())),
            one.get("root", ""),
            one.get("model_type"),
        )
        for one in found.get("config", ())
    )
    files = {name: tuple(names) for name, names in found.get("files", {}).items()}
    computed = {
        key: read_expression(Cursor(Line(1, text, 0, len(text), None)))
        for key, text in found.get("computed", {}).items()
    }
    return Recipe(
        kinds,
        found.get("says", {}),
        found.get("present", {}),
        found.get("absent", {}),
        found.get("facts", {}),
        computed,
        files,
    )


def in_hub_terms(family: str, config: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """A config by the hub's keys: that of a tower alone (`clip_vision_model`) is put under the key that it has in the whole."""
    of = recipe(family)
    kind = (config or {}).get("model_type")
    for one in of.kinds if of is not None and kind is not None else ():
        if one.root and one.model_type == kind:
            return {one.root: config}
    return config
