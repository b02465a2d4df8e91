"""Random morphs: what the plan carries out is what verify expects, a chain is its stages one by one, and the way back is the source.

A rule is drawn as a list of blocks (sets of axes); each side is any partition of these blocks into terms, with their axes grouped,
fused, stacked into names or tied in any way. So every rule pairs by construction, and two implementations must agree on it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from isomorph.engine.arrays import arrays
from isomorph.errors import MorphError
from isomorph.formats.memory import ArrayCheckpoint
from isomorph.language.axes import tensor_shape
from isomorph.language.parse import parse
from isomorph.language.rules import Program
from isomorph.language.scopes import flatten
from isomorph.plan.plan import Plan
from isomorph.plan.prove import make_plan
from isomorph.plan.stage import make_stage
from isomorph.tensors import dtype
from isomorph.verify import verify

Arrays = dict[str, np.ndarray[Any, Any]]

COUNTED = ("", "{l}.", "{l+1}.", "{l:02}.", "x{l:_}.", "{t}.", "*.", "**.", "{m=q|k}.")
STACKED = (".{%s}", ".{%s+1}", ".{%s:02}", ".k{%s:_}", ".{5-%s}")
TIED = ("", "", "", ".{=u|v}", ".c{=n}", ".{=n+1:02}")
COUNTS: dict[str, Sequence[Any]] = {"l": range(3), "t": ("weight", "b"), "*1": ("aa", "01"), "m": range(2)}


class RandomRule:
    """One rule's blocks and sizes; `side` writes it out, differently each time."""

    def __init__(self, random: Random, letter: str) -> None:
        self.random, self.letter = random, letter
        names = iter("abcdefgh")
        self.shared = list("xyz"[: random.randint(0, 2)])
        self.own = [[next(names) for _ in range(random.choice((0, 1, 1, 2)))] for _ in range(random.randint(1, 3))]
        if random.random() < 0.25:
            self.own = [self.own[0]] * len(self.own)
        axes = {*self.shared, *itertools.chain.from_iterable(self.own)}
        self.sizes = {axis: random.randint(1, 3) for axis in sorted(axes)} | {"n": 2}
        self.counted = random.choice(COUNTED)
        self.dtype = random.choice(("f32", "f16", "i64", "bf16"))

    def grouped(self, items: list[str]) -> str:
        dims: list[str] = []
        self.random.shuffle(items)
        while items:
            taken = [items.pop() for _ in range(min(len(items), self.random.choice((1, 1, 2, 3))))]
            dims.append(taken[0] if len(taken) == 1 else f"({' '.join(taken)})")
        return "[" + " ".join([*dims, *["1"] * (self.random.random() < 0.1)]) + "]"

    def side(self, number: int, in_other_names: set[str]) -> tuple[str, set[str]]:
        """The text of a side; the axes that stand in its names, which the next side must keep in brackets."""
        order = list(range(len(self.own)))
        if len({tuple(own) for own in self.own}) == len(self.own):  # equal blocks pair in order: they stay in order
            self.random.shuffle(order)
        parts: list[list[int]] = []
        for block in order:
            if parts and self.random.random() < 0.5:
                parts[-1].append(block)
            else:
                parts.append([block])
        terms, named = [], set()
        for place, part in enumerate(parts):
            free = self.shared + (self.own[part[0]] if len(part) == 1 else [])
            stacked = [axis for axis in free if axis not in in_other_names and self.random.random() < 0.25]
            items = [axis for axis in free if axis not in stacked]
            if len(part) > 1:
                items.append("(" + " + ".join(" ".join(self.own[block]) or "1" for block in part) + ")")
            name = f"{self.counted}{self.letter}{number}{place}"
            name += "".join(self.random.choice(STACKED) % axis for axis in stacked) + self.random.choice(TIED)
            terms.append(f"{name} {self.grouped(items)}")
            named.update(stacked)
        return ", ".join(terms), named


