"""What the opcodes of a pickle act on: names are looked up, records are called and filled, and what must not be is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn, Protocol

from isomorph.errors import FormatError, UnsafeError, printable
from isomorph.formats.pickle.calls import storage_of
from isomorph.formats.pickle.names import GLOBALS, SCRIPT_GLOBALS, script_class
from isomorph.formats.pickle.objects import (
    Array,
    Global,
    Mapping_,
    Mismatch,
    NumpyDType,
    Object,
    Storage,
    Text,
    check_key,
)

NOTHING_DONE = "Nothing was executed and nothing written."


class Bytes(Protocol):
    """Where a pickle is read from: `size` bytes, read by range."""

    @property
    def size(self) -> int: ...
    def read(self, offset: int, nbytes: int, /) -> bytes: ...


class Memory:
    """A pickle that is held whole."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)

    def read(self, offset: int, nbytes: int, /) -> bytes:
        return self.data if offset == 0 and nbytes >= self.size else self.data[offset : offset + nbytes]


class Machine:
    """Follows one pickle. `path` and `member` are where it lies, for messages; `start` its first byte.

    `storages`: persistent ids name storages (torch); otherwise they are refused. `script`: a TorchScript archive, whose own
    classes are records. `names`: what may be used besides the names that all pickles may use. After `run`, `end` is the first
    byte behind the pickle, `nodes` how many containers it made, and
    `storage_records` every storage it named, by key.
    """

    def __init__(
        self,
        source: Bytes,
        path: object,
        member: str = "",
        *,
        start: int = 0,
        storages: bool = False,
        script: bool = False,
        names: Mapping[tuple[str, str], Global] | None = None,
    ) -> None:
        self.source = source
        self.path = path
        self.member = member
        self.start = start
        self.storages = storages
        self.script = script
        self.end = start
        self.nodes = 0
        self.base = start
        self.storage_records: dict[str, Storage] = {}
        self._globals: dict[tuple[str, str], Global] = dict(names or {})
        self.unknown: tuple[Global, int] | None = None
        self.uncalled: dict[Global, int] = {}
        """Names that have a place only where they are called at once, and where they were found."""

    # --- messages

    def place(self, byte: int) -> str:
        return f"({self.member}, byte {byte})" if self.member else f"(byte {byte})"

    def broken(self, problem: str, byte: int) -> NoReturn:
        raise FormatError(self.path, f"a broken pickle: {problem} {self.place(byte)}")

    def too_much(self, what: str, byte: int) -> NoReturn:
        raise FormatError(self.path, f"its pickle has more than {what} {self.place(byte)}", NOTHING_DONE)

    def unsafe(self, verb: str, what: Global, byte: int) -> NoReturn:
        name = printable(what.full_name, 120)
        advice = NOTHING_DONE
        if verb == "build":
            verb = "build a"
            advice += " If the file is yours, save its state_dict() alone."
        raise UnsafeError(self.path, f"its pickle would {verb} {name} {self.place(byte)}", advice)

    def refused(self, what: str, byte: int) -> NoReturn:
        raise UnsafeError(self.path, f"its pickle {what} {self.place(byte)}", NOTHING_DONE)

    # --- what the opcodes act on

    def find(self, module: str, name: str, byte: int) -> Global:
        known = GLOBALS.get((module, name)) or self._globals.get((module, name))
        if known is not None:
            if known.kind == "saved":
                self.uncalled[known] = byte
            return known
        if self.script and (module, name) in SCRIPT_GLOBALS:
            return SCRIPT_GLOBALS[module, name]
        if self.script and (module == "__torch__" or module.startswith("__torch__.")):
            known = script_class(module, name)
        else:
            known = Global(module, name, "unknown")
            if self.unknown is None:
                self.unknown = (known, byte)
        self._globals[module, name] = known
        return known

    def call(self, function: Global, args: tuple[Any, ...], byte: int, verb: str) -> Any:
        if function.call is None:
            if function.kind != "unknown" and verb == "call":
                self.refused(f"calls {function.full_name}, which is never called in a checkpoint", byte)
            self.unsafe(verb, function, byte)
        self.uncalled.pop(function, None)
        try:
            return function.call(args)
        except Mismatch as error:
            if function.kind == "eval":
                self.unsafe("call", function, byte)
            self.refused(f"calls {function.full_name} as no checkpoint does: {error}", byte)

    def build(self, target: Any, state: Any, byte: int) -> None:
        kind = type(target)
        if kind is Array or kind is NumpyDType:
            try:
                target.build(state)
            except Mismatch as error:
                self.broken(str(error), byte)
        elif kind is Mapping_ and (isinstance(state, dict) or type(state) is tuple):
            pass  # attributes of the dict, such as _metadata: dropped
        elif kind is Object and target.kind in ("namespace", "script"):
            if type(state) is tuple and len(state) == 2 and state[0] is None:
                state = state[1]
            target.state = state
        elif kind is Object and target.kind == "value":
            pass
        elif kind is Global and target.kind == "unknown":
            self.unsafe("change", target, byte)
        else:
            self.broken(f"a state is set on a {kind.__name__.strip('_').lower()}, which has none", byte)

    def set(self, target: Any, items: list[Any], byte: int) -> None:
        if type(target) is not dict and type(target) is not Mapping_:
            self.broken(f"items are set in a {type(target).__name__.strip('_').lower()}, which is no dict", byte)
        if len(items) % 2:
            self.broken("a key without its value", byte)
        keys = items[::2]
        for key in keys:
            if type(key) is not str:
                try:
                    check_key(key)
                except Mismatch as error:
                    self.broken(str(error), byte)
        target.update(zip(keys, items[1::2], strict=True))

    def storage(self, pid: Any, byte: int) -> Storage:
        if not self.storages:
            self.refused("refers to something outside of it (a persistent id)", byte)
        if type(pid) is tuple and len(pid) == 4 and pid[0] == "module" and type(pid[1]) is Global:
            self.unsafe("build", pid[1], byte)  # a whole module of a legacy file, with its source beside its class
        try:
            storage = storage_of(pid)
        except Mismatch as error:
            self.broken(str(error), byte)
        first = self.storage_records.setdefault(storage.key, storage)
        if (first.kind, first.numel) != (storage.kind, storage.numel):
            self.broken(f"storage {printable(storage.key, 60)!r} has two types or two lengths", byte)
        return first if storage.view is None and first.view is None else storage

    def placed(self, value: str, position: int, nbytes: int) -> str:
        """The text with its place: an argument of `_codecs.encode`, or a letter, which Python shares among all its uses."""
        text = Text(value)
        text.offset, text.nbytes, text.encoding = position, nbytes, "utf8-latin1"
        return text
