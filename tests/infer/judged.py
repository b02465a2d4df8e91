"""An Inference held against an Example: what it placed, elementwise; and what its morph makes, bit for bit, of the source and of
other weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from conversions import UNMADE, Array, Arrays, Example
from proposal_truth import LOST, Numbers, Score, Truth, judge

from isomorph.engine.arrays import arrays
from isomorph.errors import IsomorphError
from isomorph.formats.memory import ArrayCheckpoint
from isomorph.infer.nouns import Inference, Proposed
from isomorph.language.morph import Morph
from isomorph.plan.prove import make_plan
from isomorph.verify.compare import verify


def truth_of(example: Example) -> Truth:
    """An example's truth in the words of `proposal_truth`."""
    opened = ArrayCheckpoint(example.source)
    ties: list[tuple[str, str]] = []
    first: dict[tuple[int, tuple[int, ...]], str] = {}
    for name, numbers in example.numbers.items():
        if numbers.size:
            key = (int(numbers.flat[0]), numbers.shape)
            if key in first and np.array_equal(numbers, example.numbers[first[key]]):
                ties.append((first[key], name))
            first.setdefault(key, name)
    counted = Numbers(opened.manifest, ties)
    largest = max((int(one.max()) for one in example.numbers.values() if one.size), default=0)
    table = np.full(largest + 1, LOST, np.int64)
    for name, numbers in example.numbers.items():
        known = numbers.reshape(-1)
        table[known] = np.where(known > 0, counted.of(name).reshape(-1), LOST)
    made: dict[str, Array] = {}
    for name, numbers in example.truth.items():
        lost = numbers == UNMADE
        found = table[np.where(lost, 0, numbers).astype(np.int64)]
        values = example.target[name]
        for at in np.argwhere((numbers == 0) & ~lost):
            found[tuple(at)] = Numbers.constant(float(values[tuple(at)]))
        made[name] = np.where(lost, LOST, found)
    return Truth(counted, made)


@dataclass(frozen=True)
class Outcome:
    """What came of one inference. `bits` are the targets that the morph makes otherwise than they are; `again` those of other
    weights; `refused` is why the morph is not carried out."""

    example: Example
    inference: Inference
    score: Score
    bits: tuple[str, ...] = ()
    again: tuple[str, ...] = ()
    made: int = 0
    refused: str = ""
    lines: int = 0
    wrong: tuple[str, ...] = field(default=())
    """Targets that are stated and are not what the conversion did."""

    @property
    def is_exact(self) -> bool:
        """Every target is made, bit for bit."""
        return not self.refused and not self.bits and self.made == len(self.example.target)

    @property
    def is_honest(self) -> bool:
        """Nothing that it states is false: what the morph makes is right, and what it says of itself too."""
        inference = self.inference
        return (
            not self.bits and (self.is_exact or not inference.is_proved) and not (inference.is_proved and self.refused)
        )


def outcome(example: Example, inference: Inference) -> Outcome:
    """Hold an inference by values against an example."""
    score = Score(())
    if example.truth:
        score = judge(Proposed(inference.evidence, inference.questions), truth_of(example), list(example.target))
    lines = sum(bool(line.strip()) for line in inference.text.splitlines())
    made: Arrays = {}
    refused, bits, again = "", [], []
    if inference.text:
        try:
            made = carried_out(inference.text, example.source, example.configs[0])
        except IsomorphError as error:
            refused = str(error)
        bits = differing(made, example.target)
        if made and example.again is not None:
            try:
                again = differing(carried_out(inference.text, example.again[0], example.configs[0]), example.again[1])
            except IsomorphError as error:
                again = [str(error)]
    else:
        refused = "no morph"
    return Outcome(
        example, inference, score, tuple(bits), tuple(again), len(made), refused, lines, tuple(score.of("wrong"))
    )


def carried_out(text: str, source: Mapping[str, Array], config: Mapping[str, object] | None) -> Arrays:
    """What a morph makes of arrays. Raises MorphError, CheckError."""
    opened = ArrayCheckpoint(source)
    programs = Morph.parse(text).programs(config)
    plan = make_plan(programs, opened.manifest, config=config)
    made = {name: array.copy() for name, array in arrays(plan, opened)}
    report = verify(programs, opened, ArrayCheckpoint(made), config=config)
    assert report.equal, str(report)
    return made


def differing(made: Mapping[str, Array], target: Mapping[str, Array]) -> list[str]:
    """Names that are made and are not what they should be, in dtype, shape or any bit; names that nothing asks for."""
    return [
        name
        for name, array in made.items()
        if name not in target
        or (array.dtype, array.shape) != (target[name].dtype, target[name].shape)
        or array.tobytes() != np.ascontiguousarray(target[name]).tobytes()
    ]
