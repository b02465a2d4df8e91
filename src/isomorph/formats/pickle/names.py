"""The exact list of names a pickle may use, and the record that calling each of them gives. Nothing named here is ever imported.

A pickle asks for `torch._utils._rebuild_tensor_v2(storage, 0, (3, 2), (2, 1), ...)`; here that name is a `Global`, and calling it
gives a `Tensor` record. A (module, name) pair that is not in `GLOBALS` is a `Global` of kind `unknown`: calling it, building it or
even naming it is refused by the interpreter.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from isomorph.formats.pickle.objects import (
    Array,
    Global,
    Mapping_,
    Mismatch,
    NumpyDType,
    Object,
    Payload,
    Storage,
    Tensor,
    check_key,
    payload_of,
)

TORCH_DTYPES = {
    "float32": "f32", "float": "f32", "float64": "f64", "double": "f64", "float16": "f16", "half": "f16", "bfloat16": "bf16",
    "int8": "i8", "int16": "i16", "short": "i16", "int32": "i32", "int": "i32", "int64": "i64", "long": "i64",
    "uint8": "u8", "uint16": "u16", "uint32": "u32", "uint64": "u64", "bool": "bool",
    "complex64": "c64", "cfloat": "c64", "complex128": "c128", "cdouble": "c128",
    "float8_e4m3fn": "f8e4m3", "float8_e5m2": "f8e5m2", "float8_e4m3fnuz": "f8e4m3fnuz", "float8_e5m2fnuz": "f8e5m2fnuz",
    "float8_e8m0fnu": "f8e8m0", "float4_e2m1fn_x2": "f4",
}  # fmt: skip
"""torch's dtypes that the notation has."""

OTHER_TORCH_DTYPES = (
    "complex32", "chalf", "quint8", "qint8", "qint32", "quint4x2", "quint2x4", "bits8", "bits16", "bits1x8", "bits2x4", "bits4x2",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in range(1, 8)),
)  # fmt: skip
"""torch's dtypes that are named, so that a file that only mentions one can be read; a tensor of one is refused."""

STORAGE_DTYPES = {
    "FloatStorage": "f32", "DoubleStorage": "f64", "HalfStorage": "f16", "BFloat16Storage": "bf16",
    "LongStorage": "i64", "IntStorage": "i32", "ShortStorage": "i16", "CharStorage": "i8", "ByteStorage": "u8",
    "BoolStorage": "bool", "ComplexFloatStorage": "c64", "ComplexDoubleStorage": "c128",
    "UntypedStorage": "u8", "_UntypedStorage": "u8",
}  # fmt: skip

QUANTISED_STORAGES = ("QInt8Storage", "QUInt8Storage", "QInt32Storage", "QUInt4x2Storage", "QUInt2x4Storage")

NUMPY_CODES = {
    "b1": "bool", "?": "bool", "i1": "i8", "i2": "i16", "i4": "i32", "i8": "i64",
    "u1": "u8", "u2": "u16", "u4": "u32", "u8": "u64", "f2": "f16", "f4": "f32", "f8": "f64", "c8": "c64", "c16": "c128",
}  # fmt: skip
"""What `numpy.dtype(code)` is, without its byte order."""

ML_DTYPES = {
    "bfloat16": "bf16", "float8_e4m3fn": "f8e4m3", "float8_e5m2": "f8e5m2",
    "float8_e4m3fnuz": "f8e4m3fnuz", "float8_e5m2fnuz": "f8e5m2fnuz", "float8_e8m0fnu": "f8e8m0",
}  # fmt: skip


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


def _tensor(args: tuple[Any, ...]) -> Tensor:
    if not 4 <= len(args) <= 7:
        raise Mismatch(f"{len(args)} arguments")
    storage = args[0]
    if type(storage) is not Storage:
        raise Mismatch("its first argument is not a storage")
    tensor = Tensor(storage, args[1], args[2], args[3])
    if len(args) == 7 and args[6]:
        tensor.oddity = _bits_of(args[6])
    return tensor


def _tensor_v3(args: tuple[Any, ...]) -> Tensor:
    if not 7 <= len(args) <= 8:
        raise Mismatch(f"{len(args)} arguments")
    if type(args[6]) is not Global or args[6].kind != "dtype":
        raise Mismatch("its dtype is not one of torch's")
    tensor = _tensor(args[:6])
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


def _odd(oddity: str) -> Callable[[tuple[Any, ...]], Tensor]:
    return lambda args: Tensor(None, 0, (), (), oddity=oddity)


def _parameter(args: tuple[Any, ...]) -> Tensor | Array:
    if not 1 <= len(args) <= 4 or type(args[0]) not in (Tensor, Array):
        raise Mismatch("its first argument is not a tensor")
    found: Tensor | Array = args[0]
    return found


def _from_type(args: tuple[Any, ...]) -> Any:
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


