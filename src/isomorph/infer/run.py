"""Two sides -> Inference. The whole of it, in order:

    values  match ──────┐            (both sides have values)
    names   propose ────┴─▶ Draft ──answers, decide, ask──▶ Draft ──generalise──▶ text ──check──▶ Inference

With values, names only place what values are silent about. Without them, what names cannot decide is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from isomorph.errors import MorphError
from isomorph.formats.base import Checkpoint
from isomorph.infer.answers import chosen
from isomorph.infer.by_name.propose import propose
from isomorph.infer.by_value.match import match
from isomorph.infer.check import Checked, Expected, check, holds, manifest
from isomorph.infer.coverage import coverage
from isomorph.infer.draft import decided, from_names, from_values, supposed, unsaid
from isomorph.infer.generalise import open_and_likely
from isomorph.infer.meter import Stage, metered
from isomorph.infer.nouns import Coverage, Draft, Inference, Matched, Outlier, Proposed, Question
from isomorph.infer.report import BY
from isomorph.infer.sayable import sayable, with_unsaid
from isomorph.language.morph import Morph
from isomorph.language.unparse import unparse
from isomorph.tensors import Manifest

Config = Mapping[str, Any] | None


@dataclass(frozen=True)
class Decision:
    """Questions that something else decided: key -> the place of the alternative, from 0; and why, in words."""

    places: Mapping[str, int]
    why: Mapping[str, str]
    notes: tuple[str, ...] = ()


Decide = Callable[[Draft], Decision]
Ask = Callable[[Question, int, int], "int | None"]
"""A question, its number and how many there are -> the number of an alternative from 1, or None: it stays open."""


def infer(
    source: Checkpoint | Manifest,
    target: Checkpoint | Manifest,
    *,
    names_only: bool = False,
    configs: tuple[Config, Config] = (None, None),
    answers: Mapping[str, int | str] | None = None,
    ask: Ask | None = None,
    decide: Decide | None = None,
    use_catalogue: bool = True,
    max_memory: int = 256 << 20,
    progress: Stage | None = None,
    title: Sequence[str] = (),
) -> Inference:
    """Write the morph from `source` to `target`, and hold it against both.

    A side without values (a Manifest), or `names_only`, makes it work by names, shapes and the catalogue. `configs` are those of
    the two sides; the morph may ask the source's. `answers` say which alternatives are right (from 1, or their words), `decide`
    tries the rest, `ask` asks a person. Raises UsageError for answers that fit no question, and what reading the files raises.
    """
    whole = manifest(target)
    (source, lost), (target, unmade) = sayable(source), sayable(target)
    sources, targets = manifest(source), manifest(target)
    found = _evidence(source, target, names_only, configs, use_catalogue, max_memory, progress)
    draft, notes = found.draft, list(found.notes)
    if answers:
        draft = decided(draft, chosen(draft.questions, answers), "answer", sources, targets)
    if decide is not None and draft.questions:
        decision = decide(draft)
        draft = decided(draft, decision.places, "function", sources, targets, decision.why)
        notes += decision.notes
    if ask is not None and draft.questions:
        asked = {one.key: ask(one, number, len(draft.questions)) for number, one in enumerate(draft.questions, 1)}
        given = {key: answer for key, answer in asked.items() if answer is not None}
        draft = decided(draft, chosen(draft.questions, given), "answer", sources, targets)
    seen = coverage(draft, sources, targets)
    made = Inference(
        "",
        seen,
        draft.questions,
        draft.relations,
        found.outliers,
        tuple(notes),
        approximate=found.approximate,
        by_values=found.by_values,
    )
    if draft.relations or draft.questions:
        if names_only:
            source, target = sources, targets
        places = supposed(draft)
        text, likely = _written(draft, places, sources, targets, configs[0], (*title, *_title(seen)))
        answered = decided(draft, places, "answer", sources, targets) if draft.questions else draft
        checked = _checked(text, likely, answered, found, source, target, configs[0], max_memory, progress)
        made = replace(
            made,
            text=text,
            coverage=replace(seen, verified=_counted(checked, draft, targets)),
            problems=checked.problems,
            report=checked.report,
        )
    return with_unsaid(made, (lost, unmade), whole)


def _counted(checked: Checked, draft: Draft, target: Manifest) -> int | None:
    """The elements that were compared; of those that are still asked for nothing is said, whatever was taken for the answer."""
    if checked.verified is None:
        return None
    asked = {name for one in draft.questions for name in one.targets if name in target}
    return checked.verified - sum(target[name].numel for name in asked)


@dataclass(frozen=True)
class _Found:
    """What the evidence came to, before anything was asked."""

    draft: Draft
    notes: tuple[str, ...] = ()
    outliers: tuple[Outlier, ...] = ()
    approximate: Mapping[str, str] = field(default_factory=dict)
    by_values: bool = True


def _evidence(
    source: Checkpoint | Manifest,
    target: Checkpoint | Manifest,
    names_only: bool,
    configs: tuple[Config, Config],
    use_catalogue: bool,
    max_memory: int,
    progress: Stage | None,
) -> _Found:
    sources, targets = manifest(source), manifest(target)
    if names_only or not (isinstance(source, Checkpoint) and isinstance(target, Checkpoint)):
        proposed = propose(sources, targets, configs=configs, use_catalogue=use_catalogue)
        return _Found(from_names(proposed, sources, targets), proposed.notes, by_values=False)
    matched = _matched(source, target, max_memory, progress)
    known = (*matched.relations, *(one.found for one in matched.outliers))
    proposed = (
        propose(sources, targets, configs=configs, known=known, silent=matched.silent, use_catalogue=use_catalogue)
        if matched.silent
        else Proposed(())
    )
    draft, notes = from_values(
        matched, proposed, sources, targets, lambda one: holds(one, source, target, max_memory=max_memory)
    )
    said = (*matched.notes, *proposed.notes, *notes, *_strangers(matched, draft, targets))
    return _Found(draft, tuple(dict.fromkeys(said)), matched.outliers, unsaid(matched, draft))


def _matched(source: Checkpoint, target: Checkpoint, max_memory: int, progress: Stage | None) -> Matched:
    with metered(progress, "reading", source.manifest.nbytes + target.manifest.nbytes) as read:
        return match(source, target, max_memory=max_memory, progress=read)


def _strangers(matched: Matched, draft: Draft, target: Manifest) -> list[str]:
    """A word on targets whose values are nowhere, where they hold most of the elements."""
    nowhere = frozenset(matched.unplaced)
    left = [name for name in draft.unplaced if name in nowhere]
    if 2 * sum(target[name].numel for name in left) <= target.numel:
        return []
    near = sum(name in matched.approximate for name in left)
    what = "other weights"
    if near:
        what = f"{near:,} are near a source and equal none, so DST is a copy that was trained further, or rounded otherwise"
    return [f"the values of {len(left):,} targets are nowhere in SRC: {what}. --names-only places by names and shapes"]


def _written(
    draft: Draft,
    places: Mapping[str, int],
    source: Manifest,
    target: Manifest,
    config: Config,
    title: Sequence[str],
) -> tuple[str, str]:
    """The text; and what is left of it when each question is answered as `places` say."""
    module, likely = open_and_likely(draft, source, target, config=config, title=title, places=places)
    return unparse(module), unparse(likely)


def _checked(
    text: str,
    likely: str,
    whole: Draft,
    found: _Found,
    source: Checkpoint | Manifest,
    target: Checkpoint | Manifest,
    config: Config,
    max_memory: int,
    progress: Stage | None,
) -> Checked:
    """The text as it is held against both sides; where questions are open, `likely`, which says `whole`: one answer to each."""
    targets = manifest(target)
    opened = () if text == likely else _unreadable(text)
    kept = {name for one in whole.relations for name in one.targets}
    differing = {
        name
        for one in found.outliers
        if one.expected is not None and one.found not in whole.relations
        for name in one.expected.targets
        if name in kept and not _stands(one, whole)
    }
    expected = Expected.of(whole, targets, differing)
    with metered(progress, "verifying", sum(targets[name].nbytes for name in expected.made)) as read:
        checked = check(likely, source, target, expected, config=config, max_memory=max_memory, progress=read)
    return replace(checked, problems=(*opened, *checked.problems))


def _stands(outlier: Outlier, draft: Draft) -> bool:
    """Whether an outlier's target is made as it was found."""
    return any(
        one.targets == outlier.found.targets and (one.left, one.right) == (outlier.found.left, outlier.found.right)
        for one in draft.relations
    )


def _unreadable(text: str) -> tuple[str, ...]:
    """What is wrong with a text whose open alternatives no plan takes."""
    try:
        Morph.parse(text, file="port.morph").check()
    except MorphError as refused:
        return tuple(str(gap) for gap in refused.gaps)
    return ()


def _title(seen: Coverage) -> list[str]:
    """What the morph rests on, for the comment at its top."""
    by = [f"{count:,} {BY[evidence]}" for evidence, (count, _) in seen.placed.items()]
    if seen.asked[0]:
        by.append(f"{seen.asked[0]:,} asked")
    if seen.unplaced:
        by.append(f"{len(seen.unplaced):,} not placed")
    return [f"inferred: {seen.targets:,} tensors: {', '.join(by)}"]
