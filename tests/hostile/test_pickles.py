"""Pickles that would run code, lie about their lengths, or unfold without end: each is refused by name, and nothing happens."""

from __future__ import annotations

import json
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from torch_files import FLOATS, HOOKS, name, numbers, pickle_of, storage, tensor, text, torch_file

from isomorph.errors import FormatError, UnsafeError
from isomorph.formats.registry import open_checkpoint

HERE = Path(__file__).parent
NOTHING = "Nothing was executed and nothing written"

GADGETS: list[tuple[str, str]] = [
    ("os", "system"),
    ("posix", "system"),
    ("nt", "system"),
    ("subprocess", "Popen"),
    ("builtins", "exec"),
    ("builtins", "eval"),
    ("builtins", "getattr"),
    ("builtins", "__import__"),
    ("__builtin__", "execfile"),
    ("builtins", "open"),
    ("importlib", "import_module"),
    ("runpy", "run_path"),
    ("pickle", "loads"),
    ("marshal", "loads"),
    ("types", "FunctionType"),
    ("types", "CodeType"),
    ("operator", "attrgetter"),
    ("functools", "partial"),
    ("webbrowser", "open"),
    ("shutil", "rmtree"),
    ("socket", "create_connection"),
    ("timeit", "timeit"),
    ("cProfile", "run"),
    ("pdb", "run"),
    ("code", "interact"),
    ("ctypes", "CDLL"),
    ("numpy", "load"),
    ("numpy.testing._private.utils", "runstring"),
    ("numpy.f2py.crackfortran", "myeval"),
    ("torch", "load"),
    ("torch.hub", "load"),
    ("torch.storage", "_load_from_bytes"),
    ("torch.jit", "load"),
    ("torch.utils.collect_env", "run"),
    ("torch._dynamo.guards", "GuardBuilder.get"),
    ("torch._utils", "_rebuild_tensor_v2.__globals__"),
    ("collections", "OrderedDict.__init__"),
    ("collections", "namedtuple"),
    ("torch.nn.modules.linear", "Linear"),
    ("__main__", "Model"),
]

