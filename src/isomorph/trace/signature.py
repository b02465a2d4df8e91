"""Two sides -> the inputs that both take: by the names of their forwards' parameters, and what those names usually mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from isomorph.errors import UsageError
from isomorph.trace.protocol import Side

Kind = Literal["tokens", "image", "features", "mask", "types", "flag"]
Key = str | int
"""A parameter's name, or its position where the side names none."""


@dataclass(frozen=True)
class Role:
    """What an input is for. `of` is the role of the tokens that a mask or types go with; `says` is its word in messages."""

    name: str
    kind: Kind
    says: str
    synonyms: tuple[str, ...]
    of: str = ""


TOKENS = Role("input_ids", "tokens", "tokens", (
    "input_ids", "ids", "tokens", "token_ids", "text", "texts", "input_tokens", "text_ids", "text_tokens", "idx", "src", "src_ids",
    "src_tokens", "word_ids", "encoder_input_ids", "encoder_ids", "encoder_tokens", "caption", "captions", "sentence", "source",
))  # fmt: skip
IMAGE = Role("pixel_values", "image", "images", (
    "pixel_values", "images", "image", "pixels", "img", "imgs", "picture", "pictures", "image_tensor", "visual",
))  # fmt: skip
FEATURES = Role("inputs_embeds", "features", "vectors", (
    "hidden_states", "hidden_state", "hidden", "hiddens", "features", "inputs_embeds", "embeddings", "embeds", "vectors", "h", "z",
))  # fmt: skip
MASK = Role("attention_mask", "mask", "a mask", (
    "attention_mask", "mask", "padding_mask", "pad_mask", "attn_mask", "input_mask", "text_mask", "token_mask", "key_padding_mask",
    "src_key_padding_mask", "encoder_mask", "encoder_attention_mask", "encoder_padding_mask", "src_padding_mask", "src_mask",
    "valid", "keep",
), of="input_ids")  # fmt: skip
TYPES = Role("token_type_ids", "types", "token types", (
    "token_type_ids", "segment_ids", "type_ids", "token_types", "segments", "types", "segment", "seg_ids", "segment_labels",
), of="input_ids")  # fmt: skip
DECODER = Role("decoder_input_ids", "tokens", "decoder tokens", (
    "decoder_input_ids", "decoder_ids", "decoder_tokens", "decoder_inputs", "decoder_input", "tgt", "tgt_ids", "tgt_tokens",
    "target_ids", "target_tokens", "target", "prev_output_tokens", "out_ids",
))  # fmt: skip
DECODER_MASK = Role("decoder_attention_mask", "mask", "a decoder mask", (
    "decoder_attention_mask", "decoder_mask", "decoder_padding_mask", "tgt_key_padding_mask", "tgt_padding_mask", "target_mask",
    "target_padding_mask",
), of="decoder_input_ids")  # fmt: skip
INTERPOLATE = Role("interpolate_pos_encoding", "flag", "whether positions are interpolated", (
    "interpolate_pos_encoding", "interpolate_positions", "interpolate",
))  # fmt: skip
ROLES = (TOKENS, IMAGE, FEATURES, MASK, TYPES, DECODER, DECODER_MASK, INTERPOLATE)
MAINS = (TOKENS, IMAGE, FEATURES)
"""What a model is run on; one of these must be common."""
UNSAID = ("x", "xs", "input", "inputs", "data", "batch", "args", "sample", "samples", "arg", "t")
"""Names of a main input that do not say what it is."""

_ROLE_OF = {synonym: role for role in ROLES for synonym in role.synonyms}

EXAMPLE = "numpy.savez('inputs.npz', NAME=array, …), then  --inputs inputs.npz  (in Python inputs={'NAME': array})"


def role_of(name: str) -> Role | None:
    """What a parameter of this name is for; None where the name does not say.

    >>> role_of("segment_ids").name, role_of("x")
    ('token_type_ids', None)
    """
    return _ROLE_OF.get(name.lower().lstrip("_"))


@dataclass(frozen=True)
class Signature:
    """What one side takes: its key for each role. `main` is the key of a main input whose name does not say what it is.

    `required` are the keys that must be given, `unknown` those of them that have no role. A side that names nothing has
    `is_positional`.
    """

    roles: Mapping[Role, Key]
    main: Key | None = None
    required: frozenset[Key] = frozenset()
    unknown: tuple[str, ...] = ()
    is_positional: bool = False


def signature(side: Side) -> Signature:
    """What a side takes, from the names of its forward's parameters."""
    takes = list(side.takes())
    if not takes:
        return Signature({}, is_positional=True)
    roles: dict[Role, Key] = {}
    for name, _ in takes:
        role = role_of(name)
        if role is not None:
            roles.setdefault(role, name)
    required = [name for name, must in takes if must]
    unnamed = [name for name in required if role_of(name) is None]
    main = next((name for name, must in takes if name.lower() in UNSAID and (must or name == takes[0][0])), None)
    if main is None and len(unnamed) == 1 and not any(role in roles and roles[role] in required for role in MAINS):
        main = unnamed[0]
    if main is not None and any(role in roles and roles[role] in required for role in MAINS):
        main = None
    unknown = tuple(name for name in unnamed if name != main)
    return Signature(roles, main, frozenset(required), unknown)


