"""What a normalisation computes is found from what goes in and comes out."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from isomorph.trace.diagnose.norm_law import NormData, NormLaw, carry_out, error_between, fit_laws

RNG = np.random.default_rng(0)


def data(shape: tuple[int, ...] = (3, 5, 24), scale: float = 1.0) -> NormData:
    x = RNG.normal(size=shape) * scale * np.exp(RNG.normal(size=(*shape[:-1], 1))) + 0.3 * scale
    return NormData(x, np.empty(0), RNG.normal(size=shape[-1]) + 1, RNG.normal(size=shape[-1]))


def seen(law: NormLaw, scale: float = 1.0, shape: tuple[int, ...] = (3, 5, 24)) -> NormData:
    one = data(shape, scale)
    return replace(one, y=carry_out(law, one))


@pytest.mark.parametrize("eps", [1e-5, 1e-6, 1e-12, 3e-7, 0.1, 2.5e-4])
@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_eps_is_solved_for(eps: float, scale: float) -> None:
    """In float64, eps comes out as the number that it is, for any input scale that shows it."""
    if eps == 1e-12 and scale == 1.0:
        scale = 1e-2
    fitted = fit_laws(seen(NormLaw(eps=eps), scale), 1e-13)[0]
    assert (NormLaw(eps=eps), True) == (fitted.law, fitted.residual < 1e-13)


def test_eps_of_float32_tensors_is_solved_for_where_the_input_is_small() -> None:
    """Noise of float32 does not hide eps on small inputs."""
    one = seen(NormLaw(eps=1e-5), 3e-3)
    noisy = replace(one, x=one.x.astype(np.float32).astype(float), y=one.y.astype(np.float32).astype(float))
    assert 1e-5 == fit_laws(noisy, 2e-6)[0].law.eps


RELATIVES = [
    NormLaw(numerator_is_centred=numerator, variance_is_centred=variance, gain=gain, bias=bias, eps=1e-6)
    for (numerator, variance), gain, bias in itertools.product(
        [(True, True), (False, False), (False, True), (True, False)], ["weight", "1 + weight", "none"], [0, 1, 2]
    )
]


@pytest.mark.parametrize("law", RELATIVES, ids=str)
def test_each_relative_is_told_from_the_others(law: NormLaw) -> None:
    """The law that made the values is the plainest that fits them."""
    assert law == fit_laws(seen(law, 1e-2), 1e-12)[0].law


@pytest.mark.parametrize(
    "law",
    [
        NormLaw(is_unbiased=True, eps=1e-5),
        NormLaw(eps_place="deviation", eps=1e-3),
        NormLaw(gain="weight twice", eps=1e-5),
        NormLaw(over="another axis", axis=1, eps=1e-5),
        NormLaw(over="all axes but the first", eps=1e-5),
        NormLaw(over="all axes but the last", eps=1e-5),
        NormLaw(over="all axes", eps=1e-5),
    ],
    ids=str,
)
def test_rarer_laws(law: NormLaw) -> None:
    """Unbiased variance, eps outside the root, the weight squared, another axis: each is found."""
    assert law == fit_laws(seen(law, 0.05), 1e-12)[0].law


def test_a_batch_norm_has_its_own_statistics() -> None:
    """Stored mean and variance are used where the module has them, and eps is solved from every channel."""
    one = data((4, 6, 16))
    one = replace(one, stored=(RNG.normal(size=16), np.exp(RNG.normal(size=16) - 6)))
    law = NormLaw(over="stored", eps=1e-3)
    assert law == fit_laws(replace(one, y=carry_out(law, one)), 1e-12)[0].law


def test_without_parameters_there_is_no_gain() -> None:
    """A norm without weight and bias is fitted as one."""
    one = replace(data(), weight=None, bias=None)
    law = NormLaw(gain="none", bias=0, eps=1e-5)
    assert law == fit_laws(replace(one, y=carry_out(law, one)), 1e-12)[0].law


def test_what_is_no_norm_is_not_explained() -> None:
    """The best that is found of another function keeps its residual."""
    one = data()
    (fitted,) = fit_laws(replace(one, y=np.tanh(one.x) + one.x), 1e-9)
    assert fitted.residual > 0.05


def test_where_two_values_of_eps_cannot_be_told_apart_the_known_one_is_meant() -> None:
    """At a tolerance that hides the difference, the module's own attribute is taken."""
    assert 3e-9 == fit_laws(seen(NormLaw(eps=1e-9)), 1e-6, (3e-9,))[0].law.eps


def test_an_error_is_infinite_where_something_is_not_finite() -> None:
    """NaN never agrees; nor do other shapes; nor nothing."""
    assert [np.inf] * 3 == [
        error_between(np.array([np.nan, 1.0]), np.ones(2)),
        error_between(np.ones(3), np.ones(2)),
        error_between(np.ones(0), np.ones(0)),
    ]
