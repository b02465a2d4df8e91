"""Targets whose values do not say what they are -> relations by names, among the sources that their values allow.

Biases that are all zero, norms that are all one, copies: any of the candidates gives the target bit for bit, but only one is right
for weights that are trained. What the module's siblings do says which: `.bias` goes where `.weight` went, parts in the same order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from isomorph.infer.by_name.correspond import correspond
from isomorph.infer.by_name.correspondence import Link, Match
from isomorph.infer.by_name.facts import Facts
from isomorph.infer.by_name.members import members_of
from isomorph.infer.by_name.orientation import Member, Siblings, settled, siblings, turn_of
from isomorph.infer.by_name.questions import choice
from isomorph.infer.by_name.relatives import Relatives, kind, module
from isomorph.infer.by_name.transfer import transferred
from isomorph.infer.by_name.views import View, seen
from isomorph.infer.nouns import UNIT, Alternative, Dim, Filled, Part, Question, Relation, Silent, axis, copy_of
from isomorph.tensors import Manifest

MOST_CANDIDATES = 12
"""Of more sources, names that say nothing cannot ask."""


def placed_silent(
    source: Manifest,
    target: Manifest,
    facts: Facts,
    known: Sequence[Relation],
    silent: Sequence[Silent],
    told: Sequence[Relation],
) -> tuple[list[Relation], list[Question]]:
    """Each silent target in a relation, with a note, or in a question.

    `told` are relations of the catalogue about silent targets; those that the values deny are left out.
    """
    by_target = {one.target: one for one in silent}
    relatives = Relatives.of(known, source, target)
    found = [one for one in told if _allowed(one, by_target) and relatives.allows(one)]
    done = {name for relation in found for name in relation.targets}
    left = {name: one for name, one in by_target.items() if name not in done}
    questions: list[Question] = []
    for each in relatives.rounds(left) if left else ():
        more, asked = _seen_by_names(seen(each, relatives, source, target, (*known, *found), left), facts)
        found.extend(one for one in more if relatives.allows(one))
        questions.extend(
            one
            for one in asked
            if all(relatives.allows(relation) for way in one.alternatives for relation in way.relations)
        )
    if left:
        done.update(name for relation in found for name in relation.targets)
        done.update(name for question in questions for name in question.targets)
    used = {name for relation in (*known, *found) for name in relation.sources}
    used.update(name for question in questions for name in _sources(question))
    idle = _idle(source, known, silent, used)
    weak = [one for one in questions if sum(bool(way.relations) for way in one.alternatives) < 2]
    doubted = {name for one in weak for name in one.targets}
    rest = [one for name, one in left.items() if name not in done or name in doubted]
    last = _left_over(rest, source, target, idle | {name for one in weak for name in _sources(one)}, relatives)
    found.extend(last)
    done.update(name for relation in last for name in relation.targets)
    used.update(name for relation in last for name in relation.sources)
    settled_now = {name for relation in last for name in relation.targets}
    questions = [one for one in questions if settled_now.isdisjoint(one.targets)]
    for one in rest:
        if one.target not in done:
            relation, question = _alone(one, source, target, used, relatives, idle)
            found.extend([relation] if relation is not None else [])
            questions.extend([question] if question is not None else [])
    return found, questions


def _left_over(
    rest: Sequence[Silent], source: Manifest, target: Manifest, idle: frozenset[str], relatives: Relatives
) -> list[Relation]:
    """Targets for each of which one source is left that may be it, and which that source alone may be."""
    options = {
        one.target: {
            name
            for name in one.candidates
            if name in idle
            and source[name].shape == target[one.target].shape
            and relatives.near(name, one.target)
            and (kind(name) == kind(one.target) or "" in (kind(name), kind(one.target)))
        }
        for one in rest
        if one.value is not None
    }
    found: list[Relation] = []
    while True:
        claims = Counter(name for some in options.values() for name in some)
        sure = {name: next(iter(some)) for name, some in options.items() if len(some) == 1}
        sure = {name: held for name, held in sure.items() if claims[held] == 1}
        if not sure:
            return found
        for name, held in sure.items():
            note = "the one source of its values and its shape that is left"
            found.append(copy_of(held, name, target[name].shape, "names", note))
            del options[name]
        for some in options.values():
            some.difference_update(sure.values())


def _sources(question: Question) -> set[str]:
    return {name for way in question.alternatives for each in way.relations for name in each.sources}


def _idle(source: Manifest, known: Sequence[Relation], silent: Sequence[Silent], used: set[str]) -> frozenset[str]:
    """Sources of one value that nothing uses, though what is beside them in their modules is not left out."""
    constants = {name for one in silent if one.value is not None for name in (*one.alike, *one.candidates)}
    constants |= {name for one in silent if one.value is not None for each in one.relations for name in each.sources}
    placed = {name for relation in known for name in relation.sources}
    left_out = {
        module(name) for name in source if name not in constants and name not in placed and source[name].numel > 1
    }
    return frozenset(
        name for name in constants if name not in used and module(name) not in left_out and source[name].numel > 1
    )


def _allowed(relation: Relation, silent: Mapping[str, Silent]) -> bool:
    """Whether the values of silent targets allow a relation: it makes silent targets only, of candidates of one."""
    if not all(name in silent for name in relation.targets):
        return False
    held = {source for name in relation.targets for source in silent[name].candidates}
    return all(name in held for name in relation.sources)


def _seen_by_names(view: View, facts: Facts) -> tuple[list[Relation], list[Question]]:
    """What names say where sources are called as their relatives are; given back under their own names."""
    if not view.silent:
        return [], []
    found, questions = _by_names(view.source, view.target, facts, view.known, view.silent)
    return [view.original(one) for one in found], [view.asked(one) for one in questions]


def _by_names(
    source: Manifest, target: Manifest, facts: Facts, known: Sequence[Relation], left: Mapping[str, Silent]
) -> tuple[list[Relation], list[Question]]:
    sides = (source, target)
    allowed = {name: one.candidates for name, one in left.items() if one.candidates and one.value is None}
    used = {name for relation in known for name in relation.sources}
    corresponding = correspond(source, target, known=known, silent=allowed)
    around = siblings([], known, sides)
    of_module = {name: relation for relation in known for name in relation.targets}

    def forms(match: object) -> list[Member] | None:
        assert isinstance(match, Match)
        links = tuple(link for link in match.links if all(name in left for name in link.target_names))
        if not links or any(not _holds(link, left, used) for link in links):
            return None
        several = members_of(replace(match, links=links), sides, facts, (), False)
        if several is None:
            return None
        return [
            _likely(_as_known(settled(member, around, False), of_module, left, sides), around) for member in several
        ]

    found: list[Relation] = []
    for match in corresponding.matches:
        found.extend(_noted(member.forms[0].relation, left) for member in forms(match) or ())
    questions = []
    for each in corresponding.choices:
        if all(name in left[name].candidates for name in each.targets if name in left):
            continue  # both sides have these very names, and nothing else speaks for another source
        if all(name in left for name in each.targets):
            question, decided = choice(each, forms, around)
            found.extend(_noted(relation, left) for relation in decided)
            questions.extend([question] if question is not None else [])
    return found, questions


def _holds(link: Link, left: Mapping[str, Silent], used: set[str]) -> bool:
    """Whether values allow a link: its source is a candidate of its target. Candidates are tensors of one shape; those of fused and
    of stacked ones are any that no value has placed."""
    if _is_fused(link):
        return used.isdisjoint(link.source_names)
    return all(name in left[target].candidates for target in link.target_names for name in link.source_names)


def _is_fused(link: Link) -> bool:
    return len(list(link.source_names)) > 1 or len(list(link.target_names)) > 1


def _as_known(
    member: Member, of_module: Mapping[str, Relation], left: Mapping[str, Silent], sides: tuple[Manifest, Manifest]
) -> Member:
    """The member in the form that its values have (`Silent.relations`), or that the weight beside it has."""
    names = set(member.link.source_names)
    for target in member.link.target_names:
        given = [relation for relation in left[target].relations if set(relation.sources) == names]
        if given:
            turns = {form.turn for form in member.forms}
            best = [relation for relation in given if turn_of(relation) in turns] or given
            return replace(member, forms=(replace(member.forms[0], relation=best[0]),))
    like = transferred(list(member.link.source_names), list(member.link.target_names), of_module, sides)
    return member if like is None else replace(member, forms=(replace(member.forms[0], relation=like),))


def _likely(member: Member, around: Siblings) -> Member:
    """One form: any gives the same values, and most siblings' is the likeliest to be right."""
    turn = around.likely(member.kind)
    order = Counter(form.order for form in member.forms).most_common(1)[0][0]
    first = next((form for form in member.forms if form.turn == turn), member.forms[0])
    best = next((form for form in member.forms if form.turn == first.turn and form.order == order), first)
    return replace(member, forms=(best,))


