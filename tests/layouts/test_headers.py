"""The comments at the top of layouts: what they state is true, and the load line that convert prints runs."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

import isomorph as iso
from isomorph.errors import MorphError
from isomorph.formats.registry import FORMATS, lay_out
from isomorph.job.load_line import places
from isomorph.language.morph import CATALOGUE_FOLDER, Beside, InCatalogue, Morph, read_module
from isomorph.layouts.catalogue import Layout, every, families, family, find
from isomorph.layouts.header import KEYS, PLACES, read_header
from isomorph.tensors import TensorSpec

LAYOUTS = list(every())
HOLE = re.compile(r"\{([A-Za-z_]\w*)\}")
OUTSIDE = {"config", "model", "backbone", "num_classes", "dims", "NAME"}
"""What only the reader of a load line has: the model's config, the module to fill, its name in a registry."""


def filled(text: str) -> str:
    """A load line with something in each place: expressions are names, sizes numbers, paths the inside of a string."""
    return HOLE.sub(lambda hole: hole[1] if hole[1] in PLACES else "7", text)


def named(test: object) -> set[str]:
    """The axes in the repr of a test's tree."""
    return set(re.findall(r"Variable\(name='(\w+)'", repr(test)))


# ── every header of the catalogue ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_a_layout_has_a_title_a_source_and_a_format_of_the_registry(layout: Layout):
    header = layout.header
    assert 8 <= len(header.title) <= 140 and header.title[0] != "#", header.title
    assert ": " not in header.title or header.title.split(": ")[0] not in KEYS
    assert header.sources
    assert header.format is None or header.format in FORMATS


@pytest.mark.parametrize("layout", [one for one in LAYOUTS if one.header.loads], ids=str)
def test_a_load_line_is_one_line_of_python_over_axes_of_the_family(layout: Layout):
    for text, test in layout.header.loads:
        tree = ast.parse(filled(text), mode="eval")
        assert isinstance(tree.body, ast.Call), text
        assert not any(isinstance(node, ast.Constant) and node.value is ... for node in ast.walk(tree)), text
        asked = set(HOLE.findall(text)) - set(PLACES)
        assert asked <= set(family(layout.family.name).axes), text
        assert named(test) <= set(family(layout.family.name).axes), text
        assert set(HOLE.findall(text)) & set(PLACES), f"{text} does not read the result"


@pytest.mark.parametrize("layout", [one for one in LAYOUTS if one.header.loads], ids=str)
def test_a_model_of_no_known_size_has_a_load_line_that_names_no_size(layout: Layout):
    """Of a result in its own format, in a folder or a file; its names are none of a certain model."""
    header = layout.header
    there = dict.fromkeys(PLACES, "x")
    line = header.load_for({}, there)
    assert line is not None
    assert not re.search(r'"[^"]*(?:base|large|tiny|ViT-[BLH]|vit_[bl]|\d+[bB])[^"]*"', line), line


def test_parts_and_layouts_hold_no_misspelt_key():
    for path in sorted(CATALOGUE_FOLDER.glob("*/*.morph")):
        read_header(path.read_text(encoding="utf-8"), path.name, strict=True)


# ── keys and prose ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_indented_word_that_is_no_key_is_refused_with_the_near_miss():
    with pytest.raises(ValueError, match=r"x/y\.morph:2: a header has no `laod`: did you mean `load`"):
        read_header("# A layout\n#   laod: f()\n", "x/y.morph", strict=True)
    with pytest.raises(ValueError, match=r"keys are source, load, .*prose is not indented"):
        read_header("# A layout\n#   zzzzzz: f()\n", strict=True)


def test_prose_is_not_indented_and_may_begin_with_any_word():
    header = read_header("# load: it is a title\n# config: prose\n#   load: f()\n", strict=True)
    assert (header.title, header.load) == ("load: it is a title", "f()")


def test_comments_of_a_users_morph_are_prose():
    assert read_header("#   note: mine\n#   load: f()\n").load == "f()"


# ── sizes and places in a line ───────────────────────────────────────────────────────────────────────────────────────


