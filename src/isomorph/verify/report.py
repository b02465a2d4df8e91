"""Report: what verify found, as facts; printed in a few lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from isomorph.errors import Gap, whole_line
from isomorph.tensors import TensorSpec

SHOWN = 10
NAMED = 4


@dataclass(frozen=True)
class Element:
    """One element that is not what it should be. `index` is its place in the target, `source` says where the value comes from."""

    index: tuple[int, ...]
    found: str
    expected: str
    source: str


@dataclass(frozen=True)
class Difference:
    """A target tensor that is not equal. `count` of its `numel` elements differ (0: `problem` says what is wrong instead)."""

    tensor: str
    numel: int
    count: int = 0
    first: Element | None = None
    problem: str | None = None
    cause: str | None = None

    def __str__(self) -> str:
        if self.first is None:
            lines = [whole_line(f"{self.tensor}: {self.problem}")]
        else:
            place = f"[{', '.join(map(str, self.first.index))}]"
            lines = [
                whole_line(f"{self.tensor}, {self.count:,} of {self.numel:,} elements"),
                whole_line(f"{place} is {self.first.found}, expected {self.first.expected} = {self.first.source}"),
            ]
        if self.cause is not None:
            lines.append(whole_line(f"cause     {self.cause}"))
        return "\n".join(lines)


@dataclass
class Report:
    """`equal` is True only when something was compared, all of it was, and nothing differed.

    `elements`, `tensors` and `nbytes` were compared, of `expected_elements`, `expected_tensors` and `expected_nbytes` that the
    morph makes. `problems` say why the morph does not apply to this source, or which check (tie, constant, exact cast) failed.
    `dropped` are the source names that go nowhere, `unmade` target names that cannot be made (they need a dropped block),
    `hints` say more of a missing name.
    """

    expected_tensors: int = 0
    expected_elements: int = 0
    expected_nbytes: int = 0
    tensors: int = 0
    elements: int = 0
    nbytes: int = 0
    checks: int = 0
    differences: list[Difference] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    problems: list[Gap] = field(default_factory=list)
    dropped: tuple[str, ...] = ()
    unmade: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    specs: Mapping[str, TensorSpec] = field(default_factory=dict)
    hints: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    rounding: int = 0
    one_way: int = 0

    @property
    def equal(self) -> bool:
        return (
            self.elements == self.expected_elements
            and self.tensors == self.expected_tensors
            and self.elements > 0
            and not (self.differences or self.missing or self.unexpected or self.problems)
        )

    @property
    def finds_nothing(self) -> bool:
        """True when the target has not one of the names that the morph makes."""
        return 0 < self.expected_tensors == len(self.missing)

    @property
    def wrong(self) -> int:
        """How many tensors are different, missing or unexpected."""
        return len(self.differences) + len(self.missing) + len(self.unexpected)

    def __bool__(self) -> bool:
        return self.equal

    def __str__(self) -> str:
        if self.equal:
            how_much = f"{self.elements:,} of {self.expected_elements:,} elements"
            line = f"verified  {how_much}, bit for bit, by the second path · {self.seconds:.1f} s"
            extra = [
                f"{count:,} {what}" for count, what in ((self.rounding, "rounded"), (self.one_way, "one-way")) if count
            ]
            return (
                line
                if not extra
                else f"{line}\n          {' and '.join(extra)} tensors compared with what the operators give"
            )
        lines: list[str] = []
        if self.problems:
            lines.append(
                f"NOT VERIFIED  {len(self.problems)} problem{'s' * (len(self.problems) != 1)} before or beside the comparison:"
            )
            lines += _indented([str(problem) for problem in self.problems], "problems")
        if self.wrong:
            lines += self._differences()
        if not lines:
            lines.append(
                f"NOT VERIFIED  nothing to compare: {self.tensors:,} of {self.expected_tensors:,} tensors, "
                f"{self.elements:,} of {self.expected_elements:,} elements"
            )
        else:
            lines.append(f"compared  {self.elements:,} of {self.expected_elements:,} elements · {self.seconds:.1f} s")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from html import escape

        return f'<pre style="white-space: pre; overflow-x: auto; line-height: 1.3">{escape(str(self))}</pre>'

    def _differences(self) -> list[str]:
        found = [(each.tensor, str(each)) for each in self.differences]
        found += [(name, whole_line(name) + ": missing from the target" + self._hint(name)) for name in self.missing]
        found += [(name, whole_line(name) + ": in the target, and nothing makes it") for name in self.unexpected]
        texts = _grouped(found)
        head = f"DIFFERENT {self.wrong:,} of {max(self.expected_tensors, self.wrong):,}: "
        if len(texts) == 1:
            first, *rest = texts[0].splitlines()
            return [head + first, *(line if line.startswith("cause") else f"          {line}" for line in rest)]
        return [head.rstrip(), *_indented(texts, "tensors")]

    def _hint(self, name: str) -> str:
        return "\n" + whole_line(self.hints[name]) if name in self.hints else ""

    def to_json(self) -> dict[str, Any]:
        """The facts, as plain data."""
        return {
            "equal": self.equal,
            "compared": {"tensors": self.tensors, "elements": self.elements, "bytes": self.nbytes},
            "expected": {
                "tensors": self.expected_tensors,
                "elements": self.expected_elements,
                "bytes": self.expected_nbytes,
            },
            "checks": self.checks,
            "differences": [
                {
                    "tensor": each.tensor,
                    "elements": each.numel,
                    "different": each.count,
                    "problem": each.problem,
                    "cause": each.cause,
                    "first": None
                    if each.first is None
                    else {
                        "index": list(each.first.index),
                        "found": each.first.found,
                        "expected": each.first.expected,
                        "source": each.first.source,
                    },
                }
                for each in self.differences
            ],
            "missing": list(self.missing),
            "unexpected": list(self.unexpected),
            "hints": dict(self.hints),
            "problems": [
                {"kind": problem.kind, "message": str(problem), "tensors": list(problem.tensors)}
                for problem in self.problems
            ],
            "dropped": list(self.dropped),
            "unmade": list(self.unmade),
            "notes": list(self.notes),
            "rounding": self.rounding,
            "one_way": self.one_way,
            "seconds": self.seconds,
        }


def _grouped(found: list[tuple[str, str]]) -> list[str]:
    """What is said of several tensors in the same words, once: `a, b, c and 84 more: its dtype is bf16, expected f32`."""
    alike: dict[str, list[str]] = {}
    causes: dict[str, str] = {}
    for name, text in found:
        said, cause, why = text.removeprefix(whole_line(name)).partition("\ncause ")
        alike.setdefault(said, []).append(whole_line(name))
        causes.setdefault(said, cause + why)
    return [
        ", ".join(names[:NAMED])
        + (f" and {len(names) - NAMED:,} more" if len(names) > NAMED else "")
        + said
        + causes[said]
        for said, names in alike.items()
    ]


def _indented(texts: list[str], what: str) -> list[str]:
    lines = [f"  {line}" for text in texts[:SHOWN] for line in text.splitlines()]
    if len(texts) > SHOWN:
        lines.append(f"  … and {len(texts) - SHOWN:,} more {what} (--json lists all)")
    return lines
