"""A torch module as a Side: run under hooks, replayed module by module, copied in another dtype. No gradients, nothing changed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch

from isomorph.tensors import dtype as dtype_of
from isomorph.trace.module_side import ModuleSide
from isomorph.trace.nouns import Array
from isomorph.trace.side_checks import uncopied
from isomorph.trace.streams import Stream
from isomorph.trace.torch_checks import check_copy, check_module
from isomorph.trace.torch_lift import EVERYTHING, Lifted, Needs, float64_throughout, unwatched

_WIDE = (torch.float32, torch.float64, torch.complex64, torch.complex128, torch.bool)
_BITS = {1: (torch.uint8, np.uint8), 2: (torch.int16, np.int16)}


class TorchLibrary:
    """torch, as the recorder asks of it."""

    def __init__(self, device: torch.device | None, run: str) -> None:
        self.device = device
        self.run = run

    def is_tensor(self, value: Any) -> bool:
        return (
            isinstance(value, torch.Tensor)
            and value.layout == torch.strided
            and not (value.is_nested or value.is_quantized or value.is_meta)
        )

    def is_kept(self, value: Any) -> bool:
        return isinstance(value, torch.Tensor | torch.nn.Module | torch.dtype | torch.device | torch.Generator)

    def spelled(self, tensor: torch.Tensor) -> str:
        return _spelled(tensor.dtype)

    def seen(self, tensor: torch.Tensor) -> Array:
        """Halves widened to float32, whole numbers to int64; in a float64 run, what is floating is float64."""
        tensor = tensor.detach()
        if tensor.is_floating_point() and tensor.dtype not in _WIDE:
            tensor = tensor.to(torch.float64 if self.run == "float64" else torch.float32)
        elif tensor.dtype not in _WIDE:
            tensor = tensor.to(torch.int64)
        tensor = tensor.cpu()
        found: Array = (tensor.resolve_conj().resolve_neg() if tensor.is_complex() else tensor).numpy()
        return found.astype(np.float64) if self.run == "float64" and found.dtype == np.float32 else found

    def made(self, array: Array, dtype: str) -> torch.Tensor:
        return tensor_of(array).to(device=self.device, dtype=getattr(torch, dtype))


class TorchSide(ModuleSide):
    """One torch module, or a method of it."""

    library = "torch"

    def __init__(
        self,
        model: torch.nn.Module,
        title: str | None = None,
        *,
        entry: str | None = None,
        stream: Stream | None = None,
    ) -> None:
        """Raises UsageError for a model that cannot be watched (compiled, scripted, wrapped for several devices), that has no
        values yet, lies on several devices, or is in training mode.
        """
        title = title or f"{type(model).__name__}{f'.{entry}' if entry else ''} (torch)"
        check_module(model, title)
        super().__init__(model, title, entry)
        tensors = [*model.parameters(), *model.buffers()]
        self.device = tensors[0].device if tensors else torch.device("cpu")
        self.dtype = _most(list(model.parameters())) or _most(tensors) or _spelled(torch.get_default_dtype())
        self._stream = stream or stream_of(title, self.device)
        self._needs: dict[Hashable, Needs] = {}

    @property
    def kit(self) -> TorchLibrary:
        return TorchLibrary(self.device, self.dtype)

    def copy(self, dtype: str) -> TorchSide:
        """A deep copy, floating tensors cast: parameters, buffers (persistent or not) and tensors kept as attributes.

        Ties, training flags and the user's hooks are as on the model. Raises UsageError where the model cannot be copied.
        """
        with torch.no_grad():
            memo = {
                id(value): value.detach().clone()
                for module in self._named.values()
                for value in vars(module).values()
                if isinstance(value, torch.Tensor) and not value.is_leaf
            }
            try:
                model = copy.deepcopy(self.model, memo)
            except Exception as error:
                raise uncopied(self.title, "module", error) from error
            check_copy(self.model, model, self.title)
            _cast(model, getattr(torch, dtype))
            copied = TorchSide(model, self.title, entry=self.entry, stream=self._stream.branch())
            copied._needs = self._needs  # the code is the same
            state = copied._state()
            for first, *others in self.ties():  # parameters of their own on one storage are copied apart
                for name in others:
                    state[name].data = state[first].data
        return copied

    def fill(self, state: Mapping[str, Array]) -> None:
        """Raises UsageError for a name that the state dict lacks, or a shape that differs. Names left out keep their values."""
        known = self._state()
        for name, array in state.items():
            self._checked(known, name, array)
        with torch.no_grad():  # the model's own way in: its hooks may rename
            self.model.load_state_dict({name: tensor_of(np.asarray(one)) for name, one in state.items()}, strict=False)

    def _state(self) -> dict[str, torch.Tensor]:
        held = self.model.state_dict(keep_vars=True)
        return {name: value for name, value in held.items() if isinstance(value, torch.Tensor)}

    def _below(self, module: Any) -> Mapping[str, Any]:
        return {key: one for key, one in module._modules.items() if one is not None}

    def _tables(self, module: Any) -> Sequence[Mapping[str, Any]]:
        return module._parameters, module._buffers

    def _address(self, tensor: torch.Tensor) -> Any:
        if not tensor.numel():
            return id(tensor)
        return tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride()

    def _array(self, tensor: torch.Tensor) -> Array:
        return array_of(tensor)

    def _write(self, tensor: torch.Tensor, array: Array) -> None:
        with torch.no_grad():
            tensor.copy_(tensor_of(array))

    def _hook(self, module: Any, before: Callable[..., Any], after: Callable[..., Any] | None) -> Callable[[], None]:
        def begin(_: Any, args: Any, kwargs: Any) -> Any:
            with unwatched():
                return before(args, kwargs)

        def end(_: Any, args: Any, output: Any) -> Any:
            assert after is not None, "it was registered"
            with unwatched():
                return after(output)

        taken = [module.register_forward_pre_hook(begin, with_kwargs=True)]
        if after is not None:
            taken.append(module.register_forward_hook(end))

        def remove() -> None:
            for one in taken:
                one.remove()

        return remove

    @contextmanager
    def _settings(self, path: Hashable) -> Iterator[None]:
        """Also: no fused shortcut of torch's own encoder, which calls no modules; float64 throughout in a float64 run."""
        shortcut = torch.backends.mha.get_fastpath_enabled()
        lifted = Lifted()
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            stack.enter_context(self._stream.drawn())
            torch.backends.mha.set_fastpath_enabled(False)
            stack.callback(torch.backends.mha.set_fastpath_enabled, shortcut)
            if self.dtype == "float64":
                stack.enter_context(float64_throughout(lifted, self._needs.get(path, EVERYTHING)))
            try:
                yield
                if self.dtype == "float64":
                    self._needs.setdefault(path, lifted.needs)
            finally:
                self.lifted = lifted.count


