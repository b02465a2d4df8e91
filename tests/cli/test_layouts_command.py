"""`isomorph layouts`: what it lists, the morphs it prints, key sets without a file, and how it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import Isomorph

from isomorph.language.morph import Morph
from isomorph.layouts.catalogue import families, find, layouts


def test_alone_it_lists_every_family_with_its_layouts(isomorph: Isomorph):
    """The hub of each first; the last lines count, and say that any leads to any."""
    said = isomorph("layouts")
    lines = said.out.splitlines()
    assert (said.code, said.err, len(lines)) == (0, "", len(families()) + 2)
    (clip,) = [line for line in lines if line.split()[0] == "clip"]
    assert clip.split()[1:3] == ["CLIP", "hf,"]
    assert all(one.name in clip for one in layouts("clip"))
    assert lines[-2].startswith(f"{len(families())} families, ")
    assert lines[-1].endswith("splices make one model of several:  isomorph layouts splice")


def test_of_a_family_it_says_how_exact_each_layout_is(isomorph: Isomorph):
    said = isomorph("layouts", "clip")
    lines = said.out.splitlines()
    assert said.code == 0
    assert lines[0] == "CLIP · hub clip/hf · any layout leads to any other through it, as one plan"
    assert len(lines) == 1 + len(layouts("clip"))
    (text,) = [line for line in lines if " clip/diffusers_text " in line]
    assert "exact  without vision, visual_projection, logit_scale, classifier" in text
    assert "The text encoder of Stable Diffusion" in text


def test_of_a_layout_it_prints_the_morph_as_it_is_written(isomorph: Isomorph):
    """Ready to be copied and changed."""
    assert isomorph("layouts", "clip/openai").out == find("clip/openai").text


def test_from_a_layout_to_the_hub_it_prints_what_m_takes(isomorph: Isomorph, tmp_path: Path):
    """The text, saved and given as -m, makes what --to makes: `use` lines name the catalogue's files in full."""
    keys = json.loads(isomorph("layouts", "vit/timm", "--keys", "--json", "--set", "layers=2", "--set", "heads=2",
                               "--set", "head_dim=3", "--set", "ffn=5", "--set", "image=32", "--set", "classes=7").out)  # fmt: skip
    source = tmp_path / "timm.npz"
    np.savez(source, **{name: np.random.default_rng(5).random(shape, "f4") for name, shape in keys.items()})
    mine = tmp_path / "mine.morph"
    mine.write_text(isomorph("layouts", "vit/timm", "vit/hf").out)
    assert isomorph("convert", source, tmp_path / "by_morph.npz", "-m", mine, "-q").code == 0
    assert isomorph("convert", source, tmp_path / "by_layout.npz", "--to", "vit/hf", "-q").code == 0
    assert isomorph("diff", "--values", tmp_path / "by_morph.npz", tmp_path / "by_layout.npz").code == 0


def test_backward_and_by_short_names_too(isomorph: Isomorph):
    """The second layout may go without its family; read the other way, the rules are turned."""
    there, back = isomorph("layouts", "vit/timm", "hf").out, isomorph("layouts", "vit/hf", "timm").out
    assert there == isomorph("layouts", "vit/timm", "vit/hf").out
    assert "head.{t=weight|bias} <->? classifier.{t}" in there
    assert "classifier.{t} <->? head.{t=weight|bias}" in back
    Morph.parse(back, file="back")


def test_between_two_layouts_it_prints_both_stages_and_how_they_are_given(isomorph: Isomorph):
    lines = isomorph("layouts", "vit/timm", "vit/paddle_nn").out.splitlines()
    assert lines[0] == (
        "# vit/timm to vit/paddle_nn in 2 stages, each a file of its own:  -m first.morph -m second.morph"
    )
    assert [line for line in lines if line.startswith("# stage")] == ["# stage 1 of 2", "# stage 2 of 2"]
    for stage in "\n".join(lines[1:]).split("# stage 2 of 2\n"):
        Morph.parse(stage, file="stage")


