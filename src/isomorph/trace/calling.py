"""The forward's parameters, inputs put to them, and what is said when a model does not run."""

from __future__ import annotations

import inspect
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from isomorph.errors import UsageError, near_misses, printable
from isomorph.trace.nouns import Array
from isomorph.trace.protocol import Inputs

_INTERNAL = {
    "_version", "_is_full_backward_hook", "_is_hf_initialized",
    "_built", "_helper", "_full_name", "_init_in_dynamic_mode", "_cast_to_low_precision",
}  # fmt: skip
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def parameters(function: Callable[..., Any]) -> list[tuple[str, bool]]:
    """(name, whether it must be given), without *args and **kwargs; nothing where the signature cannot be read."""
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    return [(one.name, one.default is inspect.Parameter.empty) for one in found if one.kind not in _VARIADIC]


def bound(
    inputs: Inputs,
    takes: Sequence[tuple[str, bool]],
    function: Callable[..., Any],
    title: str,
    convert: Callable[[Array], Any],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments for `function`. Raises UsageError for inputs that it does not take, or lacks."""
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    if isinstance(inputs, Mapping):
        kwargs = {name: convert(np.asarray(array)) for name, array in inputs.items()}
    else:
        args = tuple(convert(np.asarray(array)) for array in inputs)
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except TypeError as error:
        taken = ", ".join(name if needed else f"{name} (optional)" for name, needed in takes) or "nothing by name"
        raise UsageError(f"{title} cannot be called with {shown(inputs)}: {error}. It takes {taken}") from error
    except ValueError:
        pass  # a builtin without a signature: the call itself will tell
    return args, kwargs


def shown(inputs: Mapping[Any, Array] | Sequence[Array]) -> str:
    """`input_ids int64[2 7]`, for messages."""
    named = inputs.items() if isinstance(inputs, Mapping) else enumerate(inputs)
    texts = [f"{name} {np.asarray(one).dtype}[{' '.join(map(str, np.shape(one)))}]" for name, one in named]
    return ", ".join(texts) or "no inputs"


def failed(title: str, module: str, inputs: Mapping[Any, Array] | Sequence[Array], error: BaseException) -> UsageError:
    """A model, or a module of it, that raised."""
    where = f"{module} of {title} does not run alone" if module else f"{title} does not run"
    told = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".")
    return UsageError(
        f"{where} on {shown(inputs)}: {printable(told, 600)}. "
        "Try the same call on the model itself, and give --inputs that it takes"
    )


def unknown(name: str, known: Iterable[str], where: str) -> UsageError:
    likes = near_misses(name, known)
    return UsageError(f"`{name}` is not in {where}" + (f"; did you mean {' or '.join(likes)}?" if likes else ""))


def plain_attributes(module: Any) -> dict[str, int | float | bool | str]:
    """The instance attributes of a module that are numbers, booleans or texts; a library's own bookkeeping is left out."""
    found: dict[str, int | float | bool | str] = {}
    for name, value in vars(module).items():
        if name in _INTERNAL or name.startswith("__"):
            continue
        if isinstance(value, bool | str):
            found[name] = value
        elif isinstance(value, np.bool_):
            found[name] = bool(value)
        elif isinstance(value, numbers.Integral):
            found[name] = int(value)
        elif isinstance(value, numbers.Real):
            found[name] = float(value)
    return found
