"""Names are folded into a tree that loses nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from isomorph.describe.folding import fold, fold_lines, pieces
from isomorph.describe.summary import Summary, key_lines, tree_lines
from isomorph.describe.text import bytes_text, columns, escaped, natural, ranges
from isomorph.tensors import Manifest, TensorSpec, spec

names = st.lists(st.sampled_from(["a", "b", "0", "1", "2", "10", "layer_3", "", "x\x1b"]), min_size=1, max_size=5).map(
    ".".join
)
manifests = st.dictionaries(names, st.sampled_from([spec("f32[2,3]"), spec("f16[2]"), spec("i64[]")]), max_size=30)


def layers(number: int, odd: int | None = None) -> dict[str, TensorSpec]:
    return {
        f"enc.layers.{layer}.{name}": spec("f16[4]" if layer == odd else "f32[4]")
        for layer in range(number)
        for name in ("weight", "bias")
    }


@given(manifests)
def test_every_tensor_is_counted_once(tensors: dict[str, TensorSpec]) -> None:
    """The tree holds as many tensors, elements and bytes as the manifest."""
    branches = fold(tensors)
    assert len(tensors) == sum(branch.tensors * branch.repeats for branch in branches)
    assert sum(one.numel for one in tensors.values()) == sum(branch.numel * branch.repeats for branch in branches)
    assert sum(one.nbytes for one in tensors.values()) == sum(branch.nbytes * branch.repeats for branch in branches)


@given(names)
def test_pieces_join_to_the_name(name: str) -> None:
    """Cutting a name loses nothing."""
    assert name == "".join(pieces(name))


def test_a_name_of_very_many_pieces_is_cut_into_few() -> None:
    """A hostile name does not make a deep tree."""
    assert len(pieces("." * 100_000)) <= 60


def test_equal_layers_are_one_line() -> None:
    """24 layers read as one, in natural order."""
    assert [branch.text for branch in fold(layers(24))] == ["enc.layers.{0..23}."]


def test_a_layer_that_differs_stands_out() -> None:
    """The odd layer has a line of its own; the others are still one."""
    (branch,) = fold(layers(6, odd=3))
    assert [child.text for child in branch.children] == ["{0..2,4,5}.", "3."]


def test_numbers_after_an_underscore_fold_too() -> None:
    """Flax writes `layers_0`."""
    (branch,) = fold({f"layers_{number}/kernel": spec("f32[2]") for number in range(3)})
    assert branch.text == "layers_{0..2}/kernel"


def test_natural_order() -> None:
    """Numbers in names are compared as numbers, and never fail to compare with words."""
    assert sorted(["h.10.w", "²", "h.x.w", "h.2.w"], key=natural) == ["h.2.w", "h.10.w", "h.x.w", "²"]


def test_ranges() -> None:
    """Runs of three are folded, pairs are not."""
    assert [
        ranges([0, 1, 2, 3]),
        ranges([5, 0, 1]),
        ranges([0, 1, 2, 4, 5, 6]),
        ranges([7]),
    ] == ["0..3", "0,1,5", "0..2,4..6", "7"]


def test_bytes_are_said_in_three_digits() -> None:
    """Decimal units."""
    assert [
        bytes_text(nbytes)
        for nbytes in (0, 999, 1000, 12_300_000, 1_711_000_000, 123_000_000_000, 4_500_000_000_000_000)
    ] == ["0 B", "999 B", "1.00 kB", "12.3 MB", "1.71 GB", "123 GB", "4500 TB"]


def test_names_from_files_cannot_speak_to_the_terminal() -> None:
    """Control characters, line breaks and bidirectional overrides are spelled out."""
    assert [
        escaped("a\x1b[31m"),
        escaped("a\nb"),
        escaped("a\u202eb"),
        escaped("größe"),
    ] == ["a\\x1b[31m", "a\\nb", "a\\u202eb", "größe"]


def test_columns_are_never_cut() -> None:
    """A long cell pushes the others; it is not shortened."""
    long = "x" * 500
    assert [f"  {long}  1", f"  {'y':500}  2"] == columns([(long, "1"), ("y", "2")])


def test_the_summary_counts_shared_bytes_once() -> None:
    """Tied tensors are one set of parameters; both names count as tensors."""
    manifest = Manifest({"a": spec("f32[10]"), "b": spec("f32[10]"), "n": spec("i64[3]")}, shared=(("a", "b"),))
    summary = Summary("m.bin", "torch_zip", manifest)
    assert (len(manifest), summary.parameters) == (3, 10)
    assert "shared    a = b   (one copy of the bytes)" in str(summary).splitlines()
    assert str(summary).startswith("m.bin · torch_zip · 3 tensors · 10 parameters · 104 B · 2 f32, 1 i64")


def test_what_is_no_tensor_is_listed() -> None:
    """Leaves, notes, encodings and strided tensors each have their line."""
    manifest = Manifest(
        {"a": spec("f32[10]")},
        leaves={"epoch": "int 3"},
        notes=("state_dict was entered",),
        encodings={"a": "deflate"},
        strided=frozenset({"a"}),
        metadata={"format": "pt"},
    )
    lines = list(Summary("m", "", manifest).foot())
    assert lines == [
        "strided   a   (views that are not one run of bytes)",
        "encoded   compressed, read by unpacking it: a",
        "carries   1 leaf that is no tensor (not converted)",
        "          epoch  int 3",
        "metadata  format = pt",
        "note      state_dict was entered",
    ]


def test_depth_counts_what_it_hides() -> None:
    """Below the depth, a branch is a count."""
    assert tree_lines(layers(3), depth=1) == ["  enc.layers.{0..2}.**      96 B  6 tensors"]


def test_the_flat_listing() -> None:
    """`name  [shape]  dtype`, sorted naturally."""
    assert list(key_lines({"h.10": spec("i64[]"), "h.2.w": spec("f32[2,3]")})) == [
        "h.2.w  [2 3]  f32",
        "h.10   []     i64",
    ]


def test_lines_fold_when_all_they_stand_for_are_there():
    """Every combination of the numbers, of which the same is said; else they are listed one by one."""
    square = [(f"l.{a}.e.{b}.w", "[2]") for a in range(2) for b in range(3)]
    assert [("l.{0..1}.e.{0..2}.w", "[2]", 6)] == fold_lines(square)
    assert square[1:] == [line[:2] for line in fold_lines(square[1:])]
    assert [("a.01", "x", 1), ("a.{2,10}", "x", 2)] == fold_lines([("a.01", "x"), ("a.2", "x"), ("a.10", "x")])
    assert [("a.#", "x", 1), ("a.1", "x", 1)] == fold_lines([("a.#", "x"), ("a.1", "x")])
    assert [] == fold_lines([])
