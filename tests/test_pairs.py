"""Real conversions: our morph gives the peer's target bit for bit, goes back, and the second path says the same.

Files are compared as their own libraries load them: torch, safetensors, numpy, msgpack, h5py and Paddle read both the
peer's and ours.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from isomorph.engine.arrays import arrays
from isomorph.engine.run import Written, write
from isomorph.formats.memory import ArrayCheckpoint
from isomorph.formats.registry import lay_out, open_checkpoint
from isomorph.language.parse import parse
from isomorph.language.rules import Program
from isomorph.language.unparse import unparse
from isomorph.plan.plan import Plan
from isomorph.plan.prove import make_plan
from isomorph.plan.serial import from_json, to_json
from isomorph.testing.probe import probe
from isomorph.verify.compare import verify
from peers import NAMES, Arrays, Pair, differing, load, load_with_paddle, unpacked

ENTERED = {"openai_whisper_to_hf": "model_state_dict/"}
"""Where the source holds one state dict beside other things, what it is called: it is entered by itself."""

PARTLY_DROPPED = {"megatron_gpt2_v3_to_hf": ["model/language_model/embedding/word_embeddings/weight"]}
"""Source tensors of which a part is dropped (here the rows that pad the vocabulary), so that they cannot be made again."""

SHARD_NBYTES = 200_000
"""What the peer cut its shards at, where it made shards."""


def carry_out(programs: Sequence[Program], source: Path, target: Path, config: Any) -> tuple[Plan, Written]:
    """Plan, write, verify the temporary file, name it: what `convert` does, from its parts."""
    with open_checkpoint(source) as checkpoint:
        plan = make_plan(programs, checkpoint.manifest, config=config)
        shard_nbytes = SHARD_NBYTES if target.suffix == "" else None
        layout = lay_out(plan.manifest.tensors, target, format=None, metadata={}, max_shard_size=shard_nbytes)

        def second_path(temporary: Path) -> Any:
            with open_checkpoint(temporary) as made:
                return verify(programs, checkpoint, made, config=config)

        return plan, write(plan, checkpoint, layout, target, verify=second_path)


def in_memory(programs: Sequence[Program], source: Arrays, config: Any) -> Arrays:
    with ArrayCheckpoint(source) as checkpoint:
        plan = make_plan(programs, checkpoint.manifest, config=config)
        return {name: array.copy() for name, array in arrays(plan, checkpoint)}


class Conversions:
    """Every pair carried out once, when first asked for, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pair: Callable[[str], Pair] = cache(lambda name: unpacked(name, self._folder(name)))
        self.forward: Callable[[str], tuple[Plan, Written]] = cache(self._forward)
        self.from_paddle: Callable[[], dict[Path, Arrays]] = cache(self._from_paddle)

    def made(self, name: str) -> Path:
        """Our target, named like the peer's."""
        return self.forward(name)[1].path

    def load(self, path: Path) -> Arrays:
        """The tensors of a target, ours or the peer's, as its own library loads them."""
        return self.from_paddle()[path] if path.suffix == ".pdparams" else load(path)

    def source(self, name: str) -> Arrays:
        inside = ENTERED.get(name, "")
        loaded = load(self.pair(name).source)
        return {key.removeprefix(inside): array for key, array in loaded.items() if key.startswith(inside)}

    def _folder(self, name: str) -> Path:
        made = self.folder / name
        made.mkdir(exist_ok=True)
        return made

    def _forward(self, name: str) -> tuple[Plan, Written]:
        pair = self.pair(name)
        target = self._folder(name) / f"made_{pair.target.name}"
        return carry_out([pair.program], pair.source, target, pair.config)

    def _from_paddle(self) -> dict[Path, Arrays]:
        """All Paddle files in one go: Paddle takes seconds to start."""
        targets = [self.pair(name).target for name in NAMES if self.pair(name).target.suffix == ".pdparams"]
        ours = [self.made(name) for name in NAMES if self.pair(name).target.suffix == ".pdparams"]
        return dict(zip(targets + ours, load_with_paddle(targets + ours, self._folder("paddle")), strict=True))


@pytest.fixture(scope="module")
def conversions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Conversions]:
    yield Conversions(tmp_path_factory.mktemp("pairs"))


def test_there_are_26_pairs():
    assert len(NAMES) == 26


@pytest.mark.parametrize("name", NAMES)
def test_our_target_is_the_peers(conversions: Conversions, name: str):
    """Same names, dtypes, shapes, and every bit; read by the library that the file is for."""
    expected, found = conversions.load(conversions.pair(name).target), conversions.load(conversions.made(name))
    assert len(expected) == conversions.pair(name).truth["counts"]["target"]
    assert differing(expected, found) == []