GADGETS += [
    ("builtins", "compile"), ("builtins", "breakpoint"), ("builtins", "__build_class__"), ("builtins", "type"),
    ("builtins", "setattr"), ("builtins", "globals"), ("builtins", "map"), ("operator", "methodcaller"), ("operator", "call"),
    ("operator", "itemgetter"), ("itertools", "starmap"), ("functools", "reduce"), ("atexit", "register"),
    ("threading", "Thread"), ("multiprocessing.util", "spawnv_passfds"), ("_posixsubprocess", "fork_exec"), ("pty", "spawn"),
    ("platform", "popen"), ("commands", "getoutput"), ("asyncio", "run"),
    ("asyncio.unix_events", "_UnixSubprocessTransport._start"), ("asyncio.base_events", "BaseEventLoop.subprocess_shell"),
    ("idlelib.autocomplete", "AutoComplete.get_entity"), ("idlelib.calltip", "get_entity"),
    ("idlelib.debugobj", "ObjectTreeItem.SetText"), ("idlelib.pyshell", "ModifiedInterpreter.runcode"),
    ("idlelib.run", "Executive.runcode"), ("lib2to3.pgen2.grammar", "Grammar.loads"), ("profile", "Profile.runctx"),
    ("trace", "Trace.runctx"), ("bdb", "Bdb.run"), ("doctest", "debug_script"), ("ensurepip", "_run_pip"), ("pip", "main"),
    ("venv", "create"), ("distutils.file_util", "write_file"), ("pydoc", "locate"), ("pydoc", "pipepager"),
    ("pkgutil", "resolve_name"), ("uuid", "_get_command_stdout"), ("_osx_support", "_read_output"),
    ("_aix_support", "_read_cmd_output"), ("_pyrepl.pager", "pipe_pager"), ("imaplib", "IMAP4_stream"),
    ("logging.config", "_resolve"), ("test.support.script_helper", "assert_python_ok"), ("linecache", "getlines"),
    ("fileinput", "input"), ("pathlib", "Path.write_text"), ("tempfile", "mktemp"), ("zipimport", "zipimporter"),
    ("zipfile", "ZipFile"), ("tarfile", "open"), ("sqlite3", "connect"), ("ftplib", "FTP"), ("smtplib", "SMTP"),
    ("http.client", "HTTPSConnection"), ("urllib.request", "urlopen"), ("requests.api", "get"),
    ("aiohttp.client", "ClientSession"), ("sys", "exit"), ("sys", "modules"), ("signal", "raise_signal"), ("gc", "get_objects"),
    ("inspect", "getattr_static"), ("ast", "literal_eval"), ("string", "Formatter.vformat"), ("copyreg", "_reconstructor"),
    ("copyreg", "add_extension"), ("dill", "loads"), ("cloudpickle", "loads"), ("joblib", "load"), ("pandas", "read_pickle"),
    ("numpy.f2py.crackfortran", "getlincoef"), ("numpy.f2py.crackfortran", "_eval_length"), ("numpy.f2py", "compile"),
    ("numpy.lib.npyio", "load"), ("numpy.ctypeslib", "load_library"), ("numpy", "fromfile"), ("numpy", "memmap"),
    ("numpy.core._multiarray_umath", "set_string_function"), ("torch.serialization", "load"),
    ("torch.package", "PackageImporter"), ("torch.ops", "load_library"), ("torch.classes", "load_library"),
    ("torch.hub", "load_state_dict_from_url"), ("torch.utils.bottleneck.__main__", "run_cprofile"),
    ("torch.utils._config_module", "ConfigModule.load_config"), ("torch.utils.cpp_extension", "load_inline"),
    ("torch.utils.data.datapipes.utils.decoder", "basichandlers"), ("torch.distributed.rpc", "rpc_sync"),
    ("torch.jit.unsupported_tensor_ops", "execWrapper"),
    ("torch.fx.experimental.symbolic_shapes", "ShapeEnv.evaluate_guards_expression"),
    ("torch.fx.graph_module", "_deserialize_graph_module"), ("torch._inductor.codecache", "compile_file"),
    ("torch.nn.modules.module", "_global_forward_hooks"), ("torch._utils", "_import_dotted_name"), ("paddle", "load"),
    ("paddle.jit", "load"), ("jax.numpy", "load"), ("tensorflow", "load_library"), ("keras.layers", "Lambda"),
    ("transformers", "AutoModel.from_pretrained"),
]  # fmt: skip
"""Names that pickles of the field's advisories call, and their like."""

ARGUMENTS = b"(" + text("echo pwned") + b"t"


def calling(module: str, attribute: str, how: str) -> tuple[bytes, int]:
    """A pickle that calls the name in one of the ways pickles know; and the byte of the opcode that would call it."""
    head = b"\x80\x02}" + text("w")
    if how == "REDUCE":
        body = name(module, attribute) + ARGUMENTS
        return head + body + b"Rs.", len(head + body)
    if how == "STACK_GLOBAL":
        body = text(module) + text(attribute) + b"\x93" + ARGUMENTS
        return head + body + b"Rs.", len(head + body)
    if how == "NEWOBJ":
        body = name(module, attribute) + b")"
        return head + body + b"\x81s.", len(head + body)
    if how == "INST":
        body = b"(" + text("echo pwned")
        return head + body + b"i" + f"{module}\n{attribute}\n".encode() + b"s.", len(head + body)
    if how == "OBJ":
        body = b"(" + name(module, attribute) + text("echo pwned")
        return head + body + b"os.", len(head + body)
    body = name(module, attribute)  # only named: to import a module is to run it
    return head + body + b"s.", len(head)


