"""The comments at the top of a layout -> Header: a title, and `key: value` lines for what its rules cannot say."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from isomorph.errors import MorphError, near_misses
from isomorph.language.expression_syntax import read_expression, read_test
from isomorph.language.expressions import holds
from isomorph.language.tokens import Cursor, Line, Unreadable
from isomorph.language.tree import Expression, Test

KEYS = ("source", "load", "config", "axis", "when", "format", "like", "base", "part", "inputs", "alias")
PLACES = ("path", "folder", "file", "keras", "torch", "paddle")
"""What a load line may ask for about the result, beside sizes: see job/load_line.py."""
_LINE = re.compile(r"#\s{2,}([a-z]+):\s+(.*\S)\s*")
_HOLE = re.compile(r"\{([A-Za-z_]\w*)\}")
_FACT = re.compile(r"([A-Za-z_][\w.]*)\s*=\s*(.*)")


@dataclass(frozen=True)
class Header:
    """What a layout states about itself.

    `loads` are the lines that load a result in its own library, those for models of certain sizes first
    (`load: create("ViT-L-14") when vision_layers == 24`), then those for any; `{PLACE}` in them is the result, `{axis}` a size.
    `facts` are hub config keys that weights cannot carry and this layout fixes (`vision_config.hidden_act`); `conditional` those
    that hold where a test of its own config does (`config: hidden_act = "gelu" when config.act == "gelu"`), the last of several.
    `axes` are sizes by the keys of its own config (`axis: heads = config.n_heads`). `like` are (layout, what decides): others with
    the same names; `when` tests what a checkpoint carries beside its tensors (`when: config.checkpoint_version >= 2`) and rules
    the layout out where it does not hold. `base` is the prefix that a model without a head is saved without. `parts` are the
    groups of the hub that it carries, empty for all. `inputs` says how several files are named. `aliases` are further names it may
    be asked for by.
    """

    title: str = ""
    sources: tuple[str, ...] = ()
    loads: tuple[tuple[str, Test | None], ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    conditional: tuple[tuple[str, Any, Test], ...] = ()
    axes: Mapping[str, Expression] = field(default_factory=dict)
    when: Test | None = None
    format: str | None = None
    like: tuple[tuple[str, str], ...] = ()
    base: str | None = None
    parts: tuple[str, ...] = ()
    inputs: str | None = None
    aliases: tuple[str, ...] = ()

    @property
    def load(self) -> str | None:
        """The line for a model of any size, as it is written; None where none is stated."""
        return next((text for text, test in self.loads if test is None), None)

    def load_for(
        self,
        sizes: Mapping[str, int],
        places: Mapping[str, str] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> str | None:
        """The first line that holds for these sizes and this config of the hub, sizes and places put in; None where there is none.

        A line that asks for a size or key that is not known, or a place that there is not, does not hold. Without `places`, they
        stay.
        """
        there = {name: f"{{{name}}}" for name in PLACES} if places is None else places
        known = {**{axis: str(size) for axis, size in sizes.items()}, **there}
        for text, test in self.loads:
            try:
                if (test is None or holds(test, sizes, config or {})) and all(
                    name in known for name in _HOLE.findall(text)
                ):
                    return _HOLE.sub(lambda hole: known[hole[1]], text)
            except MorphError:
                continue
        return None

    def denied_by(self, carried: Mapping[str, Any]) -> bool:
        """Whether what a checkpoint carries beside its tensors rules the layout out. What it does not carry rules out nothing."""
        if self.when is None:
            return False
        try:
            return not holds(self.when, {}, carried)
        except MorphError:
            return False

    def stated(self, config: Mapping[str, Any] | None) -> dict[str, Any]:
        """The facts that hold for this config, hub config key -> value. A test of a key that is not there does not hold."""
        found = dict(self.facts)
        for key, value, test in self.conditional:
            try:
                if holds(test, {}, config or {}):
                    found[key] = value
            except MorphError:
                continue
        return found


def read_header(text: str, file: str = "<morph>", *, strict: bool = False) -> Header:
    """Read the comment lines before the first statement. A key is indented by two blanks or more; other comments are prose.

    >>> read_header('# OpenAI CLIP\\n#   load: clip.load("{path}")\\na <-> b\\n').load
    'clip.load("{path}")'

    Raises ValueError, with file and line, for a line that cannot be read; where `strict`, for a key that does not exist too.
    """
    title = ""
    found: dict[str, list[str]] = {key: [] for key in KEYS}
    facts: dict[str, Any] = {}
    conditional: list[tuple[str, Any, Test]] = []
    loads: list[tuple[str, Test | None]] = []
    axes: dict[str, Expression] = {}
    decides: Test | None = None
    like: list[tuple[str, str]] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.startswith("#"):
            if line.strip():
                break
            continue
        match = _LINE.fullmatch(line)
        if match is not None and match[1] not in KEYS and strict:
            near = " or ".join(f"`{key}`" for key in near_misses(match[1], KEYS))
            meant = f"did you mean {near}?" if near else f"keys are {', '.join(KEYS)}; prose is not indented"
            raise ValueError(f"{file}:{number}: a header has no `{match[1]}`: {meant}")
        if match is None or match[1] not in KEYS:
            title = title or line.removeprefix("#").strip()
            continue
        key, value = match.groups()
        if key == "config":
            value, when, test = value.partition(" when ")
            fact = _FACT.fullmatch(value.strip())
            try:
                if fact is None:
                    raise ValueError("write  config: KEY = JSON  or  config: KEY = JSON when TEST")
                if when:
                    conditional.append((fact[1], json.loads(fact[2]), read_test(_cursor(number, test))))
                else:
                    facts[fact[1]] = json.loads(fact[2])
            except (ValueError, Unreadable) as error:
                raise ValueError(f"{file}:{number}: `{value.strip()}` is no fact ({error})") from None
        elif key == "load":
            line, when, test = value.partition(" when ")
            try:
                loads.append((line.strip(), read_test(_cursor(number, test)) if when else None))
            except Unreadable as error:
                raise ValueError(f"{file}:{number}: `{test}` is no test of sizes ({error})") from None
        elif key == "when":
            try:
                decides = read_test(_cursor(number, value))
            except Unreadable as error:
                raise ValueError(f"{file}:{number}: `{value}` is no test ({error})") from None
        elif key == "axis":
            axis, _, expression = value.partition("=")
            try:
                axes[axis.strip()] = read_expression(_cursor(number, expression))
            except Unreadable as error:
                raise ValueError(f"{file}:{number}: `{value}` is no size ({error})") from None
        elif key == "like":
            other, _, why = value.partition(":")
            if "/" not in other or not why.strip():
                raise ValueError(f"{file}:{number}: write  like: family/layout: what decides")
            like.append((other.strip(), why.strip()))
        else:
            found[key].append(value)
    last = {key: values[-1] if values else None for key, values in found.items()}
    return Header(
        title=title.rstrip("."),
        sources=tuple(found["source"]),
        loads=tuple(sorted(loads, key=lambda one: one[1] is None)),
        facts=facts,
        conditional=tuple(conditional),
        axes=axes,
        when=decides,
        format=last["format"],
        like=tuple(like),
        base=last["base"],
        parts=tuple(found["part"]),
        inputs=last["inputs"],
        aliases=tuple(found["alias"]),
    )


def _cursor(number: int, text: str) -> Cursor:
    cursor = Cursor(Line(number, text.rstrip(), 0, len(text.rstrip()), None))
    cursor.skip_blanks()
    return cursor
