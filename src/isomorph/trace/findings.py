"""Suspects of many runs -> findings: one a place, whatever layer and run it shows in; diagnosed where it was met first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from isomorph.trace.diagnose import diagnose, shape_of
from isomorph.trace.naming import Fold, is_inside
from isomorph.trace.nouns import Cause, Finding, is_of_single
from isomorph.trace.scene import Scene

ORDER = ("norm-order", "run-order", "parallel-block")
"""Causes after which a block's inside is not comparable."""
MOST_DIAGNOSED = 3
"""Runs in which a place is diagnosed, as long as nothing explains it."""
STACK = "layers-"
"""Kinds of causes that speak of a whole stack of layers begin so."""


@dataclass
class Place:
    """One folded place. `is_small`: in float64 runs, no error there was beyond what float32 allows."""

    fold: Fold
    scene: Scene
    causes: tuple[Cause, ...]
    shape: tuple[str, ...]
    runs: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    diagnosed: int = 1
    is_small: bool = True


class Findings:
    """What was found, in the order in which it was met."""

    def __init__(self) -> None:
        self.places: dict[Fold, Place] = {}

    def add(self, fold: Fold, scene: Scene, run: str, is_again: bool = False) -> None:
        """One suspect more. `is_again`: all that it tells is that the place diverges in this run too."""
        place = self.places.get(fold)
        if place is None:
            place = self.places[fold] = Place(fold, scene, *_explained(scene))
        elif (
            not is_again
            and place.causes[0].kind == "unknown"
            and place.diagnosed < MOST_DIAGNOSED
            and run not in place.runs
        ):
            causes, shape = _explained(scene)
            place.diagnosed += 1
            if causes[0].kind != "unknown":
                place.scene, place.causes, place.shape = scene, causes, shape
        if run not in place.runs:
            place.runs.append(run)
        if scene.suspect.candidate not in place.places and not is_again:
            place.places.append(scene.suspect.candidate)
        suspect = scene.suspect
        place.is_small = place.is_small and is_of_single(scene.dtype, suspect.error, suspect.tolerance)

    def findings(self) -> tuple[Finding, ...]:
        """All but those that are only float32's rounding. A stack of layers that is permuted is one, whatever is in a layer."""
        found: dict[object, Finding] = {}
        for place in self.places.values():
            if _is_rounding(place) or self._is_in_disorder(place):
                continue
            one = Finding(place.scene.suspect, tuple(place.runs), place.causes, place.shape, _ordered(place))
            best = one.causes[0]
            same: object = (best.kind, best.says) if best.kind.startswith(STACK) else place.fold
            first = found.get(same)
            found[same] = one if first is None else _joined(first, one)
        return tuple(found.values())

    def _is_in_disorder(self, place: Place) -> bool:
        """Whether it lies in a block whose parts were found to run in another order: nothing inside can be set side by side."""
        for earlier in self.places.values():
            if earlier is place:
                return False
            if earlier.causes[0].kind in ORDER and any(
                block and is_inside(place.scene.suspect.candidate, block) for block in earlier.places
            ):
                return True
        return False

    def notes(self) -> Iterator[str]:
        """What is said of blocks in disorder, and of differences that are only float32's rounding."""
        hidden = dict.fromkeys(one.scene.suspect.candidate for one in self.places.values() if self._is_in_disorder(one))
        if hidden:
            yield (
                f"{', '.join(hidden)}: with its parts in another order, what else differs inside cannot be told; trace again when "
                "the order is right"
            )
        for place in self.places.values():
            if _is_rounding(place):
                suspect = place.scene.suspect
                yield (
                    f"{suspect.candidate or 'the model'}: agrees to {suspect.error:.0e}, and no further: "
                    "a difference of float32's size, as of a constant or a step that one side computes in float32"
                )


def _joined(first: Finding, other: Finding) -> Finding:
    return replace(
        first,
        runs=tuple(dict.fromkeys((*first.runs, *other.runs))),
        places=tuple(dict.fromkeys((*first.places, *other.places))),
    )


def _explained(scene: Scene) -> tuple[tuple[Cause, ...], tuple[str, ...]]:
    causes = diagnose(scene)
    return causes, shape_of(scene) if causes[0].kind == "unknown" else ()


def _is_rounding(place: Place) -> bool:
    """Nothing explains it, and no float32 run could see it."""
    return place.is_small and place.causes[0].kind == "unknown"


def _ordered(place: Place) -> tuple[str, ...]:
    first = place.scene.suspect.candidate
    return (first, *(name for name in place.places if name != first))
