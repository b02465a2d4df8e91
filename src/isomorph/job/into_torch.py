"""A checkpoint into a live torch module: what `isomorph.torch.load_model` does.

The whole way is proved against the model before a tensor is read. Then one tensor at a time is made and put in its place: there is
never a second copy of the model.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from isomorph.errors import MissingExtra, UsageError
from isomorph.job.loading import Held, Loaded, config_of, prepare, unequal_copies

if TYPE_CHECKING:
    import torch

Place = tuple[Any, str, bool]
"""(module, name of the attribute, whether it is a buffer)."""


def load_model(
    model: torch.nn.Module,
    path: Any,
    morph: Any = None,
    *,
    to: str | None = None,
    from_: str | None = None,
    inverse: bool = False,
    config: Any = None,
    sizes: Mapping[str, int] | None = None,
    device: Any = None,
    dtype: Any = None,
    strict: bool = True,
    **axes: int,
) -> Loaded:
    """Fill `model` from the checkpoint at `path`; `missing, unexpected = load_model(…)`.

    `morph` is a file or a Morph (or a list, one after the other); `to` the model's layout in the catalogue, `from_` the source's,
    where it cannot be recognised. With neither, names and shapes are taken as they are.

    Parameters on the meta device are made on `device` (the default device where None); all others are filled in place, so that an
    optimizer that holds them goes on working. A parameter keeps its dtype, values are rounded to it, unless `dtype` gives all
    floating ones another; `requires_grad` stays. Parameters that are tied stay tied, and one name of them is enough. Buffers that
    are not persistent are not touched; those left on the meta device are named in a warning, and in `Loaded.still_empty`. A morph
    that asks for the config is given the one beside the checkpoint, else the model's own.

    Raises MorphError, before anything is read, for keys that are missing or unexpected (not with `strict=False`: then they are
    returned), for shapes that differ, and for a parameter that would stay empty. Raises CheckError for values that break a tie of
    the model, or overflow its dtype. Raises UsageError for what is no module, MissingExtra without torch.
    """
    try:
        import torch
    except ModuleNotFoundError:
        raise MissingExtra("isomorph.torch.load_model", "torch") from None

    if not isinstance(model, torch.nn.Module):
        raise UsageError(f"a torch.nn.Module is filled, not a {type(model).__name__}: give the model, built")
    places = _places(model)
    state: dict[str, Any] = dict(model.state_dict(keep_vars=True))
    held = _held(model, state, places)
    wanted = None if dtype is None else _dtype(dtype)
    loading = prepare(
        held, path, morph, to=to, from_=from_, inverse=inverse, config=config, sizes={**(sizes or {}), **axes},
        dtype=wanted, strict=strict,
    )  # fmt: skip
    same: dict[int, list[Place]] = {}
    for name, number in held.tied.items():
        same.setdefault(number, []).append(places[name])
    filled: dict[int, str] = {}
    with torch.no_grad():
        for name, array in loading.arrays():
            number = held.tied[name]
            if number in filled:
                module, attribute, _ = places[name]
                if not _equal(getattr(module, attribute), array):
                    raise unequal_copies(filled[number], name, held.title)
                continue
            filled[number] = name
            _fill(state[name], array, same[number], device)
            del array
    empty = [name for name, buffer in model.named_buffers() if buffer.is_meta]
    if empty:
        shown = ", ".join(empty[:8]) + (f" and {len(empty) - 8} more" if len(empty) > 8 else "")
        message = f"buffers of {held.title} are still on the meta device, for no checkpoint holds them; compute them anew: {shown}"
        warnings.warn(message, stacklevel=2)
    return loading.loaded(empty)


def _places(model: torch.nn.Module) -> dict[str, Place]:
    """Where each name of the state dict lies; a shared module lies under several names."""
    places: dict[str, Place] = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        begin = f"{prefix}." if prefix else ""
        transient = module._non_persistent_buffers_set
        places.update(
            (begin + key, (module, key, False)) for key, held in module._parameters.items() if held is not None
        )
        places.update(
            (begin + key, (module, key, True))
            for key, held in module._buffers.items()
            if held is not None and key not in transient
        )
    return places


def _held(model: torch.nn.Module, state: Mapping[str, Any], places: Mapping[str, Place]) -> Held:
    import torch

    from isomorph.job.arrays import spec_of

    title = type(model).__name__
    foreign = [
        name for name, value in state.items() if name not in places or getattr(*places[name][:2], None) is not value
    ]
    if foreign:
        raise UsageError(
            f"the state dict of {title} is made by a hook: `{foreign[0]}` is no parameter or buffer of its own. "
            "Load it with  model.load_state_dict(plan.state_dict('torch'))"
        )
    lazy = next((name for name, value in state.items() if torch.nn.parameter.is_lazy(value)), None)
    if lazy is not None:
        raise UsageError(f"`{lazy}` of {title} has no shape yet: run a batch through the model first")
    specs = {name: spec_of(name, value) for name, value in state.items()}
    numbers = {name: id(value) for name, value in state.items()}
    empty = frozenset(name for name, value in state.items() if value.is_meta and not places[name][2])
    return Held(specs, numbers, empty, title, config_of(model))


def _fill(tensor: Any, array: Any, places: list[Place], device: Any) -> None:
    """Put the values where `tensor` is, in all its places."""
    import torch

    from isomorph.job.arrays import from_numpy

    values = from_numpy(array, "torch")
    goes = torch.device(device) if device is not None else _default() if tensor.is_meta else tensor.device
    if not tensor.is_meta and tensor.dtype == values.dtype and tensor.device == _resolved(goes):
        tensor.copy_(values)
        return
    values = values.to(goes)
    if places[0][2]:
        for module, key, _ in places:
            module._buffers[key] = values
    elif tensor.is_meta:
        made = torch.nn.Parameter(values, requires_grad=tensor.requires_grad)
        made.__dict__.update(tensor.__dict__)
        for module, key, _ in places:
            module._parameters[key] = made
    else:
        tensor.data = values


def _default() -> torch.device:
    """The device that tensors are made on; the CPU inside `with torch.device("meta")`."""
    import torch

    found = torch.empty(0).device
    return torch.device("cpu") if found.type == "meta" else found


def _resolved(device: torch.device) -> torch.device:
    """`cuda` as the `cuda:0` that tensors say they are on."""
    import torch

    return torch.empty(0, device=device).device


def _equal(tensor: Any, array: Any) -> bool:
    """True when every bit is the same."""
    import numpy as np

    from isomorph.job.arrays import to_numpy

    there = to_numpy("", tensor.data)
    return np.ascontiguousarray(there).tobytes() == np.ascontiguousarray(array).tobytes()


def _dtype(given: Any) -> Any:
    from isomorph.tensors import dtype

    try:
        found = dtype(str(given))
    except KeyError:
        found = None
    if found is None or not found.is_float:
        raise UsageError(f"dtype={given}: give a floating dtype, torch.bfloat16 or 'bf16'")
    return found
