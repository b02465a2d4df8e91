"""parse and unparse undo each other."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from isomorph.language import tree
from isomorph.language.parse import parse
from isomorph.language.unparse import unparse

axis = st.sampled_from(["h", "d", "i", "layer", "x1", "_k"])
text = st.text(alphabet='ab.1:/#| "[]{}\\,*<>-é', min_size=1, max_size=6)
label = st.text(alphabet="ab.1=-", max_size=3)


def expressions(names: st.SearchStrategy[tree.Expression]) -> st.SearchStrategy[tree.Expression]:
    leaf = st.one_of(
        st.builds(tree.Number, st.integers(0, 10**9)),
        names,
        st.builds(tree.ConfigPath, st.lists(st.sampled_from(["a", "hidden", "0"]), min_size=1, max_size=3).map(tuple)),
    )
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.builds(tree.Binary, st.sampled_from(["+", "-", "*", "//", "%"]), inner, inner),
            st.builds(tree.Negative, inner),
            st.builds(tree.Length, inner),
            st.builds(tree.Subscript, inner, inner),
        ),
        max_leaves=5,
    )


variable = st.builds(tree.Variable, axis)
value = st.one_of(
    expressions(variable),
    st.builds(tree.String, st.text('ab\\" #', max_size=4)),
    st.builds(tree.Boolean, st.booleans()),
)
truth = st.just(tree.Truth(tree.ConfigPath(("bias",))))
atom = st.one_of(
    truth,
    st.builds(tree.Not, truth),
    st.builds(tree.Compare, st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), value, value),
)


def _chained(operator: str, parts: list[tree.Test]) -> tree.Test:
    found = parts[0]
    for part in parts[1:]:
        found = tree.Both(operator, found, part)
    return found


all_of = st.lists(atom, min_size=1, max_size=3).map(lambda parts: _chained("and", list(parts)))
tests = st.lists(all_of, min_size=1, max_size=3).map(lambda parts: _chained("or", parts))

constant_offset = st.one_of(st.builds(tree.Number, st.integers(0, 99)), st.just(tree.ConfigPath(("n",))))
index = st.one_of(
    variable,
    constant_offset,
    st.builds(tree.Binary, st.sampled_from(["+", "-"]), variable, constant_offset),
    st.builds(
        tree.Binary, st.just("-"), st.builds(tree.Binary, st.just("-"), constant_offset, constant_offset), variable
    ),
    st.just(tree.AxisProduct(("s", "j"))),
    st.builds(
        tree.Binary, st.just("+"), st.just(tree.AxisProduct(("s", "j", "k"))), st.builds(tree.Number, st.integers(0, 9))
    ),
)
pad = st.sampled_from([None, "02", "05", "_"])
hole = st.one_of(
    st.builds(tree.Hole, axis=axis, tied=st.booleans(), pad=pad),
    st.builds(tree.Hole, axis=axis, path=st.just(True)),
    st.builds(tree.Hole, axis=axis, labels=st.lists(label, min_size=2, max_size=3).map(tuple), tied=st.booleans()),
    st.builds(
        tree.Hole,
        labels=st.lists(label.filter(lambda each: "=" not in each), min_size=2, max_size=3).map(tuple),
        tied=st.just(True),
    ),
    st.builds(tree.Hole, index=index, pad=pad),
)


def _joined(pieces: list[tree.Piece]) -> tree.Name:
    """Neighbouring texts as one, wildcards set apart: what a reader of text would give."""
    kept: list[tree.Piece] = []
    for piece in pieces:
        if kept and isinstance(piece, tree.Text) and isinstance(kept[-1], tree.Text):
            kept[-1] = tree.Text(kept[-1].value + piece.value)
        elif not (kept and isinstance(piece, tree.Wildcard) and isinstance(kept[-1], tree.Wildcard)):
            kept.append(piece)
    return tree.Name(tuple(kept))


def names(least: int) -> st.SearchStrategy[tree.Name]:
    piece = st.one_of(st.builds(tree.Text, text), st.builds(tree.Wildcard, st.booleans()), hole)
    words = st.sampled_from(
        ["drop", "where", "use", "12", "inf", "arange", "?", "|", "->", "0:", "a:", "isomorph", "drop?", "when"]
    )
    return st.one_of(
        st.lists(piece, min_size=least, max_size=4).map(_joined), words.map(lambda word: tree.Name((tree.Text(word),)))
    )


dim = st.recursive(
    st.one_of(st.builds(tree.Axis, axis), st.builds(tree.Integer, st.integers(1, 99))),
    lambda inner: st.builds(
        tree.Sum,
        st.lists(
            st.builds(tree.Product, st.lists(inner, min_size=1, max_size=3).map(tuple)), min_size=1, max_size=3
        ).map(tuple),
    ),
    max_leaves=6,
)
dims = st.one_of(st.none(), st.lists(dim, max_size=3).map(tuple), st.just((tree.Axis("o"), tree.Ellipsis())))
named = st.builds(tree.Term, names(1), dims)
constant = st.builds(
    tree.Constant,
    st.sampled_from(["0", "-1.5", "inf", "-inf", "arange", "2.6592"]),
    st.sampled_from([None, "f32", "bool", "f8e4m3"]),
)
term = st.one_of(named, st.builds(tree.Term, constant, dims), st.builds(tree.Term, st.just(tree.Drop()), dims))
side = st.lists(term, min_size=1, max_size=3).map(tuple)
op = st.one_of(
    st.sampled_from([tree.Op("neg"), tree.Op("exp"), tree.Op("log"), tree.Op("sum"), tree.Op("resize", arguments=("16", "bilinear")),
                     tree.Op("resize", arguments=("timm",), takes=("h", "w"), makes=("y", "1")), tree.Op("flip", takes=("h",), makes=("h",))]),
    st.builds(tree.Op, st.sampled_from(["add", "mul"]), number=st.sampled_from(["1", "-0.5"])),
    st.builds(
        tree.Op, st.just("cast"), source=st.sampled_from(["float", "f32"]), target=st.sampled_from(["bf16", "f8e4m3"]),
        rounding=st.booleans(), saturate=st.booleans(),
    ),
)  # fmt: skip
ops = st.lists(op, max_size=2).map(tuple)
bindings = st.lists(st.builds(tree.Binding, axis, expressions(variable)), min_size=1, max_size=2).map(tuple)
comments = st.builds(
    tree.Comments,
    st.lists(st.sampled_from(["a comment", "x <-> y", '"', "# more"]), max_size=2).map(tuple),
    st.sampled_from([None, "end", '"q']),
)
word = st.sampled_from([".", "/", "a b", "clip/hf", "pkg:x.morph", "inverse", '"', "#x", "::"])

plain = st.one_of(
    st.builds(
        tree.Equation, side, st.sampled_from(["<->", "->", "<-"]), side, st.booleans(), st.booleans(), ops,
        st.one_of(st.just(()), bindings), comments,
    ),
    st.builds(tree.DropStatement, st.lists(named, min_size=1, max_size=2).map(tuple), st.booleans(), comments),
    st.builds(tree.Where, bindings, comments),
    st.builds(tree.OperatorLine, st.lists(op, min_size=1, max_size=2).map(tuple), comments),
    st.builds(tree.Use, word, st.booleans(), st.booleans(), comments),
    st.builds(tree.Paths, word, word, comments),
    st.builds(tree.Assert, tests, comments),
)  # fmt: skip


def blocks(inner: st.SearchStrategy[tree.Statement]) -> st.SearchStrategy[tree.Statement]:
    body = st.lists(inner, min_size=1, max_size=3).map(tuple)
    return st.one_of(
        st.builds(tree.Scope, names(0), names(0), body, comments), st.builds(tree.When, tests, body, comments)
    )


modules = st.builds(
    tree.Module,
    st.lists(st.recursive(plain, blocks, max_leaves=4), max_size=4).map(tuple),
    st.sampled_from([None, 1]),
    footer=st.sampled_from([(), ("the end",)]),
)


@settings(max_examples=150, deadline=None)
@given(modules)
def test_what_is_written_reads_back_as_the_same_tree(module: tree.Module) -> None:
    """parse(unparse(module)) == module, for every tree that a text can stand for."""
    assert module == parse(unparse(module))


def test_comments_and_blank_lines_stay_where_they_are() -> None:
    """Canonical text keeps comments, and single blank lines between statements."""
    canonical = """\
# what this is
isomorph 1  # the notation

# heads
where h=2  # two

a. <-> b.:
  # inside
  x <-> y

  # before the last
  z <-> w  # end
# the end
"""
    assert canonical == unparse(parse(canonical))


def test_canonical_text_sets_one_blank_between_words() -> None:
    """Odd spacing, quotes that are not needed and indentation of any width become canonical."""
    assert "a. <-> :\n  x [o (h d)] <-> y [(h d) o] | f16 -> f32 where h=2\n" == unparse(
        parse('"a." <->:\n     "x"[o (h   d)]   <->  y[(h d) o]  |  f16  ->  f32   where  h = 2')
    )
