"""The morph of a trace where none is given: identity, or the way between two recognised layouts; what one side lacks is left out."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from isomorph.errors import MorphError, UsageError
from isomorph.job.traced_models import built, config_mapping, known_facts
from isomorph.job.traced_plan import traced_plan
from isomorph.layouts.catalogue import find
from isomorph.layouts.compose import layout_keys
from isomorph.tensors import Manifest, TensorSpec, dtype
from isomorph.trace.facts import Facts

SIZES = {
    "bert": {"layers": 2, "heads": 2, "head_dim": 6, "ffn": 20, "vocab": 31, "positions": 17, "types": 2},
    "t5": {
        "enc_layers": 2,
        "dec_layers": 2,
        "width": 10,
        "heads": 2,
        "head_dim": 3,
        "ffn": 14,
        "vocab": 31,
        "buckets": 8,
    },
}


def keys(layout: str, without: str = "-", wrapper: str = "", base: str = "") -> Manifest:
    """The key set of a layout; without the names that begin so, below a wrapper, its base prefix taken away."""
    found = layout_keys(find(layout), SIZES[layout.partition("/")[0]])
    kept = {wrapper + name.removeprefix(base): spec for name, spec in found.items() if not name.startswith(without)}
    return Manifest(kept, origin=layout)


def test_equal_names_and_shapes_are_the_identity() -> None:
    """So is a candidate that has some of them; nothing is recognised then."""
    whole = keys("bert/hf")
    part = Manifest({name: spec for name, spec in whole.items() if "layer.0" in name})
    assert "unchanged" == traced_plan(whole, whole).title
    found = traced_plan(whole, part)
    assert (set(part), False) == (set(found.plan.targets), found.is_found)
    assert any("the candidate lacks" in note for note in found.notes)


@pytest.mark.parametrize(
    ("reference", "candidate"),
    [
        (keys("bert/hf"), keys("bert/fused_qkv")),
        (keys("bert/fused_qkv"), keys("bert/hf")),
        (keys("bert/hf", "cls", base="bert."), keys("bert/fused_qkv", "cls", base="bert.")),
        (keys("bert/hf", "cls", base="bert."), keys("bert/fused_qkv", "cls", wrapper="model.", base="bert.")),
        (keys("t5/hf"), keys("t5/fused_qkv")),
    ],
    ids=["to fused", "from fused", "no head", "a wrapper", "t5"],
)
def test_two_layouts_are_recognised_and_every_tensor_is_made(reference: Manifest, candidate: Manifest) -> None:
    """The morph that was found is said; the plan makes the candidate's tensors, all of them, in their shapes."""
    found = traced_plan(reference, candidate)
    assert found.is_found
    assert f"{reference.origin} -> {candidate.origin}" == found.title
    assert any(f"the layouts were recognised, {found.title}" in note for note in found.notes)
    assert {name: spec.shape for name, spec in candidate.items()} == {
        name: target.spec.shape for name, target in found.plan.targets.items()
    }


def test_a_head_that_one_side_lacks_is_left_out_and_said() -> None:
    """A body against a whole model, both ways: what is common is traced."""
    body, whole = keys("bert/hf", "cls", base="bert."), keys("bert/fused_qkv")
    forth = traced_plan(body, whole)
    assert any("the morph makes nothing of" in note and "cls.predictions" in note for note in forth.notes)
    assert all(name.startswith("bert.") for name in forth.plan.targets)
    back = traced_plan(whole, body)
    assert set(body) == set(back.plan.targets)


def test_copies_of_a_tied_tensor_are_no_names_of_their_own() -> None:
    """A live model holds its head as a copy of its embedding, a file does not: it is recognised as what a file holds."""
    file = keys("t5/hf")
    head = TensorSpec(file["shared.weight"].dtype, file["shared.weight"].shape)
    live = Manifest({**dict(file), "lm_head.weight": head}, shared=(("shared.weight", "lm_head.weight"),))
    found = traced_plan(live, keys("t5/fused_qkv"))
    assert found.title == "t5/hf -> t5/fused_qkv"
    assert "lm_head.weight" not in found.plan.source


