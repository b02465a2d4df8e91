"""The 26 real conversions without a morph of one's own: `convert SRC DST --to LAYOUT`, and back to the layout it came from.

What is made is compared with the file that the other package made, as the library loads it whose format it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from isomorph.cli.app import run
from isomorph.formats.registry import open_checkpoint
from isomorph.job.config import config_beside
from peers import NAMES, Arrays, Pair, differing, load, load_with_paddle, unpacked


@dataclass(frozen=True)
class Asked:
    """What is typed: the layout to convert into, and the one to go back to. `told` is what the source does not hold, `told_back`
    what our target does not (a folder for transformers has a config.json, whose facts must come from somebody)."""

    to: str
    back: str
    told: tuple[str, ...] = ()
    told_back: tuple[str, ...] = ()


ASKED = {
    "fb_dinov2_to_hf": Asked("dinov2/hf", "dinov2/facebook"),
    "flax_vit_to_hf": Asked("vit/hf", "vit/flax"),
    "google_vit_npz_to_timm": Asked("vit/timm", "vit/google_npz", told_back=("--set", "heads=4")),
    "hf_bert_to_flax": Asked("bert/flax", "bert/hf_v4"),
    "hf_bert_to_google_tf": Asked("bert/google_tf", "bert/hf_v4"),
    "hf_bert_to_paddle": Asked("bert/paddle", "bert/hf_v4"),
    "hf_bert_to_tf": Asked("bert/tf_keras", "bert/hf_v4"),
    "hf_clip_to_flax": Asked("clip/flax", "clip/hf"),
    "hf_clip_to_notebook": Asked("clip/fused_vision", "clip/hf"),
    "hf_clip_to_openai": Asked("clip/openai", "clip/hf"),
    "hf_clip_to_paddle": Asked("clip/paddle", "clip/hf"),
    "hf_gpt2_to_paddle": Asked("gpt2/paddle", "gpt2/hf_v4"),
    "hf_llama_to_litgpt": Asked("llama/litgpt", "llama/hf"),
    "hf_t5_to_flax": Asked(
        "t5/flax",
        "t5/hf_v4",
        told_back=(
            *("--set", "config.feed_forward_proj=gated-gelu", "--set", "config.layer_norm_epsilon=1e-06"),
            *("--set", "config.relative_attention_max_distance=128"),
        ),
    ),
    "hf_t5_to_paddle": Asked("t5/paddle", "t5/hf_v4"),
    "hf_t5_to_t5x": Asked("t5/t5x", "t5/hf_v4"),
    "hf_vit_to_clip_vision_names": Asked("vit/clip_vision", "vit/hf"),
    "megatron_gpt2_v3_to_hf": Asked(
        "gpt2/hf_v4", "gpt2/megatron_v3", ("--from", "megatron_v3", "--set", "vocab=100", "--set", "heads=4")
    ),
    "meta_llama_to_hf": Asked("llama/hf", "llama/meta", told_back=("--set", "heads=4")),
    "openai_clip_visual_to_timm": Asked("clip/timm", "clip/openai"),
    "openai_whisper_to_hf": Asked("whisper/hf_v4", "whisper/openai"),
    "openclip_to_hf": Asked(
        "clip/hf",
        "clip/open_clip",
        (
            *(
                "--set",
                "config.vision_config.num_attention_heads=4",
                "--set",
                "config.text_config.num_attention_heads=3",
            ),
            *("--set", "config.vision_config.hidden_act=gelu", "--set", "config.text_config.hidden_act=gelu"),
        ),
    ),
    "t5x_to_hf_t5": Asked("t5/hf_v4", "t5/t5x"),
    "timm_vit_to_hf": Asked("vit/hf", "vit/timm"),
    "torch_encoder_to_paddle_encoder": Asked("encoder/paddle", "encoder/torch"),
    "v4_mixtral_to_v5": Asked("mixtral/hf_module", "mixtral/hf"),
}

UNSET_BY_THE_PEER = {
    "hf_bert_to_paddle": {
        "bert.embeddings.token_type_embeddings.weight",
        "cls.predictions.decoder_bias",
        "cls.predictions.layer_norm.bias",
        "cls.predictions.layer_norm.weight",
        "cls.predictions.transform.bias",
        "cls.predictions.transform.weight",
        "cls.seq_relationship.weight",
    },
    "hf_clip_to_paddle": {"logit_scale"},
}
"""What PaddleNLP's converter leaves as its model was initialised (truth.json: not in the file it wrote), and ours converts."""

