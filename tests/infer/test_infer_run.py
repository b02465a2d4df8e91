"""The pipeline: evidence to a morph that was held against both sides; and calm answers to what cannot be inferred."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_port import WIDTH, Arrays, source, target

import isomorph as iso
from isomorph.errors import FormatError, UsageError
from isomorph.formats.memory import ArrayCheckpoint
from isomorph.infer import run
from isomorph.infer.check import Expected, check, holds
from isomorph.infer.nouns import Part, Relation, axis, copy_of
from isomorph.infer.run import infer
from isomorph.infer.subset import Subset
from isomorph.language.parse import parse
from isomorph.tensors import Manifest


def checkpoints(one: Arrays, other: Arrays) -> tuple[ArrayCheckpoint, ArrayCheckpoint]:
    return ArrayCheckpoint(one), ArrayCheckpoint(other)


@pytest.fixture(scope="module")
def sides() -> tuple[Arrays, Arrays]:
    given = source()
    return given, target(given)


def elements(arrays: Arrays) -> int:
    return sum(array.size for array in arrays.values())


def test_an_example_becomes_a_proved_morph(sides: tuple[Arrays, Arrays]) -> None:
    """Every tensor by values, every element compared, layers in holes, and the way back proved."""
    found = infer(*checkpoints(*sides))
    assert found.is_proved, str(found)
    assert found.coverage.verified == elements(sides[1])
    assert list(found.coverage.placed) == ["values"]
    assert "{l}" in found.text
    assert len(found.text.splitlines()) < 16
    many = f"{elements(sides[1]):,}"
    assert str(found).splitlines()[-1] == f"proved    plan total, read-back, {many} of {many} elements bit for bit"


def test_the_morph_is_what_plan_and_convert_take(sides: tuple[Arrays, Arrays], tmp_path: Path) -> None:
    """`iso.infer(…).morph` makes the target from other weights of the same layout, and more layers of it."""
    morph = iso.infer(*sides).morph
    deeper = source(layers=7, seed=3)
    made = morph.plan(deeper).state_dict()
    wanted = target(deeper)
    assert sorted(made) == sorted(wanted)
    assert all(np.array_equal(made[name], wanted[name]) for name in wanted)
    back = morph.inverse.plan(wanted).state_dict()
    assert all(np.array_equal(back[name], deeper[name]) for name in deeper)


def test_the_same_twice_is_the_identity(sides: tuple[Arrays, Arrays]) -> None:
    found = infer(*checkpoints(sides[0], sides[0]))
    assert found.is_proved
    assert [line for line in found.text.splitlines() if line and line[0] != "#"] == ["** <-> **"]


def test_what_differs_in_dtype_is_cast(sides: tuple[Arrays, Arrays]) -> None:
    """One line says it, and rounding is said to be rounding."""
    half = {name: array.astype("f2") for name, array in sides[1].items()}
    found = infer(*checkpoints(sides[0], half))
    assert found.is_proved, str(found)
    assert "f32 ~> f16" in found.text
    assert found.text.count("~>") == 1


def test_unrelated_models_are_told_calmly(sides: tuple[Arrays, Arrays]) -> None:
    """Nothing is forced; no morph, no problem, no traceback."""
    drawn = np.random.default_rng(9)
    other = {f"x.{number}.w": drawn.standard_normal((5, 7)).astype("f4") for number in range(4)}
    found = infer(*checkpoints(sides[0], other))
    assert (found.text, found.problems, found.is_proved) == ("", (), False)
    assert str(found).splitlines()[-1] == "nothing   of DST is in SRC by values: 0 of 4 tensors placed"
    with pytest.raises(UsageError, match="nothing was placed, so there is no morph"):
        _ = iso.infer(sides[0], other).morph


def test_a_copy_that_was_trained_further(sides: tuple[Arrays, Arrays]) -> None:
    """No value matches: what they are near to is said, and the way by names; which then works."""
    drawn = np.random.default_rng(9)
    tuned = {name: (array + 1e-3 * drawn.standard_normal(array.shape)).astype("f4") for name, array in sides[1].items()}
    found = infer(*checkpoints(sides[0], tuned))
    assert found.text == ""
    assert "layers.0.attn.out_proj.weight" in found.approximate["blocks.0.mix.proj.weight"]
    assert any("trained further" in note and "--names-only" in note for note in found.notes)
    named = infer(*checkpoints(sides[0], tuned), names_only=True)
    assert named.coverage.unplaced == ()
    assert named.problems == ()


def test_more_layers_in_the_target_than_in_the_source(sides: tuple[Arrays, Arrays]) -> None:
    """What has no source is listed; what stays is proved."""
    more = target(source(layers=5, seed=1)) | sides[1]
    found = infer(*checkpoints(sides[0], more))
    assert set(found.coverage.unplaced) == set(more) - set(sides[1])
    assert found.problems == ()
    assert not found.is_proved
    assert found.coverage.verified == elements(sides[1])
    assert "checked   plan total, read-back" in str(found)


def test_an_outlier_is_a_question(sides: tuple[Arrays, Arrays]) -> None:
    """One layer unlike its siblings: reported, asked, never hidden; both answers are held against the example."""
    odd = dict(sides[1])
    odd["blocks.2.mix.proj.weight"] = np.ascontiguousarray(odd["blocks.2.mix.proj.weight"].T)
    pair = checkpoints(sides[0], odd)
    found = infer(*pair)
    assert [one.target for one in found.outliers] == ["blocks.2.mix.proj.weight"]
    (question,) = found.questions
    assert (question.key, question.kind) == ("blocks.2.mix.proj.weight outlier", "outlier")
    assert found.problems == ()
    assert found.text.count("\n? ") + found.text.startswith("? ") + found.text.count("  ? ") == 2
    kept = infer(*pair, answers={question.key: 1})
    assert kept.is_proved, str(kept)
    assert kept.coverage.verified == elements(odd)
    mended = infer(*pair, answers={question.key: "as its siblings"})
    assert mended.problems == ()
    assert mended.coverage.verified == elements(odd) - WIDTH * WIDTH
    made = iso.morph(text=mended.text).plan(sides[0]).state_dict()
    assert np.array_equal(made["blocks.2.mix.proj.weight"], sides[1]["blocks.2.mix.proj.weight"])


def test_values_that_say_nothing_are_placed_by_names(sides: tuple[Arrays, Arrays]) -> None:
    """Norms that are all 1: by names, and it is said."""
    plain = {name: np.ones_like(array) if ".norm" in name else array for name, array in sides[0].items()}
    found = infer(*checkpoints(plain, target(plain)))
    assert found.coverage.unplaced == ()
    assert found.problems == ()
    assert found.coverage.placed["values"][0] == len(sides[1]) - 8


def test_by_names_alone_nothing_is_read(sides: tuple[Arrays, Arrays]) -> None:
    """A manifest is enough; what it leaves open is asked, the morph refuses to be planned, and answers close it."""
    manifests = ArrayCheckpoint(sides[0]).manifest, ArrayCheckpoint(sides[1]).manifest
    found = infer(*manifests)
    assert found.questions
    assert not found.by_values
    assert found.coverage.verified is None
    assert found.problems == ()
    assert not found.is_proved
    with pytest.raises(iso.MorphError) as refused:
        iso.morph(text=found.text).plan(sides[0])
    assert "open" in refused.value.kinds
    answers = {one.key: _true_answer(one, sides) for one in found.questions}
    closed = infer(*manifests, answers=answers)
    assert closed.is_proved, str(closed)
    assert "answer" in closed.coverage.placed
    made = iso.morph(text=closed.text).plan(sides[0]).state_dict()
    assert all(np.array_equal(made[name], sides[1][name]) for name in sides[1])


def _true_answer(question: Any, sides: tuple[Arrays, Arrays]) -> int:
    """The alternative that the values bear out: there is one."""
    pair = checkpoints(*sides)
    right = [
        number
        for number, one in enumerate(question.alternatives, 1)
        if all(holds(each, *pair) for each in one.relations) and one.relations
    ]
    assert len(right) == 1, question
    return right[0]


def test_answers_to_nothing_that_was_asked(sides: tuple[Arrays, Arrays]) -> None:
    with pytest.raises(UsageError, match="no question has the key x: nothing is asked"):
        infer(*checkpoints(*sides), answers={"x": 1})


def test_a_person_is_asked_what_is_left(sides: tuple[Arrays, Arrays]) -> None:
    """Question, its number, how many; None leaves it open."""
    manifests = ArrayCheckpoint(sides[0]).manifest, ArrayCheckpoint(sides[1]).manifest
    whole = infer(*manifests)
    seen: list[tuple[str, int, int]] = []

    def ask(question: Any, number: int, many: int) -> int | None:
        seen.append((question.key, number, many))
        return _true_answer(question, sides) if number == 1 else None

    found = infer(*manifests, ask=ask)
    many = len(whole.questions)
    assert seen == [(one.key, number, many) for number, one in enumerate(whole.questions, 1)]
    assert [one.key for one in found.questions] == [one.key for one in whole.questions[1:]]


def test_a_morph_that_does_not_hold_is_never_presented_as_proved(
    sides: tuple[Arrays, Arrays], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever wrote it: what plan, the way back or verify say against it is a problem."""
    honest = infer(*checkpoints(*sides)).text
    for text, said in (
        (honest.replace("q|k|v", "k|q|v"), "elements"),
        (honest.replace("tok.weight", "tok.wait"), "does not make tok.weight"),
        (honest + "x.y <-> x.y\n", "x.y"),
        ("emb.* <-> tok.*\n", "tensors have no rule"),
        ("drop **\n", "the morph does not make"),
    ):
        monkeypatch.setattr(run, "_written", lambda *_, text=text: (text, text))
        found = infer(*checkpoints(*sides))
        assert not found.is_proved
        assert found.coverage.verified is None
        assert any(said in problem for problem in found.problems), found.problems
        assert "NOT PROVED" in str(found)


