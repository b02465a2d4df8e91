"""Operators along axes through plan, engine and verify: files in, files out, equal bit for bit by the second path."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from torch.nn.functional import interpolate
from transformers import ViTConfig, ViTModel

import isomorph as iso
from isomorph.errors import CheckError, Different, MorphError

Arrays = dict[str, np.ndarray]


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def converted(tmp_path: Path, source: Arrays, morph: object, **options: object) -> Arrays:
    """What a conversion writes, verified."""
    save_file(source, tmp_path / "source.safetensors")
    target = tmp_path / "target.safetensors"
    done = iso.convert(tmp_path / "source.safetensors", target, morph, overwrite=True, **options)
    assert "bit for bit" in str(done)
    return load_file(target)


def morph(text: str) -> object:
    return iso.morph(text=text + "\n")


# ── what others compute ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("new", [12, 32])
def test_transformers_interpolates_to_the_same(tmp_path: Path, new: int) -> None:
    """`ViTEmbeddings.interpolate_pos_encoding` of a model for another image size, class token kept."""
    config = ViTConfig(
        hidden_size=6, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=20, patch_size=4
    )
    embeddings = ViTModel(config).embeddings
    torch.nn.init.normal_(embeddings.position_embeddings)
    side = new // 4
    meant = embeddings.interpolate_pos_encoding(torch.zeros(1, side * side + 1, 6), new, new)
    source = {"pos_embed": embeddings.position_embeddings.detach().numpy()}
    rule = "pos_embed [1 (1 + n) d] -> vit.embeddings.position_embeddings [1 (1 + m) d] | resize n -> m transformers"
    made = converted(tmp_path, source, morph(rule), m=side * side)["vit.embeddings.position_embeddings"]
    assert np.abs(made - meant.detach().numpy()).max() < 1e-5
    assert made[:, :1].tobytes() == source["pos_embed"][:, :1].tobytes()


@pytest.mark.parametrize(("old", "new"), [((4, 4), (7, 7)), ((7, 5), (3, 9)), ((6, 6), (2, 2))])
def test_timm_resamples_to_the_same(tmp_path: Path, old: tuple[int, int], new: tuple[int, int]) -> None:
    """`resample_abs_pos_embed`, two prefix tokens kept, in bf16 as it does it: in f32, then cast back."""
    posemb = torch.from_numpy(noise(1, 2 + old[0] * old[1], 5)).to(torch.bfloat16)
    prefix, grid = posemb[:, :2], posemb[:, 2:]
    grid = grid.float().reshape(1, *old, -1).permute(0, 3, 1, 2)
    grid = interpolate(grid, size=new, mode="bicubic", antialias=True)
    grid = grid.permute(0, 2, 3, 1).reshape(1, new[0] * new[1], -1).to(torch.bfloat16)
    meant = torch.cat([prefix, grid], dim=1)
    rule = morph("pe [1 (2 + h w) d] -> x [1 (2 + y x) d] | resize h w -> y x timm")
    sizes = dict(zip("hwyx", (*old, *new), strict=True))
    made = rule.plan({"pe": posemb}, **sizes).state_dict("torch")["x"]  # type: ignore[attr-defined]
    apart = (made.view(torch.int16).int() - meant.view(torch.int16).int()).abs()
    assert apart.max() <= 1 and (apart > 0).float().mean() < 0.01  # a number at the border of two rounds either way
    assert torch.equal(made[:, :2], prefix)


# ── where the axes may stand ─────────────────────────────────────────────────────────────────────────────────────────

PIECES = {f"pe.{number}": noise(3, seed=number) for number in range(9)} | {"cls": noise(3, seed=99)}


@pytest.mark.parametrize(
    "text",
    [
        "pe.{n} [d] -> pos.{m} [d] | resize n -> m timm where m=16\ncls <-> cls",
        "pe.{n} [d] -> pos [d m] | resize n -> m timm where m=16\ncls <-> cls",
        "cls [d], pe.{n} [d] -> pos [1 (1 + m) d] | resize n -> m timm where m=16",
        "cls [d], pe.{n} [d] -> c [1 d], pos.{m} [1 d] | resize n -> m timm where m=16",
        "pe.{n} [d] -> pos.{d} [m] | resize n -> m timm where m=16\ncls <-> cls",
        "pe.{n} [d] -> pos [m d] | f32 ~> bf16, resize n -> m timm, bf16 -> f32 where m=16\ncls <-> cls",
    ],
)
def test_axes_in_names_and_in_brackets(tmp_path: Path, text: str) -> None:
    """Stacked or not, on either side: the numbers are those of the plain rule."""
    made = converted(tmp_path, PIECES, morph(text))
    stack = np.stack([PIECES[f"pe.{number}"] for number in range(9)])
    half = "bf16" in text
    source = {"pe": torch.from_numpy(stack).to(torch.bfloat16) if half else stack}
    plain = (
        morph("pe [n d] -> x [m d] | resize n -> m timm").plan(source, m=16).state_dict("torch")["x"].float().numpy()
    )  # type: ignore[attr-defined]
    names = sorted((name for name in made if name.startswith("pos")), key=lambda name: [len(name), name])
    found = np.stack([made[name] for name in names]).squeeze()
    if "(1 + m)" in text:
        assert np.array_equal(found[0], PIECES["cls"])
        found = found[1:]
    assert np.array_equal(found if found.shape == (16, 3) else found.T, plain)


def test_a_chain_carries_operators_along_axes(tmp_path: Path) -> None:
    """What lies in between is never made; the numbers are those of one step after the other."""
    stages = [
        "cls [d], pe.{n} [d] <-> pos [1 (1 + n) d]",
        "pos [1 (n + 1) d] -> q.{m} [d], c [1 d] | resize n -> m timm where m=36",
        "q.{n} [d], c [1 d] <-> r [d (n + 1)]",
        "r [d (h w + 1)] -> s [y d x], t [d] | resize h w -> y x transformers where h=4, w=9, y=5, x=7",
    ]
    chain = morph(stages[0])
    for text in stages[1:]:
        chain = chain @ morph(text)  # type: ignore[operator]
    made = converted(tmp_path, PIECES, chain)
    step: Arrays = dict(PIECES)
    for text in stages:
        step = morph(text).plan(step).state_dict()  # type: ignore[attr-defined]
    assert {name: value.tobytes() for name, value in made.items()} == {
        name: value.tobytes() for name, value in step.items()
    }


def test_blocks_are_resized_before_they_are_added(tmp_path: Path) -> None:
    """`sum` adds what has the same axes then."""
    source = {"a": noise(4, 3), "b": noise(9, 3, seed=1)}
    made = converted(tmp_path, source, morph("a [n d], b [m d] -> c [m d] | resize n -> m timm, sum"))["c"]
    resized = morph("a [n d] -> c [m d] | resize n -> m timm").plan({"a": source["a"]}, m=9).state_dict()["c"]  # type: ignore[attr-defined]
    assert np.array_equal(made, resized + source["b"])


@settings(deadline=None, max_examples=25)
@given(
    st.permutations(["h", "d", "w", "e"]),
    st.permutations(["y", "e", "x", "d"]),
    st.sampled_from(["timm", "transformers"]),
)
def test_the_order_of_the_axes_does_not_matter(
    tmp_path_factory: pytest.TempPathFactory, read: list[str], made: list[str], vintage: str
) -> None:
    """Two grid axes among others, wherever they stand."""
    sizes = {"h": 3, "w": 4, "d": 2, "e": 5}
    values = noise(*(sizes[axis] for axis in read))
    rule = f"a [{' '.join(read)}] -> b [{' '.join(made)}] | resize h w -> y x {vintage} where y=5, x=2"
    found = converted(tmp_path_factory.mktemp("order"), {"a": values}, morph(rule))["b"]
    plain = morph(f"a [d e h w] -> b [d e y x] | resize h w -> y x {vintage} where y=5, x=2")
    straight = {"a": np.ascontiguousarray(values.transpose([read.index(axis) for axis in "dehw"]))}
    meant = plain.plan(straight).state_dict()["b"]  # type: ignore[attr-defined]
    assert np.array_equal(found, meant.transpose(["deyx".index(axis) for axis in made]))


# ── verified, bounded, resumable ─────────────────────────────────────────────────────────────────────────────────────


def test_one_element_that_differs_is_found(tmp_path: Path) -> None:
    """And said with where it comes from."""
    rule = morph("pe [1 (1 + n) d] -> x [1 (1 + m) d] | resize n -> m timm where m=16")
    made = converted(tmp_path, {"pe": noise(1, 10, 3)}, rule)
    made["x"][0, 7, 1] = np.nextafter(made["x"][0, 7, 1], np.float32(9))
    save_file(made, tmp_path / "wrong.safetensors")
    with pytest.raises(Different, match=r"1 of 51 elements\n.*\[0, 7, 1\] is .* = pe \| resize"):
        iso.verify(tmp_path / "source.safetensors", tmp_path / "wrong.safetensors", rule)


def test_the_other_vintage_is_not_equal(tmp_path: Path) -> None:
    """They differ, which is why the morph says which."""
    rule = "pe [n d] -> x [m d] | resize n -> m {} where m=4"
    converted(tmp_path, {"pe": noise(9, 3)}, morph(rule.format("timm")))
    with pytest.raises(Different):
        iso.verify(tmp_path / "source.safetensors", tmp_path / "target.safetensors", morph(rule.format("transformers")))


def test_small_budgets_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However few indices are worked on at a time, by either path."""
    source = {"pe": noise(1, 17, 40), "w": noise(70, 33)}
    rule = morph(
        "pe [1 (1 + n) d] -> x [1 (1 + m) d] | resize n -> m timm where m=81\nw [v e] -> w [u e] | pad v -> u mean where u=90"
    )
    whole = converted(tmp_path, source, rule)
    for module in ("engine.evaluate", "verify.tiles", "verify.evaluate"):
        monkeypatch.setattr(importlib.import_module(f"isomorph.{module}"), "AT_ONCE", 3000)
    few = converted(tmp_path, source, rule, max_memory=4 << 20)
    assert {name: value.tobytes() for name, value in whole.items()} == {
        name: value.tobytes() for name, value in few.items()
    }


