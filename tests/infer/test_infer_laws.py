"""Laws of inference by values: a random conversion is inferred back, and holds for other weights; noise is never placed."""

from __future__ import annotations

import numpy as np
from conversions import Arrays, Conversion, Example, unmade
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from judged import outcome
from random_conversions import conversions

from isomorph.formats.memory import ArrayCheckpoint
from isomorph.infer.nouns import Inference
from isomorph.infer.run import infer

LAW = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow], derandomize=True)


def inferred(example: Example) -> Inference:
    return infer(ArrayCheckpoint(example.source), ArrayCheckpoint(example.target))


@LAW
@given(conversions())
def test_a_random_conversion_is_inferred_back(conversion: Conversion) -> None:
    """Everything is placed, what is written makes the target bit for bit, and does the same with other weights."""
    example = conversion.example()
    inference = inferred(example)
    found = outcome(example, inference)
    assert [] == list(inference.problems)
    assert (True, []) == (found.is_exact, list(found.again)), inference.text
    assert inference.is_proved


@LAW
@given(conversions(), st.integers(0, 5), st.integers(0, 5), st.integers(0, 2**32 - 1))
def test_noise_is_reported_and_never_placed(conversion: Conversion, many: int, more: int, seed: int) -> None:
    """Tensors that the other side never had are unplaced, or dropped; the rest is as it is without them."""
    example = conversion.example()
    random = np.random.default_rng(seed)
    shapes = [array.shape for array in example.target.values()] + [array.shape for array in example.source.values()]

    def noise(prefix: str, count: int, first: int) -> Arrays:
        return {
            f"{prefix}{number}": unmade(
                shapes[int(random.integers(len(shapes)))], np.zeros(0, np.float32), first + number
            )
            for number in range(count)
        }

    absent, extra = noise("target_noise", many, seed), noise("source_noise", more, seed + 100)
    inference = infer(ArrayCheckpoint({**example.source, **extra}), ArrayCheckpoint({**example.target, **absent}))
    assert sorted(name for name, array in absent.items() if array.size) == sorted(inference.coverage.unplaced)
    assert set(extra) <= set(inference.coverage.dropped)
    assert not inference.questions
    assert (many == 0) == inference.is_proved, inference.problems
