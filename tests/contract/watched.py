"""One command line of isomorph in a process of its own, with an ear on what Python does, and its memory and bytes counted.

    python watched.py LOG convert a.pt b.safetensors      runs the command; LOG gets one JSON object

Not a test. What is heard: every audit event from the first line of the command on. `anon_peak` is the highest resident set (VmHWM,
kept by the kernel, so that no peak is missed between two looks) less the pages of files, which are those of the libraries.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import resource
import subprocess
import sys
import sysconfig
import threading
import typing
from dataclasses import dataclass, field
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
MAKERS = (dataclasses.__file__, collections.__file__, typing.__file__)
"""Modules of the standard library that make methods out of text, their own, of the fields or annotations of a class."""
CHANGING = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown", "os.utime",
            "os.setxattr", "os.mkfifo", "os.mknod", "shutil.rmtree", "shutil.copyfile", "shutil.move", "tempfile.mkstemp")  # fmt: skip


@dataclass(frozen=True)
class Seen:
    """What a command did. `opened` are (path, for writing); bytes are the kernel's counts of what was read and written."""

    code: int
    out: str
    err: str
    anon_peak: int
    read_bytes: int
    written_bytes: int
    seconds: float
    opened: tuple[tuple[str, bool], ...] = ()
    executed: tuple[str, ...] = ()
    imported: tuple[str, ...] = ()
    changed: tuple[tuple[str, str], ...] = ()
    children_peak: int = 0
    log: dict[str, Any] = field(default_factory=dict, repr=False)


def watched(*arguments: str, folder: Path, timeout: float = 120, limit: int | None = None) -> Seen:
    """Run `isomorph ARGUMENTS` in `folder`. `limit` bounds its address space, in bytes."""
    read, write = os.pipe()
    command = [sys.executable, __file__, str(write), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}

    def bounded() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        errors="surrogateescape", pass_fds=(write,), preexec_fn=bounded,
    )  # fmt: skip
    os.close(write)
    with os.fdopen(read, "rb") as log, process:
        found: list[bytes] = []
        reader = threading.Thread(target=lambda: found.append(log.read()))
        reader.start()
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        reader.join()
    log_text = json.loads(found[0]) if found[0] else {}
    if not log_text:
        raise AssertionError(f"the command died ({process.returncode}) before it could say what it did: {err[-3000:]}")
    return Seen(
        process.returncode, out, err, log_text["anon_peak"], log_text["read"], log_text["written"], log_text["seconds"],
        tuple((path, bool(writing)) for path, writing in log_text["opened"]), tuple(log_text["executed"]),
        tuple(log_text["imported"]), tuple((event, path) for event, path in log_text["changed"]), log_text["children"], log_text,
    )  # fmt: skip


def _status(key: str) -> int:
    with Path("/proc/self/status").open() as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith(key))


def _io(key: str) -> int:
    with Path("/proc/self/io").open() as counts:
        return next(int(line.split()[1]) for line in counts if line.startswith(key))


def _text(value: object) -> str:
    return os.fsdecode(value) if isinstance(value, str | bytes | os.PathLike) else f"descriptor {value}"


def main() -> None:
    log, arguments = int(sys.argv[1]), sys.argv[2:]
    os.set_inheritable(log, False)
    opened: list[tuple[str, bool]] = []
    executed: list[str] = []
    imported: list[str] = []
    changed: list[tuple[str, str]] = []
    armed = [True]

    def listen(event: str, given: tuple[Any, ...]) -> None:
        if not armed[0]:
            return
        if event == "open":
            path, mode, flags = given
            writing = isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))
            opened.append(
                (_text(path), writing or (isinstance(mode, str) and any(letter in mode for letter in "wax+")))
            )
        elif event in ("exec", "compile", "marshal.loads"):
            caller = sys._getframe(1).f_code.co_filename
            made = (
                given[0].co_filename
                if event == "exec"
                else _text(given[1])
                if event == "compile" and given[1]
                else "<string>"
            )
            if not caller.startswith("<frozen importlib") and not (made == "<string>" and caller in MAKERS):
                executed.append(f"{event} {made} from {caller}")
            elif made != "<string>" and not made.startswith(("<frozen", *LIBRARIES)):
                executed.append(f"{event} {made}, which is not of a library")
        elif event == "import":
            imported.append(str(given[0]))
        elif event.startswith(EXECUTING):
            executed.append(f"{event} {given[:2]!r:.300}")
        elif event.startswith(CHANGING):
            changed.extend((event, _text(one)) for one in given if isinstance(one, str | bytes | os.PathLike))

    sys.addaudithook(listen)
    from isomorph.cli import app

    sys.argv = ["isomorph", *arguments]
    code: object = 1
    try:
        app.main()
    except SystemExit as ended:
        code = ended.code
    finally:
        armed[0] = False
        usage = resource.getrusage(resource.RUSAGE_SELF)
        found = {
            "anon_peak": _status("VmHWM:") - _status("RssFile:"),
            "read": _io("rchar:"),
            "written": _io("wchar:"),
            "seconds": usage.ru_utime + usage.ru_stime,
            "children": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10,
            "opened": opened, "executed": executed, "imported": imported, "changed": changed,
        }  # fmt: skip
        with os.fdopen(log, "wb") as file:
            file.write(json.dumps(found).encode("utf-8", "backslashreplace"))
    sys.exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    main()
