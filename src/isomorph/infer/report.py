"""Inference -> text and JSON. The morph first; then how much it covers and by what, what is asked, and what was proved."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from isomorph.errors import printable, whole_line
from isomorph.infer.nouns import Coverage, Draft, Evidence, Inference, Part, Question, Relation
from isomorph.plan.folding import fold_numbers, folded, template
from isomorph.tensors import Manifest, TensorSpec, dtype

MOST_SHOWN = 8
MOST_NEAR = 3
LONGEST_NAME = 100
MOST_PROBLEMS = 12
MOST_QUESTIONS = 12
WIDEST = 132
"""Characters of an alternative's words that are printed."""
SAMPLE = 3
"""Members of a class that the rules of an alternative are written from: more are no other rule."""
SCHEMA = 1

BY: Mapping[Evidence, str] = {
    "values": "by values",
    "constant": "constants",
    "catalogue": "by the catalogue",
    "function": "in function",
    "answer": "by answers",
    "names": "by names",
}


def text(inference: Inference, *, written: str | None = None) -> str:
    """What `isomorph infer` prints; `written` is the file that the morph went into, which then is not printed."""
    lines: list[str] = []
    if inference.text and written is None:
        lines += [*inference.text.rstrip("\n").split("\n"), ""]
    if written is not None:
        lines.append(_row("wrote", f"{written} · {_count(rules(inference.text), 'line')}"))
    lines += _covered(inference.coverage)
    lines += [_row("outlier", one.text) for one in inference.outliers[:MOST_PROBLEMS]]
    if len(inference.outliers) > MOST_PROBLEMS:
        lines.append(_row("", f"… and {len(inference.outliers) - MOST_PROBLEMS} more outliers (--json lists all)"))
    lines += _unplaced(inference)
    for number, question in enumerate(inference.questions[:MOST_QUESTIONS], 1):
        first, *more = question_lines(question)
        lines += [_row("question", f"{number}. {first}"), *(" " * 10 + line for line in more)]
    if len(inference.questions) > MOST_QUESTIONS:
        lines.append(_row("", f"… and {len(inference.questions) - MOST_QUESTIONS} more questions (--json lists all)"))
    lines += [_row("note", note) for note in inference.notes]
    for problem in inference.problems[:MOST_PROBLEMS]:
        first, *rest = problem.split("\n")
        lines += [_row("problem", first), *(" " * 10 + line for line in rest)]
    if len(inference.problems) > MOST_PROBLEMS:
        lines.append(_row("", f"… and {len(inference.problems) - MOST_PROBLEMS} more problems (--json lists all)"))
    lines.append(proof_line(inference))
    if inference.questions:
        lines.append(_row("next", _next(inference)))
    return "\n".join(whole_line(line) for line in lines)


def rules(text: str) -> int:
    """Lines that are no comment and not blank."""
    return sum(bool(line.strip()) and not line.lstrip().startswith("#") for line in text.split("\n"))


def question_lines(question: Question) -> list[str]:
    """A question with its alternatives, the likely one first; each keeps its own number. Then the key of its answer."""
    lines = [question.text]
    places = sorted(range(len(question.alternatives)), key=lambda place: place != question.likely)
    for place in places[:MOST_SHOWN]:
        likely = ""
        if place == question.likely:
            likely = f"   likely{f': {question.why}' if question.why else ''}"
        lines.append(f"  {place + 1}  {_cut(question.alternatives[place].words)}{likely}")
    if len(places) > MOST_SHOWN:
        lines.append(f"     … and {len(places) - MOST_SHOWN} more (--json lists all; in --ask, ?)")
    return [*lines, f"  key  {question.key}"]


def alternative_lines(question: Question) -> list[str]:
    """What each alternative means, as rules; and which tensors it is about."""
    lines = []
    for number, one in enumerate(question.alternatives, 1):
        lines += [f"  {number}  {one.words}", *("     " + line for line in _rules(one.relations).splitlines())]
    return [*lines, f"  of {listed(question.targets)}"]


