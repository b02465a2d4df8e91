"""What hooks do at the borders of modules, whatever the library: copy the tensors, count the calls, put other tensors in place."""

from __future__ import annotations

import weakref
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from isomorph.errors import UsageError
from isomorph.trace.flatten import leaves, replace, snapshot
from isomorph.trace.nouns import Array, Call, Capture, Site


class Library(Protocol):
    """What the recorder asks of a library."""

    def is_tensor(self, value: Any) -> bool:
        """A dense tensor."""

    def is_kept(self, value: Any) -> bool:
        """A tensor or a module: never copied by a snapshot."""

    def seen(self, tensor: Any) -> Array:
        """Its values as a Capture holds them; memory may be shared."""

    def spelled(self, tensor: Any) -> str:
        """The name of its dtype: "float32", "int64" …"""

    def made(self, array: Array, dtype: str) -> Any:
        """A new tensor of these values and this dtype, where the model is."""


@dataclass(frozen=True)
class Slot:
    """The place of a tensor in the arguments of a call."""

    index: int


@dataclass(frozen=True)
class Frame:
    """How a module was called: its arguments with a Slot for each tensor, and of each tensor its dtype and the first place where
    the same object stood."""

    arguments: tuple[tuple[Any, ...], dict[str, Any]]
    dtypes: tuple[str, ...]
    same: tuple[int, ...]


