"""A morph alone is tried out on sizes that never coincide."""

from __future__ import annotations

import pytest

from isomorph.errors import MorphError
from isomorph.language.morph import Morph
from isomorph.testing.probe import Probe, index_arrays, make_source, probe


def tried(text: str, **config: object) -> Probe:
    return probe(Morph.parse(text).programs(config), file="m.morph", config=config)


@pytest.mark.parametrize(
    "text",
    [
        "a.{l}.w [o i] <-> b.{l}.w [i o]\n",
        "w [(h d) i] <-> w [i h d]\n",
        "qkv [(q + k) i] <-> q [q i], k [k i]\n",
        "x.{e}.w [o i] <-> x.w [e o i]\n",
        "{p=q|k|v}.{t} [o ...] <-> qkv.{t} [(p o) ...]\n",
        "x <-> {=a|b}\n",
        "{=a|b} <-> x\n",
        "proj [d p], 0 [p] <-> head.weight [p d], head.bias [p]\n",
        "e [(v + pad) d] <-> w [v d], drop [pad d]\n",
        "drop a.*\nb.** <-> c.**\n",
        "f16.{l} <-> f32.{l} | f16 -> f32\n",
        "up.{l:02} <-> down.{l+1}\n",
        "h.{l}.w [d] <-> h.{3-l}.w [d] where l=4\n",
        "w [2 i] <-> w [i 2]\n",
    ],
)
def test_right_morphs_are_right(text: str) -> None:
    """Both paths agree, and what is not dropped comes back."""
    found = tried(text)
    assert found.is_right, found.problems
    assert found.elements > 0


def test_sizes_are_prime_and_different() -> None:
    """No two free axes of a rule have one size, nor that of an integer or of the axes of `...`."""
    made = make_source(Morph.parse("w [a b 5 ...] <-> w [b a 5 ...]\n").programs()[0], {}, {})
    assert [one.shape for one in made.specs.values()] == [(7, 11, 5, 3, 2)]


def test_every_element_is_its_own_index() -> None:
    """Through all tensors."""
    made = make_source(Morph.parse("** <-> **\n").programs()[0], {}, {})
    values = [float(value) for array in index_arrays(made.specs).values() for value in array.reshape(-1)]
    assert values == [float(number) for number in range(1, len(values) + 1)]


def test_a_rule_that_no_name_reaches_is_said() -> None:
    """A special rule below the general one never takes a key."""
    found = tried("a.** <-> b.**\na.x <-> c\n")
    assert any("line 2: no made-up name reaches this rule" in note for note in found.notes)


def test_a_config_that_is_asked_for_is_needed() -> None:
    """The gap names the key; with the key, the morph is right."""
    text = "w [(h d)] <-> w [h d] where h=config.heads\n"
    with pytest.raises(MorphError, match="heads"):
        tried(text)
    assert tried(text, heads=4).is_right


def test_a_checkpoint_that_would_be_too_large_is_not_made() -> None:
    """Bounded memory."""
    found = tried("w [a b] <-> w [b a] where a=10000, b=10000\n")
    assert "100,000,000 elements; give smaller sizes with --set" in found.problems[0]
