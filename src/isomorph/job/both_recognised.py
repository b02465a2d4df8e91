"""Two state dicts -> the layouts that they are in, of one family where both may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from isomorph.errors import Gap, MorphError

if TYPE_CHECKING:
    from isomorph.layouts.recognise import Recognition
    from isomorph.tensors import Manifest

Config = Mapping[str, Any] | None


def both_recognised(
    reference: Manifest,
    candidate: Manifest,
    from_: str | None,
    configs: tuple[Config, Config],
) -> tuple[Recognition, Recognition]:
    """The layouts of both. Names that fit several families are read as of the one that the other side is of."""
    from isomorph.layouts.recognise import ambiguity

    first = _recognised(reference, "reference", configs[0], named=from_)
    second = _recognised(candidate, "candidate", configs[1])
    families = [_families(first), _families(second)]
    common = [name for name in families[0] if name in families[1]]
    if common and first.ambiguous and from_ is None:
        first = _recognised(reference, "reference", configs[0], within=common[0])
    if common and second.ambiguous:
        second = _recognised(candidate, "candidate", configs[1], within=common[0])
    for found, word, is_named in ((first, "reference", from_ is not None), (second, "candidate", False)):
        if found.ambiguous and not is_named:
            raise MorphError([*ambiguity(found).gaps, _unknown(word)])
    return first, second


def _families(found: Recognition) -> list[str]:
    layouts = [found.layout, *(layout for layout, _ in found.others if found.ambiguous)]
    return list(dict.fromkeys(layout.family.name for layout in layouts))


def _recognised(
    manifest: Manifest,
    word: str,
    config: Config,
    *,
    named: str | None = None,
    within: str | None = None,
) -> Recognition:
    from isomorph.layouts.catalogue import find
    from isomorph.layouts.recognise import recognise

    only = None if named is None else find(named)
    try:
        return recognise(manifest, config, only=only, within=within)
    except MorphError as refused:
        if config is not None:  # a model's own config may hold what its shapes do not
            return _recognised(manifest, word, None, named=named, within=within)
        raise MorphError([*refused.gaps, _unknown(word)]) from None


def _unknown(word: str) -> Gap:
    hint = "Give the morph between the two models: --morph M.morph (in Python morph=…)"
    return Gap("layout", f"the {word}'s state dict was not recognised, and no morph was given", hint=hint)
