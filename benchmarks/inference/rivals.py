"""Other matchers of names and shapes, on the same pairs: weightbridge, and names by their edit distance within a shape.

They are given numbers for weights, so that what they give back says where each element comes from.
"""

from __future__ import annotations

import contextlib
import io
import signal
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from conversions import Array, Arrays, Example


@dataclass(frozen=True)
class Placed:
    """Targets whose every element is right, those that are wrong, and those it refused to place."""

    right: int
    wrong: int
    refused: int
    why: str = ""


def judged(found: Mapping[str, Array], example: Example, why: str = "") -> Placed:
    """What a matcher made, held against the truth."""
    right = sum(
        array.shape == example.truth[name].shape and bool((array == example.truth[name]).all())
        for name, array in found.items()
    )
    return Placed(right, len(found) - right, len(example.truth) - len(found), why)


def weightbridge(example: Example, seconds: int = 120) -> Placed:
    """weightbridge.adapt, told the order of axes that is right for most matrices; tensors are allowed to be left over only where
    it refuses otherwise. It is stopped after so many seconds (main thread only)."""
    from weightbridge import adapt

    placed = Placed(0, 0, len(example.truth), "nothing tried")
    source_format, target_format = formats(example)
    for lenient in (False, True):
        blank = {name: np.zeros(array.shape, np.uint64) for name, array in example.truth.items()}
        try:
            with contextlib.redirect_stdout(io.StringIO()), stopped_after(seconds):
                made = adapt(
                    dict(example.numbers), blank, in_format=source_format, out_format=target_format,
                    in_separator=separator(example.numbers), out_separator=separator(example.truth),
                    ignore_unmatched_inputs=lenient, ignore_unmatched_outputs=lenient,
                )  # fmt: skip
        except Exception as error:  # it raises what it pleases: ValueError, AssertionError, KeyError, TypeError
            placed = Placed(0, 0, len(example.truth), f"{type(error).__name__}: {error}"[:80])
            continue
        return judged({name: array for name, array in made.items() if array.any() or not array.size}, example)
    return placed


@contextlib.contextmanager
def stopped_after(seconds: int) -> Iterator[None]:
    """TimeoutError in the midst of what runs."""

    def stop(number: int, frame: object) -> None:
        raise TimeoutError(f"after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def formats(example: Example) -> tuple[str | None, str | None]:
    """What a user who knows both libraries would say: nothing, or which of them has the output first."""
    owner = {int(array.flat[0]): name for name, array in example.numbers.items() if array.ndim > 1 and array.size}
    turned = same = 0
    for array in example.truth.values():
        source = owner.get(int(array.flat[0])) if array.ndim > 1 and array.size else None
        if source is not None:
            kept = np.array_equal(example.numbers[source].reshape(-1), array.reshape(-1))
            turned, same = turned + (not kept), same + kept
    if turned <= same:
        return None, None
    kernels = sum("kernel" in name or name.endswith("/w") for name in example.numbers)
    return ("flax", "pytorch") if kernels else ("pytorch", "flax")


def separator(names: Mapping[str, Array]) -> str:
    """The separator that occurs more often."""
    return max("./", key=lambda char: sum(name.count(char) for name in names))


def edit_distance(example: Example) -> Placed:
    """Within a shape, the names of the least edit distance first. What is left over is refused; nothing is transposed."""
    by_shape: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for name, array in example.numbers.items():
        by_shape[array.shape].append(name)
    made: Arrays = {}
    for shape in {array.shape for array in example.truth.values()}:
        targets = [name for name, array in example.truth.items() if array.shape == shape]
        ranked = sorted(
            (distance(source, target), source, target) for target in targets for source in by_shape.get(shape, ())
        )
        taken: set[str] = set()
        for _, source, target in ranked:
            if source not in taken and target not in made:
                taken.add(source)
                made[target] = example.numbers[source]
    return judged(made, example)


def distance(one: str, other: str) -> float:
    """Levenshtein's distance, over the longer length."""
    if Counter(one) == Counter(other) and one == other:
        return 0.0
    letters = np.frombuffer(other.encode("utf-32-le"), np.uint32)
    steps = np.arange(len(letters) + 1)
    row = steps.copy()
    for at, letter in enumerate(one, 1):
        changed = np.empty_like(row)
        changed[0] = at
        changed[1:] = np.minimum(row[1:] + 1, row[:-1] + (letters != ord(letter)))
        row = np.minimum.accumulate(changed - steps) + steps  # insertions, all at once
    return float(row[-1]) / max(len(one), len(other), 1)