def test_the_first_line_that_holds_wins_and_one_that_lacks_a_size_or_a_place_does_not_hold():
    header = read_header(
        '#   load: of("{file}", {width})\n#   load: named("{file}") when width == 8\n'
        '#   load: whole("{folder}")\n#   load: acts("{file}") when config.act == "quick"\n'
    )
    assert header.load_for({"width": 8}, {"file": "x"}) == 'named("x")'
    assert header.load_for({"width": 9}, {"file": "x"}) == 'of("x", 9)'
    assert header.load_for({}, {"file": "x"}) is None
    assert header.load_for({}, {"folder": "d"}) == 'whole("d")'
    assert header.load_for({}, {"file": "x"}, {"act": "quick"}) == 'acts("x")'
    assert header.load_for({"width": 8}) == 'named("{file}")'


def written(target: str, format: str | None = None, shard: int | None = None) -> Any:
    specs = {name: TensorSpec(_f32(), (64,)) for name in ("a", "b", "c")}
    return lay_out(specs, target, format=format, metadata={}, max_shard_size=shard)


def _f32() -> Any:
    from isomorph.tensors import dtype

    return dtype("f32")


def test_the_places_of_a_file_and_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A folder is one to load from where it holds a config; a splice writes none."""
    monkeypatch.chdir(tmp_path)
    file = places(Path("o.pth"), written("o.pth"), "torch_zip")
    assert file == {"path": "o.pth", "file": "o.pth", "torch": 'torch.load("o.pth")'}
    file = places(Path("o.safetensors"), written("o.safetensors"), "torch_zip")
    assert file["torch"] == 'safetensors.torch.load_file("o.safetensors")' and file["file"] == "o.safetensors"
    assert file["paddle"] == 'safetensors.paddle.load_file("o.safetensors")' and "folder" not in file
    assert "folder" not in places(Path("out"), written("out/", "safetensors"), None)
    Path("out").mkdir()
    Path("out/config.json").write_text("{}")
    folder = places(Path("out"), written("out/", "safetensors"), None)
    assert (folder["path"], folder["folder"], folder["file"]) == ("out", "out", str(Path("out/model.safetensors")))
    assert folder["torch"] == f'safetensors.torch.load_file("{Path("out/model.safetensors")}")'
    shards = places(Path("out"), written("out/", "safetensors", 300), None)
    assert shards == {"path": "out", "folder": "out"}


def test_a_file_in_a_format_that_the_layouts_library_does_not_open_is_no_file_for_it():
    assert places(Path("o.pdparams"), written("o.pdparams"), "torch_zip") == {
        "path": "o.pdparams", "paddle": 'paddle.load("o.pdparams")',
    }  # fmt: skip
    assert "file" not in places(Path("o.safetensors"), written("o.safetensors"), "flax")
    assert "folder" not in places(Path("out"), written("out/", "safetensors"), "flax")
    assert places(Path("o.msgpack"), written("o.msgpack"), "flax")["file"] == "o.msgpack"


def test_keras_takes_a_file_by_its_name():
    assert "keras" not in places(Path("o.h5"), written("o.h5"), "hdf5")
    assert places(Path("o.weights.h5"), written("o.weights.h5"), "hdf5")["keras"] == "o.weights.h5"


def test_a_path_is_written_into_the_line_as_python_reads_it():
    line = places(Path('we "ird\\.pth'), written("o.pth"), None)["torch"]
    call = ast.parse(line, mode="eval").body
    assert isinstance(call, ast.Call) and ast.literal_eval(call.args[0]) == 'we "ird\\.pth'


# ── the names of well-known models ───────────────────────────────────────────────────────────────────────────────────

KNOWN: list[tuple[str, dict[str, Any], str]] = [
    ("vit/timm", {"width": 768, "layers": 12, "patch": 16, "image": 224, "classes": 1000}, '"vit_base_patch16_224"'),
    ("vit/timm", {"width": 768, "layers": 12, "patch": 16, "image": 384, "classes": 1000}, '"vit_base_patch16_384"'),
    ("vit/timm", {"width": 1024, "layers": 24, "ffn": 4096, "patch": 8, "image": 64, "classes": 5},
     '"vit_large_patch16_224", patch_size=8, img_size=64, num_classes=5'),
    ("vit/timm", {"width": 192, "layers": 12, "ffn": 768, "patch": 8, "image": 64}, 'img_size=64, num_classes=0'),
    ("vit/timm", {"width": 100, "layers": 12, "ffn": 400, "patch": 16, "image": 224}, "create_model(NAME"),
    ("vit/torchvision", {"width": 1024, "layers": 24, "patch": 32, "image": 224, "classes": 10}, "vit_l_32(image_size=224"),
    ("deit/timm", {"width": 192, "layers": 12, "patch": 16, "image": 224, "classes": 1000}, "deit_tiny_distilled_patch16_224"),
    ("beit/timm", {"width": 1024, "layers": 24, "image": 512, "classes": 1000}, "beit_large_patch16_512"),
    ("dinov2/facebook", {"width": 384, "layers": 12, "patch": 14, "image": 518}, '"dinov2_vits14"'),
    ("dinov2/facebook", {"width": 1536, "layers": 40, "patch": 14, "image": 28}, '"dinov2_vitg14", pretrained=False, img_size=28'),
    ("dinov2_with_registers/timm", {"width": 1024, "layers": 24, "patch": 14, "image": 224, "registers": 4},
     '"vit_large_patch14_reg4_dinov2", img_size=224'),
    ("dinov2_with_registers/timm", {"width": 1024, "layers": 24, "patch": 14, "image": 224, "registers": 2}, "NAME"),
    ("clip/openai", {"vision_width": 1024, "text_width": 768, "patch": 14, "image": 336}, '"ViT-L-14-336-quickgelu"'),
    ("clip/open_clip", {"vision_width": 1280, "text_width": 1024, "patch": 14, "image": 224}, '"ViT-H-14"'),
    ("clip/open_clip", {"vision_width": 1152, "text_width": 1152, "patch": 14, "image": 224}, "(NAME"),
    ("siglip/open_clip", {"vision_width": 1152, "patch": 14, "image": 384, "vocab": 32000}, '"ViT-SO400M-14-SigLIP-384"'),
    ("siglip/timm", {"vision_width": 768, "vision_layers": 12, "patch": 32, "image": 256}, "vit_base_patch32_siglip_256"),
    ("swin/timm", {"width0": 192, "depth2": 18, "window": 12, "patch": 4, "classes": 3}, '"swin_large_patch4_window12_384", num_classes=3'),
    ("swin/torchvision", {"width0": 96, "depth2": 18, "window": 7, "patch": 4, "classes": 1000}, "swin_s(num_classes=1000)"),
    ("convnext/timm_conv", {"width0": 80, "depth2": 8, "classes": 1000}, '"convnext_nano"'),
    ("convnext/facebook", {"width0": 256, "depth2": 27, "classes": 21841}, "convnext_xlarge(num_classes=21841)"),
    ("sam/facebook", {"vision_width": 1280, "vision_layers": 32}, 'registry["vit_h"]'),
    ("sam/facebook", {"vision_width": 168, "vision_layers": 12}, "registry[NAME]"),
    ("falcon/litgpt", {"layers": 60, "width": 8192}, '"falcon-40b"'),
    ("gpt_neox/litgpt", {"layers": 16, "width": 2048, "vocab": 50304, "heads": 8}, '"pythia-1b"'),
    ("llama/litgpt", {"layers": 40, "width": 5120, "ffn": 13824, "vocab": 32000}, '"Llama-2-13b-hf"'),
    ("llama/litgpt", {"layers": 32, "width": 4096, "ffn": 14336, "vocab": 128256}, "(NAME)"),
    ("qwen3/litgpt_tied", {"layers": 36, "width": 2560, "ffn": 9728}, '"Qwen3-4B"'),
    ("mixtral/litgpt", {"layers": 32, "width": 4096, "experts": 8}, '"Mixtral-8x7B-v0.1"'),
    ("vit_mae/facebook", {"width": 768, "layers": 12, "ffn": 3072, "patch": 16, "image": 224, "dec_width": 512, "dec_layers": 8},
     "models_mae.mae_vit_base_patch16(img_size=224)"),
    ("vit_mae/facebook", {"width": 768, "layers": 12, "ffn": 3072, "patch": 16, "image": 224}, "timm.create_model"),
    ("t5/hf", {"enc_layers": 6, "dec_layers": 6}, "AutoModelForSeq2SeqLM"),
    ("t5/hf", {"enc_layers": 6}, "AutoModelForTextEncoding"),
    ("clip/hf", {"vision_layers": 2}, "CLIPVisionModel"),
    ("bert/hf", {"layers": 2, "answers": 2}, "AutoModelForQuestionAnswering"),
]  # fmt: skip
"""Sizes and what the line says, looked up in timm 1.0.31, open_clip 3.3, torchvision 0.28, litgpt 0.5.13, and the repositories'
hubconf.py, build_sam.py and models."""


@pytest.mark.parametrize(("layout", "sizes", "said"), KNOWN)
def test_a_well_known_model_is_loaded_by_its_name_and_any_other_by_its_sizes(
    layout: str, sizes: dict[str, int], said: str
):
    line = find(layout).header.load_for(sizes)
    assert line is not None and said in line, line


def test_the_activation_decides_between_models_of_the_same_sizes():
    sizes = {"vision_width": 768, "text_width": 512, "patch": 32, "image": 224}
    header = find("clip/open_clip").header
    quick = header.load_for(sizes, None, {"vision_config": {"hidden_act": "quick_gelu"}})
    plain = header.load_for(sizes, None, {"vision_config": {"hidden_act": "gelu"}})
    assert quick is not None and '"ViT-B-32-quickgelu"' in quick
    assert plain is not None and '"ViT-B-32"' in plain


@pytest.mark.parametrize("name", families())
def test_the_best_known_model_of_a_family_has_a_load_line_in_every_layout_that_states_one(name: str):
    sizes = family(name).complete(family(name).sizes)
    for layout in (one for one in LAYOUTS if one.family.name == name and one.header.loads):
        line = layout.header.load_for(sizes)
        assert line is not None and set(HOLE.findall(line)) <= set(PLACES), f"{layout}: {line}"


# ── the line that convert prints ─────────────────────────────────────────────────────────────────────────────────────


def test_the_line_that_convert_prints_loads_the_result(tmp_path: Path):
    import torch
    import transformers

    config = transformers.ViTConfig(
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=20,
        image_size=8,
        patch_size=4,
        num_labels=3,
    )
    config.architectures = ["ViTForImageClassification"]
    model = transformers.ViTForImageClassification(config)
    model.save_pretrained(tmp_path / "source")
    expected = model.state_dict()
    for target in (tmp_path / "out", tmp_path / "out.safetensors", tmp_path / "out.bin"):
        made = iso.convert(tmp_path / "source", target, to="vit/hf")
        loaded = eval(
            made.load, {"transformers": transformers, "torch": torch, "safetensors": _safetensors(), "config": config}
        )
        assert type(loaded) is transformers.ViTForImageClassification
        assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in expected.items())


def test_a_part_that_is_not_there_is_not_loaded_for_what_its_config_says(tmp_path: Path):
    """The config of an encoder by itself states a decoder too: MAE's, and the projection of CLIP's image tower."""
    import transformers

    config = transformers.ViTMAEConfig(
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=3072,
        image_size=32,
        patch_size=16,
    )
    transformers.ViTMAEModel(config).save_pretrained(tmp_path / "mae")
    line = iso.convert(tmp_path / "mae", tmp_path / "mae.pth", to="vit_mae/facebook").load
    assert line == (
        'timm.create_model("vit_base_patch16_224", patch_size=16, img_size=32, num_classes=0, checkpoint_path="'
        f'{tmp_path / "mae.pth"}")'
    )
    tower = transformers.CLIPVisionConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12, image_size=8, patch_size=4
    )
    for model in (transformers.CLIPVisionModel, transformers.CLIPVisionModelWithProjection):
        model(tower).save_pretrained(tmp_path / "tower")
        made = iso.convert(tmp_path / "tower", tmp_path / model.__name__, to="clip/hf")
        assert made.load == f'transformers.{model.__name__}.from_pretrained("{tmp_path / model.__name__}")'


def _safetensors() -> Any:
    import safetensors
    import safetensors.torch

    return safetensors


def test_the_line_of_a_layout_for_a_live_module_fills_it(tmp_path: Path):
    import torch

    stack = torch.nn.TransformerEncoder(torch.nn.TransformerEncoderLayer(8, 2, 12), 2, enable_nested_tensor=False)
    torch.save(stack.state_dict(), tmp_path / "stack.pth")
    for name in ("o.pth", "o.safetensors", "folder"):
        made = iso.convert(tmp_path / "stack.pth", tmp_path / name, to="encoder/torch")
        fresh = torch.nn.TransformerEncoder(torch.nn.TransformerEncoderLayer(8, 2, 12), 2, enable_nested_tensor=False)
        eval(made.load, {"model": fresh, "torch": torch, "safetensors": _safetensors(), "isomorph": iso})
        assert all(torch.equal(value, fresh.state_dict()[key]) for key, value in stack.state_dict().items())


def test_a_users_morph_states_its_own_line_and_comments_that_only_look_like_a_header_are_no_error(tmp_path: Path):
    safetensors.numpy.save_file({"a": np.zeros(2, np.float32)}, tmp_path / "in.safetensors")
    target = tmp_path / "out.safetensors"
    stated = iso.morph(text="#   load: mine('{path}')\na <-> b\n")
    assert iso.convert(tmp_path / "in.safetensors", target, stated).load == f"mine('{target}')"
    odd = iso.morph(text="#   like: nothing\na <-> b\n")
    assert iso.convert(tmp_path / "in.safetensors", tmp_path / "2.safetensors", odd).load is None


# ── what messages call a file of the catalogue ───────────────────────────────────────────────────────────────────────


def arrays() -> dict[str, Any]:
    name = "visual.transformer.resblocks.0.attn.in_proj_weight"
    return {"visual.class_embedding": np.zeros(6), name: np.zeros((7, 6))}


@pytest.mark.parametrize("made", ["layout", "name", "use", "file"])
def test_an_error_in_a_used_part_calls_it_by_its_name_in_the_catalogue(made: str, tmp_path: Path):
    (tmp_path / "mine.morph").write_text("use clip/openai\n")
    morph = {
        "layout": lambda: find("clip/openai").morph,
        "name": lambda: iso.morph("clip/openai").language,
        "use": lambda: Morph.parse("use clip/openai\n", load=InCatalogue()),
        "file": lambda: Morph.read(tmp_path / "mine.morph"),
    }[made]()
    with pytest.raises(MorphError) as refused:
        iso.morph(morph).plan(arrays())
    assert "clip/_resblocks.morph:3: o is a fraction" in str(refused.value)
    assert str(CATALOGUE_FOLDER) not in str(refused.value)


def test_parts_are_found_beside_a_file_of_the_catalogue_whatever_the_working_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.chdir(tmp_path)
    loader = InCatalogue()
    module = loader("clip/_openai_vision")
    assert module.file == "clip/_openai_vision.morph"
    assert loader.beside(module)("_resblocks").file == "clip/_resblocks.morph"
    assert Beside(tmp_path)("clip/openai").file == "clip/openai.morph"


def test_a_users_file_of_the_same_name_may_use_that_of_the_catalogue(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    Path("clip").mkdir()
    Path("clip/openai.morph").write_text("use clip/openai\n")
    Morph.read("clip/openai.morph").check()
    assert read_module(Path("clip/openai.morph")).file == str(Path("clip/openai.morph"))
    assert Beside(Path("clip"))("clip/openai").file == str(CATALOGUE_FOLDER / "clip" / "openai.morph")
