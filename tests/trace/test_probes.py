"""Which inputs two models take in common, how large they are, what is in them; and what is said where that cannot be known."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import nn

from isomorph.errors import UsageError
from isomorph.trace.drawing import distinct, drawn_like, ragged
from isomorph.trace.facts import Facts, facts_of
from isomorph.trace.given import given_probe
from isomorph.trace.masks import FORMS, MaskForm, form_of
from isomorph.trace.probes import Probe, Probes, make_probes
from isomorph.trace.protocol import Side
from isomorph.trace.sides import side_of
from isomorph.trace.signature import DECODER, FEATURES, IMAGE, MASK, ROLES, TOKENS, common_inputs, role_of, signature

VOCAB, POSITIONS, WIDTH = 53, 31, 6


class Encoder(nn.Module):
    """Word + position (+ type), one attention over what the mask leaves."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.places = nn.Embedding(VOCAB, WIDTH), nn.Embedding(POSITIONS, WIDTH)
        self.types = nn.Embedding(3, WIDTH)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        x = self.words(input_ids) + self.places(torch.arange(input_ids.shape[1]))
        x = x + self.types(torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids)
        scores = x @ x.mT
        if attention_mask is not None:
            scores = scores.masked_fill(~attention_mask.bool()[:, None, :], -torch.inf)
        return scores.softmax(-1) @ x


class Other(Encoder):
    """The same, whose mask is true where a position is hidden, and must be boolean."""

    def forward(self, tokens: torch.Tensor, key_padding_mask: torch.Tensor | None = None) -> torch.Tensor:  # type: ignore[override]
        if key_padding_mask is not None and key_padding_mask.dtype != torch.bool:
            raise TypeError("a boolean mask, please")
        return super().forward(tokens, None if key_padding_mask is None else ~key_padding_mask)


class Patches(nn.Module):
    """A grid of patches with positions; `strict` refuses any other size."""

    def __init__(self, strict: bool = False, rows: int = 6) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, WIDTH, 4, 4)
        self.places = nn.Parameter(torch.randn(1, rows * rows + 1, WIDTH))
        self.strict = strict

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        if self.strict and pixel_values.shape[-1] != pixel_values.shape[-2]:
            raise ValueError("square images only")
        x = self.patch(pixel_values).flatten(2).mT
        return torch.cat([self.places[:, :1].expand(len(x), -1, -1), x + self.places[:, 1:]], 1)


class Both(nn.Module):
    """Images and texts; a text is what stands at its largest token."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self.vision = Encoder(), Patches()

    def forward(self, input_ids: torch.Tensor, pixel_values: torch.Tensor) -> torch.Tensor:
        text = self.text(input_ids)[torch.arange(len(input_ids)), input_ids.argmax(-1)]
        return self.vision(pixel_values)[:, 0] @ text.T


def sided(model: object) -> Side:
    """A model as a side, in evaluation mode."""
    return side_of(model.eval() if isinstance(model, nn.Module) else model)


def probes_of(reference: object, candidate: object, facts: Facts | None = None) -> Probes:
    return make_probes(sided(reference), sided(candidate), facts)


def named(probe: Probe, side: str = "reference") -> Mapping[str, np.ndarray]:
    inputs = getattr(probe, side)
    assert isinstance(inputs, Mapping)
    return inputs


def test_a_synonym_stands_for_one_role_only() -> None:
    """No name is in two roles, so that a parameter's name is enough."""
    names = [name for role in ROLES for name in role.synonyms]
    assert sorted(set(names)) == sorted(names)
    assert (role_of("Segment_Ids"), role_of("waveform")) == (role_of("token_type_ids"), None)


def test_names_of_one_role_go_together_and_a_sole_required_input_is_the_main_one() -> None:
    """`input_ids` meets `tokens`; `x`, and a name that nobody knows but is the only one required, meet either."""

    def given(reference: object, candidate: object) -> list[tuple[str, object, object]]:
        return [
            (one.role.name, one.reference, one.candidate) for one in common_inputs(sided(reference), sided(candidate))
        ]

    assert [("input_ids", "input_ids", "tokens"), ("attention_mask", "attention_mask", "key_padding_mask")] == given(
        lambda input_ids, attention_mask=None, token_type_ids=None: 0, lambda tokens, key_padding_mask=None: 0
    )
    assert [("pixel_values", "pixel_values", "x")] == given(lambda pixel_values: 0, lambda x: 0)
    assert [("pixel_values", "picture_of_a_cat", "img")] == given(lambda picture_of_a_cat: 0, lambda img: 0)
    assert [("input_ids", "ids", "src"), ("decoder_input_ids", "decoder_ids", "tgt")] == given(
        lambda ids, decoder_ids: 0, lambda src, tgt: 0
    )