def proof_line(inference: Inference) -> str:
    """What was proved, or in one line why nothing was."""
    seen = inference.coverage
    if not inference.text:
        by = "by values" if inference.by_values else "by names and shapes"
        return _row("nothing", f"of DST is in SRC {by}: 0 of {_count(seen.targets, 'tensor')} placed")
    if inference.problems:
        return "NOT PROVED  " + _count(len(inference.problems), "problem")
    if seen.verified is not None:
        whole = f"{seen.verified:,} of {seen.elements:,} elements bit for bit"
        said = f"plan total, read-back, {whole}"
    else:
        said = "plan total, read-back; no values were compared"
    if inference.questions:
        return _row("checked", f"{said}; questions taken {_taken(inference.questions)}")
    if seen.unplaced:
        return _row("checked", f"{said}; {_count(len(seen.unplaced), 'target')} not placed")
    return _row("proved", said)


def _taken(questions: Sequence[Question]) -> str:
    taken = {
        "as found" if one.kind == "outlier" else "as likely" if one.likely is not None else "by their first alternative"
        for one in questions
    }
    return " or ".join(sorted(taken))


def _next(inference: Inference) -> str:
    """How what is asked can be answered."""
    runs = "" if inference.by_values else ", --resolve trace (runs both models)"
    return f'--ask, --answers FILE ("KEY" = NUMBER a line){runs}; or keep one `? rule` of each question, without its ?'


def _cut(words: str) -> str:
    return words if len(words) <= WIDEST else words[: WIDEST - 1] + "…"


def _covered(seen: Coverage) -> list[str]:
    tensors = sum(count for count, _ in seen.placed.values())
    elements = sum(count for _, count in seen.placed.values())
    by = " · ".join(f"{count:,} {BY[evidence]}" for evidence, (count, _) in seen.placed.items())
    lines = [
        _row(
            "placed",
            f"{tensors:,} of {_count(seen.targets, 'tensor')}, {elements:,} of {_count(seen.elements, 'element')}"
            + (f": {by}" if by else ""),
        )
    ]
    if seen.asked[0]:
        lines.append(
            _row("asked", f"{seen.asked[0]:,} of {_count(seen.targets, 'tensor')}, {_count(seen.asked[1], 'element')}")
        )
    if seen.dropped and seen.placed:
        lines.append(
            _row(
                "dropped",
                f"{len(seen.dropped):,} of {_count(seen.sources, 'source')}: {_folded(seen.dropped)}",
            )
        )
    return lines


def _folded(names: Sequence[str]) -> str:
    shown = folded(names)
    more = f" … and {len(shown) - MOST_SHOWN:,} more kinds" if len(shown) > MOST_SHOWN else ""
    return " · ".join(map(_name, shown[:MOST_SHOWN])) + more


def _unplaced(inference: Inference) -> list[str]:
    names = inference.coverage.unplaced
    if not names:
        return []
    lines = [_row("unplaced", f"{_count(len(names), 'target')}: {listed(names)}")]
    near: dict[str, list[str]] = {}
    for name in names:
        if name in inference.approximate:
            near.setdefault(template(name), []).append(name)
    for alike in list(near.values())[:MOST_NEAR]:
        others = f"   ({_count(len(alike), 'tensor')} alike)" if len(alike) > 1 else ""
        lines.append(f"{'':<10}{_name(alike[0])} ~ {inference.approximate[alike[0]]}{others}")
    if len(near) > MOST_NEAR:
        lines.append(f"{'':<10}… and {len(near) - MOST_NEAR} more kinds (--json lists all)")
    return lines


