"""What torch.save writes in all its styles: opened, converted to every format and back, with the bits that torch loads."""

from __future__ import annotations

import argparse
import collections
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import isomorph
from isomorph.errors import FormatError, UnsafeError

Made = Callable[[], Any]
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.BatchNorm1d(6), torch.nn.Linear(6, 2))


def training() -> dict[str, Any]:
    """A whole training checkpoint, with everything that people put in one."""
    net = model()
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.randn(3, 4)).sum().backward()
    optimizer.step()
    return {
        "state_dict": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "args": argparse.Namespace(lr=1e-3, shape=[1, 2], dtypes={"k": torch.float16}),
        "rng": torch.get_rng_state(),
        "loss": np.float64(0.25),
        "step": np.int64(7),
        "best": np.bool_(True),
        "history": np.arange(5.0),
        "device": torch.device("cpu"),
        "dtype": torch.bfloat16,
        "size": torch.Size([1, 2]),
        "seen": {1, 2},
        "raw": b"xyz",
    }


def tied() -> dict[str, torch.Tensor]:
    """One storage under many names, and every kind of view of it."""
    base = torch.arange(20.0).reshape(4, 5)
    return {
        "a": base, "b": base, "rows": base[1:], "t": base.t(), "column": base[:, 1], "steps": base[::2, ::2],
        "expanded": base[:1].expand(3, 5), "scalar": base[2, 2], "none": base[:0], "flat": base.flatten()[3:9],
    }  # fmt: skip


def of_every_dtype() -> dict[str, torch.Tensor]:
    names = "bool uint8 int8 int16 int32 int64 float16 bfloat16 float32 float64 complex64 uint16 uint32 uint64"
    names += " float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu"
    return {name: torch.arange(6).to(getattr(torch, name)).reshape(2, 3) for name in names.split()}


STYLES: dict[str, Made] = {
    "state_dict": lambda: model().state_dict(),
    "training": training,
    "tied": tied,
    "dtypes": of_every_dtype,
    "list": lambda: [torch.randn(2), (torch.randn(3), torch.zeros(()))],
    "bare": lambda: torch.randn(3, 4),
    "parameters": lambda: {"p": torch.nn.Parameter(torch.randn(3, 3)), "b": torch.nn.Buffer(torch.randn(2))},
    "odd sizes": lambda: {"scalar": torch.tensor(3.5), "empty": torch.zeros(0, 3), "nan": torch.tensor([-0.0, np.nan])},
    "channels last": lambda: {"w": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)},
    "wrapped": lambda: {"module._fsdp_wrapped_module.w": torch.randn(2), "module._orig_mod.b": torch.randn(1)},
    "numbers as keys": lambda: collections.defaultdict(list, {0: torch.randn(2), 1: torch.randn(3)}),
    "other scripts": lambda: {"名前.w": torch.randn(2), "é ü": torch.randn(1)},
}

ODD: dict[str, tuple[Made, str]] = {
    "sparse": (lambda: {"w": torch.eye(3).to_sparse()}, "`w` is a sparse tensor"),
    "csr": (lambda: {"w": torch.eye(3).to_sparse_csr()}, "`w` is a sparse tensor"),
    "meta": (lambda: {"w": torch.empty(2, device="meta")}, r"`w` is a meta tensor \(without data\)"),
    "conj": (lambda: {"w": torch.randn(2, dtype=torch.complex64).conj()}, "`w` is a lazily conjugate view"),
    "half complex": (lambda: {"w": torch.zeros(2, dtype=torch.complex32)}, "`w` is of dtype torch.complex32"),
    "objects": (lambda: {"w": np.array([None, 1], dtype=object)}, "array `w`: it holds Python objects"),
    "nothing": (lambda: 3, "its pickle holds no tensors, but 3"),
}  # fmt: skip


