"""What a port may do otherwise in attention: one change of the reference's rule each, and how a sentence says it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations

from isomorph.trace.diagnose.attention_formula import SPLITS, Attention, Buckets, Mask, Rotary

INF = math.inf
LETTERS = ("q", "k", "v")
FILLS = (-1e4, -1e9, -65504.0, -3.4028234663852886e38, -1e3, -100.0, -10.0, -1.0, 1.0)
THETAS = (10000.0, 500000.0, 1000000.0, 1000.0, 100.0, 5000.0, 20000.0, 50000.0, 100000.0, 160000.0, 5000000.0)


@dataclass(frozen=True)
class Variant:
    """A rule, the slug of what differs from the reference's, and the clause that says so."""

    kind: str
    says: str
    rule: Attention


def variants(rule: Attention, width: int, tables: Sequence[str] = ()) -> Iterator[Variant]:
    """All single changes, the likely first. `width` is that of q."""
    yield from _roles(rule)
    yield from _scales(rule, width)
    yield from _masks(rule)
    yield from _biases(rule, tables)
    yield from _rotaries(rule, width)
    yield from _heads(rule, width)
    yield from _shapes(rule)
    yield from _precisions(rule)


def _roles(rule: Attention) -> Iterator[Variant]:
    for order in permutations(range(3)):
        if order == (0, 1, 2):
            continue
        roles = (rule.roles[order[0]], rule.roles[order[1]], rule.roles[order[2]])
        moved = [LETTERS[i] for i in range(3) if order[i] != i]
        if len(moved) == 2:
            says = f"{moved[0]} and {moved[1]} are swapped"
        else:
            says = f"q, k and v are taken for {', '.join(LETTERS[order.index(i)] for i in range(3))}"
        yield Variant("qkv-order", says, replace(rule, roles=roles))
    for one, two in ((0, 1), (0, 2), (1, 2)):
        doubled = list(rule.roles)
        doubled[two] = doubled[one]
        says = f"{LETTERS[one]} is also used for {LETTERS[two]}"
        yield Variant("qkv-order", says, replace(rule, roles=(doubled[0], doubled[1], doubled[2])))
        doubled = list(rule.roles)
        doubled[one] = doubled[two]
        says = f"{LETTERS[two]} is also used for {LETTERS[one]}"
        yield Variant("qkv-order", says, replace(rule, roles=(doubled[0], doubled[1], doubled[2])))


def scale_words(scale: float, reference: float, each: int, width: int) -> str:
    """`attention is not scaled (scale 1, the reference 0.125)`."""
    numbers = f"(scale {scale:.6g}, the reference {reference:.6g})"
    known = (
        (1.0, "attention is not scaled"),
        (reference**2, "attention is scaled twice"),
        (1 / math.sqrt(width), "attention is scaled by the whole width, not the heads'"),
        (1 / each, "attention is scaled by 1/d, without the square root"),
        (1 / width, "attention is scaled by 1 over the whole width"),
        (each**-0.5, "attention is scaled by 1/sqrt(d)"),
        (math.sqrt(each), "attention is multiplied by sqrt(d) where it should be divided"),
    )
    for value, words in known:
        if math.isclose(scale, value, rel_tol=1e-6):
            return f"{words} {numbers}"
    return f"attention's scale differs {numbers}"


def _scales(rule: Attention, width: int) -> Iterator[Variant]:
    each = width // rule.heads
    likely = (
        1.0,
        each**-0.5,
        width**-0.5,
        1 / each,
        rule.scale**2,
        1 / width,
        each**0.5,
        rule.scale / 2,
        rule.scale * 2,
    )
    tried = [rule.scale]
    for scale in likely:
        if any(math.isclose(scale, other, rel_tol=1e-9) for other in tried):
            continue
        tried.append(scale)
        yield Variant("attention-scale", scale_words(scale, rule.scale, each, width), replace(rule, scale=scale))


