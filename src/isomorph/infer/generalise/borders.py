"""Labels are whole words: `dense_{n=h_to_4h|4h_to_h}`, not `dense_{n=h_to_4|4h_to_}h`; `{n=attn|cross_attn}`, not
`{n=|cross_}attn`.

A hole that cuts a word takes the text around it into its labels, as far as the next mark; where a label is empty and the hole is no
piece of its own, as far as the piece goes. A word with a number behind it (`fc1`) may be cut between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from isomorph.infer.generalise.patterns import MARKS, SEPARATORS, Labels, Rule, Template, Token


def bordered(rule: Rule) -> Rule:
    """The rule with labels that are whole words, and a word that a label says twice as a hole that is there twice."""
    names = tuple(_twice(_widened(name)) for name in rule.names)
    return rule if names == rule.names else rule.with_names(names)


def _widened(name: Template) -> Template:
    found = list(name)
    at = 0
    while at < len(found):
        token = found[at]
        if isinstance(token, Labels):
            behind = _texts(found[at + 1 :])
            count = _reach(token.labels, behind)
            after = "".join(behind[:count])
            labels = tuple(label + after for label in token.labels)
            before = [text[::-1] for text in _texts(found[:at][::-1])]
            back = _reach([label[::-1] for label in labels], before, is_left=True)
            head = "".join(before[:back])[::-1]
            found[at - back : at + 1 + count] = [replace(token, labels=tuple(head + label for label in labels))]
            at -= back
        at += 1
    return tuple(found)


def _texts(tokens: Sequence[Token]) -> list[str]:
    """The texts up to the next hole, and "" where one stands there."""
    found: list[str] = []
    for token in tokens:
        if not isinstance(token, str):
            return [*found, ""]
        found.append(token)
    return found


def _reach(labels: Sequence[str], beside: Sequence[str], *, is_left: bool = False) -> int:
    """How many of the texts beside a hole belong to its labels; all are read from the hole outward."""
    if not beside or not _cuts(labels, beside[0], is_left):
        return 0
    marks = SEPARATORS if "" in labels else MARKS
    for count, text in enumerate(beside):
        if text == "":
            return 0  # another hole stands before the border
        if text in marks:
            return count
    return len(beside)


def _cuts(labels: Sequence[str], beside: str, is_left: bool) -> bool:
    """Whether a hole ends inside a word on this side."""
    if not beside:
        return False
    ends = {(label[0] if is_left else label[-1]) for label in _outward(labels, is_left) if label}
    if "" in labels:
        return beside not in SEPARATORS and not all(end in SEPARATORS for end in ends)
    if beside in MARKS or all(end in MARKS for end in ends):
        return False
    return not (is_left and beside[0].isalpha() and all(end.isdigit() for end in ends))


def _outward(labels: Sequence[str], is_left: bool) -> list[str]:
    """The labels as they are written (on the left they were turned round to be read outward)."""
    return [label[::-1] for label in labels] if is_left else list(labels)


def _twice(name: Template) -> Template:
    """`{s=encoder/encoder|decoder/decoder}` as `{s}/{s}`."""
    found: list[Token] = []
    for token in name:
        middle = _repeated(token.labels) if isinstance(token, Labels) and not token.tied else None
        if isinstance(token, Labels) and middle is not None:
            once = replace(token, labels=tuple(label[: (len(label) - len(middle)) // 2] for label in token.labels))
            found.extend((once, middle, once))
        else:
            found.append(token)
    return tuple(found)


def _repeated(labels: Sequence[str]) -> str | None:
    """The mark between two equal halves of every label."""
    middles = {label[len(label) // 2 : len(label) // 2 + 1] for label in labels}
    if len(middles) != 1 or not middles <= set(MARKS):
        return None
    halves = [(label[: len(label) // 2], label[len(label) // 2 + 1 :]) for label in labels]
    return middles.pop() if all(one == other and one for one, other in halves) else None