@pytest.mark.parametrize("how", ["REDUCE", "STACK_GLOBAL", "NEWOBJ", "INST", "OBJ", "named"])
def test_no_name_outside_the_list_is_called_built_or_imported(tmp_path: Path, how: str) -> None:
    """Rows 1, 2, 5, 6: every gadget is refused in every opcode that could use it; the message names it and the byte."""
    for module, attribute in GADGETS:
        data, byte = calling(module, attribute, how)
        if (module, attribute) in (("builtins", "eval"), ("copyreg", "_reconstructor")) and how == "named":
            continue  # the names alone begin Paddle's static graphs, and old objects; used like this they are refused
        for file, place in (("evil.pdparams", f"(byte {byte})"), ("evil.bin", f"(archive/data.pkl, byte {byte})")):
            path = tmp_path / file
            path.write_bytes(data if file.endswith("pdparams") else torch_file(data))
            with pytest.raises(UnsafeError) as caught:
                open_checkpoint(path)
            message = str(caught.value)
            assert f"{module}.{attribute}" in message
            assert place in message
            assert NOTHING in message


def test_the_message_is_the_one_the_manual_shows(tmp_path: Path) -> None:
    """File, call, place, and what did not happen; in one line."""
    path = tmp_path / "evil.bin"
    path.write_bytes(torch_file(b"\x80\x02" + name("os", "system") + text("x") + b"\x85R."))
    with pytest.raises(UnsafeError) as caught:
        open_checkpoint(path)
    assert f"{path}: its pickle would call os.system (archive/data.pkl, byte 20). {NOTHING}." == str(caught.value)


@pytest.mark.parametrize(
    "data",
    [b"cos\nsystem\n(S'echo pwned'\ntR.", b"(S'echo pwned'\nios\nsystem\n.", b"(cos\nsystem\nS'echo pwned'\no."],
)
def test_pickles_without_a_protocol_mark_are_known_too(tmp_path: Path, data: bytes) -> None:
    """Protocol 0, as exploits are usually written: named as what they are, whatever the file is called."""
    for file in ("evil.bin", "evil.safetensors", "evil"):
        path = tmp_path / file
        path.write_bytes(data)
        with pytest.raises(UnsafeError, match=r"would (call|build a) os\.system \(byte \d+\)"):
            open_checkpoint(path)


OUTSIDE_EVAL = [
    b"(" + text("data") + b"}t",
    b"(" + text("__import__('os')") + b"}" + text("data") + b"Nst",
    b"(" + text("data") + b"}" + text("data") + text("x") + b"st",
    text("data") + b"\x85",
]


@pytest.mark.parametrize("arguments", OUTSIDE_EVAL)
def test_eval_is_matched_in_one_shape_only(tmp_path: Path, arguments: bytes) -> None:
    """Paddle's `eval('data', {'data': array})` is a shape that is recognised; any other eval is refused by name."""
    path = tmp_path / "evil.pdparams"
    path.write_bytes(pickle_of({"w": name("builtins", "eval") + arguments + b"R"}))
    with pytest.raises(UnsafeError, match=r"would call builtins\.eval"):
        open_checkpoint(path)


def wrap(value: bytes, key: str = "w") -> bytes:
    return pickle_of({key: value})


def array(dtype: bytes, payload: bytes, shape: bytes = b"K\2\x85") -> bytes:
    made = name("numpy.core.multiarray", "_reconstruct") + name("numpy", "ndarray") + b"K\0\x85C\1b\x87R"
    return made + b"(K\1" + shape + dtype + b"\x89" + payload + b"tb"


def dtype(code: str, state: bytes = b"") -> bytes:
    return name("numpy", "dtype") + text(code) + b"\x89\x88\x87R" + state