def test_a_check_sees_what_is_dropped_unasked(sides: tuple[Arrays, Arrays]) -> None:
    """A morph that makes the target and drops a source that has a place in it."""
    one, other = {"a": np.ones(3, "f4"), "b": np.ones(3, "f4")}, {"c": np.ones(3, "f4")}
    pair = checkpoints(one, other)
    assert check("a <-> c\ndrop b\n", *pair, Expected(["c"], ["b"])).problems == ()
    found = check("a <-> c\ndrop b\n", *pair, Expected(["c"], []))
    assert found.problems == ("the morph drops what has a place in the target: b",)


def test_a_relation_is_held_against_values() -> None:
    """Bit for bit, transposes and odd names included."""
    matrix = np.arange(12, dtype="f4").reshape(3, 4)
    pair = checkpoints({"a b": matrix}, {"x{}": np.ascontiguousarray(matrix.T)})
    turned = Relation(
        (Part(("a b",), (axis("o"), axis("i"))),), (Part(("x{}",), (axis("i"), axis("o"))),), {"o": 3, "i": 4}
    )
    assert holds(turned, *pair)
    assert not holds(copy_of("a b", "x{}", (3, 4)), *pair)
    wrong = checkpoints({"a b": matrix}, {"x{}": np.ascontiguousarray(matrix.T) + np.float32(1e-6)})
    assert not holds(turned, *wrong)