@pytest.mark.parametrize("name", NAMES)
def test_ours_opened_again_holds_the_planned_tensors(conversions: Conversions, name: str):
    """Names, dtypes and shapes are known before a byte is read, and are those of the file."""
    plan, written = conversions.forward(name)
    with open_checkpoint(written.path) as made:
        assert dict(plan.manifest) == dict(made.manifest)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_dropped_but_what_the_peer_drops(conversions: Conversions, name: str):
    plan, _ = conversions.forward(name)
    assert sorted(conversions.pair(name).dropped_by_the_peer) == sorted(plan.dropped)
    assert {"exact"} == {target.klass for target in plan.targets.values()}


@pytest.mark.parametrize("name", NAMES)
def test_the_way_back_gives_every_tensor_that_was_not_dropped(conversions: Conversions, name: str):
    """The inverse, written in the source's own format from our target, and loaded by the source's own library."""
    pair = conversions.pair(name)
    lost = [*pair.dropped_by_the_peer, *PARTLY_DROPPED.get(name, [])]
    back = conversions.folder / name / f"back_{pair.source.name}"
    _, written = carry_out([pair.program.inverse], conversions.made(name), back, pair.config)
    expected = {key: array for key, array in conversions.source(name).items() if key not in lost}
    assert len(expected) == pair.truth["counts"]["source"] - len(lost) > 0
    assert differing(expected, load(written.path)) == []


@pytest.mark.parametrize("name", NAMES)
def test_the_second_path_finds_the_peers_target_equal(conversions: Conversions, name: str):
    """The verifier reads the morph by itself, and compares every element of the file that the other package made."""
    pair = conversions.pair(name)
    with open_checkpoint(pair.source) as source, open_checkpoint(pair.target) as target:
        report = verify([pair.program], source, target, config=pair.config)
        assert report.equal, str(report)
        assert target.manifest.numel == report.elements


@pytest.mark.parametrize("name", NAMES)
def test_the_plan_is_proved_against_the_peers_manifest(conversions: Conversions, name: str):
    """`--like`: no missing key, no unexpected key, no other shape or dtype."""
    pair = conversions.pair(name)
    with open_checkpoint(pair.source) as source, open_checkpoint(pair.target) as target:
        plan = make_plan([pair.program], source.manifest, config=pair.config, like=target.manifest)
        assert dict(target.manifest) == dict(plan.manifest)


@pytest.mark.parametrize("name", NAMES)
def test_the_morph_is_short_and_canonical(conversions: Conversions, name: str):
    """Rules, not lists of renames; and as `isomorph check --fmt` would write them."""
    text = conversions.pair(name).morph.read_text(encoding="utf-8")
    assert text == unparse(parse(text))
    assert len([line for line in text.splitlines() if not line.startswith("#")]) <= 18


@pytest.mark.parametrize("name", NAMES)
def test_the_morph_is_right_on_prime_sizes_too(conversions: Conversions, name: str):
    """`isomorph check`: no rule is right only because the sizes of this one checkpoint coincide."""
    pair = conversions.pair(name)
    found = probe([pair.program], file=pair.morph.name, config=pair.config)
    assert found.is_right, found.problems
    assert found.returned == found.sources - len(found.lost) > 0


@pytest.mark.parametrize("name", NAMES)
def test_there_and_back_in_one_plan_is_the_identity(conversions: Conversions, name: str):
    """The morph chained with its inverse gives every tensor that was not dropped, straight from the source."""
    pair, source = conversions.pair(name), conversions.source(name)
    lost = [*pair.dropped_by_the_peer, *PARTLY_DROPPED.get(name, [])]
    both = in_memory([pair.program, pair.program.inverse], source, pair.config)
    assert differing({key: array for key, array in source.items() if key not in lost}, both) == []


@pytest.mark.parametrize("name", NAMES)
def test_the_plan_survives_json(conversions: Conversions, name: str):
    plan, _ = conversions.forward(name)
    again = from_json(json.loads(json.dumps(to_json(plan))))
    assert (plan.digest, dict(plan.manifest)) == (again.digest, dict(again.manifest))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("google_vit_npz_to_timm", "timm_vit_to_hf"),
        ("hf_t5_to_t5x", "t5x_to_hf_t5"),
        ("megatron_gpt2_v3_to_hf", "hf_gpt2_to_paddle"),
        ("openclip_to_hf", "hf_clip_to_notebook"),
        ("openclip_to_hf", "hf_clip_to_paddle"),
        ("openclip_to_hf", "hf_clip_to_openai"),
    ],
)
def test_a_chain_is_one_conversion_after_the_other(conversions: Conversions, first: str, second: str):
    """Two morphs in one plan give what two conversions give, with nothing in between."""
    source = conversions.source(first)
    stages = [conversions.pair(first).program, conversions.pair(second).program]
    between = in_memory(stages[:1], source, None)
    assert differing(in_memory(stages[1:], between, None), in_memory(stages, source, None)) == []
