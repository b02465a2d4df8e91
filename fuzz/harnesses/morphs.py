"""Morphs: text that is read, written and read again; and plans, carried out by the engine and held against verify."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from fuzz.harness import Finding, Harness
from fuzz.mutators import by_pattern, pieces
from isomorph.engine.arrays import arrays
from isomorph.errors import Gap, MorphError, UsageError
from isomorph.formats.memory import ArrayCheckpoint
from isomorph.language.inversion import inverse_module
from isomorph.language.parse import parse
from isomorph.language.rules import Program
from isomorph.language.scopes import check, flatten
from isomorph.language.tree import Module
from isomorph.language.unparse import unparse
from isomorph.plan.plan import Plan
from isomorph.plan.prove import make_plan
from isomorph.tensors import TensorSpec, spec
from isomorph.verify import verify

ROOT = Path(__file__).parent.parent.parent
CASES = ROOT / "tests" / "cases"
LAYOUTS = ROOT / "src" / "isomorph" / "layouts"

MOST_NUMEL = 1 << 12
MOST_MADE = 1 << 18
"""Elements of a source and bytes of the targets up to which a plan is carried out."""


@cache
def cases() -> list[dict[str, Any]]:
    return [
        case
        for path in sorted(CASES.glob("*.toml"))
        for case in tomllib.loads(path.read_text(encoding="utf-8"))["case"]
    ]


def loader(files: Mapping[str, str]) -> Callable[[str], Module]:
    """What reads the morphs that a text uses: those given, and no file."""

    def load(name: str) -> Module:
        if name not in files:
            raise MorphError([Gap("use", f"{name}.morph is not there", tensors=(name,))])
        return parse(files[name], f"{name}.morph")

    return load


# --- morph: the text alone


def run_morph(data: bytes) -> None:
    """A text that can be read is the same once written and read again, and so is its inverse; then it is checked and flattened."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    module = parse(text)
    again(module)
    turned = inverse_module(module)
    again(turned)
    load = loader({"part": "a [o i] <-> b [i o]", "other": "use part\n{l}.x <-> y.{l}"})
    for config in (None, {"n": 2, "bias": True, "a": {"b": 3}, "name": "x"}):
        flatten(module, load=load, config=config)
    check(module, load=load)


def again(module: Module) -> None:
    """parse(unparse(module)) is the module, and its text does not change any more."""
    text = unparse(module)
    try:
        read = parse(text)
    except MorphError as error:
        raise Finding(f"written as {text!r}, which cannot be read: {error}") from error
    if read != module:
        raise Finding(f"written as {text!r}, which is another morph")
    if unparse(read) != text:
        raise Finding(f"written as {text!r}, then as {unparse(read)!r}")


def morph_seeds() -> dict[str, bytes]:
    """Every sixth case, and a few layouts; the corpus has what the others reach."""
    found = {case["name"]: case["morph"].encode() for case in cases()[::6] if len(case["morph"]) <= 200}
    for path in sorted(LAYOUTS.glob("*/*.morph"))[::6]:
        text = path.read_bytes()
        if len(text) <= 500:
            found[f"{path.parent.name}/{path.stem}"] = text
    return found


WORDS = (
    b"<->", b"->", b"<-", b"<->?", b"->?", b"where", b"when", b"use", b"use?", b"paths", b"assert", b"drop", b"drop?",
    b"isomorph 1", b"|", b"?", b":", b"\n", b"\n  ", b"\n    ", b" ", b",", b"+", b"-", b"*", b"//", b"%", b"==", b"!=", b"<=",
    b">", b"and", b"or", b"not", b"config.n", b"config.a.b", b"len", b"(h d)", b"[o i]", b"[(q + k) i]", b"{l}", b"{l:02}",
    b"{p=q|k|v}", b"{l+1}", b"{=a|b}", b"**", b"*", b"**.w", b"a.", b"f32 -> bf16", b"round", b"saturate", b"neg", b"add 1",
    b"mul 1/2", b"exp", b"log", b"sum", b"0:f32", b"1:i64", b"arange", b"zeros", b"ones", b"resize h w -> y x bicubic",
    b"pad i -> j 2", b"...", b"1", b"0", b"2", b"99999999999999999999", b'"a b"', b"name::", b"#", b"# c", b"=", b"l in 0..3",
    b"\t", b"\r\n", b"\xc2\xa0", b"\xe2\x80\xae", b"\0", b"\xef\xbb\xbf", b"part", b"other", b"true", b"false", b"(", b")",
    b"[", b"]", b"{", b"}", b"~",
)  # fmt: skip
SPLIT = by_pattern(
    rb'"(?:[^"\\]|\\.)*"|<->\??|->\??|<-\??|\n[ \t]*|[ \t]+|[A-Za-z_][A-Za-z_0-9]*|[0-9]+|\*\*|\.\.\.|[\[\](){}:,|+*%?#=.-]'
)


# --- plan: texts, tensors, config