def test_what_cannot_be_guessed_is_asked_for() -> None:
    """No common input, a required input that nobody knows, one that only one side must have: each says what to give."""
    with pytest.raises(
        UsageError, match=r"(?s)no input in common: .* takes input_ids; .* takes pixel_values.*--inputs inputs.npz"
    ):
        common_inputs(sided(lambda input_ids: 0), sided(lambda pixel_values: 0))
    with pytest.raises(
        UsageError, match=r"must be given `mel` and `speaker`, and what that is cannot be guessed.*numpy.savez"
    ):
        common_inputs(sided(lambda mel, speaker: 0), sided(lambda mel, speaker: 0))
    with pytest.raises(
        UsageError, match=r"must be given `tgt` \(decoder tokens\), which .* does not take.*candidate::NAME"
    ):
        common_inputs(sided(lambda src: 0), sided(lambda src, tgt: 0))


def test_a_mask_that_a_side_must_be_given_is_whole_where_the_other_takes_none() -> None:
    """Its neutral value is known: every position is real."""
    probes = probes_of(
        lambda ids: np.eye(97)[ids], lambda ids, mask: np.eye(97)[ids] * mask[..., None], Facts(vocab=97, positions=20)
    )
    assert ["short", "long"] == [one.name for one in probes.probes]
    assert all(named(one, "candidate")["mask"].all() and "mask" not in named(one) for one in probes.probes)
    assert any(note.startswith("not run: padded, for the reference") for note in probes.notes)


def test_sizes_are_found_by_trial_and_all_axes_differ() -> None:
    """Without a config: the vocabulary, the positions, the types are those of the model; batch, length and widths are distinct."""
    probes = {one.name: one for one in probes_of(Encoder(), Encoder()).probes}
    assert ["short", "long", "padded right", "padded left"] == list(probes)
    assert named(probes["long"])["input_ids"].shape[1] == POSITIONS
    assert {0, 1, 2} == set(np.unique(named(probes["long"])["token_type_ids"]))
    assert "token_type_ids" not in named(probes["short"])
    batch, length = named(probes["short"])["input_ids"].shape
    assert len({batch, length, WIDTH, VOCAB, POSITIONS, 3}) == 6
    assert all(named(one)["input_ids"].max() < VOCAB for one in probes.values())


def test_padding_is_ragged_on_either_side_and_others_share_it() -> None:
    """Rows of different lengths, one of them whole; the other draw has other tokens under the same mask."""
    probes = {one.name: one for one in probes_of(Encoder(), Encoder()).probes}
    for side in ("right", "left"):
        probe = probes[f"padded {side}"]
        assert probe.padding is not None
        assert len(set(probe.padding.sum(1))) == len(probe.padding) > 1
        assert probe.padding[0].all()
        assert not probe.padding[1, -1 if side == "right" else 0]
        assert isinstance(probe.others, Mapping)
        assert np.array_equal(named(probe)["attention_mask"].astype(bool), probe.padding)
        assert np.array_equal(probe.others["attention_mask"], named(probe)["attention_mask"])
        assert not np.array_equal(probe.others["input_ids"], named(probe)["input_ids"])


def test_a_mask_of_another_convention_is_found_by_trial() -> None:
    """What a side masks away must not be seen: so it is told how its mask is written."""
    probes = {one.name: one for one in probes_of(Encoder(), Other()).probes}
    mask = named(probes["padded left"], "candidate")["key_padding_mask"]
    assert mask.dtype == bool
    assert np.array_equal(~mask, probes["padded left"].padding)


