"""A plain function as a Side: its outputs, in the arrays of the library that it computes with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import isomorph as iso
from isomorph.errors import UsageError
from isomorph.trace.nouns import Call, Site
from isomorph.trace.sides import side_of

X = np.random.default_rng(0).normal(size=(2, 3))


def of_torch(x: Any, scale: Any = None) -> Any:
    return {"y": torch.tanh(x)}


def of_numpy(x: Any) -> Any:
    return np.tanh(x), x.sum()


def of_neither(x: Any) -> Any:
    return x * 2


def of_a_helper(x: Any) -> Any:
    return of_torch(x)["y"]


class Holder:
    """An object with a method that computes with torch, and that is called itself."""

    def __init__(self) -> None:
        self.weight = torch.ones(3, dtype=torch.float64)

    def encode(self, x: Any) -> Any:
        return x @ self.weight

    def __call__(self, x: Any) -> Any:
        return self.encode(x)


@pytest.mark.parametrize(
    ("function", "library"),
    [(of_torch, "torch"), (of_numpy, "numpy"), (of_a_helper, "torch"), (Holder().encode, "torch"), (Holder(), "torch")],
)
def test_the_library_is_told_by_the_code(function: Any, library: str) -> None:
    """By what a function names, what it is bound to, and what it calls."""
    side: Any = side_of(function)
    assert library == side.arrays
    assert side.copy("float64").run([X]).outputs
    assert "callable" == side.library


def test_outputs_are_seen_and_nothing_else() -> None:
    """Named and positional inputs; the dtype of the copy; no state, one module."""
    side = side_of(of_torch).copy("float64")
    capture = side.run({"x": X})
    assert np.array_equal(torch.tanh(torch.from_numpy(X)).numpy(), capture.outputs["y"])
    assert np.array_equal(capture.outputs["y"], side.run([X]).outputs["y"])
    assert np.float32 == side_of(of_torch).run([X]).outputs["y"].dtype
    assert (0, {}, [""], [("x", True), ("scale", False)]) == (
        len(side.manifest()),
        side.state(),
        list(side.modules()),
        list(side.takes()),
    )
    assert np.array_equal(X, capture.values[Site("", 0, "in")])
    assert not side.run([X], watch=()).values
    with pytest.raises(
        UsageError, match=r"of_torch \(function\) is a plain function: no module of it can be run alone"
    ):
        side.replay(capture, Call("", 0))
    with pytest.raises(UsageError, match="its weights cannot be set"):
        side.fill({"w": X})


def test_numbers_of_numpy_are_tensors() -> None:
    """A sum in numpy is an array of no axes; Python's numbers are none."""
    outputs = side_of(of_numpy).copy("float64").run([X]).outputs
    assert ["0", "1"] == list(outputs) and X.sum() == outputs["1"]


def test_a_function_of_no_known_library_is_tried() -> None:
    """numpy first; or as `library` says."""
    assert np.array_equal(X * 2, side_of(of_neither).copy("float64").run([X]).outputs[""])
    side: Any = side_of(of_neither, "mine", library="torch")
    side.run([X])
    assert ("mine", "torch") == (side.title, side.arrays)
    with pytest.raises(UsageError, match=r'library=.jax.: a function takes arrays of "numpy", "torch" or "paddle"'):
        side_of(of_neither, library="jax")


def test_a_function_that_does_not_run() -> None:
    """Its own words."""

    def broken(x: Any) -> Any:
        return torch.zeros(5) + x

    with pytest.raises(
        UsageError, match=r"broken \(function\) does not run on 0 float64\[2 3\]: RuntimeError: The size"
    ):
        side_of(broken).run([X])
    with pytest.raises(UsageError, match=r"It takes x$"):
        side_of(of_numpy).run({"y": X})


def test_a_function_that_differs_is_not_said_to_be_passed_by() -> None:
    """What comes closest has a name; a plain function has no module that could be left out."""
    report = iso.trace(lambda x: x * 2, lambda x: x * 3, inputs={"x": np.ones(3)})
    text = str(report)
    assert report.diverged
    assert "passed by" not in text
    assert "compared  1 tensor (1 of them outputs) · 3 elements · 1 run in " in text
