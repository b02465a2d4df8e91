"""A checkpoint -> the reference model of its family, built and filled: what `isomorph.models.load` does.

The layout is recognised; config.json, or what shapes and the layout tell, says how the model is built; the names that the hub gives
the tensors say which heads it has. It is built without memory and filled straight from the file, one tensor at a time.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from isomorph.errors import MissingExtra, MorphError, UsageError
from isomorph.formats.base import Checkpoint
from isomorph.job.config import with_settings
from isomorph.job.inputs import open_sources
from isomorph.job.into_torch import load_model
from isomorph.job.port import Port, make_port
from isomorph.layouts.catalogue import find as layout_of
from isomorph.layouts.compose import added, axes_of, stripped

if TYPE_CHECKING:
    import torch

    from isomorph.language.morph import Morph
    from isomorph.layouts.route import Route

FAMILIES = ("bert", "clip", "t5", "vit")
"""Families with a reference model: `isomorph.models.<family>` has `build`, the catalogue `<family>/hf` and `<family>/fused_qkv`."""

UNREAD = "position_ids"
"""Written beside the weights by older libraries, counted from 0, and read by no model."""

MOST_SHOWN = 8


@dataclass(frozen=True)
class Found:
    """What a checkpoint says of its model: the family, the names its tensors have in the hub, the config to build with.

    `source_layout` and `source_config` are what the way from the file is found with, None where its names are the hub's and its
    shapes the model's; `dtype` is the widest of its numbers, at least float32.
    """

    family: str
    names: tuple[str, ...]
    config: Mapping[str, Any]
    source_layout: str | None
    source_config: Mapping[str, Any] | None
    dtype: str


def load_reference(
    path: Any,
    *,
    dtype: Any = None,
    device: Any = None,
    fused: bool = False,
    config: Any = None,
    from_: str | None = None,
    sizes: Mapping[str, int] | None = None,
    strict: bool = True,
    **axes: int,
) -> torch.nn.Module:
    """The reference model of a checkpoint in any layout of BERT, CLIP, T5 or ViT, in eval mode.

    `path` is a file or a folder, or what `isomorph.open` gave. `dtype` is the model's (torch.bfloat16 or "bf16"); where None,
    nothing is rounded: float32, or float64 where the file has that. `fused` makes q, k and v one matrix. `config` is the path of a
    config.json, a mapping, or transformers' object: a whole config, or single facts (`{"num_attention_heads": 12}`) that are put
    over the config.json beside the file. `from_`, `sizes` and `axes` are as in `isomorph.convert`.

    Raises UsageError for a family without a reference model, a fact of the config that nobody states, and tensors that the model
    has no place for (with `strict=False` they are left out); MissingExtra without torch; else what `load_model` raises.
    """
    try:
        import torch
    except ImportError:
        raise MissingExtra("isomorph.models.load", "torch") from None
    sizes = {**(sizes or {}), **axes}
    config = config.to_dict() if hasattr(config, "to_dict") else config
    if not isinstance(config, str | os.PathLike | Mapping | None):
        raise UsageError(
            f"config is a {type(config).__name__}: give the path of a config.json, a mapping, or transformers' object"
        )
    checkpoint = open_sources([path])
    try:
        try:
            found = find(checkpoint, config, from_, sizes)
        except MorphError:
            of_hub = find_by_names(checkpoint, config, from_, sizes)
            if of_hub is None:
                raise
            found = of_hub
        _check_lists(found.config)
        module = importlib.import_module(f"isomorph.models.{found.family}")
        try:
            with torch.device("meta"):
                model: torch.nn.Module = module.build(found.config, found.names, fused=fused)
        except ValueError as refused:
            raise UsageError(f"no reference model of {checkpoint.manifest.origin}: {refused}") from None
        way: dict[str, Any] = {
            "to": f"{found.family}/{'fused_qkv' if fused else 'hf'}",
            "from_": found.source_layout,
            "config": found.source_config,
            "sizes": sizes,
        }
        if found.source_layout is None:
            way = {"morph": _fusing(found) if fused else None}
        wanted = found.dtype if dtype is None else dtype
        loaded = load_model(model, checkpoint, **way, device=device, dtype=wanted, strict=False)
    finally:
        if isinstance(path, str | os.PathLike):
            checkpoint.close()
    left = [name for name in loaded.unexpected_keys if name.rpartition(".")[2] != UNREAD]
    if left and strict:
        shown = ", ".join(left[:MOST_SHOWN]) + (f" and {len(left) - MOST_SHOWN} more" if len(left) > MOST_SHOWN else "")
        raise UsageError(
            f"the reference {type(model).__name__} has no place for {len(left)} tensors: {shown}. "
            "Leave them out with  strict=False"
        )
    return model.eval()


def find(checkpoint: Checkpoint, config: Any, from_: str | None, sizes: Mapping[str, int]) -> Found:
    """Recognise the layout, and gather what building the model takes. Raises MorphError, UsageError; reads no tensor."""
    port = _told(checkpoint, config, sizes)
    family = _family(checkpoint, port, from_)
    port = replace(port, to=f"{family}/hf", from_=from_).settled(checkpoint.manifest)
    route, names = port.route, tuple(port.plan(checkpoint.manifest).targets)
    assert route is not None
    axes = {*route.target.family.axes, *axes_of(port.programs, port.config or {})}
    for size in sizes:
        if size not in axes:
            raise UsageError(
                f"{size} is neither an option of isomorph.models.load nor an axis of {route.source.layout}; "
                f"its axes are {', '.join(sorted(axes))}"
            )
    source_config = with_settings(port.asked.get("config"), {})
    return Found(family, names, _config(route), str(route.source.layout), source_config, _widest(checkpoint))


def find_by_names(checkpoint: Checkpoint, config: Any, from_: str | None, sizes: Mapping[str, int]) -> Found | None:
    """The same without the catalogue, for shapes that its hub does not have: patches that are not square, heads of another width.

    The names must be the hub's and a whole config there, and what is built from it must have these names and shapes; else None.
    """
    import torch

    told = _told(checkpoint, config, sizes).config or {}
    family = next((name for name in FAMILIES if layout_of(f"{name}/hf").family.is_kind(told.get("model_type"))), None)
    if family is None or from_ not in (None, f"{family}/hf"):
        return None
    _check_lists(told)
    shapes = {name: spec.shape for name, spec in checkpoint.manifest.items() if name.rpartition(".")[2] != UNREAD}
    try:
        with torch.device("meta"):
            model = importlib.import_module(f"isomorph.models.{family}").build(told, tuple(shapes))
    except ValueError:
        return None
    if shapes != {name: tuple(value.shape) for name, value in model.state_dict().items()}:
        return None
    return Found(family, tuple(shapes), told, None, None, _widest(checkpoint))


def _fusing(found: Found) -> Morph:
    """From the names that a checkpoint has, the hub's, to those of the fused model, both with the base prefix or without it."""
    layout = layout_of(f"{found.family}/fused_qkv")
    base, fuse = layout.family.base or "", layout.morph.inverse
    is_based = any(name.startswith(base) for name in found.names)
    return fuse if is_based else added(base) @ fuse @ stripped(base)


