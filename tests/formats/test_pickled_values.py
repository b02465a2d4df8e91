"""What lies beside the weights in a pickle, and numpy's arrays of every maker: leaves are named, tensors are tensors."""

from __future__ import annotations

import collections
import decimal
import fractions
import pickle
import sys
import types
import typing
import uuid
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

import isomorph
from isomorph.errors import FormatError
from isomorph.formats.registry import open_checkpoint

BESIDE: dict[str, Any] = {
    "types": [int, str, float, bool, bytes],
    "counts": collections.defaultdict(int, {"a": 1}),
    "last": collections.deque([1.5, 2.5], 10),
    "rest": [..., NotImplemented],
    "version": torch.torch_version.TorchVersion("2.1.0"),
    "tensor type": torch.FloatTensor,
    "scheme": torch.per_tensor_symmetric,
    "numbers": [uuid.UUID(int=3), fractions.Fraction(1, 3), decimal.Decimal("1.3"), typing.Any],
}

EXTENDED = {"bfloat16": "bf16", "float8_e4m3fn": "f8e4m3", "float8_e5m2": "f8e5m2", "float8_e4m3fnuz": "f8e4m3fnuz",
            "float8_e8m0fnu": "f8e8m0"}  # fmt: skip


def of_module(monkeypatch: pytest.MonkeyPatch, module: str, made: Any) -> Any:
    """`made`, a class or a function, as if `module` had it."""
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        monkeypatch.setitem(sys.modules, ".".join(parts[:end]), types.ModuleType(".".join(parts[:end])))
    made.__module__, made.__qualname__ = module, made.__name__
    monkeypatch.setattr(sys.modules[module], made.__name__, made, raising=False)
    return made


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("beside", BESIDE)
def test_plain_values_beside_the_weights_are_leaves(tmp_path: Path, beside: str, protocol: int) -> None:
    """What training leaves there is listed, whatever the protocol calls it, and hides no tensor."""
    (tmp_path / "m.pkl").write_bytes(pickle.dumps({"w": np.arange(3.0), beside: BESIDE[beside]}, protocol=protocol))
    torch.save({"w": torch.arange(3.0), beside: BESIDE[beside]}, tmp_path / "m.pt", pickle_protocol=protocol)
    for path in (tmp_path / "m.pkl", tmp_path / "m.pt"):
        with open_checkpoint(path) as found:
            assert ["w"] == list(found.manifest)
            assert any(name.startswith(beside) for name in found.manifest.leaves)


def test_tensors_in_a_deque_are_tensors(tmp_path: Path) -> None:
    torch.save({"recent": collections.deque([torch.zeros(2), torch.ones(3)], maxlen=2)}, tmp_path / "m.pt")
    with open_checkpoint(tmp_path / "m.pt", inner="") as found:
        assert {"recent/0": (2,), "recent/1": (3,)} == {name: spec.shape for name, spec in found.manifest.items()}


def test_classes_and_configs_that_training_names_are_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning's callbacks are keys by their class; a config of omegaconf refers to itself. Neither is made."""

    class ModelCheckpoint:
        pass

    class DictConfig:
        pass

    of_module(monkeypatch, "pytorch_lightning.callbacks.model_checkpoint", ModelCheckpoint)
    config = of_module(monkeypatch, "omegaconf.dictconfig", DictConfig)()
    config.__dict__["_content"] = {"lr": 0.1, "of": config}
    made = {"state_dict": {"w": torch.zeros(2)}, "callbacks": {ModelCheckpoint: {"best": 0.5}}, "cfg": config}
    torch.save(made, tmp_path / "m.ckpt")
    with open_checkpoint(tmp_path / "m.ckpt") as found:
        assert ["w"] == list(found.manifest)
        assert {
            "callbacks/pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint/best": "0.5",
            "cfg": "omegaconf.dictconfig.DictConfig",
        } == found.manifest.leaves


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("name", EXTENDED)
def test_arrays_of_ml_dtypes_are_tensors(tmp_path: Path, name: str, protocol: int) -> None:
    """As numpy pickles them, plain and column-major: every bit, and never an array of dates."""
    array = np.arange(1, 7).reshape(2, 3).astype(getattr(ml_dtypes, name))
    (tmp_path / "m.pkl").write_bytes(pickle.dumps({"w": array, "t": array.T}, protocol=protocol))
    found = isomorph.open(tmp_path / "m.pkl")
    for tensor, expected in {"w": array, "t": array.T}.items():
        assert EXTENDED[name] == str(found[tensor].dtype)
        assert expected.tobytes() == np.asarray(found[tensor]).tobytes()


