"""What makes very many tensors cheap to plan changes nothing of what is planned; and nothing of a plan outlives it."""

from __future__ import annotations

import gc
import random
from collections.abc import Iterator
from itertools import pairwise

import pytest

from isomorph.language.parse import parse
from isomorph.language.scopes import flatten
from isomorph.plan.backward import backward
from isomorph.plan.explain import by_target
from isomorph.plan.folding import folded, template
from isomorph.plan.match import Matcher
from isomorph.plan.moves import Box, Move
from isomorph.plan.plan import Plan
from isomorph.plan.prove import make_plan
from isomorph.plan.stage import make_stage
from isomorph.plan.texts import move_text, spec_texts
from isomorph.tensors import Manifest, TensorSpec, spec, total_nbytes

FUSED = """\
h.{l}. <-> layers.{l}.:
  {p=q|k|v}.{t=weight|bias} [o ...] <-> qkv.{t} [(p o) ...]
  out.weight [o i] <-> out.kernel [i o]
  ** <-> **
"""


def layers(count: int) -> Manifest:
    """Layers whose every spec is an object of its own, as some readers give them."""
    shapes = {
        "q.weight": "8,8", "k.weight": "8,8", "v.weight": "8,8", "q.bias": "8", "k.bias": "8", "v.bias": "8",
        "out.weight": "8,4", "norm.scale": "8", "norm.empty": "0,8",
    }  # fmt: skip
    return Manifest(
        {f"h.{layer}.{name}": spec(f"f32[{shape}]") for layer in range(count) for name, shape in shapes.items()}
    )


def planned(text: str, manifest: Manifest) -> Plan:
    return make_plan([flatten(parse(text))], manifest)