F4 = dtype("f4", b"(K\3" + text("<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb")

RAW = {
    # row 3: containers of another type than the opcode works on
    "setitem_on_tuple": (b"\x80\x02)" + text("a") + b"K\1s.", FormatError, ["items are set in a tuple", "byte 11"]),
    "setitem_on_list": (b"\x80\x02]" + text("a") + b"K\1s.", FormatError, ["items are set in a list"]),
    "append_to_dict": (b"\x80\x02}K\1a.", FormatError, ["appended to something that is no list"]),
    "unhashable_key": (b"\x80\x02}]K\1s.", FormatError, ["a list is a key of a dict"]),
    # row 8: object and structured arrays
    "object_array": (wrap(array(dtype("O8"), b"]")), FormatError, ["`w`", "Python objects"]),
    "object_list": (wrap(array(F4, b"](K\1K\2e")), FormatError, ["`w`", "Python objects"]),
    "structured": (
        wrap(array(dtype("V8", b"(K\3" + text("|") + b"N" + text("a") + b"\x85}K\x08K\1K\x10tb"), b"C\2ab")),
        FormatError,
        ["`w`", "structured"],
    ),
    "short_array": (wrap(array(F4, b"C\7abcdefg")), FormatError, ["`w`", "f32[2] takes 8 bytes, the pickle holds 7"]),
    "shape_bomb": (wrap(array(F4, b"C\x08abcdefgh", numbers([1 << 40, 1 << 40]))), FormatError, ["`w`", "takes"]),
    "negative_shape": (wrap(array(F4, b"C\x08abcdefgh", numbers([-1]))), FormatError, ["`w`", "shape"]),
    # row 9: state on what has none, calls of records
    "build_on_name": (wrap(name("collections", "OrderedDict") + b"}b"), FormatError, ["a state is set on a global"]),
    "build_on_tensor_class": (wrap(name("torch", "Tensor") + b"}b"), FormatError, ["a state is set on"]),
    "call_a_dtype": (wrap(name("torch", "float32") + b")R"), UnsafeError, ["torch.float32"]),
    "call_a_text": (wrap(text("os.system") + b")R"), FormatError, ["no function"]),
    "wrong_rebuild": (
        wrap(name("torch._utils", "_rebuild_tensor_v2") + b")R"),
        UnsafeError,
        ["torch._utils._rebuild_tensor_v2", "as no checkpoint does", "0 arguments"],
    ),
    "rebuild_from_type": (
        wrap(
            name("torch._tensor", "_rebuild_from_type_v2")
            + b"("
            + name("collections", "OrderedDict")
            + name("torch", "Tensor")
            + b")}tR"
        ),
        UnsafeError,
        ["_rebuild_from_type_v2", "rebuilds no tensor"],
    ),
    # row 10: the registry of extensions
    "ext1": (wrap(b"\x82\x01"), UnsafeError, ["EXT", "byte 9"]),
    "ext2": (wrap(b"\x83\x01\x00"), UnsafeError, ["EXT"]),
    "ext4": (wrap(b"\x84\x01\x00\x00\x00"), UnsafeError, ["EXT"]),
    "persistent_id": (wrap(storage()), UnsafeError, ["persistent id"]),
    "text_persistent_id": (wrap(b"Pabc\n"), UnsafeError, ["persistent id"]),
    # row 12, 13: lengths and indices
    "memo_hole": (wrap(b"h\x07"), FormatError, ["never stored"]),
    "text_length": (wrap(b"\x8d" + struct.pack("<Q", 1 << 62)), FormatError, ["text of 4611686018427387904 bytes"]),
    "bytes_length": (wrap(b"\x8e" + struct.pack("<Q", 1 << 62)), FormatError, ["byte string of 4611686018427387904"]),
    "bytearray_length": (wrap(b"\x96" + b"\xff" * 8), FormatError, ["byte string of 18446744073709551615"]),
    "bytes4_length": (wrap(b"B\xff\xff\xff\xff"), FormatError, ["byte string of 4294967295 bytes"]),
    "frame_length": (b"\x80\x04\x95" + b"\xff" * 8 + b"N.", FormatError, ["frame of 18446744073709551615"]),
    "frame_crossed": (
        b"\x80\x04\x95" + struct.pack("<Q", 6) + b"}\x8c\x20" + b"a" * 32 + b"Ns.",
        FormatError,
        ["crosses the end of its frame"],
    ),
    "frame_in_frame": (
        b"\x80\x04\x95" + struct.pack("<Q", 12) + b"}\x95" + struct.pack("<Q", 1) + b"N0.",
        FormatError,
        ["frame within a frame"],
    ),
    "truncated": (wrap(b"K\1")[:-2], FormatError, ["truncated"]),
    "empty_stack": (b"\x80\x02.", FormatError, ["broken pickle"]),
    "no_mark": (b"\x80\x02t.", FormatError, ["broken pickle"]),
    "left_over": (b"\x80\x02}}.", FormatError, ["left over"]),
    "bad_protocol": (b"\x80\x02\x80\x09}.", FormatError, ["protocol 9"]),
    "bad_opcode": (wrap(b"\xff"), FormatError, ["0xff is no opcode", "byte 9"]),
    "bad_utf8": (wrap(b"X\2\0\0\0\xff\xfe"), FormatError, ["not UTF-8"]),
    "bad_global": (b"\x80\x02cos", FormatError, ["name without an end"]),
    # row 16: integers as long as one likes
    "long4": (
        wrap(b"\x8b" + struct.pack("<i", 1 << 20) + b"\1" * (1 << 20)),
        FormatError,
        ["integer of 1048576 bytes"],
    ),
    "negative_long": (wrap(b"\x8b\xff\xff\xff\xff"), FormatError, ["integer of -1 bytes"]),
    "decimal": (wrap(b"I" + b"1" * 60_000 + b"\n"), FormatError, ["cannot be"]),
    "decimal_line": (wrap(b"L" + b"1" * 1_000_000 + b"L\n"), FormatError, ["too long"]),
    # not a checkpoint at all
    "a_number": (b"\x80\x02K\1.", FormatError, ["no tensors", "but 1"]),
    "a_text": (b"\x80\x02" + text("hello") + b".", FormatError, ["no tensors", "'hello'"]),
}


def doubling(levels: int, kind: bytes) -> bytes:
    """A container that holds itself-of-one-level-less twice, `levels` times: 2**levels leaves in a few hundred bytes."""
    body = b"]K\1aq\0"
    for _ in range(levels):
        if kind == b"list":
            body = body + b"0](h\0h\0eq\0"
        elif kind == b"tuple":
            body = body + b"0h\0h\0\x86q\0"
        else:
            body = body + b"0}" + text("a") + b"h\0s" + text("b") + b"h\0sq\0"
    return b"\x80\x02" + body + b"."


BOMBS = {
    "dag_of_lists": (doubling(60, b"list"), ["unfold"]),
    "dag_of_tuples": (doubling(60, b"tuple"), ["unfold"]),
    "dag_of_dicts": (doubling(60, b"dict"), ["unfold"]),
    "itself": (b"\x80\x02]q\0h\0a.", ["nested deeper than 100"]),
    "deep_tuples": (b"\x80\x02N" + b"\x85" * 1_000_000 + b".", ["nested deeper than 100"]),
    "deep_lists": (b"\x80\x02" + b"]" * 900_000 + b"a" * 899_999 + b".", ["nested deeper than 100"]),
    "deep_marks": (b"\x80\x02" + b"(" * 500_000 + b"t" * 500_000 + b".", ["open marks"]),
    "wide_stack": (b"\x80\x02(" + b"N" * 20_000_000 + b"t.", ["waiting values"]),
    "many_dicts": (b"\x80\x02(" + b"}0" * 12_000_000 + b"t.", ["containers"]),
    "huge_memo_index": (b"\x80\x02}r\xff\xff\xff\xff" + text("a") + b"j\xff\xff\xff\xffs.", ["nested deeper than 100"]),
    "long_keys": (
        b"\x80\x02" + (b"}" + text("k" * 60_000)) * 90 + b"}" + b"".join(text(str(k)) + b"Ns" for k in range(100_000))
        + b"s" * 90 + b".",
        ["unfold"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", RAW)
def test_a_broken_pickle_is_one_clear_error(tmp_path: Path, case: str) -> None:
    """Rows 3, 8–13 and 16, in a bare pickle and inside a torch zip."""
    data, kind, parts = RAW[case]
    path = tmp_path / f"{case}.pdparams"
    path.write_bytes(data)
    with pytest.raises(kind) as caught:
        open_checkpoint(path)
    assert type(caught.value) is kind
    assert [part for part in parts if part not in str(caught.value)] == [], str(caught.value)
    zipped = tmp_path / f"{case}.pt"
    zipped.write_bytes(torch_file(data))
    if case == "persistent_id":
        return
    with pytest.raises(kind):
        open_checkpoint(zipped)


@pytest.mark.parametrize("opcode", [b")\x81", b")}\x92"])
def test_known_classes_are_not_built_either(tmp_path: Path, opcode: bytes) -> None:
    """Row 9: NEWOBJ and NEWOBJ_EX of names on the list, and a state for what they would have made."""
    path = tmp_path / "built.pdparams"
    for module, attribute in (
        ("torch", "Tensor"),
        ("torch", "FloatStorage"),
        ("torch", "Size"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("torch._utils", "_rebuild_tensor_v2"),
        ("_codecs", "encode"),
        ("torch.nn.parameter", "Parameter"),
    ):
        for state in (
            b"",
            b"}" + text("__class__") + text("os") + b"sb",
            b"}" + text("__setstate__") + text("x") + b"sb",
        ):
            path.write_bytes(wrap(name(module, attribute) + opcode + state))
            with pytest.raises(UnsafeError) as caught:
                open_checkpoint(path)
            assert f"{module}.{attribute}" in str(caught.value) and "(byte " in str(caught.value)
    path.write_bytes(
        wrap(name("collections", "OrderedDict") + opcode + b"}" + text("__class__") + name("os", "x") + b"sb")
    )
    with pytest.raises(UnsafeError, match=r"os\.x"):
        open_checkpoint(path)


def test_arrays_that_share_bytes_are_counted_and_kept_apart(tmp_path: Path) -> None:
    """Rows 13 and 19: a text of bytes used ten thousand times, or at two lengths, is no way to more than the file holds."""
    path = tmp_path / "shared.pdparams"
    size = 1 << 20
    payload = name("_codecs", "encode") + b"X" + struct.pack("<I", size) + b"a" * size + text("latin1") + b"\x86Rq\x07"

    def array_of(count: int, stored: bytes) -> bytes:
        return array(dtype("u1"), stored, b"J" + struct.pack("<i", count) + b"\x85")

    names = b"".join(text(str(number)) + array_of(size, b"h\x07") + b"s" for number in range(2_000))
    path.write_bytes(b"\x80\x02}" + text("w") + array_of(size, payload) + b"s" + names + b".")
    with pytest.raises(UnsafeError, match="its views and shared storages expand"):
        open_checkpoint(path)
    letters = "aé" * 4  # 12 bytes in the file, 8 once decoded
    payload = name("_codecs", "encode") + text(letters) + text("latin1") + b"\x86Rq\x07"
    path.write_bytes(wrap(array_of(8, payload))[:-1] + text("longer") + array_of(12, b"h\x07") + b"s.")
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.fetch("w", 0, (8,), (1,)).tobytes() == letters.encode("latin-1")
        with pytest.raises(FormatError, match="holds 8 bytes, 12 are declared"):
            checkpoint.fetch("longer", 0, (12,), (1,))


def test_nested_pickles_stay_bytes(tmp_path: Path) -> None:
    """Row 11: a pickle in a byte string or a text is shown as what it is, and nobody reads it."""
    inner = calling("os", "system", "REDUCE")[0]
    path = tmp_path / "nested.pdparams"
    path.write_bytes(
        b"\x80\x04"
        + pickle_of(
            {
                "stage2": b"C" + bytes([len(inner)]) + inner,
                "s": text(inner.decode("latin-1")),
                "t": array(F4, b"C\x08abcdefgh"),
            }
        )[2:]
    )
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.manifest.leaves["stage2"] == f"{len(inner)} bytes"
        assert "os" in checkpoint.manifest.leaves["s"]
        assert list(checkpoint.manifest) == ["t"]


def test_state_of_an_ordered_dict_is_dropped(tmp_path: Path) -> None:
    """Row 9: `_metadata`, and whatever else BUILD puts on a mapping, changes nothing of what is read."""
    path = tmp_path / "metadata.pt"
    state = b"}" + text("__class__") + text("os") + b"s" + text("_metadata") + HOOKS + b"s"
    path.write_bytes(torch_file(b"\x80\x02" + HOOKS + text("w") + tensor() + b"s" + state + b"b."))
    with open_checkpoint(path) as checkpoint:
        assert list(checkpoint.manifest) == ["w"]
        assert checkpoint.fetch("w", 0, (6,), (1,)).tobytes() == FLOATS


def test_hostile_files_are_heard_and_bounded(tmp_path: Path) -> None:
    """Every case again in a process with 1 GiB and an audit hook: it opens the files it was given and does nothing else."""
    good = tmp_path / "good.pt"
    good.write_bytes(torch_file(pickle_of({"w": tensor()})))
    plain = tmp_path / "good.pdparams"
    plain.write_bytes(pickle.dumps({"w": np.zeros(3, "f4")}, protocol=4))
    bad = tmp_path / "first.pdparams"
    bad.write_bytes(RAW["a_number"][0])
    files: list[str] = []
    for module, attribute in GADGETS:
        for how in ("REDUCE", "INST", "OBJ", "NEWOBJ"):
            data = calling(module, attribute, how)[0]
            for suffix, content in (("pdparams", data), ("pt", torch_file(data))):
                path = tmp_path / f"{module}.{attribute}.{how}.{suffix}"
                path.write_bytes(content)
                files.append(str(path))
    for case, (data, _, _) in RAW.items():
        (tmp_path / f"{case}.pdparams").write_bytes(data)
        files.append(str(tmp_path / f"{case}.pdparams"))
    for case, (data, _) in BOMBS.items():
        (tmp_path / f"{case}.pdparams").write_bytes(data)
        files.append(str(tmp_path / f"{case}.pdparams"))
    command = [sys.executable, str(HERE / "opened_apart.py"), str(good), str(plain), str(bad), "--", *files]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    report = json.loads(result.stdout)
    assert len(files) == len(report["outcomes"])
    assert [
        file for file, (error, _) in report["outcomes"].items() if error not in ("UnsafeError", "FormatError")
    ] == []
    assert [event for event in report["events"] if not any(f"'{file}'" in event for file in files)] == []
    for case, (_, parts) in BOMBS.items():
        error, message = report["outcomes"][f"{case}.pdparams"]
        assert error == "FormatError", case
        assert [part for part in parts if part not in message] == [], message


def test_nothing_in_the_package_unpickles() -> None:
    """Row 4: no fallback exists, because nothing that runs a pickle is called anywhere in the package."""
    import isomorph

    forbidden = (
        "pickle.load",
        "pickle.loads",
        "Unpickler(",
        "weights_only=False",
        "allow_pickle=True",
        "joblib",
        "dill",
    )
    found = [
        f"{path.name}: {word}"
        for path in Path(isomorph.__file__).parent.rglob("*.py")
        for word in forbidden
        if word in path.read_text()
    ]
    assert found == []