def test_a_copy_that_the_candidate_holds_by_itself_is_made() -> None:
    """A head tied to its embedding on one side, and of its own on the other: it is filled, not left as it was."""
    file, candidate = keys("t5/hf"), keys("t5/fused_qkv")
    head = TensorSpec(file["shared.weight"].dtype, file["shared.weight"].shape)
    live = Manifest({**dict(file), "lm_head.weight": head}, shared=(("shared.weight", "lm_head.weight"),))
    found = traced_plan(live, Manifest({**dict(candidate), "lm_head.weight": head}))
    assert "lm_head.weight" in found.plan.targets
    assert not any("makes nothing of" in note for note in found.notes)


def test_two_families_and_unknown_names_ask_for_a_morph() -> None:
    """Nothing is paired by position or shape."""
    with pytest.raises(UsageError, match=r"the reference is bert/hf, the candidate t5/hf: of two families.*--morph"):
        traced_plan(keys("bert/hf"), keys("t5/hf"))
    odd = Manifest({"a.b.c": keys("bert/hf")["bert.pooler.dense.bias"]})
    with pytest.raises(MorphError, match="the candidate's state dict was not recognised, and no morph was given"):
        traced_plan(keys("bert/hf"), odd)


def test_configs_are_found_on_models_and_inside_them() -> None:
    """A mapping, a plain object, one that a module inside holds; else the catalogue's sizes of the state dict."""
    inner = nn.Linear(2, 2)
    inner.config = SimpleNamespace(vocab_size=31, vision=SimpleNamespace(image_size=8), _hidden=1)  # type: ignore[assignment]
    assert config_mapping(nn.Sequential(inner)) == {"vocab_size": 31, "vision": {"image_size": 8}}
    assert config_mapping(nn.Linear(2, 2)) is None
    nothing = nn.Linear(2, 2), nn.Linear(2, 2)
    facts = known_facts(nothing, (keys("bert/hf"), Manifest({})), None)
    assert (facts.vocab, facts.positions, facts.types) == (31, 17, 2)
    assert known_facts(nothing, (Manifest({}), Manifest({})), {"vocab_size": 5}) == Facts(vocab=5)


def test_a_model_that_is_built_here_is_put_into_evaluation_mode() -> None:
    """One that was given is left as it is."""
    model, notes = built("torch.nn:Identity", "candidate")
    assert not model.training
    assert notes == ("the candidate was built in training mode; it was put into evaluation mode",)
    given = nn.Dropout()
    assert built(given, "candidate") == (given, ())
    assert given.training
    assert torch.is_grad_enabled()


FILES = """
vit.embeddings.** <-> e.**
vit.encoder.layer.{l}. <-> b.{l}.:
  attention.attention.{p=query|key|value}.{t=weight|bias} [o ...] <-> qkv.{t} [(p o) ...]
  ** <-> **
** <-> **
"""


def test_a_morph_for_files_fits_models_whose_modules_have_other_names() -> None:
    """transformers 5 names the modules of ViT otherwise than its files: on either side the way to the files' names is put in."""
    sizes = {
        "layers": 2, "heads": 2, "head_dim": 3, "width": 6, "ffn": 20, "patch": 4, "channels": 3, "image": 12, "positions": 10, "classes": 5, "pooled": 6, "stride": 2, "pixels": 12
    }  # fmt: skip
    files, modules = (layout_keys(find(f"vit/{name}"), sizes) for name in ("hf", "hf_module"))
    files, modules = (
        Manifest({name: spec for name, spec in found.items() if not name.startswith(("vit.pooler", "decoder", "vit.embeddings.mask"))})
        for found in (files, modules)
    )  # fmt: skip
    plan = traced_plan(files, Manifest({}), FILES).plan
    candidate = plan.manifest
    for reference, note in ((files, None), (modules, "the reference's modules are named as vit/hf_module")):
        found = traced_plan(reference, candidate, FILES)
        assert set(candidate) == set(found.plan.targets)
        assert (note is None) == (not any("named as" in one for one in found.notes))
    found = traced_plan(files, modules, "** <-> **")
    assert set(modules) == set(found.plan.targets)
    assert any("the candidate's modules are named as vit/hf_module" in note for note in found.notes)


def test_a_morph_for_files_fits_models_with_tied_names() -> None:
    """Files hold one of the names that are one tensor; a model's state dict has them all."""
    spec = TensorSpec(dtype("f32"), (5, 3))
    tied = Manifest({"emb.weight": spec, "head.weight": spec}, shared=(("emb.weight", "head.weight"),))
    found = traced_plan(tied, Manifest({"words": spec}), "emb.weight <-> words")
    assert ["words"] == list(found.plan.targets)
