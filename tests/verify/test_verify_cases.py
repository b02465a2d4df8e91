"""Every conformance case that makes something: the case's own values are what verify expects, and one bit less is found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from verify_cases import all_cases, checkpoint, programs_of, source_of, target_of

from isomorph.errors import MorphError
from isomorph.formats.memory import ArrayCheckpoint
from isomorph.verify import verify
from isomorph.verify.compare import read_stages

MAKING = [(name, case) for name, case in all_cases() if "target" in case]
CHECKED = [
    (name, case)
    for name, case in all_cases()
    if case.get("error", {}).get("kind")
    in (
        "tie",
        "constant",
        "cast",
        "size",
        "incomplete",
        "unmatched",
        "idle",
        "two-cuts",
        "written-twice",
        "open",
        "readback",
    )
]


def flipped(target: ArrayCheckpoint, name: str, flat: int) -> ArrayCheckpoint:
    """The same checkpoint with the lowest bit of one element turned."""
    arrays, dtypes = {}, {}
    for each, made in target.manifest.items():
        bits = np.array(target.fetch(each, 0, (made.numel,), (1,)))
        if each == name:
            bits.view(np.uint8)[flat * made.dtype.nbytes] ^= 1
        arrays[each], dtypes[each] = bits.reshape(made.shape), made.dtype
    return ArrayCheckpoint(arrays, dtypes=dtypes)


@pytest.mark.parametrize("case", [case for _, case in MAKING], ids=[name for name, _ in MAKING])
def test_the_target_of_a_case_is_what_verify_expects(case: dict[str, Any]) -> None:
    """Equal to the values of the case; and with the last element of a tensor changed, different there and nowhere else."""
    programs, source, target = programs_of(case), source_of(case), target_of(case)
    given = {"config": case.get("config"), "sizes": case.get("set")}
    report = verify(programs, source, target, **given)
    if sum(made.numel for made in target.manifest.values()) == 0:
        assert not report.equal
        return
    assert report.equal, str(report)
    assert report.elements == report.expected_elements == target.manifest.numel
    assert set(report.dropped) == set(case.get("dropped", []))
    for name, made in target.manifest.items():
        if made.numel:
            wrong = verify(programs, source, flipped(target, name, made.numel - 1), **given)
            (difference,) = wrong.differences
            assert (difference.tensor, difference.count) == (name, 1)
            assert difference.first is not None
            assert difference.first.index == tuple(size - 1 for size in made.shape)


@pytest.mark.parametrize("case", [case for _, case in CHECKED], ids=[name for name, _ in CHECKED])
def test_a_case_that_is_refused_is_never_verified(case: dict[str, Any]) -> None:
    """A morph that does not apply is a failure of the right kind, whatever the target holds."""
    try:
        programs = programs_of(case)
    except MorphError as error:
        assert case["error"]["kind"] in error.kinds
        return
    source, given = source_of(case), {"config": case.get("config"), "sizes": case.get("set")}
    zeros = ArrayCheckpoint({})
    try:
        stages, _, _ = read_stages(programs, source.manifest, **given)
        specs = stages[-1].specs
        zeros = checkpoint(specs, {name: [0] * made.numel for name, made in specs.items()})
    except MorphError:
        pass
    report = verify(programs, source, zeros, **given)
    if (
        "then" in case and case["error"]["kind"] == "idle"
    ):  # an error in one direction of a chain only: said, and no failure
        assert any(case["error"]["mentions"][0] in note for note in report.notes)
    else:
        assert not report.equal
        assert case["error"]["kind"] in {problem.kind for problem in report.problems}
