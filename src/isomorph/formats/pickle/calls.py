"""What calling the names that a pickle may use gives: inert records. Mismatch says what is odd about the arguments."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from isomorph.formats.pickle.dtypes import NUMPY_CODES
from isomorph.formats.pickle.objects import (
    Array,
    Global,
    Mapping_,
    Mismatch,
    NumpyDType,
    Object,
    Payload,
    Saved,
    Storage,
    Tensor,
    check_key,
    payload_of,
)

# --- torch


def storage_of(pid: Any) -> Storage:
    """The storage that a persistent id names: `('storage', class, key, location, numel[, view])`."""
    if type(pid) is not tuple or len(pid) not in (5, 6) or pid[0] != "storage":
        raise Mismatch("a persistent id that names no storage")
    _, kind, key, location, numel = pid[:5]
    if type(kind) is not Global or kind.kind != "storage":
        raise Mismatch("a persistent id whose class is no storage")
    if not isinstance(key, str) or not isinstance(location, str) or type(numel) is not int or not 0 <= numel < 1 << 63:
        raise Mismatch("a persistent id with a wrong key, location or number of elements")
    view = pid[5] if len(pid) == 6 else None
    if view is not None and not (
        type(view) is tuple
        and len(view) == 3
        and isinstance(view[0], str)
        and all(type(part) is int and 0 <= part < 1 << 63 for part in view[1:])
    ):
        raise Mismatch("a persistent id with a wrong view")
    return Storage(kind.value, kind.name, key, location, numel, view)


def make_saved(args: tuple[Any, ...]) -> Saved:
    """`_load_from_bytes(bytes)`: how pickle itself, not torch.save, writes a storage."""
    payload = payload_of(args[0]) if len(args) == 1 else None
    if payload is None or payload.encoding is not None:
        raise Mismatch("its bytes lie there as text (pickle it again with protocol 4, or use torch.save)")
    return Saved(payload)


def make_tensor(args: tuple[Any, ...]) -> Tensor:
    if not 4 <= len(args) <= 7:
        raise Mismatch(f"{len(args)} arguments")
    storage = args[0]
    if type(storage) is not Storage and type(storage) is not Saved:
        raise Mismatch("its first argument is not a storage")
    tensor = Tensor(storage, args[1], args[2], args[3])
    if len(args) == 7 and args[6]:
        tensor.oddity = _bits_of(args[6])
    return tensor


def make_tensor_v3(args: tuple[Any, ...]) -> Tensor:
    if not 7 <= len(args) <= 8:
        raise Mismatch(f"{len(args)} arguments")
    if type(args[6]) is not Global or args[6].kind != "dtype":
        raise Mismatch("its dtype is not one of torch's")
    tensor = make_tensor(args[:6])
    tensor.dtype = args[6].value
    if not tensor.dtype:
        tensor.oddity = f"of dtype torch.{args[6].name}, which isomorph does not have"
    elif len(args) == 8 and args[7]:
        tensor.oddity = _bits_of(args[7])
    return tensor


def _bits_of(metadata: Any) -> str | None:
    if not isinstance(metadata, dict) or not all(isinstance(key, str) for key in metadata):
        raise Mismatch("its metadata is not a dict")
    bits = [name for name, key in (("conjugate", "conj"), ("negative", "neg")) if metadata.get(key)]
    unknown = [key for key in metadata if key not in ("conj", "neg")]
    if bits:
        return (
            f"a lazily {' and '.join(bits)} view (its {'/'.join(key for key in metadata if metadata[key])} bit is set)"
        )
    return f"a tensor with metadata {unknown[0][:40]!r}" if unknown else None


def make_odd(oddity: str) -> Callable[[tuple[Any, ...]], Tensor]:
    return lambda args: Tensor(None, 0, (), (), oddity=oddity)


def make_parameter(args: tuple[Any, ...]) -> Tensor | Array:
    if not 1 <= len(args) <= 4 or type(args[0]) not in (Tensor, Array):
        raise Mismatch("its first argument is not a tensor")
    found: Tensor | Array = args[0]
    return found


def make_from_type(args: tuple[Any, ...]) -> Any:
    """`_rebuild_from_type_v2(function, type, arguments, state)`: the tensor itself; its Python attributes are dropped."""
    if (
        len(args) not in (3, 4)
        or type(args[0]) is not Global
        or args[0].kind != "rebuild"
        or type(args[2]) is not tuple
    ):
        raise Mismatch("it rebuilds no tensor")
    if type(args[1]) is not Global or args[1].kind not in ("tensor class", "unknown"):
        raise Mismatch("its type is not a tensor's")
    assert args[0].call is not None
    return args[0].call(args[2])


def make_size(args: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(args) != 1 or type(args[0]) not in (tuple, list):
        raise Mismatch("it is not given a tuple")
    return tuple(args[0])


def make_numpy_tensor(args: tuple[Any, ...]) -> Array:
    """`_rebuild_device_tensor_from_numpy(array, dtype, device, requires_grad)`."""
    if not args or type(args[0]) is not Array:
        raise Mismatch("its first argument is not an array")
    return args[0]


# --- numpy


def make_array(args: tuple[Any, ...]) -> Array:
    if len(args) != 3 or type(args[0]) is not Global or args[0].kind != "ndarray":
        raise Mismatch("it makes no numpy.ndarray")
    return Array()


def make_array_of_buffer(args: tuple[Any, ...]) -> Array:
    if len(args) not in (4, 5) or args[3] not in ("C", "F", "A", "K"):
        raise Mismatch("its arguments are not (buffer, dtype, shape, order)")
    array = Array()
    array.payload, array.dtype, array.shape, array.fortran = args[0], args[1], args[2], args[3] == "F"
    return array


def make_numpy_dtype(args: tuple[Any, ...]) -> NumpyDType:
    if not 1 <= len(args) <= 3:
        raise Mismatch(f"{len(args)} arguments")
    if isinstance(args[0], str):
        return NumpyDType(str(args[0]))
    if type(args[0]) is Global and args[0].kind == "numpy scalar":
        return NumpyDType(args[0].value)
    raise Mismatch("its argument is not a dtype's code")


def make_scalar(args: tuple[Any, ...]) -> Any:
    """`scalar(dtype, bytes)`: the Python number, so that it can be shown; an Object when it is none."""
    if len(args) != 2 or type(args[0]) is not NumpyDType:
        raise Mismatch("its arguments are not (dtype, bytes)")
    dtype = NUMPY_CODES.get(args[0].code.lstrip("<>|="))
    payload = payload_of(args[1])
    formats = {"bool": "?", "i8": "b", "i16": "h", "i32": "i", "i64": "q", "u8": "B", "u16": "H", "u32": "I", "u64": "Q",
               "f16": "e", "f32": "f", "f64": "d"}  # fmt: skip
    if dtype in formats and payload is not None and payload.value is not None:
        order = ">" if args[0].order == ">" else "<"
        if len(payload.value) != struct.calcsize(order + formats[dtype]):
            raise Mismatch("its bytes are not as many as its dtype has")
        return struct.unpack(order + formats[dtype], payload.value)[0]
    return Object(f"numpy {args[0].code[:20]} scalar", "value", ())


def make_jax_array(args: tuple[Any, ...]) -> Array:
    """`_reconstruct_array(numpy's _reconstruct, its arguments, the array's state, ...)`: the numpy array that it was pickled as."""
    if (
        len(args) not in (3, 4)
        or type(args[0]) is not Global
        or args[0].call is not make_array
        or type(args[1]) is not tuple
    ):
        raise Mismatch("it is not given numpy's _reconstruct")
    array: Array = make_array(args[1])
    array.build(args[2])
    return array


# --- builtins and friends


def make_mapping(args: tuple[Any, ...]) -> Mapping_:
    result = Mapping_()
    if len(args) > 1:
        raise Mismatch(f"{len(args)} arguments")
    if args:
        items = args[0].items() if isinstance(args[0], dict) else args[0]
        if not isinstance(args[0], dict | list | tuple):
            raise Mismatch("its argument is not a list of pairs")
        for item in items:
            if type(item) not in (tuple, list) or len(item) != 2:
                raise Mismatch("its argument is not a list of pairs")
            check_key(item[0])
            result[item[0]] = item[1]
    return result


def make_default_mapping(args: tuple[Any, ...]) -> Mapping_:
    if args and args[0] is not None and (type(args[0]) is not Global or args[0].kind == "unknown"):
        raise Mismatch("its factory is not a known class")
    return make_mapping(args[1:])


def make_sequence(kind: Callable[[Any], Any]) -> Callable[[tuple[Any, ...]], Any]:
    def call(args: tuple[Any, ...]) -> Any:
        if len(args) > 1 or (args and not isinstance(args[0], list | tuple)):
            raise Mismatch("its argument is not a list or a tuple")
        return kind(args[0]) if args else kind(())

    return call


def make_deque(args: tuple[Any, ...]) -> Any:
    return make_sequence(list)(args[:1] if len(args) == 2 else args)


def make_bytes(args: tuple[Any, ...]) -> Payload:
    if not args:
        return Payload(0, 0, None, b"")
    payload = payload_of(args[0])
    if len(args) != 1 or payload is None:
        raise Mismatch("its argument is not a byte string")
    return payload


def encode_text(args: tuple[Any, ...]) -> Payload:
    """`_codecs.encode(text, 'latin1')`: how protocol 2 writes bytes."""
    if len(args) != 2 or args[1] not in ("latin1", "latin-1"):
        raise Mismatch("it is not asked for latin-1")
    if args[0] == "" and isinstance(args[0], str):
        return Payload(0, 0, None, b"")
    payload = payload_of(args[0])
    if payload is None or payload.encoding is None:
        raise Mismatch("its bytes lie there as lines of text (protocol 0: pickle it again with protocol 2 or later)")
    return payload


def make_static_tensor(args: tuple[Any, ...]) -> Array:
    """The one shape in which Paddle's static graphs write a tensor: `eval('data', {'data': array})`. Matched, not executed."""
    if len(args) == 2 and args[0] == "data" and type(args[1]) is dict and list(args[1]) == ["data"]:
        found = args[1]["data"]
        if type(found) is Array:
            return found
    raise Mismatch("")


def make_object(name: str, kind: str) -> Callable[[tuple[Any, ...]], Object]:
    return lambda args: Object(name, kind, args)


def make_plain_object(args: tuple[Any, ...]) -> Any:
    """`copyreg._reconstructor(class, object, None)`: how protocols 0 and 1 make an object without calling it."""
    if len(args) != 3 or type(args[0]) is not Global or type(args[1]) is not Global or args[1].kind != "object":
        raise Mismatch("it makes no plain object")
    if args[0].call is None or args[0].kind not in ("namespace", "script", "mapping"):
        raise Mismatch(f"it makes a {args[0].full_name}")
    return args[0].call(())
