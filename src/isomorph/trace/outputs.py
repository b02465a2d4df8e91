"""Two runs -> which of the models' outputs are compared: by name, else where only one can be meant. Never by position."""

from __future__ import annotations

from collections.abc import Mapping

from isomorph.errors import UsageError, near_misses
from isomorph.trace.arrange import arrangements
from isomorph.trace.nouns import Array, Capture, Link
from isomorph.trace.pairing import settled

SYNONYMS = (
    ("last_hidden_state", "hidden_states", "hidden", "features", "encoded", "sequence_output"),
    ("pooler_output", "pooled", "pooled_output"),
    ("logits", "prediction_logits", "scores", "prediction_scores"),
    ("image_embeds", "image_features", "image_embeddings"),
    ("text_embeds", "text_features", "text_embeddings"),
    ("logits_per_image", "image_logits"),
    ("logits_per_text", "text_logits"),
)
"""Names of one thing."""


def output_links(
    reference: Capture, candidate: Capture, named: Mapping[str, str] | None, titles: tuple[str, str]
) -> tuple[tuple[Link, ...], tuple[str, ...]]:
    """Links of outputs, and what is said of outputs that are not compared.

    `named` maps reference names to candidate names. Raises UsageError when a name is not there, when shapes of outputs that `named`
    pairs do not go together, or when nothing can be compared.
    """
    left, right = dict(reference.outputs), dict(candidate.outputs)
    pairs: dict[str, str] = {}
    for one, other in (named or {}).items():
        for name, known, title in ((one, left, titles[0]), (other, right, titles[1])):
            if name not in known:
                raise UsageError(f"{title} has no output `{name}`{_meant(name, known)}. It has {_shown(known)}")
        if not _fits(left[one], right[other]):
            raise UsageError(
                f"output `{one}` of {titles[0]} is {list(left[one].shape)}, `{other}` of {titles[1]} is "
                f"{list(right[other].shape)}: they are not one tensor. Name others with outputs="
            )
        pairs[one] = other
    if not named:
        pairs.update(_by_name(left, right))
        pairs.update(_by_shape(left, right, pairs))
    if not pairs:
        raise UsageError(
            f"no output of the two models can be compared. {titles[0]} gives {_shown(left)}; {titles[1]} gives {_shown(right)}. "
            'Say which is which: outputs={"REFERENCE NAME": "CANDIDATE NAME"}'
        )
    order = {name: number for number, name in enumerate(reference.outputs)}
    others = {name: number for number, name in enumerate(candidate.outputs)}
    links = tuple(
        settled(
            Link("out", "", "", None, None, order[one], others[pairs[one]], (one, pairs[one])),
            left[one],
            right[pairs[one]],
        )
        for one in sorted(pairs, key=order.__getitem__)
    )
    alone = [f"`{name}` of {titles[0]}" for name in left if name not in pairs]
    alone += [f"`{name}` of {titles[1]}" for name in right if name not in pairs.values()]
    return links, tuple(f"output {one} is not compared: the other has none that is surely the same" for one in alone)


def _by_name(left: Mapping[str, Array], right: Mapping[str, Array]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in left:
        for other in (name, *(word for words in SYNONYMS if name in words for word in words)):
            if other in right and other not in found.values() and _fits(left[name], right[other]):
                found[name] = other
                break
    return {one: other for one, other in found.items() if one == other or not (one.isdigit() or other.isdigit())}


def _by_shape(left: Mapping[str, Array], right: Mapping[str, Array], pairs: Mapping[str, str]) -> dict[str, str]:
    """Outputs that no other on either side could be: their shapes are of one content, and no other's are."""
    ones = [name for name in left if name not in pairs]
    others = [name for name in right if name not in pairs.values()]
    can = {name: [other for other in others if _fits(left[name], right[other])] for name in ones}
    return {
        name: can[name][0]
        for name in ones
        if len(can[name]) == 1 and sum(can[name][0] in found for found in can.values()) == 1
    }


def _fits(one: Array, other: Array) -> bool:
    is_number = (one.dtype.kind in "fc") == (other.dtype.kind in "fc")
    return is_number and bool(arrangements(one.shape, other.shape))


def _shown(outputs: Mapping[str, Array]) -> str:
    return ", ".join(f"`{name}` {list(array.shape)}" for name, array in outputs.items()) or "nothing"


def _meant(name: str, known: Mapping[str, Array]) -> str:
    near = near_misses(name, known)
    return f" (did you mean {' or '.join(near)}?)" if near else ""
