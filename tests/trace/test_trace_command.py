"""`isomorph trace` and `iso.trace`: what they print, write and give; and what they say of models and morphs that do not go together."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import twins
from torch import Tensor, nn

import isomorph as iso
from isomorph.cli.app import run
from isomorph.errors import Different, FormatError, IsomorphError, MorphError, UsageError
from isomorph.job.trace import read_inputs

IDS = np.arange(14).reshape(2, 7) * 2
VARIED = np.random.default_rng(0).integers(0, twins.VOCABULARY, (3, 11))


def pair(fault: Callable[[nn.Module], object] | None = None) -> tuple[nn.Module, nn.Module]:
    """Two implementations with the same weights; the second one with a fault."""
    torch.manual_seed(1)
    reference, candidate = twins.Plain().eval(), twins.Fused().eval()
    state = iso.morph(text=twins.FUSED).plan(reference.state_dict()).state_dict("torch")
    candidate.load_state_dict(state)
    if fault is not None:
        with torch.no_grad():
            fault(candidate)
    return reference, candidate


def transposed(model: nn.Module) -> None:
    weight = model.get_parameter("blocks.1.attn.out.weight")
    weight.copy_(weight.T.clone())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two checkpoints with the same weights, one with a fault, the morph, and inputs."""
    for name, fault in (("good", None), ("bad", transposed)):
        reference, candidate = pair(fault)
        np.savez(tmp_path / f"{name}.npz", **{key: value.numpy() for key, value in candidate.state_dict().items()})
    np.savez(tmp_path / "reference.npz", **{key: value.numpy() for key, value in reference.state_dict().items()})
    np.savez(tmp_path / "inputs.npz", ids=VARIED)
    (tmp_path / "port.morph").write_text(twins.FUSED)
    monkeypatch.chdir(tmp_path)
    return tmp_path


SIDES = ("twins:Plain@reference.npz", "twins:Fused@good.npz")


def test_a_clean_port_exits_0_and_the_report_is_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The probes are made, sizes found by trial; the verdict comes first; -o writes the chart."""
    assert run(["trace", *SIDES, "-m", "port.morph", "-o", "trace.svg", "--dtype", "f32"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("SAME      Fused (torch) and Plain (torch) agree within tolerance in all 9 runs\n")
    told = " ".join(out.split())
    assert "runs hot · low-scale × short · long · padded right · padded left; own weights × padded right" in told
    assert "in float32" in out
    assert "qkv" in out
    assert "written   trace.svg" in out
    assert ElementTree.parse(folder / "trace.svg").getroot().tag.endswith("svg")


def test_a_diverged_port_exits_1_and_names_the_place_and_the_cause(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The transposed weight is found by its effect; --json is one document; -o by its suffix."""
    arguments = [
        "trace",
        SIDES[0],
        "twins:Fused@bad.npz",
        "-m",
        "port.morph",
        "--inputs",
        "inputs.npz",
        "--json",
        "-o",
        "out.html",
    ]
    assert run(arguments) == 1
    data = json.loads(capsys.readouterr().out)
    (finding,) = data["findings"]
    assert (finding["kind"], finding["candidate"]) == ("module", "blocks.1.attn.out")
    assert "weight is transposed" in finding["sentence"]
    assert data["weights"][0]["name"] == "blocks.1.attn.out.weight"
    page = (folder / "out.html").read_text(encoding="utf-8")
    assert "weight is transposed" in page
    assert "<svg" in page


def test_python_gives_the_report_and_check_raises_it() -> None:
    """iso.trace: nothing is changed, printing shows the text, notebooks the chart; with check the report is raised."""
    reference, candidate = pair(transposed)
    before = {key: value.clone() for key, value in candidate.state_dict().items()}
    with pytest.raises(Different, match=r"DIVERGED  blocks\.1\.attn\.out: weight is transposed") as raised:
        iso.trace(reference, candidate, twins.FUSED, inputs=[VARIED], check=True)
    report = raised.value.report
    assert report.diverged
    assert str(report).count("first divergence") == 1
    assert report._repr_html_().count("<svg") == 1
    assert all(torch.equal(before[key], value) for key, value in candidate.state_dict().items())
    assert callable(iso.trace)


def test_functions_are_compared_by_what_comes_out() -> None:
    """A side without weights has no modules: one regime, outputs only; a difference is found all the same."""
    table = np.random.default_rng(0).standard_normal((31, 5))

    def mean(ids: Any) -> Any:
        return np.take(table, ids, axis=0).mean(1)

    def last(ids: Any) -> Any:
        return np.take(table, ids, axis=0)[:, -1]

    same = iso.trace(mean, mean, inputs={"ids": VARIED})
    assert (same.diverged, len(same.runs), same.nodes) == (False, 1, ())
    assert iso.trace(mean, last, inputs={"ids": VARIED}).diverged


