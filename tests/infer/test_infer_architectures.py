"""Real architectures, 12 to 48 layers deep, inferred by values, trained and as a library initialises them; and by names alone."""

from __future__ import annotations

import pytest
from architectures import ARCHITECTURES, Architecture
from corpora import trained
from judged import outcome, truth_of
from proposal_truth import judge

from isomorph.formats.memory import ArrayCheckpoint
from isomorph.infer.by_name.propose import propose
from isomorph.infer.run import infer

CHOSEN = [one for one in ARCHITECTURES if (one.source, one.target) in {
    ("vit/hf", "big_vision_scanned"), ("llama/hf", "megatron_core"), ("mixtral/hf", "gguf"), ("swin/hf", "timm"),
    ("bert/tf_keras", "flash_attn"),
}]  # fmt: skip
LINES = 20


@pytest.mark.parametrize("architecture", CHOSEN, ids=str)
@pytest.mark.parametrize("fresh", [False, True], ids=["trained", "fresh"])
def test_deep_models_are_inferred_in_a_few_rules(architecture: Architecture, fresh: bool) -> None:
    """Bit for bit, the same for other weights, and in no more lines than for two layers. Norms of 1 and biases of 0 say nothing by
    themselves: names place them."""
    example = architecture.example(fresh=fresh)
    inference = infer(ArrayCheckpoint(example.source), ArrayCheckpoint(example.target), configs=example.configs)
    found = outcome(example, inference)
    assert ([], [], []) == (list(inference.problems), list(found.wrong), list(found.again))
    assert (True, True) == (found.is_exact, inference.is_proved)
    assert found.lines <= LINES, inference.text


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
def test_deep_models_by_names_alone(architecture: Architecture) -> None:
    """Nothing that is stated is false."""
    example = architecture.example()
    source, target = (ArrayCheckpoint(arrays).manifest for arrays in (example.source, example.target))
    score = judge(propose(source, target, configs=example.configs), truth_of(example), list(example.truth))
    assert ([], []) == (score.of("wrong"), score.of("asked without the truth"))


def test_trained_weights_are_inferred() -> None:
    """MiniLM, fused and transposed: bit for bit, in a few lines."""
    example = trained()["minilm fused"]()
    inference = infer(ArrayCheckpoint(example.source), ArrayCheckpoint(example.target))
    found = outcome(example, inference)
    assert (True, True) == (found.is_exact, inference.is_proved), inference.problems
    assert found.lines <= LINES
