"""Arrays of any library -> numpy without a copy where possible, and back. No library is imported that the caller does not hold."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from isomorph.errors import MissingExtra, UsageError
from isomorph.formats.base import Checkpoint
from isomorph.tensors import DType, Manifest, TensorSpec, dtype

if TYPE_CHECKING:
    import numpy as np


def state_of(source: Any) -> Mapping[str, Any]:
    """The mapping of names to arrays that this is or has (`state_dict()`)."""
    state = source if isinstance(source, Mapping) else source.state_dict()
    if not isinstance(state, Mapping):
        raise UsageError(
            f"state_dict() of {type(source).__name__} gave a {type(state).__name__}, not a mapping of names to arrays"
        )
    return state


def spec_of(name: str, value: Any) -> TensorSpec:
    """The spec of an array of any library, by its `.shape` and `.dtype`. Raises UsageError for anything else."""
    try:
        return TensorSpec(dtype_of(value), tuple(int(size) for size in value.shape))
    except (AttributeError, TypeError, KeyError) as error:
        kind = getattr(value, "dtype", type(value).__name__)
        raise UsageError(f"`{name}` is no array that can be carried ({kind})") from error


def dtype_of(value: Any) -> DType:
    """The DType of an array: numpy's (`<f4`, ml_dtypes included), torch's, paddle's, or one of ours."""
    found = value.dtype
    if isinstance(found, DType):
        return found
    return dtype(found.name if type(found).__module__.partition(".")[0] == "numpy" else str(found))


def manifest_of(source: Any, origin: str = "") -> Manifest:
    """The names and specs of a mapping of arrays or a model; values that are no arrays are its leaves."""
    tensors: dict[str, TensorSpec] = {}
    leaves: dict[str, str] = {}
    for name, value in state_of(source).items():
        if hasattr(value, "shape") and hasattr(value, "dtype"):
            tensors[str(name)] = spec_of(str(name), value)
        else:
            leaves[str(name)] = type(value).__name__
    return Manifest(tensors, origin=origin or type(source).__name__, leaves=leaves, shared=_ties(source, tensors))


def _ties(source: Any, names: Collection[str]) -> tuple[tuple[str, ...], ...]:
    """The names under which a torch module holds one parameter several times: its head and its embeddings."""
    if isinstance(source, Mapping) or type(source).__module__.partition(".")[0] == "paddle":
        return ()
    try:
        held = list(source.named_parameters(remove_duplicate=False))
    except (AttributeError, TypeError):  # another library's model
        return ()
    groups: dict[int, list[str]] = {}
    for name, parameter in held:
        if name in names:
            groups.setdefault(id(parameter), []).append(name)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def array_checkpoint(source: Any) -> Checkpoint:
    """A checkpoint over arrays in memory."""
    from isomorph.formats.memory import ArrayCheckpoint

    state = state_of(source)
    arrays = {str(name): to_numpy(str(name), value) for name, value in state.items() if hasattr(value, "shape")}
    return ArrayCheckpoint(arrays, shared=_ties(source, arrays))


def to_numpy(name: str, value: Any) -> np.ndarray[Any, Any]:
    """The array as numpy, values of its own dtype; torch and paddle tensors share their memory where the library allows it."""
    import numpy as np

    if isinstance(value, np.ndarray | np.generic):
        return np.asarray(value)
    library = type(value).__module__.partition(".")[0]
    spec = spec_of(name, value)
    if library == "torch":
        if value.is_meta:
            raise UsageError(f"`{name}` is on the meta device: it has a shape and no values; load the weights first")
        plain = value.detach().cpu()
        plain = plain.resolve_conj().resolve_neg() if plain.is_complex() else plain
        if spec.dtype.name in ("bf16", "f8e4m3", "f8e5m2", "f8e4m3fnuz", "f8e5m2fnuz", "f8e8m0"):
            import torch

            bits: Any = plain.contiguous().view(torch.int16 if spec.dtype.nbytes == 2 else torch.uint8).numpy()
            return np.asarray(bits.view(spec.dtype.numpy)).reshape(spec.shape)
        return np.asarray(plain.numpy())
    found = value.numpy() if library == "paddle" else np.asarray(value)
    if found.dtype != spec.dtype.numpy and found.dtype.itemsize == spec.dtype.nbytes:
        found = found.view(spec.dtype.numpy)  # paddle hands out bf16 as uint16
    return np.asarray(found)


def cast_array(name: str, array: np.ndarray[Any, Any], source: DType, target: DType) -> np.ndarray[Any, Any]:
    """The values rounded to another floating dtype, once, to nearest. CheckError names a number that is too large for it."""
    from isomorph.errors import CheckError, Gap
    from isomorph.operators.base import ElementError
    from isomorph.operators.casting import cast

    try:
        return cast(array, source, target, rounding=True).view(target.numpy)
    except ElementError as error:
        import numpy as np

        place = [int(index) for index in np.unravel_index(error.index, array.shape)]
        raise CheckError(
            [
                Gap(
                    "cast",
                    f"`{name}`{place}: {error.problem}",
                    hint=f"Choose a dtype that reaches further than {target}",
                )
            ]
        ) from None


def from_numpy(array: np.ndarray[Any, Any], library: str, device: Any = None) -> Any:
    """A numpy array as one of `library` ("numpy", "torch", "paddle"), bit for bit. Raises MissingExtra, UsageError."""
    if library == "numpy":
        return array
    if library == "torch":
        return _torch(array, device)
    if library == "paddle":
        return _paddle(array, device)
    raise UsageError(f"arrays can be had as numpy, torch or paddle; not {library!r}")


def _torch(array: np.ndarray[Any, Any], device: Any) -> Any:
    import numpy as np

    try:
        import torch
    except ImportError:
        raise MissingExtra("plan.state_dict('torch')", "torch") from None
    wanted = dtype(array.dtype.name)
    array = array if array.flags.writeable and array.flags.c_contiguous else np.array(array, order="C", copy=True)
    if array.dtype.name in ("bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"):
        names = {"bf16": "bfloat16", "f8e4m3": "float8_e4m3fn", "f8e5m2": "float8_e5m2",
                 "f8e4m3fnuz": "float8_e4m3fnuz", "f8e5m2fnuz": "float8_e5m2fnuz"}  # fmt: skip
        flat = torch.from_numpy(array.reshape(-1).view(np.int16 if wanted.nbytes == 2 else np.uint8))
        tensor = flat.view(getattr(torch, names[wanted.name])).reshape(array.shape)
    else:
        tensor = torch.from_numpy(array)
    return tensor if device is None else tensor.to(device)


def _paddle(array: np.ndarray[Any, Any], device: Any) -> Any:
    import numpy as np

    try:
        import paddle
    except ImportError:
        raise MissingExtra("plan.state_dict('paddle')", "paddle") from None
    if array.dtype.name == "bfloat16":
        return paddle.to_tensor(np.ascontiguousarray(array).view(np.uint16), dtype="bfloat16", place=device)
    return paddle.to_tensor(np.ascontiguousarray(array), place=device)
