"""What the Sides of torch and paddle share: a tree of modules, run under hooks and replayed one by one. Knows neither library."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import numpy as np

from isomorph.errors import UsageError
from isomorph.tensors import Manifest, TensorSpec
from isomorph.tensors import dtype as dtype_of
from isomorph.trace.calling import bound, failed, parameters, plain_attributes, unknown
from isomorph.trace.flatten import leaves
from isomorph.trace.nouns import Array, Call, Capture, ModuleFacts, Site
from isomorph.trace.protocol import Inputs
from isomorph.trace.recorder import Library, Recorder, arguments_of
from isomorph.trace.untouched import untouched

MOST_KEPT = 1 << 20
"""Elements: larger buffers are tables that nothing writes into; they are not kept to be put back."""


class ModuleSide(ABC):
    """One model. `lifted`: how many casts to float32 the last run had and did not do, because it was in float64."""

    library: str
    title: str
    dtype: str
    lifted: int = 0

    def __init__(self, model: Any, title: str, entry: str | None) -> None:
        """`entry` names a method that is run in the place of the forward (`get_image_features`)."""
        self.model = model
        self.title = title
        self.entry = entry
        self._every: dict[str, Any] = dict(self._walk(model, "", ()))
        self._first: dict[int, str] = {}
        for name, module in self._every.items():
            self._first.setdefault(id(module), name)
        self._facts: Mapping[str, ModuleFacts] | None = None
        self._named = {name: module for name, module in self._every.items() if self._first[id(module)] == name}
        self._places = {
            _joined(prefix, key): (module, number, key)
            for prefix, module in self._every.items()
            for number, table in enumerate(self._tables(module))
            for key in table
        }

    # What a library has to say

    @property
    @abstractmethod
    def kit(self) -> Library:
        """Its tensors, as the recorder asks of them."""

    @abstractmethod
    def copy(self, dtype: str) -> ModuleSide: ...

    @abstractmethod
    def fill(self, state: Mapping[str, Array]) -> None: ...

    @abstractmethod
    def _state(self) -> dict[str, Any]:
        """The tensors of the state dict themselves."""

    @abstractmethod
    def _below(self, module: Any) -> Mapping[str, Any]:
        """Its direct children."""

    @abstractmethod
    def _tables(self, module: Any) -> Sequence[Mapping[str, Any]]:
        """Its own parameters, its own buffers."""

    @abstractmethod
    def _address(self, tensor: Any) -> Any:
        """Equal for tensors that are one."""

    @abstractmethod
    def _array(self, tensor: Any) -> Array:
        """A copy of its values, bit for bit."""

    @abstractmethod
    def _write(self, tensor: Any, array: Array) -> None:
        """Overwrite its values, rounding to its dtype."""

    @abstractmethod
    def _hook(self, module: Any, before: Callable[..., Any], after: Callable[..., Any] | None) -> Callable[[], None]:
        """`before(args, kwargs)` gives what to call with or None, `after(output)` what to return. Gives what takes both away."""

    @abstractmethod
    def _settings(self, path: Hashable) -> AbstractContextManager[None]:
        """No gradients, own random numbers, and so on; all put back afterwards.

        `path` is the same for runs that take the same way through the code: what the first has shown need not be looked for again.
        """

    # The Side

    def manifest(self) -> Manifest:
        """The tensors of the state dict; what else it holds is left out."""
        specs = {
            name: TensorSpec(dtype_of(self.kit.spelled(value)), tuple(int(size) for size in value.shape))
            for name, value in self._state().items()
        }
        return Manifest(specs, origin=self.title, shared=tuple(self.ties()))

    def ties(self) -> Sequence[tuple[str, ...]]:
        """Names of the state dict that lie on the same elements."""
        groups: dict[Any, list[str]] = {}
        for name, value in self._state().items():
            groups.setdefault(self._address(value), []).append(name)
        return [tuple(names) for names in groups.values() if len(names) > 1]

    def modules(self) -> Mapping[str, ModuleFacts]:
        """By first name. `own` of a module that has several names lists its tensors under each of them. Made once."""
        if self._facts is None:
            self._facts = self._made_facts()
        return self._facts

    def _made_facts(self) -> Mapping[str, ModuleFacts]:
        known = self._state()
        own: dict[str, list[str]] = {name: [] for name in self._named}
        buffers: dict[str, list[str]] = {name: [] for name in self._named}
        for prefix, module in self._every.items():
            for table, lists in zip(self._tables(module), ((own,), (own, buffers)), strict=True):
                for lists_of in lists:
                    names = (_joined(prefix, key) for key in table)
                    lists_of[self._first[id(module)]] += [name for name in names if name in known]
        return {
            name: ModuleFacts(
                name,
                type(module).__name__,
                tuple(own[name]),
                tuple(dict.fromkeys(self._first[id(child)] for child in self._below(module).values())),
                plain_attributes(module),
                tuple(buffers[name]),
            )
            for name, module in self._named.items()
        }

    def takes(self) -> Sequence[tuple[str, bool]]:
        return parameters(self._forward)

    def state(self) -> dict[str, Array]:
        return {name: self._array(value) for name, value in self._state().items()}

    def run(
        self, inputs: Inputs, *, watch: Collection[str] | None = None, splice: Mapping[Site, Array] | None = None
    ) -> Capture:
        watched = set(self._named) if watch is None else {self._canonical(name) for name in watch}
        put = {site._replace(module=self._canonical(site.module)): array for site, array in (splice or {}).items()}
        recorder = Recorder(self.kit, watched, put, self.title)
        args, kwargs = bound(inputs, self.takes(), self._forward, self.title, self._input)
        kwargs |= self._asked(args, kwargs)
        hooked = watched | {site.module for site in put}
        by_hand = "" in hooked and self.entry is not None
        with self._quiet(self._named.values(), path_of(inputs)), ExitStack() as hooks:
            for name in hooked:
                if name or not by_hand:
                    hooks.callback(self._watch(name, recorder))
            try:
                if by_hand:
                    args, kwargs = recorder.begin("", args, kwargs) or (args, kwargs)
                output = self._called(*args, **kwargs)
                if by_hand:
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
        """`attributes` may be dotted: `dropout.p` is an attribute of a child. What is replaced is put back, on errors too."""
        call = Call(self._canonical(call.module), call.call)
        frame = capture.frames.get(call)
        if frame is None:
            raise UsageError(f"{self.title}: {call.module or 'the model'} was not watched in a call {call.call}")
        module = self._named[call.module]
        args, kwargs = arguments_of(frame, capture, call, inputs or {}, self.kit, self.title)
        inside = {id(one): one for _, one in self._walk(module, "", ())}.values()
        path = call.module, repr(sorted((attributes or {}).items(), key=str)), frame.dtypes
        with self._quiet(inside, path), self._other_state(state or {}), ExitStack() as hooks:
            for name, value in (attributes or {}).items():
                self._set(module, call.module, name, value)
            called = module if call.module else self._called
            if called is module:  # the arguments as they were seen: after what the user's own hooks made of them
                hooks.callback(self._hook(module, lambda *_: (args, kwargs), None))
            try:
                output = called(*args, **kwargs)
            except (Exception, SystemExit) as error:
                raise failed(self.title, call.module, inputs or {}, error) from error
            return [np.array(self.kit.seen(tensor)) for _, tensor in leaves(output, self.kit.is_tensor)]

    # How

    @property
    def _called(self) -> Callable[..., Any]:
        found: Callable[..., Any] = self.model if self.entry is None else getattr(self.model, self.entry)
        return found

    @property
    def _forward(self) -> Callable[..., Any]:
        found: Callable[..., Any] = self.model.forward if self.entry is None else self._called
        return found

    def _walk(self, module: Any, name: str, above: tuple[int, ...]) -> Iterator[tuple[str, Any]]:
        yield name, module
        for key, child in self._below(module).items():
            if id(child) not in above:
                yield from self._walk(child, _joined(name, key), (*above, id(module)))

    def _canonical(self, name: str) -> str:
        if name not in self._every:
            raise unknown(name, self._every, f"the modules of {self.title}")
        return self._first[id(self._every[name])]

    def _input(self, array: Array) -> Any:
        """As the model takes it: numbers of its own dtype, whole numbers as int64."""
        if array.dtype.kind in "iu":
            return self.kit.made(array, "int64")
        return self.kit.made(array, "bool" if array.dtype.kind == "b" else self.dtype)

    def _asked(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """transformers' models are asked for outputs with names, where their config says tuples."""
        if getattr(getattr(self.model, "config", None), "return_dict", None) is not False or "return_dict" in kwargs:
            return {}
        try:
            inspect.signature(self._forward).bind(*args, **kwargs, return_dict=True)
        except (TypeError, ValueError):
            return {}
        return {"return_dict": True}

    def _watch(self, name: str, recorder: Recorder) -> Callable[[], None]:
        return self._hook(
            self._named[name],
            lambda args, kwargs: recorder.begin(name, args, kwargs),
            lambda output: recorder.end(name, output),
        )

    def _set(self, module: Any, where: str, name: str, value: Any) -> None:
        *path, last = name.split(".")
        for key in path:
            module = getattr(module, key, None)
        if not hasattr(module, last):
            raise unknown(name, vars(module) if module is not None else (), f"the attributes of {where or self.title}")
        try:
            setattr(module, last, value)
        except (AttributeError, TypeError, ValueError) as error:
            raise UsageError(f"{self.title}: {where}.{name} cannot be set to {value!r}: {error}") from error

    @contextmanager
    def _quiet(self, modules: Collection[Any], path: Hashable) -> Iterator[None]:
        """What these modules hold is put back, and the program's settings."""
        with untouched(modules, lambda: self._kept(modules)), self._settings(path):
            yield

    def _kept(self, modules: Collection[Any]) -> Callable[[], None]:
        """The values of buffers, to be put back where the run wrote into them (running statistics, counters)."""
        buffers = {id(one): one for module in modules for one in self._tables(module)[1].values()}
        kept = [
            (one, self._array(one))
            for one in buffers.values()
            if one is not None and np.prod(one.shape, dtype=np.int64) <= MOST_KEPT
        ]

        def restore() -> None:
            for one, before in kept:
                if self._array(one).tobytes() != before.tobytes():
                    self._write(one, before)

        return restore

    @contextmanager
    def _other_state(self, state: Mapping[str, Array]) -> Iterator[None]:
        before: list[tuple[Any, Array]] = []
        try:
            for name, array in state.items():
                tensor = self._checked({name: self._place(name)}, name, array)
                before.append((tensor, self._array(tensor)))
                self._write(tensor, np.asarray(array))
            yield
        finally:
            for tensor, values in reversed(before):
                self._write(tensor, values)

    def _place(self, name: str) -> Any:
        """The tensor of that name itself. Raises UsageError where there is none."""
        if name in self._places:
            module, number, key = self._places[name]
            found = self._tables(module)[number].get(key)
            if found is not None:
                return found
        known = self._state()
        if name not in known:
            raise unknown(name, known, f"the state dict of {self.title}")
        return known[name]

    def _checked(self, held: Mapping[str, Any], name: str, array: Array) -> Any:
        """The tensor of that name. Raises UsageError where there is none, or its shape is another."""
        if name not in held:
            raise unknown(name, held, f"the state dict of {self.title}")
        if tuple(held[name].shape) != tuple(np.shape(array)):
            raise UsageError(
                f"`{name}` of {self.title} has the shape {list(held[name].shape)}; values of {list(np.shape(array))} were given"
            )
        return held[name]


def path_of(inputs: Inputs) -> Hashable:
    """Equal for inputs that lead the same way through a model's code: the shapes of all, and what is masked."""
    named = inputs.items() if isinstance(inputs, Mapping) else enumerate(inputs)
    return tuple((name, np.shape(one), _mask(np.asarray(one))) for name, one in named)


def _mask(array: Array) -> bytes | None:
    """The bits of a mask; None for numbers."""
    is_mask = array.size > 0 and (array.dtype.kind == "b" or (array.min() >= 0 and array.max() <= 1))
    return np.asarray(array == 1).tobytes() if is_mask else None


def _joined(prefix: str, key: str) -> str:
    return f"{prefix}.{key}" if prefix else key
