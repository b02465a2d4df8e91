"""The inert records that a pickle is read into. None of them does anything; they say what the pickle said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Mismatch(Exception):
    """A known name that is called with arguments it is never called with; the text says why. Rendered by the interpreter."""


class Mapping_(dict[Any, Any]):
    """An OrderedDict (or a defaultdict, a Counter): a dict that BUILD may set attributes on, which are dropped."""

    __slots__ = ()


class Set(list[Any]):
    """A set, its items in the order of the pickle: nothing is hashed."""

    __slots__ = ()


class FrozenSet(list[Any]):
    """A frozenset, likewise; nothing is added to one."""

    __slots__ = ()


class Text(str):
    """A short byte string or an argument of `_codecs.encode`, and where its `nbytes` bytes lie in the pickle."""

    __slots__ = ("encoding", "nbytes", "offset")
    offset: int
    nbytes: int
    encoding: str | None


class Payload:
    """`nbytes` bytes at `offset` of the pickle, not read. `value` holds them too when they are few."""

    __slots__ = ("encoding", "nbytes", "offset", "value")

    def __init__(self, offset: int, nbytes: int, encoding: str | None = None, value: bytes | None = None) -> None:
        self.offset = offset
        self.nbytes = nbytes
        self.encoding = encoding
        self.value = value


class Storage:
    """What a persistent id says: element type, key, number of elements; `view` is (key, offset, numel) in old files."""

    __slots__ = ("dtype", "key", "kind", "location", "numel", "view")

    def __init__(
        self, dtype: str, kind: str, key: str, location: str, numel: int, view: tuple[str, int, int] | None
    ) -> None:
        self.dtype = dtype
        self.kind = kind
        self.key = key
        self.location = location
        self.numel = numel
        self.view = view


class Saved:
    """A storage that was pickled by itself: `payload` is a whole legacy torch file of that one storage."""

    __slots__ = ("payload",)

    def __init__(self, payload: Payload) -> None:
        self.payload = payload


class Tensor:
    """A strided view of a storage, as the pickle says it: unchecked, in elements. `oddity` says why it cannot be carried."""

    __slots__ = ("dtype", "oddity", "offset", "shape", "storage", "strides")

    def __init__(
        self, storage: Any, offset: Any, shape: Any, strides: Any, dtype: str | None = None, oddity: str | None = None
    ) -> None:
        self.storage = storage
        self.offset = offset
        self.shape = shape
        self.strides = strides
        self.dtype = dtype
        self.oddity = oddity


class NumpyDType:
    """`numpy.dtype(code)` and its metadata; `order` is `<`, `>` or `|`; `odd` when it is structured. BUILD sets the last three."""

    __slots__ = ("code", "metadata", "odd", "order")

    def __init__(self, code: str) -> None:
        self.code = code
        self.metadata: Any = None
        self.order = "|"
        self.odd = False

    def build(self, state: Any) -> None:
        if type(state) is not tuple or not 3 <= len(state) <= 9 or state[1] not in ("<", ">", "|", "="):
            raise Mismatch("its state is not a dtype's")
        self.order = "<" if state[1] == "=" else str(state[1])
        self.odd = any(part is not None for part in state[2:5])
        self.metadata = state[8] if len(state) == 9 else None


class Array:
    """A numpy array: `payload` holds its elements, column-major when `fortran`. `payload` is a list for object arrays."""

    __slots__ = ("dtype", "fortran", "payload", "shape")

    def __init__(self) -> None:
        self.shape: Any = None
        self.dtype: Any = None
        self.fortran = False
        self.payload: Any = None

    def build(self, state: Any) -> None:
        if type(state) is not tuple or len(state) not in (4, 5):
            raise Mismatch("its state is not an array's")
        self.shape, self.dtype, self.fortran, self.payload = state[-4:]


class Object:
    """Anything else that is allowed: a Namespace, a path, a device, a date, a module of a TorchScript archive. Never made."""

    __slots__ = ("args", "kind", "name", "state")

    def __init__(self, name: str, kind: str, args: tuple[Any, ...]) -> None:
        self.name = name
        self.kind = kind
        self.args = args
        self.state: Any = None


class Global:
    """A name that the pickle uses. `kind` is what it stands for; `call` what calling it gives (None: it is never called)."""

    __slots__ = ("call", "kind", "module", "name", "value")

    def __init__(
        self, module: str, name: str, kind: str, call: Callable[[tuple[Any, ...]], Any] | None = None, value: str = ""
    ) -> None:
        self.module = module
        self.name = name
        self.kind = kind
        self.call = call
        self.value = value

    @property
    def full_name(self) -> str:
        return f"{self.module}.{self.name}"


def payload_of(value: Any) -> Payload | None:
    """Where the bytes of a byte string lie; None when `value` is none."""
    if type(value) is Payload:
        return value
    if type(value) is Text:
        raw = value.encode("latin-1", "replace") if len(value) <= 256 else None
        return Payload(value.offset, value.nbytes, value.encoding, raw)
    return None


def check_key(key: Any) -> None:
    """Keys are atoms or short tuples of atoms: what is hashed is bounded."""
    if isinstance(key, str | int | float | bool | None) or type(key) in (Global, Object, NumpyDType, Payload, Tensor):
        return
    if type(key) is tuple and len(key) <= 8 and all(isinstance(part, str | int | float | bool | None) for part in key):
        return
    raise Mismatch(f"a {type(key).__name__.lower()} is a key of a dict")
