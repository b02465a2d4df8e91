"""Two models -> the inputs that both are run on: short, long, padded, images square and not; batched, all axis sizes distinct."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from isomorph.errors import UsageError
from isomorph.trace.drawing import Vocabulary, distinct, numbers, ragged
from isomorph.trace.facts import Facts
from isomorph.trace.masks import MaskForm, form_of
from isomorph.trace.nouns import Array
from isomorph.trace.protocol import Inputs, Side
from isomorph.trace.signature import (
    DECODER,
    EXAMPLE,
    FEATURES,
    IMAGE,
    TOKENS,
    Input,
    Key,
    Role,
    common_inputs,
    is_unsaid,
)
from isomorph.trace.trial import found_by_trial

LONG = 521
"""Tokens of the long probe, where the model has positions for them: 512 is a limit that models have, and 521 is a prime."""
SHORT = 11
MOST_BATCH = 9


@dataclass(frozen=True)
class Probe:
    """One input, as each side takes it.

    `others` is for the reference: other values of the same kind and shapes, with the same padding. `padding` is the mask of the
    main tokens, [batch, position], true where a position is real; None where nothing is padded.
    """

    name: str
    reference: Inputs
    candidate: Inputs
    others: Inputs
    padding: Array | None = None


@dataclass(frozen=True)
class Probes:
    """What both sides are run on, and what was left out, for people."""

    probes: tuple[Probe, ...]
    notes: tuple[str, ...] = ()
    refused: UsageError | None = None
    """What the candidate alone refused, after it took another: two models of which that is true are not one function."""


def make_probes(reference: Side, candidate: Side, facts: Facts | None = None, *, seed: int = 0) -> Probes:
    """Inputs that both sides take, each tried on both.

    `facts` are what configs say; what they lack is found by trial. A probe that the reference refuses is left out, with a note.
    One that only the candidate refuses, after it took another, is left out and `refused`: where the rest shows why, that says more.
    Raises UsageError where the two have no input in common, where no sizes are found, where only the candidate refuses the first.
    """
    known = facts or Facts()
    guess: tuple[Role, ...] = ()
    if is_unsaid(reference, candidate):
        guess = _likely(known)
    inputs = common_inputs(reference, candidate, guess or (FEATURES,))
    roles = {one.role for one in inputs}
    if TOKENS in roles or DECODER in roles or IMAGE in roles or FEATURES in roles:
        main = next(one for one in inputs if one.role in (TOKENS, IMAGE, FEATURES))
        role, known = found_by_trial(
            reference,
            known,
            {one.role: one.reference for one in inputs},
            may_guess=not guess and is_unsaid(reference, candidate),
        )
        if role is not None and role is not main.role:
            inputs = [replace(one, role=role) if one is main else one for one in inputs]
    maker = _Maker(reference, candidate, inputs, known, seed)
    return maker.all()


def _likely(facts: Facts) -> tuple[Role, ...]:
    if facts.vocab is not None and facts.image is None:
        return (TOKENS,)
    if facts.image is not None and facts.vocab is None:
        return (IMAGE,)
    return ()


@dataclass
class _Maker:
    """Makes one probe after the other; holds what was learnt on the way: the batch sizes that run, the forms of masks."""

    reference: Side
    candidate: Side
    inputs: list[Input]
    facts: Facts
    seed: int
    notes: list[str] = field(default_factory=list)
    made: list[Probe] = field(default_factory=list)
    batches: dict[Role, int] = field(default_factory=dict)
    forms: dict[tuple[str, Role], MaskForm] = field(default_factory=dict)
    refused: UsageError | None = None
    left_out: str = ""

    def all(self) -> Probes:
        self.taken = {
            size
            for side in (self.reference, self.candidate)
            for spec in side.manifest().values()
            for size in spec.shape
        }
        self.taken |= {size for size in (self.facts.channels, *(self.facts.patch or ())) if size}
        mains = {one.role for one in self.inputs}
        self._settle_batches(mains)
        if TOKENS in mains:
            self._of_tokens()
        else:
            self._try("short" if IMAGE not in mains else "square", {}, must=True)
        if FEATURES in mains and self.facts.rank == 3:
            self._try("long", {FEATURES: LONG})
        if IMAGE in mains:
            self._of_images()
        left_out = (self.left_out,) if self.left_out else ()
        return Probes(tuple(self.made), (*left_out, *self.notes), self.refused)

    # sizes

    def _settle_batches(self, mains: set[Role]) -> None:
        low = 2
        for role in (TOKENS, IMAGE, FEATURES):
            if role in mains:
                self.batches[role] = low = next(
                    size for size in range(low, low + 64) if size not in self.taken or size > MOST_BATCH
                )
                low += 1
        if DECODER in mains:
            self.batches[DECODER] = self.batches[TOKENS]

    def length(self, role: Role, start: int) -> int:
        most = self.facts.positions
        if role is DECODER and self.facts.decoder_positions is not None:
            most = self.facts.decoder_positions
        held = self.taken | set(self.batches.values())
        if role is DECODER:
            start, held = start - 3 if start > SHORT else start + 2, held | {self.length(TOKENS, start)}
        if most is not None and most <= start:
            return most if role is TOKENS or most < 2 else most - 1
        return distinct(start, held, most=most, times=[self.batches[role]])

    # one probe

    def _word(self, side: Side) -> str:
        """Its title; where both have the same, which of them it is."""
        if self.reference.title != self.candidate.title:
            return side.title
        return f"the {'reference' if side is self.reference else 'candidate'}, {side.title},"

    def _try(
        self,
        name: str,
        lengths: Mapping[Role, int],
        *,
        side: str | None = None,
        image: tuple[int, int] | None = None,
        with_types: bool = False,
        flag: bool = False,
        must: bool = False,
        optional: bool = False,
    ) -> bool:
        """Make a probe and run both sides on it; keep it where both take it. `must`: the reference refusing it is an error."""
        probe = self._probe(name, lengths, side, image, with_types, flag)
        try:
            self.reference.run(probe.reference, watch=())
        except UsageError as refused:
            if must:
                raise
            self.notes.append(f"not run: {name}, which the reference refuses ({_first_line(refused)})")
            return False
        try:
            self.candidate.run(probe.candidate, watch=())
        except UsageError as refused:
            if optional:
                self.notes.append(f"not run: {name}, which the candidate refuses ({_first_line(refused)})")
                return False
            error = UsageError(
                f"{self._word(self.candidate)} does not run on what {self._word(self.reference)} runs on "
                f"({name}: {_shapes(probe.candidate)}): {refused}\nIf it takes something else, give the inputs: {EXAMPLE}"
            )
            if not self.made:
                raise error from refused
            if self.refused is None:
                self.refused = error
                shapes = _shapes(probe.candidate)
                self.left_out = f"not run: {name}, {shapes}, which the candidate alone refuses ({_first_line(refused)})"
            return False
        self.made.append(probe)
        return True

    def _probe(
        self,
        name: str,
        lengths: Mapping[Role, int],
        side: str | None,
        image: tuple[int, int] | None,
        with_types: bool,
        flag: bool,
    ) -> Probe:
        real: dict[Role, Array] = {}
        if side is not None:
            for role in (TOKENS, DECODER):
                is_masked = any(one.role.of == role.name and one.is_common for one in self.inputs)
                if is_masked and (
                    side == "right" or role is TOKENS
                ):  # a causal row with only padding before it sees nothing
                    real[role] = ragged(self.batches[role], lengths[role], side)

        def draw(seed: int) -> dict[Role, Array]:
            rng = np.random.default_rng([seed, len(self.made)])
            return {
                one.role: self._value(one.role, rng, lengths, real, image)
                for one in self.inputs
                if one.role.kind in ("tokens", "image", "features", "types")
            }

        def sides(values: Mapping[Role, Array], is_reference: bool) -> Inputs:
            given: dict[Key, Array] = {}
            for one in self.inputs:
                key = one.reference if is_reference else one.candidate
                if key is None:
                    continue
                if one.role.kind == "mask":
                    value = self._mask(one, is_reference, real, lengths)
                elif one.role.kind == "flag":
                    value = np.asarray(True) if flag else None
                elif one.role.kind == "types" and not one.is_common:
                    value = np.zeros_like(values[one.role])
                elif one.role.kind == "types" and not with_types and not self._is_required(one):
                    value = None
                else:
                    value = values[one.role]
                if value is not None:
                    given[key] = value
            return as_inputs(given)

        values = draw(self.seed)
        return Probe(
            name, sides(values, True), sides(values, False), sides(draw(self.seed + 1), True), real.get(TOKENS)
        )

    def _value(
        self,
        role: Role,
        rng: np.random.Generator,
        lengths: Mapping[Role, int],
        real: Mapping[Role, Array],
        image: tuple[int, int] | None,
    ) -> Array:
        if role.kind == "tokens":
            vocabulary = Vocabulary.of(self.facts)
            rows = vocabulary.rows(rng, self.batches[role], lengths[role], decoder=role is DECODER)
            return vocabulary.padded(rows, real[role]) if role in real else rows
        if role.kind == "types":
            types = rng.integers(0, self.facts.types or 1, (self.batches[TOKENS], lengths[TOKENS]))
            return np.asarray(types, dtype=np.int64)
        if role.kind == "image":
            assert self.facts.image is not None
            return numbers(rng, (self.batches[IMAGE], self.facts.channels or 3, *(image or self.facts.image)))
        assert self.facts.width is not None
        inner = () if self.facts.rank == 2 else (lengths.get(FEATURES, SHORT),)
        return numbers(rng, (self.batches[FEATURES], *inner, self.facts.width))

    def _mask(
        self, one: Input, is_reference: bool, real: Mapping[Role, Array], lengths: Mapping[Role, int]
    ) -> Array | None:
        of = TOKENS if one.role.of == TOKENS.name else DECODER
        form = self.forms.get(("reference" if is_reference else "candidate", one.role), MaskForm())
        if of in real:
            return form.write(real[of])
        required = dict((self.reference if is_reference else self.candidate).takes())
        key = one.reference if is_reference else one.candidate
        if isinstance(key, str) and required.get(key):
            return form.write(np.ones((self.batches[of], lengths[of]), dtype=bool))
        return None

    # the probes

    def _of_tokens(self) -> None:
        roles = [role for role in (TOKENS, DECODER) if any(one.role is role for one in self.inputs)]
        short = {role: self.length(role, SHORT) for role in roles}
        masks = [one for one in self.inputs if one.role.kind == "mask"]
        if any(one.is_common for one in masks) or any(self._is_required(one) for one in masks):
            self._learn_masks(masks, short)
        if len(self.batches) > 1 and IMAGE in self.batches:
            self._try_batches(short)
        else:
            self._try("short", short, must=True)
        typed = [one for one in self.inputs if one.role.kind == "types"]
        self._long(roles, bool(typed))
        if any(one.is_common for one in masks):
            lengths = {role: self.length(role, SHORT + 2) for role in roles}
            for side in ("right", "left"):
                self._try(f"padded {side}", lengths, side=side, with_types=side == "right")
        else:
            self.notes.append(f"not run: padded, for {self._without_mask()} has no input that is known as a mask")
        for one in typed:
            if not one.is_common or (self.facts.types or 0) < 2:
                self.notes.append("token types were left at their first value")

    def _try_batches(self, short: Mapping[Role, int]) -> None:
        """Images and texts in different numbers; where the reference wants as many of both, so it is."""
        probe = self._probe("short", short, None, None, False, False)
        try:
            self.reference.run(probe.reference, watch=())
        except UsageError:
            self.batches[IMAGE] = self.batches[TOKENS]
        self._try("short", short, must=True)

    def _long(self, roles: Iterable[Role], with_types: bool) -> None:
        """The long probe; where the reference cannot take it, half of it, and so on."""
        start = LONG
        while start > 2 * SHORT:
            lengths = {role: self.length(role, start) for role in roles}
            if lengths[TOKENS] <= self.length(TOKENS, SHORT):
                return
            before = list(self.notes)
            if self._try("long", lengths, with_types=with_types):
                return
            self.notes[:] = before
            start //= 2

    def _without_mask(self) -> str:
        """Which side it is that takes no mask."""
        masks = [one for one in self.inputs if one.role.kind == "mask"]
        takes = [
            any(key is not None for key in keys)
            for keys in ([m.reference for m in masks], [m.candidate for m in masks])
        ]
        return "the candidate" if takes[0] else "the reference" if takes[1] else "one of the sides"

    def _is_required(self, one: Input) -> bool:
        return any(
            isinstance(key, str) and dict(side.takes()).get(key)
            for side, key in ((self.reference, one.reference), (self.candidate, one.candidate))
        )

    def _learn_masks(self, masks: Iterable[Input], short: Mapping[Role, int]) -> None:
        """Ask each side how its masks are written."""
        vocabulary = Vocabulary.of(self.facts)
        for one in masks:
            of = TOKENS if one.role.of == TOKENS.name else DECODER
            rng = np.random.default_rng(self.seed)
            shape = (self.batches[of], short[of])
            real = ragged(*shape, "left")
            tokens = vocabulary.padded(vocabulary.rows(rng, *shape, decoder=of is DECODER), real)
            other = rng.choice(vocabulary.ordinary, size=shape)
            for word, side, key in (
                ("reference", self.reference, one.reference),
                ("candidate", self.candidate, one.candidate),
            ):
                if key is None:
                    continue
                form = form_of(side, self._asking(word == "reference", one, of, short), real, tokens, other)
                if form is not None:
                    self.forms[word, one.role] = form
                    if form != MaskForm():
                        self.notes.append(f"the {word}'s `{key}` is written as {form}: found by trial")

    def _asking(
        self, is_reference: bool, asked: Input, of: Role, short: Mapping[Role, int]
    ) -> Callable[[Array, Array], Inputs]:
        plain = self._probe("mask", short, None, None, False, False)
        given = plain.reference if is_reference else plain.candidate
        key = asked.reference if is_reference else asked.candidate
        main = next(one.reference if is_reference else one.candidate for one in self.inputs if one.role is of)

        def build(mask: Array, tokens: Array) -> Inputs:
            held: dict[Key, Array] = dict(given.items()) if isinstance(given, Mapping) else dict(enumerate(given))
            for changed, value in ((key, mask), (main, tokens)):
                if changed is not None:
                    held[changed] = value
            return as_inputs(held)

        return build

    def _of_images(self) -> None:
        assert self.facts.image is not None
        height, width = self.facts.image
        roles = [role for role in (TOKENS, DECODER) if any(one.role is role for one in self.inputs)]
        short = {role: self.length(role, SHORT) for role in roles}
        patch = self.facts.patch
        if patch is None:
            self.notes.append("not run: images that are not square, for the size of a patch is not known")
            return
        rows, columns = height // patch[0], width // patch[1]
        if rows % 2 == 0:
            self._try(
                "same patches, not square", short, image=(rows // 2 * patch[0], columns * 2 * patch[1]), optional=True
            )
        elif rows > 1:
            self._try("same patches, not square", short, image=(patch[0], rows * columns * patch[1]), optional=True)
        if any(one.role.kind == "flag" and one.is_common for one in self.inputs):
            size = ((rows + 1) * patch[0] + patch[0] // 2, (columns + 2) * patch[1])
            self._try("positions interpolated", short, image=size, flag=True, optional=True)


def as_inputs(given: Mapping[Key, Array]) -> Inputs:
    """By name; by position where keys are numbers."""
    if all(isinstance(key, int) for key in given):
        return [given[key] for key in sorted(given, key=int)]
    return {str(key): value for key, value in given.items()}


def _first_line(error: Exception) -> str:
    cause = error.__cause__  # the library's own words, without ours around them
    said = f"{type(cause).__name__}: {cause}" if cause is not None and str(cause) else str(error)
    line = said.strip().partition("\n")[0]
    return line if len(line) <= 200 else line[:199] + "…"


def _shapes(inputs: Inputs) -> str:
    named = inputs.items() if isinstance(inputs, Mapping) else enumerate(inputs)
    return ", ".join(f"{key} {list(value.shape)}" for key, value in named)
