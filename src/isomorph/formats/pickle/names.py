"""The exact list of names a pickle may use, and the record that calling each of them gives. Nothing named here is ever imported.

A pickle asks for `torch._utils._rebuild_tensor_v2(storage, 0, (3, 2), (2, 1), ...)`; here that name is a `Global`, and calling it
gives a `Tensor` record. A (module, name) pair that is not in `GLOBALS` is a `Global` of kind `unknown`: calling it, building it or
even naming it is refused by the interpreter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from isomorph.formats.pickle import calls
from isomorph.formats.pickle.dtypes import (
    EXTENDED,
    ML_DTYPES,
    OTHER_ML_DTYPES,
    OTHER_TORCH_DTYPES,
    QUANTISED_STORAGES,
    STORAGE_DTYPES,
    TORCH_DTYPES,
)
from isomorph.formats.pickle.objects import Array, FrozenSet, Global, Set

COMPANIONS = {
    "datetime": "timezone",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "omegaconf.base": "ContainerMetadata Metadata",
    "omegaconf.dictconfig": "DictConfig",
    "omegaconf.listconfig": "ListConfig",
    "omegaconf.nodes": "AnyNode BooleanNode BytesNode FloatNode IntegerNode InterpolationResultNode PathNode StringNode",
    "uuid": "UUID",
}
"""Plain values that training leaves beside the weights: leaves of which nothing but the name is shown."""

CALLBACKS = (
    "lightning.pytorch.callbacks.early_stopping",
    "lightning.pytorch.callbacks.model_checkpoint",
    "pytorch_lightning.callbacks.early_stopping",
    "pytorch_lightning.callbacks.model_checkpoint",
)
"""Modules of classes that Lightning names, as keys of what its callbacks remember. They are never called."""


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
    add("torch._utils", "_rebuild_tensor _rebuild_tensor_v2", "rebuild", calls.make_tensor)
    add("torch._utils", "_rebuild_tensor_v3", "rebuild", calls.make_tensor_v3)
    add("torch._utils", "_rebuild_parameter _rebuild_parameter_with_state", "rebuild", calls.make_parameter)
    add("torch._utils", "_rebuild_device_tensor_from_numpy _rebuild_xla_tensor _rebuild_device_tensor_from_cpu_tensor", "rebuild",
        lambda args: calls.make_numpy_tensor(args) if args and type(args[0]) is Array else calls.make_parameter(args))  # fmt: skip
    for function, oddity in {
        "_rebuild_sparse_tensor": "a sparse tensor", "_rebuild_sparse_csr_tensor": "a sparse tensor",
        "_rebuild_qtensor": "a quantised tensor", "_rebuild_nested_tensor": "a nested tensor",
        "_rebuild_meta_tensor_no_storage": "a meta tensor (without data)",
        "_rebuild_wrapper_subclass": "a tensor of a class of its own",
    }.items():  # fmt: skip
        add("torch._utils", function, "rebuild", calls.make_odd(oddity))
    add("torch._tensor torch", "_rebuild_from_type_v2 _rebuild_from_type", "from type", calls.make_from_type)
    add("torch", "Tensor", "tensor class")
    add("torch.nn.parameter torch.nn", "Parameter Buffer", "tensor class", calls.make_parameter)
    add("torch", "Size", "size", calls.make_size)
    add("torch", "device", "value", calls.make_object("torch.device", "value"))
    add("torch.serialization", "_get_layout", "value", calls.make_object("torch.layout", "value"))
    add(
        "torch",
        "strided sparse_coo per_tensor_affine per_tensor_symmetric per_channel_affine per_channel_symmetric "
        "per_channel_affine_float_qparams contiguous_format channels_last preserve_format",
        "value",
    )
    kinds = ("Bool", "Byte", "Char", "Short", "Int", "Long", "Half", "BFloat16", "Float", "Double")
    add("torch torch.cuda", " ".join(f"{kind}Tensor" for kind in kinds), "value")
    add("torch.torch_version", "TorchVersion", "value", calls.make_object("torch", "value"))

    for module in ("numpy.core", "numpy._core"):
        add(f"{module}.multiarray", "_reconstruct", "numpy", calls.make_array)
        add(f"{module}.multiarray", "scalar", "numpy", calls.make_scalar)
        add(f"{module}.numeric", "_frombuffer", "numpy", calls.make_array_of_buffer)
    add("numpy", "ndarray", "ndarray")
    add("numpy", "dtype", "numpy", calls.make_numpy_dtype)
    for name, dtype in (*ML_DTYPES.items(), *zip(OTHER_ML_DTYPES, OTHER_ML_DTYPES, strict=True)):
        add("ml_dtypes jaxlib.xla_extension", name, "numpy scalar", value=f"{EXTENDED}{dtype}")
    for code, name in (("b1", "bool bool_"), ("i1", "int8"), ("i2", "int16"), ("i4", "int32"), ("i8", "int64"), ("u1", "uint8"),
                       ("u2", "uint16"), ("u4", "uint32"), ("u8", "uint64"), ("f2", "float16"), ("f4", "float32"),
                       ("f8", "float64"), ("c8", "complex64"), ("c16", "complex128")):  # fmt: skip
        add("numpy", name, "numpy scalar", value=code)
    add("jax._src.array", "_reconstruct_array", "numpy", calls.make_jax_array)
    add("jax._src.device_array", "reconstruct_device_array", "numpy", calls.make_jax_array)

    add("collections", "OrderedDict Counter", "mapping", calls.make_mapping)
    add("collections", "defaultdict", "mapping", calls.make_default_mapping)
    add("collections", "deque", "sequence", calls.make_deque)
    for module in ("builtins", "__builtin__"):
        add(module, "dict", "mapping", calls.make_mapping)
        add(module, "list", "sequence", calls.make_sequence(list))
        add(module, "set", "sequence", calls.make_sequence(Set))
        add(module, "frozenset", "sequence", calls.make_sequence(FrozenSet))
        add(module, "tuple", "sequence", calls.make_sequence(tuple))
        add(module, "bytes bytearray", "bytes", calls.make_bytes)
        add(module, "complex slice range xrange", "value", calls.make_object("builtins value", "value"))
        add(module, "int long float bool str unicode", "builtin")
        add(module, "Ellipsis NotImplemented", "value")
        add(module, "object", "object")
        add(module, "eval", "eval", calls.make_static_tensor)
    add("_codecs", "encode", "encode", calls.encode_text)
    add("copyreg copy_reg", "_reconstructor", "reconstructor", calls.make_plain_object)
    add("argparse", "Namespace", "namespace", calls.make_object("argparse.Namespace", "namespace"))
    add("types", "SimpleNamespace", "namespace", calls.make_object("types.SimpleNamespace", "namespace"))
    for module in ("pathlib", "pathlib._local"):
        for name in ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath"):
            add(module, name, "value", calls.make_object("path", "value"))
    add("typing", "Any", "value")
    for name in ("datetime", "date", "time", "timedelta"):
        add("datetime", name, "value", calls.make_object(f"datetime.{name}", "value"))
    for module, names in COMPANIONS.items():
        for name in names.split():
            add(module, name, "value", calls.make_object(f"{module}.{name}", "value"))
    for module in CALLBACKS:
        add(module, "ModelCheckpoint EarlyStopping", "value")
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

SAVED = {("torch.storage", "_load_from_bytes"): Global("torch.storage", "_load_from_bytes", "saved", calls.make_saved)}
"""What a pickle that torch did not write may use besides, where it holds torch's tensors."""


def record_class(module: str, name: str) -> Global:
    """A class of which only the attributes are looked at; it is never made."""
    return Global(module, name, "record", calls.make_object(f"{module}.{name}", "namespace"))


def script_class(module: str, name: str) -> Global:
    """A class that a TorchScript archive defines in its own `code/`: a record with attributes; its code is never read."""
    return Global(module, name, "script", calls.make_object(f"{module}.{name}", "script"))
