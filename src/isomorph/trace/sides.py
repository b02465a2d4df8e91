"""A model or a function of any library -> its Side. Libraries are told by the names of classes; none is imported to look."""

from __future__ import annotations

import types
from typing import Any

from isomorph.errors import UsageError
from isomorph.trace.protocol import Side


def side_of(model: Any, title: str | None = None, *, library: str | None = None) -> Side:
    """The Side of a torch or paddle module, of a method bound to one (it is run in the place of the forward), or of a callable.

    `library` ("numpy", "torch", "paddle") says in what a plain callable takes its arrays, where that cannot be told from its code.
    Raises UsageError for what is no model, and for models that cannot be traced as they are.
    """
    entry = None
    if isinstance(model, types.MethodType) and library_of(model.__self__):
        entry, model = model.__name__, model.__self__
        if entry in ("forward", "__call__"):
            entry = None
    kind = library_of(model)
    if kind == "torch":
        from isomorph.trace.torch_side import TorchSide

        return TorchSide(model, title, entry=entry)
    if kind == "paddle":
        from isomorph.trace.paddle_side import PaddleSide

        return PaddleSide(model, title, entry=entry)
    if isinstance(model, type):
        raise UsageError(f"{model.__name__} is a class. Make a model of it first: {model.__name__}(…)")
    if callable(model):
        from isomorph.trace.callable_side import CallableSide

        return CallableSide(model, title, library=library)
    raise UsageError(
        f"{model!r:.60} is no model: pass a torch or paddle module with its weights loaded, or a function of arrays"
    )


def library_of(model: Any) -> str | None:
    """ "torch" or "paddle" for an instance of their modules; None for anything else."""
    if isinstance(model, type):
        return None
    for base in type(model).__mro__:
        if (base.__module__, base.__name__) == ("torch.nn.modules.module", "Module"):
            return "torch"
        if base.__module__.startswith("paddle.nn.layer") and base.__name__ == "Layer":
            return "paddle"
    return None