class Raises(twins.Fused):
    def forward(self, ids: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        raise RuntimeError("the width is wrong")


class Elsewhere(twins.Fused):
    def forward(self, pixel_values: Tensor) -> Tensor:  # type: ignore[override]
        return pixel_values


class Shapes(twins.Fused):
    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:  # type: ignore[override]
        return super().forward(ids, mask)["hidden"].sum()


class Unused(nn.Module):
    """Holds the parameters by their names, and calls none of the modules: the reference's tensors have nothing to face."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = twins.Fused()

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        one = torch.ones(ids.shape[0], ids.shape[1], twins.D)
        return {"hidden": one, "logits": one[:, 0, :7]}


def meta() -> nn.Module:
    with torch.device("meta"):
        return twins.Fused().eval()


def traced(reference: Any, candidate: Any, morph: Any = twins.FUSED, **options: Any) -> Any:
    options.setdefault("inputs", {"ids": IDS})
    return iso.trace(reference, candidate, morph, **options)


BAD: list[tuple[str, Callable[[], Any], type[Exception], str]] = [
    (
        "does not run",
        lambda: traced(pair()[0], Raises().eval(), inputs=None),
        UsageError,
        r"(?s)Raises \(torch\) does not run on what Plain \(torch\) runs on \(short: ids \[.*the width is wrong.*numpy\.savez",
    ),
    (
        "no common input",
        lambda: traced(pair()[0], Elsewhere().eval(), inputs=None),
        UsageError,
        r"no input in common: Plain \(torch\) takes ids, mask; Elsewhere \(torch\) takes pixel_values.*inputs=",
    ),
    (
        "no aligned module",
        lambda: traced(pair()[0], Unused().eval(), [twins.FUSED, '** <-> "unused.**"\n']),
        UsageError,
        r"no module of Plain \(torch\) is aligned with one of Unused \(torch\)",
    ),
    (
        "other outputs",
        lambda: traced(pair()[0], Shapes().eval()),
        UsageError,
        r"(?s)no output of the two models can be compared\. Plain .*hidden.*outputs=\{",
    ),
    ("training mode", lambda: traced(pair()[0], pair()[1].train()), UsageError, r"training mode.*\.eval\(\)"),
    ("meta device", lambda: traced(pair()[0], meta()), UsageError, r"is on the meta device.*Load the weights first"),
    ("a class", lambda: traced(pair()[0], twins.Fused), UsageError, r"Fused is a class\. Make a model of it first"),
    (
        "a mapping",
        lambda: traced(pair()[0].state_dict(), pair()[1]),
        UsageError,
        "the reference is a mapping of arrays: a trace runs two models.*use verify",
    ),
    (
        "a path",
        lambda: traced("model.bin", pair()[1]),
        UsageError,
        r"model\.bin: a trace runs two models.*package\.module:callable",
    ),
    (
        "the morph the other way",
        lambda: traced(*reversed(pair())),
        MorphError,
        r"SRC is already the target layout. Did you mean --inverse",
    ),
    (
        "a morph with gaps",
        lambda: traced(*pair(), twins.EMBEDDED),
        MorphError,
        r"(?s)tensors have no rule.*layers\.\{0\.\.1\}\.ln1\.weight.*drop",
    ),
    (
        "a morph of other shapes",
        lambda: traced(
            *pair(),
            twins.FUSED.replace(
                "fc2.{t} <-> blocks.{l}.mlp.down.{t}",
                "fc2.weight [o i] <-> blocks.{l}.mlp.down.weight [i o]\nlayers.{l}.fc2.bias <-> blocks.{l}.mlp.down.bias",
            ),
        ),
        MorphError,
        r"`blocks\.0\.mlp\.down\.weight` is \[16, 24\] in the candidate; the morph makes \[24, 16\]",
    ),
    (
        "a morph to other names",
        lambda: traced(*pair(), '** <-> "other.**"\n'),
        MorphError,
        r"(?s)the morph makes no tensor that the candidate has.*makes other\.word\.weight.*has embed\.positions",
    ),
    (
        "a prefix the wrong way",
        lambda: traced(Unused().eval(), pair()[1], '** <-> "unused.**"\n'),
        MorphError,
        r"(?s)makes no tensor that the candidate has.*read the other way round, the morph makes 30 .*Did you mean --inverse",
    ),
    ("a morph that is none", lambda: traced(*pair(), "a <- -> b\n"), MorphError, "line 1: a rule needs a term after"),
    (
        "no layout",
        lambda: traced(*pair(), None),
        MorphError,
        r"(?s)no layout of the catalogue knows its names.*the reference's state dict was not recognised, and no morph was given.*--morph",
    ),
    ("inverse of nothing", lambda: traced(*pair(), None, inverse=True), UsageError, "--inverse needs a --morph"),
    (
        "a dtype",
        lambda: traced(*pair(), dtype="int8"),
        UsageError,
        "--dtype int8: a trace runs in float64, float32, bfloat16 or float16",
    ),
    (
        "an output that is none",
        lambda: traced(*pair(), outputs={"logit": "logits"}),
        UsageError,
        r"Plain \(torch\) has no output `logit`.*logits",
    ),
    (
        "tokens that are none",
        lambda: traced(*pair(), inputs={"ids": IDS + 40}),
        UsageError,
        r"Plain \(torch\) does not run on",
    ),
    (
        "an input that is none",
        lambda: traced(*pair(), inputs={"pixels": np.ones(3), "ids": IDS}),
        UsageError,
        "input `pixels`: Plain",
    ),
]


@pytest.mark.parametrize(("make", "kind", "message"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_what_does_not_go_together_is_said_with_what_to_do(
    make: Callable[[], Any], kind: type[Exception], message: str
) -> None:
    """One error of ours, in the words of who has to mend it."""
    with pytest.raises(kind, match=message) as raised:
        make()
    assert isinstance(raised.value, IsomorphError)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.bin", "twins:Fused"], "model.bin: a trace runs two models, and this is none. Name the reference as"),
        (["twins:Plain", "twins:Fussed"], "twins:Fussed: twins has no `Fussed`"),
        (["twins:Plain", "no.such:thing"], "importing no.such failed: ModuleNotFoundError"),
        ([*SIDES, "-m", "missing.morph"], "missing.morph: no such morph file"),
        (
            [*SIDES, "-m", "port.morph", "--inverse"],
            "fits a side that is read (--inverse), all 38 fit a side that is written",
        ),
        ([*SIDES, "-m", "port.morph", "--inputs", "none.npz"], "none.npz: no such file"),
        ([*SIDES, "-m", "port.morph", "--inputs", "port.morph"], "port.morph: not a checkpoint of a known format"),
        ([*SIDES, "-m", "port.morph", "--outputs", "logits"], "write it as REFERENCE_NAME=CANDIDATE_NAME"),
        ([*SIDES, "-m", "port.morph", "-o", "out.pdf"], "out.pdf: a report is written as .json, .svg, .html or .txt"),
        ([*SIDES, "-m", "port.morph", "--dtype", "q4"], "--dtype q4: a trace runs in"),
        ([*SIDES, "--to", "no/such"], "there is no family `no` in the catalogue"),
        (["twins:Plain"], "missing argument"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else "",
)
def test_bad_command_lines_exit_2_with_one_message(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    """Nothing on stdout, no traceback, and what is wrong."""
    assert run(["trace", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert message in said.err
    assert "Traceback" not in said.err


def test_help_shows_an_example_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    """`isomorph trace --help`."""
    assert run(["trace", "--help"]) == 0
    out = capsys.readouterr().out
    assert "Example:  isomorph trace" in out
    assert "Exit 0" in out


def test_inputs_are_read_without_executing_anything(tmp_path: Path) -> None:
    """.npz and .npy; an array of objects, which is a pickle, is refused."""
    np.savez(tmp_path / "objects.npz", x=np.array([print], dtype=object), allow_pickle=True)
    np.save(tmp_path / "one.npy", IDS)
    with pytest.raises(FormatError, match=r"objects\.npz: `x` is an array of Python objects, which is a pickle"):
        read_inputs(tmp_path / "objects.npz")
    with pytest.raises(FormatError, match="a folder, not a file of arrays"):
        read_inputs(tmp_path)
    assert np.array_equal(read_inputs(tmp_path / "one.npy")[0], IDS)
    mask = np.array([[True, False]])
    np.savez(tmp_path / "two.npz", ids=IDS, mask=mask)
    found = read_inputs(tmp_path / "two.npz")
    assert np.array_equal(found["ids"], IDS) and (np.bool_, True) == (
        found["mask"].dtype,
        (found["mask"] == mask).all(),
    )
    (tmp_path / "broken.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(FormatError, match=r"broken\.npy: cannot be read as arrays: "):
        read_inputs(tmp_path / "broken.npy")


def test_names_of_modules_that_speak_to_a_terminal_are_spelled_out() -> None:
    """A live model may call its modules anything; the report shows it and a terminal obeys nothing of it."""
    name = "a\x1b[31m\u202e"

    def made(factor: float) -> nn.Module:
        torch.manual_seed(0)
        model = nn.Sequential()
        model.add_module(name, nn.Linear(4, 4))
        with torch.no_grad():
            model.get_submodule(name).get_parameter("weight").mul_(factor)
        return model.eval()

    report = str(iso.trace(made(1.0), made(1.5), inputs={"input": np.ones((2, 4), "f4")}))
    assert "DIVERGED  a\\x1b[31m\\u202e: weight is scaled by 1.5" in report
    assert all(character == "\n" or character.isprintable() for character in report)
