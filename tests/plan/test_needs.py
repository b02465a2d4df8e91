"""What some targets need is enough: proved and verified by itself it is what the proof of the whole says of them, check by check."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isomorph.engine.arrays import arrays
from isomorph.errors import MorphError
from isomorph.formats.base import Checkpoint
from isomorph.formats.memory import ArrayCheckpoint
from isomorph.infer.subset import Subset
from isomorph.language.morph import Morph
from isomorph.language.rules import Program
from isomorph.plan.needs import Need, Needs
from isomorph.plan.plan import Plan
from isomorph.plan.prove import make_plan
from isomorph.plan.texts import check_text, move_text
from isomorph.testing.cases import Case, load_cases
from isomorph.verify.compare import verify

CASES = [case for case in load_cases(Path(__file__).parent.parent / "cases") if case.error is None]


@dataclass(frozen=True)
class Chain:
    """Programs, one after the other, and what they are told."""

    programs: Sequence[Program]
    config: Any = None
    sizes: Any = None

    def plan(self, source: Checkpoint, need: Need | None = None) -> Plan:
        told: dict[str, Any] = {} if need is None else {"is_part": True, "through": need.through}
        return make_plan(self.programs, source.manifest, config=self.config, sizes=self.sizes, **told)

    def verified(self, source: Checkpoint, target: Checkpoint, names: Collection[str], need: Need) -> int:
        report = verify(
            self.programs, source, target, config=self.config, sizes=self.sizes, only=names, through=need.through
        )
        assert not report.problems and not report.wrong, report.problems
        return report.elements


def chains(case: Case) -> Iterator[Chain]:
    """The case as it is; and there and back, and there again."""
    there = case.programs()
    back = tuple(program.inverse for program in reversed(there))
    for programs in (there, (*there, *back), (*there, *back, *there)):
        yield Chain(programs, case.facts.get("config"), case.facts.get("set"))


def assert_parts_are_the_whole(chain: Chain, source: Checkpoint, shares: Sequence[list[str]], plan: Plan) -> None:
    """Each share by itself has the plan's targets and moves and the verifier's consent; together they have all of its checks."""
    needs, checks = Needs(plan), set[str]()
    made = {name: array.copy() for name, array in arrays(plan, source)}
    for number, names in enumerate(shares):
        need = needs.of(names, and_checks=number == 0)
        some = Subset(source, need.sources)
        part = chain.plan(some, need)
        for name in names:
            assert (plan.targets[name].spec, plan.targets[name].klass) == (
                part.targets[name].spec,
                part.targets[name].klass,
            )
            assert moves_of(plan, name) == moves_of(part, name)
        checks |= set(map(check_text, part.checks))
        with ArrayCheckpoint({name: made[name] for name in names}) as target:
            found = chain.verified(some, target, names, need)
        assert found == sum(plan.targets[name].spec.numel for name in names)
    assert checks == set(map(check_text, plan.checks))


def moves_of(plan: Plan, name: str) -> list[str]:
    return [move_text(move) for move in plan.moves if move.target.tensor == name]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_target_of_every_case_by_itself(case: Case) -> None:
    """Of the conformance cases, as chains too; those that say no when they are chained are no plans."""
    planned = 0
    with ArrayCheckpoint(case.arrays()) as source:
        for chain in chains(case):
            try:
                plan = chain.plan(source)
            except MorphError:
                continue
            planned += 1
            assert_parts_are_the_whole(chain, source, [[name] for name in plan.targets], plan)
    assert planned


LAYERS = {f"l.{layer}.{part}": np.arange(6, dtype="f4") + 6 * layer for layer in range(5) for part in "qkv"}
ONES = {
    "one": np.ones(3, "f4"),
    "half": np.r_[np.zeros(3, "f4"), np.ones(3, "f4")],
    "a": np.zeros(2, "f4"),
    "b": np.zeros(2, "f4"),
}
HARD: dict[str, tuple[dict[str, Any], list[str]]] = {
    "a stack that is taken apart again": (LAYERS, ["l.{l}.{p} [n] <-> s.{p} [l n]", "s.{p} [l n] <-> m.{l}.{p} [n]"]),
    "layers in pairs, then otherwise": (
        {f"l.{layer}": np.arange(6, dtype="f4") + layer for layer in range(6)},
        ["l.{(a b)} [n] <-> s.{a} [(b n)] where b=2", "s.{a} [(c n)] <-> m.{a}.{c} [n] where c=3"],
    ),
    "a constant between": (LAYERS, ["1:f32 [3] <-> one [3]\n** <-> **", "drop one\n** <-> **"]),
    "a constant between, for one target": (
        LAYERS,
        ["1:f32 [2] <-> x [2]\n** <-> **", "x [p], l.0.q [o] <-> y [(p + o)] where p=2\n** <-> **"],
    ),
    "a check of what is then dropped": (
        {**LAYERS, **ONES},
        ["half [(d + d)] <-> c [d], 1 [d]\n{=a|b} <-> d\n** <-> **", "drop c, d\n** <-> **"],
    ),
    "a check of what only a check takes": (
        {**LAYERS, **ONES},
        ["{=a|b} <-> c\none <-> o\n** <-> **", "c [x] <-> 0 [x]\no [x] <-> 1 [x]\n** <-> **", "drop half\nl.{l}.{p} <-> m.{p}.{l}"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HARD)
def test_chains_in_which_a_stage_makes_more_than_the_next_needs(name: str) -> None:
    """Each target by itself, and in two shares that cut through every instance."""
    tensors, texts = HARD[name]
    chain = Chain([program for text in texts for program in Morph.parse(text).programs(None)])
    with ArrayCheckpoint(tensors) as source:
        plan = chain.plan(source)
        names = list(plan.targets)
        assert_parts_are_the_whole(chain, source, [[one] for one in names], plan)
        assert_parts_are_the_whole(chain, source, [names[1::2], names[::2]], plan)


def test_what_a_share_needs_goes_with_the_share() -> None:
    """A layer of a chain of three morphs, out of any number: as many names, whatever the number is."""
    texts = [
        "l.{l}.{p=q|k|v} [n] <-> l.{l}.qkv [(p n)]",
        "l.{l}.qkv <-> m.{l}.qkv",
        "m.{l}.qkv [(p n)] <-> b.{l}.{p=q|k|v} [n]",
    ]
    chain = Chain([program for text in texts for program in Morph.parse(text).programs(None)])
    for layers in (3, 300):
        tensors = {f"l.{layer}.{part}": np.zeros(2, "f4") for layer in range(layers) for part in "qkv"}
        with ArrayCheckpoint(tensors) as source:
            need = Needs(chain.plan(source)).of(["b.1.k"], and_checks=True)
        assert need == Need(("l.1.q", "l.1.k", "l.1.v"), (None, None))