def run_plan(data: bytes) -> None:
    """`morph %% second morph %% name spec, a line each %% {"config": …, "set": …, "files": …, "inverse": …}`."""
    parts = data.decode("utf-8", "replace").split("\n%%\n")
    if len(parts) != 4:
        return
    first, second, listed, said = parts
    try:
        given = json.loads(said)
        specs = {name: spec(text) for name, _, text in (line.rpartition(" ") for line in listed.splitlines())}
    except (ValueError, KeyError, RecursionError):
        return
    if not isinstance(given, dict) or not sane(specs, given):
        return
    config, sizes, files = (given.get(key) or {} for key in ("config", "set", "files"))
    texts = (
        (first, second) if second else (first,)
    )  # a morph may be empty; a plan of no morph is none that a command makes
    programs = [flatten(parse(text), load=loader(files), config=config) for text in texts]
    if given.get("inverse"):
        programs = [program.inverse for program in reversed(programs)]
    carry_out(programs, specs, config, sizes)


def sane(specs: Mapping[str, TensorSpec], given: Mapping[str, Any]) -> bool:
    """Not too large, and of the kinds that a command line makes sure of."""
    if not all(isinstance(given.get(key) or {}, dict) for key in ("config", "set", "files")):
        return False
    if not all(isinstance(text, str) for text in (given.get("files") or {}).values()):
        return False
    if not all(type(size) is int and 0 <= size < 10**18 for size in (given.get("set") or {}).values()):
        return False
    return len(specs) <= 40 and all(
        len(one.shape) <= 8 and all(0 <= size <= 64 for size in one.shape) and one.numel <= MOST_NUMEL
        for one in specs.values()
    )


def carry_out(programs: Sequence[Program], specs: Mapping[str, TensorSpec], config: Any, sizes: Any) -> None:
    """Plan, print, write and read the plan; carry it out, and hold what it makes against the second opinion."""
    source = ArrayCheckpoint(
        {name: numbered(one, 7 * index) for index, (name, one) in enumerate(specs.items())},
        dtypes={name: one.dtype for name, one in specs.items()},
    )
    plan = make_plan(programs, source.manifest, config=config, sizes=sizes)
    text = str(plan)
    if not all(line.isprintable() for line in text.split("\n")):
        raise Finding(f"a plan that a terminal would obey: {text!r}")
    try:
        if Plan.from_json(json.loads(json.dumps(plan.to_json()))).digest != plan.digest:
            raise Finding("a plan that is another one once written and read")
    except UsageError as error:
        raise Finding(f"a plan that cannot be read again: {error}") from error
    if sum(target.spec.nbytes for target in plan.targets.values()) > MOST_MADE:
        return
    made = {name: array.copy() for name, array in arrays(plan, source)}
    kinds = {name: target.spec.dtype for name, target in plan.targets.items()}
    target = ArrayCheckpoint({name: array.view(kinds[name].bits) for name, array in made.items()}, dtypes=kinds)
    report = verify(programs, source, target, config=config, sizes=sizes)
    if not report.equal and report.expected_elements:
        raise Finding(f"verify does not agree with the engine:\n{report}")


def numbered(one: TensorSpec, first: int) -> np.ndarray[Any, Any]:
    """Numbers from `first` on, as bits of the dtype."""
    values = np.arange(first, first + one.numel) % 100
    if one.dtype.kind == "bool":
        values = values % 2
    if one.dtype.kind == "opaque":
        return values.astype(np.uint8).view(one.dtype.bits).reshape(one.shape)
    return values.astype(one.dtype.numpy).view(one.dtype.bits).reshape(one.shape)


def case_text(case: Mapping[str, Any]) -> bytes:
    """A case as an input of `run_plan`."""
    listed = "\n".join(f"{name} {text}" for name, text in case.get("source", {}).items())
    given = {key: case[key] for key in ("config", "set", "files") if key in case}
    if case.get("direction") == "inverse":
        given["inverse"] = 1
    return "\n%%\n".join((case["morph"], case.get("then", ""), listed, json.dumps(given))).encode()


def plan_seeds() -> dict[str, bytes]:
    """Every sixth case; the corpus has what the others reach."""
    found = {case["name"]: case_text(case) for case in cases()[::6]}
    return {name: text for name, text in found.items() if len(text) <= 300}


PLAN_WORDS = (
    *WORDS,
    b"\n%%\n",
    b"f32[3,2]",
    b"i8[4]",
    b"bool[2]",
    b"f16[]",
    b"bf16[2,2]",
    b"f32[0]",
    b"w",
    b"w.0",
    b"w.1",
    b"u8[6]",
    b"f8e4m3[2]",
    b"c64[2]",
)

HARNESSES = [
    Harness("morph", run_morph, morph_seeds, pieces(SPLIT, WORDS, raw_share=0.3), max_nbytes=700),
    Harness("plan", run_plan, plan_seeds, pieces(SPLIT, PLAN_WORDS, raw_share=0.25), max_nbytes=400),
]
