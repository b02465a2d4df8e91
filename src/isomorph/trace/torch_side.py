"""A torch module as a Side: run under hooks, replayed module by module, copied in another dtype. No gradients, nothing changed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch

from isomorph.errors import UsageError
from isomorph.tensors import Manifest, TensorSpec
from isomorph.tensors import dtype as dtype_of
from isomorph.trace.calling import bound, failed, parameters, plain_attributes, unknown
from isomorph.trace.flatten import leaves
from isomorph.trace.nouns import Array, Call, Capture, ModuleFacts, Site
from isomorph.trace.protocol import Inputs
from isomorph.trace.recorder import Recorder, arguments_of
from isomorph.trace.streams import Stream
from isomorph.trace.torch_checks import check_copy, check_module
from isomorph.trace.torch_lift import Lifted, float64_throughout
from isomorph.trace.untouched import untouched

_WIDE = (torch.float32, torch.float64, torch.complex64, torch.complex128, torch.bool)
_BITS = {1: (torch.uint8, np.uint8), 2: (torch.int16, np.int16)}
MOST_KEPT = 1 << 20
"""Elements: larger buffers are tables that nothing writes into; they are not kept to be put back."""


class TorchLibrary:
    """torch, as the recorder asks of it."""

    def __init__(self, device: torch.device, run: str) -> None:
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
        return str(tensor.dtype).removeprefix("torch.")

    def seen(self, tensor: torch.Tensor) -> Array:
        """Halves widened to float32, whole numbers to int64; in a float64 run, what is floating is float64."""
        tensor = tensor.detach()
        if tensor.is_floating_point() and tensor.dtype not in _WIDE:
            tensor = tensor.to(torch.float32)
        elif tensor.dtype not in _WIDE:
            tensor = tensor.to(torch.int64)
        tensor = tensor.cpu()
        found: Array = (tensor.resolve_conj().resolve_neg() if tensor.is_complex() else tensor).numpy()
        return found.astype(np.float64) if self.run == "float64" and found.dtype == np.float32 else found

    def made(self, array: Array, dtype: str) -> torch.Tensor:
        return tensor_of(array).to(self.device, getattr(torch, dtype))


class TorchSide:
    """One torch module. `lifted`: how many casts to float32 the last run had, and did not do, because it was in float64."""

    library = "torch"

    def __init__(
        self, model: torch.nn.Module, title: str | None = None, *, entry: str | None = None, stream: Stream | None = None
    ) -> None:
        """`entry` names a method that is run in the place of the forward (`get_image_features`).

        Raises UsageError for a model that cannot be watched (compiled, scripted, wrapped for several devices), that has no values
        yet, lies on several devices, or is in training mode.
        """
        self.model = model
        self.entry = entry
        self.title = title or f"{type(model).__name__}{f'.{entry}' if entry else ''} (torch)"
        check_module(model, self.title)
        self._named: dict[str, torch.nn.Module] = dict(model.named_modules())
        self._first = {id(module): name for name, module in self._named.items()}
        self._every = dict(model.named_modules(remove_duplicate=False))
        tensors = [*model.parameters(), *model.buffers()]
        self.device = tensors[0].device if tensors else torch.device("cpu")
        self.dtype = _most(list(model.parameters()) or tensors)
        self.lifted = 0
        self._streams = stream or Stream(self.title, partial(_random_state, self.device), partial(_put_random, self.device), torch.manual_seed)  # fmt: skip
        self._places = _places(self._every)

    @property
    def _called(self) -> Callable[..., Any]:
        found: Callable[..., Any] = self.model if self.entry is None else getattr(self.model, self.entry)
        return found

    def manifest(self) -> Manifest:
        """The tensors of the state dict; what else it holds is left out."""
        specs = {
            name: TensorSpec(dtype_of(str(value.dtype)), tuple(value.shape)) for name, value in self._state().items()
        }
        return Manifest(specs, origin=self.title, shared=tuple(self.ties()))

    def ties(self) -> Sequence[tuple[str, ...]]:
        """Names of the state dict that lie on the same elements of one storage."""
        groups: dict[Any, list[str]] = {}
        for name, value in self._state().items():
            where = (value.data_ptr(), value.dtype, tuple(value.shape), value.stride()) if value.numel() else id(value)
            groups.setdefault(where, []).append(name)
        return [tuple(names) for names in groups.values() if len(names) > 1]

    def modules(self) -> Mapping[str, ModuleFacts]:
        """By first name. `own` of a module that has several names lists its tensors under each of them."""
        known = self._state()
        own: dict[str, list[str]] = {name: [] for name in self._named}
        for prefix, module in self._every.items():
            begin = f"{prefix}." if prefix else ""
            held = [key for table in (module._parameters, module._buffers) for key in table]
            own[self._first[id(module)]] += [begin + key for key in held if begin + key in known]
        return {
            name: ModuleFacts(
                name,
                type(module).__name__,
                tuple(own[name]),
                tuple(self._first[id(child)] for child in module.children()),
                plain_attributes(module),
            )
            for name, module in self._named.items()
        }

    def takes(self) -> Sequence[tuple[str, bool]]:
        return parameters(self.model.forward if self.entry is None else self._called)

    def state(self) -> dict[str, Array]:
        return {name: array_of(value) for name, value in self._state().items()}

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
                raise UsageError(
                    f"{self.title} cannot be copied, and a trace runs copies only: copy.deepcopy(model) raised "
                    f"{type(error).__name__}: {error}. Keep what it names out of the module, or give the module a __deepcopy__"
                ) from error
            check_copy(self.model, model, self.title)
            _cast(model, getattr(torch, dtype))
        return TorchSide(model, self.title, entry=self.entry, stream=self._streams.branch())

    def fill(self, state: Mapping[str, Array]) -> None:
        """Raises UsageError for a name that the state dict lacks, or a shape that differs. Names left out keep their values."""
        known = self._state()
        for name, array in state.items():
            if name not in known:
                raise unknown(name, known, f"the state dict of {self.title}")
            if tuple(known[name].shape) != tuple(np.shape(array)):
                raise UsageError(
                    f"`{name}` of {self.title} has the shape {list(known[name].shape)}; values of {list(np.shape(array))} were given"
                )
        values = {name: tensor_of(np.asarray(array)) for name, array in state.items()}
        with torch.no_grad():
            self.model.load_state_dict(values, strict=False)

    def run(
        self, inputs: Inputs, *, watch: Collection[str] | None = None, splice: Mapping[Site, Array] | None = None
    ) -> Capture:
        watched = set(self._named) if watch is None else {self._canonical(name) for name in watch}
        put = {site._replace(module=self._canonical(site.module)): array for site, array in (splice or {}).items()}
        library = TorchLibrary(self.device, self.dtype)
        recorder = Recorder(library, watched, put, self.title)
        args, kwargs = bound(inputs, self.takes(), self._forward(), self.title, self._input)
        hooked = watched | {site.module for site in put}
        with self._quiet(), ExitStack() as hooks:
            for name in hooked:
                if name or self.entry is None:
                    self._hook(hooks, name, recorder)
            manual = "" in hooked and self.entry is not None
            try:
                if manual:
                    args, kwargs = recorder.begin("", args, kwargs) or (args, kwargs)
                output = self._called(*args, **kwargs)
                if manual:
                    output = recorder.end("", output)
            except UsageError:
                raise
            except (Exception, SystemExit) as error:
                raise failed(self.title, "", inputs, error) from error
            return recorder.capture(output)

    def replay(
        self,
        capture: Capture,
        call: Call,
        *,
        inputs: Mapping[int, Array] | None = None,
        state: Mapping[str, Array] | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> list[Array]:
        call = Call(self._canonical(call.module), call.call)
        frame = capture.frames.get(call)
        if frame is None:
            raise UsageError(f"{self.title}: {call.module or 'the model'} was not watched in a call {call.call}")
        module = self._named[call.module]
        library = TorchLibrary(self.device, self.dtype)
        args, kwargs = arguments_of(frame, capture, call, inputs or {}, library, self.title)
        with self._quiet(), self._other_state(state or {}), ExitStack() as hooks:
            for name, value in (attributes or {}).items():
                if not hasattr(module, name):
                    raise unknown(name, vars(module), f"the attributes of {call.module or self.title}")
                setattr(module, name, value)
            called = self._called if not call.module else module
            if called is module:  # the arguments as they were seen, after the user's own hooks
                handle = module.register_forward_pre_hook(lambda *_: (args, kwargs), with_kwargs=True)
                hooks.callback(handle.remove)
            try:
                output = called(*args, **kwargs)
            except (Exception, SystemExit) as error:
                raise failed(self.title, call.module, inputs or {}, error) from error
            return [np.array(library.seen(tensor)) for _, tensor in leaves(output, library.is_tensor)]

    def _state(self) -> dict[str, torch.Tensor]:
        return {
            name: value
            for name, value in self.model.state_dict(keep_vars=True).items()
            if isinstance(value, torch.Tensor)
        }

    def _canonical(self, name: str) -> str:
        if name not in self._every:
            raise unknown(name, self._every, f"the modules of {self.title}")
        return self._first[id(self._every[name])]

    def _forward(self) -> Callable[..., Any]:
        found: Callable[..., Any] = self.model.forward if self.entry is None else self._called
        return found

    def _input(self, array: Array) -> torch.Tensor:
        """As the model takes it: numbers of its own dtype, whole numbers as int64."""
        tensor = tensor_of(array)
        if tensor.is_floating_point():
            tensor = tensor.to(getattr(torch, self.dtype))
        elif not tensor.is_complex() and tensor.dtype != torch.bool:
            tensor = tensor.to(torch.int64)
        return tensor.to(self.device)

    def _hook(self, hooks: ExitStack, name: str, recorder: Recorder) -> None:
        def before(module: Any, args: Any, kwargs: Any) -> Any:
            return recorder.begin(name, args, kwargs)

        def after(module: Any, args: Any, kwargs: Any, output: Any) -> Any:
            return recorder.end(name, output)

        module = self._named[name]
        hooks.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
        hooks.callback(module.register_forward_hook(after, with_kwargs=True).remove)

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """No gradients, own random numbers, no fused shortcut that calls no modules, float64 throughout; all put back."""
        shortcut = torch.backends.mha.get_fastpath_enabled()
        lifted = Lifted()
        with ExitStack() as stack:
            stack.enter_context(untouched(self._named.values(), self._kept))
            stack.enter_context(torch.no_grad())
            stack.enter_context(self._streams.drawn())
            torch.backends.mha.set_fastpath_enabled(False)
            stack.callback(torch.backends.mha.set_fastpath_enabled, shortcut)
            if self.dtype == "float64":
                stack.enter_context(float64_throughout(lifted))
            try:
                yield
            finally:
                self.lifted = lifted.count

    def _kept(self) -> Callable[[], None]:
        """The values of buffers, to be put back where the run wrote into them (running statistics, counters)."""
        kept = [
            (buffer, buffer._version, buffer.clone()) for buffer in self.model.buffers() if buffer.numel() <= MOST_KEPT
        ]

        def restore() -> None:
            with torch.no_grad():
                for buffer, version, value in kept:
                    if buffer._version != version:
                        buffer.copy_(value)

        return restore

    @contextmanager
    def _other_state(self, state: Mapping[str, Array]) -> Iterator[None]:
        before: list[tuple[torch.Tensor, torch.Tensor]] = []
        try:
            for name, array in state.items():
                if name not in self._places:
                    raise unknown(name, self._places, f"the state dict of {self.title}")
                tensor = self._places[name]
                if tuple(tensor.shape) != tuple(np.shape(array)):
                    raise UsageError(
                        f"`{name}` of {self.title} has the shape {list(tensor.shape)}; {list(np.shape(array))} was given"
                    )
                before.append((tensor, tensor.detach().clone()))
                with torch.no_grad():
                    tensor.copy_(tensor_of(np.asarray(array)))
            yield
        finally:
            with torch.no_grad():
                for tensor, value in reversed(before):
                    tensor.copy_(value)


def tensor_of(array: Array) -> torch.Tensor:
    """A new tensor with the array's values and dtype (ml_dtypes' halves too); the array is not shared."""
    own = np.array(array, order="C", copy=True)
    if own.dtype.kind == "V" or own.dtype.name.startswith(("bfloat", "float8")):
        kind, bits = _BITS[own.dtype.itemsize]
        plain = torch.from_numpy(own.reshape(-1).view(bits))
        return plain.view(kind).view(getattr(torch, own.dtype.name)).reshape(own.shape)
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
    """The floating dtype that most elements have; the default dtype where there are none."""
    counts: dict[torch.dtype, int] = {}
    for tensor in tensors:
        if tensor.is_floating_point():
            counts[tensor.dtype] = counts.get(tensor.dtype, 0) + max(1, tensor.numel())
    found = max(counts, key=lambda dtype: counts[dtype]) if counts else torch.get_default_dtype()
    return str(found).removeprefix("torch.")


def _places(every: Mapping[str, torch.nn.Module]) -> dict[str, torch.Tensor]:
    """The parameters and buffers by their names, every name of a shared one."""
    return {
        f"{prefix}.{key}" if prefix else key: value
        for prefix, module in every.items()
        for table in (module._parameters, module._buffers)
        for key, value in table.items()
        if value is not None
    }


def _cast(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Every floating tensor that the modules hold, in place where it is shared: parameters, buffers, plain attributes."""
    wide = torch.complex128 if dtype == torch.float64 else torch.complex64
    made: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # each held, so that its id stays its own

    def to(tensor: torch.Tensor) -> torch.Tensor:
        goal = dtype if tensor.is_floating_point() else wide if tensor.is_complex() else tensor.dtype
        if tensor.dtype == goal:
            return tensor
        if id(tensor) not in made:
            made[id(tensor)] = (tensor, tensor.detach().to(goal))
        return made[id(tensor)][1]

    for parameter in model.parameters():
        parameter.data = to(parameter.data)
    for module in model.modules():
        for key, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[key] = to(buffer)
        for name, value in vars(module).items():
            if isinstance(value, torch.nn.Parameter):
                value.data = to(value.data)
            elif isinstance(value, torch.Tensor):
                vars(module)[name] = to(value)
            elif type(value) in (list, dict) and not name.startswith("_"):
                for key, held in enumerate(value) if isinstance(value, list) else list(value.items()):
                    if isinstance(held, torch.Tensor) and not isinstance(held, torch.nn.Parameter):
                        value[key] = to(held)


def _random_state(device: torch.device) -> Any:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _put_random(device: torch.device, state: Any) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
