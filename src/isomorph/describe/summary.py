"""A checkpoint's Manifest -> what `inspect` shows: the folded tree, the totals, and everything that is not a plain tensor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from isomorph.describe.folding import Branch, fold
from isomorph.describe.text import bytes_text, columns, count, escaped, listed, natural, shape_text
from isomorph.tensors import Manifest

MOST_LEAVES = 40
LONGEST_TEXT = 200

ENCODINGS = {
    "utf8-latin1": "as text inside the pickle, read by decoding it",
    "deflate": "compressed, read by unpacking it",
    "big": "big-endian",
}
"""How tensors can lie that are no plain run of their elements, in words."""


@dataclass(frozen=True)
class Summary:
    """What a checkpoint holds, counted from its headers.

    `parameters` counts the elements of floating, complex and opaque tensors (of items, those they hold), tensors on the same bytes
    once; `nbytes` counts every name.
    """

    title: str
    format: str
    manifest: Manifest
    file_nbytes: int | None = None

    @property
    def parameters(self) -> int:
        again = {name for group in self.manifest.shared for name in group[1:]}
        return sum(
            spec.numel * spec.dtype.elements
            for name, spec in self.manifest.items()
            if name not in again and spec.dtype.kind in ("float", "complex", "opaque")
        )

    @property
    def dtypes(self) -> dict[str, int]:
        """dtype -> how many tensors have it, the most common first."""
        return dict(Counter(str(spec.dtype) for spec in self.manifest.values()).most_common())

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def _repr_html_(self) -> str:
        from isomorph.describe.html import preformatted

        return preformatted(str(self))

    def lines(self, depth: int | None = None) -> Iterator[str]:
        """The whole summary, line by line; branches below `depth` levels are counted and not shown."""
        yield from self.head()
        yield from self.body(depth)

    def body(self, depth: int | None = None) -> Iterator[str]:
        """All below the first line: the tree, and what is not a plain tensor."""
        yield from tree_lines(self.manifest, depth)
        yield from self.foot()

    def head(self) -> Iterator[str]:
        manifest = self.manifest
        facts = [count(len(manifest), "tensor"), count(self.parameters, "parameter"), bytes_text(manifest.nbytes)]
        dtypes = self.dtypes
        facts.append(
            next(iter(dtypes))
            if len(dtypes) == 1
            else ", ".join(f"{number:,} {name}" for name, number in dtypes.items())
        )
        kind = f" · {self.format}" if self.format else ""
        yield f"{escaped(self.title)}{kind} · {' · '.join(fact for fact in facts if fact)}"

    def foot(self) -> Iterator[str]:
        manifest = self.manifest
        for group in manifest.shared:
            is_one = len({manifest[name] for name in group}) == 1 and not manifest.strided.intersection(group)
            said = (" = " if is_one else ", ").join(map(escaped, group))
            yield f"shared    {said}   ({'one copy of the bytes' if is_one else 'views of the same bytes'})"
        if manifest.strided:
            yield f"strided   {listed(sorted(manifest.strided, key=natural))}   (views that are not one run of bytes)"
        by_encoding: dict[str, list[str]] = {}
        for name, encoding in manifest.encodings.items():
            by_encoding.setdefault(encoding, []).append(name)
        for encoding, names in by_encoding.items():
            yield f"encoded   {', '.join(ENCODINGS.get(part, part) for part in encoding.split('+'))}: {listed(names)}"
        blocks = {spec.dtype for spec in manifest.values() if spec.dtype.block}
        for kind in sorted(blocks, key=str):
            box = " by ".join(map(str, kind.block))
            yield f"items     {kind}: {box} elements in {count(kind.nbytes, 'byte')}; shapes count items"
        if manifest.leaves:
            yield f"carries   {count(len(manifest.leaves), 'leaf that is no tensor', 'leaves that are no tensors')} (not converted)"
            shown = list(manifest.leaves.items())[:MOST_LEAVES]
            yield from columns([(escaped(name), escaped(value)) for name, value in shown], indent="          ")
            if len(manifest.leaves) > MOST_LEAVES:
                yield f"          and {len(manifest.leaves) - MOST_LEAVES:,} more (--json lists all)"
        for key, value in manifest.metadata.items():
            yield f"metadata  {escaped(key)} = {escaped(_shortened(value))}"
        for note in manifest.notes:
            yield f"note      {escaped(note)}"

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain data."""
        manifest = self.manifest
        return {
            "path": self.title,
            "format": self.format,
            "tensors": {
                name: {"dtype": str(spec.dtype), "shape": list(spec.shape), "nbytes": spec.nbytes}
                for name, spec in manifest.items()
            },
            "count": len(manifest),
            "parameters": self.parameters,
            "nbytes": manifest.nbytes,
            "dtypes": self.dtypes,
            "shared": [list(group) for group in manifest.shared],
            "strided": sorted(manifest.strided),
            "encodings": dict(manifest.encodings),
            "leaves": dict(manifest.leaves),
            "metadata": dict(manifest.metadata),
            "notes": list(manifest.notes),
        }


def _shortened(text: str) -> str:
    """A text of the metadata as it fits a line; what is written in base64 is only counted."""
    before, found, inside = text.partition(" base64:")
    if found and len(text) > LONGEST_TEXT:
        return f"{before} ({bytes_text(len(inside) * 3 // 4)})"
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + "…"


def tree_lines(manifest: Mapping[str, Any], depth: int | None = None) -> list[str]:
    """The folded tree as aligned lines: name, shape, dtype, how often, bytes in all."""
    rows: list[tuple[str, ...]] = []

    def add(branches: list[Branch], level: int, times: int) -> None:
        for branch in branches:
            number = times * branch.repeats
            name = "  " * level + escaped(branch.text)
            nbytes = bytes_text(branch.nbytes * number)
            deep = depth is not None and level + 1 >= depth
            if branch.spec is not None:
                many = f"× {number:,}" if number > 1 else ""
                own = bytes_text(branch.spec.nbytes * number)
                rows.append((name, shape_text(branch.spec.shape), str(branch.spec.dtype), own, many))
                if branch.children:
                    add(branch.children, level + 1, number)
            elif deep or not branch.children:
                rows.append((name + "**", "", "", nbytes, count(branch.tensors * number, "tensor")))
            else:
                rows.append((name, "", "", nbytes, count(branch.tensors * number, "tensor")))
                add(branch.children, level + 1, number)

    add(fold(dict(manifest)), 0, 1)
    return columns(rows)


def key_lines(manifest: Mapping[str, Any]) -> Iterator[str]:
    """The flat listing, sorted naturally: `name  [shape]  dtype`."""
    width = max((len(escaped(name)) for name in manifest), default=0)
    middle = max((len(shape_text(spec.shape)) for spec in manifest.values()), default=0)
    for name in sorted(manifest, key=natural):
        spec = manifest[name]
        yield f"{escaped(name):{width}}  {shape_text(spec.shape):{middle}}  {spec.dtype}"
