"""Command lines of isomorph in a process of its own, with an ear on what Python does, and memory and bytes counted.

    watched("convert", "a.pt", "b.safetensors", folder=tmp_path).anon_peak

Not a test. Every audit event is heard from the first line of a command on. `anon_peak` is the highest resident set (VmHWM, kept by
the kernel, so that no peak is missed between two looks) less the pages of files, which are those of the libraries.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import io
import json
import os
import resource
import subprocess
import sys
import sysconfig
import time
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EXECUTING = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.startfile", "subprocess", "pty.spawn",
             "ctypes.", "pickle.", "code.__new__", "socket", "urllib", "webbrowser", "ensurepip", "builtins.input",
             "sys.addaudithook", "sys.settrace", "sys.setprofile", "function.__new__")  # fmt: skip
"""Events that no reading of weights needs. `compile`, `exec` and `marshal.loads` are told apart by who asks and where the code lies."""
STANDARD = sysconfig.get_path("stdlib")
LIBRARIES = tuple(
    {
        STANDARD,
        *(sysconfig.get_path(key) for key in ("purelib", "platlib")),
        str(Path(__file__).parents[2] / "src"),
        __file__,
    }
)
OF_IMPORTS = {("ctypes.dlopen", "None"), ("subprocess.Popen", "uname", "['uname', '-p']")}
"""What `import ctypes` and `import h5py` do: open the process's own symbols; ask which machine this is."""
OWN_MEMORY = "/proc/self/statm"
"""Where the process reads how much memory it has itself, so that it stops in time: no file of anybody's."""
MAKERS = (dataclasses.__file__, collections.__file__, typing.__file__)
"""Modules of the standard library that make methods out of text, their own, of the fields or annotations of a class."""
CHANGING = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown", "os.utime",
            "os.setxattr", "os.mkfifo", "os.mknod", "shutil.rmtree", "shutil.copyfile", "shutil.move", "tempfile.mkstemp")  # fmt: skip


@dataclass(frozen=True)
class Seen:
    """What a command did. `opened` are (path, for writing); `changed` (event, path); bytes are the kernel's counts, sizes in bytes."""

    code: int
    out: str
    err: str
    anon_peak: int
    children_peak: int
    read: int
    written: int
    seconds: float
    opened: list[tuple[str, bool]]
    executed: list[str]
    changed: list[tuple[str, str]]


def watched(*arguments: str, folder: Path, timeout: float = 120) -> Seen:
    """Run `isomorph ARGUMENTS` in `folder`."""
    return watched_each([arguments], folder=folder, timeout=timeout)[0]


def watched_each(
    commands: Sequence[Sequence[str]], *, folder: Path, timeout: float = 120, limit: int | None = None
) -> list[Seen]:
    """Run several, one after the other in one process. `limit` bounds its address space, in bytes."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    asked = json.dumps([[one.encode("utf-8", "surrogateescape").hex() for one in command] for command in commands])
    done = subprocess.run(
        [sys.executable, __file__, str(limit or 0)], cwd=folder, env=environment, input=asked, capture_output=True, text=True,
        timeout=timeout, check=False,
    )  # fmt: skip
    if done.returncode:
        raise AssertionError(
            f"the process died ({done.returncode}) before it could say what it did: {done.stderr[-3000:]}"
        )
    return [
        Seen(
            **{
                **found,
                "opened": [tuple(one) for one in found["opened"]],
                "changed": [tuple(one) for one in found["changed"]],
            }
        )
        for found in json.loads(done.stdout)
    ]


def _count(file: str, key: str) -> int:
    for line in Path("/proc/self", file).read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1])
    raise AssertionError(f"no {key} in /proc/self/{file}")


def _text(value: object) -> str:
    return os.fsdecode(value) if isinstance(value, str | bytes | os.PathLike) else f"descriptor {value}"


class _Ear:
    """What was heard since `hear` began."""

    def __init__(self) -> None:
        self.opened: list[tuple[str, bool]] = []
        self.executed: list[str] = []
        self.changed: list[tuple[str, str]] = []
        self.is_on = False
        sys.addaudithook(self)

    def __call__(self, event: str, given: tuple[Any, ...]) -> None:
        if not self.is_on:
            return
        if event == "open":
            path, mode, flags = given
            if _text(path) == OWN_MEMORY:
                return
            writing = isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))
            wanted = isinstance(mode, str) and any(letter in mode for letter in "wax+")
            self.opened.append((_text(path), writing or wanted))
        elif event in ("exec", "compile", "marshal.loads"):
            caller = sys._getframe(1).f_code.co_filename
            made = "<string>"
            if event == "exec":
                made = given[0].co_filename
            elif event == "compile" and given[1]:
                made = _text(given[1])
            if not caller.startswith("<frozen importlib") and not (made == "<string>" and caller in MAKERS):
                self.executed.append(f"{event} {made} from {caller}")
            elif made != "<string>" and not made.startswith(("<frozen", *LIBRARIES)):
                self.executed.append(f"{event} {made}, which is not of a library")
        elif event.startswith(EXECUTING) and (event, *map(str, given[:2])) not in OF_IMPORTS:
            self.executed.append(f"{event} {given[:2]!r:.300}")
        elif event.startswith(CHANGING):
            self.changed.extend((event, _text(one)) for one in given if isinstance(one, str | bytes | os.PathLike))


def _carried_out(ear: _Ear, arguments: list[str], run: Callable[[Sequence[str]], int]) -> dict[str, Any]:
    ear.opened, ear.executed, ear.changed = [], [], []
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace") for _ in range(2)]
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins again with what is held now
    before = {key: _count("io", key) for key in ("rchar:", "wchar:")}
    began = time.process_time()
    ear.is_on = True
    try:
        with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
            code = run(arguments)
    finally:
        ear.is_on = False
    for stream in streams:
        stream.flush()
    out, err = (stream.buffer.getvalue().decode() for stream in streams)  # type: ignore[attr-defined]
    return {
        "code": code, "out": out, "err": err, "seconds": time.process_time() - began,
        "anon_peak": _count("status", "VmHWM:") - _count("status", "RssFile:") << 10,
        "children_peak": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10,
        "read": _count("io", "rchar:") - before["rchar:"], "written": _count("io", "wchar:") - before["wchar:"],
        "opened": ear.opened, "executed": ear.executed, "changed": ear.changed,
    }  # fmt: skip


def main() -> None:
    limit = int(sys.argv[1])
    commands = [
        [bytes.fromhex(one).decode("utf-8", "surrogateescape") for one in command] for command in json.load(sys.stdin)
    ]
    if limit:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    ear = _Ear()
    from isomorph.cli.app import run

    found = [_carried_out(ear, command, run) for command in commands]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
