"""A plan of many targets is planned back by kinds of instances: what it says is what planning back the whole says."""

from __future__ import annotations

import pytest

from isomorph.job.port import cast_to
from isomorph.language.morph import Morph
from isomorph.plan.backward import _by_kinds, _whole
from isomorph.plan.plan import Plan
from isomorph.plan.prove import make_plan
from isomorph.tensors import Manifest, spec

MORPHS = {
    "renamed": "a.{l}.w <-> b.{l}.w\n** <-> **\n",
    "fused and stacked": "a.{l}.{p=q|k|v} [o i] <-> b.{l}.qkv [(p o) i]\na.{l}.e.{e} [o] <-> b.{l}.e [e o]\n** <-> **\n",
    "dropped and one-way": "a.{l}.q <-> b.{l}.q\na.{l}.{p=k|v} -> b.{l}.kv [p ...]\ndrop a.{l}.**\n** <-> **\n",
}


@pytest.mark.parametrize("cast", [None, "f16"])
@pytest.mark.parametrize("morph", MORPHS.values(), ids=MORPHS)
def test_kinds_stand_for_all(morph: str, cast: str | None) -> None:
    """Name by name: what returns, and how."""
    tensors = {f"a.{layer}.{part}": "f32[4,6]" for layer in range(12) for part in "qkvw"}
    tensors |= {f"a.{layer}.e.{expert}": f"f32[{3 + layer % 2}]" for layer in range(12) for expert in range(5)}
    source = Manifest({name: spec(text) for name, text in {**tensors, "other": "i64[2]"}.items()})
    programs = Morph.parse(morph).programs({})
    plan: Plan = make_plan(programs, source, cast=None if cast is None else cast_to(cast))
    assert _whole(plan) == _by_kinds(plan)
