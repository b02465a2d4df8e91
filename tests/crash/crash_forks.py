"""Conversions in processes of their own that die, fail or are disturbed at a chosen system call.

`python crash_forks.py` imports isomorph once, reads one job a line (JSON) and forks a child for each. The child counts the calls of
`os` below, from 1, and runs `isomorph ARGUMENTS` in-process; what a job asks for happens at the n-th call:

    kill    SIGKILL before it (`torn`: a write is carried out half first)     signal    SIGINT or SIGTERM before it
    act     something is done to a file before it                             fail      it raises an errno, once or from then on

`short` lets every read and write move at most so many bytes. `calls` in the answer counts how often each was called.
"""

from __future__ import annotations

import errno
import importlib
import json
import os
import pkgutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

WATCHED = (
    "open", "pread", "preadv", "pwritev", "pwrite", "write", "sendfile", "fsync", "fdatasync", "ftruncate", "posix_fallocate",
    "link", "rename", "replace", "unlink", "rmdir", "mkdir",
)  # fmt: skip
READS, WRITES = frozenset({"pread", "preadv"}), frozenset({"pwrite", "pwritev", "write"})


class Disturbed:
    """The calls of `os`, wrapped for one job."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        self.count = 0
        self.calls: Counter[str] = Counter()
        self._lock = threading.RLock()
        for name in WATCHED:
            setattr(os, name, self._wrapped(name, getattr(os, name)))

    def _wrapped(self, name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
        job = self.job

        def call(*given: Any, **named: Any) -> Any:
            with self._lock:
                self.count += 1
                self.calls[name] += 1
                at, of_name = self.count, self.calls[name]
            if at == job.get("act_at"):
                self._act(job["act"])
            if at == job.get("signal_at"):
                os.kill(os.getpid(), getattr(signal, job["signal"]))
            if at == job.get("kill_at"):
                if job.get("torn") and name in WRITES:
                    plain(*_half(name, given), **named)
                os.kill(os.getpid(), signal.SIGKILL)
            fail = job.get("fail")
            if fail and fail["call"] == name and (of_name == fail["at"] or (fail.get("on") and of_name > fail["at"])):
                raise OSError(getattr(errno, fail["errno"]), os.strerror(getattr(errno, fail["errno"])))
            if job.get("short") and name in READS | {"pwritev", "pwrite"}:
                given = _short(name, given, job["short"])
            return plain(*given, **named)

        return call

    def _act(self, act: Sequence[Any]) -> None:
        what, path, *rest = act
        if what == "truncate":
            os.truncate(path, rest[0])
        elif what == "rewrite":
            with Path(path).open("r+b") as file:
                file.seek(-8, 2)
                file.write(b"\xff" * 8)
        elif what == "replace":
            plain = Path(path).with_suffix(".new")
            plain.write_bytes(Path(path).read_bytes())
            subprocess.run(["mv", str(plain), path], check=True)
        elif what == "remove":
            subprocess.run(["rm", path], check=True)
        else:
            raise ValueError(what)


def _half(name: str, given: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same write with the first half of its bytes."""
    if name == "pwritev":
        whole = b"".join(bytes(part) for part in given[1])
        return (given[0], [whole[: len(whole) // 2]], *given[2:])
    return (given[0], bytes(given[1])[: len(given[1]) // 2], *given[2:])


def _short(name: str, given: tuple[Any, ...], most: int) -> tuple[Any, ...]:
    """The same read or write of at most `most` bytes."""
    if name == "pread":
        return (given[0], min(given[1], most), *given[2:])
    if name == "pwrite":
        return (given[0], given[1][:most], *given[2:])
    buffers, left = [], most
    for buffer in given[1]:
        buffers.append(buffer[:left])
        left -= len(buffers[-1])
    return (given[0], buffers, *given[2:])


def child(job: dict[str, Any], answer: int) -> int:
    """Carry one job out in this process; the exit code of the command. How many calls there were is written to `answer`."""
    from isomorph.cli.app import run
    from isomorph.engine import journal, sync
    from isomorph.engine.budget import Budget

    sync.SYNC_EVERY = 1 << 15
    Budget.chunk = property(lambda self: 1 << 14)  # type: ignore[assignment,method-assign]
    os.chdir(job["cwd"])
    write = os.write
    disturbed = Disturbed(job)
    for module in (journal, sync):
        vars(module).update(sync_data=os.fdatasync)  # bound by name before it was wrapped
    code = run(job["arguments"])
    write(answer, json.dumps({"count": disturbed.count, "calls": disturbed.calls}).encode())
    return code


def serve() -> None:
    """Fork a child for each line of stdin."""
    for package in ("language", "plan", "operators", "formats", "engine", "verify", "layouts", "job", "cli"):
        for module in pkgutil.iter_modules(importlib.import_module(f"isomorph.{package}").__path__):
            if not module.name.startswith("__"):
                importlib.import_module(f"isomorph.{package}.{module.name}")
    for line in sys.stdin:
        job = json.loads(line)
        said, answer = os.memfd_create("said"), os.memfd_create("answer")
        sys.stdout.flush()
        process = os.fork()
        if process == 0:
            code = 70
            try:
                signal.signal(signal.SIGINT, signal.default_int_handler)
                os.dup2(said, 1)
                os.dup2(said, 2)
                code = child(job, answer)
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(code)
        _, status = os.waitpid(process, 0)
        counted = os.pread(answer, 1 << 16, 0)
        found = {
            "code": os.waitstatus_to_exitcode(status),
            "said": os.pread(said, 1 << 20, 0).decode(),
            **(json.loads(counted) if counted else {"count": 0, "calls": {}}),
        }
        os.close(said)
        os.close(answer)
        print(json.dumps(found), flush=True)


class Forks:
    """The server, as a context manager: `forks.run(cwd, arguments, kill_at=7)`."""

    def __enter__(self) -> Forks:
        self._server = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        return self

    def __exit__(self, *given: object) -> None:
        self._server.communicate()

    def run(self, cwd: Path, arguments: Sequence[str], **job: Any) -> dict[str, Any]:
        """The exit code (minus the signal that killed it), what was said, and how many calls of what there were."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps({"cwd": str(cwd), "arguments": list(arguments), **job}) + "\n")
        self._server.stdin.flush()
        found: dict[str, Any] = json.loads(self._server.stdout.readline())
        return found


if __name__ == "__main__":
    serve()