@dataclass
class Recorder:
    """Fed by hooks, in one run."""

    library: Library
    watched: Collection[str]
    splice: Mapping[Site, Array]
    title: str
    values: dict[Site, Array] = field(default_factory=dict)
    dtypes: dict[Site, str] = field(default_factory=dict)
    began: list[Call] = field(default_factory=list)
    ended: list[Call] = field(default_factory=list)
    frames: dict[Call, Any] = field(default_factory=dict)
    spliced: set[Site] = field(default_factory=set)
    _calls: dict[str, int] = field(default_factory=dict)
    _open: list[Call] = field(default_factory=list)
    _copies: dict[int, tuple[Any, Array]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._spliced_modules = {site.module for site in self.splice}

    def begin(self, module: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        """A module is called: what it is to be called with instead, if anything is put in place."""
        call = Call(module, self._calls.get(module, 0))
        self._calls[module] = call.call + 1
        self._open.append(call)
        arguments, is_changed = self._put((args, kwargs), call, "in")
        if module in self.watched:
            self.began.append(call)
            held, tensors = self._emptied(arguments)
            self._keep(tensors, call, "in")
            first: dict[int, int] = {}
            self.frames[call] = Frame(
                held,
                tuple(self.library.spelled(tensor) for tensor in tensors),
                tuple(first.setdefault(id(tensor), index) for index, tensor in enumerate(tensors)),
            )
        return arguments if is_changed else None

    def end(self, module: str, output: Any) -> Any:
        """It returns: what it is to return."""
        while self._open and self._open[-1].module != module:
            self._open.pop()  # a call that raised, and was caught by the model
        if not self._open:
            return output
        call = self._open.pop()
        output, _ = self._put(output, call, "out")
        if module in self.watched:
            self.ended.append(call)
            self._keep(self._tensors(output), call, "out")
        return output

    def capture(self, output: Any) -> Capture:
        """What was seen; `output` is what the model returned. UsageError where no tensor came out, or a splice was not met."""
        missed = [site for site in self.splice if site not in self.spliced]
        if missed:
            raise UsageError(f"{self.title}: nothing passed {missed[0]}, where a tensor was to be put in place")
        outputs = {path: self._copied(tensor) for path, tensor in leaves(output, self.library.is_tensor)}
        if not outputs:
            raise UsageError(
                f"{self.title} returned no tensor but a {type(output).__name__}: "
                "return a tensor, or tensors in a tuple, dict or dataclass"
            )
        return Capture(
            self.values, tuple(self.began), tuple(self.ended), outputs, frames=self.frames, dtypes=self.dtypes
        )

    def _put(self, value: Any, call: Call, border: Any) -> tuple[Any, bool]:
        wanted = {
            site.index: site
            for site in (self.splice if call.module in self._spliced_modules else ())
            if (site.module, site.call, site.border) == (*call, border)
        }
        if not wanted:
            return value, False
        tensors = [tensor for _, tensor in leaves(value, self.library.is_tensor)]
        new = {}
        for index, site in wanted.items():
            if index >= len(tensors):
                raise UsageError(f"{self.title}: {site} is not there; {len(tensors)} tensors pass")
            array, tensor = np.asarray(self.splice[site]), tensors[index]
            if array.shape != tuple(tensor.shape):
                raise UsageError(
                    f"{self.title}: {site} has the shape {list(tensor.shape)}; {list(array.shape)} was to be put in its place"
                )
            new[index] = self.library.made(array, self.library.spelled(tensor))
            self.spliced.add(site)
        return replace(value, new, self.library.is_tensor), True

    def _tensors(self, value: Any) -> list[Any]:
        if self.library.is_tensor(value):
            return [value]
        return [tensor for _, tensor in leaves(value, self.library.is_tensor)]

    def _emptied(self, arguments: tuple[tuple[Any, ...], dict[str, Any]]) -> tuple[Any, list[Any]]:
        """A copy of the arguments with a Slot for each tensor, and the tensors."""
        args, kwargs = arguments
        tensors: list[Any] = []
        held: list[Any] = []
        for one in (*args, *kwargs.values()):
            if self.library.is_tensor(one):
                held.append(Slot(len(tensors)))
                tensors.append(one)
            elif one is None or one.__class__ in (bool, int, float, str):
                held.append(one)
            else:  # containers and objects
                tensors = self._tensors(arguments)
                slots = {index: Slot(index) for index in range(len(tensors))}
                return replace(snapshot(arguments, self.library.is_kept), slots, self.library.is_tensor), tensors
        return (tuple(held[: len(args)]), dict(zip(kwargs, held[len(args) :], strict=True))), tensors

    def _keep(self, tensors: list[Any], call: Call, border: Any) -> None:
        for index, tensor in enumerate(tensors):
            site = Site(*call, border, index)
            self.values[site] = self._copied(tensor)
            self.dtypes[site] = self.library.spelled(tensor)

    def _copied(self, tensor: Any) -> Array:
        """A copy of its values as they are now; one copy serves every place that the same values pass."""
        array = self.library.seen(tensor)
        held = self._copies.get(id(tensor))
        if held is not None and held[0]() is tensor and _is_same(held[1], array):
            return held[1]
        copied = np.array(array, order="C", copy=True)
        copied.flags.writeable = False
        try:
            self._copies[id(tensor)] = (weakref.ref(tensor), copied)
        except TypeError:
            return copied
        return copied


def arguments_of(
    frame: Frame, seen: Capture, call: Call, inputs: Mapping[int, Array], library: Library, title: str
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of that call once more, with these tensors replaced. One object stays one if its values do."""
    for index, array in inputs.items():
        if not 0 <= index < len(frame.dtypes):
            raise UsageError(f"{title}: {Site(*call, 'in', index)} is not there; {len(frame.dtypes)} tensors go in")
        if np.ndim(array) == 0 and seen.values[Site(*call, "in", index)].ndim:
            raise UsageError(f"{title}: {Site(*call, 'in', index)} is given a single number")
    tensors: dict[int, Any] = {}
    arrays: dict[int, Array] = {}
    for index, dtype in enumerate(frame.dtypes):
        arrays[index] = np.asarray(inputs.get(index, seen.values[Site(*call, "in", index)]))
        first = frame.same[index]
        is_one = first != index and _is_same(arrays[first], arrays[index])
        tensors[index] = tensors[first] if is_one else library.made(arrays[index], dtype)
    held = snapshot(frame.arguments, library.is_kept)
    args, kwargs = replace(held, tensors, lambda one: isinstance(one, Slot))
    return args, kwargs


def _is_same(one: Array, other: Array) -> bool:
    return one is other or (one.dtype == other.dtype and one.shape == other.shape and np.array_equal(one, other))