def test_a_side_that_ignores_its_mask_gets_the_usual_one() -> None:
    """A fault must not be mended by guessing: where no form hides anything, the first that runs is taken."""
    eye = np.random.default_rng(0).standard_normal((VOCAB, 4))

    def ignores(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return eye[ids] + eye[ids].mean(1, keepdims=True)

    tokens, other = (np.random.default_rng(seed).integers(0, VOCAB, (2, 7)) for seed in (1, 2))
    real = ragged(2, 7, "left")
    assert MaskForm() == FORMS[0] == form_of(sided(ignores), lambda mask, ids: [ids, mask], real, tokens, other)


def test_each_row_ends_at_another_place_with_the_end_token() -> None:
    """One end token a row, in different places, and it is the largest; so both ways to find it find the same."""
    facts = facts_of(
        {"text_config": {"vocab_size": VOCAB, "max_position_embeddings": POSITIONS, "eos_token_id": VOCAB - 1}}
    )
    for probe in probes_of(Encoder(), Encoder(), facts).probes:
        ids = named(probe)["input_ids"]
        assert ((ids == VOCAB - 1).sum(1) == 1).all()
        assert probe.name == "padded left" or len(set(ids.argmax(1))) > 1
        if probe.padding is not None:
            assert all(probe.padding[row, place] for row, place in enumerate(ids.argmax(1)))


def test_images_and_texts_come_in_different_numbers() -> None:
    """A dual encoder's axes are told apart; its sizes are found by trial, the image's from the table of patches."""
    probes = probes_of(Both(), Both())
    ids, pixels = named(probes.probes[0])["input_ids"], named(probes.probes[0])["pixel_values"]
    assert pixels.shape[1:] == (3, 24, 24)
    assert len({len(ids), len(pixels), 3}) == 3
    assert "same patches, not square" in [one.name for one in probes.probes]
    (stretched,) = [named(one)["pixel_values"] for one in probes.probes if one.name == "same patches, not square"]
    assert stretched.shape[2:] == (12, 48)


def test_a_probe_that_the_reference_refuses_is_left_out_and_said() -> None:
    """Images that are not square are no error where a side takes none."""
    for sides in ((Patches(strict=True), Patches()), (Patches(), Patches(strict=True))):
        probes = probes_of(*sides)
        assert ["square"] == [one.name for one in probes.probes]
        (note,) = probes.notes
        assert note.startswith("not run: same patches, not square, which the ")
        assert "square images only" in note


def test_what_only_the_candidate_refuses_is_an_error_in_its_own_words() -> None:
    """The reference runs, so the inputs are right: the message is the candidate's, with the shapes and what to do."""

    class Refuses(Encoder):
        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            raise RuntimeError("out of cheese")

    with pytest.raises(
        UsageError,
        match=r"(?s)Refuses.* does not run on what Encoder.* runs on \(short: input_ids \[2, \d+\]\).*out of cheese.*inputs",
    ):
        probes_of(Encoder(), Refuses())
    with pytest.raises(UsageError, match="out of cheese"):
        probes_of(Refuses(), Encoder(), Facts(vocab=VOCAB, positions=9, types=2))


def test_sizes_that_nothing_says_are_asked_for() -> None:
    """A model that runs on nothing that was tried: give the inputs."""

    class Odd(nn.Module):
        def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
            raise ValueError("never")

    with pytest.raises(UsageError, match=r"the size of its images is not known: Odd.*numpy.savez"):
        probes_of(Odd(), Odd())


def test_vectors_are_drawn_for_a_model_that_takes_them() -> None:
    """Neither side says what its input is: what runs is found by trial."""
    probes = probes_of(nn.Sequential(nn.Linear(12, 7)), nn.Linear(12, 7))
    assert [12, 12] == [named(one)["input"].shape[-1] for one in probes.probes]
    assert ["short", "long"] == [one.name for one in probes.probes]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"vocab_size": 9, "n_positions": 4, "eos_token_id": [3, 4]}, Facts(vocab=9, positions=4, eos=3)),
        ({"vision_config": {"image_size": [6, 8], "patch_size": 2}}, Facts(image=(6, 8), patch=(2, 2))),
        ({"vocab_size": 9, "eos_token_id": 49407}, Facts(vocab=9)),
        ({"relative_attention_num_buckets": 8, "n_positions": 512, "decoder_start_token_id": 0}, Facts(start=0)),
        (None, Facts()),
    ],
    ids=["text", "image", "special tokens beyond the vocabulary", "relative positions are no limit", "none"],
)
def test_facts_are_read_from_any_config(config: Mapping[str, object] | None, expected: Facts) -> None:
    """Nested or not, under the usual keys; what cannot be is left out."""
    assert expected == facts_of(config)


