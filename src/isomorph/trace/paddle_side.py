"""A paddle layer as a Side: run under hooks, replayed layer by layer, copied in another dtype. No gradients, nothing changed."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import numpy as np
import paddle

from isomorph.errors import UsageError
from isomorph.tensors import dtype as dtype_of
from isomorph.trace.module_side import ModuleSide
from isomorph.trace.nouns import Array
from isomorph.trace.paddle_lift import Lifted, float64_throughout
from isomorph.trace.side_checks import check_state, uncopied
from isomorph.trace.streams import Stream

_WIDE = ("float32", "float64", "complex64", "complex128", "bool")
_FLOATS = ("float64", "float32", "bfloat16", "float16")


class PaddleLibrary:
    """paddle, as the recorder asks of it."""

    def __init__(self, place: Any, run: str) -> None:
        self.place = place
        self.run = run

    def is_tensor(self, value: Any) -> bool:
        return isinstance(value, paddle.Tensor) and value.is_dense() and value._is_initialized()

    def is_kept(self, value: Any) -> bool:
        return isinstance(value, paddle.Tensor | paddle.nn.Layer | paddle.dtype)

    def spelled(self, tensor: Any) -> str:
        return str(tensor.dtype).removeprefix("paddle.")

    def seen(self, tensor: Any) -> Array:
        """Halves widened to float32, whole numbers to int64; in a float64 run, what is floating is float64."""
        spelled = self.spelled(tensor)
        if spelled not in _WIDE:
            tensor = tensor.cast(("float64" if self.run == "float64" else "float32") if "float" in spelled else "int64")
        found: Array = tensor.detach().numpy()
        return found.astype(np.float64) if self.run == "float64" and found.dtype == np.float32 else found

    def made(self, array: Array, dtype: str) -> Any:
        return tensor_of(array, dtype, self.place)


class PaddleSide(ModuleSide):
    """One paddle layer, or a method of it."""

    library = "paddle"

    def __init__(
        self, model: Any, title: str | None = None, *, entry: str | None = None, stream: Stream | None = None
    ) -> None:
        """Raises UsageError for a layer that cannot be watched, has no values yet, lies on several devices, or is in training
        mode.
        """
        title = title or f"{type(model).__name__}{f'.{entry}' if entry else ''} (paddle)"
        _check(model, title)
        super().__init__(model, title, entry)
        tensors = [*model.parameters(), *model.buffers()]
        self.place = tensors[0].place if tensors else None
        self.dtype = _most(model.parameters()) or _most(tensors) or paddle.get_default_dtype()
        self._stream = stream or stream_of(title)

    @property
    def kit(self) -> PaddleLibrary:
        return PaddleLibrary(self.place, self.dtype)

    def copy(self, dtype: str) -> PaddleSide:
        """A deep copy, floating tensors cast: parameters, buffers (persistable or not).

        Ties, training flags and the user's hooks are as on the layer. Raises UsageError where the layer cannot be copied.
        """
        with paddle.no_grad():
            try:
                model = copy.deepcopy(self.model)
            except Exception as error:
                raise uncopied(self.title, "layer", error) from error
            _cast(model, dtype)
        copied = PaddleSide(model, self.title, entry=self.entry, stream=self._stream.branch())
        state = copied._state()
        for first, *others in self.ties():  # parameters of their own on one storage are copied apart
            for name in others:
                if state[name] is not state[first]:
                    state[name].value().get_tensor()._share_data_with(state[first].value().get_tensor())
        return copied

    def fill(self, state: Mapping[str, Array]) -> None:
        """Raises UsageError for a name that the state dict lacks, or a shape that differs. Names left out keep their values."""
        known = self._state()
        for name, array in state.items():
            self._checked(known, name, array)
        for name, array in state.items():
            self._write(known[name], np.asarray(array))

    def _state(self) -> dict[str, Any]:
        return {name: value for name, value in self.model.state_dict().items() if isinstance(value, paddle.Tensor)}

    def _below(self, module: Any) -> Mapping[str, Any]:
        return {key: one for key, one in module._sub_layers.items() if one is not None}

    def _tables(self, module: Any) -> Sequence[Mapping[str, Any]]:
        return module._parameters, module._buffers

    def _address(self, tensor: Any) -> Any:
        return (tensor.data_ptr(), tuple(tensor.shape)) if tensor.size else id(tensor)

    def _array(self, tensor: Any) -> Array:
        return array_of(tensor)

    def _write(self, tensor: Any, array: Array) -> None:
        with paddle.no_grad():
            tensor.set_value(tensor_of(array, str(tensor.dtype).removeprefix("paddle."), tensor.place))

    def _hook(self, module: Any, before: Callable[..., Any], after: Callable[..., Any] | None) -> Callable[[], None]:
        taken = [module.register_forward_pre_hook(lambda _, args, kwargs: before(args, kwargs), with_kwargs=True)]
        if after is not None:
            taken.append(module.register_forward_post_hook(lambda _, args, output: after(output)))

        def remove() -> None:
            for one in taken:
                one.remove()

        return remove

    @contextmanager
    def _settings(self, path: Hashable) -> Iterator[None]:
        lifted = Lifted()
        with ExitStack() as stack:
            stack.enter_context(paddle.no_grad())
            stack.enter_context(self._stream.drawn())
            if self.dtype == "float64":
                stack.enter_context(float64_throughout(lifted))
            try:
                yield
            finally:
                self.lifted = lifted.count


def stream_of(title: str) -> Stream:
    return Stream(title, paddle.get_rng_state, paddle.set_rng_state, paddle.seed)


def without_gradients() -> AbstractContextManager[None]:
    found: AbstractContextManager[None] = paddle.no_grad()
    return found


def tensor_of(array: Array, dtype: str, place: Any = None) -> Any:
    """A new tensor of these values, rounded once to `dtype`."""
    goal = np.dtype(dtype_of(dtype).numpy)
    own = np.array(array, order="C", copy=True).astype(goal)
    if dtype == "bfloat16":
        return paddle.to_tensor(own.view(np.uint16), dtype="bfloat16", place=place)
    return paddle.to_tensor(own, place=place)


def array_of(tensor: Any) -> Array:
    """A copy of its values, bit for bit, in the numpy dtype of the same kind."""
    found: Array = np.array(tensor.detach().numpy(), copy=True)
    goal = dtype_of(str(tensor.dtype)).numpy
    return found if found.dtype == goal else found.view(goal)  # paddle hands out bfloat16 as uint16


def _check(model: Any, title: str) -> None:
    """Raises UsageError that says what to pass or do instead."""
    if "with_kwargs" not in inspect.signature(paddle.nn.Layer.register_forward_pre_hook).parameters:
        raise UsageError(f"{title}: this paddle shows hooks no keyword arguments: pip install -U paddlepaddle")
    for name, layer in model.named_sublayers(include_self=True):
        where = f"{title}: {name}" if name else title
        kinds = {base.__name__ for base in type(layer).__mro__}
        if "DataParallel" in kinds:
            raise UsageError(f"{where} is wrapped in DataParallel. Pass what is inside it: model._layers")
        if "TranslatedLayer" in kinds or "StaticFunction" in type(vars(layer).get("forward")).__name__:
            raise UsageError(
                f"{where} is a static program, into which hooks do not see. Pass the layer as it was before to_static or jit.save"
            )
    tensors = [*model.named_parameters(), *model.named_buffers()]
    for name, tensor in tensors:
        if not tensor._is_initialized():
            raise UsageError(f"{title}: `{name}` has no values yet. Load the weights first")
    check_state(title, {str(tensor.place) for _, tensor in tensors}, is_training=model.training)


def _most(tensors: Sequence[Any]) -> str:
    """The floating dtype that most elements have; "" where there are none."""
    counts: dict[str, int] = {}
    for tensor in tensors:
        spelled = str(tensor.dtype).removeprefix("paddle.")
        if spelled in _FLOATS:
            counts[spelled] = counts.get(spelled, 0) + max(1, int(tensor.size))
    return max(counts, key=lambda one: counts[one]) if counts else ""


def _cast(model: Any, dtype: str) -> None:
    """Every floating tensor that the layers hold, in place, so that what is tied stays tied."""
    model._to_impl(dtype=dtype, floating_only=True)
    for layer in model.sublayers(include_self=True):
        layer._dtype = dtype
