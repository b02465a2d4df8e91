"""The syntax tree of a morph, as written. Every node knows its span; spans and comments do not take part in the meaning.

    text ──parse──▶ Module(statements) ──flatten──▶ Rules (rules.py)
    Module ──unparse──▶ canonical text

Nodes are plain frozen data: they can be built by hand (`builder.py`), compared, and unparsed. Equality ignores spans.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal


@dataclass(frozen=True, slots=True)
class Span:
    """Where a node stands: 1-based line and columns; `end` is the column after the last character, on the same line."""

    line: int
    column: int
    end: int


NOWHERE = Span(0, 0, 0)


def _span() -> Span:
    return field(default=NOWHERE, compare=False, repr=False)


# ── expressions: `where`, `when`, `assert`, index holes ──────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Number:
    value: int
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Decimal:
    """`0.5` in a test: its digits as written."""

    text: str
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class String:
    value: str
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Boolean:
    value: bool
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Variable:
    """A bound axis, or a capture of a name (an index: its value; a label: its position from 0)."""

    name: str
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class ConfigPath:
    """`config.vision_config.hidden_size`: parts without the leading `config`."""

    parts: tuple[str, ...]
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Subscript:
    value: Expression
    index: Expression
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Length:
    value: Expression
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Negative:
    value: Expression
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Binary:
    """`operator` is one of `+ - * // %`."""

    operator: str
    left: Expression
    right: Expression
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class AxisProduct:
    """`(s j)` inside an index hole: the row-major number of several axes. Nowhere else."""

    axes: tuple[str, ...]
    span: Span = _span()


Expression = (
    Number | Decimal | String | Boolean | Variable | ConfigPath | Subscript | Length | Negative | Binary | AxisProduct
)


@dataclass(frozen=True, slots=True)
class Compare:
    """`operator` is one of `== != < <= > >=`."""

    operator: str
    left: Expression
    right: Expression
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Truth:
    """A config path used as a condition: `config.bias`."""

    value: ConfigPath
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Not:
    value: Test
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Both:
    """`operator` is `and` or `or`."""

    operator: str
    left: Test
    right: Test
    span: Span = _span()


Test = Compare | Truth | Not | Both


# ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Text:
    value: str
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Wildcard:
    """`*` (one piece) or `**` (`path`: any path)."""

    path: bool
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Hole:
    """`{...}` in a name, as written. Exactly one form holds:

    - piece  `{l}`         axis set, nothing else (`labels` None, `index` None, `path` False); `pad` may be set, then it is an index
    - path   `{x*}`        axis set, `path` True
    - labels `{p=q|k|v}`   `labels` set; `axis` is None for the axis-less `{=a|b}`
    - index  `{l+1}`, `{(s j)}`, `{config.n-1-l}`, `{config.n}`: `index` set to the expression, `axis` None

    `tied` is the leading `=`. `pad` is `"02"` for `:02` (any digit), `"_"` for `:_`, else None.
    """

    axis: str | None = None
    path: bool = False
    labels: tuple[str, ...] | None = None
    index: Expression | None = None
    pad: str | None = None
    tied: bool = False
    span: Span = _span()


Piece = Text | Wildcard | Hole


@dataclass(frozen=True, slots=True)
class Name:
    """A name pattern as written, without the prefixes of its blocks. Whether it is quoted is derived when it is written."""

    pieces: tuple[Piece, ...]
    span: Span = _span()


# ── terms ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Axis:
    name: str
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Integer:
    """An axis of that size, paired by value; `1` is a unit axis and no axis at all in pairing."""

    value: int
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Ellipsis:
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Product:
    factors: tuple[Dim, ...]
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Sum:
    """`(a b + c)`: one product or several. `(h d)` is a Sum of one Product."""

    summands: tuple[Product, ...]
    span: Span = _span()


Dim = Axis | Integer | Ellipsis | Sum


@dataclass(frozen=True, slots=True)
class Constant:
    """A number (`0`, `-1.5`, `inf`, `-inf`) or `arange`; `text` is as written, `dtype` a dtype name of the notation or None."""

    text: str
    dtype: str | None = None
    span: Span = _span()

    @property
    def is_arange(self) -> bool:
        return self.text == "arange"

    @property
    def value(self) -> Fraction | float:
        """The exact number; `float('inf')` or `-inf` for the infinities. (`-0.0` is `float` -0.0.)"""
        if self.text in ("inf", "-inf"):
            return float(self.text)
        number = Fraction(self.text)
        return -0.0 if number == 0 and self.text.startswith("-") else number


@dataclass(frozen=True, slots=True)
class Drop:
    """`drop` as a term: the tensor that goes nowhere."""

    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Term:
    """A head with its axes; `dims` None means no brackets at all, which is the same as `[...]`."""

    head: Name | Constant | Drop
    dims: tuple[Dim, ...] | None = None
    span: Span = _span()


# ── operators ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Op:
    """One value operator after a bar.

    `name` is `cast`, `neg`, `add`, `mul`, `exp`, `log`, `sum` or the name of a plug-in. For `cast`: `source` (a dtype name or
    `float`), `target`, `rounding` (True for `~>`), `saturate`. For `add`/`mul`: `number`. For plug-ins: `arguments` as written.
    `takes` and `makes`: an operator along axes, `resize h w -> y x`, replaces the first by the second, one by one; `"1"` in
    `makes` is a unit axis, which is none. `inverted` means: the inverse of this operator (set when a rule is read backward; never
    written in text).
    """

    name: str
    source: str | None = None
    target: str | None = None
    rounding: bool = False
    saturate: bool = False
    number: str | None = None
    arguments: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    makes: tuple[str, ...] = ()
    inverted: bool = False
    span: Span = _span()

    @property
    def reads(self) -> tuple[str, ...]:
        """The axes that it replaces in the reading direction."""
        return self.makes if self.inverted else self.takes

    @property
    def gives(self) -> tuple[str, ...]:
        """The axes that stand in their place, one by one."""
        return self.takes if self.inverted else self.makes


# ── statements ───────────────────────────────────────────────────────────────────────────────────────────────────────

Arrow = Literal["<->", "->", "<-"]


@dataclass(frozen=True, slots=True)
class Binding:
    axis: str
    value: Expression
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Comments:
    """Comment lines above a statement (`""` is a blank line kept between them) and the one at its end, without `#` and blank."""

    above: tuple[str, ...] = ()
    end: str | None = None


@dataclass(frozen=True, slots=True)
class Equation:
    """A rule: `left arrow right | operators where bindings`. `maybe` is the `?` after the arrow, `open` the `?` before the rule."""

    left: tuple[Term, ...]
    arrow: Arrow
    right: tuple[Term, ...]
    maybe: bool = False
    open: bool = False
    operators: tuple[Op, ...] = ()
    where: tuple[Binding, ...] = ()
    comments: Comments = Comments()
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class DropStatement:
    """`drop a, b`: one rule `term <-> drop` for each term (`maybe`: `drop?`)."""

    terms: tuple[Term, ...]
    maybe: bool = False
    comments: Comments = Comments()
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Scope:
    """`left <-> right:` with a block; either prefix may be empty."""

    left: Name
    right: Name
    body: tuple[Statement, ...]
    comments: Comments = Comments()
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Where:
    bindings: tuple[Binding, ...]
    comments: Comments = Comments()
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class OperatorLine:
    operators: tuple[Op, ...]
    comments: Comments = Comments()
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Use:
    file: str
    maybe: bool = False
    inverse: bool = False
    comments: Comments = Comments()
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Paths:
    left: str
    right: str
    comments: Comments = Comments()
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class When:
    test: Test
    body: tuple[Statement, ...]
    comments: Comments = Comments()
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Assert:
    test: Test
    comments: Comments = Comments()
    span: Span = _span()


Statement = Equation | DropStatement | Scope | Where | OperatorLine | Use | Paths | When | Assert


@dataclass(frozen=True, slots=True)
class Module:
    """One morph file. `source` is the text it was read from (empty when built), `file` its name for messages."""

    statements: tuple[Statement, ...]
    version: int | None = None
    header: Comments = Comments()
    footer: tuple[str, ...] = ()
    file: str = field(default="<morph>", compare=False)
    source: str = field(default="", compare=False, repr=False)
