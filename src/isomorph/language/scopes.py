"""Module -> Program: blocks, `use`, `when`, `paths`, `where` and `|` lines are carried to the rules they reach.

    flatten(module, load=…, config=…)     the rules that hold for this config; everything is checked, both branches of every `when`
    check(module, load=…)                 the same checks without a config

`load` turns the name after `use` into a Module. It may have two attributes: `beside(module)`, the loader for what that module uses,
and `names()`, the names it knows, for near misses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from isomorph.errors import Gap, MorphError, near_misses
from isomorph.language.checks import check_rule
from isomorph.language.expressions import evaluate, holds
from isomorph.language.resolve import (
    MOST_OPERATORS,
    Draft,
    DraftTerm,
    Frame,
    Level,
    Pattern,
    all_dims,
    bindings_of,
    rename_operator,
    rename_piece,
    resolve,
    variables_of,
)
from isomorph.language.rules import Origin, Program, Rule
from isomorph.language.tokens import DEFAULT_FILE, gap_at, snippet
from isomorph.language.tree import (
    Assert,
    Both,
    Compare,
    ConfigPath,
    Drop,
    DropStatement,
    Equation,
    Module,
    Name,
    Not,
    OperatorLine,
    Paths,
    Scope,
    Span,
    Statement,
    Term,
    Test,
    Truth,
    Use,
    When,
    Where,
)
from isomorph.language.unparse import expression_text, statement_text, term_text, test_text

WHAT_IS_USED = (
    "name a .morph file in this one's folder, a layout (family/layout: `isomorph layouts`), or package:path.morph"
)

Loader = Callable[[str], Module]

MOST_RULES = 20_000
MOST_USES = 1_000
DEEPEST_USE = 32
DEEPEST = 120
MOST_GAPS = 200


def flatten(module: Module, *, load: Loader | None = None, config: Mapping[str, object] | None = None) -> Program:
    """The rules of a morph, in order, for one config.

    Raises MorphError with every gap: `syntax`, `unpaired`, `tie` of any rule, `use` (missing, circular), `config` (a key that a
    `when` or an `assert` needs), `assert`. Sizes and indices keep their expressions: a key missing there is found later.
    """
    walk = _Walk(config if config is not None else {})
    rules = walk.rules(module, load)
    return Program(tuple(replace(rule, number=number) for number, rule in enumerate(rules)), module.file, module.source)


def check(module: Module, *, load: Loader | None = None) -> None:
    """Find what is wrong with a morph alone: no config, no tensor; every branch and every used file. Raises MorphError."""
    _Walk(None).rules(module, load)


@dataclass(frozen=True)
class _Place:
    """Where in the files a statement stands, and what holds there."""

    module: Module
    lines: tuple[str, ...]
    load: Loader | None
    mark: str
    levels: tuple[Level, ...]
    readers: tuple[Frame, ...]
    left: tuple[Pattern, ...]
    right: tuple[Pattern, ...]
    paths: tuple[str | None, str | None]
    active: bool
    files: tuple[str, ...]
    """The files being read, from the first to this one."""
    depth: int = 0
    """Blocks and files around a statement, all together."""


class _Walk:
    def __init__(self, config: Mapping[str, object] | None) -> None:
        self.config = config
        self.gaps: list[Gap] = []
        self.number = 0
        """Statements so far: what a line reaches is what comes after it."""
        self.uses = 0
        self.drafted = 0
        self.loaded: dict[tuple[int, str], tuple[Module, Loader | None] | None] = {}
        self.kept: list[object] = []
        """Loaders whose ids are keys of `loaded`."""

    def rules(self, module: Module, load: Loader | None) -> list[Rule]:
        place = _Place(module, _lines(module), load, "", (Level(),), (), (), (), (None, None), True, (module.file,))
        drafts = self._block(module.statements, place)
        found: list[Rule] = []
        for draft in drafts:
            if len(self.gaps) >= MOST_GAPS:
                break
            rule = resolve(draft, self.gaps)
            if rule is not None:
                self.gaps.extend(check_rule(rule))
                if draft.active:
                    found.append(rule)
        if self.gaps:
            raise MorphError(dict.fromkeys(self.gaps))
        return found

    # ── statements ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _block(self, statements: tuple[Statement, ...], place: _Place) -> list[Draft]:
        drafts: list[Draft] = []
        place = replace(place, depth=place.depth + 1)
        if place.depth > DEEPEST and statements:
            self._gap("use", f"blocks and used files nest deeper than {DEEPEST} levels", statements[0].span, place)
            return []
        for statement in statements:
            if len(self.gaps) >= MOST_GAPS:
                break
            self.number += 1
            match statement:
                case Equation():
                    drafts.extend(self._equation(statement, place))
                case DropStatement(terms):
                    for term in terms:
                        drafts.extend(self._drop(statement, term, place))
                case Scope(left, right, body):
                    inner = replace(
                        place,
                        left=place.left + _patterns(left, place, 0),
                        right=place.right + _patterns(right, place, 1),
                        levels=(Level(), *place.levels),
                    )
                    drafts.extend(self._block(body, inner))
                case When(test, body):
                    active = place.active and self._holds(test, statement.span, place)
                    drafts.extend(self._block(body, replace(place, levels=(Level(), *place.levels), active=active)))
                case Where(bindings):
                    for binding in bindings:
                        place.levels[0].bind(binding.axis, self.number, binding.value)
                case OperatorLine(operators):
                    for op in operators:
                        if op.takes:
                            message = f"`{op.name}` acts along axes, which are those of one rule"
                            self._gap(
                                "syntax", message, op.span, place, "write it at the end of the rule that has them"
                            )
                    held = place.levels[0].operators
                    if len(held) <= MOST_OPERATORS:  # one too many is enough for the rules below to be refused
                        held.extend((self.number, op) for op in operators)
                case Paths(left_separator, right_separator):
                    place = replace(place, paths=(left_separator, right_separator))
                case Assert(test):
                    self._assert(test, statement.span, place)
                case Use():
                    drafts.extend(self._use(statement, place))
        return drafts

    def _equation(self, rule: Equation, place: _Place) -> list[Draft]:
        own = Level()
        for binding in rule.where:
            own.bind(binding.axis, self.number, binding.value)
        text = _line_text(place, rule.span, rule)
        return self._draft(
            Draft(
                tuple(_term(term, place, 0) for term in rule.left),
                tuple(_term(term, place, 1) for term in rule.right),
                rule.arrow,
                _origin(place, rule.span, text),
                rule.span,
                rule.maybe,
                rule.open,
                tuple(rename_operator(op, place.mark) for op in rule.operators) + self._frame(place).operators(),
                (Frame(place.mark, (own, *place.levels), self.number), *place.readers),
                place.active,
            ),
            place,
        )

    def _drop(self, statement: DropStatement, term: Term, place: _Place) -> list[Draft]:
        if len(statement.terms) == 1:
            text = _line_text(place, statement.span, statement)
        else:
            text = f"drop{'?' if statement.maybe else ''} {term_text(term)}"
        return self._draft(
            Draft(
                (_term(term, place, 0),),
                (DraftTerm(Drop(), all_dims(None, ""), statement.span),),
                "<->",
                _origin(place, statement.span, text),
                statement.span,
                statement.maybe,
                False,
                self._frame(place).operators(),
                (self._frame(place), *place.readers),
                place.active,
            ),
            place,
        )

    def _draft(self, draft: Draft, place: _Place) -> list[Draft]:
        self.drafted += 1
        if self.drafted > MOST_RULES:
            if self.drafted == MOST_RULES + 1:
                self._gap("syntax", f"more than {MOST_RULES} rules", draft.span, place)
            return []
        return [draft]

    def _frame(self, place: _Place) -> Frame:
        return Frame(place.mark, place.levels, self.number)

    # ── tests ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _holds(self, test: Test, span: Span, place: _Place) -> bool:
        """Whether a `when` holds; a test that cannot be settled is a gap, and does not."""
        if self.config is None or not place.active:
            return False
        try:
            return holds(test, self._bound(test, place), self.config)
        except MorphError as refused:
            self._take(refused, span, place)
            return False

    def _assert(self, test: Test, span: Span, place: _Place) -> None:
        before = len(self.gaps)
        if self.config is None or not place.active or self._holds(test, span, place) or len(self.gaps) > before:
            return
        said = "; ".join(
            f"{expression_text(path)} is {value}" for path in _config_paths(test) if (value := self._shown_value(path))
        )
        self._gap(
            "assert", f"the morph is not for this config: {test_text(test)} does not hold", span, place, said or None
        )

    def _shown_value(self, path: ConfigPath) -> str:
        try:
            return snippet(repr(evaluate(path, {}, self.config or {})))
        except MorphError:
            return ""

    def _bound(self, test: Test, place: _Place) -> Mapping[str, int]:
        """The values of the names in a test that `where` binds."""
        frames = (self._frame(place), *place.readers)
        values: dict[str, int] = {}

        def value(axis: str, depth: int) -> None:
            found = bindings_of(axis, frames)
            if not found or depth > DEEPEST_USE:
                return
            for inner in variables_of(found[0]):
                if inner not in values:
                    value(inner, depth + 1)
            result = evaluate(found[0], values, self.config or {})
            if isinstance(result, int):
                values[axis] = result

        for name in _test_variables(test):
            value(name + place.mark, 0)
        return {axis.partition("'")[0]: found for axis, found in values.items()}

    # ── use ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _use(self, use: Use, place: _Place) -> list[Draft]:
        self.uses += 1
        if self.uses > MOST_USES or len(place.files) > DEEPEST_USE:
            if self.uses <= MOST_USES + 1:
                self._gap(
                    "use",
                    f"`use {snippet(use.file)}`: files use each other more than {MOST_USES} times or {DEEPEST_USE} deep",
                    use.span,
                    place,
                )
            return []
        mark = f"'{self.uses}"
        found = self._load(use, place)
        if found is None:
            return []
        module, load = found
        name = module.file if module.file != DEFAULT_FILE else use.file
        if name in place.files:
            circle = " uses ".join((*place.files[place.files.index(name) :], name))
            self._gap("use", f"files use each other in a circle: {circle}", use.span, place)
            return []
        inner = _Place(
            module, _lines(module), load, mark, (Level(),), (self._frame(place), *place.readers), (), (), (None, None),
            place.active, (*place.files, name), place.depth,
        )  # fmt: skip
        drafts = self._block(module.statements, inner)
        operators = self._frame(place).operators()
        if use.inverse:
            drafts = [draft.inverse for draft in drafts]
        return [draft.within(place.left, place.right, operators, use.maybe) for draft in drafts]

    def _load(self, use: Use, place: _Place) -> tuple[Module, Loader | None] | None:
        load = place.load
        key = (id(load), use.file)
        if key not in self.loaded:
            self.kept.append(load)
            self.loaded[key] = self._read(use, place, load)
        return self.loaded[key]

    def _read(self, use: Use, place: _Place, load: Loader | None) -> tuple[Module, Loader | None] | None:
        if load is None:
            self._gap(
                "use",
                f"`use {snippet(use.file)}`: a text on its own has no files beside it",
                use.span,
                place,
                "read the morph from a file, or give `load`",
            )
            return None
        try:
            module = load(use.file)
        except MorphError as refused:
            self._take(refused, use.span, place)
            return None
        except (LookupError, OSError):
            names = getattr(load, "names", None)
            near = near_misses(use.file[:200], names()) if callable(names) else ()
            hint = f"did you mean {' or '.join(f'`{each}`' for each in near)}?" if near else WHAT_IS_USED
            self._gap("use", f"there is no morph `{snippet(use.file)}` to use", use.span, place, hint)
            return None
        beside = getattr(load, "beside", None)
        return module, beside(module) if callable(beside) else load

    # ── gaps ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _gap(self, kind: str, message: str, span: Span, place: _Place, hint: str | None = None) -> None:
        self.gaps.append(
            gap_at(kind, message, place.module.file, span.line, _raw(place, span), span.column, span.end, hint)
        )

    def _take(self, refused: MorphError, span: Span, place: _Place) -> None:
        """Gaps from below: those that know neither file nor text are of this place."""
        for gap in refused.gaps:
            if gap.file is None and gap.text is None:
                where = Span(gap.line, gap.column or 0, gap.end or 0) if gap.line else span
                gap = gap_at(
                    gap.kind,
                    gap.message,
                    place.module.file,
                    where.line,
                    _raw(place, where),
                    where.column,
                    where.end,
                    gap.hint,
                    gap.details,
                )
            self.gaps.append(gap)


# ── from the tree ────────────────────────────────────────────────────────────────────────────────────────────────────


def _patterns(name: Name, place: _Place, side: int) -> tuple[Pattern, ...]:
    return tuple(Pattern(rename_piece(piece, place.mark), place.paths[side]) for piece in name.pieces)


def _term(term: Term, place: _Place, side: int) -> DraftTerm:
    if not isinstance(term.head, Name):
        return DraftTerm(term.head, all_dims(term.dims, place.mark), term.span)
    prefix = place.left if side == 0 else place.right
    return DraftTerm(prefix + _patterns(term.head, place, side), all_dims(term.dims, place.mark), term.span)


def _lines(module: Module) -> tuple[str, ...]:
    return tuple(line.removesuffix("\r") for line in module.source.removeprefix("\ufeff").split("\n"))


def _raw(place: _Place, span: Span) -> str | None:
    return place.lines[span.line - 1] if 0 < span.line <= len(place.lines) and place.module.source else None


def _line_text(place: _Place, span: Span, statement: Statement) -> str:
    raw = _raw(place, span)
    return raw[span.column - 1 : span.end - 1] if raw is not None else statement_text(statement)


def _origin(place: _Place, span: Span, text: str) -> Origin:
    raw = _raw(place, span)
    return Origin(place.module.file, span.line, text, raw if raw is not None else text)


def _config_paths(test: Test) -> Iterable[ConfigPath]:
    match test:
        case Truth(path):
            yield path
        case Not(value):
            yield from _config_paths(value)
        case Both(_, left, right):
            yield from _config_paths(left)
            yield from _config_paths(right)
        case Compare(_, left, right):
            yield from (side for side in (left, right) if isinstance(side, ConfigPath))


def _test_variables(test: Test) -> Iterable[str]:
    match test:
        case Not(value):
            yield from _test_variables(value)
        case Both(_, left, right):
            yield from _test_variables(left)
            yield from _test_variables(right)
        case Compare(_, left, right):
            yield from variables_of(left)
            yield from variables_of(right)