def _noted(relation: Relation, left: Mapping[str, Silent]) -> Relation:
    values = {left[name].value for name in relation.targets if name in left}
    said = (
        "its values are equal to several sources'"
        if None in values
        else f"its values are all {', '.join(sorted(map(str, values)))}"
    )
    return replace(relation, evidence="names", note=f"placed by its name: {said}")


def _may_be_changed(relation: Relation, one: Silent, relatives: Relatives, idle: frozenset[str]) -> bool:
    (name,) = relation.sources if len(relation.sources) == 1 else ("",)
    return name in idle and relatives.near(name, one.target) and kind(name) == kind(one.target)


def _alone(
    one: Silent, source: Manifest, target: Manifest, used: set[str], relatives: Relatives, idle: frozenset[str]
) -> tuple[Relation | None, Question | None]:
    """A silent target that names do not place: made of its constant where no source is left for it, else asked."""
    shape = target[one.target].shape
    free = [
        name
        for name in one.candidates
        if name not in used and source[name].shape == shape and relatives.allows(copy_of(name, one.target, shape))
    ]
    constant = None
    if one.value is not None:
        dims: tuple[Dim, ...] = tuple(UNIT if size == 1 else axis(f"a{number}") for number, size in enumerate(shape))
        sizes = {f"a{number}": size for number, size in enumerate(shape) if size != 1}
        filled = Filled(one.value, dims, target[one.target].dtype)
        constant = Relation(
            (filled,),
            (Part((one.target,), dims),),
            sizes,
            evidence="constant",
            note="no source is left that could be it",
        )
    near = [each for each in one.relations if _may_be_changed(each, one, relatives, idle)]
    if constant is not None and not one.candidates and near and len(near) <= MOST_CANDIDATES:
        ways = [Alternative((constant,), f"from no source: all {one.value}")]
        ways += [Alternative((each,), f"{each.sources[0]}, changed by {each.operators[0].number}") for each in near]
        said = f"{one.target}: all its values are {one.value}, which no source holds; one that holds another may be changed"
        return None, Question(f"{one.target} source", "source", said, tuple(ways), 0, "it holds whatever the source is")
    if not free:
        if any(name in idle and relatives.near(name, one.target) for name in one.alike):
            constant = None  # sources that nothing uses may be parts of it
        held = [name for name in one.candidates if source[name].shape == shape]
        if constant is None and len(held) == 1:
            return copy_of(held[0], one.target, shape, "names", "placed by its values: no other source has them"), None
        return constant, None
    if one.target in free:
        return copy_of(one.target, one.target, shape, "names", "placed by its name, which both sides have"), None
    if len(free) > MOST_CANDIDATES:
        return None, None
    options = [Alternative((copy_of(name, one.target, shape, "names"),), f"from {name}") for name in free]
    if constant is not None:
        options.append(Alternative((constant,), f"from no source: all {one.value}"))
    if len(options) == 1:
        return options[0].relations[0], None
    text = f"{one.target}: its values are those of {len(free)} sources, and no name says which it is"
    return None, Question(f"{one.target} source", "source", text, tuple(options), None)
