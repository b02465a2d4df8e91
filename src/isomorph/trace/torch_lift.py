"""float64 throughout: inside a float64 copy's run, torch's casts to float32 and tensors made in float32 become float64.

Many models hold float32 islands: `softmax(…, dtype=torch.float32)`, `x.float()` in norms, rotary tables, `torch.zeros(…,
dtype=torch.float32)`. They leave noise of 1e-7 in a float64 run, in which small faults hide. What is cast to float16 or bfloat16
is left as it is: that is a fault to be seen.

Watching every call costs more than the calls of a small model. `Needs` says which of the two watches a run had work for, so that
a later run of the same kind goes without the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

_LIFTED = {torch.float32: torch.float64, torch.complex64: torch.complex128}
_READERS = frozenset((torch.tensor, torch.as_tensor, torch.asarray))
"""They round Python's numbers before any kernel is called: their dtype is changed where they are called."""
_FRESH = ("aten::lift_fresh", "aten::lift_fresh_copy", "aten::lift")
"""What torch calls on every tensor made of Python's numbers or of numpy's arrays."""
_DTYPE = torch.dtype


class Needs(NamedTuple):
    """What must be watched: calls that read Python's numbers, and kernels."""

    readers: bool = True
    kernels: bool = True


EVERYTHING = Needs()


@dataclass
class Lifted:
    """How many casts and creations became float64."""

    readers: int = 0
    kernels: int = 0

    @property
    def count(self) -> int:
        return self.readers + self.kernels

    @property
    def needs(self) -> Needs:
        """What a run that does the same has to watch."""
        return Needs(self.readers > 0, self.kernels > 0)


class _Readers(TorchFunctionMode):
    def __init__(self, lifted: Lifted) -> None:
        super().__init__()
        self.lifted = lifted

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if not kwargs:
            return function(*args)
        if function in _READERS and kwargs.get("dtype") in _LIFTED:
            self.lifted.readers += 1
            return function(*args, **{**kwargs, "dtype": _LIFTED[kwargs["dtype"]]})
        return function(*args, **kwargs)


class _Kernels(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch is partly typed
    def __init__(self, lifted: Lifted) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lifted = lifted
        self.fresh: dict[Any, bool] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """False: torch's compiler need not be told to leave this alone, and is not imported for it (seconds)."""
        return False

    def _wide(self, value: Any) -> Any:
        wider = _LIFTED.get(value) if value.__class__ is _DTYPE else None
        if wider is None:
            return value
        self.lifted.kernels += 1
        return wider

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        for one in args:
            if one.__class__ is _DTYPE:
                args = [self._wide(value) for value in args]
                break
        if kwargs:
            made = function(*args, **{name: self._wide(value) for name, value in kwargs.items()})
        else:
            made = function(*args)
        is_fresh = self.fresh.get(function)
        if is_fresh is None:
            is_fresh = self.fresh[function] = function._schema.name in _FRESH
        if is_fresh and made.dtype in _LIFTED:
            return made.to(self._wide(made.dtype))
        return made


@contextmanager
def float64_throughout(lifted: Lifted, needs: Needs = EVERYTHING) -> Iterator[None]:
    """Inside, what would be float32 is float64; numbers without a dtype too (the default dtype, put back afterwards)."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with ExitStack() as modes:
            if needs.readers:
                modes.enter_context(_Readers(lifted))
            if needs.kernels:
                modes.enter_context(_Kernels(lifted))
            yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def unwatched() -> Iterator[None]:
    """Inside, tensors are read as they are: no watch is asked."""
    with torch._C._DisableTorchDispatch(), torch._C.DisableTorchFunction():
        yield
