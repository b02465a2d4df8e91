"""The catalogue holds together: every layout is read, says what it is, and the index and the page say what the morphs say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from isomorph.describe.catalogue import key_set, markdown, text_between
from isomorph.errors import UsageError
from isomorph.language.morph import Morph
from isomorph.layouts.catalogue import every, families, family, find, hub, layouts
from isomorph.layouts.family import SizeClash
from isomorph.layouts.header import read_header
from isomorph.layouts.hub import folded, schema
from isomorph.layouts.index import FILE, index_text, marks_of

ROOT = Path(__file__).parent.parent.parent
LAYOUTS = [str(one) for one in every()]

ASKED = {
    "clip": "hf openai open_clip open_clip_custom_text timm diffusers_text flax paddle fused_vision",
    "siglip": "hf big_vision",
    "vit": "hf hf_module timm google_npz flax tf paddle paddle_nn keras_hub torchvision clip_vision",
    "bert": "hf google_tf tf_keras flax paddle keras_hub megatron fused_qkv",
    "t5": "hf t5x t5x_scanned flax tf_keras paddle mesh_tf",
    "llama": "hf meta litgpt gguf flax",
    "gpt2": "hf linear megatron_v1 megatron_v2 megatron_v3 paddle flax",
    "mixtral": "hf hf_module litgpt",
    "falcon": "hf split",
    "whisper": "hf openai flax",
}
"""What users look for first."""

NEIGHBOURS = ["deit", "beit", "dinov2", "vit_mae", "roberta", "distilbert", "albert", "bart", "qwen2", "mistral", "qwen2_moe",
              "phi3", "gpt_neox", "bloom", "sam", "swin", "convnext", "umt5"]  # fmt: skip


@pytest.mark.parametrize("name", ASKED)
def test_the_layouts_that_users_look_for_are_there(name: str):
    assert set(ASKED[name].split()) <= {one.name for one in layouts(name)}


@pytest.mark.parametrize("name", [name for name in families() if family(name).hub == "hf" and name != "megatron_bert"])
def test_the_names_that_modules_have_in_memory_are_a_layout_too(name: str):
    """`hf_module`: a layout of its own, or another name of the one that is the same."""
    assert find(f"{name}/hf_module").family.name == name


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_a_neighbour_has_its_hub_and_another_layout(name: str):
    assert len(layouts(name)) >= 2
    assert hub(name).is_hub


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_a_morph_that_pairs(name: str):
    """Every branch and every used file is read and paired, without a config and without a tensor."""
    find(name).morph.check()


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_says_what_it_is_and_where_it_is_from(name: str):
    header = find(name).header
    assert len(header.title) > 10
    assert header.sources, "its comments name no source"
    for other, why in header.like:
        assert find(other).family.name in families()
        assert why


@pytest.mark.parametrize("name", families())
def test_a_family_speaks_of_tensors_that_its_hub_has(name: str):
    """No group without a tensor, no axis without one; the best-known sizes give a whole key set."""
    of, hub_schema = family(name), schema(name)
    assert set(of.groups) == {group for one in hub_schema.tensors for group in one.groups}
    sizes = of.complete(of.sizes)
    keys = hub_schema.expand(sizes)
    found = hub_schema.read(keys)
    assert (found.unknown, found.missing, found.clashes) == ((), (), ())
    told = {axis: size for axis, size in found.sizes.items() if axis in sizes}
    assert told == {axis: sizes[axis] for axis in told}
    assert set(of.sizes) <= set(of.axes)


@pytest.mark.parametrize("name", families())
def test_the_index_says_what_the_morphs_say(name: str):
    """Generated: `python -m isomorph.layouts.index` makes it anew."""
    found = json.loads(FILE.read_text(encoding="utf-8"))
    expected = {str(one): marks_of(one) for one in layouts(name)}
    assert expected == {key: value for key, value in found.items() if key.startswith(name + "/")}


def test_the_index_is_written_as_it_would_be():
    text = FILE.read_text(encoding="utf-8")
    assert text == index_text(json.loads(text))
    assert sorted(json.loads(text)) == sorted(LAYOUTS)


def test_the_page_says_what_the_catalogue_says():
    """Generated: `isomorph layouts --markdown > docs/catalogue.md` makes it anew."""
    page = (ROOT / "docs" / "catalogue.md").read_text(encoding="utf-8")
    assert page == "\n".join(markdown()) + "\n"


def test_numbers_are_taken_out_of_names_where_they_count():
    assert folded("encoder.layers.11.mlp.fc1.weight") == "encoder.layers.#.mlp.fc1.weight"
    assert folded("decoder/layers_3/wi_0/kernel") == "decoder/layers_#/wi_#/kernel"
    assert folded("consolidated.01::norm.weight") == "consolidated.#::norm.weight"


def test_a_name_that_is_not_there_offers_what_is_near():
    with pytest.raises(UsageError, match=r"clip has no layout `openia`\. Did you mean openai\?"):
        find("clip/openia")
    with pytest.raises(UsageError, match=r"there is no family `clpi` in the catalogue\. Did you mean clip/openai"):
        find("clpi/openai")
    with pytest.raises(
        UsageError, match=r"there is no layout `google_npx` in the catalogue\. Did you mean google_npz\?"
    ):
        find("google_npx")
    with pytest.raises(UsageError, match=r"`hf` is a layout of \d+ families: write one of albert/hf"):
        find("hf")


def test_sizes_follow_from_sizes_both_ways():
    vit = family("vit")
    assert vit.complete({"image": 224, "patch": 16})["positions"] == 197
    assert vit.complete({"positions": 197, "patch": 16})["image"] == 224
    assert vit.complete({"width": 768, "heads": 12})["head_dim"] == 64
    with pytest.raises(SizeClash, match="width is 768 and 700"):
        vit.complete({"width": 768, "heads": 10, "head_dim": 70})


def test_a_header_is_read_from_the_comments_at_the_top():
    header = read_header(
        "# A layout.\n#   source: a file\n#   load: load('{path}')\n#   config: a.b = \"x\"\n#   like: clip/hf: the order\n"
        "#   base: m.\n# prose: not a key\na <-> b\n#   load: too late\n"
    )
    assert (header.title, header.sources, header.load) == ("A layout", ("a file",), "load('{path}')")
    assert (dict(header.facts), header.like, header.base) == ({"a.b": "x"}, (("clip/hf", "the order"),), "m.")
    sized = read_header(
        '#   load: big() when layers == 24\n#   load: any()\n#   config: act = 1 when config.act == "x"\n'
    )
    assert (sized.load_for({"layers": 24}), sized.load_for({"layers": 2}), sized.load_for({})) == (
        "big()",
        "any()",
        "any()",
    )
    assert (sized.stated({"act": "x"}), sized.stated({"act": "y"}), sized.stated(None)) == ({"act": 1}, {}, {})
    with pytest.raises(ValueError, match=r"x\.morph:1: `act = quick` is no fact"):
        read_header("#   config: act = quick\n", "x.morph")


def test_the_practitioners_key_set_without_a_file():
    """CLIP ViT-L/14's 590 names, as `isomorph layouts clip/hf --keys` lists them; and another depth with --set."""
    keys = key_set(find("clip/hf"), {})
    assert len(keys) == 590
    assert keys["vision_model.encoder.layers.23.mlp.fc1.weight"].shape == (4096, 1024)
    assert len(key_set(find("clip/hf"), {"vision_layers": 12})) == 590 - 12 * 16
    assert len(key_set(find("clip/hf"), {}, without=["text", "text_projection"])) == 590 - 197
    with pytest.raises(UsageError, match="clip has no axis depth; there are vision_layers"):
        key_set(find("clip/hf"), {"depth": 3})
    with pytest.raises(UsageError, match="clip has no part tower; there are vision"):
        key_set(find("clip/hf"), {}, without=["tower"])


@pytest.mark.parametrize("name", ["clip", "vit", "bert", "t5"])
def test_every_layouts_key_set_can_be_asked_for(name: str):
    for one in layouts(name):
        assert len(key_set(one, {})) > 5


def test_a_layouts_text_can_be_used_from_a_file_of_ones_own(tmp_path: Path):
    """`use` lines name the catalogue's files in full, so that the text works wherever it is saved; `use clip/openai` does too."""
    saved = tmp_path / "mine.morph"
    saved.write_text(text_between(find("clip/openai"), find("clip/hf")), encoding="utf-8")
    Morph.read(saved).check()
    saved.write_text("use clip/openai\n", encoding="utf-8")
    assert len(Morph.read(saved).programs()[0].rules) == len(find("clip/openai").morph.programs()[0].rules)