@pytest.fixture
def by_hand() -> Iterator[None]:
    """The garbage collector runs when it is asked to."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def test_what_a_proof_leaves_does_not_grow_with_the_tensors(by_hand: None) -> None:
    """All that a plan is made with goes when it goes, without a garbage collector: no cycle holds an instance."""
    left = []
    for count in (10, 300):
        planned(FUSED, layers(count))
        left.append(gc.collect())
    assert left[1] <= left[0] + 50


def test_a_plan_does_not_depend_on_which_specs_are_one_object() -> None:
    """The plan of specs that are shared, in any way, is that of specs that are not: digest, text, and the way back."""
    apart = layers(40)
    kinds = {str(one): one for one in apart.values()}
    shared = Manifest({name: kinds[str(one)] for name, one in apart.items()})
    half = Manifest({name: one if number % 2 else kinds[str(one)] for number, (name, one) in enumerate(apart.items())})
    plans = [planned(FUSED, manifest) for manifest in (apart, shared, half)]
    assert 1 == len({plan.digest for plan in plans})
    assert 1 == len({str(plan) for plan in plans})
    assert plans[0].moves == plans[1].moves == plans[2].moves


def test_the_moves_of_a_target_lie_between_its_starts() -> None:
    """`starts` cuts the moves by target, whether one fills it or several do."""
    plan = planned(FUSED, layers(5))
    cut = {
        name: list(plan.moves[first:stop])
        for name, (first, stop) in zip(plan.targets, pairwise(plan.starts), strict=True)
    }
    assert by_target(plan) == cut
    assert {1, 3} == set(map(len, cut.values()))


@pytest.mark.parametrize("sizes", ["where l = 4", ""])
def test_kinds_planned_back_stand_for_all(monkeypatch: pytest.MonkeyPatch, sizes: str) -> None:
    """A few instances of each kind say what the whole plan says of the way back, whatever shares its sizes."""
    texts = (
        FUSED,
        "h.{l}.{n}.weight [o i] <-> h.{l}.{n}.weight [o i] | f32 ~> bf16\n** <-> **",
        "h.*.norm.* <-> drop\n** <-> **",
    )
    for text in texts:
        plan = planned(f"{text}\n{sizes}" if sizes and "{l}" in text else text, layers(4))
        whole = backward(plan)
        with monkeypatch.context() as few:
            few.setattr("isomorph.plan.backward.MOST_WHOLE", 0)
            assert whole == backward(plan)


SEPARATED = [
    "a.0.w",
    "a.1.w",
    "a/0/w",
    "a/1/w",
    "a",
    "a.",
    ".a",
    "/",
    "",
    "b::a.0.w",
    "b::a/0/w",
    "ab.0.w",
    "0.w",
    "é.0.w",
]


@pytest.mark.parametrize(
    "text",
    ["a.{l}.w <-> x.{l}", "a/{l}/w <-> x.{l}", "{n}.{l}.w <-> x.{l}.{n}", "a <-> x", "** <-> **", "{p}::** <-> {p}::**"],
)  # fmt: skip
def test_a_name_is_taken_by_the_first_term_that_reads_it(text: str) -> None:
    """What is looked up first leaves out no term that reads a name."""
    stage = make_stage(flatten(parse(f"{text}\n** <-> left.**")), {}, {})
    for name in SEPARATED:
        reads = [
            (rule.number, term.pattern.read(name)) for rule in stage.rules for term in rule.left
            if term.pattern.read(name) is not None
        ]  # fmt: skip
        taken = Matcher(stage).take(name)
        assert (reads[0] if reads else None) == (None if taken is None else (taken[0].number, taken[2]))


def test_names_are_folded_to_what_they_all_begin_with() -> None:
    """The longest beginning up to a `.` or `/` of which the names differ in numbers alone, whatever the names."""
    pieces, rng = ["a", "b", "0", "1", "12", "01", "{}", "x_1"], random.Random(7)
    for _ in range(2_000):
        names = list(
            dict.fromkeys(
                rng.choice(["a.", "a/", "a.1.", "a.2.", ""])
                + "".join(rng.choice(pieces) + rng.choice("./") for _ in range(rng.randrange(4)))
                + rng.choice(pieces)
                for _ in range(rng.randrange(5, 9))
            )
        )
        heads = {name.partition(".")[0].partition("/")[0] for name in names}
        if len(names) < 5 or len(heads) > 1 or len(set(map(template, names))) == 1:
            continue
        opened = list(map(template, names))
        shared = max((k for k in range(len(opened[0]) + 1) if len({each[:k] for each in opened}) == 1), default=0)
        border = max(opened[0].rfind(".", 0, shared), opened[0].rfind("/", 0, shared)) + 1
        (line,) = folded(names)
        told = line.removesuffix(f" {len(names)}").removesuffix("**")
        assert (opened[0][:border].count("."), opened[0][:border].count("/")) == (
            told.count(".") - 2 * told.count(".."),
            told.count("/"),
        )


def test_texts_and_sums_are_those_of_each() -> None:
    """A text and a size that were found once for many are those of every one of them."""
    rng = random.Random(3)
    kinds = [
        spec(f"{dtype}[{','.join(map(str, shape))}]")
        for dtype in ("f32", "u8", "q4_k")
        for shape in ((), (2,), (3, 0), (4, 5))
    ]
    specs = [
        rng.choice(kinds) if rng.random() < 0.5 else TensorSpec(one.dtype, one.shape)
        for one in rng.choices(kinds, k=9_000)
    ]
    texts = spec_texts(specs)
    assert list(map(str, specs)) == [texts[id(one)] for one in specs]
    assert sum(one.nbytes for one in specs) == total_nbytes(specs)
    for _ in range(300):
        shape, strides, offset = tuple(rng.choices(range(4), k=2)), tuple(rng.choices(range(9), k=2)), rng.randrange(9)
        one, other = Box("a\nb", offset, shape, strides), Box("c'", offset + 1, strides, shape)
        expected = f"'a\\nb' {offset} {shape} {strides} = \"c'\" {offset + 1} {strides} {shape}\n"
        assert expected == move_text(Move(one, other))