def test_sizes_keep_out_of_each_others_way() -> None:
    """A size is a prime that no tensor has, and no product with the batch is one either; a limit is kept."""
    assert distinct(11, {11, 26}, times=[2]) == 17
    assert distinct(11, {11}, most=12) == 10
    assert distinct(11, set(), most=1) == 1


def test_other_values_are_of_the_same_kind() -> None:
    """Whole numbers are those that were seen; floats keep mean and spread; padding and truths stay."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 50, (3, 8))
    fixed = ~ragged(3, 8, "right")
    drawn = drawn_like(ids, rng, fixed=fixed)
    assert sorted(ids[~fixed]) == sorted(drawn[~fixed])
    assert np.array_equal(ids[fixed], drawn[fixed])
    assert not np.array_equal(ids, drawn)
    pixels = rng.normal(3, 2, (4, 500))
    again = drawn_like(pixels, rng)
    assert abs(again.mean() - pixels.mean()) < 0.3 > abs(again.std() - pixels.std())
    truths = np.array([True, False])
    assert drawn_like(truths, rng) is truths


def test_inputs_that_are_given_go_to_each_side_under_its_own_name() -> None:
    """By name, by what a name means, by position; a mask leaves its padding out; `candidate::` is for one side."""
    sides: tuple[Side, Side] = sided(Encoder()), sided(Other())
    ids = np.arange(12).reshape(2, 6)
    mask = ragged(2, 6, "right").astype(np.int64)
    probe = given_probe(
        *sides, {"input_ids": ids, "reference::attention_mask": mask, "candidate::key_padding_mask": mask == 0}
    )
    assert set(named(probe)) == {"input_ids", "attention_mask"}
    assert set(named(probe, "candidate")) == {"tokens", "key_padding_mask"}
    assert np.array_equal(probe.padding, mask.astype(bool))
    assert isinstance(probe.others, Mapping)
    assert np.array_equal(probe.others["attention_mask"], mask)
    by_place = given_probe(*sides, [torch.from_numpy(ids)])
    assert by_place.padding is None
    assert not isinstance(by_place.reference, Mapping)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (
            {"input_ids": np.ones((1, 3), int), "attention_msk": np.ones((1, 3), int)},
            r"input `attention_msk`: Encoder.* takes input_ids, .*did you mean attention_mask\?",
        ),
        ({"input_ids": np.ones((1, 3), int), "speed": np.ones(3)}, r"input `speed`: .*name it  candidate::speed"),
        ({"left::x": np.ones(3)}, r"before `::` stands reference or candidate"),
        ({}, "no input is in what was given"),
        ({"input_ids": np.ones((1, 0), int)}, r"input `input_ids` \[1, 0\] is empty: nothing would be compared"),
        ({"input_ids": np.array(["a"])}, r"input `input_ids` holds <U1, not numbers"),
        ({"input_ids": np.full((1, 3), VOCAB)}, r"Encoder.* does not run on .*int64\[1 3\]"),
    ],
    ids=["near miss", "no place", "no side", "nothing", "empty", "text", "does not run"],
)
def test_inputs_that_cannot_be_given_are_named(inputs: Mapping[str, np.ndarray], message: str) -> None:
    """Each says which input, which side, and what would do."""
    with pytest.raises(UsageError, match=message):
        given_probe(sided(Encoder()), sided(Encoder()), inputs)


def test_signatures_read_keywords_too() -> None:
    """Roles of a forward with optional inputs; nothing is required that has a default."""
    its = signature(sided(Encoder()))
    assert {TOKENS, MASK} < set(its.roles)
    assert not {IMAGE, FEATURES, DECODER} & set(its.roles)
    assert its.required == {"input_ids"}


def test_a_single_input_under_a_name_that_neither_side_takes_is_refused() -> None:
    """It is not taken for the main input: it may be misspelt."""

    class Takes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin = nn.Linear(3, 2)

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.lin(pixels)
            return out

    one, other = side_of(Takes().eval()), side_of(Takes().eval())
    array = np.zeros((2, 3), np.float32)
    assert "given" == given_probe(one, other, {"pixels": array}).name
    with pytest.raises(UsageError, match=r"input `pixel` is taken by neither model: .*; did you mean pixels?"):
        given_probe(one, other, {"pixel": array})
