"""A ViT and a BERT made one VisionTextDualEncoderModel, and a T5 of two halves: real transformers models in, and what comes out loads
whole and answers as its parts do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contrastive import Arrays, differing, quiet_transformers, randomised

import isomorph as iso
from isomorph.errors import MorphError
from isomorph.layouts.catalogue import FOLDER

VISION = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 16,
          "patch_size": 8}  # fmt: skip
TEXT = {"hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 3, "vocab_size": 31,
        "max_position_embeddings": 11, "type_vocab_size": 5}  # fmt: skip
PROJECTION = 6


@pytest.fixture(scope="module")
def transformers() -> Any:
    return quiet_transformers()


def splice(name: str) -> iso.Morph:
    return iso.morph(FOLDER / "splice" / f"{name}.morph")


def read(folder: Path) -> Arrays:
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


def named(**models: Mapping[str, Any]) -> Arrays:
    """Several sets of tensors as one source, `vision::` and so on before their names."""
    return {f"{name}::{key}": array for name, arrays in models.items() for key, array in arrays.items()}


class Models:
    """Each model of random numbers that a splice begins with, and the folder it was saved to."""

    def __init__(self, transformers: Any, folder: Path) -> None:
        self.transformers, self.folder = transformers, folder
        self.made: dict[str, Any] = {}

    def __getitem__(self, cls: str) -> Any:
        if cls not in self.made:
            self.made[cls] = randomised(self._make(cls))
            self.made[cls].save_pretrained(self.folder / cls)
        return self.made[cls]

    def arrays(self, cls: str) -> Arrays:
        _ = self[cls]
        return read(self.folder / cls)

    def path(self, cls: str) -> Path:
        _ = self[cls]
        return self.folder / cls

    def config(self) -> Any:
        vision, text = self.transformers.ViTConfig(**VISION), self.transformers.BertConfig(**TEXT)
        return self.transformers.VisionTextDualEncoderConfig.from_vision_text_configs(
            vision, text, projection_dim=PROJECTION
        )

    def _make(self, cls: str) -> Any:
        if cls == "VisionTextDualEncoderModel":
            model = self.transformers.VisionTextDualEncoderModel(self.config())
            for parameter in model.parameters():
                parameter.data += 1
            return model
        kind, sizes = ("ViTConfig", VISION) if cls.startswith("ViT") else ("BertConfig", TEXT)
        return getattr(self.transformers, cls)(getattr(self.transformers, kind)(**sizes))


@pytest.fixture(scope="module")
def models(transformers: Any, tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(transformers, tmp_path_factory.mktemp("models"))


def by_hand(vision: Arrays, text: Arrays, fresh: Arrays, fresh_poolers: tuple[str, ...] = ()) -> Arrays:
    """The fresh model's tensors, those of the towers overwritten one by one."""
    expected = dict(fresh)
    for tower, arrays, base in (("vision", vision, "vit."), ("text", text, "bert.")):
        for name, array in arrays.items():
            place = f"{tower}_model.{name.removeprefix(base)}"
            if place in expected and not (tower in fresh_poolers and ".pooler." in place):
                expected[place] = array
    return expected


CASES = [
    ("vision_text_dual", "ViTModel", "BertModel", ()),
    ("vision_text_dual", "ViTModel", "BertForPreTraining", ()),
    ("vision_text_dual_fresh_vision_pooler", "ViTForImageClassification", "BertModel", ("vision",)),
    ("vision_text_dual_fresh_text_pooler", "ViTModel", "BertForMaskedLM", ("text",)),
    ("vision_text_dual_fresh_poolers", "ViTForMaskedImageModeling", "BertForQuestionAnswering", ("vision", "text")),
]


@pytest.mark.parametrize(("name", "vision", "text", "fresh_poolers"), CASES)
def test_the_towers_are_theirs_and_the_rest_is_fresh(
    models: Models, name: str, vision: str, text: str, fresh_poolers: tuple[str, ...]
) -> None:
    """Bit for bit, under the names of VisionTextDualEncoderModel on disk; with a head or without, its prefix is seen through."""
    paths = {"vision": vision, "text": text, "fresh": "VisionTextDualEncoderModel"}
    source = iso.open(*(f"{part}={models.path(cls)}" for part, cls in paths.items()))
    expected = by_hand(*(models.arrays(cls) for cls in paths.values()), fresh_poolers=fresh_poolers)
    assert [] == differing(expected, dict(splice(name).plan(source).state_dict("numpy")))


