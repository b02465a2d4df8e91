"""By names only, on the 26 conversions of other packages: nothing certain is wrong, every question holds the truth."""

from __future__ import annotations

from pathlib import Path

import pytest
from proposal_truth import Numbers, Truth, judge, written_out
from proposing import NAMES, manifest_of, true_plan, unpacked

from isomorph.infer.by_name.propose import propose


@pytest.mark.parametrize("name", NAMES)
def test_with_the_catalogue_only_what_it_does_not_know_is_asked(name: str, tmp_path: Path) -> None:
    """Both sides of each pair are in a layout of the catalogue: all is placed right, but for heads that no config states."""
    pair = unpacked(name, tmp_path)
    proposed = propose(manifest_of(pair.source), manifest_of(pair.target), configs=(pair.config, None))
    score = judge(proposed, Truth.of_plan(true_plan(pair)))
    assert [] == [each for state in ("wrong", "asked without the truth", "unplaced") for each in score.of(state)]
    asked = {each.split(".")[-2] for each in score.of("asked")}
    assert asked == ({"c_attn"} if name == "megatron_gpt2_v3_to_hf" else set())
    assert {one.evidence for one in proposed.relations} == {"catalogue"}


@pytest.mark.parametrize("name", NAMES)
def test_by_names_alone_nothing_certain_is_wrong(name: str, tmp_path: Path) -> None:
    """Without the catalogue: what is certain is right, a question's alternatives hold the truth, and each is a relation that can be
    carried out."""
    pair = unpacked(name, tmp_path)
    proposed = propose(
        manifest_of(pair.source), manifest_of(pair.target), configs=(pair.config, None), use_catalogue=False
    )
    truth = Truth.of_plan(true_plan(pair))
    score = judge(proposed, truth)
    assert score.of("wrong") == []
    assert score.of("asked without the truth") == []
    assert score.sources_known >= 0.9
    numbers = Numbers(manifest_of(pair.source))
    for question in proposed.questions:
        assert len(question.alternatives) > 1
        assert len({one.words for one in question.alternatives}) == len(question.alternatives)
        for one in question.alternatives:
            for relation in one.relations:
                written_out(relation, numbers)
    assert len({one.key for one in proposed.questions}) == len(proposed.questions)


def test_a_proposal_is_the_same_each_time(tmp_path: Path) -> None:
    """Nothing depends on the order in which a set is walked."""
    pair = unpacked("hf_llama_to_litgpt", tmp_path)
    source, target = manifest_of(pair.source), manifest_of(pair.target)
    assert propose(source, target, use_catalogue=False) == propose(source, target, use_catalogue=False)