@dataclass(frozen=True)
class Input:
    """One input that is given: its role, and the key of each side; None for a side that does not take it."""

    role: Role
    reference: Key | None
    candidate: Key | None

    @property
    def is_common(self) -> bool:
        return self.reference is not None and self.candidate is not None


def common_inputs(reference: Side, candidate: Side, guess: Iterable[Role] = ()) -> list[Input]:
    """The inputs that both sides take, the main ones first, and those that one side must be given and whose neutral value is known.

    `guess` says what the main input is where neither side's names do; of several the first is taken. Raises UsageError where
    there is no main input in common, and where a side must be given what nobody can guess.
    """
    one, two = signature(reference), signature(candidate)
    for side, its in ((reference, one), (candidate, two)):
        if its.unknown:
            raise UsageError(
                f"{side.title} must be given `{'` and `'.join(its.unknown)}`, and what that is cannot be guessed. Give the inputs: "
                + EXAMPLE
            )
    mains = _mains(one, two, tuple(guess))
    if not mains:
        raise UsageError(
            f"no input in common: {reference.title} takes {_listed(reference)}; {candidate.title} takes {_listed(candidate)}. "
            f"Give the inputs, by the names of either side: {EXAMPLE}"
        )
    found = list(mains)
    given = {one.role.name for one in mains}
    for role in ROLES:
        if role in MAINS or role.name in given:
            continue
        keys = one.roles.get(role), two.roles.get(role)
        needed = keys[0] in one.required or keys[1] in two.required
        if role.kind == "tokens":
            if None not in keys:
                found.append(Input(role, *keys))
                given.add(role.name)
            elif needed:
                raise _one_sided(reference, candidate, role, keys)
        elif role.of in given or role.kind == "flag":
            if None not in keys or needed:
                found.append(Input(role, *keys))
        elif needed:
            raise _one_sided(reference, candidate, role, keys)
    return _numbered(found, one, two)


def _mains(one: Signature, two: Signature, guess: tuple[Role, ...]) -> list[Input]:
    if one.is_positional and two.is_positional:
        return [Input(role, 0, 0) for role in guess[:1]]
    both = [Input(role, one.roles[role], two.roles[role]) for role in MAINS if role in one.roles and role in two.roles]
    if any(main.role is not FEATURES for main in both):
        both = [main for main in both if main.role is not FEATURES]
    if both:
        return both
    for its, other, is_first in ((one, two, True), (two, one, False)):
        if other.main is None and not other.is_positional:
            continue
        own = [role for role in (TOKENS, IMAGE) if role in its.roles] or [
            role for role in (FEATURES,) if role in its.roles
        ]
        if other.main is not None and len(own) > 1:
            own = [role for role in own if role in guess[:1]]
        key: Key | None = other.main
        return [
            Input(role, its.roles[role], place if key is None else key)
            if is_first
            else Input(role, place if key is None else key, its.roles[role])
            for place, role in enumerate(own)
        ] or _guessed(one, two, guess)
    return []


def _guessed(one: Signature, two: Signature, guess: tuple[Role, ...]) -> list[Input]:
    """Neither side says what its main input is."""
    keys = [0 if its.is_positional else its.main for its in (one, two)]
    if None in keys or not guess:
        return []
    return [Input(guess[0], keys[0], keys[1])]


def is_unsaid(reference: Side, candidate: Side) -> bool:
    """True where neither side's names say what the main input is, so that somebody has to guess."""
    sides = [signature(side) for side in (reference, candidate)]
    return not any(role in its.roles for its in sides for role in MAINS) and all(
        its.is_positional or its.main is not None for its in sides
    )


def _numbered(found: list[Input], one: Signature, two: Signature) -> list[Input]:
    """A side that names nothing takes the inputs in their order."""
    numbered = []
    place = 0
    for given in found:
        keys = [
            (place if its.is_positional and given.role.kind != "flag" else key)
            for its, key in ((one, given.reference), (two, given.candidate))
        ]
        is_needed = given.role in MAINS or given.role.kind == "tokens" or not (one.is_positional or two.is_positional)
        if is_needed:
            numbered.append(Input(given.role, *keys))
            place += 1
    return numbered


def _one_sided(reference: Side, candidate: Side, role: Role, keys: tuple[Key | None, Key | None]) -> UsageError:
    takes, lacks = (reference, candidate) if keys[1] is None else (candidate, reference)
    key = keys[0] if keys[1] is None else keys[1]
    return UsageError(
        f"{takes.title} must be given `{key}` ({role.says}), which {lacks.title} does not take: it takes {_listed(lacks)}. "
        f"Wrap one of them so that both take the same, or give the inputs of each: {EXAMPLE}, with names such as "
        f"`reference::NAME` and `candidate::NAME`"
    )


def _listed(side: Side) -> str:
    return ", ".join(name for name, _ in side.takes()) or "what its code does not name"
