"""What a torch module must be for a trace: loaded, on one device, in evaluation mode, made of modules that hooks see."""

from __future__ import annotations

import types
from typing import Any

import torch

from isomorph.errors import UsageError
from isomorph.trace.side_checks import check_state

_WRAPPERS = ("DataParallel", "DistributedDataParallel", "FullyShardedDataParallel")


def check_module(model: torch.nn.Module, title: str) -> None:
    """Raises UsageError that says what to pass or do instead."""
    for name, module in model.named_modules():
        where = f"{title}: {name}" if name else title
        kinds = {base.__name__ for base in type(module).__mro__}
        if "OptimizedModule" in kinds or getattr(module, "_compiled_call_impl", None) is not None:
            raise UsageError(
                f"{where} is compiled, and hooks do not see into compiled code. "
                "Pass the model as it was before torch.compile (model._orig_mod)"
            )
        if isinstance(module, torch.jit.ScriptModule):
            raise UsageError(
                f"{where} is a ScriptModule, into which hooks do not see. Pass the Python module that it was made from"
            )
        for wrapper in _WRAPPERS:
            if wrapper in kinds:
                raise UsageError(f"{where} is wrapped in {wrapper}. Pass what is inside it: model.module")
    tensors = [*model.named_parameters(), *model.named_buffers()]
    for name, tensor in tensors:
        if torch.nn.parameter.is_lazy(tensor):
            raise UsageError(f"{title}: `{name}` has no shape yet. Run a batch through the model first")
        if tensor.is_meta:
            raise UsageError(f"{title}: `{name}` is on the meta device. Load the weights first")
    check_state(title, {str(tensor.device) for _, tensor in tensors}, is_training=model.training)


def check_copy(model: torch.nn.Module, copied: torch.nn.Module, title: str) -> None:
    """Raises UsageError where the copy would run the original's modules: functions that hold them are not copied."""
    originals = {id(module) for module in model.modules()}
    for name, module in copied.named_modules():
        for attribute, value in vars(module).items():
            if isinstance(value, types.FunctionType) and _held(value) & originals:
                raise UsageError(
                    f"{title}: {name or 'the model'} has a `{attribute}` that holds the module itself, so that a copy would run "
                    "the original. Pass the model as it was before that function was put in"
                )


def _held(function: Any) -> set[int]:
    """The modules that a function's closure and defaults hold, or bound methods in it."""
    cells = [cell.cell_contents for cell in function.__closure__ or () if cell != types.CellType()]
    values = [*cells, *(function.__defaults__ or ()), getattr(function, "__wrapped__", None)]
    return {id(getattr(one, "__self__", one)) for one in values}