def test_a_subset_reads_the_tensors_that_it_names() -> None:
    whole = ArrayCheckpoint({"a": np.arange(4), "b": np.zeros(2)})
    part = Subset(whole, {"x": "a"})
    assert list(part.manifest) == ["x"]
    assert part.fetch("x", 1, (2,), (2,)).tolist() == [1, 3]
    with pytest.raises(KeyError):
        part.fetch("b", 0, (1,), (1,))


def test_a_model_in_python_with_the_weights_goes_by_values(sides: tuple[Arrays, Arrays]) -> None:
    """A live module holds somebody's weights or nobody's: they are looked at first."""
    linear = torch.nn.Linear(3, 4)
    with torch.no_grad():
        linear.bias.normal_()
    held = {"kernel": np.ascontiguousarray(linear.weight.detach().numpy().T), "b": linear.bias.detach().numpy().copy()}
    found = iso.infer(held, linear)
    assert found.by_values and found.is_proved, str(found)
    fresh = iso.infer(held, torch.nn.Linear(3, 4))
    assert not fresh.by_values
    assert "taken for fresh ones" in fresh.notes[0]
    meta = iso.infer(held, torch.nn.Linear(3, 4, device="meta"))
    assert not meta.by_values
    assert "has shapes and no values" in meta.notes[0]


def test_files_that_are_none(tmp_path: Path, sides: tuple[Arrays, Arrays]) -> None:
    """What the readers say."""
    np.savez(tmp_path / "a.npz", **sides[0])
    (tmp_path / "cut.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:999])
    with pytest.raises(FormatError, match="truncated"):
        iso.infer(tmp_path / "a.npz", tmp_path / "cut.npz")
    with pytest.raises(UsageError, match="DST holds no tensor: there is nothing to infer from"):
        iso.infer(sides[0], Manifest({}, origin="DST"))
    with pytest.raises(UsageError, match="a morph, not a checkpoint"):
        iso.infer(tmp_path / "a.morph", tmp_path / "a.npz")
    with pytest.raises(UsageError, match="--resolve trace runs both models, and this is none"):
        iso.infer(tmp_path / "a.npz", tmp_path / "a.npz", resolve="trace")
    with pytest.raises(UsageError, match="--resolve guess"):
        iso.infer(tmp_path / "a.npz", tmp_path / "a.npz", resolve="guess")  # type: ignore[arg-type]


def test_an_inference_shows_itself(sides: tuple[Arrays, Arrays], tmp_path: Path) -> None:
    """Text, HTML, a morph to plan with, a file."""
    found = iso.infer(*sides)
    assert isinstance(found, iso.Inference)
    assert repr(found) == f"<inference: {len(sides[1])} of {len(sides[1])} targets placed, 0 questions, proved>"
    assert found._repr_html_().startswith("<pre")
    found.write(tmp_path / "port.morph")
    assert (tmp_path / "port.morph").read_text() == found.text
    assert parse(found.text).statements
    with pytest.raises(iso.RefusedError, match="exists"):
        found.write(tmp_path / "port.morph")
    found.write(tmp_path / "port.morph", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["port.morph"]


def test_what_is_inferred_does_not_depend_on_the_order_of_a_file(sides: tuple[Arrays, Arrays]) -> None:
    """The same twice gives the same text."""
    assert infer(*checkpoints(*sides)).text == infer(*checkpoints(*sides)).text