def tensor_of(array: Array) -> torch.Tensor:
    """A new tensor with the array's values and dtype (ml_dtypes' halves too); the array is not shared."""
    own = np.array(array, order="C", copy=True)
    if own.dtype.kind == "V" or own.dtype.name.startswith(("bfloat", "float8")):
        bits = torch.from_numpy(own.reshape(-1).view(_BITS[own.dtype.itemsize][1]))
        return bits.view(getattr(torch, own.dtype.name)).reshape(own.shape)
    if own.dtype.kind == "u" and own.dtype.itemsize > 1:
        own = own.astype(np.int64)
    return torch.from_numpy(own.astype(own.dtype.newbyteorder("=")))


def array_of(tensor: torch.Tensor) -> Array:
    """A copy of its values, bit for bit, in the numpy dtype of the same kind."""
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    spelled = dtype_of(str(tensor.dtype))
    if spelled.name in ("bf16",) or spelled.name.startswith("f8"):
        bits: Array = plain.reshape(-1).view(_BITS[spelled.nbytes][0]).numpy()
        return bits.copy().view(spelled.numpy).reshape(tuple(tensor.shape))
    return np.array(plain.numpy(), copy=True)


def _most(tensors: Sequence[torch.Tensor]) -> str:
    """The floating dtype that most elements have; "" where there are none."""
    counts: dict[torch.dtype, int] = {}
    for tensor in tensors:
        if tensor.is_floating_point():
            counts[tensor.dtype] = counts.get(tensor.dtype, 0) + max(1, tensor.numel())
    return _spelled(max(counts, key=lambda dtype: counts[dtype])) if counts else ""


def _spelled(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _cast(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Every floating tensor that the modules hold: parameters in place, buffers and plain attributes anew, one for one."""
    wide = torch.complex128 if dtype == torch.float64 else torch.complex64
    made: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # the old ones are held, so that an id stays its own

    def cast(tensor: torch.Tensor) -> torch.Tensor:
        goal = dtype if tensor.is_floating_point() else wide if tensor.is_complex() else tensor.dtype
        if tensor.dtype == goal:
            return tensor
        if isinstance(tensor, torch.nn.Parameter):
            tensor.data = tensor.data.to(goal)
            return tensor
        return made.setdefault(id(tensor), (tensor, tensor.detach().to(goal)))[1]

    for module in model.modules():
        tables: list[dict[str, Any]] = [module._parameters, module._buffers, vars(module)]
        tables += [one for name, one in vars(module).items() if type(one) is dict and not name.startswith("_")]
        for table in tables:
            table.update({key: cast(one) for key, one in table.items() if isinstance(one, torch.Tensor)})
        for one in vars(module).values():
            if type(one) is list:
                one[:] = [cast(held) if isinstance(held, torch.Tensor) else held for held in one]


def stream_of(title: str, device: torch.device | None = None) -> Stream:
    """Random numbers of torch on the CPU, and on `device`."""
    device = device or torch.device("cpu")
    return Stream(title, partial(_random_state, device), partial(_put_random, device), torch.manual_seed)


def without_gradients() -> AbstractContextManager[None]:
    found: AbstractContextManager[None] = torch.no_grad()
    return found


def _random_state(device: torch.device) -> Any:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _put_random(device: torch.device, state: Any) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