LOSSY = {"hf_clip_to_notebook", "hf_vit_to_clip_vision_names", "megatron_gpt2_v3_to_hf", "openai_clip_visual_to_timm"}
"""Conversions into a part of the model: what they leave out cannot come back."""

NOT_KEPT = {"openai_whisper_to_hf": "dims"}
"""What a source holds beside its weights, and no weights file in its layout must."""


class ByLayout:
    """Every pair converted once, when first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pair: Callable[[str], Pair] = cache(lambda name: unpacked(name, self._folder(name)))
        self.made: Callable[[str], Path] = cache(self._made)
        self.from_paddle: Callable[[], dict[Path, Arrays]] = cache(self._from_paddle)

    def load(self, path: Path) -> Arrays:
        return self.from_paddle()[path] if path.suffix == ".pdparams" else load(path)

    def _folder(self, name: str) -> Path:
        made = self.folder / name
        made.mkdir(exist_ok=True)
        return made

    def _made(self, name: str) -> Path:
        pair, asked = self.pair(name), ASKED[name]
        made = self._folder(name) / f"made_{pair.target.name}"
        code = run(["convert", str(pair.source), str(made), "--to", asked.to, *asked.told, "--quiet"])
        assert code == 0
        return made

    def _from_paddle(self) -> dict[Path, Arrays]:
        names = [name for name in NAMES if self.pair(name).target.suffix == ".pdparams"]
        paths = [self.pair(name).target for name in names] + [self.made(name) for name in names]
        return dict(zip(paths, load_with_paddle(paths, self._folder("paddle")), strict=True))


@pytest.fixture(scope="module")
def by_layout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ByLayout]:
    yield ByLayout(tmp_path_factory.mktemp("by_layout"))


def test_every_pair_has_a_layout_to_go_to():
    """None of the 26 needs a morph of its own."""
    assert sorted(ASKED) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_what_to_makes_is_the_peers_target(by_layout: ByLayout, name: str):
    """Same names, dtypes, shapes and every bit; more only where the peer's converter leaves parameters unset."""
    expected, found = by_layout.load(by_layout.pair(name).target), by_layout.load(by_layout.made(name))
    assert set(found) - set(expected) == UNSET_BY_THE_PEER.get(name, set())
    assert differing(expected, {key: array for key, array in found.items() if key in expected}) == []


@pytest.mark.parametrize("name", [name for name in NAMES if name not in UNSET_BY_THE_PEER])
def test_verify_to_finds_the_peers_own_file_equal(by_layout: ByLayout, name: str, capsys: pytest.CaptureFixture[str]):
    """`verify SRC DST --to` compares every element of the file that the other package made, by the second path."""
    pair, asked = by_layout.pair(name), ASKED[name]
    assert run(["verify", str(pair.source), str(pair.target), "--to", asked.to, *asked.told, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["equal"]
    with open_checkpoint(pair.target) as target:
        assert report["compared"]["elements"] == target.manifest.numel


@pytest.mark.parametrize("name", [name for name in NAMES if name not in LOSSY])
def test_back_to_the_layout_it_came_from(by_layout: ByLayout, name: str):
    """`--to` the source's layout, in the source's format, is the source: no tensor less, none more, every bit."""
    pair, asked = by_layout.pair(name), ASKED[name]
    back = by_layout.folder / name / f"back_{pair.source.name}"
    beside = config_beside(pair.source)
    config = () if beside is None or beside.name != "config.json" else ("--config", str(beside))
    told = [*asked.told_back, *config]
    assert run(["convert", str(by_layout.made(name)), str(back), "--to", asked.back, *told, "--quiet"]) == 0
    inside = "model_state_dict/" if name == "openai_whisper_to_hf" else ""
    expected = {key.removeprefix(inside): array for key, array in load(pair.source).items() if key.startswith(inside)}
    assert differing(expected, load(back)) == []