def test_rows_that_stay_are_a_range_of_bytes(tmp_path: Path) -> None:
    """Of a padded vocabulary only the new rows are computed."""
    plan = morph("w [v d] -> e [u d] | pad v -> u mean where u=64").plan({"w": noise(60, 4)})  # type: ignore[attr-defined]
    assert [(move.is_range, move.target.numel) for move in plan.plan.moves] == [(True, 240), (False, 16)]


def test_a_cast_of_the_whole_conversion_comes_last(tmp_path: Path) -> None:
    """`--dtype` rounds what was resized, and what was only copied."""
    source = {"pe": noise(1, 10, 3), "w": noise(7, 3)}
    rule = morph(
        "pe [1 (1 + n) d] -> x [1 (1 + m) d] | resize n -> m timm where m=16\nw [v d] -> w [u d] | pad v -> u mean where u=9"
    )
    made = converted(tmp_path, source, rule, dtype="f16")
    whole = rule.plan(source).state_dict()  # type: ignore[attr-defined]
    assert all(np.array_equal(made[name], whole[name].astype(np.float16)) for name in ("x", "w"))


def test_a_value_that_is_refused_names_the_rule_and_the_tensor(tmp_path: Path) -> None:
    """Before anything has its name."""
    values = noise(9, 3)
    values[4, 1] = np.nan
    save_file({"pe": values}, tmp_path / "a.safetensors")
    with pytest.raises(CheckError) as caught:
        iso.convert(
            tmp_path / "a.safetensors",
            tmp_path / "b.safetensors",
            morph("pe [n d] -> x [m d] | resize n -> m timm where m=4"),
        )
    assert "x: `resize n -> m timm` meets nan, which is no number to compute with (from pe)" in str(caught.value)
    assert not (tmp_path / "b.safetensors").exists()