def flat(value: Any, above: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(value)
    if isinstance(value, torch.Tensor):
        yield above.rstrip("/") or "tensor", value
    elif isinstance(value, Mapping | list | tuple):
        for key, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from flat(inner, f"{above}{key}/")


def bits(value: Any) -> tuple[str, tuple[int, ...], bytes]:
    tensor = (torch.from_numpy(value) if isinstance(value, np.ndarray) else value).detach().contiguous()
    raw = tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
    return str(tensor.dtype), tuple(tensor.shape), raw


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("protocol", [2, 3, 5])
@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("style", STYLES)
def test_a_checkpoint_of_any_style_keeps_its_bits(tmp_path: Path, style: str, is_zip: bool, protocol: int) -> None:
    """Through every format that can hold it, read there by its own library, and back into a torch file."""
    made = STYLES[style]()
    path = tmp_path / "source.pt"
    torch.save(made, path, _use_new_zipfile_serialization=is_zip, pickle_protocol=protocol)
    expected = {name: bits(tensor) for name, tensor in flat(made)}
    source = isomorph.open(f"{path}#")
    assert list(source) == list(expected)
    for suffix, load in {
        ".safetensors": load_file,
        ".pth": lambda file: torch.load(file, weights_only=True, mmap=True),
        ".npz": lambda file: dict(np.load(file)),
        ".pdparams": None,
    }.items():
        target = tmp_path / f"out{suffix}"
        try:
            isomorph.convert(source, target)
        except FormatError as error:
            assert "cannot hold" in str(error)
            assert (suffix == ".npz" and "bfloat16" in str(error)) or (suffix == ".pdparams" and "uint32" in str(error))
            continue
        if load is not None:
            assert {name: bits(tensor) for name, tensor in load(target).items()} == expected
        back = tmp_path / "back.pt"
        isomorph.convert(target, back, overwrite=True)
        again = torch.load(back, weights_only=True)
        assert {name: bits(tensor) for name, tensor in again.items()} == expected


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("case", ODD)
def test_what_is_no_plain_tensor_is_named(tmp_path: Path, case: str, is_zip: bool) -> None:
    made, message = ODD[case]
    torch.save(made(), tmp_path / "odd.pt", _use_new_zipfile_serialization=is_zip)
    with pytest.raises(FormatError, match=rf"odd\.pt: .*{message}"):
        isomorph.open(tmp_path / "odd.pt")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("is_zip", [True, False])
def test_a_whole_module_is_not_built(tmp_path: Path, is_zip: bool) -> None:
    """Its class and, in old files, its source are in the file; the advice is what its owner can do."""
    torch.save(model(), tmp_path / "module.pt", _use_new_zipfile_serialization=is_zip)
    message = (
        r"would build a torch\.nn\.modules\.container\.Sequential .* Nothing was executed and nothing written\. If the"
    )
    with pytest.raises(UnsafeError, match=message):
        isomorph.open(tmp_path / "module.pt")


@pytest.mark.filterwarnings("ignore")
def test_script_archives_are_read_and_exported_programs_named(tmp_path: Path) -> None:
    net = model().eval()
    torch.jit.script(net).save(str(tmp_path / "script.pt"))
    expected = {name: bits(tensor) for name, tensor in net.state_dict().items()}
    isomorph.convert(tmp_path / "script.pt", tmp_path / "out.safetensors")
    assert {name: bits(tensor) for name, tensor in load_file(tmp_path / "out.safetensors").items()} == expected
    torch.export.save(torch.export.export(net, (torch.randn(2, 4),)), tmp_path / "program.pt2")
    with pytest.raises(FormatError, match=r"program\.pt2: an exported program \(torch\.export, \.pt2\)"):
        isomorph.open(tmp_path / "program.pt2")


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_key_with_a_slash_is_not_taken_for_a_container(tmp_path: Path, is_zip: bool) -> None:
    """`a/w` does not lie in the dict `a`, so that `a` is not entered; its name stays whole."""
    made = {"a/w": torch.zeros(2), "a": {"v": torch.ones(3), "b": {"u": torch.ones(1)}}}
    torch.save(made, tmp_path / "m.pt", _use_new_zipfile_serialization=is_zip)
    assert list(isomorph.open(tmp_path / "m.pt")) == ["a/w", "a/v", "a/b/u"]
    assert list(isomorph.open(f"{tmp_path}/m.pt#a/b")) == ["u"]
    with pytest.raises(FormatError, match="it has no container `a`"):
        isomorph.open(f"{tmp_path}/m.pt#a")