def listed(names: Sequence[str]) -> str:
    """Names that differ in numbers alone as one, of many the first: `layers.{0..23}.norm.weight 24, head.bias`."""
    classes: dict[str, list[str]] = {}
    for name in names:
        classes.setdefault(template(name), []).append(name)
    shown = [f"{_name(fold_numbers(one))}{f' {len(one):,}' if len(one) > 1 else ''}" for one in classes.values()]
    more = f" … and {len(shown) - MOST_SHOWN:,} more classes" if len(shown) > MOST_SHOWN else ""
    return ", ".join(shown[:MOST_SHOWN]) + more


def _name(name: str) -> str:
    return printable(name, LONGEST_NAME)


def _row(word: str, said: str) -> str:
    return f"{word:<9} {said}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def to_json(inference: Inference) -> dict[str, Any]:
    """Plain data, in the same form from release to release (`schema` counts changes):

        schema      1
        by_values   both sides had values that were compared
        proved      all is placed, nothing asked, and the proof holds
        morph       its text; "" where nothing was placed
        coverage    targets, elements, sources; placed: {evidence: {tensors, elements}}; asked: {tensors, elements};
                    unplaced, dropped: names; verified: elements compared bit for bit, or null
        questions   key, kind, text, targets, likely (a number or null), why, answer (null), alternatives: number, words, rules
        evidence    of each relation: sources, targets, evidence, note
        outliers    target, text
        approximate {unplaced target: what its values are nearest to}
        notes, problems    texts
        report      the verifier's, or null

    The document is a file of answers too: fill in the `answer` of a question with the number of an alternative, and give the file
    to `--answers`.
    """
    seen = inference.coverage
    return {
        "schema": SCHEMA,
        "by_values": inference.by_values,
        "proved": inference.is_proved,
        "morph": inference.text,
        "coverage": {
            "targets": seen.targets,
            "elements": seen.elements,
            "sources": seen.sources,
            "placed": {key: {"tensors": one, "elements": many} for key, (one, many) in seen.placed.items()},
            "asked": {"tensors": seen.asked[0], "elements": seen.asked[1]},
            "unplaced": list(seen.unplaced),
            "dropped": list(seen.dropped),
            "verified": seen.verified,
        },
        "questions": [_question(one) for one in inference.questions],
        "evidence": [
            {
                "sources": list(one.sources),
                "targets": list(one.targets),
                "evidence": one.evidence,
                "note": one.note,
            }
            for one in inference.evidence
        ],
        "outliers": [{"target": one.target, "text": one.text} for one in inference.outliers],
        "approximate": dict(inference.approximate),
        "notes": list(inference.notes),
        "problems": list(inference.problems),
        "report": None if inference.report is None else _plain(inference.report.to_json()),
    }


def _question(one: Question) -> dict[str, Any]:
    return {
        "key": one.key,
        "kind": one.kind,
        "text": one.text,
        "targets": list(one.targets),
        "likely": None if one.likely is None else one.likely + 1,
        "why": one.why,
        "answer": None,
        "alternatives": [
            {"number": number, "words": each.words, "rules": _rules(each.relations)}
            for number, each in enumerate(one.alternatives, 1)
        ],
    }


def _rules(relations: Sequence[Relation]) -> str:
    """Relations as rules of the notation, with holes where several are alike. Dtypes do not show in rules; f32 stands for all."""
    from isomorph.infer.generalise import generalise
    from isomorph.language.unparse import unparse

    classes: dict[str, list[Relation]] = {}
    for one in relations:
        classes.setdefault(template(one.targets[0]), []).append(one)
    relations = [one for alike in classes.values() for one in alike[:SAMPLE]]
    sides = tuple(
        Manifest(
            {
                name: TensorSpec(dtype("f32"), one.shape(part))
                for one in relations
                for part in (one.right if is_target else one.left)
                if isinstance(part, Part)
                for name in part.every
            }
        )
        for is_target in (False, True)
    )
    text = unparse(generalise(Draft(tuple(relations)), *sides))
    return "\n".join(line for line in text.split("\n") if line.strip() and not line.lstrip().startswith("#"))


def _plain(value: Any) -> Any:
    """Numbers that are not finite as texts: JSON has none."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
