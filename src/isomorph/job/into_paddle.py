"""A checkpoint into a live Paddle layer: what `isomorph.paddle.load_model` does.

The whole way is proved against the model before a tensor is read. Then one tensor at a time is made and put in its place: there is
never a second copy of the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from isomorph.errors import MissingExtra, UsageError
from isomorph.job.loading import Held, Loaded, config_of, prepare, unequal_copies

if TYPE_CHECKING:
    import paddle


def load_model(
    model: paddle.nn.Layer,
    path: Any,
    morph: Any = None,
    *,
    to: str | None = None,
    from_: str | None = None,
    inverse: bool = False,
    config: Any = None,
    sizes: Mapping[str, int] | None = None,
    strict: bool = True,
    **axes: int,
) -> Loaded:
    """Fill `model` from the checkpoint at `path`; `missing, unexpected = load_model(…)`.

    `morph` is a file or a Morph (or a list, one after the other); `to` the model's layout in the catalogue, `from_` the source's,
    where it cannot be recognised. With neither, names and shapes are taken as they are.

    Parameters and persistable buffers are filled in place (`set_value`), those of a layer built under `paddle.LazyGuard` are made;
    all keep their dtype, and values are rounded to it (`model.to(dtype=…)` first for another). Parameters that are tied stay tied,
    and one name of them is enough. A morph that asks for the config is given the one beside the checkpoint, else the model's own.

    Raises MorphError, before anything is read, for keys that are missing or unexpected (not with `strict=False`: then they are
    returned), for shapes that differ, and for a parameter that would stay empty. Raises CheckError for values that break a tie of
    the model, or overflow its dtype. Raises UsageError for what is no layer, MissingExtra without paddle.
    """
    from isomorph.job.arrays import from_numpy, spec_of

    try:
        import paddle
    except ModuleNotFoundError:
        raise MissingExtra("isomorph.paddle.load_model", "paddle") from None

    if not isinstance(model, paddle.nn.Layer):
        raise UsageError(f"a paddle.nn.Layer is filled, not a {type(model).__name__}: give the model, built")
    state = model.state_dict()
    title = type(model).__name__
    empty = frozenset(name for name, value in state.items() if not value._is_initialized())
    held = Held(
        {name: spec_of(name, value) for name, value in state.items()}, _numbers(state), empty, title, config_of(model)
    )
    loading = prepare(
        held, path, morph, to=to, from_=from_, inverse=inverse, config=config, sizes={**(sizes or {}), **axes},
        dtype=None, strict=strict,
    )  # fmt: skip
    filled: dict[int, str] = {}
    for name, array in loading.arrays():
        number = held.tied[name]
        if number in filled:
            if not _equal(state[name], array):
                raise unequal_copies(filled[number], name, title)
            continue
        filled[number] = name
        state[name].set_value(from_numpy(array, "paddle"))
        del array
    return loading.loaded()


def _numbers(state: Mapping[str, Any]) -> dict[str, int]:
    return {name: id(value) for name, value in state.items()}


def _equal(tensor: Any, array: Any) -> bool:
    """True when every bit is the same."""
    import numpy as np

    from isomorph.job.arrays import to_numpy

    return np.ascontiguousarray(to_numpy("", tensor)).tobytes() == np.ascontiguousarray(array).tobytes()