@pytest.mark.parametrize("protocol", [2, 4])
def test_arrays_of_jax_are_the_numpy_arrays_that_they_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int
) -> None:
    """`jax.Array.__reduce__` gives a function of its own, numpy's function and arguments, numpy's state, and jax's."""

    def _reconstruct_array() -> None:
        pass

    of_module(monkeypatch, "jax._src.array", _reconstruct_array)

    class Array:
        def __init__(self, held: np.ndarray[Any, Any]) -> None:
            self.held = held

        def __reduce__(self) -> Any:
            function, arguments, state = self.held.__reduce__()  # type: ignore[str-unpack]
            return _reconstruct_array, (function, arguments, state, {"weak_type": False})

    arrays = {"f32": np.arange(6, dtype="f4").reshape(2, 3), "bf16": np.ones(3, ml_dtypes.bfloat16), "one": np.array(3)}
    pickled = {"params": {name: Array(array) for name, array in arrays.items()}}
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(pickled, protocol=protocol))
    found = isomorph.open(tmp_path / "m.pkl")
    assert list(arrays) == list(found)
    for name, array in arrays.items():
        assert array.shape == found[name].shape
        assert array.tobytes() == np.asarray(found[name]).tobytes()


def test_an_array_of_a_dtype_that_is_only_named_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.pkl").write_bytes(pickle.dumps({"w": np.zeros(4, ml_dtypes.int4)}))
    with pytest.raises(FormatError, match=r"array `w`: its dtype 'ml_dtypes\.int4' is not one isomorph has"):
        open_checkpoint(tmp_path / "m.pkl")


def test_arrays_as_lines_of_text_are_refused(tmp_path: Path) -> None:
    """Protocol 0, which Python 2 wrote by itself."""
    (tmp_path / "m.pkl").write_bytes(pickle.dumps({"w": np.arange(3.0)}, protocol=0))
    with pytest.raises(FormatError, match=r"lines of text \(protocol 0: pickle it again with protocol 2 or later\)"):
        open_checkpoint(tmp_path / "m.pkl")


def pickled(value: Any, protocol: int = 4) -> bytes:
    return pickle.dumps(value, protocol=protocol)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_tensors_of_torch_that_pickle_itself_wrote_are_read(tmp_path: Path, protocol: int) -> None:
    """Each storage is a legacy torch file inside of the pickle: views, parameters, every kind of dtype, beside numpy's arrays."""
    base = torch.arange(20.0).reshape(4, 5)
    made: dict[str, Any] = {
        **torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).state_dict(),
        "t": base.t(), "rows": base[1:3], "bf16": base.bfloat16(), "flags": torch.tensor([True, False]), "scalar": torch.tensor(2.0),
        "c64": torch.ones(2, dtype=torch.complex64), "none": torch.zeros(0, 3), "u16": torch.ones(2, dtype=torch.uint16),
        "f8": torch.ones(2).to(torch.float8_e4m3fn), "parameter": torch.nn.Parameter(torch.ones(2)),
    }  # fmt: skip
    (tmp_path / "m.pkl").write_bytes(pickled({**made, "array": np.ones(3)}, protocol))
    isomorph.convert(tmp_path / "m.pkl", tmp_path / "m.pth")
    back = torch.load(tmp_path / "m.pth", weights_only=True)
    assert [*made, "array"] == list(back)
    for name, tensor in made.items():
        assert (tensor.dtype, tensor.shape) == (back[name].dtype, back[name].shape)
        assert torch.equal(
            tensor.detach().float() if name == "f8" else tensor, back[name].float() if name == "f8" else back[name]
        )


def test_a_storage_that_lies_is_refused(tmp_path: Path) -> None:
    """Code in the file inside, a cut, what is no storage, bytes as text, the name alone: none is executed, each is named."""
    whole = pickled({"w": torch.arange(50.0)})
    load = torch.storage._load_from_bytes
    parts = [0x1950A86A20F9469CFC6C, 1001, {}]

    class Evil:
        def __reduce__(self) -> Any:
            return print, ("done",)

    class Inside:
        """A tensor whose storage is a legacy torch file of `root`."""

        def __init__(self, *root: Any) -> None:
            self.raw = b"".join(pickled(part, 2) for part in (*parts, *root))

        def __reduce__(self) -> Any:
            return torch._utils._rebuild_tensor_v2, (Bytes(self.raw), 0, (2,), (1,), False, collections.OrderedDict())

    class Bytes:
        def __init__(self, raw: bytes) -> None:
            self.raw = raw

        def __reduce__(self) -> Any:
            return load, (self.raw,)

    (tmp_path / "m.pkl").write_bytes(pickled({"w": np.ones(2), "storage": Bytes(b"abc")}))
    assert {"storage": "a storage"} == isomorph.open(
        tmp_path / "m.pkl"
    ).checkpoint.manifest.leaves  # which nobody reads
    for raw, said in {
        pickled({"w": Inside(Evil(), [])}): r"would call __builtin__\.print \(storage at byte \d+, byte",
        pickled({"w": Inside(3, [])}): r"what should be a storage of torch at byte \d+ is none",
        pickled({"w": Inside()}): r"truncated",
        pickled({"w": load}): r"would import torch\.storage\._load_from_bytes",
        pickled(
            {"w": torch.arange(5.0)}, 2
        ): r"lie there as text \(pickle it again with protocol 4, or use torch\.save\)",
        whole.replace(b"FloatStorage", b"DoubleStorage"): r"broken pickle",
        whole.replace(
            b"ctorch\nFloatStorage\n", b"cposix\nsystem      \n"
        ): r"a persistent id whose class is no storage",
    }.items():
        (tmp_path / "m.pkl").write_bytes(raw)
        with pytest.raises(FormatError, match=said):
            isomorph.open(tmp_path / "m.pkl")
