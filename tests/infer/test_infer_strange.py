"""Conversions of other families and styles, faults among them, inferred by values: bit for bit, or what is open is said."""

from __future__ import annotations

import pytest
from conversions import Conversion, Example
from corpora import CONVERSIONS
from judged import Outcome, outcome

from isomorph.formats.memory import ArrayCheckpoint
from isomorph.infer.nouns import Inference
from isomorph.infer.run import infer

BY_NAME = {str(one): one for one in CONVERSIONS}

WHOLE = [
    "neox to split", "llama to megatron", "llama to gguf", "llama to ranks", "codegen to split", "deepseek to absorbed", "moe to stacked",
    "gate and up interleaved", "queries scaled inexactly", "norms one more", "vocabulary padded", "f64 to f32", "opaque names",
    "layers reversed", "layers from one", "tied dropped", "tied thrice", "timm to keras hub", "beit to fused", "patches last",
    "stages for layers", "convnext to timm", "resnet to flax", "efficientnet to tf", "fairseq speech to transformers", "mamba to gguf",
    "lstm to onnx", "opt trimmed", "t5 to t5x scanned", "bart to packed", "noise in the source", "student and teacher", "equal layers",
    "every second layer", "squares", "few values", "names that mislead", "rows only",
]  # fmt: skip
FRESH = ["fresh encoder", "fresh llama", "resnet to flax", "neox to split", "layers from one", "llama to phi3"]
LINES = {"opaque names": 13, "timm to keras hub": 26, "unet to diffusers": 120}
"""How long the longest may be; others 20."""


def inferred(example: Example) -> tuple[Inference, Outcome]:
    inference = infer(ArrayCheckpoint(example.source), ArrayCheckpoint(example.target), configs=example.configs)
    return inference, outcome(example, inference)


@pytest.mark.parametrize("name", WHOLE)
def test_what_values_decide_is_written_bit_for_bit(name: str) -> None:
    """Everything is placed and proved, right element by element, in a few lines; the morph holds for other weights."""
    inference, found = inferred(BY_NAME[name].example())
    assert ([], [], []) == (list(inference.problems), list(found.wrong), list(found.again)), inference.text
    assert (True, True) == (found.is_exact, inference.is_proved), (found.refused, inference.coverage.unplaced)
    assert found.lines <= LINES.get(name, 20), inference.text


@pytest.mark.parametrize("name", FRESH)
def test_fresh_weights_are_placed_by_their_siblings_and_their_names(name: str) -> None:
    """Norms of 1 and biases of 0 go where their modules' matrices go: what is stated holds for other weights."""
    inference, found = inferred(BY_NAME[name].example("fresh"))
    assert ([], [], []) == (list(found.bits), list(found.wrong), list(found.again)), inference.text
    assert not inference.coverage.unplaced


@pytest.mark.parametrize("conversion", [one for one in CONVERSIONS if not one.whole], ids=str)
def test_what_values_leave_open_is_said(conversion: Conversion) -> None:
    """Nothing that is stated is false: what the morph makes is right in every bit, and it calls itself proved only when it makes all."""
    inference, found = inferred(conversion.example())
    assert found.is_honest, (found.bits, inference.text)
    assert [] == [name for name in found.wrong if name not in found.example.unmade]


def test_a_matrix_that_is_not_transposed_is_an_outlier() -> None:
    """It is named with its siblings, and asked; the other layers are one rule."""
    inference, found = inferred(BY_NAME["one not transposed"].example())
    name = "encoder.layers.3.self_attn.out_proj.weight"
    assert [name] == [one.target for one in inference.outliers]
    assert "NOT transposed" in inference.outliers[0].text
    assert [(name,)] == [question.targets for question in inference.questions]
    assert found.lines <= 20, inference.text


def test_keys_and_values_that_are_exchanged_in_one_layer_are_outliers() -> None:
    """Both are named."""
    inference, _ = inferred(BY_NAME["keys and values swapped in one"].example())
    asked = {name for question in inference.questions for name in question.targets}
    assert {f"encoder.layers.5.self_attn.{part}_proj.weight" for part in "kv"} == asked


def test_noise_is_unplaced_and_the_rest_is_as_short_as_without_it() -> None:
    """Adapters that the source never had are listed, by their names."""
    inference, found = inferred(BY_NAME["noise in the target"].example())
    assert found.example.unmade == set(inference.coverage.unplaced)
    assert found.lines <= 20, inference.text


def test_unrelated_models_share_nothing() -> None:
    """Nothing is placed, and no morph is written."""
    inference, found = inferred(BY_NAME["unrelated"].example())
    assert ("", set(found.example.target)) == (inference.text, set(inference.coverage.unplaced))


def test_a_fine_tuned_copy_is_said_to_be_near() -> None:
    """No value is equal: what each target is nearest to is said, and nothing is stated."""
    inference, found = inferred(BY_NAME["fine-tuned"].example())
    assert set(found.example.target) == set(inference.coverage.unplaced)
    assert len(inference.approximate) > 100
    assert any("trained further" in note for note in inference.notes)


def test_more_layers_than_the_source_has() -> None:
    """Eight layers are placed in one rule, the last two listed."""
    inference, found = inferred(BY_NAME["target longer"].example())
    assert found.example.unmade == set(inference.coverage.unplaced)
    assert found.lines <= 20, inference.text
