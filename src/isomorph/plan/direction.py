"""A morph read in the wrong direction: the source is already what the morph makes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from isomorph.errors import Gap
from isomorph.language.rules import Program
from isomorph.plan.match import Matching, match_names
from isomorph.plan.stage import Config, Stage, make_stage
from isomorph.tensors import Manifest


def wrong_way(
    stage: Stage,
    matching: Matching,
    turned: Program,
    manifest: Manifest,
    config: Config,
    sizes: Mapping[str, int],
) -> Gap | None:
    """One gap that says so, when few or no tensors fit a left side and (nearly) all fit a right side; else None.

    `stage` and `matching` are the first stage as it was read; `turned` is the first program of the chain read the other way. What
    `drop` rules take says nothing about the direction.
    """
    here = _carried(stage, matching)
    if 2 * here > len(manifest):
        return None
    other = make_stage(turned, config, sizes)
    if other.gaps:
        return None
    found = match_names(other, manifest)
    there = _carried(other, found)
    if there <= here or 2 * there < len(manifest) or (here and not _is_whole(other, found)):
        return None
    total = len(manifest)
    all_of_them = f"all {total:,} fit" if there == total else f"{there:,} of {total:,} fit"
    fit = f"no tensor of SRC fits a left side, {all_of_them} a right side"
    if here:
        fit = f"only {here:,} of {total:,} tensors of SRC fit a left side, {all_of_them} a right side"
    if stage.program.is_inverse:
        fit = fit.replace("left side", "side that is read (--inverse)").replace("right side", "side that is written")
        advice = "SRC is already what the morph read backward makes. Leave out --inverse?"
    else:
        advice = "SRC is already the target layout. Did you mean --inverse?"
    details = [*_evidence(other, found), *(f"`{name}` fits neither side" for name in found.unmatched[:5])]
    file = stage.program.file
    return Gap(
        "unmatched",
        f"{fit}: {advice}",
        file=None if file == "<morph>" else file,
        details=tuple(details),
        tensors=tuple(manifest),
    )


def _carried(stage: Stage, matching: Matching) -> int:
    """How many tensors rules take that make something of them."""
    return sum(
        len(part)
        for number, groups in matching.groups.items()
        if stage.rules[number].makes and stage.rules[number].right
        for group in groups
        for part in group.parts
    )


def _is_whole(stage: Stage, matching: Matching) -> bool:
    """Every key has a rule, and every rule that must take one has taken one."""
    return not matching.unmatched and all(
        rule.number in matching.groups or not rule.left or rule.rule.maybe or rule.is_against for rule in stage.rules
    )


def _evidence(stage: Stage, matching: Matching) -> Iterator[str]:
    for number in sorted(matching.groups)[:3]:
        rule = stage.rules[number]
        part, held = next((k, part) for k, part in enumerate(matching.groups[number][0].parts) if part)
        yield f"`{next(iter(held.values()))}` fits  {rule.left[part].pattern.text}  (line {rule.rule.origin.line})"
