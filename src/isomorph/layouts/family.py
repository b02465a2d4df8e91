"""family.toml -> Family: the vocabulary of a family's axes, which tensors may be absent together, and its best-known sizes."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from isomorph.language.expression_syntax import read_expression
from isomorph.language.expressions import evaluate
from isomorph.language.resolve import variables_of
from isomorph.language.tokens import Cursor, Line
from isomorph.language.tree import Expression

FILE = "family.toml"
LARGEST_SIZE = 1 << 40
AGAIN = "_"
"""`width_` is the size `width` once more: an axis may stand only once in a block of the notation."""


def plain(axis: str) -> str:
    """The word of the vocabulary: `width` for `width_`."""
    return axis.removesuffix(AGAIN)


@dataclass(frozen=True)
class Axis:
    """One word of the vocabulary. `config` is the hub's config key that equals it; `of` what it always equals in other axes;
    `says` what it is called in print. A `ragged` axis has another size from place to place (Swin's blocks in its stages)."""

    name: str
    config: str | None = None
    of: Expression | None = None
    says: str = ""
    ragged: bool = False

    @property
    def follows_from(self) -> tuple[str, ...]:
        """The axes that `of` names, each once."""
        return () if self.of is None else tuple(dict.fromkeys(variables_of(self.of)))


@dataclass(frozen=True)
class Group:
    """Hub tensors that may be absent together. `listed`: they belong to the key set that is shown without a file. `scattered`:
    present in some layers only, so that one of them does not ask for its siblings in the other layers."""

    name: str
    patterns: tuple[str, ...]
    listed: bool = True
    scattered: bool = False


@dataclass(frozen=True)
class Family:
    """What a family folder says besides its layouts. `model_type` is that of the hub's config.json, `also` are those of models with
    the same tensors (mt5 beside t5). `base` is the prefix of the hub that a model without a head is saved without,
    unless `base_always`. `sizes` are those of the best-known model, of axes that are not derived. `probe` are
    sizes that a test model must have (an even head_dim). `zeros` are hub tensors that are nothing in every model, and that a layout
    leaves out for that. `example` is config that the layouts' `when` lines ask for there."""

    name: str
    title: str = ""
    model_type: str | None = None
    also: tuple[str, ...] = ()
    hub: str = "hf"
    base: str | None = None
    base_always: bool = False
    axes: Mapping[str, Axis] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    probe: Mapping[str, int] = field(default_factory=dict)
    zeros: tuple[str, ...] = ()
    groups: Mapping[str, Group] = field(default_factory=dict)
    example: Mapping[str, Any] = field(default_factory=dict)

    def is_kind(self, model_type: object) -> bool:
        """Whether a config of this `model_type` belongs to a model of the family."""
        return model_type is not None and model_type in (self.model_type, *self.also)

    def complete(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """These sizes, and all that follow from them by `of`, read in either direction. What does not divide is left unknown.

        Raises SizeClash when two ways give two sizes.
        """
        known = dict(sizes)
        changed = True
        while changed:
            changed = False
            for axis in self.axes.values():
                if axis.of is None:
                    continue
                unknown = [name for name in axis.follows_from if name not in known]
                if not unknown:
                    value = evaluate(axis.of, known, {})
                    if not isinstance(value, int) or value < 0:
                        continue
                    if axis.name not in known:
                        known[axis.name] = value
                        changed = True
                    elif known[axis.name] != value:
                        raise SizeClash(axis.name, known[axis.name], value)
                elif axis.name in known and len(unknown) == 1:
                    solved = _solve(axis.of, unknown[0], known, known[axis.name])
                    if solved is not None:
                        known[unknown[0]] = solved
                        changed = True
        return known


class SizeClash(ValueError):
    """An axis has two sizes at once."""

    def __init__(self, axis: str, first: int, second: int) -> None:
        self.axis, self.first, self.second = axis, first, second
        super().__init__(f"{axis} is {first} and {second}")


def _solve(expression: Expression, name: str, known: Mapping[str, int], wanted: int) -> int | None:
    """The smallest size of `name` at which an expression that grows with it equals `wanted`; None where none does."""

    def at(size: int) -> int | None:
        try:
            value = evaluate(expression, {**known, name: size}, {})
        except ValueError:
            return None  # a division by zero
        return value if isinstance(value, int) else None

    low, high = 1, 1
    while (value := at(high)) is not None and value < wanted and high < LARGEST_SIZE:
        high *= 2
    while low < high:
        middle = (low + high) // 2
        value = at(middle)
        if value is None or value < wanted:
            low = middle + 1
        else:
            high = middle
    return low if at(low) == wanted else None


def read_family(folder: Path) -> Family:
    """Read a family's folder. Raises ValueError, naming the file, for what cannot be understood."""
    path = folder / FILE
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
        return Family(
            name=folder.name,
            title=found.get("title", folder.name),
            model_type=found.get("model_type"),
            also=tuple(found.get("also", ())),
            hub=found.get("hub", "hf"),
            base=found.get("base"),
            base_always=found.get("base_always", False),
            axes={name: _axis(name, facts) for name, facts in found.get("axes", {}).items()},
            sizes=found.get("sizes", {}),
            probe=found.get("probe", {}),
            zeros=tuple(found.get("zeros", ())),
            groups={
                name: Group(name, tuple(facts["names"]), facts.get("default", True), facts.get("scattered", False))
                for name, facts in found.get("groups", {}).items()
            },
            example=found.get("example", {}),
        )
    except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def _axis(name: str, facts: Mapping[str, Any]) -> Axis:
    of = facts.get("of")
    return Axis(
        name=name,
        config=facts.get("config"),
        of=None if of is None else read_expression(Cursor(Line(1, str(of), 0, len(str(of)), None))),
        says=facts.get("says", name.replace("_", " ")),
        ragged=facts.get("ragged", False),
    )