def _masks(rule: Attention) -> Iterator[Variant]:
    mask = rule.mask

    def changed(kind: str, says: str, **changes: object) -> Variant:
        return Variant(kind, says, replace(rule, mask=replace(mask, **changes)))  # type: ignore[arg-type] # fields by name

    if mask.causal is not None:
        yield changed("mask-causal", "the causal mask is missing", causal=None)
        yield changed(
            "mask-offset",
            "the causal mask is off by one: a query sees the next key too",
            causal=mask.causal + 1,
        )
        yield changed(
            "mask-offset",
            "the causal mask is off by one: a query does not see its own key",
            causal=mask.causal - 1,
        )
        yield changed("mask-inverted", "the causal mask is transposed: queries see later keys only", is_upper=True)
    else:
        yield changed("mask-causal", "a causal mask is applied, the reference has none", causal=0)
    if mask.padding is not None:
        yield changed("mask-missing", "the padding mask is missing", padding=None)
        yield changed(
            "mask-inverted",
            "the padding mask is inverted: padding is seen, the rest hidden",
            padding="inverted",
        )
        yield changed("mask-side", "the padding mask is on the wrong side", padding="flipped")
        yield changed("mask-offset", "the padding mask is off by one: it hides a real key", padding="next")
        yield changed("mask-offset", "the padding mask is off by one: it shows a padded key", padding="last")
        for side in ("right", "left"):
            says = f"the padding mask is moved by one position to the {side}"
            yield changed("mask-offset", says, padding=f"rolled {side}")
        if mask.causal is not None:
            yield changed("mask-missing", "both masks are missing", padding=None, causal=None)
    else:
        yield changed("mask-extra", "padding is masked, the reference does not mask it", padding="real")
    if mask.window is not None:
        yield changed("mask-window", f"the window of {mask.window} keys is missing", window=None)
        for step in (1, -1):
            says = f"a query sees {mask.window + step} keys (its window), the reference {mask.window}"
            yield changed("mask-window", says, window=mask.window + step)
    if mask.causal is not None or mask.padding is not None:
        for fill in (-INF, -3.4028234663852886e38, -1e9, -1e4):
            says = "the mask is inverted: what should be seen is hidden"
            yield changed("mask-inverted", says, is_inverted=True, fill=fill)
        for fill in FILLS:
            if fill != mask.fill:
                yield changed("mask-constant", fill_words(fill, "add"), fill=fill)
        for fill in (0.0, -1.0, -10.0, -100.0, 1e-9):
            yield changed("mask-constant", fill_words(fill, "set"), fill=fill, how="set")
        yield changed("mask-after-softmax", "the mask is applied after the softmax", how="after")


def fill_words(fill: float, how: str) -> str:
    """What a finite mask is, in words."""
    if how == "add" and fill == -1.0:
        return "the mask is added as ones and zeros: hidden keys get −1 where they should get −inf"
    if how == "add" and fill == 1.0:
        return "the mask is added with the wrong sign, as ones: hidden keys get +1 where they should get −inf"
    if how == "set":
        return f"hidden keys' scores are set to {fill:g} where they should be −inf"
    return f"the mask's value is {fill:g} where it should be −inf"


def _biases(rule: Attention, tables: Sequence[str]) -> Iterator[Variant]:
    bias = rule.bias
    if bias is None:
        for table in tables:
            yield Variant(
                "relative-bias",
                f"{table} is added as a bias, the reference has none here",
                replace(rule, bias=Buckets(table)),
            )
        return

    def changed(says: str, **changes: object) -> Variant:
        return Variant("relative-bias", says, replace(rule, bias=replace(bias, **changes)))  # type: ignore[arg-type] # by name

    yield Variant("relative-bias-missing", "the relative position bias is missing", replace(rule, bias=None))
    yield changed(
        "the relative position has the wrong sign: query − key, the reference key − query",
        is_flipped=not bias.is_flipped,
    )
    now, other = ("bidirectional", "causal") if not bias.is_bidirectional else ("causal", "bidirectional")
    yield changed(
        f"the relative position buckets are {now}, the reference's are {other}",
        is_bidirectional=not bias.is_bidirectional,
    )
    yield changed(
        f"the relative position buckets are {now} and of the wrong sign",
        is_bidirectional=not bias.is_bidirectional,
        is_flipped=True,
    )
    for offset in (1, -1):
        yield changed(f"the relative position is off by {offset:+d}", offset=bias.offset + offset)
    for distance in (128, 64, 256, 32, 512, 16, 127, 20, 40, 100, 1024):
        if distance != bias.max_distance:
            says = f"the relative position buckets end at {distance}, the reference's at {bias.max_distance}"
            yield changed(says, max_distance=distance)
    yield changed("the relative position bias is added twice", times=2 * bias.times)
    yield changed("the relative position bias is scaled with the scores", is_scaled=not bias.is_scaled)
    yield changed("the relative position bias is subtracted", times=-bias.times)
    for table in tables:
        if table != bias.table:
            yield changed(f"the relative position bias is {table}, the reference's is {bias.table}", table=table)


