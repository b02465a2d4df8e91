"""Saying why a checkpoint's layout is not known: what came nearest, what is missing or left over, what it is instead."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from isomorph.errors import Gap, near_misses, printable
from isomorph.layouts.catalogue import Layout
from isomorph.layouts.compose import quoted
from isomorph.layouts.fit import Fit
from isomorph.layouts.parts import LEAST_PART, PIECES, common_prefix, parts_of
from isomorph.tensors import Manifest

UNKNOWN = "no layout of the catalogue knows its names"
FOREIGN = {
    "lora_A": "These are the low-rank updates of another checkpoint (LoRA): merge them into it first",
    "lora_down": "These are the low-rank updates of another checkpoint (LoRA): merge them into it first",
    "qweight": "These are quantised weights (GPTQ, AWQ): convert the checkpoint that they were made from",
    "absmax": "These are quantised weights (bitsandbytes): convert the checkpoint that they were made from",
    "weight_scale_inv": "These are quantised weights (blocks of f8): convert the checkpoint that they were made from",
    "exp_avg": "These are an optimizer's averages: take the part that holds the weights",
}
"""Pieces of names that tell what a checkpoint is instead of a model."""
MOST_NAMED = 12
PLAIN = re.compile(r"[A-Za-z_][\w-]*([./][\w-]+)+", re.ASCII)
"""Names that a morph may have without quotes."""


def sizes_wanted(fits: Sequence[Fit]) -> Gap:
    """The question for sizes that a checkpoint of these names must be told, and, of several layouts, which it is."""
    best = max(fit.score.value for fit in fits)
    fits = sorted((fit for fit in fits if fit.score.value >= best - 1e-9), key=lambda fit: str(fit.layout))
    first, *others = fits
    axes = [axis for axis in first.layout.family.axes if any(axis in fit.wants for fit in fits)]
    told = "  ".join(f"--set {axis}=N" for axis in axes)
    if not others:
        return Gap(
            "layout",
            f"its names are those of {first.layout}, which must be told what neither shapes nor a config tell: {', '.join(axes)}",
            hint=f"Say:  {told}",
        )
    return Gap(
        "layout",
        f"its names fit {len(fits)} layouts: {', '.join(str(fit.layout) for fit in fits)}",
        details=tuple(f"{fit.layout}: {fit.layout.header.title}" for fit in fits),
        hint=f"Say which, and the sizes that neither shapes nor a config tell:  --from {first.layout}  {told}",
    )


def nothing_fits(
    manifest: Manifest, fits: Sequence[Fit], only: Layout | None, within: str | None, elsewhere: Layout | None
) -> Gap:
    """What a checkpoint is instead (`elsewhere`), which parts of it are models, or what came nearest and why it is not it."""
    if not manifest:
        return Gap("layout", "it holds no tensors", hint="Is it the right file?")
    if only is not None and elsewhere is not None:
        return Gap(
            "layout",
            f"it is not in {only}: its names are those of {elsewhere}",
            hint=f"Leave --from away, or  --from {elsewhere}",
            tensors=tuple(manifest)[:4],
        )
    best = max((fit.score.value for fit in fits), default=0.0)
    parts = parts_of(manifest) if best < LEAST_PART and only is None else []
    if len(parts) > 1:
        return Gap(
            "layout",
            f"it holds {len(parts)} sets of weights: {_listed([part.prefix for part in parts], MOST_NAMED)}",
            details=tuple(
                f"{printable(part.prefix)} {part.count:,} tensors, as {part.layout} names them"
                for part in parts[:MOST_NAMED]
            ),
            hint="Take one:  " + "  or  ".join(f"SRC#{printable(part.prefix.rstrip(PIECES))}" for part in parts[:4]),
        )
    if parts:
        (part,) = parts
        rest = [name for name in manifest if not name.startswith(part.prefix)]
        return Gap(
            "layout",
            f"below `{printable(part.prefix)}` are the names of {part.layout}"
            + (f", and beside them {_tensors(len(rest))} more" if rest else ""),
            details=(f"beside them: {_listed(rest, 4)}",) if rest else (),
            hint=f"Take that part alone:  SRC#{printable(part.prefix.rstrip(PIECES))}",
            tensors=tuple(rest),
        )
    if not fits:
        return Gap(
            "layout",
            f"it is not in {only}: none of its names is" if only else UNKNOWN,
            details=(f"it has {_listed(list(manifest), 4)}",),
            hint=_foreign(manifest)
            or "`isomorph layouts` lists what is known; another mapping is a morph of your own:  -m M.morph",
        )
    inside = [fit for fit in fits if fit.layout.family.name == within and fit.score.value >= 0.5 * best]
    return _gap_of(min(inside or fits, key=_distance), only)


def _distance(fit: Fit) -> tuple[float, ...]:
    """How far a layout is from a checkpoint: by the index, by names, by whether it can be planned at all, by shapes."""
    is_refused = bool(fit.gaps) and fit.plan is None and not fit.layout.is_hub
    clashes = len(fit.gaps) + len(fit.found.clashes)
    return -round(fit.score.value, 1), len(fit.unknown) + len(fit.missing), is_refused, clashes, -fit.score.value


def _listed(names: Sequence[str], most: int) -> str:
    return ", ".join(printable(name) for name in names[:most]) + (" …" if len(names) > most else "")


def _tensors(number: int) -> str:
    return f"{number:,} tensor" + ("" if number == 1 else "s")


def _gap_of(fit: Fit, only: Layout | None) -> Gap:
    details = [line for gap in fit.gaps[:MOST_NAMED] for line in str(replace(gap, hint=None)).split("\n")]
    if fit.unknown:
        details.append(f"{_tensors(len(fit.unknown))} that it does not know{_all_below(fit.unknown)}:")
        for name in fit.unknown[:MOST_NAMED]:
            near = near_misses(name, fit.missing)
            details.append(f"    {printable(name)}" + (f"   (is it {printable(near[0])}?)" if near else ""))
        if len(fit.unknown) > MOST_NAMED:
            details.append(f"    … and {len(fit.unknown) - MOST_NAMED:,} more")
    if fit.missing:
        are = "is" if len(fit.missing) == 1 else "are"
        details.append(f"{_tensors(len(fit.missing))} that it needs and that {are} not there{_all_below(fit.missing)}:")
        details += [f"    {printable(name)}" for name in fit.missing[:MOST_NAMED]]
        if len(fit.missing) > MOST_NAMED:
            details.append(f"    … and {len(fit.missing) - MOST_NAMED:,} more")
    through = f" (without the wrapper `{printable(fit.wrapper)}`)" if fit.wrapper else ""
    if not (fit.unknown or fit.missing) and any(gap.kind == "size" for gap in fit.gaps):
        message = f"it has the names of {fit.layout}{through}, but not its shapes"
    elif only is not None:
        message = f"it does not fit {only}{through}"
    else:
        message = f"it fits no layout of the catalogue; the nearest is {fit.layout}{through}"
    return Gap("layout", message, details=tuple(details), hint=_remedy(fit), tensors=fit.unknown + fit.missing)


def _remedy(fit: Fit) -> str:
    """What to do about a checkpoint that does not fit."""
    foreign = _foreign(fit.unknown)
    if foreign:
        return foreign
    if fit.unknown and not (fit.missing or fit.gaps):
        name = fit.wrapper + fit.unknown[0]
        written = name if PLAIN.fullmatch(name) else quoted(name)
        return f"A morph of your own leaves them out first:  drop {printable(written)}  (and so on), then  ** <-> **"
    if fit.gaps and not (fit.unknown or fit.missing):
        return next((gap.hint for gap in fit.gaps if gap.hint), None) or "Is the file what it is said to be?"
    if fit.missing and not fit.unknown:
        return "Is it the whole checkpoint (all its shards, all its layers)?"
    return f"Mend the names or the file; or begin with the layout's own text:  isomorph layouts {fit.layout}"


def _foreign(names: Iterable[str]) -> str | None:
    """What these names tell a checkpoint to be, where it is no model's weights."""
    pieces = {piece for name in names for piece in re.split(r"[./]", name)}
    return next((said for piece, said in FOREIGN.items() if piece in pieces), None)


def _all_below(names: Sequence[str]) -> str:
    """`, all below layers.7.`: what several names have in common, in whole pieces."""
    if len(names) < 3:
        return ""
    same = common_prefix(names)
    cut = max(same.rfind(piece) for piece in PIECES) + 1
    return f", all below {printable(same[:cut])}" if cut else ""
