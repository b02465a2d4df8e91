"""float64 throughout: inside a float64 copy's run, torch's casts to float32 and tensors made in float32 become float64.

Many models hold float32 islands: `softmax(…, dtype=torch.float32)`, `x.float()` in norms, rotary tables, `torch.zeros(…,
dtype=torch.float32)`. They leave noise of 1e-7 in a float64 run, in which small faults hide. What is cast to float16 or bfloat16
is left as it is: that is a fault to be seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

_LIFTED = {torch.float32: torch.float64, torch.complex64: torch.complex128}
_READERS = (torch.tensor, torch.as_tensor, torch.asarray)
"""They round Python's numbers before any kernel is called: their dtype is changed where they are called."""
_FRESH = ("aten::lift_fresh", "aten::lift_fresh_copy", "aten::lift")
"""What torch calls on every tensor made of Python's numbers or of numpy's arrays."""


@dataclass
class Lifted:
    """How many casts and creations became float64."""

    count: int = 0

    def dtype(self, given: Any) -> Any:
        wider = _LIFTED.get(given) if isinstance(given, torch.dtype) else None
        self.count += wider is not None
        return given if wider is None else wider


class _Readers(TorchFunctionMode):
    def __init__(self, lifted: Lifted) -> None:
        super().__init__()
        self.lifted = lifted

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        wanted = dict(kwargs or {})
        if function in _READERS and wanted.get("dtype") in _LIFTED:
            wanted["dtype"] = self.lifted.dtype(wanted["dtype"])
        return function(*args, **wanted)


class _Kernels(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch is partly typed
    def __init__(self, lifted: Lifted) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lifted = lifted

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        wanted = {name: self.lifted.dtype(value) for name, value in (kwargs or {}).items()}
        made = function(*[self.lifted.dtype(value) for value in args], **wanted)
        if function._schema.name in _FRESH and made.dtype in _LIFTED:
            return made.to(self.lifted.dtype(made.dtype))
        return made


@contextmanager
def float64_throughout(lifted: Lifted) -> Iterator[None]:
    """Inside, what would be float32 is float64; numbers without a dtype too (the default dtype, put back afterwards)."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _Readers(lifted), _Kernels(lifted):
            yield
    finally:
        torch.set_default_dtype(before)