def _rotaries(rule: Attention, width: int) -> Iterator[Variant]:
    rotary = rule.rotary
    if rotary is None:
        for style in ("half", "pairs"):
            says = "rotary positions are applied, the reference has none"
            yield Variant("rotary-missing", says, replace(rule, rotary=Rotary(style)))
        return

    def changed(kind: str, says: str, **changes: object) -> Variant:
        return Variant(kind, says, replace(rule, rotary=replace(rotary, **changes)))  # type: ignore[arg-type] # by name

    yield Variant("rotary-missing", "rotary positions are missing", replace(rule, rotary=None))
    if rotary.style == "half":
        yield changed(
            "rotary-style", "rotary turns neighbours (2i, 2i+1), the reference halves (i, i+d/2)", style="pairs"
        )
    else:
        yield changed(
            "rotary-style", "rotary turns halves (i, i+d/2), the reference neighbours (2i, 2i+1)", style="half"
        )
    for theta in THETAS:
        if not math.isclose(theta, rotary.theta):
            yield changed("rotary-theta", f"rotary's theta is {theta:g}, the reference's {rotary.theta:g}", theta=theta)
    each = width // rule.heads
    now = rotary.width or each
    for part in (each, each // 2, each // 4, 3 * each // 4, 2 * each // 5):
        if part // 2 and part // 2 != now // 2:
            says = f"rotary turns {part // 2 * 2} entries of each head, the reference {now}"
            yield changed("rotary-partial", says, width=part // 2 * 2)
            yield changed("rotary-partial", f"{says}, at the frequencies of {now}", width=part // 2 * 2, over=now)
    yield changed("rotary-sign", "rotary turns the other way", is_reversed=not rotary.is_reversed)
    yield changed("rotary-missing", "rotary turns the queries only", turns="queries")
    yield changed("rotary-missing", "rotary turns the keys only", turns="keys")
    yield changed("rotary-extra", "rotary turns the values too", turns="values too")
    for times in (0.5, 0.25, 0.125, 2.0):
        says = f"rotary's positions are multiplied by {times:g}"
        yield changed("rotary-positions", says, times=tuple(times * one for one in rotary.times))


def _heads(rule: Attention, width: int) -> Iterator[Variant]:
    if rule.key_heads is not None and rule.key_heads != rule.heads:
        now = {"repeat": "tile", "tile": "repeat"}[rule.groups]
        words = {
            "tile": "key heads are tiled (0 1 0 1 …), the reference repeats them (0 0 1 1 …)",
            "repeat": "key heads are repeated (0 0 1 1 …), the reference tiles them (0 1 0 1 …)",
        }
        yield Variant("head-groups", words[now], replace(rule, groups=now))  # type: ignore[arg-type] # one of two
        return
    for heads in range(1, width + 1):
        if width % heads or heads == rule.heads:
            continue
        says = f"attention has {heads} head{'s' if heads > 1 else ''}, the reference {rule.heads}"
        likely = replace(rule, heads=heads, key_heads=None)
        if math.isclose(rule.scale, (width // rule.heads) ** -0.5, rel_tol=1e-9):
            yield Variant("heads-number", says, replace(likely, scale=(width // heads) ** -0.5))
        yield Variant("heads-number", f"{says}, with its scale", likely)
    if rule.heads > 1:
        turned = tuple(reversed(range(rule.heads)))
        yield Variant("heads-permuted", "heads are merged in reverse order", replace(rule, head_order=turned))


def _shapes(rule: Attention) -> Iterator[Variant]:
    for merge in SPLITS:
        if merge != rule.merge:
            words = {
                "not transposed": "heads are merged without transposing them back to positions first",
                "d h": "heads are merged entry by entry: [d h], the reference [h d]",
                "h d": "heads are merged head by head: [h d], the reference another order",
            }[merge]
            yield Variant("head-merge", words, replace(rule, merge=merge))
    for split in SPLITS:
        if split != rule.split:
            words = {
                "not transposed": "q, k and v are cut into heads without transposing positions: reshaped to [B H T d] at once",
                "d h": "q, k and v are cut into heads as [d h], the reference [h d]",
                "h d": "q, k and v are cut into heads as [h d], the reference in another order",
            }[split]
            yield Variant("head-split", words, replace(rule, split=split))
            for letter in ("q", "k", "v"):
                says = f"{letter} alone {words.removeprefix('q, k and v ').replace('are', 'is', 1)}"
                yield Variant("head-split", says, replace(rule, split=split, split_of=letter))
            yield Variant("head-split", f"{words}; merged the same way", replace(rule, split=split, merge=split))
    yield Variant(
        "attention-softmax", "the softmax is over the queries, not the keys", replace(rule, softmax="queries")
    )
    for fill in (-1e9, -3.4028234663852886e38, -1e4):
        masked = replace(rule, softmax="queries", mask=replace(rule.mask, fill=fill))
        yield Variant("attention-softmax", "the softmax is over the queries, not the keys", masked)
    yield Variant("attention-softmax", "the softmax is over the heads, not the keys", replace(rule, softmax="heads"))
    yield Variant("attention-softmax", "the softmax is missing", replace(rule, softmax="none"))
    more = "the softmax has one more score, of zero (it is off by one), the reference's has none"
    yield Variant("attention-softmax", more, replace(rule, softmax="off by one"))


def _precisions(rule: Attention) -> Iterator[Variant]:
    for half in ("float16", "bfloat16", "float32"):
        for place, words in (
            ("factors", "the scores are computed in"),
            ("products", "the scores are computed in"),
            ("both", "the softmax is computed in"),
            ("scores", "the scores are rounded to"),
            ("probabilities", "the probabilities are rounded to"),
            ("all", "attention is computed in"),
        ):
            yield Variant("half-accumulation", f"{words} {half}", replace(rule, half=half, half_at=place))  # type: ignore[arg-type]


def masks_of(has_padding: bool, windows: Sequence[int] = ()) -> tuple[Mask, ...]:
    """The masks a reference may have, the simplest first."""
    plain, causal = Mask(), Mask(causal=0)
    found = (Mask(padding="real"), Mask(causal=0, padding="real"), plain, causal) if has_padding else (plain, causal)
    return (*found, *(replace(mask, window=window) for window in windows for mask in found))