def test_the_new_size_may_come_from_the_config(tmp_path: Path) -> None:
    """As from `--set` and `where`."""
    rule = morph(
        "pe [1 (1 + n) d] -> x [1 (1 + m) d] | resize n -> m timm where m=g*g, g=config.image_size//config.patch_size"
    )
    made = converted(tmp_path, {"pe": noise(1, 10, 3)}, rule, config={"image_size": 32, "patch_size": 8})
    assert made["x"].shape == (1, 17, 3)
    with pytest.raises(MorphError, match="axis m has no size"):
        morph("pe [n d] -> x [m d] | resize n -> m timm").plan({"pe": noise(9, 3)})  # type: ignore[attr-defined]


def test_check_makes_up_sizes_that_suit_the_operators(tmp_path: Path) -> None:
    """`isomorph check` of rules whose axes must be squares, or longer than others."""
    from isomorph.cli.app import run

    (tmp_path / "a.morph").write_text(
        "pe [1 (1 + n) d] -> x.pe [1 (1 + m) d] | resize n -> m timm\nw [v d] -> w [u d] | pad v -> u mean, f16 -> f32\n"
        "q [(1 + h w) e] -> q [e y x], c [e] | resize h w -> y x transformers\nr.{n} [a] -> r.{m} [a] | resize n -> m timm\n"
    )
    assert run(["check", str(tmp_path / "a.morph")]) == 0