def _size(args: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(args) != 1 or type(args[0]) not in (tuple, list):
        raise Mismatch("it is not given a tuple")
    return tuple(args[0])


def _numpy_tensor(args: tuple[Any, ...]) -> Array:
    """`_rebuild_device_tensor_from_numpy(array, dtype, device, requires_grad)`."""
    if not args or type(args[0]) is not Array:
        raise Mismatch("its first argument is not an array")
    return args[0]


# --- numpy


def _reconstruct(args: tuple[Any, ...]) -> Array:
    if len(args) != 3 or type(args[0]) is not Global or args[0].kind != "ndarray":
        raise Mismatch("it makes no numpy.ndarray")
    return Array()


def _from_buffer(args: tuple[Any, ...]) -> Array:
    if len(args) not in (4, 5) or args[3] not in ("C", "F", "A", "K"):
        raise Mismatch("its arguments are not (buffer, dtype, shape, order)")
    array = Array()
    array.payload, array.dtype, array.shape, array.fortran = args[0], args[1], args[2], args[3] == "F"
    return array


def _numpy_dtype(args: tuple[Any, ...]) -> NumpyDType:
    if not 1 <= len(args) <= 3:
        raise Mismatch(f"{len(args)} arguments")
    if isinstance(args[0], str):
        return NumpyDType(str(args[0]))
    if type(args[0]) is Global and args[0].kind == "numpy scalar":
        return NumpyDType(args[0].value)
    raise Mismatch("its argument is not a dtype's code")


def _scalar(args: tuple[Any, ...]) -> Any:
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


# --- builtins and friends


def _mapping(args: tuple[Any, ...]) -> Mapping_:
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


def _default_mapping(args: tuple[Any, ...]) -> Mapping_:
    if args and args[0] is not None and (type(args[0]) is not Global or args[0].kind == "unknown"):
        raise Mismatch("its factory is not a known class")
    return _mapping(args[1:])


def _sequence(kind: Callable[[Any], Any]) -> Callable[[tuple[Any, ...]], Any]:
    def call(args: tuple[Any, ...]) -> Any:
        if len(args) > 1 or (args and not isinstance(args[0], list | tuple)):
            raise Mismatch("its argument is not a list or a tuple")
        return kind(args[0]) if args else kind(())

    return call


def _empty_bytes(args: tuple[Any, ...]) -> Payload:
    if not args:
        return Payload(0, 0, None, b"")
    payload = payload_of(args[0])
    if len(args) != 1 or payload is None:
        raise Mismatch("its argument is not a byte string")
    return payload


def _encode(args: tuple[Any, ...]) -> Payload:
    """`_codecs.encode(text, 'latin1')`: how protocol 2 writes bytes."""
    if len(args) != 2 or args[1] not in ("latin1", "latin-1"):
        raise Mismatch("it is not asked for latin-1")
    if args[0] == "" and isinstance(args[0], str):
        return Payload(0, 0, None, b"")
    payload = payload_of(args[0])
    if payload is None or payload.encoding is None:
        raise Mismatch("its argument is not a text of this pickle")
    return payload


def _eval(args: tuple[Any, ...]) -> Array:
    """The one shape in which Paddle's static graphs write a tensor: `eval('data', {'data': array})`. Matched, not executed."""
    if len(args) == 2 and args[0] == "data" and type(args[1]) is dict and list(args[1]) == ["data"]:
        found = args[1]["data"]
        if type(found) is Array:
            return found
    raise Mismatch("")


def _object(name: str, kind: str) -> Callable[[tuple[Any, ...]], Object]:
    return lambda args: Object(name, kind, args)


def _reconstructor(args: tuple[Any, ...]) -> Any:
    """`copyreg._reconstructor(class, object, None)`: how protocols 0 and 1 make an object without calling it."""
    if len(args) != 3 or type(args[0]) is not Global or type(args[1]) is not Global or args[1].kind != "object":
        raise Mismatch("it makes no plain object")
    if args[0].call is None or args[0].kind not in ("namespace", "script", "mapping"):
        raise Mismatch(f"it makes a {args[0].full_name}")
    return args[0].call(())


def _table() -> dict[tuple[str, str], Global]:
    table: dict[tuple[str, str], Global] = {}

    def add(
        modules: str, names: str, kind: str, call: Callable[[tuple[Any, ...]], Any] | None = None, value: str = ""
    ) -> None:
        for module in modules.split():
            for name in names.split():
                table[module, name] = Global(module, name, kind, call, value)

    for name, dtype in TORCH_DTYPES.items():
        add("torch", name, "dtype", value=dtype)
    for name in OTHER_TORCH_DTYPES:
        add("torch", name, "dtype")
    for name, dtype in STORAGE_DTYPES.items():
        add("torch torch.cuda torch.storage", name, "storage", value=dtype)
    for name in QUANTISED_STORAGES:
        add("torch torch.cuda", name, "storage")
    add("torch._utils", "_rebuild_tensor _rebuild_tensor_v2", "rebuild", _tensor)
    add("torch._utils", "_rebuild_tensor_v3", "rebuild", _tensor_v3)
    add("torch._utils", "_rebuild_parameter _rebuild_parameter_with_state", "rebuild", _parameter)
    add("torch._utils", "_rebuild_device_tensor_from_numpy _rebuild_xla_tensor _rebuild_device_tensor_from_cpu_tensor", "rebuild",
        lambda args: _numpy_tensor(args) if args and type(args[0]) is Array else _parameter(args))  # fmt: skip
    for function, oddity in {
        "_rebuild_sparse_tensor": "a sparse tensor", "_rebuild_sparse_csr_tensor": "a sparse tensor",
        "_rebuild_qtensor": "a quantised tensor", "_rebuild_nested_tensor": "a nested tensor",
        "_rebuild_meta_tensor_no_storage": "a meta tensor (without data)",
    }.items():  # fmt: skip
        add("torch._utils", function, "rebuild", _odd(oddity))
    add("torch._tensor torch", "_rebuild_from_type_v2 _rebuild_from_type", "from type", _from_type)
    add("torch", "Tensor", "tensor class")
    add("torch.nn.parameter torch.nn", "Parameter Buffer", "tensor class", _parameter)
    add("torch", "Size", "size", _size)
    add("torch", "device", "value", _object("torch.device", "value"))
    add("torch.serialization", "_get_layout", "value", _object("torch.layout", "value"))
    add(
        "torch",
        "strided sparse_coo per_tensor_affine per_channel_affine contiguous_format channels_last preserve_format",
        "value",
    )

    for module in ("numpy.core", "numpy._core"):
        add(f"{module}.multiarray", "_reconstruct", "numpy", _reconstruct)
        add(f"{module}.multiarray", "scalar", "numpy", _scalar)
        add(f"{module}.numeric", "_frombuffer", "numpy", _from_buffer)
    add("numpy", "ndarray", "ndarray")
    add("numpy", "dtype", "numpy", _numpy_dtype)
    for name, dtype in ML_DTYPES.items():
        add("ml_dtypes", name, "numpy scalar", value=f"ml_dtypes.{dtype}")
    for code, name in (("b1", "bool bool_"), ("i1", "int8"), ("i2", "int16"), ("i4", "int32"), ("i8", "int64"), ("u1", "uint8"),
                       ("u2", "uint16"), ("u4", "uint32"), ("u8", "uint64"), ("f2", "float16"), ("f4", "float32"),
                       ("f8", "float64"), ("c8", "complex64"), ("c16", "complex128")):  # fmt: skip
        add("numpy", name, "numpy scalar", value=code)

    add("collections", "OrderedDict Counter", "mapping", _mapping)
    add("collections", "defaultdict", "mapping", _default_mapping)
    for module in ("builtins", "__builtin__"):
        add(module, "dict", "mapping", _mapping)
        add(module, "list set frozenset", "sequence", _sequence(list))
        add(module, "tuple", "sequence", _sequence(tuple))
        add(module, "bytes bytearray", "bytes", _empty_bytes)
        add(module, "complex slice range xrange", "value", _object("builtins value", "value"))
        add(module, "int float bool str", "builtin")
        add(module, "object", "object")
        add(module, "eval", "eval", _eval)
    add("_codecs", "encode", "encode", _encode)
    add("copyreg copy_reg", "_reconstructor", "reconstructor", _reconstructor)
    add("argparse", "Namespace", "namespace", _object("argparse.Namespace", "namespace"))
    add("types", "SimpleNamespace", "namespace", _object("types.SimpleNamespace", "namespace"))
    for module in ("pathlib", "pathlib._local"):
        for name in ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath"):
            add(module, name, "value", _object("path", "value"))
    for name in ("datetime", "date", "time", "timedelta"):
        add("datetime", name, "value", _object(f"datetime.{name}", "value"))
    return table


GLOBALS = _table()
"""Every (module, name) that a pickle may use; matched whole, never by its root."""

SCRIPT_GLOBALS = {
    ("torch.jit._pickle", name): Global(
        "torch.jit._pickle", name, "sequence", lambda args: args[0] if len(args) == 1 else None
    )
    for name in ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist")
} | {
    ("torch.jit._pickle", "restore_type_tag"): Global(
        "torch.jit._pickle", "restore_type_tag", "sequence", lambda args: args[0] if len(args) == 2 else None
    )
}
"""What a TorchScript archive's data.pkl may use besides."""


def record_class(module: str, name: str) -> Global:
    """A class of which only the attributes are looked at; it is never made."""
    return Global(module, name, "record", _object(f"{module}.{name}", "namespace"))


def script_class(module: str, name: str) -> Global:
    """A class that a TorchScript archive defines in its own `code/`: a record with attributes; its code is never read."""
    return Global(module, name, "script", _object(f"{module}.{name}", "script"))
