"""What pickles call the dtypes: torch's names and storages, numpy's codes, the scalar types of ml_dtypes."""

from __future__ import annotations

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

EXTENDED = "ml_dtypes."
"""What begins the codes that the scalar types of ml_dtypes are given here."""

ML_DTYPES = {
    "bfloat16": "bf16", "float8_e4m3fn": "f8e4m3", "float8_e5m2": "f8e5m2",
    "float8_e4m3fnuz": "f8e4m3fnuz", "float8_e5m2fnuz": "f8e5m2fnuz", "float8_e8m0fnu": "f8e8m0",
}  # fmt: skip

OTHER_ML_DTYPES = (
    "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float6_e2m3fn", "float6_e3m2fn", "float4_e2m1fn",
    "int1", "int2", "int4", "uint1", "uint2", "uint4",
)  # fmt: skip
"""ml_dtypes' scalar types that are named, so that a file that only mentions one can be read; an array of one is refused."""
