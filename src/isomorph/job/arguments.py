"""SRC… DST… -> which is which: the last is the target, unless the morph writes outputs with names (`name::`)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from isomorph.errors import UsageError
from isomorph.job.inputs import Place
from isomorph.job.port import Port

SEPARATOR = "::"


def sources_and_targets(paths: Sequence[Place], port: Port) -> tuple[list[Place], list[Place]]:
    """Tell sources and targets apart. `name=PATH` goes to the side of the morph that has `name::`."""
    if len(paths) < 2:
        raise UsageError("a source and a target are needed:  SRC… DST")
    places = list(paths)
    if (port.morph is None and port.to is None) or len(places) == 2:
        return places[:-1], places[-1:]
    reads, writes = _named_of_layouts(port) if port.to is not None else _named_of_programs(port)
    if not writes:
        return places[:-1], places[-1:]
    if not reads:
        return places[:1], places[1:]
    first = next((at for at, one in enumerate(places) if at and _fits(writes, one) and not _fits(reads, one)), None)
    unnamed = [str(one) for one in places if not one.name]
    if first is None and unnamed:
        wanted = " ".join(f"{pattern.pattern.replace(chr(92), '')}=PATH" for pattern in writes)
        raise UsageError(
            f"the morph writes named checkpoints: give them as  {wanted}; without a name: {', '.join(unnamed)}"
        )
    if first is None:
        raise UsageError(
            "which are sources and which are targets? The morph reads and writes named checkpoints, and the names that were "
            "given fit both; give the outputs names of their own in the morph"
        )
    return places[:first], places[first:]


def _named_of_programs(port: Port) -> tuple[list[re.Pattern[str]], list[re.Pattern[str]]]:
    """What may stand before `::` in the names that a port reads, and in those that it writes."""
    programs = port.programs
    return (
        _patterns([term.head for rule in programs[0].rules for term in rule.left]),
        _patterns([term.head for rule in programs[-1].rules for term in rule.right]),
    )


def _named_of_layouts(port: Port) -> tuple[list[re.Pattern[str]], list[re.Pattern[str]]]:
    """The same of two layouts, of which the source's need not be known yet: a layout that is several files names them."""
    from isomorph.layouts.catalogue import find
    from isomorph.layouts.route import check_names

    assert port.to is not None
    within, source = check_names(port.to, port.from_)
    if within is None:
        return [], []  # layouts of several families have this name: none of them is several files
    found = []
    for layout in (source, find(port.to, within=within)):
        config = port.config or (layout.family.example if layout is not None else None)
        rules = [] if layout is None else [rule for one in layout.morph.programs(config) for rule in one.rules]
        found.append(_patterns([term.head for rule in rules for term in rule.left]))
    return found[0], found[1]


def _fits(patterns: Sequence[re.Pattern[str]], one: Place) -> bool:
    return any(pattern.fullmatch(one.name) for pattern in patterns)


def _patterns(heads: Sequence[object]) -> list[re.Pattern[str]]:
    """What may stand before `::` in these names, as patterns of ours (text is escaped; a hole is any piece)."""
    from isomorph.language.rules import FullName, LabelHole, Literal

    found: dict[str, None] = {}
    for head in heads:
        if not isinstance(head, FullName) or SEPARATOR not in "".join(
            piece.value for piece in head.pieces if isinstance(piece, Literal)
        ):
            continue
        text = ""
        for piece in head.pieces:
            if isinstance(piece, Literal):
                before, separator, _ = piece.value.partition(SEPARATOR)
                text += re.escape(before)
                if separator:
                    break
            elif isinstance(piece, LabelHole):
                text += "(?:" + "|".join(map(re.escape, piece.labels)) + ")"
            else:
                text += "[^/]+"
        found[text] = None
    return [re.compile(text) for text in found]