def test_the_result_loads_whole_and_answers_as_its_towers(models: Models, transformers: Any, tmp_path: Path) -> None:
    import torch

    source = iso.open(
        f"vision={models.path('ViTModel')}",
        f"text={models.path('BertModel')}",
        f"fresh={models.path('VisionTextDualEncoderModel')}",
    )
    splice("vision_text_dual").plan(source).write(tmp_path / "out", format="safetensors")
    models.config().save_pretrained(tmp_path / "out")
    joint, said = transformers.VisionTextDualEncoderModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not said["missing_keys"] and not said["unexpected_keys"] and not said["mismatched_keys"]
    image, tokens = torch.randn(2, 3, 16, 16), torch.randint(1, 31, (3, 9))
    fresh = models["VisionTextDualEncoderModel"]
    with torch.no_grad():
        found = joint.eval()(pixel_values=image, input_ids=tokens)
        seen = fresh.visual_projection(models["ViTModel"](image).pooler_output)
        said_of = fresh.text_projection(models["BertModel"](tokens).pooler_output)
        seen, said_of = (one / one.norm(dim=-1, keepdim=True) for one in (seen, said_of))
        logits = said_of @ seen.t() * fresh.logit_scale.exp()
    torch.testing.assert_close(found.logits_per_text, logits)


def test_a_fresh_model_in_memory_gives_the_same(models: Models) -> None:
    """Its modules name ViT's layers otherwise than files do; only what joins the towers is taken of it."""
    fresh = {name: tensor.numpy() for name, tensor in models["VisionTextDualEncoderModel"].state_dict().items()}
    assert set(fresh) != set(models.arrays("VisionTextDualEncoderModel"))
    towers = {"vision": models.arrays("ViTModel"), "text": models.arrays("BertModel")}
    expected = by_hand(towers["vision"], towers["text"], models.arrays("VisionTextDualEncoderModel"))
    found = splice("vision_text_dual").plan(named(**towers, fresh=fresh)).state_dict("numpy")
    assert [] == differing(expected, dict(found))


def test_logit_scale_as_it_is_stated(models: Models) -> None:
    """CLIP's beginning, ln(1 / 0.07), to the digits of transformers' own configs."""
    inputs = {"vision": "ViTModel", "text": "BertModel", "fresh": "VisionTextDualEncoderModel"}
    arrays = {part: models.arrays(cls) for part, cls in inputs.items()}
    stated = np.array(models.config().logit_scale_init_value, dtype=np.float32)
    expected = by_hand(*arrays.values()) | {"logit_scale": stated}
    found = splice("vision_text_dual_stated_scale").plan(named(**arrays)).state_dict("numpy")
    assert [] == differing(expected, dict(found))
    del arrays["fresh"]["logit_scale"]
    found = splice("vision_text_dual_stated_scale").plan(named(**arrays)).state_dict("numpy")
    assert [] == differing(expected, dict(found))


def test_projections_of_another_width_are_refused(models: Models) -> None:
    """They must fit the towers: said before anything is read."""
    inputs = {"vision": "ViTModel", "text": "BertModel", "fresh": "VisionTextDualEncoderModel"}
    arrays = {part: models.arrays(cls) for part, cls in inputs.items()}
    arrays["fresh"]["visual_projection.weight"] = np.zeros((PROJECTION, 7), dtype=np.float32)
    with pytest.raises(MorphError, match=r"fresh::visual_projection\.weight"):
        splice("vision_text_dual").plan(named(**arrays))


def test_a_missing_pooler_is_named(models: Models) -> None:
    """ViTForImageClassification has none: the splice that takes it from the ViT says which rule found nothing."""
    inputs = {"vision": "ViTForImageClassification", "text": "BertModel", "fresh": "VisionTextDualEncoderModel"}
    arrays = {part: models.arrays(cls) for part, cls in inputs.items()}
    with pytest.raises(MorphError, match=r"pooler\.dense"):
        splice("vision_text_dual").plan(named(**arrays))


# ── T5 of two halves ─────────────────────────────────────────────────────────────────────────────────────────────────

T5 = {"d_model": 12, "d_kv": 5, "d_ff": 20, "num_heads": 3, "vocab_size": 31, "relative_attention_num_buckets": 7}
KINDS: dict[str, dict[str, Any]] = {
    "v1.0": {},
    "v1.1": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
}


def t5_halves(transformers: Any, kind: str) -> tuple[Any, Any]:
    """An encoder of three layers and a whole model of two, their tables of tokens the same."""
    import torch

    config = transformers.T5Config(**T5, **KINDS[kind], num_layers=3)
    encoder = randomised(transformers.T5EncoderModel(config))
    config = transformers.T5Config(**T5, **KINDS[kind], num_layers=2, num_decoder_layers=4)
    whole = randomised(transformers.T5ForConditionalGeneration(config))
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.mul_(0.5)
        encoder.shared.weight.copy_(whole.shared.weight)
    return encoder, whole