def test_a_layout_to_itself_is_every_name_as_it_is(isomorph: Isomorph):
    assert isomorph("layouts", "clip/openai", "openai").out == (
        "# clip/openai is clip/openai: every name stays\n** <-> **\n"
    )


def test_keys_are_the_best_known_models_unless_sizes_are_set(isomorph: Isomorph):
    """CLIP ViT-L/14 as OpenAI named it; then a model of one's own."""
    lines = isomorph("layouts", "clip/openai", "--keys").out.splitlines()
    assert lines[0].startswith("clip/openai · 446 tensors · vision_layers=24, vision_width=1024, vision_heads=16, ")
    assert lines[0].endswith("(the best-known model's; --set others)")
    assert "visual.transformer.resblocks.23.attn.in_proj_weight" in "\n".join(lines)
    small = isomorph("layouts", "clip/openai", "--keys", "--set", "vision_layers=2", "--set", "vision_heads=3").out
    assert small.startswith("clip/openai · 182 tensors · vision_layers=2, vision_width=192, vision_heads=3, ")
    shapes = {line.split()[0]: line.partition("[")[2].partition("]")[0] for line in small.splitlines()}
    assert shapes["visual.transformer.resblocks.1.attn.in_proj_weight"] == "576 192"
    assert "visual.transformer.resblocks.2.attn.in_proj_weight" not in shapes


def test_keys_of_a_family_are_its_hubs(isomorph: Isomorph):
    assert isomorph("layouts", "vit", "--keys").out == isomorph("layouts", "vit/hf", "--keys").out


def test_parts_are_put_in_and_left_out(isomorph: Isomorph):
    """A head, a pooler: with the names that the layout has for them."""

    def keys(*more: str) -> set[str]:
        return set(json.loads(isomorph("layouts", "vit/hf", "--keys", "--json", "--set", "layers=1", *more).out))

    assert keys("--without", "classifier") == keys() - {"classifier.weight", "classifier.bias"}
    assert keys("--with", "pooler") == keys() | {"vit.pooler.dense.weight", "vit.pooler.dense.bias"}


def test_json_in_every_form(isomorph: Isomorph):
    """Families; facts of a family's layouts; a morph; a key set with shapes."""
    assert json.loads(isomorph("layouts", "--json").out)["clip"][0] == "clip/hf"
    facts = json.loads(isomorph("layouts", "clip", "--json").out)["clip/openai"]
    assert facts["config"]["vision_config.hidden_act"] == "quick_gelu"
    assert facts["title"].startswith("CLIP as OpenAI released it")
    morph = json.loads(isomorph("layouts", "clip/openai", "hf", "--json").out)
    assert morph["layouts"] == ["clip/openai", "clip/hf"]
    assert morph["morph"].startswith("# CLIP as OpenAI released it")
    assert json.loads(isomorph("layouts", "vit/timm", "--keys", "--json").out)["cls_token"] == [1, 1, 768]


def test_quiet_prints_nothing(isomorph: Isomorph):
    for names in ([], ["clip"], ["clip/openai"], ["clip/openai", "--keys"]):
        said = isomorph("layouts", *names, "-q")
        assert (said.code, said.out, said.err) == (0, "", "")


