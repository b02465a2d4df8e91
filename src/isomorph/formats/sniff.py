"""What a file is, by its first bytes. A suffix only ever makes an error message better."""

from __future__ import annotations

import re

from isomorph.errors import FormatError
from isomorph.formats.source import Source
from isomorph.formats.tar import is_tar

INDEX = "index"

TORCH_MAGIC = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""What follows the protocol in the first pickle of a legacy torch file: LONG1 0x1950a86a20f9469cfc6c, STOP."""

OLD_PICKLES = (b"(", b"}", b"]", b")", b"c", b"i")
"""How pickles of protocols 0 and 1 begin, which have no mark of their own; all end with a full stop."""

FOREIGN = [
    (
        b"\x93NUMPY",
        "a single numpy array (.npy), which has no name",
        "Put it in an .npz: numpy.savez('file.npz', name=array)",
    ),
    (b"\x1f\x8b", "compressed with gzip", "Unpack it first: gunzip"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "Unpack it first: unzstd"),
    (b"BZh", "compressed with bzip2", "Unpack it first: bunzip2"),
    (b"\xfd7zXZ\x00", "compressed with xz", "Unpack it first: unxz"),
    (b"\x04\x22M\x18", "compressed with lz4", "Unpack it first: unlz4"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "Unpack it first"),
    (b"Rar!\x1a\x07", "a RAR archive", "Unpack it first"),
    *(
        (magic, "a file of ggml from before GGUF", "Turn it into GGUF with llama.cpp's converter, or take a newer file")
        for magic in (b"lmgg", b"fmgg", b"tjgg", b"algg")
    ),
    (b"\x7fELF", "a program or shared library, not weights", None),
    (b"%PDF", "a PDF document, not weights", None),
]

BY_SUFFIX = {
    ".pdiparams": (
        "an inference model of Paddle, whose tensors have no names",
        "Save its state_dict() with paddle.save",
    ),
    ".pb": ("a graph of TensorFlow, which is not read", "Name the folder of its SavedModel, or a checkpoint"),
    ".mlmodel": ("a model of Core ML, which is not read", "Name the model it was made from"),
    ".caffemodel": ("a model of Caffe, which is not read", "Name the model it was made from"),
}
"""What files of no known content are by their names, and what to do."""

DCP_SHARD = re.compile(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors").fullmatch
"""The name of what one rank wrote of a model in safetensors."""

GROUP = ".zgroup"
"""What zarr 2 puts into a folder of arrays; zarr 3 has a `zarr.json` there."""

ARRAYS = ("_METADATA", GROUP, ".zarray", "zarr.json")
"""Files in JSON that say what lies in a folder of arrays."""

KNOWN = (
    "safetensors, torch (.pth .pt .bin, zip or legacy), GGUF, .npz, .pdparams, Flax's .msgpack, Keras's .h5 and .keras, ONNX, "
    "TensorFlow's .index, a *.index.json of shards, and folders of torch.distributed, Orbax and T5X"
)


def sniff(source: Source) -> str:
    """The name of the format in the registry, or INDEX. FormatError says what the file is instead."""
    head = source.read(0, min(source.size, 512))
    text = head.lstrip(b" \t\r\n\xef\xbb\xbf")
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        raise FormatError(
            source.path, f"a Git LFS pointer ({source.size} bytes), not the weights", "Fetch them: git lfs pull"
        )
    if re.match(rb"<!doctype html|<html|<head|<\?xml|<!--", text, re.IGNORECASE):
        raise FormatError(
            source.path,
            "a web page (HTML or XML), not weights: a download that failed",
            "Open it to see what the server said, and download the file itself",
        )
    if head.startswith(b"\x0c\xdb\x3a\x2a") or (source.path.name in ARRAYS and text.startswith(b"{")):
        return "orbax"
    if source.path.name == "checkpoint":
        from isomorph.formats.zarr.folder import is_beside_arrays

        if is_beside_arrays(source.path):
            return "orbax"
    if head.startswith(b"\0\0"):
        from isomorph.formats.tf.read import looks_like as is_tf

        if is_tf(source, head):
            return "tf_checkpoint"
    if _is_safetensors(head, source.size):
        return "safetensors_dcp" if DCP_SHARD(source.path.name) else "safetensors"
    if is_tar(head):
        return "tar"
    if head.startswith(b"GGUF"):
        return "gguf"
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return "hdf5"
    if head.startswith(b"PK\x03\x04"):
        return _kind_of_zip(source)
    if head.startswith(b"PK\x05\x06"):
        raise FormatError(source.path, "an empty zip archive: it holds no tensors")
    if len(head) >= 2 and head[0] == 0x80 and head[1] <= 5:
        from isomorph.formats.dcp.read import looks_like as is_dcp

        if is_dcp(head):
            return "torch_dcp"
        return "torch_legacy" if head[2 : 2 + len(TORCH_MAGIC)] == TORCH_MAGIC else "paddle"
    if text.startswith(b"{"):
        return INDEX
    if head[:1] in OLD_PICKLES and source.read(source.size - 1, 1) == b".":
        return "paddle"
    if head[4:8] == b"TFL3":
        raise FormatError(source.path, "a TensorFlow Lite model, which is not read", "Name the model it was made from")
    for magic, what, advice in FOREIGN:
        if head.startswith(magic):
            raise FormatError(source.path, what, advice)
    if source.path.suffix == ".safetensors":
        return "safetensors"
    from isomorph.formats.onnx.read import looks_like as looks_like_onnx

    if source.path.suffix == ".onnx" or looks_like_onnx(source):
        return "onnx"
    from isomorph.formats.flax.read import looks_like

    if looks_like(head):
        return "flax"
    if source.path.suffix in BY_SUFFIX:
        raise FormatError(source.path, *BY_SUFFIX[source.path.suffix])
    shown = "zeros only, as of a download that did not finish" if not any(head) else repr(head[:16])[1:]
    raise FormatError(
        source.path, f"not a checkpoint of a known format (its first bytes are {shown})", f"Read are {KNOWN}"
    )


def _is_safetensors(head: bytes, size: int) -> bool:
    """True when an opening brace follows what can be the length of a header.

    Asked before zips and pickles: a header of 0x0280 bytes begins as a pickle of protocol 2 does. Five zero bytes then decide,
    since no pickle begins so; a longer header must be in the file.
    """
    if head[8:9] != b"{":
        return False
    length = int.from_bytes(head[:8], "little")
    if head[0] == 0x80 and head[1] <= 5 and any(head[3:8]):
        return length <= size - 8
    return length < 1 << 48


def _kind_of_zip(source: Source) -> str:
    from isomorph.formats.zip.archive import read_members

    names = [name.lower() for name in read_members(source)]
    if any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
        return "torch_zip"
    if any(name.endswith(".npy") for name in names) and all(name.endswith((".npy", "/")) for name in names):
        return "npz"
    if any(name.endswith("model.weights.h5") for name in names):
        return "hdf5"
    if any(name.endswith(("/models/model.json", "/serialized_exported_program.json")) for name in names):
        raise FormatError(
            source.path,
            "an exported program (torch.export, .pt2), whose weights are not read",
            "Save its state_dict() with torch.save",
        )
    shown = ", ".join(names[:3])
    raise FormatError(
        source.path,
        f"a zip archive of {len(names)} files ({shown}{', …' if len(names) > 3 else ''}), not a checkpoint",
        "A torch file holds a data.pkl, an .npz holds .npy files only",
    )
