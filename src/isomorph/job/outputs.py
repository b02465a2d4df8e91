"""A Plan -> one Plan for each output, and where each is laid out. `name::tensor` goes to the output `name`, without the prefix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from isomorph.errors import RefusedError, UsageError, near_misses
from isomorph.job.inputs import Place
from isomorph.stores.url import Url, is_remote

if TYPE_CHECKING:
    from isomorph.formats.base import Checkpoint, OutputLayout
    from isomorph.plan.plan import Plan

SEPARATOR = "::"


@dataclass(frozen=True)
class Output:
    """One target: its plan (tensor names as they are written into it), its path, and its layout."""

    name: str
    plan: Plan
    path: Path
    layout: OutputLayout


def output_names(targets: Mapping[str, object]) -> list[str]:
    """The outputs that a plan writes, in order; [""] when its names carry none."""
    return list(dict.fromkeys(name.partition(SEPARATOR)[0] if SEPARATOR in name else "" for name in targets)) or [""]


def split(plan: Plan) -> dict[str, Plan]:
    """A plan for each output. The checks stay with the first: they are carried out once."""
    names = output_names(plan.targets)
    if names == [""]:
        return {"": plan}
    parts: dict[str, Plan] = {}
    for number, output in enumerate(names):
        prefix = output + SEPARATOR
        parts[output] = replace(
            plan,
            targets={
                name.removeprefix(prefix): replace(target, name=name.removeprefix(prefix))
                for name, target in plan.targets.items()
                if name.startswith(prefix)
            },
            moves=tuple(
                replace(move, target=replace(move.target, tensor=move.target.tensor.removeprefix(prefix)))
                for move in plan.moves
                if move.target.tensor.startswith(prefix)
            ),
            checks=plan.checks if number == 0 else (),
        )
    return parts


def lay_out_outputs(
    plan: Plan,
    places: Sequence[Place],
    *,
    format: str | None,
    max_shard_size: int | None,
    metadata: Mapping[str, str],
    source: Checkpoint | None = None,
) -> list[Output]:
    """Pair the plan's outputs with the paths that were given, and lay each out. Raises UsageError, RefusedError, FormatError.

    With `source`, tensors are put where the file system of a target can share blocks with it; without, the layout depends on the
    plan alone.
    """
    from isomorph.engine.sharing import sharing_for
    from isomorph.formats.registry import lay_out

    parts = split(plan)
    given = {one.name: one for one in places}
    if len(given) != len(places):
        raise UsageError("two targets have the same name: write them as  vision=PATH text=PATH")
    if list(parts) == [""] and len(places) == 1:
        given = {"": places[0]}
    missing = [name for name in parts if name not in given]
    spare = [name for name in given if name not in parts]
    if missing or spare:
        raise UsageError(_pairing_problem(list(parts), given, missing, spare))
    outputs = []
    for name, part in parts.items():
        one = given[name]
        if one.inner is not None:
            raise RefusedError(one, "names a part of a file; a target is a whole file or folder")
        check_target(one.path)
        layout = lay_out(
            {tensor: target.spec for tensor, target in part.targets.items()},
            one.text,
            format=format,
            metadata={**metadata, "format": "pt"},
            max_shard_size=max_shard_size,
            sharing=None if source is None or is_remote(one.path) else sharing_for(part, source, _folder_of(one.path)),
        )
        outputs.append(Output(name, part, one.path, layout))
    return outputs


def _folder_of(target: Path) -> Path:
    """The folder in which a target is written: its own where that is a disk of its own."""
    return target if target.is_mount() else target.absolute().parent


def _pairing_problem(parts: list[str], given: Mapping[str, Place], missing: list[str], spare: list[str]) -> str:
    if parts == [""]:
        return f"the morph writes one checkpoint, and {len(given)} targets were given"
    written = " ".join(f"{name}=PATH" for name in parts)
    text = f"the morph writes {len(parts)} outputs: give them as  {written}"
    if missing:
        text += f"; without a path: {', '.join(missing)}"
    for name in spare:
        near = near_misses(name, parts)
        text += (
            f"; it writes no `{name}`" + (f" (did you mean {near[0]}?)" if near else "")
            if name
            else "; one path has no name"
        )
    return text


def check_target(path: Path) -> None:
    """RefusedError when nothing can be written there: the folder above is missing, or is no folder; a store is only read."""
    if isinstance(path, Url):
        if not path.store.writes:
            raise path.store.read_only(path)
        return
    parent = path.absolute().parent
    if not parent.exists():
        raise RefusedError(path, f"cannot be written: the folder {parent} does not exist", "Make it first")
    if not parent.is_dir():
        raise RefusedError(path, f"cannot be written: {parent} is a file, not a folder", "Name another target")