def test_markdown_is_the_whole_page(isomorph: Isomorph):
    said = isomorph("layouts", "--markdown")
    assert said.out.startswith("# The catalogue of layouts\n")
    assert all(f"(`{name}`)" in said.out for name in families())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["vitt"], "there is no layout `vitt` in the catalogue. Did you mean vit?"),
        (["vit/tim"], "vit has no layout `tim`. Did you mean timm?"),
        (["clop/openai"], "there is no family `clop` in the catalogue. Did you mean clip/openai"),
        (["vit/hf", "bert/hf"], "vit/hf and bert/hf are of two families: nothing leads from one to the other"),
        (["vit/hf", "nothing"], "vit has no layout `nothing`. There are hf, "),
        (["a", "b", "c"], "one layout for --keys, and two at most"),
        (["--keys"], "one layout for --keys, and two at most"),
        (["vit", "--set", "layers=3"], "--set, --with and --without go with --keys"),
        (["vit", "--with", "pooler"], "--set, --with and --without go with --keys"),
        (["vit", "--keys", "--set", "layerz=3"], "vit has no axis layerz. Did you mean layers?"),
        (["vit", "--keys", "--set", "layers=many"], "--set layers=many: `many` is no size; a size is a whole number"),
        (["vit", "--keys", "--set", "layers"], "--set layers"),
        (["vit", "--keys", "--without", "clasifier"], "vit has no part clasifier. Did you mean classifier?"),
        (["vit", "--keys", "--with", "zzz"], "vit has no part zzz; there are "),
        (["vit", "--keys", "--set", "width=100", "--set", "heads=3"], "no head_dim goes with width=100, heads=3"),
        (
            ["vit", "--keys", "--set", "width=100", "--set", "heads=3", "--set", "head_dim=4"],
            "the sizes contradict each other: width is 100 and 12",
        ),
        (["vit", "--keys", "--set", "layers=100000000"], "that is 1,600,000,008 tensors; a key set of more than 1,000,000"),
        (["clip", "--markdown"], "--markdown is the whole catalogue, and goes alone"),
    ],
)  # fmt: skip
def test_what_it_refuses_is_one_readable_message(isomorph: Isomorph, arguments: list[str], says: str):
    """Exit 2, nothing on stdout, and what would do."""
    said = isomorph("layouts", *arguments)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(says)


def test_errors_as_json_too(isomorph: Isomorph):
    said = isomorph("layouts", "vit/tim", "--json")
    assert said.code == 2
    assert json.loads(said.out)["error"]["message"] == "vit has no layout `tim`. Did you mean timm?"


def test_splices_are_listed_with_how_they_are_called(isomorph: Isomorph):
    """Morphs over several inputs: one line to type, one that says what it makes; and each one's text."""
    lines = isomorph("layouts", "splice").out.splitlines()
    assert "isomorph convert vit=VIT clip=CLIP DST -m splice/vit_into_clip" in lines
    assert "isomorph convert vision=VIT text=BERT fresh=MODEL DST -m splice/vision_text_dual" in lines
    assert "#   inputs: vit=VIT clip=CLIP" in isomorph("layouts", "splice/vit_into_clip").out
    said = json.loads(isomorph("layouts", "splice", "--json").out)
    assert said["splice/t5_halves"]["inputs"] == "encoder=T5 decoder=T5"


def test_sizes_are_set_one_by_one_or_in_a_row(isomorph: Isomorph):
    apart = isomorph("layouts", "bert/hf", "--keys", "--set", "layers=2", "--set", "ffn=100")
    assert isomorph("layouts", "bert/hf", "--keys", "--set", "layers=2,ffn=100").out == apart.out
    assert "bert.encoder.layer.1.intermediate.dense.weight" in apart.out
    assert isomorph("layouts", "bert/hf", "--keys", "--set", "layers=2,").code == 2


def test_a_size_without_its_tower_is_that_of_every_tower(isomorph: Isomorph):
    """`layers` of CLIP are those of both towers; one that is named wins."""
    both = isomorph("layouts", "clip/hf", "--keys", "--set", "layers=3").out
    assert both == isomorph("layouts", "clip/hf", "--keys", "--set", "vision_layers=3,text_layers=3").out
    named = isomorph("layouts", "clip/hf", "--keys", "--set", "layers=3,text_layers=1").out
    assert named == isomorph("layouts", "clip/hf", "--keys", "--set", "vision_layers=3,text_layers=1").out
    assert "decoder.block.1." in isomorph("layouts", "t5/hf", "--keys", "--set", "layers=2").out
