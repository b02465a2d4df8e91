"""Operators of other packages: found through their entry points, planned, carried out, and verified by their own reference."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import isomorph as iso
from isomorph.engine.evaluate import operator_of
from isomorph.errors import Different, MorphError
from isomorph.operators.reference import plugin
from isomorph.operators.registry import plugins
from isomorph.verify import operators as verify_operators

PACKAGE = '''
from dataclasses import dataclass
import numpy as np
from isomorph.operators.base import AxisOperator, Operator

@dataclass(frozen=True)
class Clamp(Operator):
    """`clamp 0.5`: values beyond it become it."""
    most: float
    wrong: bool = False
    def result(self, dtype): return dtype
    def klass(self, dtype): return "one-way"
    def inverse(self): return self
    def describe(self): return f"clamp {self.most}"
    def apply(self, array, dtype, *, out=None, changes=None):
        values = np.ascontiguousarray(array).view(dtype.numpy)
        return np.clip(values, -self.most, self.most).astype(dtype.numpy).view(dtype.bits)
    def reference(self, values, dtype):
        found = values.copy()
        found[found > self.most] = self.most
        found[found < -self.most] = -self.most if not self.wrong else self.most
        return found

@dataclass(frozen=True)
class Flip(AxisOperator):
    """`flip w -> w`: an axis from its end to its beginning. Undone by itself."""
    def result(self, dtype): return dtype
    def klass(self, dtype): return "exact"
    def inverse(self): return self
    def describe(self): return "flip"
    def along(self, array, dtype, after): return np.ascontiguousarray(array[:, ::-1])
    def reference(self, values, dtype, after): return np.stack([values[:, -1 - k] for k in range(after[0])], axis=1)

@dataclass(frozen=True)
class Mean(AxisOperator):
    """`mean c -> 1`: an axis is gone."""
    def result(self, dtype): return dtype
    def describe(self): return "mean"
    def along(self, array, dtype, after):
        values = array.view(dtype.numpy).astype(np.float64)
        return (np.add.accumulate(values, axis=1)[:, -1:] / array.shape[1]).astype(dtype.numpy).view(dtype.bits)
    def reference(self, values, dtype, after):
        total = np.zeros(len(values))
        for k in range(values.shape[1]):
            total = total + values[:, k].astype(np.float64)
        return (total / values.shape[1]).astype(dtype.numpy)[:, None]

class Silent(Mean):
    reference = None

def clamp(arguments): return Clamp(float(arguments[0]), arguments[1:] == ("wrong",))
def flip(arguments, takes, makes): return Flip()
def mean(arguments, takes, makes): return Mean()
def silent(arguments, takes, makes): return Silent()
def level(arguments, takes, makes): return Clamp(1.0)
'''


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package as pip would have installed it."""
    (tmp_path / "more_operators.py").write_text(PACKAGE)
    info = tmp_path / "more_operators-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: more-operators\nVersion: 1\n")
    names = "\n".join(f"{name} = more_operators:{name}" for name in ("clamp", "flip", "mean", "silent", "level"))
    (info / "entry_points.txt").write_text(f"[isomorph.operators]\n{names}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    caches = (plugins.cache_clear, plugin.cache_clear, operator_of.cache_clear, verify_operators._tables.clear)
    for clear in caches:
        clear()
    yield
    sys.modules.pop("more_operators", None)
    for clear in caches:
        clear()


def converted(tmp_path: Path, values: np.ndarray, text: str) -> np.ndarray:
    save_file({"w": values}, tmp_path / "a.safetensors")
    done = iso.convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors", iso.morph(text=text + "\n"))
    assert "bit for bit" in str(done)
    return load_file(tmp_path / "b.safetensors")["e"]


VALUES = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)


def test_an_operator_on_elements(tmp_path: Path) -> None:
    """With its words; the plan shows its class."""
    assert np.array_equal(converted(tmp_path, VALUES, "w [o i] -> e [i o] | clamp 0.5"), np.clip(VALUES, -0.5, 0.5).T)
    plan = iso.morph(text="w -> e | clamp 0.5\n").plan({"w": VALUES})
    assert plan.plan.targets["e"].klass == "one-way" and "| clamp 0.5" in str(plan)


def test_an_operator_along_axes_that_is_undone(tmp_path: Path) -> None:
    """The axis stays, so that the rule goes both ways: there and back gives every bit."""
    rule = iso.morph(text="w [o i] <-> e [i o] | flip i -> i\n")
    assert np.array_equal(converted(tmp_path, VALUES, "w [o i] <-> e [i o] | flip i -> i"), VALUES[:, ::-1].T)
    back = rule.inverse.plan(tmp_path / "b.safetensors").state_dict()["w"]
    assert back.tobytes() == VALUES.tobytes()
    assert rule.plan({"w": VALUES}).plan.targets["e"].klass == "exact"


def test_an_operator_along_axes_that_leaves_none(tmp_path: Path) -> None:
    """`1` stands for an axis that is gone."""
    made = converted(tmp_path, VALUES, "w [o i] -> e [o 1] | mean i -> 1")
    assert made.shape == (6, 1) and np.allclose(made[:, 0], VALUES.mean(axis=1), atol=1e-6)


def test_verify_runs_the_reference_and_nothing_else(tmp_path: Path) -> None:
    """A reference that disagrees with its kernel is a difference, and the file does not get its name."""
    with pytest.raises(Different, match="e"):
        converted(tmp_path, VALUES, "w -> e | clamp 0.5 wrong")
    assert not (tmp_path / "b.safetensors").exists()


def test_an_operator_without_a_reference_is_not_verified(tmp_path: Path) -> None:
    """Verify says so, and what its package must bring."""
    with pytest.raises(Different) as caught:
        converted(tmp_path, VALUES, "w [o i] -> e [o] | silent i -> 1")
    assert "`silent` has no plain reference, so that verify cannot check it" in str(caught.value)
    assert "its package gives it a `reference`" in str(caught.value)


def test_words_that_the_package_refuses_are_said(tmp_path: Path) -> None:
    """With or without axes, and whatever it raises: the text and the package must agree."""
    with pytest.raises(MorphError, match="`clamp i -> j 3` was refused by the package that has `clamp`: TypeError"):
        iso.morph(text="w [o i] -> e [o j] | clamp i -> j 3 where j=2\n").plan({"w": VALUES})
    with pytest.raises(
        MorphError, match="`clamp much` was refused by the package that has `clamp`: ValueError: could not convert"
    ):
        iso.morph(text="w -> e | clamp much\n").plan({"w": VALUES})
    with pytest.raises(MorphError, match="`level` gave a Clamp, not an operator along axes"):
        iso.morph(text="w [o i] -> e [o j] | level i -> j where j=2\n").plan({"w": VALUES})
