"""The real conversions of tests/pairs, inferred: by values bit for bit and short; by names without a false word."""

from __future__ import annotations

import pytest
from conversions import UNMADE, Example
from judged import outcome, truth_of
from peer_examples import NAMES, peer_example
from proposal_truth import Score, judge

from isomorph.formats.memory import ArrayCheckpoint
from isomorph.infer.by_name.propose import propose
from isomorph.infer.run import infer


@pytest.fixture(scope="module", params=NAMES)
def example(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Example:
    return peer_example(request.param, tmp_path_factory.mktemp("pair"))


def test_by_values_the_morph_gives_the_target_and_is_short(example: Example) -> None:
    """Proved, equal in every bit, right element by element, and at most twice the lines that a person wrote."""
    inference = infer(ArrayCheckpoint(example.source), ArrayCheckpoint(example.target), configs=example.configs)
    found = outcome(example, inference)
    assert ([], [], []) == (list(inference.problems), list(found.bits), list(found.wrong))
    assert (True, True) == (inference.is_proved, found.is_exact), found.refused
    assert example.hand_lines is not None
    assert found.lines <= 2 * example.hand_lines, inference.text


def test_the_morph_is_one_of_rules_and_not_a_list(example: Example) -> None:
    """No layer and no expert is named by its number where there are several: the rules hold for models of any depth."""
    inference = infer(ArrayCheckpoint(example.source), ArrayCheckpoint(example.target), configs=example.configs)
    repeated = [
        line for line in inference.text.splitlines() if ".1." in line.split("#")[0] or "/1/" in line.split("#")[0]
    ]
    assert [] == [line for line in repeated if not line.strip().startswith("#")], inference.text


def by_names(example: Example, catalogue: bool) -> Score:
    source, target = (ArrayCheckpoint(arrays).manifest for arrays in (example.source, example.target))
    proposed = propose(source, target, configs=example.configs, use_catalogue=catalogue)
    made = [name for name, numbers in example.truth.items() if not (numbers == UNMADE).any()]
    return judge(proposed, truth_of(example), made)


@pytest.mark.parametrize("catalogue", [True, False], ids=["with the catalogue", "by names alone"])
def test_by_names_nothing_that_is_stated_is_false(example: Example, catalogue: bool) -> None:
    """No source, no orientation and no order is stated wrongly; the truth is among the alternatives of what is asked."""
    score = by_names(example, catalogue)
    assert ([], []) == (score.of("wrong"), score.of("asked without the truth"))


def test_by_names_and_catalogue_the_sources_are_known(example: Example) -> None:
    """For 95 of 100 targets the right sources are stated."""
    assert by_names(example, True).sources_known >= 0.95