def random_morph(random: Random) -> tuple[list[RandomRule], list[str]]:
    """Rules, and the text of each stage of one or two."""
    rules = [RandomRule(random, letter) for letter in "ABC"[: random.randint(1, 3)]]
    stages = random.randint(1, 2)
    lines: list[list[str]] = [[] for _ in range(stages)]
    for rule in rules:
        where = ", ".join(f"{axis}={size}" for axis, size in rule.sizes.items())
        named: set[str] = set()
        sides = []
        for number in range(stages + 1):
            text, named = rule.side(number, named)
            sides.append(text)
        for number in range(stages):
            operators = random.choice(("", "", " | neg"))
            lines[number].append(f"{sides[number]} <-> {sides[number + 1]}{operators} where {where}")
    scope = "p. <-> q.:\n  " if random.random() < 0.2 and stages == 1 else ""
    return rules, [scope + ("\n  " if scope else "\n").join(each) for each in lines]


def source_of(program: Program, rules: list[RandomRule]) -> Arrays:
    """Every tensor that the left sides name, numbered; copies equal."""
    found: Arrays = {}
    number = 0
    for ready, rule in zip(make_stage(program, {}, {}).rules, rules, strict=True):
        sizes = {**rule.sizes, **ready.known}
        instances = itertools.product(*(COUNTS[axis] for axis in ready.counting))
        for values, term in itertools.product(list(instances), ready.left):
            copies: Arrays = {}
            for slot in itertools.product(*(range(sizes[axis]) for axis in term.slots)):
                key = str(slot[: len(term.stacked)])
                shape = tensor_shape(term.term.dims, sizes, ())
                if key not in copies:
                    flat = (np.arange(math.prod(shape)) + number) % 97
                    copies[key] = flat.astype(dtype(rule.dtype).numpy).reshape(shape)
                    number += math.prod(shape)
                counted = {a: (v,) if rule.counted == "**." else v for a, v in zip(ready.counting, values, strict=True)}
                found[term.pattern.write({**counted, **dict(zip(term.slots, slot, strict=True))}, sizes)] = copies[key]
    return found


def carried(programs: Sequence[Program], source: Arrays) -> tuple[Plan, Arrays]:
    with ArrayCheckpoint(source) as checkpoint:
        plan = make_plan(programs, checkpoint.manifest)
        return plan, {name: array.copy() for name, array in arrays(plan, checkpoint)}


def assert_same(one: Arrays, other: Arrays) -> None:
    assert sorted(one) == sorted(other)
    for name, array in one.items():
        assert (array.dtype, array.shape) == (other[name].dtype, other[name].shape), name
        assert array.tobytes() == other[name].tobytes(), name


@settings(max_examples=120, deadline=None)
@given(st.randoms(use_true_random=False))
def test_plan_and_verify_agree(random: Random) -> None:
    """Carried out and verified, stage by stage and at once, and back: nothing differs; one changed element is found."""
    rules, texts = random_morph(random)
    programs = [flatten(parse(text)) for text in texts]
    source = source_of(programs[0], rules)
    try:
        plan, made = carried(programs, source)
    except MorphError as refused:
        assert refused.kinds <= {"two-cuts", "readback"}, f"{texts}: {refused}"
        return
    apart = source
    for program in programs:
        _, apart = carried([program], apart)
    assert_same(made, apart)
    _, back = carried([program.inverse for program in reversed(programs)], made)
    assert all(target.klass == "exact" for target in plan.targets.values())
    assert_same(source, back)
    with ArrayCheckpoint(source) as one, ArrayCheckpoint(made) as other:
        assert verify(tuple(programs), one, other).equal, texts
    name = random.choice(sorted(made))
    changed = {**made, name: made[name].copy()}
    element = random.randrange(changed[name].size)
    changed[name].reshape(-1)[element] += 1
    with ArrayCheckpoint(source) as one, ArrayCheckpoint(changed) as other:
        assert not verify(tuple(programs), one, other).equal, (texts, name, element)
