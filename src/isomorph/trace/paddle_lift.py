"""float64 throughout, in paddle: inside a float64 copy's run, casts to float32 and tensors made in float32 become float64.

Paddle's layers call the operators of `paddle._C_ops`: while a run goes on, those stand behind functions that change the dtype asked
for. Some kernels hold their numbers as float32 whatever their tensors are (1e-5 is 9.99999974e-6 there); layer_norm and pow are
computed here from others, with the numbers as they are. What is cast to float16 or bfloat16 is left as it is: a fault to be seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import paddle
from paddle import _C_ops


@dataclass
class Lifted:
    """How many casts and creations became float64."""

    count: int = 0

    def dtype(self, given: Any) -> Any:
        if type(given) is type(paddle.float32) and given in (paddle.float32, paddle.complex64):
            self.count += 1
            return paddle.float64 if given == paddle.float32 else paddle.complex128
        return given


@contextmanager
def float64_throughout(lifted: Lifted) -> Iterator[None]:
    """Inside, what would be float32 is float64; numbers without a dtype too. Operators and default dtype are put back after."""
    names = [name for name in dir(_C_ops) if not name.startswith("_") and callable(getattr(_C_ops, name))]
    before = {name: getattr(_C_ops, name) for name in names}
    exact: dict[str, Callable[..., Any]] = {"layer_norm": _layer_norm, "rms_norm": _rms_norm, "pow": _pow}
    default = paddle.get_default_dtype()
    try:
        paddle.set_default_dtype("float64")
        for name, operator in before.items():
            setattr(_C_ops, name, _lifting(operator, exact.get(name), lifted))
        yield
    finally:
        for name, operator in before.items():
            setattr(_C_ops, name, operator)
        paddle.set_default_dtype(default)


def _lifting(operator: Callable[..., Any], exact: Callable[..., Any] | None, lifted: Lifted) -> Callable[..., Any]:
    def called(*args: Any, **kwargs: Any) -> Any:
        given = [value for value in kwargs.values() if value is not None]  # out=None is given, and says nothing
        if exact is not None and not given and args[0].dtype == paddle.float64:
            return exact(*args)
        if kwargs:
            kwargs = {name: lifted.dtype(value) for name, value in kwargs.items()}
        return operator(*[lifted.dtype(value) for value in args], **kwargs)

    return called


def _layer_norm(x: Any, weight: Any, bias: Any, epsilon: float, axis: int) -> Any:
    """Over the axes from `axis` on."""
    axes = list(range(axis, x.ndim))
    centred = x - x.mean(axes, keepdim=True)
    normed = centred / paddle.sqrt((centred * centred).mean(axes, keepdim=True) + epsilon)
    normed = normed if weight is None else normed * weight.reshape(x.shape[axis:])
    return normed if bias is None else normed + bias.reshape(x.shape[axis:])


def _rms_norm(x: Any, weight: Any, shape: Any, epsilon: float) -> tuple[Any, Any]:
    """Over the last axes, as many as `shape` has; the second is the inverse deviation of each row."""
    axes = list(range(x.ndim - len(shape), x.ndim))
    inverse = 1.0 / paddle.sqrt((x * x).mean(axes, keepdim=True) + epsilon)
    normed = x * inverse
    return (normed if weight is None else normed * weight.reshape(list(shape))), inverse.flatten()


def _pow(x: Any, exponent: Any) -> Any:
    return paddle.pow(x, paddle.full_like(x, exponent))
