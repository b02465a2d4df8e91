"""A plain function as a Side: nothing but its outputs is seen.

It is called with arrays of one library. That is what `library=` says; else the library that the function's own code refers to; else
those that are loaded are tried, numpy first, and the first that runs is kept.
"""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from isomorph.errors import UsageError
from isomorph.tensors import Manifest
from isomorph.trace.calling import bound, failed, parameters
from isomorph.trace.nouns import Array, Call, Capture, ModuleFacts, Site
from isomorph.trace.numpy_arrays import NumpyLibrary
from isomorph.trace.protocol import Inputs
from isomorph.trace.recorder import Library, Recorder
from isomorph.trace.streams import Stream

LIBRARIES = ("numpy", "torch", "paddle")


class CallableSide:
    """One function of arrays. It has no state dict and one module, itself, whose class is its own name."""

    library = "callable"
    lifted = 0

    def __init__(
        self,
        function: Callable[..., Any],
        title: str | None = None,
        *,
        library: str | None = None,
        dtype: str = "float32",
    ) -> None:
        """Raises UsageError for a library that is none of numpy, torch, paddle."""
        if library is not None and library not in LIBRARIES:
            raise UsageError(f'library={library!r}: a function takes arrays of "numpy", "torch" or "paddle"')
        self.function = function
        name = getattr(function, "__name__", type(function).__name__)
        self.title = title or f"{name} (function)"
        self.dtype = dtype
        self.arrays = library or referred(function)
        self._streams: dict[str, Stream] = {}

    def manifest(self) -> Manifest:
        return Manifest({}, origin=self.title)

    def ties(self) -> Sequence[tuple[str, ...]]:
        return ()

    def modules(self) -> Mapping[str, ModuleFacts]:
        return {"": ModuleFacts("", getattr(self.function, "__name__", type(self.function).__name__), (), (), {})}

    def takes(self) -> Sequence[tuple[str, bool]]:
        return parameters(self.function)

    def state(self) -> dict[str, Array]:
        return {}

    def copy(self, dtype: str) -> CallableSide:
        """The same function (it cannot be copied), given floating inputs of `dtype`."""
        return CallableSide(self.function, self.title, library=self.arrays, dtype=dtype)

    def fill(self, state: Mapping[str, Array]) -> None:
        """Raises UsageError: what a function holds cannot be overwritten."""
        if state:
            raise UsageError(f"{self.title} is a plain function: its weights cannot be set. Pass the model itself")

    def run(
        self, inputs: Inputs, *, watch: Collection[str] | None = None, splice: Mapping[Site, Array] | None = None
    ) -> Capture:
        tried: list[UsageError] = []
        for name in [self.arrays] if self.arrays else [one for one in LIBRARIES if one in sys.modules]:
            try:
                capture = self._run(name, inputs, watch is None or "" in watch, splice or {})
            except UsageError as error:
                tried.append(error)
                continue
            self.arrays = name
            return capture
        if len(tried) == 1:
            raise tried[0]
        raise UsageError(
            f'{tried[-1]}. It was tried with arrays of {len(tried)} libraries; say library="torch" where it takes torch tensors'
        ) from tried[0]

    def replay(
        self,
        capture: Capture,
        call: Call,
        *,
        inputs: Mapping[int, Array] | None = None,
        state: Mapping[str, Array] | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> list[Array]:
        """Raises UsageError: there are no modules inside a function."""
        raise UsageError(f"{self.title} is a plain function: no module of it can be run alone. Pass the model itself")

    def _run(self, name: str, inputs: Inputs, is_watched: bool, splice: Mapping[Site, Array]) -> Capture:
        kit, stream, settings = self._kit(name)
        recorder = Recorder(kit, {""} if is_watched else set(), splice, self.title)

        def convert(array: Array) -> Any:
            kind = array.dtype.kind
            return kit.made(array, "int64" if kind in "iu" else "bool" if kind == "b" else self.dtype)

        args, kwargs = bound(inputs, self.takes(), self.function, self.title, convert)
        with stream.drawn(), settings:
            try:
                args, kwargs = recorder.begin("", args, kwargs) or (args, kwargs)
                output = recorder.end("", self.function(*args, **kwargs))
            except UsageError:
                raise
            except (Exception, SystemExit) as error:
                raise failed(self.title, "", inputs, error) from error
            return recorder.capture(output)

    def _kit(self, name: str) -> tuple[Library, Stream, AbstractContextManager[Any]]:
        if name == "torch":
            from isomorph.trace import torch_side as side

            kit: Library = side.TorchLibrary(None, self.dtype)
            settings = side.without_gradients()
            stream = side.stream_of(self.title)
        elif name == "paddle":
            from isomorph.trace import paddle_side

            kit = paddle_side.PaddleLibrary(None, self.dtype)
            settings = paddle_side.without_gradients()
            stream = paddle_side.stream_of(self.title)
        else:
            kit = NumpyLibrary(self.dtype)
            settings = nullcontext()
            stream = Stream(self.title, lambda: None, lambda state: None, lambda seed: None)
        return kit, self._streams.setdefault(name, stream), settings


def referred(function: Any) -> str | None:
    """The library whose names a function's code refers to: the globals that it uses, its closure, what it is bound to."""
    for value in _used(function):
        if isinstance(value, types.ModuleType):
            root = value.__name__.partition(".")[0]
        else:
            kind = value if isinstance(value, type) else type(value)
            roots = {base.__module__.partition(".")[0] for base in kind.__mro__} | {
                str(getattr(value, "__module__", "")).partition(".")[0]
            }
            root = next((one for one in LIBRARIES if one in roots), "")
        if root in LIBRARIES:
            return root
    return None


def _used(function: Any, depth: int = 0) -> Iterator[Any]:
    """The objects that a function's code names, and those of the functions of its own module that it calls."""
    function = inspect.unwrap(getattr(function, "func", function))
    owner = getattr(function, "__self__", None)
    if owner is not None and not isinstance(owner, types.ModuleType):
        yield owner
        yield from getattr(owner, "__dict__", {}).values()
    plain = getattr(function, "__func__", function)
    if not isinstance(plain, types.FunctionType):
        yield from getattr(function, "__dict__", {}).values()
        plain = vars(type(function)).get("__call__")
    if not isinstance(plain, types.FunctionType) or depth > 2:
        return
    names = set(plain.__code__.co_names)
    found = [plain.__globals__[name] for name in sorted(names & plain.__globals__.keys())]
    found += [cell.cell_contents for cell in plain.__closure__ or () if cell != types.CellType()]
    yield from found
    for value in found:
        if isinstance(value, types.FunctionType) and value.__module__ == plain.__module__:
            yield from _used(value, depth + 1)