@pytest.mark.parametrize("kind", KINDS)
def test_two_halves_of_t5(transformers: Any, kind: str, tmp_path: Path) -> None:
    """The encoder's layers and the decoder's: the joint loads whole, and its encoder answers as the one it came from."""
    import torch

    encoder, whole = t5_halves(transformers, kind)
    encoder.save_pretrained(tmp_path / "encoder")
    whole.save_pretrained(tmp_path / "decoder")
    source = iso.open(f"encoder={tmp_path / 'encoder'}", f"decoder={tmp_path / 'decoder'}")
    halves = {part: read(tmp_path / part) for part in ("encoder", "decoder")}
    expected = {key: array for key, array in halves["decoder"].items() if not key.startswith("encoder.")}
    expected |= {key: array for key, array in halves["encoder"].items() if key.startswith("encoder.")}
    made = splice("t5_halves").plan(source)
    assert [] == differing(expected, dict(made.state_dict("numpy")))

    made.write(tmp_path / "out", format="safetensors")
    config = transformers.T5Config(**T5, **KINDS[kind], num_layers=3, num_decoder_layers=4)
    config.save_pretrained(tmp_path / "out")
    joint, said = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not said["missing_keys"] and not said["unexpected_keys"] and not said["mismatched_keys"]
    tokens = torch.randint(0, 31, (2, 6))
    with torch.no_grad():
        hidden = encoder(tokens)
        expected_logits = whole(encoder_outputs=(hidden.last_hidden_state,), decoder_input_ids=tokens).logits
        found = joint.eval()(input_ids=tokens, decoder_input_ids=tokens)
    torch.testing.assert_close(found.encoder_last_hidden_state, hidden.last_hidden_state)
    torch.testing.assert_close(found.logits, expected_logits)


def test_halves_of_transformers_4_are_read_too(transformers: Any) -> None:
    """The table under all its names; and a whole model gives its encoder as well as an encoder alone does."""
    encoder, whole = t5_halves(transformers, "v1.1")
    new = {"encoder": {}, "decoder": {}}
    old = {
        part: {key: tensor.numpy() for key, tensor in model.state_dict().items()}
        for part, model in (("encoder", encoder), ("decoder", whole))
    }
    for part, arrays in old.items():
        new[part] = {key: array for key, array in arrays.items() if "embed_tokens" not in key}
    expected = dict(splice("t5_halves").plan(named(**new)).state_dict("numpy"))
    assert [] == differing(expected, dict(splice("t5_halves").plan(named(**old)).state_dict("numpy")))
    rest = {key: array for key, array in new["decoder"].items() if key.startswith(("decoder.", "lm_head"))}
    new["encoder"] |= rest
    assert [] == differing(expected, dict(splice("t5_halves").plan(named(**new)).state_dict("numpy")))


def test_two_tables_are_not_mixed_unless_it_is_said_whose(transformers: Any) -> None:
    encoder, whole = t5_halves(transformers, "v1.1")
    halves = {
        part: {key: tensor.numpy() for key, tensor in model.state_dict().items() if "embed_tokens" not in key}
        for part, model in (("encoder", encoder), ("decoder", whole))
    }
    halves["encoder"]["shared.weight"] = halves["encoder"]["shared.weight"] + 1
    with pytest.raises(MorphError, match=r"shared\.weight"):
        splice("t5_halves").plan(named(**halves)).state_dict("numpy")
    for whose in halves:
        found = splice(f"t5_halves_{whose}_table").plan(named(**halves)).state_dict("numpy")
        assert np.array_equal(found["shared.weight"], halves[whose]["shared.weight"])
        assert len(found) == len(halves["decoder"]) + 9, "one layer more in the encoder"


def test_halves_of_two_widths_are_refused(transformers: Any) -> None:
    encoder, whole = t5_halves(transformers, "v1.1")
    halves = {
        part: {key: tensor.numpy() for key, tensor in model.state_dict().items() if "embed_tokens" not in key}
        for part, model in (("encoder", encoder), ("decoder", whole))
    }
    halves["encoder"]["encoder.final_layer_norm.weight"] = np.ones(7, dtype=np.float32)
    with pytest.raises(MorphError, match=r"final_layer_norm\.weight"):
        splice("t5_halves").plan(named(**halves))
