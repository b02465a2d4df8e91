"""Hold the targets of a plan against the manifest of a model or file (`--like`), in torch's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from isomorph.errors import Gap, near_misses
from isomorph.plan.gaps import MOST_SHOWN
from isomorph.plan.plan import Target
from isomorph.tensors import Manifest


def unlike(targets: Mapping[str, Target], like: Manifest) -> list[Gap]:
    """One gap for each way in which the targets differ from `like`: missing keys, unexpected keys, shapes, dtypes."""
    missing = [name for name in like if name not in targets]
    unexpected = [name for name in targets if name not in like]
    shapes = [name for name in targets if name in like and targets[name].spec.shape != like[name].shape]
    dtypes = [
        name
        for name in targets
        if name in like and name not in set(shapes) and targets[name].spec.dtype != like[name].dtype
    ]
    origin = like.origin or "the target"
    gaps: list[Gap] = []
    if missing:
        details = [f"`{name}` {like[name].shown}{_near(name, unexpected)}" for name in missing]
        gaps.append(
            _gap(f"Missing key(s) in the result, which {origin} has", details, missing, "Write a rule that makes them")
        )
    if unexpected:
        details = [f"`{name}` {targets[name].spec.shown}{_near(name, missing)}" for name in unexpected]
        gaps.append(
            _gap(f"Unexpected key(s) in the result, which {origin} lacks", details, unexpected, "Drop or rename them")
        )
    if shapes:
        details = [
            f"`{name}`: the result has [{_plain(targets[name].spec.shape)}], {origin} has [{_plain(like[name].shape)}]"
            + (" (transposed?)" if targets[name].spec.shape == tuple(reversed(like[name].shape)) else "")
            for name in shapes
        ]
        gaps.append(_gap("size mismatch", details, shapes, "Mend the axes of the rules that make them"))
    if dtypes:
        details = [
            f"`{name}`: the result is {targets[name].spec.dtype}, {origin} has {like[name].dtype}" for name in dtypes
        ]
        gaps.append(_gap("dtype mismatch", details, dtypes, "Cast with --dtype, or in the rule:  | float ~> bf16"))
    return gaps


def _gap(message: str, details: Sequence[str], names: Sequence[str], hint: str) -> Gap:
    shown = list(details[:MOST_SHOWN])
    if len(details) > MOST_SHOWN:
        shown.append(f"… and {len(details) - MOST_SHOWN} more")
    return Gap("like", f"{message}: {len(names)}", details=tuple(shown), hint=hint, tensors=tuple(names))


def _near(name: str, candidates: Sequence[str]) -> str:
    likely = near_misses(name, candidates, 1)
    return f" (is it `{likely[0]}`?)" if likely else ""


def _plain(shape: Sequence[int]) -> str:
    return " ".join(map(str, shape))
