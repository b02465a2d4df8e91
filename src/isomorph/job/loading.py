"""Source + port + what a live model holds -> the plan that fills it, proved before anything is read; then array after array.

The model is told by its library (`isomorph.torch`, `isomorph.paddle`): names with specs, what is one tensor, what is empty.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from isomorph.errors import CheckError, Gap, MorphError
from isomorph.formats.base import Checkpoint
from isomorph.job.port import Port, make_port
from isomorph.tensors import DType, Manifest, TensorSpec

if TYPE_CHECKING:
    import numpy as np

    from isomorph.plan.plan import Plan

MOST_SHOWN = 12


@dataclass(frozen=True)
class Held:
    """What a model holds: `tied` gives names that are one tensor one number, `empty` are parameters that have no values yet.

    `config` is the model's own, for a morph that asks and a source that has none beside it.
    """

    specs: Mapping[str, TensorSpec]
    tied: Mapping[str, int]
    empty: frozenset[str]
    title: str
    config: Mapping[str, Any] | None = None


class _Keys(NamedTuple):
    missing_keys: list[str]
    unexpected_keys: list[str]


class Loaded(_Keys):
    """`missing, unexpected = load_model(…)`, as torch's `load_state_dict` gives them.

    `cast` are the names whose values were rounded to the model's dtype, with both dtypes; `still_empty` the buffers without values;
    `notes` say what was decided on the way between two layouts, and which facts differ that weights do not carry.
    """

    cast: Mapping[str, tuple[DType, DType]]
    still_empty: tuple[str, ...]
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        if not any((*self, self.still_empty)):
            return "<All keys matched successfully>"
        rest = f", still_empty={list(self.still_empty)}" if self.still_empty else ""
        return f"Loaded(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys}{rest})"


@dataclass
class Loading:
    """A plan cut down to what the model holds. `arrays` carries it out."""

    plan: Plan
    source: Checkpoint
    missing: list[str]
    unexpected: list[str]
    wanted: Mapping[str, DType]
    cast: dict[str, tuple[DType, DType]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    owned: bool = False

    def arrays(self) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
        """(name, values in the model's dtype), one at a time; nothing is kept. Raises CheckError where a value does not fit."""
        from isomorph.engine.arrays import arrays

        try:
            yield from map(self._in_dtype, arrays(self.plan, self.source))
        finally:
            if self.owned:
                self.source.close()

    def _in_dtype(self, made: tuple[str, np.ndarray[Any, Any]]) -> tuple[str, np.ndarray[Any, Any]]:
        from isomorph.job.arrays import cast_array

        name, array = made
        source, target = self.plan.targets[name].spec.dtype, self.wanted[name]
        if source == target:
            return made
        self.cast[name] = (source, target)
        return name, cast_array(name, array, source, target)

    def loaded(self, still_empty: Sequence[str] = ()) -> Loaded:
        found = Loaded(self.missing, self.unexpected)
        found.cast, found.still_empty, found.notes = self.cast, tuple(still_empty), self.notes
        return found


def prepare(
    held: Held,
    source: Any,
    morph: Any,
    *,
    to: str | None,
    from_: str | None,
    inverse: bool,
    config: Any,
    sizes: Mapping[str, int],
    dtype: DType | None,
    strict: bool,
) -> Loading:
    """Prove that the source fills the model. Raises MorphError with every gap; no tensor has been read then, and none written."""
    from isomorph.job.inputs import open_sources

    chain = [] if morph is None else list(morph) if isinstance(morph, list | tuple) else [morph]
    chain = [getattr(one, "language", one) for one in chain]
    port = make_port(chain, to=to, from_=from_, inverse=inverse, config=config, sizes=sizes)
    several = list(source) if isinstance(source, list | tuple) else [source]
    checkpoint = open_sources(several)
    owned = all(isinstance(one, str | os.PathLike) for one in several)
    try:
        loading = _prove(port, checkpoint, held, dtype, strict)
    except BaseException:
        if owned:
            checkpoint.close()
        raise
    loading.owned = owned
    return loading


def _prove(port: Port, source: Checkpoint, held: Held, dtype: DType | None, strict: bool) -> Loading:
    from isomorph.plan.like import unlike

    port = port.with_config_beside(source.paths[:1])
    if port.file_config is None and held.config is not None:
        port = replace(port, file_config=held.config, config_from=held.title)
    port = port.settled(source.manifest)
    plan = port.plan(source.manifest)
    named = _named_as(held, port, plan)
    if named is not port:
        port, plan = named, named.plan(source.manifest)
    made = {held.tied[name] for name in plan.targets if name in held.tied}
    missing = [name for name in held.specs if name not in plan.targets and held.tied[name] not in made]
    unexpected = [name for name in plan.targets if name not in held.specs]
    both = [name for name in plan.targets if name in held.specs]
    wanted: dict[str, DType] = {}
    expected: dict[str, TensorSpec] = {}
    for name in both:
        there, comes = held.specs[name], plan.targets[name].spec.dtype
        wanted[name] = dtype if dtype is not None and there.dtype.is_float else there.dtype
        floats = comes.is_float and wanted[name].is_float  # these are rounded, others must be the same
        expected[name] = TensorSpec(comes if floats else wanted[name], there.shape)
    targets = dict(plan.targets) if strict else {name: plan.targets[name] for name in both}
    if strict:
        expected.update((name, held.specs[name]) for name in missing)
    gaps = unlike(targets, Manifest(expected, origin=held.title))
    empty = [name for name in missing if name in held.empty]
    if empty and not strict:
        gaps.append(_would_stay_empty(empty, held))
    if gaps:
        raise MorphError(gaps)
    kept = set(both)
    plan = replace(
        plan,
        targets={name: plan.targets[name] for name in both},
        moves=tuple(move for move in plan.moves if move.target.tensor in kept),
    )
    return Loading(plan, source, missing, unexpected, wanted, notes=port.notes)


def _named_as(held: Held, port: Port, plan: Plan) -> Port:
    """With `to`: the port to the names that the model has, with or without the base prefix of the layout (`bert.`, `model.`)."""
    from isomorph.layouts.compose import added, stripped

    base = "" if port.route is None else port.route.target.base
    if port.route is None or not base or not plan.targets:
        return port
    has = any(name.startswith(base) for name in held.specs)
    if has and port.route.base:
        stage = added(base)
    elif not has and all(name.startswith(base) for name in plan.targets):
        stage = stripped(base)
    else:
        return port
    return replace(port, morph=stage if port.morph is None else port.morph @ stage)


def config_of(model: object) -> Mapping[str, Any] | None:
    """The config that a model carries, as transformers' do; None where it has none."""
    told = getattr(getattr(model, "config", None), "to_dict", None)
    found = told() if callable(told) else None
    return found if isinstance(found, Mapping) else None


def _would_stay_empty(names: Sequence[str], held: Held) -> Gap:
    details = [f"`{name}` {held.specs[name].shown}" for name in names[:MOST_SHOWN]]
    if len(names) > MOST_SHOWN:
        details.append(f"… and {len(names) - MOST_SHOWN} more")
    return Gap(
        "like",
        f"parameters of {held.title} would stay empty: they have a shape and no values, and nothing makes them: {len(names)}",
        details=tuple(details),
        hint="Build the model with values for them (not on the meta device), or make them in the morph",
        tensors=tuple(names),
    )


def unequal_copies(first: str, second: str, title: str) -> CheckError:
    """Two names of one tensor, for which the source holds different values."""
    return CheckError(
        [
            Gap(
                "tie",
                f"`{first}` and `{second}` are one tensor in {title}, but the source has different values for them",
                hint="Untie them in the model, or drop one of the two in the morph",
                tensors=(first, second),
            )
        ]
    )
