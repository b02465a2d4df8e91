"""The catalogue and checkpoints of strangers: names that are patterns, numbers that nobody has, configs that are no configs."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from isomorph.cli.app import run
from isomorph.errors import MorphError
from isomorph.job.port import make_port
from isomorph.language.morph import Morph
from isomorph.layouts.catalogue import find
from isomorph.layouts.compose import layout_keys
from isomorph.layouts.recognise import recognise
from isomorph.plan.prove import make_plan
from isomorph.tensors import DTYPES, Manifest, TensorSpec
from isomorph.testing.layouts import hub_probe

SECONDS = 10.0
"""Ten times what it takes on an idle machine; without bounds each of these takes hours, or all memory."""


@cache
def keys(layout: str = "bert/hf") -> Mapping[str, TensorSpec]:
    one = find(layout)
    return layout_keys(one, one.family.complete(one.family.sizes))


def one(*shape: int) -> TensorSpec:
    return TensorSpec(DTYPES["f32"], shape)


def refusal(tensors: Mapping[str, TensorSpec], config: Mapping[str, object] | None = None) -> str:
    """What is said of names that fit nothing, soon, in a few lines that a terminal does not obey."""
    begin = time.monotonic()
    with pytest.raises(MorphError) as told:
        recognise(Manifest(tensors), config)
    assert time.monotonic() - begin < SECONDS
    said = str(told.value)
    assert len(said) < 8000 and said.replace("\n", "").isprintable(), said[:2000]
    return said


# ── numbers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("number", [10**6, 10**9, 10**17])
def test_a_number_in_a_name_asks_for_no_billion_layers(number: int) -> None:
    """Twelve layers and one that is far away: what lies between is not listed."""
    said = refusal({**keys(), f"bert.encoder.layer.{number}.output.dense.bias": one(768)})
    assert f"its names number layers up to {number:,}, and 13 of them are there" in said


def test_numbers_that_multiply_ask_for_no_billion_tensors() -> None:
    """Two holes in a name, each with a number that is modest by itself."""
    moe = {name: spec for name, spec in keys("mixtral/hf").items() if ".layers." not in name or ".layers.0." in name}
    far = "model.layers.4000.block_sparse_moe.experts.4000.w1.weight"
    assert "more than 50,000 tensors are missing" in refusal({**moe, far: one(14336, 4096)})


@pytest.mark.parametrize("number", [10**9, 1 << 40])
def test_a_config_of_a_billion_layers_is_contradicted(number: int) -> None:
    said = refusal(keys(), {"model_type": "bert", "num_hidden_layers": number})
    assert f"layers is 12 by the numbers in its names, but {number} by the config" in said


def test_layers_that_are_missing_are_still_told() -> None:
    """A config that says one more, and a name that says one more."""
    assert "bert.encoder.layer.12." in refusal(keys(), {"model_type": "bert", "num_hidden_layers": 13})
    said = refusal({**keys(), "bert.encoder.layer.13.output.dense.bias": one(768)})
    assert "31 tensors that it needs and that are not there" in said


@pytest.mark.parametrize(
    "value",
    ["12", None, -3, float("nan"), float("inf"), [12], {"a": 1}, True, 12.5, 10**18, 10**4000, "\x1b[31m"],
    ids=lambda value: repr(value)[:12],
)
def test_what_is_no_size_in_a_config_is_no_size(value: object) -> None:
    """Shapes tell the sizes all the same; what they do not tell stays unknown."""
    words = ["num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size", "intermediate_size", "num_labels"]
    config = dict.fromkeys(words, value)
    found = recognise(Manifest(keys()), config)
    assert str(found.layout) == "bert/hf" and found.sizes["layers"] == 12 and "heads" not in found.sizes
    manifest = Manifest(keys())
    port = make_port(to="bert/google_tf", config=config).settled(manifest)
    assert len(port.plan(manifest).targets) == 206


@pytest.mark.parametrize("size", [10**6, 10**9, 10**17])
def test_a_key_set_of_a_billion_layers_is_not_listed(size: int, capsys: pytest.CaptureFixture[str]) -> None:
    begin = time.monotonic()
    assert run(["layouts", "bert/hf", "--keys", "--set", f"layers={size}"]) == 2
    assert time.monotonic() - begin < SECONDS
    said = capsys.readouterr()
    assert said.out == "" and "is not listed" in said.err


# ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────────

ODD = [
    "(", "[", "]", "*", "**", "{", "}", "{l}", "\\", "\\\\", "$", "^", ".*", "[a-z]+", "..", "::", "#", "# ", "", " ", "a b",
    '"', 'a"b', "'", "`", "|", "<->", " <-> ", "drop", "drop ", "where", "use x", "arange:", "3", "9" * 30, "é", "😀",
]  # fmt: skip
UNSEEN = ["\n", "\r", "\0", "\x1b]0;x\x07", "\u202e", "\u2028", "\x85"]


@pytest.mark.parametrize("wrapper", ODD)
def test_a_wrapper_of_any_characters_is_taken_off(wrapper: str) -> None:
    """Names are never read as patterns: what stands before every name is text."""
    piece = "./"[ODD.index(wrapper) % 2]
    wrapped = Manifest({wrapper + piece + name: spec for name, spec in keys().items()})
    found = recognise(wrapped)
    assert str(found.layout) == "bert/hf" and found.fit.wrapper == wrapper + piece
    port = make_port(to="bert/google_tf").settled(wrapped)
    assert sorted(port.plan(wrapped).targets) == sorted(keys("bert/google_tf"))


@pytest.mark.parametrize("wrapper", UNSEEN)
def test_what_cannot_be_seen_is_no_wrapper(wrapper: str) -> None:
    said = refusal({f"{wrapper}.{name}": spec for name, spec in keys().items()})
    assert said.startswith("below `\\") and "` are the names of bert/hf\n" in said


@pytest.mark.parametrize("name", [*ODD, *UNSEEN])
def test_an_odd_name_is_one_that_is_not_known(name: str) -> None:
    """Beside a model, in the place of a number, and before all of its names."""
    said = refusal({**keys(), name: one(1)})
    assert "1 tensor that it does not know" in said
    if name in ("*", "{l}", "[a-z]+", "::", "\\", "a b", "\n", "\0"):
        said = refusal({key.replace(".layer.0.", f".layer.{name}."): spec for key, spec in keys().items()})
        assert "16 tensors that it does not know" in said


def test_the_advice_for_an_odd_name_is_a_morph() -> None:
    """What the message says to write is read as that name."""
    for name in ["a b", "x[1]", "{l}", "*", 'a"b', "where", "drop", "3", "\\"]:
        said = refusal({**keys(), name: one(1)})
        advice = said[said.index("drop ") : said.index("  (and so on)")]
        programs = Morph.parse(f"{advice}\n** <-> **\n").programs({})
        assert list(make_plan(programs, Manifest({"w": one(2), name: one(1)})).targets) == ["w"]


LONG = {
    "dots": {"a." * 5000 + str(n): one(1) for n in range(20)},
    "slashes": {"/" * 10_000 + str(n): one(1) for n in range(20)},
    "digits": {"1." * 5000 + str(n): one(1) for n in range(20)},
    "one number": {"1" * 10_000 + f".{n}": one(1) for n in range(20)},
    "different": {f"a{n}." * 2000 + "w": one(1) for n in range(20)},
    "very long": {"a." * 100_000: one(1)},
}


@pytest.mark.parametrize("case", LONG)
def test_names_of_any_length_are_cut_in_messages(case: str) -> None:
    refusal(LONG[case])
    refusal({**keys(), **LONG[case]})
    before = next(iter(LONG[case]))[:10_000]
    refusal({before + name: spec for name, spec in keys().items()})


def test_very_many_names_are_soon_known_to_be_none() -> None:
    """Random names, and prefixes of which each could be a model."""
    rng = np.random.default_rng(0)
    words = ["".join(chr(97 + letter) for letter in row) for row in rng.integers(0, 26, (60_000, 9))]
    assert "no layout of the catalogue knows its names" in refusal({word: one(1) for word in words})
    assert "no layout" in refusal({f"{word}.{part}": one(1) for word in words[:30_000] for part in ("weight", "bias")})
    assert "no layout" in refusal({"/".join(word): one(1) for word in words[:30_000]})


# ── configs ──────────────────────────────────────────────────────────────────────────────────────────────────────────

FACTS = {"model_type": "bert", "num_attention_heads": 7, "hidden_act": "gelu", "layer_norm_eps": 1e-12}
CONFIGS = {
    "deep": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "rather deep": b'{"a":' * 500 + b"1" + b"}" * 500,
    "lists": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "digits": b'{"hidden_size":' + b"9" * 5000 + b"}",
    "list": b"[1]",
    "null": b"null",
    "zeros": b"\0\0\0\0",
    "latin": b'{"a":"\xff"}',
    "cut": b'{"a":',
}


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder `m` with a small BERT."""
    (tmp_path / "m").mkdir()
    arrays = {name: np.ascontiguousarray(array, "f4") for name, array in hub_probe("bert").items()}
    save_file(arrays, tmp_path / "m/model.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "m/config.json"


def test_a_config_that_is_none_is_named_and_nothing_written(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for text in CONFIGS.values():
        checkpoint.write_bytes(text)
        for command in (["convert", "m", "out/", "--to", "hf_v4"], ["plan", "m", "--to", "hf_v4"]):
            assert run(command) in (1, 2)
            said = capsys.readouterr()
            assert said.err.startswith("m/config.json: ") and len(said.err) < 1000, said.err
            assert said.err.count("\n") == 1 and "Traceback" not in said.err
        assert run(["inspect", "m"]) == 0  # the weights are what they are
        capsys.readouterr()
        assert not Path("out").exists()


@pytest.mark.parametrize(
    "said",
    ['"\\ud800"', '"\\u001b]0;x\\u0007"', "null", "[]", "{}", "true", "1e999", "-1", "1000000000000000000000", '"x"'],
)
def test_odd_facts_of_a_config_are_carried_as_they_are(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], said: str
) -> None:
    """What a config holds beside sizes is the model's affair; it is written as JSON of the same meaning, and never obeyed."""
    checkpoint.write_text(
        json.dumps(FACTS)[:-1] + f', "more": {said}, "architectures": {said}, "torch_dtype": {said}}}'
    )
    assert run(["convert", "m", "out/", "--to", "hf_v4", "--set", "config.extra.deep=1"]) == 0
    told = capsys.readouterr()
    assert "\x1b" not in told.out + told.err
    made = json.loads(Path("out/config.json").read_text("utf-8"))
    assert made["more"] == json.loads(said) and made["extra"] == {"deep": 1} and made["num_attention_heads"] == 7


def test_a_value_that_is_no_object_is_cut_when_it_is_in_the_way(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint.write_text(json.dumps({**FACTS, "x": ["\x1b" * 10_000]}))
    assert run(["convert", "m", "out/", "--to", "hf_v4", "--set", "config.x.y=1"]) == 2
    said = capsys.readouterr().err
    assert "config.x.y cannot be set: config.x is ['\\x1b" in said and len(said) < 300 and "\x1b" not in said


def test_the_line_that_loads_a_result_obeys_no_path(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A target whose name speaks to the terminal, or ends the text it stands in."""
    checkpoint.write_text(json.dumps(FACTS))
    for number, name in enumerate(["\x1b[31mred", 'a"); import os; ("', "a\nb", "{path}", "{0}"]):
        assert run(["convert", "m", f"{name}{number}/", "--to", "bert/paddle"]) == 0
        said = capsys.readouterr()
        assert "\x1b" not in said.out + said.err
        line = next(line for line in said.out.split("\n") if line.startswith("load"))
        assert "paddlenlp.transformers" in line
        assert 'a"); import os' not in line


@pytest.mark.parametrize("where", ["", "def build():\n    "])
def test_a_model_that_ends_the_program_does_not(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A script named as a model, which exits when it is imported or called: that is said, and nothing ends in silence."""
    monkeypatch.chdir(tmp_path)
    name = f"ends_{len(where)}"
    Path(f"{name}.py").write_text(f"import sys\n{where}sys.exit('usage: train.py DATA')\n")
    save_file({"w": np.zeros(2, "f4")}, "m.safetensors")
    assert run(["diff", f"{name}:build", "m.safetensors"]) == 2
    assert "failed: SystemExit: usage: train.py DATA" in capsys.readouterr().err