def _check_lists(config: Mapping[str, Any]) -> None:
    """Raise UsageError where the config has something else in the place of a list."""
    for key, kinds, said in (
        ("architectures", list | tuple | None, "a list"),
        ("id2label", Mapping | list | None, "a mapping or a list"),
    ):
        if not isinstance(config.get(key), kinds):
            raise UsageError(f"{key} is {config[key]!r} in the config: it must be {said}, or left out")


def _widest(checkpoint: Checkpoint) -> str:
    """The dtype in which no number of the checkpoint is rounded: f64 where it has that, else f32."""
    widest = max((spec.dtype.nbytes for spec in checkpoint.manifest.values() if spec.dtype.is_float), default=4)
    return "f64" if widest == 8 else "f32"


def _told(checkpoint: Checkpoint, config: Any, sizes: Mapping[str, int]) -> Port:
    """A port with the config that was given, or the one beside the file; single facts are put over that."""
    is_facts = isinstance(config, Mapping) and "model_type" not in config
    port = make_port(config=None if is_facts else config, sizes=sizes)
    port = replace(port, to="hf").with_config_beside(checkpoint.paths[:1])
    return replace(port, overrides=dict(_dotted(config))) if is_facts else port


def _dotted(config: Mapping[str, Any], above: str = "") -> Iterable[tuple[str, Any]]:
    """`{"vision_config": {"hidden_act": "gelu"}}` as vision_config.hidden_act, gelu."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _dotted(value, f"{above}{key}.")
        else:
            yield above + str(key), value


def _family(checkpoint: Checkpoint, port: Port, from_: str | None) -> str:
    """The family of a checkpoint, one with a reference model."""
    from isomorph.layouts.recognise import ambiguity, recognise

    only = None if from_ is None else layout_of(from_)
    seen = recognise(checkpoint.manifest, port.config, only=only, sizes=port.sizes)
    families = dict.fromkeys(one.family.name for one in (seen.layout, *(layout for layout, _ in seen.others)))
    ours = [name for name in families if name in FAMILIES]
    if not ours:
        raise UsageError(
            f"{checkpoint.manifest.origin} is {seen.layout}, and of {seen.layout.family.title} there is no reference model: "
            f"there are {', '.join(FAMILIES)}"
        )
    if seen.ambiguous and (len(ours) > 1 or seen.layout.family.name not in ours):
        raise ambiguity(seen)
    return seen.layout.family.name if seen.layout.family.name in ours else ours[0]


def _config(route: Route) -> Mapping[str, Any]:
    """The config to build with: the model's own, where it has one of this family; else what sizes, layout and the caller tell.

    Raises UsageError with every fact that nobody states.
    """
    from isomorph.layouts.config import port_config
    from isomorph.layouts.recipe import recipe

    family, own = route.target.family, route.given.get("model_type")
    of = recipe(family.name)
    assert of is not None
    if family.is_kind(own) or any(own == kind.model_type for kind in of.kinds if own is not None):
        classes = route.known.get("classes")
        states = any(key in route.given for key in ("num_labels", "id2label"))
        return {**route.given, "num_labels": classes} if classes is not None and not states else route.given
    try:
        made = port_config(route)
    except MorphError as asked:
        if asked.kinds != {"config"}:
            raise
        missing = [line for gap in asked.gaps for line in gap.details]
        keys = ", ".join(f'"{line.partition(":")[0]}": …' for line in missing)
        raise UsageError(
            f"no config.json says how {route.source.layout} is to be run. Give what its shapes do not tell, as  config={{{keys}}}  "
            "or the path of a config.json as  config=\n  " + "\n  ".join(missing)
        ) from None
    if made is None:
        raise UsageError(
            f"no kind of {family.title} model has only what {route.source.layout} holds here: give a whole config="
        )
    classes = route.known.get("classes")
    return made if classes is None else {"num_labels": classes, **made}
